"""What holds for every answer: reducing twice is reducing once, order is nothing, no text raises, time is linear."""

import json
import re
import sys
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import (
    MAX_CHARS,
    AnswerKind,
    canonical,
    detect_kind,
    label_answers,
    reading,
    similarity,
    values,
)

KINDS: list[AnswerKind] = list(get_args(AnswerKind))
QUERIES = [
    "",
    "Which colour has the sky? (A) red (B) green (C) blue",
    "Which city?\nA. Paris\nB. London\nC. New York",
    "What is 3 + 4?",
    "What is the capital of France?",
    "Is the sun a star?",
    "Which is larger, 12 or 7?",
    "Explain why the sky is blue.",
]
FRAGMENTS = [
    "answer is ", "Answer: ", r"\boxed{", "}", "#### ", '"answer": ', "yes", "No", ". ", ", ", "\n", "Question:", "</think>",
    "the ", "a ", "A", "(B)", "C) ", "7", "3.50", "-", "$", "%", "1/2", "1e5", "²", "½", "½", "seven", "million", " is ",
    "it's ", "because ", "sure! ", "let's ", "[", "]", "{", '"', "'", ":", "`", "*", "_", "\\", r"\frac{1}{2}", r"\text{", "é",
    "ＡＢ", "\u0301", "\u200b", "\x00", "\ud800", "ß", "İ", "<|im_end|>", "12 or 7", "paris", "capital", "france", "sun", "star",
    "(", " - ", "; ", "=", "/", "^", ".5", "1,2", "Mr. ", "blue", "by ", "true", "not ",
]  # fmt: skip
ODD_TEXTS = st.one_of(
    st.text(st.characters()),
    st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(text=ODD_TEXTS, query=st.sampled_from(QUERIES) | ODD_TEXTS)
@example(text="Answer: [ ]", query="")
@example(text='{"\\ud800": 1, "\\ud801": 2}', query="")
@example(text="[" + ",".join(["1e15"] * 19_000) + "]", query="")  # its canonical form is too long to be read again
@example(text="ﷺ" * (MAX_CHARS // 2), query="")
def test_reducing_an_answer_again_changes_nothing(kind, text, query):
    """Also: no text and no query raises, and every answer can be written as UTF-8."""
    once = canonical(text, kind, query=query)
    assert once is None or (once and once.encode())
    assert canonical(once, kind, query=query) == once


@given(st.data())
def test_labels_follow_their_texts_into_any_order(data):
    texts = data.draw(st.lists(ODD_TEXTS | st.none(), max_size=5))
    kind, query = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(QUERIES))
    order = data.draw(st.permutations(range(len(texts))))
    labels = label_answers(texts, kind, query=query)
    assert label_answers([texts[i] for i in order], kind, query=query) == [labels[i] for i in order]


@given(st.lists(ODD_TEXTS, max_size=5), st.sampled_from(QUERIES))
def test_detection_names_a_kind_and_never_raises(texts, query):
    assert detect_kind(query, texts) in set(KINDS) - {"auto", "tool_calls"}


@pytest.mark.parametrize("text", ["a" * 10_000_000, "1 " * 5_000_000, "[" * 10_000_000, "\x00" * 10_000_000])
def test_ten_megabytes_are_read_at_their_ends_only(text):
    assert len(values.clean(text)) <= MAX_CHARS
    for kind in KINDS:
        answer = canonical(text, kind, query=text)
        assert answer is None or len(answer) <= MAX_CHARS


def test_a_letter_carries_at_most_thirty_marks():
    """Unicode normalization sorts a run of marks, in time quadratic in the run: "a" and 30 marks are 31 characters."""
    assert len(values.clean("a" + "\u0316\u0300" * 10_000)) <= 31


def test_the_last_mark_counts_behind_megabytes_of_thought():
    assert canonical("x" * 10_000_000 + " The answer is 7.", "number") == "7"


def _patterns():
    for module in (values, reading):
        for name, value in vars(module).items():
            group = value if isinstance(value, tuple) else (value,)
            for entry in group:
                pattern = entry[0] if isinstance(entry, tuple) and entry else entry
                if isinstance(pattern, re.Pattern):
                    yield pytest.param(pattern, id=f"{name}: {pattern.pattern[:30]}")


def _repeats(parsed, above=()):
    """Yield each repetition that can vary, with those around it; depends on the private parse tree of `re`."""
    for operator, argument in parsed:
        name = str(operator)
        if name.endswith("_REPEAT"):
            low, high, inner = argument
            varies = high > max(low, 1)
            if varies:
                yield high, above
            yield from _repeats(inner, (*above, high) if varies else above)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from _repeats(branch, above)
        elif name == "SUBPATTERN":
            yield from _repeats(argument[3], above)
        elif name in {"ASSERT", "ASSERT_NOT"}:
            yield from _repeats(argument[1], above)


@pytest.mark.parametrize("pattern", list(_patterns()))
def test_no_pattern_can_take_more_than_linear_time(pattern):
    """A pattern of bounded width does a bounded amount at each place, so that a search is linear in the text.

    Without bounds: one class repeated and nothing else (it never fails after it has begun), or a pattern used only by
    `fullmatch` on a piece of bounded length. No repetition stands within another.
    """
    parsed = re._parser.parse(pattern.pattern, pattern.flags)
    repeats = list(_repeats(parsed))
    assert not any(above for _, above in repeats)
    matched_whole = {values._PLAIN, values._GROUPED, values._EUROPEAN, reading._ONLY_NUMBERS}
    one_class = len(parsed) == 1 and str(parsed[0][0]) == "MAX_REPEAT"
    if pattern not in matched_whole and not one_class:
        assert parsed.getwidth()[1] < 3_000


def _opcodes(function) -> int:
    """Count the Python instructions that a call executes: the same on every machine."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "auto"])
@pytest.mark.parametrize(
    "unit",
    ["a", "1", "1 ", "answer is ", r"\boxed{", "(A) ", "A) b\n", "- a\n", "[", '{"a":', "```", "yes or ", "is ", ". ", "\u0301"],
)  # fmt: skip
def test_twice_the_text_takes_at_most_twice_the_steps(kind, unit):
    def steps(length):
        text = (unit * length)[:length]
        return _opcodes(lambda: canonical(text, kind, query=text))

    assert steps(3_000) <= 2.1 * steps(1_500) + 2_000


@given(st.text(), st.text())
def test_similarity_is_symmetric_bounded_and_one_for_equal_texts(a, b):
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert similarity(a, a) == 1.0
    assert similarity(f"  {a.upper()} ", a.upper()) == 1.0

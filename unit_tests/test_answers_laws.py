"""What holds for every answer: comparing is symmetric, order is nothing, no text raises, time is linear, in any thread."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import (
    MAX_CHARS,
    canonical,
    compare_answers,
    dates,
    kind_names,
    label_answers,
    quantities,
    reading,
    score_answer,
    statements,
    values,
)
from support_patterns import repeats_of

KINDS = kind_names()
QUERIES = [
    "", "Which colour has the sky? (A) red (B) green (C) blue", "Which city?\nA. Paris\nB. London\nC. New York",
    "What is 3 + 4?", "What is the capital of France?", "Is the sun a star?", "Which is larger, 12 or 7?",
    "Explain why the sky is blue.",
]  # fmt: skip
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
@settings(max_examples=20)
@given(text=ODD_TEXTS, other=ODD_TEXTS, query=st.sampled_from(QUERIES) | ODD_TEXTS)
@example(text="Answer: [ ]", other="[", query="")
@example(text='{"\\ud800": 1, "\\ud801": 2}', other="\ud800", query="")
@example(text="ﷺ" * (MAX_CHARS // 2), other="ﷺ", query="")
def test_no_text_raises_every_label_can_be_written_and_a_text_is_the_same_as_itself(kind, text, other, query):
    labels = label_answers([text, other, text], kind, query=query)
    assert labels[0] == labels[2]
    assert all(label is None or (label and label.encode()) for label in labels)
    assert score_answer(text, other, kind, query=query) in {0.0, 1.0}


@given(st.data())
def test_labels_follow_their_texts_into_any_order(data):
    texts = data.draw(st.lists(ODD_TEXTS | st.none(), max_size=5))
    kind, query = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(QUERIES))
    order = data.draw(st.permutations(range(len(texts))))
    labels = label_answers(texts, kind, query=query)
    assert label_answers([texts[i] for i in order], kind, query=query) == [labels[i] for i in order]


SAYINGS = ["7", "seven", "7.0", "8", "-7", "The answer is 7.", "12 or 7", "$7", "7 km", "7 miles", "Paris", "It is Paris.", "Rome",
    "(A)", "B", "yes", "No.", "blue", '{"a": 1}', "", None, "It is not Paris.", "1. Paris\n2. Rome", "Rome, Paris", "x^2"]  # fmt: skip


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(SAYINGS), max_size=5),
    st.lists(st.sampled_from(SAYINGS), max_size=3),
    st.sampled_from(QUERIES),
)
def test_a_final_comparison_stays_as_it_is_whatever_comes(texts, more, query):
    before = compare_answers(texts, query=query)
    if before.is_final:
        after = compare_answers([*texts, *more], query=query).labels[: len(texts)]
        assert [[a == b for b in before.labels] for a in before.labels] == [[a == b for b in after] for a in after]


def test_equal_answers_are_final_and_answers_that_another_could_part_are_not():
    assert compare_answers(["7", "7", "8"], query="What is 3 + 4?").is_final
    assert not compare_answers(["7", "$7"], query="What is 3 + 4?").is_final


def test_threads_and_event_loops_compare_alike():
    """Mathematics, too, whose library bounds its work by signals, which only the main thread may use."""
    said = [r"$\frac{1}{2}$", "0.5", r"$x^2 + 2x + 1$", r"$(x+1)^2$", "4 July 1776", "July 4th, 1776", "x = 2"]
    expected = label_answers(said)
    assert expected[0] == expected[1]
    assert expected[4] == expected[5]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(label_answers, [said] * 8)) == [expected] * 8

    async def compare():
        return await asyncio.gather(*(asyncio.to_thread(label_answers, said) for _ in range(4)), _now(said))

    assert asyncio.run(compare()) == [expected] * 5


async def _now(said):
    return label_answers(said)


@pytest.mark.parametrize("text", ["a" * 2_000_000, "[" * 2_000_000])
def test_megabytes_are_read_at_their_ends_only(text):
    assert len(values.clean(text)) <= MAX_CHARS
    for kind in ("auto", "option", "json", "short_text"):
        answer = canonical(text, kind, query=text)
        assert answer is None or len(answer) <= MAX_CHARS


def test_the_last_mark_counts_behind_megabytes_of_thought():
    assert canonical("x" * 2_000_000 + " The answer is 7.", "number") == "7"


def _patterns():
    """Yield what reads any text: the file or module, the name, and the pattern."""
    for file in ("patterns", "choices", "dates", "quantities"):
        words = values.Words(file)
        for name, entry in words.entries.items():
            if file == "patterns" or (isinstance(entry, str) and re.search(r"[(\[\\]", entry) and "|" not in name):
                yield file, name, getattr(words, name)
    for module in (values, reading, dates, quantities, statements):
        for name, value in vars(module).items():
            for entry in value if isinstance(value, tuple) else (value,):
                pattern = entry[0] if isinstance(entry, tuple) and entry else entry
                if isinstance(pattern, re.Pattern):
                    yield module.__name__.rpartition(".")[2], name, pattern
    yield "dates", "half of the day", dates._names((True,) * len(dates._SCRIPTS)).half


@pytest.mark.parametrize(("place", "name", "pattern"), [pytest.param(*row, id=row[1]) for row in _patterns()])
def test_no_pattern_can_take_more_than_linear_time(place, name, pattern):
    """A pattern of bounded width does a bounded amount at each place, so that a search is linear in the text.

    Without bounds: one class repeated and nothing else (it never fails after it has begun), or a pattern used only by
    `fullmatch` on a piece of bounded length. A repetition within another is a short one.
    """
    parsed = re._parser.parse(pattern.pattern, pattern.flags)
    is_strict = place in {"dates", "quantities"}
    assert not any(around > (1 if is_strict else 8) for _, above in repeats_of(parsed) for around in above)
    one_class = len(parsed) == 1 and str(parsed[0][0]) == "MAX_REPEAT"
    if (place, name) not in {("values", one) for one in ("_PLAIN", "_GROUPED", "_EUROPEAN")} and not one_class:
        assert parsed.getwidth()[1] < (3_000 if is_strict else 30_000)

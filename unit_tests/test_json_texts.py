"""JSON texts: which JSON of a text is its answer."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers.values import find_json, json_in

BOB, WRONG = '{"name": "Bob"}', '{"name": "Wrong"}'
OPENINGS = ["<think>", "<thinking>", "<THINK>", "<|think|>", "[THINK]", "◁think▷", "<reasoning>", "<thought>", "<seed:think>",
            "<|begin_of_thought|>", '<think lang="en">', "< think >", "<scratchpad>", "<reflection>"]  # fmt: skip
CLOSINGS = ["</think>", "</thinking>", "</THINK>", "<|/think|>", "[/THINK]", "◁/think▷", "</reasoning>", "</thought>", "</seed:think>",
            "<|end_of_thought|>", "</think>", "< / think >", "</scratchpad>", "</reflection>"]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), [*zip(OPENINGS, CLOSINGS, strict=True)])
def test_what_is_thought_never_counts(opening, closing):
    thought = f"{opening}Maybe {WRONG}? Or ```json\n{WRONG}\n```{closing}"

    assert json_in(f"{thought}\n{BOB}") == [{"name": "Bob"}]
    assert json_in(f"{thought}\n```json\n{BOB}\n```") == [{"name": "Bob"}]
    assert json_in(f"{thought}\nIt is Bob.") == []
    assert json_in(f"Maybe {WRONG}? {closing} {BOB}") == [{"name": "Bob"}]
    assert json_in(f"{BOB} {opening} {WRONG}") == [{"name": "Bob"}]
    assert json_in(f"{opening} {WRONG}") == []


def test_thoughts_within_thoughts_end_with_the_outer_ones():
    assert json_in(f"<think>a <think>b</think> {WRONG}</think>{BOB}") == [{"name": "Bob"}]


def test_the_final_channel_is_the_answer():
    text = f"<|channel|>analysis<|message|>{WRONG}<|end|><|start|>assistant<|channel|>final<|message|>{BOB}"

    assert json_in(text) == [{"name": "Bob"}]
    assert json_in(f"<|channel>thought\n{WRONG}<channel|>{BOB}") == [{"name": "Bob"}]


@pytest.mark.parametrize("text", ["</think>", "<think>", "a <think> b </think> c"])
def test_marks_of_thinking_in_a_string_are_a_string(text):
    said = json.dumps({"html": text})

    assert json_in(said) == [{"html": text}]
    assert json_in(f"<think>hm</think> Here: {said}") == [{"html": text}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{WRONG} No, it is {BOB}.", [{"name": "Bob"}, {"name": "Wrong"}]),
        (f"```json\n{WRONG}\n```\nNo:\n{BOB}", [{"name": "Bob"}, {"name": "Wrong"}]),
        (f"{WRONG}\nNo:\n```json\n{BOB}\n```", [{"name": "Bob"}, {"name": "Wrong"}]),
        ('{"a": {"b": {"c": 1}}} end', [{"a": {"b": {"c": 1}}}]),
        ('```\n[{"a": 1}, {"a": 2}]\n```', [[{"a": 1}, {"a": 2}]]),
        (f"{BOB} and [[1]] and {{}}", [{"name": "Bob"}, [[1]], {}]), ("[1]", [[1]]), (" 3 ", [3]), ("null", [None]),
        ("Bob [1] says so", []), (r"\frac{1}{2} { x } {y: 1}", []), ('{"a": "two\nlines"}', [{"a": "two\nlines"}]),
        ("", []),
    ],
)  # fmt: skip
def test_of_several_objects_the_last_is_the_best(text, found):
    assert json_in(text) == found


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "r", "kids": [{"name": "x", "kids": []}, {"name": "y", "ki',
        '{"name": "r", "kids": [{"name": "x", "kids": []}',
        f'Draft {WRONG}. Final: {{"name": "Bo',
        f'Draft {WRONG}. Final: {{"name": ',
    ],
)
def test_neither_a_part_of_what_breaks_off_nor_a_draft_before_it_is_an_answer(text):
    assert json_in(text) == []


def test_a_part_of_a_broken_object_is_no_object_and_one_after_it_is():
    assert json_in('{"of": {"name": "x"}, oops}') == []
    assert json_in(f'{{"of": {{"name": "x"}}, oops}} {BOB}') == [{"name": "Bob"}]


@pytest.mark.parametrize("unit", ["{", '{"', '{"a":1} ', "[{", "<think>", "</think>", "{}", "{ ", '{"x"} '])
def test_an_answer_after_much_else_is_found_in_a_moment(unit):
    text = unit * (300_000 // len(unit))
    begun = time.process_time()
    found = json_in(f"{text}\n\n{BOB}")

    assert time.process_time() - begun < 3
    assert found[:1] == [{"name": "Bob"}] or unit in {'{"', "[{", "<think>"}


def test_brackets_too_deep_to_read_are_tried_once():
    """20,000 brackets: the whole text, then its first bracket; from each of the others the same would fail again."""

    class Counting(json.JSONDecoder):
        tried = 0

        def raw_decode(self, *given):
            self.tried += 1
            return super().raw_decode(*given)

    decoder = Counting(strict=False)
    assert json_in("[" * 20_000, decoder) == []
    assert decoder.tried == 2


def test_find_json_takes_the_last_object_and_no_thought():
    assert find_json(f"<think>{WRONG}</think> {WRONG} {BOB}") == {"name": "Bob"}
    assert find_json("The list is [1, 2].") == ["1", "2"]
    assert find_json('{"a":' * 200 + "1" + "}" * 200) is None
    assert find_json("\ud800") is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_text_that_is_json_is_what_it_says(value):
    assert json_in(json.dumps(value)) == [value]

"""Labels are called final only where no text still to come can change them, and in the usual cases they are."""

from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import AnswerKind, label_answers
from langchain_rlfocal.answers.settling import labels_are_final
from langchain_rlfocal.errors import InputError

KINDS: list[AnswerKind] = list(get_args(AnswerKind))
LETTERS = "Which city is it?\n(A) Paris\n(B) Rome"
FACT = "What is the capital of France?"
YES_NO = "Is the sun a star?"
SUM = "What is 3 + 4?"
COUNT = "How many legs has a spider?"
DIGITS = "Who won the world cup in 1998?"
OFFERED = "Which is larger, 12 or 7?"
PROSE = "Explain why the sky is blue."
QUERIES = ["", LETTERS, FACT, YES_NO, SUM, COUNT, DIGITS, OFFERED, PROSE]

LONG = "The light of the sun is scattered by the air and blue light more than red since its waves are shorter. " * 8
CALL = '{"name": "search", "arguments": {"q": "paris"}}'

SHORT_TEXTS = ["Paris", "It is Paris.", "Rome", "(A)", "B", "yes", "No.", "France", "I do not know", "blue"]
NUMBERS = [
    "7",
    "8",
    "-7",
    "0",
    "seven",
    "7.0",
    "The answer is 7.",
    "12 or 7",
    "1998",
    "2000000",
    "2000001",
    "3.5",
    "1/3",
]
JSON = ['{"a": 1}', '{"a": 1.0}', "[]", '{"answer": 7}', CALL, f"[{CALL}]", "```json\n[7]\n```", "{"]
BLANKS = [None, "", " \n"]
WORDY = [
    LONG,
    f"{LONG} The answer is 7.",
    LONG.replace("blue", "violet"),
    "7 " * 300,
    "so " * 13,
    "so " * 31,
    "so " * 61,
]
TEXTS = st.sampled_from([*SHORT_TEXTS, *NUMBERS, *JSON, *BLANKS, *WORDY])
PIECES = ["a", " ", "\n", "7", ".", "{", "}", "[", "]", '"', "-", "answer: ", "é", "\ud800", "yes"]
ODD = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@st.composite
def teams(draw):
    """Texts that are here, mostly alike, as those of members that were asked the same."""
    alike = draw(st.sampled_from([SHORT_TEXTS, NUMBERS, JSON, WORDY, [*SHORT_TEXTS, *NUMBERS]]))
    return draw(st.lists(st.sampled_from([*alike * 3, *BLANKS]) | TEXTS, max_size=5))


@st.composite
def newcomers(draw, texts, running):
    """Texts meant to change the labels of others: extremes, all alike or mixed, numbers close by, copies with changes."""
    near = st.builds(
        lambda number, shift: f"{number * (1 + shift):.12f}",
        st.sampled_from([0, 7, 8, 12, 1 / 3, 3.5, 1998, 2_000_000, 2_000_001]),
        st.sampled_from([-3e-7, -1e-9, 1e-9, 3e-7]),
    )
    said = st.sampled_from([text for text in texts if text] or ["7"])
    changed = st.builds(
        lambda text, more: f"{text}{more}", said, st.sampled_from([".", " ", "7", LONG, "\n[]", "0001"])
    )
    text = draw(TEXTS | near | changed | said | ODD)
    if draw(st.booleans()):
        return [text] * draw(st.integers(0, running))
    return draw(st.lists(TEXTS | near | changed | said | ODD, max_size=running))


@settings(max_examples=400)
@given(st.data())
def test_no_text_that_comes_changes_a_label_that_is_final(data):
    texts, kind = data.draw(teams()), data.draw(st.sampled_from([*KINDS, "auto", "auto", "auto", "auto"]))
    query, running = data.draw(st.sampled_from(QUERIES)), data.draw(st.integers(0, 4))
    assume(labels_are_final(texts, kind, query=query, running=running))
    more = data.draw(newcomers(texts, running))
    labels = label_answers(texts, kind, query=query)
    assert label_answers([*texts, *more], kind, query=query)[: len(texts)] == labels


@given(teams(), st.sampled_from(KINDS), st.sampled_from(QUERIES), st.integers(0, 4))
def test_what_is_final_is_so_for_fewer_texts_to_come_and_in_any_order(texts, kind, query, running):
    if labels_are_final(texts, kind, query=query, running=running):
        assert labels_are_final(texts[::-1], kind, query=query, running=max(running - 1, 0))


@pytest.mark.parametrize(
    ("texts", "kind", "query", "running"),
    [
        ([], "auto", FACT, 9),
        ([None, " "], "auto", PROSE, 9),
        (["(A)"], "auto", LETTERS, 9),
        (["(A)", None, LONG], "auto", LETTERS, 9),
        (["Yes."], "auto", YES_NO, 9),
        (["Yes, it is.", "no"], "auto", YES_NO, 9),
        (["Paris"], "short_text", FACT, 9),
        (["A"], "option", "", 9),
        (['{"a": 1}', LONG], "json", "", 9),
        ([CALL], "tool_calls", "", 9),
        (["Paris", "Paris"], "auto", FACT, 1),
        (["Paris", "It is Paris.", "Rome"], "auto", FACT, 2),
        (["France", "Brazil"], "auto", DIGITS, 1),
        (["8", "eight", "7", None], "number", COUNT, 9),
        (["8", "The answer is 8."], "auto", COUNT, 1),
        (["7", "7", "-7", "12345678"], "auto", SUM, 2),
        (["$12.50", "3.1416"], "number", SUM, 9),
        ([None, ""], "long_text", PROSE, 0),
        ([LONG, "7"], "auto", PROSE, 0),
    ],
)
def test_labels_are_final_in_the_usual_cases(texts, kind, query, running):
    assert labels_are_final(texts, kind, query=query, running=running)


@pytest.mark.parametrize(
    ("texts", "kind", "query", "more"),
    [
        (["It is Paris."], "auto", FACT, [LONG]),  # half of two is long
        (["It is Paris.", "Rome"], "auto", FACT, [LONG, LONG]),
        (["It is Paris.", LONG, LONG], "auto", FACT, ["Paris", "Paris"]),
        (["7", "It is Paris."], "auto", DIGITS, ["8"]),  # two numbers in three texts
        (["seven", "7.0", "the 7 dwarfs"], "auto", SUM, ["no idea"] * 2),  # three in five are no longer two in three
        (["1999999.5"], "number", SUM, ["2000000"]),
        (["3.4999999"], "number", SUM, ["3.5"]),
        (["1/3", "0.33333333"], "number", SUM, ["0.333333"]),
        (["1e21"], "number", SUM, ["999999999999999999999"]),  # whole, and 1e+21 is not written as such
        (['{"a": 1.0}'], "auto", "", ["Paris"]),
        ([LONG], "long_text", PROSE, [f"{LONG} And so it is.", f"{LONG} And so, yes."]),
    ],
)
def test_labels_that_some_text_would_change_are_not_final(texts, kind, query, more):
    assert label_answers([*texts, *more], kind, query=query)[: len(texts)] != label_answers(texts, kind, query=query)
    assert not labels_are_final(texts, kind, query=query, running=len(more))


@pytest.mark.parametrize("here", range(1, 8))
def test_short_texts_are_final_while_they_are_more_than_those_to_come(here):
    """The median of `here` texts of one word and of `running` endless ones is one word for running < here."""
    texts = ["Paris"] * here
    finals = [labels_are_final(texts, query=FACT, running=running) for running in range(8)]
    assert finals == [running < here for running in range(8)]


@pytest.mark.parametrize("here", range(1, 8))
def test_a_kind_of_number_is_final_while_two_in_three_hold_one_whatever_comes(here):
    texts = ["8"] * here
    finals = [labels_are_final(texts, query=COUNT, running=running) for running in range(8)]
    assert finals == [3 * here >= 2 * (here + running) for running in range(8)]


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="`kind` must be one of"):
        labels_are_final(["7"], "letter", running=0)

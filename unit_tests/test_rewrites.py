"""Rewritings ask the same in another way, and what a policy makes of them is counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation import rewrites
from langchain_rlfocal.evaluation.rewrites import ENDS, REWRITES, option_marks, rewritten, with_other_end, with_typos
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

QUESTION = "Which metal melts first?\nA) gold, vitamin A) aside\nB) mercury\nC) iron\nAnswer:"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lower case", "which metal melts first?\na) gold, vitamin a) aside\nb) mercury\nc) iron\nanswer:"),
        ("options A:", "Which metal melts first?\nA) gold, vitamin A: aside\nB: mercury\nC: iron\nAnswer:"),
        ("options (a)", "Which metal melts first?\nA) gold, vitamin (a) aside\n(b) mercury\n(c) iron\nAnswer:"),
        ("one line", "Which metal melts first? A) gold, vitamin A) aside B) mercury C) iron Answer:"),
    ],
)
def test_rewritings_that_draw_nothing_match_hand_written_ones(name, expected):
    """Of two A's in a row the latter begins the run."""
    assert REWRITES[name](QUESTION) == expected


@pytest.mark.parametrize(
    "text", ["", "A) alone", "B) no C) first", "A)x B)y", "I. am not J. an option", "Ha) ha) a) b"]
)
def test_what_is_no_run_of_marks_is_left_alone(text):
    assert option_marks(text, "{}:".format) == text


def test_marks_of_all_kinds_are_found_in_one_line_too():
    assert option_marks("(a) x (b) y", "{}:".format) == "A: x B: y"
    assert option_marks("A. x B. y A: z", "({})".format) == "(A) x (B) y A: z"


@given(st.text(max_size=80))
def test_every_rewriting_takes_any_text_and_gives_the_same_again(text):
    for rewrite in REWRITES.values():
        assert rewrite(text) == rewrite(text)
    other = with_other_end(text)
    assert other != text
    assert any(other == text.rstrip(".?!: \n") + end for end in ENDS)


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=40).map(" ".join))
def test_typos_keep_the_letters_of_each_word_and_its_first(text):
    for old, new in zip(text.split(), with_typos(text).split(), strict=True):
        assert sorted(old) == sorted(new)
        assert old[0] == new[0]
        assert sum(a != b for a, b in zip(old, new, strict=True)) in (0, 2)
        if len(old) < 4:
            assert old == new


def test_about_one_word_in_ten_has_a_typo():
    words = [f"letters{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)]
    changed = np.mean([a != b for a, b in zip(words, with_typos(" ".join(words)).split(), strict=True)])
    assert 0.05 < changed < 0.15


GRID = OutcomeTable.from_outcomes(
    Outcome(task="t", query_id=str(q), query=text, model=model, answer="x", reward=float(model == "a"))
    for q, text in enumerate(["what is it", "What Is It?", "NOW", "name an island"])
    for model in "ab"
).grid(["a", "b"])


def test_what_a_policy_does_otherwise_is_counted_by_hand(monkeypatch):
    """Of a text with capitals it asks `a` alone, else both at once, but for `now` first `a` and then `b`.

    As they are: both; a; a; both, 6 calls. In lower case: both; both; a and then b; both, 8 calls. Two texts change, and the
    first team of one of them. It is right where it asks `a` alone: half of the time before, never after.
    """

    def replayed(policy, grid, **settings):
        assert (policy, settings) == ("policy", {"cost_weight": 0.5})
        asked_in = np.array(
            [[1, 0] if q != q.lower() else [1, 2] if q == "now" else [1, 1] for q in grid.queries], dtype=np.int64
        )
        calls = (asked_in > 0).sum(axis=1)
        return SimpleNamespace(asked_in=asked_in, scores=(calls == 1) * 1.0, calls=calls, spent=calls / 2)

    monkeypatch.setattr(rewrites, "replay", replayed)
    found = rewritten("policy", GRID, cost_weight=0.5)
    assert tuple(found) == tuple(REWRITES)
    assert len(found) == 8
    assert found["lower case"].as_dict() == {
        "texts_changed": 2 / 4,
        "first_teams_kept": 3 / 4,
        "score": 0.0,
        "score_change": -2 / 4,
        "mean_calls": 8 / 4,
        "calls_change": 2 / 4,
        "spending_change": pytest.approx(8 / 6 - 1),
        "n": 4,
    }
    assert (found["one line"].texts_changed, found["one line"].first_teams_kept) == (0.0, 1.0)


def test_a_query_whose_answer_is_not_on_record_counts_for_its_first_team_only(monkeypatch):
    """Of four, the first is not on record as it is and the last not in capitals: the two others stay."""

    def replayed(policy, grid):
        changed = [q for q, text in enumerate(grid.queries) if text != GRID.queries[q]]
        scores = np.array([np.nan, 1.0, 1.0, np.nan if changed else 0.5])
        asked_in = np.ones((4, 2), dtype=np.int64)
        return SimpleNamespace(asked_in=asked_in, scores=scores, calls=asked_in.sum(axis=1), spent=np.ones(4))

    monkeypatch.setattr(rewrites, "replay", replayed)
    found = rewritten("policy", GRID)
    figures = found["lower case"]
    assert (figures.n, figures.score, figures.score_change, figures.first_teams_kept) == (2, 1.0, 0.0, 1.0)
    assert found["one line"].n == 3


def test_nothing_is_rewritten_on_no_query(monkeypatch):
    none = SimpleNamespace(asked_in=np.zeros((0, 2)), scores=np.zeros(0), calls=np.zeros(0), spent=np.zeros(0))
    monkeypatch.setattr(rewrites, "replay", lambda *_: none)
    with pytest.raises(InputError, match="Of 0 queries, at least one must"):
        rewritten("policy", GRID.take([]))

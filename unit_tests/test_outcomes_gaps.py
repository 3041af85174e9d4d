"""Gaps: a query that a member did not answer is left out, or counted as its failure, and always counted."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

NUMBERS = ("cost_usd", "latency_s", "prompt_tokens", "completion_tokens", "logprobs", "response_chars")


def outcome(query_id, model, answer="x", *, task="t", **more):
    known = {"reward": 1.0, "response": "x", "cost_usd": 0.5, "latency_s": 1.0, "logprob": -1.0}
    known |= {"prompt_tokens": 3, "completion_tokens": 1}
    return Outcome(
        task=task, query_id=query_id, query=f"{task} {query_id}?", model=model, answer=answer, **known | more
    )


def grid_of(*rows, **options):
    return OutcomeTable.from_outcomes(rows).grid(["a", "b"], **options)


def test_a_missing_answer_is_the_members_failure_where_the_caller_says_so():
    """`a` alone answered q1, `b` alone q2, both q3, neither q4: three queries are kept, two with a gap."""
    rows = [
        outcome("q1", "a", gold="x"),
        outcome("q2", "b", "y", gold="y"),
        outcome("q3", "b"),
        outcome("q3", "a"),
        outcome("q4", "c"),
    ]
    grid = grid_of(*rows, missing="fail")
    assert grid.query_ids == ["q1", "q2", "q3"]
    assert grid.queries == ["t q1?", "t q2?", "t q3?"]
    assert grid.golds == ["x", "y", None]
    assert (grid.dropped, grid.missing) == (0, 2)
    assert grid.answers.tolist() == [["x", None], [None, "y"], ["x", "x"]]
    assert grid.answer_ids.tolist() == [[0, -1], [-1, 1], [0, 0]]
    assert grid.scores.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    for name in NUMBERS:
        assert np.isnan(getattr(grid, name)).tolist() == [[False, True], [True, False], [False, False]]
    assert (grid.take([0, 1]).missing, len(grid.take([0, 1]))) == (0, 2)


def test_gaps_are_left_out_by_default():
    rows = [outcome("q1", "a"), outcome("q2", "b"), outcome("q3", "a"), outcome("q3", "b"), outcome("q4", "c")]
    for grid in (grid_of(*rows), grid_of(*rows, missing="drop")):
        assert grid.query_ids == ["q3"]
        assert (grid.dropped, grid.missing) == (3, 0)


def test_a_pool_without_a_common_query_has_a_grid_of_failures():
    assert grid_of(outcome("q1", "a"), outcome("q2", "b"), missing="fail").scores.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_member_that_answered_nothing_is_refused_rather_than_failed():
    """`b` is in the table, but not in the task that is asked for."""
    rows = [outcome("q1", "a"), outcome("q1", "b", task="s")]
    with pytest.raises(OutcomeError, match=r"got none by \['b'\]. Leave them out of the pool"):
        grid_of(*rows, task="t", missing="fail")


def test_a_way_with_gaps_that_is_none_is_refused():
    with pytest.raises(InputError, match="must be one of drop, fail, got 'Fail'"):
        grid_of(outcome("q1", "a"), outcome("q1", "b"), missing="Fail")


@given(st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=8))
def test_the_two_ways_agree_wherever_nothing_is_missing(answered):
    """Queries without a gap are laid out alike, and kept, dropped and missing add up."""
    rows = [outcome(str(q), m, m * (q % 3)) for q, names in enumerate(answered) for m in sorted(names)]
    assume(all(any(name in names for names in answered) for name in "ab"))
    failed = grid_of(*rows, missing="fail")
    is_whole = ~np.isnan(failed.cost_usd).any(axis=1)
    assert (len(failed), failed.missing) == (sum(bool(names & {"a", "b"}) for names in answered), (~is_whole).sum())
    assume(is_whole.any())
    dropped, whole = grid_of(*rows), failed.take(is_whole)
    assert len(dropped) + dropped.dropped == sum(map(bool, answered))
    assert dropped.query_ids == whole.query_ids
    for name in ("answers", "answer_ids", "scores", *NUMBERS):
        assert getattr(dropped, name).tolist() == getattr(whole, name).tolist()


def test_the_length_of_a_response_is_counted_in_characters():
    """é is one character of two bytes; what was not recorded has no length, what is empty has length 0."""
    grid = OutcomeTable.from_outcomes(
        [outcome(str(q), "a", response=text) for q, text in enumerate(("née", "", None, "😀 ok"))]
    ).grid(["a"])
    np.testing.assert_array_equal(grid.response_chars[:, 0], [3.0, 0.0, np.nan, 4.0])
    assert grid.response_chars.dtype == np.float64


def test_several_tasks_may_be_named_together():
    """They stand in the table's order, however they are named, and one that two names match stands once."""
    table = OutcomeTable.from_outcomes([outcome("q", "a", task=task) for task in ("maths/sums", "law", "maths/logs")])
    assert table.grid(["a"], task=["maths/logs", "law"]).tasks == ["law", "maths/logs"]
    assert table.grid(["a"], task=("maths/*", "maths/sums")).tasks == ["maths/sums", "maths/logs"]
    with pytest.raises(
        OutcomeError, match=r"must match a task of the table, got 'art/\*'. Its tasks begin: maths/sums"
    ):
        table.grid(["a"], task=["law", "art/*"])
    with pytest.raises(OutcomeError, match=r"at least one task, got \[\]. Pass None for all"):
        table.grid(["a"], task=[])

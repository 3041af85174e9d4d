"""Options: what each is called is learned from the whole task, and choosing one is worth what its answer is worth."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.outcomes import Outcome, OutcomeTable

nan = np.nan
BBH = Path(os.environ.get("RLFOCAL_DATA", "no-such-folder")) / "bbh.parquet"


def said(query_id, model, answer, *probs, task="t", gold="A", **more):
    return Outcome(
        task=task,
        query_id=query_id,
        query=f"{task} {query_id}?",
        model=model,
        answer=answer,
        gold=gold,
        option_probs=probs or None,
        **{"reward": float(answer == gold), **more},
    )


def grid_of(*rows, members=("a", "b"), **options):
    return OutcomeTable.from_outcomes(rows).grid(list(members), **options)


TWO_QUERIES = [
    said("q1", "a", "A", 0.5, 0.3, 0.2, gold="C"),
    said("q1", "b", "B", 0.1, 0.8, 0.1, gold="C"),
    said("q2", "a", "A", 0.6, 0.2, 0.2),
    said("q2", "b", "C", 0.2, 0.3, 0.5),
]


def test_an_option_that_no_member_ranked_first_has_a_name_an_id_and_a_score():
    """In q1 nobody says the right C, in q2 nobody says B; both are named by the other query's rows.

    With M = 2 their ids are 2 + 2 and 2 + 1; what a member said has the id of the first who did.
    """
    grid = grid_of(*TWO_QUERIES)
    assert grid.option_probs.tolist() == [[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], [[0.6, 0.2, 0.2], [0.2, 0.3, 0.5]]]
    assert grid.option_answers.tolist() == [["A", "B", "C"], ["A", "B", "C"]]
    assert grid.option_ids.tolist() == [[0, 1, 4], [0, 3, 1]]
    assert grid.option_scores.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert grid.option_ids.dtype == np.int32
    assert grid.option_scores.dtype == grid.option_probs.dtype == np.float64


def test_options_that_a_query_does_not_have_are_padding():
    """Task s has yes and no only; its third column is no option, though the grid's O is 3."""
    rows = [said(q, m, "no", 0.1, 0.2, task="s", gold="yes") for q in ("q1", "q2") for m in "ab"]
    rows += [said("q3", m, "yes", 2.0, -1.0, task="s", gold="yes") for m in "ab"]
    grid = grid_of(*TWO_QUERIES, *rows)
    np.testing.assert_array_equal(grid.option_probs[2:, 0], [[0.1, 0.2, nan], [0.1, 0.2, nan], [2.0, -1.0, nan]])
    assert grid.option_answers[2].tolist() == ["yes", "no", None]
    assert grid.option_ids[2].tolist() == [2, 0, -1]
    np.testing.assert_array_equal(grid.option_scores[2], [1.0, 0.0, nan])
    assert grid_of(*TWO_QUERIES, *rows, task="s").option_probs.shape == (3, 2, 2)


def test_a_pool_without_option_scores_has_no_option_arrays():
    """Whether the column is empty, holds empty lists, or belongs to a member outside the pool."""
    rows = [said("q1", "a", "A"), Outcome(**{**_fields(said("q1", "b", "A")), "option_probs": ()})]
    for grid in (grid_of(rows[0], members="a"), grid_of(*rows), grid_of(*rows, said("q1", "c", "A", 0.9, 0.1))):
        fields = (grid.option_probs, grid.option_answers, grid.option_ids, grid.option_scores)
        assert fields == (None,) * 4
        assert grid.take([0]).option_probs is None
        assert grid.split()[0].option_ids is None


def _fields(outcome):
    return {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}


def test_a_member_without_option_scores_stands_beside_one_with_them():
    """Its cells are NaN, and its answer shares the option's id by being the same text."""
    rows = [*TWO_QUERIES, said("q1", "w", "C", gold="C"), said("q2", "w", "B")]
    grid = grid_of(*rows, members=("w", "a"))
    np.testing.assert_array_equal(grid.option_probs[:, 0], np.full((2, 3), nan))
    assert grid.option_ids.tolist() == [[1, 3, 0], [1, 0, 4]]


def test_a_missing_cell_has_no_options():
    grid = grid_of(*TWO_QUERIES[:3], members=("a", "b"), missing="fail")
    np.testing.assert_array_equal(grid.option_probs[1, 1], [nan, nan, nan])
    assert grid.option_answers.tolist() == [["A", "B", None], ["A", "B", None]]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([said("q3", "a", "B", 0.9, 0.1, 0.0)], id="one option with two answers"),
        pytest.param([said("q3", "a", "A", 0.0, 0.1, 0.2, 0.9)], id="one answer for two options"),
        pytest.param([said("q3", "c", "X", 0.9, 0.1, 0.0)], id="by a member outside the pool"),
    ],
)
def test_a_task_whose_rows_disagree_has_no_names(more):
    """What cannot be named cannot be chosen; the scores of the options are still there."""
    grid = grid_of(*TWO_QUERIES, *more)
    assert grid.option_probs.shape == (2, 2, 3)
    assert grid.option_answers.tolist() == [[None] * 3] * 2
    assert grid.option_ids.tolist() == [[-1] * 3] * 2
    assert np.isnan(grid.option_scores).all()


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([said("q3", "a", "B", 0.5, 0.5, 0.0)], id="two options are best"),
        pytest.param([said("q3", "a", None, 0.9, 0.1, 0.0)], id="no answer"),
        pytest.param([said("q3", "a", "B", 0.9, 0.1, 0.0, task="s")], id="another task"),
    ],
)
def test_a_row_that_does_not_speak_for_an_option_contradicts_none(more):
    assert grid_of(*TWO_QUERIES, *more).option_answers.tolist() == [["A", "B", "C"]] * 2


def test_names_need_a_second_query_that_says_the_same():
    """Two members in one query prove nothing: its options may be texts of its own."""
    texts = [said("q1", m, "Paris", 0.9, 0.1, gold="Paris") for m in "ab"]
    other = [said("q2", m, "Rome", 0.1, 0.9, gold="Rome") for m in "ab"]
    assert grid_of(*texts, *other).option_answers.tolist() == [[None, None]] * 2
    again = [said("q3", "a", "Paris", 0.7, 0.3, gold="Rome")]
    assert grid_of(*texts, *other, *again).option_answers.tolist() == [["Paris", "Rome"]] * 2


def test_an_option_that_no_row_ranks_first_cannot_be_chosen():
    grid = grid_of(*TWO_QUERIES[:3], members="a")
    assert grid.option_answers.tolist() == [["A", "B", None]] * 2
    assert grid.option_ids.tolist() == [[0, 2, -1]] * 2
    np.testing.assert_array_equal(grid.option_scores, [[0.0, 0.0, nan], [1.0, 0.0, nan]])


def test_options_that_all_members_hold_for_equal_have_no_names():
    grid = grid_of(*(said("q1", m, "A", 0.5, 0.5) for m in "ab"))
    assert grid.option_probs.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert grid.option_answers.tolist() == [[None, None]]


def test_no_option_can_be_chosen_where_the_right_answer_is_unknown():
    """Not even one that a member gave, whose score is known: that would tell what members answered."""
    rows = [said("q3", m, "A", 0.9, 0.1, 0.0, gold=None, reward=1.0) for m in "ab"]
    grid = grid_of(*TWO_QUERIES, *rows)
    assert grid.option_answers[2].tolist() == ["A", "B", "C"]
    assert grid.option_ids[2].tolist() == [-1, -1, -1]
    assert np.isnan(grid.option_scores[2]).all()


def test_an_answer_that_the_judge_graded_keeps_its_grade_as_an_option():
    grid = grid_of(*TWO_QUERIES[:3], said("q2", "b", "C", 0.2, 0.3, 0.5, reward=0.25))
    assert grid.option_scores[1].tolist() == [1.0, 0.0, 0.25]


def test_parts_of_a_grid_carry_its_options():
    grid = grid_of(*TWO_QUERIES, test_ids="q2")
    for part, row in ((grid.take([1]), 1), (grid.split()[2], 1), (grid.split(fractions=(1.0, 0.0, 0.0))[0], 0)):
        for name in ("option_probs", "option_answers", "option_ids", "option_scores"):
            assert getattr(part, name).tolist() == getattr(grid, name)[[row]].tolist()


scores = st.lists(st.integers(0, 5), min_size=3, max_size=3)


@given(st.lists(st.tuples(scores, scores, scores, st.sampled_from("ABC")), min_size=1, max_size=8))
def test_choosing_an_option_is_choosing_the_answer_of_whoever_ranked_it_first(queries):
    """Three members on three lettered options: ids and scores are the members', and no pool changes a name."""
    rows = [
        said(str(q), m, "ABC"[p.index(max(p))], *map(float, p), gold=gold)
        for q, (*probs, gold) in enumerate(queries)
        for m, p in zip("abc", probs, strict=True)
    ]
    table = OutcomeTable.from_outcomes(rows)
    grid = table.grid(["a", "b", "c"])
    assert grid.option_answers.tolist() == table.grid(["b"]).option_answers.tolist()
    for names in grid.option_answers:
        assert all(name in (None, letter) for name, letter in zip(names, "ABC", strict=True))
    np.testing.assert_array_equal(grid.option_ids >= 0, ~np.isnan(grid.option_scores))
    queries_of, members_of, options = np.nonzero(grid.answers[:, :, None] == grid.option_answers[:, None, :])
    np.testing.assert_array_equal(grid.option_ids[queries_of, options], grid.answer_ids[queries_of, members_of])
    np.testing.assert_array_equal(grid.option_scores[queries_of, options], grid.scores[queries_of, members_of])


@pytest.mark.skipif(not BBH.is_file(), reason="RLFOCAL_DATA names no folder that holds bbh.parquet")
def test_the_options_of_a_real_file_are_worth_what_its_members_were_scored():
    """Letters, numbers and words; only the option F of two tasks, which no member ever ranked first, has no name."""
    table = OutcomeTable.read(BBH)
    grid = table.grid(table.members)
    exists = ~np.isnan(grid.option_probs).all(axis=1)
    unnamed = exists & (grid.option_answers == np.array(None, dtype=object))
    assert {(grid.tasks[query], int(option)) for query, option in zip(*np.nonzero(unnamed), strict=True)} == {
        ("bbh/movie_recommendation", 5),
        ("bbh/ruin_names", 5),
    }
    ranked = np.nanargmax(grid.option_probs, axis=2)
    np.testing.assert_array_equal(np.take_along_axis(grid.option_scores, ranked, axis=1), grid.scores)
    is_right = grid.option_answers == np.array(grid.golds, dtype=object)[:, None]
    np.testing.assert_array_equal(np.take_along_axis(is_right, ranked, axis=1), grid.scores)
    assert is_right.sum(axis=1).tolist() == [1] * len(grid)

"""Splits that a file gives: its test rows stay test rows, and none of their texts is trained on."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, split_of


def grid_of(texts, **options):
    rows = [
        Outcome(task="t", query_id=query_id, query=text, model="a", answer="x", reward=1.0)
        for query_id, text in texts.items()
    ]
    return OutcomeTable.from_outcomes(rows).grid(["a"], **options)


def test_the_test_rows_of_a_file_are_the_test_part():
    """200 texts, every fifth a test row; the text parts the others at 70 : 15, which is 14/17 to train."""
    texts = {f"{'test' if q % 5 == 0 else 'train'}-{q}": f"text {q}" for q in range(200)}
    grid = grid_of(texts, test_ids="test*")
    assert grid.is_test.tolist() == [q % 5 == 0 for q in range(200)]
    train, validation, test = grid.split()
    assert test.query_ids == [name for name in texts if name.startswith("test")]
    share = 0.7 / 0.85
    for part, side in ((train, "train"), (validation, "validation")):
        expected = [q for q in range(200) if q % 5 and split_of(f"text {q}", fractions=(share, 1 - share, 0)) == side]
        assert part.query_ids == [f"train-{q}" for q in expected]
        assert expected
    assert (grid.repeated, test.is_test.all(), train.is_test.any()) == (0, True, False)


def test_a_training_row_with_the_text_of_a_test_row_is_left_out_and_counted():
    """Of four training rows two have a test row's text; a text that two training rows share stays, on one side."""
    texts = {"train-1": "seen", "test-1": "seen", "train-2": "seen", "train-3": "own", "train-4": "own"}
    grid = grid_of(texts, test_ids="test*")
    assert len(grid) == 5
    assert grid.repeated == 2
    train, validation, test = grid.split()
    assert test.query_ids == ["test-1"]
    assert sorted([train.query_ids, validation.query_ids]) == [[], ["train-3", "train-4"]]


def test_without_test_rows_the_text_alone_decides():
    texts = {f"test-{q}": f"text {q % 50}" for q in range(100)}
    grid = grid_of(texts)
    assert grid.is_test is None
    assert grid.repeated == 0
    assert grid.take([0]).is_test is None
    assert sum(map(len, grid.split())) == 100
    assert all(split_of(text) == "test" for text in grid.split()[2].queries)


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.text("xy", min_size=1, max_size=3), min_size=1),
    st.floats(0.01, 0.99),
    st.floats(0, 1),
)
def test_no_text_is_on_two_sides_and_every_query_is_on_one_or_counted(texts, share, scale):
    """Whatever is asked for: the test part is the file's, and the shares of the others keep their proportion."""
    assume(share * scale > 0)
    grid = grid_of({"a": "x", **texts}, test_ids="a*")
    fractions = (share * scale, (1 - share) * scale, 1 - scale)
    parts = grid.split(fractions=fractions)
    assert sum(map(len, parts)) + grid.repeated == len(grid)
    assert parts[2].query_ids == [name for name in grid.query_ids if name.startswith("a")]
    sides = [set(part.queries) for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


@pytest.mark.parametrize(
    ("fractions", "rule"),
    [
        ((0.0, 0.0, 1.0), r"must leave a share to train or validation where the test rows are given, got \(0.0"),
        ((0.5, 0.5), "three shares that sum to 1"),
        ((0.7, 0.2, 0.2), "three shares that sum to 1"),
    ],
)
def test_shares_that_are_none_are_refused_with_test_rows_too(fractions, rule):
    with pytest.raises(InputError, match=rule):
        grid_of({"train": "a", "test": "b"}, test_ids="test").split(fractions=fractions)


def test_a_name_that_marks_no_test_row_is_refused():
    with pytest.raises(
        OutcomeError, match=r"must match a query of the grid, got 'Test\*'. Its query ids begin: test-1"
    ):
        grid_of({"test-1": "a"}, test_ids="Test*")

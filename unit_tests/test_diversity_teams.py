"""Teams: all teams of a pool at once give what each of them gives alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langchain_rlfocal import diversity
from langchain_rlfocal.diversity import (
    TeamDiversities,
    accuracy_adjusted_diversity,
    all_teams,
    disagreement,
    double_fault,
    entropy,
    fleiss_kappa,
    focal_diversity,
    generalized_diversity,
    kappa,
    largest_team_size,
    mean_over_pairs,
    phi,
    plurality_accuracy,
    team_diversities,
    yule_q,
)
from langchain_rlfocal.errors import InputError

ONE_TEAM = {
    "focal": focal_diversity,
    "adjusted": accuracy_adjusted_diversity,
    "generalized": generalized_diversity,
    "entropy": entropy,
    "fleiss_kappa": fleiss_kappa,
}
PAIRWISE = {
    "disagreement": disagreement,
    "double_fault": double_fault,
    "kappa": kappa,
    "yule_q": yule_q,
    "phi": phi,
}


@st.composite
def pools(draw):
    """Answers and verdicts of a pool, where members often say the same."""
    correct = draw(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5))))
    return draw(hnp.arrays(np.int32, correct.shape, elements=st.integers(-1, 4))), correct


def assert_measured_alone(measured: TeamDiversities, answer_ids, correct):
    """Every figure is that of the function for one team, on the team's columns."""
    for index, team in enumerate(measured.teams):
        ids, right = answer_ids[:, team], correct[:, team]
        assert measured.sizes[index] == team.sum()
        assert measured.accuracy[index] == pytest.approx(right.mean())
        assert measured.plurality_accuracy[index] == pytest.approx(plurality_accuracy(ids, right))
        for name, measure in ONE_TEAM.items():
            assert getattr(measured, name)[index] == pytest.approx(measure(right)), name
        for name, measure in PAIRWISE.items():
            # A team of one is paired with itself.
            alone = measure(right)[0, 0] if team.sum() == 1 else mean_over_pairs(measure(right))
            assert getattr(measured, name)[index] == pytest.approx(alone), name


@given(pools())
def test_all_teams_at_once_measure_what_each_measures_alone(pool):
    answer_ids, correct = pool
    assert_measured_alone(team_diversities(correct, answer_ids=answer_ids), answer_ids, correct)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_pool_that_always_fails_or_never_is_measured_without_nan(share):
    """Nobody fails: nothing fails together. Everybody fails: everything does, as chance would have it."""
    correct = np.full((4, 3), share == 1.0)
    ids = np.zeros((4, 3), dtype=int)
    measured = team_diversities(correct, answer_ids=ids)
    assert_measured_alone(measured, ids, correct)
    assert measured.focal.tolist() == [0] * 3 + [share] * 4
    assert measured.adjusted.tolist() == [0] * 7
    assert measured.plurality_accuracy.tolist() == [share] * 7


def test_teams_are_measured_in_blocks_that_leave_none_out(monkeypatch):
    """More distinct rows than a block holds, and more teams than cells."""
    rng = np.random.default_rng(0)
    ids, correct = rng.integers(-1, 5, (50, 4)), rng.random((50, 4)) < 0.5
    for cells in (1, 15 * 4 * 7):
        monkeypatch.setattr(diversity.teams, "_BLOCK_CELLS", cells)
        assert_measured_alone(team_diversities(correct, answer_ids=ids), ids, correct)


def test_some_teams_are_measured_as_among_all():
    rng = np.random.default_rng(1)
    correct = rng.random((30, 4)) < 0.6
    teams = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], dtype=bool)
    some, whole = team_diversities(correct, teams=teams), team_diversities(correct)
    places = [whole.teams.tolist().index(team) for team in teams.tolist()]
    assert some.focal == pytest.approx(whole.focal[places])
    assert some.entropy == pytest.approx(whole.entropy[places])
    assert some.plurality_accuracy is None
    assert len(team_diversities(correct, teams=teams[:0]).focal) == 0


def test_a_pool_of_many_members_is_measured():
    """More members than a byte has bits, and than fit two bytes' worth of teams."""
    rng = np.random.default_rng(2)
    ids, correct = rng.integers(0, 9, (40, 70)), rng.random((40, 70)) < 0.5
    teams = rng.random((5, 70)) < 0.5
    assert_measured_alone(team_diversities(correct, teams=teams, answer_ids=ids), ids, correct)


def test_all_teams_are_listed_small_ones_first():
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert all_teams(3).astype(int).tolist() == expected
    assert all_teams(3, max_size=2).astype(int).tolist() == expected[:6]
    assert all_teams(3, max_size=9).astype(int).tolist() == expected
    assert len(all_teams(12)) == 4095


def test_the_largest_size_is_the_greatest_whose_teams_are_not_too_many():
    """Of five members: 5, 15, 25, 30, 31 teams of up to that size."""
    sizes = [largest_team_size(5, max_teams=limit) for limit in (1, 5, 14, 15, 24, 25, 29, 30, 31, 99)]
    assert sizes == [1, 1, 1, 2, 2, 3, 3, 4, 5, 5]


def test_more_teams_than_fit_are_refused_with_a_size_that_fits():
    with pytest.raises(InputError, match=r"at most 1,048,576 teams, got 2,097,151 of 21 members. Give `max_size`") as e:
        all_teams(21)
    limit = int(str(e.value).removesuffix(".").split()[-1])
    assert limit == largest_team_size(21, max_teams=2**20)


@pytest.mark.parametrize(("members", "max_size"), [(0, None), (3, 0)])
def test_teams_of_nobody_are_refused(members, max_size):
    with pytest.raises(InputError, match="must be at least 1"):
        all_teams(members, max_size=max_size)


@pytest.mark.parametrize(
    "teams", [np.ones((2, 3)), np.ones((2, 2), dtype=bool), np.ones(3, dtype=bool), np.array([[True] * 3, [False] * 3])]
)
def test_what_are_no_teams_of_the_pool_is_refused(teams):
    with pytest.raises(InputError, match=r"`teams` must be a bool array of shape \[T, 3\]"):
        team_diversities(np.ones((4, 3), dtype=bool), teams=teams)


def test_answers_and_verdicts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="shape of `correct`"):
        team_diversities(np.ones((4, 3), dtype=bool), answer_ids=np.ones((4, 2), dtype=int))
    with pytest.raises(InputError, match="at least one query"):
        team_diversities(np.ones((0, 3), dtype=bool))

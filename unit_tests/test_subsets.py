"""The distribution of teams, against enumeration of every team."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.policies.subsets import (
    LOGIT_BOUND,
    most_probable_subset,
    odds_of,
    sample_subset,
    size_mask,
    subset_log_prob,
    subset_marginals,
    symmetric_polynomials,
)


@st.composite
def problems(draw):
    """One query: logits, who is selectable, and legal sizes that leave at least one team."""
    m = draw(st.integers(1, 5))
    logits = np.array([draw(st.lists(st.floats(-7, 7), min_size=m, max_size=m))])
    selectable = np.array([draw(st.lists(st.booleans(), min_size=m, max_size=m))])
    largest = draw(st.integers(0, int(selectable.sum())))
    smallest = draw(st.integers(0, min(1, largest)))
    return logits, selectable, np.array([smallest]), np.array([largest])


def every_team(logits, selectable, smallest, largest):
    """Every legal team with its exact probability."""
    members = np.flatnonzero(selectable[0])
    teams = [t for k in range(smallest[0], largest[0] + 1) for t in combinations(members, k)]
    weights = np.array([np.exp(logits[0, list(t)].sum()) for t in teams])
    return teams, weights / weights.sum()


def as_mask(team, m):
    return np.isin(np.arange(m), team)[None, :]


def test_symmetric_polynomials_match_the_hand_worked_ones():
    """w = (1, 2, 3): e₀ = 1, e₁ = 6, e₂ = 2 + 3 + 6 = 11, e₃ = 6."""
    np.testing.assert_allclose(symmetric_polynomials(np.array([1.0, 2.0, 3.0]), 4), [1, 6, 11, 6])


def test_two_even_members_and_no_empty_team():
    """Teams {0}, {1}, {0, 1} share the probability: a third each, so each member is in with 2/3."""
    logits, selectable = np.zeros((1, 2)), np.ones((1, 2), dtype=bool)
    sizes = {"smallest": np.array([1]), "largest": np.array([2])}
    np.testing.assert_allclose(subset_marginals(logits, selectable, **sizes), [[2 / 3, 2 / 3]])
    np.testing.assert_allclose(subset_log_prob(logits, selectable, as_mask([0], 2), **sizes), np.log(1 / 3))
    assert subset_log_prob(logits, selectable, as_mask([], 2), **sizes)[0] == -np.inf


def test_odds_and_sizes_match_hand_worked_ones():
    """Logits 0 and ln 2, one more that cannot be selected; sizes 1 to 2 of 0 to 3, and none but 0."""
    selectable = np.array([[True, True, False]])
    np.testing.assert_allclose(odds_of(np.array([[0.0, np.log(2), 5.0]]), selectable), [[1, 2, 0]])
    legal = size_mask(np.array([1, 0]), np.array([2, 0]), 4)
    np.testing.assert_array_equal(legal, [[False, True, True, False], [True, False, False, False]])


@pytest.mark.parametrize(
    ("logits", "smallest", "largest", "team"),
    [
        pytest.param([2.0, 1.0, -1.0], 0, 3, [0, 1], id="those with more than even odds"),
        pytest.param([2.0, 1.0, -1.0], 0, 1, [0], id="cut down to the best"),
        pytest.param([-2.0, -1.0, -3.0], 1, 3, [1], id="filled up with the best"),
        pytest.param([-2.0, -1.0, -3.0], 0, 3, [], id="nobody"),
        pytest.param([1.0, 1.0, 1.0], 0, 2, [0, 1], id="equals in the pool's order"),
    ],
)
def test_the_most_probable_team_matches_a_hand_worked_one(logits, smallest, largest, team):
    logits = np.array([logits])
    best = most_probable_subset(
        logits, np.ones((1, 3), dtype=bool), smallest=np.array([smallest]), largest=np.array([largest])
    )
    np.testing.assert_array_equal(best, as_mask(team, 3))


def test_illegal_teams_have_no_probability():
    """Too large, too small, or with a member that cannot be selected."""
    logits, selectable = np.zeros((3, 2)), np.array([[True, True], [True, True], [True, False]])
    teams = np.array([[True, True], [False, False], [False, True]])
    log_probs = subset_log_prob(
        logits, selectable, teams, smallest=np.ones(3, dtype=int), largest=np.ones(3, dtype=int)
    )
    np.testing.assert_array_equal(log_probs, [-np.inf] * 3)


def test_teams_of_eighty_certain_members_stay_finite():
    """Odds of e⁸ each: the documented bound. All 80 are by far the most probable team."""
    logits, everyone = np.full((1, 80), LOGIT_BOUND), np.ones((1, 80), dtype=bool)
    sizes = {"smallest": np.array([1]), "largest": np.array([80])}
    np.testing.assert_allclose(
        subset_log_prob(logits, everyone, everyone, **sizes), -80 * np.log1p(np.exp(-LOGIT_BOUND)), atol=1e-9
    )
    np.testing.assert_allclose(subset_marginals(logits, everyone, **sizes), 1 / (1 + np.exp(-LOGIT_BOUND)))
    assert sample_subset(logits, everyone, **sizes, rng=np.random.default_rng(0)).sum() > 70


def test_teams_of_three_are_drawn_from_three_thousand_members():
    rng = np.random.default_rng(0)
    logits, everyone = rng.normal(size=(2, 3000)), np.ones((2, 3000), dtype=bool)
    sizes = {"smallest": np.ones(2, dtype=int), "largest": np.full(2, 3)}
    team = sample_subset(logits, everyone, **sizes, rng=rng)
    assert set(team.sum(axis=1)) <= {1, 2, 3}
    assert np.isfinite(subset_log_prob(logits, everyone, team, **sizes)).all()


@given(problems())
def test_probabilities_and_marginals_match_enumeration(problem):
    logits, selectable, smallest, largest = problem
    m = logits.shape[1]
    teams, probabilities = every_team(*problem)
    computed = [
        subset_log_prob(logits, selectable, as_mask(t, m), smallest=smallest, largest=largest)[0] for t in teams
    ]
    np.testing.assert_allclose(np.exp(computed), probabilities, rtol=1e-9)
    inside = np.array([sum(p for t, p in zip(teams, probabilities, strict=True) if i in t) for i in range(m)])
    np.testing.assert_allclose(
        subset_marginals(logits, selectable, smallest=smallest, largest=largest)[0], inside, rtol=1e-9, atol=1e-12
    )


@given(problems())
def test_the_most_probable_team_is_the_most_probable_by_enumeration(problem):
    logits, selectable, smallest, largest = problem
    best = most_probable_subset(logits, selectable, smallest=smallest, largest=largest)
    teams, probabilities = every_team(*problem)
    chosen = next(p for t, p in zip(teams, probabilities, strict=True) if (as_mask(t, logits.shape[1]) == best).all())
    assert chosen == pytest.approx(probabilities.max(), rel=1e-9)


@given(problems(), st.integers(0, 2**32 - 1))
def test_draws_are_legal(problem, seed):
    logits, selectable, smallest, largest = problem
    team = sample_subset(logits, selectable, smallest=smallest, largest=largest, rng=np.random.default_rng(seed))
    assert not (team & ~selectable).any()
    assert smallest[0] <= team.sum() <= largest[0]


def test_draws_follow_the_distribution():
    """40,000 draws, 3 members, sizes 1 to 2: each team's share is within 4 standard errors of its probability."""
    num = 40_000
    logits, selectable = np.array([[0.5, -1.0, 1.5]]), np.ones((1, 3), dtype=bool)
    smallest, largest = np.array([1]), np.array([2])
    teams, probabilities = every_team(logits, selectable, smallest, largest)
    draws = sample_subset(
        np.repeat(logits, num, axis=0),
        np.repeat(selectable, num, axis=0),
        smallest=np.repeat(smallest, num),
        largest=np.repeat(largest, num),
        rng=np.random.default_rng(0),
    )
    for team, probability in zip(teams, probabilities, strict=True):
        share = (draws == as_mask(team, 3)).all(axis=1).mean()
        assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / num)

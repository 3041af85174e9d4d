"""Diversity: worked by hand, and by the laws that the definitions imply."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langchain_rlfocal.diversity import (
    disagreement,
    double_fault,
    focal_diversity,
    generalized_diversity,
    kappa,
    mean_over_pairs,
    pairwise_focal_diversity,
    phi,
    yule_q,
)
from langchain_rlfocal.errors import InputError

teams = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5)))
PAIRWISE = (pairwise_focal_diversity, disagreement, double_fault, kappa, yule_q, phi)


def fails(*rows):
    """Rows of 1 where a member fails, as `correct`."""
    return np.array(rows) == 0


HAND = fails((1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 0))
"""Four queries, three members: failures per query 2, 1, 2, 0."""


def test_generalized_diversity_matches_a_hand_worked_team():
    """p₁ = ¼, p₂ = ½: p(1) = ⅓·¼ + ⅔·½ = 5/12; p(2) = 2/6·½ = ⅙; GD = 1 − (1/6)/(5/12) = 3/5"""
    assert generalized_diversity(HAND) == pytest.approx(3 / 5)


def test_focal_diversity_matches_a_hand_worked_team():
    """Each member's failures, by how many fail with it:

    first: 2, 1 -> p(1) = ½(⅔ + ⅓) = ½, p(2) = ½·⅓ = ⅙, GD = ⅔
    second: 2, 2 -> p(1) = ⅔, p(2) = ⅓, GD = ½
    third: 2 -> the same, ½; the mean of the three is 5/9
    """
    assert focal_diversity(HAND) == pytest.approx(5 / 9)


def test_three_that_fail_together_count_as_three():
    """One query fails all three (i = 3), one fails the first alone: for the first p(1) = ½(1 + ⅓), p(2) = ½, GD = ¼."""
    correct = fails((1, 1, 1), (1, 0, 0))
    assert focal_diversity(correct) == pytest.approx((1 / 4 + 0 + 0) / 3)
    assert generalized_diversity(correct) == pytest.approx(1 / 4)


def test_pairwise_focal_diversity_matches_a_hand_worked_team():
    """q = P(other fails | focal fails): first–second ½ both ways, GD = (1 − ½)/(1 + ½) = ⅓; first–third 0 both ways, 1;
    second–third ½ one way and 1 the other: (⅓ + 0)/2 = ⅙.
    """
    expected = [[0, 1 / 3, 1], [1 / 3, 0, 1 / 6], [1, 1 / 6, 0]]
    np.testing.assert_allclose(pairwise_focal_diversity(HAND), expected)


def test_agreement_measures_match_a_hand_worked_pair():
    """n11 = 3, n00 = 2, n10 = 1, n01 = 2 of 8; n11 n00 − n01 n10 = 4.

    disagreement 3/8; double fault 2/8; κ = 2·4/(4·4 + 5·3) = 8/31; Q = 4/8; φ = 4/√(4·4·5·3) = 1/√15
    """
    correct = fails((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 1), (1, 0), (1, 0))
    expected = {disagreement: 3 / 8, double_fault: 1 / 4, kappa: 8 / 31, yule_q: 1 / 2, phi: 15**-0.5}
    for measure, value in expected.items():
        assert measure(correct)[0, 1] == pytest.approx(value), measure.__name__
        assert mean_over_pairs(measure(correct)) == pytest.approx(value)


@given(teams)
def test_diversities_lie_between_0_and_1_and_agreements_between_minus_1_and_1(correct):
    for value in (generalized_diversity(correct), focal_diversity(correct)):
        assert 0 <= value <= 1
    for measure in PAIRWISE:
        table = measure(correct)
        assert table.shape == (correct.shape[1],) * 2
        assert np.isfinite(table).all()
        np.testing.assert_allclose(table, table.T, atol=1e-12)
        low = -1 if measure in (kappa, yule_q, phi) else 0
        assert (table >= low - 1e-12).all()
        assert (table <= 1 + 1e-12).all()


@given(teams, st.randoms(use_true_random=False))
def test_the_order_of_members_and_of_queries_does_not_matter(correct, random):
    queries, members = list(range(len(correct))), list(range(correct.shape[1]))
    random.shuffle(queries)
    random.shuffle(members)
    shuffled = correct[queries][:, members]
    assert generalized_diversity(shuffled) == pytest.approx(generalized_diversity(correct))
    assert focal_diversity(shuffled) == pytest.approx(focal_diversity(correct))
    for measure in PAIRWISE:
        np.testing.assert_allclose(measure(shuffled), measure(correct)[np.ix_(members, members)])


@given(hnp.arrays(bool, st.integers(1, 12)).filter(lambda column: not column.all()), st.integers(1, 5))
def test_identical_members_that_fail_have_no_diversity(column, size):
    correct = np.repeat(column[:, None], size, axis=1)
    assert generalized_diversity(correct) == pytest.approx(0)
    assert focal_diversity(correct) == pytest.approx(0)
    np.testing.assert_allclose(pairwise_focal_diversity(correct), 0, atol=1e-12)
    assert not disagreement(correct).any()
    for measure in (kappa, yule_q, phi):
        np.testing.assert_allclose(measure(correct), 1)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.just(2))))
def test_a_pairs_focal_diversity_is_that_of_a_team_of_two(correct):
    """The closed form per pair, (1 − q)/(1 + q), against the general definition."""
    assert pairwise_focal_diversity(correct)[0, 1] == pytest.approx(focal_diversity(correct))


@given(teams)
def test_focal_diversity_is_the_mean_of_each_members_generalized_diversity(correct):
    """By the definition, one member at a time, with p_i counted as written."""
    members = correct.shape[1]
    views = []
    for focal in range(members):
        failures = (~correct[~correct[:, focal]]).sum(axis=1)
        shares = [np.mean(failures == i) if len(failures) else 0.0 for i in range(members + 1)]
        first = sum(i / members * share for i, share in enumerate(shares))
        pairs = members * (members - 1)
        second = sum(i * (i - 1) / pairs * share for i, share in enumerate(shares)) if pairs else first
        views.append(1 - second / first if first else float(members > 1))
    assert focal_diversity(correct) == pytest.approx(np.mean(views))


def test_independent_errors_follow_their_closed_form():
    """focal = 1 − (2e + (m − 2)e²)/(1 + (m − 1)e) for m members that each fail a share e of 200,000 queries."""
    rng = np.random.default_rng(0)
    for members, error in ((2, 0.3), (3, 0.5), (5, 0.2)):
        correct = rng.random((200_000, members)) >= error
        closed = 1 - (2 * error + (members - 2) * error**2) / (1 + (members - 1) * error)
        assert focal_diversity(correct) == pytest.approx(closed, abs=0.01)
        assert mean_over_pairs(phi(correct)) == pytest.approx(0, abs=0.01)


def test_where_nobody_fails_nothing_fails_together():
    correct = np.ones((3, 2), dtype=bool)
    assert generalized_diversity(correct) == focal_diversity(correct) == 1
    assert pairwise_focal_diversity(correct).tolist() == [[0, 1], [1, 0]]
    for empty in (generalized_diversity, focal_diversity):
        assert empty(np.ones((0, 2), dtype=bool)) == 1


def test_one_member_has_no_diversity_whether_it_fails_or_not():
    for value in (True, False):
        correct = np.full((3, 1), value)
        assert generalized_diversity(correct) == focal_diversity(correct) == 0
        assert pairwise_focal_diversity(correct).tolist() == [[0]]


def test_a_member_that_never_changes_is_associated_with_nobody_but_its_like():
    """Two that are always right agree fully; a third that varies shows no association with them."""
    correct = fails((0, 0, 1), (0, 0, 0))
    for measure in (kappa, yule_q, phi):
        assert measure(correct).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]], measure.__name__


@pytest.mark.parametrize("measure", [generalized_diversity, focal_diversity, *PAIRWISE])
@pytest.mark.parametrize("value", [np.ones((2, 2)), np.ones(2, dtype=bool), np.ones((2, 0), dtype=bool)])
def test_what_is_no_table_of_right_and_wrong_is_refused(measure, value):
    with pytest.raises(InputError, match=r"bool array of shape \[Q, M\]"):
        measure(value)


@pytest.mark.parametrize("measure", [disagreement, double_fault, kappa, yule_q, phi])
def test_a_share_of_no_queries_is_refused(measure):
    with pytest.raises(InputError, match="at least one query"):
        measure(np.ones((0, 2), dtype=bool))


def test_a_team_of_one_has_no_pairs_to_average():
    with pytest.raises(InputError, match="got 1 member"):
        mean_over_pairs(np.ones((1, 1)))

"""Diversity: worked by hand, by examples from the literature, and by the laws that the definitions imply."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss_kappa

from langchain_rlfocal import diversity
from langchain_rlfocal.diversity import (
    accuracy_adjusted_diversity,
    all_teams,
    disagreement,
    double_fault,
    entropy,
    fleiss_kappa,
    focal_diversity,
    generalized_diversity,
    independent_focal_diversity,
    kappa,
    largest_team_size,
    pairwise_focal_diversity,
    phi,
    plurality_accuracy,
    team_diversities,
    yule_q,
)
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import fit_plurality
from langchain_rlfocal.testing import make_outcomes

teams = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5)))
PAIRWISE = (pairwise_focal_diversity, disagreement, double_fault, kappa, yule_q, phi)


def fails(*rows):
    """Rows of 1 where a member fails, as `correct`."""
    return np.array(rows) == 0


def mean_over_pairs(table):
    """The figure of a team: what `team_diversities` makes of a table of pairs."""
    return table[np.triu_indices(len(table), k=1)].mean()


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


columns = hnp.arrays(bool, st.integers(1, 12))
sizes = st.integers(1, 5)


def rights(**counts):
    """Queries by who is right on them, `r` or `w` per member, each so many times."""
    return np.array([[verdict == "r" for verdict in row] for row, count in counts.items() for _ in range(count)])


SUCCESS = rights(rrw=3, rwr=3, wrr=3, www=1)
FAILURE = rights(rrr=4, rww=2, wrw=2, wwr=2)
"""Kuncheva's patterns of success and failure: ten queries, three members that are right on six each.

Source: Kuncheva et al., 2003, "Limits on the majority vote accuracy in classifier fusion".
"""


@pytest.mark.parametrize(("correct", "vote"), [(SUCCESS, 0.9), (FAILURE, 0.4)])
def test_kuncheva_patterns_have_equal_accuracy_and_the_two_extreme_votes(correct, vote):
    """Right and wrong as the only two answers: the success pattern wastes no vote, the failure pattern all it can."""
    assert correct.mean(axis=0) == pytest.approx([0.6] * 3)
    assert plurality_accuracy(correct.astype(int), correct) == pytest.approx(vote)


def test_measures_match_kunchevas_pattern_of_success():
    """Each pair: n11 = 3, n00 = 1, n10 = n01 = 3, so n11 n00 − n01 n10 = −6; e = 2/5, m = 3.

    Q = −6/12; φ = −6/√(6·4·6·4) = −¼; κ = −12/48; disagreement 6/10; double fault 1/10
    Failures per query: 1 nine times, 3 once. E = 9/10 · 1/(3 − 2); GD = 1 − 6/(2·12) = ¾
    Fleiss: P̄ = 4/10, P_e = 0.36 + 0.16, κ = (0.4 − 0.52)/0.48 = −¼
    A member fails four queries: 1 fails on three, 3 on one; GD_f = 1 − 6/(2·6) = ½
    Independent: 1 − (4/5 + 4/25)/(1 + 4/5) = 7/15; adjusted ½ − 7/15 = 1/30
    """
    pairwise = {yule_q: -1 / 2, phi: -1 / 4, kappa: -1 / 4, disagreement: 6 / 10, double_fault: 1 / 10}
    for measure, value in pairwise.items():
        assert mean_over_pairs(measure(SUCCESS)) == pytest.approx(value), measure.__name__
    assert entropy(SUCCESS) == pytest.approx(9 / 10)
    assert generalized_diversity(SUCCESS) == pytest.approx(3 / 4)
    assert fleiss_kappa(SUCCESS) == pytest.approx(-1 / 4)
    assert focal_diversity(SUCCESS) == pytest.approx(1 / 2)
    assert accuracy_adjusted_diversity(SUCCESS) == pytest.approx(1 / 30)


def test_measures_match_kunchevas_pattern_of_failure():
    """Each pair: n11 = 4, n00 = 2, n10 = n01 = 2, so n11 n00 − n01 n10 = 4; e = 2/5, m = 3.

    Q = 4/12; φ = 4/24; κ = 8/48; disagreement 4/10; double fault 2/10
    Failures per query: 2 six times. E = 6/10; GD = 1 − 12/(2·12) = ½; GD_f = 1 − 8/(2·8) = ½
    Fleiss: P̄ = 6/10, κ = (0.6 − 0.52)/0.48 = 1/6
    """
    pairwise = {yule_q: 1 / 3, phi: 1 / 6, kappa: 1 / 6, disagreement: 4 / 10, double_fault: 2 / 10}
    for measure, value in pairwise.items():
        assert mean_over_pairs(measure(FAILURE)) == pytest.approx(value), measure.__name__
    assert entropy(FAILURE) == pytest.approx(6 / 10)
    assert generalized_diversity(FAILURE) == focal_diversity(FAILURE) == pytest.approx(1 / 2)
    assert fleiss_kappa(FAILURE) == pytest.approx(1 / 6)
    assert accuracy_adjusted_diversity(FAILURE) == pytest.approx(1 / 30)


def test_what_independent_errors_give_is_taken_off_by_each_members_own_rate():
    """Failures per query 2, 1, 2, 0: focal 5/9. Rates ½, ½, ¼:

    first and second: Σe = ¾, Σ_{j≠k} e_j e_k = 2·⅛ = ¼; 1 − (3/2 + ¼)/(2·(1 + ¾)) = ½
    third: Σe = 1, 2·¼ = ½; 1 − (2 + ½)/(2·2) = ⅜; mean (½ + ½ + ⅜)/3 = 11/24; 5/9 − 11/24 = 7/72
    """
    correct = fails((1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 0))
    assert independent_focal_diversity(np.array([1 / 2, 1 / 2, 1 / 4])) == pytest.approx(11 / 24)
    assert accuracy_adjusted_diversity(correct) == pytest.approx(7 / 72)


@given(st.integers(2, 9), st.floats(0.01, 1))
def test_equal_rates_of_independent_errors_follow_the_closed_form(members, error):
    """1 − (2e + (m − 2)e²)/(1 + (m − 1)e)"""
    closed = 1 - (2 * error + (members - 2) * error**2) / (1 + (members - 1) * error)
    assert independent_focal_diversity(np.full(members, error)) == pytest.approx(closed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_errors_that_are_exactly_independent_leave_nothing_after_adjustment(numerators):
    """Member m fails a_m quarters of the queries: of all 4^M tuples of digits, those whose digit m is below a_m."""
    digits = np.array(list(product(range(4), repeat=len(numerators))))
    correct = digits >= numerators
    assert independent_focal_diversity(np.array(numerators) / 4) == pytest.approx(focal_diversity(correct))
    assert accuracy_adjusted_diversity(correct) == pytest.approx(0)


@given(teams, st.randoms(use_true_random=False))
def test_measures_of_a_team_keep_their_range_and_ignore_order(correct, random):
    queries, members = list(range(len(correct))), list(range(correct.shape[1]))
    random.shuffle(queries)
    random.shuffle(members)
    lowest = {entropy: 0, accuracy_adjusted_diversity: -1, fleiss_kappa: -1 / max(len(members) - 1, 1)}
    for measure, low in lowest.items():
        value = measure(correct)
        assert low - 1e-12 <= value <= 1 + 1e-12, measure.__name__
        assert measure(correct[queries][:, members]) == pytest.approx(value)


@given(columns, sizes)
def test_identical_members_agree_fully_and_share_every_failure(column, size):
    """What is taken off is what chance gives; the raw diversity is 0, or 1 where nobody fails, as chance has it then."""
    correct = np.repeat(column[:, None], size, axis=1)
    assert entropy(correct) == 0
    assert fleiss_kappa(correct) == 1
    chance = independent_focal_diversity(1 - correct.mean(axis=0))
    assert accuracy_adjusted_diversity(correct) == pytest.approx(0 if column.all() else -chance)
    assert plurality_accuracy(np.zeros(correct.shape, dtype=int), correct) == column.mean()


@given(columns)
def test_a_team_of_one_is_as_diverse_as_identical_members(column):
    correct = column[:, None]
    assert entropy(correct) == accuracy_adjusted_diversity(correct) == 0
    assert fleiss_kappa(correct) == 1
    assert plurality_accuracy(np.full(correct.shape, -1), correct) == column.mean()


def test_members_that_split_in_halves_have_full_entropy():
    assert entropy(rights(rrww=2, rwrw=1)) == 1
    assert entropy(rights(rrrww=1, wwwrr=3)) == 1


@given(hnp.arrays(int, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.integers(-1, 3)))
def test_fleiss_kappa_is_that_of_statsmodels(categories):
    """Where only one category occurs theirs has no value, and ours is 1."""
    if np.ptp(categories) == 0:
        assert fleiss_kappa(categories) == 1
    else:
        expected = reference_fleiss_kappa(aggregate_raters(categories)[0])
        assert fleiss_kappa(categories) == pytest.approx(expected)


def test_plurality_accuracy_matches_a_hand_worked_team():
    """Two against one wins; the earliest wins a tie, right or wrong; who has no answer does not vote; nobody: the first."""
    answer_ids = np.array([[0, 1, 1], [0, 1, 2], [5, 4, 3], [-1, 2, -1], [-1, -1, -1], [-1, -1, -1]])
    correct = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=bool)
    verdicts = [plurality_accuracy(answer_ids[[row]], correct[[row]]) for row in range(6)]
    assert verdicts == [1, 1, 0, 1, 0, 1]
    assert plurality_accuracy(answer_ids, correct) == pytest.approx(4 / 6)


@st.composite
def answered(draw):
    correct = draw(teams)
    return draw(hnp.arrays(int, correct.shape, elements=st.integers(-1, 3))), correct


@given(answered())
def test_plurality_accuracy_counts_votes(case):
    """One query at a time, with a counter; `min` takes the first of equals."""
    answer_ids, correct = case
    right = 0
    for ids, verdicts in zip(answer_ids.tolist(), correct, strict=True):
        support = Counter(label for label in ids if label >= 0)
        right += verdicts[min(range(len(ids)), key=lambda member, s=support, i=ids: -s[i[member]])]
    assert plurality_accuracy(answer_ids, correct) == pytest.approx(right / len(correct))


def test_plurality_accuracy_of_members_in_order_of_accuracy_is_the_baselines():
    """Five options and 300 queries: many ties."""
    table = make_outcomes({"quiz": {"ann": 0.3, "bob": 0.6, "cleo": 0.5, "dan": 0.4}}, num_queries=300, num_options=5)
    grid = table.grid(table.members)
    ranked = np.argsort(-grid.scores.mean(axis=0), kind="stable")
    chosen = fit_plurality(grid).decide(grid).chosen
    expected = grid.scores[np.arange(len(grid)), chosen].mean()
    assert plurality_accuracy(grid.answer_ids[:, ranked], grid.scores[:, ranked] >= 0.5) == pytest.approx(expected)


ONE_TEAM = {
    "focal": focal_diversity,
    "adjusted": accuracy_adjusted_diversity,
    "generalized": generalized_diversity,
    "entropy": entropy,
    "fleiss_kappa": fleiss_kappa,
}
MEANS_OF_PAIRS = {
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


def assert_measured_alone(measured, answer_ids, correct):
    """Every figure is that of the function for one team, on the team's columns."""
    for index, team in enumerate(measured.teams):
        ids, right = answer_ids[:, team], correct[:, team]
        assert measured.sizes[index] == team.sum()
        assert measured.accuracy[index] == pytest.approx(right.mean())
        assert measured.plurality_accuracy[index] == pytest.approx(plurality_accuracy(ids, right))
        for name, measure in ONE_TEAM.items():
            assert getattr(measured, name)[index] == pytest.approx(measure(right)), name
        for name, measure in MEANS_OF_PAIRS.items():
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
        monkeypatch.setattr(diversity, "_BLOCK_CELLS", cells)
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


RIGHT = np.ones((2, 2), dtype=bool)
NO_TABLES = [np.ones((2, 2)), np.ones(2, dtype=bool), np.ones((2, 0), dtype=bool)]
OF_A_TABLE = (generalized_diversity, focal_diversity, *PAIRWISE, entropy, accuracy_adjusted_diversity, team_diversities)


@pytest.mark.parametrize("measure", [*OF_A_TABLE, lambda correct: plurality_accuracy(correct, correct)])
def test_what_is_no_table_of_right_and_wrong_is_refused(measure):
    for value in NO_TABLES:
        with pytest.raises(InputError, match=r"bool array of shape \[Q, M\]"):
            measure(value)
    if measure not in (generalized_diversity, focal_diversity, pairwise_focal_diversity):
        with pytest.raises(InputError, match="at least one query"):
            measure(np.ones((0, 2), dtype=bool))


@pytest.mark.parametrize(
    ("measure", "value", "rule"),
    [
        *(
            (fleiss_kappa, value, "`categories` must be")
            for value in (np.ones((2, 2)), np.ones(2, int), np.ones((0, 2), int))
        ),
        *(
            (lambda ids: plurality_accuracy(ids, RIGHT), v, r"of the shape of `correct`, \(2, 2\)")
            for v in (np.ones((2, 2)), np.ones((2, 3), int), np.ones(2, int))
        ),
        (lambda ids: plurality_accuracy(ids, RIGHT), np.full((2, 2), -2), "at least -1, which is no answer, got -2"),
        (lambda ids: team_diversities(RIGHT, answer_ids=ids), np.ones((2, 3), int), "of the shape of `correct`"),
        *(
            (independent_focal_diversity, np.array(rates), "one share in")
            for rates in ([], [0.5, 1.5], [-0.1], [np.nan], [[0.5]])
        ),
    ],
)
def test_what_does_not_fit_is_refused(measure, value, rule):
    with pytest.raises(InputError, match=rule):
        measure(value)

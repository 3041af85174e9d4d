"""Diversity: worked by hand, by examples from the literature, and by the laws that the definitions imply."""

from collections import Counter
from itertools import combinations, product

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

PAIRWISE = (pairwise_focal_diversity, disagreement, double_fault, kappa, yule_q, phi)
OF_A_TEAM = (generalized_diversity, focal_diversity, entropy, fleiss_kappa, accuracy_adjusted_diversity)

teams = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5)))


@st.composite
def pools(draw):
    """Answers and verdicts of a pool, where members often say the same."""
    correct = draw(teams)
    return draw(hnp.arrays(np.int32, correct.shape, elements=st.integers(-1, 4))), correct


def fails(*rows):
    """Rows of 1 where a member fails, as `correct`."""
    return np.array(rows) == 0


def rights(**counts):
    """Queries by who is right on them, `r` or `w` per member, each so many times."""
    return np.array([[verdict == "r" for verdict in row] for row, count in counts.items() for _ in range(count)])


def mean_over_pairs(table):
    """The figure of a team: what `team_diversities` makes of a table of pairs."""
    return table[np.triu_indices(len(table), k=1)].mean()


def assert_measures(correct, expected):
    for measure, value in expected.items():
        found = measure(correct)
        assert (mean_over_pairs(found) if measure in PAIRWISE else found) == pytest.approx(value), measure.__name__


# ---- by hand, and from the literature

HAND = fails((1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 0))
"""Four queries, three members: failures per query 2, 1, 2, 0."""


def test_measures_match_a_hand_worked_team():
    """GD: p₁ = ¼, p₂ = ½: p(1) = ⅓·¼ + ⅔·½ = 5/12; p(2) = 2/6·½ = ⅙; GD = 1 − (1/6)/(5/12) = 3/5

    Focal, each member's failures by how many fail with it:
    first: 2, 1 -> p(1) = ½(⅔ + ⅓) = ½, p(2) = ½·⅓ = ⅙, GD = ⅔
    second: 2, 2 -> p(1) = ⅔, p(2) = ⅓, GD = ½
    third: 2 -> the same, ½; the mean of the three is 5/9

    Adjusted, rates ½, ½, ¼:
    first and second: Σe = ¾, Σ_{j≠k} e_j e_k = 2·⅛ = ¼; 1 − (3/2 + ¼)/(2·(1 + ¾)) = ½
    third: Σe = 1, 2·¼ = ½; 1 − (2 + ½)/(2·2) = ⅜; mean (½ + ½ + ⅜)/3 = 11/24; 5/9 − 11/24 = 7/72

    Pairwise, q = P(other fails | focal fails): first–second ½ both ways, GD = (1 − ½)/(1 + ½) = ⅓; first–third 0 both
    ways, 1; second–third ½ one way and 1 the other: (⅓ + 0)/2 = ⅙.
    """
    expected = {generalized_diversity: 3 / 5, focal_diversity: 5 / 9, accuracy_adjusted_diversity: 7 / 72}
    assert_measures(HAND, expected)
    assert independent_focal_diversity(np.array([1 / 2, 1 / 2, 1 / 4])) == pytest.approx(11 / 24)
    np.testing.assert_allclose(pairwise_focal_diversity(HAND), [[0, 1 / 3, 1], [1 / 3, 0, 1 / 6], [1, 1 / 6, 0]])


def test_three_that_fail_together_count_as_three():
    """One query fails all three (i = 3), one fails the first alone: for the first p(1) = ½(1 + ⅓), p(2) = ½, GD = ¼."""
    assert_measures(fails((1, 1, 1), (1, 0, 0)), {focal_diversity: (1 / 4 + 0 + 0) / 3, generalized_diversity: 1 / 4})


def test_agreement_measures_match_a_hand_worked_pair():
    """n11 = 3, n00 = 2, n10 = 1, n01 = 2 of 8; n11 n00 − n01 n10 = 4.

    disagreement 3/8; double fault 2/8; κ = 2·4/(4·4 + 5·3) = 8/31; Q = 4/8; φ = 4/√(4·4·5·3) = 1/√15
    """
    correct = fails((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 1), (1, 0), (1, 0))
    assert_measures(correct, {disagreement: 3 / 8, double_fault: 1 / 4, kappa: 8 / 31, yule_q: 1 / 2, phi: 15**-0.5})


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
    assert_measures(SUCCESS, {yule_q: -1 / 2, phi: -1 / 4, kappa: -1 / 4, disagreement: 6 / 10, double_fault: 1 / 10})
    assert_measures(SUCCESS, {entropy: 9 / 10, generalized_diversity: 3 / 4, fleiss_kappa: -1 / 4})
    assert_measures(SUCCESS, {focal_diversity: 1 / 2, accuracy_adjusted_diversity: 1 / 30})


def test_measures_match_kunchevas_pattern_of_failure():
    """Each pair: n11 = 4, n00 = 2, n10 = n01 = 2, so n11 n00 − n01 n10 = 4; e = 2/5, m = 3.

    Q = 4/12; φ = 4/24; κ = 8/48; disagreement 4/10; double fault 2/10
    Failures per query: 2 six times. E = 6/10; GD = 1 − 12/(2·12) = ½; GD_f = 1 − 8/(2·8) = ½
    Fleiss: P̄ = 6/10, κ = (0.6 − 0.52)/0.48 = 1/6
    """
    assert_measures(FAILURE, {yule_q: 1 / 3, phi: 1 / 6, kappa: 1 / 6, disagreement: 4 / 10, double_fault: 2 / 10})
    assert_measures(FAILURE, {entropy: 6 / 10, generalized_diversity: 1 / 2, fleiss_kappa: 1 / 6})
    assert_measures(FAILURE, {focal_diversity: 1 / 2, accuracy_adjusted_diversity: 1 / 30})


def test_members_that_split_in_halves_have_full_entropy():
    assert entropy(rights(rrww=2, rwrw=1)) == 1
    assert entropy(rights(rrrww=1, wwwrr=3)) == 1


def test_a_member_that_never_changes_is_associated_with_nobody_but_its_like():
    """Two that are always right agree fully; a third that varies shows no association with them."""
    for measure in (kappa, yule_q, phi):
        assert measure(fails((0, 0, 1), (0, 0, 0))).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]], measure.__name__


def test_a_pair_is_measured_where_both_are_known_and_drawn_to_chance_by_hand():
    """Known of both are the first two queries: a fails both of them, b the first. Rates of failure: (2 + 5/2)/(3 + 5) each.

    q of a: (1 + 5 · 4.5/8)/(2 + 5), of b: (1 + 5 · 4.5/8)/(1 + 5).
    """
    correct = np.array([[False, False], [False, True], [True, False], [False, False]])
    known = np.array([[True, True], [True, True], [True, False], [False, True]])
    views = [(1 - q) / (1 + q) for q in ((1 + 5 * 4.5 / 8) / 7, (1 + 5 * 4.5 / 8) / 6)]
    np.testing.assert_allclose(pairwise_focal_diversity(correct, known=known)[0, 1], sum(views) / 2)
    np.testing.assert_array_equal(
        pairwise_focal_diversity(correct, known=np.ones((4, 2), dtype=bool)), pairwise_focal_diversity(correct)
    )
    apart = pairwise_focal_diversity(correct, known=np.array([[True, False], [False, True]] * 2))
    assert np.isfinite(apart).all()


def test_a_quarter_of_the_cells_gives_the_pairs_of_the_whole():
    """Of three members two fail alike and one apart, on 4,000 queries; each cell is known with ½, so each pair with ¼."""
    rng = np.random.default_rng(0)
    hard = rng.random((4000, 2))
    correct = np.stack([hard[:, 0] < 0.7, (hard[:, 0] < 0.7) ^ (rng.random(4000) < 0.1), hard[:, 1] < 0.7], axis=1)
    known = rng.random(correct.shape) < 0.5
    seen = pairwise_focal_diversity(np.where(known, correct, False), known=known)
    np.testing.assert_allclose(seen, pairwise_focal_diversity(correct), atol=0.05)
    assert seen[0, 1] + 0.2 < seen[0, 2]


# ---- what the definitions imply


@given(teams, st.randoms(use_true_random=False))
def test_measures_keep_their_range_and_ignore_the_order_of_members_and_queries(correct, random):
    queries, members = list(range(len(correct))), list(range(correct.shape[1]))
    random.shuffle(queries)
    random.shuffle(members)
    shuffled = correct[queries][:, members]
    lowest = {kappa: -1, yule_q: -1, phi: -1, accuracy_adjusted_diversity: -1}
    lowest[fleiss_kappa] = -1 / max(len(members) - 1, 1)
    for measure in (*OF_A_TEAM, *PAIRWISE):
        value = measure(correct)
        assert np.all((value >= lowest.get(measure, 0) - 1e-12) & (value <= 1 + 1e-12)), measure.__name__
        moved = value[np.ix_(members, members)] if measure in PAIRWISE else value
        np.testing.assert_allclose(measure(shuffled), moved, atol=1e-12)
        if measure in PAIRWISE:
            np.testing.assert_allclose(value, value.T, atol=1e-12)


@given(hnp.arrays(bool, st.integers(1, 12)), st.integers(1, 5))
def test_identical_members_agree_fully_and_share_every_failure(column, size):
    """Where nobody fails nothing fails together: then more than one are fully diverse, as chance has it too."""
    correct = np.repeat(column[:, None], size, axis=1)
    value = float(column.all() and size > 1)
    assert_measures(correct, {generalized_diversity: value, focal_diversity: value, entropy: 0, fleiss_kappa: 1})
    chance = independent_focal_diversity(1 - correct.mean(axis=0))
    assert accuracy_adjusted_diversity(correct) == pytest.approx(0 if column.all() else -chance)
    assert plurality_accuracy(np.zeros(correct.shape, dtype=int), correct) == column.mean()
    off_diagonal = value * ~np.eye(size, dtype=bool)
    np.testing.assert_allclose(pairwise_focal_diversity(correct), off_diagonal, atol=1e-12)
    assert not disagreement(correct).any()
    for measure in (kappa, yule_q, phi):
        np.testing.assert_allclose(measure(correct), 1)
    for empty in (generalized_diversity, focal_diversity):
        assert empty(np.ones((0, 2), dtype=bool)) == 1


@given(teams)
def test_focal_diversity_is_the_mean_of_each_members_generalized_diversity(correct):
    """By the definition, one member at a time, with p_i counted as written; and by the closed form (1 − q)/(1 + q) of pairs."""
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
    for pair in combinations(range(members), 2):
        assert pairwise_focal_diversity(correct)[pair] == pytest.approx(focal_diversity(correct[:, pair]))


@given(st.integers(2, 9), st.floats(0.01, 1))
def test_equal_rates_of_independent_errors_follow_the_closed_form(members, error):
    """1 − (2e + (m − 2)e²)/(1 + (m − 1)e)"""
    closed = 1 - (2 * error + (members - 2) * error**2) / (1 + (members - 1) * error)
    assert independent_focal_diversity(np.full(members, error)) == pytest.approx(closed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_errors_that_are_exactly_independent_leave_nothing_after_adjustment(numerators):
    """Member m fails a_m quarters of the queries: of all 4^M tuples of digits, those whose digit m is below a_m."""
    correct = np.array(list(product(range(4), repeat=len(numerators)))) >= numerators
    assert independent_focal_diversity(np.array(numerators) / 4) == pytest.approx(focal_diversity(correct))
    assert accuracy_adjusted_diversity(correct) == pytest.approx(0)


@given(hnp.arrays(int, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.integers(-1, 3)))
def test_fleiss_kappa_is_that_of_statsmodels(categories):
    """Where only one category occurs theirs has no value, and ours is 1."""
    expected = 1 if np.ptp(categories) == 0 else reference_fleiss_kappa(aggregate_raters(categories)[0])
    assert fleiss_kappa(categories) == pytest.approx(expected)


# ---- the vote


def test_plurality_accuracy_matches_a_hand_worked_team():
    """Two against one wins; the earliest wins a tie, right or wrong; who has no answer does not vote; nobody: the first."""
    answer_ids = np.array([[0, 1, 1], [0, 1, 2], [5, 4, 3], [-1, 2, -1], [-1, -1, -1], [-1, -1, -1]])
    correct = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=bool)
    verdicts = [plurality_accuracy(answer_ids[[row]], correct[[row]]) for row in range(6)]
    assert verdicts == [1, 1, 0, 1, 0, 1]
    assert plurality_accuracy(answer_ids, correct) == pytest.approx(4 / 6)


@given(pools())
def test_plurality_accuracy_counts_votes(pool):
    """One query at a time, with a counter; `min` takes the first of equals."""
    answer_ids, correct = pool
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


# ---- many teams at once


def assert_measured_alone(measured, answer_ids, correct):
    """Every figure is that of the function for one team, on the team's columns."""
    one = {"focal": focal_diversity, "adjusted": accuracy_adjusted_diversity, "generalized": generalized_diversity}
    one |= {measure.__name__: measure for measure in (entropy, fleiss_kappa)}
    for index, team in enumerate(measured.teams):
        ids, right = answer_ids[:, team], correct[:, team]
        assert measured.sizes[index] == team.sum()
        assert measured.accuracy[index] == pytest.approx(right.mean())
        assert measured.plurality_accuracy[index] == pytest.approx(plurality_accuracy(ids, right))
        for name, measure in one.items():
            assert getattr(measured, name)[index] == pytest.approx(measure(right)), name
        for measure in (disagreement, double_fault, kappa, yule_q, phi):
            # A team of one is paired with itself.
            alone = measure(right)[0, 0] if team.sum() == 1 else mean_over_pairs(measure(right))
            assert getattr(measured, measure.__name__)[index] == pytest.approx(alone), measure.__name__


@given(pools())
def test_all_teams_at_once_measure_what_each_measures_alone(pool):
    answer_ids, correct = pool
    assert_measured_alone(team_diversities(correct, answer_ids=answer_ids), answer_ids, correct)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_pool_that_always_fails_or_never_is_measured_without_nan(share):
    """Nobody fails: nothing fails together. Everybody fails: everything does, as chance would have it."""
    measured = team_diversities(np.full((4, 3), share == 1.0), answer_ids=np.zeros((4, 3), dtype=int))
    assert measured.focal.tolist() == [0] * 3 + [share] * 4
    assert measured.adjusted.tolist() == [0] * 7
    assert measured.plurality_accuracy.tolist() == [share] * 7


@pytest.mark.parametrize("cells", [1, 15 * 4 * 7, None])
def test_teams_are_measured_in_blocks_that_leave_none_out(monkeypatch, cells):
    """More distinct rows than a block holds, and more teams than cells. The pool has more members than two bytes bits."""
    if cells:
        monkeypatch.setattr(diversity, "_BLOCK_CELLS", cells)
    rng = np.random.default_rng(0)
    members = 4 if cells else 70
    ids, correct = rng.integers(-1, 5, (50, members)), rng.random((50, members)) < 0.5
    chosen = None if cells else rng.random((5, members)) < 0.5
    assert_measured_alone(team_diversities(correct, teams=chosen, answer_ids=ids), ids, correct)


def test_some_teams_are_measured_as_among_all():
    correct = np.random.default_rng(1).random((30, 4)) < 0.6
    chosen = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], dtype=bool)
    some, whole = team_diversities(correct, teams=chosen), team_diversities(correct)
    places = [whole.teams.tolist().index(team) for team in chosen.tolist()]
    assert some.focal == pytest.approx(whole.focal[places])
    assert some.entropy == pytest.approx(whole.entropy[places])
    assert some.plurality_accuracy is None
    assert len(team_diversities(correct, teams=chosen[:0]).focal) == 0


def test_all_teams_are_listed_small_ones_first():
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    for max_size, count in ((None, 7), (2, 6), (9, 7)):
        assert all_teams(3, max_size=max_size).astype(int).tolist() == expected[:count]
    assert len(all_teams(12)) == 4095


def test_the_largest_size_is_the_greatest_whose_teams_are_not_too_many():
    """Of five members: 5, 15, 25, 30, 31 teams of up to that size. More than fit are refused with a size that fits."""
    sizes = [largest_team_size(5, max_teams=limit) for limit in (1, 5, 14, 15, 24, 25, 29, 30, 31, 99)]
    assert sizes == [1, 1, 1, 2, 2, 3, 3, 4, 5, 5]
    with pytest.raises(InputError, match=r"1,048,576 teams, got 2,097,151 of 21 members. Give `max_size`") as caught:
        all_teams(21)
    limit = int(str(caught.value).removesuffix(".").split()[-1])
    assert limit == largest_team_size(21, max_teams=2**20)


# ---- what is refused

RIGHT = np.ones((2, 2), dtype=bool)


@pytest.mark.parametrize(
    "measure",
    [*OF_A_TEAM, *PAIRWISE, team_diversities, lambda correct: plurality_accuracy(correct, correct)],
)
def test_what_is_no_table_of_right_and_wrong_is_refused(measure):
    """Fleiss' kappa takes categories as well."""
    for value in (np.ones((2, 2)), np.ones(2, dtype=bool), np.ones((2, 0), dtype=bool)):
        with pytest.raises(InputError, match=r"`categories`" if measure is fleiss_kappa else r"bool array of shape"):
            measure(value)
    if measure not in (generalized_diversity, focal_diversity, pairwise_focal_diversity):
        with pytest.raises(InputError):
            measure(np.ones((0, 2), dtype=bool))


@pytest.mark.parametrize(
    ("measure", "values", "named"),
    [
        (lambda ids: plurality_accuracy(ids, RIGHT), [np.ones((2, 2)), np.ones((2, 3), int)], r"\(2, 2\)"),
        (lambda ids: plurality_accuracy(ids, RIGHT), [np.full((2, 2), -2)], "got -2"),
        (lambda ids: team_diversities(RIGHT, answer_ids=ids), [np.ones((2, 3), int)], r"\(2, 2\)"),
        (
            lambda chosen: team_diversities(RIGHT, teams=chosen),
            [np.ones((2, 2)), np.ones((2, 3), dtype=bool), np.ones(2, dtype=bool), np.array([[True] * 2, [False] * 2])],
            r"`teams` must be a bool array of shape \[T, 2\]",
        ),
        (lambda size: all_teams(3, max_size=size), [0], "at least 1"),
        (all_teams, [0], "at least 1"),
        (
            lambda rates: independent_focal_diversity(np.array(rates)),
            [[], [0.5, 1.5], [-0.1], [np.nan], [[0.5]]],
            "one share in",
        ),
    ],
)
def test_what_does_not_fit_is_refused(measure, values, named):
    for value in values:
        with pytest.raises(InputError, match=named):
            measure(value)

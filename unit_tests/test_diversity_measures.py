"""Measures of one team beyond pairs and focal diversity: worked examples from the literature, and laws."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as reference_fleiss_kappa

from langchain_rlfocal.diversity import (
    accuracy_adjusted_diversity,
    disagreement,
    double_fault,
    entropy,
    fleiss_kappa,
    focal_diversity,
    generalized_diversity,
    independent_focal_diversity,
    kappa,
    mean_over_pairs,
    phi,
    plurality_accuracy,
    yule_q,
)
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import Plurality
from langchain_rlfocal.testing import make_outcomes

teams = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5)))
columns = hnp.arrays(bool, st.integers(1, 12))
sizes = st.integers(1, 5)


def rights(**counts):
    """Queries by who is right on them, `r` or `w` per member, each so many times."""
    return np.array([[verdict == "r" for verdict in row] for row, count in counts.items() for _ in range(count)])


def fails(*rows):
    """Rows of 1 where a member fails, as `correct`."""
    return np.array(rows) == 0


SUCCESS = rights(rrw=3, rwr=3, wrr=3, www=1)
FAILURE = rights(rrr=4, rww=2, wrw=2, wwr=2)
"""Kuncheva's patterns of success and failure: ten queries, three members that are right on six each.

Source: Kuncheva et al., 2003, "Limits on the majority vote accuracy in classifier fusion".
"""

FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
"""Ten subjects, 14 raters, five categories: how many raters chose each, the example that most texts work."""


def votes(counts):
    """Categories of each rater from counts per category, [Q, M]."""
    return np.array([np.repeat(np.arange(len(row)), row) for row in counts])


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


def test_fleiss_kappa_matches_the_example_that_most_texts_work():
    """κ = (0.378 − 0.213)/(1 − 0.213) = 0.210"""
    assert fleiss_kappa(votes(FLEISS)) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(votes(FLEISS)) == pytest.approx(reference_fleiss_kappa(FLEISS))


@given(hnp.arrays(int, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.integers(-1, 3)))
def test_fleiss_kappa_is_that_of_statsmodels(categories):
    """Where only one category occurs theirs has no value, and ours is 1."""
    if np.ptp(categories) == 0:
        assert fleiss_kappa(categories) == 1
    else:
        expected = reference_fleiss_kappa(aggregate_raters(categories)[0])
        assert fleiss_kappa(categories) == pytest.approx(expected)


@given(teams)
def test_fleiss_kappa_of_right_and_wrong_is_that_of_two_categories(correct):
    assert fleiss_kappa(correct) == fleiss_kappa(np.where(correct, 7, 2))


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
    chosen = Plurality().fit(grid).decide(grid).chosen
    expected = grid.scores[np.arange(len(grid)), chosen].mean()
    assert plurality_accuracy(grid.answer_ids[:, ranked], grid.scores[:, ranked] >= 0.5) == pytest.approx(expected)


@pytest.mark.parametrize("measure", [entropy, accuracy_adjusted_diversity, lambda c: plurality_accuracy(c, c)])
def test_a_share_of_no_queries_is_refused(measure):
    with pytest.raises(InputError, match="at least one query"):
        measure(np.ones((0, 2), dtype=bool))
    with pytest.raises(InputError, match=r"bool array of shape \[Q, M\]"):
        measure(np.ones((2, 2)))


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.ones(2, dtype=int), np.ones((0, 2), dtype=int)])
def test_what_are_no_categories_are_refused(value):
    with pytest.raises(InputError, match="`categories` must be bool or whole numbers"):
        fleiss_kappa(value)


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.ones((2, 3), dtype=int), np.ones(2, dtype=int)])
def test_answers_that_do_not_fit_are_refused(value):
    with pytest.raises(InputError, match=r"whole numbers of the shape of `correct`, \(2, 2\)"):
        plurality_accuracy(value, np.ones((2, 2), dtype=bool))


def test_an_answer_below_no_answer_is_refused():
    with pytest.raises(InputError, match="at least -1, which is no answer, got -2"):
        plurality_accuracy(np.full((2, 2), -2), np.ones((2, 2), dtype=bool))


@pytest.mark.parametrize("rates", [[], [0.5, 1.5], [-0.1], [float("nan")], [[0.5]]])
def test_what_are_no_error_rates_is_refused(rates):
    with pytest.raises(InputError, match="one share in"):
        independent_focal_diversity(np.array(rates))

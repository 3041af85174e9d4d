"""Metrics: an interval that covers, differences that are paired, and the scale from single best to Oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.metrics import (
    bootstrap_mean,
    expected_calibration_error,
    inverse_propensity,
    oracle_gap_share,
    paired_difference,
)

scores = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


def rng(seed=0):
    return np.random.default_rng(seed)


@given(scores)
def test_the_interval_holds_the_mean_within_the_values(values):
    estimate = bootstrap_mean(values, rng=rng())
    assert estimate.mean == pytest.approx(values.mean())
    assert values.min() - 1e-12 <= estimate.low <= estimate.high <= values.max() + 1e-12


def test_the_interval_has_the_width_that_the_normal_law_gives():
    """1,000 scores, 300 of them 1: ± 1.96 √(0.3 · 0.7 / 1000) = ± 0.0284."""
    estimate = bootstrap_mean(np.repeat([1.0, 0.0], [300, 700]), rng=rng())
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert estimate.mean == 0.3
    assert estimate.low == pytest.approx(0.3 - half, abs=0.003)
    assert estimate.high == pytest.approx(0.3 + half, abs=0.003)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    """300 samples of 80 scores from a law of mean 0.4: four standard errors of a share of 0.95 are 0.05."""
    draw = rng(1)
    covered = 0
    for _ in range(300):
        estimate = bootstrap_mean((draw.random(80) < 0.4).astype(float), rng=draw)
        covered += estimate.low <= 0.4 <= estimate.high
    assert covered / 300 == pytest.approx(0.95, abs=0.05)


def test_drawing_counts_is_drawing_queries():
    """Graded scores: quantiles agree with a bootstrap that draws every query's index."""
    values = rng(2).integers(0, 5, size=200) / 4
    resamples = values[rng(3).integers(0, 200, size=(20_000, 200))].mean(axis=1)
    estimate = bootstrap_mean(values, rng=rng(4))
    low, high = np.quantile(resamples, [0.025, 0.975])
    assert estimate.low == pytest.approx(low, abs=0.006)
    assert estimate.high == pytest.approx(high, abs=0.006)


def test_a_query_of_twice_the_weight_counts_as_two():
    """The mean of a weighted sample is that of the sample with repetitions; equal weights give the same interval as none."""
    values, weights = rng(5).random(40), rng(6).integers(1, 4, 40).astype(float)
    weighted = bootstrap_mean(values, rng=rng(), weights=weights)
    assert weighted.mean == pytest.approx(np.repeat(values, weights.astype(int)).mean())
    assert weighted.n == 40
    assert values.min() <= weighted.low < weighted.mean < weighted.high <= values.max()
    even, plain = bootstrap_mean(values, rng=rng(7), weights=np.full(40, 3.0)), bootstrap_mean(values, rng=rng(8))
    assert (even.mean, even.low, even.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=0.02)


def test_inverse_propensities_are_worked_by_hand_and_are_none_where_unknown_or_even():
    """Needed are both members of the first query, 1/(½ · ¼) = 8, the second of the second, 1/½, and nobody of the third, 1."""
    propensity = np.array([[0.5, 0.25], [np.nan, 0.5], [np.nan, np.nan]])
    needed = np.array([[True, True], [False, True], [False, False]])
    np.testing.assert_allclose(inverse_propensity(propensity, needed), [8, 2, 1])
    assert inverse_propensity(propensity, np.ones((3, 2), dtype=bool)) is None
    assert inverse_propensity(np.full((3, 2), 0.5), np.ones((3, 2), dtype=bool)) is None


def test_the_same_seed_gives_the_same_interval_and_one_query_none_at_all():
    values = rng().random(50)
    assert bootstrap_mean(values, rng=rng(7)) == bootstrap_mean(values, rng=rng(7))
    alone = bootstrap_mean(np.array([0.25]), rng=rng())
    assert (alone.mean, alone.low, alone.high) == (0.25, 0.25, 0.25)


def test_a_difference_is_paired_by_query():
    """Always better by ¼: the pairs leave no doubt, though each score alone varies from 0 to ¾. From itself: nothing."""
    baseline = np.tile([0.0, 0.75], 20)
    for better in (0.25, 0.0):
        difference = paired_difference(baseline + better, baseline, rng=rng())
        assert (difference.mean, difference.low, difference.high) == (better, better, better)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_nothing_the_unscored_and_scores_of_other_queries_are_not_averaged(values):
    with pytest.raises(InputError, match="at least one finite number per query"):
        bootstrap_mean(np.array(values, dtype=float), rng=rng())
    with pytest.raises(InputError, match="the same queries"):
        paired_difference(np.ones(len(values) + 1), np.ones(len(values)), rng=rng())


@pytest.mark.parametrize(
    ("score", "oracle", "share"), [(0.6, 0.9, 0.25), (0.4, 0.9, -0.25), (0.9, 0.9, 1), (0.5, 0.9, 0), (0.5, 0.5, None)]
)
def test_the_oracle_gap_runs_from_single_best_to_oracle(score, oracle, share):
    """From 0.5 to 0.9: 0.6 is a quarter of the way, 0.4 a quarter of it backwards; no gap has no share."""
    found = oracle_gap_share(score, single_best=0.5, oracle=oracle)
    assert found is share is None or found == pytest.approx(share)


def test_rounds_follow_each_other_and_members_of_a_round_do_not_worked_by_hand():
    """1 and 2 s at once, then 4 s: 2 + 4 = 6. All at once: 4. The last alone in its round, though second: 4. Nobody: 0."""
    latency = np.tile([1.0, 2.0, 4.0], (4, 1))
    rounds = np.array([[1, 1, 2], [1, 1, 1], [0, 0, 2], [0, 0, 0]])
    assert critical_path(latency, rounds).tolist() == [6, 4, 4, 0]


def test_an_unknown_latency_makes_the_wait_unknown_only_if_that_member_was_asked():
    """The unknown is neither zero nor the slower one's: nobody knows who was slower."""
    latency = np.array([[np.nan, 2.0]] * 3)
    waits = critical_path(latency, np.array([[0, 1], [1, 1], [2, 1]]))
    np.testing.assert_array_equal(waits, [2, np.nan, np.nan])


@given(
    hnp.arrays(np.float64, (5, 3), elements=st.floats(0, 100)), hnp.arrays(np.int64, (5, 3), elements=st.integers(0, 3))
)
def test_a_wait_is_between_the_slowest_member_and_all_in_a_row(latency, rounds):
    waits = critical_path(latency, rounds)
    asked = np.where(rounds > 0, latency, 0)
    assert (waits >= asked.max(axis=1)).all()
    assert (waits <= asked.sum(axis=1) + 1e-9).all()
    assert critical_path(latency[:0], rounds[:0]).shape == (0,)


def test_calibration_error_by_hand():
    """Bin [.9, 1]: .9 and 1 against 1 and 0, gap .95 - .5 = .45, half of the queries; bin [.2, .3): .2 and .25 against 0, gap .225.

    ½ · .45 + ½ · .225 = .3375. The last query counted three times: (.9 + 1 - 1) / 6 + (.2 + 3 · .25) / 6 = 1.85 / 6.
    """
    confidence, scores = np.array([0.9, 1.0, 0.2, 0.25]), np.array([1.0, 0.0, 0.0, 0.0])
    assert expected_calibration_error(confidence, scores) == pytest.approx(0.3375)
    weighted = expected_calibration_error(confidence, scores, weights=np.array([1.0, 1.0, 1.0, 3.0]))
    assert weighted == pytest.approx(1.85 / 6)


def test_who_is_right_as_often_as_confident_has_no_calibration_error_and_who_boasts_has():
    confidence, scores = np.repeat([0.25, 0.75], 4), np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=float)
    assert expected_calibration_error(confidence, scores) == pytest.approx(0)
    assert expected_calibration_error(np.ones(8), scores) == pytest.approx(0.5)
    with pytest.raises(InputError, match="finite number for each query"):
        expected_calibration_error(confidence, scores[1:])
    with pytest.raises(InputError, match="Leave unscored"):
        expected_calibration_error(confidence, np.full(8, np.nan))

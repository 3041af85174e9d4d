"""Detectors of change: bets by hand, the stated rate of false alarms, and members that break and come back."""

import math

import numpy as np
import pytest

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.online import DriftMonitor
from langchain_rlfocal.online.drift import STAKES, bet_on_fall, bet_on_rise


def test_bets_are_worked_by_hand():
    """b = ½, f = ½: a score of 0 makes 1 + ½·½/½ = 1.5 of a stake, a score of 1 makes ½; upwards the other way round."""
    half = np.array([0.5])
    assert bet_on_fall(half, 0.0, 0.5) == pytest.approx([1.5])
    assert bet_on_fall(half, 1.0, 0.5) == pytest.approx([0.5])
    assert bet_on_rise(half, 1.0, 0.5) == pytest.approx([1.5])
    assert bet_on_rise(half, 0.25, 0.5) == pytest.approx([0.75])


@pytest.mark.parametrize("least", [0.05, 0.3, 0.9])
def test_a_bet_is_worth_its_stake_where_the_score_is_what_was_expected(least):
    """P(score 1) = b: the mean of L is (1 − b)(1 + f b / (1 − b)) + b (1 − f) = 1; so is that of the mirrored bet."""
    fall = (1 - least) * bet_on_fall(STAKES, 0.0, least) + least * bet_on_fall(STAKES, 1.0, least)
    rise = (1 - least) * bet_on_rise(STAKES, 0.0, least) + least * bet_on_rise(STAKES, 1.0, least)
    assert fall == pytest.approx(1.0)
    assert rise == pytest.approx(1.0)
    assert bet_on_fall(STAKES, 1.0, least).min() > 0


def test_the_sum_of_bets_is_worked_by_hand():
    """Two zeros where ½ was expected: S₁ = 1 + f, S₂ = (2 + f)(1 + f), averaged over the stakes."""
    monitor = DriftMonitor(["a"], tolerance=0.0, run_length=1e6)
    monitor.update("a", 0.0, 0.5)
    monitor.update("a", 0.0, 0.5)
    assert monitor.arrays()["sums"][0] == pytest.approx((2 + STAKES) * (1 + STAKES))


def run_length(monitor, rng, *, chance, predicted, most):
    for number in range(1, most + 1):
        if monitor.update("a", float(rng.random() < chance), predicted):
            return number
    return most


@pytest.mark.parametrize("chance", [0.3, 0.7])
def test_false_alarms_are_as_rare_as_stated(chance):
    """At the worst case, a mean score just at what is expected at least: 120 runs, cut at ten times the stated length.

    The mean of cut runs is a lower bound; it must not be below the stated length by more than three standard errors.
    """
    rng = np.random.default_rng(7)
    lengths = [
        run_length(
            DriftMonitor(["a"], tolerance=0.1, run_length=100.0), rng, chance=chance, predicted=chance + 0.1, most=1000
        )
        for _ in range(120)
    ]
    error = np.std(lengths) / math.sqrt(len(lengths))
    assert np.mean(lengths) > 100.0 - 3 * error


def test_a_threshold_on_a_moving_mean_keeps_no_such_promise():
    """The hard negative: 'the mean of the last 20 fell by 0.2' raises most of its alarms where nothing happened."""
    rng = np.random.default_rng(7)
    lengths = []
    for _ in range(60):
        scores = rng.random(1000) < 0.5
        means = np.convolve(scores, np.ones(20) / 20, mode="valid")
        low = np.flatnonzero(means <= 0.3)
        lengths.append(20 + (low[0] if len(low) else 1000))
    assert np.mean(lengths) < 300
    watched = [
        run_length(DriftMonitor(["a"], tolerance=0.1, run_length=10_000.0), rng, chance=0.5, predicted=0.5, most=1000)
        for _ in range(60)
    ]
    assert min(watched) == 1000


@pytest.mark.parametrize(("before", "most"), [(0.9, 20), (0.6, 25), (0.4, 40)])
def test_a_broken_member_is_found_soon(before, most):
    """Of nothing but zeros, with the boldest bet: log 10,000 / log(1 + 0.95 b / (1 − b)) and a few more for the mixture."""
    monitor = DriftMonitor(["a"])
    assert run_length(monitor, np.random.default_rng(0), chance=0.0, predicted=before, most=100) <= most
    assert monitor.left_out == ("a",)


def test_who_recovers_is_found_again_and_who_does_not_stays_out():
    rng = np.random.default_rng(3)
    monitor = DriftMonitor(["a", "b"])
    for member in ("a", "b"):
        while monitor.update(member, 0.0, 0.6) is None:
            pass
    assert monitor.left_out == ("a", "b")
    events = [monitor.update("a", float(rng.random() < 0.6), 0.1) for _ in range(80)]
    assert events.count("recovered") == 1
    assert all(monitor.update("b", 0.0, 0.1) is None for _ in range(500))
    assert monitor.left_out == ("b",)


def test_false_returns_are_as_rare_as_stated():
    """A member that stays at just half of what was expected of it: the worst case."""
    rng, lengths = np.random.default_rng(11), []
    for _ in range(120):
        monitor = DriftMonitor(["a"], return_run_length=50.0)
        while monitor.update("a", 0.0, 0.6) is None:
            pass
        lengths.append(run_length(monitor, rng, chance=0.3, predicted=0.6, most=500))
    assert np.mean(lengths) > 50.0 - 3 * np.std(lengths) / math.sqrt(len(lengths))


def test_probes_are_a_stated_share_and_the_same_everywhere():
    monitor = DriftMonitor(["a", "b"], probe_share=0.05)
    monitor.leave_out("a")
    probes = [monitor.probes(f"answer {number}") for number in range(4000)]
    assert {*probes} == {(), ("a",)}
    assert 150 <= probes.count(("a",)) <= 250
    other = DriftMonitor(["a", "b"], probe_share=0.05).restore(monitor.arrays())
    assert [other.probes(f"answer {number}") for number in range(200)] == probes[:200]
    monitor.bring_back("a")
    assert monitor.probes("answer 1") == ()


def test_arrays_restore_the_same_monitor():
    one = DriftMonitor(["a", "b"])
    for _ in range(5):
        one.update("a", 0.0, 0.6)
    other = DriftMonitor(["a", "b"]).restore({name: array.copy() for name, array in one.arrays().items()})
    events = [(one.update("a", 0.0, 0.6), other.update("a", 0.0, 0.6)) for _ in range(30)]
    assert all(mine == theirs for mine, theirs in events)
    assert one.expected("a") == other.expected("a")
    assert math.isnan(other.expected("b"))
    with pytest.raises(InputError, match="`sums` of shape"):
        DriftMonitor(["a"]).restore(one.arrays())


@pytest.mark.parametrize("wrong", [{"tolerance": -0.1}, {"probe_share": 1.5}, {"run_length": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        DriftMonitor(["a"], **wrong)

"""Latencies: the 95th percentile of a member's last answers, by hand and by counting."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.execution.limits import MIN_SAMPLES, WINDOW, Latencies

GUARD_S = 30


def after(*values, member="m"):
    latencies = Latencies()
    for value in values:
        latencies.add(member, value)
    return latencies


def test_the_percentile_is_unknown_with_nineteen_answers_and_known_with_twenty():
    """Of 1 s to 20 s the ⌈0.95 · 20⌉ = 19th smallest is 19 s."""
    latencies = after(*range(1, 20))
    assert latencies.p95_s("m") is None
    latencies.add("m", 20)
    assert latencies.p95_s("m") == 19


@pytest.mark.parametrize(("count", "rank"), [(20, 19), (21, 20), (39, 38), (40, 38), (41, 39), (100, 95)])
def test_the_percentile_is_the_nearest_rank_rounded_up(count, rank):
    """⌈0.95 n⌉ by hand: 19; 19.95 → 20; 37.05 → 38; 38; 38.95 → 39; 95. The answers come slowest first."""
    assert after(*range(count, 0, -1)).p95_s("m") == rank


def test_the_answer_before_the_last_hundred_is_forgotten():
    """Ninety-four answers of 1 s and six of 9 s: the 95th smallest of a hundred is 9 s; of five, it would be 1 s."""
    latencies = after(*[9.0] * 6, *[1.0] * 94)
    assert latencies.p95_s("m") == 9.0
    latencies.add("m", 1.0)
    assert latencies.p95_s("m") == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=130))
def test_the_percentile_is_the_smallest_value_that_no_more_than_a_twentieth_exceeds(values):
    last = values[-WINDOW:]
    if len(last) < MIN_SAMPLES:
        assert after(*values).p95_s("m") is None
        return

    def is_high_enough(value):
        return 20 * sum(other > value for other in last) <= len(last)

    assert after(*values).p95_s("m") == min(filter(is_high_enough, last))


def test_members_are_apart_and_reset_forgets_one_or_all():
    latencies = after(*[1.0] * 20, member="a")
    for name in "bc":
        for _ in range(20):
            latencies.add(name, 2.0)
    latencies.reset("a")
    latencies.reset("unknown")
    assert [latencies.p95_s(name) for name in "abc"] == [None, 2.0, 2.0]
    latencies.reset()
    assert [latencies.p95_s(name) for name in "abc"] == [None, None, None]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_object(copied):
    latencies = after(1.0)
    assert copied(latencies) is latencies


def test_a_pickle_begins_anew():
    latencies = after(*[1.0] * 20)
    other = pickle.loads(pickle.dumps(latencies))
    assert other.p95_s("m") is None
    other.add("m", 5.0)
    assert latencies.p95_s("m") == 1.0


def test_threads_that_add_and_read_together_lose_no_answer():
    """Four threads each add twenty-five answers of 1 s to a full window of 9 s and read: then all of it is 1 s.

    A window that changes while it is read would raise.
    """
    latencies, meeting = after(*[9.0] * WINDOW), threading.Barrier(4)

    def one(_number):
        meeting.wait(GUARD_S)
        for _ in range(25):
            latencies.add("m", 1.0)
            assert latencies.p95_s("m") in {1.0, 9.0}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4), timeout=GUARD_S))
    assert list(latencies._recent["m"]) == [1.0] * WINDOW

"""Limits: no more calls run at once than allowed, and every place that was held is given back."""

import asyncio
import copy
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.execution import CallLimits
from support_gauges import GUARD_S, Gauge, is_free, let_others_run, occupy, threads_free

# ---- event loops


async def test_the_total_binds_over_all_members():
    """Six calls of three members, two places: never more than two, and the two are used."""
    assert (await occupy(CallLimits(2), ["a", "b", "c", "a", "b", "c"]))[None] == 2


async def test_a_members_own_limit_binds_that_member_alone():
    most = await occupy(CallLimits(None, {"a": 1}), ["a", "a", "a", "b", "b", "b"])
    assert (most["a"], most["b"], most[None]) == (1, 3, 4)


async def test_both_limits_bind_together():
    """`a` may have two, all together three: so one of `b`'s runs beside two of `a`'s."""
    most = await occupy(CallLimits(3, {"a": 2}), ["a"] * 4 + ["b"] * 4)
    assert most["a"] == 2
    assert most[None] == 3


async def test_without_limits_nobody_waits():
    assert (await occupy(CallLimits(), ["a"] * 7))[None] == 7


@given(
    total=st.none() | st.integers(1, 4),
    per_member=st.dictionaries(st.sampled_from("ab"), st.integers(1, 3)),
    names=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
)
def test_no_limit_is_ever_passed_and_everybody_has_a_turn(total, per_member, names):
    most = asyncio.run(asyncio.wait_for(occupy(CallLimits(total, per_member), names), GUARD_S))
    assert most[None] <= (total or len(names))
    assert all(most.get(name, 0) <= count for name, count in per_member.items())


async def test_one_busy_member_does_not_keep_the_others_from_their_places():
    """Five calls of `a` wait for their one turn outside the total of two, so `b` finds the second place."""
    limits, leave = CallLimits(2, {"a": 1}), asyncio.Event()
    busy = asyncio.create_task(occupy(limits, ["a"] * 5, leave=leave))
    await let_others_run()
    assert await is_free(limits, "b")
    leave.set()
    await busy


async def test_limits_on_the_member_and_on_all_do_not_deadlock_in_either_order():
    """Places are taken in one order, whoever asks: however `a` and `b` interleave, all come through."""
    limits = CallLimits(1, {"a": 1, "b": 1})
    for names in (["a", "b"] * 10, ["b", "a"] * 10):
        assert (await asyncio.wait_for(occupy(limits, names), GUARD_S))[None] == 1


async def test_the_longest_waiting_call_goes_first():
    limits, order = CallLimits(1), []

    async def one(number):
        async with limits.aheld("a"):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


# ---- places are given back


async def test_an_exception_gives_both_places_back():
    limits = CallLimits(1, {"a": 1})
    with pytest.raises(KeyError):
        async with limits.aheld("a"):
            raise KeyError
    assert await is_free(limits, "a")
    with pytest.raises(KeyError), limits.held("a"):
        raise KeyError
    assert threads_free(limits, "a", 1)


async def test_cancelling_a_call_that_waits_gives_back_what_it_has():
    """The second call holds `a`'s place and waits for the total; cancelled there, it gives up `a`'s place."""
    limits, leave = CallLimits(1, {"a": 1}), asyncio.Event()
    first = asyncio.create_task(occupy(limits, ["b"], leave=leave))
    await let_others_run()
    second = asyncio.create_task(occupy(limits, ["a"]))
    await let_others_run()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    leave.set()
    await first
    assert await is_free(limits, "a")


async def test_cancelling_a_call_that_runs_gives_its_places_back():
    limits, never = CallLimits(1, {"a": 1}), asyncio.Event()
    running = asyncio.create_task(occupy(limits, ["a"], leave=never))
    await let_others_run()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await is_free(limits, "a")


async def test_a_call_cancelled_in_the_moment_that_it_gets_its_place_loses_none():
    """The place is handed on in the same turn in which the next in line is cancelled: the third still gets it."""
    limits, leave = CallLimits(1), asyncio.Event()
    first = asyncio.create_task(occupy(limits, ["a"], leave=leave))
    await let_others_run()
    second, third = (asyncio.create_task(occupy(limits, ["a"])) for _ in range(2))
    await let_others_run()
    leave.set()
    await first
    second.cancel()
    await asyncio.wait_for(third, GUARD_S)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await is_free(limits, "a")


# ---- threads


def test_threads_share_one_count():
    """Twelve threads of three members; two of `a` wait for each other, so that a third would come in if it could."""
    limits, gauge, meeting = CallLimits(3, {"a": 2}), Gauge(), threading.Barrier(2)

    def one(name):
        with limits.held(name):
            gauge.enter(name)
            if name == "a":
                meeting.wait(GUARD_S)
            gauge.leave(name)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, ["a", "b", "c"] * 200))
    assert gauge.most["a"] == 2
    assert gauge.most[None] <= 3


def test_as_many_threads_as_allowed_run_at_once():
    assert threads_free(CallLimits(3), "a", 3)
    assert threads_free(CallLimits(None, {"a": 3}), "a", 3)


def test_one_thread_too_many_waits_until_a_place_is_free():
    limits, has_entered = CallLimits(1), threading.Event()

    def one():
        with limits.held("b"):
            has_entered.set()

    with limits.held("a"):
        waiting = threading.Thread(target=one)
        waiting.start()
        assert not has_entered.is_set()
    waiting.join(GUARD_S)
    assert has_entered.is_set()


def test_limits_in_threads_do_not_deadlock_in_either_order():
    limits = CallLimits(1, {"a": 1, "b": 1})

    def one(name):
        with limits.held(name):
            return name

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, "ab" * 50, timeout=GUARD_S)) == list("ab" * 50)
        assert list(pool.map(one, "ba" * 50, timeout=GUARD_S)) == list("ba" * 50)


def test_two_loops_in_two_threads_each_have_their_own_count():
    """Each loop may run one call; the two calls meet across the loops, which one count for both would not allow."""
    limits, meeting = CallLimits(1), threading.Barrier(2)

    async def one():
        async with limits.aheld("a"):
            meeting.wait(GUARD_S)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(asyncio.run, one()) for _ in range(2)]:
            future.result(GUARD_S)


def test_many_loops_in_many_threads_make_their_counts_without_a_race():
    limits = CallLimits(1, {"a": 1})

    def one(_number):
        return asyncio.run(asyncio.wait_for(occupy(limits, ["a", "b", "a"]), GUARD_S))[None]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(24))) == {1}


def test_a_loop_that_is_closed_is_forgotten():
    """A program that calls `asyncio.run` again and again keeps none of its loops, also where calls had to wait."""
    limits = CallLimits(1)
    for _ in range(3):
        asyncio.run(occupy(limits, ["a", "a", "a"]))
    asyncio.run(occupy(limits, ["a"]))
    gc.collect()
    assert len(limits._loops) <= 1


# ---- copies


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda limits: pickle.loads(pickle.dumps(limits))])
def test_a_pickle_or_deep_copy_has_the_same_limits_and_begins_at_zero(copied):
    limits = CallLimits(1, {"a": 2})
    with limits.held("a"):
        other = copied(limits)
        assert (other.total, other.per_member) == (1, {"a": 2})
        assert threads_free(other, "a", 1)


def test_the_limits_given_are_not_changed_with_the_mapping_they_came_from():
    given_limits = {"a": 1}
    limits = CallLimits(None, given_limits)
    given_limits["a"] = 9
    assert limits.per_member == {"a": 1}

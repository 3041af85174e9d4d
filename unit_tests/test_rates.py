"""Rate limits: turns by hand and as a law, and members that may be called so many times a minute, in virtual time."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal import PoolMember
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.execution.limits import ConcurrencyLimiter, Rates
from support_time import WAYS, ensemble, in_virtual_time, play, timed


def test_turns_come_one_after_the_other_and_after_a_pause_as_many_at_once_as_the_burst():
    """At 60 a minute a turn is due each second. Three at once at 0 s put the next one off to 1 s; at 10 s all three are back."""
    rates = Rates()
    asked = [rates.take("x", now_s, per_minute=60, burst=3) for now_s in (0, 0, 0, 0, 0.25, 1, 1, 10, 10, 10, 10)]
    assert asked == [0, 0, 0, 1, 0.75, 0, 1, 0, 0, 0, 1]


def test_what_is_limited_by_another_name_has_turns_of_its_own():
    rates = Rates()
    assert [rates.take(name, 0, per_minute=1) for name in "xyx"] == [0, 0, 60]


@given(
    pauses=st.lists(st.floats(0, 3), max_size=60),
    per_minute=st.sampled_from([7, 60, 90.5, 600]),
    burst=st.integers(1, 4),
)
def test_no_span_of_time_has_more_turns_than_the_rate_and_one_burst(pauses, per_minute, burst):
    """Of turns i < j: j - i + 1 ≤ burst + (t_j - t_i) / T, and who comes back after the seconds that it was told gets one."""
    rates, now_s, taken_s = Rates(), 0.0, []
    for pause_s in pauses:
        now_s += pause_s
        wait_s = rates.take("x", now_s, per_minute=per_minute, burst=burst)
        if wait_s:
            now_s += wait_s
            assert rates.take("x", now_s, per_minute=per_minute, burst=burst) == 0
        taken_s.append(now_s)
    for i, j in itertools.combinations(range(len(taken_s)), 2):
        assert j - i + 1 <= burst + (taken_s[j] - taken_s[i]) * per_minute / 60 + 1e-6


@pytest.mark.parametrize("bad", [{"per_minute": 0}, {"per_minute": 60, "burst": 0}])
def test_a_rate_is_above_zero_and_a_burst_at_least_one(bad):
    with pytest.raises(InputError, match=r"must be"):
        SharedState().take("x", **bad)


async def test_what_models_share_takes_turns_by_its_clock():
    now = [0.0]
    shared = SharedState(clock=lambda: now[0])
    assert [shared.take("x", per_minute=30), await shared.atake("x", per_minute=30)] == [0, 2]
    now[0] = 2.0
    assert await shared.atake("x", per_minute=30) == 0


async def test_small_values_are_kept_until_their_time_is_over():
    now = [0.0]
    shared = SharedState(clock=lambda: now[0])
    shared.put("x", b"1", ttl_s=5)
    await shared.aput("y", b"2", ttl_s=10)
    assert (shared.get("x"), await shared.aget("y"), shared.get("z")) == (b"1", b"2", None)
    now[0] = 5.0
    assert (await shared.aget("x"), shared.get("y")) == (None, b"2")


# ---- members


def limited(*script, **limits):
    return PoolMember("a", timed(*script), **limits)


def test_the_numbers_of_calls_a_minute_are_checked():
    for bad in (0, -1, float("inf"), True, "60"):
        with pytest.raises(PoolError, match="`max_calls_per_minute` of member `a` must be finite and above 0, or None"):
            PoolMember("a", timed((0, "yes")), max_calls_per_minute=bad)


def test_calls_begin_a_turn_apart_and_other_members_do_not_wait():
    """At 30 a minute a call may begin each 2 s, however short it is: at 0, 2 and 4 s."""

    async def main():
        loop = asyncio.get_running_loop()
        slow, free = timed((0.5, "yes")), timed((0.5, "yes"))
        model = ensemble({"a": PoolMember("a", slow, max_calls_per_minute=30), "b": free}, early_commit=False)(
            loop.time
        )
        await asyncio.gather(*(model.ainvoke("Is it so? Answer yes or no.") for _ in range(3)))
        assert (slow.begun_s, free.begun_s) == ([0, 2, 4], [0, 0, 0])
        assert (model.shared_state.limiter.running, model.shared_state.limiter.waiting) == ({}, 0)

    in_virtual_time(main())


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_waits_for_its_turn_too(way):
    flaky = timed((0, ConnectionError("gone")), (0, "yes"))
    played = play(way, ensemble({"a": PoolMember("a", flaky, max_calls_per_minute=10)}))
    assert (flaky.begun_s, played.took_s) == ([0, 6], 6)


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_after_the_deadline_is_refused_at_once_so_that_another_stands_in(way):
    late, other = timed((0, "yes")), timed((1, "no"))

    def make(clock):
        members = {"a": PoolMember("a", late, competence=0.9, max_calls_per_minute=1), "b": other}
        model = ensemble(members, deadline_s=5, max_team=2, max_rounds=2)(clock)
        model.shared_state.limiter.acquire("a", on_granted=lambda: None, per_minute=1, now_s=clock()).release()
        return model

    played = play(way, make)
    assert (late.begun_s, played.kinds, played.message.text, played.took_s) == ([], {"a": "rate_limit"}, "no", 1)
    assert played.how["failures"][0]["reason"] == (
        "It may be called 1 times a minute, and its next turn, in 60 s, is after the deadline."
    )


def test_one_who_leaves_the_line_gives_up_no_turn_of_others():
    limiter, granted = ConcurrencyLimiter(), []
    slots = [limiter.acquire("a", on_granted=lambda i=i: granted.append(i), per_minute=60, now_s=0.0) for i in range(4)]
    assert [limiter.turn_at_s(slot) for slot in slots] == [float("inf"), 1, 2, 3]
    slots[1].release(0.5)
    assert [limiter.turn_at_s(slot) for slot in slots[2:]] == [1, 2]
    limiter.grant(1.0)
    limiter.grant(1.5)
    assert granted == [2]
    limiter.grant(2.0)
    assert granted == [2, 3]


def test_a_turn_is_taken_with_the_slot_and_not_before():
    """One at a time, each second: the first ends at 2.5 s, when the turn of the second is long due; the third's is 1 s later."""
    limiter, granted = ConcurrencyLimiter(), []
    caps = {"of_member": 1, "per_minute": 60, "now_s": 0.0}
    slots = [limiter.acquire("a", on_granted=lambda i=i: granted.append(i), **caps) for i in range(3)]
    limiter.grant(2.0)
    assert granted == []
    slots[0].release(2.5)
    assert granted == [1]
    slots[1].release(2.75)
    assert (granted, limiter.turn_at_s(slots[2])) == ([1], 3.5)
    limiter.grant(3.5)
    assert granted == [1, 2]

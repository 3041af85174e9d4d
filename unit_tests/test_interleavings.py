"""Interleavings: a second thread may come in before any instruction of the first, and nothing that they share breaks.

Chance seldom brings two threads together in the wrong place, so each place is tried.
"""

import sys

import pytest

from langchain_rlfocal.execution.limits import BreakerConfig, Breakers, BreakerState, ConcurrencyLimiter

RULE = BreakerConfig(failures=2, recovery_s=10.0)


def interleaved(begin):
    """Yield what `begin` sets up after each way in which one thread can come in between another's instructions.

    `begin` returns the state, its lock and two functions. The second runs before the n-th instruction of the first, for
    each n, or as soon after it as the lock is free.
    """
    number, has_come = 0, False

    def trace(frame, event, arg):
        nonlocal seen, has_come
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen > number and not has_come and not lock._is_owned():
                has_come = True
                second()
        return trace

    seen = 1
    while seen > number:
        (state, lock, first, second), seen, has_come = begin(), 0, False
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            first()
        finally:
            sys.settrace(before)
        if not has_come:
            second()
        yield state
        number += 1


# ---- limits


class Desk:
    """Asks for the only place and writes down, by name, who got it."""

    def __init__(self):
        self.limits, self.granted, self.places = ConcurrencyLimiter(), [], {}

    def ask(self, name):
        self.places[name] = self.limits.request(name[0], on_granted=lambda: self.granted.append(name), total=1)

    def leave(self, name):
        self.places[name].leave()


@pytest.mark.parametrize(
    ("acts", "granted"),
    [
        # a1 has the place, a2 and a3 wait for it; who must have come to it whatever the order
        (("leave a1", "leave a2"), {"a3"}),
        (("leave a2", "leave a1"), {"a3"}),
        (("leave a1", "leave a1"), {"a2"}),
        (("leave a2", "leave a2"), set()),
        (("leave a1", "ask b"), {"a2"}),
        (("ask b", "leave a1"), {"a2"}),
        (("ask b", "ask c"), set()),
    ],
)
def test_wherever_a_second_thread_comes_in_no_place_is_lost_or_given_twice(acts, granted):
    """In the end one has the place, and as each leaves the next has it, until nobody waits."""

    def begin():
        desk = Desk()
        for name in ("a1", "a2", "a3"):
            desk.ask(name)
        return desk, desk.limits._lock, *(lambda act=act: does[act.split()[0]](desk, act.split()[1]) for act in acts)

    does = {"leave": Desk.leave, "ask": Desk.ask}
    for desk in interleaved(begin):
        assert granted <= set(desk.granted)
        left = {act.split()[1] for act in acts if act.startswith("leave")}
        while holders := [name for name in desk.granted if name not in left]:
            assert sum(desk.limits.running.values()) == 1
            left.add(holders[0])
            desk.leave(holders[0])
        assert (desk.limits.running, desk.limits.waiting) == ({}, 0)
        assert len(desk.granted) == len(set(desk.granted))
        assert set(desk.granted) >= set(desk.places) - {"a1", "a2"}


def test_wherever_a_second_thread_asks_for_the_last_place_one_has_it():
    def begin():
        desk = Desk()
        return desk, desk.limits._lock, lambda: desk.ask("a"), lambda: desk.ask("b")

    for desk in interleaved(begin):
        assert len(desk.granted) == 1
        assert (sum(desk.limits.running.values()), desk.limits.waiting) == (1, 1)


# ---- circuit breakers


def opened():
    """Breakers of which `m` has opened at 0 s."""
    breakers = Breakers()
    for _ in range(RULE.failures):
        breakers.admit("m", 0.0).fail(0.0, RULE)
    return breakers


def test_wherever_a_second_thread_comes_in_one_probes():
    def begin():
        permits.clear()
        breakers = opened()
        ask = [lambda: permits.append(breakers.admit("m", 10.0))] * 2
        return breakers, breakers._lock, *ask

    permits = []
    for _ in interleaved(begin):
        assert permits.count(None) == 1


def test_wherever_a_second_thread_comes_in_two_failures_at_once_count_as_one():
    def begin():
        breakers = Breakers()
        permits = [breakers.admit("m", 0.0) for _ in range(2)]
        return breakers, breakers._lock, *(lambda p=permit: p.fail(0.0, BreakerConfig(3)) for permit in permits)

    for breakers in interleaved(begin):
        assert breakers.states(0.0) == {"m": BreakerState("closed", 1, 0.0)}


def test_wherever_a_second_thread_comes_in_one_permit_counts_once():
    def begin():
        breakers = Breakers()
        permit = breakers.admit("m", 0.0)
        return breakers, breakers._lock, *[lambda: permit.fail(0.0, RULE)] * 2

    for breakers in interleaved(begin):
        assert breakers.states(0.0) == {"m": BreakerState("closed", 1, 0.0)}


def test_wherever_a_second_thread_opens_a_breaker_a_late_success_does_not_close_it():
    """Either the success was first, and one failure follows it, or the breaker opened and stays so."""

    def begin():
        breakers = Breakers()
        breakers.admit("m", 0.0).fail(0.0, RULE)
        late, other = [breakers.admit("m", 0.0) for _ in range(2)]
        return breakers, breakers._lock, late.succeed, lambda: other.fail(0.0, RULE)

    after = [breakers.states(0.0)["m"] for breakers in interleaved(begin)]
    assert set(after) == {BreakerState("open", 2, 10.0), BreakerState("closed", 1, 0.0)}


def test_wherever_a_second_thread_drops_a_probe_the_reset_holds():
    def begin():
        breakers = opened()
        return breakers, breakers._lock, breakers.admit("m", 10.0).drop, breakers.reset

    for breakers in interleaved(begin):
        assert breakers.states(10.0) == {}


def test_wherever_a_second_thread_comes_in_all_states_are_read():
    """A member more or less while they are read would end the reading."""

    def begin():
        breakers = opened()
        return breakers, breakers._lock, lambda: breakers.states(0.0), lambda: breakers.admit("new", 0.0)

    for breakers in interleaved(begin):
        assert set(breakers.states(0.0)) == {"m"}

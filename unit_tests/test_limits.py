"""Limits that answers share: calls at once, circuit breakers and usual latencies, by hand, against models, and in every interleaving."""

import asyncio
import copy
import math
import pickle
import re
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.execution.limits import (
    MIN_SAMPLES,
    WINDOW,
    Admission,
    BreakerConfig,
    Breakers,
    BreakerState,
    ConcurrencyLimiter,
    Latencies,
    RetryBudget,
)
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.testing import FailingChatModel, ScriptedPolicy
from support_asking import aask, arelay, ask, limits_of, relay
from support_ensembles import saying
from support_gauges import GUARD_S, Gauge, is_free, let_others_run

QUESTION = [HumanMessage("What is it?")]


class Desk:
    """Asks for slots and writes down, by name, who got one."""

    def __init__(self):
        self.limits, self.granted, self.places = ConcurrencyLimiter(), [], {}

    def ask(self, name, **caps):
        """Ask for a call of the member that the name begins with."""
        self.places[name] = self.limits.acquire(name[0], on_granted=lambda: self.note(name), **caps)
        if self.places[name].is_held:
            self.note(name)

    def note(self, name):
        if name not in self.granted:
            self.granted.append(name)

    def leave(self, *names):
        for name in names:
            self.places[name].release()


@pytest.fixture
def desk():
    return Desk()


# ---- calls at once

DESKS = {
    "without caps nobody waits": "+a1 +a2 +a3 +b =a1,a2,a3,b",
    "the total binds over all members": "+a:2 +b:2 +c:2 =a,b -a =a,b,c",
    "a member's own cap holds up nobody else": "+a1:2/1 +a2:2/1 +a3:2/1 +b:2/1 =a1,b -b =a1,b -a1 =a1,b,a2",
    "one count binds requests with other caps": "+a1:2 +a2:2 +b1:3 +b2:1 -a1 -a2 =a1,a2,b1 -b1 =a1,a2,b1,b2",
    "b wants to be the only one, and is not overtaken; once it runs, its cap binds nobody else": (
        "+a:2 +b:1 +c:2 +d:2 =a -a =a,b,c -b =a,b,c,d"
    ),
    "one that waits for the total is not overtaken by one without caps": "+a:1 +b:1 +c =a",
    "a higher cap of the member does not overtake a lower": "+a1/1 +a2/1 +a3/9 =a1 -a1 =a1,a2,a3",
    "a request withdrawn lets those behind it pass, and never runs": "+a:2 +b:1 +c:2 -b =a,c -b -a -c =a,c",
    "leaving twice gives one slot back": "+a1:2 +a2:2 +a3:2 +a4:2 -a1 -a1 =a1,a2,a3",
}
STEP = re.compile(r"\+(?P<name>\w+)(?::(?P<total>\d))?(?:/(?P<of_member>\d))?")


@pytest.mark.parametrize("name", DESKS)
def test_who_gets_a_slot(desk, name):
    """`+a1:2/1` asks for a call of `a` under a total of 2 and 1 of the member, `-a1` leaves; after `=` who got one so far."""
    for step in DESKS[name].split():
        if asked := STEP.fullmatch(step):
            caps = {cap: int(asked[cap]) for cap in ("total", "of_member") if asked[cap]}
            desk.ask(asked["name"], **caps)
        elif step.startswith("-"):
            desk.leave(step[1:])
        else:
            assert desk.granted == step[1:].split(",")
    desk.leave(*desk.places)
    assert (desk.limits.running, desk.limits.waiting) == ({}, 0)


@pytest.mark.parametrize("caps", [{"total": 0}, {"of_member": 0}, {"total": -1}])
def test_a_cap_under_which_no_call_could_ever_run_is_refused(desk, caps):
    (name,) = caps
    with pytest.raises(InputError, match=f"`{name}` must be at least 1, got .* None for any number"):
        desk.ask("a", **caps)
    assert desk.limits.waiting == 0


CAPS = st.none() | st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.sampled_from("abc"), CAPS, CAPS),  # a request: member, total, of_member
    st.integers(0, 40),  # a call leaves, or a request is withdrawn, or one that has left leaves again
)


@given(steps=st.lists(STEPS, max_size=60))
def test_any_order_of_requests_and_leaves_is_fair_and_within_the_caps(steps):
    """After each step, and in the moment of each grant, the rules of the module's docstring hold, one by one."""
    limits, asked, places, waiting, running = ConcurrencyLimiter(), [], [], [], []

    def counted():
        return Counter(asked[number][0] for number in running)

    def stands_aside(number):
        """Waits for its member: by its own cap, or behind an earlier request of the same member."""
        member, _, of_member = asked[number]
        is_first = not any(other < number and asked[other][0] == member for other in waiting)
        return not is_first or (of_member is not None and counted()[member] >= of_member)

    def grant(number):
        assert waiting.count(number) == 1, "granted once, and not after it was withdrawn"
        member, total, of_member = asked[number]
        assert all(stands_aside(other) for other in waiting if other < number), "overtook one that did not stand aside"
        assert not any(other < number and asked[other][0] == member for other in waiting), "overtook its own member's"
        waiting.remove(number)
        running.append(number)
        assert total is None or len(running) <= total
        assert of_member is None or counted()[member] <= of_member
        assert limits.running == counted()

    def leave(number):
        if number in running:
            running.remove(number)
        elif number in waiting:
            waiting.remove(number)
        places[number].release()

    def check():
        assert limits.running == counted()
        assert limits.waiting == len(waiting)
        able = [number for number in sorted(waiting) if not stands_aside(number)]
        if able:  # the first of them holds up the others, and must itself be held up by the total
            total = asked[able[0]][1]
            assert total is not None, "could run, but waits"
            assert len(running) >= total, "could run, but waits"

    for step in steps:
        if isinstance(step, tuple):
            number = len(asked)
            asked.append(step)
            waiting.append(number)
            member, total, of_member = step
            slot = limits.acquire(member, on_granted=lambda n=number: grant(n), total=total, of_member=of_member)
            places.append(slot)
            if slot.is_held:
                grant(number)
        elif places:
            leave(step % len(places))
        check()
    while running:  # whoever waits comes to run, if only each that runs leaves one day
        leave(running[0])
        check()
    assert (waiting, limits.running, limits.waiting) == ([], {}, 0)


def test_the_place_of_a_closed_event_loop_goes_to_the_next_in_line(desk):
    """What a loop raises that nobody runs any more does not reach whoever leaves; more in line than a stack is deep."""
    loop, count = asyncio.new_event_loop(), 2 * sys.getrecursionlimit()
    loop.close()
    desk.ask("a1", total=1)
    gone = [
        desk.limits.acquire("a", on_granted=lambda: loop.call_soon_threadsafe(print), total=1) for _ in range(count)
    ]
    desk.ask("a2", total=1)
    desk.leave("a1")
    assert desk.granted == ["a1", "a2"]
    for place in gone:
        place.release()
    assert desk.limits.running == {"a": 1}


def test_a_place_left_by_another_thread_while_its_request_is_called_back_goes_on(desk):
    """`a2` is left between its grant and the end of its call-back, which then raises: one place, given back once."""

    def on_granted():
        other = threading.Thread(target=desk.leave, args=["a2"])
        other.start()
        other.join(GUARD_S)
        raise RuntimeError

    desk.ask("a1", total=1)
    desk.places["a2"] = desk.limits.acquire("a", on_granted=on_granted, total=1)
    desk.ask("a3", total=1)
    desk.ask("a4", total=1)
    desk.leave("a1")
    assert desk.granted == ["a1", "a3"]
    assert (desk.limits.running, desk.limits.waiting) == ({"a": 1}, 1)


def test_a_thread_and_two_event_loops_share_one_count():
    """The main thread holds the only place; a call in each of two loops waits for it, and they run in turn."""
    limits, order, meeting = ConcurrencyLimiter(), [], threading.Barrier(3)

    async def one(name):
        loop, is_granted = asyncio.get_running_loop(), asyncio.Event()
        place = limits.acquire(name, on_granted=lambda: loop.call_soon_threadsafe(is_granted.set), total=1)
        assert not place.is_held
        meeting.wait(GUARD_S)
        await asyncio.wait_for(is_granted.wait(), GUARD_S)
        order.append(limits.running)
        place.release()

    place = limits.acquire("main", on_granted=lambda: None, total=1)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(asyncio.run, one(name)) for name in "ab"]
        meeting.wait(GUARD_S)
        assert (order, limits.waiting) == ([], 2)
        place.release()
        for future in futures:
            future.result(GUARD_S)
    assert sorted(order, key=str) == [{"a": 1}, {"b": 1}]


# ---- circuit breakers

RULE = BreakerConfig(failures=2, recovery_s=10.0)
"""Opens at the second failure in a row, for ten seconds."""

BREAKERS = {
    "opens at the second failure in a row, for ten seconds": "1 a 2 a- closed:1 b 3 b- open:2:10 12.5 !c open:2:0.5",
    "a success between failures starts the count again": "a a- b b+ c c- d d+ closed",
    "from the end of the rest one call probes, and its success closes": (
        "a a- b b- 9.99 !c 10 half_open:2 p !c half_open:2 1000 !c p+ closed c d e"
    ),
    "after that failures count from zero": "a a- b b- 10 p p+ c c- closed:1",
    "a failing probe opens again": "a a- b b- 10 p 12 p- open:3:10 21.9 !c 22 c",
    "a dropped probe lets another call probe": "a a- b b- 10 p p~ half_open:2 q q+ closed",
    "a dropped call neither counts nor ends the row": "a a- b b~ c c- open:2:10",
    "calls that fail side by side are one sign, and those after them another": (
        "a b c d 1 a- b- c- d- closed:1 e 2 e- open:2:10"
    ),
    "a success between does not let those before it count again": "a b a- c c+ b- closed",
    "a success that is late does not close": "z a a- b b- z+ 1 open:2:9",
    "a failure that is late neither prolongs the rest nor ends the probe": (
        "x y z a a- b b- 9 x- open:2:1 10 p y~ !q p+ z- closed"
    ),
    "a reset closes, and forgets the probe under way": "a a- b b- 10 p reset closed p- closed",
    "a reset forgets calls under way": "x a a- b reset x- closed b- closed",
    "the first report of a call counts": "a a- a- a+ closed:1",
    "the first report of a probe counts": "a a- b b- 10 p p~ q p~ !r q+ q- closed",
}


def opened(now=0.0):
    """Breakers of which `m` has just opened."""
    breakers = Breakers()
    for _ in range(RULE.failures):
        breakers.admit("m", now).fail(now, RULE)
    return breakers


@pytest.mark.parametrize("name", BREAKERS)
def test_a_breaker_goes_from_state_to_state(name):
    """A number is the time; `a` begins a call and `!a` is refused one; `a+` succeeds, `a-` fails, `a~` is dropped.

    A state stands with its failures and the seconds until it may probe.
    """
    breakers, calls, now_s = Breakers(), {}, 0.0
    ends = {
        "+": lambda permit: permit.succeed(),
        "-": lambda permit: permit.fail(now_s, RULE),
        "~": lambda permit: permit.drop(),
    }
    for step in BREAKERS[name].split():
        state, *numbers = step.split(":")
        if step[0].isdigit():
            now_s = float(step)
        elif state in {"closed", "open", "half_open"}:
            failures, retry_in_s = (*map(float, numbers), 0.0, 0.0)[:2]
            state_of_m = {"m": BreakerState(state, int(failures), retry_in_s)} if failures else {}
            assert breakers.states(now_s) == state_of_m
        elif step == "reset":
            breakers.reset("m")
        elif step[-1] in ends:
            ends[step[-1]](calls[step[0]])
        else:
            is_refused = step.startswith("!")
            assert breakers.is_open("m", now_s) == is_refused
            calls[step[-1]] = breakers.admit("m", now_s)
            assert (calls[step[-1]] is None) == is_refused


def test_a_failing_probe_rests_for_as_long_as_its_own_rule_says():
    """At 12 s for 50 s, though that rule would bear a hundred failures."""
    breakers = opened()
    breakers.admit("m", 10.0).fail(12.0, BreakerConfig(failures=100, recovery_s=50.0))
    assert breakers.states(12.0) == {"m": BreakerState("open", 3, 50.0)}


def test_a_reset_of_one_member_leaves_the_others_as_they_are():
    breakers = Breakers()
    for name in "ab":
        breakers.admit(name, 0.0).fail(0.0, BreakerConfig(failures=1))
    breakers.reset("a")
    breakers.reset("unknown")
    assert set(breakers.states(0.0)) == {"b"}
    breakers.reset()
    assert breakers.states(0.0) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("failures", value) for value in (0, True, 2.0, "5", None)),
        *(("recovery_s", value) for value in (0, -1.0, math.inf, math.nan, True, "30")),
    ],
)
def test_a_rule_outside_its_range_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"`{field}` must be"):
        BreakerConfig(**{field: value})


@dataclass
class Model:
    """A breaker as its description puts it, with a number for each period instead of an object."""

    failures: int = 0
    heard: int = 0
    until: float | None = None
    generation: int = 0
    probe: object = None

    def lets_through(self, now):
        return self.until is None or (now >= self.until and self.probe is None)


class AgainstTheModel(RuleBasedStateMachine):
    """Calls of two members begin and end in any order, some after a reset or an opening, and some report twice."""

    def __init__(self):
        super().__init__()
        self.breakers, self.now, self.calls = Breakers(), 0.0, []
        self.models = {"a": Model(), "b": Model()}

    @rule(member=st.sampled_from("ab"))
    def admit(self, member):
        model, permit = self.models[member], self.breakers.admit(member, self.now)
        assert (permit is not None) == model.lets_through(self.now)
        if permit is not None:
            if model.until is not None:
                model.probe = permit
            self.calls.append([permit, member, (model.generation, model.heard), False])

    def end(self, data):
        """Pick one of the last calls, also one that has ended; None for the model if its result must not count."""
        call = data.draw(st.sampled_from(self.calls[-4:]))
        permit, member, (generation, self.heard), is_over = call
        call[3] = True
        model = self.models[member]
        counts = not is_over and generation == model.generation
        return permit, model if counts else None

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def succeed(self, data):
        permit, model = self.end(data)
        permit.succeed()
        if model:
            model.failures, model.until, model.probe = 0, None, None

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), failures=st.integers(1, 3), recovery_s=st.sampled_from([1.0, 4.0]))
    def fail(self, data, failures, recovery_s):
        permit, model = self.end(data)
        permit.fail(self.now, BreakerConfig(failures, recovery_s))
        if model and self.heard == model.heard:
            model.failures += 1
            model.heard += 1
            if model.probe is permit or model.failures >= failures:
                model.until, model.probe = self.now + recovery_s, None
                model.generation, model.heard = model.generation + 1, 0

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def drop(self, data):
        permit, model = self.end(data)
        permit.drop()
        if model:
            model.probe = None

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(member=st.sampled_from(["a", "b", None]))
    def reset(self, member):
        self.breakers.reset(member)
        for name in "ab" if member is None else member:
            self.models[name] = Model(generation=self.models[name].generation + 1)

    @invariant()
    def they_agree(self):
        expected = {}
        for member, model in self.models.items():
            assert self.breakers.is_open(member, self.now) == (not model.lets_through(self.now))
            if model.until is not None:
                retry_in_s = max(model.until - self.now, 0.0)
                expected[member] = BreakerState("open" if retry_in_s else "half_open", model.failures, retry_in_s)
            elif model.failures:
                expected[member] = BreakerState("closed", model.failures, 0.0)
        assert self.breakers.states(self.now) == expected


test_breakers_behave_as_their_model_in_any_schedule = AgainstTheModel.TestCase


# ---- usual latencies


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


@pytest.mark.parametrize("kind", [Admission, Breakers, ConcurrencyLimiter, Latencies, RetryBudget, SharedState])
def test_copies_are_the_same_object_and_a_pickle_is_a_new_one(kind):
    state = kind()
    assert copy.copy(state) is copy.deepcopy(state) is copy.deepcopy({"model": [state]})["model"][0] is state
    assert pickle.loads(pickle.dumps(state)) is not state


# ---- every interleaving of two threads


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
            desk.ask(name, total=1)
        return desk, desk.limits._lock, *(lambda act=act: does[act.split()[0]](desk, act.split()[1]) for act in acts)

    does = {"leave": Desk.leave, "ask": lambda desk, name: desk.ask(name, total=1)}
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
        return desk, desk.limits._lock, lambda: desk.ask("a", total=1), lambda: desk.ask("b", total=1)

    for desk in interleaved(begin):
        assert len(desk.granted) == 1
        assert (sum(desk.limits.running.values()), desk.limits.waiting) == (1, 1)


def test_wherever_a_second_thread_comes_in_one_probes():
    def begin():
        permits.clear()
        breakers = opened()
        ask = [lambda: permits.append(breakers.admit("m", 10.0))] * 2
        return breakers, breakers.lock, *ask

    permits = []
    for _ in interleaved(begin):
        assert permits.count(None) == 1


CLOSED_ONCE = [{"m": BreakerState("closed", 1, 0.0)}]


def two_failures():
    """Of calls that ran at once."""
    breakers = Breakers()
    permits = [breakers.admit("m", 0.0) for _ in range(2)]
    return breakers, *(lambda p=permit: p.fail(0.0, BreakerConfig(3)) for permit in permits)


def one_failure_twice():
    breakers = Breakers()
    permit = breakers.admit("m", 0.0)
    return breakers, *[lambda: permit.fail(0.0, RULE)] * 2


def a_late_success_and_an_opening():
    """Either the success was first, and one failure follows it, or the breaker opened and stays so."""
    breakers = Breakers()
    breakers.admit("m", 0.0).fail(0.0, RULE)
    late, other = [breakers.admit("m", 0.0) for _ in range(2)]
    return breakers, late.succeed, lambda: other.fail(0.0, RULE)


def a_dropped_probe_and_a_reset():
    breakers = opened(-10.0)
    return breakers, breakers.admit("m", 0.0).drop, breakers.reset


def reading_and_a_new_member():
    """A member more while they are read would end the reading."""
    breakers = opened()
    return breakers, lambda: breakers.states(0.0), lambda: breakers.admit("new", 0.0)


@pytest.mark.parametrize(
    ("set_up", "states"),
    [
        (two_failures, CLOSED_ONCE),
        (one_failure_twice, CLOSED_ONCE),
        (a_late_success_and_an_opening, [{"m": BreakerState("open", 2, 10.0)}, *CLOSED_ONCE]),
        (a_dropped_probe_and_a_reset, [{}]),
        (reading_and_a_new_member, [{"m": BreakerState("open", 2, 10.0)}]),
    ],
)
def test_wherever_a_second_thread_comes_in_a_breaker_is_in_a_state_of_one_after_the_other(set_up, states):
    def begin():
        breakers, first, second = set_up()
        return breakers, breakers.lock, first, second

    found = [breakers.states(0.0) for breakers in interleaved(begin)]
    assert all(state in states for state in found)
    assert all(state in found for state in states)


# ---- caps where members are asked, over all that copies of a model ask


def holding(gauge, name="a"):
    """A call that is counted while it gives way to others."""

    async def hold():
        gauge.enter(name)
        await let_others_run()
        gauge.leave(name)

    return hold


def test_streams_in_threads_hold_to_the_limits():
    """Two streams meet each time, of forty; a third would come in if it could."""
    gauge, meeting, shared = Gauge(), threading.Barrier(2), SharedState()

    def hold():
        gauge.enter("m")
        meeting.wait(GUARD_S)
        gauge.leave("m")

    member = PoolMember("m", saying("yes", on_call=hold))

    def read(_number):
        return list(relay(member, QUESTION, limits=limits_of(max_concurrent_calls=2, shared=shared)))[-1].text

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(40))) == {"yes"}
    assert gauge.most[None] == 2


def one_at_a_time(model):
    """A member that can be asked by one call at a time, and how to make the errands of its calls."""
    shared = SharedState()
    return PoolMember("m", model, max_concurrent_calls=1), lambda: limits_of(max_concurrent_calls=1, shared=shared)


@pytest.mark.parametrize("model", [saying("yes"), saying(""), FailingChatModel(error=KeyError("k"), after="half an")])
async def test_whatever_comes_of_a_member_its_place_is_free_again(model):
    """Were a place kept, the next call would wait for ever."""
    member, limits = one_at_a_time(model)
    results = [
        ask([member], QUESTION, limits=limits())[0],
        list(relay(member, QUESTION, limits=limits()))[-1],
        (await asyncio.wait_for(aask([member], QUESTION, limits=limits()), GUARD_S))[0],
        [item async for item in arelay(member, QUESTION, limits=limits())][-1],
    ]
    assert all(isinstance(result, Candidate | Failure) for result in results)
    assert is_free(limits().shared)


async def test_leaving_a_stream_early_gives_its_place_back():
    member, limits = one_at_a_time(saying("a b c d"))
    stream = relay(member, QUESTION, limits=limits())
    next(stream)
    stream.close()
    assert is_free(limits().shared)
    astream = arelay(member, QUESTION, limits=limits())
    await anext(astream)
    await astream.aclose()
    assert is_free(limits().shared)
    assert ask([member], QUESTION, limits=limits())[0].text == "a b c d"


async def test_cancelling_a_team_of_which_some_wait_gives_all_places_back():
    """`a` runs and never ends, `b` and `c` wait for its place; after the cancellation another can be asked."""
    shared, begun, never = SharedState(), asyncio.Event(), asyncio.Event()

    async def hold():
        begun.set()
        await never.wait()

    members = [PoolMember(name, saying(name, on_acall=hold)) for name in "abc"]
    asking = asyncio.create_task(aask(members, QUESTION, limits=limits_of(max_concurrent_calls=1, shared=shared)))
    await begun.wait()
    assert (shared.limiter.running, shared.limiter.waiting) == ({"a": 1}, 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert is_free(shared)
    other = PoolMember("d", saying("d"))
    assert ask([other], QUESTION, limits=limits_of(max_concurrent_calls=1, shared=shared))[0].text == "d"


def model_of(members, **fields):
    names = tuple(member.name for member in members)
    return RLFocalChatModel(members=members, policy=ScriptedPolicy([names], names), max_team=len(names), **fields)


async def counted(models, calls_each=4):
    """Ask models at once, by some calls each, and return how many calls ran at once."""
    gauge = Gauge()
    for model in models:
        for member in model.pool:
            member.model.on_acall = holding(gauge)
    await asyncio.wait_for(asyncio.gather(*(model.abatch(["?"] * calls_each) for model in models)), GUARD_S)
    assert all(is_free(model.shared_state) for model in models)
    return gauge.most[None]


@pytest.mark.parametrize(("total", "of_member", "most"), [(None, 2, 2), (3, None, 3), (3, 2, 2), (2, 3, 2)])
async def test_a_models_cap_and_its_members_both_hold(total, of_member, most):
    member = PoolMember("a", saying("x"), max_concurrent_calls=of_member)
    assert await counted([model_of([member], max_concurrent_calls=total)]) == most


def rebuilt(model, **fields):
    return RLFocalChatModel(**{name: getattr(model, name) for name in RLFocalChatModel.model_fields} | fields)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, RLFocalChatModel.model_copy, rebuilt],
    ids=["copy", "deepcopy", "model_copy", "rebuilt"],
)
async def test_a_copy_shares_the_count_of_calls(copied):
    model = model_of([PoolMember("a", saying("x"))], max_concurrent_calls=2)
    assert await counted([model, copied(model)]) == 2


async def test_models_made_apart_count_apart_unless_they_are_given_one_shared_state():
    """Two calls of each run at once, so four in all; where they share the count, two."""
    apart = [model_of([PoolMember("a", saying("x"))], max_concurrent_calls=2) for _ in range(2)]
    assert await counted(apart) == 4
    assert await counted([apart[0], rebuilt(apart[1], shared_state=apart[0].shared_state)]) == 2


async def test_a_copy_with_another_cap_counts_the_same_calls():
    """A call of the model's runs, so that its copy with a cap of one waits, and one with a cap of two does not."""
    model = model_of([PoolMember("a", saying("x"))], max_concurrent_calls=5)
    place = model.shared_state.limiter.acquire("a", on_granted=lambda: None)
    waiting = asyncio.create_task(rebuilt(model, max_concurrent_calls=1).ainvoke("?"))
    await let_others_run()
    assert model.shared_state.limiter.waiting == 1
    place.release()
    assert (await waiting).text == "x"
    place = model.shared_state.limiter.acquire("a", on_granted=lambda: None)
    assert (await rebuilt(model, max_concurrent_calls=2).ainvoke("?")).text == "x"
    place.release()


@pytest.mark.parametrize("cap", [0, -1, 1.5, True, "two"])
def test_a_members_cap_must_be_a_whole_number_of_at_least_one(cap):
    with pytest.raises(PoolError, match="`max_concurrent_calls` of member `a`"):
        PoolMember("a", saying("x"), max_concurrent_calls=cap)


async def test_a_cap_that_is_changed_holds_from_then_on_and_for_that_copy_alone():
    model = model_of([PoolMember("a", saying("x"))])
    other = model.model_copy()
    assert await counted([model]) == 4
    model.max_concurrent_calls = 2
    assert await counted([model]) == 2
    assert await counted([model.model_copy(update={"max_concurrent_calls": 1})]) == 1
    assert await counted([other]) == 4


async def test_a_cap_given_by_config_holds_over_all_calls():
    gauge = Gauge()
    base = RLFocalChatModel(members={"a": saying("yes", on_acall=holding(gauge))})
    model = base.configurable_fields(max_concurrent_calls=ConfigurableField(id="cap"))
    await model.abatch(["?"] * 8, {"configurable": {"cap": 2}})
    assert gauge.most[None] == 2

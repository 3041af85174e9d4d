"""Breakers: when a member rests, who probes it, and which results count, against a model and by hand."""

import copy
import math
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.limits import BreakerConfig, Breakers, BreakerState

GUARD_S = 30
RULE = BreakerConfig(failures=2, recovery_s=10.0)
"""Opens at the second failure in a row, for ten seconds."""


def opened(now=0.0):
    """Breakers of which `m` has just opened."""
    breakers = Breakers()
    for _ in range(RULE.failures):
        breakers.admit("m", now).fail(now, RULE)
    return breakers


def status(breakers, now):
    state = breakers.states(now).get("m")
    return state.state if state else "closed"


# ---- by hand


def test_a_breaker_opens_at_the_failure_that_is_one_too_many_and_rests():
    """The second failure, at 3 s, opens it until 13 s."""
    breakers = Breakers()
    breakers.admit("m", 1.0).fail(2.0, RULE)
    assert not breakers.is_open("m", 2.0)
    assert breakers.states(2.0) == {"m": BreakerState("closed", 1, 0.0)}
    breakers.admit("m", 2.0).fail(3.0, RULE)
    assert breakers.is_open("m", 3.0)
    assert breakers.admit("m", 12.5) is None
    assert breakers.states(12.5) == {"m": BreakerState("open", 2, 0.5)}


def test_a_success_between_failures_starts_the_count_again():
    breakers = Breakers()
    for ends in ("fail", "succeed", "fail", "succeed"):
        permit = breakers.admit("m", 0.0)
        permit.fail(0.0, RULE) if ends == "fail" else permit.succeed()
    assert breakers.states(0.0) == {}


def test_from_the_end_of_the_rest_one_call_probes_and_its_success_closes():
    breakers = opened()
    assert breakers.is_open("m", 9.99)
    assert not breakers.is_open("m", 10.0)
    assert breakers.states(10.0) == {"m": BreakerState("half_open", 2, 0.0)}
    probe = breakers.admit("m", 10.0)
    assert breakers.is_open("m", 10.0)
    assert breakers.admit("m", 1e9) is None
    assert breakers.states(10.0) == {"m": BreakerState("half_open", 2, 0.0)}
    probe.succeed()
    assert breakers.states(10.0) == {}
    assert None not in [breakers.admit("m", 10.0) for _ in range(3)]


def test_after_the_success_of_a_probe_failures_count_from_zero():
    breakers = opened()
    breakers.admit("m", 10.0).succeed()
    breakers.admit("m", 10.0).fail(10.0, RULE)
    assert breakers.states(10.0) == {"m": BreakerState("closed", 1, 0.0)}


def test_a_failing_probe_opens_again_for_the_rest_that_its_own_rule_says():
    """At 12 s for 50 s, though that rule would bear a hundred failures."""
    breakers = opened()
    breakers.admit("m", 10.0).fail(12.0, BreakerConfig(failures=100, recovery_s=50.0))
    assert breakers.states(12.0) == {"m": BreakerState("open", 3, 50.0)}
    assert breakers.admit("m", 61.9) is None
    assert breakers.admit("m", 62.0) is not None


def test_a_dropped_probe_lets_another_call_probe():
    breakers = opened()
    breakers.admit("m", 10.0).drop()
    assert status(breakers, 10.0) == "half_open"
    assert not breakers.is_open("m", 10.0)
    breakers.admit("m", 10.0).succeed()
    assert status(breakers, 10.0) == "closed"


def test_a_dropped_call_neither_counts_nor_ends_the_row():
    breakers = Breakers()
    breakers.admit("m", 0.0).fail(0.0, RULE)
    breakers.admit("m", 0.0).drop()
    breakers.admit("m", 0.0).fail(0.0, RULE)
    assert status(breakers, 0.0) == "open"


def test_calls_that_fail_side_by_side_are_one_sign_and_those_after_them_another():
    """Ten begin before the first failure is heard of and count once; the next one begins after it, and opens."""
    breakers = Breakers()
    for permit in [breakers.admit("m", 0.0) for _ in range(10)]:
        permit.fail(1.0, RULE)
    assert breakers.states(1.0) == {"m": BreakerState("closed", 1, 0.0)}
    breakers.admit("m", 1.0).fail(2.0, RULE)
    assert breakers.states(2.0) == {"m": BreakerState("open", 2, 10.0)}


def test_a_success_between_does_not_let_those_before_it_count_again():
    breakers = Breakers()
    first, second = breakers.admit("m", 0.0), breakers.admit("m", 0.0)
    first.fail(0.0, RULE)
    breakers.admit("m", 0.0).succeed()
    second.fail(0.0, RULE)
    assert breakers.states(0.0) == {}


def test_a_success_that_is_late_does_not_close_what_has_opened_since():
    breakers = Breakers()
    late = breakers.admit("m", 0.0)
    for _ in range(2):
        breakers.admit("m", 0.0).fail(0.0, RULE)
    late.succeed()
    assert breakers.states(1.0) == {"m": BreakerState("open", 2, 9.0)}


def test_a_failure_that_is_late_neither_prolongs_the_rest_nor_ends_the_probe():
    breakers = Breakers()
    late, later, latest = [breakers.admit("m", 0.0) for _ in range(3)]
    for _ in range(2):
        breakers.admit("m", 0.0).fail(0.0, RULE)
    late.fail(9.0, RULE)
    assert breakers.states(9.0) == {"m": BreakerState("open", 2, 1.0)}
    probe = breakers.admit("m", 10.0)
    later.drop()
    assert breakers.admit("m", 10.0) is None
    probe.succeed()
    latest.fail(10.0, BreakerConfig(failures=1))
    assert breakers.states(10.0) == {}


def test_a_reset_closes_and_forgets_calls_under_way():
    breakers = opened()
    probe = breakers.admit("m", 10.0)
    breakers.reset("m")
    assert breakers.states(10.0) == {}
    probe.fail(10.0, RULE)
    before = breakers.admit("m", 10.0)
    breakers.admit("m", 10.0).fail(10.0, RULE)
    breakers.reset()
    before.fail(10.0, BreakerConfig(failures=1))
    assert breakers.states(10.0) == {}


def test_a_reset_of_one_member_leaves_the_others_as_they_are():
    breakers = Breakers()
    for name in "ab":
        breakers.admit(name, 0.0).fail(0.0, BreakerConfig(failures=1))
    breakers.reset("a")
    breakers.reset("unknown")
    assert set(breakers.states(0.0)) == {"b"}
    breakers.reset()
    assert breakers.states(0.0) == {}


def test_of_several_reports_of_one_call_the_first_has_an_effect():
    breakers = Breakers()
    permit = breakers.admit("m", 0.0)
    permit.fail(0.0, RULE)
    permit.fail(0.0, RULE)
    permit.succeed()
    assert breakers.states(0.0) == {"m": BreakerState("closed", 1, 0.0)}
    breakers = opened()
    dropped = breakers.admit("m", 10.0)
    dropped.drop()
    probe = breakers.admit("m", 10.0)
    dropped.drop()
    assert breakers.admit("m", 10.0) is None
    probe.succeed()
    probe.fail(10.0, BreakerConfig(failures=1))
    assert breakers.states(10.0) == {}


# ---- rules


@pytest.mark.parametrize("failures", [0, -1, True, 2.0, "5", None])
def test_a_number_of_failures_that_is_none_is_refused(failures):
    with pytest.raises(InputError, match="`failures` must be a whole number of at least 1, got"):
        BreakerConfig(failures=failures)


@pytest.mark.parametrize("recovery_s", [0, -1.0, math.inf, math.nan, 10**400, True, "30", None])
def test_a_rest_that_is_no_time_is_refused(recovery_s):
    with pytest.raises(InputError, match="`recovery_s` must be a finite number of seconds above 0, got"):
        BreakerConfig(recovery_s=recovery_s)


def test_a_rule_is_a_value_with_defaults():
    assert BreakerConfig() == BreakerConfig(failures=5, recovery_s=30.0)
    assert BreakerConfig(failures=1, recovery_s=sys.float_info.max).failures == 1


# ---- any schedule


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


# ---- threads and copies


def test_of_threads_that_ask_at_once_exactly_one_probes():
    breakers, meeting = opened(), threading.Barrier(8)

    def one(_number):
        meeting.wait(GUARD_S)
        return breakers.admit("m", 10.0)

    with ThreadPoolExecutor(8) as pool:
        permits = list(pool.map(one, range(8), timeout=GUARD_S))
    assert permits.count(None) == 7


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_object(copied):
    breakers = opened()
    assert copied(breakers) is breakers


def test_a_pickle_begins_with_every_breaker_closed():
    breakers = opened()
    other = pickle.loads(pickle.dumps(breakers))
    assert other.states(0.0) == {}
    other.admit("m", 0.0).fail(0.0, RULE)
    assert breakers.states(0.0)["m"].failures == 2

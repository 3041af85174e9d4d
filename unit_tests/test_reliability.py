"""Reliability as users of the model see it: health, money, early stopping, hedging, and laws in any schedule."""

import asyncio
import copy
import json
import math
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatResult
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.arguments import cycle_in
from langchain_rlfocal.errors import BudgetError, DeadlineError, EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import Budget, RetryPolicy, SharedState, Usage
from langchain_rlfocal.execution.budgets import reserve
from langchain_rlfocal.policies import Commitment
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_asking import aask, ask, limits_of
from support_time import QUESTION, WAYS, TimedChatModel, ensemble, in_virtual_time, is_clear, no_jitter, play, timed

LONG = "It depends on what is meant, and on much else that would have to be said at length before one could say. " * 9


class Tooled(TimedChatModel):
    def bind_tools(self, tools, **kwargs):
        return self.bind()


def calling(seconds, **args):
    message = AIMessage("", tool_calls=[tool_call(name="look", args=args, id="1")])
    return Tooled(script=[(seconds, message)])


def trio(first="yes", second="yes", third="no"):
    """Members that answer after 1, 2 and 9 s."""
    return {"a": timed((1, first)), "b": timed((2, second)), "c": timed((9, third))}


# ---- early commit


def test_two_of_three_that_agree_do_not_wait_for_the_third(way):
    """2 of 3 equal votes: at 2 s the third is cancelled, which is no fault of its own, and its run is closed."""
    collector, members = RunCollectorCallbackHandler(), trio()
    answer = play(way, ensemble(members), config={"callbacks": [collector]})
    assert (answer.message.text, answer.took_s) == ("yes", 2)
    assert answer.kinds == {"c": "cancelled"}
    assert answer.model.breakers == {}
    assert answer.model.spent.calls == 3
    if way == "ainvoke":
        assert members["c"].hows == ["cancelled"]
        [run] = collector.traced_runs
        assert [child.end_time is None for child in run.child_runs] == [False] * 3


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        (trio(), {"early_commit": False}),
        (trio(second="no"), {}),
        ({"a": timed((1, "yes")), "c": timed((9, "no"))}, {}),
        (trio(), {"synthesizer": timed((0, "no")), "synthesize_below": 0.7}),
        (trio(), {"policy": ScriptedPolicy([["a", "b", "c"]], ("a", "b", "c"))}),
        (trio(), {"min_candidates": 3}),
    ],
    ids=["switched off", "tie", "tie of two", "synthesizer", "policy without a promise", "too few yet"],
)
def test_what_is_not_certain_is_waited_for(way, members, fields):
    answer = play(way, ensemble(members, **fields))
    assert answer.took_s == 9
    assert "cancelled" not in answer.kinds.values()


def test_long_texts_are_waited_for_unless_they_are_one_and_the_same(way):
    """No third text can part two that are equal."""
    assert play(way, ensemble(trio(LONG, LONG, LONG)), "Tell me all about it.").took_s == 2
    assert play(way, ensemble(trio(LONG, f"{LONG} Rarely.", LONG)), "Tell me all about it.").took_s == 9


def test_where_another_round_can_follow_nobody_is_cancelled(way):
    """The prior policy asks two first; four members could still be asked, so both are waited for, though one decides."""
    first = PoolMember("a", timed((1, "yes")), competence=0.9)
    others = [PoolMember(name, timed((9, "yes")), competence=0.1) for name in "bcd"]
    two = play(way, ensemble([first, others[0]], max_rounds=2))
    four = play(way, ensemble([first, *others], max_rounds=2))
    assert (two.took_s, four.took_s) == (1, 9)


def test_a_synthesizer_is_left_out_only_if_the_promised_confidence_is_enough(way):
    """The least that two of three can end with is 2/3."""
    sure = play(way, ensemble(trio(), synthesizer=timed((0, "no")), synthesize_below=0.66))
    assert (sure.message.text, sure.took_s) == ("yes", 2)


def test_tool_calls_that_agree_do_not_wait(way):
    look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    members = {"a": calling(1, at="x"), "b": calling(2, at="x"), "c": calling(9, at="y")}
    answer = play(way, ensemble(members), tools=[look])
    assert answer.error is None
    assert answer.message.tool_calls[0]["args"] == {"at": "x"}
    assert answer.took_s == 2


def test_a_text_beside_tool_calls_is_waited_for(way):
    members = {"a": calling(1, at="x"), "b": calling(2, at="x"), "c": Tooled(script=[(9, "no")])}
    members |= {"d": Tooled(script=[(1, "no")]), "e": calling(1, at="x")}
    assert play(way, ensemble(members)).took_s == 9


def test_options_that_agree_do_not_wait(way):
    question = "Which is it?\nA) red\nB) blue\nC) green\nAnswer with one letter."
    answer = play(way, ensemble(trio("A", "A", "B")), question)
    assert (answer.message.text, answer.took_s) == ("A", 2)


@pytest.mark.parametrize(("confidence", "took_s"), [(0.5, 9), (0.51, 2)])
def test_a_promise_settles_only_with_more_than_half_of_the_weight(way, confidence, took_s):
    """With half of it, what the answer is called a majority of could still change."""

    class Promising(ScriptedPolicy):
        def commitment(self, query, candidates, failures, *, running):
            return Commitment(confidence if len(candidates) == 2 else 0.0, author_is_final=True)

    members = trio()
    answer = play(way, ensemble(members, policy=Promising([list(members)], tuple(members))))
    assert (answer.message.text, answer.took_s) == ("yes", took_s)


def test_a_call_can_wait_for_all(way):
    assert play(way, ensemble(trio()), early_commit=False).took_s == 9


def test_early_commit_never_leaves_fewer_than_a_short_budget_needs(way):
    """Three calls for four members: the third answer is needed, though two settle it."""
    members = {"a": timed((1, "yes")), "b": timed((1, "yes")), "c": timed((2, "yes")), "d": timed((1, "yes"))}
    answer = play(way, ensemble(members, budget_per_answer={"max_calls": 3}, min_candidates=3))
    assert answer.error is None
    assert (answer.kinds, answer.took_s) == ({"d": "budget"}, 2)


# ---- hedging


def hedging(members, team, seen=20, *, hedge=True, **fields):
    """A maker of ensembles whose policy asks a team, and which have seen member a answer in 1 s so often."""

    def make(clock):
        policy = ScriptedPolicy([team], tuple(members))
        fields_ = {"policy": policy, "max_team": len(team) + 1, "hedge": hedge, **fields}
        model = ensemble(members, **fields_)(clock)
        for _ in range(seen):
            model.shared_state.latencies.add("a", 1.0)
        return model

    return make


def test_a_slow_member_gets_company_after_its_usual_time(way):
    """It mostly takes 1 s: at 1 s the other is asked, answers at 1½ s, and the slow one is cancelled."""
    slow, spare = timed((9, "no")), timed((0.5, "yes"))
    answer = play(way, hedging({"a": slow, "b": spare}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("yes", 1.5)
    assert spare.begun_s == [1]
    assert answer.kinds == {"a": "cancelled"}
    assert answer.model.breakers == {}


def test_the_decider_s_next_choice_is_the_one_that_is_asked(way):
    members = {"a": timed((9, "no")), "b": timed((0, "b")), "c": timed((0, "c"))}
    likely = {"a": 1.0, "b": 0.1, "c": 0.4}

    class Sure(ScriptedPolicy):
        def select(self, *args, **kwargs):
            selection = super().select(*args, **kwargs)
            return type(selection)(selection.round, selection.members, likely)

    make = hedging(members, ["a"], policy=Sure([["a"]], tuple(members)), max_team=2)
    assert play(way, make).answered == ["c"]


@pytest.mark.parametrize(
    ("seen", "fields"), [(19, {}), (20, {"hedge": False}), (20, {"max_team": 1})], ids=["seen", "off", "full"]
)
def test_otherwise_nobody_gets_company(way, seen, fields):
    spare = timed((0, "yes"))
    answer = play(way, hedging({"a": timed((9, "no")), "b": spare}, ["a"], seen, **fields))
    assert (answer.message.text, answer.took_s, spare.log) == ("no", 9, [])


def test_hedging_is_off_unless_it_is_asked_for(way):
    model = play(way, ensemble({"a": timed((0, "yes"))})).model
    assert not model.hedge


def test_a_member_that_is_quick_enough_is_asked_alone(way):
    spare = timed((0, "yes"))
    answer = play(way, hedging({"a": timed((0.75, "no")), "b": spare}, ["a"]))
    assert (answer.took_s, spare.log) == (0.75, [])


def test_where_the_company_fails_the_slow_one_still_counts(way):
    answer = play(way, hedging({"a": timed((3, "no")), "b": timed((1, ValueError("bug")))}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("no", 3)
    assert answer.kinds == {"b": "ValueError"}


def test_where_the_slow_one_fails_its_company_counts(way):
    answer = play(way, hedging({"a": timed((2, ValueError("bug"))), "b": timed((2, "yes"))}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("yes", 3)
    assert answer.kinds == {"a": "ValueError"}


def test_the_slow_one_s_answer_cancels_its_company(way):
    spare = timed((9, "yes"))
    answer = play(way, hedging({"a": timed((2, "no")), "b": spare}, ["a"]))
    assert (answer.message.text, answer.took_s, answer.kinds) == ("no", 2, {"b": "cancelled"})


def test_company_gets_no_company_of_its_own(way):
    """b is known to take 1 s too, and takes 9 s beside a: c is not asked."""
    members = {"a": timed((9, "no")), "b": timed((9, "yes")), "c": timed((0, "yes"))}
    made = hedging(members, ["a"], max_team=3)

    def make(clock):
        model = made(clock)
        for _ in range(20):
            model.shared_state.latencies.add("b", 1.0)
        return model

    answer = play(way, make)
    assert (answer.message.text, answer.took_s, members["c"].log) == ("no", 9, [])


def test_who_waits_to_be_asked_again_gets_company_too(way):
    """Fails at ¾ s, is due again at 1¼ s; at 1 s the other is asked, and answers at once."""
    a = timed((0.75, ConnectionError("busy")), (9, "no"))
    with no_jitter():
        answer = play(way, hedging({"a": a, "b": timed((0, "yes"))}, ["a"]))
    assert (answer.took_s, a.begun_s) == (1, [0])
    [failure] = answer.how["failures"]
    assert [failure["kind"], [retry["kind"] for retry in failure["retries"]]] == ["cancelled", ["ConnectionError"]]


class LostError(ConnectionError):
    """Holds what no stand-in of its class can be made without."""

    def __init__(self, url, reason):
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


class HostileError(ValueError):
    @property
    def response(self):
        raise RuntimeError("nobody may look")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_whether_to_ask_again_is_decided_on_the_error_and_not_on_what_may_be_shown_of_it(way):
    """A lost connection is worth a retry, also where its address tells a key, which is then hidden."""
    lost = LostError("https://host/?key=planted77secret", "reset")
    member = timed((1, lost), (1, "yes"))
    with no_jitter():
        answer = play(way, ensemble({"a": member}), QUESTION)
    [failure] = answer.message.response_metadata["rlfocal"]["candidates"][0]["retries"]
    assert len(member.begun_s) == 2
    assert "planted" not in str(failure)


@pytest.mark.parametrize("door", [ask, aask])
async def test_an_error_that_refuses_to_be_looked_at_is_its_members_failure(door):
    members = [PoolMember("a", FailingChatModel(error=HostileError("key=planted77secret"))), PoolMember("b", saying())]
    results = door(members, [])
    a, b = await results if door is aask else results
    assert b.text == "yes"
    assert not isinstance(a.error, HostileError)  # LangChain has looked, and stumbled
    assert "planted" not in f"{a.reason} {a.error}"


def saying(answer="yes"):
    return ScriptedChatModel(script=lambda _: answer)


def test_a_quorum_that_fewer_members_than_it_can_be_asked_for_holds_nobody_up():
    """`min_candidates` matters where something cuts the answer short, not where one of two members is named or rests."""
    model = RLFocalChatModel(members={"a": saying(), "b": saying()}, min_candidates=2)
    assert model.invoke(QUESTION, model="a").text == "yes"
    for _ in range(5):
        model.shared_state.breakers.admit("b", model.clock()).fail(model.clock(), model._setup.config.breaker)
    assert model.invoke(QUESTION).text == "yes"
    with pytest.raises(InputError, match="`min_candidates` must be at most `max_team`"):
        model.invoke(QUESTION, max_team=1)


@pytest.mark.parametrize("given", [{"hedge": None}, {"early_commit": "no"}])
def test_a_switch_is_on_or_off(given):
    with pytest.raises(InputError, match="must be a valid boolean"):
        RLFocalChatModel(members={"a": saying()}).invoke(QUESTION, **given)


def test_retries_that_a_config_leaves_open_are_the_models_own():
    model = RLFocalChatModel(members={"a": FailingChatModel(error=ConnectionError("x"))}, max_retries=0)
    with pytest.raises(EnsembleError):
        model.invoke(QUESTION, max_retries=None)
    assert model.spent.calls == 1


def test_another_deadline_is_another_cache_key():
    keys = {
        RLFocalChatModel(members={"a": saying()}, **fields)._get_llm_string()
        for fields in ({}, {"deadline_s": 1}, {"deadline_s": 2}, {"deadline_s": 2, "timeout": 1})
    }
    assert len(keys) == 4


def test_an_account_without_limits_adds_nothing_up_however_many_calls_run():
    """Were each reservation to sum up all others, ten thousand would be fifty million additions."""
    limits = limits_of(shared=SharedState())
    held = [reserve(Usage(calls=1), limits.accounts) for _ in range(10_000)]
    assert limits.ledger.reserved.calls == 10_000
    for reservation in held:
        reservation.settle(Usage(calls=1))
    assert (limits.ledger.spent.calls, limits.ledger.reserved.calls) == (10_000, 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_who_would_speak_for_the_winner_is_waited_for(way):
    """b and c settle the answer at 1 s, but a, the first of the pool, would give it in its own words at 5 s."""
    members = {"a": timed((5, "Yes.")), "b": timed((1, "yes")), "c": timed((1, "yes"))}
    answer = play(way, ensemble(members), QUESTION)
    assert (answer.message.text, answer.took_s) == ("Yes.", 5)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_what_an_ensemble_raises_leads_to_no_error_that_tells_a_key(way):
    answer = play(way, ensemble({"a": timed((1, ValueError("key=planted77secret is wrong")))}), QUESTION)
    assert isinstance(answer.error, EnsembleError)
    assert answer.error.__cause__ is not None
    assert "planted" not in f"{answer.error} {answer.error.__cause__}"


async def test_a_member_that_closes_what_it_had_opened_is_cancelled_once():
    """The first attempt is cut off and still closes when the second has answered: nothing disturbs it a second time."""
    calls, again, closed = [], asyncio.Event(), []

    async def hold():
        calls.append(True)
        if len(calls) > 1:
            again.set()
            return
        try:
            await asyncio.Event().wait()
        finally:
            await again.wait()
            for _ in range(50):  # turns of the loop, in which the round ends
                await asyncio.sleep(0)
            closed.append(True)

    at_once = RetryPolicy(max_retries=1, initial_s=0.0, max_s=0.0, jitter_s=0.0)
    member = ScriptedChatModel(script=["yes", "yes"], on_acall=hold)
    [candidate] = await aask([PoolMember("a", member)], [], limits=limits_of(timeout_s=1.0, retry=at_once))
    assert ([failure.kind for failure in candidate.retries], closed) == (["timeout"], [True])


DOWN = ConnectionError("down")
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


class Clock:
    """Time that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def model_of(members, **fields):
    """An ensemble that makes no retries, with a clock that the test sets."""
    clock = Clock()
    return ensemble(members, **{"max_retries": 0, "breaker_failures": 2, **fields})(clock), clock


def status_of(model, member="a"):
    state = model.breakers.get(member)
    return None if state is None else (state.state, state.failures)


# ---- breakers in an ensemble


def test_a_member_that_keeps_failing_is_left_alone_then_probed():
    """Two failures open it for 30 s; then one call probes, and its success closes it."""
    health = ["down"]

    def answer(_):
        if health == ["down"]:
            raise DOWN
        return "yes"

    sick = ScriptedChatModel(script=answer)
    model, clock = model_of({"a": sick, "b": saying("yes")}, early_commit=False)
    for failures, status in ((1, "closed"), (2, "open"), (2, "open")):
        model.invoke(QUESTION)
        assert status_of(model) == (status, failures)
    assert len(sick.asked) == 2
    assert model.breakers["a"].retry_in_s == 30
    clock.now = 30.0
    assert status_of(model) == ("half_open", 2)
    model.invoke(QUESTION)
    assert (len(sick.asked), status_of(model)) == (3, ("open", 3))
    clock.now, health[:] = 60.0, []
    model.invoke(QUESTION)
    assert (len(sick.asked), status_of(model)) == (4, None)


def test_to_the_decider_a_resting_member_is_absent():
    """The prior policy asks the two best of three; while the best rests, it asks the others."""
    members = {"a": FailingChatModel(error=DOWN), "b": saying("yes"), "c": saying("yes")}
    model, _ = model_of(members, max_team=2, breaker_failures=1)
    assert [*model.invoke(QUESTION).response_metadata["rlfocal"]["rounds"][0]["asked"]] == ["a", "b"]
    [round_] = model.invoke(QUESTION).response_metadata["rlfocal"]["rounds"]
    assert round_["asked"] == ["b", "c"]
    assert sorted(round_["probabilities"]) == ["b", "c"]


def test_where_everybody_rests_the_error_says_so():
    model, _ = model_of({"a": FailingChatModel(error=DOWN)}, breaker_failures=1)
    with pytest.raises(EnsembleError, match="down"):
        model.invoke(QUESTION)
    with pytest.raises(EnsembleError, match="circuit breaker open") as raised:
        model.invoke(QUESTION)
    assert raised.value.is_retryable
    assert "reset_breakers()" in str(raised.value)
    with pytest.raises(InputError, match="must be one of a, or None for all, got 'b'"):
        model.reset_breakers("b")
    model.reset_breakers()
    assert model.breakers == {}
    model.reset_breakers("a")
    with pytest.raises(EnsembleError, match="down"):
        model.invoke(QUESTION)


def test_a_probe_that_cannot_be_made_up_leaves_another_to_be_made():
    """Its tools cannot be bound: nothing was sent, so that the breaker stays half open, and the next call is the probe."""

    class Binding(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            raise NotImplementedError

    def answer(_):
        if clock.now < 30:
            raise DOWN
        return "yes"

    model, clock = model_of({"a": Binding(script=answer)}, breaker_failures=1)
    for clock.now, arguments, status in ((0.0, {}, "open"), (30.0, {"tools": [TOOL]}, "half_open")):
        with pytest.raises(EnsembleError):
            model.invoke(QUESTION, **arguments)
        assert status_of(model) == (status, 1)
    assert model.invoke(QUESTION).text == "yes"
    assert model.breakers == {}


def test_who_waits_in_line_while_its_breaker_opens_ends_with_it():
    """One call of a at a time: the first fails and opens the breaker, the second was to come next."""
    sick = timed((1, DOWN))

    async def main():
        loop = asyncio.get_running_loop()
        members = [PoolMember("a", sick, max_concurrent_calls=1), PoolMember("b", timed((1, "yes")))]
        model = ensemble(members, breaker_failures=1, max_retries=0, early_commit=False)(loop.time)
        first, second = await asyncio.gather(model.ainvoke(QUESTION), model.ainvoke(QUESTION))
        [failed], [resting] = (message.response_metadata["rlfocal"]["failures"] for message in (first, second))
        assert failed["kind"] == "ConnectionError"
        assert (resting["kind"], resting["latency_s"]) == ("breaker_open", 0)
        assert sick.begun_s == [0]
        assert model.spent.calls == 3

    in_virtual_time(main())


@pytest.mark.parametrize("error", [ModelInvalidRequestError("bad"), ""], ids=["request", "empty"])
def test_what_is_not_the_members_fault_opens_nothing(way, error):
    make = ensemble({"a": timed((0, error)), "b": timed((0, "yes"))}, breaker_failures=1, early_commit=False)
    answer = play(way, make)
    assert len(answer.kinds) == 1
    assert answer.model.breakers == {}


def test_every_attempt_counts_and_an_open_breaker_ends_the_retries(way):
    """Two of the three attempts are made: the second failure, at ½ s, opens the breaker, and nobody waits for a third."""
    member = timed((0, DOWN))
    with no_jitter():
        answer = play(way, ensemble({"a": member}, breaker_failures=2))
    assert answer.took_s == 0.5
    assert "ConnectionError" in answer.error.failures["a"]
    assert len(member.log) == 2
    assert status_of(answer.model) == ("open", 2)


@pytest.mark.parametrize(("usual_s", "failures"), [(1.0, 1), (5.0, 0)])
def test_a_deadline_shorter_than_usual_is_not_the_members_fault(way, usual_s, failures):
    """A deadline of 2 s, for a member that mostly takes 1 s, or 5 s."""

    def make(clock):
        members = {"a": timed((9, "no")), "b": timed((0, "yes"))}
        model = ensemble(members, deadline_s=2, early_commit=False, breaker_failures=5)(clock)
        for _ in range(20):
            model.shared_state.latencies.add("a", usual_s)
        return model

    model = play(way, make).model
    assert status_of(model) == (None if not failures else ("closed", failures))


def test_half_open_one_answer_probes_and_the_others_go_without():
    """At 30 s two answers begin at once; the first one's call is the probe, and closes the breaker at 31 s."""
    sick = timed((0, DOWN), (1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        members = {"a": sick, "b": timed((0, "yes"))}
        model = ensemble(members, max_retries=0, breaker_failures=1, early_commit=False)(loop.time)
        await model.ainvoke(QUESTION)
        await asyncio.sleep(30)
        first, second = await asyncio.gather(model.ainvoke(QUESTION), model.ainvoke(QUESTION))
        assert loop.time() == 31
        assert (len(sick.log), model.breakers) == (2, {})
        return [[c["member"] for c in m.response_metadata["rlfocal"]["candidates"]] for m in (first, second)]

    assert in_virtual_time(main()) == [["a", "b"], ["b"]]


@pytest.mark.parametrize("copied", ["model_copy", "copy", "deepcopy", "bind", "configurable"])
def test_copies_share_breakers_and_spending(copied):
    model, _ = model_of({"a": FailingChatModel(error=DOWN), "b": saying("yes")}, breaker_failures=1)
    other = {
        "model_copy": model.model_copy,
        "copy": lambda: copy.copy(model),
        "deepcopy": lambda: copy.deepcopy(model),
        "bind": lambda: model.bind(task="t"),
        "configurable": lambda: model.configurable_fields(max_team=ConfigurableField(id="team")).with_config(
            configurable={"team": 2}
        ),
    }[copied]()
    other.invoke(QUESTION)
    assert status_of(model) == ("open", 1)
    assert model.spent.calls == 2
    other.invoke(QUESTION)
    assert model.spent.calls == 3


def test_a_pickle_begins_with_closed_breakers_and_the_same_spending():
    model = ensemble({"a": FailingChatModel(error=DOWN), "b": saying("yes")}, max_retries=0, breaker_failures=1)(
        Clock()
    )
    model.invoke(QUESTION)
    shared = pickle.loads(pickle.dumps(model.shared_state))
    assert shared.breakers.states(0.0) == {}
    assert shared.ledger.spent == model.spent != Usage()
    assert shared.limiter.running == {}


def test_breakers_can_be_switched_off(way):
    member = timed((0, DOWN))
    answer = play(way, ensemble({"a": member}, breaker_failures=None))
    assert (len(member.log), answer.model.breakers) == (3, {})


# ---- ensembles in ensembles


async def test_an_ensemble_can_be_a_member():
    inner = RLFocalChatModel(members={"x": saying("yes"), "y": saying("yes")})
    outer = RLFocalChatModel(members={"inner": inner, "b": saying("yes")})
    assert outer.invoke(QUESTION).text == (await outer.ainvoke(QUESTION)).text == "yes"
    assert outer.spent.calls == inner.spent.calls == 4


class Wrapping(BaseChatModel):
    """A model of somebody else's that asks another one."""

    hidden: list

    @property
    def _llm_type(self):
        return "wrapping"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = self.hidden[0].invoke(messages)
        return ChatResult(generations=[{"message": message}])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        message = await self.hidden[0].ainvoke(messages)
        return ChatResult(generations=[{"message": message}])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["members", "synthesizer"])
async def test_a_circle_of_ensembles_is_refused(way, place):
    inner = RLFocalChatModel(members={"x": saying("yes")})
    outer = RLFocalChatModel(members={"inner": inner})
    if place == "members":
        inner.members = RLFocalChatModel(members={"outer": outer}).members
    else:
        inner.synthesizer = outer
    for model in (inner, outer):
        with pytest.raises(PoolError, match="its own member"):
            await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))


def test_ensembles_that_share_members_are_looked_through_once():
    """Two ways down at each of forty levels: to walk them all would take for ever."""
    model = RLFocalChatModel(members={"x": saying("yes")})
    for _ in range(40):
        model = RLFocalChatModel(members={"a": model, "b": model})
    assert cycle_in(model) is None


@pytest.mark.parametrize("way", WAYS)
async def test_a_circle_of_copies_ends(way):
    """Each call asks another copy, so that nobody meets itself; below the eighth nobody is asked."""
    asked = []
    wrapping = Wrapping(hidden=[])
    model = RLFocalChatModel(members={"a": wrapping}, max_retries=0)

    class Copies:
        def invoke(self, messages):
            asked.append(1)
            return model.model_copy().invoke(messages)

        async def ainvoke(self, messages):
            asked.append(1)
            return await model.model_copy().ainvoke(messages)

    wrapping.hidden.append(Copies())
    with pytest.raises(EnsembleError) as caught:
        await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))
    assert len(asked) == 8
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, PoolError)
    assert "nested deeper than 8" in str(error)


@pytest.mark.parametrize("way", WAYS)
async def test_a_hidden_circle_is_that_members_failure(way):
    asked = []
    wrapping = Wrapping(hidden=[])
    other = ScriptedChatModel(script=lambda _: asked.append(1) or "yes")
    model = RLFocalChatModel(members={"a": wrapping, "b": other}, early_commit=False)
    wrapping.hidden.append(model)
    message = await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))
    assert message.text == "yes"
    [failure] = message.response_metadata["rlfocal"]["failures"]
    assert (failure["member"], failure["kind"]) == ("a", "PoolError")
    assert len(asked) == 1


BUSY = ConnectionError("busy")


pytestmark = pytest.mark.usefixtures("steady_retries")


def at_once(members, num_answers, **fields):
    """Ask so many answers of one ensemble at once."""

    async def main():
        model = ensemble(members, **fields)(asyncio.get_running_loop().time)
        answers = await asyncio.gather(*[model.ainvoke(QUESTION) for _ in range(num_answers)], return_exceptions=True)
        assert is_clear(model)
        return model, answers

    return in_virtual_time(main())


def calls_of(members):
    return sum(len(getattr(member, "model", member).log) for member in members.values())


# ---- calls


def test_fifty_answers_at_once_make_no_call_too_many():
    """50 answers want 100 calls and more, since one member fails at first; 37 are allowed, and made."""
    members = {"a": timed((1, BUSY), (1, "yes")), "b": timed((1, "yes"))}
    model, answers = at_once(members, 50, budget={"max_calls": 37}, early_commit=False)
    assert calls_of(members) == model.spent.calls == 37
    assert {type(answer).__mro__[1].__name__ for answer in answers if isinstance(answer, Exception)} == {"BudgetError"}


def test_one_answers_budget_counts_its_retries_its_synthesizer_and_who_stands_in(way):
    """a thrice, then b, then the synthesizer would be the sixth call: for five there are only its candidates."""
    a, b, c, writer = timed((0, BUSY)), timed((0, "yes")), timed((0, "no")), timed((0, "maybe"))
    members = {"a": a, "b": b, "c": c}
    policy = ScriptedPolicy([["a"], ["b", "c"]], tuple(members))
    fields = {"policy": policy, "max_rounds": 2, "synthesizer": writer, "synthesize_below": 1.0}
    five = play(way, ensemble(members, budget_per_answer={"max_calls": 5}, **fields))
    assert (five.message.text, len(a.log), writer.log) == ("yes", 3, [])
    assert five.model.spent.calls == 5
    six = play(way, ensemble(members, budget_per_answer={"max_calls": 8}, **fields))
    assert (six.message.text, six.model.spent.calls, len(writer.log)) == ("maybe", 6, 1)


def test_a_hedge_needs_a_call_of_its_own(way):
    spare = timed((0, "yes"))
    members = {"a": timed((3, "no")), "b": spare}

    def make(clock):
        policy = ScriptedPolicy([["a"]], tuple(members))
        model = ensemble(members, policy=policy, hedge=True, budget={"max_calls": 1})(clock)
        for _ in range(20):
            model.shared_state.latencies.add("a", 1.0)
        return model

    answer = play(way, make)
    assert (answer.message.text, answer.took_s, spare.log) == ("no", 3, [])
    assert answer.kinds == {"b": "budget"}


def test_where_the_budget_ends_after_the_first_its_answer_counts(way):
    answer = play(way, ensemble({"a": timed((1, "yes")), "b": timed((1, "no"))}, budget_per_answer={"max_calls": 1}))
    assert (answer.message.text, answer.kinds) == ("yes", {"b": "budget"})


def test_where_nothing_is_left_the_error_names_the_way_out(way):
    answer = play(way, ensemble({"a": timed((1, "yes"))}, budget=Budget(max_calls=0)))
    assert isinstance(answer.error, BudgetError)
    assert isinstance(answer.error, EnsembleError)
    assert "max_calls" in str(answer.error)
    assert "reset_spending()" in str(answer.error)
    assert answer.model.spent == Usage()


def test_a_models_budget_begins_anew_when_its_spending_is_reset():
    async def main():
        model = ensemble({"a": timed((1, "yes"))}, budget={"max_calls": 1})(asyncio.get_running_loop().time)
        await model.ainvoke(QUESTION)
        with pytest.raises(BudgetError):
            await model.ainvoke(QUESTION)
        model.reset_spending()
        assert model.spent == Usage()
        await model.ainvoke(QUESTION)

    in_virtual_time(main())


def test_a_call_may_bring_a_budget_of_its_own(way):
    answer = play(way, ensemble({"a": timed((1, "yes"))}), budget_per_answer={"max_calls": 0})
    assert isinstance(answer.error, BudgetError)


# ---- tokens, dollars, seconds


@pytest.mark.parametrize("budget", [{"max_tokens": 500}, {"max_usd": 0.0005}])
def test_tokens_and_dollars_are_never_overrun(budget):
    """At a dollar for a million tokens both are 500 tokens, with 40 bounded answers at once."""
    members = {
        name: PoolMember(name, timed((1, "yes")), input_usd_per_mtok=1.0, output_usd_per_mtok=1.0) for name in "ab"
    }
    model, answers = at_once([*members.values()], 40, budget=budget, max_tokens=10, early_commit=False)
    assert 0 < model.spent.tokens <= 500
    assert model.spent.usd <= 0.0005 * (1 + 1e-9)
    assert model.spent.usd == pytest.approx(model.spent.tokens / 1e6)
    assert model.spent.calls == calls_of(members)
    assert any(isinstance(answer, BudgetError) for answer in answers)
    assert any(not isinstance(answer, Exception) for answer in answers)


def test_a_call_that_is_cut_off_is_charged_the_most_that_it_can_have_cost(way):
    """The question's tokens and the ten that it may answer with, though nothing came back."""
    member = PoolMember("a", timed((9, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=1e6)
    fast = PoolMember("b", timed((1, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=1e6)
    answer = play(
        way, ensemble([member, fast], budget={"max_usd": 100}, max_tokens=10, deadline_s=2, early_commit=False)
    )
    assert answer.kinds == {"a": "deadline"}
    assert answer.model.spent.usd == pytest.approx(10 + 1)


@pytest.mark.parametrize("tags", [None, ["mine"]], ids=["plain", "with a config"])
def test_without_a_report_the_prompt_its_tools_and_the_response_with_its_calls_are_counted(way, tags):
    """By the estimate of four characters a token; a binding that has a config of its own stays one, with its arguments."""
    words = " ".join(["abcdefghij"] * 100)
    call = AIMessage("", tool_calls=[tool_call(name="look", args={"at": words}, id="1")])

    class Tooled(TimedChatModel):
        def bind_tools(self, tools, **kwargs):
            bound = self.bind(tools=tools)
            return bound if tags is None else bound.with_config(tags=tags)

    def look(at: str) -> str:
        """Look."""
        return at

    spent = {}
    for name, reply, tools in (("nothing", "no", []), ("text", words, []), ("call", call, [look])):
        member = Tooled(script=[(1, reply)], reports_usage=False)
        answer = play(way, ensemble({"a": member}), **({"tools": tools} if tools else {}))
        assert answer.error is None
        spent[name] = answer.model.spent.tokens
    size = len(words) // 4
    assert size <= spent["text"] - spent["nothing"] <= size + 10
    schema = len(json.dumps(convert_to_openai_tool(look))) // 4
    assert size + schema <= spent["call"] - spent["nothing"] <= size + schema + 20


def test_the_error_says_what_came_before_the_money_was_over(way):
    """One call for an answer: what it came to, and which budget it was."""
    member = timed((1, ConnectionError("no route to host")))
    answer = play(way, ensemble({"a": member}, budget_per_answer={"max_calls": 1}))
    assert isinstance(answer.error, BudgetError)
    assert "`max_calls` of `budget_per_answer` is 1" in str(answer.error)
    assert answer.error.failures["a"].endswith("after ConnectionError: no route to host")
    assert isinstance(answer.error.__cause__, ConnectionError)
    assert not answer.error.is_retryable


def test_the_cause_of_an_error_is_the_attempt_that_decided(way):
    """A refused key after a lost connection: the key is the cause."""
    refused = ModelInvalidRequestError("refused")
    member = timed((1, ConnectionError("lost")), (1, refused))
    answer = play(way, ensemble({"a": member}))
    assert answer.error.failures == {"a": "ModelInvalidRequestError: refused"}
    assert isinstance(answer.error.__cause__, ModelInvalidRequestError)


# ---- what is refused


def test_where_dollars_are_limited_every_member_has_a_price():
    with pytest.raises(InputError, match="without: a"):
        ensemble({"a": timed((0, "yes"))}, budget={"max_usd": 1})(float)
    priced = PoolMember("a", timed((0, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
    with pytest.raises(InputError, match="synthesizer"):
        ensemble([priced], budget={"max_usd": 1}, synthesizer=timed((0, "yes")))(float)


def test_a_call_s_own_budget_of_dollars_needs_prices_too(way):
    member = timed((0, "yes"))
    answer = play(way, ensemble({"a": member}), budget_per_answer={"max_usd": 1})
    assert isinstance(answer.error, InputError)
    assert member.log == []


MAX_ATTEMPTS = 3
SAYINGS = ("yes", "no")


@dataclass(frozen=True)
class Schedule:
    """What members do, and what they may take."""

    scripts: tuple[tuple[tuple[float, str], ...], ...]
    timeout: float | None
    member_timeout_s: float | None
    deadline_s: float | None
    min_candidates: int
    max_retries: int
    max_concurrent_calls: int | None = None

    @property
    def names(self):
        return [f"m{number}" for number, _ in enumerate(self.scripts)]


def seconds(most):
    """Quarters of a second: sums of them are exact."""
    return st.integers(1, 4 * most).map(lambda quarters: quarters / 4)


@st.composite
def schedules(draw, *, ties=False):
    """Without ties every attempt's length has a binary digit of its own, so that no two members end at once."""
    num_members = draw(st.integers(1, 5))
    does = st.sampled_from((*SAYINGS, *SAYINGS, "busy", "wrong"))
    scripts = tuple(
        tuple(
            (draw(seconds(3)) + (0 if ties else 2.0 ** -(4 + member * MAX_ATTEMPTS + attempt)), draw(does))
            for attempt in range(MAX_ATTEMPTS)
        )
        for member in range(num_members)
    )
    return Schedule(
        scripts,
        timeout=draw(st.none() | seconds(3)),
        member_timeout_s=draw(st.none() | seconds(6)),
        deadline_s=draw(st.none() | seconds(6)),
        min_candidates=draw(st.integers(1, num_members)),
        max_retries=draw(st.integers(0, MAX_ATTEMPTS - 1)),
        max_concurrent_calls=draw(st.none() | st.integers(1, 3)) if ties else None,
    )


# ---- the reference


def alone(script, schedule):
    """Say when one member ends, what it says (None for nothing), how often it is asked, and whether time ended it."""
    deadline_s = math.inf if schedule.deadline_s is None else schedule.deadline_s
    end_s = min(deadline_s, schedule.member_timeout_s or math.inf)
    now_s, wait_s = 0.0, 0.5
    for number in range(schedule.max_retries + 1):
        length_s, does = script[number]
        cut_s = now_s + (schedule.timeout or math.inf)
        if now_s + length_s >= end_s and cut_s >= end_s:
            return end_s, None, number + 1, end_s == deadline_s
        if now_s + length_s < cut_s:
            now_s += length_s
            if does in SAYINGS:
                return now_s, does, number + 1, False
            if does == "wrong":
                return now_s, None, number + 1, False
        else:
            now_s = cut_s
        if number == schedule.max_retries or now_s + wait_s >= end_s:
            return now_s, None, number + 1, False
        now_s, wait_s = now_s + wait_s, 2 * wait_s
    raise AssertionError


def expected(schedule):
    """Return what the ensemble says or raises, when, who answered, and the number of calls."""
    ends = [alone(script, schedule) for script in schedule.scripts]
    took_s = max(end_s for end_s, *_ in ends)
    said = [what for _, what, _, _ in ends if what is not None]
    is_cut = any(by_deadline for *_, by_deadline in ends)
    arrived = [name for name, (_, what, _, _) in zip(schedule.names, ends, strict=True) if what is not None]
    if not said or (is_cut and len(said) < schedule.min_candidates):
        answer = DeadlineError if is_cut else EnsembleError
    else:
        answer = max(SAYINGS, key=lambda word: (said.count(word), -said.index(word) if word in said else -math.inf))
    return answer, took_s, arrived, sum(number for _, _, number, _ in ends)


# ---- the ensemble


def played(way, schedule, *, competences=None, **fields):
    errors = {"busy": ConnectionError("busy"), "wrong": ModelInvalidRequestError("wrong")}
    members = {
        name: timed(*[(length_s, errors.get(does, does)) for length_s, does in script])
        for name, script in zip(schedule.names, schedule.scripts, strict=True)
    }
    if competences is not None:
        trusted = zip(members.items(), competences, strict=False)
        asked = [PoolMember(name, model, competence=competence) for (name, model), competence in trusted]
    else:
        asked = members
    names = ("timeout", "member_timeout_s", "deadline_s", "min_candidates", "max_retries", "max_concurrent_calls")
    limits = {name: getattr(schedule, name) for name in names}
    with no_jitter():
        answer = play(way, ensemble(asked, breaker_failures=None, **limits, **fields))
    return answer, members


def label_of(answer):
    """What was answered, or the kind of error."""
    if answer.error is not None:
        return DeadlineError if isinstance(answer.error, DeadlineError) else type(answer.error).__mro__[1]
    return answer.how["fusion"]["answer"]


def accounted(answer):
    """Who answered or failed, with repetitions."""
    if answer.error is not None:
        return sorted(answer.error.failures)
    return sorted([*answer.answered, *[failure["member"] for failure in answer.how["failures"]]])


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules())
def test_an_answer_is_what_the_members_say_one_by_one(way, schedule):
    answer, members = played(way, schedule, early_commit=False)
    label, took_s, arrived, num_calls = expected(schedule)
    assert answer.took_s == took_s
    assert answer.model.spent.calls == num_calls == sum(len(member.log) for member in members.values())
    if answer.error is None:
        assert answer.how["fusion"]["answer"] == label
        assert answer.answered == arrived
        assert accounted(answer) == schedule.names
    else:
        assert isinstance(answer.error, label)
        assert isinstance(answer.error, DeadlineError) == (label is DeadlineError)
        assert accounted(answer) == [name for name in schedule.names if name not in arrived]


@pytest.mark.parametrize("way", WAYS)
@given(
    schedule=schedules(),
    competences=st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.9]), min_size=5, max_size=5),
    max_rounds=st.integers(1, 2),
)
def test_early_commit_answers_the_same_and_never_later(way, schedule, competences, max_rounds):
    early, full = (
        played(way, schedule, competences=competences, max_rounds=max_rounds, early_commit=early_commit)[0]
        for early_commit in (True, False)
    )
    assert label_of(early) == label_of(full)
    assert early.took_s <= full.took_s
    if early.error is None:
        assert set(accounted(early)) <= set(schedule.names)
        assert len(set(accounted(early))) == len(accounted(early))


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules(ties=True))
def test_nothing_is_lost_where_everything_happens_at_once(way, schedule):
    """Members end, wait, and are cut off in the same moments, and wait for places.

    `play` sees that no task, place or reservation is left. A call that is cut off before its first line may be booked.
    """
    answer, members = played(way, schedule)
    assert answer.took_s <= (schedule.deadline_s or math.inf)
    assert sum(len(member.log) for member in members.values()) <= answer.model.spent.calls
    if answer.error is None:
        assert accounted(answer) == schedule.names
        assert len(answer.answered) >= 1

"""Breakers in an ensemble, and ensembles in ensembles."""

import asyncio
import copy
import pickle

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatResult
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.arguments import cycle_in
from langchain_rlfocal.errors import EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import Usage
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_time import QUESTION, WAYS, ensemble, in_virtual_time, no_jitter, play, timed

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


def saying(answer):
    return ScriptedChatModel(script=[answer])


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

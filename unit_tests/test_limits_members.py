"""Caps on calls hold where members are asked."""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import Runtime
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_asking import aask, arelay, ask, errand_of, relay
from support_ensembles import saying
from support_gauges import GUARD_S, Gauge, is_free, let_others_run, threads_free

QUESTION = [HumanMessage("What is it?")]


# ---- where members are asked


async def test_asking_a_team_holds_to_the_limits_and_asks_everybody():
    gauge = Gauge()

    def member(name):
        async def hold():
            gauge.enter(name)
            await let_others_run()
            gauge.leave(name)

        return PoolMember(name, saying(name, on_acall=hold))

    results = await aask([member(name) for name in "abcd"], QUESTION, limits=CallLimits(2))
    assert [result.text for result in results] == ["a", "b", "c", "d"]
    assert gauge.most[None] == 2


def test_asking_a_team_in_threads_holds_to_the_limits_and_asks_everybody():
    gauge = Gauge()

    def member(name):
        def hold():
            gauge.enter(name)
            gauge.leave(name)

        return PoolMember(name, saying(name, on_call=hold))

    results = ask([member(name) for name in "abcd"], QUESTION, limits=CallLimits(1))
    assert [result.text for result in results] == ["a", "b", "c", "d"]
    assert gauge.most[None] == 1


def test_streams_in_threads_hold_to_the_limits():
    """Two streams meet each time, of forty; a third would come in if it could."""
    gauge, meeting, limits = Gauge(), threading.Barrier(2), CallLimits(2)

    def hold():
        gauge.enter("m")
        meeting.wait(GUARD_S)
        gauge.leave("m")

    member = PoolMember("m", saying("yes", on_call=hold))

    def read(_number):
        return list(relay(member, QUESTION, limits=limits))[-1].text

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(40))) == {"yes"}
    assert gauge.most[None] == 2


async def test_waiting_for_a_place_is_not_the_members_latency():
    """The clock moves only while `slow` thinks; `quick` waits for its place meanwhile and then answers in no time."""
    now = [0.0]

    def think():
        now[0] += 5

    async def athink():
        think()

    members = [PoolMember("slow", saying("s", on_call=think, on_acall=athink)), PoolMember("quick", saying("q"))]
    slow, quick = await aask(members, QUESTION, limits=CallLimits(1), clock=lambda: now[0])
    assert (slow.latency_s, quick.latency_s) == (5, 0)


@pytest.mark.parametrize("model", [saying("yes"), saying(""), FailingChatModel(error=KeyError("k"), after="half an")])
async def test_whatever_comes_of_a_member_its_place_is_free_again(model):
    limits, member = CallLimits(1, {"m": 1}), PoolMember("m", model)
    ask([member], QUESTION, limits=limits)
    assert isinstance(list(relay(member, QUESTION, limits=limits))[-1], Candidate | Failure)
    assert threads_free(limits, "m", 1)
    await aask([member], QUESTION, limits=limits)
    [item async for item in arelay(member, QUESTION, limits=limits)]
    assert await is_free(limits, "m")


async def test_leaving_a_stream_early_gives_its_place_back():
    limits, member = CallLimits(1, {"m": 1}), PoolMember("m", saying("a b c d"))
    stream = relay(member, QUESTION, limits=limits)
    next(stream)
    stream.close()
    assert threads_free(limits, "m", 1)
    astream = arelay(member, QUESTION, limits=limits)
    await anext(astream)
    await astream.aclose()
    assert await is_free(limits, "m")


async def test_cancelling_a_team_of_which_some_wait_gives_all_places_back():
    """`a` runs and never ends, `b` and `c` wait for its place; after the cancellation all three can be asked."""
    limits, begun, never = CallLimits(1), asyncio.Event(), asyncio.Event()

    async def hold():
        begun.set()
        await never.wait()

    members = [PoolMember(name, saying(name, on_acall=hold)) for name in "abc"]
    asking = asyncio.create_task(aask(members, QUESTION, limits=limits))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await is_free(limits, "a")


# ---- the model's own


def model_of(members, **fields):
    names = tuple(member.name for member in members)
    return RLFocalChatModel(members=members, policy=ScriptedPolicy([names], names), max_team=len(names), **fields)


def test_the_models_limits_are_made_of_its_own_and_its_members():
    model = model_of([PoolMember("a", saying("x"), max_concurrent_calls=2), PoolMember("b", saying("x"))])
    assert (model.limits.total, model.limits.per_member) == (None, {"a": 2})
    model = model_of([PoolMember("a", saying("x"))], max_concurrent_calls=5)
    assert (model.limits.total, model.limits.per_member) == (5, {})


def test_a_copy_with_other_limits_counts_by_itself_and_one_with_the_same_shares_the_count():
    model = model_of([PoolMember("a", saying("x"))], max_concurrent_calls=5)
    fields = {name: getattr(model, name) for name in RLFocalChatModel.model_fields}
    assert RLFocalChatModel(**fields).limits is model.limits
    assert copy.copy(model).limits is model.limits
    other = RLFocalChatModel(**{**fields, "max_concurrent_calls": 6}).limits
    assert (other.total, other is model.limits) == (6, False)
    assert copy.deepcopy(model).limits is not model.limits


async def test_two_queries_of_a_model_share_its_limits_and_an_error_frees_them():
    """Everybody fails: were places lost, the second pair of queries would wait forever."""
    model = model_of(
        [PoolMember("a", FailingChatModel(error=KeyError("k")), max_concurrent_calls=1)], max_concurrent_calls=1
    )
    for _ in range(2):
        results = await asyncio.wait_for(model.abatch(["?", "!"], return_exceptions=True), GUARD_S)
        assert [type(result).__mro__[1] for result in results] == [EnsembleError] * 2


@pytest.mark.parametrize("cap", [0, -1, 1.5, True, "two"])
def test_a_members_cap_must_be_a_whole_number_of_at_least_one(cap):
    with pytest.raises(PoolError, match="`max_concurrent_calls` of member `a`"):
        PoolMember("a", saying("x"), max_concurrent_calls=cap)


@pytest.mark.parametrize("cap", [0, -1])
def test_a_models_cap_must_be_at_least_one_since_with_none_every_call_would_wait_forever(cap):
    with pytest.raises(InputError, match="`max_concurrent_calls` must be"):
        model_of([PoolMember("a", saying("x"))], max_concurrent_calls=cap)


def test_a_cap_that_is_changed_holds_from_then_on():
    model = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"])})
    shared = model.model_copy()
    model.invoke("?")
    assert shared.limits is model.limits
    for changed in (model.model_copy(update={"max_concurrent_calls": 2}), model):
        changed.max_concurrent_calls = 2
        changed.invoke("?")
        assert changed.limits.total == 2
    assert shared.limits.total is None


async def test_a_cap_given_by_config_holds_over_all_calls():
    seen = []

    async def counted():
        seen.append(1)
        peak.append(len(seen))
        await let_others_run()
        seen.pop()

    peak = []
    base = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"], on_acall=counted)})
    model = base.configurable_fields(max_concurrent_calls=ConfigurableField(id="cap"))
    await model.abatch(["?"] * 8, {"configurable": {"cap": 2}})
    assert max(peak) == 2

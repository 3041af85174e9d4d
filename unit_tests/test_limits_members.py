"""Caps on calls hold where members are asked, over all that copies of a model ask."""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.testing import FailingChatModel, ScriptedPolicy
from support_asking import aask, arelay, ask, limits_of, relay
from support_ensembles import saying
from support_gauges import GUARD_S, Gauge, is_free, let_others_run

QUESTION = [HumanMessage("What is it?")]


def holding(gauge, name="a"):
    """A call that is counted while it gives way to others."""

    async def hold():
        gauge.enter(name)
        await let_others_run()
        gauge.leave(name)

    return hold


# ---- where members are asked


async def test_asking_a_team_holds_to_the_limits_and_asks_everybody():
    gauge = Gauge()
    members = [PoolMember(name, saying(name, on_acall=holding(gauge, name))) for name in "abcd"]
    results = await aask(members, QUESTION, limits=limits_of(max_concurrent_calls=2))
    assert [result.text for result in results] == ["a", "b", "c", "d"]
    assert gauge.most[None] == 2


def test_asking_a_team_in_threads_holds_to_the_limits_and_asks_everybody():
    gauge = Gauge()

    def member(name):
        def hold():
            gauge.enter(name)
            gauge.leave(name)

        return PoolMember(name, saying(name, on_call=hold))

    results = ask([member(name) for name in "abcd"], QUESTION, limits=limits_of(max_concurrent_calls=1))
    assert [result.text for result in results] == ["a", "b", "c", "d"]
    assert gauge.most[None] == 1


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


async def test_waiting_for_a_place_is_not_the_members_latency():
    """The clock moves only while `slow` thinks; `quick` waits for its place meanwhile and then answers in no time."""
    now = [0.0]

    def think():
        now[0] += 5

    async def athink():
        think()

    members = [PoolMember("slow", saying("s", on_call=think, on_acall=athink)), PoolMember("quick", saying("q"))]
    slow, quick = await aask(members, QUESTION, limits=limits_of(max_concurrent_calls=1, clock=lambda: now[0]))
    assert (slow.latency_s, quick.latency_s) == (5, 0)


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


# ---- the model's own


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


COPIES = [copy.copy, copy.deepcopy, lambda model: model.model_copy(), rebuilt]


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "model_copy", "rebuilt"])
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

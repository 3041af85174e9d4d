"""Execution: members are asked at once, and control flow, cancellation and a reader who leaves end them."""

import asyncio
import gc
import threading
from contextvars import ContextVar

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage

from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_asking import aask, arelay, ask, relay

QUESTION = [HumanMessage("What is it?")]


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name
    """Stands for LangGraph's own, which is recognised by its name."""


class GraphInterrupt(GraphBubbleUp):
    """LangGraph's interrupts derive from it."""


def saying(answer, **fields):
    return ScriptedChatModel(script=[answer], **fields)


def test_members_asked_together_meet_in_threads():
    """Three members wait for each other: were they asked one by one, nobody would come."""
    barrier = threading.Barrier(3)
    members = [PoolMember(name, saying(name, on_call=lambda: barrier.wait(30))) for name in "abc"]
    assert [result.text for result in ask(members, QUESTION)] == ["a", "b", "c"]


async def test_members_asked_together_meet_in_tasks_of_the_callers_thread():
    barrier = asyncio.Barrier(3)
    threads = set()

    async def meet():
        threads.add(threading.get_ident())
        await barrier.wait()

    members = [PoolMember(name, saying(name, on_acall=meet)) for name in "abc"]
    results = await aask(members, QUESTION)
    assert [result.text for result in results] == ["a", "b", "c"]
    assert threads == {threading.get_ident()}


async def test_threads_work_while_the_callers_thread_runs_an_event_loop():
    barrier = threading.Barrier(2)
    members = [PoolMember(name, saying(name, on_call=lambda: barrier.wait(30))) for name in "ab"]
    assert [result.text for result in ask(members, QUESTION)] == ["a", "b"]


@pytest.mark.parametrize("error", [GraphBubbleUp(), GraphInterrupt()], ids=lambda error: type(error).__name__)
async def test_langgraphs_control_flow_passes_through_every_door(error):
    member = PoolMember("m", FailingChatModel(error=error))
    with pytest.raises(GraphBubbleUp):
        ask([member, PoolMember("other", saying("yes"))], QUESTION)
    with pytest.raises(GraphBubbleUp):
        await aask([member, PoolMember("other", saying("yes"))], QUESTION)
    with pytest.raises(GraphBubbleUp):
        list(relay(member, QUESTION))
    with pytest.raises(GraphBubbleUp):
        [item async for item in arelay(member, QUESTION)]


async def test_control_flow_does_not_wait_for_the_members_that_still_think():
    """The other member waits for an event that nobody sets."""
    never = asyncio.Event()
    members = [
        PoolMember("m", FailingChatModel(error=GraphBubbleUp())),
        PoolMember("n", saying("", on_acall=never.wait)),
    ]
    with pytest.raises(GraphBubbleUp):
        await aask(members, QUESTION)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_wish_to_stop_the_program_passes_through_without_waiting_for_the_others():
    """The first member is held until after the error has passed through."""
    release = threading.Event()
    members = [
        PoolMember("held", saying("late", on_call=lambda: release.wait(30))),
        PoolMember("m", FailingChatModel(error=KeyboardInterrupt())),
    ]
    with pytest.raises(KeyboardInterrupt):
        ask(members, QUESTION)
    assert not release.is_set()
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rlfocal"):
            thread.join(30)


def test_no_thread_is_left_when_all_have_answered():
    before = threading.active_count()
    ask([PoolMember(name, saying(name)) for name in "abc"], QUESTION)
    assert threading.active_count() == before


async def test_cancelling_cancels_every_member_and_leaves_no_task():
    """Both members have begun (they met), and wait for an event that nobody sets."""
    begun, never = asyncio.Barrier(3), asyncio.Event()
    cancelled = []

    def member(name):
        async def hold():
            await begun.wait()
            try:
                await never.wait()
            except asyncio.CancelledError:
                cancelled.append(name)
                raise

        return PoolMember(name, saying(name, on_acall=hold))

    asking = asyncio.create_task(aask([member("a"), member("b")], QUESTION))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert sorted(cancelled) == ["a", "b"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_member_that_cancels_its_own_task_is_a_failure_and_not_our_cancellation():
    async def cancel_myself():
        asyncio.current_task().cancel()
        await asyncio.Event().wait()

    members = [PoolMember("a", saying("", on_acall=cancel_myself)), PoolMember("b", saying("yes"))]
    a, b = await aask(members, QUESTION)
    assert a.kind == "CancelledError"
    assert b.text == "yes"


async def test_a_cancellation_of_the_members_own_is_its_failure_also_where_langchain_does_not_catch_it():
    class Cancelling(ScriptedChatModel):
        async def ainvoke(self, *args, **kwargs):
            raise asyncio.CancelledError

        async def astream(self, *args, **kwargs):
            raise asyncio.CancelledError
            yield

    member = PoolMember("m", Cancelling(script=[]))
    [failure] = await aask([member], QUESTION)
    assert failure.kind == "CancelledError"
    [failure] = [item async for item in arelay(member, QUESTION)]
    assert failure.kind == "CancelledError"


class Counting(ScriptedChatModel):
    """Streams one word after the other without waiting, and notes what it did."""

    notes: list[str] = []  # noqa: RUF012  # pydantic copies it

    async def _astream(self, *args, **kwargs):
        try:
            async for chunk in super()._astream(*args, **kwargs):
                self.notes.append(chunk.text)
                yield chunk
        finally:
            self.notes.append("closed")


async def test_a_member_is_at_most_one_piece_ahead_of_its_reader():
    """One word is read, one waits, and the member stands at the third until there is room."""
    model = Counting(script=["a b c d e f"])
    stream = arelay(PoolMember("m", model), QUESTION)
    await anext(stream)
    for _ in range(20):  # turns of the loop, in which it could run ahead
        await asyncio.sleep(0)
    assert model.notes == ["a ", "b ", "c "]
    await stream.aclose()


async def test_leaving_a_stream_closes_a_member_that_waits_for_its_reader():
    model = Counting(script=["a b c d e f"])
    stream = arelay(PoolMember("m", model), QUESTION)
    await anext(stream)
    for _ in range(20):
        await asyncio.sleep(0)
    await stream.aclose()
    await asyncio.sleep(0)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert model.notes[-1] == "closed"


async def test_leaving_a_stream_early_cancels_its_member():
    never = asyncio.Event()
    ended = []

    class Slow(FakeListChatModel):
        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            try:
                async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                    yield chunk
                    await never.wait()
            finally:
                ended.append(True)

    stream = arelay(PoolMember("m", Slow(responses=["long"])), QUESTION)
    assert await anext(stream) == "l"
    await stream.aclose()
    assert ended == [True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_leaving_a_sync_stream_early_closes_its_member():
    ended = []

    class Slow(FakeListChatModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            try:
                yield from super()._stream(messages, stop, run_manager, **kwargs)
            finally:
                ended.append(True)

    stream = relay(PoolMember("m", Slow(responses=["long"])), QUESTION)
    assert next(stream) == "l"
    stream.close()
    assert ended == [True]


def test_a_sync_stream_is_closed_in_the_context_in_which_it_ran():
    """A member may reset a context variable at its end, which Python allows in the same context only."""
    variable = ContextVar("variable")

    class Scoped(FakeListChatModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            token = variable.set("mine")
            try:
                yield from super()._stream(messages, stop, run_manager, **kwargs)
            finally:
                variable.reset(token)

    stream = relay(PoolMember("m", Scoped(responses=["long"])), QUESTION)
    assert next(stream) == "l"
    stream.close()
    gc.collect()  # an error while closing would surface here

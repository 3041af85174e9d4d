"""Calls: members are asked at once, and what comes of each is a candidate or a failure."""

import asyncio
import gc
import itertools
import threading
from contextvars import ContextVar
from uuid import uuid4

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, UsageMetadata
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import set_config_context
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal.execution import MAX_REASON_CHARS, UnusableAnswerError, calls
from langchain_rlfocal.execution.calls import StreamedResponse
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_asking import aask, arelay, ask, relay

QUESTION = [HumanMessage("What is it?")]


def saying(answer, **fields):
    return ScriptedChatModel(script=[answer], **fields)


def ticking():
    """A clock that is one second later at each look."""
    return itertools.count().__next__


async def both(members, **kwargs):
    """Ask through the sync and through the async door; both must say the same."""
    waited = await aask(members, QUESTION, **kwargs)
    assert await asyncio.to_thread(ask, members, QUESTION, **kwargs) == waited
    return waited


async def outcomes_of(model, **kwargs):
    """Ask one model through all four doors, which must agree but for a text that streams in part."""
    member = PoolMember("m", model)
    clock = lambda: 0.0  # noqa: E731  # no time passes
    results = [
        ask([member], QUESTION, clock=clock, **kwargs)[0],
        (await aask([member], QUESTION, clock=clock, **kwargs))[0],
        list(relay(member, QUESTION, clock=clock, **kwargs))[-1],
        [item async for item in arelay(member, QUESTION, clock=clock, **kwargs)][-1],
    ]
    assert all(result == results[0] for result in results)
    return results[0]


async def test_a_model_that_knows_no_async_calls_answers_too():
    member = PoolMember("a", FakeListChatModel(responses=["sync only"]))
    [result] = await aask([member], QUESTION)
    assert result.text == "sync only"


async def test_a_candidate_records_time_tokens_cost_and_logprob():
    """The prompt has 3 words and the answer 2: 3 * 1 + 2 * 10 = 23 dollars a million. The clock ticks once a look: that the
    call has begun is one, and that it has ended another.
    """
    model = saying("forty two", logprob=-0.25)
    member = PoolMember("a", model, input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)
    [candidate] = await aask([member], QUESTION, round_number=2, clock=ticking())
    assert candidate == Candidate(
        member="a",
        round=2,
        text="forty two",
        answer=None,
        latency_s=2,
        prompt_tokens=3,
        completion_tokens=2,
        cost_usd=pytest.approx(23e-6),
        logprob=-0.25,
    )
    assert candidate.message.text == "forty two"


async def test_what_a_member_does_not_report_is_unknown():
    candidate = await outcomes_of(saying("hi", reports_usage=False))
    assert (candidate.prompt_tokens, candidate.completion_tokens) == (None, None)
    assert (candidate.cost_usd, candidate.logprob) == (None, None)


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "text",
        [1],
        {"content": None},
        {"content": [None]},
        {"content": [{"logprob": float("-inf")}]},
        {"content": [{"logprob": -1.0}, {"logprob": None}]},
    ],
    ids=str,
)
def test_odd_logprobs_are_unknown_and_never_an_error(reported):
    message = AIMessage("yes", response_metadata={"logprobs": reported})
    [result] = ask([PoolMember("a", saying(message))], QUESTION)
    assert isinstance(result, Candidate)
    assert result.logprob is None


async def test_a_failing_member_is_a_value_beside_the_others():
    members = [PoolMember("bad", FailingChatModel(error=RuntimeError("no\nroom"))), PoolMember("good", saying("yes"))]
    bad, good = await both(members, clock=lambda: 0.0)
    assert bad == Failure(member="bad", round=1, kind="RuntimeError", reason="no", latency_s=0.0)
    assert isinstance(bad.error, RuntimeError)
    assert good.text == "yes"


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_an_empty_answer_is_a_failure_whose_tokens_are_kept(text):
    usage = UsageMetadata(input_tokens=5, output_tokens=7, total_tokens=12)
    failure = await outcomes_of(saying(AIMessage(text, usage_metadata=usage)))
    assert failure.kind == "empty"
    assert isinstance(failure.error, UnusableAnswerError)
    assert failure.error.message.usage_metadata == usage


async def test_tool_calls_without_a_text_are_an_answer():
    call = {"name": "add", "args": {"a": 1}, "id": "x", "type": "tool_call"}
    candidate = await outcomes_of(saying(AIMessage("", tool_calls=[call])))
    assert candidate.text == ""
    assert candidate.message.tool_calls == [call]


async def test_a_text_beyond_the_cap_is_a_failure_and_one_at_the_cap_is_not(monkeypatch):
    monkeypatch.setattr(calls, "MAX_TEXT_CHARS", 10)
    assert (await outcomes_of(saying("a" * 10))).text == "a" * 10
    failure = await outcomes_of(saying("a b c d e f"))
    assert failure.kind == "too_long"


def test_a_stream_beyond_the_cap_is_not_read_to_its_end(monkeypatch):
    """The cap of 4 is passed at the third word; a model that never stops must not keep us."""
    monkeypatch.setattr(calls, "MAX_TEXT_CHARS", 4)
    items = list(relay(PoolMember("m", saying("a b c d")), QUESTION))
    assert items[:-1] == ["a ", "b "]
    assert items[-1].kind == "too_long"


@pytest.mark.parametrize("part", ["name", "args"])
def test_calls_count_towards_the_cap(monkeypatch, part):
    monkeypatch.setattr(calls, "MAX_TEXT_CHARS", 30)
    for length, kind in ((5, None), (40, "too_long")):
        call = {"name": "f", "args": {}, "id": "x", "type": "tool_call"}
        call[part] = "f" * length if part == "name" else {"a": "x" * length}
        [result] = ask([PoolMember("a", saying(AIMessage("", tool_calls=[call])))], QUESTION)
        assert getattr(result, "kind", None) == kind


@pytest.mark.parametrize("part", ["args", "block"])
def test_a_stream_of_something_else_than_text_is_not_read_to_its_end_either(monkeypatch, part):
    """Ten pieces of a hundred thousand characters are the cap; the eleventh is the last that is read."""
    monkeypatch.setattr(calls, "MAX_CONTENT_CHARS", 1_000_000)
    response = StreamedResponse()
    piece = "x" * 100_000
    if part == "args":
        chunk = AIMessageChunk("", tool_call_chunks=[{"name": None, "args": piece, "id": None, "index": 0}])
    else:
        chunk = AIMessageChunk([{"type": "reasoning", "reasoning": piece, "index": 0}])
    for _ in range(9):
        response.add(chunk)
    with pytest.raises(UnusableAnswerError, match="1,000,000"):
        [response.add(chunk) for _ in range(2)]


def test_arguments_that_break_off_are_one_broken_call():
    """LangChain lists what it cannot complete; what it completes is listed here, once."""
    for args in ('{"a": [1', "a b c"):
        response = StreamedResponse()
        response.add(AIMessageChunk("", tool_call_chunks=[{"name": "f", "args": args, "id": "x", "index": 0}]))
        response.add(AIMessageChunk("", chunk_position="last"))
        assert response.message.tool_calls == []
        [call] = response.message.invalid_tool_calls
        assert (call["name"], call["args"], call["id"]) == ("f", args, "x")


def test_of_calls_without_ids_none_that_breaks_off_is_made():
    """The first cannot be read, the second could be completed: neither may be called."""
    response = StreamedResponse()
    for index, args in enumerate(("a b c", '{"path": "/ho')):
        response.add(
            AIMessageChunk("", tool_call_chunks=[{"name": "delete", "args": args, "id": None, "index": index}])
        )
    response.add(AIMessageChunk("", chunk_position="last"))
    assert response.message.tool_calls == []
    assert [call["args"] for call in response.message.invalid_tool_calls] == ["a b c", '{"path": "/ho']


async def test_media_are_no_text():
    """An image of more than a million characters beside a word, whole and as a stream."""
    image = {"type": "image", "base64": "A" * 1_200_000, "mime_type": "image/png"}
    result = await outcomes_of(saying(AIMessage([{"type": "text", "text": "yes"}, image])))
    assert result.text == "yes"


async def test_a_long_reason_is_cut():
    assert len((await outcomes_of(FailingChatModel(error=ValueError("x" * 9999)))).reason) == MAX_REASON_CHARS


# ---- what reaches members


async def test_every_member_gets_a_list_of_its_own():
    """A member that changes its list must not change what the others are asked."""

    def greedy(messages):
        messages.clear()
        return "mine"

    members = [PoolMember("a", ScriptedChatModel(script=greedy)), PoolMember("b", ScriptedChatModel(script=greedy))]
    messages = list(QUESTION)
    assert [r.text for r in await aask(members, messages)] == ["mine", "mine"]
    assert messages == QUESTION


async def test_stop_and_call_arguments_reach_the_members():
    model = saying("yes")
    await outcomes_of(model, stop=["\n"], temperature=0.5)
    assert len(model.asked) == 4
    assert all(asked.stop == ["\n"] and asked.kwargs == {"temperature": 0.5} for asked in model.asked)


async def test_the_callers_context_variables_reach_members_in_threads_and_tasks():
    variable = ContextVar("variable", default="unset")
    variable.set("set")
    model = ScriptedChatModel(script=lambda _messages: variable.get())
    assert (await outcomes_of(model)).text == "set"


async def test_what_a_member_sets_in_its_context_stays_there():
    variable = ContextVar("variable", default="clean")

    def soil(_messages):
        variable.set("soiled")
        return "yes"

    await outcomes_of(ScriptedChatModel(script=soil))
    assert variable.get() == "clean"


def test_members_do_not_take_over_the_id_of_the_run_around_them():
    """Two runs with one id would be one run to a tracer."""
    collector, run_id = RunCollectorCallbackHandler(), uuid4()
    members = [PoolMember(name, saying(name)) for name in "ab"]
    with set_config_context({"run_id": run_id, "callbacks": [collector]}) as context:
        context.run(ask, members, QUESTION)
    assert len({run.id for run in collector.traced_runs} | {run_id}) == 3


async def test_a_member_finds_the_configuration_of_the_run_around_it():
    """Inside a LangGraph node the run's `configurable` must reach members, or they cannot find their thread."""
    from langchain_core.runnables.config import ensure_config  # noqa: PLC0415  # what the member itself would call

    model = ScriptedChatModel(script=lambda _messages: ensure_config()["configurable"]["thread_id"])
    around = RunnableLambda(lambda _: ask([PoolMember("m", model)], QUESTION))
    [candidate] = around.invoke("", config={"configurable": {"thread_id": "t1"}})
    assert candidate.text == "t1"


# ---- streams


async def test_a_stream_gives_pieces_that_make_up_the_text_and_then_the_candidate():
    text = "  two words,\n\nand a third "
    member = PoolMember("m", saying(text, logprob=-1.0))
    *pieces, candidate = [item async for item in arelay(member, QUESTION)]
    assert len(pieces) > 1
    assert "".join(pieces) == candidate.text == text
    assert candidate.logprob == -1.0
    assert candidate.completion_tokens == 5


def test_what_the_consumer_of_a_stream_takes_is_not_the_members_latency():
    """The member takes no time; the reader takes 10 s after each of three words."""
    now_s = 0.0
    items = relay(PoolMember("m", saying("one two three")), QUESTION, clock=lambda: now_s)
    words = []
    for item in items:
        words.append(item)
        now_s += 10
    assert len(words) == 4
    assert words[-1].latency_s == 0


async def test_what_the_consumer_of_an_async_stream_takes_is_not_the_members_latency():
    """The clock moves only while the member waits for room: it has two pieces out, and its reader takes one of them."""
    now_s = 0.0
    member = PoolMember("m", saying("one two three four"))
    stream = arelay(member, QUESTION, clock=lambda: now_s)
    async for item in stream:
        for _ in range(20):  # lets the member run until it waits
            await asyncio.sleep(0)
        if isinstance(item, str) and item.strip() in {"one", "two"}:
            now_s += 10
    assert isinstance(item, Candidate)
    assert item.latency_s == 0


async def test_a_stream_that_breaks_gives_what_came_and_then_the_failure():
    member = PoolMember("m", FailingChatModel(error=ConnectionError("lost"), after="Half an"))
    *pieces, failure = [item async for item in arelay(member, QUESTION)]
    assert "".join(pieces) == "Half an"
    assert failure.kind == "ConnectionError"


async def test_a_model_that_cannot_stream_comes_in_one_piece():
    class Whole(ScriptedChatModel):
        disable_streaming: bool = True

    member = PoolMember("m", Whole(script=["in one"]))
    for items in (list(relay(member, QUESTION)), [item async for item in arelay(member, QUESTION)]):
        text, candidate = items
        assert text == candidate.text == "in one"


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


@pytest.mark.parametrize("num_turns", [0, 20], ids=["at once", "while it waits for its reader"])
async def test_leaving_a_stream_closes_its_member(num_turns):
    model = Counting(script=["a b c d e f"])
    stream = arelay(PoolMember("m", model), QUESTION)
    await anext(stream)
    for _ in range(num_turns):
        await asyncio.sleep(0)
    await stream.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert model.notes[-1] == "closed"


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


# ---- together


def test_no_thread_is_left_when_all_have_answered():
    before = threading.active_count()
    ask([PoolMember(name, saying(name)) for name in "abc"], QUESTION)
    assert threading.active_count() == before


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name
    """Stands for LangGraph's own, which is recognised by its name."""


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

"""Streams: ask one member, and pass its text on while it comes."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.runnables import RunnableConfig

from langchain_rlfocal.execution import asking
from langchain_rlfocal.execution.asking import (
    PASSING,
    Adapt,
    Call,
    Clock,
    Role,
    check_kind,
    too_long,
    usage_of,
)
from langchain_rlfocal.execution.limits import CallLimits
from langchain_rlfocal.execution.teams import NO_LIMITS, end
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure


def stream_member(
    member: PoolMember,
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    adapt: Adapt | None = None,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> Generator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `ask_members` for the arguments.

    Yields:
        The text, piece by piece; at the end, always, what became of the member.
    """
    call = Call(member, messages, kwargs, adapt, round_number, config or {}, role, clock)
    response = _Response()
    # The context is entered for each step and left before the consumer runs, which would otherwise inherit it.
    with limits.held(member.name), call.context() as context:
        chunks: Iterator[AIMessage] | None = None
        try:
            brief = call.begin()
            chunks = context.run(brief.model.stream, brief.messages, call.config, stop=stop, **brief.kwargs)
            while (chunk := context.run(next, chunks, _END)) is not _END:
                if text := response.add(chunk):
                    paused_s = clock()
                    yield text
                    call.started_s += clock() - paused_s  # what the consumer takes is not the member's latency
            result: Candidate | Failure = call.candidate(response.message)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            result = call.failure(error)
        finally:
            if isinstance(chunks, Generator):
                context.run(chunks.close)
        yield result


async def astream_member(
    member: PoolMember,
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    adapt: Adapt | None = None,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> AsyncGenerator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `stream_member`.

    The member runs in one task from its first token to its last, as clients with scopes of their own demand. It is at
    most one piece ahead of the consumer, and is cancelled when the consumer leaves.
    """
    call = Call(member, messages, kwargs, adapt, round_number, config or {}, role, clock)
    leaving = asyncio.Event()
    # The last item must never wait for a reader that has left, so it is the pieces of text that wait for room.
    pieces: asyncio.Queue[str | Candidate | Failure | BaseException] = asyncio.Queue()
    room = asyncio.Semaphore(1)

    async def read() -> Candidate | Failure:
        response = _Response()
        try:
            brief = call.begin()
            chunks = brief.model.astream(brief.messages, call.config, stop=stop, **brief.kwargs)
            async with aclosing(cast("AsyncGenerator[AIMessage]", chunks)) as stream:
                async for chunk in stream:
                    if text := response.add(chunk):
                        paused_s = clock()
                        await room.acquire()
                        pieces.put_nowait(text)
                        call.started_s += clock() - paused_s  # as in `stream_member`
            return call.candidate(response.message)
        except asyncio.CancelledError as error:
            if leaving.is_set():
                raise
            return call.failure(error)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            return call.failure(error)

    async def pump() -> None:
        try:
            async with limits.aheld(member.name):
                pieces.put_nowait(await read())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # raised again where the consumer waits
            pieces.put_nowait(error)

    with call.context() as context:
        task = asyncio.create_task(pump(), name=f"rlfocal:{member.name}", context=context)
        try:
            while isinstance(piece := await pieces.get(), str):
                room.release()
                yield piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        finally:
            leaving.set()
            await end([task])


_END: Any = object()
"""Says that a stream is at its end, which None does not: a member may yield that too."""


class _Response:
    """Chunks of a streamed response, put together at the end."""

    def __init__(self) -> None:
        self._chunks: list[AIMessage] = []
        self._num_chars = 0
        self._held = ""
        self._begun = False

    def add(self, chunk: AIMessage) -> str:
        """Add a chunk and return the text that can be passed on: none before the first that is not blank.

        Raises:
            UnusableAnswerError: The chunk is no message of a model, or the response has become too long.
        """
        check_kind(chunk)
        usage = usage_of(chunk)
        self._chunks.append(
            chunk if usage == chunk.usage_metadata else chunk.model_copy(update={"usage_metadata": usage})
        )
        text = str(chunk.text)
        self._num_chars += len(text)
        if self._num_chars > asking.MAX_TEXT_CHARS:
            raise too_long(self._num_chars, None)
        self._begun = self._begun or bool(text.strip())
        if not self._begun:  # nothing but white space is no answer, and for that another member can stand in
            self._held += text
            return ""
        text, self._held = self._held + text, ""
        return text

    @property
    def message(self) -> AIMessage:
        """The whole response, empty if there were no chunks."""
        chunks = [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]
        if not chunks:  # a model that cannot stream yields its message as it is
            return self._chunks[-1] if self._chunks else AIMessage(content="")
        whole = chunks[0] + chunks[1:]
        message = cast("AIMessage", message_chunk_to_message(whole))
        # LangChain completes arguments that break off; nobody may call with those.
        broken = [chunk for chunk in whole.tool_call_chunks if not _is_object(chunk["args"])]
        if broken:
            faulty = [invalid_tool_call(name=c["name"], args=c["args"], id=c["id"], error=None) for c in broken]
            message.invalid_tool_calls = [*message.invalid_tool_calls, *faulty]
            message.tool_calls = [call for call in message.tool_calls if call["id"] not in {c["id"] for c in broken}]
        return message


def _is_object(args: str | None) -> bool:
    """Tell whether a call's arguments are written to their end."""
    try:
        return isinstance(json.loads(args or "{}", strict=False), dict)
    except (ValueError, RecursionError):
        return False

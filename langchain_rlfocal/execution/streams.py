"""Streams: ask one member, and pass its text on while it comes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.runnables import RunnableConfig

from langchain_rlfocal.execution import asking
from langchain_rlfocal.execution.asking import Adapt, Ask, Clock, Role, as_given, too_long
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
    adapt: Adapt = as_given,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> Generator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `ask_members` for the arguments.

    Yields:
        The text, piece by piece; at the end, always, what became of the member.
    """
    ask = Ask(member, messages, kwargs, adapt, round_number, config or {}, role, clock)
    response = _Response()
    # The context is entered for each step and left before the consumer runs, which would otherwise inherit it.
    with limits.held(member.name), ask.context() as context:
        chunks: Iterator[AIMessage] | None = None
        try:
            brief = ask.begin()
            chunks = context.run(brief.model.stream, brief.messages, ask.config, stop=stop, **brief.kwargs)
            while (chunk := context.run(next, chunks, None)) is not None:
                if text := response.add(chunk):
                    paused_s = clock()
                    yield text
                    ask.started_s += clock() - paused_s  # what the consumer takes is not the member's latency
            result: Candidate | Failure = ask.candidate(response.message)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever a member raises is its failure
            result = ask.failure(error)
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
    adapt: Adapt = as_given,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> AsyncGenerator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `stream_member`.

    The member runs in one task from its first token to its last, as clients with scopes of their own demand. It is at
    most one piece ahead of the consumer, and is cancelled when the consumer leaves.
    """
    ask = Ask(member, messages, kwargs, adapt, round_number, config or {}, role, clock)
    leaving = asyncio.Event()
    pieces: asyncio.Queue[str | Candidate | Failure | Exception] = asyncio.Queue(maxsize=1)

    async def read() -> Candidate | Failure:
        response = _Response()
        try:
            brief = ask.begin()
            chunks = brief.model.astream(brief.messages, ask.config, stop=stop, **brief.kwargs)
            async with aclosing(cast("AsyncGenerator[AIMessage]", chunks)) as stream:
                async for chunk in stream:
                    if text := response.add(chunk):
                        paused_s = clock()
                        await pieces.put(text)
                        ask.started_s += clock() - paused_s  # as in `stream_member`
            return ask.candidate(response.message)
        except asyncio.CancelledError as error:
            if leaving.is_set():
                raise
            return ask.failure(error)
        except Exception as error:  # noqa: BLE001  # whatever a member raises is its failure
            return ask.failure(error)

    async def pump() -> None:
        try:
            async with limits.aheld(member.name):
                await pieces.put(await read())
        except Exception as error:  # noqa: BLE001  # raised again where the consumer waits
            await pieces.put(error)

    with ask.context() as context:
        task = asyncio.create_task(pump(), name=f"rlfocal:{member.name}", context=context)
        try:
            while isinstance(piece := await pieces.get(), str):
                yield piece
            if isinstance(piece, Exception):
                raise piece
            yield piece
        finally:
            leaving.set()
            await end([task])


class _Response:
    """Chunks of a streamed response, put together at the end."""

    def __init__(self) -> None:
        self._chunks: list[AIMessage] = []
        self._num_chars = 0

    def add(self, chunk: AIMessage) -> str:
        """Add a chunk and return its text.

        Raises:
            UnusableAnswerError: The response has become too long.
        """
        self._chunks.append(chunk)
        text = str(chunk.text)
        self._num_chars += len(text)
        if self._num_chars > asking.MAX_TEXT_CHARS:
            raise too_long(self._num_chars, None)
        return text

    @property
    def message(self) -> AIMessage:
        """The whole response, empty if there were no chunks."""
        chunks = [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]
        if not chunks:  # a model that cannot stream yields its message as it is
            return self._chunks[-1] if self._chunks else AIMessage(content="")
        return cast("AIMessage", message_chunk_to_message(chunks[0] + chunks[1:]))

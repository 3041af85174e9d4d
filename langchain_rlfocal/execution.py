"""Execution: put one query to the selected members at once.

The only module that waits on the network. A member that answers becomes a `Candidate`; one that does not becomes a
`Failure`. Both are values: nothing a member does can raise out of `ask_members`, so Fusion always sees the whole team.
Two things pass through, since they are no non-answers: the wish to stop the program, and LangGraph's control flow.

It does not judge answers (`Candidate.answer` is None here), and asks each member once: no retries, no deadlines.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import AbstractContextManager, ExitStack, aclosing
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, ensure_config, set_config_context

from langchain_rlfocal._compat import is_control_flow, untangled
from langchain_rlfocal.foreign_text import masked
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure

MAX_TEXT_CHARS = 1_000_000
"""A longer answer is a failure: comparing, storing and showing it costs more than it can be worth."""

MAX_REASON_CHARS = 500

Role = Literal["member", "synthesizer"]
Clock = Callable[[], float]

_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})


class UnusableAnswerError(Exception):
    """A member responded, but with nothing that can be an answer.

    Attributes:
        kind: `"empty"` or `"too_long"`.
        message: What it responded, so that its tokens are still counted; None for a stream cut off.
    """

    def __init__(self, kind: str, reason: str, message: AIMessage | None = None) -> None:
        self.kind, self.message = kind, message
        super().__init__(reason)


def ask_members(
    members: Sequence[PoolMember],
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> list[Candidate | Failure]:
    """Ask members at once, each in a thread of its own.

    Args:
        members: Whom to ask.
        messages: What to ask; each member gets its own list of the same messages.
        round_number: Round to note in the records, counted from 1.
        config: Callbacks, tags and metadata for the members' runs; what is missing comes from the run around.
        role: What traces say that the asked are.
        stop: Stop sequences for the members.
        clock: Gives seconds; latencies are its differences.
        **kwargs: Passed on to each member's `invoke`.

    Returns:
        What became of each member, in the members' order.
    """
    if not members:
        return []
    asks = [_Ask(member, round_number, _config_of(member, config, role), clock) for member in members]

    def ask(ask: _Ask) -> Candidate | Failure:
        try:
            with ask.context() as context:
                return ask.candidate(
                    context.run(ask.member.model.invoke, list(messages), ask.config, stop=stop, **kwargs)
                )
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever a member raises is its failure
            return ask.failure(error)

    # Contexts are copied to the threads, so that members see what the caller's context variables hold.
    executor = ContextThreadPoolExecutor(max_workers=len(asks), thread_name_prefix="rlfocal")
    futures: list[Future[Candidate | Failure]] = []
    try:
        futures.extend(executor.submit(ask, each) for each in asks)
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises what passes through, without waiting for the others
        return [future.result() for future in futures]
    finally:
        executor.shutdown(wait=all(future.done() for future in futures))


async def aask_members(
    members: Sequence[PoolMember],
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> list[Candidate | Failure]:
    """Ask members at once, each in a task of its own; see `ask_members`.

    When it is cancelled it cancels every member's task and waits until all have ended. A model that knows no async calls
    runs in a thread, which nothing can end early.
    """
    if not members:
        return []
    leaving = asyncio.Event()
    asks = [_Ask(member, round_number, _config_of(member, config, role), clock) for member in members]

    async def ask(ask: _Ask) -> Candidate | Failure:
        try:
            return ask.candidate(await ask.member.model.ainvoke(list(messages), ask.config, stop=stop, **kwargs))
        except asyncio.CancelledError as error:
            if leaving.is_set():
                raise
            return ask.failure(error)
        except Exception as error:  # noqa: BLE001  # whatever a member raises is its failure
            return ask.failure(error)

    with ExitStack() as stack:
        # Each context stays open until its task has ended: closing resets the run that the member's own calls nest under.
        contexts = [stack.enter_context(each.context()) for each in asks]
        tasks = [
            asyncio.create_task(ask(each), name=f"rlfocal:{each.member.name}", context=context)
            for each, context in zip(asks, contexts, strict=True)
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()  # raises what passes through, without waiting for the others
            return [task.result() for task in tasks]
        finally:
            leaving.set()
            await _end(tasks)


def stream_member(
    member: PoolMember,
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> Generator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `ask_members` for the arguments.

    Yields:
        The text, piece by piece; at the end, always, what became of the member.
    """
    ask = _Ask(member, round_number, _config_of(member, config, "member"), clock)
    response = _Response()
    # The context is entered for each step and left before the consumer runs, which would otherwise inherit it.
    with ask.context() as context:
        chunks: Iterator[AIMessage] | None = None
        try:
            chunks = context.run(member.model.stream, list(messages), ask.config, stop=stop, **kwargs)
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
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> AsyncGenerator[str | Candidate | Failure]:
    """Ask one member and pass its text on while it comes; see `stream_member`.

    The member runs in one task from its first token to its last, as clients with scopes of their own demand. It is at
    most one piece ahead of the consumer, and is cancelled when the consumer leaves.
    """
    ask = _Ask(member, round_number, _config_of(member, config, "member"), clock)
    leaving = asyncio.Event()
    pieces: asyncio.Queue[str | Candidate | Failure | Exception] = asyncio.Queue(maxsize=1)

    async def read() -> Candidate | Failure:
        response = _Response()
        stream = cast(
            "AsyncGenerator[AIMessage]", member.model.astream(list(messages), ask.config, stop=stop, **kwargs)
        )
        try:
            async with aclosing(stream):
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
            await _end([task])


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _config_of(member: PoolMember, config: RunnableConfig | None, role: Role) -> RunnableConfig:
    """Make the config of one member's run."""
    given = config or {}
    merged = ensure_config(None)  # what LangGraph keeps for the node around must reach members
    merged.pop("run_id", None)
    callbacks = given.get("callbacks", merged.get("callbacks"))
    name = f"member:{member.name}" if role == "member" else role
    merged["callbacks"] = callbacks.copy() if isinstance(callbacks, BaseCallbackManager) else callbacks
    merged["run_name"] = name
    # LangGraph shows no tokens of runs tagged "nostream": members speak to the ensemble, not to the user.
    merged["tags"] = [*(given.get("tags") or ()), f"rlfocal:{name}", "nostream"]
    merged["metadata"] = {**(given.get("metadata") or {}), "rlfocal_role": role, "rlfocal_member": member.name}
    return merged


@dataclass(slots=True)
class _Ask:
    """One member being asked: turns whatever comes of it into a record.

    Attributes:
        started_s: When it was asked, moved on by what it had to wait for the consumer of its stream.
    """

    member: PoolMember
    round_number: int
    config: RunnableConfig
    clock: Clock
    started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_s = self.clock()

    def context(self) -> AbstractContextManager[Context]:
        """Open the context in which the member runs: what it asks on its own belongs under the same run, not its name."""
        around = self.config.copy()
        around.pop("run_name", None)
        return set_config_context(around)

    def candidate(self, message: AIMessage) -> Candidate:
        """Record a response.

        Raises:
            UnusableAnswerError: It is empty or too long.
        """
        latency_s = self.clock() - self.started_s
        text = str(message.text)
        if not text.strip() and not message.tool_calls:
            raise UnusableAnswerError("empty", "The response has neither text nor tool calls.", message)
        if len(text) > MAX_TEXT_CHARS:
            raise _too_long(len(text), message)
        usage = message.usage_metadata
        prompt_tokens = usage.get("input_tokens") if usage else None
        completion_tokens = usage.get("output_tokens") if usage else None
        return Candidate(
            member=self.member.name,
            round=self.round_number,
            text=text,
            answer=None,
            latency_s=latency_s,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=self.member.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
            logprob=_mean_logprob(message),
            message=message,
        )

    def failure(self, error: BaseException) -> Failure:
        """Record a non-answer.

        Raises:
            Exception: The error itself, if it is LangGraph's control flow.
        """
        if is_control_flow(error):
            raise error
        error = untangled(error)
        name = type(error).__name__
        lines = masked(str(error).strip()).splitlines()
        return Failure(
            member=self.member.name,
            round=self.round_number,
            kind=error.kind if isinstance(error, UnusableAnswerError) else name,
            reason=(lines[0] if lines else f"{name} without a message")[:MAX_REASON_CHARS],
            latency_s=self.clock() - self.started_s,
            is_retryable=_is_retryable(error),
            error=error,
        )


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
        if self._num_chars > MAX_TEXT_CHARS:
            raise _too_long(self._num_chars, None)
        return text

    @property
    def message(self) -> AIMessage:
        """The whole response, empty if there were no chunks."""
        chunks = [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]
        if not chunks:  # a model that cannot stream yields its message as it is
            return self._chunks[-1] if self._chunks else AIMessage(content="")
        return cast("AIMessage", message_chunk_to_message(chunks[0] + chunks[1:]))


def _too_long(num_chars: int, message: AIMessage | None) -> UnusableAnswerError:
    reason = f"An answer must have at most {MAX_TEXT_CHARS:,} characters, got {num_chars:,}. Ask with `max_tokens`."
    return UnusableAnswerError("too_long", reason, message)


def _mean_logprob(message: AIMessage) -> float | None:
    """Average the tokens' log-probabilities where the member reports them in OpenAI's form; never raises."""
    reported = message.response_metadata.get("logprobs")
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    reports = [token.get("logprob") if isinstance(token, Mapping) else None for token in tokens]
    values = [value for value in reports if isinstance(value, int | float) and math.isfinite(value)]
    return math.fsum(values) / len(values) if len(values) == len(tokens) else None


def _is_retryable(error: BaseException) -> bool:
    """Tell whether asking again may help: LangChain's word for it, else the HTTP status, else a lost connection."""
    if isinstance(error, ModelError):
        return bool(error.is_retryable)
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in _RETRYABLE_STATUS or status >= 500
    return isinstance(error, TimeoutError | ConnectionError)

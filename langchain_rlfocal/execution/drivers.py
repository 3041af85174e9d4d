"""Drivers: what a `Round` says is done here, each call in a thread, or in a task of the running event loop.

They decide nothing. A task that is stopped is cancelled, and its run is closed. Nothing can end a thread from outside: a call
that is stopped there is left to its end, which its member's client is told to reach in time where it can be told; nobody
waits for it, and neither does the program.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, aclosing
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage

from langchain_rlfocal._langchain import OpenRuns
from langchain_rlfocal.execution.calls import MemberCall, Result, RoundRequest, StreamedResponse
from langchain_rlfocal.execution.config import AnswerLimits
from langchain_rlfocal.execution.rounds import Event, IsDecided, Round
from langchain_rlfocal.pool import PoolMember

PROPAGATED = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is no member's failure: the wish to stop the program, and the reader's leaving."""

JOIN_S = 1.0
"""How long the reader of a stream who leaves waits for its member's thread."""

CANCEL_GRACE_S = 1.0
"""How long a cancelled task may take to end before it is cancelled once more, and its slot is free.

A first cancellation can get lost: up to Python 3.11 `asyncio.wait_for` drops it where what it waits for comes at the same
moment, and clients wait so for each piece of a stream.
"""

LAST_GRACE_S = 0.1
"""How long a task that was cancelled twice may take to end before nobody waits for it any more."""

_LONGEST_WAIT_S = 3600.0  # threads cannot wait for any number of seconds at once
_END: Any = object()  # the end of a stream, since a member may yield None

_stragglers: set[asyncio.Task[Any]] = set()
"""Tasks that do not heed their cancellation: kept, since the loop itself holds tasks only weakly."""

_logger = logging.getLogger(__name__)


# ---- threads


def ask_members(
    members: Sequence[PoolMember], request: RoundRequest, limits: AnswerLimits | None = None
) -> list[Result]:
    """Ask members at once and wait for all; see `stream_round`."""
    *_, results = stream_round(members, request, limits or AnswerLimits())
    assert isinstance(results, list), "results come last"
    return results


def stream_round(
    members: Sequence[PoolMember],
    request: RoundRequest,
    limits: AnswerLimits,
    *,
    hedges: Sequence[PoolMember] = (),
    is_decided: IsDecided | None = None,
    relay: bool = False,
) -> Generator[str | list[Result]]:
    """Ask members at once, each call in a thread of its own.

    Args:
        members: Whom to ask.
        request: What to ask.
        limits: The answer that it is for.
        hedges: Whom to ask beside slow members; see `Round`.
        is_decided: Whether what has arrived decides the answer; see `Round`.
        relay: True to pass the text of the only member on while it comes.

    Yields:
        The text, piece by piece, where it is relayed; at the end, always, what came of each member.

    Raises:
        OverloadError: It is the answer's first round, and the answer would wait for too long for its beginning.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    running: dict[MemberCall, _Thread] = {}
    clock = limits.clock
    limits.begin()
    delay_s = 0.0
    asking = Round(
        members,
        request,
        limits,
        on_granted=lambda call: events.put(Event(call)),
        hedges=hedges,
        is_decided=is_decided,
        in_threads=True,
    )
    try:
        asking.begin()
        while True:
            for call in asking.take_stops():
                running[call].stop()
            for call in asking.take_starts():
                running[call] = _Thread(call, events.put, relay=relay)
                if asking.begin_call(call):
                    running[call].start()
            limits.begun()
            if asking.is_over:
                break
            wake_at_s = asking.wake_at_s
            wait_s = None if wake_at_s is None else min(max(wake_at_s - clock(), 0.0), _LONGEST_WAIT_S)
            event = _next_of(events, wait_s)
            if event is not None and event.at_s is not None:
                delay_s = max(delay_s, clock() - event.at_s)
            text = asking.take(event) if event is not None else None
            if text is not None:
                paused_s = clock()
                yield text
                asking.pause(clock() - paused_s)
                running[event.call].go_on()  # type: ignore[union-attr]  # texts come by events
            if events.empty():
                asking.catch_up()
    finally:
        limits.ended(delay_s=delay_s)
        asking.abandon()
        left = [running[call] for call in asking.take_stops()]  # none, unless the reader has left
        for work in left:
            work.stop()
        for work in running.values():
            if work.has_ended:
                work.thread.join()  # it has only its slot left to give back
            elif relay and work in left and work.thread.is_alive():
                work.thread.join(JOIN_S)
    yield asking.results


def _next_of(events: SimpleQueue[Event], wait_s: float | None) -> Event | None:
    try:
        return events.get(timeout=wait_s)
    except Empty:
        return None


class _Thread:
    """One call in a thread of its own, in a copy of the caller's context.

    A daemon: a member that never ends must not keep the program from ending.
    """

    def __init__(self, call: MemberCall, post: Callable[[Event], None], *, relay: bool) -> None:
        self._call, self._post, self._relay = call, post, relay
        self._has_room = threading.Semaphore(0)
        self.has_ended = False
        name = f"rlfocal:{call.member.name}"
        self.thread = threading.Thread(target=copy_context().run, args=(self._run,), name=name, daemon=True)

    def start(self) -> None:
        """Make the call; where the system has no thread left, that is how the call failed."""
        try:
            self.thread.start()
        except RuntimeError as error:
            self._call.release_slot()
            self._post(Event(self._call, self._call.outcome_of(error)))

    def go_on(self) -> None:
        """Say that the reader is back for the next piece."""
        self._has_room.release()

    def stop(self) -> None:
        """Leave the thread to its end; its call is not counted any more, so that others need not wait for that."""
        self._call.release_slot()
        self._has_room.release()

    def _run(self) -> None:
        call = self._call
        what: Result | BaseException
        try:
            with call.context() as context:
                what = call.candidate(self._read(context) if self._relay else call.invoke(context))
        except PROPAGATED as error:
            what = error
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            what = call.outcome_of(error)
        self.has_ended = True
        self._post(Event(call, what, call.clock()))
        call.release_slot()  # then who comes next mostly hears of a breaker that opens by this

    def _read(self, context: Context) -> AIMessage:
        """Read the member's stream; it stands still while the reader has the last piece."""
        call, response = self._call, StreamedResponse()
        chunks = call.stream(context)
        try:
            while (chunk := context.run(next, chunks, _END)) is not _END:
                if text := response.add(chunk):
                    paused_s = call.clock()
                    self._post(Event(call, text))
                    self._has_room.acquire()
                    if call.status == "over":
                        raise GeneratorExit
                    call.started_s += call.clock() - paused_s  # what the reader takes is not the member's latency
        finally:
            if isinstance(chunks, Generator):
                context.run(chunks.close)
        return response.message


# ---- tasks


async def aask_members(
    members: Sequence[PoolMember], request: RoundRequest, limits: AnswerLimits | None = None
) -> list[Result]:
    """Ask members at once and wait for all; see `astream_round`."""
    async with aclosing(astream_round(members, request, limits or AnswerLimits())) as items:
        *_, results = [item async for item in items]
    assert isinstance(results, list), "results come last"
    return results


async def astream_round(
    members: Sequence[PoolMember],
    request: RoundRequest,
    limits: AnswerLimits,
    *,
    hedges: Sequence[PoolMember] = (),
    is_decided: IsDecided | None = None,
    relay: bool = False,
) -> AsyncGenerator[str | list[Result]]:
    """Ask members at once, each call in a task of its own; see `stream_round`.

    A relayed member is at most one piece ahead of the reader. When the reader leaves, or is cancelled, every call is cancelled
    too, and has ended when this has.
    """
    loop, home = asyncio.get_running_loop(), threading.get_ident()
    events: asyncio.Queue[Event] = asyncio.Queue()
    running: dict[MemberCall, _Task] = {}
    clock = limits.clock
    await limits.abegin()
    has_begun = False

    def on_granted(call: MemberCall) -> None:
        if threading.get_ident() == home:
            events.put_nowait(Event(call))
        else:
            loop.call_soon_threadsafe(events.put_nowait, Event(call))

    asking = Round(members, request, limits, on_granted=on_granted, hedges=hedges, is_decided=is_decided)
    with ExitStack() as stack:
        try:
            asking.begin()
            while True:
                for call in asking.take_stops():
                    running[call].stop()
                for call in asking.take_starts():
                    # Open until the task has ended: closing resets the run that the member's own calls nest under.
                    context = stack.enter_context(call.context())
                    running[call] = _Task(call, asking, events.put_nowait, context, relay=relay)
                if not has_begun:
                    has_begun = True
                    loop.call_soon(limits.begun)  # behind the first steps of these tasks
                if asking.is_over:
                    break
                event = await _anext_of(events, asking.wake_at_s, clock)
                text = asking.take(event) if event is not None else None
                if text is not None:
                    running[event.call].room.release()  # type: ignore[union-attr]  # texts come by events
                    paused_s = clock()
                    yield text
                    asking.pause(clock() - paused_s)
                if events.empty():
                    asking.catch_up()
        finally:
            limits.ended()
            asking.abandon()
            await _end([work for work in running.values() if not work.task.done()])
    yield asking.results


async def _anext_of(events: asyncio.Queue[Event], wake_at_s: float | None, clock: Callable[[], float]) -> Event | None:
    if wake_at_s is None or not events.empty():
        return await events.get()
    try:
        async with asyncio.timeout(max(wake_at_s - clock(), 0.0)):
            return await events.get()
    except TimeoutError:
        return None


async def _end(works: Sequence["_Task"]) -> None:
    """Stop what still runs and wait until it has ended, but not without end."""
    if not works:
        return
    left = {work.task for work in works}
    for work in works:
        work.stop()
    try:
        _, left = await asyncio.wait(left, timeout=CANCEL_GRACE_S + LAST_GRACE_S)
        for task in left:
            _logger.debug("%s does not end though it is cancelled; nobody waits for it any more.", task.get_name())
    finally:  # this may be cancelled too, and again
        for task in left:
            _stragglers.add(task)
            task.add_done_callback(_stragglers.discard)


class _Task:
    """One call in a task of its own."""

    def __init__(
        self, call: MemberCall, asking: Round, post: Callable[[Event], None], context: Context, *, relay: bool
    ) -> None:
        self._call, self._asking, self._post, self._relay = call, asking, post, relay
        self._second: asyncio.TimerHandle | None = None
        self.room = asyncio.Semaphore(1)
        self.task = asyncio.create_task(self._run(), name=f"rlfocal:{call.member.name}", context=context)
        self.task.add_done_callback(self._leave)  # cancelled before its first step, it runs no line

    def stop(self) -> None:
        """Cancel the task, and once more if it has not ended in time."""
        if self._second is None and not self.task.done():
            self.task.cancel()
            self._second = self.task.get_loop().call_later(CANCEL_GRACE_S, self._stop_again)

    def _stop_again(self) -> None:
        self.task.cancel()
        self._call.release_slot()

    async def _run(self) -> None:
        """Make the call, and tell what came of it."""
        call = self._call
        if not self._asking.begin_call(call):
            return
        runs = _watched(call)
        what: Result | BaseException
        try:
            what = call.candidate(await (self._read() if self._relay else call.ainvoke()))
        except asyncio.CancelledError as error:
            if runs is not None:
                await runs.close(error)
            if call.status == "over":
                raise
            what = call.outcome_of(error)
        except PROPAGATED as error:
            what = error
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            what = call.outcome_of(error)
        self._post(Event(call, what))
        call.release_slot()  # then who comes next hears of a breaker that opens by this

    def _leave(self, _: asyncio.Task[None]) -> None:
        self._call.release_slot()
        if self._second is not None:
            self._second.cancel()

    async def _read(self) -> AIMessage:
        call, response = self._call, StreamedResponse()
        async with aclosing(cast("AsyncGenerator[AIMessage]", call.astream())) as stream:
            async for chunk in stream:
                if call.status == "over":  # the cancellation got lost on its way, see `CANCEL_GRACE_S`
                    raise asyncio.CancelledError
                if text := response.add(chunk):
                    paused_s = call.clock()
                    await self.room.acquire()
                    self._post(Event(call, text))
                    call.started_s += call.clock() - paused_s  # what the reader takes is not the member's latency
        return response.message


def _watched(call: MemberCall) -> OpenRuns | None:
    """Watch the runs of a call, to close them if it is cancelled; None where no handler is told of them."""
    callbacks = call.config.get("callbacks")
    has_handlers = isinstance(callbacks, BaseCallbackManager) and bool(
        callbacks.handlers or call.member.model.callbacks
    )
    return OpenRuns.under(call.config, call.member.model) if has_handlers else None

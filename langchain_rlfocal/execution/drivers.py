"""Drivers: what a `Round` says is done here, each call in a thread, or in a task of the running event loop.

They decide nothing. A task that is stopped is cancelled, and its run is closed. Nothing can end a thread from outside: a call
that is stopped there is left to its end, which its member's client is told to reach in time where it can be told; nobody
waits for it, and neither does the program.
"""

import asyncio
import logging
import threading
from collections import deque
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
"""Tasks that ignore their cancellation: kept, since the loop itself holds tasks only weakly."""

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
    members: Sequence[PoolMember],
    request: RoundRequest,
    limits: AnswerLimits | None = None,
    *,
    hedges: Sequence[PoolMember] = (),
    is_decided: IsDecided | None = None,
) -> list[Result]:
    """Ask members at once, each call in a task of its own, and return what came of each; see `stream_round`.

    Whoever cancels this cancels every call, and each has ended when this has.
    """
    limits = limits or AnswerLimits()
    await limits.abegin()
    tasks = _Tasks(members, request, limits, hedges=hedges, is_decided=is_decided)
    try:
        while not tasks.are_over():
            event = await tasks.next_event()
            while event is not None:
                tasks.asking.take(event)
                event = tasks.events.popleft() if tasks.events else None
            tasks.asking.catch_up()
    finally:
        await tasks.end()
    return tasks.asking.results


async def astream_round(
    members: Sequence[PoolMember], request: RoundRequest, limits: AnswerLimits
) -> AsyncGenerator[str | list[Result]]:
    """Ask one member in a task, and pass its text on while it comes; see `stream_round`.

    The member is at most one piece ahead of the reader. When the reader leaves, or is cancelled, its call is cancelled too, and
    has ended when this has.
    """
    await limits.abegin()
    tasks = _Tasks(members, request, limits, relay=True)
    try:
        while not tasks.are_over():
            event = await tasks.next_event()
            text = tasks.asking.take(event) if event is not None else None
            if text is not None:
                tasks.let_go_on(event)
                paused_s = limits.clock()
                yield text
                tasks.asking.pause(limits.clock() - paused_s)
            if not tasks.events:
                tasks.asking.catch_up()
    finally:
        await tasks.end()
    yield tasks.asking.results


class _Tasks:
    """The calls of a round, each in a task, and what is heard of them."""

    def __init__(
        self,
        members: Sequence[PoolMember],
        request: RoundRequest,
        limits: AnswerLimits,
        *,
        hedges: Sequence[PoolMember] = (),
        is_decided: IsDecided | None = None,
        relay: bool = False,
    ) -> None:
        self._loop, self._home = asyncio.get_running_loop(), threading.get_ident()
        self._limits, self._relay = limits, relay
        self._running: dict[MemberCall, _Task] = {}
        self._news: asyncio.Future[None] | None = None
        self._has_begun = False
        self._opened: ExitStack | None = None
        self.events: deque[Event] = deque()
        self.asking = Round(members, request, limits, on_granted=self._on_granted, hedges=hedges, is_decided=is_decided)

    def are_over(self) -> bool:
        """Start and stop what the round says, and tell whether it is over."""
        asking = self.asking
        if not self._has_begun:
            asking.begin()
        for call in asking.take_stops():
            self._running[call].stop()
        for call in asking.take_starts():
            self._running[call] = _Task(call, asking, self.post, self._context_of(call), relay=self._relay)
        if not self._has_begun:
            self._has_begun = True
            self._loop.call_soon(self._limits.begun)  # behind the first steps of these tasks
        return asking.is_over

    def _context_of(self, call: MemberCall) -> Context:
        if not call.is_traced:
            return call.plain_context()
        if self._opened is None:
            self._opened = ExitStack()
        # Open until the task has ended: closing resets the run that the member's own calls nest under.
        return self._opened.enter_context(call.context())

    def post(self, event: Event) -> None:
        """Take note of what has happened, on this loop."""
        self.events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _on_granted(self, call: MemberCall) -> None:
        if threading.get_ident() == self._home:
            self.post(Event(call))
        else:
            self._loop.call_soon_threadsafe(self.post, Event(call))

    async def next_event(self) -> Event | None:
        """Wait for what happens next; None if something is due before."""
        if not self.events:
            wake_at_s = self.asking.wake_at_s
            self._news = self._loop.create_future()
            if wake_at_s is None:
                await self._news
            else:
                timer = self._loop.call_later(max(wake_at_s - self._limits.clock(), 0.0), self._wake)
                try:
                    await self._news
                finally:
                    timer.cancel()
        return self.events.popleft() if self.events else None

    def let_go_on(self, event: Event | None) -> None:
        """Let the member whose piece of text this was read on."""
        if event is not None:
            self._running[event.call].room.release()

    async def end(self) -> None:
        """End what still runs, since the round is over or nobody waits for it any more."""
        self._limits.ended()
        self.asking.abandon()
        try:
            await _end([work for work in self._running.values() if not work.task.done()])
        finally:
            self._running.clear()
            if self._opened is not None:
                self._opened.close()


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
            _logger.debug("%s ignores its cancellation and was abandoned.", task.get_name())
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
        self._has_begun = False
        if relay:
            self.room = asyncio.Semaphore(1)
        self.task = asyncio.create_task(self._run(), name=f"rlfocal:{call.member.name}", context=context)

    def stop(self) -> None:
        """Cancel the task, and once more if it has not ended in time."""
        if self._second is None and not self.task.done():
            self.task.cancel()
            if self._has_begun:  # else it runs no line
                self._second = self.task.get_loop().call_later(CANCEL_GRACE_S, self._stop_again)
            else:
                self._call.release_slot()

    def _stop_again(self) -> None:
        self.task.cancel()
        self._call.release_slot()

    async def _run(self) -> None:
        """Make the call, and tell what came of it."""
        call, self._has_begun = self._call, True
        try:
            if self._asking.begin_call(call):
                what = await self._outcome()
                self._post(Event(call, what))
        finally:
            call.release_slot()  # then who comes next hears of a breaker that opens by this
            if self._second is not None:
                self._second.cancel()

    async def _outcome(self) -> Result | BaseException:
        call = self._call
        runs = _watched(call) if call.is_traced else None
        try:
            return call.candidate(await (self._read() if self._relay else call.ainvoke()))
        except asyncio.CancelledError as error:
            if runs is not None:
                await runs.close(error)
            if call.status == "over":
                raise
            return call.outcome_of(error)
        except PROPAGATED as error:
            return error
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            return call.outcome_of(error)

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
    """Watch the runs of a call, to close them if it is cancelled; None where there is no manager that tells of them."""
    has_manager = isinstance(call.config.get("callbacks"), BaseCallbackManager)
    return OpenRuns.under(call.config, call.member.model) if has_manager else None

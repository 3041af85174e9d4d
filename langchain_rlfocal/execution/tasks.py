"""Tasks: what a round says is done here with one task of the running event loop for each attempt; see `rounds`.

An attempt that is stopped is cancelled, and its run is closed. A model that knows no async calls runs in a thread of the
loop's executor, which nothing can end early.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from typing import Any, cast

from langchain_core.messages import AIMessage

from langchain_rlfocal._langchain import OpenRuns
from langchain_rlfocal.execution.asking import PASSING, Call, RoundRequest
from langchain_rlfocal.execution.attempts import Attempt, Event, Result
from langchain_rlfocal.execution.errands import AnswerLimits
from langchain_rlfocal.execution.responses import Response
from langchain_rlfocal.execution.rounds import IsDecided, Round
from langchain_rlfocal.pool import PoolMember

GRACE_S = 1.0
"""How long a cancelled member may take to end before it is cancelled once more.

Whoever still closes something has had its time then, and a first cancellation can get lost: `asyncio.wait_for` drops it, up to
Python 3.11, where what it waits for comes at the same moment; clients wait so for each piece of a stream.
"""

LAST_GRACE_S = 0.1
"""How long a member that was cancelled twice may take to end before nobody waits for it any more."""

_stragglers: set[asyncio.Task[Any]] = set()
"""Tasks that do not heed their cancellation: kept, since the loop itself holds tasks only weakly."""

_logger = logging.getLogger(__name__)


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
    """Ask members at once, each attempt in a task of its own; see `threads.stream_round`.

    A relayed member is at most one piece ahead of the consumer. When the consumer leaves, or is cancelled, every attempt is
    cancelled too, and has ended when this has.
    """
    loop, home = asyncio.get_running_loop(), threading.get_ident()
    events: asyncio.Queue[Event] = asyncio.Queue()
    running: dict[Attempt, _Work] = {}
    clock = limits.clock

    def on_granted(attempt: Attempt) -> None:
        if threading.get_ident() == home:
            events.put_nowait(Event(attempt))
        else:
            loop.call_soon_threadsafe(events.put_nowait, Event(attempt))

    asking = Round(members, request, limits, on_granted=on_granted, hedges=hedges, is_decided=is_decided)
    with ExitStack() as stack:
        try:
            asking.begin()
            while True:
                for attempt in asking.take_stops():
                    running[attempt].stop()
                for attempt in asking.take_starts():
                    # Open until the task has ended: closing resets the run that the member's own calls nest under.
                    context = stack.enter_context(attempt.call.context())
                    running[attempt] = work = _Work(attempt, events.put_nowait, relay=relay)
                    name = f"rlfocal:{attempt.call.member.name}"
                    work.task = asyncio.create_task(work.run(), name=name, context=context)
                    work.task.add_done_callback(work.leave)  # cancelled before its first step, it runs no line
                if asking.is_over:
                    break
                event = await _next_of(events, asking.wake_at_s, clock)
                text = asking.take(event) if event is not None else None
                if text is not None:
                    running[event.attempt].room.release()  # type: ignore[union-attr]  # texts come by events
                    paused_s = clock()
                    yield text
                    asking.pause(clock() - paused_s)
                if events.empty():
                    asking.catch_up()
        finally:
            asking.abandon()
            await _end([work for work in running.values() if not work.task.done()])
    yield asking.results


async def _next_of(events: asyncio.Queue[Event], wake_at_s: float | None, clock: Callable[[], float]) -> Event | None:
    if wake_at_s is None or not events.empty():
        return await events.get()
    try:
        async with asyncio.timeout(max(wake_at_s - clock(), 0.0)):
            return await events.get()
    except TimeoutError:
        return None


async def _end(works: Sequence["_Work"]) -> None:
    """Stop what still runs and wait until it has ended, but not for ever."""
    if not works:
        return
    left = {work.task for work in works}
    for work in works:
        work.stop()
    try:
        _, left = await asyncio.wait(left, timeout=GRACE_S + LAST_GRACE_S)
        for task in left:
            _logger.warning("%s does not end though it is cancelled; nobody waits for it any more.", task.get_name())
    finally:  # this may be cancelled too, and again
        for task in left:
            _stragglers.add(task)
            task.add_done_callback(_stragglers.discard)


class _Work:
    """One attempt in a task of its own."""

    task: asyncio.Task[None]

    def __init__(self, attempt: Attempt, post: Callable[[Event], None], *, relay: bool) -> None:
        self._attempt, self._post, self._relay = attempt, post, relay
        self._second: asyncio.TimerHandle | None = None
        self.room = asyncio.Semaphore(1)

    def stop(self) -> None:
        """Cancel the task, and once more if it has not ended in time; to say so again changes nothing."""
        if self._second is None and not self.task.done():
            self.task.cancel()
            self._second = self.task.get_loop().call_later(GRACE_S, self.task.cancel)

    async def run(self) -> None:
        """Make the call, and tell what came of it."""
        call = self._attempt.call
        if not self._attempt.begin():
            return
        runs = OpenRuns.under(call.config, call.member.model)
        what: Result | BaseException
        try:
            what = call.candidate(await (self._read() if self._relay else _invoke(call)))
        except asyncio.CancelledError as error:
            await runs.close(error)
            if self._attempt.status == "over":
                raise
            what = call.outcome_of(error)
        except PASSING as error:
            what = error
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            what = call.outcome_of(error)
        self._post(Event(self._attempt, what))
        self._attempt.leave()  # then who comes next hears of a breaker that opens by this

    def leave(self, _: asyncio.Task[None]) -> None:
        """Give the attempt's place back; nothing is left to stop."""
        self._attempt.leave()
        if self._second is not None:
            self._second.cancel()

    async def _read(self) -> AIMessage:
        call, response = self._attempt.call, Response()
        brief, clock = call.brief, call.clock
        chunks = brief.model.astream(brief.messages, call.config, stop=call.request.stop, **brief.kwargs)
        async with aclosing(cast("AsyncGenerator[AIMessage]", chunks)) as stream:
            async for chunk in stream:
                if self._attempt.status == "over":  # the cancellation got lost on its way, see `GRACE_S`
                    raise asyncio.CancelledError
                if text := response.add(chunk):
                    paused_s = clock()
                    await self.room.acquire()
                    self._post(Event(self._attempt, text))
                    call.started_s += clock() - paused_s  # what the consumer takes is not the member's latency
        return response.message


async def _invoke(call: Call) -> AIMessage:
    brief = call.brief
    return await brief.model.ainvoke(brief.messages, call.config, stop=call.request.stop, **brief.kwargs)

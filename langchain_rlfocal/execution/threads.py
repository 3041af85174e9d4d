"""Threads: what a round says is done here with one thread for each attempt; see `rounds`.

Nothing can end a thread from outside. An attempt that is stopped is left to its end, which its member's client is told to
reach in time where it can be told; nobody waits for it, and neither does the program.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any

from langchain_core.messages import AIMessage

from langchain_rlfocal.execution.asking import PASSING, Call, RoundRequest
from langchain_rlfocal.execution.attempts import Attempt, Event, Result
from langchain_rlfocal.execution.errands import AnswerLimits
from langchain_rlfocal.execution.responses import Response
from langchain_rlfocal.execution.rounds import IsDecided, Round
from langchain_rlfocal.pool import PoolMember

JOIN_S = 1.0
"""How long the reader of a stream who leaves waits for its member to be closed."""

_LONGEST_WAIT_S = 3600.0
"""Threads cannot wait for any number of seconds at once."""


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
    """Ask members at once, each attempt in a thread of its own.

    Args:
        members: Whom to ask.
        request: What to ask.
        limits: The answer that it is for.
        hedges: Whom to ask beside slow members; see `Round`.
        is_decided: Whether what has arrived settles the answer; see `Round`.
        relay: True to pass the text of the only member on while it comes.

    Yields:
        The text, piece by piece, where it is relayed; at the end, always, what came of each member.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    running: dict[Attempt, _Work] = {}
    clock = limits.clock
    asking = Round(
        members,
        request,
        limits,
        on_granted=lambda attempt: events.put(Event(attempt)),
        hedges=hedges,
        is_decided=is_decided,
        in_threads=True,
    )
    try:
        asking.begin()
        while True:
            for attempt in asking.take_stops():
                running[attempt].go_on()
            for attempt in asking.take_starts():
                running[attempt] = _Work(attempt, events.put, relay=relay)
                if attempt.begin():
                    running[attempt].start()
            if asking.is_over:
                break
            event = _next_of(events, _wait_s(asking.wake_at_s, clock))
            text = asking.take(event) if event is not None else None
            if text is not None:
                paused_s = clock()
                yield text
                asking.pause(clock() - paused_s)
                running[event.attempt].go_on()  # type: ignore[union-attr]  # texts come by events
            if events.empty():
                asking.catch_up()
    finally:
        asking.abandon()
        left = [running[attempt] for attempt in asking.take_stops()]  # none, unless the reader has left
        for work in left:
            work.go_on()
        for work in running.values():
            if work.has_ended:
                work.thread.join()  # it has only its place left to give back
            elif relay and work in left and work.thread.is_alive():
                work.thread.join(JOIN_S)
    yield asking.results


def _wait_s(wake_at_s: float | None, clock: Callable[[], float]) -> float | None:
    return None if wake_at_s is None else min(max(wake_at_s - clock(), 0.0), _LONGEST_WAIT_S)


def _next_of(events: SimpleQueue[Event], wait_s: float | None) -> Event | None:
    try:
        return events.get(timeout=wait_s)
    except Empty:
        return None


_END: Any = object()
"""Says that a stream is at its end, which None does not: a member may yield that too."""


class _Work:
    """One attempt in a thread of its own, in a copy of the caller's context.

    A daemon: a member that never ends must not keep the program from ending.
    """

    def __init__(self, attempt: Attempt, post: Callable[[Event], None], *, relay: bool) -> None:
        self._attempt, self._post, self._relay = attempt, post, relay
        self._has_room = threading.Semaphore(0)
        self.has_ended = False
        context = copy_context()
        name = f"rlfocal:{attempt.call.member.name}"
        self.thread = threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True)

    def start(self) -> None:
        """Make the call; where the system has no thread left, that is how the attempt failed."""
        try:
            self.thread.start()
        except RuntimeError as error:
            self._attempt.leave()
            self._post(Event(self._attempt, self._attempt.call.outcome_of(error)))

    def go_on(self) -> None:
        """Say that the reader is back for the next piece, or that nobody waits for the attempt any more."""
        self._has_room.release()

    def _run(self) -> None:
        call = self._attempt.call
        what: Result | BaseException
        try:
            with call.context() as context:
                what = call.candidate(self._read(context) if self._relay else _invoke(call, context))
        except PASSING as error:
            what = error
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            what = call.outcome_of(error)
        self.has_ended = True
        self._post(Event(self._attempt, what))
        self._attempt.leave()  # then who comes next mostly hears of a breaker that opens by this

    def _read(self, context: Context) -> AIMessage:
        """Read the member's stream; it stands still while the reader has the last piece."""
        call, response = self._attempt.call, Response()
        brief, clock = call.brief, call.clock
        chunks: Iterator[AIMessage] = context.run(
            brief.model.stream, brief.messages, call.config, stop=call.request.stop, **brief.kwargs
        )
        try:
            while (chunk := context.run(next, chunks, _END)) is not _END:
                if text := response.add(chunk):
                    paused_s = clock()
                    self._post(Event(self._attempt, text))
                    self._has_room.acquire()
                    if self._attempt.status == "over":
                        raise GeneratorExit
                    call.started_s += clock() - paused_s  # what the consumer takes is not the member's latency
        finally:
            if isinstance(chunks, Generator):
                context.run(chunks.close)
        return response.message


def _invoke(call: Call, context: Context) -> AIMessage:
    brief = call.brief
    return context.run(brief.model.invoke, brief.messages, call.config, stop=call.request.stop, **brief.kwargs)

"""Admission: how many answers are in flight, how long one may take, and when no more are taken.

A full server says so at once, so that clients wait or go elsewhere; nothing is queued. How many answers are too many is measured,
unless it is set: see `Room`. While it drains it takes nothing new and ends
what it has begun; what has not ended in time is broken off, and its client told.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from langchain_rlfocal.execution.limits import BUSY_S
from langchain_rlfocal.server.errors import NO_RETRY, ApiError, retry_after

RETRY_AFTER_S = 1.0
"""When a full server asks clients to come again."""


FIRST_ROOM, LEAST_ROOM = 64, 32
"""How many answers a process works on at first, and at least, where it measures that itself. A loop is also late where other
programs take the processor; fewer answers do not help then."""

PROBE_S = 0.1
"""How often it is measured."""

REST_S = 1.0
"""After fewer answers were let in, what comes of it is waited for."""


class Room:
    """How many answers the event loop keeps up with.

    A loop that is behind turns slowly: what is due is done late. By so much it is measured, as the ensemble does with answers that
    begin (`execution.limits.Admission`), so that the two agree on when a process is busy. Where a wake-up comes more than
    `BUSY_S` late on average, a tenth fewer may be in flight, at most once in `REST_S`; where it does not, and the room is used, a
    fiftieth more. How long members take, and how fast the machine is, need not be known: ten times as many answers of members that take
    ten times as long are in flight.
    """

    def __init__(self) -> None:
        self._most = float(FIRST_ROOM)
        self._late_s = 0.0
        self._rests_until_s = 0.0

    @property
    def most(self) -> int:
        """How many may be in flight."""
        return int(self._most)

    def woke(self, now_s: float, *, late_s: float, in_flight: int) -> None:
        """Take in how late a wake-up came."""
        self._late_s += 0.3 * (late_s - self._late_s)
        if self._late_s > BUSY_S:
            if now_s >= self._rests_until_s:
                self._most = max(float(LEAST_ROOM), 0.9 * min(self._most, in_flight))
                self._rests_until_s = now_s + REST_S
        elif in_flight >= 0.9 * self._most:
            self._most *= 1.02


class Admission:
    """The answers in flight of one process.

    Args:
        most: How many there may be; None for as many as the event loop keeps up with, where `watching` runs.

    Attributes:
        in_flight: How many there are.
        refused: How many were refused so far.
        is_draining: Whether nothing new is taken.
    """

    def __init__(self, most: int | None) -> None:
        self._given, self._room = most, Room()
        self.in_flight = 0
        self.refused = 0
        self.is_draining = False
        self._limits, self._readings = set[asyncio.Timeout](), set[asyncio.Timeout]()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def most(self) -> int:
        """How many answers there may be now."""
        return self._room.most if self._given is None else self._given

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Measure, where nothing is set, how many answers this event loop keeps up with."""
        task = None if self._given is not None else asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + PROBE_S
            await asyncio.sleep(PROBE_S)
            self._room.woke(loop.time(), late_s=loop.time() - due_s, in_flight=self.in_flight)

    @asynccontextmanager
    async def answer(self, *, timeout_s: float | None) -> AsyncIterator[None]:
        """Hold a place for one answer; entered and left by one task, which is broken off when the time is up.

        Args:
            timeout_s: Seconds that it may take; None for any time.

        Raises:
            ApiError: There is no place, or the time is up.
        """
        self.check_room()
        self.in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout_s) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._too_long(timeout_s) from None
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    @asynccontextmanager
    async def reading(self, *, timeout_s: float) -> AsyncIterator[None]:
        """Read a request; at a stop it is broken off with the last answers.

        Raises:
            ApiError: The server stops.
            TimeoutError: The time is up.
        """
        try:
            async with asyncio.timeout(timeout_s) as limit:
                self._readings.add(limit)
                try:
                    yield
                finally:
                    self._readings.discard(limit)
        except TimeoutError:
            if self.is_draining:
                raise self._takes_nothing() from None
            raise

    def check_room(self) -> None:
        """Check that an answer would be taken now, before anything is done for it: a full server has no time to read.

        Raises:
            ApiError: It would not.
        """
        if self.is_draining:
            self.refused += 1
            raise self._takes_nothing()
        if self.in_flight >= self.most:
            self.refused += 1
            raise ApiError(
                429,
                f"The server works on {self.in_flight} answers, as many as it takes. Ask again after the seconds in Retry-After.",
                type="rate_limit_error",
                code="server_busy",
                headers=retry_after(RETRY_AFTER_S),
            )

    def _takes_nothing(self) -> ApiError:
        return _stopping("The server is stopping and takes nothing new. Ask again: another will answer.")

    def _too_long(self, timeout_s: float | None) -> ApiError:
        if self.is_draining:
            return _stopping("The server stopped before the answer was whole. Ask again: another will answer.")
        return ApiError(
            504,
            f"The answer took longer than the {timeout_s:g} s that this server allows. Ask for less, or give "
            "`rlfocal.deadline_s`, after which it answers with what has arrived.",
            type="server_error",
            code="timeout",
            headers=NO_RETRY,
        )

    async def drain(self, within_s: float) -> None:
        """Take nothing new, and wait until what is in flight has ended; after so many seconds it is broken off."""
        self.is_draining = True
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            _expire(self._limits)
            await self._idle.wait()
        _expire(self._readings)


def _expire(limits: Iterable[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for limit in [*limits]:
        if not limit.expired():
            limit.reschedule(now)


def _stopping(message: str) -> ApiError:
    headers = {**retry_after(RETRY_AFTER_S), "Connection": "close"}
    return ApiError(503, message, type="server_error", code="server_stopping", headers=headers)

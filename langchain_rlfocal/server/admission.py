"""Admission: how many answers are in flight, how long one may take, and when no more are taken.

A full server says so at once, so that clients wait or go elsewhere; nothing is queued. While it drains it takes nothing new and ends
what it has begun; what has not ended in time is broken off, and its client told.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langchain_rlfocal.server.errors import ApiError, retry_after

RETRY_AFTER_S = 1.0
"""When a full server asks clients to come again."""


class Admission:
    """The answers in flight of one process.

    Args:
        most: How many there may be.

    Attributes:
        in_flight: How many there are.
        refused: How many were refused so far.
        is_draining: Whether nothing new is taken.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_flight = 0
        self.refused = 0
        self.is_draining = False
        self._limits = set[asyncio.Timeout]()
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def answer(self, *, timeout_s: float | None) -> AsyncIterator[None]:
        """Hold a place for one answer; entered and left by one task, which is broken off when the time is up.

        Args:
            timeout_s: Seconds that it may take; None for any time.

        Raises:
            ApiError: There is no place, or the time is up.
        """
        self._check_room()
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

    def _check_room(self) -> None:
        if self.is_draining:
            self.refused += 1
            raise _stopping("The server is stopping and takes nothing new. Ask again: another will answer.")
        if self.in_flight >= self._most:
            self.refused += 1
            raise ApiError(
                429,
                f"The server works on {self.in_flight} answers, as many as it takes. Ask again after the seconds in Retry-After.",
                type="rate_limit_error",
                code="server_busy",
                headers=retry_after(RETRY_AFTER_S),
            )

    def _too_long(self, timeout_s: float | None) -> ApiError:
        if self.is_draining:
            return _stopping("The server stopped before the answer was whole. Ask again: another will answer.")
        return ApiError(
            504,
            f"The answer took longer than the {timeout_s:g} s that this server allows. Ask for less, or give "
            "`rlfocal.deadline_s`, after which it answers with what has arrived.",
            type="server_error",
            code="timeout",
        )

    async def drain(self, within_s: float) -> None:
        """Take nothing new, and wait until what is in flight has ended; after so many seconds it is broken off."""
        self.is_draining = True
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            now = asyncio.get_running_loop().time()
            for limit in [*self._limits]:
                if not limit.expired():
                    limit.reschedule(now)
            await self._idle.wait()


def _stopping(message: str) -> ApiError:
    headers = {**retry_after(RETRY_AFTER_S), "Connection": "close"}
    return ApiError(503, message, type="server_error", code="server_stopping", headers=headers)

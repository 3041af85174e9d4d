"""Admission: how many answers are in flight, and when no more are taken.

A full server says so at once, so that clients go elsewhere or wait; nothing is queued. While it drains it takes nothing new, and ends
what it has begun.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from langchain_rlfocal.server.errors import ApiError, retry_after

RETRY_AFTER_S = 1.0
"""When a full server asks clients to come again: an answer takes about so long."""


class Admission:
    """Counts the answers in flight of one process.

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
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Take one more answer; `leave` must follow.

        Raises:
            ApiError: There are too many, or the server drains.
        """
        if self.is_draining:
            self.refused += 1
            raise ApiError(
                503,
                "The server is stopping and takes nothing new. Ask again; another will answer.",
                type="server_error",
                code="draining",
                headers={**retry_after(RETRY_AFTER_S), "Connection": "close"},
            )
        if self.in_flight >= self._most:
            self.refused += 1
            raise ApiError(
                429,
                f"The server works on {self.in_flight} answers, as many as it takes. Ask again after the seconds in Retry-After.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                headers=retry_after(RETRY_AFTER_S),
            )
        self.in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """End an answer."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    @contextmanager
    def answer(self) -> Iterator[None]:
        """Hold a place for one answer.

        Raises:
            ApiError: There is none.
        """
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def drained(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

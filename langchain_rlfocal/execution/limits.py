"""Limits: how many calls may run at once, of each member and of all together.

A call waits for its member's turn first and for a place among all second, so that one busy member does not keep the
others from theirs. Threads share one count; each event loop has its own, since asyncio's semaphores belong to one. It
counts what runs and nothing else: no rates, no money.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary


class CallLimits:
    """Counts the calls that run, and makes one more wait where that would be too many.

    Whoever has one can have one with other caps, the same for the same caps. Pickles and deep copies begin at zero.

    Args:
        total: How many calls may run at once, of all members together; None for any number.
        per_member: How many calls of one member may run at once; members not named may have any number.
    """

    def __init__(self, total: int | None = None, per_member: Mapping[str, int] | None = None) -> None:
        self.total, self.per_member = total, dict(per_member or {})
        self._threads = {name: threading.BoundedSemaphore(count) for name, count in self._counts() if count is not None}
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str | None, asyncio.Semaphore]] = (
            WeakKeyDictionary()
        )
        self._guard = threading.Lock()
        self._family: dict[Any, CallLimits] = {self._key: self}
        self._family_guard = threading.Lock()

    @property
    def _key(self) -> Any:
        return self.total, tuple(sorted(self.per_member.items()))

    def with_caps(self, total: int | None, per_member: Mapping[str, int]) -> "CallLimits":
        """Return the count for other caps, which all that stem from the same one share."""
        if (total, per_member) == (self.total, self.per_member):
            return self
        other = CallLimits(total, per_member)
        with self._family_guard:
            other._family, other._family_guard = self._family, self._family_guard
            return self._family.setdefault(other._key, other)

    def _counts(self) -> list[tuple[str | None, int | None]]:
        return [*self.per_member.items(), (None, self.total)]

    @contextmanager
    def held(self, member: str) -> Generator[None]:
        """Hold a place for one call of a member, in this thread."""
        places = [self._threads[name] for name in (member, None) if name in self._threads]
        held: list[threading.BoundedSemaphore] = []
        try:
            for place in places:
                place.acquire()
                held.append(place)
            yield
        finally:
            for place in held:
                place.release()

    @asynccontextmanager
    async def aheld(self, member: str) -> AsyncGenerator[None]:
        """Hold a place for one call of a member, in this event loop."""
        semaphores = self._of_loop(asyncio.get_running_loop())
        places = [semaphores[name] for name in (member, None) if name in semaphores]
        held: list[asyncio.Semaphore] = []
        try:
            for place in places:
                await place.acquire()
                held.append(place)
            yield
        finally:
            for place in held:
                place.release()

    def _of_loop(self, loop: asyncio.AbstractEventLoop) -> dict[str | None, asyncio.Semaphore]:
        with self._guard:  # several threads may each run a loop
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]  # a semaphore that somebody waited for holds on to its loop
            if loop not in self._loops:
                self._loops[loop] = {
                    name: asyncio.Semaphore(count) for name, count in self._counts() if count is not None
                }
            return self._loops[loop]

    def __reduce__(self) -> tuple[type["CallLimits"], tuple[Any, ...]]:
        return type(self), (self.total, self.per_member)

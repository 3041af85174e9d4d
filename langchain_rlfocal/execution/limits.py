"""Limits: how many calls may run at once, of each member and of all together.

One count for the process: threads and event loops alike ask it for a place, and it says when there is one by calling
them back, so that it waits nowhere itself. Caps come with each request, since copies of a model share the count and may
be configured apart. A cap bounds what its own request is added to, not what others with a higher one add afterwards.

Places are given in the order in which they were asked for, with one exception:

- A member's requests go first come, first served: one with a higher cap does not overtake one with a lower.
- A request whose member has no place by its own cap stands aside: it holds up later ones of that member only.
- A request that waits for nothing but the total holds up everyone behind it, also those whose own total is higher. Else
  these would keep the total up, and it would wait for ever.

A call that nobody waits for any more keeps its place until it has ended, or until a time that is said for it: one that never
ends must not have others wait for ever.

So nobody starves: while the first of a member's line stands aside, what runs of that member only falls; while a request
waits for the total, what runs in all only falls once those before it have gone. The price is that a low total on one
copy holds back the others while it waits.

It counts what runs and nothing else: no rates, no money. It reads no clock.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Self

from langchain_rlfocal.errors import InputError


class Shared:
    """Base of state that copies of a model share: a copy is the same object, a pickle one that begins anew."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


@dataclass(slots=True, eq=False)
class _Request:
    """One call's request for a place; an absent cap is infinite here."""

    number: int
    member: str
    total: float
    of_member: float
    on_granted: Callable[[], None]
    on_news: Callable[[], None]
    stage: Literal["waiting", "running", "over"] = "waiting"
    expires_s: float = math.inf


class Place:
    """A call's place, or its request for one while that still waits; made by `CallLimits.request`."""

    __slots__ = ("_expire", "_request", "_withdraw")

    def __init__(
        self, request: _Request, withdraw: Callable[[_Request], None], expire: Callable[[_Request, float], None]
    ) -> None:
        self._request, self._withdraw, self._expire = request, withdraw, expire

    def leave(self) -> None:
        """Give the place back, or withdraw the request that still waits; later calls have no effect.

        Calls back whoever gets a place by it. A request that is withdrawn is not called back any more, unless another
        thread is granting it in this very moment.
        """
        self._withdraw(self._request)

    @property
    def is_held(self) -> bool:
        """True while the call has its place."""
        return self._request.stage == "running"

    def leave_by(self, at_s: float) -> None:
        """Have `CallLimits.expire` give the place back from then on, if it has not been given back before.

        Tells those who are next in line, who may then wait until `CallLimits.expires_s` instead of for ever.
        """
        self._expire(self._request, at_s)


class CallLimits(Shared):
    """Counts the calls that run, of each member and of all, and makes one more wait where that would be too many.

    Copies are the same count; a pickle begins at zero.
    """

    def __init__(self) -> None:
        # Reentrant: a stream that nobody reads any more is closed by whatever thread allocates next, also within these.
        self._lock = threading.RLock()
        self._numbers = count()
        self._running: dict[str, int] = {}
        self._lines: dict[str, OrderedDict[int, _Request]] = {}
        self._expiring: dict[int, _Request] = {}

    @property
    def running(self) -> Mapping[str, int]:
        """How many calls of each member run now, members without one left out; a copy."""
        with self._lock:
            return dict(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        with self._lock:
            return sum(map(len, self._lines.values()))

    @property
    def expires_s(self) -> float:
        """When the next place is to be given back by `expire`; infinite if none is."""
        with self._lock:
            return min((request.expires_s for request in self._expiring.values()), default=math.inf)

    def expire(self, now_s: float) -> None:
        """Give back the places whose time is over, and hand them on."""
        with self._lock:
            due = [request for request in self._expiring.values() if request.expires_s <= now_s]
            for request in due:
                self._end(request)
        if due:
            self._hand_out()

    def request(
        self,
        member: str,
        *,
        on_granted: Callable[[], None],
        on_news: Callable[[], None] = lambda: None,
        total: int | None = None,
        of_member: int | None = None,
    ) -> Place:
        """Ask for a place for one call.

        Args:
            member: Whose call it is.
            on_granted: Called once when the call may run, before this returns if there is room now, else from whichever
                thread frees a place: it should do no more than wake who waits. If it raises, the place goes to the next
                in line.
            on_news: Called, from any thread, when `expires_s` has changed while it is the next of its member's line.
            total: How many calls of all members may run, this one included; None for any number.
            of_member: The same of this member.

        Raises:
            InputError: A cap is below 1, so that the call could never run.
            Exception: What an `on_granted` raised, unless that is a RuntimeError: so says an event loop that is closed,
                where nobody waits any more.
        """
        for name, cap in (("total", total), ("of_member", of_member)):
            if cap is not None and cap < 1:
                raise InputError(f"`{name}` must be at least 1, got {cap}. Give None for any number.")
        with self._lock:
            request = _Request(
                next(self._numbers),
                member,
                total=math.inf if total is None else total,
                of_member=math.inf if of_member is None else of_member,
                on_granted=on_granted,
                on_news=on_news,
            )
            self._lines.setdefault(member, OrderedDict())[request.number] = request
        try:
            self._hand_out()
        except BaseException:
            self._withdraw(request)  # nobody else could
            raise
        return Place(request, self._withdraw, self._note_expiry)

    def _note_expiry(self, request: _Request, at_s: float) -> None:
        with self._lock:
            if request.stage != "running":
                return
            request.expires_s = at_s
            self._expiring[request.number] = request
            firsts = [next(iter(line.values())) for line in self._lines.values()]
        for first in firsts:
            with suppress(RuntimeError):  # so says an event loop that is closed
                first.on_news()

    def _withdraw(self, request: _Request) -> None:
        self._end(request)
        self._hand_out()

    def _end(self, request: _Request) -> None:
        with self._lock:
            member = request.member
            if request.stage == "waiting":
                self._leave_line(request)
            elif request.stage == "running":
                self._running[member] -= 1
                if not self._running[member]:
                    del self._running[member]
            request.stage = "over"
            self._expiring.pop(request.number, None)

    def _leave_line(self, request: _Request) -> None:
        line = self._lines[request.member]
        del line[request.number]
        if not line:
            del self._lines[request.member]

    def _hand_out(self) -> None:
        """Grant, one by one, whatever can be granted now."""
        error: BaseException | None = None
        while (request := self._granted()) is not None:
            try:
                request.on_granted()
            except BaseException as raised:  # noqa: BLE001  # whatever it is, those in line must have the place first
                self._end(request)
                if error is None and not isinstance(raised, RuntimeError):
                    error = raised
        if error is not None:
            raise error

    def _granted(self) -> _Request | None:
        """Give the next in line a place; None if nobody can have one."""
        with self._lock:
            # Looks at the first of each line only, so that a long line costs no more than a short one.
            firsts = [next(iter(line.values())) for line in self._lines.values()]
            able = [first for first in firsts if self._running.get(first.member, 0) < first.of_member]
            request = min(able, key=lambda first: first.number, default=None)
            if request is None or sum(self._running.values()) >= request.total:
                return None
            if request.stage != "waiting":  # one that left within these lines has had it granted
                return self._granted()
            self._leave_line(request)
            self._running[request.member] = self._running.get(request.member, 0) + 1
            request.stage = "running"
            return request

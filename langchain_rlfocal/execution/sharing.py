"""Sharing: what all answers of a model share, in one process or, by a store, in several.

Here everybody asks first. What a store does not answer is decided here, by this process's own part.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from langchain_rlfocal.execution.budgets import Ledger
from langchain_rlfocal.execution.limits import (
    Admission,
    Breakers,
    ConcurrencyLimiter,
    Latencies,
    Rates,
    RetryBudget,
    Shared,
    check_rate,
)
from langchain_rlfocal.execution.sessions import Sessions
from langchain_rlfocal.execution.store import RedisStore, StorePlace
from langchain_rlfocal.policies.targets import Controllers

Clock = Callable[[], float]

MAX_VALUES = 4096
"""How many values with a time to live are kept in a process; those that were put first are forgotten first."""

_log = logging.getLogger(__name__)


class Fingerprints(Shared):
    """What members call themselves in their replies, as far as they do: the version of a model behind its name.

    Attributes:
        first: What members called themselves first in this process.
        latest: What they called themselves last.
    """

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.latest: dict[str, str] = {}
        self._warned: set[str] = set()

    def see(self, member: str, name: str | None) -> None:
        """Note what a member calls itself."""
        if name is not None:
            self.first.setdefault(member, name)
            self.latest[member] = name

    def warn_once(self, line: str) -> None:
        """Log a warning, the first time that it is given."""
        if line not in self._warned:
            self._warned.add(line)
            _log.warning(line)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How what answers share is kept.

    Attributes:
        kind: `"memory"`: by this process alone; `"redis"`: by a Redis or Valkey server, for all that name it.
        is_lost: True while the server does not answer, so that each process keeps to its own share.
        lost_for_s: For how many seconds it has not.
        workers: How many processes share it, this one included, as far as was last known.
    """

    kind: Literal["memory", "redis"] = "memory"
    is_lost: bool = False
    lost_for_s: float = 0.0
    workers: int = 1


class Values:
    """Small values with a time to live, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def put(self, key: str, value: bytes, *, until_s: float) -> None:
        """Keep a value until a time."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value, until_s
            while len(self._values) > MAX_VALUES:
                self._values.popitem(last=False)

    def get(self, key: str, *, now_s: float) -> bytes | None:
        """Return a value; None where there is none, or none any more."""
        with self._lock:
            value, until_s = self._values.get(key, (None, 0.0))
            return value if now_s < until_s else None


class SharedState(Shared):
    """What all copies of a model share: in one process, or, by a store, in all that name it.

    In one process a pickle carries what was spent, and nothing else; with a store it carries the store's URL and connects again.

    Args:
        ledger: What was spent; None for nothing yet.
        accounts: The same of named accounts.
        place: Where the store is; None for none.
        clock: Gives seconds.

    Attributes:
        limiter: Calls that run or wait for a slot.
        breakers: Circuit breakers of members.
        latencies: How long members took lately.
        ledger: What was spent.
        controllers: What queries within targets took.
        fingerprints: What members call themselves.
        admission: Answers that begin, or wait for their beginning.
        retry_budget: How many retries and hedges are allowed under overload.
        sessions: What members hold of conversations.
        store: The connection to what processes share; None where nothing is shared with others.

    Raises:
        MissingDependencyError: There is a store, and its client is not installed.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        accounts: Mapping[str, Ledger] | None = None,
        *,
        place: StorePlace | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.limiter, self.breakers, self.latencies = ConcurrencyLimiter(), Breakers(), Latencies()
        self.admission, self.retry_budget = Admission(), RetryBudget()
        self.controllers, self.fingerprints = Controllers(), Fingerprints()
        self.sessions = Sessions()
        self.ledger = ledger or Ledger()
        self.store: RedisStore | None = None
        self._accounts, self._clock = dict(accounts or {}), clock
        self._rates, self._values = Rates(), Values()
        if place is not None:
            self.store = RedisStore(place, clock=clock, breakers=self.breakers, controllers=self.controllers)
            self.ledger = self.store.ledger("model", "budget")

    @classmethod
    def at(cls, url: str) -> "SharedState":
        """Return what processes share by a Redis or Valkey server; in one process the same for one URL.

        It does not wait for the server, which may come later.

        Args:
            url: Such as `redis://127.0.0.1:6379/0?namespace=prod`, also rediss://, valkey:// and unix://. Who gives the same namespace
                shares. Other options: `timeout_s`, `lease_s`, `workers`; see docs/how-to/share-state.md.

        Raises:
            InputError: It is no such URL.
            MissingDependencyError: The client is not installed.
        """
        place = StorePlace.of(url)
        with _opening:
            shared = _opened.get(url)
            if shared is None:
                shared = _opened[url] = cls(place=place)
                shared._url = url
            return shared

    _url: str | None = None

    def close(self) -> None:
        """Leave the store, where there is one: others need not wait to miss this process. It is as if it were lost afterwards."""
        if self.store is not None:
            with _opening:
                if self._url is not None and _opened.get(self._url) is self:
                    del _opened[self._url]
            self.store.close()

    @property
    def status(self) -> StoreStatus:
        """How this is kept."""
        store = self.store
        if store is None:
            return StoreStatus()
        return StoreStatus("redis", store.is_lost, store.lost_for_s, store.num_workers)

    def ledger_for(self, name: str, *, keep_s: float | None = None) -> Ledger:
        """Return what was spent on an account; see `Account`."""
        if self.store is not None:
            return self.store.ledger(f"account:{name}", f"account {name}", keep_s=keep_s)
        return self._accounts.get(name) or self._accounts.setdefault(name, Ledger(name=f"account {name}"))

    def reset_breakers(self, member: str | None = None) -> None:
        """Close the circuit breaker of a member, or all of them."""
        self.breakers.reset(member)
        if self.store is not None:
            self.store.reset_breakers(member)

    # ---- rates

    def take(self, name: str, *, per_minute: float, burst: int = 1) -> float:
        """Take a turn of a rate limit, if there is one now.

        Args:
            name: What is limited.
            per_minute: How many turns there are in a minute, one after the other.
            burst: How many can be taken at once after a pause.

        Returns:
            0.0 if it is taken, else the seconds until one can be.

        Raises:
            InputError: The rate is not above 0, or the burst below 1.
        """
        check_rate(per_minute, burst)
        if self.store is not None:
            asked: Asked[float | None] = Asked()
            self.store.take(name, 60 / per_minute, burst, asked.tell)
            if (wait_s := asked.wait(self._patience_s)) is not None:
                return wait_s
        return self._take_here(name, per_minute, burst)

    async def atake(self, name: str, *, per_minute: float, burst: int = 1) -> float:
        """Take a turn of a rate limit; see `take`."""
        check_rate(per_minute, burst)
        if self.store is not None:
            asked: AsyncAsked[float | None] = AsyncAsked()
            self.store.take(name, 60 / per_minute, burst, asked.tell)
            if (wait_s := await asked.wait(self._patience_s)) is not None:
                return wait_s
        return self._take_here(name, per_minute, burst)

    def _take_here(self, name: str, per_minute: float, burst: int) -> float:
        """Take a turn of this process's own part."""
        parts = 1 if self.store is None else self.store.num_workers
        return self._rates.take(name, self._clock(), per_minute=per_minute / parts, burst=max(burst // parts, 1))

    # ---- small values

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a small value for so many seconds."""
        self._put_here(key, value, ttl_s)
        if self.store is not None:
            asked: Asked[Any] = Asked()
            self.store.put(key, value, ttl_s, asked.tell)
            asked.wait(self._patience_s)

    async def aput(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a small value; see `put`."""
        self._put_here(key, value, ttl_s)
        if self.store is not None:
            asked: AsyncAsked[Any] = AsyncAsked()
            self.store.put(key, value, ttl_s, asked.tell)
            await asked.wait(self._patience_s)

    def get(self, key: str) -> bytes | None:
        """Return a value that was put; None where its time is over, or there is none.

        While a store is lost, only what this process has put is found.
        """
        if self.store is not None:
            asked: Asked[tuple[bytes | None] | None] = Asked()
            self.store.get(key, asked.tell)
            if (found := asked.wait(self._patience_s)) is not None:
                return found[0]
        return self._values.get(key, now_s=self._clock())

    async def aget(self, key: str) -> bytes | None:
        """Return a value that was put; see `get`."""
        if self.store is not None:
            asked: AsyncAsked[tuple[bytes | None] | None] = AsyncAsked()
            self.store.get(key, asked.tell)
            if (found := await asked.wait(self._patience_s)) is not None:
                return found[0]
        return self._values.get(key, now_s=self._clock())

    def _put_here(self, key: str, value: bytes, ttl_s: float) -> None:
        self._values.put(key, value, until_s=self._clock() + ttl_s)

    @property
    def _patience_s(self) -> float:
        """How long a store is waited for: it is lost after its time-out, and a command may come behind one that waits as long."""
        return 1.0 if self.store is None else 4 * self.store.place.timeout_s

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is not None:
            return SharedState.at, (self._url,)
        return type(self), (self.ledger, self._accounts)


_opening = threading.Lock()
_opened: dict[str, SharedState] = {}

T = TypeVar("T")


class Asked(Generic[T]):
    """An answer that this thread waits for; it is told by another."""

    def __init__(self) -> None:
        self._is_told = threading.Event()
        self._answer: T | None = None

    def tell(self, answer: T) -> None:
        """Say what the answer is."""
        self._answer = answer
        self._is_told.set()

    def wait(self, most_s: float) -> T | None:
        """Wait for it; None where it takes longer than this."""
        self._is_told.wait(most_s)
        return self._answer


class AsyncAsked(Generic[T]):
    """An answer that this task waits for; it is told by a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[T] = self._loop.create_future()

    def tell(self, answer: T) -> None:
        """Say what the answer is."""
        with suppress(RuntimeError):  # so says an event loop that is closed
            self._loop.call_soon_threadsafe(self._set, answer)

    def _set(self, answer: T) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    async def wait(self, most_s: float) -> T | None:
        """Wait for it; None where it takes longer than this."""
        try:
            async with asyncio.timeout(most_s):
                return await self._answer
        except TimeoutError:
            return None

"""Sharing: what all answers of a model share, in one process."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_rlfocal.execution.budgets import Ledger
from langchain_rlfocal.execution.limits import (
    Admission,
    Breakers,
    ConcurrencyLimiter,
    Latencies,
    Rates,
    RetryBudget,
    Shared,
)
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
    """What all copies of a model share while they run in one process; a pickle carries what was spent, and nothing else.

    Args:
        ledger: What was spent; None for nothing yet.
        accounts: The same of named accounts.
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
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        accounts: Mapping[str, Ledger] | None = None,
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.limiter, self.breakers, self.latencies = ConcurrencyLimiter(), Breakers(), Latencies()
        self.admission, self.retry_budget = Admission(), RetryBudget()
        self.controllers, self.fingerprints = Controllers(), Fingerprints()
        self.ledger = ledger or Ledger()
        self._accounts, self._clock = dict(accounts or {}), clock
        self._rates, self._values = Rates(), Values()

    @property
    def status(self) -> StoreStatus:
        """How this is kept."""
        return StoreStatus()

    def ledger_for(self, name: str) -> Ledger:
        """Return what was spent on an account; see `Account`."""
        return self._accounts.get(name) or self._accounts.setdefault(name, Ledger(name=f"account {name}"))

    def take(self, name: str, *, per_minute: float, burst: int = 1) -> float:
        """Take a turn of a rate limit, if there is one now.

        Args:
            name: What is limited.
            per_minute: How many turns there are in a minute, one after the other.
            burst: How many can be taken at once after a pause.

        Returns:
            0.0 if it is taken, else the seconds until one can be.
        """
        return self._rates.take(name, self._clock(), per_minute=per_minute, burst=burst)

    async def atake(self, name: str, *, per_minute: float, burst: int = 1) -> float:
        """Take a turn of a rate limit; see `take`."""
        return self.take(name, per_minute=per_minute, burst=burst)

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a small value for so many seconds."""
        self._values.put(key, value, until_s=self._clock() + ttl_s)

    async def aput(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a small value; see `put`."""
        self.put(key, value, ttl_s)

    def get(self, key: str) -> bytes | None:
        """Return a value that was put; None where its time is over, or there is none."""
        return self._values.get(key, now_s=self._clock())

    async def aget(self, key: str) -> bytes | None:
        """Return a value that was put; see `get`."""
        return self.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ledger, self._accounts)

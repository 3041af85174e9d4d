"""Breakers: a member that failed several times in a row rests, then one call probes whether it is back.

A breaker is closed while its member works, open while it rests, and half open from then on until a probe, one at a
time, has succeeded or failed. Every call takes a permit and reports its end to it. Results count in the period in which
their call was admitted: what was under way when the breaker opened, or was reset, says nothing of the member since.

It calls nobody, reads no clock, and does not judge which failures speak of a member's health: whoever holds a permit
does. A permit that is never reported to keeps its probe, so reporting belongs in a `finally`.
"""

import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.limits import Shared


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a breaker opens, and for how long.

    Attributes:
        failures: How many failures in a row open it; of calls that run side by side one counts.
        recovery_s: Seconds until a probe is let through.

    Raises:
        InputError: A value is outside its range.
    """

    failures: int = 5
    recovery_s: float = 30.0

    def __post_init__(self) -> None:
        failures, recovery_s = self.failures, self.recovery_s
        if isinstance(failures, bool) or not isinstance(failures, int) or failures < 1:
            raise InputError(
                f"`failures` must be a whole number of at least 1, got {failures!r}. 1 opens at the first failure."
            )
        if (
            isinstance(recovery_s, bool)
            or not isinstance(recovery_s, int | float)
            or not 0 < recovery_s <= sys.float_info.max
        ):
            raise InputError(
                f"`recovery_s` must be a finite number of seconds above 0, got {recovery_s!r}. Give for example 30."
            )


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A member's breaker at one time.

    Attributes:
        state: `"closed"`: calls pass; `"open"`: none does; `"half_open"`: one at a time does, as a probe.
        failures: How many calls that count failed in a row.
        retry_in_s: Seconds until a probe is let through, 0 unless open.
    """

    state: Literal["closed", "open", "half_open"]
    failures: int
    retry_in_s: float

    @property
    def reason(self) -> str:
        """Why a call is not let through, for a person."""
        probe = f"next probe in {self.retry_in_s:.0f} s" if self.state == "open" else "a probe is under way"
        return f"circuit breaker open after {self.failures} consecutive failures; {probe}"


@dataclass(slots=True, eq=False)
class _Period:
    """From one opening or reset of a breaker to the next: a new object each, so that late results have no target."""

    failures: int = 0
    num_heard: int = 0  # failures since it began, which no success takes back
    open_until_s: float | None = None  # None where closed
    is_probed: bool = False


class Permit:
    """One call's leave to run; made by `Breakers.admit`. The first report has an effect, later ones none."""

    __slots__ = ("_is_spent", "_lock", "_member", "_num_heard", "_period", "_periods")

    def __init__(self, lock: AbstractContextManager[Any], periods: dict[str, _Period], member: str) -> None:
        self._lock, self._periods, self._member = lock, periods, member
        self._period = periods[member]
        self._num_heard = self._period.num_heard
        self._is_spent = False

    def succeed(self) -> None:
        """Report an answer: closes the breaker and counts failures from zero."""
        with self._lock:
            if self._spend():
                self._period.failures = 0
                self._period.open_until_s = None
                self._period.is_probed = False

    def fail(self, now: float, rule: BreakerConfig) -> None:
        """Report a failure: opens the breaker if it was a probe, or one too many in a row.

        It counts only if no other was heard of since the call was admitted: hundreds of calls that meet the same moment's
        trouble are one sign of it, not hundreds.

        Args:
            now: Seconds on the clock that `admit` is given.
            rule: How many are too many, and how long the breaker stays open.
        """
        with self._lock:
            period = self._period
            if self._spend() and self._num_heard == period.num_heard:
                period.failures += 1
                period.num_heard += 1
                if period.is_probed or period.failures >= rule.failures:
                    self._periods[self._member] = _Period(period.failures, open_until_s=now + rule.recovery_s)

    def drop(self) -> None:
        """Report neither: the call was cancelled, or its end says nothing of the member; another may probe instead."""
        with self._lock:
            if self._spend():
                self._period.is_probed = False

    def _spend(self) -> bool:
        """Tell whether the report counts, and let no later one count; the lock is held."""
        counts = not self._is_spent and self._periods.get(self._member) is self._period
        self._is_spent = True
        return counts


class Breakers(Shared):
    """One circuit breaker per member.

    Copies are the same breakers; a pickle begins with all of them closed. Times are seconds on one monotonic clock.
    """

    def __init__(self) -> None:
        # Reentrant: a stream that nobody reads any more is closed by whatever thread allocates next, also within these.
        self._lock = threading.RLock()
        self._periods: dict[str, _Period] = {}

    def is_open(self, member: str, now: float) -> bool:
        """Tell whether to treat the member as absent: it rests, or its probe is under way."""
        with self._lock:
            period = self._periods.get(member)
            return period is not None and not _lets_through(period, now)

    def admit(self, member: str, now: float) -> Permit | None:
        """Let one call of a member run, as its probe if the breaker is half open; None if none may run now."""
        with self._lock:
            period = self._periods.setdefault(member, _Period())
            if not _lets_through(period, now):
                return None
            if period.open_until_s is not None:
                period.is_probed = True
            return Permit(self._lock, self._periods, member)

    def state(self, member: str, now: float) -> BreakerState:
        """Return the breaker of one member."""
        with self._lock:
            return _state_of(self._periods.get(member) or _Period(), now)

    def states(self, now: float) -> dict[str, BreakerState]:
        """Return the breaker of every member, but for those that are closed and whose last call did not fail."""
        with self._lock:
            return {
                member: _state_of(period, now)
                for member, period in list(self._periods.items())
                if period.failures or period.open_until_s is not None
            }

    def reset(self, member: str | None = None) -> None:
        """Close the breaker of a member, or all of them; results of calls admitted before do not count."""
        with self._lock:
            if member is None:
                self._periods.clear()
            else:
                self._periods.pop(member, None)


def _lets_through(period: _Period, now: float) -> bool:
    return period.open_until_s is None or (now >= period.open_until_s and not period.is_probed)


def _state_of(period: _Period, now: float) -> BreakerState:
    if period.open_until_s is None:
        return BreakerState("closed", period.failures, 0.0)
    retry_in_s = max(period.open_until_s - now, 0.0)
    return BreakerState("open" if retry_in_s else "half_open", period.failures, retry_in_s)

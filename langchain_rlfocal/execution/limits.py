"""Limits that all answers of a model share: calls at once, circuit breakers, usual latencies, and overload.

Threads and event loops alike use them. None of them reads a clock, starts a thread or waits: times are arguments, seconds on
one monotonic clock, and whoever has to wait is called back.
"""

import math
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Self

from langchain_rlfocal.errors import InputError


class Shared:
    """Base of state that copies of a model share: a copy is the same object, a pickle is a new one."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def check_number(name: str, value: Any, *, least: float = 0, whole: bool = False, positive: bool = False) -> None:
    """Check that a setting is a finite number in its range.

    Raises:
        InputError: It is not.
    """
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= sys.float_info.max or (positive and value == 0):
        kind, bound = (
            "a whole number" if whole else "a finite number",
            "above 0" if positive else f"of at least {least}",
        )
        raise InputError(f"`{name}` must be {kind} {bound}, got {value!r}.")


ROUNDING_S = 1e-9
"""Who comes back after just the seconds that it was told may have been told a rounding error too few."""


# ---- calls at once


@dataclass(slots=True, eq=False)
class Slot:
    """One call's place among those that run, or its request for one; made by `ConcurrencyLimiter.acquire`."""

    number: int
    member: str
    total: float
    of_member: float
    each_s: float
    on_granted: Callable[[], None] | None
    limiter: "ConcurrencyLimiter"
    state: Literal["waiting", "held", "released"] = "waiting"

    @property
    def is_held(self) -> bool:
        """True while the call may run."""
        return self.state == "held"

    def release(self, now_s: float | None = None) -> None:
        """Give the slot back, or stop waiting for it; only the first time has an effect."""
        self.limiter.release(self, now_s)


class ConcurrencyLimiter(Shared):
    """Counts the calls that run, of each member and of all, and makes one more wait where that would be too many, or too soon.

    Caps come with each request, since copies of a model may differ in them. Slots are given in the order of the requests, but
    a request whose member is full stands aside and holds up its own member's line only. One that waits for nothing but the
    total holds up everyone behind it, so that it cannot be overtaken without end.

    A member that may be called so many times a minute is full until its next turn, one each `each_s` seconds. Nobody is told by the
    passing of time alone: who waits asks again at `turn_at_s`, by `grant`.
    """

    def __init__(self) -> None:
        # Reentrant: a stream that nobody reads any more is closed by whichever thread allocates next, also within these lines.
        self._lock = threading.RLock()
        self._numbers = count()
        self._running: dict[str, int] = {}
        self._num_running = 0
        self._lines: dict[str, OrderedDict[int, Slot]] = {}
        self._turn_s: dict[str, float] = {}  # of each member, when its next turn is
        self._now_s = -math.inf

    @property
    def running(self) -> Mapping[str, int]:
        """How many calls of each member run, as a copy; members without any are left out."""
        with self._lock:
            return dict(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._lock:
            return sum(map(len, self._lines.values()))

    def acquire(
        self,
        member: str,
        *,
        on_granted: Callable[[], None],
        total: int | None = None,
        of_member: int | None = None,
        per_minute: float | None = None,
        now_s: float | None = None,
    ) -> Slot:
        """Ask for a slot for one call.

        Args:
            member: Whose call it is.
            on_granted: Called, from any thread, when the call may run, if it had to wait. It should only wake who waits; a
                RuntimeError, as of an event loop that is closed, passes the slot on.
            total: How many calls of all members may run, this one included; None for any number.
            of_member: The same of this member.
            per_minute: How many calls of this member may begin in a minute, one after the other; None for any number.
            now_s: The time; None for the last that was told.

        Raises:
            InputError: A cap is below 1, so that the call could never run.
        """
        for name, cap in (("total", total), ("of_member", of_member)):
            if cap is not None and cap < 1:
                raise InputError(f"`{name}` must be at least 1, got {cap}. Give None for any number.")
        each_s = 0.0 if per_minute is None else 60 / per_minute
        slot = Slot(next(self._numbers), member, total or math.inf, of_member or math.inf, each_s, None, self)
        with self._lock:
            self._see(now_s)
            if not self._lines and self._has_room(slot):
                self._hold(slot)
                return slot
            slot.on_granted = on_granted
            self._lines.setdefault(member, OrderedDict())[slot.number] = slot
        self._hand_out(asking=slot)
        return slot

    def turn_at_s(self, slot: Slot) -> float:
        """Return when the turn of a request that waits is, as far as those before it take theirs; infinite where it needs none."""
        with self._lock:
            if slot.state != "waiting" or not slot.each_s:
                return math.inf
            place = list(self._lines[slot.member]).index(slot.number)
            return self._turn_s.get(slot.member, -math.inf) + place * slot.each_s

    def grant(self, now_s: float) -> None:
        """Grant what can be granted now."""
        with self._lock:
            self._see(now_s)
        self._hand_out()

    def _see(self, now_s: float | None) -> None:
        if now_s is not None:
            self._now_s = max(self._now_s, now_s)

    def release(self, slot: Slot, now_s: float | None = None) -> None:
        """Give a slot back, or take its request out of the line, and grant what can be granted now."""
        if slot.state != "released":
            with self._lock:
                self._see(now_s)
            self._free(slot)
            if self._lines:
                self._hand_out()

    def _hand_out(self, asking: Slot | None = None) -> None:
        """Grant what can be granted now, and call back all but the one who asks."""
        while (granted := self._grant_next()) is not None:
            tell, granted.on_granted = granted.on_granted, None
            if granted is not asking and tell is not None:
                try:
                    tell()
                except RuntimeError:
                    self._free(granted)

    def _free(self, slot: Slot) -> None:
        with self._lock:
            if slot.state == "held":
                self._num_running -= 1
                self._running[slot.member] -= 1
                if not self._running[slot.member]:
                    del self._running[slot.member]
            elif slot.state == "waiting":
                self._leave_line(slot)
            slot.state, slot.on_granted = "released", None

    def _has_room(self, slot: Slot) -> bool:
        return self._num_running < slot.total and self._is_able(slot)

    def _is_able(self, slot: Slot) -> bool:
        """Tell whether a request's member is neither full nor before its next turn."""
        if slot.each_s and self._turn_s.get(slot.member, -math.inf) > self._now_s + ROUNDING_S:
            return False
        return self._running.get(slot.member, 0) < slot.of_member

    def _hold(self, slot: Slot) -> None:
        if slot.each_s:
            self._turn_s[slot.member] = max(self._turn_s.get(slot.member, -math.inf), self._now_s) + slot.each_s
        self._num_running += 1
        self._running[slot.member] = self._running.get(slot.member, 0) + 1
        slot.state = "held"

    def _leave_line(self, slot: Slot) -> None:
        line = self._lines[slot.member]
        del line[slot.number]
        if not line:
            del self._lines[slot.member]

    def _grant_next(self) -> Slot | None:
        """Grant the next request; None where none can be granted. Looks at the first of each member's line only."""
        with self._lock:
            firsts = (next(iter(line.values())) for line in self._lines.values())
            able = [first for first in firsts if self._is_able(first)]
            slot = min(able, key=lambda first: first.number, default=None)
            if slot is None or not self._has_room(slot):
                return None
            self._leave_line(slot)
            self._hold(slot)
            return slot


# ---- calls over time


def check_rate(per_minute: float, burst: int) -> None:
    """Check a rate limit.

    Raises:
        InputError: The rate is not above 0, or the burst below 1.
    """
    check_number("per_minute", per_minute, positive=True)
    check_number("burst", burst, least=1, whole=True)


MAX_RATES = 10_000
"""How many rate limits are remembered before those that have nothing left to wait for are forgotten."""


class Rates(Shared):
    """Rate limits by name, by the generic cell rate algorithm (GCRA): a turn each 60 / `per_minute` seconds.

    Of each only the theoretical arrival time t is kept: when the next turn is due if none is taken early. With T seconds between
    turns, one can be taken at a time `now` if t - (burst - 1) T ≤ now, and t becomes max(t, now) + T.

    Source: ITU-T I.371, annex A. https://www.itu.int/rec/T-REC-I.371
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due_s: dict[str, float] = {}

    def take(self, name: str, now_s: float, *, per_minute: float, burst: int = 1) -> float:
        """Take a turn: 0.0 if it is taken, else the seconds until one can be.

        Raises:
            InputError: The rate is not above 0, or the burst below 1.
        """
        check_rate(per_minute, burst)
        each_s = 60 / per_minute
        with self._lock:
            due_s = max(self._due_s.get(name, now_s), now_s)
            wait_s = due_s - (burst - 1) * each_s - now_s
            if wait_s > ROUNDING_S:
                return wait_s
            self._due_s[name] = due_s + each_s
            if len(self._due_s) > MAX_RATES:
                self._due_s = {name: due_s for name, due_s in self._due_s.items() if due_s > now_s}
        return 0.0


# ---- circuit breakers

SAME_S = 0.5
"""Two processes that say of one opening when it ends differ by less."""


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a circuit breaker opens, and for how long.

    Attributes:
        failures: How many failures in a row open it; of calls that run side by side one counts.
        recovery_s: Seconds until one call is let through as a probe.

    Raises:
        InputError: A value is outside its range.
    """

    failures: int = 5
    recovery_s: float = 30.0

    def __post_init__(self) -> None:
        check_number("failures", self.failures, least=1, whole=True)
        check_number("recovery_s", self.recovery_s, positive=True)


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A member's circuit breaker at one time.

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
        probe = f"next probe in {self.retry_in_s:.0f} s" if self.state == "open" else "a probe is running"
        return f"circuit breaker open after {self.failures} consecutive failures; {probe}"


@dataclass(slots=True, eq=False)
class _Period:
    """From one opening or reset of a breaker to the next. Results count in the period in which their call was admitted."""

    failures: int = 0
    num_heard: int = 0  # failures since it began, which no success takes back
    open_until_s: float | None = None  # None where closed
    is_probed: bool = False
    is_followed: bool = False  # True where it is open in other processes too, and is closed when it is there

    def lets_through(self, now_s: float) -> bool:
        return self.open_until_s is None or (now_s >= self.open_until_s and not self.is_probed)

    def state(self, now_s: float) -> BreakerState:
        if self.open_until_s is None:
            return BreakerState("closed", self.failures, 0.0)
        retry_in_s = max(self.open_until_s - now_s, 0.0)
        return BreakerState("open" if retry_in_s else "half_open", self.failures, retry_in_s)


class Permit:
    """A circuit breaker's leave for one call; made by `Breakers.admit`. The first report has an effect, later ones none."""

    __slots__ = ("_breakers", "_is_spent", "_member", "_num_heard", "_period")

    def __init__(self, breakers: "Breakers", member: str, period: _Period) -> None:
        self._breakers, self._member, self._period = breakers, member, period
        self._num_heard = period.num_heard
        self._is_spent = False

    def succeed(self) -> None:
        """Report an answer: closes the breaker, and failures are counted from zero."""
        with self._breakers.lock:
            if self._spend():
                self._period.failures, self._period.open_until_s, self._period.is_probed = 0, None, False

    def fail(self, now_s: float, config: BreakerConfig) -> None:
        """Report a failure: opens the breaker if it was a probe, or one too many in a row.

        It counts only if no other was heard of since the call was admitted: hundreds of calls that meet the same moment's
        trouble are one sign of it.
        """
        with self._breakers.lock:
            period = self._period
            if self._spend() and self._num_heard == period.num_heard:
                period.failures += 1
                period.num_heard += 1
                if period.is_probed or period.failures >= config.failures:
                    opened = _Period(period.failures, open_until_s=now_s + config.recovery_s)
                    self._breakers.periods[self._member] = opened

    def drop(self) -> None:
        """Report neither: the call's end says nothing of its member. Another may probe instead."""
        with self._breakers.lock:
            if self._spend():
                self._period.is_probed = False

    def _spend(self) -> bool:
        counts = not self._is_spent and self._breakers.periods.get(self._member) is self._period
        self._is_spent = True
        return counts


class Breakers(Shared):
    """One circuit breaker per member; a pickle has all of them closed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant, as above
        self.periods: dict[str, _Period] = {}

    @property
    def is_any_open(self) -> bool:
        """True if some breaker is open, or half open."""
        return any(period.open_until_s is not None for period in [*self.periods.values()])

    def is_open(self, member: str, now_s: float) -> bool:
        """Tell whether no call of the member is let through: its breaker is open, or its probe is under way."""
        period = self.periods.get(member)
        return period is not None and not period.lets_through(now_s)

    def admit(self, member: str, now_s: float) -> Permit | None:
        """Let one call of a member run, as its probe if the breaker is half open; None if none may run now."""
        with self.lock:
            period = self.periods.get(member)
            if period is None:
                period = self.periods[member] = _Period()
            if not period.lets_through(now_s):
                return None
            period.is_probed = period.open_until_s is not None
            return Permit(self, member, period)

    def state(self, member: str, now_s: float) -> BreakerState:
        """Return the breaker of one member."""
        with self.lock:
            return self.periods.get(member, _Period()).state(now_s)

    def states(self, now_s: float) -> dict[str, BreakerState]:
        """Return the breaker of every member, but for those that are closed and whose last call did not fail."""
        with self.lock:
            states = {member: period.state(now_s) for member, period in self.periods.items()}
        return {member: state for member, state in states.items() if state.failures or state.state != "closed"}

    def follow(self, opened: Mapping[str, tuple[int, float]], now_s: float, *, is_reset: bool = False) -> None:
        """Do as breakers of other processes: open those that are open there, close those that were and are no more.

        Args:
            opened: Failures in a row, and seconds until a probe is let through, of each that is open.
            now_s: The time.
            is_reset: True where somebody has closed some since the last time, so that those that opened here alone are closed too.
        """
        with self.lock:
            for name, period in [*self.periods.items()]:
                if name not in opened and (period.is_followed or is_reset):
                    del self.periods[name]
            for member, (failures, retry_in_s) in opened.items():
                self.follow_one(member, failures, retry_in_s, now_s)

    def follow_one(self, member: str, failures: int, retry_in_s: float, now_s: float) -> None:
        """Open a breaker that is open in other processes; see `follow`."""
        with self.lock:
            period, until_s = self.periods.get(member), now_s + retry_in_s
            if period is None or period.open_until_s is None or until_s > period.open_until_s + SAME_S:
                self.periods[member] = _Period(failures, open_until_s=until_s, is_followed=True)
            else:
                period.is_followed = True

    def reset(self, member: str | None = None) -> None:
        """Close the breaker of a member, or all of them; results of calls admitted before do not count."""
        with self.lock:
            if member is None:
                self.periods.clear()
            else:
                self.periods.pop(member, None)


# ---- usual latencies

WINDOW = 100
"""How many of a member's answers count, the latest ones."""

MIN_SAMPLES = 20
"""With fewer, the 95th percentile would be the slowest one, which tells nothing."""


class Latencies(Shared):
    """How long each member's last answers took; failures are not among them."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}

    def add(self, member: str, latency_s: float) -> None:
        """Add the latency of an answer, in seconds."""
        self._recent.setdefault(member, deque(maxlen=WINDOW)).append(latency_s)

    def p95_s(self, member: str) -> float | None:
        """Return the 95th percentile in seconds: the ⌈0.95 n⌉-th smallest of n; None for n below `MIN_SAMPLES`."""
        recent = sorted(self._recent.get(member, deque()).copy())
        return recent[math.ceil(0.95 * len(recent)) - 1] if len(recent) >= MIN_SAMPLES else None

    def reset(self, member: str | None = None) -> None:
        """Forget the latencies of a member, or of all."""
        if member is None:
            self._recent.clear()
        else:
            self._recent.pop(member, None)


# ---- overload

MAX_STARTING = 4
"""How many answers may begin at the same time where the process is idle: until their first calls have been made."""

BUSY_S = 0.05
"""Where these calls take longer than this to be made, the process is busy, and answers begin one after the other."""

MAX_WAIT_S = 10.0
"""An answer that would wait for longer than this for its beginning is refused."""

MIN_IN_THREADS, FIRST_IN_THREADS = 56, 64
"""How many answers threads may work on at a time, at least and at first: each has a thread for each of its calls."""

_MIN_MEASURED = 16
"""After how many answers that began out of the queue its pace is known."""

_MAX_MEASURED = 64
"""The pace is that of so many last ones."""


class Overloaded(Exception):  # noqa: N818  # a value of `Admission`, which the caller turns into its own error
    """An answer cannot begin in time.

    Attributes:
        wait_s: How long it would have waited.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__(f"{wait_s:.3g} s")


class Entry:
    """One answer's beginning; made by `Admission.enter`."""

    __slots__ = ("admitted_at_s", "has_begun", "in_thread", "on_admitted")

    def __init__(self, on_admitted: Callable[[], None], *, in_thread: bool) -> None:
        self.on_admitted, self.in_thread = on_admitted, in_thread
        self.admitted_at_s: float | None = None
        self.has_begun = False

    @property
    def is_admitted(self) -> bool:
        """True once the answer may begin."""
        return self.admitted_at_s is not None


def _tell_nobody() -> None:
    """Do nothing: who is admitted at once need not be told."""


class Admission(Shared):
    """Lets answers begin as fast as this process can serve them, and refuses those that would wait for too long.

    The measure is the delay of the scheduler, as it is the round-trip time for Netflix's concurrency-limits. On an event loop an
    answer that begins holds a place until its first calls have been made, which is one turn of the loop. Where the loop is idle
    that is at once, and nobody waits. Where it is busy a turn takes long, and fewer answers begin at a time, so that those that
    have begun are served before they time out. Threads take no turns; there the number of answers in flight is limited: one
    more each time that as many met no delay, a fifth less where what came from a member was received late (AIMD, as in TCP).

    Who has to wait stands in a queue, first come, first served. Where it is known how fast the queue moves, and a newcomer
    would wait for longer than `MAX_WAIT_S`, or than its own deadline, the newcomer is refused at once. There is one exception:
    a queue may always be as long as the largest number of answers that came at once since it was empty (a batch, which the
    caller wants worked off), so that who replaces one of a batch is not refused either. What comes in the same moment is
    admitted, or refused, together.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant, as above
        self._num_starting = 0
        self._max_starting = MAX_STARTING
        self._num_in_threads = 0
        self._max_in_threads = float(FIRST_IN_THREADS)
        self._reduced_at_s = -math.inf
        self._queue: OrderedDict[Entry, None] = OrderedDict()
        self._begun_s: deque[float] = deque(maxlen=_MAX_MEASURED)  # when answers began out of the queue
        self._num_arrived = 0  # since an answer last began
        self._largest_burst = 0
        self._is_full = False

    @property
    def waiting(self) -> int:
        """How many answers wait for their beginning."""
        return len(self._queue)

    @property
    def wait_s(self) -> float | None:
        """How long a newcomer would wait; None where the pace of the queue is not known."""
        with self._lock:
            if not self._queue or len(self._begun_s) < _MIN_MEASURED:
                return None
            return (len(self._queue) + 1) * (self._begun_s[-1] - self._begun_s[0]) / (len(self._begun_s) - 1)

    @property
    def is_busy(self) -> bool:
        """True where a newcomer would wait for a second and more."""
        wait_s = self.wait_s if self._queue else None
        return wait_s is not None and wait_s > 1.0

    def enter_at_once(self, now_s: float, *, in_thread: bool = False) -> Entry | None:
        """Begin an answer if it need not wait; None if it has to."""
        entry = Entry(_tell_nobody, in_thread=in_thread)
        with self._lock:
            if self._queue or not self._has_room(entry):
                return None
            self._admit(entry, now_s)
        return entry

    def enter(
        self, now_s: float, on_admitted: Callable[[], None], *, left_s: float = math.inf, in_thread: bool = False
    ) -> Entry:
        """Begin an answer, or have it wait.

        Args:
            now_s: The time.
            on_admitted: Called, from any thread, when the answer may begin, if it had to wait.
            left_s: Seconds until its deadline.
            in_thread: True where its calls are made in threads.

        Raises:
            Overloaded: It would wait for too long.
        """
        entry = Entry(on_admitted, in_thread=in_thread)
        with self._lock:
            if not self._queue and self._has_room(entry):
                self._admit(entry, now_s)
                return entry
            wait_s = self.wait_s
            if self._num_arrived == 0:
                is_longer = len(self._queue) >= self._largest_burst
                self._is_full = wait_s is not None and wait_s > MAX_WAIT_S and is_longer
            if wait_s is not None and (self._is_full or wait_s > left_s):
                raise Overloaded(wait_s)
            self._num_arrived += 1
            self._largest_burst = max(self._largest_burst, self._num_arrived)
            self._queue[entry] = None
        return entry

    def begun(self, entry: Entry, now_s: float) -> None:
        """Note that an answer's first calls have been made, or that it waits no more; later calls have no effect."""
        with self._lock:
            if entry.has_begun:
                return
            entry.has_begun = True
            if entry.admitted_at_s is None:
                self._queue.pop(entry, None)
                return
            self._num_starting -= 1
            self._max_starting = 1 if now_s - entry.admitted_at_s > BUSY_S else MAX_STARTING
        if self._queue or self._begun_s or self._num_arrived:
            self._admit_next(now_s)

    def ended(self, entry: Entry, now_s: float, *, delay_s: float) -> None:
        """Note that nothing of an answer runs any more.

        Args:
            entry: Its beginning.
            now_s: The time.
            delay_s: How much later than it happened something was heard of, at most.
        """
        if not entry.has_begun:
            self.begun(entry, now_s)
        if not entry.in_thread or entry.admitted_at_s is None:
            return
        with self._lock:
            self._num_in_threads -= 1
            if delay_s <= BUSY_S:
                self._max_in_threads += 1 / self._max_in_threads
            elif entry.admitted_at_s > self._reduced_at_s:  # once for those that were in flight together
                self._max_in_threads = max(float(MIN_IN_THREADS), 0.8 * self._max_in_threads)
                self._reduced_at_s = now_s
            entry.admitted_at_s = None
        self._admit_next(now_s)

    def _has_room(self, entry: Entry) -> bool:
        has_thread = not entry.in_thread or self._num_in_threads < self._max_in_threads
        return self._num_starting < self._max_starting and has_thread

    def _admit(self, entry: Entry, now_s: float) -> None:
        entry.admitted_at_s = now_s
        self._num_starting += 1
        self._num_in_threads += entry.in_thread

    def _admit_next(self, now_s: float) -> None:
        """Admit who can be admitted now, first come, first served."""
        following: list[Entry] = []
        with self._lock:
            self._num_arrived = 0
            while self._queue and self._has_room(first := next(iter(self._queue))):
                del self._queue[first]
                self._admit(first, now_s)
                self._begun_s.append(now_s)
                following.append(first)
            if not self._queue and not following:
                self._begun_s.clear()
                self._largest_burst = 0
        for first in following:
            try:
                first.on_admitted()
            except RuntimeError:  # so says an event loop that is closed
                self.ended(first, now_s, delay_s=0.0)


RETRY_SHARE = 0.2
"""Under overload at most this share of calls may be retries and hedges."""

RETRIES_PER_S = 10.0
"""Retries and hedges that are allowed beside that share, and saved for ten seconds."""


class RetryBudget(Shared):
    """Bounds how much retries and hedges add to the load: a token bucket, as Finagle's RetryBudget.

    Each first attempt pays in `RETRY_SHARE`, each second `RETRIES_PER_S`; a retry takes out 1.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved = self._most = 10 * RETRIES_PER_S
        self._at_s: float | None = None

    def deposit(self) -> None:
        """Note a first attempt."""
        if self._saved < self._most:
            with self._lock:
                self._saved = min(self._saved + RETRY_SHARE, self._most)

    def withdraw(self, now_s: float) -> bool:
        """Take out one retry; False if there is none left."""
        with self._lock:
            if self._at_s is not None:
                self._saved = min(self._saved + max(now_s - self._at_s, 0.0) * RETRIES_PER_S, self._most)
            self._at_s = now_s
            if self._saved < 1:
                return False
            self._saved -= 1
            return True

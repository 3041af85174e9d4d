"""Store: what answers share in all processes that name one Redis or Valkey server.

A script on the server admits each call whole or not at all, by the server's own clock. One thread of a process owns its connection:
it sends what threads and event loops ask for, in their order and as many as there are at once, and tells each what came of it.
Nobody who asks waits for the network. A server that does not answer in time is lost: what is asked then is told so at once, and each
process keeps to its own share, until the server is back and is told what was spent meanwhile.

It does not decide what becomes of a call; that is `rounds`. What a restart takes from the server is added again as far as a process
knows it.
"""

import atexit
import itertools
import json
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from queue import Empty, SimpleQueue
from typing import Any, Literal, Self, cast
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.execution import budgets
from langchain_rlfocal.execution.budgets import Budget, BudgetRefusal, Ledger, Reservation, Usage, amount_in_words
from langchain_rlfocal.execution.limits import BreakerConfig, Breakers
from langchain_rlfocal.policies.targets import Controllers, NamedNews

BEAT_S = 1.0
"""How often a process says that it is there, and hears what the others did."""

LEAST_RETRY_S, MAX_RETRY_S = 0.05, 1.0
"""How long a lost server is left alone before it is tried again: at first, and at most."""

MAX_BATCH = 512
"""How many commands are sent at once."""

MAX_BEAT_ACCOUNTS = 256
"""Of how many accounts, those used last, each beat hears what others spent."""

_SCRIPTS = ("admit", "settle", "beat", "join", "reset", "take", "go")
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}

_log = logging.getLogger(__name__)


# ---- where it is


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a store is.

    Attributes:
        url: The URL for the client, with its password and without our own options.
        shown: The same, fit to be shown.
        namespace: What its keys begin with, after `rlfocal:`; who gives the same shares.
        timeout_s: Seconds within which the server must answer.
        lease_s: Seconds after which what a killed process held (slots, a probe) is free.
        workers: How many processes share it, where that is not known.
    """

    url: str = field(repr=False)
    shown: str
    namespace: str = "default"
    timeout_s: float = 1.0
    lease_s: float = 15.0
    workers: int = 1

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL, such as `redis://127.0.0.1:6379/0?namespace=prod&timeout_s=0.5`.

        Raises:
            InputError: It is no URL of a Redis or Valkey server, or an option is out of range.
        """
        scheme, is_url, rest = url.partition("://")
        if not is_url or scheme not in _SCHEMES:
            raise InputError(
                f"`shared_state` must be a URL that begins with redis://, rediss://, valkey:// or unix://, got {scheme}"
                f"{'://...' if is_url else ''}. Give for example redis://127.0.0.1:6379/0?namespace=prod."
            )
        try:
            parts = urlsplit(url)
            _ = parts.port  # one that is no number raises
            given = dict(parse_qsl(parts.query))
            options: dict[str, Any] = {"namespace": given.pop("namespace", "default")}
            for name, kind in (("timeout_s", float), ("lease_s", float), ("workers", int)):
                if name in given:
                    options[name] = kind(given.pop(name))
        except ValueError as error:
            raise InputError(f"The URL of `shared_state` must be one: {error}. Correct it.") from None
        rest = rest.partition("?")[0]
        asked = f"?{urlencode(given)}" if given else ""
        place = cls(f"{_SCHEMES[scheme]}://{rest}{asked}", f"{scheme}://{rest.rpartition('@')[2]}", **options)
        if not (
            0 < place.timeout_s < math.inf and 0 < place.lease_s < math.inf and place.workers >= 1 and place.namespace
        ):
            raise InputError(
                "Of `shared_state`, `timeout_s` and `lease_s` must be above 0, `workers` at least 1, and `namespace` not empty, got "
                f"{place}."
            )
        return place


# ---- what is asked of it, and answered


@dataclass(frozen=True, slots=True)
class Leave:
    """What the store answers to a call that asks to be made.

    Attributes:
        kind: `"ok"`: it may be made, after `wait_s`; `"open"`: the member's circuit breaker is; `"budget"`: an account has no room; `"wait"`: ask again later;
            `"lost"`: nobody has answered.
        wait_s: After how many seconds to begin, to ask again, or a probe is let through.
        turn_in_s: Seconds until its turn of the member's calls a minute at the soonest.
        failures: How many calls in a row have failed, where the breaker is open.
        refusal: Which budget refuses.
    """

    kind: Literal["ok", "open", "budget", "wait", "lost"]
    wait_s: float = 0.0
    turn_in_s: float = 0.0
    failures: int = 0
    refusal: BudgetRefusal | None = None


_LOST = Leave("lost")


@dataclass(slots=True, eq=False)
class _Command:
    """One command for the server.

    Attributes:
        script: Which script, None for a plain command.
        ask: What it is asked, or the words of the plain command.
        on_answer: Told the answer, or None where nobody has answered; from any thread, once.
        is_kept: True to send it again until it is answered; else who asked is told that the server is lost.
    """

    script: str | None
    ask: Any
    on_answer: Callable[[Any], None]
    is_kept: bool = False


class Ticket:
    """One call's leave to be made; made by `RedisStore.ticket`.

    It is settled once what it did cost is known, and it has ended, whichever comes last.

    Attributes:
        asked: What is asked of the server.
        bound: The most that the call can cost.
        ledgers: The accounts that it is booked to.
        says: What it says of its member, if anything.
        is_refused: True if it holds nothing.
        is_settled: True once it is.
    """

    __slots__ = (
        "_actual",
        "_answer",
        "_has_asked",
        "_is_released",
        "_store",
        "asked",
        "bound",
        "is_refused",
        "is_settled",
        "ledgers",
        "says",
    )

    def __init__(
        self, store: "RedisStore", ask: dict[str, Any], bound: Usage, ledgers: Sequence["SharedLedger"]
    ) -> None:
        self._store, self.asked, self.bound, self.ledgers = store, ask, bound, ledgers
        self._answer: Leave | None = None
        self._actual: Usage | None = None
        self.says: str | None = None
        self._has_asked = self._is_released = self.is_refused = self.is_settled = False

    def ask(self, on_answer: Callable[[], None]) -> None:
        """Ask whether the call may be made, also again where it had to wait.

        Args:
            on_answer: Called, from any thread, when `take_answer` has the answer.
        """
        self._has_asked = True

        def tell(answer: Any) -> None:
            self._answer = self._store.read_leave(self, answer)
            try:
                on_answer()
            except RuntimeError:  # so says an event loop that is closed
                self.settle(Usage(), None)
                self.release()

        self._store.submit(_Command("admit", self.asked, tell))

    def take_answer(self) -> Leave | None:
        """Return the answer once; None where there is none yet."""
        answer, self._answer = self._answer, None
        return answer

    def settle(self, actual: Usage, says: Literal["answered", "failed"] | None) -> None:
        """Say what the call did cost, and what it says of its member, if anything; only the first time has an effect."""
        if self._actual is None:
            self._actual, self.says = actual, says
            self._finish()

    def release(self) -> None:
        """Say that the call has ended; only the first time has an effect."""
        self._is_released = True
        self._finish()

    def _finish(self) -> None:
        with budgets.lock:
            if self._actual is None or not self._is_released or self.is_settled:
                return
            self.is_settled = True
            if self._has_asked and not self.is_refused:
                self._store.settle(self, self._actual)

    @property
    def id(self) -> str:
        """What the server knows it by."""
        return cast("str", self.asked["ticket"])


class SharedLedger(Ledger):
    """What was spent on an account in all processes, as was last heard, and what this one has spent since.

    While the server is lost, it is the account of this process's own share: what was left, over the number of processes.
    """

    def __init__(self, store: "RedisStore", key: str, name: str) -> None:
        super().__init__(name=name)
        self._store, self.key = store, key
        self._known = Usage()
        self._in_flight: dict[str, Usage] = {}
        self._unheard: dict[int, Usage] = {}
        self._booked: dict[int, Usage] = {}
        self.used_at_s = 0.0
        self.keep_s: float | None = None

    @property
    def spent(self) -> Usage:
        """What calls cost: those of this process that have ended, and those of others as far as was last heard, also while they run."""
        with budgets.lock:
            own = sum(self._unheard.values(), self.owed)
            held = sum(self._in_flight.values(), Usage())
            known = self._known
        return Usage(
            max(known.calls + own.calls - held.calls, 0),
            max(known.tokens + own.tokens - held.tokens, 0),
            max(known.usd + own.usd - held.usd, 0.0),
        )

    @property
    def reserved(self) -> Usage:
        """The most that calls of this process that run can cost."""
        with budgets.lock:
            return sum([*self._in_flight.values(), super().reserved], Usage())

    def reset(self) -> None:
        """Forget what was spent, in all processes."""

        def tell(_: Any = None) -> None:
            with budgets.lock:
                self._known = Usage()
                self._in_flight.clear()  # what is taken does not hold them any more

        with budgets.lock:
            super().reset()
            self._unheard.clear()
            self._booked.clear()
            tell()
            self._store.submit(_Command("reset", {"accounts": [self.key]}, tell, is_kept=True))

    def check(self, bound: Usage, budget: Budget) -> None:
        """Check that this process's share of what was left has room for a call; the lock is held. See `Ledger.check`."""
        workers = self._store.num_workers
        own, held = self.owed, super().reserved
        for limit in ("calls", "tokens", "usd"):
            most = getattr(budget, f"max_{limit}")
            if most is None:
                continue
            left = max(most - getattr(self._known, limit), 0) / workers
            share = left if limit == "usd" else math.floor(left)
            spent, reserved, asked = (getattr(usage, limit) for usage in (own, held, bound))
            if spent + reserved + asked > share + (most * budgets.TOLERANCE if limit == "usd" else 0):
                most, share, used, asked = map(amount_in_words, (most, share, spent + reserved, asked))
                raise BudgetRefusal(
                    f"max_{limit}",
                    f"`max_{limit}` of `{self.name}` is {most}. The store that processes share is lost, and of this process's share of "
                    f"what was left, {share}, {used} is spent or reserved for calls that run; a call asked for {asked}.",
                )

    @property
    def owed(self) -> Usage:
        """What was spent while the server was lost, and it has not heard of."""
        return sum(self._booked.values(), super().spent)

    @property
    def is_owing(self) -> bool:
        """True if it has not been told of all of it."""
        return super().spent != Usage()

    # ---- for the store, with the lock held

    def hear(self, taken: Sequence[float]) -> None:
        """Note what is taken in all processes."""
        self._known = Usage(int(taken[0]), int(taken[1]), float(taken[2]))

    def note_admitted(self, ticket: Ticket) -> None:
        """Note that a call of this process is among what is taken."""
        self._in_flight[ticket.id] = ticket.bound

    def note_settled(self, ticket: Ticket, number: int, actual: Usage) -> None:
        """Note what a call did cost, of which the server has not heard yet."""
        bound = self._in_flight.pop(ticket.id, Usage())
        self._unheard[number] = Usage(actual.calls - bound.calls, actual.tokens - bound.tokens, actual.usd - bound.usd)

    def note_heard(self, number: int, taken: Sequence[float] | None) -> None:
        """Note that the server has heard of it."""
        self._unheard.pop(number, None)
        self._booked.pop(number, None)
        if taken is not None:
            self.hear(taken)

    def take_owed(self, number: int) -> Usage:
        """Return what was spent while the server was lost, which it is told now."""
        owed = self._booked[number] = super().spent
        super().reset()
        return owed

    def words(self, usage: Usage) -> list[Any]:
        """Say for a script what is spent on it."""
        return [self.key, [usage.calls, usage.tokens, usage.usd], *self.keep]

    def words_known(self) -> list[Any]:
        """Say what was last known to be taken."""
        return self.words(self._known)

    @property
    def keep(self) -> list[int]:
        """For how many seconds the server keeps it after each use; nothing where for ever."""
        return [] if self.keep_s is None else [math.ceil(self.keep_s)]

    def is_over(self, now_s: float) -> bool:
        """True if the server does not keep it any more, and nothing is open here."""
        is_open = self._in_flight or self._unheard or self._booked or self._held or self.is_owing
        return self.keep_s is not None and now_s > self.used_at_s + self.keep_s and not is_open

    def forget(self) -> None:
        """Forget what only the parent of this process knows."""
        self._in_flight, self._unheard, self._booked = {}, {}, {}
        super().reset()
        self._held: dict[Reservation, Usage] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Ledger, (self.spent, self.name)


def _ignore(_: Any) -> None:
    """Do nothing with an answer."""


class RedisStore:
    """One process's connection to what processes share; see the module.

    Args:
        place: Where it is.
        clock: Gives seconds.
        breakers: Circuit breakers of this process, which follow those of others.
        controllers: Controllers of targets of this process, which follow those of others.

    Raises:
        MissingDependencyError: The client is not installed.
        InputError: The URL has an option that nobody knows.
    """

    def __init__(
        self, place: StorePlace, *, clock: Callable[[], float], breakers: Breakers, controllers: Controllers
    ) -> None:
        try:
            import redis  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise MissingDependencyError(
                "State that is shared by a Redis or Valkey server needs its client: `pip install 'langchain-rlfocal[redis]'`."
            ) from error
        self._redis = redis
        try:
            redis.Redis.from_url(place.url).connection_pool.make_connection()  # which connects with its first command
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The URL of `shared_state` has an option that neither we nor the client know: {error}. Correct it; ours are "
                "namespace, timeout_s, lease_s and workers."
            ) from None
        self.place = place
        self._clock, self._breakers, self._controllers = clock, breakers, controllers
        self._texts = {name: _text_of("common") + _text_of(name) for name in _SCRIPTS}
        self._ledgers: dict[str, SharedLedger] = {}
        self._lost_at_s: float | None = None
        self._known_workers, self._all_are_back_at_s = 0, -math.inf
        self._run = ""
        self._num_resets: int | None = None
        self._begin()
        self._start()
        _stores.add(self)

    def _begin(self) -> None:
        """Begin as a process of its own, also after a fork."""
        self._applying = threading.RLock()
        self._pid, self._worker = os.getpid(), uuid4().hex[:16]
        self._queue: SimpleQueue[_Command | None] = SimpleQueue()
        self._kept: deque[_Command] = deque()
        self._numbers = itertools.count(1)
        self._untold: tuple[int, list[NamedNews]] | None = None
        self._running: dict[str, Ticket] = {}
        self._probing: set[str] = set()
        self._client: Any = None
        self._shas: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def _start(self) -> None:
        with budgets.lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._work, name="rlfocal-store", daemon=True)
                self._thread.start()

    # ---- for everybody

    @property
    def is_lost(self) -> bool:
        """True while the server does not answer."""
        if self._thread is None:
            self._start()  # in a fork
        return self._lost_at_s is not None

    @property
    def lost_for_s(self) -> float:
        """For how many seconds it has not."""
        lost_at_s = self._lost_at_s
        return 0.0 if lost_at_s is None else self._clock() - lost_at_s

    @property
    def num_workers(self) -> int:
        """How many processes share it, as far as was last known."""
        return max(self._known_workers, self.place.workers)

    def ledger(self, key: str, name: str, *, keep_s: float | None = None) -> SharedLedger:
        """Return an account by its key; `name` is for messages. It is forgotten where nobody uses it for `keep_s`."""
        with budgets.lock:
            ledger = self._ledgers.get(key)
            if ledger is None:
                ledger = self._ledgers[key] = SharedLedger(self, key, name)
                ledger.used_at_s = self._clock()
            if keep_s is not None:
                ledger.keep_s = keep_s
            return ledger

    def ticket(
        self,
        key: str,
        bound: Usage,
        accounts: Sequence[tuple[Ledger, Budget]],
        *,
        total: int | None,
        of_member: int | None,
        per_minute: float | None,
        breaker: BreakerConfig | None,
    ) -> Ticket:
        """Prepare to ask for one call's leave.

        Args:
            key: Whose call it is.
            bound: The most that it can cost.
            accounts: What it is booked to, with what each allows.
            total: How many calls of all members may run.
            of_member: The same of this member.
            per_minute: How many calls of this member may begin in a minute.
            breaker: When the member's circuit breaker opens.
        """
        ledgers = [(ledger, budget) for ledger, budget in accounts if isinstance(ledger, SharedLedger)]
        limits = [
            {
                limit: most
                for limit in ("calls", "tokens", "usd")
                if (most := getattr(budget, f"max_{limit}")) is not None
            }
            for _, budget in ledgers
        ]
        ask: dict[str, Any] = {
            "ticket": uuid4().hex,
            "key": key,
            "bound": [bound.calls, bound.tokens, bound.usd],
            "accounts": [[one.key, limit, *one.keep] for (one, _), limit in zip(ledgers, limits, strict=True)],
            "lease_ms": self.place.lease_s * 1000,
        }
        if total is not None:
            ask["total"] = total
        if of_member is not None:
            ask["of_member"] = of_member
        if per_minute is not None:
            ask["each_ms"] = 60_000 / per_minute
        if breaker is not None:
            ask["has_breaker"] = True
            ask["failures"], ask["recovery_ms"] = breaker.failures, breaker.recovery_s * 1000
        now_s = self._clock()
        for ledger, _ in ledgers:
            ledger.used_at_s = now_s
        return Ticket(self, ask, bound, [ledger for ledger, _ in ledgers])

    def reset_breakers(self, member: str | None) -> None:
        """Close the circuit breaker of a member, or all of them, in all processes."""
        ask: dict[str, Any] = {"all_breakers": True} if member is None else {"breakers": [member]}
        self.submit(_Command("reset", ask, _ignore, is_kept=True))

    def take(self, name: str, each_s: float, burst: int, on_answer: Callable[[float | None], None]) -> None:
        """Take a turn of a rate limit; see `SharedState.take`. None where nobody has answered."""
        ask = {"name": name, "each_ms": each_s * 1000, "burst": burst}

        def tell(answer: Any) -> None:
            on_answer(None if answer is None else answer[0] / 1000)

        self.submit(_Command("take", ask, tell))

    def put(self, key: str, value: bytes, ttl_s: float, on_answer: Callable[[Any], None]) -> None:
        """Keep a small value; None where nobody has answered."""
        words = ("SET", self._value_key(key), value, "PX", max(math.ceil(ttl_s * 1000), 1))
        self.submit(_Command(None, words, on_answer))

    def get(self, key: str, on_answer: Callable[[Any], None]) -> None:
        """Fetch a small value: `(value or None,)`; None where nobody has answered."""
        self.submit(_Command(None, ("GET", self._value_key(key)), on_answer))

    def _value_key(self, key: str) -> bytes:
        return f"{self._prefix}:value:{key}".encode("utf-8", "surrogatepass")

    @property
    def _prefix(self) -> str:
        return f"rlfocal:{{{self.place.namespace}}}"  # the braces keep all of it in one slot of a cluster

    def close(self) -> None:
        """Tell the server what is left to tell, and leave it; what is asked afterwards is told that it is lost."""
        with budgets.lock:
            thread, self._is_closed = self._thread, True
            self._lost_at_s = self._clock() if self._lost_at_s is None else self._lost_at_s
            self._queue.put(None)
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(4 * self.place.timeout_s)

    # ---- from any thread

    def submit(self, command: _Command) -> None:
        """Have a command sent; where the server is lost, its sender is told at once."""
        with budgets.lock:
            if not self._is_closed:
                self._start()
                if self._lost_at_s is None:
                    return self._queue.put(command)
                if command.is_kept:
                    return self._kept.append(command)
        return command.on_answer(None)

    def settle(self, ticket: Ticket, actual: Usage) -> None:
        """Have a call settled; the ledgers' lock is held."""
        number = next(self._numbers)
        for ledger in ticket.ledgers:
            ledger.note_settled(ticket, number, actual)
        was_admitted = self._running.pop(ticket.id, None) is not None
        self._probing.discard(ticket.id)
        asked = ticket.asked
        names = [
            "ticket",
            "key",
            "total",
            "of_member",
            "each_ms",
            "failures",
            "recovery_ms",
            *(["bound"] if was_admitted else []),
        ]
        ask = {name: asked[name] for name in names if name in asked}
        ask |= {"number": number, "accounts": [ledger.words(actual) for ledger in ticket.ledgers]}
        if ticket.says is not None:
            ask["says"] = ticket.says
        self._submit_numbered(ask, number, ticket.ledgers)

    def _submit_numbered(self, ask: dict[str, Any], number: int, ledgers: Sequence[SharedLedger]) -> None:
        def tell(answer: Any) -> None:
            with budgets.lock:
                heard = answer[1] if answer is not None and answer[0] == "ok" else [None] * len(ledgers)
                for ledger, taken in zip(ledgers, heard, strict=True):
                    ledger.note_heard(number, taken)

        self.submit(_Command("settle", ask, tell, is_kept=True))

    def read_leave(self, ticket: Ticket, answer: Any) -> Leave:
        """Read what the server says of a call."""
        if answer is None:
            return _LOST
        kind, *rest = answer
        if kind == "ok":
            begins_in_ms, is_probe, taken = rest
            with budgets.lock:
                for ledger, amounts in zip(ticket.ledgers, taken, strict=True):
                    ledger.hear(amounts)
                if not ticket.is_settled:  # else nobody waited for this
                    for ledger in ticket.ledgers:
                        ledger.note_admitted(ticket)
                    self._running[ticket.id] = ticket
                    if is_probe:
                        self._probing.add(ticket.id)
            return Leave("ok", wait_s=begins_in_ms / 1000)
        if kind != "wait":
            ticket.is_refused = True
        if kind == "open":
            return Leave("open", wait_s=rest[0] / 1000, failures=int(rest[1]))
        if kind == "wait":
            return Leave("wait", wait_s=rest[0] / 1000, turn_in_s=rest[1] / 1000)
        key, limit, *amounts = rest
        name = next(ledger.name for ledger in ticket.ledgers if ledger.key == key)
        most, taken, asked = map(amount_in_words, (x if limit == "usd" else int(x) for x in amounts))
        refusal = BudgetRefusal(
            f"max_{limit}",
            f"`max_{limit}` of `{name}` is {most}, of which {taken} is spent or reserved for calls that run, in all processes, and a "
            f"call asked for {asked}.",
        )
        return Leave("budget", refusal=refusal)

    # ---- in its own thread

    def _work(self) -> None:
        due_s, retry_s = time.monotonic(), LEAST_RETRY_S
        while not self._is_closed:
            batch = self._next_batch(max(due_s - time.monotonic(), 0.0))
            is_due = time.monotonic() >= due_s
            if self._is_closed or not (batch or is_due):
                self._give_up(batch)
            elif self._exchange(batch, beats=is_due):
                retry_s = LEAST_RETRY_S
                if is_due:
                    due_s = time.monotonic() + min(BEAT_S, self.place.lease_s / 3)
            else:
                due_s = time.monotonic() + retry_s
                retry_s = min(2 * retry_s, MAX_RETRY_S)
        self._leave()

    def _next_batch(self, wait_s: float) -> list[_Command]:
        """Wait for commands, for so long at most, and take all that there are."""
        batch: list[_Command] = []
        try:
            command = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
            while command is not None:
                batch.append(command)
                if len(batch) == MAX_BATCH:
                    break
                command = self._queue.get_nowait()
        except Empty:
            pass
        return batch

    def _exchange(self, batch: list[_Command], *, beats: bool) -> bool:
        """Send commands, and tell who sent them what came of them; False if the server is lost."""
        sending = batch
        try:
            if self._client is None:
                self._connect()
            sending = self._all_to_send(batch, beats=beats)
            try:
                answers = self._send(sending)
            except (self._redis.exceptions.ConnectionError, _ForgottenError):
                if self.is_lost:
                    raise
                # It has closed the connection, as a server does that starts again, or was flushed: what is asked once more has one effect.
                self._disconnect()
                self._connect()
                answers = self._send(sending)
        except Exception as error:  # noqa: BLE001  # whatever the client, or the server, has: it is lost
            self._lose(sending, error)
            return False
        with self._applying:
            for command, answer in zip(sending, answers, strict=True):
                command.on_answer(answer)
            if self.is_lost and not self._is_closed:
                self._find()
        return True

    def _all_to_send(self, batch: list[_Command], *, beats: bool) -> list[_Command]:
        with self._applying:
            if beats:
                self._book_owed()
            with budgets.lock:
                sending = [*self._kept, *batch]
                self._kept.clear()
            if beats:
                sending.append(self._beat())
        return sending

    def _send(self, commands: Sequence[_Command]) -> list[Any]:
        """Send commands at once, and return their answers.

        Raises:
            Exception: There is none to one of them.
        """
        answers = self._send_once(commands)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, self._redis.exceptions.NoScriptError)]
        if unknown:  # somebody has flushed the scripts
            self._load()
            for i, answer in zip(unknown, self._send_once([commands[i] for i in unknown]), strict=True):
                answers[i] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        said = [
            (answer,) if command.script is None else _read(answer)
            for command, answer in zip(commands, answers, strict=True)
        ]
        if "forgotten" in said:
            raise _ForgottenError("it was started again, or flushed")
        return said

    def _send_once(self, commands: Sequence[_Command]) -> list[Any]:
        if not commands:
            return []
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            if command.script is None:
                pipeline.execute_command(*command.ask)
            else:
                pipeline.execute_command("EVALSHA", *self._words(command.script, command.ask))
        return cast("list[Any]", pipeline.execute(raise_on_error=False))

    def _words(self, script: str, ask: Mapping[str, Any]) -> tuple[Any, ...]:
        asked = json.dumps({**ask, "run": self._run, "worker": self._worker}, ensure_ascii=False)
        return self._shas[script], 1, self._prefix, asked.encode("utf-8", "surrogatepass")

    def _connect(self) -> None:
        """Connect, load the scripts and say what is known, which a restarted server may have lost."""
        from redis.backoff import NoBackoff  # noqa: PLC0415  # as above
        from redis.retry import Retry  # noqa: PLC0415

        seconds = self.place.timeout_s
        self._client = self._redis.Redis.from_url(
            self.place.url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # what is lost is said to be lost
            protocol=2,
        )
        try:
            server = str(self._client.info("server")["run_id"])
            self._load()
            with budgets.lock:
                ledgers = [*self._ledgers.values()]
                asked = {"server": server, "accounts": [ledger.words_known() for ledger in ledgers]}
            run, taken = _read(self._client.execute_command("EVALSHA", *self._words("join", asked)))
            if self._run:
                self._all_are_back_at_s = self._clock() + self.place.lease_s
            self._run = run
            with budgets.lock:
                for ledger, amounts in zip(ledgers, taken, strict=True):
                    ledger.hear(amounts)
        except BaseException:
            self._disconnect()
            raise

    def _load(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for text in self._texts.values():
            pipeline.script_load(text)
        self._shas = dict(zip(self._texts, pipeline.execute(), strict=True))

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _book_owed(self) -> None:
        """Have what was spent while the server was lost booked; in the order of the numbers, as everything that is settled."""
        with budgets.lock:
            for ledger in self._ledgers.values():
                if ledger.is_owing:
                    number = next(self._numbers)
                    owed = ledger.take_owed(number)
                    asked = {"number": number, "ticket": "", "accounts": [ledger.words(owed)]}
                    self._submit_numbered(asked, number, [ledger])

    def _beat(self) -> _Command:
        """Make the command that says that this process is there, and hears what others did."""
        now_s = self._clock()
        with budgets.lock:
            for ledger in [one for one in self._ledgers.values() if one.is_over(now_s)]:
                del self._ledgers[ledger.key]
            ledgers = sorted(self._ledgers.values(), key=lambda ledger: -ledger.used_at_s)[:MAX_BEAT_ACCOUNTS]
        if self._untold is None:
            self._untold = next(self._numbers), self._controllers.take_news()
        number, news = self._untold
        ask = {
            "number": number,
            "alive_ms": self.place.lease_s * 1000,
            "lease_ms": self.place.lease_s * 1000,
            "calls": self._held(),
            "accounts": [ledger.key for ledger in ledgers],
            "controllers": [[one.name, *one.words] for one in news],
        }

        def tell(answer: Any) -> None:
            if answer is None:
                return  # the news are said again, with their number
            self._untold = None
            workers, taken, opened, states, num_resets = answer
            least = self._known_workers if self._clock() < self._all_are_back_at_s else 0
            self._known_workers = max(int(workers), least)
            with budgets.lock:
                for ledger, amounts in zip(ledgers, taken, strict=True):
                    ledger.hear(amounts)
            is_reset = self._num_resets is not None and num_resets != self._num_resets
            self._num_resets = num_resets
            states_of = {member: (int(failures), ms / 1000) for member, ms, failures in opened}
            self._breakers.follow(states_of, self._clock(), is_reset=is_reset)
            self._controllers.follow(news, states)

        return _Command("beat", ask, tell)

    def _held(self) -> list[list[Any]]:
        with budgets.lock:
            running = [*self._running.values()]
        return [
            [one.id, one.asked["key"], "total" in one.asked, "of_member" in one.asked, one.id in self._probing]
            for one in running
            if "total" in one.asked or "of_member" in one.asked or one.id in self._probing
        ]

    def _lose(self, sent: Sequence[_Command], error: Exception) -> None:
        """Say that the server is lost, once, and have everybody who waits for it go on without."""
        self._disconnect()
        with budgets.lock:
            is_new = self._lost_at_s is None
            if is_new:
                self._lost_at_s = self._clock()
            left = [*sent, *self._drained()]
        if is_new:
            _log.warning(
                "The store at %s is lost (%s: %s). Until it answers again, this process keeps to its share of budgets, caps and rates, one "
                "of %d, and to its own circuit breakers.",
                self.place.shown,
                type(error).__name__,
                error,
                self.num_workers,
            )
        self._give_up(left)

    def _give_up(self, commands: Sequence[_Command]) -> None:
        """Tell who sent commands that nobody has answered; those that must not get lost are kept, before those that came later."""
        with self._applying:
            with budgets.lock:
                self._kept.extendleft(reversed([command for command in commands if command.is_kept]))
            for command in commands:
                if not command.is_kept:
                    command.on_answer(None)

    def _drained(self) -> list[_Command]:
        left: list[_Command] = []
        try:
            while True:
                if (command := self._queue.get_nowait()) is not None:
                    left.append(command)
        except Empty:
            return left

    def _find(self) -> None:
        """Say that the server answers again."""
        with budgets.lock:
            lost_for_s, self._lost_at_s = self.lost_for_s, None
            for command in self._kept:
                self._queue.put(command)
            self._kept.clear()
        _log.warning("The store at %s answers again, after %.3g s.", self.place.shown, lost_for_s)

    def _leave(self) -> None:
        """Send what is left, and take leave."""
        self._give_up(self._drained())
        try:
            if self._client is not None:
                go = _Command("go", {"calls": self._held()}, _ignore)
                self._send([*self._kept, go])
        except Exception as error:  # noqa: BLE001  # there is nobody left to go on with
            _log.debug("The store was left without taking leave: %s", error)
        finally:
            self._disconnect()

    # ---- forks

    def before_fork(self) -> None:
        """Have the thread of this process stop where it changes nothing."""
        self._applying.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Let it go on; a child begins as a process of its own, without what its parent's calls hold and what its parent tells others."""
        self._applying.release()
        if in_child:
            for ledger in self._ledgers.values():
                ledger.forget()
            self._controllers.take_news()
            self._begin()


class _ForgottenError(Exception):
    """The server does not know this process any more."""


def _read(answer: bytes) -> Any:
    return json.loads(answer.decode("utf-8", "surrogatepass"))


def _text_of(script: str) -> str:
    return files("langchain_rlfocal.execution").joinpath("scripts", f"{script}.lua").read_text("utf-8")


_stores: "weakref.WeakSet[RedisStore]" = weakref.WeakSet()
_forking: list[RedisStore] = []


def _before_fork() -> None:
    """Hold what other threads change, so that a child does not find it half changed; in the order in which they take it."""
    _forking[:] = list(_stores)
    for store in _forking:
        store.before_fork()
    budgets.lock.acquire()


def _after_fork(*, in_child: bool) -> None:
    budgets.lock.release()
    for store in reversed(_forking):
        store.after_fork(in_child=in_child)
    _forking.clear()


@atexit.register
def _close_all() -> None:
    for store in list(_stores):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(in_child=False),
        after_in_child=lambda: _after_fork(in_child=True),
    )

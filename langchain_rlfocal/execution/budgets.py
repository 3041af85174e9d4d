"""Budgets: what calls may cost together, and the accounts that hold them to it.

A call reserves the most that it can cost before it begins, and books what it did cost when it has ended; what is spent
and what is reserved count alike, so that calls that run at once cannot overrun a budget together. A call answers to
several accounts, and they all take it or none does. One lock guards every account: it is held for additions only, and
with one lock there is no order in which two could be taken the wrong way round.

Money and seconds are floats, and so are sums of them: a reservation fits if it passes its budget by no more than a
billionth of it (`TOLERANCE`), so that N equal parts of a budget fit into it. What is reserved is summed anew each time and
comes back to exactly zero; what is spent drifts by less than the tolerance within some million calls. Calls and tokens are
whole numbers and exact.

It measures nothing, prices nothing, and stops no call: whoever reserves says what a call can cost, and keeps to the seconds
that are granted.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.limits import Shared

TOLERANCE = 1e-9
"""The part of a budget in dollars or seconds that is rounding."""

_lock = threading.RLock()  # entered again by the ledgers that `reserve` asks while it holds it


@dataclass(frozen=True, slots=True)
class Budget:
    """What calls may spend together; None for any amount, 0 for nothing.

    Attributes:
        max_calls: Calls, attempts that fail included.
        max_tokens: Tokens of prompts and responses.
        max_usd: Dollars.
        max_seconds: Seconds that calls take, summed: two calls at once spend two seconds a second.

    Raises:
        InputError: A limit is negative or not finite, or no whole number where it must be one.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, kind, said in (
            ("max_calls", int, "a whole number"),
            ("max_tokens", int, "a whole number"),
            ("max_usd", int | float, "a finite number"),
            ("max_seconds", int | float, "a finite number"),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value < math.inf:
                raise InputError(f"`{name}` must be {said} of at least 0, got {value!r}. Leave it out for no limit.")


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost, or can cost.

    Attributes:
        calls: How many calls.
        tokens: Tokens of prompts and responses.
        usd: Dollars, of calls whose member has prices.
        seconds: Seconds that calls take, summed; a bound may be infinite.
    """

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd, self.seconds + other.seconds
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd, self.seconds - other.seconds
        )


_NOTHING = Usage()
_ANY = Budget()


class BudgetRefusal(Exception):  # noqa: N818  # no fault of anybody's: the budget does what it is for
    """A call was not let through, since it could overrun a budget.

    Attributes:
        limit: The limit that it could overrun, for example `"max_usd"`.
    """

    def __init__(self, message: str, *, limit: str = "") -> None:
        self.limit = limit
        super().__init__(message)


class Ledger(Shared):
    """What was spent, and what is reserved for calls that run.

    Any thread may use it. Copies are the same ledger, since copies of a model spend the same money; a pickle carries what was
    spent, and none of the reservations: the calls run elsewhere.

    Args:
        spent: What was spent before.
        name: What callers set its budget by.
    """

    def __init__(self, spent: Usage = _NOTHING, name: str = "budget") -> None:
        self._spent, self._name = spent, name
        self._held: dict[Reservation, Usage] = {}

    @property
    def spent(self) -> Usage:
        """What calls that have ended cost."""
        with _lock:
            return self._spent

    @property
    def reserved(self) -> Usage:
        """The most that calls that run can cost; their seconds only where a budget limits those."""
        with _lock:
            return sum(list(self._held.values()), _NOTHING)  # listed first: what is collected meanwhile may settle

    def reset(self) -> None:
        """Forget what was spent; calls that run keep their reservations, and are booked when they end."""
        with _lock:
            self._spent = _NOTHING

    def hold(self, reservation: "Reservation", cost: Usage) -> None:
        """Note what a reservation holds; `reserve` does so once every account has taken it."""
        with _lock:
            self._held[reservation] = cost

    def book(self, reservation: "Reservation", actual: Usage) -> None:
        """Free what a reservation holds and note what was spent instead; nothing where it holds nothing."""
        with _lock:
            if self._held.pop(reservation, None) is not None:
                self._spent += actual

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spent, self._name)

    def grant(self, bound: Usage, budget: Budget) -> Usage:
        """Return what a budget leaves of a bound; the lock is held.

        Raises:
            BudgetRefusal: It could be overrun.
        """
        if budget == _ANY:  # nothing to add up, however many calls run
            return bound
        all_spent, all_reserved = self.spent, self.reserved
        for limit in ("calls", "tokens", "usd", "seconds"):
            most = getattr(budget, f"max_{limit}")
            if most is None:
                continue
            spent, reserved, asked = (getattr(cost, limit) for cost in (all_spent, all_reserved, bound))
            tolerance = most * TOLERANCE if limit in {"usd", "seconds"} else 0
            left = most - spent - reserved
            if limit == "seconds" and left > tolerance:
                bound = replace(bound, seconds=min(asked, left))
            elif limit == "seconds" or asked > left + tolerance:
                raise _refusal(f"max_{limit}", self._name, most, spent, reserved, asked)
        return bound


class Reservation:
    """A place for one call in every account that it answers to; `reserve` makes it.

    Attributes:
        bound: What was granted; the call must end within its seconds.
    """

    __slots__ = ("_ledgers", "bound")

    def __init__(self, bound: Usage, ledgers: Sequence[Ledger]) -> None:
        self.bound, self._ledgers = bound, tuple(ledgers)

    def settle(self, actual: Usage) -> None:
        """Book what the call did cost and free what it held; only the first time has an effect.

        Args:
            actual: What it cost, even where that is more than was granted. What is below zero counts as zero: no report of a
                provider refills a budget.
        """
        with _lock:
            for ledger in self._ledgers:
                ledger.book(self, _from_zero(actual))


def reserve(bound: Usage, accounts: Sequence[tuple[Ledger, Budget]]) -> Reservation:
    """Reserve the most that a call can cost, in every account or in none.

    Calls, tokens and dollars are granted as asked for, where

        spent + reserved + bound ≤ budget.

    Of seconds a call is granted what the budgets leave, at most what it asks for, and is refused only where they leave none.
    Where no budget limits seconds they stay as asked for, and none are reserved.

    Args:
        bound: The most that the call can cost; its seconds may be infinite.
        accounts: The ledgers that it answers to, each with what may be spent there; a ledger may come twice.

    Raises:
        BudgetRefusal: The call could overrun a budget; nothing is reserved.
    """
    bound = _from_zero(bound)
    limits_seconds = any(budget.max_seconds is not None for _, budget in accounts)
    with _lock:
        for ledger, budget in accounts:
            bound = ledger.grant(bound, budget)
        ledgers = [ledger for ledger, _ in accounts]
        reservation = Reservation(bound, ledgers)
        for ledger in ledgers:
            ledger.hold(reservation, bound if limits_seconds else replace(bound, seconds=0.0))
    return reservation


def _refusal(limit: str, name: str, *amounts: float) -> BudgetRefusal:
    """Say what is over; the amounts are the limit, what is spent, what is reserved and what was asked for."""
    shown = (f"{amount:,}" if isinstance(amount, int) else f"{amount:.6g}" for amount in amounts)
    return BudgetRefusal(
        "`{}` of `{}` is {}, of which {} is spent and {} reserved for calls that run, and a call asked for {}.".format(
            limit, name, *shown
        ),
        limit=limit,
    )


def _from_zero(cost: Usage) -> Usage:
    return Usage(max(0, cost.calls), max(0, cost.tokens), max(0.0, cost.usd), max(0.0, cost.seconds))

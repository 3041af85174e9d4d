"""Purses: dollars that calls of a collection hold before they begin; one that several workers share knows of them all."""

from collections.abc import Sequence
from typing import Literal, Protocol

from langchain_rlfocal.execution import Budget, Usage
from langchain_rlfocal.execution.budgets import BudgetRefusal, Ledger, reserve


class Held(Protocol):
    """What one call holds.

    Attributes:
        bound: The most that it can take.
    """

    @property
    def bound(self) -> Usage:
        """The most that it can take."""

    def settle(self, actual: Usage) -> None:
        """Book what it did take."""


Refusal = Literal["later", "never"]
"""Why nothing is held: calls that are out may leave room for it; or none is out that could."""


class Purse(Protocol):
    """What a collection may spend.

    Attributes:
        poll_s: How often to try again what is held up by calls of others; None where all calls are one's own.
    """

    @property
    def poll_s(self) -> float | None:
        """How often to try again what is held up by calls of others."""

    async def hold(self, usd: Sequence[float]) -> Sequence[Held] | Refusal:
        """Hold all of these amounts, or none."""


class OwnPurse:
    """What one collection may spend by itself.

    Args:
        max_usd: Dollars; None for any amount.
    """

    poll_s = None

    def __init__(self, max_usd: float | None) -> None:
        self._ledger = Ledger()
        self._accounts = [(self._ledger, Budget(max_usd=max_usd))]

    async def hold(self, usd: Sequence[float]) -> Sequence[Held] | Refusal:
        """Hold all of these amounts, or none."""
        return self.hold_now(usd)

    def hold_now(self, usd: Sequence[float]) -> Sequence[Held] | Refusal:
        """Hold all of these amounts, or none."""
        held: list[Held] = []
        try:
            for amount in usd:
                held.append(reserve(Usage(usd=amount), self._accounts))  # noqa: PERF401  # what is held is given back
        except BudgetRefusal:
            for one in held:
                one.settle(Usage())
            return "later" if self._ledger.reserved.usd else "never"
        return held

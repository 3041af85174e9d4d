"""Shares: how several workers divide one collection, its order and its members' limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_rlfocal.log import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One worker's part of a collection that several share.

    Every worker asks all that nobody has asked; it begins with a part of its own, and then helps with the ends of others'. A
    member's calls at once are divided, so that together they stay within its limit.

    Attributes:
        number: The worker's, from 0.
        count: How many workers there are.
        failed_since: What failed after so many attempts were on record has failed in this collection, and is not asked again in it.
        scores_recorded: True for the one of them that scores what earlier runs left unscored.
    """

    number: int = 0
    count: int = 1
    failed_since: int | None = None
    scores_recorded: bool = True

    def calls(self, column: int, cap: int) -> int:
        """Return how many of a member's calls at once are this worker's; the odd ones go round by the member's column."""
        return cap // self.count + (self._place(column) < cap % self.count)

    def cells(self, column: int, cap: int, cells: Sequence[Cell]) -> tuple[Sequence[Cell], Sequence[Cell]]:
        """Divide what a member is to be asked into this worker's own and what others begin with, from its end."""
        sharing, place = min(self.count, cap), self._place(column)
        if place >= sharing:
            return (), ()
        first, last = (len(cells) * number // sharing for number in (place, place + 1))
        return cells[first:last], [*reversed(cells[last:]), *reversed(cells[:first])]

    def _place(self, column: int) -> int:
        return (self.number + column) % self.count

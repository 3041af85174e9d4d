"""What a scorer is given and what it says: values in [0, 1], or none.

A scorer says what a reply is worth. Where it cannot say, the reply is unscored, with the reason: that is not wrong. No scorer
of `open_scorer` raises, whatever a reply, a reference or a user's function does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.redaction import masked, printable

NO_REFERENCE = "the question has no reference"
_MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a member replied.

    Attributes:
        text: Its text, None where it gave none.
        tool_calls: The calls that it wants made, each with `name` and `args`.
    """

    text: str | None
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_nothing(self) -> bool:
        """True of a member that failed: neither a text, not even an empty one, nor a call."""
        return self.text is None and not self.tool_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a reply is worth.

    Attributes:
        value: In [0, 1]; None where it is unscored, which is not wrong.
        reason: Why, in one line for a person; None where there is nothing to say.
        cost_usd: Dollars that scoring took; None where that is unknown, 0 where nobody was paid.

    Raises:
        InputError: `value` is no number in [0, 1].
    """

    value: float | None
    reason: str | None = None
    cost_usd: float | None = 0.0

    def __post_init__(self) -> None:
        if self.value is not None and not (
            isinstance(self.value, int | float) and math.isfinite(self.value) and 0 <= self.value <= 1
        ):
            raise InputError(
                f"A score's `value` must be in [0, 1], or None for unscored, got {self.value!r:.80}. Scale it to that range."
            )


@runtime_checkable
class Scorer(Protocol):
    """Says what a reply is worth.

    One that asks the judge about each reply also has an attribute `asks_judge` that is True: it is priced before it is used.

    Attributes:
        name: The name that it is recorded under.
    """

    name: str

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""


@runtime_checkable
class GroupScorer(Scorer, Protocol):
    """Says what each of all replies to a question is worth, compared with the others."""

    async def score_all(self, question: Question, replies: Sequence[Reply]) -> list[Score]:
        """Score all replies to a question, in their order."""


@runtime_checkable
class PricedScorer(Scorer, Protocol):
    """Says before it is asked what asking it can cost, so that a limit of dollars holds."""

    def most_usd(self, question: Question, replies: Sequence[Reply]) -> float | None:
        """Return the most dollars that scoring all these replies can take; None where that is unknown."""


class Guarded:
    """A scorer that never raises: what its inner one raises makes the reply unscored, and a reply of nothing is worth 0.

    Args:
        inner: The scorer.
        is_free: True if it pays nobody.
    """

    def __init__(self, inner: Scorer, *, is_free: bool = False) -> None:
        self.name, self._inner, self._is_free = inner.name, inner, is_free
        self.asks_judge = bool(getattr(inner, "asks_judge", False))

    def most_usd(self, question: Question, replies: Sequence[Reply]) -> float | None:
        """Return the most dollars that scoring all these replies can take; None where that is unknown."""
        if self._is_free:
            return 0.0
        present = [reply for reply in replies if not reply.is_nothing]
        return self._inner.most_usd(question, present) if isinstance(self._inner, PricedScorer) else None

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if reply.is_nothing:
            return Score(value=0.0, reason="no reply")
        try:
            return await self._inner.score(question, reply)
        except Exception as error:  # noqa: BLE001  # a scorer may be a user's own code
            return unscored(error)


class GuardedGroup(Guarded):
    """The same for a scorer of all replies to a question."""

    def __init__(self, inner: GroupScorer) -> None:
        super().__init__(inner)
        self._group = inner

    async def score_all(self, question: Question, replies: Sequence[Reply]) -> list[Score]:
        """Score all replies to a question, in their order."""
        try:
            return await self._group.score_all(question, replies)
        except Exception as error:  # noqa: BLE001  # as above
            return [unscored(error)] * len(replies)


def unscored(why: str | BaseException, *, cost_usd: float | None = 0.0) -> Score:
    """Leave a reply unscored, with the reason in one line."""
    if isinstance(why, BaseException):
        said = masked(str(why)).strip()
        why = f"{type(why).__name__}: {said}" if said else type(why).__name__
    return Score(value=None, reason=printable(" ".join(why.split()))[:_MAX_REASON_CHARS], cost_usd=cost_usd)

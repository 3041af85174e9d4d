"""Grids: outcomes laid out square, queries x members, as learning and evaluation use them.

Every member of a grid answered every query of it, so there is no gap to fill; an unknown number is NaN and an answer that
could not be extracted is -1, and neither ever counts as zero. The split of the queries is a function of their text.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Split = Literal["train", "validation", "test"]
FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of train, validation and test where the caller names none."""

_SPLIT_SALT = b"rlfocal-split-1"


@dataclass(frozen=True, eq=False)
class OutcomeGrid:
    """The outcomes of Q queries and M members, square: every member answered every query.

    Attributes:
        members: Names of the members, M of them.
        tasks: Each query's task, Q of them.
        query_ids: Each query's name within its task.
        queries: Each query's text.
        golds: Each query's right answer, None where unknown.
        answer_ids: Shape [Q, M], int32. Members of a row with the same answer share an id, the index of the first of
            them; -1 where no answer was extracted.
        answers: Shape [Q, M], the answers themselves (`str` or None).
        scores: Shape [Q, M], in [0, 1].
        cost_usd: Shape [Q, M]; NaN is unknown, here and in the four arrays below.
        latency_s: Shape [Q, M].
        prompt_tokens: Shape [Q, M].
        completion_tokens: Shape [Q, M].
        logprobs: Shape [Q, M].
        dropped: How many queries were left out because a member did not answer; 0 in a part of a grid.
    """

    members: tuple[str, ...]
    tasks: list[str]
    query_ids: list[str]
    queries: list[str]
    golds: list[str | None]
    answer_ids: npt.NDArray[np.int32]
    answers: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float64]
    cost_usd: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]
    prompt_tokens: npt.NDArray[np.float64]
    completion_tokens: npt.NDArray[np.float64]
    logprobs: npt.NDArray[np.float64]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, index: npt.ArrayLike) -> "OutcomeGrid":
        """Return the queries at `index` (positions, or a mask of length Q), in that order."""
        rows = np.arange(len(self))[np.asarray(index, dtype=None if np.size(index) else np.int64)]
        parts: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                parts[field.name] = value[rows]
            elif isinstance(value, list):
                parts[field.name] = [value[row] for row in rows]
        return OutcomeGrid(members=self.members, **parts)

    def split(
        self, *, fractions: tuple[float, float, float] = FRACTIONS
    ) -> tuple["OutcomeGrid", "OutcomeGrid", "OutcomeGrid"]:
        """Part the queries into train, validation and test by `split_of` each query's text."""
        sides = np.array([split_of(query, fractions=fractions) for query in self.queries], dtype=object)
        train, validation, test = (self.take(np.flatnonzero(sides == side)) for side in get_args(Split))
        return train, validation, test


def split_of(query: str, *, fractions: tuple[float, float, float] = FRACTIONS) -> Split:
    """Say which part a query belongs to, by its text alone.

    The first 8 bytes of BLAKE2b of the text in UTF-8, personalised with the salt `rlfocal-split-1`, read as a big-endian
    number and divided by 2^64, are the query's place in [0, 1); train comes first, then validation, then test. So the same
    text is on the same side in every file, every run and every version.

    Args:
        query: The query's text, unchanged.
        fractions: Shares of train, validation and test; they sum to 1.

    Raises:
        InputError: `fractions` are not three shares that sum to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1.0):
        raise InputError(f"`fractions` must be three shares that sum to 1, got {fractions!r}. For example {FRACTIONS}.")
    digest = hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=8, person=_SPLIT_SALT).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < fractions[0]:
        return "train"
    return "validation" if place < fractions[0] + fractions[1] else "test"

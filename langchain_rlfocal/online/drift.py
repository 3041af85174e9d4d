"""Drift: which members fell below what is expected of them, and which of those came back.

Every judged answer of a member is a bet against it. With s its score in [0, 1], b what it should at least reach, and f a share of
the stake in (0, 1), the stake grows by

    L = 1 + f (b − s) / (1 − b)

whose mean is at most 1 as long as the member's mean score, given all that came before, is at least b. The bets of several f
are averaged, and a new one starts with each answer, since nobody knows when a member breaks:

    Sₜ = (1 + Sₜ₋₁) Lₜ        alarm where the mean of S over f reaches A

`S − t` is a supermartingale, so the mean number of judged answers until a false alarm, its average run length, is at least A. That
holds for any scores in [0, 1], dependent or not, as long as whether an answer is judged does not depend on what it is worth. Of
M members together it is at least A / M judged answers.

A member left out is asked on a small share of the queries, by the hash of a key, and the mirrored bet finds it again:

    L = 1 + f (s − b) / b        with b half of what was expected of it when it fell

Source: Shin, Ramdas and Rinaldo, 2023, "E-detectors: a nonparametric framework for sequential change detection",
https://arxiv.org/abs/2203.03532 (Shiryaev-Roberts e-detectors, definition 2.2 and theorem 2.4).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.online.arrays import checked_array
from langchain_rlfocal.states import Floats

STAKES = np.array([0.1, 0.25, 0.5, 0.75, 0.95])
"""Shares f that are betted at once: small ones find small falls, large ones find large ones soon."""

DEVIATIONS = 2.0
"""How many standard deviations of the estimate a score may be below it, beside the tolerance."""

_MEMORY = 50.0
_LOWEST = 0.05


def bet_on_fall(stakes: Floats, score: float, least: float) -> Floats:
    """Multiply each stake f by 1 + f (b − s) / (1 − b): its mean is at most 1 while the mean score is at least b."""
    return np.asarray(1.0 + stakes * (least - score) / (1.0 - least))


def bet_on_rise(stakes: Floats, score: float, most: float) -> Floats:
    """Multiply each stake f by 1 + f (s − b) / b: its mean is at most 1 while the mean score is at most b."""
    return np.asarray(1.0 + stakes * (score - most) / most)


class DriftMonitor:
    """Watches every member of a pool.

    Args:
        members: Names of the members, M of them.
        tolerance: How far a member's mean score may be below what is expected, which is an estimate itself:
            by this and `DEVIATIONS` times what it may be off by.
        run_length: Mean number of a member's judged answers until a false alarm, at least: A.
        return_run_length: The same for a member left out that is still as bad: how many judged answers until it is wrongly
            taken for recovered.
        probe_share: Share of the queries on which a member left out is asked.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        members: Sequence[str],
        *,
        tolerance: float = 0.05,
        run_length: float = 10_000.0,
        return_run_length: float = 100.0,
        probe_share: float = 0.05,
    ) -> None:
        for name, value, high in (("tolerance", tolerance, 0.5), ("probe_share", probe_share, 1.0)):
            if not 0 <= value <= high:
                raise InputError(f"`{name}` must be in [0, {high:g}], got {value}. Leave it out for the default.")
        if not min(run_length, return_run_length) > 1:
            raise InputError(f"Run lengths must exceed 1, got {run_length} and {return_run_length}. Take 100 or more.")
        self.members, self.tolerance, self.probe_share = tuple(members), tolerance, probe_share
        self.run_length, self.return_run_length = run_length, return_run_length
        self._row = {name: row for row, name in enumerate(self.members)}
        self._sums: Floats = np.zeros((len(self.members), len(STAKES)))
        self._expected: Floats = np.full(len(self.members), np.nan)
        self._out: Floats = np.zeros(len(self.members))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Members that fell and did not come back yet, in the pool's order."""
        return tuple(name for name, out in zip(self.members, self._out.tolist(), strict=True) if out)

    def expected(self, member: str) -> float:
        """Return what was expected of a member lately, the mean over about 50 judged answers; NaN before the first."""
        return float(self._expected[self._row[member]])

    def update(
        self, member: str, score: float, predicted: float, deviation: float = 0.0
    ) -> Literal["fell", "recovered"] | None:
        """Take one judged answer.

        Args:
            member: Whose answer.
            score: What it was worth, in [0, 1]; 0 for a failure.
            predicted: The member's competence near the query, as estimated before the answer was judged.
            deviation: Standard deviation of that estimate. A member about whom little is known has not fallen if it is worse
                than the guess.

        Returns:
            `"fell"` where the member is left out from now on, `"recovered"` where it is not any more, None where nothing changed.
        """
        row = self._row[member]
        is_out = bool(self._out[row])
        if is_out:
            growth = bet_on_rise(STAKES, score, max(float(np.nan_to_num(self._expected[row], nan=0.5)) / 2, _LOWEST))
        else:
            least = predicted - self.tolerance - DEVIATIONS * deviation
            growth = bet_on_fall(STAKES, score, min(max(least, 0.0), 1.0 - _LOWEST))
            before = self._expected[row]
            self._expected[row] = predicted if np.isnan(before) else before + (predicted - before) / _MEMORY
        self._sums[row] = (1.0 + self._sums[row]) * growth
        if self._sums[row].mean() < (self.return_run_length if is_out else self.run_length):
            return None
        self._sums[row] = 0.0
        self._out[row] = 0.0 if is_out else 1.0
        return "recovered" if is_out else "fell"

    def bring_back(self, member: str) -> None:
        """Take a member in again, and watch it from the start."""
        row = self._row[member]
        self._sums[row], self._out[row] = 0.0, 0.0

    def leave_out(self, member: str) -> None:
        """Leave a member out until it is found to have recovered."""
        row = self._row[member]
        self._sums[row], self._out[row] = 0.0, 1.0

    def probes(self, key: str) -> tuple[str, ...]:
        """Say which of the members left out are to be asked beside the team.

        Args:
            key: Names the query, such as an answer's id: the same key gives the same members, in every process.
        """
        chosen = []
        for name in self.left_out:
            digest = hashlib.blake2b(f"{name}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if int.from_bytes(digest, "big") < self.probe_share * 2**64:
                chosen.append(name)
        return tuple(chosen)

    def arrays(self) -> dict[str, Floats]:
        """Return all that was learned, as arrays by name."""
        return {"sums": self._sums.copy(), "expected": self._expected.copy(), "out": self._out.copy()}

    def restore(self, arrays: Mapping[str, Floats]) -> Self:
        """Continue from what `arrays` returned.

        Raises:
            InputError: An array is missing or of another shape, as of another pool.
        """
        restored = {name: checked_array(arrays, name, mine.shape) for name, mine in self.arrays().items()}
        self._sums, self._expected, self._out = restored["sums"], restored["expected"], restored["out"]
        return self

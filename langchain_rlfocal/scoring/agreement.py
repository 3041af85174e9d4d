"""Agreement: how well a scorer's verdicts go with those of people.

Each verdict is right or wrong: a score of ½ or more is right. Accuracy says how often both say the same; Cohen's kappa how much
more often than two who say right as often as these, but at random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_rlfocal.errors import InputError

_Z = 1.959963984540054
"""Half the width of a 95% interval of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well scores go with labels.

    Attributes:
        n: Replies that have both.
        both_right: Replies that both call right.
        both_wrong: Replies that both call wrong.
        too_kind: Replies that the scorer calls right and people wrong.
        too_harsh: Replies that the scorer calls wrong and people right.
    """

    both_right: int
    both_wrong: int
    too_kind: int
    too_harsh: int

    @classmethod
    def of(cls, scores: Sequence[float], labels: Sequence[float]) -> "Agreement":
        """Count.

        Args:
            scores: What the scorer said, in [0, 1].
            labels: What people said of the same replies, in [0, 1].

        Raises:
            InputError: There are none, or not as many of one as of the other.
        """
        if not scores or len(scores) != len(labels):
            raise InputError(
                f"Agreement needs a label for each of at least one score, got {len(labels)} for {len(scores)}. Check their ids."
            )
        said = [(score >= 0.5, label >= 0.5) for score, label in zip(scores, labels, strict=True)]
        pairs = ((True, True), (False, False), (True, False), (False, True))
        return cls(*(said.count(pair) for pair in pairs))

    @property
    def n(self) -> int:
        """Replies that have both."""
        return self.both_right + self.both_wrong + self.too_kind + self.too_harsh

    @property
    def accuracy(self) -> float:
        """Share of the replies of which both say the same."""
        return (self.both_right + self.both_wrong) / self.n

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's interval of the accuracy, 95%: the p with |p̂ − p| ≤ z √(p (1 − p) / n)."""
        n, p, z = self.n, self.accuracy, _Z
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, (p_o − p_e) / (1 − p_e); None where both always say one and the same, so that it is 0 / 0."""
        _, by_chance = self._shares()
        return None if by_chance >= 1 else (self.accuracy - by_chance) / (1 - by_chance)

    @property
    def kappa_interval(self) -> tuple[float, float] | None:
        """Interval of kappa by its large-sample standard error, 95%; None where kappa is.

        With p_ij the share that the scorer puts into i and people into j, and κ for kappa:

            A = Σ p_ii (1 − (p_i. + p_.i)(1 − κ))²
            B = (1 − κ)² Σ_(i≠j) p_ij (p_.i + p_j.)²
            C = (κ − p_e (1 − κ))²
            se = √((A + B − C) / n) / (1 − p_e)

        Source: Fleiss, Cohen & Everitt, 1969, equation 13. https://doi.org/10.1037/h0028106
        """
        kappa = self.kappa
        if kappa is None:
            return None
        shares, by_chance = self._shares()
        rows = [sum(row) for row in shares]
        columns = [sum(column) for column in zip(*shares, strict=True)]
        same = sum(shares[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
        other = (1 - kappa) ** 2 * sum(shares[i][1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
        spread = max(0.0, same + other - (kappa - by_chance * (1 - kappa)) ** 2)
        half = _Z * math.sqrt(spread / self.n) / (1 - by_chance)
        return max(-1.0, kappa - half), min(1.0, kappa + half)

    def _shares(self) -> tuple[list[list[float]], float]:
        """Return the shares, the scorer's verdict down and people's across, and how much agreement chance gives."""
        counts = [[self.both_right, self.too_kind], [self.too_harsh, self.both_wrong]]
        shares = [[count / self.n for count in row] for row in counts]
        by_chance = sum(sum(shares[i]) * (shares[0][i] + shares[1][i]) for i in (0, 1))
        return shares, by_chance

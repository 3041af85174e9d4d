"""Off-policy comparison: what a new policy would have been worth on queries that an old one answered.

The old policy is deterministic, but a share ε of the queries asks, at once, a uniformly random team of k of the n available
members. What the new policy would have done is played on the logged answers, round by round. It is known where everyone it
would ask was asked, and so is the old one's where its choice was not followed. With T and D the two teams of a query, both are
seen with probability

    P = (1 − ε) [T ⊆ D] + ε C(n − u, k − u) / C(n, k)        u = |T ∪ D|

which is known wherever they are seen. The doubly robust difference of a query is then

    x = g + [seen] (score of new − score of old − g) / P

with g what a model expects, from the query alone; a score is taken less what the calls cost, by the query's cost weight. Its mean is the mean difference whatever g says, and its variance the less the
better g is. Queries with P below 1 / `max_weight`, where nothing or next to nothing can be seen, count as g alone: of these the
comparison knows what the model knows. A new answer that nobody judged counts as wrong, and an old one as right: what is not known
speaks against the new policy.

The interval holds at all times at once, so it may be looked at after every query: with λₜ and μ̂ₜ₋₁ chosen before xₜ, and Rₜ the
largest |xₜ − μ̂ₜ₋₁| possible,

    Σ λₜ xₜ / Σ λₜ  ±  (log(2/a) + Σ (xₜ − μ̂ₜ₋₁)² φ(λₜ)) / Σ λₜ        φ(λ) = (−log(1 − λR) − λR) / R²

covers the mean difference at every t with probability 1 − a. Where that mean changes, it covers the mean weighted by λ.

Sources: Dudík, Langford and Li, 2011, https://arxiv.org/abs/1103.4601 (doubly robust); Waudby-Smith and Ramdas, 2023,
https://arxiv.org/abs/2010.09686, theorem 2 (predictable plug-in empirical Bernstein), after Howard et al., 2021,
https://arxiv.org/abs/1810.08240 (time-uniform).
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.online.arrays import checked_array
from langchain_rlfocal.online.records import Feedback, ServedAnswer
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.states import Floats

MAX_MODEL = 0.2
"""What the model expects counts as at most this much: a larger expectation would widen every interval."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What a policy did, or would have done, on one query.

    Attributes:
        asked: Members asked over all rounds.
        score: What its answer is worth; None where nobody judged it.
        charge: What its calls cost in units of score, in [0, 1].
    """

    asked: frozenset[str]
    score: float | None
    charge: float = 0.0


def logged(served: ServedAnswer, feedback: Feedback) -> Trajectory:
    """Tell what was done on a query."""
    return Trajectory(served.asked, feedback.score, _charge(served, served.asked))


def _charge(served: ServedAnswer, asked: Collection[str]) -> float:
    """Charge calls alike: what asking the whole pool is worth, by the share of it that was asked."""
    return min(served.cost_weight * len(asked) / max(len(served.available), 1), 1.0)


def follow(policy: EnsemblePolicy, served: ServedAnswer, feedback: Feedback) -> Trajectory | None:
    """Play a policy on the answers that were logged of one query.

    Returns:
        What it would have done; None where it would ask a member that was not asked, or that it does not know of.
    """
    results: dict[str, Candidate | Failure] = {one.member: one for one in served.candidates}
    results |= {one.member: one for one in served.failures}
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    for round_number in range(1, served.max_rounds + 1):
        selection = policy.select(
            served.query,
            candidates,
            failures,
            available=served.available,
            round_number=round_number,
            max_rounds=served.max_rounds,
            max_team=served.max_team,
            cost_weight=served.cost_weight,
        )
        if not selection.members:
            break
        if not results.keys() >= set(selection.members):
            return None
        for member in selection.members:
            result = results[member]
            if isinstance(result, Candidate):
                candidates.append(result)
            else:
                failures.append(result)
        if len(candidates) + len(failures) >= min(served.max_team, len(served.available)):
            break
    asked = frozenset([*(one.member for one in candidates), *(one.member for one in failures)])
    charge = _charge(served, asked)
    if not candidates:
        return Trajectory(asked, 0.0, charge)
    answer = policy.fuse(served.query, candidates, failures, max_team=served.max_team)
    if answer.answer is not None and answer.answer == served.answer.answer:
        return Trajectory(asked, feedback.score, charge)
    return Trajectory(asked, feedback.scores_of(served).get(answer.member or ""), charge)


def chance_within(size: int, team: int, available: int) -> float:
    """Return the chance that a uniformly random team of `team` of the available members holds `size` given ones."""
    return math.comb(available - size, team - size) / math.comb(available, team) if size <= team else 0.0


def chance_seen(old: Trajectory, new: Trajectory, served: ServedAnswer) -> float:
    """Return P, the probability that both trajectories of this query are seen."""
    num = len(served.available)
    random = chance_within(len(old.asked | new.asked), min(served.max_team, num), num)
    return (1.0 - served.explore) * (new.asked <= old.asked) + served.explore * random


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the new policy is than the old: in scores less what calls cost.

    Attributes:
        mean: Estimated mean difference.
        low: Its lower bound, at all times at once.
        high: Its upper bound.
        count: Queries compared.
        seen: Share of them on which both trajectories were seen.
    """

    mean: float
    low: float
    high: float
    count: int
    seen: float


class Comparison:
    """Collects doubly robust differences and bounds their mean.

    Args:
        error: Probability that the interval ever misses the mean difference: a.
        max_weight: Queries that are seen with a lower probability than 1 over this count as the model's expectation.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(self, *, error: float = 0.05, max_weight: float = 20.0) -> None:
        if not 0 < error < 1 or not 1 < max_weight < math.inf:
            raise InputError(
                f"`error` must be in (0, 1) and `max_weight` above 1, got {error} and {max_weight}. Take 0.05 and 20."
            )
        self.error, self.max_weight = error, max_weight
        # Queries, seen, Σ λ, Σ λ x, Σ (x − μ̂)² φ, Σ x, Σ (x − μ̂)².
        self._sums: Floats = np.zeros(7)

    def add(self, served: ServedAnswer, old: Trajectory | None, new: Trajectory | None, expected: float = 0.0) -> None:
        """Compare both on one query.

        Args:
            served: The query and how it was logged.
            old: What the policy that logged it did, or would have done if another team was explored; None if unseen.
            new: What the other would have done; None if unseen.
            expected: The model's expectation of the difference, from the query alone: not from any answer to it.
        """
        expected = min(max(expected, -MAX_MODEL), MAX_MODEL)
        chance = 0.0 if old is None or new is None else chance_seen(old, new, served)
        value, seen = expected, chance * self.max_weight >= 1.0
        if seen and old is not None and new is not None:
            worth_new = 0.0 if new.score is None else new.score
            worth_old = 1.0 if old.score is None else old.score
            value += (worth_new - new.charge - worth_old + old.charge - expected) / chance
        self._add(value, seen=seen, weight=self._largest_weight(served), charge=min(served.cost_weight, 1.0))

    def _largest_weight(self, served: ServedAnswer) -> float:
        """Find the largest 1 / P that counts, before anything was asked."""
        num, share = len(served.available), served.explore
        team, floor = min(served.max_team, num), 1.0 / self.max_weight
        chances = [share * chance_within(size, team, num) for size in range(1, team + 1)]
        chances += [1.0 - share + chance for chance in chances]
        return 1.0 / min((chance for chance in chances if chance >= floor), default=1.0)

    def _add(self, value: float, *, seen: bool, weight: float, charge: float) -> None:
        count, _, _, _, _, total, squares = self._sums
        number = count + 1
        # Half a difference and a variance of a quarter stand for what was not seen yet.
        mean = min(max(total / number, -2.0), 2.0)
        variance = (0.25 + squares) / number
        largest = weight * (1.0 + charge + MAX_MODEL) + MAX_MODEL + 2.0
        stake = math.sqrt(2.0 * math.log(2.0 / self.error) / (variance * number * math.log1p(number)))
        stake = min(stake, 0.5 / largest)
        growth = (-math.log1p(-stake * largest) - stake * largest) / largest**2
        deviation = (value - mean) ** 2
        self._sums = self._sums + np.array(
            [1.0, float(seen), stake, stake * value, deviation * growth, value, deviation]
        )

    @property
    def difference(self) -> Difference:
        """What is known by now; nothing, from -2 to 2, before the first query."""
        count, seen, stakes, weighted, growth, _, _ = self._sums.tolist()
        if not count:
            return Difference(0.0, -2.0, 2.0, 0, 0.0)
        mean, radius = weighted / stakes, (math.log(2.0 / self.error) + growth) / stakes
        return Difference(mean, max(mean - radius, -2.0), min(mean + radius, 2.0), int(count), seen / count)

    def arrays(self) -> dict[str, Floats]:
        """Return all that was collected, as arrays by name."""
        return {"sums": self._sums.copy()}

    def restore(self, arrays: Mapping[str, Floats]) -> Self:
        """Continue from what `arrays` returned.

        Raises:
            InputError: The array is missing or of another shape.
        """
        self._sums = checked_array(arrays, "sums", self._sums.shape)
        return self


def expected_difference(old: EnsemblePolicy, new: EnsemblePolicy, served: ServedAnswer, judge: EnsemblePolicy) -> float:
    """Expect of each policy the highest competence of those it asks first, by what the judge knows of members.

    It looks at the query and at no answer, as `Comparison.add` demands.
    """
    competence, worth = judge.competence(served.query), []
    for policy in (new, old):
        first = policy.select(
            served.query,
            (),
            (),
            available=served.available,
            round_number=1,
            max_rounds=served.max_rounds,
            max_team=served.max_team,
            cost_weight=served.cost_weight,
        )
        worth.append(max(competence[member] for member in first.members))
    return worth[0] - worth[1]


def compare(
    old: EnsemblePolicy,
    new: EnsemblePolicy,
    log: Iterable[tuple[ServedAnswer, Feedback]],
    *,
    judge: EnsemblePolicy | None = None,
    error: float = 0.05,
    max_weight: float = 20.0,
) -> Difference:
    """Compare two fixed policies on what was logged while the old one served.

    Args:
        old: The policy that served, but for explored answers.
        new: The policy to judge.
        log: Served answers and what users said of them.
        judge: Knows members' competence, from which `expected_difference` follows; without it none is expected. It must not
            have learned from this log.
        error: See `Comparison`.
        max_weight: See `Comparison`.
    """
    comparison = Comparison(error=error, max_weight=max_weight)
    for served, feedback in log:
        guess = 0.0 if judge is None else expected_difference(old, new, served, judge)
        comparison.add(served, *follow_both(old, new, served, feedback), guess)
    return comparison.difference


def follow_both(
    old: EnsemblePolicy, new: EnsemblePolicy, served: ServedAnswer, feedback: Feedback
) -> tuple[Trajectory | None, Trajectory | None]:
    """Find what the old policy did, or would have done, and what the new one would have; see `follow`."""
    did = follow(old, served, feedback) if served.explored else logged(served, feedback)
    return did, follow(new, served, feedback)

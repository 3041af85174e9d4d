"""Off-policy comparison: what a new policy would have been worth on queries that an old one answered.

The old policy is deterministic, but a share ε of the queries asks, at once, a uniformly random team of k of the n available
members. What either policy would have done is played on the logged answers, round by round; it is seen where everyone it would ask
was asked. With T and D the teams that the new and the old policy ask of a query, both are seen with the probability

    P = (1 − ε) [T ⊆ D] + ε C(n − u, k − u) / C(n, k)        u = |T ∪ D|

which is known wherever they are. Of how much the new answer is better than the old, in score less a charge for calls by the query's
cost weight, a query then tells

    x = e + [both are seen] (new − old − e) / P

with e what a model expects of the difference by the query alone. That is doubly robust: the mean is right whatever e says, as long as no
P is 0, and the variance is the less the better e is. Only differences of both count: were the one seen and the other only expected, a
model's opinion would be paid for with what calls really cost. Where P is below 1 / `max_weight`, or someone that a policy asks was
called off (unless the policy says that nothing of theirs can change its answer), x = e. So with e = 0, as `Guard` has it, what is not
seen counts as no difference. An answer that nobody judged counts as wrong where it is the new policy's.

The interval holds at all times at once, so it may be looked at after every query: with λₜ and μ̂ₜ₋₁ chosen before xₜ, and Rₜ the
largest |xₜ − μ̂ₜ₋₁| possible,

    Σ λₜ xₜ / Σ λₜ  ±  (log(2/a) + Σ (xₜ − μ̂ₜ₋₁)² φ(λₜ)) / Σ λₜ        φ(λ) = (−log(1 − λR) − λR) / R²

covers the mean difference at every t with probability 1 − a. Where that mean changes, it covers the mean weighted by λ.

Sources: Dudík, Langford and Li, 2011, https://arxiv.org/abs/1103.4601 (doubly robust); Waudby-Smith and Ramdas, 2023,
https://arxiv.org/abs/2010.09686, theorem 2 (predictable plug-in empirical Bernstein), after Howard et al., 2021,
https://arxiv.org/abs/1810.08240 (time-uniform).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.log import CALLED_OFF, Feedback, ServedAnswer
from langchain_rlfocal.online.arrays import checked_array
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.states import Floats


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What a policy did, or would have done, on one query, as far as the logged answers tell.

    Attributes:
        rounds: The members that it asks in each round; after the first round with a member that was not asked nothing is known.
        is_seen: True if everyone it asks was asked, so that its answer is known.
        score: What its answer is worth; None where nobody judged it, or it is not seen.
        charge: What its calls cost in units of score, in [0, 1].
        is_cut: True if it is not seen since someone that it asks was called off.
    """

    rounds: tuple[frozenset[str], ...]
    is_seen: bool
    score: float | None
    charge: float = 0.0
    is_cut: bool = False

    @property
    def asked(self) -> frozenset[str]:
        """Everyone it is known to ask."""
        return frozenset().union(*self.rounds)


def done_by(policy: EnsemblePolicy, served: ServedAnswer, feedback: Feedback) -> Trajectory:
    """Tell what the policy that served did; or would have done, where a random team was asked, or others beside its own."""
    is_its_own = not served.explored and served.asked.issubset(served.available)
    return logged(served, feedback) if is_its_own else follow(policy, served, feedback)


def logged(served: ServedAnswer, feedback: Feedback) -> Trajectory:
    """Tell what was done on a query, by whoever decided it."""
    rounds: dict[int, set[str]] = {}
    for one in served.candidates:
        rounds.setdefault(one.round, set()).add(one.member)
    for failure in served.failures:
        rounds.setdefault(failure.round, set()).add(failure.member)
    teams = [frozenset(rounds[number]) for number in sorted(rounds)]
    return _trajectory(served, teams, feedback.score)


def follow(policy: EnsemblePolicy, served: ServedAnswer, feedback: Feedback) -> Trajectory:
    """Play a policy on the answers that were logged of one query; who was called off was not asked."""
    results: dict[str, Candidate | Failure] = {one.member: one for one in served.candidates}
    results |= {one.member: one for one in served.failures if one.kind not in CALLED_OFF}
    candidates: list[Candidate] = []
    failures: list[Failure] = []
    rounds: list[frozenset[str]] = []
    while not _is_full(served, rounds):
        selection = policy.select(
            served.query,
            candidates,
            failures,
            available=served.available,
            round_number=len(rounds) + 1,
            max_rounds=served.max_rounds,
            max_team=served.max_team,
            cost_weight=served.cost_weight,
            price_factors=served.price_factors,
        )
        if not selection.members:
            break
        rounds.append(frozenset(selection.members))
        missing = [member for member in selection.members if member not in results]
        if not served.asked.issuperset(missing):
            return _trajectory(served, rounds, None, is_seen=False)
        for member in selection.members:
            result = results.get(member)
            if isinstance(result, Candidate):
                candidates.append(result)
            elif result is not None:
                failures.append(result)
        if missing and not (_is_full(served, rounds) and _is_decided(policy, served, candidates, failures, missing)):
            return replace(_trajectory(served, rounds, None, is_seen=False), is_cut=True)
    if not candidates:
        return _trajectory(served, rounds, 0.0)
    answer = policy.fuse(served.query, candidates, failures, max_team=served.max_team)
    if answer.answer is not None and answer.answer == served.answer.answer:
        return _trajectory(served, rounds, feedback.score)
    return _trajectory(served, rounds, feedback.scores_of(served).get(answer.member or ""))


def _is_decided(
    policy: EnsemblePolicy,
    served: ServedAnswer,
    candidates: Sequence[Candidate],
    failures: Sequence[Failure],
    missing: Sequence[str],
) -> bool:
    """Tell whether the policy promises its answer, whatever these members would have said."""
    if not candidates:
        return False
    return policy.commitment(served.query, candidates, failures, running=missing).confidence > 0


def _is_full(served: ServedAnswer, rounds: Sequence[frozenset[str]]) -> bool:
    asked = sum(map(len, rounds))
    return len(rounds) >= served.max_rounds or asked >= min(served.max_team, len(served.available))


def _trajectory(
    served: ServedAnswer, rounds: Sequence[frozenset[str]], score: float | None, *, is_seen: bool = True
) -> Trajectory:
    """Charge calls alike: what asking the whole pool is worth, by the share of it that was asked."""
    charge = min(served.cost_weight * sum(map(len, rounds)) / max(len(served.available), 1), 1.0)
    return Trajectory(tuple(rounds), is_seen, score, charge)


def chance_within(size: int, team: int, available: int) -> float:
    """Return the chance that a uniformly random team of `team` of the available members holds `size` given ones."""
    return math.comb(available - size, team - size) / math.comb(available, team) if size <= team else 0.0


def chance_seen(old: Trajectory, new: Trajectory, served: ServedAnswer) -> float:
    """Return P, the probability that both trajectories are seen; 0 where they are not on this query."""
    if not old.is_seen or not new.is_seen:
        return 0.0
    num = len(served.available)
    chance = chance_within(len(new.asked | old.asked), min(served.max_team, num), num)
    return (1.0 - served.explore) * (new.asked <= old.asked) + served.explore * chance


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
        max_weight: Queries on which both are seen with a lower probability than 1 over this count as expected.

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

    def add(self, served: ServedAnswer, old: Trajectory, new: Trajectory, *, expected: float = 0.0) -> None:
        """Compare both on one query.

        Args:
            served: The query and how it was logged.
            old: What the policy that logged it did, or would have done if another team was explored.
            new: What the other would have done.
            expected: What a model expects of the difference, e, in [-1, 1], by the query alone: not by any answer to it.
        """
        chance, value = chance_seen(old, new, served), min(max(expected, -1.0), 1.0)
        seen = chance * self.max_weight >= 1.0 and not (old.is_cut or new.is_cut)
        if seen:
            of_old = (1.0 if old.score is None else old.score) - old.charge
            value += ((new.score or 0.0) - new.charge - of_old - value) / chance
        self._add(value, seen=seen, weight=self._largest_weight(served, old, new), charge=min(served.cost_weight, 1.0))

    def _largest_weight(self, served: ServedAnswer, old: Trajectory, new: Trajectory) -> float:
        """Find the largest 1 / P that counts, by what is known before anything is asked: whom both ask first."""
        num, share = len(served.available), served.explore
        team, first = min(served.max_team, num), frozenset().union(*old.rounds[:1], *new.rounds[:1])
        random = [share * chance_within(size, team, num) for size in range(len(first), team + 2)]
        chances = [*random, *(1.0 - share + chance for chance in random)]
        return 1.0 / min((chance for chance in chances if chance * self.max_weight >= 1.0), default=1.0)

    def _add(self, value: float, *, seen: bool, weight: float, charge: float) -> None:
        count, _, _, _, _, total, squares = self._sums
        number = count + 1
        # Half a difference and a variance of a quarter stand for what was not seen yet.
        mean = min(max(total / number, -2.0), 2.0)
        variance = (0.25 + squares) / number
        largest = 2.0 * weight * (1.0 + charge) + 3.0
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
        mean = min(max(weighted / stakes, -2.0), 2.0)
        radius = (math.log(2.0 / self.error) + growth) / stakes
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


def expected_score(policy: EnsemblePolicy, served: ServedAnswer, judge: EnsemblePolicy) -> float:
    """Expect of a policy the highest competence of those it asks first, by what the judge knows of members.

    It looks at the query and at no answer, as `Comparison.add` demands, and at no charge.
    """
    first = policy.select(
        served.query,
        (),
        (),
        available=served.available,
        round_number=1,
        max_rounds=served.max_rounds,
        max_team=served.max_team,
        cost_weight=served.cost_weight,
        price_factors=served.price_factors,
    )
    competence = judge.competence(served.query)
    return max(competence[member] for member in first.members)


def compare(
    old: EnsemblePolicy,
    new: EnsemblePolicy,
    log: Iterable[tuple[ServedAnswer, Feedback]],
    *,
    judge: EnsemblePolicy | None = None,
    error: float = 0.05,
    max_weight: float = 20.0,
) -> Difference:
    """Compare two fixed policies on what was logged while the old one served, without what it did not decide (`pinned`).

    Args:
        old: The policy that served, but for explored answers.
        new: The policy to judge.
        log: Served answers and what users said of them.
        judge: Knows members' competence, from which `expected_score` follows; without it no difference is expected. It must not
            have learned from this log.
        error: See `Comparison`.
        max_weight: See `Comparison`.
    """
    comparison = Comparison(error=error, max_weight=max_weight)
    for served, feedback in log:
        if served.pinned:
            continue
        did = done_by(old, served, feedback)
        expected = 0.0
        if judge is not None:
            expected = expected_score(new, served, judge) - expected_score(old, served, judge)
        comparison.add(served, did, follow(new, served, feedback), expected=expected)
    return comparison.difference

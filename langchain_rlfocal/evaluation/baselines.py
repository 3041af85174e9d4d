"""Baselines: what a learned policy has to beat.

Each is a small frozen value whose `fit` looks at validation outcomes, scores included, and whose `decide` looks at the
answers of the evaluated queries and never at their scores. The one exception is the `Oracle`, which says so: it is an end of
the scale, not a rival.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.outcomes import OutcomeGrid

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False, slots=True)
class Decision:
    """Whom a baseline asks and whose answer it returns.

    Attributes:
        chosen: Index of the member whose answer is returned, shape [Q].
        asked: Whether each member was called, shape [Q, M].
    """

    chosen: Ints
    asked: Bools

    @property
    def calls(self) -> Ints:
        """Calls per query, shape [Q]."""
        return np.asarray(self.asked.sum(axis=1))


class Fitted(Protocol):
    """A baseline that is ready to decide."""

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Decide every query of `grid`.

        Raises:
            PoolError: `grid` has other members than those fitted.
        """


class Baseline(Protocol):
    """A rule that may learn from validation outcomes."""

    def fit(self, grid: OutcomeGrid) -> Fitted:
        """Learn from validation outcomes.

        Raises:
            InputError: `grid` holds no query.
        """


@dataclass(frozen=True, slots=True)
class SingleBest:
    """Always ask the member that has the best mean score on validation, and nobody else."""

    def fit(self, grid: OutcomeGrid) -> "FittedSingleBest":
        """Choose the member; of equals, the first of the pool."""
        return FittedSingleBest(members=grid.members, best=int(np.argmax(_competence(grid))))


@dataclass(frozen=True, slots=True)
class FittedSingleBest:
    """One member, always.

    Attributes:
        members: Names of the members.
        best: Index of the member that is asked.
    """

    members: tuple[str, ...]
    best: int

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask the one member."""
        _check_members(self.members, grid)
        asked = np.zeros(grid.scores.shape, dtype=bool)
        asked[:, self.best] = True
        return Decision(chosen=np.full(len(grid), self.best), asked=asked)


@dataclass(frozen=True, slots=True)
class Plurality:
    """Ask everyone; the answer that most members give wins, ties go to the member that is best on validation."""

    def fit(self, grid: OutcomeGrid) -> "FittedVote":
        """Learn who breaks ties."""
        return FittedVote(members=grid.members, weights=np.ones(len(grid.members)), competence=_competence(grid))


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Ask everyone; a vote counts by its log-odds of being right rather than one given wrong answer.

    A member that is right with probability p, and else gives any one wrong answer with probability (1 − p) c, weighs

        w = ln(p / ((1 − p) c))

    where c is the chance that two members that are both wrong say the same. With K options and errors spread evenly,
    c = 1/(K − 1); with two options c = 1 and w is the plain log-odds. p and c are shares on validation, counted with one
    success and one failure more than were seen, so that no weight is infinite.

    Source: Nitzan and Paroush, 1982, "Optimal decision rules in uncertain dichotomous choice situations".
    """

    def fit(self, grid: OutcomeGrid) -> "FittedVote":
        """Learn each member's weight from the queries on which it gave an answer."""
        answered = grid.answer_ids >= 0
        right = ((grid.scores * answered).sum(axis=0) + 1) / (answered.sum(axis=0) + 2)
        weights = np.log(right / (1 - right)) - np.log(_shared_error(grid))
        return FittedVote(members=grid.members, weights=weights, competence=_competence(grid))


@dataclass(frozen=True, eq=False, slots=True)
class FittedVote:
    """A vote of all members.

    A member whose answer could not be extracted abstains. If all abstain, the most competent member's answer stands.

    Attributes:
        members: Names of the members.
        weights: Weight of each member's vote, shape [M].
        competence: Mean score on validation, shape [M]: of equally supported answers, the one of the most competent
            member wins, and of its supporters, the most competent is chosen.
    """

    members: tuple[str, ...]
    weights: Floats
    competence: Floats

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask everyone and count the votes."""
        _check_members(self.members, grid)
        asked = np.ones(grid.scores.shape, dtype=bool)
        return Decision(chosen=_vote(grid, asked, weights=self.weights, competence=self.competence), asked=asked)


@dataclass(frozen=True, slots=True)
class RandomTeam:
    """Ask a random team of one size for each query, and let it vote as `Plurality` does.

    Attributes:
        size: Members per team, from 1 to M.
        seed: Seed of the teams: the same seed and number of queries give the same teams.
    """

    size: int
    seed: int = 0

    def fit(self, grid: OutcomeGrid) -> "FittedRandomTeam":
        """Learn who breaks ties."""
        if not 1 <= self.size <= len(grid.members):
            raise InputError(f"`size` must be from 1 to {len(grid.members)} members, got {self.size}.")
        return FittedRandomTeam(members=grid.members, competence=_competence(grid), size=self.size, seed=self.seed)


@dataclass(frozen=True, eq=False, slots=True)
class FittedRandomTeam:
    """A vote of random teams.

    Attributes:
        members: Names of the members.
        competence: Mean score on validation, shape [M]; breaks ties as in `FittedVote`.
        size: Members per team.
        seed: Seed of the teams.
    """

    members: tuple[str, ...]
    competence: Floats
    size: int
    seed: int

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Draw a team for each query and count its votes."""
        _check_members(self.members, grid)
        draw = np.random.default_rng(self.seed).random(grid.scores.shape)
        asked = draw.argsort(axis=1).argsort(axis=1) < self.size
        weights = np.ones(len(self.members))
        return Decision(chosen=_vote(grid, asked, weights=weights, competence=self.competence), asked=asked)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Ask everyone and return a best-scored answer. It reads the scores that it is judged by: a bound, not a method."""

    def fit(self, grid: OutcomeGrid) -> "FittedOracle":
        """Learn nothing."""
        return FittedOracle(members=grid.members)


@dataclass(frozen=True, slots=True)
class FittedOracle:
    """The best-scored answer of each query.

    Attributes:
        members: Names of the members.
    """

    members: tuple[str, ...]

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Look up who was best."""
        _check_members(self.members, grid)
        return Decision(chosen=grid.scores.argmax(axis=1), asked=np.ones(grid.scores.shape, dtype=bool))


def _vote(grid: OutcomeGrid, asked: Bools, *, weights: Floats, competence: Floats) -> Ints:
    """Return the most competent supporter of the answer with most weight; the most competent asked if all abstain."""
    rows = np.arange(len(grid))
    voting = asked & (grid.answer_ids >= 0)
    tally = np.zeros(grid.scores.shape)
    for member, weight in enumerate(weights):
        tally[rows, grid.answer_ids[:, member]] += weight * voting[:, member]
    support = np.where(voting, np.take_along_axis(tally, np.maximum(grid.answer_ids, 0), axis=1), -np.inf)
    # Where nobody votes, whoever was asked stands equal, above those who were not.
    support[asked & ~voting.any(axis=1, keepdims=True)] = 0.0
    ranked = np.argsort(-competence, kind="stable")
    return np.asarray(ranked[support[:, ranked].argmax(axis=1)])


def _competence(grid: OutcomeGrid) -> Floats:
    if not len(grid):
        raise InputError(
            "`grid` must hold at least one validation query to fit a baseline, got none. Pass more outcomes."
        )
    return np.asarray(grid.scores.mean(axis=0))


def _shared_error(grid: OutcomeGrid) -> float:
    """Chance that two members that are both wrong give the same answer, over all pairs and queries."""
    wrong = (1.0 - grid.scores) * (grid.answer_ids >= 0)
    groups = np.zeros_like(wrong)
    rows = np.arange(len(grid))
    for member in range(wrong.shape[1]):
        groups[rows, grid.answer_ids[:, member]] += wrong[:, member]
    alone = (wrong**2).sum()
    # (Σ w)² counts each pair twice and each member with itself once.
    same, pairs = ((groups**2).sum() - alone) / 2, ((wrong.sum(axis=1) ** 2).sum() - alone) / 2
    return float((same + 1) / (pairs + 2))


def _check_members(members: tuple[str, ...], grid: OutcomeGrid) -> None:
    if members != grid.members:
        raise PoolError(
            f"`grid` must have the members that the baseline was fitted on, {members}, got {grid.members}. "
            "Make both grids with the same list."
        )

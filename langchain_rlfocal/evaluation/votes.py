"""Votes: baselines that ask several members and count what they say.

The vote of everyone, plain or weighted, and the vote of a random team.
"""

from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.decisions import (
    Decision,
    Floats,
    answer_ids_of,
    competence_of,
    decision_of,
    vote,
)
from langchain_rlfocal.outcomes import OutcomeGrid


@dataclass(frozen=True, slots=True)
class Plurality:
    """Ask everyone; the answer that most members give wins, ties go to the member that scored best when fitted."""

    def fit(self, grid: OutcomeGrid) -> "FittedVote":
        """Learn who breaks ties."""
        return FittedVote(members=grid.members, weights=np.ones(len(grid.members)), competence=competence_of(grid))


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Ask everyone; a vote counts by its log-odds of being right rather than one given wrong answer.

    A member that is right with probability p, and else gives any one wrong answer with probability (1 − p) c, weighs

        w = ln(p / ((1 − p) c))

    where c is the chance that two members that are both wrong say the same. With K options and errors spread evenly,
    c = 1/(K − 1); with two options c = 1 and w is the plain log-odds. p and c are shares of the fitted queries, counted
    with one success and one failure more than were seen, so that no weight is infinite.

    Source: Nitzan and Paroush, 1982, "Optimal decision rules in uncertain dichotomous choice situations".
    """

    def fit(self, grid: OutcomeGrid) -> "FittedVote":
        """Learn each member's weight from the queries on which it gave an answer."""
        return FittedVote(members=grid.members, weights=log_odds(grid), competence=competence_of(grid))


@dataclass(frozen=True, eq=False, slots=True)
class FittedVote:
    """A vote of all members.

    A member whose answer could not be extracted abstains. If all abstain, the most competent member's answer stands.

    Attributes:
        members: Names of the members.
        weights: Weight of each member's vote, shape [M].
        competence: Mean score on the fitted queries, shape [M]: of equally supported answers, the one of the most
            competent member wins, and of its supporters, the most competent is chosen.
    """

    members: tuple[str, ...]
    weights: Floats
    competence: Floats

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask everyone and count the votes."""
        columns, ids = answer_ids_of(self.members, grid)
        asked = np.ones(ids.shape, dtype=bool)
        chosen = vote(ids, asked, weights=self.weights, competence=self.competence)
        return decision_of(grid, columns, chosen=chosen, asked=asked)


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
        check_size(self.size, grid)
        return FittedRandomTeam(members=grid.members, competence=competence_of(grid), size=self.size, seed=self.seed)


@dataclass(frozen=True, eq=False, slots=True)
class FittedRandomTeam:
    """A vote of random teams.

    Attributes:
        members: Names of the members.
        competence: Mean score on the fitted queries, shape [M]; breaks ties as in `FittedVote`.
        size: Members per team.
        seed: Seed of the teams.
    """

    members: tuple[str, ...]
    competence: Floats
    size: int
    seed: int

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Draw a team for each query and count its votes."""
        columns, ids = answer_ids_of(self.members, grid)
        draw = np.random.default_rng(self.seed).random(ids.shape)
        asked = draw.argsort(axis=1).argsort(axis=1) < self.size
        chosen = vote(ids, asked, weights=np.ones(len(columns)), competence=self.competence)
        return decision_of(grid, columns, chosen=chosen, asked=asked)


def log_odds(grid: OutcomeGrid) -> Floats:
    """Weigh each member's vote as `WeightedVote` says, shape [M]."""
    answered = grid.answer_ids >= 0
    right = ((grid.scores * answered).sum(axis=0) + 1) / (answered.sum(axis=0) + 2)
    weights: Floats = np.log(right / (1 - right)) - np.log(_shared_error(grid))
    return weights


def check_size(size: int, grid: OutcomeGrid) -> None:
    """Refuse a team that cannot be drawn from the grid's members."""
    if not 1 <= size <= len(grid.members):
        raise InputError(f"`size` must be from 1 to {len(grid.members)} members, got {size}.")


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

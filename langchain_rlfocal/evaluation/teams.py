"""Teams: baselines that ask the same few members for every query, and let them vote.

The best by score alone, and the best of all teams by trying each.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.decisions import (
    Bools,
    Decision,
    Floats,
    Ints,
    answer_ids_of,
    competence_of,
    decision_of,
    vote,
)
from langchain_rlfocal.evaluation.votes import check_size
from langchain_rlfocal.outcomes import OutcomeGrid

MAX_TEAMS = 20_000
"""So many teams are tried at most; of a larger pool, smaller teams."""

_BLOCK_CELLS = 2**21


@dataclass(frozen=True, slots=True)
class TopK:
    """Ask the members with the best mean scores, and let them vote as `Plurality` does.

    Attributes:
        size: Members of the team, from 1 to M.
    """

    size: int

    def fit(self, grid: OutcomeGrid) -> "FittedTeam":
        """Choose the members; of equals, the first of the pool."""
        check_size(self.size, grid)
        competence = competence_of(grid)
        team = np.zeros(len(grid.members), dtype=bool)
        team[np.argsort(-competence, kind="stable")[: self.size]] = True
        return FittedTeam(members=grid.members, team=team, competence=competence, largest_tried=self.size)


@dataclass(frozen=True, slots=True)
class BestFixedTeam:
    """Ask the team whose vote scores best on the fitted queries, found by trying every team.

    The team votes as `Plurality` does. Of teams with equal scores the smaller is taken, then the cheaper where every cost
    is known, then the first. Where there are more than `MAX_TEAMS` teams, only sizes are tried whose teams are fewer;
    `FittedTeam.largest_tried` says which.

    Attributes:
        max_team: Members of the largest team, at least 1; a smaller pool is tried whole.
    """

    max_team: int

    def fit(self, grid: OutcomeGrid) -> "FittedTeam":
        """Try every team."""
        if self.max_team < 1:
            raise InputError(f"`max_team` must be at least 1, got {self.max_team}.")
        competence = competence_of(grid)
        teams = _teams(len(grid.members), self.max_team)
        _, ids = answer_ids_of(grid.members, grid)
        # Rounded, so that teams with equal scores are equal however their sums were made.
        scores = np.round(team_scores(ids, grid.scores, competence, teams), 12)
        cost = grid.cost_usd.mean(axis=0)
        price = teams @ (cost if np.isfinite(cost).all() else np.zeros_like(cost))
        best = teams[np.lexsort((price, teams.sum(axis=1), -scores))[0]]
        return FittedTeam(
            members=grid.members, team=best, competence=competence, largest_tried=int(teams.sum(axis=1).max())
        )


@dataclass(frozen=True, eq=False, slots=True)
class FittedTeam:
    """A vote of one team.

    Attributes:
        members: Names of the members.
        team: Whether each member is in the team, shape [M].
        competence: Mean score on the fitted queries, shape [M]; breaks ties as in `FittedVote`.
        largest_tried: Members of the largest team that it was compared with.
    """

    members: tuple[str, ...]
    team: Bools
    competence: Floats
    largest_tried: int

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask the team and count its votes."""
        columns, ids = answer_ids_of(self.members, grid)
        asked = np.tile(self.team, (len(ids), 1))
        chosen = vote(ids, asked, weights=np.ones(len(columns)), competence=self.competence)
        return decision_of(grid, columns, chosen=chosen, asked=asked)


def team_scores(ids: Ints, scores: Floats, competence: Floats, teams: Bools) -> Floats:
    """Score the vote of many teams at once.

    Each distinct answer of a query is a row of its supporters, and a member that abstains is a row of its own. A member's
    vote weighs 1 and a share that falls with its rank, so small that it only breaks ties; an abstention weighs less than
    any vote. Then a matrix product tallies every row for every team, and the heaviest row of a query is its answer: that
    of `vote`, with no ties left. A row is worth the mean of its supporters' scores, who gave one answer and so have one.

    Args:
        ids: Answers as `answer_ids_of` gives them, shape [Q, M].
        scores: Members' scores, shape [Q, M].
        competence: Members' mean scores, which rank them, shape [M].
        teams: Whether each member is in each team, none empty, shape [T, M].

    Returns:
        Mean score of each team, shape [T].
    """
    num_queries, num_members = ids.shape
    rank = np.argsort(np.argsort(-competence, kind="stable"))
    # Halves order two groups by their best members. Their sums would not be exact in a large pool, but there teams have at
    # most three members (`MAX_TEAMS`), of whom only single ones tie: any falling sequence orders those.
    share = 0.5 ** (rank + 1) if num_members <= 40 else (num_members - rank) / (2 * num_members)
    answer, member = np.arange(num_members)[:, None], np.arange(num_members)
    votes = ids[:, None, :] == answer
    silent = (ids[:, None, :] < 0) & (answer == member)
    supporters = np.concatenate([votes, silent], axis=1)
    query, row = np.nonzero(supporters.any(axis=2))
    supporters = supporters[query, row]
    worth = (supporters * scores[query]).sum(axis=1) / supporters.sum(axis=1) / num_queries
    weights = supporters * np.where(row < num_members, 1 + share[:, None], share[:, None] / 2).T
    starts = np.searchsorted(query, np.arange(num_queries))
    totals = np.empty(len(teams))
    step = max(_BLOCK_CELLS // len(weights), 1)
    for block in range(0, len(teams), step):
        tally = weights @ teams[block : block + step].T.astype(np.float64)
        won = tally == np.maximum.reduceat(tally, starts)[query]
        totals[block : block + step] = worth @ won
    return totals


def _teams(num_members: int, max_team: int) -> Bools:
    """List every team of the sizes that can be tried, the smallest first, shape [T, M]."""
    sizes = [1]
    for size in range(2, min(max_team, num_members) + 1):
        if sum(comb(num_members, s) for s in [*sizes, size]) > MAX_TEAMS:
            break
        sizes.append(size)
    named = [team for size in sizes for team in combinations(range(num_members), size)]
    teams = np.zeros((len(named), num_members), dtype=bool)
    for team, chosen in zip(teams, named, strict=True):
        team[list(chosen)] = True
    return teams

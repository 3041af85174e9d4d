"""Baselines: what a learned policy has to beat.

Each is a small frozen value whose `fit` looks at recorded outcomes, scores included, and whose `decide` looks at the
answers of the evaluated queries and never at their scores. The one exception is the `Oracle`, which says so: it is an end of
the scale, not a rival. `fit_baselines` fits all of them; `fitted.dump_baselines` stores them.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.errors import InputError, MissingDependencyError, PoolError
from langchain_rlfocal.evaluation.decisions import Baseline, Decision, Fitted, columns_of, decision_of
from langchain_rlfocal.evaluation.routers import (
    FittedClusters,
    FittedSingleBest,
    FittedTaskRouter,
    NearestClusters,
    PerTaskRouter,
    SingleBest,
)
from langchain_rlfocal.evaluation.supervised import FittedSupervisedFusion, SupervisedFusion
from langchain_rlfocal.evaluation.teams import BestFixedTeam, FittedTeam, TopK
from langchain_rlfocal.evaluation.votes import FittedRandomTeam, FittedVote, Plurality, RandomTeam, WeightedVote
from langchain_rlfocal.outcomes import OutcomeGrid

__all__ = [
    "BASELINES",
    "Baseline",
    "BestFixedTeam",
    "Decision",
    "Fitted",
    "FittedClusters",
    "FittedOracle",
    "FittedRandomTeam",
    "FittedSingleBest",
    "FittedSupervisedFusion",
    "FittedTaskRouter",
    "FittedTeam",
    "FittedVote",
    "NearestClusters",
    "Oracle",
    "PerTaskRouter",
    "Plurality",
    "RandomTeam",
    "SingleBest",
    "SupervisedFusion",
    "TopK",
    "WeightedVote",
    "fit_baselines",
    "missing_baselines",
]

BASELINES = (
    "single_best",
    "random_team",
    "top_k",
    "plurality",
    "weighted_vote",
    "per_task_router",
    "nearest_neighbours",
    "best_fixed_team",
    "supervised_fusion",
    "oracle",
)
"""Names of the baselines, in the order of a report."""

SHRINKAGES = (5.0, 20.0, 80.0)
CLUSTERS = (8, 16, 32)
TASK_SCALES = (0.0, 0.2)
"""What `fit_baselines` chooses from by validation."""


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
        columns = columns_of(self.members, grid)
        scores = grid.scores[:, columns]
        return decision_of(grid, columns, chosen=scores.argmax(axis=1), asked=np.ones(scores.shape, dtype=bool))


def fit_baselines(
    train_grid: OutcomeGrid, validation_grid: OutcomeGrid, *, max_team: int, seed: int = 0
) -> dict[str, Fitted]:
    """Fit every baseline as well as the rows that are not tested allow.

    What there is to choose (k, how far a task's scores are drawn to the overall ones, the number of clusters, whether fusion
    looks at the task) is fitted on training rows, and what scores best on validation rows is taken, of equals the first.
    Everything is then fitted on both together, as a policy's supervised part is.

    Args:
        train_grid: Outcomes to learn from.
        validation_grid: Outcomes, of other queries, to choose by.
        max_team: Members of the largest team, from 1; also the size of a random team, or the whole pool if it is smaller.
        seed: Seed of the random teams and of the clusters' first centres.

    Returns:
        Fitted baselines by their names in `BASELINES`; without `supervised_fusion` where scikit-learn is not installed
        (`missing_baselines` tells).

    Raises:
        InputError: A grid holds no query, or `max_team` is below 1.
        PoolError: The grids have different members.
    """
    if train_grid.members != validation_grid.members:
        raise PoolError(
            f"`validation_grid` must have the members of `train_grid`, {train_grid.members}, got "
            f"{validation_grid.members}. Make both from one table."
        )
    if max_team < 1:
        raise InputError(f"`max_team` must be at least 1, got {max_team}.")
    if not len(train_grid) or not len(validation_grid):
        raise InputError(
            f"Baselines need at least one training and one validation query, got {len(train_grid)} and "
            f"{len(validation_grid)}. Pass more outcomes."
        )
    size = min(max_team, len(train_grid.members))
    both = train_grid.join(validation_grid)

    def chosen(rules: Sequence[Baseline]) -> Fitted:
        decisions = [rule.fit(train_grid).decide(validation_grid) for rule in rules]
        return rules[_best_index(validation_grid, decisions)].fit(both)

    fitted: dict[str, Fitted] = {
        "single_best": SingleBest().fit(both),
        "random_team": RandomTeam(size=size, seed=seed).fit(both),
        "top_k": chosen([TopK(k) for k in range(1, size + 1)]),
        "plurality": Plurality().fit(both),
        "weighted_vote": WeightedVote().fit(both),
        "per_task_router": chosen([PerTaskRouter(s) for s in SHRINKAGES]),
        "nearest_neighbours": chosen([NearestClusters(count, seed=seed) for count in CLUSTERS]),
        "best_fixed_team": BestFixedTeam(max_team).fit(both),
        "oracle": Oracle().fit(both),
    }
    with suppress(MissingDependencyError):  # an optional part: `missing_baselines` names it
        fitted["supervised_fusion"] = chosen([SupervisedFusion(scale) for scale in TASK_SCALES])
    return {name: fitted[name] for name in BASELINES if name in fitted}


def missing_baselines(fitted: Collection[str]) -> tuple[str, ...]:
    """Name the baselines that are not among the fitted ones, as where scikit-learn is not installed."""
    return tuple(name for name in BASELINES if name not in fitted)


def _best_index(grid: OutcomeGrid, decisions: Sequence[Decision]) -> int:
    """Find the decisions with the best mean score; of equals, the first."""
    scores = [grid.scores[np.arange(len(grid)), decision.chosen].mean() for decision in decisions]
    return int(np.argmax(np.round(scores, 12)))

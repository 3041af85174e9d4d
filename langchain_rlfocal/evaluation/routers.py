"""Routers: baselines that ask one member and return its answer.

The single best, the best of each task, and the best of the cluster of queries that is nearest.
"""

from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.decisions import Decision, Floats, Ints, ask_one, competence_of
from langchain_rlfocal.features import features_of
from langchain_rlfocal.outcomes import OutcomeGrid

SHRINKAGE = 20.0
"""Queries that a member's overall score counts for, beside those of a task or cluster."""

_MAX_STEPS = 50


@dataclass(frozen=True, slots=True)
class SingleBest:
    """Always ask the member that had the best mean score when fitted, and nobody else."""

    def fit(self, grid: OutcomeGrid) -> "FittedSingleBest":
        """Choose the member; of equals, the first of the pool."""
        return FittedSingleBest(members=grid.members, best=int(np.argmax(competence_of(grid))))


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
        return ask_one(self.members, grid, np.full(len(grid), self.best))


@dataclass(frozen=True, slots=True)
class PerTaskRouter:
    """Ask the member that is best on the query's task.

    A member's score on a task of n queries is drawn toward its overall score, as if it had scored that on s queries more:

        (sum of its n scores + s · overall) / (n + s)

    so that on a task of few queries the single best is asked, unless another is much better there.

    Attributes:
        shrinkage: s, above 0.
    """

    shrinkage: float = SHRINKAGE

    def fit(self, grid: OutcomeGrid) -> "FittedTaskRouter":
        """Choose a member for each task; of equals, the first of the pool."""
        overall = competence_of(grid)
        tasks = sorted(set(grid.tasks))
        place = {task: index for index, task in enumerate(tasks)}
        groups = np.array([place[task] for task in grid.tasks])
        best = _best_of_groups(grid.scores, groups, count=len(tasks), shrinkage=self.shrinkage)
        return FittedTaskRouter(members=grid.members, tasks=tuple(tasks), best=best, fallback=int(overall.argmax()))


@dataclass(frozen=True, eq=False, slots=True)
class FittedTaskRouter:
    """One member for each task.

    Attributes:
        members: Names of the members.
        tasks: Names of the tasks, T of them.
        best: Index of the member that is asked on each task, shape [T].
        fallback: Index of the member that is asked where the query's task is none of these, or not told.
    """

    members: tuple[str, ...]
    tasks: tuple[str, ...]
    best: Ints
    fallback: int

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask the member of each query's task."""
        member_of = dict(zip(self.tasks, self.best.tolist(), strict=True))
        chosen = np.array([member_of.get(task, self.fallback) for task in grid.tasks], dtype=np.intp)
        return ask_one(self.members, grid, chosen)


@dataclass(frozen=True, slots=True)
class NearestClusters:
    """Ask the member that is best on the queries of the nearest cluster.

    Fitted queries are clustered by their features (text and task label) with k-means: seeded far apart, then each centre
    moves to the mean of the queries that are nearest to it until none moves. Scores are drawn toward the overall score as
    in `PerTaskRouter`.

    Source: Arthur and Vassilvitskii, 2007, "k-means++: the advantages of careful seeding".

    Attributes:
        num_clusters: How many clusters, at least 1; there are fewer where fewer queries differ.
        shrinkage: Queries that a member's overall score counts for, above 0.
        seed: Seed of the first centres.
    """

    num_clusters: int = 16
    shrinkage: float = SHRINKAGE
    seed: int = 0

    def fit(self, grid: OutcomeGrid, *, features: Floats | None = None) -> "FittedClusters":
        """Find the clusters and choose a member for each.

        Args:
            grid: The outcomes.
            features: `features_of` its queries and tasks where they are known already, shape [Q, F].

        Raises:
            InputError: `grid` holds no query, or `num_clusters` is below 1.
        """
        if self.num_clusters < 1:
            raise InputError(f"`num_clusters` must be at least 1, got {self.num_clusters}.")
        competence_of(grid)  # refuses a grid without queries
        if features is None:
            features = features_of(grid.queries, grid.tasks)
        centroids = _k_means(features, self.num_clusters, rng=np.random.default_rng(self.seed))
        groups = _nearest(features, centroids)
        best = _best_of_groups(grid.scores, groups, count=len(centroids), shrinkage=self.shrinkage)
        return FittedClusters(members=grid.members, centroids=centroids, best=best)


@dataclass(frozen=True, eq=False, slots=True)
class FittedClusters:
    """One member for each cluster of queries.

    Attributes:
        members: Names of the members.
        centroids: Mean features of each cluster, shape [K, F].
        best: Index of the member that is asked in each cluster, shape [K].
    """

    members: tuple[str, ...]
    centroids: Floats
    best: Ints

    def decide(self, grid: OutcomeGrid, *, features: Floats | None = None) -> Decision:
        """Ask the member of the nearest cluster.

        Args:
            grid: The queries.
            features: `features_of` its queries and tasks where they are known already, shape [Q, F].

        Raises:
            PoolError: `grid` lacks a member that the baseline was fitted on.
        """
        if features is None:
            features = features_of(grid.queries, grid.tasks)
        return ask_one(self.members, grid, self.best[_nearest(features, self.centroids)])


def _best_of_groups(scores: Floats, groups: Ints, *, count: int, shrinkage: float) -> Ints:
    """Name the best member of each group of queries, shape [count], its scores drawn toward the overall ones."""
    if not 0 < shrinkage < np.inf:
        raise InputError(f"`shrinkage` must be above 0 and finite, got {shrinkage}. {SHRINKAGE:g} is a start.")
    belongs = np.equal.outer(np.arange(count), groups).astype(np.float64)
    total = belongs @ scores + shrinkage * scores.mean(axis=0)
    # Rounded, so that members with equal scores are equal however their sums were made.
    shrunk = np.round(total / (belongs.sum(axis=1, keepdims=True) + shrinkage), 12)
    return np.asarray(shrunk.argmax(axis=1))


def _nearest(features: Floats, centroids: Floats) -> Ints:
    """Find the nearest centroid of each query, the first of equals, shape [Q]."""
    # |x − c|² = |x|² − 2 x·c + |c|², and |x|² is the same for every c.
    return np.asarray(((centroids**2).sum(axis=1) - 2 * features @ centroids.T).argmin(axis=1))


def _k_means(features: Floats, num_clusters: int, *, rng: np.random.Generator) -> Floats:
    """Cluster queries: Lloyd's steps from centres drawn in proportion to the squared distance from those before."""
    centroids = features[rng.integers(len(features), size=1)]
    distance = ((features - centroids[0]) ** 2).sum(axis=1)
    while len(centroids) < num_clusters and distance.any():
        drawn = features[rng.choice(len(features), p=distance / distance.sum())]
        centroids = np.vstack([centroids, drawn])
        distance = np.minimum(distance, ((features - drawn) ** 2).sum(axis=1))
    for _ in range(_MAX_STEPS):
        belongs = np.equal.outer(np.arange(len(centroids)), _nearest(features, centroids))
        sizes = belongs.sum(axis=1, keepdims=True)
        moved = np.where(sizes > 0, belongs.astype(np.float64) @ features / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids

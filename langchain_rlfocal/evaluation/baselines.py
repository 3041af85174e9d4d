"""Baselines: what a learned policy has to beat.

A function `fit_…` looks at recorded outcomes, scores included, and returns a `Baseline`, whose `decide` looks at the answers
of the evaluated queries and never at their scores. The one exception is the Oracle: it is an end of the scale, not a rival.
`fit_baselines` fits all of them; `dump_baselines` and `load_baselines` carry them through a checkpoint.

A baseline knows the members that it was fitted on: a grid may hold them in another order and others among them, and nothing
of those others reaches a decision. Votes are counted alike everywhere: a member without an answer abstains, and so does one
whose answer has no label, unless nobody who was asked has one, since it agrees with no other; of answers with equal weight,
that of the most competent supporter wins, competence being the mean score on the fitted queries. Of equal members the first of
the grid is taken, which `fit_baselines` and `evaluate` make the first by name (`OutcomeGrid.canonical`).

Where the fitted outcomes have holes, means are over scored cells, drawn toward the mean of all cells where there are few
(`PRIOR_CELLS`), and votes are those of recorded answers. Who asks everyone asks everyone who is on record.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.diversity import all_teams, largest_team_size
from langchain_rlfocal.errors import CheckpointError, InputError, MissingDependencyError, PoolError
from langchain_rlfocal.features import FEATURES_DIM, features_of
from langchain_rlfocal.outcomes import OutcomeGrid

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

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

STORED_RIVALS = ("priced_task_table", "agreement_cascade")
"""Names of what else a checkpoint may hold, in the same form: the cost-aware rivals that need a fit; see `rivals`."""

SHRINKAGES = (5.0, 20.0, 80.0)
CLUSTERS = (8, 16, 32)
TASK_SCALES = (0.0, 0.2)
"""What `fit_baselines` chooses from by validation."""

ASK_EVERYONE = frozenset({"plurality", "weighted_vote", "supervised_fusion", "oracle"})
"""Who asks everyone who is on record, so that no query is lost to a hole."""

MAX_TEAMS = 20_000
"""So many teams are tried at most; of a larger pool, smaller teams."""

PRIOR_CELLS = 5.0
"""So many cells of average score a mean counts besides its own, where outcomes have holes or unscored answers."""

_BLOCK_CELLS = 2**21


@dataclass(frozen=True, eq=False, slots=True)
class Decision:
    """Whom a baseline asks and whose answer it returns.

    Attributes:
        chosen: Index in the grid of the member whose answer is returned, shape [Q].
        asked: Whether each member of the grid was called, shape [Q, M]. A member of a fixed team is called also where its outcome
            is not on record, which `scores` tells.
    """

    chosen: Ints
    asked: Bools

    @property
    def calls(self) -> Ints:
        """Calls per query, shape [Q]."""
        return np.asarray(self.asked.sum(axis=1))

    def scores(self, grid: OutcomeGrid) -> Floats:
        """Return the recorded score of each decision, shape [Q].

        NaN where the answer was not scored, or a member was called whose outcome is not on record: nobody knows what it
        would have changed.
        """
        is_whole = (grid.recorded | ~self.asked).all(axis=1)
        return np.where(is_whole, grid.scores[np.arange(len(grid)), self.chosen], np.nan)


@dataclass(frozen=True, eq=False, slots=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        name: Its name in `BASELINES`, which says how it decides, or in `STORED_RIVALS`, for which `rivals` decides.
        members: Names of the members that it was fitted on, M of them.
        learned: Arrays and JSON values that it learned, by name; `_LEARNED` lists them.
    """

    name: str
    members: tuple[str, ...]
    learned: Mapping[str, Any]

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Decide every query of `grid`.

        Raises:
            PoolError: `grid` lacks a member that the baseline was fitted on.
        """
        columns = self.columns(grid)
        return decision_of(grid, columns, *_DECIDE[self.name](self.learned, grid, columns))

    def columns(self, grid: OutcomeGrid) -> Ints:
        """Find the fitted members in `grid`, shape [M].

        Raises:
            PoolError: `grid` lacks one.
        """
        missing = [name for name in self.members if name not in grid.members]
        if missing:
            raise PoolError(
                f"`grid` must hold every member that the baseline was fitted on, but lacks {missing}. "
                "Make the grid with them, or fit the baselines for the members that are left."
            )
        return np.array([grid.members.index(name) for name in self.members], dtype=np.intp)


def decision_of(grid: OutcomeGrid, columns: Ints, chosen: Ints, asked: Bools) -> Decision:
    """Say of all members of a grid what was decided of those in some columns: who speaks [Q] and who is asked [Q, M]."""
    everyone = np.zeros(grid.scores.shape, dtype=bool)
    everyone[:, columns] = asked
    return Decision(chosen=columns[chosen], asked=everyone)


# ---- one member is asked


def fit_single_best(grid: OutcomeGrid) -> Baseline:
    """Always ask the member with the best mean score; of equals, the first of the pool."""
    return _fitted("single_best", grid, best=int(competence_of(grid).argmax()))


def fit_per_task_router(grid: OutcomeGrid, *, shrinkage: float = 20.0) -> Baseline:
    """Ask the member that is best on the query's task, and the single best where the task is unknown or not given.

    A member's score on a task of n queries is drawn toward its overall score, as if it had scored that on s queries more:

        (sum of its n scores + s · overall) / (n + s)

    so that on a task of few queries the single best is asked, unless another is much better there.

    Args:
        grid: The outcomes.
        shrinkage: s, above 0.

    Raises:
        InputError: `grid` holds no query, or `shrinkage` is not above 0 and finite.
    """
    fallback = int(competence_of(grid).argmax())
    tasks = sorted(set(grid.tasks))
    groups = np.array([tasks.index(task) for task in grid.tasks])
    best = _best_of_groups(grid.scores, groups, count=len(tasks), shrinkage=shrinkage)
    return _fitted("per_task_router", grid, tasks=tuple(tasks), best=best, fallback=fallback)


def fit_nearest_neighbours(
    grid: OutcomeGrid, *, num_clusters: int = 16, shrinkage: float = 20.0, seed: int = 0
) -> Baseline:
    """Ask the member that is best on the queries of the nearest cluster.

    Fitted queries are clustered by their features (text and task label) with k-means. Scores are drawn toward the overall
    score as in `fit_per_task_router`.

    Source: Arthur and Vassilvitskii, 2007, "k-means++: the advantages of careful seeding".

    Args:
        grid: The outcomes.
        num_clusters: How many clusters, at least 1; there are fewer where fewer queries differ.
        shrinkage: Queries that a member's overall score counts for, above 0.
        seed: Seed of the first centres.

    Raises:
        InputError: `grid` holds no query, or a number is outside its range.
    """
    if num_clusters < 1:
        raise InputError(f"`num_clusters` must be at least 1, got {num_clusters}.")
    _check_some(grid)
    features = features_of(grid.queries, grid.tasks)
    centroids = _k_means(features, num_clusters, rng=np.random.default_rng(seed))
    groups = _nearest(features, centroids)
    best = _best_of_groups(grid.scores, groups, count=len(centroids), shrinkage=shrinkage)
    return _fitted("nearest_neighbours", grid, centroids=centroids, best=best)


# ---- everyone is asked


def fit_plurality(grid: OutcomeGrid) -> Baseline:
    """Ask everyone; the answer that most members give wins."""
    return _fitted("plurality", grid, weights=np.ones(len(grid.members)), competence=competence_of(grid))


def fit_weighted_vote(grid: OutcomeGrid) -> Baseline:
    """Ask everyone; a vote counts by its log-odds of being right rather than one given wrong answer; see `log_odds`."""
    return _fitted("weighted_vote", grid, weights=log_odds(grid), competence=competence_of(grid))


def log_odds(grid: OutcomeGrid) -> Floats:
    """Weigh each member's vote, shape [M].

    A member that is right with probability p, and else gives any one wrong answer with probability (1 − p) c, weighs

        w = ln(p / ((1 − p) c))

    where c is the chance that two members that are both wrong give the same answer. With K options and errors spread evenly,
    c = 1/(K − 1); with two options c = 1 and w is the plain log-odds. p and c are shares of the queries that were answered with a
    label and scored, counted with one success and one failure more than were seen, so that no weight is infinite.

    Source: Nitzan and Paroush, 1982, "Optimal decision rules in uncertain dichotomous choice situations".
    """
    scores = np.nan_to_num(grid.scores)
    answered = (grid.label_ids >= 0) & ~np.isnan(grid.scores)
    right = ((scores * answered).sum(axis=0) + 1) / (answered.sum(axis=0) + 2)
    wrong = (1.0 - scores) * answered
    groups = np.zeros_like(wrong)
    rows = np.arange(len(grid))
    for member in range(wrong.shape[1]):
        groups[rows, grid.answer_ids[:, member]] += wrong[:, member]
    alone = (wrong**2).sum()
    # (Σ w)² counts each pair twice and each member with itself once.
    same, pairs = ((groups**2).sum() - alone) / 2, ((wrong.sum(axis=1) ** 2).sum() - alone) / 2
    return np.asarray(np.log(right / (1 - right)) - np.log(float((same + 1) / (pairs + 2))))


def fit_supervised_fusion(grid: OutcomeGrid, *, task_scale: float = 0.2, inverse_penalty: float = 1.0) -> Baseline:
    """Ask everyone and return the answer that is most probably right, by a logistic regression over answers.

    Each distinct scored answer of each fitted query is one example, right if its score is at least ½. Its features are who gave it
    (M of 0 and 1), who gave it on this task (the same M again for each task, times `task_scale`), its share of the query's
    votes, and the sum of its supporters' `log_odds`. All are sums over supporters, so the fitted rule is a vote: a member of
    a query with n votes weighs

        w = its coefficient + task_scale · its coefficient on the task
            + coefficient of the sum · its log-odds + coefficient of the share / n

    The ridge penalty draws a member's weight on each task toward its weight on all of them, the more the smaller
    `task_scale` is; 0 is blind to tasks. Where all answers are right, or all are wrong, there is nothing to tell apart, and
    w is the log-odds. scikit-learn fits it; what is kept are numbers, so that deciding needs NumPy alone.

    Args:
        grid: The outcomes.
        task_scale: From 0; how freely weights may differ between tasks.
        inverse_penalty: scikit-learn's C, above 0: the larger, the weaker the ridge penalty.

    Raises:
        InputError: `grid` holds no query, or `task_scale` is negative or not finite.
        MissingDependencyError: scikit-learn is not installed.
    """
    if not 0 <= task_scale < np.inf:
        raise InputError(f"`task_scale` must be finite and not negative, got {task_scale}. 0 is blind to tasks.")
    competence, odds = competence_of(grid), log_odds(grid)
    try:
        logistic_regression: Any = importlib.import_module("sklearn.linear_model").LogisticRegression
        sparse: Any = importlib.import_module("scipy.sparse")  # which comes with it
    except ImportError as error:
        raise MissingDependencyError(
            "The baseline `supervised_fusion` needs scikit-learn: `pip install 'langchain-rlfocal[evaluation]'`. "
            "Or leave it out."
        ) from error
    members, tasks = len(grid.members), tuple(sorted(set(grid.tasks)))
    labels, scores = grid.label_ids, np.nan_to_num(grid.scores)
    # Of a labelled answer all supporters are scored, or none is.
    ids = np.where(np.isnan(grid.scores), -1, labels)
    supporters = ids[:, None, :] == np.arange(members)[:, None]
    query, answer = np.nonzero(supporters.any(axis=2))
    supporters = supporters[query, answer]
    count = supporters.sum(axis=1)
    right = (supporters * scores[query]).sum(axis=1) / np.maximum(count, 1) >= 0.5
    weights, share, task_weights = odds, 0.0, np.zeros((len(tasks), members))
    if right.any() and not right.all():
        general = np.column_stack([supporters, count / (labels >= 0).sum(axis=1)[query], supporters @ odds])
        of_task = np.array([tasks.index(task) for task in grid.tasks])[query]
        example, member = np.nonzero(supporters)
        # One example has supporters on one task only: the matrix of all tasks is kept sparse.
        on_task = sparse.csr_matrix(
            (np.full(len(example), task_scale), (example, of_task[example] * members + member)),
            shape=(len(query), len(tasks) * members),
        )
        features = sparse.hstack([sparse.csr_matrix(general), on_task], format="csr")
        model = logistic_regression(C=inverse_penalty, max_iter=1000).fit(features, right)
        own, (of_share, of_odds), of_tasks = np.split(model.coef_[0], [members, members + 2])
        weights, share = own + of_odds * odds, float(of_share)
        task_weights = task_scale * of_tasks.reshape(len(tasks), members)
    learned = {"weights": weights, "share": share, "tasks": tasks, "task_weights": task_weights}
    return _fitted("supervised_fusion", grid, **learned, competence=competence)


def fit_oracle(grid: OutcomeGrid) -> Baseline:
    """Ask everyone and return a best-scored answer. It reads the scores that it is judged by: a bound, not a method.

    Of unscored answers it knows nothing: where there are some, the bound may be too low.
    """
    return _fitted("oracle", grid)


# ---- a team is asked, and votes as the plurality does


def fit_random_team(grid: OutcomeGrid, *, size: int, seed: int = 0) -> Baseline:
    """Ask a random team of one size for each query; the same seed and number of queries give the same teams."""
    _check_size(size, grid)
    return _fitted("random_team", grid, competence=competence_of(grid), size=size, seed=seed)


def fit_top_k(grid: OutcomeGrid, *, size: int) -> Baseline:
    """Ask the members with the best mean scores; of equals, the first of the pool."""
    _check_size(size, grid)
    competence = competence_of(grid)
    team = np.zeros(len(grid.members), dtype=bool)
    team[np.argsort(-competence, kind="stable")[:size]] = True
    return _fitted("top_k", grid, team=team, competence=competence, largest_tried=size)


def fit_best_fixed_team(grid: OutcomeGrid, *, max_team: int) -> Baseline:
    """Ask the team whose vote scores best on the fitted queries, found by trying every team.

    Of teams with equal scores the smaller is taken, then the cheaper where every cost is known, then the first. Where there
    are more than `MAX_TEAMS` teams, only sizes are tried whose teams are fewer; `largest_tried` says which.

    Args:
        grid: The outcomes.
        max_team: Members of the largest team, at least 1; a smaller pool is tried whole.

    Raises:
        InputError: `grid` holds no query, or `max_team` is below 1.
    """
    if max_team < 1:
        raise InputError(f"`max_team` must be at least 1, got {max_team}.")
    competence = competence_of(grid)
    size = min(max_team, largest_team_size(len(grid.members), max_teams=MAX_TEAMS))
    teams = all_teams(len(grid.members), max_size=size)
    # Rounded, so that teams with equal scores are equal however their sums were made.
    scores = np.round(team_scores(grid, competence, teams), 12)
    # Of recorded calls; a member without any has no price.
    cost = np.where(grid.recorded, grid.cost_usd, 0.0).sum(axis=0) / np.maximum(grid.recorded.sum(axis=0), 1)
    price = teams @ (cost if np.isfinite(cost).all() else np.zeros_like(cost))
    best = teams[np.lexsort((price, teams.sum(axis=1), -scores))[0]]
    largest = int(teams.sum(axis=1).max())
    return _fitted("best_fixed_team", grid, team=best, competence=competence, largest_tried=largest)


def team_scores(grid: OutcomeGrid, competence: Floats, teams: Bools) -> Floats:
    """Score the vote of many teams at once.

    Each distinct answer of a query is a row of its supporters; an answer without a label, and a member that is silent, is a row
    of its own. A member's vote weighs 1 and a share that falls with its rank, so small that it only breaks ties; an answer
    without a label weighs less than any vote, and silence less than that. Then a matrix product tallies every row for every
    team, and the heaviest row of a query is its answer: that of `vote`, with no ties left. A row is worth the mean of its
    supporters' scores, who gave one answer and so have one.

    Args:
        grid: The outcomes of Q queries and M members.
        competence: Members' mean scores, which rank them, shape [M].
        teams: Whether each member is in each team, none empty, shape [T, M].

    Returns:
        Mean score of each team, shape [T]. Where outcomes have holes, of the members on record, over the queries whose answer was
        scored, drawn to the mean of all cells; see `PRIOR_CELLS`.
    """
    num_queries, num_members = grid.scores.shape
    rank = np.argsort(np.argsort(-competence, kind="stable"))
    # Halves order two groups by their best members. Their sums would not be exact in a large pool, but there teams have at
    # most three members (`MAX_TEAMS`), of whom only single ones tie: any falling sequence orders those.
    share = 0.5 ** (rank + 1) if num_members <= 40 else (num_members - rank) / (2 * num_members)
    answer, member = np.arange(num_members)[:, None], np.arange(num_members)
    labels = grid.label_ids
    votes = labels[:, None, :] == answer
    alone = (grid.recorded & (labels < 0))[:, None, :] & (answer == member)
    supporters = np.concatenate([votes, alone], axis=1)
    query, row = np.nonzero(supporters.any(axis=2))
    supporters = supporters[query, row]
    worth = (supporters * np.nan_to_num(grid.scores)[query]).sum(axis=1) / supporters.sum(axis=1)
    is_scored = ~(supporters & np.isnan(grid.scores)[query]).any(axis=1)
    texts = grid.answer_ids[query, row % num_members] >= 0
    of_member = np.where(
        row < num_members, 1 + share[:, None], np.where(texts, (2 + share[:, None]) / 4, share[:, None] / 2)
    )
    weights = supporters * of_member.T
    starts = np.searchsorted(query, np.arange(num_queries))
    totals, counts = np.empty(len(teams)), np.empty(len(teams))
    step = max(_BLOCK_CELLS // len(weights), 1)
    for block in range(0, len(teams), step):
        tally = weights @ teams[block : block + step].T.astype(np.float64)
        won = (tally == np.maximum.reduceat(tally, starts)[query]) & (tally > 0)
        totals[block : block + step] = (worth / num_queries) @ won
        counts[block : block + step] = is_scored @ won.astype(np.float64)
    if grid.is_complete:
        return totals
    prior = PRIOR_CELLS * _mean_cell(grid.scores)
    return np.asarray((totals * num_queries + prior) / (counts + PRIOR_CELLS))


# ---- all of them


def fit_baselines(
    train_grid: OutcomeGrid, validation_grid: OutcomeGrid, *, max_team: int, seed: int = 0
) -> dict[str, Baseline]:
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
    train_grid, validation_grid = train_grid.canonical(), validation_grid.canonical()
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
    both, rows = train_grid.join(validation_grid), np.arange(len(validation_grid))

    def choose(fits: Sequence[Callable[[OutcomeGrid], Baseline]]) -> Baseline:
        decided = [fit(train_grid).decide(validation_grid).chosen for fit in fits]
        scores = np.stack([validation_grid.scores[rows, chosen] for chosen in decided], axis=1)
        return fits[int(np.argmax(np.round(mean_scores(scores), 12)))](both)

    fitted = [
        fit_single_best(both),
        fit_random_team(both, size=size, seed=seed),
        choose([partial(fit_top_k, size=k) for k in range(1, size + 1)]),
        fit_plurality(both),
        fit_weighted_vote(both),
        choose([partial(fit_per_task_router, shrinkage=s) for s in SHRINKAGES]),
        choose([partial(fit_nearest_neighbours, num_clusters=count, seed=seed) for count in CLUSTERS]),
        fit_best_fixed_team(both, max_team=max_team),
    ]
    with suppress(MissingDependencyError):  # an optional part: `missing_baselines` names it
        fitted.append(choose([partial(fit_supervised_fusion, task_scale=scale) for scale in TASK_SCALES]))
    return {baseline.name: baseline for baseline in [*fitted, fit_oracle(both)]}


def unfitted_baselines(members: tuple[str, ...], *, max_team: int, seed: int) -> dict[str, Baseline]:
    """Make the baselines that need no fit: to them all members are equal, and the first of the pool breaks ties."""
    equal, size = np.zeros(len(members)), min(max_team, len(members))
    learned: dict[str, dict[str, Any]] = {
        "random_team": {"competence": equal, "size": size, "seed": seed},
        "plurality": {"competence": equal, "weights": np.ones(len(members))},
        "oracle": {},
    }
    return {name: Baseline(name, members, values) for name, values in learned.items()}


def missing_baselines(fitted: Collection[str]) -> tuple[str, ...]:
    """Name the baselines that are not among the fitted ones, as where scikit-learn is not installed."""
    return tuple(name for name in BASELINES if name not in fitted)


# ---- how each decides: of the fitted members, who speaks for the answer [Q] and who is asked [Q, M]

_Decided = tuple[Ints, Bools]


def vote(ids: Ints, asked: Bools, *, weights: Floats, competence: Floats) -> Ints:
    """Choose who speaks for the answer with most weight.

    Args:
        ids: Answers as in `OutcomeGrid.answer_ids`, shape [Q, M].
        asked: Who may vote, at least one of each query, shape [Q, M].
        weights: Weight of each member's vote, shape [M] or [Q, M].
        competence: Shape [M]. Of answers with equal weight, that of the most competent supporter wins.

    Returns:
        The winning answer's most competent supporter, shape [Q]; the most competent member asked where all abstain.
    """
    rows = np.arange(len(ids))
    voting = asked & (ids >= 0)
    cast = weights * voting
    tally = np.zeros(ids.shape)
    for member in range(ids.shape[1]):
        tally[rows, ids[:, member]] += cast[:, member]
    support = np.where(voting, np.take_along_axis(tally, np.maximum(ids, 0), axis=1), -np.inf)
    # Where nobody votes, those who were asked are equal, and above those who were not.
    support[asked & ~voting.any(axis=1, keepdims=True)] = 0.0
    ranked = np.argsort(-competence, kind="stable")
    return np.asarray(ranked[support[:, ranked].argmax(axis=1)])


def _ask_single_best(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    return _ask_one(np.full(len(grid), learned["best"]), columns)


def _ask_best_of_task(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    best = dict(zip(learned["tasks"], learned["best"].tolist(), strict=True))
    return _ask_one(np.array([best.get(task, learned["fallback"]) for task in grid.tasks], dtype=np.intp), columns)


def _ask_best_of_cluster(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    features = features_of(grid.queries, grid.tasks)
    return _ask_one(learned["best"][_nearest(features, learned["centroids"])], columns)


def _ask_everyone(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    return _let_vote(learned, grid, columns, grid.recorded[:, columns], learned["weights"])


def _ask_everyone_by_task(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    count = (grid.label_ids[:, columns] >= 0).sum(axis=1, keepdims=True)
    # An unknown task reads the zeros at the end.
    row = {task: index for index, task in enumerate(learned["tasks"])}
    more = np.vstack([learned["task_weights"], np.zeros(len(columns))])[[row.get(task, -1) for task in grid.tasks]]
    weights = learned["weights"] + more + learned["share"] / np.maximum(count, 1)
    return _let_vote(learned, grid, columns, grid.recorded[:, columns], weights)


def _ask_team(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    return _let_vote(learned, grid, columns, np.tile(learned["team"], (len(grid), 1)))


def _ask_random_team(learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    draw = np.random.default_rng(learned["seed"]).random((len(grid), len(columns)))
    return _let_vote(learned, grid, columns, draw.argsort(axis=1).argsort(axis=1) < learned["size"])


def _ask_oracle(_: Mapping[str, Any], grid: OutcomeGrid, columns: Ints) -> _Decided:
    return np.nan_to_num(grid.scores[:, columns], nan=-1.0).argmax(axis=1), grid.recorded[:, columns]


def _ask_one(chosen: Ints, columns: Ints) -> _Decided:
    return chosen, np.equal.outer(chosen, np.arange(len(columns)))


def _let_vote(
    learned: Mapping[str, Any], grid: OutcomeGrid, columns: Ints, asked: Bools, weights: Floats | float = 1.0
) -> _Decided:
    ids, labels, heard = grid.answer_ids[:, columns], grid.label_ids[:, columns], asked & grid.recorded[:, columns]
    ids = np.where((heard & (labels >= 0)).any(axis=1, keepdims=True), labels, ids)
    # Answers are numbered by the fitted members alone: by the first of them that gives it.
    first = np.where(ids < 0, -1, (ids[:, :, None] == ids[:, None, :]).argmax(axis=2))
    weights = np.broadcast_to(weights, asked.shape)
    return vote(first, heard, weights=weights, competence=learned["competence"]), asked


_DECIDE: dict[str, Callable[[Mapping[str, Any], OutcomeGrid, Ints], _Decided]] = {
    "single_best": _ask_single_best,
    "random_team": _ask_random_team,
    "top_k": _ask_team,
    "plurality": _ask_everyone,
    "weighted_vote": _ask_everyone,
    "per_task_router": _ask_best_of_task,
    "nearest_neighbours": _ask_best_of_cluster,
    "best_fixed_team": _ask_team,
    "supervised_fusion": _ask_everyone_by_task,
    "oracle": _ask_oracle,
}


# ---- in a checkpoint: arrays and JSON values, whose source may be untrusted: what loads can decide, or is refused

_VOTE = {"weights": "numbers M", "competence": "numbers M"}
_TEAM = {"team": "flags M", "competence": "numbers M", "largest_tried": "size"}
_LEARNED: dict[str, dict[str, str]] = {
    "single_best": {"best": "member"},
    "random_team": {"competence": "numbers M", "size": "size", "seed": "seed"},
    "top_k": _TEAM,
    "plurality": _VOTE,
    "weighted_vote": _VOTE,
    "per_task_router": {"tasks": "texts", "best": "members T", "fallback": "member"},
    "nearest_neighbours": {"centroids": "numbers K F", "best": "members K"},
    "best_fixed_team": _TEAM,
    "supervised_fusion": {"share": "number", "tasks": "texts", "task_weights": "numbers T M", **_VOTE},
    "oracle": {},
    "priced_task_table": {"tasks": "texts", "table": "numbers T M", "overall": "numbers M", "price": "numbers M"},
    "agreement_cascade": {"order": "orders P M", "agree": "sizes P", "most": "sizes P", "competence": "numbers M"},
}
"""What each of them learns: a kind of value, or of array with its axes (M members, T tasks, K clusters, F features, P points)."""

_RULES = {
    "member": "the index of a member",
    "size": "from 1 to the number of members",
    "seed": "a whole number, 0 or more",
    "number": "a number of at most 1e6",
    "texts": "distinct texts, at least one",
    "numbers": "floats of at most 1e6, none of them NaN",
    "members": "integers that are indices of members",
    "orders": "the indices of all members in each row",
    "sizes": "integers from 1 to the number of members",
    "flags": "booleans, at least one of them true",
}
_LARGEST = 1e6  # larger numbers could overflow when they are added up


def dump_baselines(fitted: Mapping[str, Baseline]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Take fitted baselines apart into arrays and JSON values.

    Args:
        fitted: Baselines by their names, at least one, all of one pool.

    Returns:
        Arrays by `name.part`, for a safetensors file, and the facts, plain values for a JSON file:
        `{"members": [...], "fitted": {name: {part: value}}}`.

    Raises:
        InputError: There is none, or one has another name.
        PoolError: Two were fitted on different members.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    values: dict[str, dict[str, Any]] = {name: {} for name in fitted}
    pools = {baseline.members for baseline in fitted.values()}
    if not fitted or any(name != baseline.name for name, baseline in fitted.items()):
        raise InputError(
            "`fitted` must hold at least one baseline, under its own name. Make them with `fit_baselines`."
        )
    if len(pools) > 1:
        raise PoolError(f"Baselines that are stored together must have the same members, got {sorted(pools)}.")
    for name, baseline in fitted.items():
        for part, value in baseline.learned.items():
            if isinstance(value, np.ndarray):
                arrays[f"{name}.{part}"] = np.ascontiguousarray(value)
            else:
                values[name][part] = list(value) if isinstance(value, tuple) else value
    return arrays, {"members": list(pools.pop()), "fitted": values}


def load_baselines(arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> dict[str, Baseline]:
    """Put fitted baselines together again, in the order of `BASELINES`, then `STORED_RIVALS`.

    Args:
        arrays: Arrays as `dump_baselines` names them.
        facts: The facts that belong to them.

    Raises:
        CheckpointError: Something is missing, unknown, or does not fit; the message names it.
    """
    if not isinstance(facts, Mapping) or set(facts) != {"members", "fitted"}:
        raise _refusal("the facts", "hold `members` and `fitted`, and nothing else")
    members, stored = facts["members"], facts["fitted"]
    if not _are_distinct_texts(members):
        raise _refusal("`members`", "be a list of distinct names, at least one")
    if not isinstance(stored, Mapping) or not all(
        name in _LEARNED and isinstance(values, Mapping) for name, values in stored.items()
    ):
        raise _refusal("`fitted`", f"hold objects under names of baselines ({', '.join(_LEARNED)})")
    found = {f"{name}.{part}": value for name, values in stored.items() for part, value in values.items()}
    wanted = {f"{name}.{part}" for name in stored for part in _LEARNED[name]}
    odd = sorted(wanted ^ {*found, *arrays}) + sorted(set(found) & set(arrays))
    if odd:
        raise _refusal("the baselines", f"hold what each of them learns; missing or unknown: {', '.join(odd):.200}")
    fitted = {}
    for name in (name for name in _LEARNED if name in stored):
        axes = {"M": len(members), "F": FEATURES_DIM}
        learned = {}
        # Texts and then arrays of several axes first: they say how long the others are.
        for part, spec in sorted(_LEARNED[name].items(), key=lambda item: (item[1] != "texts", -len(item[1]))):
            source = arrays if f"{name}.{part}" in arrays else found
            try:
                learned[part] = _read(source[f"{name}.{part}"], spec, axes)
            except ValueError as error:
                raise _refusal(f"`{name}.{part}`", f"be {error}") from None
        fitted[name] = Baseline(name, tuple(members), learned)
    return fitted


def _read(value: Any, spec: str, axes: dict[str, int]) -> Any:
    """Check a stored value; an axis that is not known yet gets the array's length."""
    kind, *names = spec.split()
    rule, members = ValueError(_RULES[kind]), axes["M"]
    if not names:
        if kind == "texts" and _are_distinct_texts(value):
            axes["T"] = len(value)
            return tuple(value)
        ranges = {
            "member": (0, members - 1),
            "size": (1, members),
            "seed": (0, np.inf),
            "number": (-_LARGEST, _LARGEST),
        }
        low, high = ranges.get(kind, (1, 0))
        if type(value) not in ((int, float) if kind == "number" else (int,)) or not low <= value <= high:
            raise rule
        return float(value) if kind == "number" else value
    if not isinstance(value, np.ndarray) or value.ndim != len(names):
        raise ValueError(f"an array of shape [{', '.join(names)}]")
    for axis, length in zip(names, value.shape, strict=True):
        if length < 1 or axes.setdefault(axis, length) != length:
            raise ValueError(f"of shape [{', '.join(names)}] with {axis} = {axes.get(axis) or 'at least 1'}")
    if kind == "numbers" and value.dtype.kind == "f" and (np.abs(value) <= _LARGEST).all():
        return value.astype(np.float64)
    if kind == "members" and value.dtype.kind in "iu" and ((value >= 0) & (value < members)).all():
        return value.astype(np.intp)
    if kind == "orders" and value.dtype.kind in "iu" and (np.sort(value, axis=1) == np.arange(members)).all():
        return value.astype(np.intp)
    if kind == "sizes" and value.dtype.kind in "iu" and ((value >= 1) & (value <= members)).all():
        return value.astype(np.intp)
    if kind == "flags" and value.dtype.kind == "b" and value.any():
        return value
    raise rule


def _are_distinct_texts(value: Any) -> bool:
    return (
        isinstance(value, list) and all(isinstance(text, str) for text in value) and 0 < len(set(value)) == len(value)
    )


def _refusal(what: str, rule: str) -> CheckpointError:
    return CheckpointError(f"Stored baselines: {what} must {rule}. Train the policy again, which stores new ones.")


# ---- parts of the fits


def _fitted(name: str, grid: OutcomeGrid, **learned: Any) -> Baseline:
    return Baseline(name, grid.members, learned)


def _check_some(grid: OutcomeGrid) -> None:
    if not len(grid):
        raise InputError(
            "`grid` must hold at least one training or validation query to fit a baseline, got none. Pass more outcomes."
        )


def _check_size(size: int, grid: OutcomeGrid) -> None:
    if not 1 <= size <= len(grid.members):
        raise InputError(f"`size` must be from 1 to {len(grid.members)} members, got {size}.")


def _mean_cell(scores: Floats) -> float:
    """Average all scored cells; ½ where there is none."""
    known = ~np.isnan(scores)
    return float(scores[known].mean()) if known.any() else 0.5


def mean_scores(scores: Floats) -> Floats:
    """Average each column, shape [M]; with unscored cells, drawn to the mean of all cells."""
    known = ~np.isnan(scores)
    if known.all():
        return np.asarray(scores.mean(axis=0))
    total = np.where(known, scores, 0.0).sum(axis=0) + PRIOR_CELLS * _mean_cell(scores)
    return np.asarray(total / (known.sum(axis=0) + PRIOR_CELLS))


def competence_of(grid: OutcomeGrid) -> Floats:
    """Average each member's score, shape [M]."""
    _check_some(grid)
    return mean_scores(grid.scores)


def _best_of_groups(scores: Floats, groups: Ints, *, count: int, shrinkage: float) -> Ints:
    """Name the best member of each group of queries, shape [count]."""
    return np.asarray(shrunk_scores(scores, groups, count=count, shrinkage=shrinkage).argmax(axis=1))


def shrunk_scores(scores: Floats, groups: Ints, *, count: int, shrinkage: float) -> Floats:
    """Average each member's scores in each group of queries, drawn toward the overall ones, shape [count, M]."""
    if not 0 < shrinkage < np.inf:
        raise InputError(f"`shrinkage` must be above 0 and finite, got {shrinkage}. 20 is a start.")
    belongs = np.equal.outer(np.arange(count), groups).astype(np.float64)
    total = belongs @ np.nan_to_num(scores) + shrinkage * mean_scores(scores)
    # Rounded, so that members with equal scores are equal however their sums were made.
    return np.asarray(np.round(total / (belongs @ ~np.isnan(scores) + shrinkage), 12))


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
    for _ in range(50):
        belongs = np.equal.outer(np.arange(len(centroids)), _nearest(features, centroids))
        sizes = belongs.sum(axis=1, keepdims=True)
        moved = np.where(sizes > 0, belongs.astype(np.float64) @ features / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids

"""Rivals: cost-aware ways of answering that a policy has to beat at every spending, not at one.

Each has a parameter that trades score for spending, as a policy has its cost weight, and so a frontier. Frontiers are
compared by the area under them (`average_quality`). Parameters come from fitted rows or from a fixed list
(`COST_WEIGHTS`); the test rows only measure the points that they make. The hull is then taken over these test figures,
for the policy and the rivals alike: that is what the measure is. It flatters whoever has many points, so all have as
many, or fewer where fewer were found. Within a target a policy mixes points that training chose, and may score
less than its hull says.

- `priced_task_table`: one member, by its mean score on the query's task minus λ x its price.
- `agreement_cascade`: members in turn, until k of them agree; then, or after the last of them, a plurality vote.
- `priced_linear_router`: one member, by the policy's own competence, a ridge regression from query features, minus λ x
  its price.

Prices are shares of what asking the whole pool once costs, as they are for a policy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import Replays, environment_of
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import (
    PRIOR_CELLS,
    SHRINKAGES,
    STORED_RIVALS,
    Baseline,
    Decision,
    competence_of,
    decision_of,
    mean_scores,
    shrunk_scores,
    vote,
)
from langchain_rlfocal.evaluation.metrics import Estimate, inverse_propensity
from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid, spending_in
from langchain_rlfocal.outcomes.grids import costs_of
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.policies.targets import OperatingPoint

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

SpendingUnit = Literal["usd", "tokens", "calls"]
"""What spending is counted in."""

RIVALS = (*STORED_RIVALS, "priced_linear_router")
"""Names of the rivals, in the order of a report. The last needs no fit but the policy's own."""

COST_WEIGHTS = (0.0, *(float(weight) for weight in np.geomspace(0.01, 1000.0, 40).round(4)))
"""What asking the whole pool once costs, in units of score, at each point: the policy's cost weight, and λ of the two
rivals with prices. From a weight of 1000 on the cheapest member is asked even if it has a ten-thousandth of the pool's
price."""

AGREE = (1, 2, 3)
"""k of the cascades that are tried."""

BEAM = 8
"""So many cascades of each k and length are lengthened."""

RESAMPLES, _BLOCK = 400, 50


class Point(NamedTuple):
    """An operating point, measured.

    Attributes:
        setting: The parameters that make it, JSON values by name.
        spending: Mean spending per query, in the unit of the comparison.
        score: Mean score.
        n: Number of queries that both are means over.
    """

    setting: Mapping[str, Any]
    spending: float
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """What one way of answering can do at every spending.

    Attributes:
        aiq: Its average quality; see `average_quality`.
        hull: The measured points that its hull goes through, by spending.
        tried: Number of points that were measured.
    """

    aiq: float
    hull: tuple[Point, ...]
    tried: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {"aiq": self.aiq, "tried": self.tried, "hull": [point._asdict() for point in self.hull]}


@dataclass(frozen=True, slots=True)
class Frontiers:
    """A policy's frontier and those of its rivals, on the same queries.

    Attributes:
        unit: What spending is counted in: usd, tokens or calls.
        low: Where the range of spending begins; see `spending_range`.
        high: Where it ends.
        policy: Frontier of the policy, its points mixed.
        rivals: Frontiers of the rivals by name, in the order of `RIVALS`.
        differences: Average quality of the policy minus the rival's, with a 95 % bootstrap interval, in which the
            queries are resampled and both hulls taken anew over the same range.
        missing: Names of `RIVALS` that were not fitted, or have no query that counts.
        note: Why spending is counted in calls; None where it is counted as was asked for. See `unit_note`.
    """

    unit: str
    low: float
    high: float
    policy: Frontier
    rivals: Mapping[str, Frontier]
    differences: Mapping[str, Estimate]
    missing: tuple[str, ...]
    note: str | None = None

    @property
    def ahead(self) -> tuple[str, ...]:
        """Rivals with a higher average quality than the policy."""
        return tuple(name for name, frontier in self.rivals.items() if frontier.aiq > self.policy.aiq)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "unit": self.unit,
            "note": self.note,
            "range": [self.low, self.high],
            "policy": self.policy.as_dict(),
            "rivals": {name: frontier.as_dict() for name, frontier in self.rivals.items()},
            "differences": {
                name: {"mean": one.mean, "ci95": [one.low, one.high], "n": one.n}
                for name, one in self.differences.items()
            },
            "ahead": list(self.ahead),
            "missing_rivals": list(self.missing),
        }


# ---- the measure


def hull_of(spending: Floats, scores: Floats) -> Ints:
    """Find the points of the non-decreasing convex hull that begins at (0, 0), by spending.

    Who asks nobody spends nothing and scores 0, and whoever tosses a coin for each query between two points gets every
    mean in between: so a curve that begins later counts, before its first point, as on the line from (0, 0).

    Args:
        spending: Mean spending of each point, from 0, shape [K].
        scores: Mean score of each point, from 0, shape [K].

    Returns:
        Indices of the points that the hull goes through; none where all scores are 0.
    """
    kept: list[tuple[float, float, int]] = [(0.0, 0.0, -1)]
    for index in np.lexsort((-scores, spending)).tolist():
        x, y = float(spending[index]), float(scores[index])
        if y <= kept[-1][1]:
            continue
        # The last point falls away where it is not above the line from the one before it.
        while len(kept) > 1:
            (x0, y0, _), (x1, y1, _) = kept[-2:]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            kept.pop()
        kept.append((x, y, index))
    return np.array([index for _, _, index in kept if index >= 0], dtype=np.intp)


def average_quality(spending: Floats, scores: Floats, *, low: float, high: float) -> float:
    """Average the hull's score over a range of spending: the AIQ.

        AIQ = 1 / (high - low) · ∫ from low to high of hull(c) dc

    After its last point the hull is flat. Of an empty range it is the hull's score there.

    Source: Hu et al., 2024, "RouterBench: a benchmark for multi-LLM routing system", section 3.
    https://arxiv.org/abs/2403.12031

    Args:
        spending: Mean spending of each point, shape [K].
        scores: Mean score of each point, shape [K].
        low: Where the range begins, from 0.
        high: Where it ends, from `low`.
    """  # fmt: skip
    x, y = _curve_of(spending, scores)
    if not high > low:
        return float(np.interp(low, x, y))
    at = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
    heights = np.interp(at, x, y)
    return float((np.diff(at) * (heights[1:] + heights[:-1]) / 2).sum() / (high - low))


def _curve_of(spending: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the hull, rising in both."""
    on = hull_of(spending, scores)
    x, y = np.concatenate([[0.0], spending[on]]), np.concatenate([[0.0], scores[on]])
    return (x[1:], y[1:]) if len(x) > 1 and x[1] == 0.0 else (x, y)  # something for nothing


def unit_of(grid: OutcomeGrid, cost_unit: CostUnit) -> SpendingUnit:
    """Choose what spending is counted in; `unit_note` says why it is not what was asked for.

    Returns:
        `cost_unit` itself where some such cost of every member is known and not all are 0; for `auto`, dollars where
        that of every recorded call is known; else calls.
    """
    unit: SpendingUnit = "usd" if cost_unit == "auto" else cost_unit
    known = ~np.isnan(costs_of(grid, unit)) & grid.recorded
    is_enough = known[grid.recorded].all() if cost_unit == "auto" else known.any(axis=0).all()
    return unit if is_enough and np.nansum(costs_of(grid, unit)[grid.recorded]) > 0 else "calls"


def unit_note(grid: OutcomeGrid, cost_unit: CostUnit) -> str | None:
    """Say why spending is counted in calls where dollars or tokens were asked for, or `auto` would rather have dollars.

    Returns:
        A sentence; None where the outcomes hold the unit.
    """
    wanted: SpendingUnit = "usd" if cost_unit == "auto" else cost_unit
    if unit_of(grid, cost_unit) == wanted:
        return None
    unknown = (np.isnan(costs_of(grid, wanted)) & grid.recorded).sum(axis=0)
    lacking = [f"{name} on {count:,}" for name, count in zip(grid.members, unknown.tolist(), strict=True) if count]
    more = f" and {len(lacking) - 5} more members" if len(lacking) > 5 else ""
    of_whom = f"unknown of {', '.join(lacking[:5])}{more}, of {len(grid):,} queries" if lacking else "0 for all"
    asked = "" if cost_unit == "auto" else f", not in {cost_unit} as in training"
    return f"Spending is counted in calls{asked}: the {'dollars are' if wanted == 'usd' else 'tokens are'} {of_whom}."


def spending_of(grid: OutcomeGrid, unit: SpendingUnit) -> Floats:
    """What each call costs, the member's mean where unknown or not on record, shape [Q, M]."""
    costs = np.where(grid.recorded, costs_of(grid, unit), np.nan)
    known = ~np.isnan(costs)
    mean = np.where(known, costs, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, costs, mean)


def spending_range(spending: Floats, *, max_team: int) -> tuple[float, float]:
    """Say over which spending frontiers are compared.

    From the cheapest member's mean spending per query to the dearest member's; where all members cost the same, as in
    calls, to that of the largest team.

    Args:
        spending: What each call costs, shape [Q, M].
        max_team: Members of the largest team.
    """
    means = spending.mean(axis=0)
    low, high = float(means.min()), float(means.max())
    return (low, high) if high > low * (1 + 1e-9) else (low, low * min(max_team, len(means)))


# ---- the rivals


def fit_rivals(
    train_grid: OutcomeGrid, validation_grid: OutcomeGrid, *, max_team: int, cost_unit: CostUnit = "auto"
) -> dict[str, Baseline]:
    """Fit the rivals that learn from outcomes, as well as the rows that are not tested allow.

    How far a task's scores are drawn to the overall ones is chosen by the average quality on validation rows of tables
    of training rows; the table is then fitted on both. The cascades are those at the hull of both.

    Args:
        train_grid: Outcomes to learn from.
        validation_grid: Outcomes, of other queries, to choose by.
        max_team: Members that a cascade may ask.
        cost_unit: What spending is counted in; see `unit_of`.

    Raises:
        InputError: A grid holds no query, `max_team` is below 1, or the outcomes do not hold `cost_unit`.
    """
    if max_team < 1 or not len(train_grid) or not len(validation_grid):
        raise InputError(
            f"Rivals need at least one training and one validation query and a team, got {len(train_grid)} and "
            f"{len(validation_grid)} queries and `max_team` {max_team}. Pass more."
        )
    train_grid, validation_grid = train_grid.canonical(), validation_grid.canonical()
    both = train_grid.join(validation_grid)
    unit = unit_of(both, cost_unit) if cost_unit == "auto" else spending_in(both, cost_unit).unit
    spending = spending_of(validation_grid, unit_of(validation_grid, unit))
    low, high = spending_range(spending, max_team=max_team)

    def quality(shrinkage: float) -> float:
        table = fit_priced_task_table(train_grid, shrinkage=shrinkage, unit=unit)
        measured = _Measured.of(validation_grid, _tables(table, validation_grid), spending)
        return round(average_quality(*measured.figures(), low=low, high=high), 12) if measured.settings else 0.0

    shrinkage = max(SHRINKAGES, key=quality)
    return {
        "priced_task_table": fit_priced_task_table(both, shrinkage=shrinkage, unit=unit),
        "agreement_cascade": fit_agreement_cascade(both, max_team=max_team, unit=unit),
    }


def fit_priced_task_table(grid: OutcomeGrid, *, shrinkage: float = 20.0, unit: SpendingUnit = "calls") -> Baseline:
    """Learn each member's mean score on each task, shrunk as in `fit_per_task_router`, and its price.

    Args:
        grid: The outcomes.
        shrinkage: Queries that a member's overall score counts for, above 0.
        unit: What spending is counted in.

    Raises:
        InputError: `grid` holds no query, or `shrinkage` is not above 0 and finite.
    """
    overall, tasks = np.round(competence_of(grid), 12), tuple(sorted(set(grid.tasks)))
    groups = np.array([tasks.index(task) for task in grid.tasks])
    table = shrunk_scores(grid.scores, groups, count=len(tasks), shrinkage=shrinkage)
    price = spending_of(grid, unit).mean(axis=0)
    learned = {"tasks": tasks, "table": table, "overall": overall, "price": price / max(price.sum(), 1e-300)}
    return Baseline("priced_task_table", grid.members, learned)


def fit_agreement_cascade(grid: OutcomeGrid, *, max_team: int, unit: SpendingUnit = "calls") -> Baseline:
    """Find good cascades: an order of members, k, and how many are asked at most.

    For each k of `AGREE` orders grow by one member at a time: of each length the `BEAM` orders nearest below the hull
    of all that were tried are lengthened by every other member. Of all that were tried the nearest below the hull are
    kept, as many as there are `COST_WEIGHTS`, and of those that score and spend the same the first.

    Source of the rule: Kolawole et al., 2024, "Agreement-based cascading for efficient inference". Theirs asks
    ensembles of growing size; here each step adds one member, as prices differ by member.

    Args:
        grid: The outcomes.
        max_team: Members that may be asked.
        unit: What spending is counted in.

    Raises:
        InputError: `grid` holds no query.
    """
    competence, spending = competence_of(grid), spending_of(grid, unit)
    num_members, known = len(grid.members), ~np.isnan(grid.scores)
    prior = (0.0, 0.0) if known.all() else (PRIOR_CELLS, PRIOR_CELLS * float(mean_scores(grid.scores).mean()))
    found: list[tuple[tuple[int, ...], int]] = []
    x, y = np.zeros(0), np.zeros(0)
    for agree in (k for k in AGREE if k <= min(max_team, num_members)):
        beam: list[tuple[int, ...]] = [()]
        for _ in range(min(max_team, num_members)):
            # Of the first k the order is all one, for they are all asked.
            orders = [
                (*order, member)
                for order in beam
                for member in range(num_members)
                if member not in order and not (0 < len(order) < agree and member < order[-1])
            ]
            if not orders:
                break
            figures = []
            for order in orders:
                decision = _cascade(grid, np.array(order), agree=agree, competence=competence[list(order)])
                scores = decision.scores(grid)
                counts = ~np.isnan(scores)
                total, weight = scores[counts].sum() + prior[1], counts.sum() + prior[0]
                cost = (decision.asked * spending)[counts].sum(axis=1)
                figures.append((cost.mean() if len(cost) else np.inf, total / weight if len(cost) else 0.0))
            new_x, new_y = np.round(np.array(figures).T, 12)
            found += [(order, agree) for order in orders]
            x, y = np.concatenate([x, new_x]), np.concatenate([y, new_y])
            beam = [orders[index] for index in _nearest_below(new_x, new_y, _curve_of(x, y), count=BEAM)]
    best = [found[index] for index in _nearest_below(x, y, _curve_of(x, y), count=len(COST_WEIGHTS))]
    rest = [[m for m in range(num_members) if m not in order] for order, _ in best]
    return Baseline(
        "agreement_cascade",
        grid.members,
        {
            "order": np.array([[*order, *others] for (order, _), others in zip(best, rest, strict=True)]),
            "agree": np.array([agree for _, agree in best]),
            "most": np.array([len(order) for order, _ in best]),
            "competence": competence,
        },
    )


def _nearest_below(x: Floats, y: Floats, hull: tuple[Floats, Floats], *, count: int) -> list[int]:
    """Choose the points nearest below a hull, of several at one place the first: those on it come first."""
    below = np.round(np.interp(x, *hull) - y, 12)
    places: dict[tuple[float, float], int] = {}
    for index in np.argsort(below, kind="stable").tolist():
        places.setdefault((float(x[index]), float(y[index])), index)
    return list(places.values())[:count]


def _tables(rival: Baseline, grid: OutcomeGrid) -> "Iterator[_Decided]":
    columns, learned = rival.columns(grid), rival.learned
    row = {task: index for index, task in enumerate(learned["tasks"])}
    table = np.vstack([learned["table"], learned["overall"]])  # the last is that of unknown tasks
    return _priced(grid, columns, table[[row.get(task, -1) for task in grid.tasks]], learned["price"])


def _linear(policy: EnsemblePolicy, grid: OutcomeGrid, *, hide_tasks: bool) -> "Iterator[_Decided]":
    tasks: list[str | None] = [None] * len(grid) if hide_tasks else [*grid.tasks]
    described = policy.describe(grid.queries, tasks, grid.members)
    competence, price = (np.asarray(each, dtype=np.float64) for each in (described.competence, described.price))
    return _priced(grid, np.arange(len(grid.members)), competence, price)


def _priced(grid: OutcomeGrid, columns: Ints, worth: Floats, price: Floats) -> "Iterator[_Decided]":
    """Ask, for each λ, the member of these columns that is worth most after its price; of equals the first."""
    for weight in COST_WEIGHTS:
        # Rounded, so that equal members are equal however their figures were made.
        chosen = np.round(worth - weight * price, 9).argmax(axis=1)
        asked = np.equal.outer(chosen, np.arange(len(columns)))
        decision = decision_of(grid, columns, chosen, asked)
        yield {"cost_weight": weight}, decision.asked, decision.scores(grid)


def _cascades(rival: Baseline, grid: OutcomeGrid) -> "Iterator[_Decided]":
    columns, learned = rival.columns(grid), rival.learned
    for order, agree, most in zip(learned["order"], learned["agree"].tolist(), learned["most"].tolist(), strict=True):
        asked = order[:most]
        decision = _cascade(grid, columns[asked], agree=agree, competence=learned["competence"][asked])
        setting = {"order": [rival.members[member] for member in asked], "agree": agree}
        yield setting, decision.asked, decision.scores(grid)


def _cascade(grid: OutcomeGrid, columns: Ints, *, agree: int, competence: Floats) -> Decision:
    """Ask these columns in turn until `agree` of them say the same, and let those who were asked vote.

    A text without a label agrees with no other. Where the cascade stops early, the vote goes to the answer that did it.

    Args:
        grid: The outcomes.
        columns: The members in the order in which they are asked, shape [L].
        agree: How many must say the same.
        competence: Their competence, which breaks ties, shape [L].
    """
    ids = grid.answer_ids[:, columns]
    same = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, :, None]
    support = (same & np.tri(len(columns), dtype=bool)).sum(axis=2)
    stops = np.logical_or.accumulate(support >= agree, axis=1)
    asked = np.ones_like(stops)
    asked[:, 1:] = ~stops[:, :-1]
    labels = grid.label_ids[:, columns]
    ids = np.where((asked & (labels >= 0)).any(axis=1, keepdims=True), labels, ids)
    first = np.where(ids < 0, -1, (ids[:, :, None] == ids[:, None, :]).argmax(axis=2))
    chosen = vote(first, asked, weights=np.ones(len(columns)), competence=competence)
    return decision_of(grid, columns, chosen, asked)


# ---- the comparison

_Decided = tuple[Mapping[str, Any], Bools, Floats]
"""An operating point: its setting, who was asked [Q, M], and the scores [Q]."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The operating points of one way of answering, query by query; points without a query that counts are left out.

    Attributes:
        settings: What makes each point, K of them.
        counts: What each query counts for each point, 0 where it does not, shape [K, Q].
        spending: Shape [K, Q], 0 where the query does not count.
        scores: Shape [K, Q], 0 where the query does not count.
    """

    settings: list[Mapping[str, Any]]
    counts: Floats
    spending: Floats
    scores: Floats

    @classmethod
    def of(cls, grid: OutcomeGrid, points: "Iterator[_Decided]", spending: Floats) -> "_Measured":
        settings, counts, costs, scores = [], [], [], []
        everyone = np.ones(grid.recorded.shape, dtype=bool)
        for setting, asked, score in points:
            rows = ~np.isnan(score)
            if not rows.any():
                continue
            needed = everyone if grid.recorded.all() else asked
            weights = inverse_propensity(grid.propensity[rows], needed[rows])
            count = np.zeros(len(grid))
            count[rows] = 1.0 if weights is None else weights
            settings.append(setting)
            counts.append(count)
            costs.append(count * (asked * spending).sum(axis=1))
            scores.append(count * np.nan_to_num(score))
        shape = len(settings), len(grid)
        return cls(settings, *(np.reshape(np.array(each), shape) for each in (counts, costs, scores)))

    def figures(self, drawn: Floats | None = None) -> tuple[Floats, Floats]:
        """Mean spending and score of each point, shape [K] each.

        Of B resamples, shape [K, B] each, where it is given how often each query was drawn, shape [Q, B].
        """
        drawn = np.ones(self.counts.shape[1]) if drawn is None else drawn
        total = self.counts @ drawn
        is_some = total > 0
        total = np.where(is_some, total, 1.0)
        # A point that no drawn query counts for is worth nothing.
        return np.where(is_some, self.spending @ drawn / total, 0.0), self.scores @ drawn / total

    def frontier(self, *, low: float, high: float) -> Frontier:
        """Take the hull."""
        spending, scores = self.figures()
        n = (self.counts > 0).sum(axis=1)
        hull = tuple(
            Point(self.settings[at], float(spending[at]), float(scores[at]), int(n[at]))
            for at in hull_of(spending, scores)
        )
        return Frontier(average_quality(spending, scores, low=low, high=high), hull, len(self.settings))


def compare_frontiers(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    fitted: Mapping[str, Baseline],
    *,
    max_team: int,
    max_rounds: int,
    cost_unit: CostUnit = "auto",
    hide_tasks: bool = False,
    seed: int = 0,
) -> Frontiers:
    """Measure the frontiers of a policy and its rivals on held-out outcomes.

    A query counts for a point where all that the point asks is on record and its answer was scored, as in
    `report.evaluate`.

    Args:
        policy: The policy; it is not changed.
        grid: Outcomes that neither the policy nor the rivals have seen.
        fitted: Rivals of `STORED_RIVALS` by name, as `fit_rivals` makes and `report.rivals_of` reads them; may be
            empty.
        max_team: How many members the policy may ask.
        max_rounds: How many rounds the policy may take.
        cost_unit: What spending is counted in; see `unit_of`.
        hide_tasks: Whether nobody who decides sees a task label.
        seed: Seed of the bootstrap.

    Raises:
        InputError: `grid` holds no query that counts for any point of the policy.
        PoolError: `grid` has a member that the policy does not know, or lacks one that a rival was fitted on.
    """
    grid = grid.canonical()
    shown = replace(grid, tasks=[""] * len(grid)) if hide_tasks else grid
    unit = unit_of(grid, cost_unit)
    spending = spending_of(grid, unit)
    low, high = spending_range(spending, max_team=max_team)

    def points() -> "Iterator[_Decided]":
        env = environment_of(policy, grid, max_team=max_team, max_rounds=max_rounds, hide_tasks=hide_tasks)
        replays = Replays(policy, env, hide_tasks=hide_tasks)
        for weight in COST_WEIGHTS:
            played = replays.at(OperatingPoint(weight))
            yield {"cost_weight": weight}, played.asked, np.asarray(played.scores, dtype=np.float64)

    own = _Measured.of(grid, points(), spending)
    if not own.settings:
        raise InputError(
            f"Of {len(grid)} queries, at least one must have on record every member whom the policy asks, and a score "
            "of its answer; none has. Evaluate on outcomes of more members, or score some."
        )
    ways = {"priced_task_table": _tables, "agreement_cascade": _cascades}
    found = {name: _Measured.of(grid, ways[name](fitted[name], shown), spending) for name in ways if name in fitted}
    found["priced_linear_router"] = _Measured.of(grid, _linear(policy, grid, hide_tasks=hide_tasks), spending)
    found = {name: measured for name, measured in found.items() if measured.settings}
    qualities: dict[str, list[float]] = {name: [] for name in ("policy", *found)}
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _BLOCK):
        drawn = rng.multinomial(len(grid), np.full(len(grid), 1 / len(grid)), size=_BLOCK).T.astype(np.float64)
        for name, measured in {"policy": own, **found}.items():
            costs, scores = measured.figures(drawn)
            qualities[name] += [
                average_quality(*one, low=low, high=high) for one in zip(costs.T, scores.T, strict=True)
            ]
    policy_frontier = own.frontier(low=low, high=high)
    rivals = {name: measured.frontier(low=low, high=high) for name, measured in found.items()}
    differences = {}
    for name, frontier in rivals.items():
        below, above = np.quantile(np.subtract(qualities["policy"], qualities[name]), [0.025, 0.975])
        differences[name] = Estimate(policy_frontier.aiq - frontier.aiq, float(below), float(above), len(grid))
    missing = tuple(name for name in RIVALS if name not in found)
    return Frontiers(unit, low, high, policy_frontier, rivals, differences, missing, unit_note(grid, cost_unit))

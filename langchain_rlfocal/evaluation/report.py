"""Report: what a policy scores on outcomes it has not seen, compared with the baselines it has to beat.

`evaluate` freezes everything: the policy decides without randomness and learns nothing, the baselines come fitted, and the
scores of the evaluated queries reach nothing but the averages and the Oracle. In whatever order a grid holds its queries and
members, the figures and their intervals are the same.

Of recorded outcomes with holes, a query counts for a way of answering where everyone whom it asks is on record and its answer was
scored; each figure says on how many queries it stands. Who asks everyone asks whoever is on record. Such queries are no fair
sample: where the outcomes say with what probability each member was asked, they are weighted by its inverse
(`metrics.inverse_propensity`), and where they do not, the report says that its figures may be biased.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import Replay, replay, taken_by
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import (
    ASK_EVERYONE,
    BASELINES,
    STORED_RIVALS,
    Baseline,
    Decision,
    load_baselines,
    missing_baselines,
    unfitted_baselines,
)
from langchain_rlfocal.evaluation.metrics import (
    Estimate,
    bootstrap_mean,
    expected_calibration_error,
    inverse_propensity,
    oracle_gap_share,
    paired_difference,
)
from langchain_rlfocal.evaluation.rivals import Frontiers, compare_frontiers
from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.policies.targets import Target, Unit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

COVERED = 0.8
"""Weights that add up to a smaller share of the queries leave out much of what a policy would do."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of answering scored, and what it took.

    Attributes:
        score: Mean score with its interval.
        macro: Mean over tasks of the mean score on each, so that every task counts alike.
        mean_calls: Mean calls per query.
        mean_team: Mean number of distinct members asked per query.
        cost_usd: Mean dollars per query, None where the price of any call is unknown.
        tokens: Mean tokens per query, of prompts and responses, None where those of any call are unknown.
        latency_s: Mean over queries of the seconds that a query waits, None where any is unknown: in each round for its
            slowest member, and rounds follow each other. Baselines ask once.
        n: Number of queries that all of these are means over.
        basis: `"rows"` where every query counts alike, `"weighted"` where by the inverse of recorded propensities.
    """

    score: Estimate
    macro: float
    mean_calls: float
    mean_team: float
    cost_usd: float | None
    tokens: float | None
    latency_s: float | None
    n: int
    basis: Literal["rows", "weighted"]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers: score, ci95 (low and high) and the other figures by name."""
        _, *figures = asdict(self).items()
        return {"score": self.score.mean, "ci95": [self.score.low, self.score.high], **dict(figures)}


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """What a policy and the baselines did query by query: what the figures of a report are means over.

    Attributes:
        grid: The outcomes, in their canonical order.
        played: What the policy did.
        decisions: What each baseline did, by name.
        scores: Score of each query for `"policy"` and each baseline, NaN where the query does not count for it, shape [Q].
        asked_in: Round in which each of them asked each member, 0 where it did not, shape [Q, M].
    """

    grid: OutcomeGrid
    played: Replay
    decisions: Mapping[str, Decision]
    scores: Mapping[str, Floats]
    asked_in: Mapping[str, npt.NDArray[np.integer]]

    @classmethod
    def of(cls, grid: OutcomeGrid, played: Replay, decisions: Mapping[str, Decision]) -> "Rows":
        """Score what was done on a grid in its canonical order."""
        asked_in = {"policy": played.asked_in} | {name: each.asked.astype(np.intp) for name, each in decisions.items()}
        scores = {"policy": np.asarray(played.scores, dtype=np.float64)}
        scores |= {name: decision.scores(grid) for name, decision in decisions.items()}
        return cls(grid, played, decisions, scores, asked_in)

    def sample(self, *names: str) -> tuple[Bools, Floats | None]:
        """Take the queries that count for all of these, shape [Q], and what each of them counts, None where all alike."""
        rows = np.logical_and.reduce([~np.isnan(self.scores[name]) for name in names])
        needed = np.logical_or.reduce([self._needed(name) for name in names])
        return rows, inverse_propensity(self.grid.propensity[rows], needed[rows])

    def taken(self, name: str, unit: Unit) -> Floats:
        """Count what each query took, shape [Q]; see `environment.taken_by`."""
        return taken_by(self.grid, self.asked_in[name], unit)

    def _needed(self, name: str) -> Bools:
        """Without whom a query would not count: of outcomes without a hole everyone, since others were left out."""
        if self.grid.recorded.all():
            return np.ones(self.grid.recorded.shape, dtype=bool)
        if name in ASK_EVERYONE:
            return np.zeros(self.grid.recorded.shape, dtype=bool)
        return self.asked_in[name] > 0


@dataclass(frozen=True, slots=True)
class Report:
    """A policy's figures and those of the baselines, on the same queries.

    Attributes:
        policy: Its figures.
        mean_rounds: Mean rounds per query that it took.
        calibration_error: Expected calibration error of its confidence; see `metrics.expected_calibration_error`.
        queries: Number of queries that were to be answered.
        baselines: Figures of each baseline, in the order of `baselines.BASELINES`. The Oracle returns the best answer of
            any member, also where a policy could choose an option that no member gave.
        missing_baselines: Names of `baselines.BASELINES` that were not given and need a fit.
        unmeasured: Names of baselines without a query that counts.
        differences: Mean of the policy's score minus the baseline's, paired by query, over those that count for both.
        oracle_gap_share: Share of the way from the single best member to the Oracle, over the queries that count for all three;
            None where it is unknown.
        per_task: Mean score on each task, of `"policy"` and each baseline, None without a query that counts, and the number of
            queries `"n"`.
        per_task_n: Number of queries that each of these means is over.
        dropped: Queries left out of the grid because a member did not answer.
        missing: Queries of the grid for which a member has no row.
        contradictions: Queries of which one answer was scored right for one member and wrong for another.
        bias: What makes the figures an unfair sample, in a sentence or two; None where every query counts.
        rows: What was done query by query; no part of `as_dict`.
        frontiers: How the policy and cost-aware rivals compare over all spending; None where that was not asked for.
    """

    policy: Figures
    queries: int
    mean_rounds: float
    calibration_error: float
    baselines: Mapping[str, Figures]
    missing_baselines: tuple[str, ...]
    unmeasured: tuple[str, ...]
    differences: Mapping[str, Estimate]
    oracle_gap_share: float | None
    per_task: Mapping[str, Mapping[str, float | None]]
    per_task_n: Mapping[str, Mapping[str, int]]
    dropped: int
    missing: int
    contradictions: int
    bias: str | None
    rows: Rows = field(repr=False, compare=False)
    frontiers: Frontiers | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        return {
            "queries": self.queries,
            "policy": {
                **self.policy.as_dict(),
                "mean_rounds": self.mean_rounds,
                "calibration_error": self.calibration_error,
            },
            "baselines": {name: figures.as_dict() for name, figures in self.baselines.items()},
            "missing_baselines": list(self.missing_baselines),
            "unmeasured": list(self.unmeasured),
            "differences": {
                name: {"mean": difference.mean, "ci95": [difference.low, difference.high], "n": difference.n}
                for name, difference in self.differences.items()
            },
            "oracle_gap_share": self.oracle_gap_share,
            "macro": {"policy": self.policy.macro} | {name: each.macro for name, each in self.baselines.items()},
            "per_task": {task: dict(scores) for task, scores in self.per_task.items()},
            "per_task_n": {task: dict(counts) for task, counts in self.per_task_n.items()},
            "dropped": self.dropped,
            "missing": self.missing,
            "contradictions": self.contradictions,
            "bias": self.bias,
            "frontiers": None if self.frontiers is None else self.frontiers.as_dict(),
        }


def evaluate(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    baselines: Mapping[str, Baseline],
    cost_weight: float,
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
    target: Target | None = None,
    seed: int = 0,
    rivals: Mapping[str, Baseline] | None = None,
    cost_unit: CostUnit = "auto",
) -> Report:
    """Score a policy and the baselines on held-out outcomes.

    Args:
        policy: The policy; it is not changed.
        grid: Outcomes that neither the policy nor the baselines have seen.
        baselines: Fitted baselines by name, as `fit_baselines` makes and `baselines_of` reads them; may be empty. Those
            that need no fit are there in any case: a random team, a plurality vote whose ties go to the first by
            name, and the Oracle.
        cost_weight: What asking the whole pool once is worth to the policy, in units of score, where there is no target.
        max_team: How many members the policy may ask, and a random team that comes unfitted.
        max_rounds: How many rounds the policy may take.
        hide_tasks: Whether nobody who decides sees a task label, as where a caller gives none; `per_task` is by the labels.
        target: What a query may take on average: the policy serves the queries one after the other, and its controller
            counts what they take, as when it answers; see `environment.Replays.within`.
        seed: Seed of the bootstrap and of an unfitted random team.
        rivals: Fitted cost-aware rivals by name, as `rivals.fit_rivals` makes and `rivals_of` reads them; may be empty. None
            leaves the comparison of frontiers out, which replays the policy at every cost weight of `rivals.COST_WEIGHTS`.
        cost_unit: What spending is counted in along the frontiers; see `rivals.unit_of`.

    Raises:
        InputError: `grid` holds no query, or none on which all that the policy asks is on record and its answer was scored; or
            the target is out of the policy's reach.
        PoolError: `grid` has a member that the policy does not know, or lacks one that a baseline was fitted on.
    """
    if not len(grid):
        raise InputError("`grid` must hold at least one query, got none. Evaluate on more outcomes.")
    grid = grid.canonical()
    fitted = {**unfitted_baselines(grid.members, max_team=max_team, seed=seed), **baselines}
    shown = replace(grid, tasks=[""] * len(grid)) if hide_tasks else grid
    decisions = {name: fitted[name].decide(shown) for name in (*BASELINES, *fitted) if name in fitted}
    played = replay(
        policy,
        grid,
        cost_weight=cost_weight,
        max_team=max_team,
        max_rounds=max_rounds,
        hide_tasks=hide_tasks,
        target=target,
    )
    per_query = Rows.of(grid, played, decisions)
    scores, sample = per_query.scores, per_query.sample
    counts = {name: ~np.isnan(of) for name, of in scores.items()}
    if not counts["policy"].any():
        raise InputError(
            f"Of {len(grid)} queries, at least one must have on record every member whom the policy asks, and a score of its "
            "answer; none has. Evaluate on outcomes of more members, or score some."
        )
    samples = {name: sample(name) for name in scores if counts[name].any()}
    per_task, per_task_n = _per_task(grid, scores, samples)
    rng = np.random.default_rng(seed)

    def figures(name: str) -> Figures:
        rows, weights = samples[name]
        calls = _mean((per_query.asked_in[name][rows] > 0).sum(axis=1), weights)
        return Figures(
            score=bootstrap_mean(scores[name][rows], rng=rng, weights=weights),
            macro=float(np.mean([mean for means in per_task.values() if (mean := means[name]) is not None])),
            mean_calls=calls,
            mean_team=calls,  # nobody is asked twice
            cost_usd=_known(per_query.taken(name, "usd")[rows], weights),
            tokens=_known(per_query.taken(name, "tokens")[rows], weights),
            latency_s=_known(per_query.taken(name, "seconds")[rows], weights),
            n=int(rows.sum()),
            basis="rows" if weights is None else "weighted",
        )

    of_all = {name: figures(name) for name in samples}
    of_policy = of_all.pop("policy")
    differences = {}
    for name in of_all:
        rows, weights = sample("policy", name)
        if rows.any():
            one, two = scores["policy"][rows], scores[name][rows]
            differences[name] = paired_difference(one, two, rng=rng, weights=weights)
    share = None
    if "single_best" in of_all and "oracle" in of_all:
        rows, weights = sample("policy", "single_best", "oracle")
        if rows.any():
            score, best, oracle = (_mean(scores[n][rows], weights) for n in ("policy", "single_best", "oracle"))
            share = oracle_gap_share(score, single_best=best, oracle=oracle)
    frontiers = None
    if rivals is not None:
        frontiers = compare_frontiers(
            policy,
            grid,
            rivals,
            max_team=max_team,
            max_rounds=max_rounds,
            cost_unit=cost_unit,
            hide_tasks=hide_tasks,
            seed=seed,
        )
    rows, weights = samples["policy"]
    return Report(
        policy=of_policy,
        queries=len(grid),
        mean_rounds=_mean(played.rounds[rows], weights),
        calibration_error=expected_calibration_error(played.confidence[rows], scores["policy"][rows], weights=weights),
        baselines=of_all,
        missing_baselines=missing_baselines(decisions),
        unmeasured=tuple(name for name in decisions if name not in of_all),
        differences=differences,
        oracle_gap_share=share,
        per_task=per_task,
        per_task_n=per_task_n,
        dropped=grid.dropped,
        missing=grid.missing,
        contradictions=grid.contradictions,
        bias=_bias(grid, [of_policy, *of_all.values()], weights),
        rows=per_query,
        frontiers=frontiers,
    )


def baselines_of(policy: RLFocalPolicy) -> dict[str, Baseline]:
    """Read the fitted baselines that a policy holds; none where it was trained without any.

    Raises:
        CheckpointError: What it holds breaks a rule.
    """
    return {name: each for name, each in _stored(policy).items() if name in BASELINES}


def rivals_of(policy: RLFocalPolicy) -> dict[str, Baseline]:
    """Read the fitted cost-aware rivals that a policy holds; none where it was trained without any.

    Raises:
        CheckpointError: What it holds breaks a rule.
    """
    return {name: each for name, each in _stored(policy).items() if name in STORED_RIVALS}


def _stored(policy: RLFocalPolicy) -> dict[str, Baseline]:
    parts = policy.parts
    return load_baselines(parts.baselines, parts.baseline_facts) if parts.baselines or parts.baseline_facts else {}


def _mean(values: npt.NDArray[Any], weights: Floats | None) -> float:
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def _known(values: Floats, weights: Floats | None) -> float | None:
    """Average, or None where a value is unknown: NaN in a called cell makes its query's value NaN."""
    mean = _mean(values, weights)
    return None if np.isnan(mean) else mean


def _per_task(
    grid: OutcomeGrid, scores: Mapping[str, Floats], samples: Mapping[str, tuple[Bools, Floats | None]]
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, int]]]:
    """Average what counts on each task, and count it."""
    tasks = np.array(grid.tasks, dtype=object)
    means: dict[str, dict[str, float | None]] = {}
    counts: dict[str, dict[str, int]] = {}
    for task in sorted(set(grid.tasks)):
        is_here = tasks == task
        means[task], counts[task] = {"n": int(is_here.sum())}, {}
        for name, (rows, weights) in samples.items():
            of = scores[name][rows & is_here]
            own = None if weights is None else weights[is_here[rows]]
            means[task][name], counts[task][name] = _mean(of, own) if len(of) else None, len(of)
    return means, counts


def _bias(grid: OutcomeGrid, figures: Sequence[Figures], weights: Floats | None) -> str | None:
    """Say what kind of sample the queries are that count; `weights` are the policy's."""
    if all(each.n == len(grid) for each in figures):
        return None
    policy, has_holes = figures[0], not grid.recorded.all()
    if not has_holes:
        return (
            f"The policy's figures stand on the {policy.n} of {len(grid)} queries whose answer was scored. They are fair if "
            "these were chosen without regard to the answers."
        )
    said = (
        f"The policy's figures stand on the {policy.n} of {len(grid)} queries on which everyone whom it asks is on record and its "
        "answer was scored. "
    )
    if weights is None:
        return said + (
            "They are means over these rows as recorded: whoever chose whom to ask chose these rows too, so the figures are "
            "biased where members were asked about what they are good at. A column `propensity` would correct that."
        )
    covered = float(weights.sum()) / len(grid)
    said += "They are weighted by the inverse of the probability that these members were asked, each for itself."
    if covered < COVERED:
        said += (
            f" The weights add up to {covered:.0%} of the queries only: some of what it would ask was never asked together, and "
            "is left out."
        )
    return said

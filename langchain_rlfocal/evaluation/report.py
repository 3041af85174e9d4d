"""Report: what a policy scores on outcomes it has not seen, beside the baselines it has to beat.

`evaluate` freezes everything: the policy decides without randomness and learns nothing, baselines are fitted on validation
outcomes only, and the scores of the evaluated queries reach nothing but the averages. It returns numbers, and leaves it to
others to print them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import (
    Baseline,
    Decision,
    Fitted,
    FittedOracle,
    FittedRandomTeam,
    FittedVote,
    Oracle,
    Plurality,
    RandomTeam,
    SingleBest,
    WeightedVote,
)
from langchain_rlfocal.evaluation.metrics import Estimate, bootstrap_mean, oracle_gap_share, paired_difference
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.base import EnsemblePolicy

Floats = npt.NDArray[np.float64]

HEADER = ("", "score", "95 %", "calls", "usd", "latency_s", "policy − this", "95 %")
"""Headings of `Report.table`."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of answering scored, and what it took.

    Attributes:
        score: Mean score with its interval.
        mean_calls: Mean calls per query.
        mean_team: Mean number of distinct members asked per query.
        cost_usd: Mean dollars per query, None where the price of any call is unknown.
        latency_s: Mean over queries of the slowest asked member's seconds, None where any is unknown. Members of a round
            answer at once, so this is the wait of a single round; later rounds come on top.
        n: Number of queries.
    """

    score: Estimate
    mean_calls: float
    mean_team: float
    cost_usd: float | None
    latency_s: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers: score, ci95 (low and high) and the other figures by name."""
        return {
            "score": self.score.mean,
            "ci95": [self.score.low, self.score.high],
            "mean_calls": self.mean_calls,
            "mean_team": self.mean_team,
            "cost_usd": self.cost_usd,
            "latency_s": self.latency_s,
            "n": self.n,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A policy's figures beside those of the baselines, on the same queries.

    Attributes:
        policy: Its figures.
        mean_rounds: Mean rounds per query that it took.
        baselines: Figures of each baseline. Those that choose by validation scores are missing where there are none.
        differences: Mean of the policy's score minus the baseline's, paired by query.
        oracle_gap_share: Share of the way from the single best member to the Oracle, None where it is unknown.
        per_task: Mean score on each task, of `"policy"` and each baseline, and the number of queries `"n"`.
        dropped: Queries left out of the grid because a member did not answer.
    """

    policy: Figures
    mean_rounds: float
    baselines: Mapping[str, Figures]
    differences: Mapping[str, Estimate]
    oracle_gap_share: float | None
    per_task: Mapping[str, Mapping[str, float]]
    dropped: int

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        return {
            "policy": {**self.policy.as_dict(), "mean_rounds": self.mean_rounds},
            "baselines": {name: figures.as_dict() for name, figures in self.baselines.items()},
            "differences": {
                name: {"mean": difference.mean, "ci95": [difference.low, difference.high]}
                for name, difference in self.differences.items()
            },
            "oracle_gap_share": self.oracle_gap_share,
            "per_task": {task: dict(scores) for task, scores in self.per_task.items()},
            "dropped": self.dropped,
        }

    def table(self) -> list[tuple[str, ...]]:
        """Return one row of text per way of answering, under `HEADER`: the policy first, then each baseline."""
        rows = [_row("policy", self.policy, difference=None)]
        rows += [_row(name, self.baselines[name], difference=self.differences[name]) for name in self.baselines]
        return rows


def evaluate(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    validation: OutcomeGrid | None,
    cost_weight: float,
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
    seed: int = 0,
) -> Report:
    """Score a policy on held-out outcomes beside the baselines.

    Args:
        policy: The policy; it is not changed.
        grid: Outcomes that neither the policy nor `validation` has seen.
        validation: Outcomes that the baselines are fitted on; None leaves out the baselines that need them, and breaks
            the ties of the others by the order of the pool.
        cost_weight: What asking the whole pool once is worth to the policy, in units of score.
        max_team: How many members the policy, and a random team, may ask.
        max_rounds: How many rounds the policy may take.
        hide_tasks: Whether the policy sees no task label, as where a caller gives none; `per_task` is by the labels.
        seed: Seed of the bootstrap and of the random teams.

    Raises:
        InputError: `grid` or `validation` holds no query.
        PoolError: The two grids, or the policy, have different members.
    """
    if not len(grid):
        raise InputError("`grid` must hold at least one query, got none. Evaluate on more outcomes.")
    played = replay(
        policy, grid, cost_weight=cost_weight, max_team=max_team, max_rounds=max_rounds, hide_tasks=hide_tasks
    )
    rng = np.random.default_rng(seed)
    scores = {"policy": np.asarray(played.scores, dtype=np.float64)}
    figures = _figures(grid, scores["policy"], asked=played.asked, calls=played.calls, rng=rng)
    baselines: dict[str, Figures] = {}
    for name, decision in _decisions(grid, validation, team=min(max_team, len(grid.members)), seed=seed).items():
        scores[name] = grid.scores[np.arange(len(grid)), decision.chosen]
        baselines[name] = _figures(grid, scores[name], asked=decision.asked, calls=decision.calls, rng=rng)
    share = None
    if "single_best" in baselines:
        best, oracle = baselines["single_best"].score.mean, baselines["oracle"].score.mean
        share = oracle_gap_share(figures.score.mean, single_best=best, oracle=oracle)
    return Report(
        policy=figures,
        mean_rounds=float(played.rounds.mean()),
        baselines=baselines,
        differences={name: paired_difference(scores["policy"], scores[name], rng=rng) for name in baselines},
        oracle_gap_share=share,
        per_task=_per_task(grid, scores),
        dropped=grid.dropped,
    )


def _decisions(grid: OutcomeGrid, validation: OutcomeGrid | None, *, team: int, seed: int) -> dict[str, Decision]:
    fitted: dict[str, Fitted]
    if validation is None:
        members, equal = grid.members, np.zeros(len(grid.members))
        fitted = {
            "random_team": FittedRandomTeam(members=members, competence=equal, size=team, seed=seed),
            "plurality": FittedVote(members=members, weights=np.ones(len(members)), competence=equal),
            "oracle": FittedOracle(members=members),
        }
    else:
        rules: dict[str, Baseline] = {
            "single_best": SingleBest(),
            "random_team": RandomTeam(size=team, seed=seed),
            "plurality": Plurality(),
            "weighted_vote": WeightedVote(),
            "oracle": Oracle(),
        }
        fitted = {name: rule.fit(validation) for name, rule in rules.items()}
    return {name: rule.decide(grid) for name, rule in fitted.items()}


def _figures(
    grid: OutcomeGrid,
    scores: Floats,
    *,
    asked: npt.NDArray[np.bool_],
    calls: npt.NDArray[np.integer[Any]],
    rng: np.random.Generator,
) -> Figures:
    return Figures(
        score=bootstrap_mean(scores, rng=rng),
        mean_calls=float(calls.mean()),
        mean_team=float(asked.sum(axis=1).mean()),
        cost_usd=_known(np.where(asked, grid.cost_usd, 0.0).sum(axis=1)),
        latency_s=_known(np.where(asked, grid.latency_s, 0.0).max(axis=1)),
        n=len(grid),
    )


def _known(values: Floats) -> float | None:
    """Average, or None where a value is unknown: NaN in a called cell makes its query's value NaN."""
    mean = float(values.mean())
    return None if np.isnan(mean) else mean


def _per_task(grid: OutcomeGrid, scores: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    tasks = np.array(grid.tasks, dtype=object)
    return {
        task: {
            "n": int((tasks == task).sum()),
            **{name: float(of[tasks == task].mean()) for name, of in scores.items()},
        }
        for task in sorted(set(grid.tasks))
    }


def _row(name: str, figures: Figures, *, difference: Estimate | None) -> tuple[str, ...]:
    return (
        name,
        f"{figures.score.mean:.3f}",
        _interval(figures.score),
        f"{figures.mean_calls:.2f}",
        "unknown" if figures.cost_usd is None else f"{figures.cost_usd:.6f}",
        "unknown" if figures.latency_s is None else f"{figures.latency_s:.2f}",
        "" if difference is None else f"{difference.mean:+.3f}",
        "" if difference is None else _interval(difference, sign="+"),
    )


def _interval(estimate: Estimate, *, sign: str = "") -> str:
    return f"{estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}"

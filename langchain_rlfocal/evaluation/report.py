"""Report: what a policy scores on outcomes it has not seen, compared with the baselines it has to beat.

`evaluate` freezes everything: the policy decides without randomness and learns nothing, the baselines come fitted, and the
scores of the evaluated queries reach nothing but the averages and the Oracle. In whatever order a grid holds its queries and
members, the figures and their intervals are the same.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    Baseline,
    load_baselines,
    missing_baselines,
    unfitted_baselines,
)
from langchain_rlfocal.evaluation.metrics import (
    Estimate,
    bootstrap_mean,
    critical_path,
    oracle_gap_share,
    paired_difference,
)
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of answering scored, and what it took.

    Attributes:
        score: Mean score with its interval.
        macro: Mean over tasks of the mean score on each, so that every task counts alike.
        mean_calls: Mean calls per query.
        mean_team: Mean number of distinct members asked per query.
        cost_usd: Mean dollars per query, None where the price of any call is unknown.
        latency_s: Mean over queries of the seconds that a query waits, None where any is unknown: in each round for its
            slowest member, and rounds follow each other. Baselines ask once.
        n: Number of queries.
    """

    score: Estimate
    macro: float
    mean_calls: float
    mean_team: float
    cost_usd: float | None
    latency_s: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers: score, ci95 (low and high) and the other figures by name."""
        _, *figures = asdict(self).items()
        return {"score": self.score.mean, "ci95": [self.score.low, self.score.high], **dict(figures)}


@dataclass(frozen=True, slots=True)
class Report:
    """A policy's figures and those of the baselines, on the same queries.

    Attributes:
        policy: Its figures.
        mean_rounds: Mean rounds per query that it took.
        baselines: Figures of each baseline, in the order of `baselines.BASELINES`. The Oracle returns the best answer of
            any member, also where a policy could choose an option that no member gave.
        missing_baselines: Names of `baselines.BASELINES` that were not given and need a fit.
        differences: Mean of the policy's score minus the baseline's, paired by query.
        oracle_gap_share: Share of the way from the single best member to the Oracle, None where it is unknown.
        per_task: Mean score on each task, of `"policy"` and each baseline, and the number of queries `"n"`.
        dropped: Queries left out of the grid because a member did not answer.
        missing: Queries of the grid that a member did not answer, which counts as its failure.
    """

    policy: Figures
    mean_rounds: float
    baselines: Mapping[str, Figures]
    missing_baselines: tuple[str, ...]
    differences: Mapping[str, Estimate]
    oracle_gap_share: float | None
    per_task: Mapping[str, Mapping[str, float]]
    dropped: int
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        return {
            "policy": {**self.policy.as_dict(), "mean_rounds": self.mean_rounds},
            "baselines": {name: figures.as_dict() for name, figures in self.baselines.items()},
            "missing_baselines": list(self.missing_baselines),
            "differences": {
                name: {"mean": difference.mean, "ci95": [difference.low, difference.high]}
                for name, difference in self.differences.items()
            },
            "oracle_gap_share": self.oracle_gap_share,
            "macro": {"policy": self.policy.macro} | {name: each.macro for name, each in self.baselines.items()},
            "per_task": {task: dict(scores) for task, scores in self.per_task.items()},
            "dropped": self.dropped,
            "missing": self.missing,
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
    seed: int = 0,
) -> Report:
    """Score a policy and the baselines on held-out outcomes.

    Args:
        policy: The policy; it is not changed.
        grid: Outcomes that neither the policy nor the baselines have seen.
        baselines: Fitted baselines by name, as `fit_baselines` makes and `baselines_of` reads them; may be empty. Those
            that need no fit are there in any case: a random team, a plurality vote whose ties go to the first by
            name, and the Oracle.
        cost_weight: What asking the whole pool once is worth to the policy, in units of score.
        max_team: How many members the policy may ask, and a random team that comes unfitted.
        max_rounds: How many rounds the policy may take.
        hide_tasks: Whether nobody who decides sees a task label, as where a caller gives none; `per_task` is by the labels.
        seed: Seed of the bootstrap and of an unfitted random team.

    Raises:
        InputError: `grid` holds no query.
        PoolError: `grid` has a member that the policy does not know, or lacks one that a baseline was fitted on.
    """
    if not len(grid):
        raise InputError("`grid` must hold at least one query, got none. Evaluate on more outcomes.")
    grid = grid.canonical()
    fitted = {**unfitted_baselines(grid.members, max_team=max_team, seed=seed), **baselines}
    shown = replace(grid, tasks=[""] * len(grid)) if hide_tasks else grid
    decisions = {name: fitted[name].decide(shown) for name in (*BASELINES, *fitted) if name in fitted}
    played = replay(
        policy, grid, cost_weight=cost_weight, max_team=max_team, max_rounds=max_rounds, hide_tasks=hide_tasks
    )
    rows = np.arange(len(grid))
    scores = {"policy": np.asarray(played.scores, dtype=np.float64)}
    scores |= {name: grid.scores[rows, decision.chosen] for name, decision in decisions.items()}
    per_task = _per_task(grid, scores)
    rng = np.random.default_rng(seed)

    def figures(name: str, asked_in: npt.NDArray[np.integer[Any]]) -> Figures:
        asked = asked_in > 0
        calls = float(asked.sum(axis=1).mean())
        return Figures(
            score=bootstrap_mean(scores[name], rng=rng),
            macro=float(np.mean([means[name] for means in per_task.values()])),
            mean_calls=calls,
            mean_team=calls,  # nobody is asked twice
            cost_usd=_known(np.where(asked, grid.cost_usd, 0.0).sum(axis=1)),
            latency_s=_known(critical_path(grid.latency_s, asked_in)),
            n=len(grid),
        )

    of_policy = figures("policy", played.asked_in)
    of_baselines = {name: figures(name, decision.asked.astype(np.intp)) for name, decision in decisions.items()}
    share = None
    if "single_best" in of_baselines:
        best, oracle = of_baselines["single_best"].score.mean, of_baselines["oracle"].score.mean
        share = oracle_gap_share(of_policy.score.mean, single_best=best, oracle=oracle)
    return Report(
        policy=of_policy,
        mean_rounds=float(played.rounds.mean()),
        baselines=of_baselines,
        missing_baselines=missing_baselines(decisions),
        differences={name: paired_difference(scores["policy"], scores[name], rng=rng) for name in decisions},
        oracle_gap_share=share,
        per_task=per_task,
        dropped=grid.dropped,
        missing=grid.missing,
    )


def baselines_of(policy: RLFocalPolicy) -> dict[str, Baseline]:
    """Read the fitted baselines that a policy holds; none where it was trained without any.

    Raises:
        CheckpointError: What it holds breaks a rule.
    """
    parts = policy.parts
    return load_baselines(parts.baselines, parts.baseline_facts) if parts.baselines or parts.baseline_facts else {}


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

"""What each part of competence and evidence is worth by itself, without any reinforcement.

    python docs/benchmarks/evidence.py FOLDER [--pool mmlu_pro/open12] [--rotations 5]

For each rotation of a five-fold cross-test the supervised parts are fitted to four fifths of the queries, and the answer of
highest evidence is scored on the last: of all members, of the three and the five most competent near the query, and of members
asked one by one in that order until the evidence is clear, with the threshold at which they are five or three a query on average
(a function of the answers, not of their scores). Every variant leaves one part out; the last is what these parts were before.
Differences to the whole are paired by query, with bootstrap intervals over all queries. The last two columns measure
the belief in the leading candidate of the five most competent: its log-loss over queries of which a candidate is right, and
its expected calibration error over all.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from ablations import Rule, threshold_for
from pools import POOLS, Pool
from threadpoolctl import threadpool_limits

from langchain_rlfocal import environment
from langchain_rlfocal.environment import environment_of, replay
from langchain_rlfocal.evaluation.metrics import expected_calibration_error, paired_difference
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.states import Floats, Ints
from langchain_rlfocal.training import TrainingConfig, supervised
from langchain_rlfocal.training.mappo import Actors

CROSS_TEST = (0.7, 0.1, 0.2)
WHOLE = "whole"
COLUMNS = ("all", "5 first", "3 first", "5 calls", "3 calls")


def one_stage(features: Floats, scores: Floats, folds: Ints, **given: Any) -> tuple[Floats, tuple[float, float]]:
    """Choose among equal penalties of both stages: each member's own ridge regression."""
    tried = []
    for penalty in given.pop("penalties")[0]:
        estimates, penalties = supervised_cross_fitted(
            features, scores, folds, penalties=([penalty], [penalty]), **given
        )
        tried.append((float(np.nanmean((estimates - scores) ** 2)), -penalty, estimates, penalties))
    return min(tried, key=lambda one: one[:2])[2:]


supervised_cross_fitted, supervised_labels = supervised.cross_fitted, supervised.frequent_labels
PATCHES: dict[str, tuple[tuple[Any, str, Callable[..., Any]], ...]] = {
    "looks of options": ((environment, "looks_of", lambda *_: None),),
    "texts without a label": (
        (supervised, "frequent_labels", lambda *given: [pair for pair in supervised_labels(*given) if pair[1]]),
    ),
    "competence in two stages": ((supervised, "cross_fitted", one_stage),),
}


def variants() -> Iterator[tuple[str, tuple[tuple[Any, str, Callable[..., Any]], ...]]]:
    """Name each variant and what it puts in place of the parts that it leaves out."""
    yield WHOLE, ()
    for name, patches in PATCHES.items():
        yield f"without {name}", patches
    yield "without all of these", tuple(patch for patches in PATCHES.values() for patch in patches)


def run(
    pool: Pool, train_rows: OutcomeGrid, test_rows: OutcomeGrid, seed: int
) -> tuple[dict[str, Floats], Floats, Floats]:
    """Fit and score: scores of each column; and belief and right belief of the five most competent's leading candidate."""
    config = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
    with threadpool_limits(limits=1):
        data = supervised.prepare(train_rows, config, embedder=None, rng=np.random.default_rng(seed))
    networks = Actors(decider_hidden=config.decider_hidden, fusion_hidden=config.fusion_hidden).arrays()
    policy = RLFocalPolicy(Parts(train_rows.members, {**data.weights, **networks}, data.labels))
    m, rows = len(train_rows.members), np.arange(len(test_rows))
    scores: dict[str, Floats] = {}
    for name, first in zip(COLUMNS[:3], (m, min(5, m), min(3, m)), strict=True):
        limits = {"cost_weight": 0.0, "max_team": first, "max_rounds": 1}
        scores[name] = replay(Rule(policy, first=first), test_rows, **limits).scores
    for name, target in zip(COLUMNS[3:], (5.0, 3.0), strict=True):

        def make(**more: float) -> Rule:
            return Rule(policy, first=1, **more)

        limit = min(pool.max_team, m)
        threshold = threshold_for(make, test_rows, target=target, max_team=limit)
        limits = {"cost_weight": 0.0, "max_team": limit, "max_rounds": limit}
        scores[name] = replay(make(threshold=threshold), test_rows, **limits).scores
    env = environment_of(policy, test_rows, max_team=min(5, m), max_rounds=1)
    env.reset(rows, np.zeros(len(rows)))
    env.ask(Rule(policy, first=min(5, m)).team(env.state())[0])
    state = env.state()
    _, worth = env.scores()
    right = (state.belief * np.where(state.candidates, worth, 0)).sum(axis=1)
    known = np.where(state.candidates, worth, 0).max(axis=1) > 0
    return scores, state.leading_belief.astype(np.float64), np.where(known, right, np.nan)


def main() -> None:
    """Fit, score, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", action="append", choices=POOLS)
    parser.add_argument("--rotations", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)  # small matrices are faster on one thread
    for name in given.pool or ["mmlu_pro/open12"]:
        pool = POOLS[name]
        grid = pool.read(given.folder)
        grid = replace(grid, is_test=None)
        kept: dict[str, list[tuple[dict[str, Floats], Floats, Floats]]] = {}
        for rotation in range(given.rotations):
            parts = grid.split(fractions=CROSS_TEST, rotation=rotation / 5)
            for variant, patches in variants():
                start = time.perf_counter()
                with ExitStack() as stack:
                    for patched in patches:
                        stack.enter_context(patch.object(*patched))
                    kept.setdefault(variant, []).append(run(pool, parts[0].join(parts[1]), parts[2], rotation))
                print(
                    f"{time.perf_counter() - start:5.0f} s  rotation {rotation}  {variant}", file=sys.stderr, flush=True
                )
        print(f"\n## {name}: evidence, {given.rotations} rotations\n")
        print(
            f"| | {' | '.join(f'{column} | minus whole (95 %)' for column in COLUMNS)} | log-loss | calibration error |"
        )
        print(f"|---|{'---|' * (2 * len(COLUMNS) + 2)}")
        for variant, runs in kept.items():
            cells = [variant]
            for column in COLUMNS:
                own, whole = (100 * np.concatenate([one[0][column] for one in kept[v]]) for v in (variant, WHOLE))
                difference = paired_difference(own, whole, rng=np.random.default_rng(0))
                interval = f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
                cells += [f"{own.mean():.2f}", "" if variant == WHOLE else interval]
            right = np.concatenate([one[2] for one in runs])
            belief, score = (
                np.concatenate(of) for of in ([one[1] for one in runs], [one[0]["5 first"] for one in runs])
            )
            cells += [f"{-np.nanmean(np.log(right)):.4f}", f"{expected_calibration_error(belief, score):.3f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

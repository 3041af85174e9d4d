"""What trained policies score on recorded outcomes of real models, beside every baseline on the same rows.

    python docs/benchmarks/figures.py FOLDER [--pool NAME] [--seeds 3] [--rotations 0] [--json FILE]

Trains with each seed on the training rows and evaluates on the test rows within the pool's targets, and along the
frontiers of the policy and its cost-aware rivals. With `--rotations 5` the seeds are the rotations of a five-fold
cross-test instead, in which every query is a test row once; that is what small test parts cannot tell. `pools.py` names
files, members and limits.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pools import POOLS, Pool

from langchain_rlfocal.evaluation import evaluate
from langchain_rlfocal.evaluation.baselines import fit_baselines
from langchain_rlfocal.evaluation.rivals import compare_frontiers, fit_rivals
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.targets import Target
from langchain_rlfocal.training import TrainingConfig, train

CROSS_TEST = (0.7, 0.1, 0.2)


def targets_of(pool: Pool) -> Iterator[tuple[str, Target | None]]:
    """Name the pool's targets; None is a cost weight of 0."""
    for target in pool.targets:
        yield (f"{target:g} calls", Target("target_calls", target)) if target else ("all calls free", None)
    if pool.share is not None:
        yield f"{pool.share:.0%} of the best's dollars", Target("target_usd_share", pool.share)


def run(pool: Pool, grid: OutcomeGrid, *, seed: int, rotation: float | None) -> dict[str, Any]:
    """Train once and evaluate at every target."""
    parts = grid.split() if rotation is None else grid.split(fractions=CROSS_TEST, rotation=rotation)
    start = time.perf_counter()
    config = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
    policy = train(parts[0], parts[1], config)
    seconds = time.perf_counter() - start
    baselines = fit_baselines(parts[0], parts[1], max_team=pool.max_team, seed=seed)
    limits = {"max_team": pool.max_team, "max_rounds": pool.max_rounds}
    reports = {
        name: evaluate(policy, parts[2], baselines=baselines, cost_weight=0.0, target=target, **limits).as_dict()
        for name, target in targets_of(pool)
    }
    rivals = fit_rivals(parts[0], parts[1], max_team=pool.max_team)
    frontiers = compare_frontiers(policy, parts[2], rivals, **limits).as_dict()
    queries = [len(part) for part in parts]
    return {"seed": seed, "train_s": seconds, "queries": queries, "reports": reports, "frontiers": frontiers}


def frontier_rows(runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each way of answering: average quality, range over the runs, difference to the policy."""
    every = [run["frontiers"] for run in runs]
    rows = []
    for name in ("policy", *(name for name in every[0]["rivals"] if all(name in one["rivals"] for one in every))):
        found = [100 * (one["policy"] if name == "policy" else one["rivals"][name])["aiq"] for one in every]
        apart = "" if name == "policy" else f"{np.mean([100 * one['differences'][name]['mean'] for one in every]):+.2f}"
        ahead = "" if name == "policy" else f"{sum(name in one['ahead'] for one in every)} of {len(every)}"
        rows.append((name, f"{np.mean(found):.2f}", f"{min(found):.2f} to {max(found):.2f}", apart, ahead))
    return rows


def summary(runs: list[dict[str, Any]], point: str) -> list[tuple[str, ...]]:
    """One row for each way of answering: score, range over the runs, macro, calls, dollars, difference to the policy."""
    reports = [run["reports"][point] for run in runs]
    rows = []
    for name in ("policy", *reports[0]["baselines"]):
        figures = [report["policy"] if name == "policy" else report["baselines"][name] for report in reports]
        counts = np.array([one["n"] for one in figures], dtype=float)

        def mean(values: list[float], counts: np.ndarray = counts) -> float:
            return float(np.average(values, weights=counts))

        scores = [100 * one["score"] for one in figures]
        dollars = [one["cost_usd"] for one in figures]
        differences = [100 * report["differences"][name]["mean"] for report in reports] if name != "policy" else []
        rows.append(
            (
                name,
                f"{mean(scores):.1f}",
                f"{min(scores):.1f} to {max(scores):.1f}",
                f"{mean([100 * one['macro'] for one in figures]):.1f}",
                f"{mean([one['mean_calls'] for one in figures]):.2f}",
                "" if None in dollars else f"{100 * mean(dollars):.3f}",
                f"{mean(differences):+.1f}" if differences else "",
            )
        )
    return rows


def main() -> None:
    """Train, evaluate, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", action="append", choices=POOLS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rotations", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kept: dict[str, Any] = {}
    for name in given.pool or POOLS:
        pool = POOLS[name]
        grid = pool.read(given.folder)
        turns = [None] * given.seeds if not given.rotations else [r / given.rotations for r in range(given.rotations)]
        runs = [run(pool, grid, seed=seed, rotation=rotation) for seed, rotation in enumerate(turns)]
        kept[name] = runs
        seconds = ", ".join(f"{one['train_s']:.0f}" for one in runs)
        print(f"\n## {name}\n\nRows (train, validation, test): {runs[0]['queries']}; training took {seconds} s\n")
        low, high = runs[0]["frontiers"]["range"]
        print(f"Score over spending, {low:.3g} to {high:.3g} {runs[0]['frontiers']['unit']} a query\n")
        print("| | AIQ % | runs | policy - this | ahead of the policy |\n|---|---|---|---|---|")
        for row in frontier_rows(runs):
            print(f"| {' | '.join(row)} |")
        print()
        for point in runs[0]["reports"]:
            print(
                f"{point}\n\n| | score % | runs | macro % | calls | cents | policy - this |\n|---|---|---|---|---|---|---|"
            )
            for row in summary(runs, point):
                print(f"| {' | '.join(row)} |")
            tasks = runs[0]["reports"][point]["per_task"]
            if len(tasks) <= 4:
                for task in tasks:
                    every = [one["reports"][point]["per_task"].get(task) for one in runs]
                    every = [one for one in every if one]
                    counts = [one["n"] for one in every]
                    means = {
                        key: 100 * float(np.average([one[key] for one in every], weights=counts))
                        for key in ("policy", "single_best", "plurality", "supervised_fusion", "oracle")
                        if key in every[0]
                    }
                    print(f"\n{task}: " + ", ".join(f"{key} {value:.1f}" for key, value in means.items()))
            print(flush=True)
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()

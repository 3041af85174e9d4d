"""What is learned from what people have: few labels, none, logs with holes, judged open text, tasks never shown.

    python docs/benchmarks/scarce.py FOLDER [--setting NAME] [--pool NAME] [--rotations 5] [--json FILE]

Each setting takes from the training and validation rows what its name says, trains, and evaluates on the untouched test rows of
a cross-test, at the cost weight that the policy's own curve gives for each target of calls. `pools.py` names files, members and
limits. Beside it stand the single best member, a vote of all, an agreement cascade and a supervised fusion of all, which see
every label of the training rows: they say what the same rows are worth to someone who has everything.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pools import POOLS, Pool

from langchain_rlfocal.environment import replay
from langchain_rlfocal.evaluation.baselines import fit_baselines
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.targets import Target
from langchain_rlfocal.training import TrainingConfig, train

CROSS_TEST = (0.7, 0.1, 0.2)


def without_labels(grid: OutcomeGrid, rng: np.random.Generator, *, kept: int) -> OutcomeGrid:
    """Forget the scores of all queries but this many, and every right answer."""
    labelled = rng.permutation(len(grid)) < kept
    golds = [None] * len(grid)
    return replace(grid, scores=np.where(labelled[:, None], grid.scores, np.nan), golds=golds)


def alone(grid: OutcomeGrid, rng: np.random.Generator, *, kept: int) -> OutcomeGrid:
    """Keep this many queries with their labels, and nothing else."""
    return grid.take(np.sort(rng.permutation(len(grid))[:kept]))


def with_holes(grid: OutcomeGrid, rng: np.random.Generator, *, propensity: bool = True) -> OutcomeGrid:
    """Keep what a simple policy would have asked of each query: one to three members, rather the better ones.

    The number is uniform; members are drawn without replacement, with weights that halve every third place in the order of mean
    score. The probability that a member is among the drawn is found by simulation.
    """
    q, m = grid.scores.shape
    place = np.argsort(np.argsort(-grid.scores.mean(axis=0), kind="stable"))
    weight = 0.5 ** (place / 3.0)

    def drawn(num: int) -> np.ndarray:
        # The largest of log w + Gumbel noise are a draw without replacement in proportion to w.
        order = np.argsort(-(np.log(weight) + rng.gumbel(size=(num, m))), axis=1).argsort(axis=1)
        return order < rng.integers(1, 4, size=num)[:, None]

    asked = drawn(q)
    chance = np.broadcast_to(drawn(200_000).mean(axis=0), (q, m))
    nothing = np.array(None, dtype=object)
    answers = np.where(asked, grid.answers, nothing)
    first = (grid.answer_ids[:, :, None] == np.where(asked, grid.answer_ids, -2)[:, None, :]).argmax(axis=2)
    unlabelled = grid.answers == nothing
    ids = np.where(unlabelled, np.arange(m), first)
    ids = np.where(asked & (grid.answer_ids >= 0), ids, -1).astype(np.int32)
    unknown = {
        name: np.where(asked, getattr(grid, name), np.nan)
        for name in (
            "scores",
            "cost_usd",
            "latency_s",
            "prompt_tokens",
            "completion_tokens",
            "logprobs",
            "response_chars",
        )
    }
    facts = {
        "recorded": asked,
        "propensity": np.where(asked, chance, np.nan) if propensity else np.full((q, m), np.nan),
    }
    return replace(grid, answers=answers, answer_ids=ids, golds=[None] * q, **unknown, **facts)


def without_answers(grid: OutcomeGrid) -> OutcomeGrid:
    """Take each response for one of a kind, as judged open text is."""
    q, m = grid.scores.shape
    ids = np.tile(np.arange(m, dtype=np.int32), (q, 1))
    return replace(grid, answers=np.full((q, m), None, dtype=object), answer_ids=ids, golds=[None] * q)


@dataclass(frozen=True, slots=True)
class Setting:
    """What of a pool's rows training gets.

    Attributes:
        pool: The pool.
        targets: Mean calls at which it is evaluated.
        take: Takes what it gets from training and validation rows together.
        tasks: Globs of the tasks; None takes the pool's.
        view: How every part, the test rows too, is seen.
        new: Tasks that only the test rows have; () for the split by text.
    """

    pool: str
    targets: tuple[float, ...]
    take: Callable[[OutcomeGrid, np.random.Generator], OutcomeGrid]
    tasks: tuple[str, ...] | None = None
    view: Callable[[OutcomeGrid], OutcomeGrid] = lambda grid: grid
    new: tuple[str, ...] = ()


def everything(grid: OutcomeGrid, _: np.random.Generator) -> OutcomeGrid:
    """Keep all there is."""
    return grid


OPEN12, STRONG14 = "mmlu_pro/open12", "mmlu_pro/strong14"
GSM = ("zeroeval/gsm",)
SETTINGS = {
    "open12, all labels": Setting(OPEN12, (5.0, 3.0), everything),
    "strong14, all labels": Setting(STRONG14, (3.0,), everything),
    "gsm, all labels": Setting("zeroeval/cheap8", (4.0,), everything, tasks=GSM),
    "function calls, all labels": Setting("bfcl/cheap5", (3.0, 2.4), everything),
    "open12, no label": Setting(OPEN12, (5.0, 3.0), lambda grid, rng: without_labels(grid, rng, kept=0)),
    "gsm, no label": Setting("zeroeval/cheap8", (4.0,), lambda grid, rng: without_labels(grid, rng, kept=0), tasks=GSM),
    "open12, 300 labels alone": Setting(OPEN12, (5.0, 3.0), lambda grid, rng: alone(grid, rng, kept=300)),
    "open12, 100 labels": Setting(OPEN12, (5.0, 3.0), lambda grid, rng: without_labels(grid, rng, kept=100)),
    "strong14, 300 labels": Setting(STRONG14, (3.0,), lambda grid, rng: without_labels(grid, rng, kept=300)),
    "strong14, 300 labels alone": Setting(STRONG14, (3.0,), lambda grid, rng: alone(grid, rng, kept=300)),
    "open12, holes": Setting(OPEN12, (5.0, 3.0), with_holes),
    "open12, holes, no propensity": Setting(
        OPEN12, (5.0, 3.0), lambda grid, rng: with_holes(grid, rng, propensity=False)
    ),
    "judged open text": Setting("mmlu_pro/chat5", (2.0, 3.0), everything, view=without_answers),
    "new task: crux": Setting("zeroeval/cheap8", (4.0,), everything, new=("zeroeval/crux",)),
    "new task: gsm": Setting("zeroeval/cheap8", (4.0,), everything, new=GSM),
    "new task: mathematics": Setting(OPEN12, (5.0, 3.0), everything, new=("mmlu_pro/math",)),
    "new task: law": Setting(OPEN12, (5.0, 3.0), everything, new=("mmlu_pro/law",)),
}


def cascade(grid: OutcomeGrid, order: np.ndarray, *, max_team: int) -> tuple[float, float]:
    """Ask in this order, one more until two agree; the most frequent answer, the earliest of equals: score and calls."""
    ids, scores = grid.answer_ids[:, order], grid.scores[:, order]
    total, calls = 0.0, 0
    for row, worth in zip(ids.tolist(), scores.tolist(), strict=True):
        given = row[:max_team]
        counts: dict[int, int] = {}
        for asked, answer in enumerate(given, start=1):
            if answer >= 0:
                counts[answer] = counts.get(answer, 0) + 1
            if counts.get(answer, 0) == 2 or asked == len(given):
                break
        calls += asked
        winner = max(counts, key=lambda one: counts[one], default=given[0])
        total += worth[given.index(winner)]
    return 100 * total / len(ids), calls / len(ids)


def run(setting: Setting, grid: OutcomeGrid, *, seed: int, rotations: int) -> dict[str, Any]:
    """Train once and evaluate at every target."""
    pool, rng = POOLS[setting.pool], np.random.default_rng(seed)
    how: dict[str, Any]
    if setting.new:
        is_new = np.isin(np.array(grid.tasks, dtype=object), setting.new)
        full, test = grid.take(~is_new), grid.take(is_new)
        how = {"fractions": (0.85, 0.15, 0.0), "rotation": seed / rotations}
    else:
        how = {"fractions": CROSS_TEST, "rotation": seed / rotations}
        train_rows, validation_rows, test = grid.split(**how)
        full = train_rows.join(validation_rows)
    parts = setting.take(setting.view(full), rng).split(**how)
    seen = setting.view(test)
    start = time.perf_counter()
    config = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        policy = train(parts[0], parts[1], config)
    seconds = time.perf_counter() - start
    figures: dict[str, Any] = {}
    for target in setting.targets:
        played = replay(
            policy,
            seen,
            cost_weight=0.0,
            target=Target("target_calls", target),
            max_team=pool.max_team,
            max_rounds=pool.max_rounds,
        )
        figures[f"at {target:g}"] = {"score": 100 * float(played.scores.mean()), "calls": float(played.calls.mean())}
    whole = setting.view(full).split(**how)
    fitted = fit_baselines(whole[0], whole[1], max_team=pool.max_team, seed=seed)
    rows = np.arange(len(test))
    names = ("single_best", "plurality", "supervised_fusion", "oracle")
    baselines = {
        name: 100 * float(test.scores[rows, fitted[name].decide(seen).chosen].mean())
        for name in names
        if name in fitted
    }
    order = np.argsort(-full.scores.mean(axis=0), kind="stable")
    baselines["cascade"], calls = cascade(seen, order, max_team=pool.max_team)
    return {
        "seed": seed,
        "rows": [len(parts[0]), len(parts[1]), len(test)],
        "train_s": seconds,
        "figures": figures,
        "baselines": baselines,
        "cascade_calls": calls,
        "warnings": sorted({str(one.message) for one in said}),
    }


def line(name: str, runs: list[dict[str, Any]]) -> Iterator[str]:
    """Write a setting's rows of the table: means over all test rows, and the range of the runs."""
    counts = np.array([one["rows"][2] for one in runs], dtype=float)

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=counts))

    baselines = [
        f"{mean([one['baselines'][key] for one in runs]):.1f}" if key in runs[0]["baselines"] else ""
        for key in ("single_best", "plurality", "supervised_fusion", "oracle")
    ]
    chain = f"{mean([one['baselines']['cascade'] for one in runs]):.1f} at {mean([one['cascade_calls'] for one in runs]):.2f}"
    for point in runs[0]["figures"]:
        scores = [one["figures"][point]["score"] for one in runs]
        calls = mean([one["figures"][point]["calls"] for one in runs])
        yield (
            f"| {name} | {point.removeprefix('at ')} | {mean(scores):.1f} | {min(scores):.1f} to {max(scores):.1f} | {calls:.2f} | "
            f"{baselines[0]} | {chain} | {' | '.join(baselines[1:])} |"
        )


def read(setting: Setting, pool: Pool, folder: Path) -> OutcomeGrid:
    """Read the setting's rows."""
    return replace(pool, tasks=setting.tasks or pool.tasks).read(folder)


def main() -> None:
    """Train, evaluate, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--setting", action="append", choices=SETTINGS)
    parser.add_argument("--rotations", type=int, default=5, help="parts of the cross-test; new tasks get as many seeds")
    parser.add_argument("--runs", type=int, help="how many of the rotations to run, all by default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    heads = (
        "setting | target | score % | runs | calls | single best | cascade | vote of all | supervised fusion | Oracle"
    )
    print(f"| {heads} |\n|{'---|' * 10}", flush=True)
    kept: dict[str, Any] = {}
    for name in given.setting or SETTINGS:
        setting = SETTINGS[name]
        grid = read(setting, POOLS[setting.pool], given.folder)
        runs = []
        for seed in range(given.runs or given.rotations):
            runs.append(run(setting, grid, seed=seed, rotations=given.rotations))
            done = ", ".join(
                f"{point}: {one['score']:.1f} at {one['calls']:.2f}" for point, one in runs[-1]["figures"].items()
            )
            print(f"{name}, run {seed}, {runs[-1]['train_s']:.0f} s: {done}", file=sys.stderr, flush=True)
        kept[name] = runs
        for row in line(name, runs):
            print(row, flush=True)
        if given.json:
            given.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()

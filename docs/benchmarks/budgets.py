"""Budgets: how near to a target what a policy takes comes, and what it scores there, on rows that it has not seen.

    python docs/benchmarks/budgets.py FOLDER [--pool NAME] [--runs N]

Each pool is trained N times, each time with other rows set apart. The curve is that of training; eight targets lie evenly between
what the cheapest way to answer takes and what the dearest does, in each unit that the outcomes hold. Printed are the largest and the
mean deviation of what was taken from the target, and the score minus that of the chord: what the two operating points
between which the target lies score on the same rows, mixed by hand.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pools import POOLS, Pool

from langchain_rlfocal.environment import Replays, environment_of, taken_by
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.targets import Target, Unit
from langchain_rlfocal.training import TrainingConfig, train

NAMES = ("mmlu_pro/open12", "mmlu_pro/chat5", "zeroeval/cheap8", "bfcl/cheap5", "routerbench/all11")
FRACTIONS = (0.6, 0.2, 0.2)
NUM_TARGETS = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """One target: what was wanted and taken, and the score beside the chord's."""

    unit: Unit
    wanted: float
    taken: float
    score: float
    chord: float


def targets(policy: RLFocalPolicy, test: OutcomeGrid, pool: Pool) -> list[Kept]:
    """Keep every target on the test rows."""
    env = environment_of(policy, test, max_team=pool.max_team, max_rounds=pool.max_rounds)
    replays, kept = Replays(policy, env), []
    units: list[Unit] = ["calls"]
    units += ["usd"] if np.isfinite(test.cost_usd).all() and test.cost_usd.any() else []
    units += ["tokens"] if np.isfinite(test.completion_tokens + test.prompt_tokens).all() else []
    units += ["seconds"] if np.isfinite(test.latency_s).all() else []
    for unit in units:
        taken, points = policy.curve.hull(unit, test.members)
        scores = [float(replays.at(point).scores.mean()) for point in points]
        real = [float(taken_by(test, replays.at(point).asked_in, unit).mean()) for point in points]
        for wanted in np.linspace(taken[0], taken[-1], NUM_TARGETS + 2)[1:-1]:
            played = replays.within(
                Target(f"target_{unit}", max(float(wanted), 1.0) if unit == "calls" else float(wanted))
            )
            mean = float(taken_by(test, played.asked_in, unit).mean())
            chord = float(np.interp(mean, *zip(*sorted(zip(real, scores, strict=True)), strict=True)))
            kept.append(Kept(unit, float(wanted), mean, float(played.scores.mean()), chord))
    return kept


def main() -> None:
    """Print a row for each pool and unit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", choices=NAMES, action="append")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    print("pool                unit     targets  off by: mean   most   score - chord: mean   least")
    for name in given.pool or NAMES:
        pool = POOLS[name]
        grid = pool.read(given.folder)
        found: list[Kept] = []
        for seed in range(given.runs):
            learned, chosen, test = grid.split(fractions=FRACTIONS, rotation=seed / 5)
            config = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
            found += targets(train(learned, chosen, config), test.canonical(), pool)
        for unit in dict.fromkeys(one.unit for one in found):
            of_unit = [one for one in found if one.unit == unit]
            off = [abs(one.taken / one.wanted - 1) for one in of_unit]
            above = [100 * (one.score - one.chord) for one in of_unit]
            print(
                f"{name:<20}{unit:<9}{len(of_unit):>7}{np.mean(off):>14.2%}{max(off):>8.2%}"
                f"{np.mean(above):>+22.2f}{min(above):>+8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

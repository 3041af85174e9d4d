"""How often certificates are false, and how cheap what they certify is, on recorded outcomes of real models.

    python docs/benchmarks/promises.py FOLDER [--pool NAME] [--within 0.02 ...] [--gain G ...] [--rows N]

A policy is trained on training and validation rows. Its test rows, which it has not seen, are the population: of a
thousand samples drawn from them, each row with replacement, each certifies the cheapest operating point that it can,
and in the population it is known whether that is true. A certificate is false where the policy's mean is more below the
best member's than promised. Printed for each allowed rate of errors: the rate found, how often anything was certified,
and what the certified point takes as a share of what the dearest point and the best member take. `pools.py` names
files, members and limits.
"""

import argparse
from pathlib import Path

import numpy as np
from pools import POOLS, Pool

from langchain_rlfocal.environment import Replays, environment_of
from langchain_rlfocal.evaluation.certification import NUM_POINTS, p_values_in_turn
from langchain_rlfocal.evaluation.rivals import spending_of, unit_of
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.training import TrainingConfig, train

ALPHAS = (0.05, 0.1, 0.2)
FRACTIONS = (0.6, 0.1, 0.3)


def population(pool: Pool, folder: Path, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """Train, and score the sequence of operating points on the test rows.

    Returns:
        Scores of the points, shape [P, N], and of the members, shape [N, M]; mean spending of the points, shape [P],
        and of the members, shape [M]; and its unit.
    """
    learned, chosen, test = pool.read(folder).split(fractions=FRACTIONS)
    limits = {"max_team": pool.max_team, "max_rounds": pool.max_rounds}
    policy: RLFocalPolicy = train(learned, chosen, TrainingConfig(seed=seed, **limits))
    rows = test.canonical()
    rows = rows.take(np.flatnonzero(rows.recorded.all(axis=1) & ~np.isnan(rows.scores).any(axis=1)))
    unit, members = unit_of(rows, "auto"), frozenset(rows.members)
    spending, replays = spending_of(rows, unit), Replays(policy, environment_of(policy, rows, **limits))
    taken, _ = policy.curve.hull(unit, members)
    played = [
        replays.mixed(policy.curve.mixture(unit, float(amount), members))
        for amount in np.linspace(taken[-1], taken[0], NUM_POINTS)
    ]
    scores = np.stack([each.scores for each in played]).astype(np.float64)
    of_points = np.array([(each.asked * spending).sum(axis=1).mean() for each in played])
    return scores, rows.scores, of_points, spending.mean(axis=0), unit


def main() -> None:
    """Train, draw, certify, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", choices=POOLS, default="routerbench/all11")
    parser.add_argument("--within", type=float, action="append", help="0.02 where no promise is given")
    parser.add_argument("--gain", type=float, action="append")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    scores, members, spending, of_members, unit = population(POOLS[given.pool], given.folder, seed=given.seed)
    margins = [-within for within in given.within or []] + (given.gain or [])
    best = int(members.mean(axis=0).argmax())
    gains = scores.mean(axis=1) - members[:, best].mean()
    num_rows = given.rows or len(members)
    print(f"{given.pool}: {len(members)} rows that training did not see; {given.splits} samples of {num_rows} of them")
    print(f"in truth the policy scores {gains[0]:+.3f} above the best member at its dearest; spending is in {unit}")
    for margin in margins or [-0.02]:
        holds, rng = gains >= margin, np.random.default_rng(given.seed)
        passed = []
        for _ in range(given.splits):
            drawn = rng.integers(len(members), size=num_rows)
            found = p_values_in_turn(scores[:, drawn], members[drawn], margin=margin, alpha=max(ALPHAS))
            passed.append([next((at for at, p in enumerate(found) if p > alpha), len(found)) - 1 for alpha in ALPHAS])
        cheapest = (
            f"{spending[holds].min() / spending[0]:.0%} of the dearest" if holds.any() else "nothing, for there is none"
        )
        print(f"\nscore at least the best member's {margin:+g}: false for {(~holds).sum()} of {len(holds)} points;")
        print(f"the cheapest for which it is true takes {cheapest}")
        print("errors allowed  found  certified  spending: of the dearest point  of the best member")
        for alpha, last in zip(ALPHAS, np.array(passed).T, strict=True):
            some = last[last >= 0]
            false = (~holds[some]).sum() / given.splits
            shares = [
                f"{spending[some].mean() / whole:.0%}" if len(some) else "-"
                for whole in (spending[0], of_members[best])
            ]
            print(
                f"{alpha:>14.0%}{false:>7.1%}{len(some) / given.splits:>11.1%}{shares[0]:>33}{shares[1]:>20}",
                flush=True,
            )


if __name__ == "__main__":
    main()

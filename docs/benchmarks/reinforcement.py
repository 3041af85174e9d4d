"""What reinforcement adds to the rule that it starts from: ask by value of information, one member each round.

    python docs/benchmarks/reinforcement.py FOLDER [--pool NAME] [--rotations 5] [--runs 5]

The rule has the same competence and evidence, and the same Fusion. It asks the member whose next answer gains most beyond its charge,
and stops where none does (`State.net_gain`); so it needs no threshold, and serves every cost weight too. It gets the policy's
rounds, and then as many rounds as members: more than the policy has, which takes longer. Both are judged by what they are
for: score minus cost weight times what was spent, in points, the mean over six cost weights.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ablations import EvidenceFusion
from pools import POOLS

from langchain_rlfocal.environment import replay
from langchain_rlfocal.evaluation.metrics import paired_difference
from langchain_rlfocal.policies.base import legal_sizes
from langchain_rlfocal.states import Bools, Floats, State
from langchain_rlfocal.training import TrainingConfig, train

CROSS_TEST = (0.7, 0.1, 0.2)
WEIGHTS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.8)


class ValueOfInformation(EvidenceFusion):
    """Asks who gains most beyond its charge, one each round, until nobody does; its Fusion is the trained one."""

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose the one of the highest net gain, or stop."""
        selectable, smallest, largest = legal_sizes(state)
        net = np.where(selectable, state.net_gain, -np.inf)
        size = np.where(net.max(axis=1) > 0, np.minimum(largest, 1), smallest)
        rank = np.argsort(np.argsort(-net, axis=1, kind="stable"), axis=1, kind="stable")
        teams = (rank < size[:, None]) & selectable
        return teams, net, lambda: teams.astype(np.float64)

    def weigh(self, state: State) -> Floats:
        """Weigh as the trained Fusion does."""
        return self._policy.weigh(state)


def main() -> None:
    """Train, play, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", action="append", choices=POOLS)
    parser.add_argument("--rotations", type=int, default=5)
    parser.add_argument("--runs", type=int)
    given = parser.parse_args()
    print(
        "| pool | way | score % | share spent | rounds | reward | policy minus this (95 %) |\n|---|---|---|---|---|---|---|"
    )
    for name in given.pool or ("routerbench/all11", "zeroeval/cheap8", "mmlu_pro/strong14", "mmlu_pro/open12"):
        pool = POOLS[name]
        grid = pool.read(given.folder)
        found: dict[str, list[np.ndarray]] = {}
        for seed in range(given.runs or given.rotations):
            parts = grid.split(fractions=CROSS_TEST, rotation=seed / given.rotations)
            policy = train(
                parts[0], parts[1], TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)
            )
            rule = ValueOfInformation(policy)
            ways = {
                "policy": (policy, pool.max_rounds),
                "rule, same rounds": (rule, pool.max_rounds),
                "rule, one by one": (rule, pool.max_team),
            }
            for way, (player, rounds) in ways.items():
                plays = [
                    replay(player, parts[2], cost_weight=weight, max_team=pool.max_team, max_rounds=rounds)
                    for weight in WEIGHTS
                ]
                scores, spent = (np.mean([getattr(one, what) for one in plays], axis=0) for what in ("scores", "spent"))
                reward = np.mean(
                    [one.scores - weight * one.spent for one, weight in zip(plays, WEIGHTS, strict=True)], axis=0
                )
                taken = np.mean([one.rounds for one in plays], axis=0)
                found.setdefault(way, []).append(np.stack([scores, spent, taken, reward]))
        arrays = {way: np.concatenate(values, axis=1) for way, values in found.items()}
        for way, values in arrays.items():
            score, spent, taken, reward = values.mean(axis=1)
            difference = ""
            if way != "policy":
                one = paired_difference(100 * arrays["policy"][3], 100 * values[3], rng=np.random.default_rng(0))
                difference = f"{one.mean:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
            print(
                f"| `{name}` | {way} | {100 * score:.1f} | {spent:.3f} | {taken:.2f} | {100 * reward:.2f} | {difference} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

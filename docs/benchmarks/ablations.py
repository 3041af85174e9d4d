"""What each part of training is worth: the diversity reward, rounds, query features, and reinforcement itself.

    python docs/benchmarks/ablations.py FOLDER [--pool mmlu_pro/open12] [--seeds 3]

Every variant is compared on the test rows at about 3 and about 5 calls a query. What leads to so many calls is chosen on the
validation rows, by parts that have not seen them: the cost weight of a trained policy from its curve, which `train` measures
before the last refit, and the threshold of a rule by playing it with the supervised parts of the training rows alone. Then
both play the test rows with the same parts, refitted to training and validation rows together.

One run takes as long as ten trainings for each seed; interrupt it for the table of what is done so far. The last columns
compare with the default of the same seeds: bootstrap intervals over the test rows, of the mean over the seeds.

The rules are the warm start without reinforcement: they ask members in a fixed manner, one more each round, until the
evidence is clear, and return the answer of highest evidence. They may take as many rounds as members, more than the policy
they are compared with. Clear means that the leading answer's log-odds pass the runner-up's (0 if there is none) by the
threshold; belief alone cannot tell, since a sole answer has all of it, so that rule stops wherever the first two agree.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pools import POOLS, Pool
from threadpoolctl import threadpool_limits

from langchain_rlfocal.environment import Replay, Replays, environment_of, play, replay
from langchain_rlfocal.evaluation.metrics import paired_difference
from langchain_rlfocal.features import Embedder, load_embedder
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy, legal_sizes
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, MemberFeatures, State
from langchain_rlfocal.training import TrainingConfig, train
from langchain_rlfocal.training.supervised import prepare

TARGETS = (3.0, 5.0)
DEFAULT = "default"
CONFIGS: dict[str, dict[str, Any]] = {
    "diversity_weight 0": {"diversity_weight": 0.0},
    "diversity_weight 0.1": {"diversity_weight": 0.1},
    "diversity_weight 0.3": {"diversity_weight": 0.3},
    "1 round": {"max_rounds": 1},
    "2 rounds": {"max_rounds": 2},
    "3 rounds": {"max_rounds": 3},
}
CLEAREST, HALVINGS = 50.0, 20


class EvidenceFusion(EnsemblePolicy):
    """A trained policy whose Fusion is its evidence: the Decider's teams, the answer of highest belief."""

    def __init__(self, policy: RLFocalPolicy) -> None:
        self._policy = policy

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""
        return self._policy.members

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> MemberFeatures:
        """Describe as the trained policy does."""
        return self._policy.describe(queries, tasks, members)

    def read(
        self, known: MemberFeatures, tasks: Sequence[str | None], answers: Answers, members: Sequence[str] | None = None
    ) -> Evidence:
        """Read as the trained policy does."""
        return self._policy.read(known, tasks, answers, members)

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose as the trained Decider does."""
        return self._policy.team(state)

    def weigh(self, state: State) -> Floats:
        """Weigh by belief alone."""
        return state.belief


def lead_of(state: State) -> Floats:
    """Log-odds of the leading candidate beyond the runner-up's, or beyond 0 where there is none, shape [Q]."""
    ranked = np.sort(np.where(state.candidates, state.evidence, -np.inf), axis=1)
    return ranked[:, -1] - np.where(np.isfinite(ranked[:, -2]), ranked[:, -2], 0)


def belief_of(state: State) -> Floats:
    """Log-odds of the leading candidate's probability among the candidates, shape [Q]; infinite for a sole one."""
    belief = state.belief.max(axis=1).astype(np.float64)
    return np.where(belief < 1, np.log(np.maximum(belief, 1e-12)) - np.log1p(-np.minimum(belief, 1 - 1e-12)), np.inf)


class Rule(EvidenceFusion):
    """Asks some members first, then one more each round until the evidence is clear.

    Args:
        policy: Describes the members and reads their answers.
        first: How many members the first round asks.
        clarity: How clear the evidence is, shape [Q].
        merit: Members are asked from the highest down, shape [M]; None takes their competence near the query.
        threshold: Clarity at which it stops.
    """

    def __init__(
        self,
        policy: RLFocalPolicy,
        *,
        first: int,
        clarity: Callable[[State], Floats] = lead_of,
        merit: Floats | None = None,
        threshold: float = CLEAREST,
    ) -> None:
        super().__init__(policy)
        self._first, self._clarity, self._merit, self._threshold = first, clarity, merit, threshold

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose the next in order, or stop."""
        selectable, smallest, largest = legal_sizes(state)
        if state.round_number == 1:
            size = np.minimum(largest, self._first)
        else:
            size = np.where(self._clarity(state) >= self._threshold, smallest, np.minimum(largest, 1))
        merit = state.competence if self._merit is None else self._merit
        order = np.argsort(np.where(selectable, -merit, np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1, kind="stable")
        teams = (rank < size[:, None]) & selectable
        return teams, lambda: teams.astype(np.float64)


def threshold_for(make: Callable[..., Rule], grid: OutcomeGrid, *, target: float, max_team: int) -> float:
    """Find the highest threshold that stays within the target of mean calls, by halving: calls rise with it."""
    env = environment_of(make(), grid, max_team=max_team, max_rounds=max_team)
    index, low, high = np.arange(len(grid)), 0.0, CLEAREST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        calls = play(make(threshold=middle), env, index, np.zeros(len(grid))).calls.mean()
        low, high = (middle, high) if calls <= target else (low, middle)
    return low


def blind(grid: OutcomeGrid, *, tasks: bool) -> OutcomeGrid:
    """Replace each text by a number that means nothing, the same for the same text; and all tasks by one on request."""
    numbers = [int.from_bytes(blake2b(text.encode(), digest_size=5).digest(), "big") for text in grid.queries]
    hidden = replace(grid, queries=[f"q{number:013d}" for number in numbers])
    return replace(hidden, tasks=["any"] * len(grid)) if tasks else hidden


def rules_of(policy: RLFocalPolicy, config: TrainingConfig, parts: Sequence[OutcomeGrid]) -> Iterator[tuple[str, Any]]:
    """Play every rule at every target: name and plays, one for each target."""
    with threadpool_limits(limits=1):
        prepared = prepare(parts[0], config, embedder=None, rng=np.random.default_rng(config.seed))
    weights = {**policy.parts.weights, **prepared.weights}
    unseen = RLFocalPolicy(replace(policy.parts, weights=weights, labels=prepared.labels))
    accuracy = parts[0].scores.mean(axis=0)
    rules: dict[str, dict[str, Any]] = {
        "rule: one by one, nearest competence": {"first": 1},
        "rule: two first, nearest competence": {"first": 2},
        "rule: one by one, fixed order": {"first": 1, "merit": accuracy},
        "rule: two first, fixed order": {"first": 2, "merit": accuracy},
        "rule: two first, nearest competence, by belief": {"first": 2, "clarity": belief_of},
    }
    for name, rule in rules.items():
        plays = []
        for target in TARGETS:

            def make(**more: float) -> Rule:
                return Rule(unseen, **rule, **more)  # noqa: B023  # called in this turn of the loop only

            threshold = threshold_for(make, parts[1], target=target, max_team=config.max_team)
            chosen = Rule(policy, **rule, threshold=threshold)
            limits = {"max_team": config.max_team, "max_rounds": config.max_team}
            plays.append(replay(chosen, parts[2], cost_weight=0.0, **limits))
        yield name, plays


def run(pool: Pool, grid: OutcomeGrid, *, seed: int) -> Iterator[tuple[str, list[Replay]]]:
    """Train every variant with one seed and play the test rows: name and plays, one for each target."""
    parts = grid.split()
    base = TrainingConfig(seed=seed, max_team=pool.max_team, max_rounds=pool.max_rounds)

    def at_targets(policy: RLFocalPolicy, rows: OutcomeGrid, rounds: int, played: EnsemblePolicy) -> list[Replay]:
        env = environment_of(played, rows, max_team=pool.max_team, max_rounds=rounds)
        return [Replays(played, env).mixed(policy.curve.mixture("calls", target)) for target in TARGETS]

    policy = train(parts[0], parts[1], base)
    yield DEFAULT, at_targets(policy, parts[2], base.max_rounds, policy)
    yield "Fusion by evidence alone", at_targets(policy, parts[2], base.max_rounds, EvidenceFusion(policy))
    yield from rules_of(policy, base, parts)
    for name, changes in CONFIGS.items():
        config = replace(base, **changes)
        policy = train(parts[0], parts[1], config)
        yield name, at_targets(policy, parts[2], config.max_rounds, policy)
    views: dict[str, tuple[Callable[[OutcomeGrid], OutcomeGrid], Embedder | None]] = {
        "features: task label only": (lambda rows: blind(rows, tasks=False), None),
        "features: none": (lambda rows: blind(rows, tasks=True), None),
        "features: all and wordllama's": (lambda rows: rows, load_embedder("wordllama")),
    }
    for name, (view, embedder) in views.items():
        train_rows, validation_rows, test_rows = map(view, parts)
        policy = train(train_rows, validation_rows, base, embedder=embedder)
        yield name, at_targets(policy, test_rows, base.max_rounds, policy)


def row(name: str, runs: Sequence[Sequence[Replay]], defaults: Sequence[Sequence[Replay]]) -> str:
    """Write one variant's line: for each target score, range over the seeds, calls, and difference to the default."""
    cells = [name, str(len(runs))]
    for turn in range(len(TARGETS)):
        scores = [100 * plays[turn].scores for plays in runs]
        means = [float(one.mean()) for one in scores]
        default = np.mean([100 * plays[turn].scores for plays in defaults[: len(runs)]], axis=0)
        difference = paired_difference(np.mean(scores, axis=0), default, rng=np.random.default_rng(0))
        cells += [
            f"{np.mean(means):.1f}",
            f"{min(means):.1f} to {max(means):.1f}",
            f"{np.mean([plays[turn].calls.mean() for plays in runs]):.2f}",
            "" if name == DEFAULT else f"{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f})",
        ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train, play, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pool", default="mmlu_pro/open12", choices=POOLS)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)  # small matrices are faster on one thread
    pool = POOLS[given.pool]
    grid = pool.read(given.folder)
    kept: dict[str, list[list[Replay]]] = {}
    with suppress(KeyboardInterrupt):
        for seed in range(given.seeds):
            start = time.perf_counter()
            for name, plays in run(pool, grid, seed=seed):
                kept.setdefault(name, []).append(plays)
                figures = ", ".join(f"{100 * one.scores.mean():.1f} at {one.calls.mean():.2f}" for one in plays)
                print(
                    f"{time.perf_counter() - start:5.0f} s  seed {seed}  {name}: {figures}", file=sys.stderr, flush=True
                )
    sizes = [len(part) for part in grid.split()]
    print(
        f"\n## {given.pool}: ablations\n\nRows (train, validation, test): {sizes}. The default: diversity_weight 0.02, ",
        end="",
    )
    print(f"{pool.max_rounds} rounds, teams of up to {pool.max_team}, the package's own features, no embedder\n")
    heads = [f"score % at about {target:g} calls | runs | calls | minus default (95 %)" for target in TARGETS]
    print(f"| | seeds | {' | '.join(heads)} |\n|---|---|{'---|' * 4 * len(TARGETS)}")
    for name, runs in kept.items():
        print(row(name, runs, kept[DEFAULT]))


if __name__ == "__main__":
    main()

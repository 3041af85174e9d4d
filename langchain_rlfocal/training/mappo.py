"""MAPPO: train the Decider and Fusion together on recorded outcomes, with one central critic.

Both actors share one team reward and see only their own observation; the critic sees the joint state, in training only.
Every iteration plays a batch of episodes with drawn cost weights, estimates advantages, and takes clipped steps. The
weights that did best on the validation rows, played without randomness, are the result: a copy, not an alias.

Source: Yu et al., 2022, "The surprising effectiveness of PPO in cooperative multi-agent games".
https://arxiv.org/abs/2103.01955
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from langchain_rlfocal._version import __version__
from langchain_rlfocal.embedders import NamedEmbedder
from langchain_rlfocal.environment import EnsembleEnv, Replay, environment_of, play
from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.evaluation.baselines import dump_baselines, fit_baselines
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.states import Floats
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.networks import Actors, Critic
from langchain_rlfocal.training.preparation import Prepared, data_hash, prepare, refit
from langchain_rlfocal.training.rollout import STATE_DIM, roll_out
from langchain_rlfocal.training.updates import update

MIN_QUERIES = 10
"""Fewer training rows than this teach nothing that could be told from chance."""

CURVE_WEIGHTS = (0.0, *(float(w) for w in np.geomspace(0.005, 2.0, 25).round(4)))
"""Cost weights at which the curve of score and calls is measured."""

_CHECKED_WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Cost weights over which, with the configured one, the best weights are chosen: one policy serves them all."""

_FREE, _LOWEST, _HIGHEST = 0.2, 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Iterations done.
        total_steps: Iterations at most.
        metrics: `reward`: mean reward of the last rollout's episodes; `validation`: best validation figure so far;
            `calls`: mean team size of the last rollout; `kl`: how far its updates moved the policy.
    """

    step: int
    total_steps: int
    metrics: Mapping[str, float]


def draw_cost_weights(num: int, rng: np.random.Generator) -> Floats:
    """Draw each episode's cost weight: 0 for one in five, else log-uniform in [0.01, 1]."""
    weights = np.exp(rng.uniform(np.log(_LOWEST), np.log(_HIGHEST), size=num))
    return np.where(rng.random(num) < _FREE, 0.0, weights)


def train(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RLFocalPolicy:
    """Train a policy, and fit the baselines that it will be compared with on the same rows.

    Args:
        train_grid: Outcomes to learn from.
        validation_grid: Outcomes, of other queries, on which the best weights are chosen.
        config: Hyperparameters.
        embedder: Gives the queries more features; the policy then needs the same one when serving.
        on_progress: Called after each iteration.

    Returns:
        The policy that did best on the validation rows over all cost weights, `config.cost_weight` among them. It holds the
        baselines, and in its card the rows that the grids were made of and the name of a `NamedEmbedder`.

    Raises:
        OutcomeError: There are too few rows, or the grids have different members.
    """
    if train_grid.members != validation_grid.members:
        msg = "Training and validation rows must have the same members in the same order. Make both from one table."
        raise OutcomeError(msg)
    if len(train_grid) < MIN_QUERIES or len(validation_grid) < 1:
        msg = (
            f"Training needs at least {MIN_QUERIES} queries that all members answered and 1 for validation, got "
            f"{len(train_grid)} and {len(validation_grid)}. Collect more outcomes, or name fewer members."
        )
        raise OutcomeError(msg)
    threads = torch.get_num_threads()
    # Small matrices are faster on one thread, and the number of threads decides how sums are rounded.
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            return _train(train_grid, validation_grid, config, embedder, on_progress or (lambda _: None))
    finally:
        torch.set_num_threads(threads)


class _Validation:
    """Plays the validation rows at every cost weight at once, as a policy would without randomness."""

    def __init__(self, policy: RLFocalPolicy, grid: OutcomeGrid, config: TrainingConfig) -> None:
        self._num_queries = len(grid)
        # What a policy knows and reads does not change with reinforcement.
        self._env = environment_of(policy, grid, max_team=config.max_team, max_rounds=config.max_rounds)

    def play(self, policy: RLFocalPolicy, cost_weights: tuple[float, ...]) -> Replay:
        """Play every row at each weight: rows [W x Q], one weight after the other."""
        index = np.tile(np.arange(self._num_queries), len(cost_weights))
        return play(policy, self._env, index, np.repeat(cost_weights, self._num_queries))

    def figure(self, policy: RLFocalPolicy, cost_weights: tuple[float, ...]) -> float:
        """Mean over cost weights of score minus what was spent: what a user of the policy gets."""
        played = self.play(policy, cost_weights)
        return float(np.mean(played.scores - np.repeat(cost_weights, self._num_queries) * played.spent))

    def curve(self, policy: RLFocalPolicy) -> list[dict[str, float]]:
        """Measure what each of `CURVE_WEIGHTS` leads to."""
        played = self.play(policy, CURVE_WEIGHTS)
        shape = (len(CURVE_WEIGHTS), self._num_queries)
        means = {
            "score": played.scores.reshape(shape).mean(axis=1),
            "mean_calls": played.calls.reshape(shape).mean(axis=1),
            "mean_spent": played.spent.reshape(shape).mean(axis=1),
        }
        return [
            {"cost_weight": weight, **{name: float(mean[row]) for name, mean in means.items()}}
            for row, weight in enumerate(CURVE_WEIGHTS)
        ]


def _train(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    embedder: Embedder | None,
    on_progress: Callable[[Progress], None],
) -> RLFocalPolicy:
    rng = np.random.default_rng(config.seed)
    prepared = prepare(train_grid, config, embedder=embedder, rng=rng)
    env = EnsembleEnv(
        prepared.grid,
        prepared.known,
        prepared.evidence,
        max_team=config.max_team,
        max_rounds=config.max_rounds,
        diversity_weight=config.diversity_weight,
        charges=prepared.charges,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays its own
        torch.manual_seed(config.seed)
        actors = Actors(
            decider_hidden=config.decider_hidden,
            fusion_hidden=config.fusion_hidden,
            num_members=len(train_grid.members),
        )
        critic = Critic(STATE_DIM, config.critic_hidden)
    rates = (config.learning_rate, config.fusion_learning_rate)
    optimizer = torch.optim.Adam(
        [
            {"params": [*actors.decider.parameters(), *critic.parameters()]},
            {"params": [*actors.fusion.parameters()]},
        ],
        eps=1e-5,
    )

    def policy_now() -> RLFocalPolicy:
        weights = {**prepared.weights, **actors.arrays()}
        parts = Parts(members=train_grid.members, weights=weights, labels=prepared.labels)
        return RLFocalPolicy(parts, embedder=embedder)

    best, best_step, stale = policy_now(), 0, 0
    validation = _Validation(best, validation_grid, config)
    cost_weights = tuple(sorted({*_CHECKED_WEIGHTS, config.cost_weight}))
    best_figure = validation.figure(best, cost_weights)
    for step in range(1, config.num_iterations + 1):
        left = 1.0 - 0.9 * (step - 1) / config.num_iterations
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * left
        rollout = roll_out(
            env,
            actors.arrays(),
            rng.integers(len(prepared.grid), size=config.batch_size),
            draw_cost_weights(config.batch_size, rng),
            rng=rng,
        )
        kl = update(actors, critic, optimizer, rollout, config, entropy_coef=config.entropy_coef * left, rng=rng)
        if step % config.validate_every == 0 or step == config.num_iterations:
            policy = policy_now()
            figure = validation.figure(policy, cost_weights)
            stale += 1
            if figure > best_figure:
                best, best_figure, best_step, stale = policy, figure, step, 0
        on_progress(
            Progress(
                step=step,
                total_steps=config.num_iterations,
                metrics={
                    "reward": float(rollout.rewards.sum(axis=0).mean()),
                    "validation": best_figure,
                    "calls": float(rollout.teams.sum() / config.batch_size),
                    "kl": kl,
                },
            )
        )
        if stale >= config.patience:
            break
    card = _card(
        best,
        validation,
        prepared=prepared,
        train_grid=train_grid,
        validation_grid=validation_grid,
        config=config,
        best_step=best_step,
    )
    # The networks are chosen; the validation rows can now teach the supervised models, at the penalties found.
    both = train_grid.join(validation_grid)
    refitted, labels = refit(both, config, embedder=embedder, rng=rng, facts=prepared.facts)
    if train_grid.rows is not None:
        card["rows"] = dict(train_grid.rows)
    if isinstance(embedder, NamedEmbedder):
        card["embedder"] = embedder.name
    baselines, facts = dump_baselines(
        fit_baselines(train_grid, validation_grid, max_team=config.max_team, seed=config.seed)
    )
    parts = replace(
        best.parts,
        weights={**best.parts.weights, **refitted},
        labels=labels,
        card=card,
        baselines=baselines,
        baseline_facts=facts,
    )
    return RLFocalPolicy(parts, embedder=embedder)


def _card(
    policy: RLFocalPolicy,
    validation: _Validation,
    *,
    prepared: Prepared,
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    best_step: int,
) -> dict[str, Any]:
    """Collect the facts that a checkpoint carries; nothing in it depends on the clock or the machine's paths."""
    played = validation.play(policy, (config.cost_weight,))
    member_scores = dict(zip(validation_grid.members, validation_grid.scores.mean(axis=0).tolist(), strict=True))
    return {
        "config": asdict(config),
        "data_sha256": data_hash(train_grid, validation_grid),
        "versions": {
            "langchain-rlfocal": __version__,
            "numpy": version("numpy"),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "training": {"queries": len(train_grid), "best_step": best_step, **prepared.facts},
        "validation": {
            "queries": len(validation_grid),
            "score": float(played.scores.mean()),
            "mean_calls": float(played.calls.mean()),
            "member_scores": member_scores,
            "single_best": max(member_scores, key=lambda name: member_scores[name]),
        },
        "curve": validation.curve(policy),
    }

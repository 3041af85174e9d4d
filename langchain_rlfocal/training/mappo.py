"""MAPPO: train the Decider and Fusion together on recorded outcomes, with one central critic.

Both actors share one team reward and see only their own observation; the critic sees the joint state, in training only.
Every iteration plays a batch of episodes with drawn cost weights, estimates advantages, and takes clipped steps. The
weights that did best on the validation rows, played without randomness, are the result: a copy, not an alias.

Source: Yu et al., 2022, "The surprising effectiveness of PPO in cooperative multi-agent games".
https://arxiv.org/abs/2103.01955
"""

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from langchain_rlfocal._version import __version__
from langchain_rlfocal.diversity import pairwise_focal_diversity
from langchain_rlfocal.environment import EnsembleEnv, replay
from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.features import SURFACE_NAMES, features_of
from langchain_rlfocal.observations import Floats, Ints
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.base import Descriptors
from langchain_rlfocal.policies.competence import cross_fitted, fit_competence
from langchain_rlfocal.training.advantages import gae
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.losses import approximate_kl, clipped_surrogate, clipped_value_loss
from langchain_rlfocal.training.networks import Actors, Critic, subset_log_prob_and_entropy
from langchain_rlfocal.training.rollout import STATE_DIM, Rollout, roll_out

MIN_QUERIES = 10
"""Fewer training rows than this teach nothing that could be told from chance."""

_FREE, _LOWEST, _HIGHEST = 0.1, 0.01, 1.0


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
    """Draw each episode's cost weight: 0 for one in ten, else log-uniform in [0.01, 1]."""
    weights = np.exp(rng.uniform(np.log(_LOWEST), np.log(_HIGHEST), size=num))
    return np.where(rng.random(num) < _FREE, 0.0, weights)


def prices_of(grid: OutcomeGrid) -> Floats:
    """Estimate each member's share of what asking the whole pool costs.

    By its mean dollars a call, over the calls whose cost is known; even where some member's never is, or all are free.
    """
    known = ~np.isnan(grid.cost_usd)
    dollars = np.where(known, grid.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    if not known.any(axis=0).all() or dollars.sum() <= 0:
        return np.full(len(dollars), 1.0 / len(dollars))
    shares: Floats = dollars / dollars.sum()
    return shares


def data_hash(*grids: OutcomeGrid) -> str:
    """Hash what training reads of these grids."""
    digest = hashlib.sha256()
    for grid in grids:
        digest.update(repr((grid.members, grid.tasks, grid.queries)).encode("utf-8", "surrogatepass"))
        for array in (grid.answer_ids, grid.scores, grid.cost_usd, grid.logprobs):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _fold_of(queries: list[str], num_folds: int) -> Ints:
    """Assign folds by the hash of the query's text, so that a repeated question stays in one fold."""
    digests = [
        hashlib.blake2b(q.encode("utf-8", "surrogatepass"), digest_size=4, person=b"fold").digest() for q in queries
    ]
    return np.array([int.from_bytes(digest, "big") % num_folds for digest in digests])


def _update(
    actors: Actors,
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: TrainingConfig,
    *,
    entropy_coef: float,
    rng: np.random.Generator,
) -> float:
    """Take the clipped steps of one rollout; returns how far the policy moved (approximate KL)."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=bool if array.dtype == bool else np.float32))

    states = tensor(rollout.states)
    with torch.no_grad():
        old_values = critic(states)
    advantages, returns = gae(
        rollout.rewards,
        old_values.numpy().astype(np.float64),
        rollout.active,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    rounds = rollout.active[:-1]
    for part, taken in (
        (advantages[:-1], rounds),
        (advantages[-1:], rollout.active[-1:]),
    ):  # each actor on its own scale
        if taken.any():
            part[taken] = (part[taken] - part[taken].mean()) / (part[taken].std() + 1e-8)
    advantage, target, old_log_prob = tensor(advantages), tensor(returns), tensor(rollout.log_probs)
    inputs, teams = tensor(rollout.decider_inputs), tensor(rollout.teams)
    selectable, sizes = tensor(rollout.selectable), tensor(rollout.legal_sizes)
    fusion_in, answers, chosen = (
        tensor(rollout.fusion_inputs),
        tensor(rollout.answers),
        torch.from_numpy(rollout.chosen),
    )
    decisions, active = tensor(rounds), tensor(rollout.active)

    batch = rollout.rewards.shape[1]
    kl = 0.0
    for _ in range(config.num_epochs):
        moved = []
        for rows in np.array_split(rng.permutation(batch), min(config.num_minibatches, batch)):
            pick = torch.from_numpy(rows)
            now = decisions[:, pick]
            decided, entropy = subset_log_prob_and_entropy(
                actors.decider(inputs[:, pick][now]),
                selectable[:, pick][now],
                teams[:, pick][now],
                sizes[:, pick][now],
            )
            choice = torch.log_softmax(actors.fusion(fusion_in[pick], answers[pick]), dim=-1)
            fused = choice.gather(1, chosen[pick, None]).squeeze(1)
            choice_entropy = -(choice.exp() * choice.clamp(min=-1e3)).sum(-1)
            old_decided, old_fused = old_log_prob[:-1, pick][now], old_log_prob[-1, pick]
            policy_loss = clipped_surrogate(
                decided, old_decided, advantage[:-1, pick][now], clip_epsilon=config.clip_epsilon
            ) + clipped_surrogate(fused, old_fused, advantage[-1, pick], clip_epsilon=config.clip_epsilon)
            seen = active[:, pick]
            value_loss = clipped_value_loss(
                critic(states[:, pick][seen]),
                old_values[:, pick][seen],
                target[:, pick][seen],
                clip_epsilon=config.clip_epsilon,
            )
            loss = (
                policy_loss + config.value_coef * value_loss - entropy_coef * (entropy.mean() + choice_entropy.mean())
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares it without types
            nn.utils.clip_grad_norm_(actors.parameters(), config.max_grad_norm)
            nn.utils.clip_grad_norm_(critic.parameters(), config.max_grad_norm)
            optimizer.step()
            with torch.no_grad():
                moved.append(float(approximate_kl(decided, old_decided) + approximate_kl(fused, old_fused)))
        kl = float(np.mean(moved))
        if kl > config.target_kl:
            break
    return kl


def train(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> RLFocalPolicy:
    """Train a policy.

    Args:
        train_grid: Outcomes to learn from.
        validation_grid: Outcomes, of other queries, on which the best weights are chosen.
        config: Hyperparameters.
        on_progress: Called after each iteration.

    Returns:
        The policy that did best on the validation rows at `config.cost_weight` and around it.

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
            return _train(train_grid, validation_grid, config, on_progress or (lambda _: None))
    finally:
        torch.set_num_threads(threads)


def _train(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    on_progress: Callable[[Progress], None],
) -> RLFocalPolicy:
    rng = np.random.default_rng(config.seed)
    num_queries = len(train_grid)
    # Every query counts twice, with its task label and without: callers often give none.
    features = np.concatenate(
        [features_of(train_grid.queries, tasks) for tasks in (train_grid.tasks, [None] * num_queries)]
    )
    scores = np.tile(train_grid.scores, (2, 1))
    folds = np.tile(_fold_of(train_grid.queries, config.num_folds), 2)
    competence, penalty = cross_fitted(features, scores, folds)
    model = fit_competence(features, scores, penalty=penalty)
    price, diversity = prices_of(train_grid), pairwise_focal_diversity(train_grid.scores >= 0.5)
    fixed = {
        "competence.weights": model.weights,
        "competence.bias": model.bias,
        "competence.mean": model.mean,
        "pool.price": price,
        "pool.diversity": diversity,
    }
    env = EnsembleEnv(
        train_grid.take(np.tile(np.arange(num_queries), 2)),
        Descriptors(
            competence=competence,
            price=price,
            diversity=diversity,
            surface=features[:, : len(SURFACE_NAMES)],
        ),
        max_team=config.max_team,
        max_rounds=config.max_rounds,
        diversity_weight=config.diversity_weight,
    )

    with torch.random.fork_rng(devices=[]):  # the caller's random state stays its own
        torch.manual_seed(config.seed)
        actors = Actors(decider_hidden=config.decider_hidden, fusion_hidden=config.fusion_hidden)
        critic = Critic(STATE_DIM, config.critic_hidden)
    optimizer = torch.optim.Adam([*actors.parameters(), *critic.parameters()], lr=config.learning_rate, eps=1e-5)

    cost_weights = sorted({0.0, config.cost_weight / 3, config.cost_weight, config.cost_weight * 3})

    def policy_now(card: Mapping[str, Any] | None = None) -> RLFocalPolicy:
        return RLFocalPolicy(train_grid.members, {**fixed, **actors.arrays()}, card)

    def validation_return(policy: RLFocalPolicy) -> float:
        """Mean over cost weights of score minus what was spent: what a user of the policy gets."""
        figures = []
        for cost_weight in cost_weights:
            played = replay(
                policy, validation_grid, cost_weight=cost_weight, max_team=config.max_team, max_rounds=config.max_rounds
            )
            figures.append(float(np.mean(played.scores - cost_weight * played.spent)))
        return float(np.mean(figures))

    best, best_step, stale = policy_now(), 0, 0
    best_figure = validation_return(best)
    for step in range(1, config.num_iterations + 1):
        left = 1.0 - 0.9 * (step - 1) / config.num_iterations
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * left
        weights = {name: array.astype(np.float64) for name, array in actors.arrays().items()}
        rollout = roll_out(
            env,
            weights,
            rng.integers(2 * num_queries, size=config.batch_size),
            draw_cost_weights(config.batch_size, rng),
            rng=rng,
        )
        kl = _update(actors, critic, optimizer, rollout, config, entropy_coef=config.entropy_coef * left, rng=rng)
        if step % config.validate_every == 0 or step == config.num_iterations:
            policy = policy_now()
            figure = validation_return(policy)
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
                    "calls": float(rollout.teams.sum(axis=(0, 2)).mean()),
                    "kl": kl,
                },
            )
        )
        if stale >= config.patience:
            break
    return RLFocalPolicy(
        train_grid.members,
        best.weights,
        _card(best, train_grid, validation_grid, config, best_step=best_step, penalty=penalty),
    )


def _card(
    policy: RLFocalPolicy,
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    best_step: int,
    penalty: float,
) -> dict[str, Any]:
    """Collect the facts that a checkpoint carries; nothing in it depends on the clock or the machine's paths."""
    played = replay(
        policy, validation_grid, cost_weight=config.cost_weight, max_team=config.max_team, max_rounds=config.max_rounds
    )
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
        "training": {"queries": len(train_grid), "best_step": best_step, "competence_penalty": penalty},
        "validation": {
            "queries": len(validation_grid),
            "score": float(played.scores.mean()),
            "mean_calls": float(played.calls.mean()),
            "member_scores": member_scores,
            "single_best": max(member_scores, key=lambda name: member_scores[name]),
        },
    }

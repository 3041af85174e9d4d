"""Updates: the clipped steps that MAPPO takes after each rollout."""

import numpy as np
import torch
from torch import Tensor, nn

from langchain_rlfocal.policies.networks import FUSION_SHARPNESS
from langchain_rlfocal.states import Bools, Floats
from langchain_rlfocal.training.advantages import gae
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.losses import approximate_kl, clipped_surrogate, clipped_value_loss
from langchain_rlfocal.training.networks import Actors, Critic, subset_log_prob_and_entropy
from langchain_rlfocal.training.rollout import Rollout


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _normalised(values: Floats, chosen: Bools) -> Floats:
    """Bring the chosen values to mean 0 and standard deviation 1."""
    part = values[chosen]
    return np.where(chosen, (values - part.mean()) / (part.std() + 1e-8), 0.0)


def update(
    actors: Actors,
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: TrainingConfig,
    *,
    entropy_coef: float,
    rng: np.random.Generator,
) -> float:
    """Take the clipped steps of one rollout.

    Every minibatch holds a share of the Decider's decisions, of Fusion's, and of the states that the critic saw. Advantages
    are normalised for each actor by itself.

    Returns:
        How far the last pass moved the policy: approximate KL divergence, of both actors together.
    """
    states = _tensor(rollout.states)
    with torch.no_grad():
        old_values = critic(states)
    advantages, returns = gae(
        rollout.rewards,
        rollout.by_step(old_values.numpy().astype(np.float64)),
        rollout.active,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    fusing = np.zeros_like(rollout.active)
    fusing[-1] = True
    deciding = rollout.active & ~fusing
    advantage = _tensor(rollout.by_decision(_normalised(advantages, deciding) + _normalised(advantages, fusing)))
    target = _tensor(rollout.by_decision(returns))
    n, b = len(rollout.step), len(rollout.chosen)
    members, shared, teams = _tensor(rollout.members), _tensor(rollout.shared), _tensor(rollout.teams)
    selectable, sizes = _tensor(rollout.selectable), _tensor(rollout.legal_sizes)
    candidates, pooled = _tensor(rollout.candidates), _tensor(rollout.candidates_shared)
    exists, chosen = _tensor(rollout.exists), _tensor(rollout.chosen)
    old_teams, old_chosen = _tensor(rollout.log_probs), _tensor(rollout.chosen_log_probs)

    kl = 0.0
    for _ in range(config.num_epochs):
        moved = []
        num_parts = min(config.num_minibatches, b)
        parts = [np.array_split(rng.permutation(count), num_parts) for count in (n, b, n + b)]
        for decisions, fusions, seen in zip(*parts, strict=True):
            d, f, s = map(torch.from_numpy, (decisions, fusions, seen))
            decided, entropy = subset_log_prob_and_entropy(
                actors.decider(members[d], shared[d]), selectable[d], teams[d], sizes[d]
            )
            choice = torch.log_softmax(FUSION_SHARPNESS * actors.fusion(candidates[f], pooled[f], exists[f]), dim=-1)
            fused = choice.gather(1, chosen[f, None]).squeeze(1)
            choice_entropy = -(choice.exp() * choice.clamp(min=-1e3)).sum(-1)
            policy_loss = clipped_surrogate(
                decided, old_teams[d], advantage[:n][d], clip_epsilon=config.clip_epsilon
            ) + clipped_surrogate(fused, old_chosen[f], advantage[n:][f], clip_epsilon=config.clip_epsilon)
            value_loss = clipped_value_loss(
                critic(states[s]), old_values[s], target[s], clip_epsilon=config.clip_epsilon
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
                moved.append(float(approximate_kl(decided, old_teams[d]) + approximate_kl(fused, old_chosen[f])))
        kl = float(np.mean(moved))
        if kl > config.target_kl:
            break
    return kl

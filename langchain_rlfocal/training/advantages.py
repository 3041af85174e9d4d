"""Advantages: how much better than expected each decision turned out."""

import numpy as np

from langchain_rlfocal.states import Bools, Floats


def gae(rewards: Floats, values: Floats, active: Bools, *, gamma: float, gae_lambda: float) -> tuple[Floats, Floats]:
    """Estimate advantages with generalized advantage estimation over the steps that were taken.

    Works backwards from A_T = 0, v_T = 0 (every episode terminates):

        δₜ = rₜ + γ vₜ₊₁ − vₜ
        Aₜ = δₜ + γ λ Aₜ₊₁

    where t + 1 is the next *active* step: an episode that stopped early passes over its idle steps, which neither
    discount nor bootstrap. Rewards of idle steps must be 0.

    Source: Schulman et al., 2016, section 3. https://arxiv.org/abs/1506.02438

    Args:
        rewards: Reward after each step, shape [T, ...].
        values: Critic's value before each step, shape [T, ...].
        active: Steps that were taken, shape [T, ...].
        gamma: Discount γ in [0, 1].
        gae_lambda: λ in [0, 1].

    Returns:
        Advantages and returns (advantages plus values), both 0 at idle steps, shape [T, ...].

    Raises:
        ValueError: The shapes differ.
    """
    if not rewards.shape == values.shape == active.shape:
        msg = f"`rewards`, `values` and `active` must have one shape, got {rewards.shape}, {values.shape}, {active.shape}."
        raise ValueError(msg)
    advantages = np.zeros_like(rewards)
    next_value, next_advantage = np.zeros(rewards.shape[1:]), np.zeros(rewards.shape[1:])
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + gamma * next_value - values[t]
        advantage = delta + gamma * gae_lambda * next_advantage
        advantages[t] = np.where(active[t], advantage, 0.0)
        next_value = np.where(active[t], values[t], next_value)
        next_advantage = np.where(active[t], advantage, next_advantage)
    return advantages, np.where(active, advantages + values, 0.0)

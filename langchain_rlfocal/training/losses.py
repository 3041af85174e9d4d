"""Losses: the terms that MAPPO minimises, as pure functions of tensors.

Source: Schulman et al., 2017, "Proximal policy optimization algorithms", equations 7 and 9; value clipping as in Yu et
al., 2022, "The surprising effectiveness of PPO in cooperative multi-agent games". https://arxiv.org/abs/2103.01955
"""

import torch
from torch import Tensor


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_epsilon: float) -> Tensor:
    """Compute the clipped policy loss.

        r = exp(log π − log π_old)
        L = −mean(min(r A, clip(r, 1 − ε, 1 + ε) A))

    Args:
        log_probs: Log-probabilities of the actions under the current policy, shape [B].
        old_log_probs: The same under the policy that acted, shape [B].
        advantages: Advantages, shape [B].
        clip_epsilon: ε > 0.

    Returns:
        The loss, a scalar.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip_epsilon: float) -> Tensor:
    """Compute the critic's loss with its change clipped.

        v' = v_old + clip(v − v_old, −ε, ε)
        L = ½ mean(max((v − R)², (v' − R)²))

    Args:
        values: Values by the current critic, shape [B].
        old_values: Values by the critic that saw the rollout, shape [B].
        returns: What the values should have been, shape [B].
        clip_epsilon: ε > 0.

    Returns:
        The loss, a scalar.
    """
    clipped = old_values + (values - old_values).clamp(-clip_epsilon, clip_epsilon)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2).mean()


def approximate_kl(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """Estimate KL(π_old ‖ π) from actions of π_old: mean(r − 1 − log r), unbiased and never negative.

    Source: Schulman, 2020, "Approximating KL divergence", estimator k3. http://joschu.net/blog/kl-approx.html
    """
    log_ratio = log_probs - old_log_probs
    return (torch.expm1(log_ratio) - log_ratio).mean()

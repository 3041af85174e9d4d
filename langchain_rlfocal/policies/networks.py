"""Networks: the NumPy forward passes of the Decider and of Fusion.

Weights are plain arrays by name; `training.networks` holds the same networks in torch, and a property test shows that
both compute the same. Every layer is shared by all members (and all answers), which see each other only through pooled
values, so the order of members and answers cannot matter.
"""

from collections.abc import Mapping

import numpy as np

from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES, Bools, Floats
from langchain_rlfocal.policies.subsets import LOGIT_BOUND

Weights = Mapping[str, Floats]

DECIDER_INPUTS = 3 * len(MEMBER_AXES) + len(CONTEXT_AXES)
"""A member's own axes, their mean and maximum over the pool, and the context."""

FUSION_INPUTS = 3 * len(FUSION_AXES)
"""An answer's own axes, and their mean and maximum over all answers."""


def _dense(inputs: Floats, weights: Weights, name: str) -> Floats:
    outputs: Floats = inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return outputs


def decider_inputs(members: Floats, context: Floats) -> Floats:
    """Join what the Decider sees: shapes [Q, M, A] and [Q, C] to [Q, M, DECIDER_INPUTS]."""
    q, m, a = members.shape
    pooled = np.concatenate([members.mean(axis=1), members.max(axis=1), context], axis=1)
    return np.concatenate([members, np.broadcast_to(pooled[:, None, :], (q, m, 2 * a + context.shape[1]))], axis=2)


def decider_logits(weights: Weights, members: Floats, context: Floats) -> Floats:
    """Compute the on/off logit of each member, bounded, shape [Q, M]."""
    hidden = np.tanh(_dense(decider_inputs(members, context), weights, "decider.hidden1"))
    hidden = np.tanh(_dense(hidden, weights, "decider.hidden2"))
    raw = _dense(hidden, weights, "decider.out")[..., 0]
    bounded: Floats = LOGIT_BOUND * np.tanh(raw / LOGIT_BOUND)
    return bounded


def fusion_inputs(answers: Floats, mask: Bools) -> Floats:
    """Join what Fusion sees: shape [Q, K, A] to [Q, K, FUSION_INPUTS], pooled over the answers that exist."""
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    mean = np.where(mask[:, :, None], answers, 0.0).sum(axis=1) / count
    top = np.where(mask[:, :, None], answers, -1.0).max(axis=1)
    q, k, a = answers.shape
    pooled = np.concatenate([mean, top], axis=1)
    return np.concatenate([answers, np.broadcast_to(pooled[:, None, :], (q, k, 2 * a))], axis=2)


def fusion_logits(weights: Weights, answers: Floats, mask: Bools) -> Floats:
    """Compute the logit of each answer, -inf where there is none, shape [Q, K].

    A linear path beside the hidden layer starts as the log-odds weighted vote, so that learning begins at the best
    vote known and not at chance.
    """
    hidden = np.tanh(_dense(fusion_inputs(answers, mask), weights, "fusion.hidden"))
    logits = _dense(hidden, weights, "fusion.out")[..., 0] + _dense(answers, weights, "fusion.vote")[..., 0]
    return np.where(mask, logits, -np.inf)


def softmax(logits: Floats) -> Floats:
    """Normalise logits over the last axis; a row of -inf alone becomes zeros."""
    top = logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = exponentials.sum(axis=-1, keepdims=True)
    shares: Floats = exponentials / np.where(total > 0, total, 1.0)
    return shares

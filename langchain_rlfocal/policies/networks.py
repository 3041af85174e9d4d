"""Networks: the NumPy forward passes of the Decider and of Fusion.

Weights are plain arrays by name; `training.networks` holds the same networks in torch, and a property test shows that
both compute the same. Every layer is shared by all members (and all candidates), which see each other only through pooled
values, so the order of members and candidates cannot matter.

A first layer works on the joined vector of what one member (or candidate) has of its own and what all share. Since the
second part is the same for all of them, it goes through the layer once per query.
"""

from collections.abc import Mapping

import numpy as np

from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.policies.subsets import LOGIT_BOUND
from langchain_rlfocal.states import Bools, Floats

Weights = Mapping[str, Floats]

DECIDER_SHARED = 2 * len(MEMBER_AXES) + len(CONTEXT_AXES)
"""What all members of a query share: mean and maximum of their axes, and the context."""

FUSION_SHARED = 2 * len(FUSION_AXES)
"""What all candidates of a query share: mean and maximum of their axes."""

FUSION_SHARPNESS = 4.0
"""In training Fusion draws from its logits times this: close to the best candidate, which serving takes, yet still drawn.
Without it the reward would be spent on sharpening the odds of answers that win anyway."""


def _joined_layer(own: Floats, shared: Floats, weights: Weights, name: str) -> Floats:
    """Compute relu(W [own; shared] + b), shape [Q, N, H], from own [Q, N, A] and shared [Q, S]."""
    weight = weights[f"{name}.weight"].T
    q, n, a = own.shape
    hidden = (own.reshape(q * n, a) @ weight[:a]).reshape(q, n, -1)
    hidden += (shared @ weight[a:] + weights[f"{name}.bias"])[:, None, :]
    return np.maximum(hidden, 0, out=hidden)


def _dense(inputs: Floats, weights: Weights, name: str) -> Floats:
    q, n, a = inputs.shape
    outputs: Floats = inputs.reshape(q * n, a) @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return outputs.reshape(q, n, -1)


def decider_shared(members: Floats, context: Floats) -> Floats:
    """Pool what all members share: shapes [Q, M, A] and [Q, C] to [Q, DECIDER_SHARED]."""
    return np.concatenate([members.mean(axis=1), members.max(axis=1), context], axis=1)


def decider_logits(weights: Weights, members: Floats, shared: Floats) -> Floats:
    """Compute the on/off logit of each member, bounded, shape [Q, M]."""
    hidden = _joined_layer(members, shared, weights, "decider.hidden1")
    hidden = _dense(hidden, weights, "decider.hidden2")
    np.maximum(hidden, 0, out=hidden)
    raw = _dense(hidden, weights, "decider.out")[..., 0]
    bounded: Floats = LOGIT_BOUND * np.tanh(raw / LOGIT_BOUND)
    return bounded


def fusion_shared(candidates: Floats, mask: Bools) -> Floats:
    """Pool what all candidates share: shape [Q, K, A] to [Q, FUSION_SHARED], over the candidates that exist."""
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1).astype(candidates.dtype)
    top = np.where(mask[:, :, None], candidates, -np.inf).max(axis=1)
    return np.concatenate([candidates.sum(axis=1) / count, np.where(np.isfinite(top), top, 0)], axis=1)


def fusion_logits(weights: Weights, candidates: Floats, mask: Bools) -> Floats:
    """Compute the logit of each candidate, -inf where there is none, shape [Q, K].

    A linear path beside the hidden layer starts as the evidence itself, so that learning begins at the best vote known and
    not at chance.
    """
    hidden = _joined_layer(candidates, fusion_shared(candidates, mask), weights, "fusion.hidden")
    logits = _dense(hidden, weights, "fusion.out")[..., 0] + _dense(candidates, weights, "fusion.vote")[..., 0]
    return np.where(mask, logits, -np.inf)


def softmax(logits: Floats) -> Floats:
    """Normalise logits over the last axis; a row of -inf alone becomes zeros."""
    top = logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = exponentials.sum(axis=-1, keepdims=True)
    shares: Floats = exponentials / np.where(total > 0, total, 1.0)
    return shares

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


def decider_shared(members: Floats, context: Floats) -> Floats:
    """Pool what all members share: shapes [Q, M, A] and [Q, C] to [Q, DECIDER_SHARED]."""
    mean = np.add.reduce(members, axis=1) / members.shape[1]
    return np.concatenate([mean, np.maximum.reduce(members, axis=1), context], axis=1)


def fusion_shared(candidates: Floats, mask: Bools) -> Floats:
    """Pool what all candidates share: shape [Q, K, A] to [Q, FUSION_SHARED], over the candidates that exist."""
    count = np.maximum(np.add.reduce(mask, axis=1, keepdims=True, dtype=candidates.dtype), 1)
    top = np.maximum.reduce(np.where(mask[:, :, None], candidates, -np.inf), axis=1)
    return np.concatenate([np.add.reduce(candidates, axis=1) / count, np.where(top > -np.inf, top, 0)], axis=1)


class _JoinedLayer:
    """relu(W [own; shared] + b), shape [Q, N, H], from own [Q, N, A] and shared [Q, S]."""

    def __init__(self, weights: Weights, name: str, num_own: int) -> None:
        weight = weights[f"{name}.weight"]
        self._own, self._shared, self._bias = weight[:, :num_own].T, weight[:, num_own:].T, weights[f"{name}.bias"]

    def __call__(self, own: Floats, shared: Floats) -> Floats:
        hidden = own @ self._own
        hidden += (shared @ self._shared + self._bias)[:, None, :]
        return np.maximum(hidden, 0, out=hidden)


class DeciderNetwork:
    """On/off logit of each member, bounded.

    Args:
        weights: Arrays by name.
    """

    def __init__(self, weights: Weights) -> None:
        self._hidden1 = _JoinedLayer(weights, "decider.hidden1", len(MEMBER_AXES))
        self._weight2, self._bias2 = weights["decider.hidden2.weight"].T, weights["decider.hidden2.bias"]
        self._out, self._out_bias = weights["decider.out.weight"][0], weights["decider.out.bias"]

    def __call__(self, members: Floats, shared: Floats) -> Floats:
        """Compute logits, shape [Q, M], of observations of shape [Q, M, A] and what `decider_shared` makes of them."""
        hidden = self._hidden1(members, shared) @ self._weight2
        hidden += self._bias2
        np.maximum(hidden, 0, out=hidden)
        bounded: Floats = LOGIT_BOUND * np.tanh((hidden @ self._out + self._out_bias) / LOGIT_BOUND)
        return bounded


class FusionNetwork:
    """Logit of each candidate.

    A linear path beside the hidden layer starts as the evidence itself, so that learning begins at the best vote known and
    not at chance.

    Args:
        weights: Arrays by name.
    """

    def __init__(self, weights: Weights) -> None:
        self._hidden = _JoinedLayer(weights, "fusion.hidden", len(FUSION_AXES))
        self._out, self._vote = weights["fusion.out.weight"][0], weights["fusion.vote.weight"][0]
        self._bias = weights["fusion.out.bias"] + weights["fusion.vote.bias"]

    def __call__(self, candidates: Floats, shared: Floats, mask: Bools) -> Floats:
        """Compute logits, shape [Q, K], -inf where there is no candidate; see `fusion_shared` for the second argument."""
        logits = self._hidden(candidates, shared) @ self._out + candidates @ self._vote + self._bias
        return np.where(mask, logits, -np.inf)

"""Networks in torch: the two actors, whose NumPy twins serve, and the central critic, which never leaves training."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from langchain_rlfocal.observations import FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.policies.networks import DECIDER_SHARED, FUSION_SHARED
from langchain_rlfocal.policies.subsets import LOGIT_BOUND


class _JoinedLayer(nn.Linear):
    """relu(W [own; shared] + b) of what each member or candidate has and what all share; see `policies.networks`."""

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:  # type: ignore[override]
        """Compute [B, N, H] from own [B, N, A] and shared [B, S]."""
        axes = own.shape[-1]
        common = nn.functional.linear(shared, self.weight[:, axes:], self.bias)
        return torch.relu(nn.functional.linear(own, self.weight[:, :axes]) + common[:, None, :])


class DeciderNet(nn.Module):
    """On/off logit of each member; see `policies.networks.decider_logits`."""

    def __init__(self, hidden: int, *, num_members: int) -> None:
        super().__init__()
        self.hidden1 = _JoinedLayer(len(MEMBER_AXES) + DECIDER_SHARED, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.out.weight, gain=0.01)
        # Even chances at first, of a team of about two.
        nn.init.constant_(self.out.bias, -math.log(max(num_members / 2 - 1, 1.0)))

    def forward(self, members: Tensor, shared: Tensor) -> Tensor:
        """Compute bounded logits, shape [B, M]."""
        raw = self.out(torch.relu(self.hidden2(self.hidden1(members, shared)))).squeeze(-1)
        bounded: Tensor = LOGIT_BOUND * torch.tanh(raw / LOGIT_BOUND)
        return bounded


class FusionNet(nn.Module):
    """Logit of each candidate; see `policies.networks.fusion_logits`. It starts as the vote by evidence."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = _JoinedLayer(len(FUSION_AXES) + FUSION_SHARED, hidden)
        self.out = nn.Linear(hidden, 1)
        self.vote = nn.Linear(len(FUSION_AXES), 1)
        for layer in (self.out, self.vote):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.vote.weight[0, [name for name, _ in FUSION_AXES].index("evidence")] = 4.0  # the axis is over 4

    def forward(self, candidates: Tensor, shared: Tensor, mask: Tensor) -> Tensor:
        """Compute logits, shape [B, K]; a very low one where there is no candidate."""
        logits = self.out(self.hidden(candidates, shared)) + self.vote(candidates)
        masked: Tensor = logits.squeeze(-1).masked_fill(~mask, -1e9)
        return masked


class Actors(nn.Module):
    """Both actors; its state dict names the arrays as the checkpoint does."""

    def __init__(self, *, decider_hidden: int, fusion_hidden: int, num_members: int) -> None:
        super().__init__()
        self.decider = DeciderNet(decider_hidden, num_members=num_members)
        self.fusion = FusionNet(fusion_hidden)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copy the weights out, by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}


class Critic(nn.Module):
    """Value of the joint state, shape [...] from [..., S]. It sees recorded scores: in training only."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Compute values."""
        values: Tensor = self.layers(states).squeeze(-1)
        return values


def subset_log_prob_and_entropy(
    logits: Tensor, selectable: Tensor, team: Tensor, legal_sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute log P(S) and the entropy of `policies.subsets`' distribution, differentiably.

        log P(S) = Σ_{m ∈ S} ℓₘ − log Z        H = log Z − Σₘ P(m ∈ S) ℓₘ

    Args:
        logits: Logits, shape [B, M].
        selectable: Who can be selected, shape [B, M].
        team: The team, legal, shape [B, M].
        legal_sizes: Which sizes 0 .. K - 1 are legal, shape [B, K].

    Returns:
        Log-probability and entropy, both of shape [B].
    """
    logits = logits.double()  # products of many odds overflow single precision
    odds = torch.where(selectable, torch.exp(logits), 0.0)
    polynomials = torch.zeros(*legal_sizes.shape, dtype=odds.dtype)
    polynomials[:, 0] = 1.0
    for m in range(odds.shape[1]):
        polynomials = polynomials + nn.functional.pad(odds[:, m : m + 1] * polynomials[:, :-1], (1, 0))
    log_total = torch.log((polynomials * legal_sizes).sum(-1))
    # P(m ∈ S) = ∂ log Z / ∂ℓₘ
    (marginals,) = torch.autograd.grad(log_total.sum(), logits, create_graph=True)
    entropy = log_total - (marginals * logits).sum(-1)
    return torch.where(team, logits, 0.0).sum(-1) - log_total, entropy

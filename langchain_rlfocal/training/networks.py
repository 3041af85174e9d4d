"""Networks in torch: the two actors, whose NumPy twins serve, and the central critic, which never leaves training."""

import numpy as np
import torch
from torch import Tensor, nn

from langchain_rlfocal.observations import FUSION_AXES
from langchain_rlfocal.policies.networks import DECIDER_INPUTS, FUSION_INPUTS
from langchain_rlfocal.policies.subsets import LOGIT_BOUND


class DeciderNet(nn.Module):
    """On/off logit of each member from joined inputs [..., M, DECIDER_INPUTS]; see `policies.networks.decider_logits`."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(DECIDER_INPUTS, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.out.weight, gain=0.01)  # near-even teams at first: everything is tried
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute bounded logits, shape [..., M]."""
        raw = self.out(torch.tanh(self.hidden2(torch.tanh(self.hidden1(inputs))))).squeeze(-1)
        bounded: Tensor = LOGIT_BOUND * torch.tanh(raw / LOGIT_BOUND)
        return bounded


class FusionNet(nn.Module):
    """Logit of each answer from joined inputs [..., K, FUSION_INPUTS]; see `policies.networks.fusion_logits`.

    The linear path starts as the log-odds weighted vote: 1 per unit of summed log-odds and `VOTE` per supporter, which
    is what a supporter is worth among several possible wrong answers.
    """

    VOTE = 1.0

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(FUSION_INPUTS, hidden)
        self.out = nn.Linear(hidden, 1)
        self.vote = nn.Linear(len(FUSION_AXES), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.vote.bias)
        weight = torch.zeros(1, len(FUSION_AXES))
        names = [name for name, _ in FUSION_AXES]
        weight[0, names.index("log_odds")] = 4.0  # the axis is the sum over 4
        weight[0, names.index("support")] = 4.0 * self.VOTE
        self.vote.weight.data.copy_(weight)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Compute logits, shape [..., K]; a very low one where there is no answer."""
        logits = self.out(torch.tanh(self.hidden(inputs))) + self.vote(inputs[..., : len(FUSION_AXES)])
        masked: Tensor = logits.squeeze(-1).masked_fill(~mask, -1e9)
        return masked


class Actors(nn.Module):
    """Both actors; its state dict names the arrays as the checkpoint does."""

    def __init__(self, *, decider_hidden: int, fusion_hidden: int) -> None:
        super().__init__()
        self.decider = DeciderNet(decider_hidden)
        self.fusion = FusionNet(fusion_hidden)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copy the weights out, by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}


class Critic(nn.Module):
    """Value of the joint state, shape [...] from [..., S]. It sees recorded scores: in training only."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
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
    odds = torch.where(selectable, torch.exp(logits), torch.zeros_like(logits))
    num_members, num_sizes = odds.shape[-1], legal_sizes.shape[-1]
    others = odds[:, None, :] * (
        1.0 - torch.eye(num_members, dtype=odds.dtype)
    )  # [B, M + 1, M]: without each member, and with all
    odds_of_all = torch.cat([others, odds[:, None, :]], dim=1)
    polynomials = odds.new_zeros(*odds_of_all.shape[:-1], num_sizes)
    polynomials[..., 0] = 1.0
    for m in range(num_members):
        grown = polynomials[..., 1:] + odds_of_all[..., m, None] * polynomials[..., :-1]
        polynomials = torch.cat([polynomials[..., :1], grown], dim=-1)
    total = (polynomials[:, -1] * legal_sizes).sum(-1)
    with_member = (polynomials[:, :-1, :-1] * legal_sizes[:, None, 1:]).sum(-1) * odds
    log_total = torch.log(total)
    entropy = log_total - (with_member / total[:, None] * logits).sum(-1)
    return torch.where(team, logits, torch.zeros_like(logits)).sum(-1) - log_total, entropy

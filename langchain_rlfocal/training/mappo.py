"""MAPPO: train the Decider and Fusion together on recorded outcomes, with one central critic.

Both actors share one team reward and see only their own observation; the critic sees the joint state, in training only.
Every iteration plays a batch of episodes with drawn cost weights, estimates advantages, and takes clipped steps. The
weights that did best on rows that no fit has seen, played without randomness, are the result: a copy, not an alias.

Sources: Yu et al., 2022, "The surprising effectiveness of PPO in cooperative multi-agent games",
https://arxiv.org/abs/2103.01955; Schulman et al., 2017, "Proximal policy optimization algorithms", equations 7 and 9.
"""

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from langchain_rlfocal._version import __version__
from langchain_rlfocal.environment import EnsembleEnv, critical_path, environment_of, play
from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.evaluation.baselines import dump_baselines, fit_baselines
from langchain_rlfocal.evaluation.metrics import expected_calibration_error
from langchain_rlfocal.evaluation.rivals import fit_rivals
from langchain_rlfocal.features import Embedder, NamedEmbedder
from langchain_rlfocal.observations import (
    DECIDER_SHARED,
    FUSION_AXES,
    FUSION_SHARED,
    MEMBER_AXES,
    decider_observation,
    decider_shared,
    fusion_observation,
    fusion_shared,
)
from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid, costs_of, spending_in
from langchain_rlfocal.policies.base import legal_sizes
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.policies.learned import DeciderNetwork, FusionNetwork, RLFocalPolicy
from langchain_rlfocal.policies.pretrained import pretrained_networks
from langchain_rlfocal.policies.subsets import LOGIT_BOUND, sample_subset, size_mask, subset_log_prob
from langchain_rlfocal.states import Bools, Evidence, Floats, Ints, MemberFeatures, State, share, softmax
from langchain_rlfocal.training.agreement import complete
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.metrics import Progress, explained_variance
from langchain_rlfocal.training.supervised import MIN_QUERIES, TrainingData, as_new_tasks, data_hash, prepare, refit

CURVE_WEIGHTS = (0.0, *(float(w) for w in np.geomspace(0.002, 2.0, 40).round(4)))
"""Cost weights at which the curve of score and calls is measured."""

TRIAL_ROWS = 2000
"""Rows on which weights are chosen and the curve is measured, where there are as many: validation rows, then training rows."""

_CHECKED_WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Cost weights over which, with the configured one, the best weights are chosen: one policy serves them all."""

_FREE, _LOWEST, _HIGHEST = 0.2, 0.01, 1.0

FUSION_SHARPNESS = 4.0
"""In training Fusion draws from its logits times this: close to the best candidate, which serving takes, yet still drawn.
Without it the reward would be spent on sharpening the odds of answers that win anyway."""

FIRST_LOGIT = 2.5
"""Logit, for and against, of what an untrained Decider does: sure enough to be sensible, and open to other teams."""

_PRIVILEGED = 8
STATE_DIM = DECIDER_SHARED + FUSION_SHARED + _PRIVILEGED
"""S, the length of the critic's joint state."""


# ---- networks and losses


class _TwoLayers(torch.autograd.Function):
    """w₃ · h₂ + b₃ with h₂ = relu(W₂ h₁ + b₂) and h₁ = relu(W₁ [own; shared] + b₁), and its gradient.

    It takes most of training's time, so it works in blocks of rows that stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, shared: Tensor, *parameters: Tensor) -> Tensor:
        weight1, bias1, weight2, bias2, weight3, bias3 = parameters
        (b, n, axes), hidden = own.shape, len(bias1)
        common = torch.addmm(bias1, shared, weight1[:, axes:].T)
        hidden1, hidden2 = own.new_empty(b, n, hidden), own.new_empty(b, n, hidden)
        for block in _blocks(b, n):
            first, second = hidden1[block].view(-1, hidden), hidden2[block].view(-1, hidden)
            torch.mm(own[block].reshape(-1, axes), weight1[:, :axes].T, out=first)
            hidden1[block].add_(common[block, None]).clamp_min_(0.0)
            torch.addmm(bias2, first, weight2.T, out=second).clamp_min_(0.0)
        ctx.save_for_backward(own, shared, hidden1, hidden2, *parameters)
        return hidden2 @ weight3[0] + bias3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        own, shared, hidden1, hidden2, weight1, _, weight2, _, weight3, _ = ctx.saved_tensors
        (b, n, axes), hidden = own.shape, len(weight2)
        slope_common = slope.new_empty(b, hidden)
        own_slope1, slope2, bias2, slope3 = map(torch.zeros_like, (weight1[:, :axes], weight2, weight2[0], weight3[0]))
        for block in _blocks(b, n):
            first, second = hidden1[block].view(-1, hidden), hidden2[block].view(-1, hidden)
            slopes = slope[block].reshape(-1, 1)
            slope3.addmv_(second.T, slopes[:, 0])
            behind2 = torch.ops.aten.threshold_backward(slopes * weight3, second, 0.0)
            slope2.addmm_(behind2.T, first)
            bias2.add_(behind2.sum(0))
            behind1 = torch.ops.aten.threshold_backward(behind2 @ weight2, first, 0.0)
            own_slope1.addmm_(behind1.T, own[block].reshape(-1, axes))
            torch.sum(behind1.view(-1, n, hidden), 1, out=slope_common[block])
        slope1 = torch.cat([own_slope1, slope_common.T @ shared], dim=1)
        return None, None, slope1, slope_common.sum(0), slope2, bias2, slope3[None], slope.sum()[None]


def _blocks(num: int, rows_each: int, *, rows: int = 4096) -> Iterator[slice]:
    size = max(rows // rows_each, 1)
    return (slice(start, start + size) for start in range(0, num, size))


class _TwoLayerNet(nn.Module):
    """A number for each of N rows, shape [B, N], from what each has, [B, N, A], and what all share, [B, S]."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden1, self.hidden2 = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def values(self, own: Tensor, shared: Tensor) -> Tensor:
        """Compute the numbers."""
        layers = (*self.hidden1.parameters(), *self.hidden2.parameters(), *self.out.parameters())
        values: Tensor = _TwoLayers.apply(own, shared, *layers)  # type: ignore[no-untyped-call]
        return values


class DeciderNet(_TwoLayerNet):
    """On/off logit of each member; see `policies.learned.DeciderNetwork`.

    It starts as the rule that asks the member of the greatest net gain, one each round, and stops where none gains.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(len(MEMBER_AXES) + DECIDER_SHARED, hidden)
        self.skip = nn.Linear(len(MEMBER_AXES), 1, bias=False)
        nn.init.orthogonal_(self.out.weight, gain=0.01)
        nn.init.constant_(self.out.bias, -FIRST_LOGIT)
        nn.init.zeros_(self.skip.weight)
        with torch.no_grad():
            self.skip.weight[0, [axis.name for axis in MEMBER_AXES].index("next")] = 2 * FIRST_LOGIT

    def forward(self, members: Tensor, shared: Tensor) -> Tensor:
        """Compute bounded logits, shape [B, M]."""
        logits = self.values(members, shared) + self.skip(members)[:, :, 0]
        bounded: Tensor = LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)
        return bounded


class FusionNet(nn.Module):
    """Logit of each candidate; see `policies.learned.FusionNetwork`. It starts as the vote by evidence."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(len(FUSION_AXES) + FUSION_SHARED, hidden)
        self.out = nn.Linear(hidden, 1)
        self.vote = nn.Linear(len(FUSION_AXES), 1)
        for layer in (self.out, self.vote):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.vote.weight[0, [axis.name for axis in FUSION_AXES].index("evidence")] = 4.0  # the axis is over 4

    def forward(self, candidates: Tensor, shared: Tensor, mask: Tensor) -> Tensor:
        """Compute logits, shape [B, K]; a very low one where there is no candidate."""
        own, common = torch.split(self.hidden.weight, [len(FUSION_AXES), FUSION_SHARED], dim=1)
        of_all = nn.functional.linear(shared, common, self.hidden.bias)
        hidden = torch.relu(nn.functional.linear(candidates, own) + of_all[:, None])
        logits = self.out(hidden) + self.vote(candidates)
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


class Critic(_TwoLayerNet):
    """Value of the joint state, shape [B] from [B, S]. It sees recorded scores: in training only."""

    def forward(self, states: Tensor) -> Tensor:
        """Compute values."""
        return self.values(states[:, None], states[:, :0])[:, 0]


class _SubsetTerms(torch.autograd.Function):
    """log Z and H of `subset_log_prob_and_entropy`, whose gradients are known: P(m ∈ S), and minus Cov(1[m ∈ S], ℓ·1[S]).

    With before_m[k] the weight of all subsets of size k of the members before m, and after_m[k] that of all subsets of
    those after it which make k a legal size, P(m ∈ S) = wₘ Σ_k before_m[k] after_m[k + 1] / Z. The covariance is the
    derivative of the marginals along ℓ, so one pass computes both: each table and its derivative.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, selectable: Tensor, legal_sizes: Tensor) -> tuple[Tensor, Tensor]:
        (b, m), k = logits.shape, legal_sizes.shape[1]
        odds = torch.where(selectable, torch.exp(logits), 0.0)
        # Axes: value or derivative, before or after (from the last size down), member, size, query.
        steps = torch.stack([odds.T, odds.T.flip(0)])[:, :, None]
        along = steps * torch.stack([logits.T, logits.T.flip(0)])[:, :, None]
        tables = odds.new_zeros(2, 2, m + 1, k, b)
        tables[0, 0, :, 0] = 1.0
        tables[0, 1, 0] = legal_sizes.T.flip(0)
        tables[0, 1, :, 0] = legal_sizes[:, -1]
        smaller, larger = tables[:, :, :, :-1], tables[:, :, :, 1:]
        for n in range(m):
            new, below = larger[:, :, n + 1], smaller[:, :, n]
            torch.addcmul(larger[:, :, n], steps[:, n], below, out=new)
            new[1].addcmul_(along[:, n], below[0])
        before, after = smaller[:, 0, :-1], smaller[:, 1, :-1].flip(1, 2)
        others = (before[0] * after[0]).sum(1).T
        others_along = (before[1] * after[0] + before[0] * after[1]).sum(1).T
        total = tables[0, 1, -1, -1]
        marginals = odds * others / total[:, None]
        mean = (marginals * logits).sum(-1)
        covariance = odds * (logits * others + others_along) / total[:, None] - marginals * mean[:, None]
        ctx.save_for_backward(marginals, covariance)
        return torch.log(total), torch.log(total) - mean

    @staticmethod
    def backward(ctx: Any, log_total: Tensor, entropy: Tensor) -> tuple[Tensor, None, None]:
        marginals, covariance = ctx.saved_tensors
        return log_total[:, None] * marginals - entropy[:, None] * covariance, None, None


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
    log_total, entropy = _SubsetTerms.apply(logits, selectable, legal_sizes.double())  # type: ignore[no-untyped-call]
    return torch.where(team, logits, 0.0).sum(-1) - log_total, entropy


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


# ---- rollouts


@dataclass(frozen=True, slots=True)
class Rollout:
    """B episodes: N decisions of the Decider, in the order of rounds, and one of Fusion each.

    Attributes:
        step: Round of each of the Decider's decisions, counted from 0, shape [N].
        episode: Episode of each, shape [N].
        members: What it saw of the members, shape [N, M, A].
        shared: What it saw besides, shape [N, DECIDER_SHARED].
        selectable: Who could be selected, shape [N, M].
        legal_sizes: Which team sizes were legal, shape [N, L].
        teams: Teams drawn, shape [N, M].
        log_probs: Log-probabilities of the teams, shape [N].
        candidates: What Fusion saw of the candidates, the taken places first and with as many as the episode of most, [B, K, G].
        candidates_shared: What it saw besides, shape [B, FUSION_SHARED].
        exists: Where there is a candidate, shape [B, K].
        places: Where each candidate stands in the `State`, shape [B, K].
        chosen: Candidates drawn, of those K, shape [B].
        chosen_log_probs: Log-probabilities of the candidates drawn, shape [B].
        states: The critic's joint states: of the Decider's decisions, then of Fusion's, shape [N + B, S].
        rewards: Reward after each step, Fusion's last, shape [T, B].
        active: Steps that were taken, shape [T, B].
    """

    step: Ints
    episode: Ints
    members: Floats
    shared: Floats
    selectable: Bools
    legal_sizes: Bools
    teams: Bools
    log_probs: Floats
    candidates: Floats
    candidates_shared: Floats
    exists: Bools
    places: Ints
    chosen: Ints
    chosen_log_probs: Floats
    states: Floats
    rewards: Floats
    active: Bools

    def by_step(self, values: Floats) -> Floats:
        """Lay out what there is of each decision, shape [N + B], by step and episode, shape [T, B]; 0 elsewhere."""
        laid_out = np.zeros(self.rewards.shape)
        laid_out[self.step, self.episode] = values[: len(self.step)]
        laid_out[-1] = values[len(self.step) :]
        return laid_out

    def by_decision(self, values: Floats) -> Floats:
        """Undo `by_step`."""
        return np.concatenate([values[self.step, self.episode], values[-1]])


def joint_state(
    state: State, member_scores: Floats, scores: Floats, *, shared: Floats, fusion: Floats | None = None
) -> Floats:
    """Show the critic everything: both actors' observations, pooled, and the recorded scores that no actor sees.

    A baseline may know what the actors do not: it shifts no gradient, since it does not depend on the action.

    Args:
        state: Where the queries stand.
        member_scores: Recorded scores of all members, shape [B, M].
        scores: Recorded scores of the candidates, shape [B, K].
        shared: What all members share of the Decider's observation, shape [B, DECIDER_SHARED].
        fusion: What all candidates share of Fusion's, shape [B, FUSION_SHARED]; None before the last step.

    Returns:
        Joint states, shape [B, S].
    """
    b, m = state.asked.shape
    states = np.zeros((b, STATE_DIM), dtype=np.float32)
    states[:, :DECIDER_SHARED] = shared
    if fusion is not None:
        states[:, DECIDER_SHARED:-_PRIVILEGED] = fusion
    left = np.where(state.asked, 0.0, member_scores)
    offered = np.where(state.candidates, scores, 0.0)
    for column, values in enumerate(
        (
            float(fusion is not None),
            member_scores.mean(axis=1),
            member_scores.max(axis=1),
            left.max(axis=1),
            left.sum(axis=1) / np.maximum(m - state.num_asked, 1),
            (left * state.competence).sum(axis=1) / np.where(state.asked, 0, state.competence).sum(axis=1).clip(1e-6),
            offered.max(axis=1),
            (offered * state.belief).sum(axis=1),
        )
    ):
        states[:, DECIDER_SHARED + FUSION_SHARED + column] = values
    return states


def draw_choice(logits: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw one candidate per row by softmax; returns indices and their log-probabilities, shape [B]."""
    probabilities = softmax(logits.astype(np.float64))
    uniform = rng.random((len(logits), 1))
    chosen = (probabilities.cumsum(axis=1) <= uniform).sum(axis=1)
    # Rounding may leave the last sum below 1: then the last one that can be chosen is meant.
    last = logits.shape[1] - 1 - np.isfinite(logits)[:, ::-1].argmax(axis=1)
    chosen = np.minimum(chosen, last)
    return chosen, np.log(np.maximum(probabilities[np.arange(len(logits)), chosen], 1e-300))


def roll_out(
    env: EnsembleEnv, weights: Mapping[str, Floats], index: Ints, cost_weight: Floats, *, rng: np.random.Generator
) -> Rollout:
    """Play one episode for each named row.

    Args:
        env: The environment.
        weights: The actors' weights, by name.
        index: Rows of the environment's grid, shape [B].
        cost_weight: Each episode's cost weight, shape [B].
        rng: Source of all randomness.
    """
    env.reset(index, cost_weight)
    decider, fusion = DeciderNetwork(weights), FusionNetwork(weights)
    num_episodes, num_sizes = len(index), env.max_team + 1
    steps: list[dict[str, np.ndarray]] = []
    rewards, active = [], []
    while env.running.any():
        running = env.running
        state = env.state(running)
        members, context = decider_observation(state)
        shared = decider_shared(members, context)
        logits = decider(members, shared).astype(np.float64)
        selectable, smallest, largest = legal_sizes(state)
        team = sample_subset(logits, selectable, smallest=smallest, largest=largest, rng=rng)
        steps.append(
            {
                "step": np.full(len(team), len(steps)),
                "episode": np.flatnonzero(running),
                "members": members,
                "shared": shared,
                "selectable": selectable,
                "legal_sizes": size_mask(smallest, largest, num_sizes),
                "teams": team,
                "log_probs": subset_log_prob(logits, selectable, team, smallest=smallest, largest=largest),
                "states": joint_state(state, *env.scores(running), shared=shared),
            }
        )
        teams = np.zeros((num_episodes, members.shape[1]), dtype=bool)
        teams[running] = team
        rewards.append(env.ask(teams))
        active.append(running)
    state = env.state()
    shared = decider_shared(*decider_observation(state))
    observed, exists = fusion_observation(state)
    pooled = fusion_shared(observed, exists)
    # Few of the places for candidates are taken: these come first, and the rest is left out.
    places = np.argsort(~exists, axis=1, kind="stable")[:, : exists.sum(axis=1).max()]
    candidates = np.take_along_axis(observed, places[:, :, None], axis=1)
    exists = np.take_along_axis(exists, places, axis=1)
    chosen, chosen_log_probs = draw_choice(FUSION_SHARPNESS * fusion(candidates, pooled, exists), rng)
    rewards.append(env.fuse(state, places[np.arange(num_episodes), chosen]))
    active.append(np.ones(num_episodes, dtype=bool))
    parts = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    last = joint_state(state, *env.scores(), shared=shared, fusion=pooled)
    parts["states"] = np.concatenate([parts["states"], last])
    return Rollout(
        **parts,
        candidates=candidates,
        candidates_shared=pooled,
        exists=exists,
        places=places,
        chosen=chosen,
        chosen_log_probs=chosen_log_probs,
        rewards=np.stack(rewards),
        active=np.stack(active),
    )


# ---- updates


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _normalised(values: Floats, chosen: Bools) -> Floats:
    """Bring the chosen values to mean 0 and standard deviation 1."""
    part = values[chosen]
    return np.where(chosen, (values - part.mean()) / (part.std() + 1e-8), 0.0)


def _shuffled_parts(tensors: Sequence[Tensor], num_parts: int, rng: np.random.Generator) -> Iterator[list[Tensor]]:
    """Shuffle rows alike in all tensors, and divide them."""
    for rows in np.array_split(rng.permutation(len(tensors[0])), num_parts):
        yield [tensor.index_select(0, torch.from_numpy(rows)) for tensor in tensors]


def update(
    actors: Actors,
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: TrainingConfig,
    *,
    entropy_coef: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Take the clipped steps of one rollout.

    Every minibatch holds a share of the Decider's decisions, of Fusion's, and of the states that the critic saw. Advantages
    are normalised for each actor by itself.

    Returns:
        The metrics of `metrics.FORMULAS` that updates have; `approx_kl` is how far the last pass moved the policy.
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
    of_decider = ("members", "shared", "selectable", "teams", "legal_sizes", "log_probs")
    of_fusion = ("candidates", "candidates_shared", "exists", "chosen", "chosen_log_probs")
    decisions = (*(_tensor(getattr(rollout, name)) for name in of_decider), advantage[:n])
    fusions = (*(_tensor(getattr(rollout, name)) for name in of_fusion), advantage[n:])
    num_parts = min(config.num_minibatches, b)

    measured: dict[str, float] = {}
    for passes in range(1, config.num_epochs + 1):
        moved: list[dict[str, float]] = []
        shares = (
            _shuffled_parts(tensors, num_parts, rng) for tensors in (decisions, fusions, (states, old_values, target))
        )
        for decision, fusion, state in zip(*shares, strict=True):
            members, shared, selectable, teams, sizes, old_teams, gain = decision
            candidates, pooled, exists, chosen, old_chosen, fusion_gain = fusion
            seen, old_seen, seen_target = state
            decided, entropy = subset_log_prob_and_entropy(actors.decider(members, shared), selectable, teams, sizes)
            choice = torch.log_softmax(FUSION_SHARPNESS * actors.fusion(candidates, pooled, exists), dim=-1)
            fused = choice.gather(1, chosen[:, None]).squeeze(1)
            choice_entropy = -(choice.exp() * choice.clamp(min=-1e3)).sum(-1)
            policy_loss = clipped_surrogate(
                decided, old_teams, gain, clip_epsilon=config.clip_epsilon
            ) + clipped_surrogate(fused, old_chosen, fusion_gain, clip_epsilon=config.clip_epsilon)
            value_loss = clipped_value_loss(critic(seen), old_seen, seen_target, clip_epsilon=config.clip_epsilon)
            loss = (
                policy_loss + config.value_coef * value_loss - entropy_coef * (entropy.mean() + choice_entropy.mean())
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares it without types
            nn.utils.clip_grad_norm_(actors.parameters(), config.max_grad_norm)
            nn.utils.clip_grad_norm_(critic.parameters(), config.max_grad_norm)
            optimizer.step()
            with torch.no_grad():
                change = torch.cat([decided - old_teams, fused - old_chosen])
                moved.append(
                    {
                        "approx_kl": float(approximate_kl(decided, old_teams) + approximate_kl(fused, old_chosen)),
                        "clip_fraction": float((change.expm1().abs() > config.clip_epsilon).double().mean()),
                        "entropy": float(entropy.mean()),
                        "fusion_entropy": float(choice_entropy.mean()),
                        "policy_loss": float(policy_loss),
                        "value_loss": float(value_loss),
                    }
                )
        measured = {name: float(np.mean([one[name] for one in moved])) for name in moved[0]} | {"passes": float(passes)}
        if measured["approx_kl"] > config.target_kl:
            break
    explained = explained_variance(old_values.numpy().astype(np.float64), rollout.by_decision(returns))
    return measured if explained is None else {**measured, "explained_variance": explained}


class Learner:
    """Both actors, the critic and their optimizer, which learn one iteration after the other.

    Args:
        config: Hyperparameters.

    Attributes:
        actors: The actors.
        critic: The critic.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays its own
            torch.manual_seed(config.seed)
            self.actors = Actors(decider_hidden=config.decider_hidden, fusion_hidden=config.fusion_hidden)
            self.critic = Critic(STATE_DIM, config.critic_hidden)
        self._optimizer = torch.optim.Adam(
            [
                {"params": [*self.actors.decider.parameters(), *self.critic.parameters()]},
                {"params": [*self.actors.fusion.parameters()]},
            ],
            eps=1e-5,
            fused=True,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Copy all weights out, by name: those of the actors, and the critic's as `critic.…`."""
        critic = {f"critic.{name}": tensor.numpy().copy() for name, tensor in self.critic.state_dict().items()}
        return {**self.actors.arrays(), **critic}

    def start_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take these weights, where they are those of networks of the same widths."""
        own = self.arrays()
        if {name: array.shape for name, array in arrays.items()} != {name: array.shape for name, array in own.items()}:
            return
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        critic = {name.removeprefix("critic."): part for name, part in tensors.items() if name.startswith("critic.")}
        self.actors.load_state_dict({name: part for name, part in tensors.items() if not name.startswith("critic.")})
        self.critic.load_state_dict(critic)

    def learn(
        self, env: EnsembleEnv, num_queries: int, *, step: int, rng: np.random.Generator
    ) -> tuple[Rollout, dict[str, float]]:
        """Play a batch of episodes on the first queries of an environment, and take the steps; see `update`."""
        config = self._config
        left = 1.0 - 0.9 * (step - 1) / config.num_iterations
        for group, rate in zip(
            self._optimizer.param_groups, (config.learning_rate, config.fusion_learning_rate), strict=True
        ):
            group["lr"] = rate * left
        rollout = roll_out(
            env,
            self.actors.arrays(),
            rng.integers(num_queries, size=config.batch_size),
            draw_cost_weights(config.batch_size, rng),
            rng=rng,
        )
        entropy_coef = config.entropy_coef * left
        measured = update(
            self.actors, self.critic, self._optimizer, rollout, config, entropy_coef=entropy_coef, rng=rng
        )
        return rollout, measured


# ---- training


class TrainingInterrupted(KeyboardInterrupt):  # like the interruption that it is
    """Training was interrupted when there were weights to keep.

    Whoever does not catch it is interrupted at once, as by any `KeyboardInterrupt`.

    Attributes:
        step: Iterations done.
        best_step: The iteration of the best weights so far; 0 is the start.
    """

    def __init__(self, finish: Callable[[], RLFocalPolicy], *, step: int, best_step: int) -> None:
        super().__init__(f"Training was interrupted after {step} iterations.")
        self.finish_with_best, self.step, self.best_step = finish, step, best_step

    def finish(self) -> RLFocalPolicy:
        """Make a whole policy of the best weights so far: measure its curve, fit the baselines. This takes a while."""
        return self.finish_with_best()


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
        validation_grid: Outcomes, of other queries, on which the best weights are chosen; where these are few, on training
            rows too, as fits that did not see them show them.
        config: Hyperparameters.
        embedder: Gives the queries more features; the policy then needs the same one when serving.
        on_progress: Called after each iteration, with its metrics, and where a stage begins, without.

    Returns:
        The policy that did best on those rows over all cost weights, `config.cost_weight` among them, whose members are in
        the order of their names: the order of rows and members in the grids changes nothing. It holds the baselines, and in
        its card the rows that the grids were made of and the name of a `NamedEmbedder`.

    Raises:
        OutcomeError: There are too few rows, the grids have different members, or nothing was scored, of a single member or of
            members whose answers cannot be compared.
        InputError: `config.cost_unit` is one that the training rows do not hold.
        TrainingInterrupted: A `KeyboardInterrupt` came when there were weights to keep; it can make a policy of them.

    Warns:
        UserWarning: Something was not scored or not recorded, and there is a reason to doubt what was estimated in its place;
            see `agreement.complete`.
    """
    train_grid, validation_grid = train_grid.canonical(), validation_grid.canonical()
    if train_grid.members != validation_grid.members:
        msg = "Training and validation rows must have the same members. Make both from one table."
        raise OutcomeError(msg)
    if len(train_grid) < MIN_QUERIES or len(validation_grid) < 1:
        msg = (
            f"Training needs at least {MIN_QUERIES} queries and 1 for validation, got {len(train_grid)} and "
            f'{len(validation_grid)}. Collect more outcomes, keep queries with holes (`missing="mask"`), or name fewer members.'
        )
        raise OutcomeError(msg)
    if len(train_grid.members) == 1 and np.isnan(train_grid.scores).all() and np.isnan(validation_grid.scores).all():
        msg = (
            f"Of one member, {train_grid.members[0]}, at least one answer must be scored, got none: without scores there is only "
            "agreement to learn from, and it agrees with nobody. Score some answers, or add members."
        )
        raise OutcomeError(msg, column="reward")
    spending_in(train_grid, config.cost_unit, rows="training rows")

    def tell(stage: str, step: int = 0, metrics: Mapping[str, float] | None = None) -> None:
        if on_progress is not None:
            on_progress(Progress(stage, step, config.num_iterations, metrics or {}))

    with _on_one_thread():
        tell("labels")
        # What was not scored or not recorded is estimated from all rows together: there is no truth in it to leak.
        completion = complete(train_grid.join(validation_grid), rng=np.random.default_rng(config.seed))
        for doubt in completion.warnings:
            warnings.warn(doubt, stacklevel=2)
        facts = {"data_sha256": data_hash(train_grid, validation_grid), "labels": dict(completion.facts)}
        in_training = np.arange(len(completion.grid)) < len(train_grid)
        parts = (train_grid, validation_grid)
        if completion.facts["accuracy"] is not None:
            parts = (completion.grid.take(in_training), completion.grid.take(~in_training))
        del completion
        return _train(*parts, config, embedder, tell, facts=facts)


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Compute on one thread: small matrices are faster so, and the number of threads decides how sums are rounded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


class _Trials:
    """Plays rows at every cost weight at once, as a policy would without randomness.

    Validation rows, and where these are fewer than `TRIAL_ROWS` training rows, each as it is seen by fits that did not see it:
    a few dozen validation rows alone cannot tell how many members a cost weight leads to.

    Args:
        training: Training rows as episodes show them.
        num_training: How many of these there are, those with task labels first.
        validation: Validation rows.
        num_validation: How many of these there are.
    """

    def __init__(self, training: EnsembleEnv, num_training: int, validation: EnsembleEnv, num_validation: int) -> None:
        num = min(max(TRIAL_ROWS - num_validation, 0), num_training)
        spread = np.arange(num) * num_training // max(num, 1)
        self._parts = ((validation, np.arange(num_validation)), (training, spread))
        self.num_rows = num_validation + num

    def play(
        self,
        policy: RLFocalPolicy,
        cost_weights: Sequence[float],
        *,
        max_team: int | None = None,
        in_all_units: bool = False,
    ) -> dict[str, Floats]:
        """Play every row at each weight: `score`, `mean_calls`, `mean_spent`, and on request those of `_taken`, shape [W]."""
        parts: list[dict[str, Any]] = []
        for env, rows in self._parts:
            weights = np.repeat(cost_weights, len(rows))
            played = play(policy, env, np.tile(rows, len(cost_weights)), weights, max_team=max_team)
            shape = (len(cost_weights), len(rows))
            values: dict[str, Floats | Ints] = {
                "score": played.scores,
                "mean_calls": played.calls,
                "mean_spent": played.spent,
            }
            part = {name: array.reshape(shape) for name, array in values.items()}
            if in_all_units:
                part |= _taken(env, rows, played.asked_in.reshape(*shape, played.asked_in.shape[1]))
            parts.append(part)
        return _means(parts)

    def alone(self) -> list[dict[str, Any]]:
        """Measure what each member alone leads to."""
        members = self._parts[0][0].grid.members
        parts = []
        for env, rows in self._parts:
            asked_in = np.repeat(np.eye(len(members), dtype=np.int64)[:, None], len(rows), axis=1)
            scores = np.where(env.grid.recorded, env.grid.scores, np.nan)[rows].T
            parts.append({"score": scores, "mean_calls": np.ones_like(scores), **_taken(env, rows, asked_in)})
        means = _means(parts)
        return [
            {
                "cost_weight": CURVE_WEIGHTS[-1],
                "member": member,
                **{name: _known(values[m]) for name, values in means.items()},
            }
            for m, member in enumerate(members)
        ]

    def calibration_error(self, policy: RLFocalPolicy, cost_weight: float) -> float | None:
        """Measure how far its confidence is from its scores; None where no row was scored."""
        played = [play(policy, env, rows, np.full(len(rows), cost_weight)) for env, rows in self._parts]
        confidence, scores = (
            np.concatenate([getattr(one, name) for one in played]) for name in ("confidence", "scores")
        )
        scored = ~np.isnan(scores)
        return expected_calibration_error(confidence[scored], scores[scored]) if scored.any() else None

    def figure(self, policy: RLFocalPolicy, cost_weights: Sequence[float]) -> float:
        """Mean over cost weights of score minus what was spent: what a user of the policy gets."""
        played = self.play(policy, cost_weights)
        # Where nothing was scored, nothing is known to be right.
        return float(np.mean(np.nan_to_num(played["score"]) - np.asarray(cost_weights) * played["mean_spent"]))

    def curve(self, policy: RLFocalPolicy) -> list[dict[str, Any]]:
        """Measure what each operating point leads to: `CURVE_WEIGHTS`, the same with teams of one, and each member alone."""
        curve: list[dict[str, Any]] = []
        for facts in ({}, {"max_team": 1}):
            played = self.play(policy, CURVE_WEIGHTS, in_all_units=True, **facts)
            curve += [
                {"cost_weight": weight, **facts, **{name: _known(values[row]) for name, values in played.items()}}
                for row, weight in enumerate(CURVE_WEIGHTS)
            ]
        return [*curve, *self.alone()]


def _taken(env: EnsembleEnv, rows: Ints, asked_in: Ints) -> dict[str, Floats]:
    """Count what W ways of asking take of these rows, by the names of a curve; what is not known of a call is its member's mean.

    Args:
        env: Holds the outcomes.
        rows: Rows of its grid, N of them.
        asked_in: Round in which each member was asked, 0 if it was not, shape [W, N, M].

    Returns:
        Shape [W, N] each; NaN where nothing is known of some member.
    """
    units: tuple[CostUnit, ...] = ("usd", "tokens")
    costs = {f"mean_{unit}": costs_of(env.grid, unit) for unit in units} | {"mean_seconds": env.grid.latency_s}
    taken: dict[str, Floats] = {}
    for name, values in costs.items():
        known = ~np.isnan(values)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
        filled = np.where(known, values, mean)[rows]
        if name == "mean_seconds":
            taken[name] = np.stack([critical_path(filled, one) for one in asked_in])
        else:
            taken[name] = np.stack([np.where(one > 0, filled, 0.0).sum(axis=1) for one in asked_in])
    return taken


def _means(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Average over the rows of all parts, shape [W] each.

    What was not scored says nothing, and the score is NaN where nothing was; anything else that is not known of a row is not
    known on average.
    """
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    scored = ~np.isnan(joined["score"])
    total = np.where(scored, joined["score"], 0.0).sum(axis=1)
    score = np.where(scored.any(axis=1), share(total, scored.sum(axis=1)), np.nan)
    return {name: score if name == "score" else values.mean(axis=1) for name, values in joined.items()}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def with_curve_of(policy: RLFocalPolicy, grid: OutcomeGrid) -> RLFocalPolicy:
    """Place targets of calls on other queries, say of a new task: on what members answered, whether it was scored or not.

    Where members differ more than on the training queries, a cost weight leads to more calls than the curve of training tells.

    Args:
        policy: The policy; it is not changed.
        grid: Answers of the policy's members to such queries; those that every member was asked count.

    Returns:
        The same policy with another curve in its card, by which targets are kept.

    Raises:
        PoolError: The grid has a member that the policy does not know.
        OutcomeError: No query was put to every member.
    """
    whole = grid.take(np.flatnonzero(grid.recorded.all(axis=1)))
    if not len(whole):
        raise OutcomeError(
            "`grid` must hold a query that every member was asked, got none. Collect some; no reward is needed."
        )
    config = policy.card["config"]
    env = environment_of(policy, whole, max_team=config["max_team"], max_rounds=config["max_rounds"])
    curve = _Trials(env, len(whole), env, 0).curve(policy)
    return RLFocalPolicy(replace(policy.parts, card={**policy.card, "curve": curve}), embedder=policy.embedder)


def environments(
    grid: OutcomeGrid,
    data: TrainingData,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    networks: Mapping[str, np.ndarray],
) -> list[tuple[EnsembleEnv, int]]:
    """Make what episodes are played on, each with its number of queries: the outcomes, and these as if their tasks were new."""

    def environment(
        grid: OutcomeGrid, features: MemberFeatures, evidence: Evidence, charges: Floats | None = None
    ) -> tuple[EnsembleEnv, int]:
        env = EnsembleEnv(
            grid,
            features,
            evidence,
            max_team=config.max_team,
            max_rounds=config.max_rounds,
            diversity_weight=config.diversity_weight,
            charges=charges,
        )
        return env, len(grid)

    known = environment(data.grid, data.features, data.evidence, data.charges)
    new = as_new_tasks(grid, config, embedder=embedder, rng=rng, data=data, networks=networks)
    return [known] if new is None else [known, environment(*new)]


class _Tell(Protocol):
    """Tells where training stands; see `Progress`."""

    def __call__(self, stage: str, step: int = 0, metrics: Mapping[str, float] | None = None) -> None: ...


def _train(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    embedder: Embedder | None,
    tell: _Tell,
    *,
    facts: Mapping[str, Any],
) -> RLFocalPolicy:
    rng = np.random.default_rng(config.seed)
    tell("competence and evidence")
    data = prepare(train_grid, config, embedder=embedder, rng=rng)
    learner = Learner(config)
    rule = learner.arrays()
    learner.start_from(pretrained_networks())
    envs = environments(train_grid, data, config, embedder=embedder, rng=rng, networks=learner.actors.arrays())

    def policy_now() -> RLFocalPolicy:
        weights = {**data.weights, **learner.actors.arrays()}
        parts = Parts(members=train_grid.members, weights=weights, labels=data.labels)
        return RLFocalPolicy(parts, embedder=embedder)

    best = policy_now()
    # What a policy knows and reads does not change with reinforcement.
    validation = environment_of(best, validation_grid, max_team=config.max_team, max_rounds=config.max_rounds)
    trials = _Trials(envs[0][0], len(train_grid), validation, len(validation_grid))
    cost_weights = tuple(sorted({*_CHECKED_WEIGHTS, config.cost_weight}))
    best_figure = trials.figure(best, cost_weights)
    # Where what other pools taught does worse than the rule of value of information, training starts from the rule.
    pretrained = learner.arrays()
    learner.start_from(rule)
    other = policy_now()
    if (figure := trials.figure(other, cost_weights)) >= best_figure:
        best, best_figure = other, figure
    else:
        learner.start_from(pretrained)
    # Kept as one value, so that an interruption never finds a half of it.
    kept, step, stale = (best, best_figure, 0), 0, 0

    def finish(rng: np.random.Generator, *, was_interrupted: bool) -> RLFocalPolicy:
        policy, _, best_step = kept
        tell("curve", step)
        card = _card(
            policy,
            trials,
            data=data,
            train_grid=train_grid,
            validation_grid=validation_grid,
            config=config,
            best_step=best_step,
        )
        card.update(facts)
        if was_interrupted:
            card["training"]["interrupted_after"] = step
        tell("last fit", step)
        # The networks are chosen; the validation rows can now teach the supervised models, at the penalties found.
        both = train_grid.join(validation_grid)
        refitted, labels = refit(both, config, embedder=embedder, rng=rng, facts=data.facts)
        del both
        if train_grid.rows is not None:
            card["rows"] = dict(train_grid.rows)
        if isinstance(embedder, NamedEmbedder):
            card["embedder"] = embedder.name
        tell("baselines", step)
        fitted = fit_baselines(train_grid, validation_grid, max_team=config.max_team, seed=config.seed)
        fitted |= fit_rivals(train_grid, validation_grid, max_team=config.max_team, cost_unit=config.cost_unit)
        baselines, baseline_facts = dump_baselines(fitted)
        parts = replace(
            policy.parts,
            weights={**policy.parts.weights, **refitted},
            labels=labels,
            card=card,
            baselines=baselines,
            baseline_facts=baseline_facts,
        )
        return RLFocalPolicy(parts, embedder=embedder)

    def finish_with_best() -> RLFocalPolicy:
        with _on_one_thread():
            return finish(np.random.default_rng(config.seed), was_interrupted=True)

    try:
        tell("reinforcement")
        for number in range(1, config.num_iterations + 1):
            # One in three iterations is on tasks as if they were new.
            rollout, measured = learner.learn(*envs[-1 if number % 3 == 0 else 0], step=number, rng=rng)
            metrics = {
                "reward": float(rollout.rewards.sum(axis=0).mean()),
                "calls": float(rollout.teams.sum() / config.batch_size),
                **measured,
            }
            if number % config.validate_every == 0 or number == config.num_iterations:
                policy = policy_now()
                figure = trials.figure(policy, cost_weights)
                metrics["validation"] = figure
                stale += 1
                if figure > kept[1]:
                    kept, stale = (policy, figure, number), 0
            step = number
            tell("reinforcement", step, {**metrics, "best_validation": kept[1]})
            if stale >= config.patience:
                break
        return finish(rng, was_interrupted=False)
    except KeyboardInterrupt as interruption:
        raise TrainingInterrupted(finish_with_best, step=step, best_step=kept[2]) from interruption


def _card(
    policy: RLFocalPolicy,
    trials: _Trials,
    *,
    data: TrainingData,
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    config: TrainingConfig,
    best_step: int,
) -> dict[str, Any]:
    """Collect the facts that a checkpoint carries; nothing in it depends on the clock or the machine's paths."""
    played = trials.play(policy, (config.cost_weight,))
    member_scores = dict(zip(validation_grid.members, validation_grid.scores.mean(axis=0).tolist(), strict=True))
    return {
        "config": asdict(config),
        "versions": {
            "langchain-rlfocal": __version__,
            "numpy": version("numpy"),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "training": {"queries": len(train_grid), "best_step": best_step, **data.facts},
        "validation": {
            "queries": trials.num_rows,
            "score": float(np.nan_to_num(played["score"][0])),
            "mean_calls": float(played["mean_calls"][0]),
            "calibration_error": trials.calibration_error(policy, config.cost_weight),
            "member_scores": member_scores,
            "single_best": max(member_scores, key=lambda name: member_scores[name]),
        },
        "curve": trials.curve(policy),
    }

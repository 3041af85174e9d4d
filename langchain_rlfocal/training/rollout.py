"""Rollouts: let the current actors act in the environment and write down what training needs.

Actions come from the NumPy networks and the very observations that serve; log-probabilities are those of the
distribution that drew the actions. Episodes that have stopped are not looked at again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.environment import EnsembleEnv
from langchain_rlfocal.observations import decider_observation, fusion_observation
from langchain_rlfocal.policies.base import legal_sizes
from langchain_rlfocal.policies.networks import (
    DECIDER_SHARED,
    FUSION_SHARED,
    FUSION_SHARPNESS,
    decider_logits,
    decider_shared,
    fusion_logits,
    fusion_shared,
    softmax,
)
from langchain_rlfocal.policies.subsets import sample_subset, size_mask, subset_log_prob
from langchain_rlfocal.states import Bools, Floats, Ints, State

_PRIVILEGED = 8
STATE_DIM = DECIDER_SHARED + FUSION_SHARED + _PRIVILEGED
"""S, the length of the critic's joint state."""


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
        candidates: What Fusion saw of the candidates, shape [B, K, G].
        candidates_shared: What it saw besides, shape [B, FUSION_SHARED].
        exists: Where the candidates are, shape [B, K].
        chosen: Candidates drawn, shape [B].
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
    """Draw one place per row by softmax; returns places and their log-probabilities, shape [B]."""
    probabilities = softmax(logits.astype(np.float64))
    uniform = rng.random((len(logits), 1))
    chosen = (probabilities.cumsum(axis=1) <= uniform).sum(axis=1)
    # Rounding may leave the last sum below 1: then the last place that can be chosen is meant.
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
    num_episodes, num_sizes = len(index), env.max_team + 1
    steps: list[dict[str, np.ndarray]] = []
    rewards, active = [], []
    while env.running.any():
        running = env.running
        state = env.state(running)
        members, context = decider_observation(state)
        shared = decider_shared(members, context)
        logits = decider_logits(weights, members, shared).astype(np.float64)
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
    candidates, exists = fusion_observation(state)
    pooled = fusion_shared(candidates, exists)
    chosen, chosen_log_probs = draw_choice(FUSION_SHARPNESS * fusion_logits(weights, candidates, exists), rng)
    rewards.append(env.fuse(state, chosen))
    active.append(np.ones(num_episodes, dtype=bool))
    parts = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    last = joint_state(state, *env.scores(), shared=shared, fusion=pooled)
    parts["states"] = np.concatenate([parts["states"], last])
    return Rollout(
        **parts,
        candidates=candidates,
        candidates_shared=pooled,
        exists=exists,
        chosen=chosen,
        chosen_log_probs=chosen_log_probs,
        rewards=np.stack(rewards),
        active=np.stack(active),
    )

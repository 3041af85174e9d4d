"""Rollouts: let the current actors act in the environment and write down what training needs.

Actions come from the NumPy networks and the very observations that serve; log-probabilities are those of the
distribution that drew the actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.environment import EnsembleEnv
from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    FUSION_AXES,
    MEMBER_AXES,
    Bools,
    Floats,
    Ints,
    State,
    decider_observation,
    fusion_observation,
)
from langchain_rlfocal.policies.base import legal_sizes
from langchain_rlfocal.policies.networks import (
    decider_inputs,
    decider_logits,
    fusion_inputs,
    fusion_logits,
    softmax,
)
from langchain_rlfocal.policies.subsets import sample_subset, size_mask, subset_log_prob

STATE_DIM = len(CONTEXT_AXES) + 2 * len(MEMBER_AXES) + 2 * len(FUSION_AXES) + 5
"""S, the length of the critic's joint state."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """B episodes of T - 1 rounds and one fusion step.

    Attributes:
        decider_inputs: Joined inputs of the Decider, shape [T - 1, B, M, D].
        selectable: Who could be selected, shape [T - 1, B, M].
        legal_sizes: Which team sizes were legal, shape [T - 1, B, K].
        teams: Teams drawn, shape [T - 1, B, M].
        fusion_inputs: Joined inputs of Fusion, shape [B, M, G].
        answers: Where the answers are, shape [B, M].
        chosen: Answers drawn, shape [B].
        log_probs: Log-probability of each action, shape [T, B].
        states: The critic's joint states, shape [T, B, S].
        rewards: Reward after each step, shape [T, B].
        active: Steps at which an actor had a choice to make, shape [T, B].
    """

    decider_inputs: Floats
    selectable: Bools
    legal_sizes: Bools
    teams: Bools
    fusion_inputs: Floats
    answers: Bools
    chosen: Ints
    log_probs: Floats
    states: Floats
    rewards: Floats
    active: Bools


def joint_state(
    state: State,
    scores: Floats,
    *,
    decider: tuple[Floats, Floats],
    fusion: tuple[Floats, Bools],
    fusing: bool,
) -> Floats:
    """Show the critic everything: both actors' observations, pooled, and the recorded scores that no actor sees.

    A baseline may know what the actors do not: it shifts no gradient, since it does not depend on the action.

    Args:
        state: Where the queries stand.
        scores: Recorded scores of all members, shape [B, M].
        decider: What `decider_observation` shows of them.
        fusion: What `fusion_observation` shows of them.
        fusing: True before the fusion step.

    Returns:
        Joint states, shape [B, S].
    """
    (members, context), (answers, mask) = decider, fusion
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    asked = state.asked
    heard = np.where(asked, scores, 0.0)
    privileged = np.column_stack(
        [
            scores.mean(axis=1),
            scores.max(axis=1),
            heard.sum(axis=1) / np.maximum(asked.sum(axis=1), 1),
            heard.max(axis=1),
            np.full(len(scores), float(fusing)),
        ]
    )
    return np.concatenate(
        [
            context,
            members.mean(axis=1),
            members.max(axis=1),
            answers.sum(axis=1) / count,
            answers.max(axis=1),
            privileged,
        ],
        axis=1,
    )


def draw_choice(logits: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw one place per row by softmax (Gumbel's trick); returns places and their log-probabilities, shape [B]."""
    noise = rng.gumbel(size=logits.shape)
    chosen: Ints = np.argmax(logits + noise, axis=1)
    probabilities = softmax(logits)
    return chosen, np.log(probabilities[np.arange(len(logits)), chosen])


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
    state = env.reset(index, cost_weight)
    num_rounds, num_sizes = state.max_rounds, state.max_team + 1
    inputs, selectables, sizes, teams, log_probs, states, rewards, active = ([] for _ in range(8))
    for _ in range(num_rounds):
        state = env.state
        seen = decider_observation(state)
        logits = decider_logits(weights, *seen)
        selectable, smallest, largest = legal_sizes(state)
        team = sample_subset(logits, selectable, smallest=smallest, largest=largest, rng=rng) & env.running[:, None]
        inputs.append(decider_inputs(*seen))
        selectables.append(selectable)
        sizes.append(size_mask(smallest, largest, num_sizes))
        teams.append(team)
        log_probs.append(subset_log_prob(logits, selectable, team, smallest=smallest, largest=largest))
        states.append(joint_state(state, env.scores, decider=seen, fusion=fusion_observation(state), fusing=False))
        active.append(env.running & (largest > 0))
        rewards.append(env.ask(team))
    state = env.state
    answers, mask = fusion_observation(state)
    chosen, choice_log_probs = draw_choice(fusion_logits(weights, answers, mask), rng)
    states.append(
        joint_state(state, env.scores, decider=decider_observation(state), fusion=(answers, mask), fusing=True)
    )
    rewards.append(env.fuse(chosen))
    return Rollout(
        decider_inputs=np.stack(inputs),
        selectable=np.stack(selectables),
        legal_sizes=np.stack(sizes),
        teams=np.stack(teams),
        fusion_inputs=fusion_inputs(answers, mask),
        answers=mask,
        chosen=chosen,
        log_probs=np.stack([*log_probs, choice_log_probs]),
        states=np.stack(states),
        rewards=np.stack(rewards),
        active=np.stack([*active, np.ones(len(index), dtype=bool)]),
    )

"""Networks, losses, advantages, rollouts and updates, each by hand and by law."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from langchain_rlfocal.environment import EnsembleEnv, environment_of
from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    DECIDER_SHARED,
    FUSION_AXES,
    FUSION_SHARED,
    MEMBER_AXES,
    decider_shared,
    fusion_shared,
)
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.learned import DeciderNetwork, FusionNetwork
from langchain_rlfocal.policies.subsets import LOGIT_BOUND, size_mask, subset_log_prob
from langchain_rlfocal.states import softmax
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.mappo import (
    FUSION_SHARPNESS,
    STATE_DIM,
    Actors,
    Critic,
    DeciderNet,
    Rollout,
    approximate_kl,
    clipped_surrogate,
    clipped_value_loss,
    draw_choice,
    gae,
    joint_state,
    roll_out,
    subset_log_prob_and_entropy,
    update,
)

# ---- The NumPy forward passes equal the torch networks, and do not care about order


seeds = st.integers(0, 2**31 - 1)


def actors_of(seed):
    torch.manual_seed(seed)
    actors = Actors(decider_hidden=8, fusion_hidden=6)
    with torch.no_grad():
        for parameter in actors.parameters():  # the initial zeros would hide a wrong path
            parameter.add_(torch.randn_like(parameter))
    return actors, {name: array.astype(np.float64) for name, array in actors.arrays().items()}


def decider_logits(weights, members, shared):
    return DeciderNetwork(weights)(members, shared)


def fusion_logits(weights, candidates, mask):
    return FusionNetwork(weights)(candidates, fusion_shared(candidates, mask), mask)


def observations(rng, q, m):
    members = rng.random((q, m, len(MEMBER_AXES)))
    context = rng.random((q, len(CONTEXT_AXES)))
    mask = rng.random((q, m)) < 0.7
    mask[:, 0] = True
    candidates = np.where(mask[:, :, None], rng.normal(size=(q, m, len(FUSION_AXES))), 0.0)
    return members, context, candidates, mask


def single(array):
    return torch.tensor(array, dtype=torch.float32)


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_numpy_equals_torch(seed, q, m):
    actors, weights = actors_of(seed)
    members, context, candidates, mask = observations(np.random.default_rng(seed), q, m)
    shared, pooled = decider_shared(members, context), fusion_shared(candidates, mask)
    with torch.no_grad():
        decider = actors.decider(single(members), single(shared)).numpy()
        fusion = torch.softmax(actors.fusion(single(candidates), single(pooled), torch.tensor(mask)), -1).numpy()
    np.testing.assert_allclose(decider_logits(weights, members, shared), decider, atol=5e-4)
    np.testing.assert_allclose(softmax(fusion_logits(weights, candidates, mask)), fusion, atol=5e-4)


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_a_joined_layer_is_a_layer_on_the_concatenation(seed, q, m):
    """relu(W [own; shared] + b), the shared part repeated for each; then the rest of both networks, written out."""
    _, w = actors_of(seed)
    members, context, candidates, mask = observations(np.random.default_rng(seed), q, m)

    def joined(own, shared, name):
        both = np.concatenate([own, np.repeat(shared[:, None], own.shape[1], axis=1)], axis=2)
        return np.maximum(both @ w[f"{name}.weight"].T + w[f"{name}.bias"], 0)

    shared = decider_shared(members, context)
    hidden = np.maximum(
        joined(members, shared, "decider.hidden1") @ w["decider.hidden2.weight"].T + w["decider.hidden2.bias"], 0
    )
    raw = (hidden @ w["decider.out.weight"].T + w["decider.out.bias"])[..., 0]
    raw += (members @ w["decider.skip.weight"].T)[..., 0]
    np.testing.assert_allclose(decider_logits(w, members, shared), 8 * np.tanh(raw / 8), atol=1e-9)
    hidden = joined(candidates, fusion_shared(candidates, mask), "fusion.hidden")
    logits = (hidden @ w["fusion.out.weight"].T + w["fusion.out.bias"])[..., 0]
    logits += (candidates @ w["fusion.vote.weight"].T + w["fusion.vote.bias"])[..., 0]
    np.testing.assert_allclose(fusion_logits(w, candidates, mask), np.where(mask, logits, -np.inf), atol=1e-9)


def test_what_members_share_is_their_mean_their_maximum_and_the_context():
    members = np.zeros((1, 2, len(MEMBER_AXES)))
    members[0, :, 0] = [0.2, 0.6]
    context = np.arange(len(CONTEXT_AXES), dtype=float)[None]
    shared = decider_shared(members, context)
    assert shared.shape == (1, DECIDER_SHARED)
    np.testing.assert_allclose(shared[0, [0, len(MEMBER_AXES)]], [0.4, 0.6])
    np.testing.assert_array_equal(shared[0, 2 * len(MEMBER_AXES) :], context[0])


def test_what_candidates_share_is_the_mean_and_maximum_of_those_that_exist():
    """Two of three exist, with -1 and -3: mean -2, maximum -1. Where none exists both are 0."""
    candidates = np.zeros((2, 3, len(FUSION_AXES)))
    candidates[0, :2, 0] = [-1, -3]
    mask = np.array([[True, True, False], [False] * 3])
    shared = fusion_shared(candidates, mask)
    assert shared.shape == (2, FUSION_SHARED)
    np.testing.assert_allclose(shared[:, [0, len(FUSION_AXES)]], [[-2, -1], [0, 0]])


@given(seeds, st.integers(1, 6), st.randoms(use_true_random=False))
def test_logits_follow_the_order_of_members(seed, m, random):
    _, weights = actors_of(seed)
    members, context, candidates, mask = observations(np.random.default_rng(seed), 2, m)
    order = list(range(m))
    random.shuffle(order)
    np.testing.assert_allclose(
        decider_logits(weights, members[:, order], decider_shared(members[:, order], context)),
        decider_logits(weights, members, decider_shared(members, context))[:, order],
        atol=1e-9,
    )
    np.testing.assert_allclose(
        softmax(fusion_logits(weights, candidates[:, order], mask[:, order])),
        softmax(fusion_logits(weights, candidates, mask))[:, order],
        atol=1e-9,
    )


@given(seeds, st.integers(1, 5))
def test_places_without_a_candidate_change_no_logit(seed, m):
    """More room for candidates than there are: three empty places behind them."""
    _, weights = actors_of(seed)
    _, _, candidates, mask = observations(np.random.default_rng(seed), 2, m)
    wider = np.concatenate([candidates, np.zeros((2, 3, len(FUSION_AXES)))], axis=1)
    wider_mask = np.concatenate([mask, np.zeros((2, 3), dtype=bool)], axis=1)
    logits = fusion_logits(weights, wider, wider_mask)
    np.testing.assert_allclose(logits[:, :m], fusion_logits(weights, candidates, mask), atol=1e-9)
    assert (logits[:, m:] == -np.inf).all()


def test_an_untrained_fusion_is_the_vote_by_evidence():
    """Its logits are the log-odds, which the axis shows over 4, and nothing else."""
    torch.manual_seed(0)
    weights = {name: array.astype(float) for name, array in Actors(decider_hidden=4, fusion_hidden=4).arrays().items()}
    candidates = np.random.default_rng(0).normal(size=(1, 2, len(FUSION_AXES)))
    candidates[0, :, [name for name, *_ in FUSION_AXES].index("evidence")] = [0.5, -0.25]
    logits = fusion_logits(weights, candidates, np.ones((1, 2), dtype=bool))
    np.testing.assert_allclose(logits, [[2.0, -1.0]])


@pytest.mark.parametrize("num_members", [1, 4, 20])
def test_an_untrained_decider_asks_who_is_next_by_net_gain_and_little_else(num_members):
    """The output layer starts at a hundredth, so it is `next`, which is drawn here too, that decides."""
    torch.manual_seed(0)
    decider = Actors(decider_hidden=16, fusion_hidden=4).decider
    members = torch.rand(5, num_members, len(MEMBER_AXES))
    following = members[:, :, [axis.name for axis in MEMBER_AXES].index("next")]
    following.copy_((following > 0.5).float())
    with torch.no_grad():
        chances = torch.sigmoid(decider(members, torch.rand(5, DECIDER_SHARED)))
    assert chances[following > 0].min() > 0.85
    assert chances[following == 0].max() < 0.15


def test_logits_are_bounded_however_large_the_weights():
    actors, weights = actors_of(0)
    members, context, _, _ = observations(np.random.default_rng(0), 3, 4)
    weights["decider.out.weight"] *= 1e6
    assert np.abs(decider_logits(weights, members, decider_shared(members, context))).max() <= LOGIT_BOUND
    with torch.no_grad():
        actors.decider.out.weight.mul_(1e6)
        assert actors.decider(torch.rand(3, 4, len(MEMBER_AXES)), torch.rand(3, DECIDER_SHARED)).abs().max() <= 8


@pytest.mark.parametrize(("num_queries", "num_members"), [(3, 2), (5, 1), (1, 4097), (3000, 2)])
def test_two_layers_and_their_gradient_are_those_of_plain_layers(num_queries, num_members):
    """Also where the rows fill more than one block of 4,096."""
    torch.manual_seed(0)
    axes = len(MEMBER_AXES)
    decider = DeciderNet(6).double()
    own, shared = (
        torch.randn(num_queries, num_members, axes).double(),
        torch.randn(num_queries, DECIDER_SHARED).double(),
    )
    both = torch.cat([own, shared[:, None].expand(-1, num_members, -1)], dim=2)
    plain = decider.out(torch.relu(decider.hidden2(torch.relu(decider.hidden1(both)))))[..., 0]
    ours, slope = decider.values(own, shared), torch.randn(num_queries, num_members).double()
    torch.testing.assert_close(ours, plain)
    parameters = [part for name, part in decider.named_parameters() if name != "skip.weight"]
    gradients = (torch.autograd.grad((values * slope).sum(), parameters) for values in (ours, plain))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_critic_is_two_layers_of_its_state():
    torch.manual_seed(0)
    critic, states = Critic(5, 4), torch.rand(3, 5)
    plain = critic.out(torch.relu(critic.hidden2(torch.relu(critic.hidden1(states)))))[:, 0]
    torch.testing.assert_close(critic(states), plain)


def test_softmax_of_nothing_is_nothing():
    np.testing.assert_array_equal(softmax(np.full((1, 3), -np.inf)), np.zeros((1, 3)))


def test_softmax_matches_hand_worked_shares_however_large_the_logits():
    np.testing.assert_allclose(softmax(1000 + np.log([[1.0, 3.0]])), [[0.25, 0.75]])
    np.testing.assert_allclose(softmax(np.array([[0.0, -np.inf]])), [[1, 0]])


# The distribution of teams.


@st.composite
def problems(draw):
    """Logits of one query, who is selectable, and which sizes are legal: at least one of them possible."""
    m = draw(st.integers(1, 5))
    logits = np.array(draw(st.lists(st.floats(-7, 7), min_size=m, max_size=m)))
    selectable = np.array(draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    largest = draw(st.integers(0, int(selectable.sum())))
    smallest = draw(st.integers(0, min(1, largest)))
    return logits, selectable, smallest, largest


def enumerated(logits, selectable, smallest, largest):
    """Every legal team and its probability."""
    members = np.flatnonzero(selectable)
    teams = [list(t) for k in range(smallest, largest + 1) for t in combinations(members, k)]
    weights = np.array([np.exp(logits[t].sum()) for t in teams])
    return teams, weights / weights.sum()


def in_torch(logits, selectable, team, smallest, largest):
    leaf = torch.tensor(logits[None], dtype=torch.float64, requires_grad=True)
    sizes = size_mask(np.array([smallest]), np.array([largest]), largest + 1)
    mask = torch.tensor(np.isin(np.arange(len(logits)), team)[None])
    return leaf, *subset_log_prob_and_entropy(leaf, torch.tensor(selectable[None]), mask, torch.tensor(sizes))


def test_two_even_members_and_no_empty_team_have_the_entropy_of_three_teams():
    """Three teams of a third each: log-probability -ln 3, entropy ln 3."""
    _, log_prob, entropy = in_torch(np.zeros(2), np.ones(2, dtype=bool), [0], 1, 2)
    np.testing.assert_allclose([log_prob.item(), entropy.item()], [-np.log(3), np.log(3)])


@given(problems())
def test_log_probabilities_and_entropy_match_enumeration(problem):
    """The entropy is -Σ P ln P over every legal team."""
    teams, probabilities = enumerated(*problem)
    logits, selectable, smallest, largest = problem
    for team, probability in zip(teams, probabilities, strict=True):
        _, log_prob, entropy = in_torch(logits, selectable, team, smallest, largest)
        np.testing.assert_allclose(log_prob.item(), np.log(probability), atol=1e-9)
        np.testing.assert_allclose(entropy.item(), -(probabilities * np.log(probabilities)).sum(), atol=1e-9)
        as_mask = np.isin(np.arange(len(logits)), team)[None]
        served = subset_log_prob(
            logits[None], selectable[None], as_mask, smallest=np.array([smallest]), largest=np.array([largest])
        )
        np.testing.assert_allclose(log_prob.item(), served[0], atol=1e-9)


@given(problems())
def test_gradients_match_finite_differences_of_the_enumeration(problem):
    """Of the log-probability of the first team and of the entropy, by every logit."""
    logits, selectable, smallest, largest = problem

    def of_enumeration(moved):
        _, probabilities = enumerated(moved, selectable, smallest, largest)
        return np.array([np.log(probabilities[0]), -(probabilities * np.log(probabilities)).sum()])

    team = enumerated(*problem)[0][0]
    leaf, log_prob, entropy = in_torch(logits, selectable, team, smallest, largest)
    gradients = np.stack(
        [torch.autograd.grad(part.sum(), leaf, retain_graph=True)[0][0].numpy() for part in (log_prob, entropy)]
    )
    step = 1e-5
    for m in range(len(logits)):
        moved = step * np.eye(len(logits))[m]
        slope = (of_enumeration(logits + moved) - of_enumeration(logits - moved)) / (2 * step)
        np.testing.assert_allclose(gradients[:, m], slope, atol=1e-6)


def test_large_teams_of_certain_members_stay_finite():
    """28 odds of e⁷ multiply to e¹⁹⁶, far beyond single precision."""
    logits = torch.full((1, 28), 7.0, requires_grad=True)
    everyone = torch.ones(1, 28, dtype=torch.bool)
    log_prob, entropy = subset_log_prob_and_entropy(logits, everyone, everyone, torch.ones(1, 29, dtype=torch.bool))
    (log_prob + entropy).sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(entropy).all()
    assert torch.isfinite(logits.grad).all()


# ---- Advantages, by hand and as laws


def test_gae_matches_a_hand_worked_rollout():
    """Three steps; right, wrong, right; values ½; γ = λ = ½; the episode terminates.

    A₂ = 1 + 0 − ½ = ½;  A₁ = 0 + ¼ − ½ + ¼·½ = −⅛;  A₀ = 1 + ¼ − ½ + ¼·(−⅛) = 23/32
    """
    rewards, values = np.array([[1.0], [0.0], [1.0]]), np.full((3, 1), 0.5)
    advantages, returns = gae(rewards, values, np.ones((3, 1), dtype=bool), gamma=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(advantages[:, 0], [23 / 32, -1 / 8, 1 / 2])
    np.testing.assert_allclose(returns, advantages + values)


def test_idle_steps_are_passed_over():
    """The second of three steps was never taken: the result is that of the other two, and 0 in between."""
    rewards, values = np.array([[0.5], [0.0], [1.0]]), np.array([[0.2], [9.0], [0.4]])
    active = np.array([[True], [False], [True]])
    with_gap, returns = gae(rewards, values, active, gamma=0.9, gae_lambda=0.8)
    without, _ = gae(rewards[[0, 2]], values[[0, 2]], active[[0, 2]], gamma=0.9, gae_lambda=0.8)
    np.testing.assert_allclose(with_gap[[0, 2]], without)
    assert with_gap[1] == 0
    assert returns[1] == 0


def test_an_episode_that_stopped_early_bootstraps_from_its_next_active_step():
    """γ = ½, λ = 1. The Decider acts once (-.1, value .4), rests a round, and Fusion earns 1 (value .6).

    A₂ = 1 - .6 = .4;  A₀ = -.1 + ½·.6 - .4 + ½·.4 = 0. The other episode, which acts in all three, stands beside it
    untouched: A₂ = .4, A₁ = 0 + ½·.6 - .2 + ½·.4 = .3, A₀ = -.1 + ½·.2 - .4 + ½·.3 = -.25.
    """
    rewards = np.array([[-0.1, -0.1], [0.0, 0.0], [1.0, 1.0]])
    values = np.array([[0.4, 0.4], [0.0, 0.2], [0.6, 0.6]])
    active = np.array([[True, True], [False, True], [True, True]])
    advantages, returns = gae(rewards, values, active, gamma=0.5, gae_lambda=1.0)
    np.testing.assert_allclose(advantages, [[0, -0.25], [0, 0.3], [0.4, 0.4]], atol=1e-12)
    np.testing.assert_allclose(returns, [[0.4, 0.15], [0, 0.5], [1, 1]], atol=1e-12)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_with_lambda_zero_an_advantage_is_one_step_s_surprise(steps, seed):
    """Aₜ = rₜ + γ vₜ₊₁ − vₜ, whatever comes later."""
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(steps, 3)), rng.normal(size=(steps, 3))
    advantages, _ = gae(rewards, values, np.ones((steps, 3), dtype=bool), gamma=0.7, gae_lambda=0.0)
    following = np.concatenate([values[1:], np.zeros((1, 3))])
    np.testing.assert_allclose(advantages, rewards + 0.7 * following - values)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_with_lambda_one_and_no_discount_an_advantage_is_what_came_minus_the_value(steps, seed):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(steps, 3)), rng.normal(size=(steps, 3))
    advantages, _ = gae(rewards, values, np.ones((steps, 3), dtype=bool), gamma=1.0, gae_lambda=1.0)
    to_come = rewards[::-1].cumsum(axis=0)[::-1]
    np.testing.assert_allclose(advantages, to_come - values)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        gae(np.zeros((3, 2)), np.zeros((4, 2)), np.ones((3, 2), dtype=bool), gamma=1.0, gae_lambda=1.0)


# ---- Losses, by hand and by gradient


@pytest.mark.parametrize(
    ("loss_of", "moved", "old", "goal", "loss", "gradient"),
    [
        # min(1.5, 1.2) = 1.2; min(−.5, −.8) = −.8: the good action went far enough, the bad one too.
        (clipped_surrogate, np.log([1.5, 0.5]), [0, 0], [1, -1], -0.2, [0, 0]),
        # The good action must come back to ratio .8, the bad one from 1.5: the gradient is full.
        (clipped_surrogate, np.log([0.5, 1.5]), [0, 0], [1, -1], 0.5, [-0.25, 0.75]),
        # At the old policy the ratio is 1 and the gradient that of log π: −A / B.
        (clipped_surrogate, [-1, -2], [-1, -2], [0.5, -3], 1.25, [-0.25, 1.5]),
        # Free error 0, clipped error (.2 − 1)² = .64.
        (clipped_value_loss, [1], [0], [1], 0.32, [0]),
        # At 1 on the way to 2 no gradient is left; at 1 with return −1 there is: 1 − (−1) = 2.
        (clipped_value_loss, [1], [0], [2], 1.62, [0]),
        (clipped_value_loss, [1], [0], [-1], 2, [2]),
        # Within the clip, half the squared error: ½ · (.01 + .09) / 2.
        (clipped_value_loss, [1.1, 0.7], [1, 0.8], [1, 1], 0.025, [0.05, -0.15]),
    ],
)
def test_losses_and_their_gradients_match_hand_worked_ones(*, loss_of, moved, old, goal, loss, gradient):
    """ε = .2."""
    moved = torch.tensor(moved, dtype=torch.float64, requires_grad=True)
    value = loss_of(moved, torch.tensor(old).double(), torch.tensor(goal).double(), clip_epsilon=0.2)
    value.backward()
    assert value.item() == pytest.approx(loss)
    np.testing.assert_allclose(moved.grad, gradient, atol=1e-12)


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=8), st.floats(0.01, 0.5))
def test_clipping_never_makes_the_surrogate_better(pairs, clip_epsilon):
    """It is a lower bound on what is gained: its loss is at least that of the plain ratio."""
    log_ratio, advantages = torch.tensor(pairs, dtype=torch.float64).T
    loss = clipped_surrogate(log_ratio, torch.zeros_like(log_ratio), advantages, clip_epsilon=clip_epsilon)
    assert loss.item() >= -(log_ratio.exp() * advantages).mean().item() - 1e-12


def test_kl_matches_a_hand_worked_number():
    """log r = ln 2: 2 − 1 − ln 2."""
    assert approximate_kl(torch.tensor([math.log(2.0)]), torch.zeros(1)).item() == pytest.approx(1 - math.log(2.0))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_kl_is_never_negative_and_zero_only_for_no_change(changes):
    moved = torch.tensor(changes, dtype=torch.float64)
    assert approximate_kl(moved, torch.zeros_like(moved)).item() >= 0
    assert approximate_kl(moved, moved).item() == 0


# ---- Rollouts: what is written down is what was done, and its probability


def make_env(answers, *, max_team=3, max_rounds=2, **more):
    """One row of `answers` per query, one per member; "yes" is right, None is silence; all cost alike."""
    members = tuple("abcd"[: len(answers[0])])
    grid = OutcomeTable.from_outcomes(
        Outcome(task="t", query_id=str(q), query=f"{q}?", model=m, answer=a, reward=float(a == "yes"))
        for q, row in enumerate(answers)
        for m, a in zip(members, row, strict=True)
    ).grid(members)
    return environment_of(PriorPolicy(members), grid, max_team=max_team, max_rounds=max_rounds, **more)


def drawn_env(seed, num_members=4, **limits):
    choices = np.array(["yes", "no", "maybe", None], dtype=object)
    return make_env(np.random.default_rng(seed).choice(choices, size=(12, num_members)).tolist(), **limits)


def weights_of(seed):
    torch.manual_seed(seed)
    actors = Actors(decider_hidden=6, fusion_hidden=5)
    with torch.no_grad():
        for parameter in actors.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return {name: array.astype(np.float64) for name, array in actors.arrays().items()}


def played(env, seed, *, num_episodes=40, weights=None):
    rng = np.random.default_rng(seed)
    index, cost_weight = rng.integers(0, 12, num_episodes), rng.random(num_episodes)
    return roll_out(env, weights or weights_of(seed), index, cost_weight, rng=rng), index, cost_weight


@settings(max_examples=20)
@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_log_probabilities_are_those_of_the_distribution_that_drew_the_teams(seed, max_team, max_rounds):
    """Recomputed from what was written down, by enumeration of every legal team."""
    env, weights = drawn_env(seed, max_team=max_team, max_rounds=max_rounds), weights_of(seed)
    rollout, _, _ = played(env, seed, num_episodes=8, weights=weights)
    logits = DeciderNetwork(weights)(rollout.members, rollout.shared)
    for n in range(len(rollout.step)):
        able, sizes = np.flatnonzero(rollout.selectable[n]), np.flatnonzero(rollout.legal_sizes[n])
        teams = [list(team) for size in sizes for team in combinations(able, size)]
        drawn = np.flatnonzero(rollout.teams[n]).tolist()
        assert drawn in teams
        total = sum(np.exp(logits[n, team].sum()) for team in teams)
        np.testing.assert_allclose(rollout.log_probs[n], logits[n, drawn].sum() - np.log(total), atol=1e-9)
    choice = FUSION_SHARPNESS * FusionNetwork(weights)(
        rollout.candidates, fusion_shared(rollout.candidates, rollout.exists), rollout.exists
    )
    shares = choice - np.log(np.exp(choice - choice.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    expected = (shares - choice.max(axis=1, keepdims=True))[np.arange(8), rollout.chosen]
    np.testing.assert_allclose(rollout.chosen_log_probs, expected, atol=1e-9)
    assert rollout.exists[np.arange(8), rollout.chosen].all()


@settings(max_examples=20)
@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_a_stopped_episode_is_not_looked_at_again(seed, max_team, max_rounds):
    """Each episode's decisions are rounds 0, 1, … without a gap; after an empty or a full team there is none."""
    env = drawn_env(seed, max_team=max_team, max_rounds=max_rounds)
    rollout, index, _ = played(env, seed)
    assert rollout.active[:-1].sum() == len(rollout.step)
    assert rollout.active[-1].all()
    assert len(rollout.rewards) == len(rollout.active) <= max_rounds + 1
    for episode in range(len(index)):
        mine = rollout.episode == episode
        teams = rollout.teams[mine]
        np.testing.assert_array_equal(rollout.step[mine], np.arange(len(teams)))
        np.testing.assert_array_equal(np.flatnonzero(rollout.active[:-1, episode]), rollout.step[mine])
        assert teams[:-1].any(axis=1).all()
        assert (teams.sum(axis=0) <= 1).all()
        assert 1 <= teams.sum() <= max_team
        assert teams[:-1].sum() < max_team or len(teams) == 1
        is_done = not teams[-1].any() or teams.sum() == max_team or len(teams) == max_rounds
        assert is_done


def test_the_environment_is_shown_running_episodes_only(monkeypatch):
    env, shown = drawn_env(1, max_team=3, max_rounds=3), []
    state = EnsembleEnv.state

    def watched(self, episodes=None):
        seen = state(self, episodes)
        shown.append(len(seen.asked))
        return seen

    monkeypatch.setattr(EnsembleEnv, "state", watched)
    rollout, index, _ = played(env, 4)
    assert shown == [*rollout.active[:-1].sum(axis=1), len(index)]
    assert shown[1] < shown[0]


@settings(max_examples=20)
@given(seeds, st.integers(1, 3))
def test_laying_out_by_step_and_undoing_it_give_the_same(seed, max_rounds):
    rollout, index, _ = played(drawn_env(seed, max_rounds=max_rounds), seed)
    values = np.random.default_rng(seed).normal(size=len(rollout.step) + len(index))
    laid_out = rollout.by_step(values)
    assert laid_out.shape == rollout.rewards.shape
    np.testing.assert_array_equal(rollout.by_decision(laid_out), values)
    assert not laid_out[~rollout.active].any()
    assert len(rollout.states) == len(values)


def test_an_episode_of_one_member_returns_its_score_less_its_charge():
    """Nothing to choose: it is asked at once, with certainty; right 1 - .2, wrong 0 - .5, silent 0 - .1."""
    env = make_env([["yes"], ["no"], [None]])
    index, cost_weight = np.arange(3), np.array([0.2, 0.5, 0.1])
    rollout = roll_out(env, weights_of(0), index, cost_weight, rng=np.random.default_rng(0))
    np.testing.assert_allclose(rollout.rewards, [[-0.2, -0.5, -0.1], [1, 0, 0]])
    np.testing.assert_allclose(rollout.rewards.sum(axis=0), [0.8, -0.5, -0.1])
    np.testing.assert_allclose(rollout.log_probs, 0, atol=1e-12)
    np.testing.assert_allclose(rollout.chosen_log_probs, 0, atol=1e-12)
    assert rollout.active.all()


@settings(max_examples=20)
@given(seeds)
def test_rewards_add_up_to_the_score_less_a_fourth_of_the_cost_weight_a_call(seed):
    answers = np.random.default_rng(seed).choice(np.array(["yes", "no", None], dtype=object), size=(12, 4))
    rollout, index, cost_weight = played(make_env(answers.tolist()), seed)
    for episode in range(len(index)):
        said = answers[index[episode]]
        team = rollout.teams[rollout.episode == episode].any(axis=0)
        first = {a: m for m, a in reversed([*enumerate(said)]) if a is not None}  # the place of each answer
        chosen = rollout.places[episode, rollout.chosen[episode]]
        score = float(any(team & (said == "yes")) and first.get("yes") == chosen)
        np.testing.assert_allclose(
            rollout.rewards[:, episode].sum(), score - cost_weight[episode] * team.sum() / 4, atol=1e-9
        )


def test_the_same_seed_plays_the_same_and_another_does_not():
    env = drawn_env(0)
    one, same = (played(env, 5, weights=weights_of(0))[0] for _ in range(2))
    for name in one.__slots__:
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes(), name
    other = roll_out(env, weights_of(0), np.zeros(40, dtype=int), np.zeros(40), rng=np.random.default_rng(6))
    assert other.teams.shape != one.teams.shape or (other.teams != one.teams).any()


def test_draws_follow_the_softmax_and_name_its_log_probabilities():
    """Odds 1 : 2 : 5, and a place that cannot be chosen: 40,000 draws within 4 standard errors."""
    logits = np.tile([0.0, -np.inf, np.log(2.0), np.log(5.0)], (40_000, 1))
    chosen, log_probs = draw_choice(logits, np.random.default_rng(0))
    expected = np.array([1, 0, 2, 5]) / 8
    shares = np.bincount(chosen, minlength=4) / len(chosen)
    assert (np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / len(chosen))).all()
    np.testing.assert_allclose(log_probs, np.log(expected[chosen]))


class Sure:
    """A source of randomness that always gives one number."""

    def __init__(self, value):
        self.value = value

    def random(self, shape):
        return np.full(shape, self.value)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1), (0.49, 1), (0.51, 3), (1.0, 3)])
def test_the_ends_of_the_unit_interval_draw_places_that_exist(value, expected):
    """Two even places, 1 and 3 of five; a 1 stands for sums that rounding leaves short of it."""
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]])
    chosen, log_probs = draw_choice(logits, Sure(value))
    assert chosen.tolist() == [expected]
    np.testing.assert_allclose(log_probs, [np.log(0.5)])


def test_the_critic_sees_recorded_scores_that_match_hand_worked_ones():
    """Scores 0, 1, 1 of members a (asked, says no), b and c; competence ½ each.

    Mean 2/3, best 1; among those not asked best 1, mean 1, by competence 1; on offer 0, believed 0.
    """
    env = make_env([["no", "yes", "yes"]])
    env.reset(np.array([0]), np.array([0.1]))
    env.ask(np.array([[True, False, False]]))
    shared, pooled = np.full((1, DECIDER_SHARED), 0.25), np.full((1, FUSION_SHARED), 0.75)
    before = joint_state(env.state(), *env.scores(), shared=shared)
    after = joint_state(env.state(), *env.scores(), shared=shared, fusion=pooled)
    assert before.shape == (1, STATE_DIM)
    np.testing.assert_allclose(before[0, -8:], [0, 2 / 3, 1, 1, 1, 1, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(after[0, -8:], [1, 2 / 3, 1, 1, 1, 1, 0, 0], rtol=1e-6)
    assert (before[0, :DECIDER_SHARED] == 0.25).all()
    assert not before[0, DECIDER_SHARED:-8].any()
    assert (after[0, DECIDER_SHARED:-8] == 0.75).all()


def test_the_critic_sees_what_is_on_offer_by_belief():
    """a says no (0), b yes (1), alike trusted: best on offer 1, believed ½. Nobody is left: 0 three times."""
    env = make_env([["no", "yes"]])
    env.reset(np.array([0]), np.array([0.1]))
    env.ask(np.array([[True, True]]))
    state = joint_state(env.state(), *env.scores(), shared=np.zeros((1, DECIDER_SHARED)))
    np.testing.assert_allclose(state[0, -7:], [0.5, 1, 0, 0, 0, 1, 0.5], rtol=1e-6)


def test_actors_see_no_score():
    """The same answers with all scores turned over: the same observations, draws and log-probabilities."""
    answers = np.random.default_rng(0).choice(["yes", "no", "maybe"], size=(12, 4)).tolist()
    rollouts = []
    for right in ("yes", "no"):
        env = make_env([["yes" if a == right else ("no" if a == "yes" else a) for a in row] for row in answers])
        rollouts.append(played(env, 3, weights=weights_of(0))[0])
    one, other = rollouts
    for name in ("members", "shared", "teams", "log_probs", "candidates", "chosen", "chosen_log_probs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.states != other.states).any()


# ---- Updates: steps worked by hand, in the direction of the better action, and an end where the policy has moved enough


ONE_STEP = {"num_epochs": 1, "num_minibatches": 1, "max_grad_norm": 100.0, "gae_lambda": 0.5}


class Constant(nn.Module):
    """Outputs its parameters, whatever it is shown, and counts how often."""

    def __init__(self, *values):
        super().__init__()
        self.values, self.num_calls = nn.Parameter(torch.tensor(values)), 0

    def forward(self, inputs, *_):
        self.num_calls += 1
        return self.values + torch.zeros(len(inputs), 1)


class BareActors(nn.Module):
    """Two members and two candidates, whose logits are the parameters themselves."""

    def __init__(self, decider=(0.0, 0.0), fusion=(0.0, 0.0)):
        super().__init__()
        self.decider, self.fusion = Constant(*decider), Constant(*fusion)


class BareCritic(Constant):
    """The same value for every state."""

    def forward(self, states):
        return super().forward(states)[:, 0]


def rollout_of(scores, *, costs=(0.0, 0.0)):
    """Two episodes: the first asked the first member and chose the first candidate, the second the second; even odds."""
    half = np.full(2, math.log(0.5))
    return Rollout(
        step=np.array([0, 0]),
        episode=np.array([0, 1]),
        members=np.zeros((2, 2, 1), dtype=np.float32),
        shared=np.zeros((2, 1), dtype=np.float32),
        selectable=np.ones((2, 2), dtype=bool),
        legal_sizes=np.array([[False, True]] * 2),
        teams=np.eye(2, dtype=bool),
        log_probs=half,
        candidates=np.zeros((2, 2, 1), dtype=np.float32),
        candidates_shared=np.zeros((2, 1), dtype=np.float32),
        exists=np.ones((2, 2), dtype=bool),
        places=np.array([[0, 1]] * 2),
        chosen=np.array([0, 1]),
        chosen_log_probs=half,
        states=np.zeros((4, 1), dtype=np.float32),
        rewards=np.array([[-cost for cost in costs], scores], dtype=np.float64),
        active=np.ones((2, 2), dtype=bool),
    )


def take(rollout, *, actors=None, critic=None, entropy_coef=0.0, rate=1.0, **changes):
    """Take the steps of plain gradient descent; return logits, value and the metrics that it reports."""
    actors, critic = actors or BareActors(), critic or BareCritic(0.0)
    optimizer = torch.optim.SGD([*actors.parameters(), *critic.parameters()], lr=rate)
    metrics = update(
        actors,
        critic,
        optimizer,
        rollout,
        TrainingConfig(**{**ONE_STEP, **changes}),
        entropy_coef=entropy_coef,
        rng=np.random.default_rng(0),
    )
    logits = [actor.values.detach().numpy() for actor in (actors.decider, actors.fusion)]
    return *logits, float(critic.values.detach()[0]), metrics


def test_a_step_matches_one_worked_by_hand():
    """Scores 1 and 0, even odds. Normalised advantages are 1 and −1 for either actor.

    The Decider's loss is −½ (ln p₀ − ln p₁) = −½ (ℓ₀ − ℓ₁): one step of size 1 takes the logits to ½ and −½. Fusion's
    logits count fourfold: to 2 and −2. With λ = ½ the returns are ½, 0 and 1, 0, so the value's loss is
    ½ · ¼ Σ (v − R)², its slope at 0 −⅜, and half of that is taken: 3/16. Nothing has moved before the step: KL is 0, and so are
    the clipped share and both policy losses, −mean(A). The value's loss is ½ (¼ + 0 + 1 + 0)/4, and values that are all 0 explain
    nothing. Even odds of two have ln 2 of entropy.
    """
    decider, fusion, value, metrics = take(rollout_of([1.0, 0.0]))
    np.testing.assert_allclose(decider, [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [2.0, -2.0], atol=1e-6)
    assert value == pytest.approx(3 / 16)
    assert metrics == pytest.approx(
        {
            "approx_kl": 0.0,
            "clip_fraction": 0.0,
            "entropy": math.log(2),
            "fusion_entropy": math.log(2),
            "policy_loss": 0.0,
            "value_loss": 5 / 32,
            "passes": 1,
            "explained_variance": 0.0,
        },
        abs=1e-6,
    )


def test_the_decider_alone_pays_for_its_calls():
    """Scores are equal, but the first call costs: Fusion learns nothing, the Decider to avoid the first member."""
    decider, fusion, _, _ = take(rollout_of([1.0, 1.0], costs=(0.3, 0.0)))
    np.testing.assert_allclose(decider, [-0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [0.0, 0.0], atol=1e-6)


def test_the_entropy_bonus_evens_the_odds():
    """Nothing to learn from equal rewards: only the bonus is left, and it makes unequal logits more alike."""
    uneven = {"decider": (1.0, 0.0), "fusion": (0.25, 0.0)}
    decider, fusion, _, _ = take(rollout_of([1.0, 1.0]), actors=BareActors(**uneven), entropy_coef=0.5, rate=0.1)
    assert 0 < decider[0] - decider[1] < 1.0
    assert 0 < fusion[0] - fusion[1] < 0.25
    decider, fusion, _, _ = take(rollout_of([1.0, 1.0]), actors=BareActors(**uneven))
    np.testing.assert_allclose([*decider, *fusion], [1.0, 0.0, 0.25, 0.0], atol=1e-6)


def test_gradients_are_scaled_to_the_norm_for_actors_and_critic_apart():
    """The actors' gradient (−½, ½, −2, 2) has norm √8.5, the critic's is 3/16: only the first exceeds 1."""
    decider, fusion, value, _ = take(rollout_of([1.0, 0.0]), max_grad_norm=1.0)
    np.testing.assert_allclose([*decider, *fusion], np.array([0.5, -0.5, 2.0, -2.0]) / math.sqrt(8.5), rtol=1e-5)
    assert value == pytest.approx(3 / 16)


def test_a_probability_that_has_left_the_clip_is_moved_no_farther():
    """After the first step p₀ = σ(1) = .73, a ratio of 1.46 > 1.2 for the good action and .54 < .8 for the bad one.

    So all decisions of the second pass are beyond the clip, and the metrics are those of that pass.
    """
    decider, fusion, _, metrics = take(rollout_of([1.0, 0.0]), num_epochs=2, target_kl=100.0)
    np.testing.assert_allclose(decider, [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [2.0, -2.0], atol=1e-6)

    def divergence(p):  # mean of r − 1 − ln r over both actions
        return 0.5 * sum(r - 1 - math.log(r) for r in (2 * p, 2 * (1 - p)))

    sigma = [1 / (1 + math.exp(-x)) for x in (1.0, 16.0)]
    assert metrics["approx_kl"] == pytest.approx(sum(map(divergence, sigma)), rel=1e-3)
    assert (metrics["clip_fraction"], metrics["passes"]) == (1.0, 2)
    p = sigma[0]
    assert metrics["entropy"] == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))


@pytest.mark.parametrize(("target_kl", "passes"), [(1e-3, 2), (100.0, 5)])
def test_passes_end_when_the_policy_has_moved_enough(target_kl, passes):
    """The first pass moves it, the second sees that it did."""
    actors = BareActors()
    _, _, _, metrics = take(rollout_of([1.0, 0.0]), actors=actors, num_epochs=5, target_kl=target_kl)
    assert actors.decider.num_calls == actors.fusion.num_calls == passes
    assert metrics["approx_kl"] > 1e-3
    assert metrics["passes"] == passes


def test_every_decision_is_seen_once_a_pass():
    """Two minibatches of one episode each."""
    actors, critic = BareActors(), BareCritic(0.0)
    take(rollout_of([1.0, 0.0]), actors=actors, critic=critic, num_minibatches=2, rate=1e-6)
    assert actors.decider.num_calls == 2
    assert critic.num_calls == 1 + 2  # once before, for the old values


def test_one_episode_alone_gives_a_step_and_no_nan():
    whole = rollout_of([1.0, 0.0])
    alone = Rollout(
        **{name: getattr(whole, name)[:1] for name in whole.__slots__ if name not in {"rewards", "active", "states"}},
        rewards=whole.rewards[:, :1],
        active=whole.active[:, :1],
        states=whole.states[:2],
    )
    decider, fusion, value, metrics = take(alone, num_minibatches=4)
    assert np.isfinite([*decider, *fusion, value, *metrics.values()]).all()

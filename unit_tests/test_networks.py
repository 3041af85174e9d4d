"""The NumPy forward passes equal the torch networks, and do not care about order."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    DECIDER_SHARED,
    FUSION_AXES,
    FUSION_SHARED,
    MEMBER_AXES,
    decider_shared,
    fusion_shared,
)
from langchain_rlfocal.policies.learned import DeciderNetwork, FusionNetwork
from langchain_rlfocal.policies.subsets import LOGIT_BOUND, size_mask, subset_log_prob
from langchain_rlfocal.states import softmax
from langchain_rlfocal.training.mappo import Actors, Critic, subset_log_prob_and_entropy

seeds = st.integers(0, 2**31 - 1)


def actors_of(seed):
    torch.manual_seed(seed)
    actors = Actors(decider_hidden=8, fusion_hidden=6, num_members=4)
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
    weights = {
        name: array.astype(float)
        for name, array in Actors(decider_hidden=4, fusion_hidden=4, num_members=2).arrays().items()
    }
    candidates = np.random.default_rng(0).normal(size=(1, 2, len(FUSION_AXES)))
    candidates[0, :, [name for name, *_ in FUSION_AXES].index("evidence")] = [0.5, -0.25]
    logits = fusion_logits(weights, candidates, np.ones((1, 2), dtype=bool))
    np.testing.assert_allclose(logits, [[2.0, -1.0]])


@pytest.mark.parametrize(("num_members", "chance"), [(1, 1 / 2), (4, 1 / 2), (8, 1 / 4), (20, 1 / 10)])
def test_an_untrained_decider_asks_about_two(num_members, chance):
    """Each of M members with chance 2/M, at most ½; the output layer starts at a hundredth, so whoever it is."""
    torch.manual_seed(0)
    decider = Actors(decider_hidden=16, fusion_hidden=4, num_members=num_members).decider
    with torch.no_grad():
        logits = decider(torch.rand(5, num_members, len(MEMBER_AXES)), torch.rand(5, DECIDER_SHARED))
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), chance, atol=0.02)


def test_logits_are_bounded_however_large_the_weights():
    actors, weights = actors_of(0)
    members, context, _, _ = observations(np.random.default_rng(0), 3, 4)
    weights["decider.out.weight"] *= 1e6
    assert np.abs(decider_logits(weights, members, decider_shared(members, context))).max() <= LOGIT_BOUND
    with torch.no_grad():
        actors.decider.out.weight.mul_(1e6)
        assert actors.decider(torch.rand(3, 4, len(MEMBER_AXES)), torch.rand(3, DECIDER_SHARED)).abs().max() <= 8


def test_arrays_are_copies():
    actors, _ = actors_of(0)
    arrays = actors.arrays()
    with torch.no_grad():
        actors.decider.out.bias.add_(1.0)
    assert arrays["decider.out.bias"][0] != actors.decider.out.bias.item()


def test_three_thousand_candidates_are_weighed_in_one_pass():
    _, weights = actors_of(0)
    rng = np.random.default_rng(0)
    members, context, candidates, _ = observations(rng, 2, 3000)
    shares = softmax(fusion_logits(weights, candidates, np.ones((2, 3000), dtype=bool)))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert decider_logits(weights, members, decider_shared(members, context)).size == 2 * 3000


def test_the_critic_gives_one_value_for_each_state():
    torch.manual_seed(0)
    assert Critic(5, 4)(torch.rand(3, 2, 5)).shape == (3, 2)


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
    sizes = size_mask(np.array([smallest]), np.array([largest]), len(logits) + 1)
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

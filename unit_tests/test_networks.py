"""The NumPy forward passes equal the torch networks, and do not care about order."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.policies.networks import (
    decider_inputs,
    decider_logits,
    fusion_inputs,
    fusion_logits,
    softmax,
)
from langchain_rlfocal.policies.subsets import size_mask, subset_log_prob, subset_marginals
from langchain_rlfocal.training.networks import Actors, subset_log_prob_and_entropy

seeds = st.integers(0, 2**31 - 1)


def actors_of(seed):
    torch.manual_seed(seed)
    actors = Actors(decider_hidden=8, fusion_hidden=6)
    with torch.no_grad():
        for parameter in actors.parameters():  # the initial zeros would hide a wrong path
            parameter.add_(torch.randn_like(parameter))
    return actors, {name: array.astype(np.float64) for name, array in actors.arrays().items()}


def observations(rng, q, m):
    members = rng.random((q, m, len(MEMBER_AXES)))
    context = rng.random((q, len(CONTEXT_AXES)))
    mask = rng.random((q, m)) < 0.7
    mask[:, 0] = True
    answers = np.where(mask[:, :, None], rng.normal(size=(q, m, len(FUSION_AXES))), 0.0)
    return members, context, answers, mask


@given(seeds, st.integers(1, 5), st.integers(1, 6))
def test_numpy_equals_torch(seed, q, m):
    actors, weights = actors_of(seed)
    members, context, answers, mask = observations(np.random.default_rng(seed), q, m)
    with torch.no_grad():
        decider = actors.decider(torch.tensor(decider_inputs(members, context), dtype=torch.float32)).numpy()
        fusion = torch.softmax(
            actors.fusion(torch.tensor(fusion_inputs(answers, mask), dtype=torch.float32), torch.tensor(mask)), -1
        ).numpy()
    np.testing.assert_allclose(decider_logits(weights, members, context), decider, atol=2e-4)
    np.testing.assert_allclose(softmax(fusion_logits(weights, answers, mask)), fusion, atol=2e-4)


@given(seeds, st.integers(1, 6), st.randoms(use_true_random=False))
def test_logits_follow_the_order_of_members(seed, m, random):
    _, weights = actors_of(seed)
    members, context, answers, mask = observations(np.random.default_rng(seed), 2, m)
    order = list(range(m))
    random.shuffle(order)
    np.testing.assert_allclose(
        decider_logits(weights, members[:, order], context), decider_logits(weights, members, context)[:, order]
    )
    np.testing.assert_allclose(
        softmax(fusion_logits(weights, answers[:, order], mask[:, order])),
        softmax(fusion_logits(weights, answers, mask))[:, order],
        atol=1e-12,
    )


def test_an_untrained_fusion_is_the_log_odds_vote():
    """Each answer's logit is its summed log-odds plus one per supporter, and nothing else."""
    torch.manual_seed(0)
    weights = {name: a.astype(float) for name, a in Actors(decider_hidden=4, fusion_hidden=4).arrays().items()}
    names = [name for name, _ in FUSION_AXES]
    answers = np.zeros((1, 2, len(names)))
    answers[0, :, names.index("log_odds")] = [0.5, -0.25]
    answers[0, :, names.index("support")] = [0.5, 0.25]
    logits = fusion_logits(weights, answers, np.ones((1, 2), dtype=bool))
    np.testing.assert_allclose(logits, [[4 * 0.5 + 2, 4 * -0.25 + 1]])


@given(seeds, st.integers(1, 5))
def test_torch_s_distribution_of_teams_equals_numpy_s(seed, m):
    """Log-probability as in NumPy; entropy as -Σ P log P, by H = log Z - Σ marginal x logit."""
    rng = np.random.default_rng(seed)
    logits, selectable = rng.normal(size=(3, m)), rng.random((3, m)) < 0.8
    selectable[:, 0] = True
    team = np.zeros((3, m), dtype=bool)
    team[:, 0] = True
    smallest, largest = np.array([1, 0, 1]), np.array([1, m, m])
    log_prob, entropy = subset_log_prob_and_entropy(
        torch.tensor(logits),
        torch.tensor(selectable),
        torch.tensor(team),
        torch.tensor(size_mask(smallest, largest, m + 1)),
    )
    expected = subset_log_prob(logits, selectable, team, smallest=smallest, largest=largest)
    np.testing.assert_allclose(log_prob.numpy(), expected, rtol=1e-5, atol=1e-6)
    marginals = subset_marginals(logits, selectable, smallest=smallest, largest=largest)
    log_total = np.where(team, logits, 0).sum(axis=1) - expected
    np.testing.assert_allclose(entropy.numpy(), log_total - (marginals * logits).sum(axis=1), atol=1e-5)


def test_large_teams_of_certain_members_stay_finite():
    """28 odds of e⁷ multiply to e¹⁹⁶, far beyond single precision."""
    logits = torch.full((1, 28), 7.0, requires_grad=True)
    everyone = torch.ones(1, 28, dtype=torch.bool)
    log_prob, entropy = subset_log_prob_and_entropy(logits, everyone, everyone, torch.ones(1, 29, dtype=torch.bool))
    (log_prob + entropy).sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(entropy).all()
    assert torch.isfinite(logits.grad).all()


def test_softmax_of_nothing_is_nothing():
    np.testing.assert_array_equal(softmax(np.full((1, 3), -np.inf)), np.zeros((1, 3)))

"""Losses, by hand and by gradient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.training.mappo import approximate_kl, clipped_surrogate, clipped_value_loss


def test_surrogate_matches_hand_worked_numbers():
    """ε = .2. Ratios 1.5 and .5, advantages 1 and −1: min(1.5, 1.2) = 1.2; min(−.5, −.8) = −.8; loss = −.2."""
    loss = clipped_surrogate(
        torch.log(torch.tensor([1.5, 0.5])), torch.zeros(2), torch.tensor([1.0, -1.0]), clip_epsilon=0.2
    )
    assert loss.item() == pytest.approx(-0.2)


def test_surrogate_stops_pushing_beyond_the_clip_and_still_pulls_back():
    """Ratio 1.5: no gradient for a good action (it went far enough), a full one for a bad action (it must return)."""
    for advantage, expected in ((1.0, 0.0), (-1.0, 1.5)):
        log_prob = torch.tensor([math.log(1.5)], requires_grad=True)
        clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([advantage]), clip_epsilon=0.2).backward()
        assert log_prob.grad.item() == pytest.approx(expected)


def test_at_the_old_policy_the_gradient_is_the_policy_gradient():
    """The ratio is 1 and its gradient that of log π: −A / B."""
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    clipped_surrogate(log_probs, log_probs.detach(), torch.tensor([0.5, -3.0]), clip_epsilon=0.2).backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([-0.25, 1.5]))


def test_value_loss_takes_the_worse_of_clipped_and_free():
    """Old 0, new 1, return 1, ε = .2: free error 0, clipped error (.2 − 1)² = .64; loss ½·.64 = .32."""
    loss = clipped_value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), clip_epsilon=0.2)
    assert loss.item() == pytest.approx(0.32)


def test_value_loss_stops_pushing_beyond_the_clip_and_still_pulls_back():
    """Old 0, ε = .2. At 1 on the way to 2 no gradient is left; at 1 with return -1 there is: 1 - (-1) = 2."""
    for target, expected in ((2.0, 0.0), (-1.0, 2.0)):
        value = torch.tensor([1.0], requires_grad=True)
        clipped_value_loss(value, torch.zeros(1), torch.tensor([target]), clip_epsilon=0.2).backward()
        assert value.grad.item() == pytest.approx(expected)


def test_within_the_clip_value_loss_is_half_the_squared_error():
    """Errors .1 and -.3: ½ · (.01 + .09) / 2 = .025."""
    values, old = torch.tensor([1.1, 0.7]), torch.tensor([1.0, 0.8])
    loss = clipped_value_loss(values, old, torch.ones(2), clip_epsilon=0.2)
    assert loss.item() == pytest.approx(0.025)


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

"""Advantages, by hand and as laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.training.mappo import gae


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

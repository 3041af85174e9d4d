"""Updates: steps worked by hand, in the direction of the better action, and an end where the policy has moved enough."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.mappo import Rollout, update

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
        chosen=np.array([0, 1]),
        chosen_log_probs=half,
        states=np.zeros((4, 1), dtype=np.float32),
        rewards=np.array([[-cost for cost in costs], scores], dtype=np.float64),
        active=np.ones((2, 2), dtype=bool),
    )


def take(rollout, *, actors=None, critic=None, entropy_coef=0.0, rate=1.0, **changes):
    """Take the steps of plain gradient descent; return logits, value and the divergence that it reports."""
    actors, critic = actors or BareActors(), critic or BareCritic(0.0)
    optimizer = torch.optim.SGD([*actors.parameters(), *critic.parameters()], lr=rate)
    kl = update(
        actors,
        critic,
        optimizer,
        rollout,
        TrainingConfig(**{**ONE_STEP, **changes}),
        entropy_coef=entropy_coef,
        rng=np.random.default_rng(0),
    )
    logits = [actor.values.detach().numpy() for actor in (actors.decider, actors.fusion)]
    return *logits, float(critic.values.detach()[0]), kl


def test_a_step_matches_one_worked_by_hand():
    """Scores 1 and 0, even odds. Normalised advantages are 1 and −1 for either actor.

    The Decider's loss is −½ (ln p₀ − ln p₁) = −½ (ℓ₀ − ℓ₁): one step of size 1 takes the logits to ½ and −½. Fusion's
    logits count fourfold: to 2 and −2. With λ = ½ the returns are ½, 0 and 1, 0, so the value's loss is
    ½ · ¼ Σ (v − R)², its slope at 0 −⅜, and half of that is taken: 3/16. Nothing has moved before the step: KL is 0.
    """
    decider, fusion, value, kl = take(rollout_of([1.0, 0.0]))
    np.testing.assert_allclose(decider, [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [2.0, -2.0], atol=1e-6)
    assert value == pytest.approx(3 / 16)
    assert kl == pytest.approx(0.0, abs=1e-12)


def test_the_decider_alone_pays_for_its_calls():
    """Scores are equal, but the first call costs: Fusion learns nothing, the Decider to avoid the first member."""
    decider, fusion, _, _ = take(rollout_of([1.0, 1.0], costs=(0.3, 0.0)))
    np.testing.assert_allclose(decider, [-0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [0.0, 0.0], atol=1e-6)


def test_equal_rewards_move_no_actor():
    decider, fusion, _, _ = take(rollout_of([0.7, 0.7]))
    np.testing.assert_allclose([*decider, *fusion], 0.0, atol=1e-6)


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
    """After the first step p₀ = σ(1) = .73, a ratio of 1.46 > 1.2 for the good action and .54 < .8 for the bad one."""
    decider, fusion, _, kl = take(rollout_of([1.0, 0.0]), num_epochs=2, target_kl=100.0)
    np.testing.assert_allclose(decider, [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(fusion, [2.0, -2.0], atol=1e-6)

    def divergence(p):  # mean of r − 1 − ln r over both actions
        return 0.5 * sum(r - 1 - math.log(r) for r in (2 * p, 2 * (1 - p)))

    sigma = [1 / (1 + math.exp(-x)) for x in (1.0, 16.0)]
    assert kl == pytest.approx(sum(map(divergence, sigma)), rel=1e-3)


@pytest.mark.parametrize(("target_kl", "passes"), [(1e-3, 2), (100.0, 5)])
def test_passes_end_when_the_policy_has_moved_enough(target_kl, passes):
    """The first pass moves it, the second sees that it did."""
    actors = BareActors()
    _, _, _, kl = take(rollout_of([1.0, 0.0]), actors=actors, num_epochs=5, target_kl=target_kl)
    assert actors.decider.num_calls == actors.fusion.num_calls == passes
    assert kl > 1e-3


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
    decider, fusion, value, kl = take(alone, num_minibatches=4)
    assert np.isfinite([*decider, *fusion, value, kl]).all()

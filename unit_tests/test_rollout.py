"""Rollouts: what is written down is what was done, and its probability."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import EnsembleEnv, environment_of
from langchain_rlfocal.observations import DECIDER_SHARED, FUSION_SHARED, fusion_shared
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.learned import DeciderNetwork, FusionNetwork
from langchain_rlfocal.training.mappo import FUSION_SHARPNESS, STATE_DIM, Actors, draw_choice, joint_state, roll_out

seeds = st.integers(0, 2**31 - 1)


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


def weights_of(seed, num_members=4):
    torch.manual_seed(seed)
    actors = Actors(decider_hidden=6, fusion_hidden=5, num_members=num_members)
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
    rollout, index, _ = played(env, 1)
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
    rollout = roll_out(env, weights_of(0, 1), index, cost_weight, rng=np.random.default_rng(0))
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
        score = float(any(team & (said == "yes")) and first.get("yes") == rollout.chosen[episode])
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

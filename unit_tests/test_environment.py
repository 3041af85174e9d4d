"""The environment: rewards by hand, labels kept away from decisions, and one world for learning and answering."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import EnsembleEnv, replay
from langchain_rlfocal.errors import PoolError
from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.policies.base import Descriptors
from langchain_rlfocal.policies.checkpoint import _shapes
from langchain_rlfocal.records import Candidate, Query


def make_grid(answers, gold="yes", logprobs=None):
    """One row of `answers` per query, one letter per member; None is silence."""
    return OutcomeTable.from_outcomes(
        Outcome(
            task="facts",
            query_id=str(q),
            query=f"Question {q}?",
            model=member,
            answer=answer,
            gold=gold,
            reward=float(answer == gold),
            logprob=None if logprobs is None else logprobs[q][m],
        )
        for q, row in enumerate(answers)
        for m, (member, answer) in enumerate(zip("abcd", row, strict=False))
    ).grid(tuple("abcd"[: len(answers[0])]))


def even(grid):
    q, m = grid.scores.shape
    return Descriptors(
        competence=np.full((q, m), 0.5),
        price=np.full(m, 1 / m),
        diversity=np.zeros((m, m)),
        surface=np.zeros((q, len(SURFACE_NAMES))),
    )


def learned(members, seed):
    rng = np.random.default_rng(seed)
    shapes = _shapes(len(members), {"decider": 6, "fusion": 5})
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    weights["competence.bias"] = rng.uniform(0.3, 0.7, len(members))
    weights["competence.weights"] *= 0.1
    weights["pool.price"] = rng.dirichlet(np.ones(len(members)))
    return RLFocalPolicy(members, weights)


def test_rewards_match_a_hand_worked_episode():
    """Four members at a fourth of the price each, cost weight .2: two calls cost .1, a third .05; then 1 for being right.

    On the one query, a and c are wrong, b is right: the team's focal diversity is over a's and c's failures. On each of
    them two of three fail: p(1) = 2/3, p(2) = 1/3, GD = ½; b never fails: 1. Mean 2/3, bonus .3 x 2/3.
    """
    grid = make_grid([["no", "yes", "no", "yes"]])
    env = EnsembleEnv(grid, even(grid), max_team=3, max_rounds=2, diversity_weight=0.3)
    env.reset(np.array([0]), np.array([0.2]))
    np.testing.assert_allclose(env.ask(np.array([[True, True, False, False]])), [-0.1])
    assert env.running[0]
    np.testing.assert_allclose(env.ask(np.array([[False, False, True, False]])), [-0.05])
    assert not env.running[0]
    np.testing.assert_allclose(env.fuse(np.array([1])), [1 + 0.3 * 2 / 3])


def test_a_wrong_answer_is_charged_like_a_right_one():
    grid = make_grid([["no", "yes"], ["yes", "no"]])
    env = EnsembleEnv(grid, even(grid), max_team=1, max_rounds=1)
    env.reset(np.array([0, 1]), np.array([0.2, 0.2]))
    np.testing.assert_allclose(env.ask(np.array([[True, False], [True, False]])), [-0.1, -0.1])
    np.testing.assert_allclose(env.fuse(np.array([0, 0])), [0, 1])


def test_a_stopped_episode_asks_nobody_any_more():
    grid = make_grid([["yes", "no", "no"]])
    env = EnsembleEnv(grid, even(grid), max_team=3, max_rounds=3)
    env.reset(np.array([0]), np.array([1.0]))
    env.ask(np.array([[True, False, False]]))
    env.ask(np.array([[False, False, False]]))
    assert not env.running[0]
    np.testing.assert_allclose(env.ask(np.array([[False, True, True]])), [0.0])
    np.testing.assert_array_equal(env.state.asked, [[True, False, False]])


def test_answers_appear_only_once_asked_for():
    grid = make_grid([["yes", "no"]], logprobs=[[-0.1, -0.2]])
    env = EnsembleEnv(grid, even(grid), max_team=2, max_rounds=2)
    state = env.reset(np.array([0]), np.array([0.0]))
    assert (state.answer_ids == -1).all()
    assert np.isnan(state.logprobs).all()
    env.ask(np.array([[False, True]]))
    np.testing.assert_array_equal(env.state.answer_ids, [[-1, 1]])
    np.testing.assert_allclose(env.state.logprobs, [[np.nan, -0.2]])


def test_replay_of_the_prior_matches_a_hand_worked_run():
    """Two who agree end the matter after one round; two who differ call in the third, who decides."""
    grid = make_grid([["yes", "yes", "no"], ["no", "yes", "yes"], ["yes", "no", "no"]])
    played = replay(PriorPolicy("abc"), grid, cost_weight=0.0, max_team=3, max_rounds=2)
    np.testing.assert_array_equal(played.calls, [2, 3, 3])
    np.testing.assert_array_equal(played.rounds, [1, 2, 2])
    np.testing.assert_array_equal(played.chosen, [0, 1, 1])
    np.testing.assert_allclose(played.scores, [1, 1, 0])
    np.testing.assert_allclose(played.spent, [2 / 3, 1, 1])


def test_corrupted_labels_change_no_decision():
    rng = np.random.default_rng(0)
    grid = make_grid(rng.choice(["yes", "no", "maybe"], size=(40, 4)).tolist())
    corrupted = replace(grid, scores=1 - grid.scores, golds=["?"] * len(grid))
    for policy in (PriorPolicy("abcd"), learned("abcd", 1)):
        one, other = (replay(policy, g, cost_weight=0.1, max_team=3, max_rounds=2) for g in (grid, corrupted))
        np.testing.assert_array_equal(one.asked, other.asked)
        np.testing.assert_array_equal(one.chosen, other.chosen)
        np.testing.assert_allclose(one.scores, 1 - other.scores)


def test_members_in_another_order_or_left_out_are_told_by_name():
    grid = make_grid([["yes", "yes", "no"], ["no", "yes", "yes"]])
    policy = learned("abcd", 2)
    replay(policy, grid, cost_weight=0.1, max_team=2, max_rounds=2)
    with pytest.raises(PoolError, match="unknown: c"):
        replay(learned("ab", 2), grid, cost_weight=0.1, max_team=2, max_rounds=2)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4))
def test_answering_one_by_one_equals_replaying_the_batch(seed, max_rounds, max_team):
    """The answering river, driven query by query through `select` and `fuse`, decides exactly as `replay` does."""
    rng = np.random.default_rng(seed)
    choices = np.array(["yes", "no", "maybe", None], dtype=object)
    grid = make_grid(rng.choice(choices, size=(5, 4)).tolist(), logprobs=(-rng.random((5, 4))).tolist())
    for policy in (PriorPolicy("abcd", {"b": 0.7}), learned("abcd", seed)):
        played = replay(policy, grid, cost_weight=0.1, max_team=max_team, max_rounds=max_rounds)
        for q in range(len(grid)):
            query, candidates = Query(grid.queries[q], grid.tasks[q]), []
            for round_number in range(1, max_rounds + 1):
                selection = policy.select(
                    query,
                    candidates,
                    [],
                    available="abcd",
                    round_number=round_number,
                    max_rounds=max_rounds,
                    max_team=max_team,
                    cost_weight=0.1,
                )
                candidates += [
                    Candidate(
                        member=name,
                        round=round_number,
                        text="",
                        answer=grid.answers[q, "abcd".index(name)],
                        latency_s=0.0,
                        logprob=grid.logprobs[q, "abcd".index(name)],
                    )
                    for name in selection.members
                ]
                if not selection.members:
                    break
            assert {c.member for c in candidates} == {"abcd"[m] for m in np.flatnonzero(played.asked[q])}
            assert policy.fuse(query, candidates, [], max_team=max_team).member == "abcd"[played.chosen[q]]


def test_hidden_tasks_change_no_decision_and_shown_ones_may():
    """The policy's competence depends on the task's features, so labels that it sees can move its choice."""
    rng = np.random.default_rng(0)
    grid = make_grid(rng.choice(["yes", "no", "maybe"], size=(60, 4)).tolist())
    corrupted = replace(grid, tasks=[f"other/{q}" for q in range(len(grid))])
    policy, limits = learned("abcd", 1), {"cost_weight": 0.1, "max_team": 3, "max_rounds": 2}

    hidden = [replay(policy, g, **limits, hide_tasks=True) for g in (grid, corrupted)]
    shown = [replay(policy, g, **limits) for g in (grid, corrupted)]

    np.testing.assert_array_equal(hidden[0].asked, hidden[1].asked)
    np.testing.assert_array_equal(hidden[0].chosen, hidden[1].chosen)
    assert (shown[0].asked != shown[1].asked).any() or (shown[0].chosen != shown[1].chosen).any()

"""The environment: recorded outcomes, replayed, and the policies that act in it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import (
    EnsembleEnv,
    answers_of,
    candidate_scores,
    environment_of,
    play,
    replay,
)
from langchain_rlfocal.errors import PoolError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.observations import decider_observation, fusion_observation
from langchain_rlfocal.outcomes import costs_of, prices_of
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.policies.base import winners
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.records import Candidate, Query
from langchain_rlfocal.states import Evidence, MemberFeatures

# ---- The environment: rewards, episodes, options and costs by hand


nan = np.nan


def even(grid, price=None):
    q, m = grid.scores.shape
    return MemberFeatures(
        competence=np.full((q, m), 0.5),
        trust=np.ones((q, m)),
        option_weights=np.zeros((q, m)),
        price=np.full(m, 1 / m) if price is None else np.array(price),
        diversity=np.zeros((m, m)),
        novelty=np.zeros(q),
        coincidence=np.ones(q),
    )


def env_of(grid, *, known=None, **limits):
    known = known or even(grid)
    answers = answers_of(grid)
    scored = None if answers.option_scores is None else 0 * answers.option_scores
    evidence = Evidence(answers.candidate_index, known.trust, np.zeros(answers.labels.shape), scored, None)
    return EnsembleEnv(grid, known, evidence, **limits)


def mask(*names, members="abcd"):
    return np.array([[member in name for member in members] for name in names])


# Rewards.


def test_rewards_match_a_hand_worked_episode(make_grid):
    """Four members at a fourth of the price each, cost weight .2: two calls cost .1, a third .05; then 1 for being right.

    On the one query, a and c are wrong, b is right: the team's focal diversity is over a's and c's failures. On each of
    them two of three fail: p(1) = 2/3, p(2) = 1/3, GD = ½; b never fails: 1. Mean 2/3, bonus .3 x 2/3.
    """
    env = env_of(make_grid([["no", "yes", "no", "yes"]]), max_team=3, max_rounds=2, diversity_weight=0.3)
    env.reset(np.array([0]), np.array([0.2]))
    np.testing.assert_allclose(env.ask(mask("ab")), [-0.1])
    assert env.running[0]
    assert env.round_number == 2
    np.testing.assert_allclose(env.ask(mask("c")), [-0.05])
    assert not env.running[0]
    state = env.state()
    np.testing.assert_allclose(env.fuse(state, np.array([1])), [1 + 0.3 * 2 / 3])
    np.testing.assert_allclose(env.fuse(state, np.array([0])), [0.3 * 2 / 3])
    np.testing.assert_allclose(env.scores_of(state, np.array([1])), [1])


def test_a_team_of_one_has_no_diversity(make_grid):
    """With b, who never fails, a fails alone: diversity 1, bonus .3."""
    env = env_of(make_grid([["no", "yes"]]), max_team=2, max_rounds=1, diversity_weight=0.3)
    env.reset(np.array([0, 0]), np.zeros(2))
    env.ask(mask("b", "ab", members="ab"))
    np.testing.assert_allclose(env.fuse(env.state(), np.array([1, 1])), [1, 1 + 0.3])


@pytest.mark.parametrize(
    ("answers", "charges", "cost_weight", "expected"),
    [
        (["no", "yes"], [0.1, 0.6], 0.5, -0.35),
        (["yes", "no"], [0.1, 0.6], 0.5, -0.35),  # right or wrong
        (["no", "yes"], None, 0.5, -0.5),  # prices of ¼ and ¾
        (["no", "yes"], None, 0.0, 0.0),
    ],
)
def test_known_costs_are_charged_and_without_them_prices(make_grid, answers, charges, cost_weight, expected):
    grid = make_grid([answers])
    charges = None if charges is None else np.array([charges])
    env = env_of(grid, known=even(grid, [0.25, 0.75]), max_team=2, max_rounds=1, charges=charges)
    env.reset(np.array([0]), np.array([cost_weight]))
    np.testing.assert_allclose(env.ask(mask("ab", members="ab")), [expected])


def test_where_one_answer_was_scored_differently_the_most_competent_member_s_counts(make_grid):
    """Both say yes; a (.4) earned 0, b (.6) 1. b's answer is returned."""
    grid = replace(make_grid([["yes", "yes"]]), scores=np.array([[0.0, 1.0]]))
    known = replace(even(grid), competence=np.array([[0.4, 0.6]]))
    env = env_of(grid, known=known, max_team=2, max_rounds=1)
    env.reset(np.array([0]), np.array([0.0]))
    env.ask(mask("ab", members="ab"))
    np.testing.assert_array_equal(env.fuse(env.state(), np.array([0])), [1])


def test_a_silence_that_is_returned_earns_what_silence_earned(make_grid):
    env = env_of(make_grid([[None, "yes"]]), max_team=1, max_rounds=1)
    env.reset(np.array([0]), np.array([0.0]))
    env.ask(mask("a", members="ab"))
    np.testing.assert_array_equal(env.fuse(env.state(), np.array([0])), [0])


# Episodes.


def test_a_stopped_episode_asks_nobody_any_more(make_grid):
    env = env_of(make_grid([["yes", "no", "no"]]), max_team=3, max_rounds=3)
    env.reset(np.array([0]), np.array([1.0]))
    env.ask(mask("a", members="abc"))
    env.ask(mask("", members="abc"))
    assert not env.running[0]
    np.testing.assert_allclose(env.ask(mask("bc", members="abc")), [0.0])
    np.testing.assert_array_equal(env.asked, mask("a", members="abc"))


def test_asking_again_costs_nothing_and_is_no_progress(make_grid):
    env = env_of(make_grid([["yes", "no"]]), max_team=2, max_rounds=3)
    env.reset(np.array([0]), np.array([1.0]))
    env.ask(mask("a", members="ab"))
    np.testing.assert_array_equal(env.ask(mask("a", members="ab")), [0])
    assert not env.running[0]


def test_a_full_team_ends_its_episode_and_the_last_round_ends_all(make_grid):
    """Team of two at most, in two rounds: who asks two is done; the other has a second round and no third."""
    env = env_of(make_grid([["yes", "no", "no"]] * 2), max_team=2, max_rounds=2)
    env.reset(np.array([0, 1]), np.zeros(2))
    env.ask(mask("ab", "a", members="abc"))
    np.testing.assert_array_equal(env.running, [False, True])
    assert len(env.state(env.running).asked) == 1
    env.ask(mask("", "b", members="abc"))
    assert not env.running.any()
    assert env.round_number == 2


def test_no_team_is_larger_than_the_pool(make_grid):
    assert env_of(make_grid([["yes", "no"]]), max_team=9, max_rounds=1).max_team == 2


def test_answers_appear_only_once_asked_for(make_grid):
    env = env_of(make_grid([["yes", "no"]]), max_team=2, max_rounds=2)
    env.reset(np.array([0]), np.array([0.0]))
    assert (env.state().candidate_index == -1).all()
    env.ask(mask("b", members="ab"))
    np.testing.assert_array_equal(env.state().candidate_index, [[-1, 1]])


def test_a_query_may_be_played_twice_at_once(make_grid):
    env = env_of(make_grid([["yes", "no"], ["no", "yes"]]), max_team=1, max_rounds=1)
    env.reset(np.array([1, 1, 0]), np.zeros(3))
    env.ask(mask("a", "b", "a", members="ab"))
    np.testing.assert_array_equal(env.fuse(env.state(), np.array([0, 1, 0])), [0, 1, 1])
    np.testing.assert_array_equal(env.scores(np.array([True, False, True]))[0], [[0, 1], [1, 0]])


# Options.


def test_options_stand_behind_the_members_whoever_gives_them(option_grid):
    """Places 2, 3, 4 are A, B, C in every query; members are moved there, their own places stay empty."""
    answers = answers_of(option_grid)
    np.testing.assert_array_equal(answers.candidate_index, [[2, 3], [2, 4], [2, 3]])
    assert answers.labels[:, 2:].tolist() == [["A", "B", "C"]] * 3
    np.testing.assert_array_equal(answers.option_scores[0], [[nan, nan, 0.5, 0.3, 0.2], [nan, nan, 0.1, 0.8, 0.1]])


def test_an_option_that_nobody_gives_is_worth_what_it_would_earn(option_grid):
    np.testing.assert_array_equal(candidate_scores(option_grid)[:, 2:], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_options_that_cannot_be_chosen_are_no_candidates(option_grid):
    """Without a right answer nothing is known of an option's worth; members then keep their own places."""
    grid = replace(option_grid, option_ids=np.full((3, 3), -1), option_scores=np.full((3, 3), nan))
    answers = answers_of(grid)
    np.testing.assert_array_equal(answers.candidate_index, grid.answer_ids)
    assert np.isnan(answers.option_scores).all()
    assert not candidate_scores(grid)[:, 2:].any()


def test_choosing_an_option_without_supporters_earns_its_score(option_grid):
    env = env_of(option_grid, max_team=2, max_rounds=1)
    env.reset(np.array([0, 0]), np.zeros(2))
    env.ask(mask("ab", "a", members="ab"))
    state = env.state()
    np.testing.assert_array_equal(state.candidates, [[False, False, True, True, True]] * 2)
    np.testing.assert_array_equal(env.fuse(state, np.array([4, 4])), [1, 1])
    np.testing.assert_array_equal(env.fuse(state, np.array([2, 3])), [0, 0])


def test_a_tie_of_options_does_not_show_what_an_unasked_member_says(option_grid):
    """a is asked; B and C weigh alike. B, the earlier option, wins whether b, who is not asked, says B or C."""
    for row in (0, 1):
        env = env_of(option_grid, max_team=1, max_rounds=1)
        env.reset(np.array([row]), np.zeros(1))
        env.ask(mask("a", members="ab"))
        state, weights = env.state(), (answers_of(option_grid).labels[[row]] != "A") / 2
        assert answers_of(option_grid).labels[row, winners(state, weights)[0]] == "B"


def test_a_grid_without_options_has_one_place_for_each_member(make_grid):
    grid = make_grid([["yes", "yes"]])
    answers = answers_of(grid)
    np.testing.assert_array_equal(answers.candidate_index, [[0, 0]])
    assert answers.option_scores is None
    np.testing.assert_array_equal(candidate_scores(grid), grid.scores)


# Costs.


def test_costs_are_counted_in_the_unit_asked_for(make_grid):
    """Dollars where some cost of every member is known and not all are free; else calls."""
    rows = [["yes", "no"]] * 2
    dollars = make_grid(
        rows,
        cost_usd=[[0.1, 0.2], [None, 0.2]],
        prompt_tokens=[[1, 2], [3, None]],
        completion_tokens=[[10, 20], [30, 40]],
    )
    np.testing.assert_array_equal(costs_of(dollars), [[0.1, 0.2], [nan, 0.2]])
    np.testing.assert_array_equal(costs_of(dollars, "usd"), dollars.cost_usd)
    np.testing.assert_array_equal(costs_of(dollars, "tokens"), [[11, 22], [33, nan]])
    np.testing.assert_array_equal(costs_of(dollars, "calls"), np.ones((2, 2)))
    for cost_usd in ([[0.1, None], [0.1, None]], [[0.0, 0.0], [0.0, 0.0]], [[None, None], [None, None]]):
        np.testing.assert_array_equal(costs_of(make_grid(rows, cost_usd=cost_usd)), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("cost_usd", "unit", "price", "total"),
    [
        # a costs 1 and 3, 2 on average; b 6 where known: ¼ and ¾ of 8 cents.
        ([[0.01, 0.06], [0.03, None]], "auto", [0.25, 0.75], 0.08),
        ([[0.01, 0.06], [0.03, None]], "calls", [0.5, 0.5], 2),
        # Even where some are unknown, or all are free.
        ([[0.1, None]] * 2, "usd", [0.5, 0.5], 0),
        ([[0.0, 0.0]] * 2, "usd", [0.5, 0.5], 0),
        ([[None, None]] * 2, "usd", [0.5, 0.5], 0),
    ],
)
def test_prices_are_shares_of_mean_known_costs(make_grid, cost_usd, unit, price, total):
    shares, whole = prices_of(make_grid([["yes", "no"]] * 2, cost_usd=cost_usd), unit)
    np.testing.assert_allclose(shares, price)
    assert whole == pytest.approx(total)


# ---- Policies in the environment: decided without labels or unasked answers, and one by one as in a batch


LABELS = [("facts", "yes"), ("", "no"), ("facts", "a red house")]


def learned(members, seed):
    """A policy with random weights, so that nothing is decided by zeros."""
    rng = np.random.default_rng(seed)
    shapes = _shapes(len(members), len(LABELS), {"features": FEATURES_DIM, "decider": 6, "fusion": 5})
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    weights["competence.bias"] = rng.uniform(0.3, 0.7, len(members))
    weights["competence.weights"] *= 0.1
    weights["evidence.weights"] *= 0.3
    weights["evidence.moments"] = rng.uniform(0.5, 2.0, (5, len(members)))
    weights["pool.price"] = rng.dirichlet(np.ones(len(members)))
    return RLFocalPolicy(Parts(members=tuple(members), weights=weights, labels=LABELS))


def test_replay_of_the_prior_matches_a_hand_worked_run(make_grid):
    """Two who agree end the matter after one round; two who differ call in the third, who decides."""
    grid = make_grid([["yes", "yes", "no"], ["no", "yes", "yes"], ["yes", "no", "no"]])
    played = replay(PriorPolicy("abc"), grid, cost_weight=0.0, max_team=3, max_rounds=2)
    np.testing.assert_array_equal(played.asked_in, [[1, 1, 0], [1, 1, 2], [1, 1, 2]])
    np.testing.assert_array_equal(played.calls, [2, 3, 3])
    np.testing.assert_array_equal(played.rounds, [1, 2, 2])
    np.testing.assert_array_equal(played.asked, [[True, True, False], [True] * 3, [True] * 3])
    np.testing.assert_array_equal(played.chosen, [0, 1, 1])
    np.testing.assert_allclose(played.scores, [1, 1, 0])
    np.testing.assert_allclose(played.spent, [2 / 3, 1, 1])


def test_members_that_are_always_right_or_always_wrong_score_so(make_grid):
    for answer, expected in (("yes", 1), ("no", 0), (None, 0)):
        grid = make_grid([[answer] * 3] * 4)
        for policy in (PriorPolicy("abc"), learned("abc", 0)):
            played = replay(policy, grid, cost_weight=0.1, max_team=3, max_rounds=2)
            np.testing.assert_array_equal(played.scores, [expected] * 4)
            assert (played.calls >= 1).all()


def test_corrupted_labels_change_no_decision(make_grid, option_grid):
    rng = np.random.default_rng(0)
    plain = make_grid(rng.choice(["yes", "no", "maybe"], size=(40, 4)).tolist())
    options = option_grid.take(np.tile(np.arange(3), 10))
    for grid, members in ((plain, "abcd"), (options, "ab")):
        worth = grid.option_scores
        corrupted = replace(
            grid,
            scores=1 - grid.scores,
            golds=["?"] * len(grid),
            option_scores=None if worth is None else 1 - worth,
        )
        for policy in (PriorPolicy(members), learned(members, 1)):
            one, other = (replay(policy, g, cost_weight=0.1, max_team=3, max_rounds=2) for g in (grid, corrupted))
            np.testing.assert_array_equal(one.asked, other.asked)
            np.testing.assert_array_equal(one.chosen, other.chosen)
            np.testing.assert_allclose(one.scores, 1 - other.scores)


def scrambled(grid, asked, rng):
    """The same grid with all that unasked members did redrawn."""
    replaced = rng.choice(np.array(["yes", "no", "maybe", "a red house", None], dtype=object), size=asked.shape)
    texts = np.where(asked, grid.answers, replaced)
    same = texts[:, :, None] == texts[:, None, :]
    changes = {
        name: np.where(asked, getattr(grid, name), -5 * rng.random(asked.shape)) for name in ("logprobs", "scores")
    }
    changes["response_chars"] = np.where(asked, grid.response_chars, rng.integers(1, 999, asked.shape))
    if grid.option_probs is not None:
        m = asked.shape[1]
        given = texts[:, :, None] == grid.option_answers[:, None]
        ids = np.where(given.any(axis=1), given.argmax(axis=1), m + np.arange(given.shape[2]))
        probs = np.where(asked[:, :, None], grid.option_probs, rng.random(grid.option_probs.shape))
        changes |= {"option_ids": np.where(grid.option_ids >= 0, ids, -1), "option_probs": probs}
    ids = np.where(np.not_equal(texts, None), same.argmax(axis=1), -1)
    return replace(grid, answers=texts, answer_ids=ids, **changes)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 3))
def test_members_that_were_not_asked_change_no_observation_and_no_decision(
    make_grid, option_grid, seed, has_options, max_rounds
):
    """Play; redraw everything that members did who were never asked; play again."""
    rng = np.random.default_rng(seed)
    if has_options:
        grid, members = option_grid.take(rng.integers(0, 3, 12)), "ab"
    else:
        texts = np.array(["yes", "no", "maybe", "a red house", None], dtype=object)
        columns = {"logprob": (-rng.random((12, 4))).tolist()}
        grid, members = make_grid(rng.choice(texts, size=(12, 4)).tolist(), **columns), "abcd"
    limits = {"max_team": 3, "max_rounds": max_rounds}
    for policy in (PriorPolicy(members), learned(members, seed)):
        first = replay(policy, grid, cost_weight=0.1, **limits)
        other = scrambled(grid, first.asked, rng)
        again = replay(policy, other, cost_weight=0.1, **limits)
        np.testing.assert_array_equal(first.asked_in, again.asked_in)
        np.testing.assert_array_equal(first.chosen, again.chosen)
        seen = []
        for one in (grid, other):
            env = environment_of(policy, one, **limits)
            play(policy, env, np.arange(len(one)), np.full(len(one), 0.1))
            state = env.state()
            candidates, exists = fusion_observation(state)
            rows = [sorted(map(tuple, candidates[q, exists[q]].round(5).tolist())) for q in range(len(one))]
            seen.append((*decider_observation(state), rows))
        for before, after in zip(*seen, strict=True):
            if isinstance(before, list):
                assert [len(row) for row in before] == [len(row) for row in after]
            else:
                np.testing.assert_allclose(after, before, atol=1e-5)


def test_members_in_another_order_or_left_out_are_told_by_name(make_grid):
    grid = make_grid([["yes", "yes", "no"], ["no", "yes", "yes"]])
    policy = learned("abcd", 2)
    replay(policy, grid, cost_weight=0.1, max_team=2, max_rounds=2)
    with pytest.raises(PoolError, match="unknown: c"):
        replay(learned("ab", 2), grid, cost_weight=0.1, max_team=2, max_rounds=2)


def test_a_replay_reports_recorded_scores_without_the_bonus_of_training(make_grid):
    """Both members are asked and fail on other queries: focal diversity 1, worth ½, but a right answer is worth 1."""
    grid = make_grid([["yes", "no"], ["no", "yes"]])
    policy = PriorPolicy(grid.members)
    env = environment_of(policy, grid, max_team=2, max_rounds=1, diversity_weight=0.5)
    played = play(policy, env, np.arange(2), np.zeros(2))
    assert played.calls.tolist() == [2, 2]
    assert played.scores.tolist() == [grid.scores[q, played.chosen[q]] for q in range(2)]


def test_a_replay_knows_no_score_where_it_asks_who_is_not_on_record_or_returns_what_nobody_scored(make_grid):
    """The policy asks both at once and returns a's answer."""
    grid = make_grid([["yes", "no"]] * 3)
    recorded, scores = np.ones((3, 2), dtype=bool), grid.scores.copy()
    recorded[1, 1] = False
    scores[1, 1] = scores[2, 0] = nan
    ids = np.where(recorded, grid.answer_ids, -1)
    grid = replace(grid, recorded=recorded, scores=scores, answer_ids=ids)
    played = replay(PriorPolicy("ab", {"a": 0.7}), grid, cost_weight=0.1, max_team=2, max_rounds=1)
    assert played.calls.tolist() == [2, 2, 2]
    assert played.chosen.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(played.scores, [1.0, nan, nan])


def test_a_candidate_is_worth_what_its_scored_supporters_are(make_grid):
    """Three say yes, scored 1, 0 and not at all: ½; or the last of them alone 1. A fourth says no, unscored."""
    grid = make_grid([["yes", "yes", "yes", "no"]] * 2)
    scores = candidate_scores(replace(grid, scores=np.array([[1.0, 0.0, nan, nan], [nan, nan, 1.0, nan]])))
    np.testing.assert_array_equal(scores[:, [0, 3]], [[0.5, nan], [1.0, nan]])


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4))
def test_answering_one_by_one_equals_replaying_the_batch(make_grid, seed, max_rounds, max_team):
    """The answering river, driven query by query through `select` and `fuse`, decides exactly as `replay` does."""
    rng = np.random.default_rng(seed)
    choices = np.array(["yes", "no", "maybe", "a red house", "the red house", None], dtype=object)
    responses = [["x" * rng.integers(1, 200) for _ in range(4)] for _ in range(5)]
    grid = make_grid(
        rng.choice(choices, size=(5, 4)).tolist(), logprob=(-rng.random((5, 4))).tolist(), response=responses
    )
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
                        text=responses[q]["abcd".index(name)],
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


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 2))
def test_answering_one_by_one_equals_replaying_the_batch_with_options_too(option_grid, seed, max_team):
    """Also where the winner is an option that no asked member ranks first: then no member is named."""
    grid, policy = option_grid, learned("ab", seed)
    played = replay(policy, grid, cost_weight=0.1, max_team=max_team, max_rounds=1)
    for q in range(len(grid)):
        query = Query(grid.queries[q], grid.tasks[q])
        limits = {"round_number": 1, "max_rounds": 1, "max_team": max_team, "cost_weight": 0.1}
        asked = policy.select(query, [], [], available="ab", **limits).members
        assert set(asked) == {"ab"[m] for m in np.flatnonzero(played.asked[q])}
        candidates = [
            Candidate(
                member=name,
                round=1,
                text="x",
                answer=grid.answers[q, m],
                latency_s=0.0,
                option_probs=dict(zip("ABC", grid.option_probs[q, m].tolist(), strict=True)),
            )
            for m, name in enumerate("ab")
            if name in asked
        ]
        answer = policy.fuse(query, candidates, [], max_team=max_team)
        assert answer.member == (None if played.chosen[q] < 0 else "ab"[played.chosen[q]])
        assert float(answer.answer == grid.golds[q]) == played.scores[q]


def test_hidden_tasks_change_no_decision_and_shown_ones_may(make_grid):
    """The policy's competence depends on the task's features, so labels that it sees can move its choice."""
    rng = np.random.default_rng(0)
    grid = make_grid(rng.choice(["yes", "no", "maybe"], size=(60, 4)).tolist())
    corrupted = replace(grid, tasks=[f"other/{q}" for q in range(len(grid))])
    limits = {"cost_weight": 0.1, "max_team": 3, "max_rounds": 2}
    moved = False
    for seed in range(8):  # random weights: not every one listens to the task
        policy = learned("abcd", seed)
        hidden = [replay(policy, g, **limits, hide_tasks=True) for g in (grid, corrupted)]
        shown = [replay(policy, g, **limits) for g in (grid, corrupted)]
        np.testing.assert_array_equal(hidden[0].asked, hidden[1].asked)
        np.testing.assert_array_equal(hidden[0].chosen, hidden[1].chosen)
        moved |= bool((shown[0].asked != shown[1].asked).any() or (shown[0].chosen != shown[1].chosen).any())
    assert moved

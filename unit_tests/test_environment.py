"""The environment: rewards, episodes, options and costs by hand."""

from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.environment import (
    EnsembleEnv,
    answers_of,
    scores_of_places,
)
from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.outcomes import costs_of, prices_of
from langchain_rlfocal.policies.base import winners
from langchain_rlfocal.states import Descriptors, Evidence
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.preparation import prepare

nan = np.nan


def even(grid, price=None):
    q, m = grid.scores.shape
    return Descriptors(
        competence=np.full((q, m), 0.5),
        trust=np.ones((q, m)),
        slopes=np.zeros((q, m)),
        price=np.full(m, 1 / m) if price is None else np.array(price),
        diversity=np.zeros((m, m)),
        surface=np.zeros((q, len(SURFACE_NAMES))),
    )


def env_of(grid, *, known=None, **limits):
    known = known or even(grid)
    answers = answers_of(grid)
    scored = None if answers.option_scores is None else 0 * answers.option_scores
    evidence = Evidence(answers.places, known.trust, np.zeros(answers.labels.shape), scored, None)
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


def test_a_wrong_answer_is_charged_like_a_right_one(make_grid):
    env = env_of(make_grid([["no", "yes"], ["yes", "no"]]), max_team=1, max_rounds=1)
    env.reset(np.array([0, 1]), np.array([0.2, 0.2]))
    np.testing.assert_allclose(env.ask(mask("a", "a", members="ab")), [-0.1, -0.1])
    np.testing.assert_allclose(env.fuse(env.state(), np.array([0, 0])), [0, 1])


def test_known_costs_are_charged_and_without_them_prices(make_grid):
    """Cost weight .5. Charges of .1 and .6 of the pool, or prices of .25 and .75."""
    grid = make_grid([["no", "yes"]])
    for charges, expected in ((np.array([[0.1, 0.6]]), -0.35), (None, -0.5)):
        env = env_of(grid, known=even(grid, [0.25, 0.75]), max_team=2, max_rounds=1, charges=charges)
        env.reset(np.array([0]), np.array([0.5]))
        np.testing.assert_allclose(env.ask(mask("ab", members="ab")), [expected])


@pytest.mark.usefixtures("one_thread")
def test_an_unknown_cost_is_charged_at_the_member_s_price(make_grid):
    """a costs 2 cents on average (1 and 3, the rest unknown), b always 6: the pool 8; a's share 1, 3 and 2 eighths."""
    costs = [[0.01, 0.06], [0.03, 0.06], *[[None, 0.06]] * 18]
    grid = make_grid([["yes", "no"], ["no", "yes"]] * 10, cost_usd=costs)
    penalties = {"competence_penalty": [1.0], "evidence_penalty": [0.1]}
    prepared = prepare(
        grid, TrainingConfig(num_folds=2), embedder=None, rng=np.random.default_rng(0), penalties=penalties
    )
    np.testing.assert_allclose(prepared.charges[:3], [[1 / 8, 3 / 4], [3 / 8, 3 / 4], [2 / 8, 3 / 4]])


def test_nothing_is_charged_at_a_cost_weight_of_zero(make_grid):
    env = env_of(make_grid([["yes", "no"]]), max_team=2, max_rounds=1)
    env.reset(np.array([0]), np.array([0.0]))
    np.testing.assert_array_equal(env.ask(mask("ab", members="ab")), [0])


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
    assert (env.state().places == -1).all()
    env.ask(mask("b", members="ab"))
    np.testing.assert_array_equal(env.state().places, [[-1, 1]])


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
    np.testing.assert_array_equal(answers.places, [[2, 3], [2, 4], [2, 3]])
    assert answers.labels[:, 2:].tolist() == [["A", "B", "C"]] * 3
    np.testing.assert_array_equal(answers.option_scores[0], [[nan, nan, 0.5, 0.3, 0.2], [nan, nan, 0.1, 0.8, 0.1]])


def test_an_option_that_nobody_gives_is_worth_what_it_would_earn(option_grid):
    np.testing.assert_array_equal(scores_of_places(option_grid)[:, 2:], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_options_that_cannot_be_chosen_are_no_candidates(option_grid):
    """Without a right answer nothing is known of an option's worth; members then keep their own places."""
    grid = replace(option_grid, option_ids=np.full((3, 3), -1), option_scores=np.full((3, 3), nan))
    answers = answers_of(grid)
    np.testing.assert_array_equal(answers.places, grid.answer_ids)
    assert np.isnan(answers.option_scores).all()
    assert not scores_of_places(grid)[:, 2:].any()


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
    np.testing.assert_array_equal(answers.places, [[0, 0]])
    assert answers.option_scores is None
    np.testing.assert_array_equal(scores_of_places(grid), grid.scores)


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


def test_prices_are_shares_of_mean_known_costs(make_grid):
    """a costs 1 and 3, 2 on average; b 6 where known: ¼ and ¾ of 8 cents."""
    grid = make_grid([["yes", "no"]] * 2, cost_usd=[[0.01, 0.06], [0.03, None]])
    price, total = prices_of(grid)
    np.testing.assert_allclose(price, [0.25, 0.75])
    assert total == pytest.approx(0.08)


@pytest.mark.parametrize("cost_usd", [[[0.1, None]], [[0.0, 0.0]], [[None, None]]])
def test_prices_are_even_where_some_are_unknown_or_all_are_free(make_grid, cost_usd):
    price, total = prices_of(make_grid([["yes", "no"]], cost_usd=cost_usd), "usd")
    np.testing.assert_array_equal(price, [0.5, 0.5])
    assert total == 0


def test_calls_cost_one_each(make_grid):
    price, total = prices_of(make_grid([["yes", "no", "no", "no"]]))
    np.testing.assert_array_equal(price, [0.25] * 4)
    assert total == 4

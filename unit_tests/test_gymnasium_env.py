"""The Gymnasium environment: a good citizen there, and the same world as the batched one."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.environment import environment_of
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.observations import CONTEXT_AXES, MEMBER_AXES, decider_observation
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.base import winners

pytest.importorskip("gymnasium", reason="an optional part: pip install 'langchain-rlfocal[gymnasium]'")

from gymnasium.utils.env_checker import check_env

from langchain_rlfocal.gymnasium_env import SingleQueryEnv, nearest_team

MEMBERS = ("a", "b", "c", "d")
COMPETENCE = {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.7}


def make_grid(answers):
    """One row of `answers` per query, one per member; "yes" is right, None is silence."""
    members = MEMBERS[: len(answers[0])]
    return OutcomeTable.from_outcomes(
        Outcome(task="t", query_id=str(q), query=f"{q}?", model=m, response=a or "", answer=a, reward=float(a == "yes"))
        for q, row in enumerate(answers)
        for m, a in zip(members, row, strict=True)
    ).grid(members)


def drawn_grid(num_queries=30):
    choices = np.array(["yes", "no", "maybe", None], dtype=object)
    return make_grid(np.random.default_rng(0).choice(choices, size=(num_queries, 4)).tolist())


def make_env(grid=None, **changes):
    limits = {"cost_weight": 0.2, "max_team": 3, "max_rounds": 2}
    grid = drawn_grid() if grid is None else grid
    return SingleQueryEnv(grid, PriorPolicy(grid.members, {m: COMPETENCE[m] for m in grid.members}), **limits | changes)


def action(names):
    return np.array([int(name in names) for name in MEMBERS], dtype=np.int8)


def test_gymnasium_s_own_check_finds_nothing():
    """Its warnings are errors here. It has no render mode to check."""
    check_env(make_env(), skip_render_check=True)


def test_an_episode_matches_hand_worked_rewards():
    """Cost weight .2, four members: .05 a call. First a (wrong) and d (wrong); then b (right, most competent): 1 - .05.

    The team of a, b, d: on the one query two of three fail, GD ½ for a and d, 1 for b; mean 2/3, bonus .3 x 2/3.
    """
    env = make_env(make_grid([["no", "yes", "yes", "maybe"]]), diversity_weight=0.3)
    _, info = env.reset()
    assert info == {"row": 0, "asked": (), "spent": 0.0, "score": None}
    _, reward, terminated, truncated, info = env.step(action("ad"))
    assert (reward, terminated, truncated) == (pytest.approx(-0.1), False, False)
    assert info == {"row": 0, "asked": ("a", "d"), "spent": 0.5, "score": None}
    _, reward, terminated, truncated, info = env.step(action("b"))
    assert (reward, terminated, truncated) == (pytest.approx(1 - 0.05 + 0.3 * 2 / 3), True, False)
    assert info == {"row": 0, "asked": ("a", "b", "d"), "spent": 0.75, "score": 1.0}


@pytest.mark.parametrize(
    ("said", "wishes", "asked", "ended", "score"),
    [
        pytest.param("nnnn", [""], "b", False, None, id="nobody at first: the most competent"),
        pytest.param("nnnn", ["ad"], "ad", False, None, id="legal: as it is"),
        pytest.param("nnnn", ["abcd"], "bcd", True, 0.0, id="too many: the most competent"),
        # Two places are left: of c and d, equally competent, and b, the earlier c joins b.
        pytest.param("nnnn", ["a", "abcd"], "abc", True, 0.0, id="too many for the room that is left"),
        pytest.param("nyyy", ["a", ""], "a", True, 0.0, id="nobody later: what there is"),
        pytest.param("nyyy", ["a", "a"], "a", True, 0.0, id="only members that were asked: what there is"),
        # The most competent, b, was asked; c and d are next, and c is the earlier.
        pytest.param("n-yy", ["b", ""], "bc", True, 1.0, id="nobody where only silence was heard: one more"),
    ],
)
def test_an_action_is_taken_as_the_nearest_legal_team(*, said, wishes, asked, ended, score):
    env = make_env(make_grid([[{"n": "no", "y": "yes", "-": None}[letter] for letter in said]]))
    env.reset()
    for wish in wishes:
        _, reward, terminated, _, info = env.step(action(wish))
    assert (terminated, info["asked"], info["score"]) == (ended, tuple(asked), score)
    if wishes[-1] == "" and asked == "a":
        assert reward == 0.0


def test_a_grid_with_holes_or_without_scores_trains_nobody():
    grid = drawn_grid()
    for name, value in (("recorded", False), ("scores", np.nan)):
        array = getattr(grid, name).copy()
        array[0, 0] = value
        with pytest.raises(InputError, match="scored answer of every member"):
            make_env(replace(grid, **{name: array}))


def test_no_legal_team_is_nearer_to_a_wish_than_the_one_taken():
    """Against every legal team of every wish, in every state of three members with room for two."""
    teams = [np.array(list(np.binary_repr(code, 3)), dtype=int).astype(bool) for code in range(8)]
    grid = make_grid([["yes", None, "no"]])
    env = environment_of(PriorPolicy(grid.members), grid, max_team=2, max_rounds=2)
    for asked in (t for t in teams if t.sum() <= 1):
        env.reset(np.array([0]), np.zeros(1))
        if asked.any():
            env.ask(asked[None])
        state = env.state()
        must = not state.answered.any()
        legal = [t for t in teams if not (t & asked).any() and must <= t.sum() <= 2 - asked.sum()]
        for wish in teams:
            taken = nearest_team(state, wish[None])[0]
            assert any((taken == t).all() for t in legal)
            assert (taken ^ wish).sum() == min((t ^ wish).sum() for t in legal)


def test_every_return_equals_the_batched_environment_s():
    """200 episodes of random wishes; then all of them at once, by `EnsembleEnv`, with the teams that were asked."""
    grid, limits = drawn_grid(), {"max_team": 3, "max_rounds": 3, "diversity_weight": 0.2}
    env, rng = make_env(grid, **limits), np.random.default_rng(1)
    env.reset(seed=3)
    rows, totals, rounds, observed = [], [], [], []
    for _ in range(200):
        observation, info = env.reset()
        rows.append(info["row"])
        total, teams, seen, terminated = 0.0, [], [observation], False
        while not terminated:
            before = set(info["asked"])
            observation, reward, terminated, _, info = env.step((rng.random(4) < 0.3).astype(np.int8))
            total += reward
            teams.append([name in set(info["asked"]) - before for name in MEMBERS])
            seen.append(observation)
        totals.append(total)
        rounds.append(teams + [[False] * 4] * (3 - len(teams)))
        observed.append(seen)
    policy = PriorPolicy(MEMBERS, COMPETENCE)
    batch = environment_of(policy, grid, **limits)
    batch.reset(np.array(rows), np.full(200, 0.2))
    rewards = np.zeros(200)
    for number, teams in enumerate(np.array(rounds).transpose(1, 0, 2)):
        members, context = decider_observation(batch.state())
        for episode in np.flatnonzero(batch.running):
            np.testing.assert_allclose(observed[episode][number]["members"], members[episode], atol=1e-6)
            np.testing.assert_allclose(observed[episode][number]["context"], context[episode], atol=1e-6)
        rewards += batch.ask(teams)
    state = batch.state()
    rewards += batch.fuse(state, winners(state, policy.weigh(state)))
    np.testing.assert_allclose(totals, rewards, atol=1e-12)
    assert len(set(rows)) > 20


def test_observations_are_in_the_space_that_the_axes_document():
    env = make_env()
    assert env.observation_space["members"].shape == (4, len(MEMBER_AXES))
    assert env.observation_space["context"].shape == (len(CONTEXT_AXES),)
    assert env.action_space.n == 4
    bounds = {
        name: (float(lo), float(hi))
        for (name, *_), lo, hi in zip(
            MEMBER_AXES, env.observation_space["members"].low[0], env.observation_space["members"].high[0], strict=True
        )
    }
    assert bounds["competence_gap"] == (-1, 0)
    assert bounds["trust"] == (-2, 2)
    assert bounds["competence"] == (0, 1)
    assert env.observation_space["context"].high[[name for name, *_ in CONTEXT_AXES].index("lead")] == 2
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        assert observation in env.observation_space
        assert env.step(env.action_space.sample())[0] in env.observation_space


def test_a_seed_fixes_the_queries_that_are_drawn():
    runs = [[make_env().reset(seed=7)[1]["row"] for _ in range(2)] for _ in range(2)]
    assert runs[0] == runs[1]
    env = make_env()
    first = [env.reset(seed=1)[1]["row"], *(env.reset()[1]["row"] for _ in range(9))]
    again = [env.reset(seed=1)[1]["row"], *(env.reset()[1]["row"] for _ in range(9))]
    assert first == again
    assert len(set(first)) > 3


def test_a_row_can_be_asked_for():
    env = make_env()
    assert env.reset(options={"row": 4})[1]["row"] == 4
    with pytest.raises(InputError, match=r"`row` must be in 0 \.\. 29"):
        env.reset(options={"row": 30})


def test_a_step_outside_an_episode_or_of_another_form_is_refused():
    env = make_env(max_rounds=1)
    with pytest.raises(InputError, match="Call `reset` first"):
        env.step(action("a"))
    env.reset()
    for wrong in (np.zeros(3, dtype=np.int8), np.full(4, 2), np.zeros((1, 4), dtype=np.int8)):
        with pytest.raises(InputError, match="a 0 or 1 for each of 4 members"):
            env.step(wrong)
    env.step(action("a"))
    with pytest.raises(InputError, match="Call `reset` first"):
        env.step(action("a"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_team": 0}, "`max_team` must be at least 1, got 0"),
        ({"max_rounds": 0}, "`max_rounds` must be at least 1, got 0"),
        ({"cost_weight": -0.1}, "`cost_weight` must be finite and not negative"),
        ({"cost_weight": float("nan")}, "`cost_weight` must be finite and not negative"),
        ({"diversity_weight": float("inf")}, "`diversity_weight` must be finite and not negative"),
        ({"grid": drawn_grid().take([])}, "`grid` must hold at least one query"),
    ],
)
def test_what_cannot_be_played_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_env(**changes)


def test_a_pool_that_the_policy_does_not_know_is_refused():
    with pytest.raises(PoolError, match="unknown: d"):
        SingleQueryEnv(drawn_grid(), PriorPolicy(("a", "b", "c")), cost_weight=0.1, max_team=2, max_rounds=1)


def test_gymnasium_is_imported_by_nothing_else_and_its_absence_names_the_extra():
    """In a process of its own: first as it is, then where importing gymnasium fails."""
    code = (
        "import sys, langchain_rlfocal.environment\n"
        "print('gymnasium' in sys.modules)\n"
        "import langchain_rlfocal.gymnasium_env\n"
        "print('torch' in sys.modules)\n"
        "del sys.modules['langchain_rlfocal.gymnasium_env']\n"
        "sys.modules['gymnasium'] = None\n"
        "from langchain_rlfocal.errors import MissingDependencyError\n"
        "try:\n    import langchain_rlfocal.gymnasium_env\n"
        "except MissingDependencyError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["False", "False"]
    assert "pip install 'langchain-rlfocal[gymnasium]'" in done.stdout

"""What the agents see: by hand, and as laws."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    FUSION_AXES,
    MEMBER_AXES,
    State,
    decider_observation,
    fusion_observation,
    support_of,
)

MEMBER = {name: i for i, (name, _) in enumerate(MEMBER_AXES)}
CONTEXT = {name: i for i, (name, _) in enumerate(CONTEXT_AXES)}
FUSION = {name: i for i, (name, _) in enumerate(FUSION_AXES)}


def make_state(competence, answers, *, asked=None, logprobs=None, **changes):
    """One query; `answers` is None where a member was not asked, -1 where it was silent."""
    asked = [a is not None for a in answers] if asked is None else asked
    ids = [-1 if a is None else a for a in answers]
    m = len(competence)
    values = {
        "competence": np.array([competence], dtype=float),
        "price": np.full(m, 1 / m),
        "diversity": np.full((m, m), 0.5),
        "surface": np.zeros((1, len(SURFACE_NAMES))),
        "asked": np.array([asked]),
        "answer_ids": np.array([ids]),
        "logprobs": np.full((1, m), np.nan) if logprobs is None else np.array([logprobs]),
        "cost_weight": np.array([0.1]),
        "round_number": 2,
        "max_rounds": 2,
        "max_team": 4,
    }
    return State(**(values | changes))


@st.composite
def states(draw):
    m, q = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    asked = rng.random((q, m)) < draw(st.floats(0, 1))
    ids = np.where(asked & (rng.random((q, m)) < 0.8), rng.integers(0, 3, (q, m)), -1)
    return State(
        competence=rng.uniform(0.02, 0.98, (q, m)),
        price=rng.dirichlet(np.ones(m)),
        diversity=rng.uniform(0, 1, (q, m, m))[0],
        surface=rng.random((q, len(SURFACE_NAMES))),
        asked=asked,
        answer_ids=ids,
        logprobs=np.where(rng.random((q, m)) < 0.5, -rng.random((q, m)), np.nan),
        cost_weight=rng.random(q),
        round_number=draw(st.integers(1, 3)),
        max_rounds=3,
        max_team=m,
    )


def permuted(state, order):
    return replace(
        state,
        competence=state.competence[:, order],
        price=state.price[order],
        diversity=state.diversity[np.ix_(order, order)],
        asked=state.asked[:, order],
        answer_ids=state.answer_ids[:, order],
        logprobs=state.logprobs[:, order],
    )


def test_decider_sees_the_leading_answer_by_competence_not_by_heads():
    """Members .9 against .4 + .3: the single one leads with weight .9 / 1.6, by .2 / 1.6."""
    members, context = decider_observation(make_state([0.9, 0.4, 0.3, 0.2], [0, 1, 1, None]))
    np.testing.assert_allclose(context[0, CONTEXT["lead"]], 0.9 / 1.6)
    np.testing.assert_allclose(context[0, CONTEXT["margin"]], 0.2 / 1.6)
    np.testing.assert_allclose(context[0, CONTEXT["dissent"]], 2 / 3)
    np.testing.assert_allclose(members[0, :, MEMBER["leads"]], [1, 0, 0, 0])
    np.testing.assert_allclose(members[0, :, MEMBER["agreement"]], [1 / 3, 2 / 3, 2 / 3, 0])


def test_decider_sees_the_charge_and_the_silent():
    """Cost weight .1 and a fourth of the pool's price each: .025 a call."""
    members, context = decider_observation(make_state([0.5] * 4, [-1, 0, None, None]))
    np.testing.assert_allclose(members[0, :, MEMBER["charge"]], 0.025)
    np.testing.assert_allclose(members[0, :, MEMBER["silent"]], [1, 0, 0, 0])
    np.testing.assert_allclose(context[0, CONTEXT["silence"]], 0.5)
    np.testing.assert_allclose(context[0, CONTEXT["team"]], 0.5)
    np.testing.assert_allclose(context[0, CONTEXT["cost_weight"]], 0.5)


def test_diversity_is_measured_against_the_team_and_never_against_oneself():
    """Asked: members 0 and 1. Member 2 differs from them by .2 and .6; member 0 only from 1, by .4."""
    diversity = np.array([[0.0, 0.4, 0.2], [0.4, 0.0, 0.6], [0.2, 0.6, 0.0]])
    state = make_state([0.5] * 3, [0, 0, None], diversity=diversity)
    np.testing.assert_allclose(decider_observation(state)[0][0, :, MEMBER["diversity"]], [0.4, 0.4, 0.4])
    nobody = make_state([0.5] * 3, [None] * 3, diversity=diversity)
    np.testing.assert_allclose(decider_observation(nobody)[0][0, :, MEMBER["diversity"]], [0.3, 0.5, 0.4])


def test_fusion_sees_each_answer_at_its_most_competent_supporter():
    """Answers a (.6, .8) and b (.7): a stands at member 1. Log-odds of a: ln 1.5 + ln 4 = ln 6."""
    observation, mask = fusion_observation(make_state([0.6, 0.8, 0.7], [0, 0, 2], logprobs=[np.nan, np.log(0.5), -0.1]))
    np.testing.assert_array_equal(mask, [[False, True, True]])
    a, b = observation[0, 1], observation[0, 2]
    np.testing.assert_allclose(a[FUSION["log_odds"]], np.log(6) / 4)
    np.testing.assert_allclose([a[FUSION["support"]], b[FUSION["support"]]], [2 / 4, 1 / 4])
    np.testing.assert_allclose([a[FUSION["competence_share"]], b[FUSION["competence_share"]]], [1.4 / 2.1, 0.7 / 2.1])
    np.testing.assert_allclose([a[FUSION["lead"]], b[FUSION["lead"]]], [0.7 / 2.1, -0.7 / 2.1])
    np.testing.assert_allclose([a[FUSION["has_best"]], b[FUSION["has_best"]]], [1, 0])
    np.testing.assert_allclose([a[FUSION["probability"]], b[FUSION["probability"]]], [0.5, np.exp(-0.1)])


def test_a_single_answer_leads_by_its_whole_share():
    observation, _ = fusion_observation(make_state([0.6, 0.8], [0, 0]))
    np.testing.assert_allclose(observation[0, 1, FUSION["lead"]], 1.0)


def test_where_all_are_silent_the_most_competent_asked_member_stands_in():
    support = support_of(make_state([0.9, 0.4, 0.6], [None, -1, -1]))
    np.testing.assert_array_equal(support.representative, [[False, False, True]])


def test_unselected_members_never_reach_fusion():
    """The recorded answer of a member that was not asked may be anything: Fusion sees the same."""
    asked = [True, True, False]
    one = make_state([0.6, 0.8, 0.99], [0, 1, -1], asked=asked)
    other = replace(one, competence=np.array([[0.6, 0.8, 0.01]]))
    for a, b in zip(fusion_observation(one), fusion_observation(other), strict=True):
        np.testing.assert_array_equal(a, b)


@given(states())
def test_every_axis_is_finite_and_within_its_documented_range(state):
    members, context = decider_observation(state)
    answers, mask = fusion_observation(state)
    low = {"competence_gap": -1.0, "lead": -1.0, "log_odds": -np.inf}
    high = {"log_odds": np.inf, "support": np.inf}
    for values, axes in ((members, MEMBER_AXES), (context, CONTEXT_AXES), (answers, FUSION_AXES)):
        assert values.shape[-1] == len(axes)
        assert np.isfinite(values).all()
        for i, (name, _) in enumerate(axes):
            assert (values[..., i] >= low.get(name, 0.0) - 1e-9).all(), name
            assert (values[..., i] <= high.get(name, 1.0) + 1e-9).all(), name
    np.testing.assert_array_equal(mask.any(axis=1), state.asked.any(axis=1))


@given(states(), st.randoms(use_true_random=False))
def test_observations_follow_the_order_of_members(state, random):
    order = list(range(state.competence.shape[1]))
    random.shuffle(order)
    (members, context), (answers, mask) = decider_observation(state), fusion_observation(state)
    (members2, context2), (answers2, mask2) = (
        decider_observation(permuted(state, order)),
        fusion_observation(permuted(state, order)),
    )
    np.testing.assert_allclose(members2, members[:, order], atol=1e-12)
    np.testing.assert_allclose(context2, context, atol=1e-12)
    np.testing.assert_array_equal(mask2, mask[:, order])
    np.testing.assert_allclose(answers2, answers[:, order], atol=1e-12)

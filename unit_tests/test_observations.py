"""What the agents see: every axis by hand, its range, and no regard to the order of members or places."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    FUSION_AXES,
    MEMBER_AXES,
    decider_observation,
    fusion_observation,
)
from langchain_rlfocal.states import MemberFeatures, State

MEMBER = [name for name, *_ in MEMBER_AXES]
CONTEXT = [name for name, *_ in CONTEXT_AXES]
FUSION = [name for name, *_ in FUSION_AXES]


@pytest.fixture
def worked(make_state):
    """Five members: 0 says a; 1 and 2 say b; 3 is silent; 4 was not asked.

    Log-odds of a are 1.2 + .2 = 1.4, of b .4 + .6 - .1 = .9, so a leads by ½, with probability 1 / (1 + e^-½).
    """
    return make_state(
        [0.8, 0.6, 0.5, 0.4, 0.9],
        [0, 1, 1, -1, None],
        price=np.array([0.1, 0.2, 0.4, 0.1, 0.2]),
        surface=np.arange(len(SURFACE_NAMES))[None] / 100,
        trust=np.array([[1.2, 0.4, 0.6, 0.5, 1.0]]),
        other_evidence=np.array([[0.2, -0.1, 0, 0, 0]]),
        similarity=np.array([[0.3, 0.7, 0, 0, 0]]),
        cost_weight=np.array([0.3]),
        round_number=2,
        max_rounds=3,
        max_team=5,
    )


A = 1 / (1 + np.exp(-0.5))
WORKED_MEMBERS = {
    "competence": [0.8, 0.6, 0.5, 0.4, 0.9],
    "competence_gap": [-0.1, -0.3, -0.4, -0.5, 0],
    "rank": [0, 0, 0, 0, 0],  # the only one not asked is the best of those
    "trust": [0.3, 0.1, 0.15, 0.125, 0.25],
    "price": [0.25, 0.5, 1, 0.25, 0.5],
    "charge": [0.03, 0.06, 0.12, 0.03, 0.06],
    "asked": [1, 1, 1, 1, 0],
    "silent": [0, 0, 0, 1, 0],
    "leads": [1, 0, 0, 0, 0],
    "agreement": [1 / 3, 2 / 3, 2 / 3, 0, 0],
    "diversity": [0.5] * 5,
    "overturns": [0, 0, 0, 0, 1],  # 1 > ½
}
WORKED_CONTEXT = {
    "round": 1 / 3,
    "team": 4 / 5,
    "last_round": 0,
    "asked": 4 / 5,
    "belief": A,
    "margin": 2 * A - 1,
    "lead": 0.5 / 4,
    "dissent": 2 / 3,
    "silence": 1 / 4,
    "cost_weight": 0.75,
    "mean_charge": 0.06,
    "best_competence": 0.9,
    "mean_competence": 0.64,
    **{f"surface_{name}": column / 100 for column, name in enumerate(SURFACE_NAMES)},
}
WORKED_FUSION = {
    "evidence": [1.4 / 4, 0.9 / 4],
    "belief": [A, 1 - A],
    "lead": [0.125, -0.125],
    "support": [0.25, 0.5],
    "support_share": [1 / 3, 2 / 3],
    "competence_share": [0.8 / 1.9, 1.1 / 1.9],
    "max_competence": [0.8, 0.6],
    "mean_competence": [0.8, 0.55],
    "has_best": [1, 0],
    "strongest": [0.3, 0.15],
    "unbacked": [0.05, -0.025],
    "similarity": [0.3, 0.7],
    "team": [0.8, 0.8],
    "dissent": [2 / 3, 2 / 3],
    "silence": [0.25, 0.25],
}


@pytest.mark.parametrize("axis", MEMBER)
def test_each_axis_of_a_member_matches_the_hand_worked_query(worked, axis):
    members, _ = decider_observation(worked)
    np.testing.assert_allclose(members[0, :, MEMBER.index(axis)], WORKED_MEMBERS[axis], atol=1e-12)


@pytest.mark.parametrize("axis", CONTEXT)
def test_each_axis_of_the_context_matches_the_hand_worked_query(worked, axis):
    _, context = decider_observation(worked)
    np.testing.assert_allclose(context[0, CONTEXT.index(axis)], WORKED_CONTEXT[axis], atol=1e-12)


@pytest.mark.parametrize("axis", FUSION)
def test_each_axis_of_a_candidate_matches_the_hand_worked_query(worked, axis):
    candidates, exists = fusion_observation(worked)
    np.testing.assert_array_equal(exists, [[True, True, False, False, False]])
    np.testing.assert_allclose(candidates[0, :2, FUSION.index(axis)], WORKED_FUSION[axis], atol=1e-12)
    assert not candidates[0, 2:].any()


def test_before_anyone_is_asked_members_rank_by_competence_and_nothing_leads(make_state):
    """Competences .5, .9, .7: two, none and one of three are better. A trust above 0 could make an answer lead."""
    members, context = decider_observation(
        make_state([0.5, 0.9, 0.7], [None] * 3, trust=np.array([[-0.1, 0.1, 0.0]]), round_number=1)
    )
    np.testing.assert_allclose(members[0, :, MEMBER.index("rank")], [2 / 3, 0, 1 / 3])
    np.testing.assert_array_equal(members[0, :, MEMBER.index("overturns")], [0, 1, 0])
    for axis in ("round", "team", "asked", "belief", "margin", "lead", "dissent", "silence", "last_round"):
        assert context[0, CONTEXT.index(axis)] == 0, axis


def test_asked_members_leave_the_ranking(make_state):
    """The best was asked: of the others, .7 has none above it and .5 one of three."""
    members, _ = decider_observation(make_state([0.5, 0.9, 0.7], [None, 1, None]))
    np.testing.assert_allclose(members[0, :, MEMBER.index("rank")], [1 / 3, 0, 0])


def test_diversity_is_measured_against_the_team_and_never_against_oneself(make_state):
    """Asked: members 0 and 1. Member 2 differs from them by .2 and .6; member 0 only from 1, by .4."""
    diversity = np.array([[0.9, 0.4, 0.2], [0.4, 0.9, 0.6], [0.2, 0.6, 0.9]])
    axis = MEMBER.index("diversity")
    team = make_state([0.5] * 3, [0, 0, None], diversity=diversity)
    np.testing.assert_allclose(decider_observation(team)[0][0, :, axis], [0.4, 0.4, 0.4])
    nobody = make_state([0.5] * 3, [None] * 3, diversity=diversity)
    np.testing.assert_allclose(decider_observation(nobody)[0][0, :, axis], [0.3, 0.5, 0.4])


def test_one_answer_alone_leads_by_its_log_odds(make_state):
    """Odds 3 against nothing: probability 1, lead ln 3 over 4, for the Decider and for Fusion."""
    state = make_state([0.6, 0.8], [0, 0], trust=np.log([[1.5, 2.0]]))
    _, context = decider_observation(state)
    candidates, _ = fusion_observation(state)
    np.testing.assert_allclose(context[0, [CONTEXT.index("belief"), CONTEXT.index("margin")]], [1, 1])
    np.testing.assert_allclose(context[0, CONTEXT.index("lead")], np.log(3) / 4)
    np.testing.assert_allclose(candidates[0, 0, FUSION.index("lead")], np.log(3) / 4)


def test_answers_that_lead_alike_all_lead(make_state):
    members, context = decider_observation(make_state([0.6, 0.8, 0.5], [2, 0, None]))
    np.testing.assert_array_equal(members[0, :, MEMBER.index("leads")], [1, 1, 0])
    np.testing.assert_allclose(context[0, [CONTEXT.index(n) for n in ("belief", "margin", "lead")]], [0.5, 0, 0])


def test_supporters_of_one_competence_are_all_the_best(make_state):
    candidates, _ = fusion_observation(make_state([0.8, 0.8, 0.7], [0, 1, 2]))
    np.testing.assert_array_equal(candidates[0, :, FUSION.index("has_best")], [1, 1, 0])


def test_an_option_without_supporters_is_seen_by_its_scores_alone(make_state):
    """Place 2, log-odds -2 from option scores, against a supported answer of 1: lead -3."""
    state = make_state(
        [0.6, 0.8],
        [0, None],
        trust=np.array([[1.0, 5.0]]),
        other_evidence=np.array([[0.0, 0.0, -2.0]]),
        options=np.array([[False, False, True]]),
        similarity=np.zeros((1, 3)),
    )
    candidates, exists = fusion_observation(state)
    np.testing.assert_array_equal(exists, [[True, False, True]])
    seen = dict(zip(FUSION, candidates[0, 2], strict=True))
    assert (seen["evidence"], seen["unbacked"], seen["lead"]) == (-0.5, -0.5, -0.75)
    for axis in ("support", "support_share", "competence_share", "max_competence", "mean_competence", "strongest"):
        assert seen[axis] == 0, axis


def test_a_silence_that_stands_in_is_a_candidate_with_nothing_to_say_for_it(make_state):
    candidates, exists = fusion_observation(make_state([0.6, 0.8], [-1, -1]))
    np.testing.assert_array_equal(exists, [[False, True]])
    seen = dict(zip(FUSION, candidates[0, 1], strict=True))
    assert (seen["belief"], seen["evidence"], seen["silence"], seen["support"]) == (1, 0, 1, 0)


def test_extreme_log_odds_are_clipped(make_state):
    """Trust of 100 and -100: over 4 and clipped to 2 (4 for a candidate's sum); the lead of 200 likewise."""
    state = make_state([0.6, 0.8], [0, 1], trust=np.array([[100.0, -100.0]]), other_evidence=np.array([[-30.0, 30.0]]))
    members, context = decider_observation(state)
    candidates, _ = fusion_observation(state)
    np.testing.assert_array_equal(members[0, :, MEMBER.index("trust")], [2, -2])
    assert context[0, CONTEXT.index("lead")] == 2
    for axis, expected in (("evidence", [4, -4]), ("lead", [2, -2]), ("strongest", [2, -2]), ("unbacked", [-2, 2])):
        np.testing.assert_array_equal(candidates[0, :, FUSION.index(axis)], expected, err_msg=axis)


def test_a_charge_is_never_above_one(make_state):
    members, context = decider_observation(make_state([0.6, 0.8], [None, None], cost_weight=np.array([50.0])))
    np.testing.assert_array_equal(members[0, :, MEMBER.index("charge")], [1, 1])
    assert context[0, CONTEXT.index("mean_charge")] == 1


def test_free_members_have_no_price_and_no_charge(make_state):
    members, _ = decider_observation(make_state([0.6, 0.8], [None, None], price=np.zeros(2)))
    assert not members[0, :, [MEMBER.index("price"), MEMBER.index("charge")]].any()


def test_the_best_is_the_best_of_those_heard(make_state):
    """What Fusion sees does not depend on a member that was not asked, however competent."""
    one = make_state([0.6, 0.8, 0.99], [0, 1, None])
    other = replace(one, members=replace(one.members, competence=np.array([[0.6, 0.8, 0.01]])))
    for a, b in zip(fusion_observation(one), fusion_observation(other), strict=True):
        np.testing.assert_array_equal(a, b)


# Laws.


@st.composite
def states(draw):
    """Queries of every kind, some with options in places of their own; no two competences are equal."""
    q, m, o = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    asked = rng.random((q, m)) < draw(st.floats(0, 1))
    heard = asked & (rng.random((q, m)) < 0.8)
    options = np.zeros((q, m + o), dtype=bool)
    options[:, m:] = asked.any(axis=1, keepdims=True) & (rng.random((q, 1)) < 0.5)
    places = np.where(heard, rng.choice([*range(min(m, 2)), *range(m, m + o)], (q, m)), -1)
    exists = options | (places[:, :, None] == np.arange(m + o)).any(axis=1)
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    return State(
        members=MemberFeatures(
            competence=rng.uniform(0.02, 0.98, (q, m)),
            trust=rng.normal(size=(q, m)),
            option_weights=rng.normal(size=(q, m)),
            price=rng.dirichlet(np.ones(m)),
            diversity=rng.random((m, m)),
            surface=rng.random((q, len(SURFACE_NAMES))),
        ),
        asked=asked,
        candidate_index=places,
        trust=scale * rng.normal(size=(q, m)),
        other_evidence=np.where(exists, scale * rng.normal(size=(q, m + o)), 0),
        options=options,
        similarity=np.where(exists, rng.random((q, m + o)), 0),
        cost_weight=rng.exponential(size=q),
        round_number=draw(st.integers(1, 3)),
        max_rounds=3,
        max_team=m,
    )


CLIPPED = {"trust", "lead", "evidence", "strongest", "unbacked"}


@given(states())
def test_every_axis_is_finite_and_within_its_range(state):
    """Log-odds are clipped; every other axis keeps its range by itself."""
    members, context = decider_observation(state)
    candidates, exists = fusion_observation(state)
    for values, axes in ((members, MEMBER_AXES), (context, CONTEXT_AXES), (candidates, FUSION_AXES)):
        assert values.shape[-1] == len(axes)
        assert np.isfinite(values).all()
        for column, axis in enumerate(axes):
            assert (values[..., column] >= axis.low).all(), axis.name
            assert (values[..., column] <= axis.high).all(), axis.name
            if axis.meaning.startswith("1 if"):
                assert np.isin(values[..., column], [0, 1]).all(), axis.name
            if axis.of is not None and axis.name not in CLIPPED:
                raw = np.broadcast_to(axis.of(state), values.shape[:-1])
                raw = raw[exists] if axes is FUSION_AXES else raw
                np.testing.assert_allclose(np.clip(raw, axis.low, axis.high), raw, atol=1e-9, err_msg=axis.name)
    np.testing.assert_array_equal(exists.any(axis=1), state.asked.any(axis=1))
    assert not candidates[~exists].any()


@given(states(), st.randoms(use_true_random=False))
def test_observations_follow_the_order_of_members(state, random):
    """Members are told by what they bring; only a silence that stands in moves, to its member's new place."""
    m = state.competence.shape[1]
    order = list(range(m))
    random.shuffle(order)
    moved = replace(
        state,
        members=state.members.of_members(order),
        asked=state.asked[:, order],
        candidate_index=state.candidate_index[:, order],
        trust=state.trust[:, order],
    )
    for one, two, axis in zip(decider_observation(state), decider_observation(moved), (1, None), strict=True):
        np.testing.assert_allclose(two, one if axis is None else one[:, order], atol=1e-9)
    rows = state.answered.any(axis=1)
    for one, two in zip(fusion_observation(state), fusion_observation(moved), strict=True):
        np.testing.assert_allclose(two[rows], one[rows], atol=1e-9)


@given(states(), st.randoms(use_true_random=False))
def test_observations_do_not_depend_on_the_numbers_of_places(state, random):
    m, k = state.competence.shape[1], state.other_evidence.shape[1]
    order = np.arange(k)  # old place of each new one; options stay beyond the members' places
    order[:m], order[m:] = random.sample(range(m), m), random.sample(range(m, k), k - m)
    moved = replace(
        state,
        candidate_index=np.where(state.candidate_index >= 0, np.argsort(order)[state.candidate_index], -1),
        **{name: getattr(state, name)[:, order] for name in ("other_evidence", "options", "similarity")},
    )
    for one, two in zip(decider_observation(state), decider_observation(moved), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-9)
    rows = state.answered.any(axis=1)
    for one, two in zip(fusion_observation(state), fusion_observation(moved), strict=True):
        np.testing.assert_allclose(two[rows], one[:, order][rows], atol=1e-9)


def test_every_axis_has_a_name_of_its_own():
    for axes in (MEMBER, CONTEXT, FUSION):
        assert len(set(axes)) == len(axes)
    assert set(MEMBER) == set(WORKED_MEMBERS)
    assert set(CONTEXT) == set(WORKED_CONTEXT)
    assert set(FUSION) == set(WORKED_FUSION)

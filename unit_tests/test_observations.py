"""States and observations: what the asked members gave and nothing of the others, every axis by hand, and the laws of both."""

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.observations import (
    CONTEXT_AXES,
    FUSION_AXES,
    MEMBER_AXES,
    decider_observation,
    fusion_observation,
)
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, RESPONSE_DIM, EvidenceModel
from langchain_rlfocal.policies.looks import LOOK_NAMES
from langchain_rlfocal.states import Answers, Evidence, MemberFeatures, State, share, state_of

seeds = st.integers(0, 2**32 - 1)
TEXTS = np.array(["yes", "no", "a.", "a", "the red one", "the blue one", "one", None], dtype=object)


def seen(state):
    """All that the actors see, by kind and axis; of Fusion's where there is a candidate."""
    members, context = decider_observation(state)
    candidates, exists = fusion_observation(state)
    assert not candidates[~exists].any()
    return {
        **{("member", axis.name): members[0, :, column] for column, axis in enumerate(MEMBER_AXES)},
        **{("context", axis.name): context[0, column] for column, axis in enumerate(CONTEXT_AXES)},
        **{("fusion", axis.name): candidates[0, exists[0], column] for column, axis in enumerate(FUSION_AXES)},
    }


def make_known(rng, q, m):
    return MemberFeatures(
        competence=rng.uniform(0.02, 0.98, (q, m)),
        trust=rng.normal(size=(q, m)),
        option_weights=rng.normal(size=(q, m)),
        price=rng.dirichlet(np.ones(m)),
        diversity=rng.random((m, m)),
        novelty=rng.random(q),
        coincidence=np.ones(q),
    )


@st.composite
def states(draw, *, ties=False):
    """A few queries; half of them have options, in places of their own; competences are often equal, or never."""
    q, m, o = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(seeds))
    known = make_known(rng, q, m)
    asked = rng.random((q, m)) < draw(st.floats(0, 1))
    heard = asked & (rng.random((q, m)) < draw(st.floats(0, 1)))
    options = np.zeros((q, m + o), dtype=bool)
    options[:, m:] = asked.any(axis=1, keepdims=True) & (rng.random((q, 1)) < 0.5)
    places = np.where(heard, rng.choice([*range(draw(st.integers(1, m))), *range(m, m + o)], (q, m)), -1)
    exists = options | (places[:, :, None] == np.arange(m + o)).any(axis=1)
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    return State(
        members=replace(known, competence=rng.integers(1, 5, (q, m)) / 5) if ties else known,
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


# ---- candidates


def by_dictionary(state, q):
    """The same of one query, slowly: place to supporters, representative, log-odds and probability."""
    supporters = {}
    for member, place in enumerate(state.candidate_index[q]):
        if place >= 0:
            supporters.setdefault(int(place), []).append(member)
    representative = {k: max(who, key=lambda m: (state.competence[q, m], -m)) for k, who in supporters.items()}
    asked = np.flatnonzero(state.asked[q])
    if not supporters and len(asked):
        best = max(asked, key=lambda m: (state.competence[q, m], -m))
        representative[int(best)] = int(best)
    candidates = {*representative, *np.flatnonzero(state.options[q]).tolist()}
    odds = {k: sum(state.trust[q, m] for m in supporters.get(k, ())) + state.other_evidence[q, k] for k in candidates}
    total = sum(np.exp(z) for z in odds.values())
    return supporters, representative, odds, {k: np.exp(z) / total for k, z in odds.items()}


def test_values_of_supporters_are_added_compared_and_given_back(make_state):
    """Members 0 and 2 say the same, 1 something else, 3 nothing, 4 was not asked.

    Sums of (1, 2, 4, 8, 16): 5 and 2. Greatest of (-1, -2, -4, 8, 16): -1 and -2; 0 where there is no candidate.
    """
    state = make_state([0.5] * 5, [0, 1, 0, -1, None])
    np.testing.assert_array_equal(state.sum_of_supporters(np.array([[1.0, 2, 4, 8, 16]])), [[5, 2, 0, 0, 0]])
    np.testing.assert_array_equal(state.max_of_supporters(np.array([[-1.0, -2, -4, 8, 16]])), [[-1, -2, 0, 0, 0]])
    np.testing.assert_array_equal(state.of_candidate(np.array([[7.0, 3, 9, 9, 9]])), [[7, 3, 7, 0, 0]])
    np.testing.assert_array_equal(state.count, [[2, 1, 0, 0, 0]])
    np.testing.assert_array_equal([state.num_asked, state.num_answered], [[4], [3]])


def test_the_most_competent_supporter_represents_a_candidate_the_earlier_of_equals(make_state):
    state = make_state([0.5, 0.6, 0.7, 0.6], [0, 1, 0, 1])
    np.testing.assert_array_equal(state.representative, [[2, 1, -1, -1]])


def test_where_all_are_silent_the_most_competent_asked_member_stands_in_at_its_own_place(make_state):
    """The .9 was not asked; of the equal .6 the earlier one stands in. Where nobody was asked nobody does."""
    silent = make_state([0.9, 0.4, 0.6, 0.6], [None, -1, -1, -1])
    np.testing.assert_array_equal(silent.representative, [[-1, -1, 2, -1]])
    np.testing.assert_array_equal(silent.candidates, [[False, False, True, False]])
    np.testing.assert_allclose(silent.belief, [[0, 0, 1, 0]])
    nobody = make_state([0.9, 0.4], [None, None])
    assert not nobody.candidates.any()
    np.testing.assert_array_equal(nobody.belief, [[0, 0]])


def test_belief_is_the_softmax_of_trust_and_scores_over_the_candidates(make_state):
    """Place 0: ln 2 + ln 3 from two supporters and ln ½ scored: odds 3. Place 1, an option without supporters: odds 1."""
    state = make_state(
        [0.5, 0.5],
        [0, 0],
        trust=np.log([[2.0, 3.0]]),
        other_evidence=np.array([[np.log(0.5), 0.0]]),
        options=np.array([[False, True]]),
    )
    np.testing.assert_allclose(state.evidence, [[np.log(3), 0]], atol=1e-15)
    np.testing.assert_allclose(state.belief, [[0.75, 0.25]])


@given(states(ties=True))
def test_everything_about_candidates_matches_a_slow_dictionary(state):
    k = state.other_evidence.shape[1]
    for q in range(len(state.candidate_index)):
        supporters, representative, odds, belief = by_dictionary(state, q)
        np.testing.assert_array_equal(state.count[q], [len(supporters.get(p, ())) for p in range(k)])
        np.testing.assert_array_equal(state.representative[q], [representative.get(p, -1) for p in range(k)])
        np.testing.assert_array_equal(np.flatnonzero(state.candidates[q]), sorted(odds))
        np.testing.assert_allclose(state.evidence[q], [odds.get(p, 0) for p in range(k)], atol=1e-9)
        np.testing.assert_allclose(state.belief[q], [belief.get(p, 0) for p in range(k)], atol=1e-12)
        top = [max((state.trust[q, m] for m in supporters.get(p, ())), default=0) for p in range(k)]
        np.testing.assert_allclose(state.max_of_supporters(state.trust)[q], top)
        given_back = [state.other_evidence[q, p] if p >= 0 else 0 for p in state.candidate_index[q]]
        np.testing.assert_array_equal(state.of_candidate(state.other_evidence)[q], given_back)


@given(states())
def test_single_precision_stays_single(state):
    """Half the memory of training's largest arrays hangs on it."""
    single = replace(
        state,
        members=replace(state.members, competence=state.competence.astype(np.float32)),
        **{n: getattr(state, n).astype(np.float32) for n in ("trust", "other_evidence", "similarity")},
    )
    for name in ("evidence", "belief", "count", "num_asked"):
        assert getattr(single, name).dtype == np.float32, name


def test_dividing_nothing_by_nothing_gives_nothing():
    np.testing.assert_array_equal(share(np.array([1.0, 0.0]), np.array([4.0, 0.0])), [0.25, 0.0])


# ---- every axis by hand


@pytest.fixture
def worked(make_state):
    """Five members: 0 says a; 1 and 2 say b; 3 is silent; 4 was not asked.

    Log-odds of a are 1.2 + .2 = 1.4, of b .4 + .6 - .1 = .9, so a leads by ½, with probability 1 / (1 + e^-½).
    """
    return make_state(
        [0.8, 0.6, 0.5, 0.4, 0.9],
        [0, 1, 1, -1, None],
        price=np.array([0.1, 0.2, 0.4, 0.1, 0.2]),
        novelty=np.array([0.3]),
        trust=np.array([[1.2, 0.4, 0.6, 0.5, 1.0]]),
        other_evidence=np.array([[0.2, -0.1, 0, 0, 0]]),
        similarity=np.array([[0.3, 0.7, 0, 0, 0]]),
        cost_weight=np.array([0.3]),
        round_number=2,
        max_rounds=3,
        max_team=5,
    )


A = 1 / (1 + np.exp(-0.5))
# The odds of a, b and of neither are e^1.4, e^.9 and 1. Member 4 is right with .9, and says any one wrong answer with .9 / e.
# It overturns a if it says b, or something new, which is then right: everything wrong that it could say is b.
E14, E09 = np.exp(1.4), np.exp(0.9)
GAIN = (0.9 * E09 - 0.9 / np.e * E14 + 0.9) / (1 + E14 + E09)
WORKED: dict = {}
WORKED["member"] = {
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
    "gain": [0, 0, 0, 0, np.sqrt(GAIN)],
    "net_gain": [0, 0, 0, 0, (GAIN - 0.06) / (GAIN + 0.06 + 0.001)],
    "next": [0, 0, 0, 0, 1],
}
WORKED["context"] = {
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
    "novelty": 0.3,
    "coincidence": 1,
}
WORKED["fusion"] = {
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
    "novelty": [0.3, 0.3],
}


@pytest.mark.parametrize(("kind", "axis"), [(kind, axis) for kind, axes in WORKED.items() for axis in axes])
def test_each_axis_matches_the_hand_worked_query(worked, kind, axis):
    np.testing.assert_allclose(seen(worked)[kind, axis], WORKED[kind][axis], atol=1e-12)


def test_every_axis_was_worked_by_hand_and_has_a_name_of_its_own():
    for kind, axes in (("member", MEMBER_AXES), ("context", CONTEXT_AXES), ("fusion", FUSION_AXES)):
        assert sorted(axis.name for axis in axes) == sorted(WORKED[kind])


LN3 = np.log(3)
NOTHING_YET = ("round", "team", "asked", "belief", "margin", "lead", "dissent", "silence", "last_round")
FEW = np.array([[0.9, 0.4, 0.2], [0.4, 0.9, 0.6], [0.2, 0.6, 0.9]])


@pytest.mark.parametrize(
    ("competence", "places", "changes", "expected"),
    [
        pytest.param(
            [0.5, 0.9, 0.7],
            [None] * 3,
            {"trust": np.array([[-0.1, 0.1, 0.0]]), "round_number": 1},
            {
                "member rank": [2 / 3, 0, 1 / 3],
                "member gain": np.sqrt([0.5, 0.9, 0.7]),
                **{f"context {n}": 0 for n in NOTHING_YET},
            },
            id="before anyone is asked an answer gains what its member is worth",
        ),
        pytest.param(
            [0.5, 0.9, 0.7], [None, 1, None], {}, {"member rank": [1 / 3, 0, 0]}, id="asked members leave the ranking"
        ),
        pytest.param(
            [0.5] * 3,
            [0, 0, None],
            {"diversity": FEW},
            {"member diversity": [0.4, 0.4, 0.4]},
            id="member 2 differs from the team by .2 and .6, member 0 only from 1, by .4, and never from itself",
        ),
        pytest.param(
            [0.5] * 3, [None] * 3, {"diversity": FEW}, {"member diversity": [0.3, 0.5, 0.4]}, id="or from the pool"
        ),
        pytest.param(
            [0.6, 0.8],
            [0, 0],
            {"trust": np.log([[1.5, 2.0]])},
            {"context belief": 1, "context margin": 1, "context lead": LN3 / 4, "fusion lead": [LN3 / 4]},
            id="one answer alone leads by its log-odds: 3 to nothing",
        ),
        pytest.param(
            [0.6, 0.8, 0.5],
            [2, 0, None],
            {},
            {"member leads": [1, 1, 0], "context belief": 0.5, "context margin": 0, "context lead": 0},
            id="answers that lead alike all lead",
        ),
        pytest.param([0.6, 0.6, 0.5], [0, 1, 2], {}, {"fusion has_best": [1, 1, 0]}, id="equals are all the best"),
        pytest.param(
            [0.6, 0.8],
            [0, None],
            {
                "trust": np.array([[1.0, 5.0]]),
                "other_evidence": np.array([[0.0, 0.0, -2.0]]),
                "options": np.array([[False, False, True]]),
                "similarity": np.zeros((1, 3)),
            },
            {
                "fusion evidence": [0.25, -0.5],
                "fusion unbacked": [0, -0.5],
                "fusion lead": [0.75, -0.75],
                "fusion support": [0.25, 0],
                "fusion support_share": [1, 0],
                "fusion competence_share": [1, 0],
                "fusion max_competence": [0.6, 0],
                "fusion mean_competence": [0.6, 0],
                "fusion strongest": [0.25, 0],
            },
            id="an option without supporters is seen by its scores alone",
        ),
        pytest.param(
            [0.6, 0.8],
            [-1, -1],
            {},
            {"fusion belief": [1], "fusion evidence": [0], "fusion silence": [1], "fusion support": [0]},
            id="silence has nothing to say for it",
        ),
        pytest.param(
            [0.6, 0.8],
            [0, 1],
            {"trust": np.array([[100.0, -100.0]]), "other_evidence": np.array([[-30.0, 30.0]])},
            {
                "member trust": [2, -2],
                "context lead": 2,
                "fusion evidence": [4, -4],
                "fusion lead": [2, -2],
                "fusion strongest": [2, -2],
                "fusion unbacked": [-2, 2],
            },
            id="extreme log-odds are clipped",
        ),
        pytest.param(
            [0.6, 0.8],
            [None, None],
            {"cost_weight": np.array([50.0])},
            {"member charge": [1, 1], "context mean_charge": 1},
            id="a charge is never above one",
        ),
        pytest.param(
            [0.6, 0.8],
            [None, None],
            {"price": np.zeros(2)},
            {"member price": [0, 0], "member charge": [0, 0]},
            id="free members",
        ),
    ],
)
def test_special_cases_of_axes_by_hand(make_state, competence, places, changes, expected):
    shown = seen(make_state(competence, places, **changes))
    for axis, values in expected.items():
        np.testing.assert_allclose(shown[tuple(axis.split())], values, atol=1e-12, err_msg=axis)


def test_the_best_is_the_best_of_those_heard(make_state):
    """What Fusion sees does not depend on a member that was not asked, however competent."""
    one = make_state([0.6, 0.8, 0.99], [0, 1, None])
    other = replace(one, members=replace(one.members, competence=np.array([[0.6, 0.8, 0.01]])))
    for a, b in zip(fusion_observation(one), fusion_observation(other), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- laws


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


# ---- what an actor may know


def make_model(rng, m):
    return EvidenceModel(
        shared=rng.normal(size=3),
        weights=rng.normal(size=(CONTEXT_DIM, m)),
        option_weights=rng.normal(size=(CONTEXT_DIM, m)),
        response=rng.normal(size=(RESPONSE_DIM, m)),
        looks=rng.normal(size=len(LOOK_NAMES)),
        moments=rng.uniform(0.5, 2.0, (5, m)),
        labels={("", text): rng.normal() for text in TEXTS if text},
        pool_size=m,
    )


def lay_out(texts, option_texts, chars, logprobs, scores):
    """Answers with every text at the place of the first member who gave it, options at places of their own."""
    q, m = texts.shape
    o = len(option_texts)
    labels = np.full((q, m + o), None, dtype=object)
    labels[:, :m], labels[:, m:] = texts, option_texts
    places = np.full((q, m), -1)
    for row in range(q):
        seen = {text: m + j for j, text in enumerate(option_texts)}
        for member in range(m):
            if texts[row, member] is not None:
                places[row, member] = seen.setdefault(texts[row, member], member)
    option_scores = np.full((q, m, m + o), np.nan)
    option_scores[:, :, m:] = scores
    return Answers(places, labels, chars, logprobs, option_scores if o else None)


def drawn_answers(rng, q, m, num_options):
    return {
        "texts": rng.choice(TEXTS, size=(q, m)),
        "chars": np.where(rng.random((q, m)) < 0.8, rng.integers(1, 5000, (q, m)), np.nan),
        "logprobs": np.where(rng.random((q, m)) < 0.8, -rng.random((q, m)), np.nan),
        "scores": np.where(rng.random((q, m, 1)) < 0.8, rng.normal(size=(q, m, num_options)), np.nan),
    }


def shown_by_label(state, labels):
    """What the actors see: the Decider's arrays, and Fusion's of each query by the candidates' labels."""
    members, context = decider_observation(state)
    candidates, exists = fusion_observation(state)
    rows = [
        sorted((str(labels[q, k]), *candidates[q, k]) for k in np.flatnonzero(exists[q])) for q in range(len(labels))
    ]
    return members, context, rows


@given(seeds, st.integers(1, 6), st.integers(0, 3))
def test_what_unasked_members_answered_changes_nothing_that_an_actor_sees(seed, m, num_options):
    """Their answers, lengths, log-probabilities and option scores may be anything; only place numbers may move."""
    rng = np.random.default_rng(seed)
    q, option_texts = 5, ["yes", "no", "never"][:num_options]
    known, model = make_known(rng, q, m), make_model(rng, m)
    asked = rng.random((q, m)) < rng.random()
    first = drawn_answers(rng, q, m, num_options)
    second = {
        name: np.where(asked.reshape(q, m, *[1] * (array.ndim - 2)), first[name], array)
        for name, array in drawn_answers(rng, q, m, num_options).items()
    }
    limits = {"cost_weight": rng.random(q), "round_number": 2, "max_rounds": 3, "max_team": m}
    shown, beliefs = [], []
    for drawn in (first, second):
        answers = lay_out(option_texts=option_texts, **drawn)
        state = state_of(known, model.read(known, [None] * q, answers), asked, **limits)
        shown.append(shown_by_label(state, answers.labels))
        beliefs.append(np.sort(state.belief, axis=1))
        # Not even the state holds anything at a place that only unasked members support.
        for name in ("other_evidence", "similarity", "evidence", "belief"):
            assert not getattr(state, name)[~state.candidates].any(), name
    (members, context, rows), (members2, context2, rows2) = shown
    np.testing.assert_allclose(members2, members, atol=1e-12)
    np.testing.assert_allclose(context2, context, atol=1e-12)
    np.testing.assert_allclose(beliefs[1], beliefs[0], atol=1e-12)
    for one, two in zip(rows, rows2, strict=True):
        assert [row[0] for row in one] == [row[0] for row in two]
        np.testing.assert_allclose([row[1:] for row in two], [row[1:] for row in one], atol=1e-12)


def test_a_tie_does_not_show_who_gave_an_answer_first():
    """Members 1 and 2, alike trusted, differ. Whether unasked member 0 sides with one or the other, nothing changes."""
    rng = np.random.default_rng(0)
    known = replace(make_known(rng, 1, 3), trust=np.ones((1, 3)))
    shown = []
    for places in ([[1, 1, 2]], [[0, 1, 0]], [[0, 0, 2]]):
        evidence = Evidence(np.array(places), np.ones((1, 3)), np.zeros((1, 3)), None, None)
        asked, limits = np.array([[False, True, True]]), {"round_number": 1, "max_rounds": 2, "max_team": 3}
        shown.append(decider_observation(state_of(known, evidence, asked, cost_weight=np.ones(1), **limits)))
    for members, context in shown[1:]:
        np.testing.assert_array_equal(members, shown[0][0])
        np.testing.assert_array_equal(context, shown[0][1])


def test_option_scores_count_once_asked_and_only_where_all_asked_give_them():
    """Members 0 and 1 score options 2 and 3, member 1 not option 3; member 2, unasked, would say 100 each."""
    scored = np.full((1, 3, 4), np.nan)
    scored[0, :, 2:] = [[1.0, 2.0], [10.0, np.nan], [100.0, 100.0]]
    evidence = Evidence(np.array([[2, -1, -1]]), np.full((1, 3), 0.5), np.array([[0, 0, 0.25, 9]]), scored, None)
    known = make_known(np.random.default_rng(0), 1, 3)
    limits = {"cost_weight": np.zeros(1), "round_number": 1, "max_rounds": 2, "max_team": 3}

    one = state_of(known, evidence, np.array([[True, False, False]]), **limits)
    np.testing.assert_array_equal(one.candidates, [[False, False, True, True]])
    np.testing.assert_allclose(one.evidence, [[0, 0, 0.5 + 1 + 0.25, 2 + 9]])
    both = state_of(known, evidence, np.array([[True, True, False]]), **limits)
    np.testing.assert_array_equal(both.candidates, [[False, False, True, False]])
    np.testing.assert_allclose(both.evidence, [[0, 0, 0.5 + 1 + 10 + 0.25, 0]])
    nobody = state_of(known, evidence, np.zeros((1, 3), dtype=bool), **limits)
    assert not nobody.candidates.any()
    assert not nobody.other_evidence.any()


def test_trust_is_as_it_looks_after_the_answer_and_likeness_the_mean_over_those_heard():
    """Place 0 is like the answers of members 0, 1, 2 by 0, .4 and .8; member 2 was not asked, member 3 is silent."""
    similarity = np.zeros((1, 4, 4))
    similarity[0, :, 0] = [0.0, 0.4, 0.8, 0.0]
    trust = np.array([[10.0, 20.0, 30.0, 40.0]])
    evidence = Evidence(np.array([[0, 1, 2, -1]]), trust, np.zeros((1, 4)), None, similarity)
    known = replace(make_known(np.random.default_rng(0), 1, 4), trust=trust / 10)
    limits = {"cost_weight": np.zeros(1), "round_number": 1, "max_rounds": 2, "max_team": 4}
    state = state_of(known, evidence, np.array([[True, True, False, True]]), **limits)
    np.testing.assert_array_equal(state.trust, [[10, 20, 3, 4]])
    np.testing.assert_allclose(state.similarity, [[0.2, 0, 0, 0]])


@given(seeds)
def test_taking_queries_takes_every_array_of_theirs(seed):
    rng = np.random.default_rng(seed)
    known, rows = make_known(rng, 4, 3), np.array([2, 0])
    answers = lay_out(option_texts=["yes"], **drawn_answers(rng, 4, 3, 1))
    evidence = make_model(rng, 3).read(known, [None] * 4, answers)
    for whole, shared in ((known, ("price", "diversity")), (answers, ()), (evidence, ())):
        part = whole.take(rows)
        for field in fields(whole):
            value, kept = getattr(whole, field.name), getattr(part, field.name)
            if field.name in shared or value is None:
                assert kept is value
            else:
                np.testing.assert_array_equal(kept, value[rows])


@given(seeds)
def test_taking_members_takes_every_axis_of_theirs(seed):
    rng = np.random.default_rng(seed)
    known, columns = make_known(rng, 4, 3), [2, 0]
    answers = lay_out(option_texts=["yes"], **drawn_answers(rng, 4, 3, 1))
    part, part_of_answers = known.of_members(columns), answers.of_members(columns)
    np.testing.assert_array_equal(part.competence, known.competence[:, columns])
    np.testing.assert_array_equal(part.price, known.price[columns])
    np.testing.assert_array_equal(part.diversity, known.diversity[np.ix_(columns, columns)])
    assert part.novelty is known.novelty
    assert part_of_answers.labels is answers.labels
    np.testing.assert_array_equal(part_of_answers.option_scores, answers.option_scores[:, columns])


def test_parts_are_put_back_in_their_rows_and_a_part_without_an_array_has_zeros():
    """Rows 0 and 2 come from one part, row 1 from the other, whose answers are like nothing."""
    first, similarity = np.array([True, False, True]), np.full((2, 1, 1), 0.5)
    one = Evidence(np.array([[0], [2]]), np.array([[1.0], [3.0]]), np.zeros((2, 1)), None, similarity)
    two = Evidence(np.array([[1]]), np.array([[2.0]]), np.zeros((1, 1)), None, None)
    whole = Evidence.gathered([(first, one), (~first, two)])
    np.testing.assert_array_equal(whole.candidate_index, [[0], [1], [2]])
    np.testing.assert_array_equal(whole.trust, [[1], [2], [3]])
    np.testing.assert_array_equal(whole.similarity[:, 0, 0], [0.5, 0, 0.5])
    assert whole.option_evidence is None


def test_three_thousand_members_with_as_many_answers_take_memory_in_proportion():
    """Eight queries: besides what each axis needs, nothing of the size of members times candidates is made."""
    q, m = 8, 3000
    rng = np.random.default_rng(0)
    known = make_known(rng, q, m)
    evidence = Evidence(np.tile(np.arange(m), (q, 1)), known.trust, np.zeros((q, m)), None, None)
    limits = {"cost_weight": rng.random(q), "round_number": 1, "max_rounds": 2, "max_team": m}
    tracemalloc.start()
    state = state_of(known, evidence, np.ones((q, m), dtype=bool), **limits)
    members, _ = decider_observation(state)
    candidates, exists = fusion_observation(state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert exists.all()
    assert members.shape == (q, m, len(MEMBER_AXES))
    assert candidates.shape == (q, m, len(FUSION_AXES))
    assert peak < 100 * q * m * 8  # eight bytes a number; a full table of likeness would have 3,000 for each cell

"""States: what the asked members gave, and nothing of the others."""

import tracemalloc
from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.observations import FUSION_AXES, MEMBER_AXES, decider_observation, fusion_observation
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, RESPONSE_DIM, EvidenceModel
from langchain_rlfocal.states import Answers, Evidence, MemberFeatures, State, share, state_of

seeds = st.integers(0, 2**32 - 1)
TEXTS = np.array(["yes", "no", "a.", "a", "the red one", "the blue one", "one", None], dtype=object)


@st.composite
def states(draw):
    """A few queries; half of them have options, in places of their own; competences often tie."""
    q, m, o = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(seeds))
    asked = rng.random((q, m)) < draw(st.floats(0, 1))
    heard = asked & (rng.random((q, m)) < draw(st.floats(0, 1)))
    options = np.zeros((q, m + o), dtype=bool)
    options[:, m:] = asked.any(axis=1, keepdims=True) & (rng.random((q, 1)) < 0.5)
    return State(
        members=replace(make_known(rng, q, m), competence=rng.integers(1, 5, (q, m)) / 5),
        asked=asked,
        candidate_index=np.where(heard, rng.integers(0, m + o, (q, m)), -1),
        trust=rng.normal(size=(q, m)),
        other_evidence=rng.normal(size=(q, m + o)),
        options=options,
        similarity=np.zeros((q, m + o)),
        cost_weight=rng.random(q),
        round_number=1,
        max_rounds=2,
        max_team=m,
    )


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


@given(states())
def test_everything_about_candidates_matches_a_slow_dictionary(state):
    k = state.other_evidence.shape[1]
    for q in range(len(state.candidate_index)):
        supporters, representative, odds, belief = by_dictionary(state, q)
        np.testing.assert_array_equal(state.count[q], [len(supporters.get(p, ())) for p in range(k)])
        np.testing.assert_array_equal(state.representative[q], [representative.get(p, -1) for p in range(k)])
        np.testing.assert_array_equal(np.flatnonzero(state.candidates[q]), sorted(odds))
        np.testing.assert_allclose(state.evidence[q], [odds.get(p, 0) for p in range(k)], atol=1e-12)
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


# What an actor may know.


def make_known(rng, q, m):
    return MemberFeatures(
        competence=rng.uniform(0.1, 0.9, (q, m)),
        trust=rng.normal(size=(q, m)),
        option_weights=rng.normal(size=(q, m)),
        price=rng.dirichlet(np.ones(m)),
        diversity=rng.random((m, m)),
        surface=rng.random((q, len(SURFACE_NAMES))),
    )


def make_model(rng, m):
    return EvidenceModel(
        shared=rng.normal(size=3),
        weights=rng.normal(size=(CONTEXT_DIM, m)),
        option_weights=rng.normal(size=(CONTEXT_DIM, m)),
        response=rng.normal(size=(RESPONSE_DIM, m)),
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


def shown(state, labels):
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
    seen, beliefs = [], []
    for drawn in (first, second):
        answers = lay_out(option_texts=option_texts, **drawn)
        state = state_of(known, model.read(known, [None] * q, answers), asked, **limits)
        seen.append(shown(state, answers.labels))
        beliefs.append(np.sort(state.belief, axis=1))
        # Not even the state holds anything at a place that only unasked members support.
        for name in ("other_evidence", "similarity", "evidence", "belief"):
            assert not getattr(state, name)[~state.candidates].any(), name
    (members, context, rows), (members2, context2, rows2) = seen
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
    seen = []
    for places in ([[1, 1, 2]], [[0, 1, 0]], [[0, 0, 2]]):
        evidence = Evidence(np.array(places), np.ones((1, 3)), np.zeros((1, 3)), None, None)
        asked, limits = np.array([[False, True, True]]), {"round_number": 1, "max_rounds": 2, "max_team": 3}
        seen.append(decider_observation(state_of(known, evidence, asked, cost_weight=np.ones(1), **limits)))
    for members, context in seen[1:]:
        np.testing.assert_array_equal(members, seen[0][0])
        np.testing.assert_array_equal(context, seen[0][1])


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


def test_trust_is_as_expected_before_the_answer_and_as_it_looks_after():
    known = replace(make_known(np.random.default_rng(0), 1, 3), trust=np.array([[1.0, 2.0, 3.0]]))
    evidence = Evidence(np.array([[0, -1, 0]]), np.array([[10.0, 20.0, 30.0]]), np.zeros((1, 3)), None, None)
    limits = {"cost_weight": np.zeros(1), "round_number": 1, "max_rounds": 2, "max_team": 3}
    state = state_of(known, evidence, np.array([[True, True, False]]), **limits)
    np.testing.assert_array_equal(state.trust, [[10, 2, 3]])


def test_likeness_is_the_mean_over_the_asked_members_that_answered():
    """Place 0 is like the answers of members 0, 1, 2 by 0, .4 and .8; member 2 was not asked, member 3 is silent."""
    similarity = np.zeros((1, 4, 4))
    similarity[0, :, 0] = [0.0, 0.4, 0.8, 0.0]
    evidence = Evidence(np.array([[0, 1, 2, -1]]), np.ones((1, 4)), np.zeros((1, 4)), None, similarity)
    known = make_known(np.random.default_rng(0), 1, 4)
    limits = {"cost_weight": np.zeros(1), "round_number": 1, "max_rounds": 2, "max_team": 4}
    state = state_of(known, evidence, np.array([[True, True, False, True]]), **limits)
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

"""Competence and evidence: what is estimated of members, and read in their answers."""

from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.features import FEATURES_DIM, HASHED_WORDS, SURFACE_NAMES, query_features
from langchain_rlfocal.policies.evidence import (
    CONTEXT_DIM,
    MAX_CHARS,
    MAX_COMPARED,
    RESPONSE_DIM,
    EvidenceModel,
    context_of,
    cross_fitted,
    fit_competence,
    moments_of,
    response_features,
    scaled_options,
    similarity_of,
)
from langchain_rlfocal.policies.looks import LOOK_NAMES
from langchain_rlfocal.states import MemberFeatures

# ---- The evidence model: its arithmetic by hand


nan = np.nan


def model_of(m, **parts):
    """A model of M members in which every coefficient is 0 and every standard deviation 1."""
    values = {
        "shared": np.zeros(3),
        "weights": np.zeros((CONTEXT_DIM, m)),
        "option_weights": np.zeros((CONTEXT_DIM, m)),
        "response": np.zeros((RESPONSE_DIM, m)),
        "moments": np.tile(np.array([[0.0], [1], [0], [1], [1]]), m),
        "labels": {},
        "looks": np.zeros(len(LOOK_NAMES)),
        "pool_size": m,
    }
    return EvidenceModel(**(values | parts))


def known_of(trust, option_weights=None):
    trust = np.array(trust)
    q, m = trust.shape
    return MemberFeatures(
        competence=np.full((q, m), 0.5),
        trust=trust,
        option_weights=np.zeros((q, m)) if option_weights is None else np.array(option_weights),
        price=np.full(m, 1 / m),
        diversity=np.zeros((m, m)),
        novelty=np.zeros(q),
        coincidence=np.ones(q),
    )


def test_the_context_is_one_and_the_surface_and_task_features_without_the_words():
    features = query_features("How many apples?", "maths/sums")[None]
    context = context_of(features)
    assert context.shape == (1, CONTEXT_DIM)
    assert context[0, 0] == 1
    surface = len(SURFACE_NAMES)
    np.testing.assert_array_equal(context[0, 1 : 1 + surface], features[0, :surface])
    np.testing.assert_array_equal(context[0, 1 + surface :], features[0, surface + HASHED_WORDS :])
    embedded = np.concatenate([features, np.ones((1, 5))], axis=1)
    np.testing.assert_array_equal(context_of(embedded), context)


def test_what_is_expected_of_answers_by_hand():
    """Trust, with α = 2 and β = ½, of log-odds 1 and A = .3: 2 + ½ + .3; of log-odds 0 and A = -1 x a first feature of .25.

    Option weights, with γ = .1: that alone, and with C = .4 x the feature .25.
    """
    weights, slopes, features = np.zeros((CONTEXT_DIM, 2)), np.zeros((CONTEXT_DIM, 2)), np.zeros((1, FEATURES_DIM))
    weights[0, 0], weights[1, 1], slopes[1, 1], features[0, 0] = 0.3, -1.0, 0.4, 0.25
    model = model_of(2, shared=np.array([2.0, 0.5, 0.1]), weights=weights, option_weights=slopes)
    trust, option_weights = model.describe(features, np.array([[np.e / (1 + np.e), 0.5]]))
    np.testing.assert_allclose(trust, [[2.8, 0.25]])
    np.testing.assert_allclose(option_weights, [[0.1, 0.2]])


def test_labels_are_looked_up_by_task_and_text_and_unknown_ones_add_nothing():
    model = model_of(2, labels={("t", "yes"): 0.7, ("", "yes"): -0.3})
    labels = np.array([["yes", "no"], ["yes", None], ["", "yes"]], dtype=object)
    np.testing.assert_array_equal(model.label_bias(["t", None, "other"], labels), [[0.7, 0], [-0.3, 0], [0, 0]])


def test_a_response_is_seen_by_its_deviations_and_their_squares(make_answers):
    """Log-length: mean ln 10, deviation ln 10; 99 characters are ln 100, one deviation off: 1 and 1² - 1 = 0.

    Log-probability: mean -1, deviation ½; -2 is two deviations below: -2 and 3. Ten deviations count as three: 3 and 8.
    """
    moments = np.array([[np.log(10)] * 3, [np.log(10)] * 3, [-1.0] * 3, [0.5] * 3, [1.0] * 3])
    answers = make_answers([["a", "b", "c"]], chars=np.array([[99, nan, 9]]), logprobs=np.array([[-2.0, nan, 4.0]]))
    np.testing.assert_allclose(
        response_features(answers, moments), [[[1, -2, 0, 3], [0, 0, 0, 0], [0, 3, -1, 8]]], atol=1e-12
    )


def test_a_length_beyond_what_tables_keep_counts_as_that_length(make_answers):
    moments = np.array([[0.0], [10.0], [0.0], [1.0], [1.0]])
    one, other = (response_features(make_answers([["a"]], chars=np.array([[n]])), moments) for n in (MAX_CHARS, 10**6))
    np.testing.assert_array_equal(one, other)


def test_moments_are_those_of_what_is_known(make_answers):
    """Lengths e - 1 and e³ - 1, one unknown: logs 1 and 3, mean 2, deviation 1. One log-probability: mean, deviation 1.

    Option scores (1, 3) and (0, 4), centred ±1 and ±2: deviation √2.5.
    """
    scores = np.full((3, 1, 2), nan)
    scores[:2, 0] = [[1, 3], [0, 4]]
    answers = make_answers(
        [["a"], ["b"], ["c"]],
        chars=np.array([[np.e - 1], [np.e**3 - 1], [nan]]),
        logprobs=np.array([[-0.5], [nan], [nan]]),
        option_scores=scores,
    )
    np.testing.assert_allclose(moments_of(answers)[:, 0], [2, 1, -0.5, 1, np.sqrt(2.5)])
    np.testing.assert_array_equal(moments_of(make_answers([["a", None]])), np.tile([[0.0], [1], [0], [1], [1]], 2))


def test_option_scores_are_centred_over_the_options_a_member_scores():
    """(1, 3) about 2, over a deviation of 2: ∓½; the place without a score stays without one."""
    scaled = scaled_options(
        np.array([[[nan, 1.0, 3.0], [nan] * 3]]), np.array([[0.0, 0], [1, 1], [0, 0], [1, 1], [2, 1]])
    )
    np.testing.assert_array_equal(scaled, [[[nan, -0.5, 0.5], [nan] * 3]])


def test_likeness_is_dice_s_coefficient_of_words(make_answers):
    """ "the red house" and "the blue house" share two words of three: 2·2 / 6. Member 2 says what member 0 says."""
    answers = make_answers([["the red house", "the blue house", "the red house", None]])
    expected = np.zeros((1, 4, 4))
    expected[0, [0, 2], 1] = expected[0, 1, 0] = 2 / 3
    np.testing.assert_allclose(similarity_of(answers, np.dtype(float)), expected)


def test_single_words_are_never_alike_whoever_else_says_more(make_answers):
    """`a.` and `a` have one word, the same; a third, longer answer changes nothing between them."""
    assert similarity_of(make_answers([["a.", "a"]]), np.dtype(float)) is None
    longer = similarity_of(make_answers([["a.", "a", "a house"]]), np.dtype(float))
    assert longer[0, 0, 1] == longer[0, 1, 0] == 0
    np.testing.assert_allclose(longer[0, :, 2], [2 / 3, 2 / 3, 0])


def test_likeness_is_not_measured_where_it_says_nothing_or_the_whole_pool_is_too_large(make_answers):
    """What counts is the pool, not who of it is looked at: so training, replay and serving do the same."""
    assert similarity_of(make_answers([["one house", "one house"], [None, None]]), np.dtype(float)) is None
    answers, known = make_answers([["one house", "two houses"]]), known_of(np.ones((1, 2)))
    assert similarity_of(answers, np.dtype(np.float32)).dtype == np.float32
    assert model_of(2, pool_size=MAX_COMPARED).read(known, [None], answers).similarity is not None
    assert model_of(2, pool_size=MAX_COMPARED + 1).read(known, [None], answers).similarity is None
    assert model_of(MAX_COMPARED + 1).read(known, [None], answers, [0, 1]).similarity is None


def test_three_thousand_different_answers_are_read_without_a_table_of_their_likeness(make_answers):
    m = 3000
    evidence = model_of(m).read(known_of(np.ones((1, m))), [None], make_answers([[f"house {i}" for i in range(m)]]))
    assert evidence.similarity is None
    assert evidence.option_evidence is None
    assert evidence.trust.size == evidence.label.size == m


def test_reading_answers_adds_how_they_look_to_the_trust_and_scales_option_scores(make_answers):
    """D of the log-probability is ½, one deviation below the mean: trust 2 - ½. Unknown: 2. Scores ±1 x slope 3."""
    response = np.zeros((RESPONSE_DIM, 2))
    response[1] = 0.5
    scores = np.full((1, 2, 2), nan)
    scores[0, 0] = [1.0, 3.0]
    model = model_of(2, response=response, labels={("t", "yes"): 0.25})
    evidence = model.read(
        known_of([[2.0, 2.0]], [[3.0, 3.0]]),
        ["t"],
        make_answers([["yes", "no"]], logprobs=np.array([[-1.0, nan]]), option_scores=scores),
    )
    np.testing.assert_allclose(evidence.trust, [[1.5, 2.0]])
    np.testing.assert_allclose(evidence.label, [[0.25, 0]])
    np.testing.assert_allclose(evidence.option_evidence, [[[-3, 3], [nan, nan]]])
    np.testing.assert_array_equal(evidence.candidate_index, [[0, 1]])


def test_the_looks_of_an_option_and_a_text_without_a_label_add_to_the_label_s_log_odds(make_answers):
    """b(t, yes) = ¼; looks (1, 0, 2, 0) x (3, 0, -1, 0) = 1; b of an unlabelled text -2."""
    looks = np.zeros((1, 2, len(LOOK_NAMES)))
    looks[0, 0] = [1, 0, 2, 0]
    answers = make_answers([["yes", None]], looks=looks)
    model = model_of(2, labels={("t", "yes"): 0.25, ("t", ""): -2.0}, looks=np.array([3.0, 0.0, -1.0, 0.0]))
    np.testing.assert_allclose(model.read(known_of([[1.0, 1.0]]), ["t"], answers).label, [[1.25, -2.0]])
    np.testing.assert_allclose(model.read(known_of([[1.0, 1.0]]), [None], answers).label, [[1.0, 0.0]])


def test_evidence_has_the_precision_of_what_is_known(make_answers):
    known = known_of(np.ones((1, 2), dtype=np.float32), np.ones((1, 2), dtype=np.float32))
    known = replace(known, competence=known.competence.astype(np.float32))
    answers = make_answers([["one house", "two houses"]], option_scores=np.ones((1, 2, 2)))
    evidence = model_of(2).read(known, [None], answers)
    for name in ("trust", "label", "option_evidence", "similarity"):
        assert getattr(evidence, name).dtype == np.float32, name


def test_the_answers_of_some_members_are_read_as_among_all(make_answers):
    rng = np.random.default_rng(0)
    model = model_of(3, response=rng.normal(size=(4, 3)), moments=rng.uniform(1, 2, (5, 3)), labels={("", "yes"): 1.0})
    known = known_of(rng.normal(size=(1, 3)), rng.normal(size=(1, 3)))
    answers = make_answers(
        [["yes", "no", "a b"]], chars=rng.uniform(1, 99, (1, 3)), option_scores=rng.random((1, 3, 3))
    )
    part = model.read(known.of_members([2, 0]), [None], answers.of_members([2, 0]), [2, 0])
    whole = model.read(known, [None], answers).of_members([2, 0])
    for name in ("candidate_index", "trust", "label", "option_evidence"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name), err_msg=name)


# ---- Competence estimates: closed form, honest folds


def test_ridge_matches_a_hand_worked_fit():
    """Features ±1, scores 1 and 0, λ = 2: centred X = (1, -1), S - mean = (½, -½); W = 1 / (2 + 2) = ¼."""
    model = fit_competence(np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]]), penalty=(2.0, 2.0))
    np.testing.assert_allclose(model.weights, [[0.25]])
    np.testing.assert_allclose(model(np.array([[1.0], [-1.0]])), [[0.75], [0.25]])
    np.testing.assert_allclose(model(np.array([[50.0], [-50.0]])), [[0.98], [0.02]])  # inside the unit interval


def test_ridge_solves_its_normal_equations_even_with_fewer_queries_than_features():
    """(XᵀX + λI) W = Xᵀ(S − mean of S)."""
    rng = np.random.default_rng(0)
    features, scores = rng.normal(size=(6, 9)), rng.random((6, 2))
    centred = features - features.mean(axis=0)
    weights = fit_competence(features, scores, penalty=(0.5, 0.5)).weights
    left = (centred.T @ centred + 0.5 * np.eye(9)) @ weights
    np.testing.assert_allclose(left, centred.T @ (scores - scores.mean(axis=0)), atol=1e-12)


def test_with_one_penalty_for_both_stages_a_member_s_fit_is_its_own_ridge():
    rng = np.random.default_rng(3)
    features, scores = rng.normal(size=(20, 3)), rng.random((20, 3))
    together = fit_competence(features, scores, penalty=(1.0, 1.0))(features)
    np.testing.assert_allclose(fit_competence(features, scores[:, [1]], penalty=(1.0, 9.0))(features), together[:, [1]])


def test_a_strong_penalty_of_the_members_leaves_them_one_slope_and_their_own_means():
    """Features ±1; a scores (1, 0), b (0, 0): means .5 and 0, the pool's (½, 0) about ¼: w = ½ / (2 + 2) = ⅛."""
    scores = np.array([[1.0, 0.0], [0.0, 0.0]])
    model = fit_competence(np.array([[1.0], [-1.0]]), scores, penalty=(2.0, 1e9))
    np.testing.assert_allclose(model.weights, [[1 / 8, 1 / 8]], atol=1e-8)
    np.testing.assert_allclose(model.bias, [0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize("num_queries", [12, 60], ids=["fewer rows than features", "more"])
def test_a_member_that_was_never_scored_is_the_pool_s_average_one_and_changes_no_other(num_queries):
    rng = np.random.default_rng(5)
    features, scores = rng.normal(size=(num_queries, 20)), rng.random((num_queries, 2))
    with_it = np.concatenate([scores, np.full((num_queries, 1), nan)], axis=1)
    two, three = (fit_competence(features, given, penalty=(2.0, 1e9)) for given in (scores, with_it))
    np.testing.assert_allclose(
        three(features)[:, 2], scores.mean() + (features - features.mean(0)) @ three.weights[:, 2]
    )
    np.testing.assert_allclose(three.bias[:2], two.bias, atol=1e-9)
    assert not np.isnan(three.weights).any()


def test_a_member_s_mean_is_held_back_by_the_share_of_rows_it_lacks():
    """a: 20 rows, all ½. b: 5 of them, right: (5 + 10 · ¾ · (10 + 5) / 25) / (5 + 10 · ¾) = .76 at first; the rest of its rows,

    of which its deviation from ¼ · .12 + .3 ... is held back alike, moves it little. Slopes are nil.
    """
    scores = np.full((20, 2), 0.5)
    scores[:, 1] = nan
    scores[:5, 1] = 1.0
    bias = fit_competence(np.zeros((20, 1)), scores, penalty=(1.0, 1.0)).bias
    np.testing.assert_allclose(bias[0], 0.5, atol=0.03)
    assert 0.76 <= bias[1] < 0.9


def test_a_weak_member_asked_on_hard_queries_only_is_told_from_a_bad_one():
    """All are right on easy queries. Of the hard ones a and b are right on half, so is c, which saw no others.

    Its plain mean, ½, would have it the worst; it is as good as they are.
    """
    rng = np.random.default_rng(6)
    hard = np.arange(2000) % 2
    scores = np.where(hard[:, None] == 1, rng.random((2000, 3)) < 0.5, 1.0).astype(float)
    scores[hard == 0, 2] = nan
    estimates = fit_competence(hard[:, None].astype(float), scores, penalty=(1.0, 1.0))(hard[:, None].astype(float))
    np.testing.assert_allclose(estimates[hard == 1].mean(axis=0), 0.5, atol=0.05)


def test_the_penalty_chosen_has_the_least_error_and_its_estimates_are_returned():
    """By cross-validation done again by hand, fold by fold."""
    rng = np.random.default_rng(4)
    features, folds, penalties = rng.normal(size=(30, 2)), np.arange(30) % 3, (0.1, 10.0, 1000.0)
    scores = (features[:, :1] + rng.normal(size=(30, 1)) > 0).astype(float)
    by_hand = {}
    for penalty in penalties:
        estimates = np.empty((30, 1))
        for fold in range(3):
            model = fit_competence(features[folds != fold], scores[folds != fold], penalty=(penalty, penalty))
            estimates[folds == fold] = model(features[folds == fold])
        by_hand[penalty] = estimates
    estimates, (chosen, _) = cross_fitted(features, scores, folds, penalties=(penalties, penalties))
    assert chosen == min(penalties, key=lambda penalty: ((by_hand[penalty] - scores) ** 2).mean())
    np.testing.assert_allclose(estimates, by_hand[chosen])


def test_a_query_s_own_score_never_reaches_its_cross_fitted_estimate():
    rng = np.random.default_rng(1)
    features, scores, folds = rng.normal(size=(20, 3)), rng.random((20, 2)), np.arange(20) % 4
    before = cross_fitted(features, scores, folds, penalties=([1.0], [1.0]))[0]
    scores[7] = 1 - scores[7]
    after = cross_fitted(features, scores, folds, penalties=([1.0], [1.0]))[0]
    np.testing.assert_array_equal(before[folds == folds[7]], after[folds == folds[7]])
    assert (before != after).any()


def test_noise_chooses_the_strongest_penalty_and_signal_a_weak_one():
    rng = np.random.default_rng(2)
    features, folds = rng.normal(size=(200, 5)), np.arange(200) % 5
    noise = (rng.random((200, 1)) < 0.5).astype(float)
    signal = (features[:, :1] > 0).astype(float)
    assert cross_fitted(features, noise, folds)[1] > cross_fitted(features, signal, folds)[1]


def test_one_fold_falls_back_to_the_mean():
    scores = np.array([[1.0, 0.0], [0.0, 0.0]])
    estimates = cross_fitted(np.zeros((2, 3)), scores, np.zeros(2, dtype=int))[0]
    np.testing.assert_allclose(estimates, [[0.5, 0.02], [0.5, 0.02]])

"""Competence estimates: closed form, honest folds."""

import numpy as np

from langchain_rlfocal.policies.evidence import cross_fitted, fit_competence


def test_ridge_matches_a_hand_worked_fit():
    """Features ±1, scores 1 and 0, λ = 2: centred X = (1, -1), S - mean = (½, -½); W = 1 / (2 + 2) = ¼."""
    model = fit_competence(np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]]), penalty=2.0)
    np.testing.assert_allclose(model.weights, [[0.25]])
    np.testing.assert_allclose(model(np.array([[1.0], [-1.0]])), [[0.75], [0.25]])


def test_ridge_solves_its_normal_equations_even_with_fewer_queries_than_features():
    """(XᵀX + λI) W = Xᵀ(S − mean of S)."""
    rng = np.random.default_rng(0)
    features, scores = rng.normal(size=(6, 9)), rng.random((6, 2))
    centred = features - features.mean(axis=0)
    weights = fit_competence(features, scores, penalty=0.5).weights
    left = (centred.T @ centred + 0.5 * np.eye(9)) @ weights
    np.testing.assert_allclose(left, centred.T @ (scores - scores.mean(axis=0)), atol=1e-12)


def test_estimates_stay_inside_the_unit_interval():
    model = fit_competence(np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]]), penalty=1e-3)
    np.testing.assert_allclose(model(np.array([[50.0], [-50.0]])), [[0.98], [0.02]])


def test_a_member_s_estimate_depends_on_its_own_scores_only():
    """So a member can be left out, or join later, without a new fit of the others."""
    rng = np.random.default_rng(3)
    features, scores = rng.normal(size=(20, 3)), rng.random((20, 3))
    together = fit_competence(features, scores, penalty=1.0)(features)
    np.testing.assert_allclose(fit_competence(features, scores[:, [1]], penalty=1.0)(features), together[:, [1]])


def test_the_penalty_chosen_has_the_least_error_and_its_estimates_are_returned():
    """By cross-validation done again by hand, fold by fold."""
    rng = np.random.default_rng(4)
    features, folds, penalties = rng.normal(size=(30, 2)), np.arange(30) % 3, (0.1, 10.0, 1000.0)
    scores = (features[:, :1] + rng.normal(size=(30, 1)) > 0).astype(float)
    by_hand = {}
    for penalty in penalties:
        estimates = np.empty((30, 1))
        for fold in range(3):
            model = fit_competence(features[folds != fold], scores[folds != fold], penalty=penalty)
            estimates[folds == fold] = model(features[folds == fold])
        by_hand[penalty] = estimates
    estimates, chosen = cross_fitted(features, scores, folds, penalties=penalties)
    assert chosen == min(penalties, key=lambda penalty: ((by_hand[penalty] - scores) ** 2).mean())
    np.testing.assert_allclose(estimates, by_hand[chosen])


def test_a_query_s_own_score_never_reaches_its_cross_fitted_estimate():
    rng = np.random.default_rng(1)
    features, scores, folds = rng.normal(size=(20, 3)), rng.random((20, 2)), np.arange(20) % 4
    before = cross_fitted(features, scores, folds, penalties=[1.0])[0]
    scores[7] = 1 - scores[7]
    after = cross_fitted(features, scores, folds, penalties=[1.0])[0]
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

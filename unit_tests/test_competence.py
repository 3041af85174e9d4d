"""Competence estimates: closed form, honest folds."""

import numpy as np

from langchain_rlfocal.policies.competence import cross_fitted, fit_competence


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

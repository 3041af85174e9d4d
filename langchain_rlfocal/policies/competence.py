"""Competence: how well each member is likely to do near a query.

A ridge regression from query features to each member's score, closed form and deterministic. A member's estimate depends
on its own outcomes only, so a member can be left out, or fitted later from a small probe, without touching the others.
Estimates that training learns from come from folds that did not see the query (`cross_fitted`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.observations import Floats, Ints

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Ridge penalties to choose from by cross-validation; the last leaves little but each member's mean score."""

_LOW, _HIGH = 0.02, 0.98


@dataclass(frozen=True, slots=True)
class CompetenceModel:
    """Linear estimate of every member's score.

    Attributes:
        weights: Weights, shape [F, M].
        bias: Each member's estimate at the mean query, shape [M].
        mean: Mean features of the queries it was fitted on, shape [F].
    """

    weights: Floats
    bias: Floats
    mean: Floats

    def __call__(self, features: Floats) -> Floats:
        """Estimate scores, shape [Q, M], inside [0.02, 0.98], from features of shape [Q, F]."""
        estimates: Floats = np.clip((features - self.mean) @ self.weights + self.bias, _LOW, _HIGH)
        return estimates


def fit_competence(features: Floats, scores: Floats, *, penalty: float) -> CompetenceModel:
    """Fit by ridge regression: W = (XᵀX + λI)⁻¹ Xᵀ(S - mean of S), with X the centred features.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], shape [Q, M].
        penalty: λ > 0.
    """
    mean, bias = features.mean(axis=0), scores.mean(axis=0)
    centred = features - mean
    if len(features) < features.shape[1]:  # fewer queries than features: the same solution in the smaller space
        gram = centred @ centred.T + penalty * np.eye(len(features))
        weights = centred.T @ np.linalg.solve(gram, scores - bias)
    else:
        gram = centred.T @ centred + penalty * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (scores - bias))
    return CompetenceModel(weights=weights, bias=bias, mean=mean)


def cross_fitted(features: Floats, scores: Floats, folds: Ints, *, penalty: float) -> Floats:
    """Estimate each query's scores with a model that was fitted without its fold, shape [Q, M]."""
    estimates = np.empty_like(scores)
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():  # one fold only: its own mean is the best there is
            means: Floats = np.clip(np.broadcast_to(scores.mean(axis=0), scores.shape), _LOW, _HIGH)
            return means
        estimates[out] = fit_competence(features[~out], scores[~out], penalty=penalty)(features[out])
    return estimates


def choose_penalty(features: Floats, scores: Floats, folds: Ints, *, penalties: Sequence[float] = PENALTIES) -> float:
    """Choose the penalty of least cross-validated squared error; ties go to the stronger penalty."""
    errors = [
        (float(np.mean((cross_fitted(features, scores, folds, penalty=penalty) - scores) ** 2)), -penalty)
        for penalty in penalties
    ]
    return -min(errors)[1]

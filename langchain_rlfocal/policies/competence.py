"""Competence: how well each member is likely to do near a query.

A ridge regression from query features to each member's score, closed form and deterministic. A member's estimate depends
on its own outcomes only, so a member can be left out, or fitted later from a small probe, without touching the others.
Estimates that training learns from come from folds that did not see the query (`cross_fitted`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.states import Floats, Ints

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


def _fit(features: Floats, scores: Floats, penalties: Sequence[float]) -> list[CompetenceModel]:
    """Fit for several penalties λ at the price of one.

    With the centred features X and XᵀX = V diag(s) Vᵀ:

        W = (XᵀX + λI)⁻¹ Xᵀ(S − mean of S) = V diag(1 / (s + λ)) Vᵀ Xᵀ(S − mean of S)
    """
    mean, bias = features.mean(axis=0), scores.mean(axis=0)
    centred = features - mean
    spectrum, vectors = np.linalg.eigh(centred.T @ centred)
    projected = vectors.T @ (centred.T @ (scores - bias))
    return [
        CompetenceModel(weights=vectors @ (projected / (spectrum[:, None] + penalty)), bias=bias, mean=mean)
        for penalty in penalties
    ]


def fit_competence(features: Floats, scores: Floats, *, penalty: float) -> CompetenceModel:
    """Fit by ridge regression.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], shape [Q, M].
        penalty: λ > 0.
    """
    return _fit(features, scores, [penalty])[0]


def cross_fitted(
    features: Floats, scores: Floats, folds: Ints, *, penalties: Sequence[float] = PENALTIES
) -> tuple[Floats, float]:
    """Estimate each query's scores with a model that was fitted without its fold.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], shape [Q, M].
        folds: Each query's fold, shape [Q].
        penalties: Penalties to choose from.

    Returns:
        Estimates, shape [Q, M], and the penalty that made them: that of least squared error, the stronger in a tie.
    """
    estimates = np.empty((len(penalties), *scores.shape))
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():  # one fold only: its own mean is the best there is
            return np.clip(np.tile(scores.mean(axis=0), (len(scores), 1)), _LOW, _HIGH), max(penalties)
        for estimate, model in zip(estimates, _fit(features[~out], scores[~out], penalties), strict=True):
            estimate[out] = model(features[out])
    errors = ((estimates - scores) ** 2).mean(axis=(1, 2))
    best = min(range(len(penalties)), key=lambda i: (errors[i], -penalties[i]))
    return estimates[best], penalties[best]

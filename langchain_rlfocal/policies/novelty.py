"""Novelty: how far a query is from those that were trained on.

The share of a query's features that the training queries do not reach, as a ridge regression on these would have it: a
direction in which they have the squared length s is known by s / (s + λ).

    n(q) = 1 − Σ_r s_r / (s_r + λ) (v_r·x)² / |x|²            x = features of q minus their mean,  XᵀX = V diag(s) Vᵀ

The posterior variance of a ridge estimate is in proportion to it: 1 says that nothing was learned about such a query.
"""

from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.features import MOST_CELLS, row_blocks
from langchain_rlfocal.states import Floats, Ints

KNOWN_QUERIES = 10.0
"""λ: a direction is half known when so many queries point there."""

NUM_DIRECTIONS = 64
"""R: of more directions, those that the fewest queries point to count as unknown."""


@dataclass(frozen=True, slots=True)
class NoveltyModel:
    """What the training queries reach.

    Attributes:
        mean: Their mean features, shape [F].
        directions: v_r times √(s_r / (s_r + λ)), shape [F, R].
    """

    mean: Floats
    directions: Floats

    def __call__(self, features: Floats) -> Floats:
        """Measure novelty, in [0, 1], shape [Q], of features of shape [Q, F]."""
        centred = features - self.mean
        known = np.square(centred @ self.directions).sum(axis=1)
        return np.asarray(np.clip(1.0 - known / np.maximum(np.square(centred).sum(axis=1), 1e-12), 0.0, 1.0))


def fit_novelty(features: Floats) -> NoveltyModel:
    """Find what queries with these features reach, shape [Q, F]."""
    mean = features.mean(axis=0)
    if features.size <= MOST_CELLS:
        centred = features - mean
        gram = centred.T @ centred
    else:
        gram = np.zeros((features.shape[1],) * 2)
        for block in row_blocks(len(features)):
            centred = features[block] - mean
            gram += centred.T @ centred
    spectrum, vectors = np.linalg.eigh(gram)
    spectrum = np.maximum(spectrum[-NUM_DIRECTIONS:], 0.0)
    scale = np.sqrt(spectrum / (spectrum + KNOWN_QUERIES))
    return NoveltyModel(mean=mean, directions=vectors[:, -NUM_DIRECTIONS:] * scale)


def cross_fitted_novelty(features: Floats, folds: Ints) -> Floats:
    """Measure each query's novelty to the queries outside its fold, shape [Q]; within it where there is one fold only."""
    novelty = np.empty(len(features))
    for fold in np.unique(folds):
        inside = folds == fold
        novelty[inside] = fit_novelty(features[inside if inside.all() else ~inside])(features[inside])
    return novelty

"""Metrics: means with their uncertainty, the scale from single best to Oracle, and how long a query waits.

Pure functions of figures per query. An interval comes with every mean, differences are paired by query, and randomness is an
argument.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BOOTSTRAP_SAMPLES = 2000

CALIBRATION_BINS = 10
"""Bins of confidence, alike in width."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % bootstrap interval.

    Attributes:
        mean: The mean itself.
        low: 2.5 % quantile of the resampled means.
        high: 97.5 % quantile of the resampled means.
        n: Number of queries that it is the mean of.
    """

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: Floats, *, rng: np.random.Generator, weights: Floats | None = None) -> Estimate:
    """Estimate a mean over queries with a percentile bootstrap interval.

    Resampling n queries with replacement draws each distinct value as often as a multinomial of its share says, so the
    resamples are drawn as counts of distinct values: the same distribution, without an index per query.

    Source: Efron and Tibshirani, 1993, "An introduction to the bootstrap", chapter 13.

    Args:
        values: One value per query, shape [Q].
        rng: Source of the resamples.
        weights: What each query counts, above 0, shape [Q]; None counts all alike. See `inverse_propensity`.

    Raises:
        InputError: There is no query, or a value is not finite.
    """
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(
            f"`values` must be at least one finite number per query, got shape {values.shape}. Leave unscored queries out."
        )
    if weights is None:
        distinct, counts = np.unique(values, return_counts=True)
        resamples = rng.multinomial(len(values), counts / len(values), size=BOOTSTRAP_SAMPLES)
        means, mean = resamples @ distinct / len(values), float(values.mean())
    else:
        pairs, counts = np.unique(np.stack([values * weights, weights], axis=1), axis=0, return_counts=True)
        resamples = rng.multinomial(len(values), counts / len(values), size=BOOTSTRAP_SAMPLES)
        totals = resamples @ pairs
        means, mean = totals[:, 0] / totals[:, 1], float(np.average(values, weights=weights))
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(values))


def inverse_propensity(propensity: Floats, needed: Bools) -> Floats | None:
    """Weigh queries that are on record only if certain members happened to be asked.

        w = Π over the members needed of 1 / propensity

    A mean with these weights, divided by their sum, is Hájek's: it is consistent for the mean over all queries where the
    members were asked independently of each other and of what they would have answered, beyond what the propensity knows.

    Source: Horvitz and Thompson, 1952, "A generalization of sampling without replacement from a finite universe", with the
    ratio of Hájek, 1971. An estimate that also models the missing scores is doubly robust: Dudík et al., 2011,
    https://arxiv.org/abs/1103.4601.

    Args:
        propensity: Probability with which each member was asked, NaN where unknown, shape [Q, M].
        needed: The members without whom the query would not count, shape [Q, M].

    Returns:
        Weights, shape [Q]; None where one of them is unknown, or all are equal and so change nothing.
    """  # fmt: skip
    weights = 1.0 / np.where(needed, propensity, 1.0).prod(axis=1)
    is_known = bool(np.isfinite(weights).all())
    return weights if is_known and len(weights) and np.ptp(weights) > 0 else None


def paired_difference(
    scores: Floats, baseline: Floats, *, rng: np.random.Generator, weights: Floats | None = None
) -> Estimate:
    """Estimate the mean of `scores − baseline` over the same queries, which are resampled together.

    Args:
        scores: Score per query, shape [Q].
        baseline: Score of the baseline on the same queries, shape [Q].
        rng: Source of the resamples.
        weights: As in `bootstrap_mean`.

    Raises:
        InputError: The two are not of one length, or there is no query.
    """
    if scores.shape != baseline.shape:
        raise InputError(
            f"`baseline` must score the same queries as `scores` ({scores.shape}), got {baseline.shape}. "
            "Evaluate both on one grid."
        )
    return bootstrap_mean(scores - baseline, rng=rng, weights=weights)


def oracle_gap_share(score: float, *, single_best: float, oracle: float) -> float | None:
    """Share of the way from the single best member to the Oracle: 0 at the one, 1 at the other, negative below both.

    Returns:
        The share, or None where the Oracle is no better than the single best, so that there is no way to go.
    """
    return (score - single_best) / (oracle - single_best) if oracle > single_best else None


def expected_calibration_error(confidence: Floats, scores: Floats, *, weights: Floats | None = None) -> float:
    """Measure how far confidence is from how often the answer is right.

    Queries are put into `CALIBRATION_BINS` bins of confidence, [0, 0.1), ..., [0.9, 1]:

        ECE = Σ over bins b of share(b) · |mean confidence in b − mean score in b|

    Source: Naeini, Cooper and Hauskrecht, 2015, "Obtaining well calibrated probabilities using Bayesian binning".

    Args:
        confidence: Confidence in the returned answer, in [0, 1], shape [Q].
        scores: What that was worth, in [0, 1], shape [Q].
        weights: What each query counts, shape [Q]; None counts all alike.

    Raises:
        InputError: The two are not of one length, there is no query, or a value is not finite.
    """
    if confidence.shape != scores.shape or not len(scores) or not np.isfinite(confidence + scores).all():
        raise InputError(
            f"`confidence` and `scores` must hold a finite number for each query, got shapes {confidence.shape} and "
            f"{scores.shape}. Leave unscored queries out."
        )
    counted = np.ones(len(scores)) if weights is None else weights
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, counted * (confidence - scores), CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / counted.sum())

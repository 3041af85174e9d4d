"""Pairs: how differently two members fail.

Each function returns a symmetric table of shape [M, M]; `mean_over_pairs` makes one figure of it. What grows with diversity
and what with agreement is said in the package's header.
"""

import numpy as np

from langchain_rlfocal.diversity.checks import Bools, Floats, wrong_of, wrong_of_some
from langchain_rlfocal.errors import InputError


def pairwise_focal_diversity(correct: Bools) -> Floats:
    """Measure the focal diversity of every pair.

    With q = P(other fails | f fails), GD_f of a pair is (1 − q)/(1 + q); the pair's figure is the mean of both views.

    Args:
        correct: Shape [Q, M].

    Returns:
        Shape [M, M], symmetric, in [0, 1]; 0 on the diagonal, also for a member that never fails.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member.
    """
    wrong = wrong_of(correct)
    both = wrong.T @ wrong
    fails = np.diag(both)[:, None]
    view = np.divide(fails - both, fails + both, out=np.ones_like(both), where=fails > 0)
    np.fill_diagonal(view, 0.0)
    return np.asarray((view + view.T) / 2)


def disagreement(correct: Bools) -> Floats:
    """Share of queries that exactly one of two members gets right: (n01 + n10)/n, shape [M, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    _, _, n10, n01 = _counts(correct)
    return np.asarray((n01 + n10) / len(correct))


def double_fault(correct: Bools) -> Floats:
    """Share of queries that both of two members get wrong: n00/n, shape [M, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    _, n00, _, _ = _counts(correct)
    return np.asarray(n00 / len(correct))


def kappa(correct: Bools) -> Floats:
    """Cohen's kappa of two members' correctness, shape [M, M], in [−1, 1].

        κ = 2(n11 n00 − n01 n10)/((n11 + n10)(n01 + n00) + (n11 + n01)(n10 + n00))

    Args:
        correct: Shape [Q, M]. With n11 both right, n00 both wrong, n10 and n01 one of them right.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """  # fmt: skip
    n11, n00, n10, n01 = _counts(correct)
    scale = (n11 + n10) * (n01 + n00) + (n11 + n01) * (n10 + n00)
    return _association(2 * (n11 * n00 - n01 * n10), scale, identical=n01 + n10 == 0)


def yule_q(correct: Bools) -> Floats:
    """Yule's Q of two members' correctness, shape [M, M], in [−1, 1].

        Q = (n11 n00 − n01 n10)/(n11 n00 + n01 n10)

    Args:
        correct: Shape [Q, M]. With n11 both right, n00 both wrong, n10 and n01 one of them right.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    n11, n00, n10, n01 = _counts(correct)
    return _association(n11 * n00 - n01 * n10, n11 * n00 + n01 * n10, identical=n01 + n10 == 0)


def phi(correct: Bools) -> Floats:
    """Phi correlation of two members' correctness, shape [M, M], in [−1, 1].

        φ = (n11 n00 − n01 n10)/√((n11 + n10)(n01 + n00)(n11 + n01)(n10 + n00))

    Args:
        correct: Shape [Q, M]. With n11 both right, n00 both wrong, n10 and n01 one of them right.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    n11, n00, n10, n01 = _counts(correct)
    scale = np.sqrt((n11 + n10) * (n01 + n00)) * np.sqrt((n11 + n01) * (n10 + n00))
    return _association(n11 * n00 - n01 * n10, scale, identical=n01 + n10 == 0)


def mean_over_pairs(measure: Floats) -> float:
    """Average a pairwise measure over the pairs of a team.

    Args:
        measure: Shape [M, M], symmetric.

    Raises:
        InputError: There is no pair.
    """
    first, second = np.triu_indices(len(measure), k=1)
    if not len(first):
        raise InputError(
            f"`measure` must hold a pair of members, got {len(measure)} member. Pass a team of two or more."
        )
    return float(measure[first, second].mean())


def _counts(correct: Bools) -> tuple[Floats, Floats, Floats, Floats]:
    """Count the queries that both got right, both wrong, only the first right, only the second right: [M, M] each."""
    wrong = wrong_of_some(correct)
    right = 1.0 - wrong
    return right.T @ right, wrong.T @ wrong, right.T @ wrong, wrong.T @ right


def _association(value: Floats, scale: Floats, *, identical: Bools) -> Floats:
    """Divide where the scale is not 0; else 1 for members that are right on the same queries, and 0 for others."""
    return np.asarray(np.divide(value, scale, out=identical.astype(np.float64), where=scale > 0))

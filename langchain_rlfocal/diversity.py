"""Diversity: how differently the members of a team fail.

Pure functions of `correct`, a bool array of shape [Q, M]: whether each member answered each query right. For the figures of
one team, pass its columns.

`generalized_diversity`, `focal_diversity`, `pairwise_focal_diversity` and `disagreement` grow with diversity; `kappa`,
`yule_q`, `phi` and `double_fault` grow with *agreement*. Never add the two kinds up with one sign, and never compare teams
of different sizes: even for independent errors the first kind grows with accuracy and team size.

Edge cases, the same everywhere:
- Nobody ever fails: nothing can fail together, so the generalised and focal diversities are 1 (their p(2)/p(1) is 0/0).
- One member: it shares every failure with itself, as identical members do, so its diversities are 0.
- A member that is always right, or always wrong: no association can be measured, so `kappa`, `yule_q` and `phi` are 0 with
  it; they are 1 for two members that are right and wrong on the very same queries, even then.
"""

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Correct = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def generalized_diversity(correct: Correct) -> float:
    """Measure how rarely two members fail together, over all queries.

    With p_i the share of queries on which exactly i of m members fail:

        p(1) = Σ i/m p_i;  p(2) = Σ i(i−1)/(m(m−1)) p_i;  GD = 1 − p(2)/p(1)

    Source: Partridge and Krzanowski, 1997, "Software diversity: practical statistics for its measurement and exploitation".

    Args:
        correct: Shape [Q, M].

    Returns:
        In [0, 1]; 0 for identical members that fail, 1 if no two ever fail together.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member.
    """
    wrong = _wrong(correct)
    failures = wrong.sum(axis=1)
    return float(_one_minus_ratio(failures @ (failures - 1), failures.sum(), members=wrong.shape[1]))


def focal_diversity(correct: Correct) -> float:
    """Measure a team's diversity from the view of each member's failures.

    For each member f, GD_f is `generalized_diversity` over the queries that f fails, f itself included:

        focal = mean over f of GD_f

    Source: Wu et al., 2021, "Boosting ensemble accuracy by revisiting ensemble diversity metrics" (CVPR), as used by Tekin et
    al., "Dynamic optimizations of LLM ensembles with two-stage reinforcement learning agents".
    https://arxiv.org/abs/2502.04492

    Args:
        correct: Shape [Q, M].

    Returns:
        In [0, 1]. A member that never fails contributes 1.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member.
    """
    wrong = _wrong(correct)
    failures = wrong.sum(axis=1)
    together, alone = wrong.T @ (failures * (failures - 1)), wrong.T @ failures
    return float(_one_minus_ratio(together, alone, members=wrong.shape[1]).mean())


def pairwise_focal_diversity(correct: Correct) -> Floats:
    """Measure the focal diversity of every pair.

    With q = P(other fails | f fails), GD_f of a pair is (1 − q)/(1 + q); the pair's figure is the mean of both views.

    Args:
        correct: Shape [Q, M].

    Returns:
        Shape [M, M], symmetric, in [0, 1]; 0 on the diagonal, also for a member that never fails.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member.
    """
    wrong = _wrong(correct)
    both = wrong.T @ wrong
    fails = np.diag(both)[:, None]
    view = np.divide(fails - both, fails + both, out=np.ones_like(both), where=fails > 0)
    np.fill_diagonal(view, 0.0)
    return np.asarray((view + view.T) / 2)


def disagreement(correct: Correct) -> Floats:
    """Share of queries that exactly one of two members gets right: (n01 + n10)/n, shape [M, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    _, _, n10, n01 = _counts(correct)
    return np.asarray((n01 + n10) / len(correct))


def double_fault(correct: Correct) -> Floats:
    """Share of queries that both of two members get wrong: n00/n, shape [M, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    _, n00, _, _ = _counts(correct)
    return np.asarray(n00 / len(correct))


def kappa(correct: Correct) -> Floats:
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


def yule_q(correct: Correct) -> Floats:
    """Yule's Q of two members' correctness, shape [M, M], in [−1, 1].

        Q = (n11 n00 − n01 n10)/(n11 n00 + n01 n10)

    Args:
        correct: Shape [Q, M]. With n11 both right, n00 both wrong, n10 and n01 one of them right.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    n11, n00, n10, n01 = _counts(correct)
    return _association(n11 * n00 - n01 * n10, n11 * n00 + n01 * n10, identical=n01 + n10 == 0)


def phi(correct: Correct) -> Floats:
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


def _wrong(correct: Correct) -> Floats:
    if correct.ndim != 2 or correct.dtype != np.bool_ or not correct.shape[1]:
        raise InputError(
            f"`correct` must be a bool array of shape [Q, M] with a member, got {correct.dtype} of shape "
            f"{correct.shape}. Threshold the scores first, such as `scores >= 0.5`."
        )
    wrong: Floats = (~correct).astype(np.float64)
    return wrong


def _counts(correct: Correct) -> tuple[Floats, Floats, Floats, Floats]:
    """Count the queries that both got right, both wrong, only the first right, only the second right: [M, M] each."""
    wrong = _wrong(correct)
    if not len(wrong):
        raise InputError("`correct` must hold at least one query, got none. A share of no queries has no value.")
    right = 1.0 - wrong
    return right.T @ right, wrong.T @ wrong, right.T @ wrong, wrong.T @ right


def _one_minus_ratio(together: npt.ArrayLike, alone: npt.ArrayLike, *, members: int) -> Floats:
    """Return 1 − p(2)/p(1), where p(2)/p(1) = Σ i(i−1)/((m−1) Σ i): m and the number of queries cancel."""
    together, alone = np.asarray(together, dtype=np.float64), np.asarray(alone, dtype=np.float64)
    if members == 1:
        return np.zeros_like(alone)
    ratio = np.divide(together, (members - 1) * alone, out=np.zeros_like(alone), where=alone > 0)
    return np.asarray(1.0 - ratio)


def _association(value: Floats, scale: Floats, *, identical: npt.NDArray[np.bool_]) -> Floats:
    """Divide where the scale is not 0; else 1 for members that are right on the same queries, and 0 for others."""
    return np.asarray(np.divide(value, scale, out=identical.astype(np.float64), where=scale > 0))

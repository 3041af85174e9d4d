"""Measures: how differently the members of one team fail, and what their answers are worth together.

What grows with diversity and what with agreement is said in the package's header.
"""

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.diversity.checks import Bools, Floats, check_answer_ids, wrong_of, wrong_of_some
from langchain_rlfocal.errors import InputError


def generalized_diversity(correct: Bools) -> float:
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
    wrong = wrong_of(correct)
    failures = wrong.sum(axis=1)
    return float(one_minus_ratio(failures @ (failures - 1), failures.sum(), members=wrong.shape[1]))


def focal_diversity(correct: Bools) -> float:
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
    wrong = wrong_of(correct)
    failures = wrong.sum(axis=1)
    together, alone = wrong.T @ (failures * (failures - 1)), wrong.T @ failures
    return float(one_minus_ratio(together, alone, members=wrong.shape[1]).mean())


def independent_focal_diversity(error_rates: Floats) -> float:
    """Compute the focal diversity of members whose errors are independent: what chance alone gives.

    Given that f fails, i = 1 + X members fail, where X, the failures among the others, is Poisson-binomial. Its factorial
    moments are sums over those others, j, k ≠ f:

        E[i] = 1 + Σ_j e_j;  E[i(i−1)] = E[2X + X(X−1)] = 2 Σ_j e_j + Σ_{j≠k} e_j e_k
        GD_f = 1 − E[i(i−1)]/((m−1) E[i]);  focal = mean over f of GD_f

    For equal rates e that is 1 − (2e + (m−2)e²)/(1 + (m−1)e): it rises with accuracy and with team size.

    Args:
        error_rates: Each member's share of wrong answers, shape [M].

    Returns:
        In [0, 1]; 0 for one member. A member that never fails contributes 1, as in `focal_diversity`.

    Raises:
        InputError: `error_rates` are not at least one share in [0, 1].
    """
    if error_rates.ndim != 1 or not len(error_rates) or not ((error_rates >= 0) & (error_rates <= 1)).all():
        raise InputError(
            f"`error_rates` must be one share in [0, 1] per member, got {error_rates.tolist()!r:.80}. Pass "
            "`1 - correct.mean(axis=0)`."
        )
    return float(independent_by_team(error_rates, np.ones((1, len(error_rates)), dtype=bool))[0])


def accuracy_adjusted_diversity(correct: Bools) -> float:
    """Measure the focal diversity that accuracy and team size do not explain.

        adjusted = focal − focal of independent errors with the members' own error rates

    Above 0 the members fail apart more than chance would have it, below 0 they share failures. It tells shared failures
    from chance, not good teams from bad ones: both terms shrink where members fail often, and their difference with them.
    See `independent_focal_diversity` for the term that is taken off.

    Args:
        correct: Shape [Q, M].

    Returns:
        In [−1, 1]; 0 if nobody ever fails, and for one member.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """  # fmt: skip
    return focal_diversity(correct) - float(independent_focal_diversity(wrong_of_some(correct).mean(axis=0)))


def entropy(correct: Bools) -> float:
    """Measure how evenly the members split into right and wrong: the entropy measure E.

    With l of m members right on a query:

        E = mean over queries of min(l, m − l)/(m − ⌈m/2⌉)

    Source: Kuncheva and Whitaker, 2003, "Measures of diversity in classifier ensembles and their relationship with the
    ensemble accuracy" (Machine Learning 51), who call it entropy though it takes no logarithm.

    Args:
        correct: Shape [Q, M].

    Returns:
        In [0, 1]; 0 if all members are right on the same queries, 1 if every query splits them in halves.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query.
    """
    wrong = wrong_of_some(correct)
    members = wrong.shape[1]
    failures = wrong.sum(axis=1)
    return float(np.minimum(failures, members - failures).mean() / max(members // 2, 1))


def fleiss_kappa(categories: npt.NDArray[np.integer] | Bools) -> float:
    """Fleiss' kappa: how much more often two members say the same than chance would have it.

    With n_qk the members that give query q category k, and p_k the share of all answers that are k:

        P̄ = mean over q of Σ_k n_qk(n_qk − 1)/(m(m−1));  P_e = Σ_k p_k²;  κ = (P̄ − P_e)/(1 − P_e)

    Categories must mean the same in every query, or the chance P_e has no meaning: options A to J do, the row-local
    `OutcomeGrid.answer_ids` do not. `correct` itself has two categories, right and wrong.

    Source: Fleiss, 1971, "Measuring nominal scale agreement among many raters".

    Args:
        categories: Code of each member's answer, shape [Q, M]; no answer is a category like any other.

    Returns:
        In [−1/(m − 1), 1]; 1 if all members always say the same.

    Raises:
        InputError: `categories` are not bool or whole numbers of shape [Q, M], with at least one member and one query.
    """
    is_code = categories.dtype == np.bool_ or np.issubdtype(categories.dtype, np.integer)
    if categories.ndim != 2 or not is_code or not categories.size:
        raise InputError(
            f"`categories` must be bool or whole numbers of shape [Q, M] with a query and a member, got "
            f"{categories.dtype} of shape {categories.shape}. Number the answers alike in all queries."
        )
    queries, members = categories.shape
    counts = np.unique(categories, return_counts=True)[1]
    if members == 1 or len(counts) == 1:
        return 1.0
    same = sum(np.count_nonzero(categories == categories[:, [member]]) for member in range(members))
    observed = (same / queries - members) / (members * (members - 1))
    expected = ((counts / categories.size) ** 2).sum()
    return float((observed - expected) / (1 - expected))


def plurality_accuracy(answer_ids: npt.NDArray[np.integer], correct: Bools) -> float:
    """Share of queries on which the answer that most members give is right.

    Of equally supported answers, the one of the earliest member wins, and the verdict on it is that on its earliest
    supporter. A member without an answer abstains; if all do, the earliest member's verdict stands. Put the members in
    order of accuracy, the best first, to break ties as the baseline `evaluation.Plurality` does.

    Args:
        answer_ids: Shape [Q, M]; equal within a query where answers are the same, -1 for none, as in `OutcomeGrid`.
        correct: Shape [Q, M].

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query, or `answer_ids`
            are not whole numbers from -1 of that shape.
    """
    wrong_of_some(correct)
    check_answer_ids(answer_ids, correct)
    same = (answer_ids[:, :, None] == answer_ids[:, None, :]) & (answer_ids >= 0)[:, :, None]
    # Of the greatest, argmax takes the first.
    chosen = same.sum(axis=2).argmax(axis=1)
    return float(correct[np.arange(len(correct)), chosen].mean())


def independent_by_team(error_rates: Floats, teams: Bools) -> Floats:
    """Compute `independent_focal_diversity` of each team: error rates of shape [M], teams [T, M], figures [T]."""
    rates = np.where(teams, error_rates, 0.0)
    sizes = teams.sum(axis=1, keepdims=True)
    others = rates.sum(axis=1, keepdims=True) - rates
    products = others**2 - ((rates**2).sum(axis=1, keepdims=True) - rates**2)
    fails = rates > 0
    views = one_minus_ratio(fails * (2 * others + products), fails * (1 + others), members=sizes)
    return mean_over_members(views, teams)


def mean_over_members(views: Floats, teams: Bools) -> Floats:
    """Average a figure per team and member, shape [T, M], over the members of each team, shape [T]."""
    return np.asarray((views * teams).sum(axis=1) / teams.sum(axis=1))


def one_minus_ratio(together: npt.ArrayLike, alone: npt.ArrayLike, *, members: npt.ArrayLike) -> Floats:
    """Return 1 − p(2)/p(1), where p(2)/p(1) = Σ i(i−1)/((m−1) Σ i): m and the number of queries cancel.

    It is 0 for one member, and 1 where nothing fails; all three arguments have one shape or broadcast to that of `alone`.
    """
    together, members = np.asarray(together, dtype=np.float64), np.asarray(members)
    scale = np.asarray((members - 1) * np.asarray(alone, dtype=np.float64))
    ratio = np.divide(together, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.where(members == 1, 0.0, 1.0 - ratio)

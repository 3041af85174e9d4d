"""Diversity: how differently the members of a team fail.

Pure functions of `correct`, a bool array of shape [Q, M]: whether each member answered each query right. For the figures of
one team, pass its columns; `team_diversities` measures all teams of a pool at once. Pass the queries on which all of its
members were scored, since an unscored answer is neither right nor wrong.

`generalized_diversity`, `focal_diversity`, `accuracy_adjusted_diversity`, `pairwise_focal_diversity`, `disagreement` and
`entropy` grow with diversity; `kappa`, `yule_q`, `phi`, `double_fault` and `fleiss_kappa` grow with *agreement*. Never add
the two kinds up with one sign, and never compare the raw figures of teams of different sizes: even for independent errors
the first kind grows with accuracy and team size (`accuracy_adjusted_diversity` takes that part off). `plurality_accuracy`
is neither: it is what the answers are worth together.

Edge cases, the same everywhere:
- Nobody ever fails: nothing can fail together, so the generalised and focal diversities are 1 (their p(2)/p(1) is 0/0).
- One member: it shares every failure with itself, as identical members do, so its diversities are 0 and its agreements 1.
- A member that is always right, or always wrong: no association can be measured, so `kappa`, `yule_q` and `phi` are 0 with
  it; they are 1 for two members that are right and wrong on the very same queries, even then. `fleiss_kappa` is 1 where
  everyone gives the same answer to all queries.

Every function raises an `InputError` where `correct` is not a bool array of shape [Q, M] with at least one member, and all
but `generalized_diversity`, `focal_diversity` and `pairwise_focal_diversity` where it holds no query.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MAX_TEAMS = 2**20
"""Teams that `all_teams` lists at most."""

PRIOR_FAILURES = 5.0
"""So many failures at the rate of chance a pair counts besides its own, where answers are missing."""

_BLOCK_CELLS = 2**16  # what fits a processor's cache


# ---- one team


def generalized_diversity(correct: Bools) -> float:
    """Measure how rarely two members fail together, over all queries; in [0, 1].

    With p_i the share of queries on which exactly i of m members fail:

        p(1) = Σ i/m p_i;  p(2) = Σ i(i−1)/(m(m−1)) p_i;  GD = 1 − p(2)/p(1)

    Source: Partridge and Krzanowski, 1997, "Software diversity: practical statistics for its measurement and exploitation".
    """
    return float(_generalized(_wrong(correct), _whole(correct))[0])


def focal_diversity(correct: Bools) -> float:
    """Measure a team's diversity from the view of each member's failures; in [0, 1].

    For each member f, GD_f is `generalized_diversity` over the queries that f fails, f itself included; it is 1 for a member
    that never fails:

        focal = mean over f of GD_f

    Source: Wu et al., 2021, "Boosting ensemble accuracy by revisiting ensemble diversity metrics" (CVPR), as used by Tekin et
    al., "Dynamic optimizations of LLM ensembles with two-stage reinforcement learning agents".
    https://arxiv.org/abs/2502.04492
    """
    return float(_focal(_wrong(correct), _whole(correct))[0])


def focal_diversities(correct: Bools, teams: Bools) -> Floats:
    """Measure `focal_diversity` of many teams of a pool, shape [T], from correct [Q, M] and teams [T, M]."""
    return _focal(_wrong(correct), teams)


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
    return float(_independent_focal(error_rates, np.ones((1, len(error_rates)), dtype=bool))[0])


def accuracy_adjusted_diversity(correct: Bools) -> float:
    """Measure the focal diversity that accuracy and team size do not explain; in [−1, 1].

        adjusted = focal − `independent_focal_diversity` of the members' own error rates

    Above 0 the members fail apart more than chance would have it, below 0 they share failures. It tells shared failures
    from chance, not good teams from bad ones: both terms shrink where members fail often, and their difference with them.
    """  # fmt: skip
    return focal_diversity(correct) - independent_focal_diversity(_wrong_of_some(correct).mean(axis=0))


def entropy(correct: Bools) -> float:
    """Measure how evenly the members split into right and wrong: the entropy measure E, in [0, 1].

    With l of m members right on a query:

        E = mean over queries of min(l, m − l)/(m − ⌈m/2⌉)

    Source: Kuncheva and Whitaker, 2003, "Measures of diversity in classifier ensembles and their relationship with the
    ensemble accuracy" (Machine Learning 51), who call it entropy though it takes no logarithm.
    """
    return float(_entropy(_wrong_of_some(correct), _whole(correct))[0])


def plurality_accuracy(answer_ids: npt.NDArray[np.integer], correct: Bools) -> float:
    """Measure the share of queries on which the answer that most members give is right.

    Of equally supported answers, the one of the earliest member wins, and the verdict on it is that on its earliest
    supporter. A member without an answer abstains; if all do, the earliest member's verdict counts. Put the members in
    order of accuracy, the best first, to break ties as the baseline `plurality` does.

    Args:
        answer_ids: Shape [Q, M]; equal within a query where answers are the same, -1 for none, as in `OutcomeGrid`.
        correct: Shape [Q, M].

    Raises:
        InputError: `answer_ids` are not whole numbers from -1 of the shape of `correct`.
    """
    _wrong_of_some(correct)
    return float(_plurality_accuracy(answer_ids, correct, _whole(correct))[0])


def fleiss_kappa(categories: npt.NDArray[np.integer] | Bools) -> float:
    """Fleiss' kappa: how much more often two members give the same answer than chance would have it.

    With n_qk the members that give query q category k, and p_k the share of all answers that are k:

        P̄ = mean over q of Σ_k n_qk(n_qk − 1)/(m(m−1));  P_e = Σ_k p_k²;  κ = (P̄ − P_e)/(1 − P_e)

    Categories must mean the same in every query, or the chance P_e has no meaning: options A to J do, the row-local
    `OutcomeGrid.answer_ids` do not. `correct` itself has two categories, right and wrong.

    Source: Fleiss, 1971, "Measuring nominal scale agreement among many raters".

    Args:
        categories: Code of each member's answer, shape [Q, M]; no answer is a category like any other.

    Returns:
        In [−1/(m − 1), 1]; 1 if all members always give the same answer.

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


# ---- pairs: tables of shape [M, M], symmetric


def pairwise_focal_diversity(correct: Bools, *, known: Bools | None = None) -> Floats:
    """Measure the focal diversity of every pair, shape [M, M], in [0, 1]; 0 on the diagonal.

    With q = P(other fails | f fails), GD_f of a pair is (1 − q)/(1 + q); the pair's figure is the mean of both views.

    Where answers are missing or unscored, a pair is measured on the queries that are known of both, and q is drawn to what
    chance alone gives, the other's error rate e (itself drawn to ½), by `PRIOR_FAILURES` as if it had been seen so often:

        q = (both fail + s e)/(f fails + s);  e = (failures + s/2)/(known + s)

    Args:
        correct: Whether each member answered each query right, shape [Q, M].
        known: Where that is known, shape [Q, M]; None is everywhere.
    """
    wrong = _wrong(correct)
    if known is None or known.all():
        both = wrong.T @ wrong
        fails = np.diag(both)[:, None]
        view = np.divide(fails - both, fails + both, out=np.ones_like(both), where=fails > 0)
    else:
        wrong = wrong * known
        rates = (wrong.sum(axis=0) + PRIOR_FAILURES / 2) / (known.sum(axis=0) + PRIOR_FAILURES)
        together = (wrong.T @ wrong + PRIOR_FAILURES * rates) / (wrong.T @ known + PRIOR_FAILURES)
        view = (1.0 - together) / (1.0 + together)
    np.fill_diagonal(view, 0.0)
    return np.asarray((view + view.T) / 2)


def disagreement(correct: Bools) -> Floats:
    """Share of queries that exactly one of two members gets right: (n01 + n10)/n, shape [M, M]."""
    _, _, n10, n01 = _counts(correct)
    return np.asarray((n01 + n10) / len(correct))


def double_fault(correct: Bools) -> Floats:
    """Share of queries that both of two members get wrong: n00/n, shape [M, M]."""
    _, n00, _, _ = _counts(correct)
    return np.asarray(n00 / len(correct))


def kappa(correct: Bools) -> Floats:
    """Cohen's kappa of two members' correctness, shape [M, M], in [−1, 1].

    With n11 both right, n00 both wrong, n10 and n01 one of them right:

        κ = 2(n11 n00 − n01 n10)/((n11 + n10)(n01 + n00) + (n11 + n01)(n10 + n00))
    """
    n11, n00, n10, n01 = _counts(correct)
    scale = (n11 + n10) * (n01 + n00) + (n11 + n01) * (n10 + n00)
    return _association(2 * (n11 * n00 - n01 * n10), scale, identical=n01 + n10 == 0)


def yule_q(correct: Bools) -> Floats:
    """Yule's Q of two members' correctness, shape [M, M], in [−1, 1]: Q = (n11 n00 − n01 n10)/(n11 n00 + n01 n10)."""
    n11, n00, n10, n01 = _counts(correct)
    return _association(n11 * n00 - n01 * n10, n11 * n00 + n01 * n10, identical=n01 + n10 == 0)


def phi(correct: Bools) -> Floats:
    """Phi correlation of two members' correctness, shape [M, M], in [−1, 1].

    With n11 both right, n00 both wrong, n10 and n01 one of them right:

        φ = (n11 n00 − n01 n10)/√((n11 + n10)(n01 + n00)(n11 + n01)(n10 + n00))
    """
    n11, n00, n10, n01 = _counts(correct)
    scale = np.sqrt((n11 + n10) * (n01 + n00)) * np.sqrt((n11 + n01) * (n10 + n00))
    return _association(n11 * n00 - n01 * n10, scale, identical=n01 + n10 == 0)


# ---- all teams of a pool


@dataclass(frozen=True, eq=False, slots=True)
class TeamDiversities:
    """The measures of T teams, each an array of shape [T]; for a team of one see the module's edge cases.

    Attributes:
        teams: Who is in each team, shape [T, M].
        accuracy: Mean accuracy of the members.
        plurality_accuracy: See `plurality_accuracy`; None where no answers were given.
        focal: See `focal_diversity`.
        adjusted: See `accuracy_adjusted_diversity`.
        generalized: See `generalized_diversity`.
        disagreement: Mean over the team's pairs, as the four below; 0 for a team of one.
        double_fault: The error rate for a team of one.
        kappa: 1 for a team of one, as the two below.
        yule_q: See `yule_q`.
        phi: See `phi`.
        entropy: See `entropy`.
        fleiss_kappa: See `fleiss_kappa`; of right and wrong.
    """

    teams: Bools
    accuracy: Floats
    plurality_accuracy: Floats | None
    focal: Floats
    adjusted: Floats
    generalized: Floats
    disagreement: Floats
    double_fault: Floats
    kappa: Floats
    yule_q: Floats
    phi: Floats
    entropy: Floats
    fleiss_kappa: Floats

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """Members of each team, shape [T]."""
        return np.asarray(self.teams.sum(axis=1))


def all_teams(members: int, *, max_size: int | None = None) -> Bools:
    """List all teams of a pool, small ones first, and those of a size in the pool's order.

    Args:
        members: Members of the pool, M.
        max_size: Members of a team at most; M where it is None.

    Returns:
        Shape [T, M].

    Raises:
        InputError: A number is below 1, or there are more than `MAX_TEAMS` teams.
    """
    if members < 1 or (max_size is not None and max_size < 1):
        raise InputError(
            f"`members` and `max_size` must be at least 1, got {members} and {max_size}. A team has a member at least."
        )
    largest = members if max_size is None else min(max_size, members)
    total = sum(comb(members, size) for size in range(1, largest + 1))
    if total > MAX_TEAMS:
        raise InputError(
            f"There must be at most {MAX_TEAMS:,} teams, got {total:,} of {members} members. Give `max_size`, such as "
            f"{largest_team_size(members, max_teams=MAX_TEAMS)}."
        )
    teams = np.zeros((total, members), dtype=bool)
    listed = (team for size in range(1, largest + 1) for team in combinations(range(members), size))
    for index, team in enumerate(listed):
        teams[index, team] = True
    return teams


def largest_team_size(members: int, *, max_teams: int) -> int:
    """Return the largest size such that all teams of up to that size are at most `max_teams`; at least 1."""
    total, size = members, 1
    while size < members and total + comb(members, size + 1) <= max_teams:
        size += 1
        total += comb(members, size)
    return size


def team_diversities(
    correct: Bools, *, teams: Bools | None = None, answer_ids: npt.NDArray[np.integer] | None = None
) -> TeamDiversities:
    """Measure many teams of a pool at once.

    Args:
        correct: Whether each member answered each query right, shape [Q, M].
        teams: Who is in each team, shape [T, M]; `all_teams` where it is None.
        answer_ids: Shape [Q, M], as in `plurality_accuracy`; None leaves that one out.

    Raises:
        InputError: `teams` is not a bool array of shape [T, M] with a member in every team, or `answer_ids` do not fit
            `correct`.
    """
    wrong = _wrong_of_some(correct)
    queries, members = wrong.shape
    if teams is None:
        teams = all_teams(members)
    if teams.ndim != 2 or teams.shape[1] != members or teams.dtype != np.bool_ or not teams.any(axis=1).all():
        raise InputError(
            f"`teams` must be a bool array of shape [T, {members}] with a member in every row, got {teams.dtype} of shape "
            f"{teams.shape}. Take rows of `all_teams({members})`."
        )
    total = queries * teams.sum(axis=1)
    failures = teams @ wrong.sum(axis=0)
    focal = _focal(wrong, teams)
    differ = _mean_over_pairs(disagreement(correct), teams)
    # Fleiss' kappa of right and wrong: P̄ is 1 − the mean disagreement, 1 − P_e is 2 p (1 − p).
    chance = 2 * failures * (total - failures) / total**2
    return TeamDiversities(
        teams=teams,
        accuracy=1 - failures / total,
        plurality_accuracy=None if answer_ids is None else _plurality_accuracy(answer_ids, correct, teams),
        focal=focal,
        adjusted=focal - _independent_focal(wrong.mean(axis=0), teams),
        generalized=_generalized(wrong, teams),
        disagreement=differ,
        double_fault=_mean_over_pairs(double_fault(correct), teams),
        kappa=_mean_over_pairs(kappa(correct), teams),
        yule_q=_mean_over_pairs(yule_q(correct), teams),
        phi=_mean_over_pairs(phi(correct), teams),
        entropy=_entropy(wrong, teams),
        fleiss_kappa=1 - np.divide(differ, chance, out=np.zeros_like(differ), where=chance > 0),
    )


# ---- the measures of T teams, each of shape [T]; one team is T = 1


def _generalized(wrong: Floats, teams: Bools) -> Floats:
    """Where n_jk is how often j and k both fail, Σ i = Σ_j n_jj and Σ i(i−1) = Σ_{j≠k} n_jk over the team's j, k."""
    both = wrong.T @ wrong
    alone = np.asarray(teams @ np.diag(both), dtype=np.float64)
    return _one_minus_ratio(_pair_sums(both, teams), alone, sizes=teams.sum(axis=1))


def _focal(wrong: Floats, teams: Bools) -> Floats:
    views = np.zeros(teams.shape)
    for member in np.flatnonzero(teams.any(axis=0)):
        its = teams[:, member]
        views[its, member] = _generalized(wrong[wrong[:, member] > 0], teams[its])
    return _mean_over_members(views, teams)


def _independent_focal(error_rates: Floats, teams: Bools) -> Floats:
    rates = np.where(teams, error_rates, 0.0)
    others = rates.sum(axis=1, keepdims=True) - rates
    products = others**2 - ((rates**2).sum(axis=1, keepdims=True) - rates**2)
    fails, sizes = rates > 0, teams.sum(axis=1, keepdims=True)
    views = _one_minus_ratio(np.where(fails, 2 * others + products, 0.0), np.where(fails, 1 + others, 0.0), sizes=sizes)
    return _mean_over_members(views, teams)


def _entropy(wrong: Floats, teams: Bools) -> Floats:
    rows, counts = _distinct(wrong.astype(np.int16))
    columns = np.ascontiguousarray(teams.T, dtype=np.float32)
    sizes = columns.sum(axis=0)
    minority = np.zeros(len(teams))
    for block in _blocks(len(rows), _BLOCK_CELLS // max(len(teams), 1)):
        failures = rows[block].astype(np.float32) @ columns
        minority += counts[block] @ np.minimum(failures, sizes - failures)
    return np.asarray(minority / (len(wrong) * np.maximum(sizes // 2, 1)))


def _plurality_accuracy(answer_ids: npt.NDArray[np.integer], correct: Bools, teams: Bools) -> Floats:
    """Find the winners by keys.

    A member's key in a team is a whole number of three parts: how many of the team give its answer, how early it comes,
    and whether it is right. The greatest key of the team is the winner's, and its last bit is the verdict. One matrix
    product makes the keys of all teams: a member outside the team gets the first part alone, which is below that of any
    supporter inside.
    """
    if answer_ids.shape != correct.shape or not np.issubdtype(answer_ids.dtype, np.integer):
        raise InputError(
            f"`answer_ids` must be whole numbers of the shape of `correct`, {correct.shape}, got {answer_ids.dtype} of "
            f"shape {answer_ids.shape}. Number the answers, such as `OutcomeGrid.answer_ids` does."
        )
    if answer_ids.min(initial=0) < -1:
        raise InputError(
            f"`answer_ids` must be at least -1, which is no answer, got {answer_ids.min()}. Number answers from 0."
        )
    members = correct.shape[1]
    # Each answer of a row is named by the first member that gives it, so that rows which split alike are alike.
    first = np.full(answer_ids.shape, -1, dtype=np.int16)
    for member in reversed(range(members)):
        ids = answer_ids[:, [member]]
        first[(answer_ids == ids) & (ids >= 0)] = member
    rows, counts = _distinct(np.hstack([first, correct.astype(np.int16)]))
    labels, right = rows[:, :members], rows[:, members:]
    own = 2 * (members - np.arange(members)) + right
    weight = 2 * members + 2
    columns = np.ascontiguousarray(teams.T, dtype=np.float32)
    won = np.zeros(len(teams))
    for block in _blocks(len(rows), _BLOCK_CELLS // max(members * len(teams), 1)):
        same = (labels[block, :, None] == labels[block, None, :]) & (labels[block, :, None] >= 0)
        keys = (weight * same + own[block, :, None] * np.eye(members, dtype=np.int16)).astype(np.float32)
        greatest = (keys.reshape(-1, members) @ columns).reshape(len(same), members, -1).max(axis=1)
        won += counts[block] @ (greatest.astype(np.int32) & 1)
    return np.asarray(won / len(correct))


# ---- parts of the measures


def _wrong(correct: Bools) -> Floats:
    """Check `correct` and return 1.0 where a member fails, shape [Q, M]."""
    if correct.ndim != 2 or correct.dtype != np.bool_ or not correct.shape[1]:
        raise InputError(
            f"`correct` must be a bool array of shape [Q, M] with a member, got {correct.dtype} of shape "
            f"{correct.shape}. Threshold the scores first, such as `scores >= 0.5`."
        )
    return np.asarray((~correct).astype(np.float64))


def _wrong_of_some(correct: Bools) -> Floats:
    """Check `correct` as `_wrong` does, and that there is a query."""
    wrong = _wrong(correct)
    if not len(wrong):
        raise InputError("`correct` must hold at least one query, got none. A share of no queries has no value.")
    return wrong


def _whole(correct: Bools) -> Bools:
    return np.ones((1, correct.shape[1]), dtype=bool)


def _counts(correct: Bools) -> tuple[Floats, Floats, Floats, Floats]:
    """Count the queries that both got right, both wrong, only the first right, only the second right: [M, M] each."""
    wrong = _wrong_of_some(correct)
    right = 1.0 - wrong
    return right.T @ right, wrong.T @ wrong, right.T @ wrong, wrong.T @ right


def _association(value: Floats, scale: Floats, *, identical: Bools) -> Floats:
    """Divide where the scale is not 0; else 1 for members that are right on the same queries, and 0 for others."""
    return np.asarray(np.divide(value, scale, out=identical.astype(np.float64), where=scale > 0))


def _pair_sums(table: Floats, teams: Bools) -> Floats:
    """Sum a symmetric table over the ordered pairs of each team."""
    return np.asarray(((teams @ table) * teams).sum(axis=1) - teams @ np.diag(table))


def _mean_over_pairs(table: Floats, teams: Bools) -> Floats:
    """Average a symmetric table over the pairs of each team; a team of one is paired with itself."""
    sizes = teams.sum(axis=1)
    mean = _pair_sums(table, teams) / np.maximum(sizes * (sizes - 1), 1)
    return np.where(sizes == 1, teams @ np.diag(table), mean)


def _mean_over_members(views: Floats, teams: Bools) -> Floats:
    """Average a figure per team and member, shape [T, M], over the members of each team."""
    return np.asarray((views * teams).sum(axis=1) / teams.sum(axis=1))


def _one_minus_ratio(together: Floats, alone: Floats, *, sizes: npt.NDArray[np.intp]) -> Floats:
    """Return 1 − p(2)/p(1), where p(2)/p(1) = Σ i(i−1)/((m−1) Σ i); 0 for one member, 1 where nothing fails."""
    scale = (sizes - 1) * alone
    ratio = np.divide(together, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.where(sizes == 1, 0.0, 1.0 - ratio)


def _distinct(rows: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int16], Floats]:
    """Return the distinct rows, and how often each occurs."""
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, first, counts = np.unique(packed, return_index=True, return_counts=True)
    return rows[first], counts.astype(np.float64)


def _blocks(total: int, size: int) -> Iterator[slice]:
    size = max(size, 1)
    for start in range(0, total, size):
        yield slice(start, start + size)

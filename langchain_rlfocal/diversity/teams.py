"""Teams: the measures of many teams of a pool at once.

All but two need no pass over the queries per team: generalised diversity and the means over pairs follow from how often two
members fail together, focal diversity from how often three do. Entropy and plurality accuracy do need one; it runs over
the distinct rows, in blocks that fit a processor's cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.diversity.checks import Bools, Floats, check_answer_ids, wrong_of_some
from langchain_rlfocal.diversity.measures import independent_by_team, mean_over_members, one_minus_ratio
from langchain_rlfocal.diversity.pairs import disagreement, double_fault, kappa, phi, yule_q
from langchain_rlfocal.errors import InputError

MAX_TEAMS = 2**20
"""Teams that `all_teams` lists at most."""

_BLOCK_CELLS = 2**16


@dataclass(frozen=True, eq=False, slots=True)
class TeamDiversities:
    """The measures of T teams, each an array of shape [T]; for a team of one see the package's edge cases.

    Attributes:
        teams: Who is in each team, shape [T, M].
        accuracy: Mean accuracy of the members.
        plurality_accuracy: See `diversity.plurality_accuracy`; None where no answers were given.
        focal: See `focal_diversity`.
        adjusted: See `accuracy_adjusted_diversity`.
        generalized: See `generalized_diversity`.
        disagreement: Mean over the team's pairs, as the four below; 0 for a team of one.
        double_fault: The error rate for a team of one.
        kappa: 1 for a team of one, as the two below.
        yule_q: See `diversity.yule_q`.
        phi: See `diversity.phi`.
        entropy: See `diversity.entropy`.
        fleiss_kappa: See `diversity.fleiss_kappa`; of right and wrong.
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
    index = 0
    for size in range(1, largest + 1):
        for team in combinations(range(members), size):
            teams[index, team] = True
            index += 1
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

    Returns:
        The same figures as the functions for one team give, for each team.

    Raises:
        InputError: `correct` is not a bool array of shape [Q, M] with at least one member and one query; `teams` is not a
            bool array of shape [T, M] with a member in every team; or `answer_ids` do not fit `correct`.
    """
    wrong = wrong_of_some(correct)
    queries, members = wrong.shape
    if teams is None:
        teams = all_teams(members)
    if teams.ndim != 2 or teams.shape[1] != members or teams.dtype != np.bool_ or not teams.any(axis=1).all():
        raise InputError(
            f"`teams` must be a bool array of shape [T, {members}] with a member in every row, got {teams.dtype} of shape "
            f"{teams.shape}. Take rows of `all_teams({members})`."
        )
    member_of = teams.astype(np.float64)
    sizes = member_of.sum(axis=1)
    error_rates = wrong.mean(axis=0)
    both = wrong.T @ wrong
    failures = member_of @ np.diag(both)
    focal = _focal(wrong, member_of)
    differ = _over_pairs(disagreement(correct), member_of)
    return TeamDiversities(
        teams=teams,
        accuracy=1 - failures / (queries * sizes),
        plurality_accuracy=None if answer_ids is None else _plurality_accuracy(answer_ids, correct, teams),
        focal=focal,
        adjusted=focal - independent_by_team(error_rates, teams),
        generalized=one_minus_ratio(_pair_sums(both, member_of), failures, members=sizes),
        disagreement=differ,
        double_fault=_over_pairs(double_fault(correct), member_of),
        kappa=_over_pairs(kappa(correct), member_of),
        yule_q=_over_pairs(yule_q(correct), member_of),
        phi=_over_pairs(phi(correct), member_of),
        entropy=_entropy(wrong, teams),
        fleiss_kappa=_fleiss(differ, failures, total=queries * sizes),
    )


def _focal(wrong: Floats, member_of: Floats) -> Floats:
    """Compute the focal diversity of each team, shape [T], member by member from how often two others fail with it.

    Where f fails, Σ i = Σ_j n_jj and Σ i(i−1) = Σ_{j≠k} n_jk over the team's j, k, with n_jk how often both fail there.
    """
    sizes = member_of.sum(axis=1)
    views = np.empty_like(member_of)
    for focal in range(member_of.shape[1]):
        beside = wrong[wrong[:, focal] > 0]
        both = beside.T @ beside
        views[:, focal] = one_minus_ratio(_pair_sums(both, member_of), member_of @ np.diag(both), members=sizes)
    return mean_over_members(views, member_of > 0)


def _pair_sums(table: Floats, member_of: Floats) -> Floats:
    """Sum a symmetric table over the ordered pairs of each team, shape [T]."""
    return np.asarray(((member_of @ table) * member_of).sum(axis=1) - member_of @ np.diag(table))


def _over_pairs(table: Floats, member_of: Floats) -> Floats:
    """Average a symmetric table over the pairs of each team, shape [T]; a team of one is paired with itself."""
    sizes = member_of.sum(axis=1)
    mean = _pair_sums(table, member_of) / np.maximum(sizes * (sizes - 1), 1)
    return np.where(sizes == 1, member_of @ np.diag(table), mean)


def _fleiss(differ: Floats, failures: Floats, *, total: Floats) -> Floats:
    """Compute Fleiss' kappa of right and wrong: P̄ is 1 − the mean disagreement, 1 − P_e is 2 p (1 − p)."""
    chance = 2 * failures * (total - failures) / total**2
    return np.asarray(1 - np.divide(differ, chance, out=np.zeros_like(differ), where=chance > 0))


def _entropy(wrong: Floats, teams: Bools) -> Floats:
    """Compute the entropy measure E of each team, shape [T]."""
    rows, counts = _distinct(wrong.astype(np.int16))
    columns = np.ascontiguousarray(teams.T, dtype=np.float32)
    sizes = columns.sum(axis=0)
    minority = np.zeros(len(teams))
    for block in _blocks(len(rows), _BLOCK_CELLS // max(len(teams), 1)):
        failures = rows[block].astype(np.float32) @ columns
        minority += counts[block] @ np.minimum(failures, sizes - failures)
    return np.asarray(minority / (len(wrong) * np.maximum(sizes // 2, 1)))


def _plurality_accuracy(answer_ids: npt.NDArray[np.integer], correct: Bools, teams: Bools) -> Floats:
    """Compute the plurality accuracy of each team, shape [T].

    A member's key in a team is a whole number of three parts: how many of the team give its answer, how early it stands,
    and whether it is right. The greatest key of the team is the winner's, and its last bit is the verdict. One matrix
    product makes the keys of all teams: a member outside the team gets the first part alone, which is below that of any
    supporter inside.
    """
    check_answer_ids(answer_ids, correct)
    members = correct.shape[1]
    rows, counts = _distinct(np.hstack([_row_labels(answer_ids), correct.astype(np.int16)]))
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


def _row_labels(answer_ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
    """Name each answer of a row by the first member that gives it, so that rows which split alike are alike."""
    labels = np.full(answer_ids.shape, -1, dtype=np.int16)
    for member in reversed(range(answer_ids.shape[1])):
        mine = answer_ids[:, [member]]
        labels[(answer_ids == mine) & (mine >= 0)] = member
    return labels


def _distinct(rows: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int16], Floats]:
    """Return the distinct rows, and how often each occurs."""
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, first, counts = np.unique(packed, return_index=True, return_counts=True)
    return rows[first], counts.astype(np.float64)


def _blocks(total: int, size: int) -> Iterator[slice]:
    size = max(size, 1)
    for start in range(0, total, size):
        yield slice(start, start + size)

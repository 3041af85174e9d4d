"""Decisions: what every baseline returns, and the few rules that several of them share.

A decision names whom a baseline asks and whose answer it returns. The rules here look at answers and never at scores, but
for `competence_of`, which is for fitting. A baseline knows the members that it was fitted on: a grid may hold them in
another order and others beside them, and nothing of those others reaches a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.outcomes import OutcomeGrid

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False, slots=True)
class Decision:
    """Whom a baseline asks and whose answer it returns.

    Attributes:
        chosen: Index in the grid of the member whose answer is returned, shape [Q].
        asked: Whether each member of the grid was called, shape [Q, M].
    """

    chosen: Ints
    asked: Bools

    @property
    def calls(self) -> Ints:
        """Calls per query, shape [Q]."""
        return np.asarray(self.asked.sum(axis=1))


class Fitted(Protocol):
    """A baseline that is ready to decide."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that it was fitted on."""

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Decide every query of `grid`.

        Raises:
            PoolError: `grid` lacks a member that the baseline was fitted on.
        """


class Baseline(Protocol):
    """A rule that may learn from outcomes other than those it is judged by."""

    def fit(self, grid: OutcomeGrid) -> Fitted:
        """Learn from recorded outcomes.

        Raises:
            InputError: `grid` holds no query.
        """


def columns_of(members: Sequence[str], grid: OutcomeGrid) -> Ints:
    """Find the fitted members in a grid.

    Returns:
        The column of each member, shape [M].

    Raises:
        PoolError: One is not there.
    """
    missing = [name for name in members if name not in grid.members]
    if missing:
        raise PoolError(
            f"`grid` must hold every member that the baseline was fitted on, but lacks {missing}. "
            "Make the grid with them, or fit the baselines for the members that are left."
        )
    return np.array([grid.members.index(name) for name in members], dtype=np.intp)


def answer_ids_of(members: Sequence[str], grid: OutcomeGrid) -> tuple[Ints, Ints]:
    """Read the answers of the fitted members alone.

    Returns:
        The column of each member, shape [M], and their answers, shape [Q, M]: members with the same answer share an id,
        the place among `members` of the first of them; -1 where no answer was extracted.

    Raises:
        PoolError: `grid` lacks one of `members`.
    """
    columns = columns_of(members, grid)
    ids = grid.answer_ids[:, columns]
    first = (ids[:, :, None] == ids[:, None, :]).argmax(axis=2)
    return columns, np.where(ids < 0, -1, first)


def decision_of(grid: OutcomeGrid, columns: Ints, *, chosen: Ints, asked: Bools) -> Decision:
    """Say of the grid's members what was decided of the fitted ones, who stand in `columns`."""
    everyone = np.zeros((len(grid), len(grid.members)), dtype=bool)
    everyone[:, columns] = asked
    return Decision(chosen=columns[chosen], asked=everyone)


def ask_one(members: Sequence[str], grid: OutcomeGrid, chosen: Ints) -> Decision:
    """Ask one of the fitted members for each query, shape [Q], and return its answer."""
    asked = np.zeros((len(grid), len(members)), dtype=bool)
    asked[np.arange(len(grid)), chosen] = True
    return decision_of(grid, columns_of(members, grid), chosen=chosen, asked=asked)


def vote(ids: Ints, asked: Bools, *, weights: Floats, competence: Floats) -> Ints:
    """Choose who speaks for the answer with most weight.

    Args:
        ids: Answers as `answer_ids_of` gives them, shape [Q, M].
        asked: Who may vote, at least one of each query, shape [Q, M].
        weights: Weight of each member's vote, shape [M] or [Q, M].
        competence: Shape [M]. Of answers with equal weight, that of the most competent supporter wins.

    Returns:
        The winning answer's most competent supporter, shape [Q]; the most competent member asked where all abstain.
    """
    rows = np.arange(len(ids))
    voting = asked & (ids >= 0)
    cast = weights * voting
    tally = np.zeros(ids.shape)
    for member in range(ids.shape[1]):
        tally[rows, ids[:, member]] += cast[:, member]
    support = np.where(voting, np.take_along_axis(tally, np.maximum(ids, 0), axis=1), -np.inf)
    # Where nobody votes, whoever was asked stands equal, above those who were not.
    support[asked & ~voting.any(axis=1, keepdims=True)] = 0.0
    ranked = np.argsort(-competence, kind="stable")
    return np.asarray(ranked[support[:, ranked].argmax(axis=1)])


def competence_of(grid: OutcomeGrid) -> Floats:
    """Average each member's score, shape [M].

    Raises:
        InputError: `grid` holds no query.
    """
    if not len(grid):
        raise InputError(
            "`grid` must hold at least one training or validation query to fit a baseline, got none. Pass more outcomes."
        )
    return np.asarray(grid.scores.mean(axis=0))

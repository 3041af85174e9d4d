"""Grids: outcomes laid out square, queries x members, as learning and evaluation use them, with their split and their costs.

An unknown number is NaN, a score among them, and who gave no answer is -1: neither ever counts as zero. The split of the queries
is a function of their text, unless the file itself sets test rows apart.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import InputError

Floats = npt.NDArray[np.float64]

Split = Literal["train", "validation", "test"]
FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of train, validation and test where the caller names none."""

CostUnit = Literal["auto", "usd", "tokens", "calls"]
"""What spending is counted in: `auto` is dollars where some cost of every member is known, else calls."""


_OF_OPTIONS = ("option_answers", "option_ids", "option_scores")
"""Arrays of queries and options rather than members."""


@dataclass(frozen=True, eq=False)
class OutcomeGrid:
    """The outcomes of Q queries and M members, square.

    A cell may be empty, because its member was never asked (`recorded` is False, no answer, NaN in every array of numbers), or
    unscored, because nobody judged its answer (NaN in `scores` alone). A caller that chose to count a missing answer as the
    member's failure gets a recorded cell with no answer, a score of 0, and NaN in every other array.

    The option arrays hold the recorded score of each of O options, and what choosing an option is worth; all four are None
    where no cell has option scores. What option j is called is learned from all rows of the task (`tables.learn_names`), not
    from this pool or this query alone, so a policy may know `option_answers`, and whether an option can be chosen. Beyond
    that it may see the `option_probs` of the members it asked: `option_ids` and `option_scores` tell what the others
    answered and what is right.

    Attributes:
        members: Names of the members, M of them.
        tasks: Each query's task, Q of them.
        query_ids: Each query's name within its task.
        queries: Each query's text.
        golds: Each query's right answer, None where unknown.
        answer_ids: Shape [Q, M], int32. Members of a row with the same answer share an id, the index of the first of
            them. A recorded answer without a label, such as open text, is like no other: its id is its member's index. -1
            where the member was not asked, or was silent: its response is blank, or it failed.
        answers: Shape [Q, M], the labels of the answers (`str`), None where there is none.
        scores: Shape [Q, M], in [0, 1]; NaN where the answer was not scored, nor an equal one of another member, or where the
            member was not asked.
        recorded: Shape [Q, M], bool: the member was asked, and what came of it is on record.
        propensity: Shape [Q, M], in (0, 1]: the probability with which the member was asked, by whoever chose whom to ask. NaN
            is unknown, here and in the six arrays below.
        cost_usd: Shape [Q, M].
        latency_s: Shape [Q, M].
        prompt_tokens: Shape [Q, M].
        completion_tokens: Shape [Q, M].
        logprobs: Shape [Q, M].
        response_chars: Shape [Q, M], characters of the recorded response, which a file may hold cut short.
        option_probs: Shape [Q, M, O], each option's score on the scale it was recorded on (any scale whose largest is the
            member's choice). Option j of a cell exists where it is not NaN, of a query where it exists in any cell; O is
            the most there are in the grid that `OutcomeTable.grid` made, in each of its parts too.
        option_answers: Shape [Q, O], the answer that option j names (`str`), None where the option does not exist or its
            name is unknown.
        option_ids: Shape [Q, O], int32. The id of option j's answer: as in `answer_ids` where a member gave it, M + j where
            none did; -1 where it cannot be chosen, because it has no answer or because the query's right answer is unknown.
        option_scores: Shape [Q, O], the reward of choosing option j: the score of the first member who gave its answer, and
            where none did 1 if the answer is equal to the right one, else 0. NaN exactly where `option_ids` is -1.
        is_test: Shape [Q], bool: whether the file sets the query apart as a test row; None if it sets none apart.
        dropped: How many queries were left out because a member did not answer; 0 in a part of a grid.
        missing: How many queries lack a member's row; 0 in a part of a grid.
        rows: Which rows of a table it was made of, as JSON values: what `OutcomeTable.grid` was asked for. None if unknown.
    """

    members: tuple[str, ...]
    tasks: list[str]
    query_ids: list[str]
    queries: list[str]
    golds: list[str | None]
    answer_ids: npt.NDArray[np.int32]
    answers: npt.NDArray[np.object_]
    scores: Floats
    recorded: npt.NDArray[np.bool_]
    propensity: Floats
    cost_usd: Floats
    latency_s: Floats
    prompt_tokens: Floats
    completion_tokens: Floats
    logprobs: Floats
    response_chars: Floats
    option_probs: Floats | None = None
    option_answers: npt.NDArray[np.object_] | None = None
    option_ids: npt.NDArray[np.int32] | None = None
    option_scores: Floats | None = None
    is_test: npt.NDArray[np.bool_] | None = None
    dropped: int = 0
    missing: int = 0
    rows: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, index: npt.ArrayLike) -> "OutcomeGrid":
        """Return the queries at `index` (positions, or a mask of length Q), in that order."""
        rows = np.arange(len(self))[np.asarray(index, dtype=None if np.size(index) else np.int64)]
        parts: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                parts[field.name] = value[rows]
            elif isinstance(value, list):
                parts[field.name] = [value[row] for row in rows]
        return OutcomeGrid(members=self.members, rows=self.rows, **parts)

    def join(self, other: "OutcomeGrid") -> "OutcomeGrid":
        """Return the queries of both, parts of one grid, these first."""
        parts: dict[str, Any] = {}
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            if isinstance(one, np.ndarray):
                parts[field.name] = np.concatenate([one, two])
            elif isinstance(one, list):
                parts[field.name] = one + two
        return OutcomeGrid(members=self.members, rows=self.rows, **parts)

    def canonical(self) -> "OutcomeGrid":
        """Return the same outcomes in the one order in which everything is learned, drawn and measured.

        Queries are sorted by task, name and text, members by name, whatever order a file or a caller gives them in. So each
        tie between members goes to the first by name, and every random number falls to the same query and member.
        """
        rows = sorted(range(len(self)), key=lambda row: (self.tasks[row], self.query_ids[row], self.queries[row]))
        columns = sorted(range(len(self.members)), key=self.members.__getitem__)
        ordered = self.take(rows)
        parts: dict[str, Any] = {"members": tuple(self.members[column] for column in columns)}
        for field in fields(self):
            value = getattr(ordered, field.name)
            if isinstance(value, np.ndarray) and value.ndim > 1 and field.name not in _OF_OPTIONS:
                parts[field.name] = value[:, columns]
            elif isinstance(value, np.ndarray | list):
                parts[field.name] = value
        ids = parts["answer_ids"]
        first = (ids[:, :, None] == ids[:, None, :]).argmax(axis=2)
        parts["answer_ids"] = np.where(ids < 0, ids, first).astype(np.int32)
        if ordered.option_ids is not None and ordered.option_scores is not None:
            given = (ordered.option_ids >= 0) & (ordered.option_ids < len(columns))
            giver = np.argsort(columns)[np.where(given, ordered.option_ids, 0)]
            renamed = np.take_along_axis(parts["answer_ids"], giver, axis=1)
            worth = np.take_along_axis(parts["scores"], np.where(given, renamed, 0), axis=1)
            parts["option_ids"] = np.where(given, renamed, ordered.option_ids)
            parts["option_scores"] = np.where(given & ~np.isnan(worth), worth, ordered.option_scores)
        return replace(self, **parts)

    @property
    def is_complete(self) -> bool:
        """True if every member was asked every query, and every answer was scored."""
        return bool(self.recorded.all()) and not np.isnan(self.scores).any()

    @property
    def label_ids(self) -> npt.NDArray[np.int32]:
        """Shape [Q, M]: `answer_ids` of the answers that have a label, which others can share, and -1 where there is none."""
        return np.where(np.equal(self.answers, np.array(None, dtype=object)), np.int32(-1), self.answer_ids)

    @property
    def contradictions(self) -> int:
        """How many queries have one answer that was scored at least ½ for one member and less for another."""
        found = np.zeros(len(self), dtype=bool)
        for member in range(len(self.members)):
            scores = np.where(self.answer_ids == member, self.scores, np.nan)
            found |= (scores >= 0.5).any(axis=1) & (scores < 0.5).any(axis=1)
        return int(found.sum())

    @property
    def repeated(self) -> int:
        """How many queries `split` leaves out: those that are no test rows but have the text of one."""
        return int(self._is_repeated().sum())

    def split(
        self, *, fractions: tuple[float, float, float] = FRACTIONS, rotation: float = 0.0
    ) -> tuple["OutcomeGrid", "OutcomeGrid", "OutcomeGrid"]:
        """Split the queries into train, validation and test.

        By `split_of` each query's text; or, where the grid knows test rows (`is_test`), those are the test part, and the
        text alone splits the others into train and validation, in the proportion of their shares. A query that is no test
        row but has the text of one is left out, so that no text is in two parts; `repeated` counts them.

        Args:
            fractions: Shares of train, validation and test; they sum to 1.
            rotation: Moves every query's position by this much, in [0, 1), so that other rows are test rows: with a fifth
                of them for testing, the rotations 0, 0.2, …, 0.8 test every row once.

        Raises:
            InputError: `fractions` are not three shares that sum to 1, or leave nothing to train and validation though the
                grid knows test rows.
        """
        if self.is_test is not None:
            _check_fractions(fractions)
            if not fractions[0] + fractions[1]:
                raise InputError(
                    "`fractions` must leave a share to train or validation where the test rows are given, got "
                    f"{fractions}. For example {FRACTIONS}."
                )
            share = fractions[0] / (fractions[0] + fractions[1])
            fractions = (share, 1.0 - share, 0.0)
        parts = np.array(
            [split_of(query, fractions=fractions, rotation=rotation) for query in self.queries], dtype=object
        )
        if self.is_test is not None:
            parts[self._is_repeated()] = None
            parts[self.is_test] = "test"
        train, validation, test = (self.take(np.flatnonzero(parts == part)) for part in get_args(Split))
        return train, validation, test

    def _is_repeated(self) -> npt.NDArray[np.bool_]:
        if self.is_test is None:
            return np.zeros(len(self), dtype=bool)
        of_test = {query for query, test in zip(self.queries, self.is_test, strict=True) if test}
        return np.array([query in of_test for query in self.queries], dtype=bool) & ~self.is_test


def split_of(query: str, *, fractions: tuple[float, float, float] = FRACTIONS, rotation: float = 0.0) -> Split:
    """Say which part a query belongs to, by its text alone.

    The first 8 bytes of BLAKE2b of the text in UTF-8, personalised with the salt `rlfocal-split-1`, read as a big-endian
    number and divided by 2^64, are the query's position in [0, 1); train comes first, then validation, then test. So the
    same text is in the same part in every file, every run and every version.

    Args:
        query: The query's text, unchanged.
        fractions: Shares of train, validation and test; they sum to 1.
        rotation: Added to the position, modulo 1; see `OutcomeGrid.split`.

    Raises:
        InputError: `fractions` are not three shares that sum to 1.
    """
    _check_fractions(fractions)
    text = query.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, person=b"rlfocal-split-1").digest()
    position = (int.from_bytes(digest, "big") / 2**64 + rotation) % 1.0
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] else "test"


@dataclass(frozen=True, slots=True)
class Spending:
    """What spending is counted in, and why.

    Attributes:
        unit: The unit.
        reason: Why `auto` took it, in a few words; as asked for where it was named.
    """

    unit: Literal["usd", "tokens", "calls"]
    reason: str


def spending_in(grid: OutcomeGrid, unit: CostUnit = "auto", *, rows: str = "rows") -> Spending:
    """Say what spending is counted in: dollars or tokens only where the outcomes hold them.

    Args:
        grid: The outcomes.
        unit: What was asked for. `auto` is dollars where some cost of every member is known and not all are 0, else calls.
        rows: What the rows are called where they are refused.

    Raises:
        InputError: Dollars or tokens were asked for, and of some member none are on record, or all are 0.
    """
    if unit == "calls":
        return Spending("calls", "as asked for")
    wanted: Literal["usd", "tokens"] = "usd" if unit == "auto" else unit
    costs = costs_of(grid, wanted)
    unknown = ~(~np.isnan(costs)).any(axis=0)
    if not unknown.any() and np.nansum(costs) > 0:
        return Spending(wanted, "a cost of every member is on record" if unit == "auto" else "as asked for")
    columns = "`cost_usd`" if wanted == "usd" else "`prompt_tokens` and `completion_tokens`"
    if not unknown.any():
        lack = f"all that is on record of {columns} is 0"
    elif unknown.all():
        lack = f"no member has {columns} on any of {len(grid):,} {rows}"
    else:
        counts = grid.recorded.sum(axis=0)
        named = [f"{grid.members[m]} (none of {counts[m]:,} {rows})" for m in np.flatnonzero(unknown)[:5]]
        more = int(unknown.sum()) - len(named)
        lack = f"{columns} is unknown of {', '.join(named)}{f' and {more} more members' if more else ''}"
    if unit == "auto":
        return Spending("calls", lack)
    raise InputError(
        f"`cost_unit` must be one that the outcomes hold for every member, got {unit!r}, but {lack}. "
        "Record it, leave such members out, or take 'calls'."
    )


def costs_of(grid: OutcomeGrid, unit: CostUnit = "auto") -> Floats:
    """Cost of each call in one unit, NaN where unknown, shape [Q, M]; see `spending_in` for what `auto` is."""
    if unit == "auto":
        unit = spending_in(grid).unit
    if unit == "usd":
        return grid.cost_usd
    if unit == "tokens":
        return grid.prompt_tokens + grid.completion_tokens
    return np.ones_like(grid.scores)


def prices_of(grid: OutcomeGrid, unit: CostUnit = "auto") -> tuple[Floats, float]:
    """Estimate what calling each member costs.

    By its mean cost, over the calls whose cost is known; even where some member's never is, or all are free.

    Returns:
        Each member's share of what asking the whole pool costs, shape [M], and what that is in the unit (0 where even).
    """
    costs = costs_of(grid, unit)
    known = ~np.isnan(costs)
    mean = np.where(known, costs, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    total = float(mean.sum())
    if not known.any(axis=0).all() or total <= 0:
        return np.full(len(mean), 1.0 / len(mean)), 0.0
    return mean / total, total


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1.0):
        raise InputError(f"`fractions` must be three shares that sum to 1, got {fractions!r}. For example {FRACTIONS}.")

"""Tables of outcomes and lists of questions: rows, read from files, checked, and laid out as grids.

It fills no gap unasked: a query that one of a pool's members did not answer is left out and counted, or, where the caller
says so, counted as that member's failure. An unknown cost stays unknown.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal, NoReturn, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from langchain_rlfocal.answers import KindLike, kind_names, label_answers
from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.outcomes.columns import COUNT, NUMBER, NUMBERS, TEXT, Codes, Column, codes_of, table_from_rows
from langchain_rlfocal.outcomes.files import append_lines, read_table, write_table
from langchain_rlfocal.outcomes.grids import OutcomeGrid
from langchain_rlfocal.outcomes.layout import lay_out

Missing = Literal["drop", "fail"]
"""What to do with a query that one of a pool's members did not answer."""

COLUMNS = (
    Column("task", TEXT, is_required=True, is_nullable=False),
    Column("query_id", TEXT, is_required=True, is_nullable=False),
    Column("query", TEXT, is_required=True, is_nullable=False),
    Column("model", TEXT, is_required=True, is_nullable=False),
    Column("response", TEXT),
    Column("answer", TEXT, is_required=True),
    Column("gold", TEXT),
    Column("reward", NUMBER, is_required=True, is_nullable=False, minimum=0.0, maximum=1.0),
    Column("option_probs", NUMBERS),
    Column("prompt_tokens", COUNT, minimum=0.0),
    Column("completion_tokens", COUNT, minimum=0.0),
    Column("cost_usd", NUMBER, minimum=0.0),
    Column("latency_s", NUMBER, minimum=0.0),
    Column("logprob", NUMBER),
)
"""The columns of a table of outcomes, in their order."""

QUESTION_COLUMNS = (
    Column("task", TEXT, is_required=True, is_nullable=False),
    Column("query_id", TEXT, is_required=True, is_nullable=False),
    Column("query", TEXT, is_required=True, is_nullable=False),
    Column("gold", TEXT),
    Column("kind", TEXT),
)
"""The columns of a file of questions, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one member answered to one query, and what that was worth.

    Attributes:
        task: Benchmark and subtask, such as `"mmlu_pro/law"`.
        query_id: The query's name, unique within its task.
        query: The question's text.
        model: The member's name.
        response: The member's full text, None where it was not recorded.
        answer: The answer extracted from it, None if none could be extracted.
        gold: The right answer, None where it is unknown.
        reward: The judge's score, in [0, 1].
        option_probs: A score per option, None where there are none.
        prompt_tokens: Tokens of the prompt, None where unknown.
        completion_tokens: Tokens of the response, None where unknown.
        cost_usd: Dollars, None where unknown (unknown is not zero).
        latency_s: Seconds to the complete response, None where unknown.
        logprob: Mean log-probability of the response's tokens, None where unknown.
    """

    task: str
    query_id: str
    query: str
    model: str
    response: str | None = None
    answer: str | None
    gold: str | None = None
    reward: float
    option_probs: tuple[float, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    logprob: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to ask a pool.

    Attributes:
        task: The task it belongs to.
        query_id: Its name, unique within the task.
        query: Its text.
        gold: The right answer, None where it is unknown.
        kind: What counts as the same answer: a name, a kind, or a function that compares two texts; in files a name.
    """

    task: str
    query_id: str
    query: str
    gold: str | None = None
    kind: KindLike = "auto"


class OutcomeTable:
    """Outcomes in the long form: checked, immutable, one row per task, query and member.

    Made by `read` or `from_outcomes`; iterating yields `Outcome`s in the table's order.
    """

    def __init__(self, table: pa.Table, *, places: Sequence[tuple[str | None, int]]) -> None:
        """Take over a checked table and check its keys; use `read` or `from_outcomes` instead.

        Args:
            table: A table of exactly `COLUMNS`.
            places: Name of the file and number of rows of each part of the table, for errors.
        """
        self._table = table
        self._codes = {name: codes_of(table[name]) for name in ("task", "query_id", "query", "model")}
        _check_keys(self._codes, places)

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Self:
        """Read one or several Parquet, JSONL or CSV files as one table.

        Raises:
            InputError: No path was given.
            OutcomeError: A file cannot be read or breaks a rule.
        """
        if not paths:
            raise InputError("`read` needs at least one path, got none. Name a .parquet, .jsonl or .csv file.")
        tables = [read_table(path, COLUMNS) for path in paths]
        places = [(str(path), len(table)) for path, table in zip(paths, tables, strict=True)]
        return cls(pa.concat_tables(tables), places=places)

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[Outcome]) -> Self:
        """Make a table of outcomes in memory.

        Raises:
            OutcomeError: An outcome breaks a rule.
        """
        table = _table_of(outcomes)
        return cls(table, places=[(None, len(table))])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet, JSONL or CSV file: the whole file appears at once, or nothing does.

        Raises:
            OutcomeError: The suffix is unknown, or the file's folder does not exist.
        """
        write_table(self._table, path)

    def relabelled(self, kind: KindLike) -> Self:
        """Return the table with answers labelled anew from the recorded responses.

        Rewards stay as they are. A row without a response keeps its answer, which others of its query can then share.

        Args:
            kind: What counts as the same answer.

        Raises:
            InputError: `kind` is no kind.
        """
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in self:
            groups.setdefault((outcome.task, outcome.query_id), []).append(outcome)
        labels = {
            (*key, outcome.model): label
            for key, group in groups.items()
            for outcome, label in zip(
                group,
                label_answers([o.response or o.answer for o in group], kind, query=group[0].query),
                strict=True,
            )
        }
        return type(self).from_outcomes(replace(o, answer=labels[o.task, o.query_id, o.model]) for o in self)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Outcome]:
        for batch in self._table.to_batches(max_chunksize=8192):
            for row in batch.to_pylist():
                probs = row.pop("option_probs")
                yield Outcome(**row, option_probs=None if probs is None else tuple(probs))

    def __repr__(self) -> str:
        return f"OutcomeTable({len(self)} rows, {len(self.members)} members, {len(self.tasks)} tasks)"

    @cached_property
    def members(self) -> tuple[str, ...]:
        """Names of all members, in the order of their first row."""
        return tuple(self._codes["model"][1])

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, in the order of their first row."""
        return tuple(self._codes["task"][1])

    def grid(
        self,
        members: Sequence[str],
        *,
        task: str | Sequence[str] | None = None,
        missing: Missing = "drop",
        test_ids: str | None = None,
    ) -> OutcomeGrid:
        """Lay out the queries of a pool, in the order of their first row.

        Args:
            members: The pool, in its order.
            task: Which tasks to take, with `*` and `?` as wildcards (`"mmlu_pro/*"`); several are taken together; None
                takes all.
            missing: What to do with a query that one of `members` did not answer: `"drop"` leaves it out; `"fail"` keeps
                it, as that member's failure, if another of them answered.
            test_ids: Which queries the file itself sets apart as test rows, by their `query_id`, with wildcards
                (`"test*"`); None leaves the split to the text. See `OutcomeGrid.split`.

        Raises:
            InputError: `missing` is neither.
            PoolError: `members` is empty, names a member twice, or one that the table does not hold.
            OutcomeError: A name matches no task, no query was answered by all members (`"drop"`), a member answered none
                (`"fail"`), or `test_ids` matches no query.
        """
        if missing not in get_args(Missing):
            raise InputError(f"`missing` must be one of {', '.join(get_args(Missing))}, got {missing!r}. Choose one.")
        wanted = self._member_codes(members)
        rows = np.flatnonzero(self._is_of(task)[self._codes["task"][0]])
        query = _dense(_query_keys(self._codes)[rows])
        total = int(query.max()) + 1
        place = np.full(len(self.members), -1)
        place[wanted] = np.arange(len(wanted))
        member = place[self._codes["model"][0][rows]]
        cells = np.full((total, len(wanted)), -1)
        asked = member >= 0
        cells[query[asked], member[asked]] = rows[asked]
        has_row = cells >= 0
        if missing == "fail":
            silent = [name for name, num in zip(members, has_row.sum(axis=0), strict=True) if not num]
            if silent:
                rule = (
                    f"every member must have answered a query of these tasks to fail the others, got none by {silent}. "
                    "Leave them out of the pool."
                )
                raise OutcomeError(rule, column="model")
            kept, dropped = has_row.any(axis=1), 0
        else:
            kept = has_row.all(axis=1)
            dropped = int(total - kept.sum())
        if not kept.any():
            counts = ", ".join(f"{name} {n}" for name, n in zip(members, has_row.sum(axis=0), strict=True))
            rule = (
                f"at least one query must be answered by all {len(wanted)} members, got none of {total}. "
                f"Leave out a member; they answered: {counts}."
            )
            raise OutcomeError(rule)
        return lay_out(self._table, self._codes, tuple(members), cells[kept], dropped=dropped, test_ids=test_ids)

    def _is_of(self, task: str | Sequence[str] | None) -> npt.NDArray[np.bool_]:
        """Say which of the table's tasks are meant."""
        matches = np.zeros(len(self.tasks), dtype=bool)
        patterns = ["*"] if task is None else [task] if isinstance(task, str) else task
        for pattern in patterns:
            found = np.array([fnmatchcase(name, pattern) for name in self.tasks], dtype=bool)
            if not found.any():
                known = ", ".join(self.tasks[:10]) or "none"
                rule = f"`task` must match a task of the table, got {pattern!r}. Its tasks begin: {known}."
                raise OutcomeError(rule, column="task")
            matches |= found
        if not matches.any():
            raise OutcomeError(f"`task` must name at least one task, got {task!r}. Pass None for all.", column="task")
        return matches

    def _member_codes(self, members: Sequence[str]) -> list[int]:
        if isinstance(members, str) or not members:
            raise PoolError(f"`members` must name at least one member, got {members!r}. Pass a list of names.")
        twice = next((name for index, name in enumerate(members) if name in members[:index]), None)
        if twice is not None:
            raise PoolError(f"`members` must name each member once, got {twice!r} twice. Remove one.")
        codes = {name: code for code, name in enumerate(self.members)}
        unknown = [name for name in members if name not in codes]
        if unknown:
            raise PoolError(f"`members` must be in the table, got {unknown}. It holds: {', '.join(self.members)}.")
        return [codes[name] for name in members]


def append_jsonl(path: str | os.PathLike[str], outcomes: Iterable[Outcome]) -> None:
    """Append outcomes to a JSONL file, so that a long collection can resume: all of them are added, or none is.

    The file is made where it is missing. What stands in it already is not read: a row that stands twice is found when
    the file is.

    Raises:
        OutcomeError: An outcome breaks a rule, or the disk is full.
    """
    append_lines(OutcomeTable.from_outcomes(outcomes)._table, path)  # noqa: SLF001  the same module


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Read a JSONL, CSV or Parquet file of questions.

    Columns: task, query_id, query; optionally gold, and kind (default `"auto"`).

    Raises:
        OutcomeError: The file cannot be read or breaks a rule.
    """
    rows = read_table(path, QUESTION_COLUMNS).to_pylist()
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        row["kind"] = row["kind"] or "auto"
        if row["kind"] not in kind_names():
            rule = f"must be one of {', '.join(kind_names())}, got {row['kind']!r}. Correct it."
            raise OutcomeError(rule, file=str(path), row=number, column="kind")
        first = seen.setdefault((row["task"], row["query_id"]), number)
        if first != number:
            rule = f"must be unique within the task {row['task']!r}, got {row['query_id']!r} in row {first} too. Rename one."
            raise OutcomeError(rule, file=str(path), row=number, column="query_id")
    return [Question(**row) for row in rows]


def _table_of(outcomes: Iterable[Outcome]) -> pa.Table:
    return table_from_rows([{c.name: getattr(outcome, c.name) for c in COLUMNS} for outcome in outcomes], COLUMNS)


def _dense(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Number distinct keys by first appearance."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _query_keys(codes: dict[str, Codes]) -> npt.NDArray[np.int64]:
    return codes["task"][0] * max(len(codes["query_id"][1]), 1) + codes["query_id"][0]


def _check_keys(codes: dict[str, Codes], places: Sequence[tuple[str | None, int]]) -> None:
    """Refuse a (task, query_id, model) that stands twice, and a (task, query_id) with two texts."""
    query = _dense(_query_keys(codes))
    text = codes["query"][0]
    first = np.unique(query, return_index=True)[1]
    other = np.flatnonzero(text[first][query] != text)
    if other.size:
        row = int(other[0])
        rule = "a query must have one text in its task, got another than in {where}. Give one another `query_id`."
        _refuse(rule, row=row, first=int(first[query[row]]), column="query", places=places)
    key = query * max(len(codes["model"][1]), 1) + codes["model"][0]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(key)))
    if again.size:
        row = int(again[0])
        rule = "task, query_id and model must be unique together, got those of {where}. Delete one of the two."
        _refuse(rule, row=row, first=int(first[inverse[row]]), column="model", places=places)


def _locate(row: int, places: Sequence[tuple[str | None, int]]) -> tuple[str | None, int]:
    """Return the file that holds a row of the whole table, and the row's number in it, counted from 1."""
    for file, length in places:
        if row < length:
            return file, row + 1
        row -= length
    raise AssertionError(row)


def _refuse(rule: str, *, row: int, first: int, column: str, places: Sequence[tuple[str | None, int]]) -> NoReturn:
    file, number = _locate(row, places)
    other_file, other_number = _locate(first, places)
    where = f"row {other_number}" if other_file == file else f"row {other_number} of {other_file}"
    raise OutcomeError(rule.format(where=where), file=file, row=number, column=column)

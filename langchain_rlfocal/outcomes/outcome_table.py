"""Tables of outcomes and lists of questions: rows, read from files, checked, and laid out as grids.

It never fills a gap: a query that one of a pool's members did not answer is left out and counted, and an unknown cost
stays unknown.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NoReturn, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from langchain_rlfocal.answers import AnswerKind
from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.outcomes.columns import COUNT, NUMBER, NUMBERS, TEXT, Column, table_from_rows
from langchain_rlfocal.outcomes.files import append_lines, read_table, write_table
from langchain_rlfocal.outcomes.grids import OutcomeGrid

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
        kind: Which answers count as the same, one of `answers.AnswerKind`.
    """

    task: str
    query_id: str
    query: str
    gold: str | None = None
    kind: AnswerKind = "auto"


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
        self._codes = {name: _codes(table[name]) for name in ("task", "query_id", "query", "model")}
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

    def grid(self, members: Sequence[str], *, task: str | None = None) -> OutcomeGrid:
        """Lay out the queries that all of `members` answered, in the order of their first row.

        Args:
            members: The pool, in its order.
            task: Which tasks to take, with `*` and `?` as wildcards (`"mmlu_pro/*"`); None takes all.

        Raises:
            PoolError: `members` is empty, names a member twice, or one that the table does not hold.
            OutcomeError: No task matches, or no query was answered by all members.
        """
        wanted = self._member_codes(members)
        task_codes, task_names = self._codes["task"]
        matches = np.array([task is None or fnmatchcase(name, task) for name in task_names], dtype=bool)
        if not matches.any():
            known = ", ".join(task_names[:10]) or "none"
            rule = f"`task` must match a task of the table, got {task!r}. Its tasks begin: {known}."
            raise OutcomeError(rule, column="task")
        rows = np.flatnonzero(matches[task_codes])
        query = _dense(_query_keys(self._codes)[rows])
        total = int(query.max()) + 1
        place = np.full(len(self.members), -1)
        place[wanted] = np.arange(len(wanted))
        member = place[self._codes["model"][0][rows]]
        cells = np.full((total, len(wanted)), -1)
        asked = member >= 0
        cells[query[asked], member[asked]] = rows[asked]
        complete = (cells >= 0).all(axis=1)
        if not complete.any():
            counts = ", ".join(f"{name} {n}" for name, n in zip(members, (cells >= 0).sum(axis=0), strict=True))
            rule = (
                f"at least one query must be answered by all {len(wanted)} members, got none of {total}. "
                f"Leave out a member; they answered: {counts}."
            )
            raise OutcomeError(rule)
        return self._lay_out(tuple(members), cells[complete], dropped=int(total - complete.sum()))

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

    def _lay_out(self, members: tuple[str, ...], cells: npt.NDArray[np.intp], *, dropped: int) -> OutcomeGrid:
        flat = pa.array(cells.ravel())

        def numbers(name: str) -> npt.NDArray[np.float64]:
            column = self._table[name].take(flat).cast(NUMBER)
            return np.asarray(pc.fill_null(column, np.nan).to_numpy(), dtype=np.float64).reshape(cells.shape)

        def texts(name: str) -> list[str]:
            codes, values = self._codes[name]
            return [values[code] for code in codes[cells[:, 0]]]

        codes, values = _codes(self._table["answer"].take(flat))
        codes = codes.reshape(cells.shape)
        first = (codes[:, :, None] == codes[:, None, :]).argmax(axis=2)
        golds = _codes(self._table["gold"].take(flat))
        # Members may stand in files of which only one records the right answer: take the first there is.
        gold_codes = golds[0].reshape(cells.shape)
        gold_codes = gold_codes[np.arange(len(cells)), (gold_codes >= 0).argmax(axis=1)]
        return OutcomeGrid(
            members=members,
            tasks=texts("task"),
            query_ids=texts("query_id"),
            queries=texts("query"),
            golds=[None if code < 0 else golds[1][code] for code in gold_codes],
            answer_ids=np.where(codes < 0, -1, first).astype(np.int32),
            # A code of -1 reads the None at the end.
            answers=np.array([*values, None], dtype=object)[codes],
            scores=numbers("reward"),
            cost_usd=numbers("cost_usd"),
            latency_s=numbers("latency_s"),
            prompt_tokens=numbers("prompt_tokens"),
            completion_tokens=numbers("completion_tokens"),
            logprobs=numbers("logprob"),
            dropped=dropped,
        )


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
        if row["kind"] not in get_args(AnswerKind):
            rule = f"must be one of {', '.join(get_args(AnswerKind))}, got {row['kind']!r}. Correct it."
            raise OutcomeError(rule, file=str(path), row=number, column="kind")
        first = seen.setdefault((row["task"], row["query_id"]), number)
        if first != number:
            rule = f"must be unique within the task {row['task']!r}, got {row['query_id']!r} in row {first} too. Rename one."
            raise OutcomeError(rule, file=str(path), row=number, column="query_id")
    return [Question(**row) for row in rows]


_Codes = tuple[npt.NDArray[np.int64], list[str]]


def _table_of(outcomes: Iterable[Outcome]) -> pa.Table:
    return table_from_rows([{c.name: getattr(outcome, c.name) for c in COLUMNS} for outcome in outcomes], COLUMNS)


def _codes(column: pa.ChunkedArray) -> _Codes:
    """Number a column's distinct texts by first appearance; null is -1."""
    encoded = pa.chunked_array([column.combine_chunks()], TEXT).dictionary_encode().combine_chunks()
    return pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _dense(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Number distinct keys by first appearance."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _query_keys(codes: dict[str, _Codes]) -> npt.NDArray[np.int64]:
    return codes["task"][0] * max(len(codes["query_id"][1]), 1) + codes["query_id"][0]


def _check_keys(codes: dict[str, _Codes], places: Sequence[tuple[str | None, int]]) -> None:
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

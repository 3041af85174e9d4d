"""Tables of outcomes and lists of questions: read, checked, written, laid out as grids.

What breaks a column's rule is an `OutcomeError` that names the file, the column, and where it is known the row; see `files`. A
table fills no gap by itself: a query that one of a pool's members was not asked is left out and counted, or, where the caller
asks for it, kept with a hole, or counted as that member's failure. An unknown cost stays unknown, and an answer that nobody
scored unscored. Columns of the user's own are kept.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from langchain_rlfocal.answers import KindLike, kind_names, label_answers, to_kind
from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.outcomes import files
from langchain_rlfocal.outcomes.files import (
    COUNT,
    NUMBER,
    NUMBERS,
    TEXT,
    Column,
    shown_path,
)
from langchain_rlfocal.outcomes.grids import OutcomeGrid

Ints = npt.NDArray[np.int64]
Codes = tuple[Ints, list[str]]
"""A column of texts, numbered by first appearance: each row's number (-1 is null), and the text of each number."""

Missing = Literal["mask", "drop", "fail"]
"""What to do with a query for which a member of the pool has no row: keep it with a hole, leave it out, or count a failure."""

COLUMNS = (
    Column("task", TEXT, is_required=True, is_nullable=False),
    Column("query_id", TEXT, is_required=True, is_nullable=False),
    Column("query", TEXT, is_required=True, is_nullable=False),
    Column("model", TEXT, is_required=True, is_nullable=False),
    Column("response", TEXT),
    Column("answer", TEXT, is_required=True, takes_json=True),
    Column("gold", TEXT, takes_json=True),
    Column("reward", NUMBER, is_required=True, takes_truth=True, minimum=0.0, maximum=1.0),
    Column("option_probs", NUMBERS),
    Column("prompt_tokens", COUNT, minimum=0.0),
    Column("completion_tokens", COUNT, minimum=0.0),
    Column("cost_usd", NUMBER, minimum=0.0),
    Column("latency_s", NUMBER, minimum=0.0),
    Column("logprob", NUMBER),
    Column(
        "propensity",
        NUMBER,
        maximum=1.0,
        above=0.0,
        way_out="A member that cannot have been asked has no row: delete it, or leave the propensity open where it is unknown.",
    ),
)
"""The columns of a table of outcomes, in their order: the fields of `Outcome`."""

QUESTION_COLUMNS = (
    Column("task", TEXT),
    Column("query_id", TEXT),
    Column("query", TEXT, takes_json=True),
    Column("gold", TEXT, takes_json=True),
    Column("kind", TEXT),
    Column("messages", TEXT, takes_json=True),
    Column("tools", TEXT, takes_json=True),
    Column("scorer", TEXT),
)
"""The columns of a file of questions, in their order: the fields of `Question`. Only `query` must be there."""

QUESTION_ALIASES = {"id": "query_id", "input": "query", "reference": "gold"}
"""Other names that columns of questions may have."""

check_writable = files.check_writable

DEFAULT_TASK = "questions"
"""The task of questions whose file names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one member answered to one query, and what that was worth.

    Attributes:
        task: Benchmark and subtask, such as `"mmlu_pro/law"`.
        query_id: The query's name, unique within its task.
        query: The question's text.
        model: The member's name.
        response: The member's full text, None where it was not recorded.
        answer: The answer extracted from it, None if none could be extracted: then it is equal to no other, and where the
            response is blank (`""`) it is no answer at all. Nor is it without a response in a table that records others' and with
            a reward of 0: so `rlfocal collect` records a member that failed.
        gold: The right answer, None where it is unknown.
        reward: The judge's score, in [0, 1]; None where nobody judged it, which is not wrong.
        option_probs: A score per option, None where there are none.
        prompt_tokens: Tokens of the prompt, None where unknown.
        completion_tokens: Tokens of the response, None where unknown.
        cost_usd: Dollars, None where unknown (unknown is not zero).
        latency_s: Seconds to the complete response, None where unknown.
        logprob: Mean log-probability of the response's tokens, None where unknown.
        propensity: The probability with which this member was asked this query, in (0, 1]; None where unknown.
        extras: What a table says of it in columns of the user's own, by the column's name.
    """

    task: str
    query_id: str
    query: str
    model: str
    response: str | None = None
    answer: str | None
    gold: str | None = None
    reward: float | None
    option_probs: tuple[float, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    logprob: float | None = None
    propensity: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to ask a pool.

    Attributes:
        task: The task it belongs to.
        query_id: Its name, unique within the task.
        query: Its text; that of the last message of the user where there are `messages`.
        gold: The right answer, None where it is unknown; JSON where it is no text.
        kind: What counts as the same answer: a name, a kind, or a function that compares two texts; in files a name.
        messages: The conversation to send, as role and content; empty where the text is all there is to send.
        tools: Tools that members may call, as in OpenAI's format.
        scorer: What scores an answer, by the name that `scoring` knows it by; None: whether it equals `gold`.
        extras: What a file says of it in columns of the user's own, by the column's name.
    """

    task: str
    query_id: str
    query: str
    gold: str | None = None
    kind: KindLike = "auto"
    messages: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    scorer: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)


_SAMPLE_ID = re.compile(r"(.+)#([2-9]|[1-9][0-9]{1,8})", re.DOTALL)


def sample_id(query_id: str, sample: int) -> str:
    """Name a question in a table: by its id, and where it is the k-th answer of a member to it, k > 1, also by `#k`.

    Args:
        query_id: The question's id.
        sample: Which answer, from 0.
    """
    return query_id if sample == 0 else f"{query_id}#{sample + 1}"


def split_sample_id(query_id: str) -> tuple[str, int]:
    """Read what `sample_id` writes: `"17#2"` is the second answer to `"17"`, unless a question itself is called so.

    Returns:
        The question's id and the sample, from 0; with sample 0 the id as it is, as of `"17#1"`, which nobody writes.
    """
    found = _SAMPLE_ID.fullmatch(query_id)
    return (query_id, 0) if found is None else (found[1], int(found[2]) - 1)


class OutcomeTable:
    """Outcomes in the long form: checked, immutable, one row per task, query and member.

    Made by `read` or `from_outcomes`; iterating yields `Outcome`s in the table's order.
    """

    def __init__(self, parts: Sequence[tuple[str | None, pa.Table]], *, kind: str | None = None) -> None:
        """Join checked tables, each with its file's name, and check their keys."""
        self._table = files.concatenated([table for _, table in parts], len(COLUMNS))
        self._kind = kind
        self._codes = {name: _codes(self._table[name]) for name in ("task", "query_id", "query", "model")}
        self._query = self._codes["task"][0] * max(len(self._codes["query_id"][1]), 1) + self._codes["query_id"][0]
        self._check_keys(parts)

    @classmethod
    def read(cls, *paths: str | os.PathLike[str], unfinished: bool = False) -> Self:
        """Read one or several Parquet, JSONL or CSV files as one table.

        Args:
            *paths: Files, pipes, or "-" for standard input; JSONL and CSV may be packed with gzip.
            unfinished: True for JSONL files that are still written to, or whose writer was killed: a last line that breaks off
                is left out, and no row at all is as good as some.

        Raises:
            InputError: No path was given.
            OutcomeError: A file cannot be read, has no rows, or breaks a rule.
        """
        if not paths:
            raise InputError("`read` needs at least one path, got none. Name a .parquet, .jsonl or .csv file.")
        return cls([(shown_path(path), files.read_table(path, COLUMNS, unfinished=unfinished)) for path in paths])

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[Outcome]) -> Self:
        """Make a table of outcomes in memory.

        Raises:
            OutcomeError: An outcome breaks a rule.
        """
        return cls([(None, _table_of(outcomes))])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet, JSONL or CSV file: the whole file appears at once, or nothing does.

        Raises:
            OutcomeError: The suffix is unknown, or the file's folder does not exist or may not be written to.
        """
        files.write_table(self._table, path)

    def relabelled(self, kind: KindLike) -> Self:
        """Return the table with new labels for its answers, made from the recorded responses.

        Rewards stay as they are. A row without a response keeps its answer, which others of its query can then share.

        Args:
            kind: What counts as the same answer.

        Raises:
            InputError: `kind` is no kind.
        """
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in self:
            groups.setdefault((outcome.task, outcome.query_id), []).append(outcome)
        for group in groups.values():
            group.sort(key=lambda outcome: outcome.model)  # the first of equal answers gives them their label
        labels = {
            (*key, outcome.model): label
            for key, group in groups.items()
            for outcome, label in zip(
                group,
                label_answers([o.response or o.answer for o in group], kind, query=group[0].query),
                strict=True,
            )
        }
        outcomes = (replace(o, answer=labels[o.task, o.query_id, o.model]) for o in self)
        return type(self)([(None, _table_of(outcomes))], kind=to_kind(kind).name)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Outcome]:
        names = [column.name for column in COLUMNS if column.name != "option_probs"]
        others = self._table.column_names[len(COLUMNS) :]
        for row in files.rows_of(self._table):
            probs = row["option_probs"]
            yield Outcome(
                **{name: row[name] for name in names},
                option_probs=None if probs is None else tuple(probs),
                extras={name: row[name] for name in others if row[name] is not None},
            )

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

    def of_queries(self, queries: Iterable[tuple[str, str]]) -> list[Outcome]:
        """Return the outcomes of some queries, named by task and query_id, in the table's order."""
        tasks, ids = ({text: code for code, text in enumerate(self._codes[name][1])} for name in ("task", "query_id"))
        scale = max(len(ids), 1)
        wanted = [tasks[task] * scale + ids[name] for task, name in queries if task in tasks and name in ids]
        rows = np.flatnonzero(np.isin(self._query, wanted))
        return list(type(self)([(None, self._table.take(rows))])) if len(rows) else []

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
            missing: What to do with a query for which one of `members` has no row: `"drop"` leaves it out. The others keep it
                if another of them has one: `"mask"` with a hole, `"fail"` as that member's failure.
            test_ids: Which queries the file itself sets apart as test rows, by their `query_id`, with wildcards
                (`"test*"`); None leaves the split to the text. See `OutcomeGrid.split`.

        Raises:
            InputError: `missing` is none of these.
            PoolError: `members` is empty, names a member twice, or one that the table does not hold.
            OutcomeError: A name matches no task, no query was answered by all members (`"drop"`), a member answered none
                (`"mask"`, `"fail"`), or `test_ids` matches no query.
        """
        if missing not in get_args(Missing):
            raise InputError(f"`missing` must be one of {', '.join(get_args(Missing))}, got {missing!r}. Choose one.")
        self._check_members(members)
        patterns = ["*"] if task is None else [task] if isinstance(task, str) else list(task)
        rows = np.flatnonzero(self._is_of(patterns)[self._codes["task"][0]])
        query = np.unique(_first_rows(self._query[rows]), return_inverse=True)[1]
        total = int(query.max()) + 1
        columns = np.array([members.index(name) if name in members else -1 for name in self.members])
        member = columns[self._codes["model"][0][rows]]
        cells = np.full((total, len(members)), -1)
        cells[query[member >= 0], member[member >= 0]] = rows[member >= 0]
        answered = (cells >= 0).sum(axis=0)
        if missing != "drop":
            absent = [name for name, num in zip(members, answered, strict=True) if not num]
            if absent:
                rule = (
                    f"every member must have a row of these tasks, got none of {', '.join(absent)}: nothing is known of what "
                    "was never asked. Leave them out of the pool, or collect some of their answers."
                )
                raise OutcomeError(rule, column="model")
            kept, dropped = (cells >= 0).any(axis=1), 0
        else:
            kept = (cells >= 0).all(axis=1)
            dropped = int(total - kept.sum())
        if not kept.any():
            counts = ", ".join(f"{name} {n}" for name, n in zip(members, answered, strict=True))
            rule = (
                f"at least one query must be answered by all {len(members)} members, got none of {total}. "
                f'Keep queries with holes (`missing="mask"`), or leave out a member; they answered: {counts}.'
            )
            raise OutcomeError(rule)
        grid = self._lay_out(tuple(members), cells[kept], fails=missing == "fail", dropped=dropped)
        facts = {"task": patterns, "missing": missing, "test_ids": test_ids, "kind": self._kind}
        return replace(grid, rows=facts, is_test=None if test_ids is None else _is_test(grid.query_ids, test_ids))

    def _is_of(self, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Say which of the table's tasks match."""
        if not patterns:
            raise OutcomeError("`task` must name at least one task, got []. Pass None for all.", column="task")
        matches = np.array([[fnmatchcase(name, pattern) for name in self.tasks] for pattern in patterns], dtype=bool)
        for pattern, match in zip(patterns, matches, strict=True):
            if not match.any():
                known = ", ".join(self.tasks[:10]) or "none"
                rule = f"`task` must match a task of the table, got {pattern!r}. Its tasks begin: {known}."
                raise OutcomeError(rule, column="task")
        return np.asarray(matches.any(axis=0))

    def _check_members(self, members: Sequence[str]) -> None:
        if isinstance(members, str) or not members:
            raise PoolError(f"`members` must name at least one member, got {members!r}. Pass a list of names.")
        twice = next((name for index, name in enumerate(members) if name in members[:index]), None)
        if twice is not None:
            raise PoolError(f"`members` must name each member once, got {twice!r} twice. Remove one.")
        unknown = [name for name in members if name not in self.members]
        if unknown:
            raise PoolError(f"`members` must be in the table, got {unknown}. It holds: {', '.join(self.members)}.")

    def _check_keys(self, parts: Sequence[tuple[str | None, pa.Table]]) -> None:
        """Refuse a (task, query_id, model) that occurs twice, and a (task, query_id) with two texts."""

        def refuse(row: int, first: int, rule: str, column: str) -> NoReturn:
            where = [(file, number) for file, table in parts for number in range(1, len(table) + 1)]
            (file, number), (other_file, other) = where[row], where[first]
            of = "" if other_file == file else f" of {other_file}"
            raise OutcomeError(rule.format(where=f"row {other}{of}"), file=file, row=number, column=column)

        text, first = self._codes["query"][0], _first_rows(self._query)
        for row in np.flatnonzero(text[first] != text)[:1]:
            rule = "a query must have one text in its task, got another than in {where}. Give one another `query_id`."
            refuse(row, first[row], rule, "query")
        first = _first_rows(self._query * max(len(self.members), 1) + self._codes["model"][0])
        for row in np.flatnonzero(first != np.arange(len(first)))[:1]:
            rule = "task, query_id and model must be unique together, got those of {where}. Delete one of the two."
            refuse(row, first[row], rule, "model")

    def _lay_out(
        self, members: tuple[str, ...], cells: npt.NDArray[np.intp], *, fails: bool, dropped: int
    ) -> OutcomeGrid:
        """Make a grid; `cells` holds the row of each cell, shape [Q, M], -1 where a member has none, which `fails` or is a hole."""
        table, is_absent = self._table, cells < 0
        flat = pa.array(cells.ravel(), mask=is_absent.ravel())
        rows = cells.max(axis=1)

        def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
            taken = column.take(flat).cast(NUMBER)
            return np.asarray(pc.fill_null(taken, np.nan).to_numpy(), dtype=np.float64).reshape(cells.shape)

        def texts(name: str) -> list[str]:
            numbered, values = self._codes[name]
            return [values[code] for code in numbered[rows]]

        answer_codes, values = _codes(table["answer"].take(flat))
        answer_codes = answer_codes.reshape(cells.shape)
        # Of answers without a label, each is like no other.
        own = np.where(answer_codes < 0, -1 - np.arange(len(members)), answer_codes)
        ids = (own[:, :, None] == own[:, None, :]).argmax(axis=2)
        unlabelled = np.flatnonzero((answer_codes < 0) & ~is_absent)
        of_unlabelled = flat.take(pa.array(unlabelled))
        is_blank = pc.equal(pc.utf8_trim_whitespace(table["response"].take(of_unlabelled)), "")
        # Where responses are recorded, a row that has none and is worth nothing is a member that failed; not of a member of which
        # rewards alone are recorded, as one that is worth something without a response tells.
        reward, member = table["reward"].take(of_unlabelled), unlabelled % len(members)
        is_worth = pc.fill_null(pc.and_(pc.is_null(is_blank), pc.greater(reward, 0.0)), fill_value=False).to_numpy()
        has_responses = np.full(len(members), table["response"].null_count < len(self))
        has_responses[member[is_worth]] = False
        has_failed = pc.and_(pc.equal(reward, 0.0), pa.array(has_responses[member]))
        is_silent = pc.fill_null(pc.if_else(pc.is_null(is_blank), has_failed, is_blank), fill_value=False)
        ids.ravel()[unlabelled[is_silent.to_numpy()]] = -1
        ids[is_absent] = -1
        answers = np.array([*values, None], dtype=object)[answer_codes]  # a code of -1 reads the None at the end
        gold_codes, gold_values = _codes(table["gold"].take(flat))
        # Members may come from files of which only one records the right answer: take the first there is.
        gold_codes = gold_codes.reshape(cells.shape)
        gold_codes = gold_codes[np.arange(len(cells)), (gold_codes >= 0).argmax(axis=1)]
        golds = [None if code < 0 else gold_values[code] for code in gold_codes]
        scores = _shared_scores(ids, np.where(is_absent & fails, 0.0, numbers(table["reward"])))
        return OutcomeGrid(
            members=members,
            tasks=texts("task"),
            query_ids=texts("query_id"),
            queries=texts("query"),
            golds=golds,
            answer_ids=ids.astype(np.int32),
            answers=answers,
            scores=scores,
            recorded=np.ones(cells.shape, dtype=bool) if fails else ~is_absent,
            propensity=numbers(table["propensity"]),
            cost_usd=numbers(table["cost_usd"]),
            latency_s=numbers(table["latency_s"]),
            prompt_tokens=numbers(table["prompt_tokens"]),
            completion_tokens=numbers(table["completion_tokens"]),
            logprobs=numbers(table["logprob"]),
            response_chars=numbers(pc.utf8_length(table["response"])),
            dropped=dropped,
            missing=int(is_absent.any(axis=1).sum()),
            **self._lay_out_options(flat, answers, golds, scores, tasks=self._codes["task"][0][rows]),
        )

    def _lay_out_options(
        self, cells: pa.Array, answers: npt.NDArray[np.object_], golds: list[str | None], scores: Any, *, tasks: Ints
    ) -> dict[str, Any]:
        """Make the four option arrays of a grid; nothing where no cell has options."""
        if self._table["option_probs"].null_count == len(self):
            return {}
        probs = _padded(self._table["option_probs"].take(cells))
        num_options = probs.shape[1]
        if not num_options:
            return {}
        probs = probs.reshape(*answers.shape, num_options)
        nothing = np.array(None, dtype=object)
        exists = ~np.isnan(probs).all(axis=1)
        names = np.where(exists, learn_names(self._table, self._codes)[tasks, :num_options], nothing)
        right = np.array(golds, dtype=object)[:, None]
        can_choose = np.not_equal(names, nothing) & np.not_equal(right, nothing)
        is_same = np.equal(answers[:, :, None], names[:, None, :])
        is_given, giver = is_same.any(axis=1), is_same.argmax(axis=1)
        ids = np.where(is_given, giver, answers.shape[1] + np.arange(num_options))
        worth = np.take_along_axis(scores, giver, axis=1)
        worth = np.where(is_given & ~np.isnan(worth), worth, np.equal(names, right))
        return {
            "option_probs": probs,
            "option_answers": names,
            "option_ids": np.where(can_choose, ids, -1).astype(np.int32),
            "option_scores": np.where(can_choose, worth, np.nan),
        }


def learn_names(table: pa.Table, codes: Mapping[str, Codes]) -> npt.NDArray[np.object_]:
    """Learn what each task calls its options: the answer of the rows that score the option best.

    A row is evidence for an option if it scores that one above all others and has an answer. A task's options have names
    where the rows of all members agree: no option has two answers, no answer two options, and at least one option has its
    answer from two queries. So letters, numbers and fixed words are found, and a task whose options are other texts in
    every query has none; an option that no row scores best has none either. Nothing is learned from the right answers.

    Args:
        table: The whole table, so that no name depends on which members a pool has.
        codes: Its texts by column, numbered.

    Returns:
        The names, shape [tasks, O], None where there is none.
    """
    probs = _padded(table["option_probs"])
    names = np.full((len(codes["task"][1]), probs.shape[1]), None, dtype=object)
    answer, texts = _codes(table["answer"])
    known = np.where(np.isnan(probs), -np.inf, probs)
    best = known.max(axis=1, keepdims=True, initial=-np.inf)
    is_best = (known == best) & np.isfinite(best)
    rows = np.flatnonzero((is_best.sum(axis=1) == 1) & (answer >= 0))
    evidence = np.stack([codes["task"][0], is_best.argmax(axis=1), answer, codes["query_id"][0]])[:, rows]
    evidence, queries = np.unique(np.unique(evidence, axis=1)[:3], axis=1, return_counts=True)
    for task in np.unique(evidence[0]):
        is_here = evidence[0] == task
        _, options, answers = evidence[:, is_here]
        is_one_to_one = len(set(options)) == len(set(answers)) == len(options)
        if is_one_to_one and queries[is_here].max() > 1:
            names[task, options] = [texts[code] for code in answers]
    return names


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Read a JSONL, CSV or Parquet file of questions, a pipe, or "-" for standard input.

    A row needs a `query` alone, which may be called `input`; `QUESTION_ALIASES` lists what else has another name. It is a text,
    or a conversation: messages of OpenAI's format in a list, or in an object with `messages`, and `tools` where there are any.
    The right answer (`gold`, or `reference`) is a text or any JSON. Where a row has no task, it is `DEFAULT_TASK`; where it has
    no id, the id is made of what is asked, so that the same question has the same id whenever it is read. `kind` is `"auto"`
    by default, and a column with another name is kept in `extras`.

    Raises:
        OutcomeError: The file cannot be read, has no rows, or breaks a rule.
    """
    shown = shown_path(path)
    names = [column.name for column in QUESTION_COLUMNS]
    known = {column.name: column for column in QUESTION_COLUMNS}
    aliases = [replace(known[name], name=alias) for alias, name in QUESTION_ALIASES.items()]
    questions: list[Question] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(files.rows_of(files.read_table(path, (*QUESTION_COLUMNS, *aliases))), start=1):

        def refuse(column: str, rule: str, number: int = number) -> NoReturn:
            raise OutcomeError(rule, file=shown, row=number, column=column)

        for alias, name in QUESTION_ALIASES.items():
            value = row.pop(alias)
            if row[name] is None:
                row[name] = value
            elif value is not None and name == "query_id":
                row[alias] = value  # a number of the user's own
            elif value not in (None, row[name]):
                refuse(alias, f"is another name of `{name}`, which says something else here. Leave one of them out.")
        question = _question_of(row, names, refuse)
        first = seen.setdefault((question.task, question.query_id), number)
        if first != number:
            is_made = row["query_id"] is None
            refuse(
                "query" if is_made else "query_id",
                f"asks what row {first} asks. Delete one, or give each a `query_id`."
                if is_made
                else f"must be unique within the task {question.task!r}, got {question.query_id!r} in row {first} too. Rename one.",
            )
        questions.append(question)
    return questions


def _question_of(row: Mapping[str, Any], names: Sequence[str], refuse: Any) -> Question:
    """Make a question of a row; `refuse` takes a column and the rule that it breaks."""
    query, kind = row["query"], row["kind"] or "auto"
    messages = _listed(row["messages"], "messages", refuse)
    tools = _listed(row["tools"], "tools", refuse)
    if query and not messages and query.lstrip()[:1] in {"[", "{"}:
        found = _json_of(query)
        if isinstance(found, dict) and "messages" in found:
            tools = tools or _objects(found.get("tools") or [], "tools", refuse)
            found = found["messages"]
        if isinstance(found, list) and found and all(isinstance(item, dict) and "role" in item for item in found):
            messages, query = tuple(found), None
    if messages:
        asked = _text_of_user(messages, refuse)
        query = query or asked
    if query is None:
        refuse("query", "must be there in every row, by this name or as `input`. Correct or delete the row.")
    if not query.strip():
        refuse("query", "must not be empty. Correct or delete the row.")
    if kind not in kind_names():
        refuse("kind", f"must be one of {', '.join(kind_names())}, got {kind!r}. Correct it.")
    for name in ("task", "query_id"):
        if row[name] == "":
            refuse(name, "must not be empty. Correct it, or leave it open.")
    asked = (
        query if not (messages or tools) else json.dumps([messages, tools, query], ensure_ascii=False, sort_keys=True)
    )
    return Question(
        task=row["task"] or DEFAULT_TASK,
        query_id=row["query_id"] or sha256(asked.encode()).hexdigest()[:16],
        query=query,
        gold=row["gold"],
        kind=kind,
        messages=messages,
        tools=tools,
        scorer=row["scorer"] or None,
        extras={name: value for name, value in row.items() if name not in names and value is not None},
    )


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _listed(text: str | None, column: str, refuse: Any) -> tuple[Mapping[str, Any], ...]:
    return () if not text else _objects(_json_of(text), column, refuse, shown=text)


def _objects(value: Any, column: str, refuse: Any, *, shown: Any = None) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        refuse(
            column,
            f"must be a JSON list of objects, as OpenAI's format has it, got {shown or value!r:.60}. Correct it.",
        )
    return tuple(value)


def _text_of_user(messages: Sequence[Mapping[str, Any]], refuse: Any) -> str:
    """Check a conversation, and return the text of the user's last message."""
    asked = None
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in {"system", "developer", "user", "assistant", "tool", "function"}:
            refuse("messages", f"must have messages with a `role` of OpenAI's format, got {role!r:.60}. Correct it.")
        if not isinstance(content, str | list | None) or (content is None and role != "assistant"):
            refuse(
                "messages",
                f"must have messages with `content`, a text or a list of parts, got {content!r:.60}. Correct it.",
            )
        if role == "user":
            parts = [{"text": content}] if isinstance(content, str) else content or []
            asked = "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text"))
    if asked is None or not asked.strip():
        refuse("messages", "must have a message of the user with a text. Add one.")
    return str(asked)


def _table_of(outcomes: Iterable[Outcome]) -> pa.Table:
    batches = files.Batches(COLUMNS, file=None)
    names = [column.name for column in COLUMNS]
    for outcome in outcomes:
        row = {name: getattr(outcome, name) for name in names}
        taken = next((name for name in outcome.extras if name in row), None)
        if taken is not None:
            rule = f"must be a field of the outcome, got it in `extras`, too: {outcome.extras[taken]!r:.80}. Rename it there."
            raise OutcomeError(rule, row=batches.num_rows + 1, column=taken)
        batches.add({**row, **outcome.extras} if outcome.extras else row)
    return files.assemble(batches.finished(), COLUMNS, file=None)


# ---- arrays


def _codes(column: pa.ChunkedArray) -> Codes:
    encoded = pa.chunked_array([column.combine_chunks()], TEXT).dictionary_encode().combine_chunks()
    return pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _padded(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Lay out lists as rows, padded with NaN to the longest, shape [rows, O]."""
    lists = pa.chunked_array(column.chunks, NUMBERS).combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    longest = int(lengths.max(initial=0))
    padded = np.full((len(lengths), longest), np.nan)
    padded[np.arange(longest) < lengths[:, None]] = lists.flatten().to_numpy()
    return padded


def _first_rows(keys: Ints) -> npt.NDArray[np.intp]:
    """Return for each row the first row with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def _shared_scores(ids: npt.NDArray[np.intp], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give an unscored answer the mean score of the equal ones, shape [Q, M]: equal answers are worth the same."""
    unscored = np.isnan(scores) & (ids >= 0)
    if not unscored.any():
        return scores
    shared = scores.copy()
    for member in range(ids.shape[1]):
        is_equal = ids == member
        known = is_equal & ~np.isnan(scores)
        mean = np.where(known, scores, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        shared = np.where(is_equal & unscored & known.any(axis=1, keepdims=True), mean[:, None], shared)
    return shared


def _is_test(query_ids: list[str], test_ids: str) -> npt.NDArray[np.bool_]:
    is_test = np.array([fnmatchcase(query_id, test_ids) for query_id in query_ids], dtype=bool)
    if not is_test.any():
        known = ", ".join(query_ids[:10])
        rule = f"`test_ids` must match a query of the grid, got {test_ids!r}. Its query ids begin: {known}."
        raise OutcomeError(rule, column="query_id")
    return is_test

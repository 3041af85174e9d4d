"""What is read from a log and added to it: the statements, within a transaction that `Database` gives.

Values are plain ones of the database; what they mean is for `outcome_log` to know.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any

import numpy as np
import sqlalchemy as sa
import sqlalchemy.exc

from langchain_rlfocal.log.bodies import as_required, as_text
from langchain_rlfocal.log.schema import (
    ANSWERS,
    ATTEMPTS,
    CHANGES,
    CLAIMING,
    CLAIMS,
    COUNTERS,
    DROPPED,
    EVENTS,
    KINDS,
    LEASES,
    QUESTIONS,
    SCORES,
    SNAPSHOTS,
    Kind,
    linked,
    packed_texts,
)

_CHUNK = 500  # values of one statement

Row = tuple[Any, ...]
Cell = tuple[str, str, str, int]
Version = tuple[str, str, int]  # task, query_id, hash of the text
Asked = tuple[str, str | None]  # text, gold answer

_LATER = QUESTIONS.alias("later")
_IS_LATEST = ~sa.exists().where(_LATER.c.first == QUESTIONS.c.first, _LATER.c.number > QUESTIONS.c.number)


class Records:
    """The records of a log, by one connection.

    Attributes:
        db: The connection.
    """

    def __init__(self, db: sa.Connection) -> None:
        self.db = db
        self._is_server = db.dialect.name != "sqlite"
        self._mark = "?" if db.dialect.paramstyle == "qmark" else "%s"
        self._inserts = {name: _insert(kind, self._mark) for name, kind in KINDS.items()}
        self._known: dict[Version, tuple[int, int]] = {}
        self._known_upkept = 0

    def forget(self) -> None:
        """Forget what was read in a transaction that failed."""
        self._known.clear()

    # ---- any kind

    def last(self, kind: str) -> int:
        """Return the number of the latest record of a kind; 0 where there is none."""
        return int(self.db.execute(_LAST, {"of": kind}).scalar_one())

    def hold(self, kind: str) -> tuple[int, str]:
        """Let no other transaction add to a kind until this one ends.

        Returns:
            The number of its latest record, and its hash.
        """
        row = self.db.execute(_HELD, {"of": kind}).one()
        return int(row[0]), str(row[1])

    def append(self, kind: str, rows: Sequence[Row]) -> int:
        """Add records, each as its numbers, its names and its texts in one; see `Kind`.

        Returns:
            The number of the last.
        """
        number, head = self.hold(kind)
        if not rows:
            return number
        of, packed_names = KINDS[kind], dict[Row, bytes]()
        names_at = len(of.numbers)
        texts_at = names_at + len(of.names)
        numbers, packs = self._laid_out(number, [row[:names_at] for row in rows])
        values = []
        for fields, pack, row in zip(numbers, packs, rows, strict=True):
            names, texts = row[names_at:texts_at], row[texts_at:]
            try:
                if names not in packed_names:
                    packed_names[names] = packed_texts(names)
                named, said = packed_names[names], packed_texts(texts)
                is_odd = named.count(0) >= max(len(names), 1) or said.count(0) >= max(len(texts), 1)
            except UnicodeEncodeError:
                is_odd = True
            if is_odd:
                names, texts = (*map(as_text, names),), (*map(as_text, texts),)
                named, said = packed_texts(names), packed_texts(texts)
            head = linked(head, pack, named, sha256(said).hexdigest())
            number += 1
            values.append((number, *fields, *names, *texts, head))
        self.db.exec_driver_sql(self._inserts[kind], values)
        self.db.execute(_COUNTED, {"of": kind, "to": number, "hash": head})
        return number

    def _laid_out(self, number: int, rows: Sequence[Row]) -> tuple[Sequence[Sequence[float | None]], Iterator[bytes]]:
        """Make numbers such as each database gives back as they are, and lay them out for the hash with the records' own.

        All are doubles, which a database stores as its columns say; NaN, which SQLite takes for NULL, is what is not there.
        """
        table = np.empty((len(rows), 1 + len(rows[0])), "<f8")
        table[:, 0] = np.arange(number + 1, number + 1 + len(rows))
        table[:, 1:] = rows
        table[~np.isfinite(table)] = np.nan
        table += 0.0  # minus zero becomes zero
        fields = table[:, 1:].tolist()
        if self._is_server:
            fields = [[None if value != value else value for value in row] for row in fields]  # noqa: PLR0124
        data, width = table.tobytes(), table.strides[0]
        return fields, (data[start : start + width] for start in range(0, len(data), width))

    # ---- served answers, feedback, what was learned

    def add_answers(self, rows: Mapping[str, tuple[float, str]]) -> None:
        """Add served answers, each by its id: when, and its JSON; one that is there already stays as it is."""
        last, _ = self.hold("answers")
        there = self._answers_there([*rows]) if self._is_server else set[str]()  # an error would end its transaction
        try:
            self.append("answers", [(at, key, body) for key, (at, body) in rows.items() if key not in there])
        except sa.exc.IntegrityError:  # one is there, which is rare: a file says so only now
            self.db.exec_driver_sql("DELETE FROM answers WHERE number > ?", (last,))
            there = self._answers_there([*rows])
            self.append("answers", [(at, key, body) for key, (at, body) in rows.items() if key not in there])

    def _answers_there(self, ids: Sequence[str]) -> set[str]:
        """Tell which ids of answers are there: by the driver, since SQLAlchemy takes as long for it as for all else."""
        found: set[str] = set()
        for start in range(0, len(ids), _CHUNK):
            some = tuple(ids[start : start + _CHUNK])
            query = f"SELECT id FROM answers WHERE id IN ({', '.join([self._mark] * len(some))})"  # noqa: S608
            found.update(name for [name] in self.db.exec_driver_sql(query, some))
        return found

    def count_dropped(self, number: int) -> None:
        """Count served answers that were not recorded."""
        last, head = self.hold(DROPPED)
        self.db.execute(_COUNTED, {"of": DROPPED, "to": last + number, "hash": head})

    def answer(self, answer_id: str) -> str | None:
        """Return the JSON of a served answer; None where there is none."""
        return self.db.execute(_ANSWER, {"of": answer_id}).scalar_one_or_none()

    def add_feedback(self, answer_id: str, at: float, event: str) -> int | None:
        """Add feedback on an answer and return its place; None where the answer has some."""
        self.hold("events")
        if self.db.execute(_FEEDBACK, {"of": answer_id}).first() is not None:
            return None
        return self.append("events", [(at, answer_id, event)])

    def events_since(self, seq: int, limit: int) -> Sequence[Any]:
        """Return place, id of the answer, event and answer of what came after a place."""
        return self.db.execute(_EVENTS_SINCE, {"seq": seq, "at_most": limit}).all()

    def answers_since(self, number: int, limit: int) -> Sequence[Any]:
        """Return number, id, answer and feedback of the answers after a number."""
        return self.db.execute(_ANSWERS_SINCE, {"last": number, "at_most": limit}).all()

    def add_change(self, learner: str, change_id: str, at: float, change: str) -> None:
        """Add a learner's change; one that is there already stays as it is."""
        self.hold("changes")
        of = {"learner": learner, "id": change_id}
        if self.db.execute(_CHANGE, of).one_or_none() is None:
            self.append("changes", [(at, learner, change_id, change)])

    def changes(self, learner: str) -> Sequence[Any]:
        """Return id and JSON of a learner's changes."""
        query = sa.select(CHANGES.c.id, CHANGES.c.change).where(CHANGES.c.learner == sa.bindparam("of"))
        return self.db.execute(query.order_by(CHANGES.c.number), {"of": learner}).all()

    def save_snapshot(self, learner: str, seq: int, arrays: bytes) -> None:
        """Keep a learner's arrays instead of those of an earlier place."""
        self.hold("changes")  # so that two do not add the same row
        of = SNAPSHOTS.c.learner == learner
        known = self.db.execute(sa.select(SNAPSHOTS.c.seq).where(of)).scalar_one_or_none()
        if known is None:
            self.db.execute(sa.insert(SNAPSHOTS).values(learner=learner, seq=seq, arrays=arrays))
        elif known < seq:
            self.db.execute(sa.update(SNAPSHOTS).where(of).values(seq=seq, arrays=arrays))

    def snapshot(self, learner: str) -> Any:
        """Return place and arrays of a learner's snapshot."""
        query = sa.select(SNAPSHOTS.c.seq, SNAPSHOTS.c.arrays).where(SNAPSHOTS.c.learner == learner)
        return self.db.execute(query).one_or_none()

    # ---- questions

    def add_questions(self, rows: Mapping[tuple[str, str], Row], at: float) -> None:
        """Add questions that are new, or differ from their latest version, by their keys and texts."""
        number, _ = self.hold("questions")
        query = sa.select(QUESTIONS.c.first, *(QUESTIONS.c[name] for name in KINDS["questions"].texts))
        latest = {(row.task, row.query_id): tuple(row) for row in self._latest(query, rows)}
        added: list[Row] = []
        for key, texts in rows.items():
            version, _, _, first, *known = latest.get(key, (None, None, None, None))
            if version is None or (*known,) != texts:
                number += 1
                version, first = number, first or number
                added.append((at, first, *key, *texts))
            if len(self._known) < _MAX_KNOWN:
                self._known[*key, hash(texts[0])] = version, first
        self.append("questions", added)

    def all_questions(self) -> Iterator[Any]:
        """Return the latest version of each question, in the order in which they were first added."""
        yield from self.db.execute(sa.select(QUESTIONS).where(_IS_LATEST).order_by(QUESTIONS.c.first))

    def _latest(self, query: sa.Select[Any], keys: Iterable[tuple[str, str]]) -> Iterator[Any]:
        """Select of the latest versions of questions; before what the query selects come number, task and id."""
        wanted = set(keys)
        query = query.where(_IS_LATEST).with_only_columns(
            QUESTIONS.c.number, QUESTIONS.c.task, QUESTIONS.c.query_id, *query.selected_columns
        )
        by_task: dict[str, list[str]] = {}
        for task, query_id in wanted:
            by_task.setdefault(task, []).append(query_id)
        for task, ids in by_task.items():
            yield from self._among(query.where(QUESTIONS.c.task == task), QUESTIONS.c.query_id, ids)

    def _among(self, query: sa.Select[Any], column: sa.ColumnElement[Any], values: Iterable[Any]) -> Iterator[Any]:
        """Run a query for values of a column, so many at a time as a statement takes."""
        listed = [*values]
        for start in range(0, len(listed), _CHUNK):
            yield from self.db.execute(query.where(column.in_(listed[start : start + _CHUNK]))).all()

    # ---- attempts

    def add_attempts(self, rows: Sequence[tuple[Version, Asked, Row, Row]], run: str, at: float) -> int:
        """Add attempts, each as its question, and the other numbers, and names and texts; a question that is not there is added."""
        self.hold("questions")
        upkept = self.last("upkeep")
        if upkept != self._known_upkept:  # what is remembered may have been deleted
            self._known_upkept = upkept
            self._known.clear()
        known = self._known
        unknown = {row[0]: row[1] for row in rows if row[0] not in known}
        if unknown:
            if len(known) > _MAX_KNOWN:
                known.clear()
                unknown = {row[0]: row[1] for row in rows}
            self._learn(unknown, at)
        return self.append(
            "attempts", [(at, *known[version], *numbers, run, *said) for version, _, numbers, said in rows]
        )

    def _learn(self, asked: Mapping[Version, Asked], at: float) -> None:
        """Find, or add, the versions of questions that have these texts, and remember their numbers, and those of the first."""
        unknown = {
            version: ((as_required(version[0]), as_required(version[1])), as_required(query), as_text(gold))
            for version, (query, gold) in asked.items()
        }
        there, firsts = self._versions({key for key, *_ in unknown.values()})
        number, _ = self.hold("questions")
        added: list[Row] = []
        for version, (key, query, gold) in unknown.items():
            if (*key, query) not in there:
                number += 1
                there[*key, query] = number, firsts.setdefault(key, number)
                added.append((at, firsts[key], *key, query, gold, None, None, None))
            self._known[version] = there[*key, query]
        self.append("questions", added)

    def _versions(
        self, keys: Iterable[tuple[str, str]]
    ) -> tuple[dict[tuple[str, str, str], tuple[int, int]], dict[tuple[str, str], int]]:
        """Find the versions of questions by their texts, the latest of those with the same, and what names each question."""
        there: dict[tuple[str, str, str], tuple[int, int]] = {}
        firsts: dict[tuple[str, str], int] = {}
        by_task: dict[str, list[str]] = {}
        for task, query_id in keys:
            by_task.setdefault(task, []).append(query_id)
        table = QUESTIONS.c
        query = sa.select(table.number, table.first, table.task, table.query_id, table.query).order_by(table.number)
        for task, ids in by_task.items():
            for number, first, _, query_id, text in self._among(query.where(table.task == task), table.query_id, ids):
                there[task, query_id, text] = number, first
                firsts[task, query_id] = first
        return there, firsts

    def attempts_between(self, first: int, last: int) -> Sequence[Any]:
        """Return the attempts at the questions of these numbers by cell: its answers, then its failures, the latest last.

        Each is the question's number, member, sample, 1 if it failed, its own number, and `ATTEMPT_FIELDS`.
        """
        return self.db.execute(_ATTEMPTS_BETWEEN, {"begin": first, "end": last}).all()

    def versions_between(self, first: int, last: int) -> dict[int, tuple[str, str, str]]:
        """Return task, id and text of all versions of these questions by the versions' numbers."""
        rows = self.db.execute(_VERSIONS_BETWEEN, {"begin": first, "end": last})
        return {number: (task, query_id, query) for number, task, query_id, query in rows}

    def scores_between(self, first: int, last: int) -> dict[int, Any]:
        """Return reward, scorer, dollars, gold and time of the latest scores of attempts at these questions by the attempts' numbers."""
        if not self.last("scores"):
            return {}
        rows = sorted(self.db.execute(_SCORES_BETWEEN, {"begin": first, "end": last}), key=itemgetter(0))
        return {attempt: tuple(score) for _, attempt, *score in rows}

    def answered(self) -> Iterator[Cell]:
        """Return the cells with an answer."""
        names = {
            number: (task, query_id)
            for number, task, query_id in self.db.execute(
                sa.select(QUESTIONS.c.number, QUESTIONS.c.task, QUESTIONS.c.query_id).where(
                    QUESTIONS.c.number == QUESTIONS.c.first
                )
            )
        }
        for first, member, sample in self.db.execute(_ANSWERED):
            yield (*names[first], member, sample)

    def latest_answers(self, cells: Iterable[Cell], *, failed_since: int | None = None) -> dict[Cell, int]:
        """Return the number of the latest answer of each cell that has one; failures later than an attempt's number count as such."""
        counts: sa.ColumnElement[bool] = ATTEMPTS.c.failed == 0
        if failed_since is not None:
            counts |= ATTEMPTS.c.number > failed_since
        wanted = set(cells)
        found_questions = self._latest(sa.select(QUESTIONS.c.first), {cell[:2] for cell in wanted})
        names = {row.first: (row.task, row.query_id) for row in found_questions}
        query = (
            sa.select(ATTEMPTS.c.first, ATTEMPTS.c.member, ATTEMPTS.c.sample, sa.func.max(ATTEMPTS.c.number))
            .where(counts)
            .group_by(ATTEMPTS.c.first, ATTEMPTS.c.member, ATTEMPTS.c.sample)
        )
        found = {
            (*names[first], member, sample): number
            for first, member, sample, number in self._among(query, ATTEMPTS.c.first, names)
        }
        return {cell: number for cell, number in found.items() if cell in wanted}

    def made_by(self, run: str) -> list[tuple[Any, ...]]:
        """Add up a run's attempts: member, 1 if failed, how many, and of what is known tokens, dollars, priced ones, scoring's dollars."""
        of = ATTEMPTS.c
        columns = (of.prompt_tokens, of.completion_tokens, of.cost_usd)
        query = (
            sa.select(
                of.member,
                of.failed,
                sa.func.count(),
                *[sa.func.coalesce(sa.func.sum(column), 0) for column in columns],
                sa.func.count(of.cost_usd),
                sa.func.coalesce(sa.func.sum(of.scoring_usd), 0.0),
            )
            .where(of.run == run)
            .group_by(of.member, of.failed)
        )
        return [tuple(row) for row in self.db.execute(query)]

    # ---- claims

    def claim(
        self, cells: Sequence[Cell], run: str, now: float, until: float, *, failed_since: int | None = None
    ) -> list[Cell]:
        """Claim cells for a run: those without an answer that no other run has whose lease goes on; see `latest_answers`."""
        self.hold(CLAIMING)
        dead = sa.select(LEASES.c.run).where(LEASES.c.until <= now, LEASES.c.run != run)
        self.db.execute(sa.delete(CLAIMS).where(CLAIMS.c.run.in_(dead)))
        self.db.execute(sa.delete(LEASES).where(LEASES.c.until <= now, LEASES.c.run != run))
        self.extend(run, until)
        taken = {tuple(row[:4]): row[4] for row in self.db.execute(sa.select(CLAIMS))}
        # After the claims: who answers gives up its claim at the same moment.
        answered = self.latest_answers(cells, failed_since=failed_since)
        free = [cell for cell in dict.fromkeys(cells) if cell not in answered and taken.get(cell, run) == run]
        new = [dict(zip(_CELL, cell, strict=True), run=run) for cell in free if cell not in taken]
        if new:
            self.db.execute(sa.insert(CLAIMS), new)
        return free

    def extend(self, run: str, until: float) -> None:
        """Have a run's lease go on until then."""
        if not self.db.execute(sa.update(LEASES).where(LEASES.c.run == run).values(until=until)).rowcount:
            self.db.execute(sa.insert(LEASES).values(run=run, until=until))

    def runs(self) -> list[str]:
        """Return the runs that have a lease."""
        return [*self.db.execute(sa.select(LEASES.c.run).order_by(LEASES.c.run)).scalars()]

    def release(self, run: str, cells: Iterable[Cell] | None) -> None:
        """Give up a run's claims; on all cells, and the lease with them, where none are named."""
        if cells is None:
            self.db.execute(sa.delete(CLAIMS).where(CLAIMS.c.run == run))
            self.db.execute(sa.delete(LEASES).where(LEASES.c.run == run))
            return
        if self.db.execute(sa.select(CLAIMS.c.run).where(CLAIMS.c.run == run).limit(1)).first() is None:
            return
        named = [
            {"of_run": run} | {f"of_{name}": part for name, part in zip(_CELL, cell, strict=True)} for cell in cells
        ]
        if named:
            self.db.execute(_RELEASED, named)


_MAX_KNOWN = 100_000
_CELL = ("task", "query_id", "member", "sample")


def _insert(kind: Kind, mark: str) -> str:
    columns = ", ".join(f'"{name}"' for name in kind.columns)
    return f"INSERT INTO {kind.table.name} ({columns}) VALUES ({', '.join([mark] * len(kind.columns))})"  # noqa: S608


_LAST = sa.select(COUNTERS.c.last).where(COUNTERS.c.kind == sa.bindparam("of"))
_HELD = sa.select(COUNTERS.c.last, COUNTERS.c.head).where(COUNTERS.c.kind == sa.bindparam("of")).with_for_update()
_COUNTED = (
    sa.update(COUNTERS)
    .where(COUNTERS.c.kind == sa.bindparam("of"))
    .values(last=sa.bindparam("to"), head=sa.bindparam("hash"))
)
_ANSWER = sa.select(ANSWERS.c.answer).where(ANSWERS.c.id == sa.bindparam("of"))
_FEEDBACK = sa.select(EVENTS.c.seq).where(EVENTS.c.answer_id == sa.bindparam("of"))
_EVENTS_SINCE = (
    sa.select(EVENTS.c.seq, EVENTS.c.answer_id, EVENTS.c.event, ANSWERS.c.answer)
    .select_from(EVENTS.outerjoin(ANSWERS, ANSWERS.c.id == EVENTS.c.answer_id))
    .where(EVENTS.c.seq > sa.bindparam("seq"))
    .order_by(EVENTS.c.seq)
    .limit(sa.bindparam("at_most"))
)
_ANSWERS_SINCE = (
    sa.select(ANSWERS.c.number, ANSWERS.c.id, ANSWERS.c.answer, EVENTS.c.event)
    .select_from(ANSWERS.outerjoin(EVENTS, ANSWERS.c.id == EVENTS.c.answer_id))
    .where(ANSWERS.c.number > sa.bindparam("last"))
    .order_by(ANSWERS.c.number)
    .limit(sa.bindparam("at_most"))
)
_CHANGE = sa.select(CHANGES.c.number).where(
    CHANGES.c.learner == sa.bindparam("learner"), CHANGES.c.id == sa.bindparam("id")
)
ATTEMPT_FIELDS = (
    *("question", "reward", "scorer", "scoring_usd", "prompt_tokens", "completion_tokens", "cost_usd", "latency_s"),
    *("logprob", "propensity", "response", "answer", "gold", "failure", "details", "scrubbed", "at"),
)
"""What else `attempts_between` returns of an attempt, in this order."""

_CELL_ORDER = [ATTEMPTS.c[name] for name in ("first", "member", "sample", "failed", "number")]  # that of an index
_ATTEMPTS_BETWEEN = (
    sa.select(*_CELL_ORDER, *(ATTEMPTS.c[name] for name in ATTEMPT_FIELDS))
    .where(ATTEMPTS.c.first.between(sa.bindparam("begin"), sa.bindparam("end")))
    .order_by(*_CELL_ORDER)
)
_VERSIONS_BETWEEN = sa.select(QUESTIONS.c.number, QUESTIONS.c.task, QUESTIONS.c.query_id, QUESTIONS.c.query).where(
    QUESTIONS.c.first.between(sa.bindparam("begin"), sa.bindparam("end"))
)
_SCORES_BETWEEN = (
    sa.select(
        SCORES.c.number, SCORES.c.attempt, SCORES.c.reward, SCORES.c.scorer, SCORES.c.usd, SCORES.c.gold, SCORES.c.at
    )
    .select_from(SCORES.join(ATTEMPTS, ATTEMPTS.c.number == SCORES.c.attempt))
    .where(ATTEMPTS.c.first.between(sa.bindparam("begin"), sa.bindparam("end")))
)
_ANSWERED = sa.select(ATTEMPTS.c.first, ATTEMPTS.c.member, ATTEMPTS.c.sample).where(ATTEMPTS.c.failed == 0).distinct()
_RELEASED = sa.delete(CLAIMS).where(
    CLAIMS.c.run == sa.bindparam("of_run"), *(CLAIMS.c[name] == sa.bindparam(f"of_{name}") for name in _CELL)
)

"""The frame: what every import shares, whatever it reads.

Records are checked, given ids, and laid down in a file beside the table, a batch at a time; then, query by query, repeated answers
are resolved, answers labelled, and the table written. Only numbers are held for all of them, so that a million outcomes need no
more memory than their ids. Nothing is written unless everything could be read.
"""

import json
import math
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from langchain_rlfocal.answers import KindLike, label_answers
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.importing.conversations import sent_of
from langchain_rlfocal.importing.files import field_at
from langchain_rlfocal.importing.records import ReadTally, Record, Wanted, as_text, number
from langchain_rlfocal.outcomes import sample_id
from langchain_rlfocal.outcomes.files import AS_JSON, check_writable, write_table
from langchain_rlfocal.outcomes.tables import COLUMNS
from langchain_rlfocal.redaction import as_utf8, masked, secrets_of, shown_text

MAPPED = tuple(column.name for column in COLUMNS)
"""What `--map` can name."""

MAX_EXTRAS = 200
"""Columns of a program's own that are kept."""

_BATCH_ROWS = 8192
_NUMBERS = ("cost_usd", "latency_s", "logprob", "propensity")
_COUNTS = ("prompt_tokens", "completion_tokens")
_LAID = pa.schema(
    [
        *((name, pa.large_string()) for name in ("query", "response", "answer", "gold", "extras")),
        ("reward", pa.float64()),
        ("option_probs", pa.list_(pa.float64())),
        *((name, pa.int64()) for name in _COUNTS),
        *((name, pa.float64()) for name in _NUMBERS),
    ]
)
_TABLE = pa.schema([(column.name, column.type) for column in COLUMNS])


@dataclass(frozen=True, slots=True)
class MemberReport:
    """What was kept of one member.

    Attributes:
        name: Its name.
        rows: Its outcomes.
        failures: Those that are failures.
        scored: Those with a reward, failures among them.
        mean_reward: Their mean reward, None where none is scored.
    """

    name: str
    rows: int
    failures: int
    scored: int
    mean_reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import read, kept and left out.

    Attributes:
        source: The program that wrote the files.
        files: How many were read.
        read: Rows that were read.
        kept: Outcomes in the table.
        repeated: Rows of a member that another of its rows stands for: an answer rather than a failure, a scored one rather than an
            unscored one, else the later.
        unscored: Outcomes without a reward.
        members: Each member, by its first row.
        queries: By the number of members that have a row of it, how many queries there are.
        tasks: Each task with its queries.
        skipped: By reason how many rows were left out, and the place of the first.
        notes: By what else there is to say, how often.
    """

    source: str
    files: int
    read: int
    kept: int
    repeated: int
    unscored: int
    members: tuple[MemberReport, ...]
    queries: Mapping[int, int]
    tasks: Mapping[str, int]
    skipped: Mapping[str, tuple[int, str]]
    notes: Mapping[str, int]


@dataclass(slots=True)
class _Query:
    """A question: its task, the program's name of it, its digest, and the row whose text stands for it."""

    task: str
    name: str | None
    digest: str
    first_row: int
    sample: int


@dataclass(slots=True)
class _Laid:
    """What is held in memory of all rows: numbers."""

    query: "array[int]" = field(default_factory=lambda: array("l"))
    member: "array[int]" = field(default_factory=lambda: array("l"))
    is_answer: "array[int]" = field(default_factory=lambda: array("b"))
    is_scored: "array[int]" = field(default_factory=lambda: array("b"))
    reward: "array[float]" = field(default_factory=lambda: array("d"))
    at: "array[float]" = field(default_factory=lambda: array("d"))


def write_outcomes(
    records: Iterable[Record],
    out: str | PathLike[str],
    *,
    source: str,
    files: int,
    tally: ReadTally,
    wanted: Wanted,
    task: str | None = None,
    scale: tuple[float, float] | None = None,
    kind: KindLike | None = "auto",
    way_out: str = "",
    on_progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Check records, join those of a question, and write them as a table of outcomes.

    Args:
        records: What a reader says.
        out: The table to write.
        source: What the reader reads.
        files: How many files it reads.
        tally: What it counts.
        wanted: What the user says.
        task: The task of everything, instead of the program's.
        scale: Least and greatest reward of the program, which become 0 and 1.
        kind: What counts as the same answer where the program extracts none; None leaves those without a label.
        way_out: What to do if nothing can be kept.
        on_progress: Told how many rows were read, now and then.

    Raises:
        OutcomeError: The table cannot be written, a reward lies outside its scale, or no row holds an answer or a reward.
        InputError: `scale` is no scale.
    """
    check_writable(out)
    if scale is not None and not scale[0] < scale[1]:
        raise InputError(f"`--scale` must be LOW,HIGH with LOW below HIGH, got {scale[0]:g},{scale[1]:g}. Swap them.")
    folder = Path(out).resolve().parent
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{Path(out).name}.", dir=folder)))
        frame = _Frame(work, tally=tally, wanted=wanted, source=source, task=task, scale=scale)
        for index, record in enumerate(records):
            frame.add(record)
            if on_progress is not None and index % 10_000 == 0:
                on_progress(tally.read)
        frame.close()
        if not frame.num_rows:
            raise _nothing(tally, way_out)
        ordered = frame.resolved()
        table = stack.enter_context(pa.memory_map(str(frame.laid_out(ordered, kind)), "rb"))
        with pa.ipc.open_file(table) as file:
            write_table(file.read_all(), out)
        return frame.report(ordered, files)


def _nothing(tally: ReadTally, way_out: str) -> OutcomeError:
    if not tally.read:
        return OutcomeError(f"the files must hold rows, got none. {way_out or 'Check the paths.'}")
    reasons = "; ".join(
        [
            f"{count:,}: {reason} (first: {spot})"
            for reason, (count, spot) in sorted(tally.skipped.items(), key=lambda item: -item[1][0])[:3]
        ]
        + [f"{count:,}: {note}" for note, count in _unreadable(tally).items()]
    )
    return OutcomeError(
        f"an import needs answers or rewards, got none in {tally.read:,} rows ({reasons}). Nothing was written. "
        f"{way_out or 'Check that these are the files you mean.'}"
    )


def _unreadable(tally: ReadTally) -> dict[str, int]:
    """Say by column what could not be read as a number, with the first of it, and how often."""
    return {
        f"{'score' if name == 'reward' else name} not a number, left open: {masked(f'{value!r:.60}')} (first: {spot})": count
        for name, (count, value, spot) in tally.unreadable.items()
    }


class _Frame:
    def __init__(
        self,
        work: Path,
        *,
        tally: ReadTally,
        wanted: Wanted,
        source: str,
        task: str | None,
        scale: tuple[float, float] | None,
    ) -> None:
        self._work, self._tally, self._wanted, self._source = work, tally, wanted, source
        self._task, self._scale = task, scale
        self._rows: list[dict[str, Any]] = []
        self._laid = _Laid()
        self._queries: list[_Query] = []
        self._query_codes: dict[bytes, int] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._shared_names: set[tuple[str, str]] = set()
        self._members: dict[str, int] = {}
        self._extras: dict[str, set[type]] = {}
        self._unmapped = set(wanted.columns)
        self._fields: set[str] = set()
        self._sink = pa.OSFile(str(work / "rows"), "wb")
        self._writer = pa.ipc.new_file(self._sink, _LAID)
        self._num_laid = 0

    @property
    def num_rows(self) -> int:
        """Rows that were kept so far."""
        return len(self._laid.query)

    def add(self, record: Record) -> None:
        """Check a record and lay it down; one that says nothing is counted and left out."""
        for name, path in self._wanted.columns.items():
            self._map(record, name, path)
        if not record.query or not record.query.strip():
            self._tally.skip("no question", record.spot)
            return
        if not record.model:
            self._tally.skip("no member's name (`--model NAME` gives one)", record.spot)
            return
        reward = self._reward(record)
        if record.failure is not None:
            record.response = record.answer = record.option_probs = None
            reward = 0.0
        elif record.response is None and record.answer is None and reward is None:
            self._tally.skip("neither answer nor reward", record.spot)
            return
        task = self._task or record.task or self._source
        query = self._query(record, task)
        laid = self._laid
        laid.query.append(query)
        laid.member.append(self._members.setdefault(str(record.model), len(self._members)))
        laid.is_answer.append(record.failure is None)
        laid.is_scored.append(reward is not None)
        laid.reward.append(math.nan if reward is None else reward)
        laid.at.append(-math.inf if record.at is None else record.at)
        row: dict[str, Any] = {
            "query": _as_utf8(record.query),
            "response": _as_utf8(record.response),
            "answer": _as_utf8(record.answer),
            "gold": _as_utf8(record.gold),
            "reward": reward,
            "option_probs": self._probs(record),
            "extras": self._of_extras(record),
        }
        for name in (*_COUNTS, *_NUMBERS):
            row[name] = self._number(name, getattr(record, name))
        self._rows.append(row)
        if len(self._rows) == _BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        """Lay down the rest."""
        if self._unmapped and self._tally.read:
            name = next(name for name in self._wanted.columns if name in self._unmapped)
            shown = ", ".join(list(self._fields)[:20])
            raise InputError(
                f"`--map {name}={self._wanted.columns[name]}` must name a field of the rows, got one that none has. They have: {shown}."
            )
        reward, scores = self._wanted.reward, self._wanted.scores
        if reward is not None and self._tally.read and not {reward, reward.partition(",")[0]} & scores:
            have = (
                f"they have: {', '.join(sorted(scores)[:20])}"
                if scores
                else "they have none; `--map reward=FIELD` names a field"
            )
            raise InputError(f"`--reward` must name a score of the files, got {reward!r}; {have}.")
        self._flush()
        self._writer.close()
        self._sink.close()
        if self._shared_names:
            self._tally.note(
                "an id stands for several texts: each of them has its digest at the end of its id",
                len(self._shared_names),
            )

    def resolved(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the rows to keep, query by query in the order of their first rows: one for each member."""
        laid = self._laid
        query, member = np.asarray(laid.query), np.asarray(laid.member)
        order = np.lexsort(
            (
                np.arange(len(query)),
                np.asarray(laid.at),
                np.asarray(laid.is_scored),
                np.asarray(laid.is_answer),
                member,
                query,
            )
        )
        is_last = np.ones(len(order), dtype=bool)
        is_last[:-1] = (query[order][1:] != query[order][:-1]) | (member[order][1:] != member[order][:-1])
        return np.asarray(order[is_last], dtype=np.int64)

    def laid_out(self, ordered: np.ndarray[Any, np.dtype[np.int64]], kind: KindLike | None) -> Path:
        """Write the rows in their order, with ids and labels, as a file of Arrow's."""
        query = np.asarray(self._laid.query)[ordered]
        member_names = list(self._members)
        members = np.asarray(self._laid.member)[ordered]
        starts = np.flatnonzero(np.r_[True, query[1:] != query[:-1]])
        extras = {name: _extra_field(name, types) for name, types in self._extras.items()}
        schema = pa.schema([*_TABLE, *extras.values()])
        target = self._work / "table"
        with pa.memory_map(str(self._work / "rows"), "rb") as source, pa.OSFile(str(target), "wb") as sink:
            batches = _Batches(pa.ipc.open_file(source))
            with pa.ipc.new_file(sink, schema) as writer:
                for low, high in _spans(starts, len(ordered)):
                    rows = batches.take(ordered[low:high])
                    firsts: dict[int, dict[str, Any]] = {}
                    group: list[dict[str, Any]] = []
                    for index, row in zip(range(low, high), rows, strict=True):
                        code = int(query[index])
                        of_query = self._queries[code]
                        first = firsts.get(code)
                        if first is None:
                            first = firsts[code] = batches.take(np.array([of_query.first_row]))[0]
                        row |= {
                            "task": of_query.task,
                            "query_id": self._id(of_query),
                            "model": member_names[members[index]],
                            "query": first["query"],
                        }
                        group.append(row)
                    if kind is not None:
                        _label(group, kind)
                    for row in group:
                        _spread(row, extras)
                    writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))
        return target

    def report(self, ordered: np.ndarray[Any, np.dtype[np.int64]], files: int) -> ImportReport:
        """Say what was read, kept and left out."""
        laid, tally = self._laid, self._tally
        query, member = np.asarray(laid.query)[ordered], np.asarray(laid.member)[ordered]
        reward, is_answer = np.asarray(laid.reward)[ordered], np.asarray(laid.is_answer)[ordered].astype(bool)
        members = []
        for name, code in self._members.items():
            own = member == code
            scores = reward[own][~np.isnan(reward[own])]
            members.append(
                MemberReport(
                    name=name,
                    rows=int(own.sum()),
                    failures=int((own & ~is_answer).sum()),
                    scored=len(scores),
                    mean_reward=float(scores.mean()) if len(scores) else None,
                )
            )
        per_query = np.unique(query, return_counts=True)[1]
        tasks = Counter(of_query.task for of_query in self._queries)
        return ImportReport(
            source=self._source,
            files=files,
            read=tally.read,
            kept=len(ordered),
            repeated=self.num_rows - len(ordered),
            unscored=int(np.isnan(reward).sum()),
            members=tuple(members),
            queries=dict(sorted(Counter(per_query.tolist()).items(), reverse=True)),
            tasks=dict(tasks.most_common()),
            skipped={reason: (count, str(spot)) for reason, (count, spot) in tally.skipped.items()},
            notes={**tally.notes, **_unreadable(tally)},
        )

    # ---- a record

    def _map(self, record: Record, name: str, path: str) -> None:
        """Take a column from where the user says that it stands."""
        if name in self._unmapped:
            self._fields |= set(record.raw)
        value = field_at(record.raw, path)
        if value is None:
            return
        self._unmapped.discard(name)
        if name == "query":
            sent = sent_of(value)
            record.query, record.messages = (sent.query, sent.messages) if sent else (None, ())
        elif name == "query_id":
            record.query_id, record.names_question = as_text(value), False
        elif name == "option_probs":
            record.option_probs = value if isinstance(value, list) else None
        elif name in {*_NUMBERS, *_COUNTS, "reward"}:
            setattr(record, name, self._tally.measured(name, value, record.spot, self._wanted))
        else:
            setattr(record, name, as_text(value))
            record.failure = None if name in {"response", "answer"} else record.failure

    def _reward(self, record: Record) -> float | None:
        if record.reward is None or not math.isfinite(record.reward):
            return None
        low, high = self._scale or (0.0, 1.0)
        if not low <= record.reward <= high:
            way_out = (
                "Give the least and the greatest there are, as in `--scale 0,100`."
                if self._scale is None
                else "Give the least and the greatest there are."
            )
            rule = f"a reward must lie in [{low:g}, {high:g}], got {record.reward:g}. {way_out}"
            raise OutcomeError(rule, file=str(record.spot))
        return (float(record.reward) - low) / (high - low)

    def _query(self, record: Record, task: str) -> int:
        """Say which question a record is about: one that its program names, or the one of its text."""
        digest = blake2b(digest_size=8)
        sent = json.dumps(record.messages, sort_keys=True) if record.messages else ""
        for part in (record.query or "", sent):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        content = digest.hexdigest()
        if record.names_question and record.query_id is not None:
            document = (record.document or "").encode("utf-8", "surrogatepass")
            content = blake2b(document, digest_size=8).hexdigest()
        key = blake2b(
            "\0".join((task, record.query_id or "", content, str(record.sample))).encode("utf-8", "surrogatepass"),
            digest_size=16,
        ).digest()
        code = self._query_codes.get(key)
        if code is None:
            code = self._query_codes[key] = len(self._queries)
            self._queries.append(_Query(task, record.query_id, content, self.num_rows, record.sample))
            if record.query_id is not None:
                name = task, record.query_id
                if self._names.setdefault(name, content) != content:
                    self._shared_names.add(name)
        return code

    def _id(self, query: _Query) -> str:
        name = query.name or query.digest
        if query.name is not None and (query.task, query.name) in self._shared_names:
            name = f"{name}~{query.digest[:8]}"
        return sample_id(name, query.sample)

    def _number(self, name: str, value: float | None) -> float | int | None:
        found = number(value)
        if found is None:
            return None
        if (name != "logprob" and found < 0) or (name == "propensity" and not 0 < found <= 1):
            self._tally.note(f"{name} outside its range: left open")
            return None
        if name in _COUNTS:
            return int(found) if found < 2**53 else None
        return found

    def _probs(self, record: Record) -> list[float] | None:
        if not record.option_probs:
            return None
        found = [number(value) for value in record.option_probs]
        return None if any(value is None for value in found) else [float(value) for value in found if value is not None]

    def _of_extras(self, record: Record) -> str | None:
        """Write what else there is, without secrets."""
        found = {}
        extras = dict(record.extras)
        if record.messages:
            extras["messages"] = list(record.messages)
        if record.failure is not None:
            extras["failure"] = shown_text(record.failure)
        for name, value in extras.items():
            if value is None or value == "":
                continue
            if _is_secret(name):
                self._tally.note(f"value of `{name}` left out: it may be a secret")
                continue
            if name not in self._extras:
                if len(self._extras) == MAX_EXTRAS:
                    self._tally.note(f"value left out: only {MAX_EXTRAS} columns of a program's own are kept")
                    continue
                self._extras[name] = set()
            if isinstance(value, float) and not math.isfinite(value):
                continue
            is_plain = isinstance(value, bool | int | float | str)
            plain = value if is_plain else json.dumps(value, ensure_ascii=False, default=str)
            self._extras[name].add(type(value) if is_plain else list)
            found[name] = masked(plain) if isinstance(plain, str) and name != "messages" else plain
        return as_utf8(json.dumps(found, ensure_ascii=False)) if found else None

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=_LAID))
            self._rows = []


class _Batches:
    """Rows of a file of Arrow's, by their numbers: those of a batch are found at once."""

    def __init__(self, file: Any) -> None:
        self._batches = [file.get_batch(index) for index in range(file.num_record_batches)]

    def take(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, Any]]:
        """Return these rows, in this order."""
        batch, place = rows // _BATCH_ROWS, rows % _BATCH_ROWS
        found: list[dict[str, Any]] = [{}] * len(rows)
        for index in np.unique(batch):
            at = np.flatnonzero(batch == index)
            for where, row in zip(at.tolist(), self._batches[index].take(pa.array(place[at])).to_pylist(), strict=True):
                found[where] = row
        return found


def _spans(starts: np.ndarray[Any, np.dtype[np.intp]], total: int) -> Iterator[tuple[int, int]]:
    """Cut the rows into batches that part no query."""
    low = 0
    for start in [*starts[1:].tolist(), total]:
        if start - low >= _BATCH_ROWS or start == total:
            yield low, start
            low = start


def _label(rows: Sequence[dict[str, Any]], kind: KindLike) -> None:
    """Label the answers of those rows that have none, as answers of their query; the given ones stay."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["query_id"]), []).append(row)
    for group in groups.values():
        if all(row["answer"] is not None or row["response"] is None for row in group):
            continue
        texts = [row["answer"] if row["answer"] is not None else row["response"] for row in group]
        labels = label_answers(texts, kind, query=group[0]["query"])
        given = {label: row["answer"] for label, row in zip(labels, group, strict=True) if row["answer"] is not None}
        for row, label in zip(group, labels, strict=True):
            if row["answer"] is None and row["response"] is not None:
                row["answer"] = given.get(label, label)


def _spread(row: dict[str, Any], extras: Mapping[str, pa.Field]) -> None:
    """Put what else there is into columns of its own."""
    text = row.pop("extras")
    found = json.loads(text) if text else {}
    for name, column in extras.items():
        value = found.get(name)
        if value is not None and column.type == pa.large_string() and not isinstance(value, str):
            value = json.dumps(value)
        row[column.name] = value


def _extra_field(name: str, types: set[type]) -> pa.Field:
    """Say what a program's own column holds: truth values, numbers, JSON, or else texts."""
    if types == {bool}:
        return pa.field(_own_name(name), pa.bool_())
    if types and types <= {int, float}:
        return pa.field(_own_name(name), pa.float64())
    return pa.field(_own_name(name), pa.large_string(), metadata=AS_JSON if types == {list} else None)


def _own_name(name: str) -> str:
    """Name a column of a program's own unlike the table's."""
    return f"{name}_" if name in MAPPED else name


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return bool(secrets_of({name: "a value that is long enough"}))


def _as_utf8(text: str | None) -> str | None:
    return None if text is None else as_utf8(text)

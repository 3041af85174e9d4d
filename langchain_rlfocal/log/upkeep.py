"""Upkeep of a log: find what was changed or has vanished, count, take texts out, delete what is old.

Nothing is deleted or taken out without a record that says so (`upkeep`), and what remains still verifies: a record is hashed over the
digest of its texts, which stays, and what is deleted leaves the hash from which the chain goes on.
"""

import json
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import sqlalchemy as sa

from langchain_rlfocal.answers import label_answers
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.log.bodies import dumps, mappings, read
from langchain_rlfocal.log.outcome_log import UNNAMED_TASK, OutcomeLog
from langchain_rlfocal.log.records import SCRUBBED, scrubbed_question
from langchain_rlfocal.log.schema import (
    ANSWERS,
    ATTEMPTS,
    COUNTERS,
    DROPPED,
    EVENTS,
    KINDS,
    LEASES,
    QUESTIONS,
    SCORES,
    SNAPSHOTS,
    UPKEEP,
    VERSION,
    digest_of,
    first_hash,
    linked,
    packed_numbers,
    packed_texts,
)
from langchain_rlfocal.log.statements import Records

_PAGE = 2000

# ---- verify


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a log.

    Attributes:
        kind: Kind of the records: `"attempts"`, say.
        number: Number of the first of them.
        last: Number of the last of them.
        what: What is wrong with them.
    """

    kind: str
    number: int
    last: int
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        records: How many records of each kind are there.
        problems: What is wrong; empty where every record is as it was added, and none has vanished.
    """

    records: Mapping[str, int]
    problems: tuple[Problem, ...]


def verify(log: OutcomeLog) -> Verification:
    """Compare every record with its hash, and look for those that vanished.

    It finds what was changed by mistake, by damage, or by hand. It does not find what somebody changed who also made all later
    hashes anew.

    Raises:
        OutcomeLogError: The log cannot be read.
    """
    counts, problems = {}, []
    with log.looking() as records:
        counters = {row.kind: (row.last, row.head) for row in records.db.execute(sa.select(COUNTERS))}
        upkeep = records.db.execute(sa.select(UPKEEP).order_by(UPKEEP.c.number)).all()
        for kind in KINDS:
            notes = [row for row in upkeep if row.kind == kind]
            checked = _Chain(kind, notes)
            for row in _pages(records, kind):
                checked.take(row)
            last, head = counters.get(kind, (0, first_hash(kind)))
            checked.end(last, head)
            counts[kind] = checked.count
            problems += checked.problems
    return Verification(counts, tuple(problems))


class _Chain:
    """Follows the chain of one kind."""

    def __init__(self, kind: str, notes: Sequence[Any]) -> None:
        self.kind, self.count = kind, 0
        self.problems: list[Problem] = []
        self._names_at = 1 + len(KINDS[kind].numbers)
        self._texts_at = self._names_at + len(KINDS[kind].names)
        self._removed = {row.first: row for row in notes if row.action != "scrub"}
        scrubbed = sorted((row.first, row.last) for row in notes if row.action == "scrub")
        self._scrubbed_from = [first for first, _ in scrubbed]
        self._scrubbed_to = [*accumulate((last for _, last in scrubbed), max)]  # of those that begin no later
        self._expected = 1
        self._before: set[str] = {first_hash(kind)}  # what the hash before may be; empty where nobody knows

    def take(self, row: Any) -> None:
        number = row[0]
        self._skip_to(number)
        if number in self._removed:
            self._say(number, "is there although it was deleted")
        scrubbed, kept = row[-2:]
        if scrubbed is not None and not self._is_noted(number):
            self._say(number, "has lost its texts, and no scrubbing is on record")
        made = self._made_of(row)
        if self._before and kept not in made:
            self._say(number, "was changed")
        self._before = made | {str(kept)}
        self._expected, self.count = number + 1, self.count + 1

    def _is_noted(self, number: int) -> bool:
        """Tell whether a scrubbing of this record is on record."""
        begun = bisect_right(self._scrubbed_from, number)
        return begun > 0 and number <= self._scrubbed_to[begun - 1]

    def _made_of(self, row: Any) -> set[str]:
        """Hash a record after each that may have been before it; nothing where it holds what is no number."""
        names_at, texts_at = self._names_at, self._texts_at
        digest = digest_of(row[texts_at:-2]) if row[-2] is None else row[-2]
        try:
            numbers, names = packed_numbers(row[:names_at]), packed_texts(row[names_at:texts_at])
        except struct.error:
            return set()
        return {linked(before, numbers, names, digest) for before in self._before}

    def end(self, last: int, head: str) -> None:
        self._skip_to(last + 1)
        if self._expected > last + 1:
            self._say(self._expected - 1, "is not counted")
        elif self._before and head not in self._before:
            self._say(last, "was changed, or is not the one that was counted")

    def _skip_to(self, number: int) -> None:
        while self._expected < number:
            note = self._removed.get(self._expected)
            if note is not None:
                self._expected, self._before = note.last + 1, {str(note.last_hash)}
                continue
            until = min([first for first in self._removed if first > self._expected] + [number])
            self._say(self._expected, "vanished", last=until - 1)
            self._expected, self._before = until, set()

    def _say(self, number: int, what: str, last: int | None = None) -> None:
        self.problems.append(Problem(self.kind, number, number if last is None else last, what))


def _pages(records: Records, name: str) -> Iterator[Any]:
    """Return number, numbers, names, texts, the digest of scrubbed texts, and the hash of all records of a kind."""
    kind = KINDS[name]
    table = kind.table
    scrubbed = table.c.scrubbed if "scrubbed" in table.c else sa.null().label("scrubbed")
    columns = [table.c[one] for one in (*kind.numbers, *kind.names, *kind.texts)]
    query = sa.select(kind.number, *columns, scrubbed, table.c.hash).order_by(kind.number).limit(_PAGE)
    last = 0
    while rows := records.db.execute(query.where(kind.number > last)).all():
        yield from rows
        last = rows[-1][0]


# ---- count


def stats(log: OutcomeLog) -> dict[str, Any]:
    """Count what a log holds.

    Returns:
        Values of JSON: `log`, `version`, `size_bytes`, `records` by kind, `first_at` and `last_at` (seconds since 1970; None where
        nothing is there), `members` (each with `answers`, `failures`, `usd`, None where no price is known), `runs` (each with
        `attempts`, `first_at`, `last_at`), `failures` by kind, `asking_usd`, `scoring_usd`, `scrubbed`, `dropped`.

    Raises:
        OutcomeLogError: The log cannot be read.
    """
    with log.looking() as records:
        db = records.db
        counts, scrubbed, times = {}, 0, []
        for name, kind in KINDS.items():
            table = kind.table
            counts[name], first, last = db.execute(
                sa.select(sa.func.count(), sa.func.min(table.c.at), sa.func.max(table.c.at))
            ).one()
            times += [at for at in (first, last) if at is not None]
            if "scrubbed" in table.c:
                query = sa.select(sa.func.count()).select_from(table).where(table.c.scrubbed.is_not(None))
                scrubbed += db.execute(query).scalar_one()
        members, failures = _members(records)
        runs = db.execute(
            sa.select(ATTEMPTS.c.run, sa.func.count(), sa.func.min(ATTEMPTS.c.at), sa.func.max(ATTEMPTS.c.at))
            .group_by(ATTEMPTS.c.run)
            .order_by(sa.func.min(ATTEMPTS.c.number))
        ).all()
        scoring = [
            db.execute(sa.select(sa.func.sum(column))).scalar_one() for column in (ATTEMPTS.c.scoring_usd, SCORES.c.usd)
        ]
        return {
            "log": log.name,
            "version": VERSION,
            "size_bytes": _size(records, log),
            "records": counts,
            "first_at": min(times, default=None),
            "last_at": max(times, default=None),
            "members": members,
            "runs": {run: {"attempts": n, "first_at": first, "last_at": last} for run, n, first, last in runs},
            "claiming": [*db.execute(sa.select(LEASES.c.run)).scalars()],
            "failures": failures,
            "asking_usd": _sum(facts["usd"] for facts in members.values()),
            "scoring_usd": _sum(scoring),
            "scrubbed": scrubbed,
            "dropped": records.last(DROPPED),
        }


def _members(records: Records) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Count by member, of attempts and served answers, and failures by their kind."""
    answers: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    usd: dict[str, float | None] = {}
    query = sa.select(ATTEMPTS.c.member, ATTEMPTS.c.failed, sa.func.count(), sa.func.sum(ATTEMPTS.c.cost_usd))
    for member, is_failure, number, cost in records.db.execute(query.group_by(ATTEMPTS.c.member, ATTEMPTS.c.failed)):
        (failed if is_failure else answers)[member] += number
        usd[member] = _sum((usd.get(member), cost))
    kind_only = sa.select(ATTEMPTS.c.failure).where(ATTEMPTS.c.failed == 1)
    kinds.update(_kind_of(failure) for failure in records.db.execute(kind_only).scalars())
    for row in _pages(records, "answers"):
        served = json.loads(row.answer)
        for one in served["candidates"]:
            answers[one["member"]] += 1
            usd[one["member"]] = _sum((usd.get(one["member"]), one.get("cost_usd")))
        for one in served["failures"]:
            failed[one["member"]] += 1
            usd.setdefault(one["member"], None)
            kinds[one["kind"]] += 1
    members = {name: {"answers": answers[name], "failures": failed[name], "usd": usd[name]} for name in sorted(usd)}
    return members, dict(kinds.most_common())


def _sum(values: Iterable[float | None]) -> float | None:
    """Add what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _kind_of(failure: str | None) -> str:
    return (failure or "").partition(":")[0]


def _size(records: Records, log: OutcomeLog) -> int:
    if log.path is None:
        query = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        )
        return int(
            records.db.exec_driver_sql(f"{query} WHERE n.nspname = 'rlfocal' AND c.relkind = 'r'").scalar_one() or 0
        )
    files = [log.path, *(log.path.with_name(log.path.name + ending) for ending in ("-wal", "-shm"))]
    return sum(file.stat().st_size for file in files if file.exists())


# ---- scrub


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbing:
    """Which texts to take out: of questions and served answers for which all that is given holds.

    Attributes:
        tasks: Names of tasks, with `*` and `?` as wildcards; served answers without a task have `"served"`. Empty: all.
        query_ids: Ids of questions or served answers. Empty: all.
        before: Seconds since 1970 before which everything about it was recorded; None: at any time.

    Raises:
        InputError: Nothing is given.
    """

    tasks: Sequence[str] = field(default=())
    query_ids: Sequence[str] = field(default=())
    before: float | None = None

    def __post_init__(self) -> None:
        if not self.tasks and not self.query_ids and self.before is None:
            raise InputError("What to scrub must be named: a task, a query id, or a date before which it was recorded.")

    def _fits(self, task: str, query_id: str) -> bool:
        return (not self.tasks or any(fnmatchcase(task, one) for one in self.tasks)) and (
            not self.query_ids or query_id in self.query_ids
        )


def scrub(log: OutcomeLog, what: Scrubbing, *, dry_run: bool = False) -> dict[str, int]:
    """Take texts out of a log: of questions, answers, tool calls, gold answers, reasons, and columns of the user's own.

    Tasks, ids, members, times, rewards, costs and tokens stay. Of labels it stays which are equal: they become letters of no meaning, of a
    gold answer too. The digest of the texts stays, so that the log verifies; who guesses a text can see whether it was that one.

    Args:
        log: The log.
        what: Whose texts.
        dry_run: True to count only.

    Returns:
        How many records of each kind lose their texts.

    Raises:
        OutcomeLogError: The log cannot be read or written; then nothing was taken out.
    """
    if dry_run:
        with log.looking() as records:
            return _count_scrubbed(records, what)
    log.flush()
    with log.tidying() as records:
        for kind in KINDS:
            records.hold(kind)
        taken: dict[str, list[int]] = {kind: [] for kind in ("questions", "attempts", "scores", "answers")}
        for first in _questions_of(records, what):
            _scrub_question(records, first, taken, log)
        for number, body in _answers_of(records, what):
            scrubbed = dumps(_without_texts(read(mappings(), body, f"answer {number}", log.name)))
            change = sa.update(ANSWERS).where(ANSWERS.c.number == number)
            records.db.execute(change.values(answer=scrubbed, scrubbed=digest_of((body,))))
            taken["answers"].append(number)
        at = log.now()
        notes = [
            (at, first, last, last - first + 1, "scrub", kind, None)
            for kind, numbers in taken.items()
            for first, last in _ranges(numbers)
        ]
        records.append("upkeep", notes)
    return {kind: len(numbers) for kind, numbers in taken.items() if numbers}


def _questions_of(records: Records, what: Scrubbing) -> list[int]:
    """Find the questions, by their first numbers, of which something still has its texts."""
    table = QUESTIONS.c
    seen: dict[int, bool] = {}
    for first, task, query_id in records.db.execute(
        sa.select(table.first, table.task, table.query_id).order_by(table.first).distinct()
    ):
        seen[first] = what._fits(task, query_id)  # noqa: SLF001
    found = [first for first, fits in seen.items() if fits]
    if what.before is not None:
        late = set(records.db.execute(sa.select(table.first).where(table.at >= what.before)).scalars())
        late |= set(records.db.execute(sa.select(ATTEMPTS.c.first).where(ATTEMPTS.c.at >= what.before)).scalars())
        found = [first for first in found if first not in late]
    whole = set(records.db.execute(sa.select(table.first).where(table.scrubbed.is_(None))).scalars())
    whole |= set(records.db.execute(sa.select(ATTEMPTS.c.first).where(ATTEMPTS.c.scrubbed.is_(None))).scalars())
    return [first for first in found if first in whole]


def _answers_of(records: Records, what: Scrubbing) -> Iterator[tuple[int, str]]:
    last = 0
    query = sa.select(ANSWERS.c.number, ANSWERS.c.id, ANSWERS.c.answer).where(ANSWERS.c.scrubbed.is_(None))
    if what.before is not None:
        query = query.where(ANSWERS.c.at < what.before)
    query = query.order_by(ANSWERS.c.number).limit(_PAGE)
    while rows := records.db.execute(query.where(ANSWERS.c.number > last)).all():
        last = rows[-1].number
        for number, answer_id, body in rows:
            task = json.loads(body)["query"].get("task") or UNNAMED_TASK
            if what._fits(task, answer_id):  # noqa: SLF001
                yield number, body


def _count_scrubbed(records: Records, what: Scrubbing) -> dict[str, int]:
    firsts = set(_questions_of(records, what))
    attempts = records.db.execute(sa.select(ATTEMPTS.c.number, ATTEMPTS.c.first, ATTEMPTS.c.scrubbed)).all()
    numbers = {row.number for row in attempts if row.first in firsts}
    questions = records.db.execute(sa.select(QUESTIONS.c.first).where(QUESTIONS.c.scrubbed.is_(None))).scalars()
    scores = records.db.execute(sa.select(SCORES.c.attempt).where(SCORES.c.scrubbed.is_(None))).scalars()
    counts = {
        "questions": sum(first in firsts for first in questions),
        "attempts": sum(row.first in firsts and row.scrubbed is None for row in attempts),
        "scores": sum(attempt in numbers for attempt in scores),
        "answers": sum(1 for _ in _answers_of(records, what)),
    }
    return {kind: number for kind, number in counts.items() if number}


def _scrub_question(records: Records, first: int, taken: Mapping[str, list[int]], log: OutcomeLog) -> None:
    """Take the texts of a question out, in all its versions, attempts and scores."""
    db = records.db
    versions = db.execute(sa.select(QUESTIONS).where(QUESTIONS.c.first == first).order_by(QUESTIONS.c.number)).all()
    attempts = db.execute(sa.select(ATTEMPTS).where(ATTEMPTS.c.first == first).order_by(ATTEMPTS.c.number)).all()
    scores = db.execute(
        sa.select(SCORES)
        .where(SCORES.c.attempt.in_(sa.select(ATTEMPTS.c.number).where(ATTEMPTS.c.first == first)))
        .order_by(SCORES.c.number)
    ).all()
    latest = versions[-1]
    said = dict.fromkeys(
        text
        for text in (
            *(row.gold for row in (*versions, *attempts, *scores) if row.scrubbed is None),
            *(row.response or row.answer for row in attempts if row.scrubbed is None),
        )
        if text
    )
    labels = dict(zip(said, label_answers([*said], latest.kind or "auto", query=latest.query), strict=True))
    classes = {label: f"answer-{place}" for place, label in enumerate(dict.fromkeys(labels.values()), start=1) if label}

    def class_of(text: str | None) -> str | None:
        return None if not text else classes.get(labels[text] or "")

    for row in versions:
        if row.scrubbed is None:
            texts = {"query": scrubbed_question(first), "gold": class_of(row.gold), "details": None}
            _take_out(records, "questions", row, texts)
            taken["questions"].append(row.number)
    for row in attempts:
        if row.scrubbed is None:
            details = read(mappings(), row.details, f"attempt {row.number}", log.name) if row.details else {}
            probs = details.get("option_probs")
            texts = {
                "response": SCRUBBED if row.response else row.response,
                "answer": class_of(row.response or row.answer),
                "gold": class_of(row.gold),
                "failure": None if row.failure is None else _kind_of(row.failure),
                "details": dumps({"option_probs": probs}) if probs else None,
            }
            _take_out(records, "attempts", row, texts)
            taken["attempts"].append(row.number)
    for row in scores:
        if row.scrubbed is None:
            _take_out(records, "scores", row, {"gold": class_of(row.gold), "reason": None})
            taken["scores"].append(row.number)


def _take_out(records: Records, name: str, row: Any, texts: Mapping[str, str | None]) -> None:
    kind = KINDS[name]
    digest = digest_of([getattr(row, column) for column in kind.texts])
    change = sa.update(kind.table).where(kind.number == row.number)
    records.db.execute(change.values(**texts, scrubbed=digest))


def _without_texts(facts: dict[str, Any]) -> dict[str, Any]:
    """Take the texts out of a served answer; of what was answered it stays who said the same."""
    classes: dict[str, str] = {"": ""}

    def class_of(label: str | None) -> str | None:
        return None if label is None else classes.setdefault(label, f"answer-{len(classes)}")

    def failure(one: dict[str, Any]) -> dict[str, Any]:
        return one | {"reason": SCRUBBED} | ({"retries": [*map(failure, one["retries"])]} if "retries" in one else {})

    candidates = []
    for one in facts["candidates"]:
        kept = {name: value for name, value in one.items() if name != "option_probs"}
        kept |= {"text": SCRUBBED if one["text"] else "", "answer": class_of(one["answer"])}
        if "retries" in one:
            kept["retries"] = [*map(failure, one["retries"])]
        candidates.append(kept)
    answer = facts["answer"]
    decided = {
        "member": answer["member"],
        "answer": class_of(answer["answer"]),
        "weights": {class_of(label): weight for label, weight in answer["weights"].items()},
        "supporters": {class_of(label): names for label, names in answer["supporters"].items()},
    }
    query = facts["query"] | {"text": f"[scrubbed answer {facts['id']}]" if facts["query"]["text"] else ""}
    failures = [*map(failure, facts["failures"])]
    return facts | {"query": query, "candidates": candidates, "failures": failures, "answer": decided}


# ---- prune


def prune(log: OutcomeLog, before: float, *, unlearned: bool = False, dry_run: bool = False) -> dict[str, int]:
    """Delete what is older than a date: attempts with their scores, questions without attempts, served answers with their feedback.

    What was learned stays, and so does feedback that is not yet in a snapshot of every learner: learning begins anew with it.

    Args:
        log: The log.
        before: The date, in seconds since 1970.
        unlearned: True to delete such feedback, too, with what was learned from it alone.
        dry_run: True to count only.

    Returns:
        How many records of each kind are deleted.

    Raises:
        OutcomeLogError: The log cannot be read or written; then nothing was deleted.
    """
    if dry_run:
        with log.looking() as records:
            return {
                kind: len(numbers) for kind, numbers in _old(records, before, unlearned=unlearned).items() if numbers
            }
    log.flush()
    with log.tidying() as records:
        for name in KINDS:
            records.hold(name)
        old = _old(records, before, unlearned=unlearned)
        notes = []
        for name, numbers in old.items():
            kind = KINDS[name]
            for first, last in _ranges(numbers):
                ended = sa.select(kind.table.c.hash).where(kind.number == last)
                last_hash = records.db.execute(ended).scalar()
                notes.append((log.now(), first, last, last - first + 1, "prune", name, last_hash))
                records.db.execute(sa.delete(kind.table).where(kind.number.between(first, last)))
        records.append("upkeep", notes)
    return {kind: len(numbers) for kind, numbers in old.items() if numbers}


def _old(records: Records, before: float, *, unlearned: bool) -> dict[str, list[int]]:
    """Find the numbers of what is older, those that refer to others first."""
    db = records.db
    attempts = sa.select(ATTEMPTS.c.number).where(ATTEMPTS.c.at < before)
    young = sa.select(ATTEMPTS.c.first).where(ATTEMPTS.c.at >= before)
    young_questions = sa.select(QUESTIONS.c.first).where(QUESTIONS.c.at >= before)
    questions = sa.select(QUESTIONS.c.number).where(
        QUESTIONS.c.at < before, QUESTIONS.c.first.not_in(young), QUESTIONS.c.first.not_in(young_questions)
    )
    events = sa.select(EVENTS.c.seq).where(EVENTS.c.at < before)
    if not unlearned:
        learned = db.execute(sa.select(sa.func.min(SNAPSHOTS.c.seq))).scalar()
        events = events.where(EVENTS.c.seq <= (learned or 0))
    old_events = {*db.execute(events).scalars()}
    needed = {
        row.answer_id for row in db.execute(sa.select(EVENTS.c.seq, EVENTS.c.answer_id)) if row.seq not in old_events
    }
    answers = sa.select(ANSWERS.c.number, ANSWERS.c.id).where(ANSWERS.c.at < before)
    scores = sa.select(SCORES.c.number).where(SCORES.c.attempt.in_(attempts))
    return {
        "scores": sorted(db.execute(scores).scalars()),
        "attempts": sorted(db.execute(attempts).scalars()),
        "questions": sorted(db.execute(questions).scalars()),
        "events": sorted(old_events),
        "answers": sorted(row.number for row in db.execute(answers) if row.id not in needed),
    }


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Join numbers that follow each other to ranges."""
    start = None
    for at, number in enumerate(numbers):
        start = number if start is None else start
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            yield start, number
            start = None

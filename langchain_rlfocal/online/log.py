"""The outcome log: what was served, what users said of it, and what was learned from that, in one SQLite file.

Rows are added, never changed. A served answer is handed to a writer thread and costs the answer next to nothing; a crash within
`LINGER_S` can lose it. Feedback is on disk when `add_feedback` returns. All processes that use a file see its feedback in one
order, that of `seq`. Who reads waits for nobody who writes. Questions and answers are stored in clear text.
"""

import asyncio
import atexit
import json
import logging
import math
import os
import sqlite3
import threading
import time
import weakref
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from langchain_rlfocal.errors import FeedbackError, OutcomeLogError
from langchain_rlfocal.online.records import CALLED_OFF, Feedback, ServedAnswer, Undo
from langchain_rlfocal.records import Candidate, Failure

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import Outcome

LINGER_S = 0.05
"""How long served answers wait for others before they are written together."""

MAX_QUEUED = 10_000
"""How many served answers may wait to be written; more are dropped."""

WAIT_S = 1.0
"""How long feedback waits for an answer that another process may still be writing."""

BUSY_S = 5.0
"""How long a write waits for those of other processes."""

UNNAMED_TASK = "served"
"""Task under which `outcomes` exports answers whose query has none."""

_RETRY_S = 1.0
_POLL_S = 0.02
_CHUNK = 1000
_NUM_THREADS = 4

_VERSION = 1
_APPLICATION_ID = 0x524C464F  # "RLFO"
_SCHEMA = """
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, answer TEXT NOT NULL
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, answer_id TEXT UNIQUE REFERENCES answers (id), at REAL NOT NULL,
    event TEXT NOT NULL
);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, learner TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
    change TEXT NOT NULL, UNIQUE (learner, id)
);
CREATE TABLE snapshots (learner TEXT PRIMARY KEY, seq INTEGER NOT NULL, arrays BLOB NOT NULL);
"""

Arrays = Mapping[str, npt.NDArray[Any]]
Record = TypeVar("Record")
Value = TypeVar("Value")

_log = logging.getLogger(__name__)


class OutcomeLog:
    """An append-only log of served answers, feedback, changes and snapshots.

    Threads, event loops, forked and other processes may use one file at the same time. A copy is the same log, a pickle opens
    the file again. The file is made where it is missing, and has to be on a local disk.

    Args:
        path: The file.

    Raises:
        OutcomeLogError: The file cannot be opened, or is no log of this version.

    Attributes:
        path: The file.
        dropped: How many served answers could not be recorded by this process.
        shared: What models that use the log share in this process, for as long as one of them holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        self.dropped = 0
        self.shared: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        self._queue: deque[ServedAnswer] = deque()
        self._begin()
        with self._database():
            pass
        _logs.add(self)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "OutcomeLog":
        """Return this process' log of a file: the one that is in use, or a new one."""
        place = str(Path(path).resolve())
        with _opening:
            log = _by_path.get(place)
            if log is None or log.is_closed:
                log = _by_path[place] = OutcomeLog(place)
            return log

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        self._lock = threading.RLock()
        self._reading_lock = threading.Lock()  # taken after the other, where both are
        self._handle, self._reader = _Handle(), _Handle(reads_only=True)
        self._wake = threading.Event()
        self._has_writer = self.is_closed = False
        self._finalizer = weakref.finalize(self, _end, (self._handle, self._reader), self._wake)
        self._finalizer.atexit = False  # what is queued comes first

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return OutcomeLog.at, (str(self.path),)

    def __repr__(self) -> str:
        return f"OutcomeLog({str(self.path)!r})"

    # ---- served answers

    def record(self, served: ServedAnswer) -> None:
        """Have the writer thread record an answer; never waits and never raises.

        What cannot be recorded is counted in `dropped`, and a line of Python's `logging` says so.
        """
        if self.is_closed or len(self._queue) >= MAX_QUEUED:
            self._drop("it is closed" if self.is_closed else f"{MAX_QUEUED} others wait to be written")
            return
        self._queue.append(served)
        if not self._has_writer:
            self._has_writer = True
            # `Thread.start` waits for its thread, which an event loop must not. A second writer would do no harm.
            start_new_thread(_write, (weakref.ref(self), self._wake))
        if not self._wake.is_set():
            _unwritten.add(self)
            self._wake.set()

    def flush(self) -> None:
        """Write what is queued in this process.

        Raises:
            OutcomeLogError: The file cannot be written; what is queued stays so.
        """
        while self._queue:
            self._flush_some()

    def _flush_some(self) -> None:
        with self._lock:
            batch: list[ServedAnswer] = []
            rows = []
            while self._queue and len(batch) < _CHUNK:
                served = self._queue.popleft()
                try:
                    rows.append((served.id, time.time(), _dumps(_facts_of(served))))
                    batch.append(served)
                except (TypeError, ValueError) as error:  # a user's policy may return anything
                    self._drop(f"it cannot be written as JSON: {error}")
            try:
                with self._writing(durable=False) as db:
                    db.executemany("INSERT OR IGNORE INTO answers (id, at, answer) VALUES (?, ?, ?)", rows)
            except OutcomeLogError:
                self._queue.extendleft(reversed(batch))
                raise

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th and so on
            _log.warning(
                "An answer was not recorded in %s: %s. Not recorded so far: %d.", self.path, reason, self.dropped
            )

    def served(self, answer_id: str) -> ServedAnswer:
        """Return an answer by its id; one that another process may still be writing is waited for.

        Raises:
            FeedbackError: There is none.
            OutcomeLogError: The file cannot be read.
        """
        for pause_s in _pauses():
            if pause_s:
                sleep(pause_s)
            if (found := self._find(answer_id)) is not None:
                return found
        raise self._unknown(answer_id)

    async def aserved(self, answer_id: str) -> ServedAnswer:
        """Return an answer by its id; see `served`. What has to be waited for is waited for on this event loop, in no thread."""
        for pause_s in _pauses():
            if pause_s:
                await asyncio.sleep(pause_s)
            if (found := await self.in_thread(partial(self._find, answer_id))) is not None:
                return found
        raise self._unknown(answer_id)

    async def in_thread(self, act: Callable[[], Value]) -> Value:
        """Do what may wait for the file in a thread kept for that: those of the event loop stay free for answers."""
        return await asyncio.get_running_loop().run_in_executor(_threads, act)

    def _find(self, answer_id: str) -> ServedAnswer | None:
        """Look for an answer once."""
        self.flush()
        with self._reading() as db:
            row = db.execute("SELECT answer FROM answers WHERE id = ?", (answer_id,)).fetchone()
        return None if row is None else _served_of(row[0], f"answer {answer_id}", self.path)

    def _unknown(self, answer_id: str) -> FeedbackError:
        return FeedbackError(
            f"Feedback must be about an answer that was recorded in {self.path}, got the unknown id {answer_id!r}. "
            'Give the message, or its `response_metadata["rlfocal"]["answer_id"]`, to a model with the same '
            "`outcome_log`."
        )

    # ---- feedback

    def add_feedback(self, feedback: Feedback) -> int:
        """Add what a user said of an answer; it is on disk, and survives a crash, when this returns.

        Returns:
            Its place in the order of all feedback, `seq`, counted from 1.

        Raises:
            FeedbackError: The answer is unknown, has feedback already, or a member in `per_member` was not asked.
            OutcomeLogError: The file cannot be written.
        """
        served = self.served(feedback.answer_id)
        strangers = [name for name in feedback.per_member if name not in served.asked]
        if strangers:
            raise FeedbackError(
                f"`per_member` must name members that were asked ({', '.join(sorted(served.asked))}), got "
                f"{', '.join(map(repr, strangers))}. Leave out who was not asked."
            )
        said = _dumps({"score": feedback.score, "per_member": dict(feedback.per_member)})
        try:
            with self._writing(durable=True) as db:
                added = db.execute(
                    "INSERT INTO events (answer_id, at, event) VALUES (?, ?, ?)",
                    (feedback.answer_id, time.time(), said),
                )
                return int(added.lastrowid or 0)
        except sqlite3.IntegrityError:
            raise FeedbackError(
                f"An answer takes feedback once, and {feedback.answer_id} has it already. Ask again and score the new answer."
            ) from None

    @property
    def last_seq(self) -> int:
        """Place of the latest feedback or undoing; 0 where there is none.

        Raises:
            OutcomeLogError: The file cannot be read.
        """
        with self._reading() as db:
            return int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def events_since(self, seq: int, limit: int = _CHUNK) -> list[tuple[int, tuple[ServedAnswer, Feedback] | Undo]]:
        """Return what came after a place in the order of all events, at most so many: feedback, and changes undone.

        Feedback comes with the answer that it is about.

        Raises:
            OutcomeLogError: The file cannot be read, or a row breaks a rule.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT e.seq, e.answer_id, e.event, a.answer FROM events e LEFT JOIN answers a ON a.id = e.answer_id "
                "WHERE e.seq > ? ORDER BY e.seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        events: list[tuple[int, tuple[ServedAnswer, Feedback] | Undo]] = []
        for at, answer_id, event, answer in rows:
            if answer_id is not None:
                said = _feedback_of(answer_id, event, f"feedback {at}", self.path)
                events.append((at, (_served_of(answer, f"answer {answer_id}", self.path), said)))
                continue
            facts = _read(_mappings(), event, f"event {at}", self.path)
            try:
                events.append((at, Undo(**facts)))
            except TypeError as error:
                raise _damaged(str(error), f"event {at}", self.path) from None
        return events

    # ---- what was learned

    def add_change(self, learner: str, change_id: str, change: Mapping[str, Any], *, waits: bool = True) -> None:
        """Add what a learner changed, as JSON values; once: an id that is there already is left as it is.

        Raises:
            OutcomeLogError: The file cannot be written; or not without waiting for others that write, where `waits` is False.
        """
        with self._writing(durable=True, waits=waits) as db:
            db.execute(
                "INSERT OR IGNORE INTO changes (learner, id, at, change) VALUES (?, ?, ?, ?)",
                (learner, change_id, time.time(), _dumps(change)),
            )

    def add_undo(self, undo: Undo) -> int:
        """Add that a change was undone, in the same order as feedback.

        Returns:
            Its place in that order, counted from 1.

        Raises:
            OutcomeLogError: The file cannot be written.
        """
        event = _dumps({"learner": undo.learner, "change_id": undo.change_id})
        with self._writing(durable=True) as db:
            added = db.execute("INSERT INTO events (at, event) VALUES (?, ?)", (time.time(), event))
            return int(added.lastrowid or 0)

    def changes(self, learner: str) -> dict[str, dict[str, Any]]:
        """Return a learner's changes by their ids, in the order in which they were added.

        Raises:
            OutcomeLogError: The file cannot be read, or a row breaks a rule.
        """
        with self._reading() as db:
            rows = db.execute("SELECT id, change FROM changes WHERE learner = ? ORDER BY number", (learner,)).fetchall()
        return {change_id: _read(_mappings(), change, f"change {change_id}", self.path) for change_id, change in rows}

    def save_snapshot(self, learner: str, seq: int, arrays: Arrays, *, waits: bool = True) -> None:
        """Keep a learner's arrays as they stand after the feedback at `seq`, instead of those of an earlier place.

        Raises:
            OutcomeLogError: The file cannot be written; or not without waiting for others that write, where `waits` is False.
        """
        data = save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        with self._writing(durable=False, waits=waits) as db:
            db.execute(
                "INSERT INTO snapshots (learner, seq, arrays) VALUES (?, ?, ?) ON CONFLICT (learner) DO UPDATE SET "
                "seq = excluded.seq, arrays = excluded.arrays WHERE excluded.seq > seq",
                (learner, seq, data),
            )

    def load_snapshot(self, learner: str) -> tuple[int, dict[str, npt.NDArray[Any]]] | None:
        """Return a learner's latest arrays and their place in the order of feedback; None where there are none.

        A snapshot that cannot be read is none: it can be made again from the feedback.

        Raises:
            OutcomeLogError: The file cannot be read.
        """
        with self._reading() as db:
            row = db.execute("SELECT seq, arrays FROM snapshots WHERE learner = ?", (learner,)).fetchone()
        try:
            return None if row is None else (int(row[0]), load_arrays(row[1]))
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None

    # ---- for training

    def outcomes(self) -> Iterator["Outcome"]:
        """Return what was served as outcomes, in the order of serving: one for each member that answered or failed.

        The reward is what feedback says of the member's answer, None where nobody said anything; a member that failed has 0.
        Members that were called off have no outcome. `propensity` is the probability with which the member was asked.

        Raises:
            OutcomeLogError: The file cannot be read, or a row breaks a rule.
        """
        self.flush()
        last = 0
        while True:
            with self._reading() as db:
                rows = db.execute(
                    "SELECT a.number, a.id, a.answer, e.event FROM answers a LEFT JOIN events e ON e.answer_id = a.id "
                    "WHERE a.number > ? ORDER BY a.number LIMIT ?",
                    (last, _CHUNK),
                ).fetchall()
            if not rows:
                return
            for number, answer_id, answer, said in rows:
                last = number
                served = _served_of(answer, f"answer {answer_id}", self.path)
                feedback = said and _feedback_of(answer_id, said, f"feedback on {answer_id}", self.path)
                yield from _outcomes_of(served, feedback.scores_of(served) if feedback else {})

    # ---- the file

    def close(self) -> None:
        """Write what is queued and close the file; later calls raise, and answers are no longer recorded.

        Raises:
            OutcomeLogError: The file cannot be written.
        """
        if self.is_closed:
            return
        with self._lock:
            try:
                self.flush()
            finally:
                with self._reading_lock:
                    self.is_closed = True
                    self._finalizer()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Give the connection that writes to this thread."""
        with self._lock, self._connected(self._handle) as db:
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection that only reads to this thread: it waits for nobody who writes, here or elsewhere."""
        with self._reading_lock, self._connected(self._reader) as db:
            yield db

    @contextmanager
    def _connected(self, handle: "_Handle") -> Iterator[sqlite3.Connection]:
        """Give a connection to who holds its lock; errors of SQLite become the package's own."""
        if self.is_closed:
            raise OutcomeLogError(f"The outcome log {self.path} is closed. Open it again: OutcomeLog(...).")
        try:
            yield handle.connected(self.path)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise _own_error(error, self.path) from error

    @contextmanager
    def _writing(self, *, durable: bool, waits: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the connection within a transaction; a durable one is on disk when it ends.

        Who does not wait for others that write has an error instead, here as well as elsewhere.
        """
        if not self._lock.acquire(blocking=waits):
            raise OutcomeLogError(f"The outcome log {self.path} is being written to. Try again.")
        try:
            with self._transaction(durable=durable, busy_s=BUSY_S if waits else 0.0) as db:
                yield db
        finally:
            self._lock.release()

    @contextmanager
    def _transaction(self, *, durable: bool, busy_s: float) -> Iterator[sqlite3.Connection]:
        with self._database() as db:
            db.execute(f"PRAGMA busy_timeout = {int(1000 * busy_s)}")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")


def _pauses() -> Iterator[float]:
    """Return how long to wait before each look for an answer, ever longer: none at first, `WAIT_S` in all."""
    give_up_at_s, pause_s = time.monotonic() + WAIT_S, _POLL_S
    yield 0.0
    while (left_s := give_up_at_s - time.monotonic()) > 0:
        yield min(pause_s, left_s)
        pause_s *= 1.5


# ---- one process' share: connections, writer thread, forks

_logs: "weakref.WeakSet[OutcomeLog]" = weakref.WeakSet()
_unwritten: set[OutcomeLog] = set()
_by_path: "weakref.WeakValueDictionary[str, OutcomeLog]" = weakref.WeakValueDictionary()
_opening = threading.RLock()
_threads = ThreadPoolExecutor(_NUM_THREADS, "rlfocal-feedback")


class _Handle:
    """A connection of one process, None until it is used."""

    db: sqlite3.Connection | None = None
    _file: tuple[int, int] | None = None

    def __init__(self, *, reads_only: bool = False) -> None:
        self._reads_only = reads_only

    def connected(self, path: Path) -> sqlite3.Connection:
        """Return the connection; a new one where the file was deleted or replaced meanwhile, since what is written to it is lost."""
        if self.db is not None and self._file != _file_of(path):
            if not self._reads_only:  # said once
                _log.warning("The outcome log %s was deleted or replaced; it is opened anew.", path)
            self.close()
        if self.db is None:
            self.db = _open(path, reads_only=self._reads_only)
            self._file = _file_of(path)
        return self.db

    def close(self) -> None:
        """Close the connection, if there is one."""
        db, self.db = self.db, None
        if db is not None:
            db.close()


def _file_of(path: Path) -> tuple[int, int] | None:
    """Identify the file that a path leads to; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # `Path.stat` takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _end(handles: tuple[_Handle, ...], wake: threading.Event) -> None:
    """Close the connections, and have the writer thread find that its log is gone."""
    wake.set()
    for handle in handles:
        handle.close()


def _write(ref: "weakref.ref[OutcomeLog]", wake: threading.Event) -> None:
    """Write what is queued, in batches, for as long as there is the log."""
    wait_s = LINGER_S
    while True:
        wake.wait()
        sleep(wait_s)
        log = ref()
        if log is None or log.is_closed:
            return
        _unwritten.discard(log)
        wake.clear()
        try:
            log.flush()
            wait_s = LINGER_S
        except OutcomeLogError as error:
            _unwritten.add(log)
            wake.set()
            if wait_s != _RETRY_S:
                _log.warning("Served answers wait to be recorded. %s", error)
            wait_s = _RETRY_S
        del log


def _close_all() -> None:
    for log in [*_logs]:
        try:
            log.close()
        except OutcomeLogError as error:
            _log.warning("%d served answers were not recorded. %s", len(log._queue), error)  # noqa: SLF001


atexit.register(_close_all)

_forking: list[OutcomeLog] = []


def _before_fork() -> None:
    """Close all connections: SQLite must not take one, or what it knows of locks, into another process."""
    _opening.acquire()
    _forking.extend(_logs)
    for log in _forking:
        log._lock.acquire()  # noqa: SLF001
        log._reading_lock.acquire()  # noqa: SLF001
        log._handle.close()  # noqa: SLF001
        log._reader.close()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for log in _forking:
        log._reading_lock.release()  # noqa: SLF001
        log._lock.release()  # noqa: SLF001
    _forking.clear()
    _opening.release()


def _after_fork_in_child() -> None:
    """Begin anew: the parent writes what it has queued itself."""
    global _opening, _threads  # noqa: PLW0603
    for log in _forking:
        was_closed = log.is_closed
        log._finalizer.detach()  # noqa: SLF001
        log._queue.clear()  # noqa: SLF001
        log._begin()  # noqa: SLF001
        log.is_closed = was_closed
    _forking.clear()
    _unwritten.clear()
    _opening = threading.RLock()
    _threads = ThreadPoolExecutor(_NUM_THREADS, "rlfocal-feedback")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# ---- SQLite


def _open(path: Path, *, reads_only: bool) -> sqlite3.Connection:
    """Connect to a log, and make its tables in a new file; who only reads waits for nobody who writes to one that is there."""
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if _check(db, path) and reads_only:
            return db
        _write_ahead(db, path)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("BEGIN IMMEDIATE")
        if not _check(db, path):
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _write_ahead(db: sqlite3.Connection, path: Path) -> None:
    """Set the mode in which readers and a writer do not hold each other up."""
    give_up_at_s = time.monotonic() + BUSY_S
    while True:  # who sets it at the same time as others is refused at once
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at_s:
                raise
            sleep(_POLL_S)
            continue
        if mode != "wal":
            raise OutcomeLogError(
                f"The outcome log {path} must be on a disk on which SQLite can write ahead (WAL). Choose a local disk."
            )
        return


def _check(db: sqlite3.Connection, path: Path) -> bool:
    """Tell whether a database is a log, or else empty.

    Raises:
        OutcomeLogError: It is something else, or of a later version.
    """
    [application_id], [version], [tables] = (
        db.execute(query).fetchone()
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if not (application_id or version or tables):
        return False
    if application_id != _APPLICATION_ID:
        raise OutcomeLogError(f"{path} is a database of another program. Name another file for the outcome log.")
    if version != _VERSION:
        raise OutcomeLogError(
            f"The outcome log {path} has version {version}, and this release reads {_VERSION}. Install a later "
            "langchain-rlfocal, or name another file."
        )
    return True


_REASONS: Mapping[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "End that program's transaction, or try again."),
    sqlite3.SQLITE_LOCKED: ("is locked by another program", "End that program's transaction, or try again."),
    sqlite3.SQLITE_FULL: ("cannot grow, since its disk is full", "Free some space, and try again."),
    sqlite3.SQLITE_NOTADB: ("is no SQLite file", "Name another file for the outcome log."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Save what `sqlite3 FILE .recover` finds, and name another file."),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Name a file in a folder that exists, and that this process may write to.",
    ),
    sqlite3.SQLITE_READONLY: ("may not be written to", "Give this process the right to, or name another file."),
    sqlite3.SQLITE_PERM: ("may not be opened", "Give this process the right to, or name another file."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Look after its disk, or name a file on another."),
}


def _own_error(error: sqlite3.Error, path: Path) -> OutcomeLogError:
    code = getattr(error, "sqlite_errorcode", None)
    what, way_out = _REASONS.get(0 if code is None else code & 0xFF, ("cannot be used", "Name another file."))
    return OutcomeLogError(f"The outcome log {path} {what} ({error}). {way_out}")


# ---- records as outcomes


def _outcomes_of(served: ServedAnswer, scores: Mapping[str, float]) -> Iterator["Outcome"]:
    from langchain_rlfocal.outcomes import Outcome  # noqa: PLC0415  # needs pyarrow, which answering does without

    if not served.query.text:
        return  # an image alone says nothing of whom to ask
    task = served.query.task or UNNAMED_TASK
    outcome = partial(Outcome, task=task, query_id=served.id, query=served.query.text)
    for one in served.candidates:
        yield outcome(
            model=one.member,
            response=one.text,
            answer=one.answer,
            reward=scores.get(one.member),
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.completion_tokens,
            cost_usd=one.cost_usd,
            latency_s=one.latency_s,
            logprob=one.logprob,
            propensity=served.propensity.get(one.member),
        )
    for failure in served.failures:
        if failure.kind not in CALLED_OFF:
            yield outcome(
                model=failure.member,
                answer=None,
                reward=0.0,
                latency_s=failure.latency_s,
                propensity=served.propensity.get(failure.member),
            )


# ---- records as JSON

_CANDIDATE_EXTRAS = (
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
    "logprob",
    "option_probs",
    "flaw",
    "answer_kind",
)


def _facts_of(served: ServedAnswer) -> dict[str, Any]:
    """Lay out a served answer as JSON values; what has its default, or is unknown, is left out."""
    query, answer = served.query, served.answer
    facts: dict[str, Any] = {
        "id": served.id,
        "query": {"text": query.text} if query.task is None else {"text": query.text, "task": query.task},
        "available": served.available,
        "policy_id": served.policy_id,
        "cost_weight": served.cost_weight,
        "max_team": served.max_team,
        "max_rounds": served.max_rounds,
        "candidates": [_candidate_facts(candidate) for candidate in served.candidates],
        "failures": [_failure_facts(failure) for failure in served.failures],
        "answer": {
            "member": answer.member,
            "answer": answer.answer,
            "weights": dict(answer.weights),
            "supporters": dict(answer.supporters),
        },
        "propensity": dict(served.propensity),
    }
    if served.explore:
        facts |= {"explore": served.explore, "explored": served.explored}
    if served.pinned:
        facts["pinned"] = True
    return facts


def _candidate_facts(candidate: Candidate) -> dict[str, Any]:
    facts = {
        "member": candidate.member,
        "round": candidate.round,
        "text": candidate.text,
        "answer": candidate.answer,
        "latency_s": candidate.latency_s,
    }
    for name in _CANDIDATE_EXTRAS:
        value = getattr(candidate, name)
        if value is not None:
            facts[name] = value
    if candidate.logprob is not None and not math.isfinite(candidate.logprob):
        del facts["logprob"]
    if candidate.retries:
        facts["retries"] = [_failure_facts(failure) for failure in candidate.retries]
    return facts


def _failure_facts(failure: Failure) -> dict[str, Any]:
    facts = {
        "member": failure.member,
        "round": failure.round,
        "kind": failure.kind,
        "reason": failure.reason,
        "latency_s": failure.latency_s,
        "is_retryable": failure.is_retryable,
    }
    if failure.retries:
        facts["retries"] = [_failure_facts(one) for one in failure.retries]
    return facts


def _plain(value: Any) -> Any:
    """Make a Python number of NumPy's, which a user's policy may return."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode


def _dumps(facts: Mapping[str, Any]) -> str:
    text = _encode(facts)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair has no form in UTF-8: keep the rest of the text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@cache
def _answers() -> TypeAdapter[tuple[ServedAnswer]]:
    """Read served answers strictly; made at first use, as it takes milliseconds."""
    return TypeAdapter(tuple[ServedAnswer], config=_STRICT)


@cache
def _mappings() -> TypeAdapter[dict[str, Any]]:
    return TypeAdapter(dict[str, Any], config=_STRICT)


_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="forbid", allow_inf_nan=False)


def _read(adapter: TypeAdapter[Record], text: str, name: str, path: Path) -> Record:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(f"{where}: {first['msg']}" if where else first["msg"], name, path) from None


def _damaged(rule: str, name: str, path: Path) -> OutcomeLogError:
    return OutcomeLogError(
        f"The outcome log {path} breaks a rule in {name}: {rule}. Correct or delete that row, or name another file."
    )


def _served_of(text: str, name: str, path: Path) -> ServedAnswer:
    return _read(_answers(), f"[{text}]", name, path)[0]


def _feedback_of(answer_id: str, text: str, name: str, path: Path) -> Feedback:
    facts = _read(_mappings(), text, name, path)
    try:
        return Feedback(answer_id=answer_id, **facts)
    except (TypeError, ValueError) as error:
        raise _damaged(str(error), name, path) from None

"""The outcome log: what was asked and served, what users said of it, and what was learned from that, in one database.

Records are added, never changed. A served answer is handed to a writer thread and costs the answer next to nothing; a crash within
`LINGER_S` can lose it. Feedback and attempts are on disk when `add_feedback` and `add_attempts` return. All processes that use a log
see its feedback in one order, that of `seq`. Who reads waits for nobody who writes. Questions and answers are stored in clear text.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from langchain_rlfocal.answers import to_kind
from langchain_rlfocal.errors import FeedbackError, OutcomeLogError
from langchain_rlfocal.log.bodies import (
    as_required,
    as_text,
    damaged,
    details_of,
    dumps,
    facts_of,
    feedback_of,
    mappings,
    read,
    served_of,
)
from langchain_rlfocal.log.places import Place
from langchain_rlfocal.log.records import CALLED_OFF, Attempt, Cell, Feedback, Made, ScoreRecord, ServedAnswer, Undo

if TYPE_CHECKING:
    from langchain_rlfocal.log.database import Database
    from langchain_rlfocal.log.statements import Asked, Records, Version
    from langchain_rlfocal.outcomes import Outcome, Question

LINGER_S = 0.05
"""How long served answers wait for others before they are written together."""

MAX_QUEUED = 10_000
"""How many served answers may wait to be written; more are dropped."""

WAIT_S = 1.0
"""How long feedback waits for an answer that another process may still be writing."""

LEASE_S = 60.0
"""How long a run's claims last unless they are renewed."""

UNNAMED_TASK = "served"
"""Task under which `outcomes` exports answers whose query has none."""

_RETRY_S = 1.0
_POLL_S = 0.02
_CHUNK = 1000
_PAGE = 200  # questions whose attempts are read at once
_NUM_THREADS = 4

Arrays = Mapping[str, npt.NDArray[Any]]
Row = tuple[Any, ...]
Value = TypeVar("Value")

_log = logging.getLogger(__name__)


def _opened(place: str) -> "OutcomeLog":
    """Open a log from its pickle; cloudpickle takes a function of a module by its name, but not a method of a class."""
    return OutcomeLog.at(place)


class OutcomeLog:
    """An append-only log of questions, attempts, served answers, feedback and what was learned.

    Threads, event loops, forked and other processes may use one log at the same time; those of several machines, where it is on
    a server. A copy is the same log, a pickle opens it again. It is made where it is missing; a log of an earlier release is
    brought to this one's version. An SQLite file has to be on a local disk.

    Args:
        place: The path of an SQLite file, or the URL of a PostgreSQL database: `postgresql://user@host/database`.
        clock: Tells the seconds since 1970. On several machines they should agree to a few seconds.

    Raises:
        OutcomeLogError: The log cannot be opened, is none, or is of a later version.
        MissingDependencyError: A server needs psycopg.

    Attributes:
        name: The path, or the URL without its password.
        path: The file, None where the log is on a server.
        dropped: How many served answers could not be recorded by this process.
        shared: What models that use the log share in this process, for as long as one of them holds it.
    """

    def __init__(self, place: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self._place = Place.of(place)
        self.name, self.path = self._place.name, self._place.path
        self._clock = clock
        self.dropped = self._counted_dropped = 0
        self.shared: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        self._queue: deque[ServedAnswer] = deque()
        self._begin()
        self._database.open()
        _logs.add(self)

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> "OutcomeLog":
        """Return this process' log at a path or URL: the one that is in use, or a new one."""
        key = Place.of(place)
        with _opening:
            log = _by_place.get(key)
            if log is None or log.is_closed:
                log = _by_place[key] = OutcomeLog(place)
            return log

    def _begin(self) -> None:
        """Set up what belongs to one process."""
        from langchain_rlfocal.log.database import Database  # noqa: PLC0415  # SQLAlchemy: answering without a log needs none

        self._database: Database = Database(self._place)
        self._wake = threading.Event()
        self._has_writer = self.is_closed = False
        self._finalizer = weakref.finalize(self, _end, self._database, self._wake)
        self._finalizer.atexit = False  # what is queued comes first

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._place.url or str(self.path),)

    def __repr__(self) -> str:
        return f"OutcomeLog({self.name!r})"

    # ---- questions

    def add_questions(self, questions: "Sequence[Question]") -> None:
        """Add questions that are new, or differ from their latest version, in one transaction.

        A kind that is a function is kept by its name alone.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        with self._writing(durable=True) as records:
            records.add_questions({_key_of(question): _texts_of(question) for question in questions}, self._clock())

    def questions(self) -> "dict[tuple[str, str], Question]":
        """Return the latest version of each question by task and id, in the order in which they were first added.

        Raises:
            OutcomeLogError: The log cannot be read, or a row breaks a rule.
        """
        with self._reading() as records:
            rows = [*records.all_questions()]
        return {(row.task, row.query_id): _question_of(row, self.name) for row in rows}

    # ---- who asks what

    def claim(
        self, cells: Sequence[Cell], *, run: str, lease_s: float = LEASE_S, failed_since: int | None = None
    ) -> list[Cell]:
        """Claim for a run what has no answer on record and no other living run has claimed; what failed may be claimed again.

        No two runs, of whatever processes, have a claim on the same cell at the same time.

        Args:
            cells: What to ask.
            run: The run's name, which no other has.
            lease_s: Seconds after which the run is forgotten, with all its claims, unless it calls `renew`.
            failed_since: What failed after so many attempts were recorded (`num_attempts`) is not claimed either.

        Returns:
            What the run may ask, in the order given; with what it had claimed before.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        now = self._clock()
        with self._writing(durable=False) as records:
            return records.claim(cells, run, now, now + lease_s, failed_since=failed_since)

    def renew(self, run: str, *, lease_s: float = LEASE_S) -> None:
        """Have a run's claims last so many seconds from now.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        with self._writing(durable=False) as records:
            records.extend(run, self._clock() + lease_s)

    def release(self, run: str, cells: Sequence[Cell] | None = None) -> None:
        """Give up a run's claims on cells, by default on all.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        with self._writing(durable=False) as records:
            records.release(run, cells)

    def runs(self) -> list[str]:
        """Return the runs that have a lease, living or not yet forgotten.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            return records.runs()

    # ---- attempts and scores

    def add_attempts(self, attempts: Sequence[Attempt], *, run: str) -> int:
        """Add attempts in one transaction, which is on disk when this returns, and give up the run's claims on them.

        A question that the log does not hold, or not with this text, is added with the gold answer of the outcome.

        Returns:
            `last_number` after them.

        Raises:
            OutcomeLogError: The log cannot be written; then it holds none of them.
        """
        rows = [_row_of(attempt) for attempt in attempts]
        with self._writing(durable=True) as records:
            last = records.add_attempts(rows, run, self._clock())
            records.release(run, (attempt.cell for attempt in attempts))
            return last + records.last("scores")

    def attempts(self) -> Iterator[Attempt]:
        """Return the latest answer of each cell with its latest score, or its latest failure where it has no answer.

        They come by question, in the order in which those were first added, and by member and sample. What is added meanwhile
        may be among them.

        Raises:
            OutcomeLogError: The log cannot be read, or a row breaks a rule.
        """
        with self._reading() as records:
            last = records.last("questions")
        for first in range(1, last + 1, _PAGE):
            with self._reading() as records:
                rows = records.attempts_between(first, first + _PAGE - 1)
                versions = records.versions_between(first, first + _PAGE - 1)
                scores = records.scores_between(first, first + _PAGE - 1)
            for row in _latest_of_each_cell(rows):
                yield _attempt_of(row, versions, scores, self.name)

    def answered(self, cells: Sequence[Cell] | None = None, *, failed_since: int | None = None) -> set[Cell]:
        """Return the cells with an answer on record: all of them, or those among some, for which no others are read.

        Args:
            cells: The cells, None for all.
            failed_since: Cells among these that failed after so many attempts were recorded are returned too.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            if cells is None:
                return set(records.answered())
            return set(records.latest_answers(cells, failed_since=failed_since))

    def add_scores(self, scores: Sequence[ScoreRecord], *, run: str) -> None:
        """Add scores of the latest answers of cells, in one transaction; they count before earlier ones.

        Raises:
            OutcomeLogError: The log cannot be written, or a cell has no answer on record; then it holds none of them.
        """
        at = self._clock()
        with self._writing(durable=True) as records:
            records.hold("scores")  # nobody prunes the answers meanwhile
            numbers = records.latest_answers(score.cell for score in scores)
            strangers = [score.cell for score in scores if score.cell not in numbers]
            if strangers:
                task, query_id, member, sample = strangers[0]
                raise OutcomeLogError(
                    f"A score must be of an answer in the outcome log {self.name}, got {len(strangers)} of none, first of {member} "
                    f"to {task}/{query_id}, sample {sample}. Record the attempt first (`add_attempts`)."
                )
            records.append(
                "scores",
                [(at, numbers[one.cell], one.reward, one.usd, run, one.scorer, one.gold, one.reason) for one in scores],
            )

    @property
    def last_number(self) -> int:
        """How many attempts and scores were ever recorded: as long as it is the same, nothing was added.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            return records.last("attempts") + records.last("scores")

    @property
    def num_attempts(self) -> int:
        """How many attempts were ever recorded.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            return records.last("attempts")

    def made_by(self, run: str) -> dict[str, Made]:
        """Add up what a run recorded, by member.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        made: dict[str, Made] = {}
        with self._reading() as records:
            rows = records.made_by(run)
        for member, failed, num, prompt, completion, usd, priced, scoring_usd in rows:
            before = made.get(member, Made())
            made[member] = Made(
                answered=before.answered + (0 if failed else num),
                failed=before.failed + (num if failed else 0),
                prompt_tokens=before.prompt_tokens + prompt,
                completion_tokens=before.completion_tokens + completion,
                usd=before.usd + usd,
                unpriced=before.unpriced + (0 if failed else num - priced),
                scoring_usd=before.scoring_usd + scoring_usd,
            )
        return made

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
            OutcomeLogError: The log cannot be written; what is queued stays so.
        """
        while self._queue:
            self._flush_some()

    def _flush_some(self) -> None:
        with self._database.lock:
            batch: list[ServedAnswer] = []
            rows: dict[str, tuple[float, str]] = {}
            while self._queue and len(batch) < _CHUNK:
                served = self._queue.popleft()
                try:
                    rows.setdefault(served.id, (self._clock(), dumps(facts_of(served))))
                    batch.append(served)
                except (TypeError, ValueError) as error:  # a user's policy may return anything
                    self._drop(f"it cannot be written as JSON: {error}")
            try:
                with self._writing(durable=False) as records:
                    records.add_answers(rows)
                    dropped = self.dropped
                    if dropped > self._counted_dropped:
                        records.count_dropped(dropped - self._counted_dropped)
                self._counted_dropped = dropped
            except OutcomeLogError:
                self._queue.extendleft(reversed(batch))
                raise

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th and so on
            _log.warning(
                "An answer was not recorded in %s: %s. Not recorded so far: %d.", self.name, reason, self.dropped
            )

    def served(self, answer_id: str) -> ServedAnswer:
        """Return an answer by its id; one that another process may still be writing is waited for.

        Raises:
            FeedbackError: There is none.
            OutcomeLogError: The log cannot be read.
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
        """Do what may wait for the log in a thread kept for that: those of the event loop stay free for answers."""
        return await asyncio.get_running_loop().run_in_executor(_threads, act)

    def _find(self, answer_id: str) -> ServedAnswer | None:
        """Look for an answer once."""
        self.flush()
        with self._reading() as records:
            body = records.answer(answer_id)
        return None if body is None else served_of(body, f"answer {answer_id}", self.name)

    def _unknown(self, answer_id: str) -> FeedbackError:
        return FeedbackError(
            f"Feedback must be about an answer that was recorded in {self.name}, got the unknown id {answer_id!r}. "
            'Give the message, or its `response_metadata["rlfocal"]["answer_id"]`, to a model with the same '
            "`outcome_log`.",
            reason="unknown",
        )

    # ---- feedback

    def add_feedback(self, feedback: Feedback) -> int:
        """Add what a user said of an answer; it is on disk, and survives a crash, when this returns.

        Returns:
            Its place in the order of all feedback, `seq`, counted from 1.

        Raises:
            FeedbackError: The answer is unknown, has feedback already, or a member in `per_member` was not asked.
            OutcomeLogError: The log cannot be written.
        """
        served = self.served(feedback.answer_id)
        strangers = [name for name in feedback.per_member if name not in served.asked]
        if strangers:
            raise FeedbackError(
                f"`per_member` must name members that were asked ({', '.join(sorted(served.asked))}), got "
                f"{', '.join(map(repr, strangers))}. Leave out who was not asked."
            )
        said = dumps({"score": feedback.score, "per_member": dict(feedback.per_member)})
        with self._writing(durable=True) as records:
            seq = records.add_feedback(feedback.answer_id, self._clock(), said)
        if seq is None:
            raise FeedbackError(
                f"An answer takes feedback once, and {feedback.answer_id} has it already. Ask again and score the new answer.",
                reason="repeated",
            )
        return seq

    @property
    def last_seq(self) -> int:
        """Place of the latest feedback or undoing; 0 where there is none.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            return records.last("events")

    def events_since(self, seq: int, limit: int = _CHUNK) -> list[tuple[int, tuple[ServedAnswer, Feedback] | Undo]]:
        """Return what came after a place in the order of all events, at most so many: feedback, and changes undone.

        Feedback comes with the answer that it is about; without one that is no longer in the log, it is left out.

        Raises:
            OutcomeLogError: The log cannot be read, or a row breaks a rule.
        """
        with self._reading() as records:
            rows = records.events_since(seq, limit)
        events: list[tuple[int, tuple[ServedAnswer, Feedback] | Undo]] = []
        for at, answer_id, event, answer in rows:
            if answer_id is not None:
                if answer is not None:
                    said = feedback_of(answer_id, event, f"feedback {at}", self.name)
                    events.append((at, (served_of(answer, f"answer {answer_id}", self.name), said)))
                continue
            facts = read(mappings(), event, f"event {at}", self.name)
            try:
                events.append((at, Undo(**facts)))
            except TypeError as error:
                raise damaged(str(error), f"event {at}", self.name) from None
        return events

    # ---- what was learned

    def add_change(self, learner: str, change_id: str, change: Mapping[str, Any], *, waits: bool = True) -> None:
        """Add what a learner changed, as JSON values; once: an id that is there already is left as it is.

        Raises:
            OutcomeLogError: The log cannot be written; or not without waiting for others that write, where `waits` is False.
        """
        with self._writing(durable=True, waits=waits) as records:
            records.add_change(learner, change_id, self._clock(), dumps(change))

    def add_undo(self, undo: Undo) -> int:
        """Add that a change was undone, in the same order as feedback.

        Returns:
            Its place in that order, counted from 1.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        event = dumps({"learner": undo.learner, "change_id": undo.change_id})
        with self._writing(durable=True) as records:
            return records.append("events", [(self._clock(), None, event)])

    def changes(self, learner: str) -> dict[str, dict[str, Any]]:
        """Return a learner's changes by their ids, in the order in which they were added.

        Raises:
            OutcomeLogError: The log cannot be read, or a row breaks a rule.
        """
        with self._reading() as records:
            rows = records.changes(learner)
        return {change_id: read(mappings(), change, f"change {change_id}", self.name) for change_id, change in rows}

    def save_snapshot(self, learner: str, seq: int, arrays: Arrays, *, waits: bool = True) -> None:
        """Keep a learner's arrays as they stand after the feedback at `seq`, instead of those of an earlier place.

        Raises:
            OutcomeLogError: The log cannot be written; or not without waiting for others that write, where `waits` is False.
        """
        data = save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        with self._writing(durable=False, waits=waits) as records:
            records.save_snapshot(learner, seq, data)

    def load_snapshot(self, learner: str) -> tuple[int, dict[str, npt.NDArray[Any]]] | None:
        """Return a learner's latest arrays and their place in the order of feedback; None where there are none.

        A snapshot that cannot be read is none: it can be made again from the feedback.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._reading() as records:
            row = records.snapshot(learner)
        try:
            return None if row is None else (int(row[0]), load_arrays(bytes(row[1])))
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None

    # ---- for training

    def outcomes(self) -> "Iterator[Outcome]":
        """Return what was served as outcomes, in the order of serving: one for each member that answered or failed.

        The reward is what feedback says of the member's answer, None where nobody said anything; a member that failed has 0.
        Members that were called off have no outcome. `propensity` is the probability with which the member was asked.

        Raises:
            OutcomeLogError: The log cannot be read, or a row breaks a rule.
        """
        self.flush()
        last = 0
        while True:
            with self._reading() as records:
                rows = records.answers_since(last, _CHUNK)
            if not rows:
                return
            for number, answer_id, answer, said in rows:
                last = number
                served = served_of(answer, f"answer {answer_id}", self.name)
                feedback = said and feedback_of(answer_id, said, f"feedback on {answer_id}", self.name)
                yield from _outcomes_of(served, feedback.scores_of(served) if feedback else {})

    # ---- the database

    def close(self) -> None:
        """Write what is queued and close the log; later calls raise, and answers are no longer recorded.

        Raises:
            OutcomeLogError: The log cannot be written.
        """
        if self.is_closed:
            return
        with self._database.lock:
            try:
                self.flush()
            finally:
                with self._database.reading_lock:
                    self.is_closed = True
                    self._finalizer()

    def looking(self) -> "AbstractContextManager[Records]":
        """Give a connection of its own that sees the log as it stands now, for as long as it is looked at; see `log.upkeep`."""
        self._check_open()
        return self._database.looking()

    def tidying(self) -> "AbstractContextManager[Records]":
        """Give a durable transaction after which nothing is left on disk of what it took out; see `log.upkeep`."""
        self._check_open()
        return self._database.tidying()

    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._clock()

    def _reading(self) -> "AbstractContextManager[Records]":
        """Give the connection that only reads to this thread: it waits for nobody who writes, here or elsewhere."""
        self._check_open()
        return self._database.reading()

    def _writing(self, *, durable: bool, waits: bool = True) -> "AbstractContextManager[Records]":
        """Give a transaction to this thread; see `Database.writing`."""
        self._check_open()
        return self._database.writing(durable=durable, waits=waits)

    def _check_open(self) -> None:
        if self.is_closed:
            raise OutcomeLogError(f"The outcome log {self.name} is closed. Open it again: OutcomeLog(...).")


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
_by_place: "weakref.WeakValueDictionary[Place, OutcomeLog]" = weakref.WeakValueDictionary()
_opening = threading.RLock()
_threads = ThreadPoolExecutor(_NUM_THREADS, "rlfocal-feedback")


def _end(database: "Database", wake: threading.Event) -> None:
    """Close the connections, and have the writer thread find that its log is gone."""
    wake.set()
    database.close()


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
    """Close all connections: none may go into another process, nor what SQLite knows of locks."""
    _opening.acquire()
    _forking.extend(_logs)
    for log in _forking:
        log._database.lock.acquire()  # noqa: SLF001
        log._database.reading_lock.acquire()  # noqa: SLF001
        log._database.close()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for log in _forking:
        log._database.reading_lock.release()  # noqa: SLF001
        log._database.lock.release()  # noqa: SLF001
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


# ---- questions and attempts as rows


def _key_of(question: "Question") -> tuple[str, str]:
    return as_required(question.task), as_required(question.query_id)


def _texts_of(question: "Question") -> tuple[Any, ...]:
    details = details_of(messages=question.messages, tools=question.tools, extras=question.extras)
    kind = question.kind if isinstance(question.kind, str) else to_kind(question.kind).name
    named = None if kind == "auto" else kind
    return as_required(question.query), as_text(question.gold), named, as_text(question.scorer), details


def _question_of(row: Any, log: str) -> "Question":
    from langchain_rlfocal.outcomes import Question  # noqa: PLC0415  # needs pyarrow, which answering does without

    details = read(mappings(), row.details or "{}", f"question {row.number}", log)
    return Question(
        task=row.task,
        query_id=row.query_id,
        query=row.query,
        gold=row.gold,
        kind=row.kind or "auto",
        messages=tuple(details.get("messages", ())),
        tools=tuple(details.get("tools", ())),
        scorer=row.scorer,
        extras=details.get("extras", {}),
    )


def _row_of(attempt: Attempt) -> "tuple[Version, Asked, Row, Row]":
    """Lay out an attempt: its question, the question's text and gold answer, its numbers, and its names and texts."""
    said = attempt.outcome
    numbers = (
        attempt.sample,
        attempt.failure is not None,
        said.reward,
        attempt.scoring_usd,
        said.prompt_tokens,
        said.completion_tokens,
        said.cost_usd,
        said.latency_s,
        said.logprob,
        said.propensity,
    )
    has_details = attempt.tool_calls or said.option_probs or said.extras
    details = (
        details_of(tool_calls=attempt.tool_calls, option_probs=said.option_probs, extras=said.extras)
        if has_details
        else None
    )
    texts = (said.model, attempt.scorer, said.response, said.answer, said.gold, attempt.failure, details)
    return (said.task, said.query_id, hash(said.query)), (said.query, said.gold), numbers, texts


def _latest_of_each_cell(rows: Sequence[Row]) -> Iterator[Row]:
    """Choose of each cell the last answer, or the last failure where it has no answer."""
    if not rows:
        return
    latest = rows[0]
    for row in rows:
        if row[:3] != latest[:3]:
            yield latest
            latest = row
        elif not row[3] or latest[3]:
            latest = row
    yield latest


def _attempt_of(
    row: Row, versions: Mapping[int, tuple[str, str, str]], scores: Mapping[int, tuple[Any, ...]], log: str
) -> Attempt:
    from langchain_rlfocal.outcomes import Outcome  # noqa: PLC0415  # as above

    _, member, sample, _, number, version, reward, scorer, scoring_usd, *numbers = row[:15]
    prompt_tokens, completion_tokens, cost_usd, latency_s, logprob, propensity = numbers
    response, answer, gold, failure, written, scrubbed, at = row[15:]
    details = read(mappings(), written, f"attempt {number}", log) if written else {}
    probs = details.get("option_probs")
    if number in scores:
        reward, scorer, scoring_usd, later, at = scores[number]
        gold = gold if later is None else later
    task, query_id, query = versions[version]
    outcome = Outcome(
        task=task,
        query_id=query_id,
        query=query,
        model=member,
        response=response,
        answer=answer,
        gold=gold,
        reward=reward,
        option_probs=None if probs is None else tuple(probs),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_usd=cost_usd,
        latency_s=latency_s,
        logprob=logprob,
        propensity=propensity,
        extras=details.get("extras", {}),
    )
    return Attempt(
        outcome=outcome,
        sample=sample,
        failure=failure,
        tool_calls=tuple(details.get("tool_calls", ())),
        scorer=scorer,
        scoring_usd=scoring_usd,
        scrubbed=scrubbed is not None,
        at=at,
    )


# ---- served answers as outcomes


def _outcomes_of(served: ServedAnswer, scores: Mapping[str, float]) -> "Iterator[Outcome]":
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

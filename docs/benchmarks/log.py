"""How quickly a log takes records and gives them back: `python docs/benchmarks/log.py`.

Writing is measured beside `executemany` of the same rows. Each pair of runs writes the same batches into two fresh SQLite files with the
same tables, indexes and pragmas: once through `OutcomeLog`, from records in memory to rows on disk, once by `sqlite3`, from rows with the
same columns and bytes that were laid out, and hashed, beforehand. Both make each batch just before they write it, and making it does not
count. Printed are the medians of rows a second and the median of the pairs' ratios, 1 where the log is as quick as SQLite alone: of the
time that passed, which the disk has a share in, and of the processor's, which is all there is where the disk costs nothing.

`--attempts N` also writes so many attempts to a log and reads them back, as microseconds for each: by `attempts`, by `verify`, and by an
export to a Parquet file, with the share of it that labels take, and the most memory that the process ever held.
"""

import argparse
import gc
import os
import resource
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from langchain_rlfocal.answers import label_answers
from langchain_rlfocal.log import Attempt, OutcomeLog, ServedAnswer
from langchain_rlfocal.log.schema import KINDS
from langchain_rlfocal.log.tables import table_of
from langchain_rlfocal.log.upkeep import verify
from langchain_rlfocal.outcomes import Outcome, Question
from langchain_rlfocal.records import Answer, Candidate, Query

MEMBERS = ("small", "medium", "large", "other")
TEXT = "First we look at what is asked, then at what is known of it. " * 8  # about 500 characters


def attempts(start: int, number: int) -> list[Attempt]:
    """Make attempts of all members at so many questions."""
    return [
        Attempt(
            outcome=Outcome(
                task="bench/law",
                query_id=str(query),
                query=f"Question {query}: what is {query} times 7?",
                model=member,
                response=f"{TEXT}The answer is {7 * query}.",
                answer=None,
                gold=str(7 * query),
                reward=1.0,
                prompt_tokens=120,
                completion_tokens=130,
                cost_usd=0.00025,
                latency_s=0.75,
            ),
            scorer="auto",
        )
        for query in range(start, start + number // len(MEMBERS))
        for member in MEMBERS
    ]


def questions_of(batch: list) -> list[Question]:
    """Name the questions of attempts, which are there before those."""
    said = [one.outcome for one in batch if isinstance(one, Attempt)]
    return [Question(task=one.task, query_id=one.query_id, query=one.query, gold=one.gold) for one in said]


def served(start: int, number: int) -> list[ServedAnswer]:
    """Make so many served answers of two members each."""
    return [
        ServedAnswer(
            id=f"0b8f2c8e-5c1e-4a53-9d0c-{place:012d}",
            query=Query(f"Question {place}: what is {place} times 7?"),
            available=MEMBERS,
            policy_id="prior-0123456789abcdef",
            cost_weight=0.1,
            max_team=2,
            max_rounds=2,
            candidates=tuple(
                Candidate(member, 1, f"{TEXT}The answer is {7 * place}.", str(7 * place), 0.75, 120, 130, 0.00025)
                for member in MEMBERS[:2]
            ),
            failures=(),
            answer=Answer("small", str(7 * place), {str(7 * place): 1.0}, {str(7 * place): MEMBERS[:2]}),
            propensity={"small": 1.0, "medium": 0.5},
        )
        for place in range(start, start + number)
    ]


def log_attempts(log: OutcomeLog, batch: list[Attempt]) -> None:
    """Add a batch of attempts, durably."""
    log.add_attempts(batch, run="bench")


def log_served(log: OutcomeLog, batch: list[ServedAnswer]) -> None:
    """Record a batch of answers, as the writer thread does."""
    log._queue.extend(batch)  # noqa: SLF001  # `record` would start the thread
    log.flush()


class Watch:
    """Adds up what passes within it: seconds, and seconds of the processor in this thread."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._begun[0]
        self.cpu_s += time.thread_time() - self._begun[1]


def timed(batches: Iterable[list], write: Callable[[OutcomeLog, list], None], path: Path) -> Watch:
    """Measure a log with some batches."""
    log = OutcomeLog(path)
    watch = Watch()
    for batch in batches:
        log.add_questions(questions_of(batch))
        with watch:
            write(log, batch)
    log.close()
    return watch


def timed_alone(kind: str, source: Path, path: Path, batch_size: int, *, durable: bool) -> Watch:
    """Measure SQLite with the rows of another log, in batches of the same size."""
    OutcomeLog(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    columns = ", ".join(f'"{name}"' for name in KINDS[kind].columns)
    marks = ", ".join("?" * len(KINDS[kind].columns))
    other = sqlite3.connect(source)
    questions = other.execute("SELECT * FROM questions").fetchall()
    if questions:
        db.executemany(f"INSERT INTO questions VALUES ({', '.join('?' * len(questions[0]))})", questions)  # noqa: S608
    watch = Watch()
    rows = other.execute(f"SELECT {columns} FROM {kind} ORDER BY number")  # noqa: S608
    while batch := rows.fetchmany(batch_size):
        with watch:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(f"INSERT INTO {kind} ({columns}) VALUES ({marks})", batch)  # noqa: S608
            db.execute("COMMIT")
    other.close()
    db.close()
    return watch


def compare(number: int, batches: int, size: int, folder: Path | None) -> None:
    """Print a table of rates and ratios."""
    print(f"{number} pairs of {batches} batches of {size} rows; {os.cpu_count()} cores")
    print("kind      rows/s, log  rows/s, executemany  ratio  ratio of CPU time")
    kinds = (("attempts", attempts, log_attempts, True), ("answers", served, log_served, False))
    for kind, make, write, durable in kinds:
        own, alone = [], []
        for _ in range(number):
            with tempfile.TemporaryDirectory(dir=folder) as made:
                log, raw = Path(made) / "log.db", Path(made) / "raw.db"
                own.append(timed((make(start * size, size) for start in range(batches)), write, log))
                alone.append(timed_alone(kind, log, raw, size, durable=durable))
        pairs = [*zip(own, alone, strict=True)]
        rates = [batches * size / median(one.wall_s for one in watches) for watches in (own, alone)]
        wall, cpu = (median(b.wall_s / a.wall_s for a, b in pairs), median(b.cpu_s / a.cpu_s for a, b in pairs))
        print(f"{kind:8}  {rates[0]:11,.0f}  {rates[1]:19,.0f}  {wall:5.2f}  {cpu:17.2f}")


def read_back(number: int, size: int, folder: Path | None) -> None:
    """Print what reading so many attempts takes."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        log = OutcomeLog(Path(made) / "log.db")
        for start in range(0, number, size):
            log_attempts(log, attempts(start // len(MEMBERS), min(size, number - start)))
        reading, verifying, labelling, exporting = Watch(), Watch(), Watch(), Watch()

        def label_watched(*args: Any, **named: Any) -> list[str | None]:
            with labelling:
                return label_answers(*args, **named)

        with reading:
            deque(log.attempts(), maxlen=0)
        with verifying:
            assert verify(log).problems == ()
        with exporting, patch("langchain_rlfocal.log.tables.label_answers", label_watched):
            table_of(log).write(Path(made) / "log.parquet")
        log.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{number:,} attempts; at most {peak:.2f} GiB")
    print("              microseconds each  of the processor")
    for name, watch in (
        ("attempts", reading),
        ("verify", verifying),
        ("export", exporting),
        ("of it labels", labelling),
    ):
        print(f"{name:12}  {1e6 * watch.wall_s / number:17.1f}  {1e6 * watch.cpu_s / number:16.1f}")


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="pairs of runs; 0 for none")
    parser.add_argument("--batches", type=int, default=10, help="batches of a run")
    parser.add_argument("--size", type=int, default=1000, help="rows of a batch")
    parser.add_argument("--attempts", type=int, default=0, help="attempts to write, and to read back")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files are made; default: a temporary folder"
    )
    given = parser.parse_args()
    gc.freeze()  # so that Python does not look through all that was imported, for garbage, in the midst of a measurement
    if given.pairs:
        compare(given.pairs, given.batches, given.size, given.folder)
    if given.attempts:
        read_back(given.attempts, given.size, given.folder)


if __name__ == "__main__":
    main()

"""How quickly a log takes records, beside `executemany` of the same rows: `python docs/benchmarks/log.py`.

Each pair of runs writes the same batches into two fresh SQLite files with the same tables, indexes and pragmas: once through
`OutcomeLog`, from records in memory to rows on disk, once by `sqlite3` from rows that were laid out, and hashed, beforehand. Printed are
the medians of rows a second, and the median of the pairs' ratios, 1 where the log is as quick as SQLite alone.
"""

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from langchain_rlfocal.log import Attempt, OutcomeLog, ServedAnswer
from langchain_rlfocal.log.schema import KINDS
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


def timed(batches: list, write: Callable[[OutcomeLog, list], None], path: Path) -> float:
    """Seconds that a log takes for some batches."""
    log = OutcomeLog(path)
    log.add_questions([question for batch in batches for question in questions_of(batch)])
    begun = time.perf_counter()
    for batch in batches:
        write(log, batch)
    taken = time.perf_counter() - begun
    log.close()
    return taken


def timed_alone(kind: str, source: Path, path: Path, batch_size: int, *, durable: bool) -> float:
    """Seconds that SQLite takes for the rows of another log, in batches of the same size."""
    OutcomeLog(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    columns = ", ".join(f'"{name}"' for name in KINDS[kind].columns)
    marks = ", ".join("?" * len(KINDS[kind].columns))
    other = sqlite3.connect(source)
    rows = other.execute(f"SELECT {columns} FROM {kind} ORDER BY number").fetchall()  # noqa: S608
    questions = other.execute("SELECT * FROM questions").fetchall()
    other.close()
    if questions:
        db.executemany(f"INSERT INTO questions VALUES ({', '.join('?' * len(questions[0]))})", questions)  # noqa: S608
    begun = time.perf_counter()
    for start in range(0, len(rows), batch_size):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(f"INSERT INTO {kind} ({columns}) VALUES ({marks})", rows[start : start + batch_size])  # noqa: S608
        db.execute("COMMIT")
    taken = time.perf_counter() - begun
    db.close()
    return taken


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="pairs of runs")
    parser.add_argument("--batches", type=int, default=10, help="batches of a run")
    parser.add_argument("--size", type=int, default=1000, help="rows of a batch")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the files are made; default: a temporary folder"
    )
    given = parser.parse_args()
    print(f"{given.pairs} pairs of {given.batches} batches of {given.size} rows; {os.cpu_count()} cores")
    print("kind       rows/s, log   rows/s, executemany   ratio")
    kinds = (("attempts", attempts, log_attempts, True), ("answers", served, log_served, False))
    for kind, make, write, durable in kinds:
        batches = [make(start * given.size, given.size) for start in range(given.batches)]
        own, alone = [], []
        for _ in range(given.pairs):
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                log, raw = Path(folder) / "log.db", Path(folder) / "raw.db"
                own.append(timed(batches, write, log))
                alone.append(timed_alone(kind, log, raw, given.size, durable=durable))
        rows = given.batches * given.size
        ratio = median(theirs / ours for ours, theirs in zip(own, alone, strict=True))
        print(f"{kind:9}  {rows / median(own):11,.0f}   {rows / median(alone):19,.0f}   {ratio:5.2f}")


if __name__ == "__main__":
    main()

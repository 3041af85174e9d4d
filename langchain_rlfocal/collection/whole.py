"""A whole collection: what a table holds goes into its log, members are asked, and the log becomes the table again.

However the asking ends, the table is written; what was answered is in it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

from langchain_rlfocal.collection.asking import acollect
from langchain_rlfocal.collection.config import CollectConfig, check_questions
from langchain_rlfocal.collection.exporting import TakenIn, log_beside, recorded_in, take_in, write_table
from langchain_rlfocal.collection.runs import new_run
from langchain_rlfocal.collection.tallies import Tally, Watch
from langchain_rlfocal.log import Attempt, OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable, Question, split_sample_id
from langchain_rlfocal.outcomes.files import check_writable
from langchain_rlfocal.pool import ModelPool


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection into a table came to.

    Attributes:
        table: The table as it was written; None where nothing is on record, and no file was made.
        tally: What came of the asking; None where Ctrl-C ended it at once.
        log: Where everything is on record.
    """

    table: OutcomeTable | None
    tally: Tally | None
    log: OutcomeLog


def collect_into(
    path: str | PathLike[str],
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    log: OutcomeLog | None = None,
    config: CollectConfig | None = None,
    watch: Watch | None = None,
    stop: asyncio.Event | None = None,
    on_taken_in: Callable[[TakenIn], None] | None = None,
    runner: Callable[[Coroutine[Any, Any, Tally]], Tally] = asyncio.run,
    shared: Callable[[OutcomeLog], Tally] | None = None,
) -> Collected:
    """Collect into a table, going on where an earlier collection stopped.

    What is answered is in the log at once. The table is written at the end, whole or not at all; what it held before is taken
    into the log first, and stays in it.

    Args:
        path: The table to make or complete, a .parquet, .jsonl or .csv file.
        pool: Whom to ask.
        questions: What to ask.
        log: Where answers are recorded. None for the table's own, which `log_beside` names: the table gets all of it. Of another,
            which may be shared, it gets the answers to these questions, and to those that it held.
        config: How to collect.
        watch: Called at each change.
        stop: Once it is set nothing more is sent; see `acollect`.
        on_taken_in: Told what the log took in from the table, before anybody is asked.
        runner: Runs the asking in an event loop, as `asyncio.run` does.
        shared: Has workers of an engine do the asking instead, on this log: `collect_shared` with all but that.

    Returns:
        The table, in the order of these questions, then of others; and what came of the asking.

    Raises:
        OutcomeError: `path` cannot be written, an earlier file breaks a rule, or a question does.
        OutcomeLogError: The log cannot be read or written.
        InputError: A scorer is unknown, or prices are unknown where a budget needs them.
    """
    check_writable(path)
    config = config or CollectConfig()
    used = OutcomeLog(log_beside(path)) if log is None else log
    check_questions(questions, used.questions(), samples=config.samples)
    keep = None if log is None else _keeping(questions, path)
    run = new_run()
    taken = take_in(used, path, run=run)
    if on_taken_in is not None:
        on_taken_in(taken)

    def write() -> OutcomeTable | None:
        return write_table(used, path, questions=questions, members=pool.names, keep=keep)

    tally: Tally | None = None
    try:
        if shared is not None:
            tally = shared(used)
        else:
            tally = runner(acollect(pool, questions, log=used, config=config, watch=watch, stop=stop, run=run))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    except BaseException:
        with suppress(Exception):  # what went wrong first is what is said
            write()
        raise
    return Collected(write(), tally, used)


def _keeping(questions: Sequence[Question], path: str | PathLike[str]) -> Callable[[Attempt], bool]:
    """Say which attempts of a shared log a table takes: those at its questions, and at those that it holds."""
    own = {(question.task, question.query_id) for question in questions}
    for outcome in recorded_in(path):
        own |= {(outcome.task, outcome.query_id), (outcome.task, split_sample_id(outcome.query_id)[0])}
    return lambda attempt: attempt.cell[:2] in own

"""Collection: ask a pool a set of questions and record what every answer was worth.

    config     what to collect and how
    asking     members work through their questions; each answer is on record at once
    tallies    what has come of it so far
    pricing    what one call will take
    jobs       what a whole collection will take
    exporting  what tables hold goes into the log, what the log holds goes into tables
    runs       who has claimed what, and whether they are still alive

A collection may take hours and cost money: it can be stopped or killed at any moment and goes on where it was, and what is on
record is never asked for again. A member that fails is recorded as a non-answer that is worth 0, until it is asked again and
answers. What nobody scored is unscored, which is not wrong.
"""

import asyncio
from collections.abc import Sequence
from os import PathLike

from langchain_rlfocal.collection.asking import acollect, collect
from langchain_rlfocal.collection.config import CollectConfig, check_questions, is_scorable, scorers_of
from langchain_rlfocal.collection.exporting import (
    TakenIn,
    is_failure,
    log_beside,
    recorded_in,
    take_in,
    unfinished_path,
    write_table,
)
from langchain_rlfocal.collection.jobs import JobPrice, MemberPrice, price_collection
from langchain_rlfocal.collection.runs import is_dead, new_run
from langchain_rlfocal.collection.tallies import MemberTally, Tally, Watch
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable, Question
from langchain_rlfocal.outcomes.files import check_writable
from langchain_rlfocal.pool import ModelPool

__all__ = [
    "CollectConfig",
    "JobPrice",
    "MemberPrice",
    "MemberTally",
    "TakenIn",
    "Tally",
    "Watch",
    "acollect",
    "check_questions",
    "collect",
    "collect_into",
    "is_dead",
    "is_failure",
    "is_scorable",
    "log_beside",
    "new_run",
    "price_collection",
    "recorded_in",
    "scorers_of",
    "take_in",
    "unfinished_path",
    "write_table",
]


def collect_into(
    path: str | PathLike[str],
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    log: OutcomeLog | None = None,
    config: CollectConfig | None = None,
    watch: Watch | None = None,
) -> OutcomeTable:
    """Collect into a table, going on where an earlier collection stopped.

    What is answered is in the log at once. The table is written at the end, whole or not at all; what it held before is taken
    into the log first, and stays in it.

    Args:
        path: The table to make or complete, a .parquet, .jsonl or .csv file.
        pool: Whom to ask.
        questions: What to ask.
        log: Where answers are recorded; None for the file that `log_beside` names.
        config: How to collect.
        watch: Called at each change.

    Returns:
        The whole table: the outcomes of these questions in their order, then those that it held of others.

    Raises:
        OutcomeError: `path` cannot be written, an earlier file breaks a rule, or a question does.
        OutcomeLogError: The log cannot be read or written.
        InputError: A scorer is unknown, or prices are unknown where a budget needs them.
    """
    check_writable(path)
    used = OutcomeLog(log_beside(path)) if log is None else log
    check_questions(questions, used.questions())
    run = new_run()
    take_in(used, path, run=run)
    try:
        asyncio.run(acollect(pool, questions, log=used, config=config, watch=watch, run=run))
    finally:
        table = write_table(used, path, questions=questions, members=pool.names)
    assert table is not None, "every question was asked, and each of them left a row"
    return table

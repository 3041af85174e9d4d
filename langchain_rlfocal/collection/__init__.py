"""Collection: ask a pool a set of questions and record what every answer was worth.

    config     what to collect and how
    asking     members work through their questions; each answer is on record at once
    shares     which part of it a worker begins with, where several share it
    purses     what it may spend
    sharing    workers of an engine share it
    tallies    what has come of it so far
    pricing    what one call will take
    jobs       what a whole collection will take
    exporting  what tables hold goes into the log, what the log holds goes into tables
    whole      all of it: from a table as it was to the table as it is now
    runs       who has claimed what, and whether they are still alive

A collection may take hours and cost money: it can be stopped or killed at any moment and goes on where it was, and what is on
record is never asked for again. A member that fails is recorded as a non-answer that is worth 0, until it is asked again and
answers. What nobody scored is unscored, which is not wrong.
"""

from langchain_rlfocal.collection.asking import acollect, collect
from langchain_rlfocal.collection.config import CollectConfig, check_questions, is_scorable, scorers_of
from langchain_rlfocal.collection.exporting import is_failure, log_beside, take_in, write_table
from langchain_rlfocal.collection.jobs import JobPrice, MemberPrice, price_collection
from langchain_rlfocal.collection.shares import Share
from langchain_rlfocal.collection.sharing import Opening, check_place, collect_shared
from langchain_rlfocal.collection.tallies import MemberTally, Tally, Watch
from langchain_rlfocal.collection.whole import Collected, collect_into

__all__ = [
    "CollectConfig",
    "Collected",
    "JobPrice",
    "MemberPrice",
    "MemberTally",
    "Opening",
    "Share",
    "Tally",
    "Watch",
    "acollect",
    "check_place",
    "check_questions",
    "collect",
    "collect_into",
    "collect_shared",
    "is_failure",
    "is_scorable",
    "log_beside",
    "price_collection",
    "scorers_of",
    "take_in",
    "write_table",
]

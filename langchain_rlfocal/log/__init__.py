"""The log: what was asked, served and said, in one database that many processes share.

records      attempts, scores, served answers, feedback
outcome_log  all of it on disk, in one order for everybody
places       a path or a URL
database     connections, versions, transactions, errors
schema       tables, and the chain of hashes
statements   what is read and added
bodies       records as JSON
tables       a log as a table of outcomes

SQLAlchemy is loaded when a log is opened.
"""

from langchain_rlfocal.log.outcome_log import LEASE_S, OutcomeLog
from langchain_rlfocal.log.records import (
    CALLED_OFF,
    SCRUBBED,
    Attempt,
    Cell,
    Feedback,
    ScoreRecord,
    ServedAnswer,
    Undo,
)

__all__ = [
    "CALLED_OFF",
    "LEASE_S",
    "SCRUBBED",
    "Attempt",
    "Cell",
    "Feedback",
    "OutcomeLog",
    "ScoreRecord",
    "ServedAnswer",
    "Undo",
]

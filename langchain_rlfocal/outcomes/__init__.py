"""Outcomes: what was recorded about each query and each member, at rest.

An `OutcomeTable` (`outcome_table`) is the long form, one row per task, query and member, as files hold it (`files`, by the
rules of `columns`). An `OutcomeGrid` (`grids`) is the square form, queries x members, as learning and evaluation use it;
`layout` makes it of a table, and `options` says what the scores of options stand for. Nothing here asks a model anything.
"""

from langchain_rlfocal.outcomes.grids import FRACTIONS, OutcomeGrid, split_of
from langchain_rlfocal.outcomes.outcome_table import (
    COLUMNS,
    QUESTION_COLUMNS,
    Missing,
    Outcome,
    OutcomeTable,
    Question,
    append_jsonl,
    read_questions,
)

__all__ = [
    "COLUMNS",
    "FRACTIONS",
    "QUESTION_COLUMNS",
    "Missing",
    "Outcome",
    "OutcomeGrid",
    "OutcomeTable",
    "Question",
    "append_jsonl",
    "read_questions",
    "split_of",
]

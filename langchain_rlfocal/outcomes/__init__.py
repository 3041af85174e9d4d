"""Outcomes: what was recorded about each query and each member.

An `OutcomeTable` is the long form, one row per task, query and member, as files hold it. An `OutcomeGrid` is the square form,
queries x members, as learning and evaluation use it. Nothing here asks a model anything. Names of `tables` load on first use
(PEP 562): only they need pyarrow, and a policy that answers needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_rlfocal.outcomes.grids import (
    FRACTIONS,
    CostUnit,
    OutcomeGrid,
    Spending,
    Split,
    costs_of,
    prices_of,
    spending_in,
    split_of,
)

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes.tables import (
        COLUMNS,
        DEFAULT_TASK,
        QUESTION_ALIASES,
        Missing,
        Outcome,
        OutcomeTable,
        Question,
        question_of,
        read_questions,
        sample_id,
        scoring_columns,
        split_sample_id,
    )

__all__ = [
    "COLUMNS",
    "DEFAULT_TASK",
    "FRACTIONS",
    "QUESTION_ALIASES",
    "CostUnit",
    "Missing",
    "Outcome",
    "OutcomeGrid",
    "OutcomeTable",
    "Question",
    "Spending",
    "Split",
    "costs_of",
    "prices_of",
    "question_of",
    "read_questions",
    "sample_id",
    "scoring_columns",
    "spending_in",
    "split_of",
    "split_sample_id",
]


def __getattr__(name: str) -> Any:
    """Import a name of `tables` on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.tables"), name)

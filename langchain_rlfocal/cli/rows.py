"""Rows: which rows of the given tables a command takes, and the embedder that describes their queries."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from langchain_rlfocal.embedders import load_embedder
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.outcomes.outcome_table import Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Which rows of the tables count; see `OutcomeTable.grid`.

    Attributes:
        task: The tasks to take, with wildcards; None or empty takes all.
        missing: What to do with a query that a member did not answer.
        test_ids: Which `query_id`s are test rows, with wildcards; None leaves the split to the text.
    """

    task: Sequence[str] | None = None
    missing: Missing = "drop"
    test_ids: str | None = None


def read_rows(outcomes: Sequence[Path], members: Sequence[str] | None, rows: Rows) -> OutcomeGrid:
    """Read tables and lay out the rows that count; without named members, those of everyone.

    Raises:
        OutcomeError: A table breaks a rule, or nothing is left.
        PoolError: A member is not in the tables, or named twice.
    """
    table = OutcomeTable.read(*outcomes)
    return table.grid(members or table.members, **{**asdict(rows), "task": rows.task or None})


def see_working_folder() -> None:
    """Let a user's own module be imported: a console script does not see the folder that it is started in."""
    sys.path.insert(0, str(Path.cwd()))


def open_embedder(name: str | None) -> Embedder | None:
    """Load a named embedder; None for no name.

    Raises:
        InputError: There is no such embedder.
        MissingDependencyError: Its package is not installed.
    """
    if name is not None and ":" in name:
        see_working_folder()
    return None if name is None else load_embedder(name)

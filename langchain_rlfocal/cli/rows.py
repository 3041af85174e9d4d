"""Rows: which rows of the given tables a command takes, and the embedder that describes their queries."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_rlfocal.answers import KindLike, to_kind
from langchain_rlfocal.embedders import load_embedder
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.outcomes import Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Which rows of the tables count; see `OutcomeTable.grid`.

    Attributes:
        task: The tasks to take, with wildcards; None or empty takes all.
        missing: What to do with a query that a member did not answer.
        test_ids: Which `query_id`s are test rows, with wildcards; None leaves the split to the text.
        kind: What counts as the same answer, to label recorded responses anew; None keeps the recorded answers.
    """

    task: Sequence[str] | None = None
    missing: Missing = "drop"
    test_ids: str | None = None
    kind: str | None = None


def read_rows(outcomes: Sequence[Path], members: Sequence[str] | None, rows: Rows) -> OutcomeGrid:
    """Read tables and lay out the rows that count; without named members, those of everyone.

    Raises:
        OutcomeError: A table breaks a rule, or nothing is left.
        PoolError: A member is not in the tables, or named twice.
    """
    table = OutcomeTable.read(*outcomes)
    if rows.kind is not None:
        table = table.relabelled(open_kind(rows.kind))
    return table.grid(members or table.members, task=rows.task or None, missing=rows.missing, test_ids=rows.test_ids)


def see_working_folder() -> None:
    """Let a user's own module be imported: a console script does not see the folder that it is started in."""
    sys.path.insert(0, str(Path.cwd()))


def open_kind(name: str) -> KindLike:
    """Find a kind of answer: by its name, or as package.module:attribute.

    Raises:
        InputError: There is no such kind, or what is named is none.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return to_kind(name)
    see_working_folder()
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's may raise anything
        raise InputError(f"`--kind {name}` must name a kind or a function that can be imported: {error}.") from error
    return to_kind(found)


def open_embedder(name: str | None) -> Embedder | None:
    """Load a named embedder; None for no name.

    Raises:
        InputError: There is no such embedder.
        MissingDependencyError: Its package is not installed.
    """
    if name is not None and ":" in name:
        see_working_folder()
    return None if name is None else load_embedder(name)

"""Diversity: how differently the members of a pool fail on recorded outcomes, and which teams that speaks for.

Everything is measured on the very outcomes that it is chosen from, so the best of many teams looks better than it is. It
asks no model anything and writes no file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.cli.terminal import output, progress_bar
from langchain_rlfocal.diversity import (
    TeamDiversities,
    all_teams,
    fleiss_kappa,
    largest_team_size,
    pairwise_focal_diversity,
    team_diversities,
)
from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
from langchain_rlfocal.redaction import printable

_RIGHT = 0.5
"""Least score of a right answer."""

_MAX_TEAMS = 2**14
"""Teams that are measured at most: all of a pool of 14 members."""

_MEASURES = {
    "accuracy": ("mean accuracy of the members", ""),
    "plurality_accuracy": ("plurality accuracy", ""),
    "focal": ("focal diversity", "diversity"),
    "adjusted": ("focal diversity, accuracy-adjusted", "diversity"),
    "generalized": ("generalised diversity", "diversity"),
    "disagreement": ("disagreement, mean of pairs", "diversity"),
    "entropy": ("entropy E", "diversity"),
    "kappa": ("kappa, mean of pairs", "agreement"),
    "fleiss_kappa": ("Fleiss' kappa of right and wrong", "agreement"),
    "fleiss_kappa_of_answers": ("Fleiss' kappa of answers", "agreement"),
    "yule_q": ("Yule's Q, mean of pairs", "agreement"),
    "phi": ("phi, mean of pairs", "agreement"),
    "double_fault": ("double fault, mean of pairs", "agreement"),
}
"""What each measure is called, and what it grows with."""

_TEAM_MEASURES = tuple(name for name in _MEASURES if name != "fleiss_kappa_of_answers")

# Measure to heading: what the best teams are chosen by, and what is shown of them.
_CHOSEN_BY = {"focal": "focal", "adjusted": "adjusted", "plurality_accuracy": "plurality"}
_SHOWN = {"accuracy": "accuracy", "plurality_accuracy": "plurality", "focal": "focal", "adjusted": "adjusted"}
_COLUMNS = 12
"""Columns of a table of pairs that fit on a terminal; more members make more tables."""


def run_diversity(
    outcomes: Sequence[Path],
    members: Sequence[str] | None,
    *,
    task: str | Sequence[str] | None = None,
    as_json: bool = False,
) -> None:
    """Print how differently the members fail: as tables for people, or as one JSON object.

    Args:
        outcomes: Tables of outcomes.
        members: The pool; None or empty takes every member of the tables.
        task: The tasks to take, as `OutcomeTable.grid` takes them.
        as_json: True prints JSON, with every team that was measured.

    Raises:
        OutcomeError: A table breaks a rule, or no query was answered by all members.
        PoolError: A member is not in the tables, or named twice.
    """
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        table = OutcomeTable.read(*outcomes)
        grid = table.grid(members or table.members, task=task)
        progress.update(bar, advance=1, description="Measuring")
        facts = measure(grid)
        progress.update(bar, advance=1)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))
        return
    stdout = output()
    for part in _shown(facts):
        stdout.print(part)


def measure(grid: OutcomeGrid) -> dict[str, Any]:
    """Measure the members of a grid, their pairs and their teams.

    Members are ranked by accuracy, so that a tie in a vote goes to the best of the tied, as in `evaluation.Plurality`.

    Returns:
        Plain values for JSON: `queries`, `dropped`, `right_from`, `members` (best first, each with its accuracy), `pool`
        (each measure with its value and what it grows with, None where that is neither), `pairs` (the focal diversity of
        two members, rows and columns as `members`), `max_team_size`, `teams` (all up to that size), and `best_teams` (of
        each size, with `best_by`, the measures by which they are).
    """
    accuracies = (grid.scores >= _RIGHT).mean(axis=0)
    ranked = np.argsort(-accuracies, kind="stable")
    names = [grid.members[member] for member in ranked]
    correct, answer_ids = grid.scores[:, ranked] >= _RIGHT, grid.answer_ids[:, ranked]
    max_size = largest_team_size(len(names), max_teams=_MAX_TEAMS)
    measured = team_diversities(correct, teams=all_teams(len(names), max_size=max_size), answer_ids=answer_ids)
    whole = team_diversities(correct, teams=np.ones((1, len(names)), dtype=bool), answer_ids=answer_ids)
    pool = _team(whole, 0, names) | {"fleiss_kappa_of_answers": fleiss_kappa(_shared_codes(grid))}
    return {
        "queries": len(grid),
        "dropped": grid.dropped,
        "right_from": _RIGHT,
        "members": [{"name": name, "accuracy": float(accuracies[m])} for name, m in zip(names, ranked, strict=True)],
        "pool": {
            name: {"value": pool[name], "grows_with": grows_with or None} for name, (_, grows_with) in _MEASURES.items()
        },
        "pairs": pairwise_focal_diversity(correct).tolist(),
        "max_team_size": max_size,
        "best_teams": [{"best_by": by, **_team(measured, index, names)} for index, by in _best(measured).items()],
        "teams": [_team(measured, index, names) for index in range(len(measured.teams))],
    }


def _shared_codes(grid: OutcomeGrid) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Number the answers by their text, alike in all queries: options A to J are categories that queries share."""
    codes: dict[str | None, int] = {}
    return np.array([[codes.setdefault(text, len(codes)) for text in row] for row in grid.answers], dtype=np.intp)


def _team(measured: TeamDiversities, index: int, names: Sequence[str]) -> dict[str, Any]:
    members = [names[member] for member in np.flatnonzero(measured.teams[index]).tolist()]
    return {"members": members, **{name: float(getattr(measured, name)[index]) for name in _TEAM_MEASURES}}


def _best(measured: TeamDiversities) -> dict[int, list[str]]:
    """Find the best teams of each size, with the measures by which they are; of equals, the first in the members' order.

    All teams of one have the same diversity, and only their accuracy tells them apart.
    """
    best: dict[int, list[str]] = {}
    for size in np.unique(measured.sizes):
        index = np.flatnonzero(measured.sizes == size)
        for name in _CHOSEN_BY:
            if size > 1 or name == "plurality_accuracy":
                first = index[getattr(measured, name)[index].argmax()]
                best.setdefault(int(first), []).append(name)
    return best


def _shown(facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Lay out the facts for a terminal of 80 columns; members are named once and then go by their number."""
    numbers = {member["name"]: str(number) for number, member in enumerate(facts["members"], start=1)}
    yield _member_table(facts, numbers)
    yield ""
    yield _pool_table(facts)
    yield ""
    if len(numbers) > 1:
        for start in range(0, len(numbers), _COLUMNS):
            yield _pair_table(facts, columns=range(start, min(start + _COLUMNS, len(numbers))))
            yield ""
    yield _team_table(facts, numbers)
    yield ""
    if facts["max_team_size"] < len(numbers):
        limit = facts["max_team_size"]
        yield Text(f"Teams of more than {limit} of the {len(numbers)} members are not measured: too many.", "yellow")
    if facts["dropped"]:
        yield Text(f"{facts['dropped']} queries are left out, because a member did not answer them.", "yellow")
    yield Text(f"An answer is right from a score of {facts['right_from']}. Compare teams of equal size only.")
    yield Text("Teams were chosen on the queries that measure them: confirm a choice on others.")


def _member_table(facts: Mapping[str, Any], numbers: Mapping[str, str]) -> RenderableType:
    table = _table("", "member", "accuracy")
    table.columns[1].justify = "left"
    for member in facts["members"]:
        table.add_row(numbers[member["name"]], Text(printable(member["name"])), f"{member['accuracy']:.3f}")
    return _titled(f"Members on {facts['queries']:,} queries", table)


def _pool_table(facts: Mapping[str, Any]) -> RenderableType:
    table = _table("measure", "value", "grows with")
    table.columns[-1].justify = "left"
    for name, measured in facts["pool"].items():
        table.add_row(_MEASURES[name][0], _figure(measured["value"]), measured["grows_with"] or "")
    return _titled("The whole pool as one team", table)


def _pair_table(facts: Mapping[str, Any], *, columns: range) -> RenderableType:
    table = _table("", *(str(column + 1) for column in columns))
    for row, values in enumerate(facts["pairs"]):
        cells = ("-" if row == column else _figure(values[column], 2) for column in columns)
        table.add_row(str(row + 1), *cells)
    return _titled("Focal diversity of pairs", table)


def _team_table(facts: Mapping[str, Any], numbers: Mapping[str, str]) -> RenderableType:
    table = _table("team", *_SHOWN.values(), "best by")
    table.columns[-1].justify = "left"
    for team in facts["best_teams"]:
        by = ", ".join(_CHOSEN_BY[name] for name in team["best_by"])
        figures = (_figure(team[name]) for name in _SHOWN)
        table.add_row(" ".join(numbers[name] for name in team["members"]), *figures, by)
    return _titled("Best teams of each size", table)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _titled(title: str, table: Table) -> RenderableType:
    """Put a title above a table; the table's own would be folded to its width."""
    return Group(Text(title, "bold"), table)


def _figure(value: float, places: int = 3) -> str:
    return f"{value:z.{places}f}"

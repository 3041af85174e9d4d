"""Terminal: the consoles and progress bars of the command line, and what a report looks like on them.

What a program may read goes to stdout, everything else to stderr. Tables are made here and printed elsewhere; a terminal
of 80 columns is enough for them. Names are data: they neither style nor steer the terminal.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.evaluation import Report

_SHOWN = ("", "score", "95 %", "macro", "calls", "policy − this")
"""The columns of a report that fit; `Report.as_dict` has all."""

_SHOWN_PER_TASK = ("policy", "single_best", "plurality", "best_fixed_team", "supervised_fusion", "oracle")
"""Ways of answering whose scores per task fit."""

WITHOUT_FUSION = (
    "Without the baseline supervised fusion: training fits it where scikit-learn is installed "
    "(`pip install 'langchain-rlfocal[evaluation]'`)."
)
"""Why one baseline may be missing; no markup."""


def output() -> Console:
    """Return the console of stdout."""
    return Console(highlight=False)


def messages() -> Console:
    """Return the console of stderr."""
    return Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """Return a progress bar on stderr where that is a terminal; it leaves nothing behind."""
    console = messages()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def json_text(value: Mapping[str, Any]) -> str:
    """Write one JSON object for stdout."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def report_table(report: "Report", *, title: str) -> Table:
    """Show the policy beside the baselines: score and difference with their intervals, and calls."""
    from langchain_rlfocal.evaluation import HEADER  # who only asks for help does not wait for NumPy

    table = _plain_table(title)
    shown = [index for index, name in enumerate(HEADER) if name in _SHOWN]
    for index in shown:
        # The sign is told from the figure below; the heading would be wider than both.
        heading = HEADER[index].replace(" − ", "\n− ")
        table.add_column(heading, justify="right" if index else "left", no_wrap=bool(index))
    for row in report.table():
        name, *figures = (row[index] for index in shown)
        table.add_row(name.replace("_", " "), *figures, style="bold" if name == "policy" else None)
    return table


def task_table(report: "Report") -> Table:
    """Show the scores on each task, of the policy and the baselines that say most, and their mean over tasks."""
    ways = [way for way in _SHOWN_PER_TASK if way == "policy" or way in report.baselines]
    table = _plain_table("Score per task")
    table.add_column("task", overflow="fold")
    for heading in ("n", *ways):
        table.add_column(heading.replace("_", "\n"), justify="right", no_wrap=True)
    for task, scores in report.per_task.items():
        table.add_row(Text(printable(task)), f"{scores['n']:.0f}", *(f"{scores[way]:.3f}" for way in ways))
    if len(report.per_task) > 1:
        means = [report.policy if way == "policy" else report.baselines[way] for way in ways]
        table.add_row("mean of tasks", "", *(f"{figures.macro:.3f}" for figures in means), style="bold")
    return table


def _plain_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))

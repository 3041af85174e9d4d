"""Terminal: the consoles and progress bars of the command line, and what a report looks like on them.

What a program may read goes to stdout, everything else to stderr. Tables are made here and printed elsewhere; a terminal
of 80 columns is enough for them. Names are data: they neither style nor steer the terminal.
"""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.foreign_text import printable

if TYPE_CHECKING:
    from langchain_rlfocal.evaluation import Report

_SHOWN = ("", "score", "95 %", "calls", "policy − this")
"""The columns of a report that fit; `Report.as_dict` has all."""


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


def report_table(report: "Report", *, title: str) -> Table:
    """Show the policy beside the baselines: score and difference with their intervals, and calls."""
    from langchain_rlfocal.evaluation import HEADER  # who only asks for help does not wait for NumPy

    table = _plain_table(title)
    shown = [index for index, name in enumerate(HEADER) if name in _SHOWN]
    for index in shown:
        table.add_column(HEADER[index], justify="right" if index else "left", no_wrap=True)
    for row in report.table():
        name, *figures = (row[index] for index in shown)
        table.add_row(name.replace("_", " "), *figures, style="bold" if name == "policy" else None)
    return table


def task_table(report: "Report") -> Table:
    """Show the scores on each task, of the policy and the baselines."""
    ways = ["policy", *(name for name in report.baselines if name != "random_team")]
    table = _plain_table("Score per task")
    table.add_column("task", overflow="fold")
    for heading in ("n", *ways):
        table.add_column(heading.replace("_", " "), justify="right")
    for task, scores in report.per_task.items():
        table.add_row(Text(printable(task)), f"{scores['n']:.0f}", *(f"{scores[way]:.3f}" for way in ways))
    return table


def _plain_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))

"""How a training shows what it does: a live table on a terminal, plain lines now and then where stderr is piped."""

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import fmean
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.cli.views import messages

if TYPE_CHECKING:
    from langchain_rlfocal.training import Progress as Step

SHOWN = {
    "reward": ("reward", "{:.3f}"),
    "validation": ("validation", "{:.3f}"),
    "calls": ("calls", "{:.2f}"),
    "approx_kl": ("approx. KL", "{:.4f}"),
    "clip_fraction": ("clip fraction", "{:.3f}"),
    "entropy": ("entropy", "{:.3f}"),
    "explained_variance": ("explained variance", "{:.3f}"),
}
"""Metrics that are shown, of all that there are, with their headings."""

_HEIGHTS, _TREND = "▁▂▃▄▅▆▇█", 34


class TrainingView:
    """Shows the stages and iterations of a training on stderr.

    Args:
        title: What is trained, before the stage; empty for a training alone.
        is_brief: Whether nothing of it stays, and nothing is said where stderr is piped: one of many trainings.
    """

    def __init__(self, title: str = "", *, is_brief: bool = False) -> None:
        self._console, self._title, self._is_brief = messages(), f"{title}: " if title else "", is_brief
        self._history: dict[str, list[float]] = {name: [] for name in SHOWN}
        self._best: tuple[float, int] | None = None
        self._stage = ""
        self._open = ExitStack()
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(f"{self._title}reading outcomes", total=None)

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._open.enter_context(self._live)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the table behind where there is one."""
        self._open.close()
        if self._live is not None and any(self._history.values()) and not self._is_brief:
            self._console.print(self._table())

    def __call__(self, step: "Step") -> None:
        """Show where training stands."""
        if step.stage != self._stage:
            self._stage = step.stage
            self._bar.update(self._task, description=f"{self._title}{step.stage}", total=step.total_steps)
            if self._live is None:
                self._say(f"{self._title}{step.stage}")
        self._bar.update(self._task, completed=step.step)
        for name, values in self._history.items():
            if name in step.metrics:
                values.append(step.metrics[name])
        if "validation" in step.metrics:
            if self._best is None or step.metrics["best_validation"] > self._best[0]:
                self._best = step.metrics["best_validation"], step.step
            if self._live is None:
                self._say(f"{self._title}iteration {step.step} of {step.total_steps}: {_in_words(step.metrics)}")

    def _say(self, text: str) -> None:
        if not self._is_brief:
            self._console.print(text, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        return Group(self._bar, self._table()) if any(self._history.values()) else self._bar

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column(no_wrap=True, style="dim")
        for name, (heading, form) in SHOWN.items():
            values = self._history[name]
            note = ""
            if name == "validation" and self._best is not None:
                note = f"best {self._best[0]:.3f}"
            if values:
                # Each third iteration plays new tasks, and earns less: the trend is that of three together.
                line = (
                    values
                    if name == "validation"
                    else [fmean(values[max(i - 2, 0) : i + 1]) for i in range(len(values))]
                )
                trend = "" if self._console.options.ascii_only else trend_of(line)
                table.add_row(heading, Text(form.format(values[-1]), "bold"), trend, note)
        return table


def _in_words(metrics: Mapping[str, float]) -> str:
    shown = [
        f"{heading} {form.format(metrics[name])}"
        + (f" (best {metrics['best_validation']:.3f})" if name == "validation" else "")
        for name, (heading, form) in SHOWN.items()
        if name in metrics
    ]
    return ", ".join(shown)


def trend_of(values: list[float], *, width: int = _TREND) -> str:
    """Draw a line of blocks from the least to the largest value; of more values than fit, means of neighbours."""
    count = min(len(values), width)
    parts = [values[len(values) * i // count : len(values) * (i + 1) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    if not high > low:
        return _HEIGHTS[0] * count
    return "".join(_HEIGHTS[round((mean - low) / (high - low) * (len(_HEIGHTS) - 1))] for mean in means)

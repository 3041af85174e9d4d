"""What `rlfocal collect` shows while it asks: a live table on a terminal, a line now and then where nobody watches one."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from langchain_rlfocal.cli.views import counted, usd
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.collection import JobPrice, MemberTally, Tally

EVERY_S = 30.0
"""A line is printed at least so often where nobody watches a terminal."""

EVERY_SHARE, LEAST_S = 0.1, 2.0
"""So is one for each tenth of the work, but not more often than this."""

NAME_CHARS = 20


class CollectView:
    """Shows a collection on a console; a context manager.

    Args:
        console: Where to.
        clock: Gives seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._tally: Tally | None = None
        self._started_s = self._said_s = clock()
        self._said_share = 0.0
        self._trouble: str | None = None
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(get_renderable=self._shown, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line, above the live table where there is one."""
        self._console.print(printable(line), style=style, markup=False, soft_wrap=True)

    def __call__(self, tally: "Tally") -> None:
        """Take in a change."""
        if self._tally is None:
            self._started_s = self._said_s = self._clock()
            self._tally = tally
            self._begin(tally)
            return
        if tally.trouble != self._trouble:
            self._trouble = tally.trouble
            self.say(f"Nobody is asked: {tally.trouble} It is tried again." if tally.trouble else "The log is back.")
        if self._live is not None:
            return
        now_s, share = self._clock(), _share_of(tally)
        since_s = now_s - self._said_s
        if since_s >= EVERY_S or (share - self._said_share >= EVERY_SHARE and since_s >= LEAST_S):
            self._said_s, self._said_share = now_s, share
            self.say(self._line(tally))

    def summary(self, tally: "Tally") -> str:
        """Say in one line what has come of it."""
        answered, failed, elsewhere = (tally.sum(name) for name in ("answered", "failed", "elsewhere"))
        if not answered + failed:
            return "Nothing was asked: " + ("others asked what was left." if elsewhere else "all is on record.")
        parts = [f"{answered:,} answered", f"{failed:,} failed"]
        if elsewhere:
            parts.append(f"{elsewhere:,} answered by other runs")
        parts.append(f"{tally.sum('prompt_tokens') + tally.sum('completion_tokens'):,} tokens")
        parts.append(usd(tally.usd) if tally.usd else "price unknown" if tally.sum("unpriced") else usd(0.0))
        return f"In {_duration(self._elapsed_s)}: {', '.join(parts)}."

    def _begin(self, tally: "Tally") -> None:
        total, held = tally.sum("total"), tally.sum("on_record")
        had = f", {held:,} on record already" if held else ""
        self._said_share = _share_of(tally)
        self.say(f"Collecting {counted(total, 'answer')} of {counted(len(tally.members), 'member')}{had}.")

    # ---- one line

    def _line(self, tally: "Tally") -> str:
        done, total, failed = tally.sum("done"), tally.sum("total"), tally.sum("failed")
        parts = [f"{done:,} of {total:,} ({_share_of(tally):.0%})"]
        if failed:
            parts.append(f"{failed:,} failed")
        parts.append(f"{tally.sum('prompt_tokens') + tally.sum('completion_tokens'):,} tokens")
        if tally.usd:
            parts.append(usd(tally.usd))
        left_s = max((_left_s(member, self._elapsed_s) or 0.0 for member in tally.members.values()), default=0.0)
        if left_s:
            parts.append(f"about {_duration(left_s)} left")
        waits = [f"{m.name} waits for {m.waits_for}" for m in tally.members.values() if m.waits_for]
        return f"{', '.join(parts)}{'; ' if waits else ''}{', '.join(waits)}"

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._started_s

    # ---- the live table

    def _shown(self) -> RenderableType:
        tally = self._tally
        if tally is None:
            return Text("")
        done, total = tally.sum("done"), tally.sum("total")
        left_s = max((_left_s(member, self._elapsed_s) or 0.0 for member in tally.members.values()), default=0.0)
        everyone = (
            f"{done:,}/{total:,}",
            f"{tally.sum('failed'):,}",
            _short(tally.sum("prompt_tokens") + tally.sum("completion_tokens")),
            usd(tally.usd),
            _duration(left_s) if left_s else "",
        )
        rows = [self._cells(member) for member in tally.members.values()]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("", no_wrap=True, overflow="ellipsis", max_width=NAME_CHARS)
        for column, heading in enumerate(("done", "failed", "tokens", "dollars", "left")):
            # Numbers are never cut: where the terminal is narrow, names are.
            width = max(len(heading), len(everyone[column]), *(len(row[column]) for row in rows))
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)
        table.add_column("", overflow="ellipsis", no_wrap=True)
        for member, row in zip(tally.members.values(), rows, strict=True):
            table.add_row(Text(printable(member.name)), *row, Text(printable(_state(member)), "dim"))
        state = Text(f"{_share_of(tally):.0%} in {_duration(self._elapsed_s)}", "dim")
        table.add_row("all", *everyone, state, style="bold")
        lines = [Text(printable(tally.trouble), "red")] if tally.trouble else []
        return Group(table, *lines)

    def _cells(self, member: "MemberTally") -> Sequence[str]:
        left_s = _left_s(member, self._elapsed_s)
        is_known = member.usd or not member.unpriced
        return (
            f"{member.done:,}/{member.total:,}",
            f"{member.failed:,}",
            _short(member.prompt_tokens + member.completion_tokens),
            usd(member.usd) if is_known else "?",
            "" if left_s is None else _duration(left_s),
        )


def _state(member: "MemberTally") -> str:
    if member.given_up:
        return "given up"
    if member.waits_for:
        return member.waits_for.removeprefix("its ").removeprefix("the ")
    return f"{member.in_flight} out" if member.in_flight else ""


def _share_of(tally: "Tally") -> float:
    total = tally.sum("total")
    return tally.sum("done") / total if total else 1.0


def _left_s(member: "MemberTally", elapsed_s: float) -> float | None:
    """Estimate when a member is done, by its pace in this run; None where that is unknown, or nothing is left."""
    num, left = member.answered + member.failed, member.total - member.done
    if not num or left <= 0 or member.given_up:
        return None
    return elapsed_s / num * left


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1000:,.0f}k" if number < 10_000_000 else f"{number / 1e6:,.1f}M"


# ---- what it will take


def price_views(price: "JobPrice", *, output_tokens: int) -> Sequence[RenderableType]:
    """Show what a collection will take."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("calls", "on record", "prompt\ntokens", "tokens of\nan answer", "dollars"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    rows = [*price.members, *([price.judge] if price.judge else [])]
    for one in rows:
        is_judge = one is price.judge
        table.add_row(
            Text(printable(one.name) + (" (judge)" if is_judge else "")),
            f"{one.calls:,}",
            "" if is_judge else f"{one.on_record:,}",
            "" if one.prompt_tokens is None else f"{one.prompt_tokens:,}",
            "" if one.output_tokens is None else f"{one.output_tokens:,}",
            usd(one.usd),
            Text(one.basis or "", "dim"),
        )
    table.add_row("all", f"{sum(one.calls for one in rows):,}", "", "", "", usd(price.usd), style="bold")
    views: list[RenderableType] = [table, ""]
    if any(one.basis == "assumed" and one.calls for one in price.members):
        views.append(
            Text(
                f"Assumed: {output_tokens} tokens an answer, since nothing is on record and no `max_tokens` is set. "
                "Give `--output-tokens`."
            )
        )
    if price.unpriced:
        views.append(
            Text(
                f"Prices of {printable(', '.join(price.unpriced))} are unknown, and not in the total. Give them in the pool "
                "file, or `--unpriced-as` dollars a call.",
                "yellow",
            )
        )
    views.append(Text("Nobody was asked. Tokens are estimates, and so are the dollars."))
    return views

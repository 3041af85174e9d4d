"""Commands on a log of outcomes: `log verify`, `stats`, `export`, `scrub`, `prune`."""

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_rlfocal.cli.options import FAILED, Json, end_with, show_result
from langchain_rlfocal.cli.views import usd
from langchain_rlfocal.errors import InputError, OutcomeLogError

if TYPE_CHECKING:
    from langchain_rlfocal.log import OutcomeLog

Log = Annotated[str, typer.Argument(help="Outcome log: the path of a file, or postgresql://user@host/database.")]
Before = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="What was recorded before this date (UTC)."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]

log = typer.Typer(
    no_args_is_help=True,
    help="Look into a log of outcomes, make tables of it, and take out what it should not keep.",
)


@log.command()
def verify(log: Log, *, as_json: Json = False) -> None:
    """Find records that were changed or have vanished since they were added.

    Exit code 1 says that there are some.

    Example: rlfocal log verify outcomes.db
    """
    from langchain_rlfocal.log import upkeep

    found = upkeep.verify(_open(log))
    facts = {
        "log": log_name(log),
        "ok": not found.problems,
        "records": dict(found.records),
        "problems": [
            {"kind": one.kind, "first": one.number, "last": one.last, "what": one.what} for one in found.problems
        ],
    }
    total = sum(found.records.values())

    def views() -> Iterator[Any]:
        for one in found.problems:
            numbers = f"{one.number}" if one.number == one.last else f"{one.number} to {one.last}"
            yield f"{one.kind} {numbers}: {one.what}"
        if not found.problems:
            yield f"{total:,} records are as they were added, and none has vanished."

    show_result(facts, views(), as_json=as_json)
    if found.problems:
        end_with(
            f"{len(found.problems):,} findings in {total:,} records of {log_name(log)}. What `log export` makes of them cannot be relied on: "
            "restore the log from a copy.",
            code=FAILED,
        )


@log.command()
def stats(log: Log, *, as_json: Json = False) -> None:
    """Count records, members, runs, failures and dollars.

    Example: rlfocal log stats outcomes.db --json
    """
    from langchain_rlfocal.log import upkeep

    facts = upkeep.stats(_open(log))
    show_result(facts, _stats_views(facts), as_json=as_json)


@log.command()
def export(
    log: Log,
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to write: .parquet, .jsonl or .csv.")],
    as_json: Json = False,
) -> None:
    """Write a table of outcomes to train on: what was collected, and what was served with what users said of it.

    An answer that nobody scored is unscored. What was served without a task label has the task "served".

    Example: rlfocal log export outcomes.db --out outcomes.parquet
    """
    from langchain_rlfocal.log.tables import table_of
    from langchain_rlfocal.outcomes.files import check_writable

    check_writable(out)
    table = table_of(_open(log))
    if not len(table):
        raise OutcomeLogError(
            f"The outcome log {log_name(log)} holds no answers yet. Collect some (`rlfocal collect --log`), or serve some with "
            f"`outcome_log={log_name(log)!r}`."
        )
    table.write(out)
    scored = sum(outcome.reward is not None for outcome in table)
    facts = {"out": str(out), "outcomes": len(table), "members": list(table.members), "scored": scored}
    line = f"{len(table):,} outcomes of {len(table.members)} members in {out}, {scored:,} of them scored"
    show_result(facts, iter([line]), as_json=as_json)


@log.command()
def scrub(
    log: Log,
    *,
    task: Annotated[list[str] | None, typer.Option(help='A task, once for each. Wildcards as in "support/*".')] = None,
    query_id: Annotated[
        list[str] | None, typer.Option(help="Id of a question or served answer, once for each.")
    ] = None,
    before: Before = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take texts of questions and answers out for good; rewards, costs and which answers are equal stay.

    Of several options all must hold. The log still verifies.

    Example: rlfocal log scrub outcomes.db --task "support/*" --before 2026-01-01
    """
    from langchain_rlfocal.log import upkeep

    what = upkeep.Scrubbing(tasks=tuple(task or ()), query_ids=tuple(query_id or ()), before=_seconds(before))
    opened = _open(log)
    plan = upkeep.scrub(opened, what, dry_run=True)
    if _goes_on(plan, "lose their texts", log, yes=yes, as_json=as_json):
        _report(upkeep.scrub(opened, what), "lost their texts", log, as_json=as_json)


@log.command()
def prune(
    log: Log,
    *,
    before: Before,
    unlearned: Annotated[
        bool, typer.Option("--unlearned", help="Also feedback that no snapshot of what was learned holds yet.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete attempts, and served answers with their feedback, that are older than a date.

    The log keeps a record of how many were deleted, and still verifies.

    Example: rlfocal log prune outcomes.db --before 2026-01-01
    """
    from langchain_rlfocal.log import upkeep

    at = _seconds(before)
    assert at is not None, "required"
    opened = _open(log)
    plan = upkeep.prune(opened, at, unlearned=unlearned, dry_run=True)
    if _goes_on(plan, "be deleted", log, yes=yes, as_json=as_json):
        _report(upkeep.prune(opened, at, unlearned=unlearned), "were deleted", log, as_json=as_json)


# ---- what they share


def _open(place: str) -> "OutcomeLog":
    """Open a log that is there."""
    from langchain_rlfocal.log import OutcomeLog

    if "://" not in place and not Path(place).is_file():
        raise OutcomeLogError(f"The outcome log {place} must exist. Check the path.")
    return OutcomeLog(place)


def log_name(place: str) -> str:
    """Name a log without its password."""
    from langchain_rlfocal.log.places import Place

    return Place.of(place).name if "://" in place else place


def _seconds(date: datetime | None) -> float | None:
    return None if date is None else date.replace(tzinfo=UTC).timestamp()


def _goes_on(plan: Mapping[str, int], what: str, place: str, *, yes: bool, as_json: bool) -> bool:
    """Say what would be done, and tell whether to do it."""
    if not plan:
        _report(plan, what, place, as_json=as_json)
        return False
    would = f"{_counted(plan)} in {log_name(place)} would {what}"
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"{would}, for good. Add --yes to do it.")
    return typer.confirm(f"{would}, for good. Go on?", err=True)


def _report(done: Mapping[str, int], what: str, place: str, *, as_json: bool) -> None:
    line = (
        f"{_counted(done)} in {log_name(place)} {what}."
        if done
        else f"Nothing in {log_name(place)} fits: nothing was done."
    )
    show_result({"log": log_name(place), "records": dict(done)}, iter([line]), as_json=as_json)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind if number != 1 else kind.removesuffix('s')}" for kind, number in counts.items())


def _stats_views(facts: Mapping[str, Any]) -> Iterator[Any]:
    from rich.table import Table

    records = ", ".join(f"{number:,} {kind}" for kind, number in facts["records"].items() if number)
    yield f"{facts['log']}: {records or 'no records'}"
    if facts["first_at"] is not None:
        yield f"from {_time(facts['first_at'])} to {_time(facts['last_at'])}, {facts['size_bytes'] / 1e6:,.1f} MB, version {facts['version']}"
    if facts["members"]:
        table = Table("member", box=None)
        for name in ("answers", "failures", "dollars"):
            table.add_column(name, justify="right")
        for name, of in facts["members"].items():
            table.add_row(name, f"{of['answers']:,}", f"{of['failures']:,}", usd(of["usd"]))
        yield table
    if facts["failures"]:
        yield "failures: " + ", ".join(f"{kind} {number:,}" for kind, number in facts["failures"].items())
    if facts["runs"]:
        runs = facts["runs"]
        yield f"{len(runs):,} runs, the last at {_time(max(run['last_at'] for run in runs.values()))}"
    yield f"dollars: {usd(facts['asking_usd'])} for asking, {usd(facts['scoring_usd'])} for scoring"
    if facts["scrubbed"] or facts["dropped"]:
        yield f"{facts['scrubbed']:,} records without their texts, {facts['dropped']:,} answers not recorded"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

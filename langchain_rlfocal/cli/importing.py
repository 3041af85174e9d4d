"""The command `import`: tables of outcomes from what other programs recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_rlfocal.cli.options import Json, KindName, open_kind, show_result
from langchain_rlfocal.cli.views import messages
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from langchain_rlfocal.importing import ImportReport

_MAX_MEMBERS = 40


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="auto, lm-eval, inspect, promptfoo, helm, langsmith, langfuse, mlflow, litellm, openrouter, llm, openai-batch, "
            "long or wide."
        ),
    ],
    files: Annotated[list[Path], typer.Argument(help="Files, folders or patterns; .gz is read too.")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to write: .parquet, .jsonl or .csv.")],
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=FIELD",
            help="Where a column stands, once for each: query=prompt, gold=meta.answer.",
        ),
    ] = None,
    reward: Annotated[str | None, typer.Option(help="Which score is the reward, where there are several.")] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Least and greatest reward there are, which become 0 and 1.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task of everything; default: what the files say.")] = None,
    model: Annotated[str | None, typer.Option(help="The member's name; default: what the files say.")] = None,
    member: Annotated[list[str] | None, typer.Option(help="A member's column in a wide table, once for each.")] = None,
    values: Annotated[
        str | None, typer.Option(help="What the columns of a wide table hold: answers or rewards.")
    ] = None,
    kind: KindName = None,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Label answers that the program did not extract; takes time.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Import what another program recorded as a table of outcomes.

    Nothing is asked, and nothing is scored: what has no score is unscored.

    What is left out is counted, with a reason and the place of the first.

    Examples:
    rlfocal import lm-eval results/ --out outcomes.parquet

    rlfocal import auto logs/*.eval --out outcomes.parquet --reward match

    rlfocal import long a.csv --map query=prompt --scale 1,5 --out o.parquet
    """
    from langchain_rlfocal.importing import import_outcomes

    if values not in {None, "answers", "rewards"}:
        raise InputError(f"`--values` must be answers or rewards, got {values!r}. Choose one.")
    if out.exists() and not overwrite:
        raise InputError(f"`--out` must be a new table, but {out} is there. Give another name, or `--overwrite`.")
    console = messages()
    with console.status("Reading") if console.is_terminal else _nothing() as status:

        def show(read: int) -> None:
            if status is not None:
                status.update(f"Reading: {read:,} rows")

        report = import_outcomes(
            source,
            files,
            out,
            columns=_columns(map_ or []),
            reward=reward,
            scale=None if scale is None else _scale(scale),
            task=task,
            model=model,
            members=member or [],
            values=values,
            kind=None if not labels else "auto" if kind is None else open_kind(kind),
            on_progress=show,
        )
    show_result({**asdict(report), "table": str(out)}, _views(report, out), as_json=as_json)


class _nothing:  # noqa: N801  # stands for the status where no terminal would show it
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _columns(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"`--map` must be COLUMN=FIELD, got {text!r}. Example: query=prompt")
        if name in found:
            raise InputError(f"`--map` must name a column once, got `{name}` twice. Leave one out.")
        found[name] = path
    return found


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    try:
        return float(low), float(high)
    except ValueError:
        raise InputError(f"`--scale` must be LOW,HIGH, got {text!r}. Example: 1,5") from None


def _views(report: "ImportReport", out: Path) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    table = Table("member", title_justify="left", box=None, pad_edge=False)
    for name in ("outcomes", "failures", "scored", "mean reward"):
        table.add_column(name, justify="right")
    for member in report.members[:_MAX_MEMBERS]:
        table.add_row(
            printable(member.name),
            f"{member.rows:,}",
            f"{member.failures:,}",
            f"{member.scored / max(member.rows, 1):.0%}",
            "" if member.mean_reward is None else f"{member.mean_reward:.3f}",
        )
    files = "1 file" if report.files == 1 else f"{report.files:,} files"
    yield Text.assemble(
        (f"{report.kept:,} outcomes", "bold"),
        printable(f" in {out}, from {report.read:,} rows in {files} of {report.source}"),
    )
    yield table
    if len(report.members) > _MAX_MEMBERS:
        yield Text(f"and {len(report.members) - _MAX_MEMBERS} more members")
    counts = ", ".join(f"{count:,} by {num}" for num, count in report.queries.items())
    total = sum(report.queries.values())
    yield Text(
        f"Queries: {total:,} in {len(report.tasks):,} task{'s' * (len(report.tasks) != 1)}; members that have a row: {counts}."
    )
    if report.repeated:
        yield Text(
            f"Repeated: {report.repeated:,} rows of a member and query that another stands for (an answer rather than a failure, a "
            "scored one rather than an unscored one, else the later)."
        )
    for reason, (count, place) in report.skipped.items():
        yield Text(printable(f"Left out {count:,}: {reason} (first: {place})"), "yellow")
    for note, count in report.notes.items():
        yield Text(printable(f"Note: {count:,} × {note}"), "yellow")
    if max(report.queries, default=0) < 2:
        yield Text(
            "No query has answers of two members: there is nothing to choose between. Import the other members' files too.",
            "yellow",
        )
    if report.unscored:
        yield Text(
            printable(
                f"Unscored: {report.unscored:,} outcomes, which is not wrong. To score them: `rlfocal score {out} --questions QUESTIONS`; "
                "or train without: their worth is estimated from who agrees with whom."
            ),
            "yellow",
        )

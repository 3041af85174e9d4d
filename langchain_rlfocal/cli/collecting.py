"""Commands that ask a pool: `collect`, and `questions`, which makes some to ask."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from langchain_rlfocal.cli.options import FAILED, INTERRUPTED, KindName, end_with, open_kind, open_pool
from langchain_rlfocal.cli.views import messages, progress_bar
from langchain_rlfocal.redaction import printable


def collect(
    questions: Annotated[Path, typer.Argument(help="Questions with gold answers: .jsonl, .csv or .parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to make or complete: .parquet, .jsonl or .csv.")],
    pool: Annotated[
        str | None,
        typer.Option(help="`local` (the default), the embedded pool; or package.module:function that returns one."),
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="A member as NAME=provider:model, once for each, instead of a pool.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Questions that are out at the same time.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")] = None,
    kind: KindName = None,
) -> None:
    """Ask every member every question, and record what the answers are worth.

    Run again to go on where it stopped, and to ask again what failed: an answer on record is not asked for again.
    """
    from langchain_rlfocal.collection import Collected, collect_into, is_failure, recorded_in, unfinished_path
    from langchain_rlfocal.outcomes import read_questions

    asked = read_questions(questions)[:limit]
    if kind is not None:
        opened_kind = open_kind(kind)
        asked = [replace(question, kind=opened_kind) for question in asked]
    failed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    in_flight = {} if concurrency is None else {"max_in_flight": concurrency}
    with open_pool(pool, member or []) as opened, progress_bar() as progress:
        held = {(o.task, o.query_id, o.model) for o in recorded_in(out) if not is_failure(o)}
        done = sum(all((q.task, q.query_id, name) in held for name in opened.names) for q in asked)
        bar = progress.add_task(f"Asking {len(opened)} members", total=len(asked), completed=done)

        def show(collected: Collected) -> None:
            tried.update(outcome.model for outcome in collected.outcomes)
            for failure in collected.failures:
                failed[failure.member] += 1
                reasons.setdefault(failure.member, f"{failure.kind}: {failure.reason}")
            progress.advance(bar)

        try:
            table = collect_into(out, opened, asked, on_collected=show, **in_flight)
        except KeyboardInterrupt:
            progress.stop()
            kept = unfinished_path(out)
            where = f"What was answered is in {kept}. " if kept.exists() else ""
            end_with(f"Interrupted. {where}Run the same command again to go on.", code=INTERRUPTED)
    for name, count in failed.items():
        line = f"{name} failed {count} times, recorded as worth 0. First: {reasons[name]}"
        messages().print(printable(line), markup=False, soft_wrap=True)
    typer.echo(f"{len(table):,} outcomes of {len(table.members)} members in {out}")
    silent = [name for name, count in failed.items() if count == tried[name]]
    if silent:
        end_with(
            f"Failed every question asked in this run: {', '.join(silent)}. The table is written; run the same command "
            "again to ask again what failed.",
            code=FAILED,
        )
    if failed:
        messages().print("Run the same command again to ask again what failed.")


def questions(
    *,
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    task: Annotated[
        list[str] | None, typer.Option(help="A task to take, once for each, such as capitals; default: all.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Take so many, evenly over the tasks.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed: the same file.")] = 0,
) -> None:
    """Write the question set on which the shipped policy was trained, or some of it.

    Example: rlfocal questions --task capitals --task arithmetic --count 60 --out questions.jsonl
    """
    from langchain_rlfocal.demo.questions import write_questions

    typer.echo(f"{write_questions(out, seed=seed, tasks=task, count=count)} questions in {out}")

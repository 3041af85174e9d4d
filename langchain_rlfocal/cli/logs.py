"""Commands on a log of outcomes: `export`."""

from pathlib import Path
from typing import Annotated

import typer

from langchain_rlfocal.errors import OutcomeLogError


def export(
    log: Annotated[Path, typer.Argument(help="Outcome log that a model records into (`outcome_log`).")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to write: .parquet, .jsonl or .csv.")],
) -> None:
    """Write what was served, and what users said of it, as a table of outcomes to train on.

    An answer that nobody scored is unscored. A query without a task label has the task "served".
    """
    from langchain_rlfocal.log import OutcomeLog
    from langchain_rlfocal.outcomes import OutcomeTable
    from langchain_rlfocal.outcomes.tables import check_writable

    check_writable(out)
    if not log.is_file():
        raise OutcomeLogError(f"The outcome log {log} must exist. Check the path.")
    outcomes = [*OutcomeLog(log).outcomes()]
    if not outcomes:
        raise OutcomeLogError(
            f"The outcome log {log} holds no answers yet. Serve some with `outcome_log={str(log)!r}`."
        )
    table = OutcomeTable.from_outcomes(outcomes)
    table.write(out)
    scored = sum(outcome.reward is not None for outcome in outcomes)
    typer.echo(f"{len(table):,} outcomes of {len(table.members)} members in {out}, {scored:,} of them scored")

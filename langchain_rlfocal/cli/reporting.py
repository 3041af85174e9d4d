"""Commands that show what a policy is worth: `report`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from langchain_rlfocal.cli.evaluating import ScoredRows, evaluate_rows, read_rows
from langchain_rlfocal.cli.options import (
    CostWeight,
    EmbedderName,
    Json,
    KindName,
    MaxRounds,
    MaxTeam,
    Missing,
    Outcomes,
    TargetCalls,
    TargetSeconds,
    TargetTokens,
    TargetUsd,
    TargetUsdShare,
    Task,
    limits_of,
    object_of,
    one_target,
    show_result,
)
from langchain_rlfocal.cli.views import doubts, progress_bar
from langchain_rlfocal.errors import InputError


def report(
    checkpoint: Annotated[Path, typer.Argument(help="Directory that `rlfocal train` wrote.")],
    outcomes: Outcomes,
    *,
    out: Annotated[Path | None, typer.Option(help="The page to write, an HTML file; --json needs none.")] = None,
    task: Task = None,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="Report on these rows. Of training rows the policy knows the answers."),
    ] = "test",
    missing: Missing = "mask",
    test_ids: Annotated[
        str | None, typer.Option(help="The rows whose query_id matches are test rows; default: as in training.")
    ] = None,
    cost_weight: CostWeight = None,
    target_calls: TargetCalls = None,
    target_usd: TargetUsd = None,
    target_usd_share: TargetUsdShare = None,
    target_tokens: TargetTokens = None,
    target_seconds: TargetSeconds = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    embedder: EmbedderName = None,
    kind: KindName = None,
    no_task: Annotated[
        bool, typer.Option("--no-task", help="Hide the task labels from who decides, as most callers do.")
    ] = False,
    metrics: Annotated[
        Path | None, typer.Option(help="Metrics that the training wrote; default: metrics.jsonl beside the checkpoint.")
    ] = None,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="Show no question and no reply.")] = False,
    date: Annotated[
        str | None, typer.Option(help="The date on the page; default: SOURCE_DATE_EPOCH, or today in UTC.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one page that shows what a checkpoint is worth on outcomes that it has not seen.

    How much better and cheaper it is than the best single member; score against
    cost beside all baselines; who is asked for what; where it helped and where it
    hurt, with the texts; and how the figures came about. The page needs no network.

    Example: rlfocal report policy outcomes.parquet --out report.html
    """
    from langchain_rlfocal.reporting import check_installed, check_writable, facts_of, read_metrics, write_page
    from langchain_rlfocal.reporting.sentences import headline

    if out is None and not as_json:
        raise InputError("`report` needs `--out`, the page to write, or `--json`. For example `--out report.html`.")
    if out is not None:
        check_installed()
        check_writable(out)
    made = _date(date)
    target = one_target(
        cost_weight,
        target_calls=target_calls,
        target_usd=target_usd,
        target_usd_share=target_usd_share,
        target_tokens=target_tokens,
        target_seconds=target_seconds,
    )
    options = {"cost_weight": cost_weight, "max_team": max_team, "max_rounds": max_rounds}
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=3)
        rows = read_rows(
            checkpoint,
            outcomes,
            task=task,
            split=split,
            missing=missing,
            test_ids=test_ids,
            embedder=embedder,
            kind=kind,
        )
        progress.update(bar, advance=1, description="Evaluating")
        done = evaluate_rows(rows, options, target=target, no_task=no_task)
        progress.update(bar, advance=1, description="Drawing")
        limits = limits_of(rows.policy, options, target=target)
        card = rows.policy.card
        facts = facts_of(
            rows.policy,
            done.report,
            rows.table,
            knows_rows=rows.knows_rows,
            rivals=done.rivals,
            max_team=limits["max_team"],
            max_rounds=limits["max_rounds"],
            hide_tasks=no_task,
            training=read_metrics(checkpoint, metrics, best=object_of(card, "training").get("best_step")),
            notes=[*doubts(done.report, done.facts), *done.warnings],
            manifest=_manifest(rows, done.facts, outcomes, date=made),
            with_texts=not no_texts,
        )
        if out is not None:
            write_page(facts, out)
        progress.update(bar, advance=1)
    show_result(
        {"headline": headline(facts), "out": None if out is None else str(out), **facts.as_dict()},
        iter([headline(facts), *([] if out is None else ["", f"{out}, {out.stat().st_size / 1e6:.1f} MB"])]),
        as_json=as_json,
    )


def _date(date: str | None) -> str:
    """Say which date stands on the page."""
    from datetime import UTC, datetime
    from datetime import date as day

    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        if date is not None:
            return day.fromisoformat(date).isoformat()
        now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        name, value = ("--date", date) if date is not None else ("SOURCE_DATE_EPOCH", epoch)
        rule = "a date such as 2026-11-30" if date is not None else "whole seconds since 1970"
        raise InputError(f"`{name}` must be {rule}, got {value!r:.80}.") from None
    return now.date().isoformat()


def _manifest(rows: ScoredRows, facts: dict[str, Any], outcomes: list[Path], *, date: str) -> dict[str, Any]:
    """Say how the report came about."""
    from langchain_rlfocal._version import __version__

    card, policy = rows.policy.card, rows.policy
    training = {name: card[name] for name in ("data_sha256", "embedder", "labels") if card.get(name) is not None}
    return {
        "date": date,
        "command": shlex.join(["rlfocal", *sys.argv[1:]]),
        "policy_id": policy.policy_id,
        "checkpoint": str(rows.checkpoint),
        "outcomes": [str(path) for path in outcomes],
        "outcomes_read": len(rows.table),
        "questions": len(rows.scored),
        **{name: value for name, value in facts.items() if name not in ("checkpoint", "policy_id")},
        "seed_of_intervals": 0,
        "version": __version__,
        "members": dict(zip(map(str, range(1, len(policy.members) + 1)), policy.members, strict=True)),
        "training": training | dict(object_of(card, "training")) | {"rows": dict(object_of(card, "rows"))},
        "configuration of the training": dict(object_of(card, "config")),
        "versions in training": dict(object_of(card, "versions")),
    }

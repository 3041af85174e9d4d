"""Command line: `rlfocal` collects outcomes, trains and evaluates policies, and shows them at work.

Each command imports what it needs when it runs, so that `rlfocal --help` is quick and only `train` loads torch. What a
program reads goes to stdout, progress and errors to stderr. An error of the package is one line and exit code 2, never a
traceback; a file appears whole or not at all.
"""

import importlib
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast, get_args

import typer
from typer.core import TyperGroup

from langchain_rlfocal._version import __version__
from langchain_rlfocal.cli.views import (
    certificate_views,
    diversity_facts,
    diversity_views,
    evaluation_views,
    json_text,
    messages,
    new_tasks_views,
    output,
    progress_bar,
    rewrites_views,
    train_views,
)
from langchain_rlfocal.errors import CheckpointError, InputError, OutcomeError, OutcomeLogError, PoolError, RLFocalError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.answers import KindLike
    from langchain_rlfocal.features import Embedder
    from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.targets import Target
    from langchain_rlfocal.pool import ModelPool

_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


class _Commands(TyperGroup):
    """Commands whose expected errors are one red line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (RLFocalError, OSError) as error:
            _end(str(error), code=_BAD_INPUT)
        except KeyboardInterrupt:
            writes = ctx.invoked_subcommand in {"train", "questions"}
            _end("Interrupted: nothing was written." if writes else "Interrupted.", code=_INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""RL-Focal: a learned team of chat models per query, and a learned fusion of their answers.

    Exit codes: 0 is success, 1 a member that never answered, 2 bad input (one line on stderr says what), 130 an interruption.
    """,
)

# Options that several commands share.
_Outcomes = Annotated[list[Path], typer.Argument(help="Tables of outcomes: .parquet, .jsonl or .csv.")]
_Member = Annotated[list[str] | None, typer.Option(help="A member of the pool, once for each; default: all.")]
_Task = Annotated[
    list[str] | None, typer.Option(help='A task to take, once for each; default: all. Wildcards as in "mmlu_pro/*".')
]
_Missing = Annotated[
    Literal["mask", "drop", "fail"],
    typer.Option(
        help="A query that not every member was asked: kept with a hole, left out, or counted as a failure of who was not."
    ),
]
_Embedder = Annotated[
    str | None, typer.Option(help="Describe queries by embeddings too: wordllama, or package.module:function.")
]
_Kind = Annotated[
    str | None, typer.Option(help="What counts as the same answer: a kind's name, or package.module:attribute.")
]
_MaxTeam = Annotated[int | None, typer.Option(min=1, help="Members that may be asked for one query.")]
_MaxRounds = Annotated[int | None, typer.Option(min=1, help="Rounds in which they may be asked.")]
_CostWeight = Annotated[float | None, typer.Option(min=0, help="What asking the whole pool is worth, in score.")]
_TargetCalls = Annotated[float | None, typer.Option(help="Ask so many members a query on average.")]
_TargetUsd = Annotated[float | None, typer.Option(help="Take so many dollars a query on average.")]
_TargetUsdShare = Annotated[
    float | None, typer.Option(help="The same as a share of what the best single member would take.")
]
_TargetTokens = Annotated[
    float | None, typer.Option(help="Take so many tokens a query on average, of prompts and responses.")
]
_TargetSeconds = Annotated[float | None, typer.Option(help="Take so many seconds a query on average.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"rlfocal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version


@app.command()
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
    kind: _Kind = None,
) -> None:
    """Ask every member every question, and record what the answers are worth.

    Run again to go on where it stopped, and to ask again what failed: an answer on record is not asked for again.
    """
    from langchain_rlfocal.collection import Collected, collect_into, is_failure, recorded_in, unfinished_path
    from langchain_rlfocal.outcomes import read_questions

    asked = read_questions(questions)[:limit]
    if kind is not None:
        opened_kind = _open_kind(kind)
        asked = [replace(question, kind=opened_kind) for question in asked]
    failed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    in_flight = {} if concurrency is None else {"max_in_flight": concurrency}
    with _open_pool(pool, member or []) as opened, progress_bar() as progress:
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
            _end(f"Interrupted. {where}Run the same command again to go on.", code=_INTERRUPTED)
    for name, count in failed.items():
        line = f"{name} failed {count} times, recorded as worth 0. First: {reasons[name]}"
        messages().print(printable(line), markup=False, soft_wrap=True)
    typer.echo(f"{len(table):,} outcomes of {len(table.members)} members in {out}")
    silent = [name for name, count in failed.items() if count == tried[name]]
    if silent:
        _end(
            f"Failed every question asked in this run: {', '.join(silent)}. The table is written; run the same command "
            "again to ask again what failed.",
            code=_FAILED,
        )
    if failed:
        messages().print("Run the same command again to ask again what failed.")


@app.command()
def export(
    log: Annotated[Path, typer.Argument(help="Outcome log that a model records into (`outcome_log`).")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to write: .parquet, .jsonl or .csv.")],
) -> None:
    """Write what was served, and what users said of it, as a table of outcomes to train on.

    An answer that nobody scored is unscored. A query without a task label has the task "served".
    """
    from langchain_rlfocal.online import OutcomeLog
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


@app.command()
def train(
    outcomes: _Outcomes,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint to write.")],
    member: _Member = None,
    task: _Task = None,
    missing: _Missing = "mask",
    test_ids: Annotated[
        str | None, typer.Option(help='Keep the rows whose query_id matches ("test*") as test rows; default: by text.')
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same outcomes: the same checkpoint.")] = None,
    max_team: _MaxTeam = None,
    max_rounds: _MaxRounds = None,
    cost_weight: _CostWeight = None,
    cost_unit: Annotated[
        Literal["auto", "usd", "tokens", "calls"] | None,
        typer.Option(help="What spending is counted in; auto: dollars where known, else calls."),
    ] = None,
    diversity_weight: Annotated[
        float | None, typer.Option(min=0, help="What focal diversity of the team is worth in the reward.")
    ] = None,
    embedder: _Embedder = None,
    kind: _Kind = None,
    as_json: _Json = False,
) -> None:
    """Train Decider and Fusion on recorded outcomes, and fit the baselines; the test rows stay unseen."""
    import numpy as np

    from langchain_rlfocal import training
    from langchain_rlfocal.evaluation.baselines import missing_baselines
    from langchain_rlfocal.evaluation.report import baselines_of

    options: dict[str, Any] = {
        "seed": seed,
        "max_team": max_team,
        "max_rounds": max_rounds,
        "cost_weight": cost_weight,
        "cost_unit": cost_unit,
        "diversity_weight": diversity_weight,
    }
    config = training.TrainingConfig(**{name: value for name, value in options.items() if value is not None})
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=None)
        loaded = _open_embedder(embedder)
        grid = _read_grid(outcomes, member, task=task, missing=missing, test_ids=test_ids, kind=kind)
        learned, chosen, test = grid.split()
        progress.update(bar, description="Training")

        def show(step: training.Progress) -> None:
            progress.update(bar, completed=step.step, total=step.total_steps)

        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", UserWarning)
            policy = training.train(learned, chosen, config, embedder=loaded, on_progress=show)
        policy.save(out)
    baselines = list(baselines_of(policy))
    facts = {
        "policy_id": policy.policy_id,
        "path": str(out),
        "members": list(policy.members),
        "queries": {
            "train": len(learned),
            "validation": len(chosen),
            "test": len(test),
            "repeated": grid.repeated,
            "dropped": grid.dropped,
        },
        "missing": grid.missing,
        "unscored": int((grid.recorded & np.isnan(grid.scores)).sum()),
        "warnings": [str(doubt.message) for doubt in doubts if doubt.category is UserWarning],
        "contradictions": grid.contradictions,
        "baselines": baselines,
        "missing_baselines": list(missing_baselines(baselines)),
        "card": policy.card,
    }
    _show(facts, train_views(facts), as_json=as_json)


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="Directory that `rlfocal train` wrote; with --leave-task-out a table will do.")
    ],
    outcomes: Annotated[list[Path] | None, typer.Argument(help="Tables of outcomes: .parquet, .jsonl or .csv.")] = None,
    *,
    task: _Task = None,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="Score these rows. Of training rows the policy knows the answers."),
    ] = "test",
    missing: _Missing = "mask",
    test_ids: Annotated[
        str | None, typer.Option(help="The rows whose query_id matches are test rows; default: as in training.")
    ] = None,
    cost_weight: _CostWeight = None,
    target_calls: _TargetCalls = None,
    target_usd: _TargetUsd = None,
    target_usd_share: _TargetUsdShare = None,
    target_tokens: _TargetTokens = None,
    target_seconds: _TargetSeconds = None,
    max_team: _MaxTeam = None,
    max_rounds: _MaxRounds = None,
    embedder: _Embedder = None,
    kind: _Kind = None,
    no_task: Annotated[
        bool, typer.Option("--no-task", help="Hide the task labels from who decides, as most callers do.")
    ] = False,
    rewrites: Annotated[
        bool, typer.Option("--rewrites", help="Also write the questions in eight other ways, and see what changes.")
    ] = False,
    leave_task_out: Annotated[
        bool,
        typer.Option(
            "--leave-task-out",
            help="Score new tasks: for each, train anew on the others' outcomes. As many trainings as tasks.",
        ),
    ] = False,
    leave: Annotated[
        list[str] | None,
        typer.Option(
            help="Tasks to leave out together, once for each group; default: by the first part of their names."
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Score a checkpoint on held-out outcomes, beside single best, votes, routers, fixed teams and Oracle.

    Over all spending it is compared with cost-aware rivals: a table of tasks and a linear router with prices, and a cascade.

    Limits and cost weight are those that it was trained for, unless given. Within a target it serves the queries one after the
    other, counting what they take.
    """
    from langchain_rlfocal.evaluation import baselines_of, fit_baselines, fit_rivals, rivals_of
    from langchain_rlfocal.evaluation import evaluate as evaluate_policy
    from langchain_rlfocal.evaluation.rewrites import rewritten
    from langchain_rlfocal.policies.targets import target_of

    target = target_of(
        {
            "target_calls": target_calls,
            "target_usd": target_usd,
            "target_usd_share": target_usd_share,
            "target_tokens": target_tokens,
            "target_seconds": target_seconds,
        }
    )
    if cost_weight is not None and target is not None:
        option = f"--{target.name.replace('_', '-')}"
        raise InputError(f"`--cost-weight` and `{option}` exclude each other, got both. Give one of them.")
    options = {"cost_weight": cost_weight, "max_team": max_team, "max_rounds": max_rounds}
    if leave_task_out or leave:
        if rewrites or test_ids is not None or split != "test":
            raise InputError("`--leave-task-out` takes no `--rewrites`, `--split` or `--test-ids`. Leave them out.")
        _evaluate_new_tasks(
            [checkpoint, *(outcomes or [])],
            options,
            task=task,
            missing=missing,
            target=target,
            embedder=embedder,
            kind=kind,
            no_task=no_task,
            leave=leave,
            as_json=as_json,
        )
        return
    if not outcomes:
        raise InputError("`evaluate` needs a checkpoint and at least one table of outcomes, got one path. Name both.")
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        policy = _load_policy(checkpoint, embedder)
        limits = _limits(policy, options, target=target)
        trained_ids = _object_of(policy.card, "rows").get("test_ids")
        ids = trained_ids if test_ids is None and split != "all" else test_ids
        if not isinstance(ids, str | None):
            raise CheckpointError(f"The checkpoint's `test_ids` must be a text, got {ids!r:.80}. Give `--test-ids`.")
        try:
            grid = _read_grid(outcomes, policy.members, task=task, missing=missing, test_ids=ids, kind=kind)
        except OutcomeError as error:
            if test_ids is not None or ids is None or error.column != "query_id" or error.file is not None:
                raise
            rule = (
                f"the policy was trained with `--test-ids {ids[:80]}`, which matches no query here. Give `--split all` "
                "for outcomes that it has never seen, or other `--test-ids`."
            )
            raise OutcomeError(rule, column="query_id") from error
        parts = dict(zip(("train", "validation", "test"), grid.split(), strict=True))
        scored = parts.get(split, grid)
        if not len(scored):
            rule = f"`--split {split}` must hold at least one query, got none of {len(grid)}. Choose another split."
            raise OutcomeError(rule)
        progress.update(bar, advance=1, description="Evaluating")
        fitted, source = baselines_of(policy), "checkpoint"
        rivals, source_of_rivals, unit = rivals_of(policy), "checkpoint", _cost_unit(policy)
        if split == "test" and len(parts["train"]) and len(parts["validation"]):
            rows, most = (parts["train"], parts["validation"]), limits["max_team"]
            if not fitted:
                fitted, source = fit_baselines(*rows, max_team=most), "outcomes"
            if not rivals:
                rivals, source_of_rivals = fit_rivals(*rows, max_team=most, cost_unit=unit), "outcomes"
        scored = replace(scored, dropped=grid.dropped, missing=grid.missing)
        report = evaluate_policy(
            policy,
            scored,
            baselines=fitted,
            hide_tasks=no_task,
            target=target,
            rivals=rivals,
            cost_unit=unit,
            **limits,
        )
        written = rewritten(policy, scored, hide_tasks=no_task, target=target, **limits) if rewrites else None
        progress.update(bar, advance=1)
    facts = {
        "checkpoint": str(checkpoint),
        "policy_id": policy.policy_id,
        "split": split,
        **{name: None if name == "cost_weight" and target is not None else value for name, value in limits.items()},
        "target": None if target is None else {target.name: target.value},
        "task_labels": not no_task,
        "baselines_from": source if fitted else "nowhere",
        "rivals_from": source_of_rivals if rivals else "nowhere",
        "repeated": grid.repeated,
        "missing_is": missing,
    }
    warnings = []
    team = fitted["random_team"].learned["size"] if "random_team" in fitted else None
    if team not in (None, min(limits["max_team"], len(policy.members))):
        warnings.append(f"The baselines that ask a team were fitted for {team} members at most.")
    if split != "test" or test_ids not in (None, trained_ids):
        warnings.append(
            "Of outcomes that they learned from, policy and baselines know all but the training's test rows."
        )
    shown = {**facts, **report.as_dict()}
    views = evaluation_views(report, facts, warnings)
    if written is not None:
        shown["rewrites"] = {name: figures.as_dict() for name, figures in written.items()}
        views = chain(views, rewrites_views(written))
    _show(shown, views, as_json=as_json)


def _evaluate_new_tasks(
    paths: Sequence[Path],
    options: Mapping[str, Any],
    *,
    task: Sequence[str] | None,
    missing: Literal["mask", "drop", "fail"],
    target: "Target | None",
    embedder: str | None,
    kind: str | None,
    no_task: bool,
    leave: Sequence[str] | None,
    as_json: bool,
) -> None:
    """Leave each task out in turn, with the members and the configuration of the checkpoint where there is one."""
    from langchain_rlfocal import training
    from langchain_rlfocal.training.new_tasks import groups_of

    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=None)
        members, trained = None, {}
        if paths[0].is_dir():
            policy = _load_policy(paths[0], embedder)
            members, trained, paths = policy.members, dict(_object_of(policy.card, "config")), paths[1:]
            loaded = policy.embedder
        else:
            loaded = _open_embedder(embedder)
        given = {name: value for name, value in options.items() if value is not None}
        try:
            config = training.TrainingConfig(**{**trained, **given})
        except TypeError as error:
            raise CheckpointError(f"The checkpoint's `config` must be one of training. {error}") from error
        if not paths:
            raise InputError("`--leave-task-out` needs at least one table of outcomes, got none. Name one.")
        grid = _read_grid(paths, members, task=task, missing=missing, kind=kind)
        found: list[training.NewTask] = []
        count = len(groups_of(grid.tasks, leave))
        progress.update(bar, total=count * config.num_iterations, description="Training")

        def show(step: training.Progress) -> None:
            progress.update(bar, completed=len(found) * config.num_iterations + step.step)

        turns = training.leave_task_out(
            grid,
            config,
            patterns=leave,
            target=target,
            hide_tasks=no_task,
            embedder=loaded,
            on_progress=show,
        )
        for one in turns:
            found.append(one)
            progress.update(bar, completed=len(found) * config.num_iterations)
    facts = {
        "members": sorted(grid.members),
        "max_team": config.max_team,
        "max_rounds": config.max_rounds,
        "target": None if target is None else {target.name: target.value},
        "task_labels": not no_task,
        "dropped": grid.dropped,
        "missing": grid.missing,
    }
    _show(
        {**facts, "new_tasks": {one.name: one.as_dict() for one in found}},
        new_tasks_views(found, facts),
        as_json=as_json,
    )


@app.command()
def certify(
    checkpoint: Annotated[
        Path, typer.Argument(help="Directory that `rlfocal train` wrote; the certificate goes into it.")
    ],
    outcomes: _Outcomes,
    *,
    within: Annotated[
        float | None, typer.Option(min=0, help="Promise a score that is at most so much below the best member's.")
    ] = None,
    gain: Annotated[
        float | None, typer.Option(min=0, help="Promise a score that is at least so much above the best member's.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Probability with which nothing false is promised.")] = 0.9,
    task: _Task = None,
    max_team: _MaxTeam = None,
    max_rounds: _MaxRounds = None,
    embedder: _Embedder = None,
    kind: _Kind = None,
    no_task: Annotated[bool, typer.Option("--no-task", help="Hide the task labels from the policy.")] = False,
    new: Annotated[
        bool,
        typer.Option("--new", help="Training saw none of these rows: test on all of them, not on the test rows alone."),
    ] = False,
    fingerprint: Annotated[
        list[str] | None,
        typer.Option(
            help="What a member called itself in the scored replies, as MEMBER=MODEL, once for each: where it calls itself "
            "otherwise later, the promise does not hold."
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Find the cheapest operating point that keeps a promise on test rows, and write a certificate into the checkpoint.

    The promise compares with whichever member is best. Rows that training saw are left out, and so are rows on which a member has no
    score. The policy itself does not change.
    """
    from datetime import UTC, datetime

    from langchain_rlfocal.evaluation.certification import certify as certify_policy
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.certificates import Promise, certificates_of, with_certificate

    margins = [margin for margin in (None if within is None else -within, gain) if margin is not None]
    if len(margins) != 1:
        raise InputError("`certify` needs one promise, `--within` or `--gain`. For example `--within 0.02`.")
    promise = Promise(margins[0], confidence)
    fingerprints = dict(one.partition("=")[::2] for one in fingerprint or [])
    if not all(fingerprints.values()):
        raise InputError(f"`--fingerprint` must be given as MEMBER=MODEL, got {' '.join(fingerprint or [])!r}.")
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        policy = _load_policy(checkpoint, embedder)
        certificates_of(policy.card, policy.policy_id)
        limits = _limits(policy, {"max_team": max_team, "max_rounds": max_rounds}, target=None)
        ids = None if new else _trained_test_ids(policy)
        grid = _read_grid(outcomes, policy.members, task=task, missing="mask", test_ids=ids, kind=kind)
        progress.update(bar, advance=1, description="Testing")
        certificate, tested = certify_policy(
            policy,
            grid,
            promise,
            date=datetime.now(UTC).date().isoformat(),
            cost_unit=_cost_unit(policy),
            hide_tasks=no_task,
            fingerprints=fingerprints,
            are_new=new,
            **limits,
        )
        card = with_certificate(policy.card, certificate)
        RLFocalPolicy(replace(policy.parts, card=card), embedder=policy.embedder).save(checkpoint)
        progress.update(bar, advance=1)
    facts = {
        "checkpoint": str(checkpoint),
        "certificate": certificate.model_dump(),
        "tested": [asdict(one) for one in tested],
    }
    _show(facts, certificate_views(certificate, tested, path=str(checkpoint)), as_json=as_json)


@app.command()
def diversity(outcomes: _Outcomes, *, member: _Member = None, task: _Task = None, as_json: _Json = False) -> None:
    """Measure how differently members fail, and which teams that speaks for."""
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        grid = _read_grid(outcomes, member, task=task)
        progress.update(bar, advance=1, description="Measuring")
        facts = diversity_facts(grid)
        progress.update(bar, advance=1)
    _show(facts, diversity_views(facts), as_json=as_json)


@app.command()
def questions(
    *,
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    seed: Annotated[int, typer.Option(help="Same seed: the same file.")] = 0,
) -> None:
    """Write the question set on which the shipped policy was trained."""
    from langchain_rlfocal.demo.questions import write_questions

    typer.echo(f"{write_questions(out, seed=seed)} questions in {out}")


@app.command()
def demo(
    question: Annotated[list[str] | None, typer.Argument(help="Questions to ask instead of the built-in ones.")] = None,
) -> None:
    """Answer questions with the embedded models and the policy that ships."""
    from langchain_rlfocal.demo.command import run_demo

    run_demo(output(), question or None)


# ---- what the options name


@contextmanager
def _open_pool(pool: str | None, members: list[str]) -> Iterator["ModelPool"]:
    from langchain_rlfocal.pool import ModelPool

    if pool and members:
        raise InputError("`--pool` and `--member` exclude each other, got both. Give one of them.")
    if members:
        named: dict[str, str] = {}
        for text in members:
            name, equals, model = text.partition("=")
            if not (name and equals and model):
                raise InputError(
                    f"`--member` must be NAME=provider:model, got {text!r}. Example: small=openai:gpt-5-nano"
                )
            if name in named:
                raise PoolError(f"A member's name must be unique in its pool, got `{name}` twice. Rename one.")
            named[name] = model
        yield ModelPool.from_models(named)
    elif pool in (None, "local"):
        from langchain_rlfocal.demo import embedded_pool

        with embedded_pool() as embedded:
            yield ModelPool.from_models(embedded.members)
    else:
        made = _import("--pool", str(pool))()
        if not isinstance(made, ModelPool | Mapping):
            raise InputError(
                f"`--pool {pool}` must return a ModelPool or a mapping of names to chat models, got "
                f"{type(made).__name__}."
            )
        yield made if isinstance(made, ModelPool) else ModelPool.from_models(made)


def _open_kind(name: str) -> "KindLike":
    from langchain_rlfocal.answers import to_kind

    return to_kind(_import("--kind", name) if ":" in name else name)


def _open_embedder(name: str | None) -> "Embedder | None":
    from langchain_rlfocal.features import load_embedder

    if name is not None and ":" in name:
        _see_working_folder()
    return None if name is None else load_embedder(name)


def _import(option: str, spec: str) -> Any:
    """Import `package.module:attribute`."""
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"`{option}` must be a name that `--help` lists or package.module:function, got {spec!r}.")
    _see_working_folder()
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's may raise anything
        raise InputError(f"`{option} {spec}` must name a function that can be imported: {error}.") from error


def _see_working_folder() -> None:
    """Let a user's own module be imported: a console script does not see the folder that it is started in."""
    sys.path.insert(0, str(Path.cwd()))


def _read_grid(
    outcomes: Sequence[Path],
    members: Sequence[str] | None,
    *,
    task: Sequence[str] | None = None,
    missing: Literal["mask", "drop", "fail"] = "drop",
    test_ids: str | None = None,
    kind: str | None = None,
) -> "OutcomeGrid":
    """Read tables and lay out the rows that count; without named members, those of everyone."""
    from langchain_rlfocal.outcomes import OutcomeTable

    table = OutcomeTable.read(*outcomes)
    if kind is not None:
        table = table.relabelled(_open_kind(kind))
    return table.grid(members or table.members, task=task or None, missing=missing, test_ids=test_ids)


# ---- a checkpoint may come from an untrusted source: what its card holds is checked before it is used


def _load_policy(checkpoint: Path, embedder: str | None) -> "RLFocalPolicy":
    """Load a policy with the embedder that it was trained with; no module is imported because a checkpoint names it."""
    from langchain_rlfocal.features import WORDLLAMA
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.checkpoint import read_checkpoint

    parts = read_checkpoint(checkpoint)
    trained_with = parts.card.get("embedder")
    if trained_with is not None:
        shown = f"{trained_with!r:.80}"
        if embedder is None and trained_with != WORDLLAMA:
            raise InputError(
                f"The policy was trained with the embedder {shown}, which is not imported unasked. "
                "Name it with `--embedder` if you trust it."
            )
        if embedder not in (None, trained_with):
            raise InputError(f"`--embedder` must be the one of the training, {shown}, got {embedder!r}. Leave it out.")
    return RLFocalPolicy(parts, embedder=_open_embedder(embedder or trained_with))


def _limits(policy: "RLFocalPolicy", options: Mapping[str, Any], *, target: "Target | None") -> dict[str, Any]:
    """Complete the cost weight, which nobody needs beside a target, and the limits by those that a policy was trained for."""
    trained = _object_of(policy.card, "config")
    limits: dict[str, Any] = {name: trained.get(name) if value is None else value for name, value in options.items()}
    if target is not None:
        limits["cost_weight"] = 0.0
    unknown = [f"--{name.replace('_', '-')}" for name, value in limits.items() if value is None]
    if unknown:
        raise InputError(f"The checkpoint does not say what it was trained for. Give {', '.join(unknown)}.")
    for name, value in limits.items():
        is_weight = name == "cost_weight"
        if type(value) in ((int, float) if is_weight else (int,)) and (0 if is_weight else 1) <= value < math.inf:
            continue
        rule = (
            f"must be a {'finite number, at least 0' if is_weight else 'whole number, at least 1'}, got {value!r:.80}."
        )
        option = f"--{name.replace('_', '-')}"
        if options[name] is not None:
            raise InputError(f"`{option}` {rule}")
        raise CheckpointError(f"The checkpoint's `{name}` {rule} Give {option}, or train the policy again.")
    return limits


def _trained_test_ids(policy: "RLFocalPolicy") -> str | None:
    """Say which rows a policy's training set apart as test rows; None for those of the split by text."""
    ids = _object_of(policy.card, "rows").get("test_ids")
    if not isinstance(ids, str | None):
        raise CheckpointError(f"The checkpoint's `test_ids` must be a text, got {ids!r:.80}. Train the policy again.")
    return ids


def _cost_unit(policy: "RLFocalPolicy") -> "CostUnit":
    """What a policy's training counted spending in, `auto` where it does not say."""
    from langchain_rlfocal.outcomes import CostUnit

    unit = _object_of(policy.card, "config").get("cost_unit", "auto")
    if unit not in get_args(CostUnit):
        raise CheckpointError(
            f"The checkpoint's `cost_unit` must be one of {', '.join(get_args(CostUnit))}, got {unit!r:.80}. "
            "Train the policy again."
        )
    return cast("CostUnit", unit)


def _object_of(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = card.get(name, {})
    if not isinstance(value, Mapping):
        shown = f"{value!r:.80}"
        raise CheckpointError(f"The checkpoint's `{name}` must be a JSON object, got {shown}. Train the policy again.")
    return value


# ---- how a command ends


def _show(facts: Mapping[str, Any], views: Iterator[Any], *, as_json: bool) -> None:
    """Print a command's result: as one JSON object, or as tables and lines for people."""
    if as_json:
        typer.echo(json_text(facts))
        return
    stdout = output()
    for view in views:
        stdout.print(view)


def _end(message: str, *, code: int) -> NoReturn:
    messages().print(printable(message), style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()

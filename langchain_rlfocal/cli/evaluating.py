"""Commands that score policies on outcomes: `evaluate`, `certify`, `diversity`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_rlfocal.cli.options import (
    CostWeight,
    EmbedderName,
    Json,
    KindName,
    MaxRounds,
    MaxTeam,
    Member,
    Missing,
    Outcomes,
    TargetCalls,
    TargetSeconds,
    TargetTokens,
    TargetUsd,
    TargetUsdShare,
    Task,
    cost_unit_of,
    limits_of,
    load_policy,
    object_of,
    one_target,
    open_embedder,
    read_grid,
    read_table,
    show_result,
    trained_test_ids,
)
from langchain_rlfocal.cli.views import (
    certificate_views,
    diversity_views,
    evaluation_views,
    new_tasks_views,
    progress_bar,
    rewrites_views,
)
from langchain_rlfocal.errors import CheckpointError, InputError, OutcomeError

if TYPE_CHECKING:
    from langchain_rlfocal.evaluation import Report
    from langchain_rlfocal.evaluation.baselines import Baseline
    from langchain_rlfocal.outcomes import OutcomeGrid, OutcomeTable
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.targets import Target


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="Directory that `rlfocal train` wrote; with --leave-task-out a table will do.")
    ],
    outcomes: Annotated[list[Path] | None, typer.Argument(help="Tables of outcomes: .parquet, .jsonl or .csv.")] = None,
    *,
    task: Task = None,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="Score these rows. Of training rows the policy knows the answers."),
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
    as_json: Json = False,
) -> None:
    """Score a checkpoint on held-out outcomes, beside single best, votes, routers, fixed teams and Oracle.

    Over all spending it is compared with cost-aware rivals: a table of tasks and a linear router with prices, and a cascade.

    Limits and cost weight are those that it was trained for, unless given. Within a target it serves the queries one after the
    other, counting what they take.

    Example: rlfocal evaluate policy outcomes.parquet --target-calls 1.5
    """
    from langchain_rlfocal.evaluation.rewrites import rewritten

    target = one_target(
        cost_weight,
        target_calls=target_calls,
        target_usd=target_usd,
        target_usd_share=target_usd_share,
        target_tokens=target_tokens,
        target_seconds=target_seconds,
    )
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
        limits = limits_of(rows.policy, options, target=target)
        written = rewritten(rows.policy, rows.scored, hide_tasks=no_task, target=target, **limits) if rewrites else None
        progress.update(bar, advance=1)
    shown = {**done.facts, **done.report.as_dict()}
    views = evaluation_views(done.report, done.facts, done.warnings)
    if written is not None:
        shown["rewrites"] = {name: figures.as_dict() for name, figures in written.items()}
        views = chain(views, rewrites_views(written))
    show_result(shown, views, as_json=as_json)


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """A checkpoint, and the rows of tables that it is to be scored on.

    Attributes:
        checkpoint: The directory.
        policy: The policy in it.
        table: All outcomes that were read.
        scored: The rows to score.
        learned: Training and validation rows, where the scored ones are test rows and there are some; else None.
        facts: What was chosen, as values for JSON.
        knows_rows: Whether the policy may have learned from scored rows.
    """

    checkpoint: Path
    policy: "RLFocalPolicy"
    table: "OutcomeTable"
    scored: "OutcomeGrid"
    learned: "tuple[OutcomeGrid, OutcomeGrid] | None"
    facts: Mapping[str, Any]
    knows_rows: bool


def read_rows(
    checkpoint: Path,
    outcomes: Sequence[Path],
    *,
    task: Sequence[str] | None,
    split: Literal["train", "validation", "test", "all"],
    missing: Literal["mask", "drop", "fail"],
    test_ids: str | None,
    embedder: str | None,
    kind: str | None,
) -> ScoredRows:
    """Load a policy, and read the rows to score it on, by default those that its training set apart.

    Raises:
        RLFocalError: The checkpoint or a table cannot be read, or there is no such row.
    """
    policy = load_policy(checkpoint, embedder)
    trained_ids = object_of(policy.card, "rows").get("test_ids")
    ids = trained_ids if test_ids is None and split != "all" else test_ids
    if not isinstance(ids, str | None):
        raise CheckpointError(f"The checkpoint's `test_ids` must be a text, got {ids!r:.80}. Give `--test-ids`.")
    table = read_table(outcomes, kind=kind)
    try:
        grid = table.grid(policy.members, task=task or None, missing=missing, test_ids=ids)
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
    has_others = split == "test" and len(parts["train"]) and len(parts["validation"])
    return ScoredRows(
        checkpoint=checkpoint,
        policy=policy,
        table=table,
        scored=replace(scored, dropped=grid.dropped, missing=grid.missing),
        learned=(parts["train"], parts["validation"]) if has_others else None,
        facts={"split": split, "repeated": grid.repeated, "missing_is": missing},
        knows_rows=split != "test" or test_ids not in (None, trained_ids),
    )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a policy scored on its rows.

    Attributes:
        report: The figures.
        rivals: The fitted rivals that it was compared with.
        facts: How they were made, as values for JSON.
        warnings: What is to be known of them, a sentence each.
    """

    report: "Report"
    rivals: "Mapping[str, Baseline]"
    facts: dict[str, Any]
    warnings: list[str]


def evaluate_rows(rows: ScoredRows, options: Mapping[str, Any], *, target: "Target | None", no_task: bool) -> Evaluated:
    """Score a policy beside the baselines and rivals of its checkpoint, or those that are fitted now on its other rows."""
    from langchain_rlfocal.evaluation import baselines_of, fit_baselines, fit_rivals, rivals_of
    from langchain_rlfocal.evaluation import evaluate as evaluate_policy

    policy, limits = rows.policy, limits_of(rows.policy, options, target=target)
    fitted, source = baselines_of(policy), "checkpoint"
    rivals, source_of_rivals, unit = rivals_of(policy), "checkpoint", cost_unit_of(policy)
    if rows.learned is not None:
        most = limits["max_team"]
        if not fitted:
            fitted, source = fit_baselines(*rows.learned, max_team=most), "outcomes"
        if not rivals:
            rivals, source_of_rivals = fit_rivals(*rows.learned, max_team=most, cost_unit=unit), "outcomes"
    report = evaluate_policy(
        policy,
        rows.scored,
        baselines=fitted,
        hide_tasks=no_task,
        target=target,
        rivals=rivals,
        cost_unit=unit,
        **limits,
    )
    facts = {
        "checkpoint": str(rows.checkpoint),
        "policy_id": policy.policy_id,
        "split": rows.facts["split"],
        **{name: None if name == "cost_weight" and target is not None else value for name, value in limits.items()},
        "target": None if target is None else {target.name: target.value},
        "task_labels": not no_task,
        "baselines_from": source if fitted else "nowhere",
        "rivals_from": source_of_rivals if rivals else "nowhere",
        "repeated": rows.facts["repeated"],
        "missing_is": rows.facts["missing_is"],
    }
    warnings = []
    team = fitted["random_team"].learned["size"] if "random_team" in fitted else None
    if team not in (None, min(limits["max_team"], len(policy.members))):
        warnings.append(f"The baselines that ask a team were fitted for {team} members at most.")
    if rows.knows_rows:
        warnings.append(
            "Of outcomes that they learned from, policy and baselines know all but the training's test rows."
        )
    return Evaluated(report, rivals, facts, warnings)


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
            policy = load_policy(paths[0], embedder)
            members, trained, paths = policy.members, dict(object_of(policy.card, "config")), paths[1:]
            loaded = policy.embedder
        else:
            loaded = open_embedder(embedder)
        given = {name: value for name, value in options.items() if value is not None}
        try:
            config = training.TrainingConfig(**{**trained, **given})
        except TypeError as error:
            raise CheckpointError(f"The checkpoint's `config` must be one of training. {error}") from error
        if not paths:
            raise InputError("`--leave-task-out` needs at least one table of outcomes, got none. Name one.")
        grid = read_grid(paths, members, task=task, missing=missing, kind=kind)
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
    show_result(
        {**facts, "new_tasks": {one.name: one.as_dict() for one in found}},
        new_tasks_views(found, facts),
        as_json=as_json,
    )


def certify(
    checkpoint: Annotated[
        Path, typer.Argument(help="Directory that `rlfocal train` wrote; the certificate goes into it.")
    ],
    outcomes: Outcomes,
    *,
    within: Annotated[
        float | None, typer.Option(min=0, help="Promise a score that is at most so much below the best member's.")
    ] = None,
    gain: Annotated[
        float | None, typer.Option(min=0, help="Promise a score that is at least so much above the best member's.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Probability with which nothing false is promised.")] = 0.9,
    task: Task = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    embedder: EmbedderName = None,
    kind: KindName = None,
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
    as_json: Json = False,
) -> None:
    """Find the cheapest operating point that keeps a promise on test rows, and write a certificate into the checkpoint.

    The promise compares with whichever member is best. Rows that training saw are left out, and so are rows on which a member has no
    score. The policy itself does not change.

    Example: rlfocal certify policy outcomes.parquet --within 0.02
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
        policy = load_policy(checkpoint, embedder)
        certificates_of(policy.card, policy.policy_id)
        limits = limits_of(policy, {"max_team": max_team, "max_rounds": max_rounds}, target=None)
        ids = None if new else trained_test_ids(policy)
        grid = read_grid(outcomes, policy.members, task=task, missing="mask", test_ids=ids, kind=kind)
        progress.update(bar, advance=1, description="Testing")
        certificate, tested = certify_policy(
            policy,
            grid,
            promise,
            date=datetime.now(UTC).date().isoformat(),
            cost_unit=cost_unit_of(policy),
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
    show_result(facts, certificate_views(certificate, tested, path=str(checkpoint)), as_json=as_json)


def diversity(outcomes: Outcomes, *, member: Member = None, task: Task = None, as_json: Json = False) -> None:
    """Measure how differently members fail, and which teams that speaks for.

    Example:
    rlfocal diversity outcomes.parquet --task "mmlu_pro/*"
    """
    from langchain_rlfocal.evaluation.teams import diversity_facts

    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        grid = read_grid(outcomes, member, task=task)
        progress.update(bar, advance=1, description="Measuring")
        facts = diversity_facts(grid)
        progress.update(bar, advance=1)
    show_result(facts, diversity_views(facts), as_json=as_json)

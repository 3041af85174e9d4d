"""Evaluation from the command line: a checkpoint and outcomes in, the report out. Nothing is written.

What a checkpoint says of itself is a stranger's word: it is checked before it is used, and no module that it names is
imported unasked.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import typer

from langchain_rlfocal.cli.rows import Rows, open_embedder, read_rows
from langchain_rlfocal.cli.terminal import WITHOUT_FUSION, json_text, output, progress_bar, report_table, task_table
from langchain_rlfocal.embedders import WORDLLAMA
from langchain_rlfocal.errors import CheckpointError, InputError, OutcomeError
from langchain_rlfocal.evaluation import Report
from langchain_rlfocal.evaluation import evaluate as evaluate_policy
from langchain_rlfocal.evaluation.baselines import Fitted, FittedRandomTeam, fit_baselines
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.outcomes import Split
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import read_checkpoint

Source = Literal["checkpoint", "outcomes", "nowhere"]
"""Where the baselines were fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a policy is to decide; None is what it was trained for.

    Attributes:
        cost_weight: What asking the whole pool is worth, in score.
        target_calls: Mean calls a query that choose the cost weight instead.
        max_team: Members that may be asked for one query.
        max_rounds: Rounds in which they may be asked.
    """

    cost_weight: float | None = None
    target_calls: float | None = None
    max_team: int | None = None
    max_rounds: int | None = None


def run_evaluate(
    checkpoint: Path,
    outcomes: Sequence[Path],
    *,
    split: Split | Literal["all"],
    rows: Rows,
    limits: Limits,
    embedder: str | None = None,
    hide_tasks: bool = False,
    as_json: bool = False,
) -> None:
    """Score a checkpoint beside the baselines: as tables for people, or as one JSON object.

    Args:
        checkpoint: Directory of the policy.
        outcomes: Tables of outcomes.
        split: The rows to score.
        rows: Which rows of the tables count; without `test_ids`, the test rows are those that the policy was trained with.
        limits: How the policy is to decide.
        embedder: Name of the embedder that the policy was trained with; None loads the checkpoint's own, if it is known.
        hide_tasks: Whether task labels are hidden from all who decide.
        as_json: True prints one JSON object.

    Raises:
        RLFocalError: Something given breaks a rule; the message says which.
    """
    if limits.cost_weight is not None and limits.target_calls is not None:
        raise InputError("`--cost-weight` and `--target-calls` exclude each other, got both. Give one of them.")
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=2)
        policy = _load(checkpoint, embedder)
        chosen = _chosen(policy, limits)
        grid = _grid(policy, outcomes, rows, split=split)
        parts = dict(zip(get_args(Split), grid.split(), strict=True))
        scored = {**parts, "all": grid}[split]
        if not len(scored):
            rule = f"`--split {split}` must hold at least one query, got none of {len(grid)}. Choose another split."
            raise OutcomeError(rule)
        progress.update(bar, advance=1, description="Evaluating")
        fitted, source = _baselines(policy, parts, split=split, max_team=chosen["max_team"])
        scored = replace(scored, dropped=grid.dropped, missing=grid.missing)
        report = evaluate_policy(policy, scored, baselines=fitted, hide_tasks=hide_tasks, **chosen)
        progress.update(bar, advance=1)
    facts = {
        "checkpoint": str(checkpoint),
        "policy_id": policy.policy_id,
        "split": split,
        **chosen,
        "target_calls": limits.target_calls,
        "task_labels": not hide_tasks,
        "baselines_from": source,
        "repeated": grid.repeated,
    }
    if as_json:
        typer.echo(json_text({**facts, **report.as_dict()}))
        return
    stdout = output()
    stdout.print(report_table(report, title=f"{policy.policy_id} on {report.policy.n} {split} queries"))
    stdout.print()
    stdout.print(task_table(report))
    stdout.print()
    for note in _notes(report, facts):
        stdout.print(note, markup=False)
    for warning in _warnings(report, facts):
        stdout.print(warning, style="yellow", markup=False)
    team, limit = fitted.get("random_team"), min(chosen["max_team"], len(policy.members))
    if isinstance(team, FittedRandomTeam) and team.size != limit:
        stdout.print(f"The baselines that ask a team were fitted for {team.size} members at most.", style="yellow")
    if split != "test" or rows.test_ids not in (None, _mapping(policy.card, "rows").get("test_ids")):
        known = "Of outcomes that they learned from, policy and baselines know all but the training's test rows."
        stdout.print(known, style="yellow")


def _load(checkpoint: Path, embedder: str | None) -> RLFocalPolicy:
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
    return RLFocalPolicy(parts, embedder=open_embedder(embedder or trained_with))


def _grid(policy: RLFocalPolicy, outcomes: Sequence[Path], rows: Rows, *, split: str) -> OutcomeGrid:
    """Read the policy's members; test rows are those of its training, where it says so and the split matters."""
    trained = _mapping(policy.card, "rows").get("test_ids")
    if rows.test_ids is not None or trained is None or split == "all":
        return read_rows(outcomes, policy.members, rows)
    if not isinstance(trained, str):
        raise CheckpointError(f"The checkpoint's `test_ids` must be a text, got {trained!r:.80}. Give `--test-ids`.")
    try:
        return read_rows(outcomes, policy.members, replace(rows, test_ids=trained))
    except OutcomeError as error:
        if error.column != "query_id" or error.file is not None:
            raise
        rule = (
            f"the policy was trained with `--test-ids {trained[:80]}`, which matches no query here. Give `--split all` for "
            "outcomes that it has never seen, or other `--test-ids`."
        )
        raise OutcomeError(rule, column="query_id") from error


def _baselines(
    policy: RLFocalPolicy, parts: Mapping[str, OutcomeGrid], *, split: str, max_team: int
) -> tuple[dict[str, Fitted], Source]:
    """Take the checkpoint's baselines, or fit them on rows that are not scored."""
    stored = baselines_of(policy)
    if stored:
        return stored, "checkpoint"
    if split == "test" and len(parts["train"]) and len(parts["validation"]):
        return fit_baselines(parts["train"], parts["validation"], max_team=max_team), "outcomes"
    return {}, "nowhere"


def _chosen(policy: RLFocalPolicy, limits: Limits) -> dict[str, Any]:
    """Complete the limits by those that a policy was trained for.

    Raises:
        CheckpointError: What the checkpoint says of them breaks a rule.
        InputError: It says nothing of one that is not given, or one that is given breaks a rule.
    """
    trained = _mapping(policy.card, "config")
    weight = limits.cost_weight
    if limits.target_calls is not None:
        weight = _weight_for(policy, limits.target_calls)
    given = {"cost_weight": weight, "max_team": limits.max_team, "max_rounds": limits.max_rounds}
    chosen: dict[str, Any] = {name: trained.get(name) if value is None else value for name, value in given.items()}
    unknown = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value is None]
    if unknown:
        raise InputError(f"The checkpoint does not say what it was trained for. Give {', '.join(unknown)}.")
    for name, value in chosen.items():
        is_weight = name == "cost_weight"
        kinds = (int, float) if is_weight else (int,)
        if type(value) in kinds and (0 if is_weight else 1) <= value < math.inf:
            continue
        rule = "a finite number, at least 0" if is_weight else "a whole number, at least 1"
        option = f"--{name.replace('_', '-')}"
        if given[name] is None:
            way_out = f"Give {option}, or train the policy again."
            raise CheckpointError(f"The checkpoint's `{name}` must be {rule}, got {value!r:.80}. {way_out}")
        raise InputError(f"`{option}` must be {rule}, got {value!r}.")
    return chosen


def _weight_for(policy: RLFocalPolicy, target_calls: float) -> float:
    """Take the cost weight from the policy's curve, which a stranger may have written."""
    weight = policy.cost_weight_for(target_calls)
    if not 0 <= weight < math.inf:
        way_out = "Give `--cost-weight`, or train the policy again."
        raise CheckpointError(f"The checkpoint's `curve` must hold finite weights from 0, got {weight}. {way_out}")
    return weight


def _mapping(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = card.get(name, {})
    if not isinstance(value, Mapping):
        shown = f"{value!r:.80}"
        raise CheckpointError(f"The checkpoint's `{name}` must be a JSON object, got {shown}. Train the policy again.")
    return value


def _notes(report: Report, facts: Mapping[str, Any]) -> Iterator[str]:
    """Say below the tables how the figures were made."""
    policy, target = report.policy, facts["target_calls"]
    usd = "" if policy.cost_usd is None else f", {policy.cost_usd:.6f} usd"
    seconds = "" if policy.latency_s is None else f", {policy.latency_s:.2f} s"
    most = f"at most {facts['max_team']} members in {facts['max_rounds']} rounds"
    yield f"The policy takes {report.mean_rounds:.2f} rounds{usd}{seconds} a query; {most}."
    taken = "" if target is None else f", taken for {target:g} calls a query from its curve on validation rows"
    yield f"Its cost weight is {facts['cost_weight']:.4g}{taken}."
    if report.oracle_gap_share is not None:
        yield f"It goes {report.oracle_gap_share:.1%} of the way from single best to Oracle."
    yield "The Oracle returns the best answer of any member, in hindsight. calls: members asked per query."
    if not facts["task_labels"]:
        yield "Task labels were hidden from the policy and the baselines."


def _warnings(report: Report, facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what flatters or lessens the figures."""
    if facts["baselines_from"] == "outcomes":
        yield "The checkpoint holds no baselines: they were fitted now, on other rows of these outcomes."
    if facts["baselines_from"] == "nowhere":
        yield "The checkpoint holds no baselines, and no rows are left to fit them on: some are left out."
    elif "supervised_fusion" in report.missing_baselines:
        yield WITHOUT_FUSION
    if report.dropped:
        yield f"Queries left out because a member did not answer them: {report.dropped}."
    if report.missing:
        yield f"Queries that lack a member's answer, which counts as its failure: {report.missing}."
    if facts["repeated"]:
        yield f"Queries left out of all parts because they have the text of a test query: {facts['repeated']}."

"""Training from the command line: outcomes in, a checkpoint out, with the baselines that it will be judged beside.

The checkpoint appears whole or not at all. Test rows are counted, and nothing else is done with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.text import Text
from threadpoolctl import threadpool_limits

from langchain_rlfocal import training
from langchain_rlfocal.cli.rows import Rows, open_embedder, read_rows
from langchain_rlfocal.cli.terminal import WITHOUT_FUSION, json_text, output, progress_bar
from langchain_rlfocal.evaluation.baselines import fit_baselines, missing_baselines
from langchain_rlfocal.evaluation.report import with_baselines
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.redaction import printable


def run_train(
    outcomes: Sequence[Path],
    members: Sequence[str] | None,
    *,
    out: Path,
    rows: Rows,
    config: Mapping[str, Any],
    embedder: str | None = None,
    as_json: bool = False,
) -> None:
    """Train a policy, fit the baselines on the same rows, and write both as one checkpoint.

    Args:
        outcomes: Tables of outcomes.
        members: The pool; None or empty takes every member of the tables.
        out: Directory of the checkpoint.
        rows: Which rows count.
        config: Fields of `TrainingConfig`; those that are None keep their defaults.
        embedder: Name of an embedder, which the checkpoint will remember.
        as_json: True prints one JSON object.

    Raises:
        RLFocalError: Something given breaks a rule; the message says which.
    """
    settings = training.TrainingConfig(**{name: value for name, value in config.items() if value is not None})
    with progress_bar() as progress:
        bar = progress.add_task("Reading outcomes", total=None)
        loaded = open_embedder(embedder)
        grid = read_rows(outcomes, members, rows)
        learned, chosen, test = grid.split()
        progress.update(bar, description="Training")

        def show(step: training.Progress) -> None:
            progress.update(bar, completed=step.step, total=step.total_steps)

        policy = training.train(learned, chosen, settings, embedder=loaded, on_progress=show)
        # Training may end before its last step, when nothing gets better any more.
        progress.update(bar, total=progress.tasks[bar].completed, description="Fitting baselines")
        with threadpool_limits(limits=1, user_api="blas"):  # the number of threads decides how sums are rounded
            fitted = fit_baselines(learned, chosen, max_team=settings.max_team, seed=settings.seed)
        # `evaluate` sets the same test rows apart, and describes queries by the same embedder.
        card = {**policy.card, "rows": {**asdict(rows), "task": list(rows.task or ["*"])}}
        if embedder is not None:
            card["embedder"] = embedder
        policy = RLFocalPolicy(replace(policy.parts, card=card), embedder=loaded)
        with_baselines(policy, fitted).save(out)
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
        "baselines": list(fitted),
        "missing_baselines": list(missing_baselines(fitted)),
        "card": card,
    }
    if as_json:
        typer.echo(json_text(facts))
    else:
        _show(facts)


def _show(facts: Mapping[str, Any]) -> None:
    """Print what was learned from, and what that gave on the validation rows, for people."""
    stdout = output()
    validation, curve = facts["card"]["validation"], facts["card"]["curve"]
    best, member_scores = validation["single_best"], validation["member_scores"]
    stdout.print(Text.assemble((facts["policy_id"], "bold"), f" in {printable(facts['path'])}"))
    counts = [f"{count} {name}" for name, count in facts["queries"].items() if count or name != "repeated"]
    lines = {
        "members": printable(", ".join(facts["members"])),
        "queries": ", ".join(counts),
        "validation": f"score {validation['score']:.3f} with {validation['mean_calls']:.2f} calls; "
        f"single best ({printable(best)}) {member_scores[best]:.3f}",
        "cost weight": " to ".join(
            f"{point['cost_weight']:g} ({point['mean_calls']:.2f} calls, score {point['score']:.3f})"
            for point in (curve[0], curve[-1])
        ),
    }
    for label, text in lines.items():
        stdout.print(Text(f"{label:<13}{text}"))
    if facts["queries"]["repeated"]:
        stdout.print("Repeated: queries with the text of a test query. They are left out.", style="yellow")
    if facts["missing"]:
        counted = "Queries that lack a member's answer, which counts as its failure"
        stdout.print(f"{counted}: {facts['missing']}.", style="yellow")
    if "supervised_fusion" in facts["missing_baselines"]:
        stdout.print(WITHOUT_FUSION, style="yellow", markup=False)

"""Commands that learn from outcomes: `train`."""

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

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
    Task,
    open_embedder,
    read_grid,
    show_result,
)
from langchain_rlfocal.cli.views import progress_bar, train_views


def train(
    outcomes: Outcomes,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint to write.")],
    member: Member = None,
    task: Task = None,
    missing: Missing = "mask",
    test_ids: Annotated[
        str | None, typer.Option(help='Keep the rows whose query_id matches ("test*") as test rows; default: by text.')
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same outcomes: the same checkpoint.")] = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    cost_weight: CostWeight = None,
    cost_unit: Annotated[
        Literal["auto", "usd", "tokens", "calls"] | None,
        typer.Option(help="What spending is counted in; auto: dollars where known, else calls."),
    ] = None,
    diversity_weight: Annotated[
        float | None, typer.Option(min=0, help="What focal diversity of the team is worth in the reward.")
    ] = None,
    embedder: EmbedderName = None,
    kind: KindName = None,
    as_json: Json = False,
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
        loaded = open_embedder(embedder)
        grid = read_grid(outcomes, member, task=task, missing=missing, test_ids=test_ids, kind=kind)
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
    show_result(facts, train_views(facts), as_json=as_json)

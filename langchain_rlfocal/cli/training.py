"""Commands that learn from outcomes: `train` and `sweep`."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_rlfocal.cli.options import (
    INTERRUPTED,
    CostWeight,
    EmbedderName,
    EngineName,
    Json,
    KindName,
    MaxRounds,
    MaxTeam,
    Member,
    Missing,
    Outcomes,
    RayAddress,
    Task,
    end_with,
    open_embedder,
    open_engine,
    read_grid,
    show_result,
)
from langchain_rlfocal.cli.training_view import TrainingView
from langchain_rlfocal.cli.views import messages, sweep_views, train_views
from langchain_rlfocal.errors import InputError

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import OutcomeGrid
    from langchain_rlfocal.policies import RLFocalPolicy


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
        typer.Option(help="What spending is counted in; auto: dollars where every member has some, else calls."),
    ] = None,
    diversity_weight: Annotated[
        float | None, typer.Option(min=0, help="What focal diversity of the team is worth in the reward.")
    ] = None,
    embedder: EmbedderName = None,
    kind: KindName = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="JSON lines, one an iteration; default: beside the checkpoint, OUT.metrics.jsonl."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(help="Log to MLflow, too: a local store's file such as mlflow.db, or a server's URI."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard's event file into this folder, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train Decider and Fusion on recorded outcomes, and fit the baselines; the test rows stay unseen.

    Ctrl-C keeps the best weights so far: they become a whole checkpoint. Ctrl-C again ends at once, and no checkpoint is written.

    Example: rlfocal train outcomes.parquet --out policy --max-team 3 --cost-weight 0.1
    """
    from langchain_rlfocal import training
    from langchain_rlfocal.training.metrics import JsonLines, Logger, Loggers, MLflow, TensorBoard

    config = training.TrainingConfig(
        **_given(
            seed=seed,
            max_team=max_team,
            max_rounds=max_rounds,
            cost_weight=cost_weight,
            cost_unit=cost_unit,
            diversity_weight=diversity_weight,
        )
    )
    written = metrics or out.with_name(f"{out.name}.metrics.jsonl")
    loggers: list[Logger] = [JsonLines(written)]
    if tensorboard is not None:
        loggers.append(TensorBoard(tensorboard))
    if mlflow is not None:
        loggers.append(MLflow(mlflow, config, name=out.name))
    stopped: training.TrainingInterrupted | None = None
    with TrainingView() as view, warnings.catch_warnings(record=True) as doubts:
        loaded = open_embedder(embedder)
        grid = read_grid(outcomes, member, task=task, missing=missing, test_ids=test_ids, kind=kind)
        warnings.simplefilter("always", UserWarning)
        rows = grid.split()
        with Loggers(*loggers) as log:

            def show(step: training.Progress) -> None:
                view(step)
                log(step)

            try:
                policy = training.train(*rows[:2], config, embedder=loaded, on_progress=show)
            except training.TrainingInterrupted as interruption:
                stopped = interruption
                messages().print(
                    f"Interrupted: a checkpoint is made of the best so far, of iteration {stopped.best_step}. "
                    "Again: ends at once.",
                    style="yellow",
                )
                policy = stopped.finish()
        policy.save(out)
    facts = _facts(policy, grid, rows, out=out, doubts=[str(d.message) for d in doubts if d.category is UserWarning])
    facts |= {"metrics": str(written), "interrupted_after": None if stopped is None else stopped.step}
    show_result(facts, train_views(facts), as_json=as_json)
    if stopped is not None:
        end_with(
            f"Interrupted after {stopped.step} of {config.num_iterations} iterations: {out} holds the best so far, of iteration "
            f"{stopped.best_step}, and can be evaluated and used. The same command trains anew.",
            code=INTERRUPTED,
        )


def _given(**options: Any) -> dict[str, Any]:
    """Leave out what was not given."""
    return {name: value for name, value in options.items() if value is not None}


def _facts(
    policy: "RLFocalPolicy",
    grid: "OutcomeGrid",
    rows: Sequence["OutcomeGrid"],
    *,
    out: Path,
    doubts: Sequence[str],
) -> dict[str, Any]:
    """Say what was learned from, and what came of it; plain values for JSON."""
    import numpy as np

    from langchain_rlfocal.evaluation.baselines import missing_baselines
    from langchain_rlfocal.evaluation.report import baselines_of
    from langchain_rlfocal.outcomes import spending_in

    baselines, asked = list(baselines_of(policy)), policy.card["config"]["cost_unit"]
    spending = spending_in(rows[0], asked)
    return {
        "policy_id": policy.policy_id,
        "path": str(out),
        "members": list(policy.members),
        "queries": {
            **dict(zip(("train", "validation", "test"), map(len, rows), strict=True)),
            "repeated": grid.repeated,
            "dropped": grid.dropped,
        },
        "missing": grid.missing,
        "unscored": int((grid.recorded & np.isnan(grid.scores)).sum()),
        "without_answers": not (grid.label_ids >= 0).any(),
        "cost_unit": {"asked": asked, "taken": spending.unit, "reason": spending.reason},
        "warnings": list(doubts),
        "contradictions": grid.contradictions,
        "baselines": baselines,
        "missing_baselines": list(missing_baselines(baselines)),
        "card": policy.card,
    }


def sweep(
    outcomes: Outcomes,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoints, one folder a run, and of the best.")],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0,1,2",
    max_team: Annotated[str | None, typer.Option(help="Members that may be asked for one query, with commas.")] = None,
    max_rounds: Annotated[str | None, typer.Option(help="Rounds in which they may be asked, with commas.")] = None,
    cost_weight: Annotated[
        str | None, typer.Option(help="What asking the whole pool is worth, in score, with commas.")
    ] = None,
    diversity_weight: Annotated[
        str | None, typer.Option(help="What focal diversity of the team is worth in the reward, with commas.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at a time, each a process of its own. Default: local 1, ray one for each CPU of the cluster.",
        ),
    ] = None,
    engine: EngineName = "local",
    address: RayAddress = None,
    member: Member = None,
    task: Task = None,
    missing: Missing = "mask",
    test_ids: Annotated[
        str | None, typer.Option(help='Keep the rows whose query_id matches ("test*") as test rows; default: by text.')
    ] = None,
    cost_unit: Annotated[
        Literal["auto", "usd", "tokens", "calls"] | None, typer.Option(help="What spending is counted in; as in train.")
    ] = None,
    embedder: EmbedderName = None,
    kind: KindName = None,
    as_json: Json = False,
) -> None:
    """Train with several seeds and limits, and choose the best by its score on validation rows; the test rows stay unseen.

    Every combination is trained for every seed and kept in its own folder of OUT; OUT/best is a copy of the best, OUT/sweep.json says
    what there is. The same command goes on where it was stopped: what is finished is not trained again.

    Example: rlfocal sweep outcomes.parquet --out sweep --seeds 0,1,2 --max-team 2,3 --max-rounds 1,2 --jobs 2
    """
    from langchain_rlfocal import training
    from langchain_rlfocal.training.sweep import Run, Sweep, runs_of
    from langchain_rlfocal.training.sweep import sweep as train_all

    base = training.TrainingConfig(**_given(cost_unit=cost_unit))
    options = {"max_team": max_team, "max_rounds": max_rounds}
    weights = {"cost_weight": cost_weight, "diversity_weight": diversity_weight}
    varied: dict[str, list[Any]] = {
        name: _numbers(name, text, int) for name, text in options.items() if text is not None
    }
    varied |= {name: _numbers(name, text, float) for name, text in weights.items() if text is not None}
    runs = runs_of(base, varied, _numbers("seeds", seeds, int))
    finished: list[Run] = []
    views: dict[str, TrainingView] = {}
    with ExitStack() as stack, warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", UserWarning)
        loaded = open_embedder(embedder)
        grid = read_grid(outcomes, member, task=task, missing=missing, test_ids=test_ids, kind=kind)
        learned, chosen, test = grid.split()

        def tell(_: Sweep, run: Run) -> None:
            stack.close()
            finished.append(run)
            assert run.score is not None
            assert run.calls is not None
            found = ", found finished" if run.was_there else ""
            messages().print(
                f"{len(finished)} of {len(runs)}: {run.name}, validation score {run.score:.3f}, {run.calls:.2f} calls{found}",
                soft_wrap=True,
            )

        def show(run: Run, step: training.Progress) -> None:
            if run.name not in views:
                stack.close()
                views[run.name] = stack.enter_context(TrainingView(run.name, is_brief=True))
            views[run.name](step)

        try:
            with open_engine(engine, jobs, address) as opened:
                where: dict[str, Any] = {"jobs": opened.workers} if engine == "local" else {"engine": opened}
                done = train_all(learned, chosen, runs, out, embedder=loaded, on_run=tell, on_progress=show, **where)
        except KeyboardInterrupt:
            end_with(
                f"Interrupted: {len(finished)} of {len(runs)} runs are in {out}. The same command goes on with the others.",
                code=INTERRUPTED,
            )
    facts = {
        "path": str(out),
        **done.as_dict(),
        "queries": {"train": len(learned), "validation": len(chosen), "test": len(test)},
        "warnings": sorted({str(doubt.message) for doubt in doubts if doubt.category is UserWarning}),
    }
    show_result(facts, sweep_views(done, facts), as_json=as_json)


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    """Read numbers with commas between them."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        option, what = f"--{name.replace('_', '-')}", "whole numbers" if kind is int else "numbers"
        raise InputError(
            f"`{option}` must be {what} with commas between them, got {text!r}. For example 1,2."
        ) from None

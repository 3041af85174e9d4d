"""Sweeps: the same outcomes trained on with several limits and seeds, each checkpoint kept, the best chosen by validation.

A run is a configuration; runs that differ in their seed alone are a setting, and a setting's figure is the mean over its seeds. Only
rows that training may see choose: of the test rows nothing is read, so that the best can still be evaluated on them. They are
the validation rows and, where these are few, training rows beside them; the score of the best of several is flattered by both.

A finished run is known by its checkpoint, which holds its configuration and the hash of its outcomes, and is not trained again.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from langchain_rlfocal.engines import Engine, LocalEngine
from langchain_rlfocal.errors import CheckpointError, InputError, WorkerError
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.outcomes.files import written_whole
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import read_checkpoint, write_checkpoint
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.mappo import train
from langchain_rlfocal.training.metrics import Progress
from langchain_rlfocal.training.supervised import data_hash

_SHORT = {"max_team": "team", "max_rounds": "rounds", "cost_weight": "cost", "diversity_weight": "diversity"}
"""What a run's name calls what a sweep may vary besides the seed."""

SUMMARY, BEST = "sweep.json", "best"


@dataclass(frozen=True, slots=True)
class Run:
    """A configuration and, once it was trained, what came of it.

    Attributes:
        name: Its folder's name, made of what sweeps vary.
        config: The configuration.
        policy_id: The policy's; None before it was trained, as the three below.
        score: Mean score on the rows that chose its weights, at its cost weight.
        calls: Mean calls there.
        best_step: Iteration of the weights that were kept.
        was_there: Whether it was found finished.
    """

    name: str
    config: TrainingConfig
    policy_id: str | None = None
    score: float | None = None
    calls: float | None = None
    best_step: int | None = None
    was_there: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it was trained."""
        return self.policy_id is not None


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        varied: What the sweep varies, by name, seed left out.
        runs: Its finished runs.
        score: Mean of their scores.
        spread: Standard deviation of these over the seeds; None of a single one.
        calls: Mean of their mean calls.
    """

    varied: Mapping[str, float]
    runs: tuple[Run, ...]
    score: float
    spread: float | None
    calls: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """All runs of a sweep.

    Attributes:
        runs: The runs, in the order in which they are trained.
    """

    runs: tuple[Run, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Settings with a finished run, in the order of the runs."""
        groups: dict[TrainingConfig, list[Run]] = {}
        for run in self.runs:
            if run.is_done:
                groups.setdefault(replace(run.config, seed=0), []).append(run)
        settings = []
        for config, runs in groups.items():
            scores = [run.score for run in runs if run.score is not None]
            spread = stdev(scores) if len(scores) > 1 else None
            calls = fmean(run.calls for run in runs if run.calls is not None)
            settings.append(
                Setting({name: getattr(config, name) for name in _SHORT}, tuple(runs), fmean(scores), spread, calls)
            )
        return tuple(settings)

    @property
    def best_setting(self) -> Setting | None:
        """The setting of the highest mean score; of equals that of fewest calls, then the first."""
        return max(self.settings, key=lambda s: (round(s.score, 12), -round(s.calls, 12)), default=None)

    @property
    def best(self) -> Run | None:
        """The run of the highest score of the best setting; of equals the first."""
        setting = self.best_setting
        return None if setting is None else max(setting.runs, key=lambda run: run.score or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        best, setting = self.best, self.best_setting
        return {
            "chosen_by": "mean validation score over the seeds, then the seed's own; where validation rows are few, training rows count "
            "with them; test rows were not read",
            "best": None if best is None else best.name,
            "settings": [
                {
                    **one.varied,
                    "seeds": [run.config.seed for run in one.runs],
                    "score": one.score,
                    "spread": one.spread,
                    "calls": one.calls,
                    "is_best": one is setting or one == setting,
                }
                for one in self.settings
            ],
            "runs": [
                {
                    "name": run.name,
                    "policy_id": run.policy_id,
                    "score": run.score,
                    "calls": run.calls,
                    "best_step": run.best_step,
                    "config": asdict(run.config),
                }
                for run in self.runs
            ],
        }


def runs_of(base: TrainingConfig, varied: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> tuple[Run, ...]:
    """Combine all values of all that is varied with all seeds; settings in the order given, seeds innermost.

    Args:
        base: The configuration of what is not varied.
        varied: Values by name: `max_team`, `max_rounds`, `cost_weight` or `diversity_weight`.
        seeds: The seeds.

    Raises:
        InputError: A value is outside its range, or given twice.
    """
    for name, values in {**varied, "seed": seeds}.items():
        if not values or len(set(values)) != len(values):
            shown = ",".join(f"{value:g}" for value in values)
            raise InputError(f"`{name}` must have at least one value and none twice, got {shown or 'none'}.")
    runs = []
    for values in product(*varied.values()):
        given: dict[str, Any] = dict(zip(varied, values, strict=True))
        setting = replace(base, **given)
        name = "-".join(f"{short}{getattr(setting, long):g}" for long, short in _SHORT.items())
        runs += [Run(f"{name}-seed{seed}", replace(setting, seed=seed)) for seed in seeds]
    return tuple(runs)


def sweep(
    train_grid: OutcomeGrid,
    validation_grid: OutcomeGrid,
    runs: Sequence[Run],
    folder: str | PathLike[str],
    *,
    embedder: Embedder | None = None,
    jobs: int = 1,
    engine: Engine | None = None,
    on_run: Callable[[Sweep, Run], None] | None = None,
    on_progress: Callable[[Run, Progress], None] | None = None,
) -> Sweep:
    """Train what is not there yet, keep each checkpoint in `folder/NAME`, and copy the best to `folder/best`.

    After each run `folder/sweep.json` says what there is, so that an interruption loses nothing but the run under way.

    Args:
        train_grid: Outcomes to learn from.
        validation_grid: Outcomes to choose by.
        runs: What to train; see `runs_of`.
        folder: Where checkpoints go. Runs of the same name, configuration and outcomes are taken as they are.
        embedder: Gives the queries more features.
        jobs: Processes of this machine that train at the same time; each computes on one thread.
        engine: Where runs are trained instead, by as many at a time as it has workers.
        on_run: Called with what there is and each run that was trained or found.
        on_progress: Called as in `train`, where one run is trained after the other in this process.

    Raises:
        InputError: `folder` holds a run of that name on other outcomes or with another configuration, or `jobs` is below 1.
        OutcomeError: As of `train`.
        WorkerError: A run's worker was killed again and again; what is finished is kept.
        KeyboardInterrupt: As it comes; what is finished is kept.
    """
    if jobs < 1:
        raise InputError(f"`jobs` must be at least 1, got {jobs}.")
    folder = Path(folder)
    grids = (train_grid.canonical(), validation_grid.canonical())
    digest = data_hash(*grids)
    done = Sweep(tuple(_found(run, folder, digest, embedder) for run in runs))
    for run in done.runs:
        if run.is_done and on_run is not None:
            on_run(done, run)
    left = [run for run in done.runs if not run.is_done]
    work = _Work(grids, embedder)
    if engine is None and min(jobs, len(left)) > 1:
        engine = LocalEngine(min(jobs, len(left)))
    with closing(_trained(left, work, engine=engine, on_progress=on_progress)) as finished:
        for trained, policy in finished:
            policy.save(folder / trained.name)
            run = _described(trained, folder / trained.name, embedder)
            done = Sweep(tuple(run if run.name == one.name else one for one in done.runs))
            _write_summary(done, folder)
            if on_run is not None:
                on_run(done, run)
    _write_summary(done, folder)
    if done.best is not None:
        write_checkpoint(folder / BEST, read_checkpoint(folder / done.best.name))
    return done


def _found(run: Run, folder: Path, digest: str, embedder: Embedder | None) -> Run:
    """Take a finished run as it is."""
    path = folder / run.name
    if not path.exists():
        return run
    try:
        card = read_checkpoint(path).card
    except CheckpointError as error:  # a run appears whole or not at all: this is something else
        raise InputError(f"`{path}` must be free for a run of the sweep: {error} Choose another folder.") from error
    if card.get("data_sha256") != digest or card.get("config") != asdict(run.config):
        what = "on other outcomes" if card.get("data_sha256") != digest else "with another configuration"
        raise InputError(f"`{path}` holds a run {what} than this sweep's. Choose another folder, or delete it.")
    return replace(_described(run, path, embedder), was_there=True)


def _described(run: Run, path: Path, embedder: Embedder | None) -> Run:
    """Read what came of a run."""
    policy = RLFocalPolicy.load(path, embedder=embedder)
    validation, training = policy.card["validation"], policy.card["training"]
    return replace(
        run,
        policy_id=policy.policy_id,
        score=validation["score"],
        calls=validation["mean_calls"],
        best_step=training["best_step"],
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What every run shares; picklable, for other processes and machines."""

    grids: tuple[OutcomeGrid, OutcomeGrid]
    embedder: Embedder | None

    def __call__(self) -> Callable[[Run], RLFocalPolicy]:
        return self.do

    def do(self, run: Run, on_progress: Callable[[Progress], None] | None = None) -> RLFocalPolicy:
        """Train a run; its policy is for the caller to keep, who may be on another machine."""
        return train(*self.grids, run.config, embedder=self.embedder, on_progress=on_progress)


def _trained(
    runs: Sequence[Run],
    work: _Work,
    *,
    engine: Engine | None,
    on_progress: Callable[[Run, Progress], None] | None,
) -> Generator[tuple[Run, RLFocalPolicy]]:
    """Train these runs, and yield each as it is finished; one whose worker was killed is trained again."""
    if engine is None:
        for run in runs:
            yield run, work.do(run, None if on_progress is None else partial(on_progress, run))
        return
    with closing(engine.map(work, runs)) as finished:
        for done in finished:
            if isinstance(done.error, WorkerError):
                raise WorkerError(
                    f"The worker of {done.item.name} was killed {done.deaths} times, as where memory runs out. What is finished is kept: the "
                    f"same command goes on with the others. With fewer workers than {engine.workers} it takes less memory."
                ) from done.error
            yield done.item, done.result()


def _write_summary(done: Sweep, folder: Path) -> None:
    """Write `sweep.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / SUMMARY) as sink:
        sink.write(json.dumps(done.as_dict(), indent=2, allow_nan=False).encode() + b"\n")

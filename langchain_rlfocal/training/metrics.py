"""Metrics of training: what each figure of an iteration is, by its formula, and who writes them down.

`FORMULAS` is the one place that says what a metric means. A logger is called with every `Progress` of `train`, by `on_progress`, and
writes what has metrics: `JsonLines` to a file, `MLflow` and `TensorBoard` to what their names say. None of them changes what is
learned, and `JsonLines` reads no clock, so that the same seed and outcomes write the same lines.
"""

import importlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import numpy as np

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.redaction import masked, printable, secrets_of
from langchain_rlfocal.states import Floats
from langchain_rlfocal.training.config import TrainingConfig

FORMULAS: Mapping[str, str] = {
    "reward": "mean over the rollout's episodes of Σₜ rₜ: score of the answer + diversity_weight · focal diversity − cost weight · "
    "charge of the calls; cost weights are drawn anew for each episode, and each third iteration plays tasks as if they were new",
    "calls": "mean over the rollout's episodes of the members asked",
    "approx_kl": "mean(r − 1 − log r), r = π/π_old, of the Decider's decisions plus the same of Fusion's, over the last pass "
    "(Schulman's k3); a pass that exceeds target_kl is the last",
    "clip_fraction": "share of decisions, of both actors, with |r − 1| > clip_epsilon, over the last pass",
    "entropy": "mean entropy of the Decider's choice of a team, in nats, over the last pass",
    "fusion_entropy": "mean entropy of Fusion's choice of a candidate, in nats, over the last pass",
    "policy_loss": "−mean(min(r A, clip(r, 1 − ε, 1 + ε) A)) of the Decider plus the same of Fusion, over the last pass",
    "value_loss": "½ mean(max((v − R)², (v_old + clip(v − v_old, −ε, ε) − R)²)), over the last pass",
    "explained_variance": "1 − Var(R − v)/Var(R), of the returns R = A + v and the critic's values v before the updates; "
    "absent where all returns are equal",
    "passes": "passes over the rollout that were made, num_epochs at most",
    "validation": "mean over cost weights of score − cost weight · spending, on rows that no fit has seen, without randomness; only in "
    "iterations that validate",
    "best_validation": "the largest `validation` so far, that of the start included: whose weights are kept",
}
"""What each metric of an iteration is."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        stage: What is done now: `labels`, `competence and evidence`, `reinforcement`, `curve`, `last fit` or `baselines`.
        step: Iterations done.
        total_steps: Iterations at most.
        metrics: Those of the iteration that has just ended, see `FORMULAS`; none where a stage begins.
    """

    stage: str
    step: int
    total_steps: int
    metrics: Mapping[str, float]


def explained_variance(values: Floats, returns: Floats) -> float | None:
    """Compute 1 − Var(R − v)/Var(R): 1 where the critic knows the returns, 0 where it knows their mean alone.

    Args:
        values: v, shape [N].
        returns: R, shape [N].

    Returns:
        At most 1; None where the returns do not vary.
    """
    variance = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / variance if variance > 0 else None


# ---- loggers

Logger = Callable[[Progress], None]


class JsonLines:
    """One JSON object an iteration: `step`, and the metrics of `FORMULAS`.

    The file is begun anew with the first iteration, so that a training which is refused leaves what was there. Each line is on its
    way to the disk before the next iteration begins.

    Args:
        path: The file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._has_begun = False

    def __call__(self, progress: Progress) -> None:
        """Append a line."""
        if not progress.metrics:
            return
        if not self._has_begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self._has_begun else "w", encoding="utf-8") as file:
            file.write(json.dumps({"step": progress.step, **progress.metrics}, allow_nan=False) + "\n")
        self._has_begun = True


class MLflow(AbstractContextManager["MLflow"]):
    """A run of an MLflow experiment: the configuration as parameters, the metrics by iteration.

    The run begins where the `with` block does.

    Args:
        uri: Where its store is: a file of the local store (SQLite; made where there is none), or a URI that MLflow knows. Nothing is
            sent elsewhere.
        config: What is trained with.
        name: The run's name.
        experiment: The experiment's name; made where there is none.

    Raises:
        MissingDependencyError: MLflow is not installed.
        InputError: The store cannot be opened, where the block begins.
    """

    def __init__(self, uri: str, config: TrainingConfig, *, name: str, experiment: str = "rlfocal") -> None:
        try:
            self._tracking: Any = importlib.import_module("mlflow.tracking")
            self._entities: Any = importlib.import_module("mlflow.entities")
        except ImportError as error:
            raise MissingDependencyError(
                "`--mlflow` needs MLflow: `pip install 'langchain-rlfocal[mlflow]'`. Or leave it out."
            ) from error
        self.uri = uri if "://" in uri or uri == "databricks" else f"sqlite:///{Path(uri).absolute()}"
        self._config, self._name, self._experiment = config, name, experiment

    def __enter__(self) -> Self:
        """Open the store, and begin the run."""
        try:
            with _quiet(), _few_retries():
                self._client = self._tracking.MlflowClient(tracking_uri=self.uri)
                found = self._client.get_experiment_by_name(self._experiment)
                number = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
                self.run_id: str = self._client.create_run(number, run_name=self._name).info.run_id
                parameters = [self._entities.Param(name, str(value)) for name, value in asdict(self._config).items()]
                self._client.log_batch(self.run_id, params=parameters)
        except Exception as error:  # noqa: BLE001  # MLflow raises errors of its own, of SQLAlchemy and of requests
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"The MLflow store {_shown(self.uri, self.uri)!r} must be one that can be written: {_shown(reason, self.uri)}"
            ) from None  # what led to it may tell a password
        return self

    def __call__(self, progress: Progress) -> None:
        """Log an iteration."""
        if not progress.metrics:
            return
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, progress.step) for name, value in progress.metrics.items()]
        with _quiet():
            self._client.log_batch(self.run_id, metrics=metrics)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: finished, killed by an interruption, or failed."""
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        with _quiet():
            self._client.set_terminated(self.run_id, status=status)


_LOUD = ("mlflow", "alembic", "urllib3.connectionpool")
"""Loggers that tell of each step of making a store, and of each attempt to reach one."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Let no warning out of MLflow, which warns of what it uses itself, and no message but errors."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that is not there is told at once, not after minutes; while training is under way, MLflow is as patient as it is."""


@contextmanager
def _few_retries() -> Iterator[None]:
    """Let MLflow retry once, unless the user has said how often."""
    given = {name: value for name, value in _FEW_RETRIES.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


def _shown(text: str, uri: str) -> str:
    """Hide what a URI holds of passwords and keys in a text, and put it on one line."""
    secrets = set(secrets_of(uri))
    with suppress(ValueError):  # no URI at all
        password = urlsplit(uri).password
        secrets |= {password, unquote(password)} if password else set()
    return printable(masked(text, secrets))


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """An event file of TensorBoard: the metrics as scalars by iteration.

    Args:
        folder: Where it is written; `tensorboard --logdir FOLDER` shows it.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        try:
            self._writer_of: Any = importlib.import_module("tensorboardX").SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "`--tensorboard` needs tensorboardX: `pip install 'langchain-rlfocal[tensorboard]'`. Or leave it out."
            ) from error
        self._folder = str(folder)

    def __enter__(self) -> Self:
        """Open the file."""
        self._writer: Any = self._writer_of(self._folder)
        return self

    def __call__(self, progress: Progress) -> None:
        """Add the scalars of an iteration."""
        for name, value in progress.metrics.items():
            self._writer.add_scalar(name, value, progress.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left."""
        self._writer.close()


class Loggers(ExitStack):
    """Several loggers as one `on_progress`.

    Args:
        loggers: Those that must be closed are closed with it.
    """

    def __init__(self, *loggers: Logger) -> None:
        super().__init__()
        self._loggers = loggers
        for logger in loggers:
            if isinstance(logger, AbstractContextManager):
                self.enter_context(logger)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __call__(self, progress: Progress) -> None:
        """Call each of them."""
        for logger in self._loggers:
            logger(progress)

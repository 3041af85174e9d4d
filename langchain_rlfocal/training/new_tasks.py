"""New tasks: what a policy scores on tasks that it was never shown.

For each group of tasks a policy is trained, and its baselines are fitted, on the outcomes of all other tasks; the group's
are its test rows. So a query is judged by somebody who knows neither its task nor its text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.evaluation import Report, baselines_of, evaluate
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.targets import Target
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.mappo import train
from langchain_rlfocal.training.metrics import Progress


@dataclass(frozen=True, slots=True)
class NewTask:
    """A policy on a group of tasks that were left out of its training.

    Attributes:
        name: The group's name.
        tasks: Its tasks.
        trained_on: Queries of other tasks that the policy was trained on.
        report: Its figures and those of the baselines.
    """

    name: str
    tasks: tuple[str, ...]
    trained_on: int
    report: Report

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values that JSON can hold."""
        return {"tasks": list(self.tasks), "trained_on": self.trained_on, **self.report.as_dict()}


def groups_of(tasks: Sequence[str], patterns: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Group tasks that are left out together.

    Args:
        tasks: The tasks' names.
        patterns: Names with wildcards, a group each; None groups by the first part of the names, or where all begin with the
            same one makes each task a group.

    Raises:
        InputError: A pattern matches no task or all of them, or without patterns there is one task only.
    """
    names = sorted(set(tasks))
    if patterns is None:
        firsts = {name.partition("/")[0] for name in names}
        patterns = sorted(firsts) if len(firsts) > 1 else names
        groups = {first: tuple(n for n in names if first in (n, n.partition("/")[0])) for first in patterns}
    else:
        groups = {pattern: tuple(n for n in names if fnmatchcase(n, pattern)) for pattern in patterns}
    for name, group in groups.items():
        if not group or len(group) == len(names):
            raise InputError(
                f"What is left out must be some of the tasks, and not all, got {name!r}, which matches {len(group)} of "
                f"{len(names)}. The tasks begin: {', '.join(names[:10])}."
            )
    return groups


def leave_task_out(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    patterns: Sequence[str] | None = None,
    target: Target | None = None,
    hide_tasks: bool = False,
    embedder: Embedder | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[NewTask]:
    """Train on all tasks but one group and evaluate on that, for each group in turn: as many trainings as groups.

    Args:
        grid: The outcomes. That a file sets test rows apart does not count here.
        config: Hyperparameters and limits.
        patterns: Which groups; see `groups_of`.
        target: What a query may take on average; None takes the configured cost weight.
        hide_tasks: Whether nobody who decides sees a task label.
        embedder: Gives the queries more features.
        on_progress: Called after each iteration of a training.

    Raises:
        InputError: See `groups_of`.
        OutcomeError: There are too few rows of the other tasks, or every query of a group has the text of another task's.
    """
    for name, tasks in groups_of(grid.tasks, patterns).items():
        is_left_out = np.isin(np.array(grid.tasks, dtype=object), tasks)
        learned, chosen, test = replace(grid, is_test=is_left_out).split()
        try:
            policy = train(learned, chosen, config, embedder=embedder, on_progress=on_progress)
        except OutcomeError as error:
            raise OutcomeError(f"Without the tasks of {name!r}: {error}") from error
        report = evaluate(
            policy,
            test,
            baselines=baselines_of(policy),
            cost_weight=config.cost_weight,
            max_team=config.max_team,
            max_rounds=config.max_rounds,
            hide_tasks=hide_tasks,
            target=target,
            seed=config.seed,
        )
        yield NewTask(name, tasks, trained_on=len(learned), report=report)

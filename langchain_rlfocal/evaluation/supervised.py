"""Supervised fusion: ask everyone, and let a logistic regression say which answer is right.

The one baseline that learns how to fuse. scikit-learn fits it; what is kept are numbers, so that deciding needs NumPy alone.
"""

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.evaluation.decisions import (
    Decision,
    Floats,
    answer_ids_of,
    competence_of,
    decision_of,
    vote,
)
from langchain_rlfocal.evaluation.votes import log_odds
from langchain_rlfocal.outcomes import OutcomeGrid


@dataclass(frozen=True, slots=True)
class SupervisedFusion:
    """Ask everyone and return the answer that is most probably right, by a logistic regression over answers.

    Each distinct answer of each fitted query is one example, right if its score is at least ½. Its features are who gave it
    (M of 0 and 1), who gave it on this task (the same M again for each task, times `task_scale`), its share of the query's
    votes, and the sum of its supporters' log-odds (`WeightedVote`). All are sums over supporters, so the fitted rule is a
    vote: a member of a query with n votes weighs

        w = its coefficient + task_scale · its coefficient on the task
            + coefficient of the sum · its log-odds + coefficient of the share / n

    The ridge penalty draws a member's weight on each task toward its weight on all of them, the more the smaller
    `task_scale` is; 0 is blind to tasks. Where all answers are right, or all are wrong, there is nothing to tell apart, and
    w is the log-odds.

    Attributes:
        task_scale: From 0; how freely weights may differ between tasks.
        inverse_penalty: scikit-learn's C, above 0: the larger, the weaker the ridge penalty.
    """

    task_scale: float = 0.2
    inverse_penalty: float = 1.0

    def fit(self, grid: OutcomeGrid) -> "FittedSupervisedFusion":
        """Learn what each member's support is worth.

        Raises:
            InputError: `grid` holds no query, or `task_scale` is negative or not finite.
            MissingDependencyError: scikit-learn is not installed.
        """
        if not 0 <= self.task_scale < np.inf:
            raise InputError(
                f"`task_scale` must be finite and not negative, got {self.task_scale}. 0 is blind to tasks."
            )
        competence, odds = competence_of(grid), log_odds(grid)
        try:
            logistic_regression: Any = importlib.import_module("sklearn.linear_model").LogisticRegression
            sparse: Any = importlib.import_module("scipy.sparse")  # which comes with it
        except ImportError as error:
            raise MissingDependencyError(
                "The baseline `supervised_fusion` needs scikit-learn: `pip install 'langchain-rlfocal[evaluation]'`. "
                "Or leave it out."
            ) from error
        members, tasks = len(grid.members), tuple(sorted(set(grid.tasks)))
        _, ids = answer_ids_of(grid.members, grid)
        supporters = ids[:, None, :] == np.arange(members)[:, None]
        query, answer = np.nonzero(supporters.any(axis=2))
        supporters = supporters[query, answer]
        count = supporters.sum(axis=1)
        right = (supporters * grid.scores[query]).sum(axis=1) / np.maximum(count, 1) >= 0.5
        fitted = FittedSupervisedFusion(
            members=grid.members,
            weights=odds,
            share=0.0,
            tasks=tasks,
            task_weights=np.zeros((len(tasks), members)),
            competence=competence,
        )
        if right.all() or not right.any():
            return fitted
        general = np.column_stack([supporters, count / (ids >= 0).sum(axis=1)[query], supporters @ odds])
        place = {task: index for index, task in enumerate(tasks)}
        of_task = np.array([place[task] for task in grid.tasks])[query]
        example, member = np.nonzero(supporters)
        # One example has supporters on one task only: the matrix of all tasks is kept sparse.
        column = of_task[example] * members + member
        special = sparse.csr_matrix(
            (np.full(len(example), self.task_scale), (example, column)), shape=(len(query), len(tasks) * members)
        )
        features = sparse.hstack([sparse.csr_matrix(general), special], format="csr")
        model = logistic_regression(C=self.inverse_penalty, max_iter=1000).fit(features, right)
        own, (of_share, of_odds), of_tasks = np.split(model.coef_[0], [members, members + 2])
        return replace(
            fitted,
            weights=own + of_odds * odds,
            share=float(of_share),
            task_weights=self.task_scale * of_tasks.reshape(len(tasks), members),
        )


@dataclass(frozen=True, eq=False, slots=True)
class FittedSupervisedFusion:
    """A vote of all members with learned weights.

    Attributes:
        members: Names of the members.
        weights: Weight of each member's vote, shape [M].
        share: Weight of an answer's share of the votes.
        tasks: Names of the tasks, T of them.
        task_weights: What a member's vote weighs more on each task, shape [T, M]; nothing where the query's task is none of
            these, or not told.
        competence: Mean score on the fitted queries, shape [M]; breaks ties as in `FittedVote`.
    """

    members: tuple[str, ...]
    weights: Floats
    share: float
    tasks: tuple[str, ...]
    task_weights: Floats
    competence: Floats

    def decide(self, grid: OutcomeGrid) -> Decision:
        """Ask everyone and return the most probable answer."""
        columns, ids = answer_ids_of(self.members, grid)
        asked = np.ones(ids.shape, dtype=bool)
        count = (ids >= 0).sum(axis=1, keepdims=True)
        place = {task: index for index, task in enumerate(self.tasks)}
        # An unknown task reads the zeros at the end.
        more = np.vstack([self.task_weights, np.zeros(len(columns))])[[place.get(task, -1) for task in grid.tasks]]
        weights = self.weights + more + self.share / np.maximum(count, 1)
        chosen = vote(ids, asked, weights=weights, competence=self.competence)
        return decision_of(grid, columns, chosen=chosen, asked=asked)

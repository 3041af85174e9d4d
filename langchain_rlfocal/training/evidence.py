"""The supervised warm start: fit the evidence model, which Fusion's vote begins with, to recorded outcomes.

Maximises the likelihood of the right candidates over drawn teams, by L-BFGS. The fit is convex but for fractional scores,
deterministic, and cross-fitted: what training reads of a query comes from a fit that did not see it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langchain_rlfocal.policies.evidence import (
    RESPONSE_DIM,
    EvidenceModel,
    context_of,
    moments_of,
    response_features,
    scaled_options,
)
from langchain_rlfocal.states import Answers, Bools, Floats, Ints

PENALTIES = (3e-4, 3e-3, 3e-2, 3e-1)
"""Weights of the squared coefficients, to choose from by cross-validation."""

MIN_LABEL_COUNT = 10
"""A label that stands for a candidate of fewer queries of its task has no coefficient."""

_MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class Examples:
    """What the fit reads of Q queries.

    Attributes:
        features: Query features, shape [Q, F].
        competence: Cross-fitted competence, shape [Q, M].
        tasks: Task labels, Q of them.
        answers: What all members answered.
        scores: Recorded score of each candidate, shape [Q, K].
        teams: Members taken as asked, shape [Q, M].
    """

    features: Floats
    competence: Floats
    tasks: Sequence[str | None]
    answers: Answers
    scores: Floats
    teams: Bools


def draw_teams(num_queries: int, num_members: int, max_team: int, rng: np.random.Generator) -> Bools:
    """Draw teams to fit on, shape [Q, M]: all members for one query in two, else a random team of random size."""
    size = rng.integers(1, min(max_team, num_members) + 1, size=num_queries)
    size[rng.random(num_queries) < 0.5] = num_members
    order = rng.random((num_queries, num_members)).argsort(axis=1).argsort(axis=1)
    return order < size[:, None]


def frequent_labels(tasks: Sequence[str | None], answers: Answers) -> list[tuple[str, str]]:
    """List task and label of the candidates that occur in many queries, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for task, labels in zip(tasks, answers.labels, strict=True):
        counts.update((task or "", label) for label in {label for label in labels if label})
    frequent = [pair for pair, count in counts.items() if count >= MIN_LABEL_COUNT]
    # By name where equally frequent: sets of texts come in another order in every process.
    return sorted(frequent, key=lambda pair: (-counts[pair], pair))


class _Problem:
    """The negative log-likelihood of the right candidates, as a function of the coefficients."""

    def __init__(self, examples: Examples, moments: Floats, labels: Sequence[tuple[str, str]]) -> None:
        answers, asked = examples.answers, examples.teams
        q, m = asked.shape
        self._shape = (q, answers.labels.shape[1])
        self.num_members, self.num_labels = m, len(labels)
        width = self._shape[1] + 1
        supported = asked & (answers.places >= 0)
        cells = np.arange(q)[:, None] * width + np.where(supported, answers.places, width - 1)
        self._cells = torch.from_numpy(cells.ravel())
        self._supported = torch.from_numpy(supported.astype(np.float32))
        self._context = torch.from_numpy(context_of(examples.features).astype(np.float32))
        self.context_dim = self._context.shape[1]
        competence = examples.competence
        self._log_odds = torch.from_numpy((np.log(competence) - np.log1p(-competence)).astype(np.float32))
        self._looks = torch.from_numpy(response_features(answers, moments).astype(np.float32))
        exists = np.zeros((q, width), dtype=bool)
        exists.ravel()[cells.ravel()] = True
        exists = exists[:, :-1]
        self._options: Tensor | None = None
        if answers.option_scores is not None:
            scaled = scaled_options(answers.option_scores, moments)
            given = ~np.isnan(scaled)
            exists |= (given | ~asked[:, :, None]).all(axis=1)
            self._options = torch.from_numpy((np.where(given, scaled, 0.0) * asked[:, :, None]).astype(np.float32))
        places = {pair: place for place, pair in enumerate(labels)}
        codes = np.full(self._shape, len(labels))
        for row, task in enumerate(examples.tasks):
            codes[row] = [
                places.get((task or "", label), len(labels)) if label else len(labels) for label in answers.labels[row]
            ]
        self._codes = torch.from_numpy(codes)
        right = np.where(exists, examples.scores, 0.0)
        # Where no candidate is right, or all are, nothing can be learned about which.
        told = (right.max(axis=1) > 0) & (np.where(exists, right, np.inf).min(axis=1) < right.max(axis=1))
        self._told = torch.from_numpy(told)
        self._right = torch.from_numpy(right.astype(np.float32)[told])
        self._exists = torch.from_numpy(exists)

    def evidence(self, parts: dict[str, Tensor]) -> Tensor:
        """Compute log-odds of every candidate, shape [Q, K]."""
        q, k = self._shape
        shared = parts["shared"]
        trust = shared[0] * self._log_odds + shared[1] + self._context @ parts["weights"]
        trust = (trust + torch.einsum("qmr,rm->qm", self._looks, parts["response"])) * self._supported
        total = torch.zeros(q * (k + 1)).index_add(0, self._cells, trust.reshape(-1)).reshape(q, k + 1)[:, :-1]
        if self._options is not None:
            slopes = shared[2] + self._context @ parts["slopes"]
            total = total + torch.einsum("qm,qmk->qk", slopes, self._options)
        return total + torch.cat([parts["labels"], torch.zeros(1)])[self._codes]

    def loss(self, parts: dict[str, Tensor]) -> Tensor:
        """Mean of −log Σ_k π(k) score(k) over the queries that tell something."""
        logits = self.evidence(parts).masked_fill(~self._exists, -1e9)[self._told]
        shares = torch.log_softmax(logits, dim=1)
        return -torch.logsumexp(shares + torch.log(self._right.clamp(min=1e-9)), dim=1).mean()

    @property
    def num_told(self) -> int:
        """How many queries tell something."""
        return len(self._right)


def fit_evidence(examples: Examples, labels: Sequence[tuple[str, str]], *, penalty: float) -> EvidenceModel:
    """Fit the model.

    Minimises the mean negative log-likelihood plus `penalty` times the sum of squares of every coefficient that belongs to
    a member or a label, plus a thousandth of the squared distance of α and β from 1, the log-odds vote.

    Args:
        examples: What to learn from.
        labels: Labels to learn coefficients of.
        penalty: Positive; the larger, the more alike the members.
    """
    moments = moments_of(examples.answers)
    problem = _Problem(examples, moments, labels)
    m = problem.num_members
    parts = {
        "shared": torch.tensor([1.0, 1.0, 1.0 if examples.answers.option_scores is not None else 0.0]),
        "weights": torch.zeros(problem.context_dim, m),
        "slopes": torch.zeros(problem.context_dim, m),
        "response": torch.zeros(RESPONSE_DIM, m),
        "labels": torch.zeros(problem.num_labels),
    }
    if problem.num_told:
        _minimise(problem, parts, penalty)
    arrays = {name: part.detach().numpy().astype(np.float64) for name, part in parts.items()}
    return EvidenceModel(
        shared=arrays["shared"],
        weights=arrays["weights"],
        slopes=arrays["slopes"],
        response=arrays["response"],
        moments=moments,
        labels=dict(zip(labels, arrays["labels"].tolist(), strict=True)),
        pool_size=m,
    )


def _minimise(problem: _Problem, parts: dict[str, Tensor], penalty: float) -> None:
    for part in parts.values():
        part.requires_grad_()
    optimizer = torch.optim.LBFGS(
        list(parts.values()), max_iter=_MAX_STEPS, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-6
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        own = sum((parts[name] ** 2).sum() for name in ("weights", "slopes", "response", "labels"))
        # α and β are held near the log-odds vote, so that a small pool cannot send them to infinity.
        near = (parts["shared"] - 1.0)[:2].square().sum()
        loss = problem.loss(parts) + penalty * own + 1e-3 * near
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares it without types
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def cross_fitted_evidence(
    examples: Examples, folds: Ints, *, labels: Sequence[tuple[str, str]], penalties: Sequence[float] = PENALTIES
) -> tuple[list[EvidenceModel], float]:
    """Fit a model for each fold on the queries outside it.

    Args:
        examples: What to learn from.
        folds: Each query's fold, 0 .. N - 1, shape [Q].
        labels: Labels to learn coefficients of.
        penalties: Penalties to choose from.

    Returns:
        One model for each fold, and the penalty of least loss on the queries that the fits did not see, the stronger in a
        tie.
    """
    num_folds = int(folds.max()) + 1
    fits: dict[float, list[EvidenceModel]] = {}
    losses: dict[float, float] = {}
    for penalty in penalties:
        fits[penalty], total = [], 0.0
        for fold in range(num_folds):
            inside, outside = take(examples, folds == fold), take(examples, folds != fold)
            model = fit_evidence(outside if len(outside.features) else inside, labels, penalty=penalty)
            fits[penalty].append(model)
            total += _loss_of(model, inside, labels)
        losses[penalty] = total
    best = min(penalties, key=lambda penalty: (losses[penalty], -penalty))
    return fits[best], best


def _loss_of(model: EvidenceModel, examples: Examples, labels: Sequence[tuple[str, str]]) -> float:
    """Sum of the losses of queries that the model did not see."""
    if not len(examples.features):
        return 0.0
    problem = _Problem(examples, model.moments, labels)
    if not problem.num_told:
        return 0.0
    parts = {
        name: torch.from_numpy(array.astype(np.float32))
        for name, array in (
            ("shared", model.shared),
            ("weights", model.weights),
            ("slopes", model.slopes),
            ("response", model.response),
            ("labels", np.array([model.labels[pair] for pair in labels])),
        )
    }
    with torch.no_grad():
        return float(problem.loss(parts)) * problem.num_told


def take(examples: Examples, rows: Bools) -> Examples:
    """Keep some queries."""
    return Examples(
        features=examples.features[rows],
        competence=examples.competence[rows],
        tasks=[task for task, kept in zip(examples.tasks, rows, strict=True) if kept],
        answers=examples.answers.take(rows),
        scores=examples.scores[rows],
        teams=examples.teams[rows],
    )

"""The supervised part of training: competence and evidence, fitted before the first episode.

What an episode shows of a training query comes from fits that did not see that query (cross-fitting), so the actors learn to
trust it as far as they may when serving. One trace is left: an evidence fit reads other queries' cross-fitted competences,
whose fits did see this query's scores.

The evidence model, which Fusion's vote begins with, maximises the likelihood of the right candidates over drawn teams, by
L-BFGS. The fit is convex but for fractional scores, and deterministic.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from langchain_rlfocal.diversity import pairwise_focal_diversity
from langchain_rlfocal.environment import answers_of, candidate_scores
from langchain_rlfocal.features import FEATURES_DIM, HASHED_TASKS, Embedder, features_of
from langchain_rlfocal.outcomes import OutcomeGrid, costs_of, prices_of
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.policies.evidence import (
    COMPETENCE_PENALTIES,
    RESPONSE_DIM,
    CompetenceModel,
    EvidenceModel,
    Penalties,
    coincidence_of,
    context_of,
    cross_fitted,
    fit_coincidence,
    fit_competence,
    moments_of,
    response_features,
    scaled_options,
)
from langchain_rlfocal.policies.learned import RLFocalPolicy
from langchain_rlfocal.policies.looks import LOOK_NAMES
from langchain_rlfocal.policies.novelty import cross_fitted_novelty, fit_novelty
from langchain_rlfocal.states import (
    Answers,
    Bools,
    Evidence,
    Floats,
    Ints,
    MemberFeatures,
    Rows,
    Texts,
    cells_of,
)
from langchain_rlfocal.training.config import TrainingConfig

EVIDENCE_PENALTIES = (1e-3, 5e-3, 3e-2, 3e-1)
"""Weights of the squared coefficients, to choose from by cross-validation."""

MIN_QUERIES = 10
"""With fewer training rows nothing learned differs from chance."""

MAX_FITTED = 2**16
"""Evidence is fitted on so many rows at most, evenly spread: its few coefficients a member need no more, and every row costs time in
every step of every fit."""

TASK_GROUPS = 3
"""Fits that each leave out the tasks of one group show what the policy will see of a task that was never shown."""

NEW_TASK_ROWS = 3000
"""Of more queries, so many at most are shown as if their tasks were new: every group takes a fit of its own."""

MIN_LABEL_COUNT = 10
"""A label that stands for a candidate of fewer queries of its task has no coefficient."""

_MAX_STEPS = 60
_LOOKS_FREEDOM = 0.01  # of the penalty: all queries with options speak of the same few coefficients
_PENALTIES = {
    "pool_penalty": COMPETENCE_PENALTIES,
    "competence_penalty": COMPETENCE_PENALTIES,
    "evidence_penalty": EVIDENCE_PENALTIES,
}


@dataclass(frozen=True)
class Examples(Rows):
    """What the fit of evidence reads of Q queries.

    Attributes:
        features: Query features, shape [Q, F].
        competence: Cross-fitted competence, shape [Q, M].
        tasks: Task labels, None without one, shape [Q].
        answers: What all members answered.
        scores: Recorded score of each candidate, NaN where unknown, shape [Q, K].
        teams: Members taken as asked, shape [Q, M].
        posterior: Queries whose scores are probabilities that each candidate is the right one, shape [Q]; None where all are
            recorded.
    """

    features: Annotated[Floats, "QF"]
    competence: Annotated[Floats, "QM"]
    tasks: Annotated[Texts, "Q"]
    answers: Answers
    scores: Annotated[Floats, "QK"]
    teams: Annotated[Bools, "QM"]
    posterior: Annotated[Bools | None, "Q"] = None


def draw_teams(recorded: Bools, max_team: int, rng: np.random.Generator) -> Bools:
    """Draw teams to fit on, shape [Q, M]: all recorded members for one query in two, else a random team of random size."""
    num_queries, num_members = recorded.shape
    size = rng.integers(1, min(max_team, num_members) + 1, size=num_queries)
    size[rng.random(num_queries) < 0.5] = num_members
    order = np.where(recorded, rng.random(recorded.shape), np.inf).argsort(axis=1).argsort(axis=1)
    return np.asarray((order < size[:, None]) & recorded)


def frequent_labels(tasks: Sequence[str | None], answers: Answers) -> list[tuple[str, str]]:
    """List task and label (empty without one) of the candidates that occur in many queries, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for task, labels, supported in zip(tasks, answers.labels, answers.candidate_index, strict=True):
        counts.update((task or "", label) for label in {label for label in labels if label})
        if any(labels[k] is None for k in set(supported.tolist()) if k >= 0):
            counts[task or "", ""] += 1
    frequent = [pair for pair, count in counts.items() if count >= MIN_LABEL_COUNT]
    # By name where equally frequent: sets of texts come in another order in every process.
    return sorted(frequent, key=lambda pair: (-counts[pair], pair))


class ConditionalLogit:
    """The negative log-likelihood of the right candidates, as a function of the coefficients.

    Args:
        examples: What to learn from.
        moments: How each member's responses usually are; see `EvidenceModel.moments`.
        labels: Labels to learn coefficients of.
    """

    def __init__(self, examples: Examples, moments: Floats, labels: Sequence[tuple[str, str]]) -> None:
        answers, asked = examples.answers, examples.teams
        q, k = answers.labels.shape
        self._shape, self._labels, self._moments = (q, k), labels, moments
        self._context = _tensor(context_of(examples.features))
        supported = asked & (answers.candidate_index >= 0)
        cells = cells_of(np.where(supported, answers.candidate_index, -1), k).ravel()
        self._cells, self._supported = torch.from_numpy(cells), _tensor(supported)
        competence = examples.competence
        self._log_odds = _tensor(np.log(competence) - np.log1p(-competence))
        self._responses = _tensor(response_features(answers, moments))
        exists = np.zeros((q, k + 1), dtype=bool)
        exists.ravel()[cells] = True
        exists = exists[:, :-1]
        self._options: Tensor | None = None
        if answers.option_scores is not None:
            scaled = scaled_options(answers.option_scores, moments)
            scored = ~np.isnan(scaled)
            exists |= (scored | ~asked[:, :, None]).all(axis=1)
            self._options = _tensor(np.where(scored, scaled, 0.0) * asked[:, :, None])
        code_of = {pair: code for code, pair in enumerate(labels)}
        codes = [
            [code_of.get((task or "", label or ""), len(labels)) for label in row]
            for task, row in zip(examples.tasks.tolist(), answers.labels.tolist(), strict=True)
        ]
        self._codes = torch.tensor(codes, dtype=torch.int64).reshape(q, k)
        self._looks = None if answers.looks is None else _tensor(answers.looks)
        # Which of the scored candidates is right says nothing wrong about the others (independence of irrelevant alternatives).
        exists &= ~np.isnan(examples.scores)
        right = np.where(exists, examples.scores, 0.0)
        # Where no candidate is right, or all are, nothing can be learned about which.
        informative = (right.max(axis=1) > 0) & (np.where(exists, right, np.inf).min(axis=1) < right.max(axis=1))
        posterior = np.zeros(q, dtype=bool) if examples.posterior is None else examples.posterior
        # The candidates of a posterior count as much as it is probable that one of them is right.
        weight = np.where(posterior, right.sum(axis=1), 1.0)
        self._informative = torch.from_numpy(informative)
        self._right, self._exists = _tensor(right[informative]), torch.from_numpy(exists)
        self._posterior = torch.from_numpy(posterior[informative])
        self._weight, self.total_weight = _tensor(weight[informative]), float(weight[informative].sum())

    def evidence(self, coefficients: Mapping[str, Tensor]) -> Tensor:
        """Compute log-odds of every candidate, shape [Q, K]."""
        q, k = self._shape
        shared = coefficients["shared"]
        trust = shared[0] * self._log_odds + shared[1] + self._context @ coefficients["weights"]
        trust = (trust + torch.einsum("qmr,rm->qm", self._responses, coefficients["response"])) * self._supported
        total = torch.zeros(q * (k + 1)).index_add(0, self._cells, trust.reshape(-1)).reshape(q, k + 1)[:, :-1]
        if self._options is not None:
            option_weights = shared[2] + self._context @ coefficients["option_weights"]
            total = total + torch.einsum("qm,qmk->qk", option_weights, self._options)
        if self._looks is not None:
            total = total + self._looks @ coefficients["looks"]
        return total + torch.cat([coefficients["labels"], torch.zeros(1)])[self._codes]

    def loss(self, coefficients: Mapping[str, Tensor]) -> Tensor:
        """Mean over the informative queries of −log Σ_k π(k) score(k), or of the cross-entropy −Σ_k p(k) log π(k).

        The former where scores are recorded, and several candidates may be right. The latter where they are a posterior p,
        by which it is the expected loss: the former would be least where all is given to one candidate.
        """
        logits = self.evidence(coefficients).masked_fill(~self._exists, -1e9)[self._informative]
        shares = torch.log_softmax(logits, dim=1)
        loss = -torch.logsumexp(shares + torch.log(self._right.clamp(min=1e-9)), dim=1)
        if self._posterior.any():
            entropy = -(shares * self._right).sum(dim=1) / self._right.sum(dim=1)
            loss = torch.where(self._posterior, entropy, loss)
        return (loss * self._weight).sum() / self.total_weight

    def fit(self, penalty: float) -> dict[str, Tensor]:
        """Find the coefficients of least penalised loss; see `fit_evidence`."""
        (_, context_dim), m = self._context.shape, self._supported.shape[1]
        coefficients = {
            "shared": torch.tensor([1.0, 1.0, 0.0 if self._options is None else 1.0]),
            "weights": torch.zeros(context_dim, m),
            "option_weights": torch.zeros(context_dim, m),
            "response": torch.zeros(RESPONSE_DIM, m),
            "labels": torch.zeros(len(self._labels)),
            "looks": torch.zeros(len(LOOK_NAMES)),
        }
        if not self.total_weight > 0:
            return coefficients
        for part in coefficients.values():
            part.requires_grad_()
        optimizer = torch.optim.LBFGS(
            list(coefficients.values()),
            max_iter=_MAX_STEPS,
            history_size=10,
            line_search_fn="strong_wolfe",
            tolerance_change=1e-6,
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            own = sum((coefficients[name] ** 2).sum() for name in ("weights", "option_weights", "response", "labels"))
            own = own + _LOOKS_FREEDOM * coefficients["looks"].square().sum()
            # α and β are held near the log-odds vote, so that a small pool cannot send them to infinity.
            near = (coefficients["shared"] - 1.0)[:2].square().sum()
            loss = self.loss(coefficients) + penalty * own + 1e-3 * near
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares it without types
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return {name: part.detach() for name, part in coefficients.items()}

    def model(self, coefficients: Mapping[str, Tensor]) -> EvidenceModel:
        """Make the model of these coefficients."""
        arrays = {name: part.numpy().astype(np.float64) for name, part in coefficients.items()}
        labels = dict(zip(self._labels, arrays.pop("labels").tolist(), strict=True))
        return EvidenceModel(**arrays, moments=self._moments, labels=labels, pool_size=self._supported.shape[1])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def fit_evidence(examples: Examples, labels: Sequence[tuple[str, str]], *, penalty: float) -> EvidenceModel:
    """Fit the model.

    Minimises the mean negative log-likelihood plus `penalty` times the sum of squares of every coefficient that belongs to
    a member or a label, a hundredth of that for the looks of options, plus a thousandth of the squared distance of α and β from 1, the log-odds vote.

    Args:
        examples: What to learn from.
        labels: Labels to learn coefficients of.
        penalty: Positive; the larger, the more alike the members.
    """
    moments = moments_of(examples.answers)
    problem = ConditionalLogit(_thinned(examples, np.ones(len(examples.features), dtype=bool)), moments, labels)
    return problem.model(problem.fit(penalty))


def _thinned(examples: Examples, rows: Bools) -> Examples:
    """Take these rows, `MAX_FITTED` at most."""
    index = np.flatnonzero(rows)
    return examples.take(index if len(index) <= MAX_FITTED else index[np.arange(MAX_FITTED) * len(index) // MAX_FITTED])


def cross_fitted_evidence(
    examples: Examples,
    folds: Ints,
    *,
    labels: Sequence[tuple[str, str]],
    penalties: Sequence[float] = EVIDENCE_PENALTIES,
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
    fits: dict[float, list[EvidenceModel]] = {penalty: [] for penalty in penalties}
    losses = dict.fromkeys(penalties, 0.0)
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        outside = inside if inside.all() else ~inside  # of one fold only, its own queries
        moments = moments_of(examples.answers.take(outside))
        problem = ConditionalLogit(_thinned(examples, outside), moments, labels)
        unseen = ConditionalLogit(_thinned(examples, inside), moments, labels)
        for penalty in penalties:
            coefficients = problem.fit(penalty)
            fits[penalty].append(problem.model(coefficients))
            if unseen.total_weight > 0:
                with torch.no_grad():
                    losses[penalty] += float(unseen.loss(coefficients)) * unseen.total_weight
    best = min(penalties, key=lambda penalty: (losses[penalty], -penalty))
    return fits[best], best


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What the supervised part of training gives to the second.

    Attributes:
        grid: The training outcomes, twice: with task labels, then without, since callers often give none.
        features: What an episode knows of the members near each row.
        evidence: What an episode reads in the answers of each row.
        charges: What each call costs as a share of asking the whole pool, shape [2Q, M].
        weights: Arrays of the policy that reinforcement does not change, by name.
        labels: Task and label of each entry of the array `evidence.labels`.
        facts: Hyperparameters that were found, for the card.
    """

    grid: OutcomeGrid
    features: MemberFeatures
    evidence: Evidence
    charges: Floats
    weights: dict[str, Floats]
    labels: list[tuple[str, str]]
    facts: dict[str, float]


def data_hash(*grids: OutcomeGrid) -> str:
    """Hash what training reads of these grids."""
    tokens, options = ("prompt_tokens", "completion_tokens"), ("option_probs", "option_ids", "option_scores")
    digest = hashlib.sha256()
    for grid in grids:
        labels = None if grid.option_answers is None else grid.option_answers.tolist()
        texts = (grid.members, grid.tasks, grid.queries, grid.answers.tolist(), labels)
        digest.update(repr(texts).encode("utf-8", "surrogatepass"))
        for name in (
            "answer_ids",
            "scores",
            "recorded",
            "propensity",
            "cost_usd",
            "logprobs",
            "response_chars",
            *tokens,
            *options,
        ):
            array = getattr(grid, name)
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def folds_of(queries: Sequence[str], num_folds: int) -> Ints:
    """Assign folds by the hash of the query's text, so that a repeated question stays in one fold."""
    digests = [
        hashlib.blake2b(q.encode("utf-8", "surrogatepass"), digest_size=4, person=b"fold").digest() for q in queries
    ]
    _, folds = np.unique([int.from_bytes(digest, "big") % num_folds for digest in digests], return_inverse=True)
    return folds


def prepare(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    penalties: Mapping[str, Sequence[float]] = _PENALTIES,
) -> TrainingData:
    """Fit competence and evidence to outcomes; see `TrainingData`.

    Args:
        grid: The outcomes.
        config: Hyperparameters.
        embedder: Gives the queries more features.
        rng: Draws the teams that evidence is fitted on.
        penalties: What to choose from by cross-validation, by the names in `TrainingData.facts`.
    """
    start = _start(
        grid, config, embedder=embedder, rng=rng, penalties=(penalties["pool_penalty"], penalties["competence_penalty"])
    )
    examples, folds = start.examples, start.folds
    models, penalty = cross_fitted_evidence(
        examples, folds, labels=start.labels, penalties=penalties["evidence_penalty"]
    )
    weights = start.weights(fit_evidence(examples, start.labels, penalty=penalty))
    price, kind = weights["pool.price"], np.float32
    trust, option_weights = np.empty_like(examples.competence), np.empty_like(examples.competence)
    for fold, model in enumerate(models):
        rows = folds == fold
        trust[rows], option_weights[rows] = model.describe(examples.features[rows], examples.competence[rows])
    features = MemberFeatures(
        competence=examples.competence.astype(kind),
        trust=trust.astype(kind),
        option_weights=option_weights.astype(kind),
        price=price.astype(kind),
        diversity=weights["pool.diversity"].astype(kind),
        novelty=cross_fitted_novelty(examples.features, folds).astype(kind),
        coincidence=coincidence_of(examples.features, weights["pool.coincidence"]).astype(kind),
    )
    parts = []
    for fold, model in enumerate(models):
        rows = folds == fold
        inside = examples.take(rows)
        parts.append((rows, model.read(features.take(rows), inside.tasks.tolist(), inside.answers)))
    costs = np.where(np.isnan(spent := costs_of(start.grid, config.cost_unit)), price * start.total, spent)
    return TrainingData(
        grid=start.grid,
        features=features,
        evidence=Evidence.gathered(parts),
        charges=costs / start.total if start.total > 0 else np.broadcast_to(price, costs.shape),
        weights=weights,
        labels=start.labels,
        facts={
            "pool_penalty": start.competence_penalty[0],
            "competence_penalty": start.competence_penalty[1],
            "evidence_penalty": penalty,
        },
    )


def refit(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    facts: Mapping[str, float],
) -> tuple[dict[str, Floats], list[tuple[str, str]]]:
    """Fit competence and evidence again, at the penalties of `TrainingData.facts`, to more outcomes.

    Returns:
        `TrainingData.weights` and `TrainingData.labels`.
    """
    start = _start(
        grid, config, embedder=embedder, rng=rng, penalties=([facts["pool_penalty"]], [facts["competence_penalty"]])
    )
    return start.weights(fit_evidence(start.examples, start.labels, penalty=facts["evidence_penalty"])), start.labels


def as_new_tasks(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    data: TrainingData,
    networks: Mapping[str, Floats],
) -> tuple[OutcomeGrid, MemberFeatures, Evidence] | None:
    """Show training queries as if their tasks were new: by fits that saw other tasks only.

    The tasks are dealt, in the order of their names, into `TASK_GROUPS` groups, or as many as there are tasks.

    Args:
        grid: The outcomes.
        config: Hyperparameters.
        embedder: Gives the queries more features.
        rng: Draws the teams that evidence is fitted on.
        data: What `prepare` made of the same outcomes.
        networks: Arrays of both actors, which have no part in it.

    Returns:
        The queries, `NEW_TASK_ROWS` at most, and what an episode knows and reads of them; None where there are too few queries of other tasks.
    """
    grid = grid.take(np.arange(0, len(grid), -(-len(grid) // NEW_TASK_ROWS)))
    names = sorted(set(grid.tasks))
    group_of = {name: number % TASK_GROUPS for number, name in enumerate(names)}
    groups = np.array([group_of[task] for task in grid.tasks])
    shown = [
        inside for group in range(TASK_GROUPS) if (inside := groups == group).any() and (~inside).sum() >= MIN_QUERIES
    ]
    if not shown:
        return None
    rows = np.logical_or.reduce(shown)
    features, evidence = [], []
    for inside in shown:
        weights, labels = refit(grid.take(~inside), config, embedder=embedder, rng=rng, facts=data.facts)
        policy = RLFocalPolicy(Parts(grid.members, {**weights, **networks}, labels), embedder=embedder)
        part = grid.take(inside)
        known = policy.describe(part.queries, part.tasks)
        features.append((inside[rows], replace(known, price=data.features.price, diversity=data.features.diversity)))
        evidence.append((inside[rows], policy.read(known, part.tasks, answers_of(part))))
    return grid.take(rows), MemberFeatures.gathered(features), Evidence.gathered(evidence)


@dataclass(frozen=True, slots=True)
class _Start:
    """What every fit of evidence starts from; the rows are those of `TrainingData`."""

    grid: OutcomeGrid
    folds: Ints
    examples: Examples
    labels: list[tuple[str, str]]
    competence: CompetenceModel
    competence_penalty: tuple[float, float]
    price: Floats
    total: float

    def weights(self, evidence: EvidenceModel) -> dict[str, Floats]:
        """Name the arrays of the policy that reinforcement does not change."""
        once = self.grid.scores[: len(self.grid) // 2]
        novelty = fit_novelty(self.examples.features)
        known = ~np.isnan(once)
        return {
            "competence.weights": self.competence.weights,
            "competence.bias": self.competence.bias,
            "competence.mean": self.competence.mean,
            "novelty.mean": novelty.mean,
            "novelty.directions": novelty.directions,
            "evidence.shared": evidence.shared,
            "evidence.weights": evidence.weights,
            "evidence.slopes": evidence.option_weights,
            "evidence.response": evidence.response,
            "evidence.moments": evidence.moments,
            "evidence.looks": evidence.looks,
            "evidence.labels": np.array([evidence.labels[pair] for pair in self.labels]),
            "pool.price": self.price,
            "pool.diversity": pairwise_focal_diversity(once >= 0.5, known=known),
            "pool.coincidence": fit_coincidence(self.examples.features, self.grid.answer_ids, self.grid.scores),
        }


def _start(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    penalties: Penalties,
) -> _Start:
    """Double the rows, fit competence, and draw the teams."""
    num_queries = len(grid)
    tasks: list[str | None] = [*grid.tasks, *[None] * num_queries]
    doubled = grid.take(np.tile(np.arange(num_queries), 2))
    features = np.tile(features_of(grid.queries, grid.tasks, embedder=embedder), (2, 1))
    features[num_queries:, FEATURES_DIM - HASHED_TASKS : FEATURES_DIM] = 0.0  # as `features_of` describes no task
    folds = np.tile(folds_of(grid.queries, config.num_folds), 2)
    competence, penalty = cross_fitted(features, doubled.scores, folds, penalties=penalties)
    examples = Examples(
        features=features,
        competence=competence,
        tasks=np.array(tasks, dtype=object),
        answers=answers_of(grid).take(np.tile(np.arange(num_queries), 2)),
        scores=candidate_scores(doubled),
        teams=draw_teams(doubled.recorded, config.max_team, rng),
    )
    price, total = prices_of(grid, config.cost_unit)
    return _Start(
        grid=doubled,
        folds=folds,
        examples=examples,
        labels=frequent_labels(tasks, examples.answers),
        competence=fit_competence(features, doubled.scores, penalty=penalty),
        competence_penalty=penalty,
        price=price,
        total=total,
    )

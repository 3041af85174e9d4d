"""Preparation: what training knows of the queries before the first episode.

Fits the competence and evidence models, the supervised part of a policy. What an episode shows of a training query comes
from fits that did not see that query (cross-fitting), so the actors learn to trust it as far as they may when serving. One
trace is left: an evidence fit reads other queries' cross-fitted competences, whose fits did see this query's scores.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.diversity import pairwise_focal_diversity
from langchain_rlfocal.environment import answers_of, scores_of_places
from langchain_rlfocal.features import SURFACE_NAMES, Embedder, features_of
from langchain_rlfocal.outcomes import OutcomeGrid, costs_of, prices_of
from langchain_rlfocal.policies.competence import PENALTIES as COMPETENCE_PENALTIES
from langchain_rlfocal.policies.competence import CompetenceModel, cross_fitted, fit_competence
from langchain_rlfocal.policies.evidence import EvidenceModel
from langchain_rlfocal.states import Descriptors, Evidence, Floats, Ints
from langchain_rlfocal.training.config import TrainingConfig
from langchain_rlfocal.training.evidence import PENALTIES as EVIDENCE_PENALTIES
from langchain_rlfocal.training.evidence import (
    Examples,
    cross_fitted_evidence,
    draw_teams,
    fit_evidence,
    frequent_labels,
    take,
)

_PENALTIES = {"competence_penalty": COMPETENCE_PENALTIES, "evidence_penalty": EVIDENCE_PENALTIES}
_TOKENS, _OPTIONS = ("prompt_tokens", "completion_tokens"), ("option_probs", "option_ids", "option_scores")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the first, supervised part of training found.

    Attributes:
        grid: The training outcomes, twice: with task labels, then without, since callers often give none.
        known: What an episode knows of the members near each row.
        evidence: What an episode reads in the answers of each row.
        charges: What each call costs as a share of asking the whole pool, shape [2Q, M].
        weights: Arrays of the policy that reinforcement does not change, by name.
        labels: Task and label of each entry of the array `evidence.labels`.
        facts: Hyperparameters that were found, for the card.
    """

    grid: OutcomeGrid
    known: Descriptors
    evidence: Evidence
    charges: Floats
    weights: dict[str, Floats]
    labels: list[tuple[str, str]]
    facts: dict[str, float]


def data_hash(*grids: OutcomeGrid) -> str:
    """Hash what training reads of these grids."""
    digest = hashlib.sha256()
    for grid in grids:
        labels = None if grid.option_answers is None else grid.option_answers.tolist()
        texts = (grid.members, grid.tasks, grid.queries, grid.answers.tolist(), labels)
        digest.update(repr(texts).encode("utf-8", "surrogatepass"))
        for name in ("answer_ids", "scores", "cost_usd", "logprobs", "response_chars", *_TOKENS, *_OPTIONS):
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
) -> Prepared:
    """Fit competence and evidence to outcomes; see `Prepared`.

    Args:
        grid: The outcomes.
        config: Hyperparameters.
        embedder: Gives the queries more features.
        rng: Draws the teams that evidence is fitted on.
        penalties: What to choose from by cross-validation, by the names in `Prepared.facts`.
    """
    basis = _basis(grid, config, embedder=embedder, rng=rng, penalties=penalties["competence_penalty"])
    examples, folds, features, competence = (
        basis.examples,
        basis.folds,
        basis.examples.features,
        basis.examples.competence,
    )
    models, evidence_penalty = cross_fitted_evidence(
        examples, folds, labels=basis.labels, penalties=penalties["evidence_penalty"]
    )
    weights = _weights(basis, fit_evidence(examples, basis.labels, penalty=evidence_penalty))
    price, diversity = weights["pool.price"], weights["pool.diversity"]
    trust, slopes = np.empty_like(competence), np.empty_like(competence)
    for fold, model in enumerate(models):
        rows = folds == fold
        trust[rows] = model.trust(features[rows], competence[rows])
        slopes[rows] = model.option_slopes(features[rows])
    kind = np.float32
    known = Descriptors(
        competence=competence.astype(kind),
        trust=trust.astype(kind),
        slopes=slopes.astype(kind),
        price=price.astype(kind),
        diversity=diversity.astype(kind),
        surface=features[:, : len(SURFACE_NAMES)].astype(kind),
    )
    parts = []
    for fold, model in enumerate(models):
        rows = folds == fold
        inside = take(examples, rows)
        parts.append((rows, model.read(known.take(rows), inside.tasks, inside.answers)))
    costs = np.where(np.isnan(spent := costs_of(basis.grid, config.cost_unit)), price * basis.total, spent)
    return Prepared(
        grid=basis.grid,
        known=known,
        evidence=_merge(parts),
        charges=costs / basis.total if basis.total > 0 else np.broadcast_to(price, costs.shape),
        weights=weights,
        labels=basis.labels,
        facts={"competence_penalty": basis.competence_penalty, "evidence_penalty": evidence_penalty},
    )


def refit(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    facts: Mapping[str, float],
) -> tuple[dict[str, Floats], list[tuple[str, str]]]:
    """Fit competence and evidence again, at the penalties of `Prepared.facts`, to more outcomes.

    Returns:
        `Prepared.weights` and `Prepared.labels`.
    """
    basis = _basis(grid, config, embedder=embedder, rng=rng, penalties=[facts["competence_penalty"]])
    model = fit_evidence(basis.examples, basis.labels, penalty=facts["evidence_penalty"])
    return _weights(basis, model), basis.labels


@dataclass(frozen=True, slots=True)
class _Basis:
    """What every fit of evidence stands on; the rows are those of `Prepared`."""

    grid: OutcomeGrid
    folds: Ints
    examples: Examples
    labels: list[tuple[str, str]]
    competence: CompetenceModel
    competence_penalty: float
    price: Floats
    total: float


def _basis(
    grid: OutcomeGrid,
    config: TrainingConfig,
    *,
    embedder: Embedder | None,
    rng: np.random.Generator,
    penalties: Sequence[float],
) -> _Basis:
    """Double the rows, fit competence, and draw the teams."""
    num_queries, num_members = grid.scores.shape
    tasks: list[str | None] = [*grid.tasks, *[None] * num_queries]
    doubled = grid.take(np.tile(np.arange(num_queries), 2))
    features = features_of(doubled.queries, tasks, embedder=embedder)
    folds = np.tile(folds_of(grid.queries, config.num_folds), 2)
    competence, penalty = cross_fitted(features, doubled.scores, folds, penalties=penalties)
    examples = Examples(
        features=features,
        competence=competence,
        tasks=tasks,
        answers=answers_of(doubled),
        scores=scores_of_places(doubled),
        teams=draw_teams(2 * num_queries, num_members, config.max_team, rng),
    )
    price, total = prices_of(grid, config.cost_unit)
    return _Basis(
        grid=doubled,
        folds=folds,
        examples=examples,
        labels=frequent_labels(tasks, examples.answers),
        competence=fit_competence(features, doubled.scores, penalty=penalty),
        competence_penalty=penalty,
        price=price,
        total=total,
    )


def _weights(basis: _Basis, evidence: EvidenceModel) -> dict[str, Floats]:
    """Name the arrays of the policy that reinforcement does not change."""
    once = basis.grid.scores[: len(basis.grid) // 2]
    return {
        "competence.weights": basis.competence.weights,
        "competence.bias": basis.competence.bias,
        "competence.mean": basis.competence.mean,
        "evidence.shared": evidence.shared,
        "evidence.weights": evidence.weights,
        "evidence.slopes": evidence.slopes,
        "evidence.response": evidence.response,
        "evidence.moments": evidence.moments,
        "evidence.labels": np.array([evidence.labels[pair] for pair in basis.labels]),
        "pool.price": basis.price,
        "pool.diversity": pairwise_focal_diversity(once >= 0.5),
    }


def _merge(parts: Sequence[tuple[np.ndarray, Evidence]]) -> Evidence:
    """Put together what was read fold by fold."""

    def merged(name: str) -> np.ndarray | None:
        arrays = [(rows, getattr(evidence, name)) for rows, evidence in parts]
        shape = next((array.shape[1:] for _, array in arrays if array is not None), None)
        if shape is None:
            return None
        kind = next(array.dtype for _, array in arrays if array is not None)
        whole = np.zeros((sum(int(rows.sum()) for rows, _ in arrays), *shape), dtype=kind)
        for rows, array in arrays:
            if array is not None:
                whole[rows] = array
        return whole

    places, trust, label = merged("places"), merged("trust"), merged("label")
    assert places is not None
    assert trust is not None
    assert label is not None
    return Evidence(places=places, trust=trust, label=label, scored=merged("scored"), similarity=merged("similarity"))

"""What a policy estimates of members: competence before they are asked, and what their answers are evidence of.

Competence is a ridge regression from query features to each member's score, closed form and deterministic. A member's
estimate depends on its own outcomes only, so a member can be left out, or fitted later from a small probe, without touching
the others. Estimates that training learns from come from folds that did not see the query (`cross_fitted`).

Evidence is a conditional logit model, fitted to recorded outcomes (`training.supervised`). A candidate's log-odds add up
over the members asked, and over the candidate's own label:

    z(k) = Σ_{m supports k} tₘ + Σ_m sₘ uₘₖ + b(task, label of k)
    tₘ = α logit(competence) + β + ψ(q)·Aₘ + x·Dₘ            sₘ = γ + ψ(q)·Cₘ

ψ(q) are 1, surface and task features of the query; x compares the response with the member's others (length,
log-probability of its tokens); u are the member's option scores, centred over the options and scaled. α, β and γ belong to
no member: one that was never fitted has them alone.

Source of the model: McFadden, 1974, "Conditional logit analysis of qualitative choice behavior".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.features import HASHED_TASKS, HASHED_WORDS, SURFACE_NAMES
from langchain_rlfocal.states import Answers, Evidence, Floats, Ints, MemberFeatures, Texts

CONTEXT_DIM = 1 + len(SURFACE_NAMES) + HASHED_TASKS
"""P, the length of ψ(q)."""

RESPONSE_DIM = 4
"""R, the length of x: deviation of length and log-probability from the member's mean, in its standard deviations, each
also squared less 1."""

MAX_CHARS = 4000
"""A longer response counts as one of this length: recorded texts may be cut short."""

MAX_COMPARED = 64
"""In a larger pool likeness is not measured: its cost grows with the square of the answers."""

COMPETENCE_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Ridge penalties to choose from by cross-validation; the last leaves little but each member's mean score."""

_LOW, _HIGH = 0.02, 0.98
_CLIP = 3.0
_TOKEN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class CompetenceModel:
    """Linear estimate of every member's score.

    Attributes:
        weights: Weights, shape [F, M].
        bias: Each member's estimate at the mean query, shape [M].
        mean: Mean features of the queries it was fitted on, shape [F].
    """

    weights: Floats
    bias: Floats
    mean: Floats

    def __call__(self, features: Floats) -> Floats:
        """Estimate scores, shape [Q, M], inside [0.02, 0.98], from features of shape [Q, F]."""
        estimates = (features - self.mean) @ self.weights + self.bias
        return np.asarray(np.minimum(np.maximum(estimates, _LOW, out=estimates), _HIGH, out=estimates))


def _fit(features: Floats, scores: Floats, penalties: Sequence[float]) -> list[CompetenceModel]:
    """Fit for several penalties λ at the price of one.

    With the centred features X and XᵀX = V diag(s) Vᵀ:

        W = (XᵀX + λI)⁻¹ Xᵀ(S − mean of S) = V diag(1 / (s + λ)) Vᵀ Xᵀ(S − mean of S)
    """
    mean, bias = features.mean(axis=0), scores.mean(axis=0)
    centred = features - mean
    spectrum, vectors = np.linalg.eigh(centred.T @ centred)
    projected = vectors.T @ (centred.T @ (scores - bias))
    return [
        CompetenceModel(weights=vectors @ (projected / (spectrum[:, None] + penalty)), bias=bias, mean=mean)
        for penalty in penalties
    ]


def fit_competence(features: Floats, scores: Floats, *, penalty: float) -> CompetenceModel:
    """Fit by ridge regression.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], shape [Q, M].
        penalty: λ > 0.
    """
    return _fit(features, scores, [penalty])[0]


def cross_fitted(
    features: Floats, scores: Floats, folds: Ints, *, penalties: Sequence[float] = COMPETENCE_PENALTIES
) -> tuple[Floats, float]:
    """Estimate each query's scores with a model that was fitted without its fold.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], shape [Q, M].
        folds: Each query's fold, shape [Q].
        penalties: Penalties to choose from.

    Returns:
        Estimates, shape [Q, M], and the penalty that made them: that of least squared error, the stronger in a tie.
    """
    estimates = np.empty((len(penalties), *scores.shape))
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():  # one fold only: its own mean is the best there is
            return np.clip(np.tile(scores.mean(axis=0), (len(scores), 1)), _LOW, _HIGH), max(penalties)
        for estimate, model in zip(estimates, _fit(features[~out], scores[~out], penalties), strict=True):
            estimate[out] = model(features[out])
    errors = ((estimates - scores) ** 2).mean(axis=(1, 2))
    best = min(range(len(penalties)), key=lambda i: (errors[i], -penalties[i]))
    return estimates[best], penalties[best]


def context_of(features: Floats) -> Floats:
    """Take ψ(q), shape [Q, P], out of query features of shape [Q, F]."""
    surface, tasks = len(SURFACE_NAMES), len(SURFACE_NAMES) + HASHED_WORDS
    context = np.ones((len(features), CONTEXT_DIM))
    context[:, 1 : 1 + surface] = features[:, :surface]
    context[:, 1 + surface :] = features[:, tasks : tasks + HASHED_TASKS]
    return context


def fit_coincidence(features: Floats, answer_ids: Ints, scores: Floats, *, penalty: float = 10.0) -> Floats:
    """Fit the chance that two right answers to a query are the same answer: 1 for options and numbers, 0 for open text.

    A ridge regression on ψ(q), around 1, of the share of pairs of right members that gave the same answer, each query weighted
    by its pairs. Where there is no such pair, answers are taken to coincide.

    Args:
        features: Query features, shape [Q, F].
        answer_ids: As in `OutcomeGrid`, shape [Q, M].
        scores: Members' scores in [0, 1], NaN where unknown, shape [Q, M].
        penalty: λ > 0.

    Returns:
        Weights of ψ(q) in the chance minus 1, shape [P]; see `coincidence_of`.
    """
    right = (scores >= 0.5) & (answer_ids >= 0)
    pairs = right.sum(axis=1) * (right.sum(axis=1) - 1) / 2
    same = np.zeros(len(right))
    for m in range(1, right.shape[1]):
        same += (right[:, :m] & right[:, m, None] & (answer_ids[:, :m] == answer_ids[:, m, None])).sum(axis=1)
    # A query counts as at most three pairs: a large pool is no more sure of it than that.
    weight = np.minimum(pairs, 3.0)
    context = context_of(features)
    missed = np.where(pairs > 0, same / np.maximum(pairs, 1) - 1, 0.0)
    # The mean itself, the first of ψ(q), is hardly held back.
    gram = context.T @ (context * weight[:, None]) + penalty * np.diag([0.1, *np.ones(context.shape[1] - 1)])
    return np.asarray(np.linalg.solve(gram, context.T @ (weight * missed)))


def coincidence_of(features: Floats, weights: Floats) -> Floats:
    """Estimate the chance that two right answers are the same answer, shape [Q], from features of shape [Q, F]."""
    return np.asarray(np.clip(1.0 + context_of(features) @ weights, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class EvidenceModel:
    """The fitted model of M members.

    Attributes:
        shared: α, β and γ, shape [3].
        weights: Aₘ, shape [P, M].
        option_weights: Cₘ, shape [P, M].
        response: Dₘ, shape [R, M].
        moments: Mean and standard deviation of log(1 + characters), then of log-probabilities, then the standard deviation
            of centred option scores, shape [5, M].
        labels: b by task (`""` without one) and label.
        pool_size: Members of the whole pool, also where only some of them are kept.
    """

    shared: Floats
    weights: Floats
    option_weights: Floats
    response: Floats
    moments: Floats
    labels: Mapping[tuple[str, str], float]
    pool_size: int

    def describe(self, features: Floats, competence: Floats) -> tuple[Floats, Floats]:
        """Compute t without x, as it is expected before an answer, and s, shape [Q, M] each."""
        scale, base, option_base = self.shared
        context = context_of(features)
        log_odds = np.log(competence) - np.log1p(-competence)
        return scale * log_odds + base + context @ self.weights, option_base + context @ self.option_weights

    def read(
        self,
        members: MemberFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        columns: Sequence[int] | slice = slice(None),
    ) -> Evidence:
        """Say what the answers of the members at these columns to Q queries are evidence of."""
        kind = members.competence.dtype
        moments, response = self.moments[:, columns], self.response[:, columns]
        option_evidence = None
        if answers.option_scores is not None:
            scaled = scaled_options(answers.option_scores, moments)
            option_evidence = (members.option_weights[:, :, None] * scaled).astype(kind)
        trust = members.trust + np.einsum("qmr,rm->qm", response_features(answers, moments), response)
        return Evidence(
            candidate_index=answers.candidate_index,
            trust=trust.astype(kind),
            label=self.label_bias(tasks, answers.labels).astype(kind),
            option_evidence=option_evidence,
            similarity=similarity_of(answers, kind) if self.pool_size <= MAX_COMPARED else None,
        )

    def label_bias(self, tasks: Sequence[str | None], labels: Texts) -> Floats:
        """Look up b of each label, shape [Q, K]; 0 where it is not known."""
        bias = np.zeros(labels.shape)
        if self.labels:
            bias_of = self.labels
            for row, task in enumerate(tasks):
                name = task or ""
                bias[row] = [bias_of.get((name, label), 0.0) if label else 0.0 for label in labels[row].tolist()]
        return bias


def response_features(answers: Answers, moments: Floats) -> Floats:
    """Compute x, shape [Q, M, R]; 0 where unknown."""
    features = np.empty((*answers.chars.shape, RESPONSE_DIM))
    deviations = features[:, :, :2]
    deviations[:, :, 0] = np.log1p(np.minimum(answers.chars, MAX_CHARS)) - moments[0]
    deviations[:, :, 1] = answers.logprobs - moments[2]
    deviations /= moments[1:4:2].T
    np.minimum(np.maximum(deviations, -_CLIP, out=deviations), _CLIP, out=deviations)
    np.subtract(deviations**2, 1.0, out=features[:, :, 2:])
    features[np.isnan(features)] = 0.0
    return features


def scaled_options(option_scores: Floats, moments: Floats) -> Floats:
    """Centre each member's option scores over the options and scale them, shape [Q, M, K]; NaN where there is none."""
    known = ~np.isnan(option_scores)
    mean = np.where(known, option_scores, 0.0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    return np.asarray((option_scores - mean[:, :, None]) / moments[4][:, None])


def _spread(values: Floats) -> Floats:
    """Standard deviation over the first axes of what is known, 1 where it is 0 or nothing is; shape [M]."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    spread: Floats = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / count)
    return np.where(spread > 1e-6, spread, 1.0)


def moments_of(answers: Answers) -> Floats:
    """Measure how each member's responses usually look: `EvidenceModel.moments`, shape [5, M]."""
    moments = np.zeros((5, answers.candidate_index.shape[1]))
    for row, values in ((0, np.log1p(np.minimum(answers.chars, MAX_CHARS))), (2, answers.logprobs)):
        known = ~np.isnan(values)
        moments[row] = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        moments[row + 1] = _spread(values)
    moments[4] = 1.0
    if answers.option_scores is not None:
        centred = scaled_options(answers.option_scores, moments)
        moments[4] = _spread(centred.transpose(0, 2, 1).reshape(-1, centred.shape[1]))
    return moments


def similarity_of(answers: Answers, kind: np.dtype) -> Floats | None:
    """Measure the likeness of every member's answer to every other candidate: Dice's coefficient of their words.

    Returns:
        Shape [Q, M, K], 0 to a member's own candidate and between single words; None where all are 0.
    """
    similarity = None
    for row, (supported, labels) in enumerate(zip(answers.candidate_index.tolist(), answers.labels, strict=True)):
        words = {k: set(_TOKEN.findall(labels[k] or "")) for k in sorted(set(supported)) if k >= 0}
        if len(words) < 2 or max(map(len, words.values())) < 2:
            continue
        if similarity is None:
            similarity = np.zeros((*answers.candidate_index.shape, answers.labels.shape[1]), dtype=kind)
        for one, own in words.items():
            supporters = answers.candidate_index[row] == one
            for other, theirs in words.items():
                if other != one and max(len(own), len(theirs)) > 1:
                    similarity[row, supporters, other] = 2 * len(own & theirs) / (len(own) + len(theirs))
    return similarity

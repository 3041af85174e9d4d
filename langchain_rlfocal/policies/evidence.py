"""What a policy estimates of members: competence before they are asked, and what their answers are evidence of.

Competence is a ridge regression from query features to each member's score, closed form and deterministic: what the query is
worth to the pool, plus the member's deviation (`fit_competence`). A member can be left out, or fitted later from a small probe,
without touching the others. Estimates that training learns from come from folds that did not see the query (`cross_fitted`).

Evidence is a conditional logit model, fitted to recorded outcomes (`training.supervised`). A candidate's log-odds add up
over the members asked, and over what the candidate says:

    z(k) = Σ_{m supports k} tₘ + Σ_m sₘ uₘₖ + b(task, label of k) + vₖ·w
    tₘ = α logit(competence) + β + ψ(q)·Aₘ + x·Dₘ            sₘ = γ + ψ(q)·Cₘ

ψ(q) are 1, surface and task features of the query; x compares the response with the member's others (length,
log-probability of its tokens); u are the member's option scores, centred over the options and scaled; v are the looks of the
option that k names (`policies.looks`). α, β, γ and w belong to no member: one that was never fitted has them alone. A text from
which no label could be extracted has the empty one.

Source of the model: McFadden, 1974, "Conditional logit analysis of qualitative choice behavior".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langchain_rlfocal.features import HASHED_TASKS, HASHED_WORDS, MOST_CELLS, SURFACE_NAMES, row_blocks
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

PRIOR_ROWS = 10.0
"""How many rows the pool's mean score counts as in the mean of a member that was scored on no row."""

Penalties = tuple[Sequence[float], Sequence[float]]
"""Ridge penalties to choose from: of the pool, and of its members."""

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


class _Ridge:
    """Ridge regressions on the same weighted rows, at the price of one.

    With X the rows, centred and scaled by the roots of their weights, and XᵀX = V diag(s) Vᵀ (or XXᵀ = U diag(s) Uᵀ, where there
    are fewer rows than features):

        W = (XᵀX + λI)⁻¹ XᵀY = V diag(1 / (s + λ)) VᵀXᵀY = XᵀU diag(1 / (s + λ)) UᵀY
    """

    def __init__(self, features: Floats, weight: Floats) -> None:
        self.weight, self._total = weight, max(float(weight.sum()), 1e-12)
        self.mean = weight @ features / self._total
        self._root = np.sqrt(weight)[:, None]
        self._features: Floats | None = None
        if features.size > MOST_CELLS and len(features) >= features.shape[1]:
            self._features = features
            gram = np.zeros((features.shape[1],) * 2)
            for block in row_blocks(len(features)):
                rows = (features[block] - self.mean) * self._root[block]
                gram += rows.T @ rows
            self._spectrum, self._out = np.linalg.eigh(gram)
            self._spectrum = np.maximum(self._spectrum, 0.0)
            return
        rows = (features - self.mean) * self._root
        if len(rows) < features.shape[1]:
            self._spectrum, vectors = np.linalg.eigh(rows @ rows.T)
            self._out, self._into = rows.T @ vectors, vectors.T
        else:
            self._spectrum, self._out = np.linalg.eigh(rows.T @ rows)
            self._into = self._out.T @ rows.T
        self._spectrum = np.maximum(self._spectrum, 0.0)

    def fit(self, targets: Floats, penalties: Sequence[float]) -> tuple[Floats, list[Floats]]:
        """Fit targets of shape [Q, T]: their weighted means, shape [T], and W of shape [F, T] for each penalty."""
        mean = self.weight @ targets / self._total
        centred = (targets - mean) * self._root
        if self._features is None:
            projected = self._into @ centred
        else:
            moments = np.zeros((self._features.shape[1], targets.shape[1]))
            for block in row_blocks(len(self._features)):
                moments += ((self._features[block] - self.mean) * self._root[block]).T @ centred[block]
            projected = self._out.T @ moments
        return mean, [self._out @ (projected / (self._spectrum[:, None] + penalty)) for penalty in penalties]


class _Stages:
    """Both stages of `fit_competence` on the same rows, for any penalties."""

    def __init__(self, features: Floats, scores: Floats) -> None:
        known = ~np.isnan(scores)
        weight = known * 1.0
        scores = np.where(known, scores, 0.0)
        of_row, num_members = weight.sum(axis=1), scores.shape[1]
        self._features, self._weight, self._count = features, weight, weight.sum(axis=0)
        # On rows that all were scored on means differ by what the members are worth: one is held back for those it lacks.
        self._held = PRIOR_ROWS * (1.0 - known.mean(axis=0))
        overall = (weight * scores).sum() / max(self._count.sum(), 1e-12)
        self.base = ((weight * scores).sum(axis=0) + self._held * overall) / np.maximum(self._count + self._held, 1e-12)
        self._above = scores - self.base
        self._row_mean = (weight * self._above).sum(axis=1) / np.maximum(of_row, 1e-12)
        scored = known.sum(axis=1)
        # How far a row's own mean stands for it: not at all where one of several members was scored, wholly where all were.
        self._own_share = np.maximum(scored - 1, 0) * num_members / np.maximum(scored * (num_members - 1), 1)
        if num_members == 1:
            self._own_share = np.ones(len(scores))
        self._ridge = _Ridge(features, of_row / max(num_members * weight.max(initial=0.0), 1e-12))
        self.mean = self._ridge.mean

    def pool(self, penalties: Sequence[float]) -> list[tuple[Floats, float]]:
        """Fit the first stage: w and the estimate at the mean query, `base` left out, for each penalty."""
        intercept, slopes = self._ridge.fit(self._row_mean[:, None], penalties)
        return [(slope[:, 0], float(intercept[0])) for slope in slopes]

    def members(self, pool: tuple[Floats, float], penalties: Sequence[float]) -> list[tuple[Floats, Floats]]:
        """Fit the second stage: each w_m, shape [F, M], and deviation at the mean query, shape [M], for each penalty."""
        expected = (self._features - self.mean) @ pool[0] + pool[1]
        expected = expected + self._own_share * (self._row_mean - expected)
        deviation = self._above - expected[:, None]
        shape = self._features.shape[1], len(self.base)
        fits: list[tuple[Floats, Floats]] = [(np.zeros(shape), np.zeros(shape[1])) for _ in penalties]
        patterns, which = np.unique(self._weight, axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            columns, rows = np.flatnonzero(which.ravel() == number), np.flatnonzero(pattern)
            if not len(rows):
                continue
            alike = np.array_equal(pattern, self._ridge.weight)
            ridge = self._ridge if alike else _Ridge(self._features[rows], pattern[rows])
            intercept, slopes = ridge.fit(deviation[np.ix_(rows, columns)], penalties)
            intercept *= self._count[columns] / (self._count[columns] + self._held[columns])
            for (own, bias), slope in zip(fits, slopes, strict=True):
                own[:, columns] = slope
                bias[columns] = intercept + (self.mean - ridge.mean) @ slope
        return fits


def fit_competence(features: Floats, scores: Floats, *, penalty: tuple[float, float]) -> CompetenceModel:
    """Fit in two stages: what a query is worth to the pool, then how each member deviates from it.

        c_m(q) = b_m + (q − q̄)·(w + w_m)

    w is a ridge regression of the queries' mean scores, from the cells of all members, and w_m of the member's scores minus
    those means. Of complete scores and with one penalty for both, this is the same as each member's own ridge regression; a
    stronger one for the members draws their slopes together, as fewer rows can tell them apart.

    Where scores are missing, a query's mean is that of the members scored on it, their own means taken off, and as far as they
    are few the first stage stands in for it. A member's mean is held back toward the pool's by `PRIOR_ROWS` times the share
    of the rows that it lacks.

    Source: James and Stein, 1961, for why to shrink members toward what they share.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], NaN where unknown, shape [Q, M].
        penalty: λ > 0 of the pool and of the members.
    """
    stages = _Stages(features, scores)
    pool = stages.pool(penalty[:1])[0]
    own, bias = stages.members(pool, penalty[1:])[0]
    return CompetenceModel(weights=pool[0][:, None] + own, bias=stages.base + pool[1] + bias, mean=stages.mean)


def cross_fitted(
    features: Floats,
    scores: Floats,
    folds: Ints,
    *,
    penalties: Penalties = (COMPETENCE_PENALTIES, COMPETENCE_PENALTIES),
) -> tuple[Floats, tuple[float, float]]:
    """Estimate each query's scores with a model that was fitted without its fold.

    Args:
        features: Query features, shape [Q, F].
        scores: Members' scores in [0, 1], NaN where unknown, shape [Q, M].
        folds: Each query's fold, shape [Q].
        penalties: Penalties to choose from, of the pool and of the members.

    Returns:
        Estimates, shape [Q, M], and the penalties that made them: of least squared error over what is known, first that of the
        pool alone, then that of the members; the stronger in a tie.
    """
    known = ~np.isnan(scores)
    target, outside = np.where(known, scores, 0.0), [folds != fold for fold in np.unique(folds)]
    if len(outside) == 1:  # one fold only: its own mean is the best there is
        strongest = (max(penalties[0]), max(penalties[1]))
        bias = fit_competence(features, scores, penalty=strongest).bias
        return np.clip(np.tile(bias, (len(scores), 1)), _LOW, _HIGH), strongest
    # Of many features a fold's copy alone is large: it is made again where it is needed, and never two at once.
    kept = [_Stages(features[rows], scores[rows]) for rows in outside] if features.size <= MOST_CELLS else None

    def stages() -> Iterator[_Stages]:
        for number, rows in enumerate(outside):
            yield kept[number] if kept is not None else _Stages(features[rows], scores[rows])

    def best(estimates: Floats, penalties: Sequence[float]) -> int:
        errors = [float((known * (np.clip(one, _LOW, _HIGH) - target) ** 2).sum()) for one in estimates]
        return min(range(len(errors)), key=lambda i: (errors[i], -penalties[i]))

    pools: list[list[tuple[Floats, float]]] = []
    estimates = np.empty((len(penalties[0]), *scores.shape))
    for rows, stage in zip(outside, stages(), strict=True):
        fits = stage.pool(penalties[0])
        pools.append(fits)
        for estimate, (slope, intercept) in zip(estimates, fits, strict=True):
            estimate[~rows] = stage.base + (((features[~rows] - stage.mean) @ slope) + intercept)[:, None]
    of_pool = best(estimates, penalties[0])
    shared = estimates[of_pool]
    estimates = np.empty((len(penalties[1]), *scores.shape))
    for rows, stage, fits in zip(outside, stages(), pools, strict=True):
        for estimate, (own, bias) in zip(estimates, stage.members(fits[of_pool], penalties[1]), strict=True):
            estimate[~rows] = shared[~rows] + (features[~rows] - stage.mean) @ own + bias
    of_members = best(estimates, penalties[1])
    return np.clip(estimates[of_members], _LOW, _HIGH), (penalties[0][of_pool], penalties[1][of_members])


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
        labels: b by task (`""` without one) and label (`""` without one).
        looks: w, shape [L].
        pool_size: Members of the whole pool, also where only some of them are kept.
    """

    shared: Floats
    weights: Floats
    option_weights: Floats
    response: Floats
    moments: Floats
    labels: Mapping[tuple[str, str], float]
    looks: Floats
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
        label = self.label_bias(tasks, answers.labels)
        if answers.looks is not None:
            label = label + answers.looks @ self.looks
        trust = members.trust + np.einsum("qmr,rm->qm", response_features(answers, moments), response)
        return Evidence(
            candidate_index=answers.candidate_index,
            trust=trust.astype(kind),
            label=label.astype(kind),
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
                bias[row] = [bias_of.get((name, label or ""), 0.0) for label in labels[row].tolist()]
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

"""Evidence: how much each member's answer says for a candidate, in log-odds.

A conditional logit model, fitted to recorded outcomes (`training.evidence`). A candidate's log-odds add up over the members
asked, and over the candidate's own label:

    z(k) = Σ_{m supports k} tₘ + Σ_m sₘ uₘₖ + b(task, label of k)
    tₘ = α logit(competence) + β + ψ(q)·Aₘ + x·Dₘ            sₘ = γ + ψ(q)·Cₘ

ψ(q) are 1, surface and task features of the query; x says how the response looks beside the member's others (length,
log-probability of its tokens); u are the member's option scores, centred over the options and scaled. α, β and γ belong to
no member: one that was never fitted has them alone.

Source of the model: McFadden, 1974, "Conditional logit analysis of qualitative choice behavior".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from langchain_rlfocal.features import HASHED_TASKS, HASHED_WORDS, SURFACE_NAMES
from langchain_rlfocal.states import Answers, Descriptors, Evidence, Floats, Texts

CONTEXT_DIM = 1 + len(SURFACE_NAMES) + HASHED_TASKS
"""P, the length of ψ(q)."""

RESPONSE_DIM = 4
"""R, the length of x: deviation of length and log-probability from the member's mean, in its standard deviations, each
also squared less 1."""

MAX_CHARS = 4000
"""A longer response counts as one of this length: recorded texts may be cut short."""

MAX_COMPARED = 64
"""In a larger pool likeness is not measured: its cost grows with the square of the answers."""

_CLIP = 3.0
_TOKEN = re.compile(r"\w+")


def context_of(features: Floats) -> Floats:
    """Take ψ(q), shape [Q, P], out of query features of shape [Q, F]."""
    tasks = len(SURFACE_NAMES) + HASHED_WORDS
    ones = np.ones((len(features), 1))
    return np.concatenate([ones, features[:, : len(SURFACE_NAMES)], features[:, tasks : tasks + HASHED_TASKS]], axis=1)


@dataclass(frozen=True, slots=True)
class EvidenceModel:
    """The fitted model of M members.

    Attributes:
        shared: α, β and γ, shape [3].
        weights: Aₘ, shape [P, M].
        slopes: Cₘ, shape [P, M].
        response: Dₘ, shape [R, M].
        moments: Mean and standard deviation of log(1 + characters), then of log-probabilities, then the standard deviation
            of centred option scores, shape [5, M].
        labels: b by task (`""` without one) and label.
        pool_size: Members of the whole pool, also where only some of them are kept.
    """

    shared: Floats
    weights: Floats
    slopes: Floats
    response: Floats
    moments: Floats
    labels: Mapping[tuple[str, str], float]
    pool_size: int

    def take(self, columns: Sequence[int]) -> "EvidenceModel":
        """Keep these members only."""
        return replace(
            self,
            weights=self.weights[:, columns],
            slopes=self.slopes[:, columns],
            response=self.response[:, columns],
            moments=self.moments[:, columns],
        )

    def trust(self, features: Floats, competence: Floats) -> Floats:
        """Compute t without x, as it is expected before an answer, shape [Q, M]."""
        scale, base, _ = self.shared
        log_odds = np.log(competence) - np.log1p(-competence)
        return np.asarray(scale * log_odds + base + context_of(features) @ self.weights)

    def option_slopes(self, features: Floats) -> Floats:
        """Compute s, shape [Q, M]."""
        return np.asarray(self.shared[2] + context_of(features) @ self.slopes)

    def read(self, known: Descriptors, tasks: Sequence[str | None], answers: Answers) -> Evidence:
        """Say what the answers of M members to Q queries are evidence of."""
        kind = known.competence.dtype
        looks = response_features(answers, self.moments)
        scored = None
        if answers.option_scores is not None:
            scored = (known.slopes[:, :, None] * scaled_options(answers.option_scores, self.moments)).astype(kind)
        return Evidence(
            places=answers.places,
            trust=(known.trust + np.einsum("qmr,rm->qm", looks, self.response)).astype(kind),
            label=self.label_bias(tasks, answers.labels).astype(kind),
            scored=scored,
            similarity=similarity_of(answers, kind) if self.pool_size <= MAX_COMPARED else None,
        )

    def label_bias(self, tasks: Sequence[str | None], labels: Texts) -> Floats:
        """Look up b of each label, shape [Q, K]; 0 where it is not known."""
        bias = np.zeros(labels.shape)
        if self.labels:
            for row, task in enumerate(tasks):
                bias[row] = [self.labels.get((task or "", label), 0.0) if label else 0.0 for label in labels[row]]
        return bias


def response_features(answers: Answers, moments: Floats) -> Floats:
    """Compute x, shape [Q, M, R]; 0 where unknown."""
    chars = np.log1p(np.minimum(answers.chars, MAX_CHARS))
    deviations = np.stack([(chars - moments[0]) / moments[1], (answers.logprobs - moments[2]) / moments[3]], axis=2)
    known = ~np.isnan(deviations)
    clipped = np.clip(np.where(known, deviations, 0.0), -_CLIP, _CLIP)
    return np.concatenate([clipped, np.where(known, clipped**2 - 1.0, 0.0)], axis=2)


def scaled_options(option_scores: Floats, moments: Floats) -> Floats:
    """Centre each member's option scores over the options and scale them, shape [Q, M, K]; NaN where there is none."""
    given = ~np.isnan(option_scores)
    mean = np.where(given, option_scores, 0.0).sum(axis=2) / np.maximum(given.sum(axis=2), 1)
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
    moments = np.zeros((5, answers.places.shape[1]))
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
    q, m = answers.places.shape
    similarity = None
    for row in range(q):
        here = np.unique(answers.places[row])
        here = here[here >= 0]
        if len(here) < 2:
            continue
        words = {place: set(_TOKEN.findall(answers.labels[row, place] or "")) for place in here}
        if max(map(len, words.values())) < 2:
            continue
        if similarity is None:
            similarity = np.zeros((q, m, answers.labels.shape[1]), dtype=kind)
        for place in here:
            supporters = answers.places[row] == place
            for other in here:
                total = len(words[place]) + len(words[other])
                if other != place and max(len(words[place]), len(words[other])) > 1:
                    similarity[row, supporters, other] = 2 * len(words[place] & words[other]) / total
    return similarity

"""States: where Q queries stand in the middle of an episode, and what is known of them.

What is known before anyone is asked are `Descriptors`; what the answers say, member by member, is `Evidence`, which a policy
reads from `Answers`. A `State` shows of the evidence what the asked members gave, and nothing of the others.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a policy knows of M members near Q queries before anyone is asked.

    Attributes:
        competence: Estimated scores, shape [Q, M].
        trust: Log-odds that each member's answer is expected to add to its candidate, shape [Q, M].
        slopes: Log-odds that one standard deviation of each member's option scores adds, shape [Q, M].
        price: Each member's share of what asking all of the policy's members costs, shape [M].
        diversity: Pairwise focal diversity, shape [M, M].
        surface: Surface features of the queries, shape [Q, S].
    """

    competence: Floats
    trust: Floats
    slopes: Floats
    price: Floats
    diversity: Floats
    surface: Floats

    def take(self, rows: Ints | Bools) -> "Descriptors":
        """Keep these queries."""
        return replace(
            self,
            competence=self.competence[rows],
            trust=self.trust[rows],
            slopes=self.slopes[rows],
            surface=self.surface[rows],
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """What M members answered to Q queries, with K places for candidates.

    Attributes:
        places: The candidate that each member supports, shape [Q, M]; -1 where it gave no answer.
        labels: The answer at each place, shape [Q, K]; None where there is none.
        chars: Characters of each response, NaN where unknown, shape [Q, M].
        logprobs: Mean token log-probability of each response, NaN where unknown, shape [Q, M].
        option_scores: Each member's score for the candidate at each place, NaN where it gave none, shape [Q, M, K]; None
            where no member scores options.
    """

    places: Ints
    labels: Texts
    chars: Floats
    logprobs: Floats
    option_scores: Floats | None = None

    def take(self, rows: Ints | Bools) -> "Answers":
        """Keep these queries."""
        return Answers(
            places=self.places[rows],
            labels=self.labels[rows],
            chars=self.chars[rows],
            logprobs=self.logprobs[rows],
            option_scores=None if self.option_scores is None else self.option_scores[rows],
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What each member's answer says for the candidates, shown only of members that were asked.

    Attributes:
        places: The candidate that each member supports, shape [Q, M]; -1 where it gave no answer.
        trust: Log-odds that each member's answer adds to its candidate, given how it looks, shape [Q, M].
        label: Log-odds that the label itself adds to each candidate, shape [Q, K].
        scored: Log-odds that each member's option scores add to each candidate, NaN where it scores no such option,
            shape [Q, M, K]; None where no member scores options.
        similarity: Likeness of each member's answer to each candidate, 0 to its own, shape [Q, M, K]; None where all
            are 0.
    """

    places: Ints
    trust: Floats
    label: Floats
    scored: Floats | None
    similarity: Floats | None

    def take(self, rows: Ints | Bools) -> "Evidence":
        """Keep these queries."""
        return Evidence(
            places=self.places[rows],
            trust=self.trust[rows],
            label=self.label[rows],
            scored=None if self.scored is None else self.scored[rows],
            similarity=None if self.similarity is None else self.similarity[rows],
        )


@dataclass(frozen=True)
class State:
    """Q queries before one decision, with K places for candidates.

    A candidate is a distinct answer of the asked members, or, where all of them score one set of options, any of these
    options. Where nobody answered, the most competent asked member's silence stands in, so that there is something to
    return.

    Attributes:
        competence: Estimated score of each member near each query, shape [Q, M].
        price: Each member's share of what asking the whole pool costs, shape [M].
        diversity: Pairwise focal diversity of the members, shape [M, M].
        surface: Surface features of the queries, shape [Q, S].
        asked: Members asked so far, shape [Q, M].
        places: The candidate that each member supports, in 0 .. K - 1, shape [Q, M]; -1 where not asked or silent.
        trust: Log-odds that each member's answer adds to its candidate, shape [Q, M]: of asked members as their
            answers look, of the others as expected.
        scored: Log-odds of each candidate beyond its supporters': option scores of asked members and label, shape [Q, K].
        options: Candidates that exist without a supporter, shape [Q, K].
        similarity: Likeness of each candidate to the answers of asked members who say otherwise, summed, over all answered
            members, shape [Q, K].
        cost_weight: What asking the whole pool once is worth in units of score, shape [Q].
        round_number: The coming round, counted from 1.
        max_rounds: How many rounds there may be.
        max_team: How many members may be asked over all rounds.
    """

    competence: Floats
    price: Floats
    diversity: Floats
    surface: Floats
    asked: Bools
    places: Ints
    trust: Floats
    scored: Floats
    options: Bools
    similarity: Floats
    cost_weight: Floats
    round_number: int
    max_rounds: int
    max_team: int

    @cached_property
    def answered(self) -> Bools:
        """Members with an answer, shape [Q, M]."""
        return self.places >= 0

    @cached_property
    def num_asked(self) -> Floats:
        """Members asked, shape [Q]."""
        return np.asarray(self.asked.sum(axis=1, dtype=self.competence.dtype))

    @cached_property
    def num_answered(self) -> Floats:
        """Members with an answer, shape [Q]."""
        return np.asarray(self.answered.sum(axis=1, dtype=self.competence.dtype))

    @cached_property
    def _cells(self) -> Ints:
        """Flat index of each member's candidate; K for none, in rows of K + 1."""
        width = self.scored.shape[1] + 1
        rows = np.arange(len(self.places))[:, None] * width
        return np.asarray(rows + np.where(self.answered, self.places, width - 1))

    def sum_of_supporters(self, values: Floats) -> Floats:
        """Add up what members bring over each candidate's supporters: shape [Q, M] to [Q, K]."""
        q, width = len(self.places), self.scored.shape[1] + 1
        total = np.bincount(self._cells.ravel(), weights=values.ravel(), minlength=q * width)
        return total.reshape(q, width)[:, :-1].astype(values.dtype)

    def max_of_supporters(self, values: Floats) -> Floats:
        """Take the highest of what a candidate's supporters bring, 0 without one: shape [Q, M] to [Q, K]."""
        top = np.full((len(self.places), self.scored.shape[1] + 1), -np.inf, dtype=values.dtype)
        np.maximum.at(top.ravel(), self._cells.ravel(), values.ravel())
        return np.where(self.count > 0, top[:, :-1], 0)

    def of_candidate(self, values: Floats) -> Floats:
        """Give each member what its candidate has, 0 where it has none: shape [Q, K] to [Q, M]."""
        rows = np.arange(len(values))[:, None]
        return np.where(self.answered, values[rows, np.maximum(self.places, 0)], 0)

    @cached_property
    def count(self) -> Floats:
        """Number of supporters of each candidate, shape [Q, K]."""
        return self.sum_of_supporters(np.ones_like(self.competence))

    @cached_property
    def representative(self) -> Ints:
        """The most competent supporter of each candidate, shape [Q, K]; the earlier of equals, -1 without one.

        Where nobody answered, the most competent asked member represents the candidate at its own place.
        """
        q, m = self.places.shape
        rows = np.arange(q)[:, None]
        order = np.argsort(-self.competence, axis=1, kind="stable")
        rank = np.empty((q, m), dtype=np.int64)
        rank[rows, order] = np.arange(m)
        best_rank = np.full((q, self.scored.shape[1] + 1), m)
        np.minimum.at(best_rank.ravel(), self._cells.ravel(), rank.ravel())
        best_rank = best_rank[:, :-1]
        found = np.where(best_rank < m, order[rows, np.minimum(best_rank, m - 1)], -1)
        mute = np.flatnonzero((self.num_answered == 0) & (self.num_asked > 0))
        if len(mute):
            best = np.where(self.asked[mute], self.competence[mute], -1).argmax(axis=1)
            found[mute, best] = best
        return found

    @cached_property
    def candidates(self) -> Bools:
        """Where the candidates are, shape [Q, K]: at least one wherever anyone was asked."""
        return (self.representative >= 0) | self.options

    @cached_property
    def evidence(self) -> Floats:
        """Log-odds of each candidate, shape [Q, K]; 0 where there is none."""
        total = self.sum_of_supporters(np.where(self.answered, self.trust, 0)) + self.scored
        return np.where(self.candidates, total, 0).astype(self.competence.dtype)

    @cached_property
    def belief(self) -> Floats:
        """Softmax of the evidence over the candidates, shape [Q, K]; 0 where there is none."""
        logits = np.where(self.candidates, self.evidence, -np.inf)
        top = logits.max(axis=1, keepdims=True)
        shares = np.exp(logits - np.where(np.isfinite(top), top, 0))
        return share(shares, shares.sum(axis=1, keepdims=True))


def share(part: Floats, whole: Floats) -> Floats:
    """Divide, with 0 for 0 / 0."""
    return part / np.where(whole > 0, whole, 1)


def state_of(
    known: Descriptors,
    evidence: Evidence,
    asked: Bools,
    *,
    cost_weight: Floats,
    round_number: int,
    max_rounds: int,
    max_team: int,
) -> State:
    """Show what the asked members said of Q queries, and nothing of the others.

    Args:
        known: What is known of the members near these queries.
        evidence: What all members say.
        asked: Members asked so far, shape [Q, M].
        cost_weight: What asking the whole pool once is worth in units of score, shape [Q].
        round_number: The coming round, counted from 1.
        max_rounds: How many rounds there may be.
        max_team: How many members may be asked over all rounds.
    """
    kind = known.competence.dtype
    places = np.where(asked, evidence.places, -1)
    answered = places >= 0
    heard = asked.any(axis=1, keepdims=True)
    if evidence.scored is None:
        scored, options = np.zeros_like(evidence.label), np.zeros(evidence.label.shape, dtype=bool)
    else:
        given = ~np.isnan(evidence.scored)
        scored = np.einsum("qm,qmk->qk", asked.astype(kind), np.where(given, evidence.scored, 0))
        options = np.asarray((given | ~asked[:, :, None]).all(axis=1) & heard)
    exists = options.copy()
    exists[np.nonzero(answered)[0], places[answered]] = True
    similarity = np.zeros_like(evidence.label)
    if evidence.similarity is not None:
        similarity = np.einsum("qm,qmk->qk", answered.astype(kind), evidence.similarity)
        similarity = share(similarity, answered.sum(axis=1, keepdims=True))
    return State(
        competence=known.competence,
        price=known.price,
        diversity=known.diversity,
        surface=known.surface,
        asked=asked,
        places=places,
        trust=np.where(answered, evidence.trust, known.trust),
        scored=np.where(exists, scored + evidence.label, 0),
        options=options,
        similarity=np.where(exists, similarity, 0),
        cost_weight=cost_weight,
        round_number=round_number,
        max_rounds=max_rounds,
        max_team=max_team,
    )

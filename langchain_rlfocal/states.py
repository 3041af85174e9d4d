"""States: Q queries in the middle of an episode, and what a policy knows of them.

`MemberFeatures` are known before anyone is asked. `Answers` are what members said, and `Evidence` is what a policy reads in
them. A `State` shows the evidence of the asked members and nothing of the others.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, Self, TypeVar, get_type_hints, overload

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]


T = TypeVar("T")


class cached(Generic[T]):  # noqa: N801  # reads as a decorator
    """`functools.cached_property` without the lock that it takes before Python 3.12: it costs as much as the arrays here."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self._name, self.__doc__ = compute, compute.__name__, compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """Compute the value and leave it in the instance, where it is found first from then on."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class Rows:
    """A dataclass whose arrays declare their axes, each by a letter: Q queries, M members, K candidates, others for others.

    An array that would be all 0 may be None. A field without axes is another `Rows`.
    """

    def take(self, rows: Ints | Bools) -> Self:
        """Keep these queries."""
        return self.along("Q", rows)

    def of_members(self, columns: Sequence[int]) -> Self:
        """Keep these members, in this order."""
        return self.along("M", np.asarray(columns, dtype=np.int64))

    def along(self, axis: str, index: np.ndarray) -> Self:
        """Index every array along one axis."""
        indexed, kind = {}, type(self)
        for name, axes in _axes_of(kind).items():  # type: ignore[arg-type]  # mypy takes no `type[Self]` for hashable
            array = getattr(self, name)
            if isinstance(array, Rows):
                array = array.along(axis, index)
            for position, letter in enumerate(axes):
                if letter == axis and array is not None:
                    array = array[(slice(None),) * position + (index,)]
            indexed[name] = array
        return kind(**indexed)

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Bools, Self]]) -> Self:
        """Put together parts that hold the marked queries each; an array that only some parts have is 0 in the others.

        An array without queries is that of the first part.
        """
        arrays: dict[str, np.ndarray | None] = {}
        for name, axes in _axes_of(cls).items():  # type: ignore[arg-type]  # as above
            if not axes.startswith("Q"):
                arrays[name] = getattr(parts[0][1], name)
                continue
            there = [(rows, array) for rows, part in parts if (array := getattr(part, name)) is not None]
            arrays[name] = None
            if there:
                whole = np.zeros((len(there[0][0]), *there[0][1].shape[1:]), dtype=there[0][1].dtype)
                for rows, array in there:
                    whole[rows] = array
                arrays[name] = whole
        return cls(**arrays)


@cache
def _axes_of(kind: Hashable) -> dict[str, str]:
    """Read the declared axes of each field, `""` where none are."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: getattr(hint, "__metadata__", ("",))[0] for name, hint in hints.items()}


@dataclass(frozen=True)
class MemberFeatures(Rows):
    """What a policy knows of M members near Q queries before anyone is asked.

    Attributes:
        competence: Estimated scores, shape [Q, M].
        trust: Log-odds that each member's answer is expected to add to its candidate, shape [Q, M].
        option_weights: Log-odds that one standard deviation of each member's option scores adds, shape [Q, M].
        price: Each member's share of what asking all of the policy's members costs, shape [M].
        diversity: Pairwise focal diversity, shape [M, M].
        novelty: How far the queries are from those that the policy was trained on, in [0, 1], shape [Q].
        coincidence: Chance that two right answers to each query are the same answer, shape [Q].
    """

    competence: Annotated[Floats, "QM"]
    trust: Annotated[Floats, "QM"]
    option_weights: Annotated[Floats, "QM"]
    price: Annotated[Floats, "M"]
    diversity: Annotated[Floats, "MM"]
    novelty: Annotated[Floats, "Q"]
    coincidence: Annotated[Floats, "Q"]

    @cached
    def by_competence(self) -> Ints:
        """Members from the most to the least competent, the earlier of equals first, shape [Q, M]."""
        return (-self.competence).argsort(axis=1, kind="stable")


@dataclass(frozen=True)
class Answers(Rows):
    """What M members answered to Q queries, with room for K candidates.

    Attributes:
        candidate_index: The candidate that each member supports, shape [Q, M]; -1 where it gave no answer.
        labels: The answer that each candidate stands for, shape [Q, K]; None where there is none.
        chars: Characters of each response, NaN where unknown, shape [Q, M].
        logprobs: Mean token log-probability of each response, NaN where unknown, shape [Q, M].
        option_scores: Each member's score for each candidate, NaN where it gave none, shape [Q, M, K]; None where no member
            scores options.
        looks: How each candidate looks among the query's options, see `policies.looks`, shape [Q, K, L]; None where all are 0.
    """

    candidate_index: Annotated[Ints, "QM"]
    labels: Annotated[Texts, "QK"]
    chars: Annotated[Floats, "QM"]
    logprobs: Annotated[Floats, "QM"]
    option_scores: Annotated[Floats | None, "QMK"]
    looks: Annotated[Floats | None, "QKL"] = None


@dataclass(frozen=True)
class Evidence(Rows):
    """What each member's answer says for the candidates, shown of asked members only.

    Attributes:
        candidate_index: The candidate that each member supports, shape [Q, M]; -1 where it gave no answer.
        trust: Log-odds that each member's answer adds to its candidate, in view of its length and probability, shape [Q, M].
        label: Log-odds that the label itself, and the looks of the option that it names, add to each candidate, shape [Q, K].
        option_evidence: Log-odds that each member's option scores add to each candidate, NaN where it scores no such option, shape
            [Q, M, K]; None where no member scores options.
        similarity: Likeness of each member's answer to each candidate, 0 to its own, shape [Q, M, K]; None where all are 0.
    """

    candidate_index: Annotated[Ints, "QM"]
    trust: Annotated[Floats, "QM"]
    label: Annotated[Floats, "QK"]
    option_evidence: Annotated[Floats | None, "QMK"]
    similarity: Annotated[Floats | None, "QMK"]


@dataclass(frozen=True)
class State:
    """Q queries before one decision, with room for K candidates.

    A candidate is a distinct answer of the asked members, or, where all of them score one set of options, any of these
    options. Where nobody answered, the most competent asked member's silence is the candidate, so that there is something
    to return.

    Attributes:
        members: What was known of the members beforehand.
        asked: Members asked so far, shape [Q, M].
        candidate_index: The candidate that each member supports, in 0 .. K - 1, shape [Q, M]; -1 where not asked or silent.
        trust: Log-odds that each member's answer adds to its candidate, shape [Q, M]: of members that answered in view of
            their responses, of the others as expected.
        other_evidence: Log-odds of each candidate beyond its supporters': option scores of asked members and label, [Q, K].
        options: Candidates that exist without a supporter, shape [Q, K].
        similarity: Likeness of each candidate to the answers of asked members who say otherwise, summed, over all answered
            members, shape [Q, K].
        cost_weight: What asking the whole pool once is worth in units of score, shape [Q].
        round_number: The coming round, counted from 1.
        max_rounds: How many rounds there may be.
        max_team: How many members may be asked over all rounds.
    """

    members: MemberFeatures
    asked: Bools
    candidate_index: Ints
    trust: Floats
    other_evidence: Floats
    options: Bools
    similarity: Floats
    cost_weight: Floats
    round_number: int
    max_rounds: int
    max_team: int

    @property
    def competence(self) -> Floats:
        """Estimated score of each member near each query, shape [Q, M]."""
        return self.members.competence

    @cached
    def answered(self) -> Bools:
        """Members with an answer, shape [Q, M]."""
        return self.candidate_index >= 0

    @cached
    def num_asked(self) -> Floats:
        """Members asked, shape [Q]."""
        return _count(self.asked, self.competence.dtype)

    @cached
    def num_answered(self) -> Floats:
        """Members with an answer, shape [Q]."""
        return _count(self.answered, self.competence.dtype)

    @cached
    def count(self) -> Floats:
        """Number of supporters of each candidate, shape [Q, K]."""
        return sum_of_cells(self._cells, self.options.shape[1]).astype(self.competence.dtype)

    @cached
    def supported(self) -> Bools:
        """Candidates with a supporter, shape [Q, K]."""
        return self.count > 0

    @cached
    def num_answers(self) -> Floats:
        """Distinct answers, shape [Q]."""
        return _count(self.supported, self.competence.dtype)

    @cached
    def _cells(self) -> Ints:
        return cells_of(self.candidate_index, self.options.shape[1])

    def sum_of_supporters(self, values: Floats) -> Floats:
        """Add up what members bring over each candidate's supporters: shape [Q, M] to [Q, K]."""
        return sum_of_cells(self._cells, self.options.shape[1], values).astype(values.dtype)

    def max_of_supporters(self, values: Floats) -> Floats:
        """Take the highest of what a candidate's supporters bring, 0 without one: shape [Q, M] to [Q, K]."""
        q, k = self.options.shape
        top = np.full(q * (k + 1), -np.inf, dtype=values.dtype)
        np.maximum.at(top, self._cells.ravel(), values.ravel())
        return np.where(self.supported, top.reshape(q, k + 1)[:, :-1], 0)

    def of_candidate(self, values: np.ndarray) -> Floats:
        """Give each member what its candidate has, 0 where it has none: shape [Q, K] to [Q, M]."""
        padded = np.zeros((len(values), values.shape[1] + 1), dtype=values.dtype)
        padded[:, :-1] = values
        return padded.take(self._cells)

    @cached
    def _silent(self) -> tuple[Ints, Ints] | None:
        """Queries whose asked members are all silent, and the most competent of these; None where there is no such query."""
        silent = self.num_answered < np.minimum(self.num_asked, 1)
        if not np.logical_or.reduce(silent):
            return None
        rows = np.flatnonzero(silent)
        return rows, np.where(self.asked[rows], self.competence[rows], -1).argmax(axis=1)

    @cached
    def representative(self) -> Ints:
        """The most competent supporter of each candidate, shape [Q, K]; the earlier of equals, -1 without one.

        Where nobody answered, the most competent asked member represents the candidate at its own index.
        """
        q, k = self.options.shape
        best = np.full(q * (k + 1), -1)
        # Where an index is repeated, the last assignment counts: that of the most competent.
        upwards = self.members.by_competence[:, ::-1]
        best[self._cells[np.arange(q)[:, None], upwards]] = upwards
        best = best.reshape(q, k + 1)[:, :-1]
        if self._silent is not None:
            best[self._silent] = self._silent[1]
        return best

    @cached
    def competence_behind(self) -> Floats:
        """Competence of each candidate's supporters, summed, shape [Q, K]."""
        return self.sum_of_supporters(self.competence)

    @cached
    def best_behind(self) -> Floats:
        """Competence of each candidate's most competent supporter, 0 without one, shape [Q, K]."""
        rows = np.arange(len(self.asked))[:, None]
        return np.asarray(self.competence[rows, self.representative] * self.supported)

    @cached
    def candidates(self) -> Bools:
        """Where the candidates are, shape [Q, K]: at least one wherever anyone was asked."""
        candidates: Bools = self.supported | self.options
        if self._silent is not None:
            candidates[self._silent] = True
        return candidates

    @cached
    def evidence(self) -> Floats:
        """Log-odds of each candidate, shape [Q, K]; 0 where there is none."""
        return np.where(self.candidates, self.sum_of_supporters(self.trust) + self.other_evidence, 0)

    @cached
    def _logits(self) -> Floats:
        return np.where(self.candidates, self.evidence, -np.inf)

    @cached
    def belief(self) -> Floats:
        """Softmax of the evidence over the candidates, shape [Q, K]; 0 where there is none."""
        return softmax(self._logits)

    @cached
    def _ranked(self) -> Floats:
        """The two highest logits of the candidates, -inf where there is none; shape [2, Q]."""
        logits = self._logits
        if logits.shape[1] == 1:
            logits = np.concatenate([np.full_like(logits, -np.inf), logits], axis=1)
        ranked: Floats = np.partition(logits, -2, axis=1)[:, :-3:-1].T
        return ranked

    @cached
    def top_two(self) -> Floats:
        """The highest and the second highest evidence of the candidates, 0 where there is none; shape [2, Q]."""
        top_two: Floats = np.where(self._ranked > -np.inf, self._ranked, 0)
        return top_two

    @cached
    def lead(self) -> Floats:
        """Evidence of the leading candidate minus the runner-up's, shape [Q]."""
        top, runner_up = self.top_two
        lead: Floats = top - runner_up
        return lead

    @cached
    def leading_belief(self) -> Floats:
        """The highest belief, 0 where there is no candidate, shape [Q]."""
        return np.asarray(np.maximum.reduce(self.belief, axis=1))

    @cached
    def runner_up_belief(self) -> Floats:
        """The second highest belief, 0 where there is no second candidate, shape [Q]."""
        return np.asarray(self.leading_belief * np.exp(self._ranked[1] - self.top_two[0]))

    @cached
    def gain(self) -> Floats:
        """Value of information: how much likelier the returned answer gets to be right by one more answer, shape [Q, M].

        Let p be the member's competence, t its trust, P₁ and P₂ the probabilities of the two leading of n candidates, and
        P₀ that none of them is right, all by the evidence. The member says any one wrong answer with probability p e⁻ᵗ,
        which is what trust means. Its answer changes what is returned if it supports the runner-up strongly enough, or is
        new and likelier than the leader. Where right answers never coincide, it only does if it is likelier by itself:

            gain = c [p (P₂ − e⁻ᵗ P₁)⁺ + (p P₀ − (1 − p − (n − 1) p e⁻ᵗ) P₁)⁺] + (1 − c) (p − P₁)⁺

        with c the `coincidence`; 0 for members that were asked. Third candidates are left out.

        Source: Howard, 1966, "Information value theory".
        """
        top = np.maximum(self._ranked[0], 0)
        odds = np.where(self.candidates, np.exp(self.evidence - top[:, None]), 0)
        unheard = np.exp(-top)
        total = unheard + np.add.reduce(odds, axis=1)
        first, second = (np.exp(self._ranked - top) / total)[:, :, None]
        unheard = (unheard / total)[:, None]
        others = np.maximum(np.add.reduce(self.candidates, axis=1, keepdims=True, dtype=self.competence.dtype) - 1, 0)
        right = self.competence
        wrong = right * np.exp(-np.clip(self.trust, -10, 10))
        overturned = np.maximum(right * second - wrong * first, 0)
        renewed = np.maximum(right * unheard - np.maximum(1 - right - others * wrong, 0) * first, 0)
        coincidence = self.members.coincidence[:, None]
        gain = coincidence * (overturned + renewed) + (1 - coincidence) * np.maximum(right - first, 0)
        return np.where(self.asked, 0, gain)

    @cached
    def charge(self) -> Floats:
        """What calling each member costs in units of score, at most 1, shape [Q, M]."""
        return np.asarray(np.minimum(self.cost_weight[:, None] * self.members.price, 1))

    @cached
    def net_gain(self) -> Floats:
        """Gain of one more answer minus what it costs, 0 for members that were asked, shape [Q, M]."""
        return np.where(self.asked, 0, self.gain - self.charge)

    @cached
    def silence(self) -> Floats:
        """Asked members without an answer over asked members, shape [Q]."""
        return share(self.num_asked - self.num_answered, self.num_asked)

    @cached
    def disagreement(self) -> Floats:
        """Distinct answers over answered members, shape [Q]."""
        return share(self.num_answers, self.num_answered)


def _count(marked: Bools, kind: np.dtype) -> Floats:
    counted: Floats = np.add.reduce(marked, axis=1, dtype=kind)
    return counted


def share(part: np.ndarray, whole: np.ndarray) -> Floats:
    """Divide, with 0 for 0 / 0."""
    return np.asarray(part / np.maximum(whole, 1e-30))


def cells_of(candidate_index: Ints, num_candidates: int) -> Ints:
    """Flat index of each member's candidate in rows of K + 1, whose last is for none, shape [Q, M]."""
    cells: Ints = np.where(candidate_index >= 0, candidate_index, num_candidates)
    if len(cells) > 1:
        cells += np.arange(0, len(cells) * (num_candidates + 1), num_candidates + 1)[:, None]
    return cells


def sum_of_cells(cells: Ints, num_candidates: int, values: Floats | None = None) -> np.ndarray:
    """Add up values (1 each for None) by the candidates of `cells_of`: shape [Q, M] to [Q, K]."""
    weights, size = None if values is None else values.ravel(), len(cells) * (num_candidates + 1)
    return np.bincount(cells.ravel(), weights, size).reshape(len(cells), num_candidates + 1)[:, :-1]


def softmax(logits: Floats) -> Floats:
    """Normalise logits over the last axis; a row of -inf alone becomes zeros."""
    top = np.maximum.reduce(logits, axis=-1, keepdims=True)
    shares: Floats = np.exp(logits - np.maximum(top, -1e30))
    return share(shares, np.add.reduce(shares, axis=-1, keepdims=True))


def state_of(
    members: MemberFeatures,
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
        members: What is known of the members near these queries.
        evidence: What all members say.
        asked: Members asked so far, shape [Q, M].
        cost_weight: What asking the whole pool once is worth in units of score, shape [Q].
        round_number: The coming round, counted from 1.
        max_rounds: How many rounds there may be.
        max_team: How many members may be asked over all rounds.
    """
    kind = members.competence.dtype
    candidate_index = np.where(asked, evidence.candidate_index, -1)
    answered = candidate_index >= 0
    options: Bools = np.zeros(evidence.label.shape, dtype=bool)
    other_evidence = evidence.label
    if evidence.option_evidence is not None:
        scores_it = ~np.isnan(evidence.option_evidence)
        options = np.asarray((scores_it | ~asked[:, :, None]).all(axis=1) & asked.any(axis=1, keepdims=True))
        scored = np.where(scores_it, evidence.option_evidence, 0)
        other_evidence = other_evidence + np.einsum("qm,qmk->qk", asked.astype(kind), scored)
    num_candidates = options.shape[1]
    exists = (sum_of_cells(cells_of(candidate_index, num_candidates), num_candidates) > 0) | options
    similarity = np.zeros(exists.shape, dtype=kind)
    if evidence.similarity is not None:
        similarity = np.einsum("qm,qmk->qk", answered.astype(kind), evidence.similarity)
        similarity = np.where(exists, share(similarity, answered.sum(axis=1, keepdims=True)), 0)
    return State(
        members=members,
        asked=asked,
        candidate_index=candidate_index,
        trust=np.where(answered, evidence.trust, members.trust),
        other_evidence=np.where(exists, other_evidence, 0),
        options=options,
        similarity=similarity,
        cost_weight=cost_weight,
        round_number=round_number,
        max_rounds=max_rounds,
        max_team=max_team,
    )

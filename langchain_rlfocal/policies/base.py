"""The two decisions of an ensemble, which trained and untrained policies share.

`Policy` is what a chat model calls, one query at a time. `EnsemblePolicy` builds both decisions on four batched methods,
which training and evaluation call for thousands of queries at once, so that an answer in production and a row in an
evaluation are decided by the same lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import compress
from typing import Any, Protocol

import numpy as np

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.policies.looks import looks_of
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, Ints, MemberFeatures, State, state_of

RECENT_QUERIES = 64
"""How many queries a policy remembers the description of."""

TIE = 1e-6
"""Weights that differ by no more are equal: how single precision rounds depends on how many are computed at once."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What the members still running cannot change.

    Attributes:
        confidence: The least confidence that the present winner can end with; 0 where nothing shows that it stays the
            winner.
        author_is_final: True if it also stays the same member's.
    """

    confidence: float
    author_is_final: bool


class Policy(Protocol):
    """Decides whom to ask, round by round, and whose answer to return.

    A policy is immutable and has no randomness when serving: the same query and candidates give the same decisions.
    """

    @property
    def policy_id(self) -> str:
        """Short stable name of exactly this policy: changes when any weight does."""

    @property
    def trained(self) -> bool:
        """True if learned from outcomes; False for a prior."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""

    def select(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        available: Sequence[str],
        round_number: int,
        max_rounds: int,
        max_team: int,
        cost_weight: float,
        price_factors: Mapping[str, float] | None = None,
    ) -> Selection:
        """Choose the members to ask in this round; an empty selection means stop and fuse.

        Args:
            query: The query.
            candidates: Answers of all rounds before this one.
            failures: Non-answers of all rounds before this one.
            available: Members that may be asked; those already asked are ignored.
            round_number: This round, counted from 1.
            max_rounds: How many rounds there may be.
            max_team: How many members may be asked over all rounds.
            cost_weight: What asking the whole pool once is worth, in units of score.
            price_factors: By member, what asking it costs in this conversation, of which its provider may hold a part in its
                cache, over what it costs otherwise: how prices are to one another, whatever all cost together. 1 for who is not
                named. A policy without this argument is not given it.

        Returns:
            The selection. Never empty while nobody has answered, someone is left to ask and the team has room.

        Raises:
            PoolError: `available` names a member that the policy does not know.
        """

    def fuse(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        max_team: int,
    ) -> Answer:
        """Resolve the candidates' conflict: equal `answer`s say the same, and an `answer` of None is like no other.

        Raises:
            InputError: There is no candidate.
        """

    def competence(self, query: Query) -> Mapping[str, float]:
        """Estimate each member's score near this query, in [0, 1]."""


def legal_sizes(state: State) -> tuple[Bools, Ints, Ints]:
    """Say what the Decider may choose.

    Returns:
        Who can be selected, shape [Q, M]; the fewest members to add, 1 while nobody has answered and there is room and
        someone left, else 0, shape [Q]; and the most, shape [Q].
    """
    num_asked = np.add.reduce(state.asked, axis=1, dtype=np.int64)
    largest = np.maximum(min(state.max_team, state.asked.shape[1]) - num_asked, 0)
    return ~state.asked, np.minimum(largest, state.num_answered < 1), largest


def winners(state: State, weights: Floats) -> Ints:
    """Pick each query's winning candidate by weight: shapes [Q, K] to [Q].

    Ties go to the candidate whose representative is most competent, then to the earlier one; options without a supporter
    come last.
    """
    member, num_members = state.representative, state.asked.shape[1]
    standing = np.where(state.candidates, weights, -1)
    top = standing >= np.maximum(np.maximum.reduce(standing, axis=1, keepdims=True) - TIE, 0)
    if np.add.reduce(top, axis=None) > len(top):
        rows = np.arange(len(top))[:, None]
        competence = np.where(top, np.where(member >= 0, state.competence[rows, member], 0), -1)
        top &= competence >= np.maximum.reduce(competence, axis=1, keepdims=True)
        top_member = np.where(top, np.where(member >= 0, member, num_members), num_members + 1)
        return np.asarray(top_member.argmin(axis=1))
    return np.asarray(top.argmax(axis=1))


class _Described:
    """What a policy remembers of a query: the members near it, and the state that it saw last and of what."""

    __slots__ = ("features", "last")

    def __init__(self, features: MemberFeatures) -> None:
        self.features = features
        self.last: tuple[tuple[Any, ...], tuple[Sequence[str], State, list[str | None]]] | None = None


class _Probabilities(Mapping[str, float]):
    """Probabilities by member, computed when first read: they take longer than the choice."""

    def __init__(self, names: Sequence[str], free: Bools, compute: Callable[[], Floats]) -> None:
        self._names, self._free, self._compute = names, free, compute

    @cached_property
    def _values(self) -> dict[str, float]:
        return dict(zip(compress(self._names, self._free[0]), self._compute()[self._free].tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __reduce__(self) -> tuple[type[dict[str, float]], tuple[dict[str, float]]]:
        return dict, (self._values,)


class EnsemblePolicy(ABC):
    """Both decisions, built on four batched methods."""

    @property
    @abstractmethod
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""

    @abstractmethod
    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> MemberFeatures:
        """Describe these members (all of the policy's if None) near these queries."""

    @abstractmethod
    def read(
        self,
        features: MemberFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        members: Sequence[str] | None = None,
    ) -> Evidence:
        """Say what the answers of these members (all of the policy's if None) are evidence of."""

    @abstractmethod
    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose whom to add, shape [Q, M] (an empty row means stop).

        Also say whom to name first, the highest first, shape [Q, M], and how to compute the probability of each.
        """

    @abstractmethod
    def weigh(self, state: State) -> Floats:
        """Weigh the candidates, shape [Q, K]; rows sum to 1."""

    def columns(self, members: Sequence[str] | None) -> list[int]:
        """Find members among the policy's own (all of them for None).

        Raises:
            PoolError: The policy does not know one of them.
        """
        if members is None:
            return list(range(len(self.members)))
        column_of = self._column_of
        try:
            return [column_of[name] for name in members]
        except KeyError:
            unknown = ", ".join(name for name in members if name not in column_of)
            msg = (
                f"The policy must know every member that it decides about; unknown: {unknown}; known: "
                f"{', '.join(self.members)}. Train a policy on outcomes of these members, or leave them out of the pool."
            )
            raise PoolError(msg) from None

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.members)}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory of recent queries behind."""
        return {name: value for name, value in self.__dict__.items() if name != "_recent"}

    @cached_property
    def _recent(self) -> Callable[[str, str | None], "_Described"]:
        """`describe` of one query and all members, remembered: an embedder may be slow, or cost."""
        return lru_cache(maxsize=RECENT_QUERIES)(lambda text, task: _Described(self.describe([text], [task])))

    def _state(
        self,
        query: Query,
        members: Sequence[str],
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        max_team: int,
        coming: tuple[float, int, int] | None,
        price_factors: Mapping[str, float] | None = None,
    ) -> tuple[Sequence[str], State, list[str | None]]:
        """Return the members in the policy's own order, which breaks all ties; their state; and each candidate's label.

        `coming` are cost weight, round number and rounds allowed. Fusion, which sees none of them, and no price, takes the state
        that the Decider saw last, if the answers are the same.
        """
        described, columns = self._recent(query.text, query.task), sorted(set(self.columns(members)))
        seen = (columns, tuple(candidates), tuple(failures), max_team)
        if coming is None and described.last is not None and described.last[0] == seen:
            return described.last[1]
        names, position, features = self.members, self._column_of, described.features
        if len(columns) < len(names):
            features = features.of_members(columns)
            names = tuple(names[column] for column in columns)
            position = {name: index for index, name in enumerate(names)}
        if price_factors:
            price = features.price * np.array([price_factors.get(name, 1.0) for name in names])
            # Still shares of what asking everybody costs: a cache says who is cheaper, the cost weight how much is spent.
            price *= features.price.sum() / max(price.sum(), 1e-30)
            features = replace(features, price=price.astype(features.price.dtype))
        asked = np.zeros((1, len(names)), dtype=bool)
        for member in (*(c.member for c in candidates), *(f.member for f in failures)):
            asked[0, position[member]] = True
        if candidates:
            answers = answers_to(query.text, candidates, position)
            evidence, labels = self.read(features, [query.task], answers, names), answers.labels[0].tolist()
        else:
            silent, none = np.full(asked.shape, -1), np.zeros(asked.shape, dtype=features.trust.dtype)
            evidence, labels = Evidence(silent, features.trust, none, None, None), [None] * len(names)
        cost_weight, round_number, max_rounds = coming or (0.0, 1, 1)
        state = state_of(
            features,
            evidence,
            asked,
            cost_weight=np.array([cost_weight], dtype=features.competence.dtype),
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
        )
        described.last = (seen, (names, state, labels))
        return names, state, labels

    def select(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        available: Sequence[str],
        round_number: int,
        max_rounds: int,
        max_team: int,
        cost_weight: float,
        price_factors: Mapping[str, float] | None = None,
    ) -> Selection:
        """Choose the members to ask in this round; see `Policy.select`."""
        names, state, _ = self._state(
            query,
            [*available, *(c.member for c in candidates), *(f.member for f in failures)],
            candidates,
            failures,
            max_team=max_team,
            coming=(cost_weight, round_number, max_rounds),
            price_factors=price_factors,
        )
        teams, preference, probabilities = self.team(state)
        chosen = teams[0].nonzero()[0].tolist()
        if len(chosen) > 1:
            preferred, competence = preference[0].tolist(), state.competence[0].tolist()
            chosen.sort(key=lambda m: (-preferred[m], -competence[m]))
        return Selection(
            round=round_number,
            members=tuple(names[m] for m in chosen),
            probabilities=_Probabilities(names, ~state.asked, probabilities),
        )

    def fuse(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        max_team: int,
    ) -> Answer:
        """Resolve the candidates' conflict; see `Policy.fuse`."""
        if not candidates:
            msg = "Fusion needs at least one candidate, got none. Ask a member first, or raise its failure."
            raise InputError(msg)
        self.columns([*(c.member for c in candidates), *(f.member for f in failures)])
        # A member that failed has nothing to return, so where the others are silent it cannot be the one.
        is_silent = all(candidate.answer is None and is_blank(candidate.text) for candidate in candidates)
        names, state, labels = self._state(
            query, self.members, candidates, () if is_silent else failures, max_team=max_team, coming=None
        )
        weighed = self.weigh(state)
        winner, shares = int(winners(state, weighed)[0]), weighed[0].tolist()
        representative = state.representative[0].tolist()
        member = names[representative[winner]] if representative[winner] >= 0 else None
        supported, ranked = state.candidate_index[0].tolist(), state.members.by_competence[0].tolist()
        behind: dict[int, list[str]] = {k: [] for k in state.candidates[0].nonzero()[0].tolist()}
        for m in ranked:
            if supported[m] >= 0:
                behind[supported[m]].append(names[m])
        weights = {label: shares[k] for k in behind if (label := labels[k]) is not None}
        supporters = {label: tuple(behind[k]) for k in behind if (label := labels[k]) is not None}
        unread = {candidate.member for candidate in candidates if candidate.answer is None}
        if unread:
            weights[""], supporters[""] = 0.0, tuple(names[m] for m in ranked if names[m] in unread)
        return Answer(member=member, answer=labels[winner], weights=weights, supporters=supporters)

    def commitment(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        running: Sequence[str],
    ) -> Commitment:
        """Say what answers still to come cannot change; a policy that cannot tell promises nothing.

        Args:
            query: The query.
            candidates: Candidates so far, with labels that are final.
            failures: Non-answers so far.
            running: Members that are still asked: each may fail, agree, say something new, or give no canonical answer.

        Raises:
            PoolError: The policy does not know one of the members.
        """
        self.columns([*(c.member for c in candidates), *(f.member for f in failures), *running])
        del query
        return Commitment(0.0, author_is_final=False)

    def competence(self, query: Query) -> Mapping[str, float]:
        """Estimate each member's score near this query, in [0, 1]."""
        estimates = self._recent(query.text, query.task).features.competence[0]
        return dict(zip(self.members, estimates.tolist(), strict=True))


def is_blank(text: str) -> bool:
    """Tell whether a response says nothing: where no answer was read either, its member was silent."""
    return not text.strip()


def answers_to(query: str, candidates: Sequence[Candidate], position: Mapping[str, int]) -> Answers:
    """Lay out one query's candidates for members at these positions; every member has room for a candidate of its own.

    A text without a canonical answer takes that room, without a label, as recorded ones do in an `OutcomeGrid`.
    """
    num_members = len(position)
    index_of: dict[str, int] = {}
    candidate_index, chars, logprobs = [-1] * num_members, [np.nan] * num_members, [np.nan] * num_members
    for candidate in sorted(candidates, key=lambda one: position[one.member]):
        member = position[candidate.member]
        if candidate.answer is not None:
            candidate_index[member] = index_of.setdefault(candidate.answer, member)
        elif not is_blank(candidate.text):
            candidate_index[member] = member
        chars[member] = len(candidate.text)
        if candidate.logprob is not None:
            logprobs[member] = candidate.logprob
    optional = sorted({label for candidate in candidates for label in candidate.option_probs or ()} - set(index_of))
    index_of |= {label: num_members + k for k, label in enumerate(optional)}
    labels = np.full((1, num_members + len(optional)), None, dtype=object)
    for label, index in index_of.items():
        labels[0, index] = label
    option_scores = None
    if any(candidate.option_probs for candidate in candidates):
        option_scores = np.full((1, num_members, labels.shape[1]), np.nan)
        for candidate in candidates:
            for label, score in (candidate.option_probs or {}).items():
                option_scores[0, position[candidate.member], index_of[label]] = score
    return Answers(
        np.array([candidate_index]),
        labels,
        np.array([chars]),
        np.array([logprobs]),
        option_scores,
        looks_of([query], labels),
    )

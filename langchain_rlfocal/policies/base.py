"""The two decisions of an ensemble, which trained and untrained policies share.

`Policy` is what a chat model calls, one query at a time. `EnsemblePolicy` builds both decisions on four batched methods,
which training and evaluation call for thousands of queries at once, so that an answer in production and a row in an
evaluation are decided by the same lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, Ints, MemberFeatures, State, state_of

RECENT_QUERIES = 64
"""How many queries a policy remembers the description of."""


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
    ) -> Selection:
        """Choose the members to ask in this round; an empty selection means stop and fuse.

        Args:
            query: The query.
            candidates: Answers of all rounds before this one.
            failures: Non-answers of all rounds before this one.
            available: Members that may be asked, in the pool's order; those already asked are ignored.
            round_number: This round, counted from 1.
            max_rounds: How many rounds there may be.
            max_team: How many members may be asked over all rounds.
            cost_weight: What asking the whole pool once is worth, in units of score.

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
        """Resolve the candidates' conflict.

        Args:
            query: The query.
            candidates: All candidates, at least one. Equal `answer`s say the same; an `answer` of None supports nothing.
            failures: All non-answers.
            max_team: How many members could have been asked.

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
    largest = np.maximum(np.minimum(state.max_team, state.asked.shape[1]) - num_asked, 0)
    smallest = np.where(state.num_answered > 0, 0, np.minimum(largest, 1))
    return ~state.asked, smallest, largest


def winners(state: State, weights: Floats) -> Ints:
    """Pick each query's winning candidate by weight.

    Ties go to the candidate whose representative is most competent, then to the earlier one; options without a supporter
    come last.

    Args:
        state: The queries.
        weights: Fusion's weights, shape [Q, K].

    Returns:
        The index of the winner, shape [Q].
    """
    member, num_members = state.representative, state.asked.shape[1]
    standing = np.where(state.candidates, weights, -1.0)
    top = state.candidates & (standing >= np.maximum.reduce(standing, axis=1, keepdims=True))
    rows = np.arange(len(top))[:, None]
    competence = np.where(top, np.where(member >= 0, state.competence[rows, member], 0), -1)
    top &= competence >= np.maximum.reduce(competence, axis=1, keepdims=True)
    winner: Ints = np.where(top, np.where(member >= 0, member, num_members), num_members + 1).argmin(axis=1)
    return winner


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
    def team(self, state: State) -> tuple[Bools, Callable[[], Floats]]:
        """Choose whom to add, shape [Q, M] (an empty row means stop); and, to be called, the probability of each."""

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
    def _recent(self) -> Callable[[str, str | None], MemberFeatures]:
        """`describe` of one query, remembered: every round of an answer, and its fusion, ask for the same.

        Of all members, so that it is found again whoever was asked; an embedder may be slow, or cost.
        """
        return lru_cache(maxsize=RECENT_QUERIES)(lambda text, task: self.describe([text], [task]))

    def _state(
        self,
        query: Query,
        members: Sequence[str],
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        round_number: int,
        max_rounds: int,
        max_team: int,
        cost_weight: float,
    ) -> tuple[list[str], State, list[str | None]]:
        """Return the members in the policy's own order, which breaks all ties; their state; and each candidate's label."""
        columns, features = sorted(set(self.columns(members))), self._recent(query.text, query.task)
        if len(columns) < len(self.members):
            features = features.of_members(columns)
        own = self.members
        names = [own[column] for column in columns]
        position = {name: index for index, name in enumerate(names)}
        asked = np.zeros((1, len(names)), dtype=bool)
        asked[0, [position[one.member] for one in candidates]] = True
        asked[0, [position[one.member] for one in failures]] = True
        if candidates:
            answers = _answers(candidates, position)
            evidence, labels = self.read(features, [query.task], answers, names), answers.labels[0].tolist()
        else:
            silent, none = np.full(asked.shape, -1), np.zeros(asked.shape, dtype=features.trust.dtype)
            evidence, labels = Evidence(silent, features.trust, none, None, None), [None] * len(names)
        state = state_of(
            features,
            evidence,
            asked,
            cost_weight=np.array([cost_weight], dtype=features.competence.dtype),
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
        )
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
    ) -> Selection:
        """Choose the members to ask in this round; see `Policy.select`."""
        names, state, _ = self._state(
            query,
            [*available, *(c.member for c in candidates), *(f.member for f in failures)],
            candidates,
            failures,
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
            cost_weight=cost_weight,
        )
        teams, probabilities_of = self.team(state)
        probabilities, competence = probabilities_of()[0].tolist(), state.competence[0].tolist()
        chosen = sorted(np.flatnonzero(teams[0]).tolist(), key=lambda m: (-probabilities[m], -competence[m]))
        asked = state.asked[0].tolist()
        return Selection(
            round=round_number,
            members=tuple(names[m] for m in chosen),
            probabilities={name: p for name, p, was in zip(names, probabilities, asked, strict=True) if not was},
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
        # A member that failed has nothing to return, so where nobody has a canonical answer it cannot be the one.
        none_answered = all(candidate.answer is None for candidate in candidates)
        counted = () if none_answered else failures
        names, state, labels = self._state(
            query,
            [*(c.member for c in candidates), *(f.member for f in counted)],
            candidates,
            counted,
            round_number=1,
            max_rounds=1,
            max_team=max_team,
            cost_weight=0.0,
        )
        weights = self.weigh(state)
        winner = int(winners(state, weights)[0])
        representative = [names[m] if m >= 0 else None for m in state.representative[0].tolist()]
        ranked = state.members.by_competence[0].tolist()
        if none_answered and labels[winner] is None:  # somebody's text is returned, and nothing agrees with anything
            supporters = {"": tuple(names[m] for m in ranked)}
            return Answer(member=representative[winner], answer=None, weights={"": 0.0}, supporters=supporters)
        behind: dict[int, list[str]] = {k: [] for k in np.flatnonzero(state.candidates[0]).tolist()}
        supported = state.candidate_index[0].tolist()
        for m in ranked:
            if supported[m] >= 0:
                behind[supported[m]].append(names[m])
        return Answer(
            member=representative[winner],
            answer=labels[winner],
            weights={labels[k] or "": float(weights[0, k]) for k in behind},
            supporters={
                labels[k] or "": tuple(who or ([alone] if (alone := representative[k]) else []))
                for k, who in behind.items()
            },
        )

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
            candidates: Candidates so far, with labels that are final; see `labels_are_final`.
            failures: Non-answers so far.
            running: Members that are still asked. Each may fail, say what another says or what nobody has said, or answer
                without a canonical answer.

        Raises:
            PoolError: The policy does not know one of the members.
        """
        self.columns([*(c.member for c in candidates), *(f.member for f in failures), *running])
        del query
        return Commitment(0.0, author_is_final=False)

    def competence(self, query: Query) -> Mapping[str, float]:
        """Estimate each member's score near this query, in [0, 1]."""
        estimates = self._recent(query.text, query.task).competence[0]
        return dict(zip(self.members, map(float, estimates), strict=True))


def _answers(candidates: Sequence[Candidate], position: Mapping[str, int]) -> Answers:
    """Lay out one query's candidates for members at these positions; every member has room for a candidate of its own."""
    num_members = len(position)
    index_of: dict[str, int] = {}
    candidate_index, chars, logprobs = [-1] * num_members, [np.nan] * num_members, [np.nan] * num_members
    for candidate in sorted(candidates, key=lambda one: position[one.member]):
        member = position[candidate.member]
        if candidate.answer is not None:
            candidate_index[member] = index_of.setdefault(candidate.answer, member)
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
    return Answers(np.array([candidate_index]), labels, np.array([chars]), np.array([logprobs]), option_scores)

"""The two decisions of an ensemble, which trained and untrained policies share.

`Policy` is what the answering river calls, one query at a time. `EnsemblePolicy` builds both decisions on three batched
methods, which training and evaluation call for thousands of queries at once: one implementation, so that an answer in
production and a row in an evaluation are decided by the same lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.observations import Bools, Floats, Ints, State, support_of
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection


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


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a policy knows of M members near Q queries before anyone is asked.

    Attributes:
        competence: Estimated scores, shape [Q, M].
        price: Each member's share of what asking all of the policy's members costs, shape [M].
        diversity: Pairwise focal diversity, shape [M, M].
        surface: Surface features of the queries, shape [Q, S].
    """

    competence: Floats
    price: Floats
    diversity: Floats
    surface: Floats


def legal_sizes(state: State) -> tuple[Bools, Ints, Ints]:
    """Say what the Decider may choose.

    Returns:
        Who can be selected, shape [Q, M]; the fewest members to add, 1 while nobody has answered and there is room and
        someone left, else 0, shape [Q]; and the most, shape [Q].
    """
    selectable = ~state.asked
    room = state.max_team - state.asked.sum(axis=1)
    largest = np.maximum(np.minimum(room, selectable.sum(axis=1)), 0)
    smallest = np.where(state.answered.any(axis=1), 0, np.minimum(largest, 1))
    return selectable, smallest, largest


def winners(state: State, weights: Floats) -> Ints:
    """Pick each query's winning answer by weight; ties go to the most competent member, then to the earlier one.

    Args:
        state: The queries.
        weights: Fusion's weights at the places of the representatives, shape [Q, M].

    Returns:
        The representative of the winning answer, shape [Q].
    """
    representative = support_of(state).representative
    standing = np.where(representative, weights, -1.0)
    top = standing >= standing.max(axis=1, keepdims=True)
    winner: Ints = np.where(top & representative, state.competence, -1.0).argmax(axis=1)
    return winner


class EnsemblePolicy(ABC):
    """Both decisions, built on three batched methods."""

    @property
    @abstractmethod
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""

    @abstractmethod
    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> Descriptors:
        """Describe these members (all of the policy's if None) near these queries."""

    @abstractmethod
    def team(self, state: State) -> tuple[Bools, Floats]:
        """Choose whom to add, shape [Q, M] (an empty row means stop), and the probability of each, shape [Q, M]."""

    @abstractmethod
    def weigh(self, state: State) -> Floats:
        """Weigh the answers: shape [Q, M], at the place of each answer's representative; rows sum to 1."""

    def columns(self, members: Sequence[str] | None) -> list[int]:
        """Find members among the policy's own (all of them for None).

        Raises:
            PoolError: The policy does not know one of them.
        """
        if members is None:
            return list(range(len(self.members)))
        unknown = [name for name in members if name not in self.members]
        if unknown:
            msg = (
                f"The policy must know every member that it decides about; unknown: {', '.join(unknown)}; known: "
                f"{', '.join(self.members)}. Train a policy on outcomes of these members, or leave them out of the pool."
            )
            raise PoolError(msg)
        return [self.members.index(name) for name in members]

    def _in_order(self, members: Sequence[str]) -> list[str]:
        """Put members, named once or more, in the policy's own order, which breaks all ties."""
        return [self.members[column] for column in sorted(set(self.columns(members)))]

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
    ) -> State:
        place = {name: index for index, name in enumerate(members)}
        described = self.describe([query.text], [query.task], members)
        asked = np.zeros((1, len(members)), dtype=bool)
        answer_ids = np.full((1, len(members)), -1, dtype=np.int64)
        logprobs = np.full((1, len(members)), np.nan)
        labels: dict[str, int] = {}
        for failure in failures:
            asked[0, place[failure.member]] = True
        for candidate in candidates:
            index = place[candidate.member]
            asked[0, index] = True
            if candidate.answer is not None:
                answer_ids[0, index] = labels.setdefault(candidate.answer, len(labels))
            if candidate.logprob is not None:
                logprobs[0, index] = candidate.logprob
        return State(
            competence=described.competence,
            price=described.price,
            diversity=described.diversity,
            surface=described.surface,
            asked=asked,
            answer_ids=answer_ids,
            logprobs=logprobs,
            cost_weight=np.array([cost_weight]),
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
        )

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
        members = self._in_order([*available, *(c.member for c in candidates), *(f.member for f in failures)])
        state = self._state(
            query,
            members,
            candidates,
            failures,
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
            cost_weight=cost_weight,
        )
        teams, probabilities = self.team(state)
        chosen = [m for m in np.lexsort((-state.competence[0], -probabilities[0])) if teams[0, m]]
        return Selection(
            round=round_number,
            members=tuple(members[m] for m in chosen),
            probabilities={name: float(probabilities[0, m]) for m, name in enumerate(members) if not state.asked[0, m]},
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
        # A member that failed has nothing to return, so where nobody has a canonical answer it must not stand in.
        mute = all(candidate.answer is None for candidate in candidates)
        heard = self._in_order([*(c.member for c in candidates), *(() if mute else (f.member for f in failures))])
        state = self._state(
            query,
            heard,
            candidates,
            () if mute else failures,
            round_number=1,
            max_rounds=1,
            max_team=max_team,
            cost_weight=0.0,
        )
        weights = self.weigh(state)
        support = support_of(state)
        rank = np.argsort(-state.competence[0], kind="stable")
        answers = {c.member: c.answer for c in candidates}
        named = {k: answers[heard[k]] or "" for k in np.flatnonzero(support.representative[0])}
        winner = int(winners(state, weights)[0])
        return Answer(
            member=heard[winner],
            answer=answers[heard[winner]],
            weights={label: float(weights[0, k]) for k, label in named.items()},
            supporters={
                label: tuple(heard[m] for m in rank if support.same[0, k, m]) or (heard[k],)
                for k, label in named.items()
            },
        )

    def competence(self, query: Query) -> Mapping[str, float]:
        """Estimate each member's score near this query, in [0, 1]."""
        estimates = self.describe([query.text], [query.task]).competence[0]
        return dict(zip(self.members, map(float, estimates), strict=True))

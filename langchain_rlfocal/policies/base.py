"""The two decisions of an ensemble, which trained and untrained policies share.

`Policy` is what the answering river calls, one query at a time. `EnsemblePolicy` builds both decisions on four batched
methods, which training and evaluation call for thousands of queries at once: one implementation, so that an answer in
production and a row in an evaluation are decided by the same lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection
from langchain_rlfocal.states import Answers, Bools, Descriptors, Evidence, Floats, Ints, State, state_of

RECENT_QUERIES = 64
"""How many queries a policy remembers the description of."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What stays as it is, whatever the members still running answer.

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
    selectable = ~state.asked
    room = state.max_team - state.asked.sum(axis=1)
    largest = np.maximum(np.minimum(room, selectable.sum(axis=1)), 0)
    smallest = np.where(state.answered.any(axis=1), 0, np.minimum(largest, 1))
    return selectable, smallest, largest


def winners(state: State, weights: Floats) -> Ints:
    """Pick each query's winning candidate by weight.

    Ties go to the candidate whose representative is most competent, then to the earlier one; options without a supporter
    come last.

    Args:
        state: The queries.
        weights: Fusion's weights, shape [Q, K].

    Returns:
        The place of the winner, shape [Q].
    """
    standing = np.where(state.candidates, weights, -1.0)
    top = state.candidates & (standing >= standing.max(axis=1, keepdims=True))
    represented = state.representative >= 0
    rows = np.arange(len(top))[:, None]
    competence = np.where(represented, state.competence[rows, np.maximum(state.representative, 0)], 0)
    top &= competence >= np.where(top, competence, -1).max(axis=1, keepdims=True)
    last = state.competence.shape[1]
    winner: Ints = np.where(top, np.where(represented, state.representative, last), last + 1).argmin(axis=1)
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
    ) -> Descriptors:
        """Describe these members (all of the policy's if None) near these queries."""

    @abstractmethod
    def read(
        self, known: Descriptors, tasks: Sequence[str | None], answers: Answers, members: Sequence[str] | None = None
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
        places = self._places
        unknown = [name for name in members if name not in places]
        if unknown:
            msg = (
                f"The policy must know every member that it decides about; unknown: {', '.join(unknown)}; known: "
                f"{', '.join(self.members)}. Train a policy on outcomes of these members, or leave them out of the pool."
            )
            raise PoolError(msg)
        return [places[name] for name in members]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.members)}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory of recent queries behind."""
        return {name: value for name, value in self.__dict__.items() if name != "_recent"}

    @cached_property
    def _recent(self) -> Callable[[str, str | None], Descriptors]:
        """`describe` of one query, remembered: every round of an answer, and its fusion, ask for the same.

        Of all members, so that it is found again whoever was asked; an embedder may be slow, or cost.
        """
        return lru_cache(maxsize=RECENT_QUERIES)(lambda text, task: self.describe([text], [task]))

    def _known(self, query: Query, members: Sequence[str]) -> Descriptors:
        """Describe these members near a query."""
        known, columns = self._recent(query.text, query.task), self.columns(members)
        if len(columns) == len(self.members):
            return known  # members come in the policy's own order
        return replace(
            known,
            competence=known.competence[:, columns],
            trust=known.trust[:, columns],
            slopes=known.slopes[:, columns],
            price=known.price[columns],
            diversity=known.diversity[np.ix_(columns, columns)],
        )

    def _in_order(self, members: Sequence[str]) -> tuple[str, ...]:
        """Put members, named once or more, in the policy's own order, which breaks all ties."""
        own = self.members
        return tuple(own[column] for column in sorted(set(self.columns(members))))

    def _state(
        self,
        query: Query,
        members: tuple[str, ...],
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        round_number: int,
        max_rounds: int,
        max_team: int,
        cost_weight: float,
    ) -> tuple[State, list[str | None]]:
        """Return where the query stands, and the answer at each place."""
        place = {name: index for index, name in enumerate(members)}
        known = self._known(query, members)
        asked = np.zeros((1, len(members)), dtype=bool)
        heard = [*(c.member for c in candidates), *(f.member for f in failures)]
        asked[0, [place[name] for name in heard]] = True
        answers = _answers(candidates, place)
        state = state_of(
            known,
            self.read(known, [query.task], answers, members),
            asked,
            cost_weight=np.array([cost_weight], dtype=known.competence.dtype),
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
        )
        return state, answers.labels[0].tolist()

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
        state, _ = self._state(
            query,
            members,
            candidates,
            failures,
            round_number=round_number,
            max_rounds=max_rounds,
            max_team=max_team,
            cost_weight=cost_weight,
        )
        teams, probabilities_of = self.team(state)
        probabilities = probabilities_of()
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
        state, labels = self._state(
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
        winner = int(winners(state, weights)[0])
        rank = np.argsort(-state.competence[0], kind="stable")
        if mute and labels[winner] is None:  # somebody's text is returned, and nothing agrees with anything
            best = heard[int(state.representative[0, winner])]
            return Answer(member=best, answer=None, weights={"": 0.0}, supporters={"": tuple(heard[m] for m in rank)})
        named = {int(k): labels[k] or "" for k in np.flatnonzero(state.candidates[0])}
        represented = int(state.representative[0, winner])
        return Answer(
            member=heard[represented] if represented >= 0 else None,
            answer=labels[winner],
            weights={label: float(weights[0, k]) for k, label in named.items()},
            supporters={
                label: tuple(heard[m] for m in rank if state.places[0, m] == k)
                or ((heard[int(state.representative[0, k])],) if state.representative[0, k] >= 0 else ())
                for k, label in named.items()
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
        """Promise what `fuse` makes of these candidates and whatever else comes; nothing, unless a policy knows better.

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


def _answers(candidates: Sequence[Candidate], place: Mapping[str, int]) -> Answers:
    """Lay out one query's candidates for members at these places; every member has room for a candidate of its own."""
    num_members = len(place)
    columns: dict[str, int] = {}
    places = np.full((1, num_members), -1)
    chars, logprobs = np.full((1, num_members), np.nan), np.full((1, num_members), np.nan)
    for candidate in sorted(candidates, key=lambda one: place[one.member]):
        member = place[candidate.member]
        if candidate.answer is not None:
            places[0, member] = columns.setdefault(candidate.answer, member)
        chars[0, member] = len(candidate.text)
        if candidate.logprob is not None:
            logprobs[0, member] = candidate.logprob
    optional = sorted({label for candidate in candidates for label in candidate.option_probs or ()} - set(columns))
    columns |= {label: num_members + k for k, label in enumerate(optional)}
    labels = np.full((1, num_members + len(optional)), None, dtype=object)
    for label, column in columns.items():
        labels[0, column] = label
    option_scores = None
    if any(candidate.option_probs for candidate in candidates):
        option_scores = np.full((1, num_members, labels.shape[1]), np.nan)
        for candidate in candidates:
            for label, score in (candidate.option_probs or {}).items():
                option_scores[0, place[candidate.member], columns[label]] = score
    return Answers(places=places, labels=labels, chars=chars, logprobs=logprobs, option_scores=option_scores)

"""The policy without training: useful, documented, and honest about what it is.

Decider: ask the two most competent members; where they differ (or do not answer), ask the rest of the team in the next
round. With a single round the whole team is asked at once. Fusion: a vote weighted by competence on canonical answers;
a tie goes to the answer with the most competent supporter. With equal competences, the default, that is a plurality
vote. An answer that nobody can read has no vote, and is returned where there is no other. It learns nothing, reads
nothing of the query, and does not weigh cost against score: `cost_weight` has no effect.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.policies.base import RECENT_QUERIES, TIE, Commitment, EnsemblePolicy, legal_sizes
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, MemberFeatures, State

FIRST_ROUND = 2
"""How many members the first of several rounds asks."""

DEFAULT_COMPETENCE = 0.5


class PriorPolicy(EnsemblePolicy):
    """Ask two, then more if they differ; a competence-weighted vote.

    Args:
        members: Names of the members, in the pool's order, which breaks ties.
        competence: Declared scores in [0, 1] by member; members not named have 0.5.

    Raises:
        InputError: A competence is outside [0, 1] or names nobody.
    """

    trained = False

    def __init__(self, members: Sequence[str], competence: Mapping[str, float] | None = None) -> None:
        declared = dict(competence or {})
        for name, value in declared.items():
            if name not in members or not 0.0 <= value <= 1.0:
                msg = f"`competence` must give members of the pool a score in [0, 1], got {name!r}: {value}."
                raise InputError(msg)
        self._members = tuple(members)
        self._competence = np.array([declared.get(name, DEFAULT_COMPETENCE) for name in members], dtype=np.float64)
        self._first: dict[tuple[object, ...], Selection] = {}
        described = repr([*zip(self._members, self._competence.tolist(), strict=True)])
        self.policy_id = f"prior-{hashlib.sha256(described.encode()).hexdigest()[:12]}"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""
        return self._members

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> MemberFeatures:
        """Describe members by their declared competence, everywhere the same; see `EnsemblePolicy.describe`."""
        del tasks
        columns = self.columns(members)
        competence = np.tile(self._competence[columns], (len(queries), 1))
        return MemberFeatures(
            competence=competence,
            trust=competence,
            option_weights=np.zeros_like(competence),
            price=np.full(len(columns), 1.0 / len(self._members)),
            diversity=np.zeros((len(columns), len(columns))),
            novelty=np.ones(len(queries)),
            coincidence=np.ones(len(queries)),
        )

    def read(
        self,
        features: MemberFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        members: Sequence[str] | None = None,
    ) -> Evidence:
        """Trust every answer as its member, and one without a label less than any other; see `EnsemblePolicy.read`."""
        del tasks, members
        return Evidence(
            candidate_index=answers.candidate_index,
            trust=features.trust,
            label=np.where(np.equal(answers.labels, np.array(None, dtype=object)), -1.0, 0.0),
            option_evidence=None,
            similarity=None,
        )

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Ask the two best, then the rest where they differ; see `EnsemblePolicy.team`."""
        selectable, smallest, largest = legal_sizes(state)
        agreed = (state.num_answered >= min(FIRST_ROUND, state.max_team)) & (state.num_answers == 1)
        if state.round_number == 1 and state.max_rounds > 1:
            size = np.minimum(largest, FIRST_ROUND)
        else:
            size = np.where(agreed, smallest, largest)
        ranked = np.argsort(np.where(selectable, -state.competence, np.inf), axis=1, kind="stable")
        rank = np.argsort(ranked, axis=1, kind="stable")
        teams = (rank < size[:, None]) & selectable
        return teams, state.competence, lambda: teams.astype(np.float64)

    def weigh(self, state: State) -> Floats:
        """Share the weight by summed competence among labelled answers; see `EnsemblePolicy.weigh`."""
        weights = np.where(state.other_evidence < 0, 0.0, state.sum_of_supporters(state.competence))
        total = weights.sum(axis=1, keepdims=True)
        even = state.candidates / np.maximum(state.candidates.sum(axis=1, keepdims=True), 1)
        return np.where(total > 0, weights / np.where(total > 0, total, 1.0), even)

    def commitment(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        running: Sequence[str],
    ) -> Commitment:
        """Promise the winner if it outweighs every other even with all running members behind that one.

        The least confidence it can end with is its weight over all weights: a member that joins it, or fails, leaves it
        more. A tie promises nothing. An option without a supporter weighs nothing, so it cannot win.
        """
        nothing = super().commitment(query, candidates, failures, running=running)
        read = {candidate.answer for candidate in candidates} - {None}  # what nobody can read has no vote
        if not read:
            return nothing
        fused = self.fuse(query, candidates, failures, max_team=len(self.members))
        if not running:
            return Commitment(fused.confidence, author_is_final=True)
        behind = {label: self._weight(names) for label, names in fused.supporters.items() if label in read}
        own = behind.pop(fused.answer or "")
        to_come = self._weight(running)
        total = own + math.fsum(behind.values()) + to_come
        if own - max(behind.values(), default=0.0) - to_come <= 2 * TIE * total:
            return nothing
        ranks = {name: (-self._competence[column], column) for column, name in enumerate(self._members)}
        author = fused.supporters[fused.answer or ""][0]
        return Commitment(
            own / total,
            author_is_final=all(ranks[author] < ranks[name] for name in running),
        )

    def select(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        **limits: Any,
    ) -> Selection:
        """Choose the members to ask; see `Policy.select`. The first choice, which is the same for every query, is remembered."""
        if candidates or failures:
            return super().select(query, candidates, failures, **limits)
        key = (*limits["available"], *(limits[name] for name in ("round_number", "max_rounds", "max_team")))
        selection = self._first.get(key)
        if selection is None:
            selection = super().select(query, (), (), **limits)
            if len(self._first) < RECENT_QUERIES:
                self._first[key] = selection
        return selection

    def fuse(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        max_team: int,
    ) -> Answer:
        """Count the votes; see `Policy.fuse`.

        Of a few plain votes it is the same as the batched methods, without their arrays, which would take most of the time of
        an answer.
        """
        columns = dict(zip((c.member for c in candidates), self.columns([c.member for c in candidates]), strict=True))
        weight = {name: float(self._competence[column]) for name, column in columns.items()}
        total = math.fsum(weight.values())
        if total <= 0 or any(candidate.answer is None or candidate.option_probs for candidate in candidates):
            return super().fuse(query, candidates, failures, max_team=max_team)
        behind: dict[str, list[str]] = {}
        for candidate in sorted(candidates, key=lambda one: (-weight[one.member], columns[one.member])):
            behind.setdefault(candidate.answer or "", []).append(candidate.member)
        shares = {
            label: sum(weight[name] for name in sorted(names, key=columns.__getitem__))
            for label, names in behind.items()
        }
        weights = {label: share / total for label, share in shares.items()}
        least = max(weights.values()) - TIE
        # In the order of their most competent supporters, so that the first of equals wins.
        winner = next(label for label in behind if weights[label] >= least)
        return Answer(
            member=behind[winner][0],
            answer=winner,
            weights=weights,
            supporters={label: tuple(names) for label, names in behind.items()},
        )

    def _weight(self, members: Sequence[str]) -> float:
        return math.fsum(self._competence[self.columns(members)])

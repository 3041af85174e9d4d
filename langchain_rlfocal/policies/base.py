"""The two decisions of an ensemble, as a protocol that trained and untrained policies share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

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
            The selection. Never empty while there is no candidate and someone is left to ask.

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
            candidates: All candidates, at least one. Equal `answer`s say the same; an `answer` of None stands alone.
            failures: All non-answers.
            max_team: How many members could have been asked.

        Raises:
            InputError: There is no candidate.
        """

    def competence(self, query: Query) -> Mapping[str, float]:
        """Estimate each member's score near this query, in [0, 1]."""

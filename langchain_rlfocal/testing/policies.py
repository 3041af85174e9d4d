"""Policies: one that decides as it is told, so that what a test sees comes from all that is not the policy.

It learns nothing and looks at neither query nor cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that asks the teams it is told to ask, and lets the majority decide; a tie goes to who was asked first.

    Attributes:
        teams: The members to ask in each round, also in those after one that nobody answered; after the last, and in rounds
            with an empty team, it stops.
        members: Names of the members that it knows.
        trained: What it says of itself.
        policy_id: Its name.
    """

    teams: Sequence[Sequence[str]]
    members: tuple[str, ...]
    trained: bool = False
    policy_id: str = "scripted"

    def select(
        self,
        query: Query,  # noqa: ARG002  # `Policy`'s signature
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        available: Sequence[str],
        round_number: int,
        max_rounds: int,  # noqa: ARG002  # as above
        max_team: int,  # noqa: ARG002  # as above
        cost_weight: float,  # noqa: ARG002  # as above
    ) -> Selection:
        """Return this round's team; see `Policy.select`."""
        # What has come counts too, since rounds that nobody answered do not count in `round_number`.
        past = max([round_number - 1, *(c.round for c in candidates), *(f.round for f in failures)])
        team = tuple(self.teams[past]) if past < len(self.teams) else ()
        return Selection(round_number, team, {name: float(name in team) for name in available})

    def fuse(
        self,
        query: Query,  # noqa: ARG002  # `Policy`'s signature
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],  # noqa: ARG002  # as above
        *,
        max_team: int,  # noqa: ARG002  # as above
    ) -> Answer:
        """Return the answer that most candidates give; see `Policy.fuse`."""
        supporters: dict[str, list[str]] = {}
        for candidate in candidates:
            supporters.setdefault(candidate.answer or "", []).append(candidate.member)
        votes = {label: len(names) if label else 0 for label, names in supporters.items()}
        label = max(votes, key=lambda label: votes[label])
        winner = next(c for c in candidates if c.member == supporters[label][0])
        return Answer(
            member=winner.member,
            answer=winner.answer,
            weights={label: num / max(sum(votes.values()), 1) for label, num in votes.items()},
            supporters={label: tuple(names) for label, names in supporters.items()},
        )

    def competence(self, query: Query) -> Mapping[str, float]:  # noqa: ARG002  # `Policy`'s signature
        """Hold all members for equally good; see `Policy.competence`."""
        return dict.fromkeys(self.members, 0.5)

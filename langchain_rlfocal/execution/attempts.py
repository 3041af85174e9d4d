"""Attempts: the parts of a round. A member has a seat, and makes its attempts there one after the other."""

import math
from dataclasses import dataclass, field
from typing import Literal

from langchain_rlfocal.execution.asking import Call
from langchain_rlfocal.execution.breakers import Permit
from langchain_rlfocal.execution.budgets import Reservation
from langchain_rlfocal.execution.limits import Place
from langchain_rlfocal.execution.retries import Retries
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure

Result = Candidate | Failure
Status = Literal["waiting", "running", "over"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One call of one member: it waits for its place, runs, and is over, which is when nothing that comes of it counts.

    Attributes:
        call: The call.
        seat: Whose attempt it is.
        status: Where it stands.
        cut_at_s: When it is cut off, once it runs.
        is_cut_by_budget: True if that is when a budget's seconds are over, which is not the member's fault.
        place: Its place among the calls that run; whoever runs the call gives it back when the call has really ended.
        has_begun: True once whoever runs it may have sent something.
        has_spoken: True once text of it was passed on, after which nobody can be asked instead.
    """

    call: Call
    seat: "MemberTask"
    status: Status = "waiting"
    cut_at_s: float = math.inf
    is_cut_by_budget: bool = False
    place: Place | None = None
    permit: Permit | None = None
    reservation: Reservation | None = None
    has_begun: bool = False
    has_spoken: bool = False

    def begin(self) -> bool:
        """Say that the call is made now, and tell whether it may be: not once it is over, or its time is."""
        is_late = math.isfinite(self.cut_at_s) and self.call.clock() >= self.cut_at_s
        self.has_begun = self.status == "running" and not is_late
        return self.has_begun

    def leave(self) -> None:
        """Give the place back, or leave the line."""
        if self.place is not None:
            self.place.leave()


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened to an attempt.

    Attributes:
        attempt: The attempt.
        what: None if it may run now, or if there is news of its place; a piece of its text; what came of it; or an error that
            is no member's failure.
    """

    attempt: Attempt
    what: Result | str | BaseException | None = None


@dataclass(slots=True, eq=False)
class MemberTask:
    """A member in this round, from being asked to its result.

    Attributes:
        thinks: False once its provider has refused to have it think about this conversation.
    """

    member: PoolMember
    thinks: bool = True
    retries: Retries | None = None
    hedge_of: "MemberTask | None" = None
    hedge: "MemberTask | None" = None
    attempt: Attempt | None = None
    failed: list[Failure] = field(default_factory=list)
    retry_at_s: float = math.inf
    first_s: float | None = None
    result: Result | None = None

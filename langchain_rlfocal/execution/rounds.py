"""Rounds: when to ask, ask again, ask somebody else, and stop asking.

A `Round` decides and waits for nothing: it is told what happens, with the time, and says which attempts to start, which to
stop, and when to be woken. `threads` and `tasks` do what it says. So every rule (attempts, deadlines, hedges, breakers,
budgets, early commit) stands here once, and can be tested without a thread, a loop or a second of waiting.

Every member that was asked ends in exactly one result, whatever happens and in whatever order it is heard of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from langchain_rlfocal.execution.asking import Call, RoundRequest
from langchain_rlfocal.execution.attempts import Attempt, Event, MemberTask, Result
from langchain_rlfocal.execution.budgets import BudgetRefusal, Usage, reserve
from langchain_rlfocal.execution.causes import is_of_member, misses_thinking
from langchain_rlfocal.execution.charges import bound_of, cost_of
from langchain_rlfocal.execution.clients import STEPS_S
from langchain_rlfocal.execution.errands import AnswerLimits
from langchain_rlfocal.execution.retries import Retries
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure

LOOK_S = 5.0
"""How long a member waits in line before it looks whether places are held by calls that nobody waits for, if it is not told."""

OUTLASTING = 3
"""A call that nobody waits for keeps its place until it has ended, at most for so many times the time that its client was
given: that was to give up long before, and others must not wait for ever."""

IsDecided = Callable[[Sequence[Result], Sequence[str]], bool]
"""Tells from what has arrived in this round, and the names of those still out, whether the answer is certain already."""


class Round:
    """One round of asking.

    Args:
        members: Whom to ask.
        request: What to ask.
        limits: The answer that it is for.
        on_granted: Told of each attempt that may run now, or has news of its place, from any thread; it has an `Event` of it
            taken.
        hedges: Whom to ask beside a slow member, in this order, where the limits's terms hedge.
        is_decided: Tells whether what has arrived settles the answer; None to wait for everybody.
        in_threads: True where attempts cannot be cancelled, so that members' clients have to give up by themselves.
    """

    def __init__(
        self,
        members: Sequence[PoolMember],
        request: RoundRequest,
        limits: AnswerLimits,
        *,
        on_granted: Callable[[Attempt], None],
        hedges: Sequence[PoolMember] = (),
        is_decided: IsDecided | None = None,
        in_threads: bool = False,
    ) -> None:
        self._inquiry, self._limits = request, limits
        self._config, self._shared = limits.config, limits.shared
        self._on_granted, self._in_threads = on_granted, in_threads
        self._hedges = [*hedges] if limits.config.hedge else []
        self._is_decided = is_decided if limits.config.early_commit else None
        self._seats = [MemberTask(member) for member in members]
        self._has_news = False
        self._to_start: list[Attempt] = []
        self._to_stop: list[Attempt] = []

    # ---- what to do

    def take_starts(self) -> list[Attempt]:
        """Return the attempts to start now, each once."""
        starts, self._to_start = self._to_start, []
        return [attempt for attempt in starts if attempt.status == "running"]

    def take_stops(self) -> list[Attempt]:
        """Return the running attempts to stop now, each once; what comes of them no longer counts."""
        stops, self._to_stop = self._to_stop, []
        return stops

    @property
    def is_over(self) -> bool:
        """True once every member has a result."""
        return all(seat.result is not None for seat in self._seats)

    @property
    def results(self) -> list[Result]:
        """What came of each member, in the order of being asked: once the round is over, of everybody."""
        return [seat.result for seat in self._seats if seat.result is not None]

    @property
    def wake_at_s(self) -> float | None:
        """When `catch_up` is due, by the limits's clock; None if only an event can change anything."""
        at_s = self._limits.deadline_at_s
        for seat in self._open_seats():
            at_s = min(at_s, seat.retry_at_s, self._hedge_at_s(seat), self._member_end_s(seat))
            if seat.attempt is not None:
                at_s = min(at_s, seat.attempt.cut_at_s)
                if seat.attempt.status == "waiting":
                    at_s = min(at_s, self._shared.limits.expires_s, self._limits.clock() + LOOK_S)
        return at_s if math.isfinite(at_s) else None

    # ---- what happens

    def begin(self) -> None:
        """Ask everybody; nobody where the deadline has passed already."""
        if self._is_late(self._limits.clock()):
            return
        for seat in list(self._seats):
            self._ask(seat)

    def take(self, event: Event) -> str | None:
        """Take in what has happened.

        Returns:
            The text to pass on, if it is that.

        Raises:
            BaseException: What is no member's failure, such as LangGraph's control flow.
        """
        attempt, what = event.attempt, event.what
        if attempt.status == "over":
            return None
        if isinstance(what, str):
            attempt.has_spoken = True
            return what
        if isinstance(what, BaseException):
            raise what
        if what is None:
            if attempt.status == "waiting" and attempt.place is not None and attempt.place.is_held:
                self._grant(attempt, self._limits.clock())
        else:
            self._end(attempt, what, self._limits.clock())
        return None

    def pause(self, seconds: float) -> None:
        """Put everything off by the time that the reader of a stream took."""
        self._limits.pause(seconds)
        for seat in self._open_seats():
            if seat.first_s is not None:
                seat.first_s += seconds
            if seat.attempt is not None:
                seat.attempt.cut_at_s += seconds

    def catch_up(self) -> None:
        """Do what is due by now, once all that has happened is taken in: cut off what takes too long, ask again, hedge, commit.

        What has arrived counts, even if it is heard of late.
        """
        if self.wake_at_s is not None:
            self._do_what_is_due(self._limits.clock())
        if self._has_news:
            self._has_news = False
            self._commit_if_settled()

    def _do_what_is_due(self, now_s: float) -> None:
        if self._is_late(now_s):
            return
        self._shared.limits.expire(now_s)
        for seat in self._open_seats():
            attempt = seat.attempt
            if now_s >= self._member_end_s(seat):
                self._cut(seat, f"No answer within the {self._config.member_timeout_s:g} s of a member.", now_s)
            elif attempt is not None and now_s >= attempt.cut_at_s:
                if attempt.is_cut_by_budget:
                    self._cancel(seat, "The seconds that were left in the budget are over.", now_s, kind="budget")
                else:
                    self._time_out(attempt, now_s)
            elif now_s >= seat.retry_at_s:
                self._ask(seat)
            elif now_s >= self._hedge_at_s(seat):
                seat.hedge = MemberTask(self._hedges.pop(0), hedge_of=seat)
                self._seats.append(seat.hedge)
                self._ask(seat.hedge)

    def abandon(self) -> None:
        """End whatever is still open, since nobody waits for it any more."""
        for seat in self._open_seats():
            self._cancel(seat, "Nobody waited for the answer any more.", self._limits.clock())

    # ---- how

    def _open_seats(self) -> list[MemberTask]:
        return [seat for seat in self._seats if seat.result is None]

    def _key(self, member: PoolMember) -> str:
        """Name a member for limits and breakers; a synthesizer may be called like a member."""
        return member.name if self._inquiry.role == "member" else f"({self._inquiry.role})"

    def _ask(self, seat: MemberTask) -> None:
        """Have the next attempt of a member wait for its place."""
        seat.retry_at_s = math.inf
        call = Call(seat.member, self._inquiry, self._limits.clock, len(seat.failed) + 1, seat.thinks)
        seat.attempt = attempt = Attempt(call, seat)
        place = self._shared.limits.request(
            self._key(seat.member),
            on_granted=lambda: self._on_granted(attempt),
            on_news=lambda: self._on_granted(attempt),
            total=self._config.max_concurrent_calls,
            of_member=seat.member.max_concurrent_calls,
        )
        attempt.place = place

    def _grant(self, attempt: Attempt, now_s: float) -> None:
        """Start an attempt that has its place now, if its breaker and the budgets let it."""
        seat, call = attempt.seat, attempt.call
        if self._is_late(now_s):
            return None
        seat.first_s = now_s if seat.first_s is None else seat.first_s
        if self._config.breaker is not None:
            attempt.permit = self._shared.breakers.admit(self._key(seat.member), now_s)
            if attempt.permit is None:
                reason = self._shared.breakers.state(self._key(seat.member), now_s).reason
                return self._cancel(seat, f"{reason[0].upper()}{reason[1:]}.", now_s, kind="breaker_open")
        limit_s = self._limit_s(seat, now_s)
        try:
            call.begin(timeout_s=limit_s if self._in_threads and math.isfinite(limit_s) else None)
            if math.isfinite(limit_s):  # making up the request has taken its time
                now_s = self._limits.clock()
                limit_s = self._limit_s(seat, now_s)
            bound = bound_of(call, limit_s=limit_s, budgets=[budget for _, budget in self._limits.accounts])
            attempt.reservation = reserve(bound, self._limits.accounts)
        except BudgetRefusal as refusal:
            return self._cancel(seat, str(refusal), now_s, kind="budget")
        except Exception as error:  # noqa: BLE001  # whatever a member's own code raises is its failure
            attempt.leave()
            self._drop(attempt)  # nothing was sent, so it says nothing of the member's health
            return self._retry_or_finish(attempt, call.failure(error), now_s)
        granted_s = attempt.reservation.bound.seconds
        attempt.cut_at_s, attempt.is_cut_by_budget = now_s + min(limit_s, granted_s), granted_s < limit_s
        attempt.status = "running"
        self._to_start.append(attempt)
        return None

    def _end(self, attempt: Attempt, result: Result, now_s: float) -> None:
        """Take in what came of an attempt."""
        seat = attempt.seat
        self._close(attempt, result, now_s)
        if isinstance(result, Candidate):
            self._finish(seat, replace(result, retries=tuple(seat.failed)))
            if result.flaw is None:
                self._release_pair(seat, now_s)
        else:
            self._retry_or_finish(attempt, result, now_s)

    def _limit_s(self, seat: MemberTask, now_s: float) -> float:
        """Return how long an attempt that begins now may take."""
        timeout_s = math.inf if self._config.timeout_s is None else self._config.timeout_s
        return min(timeout_s, self._member_end_s(seat) - now_s, self._limits.deadline_at_s - now_s)

    def _member_end_s(self, seat: MemberTask) -> float:
        limit_s = self._config.member_timeout_s
        return math.inf if limit_s is None or seat.first_s is None else seat.first_s + limit_s

    def _hedge_at_s(self, seat: MemberTask) -> float:
        if not self._hedges or seat.hedge is not None or seat.hedge_of is not None or seat.first_s is None:
            return math.inf
        usual_s = self._shared.latencies.p95_s(self._key(seat.member))
        return math.inf if usual_s is None else seat.first_s + usual_s

    def _is_late(self, now_s: float) -> bool:
        """End everything if the deadline has passed, and tell whether it has."""
        if math.isinf(self._limits.deadline_at_s) or now_s < self._limits.deadline_at_s:
            return False
        for seat in self._open_seats():
            self._cut(seat, "No answer by the deadline.", now_s, kind="deadline")
        return True

    def _time_out(self, attempt: Attempt, now_s: float) -> None:
        took_s = now_s - attempt.call.started_s
        reason = (
            f"No answer within {took_s:.3g} s." if attempt.has_begun else "It had no turn before its time was over."
        )
        failure = self._failure(attempt.seat, "timeout", reason, now_s)
        self._end_by_force(attempt, failure, now_s)
        self._retry_or_finish(attempt, failure, now_s)

    def _retry_or_finish(self, attempt: Attempt, failure: Failure, now_s: float) -> None:
        seat = attempt.seat
        assert failure.error is not None, "what ended by itself has an error"
        seat.retries = seat.retries or Retries(self._config.retry)
        wait_s = None if attempt.has_spoken else seat.retries.wait_s(failure.error)
        if wait_s is None and not attempt.has_spoken and seat.thinks and misses_thinking(failure.error):
            seat.thinks, wait_s = False, 0.0  # the same without thinking is no retry of what failed
        at_s = math.inf if wait_s is None else now_s + wait_s
        failure = attempt.call.shown(failure)
        is_open = self._config.breaker is not None and self._shared.breakers.is_open(self._key(seat.member), now_s)
        if at_s < min(self._limits.deadline_at_s, self._member_end_s(seat)) and not is_open:
            seat.failed.append(failure)
            seat.attempt, seat.retry_at_s = None, at_s
        else:
            self._finish(seat, replace(failure, retries=tuple(seat.failed)))

    def _cut(self, seat: MemberTask, reason: str, now_s: float, *, kind: str = "timeout") -> None:
        """End a member whose time is up."""
        attempt, failure = seat.attempt, self._failure(seat, kind, reason, now_s)
        if attempt is not None:
            self._end_by_force(attempt, failure, now_s)
        self._finish(seat, replace(failure, retries=tuple(seat.failed)))

    def _end_by_force(self, attempt: Attempt, failure: Failure, now_s: float) -> None:
        """Stop an attempt whose time is up; if it had not begun, that says nothing of its member."""
        if self._stop(attempt, now_s):
            self._close(attempt, failure, now_s)
        else:
            self._drop(attempt)

    def _cancel(self, seat: MemberTask, reason: str, now_s: float, *, kind: str = "cancelled") -> None:
        """End a member that is not needed, which says nothing of its health."""
        attempt = seat.attempt
        failure = replace(self._failure(seat, kind, reason, now_s), is_retryable=kind == "breaker_open")
        if attempt is not None:
            if self._stop(attempt, now_s):
                self._settle(attempt, failure, now_s)
            self._drop(attempt)
        self._finish(seat, replace(failure, retries=tuple(seat.failed)))

    def _failure(self, seat: MemberTask, kind: str, reason: str, now_s: float) -> Failure:
        started_s = seat.attempt.call.started_s if seat.attempt and seat.attempt.has_begun else now_s
        return Failure(
            member=seat.member.name,
            round=self._inquiry.round_number,
            kind=kind,
            reason=reason,
            latency_s=max(now_s - started_s, 0.0),
            is_retryable=True,
            error=TimeoutError(reason) if kind in {"timeout", "deadline"} else None,
        )

    def _stop(self, attempt: Attempt, now_s: float) -> bool:
        """Have an attempt stopped, or take it back if it has not begun, and tell whether it had begun."""
        if attempt.status == "running" and attempt not in self._to_start:
            self._to_stop.append(attempt)
        attempt.status = "over"
        if not attempt.has_begun:
            attempt.leave()
            if attempt.reservation is not None:
                attempt.reservation.settle(Usage())
        elif attempt.place is not None and math.isfinite(attempt.cut_at_s):
            given_s = max(attempt.cut_at_s - attempt.call.started_s, STEPS_S[0])
            attempt.place.leave_by(max(attempt.call.started_s + OUTLASTING * given_s, now_s))
        return attempt.has_begun

    def _finish(self, seat: MemberTask, result: Result) -> None:
        seat.attempt, seat.retry_at_s, seat.result, self._has_news = None, math.inf, result, True

    def _release_pair(self, seat: MemberTask, now_s: float) -> None:
        """Cancel the other of a hedged pair: the first good answer wins."""
        for other in (seat.hedge, seat.hedge_of):
            if other is not None and other.result is None:
                self._cancel(other, f"`{seat.member.name}` answered first in its place.", now_s)

    def _commit_if_settled(self) -> None:
        """Cancel those still out if they can no longer change the answer."""
        open_seats = self._open_seats()
        if self._is_decided is None or not open_seats:
            return
        if self._is_decided(self.results, [seat.member.name for seat in open_seats]):
            for seat in open_seats:
                self._cancel(seat, "The others had settled the answer.", self._limits.clock())

    def _drop(self, attempt: Attempt) -> None:
        """Have an attempt count neither for nor against its member."""
        attempt.status = "over"
        if attempt.permit is not None:
            attempt.permit.drop()

    def _close(self, attempt: Attempt, result: Result, now_s: float) -> None:
        """Book what an attempt cost and what it says of its member's health."""
        attempt.status, key = "over", self._key(attempt.seat.member)
        self._settle(attempt, result, now_s)
        permit, rule = attempt.permit, self._config.breaker
        if isinstance(result, Candidate):
            self._shared.latencies.add(key, result.latency_s)
            if permit is not None:
                permit.succeed()
        elif permit is not None and rule is not None:
            if self._is_at_fault(key, attempt, result):
                permit.fail(now_s, rule)
            else:
                permit.drop()

    def _is_at_fault(self, key: str, attempt: Attempt, failure: Failure) -> bool:
        """Tell whether a failure speaks against the member: not, if it had less time than it is known to need."""
        if failure.kind in {"deadline", "timeout"}:
            usual_s = self._shared.latencies.p95_s(key)
            return usual_s is None or failure.latency_s >= usual_s
        return failure.error is None or is_of_member(failure.error, attempt.call.arguments)

    def _settle(self, attempt: Attempt, result: Result, now_s: float) -> None:
        if attempt.reservation is not None:
            seconds = max(now_s - attempt.call.started_s, 0.0)
            limited = [budget for _, budget in self._limits.accounts]
            bound = attempt.reservation.bound
            attempt.reservation.settle(cost_of(attempt.call, result, bound=bound, seconds=seconds, budgets=limited))

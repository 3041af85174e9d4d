"""Rounds: when to ask, ask again, ask somebody else, and stop asking.

A `Round` decides and waits for nothing: it is told what happens, with the time, and says which calls to start, which to stop,
and when to be woken. `drivers` does what it says. So every rule (attempts, deadlines, hedges, circuit breakers, budgets, early
stopping) is here once, and can be tested without a thread, an event loop or a second of waiting.

Every member that was asked ends in exactly one result, whatever happens and in whatever order it is heard of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from langchain_rlfocal.execution.budgets import BudgetRefusal, Usage, reserve
from langchain_rlfocal.execution.calls import MemberCall, Result, RoundRequest
from langchain_rlfocal.execution.config import AnswerLimits, shortest
from langchain_rlfocal.execution.limits import BreakerState, Slot
from langchain_rlfocal.execution.retries import is_of_member, misses_thinking
from langchain_rlfocal.execution.store import Leave, Ticket
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure

LEAST_WAIT_S = 0.05
"""Who waits for a slot and a turn asks for them no sooner than after this, unless it is told of them."""

LEAST_POLL_S = 0.005
"""Who waits for the store asks it again no sooner than after this."""

LATE_S = 0.01
"""A time-out that is noticed later than this is put off once, by as much again: what has arrived meanwhile must be read first."""

IsDecided = Callable[[Sequence[Result], Sequence[str]], bool]
"""Tells from what has arrived in this round, and the names of those still out, whether the answer is certain already."""


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened to a call.

    Attributes:
        call: The call.
        what: None if it may run now; a piece of its text; what came of it; or an error that is no member's failure.
        at_s: When it happened, where a thread says so.
    """

    call: MemberCall
    what: Result | str | BaseException | None = None
    at_s: float | None = None


@dataclass(slots=True, eq=False)
class MemberTask:
    """A member in this round, from being asked to its result; its calls follow one another.

    Attributes:
        member: The member.
        hedge_of: The member that it is asked beside, if it is a hedge.
        hedge: Its own hedge.
        thinks: False once its provider has refused to have it think about this conversation.
        call: The call that waits or runs.
        failed: Failed attempts that were followed by another.
        num_retries: How many of these count as retries.
        retry_at_s: When it is asked again; infinite if it is not.
        turn_at_s: When its call that waits asks for its turn; infinite if it waits for none.
        first_s: When its first call was let through.
        result: What came of it.
    """

    member: PoolMember
    hedge_of: "MemberTask | None" = None
    hedge: "MemberTask | None" = None
    thinks: bool = True
    call: MemberCall | None = None
    failed: list[Failure] = field(default_factory=list)
    num_retries: int = 0
    retry_at_s: float = math.inf
    turn_at_s: float = math.inf
    first_s: float | None = None
    result: Result | None = None


def _tell_nobody(_: MemberCall) -> None:
    """Do nothing: the round is over."""


class Round:
    """One round of asking.

    Args:
        members: Whom to ask.
        request: What to ask.
        limits: The answer that it is for.
        on_granted: Told of each call that had to wait and may run now, from any thread; it has an `Event` of it taken.
        hedges: Whom to ask beside a slow member, in this order, where the config hedges.
        is_decided: Tells whether what has arrived decides the answer; None to wait for everybody.
        in_threads: True where calls cannot be cancelled, so that members' clients have to give up by themselves.
    """

    def __init__(
        self,
        members: Sequence[PoolMember],
        request: RoundRequest,
        limits: AnswerLimits,
        *,
        on_granted: Callable[[MemberCall], None],
        hedges: Sequence[PoolMember] = (),
        is_decided: IsDecided | None = None,
        in_threads: bool = False,
    ) -> None:
        self._request, self._limits, self._on_granted = request, limits, on_granted
        self._config, self._shared, self._clock = limits.config, limits.shared, limits.clock
        self._hedges = [*hedges] if self._config.hedge else []
        self._is_decided = is_decided if self._config.early_commit else None
        self._in_threads = in_threads
        self._counts_tokens = any(budget.limits_tokens for budget in self._config.budgets)
        has_limit = self._config.call_timeout_s is not None or limits.deadline_at_s != math.inf
        has_limit |= any(one.timeout_s is not None or one.max_calls_per_minute is not None for one in members)
        self._is_timed = bool(self._hedges) or has_limit or self._shared.store is not None
        self._tasks = [MemberTask(member) for member in members]
        self._task_of: dict[MemberCall, MemberTask] = {}
        self._num_open, self._num_retrying = len(self._tasks), 0
        self._run_config = request.run_config()
        self._has_news = False
        self._to_start: list[MemberCall] = []
        self._to_stop: list[MemberCall] = []

    # ---- what to do

    def take_starts(self) -> list[MemberCall]:
        """Return the calls to start now, each once."""
        if not (starts := self._to_start):
            return starts
        self._to_start = []
        return [call for call in starts if call.status == "running"]

    def take_stops(self) -> list[MemberCall]:
        """Return the running calls to stop now, each once; what comes of them no longer counts."""
        if not (stops := self._to_stop):
            return stops
        self._to_stop = []
        return stops

    @property
    def is_over(self) -> bool:
        """True once every member has a result."""
        return not self._num_open

    @property
    def results(self) -> list[Result]:
        """What came of each member, in the order of being asked: once the round is over, of everybody."""
        return [task.result for task in self._tasks if task.result is not None]

    @property
    def wake_at_s(self) -> float | None:
        """When `catch_up` is due, by the clock; None if only an event can change anything."""
        if not self._is_timed and not self._num_retrying:
            return None
        at_s = self._limits.deadline_at_s
        for task in self._open_tasks():
            at_s = min(at_s, task.retry_at_s, task.turn_at_s, self._hedge_at_s(task), self._member_end_s(task))
            if task.call is not None:
                at_s = min(at_s, task.call.cut_at_s)
        return at_s if at_s != math.inf else None

    # ---- what happens

    def begin(self) -> None:
        """Ask everybody; nobody where the deadline has passed already."""
        now_s = self._clock()
        if not self._end_if_late(now_s):
            for task in self._open_tasks():
                if task.result is None:  # it may be over by the time that the one before took
                    self._ask(task, now_s)

    def begin_call(self, call: MemberCall) -> bool:
        """Begin the clock of a call, in the moment in which it is made; False if it must not be made any more."""
        if call.status != "running":
            return False
        now_s = self._clock()
        limit_s = self._limit_s(self._task_of[call], now_s)
        if limit_s <= 0:
            return False
        call.started_s, call.cut_at_s, call.has_begun = now_s, now_s + limit_s, True
        return True

    def take(self, event: Event) -> str | None:
        """Take in what has happened.

        Returns:
            The text to pass on, if it is that.

        Raises:
            BaseException: What is no member's failure, such as LangGraph's control flow.
        """
        call, what = event.call, event.what
        if call.status == "over":
            return None
        if isinstance(what, str):
            call.has_spoken = True
            return what
        if isinstance(what, BaseException):
            raise what
        if what is not None:
            self._end(call, what, self._clock())
        elif call.status == "waiting" and call.slot is not None and call.slot.is_held:
            if call.ticket is None:
                self._let_through(call, self._clock())
            elif (leave := call.ticket.take_answer()) is not None:
                self._take_leave(call, leave, self._clock())
        return None

    def pause(self, seconds: float) -> None:
        """Put everything off by the time that the reader of a stream took."""
        self._limits.pause(seconds)
        for task in self._open_tasks():
            if task.first_s is not None:
                task.first_s += seconds
            if task.call is not None:
                task.call.cut_at_s += seconds

    def catch_up(self) -> None:
        """Do what is due by now, once all that has happened is taken in: cut off what takes too long, ask again, hedge, stop."""
        if self._is_timed or self._num_retrying:
            self._do_what_is_due(self._clock())
        if self._has_news:
            self._has_news = False
            self._stop_if_decided()

    def abandon(self) -> None:
        """End whatever is still open, since nobody waits for it any more."""
        for task in self._open_tasks():
            self._cancel(task, "The caller stopped waiting.", self._clock())
        # Nothing is heard of any more, and reference counts alone free the round.
        self._task_of.clear()
        self._on_granted = _tell_nobody

    # ---- how

    def _do_what_is_due(self, now_s: float) -> None:
        if self._end_if_late(now_s):
            return
        for task in self._open_tasks():
            call = task.call
            if now_s >= self._member_end_s(task):
                self._cut(task, f"No answer within the {self._config.member_timeout_s:g} s of a member.", now_s)
            elif call is not None and now_s >= call.cut_at_s:
                late_s = now_s - call.cut_at_s
                if late_s > LATE_S and call.has_begun and not call.is_postponed:
                    call.is_postponed, call.cut_at_s = True, now_s + late_s
                else:
                    self._time_out(task, call, now_s)
            elif now_s >= task.retry_at_s:
                self._ask(task, now_s)
            elif call is not None and call.slot is not None and now_s >= task.turn_at_s:
                if call.has_leave:
                    self._start(call, now_s)
                elif call.ticket is not None:
                    self._ask_store(call, call.ticket)
                else:
                    self._shared.limiter.grant(now_s)
                    self._await_turn(task, call.slot, now_s)
            elif now_s >= self._hedge_at_s(task):
                member = self._hedges.pop(0)
                if self._limits.may_add_load():
                    task.hedge = MemberTask(member, hedge_of=task)
                    self._tasks.append(task.hedge)
                    self._num_open += 1
                    self._ask(task.hedge, now_s)

    def _open_tasks(self) -> list[MemberTask]:
        return [task for task in self._tasks if task.result is None]

    def _key(self, member: PoolMember) -> str:
        """Name a member for limits and breakers; a synthesizer may be called like a member."""
        return member.name if self._request.role == "member" else f"({self._request.role})"

    def _ask(self, task: MemberTask, now_s: float) -> None:
        """Have a member's next call wait for its slot, or begin at once."""
        if task.retry_at_s != math.inf:
            task.retry_at_s = math.inf
            self._num_retrying -= 1
        number = len(task.failed) + 1
        call = MemberCall(
            task.member, self._request, self._clock, number, task.thinks, self._config.retry, started_s=now_s
        )
        task.call = call
        self._task_of[call] = task
        total, of_member, per_minute = self._caps_of(task.member)
        store = self._shared.store
        if store is not None:
            call.is_shared = not store.is_lost
            # The server counts for all processes; without it each has its part.
            parts = math.inf if call.is_shared else store.num_workers
            total, of_member = part_of(total, parts), part_of(of_member, parts)
            per_minute = None if per_minute is None or call.is_shared else per_minute / parts
        call.slot = self._shared.limiter.acquire(
            self._key(task.member),
            on_granted=lambda: self._on_granted(call),
            total=total,
            of_member=of_member,
            per_minute=per_minute,
            now_s=now_s,
        )
        if call.slot.is_held:
            self._let_through(call, now_s)
        elif per_minute is not None:
            self._await_turn(task, call.slot, now_s)

    def _let_through(self, call: MemberCall, now_s: float) -> None:
        """Have a call started that has its slot, if its breaker, the budgets and the store let it."""
        task = self._task_of[call]
        task.turn_at_s = math.inf
        if self._end_if_late(now_s):
            return None
        if self._config.breaker is not None:
            key = self._key(task.member)
            call.permit = self._shared.breakers.admit(key, now_s)
            if call.permit is None:
                reason = self._shared.breakers.state(key, now_s).reason
                return self._cancel(task, _capital(f"{reason}."), now_s, kind="breaker_open")
        try:
            limits_s = (self._config.call_timeout_s, task.member.timeout_s) if self._in_threads else ()
            call.prepare(self._run_config, timeout_s=shortest(limits_s))
            bound = call.bound(counts_tokens=self._counts_tokens)
            call.reservation = reserve(bound, self._limits.own_accounts if call.is_shared else self._limits.accounts)
        except BudgetRefusal as refusal:
            return self._cancel(task, str(refusal), now_s, kind="budget")
        except Exception as error:  # noqa: BLE001  # whatever a member's own code raises is its failure
            call.release_slot()
            self._drop(call)  # nothing was sent, so it says nothing of the member's health
            return self._retry_or_finish(task, call, call.failure(error), now_s)
        if self._limits.is_late and self._end_if_late(self._clock()):
            return None  # making up the request took too long
        if call.is_shared and self._shared.store is not None:
            total, of_member, per_minute = self._caps_of(task.member)
            call.ticket = self._shared.store.ticket(
                self._key(task.member),
                bound,
                self._limits.shared_accounts,
                total=total,
                of_member=of_member,
                per_minute=per_minute,
                breaker=self._config.breaker,
            )
            return self._ask_store(call, call.ticket)
        return self._start(call, now_s)

    def _start(self, call: MemberCall, now_s: float) -> None:
        task = self._task_of[call]
        task.turn_at_s = math.inf
        task.first_s = now_s if task.first_s is None else task.first_s
        call.status, call.cut_at_s = "running", now_s + self._limit_s(task, now_s)
        self._to_start.append(call)
        self._shared.retry_budget.deposit()

    def _caps_of(self, member: PoolMember) -> tuple[int | None, int | None, float | None]:
        return self._config.max_concurrent_calls, member.max_concurrent_calls, member.max_calls_per_minute

    def _ask_store(self, call: MemberCall, ticket: Ticket) -> None:
        self._task_of[call].turn_at_s = math.inf
        ticket.ask(lambda: self._on_granted(call))

    def _take_leave(self, call: MemberCall, leave: Leave, now_s: float) -> None:
        """Do what the store says of a call that waits for it."""
        task = self._task_of[call]
        if self._end_if_late(now_s):
            return
        if leave.kind == "ok":
            call.has_leave = True
            if leave.wait_s:
                task.turn_at_s = now_s + leave.wait_s
            else:
                self._start(call, now_s)
        elif leave.kind == "wait":
            if now_s + leave.turn_in_s > self._limits.deadline_at_s:
                self._cancel(task, _late_turn(task.member, leave.turn_in_s), now_s, kind="rate_limit")
            else:
                task.turn_at_s = now_s + max(leave.wait_s, LEAST_POLL_S)
        elif leave.kind == "budget":
            self._cancel(task, str(leave.refusal), now_s, kind="budget")
        elif leave.kind == "open":
            self._shared.breakers.follow_one(self._key(task.member), leave.failures, leave.wait_s, now_s)
            state = BreakerState("open" if leave.wait_s else "half_open", leave.failures, leave.wait_s)
            self._cancel(task, _capital(f"{state.reason}."), now_s, kind="breaker_open")
        else:  # the store is lost: the call is made again, as one that this process lets through
            self._stop(call)
            self._drop(call)
            self._ask(task, now_s)

    def _await_turn(self, task: MemberTask, slot: Slot, now_s: float) -> None:
        """Have a member wait for its turn; one whose turn is after the deadline ends, so that another can stand in in time."""
        turn_at_s = self._shared.limiter.turn_at_s(slot)
        # One whose turn is now waits for a slot, and another may take that, and the turn with it.
        task.turn_at_s = turn_at_s if turn_at_s > now_s else now_s + max(slot.each_s, LEAST_WAIT_S)
        if turn_at_s == math.inf or turn_at_s <= self._limits.deadline_at_s:
            return
        self._cancel(task, _late_turn(task.member, turn_at_s - now_s), now_s, kind="rate_limit")

    def _end(self, call: MemberCall, result: Result, now_s: float) -> None:
        """Take in what came of a call."""
        task = self._task_of[call]
        self._close(call, result, now_s)
        if isinstance(result, Failure):
            self._retry_or_finish(task, call, result, now_s)
            return
        self._finish(task, replace(result, retries=tuple(task.failed)) if task.failed else result)
        if result.flaw is None:
            for other in (task.hedge, task.hedge_of):  # the first good answer of the two wins
                if other is not None and other.result is None:
                    self._cancel(other, f"`{task.member.name}` answered first in its place.", now_s)

    def _limit_s(self, task: MemberTask, now_s: float) -> float:
        """Return how long a call that begins now may take."""
        if not self._is_timed:
            return math.inf
        timeout_s = shortest((self._config.timeout_s, task.member.timeout_s))
        return min(
            math.inf if timeout_s is None else timeout_s,
            self._member_end_s(task) - now_s,
            self._limits.deadline_at_s - now_s,
        )

    def _member_end_s(self, task: MemberTask) -> float:
        limit_s = self._config.member_timeout_s
        return math.inf if limit_s is None or task.first_s is None else task.first_s + limit_s

    def _hedge_at_s(self, task: MemberTask) -> float:
        if not self._hedges or task.hedge is not None or task.hedge_of is not None or task.first_s is None:
            return math.inf
        usual_s = self._shared.latencies.p95_s(self._key(task.member))
        return math.inf if usual_s is None else task.first_s + usual_s

    def _end_if_late(self, now_s: float) -> bool:
        """End everything if the deadline has passed, and tell whether it has."""
        if now_s < self._limits.deadline_at_s or self._limits.deadline_at_s == math.inf:
            return False
        for task in self._open_tasks():
            self._cut(task, "No answer by the deadline.", now_s, kind="deadline")
        return True

    def _time_out(self, task: MemberTask, call: MemberCall, now_s: float) -> None:
        reason = (
            f"No answer within {now_s - call.started_s:.3g} s."
            if call.has_begun
            else "It timed out while waiting for a slot."
        )
        failure = self._failure(task, "timeout", reason, now_s)
        self._end_by_force(call, failure, now_s)
        self._retry_or_finish(task, call, failure, now_s)

    def _retry_or_finish(self, task: MemberTask, call: MemberCall, failure: Failure, now_s: float) -> None:
        assert failure.error is not None, "what ended by itself has an error"
        at_s = math.inf
        if not call.has_spoken:
            wait_s = self._config.retry.wait_s(failure.error, task.num_retries + 1)
            if wait_s is not None and self._limits.may_add_load():
                task.num_retries, at_s = task.num_retries + 1, now_s + wait_s
            elif wait_s is None and task.thinks and misses_thinking(failure.error):
                task.thinks, at_s = False, now_s  # the same without thinking is no retry of what failed
        failure = call.shown(failure)
        is_open = self._config.breaker is not None and self._shared.breakers.is_open(self._key(task.member), now_s)
        if at_s < min(self._limits.deadline_at_s, self._member_end_s(task)) and not is_open:
            task.failed.append(failure)
            task.call, task.retry_at_s = None, at_s
            self._num_retrying += 1
        else:
            self._finish(task, replace(failure, retries=tuple(task.failed)))

    def _cut(self, task: MemberTask, reason: str, now_s: float, *, kind: str = "timeout") -> None:
        """End a member whose time is up."""
        failure = self._failure(task, kind, reason, now_s)
        if task.call is not None:
            self._end_by_force(task.call, failure, now_s)
        self._finish(task, replace(failure, retries=tuple(task.failed)))

    def _end_by_force(self, call: MemberCall, failure: Failure, now_s: float) -> None:
        """Stop a call whose time is up; if it had not begun, that says nothing of its member."""
        if self._stop(call):
            self._close(call, failure, now_s)
        else:
            self._drop(call)

    def _cancel(self, task: MemberTask, reason: str, now_s: float, *, kind: str = "cancelled") -> None:
        """End a member that is not needed, which says nothing of its health."""
        failure = replace(self._failure(task, kind, reason, now_s), is_retryable=kind in {"breaker_open", "rate_limit"})
        if task.call is not None:
            if self._stop(task.call):
                self._settle(task.call, failure)
            self._drop(task.call)
        self._finish(task, replace(failure, retries=tuple(task.failed)))

    def _failure(self, task: MemberTask, kind: str, reason: str, now_s: float) -> Failure:
        has_begun = task.call is not None and task.call.has_begun
        return Failure(
            member=task.member.name,
            round=self._request.round_number,
            kind=kind,
            reason=reason,
            latency_s=max(now_s - task.call.started_s, 0.0) if task.call is not None and has_begun else 0.0,
            is_retryable=True,
            error=TimeoutError(reason) if kind in {"timeout", "deadline"} else None,
        )

    def _stop(self, call: MemberCall) -> bool:
        """Have a call stopped, or take it back if it has not begun, and tell whether it had begun."""
        if call.status == "running" and call not in self._to_start:
            self._to_stop.append(call)
        call.status = "over"
        if not call.has_begun:
            call.release_slot()
            self._book(call, Usage())
        return call.has_begun

    def _finish(self, task: MemberTask, result: Result) -> None:
        if task.retry_at_s != math.inf:
            self._num_retrying -= 1
        self._num_open -= 1
        task.call, task.retry_at_s, task.result, self._has_news = None, math.inf, result, True

    def _stop_if_decided(self) -> None:
        """Cancel those still out if they can no longer change the answer."""
        if self._is_decided is None or not (open_tasks := self._open_tasks()):
            return
        if self._is_decided(self.results, [task.member.name for task in open_tasks]):
            for task in open_tasks:
                self._cancel(task, "The others had settled the answer.", self._clock())

    def _drop(self, call: MemberCall) -> None:
        """Have a call count neither for nor against its member."""
        call.status = "over"
        if call.permit is not None:
            call.permit.drop()

    def _close(self, call: MemberCall, result: Result, now_s: float) -> None:
        """Book what a call cost and what it says of its member's health."""
        call.status, key = "over", self._key(call.member)
        permit, breaker = call.permit, self._config.breaker
        says: Literal["answered", "failed"] | None = None
        if isinstance(result, Candidate):
            self._shared.latencies.add(key, result.latency_s)
            says = "answered"
            if permit is not None:
                permit.succeed()
        elif permit is not None and breaker is not None:
            if self._is_at_fault(key, call, result):
                says = "failed"
                permit.fail(now_s, breaker)
            else:
                permit.drop()
        self._settle(call, result, says)

    def _is_at_fault(self, key: str, call: MemberCall, failure: Failure) -> bool:
        """Tell whether a failure speaks against the member: not, if this process is overloaded, or it had less time than it needs."""
        if failure.kind in {"deadline", "timeout"}:
            if self._shared.admission.is_busy:
                return False
            usual_s = self._shared.latencies.p95_s(key)
            return usual_s is None or failure.latency_s >= usual_s
        return failure.error is None or is_of_member(failure.error, call.arguments)

    def _settle(self, call: MemberCall, result: Result, says: Literal["answered", "failed"] | None = None) -> None:
        if call.reservation is not None:
            self._book(call, call.usage(result), says)

    def _book(self, call: MemberCall, usage: Usage, says: Literal["answered", "failed"] | None = None) -> None:
        """Book what a call did cost, and say in the store what that says of its member."""
        if call.reservation is not None:
            call.reservation.settle(usage)
        if call.ticket is not None:
            call.ticket.settle(usage, says)


def part_of(cap: int | None, parts: float) -> int | None:
    """Return a process's part of a cap, at least one; None for any number, as of infinitely many parts."""
    return None if cap is None or parts == math.inf else max(int(cap // parts), 1)


def _late_turn(member: PoolMember, wait_s: float) -> str:
    return f"It may be called {member.max_calls_per_minute:g} times a minute, and its next turn, in {wait_s:.3g} s, is after the deadline."


def _capital(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"

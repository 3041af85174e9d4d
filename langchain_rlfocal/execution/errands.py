"""Errands: what one answer may take of time, attempts and money, and what all answers of a model share.

`ExecutionConfig` are what the caller wants; a `SharedState` is what has happened so far in this process: calls that run, breakers,
latencies, spending. An `AnswerLimits` is one answer between the two. None of them asks anybody.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from langchain_rlfocal.execution.asking import Clock
from langchain_rlfocal.execution.breakers import BreakerConfig, Breakers
from langchain_rlfocal.execution.budgets import Budget, Ledger
from langchain_rlfocal.execution.latencies import Latencies
from langchain_rlfocal.execution.limits import CallLimits, Shared
from langchain_rlfocal.execution.retries import RetryPolicy


class SharedState(Shared):
    """What all copies of a model share while they run in one process.

    Copies and deep copies are the same object. A pickle begins anew, but for what was spent.

    Attributes:
        limits: Calls that run or wait for a place.
        breakers: Members that failed too often in a row.
        latencies: How long members took lately.
        ledger: What was spent.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.limits, self.breakers, self.latencies = CallLimits(), Breakers(), Latencies()
        self.ledger = ledger or Ledger()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ledger,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """What an answer may take.

    Attributes:
        retry: How often and when a member is asked again.
        breaker: When the circuit breaker of a member opens; None for never.
        timeout_s: Seconds for one attempt, None for any time.
        member_timeout_s: Seconds for all attempts of one member, the waiting between them included; None for any time.
        deadline_s: Seconds for the whole answer, None for any time.
        max_concurrent_calls: How many calls may run at once, over all answers; None for any number.
        budget: What all answers of the model together may spend.
        budget_per_answer: What one answer may spend.
        early_commit: True to cancel members that can no longer change the answer.
        hedge: True to ask another member beside one that takes longer than it mostly does.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerConfig | None = field(default_factory=BreakerConfig)
    timeout_s: float | None = None
    member_timeout_s: float | None = None
    deadline_s: float | None = None
    max_concurrent_calls: int | None = None
    budget: Budget = field(default_factory=Budget)
    budget_per_answer: Budget = field(default_factory=Budget)
    early_commit: bool = True
    hedge: bool = False


class AnswerLimits:
    """One answer on its way.

    Args:
        config: What it may take.
        shared: What it shares with other answers; None for a new one.
        clock: Gives seconds.

    Attributes:
        ledger: What this answer has spent.
        deadline_at_s: When it must be there, by the clock; infinite for no deadline.
    """

    def __init__(
        self,
        config: ExecutionConfig | None = None,
        *,
        shared: SharedState | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.config, self.shared, self.clock = config or ExecutionConfig(), shared or SharedState(), clock
        self.ledger = Ledger(name="budget_per_answer")
        deadline_s = self.config.deadline_s
        self.deadline_at_s = math.inf if deadline_s is None else clock() + deadline_s

    @property
    def is_late(self) -> bool:
        """True once the deadline has passed."""
        return math.isfinite(self.deadline_at_s) and self.clock() >= self.deadline_at_s

    def is_breaker_open(self, member: str) -> bool:
        """Tell whether a member's circuit breaker lets no call through now."""
        return self.config.breaker is not None and self.shared.breakers.is_open(member, self.clock())

    @property
    def accounts(self) -> list[tuple[Ledger, Budget]]:
        """What every call is booked to, each with what it allows."""
        return [(self.ledger, self.config.budget_per_answer), (self.shared.ledger, self.config.budget)]

    def pause(self, seconds: float) -> None:
        """Put the deadline off by the time that the reader of a stream took."""
        self.deadline_at_s += seconds

"""Reliability: what callers say of time, attempts, breakers and money, as fields of a chat model.

The fields become `execution.ExecutionConfig` of each answer; what happens under them is `execution`'s. Retries, breakers and
early commit are on by default; deadlines, hedges and budgets are off until somebody asks for them.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from langchain_rlfocal.chat_models.binding import ToolCallingChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import (
    AnswerLimits,
    BreakerConfig,
    BreakerState,
    Budget,
    ExecutionConfig,
    RetryPolicy,
    SharedState,
    Usage,
)
from langchain_rlfocal.pool import ModelPool, PoolMember

_OF_A_CALL = (
    "timeout",
    "member_timeout_s",
    "deadline_s",
    "max_retries",
    "early_commit",
    "hedge",
    "budget_per_answer",
)
"""What one call may set for itself; the rest holds for all calls of a model."""


def to_budget(value: Any) -> Budget:
    """Read a budget: one, its limits by name, or None for none.

    Raises:
        InputError: It is none of these, or a limit is unknown or outside its range.
    """
    if isinstance(value, Budget):
        return value
    limits = {} if value is None else value
    known = Budget.__dataclass_fields__
    if not isinstance(limits, Mapping) or not set(limits) <= set(known):
        raise InputError(f"A budget must be a `Budget`, or its limits by name ({', '.join(known)}), got {value!r}.")
    return Budget(**limits)


class ReliableChatModel(ToolCallingChatModel):
    """A chat model whose calls of other models are bounded in time, attempts and money."""

    timeout: float | None = None
    """Seconds that one attempt of a member may take; None leaves it to the member's own client."""

    member_timeout_s: float | None = None
    """Seconds that a member may take for all its attempts and the waiting between them; None for any time."""

    deadline_s: float | None = None
    """Seconds after which Fusion answers with what has arrived; None waits for all. Members still running are cancelled. Fewer
    than `min_candidates` raise `DeadlineError`."""

    min_candidates: int = 1
    """How many members must have answered where the deadline or a budget cuts an answer short."""

    max_retries: int = 2
    """How often a member is asked again after an error that may pass: a lost connection, a time-out, HTTP 408, 409, 425, 429
    and 5xx, or whatever LangChain calls retryable. Waits of 0.5 s, 1 s and so on with jitter, or what the provider asks for in
    `Retry-After`. The retries of members' own clients are switched off, so that they do not multiply."""

    early_commit: bool = True
    """Whether members that can no longer change the answer are cancelled. Only where that is exact: see
    docs/explanation/reliability.md."""

    hedge: bool = False
    """Whether the Decider's next choice is asked, as far as `max_team` allows, beside a member that takes longer than 95 % of its
    answers so far; the first good answer wins."""

    breaker_failures: int | None = 5
    """After how many failed attempts in a row, of those that ran side by side one, a member's circuit breaker opens for
    `breaker_recovery_s`; None for never. To the Decider it is absent for so long; then one call probes it."""

    breaker_recovery_s: float = 30.0
    """Seconds that a circuit breaker stays open, until one call probes the member."""

    budget: Annotated[Budget | Mapping[str, float] | None, PlainValidator(to_budget)] = None
    """What all answers of this model and its copies may spend together, such as `Budget(max_usd=5)` or
    `{"max_calls": 100}`; None for any amount. A call is made only if the most that it can cost is still there."""

    budget_per_answer: Annotated[Budget | Mapping[str, float] | None, PlainValidator(to_budget)] = None
    """What one answer may spend, retries, the synthesizer and the equivalence judge included."""

    max_concurrent_calls: int | None = None
    """How many calls of members may run at once, over all queries that this model and its copies answer, in all threads and
    event loops; None for any number. `PoolMember.max_concurrent_calls` caps one member."""

    shared_state: SharedState = Field(default_factory=SharedState, exclude=True, repr=False)
    """What this model and its copies share in this process: running calls, breakers, latencies, spending. Give one model's to
    another to have them share it too."""

    clock: Callable[[], float] = Field(default=time.perf_counter, exclude=True, repr=False)
    """Gives seconds; latencies are its differences."""

    @model_validator(mode="after")
    def _check_reliability(self) -> Self:
        cap = self.max_concurrent_calls
        if cap is not None and cap < 1:
            raise InputError(f"`max_concurrent_calls` must be at least 1, or None for any number, got {cap}.")
        self._terms({})
        return self

    @property
    def pool(self) -> ModelPool:
        """The members as a pool."""
        raise NotImplementedError

    @property
    def spent(self) -> Usage:
        """What all answers of this model and its copies have spent so far."""
        return self.shared_state.ledger.spent

    def reset_spending(self) -> None:
        """Begin anew to count what is spent."""
        self.shared_state.ledger.reset()

    @property
    def breakers(self) -> dict[str, BreakerState]:
        """State of each breaker that is open, is being probed, or counts failures; a member not named is healthy.

        That of the synthesizer is called "(synthesizer)", that of the equivalence judge "(equivalence)".
        """
        return self.shared_state.breakers.states(self.clock())

    def reset_breakers(self, member: str | None = None) -> None:
        """Let a member, or all of them, be asked again at once.

        Args:
            member: Its name, "(synthesizer)" or "(equivalence)"; None for all.

        Raises:
            InputError: There is no such member, and no breaker of that name in `breakers`.
        """
        known = dict.fromkeys([*self.pool.names, *self.breakers])
        if member is not None and member not in known:
            raise InputError(f"`member` must be one of {', '.join(known)}, or None for all, got {member!r}.")
        self.shared_state.breakers.reset(member)

    def _limits(self, kwargs: dict[str, Any]) -> AnswerLimits:
        """Begin an answer, and take what it may take out of the call's arguments."""
        return AnswerLimits(self._terms(kwargs), shared=self.shared_state, clock=self.clock)

    def _terms(self, kwargs: dict[str, Any]) -> ExecutionConfig:
        """Make the terms of one call.

        Raises:
            InputError: One of them is outside its range.
        """
        given = {name: kwargs.pop(name, getattr(self, name)) for name in _OF_A_CALL}
        for name in ("early_commit", "hedge"):
            if not isinstance(given[name], bool):
                raise InputError(f"`{name}` must be True or False, got {given[name]!r}.")
        if given["max_retries"] is None:  # so says a config that leaves it open
            given["max_retries"] = self.max_retries
        for name in ("timeout", "member_timeout_s", "deadline_s"):
            _check_seconds(name, given[name])
        failures = self.breaker_failures
        return ExecutionConfig(
            retry=RetryPolicy(max_retries=given["max_retries"]),
            breaker=None if failures is None else BreakerConfig(failures=failures, recovery_s=self.breaker_recovery_s),
            timeout_s=given["timeout"],
            member_timeout_s=given["member_timeout_s"],
            deadline_s=given["deadline_s"],
            max_concurrent_calls=self.max_concurrent_calls,
            budget=to_budget(self.budget),
            budget_per_answer=to_budget(given["budget_per_answer"]),
            early_commit=given["early_commit"],
            hedge=given["hedge"],
        )


def check_bounded(members: list[PoolMember], terms: ExecutionConfig) -> None:
    """Check that the most that a call can cost is known wherever a budget limits it.

    Raises:
        InputError: A member has no price where dollars are limited, since unknown is not zero.
    """
    budgets = (terms.budget, terms.budget_per_answer)
    unpriced = [m.name for m in members if m.input_usd_per_mtok is None or m.output_usd_per_mtok is None]
    if unpriced and any(budget.max_usd is not None for budget in budgets):
        raise InputError(
            f"Where `max_usd` limits a budget every member must have prices, without: {', '.join(unpriced)}. Give "
            "PoolMember(name, model, input_usd_per_mtok=..., output_usd_per_mtok=...); 0 where it is free."
        )


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"`{name}` must be a finite number of seconds above 0, or None for any time, got {value!r}.")

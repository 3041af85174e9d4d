"""What an answer may take, and one answer between that and what all answers of a model share."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from langchain_rlfocal._langchain import EnsembleOverloadError
from langchain_rlfocal.execution.budgets import Account, Budget, Ledger
from langchain_rlfocal.execution.limits import BreakerConfig, Entry, Overloaded
from langchain_rlfocal.execution.retries import RetryPolicy
from langchain_rlfocal.execution.sharing import Clock, SharedState


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
        account: Who pays for the answer, and what they may spend over all answers; None where nobody else does.
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
    account: Account | None = None
    early_commit: bool = True
    hedge: bool = False

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets that a call must fit into."""
        own = () if self.account is None else (self.account.budget,)
        return (self.budget_per_answer, self.budget, *own)

    @property
    def call_timeout_s(self) -> float | None:
        """The shortest time in seconds after which nobody waits for a call any more; None for any time."""
        return shortest((self.timeout_s, self.member_timeout_s, self.deadline_s))


def shortest(limits_s: Iterable[float | None]) -> float | None:
    """Return the shortest of several times in seconds; None, which is any time, where there is none."""
    return min((limit_s for limit_s in limits_s if limit_s is not None), default=None)


class AnswerLimits:
    """Limits and clock of one answer.

    Args:
        config: What it may take.
        shared: What it shares with other answers; None for a new one.
        clock: Gives seconds.

    Attributes:
        ledger: What this answer has spent.
        deadline_at_s: When it must be there, by the clock; infinite for no deadline.
        accounts: What every call is booked to, each with what it allows: `own_accounts`, which are this answer's, and
            `shared_accounts`, which it shares.
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
        self._started_s = clock()
        deadline_s = self.config.deadline_s
        self.deadline_at_s = math.inf if deadline_s is None else clock() + deadline_s
        accounts = [(self.ledger, self.config.budget_per_answer), (self.shared.ledger, self.config.budget)]
        if (account := self.config.account) is not None:
            accounts.append((self.shared.ledger_for(account.name, keep_s=account.keep_s), account.budget))
        self.accounts = tuple(accounts)
        self.own_accounts, self.shared_accounts = self.accounts[:1], self.accounts[1:]
        self._entry: Entry | None = None

    @property
    def is_late(self) -> bool:
        """True once the deadline has passed."""
        return self.deadline_at_s != math.inf and self.clock() >= self.deadline_at_s

    @property
    def is_any_breaker_open(self) -> bool:
        """True if some member's circuit breaker is open, or being probed."""
        return self.config.breaker is not None and self.shared.breakers.is_any_open

    def is_breaker_open(self, member: str) -> bool:
        """Tell whether a member's circuit breaker lets no call through now."""
        return self.config.breaker is not None and self.shared.breakers.is_open(member, self.clock())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the answer began, without those that the reader of a stream took."""
        return self.clock() - self._started_s

    def pause(self, seconds: float) -> None:
        """Leave out of account the time that the reader of a stream took."""
        self._started_s += seconds
        self.deadline_at_s += seconds

    # ---- overload

    def begin(self) -> None:
        """Wait in this thread until the answer may begin: at once, unless many do; in later rounds at once.

        Raises:
            OverloadError: It would wait for too long.
        """
        if not self._begins_at_once(in_thread=True):
            admitted = threading.Event()
            entry = self._enter(admitted.set, in_thread=True)
            if not entry.is_admitted:
                left_s = self.deadline_at_s - self.clock()
                try:
                    admitted.wait(
                        None if math.isinf(left_s) else max(left_s, 0.0)
                    )  # a deadline is then noticed as ever
                except BaseException:  # Ctrl-C
                    self.ended()
                    raise

    async def abegin(self) -> None:
        """Wait in this task until the answer may begin; see `begin`."""
        if not self._begins_at_once(in_thread=False):
            loop, home = asyncio.get_running_loop(), threading.get_ident()
            admitted: asyncio.Future[None] = loop.create_future()

            def notice() -> None:
                if not admitted.done():
                    admitted.set_result(None)

            def on_admitted() -> None:
                if threading.get_ident() == home:
                    notice()
                else:
                    loop.call_soon_threadsafe(notice)

            entry = self._enter(on_admitted, in_thread=False)
            if not entry.is_admitted:
                left_s = self.deadline_at_s - self.clock()
                try:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if math.isinf(left_s) else left_s):
                            await admitted
                except BaseException:
                    self.ended()
                    raise

    def _begins_at_once(self, *, in_thread: bool) -> bool:
        if self._entry is None:
            self._entry = self.shared.admission.enter_at_once(self.clock(), in_thread=in_thread)
        return self._entry is not None

    def begun(self) -> None:
        """Say that the answer's first calls have been made, so that the next may begin; later calls have no effect."""
        if self._entry is not None and not self._entry.has_begun:
            self.shared.admission.begun(self._entry, self.clock())

    def ended(self, *, delay_s: float = 0.0) -> None:
        """Say that a round is over, and how late something was heard of in it at most; later calls have no effect."""
        if self._entry is not None:
            self.shared.admission.ended(self._entry, self.clock(), delay_s=delay_s)

    def _enter(self, on_admitted: Callable[[], None], *, in_thread: bool) -> Entry:
        admission, now_s = self.shared.admission, self.clock()
        try:
            self._entry = admission.enter(now_s, on_admitted, left_s=self.deadline_at_s - now_s, in_thread=in_thread)
        except Overloaded as overload:
            raise EnsembleOverloadError(
                f"More answers are in flight than can be served: this one would wait {overload.wait_s:.0f} s to start, "
                f"behind {admission.waiting} others. Ask again after that, or ask for fewer at once.",
                retry_after_s=overload.wait_s,
            ) from None
        return self._entry

    def may_add_load(self) -> bool:
        """Tell whether a retry or a hedge may be made now: always, unless many answers wait for their beginning."""
        return not self.shared.admission.is_busy or self.shared.retry_budget.withdraw(self.clock())

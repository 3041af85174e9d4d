"""Retries: after how long one member is asked again, and when to give up on it.

tenacity decides; what drives it here is its own protocol without its sleep, so that one who waits on many members at once
can wait for all of them together. It asks nobody and does not wait.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.causes import is_retryable, retry_after_s

MAX_RETRY_AFTER_S = 60.0
"""A provider that wants to be left alone for longer is given up: the answer is needed before."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one member is asked again, and after how long.

    Before the n-th retry, n from 1, passes

        max(min(max_s, initial_s · 2ⁿ⁻¹), Retry-After) + U(0, jitter_s)

    seconds, where Retry-After is what the provider asks for. The random part comes on top, so that those who were turned
    away together do not come back together.

    Attributes:
        max_retries: How many attempts may follow the first; 0 for none.
        initial_s: Seconds before the first retry.
        max_s: What the doubling stops at, in seconds.
        jitter_s: Most seconds of the random part.

    Raises:
        InputError: A value is outside its range.
    """

    max_retries: int = 2
    initial_s: float = 0.5
    max_s: float = 8.0
    jitter_s: float = 0.5

    def __post_init__(self) -> None:
        retries = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InputError(
                f"`max_retries` must be a whole number of at least 0, got {retries!r}. 0 asks each member once."
            )
        for name in ("initial_s", "max_s", "jitter_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
                raise InputError(
                    f"`{name}` must be a finite number of seconds, not negative, got {value!r}. Give for example 0.5."
                )
        if self.initial_s > self.max_s:
            raise InputError(
                f"`initial_s` must be at most `max_s` ({self.max_s}), got {self.initial_s}. Raise `max_s` with it."
            )


class Retries:
    """One member's attempts at one answer.

    Args:
        rule: How often, and after how long.
        wall: Gives the time in seconds since 1970, for providers that name a date.
    """

    __slots__ = ("_retrying", "_state", "_wall")

    def __init__(self, rule: RetryPolicy, *, wall: Callable[[], float] = time.time) -> None:
        doubling = tenacity.wait_exponential(multiplier=rule.initial_s, max=rule.max_s)
        jitter = tenacity.wait_random(0, rule.jitter_s)

        def wait(state: tenacity.RetryCallState) -> float:
            assert state.outcome is not None
            asked_s = self._asked_s(state.outcome.result())
            return max(doubling(state), min(asked_s, MAX_RETRY_AFTER_S)) + jitter(state)

        self._wall = wall
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(rule.max_retries + 1),
            wait=wait,
            # An error is given as a result: tenacity raises what it gives up on, which would change the error's traceback.
            retry=tenacity.retry_if_result(
                lambda error: is_retryable(error) and self._asked_s(error) <= MAX_RETRY_AFTER_S
            ),
            retry_error_callback=lambda _: None,
        )
        self._state = tenacity.RetryCallState(self._retrying, None, (), {})

    @property
    def num_attempts(self) -> int:
        """Attempts that were made or are awaited: 1, and one more for each wait that was granted."""
        return self._state.attempt_number

    def wait_s(self, error: BaseException) -> float | None:
        """Decide on an attempt that has failed.

        Args:
            error: What the member raised.

        Returns:
            Seconds until the next attempt; None to give up: no attempt is left, asking again does not help, or the
            provider wants a longer wait than `MAX_RETRY_AFTER_S`.
        """
        self._retrying.begin()  # its statistics belong to a thread, and this one may be another than the last
        self._state.set_result(error)
        decision = self._retrying.iter(self._state)
        if not isinstance(decision, tenacity.DoSleep):
            return None
        self._state.prepare_for_next_attempt()
        return float(decision)

    def _asked_s(self, error: BaseException) -> float:
        return retry_after_s(error, wall_s=self._wall()) or 0.0

"""Retries: which errors are worth another attempt, after how long, and what else an error says of a call.

Whether asking again may help, how long the provider wants to wait, whether the member is to blame, whether anything was sent
at all, and whether the attempt may be on the bill. Libraries that need not be installed are recognised by the names of their
exceptions. Nothing here raises, whatever a member's exception holds.
"""

import asyncio
import concurrent.futures
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

import tenacity
from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError

from langchain_rlfocal.errors import InputError, RLFocalError
from langchain_rlfocal.execution.limits import check_number

_logger = logging.getLogger(__name__)

_PASSING_STATUS = frozenset({408, 409, 425, 429})
_TOO_MANY = 429
_REQUEST_STATUS = frozenset({400, 413, 422})

_LOST_NAMES = """
    httpx.TimeoutException httpx.NetworkError httpx.RemoteProtocolError httpx.ProxyError
    requests.ConnectionError requests.Timeout requests.ChunkedEncodingError
    aiohttp.ClientConnectionError aiohttp.ClientPayloadError
    botocore.ConnectionError botocore.ConnectionClosedError botocore.ReadTimeoutError
"""
_LOST = frozenset(_LOST_NAMES.split())
"""Connections that were lost, or took too long, as HTTP libraries call them."""

_UNMADE_NAMES = """
    httpx.ConnectError httpx.ConnectTimeout httpx.PoolTimeout
    requests.ConnectTimeout urllib3.NewConnectionError urllib3.ConnectTimeoutError
    aiohttp.ClientConnectorError botocore.EndpointConnectionError botocore.ConnectTimeoutError
"""
_UNMADE = frozenset(_UNMADE_NAMES.split())
"""Connections that were never made: nothing was sent."""

_ANSWERED = frozenset({"UnusableAnswerError", "ContentFilterFinishReasonError", "LengthFinishReasonError"})
"""The member did respond; what it said is no answer to this request."""

_NAMED_ARGUMENT = re.compile(
    r"unexpected keyword argument '([^']{1,200})'"
    r"|multiple values for (?:keyword )?argument '([^']{1,200})'"
    r"|missing \d{1,9} required (?:positional|keyword-only) arguments?: '([^']{1,200})'"
    r"|'([^']{1,200})' is an invalid keyword argument"
)
"""How Python says that a function was called with other arguments than it takes."""

_TOLD_ARGUMENT = re.compile(
    r"\b(?:unknown|unexpected|unsupported|unrecogni[sz]ed|invalid)\b[^.\n]{0,40}\b(?:argument|parameter|param|option|keyword|kwarg)s?\b"
    r"|\b(?:argument|parameter|param|option|keyword|kwarg)s?\b[^.\n]{0,120}\b(?:unknown|unexpected|not supported|not allowed)\b",
    re.IGNORECASE,
)
"""How clients say it in their own words; it counts where they name an argument of the call."""

_NAMED_PARAMETER = re.compile(
    r'(?:Unknown parameter|Missing required parameter) in [\w.\[\]]{1,200}: "([^"]{1,200})"|for parameter ([\w.\[\]]{1,200}),'
)
"""How botocore says it of what it checks before sending."""

_CALL_ERROR_TYPES = """
    unexpected_keyword_argument missing_argument missing_keyword_only_argument multiple_argument_values
    unexpected_positional_argument
"""
_CALL_ERRORS = frozenset(_CALL_ERROR_TYPES.split())
"""Types of pydantic's errors that speak of a call."""

_UNWRITABLE = re.compile(r"is not JSON serializable|not JSON compliant|Circular reference detected")

_WITHOUT_THINKING = re.compile(
    r"expected .?thinking.? or .?redacted_thinking"
    r"|must start with a thinking block"
    r"|(?:thinking|redacted_thinking).{0,40} blocks? .{0,80}cannot be modified"
    r"|(?:missing|must|required|invalid|corrupted|without|include)[^.]{0,80}(?:reasoning_content|thought[_ ]?signature)"
    r"|(?:reasoning_content|thought[_ ]?signature)[^.]{0,80}(?:missing|must|required|not valid|invalid|corrupted)"
    r"|invalid .?signature.? in .?thinking",
    re.IGNORECASE,
)
"""How providers say that a tool call lacks the reasoning that led to it."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_MAX_READ_CHARS = 10_000  # of an error's text
_MAX_SECONDS = 1e9
_MAX_CHAIN = 16  # causes of an error, which may form a circle

NO_ARGUMENTS: Mapping[str, Any] = {}
"""Stands for the arguments of a call where nothing is known of them."""

MAX_RETRY_AFTER_S = 60.0
"""A member whose provider asks for a longer wait is not asked again."""

RetryOn = Callable[[Exception], bool | None] | type[Exception] | tuple[type[Exception], ...]
"""Which errors to retry: classes of them, or a function that returns True, False, or None for the built-in rule."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one member is asked again, after which errors, and after how long.

    The waits are tenacity's: `wait_exponential`, which doubles from retry to retry up to a limit, and `wait_random` on top,
    so that those who were turned away together do not come back together. A longer `Retry-After` of the provider takes the
    place of the exponential part. Seconds before the n-th retry, n from 1:

        max(min(max_s, initial_s · 2ⁿ⁻¹), Retry-After) + U(0, jitter_s)

    Attributes:
        max_retries: How many attempts may follow the first; 0 for none.
        initial_s: Seconds before the first retry.
        max_s: Most seconds that the doubling gives.
        jitter_s: Most seconds of the random part.
        retry_on: The caller's own rule, which is asked first; None for the built-in one (`is_retryable`).

    Raises:
        InputError: A value is outside its range.

    Example:
        ```python
        RetryPolicy(max_retries=3, retry_on=lambda error: True if "overloaded" in str(error) else None)
        ```
    """

    max_retries: int = 2
    initial_s: float = 0.5
    max_s: float = 8.0
    jitter_s: float = 0.5
    retry_on: RetryOn | None = None

    def __post_init__(self) -> None:
        check_number("max_retries", self.max_retries, whole=True)
        for name in ("initial_s", "max_s", "jitter_s"):
            check_number(name, getattr(self, name))
        if self.initial_s > self.max_s:
            raise InputError(f"`initial_s` must be at most `max_s` ({self.max_s}), got {self.initial_s}.")

    def is_retryable(self, error: BaseException) -> bool:
        """Tell whether asking the same member again may help: by the caller's rule, else by the built-in one."""
        rule = self.retry_on
        if rule is not None and isinstance(error, Exception):
            if isinstance(rule, type | tuple):
                return isinstance(error, rule) or is_retryable(error)
            try:
                decision = rule(error)
            except Exception:
                _logger.exception("`retry_on` raised on %s; the built-in rule decides.", type(error).__name__)
                decision = None
            if decision is not None:
                return decision
        return is_retryable(error)

    def wait_s(self, error: BaseException, number: int, *, wall: Callable[[], float] = time.time) -> float | None:
        """Decide on an attempt that has failed.

        Args:
            error: What the member raised.
            number: Which retry would be next, counted from 1.
            wall: Gives the time in seconds since 1970, for providers that name a date.

        Returns:
            Seconds until the next attempt; None to give up: no attempt is left, asking again does not help, or the provider
            wants a longer wait than `MAX_RETRY_AFTER_S`.
        """
        if number > self.max_retries or not self.is_retryable(error):
            return None
        asked_s = retry_after_s(error, wall_s=wall()) or 0.0
        if asked_s > MAX_RETRY_AFTER_S:
            return None
        attempt = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        attempt.attempt_number = number
        backoff_s = tenacity.wait_exponential(multiplier=self.initial_s, max=self.max_s)(attempt)
        return max(backoff_s, asked_s) + tenacity.wait_random(0, self.jitter_s)(attempt)


def is_retryable(error: BaseException) -> bool:
    """Tell whether asking the same member again may help.

    An ensemble's errors never are: its members were asked again already. Neither is an account without credit, which no
    waiting fills. Otherwise the provider's own word decides (the header `x-should-retry`), then LangChain's, then the
    HTTP status, then whether a connection was lost.
    """
    if isinstance(error, RLFocalError) or _is_cancellation(error) or _has_no_credit(error):
        return False
    word = _header(error, "x-should-retry")
    if word in {"true", "false"}:
        return word == "true"
    if isinstance(error, ModelError):
        return _read(error, "is_retryable") is True
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS or status >= 500
    return (
        isinstance(error, TimeoutError | ConnectionError)
        or not _LOST.isdisjoint(_qualified_names(error))
        or "APIConnectionError" in _names(error)
    )


def retry_after_s(error: BaseException, *, wall_s: float) -> float | None:
    """Return how many seconds the provider asks to wait, by header, else by the attribute `retry_after`; None where it does not.

    A date in the header is relative to `wall_s`, the time now in seconds since 1970.
    """
    milliseconds = _seconds(_header(error, "retry-after-ms"), wall_s=None)
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _seconds(_header(error, "retry-after"), wall_s=wall_s)
    if seconds is not None:
        return seconds
    attribute = _any(error, "retry_after")
    is_number = isinstance(attribute, int | float) and not isinstance(attribute, bool)
    return float(min(attribute, _MAX_SECONDS)) if is_number and attribute >= 0 else None


def is_of_member(error: BaseException, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> bool:
    """Tell whether an error speaks of the member's health, and not of the request, which would fail anywhere.

    Unknown errors count against the member: a breaker that opens too often is seen, one that never opens is not.
    """
    if _is_cancellation(error) or isinstance(error, RLFocalError):
        return False
    if _status(error) == _TOO_MANY and not _has_no_credit(error):  # it asks for patience, and retries give it
        return False
    if is_retryable(error):
        return True
    if refused_arguments(error, arguments) is not None or misses_thinking(error):
        return False
    if isinstance(error, ContextOverflowError | ModelInvalidRequestError) or _status(error) in _REQUEST_STATUS:
        return False
    return not any(name in _ANSWERED or "Refusal" in name for name in _names(error))


def refused_arguments(error: BaseException, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> tuple[str, ...] | None:
    """Name the arguments that a member's client would not take, so that nothing was sent.

    An argument is unknown, missing, of a wrong value, or cannot be written into a request. Errors of validation count only
    where they name one of `arguments`, since responses are validated too. Empty where the error names none; None where it is
    of another kind.
    """
    found = (_refused_by(each, arguments) for each in _chain(error))
    return next((names for names in found if names is not None), None)


def _refused_by(error: BaseException, arguments: Mapping[str, Any]) -> tuple[str, ...] | None:
    if isinstance(error, UnicodeEncodeError):
        return ()
    if isinstance(error, TypeError | ValueError) and _UNWRITABLE.search(_words(error)):
        return tuple(name for name, value in arguments.items() if not _is_writable(value))
    if isinstance(error, TypeError):
        named = _NAMED_ARGUMENT.search(_words(error))
        return None if named is None else tuple(filter(None, named.groups()))
    kinds = _qualified_names(error)
    if "botocore.ParamValidationError" in kinds:
        found = _NAMED_PARAMETER.findall(_words(error))
        return tuple(dict.fromkeys(name or place for name, place in found))
    if not kinds.isdisjoint({"pydantic.ValidationError", "pydantic_core.ValidationError"}):
        return _refused_by_pydantic(error, arguments)
    if isinstance(error, ValueError) and _status(error) is None and _TOLD_ARGUMENT.search(_words(error)):
        told = {_snake(word) for word in re.findall(r"\w+", _words(error))}
        if named_in_words := tuple(name for name in arguments if _snake(name) in told):
            return named_in_words
    return None


def _refused_by_pydantic(error: BaseException, arguments: Mapping[str, Any]) -> tuple[str, ...] | None:
    faults = [(fault["type"], [_snake(str(part)) for part in fault["loc"]]) for fault in error.errors()]  # type: ignore[attr-defined]  # pydantic's, of either version
    known = {_snake(name): name for name in arguments}
    names = [part for kind, place in faults for part in place if kind in _CALL_ERRORS or part in known]
    return tuple(dict.fromkeys(known.get(name, name) for name in names)) or None


def _snake(name: str) -> str:
    """Write `maxTokens` as `max_tokens`: some clients name arguments as their protocols do."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_writable(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except Exception:  # noqa: BLE001  # an argument can be anything
        return False
    return True


def misses_thinking(error: BaseException) -> bool:
    """Tell whether a provider refuses to have its model think, since a tool call lacks the reasoning that led to it."""
    if isinstance(error, RLFocalError):
        return False
    status = _status(error)
    if status is not None and not 400 <= status < 500:
        return False
    return any(_WITHOUT_THINKING.search(_words(each)) for each in _chain(error))


def may_have_cost(error: BaseException, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> bool:
    """Tell whether the provider may charge for an attempt that failed.

    It does not where it answered with an HTTP error, nor where nothing was sent. A call that was cut off, or ran out of time,
    may have been worked on.
    """
    status = _status(error)
    if (status is not None and status >= 400) or refused_arguments(error, arguments) is not None:
        return False
    return not any(
        isinstance(each, ConnectionRefusedError | socket.gaierror) or not _UNMADE.isdisjoint(_qualified_names(each))
        for each in _chain(error, with_context=True)
    )


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError)


def _has_no_credit(error: BaseException) -> bool:
    return bool(_any(error, "code") == "insufficient_quota")


def _chain(error: BaseException, *, with_context: bool = False) -> Iterator[BaseException]:
    """Walk from an error to its causes; `with_context` also to what was being handled when it was raised."""

    def walk() -> Iterator[BaseException]:
        each: BaseException | None = error
        while each is not None:
            yield each
            each = each.__cause__ or (each.__context__ if with_context else None)

    return islice(walk(), _MAX_CHAIN)


def _read(holder: object, name: str) -> Any:
    """Read an attribute; None where there is none, or reading it fails."""
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001  # a member's exception is the member's code
        return None


def _any(error: BaseException, name: str) -> Any:
    """Return an attribute of the first error of the chain that has it."""
    return next((value for each in _chain(error) if (value := _read(each, name)) is not None), None)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status, under whichever name a provider's package gives it."""
    for each in _chain(error):
        response = _read(each, "response")
        for holder, name in (
            (each, "status_code"),
            (response, "status_code"),
            (each, "http_status"),
            (_aws_facts(response), "HTTPStatusCode"),
            (each, "code"),
            (each, "status"),
        ):
            value = holder.get(name) if isinstance(holder, dict) else _read(holder, name)
            # Ollama says -1 where it has no status.
            if isinstance(value, int) and 100 <= value < 600:
                return int(value)
    return None


def _aws_facts(response: Any) -> dict[str, Any]:
    """Return what botocore's errors, whose response is a mapping, say of HTTP; empty for any other."""
    facts = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return facts if isinstance(facts, dict) else {}


def _header(error: BaseException, name: str) -> str | None:
    """Return a header of the response that an error carries, whatever the case of its name."""
    for each in _chain(error):
        response = _read(each, "response")
        for headers in (
            _read(response, "headers"),
            _read(each, "headers"),
            _aws_facts(response).get("HTTPHeaders", {}),
        ):
            try:
                value = next((value for key, value in headers.items() if str(key).lower() == name), None)
            except Exception:  # noqa: BLE001, S112  # not a mapping, or a broken one
                continue
            if isinstance(value, str | int | float):
                return str(value).strip().lower()
    return None


def _seconds(value: str | None, *, wall_s: float | None) -> float | None:
    """Read a number of seconds or, where the time now is given, a date of HTTP."""
    if value is None:
        return None
    if _NUMBER.fullmatch(value):
        return min(float(value), _MAX_SECONDS)
    if wall_s is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        # A date without a zone is in UTC, as all of HTTP's are.
        wait_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_s
    except (ValueError, OverflowError):
        return None
    return wait_s if wait_s >= 0 else None


def _words(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_READ_CHARS]
    except Exception:  # noqa: BLE001  # a member's exception is the member's code
        return ""


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _qualified_names(error: BaseException) -> set[str]:
    """Return the names of an error's classes, each after its package; httpx2 is httpx under another name."""
    classes = type(error).__mro__
    return {f"{base.__module__.partition('.')[0].replace('httpx2', 'httpx')}.{base.__name__}" for base in classes}

"""Causes: what an exception says of a call that failed.

Whether asking again may help, how long the provider wants to be left alone, whether the member is to blame, and whether the
attempt may be on the bill. Libraries that need not be installed are recognised by the names of their exceptions.

It decides nothing that follows from the answers, and raises nothing: whatever a member's exception holds, each function has
an answer.
"""

import asyncio
import concurrent.futures
import re
import socket
from calendar import timegm
from collections.abc import Iterator
from email.utils import parsedate_tz
from itertools import islice
from typing import Any

from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError

from langchain_rlfocal.errors import RLFocalError

_PASSING_STATUS = frozenset({408, 409, 425, 429})
_REQUEST_STATUS = frozenset({400, 413, 422})

_LOST = frozenset(
    {
        *(
            f"{package}.{name}"
            for package in ("httpx", "httpx2")
            for name in ("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError")
        ),
        *(f"requests.{name}" for name in ("ConnectionError", "Timeout", "ChunkedEncodingError")),
        *(f"aiohttp.{name}" for name in ("ClientConnectionError", "ClientPayloadError")),
        *(f"botocore.{name}" for name in ("ConnectionError", "ConnectionClosedError", "ReadTimeoutError")),
    }
)
"""Connections that were lost, or took too long, as HTTP libraries call them."""

_UNMADE = frozenset(
    {
        *(f"{package}.{name}" for package in ("httpx", "httpx2") for name in ("ConnectError", "ConnectTimeout")),
        *(f"{package}.PoolTimeout" for package in ("httpx", "httpx2")),
        *(f"urllib3.{name}" for name in ("NewConnectionError", "ConnectTimeoutError")),
        "requests.ConnectTimeout",
        "aiohttp.ClientConnectorError",
        *(f"botocore.{name}" for name in ("EndpointConnectionError", "ConnectTimeoutError")),
    }
)
"""Connections that were never made: nothing was sent."""

_ANSWERED = frozenset({"UnusableAnswerError", "ContentFilterFinishReasonError", "LengthFinishReasonError"})
"""The member did respond; what it said is no answer to this request."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")

_MAX_SECONDS = 1e9
"""What a wait beyond is taken for: no one means so many seconds."""

_MAX_CHAIN = 16
"""How many causes of an error are looked at; a chain may be a circle."""


def is_retryable(error: BaseException) -> bool:
    """Tell whether asking the same member again may help.

    An ensemble's errors never are: its members were asked again already. Neither is an account without credit, which no
    waiting fills. Otherwise the provider's own word decides (the header `x-should-retry`), then LangChain's, then the
    HTTP status, then whether a connection was lost.
    """
    if isinstance(error, RLFocalError) or _is_cancellation(error) or _is_broke(error):
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
    """Return how many seconds the provider asks to wait: by header, else by the error's attribute `retry_after`.

    Args:
        error: What the member raised.
        wall_s: The time now, in seconds since 1970, which a date in the header is relative to.

    Returns:
        At least 0; None where nothing is asked for, or nothing that makes sense.
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


def is_of_member(error: BaseException) -> bool:
    """Tell whether an error speaks of the member's health, and not of the request, which would fail anywhere.

    What nobody knows counts against the member: a breaker that opens too often is seen, one that never opens is not.
    """
    if _is_cancellation(error) or isinstance(error, RLFocalError):
        return False
    if is_retryable(error):
        return True
    if isinstance(error, ContextOverflowError | ModelInvalidRequestError) or _status(error) in _REQUEST_STATUS:
        return False
    return not any(name in _ANSWERED or "Refusal" in name for name in _names(error))


def may_have_cost(error: BaseException) -> bool:
    """Tell whether the provider may charge for an attempt that failed.

    It does not where it answered with an HTTP error, nor where no connection was made. Of all else nobody knows: a call
    that was cut off, or ran out of time, may have been worked on.
    """
    status = _status(error)
    if status is not None and status >= 400:
        return False
    return not any(
        isinstance(each, ConnectionRefusedError | socket.gaierror) or not _UNMADE.isdisjoint(_qualified_names(each))
        for each in _chain(error, with_context=True)
    )


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError)


def _is_broke(error: BaseException) -> bool:
    code = _any(error, "code")
    return isinstance(code, str) and code == "insufficient_quota"


def _chain(error: BaseException, *, with_context: bool = False) -> Iterator[BaseException]:
    """Walk from an error to what it was raised from; `with_context` also to what was being handled, said or not."""

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
        date = parsedate_tz(value)
        # A date without a zone is in UTC, as all of HTTP's are; `mktime_tz` would take it for local time.
        wait_s = None if date is None else timegm(date[:6]) - (date[9] or 0) - wall_s
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return wait_s if wait_s is not None and wait_s >= 0 else None


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _qualified_names(error: BaseException) -> set[str]:
    """Return the names of an error's classes, each after its package."""
    return {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__}

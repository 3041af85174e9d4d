"""Causes: what errors of several libraries say, those libraries' classes among them where they are installed."""

import asyncio
import concurrent.futures
import socket
from email.utils import formatdate

import httpx
import httpx2
import openai
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_openai.chat_models.base import OpenAIRateLimitError, OpenAIRefusalError

from langchain_rlfocal._langchain import EnsembleModelError
from langchain_rlfocal.errors import DisagreementError, InputError
from langchain_rlfocal.execution.calls import UnusableAnswerError
from langchain_rlfocal.execution.retries import is_of_member, is_retryable, may_have_cost, retry_after_s

REQUEST = httpx2.Request("POST", "http://localhost/v1/chat/completions")
WALL_S = 1_000_000_000.0
"""A time in seconds since 1970: 2001-09-09, 01:46:40 UTC."""


def response(status, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, headers=named, request=REQUEST)


def refused(status, body=None, **headers):
    """OpenAI's error of that HTTP status."""
    return openai.APIStatusError("refused", response=response(status, **headers), body=body)


def of_package(name, bases=(Exception,), **attributes):
    """An error of a package that is not installed, such as `aiohttp.ClientConnectionError`."""
    package, _, short = name.rpartition(".")
    return type(short, bases, {"__module__": package, **attributes})("boom")


def from_(error, cause=None, context=None):
    error.__cause__, error.__context__ = cause, context
    return error


class AwkwardError(Exception):
    """Reading anything from it fails."""

    @property
    def response(self):
        raise RuntimeError

    code = status_code = retry_after = headers = response


# ---- whether asking again may help


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
def test_passing_http_statuses_are_retryable(status):
    assert is_retryable(refused(status))


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 410, 413, 422])
def test_other_http_statuses_are_not(status):
    assert not is_retryable(refused(status))


@pytest.mark.parametrize(
    "error",
    [
        httpx.HTTPStatusError("down", request=httpx.Request("GET", "http://a"), response=httpx.Response(503)),
        of_package("groq.InternalServerError", status_code=503),
        of_package("ollama._types.ResponseError", status_code=503),
        of_package("google.genai.errors.ServerError", code=503, status="UNAVAILABLE"),
        of_package("some.Error", http_status=503),
        of_package("aiohttp.ClientResponseError", status=503),
        from_(of_package("langchain_google_genai.ChatGoogleGenerativeAIError"), of_package("g.Error", code=503)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_status_is_found_where_each_package_keeps_it(error):
    assert is_retryable(error)
    assert not may_have_cost(error)


def of_aws(status, **headers):
    """An error of botocore, whose response is a mapping."""
    facts = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return of_package("botocore.exceptions.ClientError", response={"Error": {"Code": "x"}, "ResponseMetadata": facts})


@pytest.mark.parametrize(
    ("status", "retryable", "of_member"), [(429, True, True), (503, True, True), (400, False, False)]
)
def test_what_botocore_says_of_http_is_read_from_its_mapping(status, retryable, of_member):
    error = of_aws(status, **{"retry-after": "7"})
    assert (is_retryable(error), is_of_member(error), may_have_cost(error)) == (retryable, of_member, False)
    assert retry_after_s(error, wall_s=WALL_S) == 7


@pytest.mark.parametrize(
    "response", [{}, {"ResponseMetadata": None}, {"ResponseMetadata": {"HTTPStatusCode": "429"}}, []]
)
def test_a_mapping_that_says_nothing_of_http_says_nothing(response):
    error = of_package("botocore.exceptions.ClientError", response=response)
    assert not is_retryable(error)
    assert retry_after_s(error, wall_s=WALL_S) is None


@pytest.mark.parametrize(
    "attributes", [{"code": True}, {"code": "503"}, {"status_code": -1}, {"status_code": 600}, {"code": 99}]
)
def test_what_is_no_http_status_says_nothing(attributes):
    """Ollama's -1 means that it has none."""
    error = of_package("some.Error", **attributes)
    assert not is_retryable(error)
    assert may_have_cost(error)
    assert is_retryable(of_package("some.Error", (ConnectionError,), **attributes))


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut off"),
        httpx2.PoolTimeout("full"),
        httpx2.ReadError("cut off"),
        httpx2.ProxyError("down"),
        openai.APIConnectionError(request=REQUEST),
        openai.APITimeoutError(REQUEST),
        requests.ConnectionError(),
        requests.ReadTimeout(),
        requests.exceptions.ChunkedEncodingError(),
        of_package(
            "aiohttp.client_exceptions.ServerDisconnectedError", (type(of_package("aiohttp.ClientConnectionError")),)
        ),
        of_package("aiohttp.client_exceptions.ClientPayloadError"),
        of_package("anthropic.APIConnectionError"),
        of_package("botocore.exceptions.ConnectionError"),
        of_package("botocore.exceptions.ReadTimeoutError"),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_lost_connections_and_time_outs_are_retryable(error):
    assert is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bug"),
        httpx.UnsupportedProtocol("ftp"),
        httpx2.LocalProtocolError("a header with a line break"),
        of_package("mine.TimeoutException"),
        of_package("mine.ClientPayloadError"),
        KeyboardInterrupt(),
        AwkwardError(),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_what_is_unknown_or_cannot_be_sent_is_not_retryable(error):
    assert not is_retryable(error)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ModelRateLimitError, True),
        (ModelAPIError, True),
        (ModelConnectionError, True),
        (ModelTimeoutError, True),
        (ModelAuthenticationError, False),
        (ModelNotFoundError, False),
        (ContextOverflowError, False),
        (ModelError, False),
    ],
)
def test_langchain_has_the_word_over_the_status(kind, expected):
    error = kind("boom")
    error.status_code = 400 if expected else 503
    assert is_retryable(error) is expected


@pytest.mark.parametrize(
    "make", [refused, lambda *a, **k: OpenAIRateLimitError("r", response=response(*a, **k), body=None)]
)
def test_the_provider_has_the_word_over_both(make):
    """Both ways: 400 may be asked again, 429 may not."""
    assert is_retryable(make(400, x_should_retry="true"))
    assert not is_retryable(make(429, x_should_retry="false"))
    assert is_retryable(make(429, x_should_retry="maybe"))


def test_an_account_without_credit_is_not_asked_again_and_says_something_of_the_member():
    """Even where the provider asks for it: waiting does not fill an account."""
    body = {"code": "insufficient_quota"}
    for error in (
        refused(429, body, x_should_retry="true"),
        OpenAIRateLimitError("no credit", response=response(429), body=body),
    ):
        assert not is_retryable(error)
        assert is_of_member(error)
    assert is_retryable(refused(429, {"code": "rate_limit_exceeded"}))


@pytest.mark.parametrize(
    "error",
    [
        EnsembleModelError("nobody", is_retryable=True),
        DisagreementError("no majority"),
        InputError("no messages"),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_ensembles_and_cancellations_are_never_retried_and_blame_nobody(error):
    error.status_code = 503
    assert not is_retryable(error)
    assert not is_of_member(error)


# ---- how long to wait


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after": formatdate(WALL_S + 90, usegmt=True)}, 90.0),
        ({"retry_after": "Sun, 09 Sep 2001 01:47:40"}, 60.0),
        ({"retry_after": "Sun, 09 Sep 2001 03:47:40 +0200"}, 60.0),
        ({"retry_after": formatdate(WALL_S - 90, usegmt=True)}, None),
        ({"retry_after": "Sun, 99 Sep 99999999999 01:47:40 GMT"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "1_0"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after_ms": formatdate(WALL_S + 90, usegmt=True)}, None),
        ({"retry_after": "9" * 400}, 1e9),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_headers(headers, expected_s):
    assert retry_after_s(refused(429, **headers), wall_s=WALL_S) == expected_s


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "7"}, {"RETRY-AFTER": 7}, {"retry-after": 7.0}, httpx2.Headers({"Retry-After": "7"})]
)
def test_any_mapping_of_headers_will_do_on_the_response_or_the_error(headers):
    answer = type("Answer", (), {"headers": headers})()
    inner = of_package("google.ClientError", response=answer)
    for error in (inner, of_package("aiohttp.ClientResponseError", headers=headers), from_(ValueError(), inner)):
        assert retry_after_s(error, wall_s=0) == 7.0


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        (7, 7.0),
        (0.5, 0.5),
        (0, 0.0),
        (1e300, 1e9),
        (-1, None),
        (float("nan"), None),
        (True, None),
        ("7", None),
        (None, None),
    ],
)
def test_the_wait_may_be_an_attribute(value, expected_s):
    assert retry_after_s(of_package("some.Error", retry_after=value), wall_s=0) == expected_s


def test_headers_go_before_the_attribute():
    error = refused(429, retry_after="3")
    error.retry_after = 9
    assert retry_after_s(error, wall_s=0) == 3.0


@given(
    st.text().filter(lambda word: word.strip().lower() != "true") | st.binary() | st.floats() | st.lists(st.none()),
    st.floats(0, 1e12),
)
def test_whatever_stands_in_a_header_a_wait_is_none_or_finite_and_not_negative(value, wall_s):
    error = of_package("some.Error", headers={"retry-after": value, "x-should-retry": value}, retry_after=value)
    wait_s = retry_after_s(error, wall_s=wall_s)
    assert wait_s is None or 0 <= wait_s < float("inf")
    assert is_retryable(error) is False


@pytest.mark.parametrize("headers", [None, 5, "retry-after", [("retry-after", "7")], {None: 1, 3: 4}])
def test_what_is_no_mapping_of_headers_holds_none(headers):
    assert retry_after_s(of_package("some.Error", headers=headers), wall_s=0) is None


# ---- who is to blame, and who pays


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((refused(status), True) for status in (401, 403, 404, 402, 429, 500, 503)),
        *((refused(status), False) for status in (400, 413, 422)),
        (refused(400, x_should_retry="true"), True),
        (TimeoutError(), True),
        (ValueError("unknown"), True),
        (AwkwardError(), True),
        (ModelAuthenticationError(), True),
        (ModelNotFoundError(), True),
        (ContextOverflowError(), False),
        (ModelInvalidRequestError(), False),
        (UnusableAnswerError("empty", "nothing"), False),
        (OpenAIRefusalError("I cannot"), False),
        (of_package("langchain_core.exceptions.ModelRefusalError", (ModelError,)), False),
        (openai.ContentFilterFinishReasonError(), False),
        (of_package("openai.LengthFinishReasonError"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_request_caused_says_nothing_of_the_member(error, expected):
    assert is_of_member(error) is expected


@pytest.mark.parametrize(
    "error",
    [
        *(refused(status) for status in (400, 408, 429, 500)),
        ConnectionRefusedError(),
        socket.gaierror(),
        httpx.ConnectError("no"),
        httpx2.ConnectTimeout("slow"),
        httpx2.PoolTimeout("full"),
        requests.ConnectTimeout(),
        from_(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("no")),
        from_(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("slow")),
        from_(
            requests.ConnectionError(), context=from_(Exception(), of_package("urllib3.exceptions.NewConnectionError"))
        ),
        from_(ConnectionError("is it running?"), context=httpx.ConnectError("no")),
        of_package("aiohttp.ClientConnectorError"),
        of_package("botocore.exceptions.EndpointConnectionError"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nobody_charges_for_what_was_refused_or_never_sent(error):
    """Ollama hides the cause of its `ConnectionError`, and requests names none: both leave it in the context."""
    assert not may_have_cost(error)


@pytest.mark.parametrize(
    "error",
    [
        refused(200),
        TimeoutError(),
        ConnectionResetError(),
        httpx2.ReadTimeout("slow"),
        from_(openai.APIConnectionError(request=REQUEST), httpx2.ReadError("cut off")),
        asyncio.CancelledError(),
        ValueError("unknown"),
        AwkwardError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_was_cut_off_may_have_cost(error):
    assert may_have_cost(error)


def test_a_circle_of_causes_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_retryable(first)
    assert retry_after_s(first, wall_s=0) is None
    assert may_have_cost(first)

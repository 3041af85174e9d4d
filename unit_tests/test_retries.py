"""Retries: which errors are worth another attempt, how often, after how long, and what else an error says of a call."""

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
from langchain_rlfocal.execution.retries import (
    MAX_RETRY_AFTER_S,
    RetryPolicy,
    is_of_member,
    is_retryable,
    may_have_cost,
    retry_after_s,
)


def asked(seconds):
    """A passing error of a provider that asks for a wait."""
    error = ModelAPIError("down")
    error.retry_after = seconds
    return error


def waits(policy, errors):
    return [policy.wait_s(error, number) for number, error in enumerate(errors, 1)]


# ---- how often and after how long


def test_without_jitter_waits_double_up_to_the_limit_and_end():
    """½, 1, 2, 4, 8, then 8 again; the seventh failure is the last."""
    policy = RetryPolicy(max_retries=6, jitter_s=0)
    assert waits(policy, [ModelAPIError()] * 7) == [0.5, 1, 2, 4, 8, 8, None]


def test_by_default_a_member_is_asked_at_most_three_times():
    assert [wait is None for wait in waits(RetryPolicy(), [TimeoutError()] * 3)] == [False, False, True]


def test_without_retries_every_error_is_the_last():
    assert RetryPolicy(max_retries=0).wait_s(TimeoutError(), 1) is None


def test_what_asking_again_does_not_mend_is_given_up_at_once():
    assert waits(RetryPolicy(jitter_s=0), [ModelAPIError(), ModelAuthenticationError()]) == [0.5, None]


def test_a_provider_that_asks_for_a_longer_wait_gets_it_and_a_shorter_one_changes_nothing():
    assert waits(RetryPolicy(max_retries=3, jitter_s=0), [asked(20), asked(0.1), asked(8.5)]) == [20, 1, 8.5]


def test_a_wait_beyond_the_limit_is_no_wait():
    """Sixty seconds are waited for, more are not."""
    assert MAX_RETRY_AFTER_S == 60
    assert RetryPolicy(jitter_s=0).wait_s(asked(60), 1) == 60
    assert RetryPolicy().wait_s(asked(60.001), 1) is None


def test_a_date_is_read_by_the_wall_clock():
    """00:00:30 on the first day of 1970, seen at 00:00:10: twenty seconds."""
    error = ModelAPIError()
    error.headers = {"Retry-After": "Thu, 01 Jan 1970 00:00:30 GMT"}
    assert RetryPolicy(jitter_s=0).wait_s(error, 1, wall=lambda: 10.0) == 20


@given(
    st.floats(0, 5),
    st.floats(5, 50),
    st.floats(0, 3),
    st.lists(st.none() | st.floats(0, MAX_RETRY_AFTER_S), min_size=1, max_size=12),
)
def test_every_wait_is_within_the_formula(initial_s, max_s, jitter_s, asked_s):
    policy = RetryPolicy(max_retries=len(asked_s), initial_s=initial_s, max_s=max_s, jitter_s=jitter_s)
    for n, (wait_s, least_s) in enumerate(zip(waits(policy, map(asked, asked_s)), asked_s, strict=True)):
        low = max(min(max_s, initial_s * 2**n), least_s or 0)
        assert low <= wait_s <= low + jitter_s


def test_the_random_part_spreads_those_who_were_turned_away_together():
    """Twenty waits are all 30 s and some, and not all alike."""
    granted = [RetryPolicy(jitter_s=1).wait_s(asked(30), 1) for _ in range(20)]
    assert all(30 <= wait_s <= 31 for wait_s in granted)
    assert len(set(granted)) > 1


def test_many_attempts_overflow_nothing():
    assert RetryPolicy(max_retries=10**6, jitter_s=0).wait_s(ModelAPIError(), 10**6) == 8


# ---- the caller's own rule


class OutOfStockError(Exception):
    """What no built-in rule knows."""


@pytest.mark.parametrize(
    "retry_on",
    [OutOfStockError, (KeyError, OutOfStockError), lambda error: isinstance(error, OutOfStockError) or None],
    ids=["class", "classes", "function"],
)
def test_a_callers_rule_adds_errors_and_leaves_the_others_to_the_built_in_one(retry_on):
    policy = RetryPolicy(jitter_s=0, retry_on=retry_on)
    errors = [OutOfStockError(), TimeoutError(), ValueError()]
    assert [policy.wait_s(error, 1) for error in errors] == [0.5, 0.5, None]
    assert RetryPolicy().wait_s(OutOfStockError(), 1) is None


def test_a_callers_rule_may_also_say_no():
    policy = RetryPolicy(retry_on=lambda error: False if isinstance(error, TimeoutError) else None)
    assert policy.wait_s(TimeoutError(), 1) is None
    assert policy.wait_s(ConnectionError(), 1) is not None


# ---- what may be said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_retries", value) for value in (-1, 1.0, True, "2", None)),
        *((name, value) for name in ("initial_s", "max_s", "jitter_s") for value in (-0.1, float("inf"), "1", None)),
    ],
)
def test_a_policy_outside_its_range_names_the_field_and_the_value(field, value):
    with pytest.raises(InputError, match=rf"`{field}` must be .* got {value!r}\."):
        RetryPolicy(**{field: value})


def test_the_first_wait_may_not_be_longer_than_the_longest():
    with pytest.raises(InputError, match=r"`initial_s` must be at most `max_s` \(8\.0\), got 9"):
        RetryPolicy(initial_s=9)
    assert RetryPolicy(initial_s=9, max_s=9).max_s == 9


# ---- what an error says of a call


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
    ("status", "retryable", "of_member"), [(429, True, False), (503, True, True), (400, False, False)]
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
        *((refused(status), True) for status in (401, 403, 404, 402, 500, 503)),
        *((refused(status), False) for status in (400, 413, 422, 429)),
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

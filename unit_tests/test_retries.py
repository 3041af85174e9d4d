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


def test_without_jitter_waits_double_up_to_the_limit_and_end():
    """½, 1, 2, 4, 8, then 8 again; the seventh failure is the last."""
    policy = RetryPolicy(max_retries=6, jitter_s=0)
    assert waits(policy, [ModelAPIError()] * 7) == [0.5, 1, 2, 4, 8, 8, None]


def test_by_default_a_member_is_asked_at_most_three_times():
    assert [wait is None for wait in waits(RetryPolicy(), [TimeoutError()] * 3)] == [False, False, True]


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


def test_a_callers_rule_that_raises_leaves_it_to_the_built_in_one(caplog):
    """Such as `lambda error: error.status == 529` on an error without a status: the answer must not hang or fail by it."""
    policy = RetryPolicy(jitter_s=0, retry_on=lambda error: error.status == 529)
    assert [policy.wait_s(error, 1) for error in (TimeoutError(), ValueError())] == [0.5, None]
    assert "`retry_on` raised on TimeoutError" in caplog.text


def test_a_callers_rule_may_also_say_no():
    policy = RetryPolicy(retry_on=lambda error: False if isinstance(error, TimeoutError) else None)
    assert policy.wait_s(TimeoutError(), 1) is None
    assert policy.wait_s(ConnectionError(), 1) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_retries", -1), ("max_retries", 1.0), ("max_retries", True), ("initial_s", -0.1), ("max_s", float("inf"))],
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


def of_aws(status, **headers):
    """An error of botocore, whose response is a mapping."""
    facts = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return of_package("botocore.exceptions.ClientError", response={"Error": {"Code": "x"}, "ResponseMetadata": facts})


def with_status(status, error):
    error.status_code = status
    return error


def openai_limit(body=None, **headers):
    return OpenAIRateLimitError("slow", response=response(429, **headers), body=body)


CONNECTION = of_package("aiohttp.ClientConnectionError")
NO_CREDIT = {"code": "insufficient_quota"}

ERRORS = {
    "HTTP statuses that pass": ("RM-", [refused(status) for status in (408, 409, 425, 500, 502, 503, 504, 529, 599)]),
    "too many requests": (
        "R--",
        [refused(429), refused(429, {"code": "rate_limit_exceeded"}), refused(429, x_should_retry="maybe")],
    ),
    "statuses that speak of the member": ("-M-", [refused(status) for status in (401, 402, 403, 404, 410)]),
    "statuses that speak of the request": ("---", [refused(status) for status in (400, 413, 422)]),
    "no status of an error": ("-MC", [refused(200), refused(301)]),
    "where packages keep the status": (
        "RM-",
        [
            httpx.HTTPStatusError("down", request=httpx.Request("GET", "http://a"), response=httpx.Response(503)),
            of_package("groq.InternalServerError", status_code=503),
            of_package("google.genai.errors.ServerError", code=503, status="UNAVAILABLE"),
            of_package("some.Error", http_status=503),
            of_package("aiohttp.ClientResponseError", status=503),
            from_(of_package("langchain_google_genai.ChatGoogleGenerativeAIError"), of_package("g.Error", code=503)),
            of_aws(503),
        ],
    ),
    "botocore's 429": ("R--", [of_aws(429)]),
    "botocore's 400": ("---", [of_aws(400)]),
    "no HTTP status; Ollama's -1 means that it has none": (
        "-MC",
        [
            *(of_package("some.Error", code=code) for code in (True, "503", 99)),
            *(of_package("some.Error", status_code=status) for status in (-1, 600)),
            of_package("botocore.exceptions.ClientError", response={}),
            of_package("botocore.exceptions.ClientError", response={"ResponseMetadata": {"HTTPStatusCode": "429"}}),
        ],
    ),
    "connections that were lost, and time-outs": (
        "RMC",
        [
            TimeoutError(),
            ConnectionResetError(),
            BrokenPipeError(),
            of_package("some.Error", (ConnectionError,), code="503"),
            httpx.ReadTimeout("slow"),
            httpx.RemoteProtocolError("cut off"),
            httpx2.ReadError("cut off"),
            httpx2.ProxyError("down"),
            openai.APIConnectionError(request=REQUEST),
            openai.APITimeoutError(REQUEST),
            from_(openai.APIConnectionError(request=REQUEST), httpx2.ReadError("cut off")),
            requests.ConnectionError(),
            requests.ReadTimeout(),
            requests.exceptions.ChunkedEncodingError(),
            of_package("aiohttp.client_exceptions.ServerDisconnectedError", (type(CONNECTION),)),
            of_package("aiohttp.client_exceptions.ClientPayloadError"),
            of_package("anthropic.APIConnectionError"),
            of_package("botocore.exceptions.ConnectionError"),
            of_package("botocore.exceptions.ReadTimeoutError"),
        ],
    ),
    "connections that were never made; Ollama and requests leave the cause in the context": (
        "RM-",
        [
            ConnectionRefusedError(),
            httpx.ConnectError("no"),
            httpx2.ConnectTimeout("slow"),
            httpx2.PoolTimeout("full"),
            requests.ConnectTimeout(),
            from_(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("no")),
            from_(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("slow")),
            from_(
                requests.ConnectionError(),
                context=from_(Exception(), of_package("urllib3.exceptions.NewConnectionError")),
            ),
            from_(ConnectionError("is it running?"), context=httpx.ConnectError("no")),
            of_package("aiohttp.ClientConnectorError", (type(CONNECTION),)),
            of_package("botocore.exceptions.EndpointConnectionError", (type(of_package("botocore.ConnectionError")),)),
        ],
    ),
    "a host without an address": ("-M-", [socket.gaierror()]),
    "unknown errors": (
        "-MC",
        [
            ValueError("bug"),
            httpx.UnsupportedProtocol("ftp"),
            httpx2.LocalProtocolError("a header with a line break"),
            of_package("mine.TimeoutException"),
            of_package("mine.ClientPayloadError"),
            AwkwardError(),
        ],
    ),
    "LangChain has the word over the status": (
        "RM-",
        [
            with_status(400, kind())
            for kind in (ModelRateLimitError, ModelAPIError, ModelConnectionError, ModelTimeoutError)
        ],
    ),
    "and the other way": (
        "-M-",
        [with_status(503, kind()) for kind in (ModelAuthenticationError, ModelNotFoundError, ModelError)],
    ),
    "the provider has the word over both": ("RM-", [refused(400, x_should_retry="true")]),
    "and the other way too": ("---", [refused(429, x_should_retry="false"), openai_limit(x_should_retry="false")]),
    "an account without credit, which no waiting fills": (
        "-M-",
        [refused(429, NO_CREDIT, x_should_retry="true"), openai_limit(NO_CREDIT)],
    ),
    "the request's own fault": (
        "--C",
        [
            ContextOverflowError(),
            ModelInvalidRequestError(),
            UnusableAnswerError("empty", "nothing"),
            OpenAIRefusalError("I cannot"),
            of_package("langchain_core.exceptions.ModelRefusalError", (ModelError,)),
            openai.ContentFilterFinishReasonError(),
            of_package("openai.LengthFinishReasonError"),
        ],
    ),
    "ensembles' own errors and cancellations, whatever they hold": (
        "---",
        [
            with_status(503, error)
            for error in (
                EnsembleModelError("nobody", is_retryable=True),
                DisagreementError("no majority"),
                InputError("no messages"),
                asyncio.CancelledError(),
                concurrent.futures.CancelledError(),
            )
        ],
    ),
}
ROWS = [(flags, error) for flags, errors in ERRORS.values() for error in errors]


@pytest.mark.parametrize(("flags", "error"), ROWS, ids=[f"{type(error).__name__}-{flags}" for flags, error in ROWS])
def test_what_an_error_says_of_a_call(flags, error):
    """R: asking again may help. M: it speaks of the member. C: the provider may charge for it."""
    assert (is_retryable(error), is_of_member(error), may_have_cost(error)) == tuple(flag != "-" for flag in flags)


# ---- how long to wait


HEADERS = {
    "7": 7.0,
    " 1.5 ": 1.5,
    "0": 0.0,
    formatdate(WALL_S + 90, usegmt=True): 90.0,
    "Sun, 09 Sep 2001 01:47:40": 60.0,
    "Sun, 09 Sep 2001 03:47:40 +0200": 60.0,
    "9" * 400: 1e9,
    **dict.fromkeys(["-1", "nan", "inf", "1e3", "1_0", "soon", "", formatdate(WALL_S - 90, usegmt=True)]),
    "Sun, 99 Sep 99999999999 01:47:40 GMT": None,
}


@pytest.mark.parametrize("value", HEADERS)
def test_the_wait_is_read_from_the_header(value):
    assert retry_after_s(refused(429, retry_after=value), wall_s=WALL_S) == HEADERS[value]


@pytest.mark.parametrize(
    ("headers", "attribute", "expected_s"),
    [
        ({"retry_after_ms": "250"}, None, 0.25),
        ({"retry_after_ms": "250", "retry_after": "7"}, 9, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 9, 7.0),
        ({"retry_after_ms": formatdate(WALL_S + 90, usegmt=True)}, None, None),
        *(({}, value, value) for value in (9, 0.5, 0)),
        ({}, 1e300, 1e9),
        *(({}, value, None) for value in (-1, float("nan"), True, "7", None)),
    ],
    ids=str,
)
def test_milliseconds_go_before_seconds_and_headers_before_an_attribute(headers, attribute, expected_s):
    error = refused(429, **headers)
    error.retry_after = attribute
    assert retry_after_s(error, wall_s=WALL_S) == expected_s


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "7"}, {"RETRY-AFTER": 7}, {"retry-after": 7.0}, httpx2.Headers({"Retry-After": "7"})]
)
def test_any_mapping_of_headers_will_do_on_the_response_or_the_error(headers):
    answer = type("Answer", (), {"headers": headers})()
    inner = of_package("google.ClientError", response=answer)
    for error in (inner, of_package("aiohttp.ClientResponseError", headers=headers), from_(ValueError(), inner)):
        assert retry_after_s(error, wall_s=0) == 7.0


@pytest.mark.parametrize("headers", [None, 5, [("retry-after", "7")], {None: 1, 3: 4}], ids=str)
def test_what_is_no_mapping_of_headers_holds_none(headers):
    assert retry_after_s(of_package("some.Error", headers=headers), wall_s=0) is None


def test_botocores_headers_stand_in_its_mapping():
    assert retry_after_s(of_aws(429, **{"retry-after": "7"}), wall_s=0) == 7


def test_a_circle_of_causes_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_retryable(first)
    assert retry_after_s(first, wall_s=0) is None
    assert may_have_cost(first)

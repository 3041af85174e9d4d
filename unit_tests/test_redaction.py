"""Text of others: secrets are hidden in it, prose is not, and no character of it steers a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.redaction import masked, printable

PLANTED = "q9Zp7-Ab3dEf6Gh8Jk"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://host/v1/models?key={PLANTED}&page=2 gave 403",
        f"https://host/?page=1&access_token={PLANTED}",
        f"api_key={PLANTED}, model=small",
        f"OPENAI_API_KEY={PLANTED}",
        f"apikey = '{PLANTED}'",
        f'{{"apiKey": "{PLANTED}", "model": "small"}}',
        f'{{"password":"{PLANTED} and more {PLANTED}"}}',
        f"{{'client_secret': '{PLANTED}'}}",
        f'{{\\"token\\": \\"{PLANTED}\\"}}',
        f"x-api-key: {PLANTED}",
        f"Incorrect API key provided: {PLANTED}.",
        f"Authorization: Bearer {PLANTED}",
        f"{{'authorization': 'Bearer {PLANTED}'}}",
        f"bearer {PLANTED} was refused",
        f"Authorization: Basic {PLANTED}==",
        f"Incorrect: sk-proj-{PLANTED}",
        f"AIza{PLANTED} is not valid",
    ],
)
def test_a_planted_secret_is_hidden_wherever_providers_write_it(text):
    assert PLANTED not in masked(text)
    assert "***" in masked(text)


def test_what_stands_around_a_secret_stays():
    assert masked("GET /v1?page=2&key=abc&n=3: 403") == "GET /v1?page=2&key=***&n=3: 403"
    assert masked('{"token": "abc", "code": 401}') == '{"token": "***", "code": 401}'
    assert masked("Authorization: Bearer abcdef was refused") == "Authorization: Bearer *** was refused"


@pytest.mark.parametrize(
    "prose",
    [
        "Error code: 401. Basic authentication is required; a bearer token was expected.",
        "The api_key client option must be set by passing api_key or the OPENAI_API_KEY environment variable",
        "Unexpected token: a comma. The key: keep it short. Monkey: 12 bananas.",
        "max_tokens=5 must be at least 16, tokens: 12, risk-adjusted-returns",
        "KeyError: 'content1'",
    ],
)
def test_prose_is_not_masked(prose):
    assert masked(prose) == prose


@pytest.mark.parametrize("part", ["key:", "key ", "Bearer ", "Bearer a", 'key"', "sk-", "api_", "authorization: ", "a"])
def test_masking_takes_time_linear_in_the_text(part):
    """A million characters of what nearly matches; a quadratic expression would run into the suite's time limit."""
    masked(part * (1_000_000 // len(part)))


@given(st.text())
def test_what_is_printable_is_one_line_of_as_many_characters(text):
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)

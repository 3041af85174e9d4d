"""Text of others: secrets are hidden in it, prose is not, and no character of it steers a terminal."""

import re
import traceback
from base64 import b64encode
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from langchain_rlfocal.redaction import (
    MAX_SHOWN_CHARS,
    RedactedError,
    as_utf8,
    masked,
    printable,
    secrets_of,
    shown_values,
    without_secrets,
)

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /v1?page=2&key=abc&n=3: 403", "GET /v1?page=2&key=***&n=3: 403"),
        ('{"token": "abc", "code": 401}', '{"token": "***", "code": 401}'),
        ("Authorization: Bearer abcdef was refused", "Authorization: Bearer *** was refused"),
        *(
            (prose, prose)
            for prose in (
                "Error code: 401. Basic authentication is required; a bearer token was expected.",
                "The api_key client option must be set by passing api_key or the OPENAI_API_KEY environment variable",
                "Unexpected token: a comma. The key: keep it short. Monkey: 12 bananas.",
                "max_tokens=5 must be at least 16, tokens: 12, risk-adjusted-returns",
                "KeyError: 'content1'",
                "a longer-value.",
            )
        ),
    ],
)
def test_what_is_around_a_secret_and_prose_stay(text, shown):
    assert masked(text) == shown


def test_a_known_secret_is_hidden_wherever_it_occurs():
    assert masked("a longer-value-still, longer-value.", {"longer-value", "longer-value-still"}) == "a ***, ***."


@given(st.text())
def test_what_is_printable_is_one_line_of_as_many_characters(text):
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


# ---- secrets of a model


def test_secrets_are_found_in_the_fields_of_a_model(monkeypatch):
    monkeypatch.setenv("OF_THE_HOST", "environment-value")

    class Inner(BaseModel):
        token: SecretStr = SecretStr("inner-value")

        @property
        def lc_secrets(self):
            return {"token": "OF_THE_HOST"}

    class Model(BaseModel):
        api_key: str = "plain-value"
        headers: list = [{"Authorization": "Bearer header-value"}, {"X-Api-Key": b"bytes-value"}]
        url: str = "https://user:pass%2Fword@host/path?page=1&key=of-the-query"
        inner: Inner = Inner()
        eos_token: str = "<|endoftext|>"
        model_name: str = "innocent"
        password: str = "short"
        prose: str = "see https://host/@user for more"

    found = secrets_of((Model(), {"headers": {"X-Gateway-Key": "of-the-call"}}))
    words = "plain-value header-value bytes-value inner-value environment-value pass/word pass%2Fword of-the-query of-the-call"
    assert {*words.split(), b64encode(b"user:pass/word").decode()} <= found
    assert not found & {"<|endoftext|>", "innocent", "short", "user", "host"}


def test_common_names_of_keys_are_known_and_others_are_not():
    for name in (
        "_token",
        "hf_token",
        "github-token",
        "id_token",
        "jwt",
        "pat",
        "pwd",
        "access_key_id",
        "X-Auth-Token",
    ):
        assert PLANTED in secrets_of({name: PLANTED}), name
    for name in ("eos_token", "pad_token", "mask_token", "stop_token", "tokens", "pattern", "path"):
        assert secrets_of({name: PLANTED}) == frozenset(), name


def test_looking_for_secrets_ends():
    ring = [{"api_key": PLANTED}]
    ring += [ring] * 50
    deep = {"api_key": PLANTED}
    for _ in range(20):
        deep = [deep]
    assert secrets_of(ring) == {PLANTED}
    assert secrets_of(deep) == frozenset()


def test_values_are_shown_but_for_the_secrets_within():
    """A secret is a digest of six bytes, the same wherever it occurs; what only looks like it stays."""
    values = {
        "a": 1,
        "b": [{"token": "abcdefgh"}, "abcdefgh_of"],
        "c": ("x", SecretStr("abcdefgh")),
        "url": "https://ann:abcdefgh@host/v1?key=abcdefgh",
        "max_tokens": 5,
        "pwd": "short",
    }
    shown = shown_values(values)
    digest = shown["b"][0]["token"]
    assert re.fullmatch(r"\*\*\*[0-9a-f]{12}", digest)
    assert shown == {
        "a": 1,
        "b": [{"token": digest}, "abcdefgh_of"],
        "c": ("x", digest),
        "url": f"https://ann:{digest}@host/v1?key={digest}",
        "max_tokens": 5,
        "pwd": "short",
    }
    assert values["b"][0]["token"] == "abcdefgh"


# ---- errors


class NotedError(Exception):
    def __init__(self, *, code, words):
        self.code, self.words, self.status_code = code, [words, 3, object()], 418
        super().__init__(words)


class HiddenError(Exception):
    """Says something else once its object is gone."""

    def __init__(self):
        self.by = object()
        super().__init__()

    def __str__(self):
        return "it was hidden-value" if self.by else "it was hidden-value still"


def test_an_error_that_tells_no_secret_stays_itself():
    error = NotedError(code=7, words="nothing to hide")
    error.__cause__ = ValueError("nor here")
    assert without_secrets(error, {"secret-value"}) is error


@pytest.mark.parametrize("where", ["text", "note", "body", "header", "attribute", "cause", "context", "within a group"])
def test_an_error_that_tells_a_secret_anywhere_is_stood_in_for(where):
    error = NotedError(code=7, words="it was secret-value" if where == "text" else "plain")
    telling = ValueError("it was secret-value")
    if where == "note":
        error.add_note("it was secret-value")
    elif where == "body":
        error.body = {"message": ["it was secret-value"]}
    elif where == "header":
        error.response = SimpleNamespace(status_code=429, headers={"X-Sent": "secret-value"})
    elif where == "attribute":
        error.request = {"headers": {"authorization": "secret-value"}}
    elif where == "cause":
        error.__cause__ = telling
    elif where == "context":
        error.__context__, error.__suppress_context__ = telling, True
    else:
        error.__cause__ = ExceptionGroup("several", [telling, KeyError("secret-value")])
    shown = without_secrets(error, {"secret-value"})
    assert type(shown) is NotedError
    assert (shown.code, shown.status_code, shown.words[1:]) == (7, 418, [3, None])
    words = [str(shown), repr(vars(shown)), *traceback.format_exception(shown), repr(shown.__context__)]
    assert "secret-value" not in "".join(words)


def test_an_error_that_cannot_be_copied_is_stood_in_for_by_its_words():
    shown = without_secrets(HiddenError(), {"hidden-value"})
    assert type(shown) is RedactedError
    assert str(shown) == "HiddenError: it was ***"


def test_of_a_long_error_the_beginning_is_shown():
    shown = without_secrets(ValueError("key: a1 " * 250_000))
    assert type(shown) is ValueError
    assert str(shown).startswith("key: *** key: ***")
    assert len(str(shown)) == MAX_SHOWN_CHARS
    for start in (MAX_SHOWN_CHARS - len(PLANTED), MAX_SHOWN_CHARS - 1):  # also where the text is cut
        assert PLANTED[:6] not in str(without_secrets(ValueError("." * start + PLANTED + "." * 99), {PLANTED}))


@pytest.mark.parametrize(
    ("text", "sent"),
    [("plain", "plain"), ("é😀", "é😀"), ("a\ud83d\ude00b", "a😀b"), ("a\ud83db", "a\ufffdb"), ("\ude00", "\ufffd")],
)
def test_half_a_surrogate_pair_is_replaced_and_two_halves_are_joined(text, sent):
    assert as_utf8(text) == sent

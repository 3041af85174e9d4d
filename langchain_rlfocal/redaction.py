"""Redaction: text of providers, members and files, made fit for error messages, metadata, logs and terminals.

Two kinds of secrets are hidden: values that a model holds in its own fields (`secrets_of`), exactly, and others by the
forms in which providers write them. A secret that no field holds (one that a function returns, or that only an HTTP
client knows) is hidden only where it has such a form.
"""

import os
import re
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr

MIN_SECRET_CHARS = 6
"""A shorter value is not hidden as a secret of a model: it would be cut out of ordinary words."""

MAX_SHOWN_CHARS = 20_000
"""Of a longer text of an error the beginning is shown: masking takes time."""

_MAX_DEPTH = 8

# Every repetition is bounded or ends its pattern, so that masking takes time linear in the text.
_NAMED_SECRET = re.compile(
    r"""(?<![a-z0-9]) (?P<name> api[-_ ]?key (?:\ provided)? | access[-_]?token | key | token | secret | password)
        (?P<mark> \\?["'] \s{0,4} [:=] \s{0,4}             # a quoted name: JSON, or how Python shows a mapping
                | \s{0,4} = \s{0,4}                        # a query string
                | \s{0,4} : \s{0,4} (?= \S{0,63} \d ) )    # a header; in prose a colon is followed by words
        (?: (?P<quote> \\?["'] ) [^"'\\]+ | [^\s"'&,;(){}\[\]\\]+ )""",
    re.IGNORECASE | re.VERBOSE,
)
_CREDENTIALS = re.compile(
    r"""(?P<scheme> \b (?i: authorization ) [\\"']{0,2} \s{0,4} [:=] \s{0,4} [\\"']{0,2} (?i: bearer | basic ) \s{1,4}
                  | \b (?i: bearer | basic ) \s{1,4}        # "Basic authentication" is prose, a long mixture is not
                    (?= [\w.~+/-]{0,63} [\d=~+/] | [\w-]{1,63} [A-Z] | [\w.~+/-]{20} ) )
        [\w.~+/=*-]{4,}""",
    re.VERBOSE,
)
_BARE_KEY = re.compile(r"(?<![A-Za-z0-9])(?P<vendor>sk-|rlf-|AIza)[\w*-]{8,}")
_SECRET_NAME = re.compile(
    r"""authorization | auth $ | secret | passw | pwd $ | credential | cookie | key (?: [-_]? id )? $ | bearer | jwt
        | (?: api | access | auth | refresh | security | session ) [-_]? token | (?: ^ | [-_] ) pat $
        | (?: ^ | (?<! eos | bos | pad | sep | unk | cls ) (?<! mask | stop ) [-_] ) token $""",
    re.IGNORECASE | re.VERBOSE,
)


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """Hide keys, tokens and passwords in what a provider says.

    Args:
        text: What it says.
        secrets: Values to hide wherever they occur, such as those of `secrets_of`.
    """
    text = _without(text, secrets)
    text = _CREDENTIALS.sub(r"\g<scheme>***", text)
    text = _BARE_KEY.sub(r"\g<vendor>***", text)
    return _NAMED_SECRET.sub(lambda match: f"{match['name']}{match['mark']}{match['quote'] or ''}***", text)


def shown_text(text: str, secrets: Collection[str] = ()) -> str:
    """Hide secrets as `masked` does, in the first `MAX_SHOWN_CHARS` characters of a text."""
    # In this order: a cut could leave most of a secret, and stars are longer than some secrets.
    return masked(_without(text, secrets)[:MAX_SHOWN_CHARS])[:MAX_SHOWN_CHARS]


def printable(text: str) -> str:
    """Put text on one line, with a space for each character that could steer the reader's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def as_utf8(text: str) -> str:
    """Replace half surrogate pairs, which JSON can carry and UTF-8 cannot, and keep the rest of a text."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def secrets_of(holder: object) -> frozenset[str]:
    """Find the secrets in the fields of a chat model, of the models and mappings within it, and in call arguments.

    They are pydantic's secrets; texts under a name such as `api_key`, `Authorization` or `X-Gateway-Key`; the environment
    variables that `lc_secrets` names; and credentials in URLs. Clients' objects are not searched.

    Returns:
        Values of at least `MIN_SECRET_CHARS` characters, plain and as a URL quotes them.
    """
    values = {value for value in _secret_values("", holder, 0, set()) if len(value) >= MIN_SECRET_CHARS}
    return frozenset(values | {quote(value, safe="") for value in values})


def shown_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values with a digest for each secret, at any depth: calls with other secrets stay other calls."""
    return {name: _shown_value(name, value, 1) for name, value in values.items()}


class RedactedError(Exception):
    """Stands for an error whose words told a secret, where no error of its own class can.

    Attributes:
        status_code: HTTP status of the error, None where it had none.
    """

    def __init__(self, words: str, *, status_code: int | None = None) -> None:
        self.status_code = status_code
        super().__init__(words)


def without_secrets(error: BaseException, secrets: Collection[str] = ()) -> BaseException:
    """Return an error that may be shown and raised from.

    Args:
        error: The error, with those that led to it.
        secrets: Values to hide wherever they occur, such as those of `secrets_of`.

    Returns:
        The error itself where neither it nor those that led to it tell a secret or a text longer than `MAX_SHOWN_CHARS`.
        Else one that stands for it, of the same class where possible: with every text masked, None for each attribute that
        is no plain value, and without those that led to it.
    """
    if not any(_tells_secret(one, secrets) for one in _chain_of(error)):
        return error
    with suppress(Exception):  # a member's exception is the member's code
        stand_in: BaseException = type(error).__new__(
            type(error), *_redacted(error.args, secrets)
        )  # its __init__ may want anything
        vars(stand_in).update(_redacted(vars(error), secrets))
        if not _tells_secret(stand_in, secrets):
            return stand_in
    words, status = "", getattr(error, "status_code", None)
    with suppress(Exception):
        words = f": {shown_text(str(error), secrets)}"
    return RedactedError(type(error).__name__ + words, status_code=status if isinstance(status, int) else None)


def _without(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "***")
    return text


def _secret_values(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[str]:
    """Yield the secrets within a value; a part without a name of its own goes by that of the whole."""
    if isinstance(value, str | bytes):
        text = value if isinstance(value, str) else value.decode("latin-1")
        yield from _credentials_of(text)
        if _SECRET_NAME.search(name):
            yield from (text, *text.split(" ")[1:2])  # "Bearer ..."
    elif isinstance(value, SecretStr | SecretBytes):
        yield from _secret_values("secret", value.get_secret_value(), depth, seen)
    elif depth < _MAX_DEPTH and id(value) not in seen:
        seen.add(id(value))
        parts: list[tuple[str, Any]] = []
        if isinstance(value, Mapping):
            parts = [(str(key), part) for key, part in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            parts = [(name, part) for part in value]
        elif isinstance(value, BaseModel):
            variables = getattr(value, "lc_secrets", {}).values()
            parts = [*vars(value).items(), *(("secret", os.environ.get(variable)) for variable in variables)]
        for part_name, part in parts:
            yield from _secret_values(part_name, part, depth + 1, seen)


def _shown_value(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        is_secret = bool(_SECRET_NAME.search(name))
        for secret in [value] if is_secret else _credentials_of(value):
            value = value.replace(secret, _digest(secret)) if len(secret) >= MIN_SECRET_CHARS else value
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return _digest(str(value.get_secret_value()))
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {key: _shown_value(str(key), part, depth + 1) for key, part in value.items()}
    if depth < _MAX_DEPTH and type(value) in {list, tuple}:
        return type(value)(_shown_value(name, part, depth + 1) for part in value)
    return value


def _digest(secret: str) -> str:
    return f"***{blake2b(secret.encode('utf-8', 'replace'), digest_size=6).hexdigest()}"


def _credentials_of(text: str) -> Iterator[str]:
    """Yield the secrets of a URL: its password, or its user where there is none, both also as a header has them, and keys in its query."""
    if "://" not in text or not ("@" in text or "=" in text):
        return
    with suppress(ValueError):
        parts = urlsplit(text)
        yield from (value for name, value in parse_qsl(parts.query) if _SECRET_NAME.search(name))
        if "@" not in parts.netloc:
            return
        user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
        yield from (password or user, unquote(password or user))
        yield b64encode(f"{unquote(user)}{colon}{unquote(password)}".encode()).decode()


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and each one that it leads to, once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def _tells_secret(error: BaseException, secrets: Collection[str]) -> bool:
    """Tell whether an error's words hold a secret, its attributes a known one, or its words are too long to show."""
    try:
        words = [str(error), repr(getattr(error, "body", None)), *getattr(error, "__notes__", ())]
        if any(len(text) > MAX_SHOWN_CHARS or masked(text, secrets) != text for text in words):
            return True
        answered = getattr(getattr(error, "response", None), "headers", None)
        held = f"{error!r} {vars(error)!r} {answered!r}"
    except Exception:  # noqa: BLE001  # what does not tell what it says may say anything
        return True
    return any(secret in held for secret in secrets)


def _redacted(value: Any, secrets: Collection[str], depth: int = 0) -> Any:
    """Mask every text within a plain value; None for what is no plain value."""
    if isinstance(value, str):
        return shown_text(value, secrets)
    if depth < _MAX_DEPTH and type(value) in {list, tuple}:
        return type(value)(_redacted(part, secrets, depth + 1) for part in value)
    if depth < _MAX_DEPTH and type(value) is dict:
        return {_redacted(key, secrets, depth + 1): _redacted(part, secrets, depth + 1) for key, part in value.items()}
    return value if type(value) in {bool, int, float} else None

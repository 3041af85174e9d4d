"""Foreign text: what a provider, a member or a file wrote, made fit to show.

For error messages, metadata and terminals. Secrets that a model holds are hidden exactly (`secrets_of`), others by the forms
in which providers write them. It changes no answer, calls no code of a model to find its secrets, and promises no more than
it can: of a secret that no model holds, or of a piece of one, what looks like prose passes.
"""

import json
import os
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MIN_SECRET_CHARS = 6
"""A shorter value is not hidden as a secret that a model holds: it would be cut out of ordinary words."""

MAX_SHOWN_CHARS = 20_000
"""Of a longer text of an error the beginning is shown: masking takes its time."""

_MAX_VISITED = 5_000
_MAX_DEPTH = 8
_WITHOUT_PARTS = (type, ModuleType, int, float, type(None))
_WITHOUT_SECRETS = frozenset({"_thread", "anyio", "asyncio", "h11", "h2", "logging", "ssl", "threading"})
"""Packages whose objects hold none that nothing else holds."""

_OF_HTTP = frozenset({"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"})
"""Packages whose connections and requests under way hold none either; clients have hundreds of them."""

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
_BARE_KEY = re.compile(r"(?<![A-Za-z0-9])(?P<vendor>sk-|AIza)[\w*-]{8,}")
_SECRET_NAME = re.compile(
    r"""authorization | auth $ | secret | passw | pwd $ | credential | cookie | key (?: [-_]? id )? $ | bearer | jwt
        | (?: api | access | auth | refresh | security | session ) [-_]? token | (?: ^ | [-_] ) pat $
        | (?: ^ | (?<! eos | bos | pad | sep | unk | cls ) (?<! mask | stop ) [-_] ) token $""",
    re.IGNORECASE | re.VERBOSE,
)


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """Hide keys, tokens and passwords in what a provider says; the rest stays as it is.

    Args:
        text: What it says.
        secrets: Values to hide wherever they stand, such as `secrets_of` finds.
    """
    text = _without(text, secrets)
    text = _CREDENTIALS.sub(r"\g<scheme>***", text)
    text = _BARE_KEY.sub(r"\g<vendor>***", text)
    return _NAMED_SECRET.sub(lambda found: f"{found['name']}{found['mark']}{found['quote'] or ''}***", text)


def _without(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "***")
    return text


def shown_text(text: str, secrets: Collection[str] = ()) -> str:
    """Hide secrets as `masked` does, in the beginning of a text where it is long."""
    return masked(_without(text, secrets)[:MAX_SHOWN_CHARS])  # in this order: a cut could leave most of a secret


def printable(text: str) -> str:
    """Put text on one line, with a space for each character that could steer the reader's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def secrets_of(model: object) -> frozenset[str]:
    """Find the secrets that a chat model holds, in every form in which a provider may repeat them.

    They are pydantic's secrets; texts under a name such as `api_key`, `Authorization` or `X-Gateway-Key`, in the model, its
    headers, its clients and the models within it; what its `lc_secrets` name in the environment; and credentials in URLs.
    A key that a function returns is found once a client holds it. Only attributes are read, of the first thousands of
    objects, the nearest first.

    Returns:
        Values of at least `MIN_SECRET_CHARS` characters; also as JSON, Python and URLs quote them.
    """
    found: set[str] = set()
    waiting: deque[tuple[str, Any, int]] = deque([("", model, 0)])
    seen: dict[int, Any] = {}  # with the object, so that its id stays its own
    for _ in range(_MAX_VISITED):
        if not waiting:
            break
        name, value, depth = waiting.popleft()
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            found.update(_credentials_of(value))
            if _SECRET_NAME.search(name):
                found.add(value)
                found.update(value.split(" ")[1:] if value.count(" ") == 1 else ())  # "Bearer …"
        elif depth < _MAX_DEPTH and id(value) not in seen and _may_hold_secrets(value):
            seen[id(value)] = value
            with suppress(Exception):  # foreign objects can refuse anything
                parts = islice(_parts_of(value), _MAX_VISITED)
                waiting.extend((part or name, inner, depth + 1) for part, inner in parts)
    return frozenset(form for secret in found if len(secret) >= MIN_SECRET_CHARS for form in _forms_of(secret))


def without_secrets(error: BaseException, secrets: Collection[str] = ()) -> BaseException:
    """Return an error as it may be shown, handed on and raised from.

    Args:
        error: The error, with those that led to it.
        secrets: Values to hide wherever they stand, such as `secrets_of` finds.

    Returns:
        The error itself where masking changes nothing that it or those that led to it say (text, notes, attributes,
        `response`), and none of these is longer than `MAX_SHOWN_CHARS`. Else a stand-in without a traceback: of the same class
        where that can be, with every text masked and cut to that length, a `ShownResponse`, and None for each other attribute
        that is no plain value.
    """
    chain = list(_chain_of(error))
    if all(_is_short(one) and _says_no_secret(one, secrets) for one in chain):
        return error
    stand_ins = {id(one): _stand_in(one, secrets) for one in chain}
    for one in chain:
        stand_in = stand_ins[id(one)]
        # In this order: naming a cause hides the context.
        stand_in.__cause__ = stand_ins.get(id(one.__cause__))
        stand_in.__context__ = stand_ins.get(id(one.__context__))
        stand_in.__suppress_context__ = one.__suppress_context__
    return stand_ins[id(error)]


@dataclass(frozen=True, slots=True)
class ShownResponse:
    """What a response said, its secrets masked.

    Attributes:
        status_code: HTTP status, None where it is unknown.
        headers: Headers, their names in small letters.
        text: The body, empty where it was not read.
    """

    status_code: int | None
    headers: dict[str, str]
    text: str


class StandInError(Exception):
    """What an error said, its secrets masked, where no error of its class can stand in for it.

    Attributes:
        status_code: HTTP status of the error, None where it had none.
        response: What its response said, None where it had none.
    """

    response: ShownResponse | None = None

    def __init__(self, words: str, *, status_code: int | None = None) -> None:
        self.status_code = status_code
        super().__init__(words)


def _may_hold_secrets(value: Any) -> bool:
    if isinstance(value, _WITHOUT_PARTS):
        return False
    name, package = type(value).__name__, type(value).__module__.partition(".")[0]
    is_under_way = package in _OF_HTTP and name.endswith(("Connection", "Request"))
    return package not in _WITHOUT_SECRETS and not is_under_way


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds, by name; a part without a name of its own goes by that of the whole."""
    if isinstance(value, Mapping):
        yield from ((str(name), inner) for name, inner in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (("", inner) for inner in value)
    elif hasattr(type(value), "get_secret_value"):
        yield "secret", value.get_secret_value()
    else:
        if hasattr(type(value), "lc_secrets"):
            yield from (("secret", os.environ.get(name)) for name in value.lc_secrets.values())
        yield from getattr(value, "__dict__", {}).items()
        slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
        for name in (name for names in slots for name in ([names] if isinstance(names, str) else names)):
            if name not in {"__dict__", "__weakref__"}:
                yield name.strip("_"), getattr(value, name, None)


def shown_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values as they may be shown, however deep: each secret is a digest, so that other secrets are other values.

    Secret is pydantic's secrets, what stands under a name such as `api_key` or `Authorization`, and credentials in URLs.
    """

    def shown(name: str, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            if _SECRET_NAME.search(name) and len(value) >= MIN_SECRET_CHARS:
                return _digest(value)
            for secret in _credentials_of(value):
                value = value.replace(secret, _digest(secret)) if len(secret) >= MIN_SECRET_CHARS else value
            return value
        if hasattr(type(value), "get_secret_value"):
            return _digest(str(value.get_secret_value()))
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            return {inner: shown(str(inner), one, depth + 1) for inner, one in value.items()}
        if depth < _MAX_DEPTH and type(value) in {list, tuple}:
            return type(value)(shown(name, one, depth + 1) for one in value)
        return value

    return {name: shown(name, value, 1) for name, value in values.items()}


def _digest(secret: str) -> str:
    return f"***{blake2b(secret.encode('utf-8', 'replace'), digest_size=6).hexdigest()}"


def _credentials_of(text: str) -> Iterator[str]:
    """Yield what of a URL is secret: password, or user where there is none, both as an HTTP header tells them, keys in its query."""
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


def _forms_of(secret: str) -> set[str]:
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and each one that it leads to, once, also where a traceback would not show it."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _says_no_secret(error: BaseException, secrets: Collection[str]) -> bool:
    try:
        said, held = _texts_of(error)
    except Exception:  # noqa: BLE001  # what does not tell what it says may say anything
        return False
    if any(masked(text, secrets) != text for text in said):
        return False
    # Of a header's numbers of tokens, or an attribute called `token`, nothing is to be masked: only what is known counts.
    return not any(secret in text for secret in secrets for text in held)


def _is_short(error: BaseException) -> bool:
    try:
        return all(len(text) <= MAX_SHOWN_CHARS for texts in _texts_of(error) for text in texts)
    except Exception:  # noqa: BLE001  # as above
        return False


def _texts_of(error: BaseException) -> tuple[list[str], list[str]]:
    """Return what an error says in words, and what else it holds."""
    said = [str(error), repr(error), repr(getattr(error, "body", None)), *getattr(error, "__notes__", ())]
    response = _response_of(error)
    answered = [] if response is None else [response.text, *response.headers, *response.headers.values()]
    return said, [repr(vars(error)), *answered]


def _response_of(error: BaseException) -> ShownResponse | None:
    """Read the response of an error, which may be any object, or none; nothing is masked yet. A mapping is like any attribute."""
    response: Any = getattr(error, "response", None)
    if response is None or isinstance(response, Mapping):
        return None
    status, headers, text = None, {}, ""
    with suppress(Exception):
        status = response.status_code
    with suppress(Exception):
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
    with suppress(Exception):  # one that was not read to its end
        text = str(response.text)
    return ShownResponse(status if type(status) is int else None, headers, text)


def _stand_in(error: BaseException, secrets: Collection[str]) -> BaseException:
    def plain(value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return shown_text(value, secrets)
        if depth < _MAX_DEPTH and type(value) in {list, tuple}:
            return type(value)(plain(one, depth + 1) for one in value)
        if depth < _MAX_DEPTH and type(value) is dict:
            return {plain(name, depth + 1): plain(one, depth + 1) for name, one in value.items()}
        return value if type(value) in {bool, int, float} else None

    if isinstance(error, BaseExceptionGroup):
        return BaseExceptionGroup(
            shown_text(error.message, secrets), [_stand_in(one, secrets) for one in error.exceptions]
        )
    words, response = "", _response_of(error)
    if response is not None:
        headers = {name: _without(value, secrets) for name, value in response.headers.items()}
        response = ShownResponse(response.status_code, headers, plain(response.text))
    with suppress(Exception):
        words = plain(str(error))
        make: Callable[..., BaseException] = type(error).__new__  # its __init__ may want anything
        stand_in = make(type(error), *plain(error.args))
        vars(stand_in).update(plain(vars(error)))
        if response is not None:
            vars(stand_in)["response"] = response
        if str(stand_in) == words and _says_no_secret(stand_in, secrets):
            return stand_in
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    other = StandInError(f"{name}: {words}" if words else name, status_code=status if type(status) is int else None)
    other.response = response
    return other

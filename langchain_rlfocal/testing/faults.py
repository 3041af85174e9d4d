"""Faults: how a server can meet a request, and what then goes over the wire.

A `Fault` says how one request is met. `play` turns it and the answer into bytes, in the form of OpenAI's chat completions:
whole, or as server-sent events. Nothing here opens a socket, waits, reads a clock or draws a random number: the same
request met by the same fault is the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, cycle, repeat
from typing import Any, Literal, get_args

from langchain_rlfocal.chat_models.metadata import text_pieces
from langchain_rlfocal.errors import InputError

Kind = Literal[
    "ok",
    "drop_before",
    "drop_at",
    "drop_after",
    "truncated",
    "status",
    "random_bytes",
    "wrong_shape",
    "web_page",
    "never_ends",
]
Ended = Literal["open", "answered", "dropped", "left", "closed"]

_NUM_RANDOM_BYTES = 4096

_DRIBBLE_S = 0.01
"""Least pause in a response that never ends: as fast as it could, it would fill the client's memory."""

_WRONG_SHAPE = {"object": "list", "data": []}
_WEB_PAGE = b"<!doctype html>\n<html><head><title>Sign in</title></head><body>Sign in to go on.</body></html>\n"
_JSON, _EVENTS, _HTML = "application/json", "text/event-stream; charset=utf-8", "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Fault:
    """How a request is met.

    Attributes:
        kind: One of:

            - `"ok"`: with the answer.
            - `"drop_before"`: the connection is closed before the first byte.
            - `"drop_at"`: closed after the head of the response; of a stream, after the event that names the role.
            - `"drop_after"`: closed after `after_tokens` tokens; of a whole answer, after half of its bytes.
            - `"truncated"`: HTTP ends in order, its JSON does not: half a body; of a stream, `after_tokens` tokens and
              half an event.
            - `"status"`: with an error of that `status`. One of 401 repeats the request's key, as OpenAI does in part.
            - `"random_bytes"`: 4,096 bytes of noise in place of JSON or events.
            - `"wrong_shape"`: JSON, but no completion.
            - `"web_page"`: with a page of HTML, as proxies and captive portals do.
            - `"never_ends"`: white space for ever; of a stream, the answer's words over and over. The pause between is
              10 ms or `token_pause_s`, whichever is longer.
        status: HTTP status of `"status"`, 400 to 599.
        code: The error's `code` in the body of `"status"`, for example `"context_length_exceeded"`.
        retry_after_s: What `Retry-After` asks for in the headers of `"status"`, in seconds. Of a fraction, `retry-after-ms`
            has the exact value and `Retry-After`, which HTTP wants whole, the next whole one. None sends neither.
        after_tokens: Tokens that a stream lets through before `"drop_after"` and `"truncated"`, at least 1.
        delay_s: Seconds before the first byte, or before the connection is closed without one.
        token_pause_s: Seconds between the events of a stream.

    Raises:
        InputError: A value is outside its range.
    """

    kind: Kind = "ok"
    status: int = 500
    code: str | None = None
    retry_after_s: float | None = None
    after_tokens: int = 1
    delay_s: float = 0.0
    token_pause_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"`kind` must be one of {', '.join(get_args(Kind))}, got {self.kind!r}.")
        if not 400 <= self.status <= 599:
            raise InputError(f"`status` must be that of an error, 400 to 599, got {self.status}. Success is `ok`.")
        if self.after_tokens < 1:
            raise InputError(
                f"`after_tokens` must be at least 1, got {self.after_tokens}. Before the first: `drop_at`."
            )
        for name in ("delay_s", "token_pause_s", "retry_after_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(
                    f"`{name}` must be finite and not negative, got {value}. For an answer that never comes: `never_ends`."
                )


@dataclass(frozen=True, slots=True)
class Received:
    """One request that the server received, without its key.

    Attributes:
        number: Its place among all requests of the server, from 1.
        model: The model asked for.
        question: Text of the last message from the user.
        attempt: Its place among the requests with this model and question, from 1.
        stream: Whether a stream was asked for.
        fault: How it was met.
        ended: `"open"` until it has ended; `"answered"` once a complete response is on its way, whatever it says;
            `"dropped"` where the fault closed the connection; `"left"` where the client did; `"closed"` where the server
            stopped.
    """

    number: int
    model: str
    question: str
    attempt: int
    stream: bool
    fault: Fault
    ended: Ended = "open"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the body of a request asks for.

    Attributes:
        model: The model's name.
        question: Text of the last message from the user, empty if there is none.
        prompt_tokens: One a word, over all messages.
        stream: Whether a stream is asked for.
        with_usage: Whether the stream shall end with the tokens used.
    """

    model: str
    question: str
    prompt_tokens: int
    stream: bool
    with_usage: bool


@dataclass(frozen=True, slots=True)
class Play:
    """What goes over the wire.

    Attributes:
        status: HTTP status; None closes the connection without a response.
        headers: Names in lower case, and values.
        pieces: The body, piece by piece; may be endless.
        pause_s: Seconds between pieces.
        drops: Whether the connection is closed after the last piece, with the body incomplete.
    """

    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterable[bytes] = ()
    pause_s: float = 0.0
    drops: bool = False


def read_request(body: bytes) -> ChatRequest:
    """Read the body of a request for a chat completion.

    Raises:
        InputError: It is none.
    """
    try:
        asked = json.loads(body)
        model, messages = str(asked["model"]), asked["messages"]
        texts = [(message["role"], _text_of(message.get("content"))) for message in messages]
        options = asked.get("stream_options") or {}
        with_usage = bool(options.get("include_usage"))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"The body must be JSON with `model` and `messages`, got {body[:80]!r}. Post what OpenAI's client posts."
        ) from error
    return ChatRequest(
        model=model,
        question=next((text for role, text in reversed(texts) if role == "user"), ""),
        prompt_tokens=sum(len(text.split()) for _, text in texts),
        stream=bool(asked.get("stream")),
        with_usage=with_usage,
    )


def _text_of(content: Any) -> str:
    """Join the text of a message's content: a string, a list of blocks, or nothing beside tool calls.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(content, list):
        return "".join(block.get("text") or "" for block in content)
    if content is not None and not isinstance(content, str):
        raise TypeError(type(content))
    return content or ""


def error_play(
    status: int, message: str, *, code: str | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> Play:
    """Make a response that says an error as OpenAI does."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return whole_play({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)


def whole_play(content: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Play:
    """Make a response of one piece of JSON."""
    return _in_full(_json(content), _JSON, status=status, headers=headers)


def play(request: ChatRequest, fault: Fault, answer: str, *, number: int, key: str) -> Play:
    """Say what meets a request.

    Args:
        request: The request.
        fault: How it is met.
        answer: What a right response says.
        number: The request's number, which completions bear as their id, and which seeds the noise.
        key: The key that the request came with, to be repeated in an error of status 401.
    """
    match fault.kind:
        case "drop_before":
            return Play(None)
        case "status":
            because = f" ({fault.code})" if fault.code else ""  # clients look for it in the message too
            message = f"A planned error {fault.status}{because}."
            if fault.status == 401:
                message = f"Incorrect API key provided: {key}."
            return error_play(fault.status, message, code=fault.code, headers=_retry_headers(fault.retry_after_s))
        case "random_bytes":
            noise = hashlib.shake_256(str(number).encode()).digest(_NUM_RANDOM_BYTES)
            return _in_full(noise, _EVENTS if request.stream else _JSON)
        case "web_page":
            return _in_full(_WEB_PAGE, _HTML)
    return _stream(request, fault, answer, number) if request.stream else _whole(request, fault, answer, number)


def _whole(request: ChatRequest, fault: Fault, answer: str, number: int) -> Play:
    message = {"role": "assistant", "content": answer}
    completion = _frame(request, number, "chat.completion", message=message, finish_reason="stop")
    body = _json({**completion, "usage": _usage(request, answer)})
    half = body[: len(body) // 2]
    match fault.kind:
        case "drop_at":
            return Play(200, _sized(body, _JSON), drops=True)
        case "drop_after":
            return Play(200, _sized(body, _JSON), (half,), drops=True)
        case "truncated":
            return _in_full(half, _JSON)
        case "wrong_shape":
            return whole_play(_WRONG_SHAPE)
        case "never_ends":
            return Play(200, (("content-type", _JSON),), repeat(b" "), max(_DRIBBLE_S, fault.token_pause_s))
    return _in_full(body, _JSON)


def _stream(request: ChatRequest, fault: Fault, answer: str, number: int) -> Play:
    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return _event(_frame(request, number, "chat.completion.chunk", delta=delta, finish_reason=finish_reason))

    headers = (("content-type", _EVENTS), ("cache-control", "no-cache"))
    role = event({"role": "assistant", "content": ""})
    tokens = [event({"content": piece}) for piece in text_pieces(answer)]
    stop = end = event({}, "stop")
    if request.with_usage:
        counts = _frame(request, number, "chat.completion.chunk") | {"choices": [], "usage": _usage(request, answer)}
        end += _event(counts)
    pieces: Iterable[bytes] = [role, *tokens, end + b"data: [DONE]\n\n"]
    begun = [role, *tokens[: fault.after_tokens]]
    match fault.kind:
        case "drop_at":
            return Play(200, headers, [role], drops=True)
        case "drop_after":
            return Play(200, headers, begun, fault.token_pause_s, drops=True)
        case "truncated":
            pieces = [*begun, stop[: len(stop) // 2] + b"\n\n"]
        case "wrong_shape":
            pieces = [_event(_WRONG_SHAPE), b"data: [DONE]\n\n"]
        case "never_ends":
            words = [event({"content": f"{word} "}) for word in answer.split() or ["and"]]
            return Play(200, headers, chain([role], cycle(words)), max(_DRIBBLE_S, fault.token_pause_s))
    return Play(200, headers, pieces, fault.token_pause_s)


def _frame(request: ChatRequest, number: int, form: str, **choice: Any) -> dict[str, Any]:
    """Make what a completion and its chunks have in common."""
    choices = [{"index": 0, "logprobs": None, **choice}]
    return {"id": f"chatcmpl-{number}", "object": form, "created": 0, "model": request.model, "choices": choices}


def _usage(request: ChatRequest, answer: str) -> dict[str, int]:
    written = len(answer.split())
    total = request.prompt_tokens + written
    return {"prompt_tokens": request.prompt_tokens, "completion_tokens": written, "total_tokens": total}


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")  # a client may send lone surrogates


def _event(content: Any) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _sized(body: bytes, content_type: str) -> tuple[tuple[str, str], ...]:
    return (("content-type", content_type), ("content-length", str(len(body))))


def _in_full(body: bytes, content_type: str, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Play:
    return Play(status, (*headers, *_sized(body, content_type)), (body,))


def _retry_headers(retry_after_s: float | None) -> tuple[tuple[str, str], ...]:
    if retry_after_s is None:
        return ()
    whole_s = math.ceil(retry_after_s)
    exact = () if whole_s == retry_after_s else (("retry-after-ms", f"{retry_after_s * 1000:.10g}"),)
    return (("retry-after", str(whole_s)), *exact)

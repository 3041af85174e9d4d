"""An OpenAI-compatible server on loopback that misbehaves as a script tells it to.

It shows what only a real connection can: one that breaks, one that stalls, one that the client leaves. It runs in a thread
and an event loop of its own, and does nothing by chance: the same request met by the same fault is the same bytes.
"""

import asyncio
import hashlib
import json
import math
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import chain, cycle, repeat
from typing import Any, Literal, Self

from langchain_openai import ChatOpenAI
from openai import DEFAULT_CONNECTION_LIMITS, DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import SecretStr

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

_CLOSING_S = 5.0
"""How long `close` waits for the server's thread, many times longer than it takes."""

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
            - `"never_ends"`: endless white space; of a stream, the answer's words over and over. The pause between is
              10 ms or `token_pause_s`, whichever is longer.
        status: HTTP status of `"status"`.
        code: The error's `code` in the body of `"status"`, for example `"context_length_exceeded"`.
        retry_after_s: What `Retry-After` says in the headers of `"status"`. Of a fraction, `retry-after-ms` has the exact
            value and `Retry-After`, which HTTP wants whole, the next whole one. None sends neither.
        after_tokens: Tokens that a stream lets through before `"drop_after"` and `"truncated"`.
        delay_s: Seconds before the first byte, or before the connection is closed without one.
        token_pause_s: Seconds between the events of a stream.
    """

    kind: Kind = "ok"
    status: int = 500
    code: str | None = None
    retry_after_s: float | None = None
    after_tokens: int = 1
    delay_s: float = 0.0
    token_pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """One chat request that the server received, without its key.

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


Answer = Callable[[str, str], str | Mapping[str, Any]]
Script = Mapping[str, Sequence[Fault]] | Callable[[str, str, int], Fault]


# ---- what goes over the wire


@dataclass(frozen=True, slots=True)
class _Response:
    """A response: no status closes the connection without one; `drops` closes it after the last piece, the body cut short."""

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterable[bytes] = ()
    pause_s: float = 0.0
    drops: bool = False


def _in_full(body: bytes, content_type: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> _Response:
    return _Response(status, (*headers, *_sized(body, content_type)), (body,))


def _sized(body: bytes, content_type: str) -> tuple[tuple[str, str], ...]:
    return (("content-type", content_type), ("content-length", str(len(body))))


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")  # a client may send lone surrogates


def _event(content: Any) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _error(status: int, message: str, code: str | None = None, headers: tuple[tuple[str, str], ...] = ()) -> _Response:
    """Say an error as OpenAI does."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return _in_full(_json({"error": error}), _JSON, status, headers)


class _Completion:
    """Responses to one request for a chat completion. Tokens are words."""

    def __init__(self, asked: Mapping[str, Any], answer: str | Mapping[str, Any], number: int) -> None:
        self.message = {"content": answer} if isinstance(answer, str) else answer
        answer = self.message["content"] or ""
        self.asked, self.answer, self.number = asked, answer, number
        prompt_tokens = sum(len(_text_of(message).split()) for message in asked["messages"])
        written = len(answer.split())
        total = prompt_tokens + written
        self.usage = {"prompt_tokens": prompt_tokens, "completion_tokens": written, "total_tokens": total}

    def met_by(self, fault: Fault, key: str) -> _Response:
        """Make the response; `key` is the one that the request came with."""
        match fault.kind:
            case "drop_before":
                return _Response(None)
            case "status":
                because = f" ({fault.code})" if fault.code else ""  # clients look for it in the message too
                message = f"A planned error {fault.status}{because}."
                if fault.status == 401:
                    message = f"Incorrect API key provided: {key}."
                return _error(fault.status, message, fault.code, _retry_headers(fault.retry_after_s))
            case "random_bytes":
                noise = hashlib.shake_256(str(self.number).encode()).digest(4096)
                return _in_full(noise, _EVENTS if self.asked.get("stream") else _JSON)
            case "web_page":
                return _in_full(_WEB_PAGE, _HTML)
        return self._stream(fault) if self.asked.get("stream") else self._whole(fault)

    def _frame(self, form: str, **choice: Any) -> dict[str, Any]:
        choices = [{"index": 0, "logprobs": None, **choice}]
        name = f"chatcmpl-{self.number}"
        return {"id": name, "object": form, "created": 0, "model": self.asked["model"], "choices": choices}

    def _whole(self, fault: Fault) -> _Response:
        message = {"role": "assistant", **self.message}
        body = _json({**self._frame("chat.completion", message=message, finish_reason="stop"), "usage": self.usage})
        half = body[: len(body) // 2]
        match fault.kind:
            case "drop_at":
                return _Response(headers=_sized(body, _JSON), drops=True)
            case "drop_after":
                return _Response(headers=_sized(body, _JSON), pieces=(half,), drops=True)
            case "truncated":
                return _in_full(half, _JSON)
            case "wrong_shape":
                return _in_full(_json(_WRONG_SHAPE), _JSON)
            case "never_ends":
                pause_s = max(_DRIBBLE_S, fault.token_pause_s)
                return _Response(headers=(("content-type", _JSON),), pieces=repeat(b" "), pause_s=pause_s)
        return _in_full(body, _JSON)

    def _stream(self, fault: Fault) -> _Response:
        def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
            return _event(self._frame("chat.completion.chunk", delta=delta, finish_reason=finish_reason))

        role = event({"role": "assistant", "content": ""})
        tokens = [event({"content": piece}) for piece in re.findall(r"\s*\S+\s?|\s+", self.answer)]
        stop = end = event({}, "stop")
        if (self.asked.get("stream_options") or {}).get("include_usage"):
            end += _event({**self._frame("chat.completion.chunk"), "choices": [], "usage": self.usage})
        begun = [role, *tokens[: fault.after_tokens]]
        pieces: Iterable[bytes] = [role, *tokens, end + b"data: [DONE]\n\n"]
        pause_s, drops = fault.token_pause_s, False
        match fault.kind:
            case "drop_at":
                pieces, drops = [role], True
            case "drop_after":
                pieces, drops = begun, True
            case "truncated":
                pieces = [*begun, stop[: len(stop) // 2] + b"\n\n"]
            case "wrong_shape":
                pieces = [_event(_WRONG_SHAPE), b"data: [DONE]\n\n"]
            case "never_ends":
                words = [event({"content": f"{word} "}) for word in self.answer.split()]
                pieces, pause_s = chain([role], cycle(words)), max(_DRIBBLE_S, pause_s)
        return _Response(headers=(("content-type", _EVENTS),), pieces=pieces, pause_s=pause_s, drops=drops)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content)


def _retry_headers(retry_after_s: float | None) -> tuple[tuple[str, str], ...]:
    if retry_after_s is None:
        return ()
    whole_s = math.ceil(retry_after_s)
    exact = () if whole_s == retry_after_s else (("retry-after-ms", f"{retry_after_s * 1000:.10g}"),)
    return (("retry-after", str(whole_s)), *exact)


# ---- the server


class FaultServer:
    """A server of `POST /v1/chat/completions`; a context manager. It is up once made, on a free port of this machine.

    Args:
        answer: Given the model and the question (the text of the last message from the user), what a right response says: its
            text, or a whole message in OpenAI's form, `content` and `tool_calls`, of which a stream has the text only.
        script: Given the model, the question and the attempt (1 for the first request with both), how the request is met.
            Or the faults of a model's requests by its name, in their order; all other requests get the answer. Both run on
            the server's loop and must not block; what they raise is met with status 500, and raised by `close`.

    Attributes:
        base_url: Where it listens, as `ChatOpenAI` takes it.

    Example:
        ```python
        with FaultServer(lambda model, question: "4", script={"small": [Fault("drop_after")]}) as server:
            with pytest.raises(Exception):
                server.model("small").invoke("What is 2 + 2?")
            assert [request.ended for request in server.received] == ["dropped"]
        ```
    """

    base_url: str

    def __init__(self, answer: Answer, *, script: Script | None = None) -> None:
        self._answer, self._script = answer, script or {}
        self._changed = threading.Condition()
        self._received: list[Received] = []
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._connections: set[asyncio.StreamWriter] = set()
        self._error: Exception | None = None
        # No proxy stands between a process and itself, and how many are asked at once is no client's to decide.
        limits = type(DEFAULT_CONNECTION_LIMITS)(max_connections=None)
        self._client = DefaultHttpxClient(trust_env=False, limits=limits)
        self._async_client = DefaultAsyncHttpxClient(trust_env=False, limits=limits)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._run, args=(listener,), name="rlfocal-fault-server", daemon=True)
        self._thread.start()

    @property
    def received(self) -> tuple[Received, ...]:
        """The chat requests received so far, in their order."""
        with self._changed:
            return tuple(self._received)

    @property
    def open_connections(self) -> int:
        """Connections open at this moment, idle ones included."""
        return len(self._connections)

    def model(self, name: str, **kwargs: Any) -> ChatOpenAI:
        """Make a chat model that talks to this server.

        It does not retry, waits at most 30 s for each byte, and opens a connection for each request, so that several event
        loops may use it. `kwargs` of `ChatOpenAI` override this.
        """
        settings: dict[str, Any] = {
            "api_key": SecretStr("none"),
            "max_retries": 0,
            "timeout": 30.0,
            "stream_usage": True,
            "default_headers": {"Connection": "close"},
            "http_client": self._client,
            "http_async_client": self._async_client,
        }
        return ChatOpenAI(**{"model": name, "base_url": self.base_url, **settings, **kwargs})

    def wait_until(self, predicate: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Wait until something holds of `received` or `open_connections`; asked again whenever one of them changes.

        What a client does reaches the server later: the request of a task that was cancelled has `"left"` only when the
        server has heard of it. From an event loop, wait in a thread: `await asyncio.to_thread(server.wait_until, ...)`.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout=timeout_s):
                raise TimeoutError(f"It must come within {timeout_s} s, but did not. {self._received}")

    def close(self) -> None:
        """Break all connections and free the port and the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_CLOSING_S)
            assert not self._thread.is_alive(), "`answer` or the script blocks the server."
        self._client.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- in the server's thread

    def _run(self, listener: socket.socket) -> None:
        self._loop.run_until_complete(self._serve(listener))
        self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connection, sock=listener, backlog=4096)
        await self._stop.wait()
        server.close()
        # A request whose connection is broken ends by itself, and so does a connection that was being accepted.
        async with asyncio.timeout(_CLOSING_S):
            while len(asyncio.all_tasks()) > 1 or self._connections:
                for connection in list(self._connections):
                    connection.transport.abort()
                await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection, one after the other."""
        with self._changed:
            self._connections.add(writer)
            self._changed.notify_all()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._request(reader, writer):
                    pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            with self._changed:
                self._connections.discard(writer)
                self._changed.notify_all()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; tell whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if first.split()[:2] == ["POST", "/v1/chat/completions"]:
            is_whole = await self._chat(json.loads(body), headers, reader, writer)
        else:
            is_whole = await _send(_error(404, f"Nothing is served at {first}."), reader, writer)
        return is_whole and headers.get("connection") != "close"

    async def _chat(
        self,
        asked: Mapping[str, Any],
        headers: Mapping[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        model, number = asked["model"], len(self._received) + 1
        question = next((_text_of(m) for m in reversed(asked["messages"]) if m["role"] == "user"), "")
        self._attempts[model, question] += 1
        attempt = self._attempts[model, question]
        try:
            fault = self._fault(model, question, attempt)
            key = headers.get("authorization", "").removeprefix("Bearer ")
            response = _Completion(asked, self._answer(model, question), number).met_by(fault, key)
        except Exception as error:  # noqa: BLE001  # a test's own code: what it raises belongs to the test
            self._error = self._error or error
            fault = Fault("status", status=500)
            response = _error(500, f"`answer` or the script raised {type(error).__name__}: {error}")
        with self._changed:
            self._received.append(Received(number, model, question, attempt, bool(asked.get("stream")), fault))
            self._changed.notify_all()

        def end(ended: Ended) -> None:
            with self._changed:
                if self._received[number - 1].ended == "open":
                    self._received[number - 1] = replace(self._received[number - 1], ended=ended)
                    self._changed.notify_all()

        response = replace(response, headers=(*response.headers, ("x-request-id", f"req-{number}")))
        try:
            return await _send(response, reader, writer, delay_s=fault.delay_s, end=end)
        finally:
            end("closed" if self._stop.is_set() else "left")

    def _fault(self, model: str, question: str, attempt: int) -> Fault:
        if callable(self._script):
            return self._script(model, question, attempt)
        faults = self._script.get(model, ())
        return faults[attempt - 1] if attempt <= len(faults) else Fault()


async def _send(
    response: _Response,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    delay_s: float = 0.0,
    end: Callable[[Ended], None] = lambda _: None,
) -> bool:
    """Send a response, unless the client leaves before; tell whether it was sent whole.

    `end` is told how it ended before the client can know.
    """
    gone = asyncio.ensure_future(_until_gone(reader))
    try:
        if delay_s and await _comes(gone, within_s=delay_s):
            return False
        if response.status is not None and not await _send_pieces(response, writer, gone, end):
            return False
        if response.drops or response.status is None:
            end("dropped")
            writer.transport.abort()
            return False
        return True
    finally:
        gone.cancel()
        await asyncio.wait({gone})  # one reader at a time


async def _send_pieces(
    response: _Response, writer: asyncio.StreamWriter, gone: "asyncio.Future[None]", end: Callable[[Ended], None]
) -> bool:
    is_sized = any(name == "content-length" for name, _ in response.headers)
    headers = response.headers if is_sized else (*response.headers, ("transfer-encoding", "chunked"))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    status = HTTPStatus(response.status or 200)
    writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode("latin-1"))
    pieces = iter(response.pieces)
    piece = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        if following is None and not response.drops:
            end("answered")
        writer.write(piece if is_sized else b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        if following is not None and await _comes(gone, within_s=response.pause_s):
            return False
        piece = following
    if not is_sized and not response.drops:
        writer.write(b"0\r\n\r\n")
    return True


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Wait until the client closes the connection; it sends nothing while it waits for a response."""
    with suppress(ConnectionError):
        await reader.read(1)


async def _comes(event: "asyncio.Future[None]", *, within_s: float) -> bool:
    """Wait for an event; tell whether it came. The loop turns at least once, so an endless response starves nobody."""
    await asyncio.wait({event}, timeout=within_s)
    return event.done()

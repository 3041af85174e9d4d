"""A fault server: an OpenAI-compatible server on loopback that misbehaves as it is told to.

It is for tests of what only a real connection shows: one that breaks, one that stalls, one that is left. Requests are met
as a script says, so that a test knows what came of each. It runs in a thread and an event loop of its own, stores no key,
writes no log, and does nothing by chance.
"""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langchain_openai import ChatOpenAI
from openai import DEFAULT_CONNECTION_LIMITS, DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import SecretStr
from typing_extensions import override

from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.testing.faults import Ended, Fault, Play, Received, error_play, play, read_request, whole_play

if TYPE_CHECKING:
    from uvicorn.server import ServerState

Answer = Callable[[str, str], str]
Script = Mapping[str, Sequence[Fault]] | Callable[[str, str, int], Fault]

_HOST = "127.0.0.1"
_BACKLOG = 4096

_IDLE_S = 3600
"""Idle connections are kept longer than any test takes: one that closes while it is used again is a fault of no script."""

_CLOSING_S = 5.0
"""How long `close` waits for the server's thread, many times longer than it takes."""

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


def _no_fault(model: str, question: str, attempt: int) -> Fault:  # noqa: ARG001  # the signature of a script
    return Fault()


class FaultServer:
    """A server that serves `POST /v1/chat/completions` and `GET /v1/models`; a context manager.

    It is up once made, on a free port of this machine only. Tokens are words.

    Args:
        answer: Given the model and the question (the text of the last message from the user), what a right response says.
        script: Given the model, the question and the attempt (1 for the first request with both), how the request is met.
            Or the faults of these attempts by the name of the model: those beyond the last, and those of other models, are
            met with the answer. `answer` and `script` run on the server's loop and must not block; what they raise is met
            with status 500 and raised by `close`.

    Attributes:
        base_url: Where it listens, as `ChatOpenAI` takes it.

    Raises:
        MissingDependencyError: uvicorn is not installed.

    Example:
        ```python
        with FaultServer(lambda model, question: "4", script={"small": [Fault("drop_after")]}) as server:
            with pytest.raises(Exception):
                server.model("small").invoke("What is 2 + 2?")
            assert [request.ended for request in server.received] == ["dropped"]
        ```
    """

    base_url: str

    def __init__(self, answer: Answer, *, script: Script = _no_fault) -> None:
        self._answer, self._script = answer, script
        self._changed = threading.Condition()
        self._received: list[Received] = []
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._models: set[str] = set() if callable(script) else set(script)
        self._error: Exception | None = None
        self._state, protocol = _http(self._app, self._notify)
        listener = socket.create_server((_HOST, 0), backlog=_BACKLOG)
        self.base_url = f"http://{_HOST}:{listener.getsockname()[1]}/v1"
        # No proxy stands between a process and itself, and how many are asked at once is no client's to decide. The class
        # is that of the HTTP library beneath the installed openai.
        limits = type(DEFAULT_CONNECTION_LIMITS)(max_connections=None)
        self._client = DefaultHttpxClient(trust_env=False, limits=limits)
        self._async_client = DefaultAsyncHttpxClient(trust_env=False, limits=limits)
        self._stop = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(
            target=self._run, args=(listener, protocol), name="rlfocal-fault-server", daemon=True
        )
        self._thread.start()

    @property
    def received(self) -> tuple[Received, ...]:
        """The chat requests received so far, in their order; a copy, which does not change."""
        with self._changed:
            return tuple(self._received)

    @property
    def open_connections(self) -> int:
        """Connections open at this moment, idle ones included."""
        return len(self._state.connections)

    def model(self, name: str, **kwargs: Any) -> ChatOpenAI:
        """Make a chat model that talks to this server.

        It does not retry, waits at most 30 s for each byte, and opens a connection for each request, so that it may be
        used from several event loops.

        Args:
            name: The model's name, as `answer` and the script see it.
            kwargs: Arguments of `ChatOpenAI`, in place of these.
        """
        self._models.add(name)
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

        Raises:
            TimeoutError: It does not hold within `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout=timeout_s):
                raise TimeoutError(
                    f"What is waited for must come within {timeout_s} s, but did not. {self!r} received {self._received}."
                )

    def close(self) -> None:
        """Break all connections and free the port and the thread; a second call does nothing.

        Raises:
            TimeoutError: The server's thread does not end, because `answer` or the script blocks it.
            Exception: What `answer` or the script raised first.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_CLOSING_S)
            if self._thread.is_alive():
                raise TimeoutError(
                    f"`answer` and the script must return at once, but one has blocked the server for {_CLOSING_S} s. "
                    "Let a fault wait: `Fault(delay_s=...)`."
                )
        self._client.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self._thread.is_alive() else "closed"
        return f"FaultServer({state}, {self.base_url}, received={len(self._received)})"

    # ---- in the server's thread

    def _run(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        with self._runner:
            self._runner.run(self._serve(listener, protocol))

    async def _serve(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        server = await self._loop.create_server(protocol, sock=listener, backlog=_BACKLOG)
        await self._stop.wait()
        server.close()
        # A request whose connection is broken ends by itself, and so does a connection that was being accepted.
        async with asyncio.timeout(_CLOSING_S):
            while len(asyncio.all_tasks()) > 1 or self._state.connections:
                for connection in list(self._state.connections):
                    connection.transport.abort()
                await asyncio.sleep(0)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _app(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Serve one request: the ASGI application."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        exchange = _Exchange(scope["state"]["transport"], receive, send)
        match scope["method"], scope["path"]:
            case "POST", "/v1/chat/completions":
                await self._chat(exchange, body, key=_key_in(scope["headers"]))
            case "GET", "/v1/models":
                models = [
                    {"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in sorted(self._models)
                ]
                await exchange.run(whole_play({"object": "list", "data": models}))
            case method, path:
                await exchange.run(error_play(404, f"Nothing is served at {method} {path}."))

    async def _chat(self, exchange: "_Exchange", body: bytes, *, key: str) -> None:
        try:
            request = read_request(body)
        except InputError as error:
            await exchange.run(error_play(400, str(error)))
            return
        model, question, number = request.model, request.question, len(self._received) + 1
        self._models.add(model)
        self._attempts[model, question] += 1
        attempt = self._attempts[model, question]
        try:
            fault = self._fault(model, question, attempt)
            planned = play(request, fault, self._answer(model, question), number=number, key=key)
        except Exception as error:  # noqa: BLE001  # a test's own code: what it raises belongs to the test
            self._error = self._error or error
            fault = Fault("status", status=500)
            planned = error_play(500, f"`answer` or the script raised {type(error).__name__}: {error}")
        with self._changed:
            self._received.append(Received(number, model, question, attempt, request.stream, fault))
            self._changed.notify_all()

        def end(ended: Ended) -> None:
            with self._changed:
                self._received[number - 1] = replace(self._received[number - 1], ended=ended)
                self._changed.notify_all()

        planned = replace(planned, headers=(*planned.headers, ("x-request-id", f"req-{number}")))
        if not await exchange.run(planned, delay_s=fault.delay_s, end=end):
            end("closed" if self._stop.is_set() else "left")

    def _fault(self, model: str, question: str, attempt: int) -> Fault:
        if callable(self._script):
            fault = self._script(model, question, attempt)
            if not isinstance(fault, Fault):
                raise InputError(f"The script must return a Fault, got {fault!r}. For an answer, `Fault()`.")
            return fault
        faults = self._script.get(model, ())
        return faults[attempt - 1] if attempt <= len(faults) else Fault()


class _Exchange:
    """One request's response on its way: sends, waits, and notices when the other side has gone."""

    def __init__(self, transport: asyncio.Transport, receive: _Receive, send: _Send) -> None:
        self._transport, self._receive, self._send = transport, receive, send

    async def run(self, planned: Play, *, delay_s: float = 0.0, end: Callable[[Ended], None] = lambda _: None) -> bool:
        """Send a response.

        Args:
            planned: What to send.
            delay_s: Seconds to wait before.
            end: Told how it ended, before the client can know.

        Returns:
            Whether it was sent as planned; False if the connection was lost before.
        """
        gone = asyncio.ensure_future(self._until_gone())
        if delay_s and await _comes(gone, within_s=delay_s):
            return False
        if planned.status is not None and not await self._send_pieces(planned, planned.status, gone, end):
            return False
        if planned.drops or planned.status is None:
            end("dropped")
            self._transport.abort()
        # It comes with the end of a response too. An app that returns before a broken connection is gone has forgotten
        # to respond, says uvicorn in a log.
        await gone
        return True

    async def _send_pieces(
        self, planned: Play, status: int, gone: "asyncio.Future[None]", end: Callable[[Ended], None]
    ) -> bool:
        headers = [(name.encode(), value.encode()) for name, value in planned.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        pieces = iter(planned.pieces)
        piece = next(pieces, b"")
        for following in pieces:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if await _comes(gone, within_s=planned.pause_s):
                return False
            piece = following
        if not planned.drops:
            end("answered")
        await self._send({"type": "http.response.body", "body": piece, "more_body": planned.drops})
        return True

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _comes(event: "asyncio.Future[None]", *, within_s: float) -> bool:
    """Wait for an event; tell whether it came. The loop turns at least once, so an endless response starves nobody."""
    await asyncio.wait({event}, timeout=within_s)
    return event.done()


def _key_in(headers: Sequence[tuple[bytes, bytes]]) -> str:
    return dict(headers).get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")


def _http(app: Callable[..., Any], changed: Callable[[], None]) -> tuple["ServerState", Callable[[], asyncio.Protocol]]:
    """Make uvicorn's HTTP for an app: the connections that it serves, and what serves each.

    Not its server, which logs, installs signal handlers, and takes its time to stop.

    Raises:
        MissingDependencyError: uvicorn is not installed.
    """
    try:
        from uvicorn.config import Config  # noqa: PLC0415  # an extra, needed by those alone who start a server
        from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415  # as above
        from uvicorn.server import ServerState  # noqa: PLC0415  # as above
    except ImportError as error:
        raise MissingDependencyError(
            "A fault server needs uvicorn: `pip install 'langchain-rlfocal[testing]'`."
        ) from error

    class Connection(H11Protocol):
        """A connection that the app can break, for which ASGI has no message."""

        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
            super().connection_made(transport)
            self.access_log = False
            self.app_state = {"transport": transport}
            changed()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            changed()

    # `access_log=False` would silence the access log of the whole process, as any `log_config` would change its logs.
    config = Config(
        app,
        http=Connection,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
    )
    state = ServerState()
    return state, lambda: Connection(config, state, {})

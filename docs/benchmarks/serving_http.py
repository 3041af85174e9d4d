"""Members that imitate a provider, and a client, both of them light enough to load a server from the same machine.

Both speak HTTP/1.1 over `asyncio.Protocol`, since a library's client takes as much of the processor as what is to be measured.
A member thinks for `LATENCY_S` (log-normal by a hash of member, question and attempt, so that every run meets the same), and a
fifth of the requests meets a fault, by a hash as well:

- `429`: HTTP 429 with `Retry-After: 1`, at once; `500`: HTTP 500, at once;
- `drop`: the connection is closed after half of the time, without a response; `torn`: in the middle of the response;
- `slow`: four times as long.

A question that begins with "Echo" is answered at once and never meets a fault: with it the two measure themselves.
"""

import asyncio
import contextlib
import json
import math
import multiprocessing
import resource
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from statistics import NormalDist
from typing import Any, Self

from overload import HOST, said_by, share_of

FAULTS = {"429": 0.05, "500": 0.05, "drop": 0.04, "torn": 0.02, "slow": 0.04}
"""Share of the requests that meet each."""

MEDIAN_S, SPREAD, SHORTEST_S, LONGEST_S = 0.65, 0.25, 0.4, 1.2
"""A member's thinking: half of its answers take longer than the first; the standard deviation of the logarithm; bounds."""

SLOWER = 4.0


def latency_s_of(*parts: object) -> float:
    """Draw how long a member thinks."""
    drawn = NormalDist(math.log(MEDIAN_S), SPREAD).inv_cdf(min(max(share_of("latency", *parts), 1e-6), 1 - 1e-6))
    return min(max(math.exp(drawn), SHORTEST_S), LONGEST_S)


def fault_of(share_of_faults: float, *parts: object) -> str | None:
    """Draw which fault a request meets; None for none."""
    drawn, bound = share_of("fault", *parts), 0.0
    for kind, share in FAULTS.items():
        bound += share * share_of_faults / sum(FAULTS.values())
        if drawn < bound:
            return kind
    return None


def allow_many_connections() -> None:
    """Allow this process as many open files as the system does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Split a head into its first line and its headers, names in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


# ---- the members, in a process of their own


@dataclass(slots=True)
class Log:
    """What reached the members.

    Attributes:
        requests: How many requests.
        ends: What they were met with.
        open: Requests that are being worked on.
        most_open: The most of them at a time.
        by_question: Requests of each question.
    """

    requests: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    open: int = 0
    most_open: int = 0
    by_question: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Write it down."""
        numbers = {"requests": self.requests, "open": self.open, "most_open": self.most_open}
        return {**numbers, "ends": self.ends, "by_question": self.by_question}


class MemberConnection(asyncio.Protocol):
    """One connection of a member's; it serves one request after the other."""

    def __init__(self, members: "Members") -> None:
        self._members, self._log = members, members.log
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._pending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._members.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Stop working for who has left."""
        self._members.connections.discard(self)
        if self._pending is not None:
            self._pending.cancel()
            self._end("left")

    def data_received(self, data: bytes) -> None:
        """Take a request in once it is whole."""
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        first, headers = parse_head(head)
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return
        self._received = rest[size:]
        self._request(first, rest[:size])

    def _request(self, first: str, body: bytes) -> None:
        if first.startswith("GET"):
            return self._write(200, json.dumps(self._log.as_json()).encode())
        if first.startswith("DELETE"):
            self._members.forget()
            self._log = self._members.log
            return self._write(200, b"{}")
        asked = json.loads(body)
        member, question = asked["model"], asked["messages"][-1]["content"]
        if not isinstance(question, str):
            question = "".join(block.get("text", "") for block in question)
        log = self._log = self._members.log
        log.requests += 1
        log.open += 1
        log.most_open = max(log.most_open, log.open)
        log.by_question[question] += 1
        if question.startswith("Echo"):
            self._later(0.0, "answered", asked, question)
            return None
        self._members.attempts[member, question] += 1
        drawn = (member, question, self._members.attempts[member, question])
        latency_s = latency_s_of(*drawn)
        match fault := fault_of(self._members.share_of_faults, *drawn):
            case "429" | "500":
                self._later(0.0, fault, asked, question)
            case "drop":
                self._later(latency_s / 2, fault, asked, question)
            case "slow":
                self._later(SLOWER * latency_s, fault, asked, question)
            case _:
                said = said_by(member, int(question.split()[4]))
                self._later(latency_s, fault or "answered", asked, said)
        return None

    def _later(self, delay_s: float, end: str, asked: Mapping[str, Any], said: str) -> None:
        if end == "slow":
            said = said_by(asked["model"], int(said.split()[4]))
        self._pending = asyncio.get_running_loop().call_later(delay_s, self._respond, end, asked, said)

    def _end(self, kind: str) -> None:
        self._pending = None
        self._log.open -= 1
        self._log.ends[kind] += 1

    def _respond(self, end: str, asked: Mapping[str, Any], said: str) -> None:
        assert self._transport is not None
        self._end(end)
        if end == "drop":
            self._transport.abort()
        elif end in {"429", "500"}:
            body = {"error": {"message": "A fault of the scenario.", "type": "server_error", "code": None}}
            self._write(int(end), json.dumps(body).encode())
        elif asked.get("stream"):
            self._stream(asked, said, is_torn=end == "torn")
        else:
            self._write(200, self._body(asked, said), is_torn=end == "torn")

    @staticmethod
    def _body(asked: Mapping[str, Any], said: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": asked["model"]}
        usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
        return json.dumps({**frame, "choices": [choice], "usage": usage}).encode()

    def _write(self, status: int, body: bytes, *, is_torn: bool = False) -> None:
        assert self._transport is not None
        again = "Retry-After: 1\r\n" if status == 429 else ""
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n{again}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + (body[: len(body) // 2] if is_torn else body))
        if is_torn:
            self._transport.close()

    def _stream(self, asked: Mapping[str, Any], said: str, *, is_torn: bool) -> None:
        assert self._transport is not None
        frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}

        def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            return b"data: " + json.dumps({**frame, "choices": [choice]}).encode() + b"\n\n"

        half = len(said) // 2
        pieces = [event({"role": "assistant", "content": ""}), event({"content": said[:half]})]
        if not is_torn:
            usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
            last = b"data: " + json.dumps({**frame, "choices": [], "usage": usage}).encode() + b"\n\n"
            pieces += [event({"content": said[half:]}), event({}, "stop"), last, b"data: [DONE]\n\n"]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(head + body + (b"" if is_torn else b"0\r\n\r\n"))
        if is_torn:
            self._transport.close()


@dataclass(slots=True)
class Members:
    """What the connections of all members share."""

    share_of_faults: float
    log: Log = field(default_factory=Log)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    connections: set[MemberConnection] = field(default_factory=set)

    def forget(self) -> None:
        """Begin the log again; what is being worked on is counted in the old one."""
        self.log = Log()
        self.attempts.clear()


def _serve(ready: Connection, share_of_faults: float) -> None:
    allow_many_connections()

    async def main() -> None:
        members = Members(share_of_faults)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: MemberConnection(members), HOST, 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


class MemberServer:
    """The members' process, which ends with the `with` block."""

    def __init__(self, *, share_of_faults: float = sum(FAULTS.values())) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, share_of_faults), daemon=True)
        self._process.start()
        if not ours.poll(60):
            raise TimeoutError("The members must listen within 60 s, but have not said that they do.")
        self.port: int = ours.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def base_url(self) -> str:
        """Where they listen."""
        return f"http://{HOST}:{self.port}/v1"

    def log(self) -> dict[str, Any]:
        """Return what reached the members since `forget`, as `Log` has it."""
        return self._control("GET")

    def forget(self) -> None:
        """Begin the log and the count of attempts again."""
        self._control("DELETE")

    def _control(self, method: str) -> dict[str, Any]:
        connection = HTTPConnection(HOST, self.port)
        with contextlib.closing(connection):
            connection.request(method, "/log")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
            return said


# ---- the client


class ConnectionBrokenError(Exception):
    """The connection ended before the response did.

    Attributes:
        received: What had come of the body.
        has_begun: True if a response had begun.
    """

    def __init__(self, received: bytes, *, has_begun: bool) -> None:
        self.received, self.has_begun = received, has_begun
        super().__init__(f"after {len(received)} bytes" if has_begun else "before a response")


@dataclass(slots=True)
class Response:
    """What a server said; `first_s` is the time of its first byte, on the loop's clock."""

    status: int
    headers: dict[str, str]
    body: bytes
    first_s: float


class ClientConnection(asyncio.Protocol):
    """One connection of a client's; one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.num_asked = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._received = bytearray()
        self._response: Response | None = None
        self._left: int | None = None  # bytes of the body that are to come; None where it comes in chunks
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell who waits."""
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            error = ConnectionBrokenError(bytes(self._body), has_begun=self._response is not None)
            self._waiter.set_exception(error)

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.abort()
        self.is_open = False

    def ask(self, request: bytes) -> "asyncio.Future[Response]":
        """Send a request."""
        assert self._transport is not None
        self.num_asked += 1
        self._waiter = self._loop.create_future()
        self._received.clear()
        self._body = bytearray()
        self._response, self._left = None, None
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        """Take a response in."""
        self._received += data
        if self._response is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            first, headers = parse_head(bytes(self._received[:end]))
            del self._received[: end + 4]
            self._response = Response(int(first.split()[1]), headers, b"", self._loop.time())
            size = headers.get("content-length")
            self._left = None if size is None else int(size)
        if self._left is not None:
            self._body += self._received
            self._left -= len(self._received)
            self._received.clear()
            if self._left <= 0:
                self._end()
        else:
            self._take_chunks()

    def _take_chunks(self) -> None:
        while (line := self._received.find(b"\r\n")) >= 0:
            size = int(self._received[:line], 16)
            if len(self._received) < line + 2 + size + 2:
                return
            self._body += self._received[line + 2 : line + 2 + size]
            del self._received[: line + 2 + size + 2]
            if size == 0:
                self._end()
                return

    def _end(self) -> None:
        assert self._response is not None
        self._response.body = bytes(self._body)
        if self._response.headers.get("connection") == "close":
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._response)


class Client:
    """Asks one server, over connections that it keeps."""

    def __init__(self, port: int, *, headers: Mapping[str, str] | None = None) -> None:
        self._port = port
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._idle: list[ClientConnection] = []

    async def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float) -> Response:
        """Ask, and wait for the whole response.

        A kept connection that the server has closed meanwhile is replaced, as every client does.

        Raises:
            ConnectionBrokenError: The connection ended before the response did.
            TimeoutError: The response was not whole in time.
            OSError: Nobody listens.
        """
        content = json.dumps(body).encode()
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\nContent-Type: application/json\r\n{self._headers}"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        async with asyncio.timeout(timeout_s):
            while True:
                connection = await self._connection()
                is_new = connection.num_asked == 0
                try:
                    response = await connection.ask(request)
                except ConnectionBrokenError as error:
                    if is_new or error.has_begun:
                        raise
                    continue
                except asyncio.CancelledError:
                    connection.close()
                    raise
                if connection.is_open:
                    self._idle.append(connection)
                return response

    async def _connection(self) -> ClientConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(ClientConnection, HOST, self._port)
        return made

    def close(self) -> None:
        """Close all connections that nobody uses."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

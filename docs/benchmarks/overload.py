"""What is answered when more is asked than can be answered: three members asked bare, and the same three in an ensemble.

    python docs/benchmarks/overload.py [--mode tasks threads] [--answers 800] [--in-flight 400] [--capacity-per-s 40]

A server in a process of its own imitates a provider: it works on `--places` requests at a time, each for `--latency-s`; twice
as many may wait, and what comes beyond is refused with HTTP 429 and `Retry-After: 1`. A fifth of the requests meets a fault by
a hash of member, question and attempt: HTTP 500, HTTP 429 with `Retry-After: 1`, or no answer at all. A member is right about
85 % of the questions, about which ones is a hash as well.

"Bare" asks all three at once by `ChatOpenAI(timeout=2, max_retries=0)` and takes the most frequent of what came; of equals, the
first member's. It has no answer where no member has one. "Ensemble" is `RLFocalChatModel` over members made alike, with
`timeout=2` and else its defaults, so that it may retry; all three are asked in one round. Both are asked the same questions:

- burst: `--in-flight` answers at a time, the next begins when one has ended;
- 1x, 2x, 4x: answers begin at a steady rate, whether or not others have ended, at one, two and four times capacity.

Capacity is how many answers a second bare gives at most with 16, 32 or 64 in flight; it is measured first, unless it is given. Tasks are `ainvoke` on one event loop; threads are `invoke` in a pool of `--in-flight` threads, where
what begins later waits for one, and that counts. Latency is from when an answer was to begin. "Refused" are answers that ended in
an error before any of their requests reached the server.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from typing import Any, Literal, Self

import numpy as np
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import SecretStr

from langchain_rlfocal import RLFocalChatModel, RLFocalError

HOST = "127.0.0.1"
MEMBERS = ("first", "second", "third")
TIMEOUT_S = 2.0
ACCURACY = 0.85
FAULTS = {"500": 0.08, "429": 0.06, "hang": 0.06}

CALM = (16, 32, 64)
"""Answers in flight that leave most requests in time, at which capacity is measured."""

Mode = Literal["tasks", "threads"]
SideName = Literal["bare", "ensemble"]


def share_of(*parts: object) -> float:
    """Hash to [0, 1)."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=6).digest(), "big") / 2**48


def right_answer(number: int) -> str:
    """Return what the question of this number has as its answer."""
    return str(3 * number + 1000)


def question_of(number: int) -> str:
    """Write the question of this number."""
    return f"What is 3 times {number} plus 1000? Answer with the number alone."


def said_by(member: str, number: int) -> str:
    """Return what a member answers."""
    is_right = share_of(member, number) < ACCURACY
    return right_answer(number) if is_right else str(3 * number + 1001 + MEMBERS.index(member))


# ---- the server, in a process of its own


@dataclass(slots=True)
class Provider:
    """A server of chat completions that does so much at a time and no more.

    Attributes:
        num_places: Requests that are worked on at a time; twice as many may wait.
        latency_s: Seconds that each takes.
        share_of_faults: Share of the requests that meet a fault.
    """

    num_places: int
    latency_s: float
    share_of_faults: float
    places: asyncio.Semaphore = field(init=False)
    waiting: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by question."""
    ends: Counter[str] = field(default_factory=Counter)
    """What requests were met with."""
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Make the places."""
        self.places = asyncio.Semaphore(self.num_places)

    async def serve(self, ready: Connection) -> None:
        """Serve until the process is ended; sends the port when it listens."""
        server = await asyncio.start_server(self.connection, HOST, 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection, one after the other."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if head[0].startswith("GET"):
                    status, said = 200, {"seen": self.seen, "ends": self.ends}
                elif head[0].startswith("DELETE"):
                    for counts in (self.seen, self.ends, self.attempts):
                        counts.clear()
                    status, said = 200, {}
                else:
                    status, said = await self.completion(json.loads(body), reader)
                content = json.dumps(said).encode()
                again = "Retry-After: 1\r\n" if status == 429 else ""
                writer.write(
                    f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n{again}"
                    f"Content-Length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        writer.close()

    async def completion(self, asked: dict[str, Any], reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
        """Answer one request: status and body."""
        member, question = asked["model"], asked["messages"][-1]["content"]
        self.seen[question] += 1
        self.attempts[member, question] += 1
        drawn = share_of("fault", member, question, self.attempts[member, question])
        bounds = np.cumsum(list(FAULTS.values())) * self.share_of_faults / sum(FAULTS.values())
        if drawn < bounds[-1]:
            kind = list(FAULTS)[int(np.searchsorted(bounds, drawn, side="right"))]
            self.ends[kind] += 1
            if kind == "hang":
                await reader.read(1)  # until the client leaves
                raise ConnectionResetError
            return int(kind), {"error": {"message": "A fault of the scenario.", "type": "server_error", "code": None}}
        if self.waiting >= 2 * self.num_places:
            self.ends["too many"] += 1
            return 429, {"error": {"message": "Too many requests.", "type": "requests", "code": "rate_limit_exceeded"}}
        self.waiting += 1
        async with self.places:
            self.waiting -= 1
            if reader.at_eof():
                self.ends["left while waiting"] += 1
                raise ConnectionResetError
            await asyncio.sleep(self.latency_s)
        self.ends["left" if reader.at_eof() else "answered"] += 1
        number = int(question.split()[4])
        message = {"role": "assistant", "content": said_by(member, number)}
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": member,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13},
        }


def _serve(ready: Connection, settings: dict[str, Any]) -> None:
    _allow_many_connections()

    async def main() -> None:
        await Provider(**settings).serve(ready)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server:
    """The process of a `Provider`, which ends with the `with` block."""

    def __init__(self, *, num_places: int, latency_s: float, share_of_faults: float = sum(FAULTS.values())) -> None:
        settings = {"num_places": num_places, "latency_s": latency_s, "share_of_faults": share_of_faults}
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        self._process.start()
        if not ours.poll(60):
            raise TimeoutError("The server must listen within 60 s, but has not said that it does.")
        self.port: int = ours.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def log(self) -> dict[str, dict[str, int]]:
        """Return how many requests each question led to (`seen`), and what requests were met with (`ends`)."""
        return self._control("GET")

    def forget(self) -> None:
        """Begin the log again."""
        self._control("DELETE")

    def _control(self, method: str) -> dict[str, dict[str, int]]:
        connection = HTTPConnection(HOST, self.port)
        with contextlib.closing(connection):
            connection.request(method, "/log")
            said: dict[str, dict[str, int]] = json.loads(connection.getresponse().read())
            return said

    @contextlib.contextmanager
    def members(self) -> Iterator[dict[str, ChatOpenAI]]:
        """Make the members for use in threads."""
        with DefaultHttpxClient(trust_env=False) as client:
            yield self._members(http_client=client)

    @contextlib.asynccontextmanager
    async def async_members(self) -> AsyncIterator[dict[str, ChatOpenAI]]:
        """Make the members for use on this event loop."""
        async with DefaultAsyncHttpxClient(trust_env=False) as client:
            yield self._members(http_async_client=client)

    def _members(self, **clients: Any) -> dict[str, ChatOpenAI]:
        shared: dict[str, Any] = {
            "base_url": f"http://{HOST}:{self.port}/v1",
            "api_key": SecretStr("none"),
            "timeout": TIMEOUT_S,
            "max_retries": 0,
            **clients,
        }
        return {name: ChatOpenAI(model=name, **shared) for name in MEMBERS}


# ---- the two sides


class NobodyAnsweredError(Exception):
    """No member asked bare has answered."""


def vote(answers: Sequence[AIMessage | BaseException]) -> str:
    """Return the most frequent answer, of equals the first member's."""
    texts = [one.text for one in answers if isinstance(one, AIMessage)]
    if not texts:
        raise NobodyAnsweredError
    return str(Counter(texts).most_common(1)[0][0])


def make_ensemble(members: dict[str, ChatOpenAI], **settings: Any) -> RLFocalChatModel:
    """Make the ensemble under test."""
    given = {"timeout": TIMEOUT_S, "max_team": len(members), "max_rounds": 1, **settings}
    return RLFocalChatModel(members=dict(members), **given)


def in_tasks(side: SideName, members: dict[str, ChatOpenAI], **settings: Any) -> Callable[[str], Awaitable[str]]:
    """Make what answers a question on an event loop."""
    if side == "ensemble":
        model = make_ensemble(members, **settings)

        async def ask(question: str) -> str:
            return str((await model.ainvoke(question)).text)
    else:

        async def ask(question: str) -> str:
            calls = (member.ainvoke(question) for member in members.values())
            return vote(await asyncio.gather(*calls, return_exceptions=True))

    return ask


def in_threads(
    side: SideName, members: dict[str, ChatOpenAI], pool: ThreadPoolExecutor, **settings: Any
) -> Callable[[str], str]:
    """Make what answers a question in a thread; members asked bare have a pool of their own."""
    if side == "ensemble":
        model = make_ensemble(members, **settings)
        return lambda question: str(model.invoke(question).text)

    def ask(question: str) -> str:
        calls = [pool.submit(member.invoke, question) for member in members.values()]
        return vote([call.exception() or call.result() for call in calls])

    return ask


# ---- asking


@dataclass(slots=True)
class Ended:
    """How one answer ended; `latency_s` is from when it was to begin."""

    number: int
    latency_s: float
    answer: str | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How answers begin: at a rate, or, where that is None, so many in flight."""

    num_answers: int
    in_flight: int
    per_s: float | None = None


@dataclass(slots=True)
class Run:
    """What came of a load."""

    ended: list[Ended]
    took_s: float
    log: dict[str, dict[str, int]]

    @property
    def served(self) -> list[Ended]:
        """Those that were answered, rightly or not."""
        return [one for one in self.ended if one.answer is not None]

    @property
    def num_right(self) -> int:
        """How many were answered rightly."""
        return sum(one.answer == right_answer(one.number) for one in self.served)

    @property
    def refused(self) -> list[Ended]:
        """Those that ended in an error before a request of theirs reached the server."""
        seen = self.log["seen"]
        return [one for one in self.ended if one.error is not None and not seen.get(question_of(one.number))]

    @property
    def num_requests(self) -> int:
        """Requests that reached the server."""
        return sum(self.log["seen"].values())

    @property
    def errors(self) -> Counter[str]:
        """Errors by class, and whether they say that asking again may help."""
        return Counter(describe(one.error) for one in self.ended if one.error is not None)


def describe(error: BaseException) -> str:
    """Name an error's class as it is published, and say whether asking again may help."""
    public = RLFocalError.__module__
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == public), type(error).__name__)
    return f"{name} ({'retryable' if getattr(error, 'is_retryable', False) else 'not retryable'})"


async def run_tasks(ask: Callable[[str], Awaitable[str]], load: Load, first: int) -> list[Ended]:
    """Ask in tasks; questions are numbered from `first`."""
    loop, places = asyncio.get_running_loop(), asyncio.Semaphore(load.in_flight)
    begin_s = loop.time()

    async def one(number: int, due_s: float | None) -> Ended:
        start_s = loop.time() if due_s is None else due_s
        try:
            said = await ask(question_of(number))
        except Exception as error:  # noqa: BLE001  # whatever it is counts
            return Ended(number, loop.time() - start_s, error=error)
        return Ended(number, loop.time() - start_s, answer=said)

    async def in_place(number: int) -> Ended:
        async with places:
            return await one(number, None)

    if load.per_s is None:
        return await asyncio.gather(*(in_place(first + place) for place in range(load.num_answers)))
    tasks = []
    for place in range(load.num_answers):
        due_s = begin_s + place / load.per_s
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        tasks.append(asyncio.create_task(one(first + place, due_s)))
    return await asyncio.gather(*tasks)


def run_threads(ask: Callable[[str], str], load: Load, first: int) -> list[Ended]:
    """Ask in a pool of threads; see `run_tasks`."""

    def one(number: int, due_s: float | None) -> Ended:
        start_s = time.monotonic() if due_s is None else due_s
        try:
            said = ask(question_of(number))
        except Exception as error:  # noqa: BLE001  # as above
            return Ended(number, time.monotonic() - start_s, error=error)
        return Ended(number, time.monotonic() - start_s, answer=said)

    begin_s, waits = time.monotonic(), threading.Event()
    with ThreadPoolExecutor(load.in_flight) as pool:
        ended = []
        for place in range(load.num_answers):
            due_s = None if load.per_s is None else begin_s + place / load.per_s
            if due_s is not None:
                waits.wait(max(0.0, due_s - time.monotonic()))
            ended.append(pool.submit(one, first + place, due_s))
        return [one.result() for one in ended]


_next_number = 0


def run(server: Server, side: SideName, mode: Mode, load: Load, *, first: int | None = None, **settings: Any) -> Run:
    """Put a load on one side, after a few answers that do not count.

    Args:
        server: Whom its members ask.
        side: Who is asked.
        mode: Tasks or threads.
        load: How answers begin.
        first: Number of the first question; None takes numbers that were not used yet.
        settings: Arguments of the ensemble.
    """
    global _next_number  # questions are new throughout the process
    if first is None:
        first, _next_number = _next_number, _next_number + load.num_answers
    warmup, warmup_first = Load(6, 2), 10**6
    if mode == "tasks":

        async def go() -> tuple[list[Ended], float]:
            async with server.async_members() as members:
                await run_tasks(in_tasks(side, members), warmup, warmup_first)
                ask = in_tasks(side, members, **settings)
                server.forget()
                start_s = time.monotonic()
                return await run_tasks(ask, load, first), time.monotonic() - start_s

        ended, took_s = asyncio.run(go())
    else:
        with server.members() as members, ThreadPoolExecutor(len(MEMBERS) * load.in_flight) as pool:
            run_threads(in_threads(side, members, pool), warmup, warmup_first)
            ask = in_threads(side, members, pool, **settings)
            server.forget()
            start_s = time.monotonic()
            ended = run_threads(ask, load, first)
            took_s = time.monotonic() - start_s
    return Run(ended, took_s, server.log())


def capacity_of(server: Server, mode: Mode) -> float:
    """Find how many answers a second bare gives at most."""
    rates = []
    for in_flight in CALM:
        done = run(server, "bare", mode, Load(6 * in_flight, in_flight))
        rates.append(len(done.served) / done.took_s)
        print(f"bare, {mode}, {in_flight} in flight: {rates[-1]:.1f} answers/s", file=sys.stderr, flush=True)
    return max(rates)


# ---- the table

COLUMNS = (
    "load",
    "side",
    "right/s",
    "right of all",
    "wrong",
    "refused",
    "p50 s",
    "p99 s",
    "requests",
    "took s",
    "errors",
    "the server's log",
)


def row_of(name: str, side: SideName, done: Run) -> list[str]:
    """Make a row of the table."""
    latencies = [one.latency_s for one in done.served]
    p50, p99 = (f"{np.quantile(latencies, share):.2f}" if latencies else "" for share in (0.5, 0.99))
    return [
        name,
        side,
        f"{done.num_right / done.took_s:.1f}",
        f"{done.num_right} of {len(done.ended)}",
        str(len(done.served) - done.num_right),
        str(len(done.refused)),
        p50,
        p99,
        str(done.num_requests),
        f"{done.took_s:.1f}",
        "; ".join(f"{count} {name}" for name, count in done.errors.most_common()),
        "; ".join(f"{count} {name}" for name, count in Counter(done.log["ends"]).most_common()),
    ]


def main() -> None:
    """Print the table of each mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", nargs="+", choices=("tasks", "threads"), default=["tasks", "threads"])
    parser.add_argument("--answers", type=int, default=800)
    parser.add_argument("--in-flight", type=int, default=400)
    parser.add_argument("--times", type=float, nargs="*", default=[1, 2, 4], help="of capacity")
    parser.add_argument("--capacity-per-s", type=float, help="answers a second; else it is measured")
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--faults", type=float, default=0.2, help="share of the requests")
    given = parser.parse_args()
    _allow_many_connections()
    settings = {"num_places": given.places, "latency_s": given.latency_s, "share_of_faults": given.faults}
    with Server(**settings) as server:
        for mode in given.mode:
            capacity = given.capacity_per_s or capacity_of(server, mode)
            loads = {f"burst, {given.in_flight} in flight": Load(given.answers, given.in_flight)}
            for times in given.times:
                # Threads are a pool, and what comes beyond it waits; tasks have no bound.
                loads[f"{times:g}x, {times * capacity:.0f}/s"] = Load(given.answers, given.in_flight, times * capacity)
            print(f"\n{mode}; capacity: {capacity:.0f} answers/s\n\n| {' | '.join(COLUMNS)} |")
            print("|---" * len(COLUMNS) + "|", flush=True)
            for name, load in loads.items():
                for side in ("bare", "ensemble"):
                    print(f"| {' | '.join(row_of(name, side, run(server, side, mode, load)))} |", flush=True)


if __name__ == "__main__":
    main()

"""What `rlfocal serve` does under load: answers in flight, capacity, overload.

    python docs/benchmarks/serving.py [--workers 1 4] [--redis without with] [--seconds 15] [--runs 3]

A process imitates three members (`serving_http.py`): each thinks for about 0.65 s, 0.4 to 1.2, and a fifth of the requests meets a
fault: HTTP 429 with `Retry-After: 1`, HTTP 500, a connection that is dropped, a response that is torn, or one that takes four
times as long. A member is right about 85 % of the questions, about which ones is a hash as well. `rlfocal serve` asks them with
its defaults. This process is the client. Every fourth answer is streamed.

- harness: client and members without a server between them, asked for echoes: what they could do at most.
- refusals: what they take, of a server that is full all the time.
- so many in flight: each client asks again once it has its answer; who was refused waits as `Retry-After` says. Where most answers a
  second are good, capacity is its answers a second.
- 1x, 4x: answers begin at a steady rate, at one and four times capacity, whether or not others have ended; nobody asks again. The
  share is of the good answers a second at capacity, of the same server a minute before.
- `--max-in-flight 400`: as many clients as that, of a server that takes all of them. Else it measures how many it takes.

"Good" is an answer that is right and came within `--in-time-s`, from when it was to begin. The first two seconds of a load do not
count. Figures are medians of the runs, counts are sums; a run starts one server for all loads of a row's setting, so that the
shares are not of another minute. Memory is the largest resident set of a worker. Processors are how many of them each kind of process
kept busy, since all share one machine: Linux alone tells it. Only processes that were started here are ended.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
from overload import HOST, MEMBERS, question_of, right_answer
from serving_http import Client, ConnectionBrokenError, MemberServer, Response, allow_many_connections

IN_FLIGHT = 400
CALM = (32, 64, 128, 256)
"""Answers in flight at which capacity is looked for."""

WARMUP_S = 2.0
PATIENCE_S = 60.0
"""A client that has waited for so long gives up."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


# ---- processes


def cpu_s_of(pid: int) -> float:
    """Return the seconds of processor that a process has taken; 0 where there is none."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / TICKS_PER_S


def most_mb_of(pid: int) -> float:
    """Return the largest resident set of a process, in megabytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    try:
        said = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(part) for part in said.split()]


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Redis:
    """Debian's server on a free port of this machine, without files; it ends with the `with` block."""

    def __init__(self) -> None:
        self._port = free_port()
        options = {"port": self._port, "bind": HOST, "save": "", "appendonly": "no"}
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  # its own program
        wait_for_port(self._port, self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{HOST}:{self._port}/0"


def wait_for_port(port: int, process: "subprocess.Popen[Any]", timeout_s: float = 60.0) -> None:
    """Wait until somebody listens."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise ChildProcessError(f"It must listen, but has ended with status {process.returncode}.")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"It must listen within {timeout_s:g} s, but does not.")


class Served:
    """`rlfocal serve` over some members; it ends with the `with` block.

    Args:
        members: Where the members listen.
        workers: How many processes answer.
        options: Further arguments of the command.
    """

    def __init__(self, members: str, *, workers: int = 1, options: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        rows = {name: {"model": f"openai:{name}", "base_url": members} for name in MEMBERS}
        (folder / "pool.json").write_text(json.dumps({"members": rows}))
        self.port, self.num_workers = free_port(), workers
        command = [sys.executable, "-m", "langchain_rlfocal.cli", "serve", "--pool", "pool.json"]
        command += ["--host", HOST, "--port", str(self.port), "--workers", str(workers), *options]
        self.errors = (folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(  # noqa: S603  # its own program
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=self.errors
        )
        try:
            self._wait_until_ready()
        except OSError as error:
            self.stop()
            raise ChildProcessError(f"{error} It said: {self.said()}") from error

    def _wait_until_ready(self, timeout_s: float = 120.0) -> None:
        wait_for_port(self.port, self._process)
        end_s, before = time.monotonic() + timeout_s, (-1.0, -1.0)
        while time.monotonic() < end_s:
            if self.ready() and len(self.workers) == self.num_workers:
                # One of them is ready; all are once they neither grow nor compute much.
                now = sum(map(cpu_s_of, self.workers)), sum(map(most_mb_of, self.workers))
                if now[0] - before[0] < 0.1 * self.num_workers and now[1] == before[1]:
                    return
                before = now
            time.sleep(0.5)
        raise TimeoutError(f"All workers must be ready within {timeout_s:g} s, but are not.")

    def ready(self) -> bool:
        """Ask whether it is ready."""
        with contextlib.suppress(OSError), contextlib.closing(HTTPConnection(HOST, self.port, timeout=5)) as connection:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        return False

    @property
    def pid(self) -> int:
        """The number of the process that was started."""
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The numbers of the processes that answer."""
        if self.num_workers == 1:
            return [self.pid]
        return [pid for pid in children_of(self.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def said(self) -> str:
        """Return what it has written to stderr."""
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def stop(self) -> int:
        """Ask it to end, wait, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.errors.close()
        self._folder.cleanup()


# ---- a load


@dataclass(slots=True)
class Ended:
    """How one answer ended; times are seconds since the load began, from when it was to begin."""

    number: int
    began_s: float
    ended_s: float
    kind: str  # "right", "wrong", "refused", or what went wrong
    retry_after_s: float | None = None

    @property
    def latency_s(self) -> float:
        """How long it took."""
        return self.ended_s - self.began_s

    @property
    def is_answered(self) -> bool:
        """True if there was an answer, right or wrong."""
        return self.kind in {"right", "wrong"}


@dataclass(frozen=True, slots=True)
class Load:
    """How answers begin, for so many seconds: so many in flight, or at a steady rate."""

    seconds: float
    in_flight: int | None = None
    per_s: float | None = None


@dataclass(slots=True)
class Run:
    """What came of a load."""

    load: Load
    ended: list[Ended]
    in_time_s: float
    cpu_s: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0
    worker_mb: list[float] = field(default_factory=list)
    log: dict[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> list[Ended]:
        """Those that count: which ended after the warm-up and before the load did; at a rate, which began then."""
        of = (lambda one: one.began_s) if self.load.in_flight is None else (lambda one: one.ended_s)
        return [one for one in self.ended if WARMUP_S <= of(one) < self.load.seconds]

    def per_s(self, count: int) -> float:
        """Return a count for each second that counts."""
        return count / (self.load.seconds - WARMUP_S)

    @property
    def good_per_s(self) -> float:
        """Right answers in time, a second."""
        return self.per_s(sum(one.kind == "right" and one.latency_s <= self.in_time_s for one in self.counted))

    @property
    def answers_per_s(self) -> float:
        """Answers a second, right or wrong, whenever they came."""
        return self.per_s(sum(one.is_answered for one in self.counted))

    def latency_s(self, share: float, *, of_refused: bool = False) -> float:
        """Return a quantile of the latencies of what was answered, or of what was refused."""
        kinds = {"refused"} if of_refused else {"right", "wrong"}
        latencies = [one.latency_s for one in self.counted if one.kind in kinds]
        return float(np.quantile(latencies, share)) if latencies else float("nan")

    @property
    def kinds(self) -> Counter[str]:
        """How many ended in which way."""
        return Counter(one.kind for one in self.counted)


def kind_of(number: int, response: Response, *, is_stream: bool) -> str:
    """Tell how an answer ended."""
    if response.status == 429:
        return "refused" if "retry-after" in response.headers else "refused without Retry-After"
    if response.status != 200:
        error = json.loads(response.body).get("error", {})
        return f"{response.status} {error.get('code') or error.get('type')}"
    if is_stream:
        lines = [line[6:] for line in response.body.decode().splitlines() if line.startswith("data: ")]
        if not lines or lines[-1] != "[DONE]":
            return "a stream without its end"
        chunks = [json.loads(line) for line in lines[:-1]]
        if any("error" in chunk for chunk in chunks):
            return "an error in a stream"
        said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    else:
        said = json.loads(response.body)["choices"][0]["message"]["content"]
    return "right" if said.strip() == right_answer(number) else "wrong"


Ask = Callable[[int], Awaitable[tuple[str, float | None]]]


def asking(client: Client, *, model: str = "rlfocal", stream_every: int = 4) -> Ask:
    """Make what asks the question of a number, and tells how that ended and when it may ask again."""

    async def ask(number: int) -> tuple[str, float | None]:
        is_stream = stream_every > 0 and number % stream_every == 0
        body = {"model": model, "messages": [{"role": "user", "content": question_of(number)}], "stream": is_stream}
        try:
            response = await client.post("/v1/chat/completions", body, timeout_s=PATIENCE_S)
        except ConnectionBrokenError as error:
            return f"connection broken {'in' if error.has_begun else 'before'} the response", None
        except TimeoutError:
            return "no answer in a minute", None
        except OSError as error:
            return type(error).__name__, None
        again = response.headers.get("retry-after")
        return kind_of(number, response, is_stream=is_stream), None if again is None else float(again)

    return ask


async def put(ask: Ask, load: Load, first: int) -> list[Ended]:
    """Put a load on what is asked; questions are numbered from `first`."""
    loop = asyncio.get_running_loop()
    begin_s, ended, number = loop.time(), [], first

    async def one(number: int, began_s: float) -> Ended:
        kind, again_s = await ask(number)
        ended.append(Ended(number, began_s, loop.time() - begin_s, kind, again_s))
        return ended[-1]

    async def place() -> None:
        nonlocal number
        while (now_s := loop.time() - begin_s) < load.seconds:
            number += 1
            done = await one(number - 1, now_s)
            if done.retry_after_s is not None:
                await asyncio.sleep(min(done.retry_after_s, max(0.0, load.seconds - done.ended_s)))

    if load.in_flight is not None:
        await asyncio.gather(*(place() for _ in range(load.in_flight)))
        return ended
    assert load.per_s is not None
    tasks = []
    for nth in range(int(load.seconds * load.per_s)):
        due_s = nth / load.per_s
        if (early_s := due_s - (loop.time() - begin_s)) > 0:
            await asyncio.sleep(early_s)
        tasks.append(asyncio.create_task(one(first + nth, due_s)))
    await asyncio.gather(*tasks)
    return ended


_numbers = count(step=10**5)
"""Where the numbers of a load's questions begin; they are new throughout the process."""


def run(
    served: Served,
    members: MemberServer,
    load: Load,
    *,
    in_time_s: float,
    redis: Redis | None = None,
) -> Run:
    """Put a load on a server, after a few answers that do not count; questions are new throughout the process."""
    pids = {"members": [members.pid], "client": [os.getpid()]}
    if redis is not None:
        pids["redis"] = [redis.pid]

    def cpu_s() -> dict[str, float]:
        return {name: sum(map(cpu_s_of, those)) for name, those in {**pids, "workers": served.workers}.items()}

    async def go() -> Run:
        first = next(_numbers)
        client = Client(served.port)
        ask = asking(client)
        await asyncio.gather(*(ask(first + 10**5 - 1 - number) for number in range(4 * served.num_workers)))
        members.forget()
        before, start_s = cpu_s(), time.monotonic()
        ended = await put(ask, load, first)
        took_s = time.monotonic() - start_s
        after = cpu_s()
        client.close()
        spent = {name: after[name] - before[name] for name in after}
        return Run(load, ended, in_time_s, spent, took_s, [most_mb_of(pid) for pid in served.workers], members.log())

    return asyncio.run(go())


# ---- what is measured


def median_of(runs: Sequence[Run], measure: Callable[[Run], float]) -> float:
    """Return the median of a measure."""
    return statistics.median(map(measure, runs))


def in_words(counts: Mapping[str, int]) -> str:
    """Write counts down, the largest first."""
    return "; ".join(f"{count} {name}" for name, count in Counter(counts).most_common())


COLUMNS = (
    "server",
    "load",
    "good/s",
    "of each run",
    "p50, p99 s",
    "refused/s",
    "refused in s: p50, p99",
    "memory of a worker, MB",
    "workers' ms of processor an answer",
    "processors: workers, members, client, redis",
    "requests an answer",
    "ended otherwise",
)


def row_of(name: str, load: str, runs: Sequence[Run]) -> list[str]:
    """Make a row of the table: medians of some runs; counts are sums."""
    kinds = sum((one.kinds for one in runs), Counter[str]())
    answers = [max(1, sum(ended.is_answered for ended in one.ended)) for one in runs]
    cores = [
        f"{statistics.median(one.cpu_s.get(who, 0.0) / one.took_s for one in runs):.2f}"
        for who in ("workers", "members", "client", "redis")
    ]
    cpu_ms = statistics.median(1000 * one.cpu_s["workers"] / count for one, count in zip(runs, answers, strict=True))
    requests = statistics.median(one.log["requests"] / count for one, count in zip(runs, answers, strict=True))
    rest = {kind: count for kind, count in kinds.items() if kind not in {"right", "refused"}}
    quantiles = [f"{median_of(runs, lambda one, q=q: one.latency_s(q)):.2f}" for q in (0.5, 0.99)]
    of_refused = [f"{median_of(runs, lambda one, q=q: one.latency_s(q, of_refused=True)):.3f}" for q in (0.5, 0.99)]
    return [
        name,
        load,
        f"{median_of(runs, lambda one: one.good_per_s):.1f}",
        ", ".join(f"{one.good_per_s:.0f}" for one in runs),
        ", ".join(quantiles),
        f"{median_of(runs, lambda one: one.per_s(one.kinds['refused'])):.0f}",
        ", ".join(of_refused) if kinds["refused"] else "",
        f"{median_of(runs, lambda one: max(one.worker_mb, default=0)):.0f}",
        f"{cpu_ms:.1f}",
        ", ".join(cores),
        f"{requests:.2f}",
        in_words(rest),
    ]


def print_row(row: Sequence[str]) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(row)} |", flush=True)


def harness(in_flight: int, seconds: float) -> None:
    """Tell what client and members can do without a server between them."""
    with MemberServer() as members:

        async def go() -> tuple[int, float]:
            client, loop = Client(members.port), asyncio.get_running_loop()
            end_s, count = loop.time() + seconds, 0

            async def place() -> None:
                nonlocal count
                body = {"model": "first", "messages": [{"role": "user", "content": "Echo"}]}
                while loop.time() < end_s:
                    response = await client.post("/v1/chat/completions", body, timeout_s=PATIENCE_S)
                    assert json.loads(response.body)["choices"][0]["message"]["content"] == "Echo"
                    count += 1

            before = cpu_s_of(os.getpid()), cpu_s_of(members.pid)
            await asyncio.gather(*(place() for _ in range(in_flight)))
            spent = [cpu_s_of(pid) - was for pid, was in zip((os.getpid(), members.pid), before, strict=True)]
            client.close()
            print(
                f"harness: {count / seconds:.0f} echoes/s with {in_flight} in flight; processor µs a request: "
                f"client {1e6 * spent[0] / count:.0f}, members {1e6 * spent[1] / count:.0f}",
                flush=True,
            )
            return count, seconds

        asyncio.run(go())


@dataclass(frozen=True, slots=True)
class Setting:
    """A server under test, and how it is asked."""

    workers: int
    has_redis: bool
    options: tuple[str, ...]
    seconds: float
    in_time_s: float

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.workers} worker{'s' * (self.workers > 1)}{', Redis' * self.has_redis}"

    @contextlib.contextmanager
    def asked(self, *options: str) -> Iterator[Callable[..., Run]]:
        """Start a server, and give what puts a load on it."""
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(Redis()) if self.has_redis else None
            given = [*self.options, *options, *(() if redis is None else ("--state", redis.url))]
            members = stack.enter_context(MemberServer())
            served = stack.enter_context(Served(members.base_url, workers=self.workers, options=given))
            yield lambda **how: run(served, members, Load(self.seconds, **how), in_time_s=self.in_time_s, redis=redis)


def refusals(setting: Setting, *, clients: int = 20) -> None:
    """Tell what a refusal takes: of a server with room for one, asked again and again by clients that do not wait."""
    with MemberServer() as members, Served(members.base_url, options=["--max-in-flight", "1"]) as served:

        async def go() -> None:
            client, loop = Client(served.port), asyncio.get_running_loop()
            ask, kinds, seconds = asking(client), Counter[str](), list[float]()
            end_s, before_s = loop.time() + setting.seconds / 2, cpu_s_of(served.pid)

            async def place(first: int) -> None:
                for number in count(first):
                    began_s = loop.time()
                    if began_s > end_s:
                        return
                    kind, _ = await ask(number)
                    kinds[kind] += 1
                    seconds.append(loop.time() - began_s)

            await asyncio.gather(*(place(10**4 * nth) for nth in range(clients)))
            took_us = 1e6 * (cpu_s_of(served.pid) - before_s) / sum(kinds.values())
            p50, p99 = np.quantile(seconds, (0.5, 0.99))
            print(
                f"refusals: {2 * kinds['refused'] / setting.seconds:.0f}/s to {clients} clients that do not wait; processor µs each: "
                f"{took_us:.0f}; in s, p50 {p50:.3f}, p99 {p99:.3f}",
                flush=True,
            )
            client.close()

        asyncio.run(go())


def measure(setting: Setting, *, runs: int, in_flight: int, calm: Sequence[int], times: Sequence[float]) -> None:
    """Print the rows of one server."""
    found: dict[str, list[Run]] = {}
    shares: dict[float, list[float]] = {one: [] for one in times}
    for _ in range(runs):
        with setting.asked() as put_load:
            best: Run | None = None
            for clients in calm:
                done = put_load(in_flight=clients)
                found.setdefault(f"{clients} in flight", []).append(done)
                best = done if best is None or done.good_per_s > best.good_per_s else best
            assert best is not None
            for one in times:
                done = put_load(per_s=one * best.answers_per_s)
                found.setdefault(f"{one:g}x capacity", []).append(done)
                shares[one].append(done.good_per_s / best.good_per_s)
        with setting.asked("--max-in-flight", str(in_flight)) as put_load:
            found.setdefault(f"{in_flight} in flight, `--max-in-flight {in_flight}`", []).append(
                put_load(in_flight=in_flight)
            )
    for load, done_runs in found.items():
        print_row(row_of(setting.name, load, done_runs))
    for one, each in shares.items():
        listed = ", ".join(f"{share:.0%}" for share in each)
        print(
            f"\n{setting.name}: at {one:g}x {statistics.median(each):.0%} of the good answers at capacity ({listed})\n"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--redis", nargs="+", choices=("without", "with"), default=["without", "with"])
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--calm", type=int, nargs="+", default=list(CALM), help="in flight, to look for capacity")
    parser.add_argument("--times", type=float, nargs="+", default=[1, 4], help="of capacity")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--in-time-s", type=float, default=5.0)
    parser.add_argument("--option", action="append", default=[], help="of `rlfocal serve`, as --option=--max-team=1")
    given = parser.parse_args()
    allow_many_connections()
    harness(given.in_flight, min(given.seconds, 5.0))
    refusals(Setting(1, has_redis=False, options=(), seconds=given.seconds, in_time_s=given.in_time_s))
    print(f"\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for workers in given.workers:
        for redis in given.redis:
            setting = Setting(workers, redis == "with", tuple(given.option), given.seconds, given.in_time_s)
            measure(setting, runs=given.runs, in_flight=given.in_flight, calm=given.calm, times=given.times)
    print(f"Load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

"""What a collection on many machines would take: a discrete-event simulation, which says what it assumes.

    PYTHONPATH=unit_tests/support python docs/benchmarks/scaling.py [--validate] [--seeds 5] [--cpu-ms 5.7]
        [--log postgresql://... | --log-ms 1.6 0.026 2.24 0.01]

The log is measured first: how long this machine takes to add answers and to claim cells, in a file or at `--log`. Then a collection is
simulated, call by call. A worker has calls of each member out, and claims twice as many cells at a time; an answer takes its
member's latency, drawn from a lognormal distribution, then CPU time of its worker, which does one thing at a time; answers of
20 ms are written together. The log does one transaction at a time, for everybody: that is the strictest there is. A provider lets so many requests of a member begin a
minute, evenly. A worker renews its lease every 20 s. It dies after an exponential time; what it had claimed is free after the 60 s of its lease, and
its replacement begins after `restart_s`. Providers' turning away (429), network between log and workers, and queues inside a provider are left out.

`--validate` predicts what `ray_collect.py` measures on this machine, from the CPU time of one worker alone: workers and the server take turns on its CPUs.
"""

import argparse
import heapq
import itertools
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langchain_rlfocal.log import Attempt, OutcomeLog
from langchain_rlfocal.outcomes import Outcome, Question

LEASE_S, RENEW_S, LINGER_S = 60.0, 20.0, 0.02


@dataclass(frozen=True)
class Assumed:
    """What a simulated collection assumes.

    Attributes:
        answers: Answers of each member.
        members: Members.
        calls: Calls of a member at once, of one worker.
        latency_s: Median seconds of a call.
        sigma: Standard deviation of the logarithm of these seconds.
        per_minute: Requests of a member that its provider lets begin a minute; None for any number.
        cpu_s: Seconds of CPU that an answer takes of its worker.
        add_s: Seconds of the log for a transaction of answers: of itself, and for each answer.
        claim_s: The same for one that claims.
        mtbf_s: Mean seconds until a worker dies; None for never.
        restart_s: Seconds until another has begun in its place.
        cores: CPUs that all share; None for each worker one of its own.
        server_cpu_s: Seconds of CPU that a call takes of the members' server, where it shares them.
    """

    answers: int = 10_000
    members: int = 3
    calls: int = 8
    latency_s: float = 2.0
    sigma: float = 0.6
    per_minute: float | None = None
    cpu_s: float = 0.0057
    add_s: tuple[float, float] = (0.002, 0.0001)
    claim_s: tuple[float, float] = (0.002, 0.0001)
    mtbf_s: float | None = None
    restart_s: float = 30.0
    cores: int | None = None
    server_cpu_s: float = 0.0


class Line:
    """Does one thing after the other: so many of them at a time."""

    def __init__(self, width: int = 1) -> None:
        self.free = [0.0] * width
        self.busy_s = 0.0

    def do(self, now: float, takes_s: float) -> float:
        """Return when something that begins now at the earliest is done."""
        began = max(heapq.heappop(self.free), now)
        heapq.heappush(self.free, began + takes_s)
        self.busy_s += takes_s
        return began + takes_s


@dataclass
class Worker:
    """One worker.

    Attributes:
        cpu: What it does one after the other.
        claimed: Cells of each member that it may ask.
        out: Calls of each member that are out.
        unwritten: Answers that wait to be written.
        is_writing: Whether a transaction is on its way.
        life: How often it was replaced: what an earlier one had begun is void.
        is_dead: True until another begins.
    """

    cpu: Line
    claimed: list[int]
    out: list[int]
    unwritten: int = 0
    unwritten_of: list[int] = field(default_factory=list)
    is_writing: bool = False
    is_claiming: list[bool] = field(default_factory=list)
    life: int = 0
    is_dead: bool = False


class Simulation:
    """One collection, call by call."""

    def __init__(self, workers: int, assumed: Assumed, seed: int) -> None:
        self.assumed, self.rng, self.now = assumed, random.Random(seed), 0.0  # noqa: S311  # no secrets
        self.log = Line()
        self.cores = None if assumed.cores is None else Line(assumed.cores)
        self.server = Line()
        self.left = [assumed.answers] * assumed.members
        self.recorded, self.first = 0, 0.0
        self.asked = 0
        self.next_start = [0.0] * assumed.members
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.workers = [
            Worker(Line(), [0] * assumed.members, [0] * assumed.members, is_claiming=[False] * assumed.members)
            for _ in range(workers)
        ]

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (when, next(self.order), what, args))

    def run(self) -> float:
        """Return the seconds until everything is on record."""
        wanted = self.assumed.answers * self.assumed.members
        for worker in self.workers:
            self.begin(worker)
            self.at(RENEW_S, self.renew, worker)
        while self.recorded < wanted:
            self.now, _, what, args = heapq.heappop(self.events)
            what(*args)
        return self.now

    def begin(self, worker: Worker) -> None:
        """A worker begins."""
        worker.is_dead = False
        if self.assumed.mtbf_s is not None:
            self.at(self.now + self.rng.expovariate(1 / self.assumed.mtbf_s), self.die, worker, worker.life)
        for member in range(self.assumed.members):
            self.ask(worker, member)

    def ask(self, worker: Worker, member: int) -> None:
        """Have as many calls out as may be."""
        if worker.is_dead:
            return
        assumed = self.assumed
        while worker.out[member] < assumed.calls and worker.claimed[member]:
            worker.claimed[member] -= 1
            worker.out[member] += 1
            self.asked += 1
            begins = self.now
            if assumed.per_minute is not None:
                begins = max(begins, self.next_start[member])
                self.next_start[member] = begins + 60 / assumed.per_minute
            took_s = assumed.latency_s * math.exp(self.rng.gauss(0, assumed.sigma)) if assumed.latency_s else 0.0
            self.at(begins + took_s, self.serve, worker, member, worker.life)
        num = min(2 * assumed.calls, self.left[member])
        if worker.out[member] < assumed.calls and num and not worker.is_claiming[member]:
            self.left[member] -= num
            worker.is_claiming[member] = True
            done = self.log.do(self.now, assumed.claim_s[0] + assumed.claim_s[1] * num)
            self.at(done, self.claim, worker, member, num, worker.life)

    def claim(self, worker: Worker, member: int, num: int, life: int) -> None:
        """A claim is on record."""
        if life != worker.life:
            self.at(self.now + LEASE_S, self.free, member, num)
            return
        worker.is_claiming[member] = False
        worker.claimed[member] += num
        self.ask(worker, member)

    def serve(self, worker: Worker, member: int, life: int) -> None:
        """A member's server has answered; what that takes of CPUs here comes first."""
        done = self.on_cpu(self.server, self.assumed.server_cpu_s) if self.assumed.server_cpu_s else self.now
        self.at(done, self.answer, worker, member, life)

    def answer(self, worker: Worker, member: int, life: int) -> None:
        """An answer has come, and takes CPU time."""
        if life == worker.life:
            self.at(self.on_cpu(worker.cpu, self.assumed.cpu_s), self.take, worker, member, life)

    def on_cpu(self, process: Line, takes_s: float) -> float:
        """Have a process compute, on a CPU that is free."""
        if self.cores is None:
            return process.do(self.now, takes_s)
        done = self.cores.do(max(self.now, process.free[0]), takes_s)
        process.free[0] = done
        return done

    def take(self, worker: Worker, member: int, life: int) -> None:
        """An answer is read, and to be written."""
        if life != worker.life:
            return
        worker.out[member] -= 1
        worker.unwritten_of.append(member)
        if not worker.is_writing:
            worker.is_writing = True
            self.at(self.now + LINGER_S, self.write, worker, life)
        self.ask(worker, member)

    def write(self, worker: Worker, life: int) -> None:
        """Answers are written."""
        if life != worker.life:
            return
        num = len(worker.unwritten_of)
        worker.unwritten_of.clear()
        done = self.log.do(self.now, self.assumed.add_s[0] + self.assumed.add_s[1] * num)
        self.at(done, self.wrote, worker, num, life)

    def wrote(self, worker: Worker, num: int, life: int) -> None:
        """Answers are on record, whatever has become of the worker."""
        self.first = self.first or self.now
        self.recorded += num
        if life != worker.life:
            return
        worker.is_writing = bool(worker.unwritten_of)
        if worker.is_writing:
            self.at(self.now + LINGER_S, self.write, worker, life)

    def renew(self, worker: Worker) -> None:
        """A lease is renewed."""
        self.log.do(self.now, self.assumed.claim_s[0])
        self.at(self.now + RENEW_S, self.renew, worker)

    def die(self, worker: Worker, life: int) -> None:
        """A worker dies: its claims are free once its lease has ended, and another begins in its place."""
        if life != worker.life:
            return
        worker.life += 1
        worker.is_dead = True
        for member in range(self.assumed.members):
            num = worker.claimed[member] + worker.out[member] + worker.unwritten_of.count(member)
            worker.claimed[member] = worker.out[member] = 0
            worker.is_claiming[member] = False
            self.at(self.now + LEASE_S, self.free, member, num)
        worker.unwritten_of.clear()
        worker.is_writing = False
        self.at(self.now + self.assumed.restart_s, self.begin, worker)

    def free(self, member: int, num: int) -> None:
        """What was claimed is anybody's."""
        self.left[member] += num
        for worker in self.workers:
            self.ask(worker, member)


# ---- what the log takes


def measure_log(place: str | None) -> tuple[tuple[float, float], tuple[float, float]]:
    """Measure a transaction of answers and one of claims: seconds of itself, and for each row; by batches of 1 and 64."""
    with tempfile.TemporaryDirectory() as folder:
        log = OutcomeLog(place or Path(folder) / "log.db")
        mark = f"{time.time_ns()}"
        questions = [
            Question(task=mark, query_id=str(n), query=f"Question {n} of {mark}", gold="4") for n in range(4000)
        ]
        log.add_questions(questions)
        cells = iter([(mark, one.query_id, "ann", 0) for one in questions])
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(25):
            for size in (1, 64):
                batch = [next(cells) for _ in range(size)]
                attempts = [
                    Attempt(
                        outcome=Outcome(
                            task=mark,
                            query_id=c[1],
                            query=f"Question {c[1]} of {mark}",
                            gold="4",
                            model="ann",
                            answer=None,
                            response="4",
                            reward=1.0,
                        )
                    )
                    for c in batch
                ]
                began = time.perf_counter()
                log.claim(batch, run=mark)
                claimed = time.perf_counter()
                log.add_attempts(attempts, run=mark)
                times.setdefault(("claim", size), []).append(claimed - began)
                times.setdefault(("add", size), []).append(time.perf_counter() - claimed)
        log.release(mark)
        log.close()

    def fit(what: str) -> tuple[float, float]:
        one, many = (statistics.median(times[what, size]) for size in (1, 64))
        each = max((many - one) / 63, 0.0)
        return max(one - each, 0.0), each

    return fit("add"), fit("claim")


# ---- tables


def interval(values: list[float]) -> str:
    """Write a mean and twice its standard error."""
    error = 2 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {error:.1f}"


def main() -> None:
    """Print what is measured, what is assumed, and what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--log")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--log-ms",
        type=float,
        nargs=4,
        help="the log as it was measured before: a transaction of answers, each of them, one of claims, each of them",
    )
    parser.add_argument("--cpu-ms", type=float, default=1e3 * Assumed.cpu_s, help="CPU time of an answer")
    options = parser.parse_args()
    if options.log_ms is None:
        add_s, claim_s = measure_log(options.log)
    else:
        one, each, claim, cell = (ms / 1e3 for ms in options.log_ms)
        add_s, claim_s = (one, each), (claim, cell)
    print(f"Measured, the log: answers {1e3 * add_s[0]:.2f} ms a transaction and {1e3 * add_s[1]:.3f} ms each;")
    print(f"claims {1e3 * claim_s[0]:.2f} ms and {1e3 * claim_s[1]:.3f} ms each.")
    if options.validate:
        validate(add_s, claim_s)
        return
    base = replace(Assumed(), add_s=add_s, claim_s=claim_s, cpu_s=options.cpu_ms / 1e3)
    scenarios = {
        "base": base,
        "1,000 requests a minute": replace(base, per_minute=1000.0),
        "latency 10 s": replace(base, latency_s=10.0),
        "log 5 times slower": replace(base, add_s=_times(add_s, 5), claim_s=_times(claim_s, 5)),
        "workers die each 30 min": replace(base, mtbf_s=1800.0),
        "64 calls a worker": replace(base, calls=64),
    }
    print(f"Assumed: {base}")
    print(
        f"\nAnswers a second by workers, one on each machine; mean over {options.seeds} seeds ± twice its standard error"
    )
    sizes = (1, 2, 5, 10, 20, 40)
    print(f"{'':<24} " + " ".join(f"{size:>14}" for size in sizes) + "   log busy at 20   asked twice at 20")
    for name, assumed in scenarios.items():
        cells, busy, again = [], 0.0, 0.0
        for size in sizes:
            rates = []
            for seed in range(options.seeds):
                simulation = Simulation(size, assumed, seed)
                took_s = simulation.run()
                rates.append(assumed.answers * assumed.members / took_s)
                if size == 20:
                    busy += simulation.log.busy_s / took_s / options.seeds
                    again += (simulation.asked - assumed.answers * assumed.members) / simulation.asked / options.seeds
            cells.append(f"{interval(rates):>14}")
        print(f"{name:<24} " + " ".join(cells) + f"   {busy:>13.0%}   {again:>16.2%}", flush=True)


def _times(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return pair[0] * factor, pair[1] * factor


def validate(add_s: tuple[float, float], claim_s: tuple[float, float]) -> None:
    """Predict what is measured on this machine from the CPU time of one worker alone."""
    from ray_collect import collect

    num = 300
    print(
        "\nanswers/s of the plain command and of two workers on this machine; the CPU time of an answer is fitted to the first"
    )
    print("delay s   plain, measured   simulated   2 workers, measured   simulated")
    fitted: float | None = None
    for delay_s, num in ((0.0, 200), (2.0, 96)):
        rates = {
            name: statistics.median(2 * num / collect(num, delay_s, given).asking_s for _ in range(2))
            for name, given in (("plain", ()), ("two", ("--workers", "2")))
        }
        assumed = Assumed(
            answers=num,
            members=2,
            calls=16,
            latency_s=delay_s,
            sigma=0.0,
            add_s=add_s,
            claim_s=claim_s,
            cores=os.cpu_count(),
        )

        def simulated(workers: int, cpu_s: float, assumed: Assumed = assumed) -> float:
            of = replace(assumed, cpu_s=cpu_s, server_cpu_s=cpu_s / 4, calls=16 // workers)
            simulation = Simulation(workers, of, 0)
            return 2 * of.answers / (simulation.run() - simulation.first)  # as measured, from the first on record

        if fitted is None:
            low, high = 1e-4, 0.5
            for _ in range(30):
                middle = math.sqrt(low * high)
                low, high = (middle, high) if simulated(1, middle) > rates["plain"] else (low, middle)
            fitted = middle
            print(
                f"(fitted: {1e3 * fitted:.1f} ms of CPU an answer; the members' server is assumed to take a quarter of that)"
            )
        row = [rates["plain"], simulated(1, fitted), rates["two"], simulated(2, fitted)]
        print(f"{delay_s:>7}   {row[0]:>15.0f}   {row[1]:>9.0f}   {row[2]:>19.0f}   {row[3]:>9.0f}", flush=True)


if __name__ == "__main__":
    main()

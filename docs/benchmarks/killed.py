"""A collection that is killed again and again: what was on record is neither lost nor asked for again.

    PYTHONPATH=unit_tests/support python docs/benchmarks/killed.py [--kills 20] [--questions 800] [--seed 0]

`rlfocal collect` asks two members of a loopback server, eight calls of each at once. The first run is killed (SIGKILL) at its
first request; the same command goes on, and each run but the last is killed a random moment after a random request, once some of
its answers are on record. A row is one
run: which request it was killed after, what was on record then, and how many requests were made of what was on record
before (asked again), which must be none. Calls that are out at the kill may be answered and paid for, which nobody can
know afterwards: they are asked once more. "out" counts the requests of a run that did not come on record.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable
from support_fault_server import Fault, FaultServer

MEMBERS = ("ann", "bob")
ANSWER_S = 0.02
LONGEST_AFTER_S = 0.15
NEVER_S = 3600.0


@dataclass
class Run:
    """One run of the command.

    Attributes:
        killed_after: The request of this run after which it was killed; None where it came to its end.
        requests: Requests that it made.
        recorded: Answers on record when it had ended.
        asked_again: Requests of what was on record when it began.
        out: Requests whose answers it did not bring on record.
        lost: Answers that were on record when it began, and are no more.
    """

    killed_after: int | None
    requests: int
    recorded: int
    asked_again: int
    out: int
    lost: int


@dataclass
class Experiment:
    """What came of it.

    Attributes:
        runs: One for each run of the command.
        complete: True if the table holds every answer once, scored.
    """

    runs: list[Run] = field(default_factory=list)
    complete: bool = False

    @property
    def asked_again(self) -> int:
        """Requests of what was on record."""
        return sum(run.asked_again for run in self.runs)

    @property
    def lost(self) -> int:
        """Answers that were on record and are no more."""
        return sum(run.lost for run in self.runs)


class Killer:
    """Kills a process some time after one of the requests that it makes, and after it recorded something."""

    def __init__(self) -> None:
        self.kill: Callable[[], None] | None = None
        self.after, self.num = 0, 0

    def arm(self, after: int | None, kill: Callable[[], None]) -> None:
        """Have a process killed."""
        self.kill, self.after, self.num = kill, after or 0, 0

    def see(self, _model: str, _question: str, _attempt: int) -> Fault:
        """Take note of a request; the server answers it a little later, but never that which has its process killed."""
        self.num += 1
        if self.num == self.after and self.kill is not None:
            threading.Thread(target=self.kill).start()
            return Fault(delay_s=NEVER_S)
        return Fault(delay_s=ANSWER_S)


def start(folder: Path, base_url: str, *options: str) -> "subprocess.Popen[str]":
    """Start the command."""
    members = [part for name in MEMBERS for part in ("--member", f"{name}=openai:{name}")]
    command = [sys.executable, "-m", "langchain_rlfocal.cli", "collect", "q.jsonl", *members, "--out", "o.jsonl"]
    environment = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none"}
    return subprocess.Popen(  # noqa: S603  # its own program
        [*command, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write_questions(folder: Path, num: int) -> None:
    """Write questions that the server answers rightly."""
    rows = [{"task": "sums", "query_id": str(n), "query": f"What is {n} + 1?", "gold": str(n + 1)} for n in range(num)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answer(_model: str, question: str) -> str:
    """Answer such a question."""
    return str(int(question.split()[2]) + 1)


def answered_in(folder: Path) -> set[Any]:
    """What is on record: (query_id, member)."""
    path = folder / "o.db"
    if not path.exists():
        return set()
    log = OutcomeLog(path)
    try:
        return {(query_id, member) for _, query_id, member, _ in log.answered()}
    finally:
        log.close()


def kill(process: "subprocess.Popen[str]", folder: Path, before: set[Any] | None, seconds: float) -> None:
    """Kill a process: at once, or so many seconds after more is on record than before."""
    if before is not None:
        while process.poll() is None and len(answered_in(folder)) <= len(before):
            time.sleep(ANSWER_S)
        time.sleep(seconds)
    process.kill()


def experiment(*, kills: int, questions: int, seed: int) -> Experiment:
    """Kill a collection so many times, then let it come to its end."""
    rng, killer, result = random.Random(seed), Killer(), Experiment()  # noqa: S311  # moments, no secrets
    with tempfile.TemporaryDirectory() as name, FaultServer(answer, script=killer.see) as server:
        folder = Path(name)
        write_questions(folder, questions)
        # Each run has its share, so that all of them are killed at work; the first is killed at its first request.
        share = max(len(MEMBERS) * questions // (kills + 1), 2)
        for number in range(kills + 1):
            before, first = answered_in(folder), len(server.received)
            after = None if number == kills else 1 if number == 0 else rng.randrange(share // 2, share)
            process = start(folder, server.base_url)
            seconds = rng.random() * LONGEST_AFTER_S
            killer.arm(after, partial(kill, process, folder, None if number == 0 else before, seconds))
            _, said = process.communicate()
            ends_well = process.returncode == (0 if after is None else -signal.SIGKILL)
            assert ends_well, f"{process.returncode}: {said}"
            asked = [(str(int(r.question.split()[2])), r.model) for r in server.received[first:]]
            now = answered_in(folder)
            result.runs.append(
                Run(
                    killed_after=after,
                    requests=len(asked),
                    recorded=len(now),
                    asked_again=sum(cell in before for cell in asked),
                    out=sum(cell not in now for cell in asked),
                    lost=len(before - now),
                )
            )
        rows = [(outcome.query_id, outcome.model, outcome.reward) for outcome in OutcomeTable.read(folder / "o.jsonl")]
        result.complete = sorted(rows) == sorted((str(n), name, 1.0) for n in range(questions) for name in MEMBERS)
    return result


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = experiment(kills=options.kills, questions=options.questions, seed=options.seed)
    print("run  killed after  requests  on record  asked again  out  lost")
    for number, run in enumerate(done.runs, start=1):
        after = "-" if run.killed_after is None else run.killed_after
        print(
            f"{number:>3}  {after:>12}  {run.requests:>8}  {run.recorded:>9}  {run.asked_again:>11}  {run.out:>3}  {run.lost:>4}"
        )
    requests = sum(run.requests for run in done.runs)
    print(
        f"{requests} requests for {len(MEMBERS) * options.questions} answers: {sum(r.out for r in done.runs)} were out at a kill."
    )
    print(f"Asked again of what was on record: {done.asked_again}. Lost: {done.lost}. Table complete: {done.complete}.")
    sys.exit(0 if done.complete and not done.asked_again and not done.lost else 1)


if __name__ == "__main__":
    main()

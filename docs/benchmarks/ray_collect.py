"""One collection on one machine: by the plain command, by two processes, and by one and two workers on Ray.

    PYTHONPATH=unit_tests/support python docs/benchmarks/ray_collect.py [--questions 300] [--repeats 3] [--delay 0]

`rlfocal collect` asks two members of a loopback server in a process of its own, sixteen calls of each at once. Without a delay the collector itself
is the bottleneck, and a second worker can help; with one (0.5, say) members are, and it cannot, since the calls at once are divided. A row is the
median over the repeats, taken in turns. "asking" is the time between the first and the last answer on record, "around it" is the rest of the
command: loading, starting workers or a cluster, ending them, the table. CPU time is of the command and all processes that it starts, Ray's own among
them, from begin to end, looked up ten times a second; "Ray's" is what is neither the command nor a worker. It says more than the clock where
the machine does other work.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from killed import answer, write_questions

from langchain_rlfocal.log import OutcomeLog
from support_fault_server import Fault, FaultServer

WAYS = {
    "plain": (),
    "local, 2 workers": ("--workers", "2"),
    "ray, 1 worker": ("--engine", "ray", "--workers", "1"),
    "ray, 2 workers": ("--engine", "ray", "--workers", "2"),
}


@dataclass
class Took:
    """What one collection took, in seconds.

    Attributes:
        asking_s: Between the first and the last answer on record.
        around_s: The rest of the command.
        cpu_s: CPU time of the command and its workers.
        ray_s: CPU time of Ray's own processes.
    """

    asking_s: float
    around_s: float
    cpu_s: float = 0.0
    ray_s: float = 0.0


class Processes(threading.Thread):
    """Looks up the CPU time of a process and of all that it, and those, start."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.known, self.is_over = {pid}, threading.Event()
        self.seen: dict[int, tuple[bool, float]] = {}

    def run(self) -> None:
        """Look until it is over."""
        while not self.is_over.wait(0.1):
            for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
                with suppress(OSError):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    pid = int(folder.name)
                    if int(fields[1]) not in self.known and pid not in self.known:
                        continue
                    self.known.add(pid)
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    is_ours = any(part in line for part in (b"langchain_rlfocal", b"multiprocessing", b"ray::_"))
                    is_ours |= pid in self.seen and self.seen[pid][0]  # one that has ended has no command line
                    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                    self.seen[pid] = is_ours, cpu_s


def collect(num: int, delay_s: float, options: tuple[str, ...]) -> Took:
    """Collect once."""
    with (
        tempfile.TemporaryDirectory() as name,
        FaultServer(answer, script=lambda *_: Fault(delay_s=delay_s)) as server,
    ):
        folder = Path(name)
        write_questions(folder, num)
        members = [part for name in ("ann", "bob") for part in ("--member", f"{name}=openai:{name}")]
        command = [sys.executable, "-m", "langchain_rlfocal.cli", "collect", "q.jsonl", *members, "--out", "o.jsonl"]
        environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "none"}
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  # its own program
            [*command, "--concurrency", "16", *options],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        processes = Processes(process.pid)
        processes.start()
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
        whole_s = time.perf_counter() - started
        processes.is_over.set()
        processes.join()
        log = OutcomeLog(folder / "o.db")
        times = sorted(one.at for one in log.attempts() if one.at is not None)
        log.close()
        assert len(times) == 2 * num, "not all is on record"
        took = Took(times[-1] - times[0], whole_s - (times[-1] - times[0]))
        for is_ours, cpu_s in processes.seen.values():
            took.cpu_s += cpu_s * is_ours
            took.ray_s += cpu_s * (not is_ours)
        return took


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    options = parser.parse_args()
    runs: dict[str, list[Took]] = {name: [] for name in options.ways}
    for _ in range(options.repeats):
        for name in options.ways:
            runs[name].append(collect(options.questions, options.delay, WAYS[name]))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    num = 2 * options.questions
    print(f"{num} answers, {options.delay:g} s each; load of the machine at the end: {os.getloadavg()[0]:.1f}")
    print("way               asking s  (least - most)  answers/s  around it s  CPU s  Ray's CPU s")
    for name, of in runs.items():
        asking = sorted(one.asking_s for one in of)
        median = statistics.median(asking)
        around, cpu, ray = (
            statistics.median(getattr(one, what) for one in of) for what in ("around_s", "cpu_s", "ray_s")
        )
        spread = f"({asking[0]:.1f} - {asking[-1]:.1f})"
        print(f"{name:<17} {median:8.1f}  {spread:>14}  {num / median:9.0f}  {around:11.1f}  {cpu:5.1f}  {ray:11.1f}")


if __name__ == "__main__":
    main()

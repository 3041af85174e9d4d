"""One collection on one machine: by the plain command, by two processes, and by one and two workers on Ray.

    PYTHONPATH=unit_tests/support python docs/benchmarks/ray_collect.py [--questions 300] [--repeats 3] [--delay 0]

`rlfocal collect` asks two members of a loopback server in a process of its own, sixteen calls of each at once. Without a delay the collector itself
is the bottleneck, and a second worker can help; with one (0.5, say) members are, and it cannot, since the calls at once are divided. A row is the
median over the repeats, taken in turns. "asking" is the time between the first and the last answer on record, "around it" is the rest of the
command: loading, starting workers or a cluster, ending them, the table. "CPU" is that of the command and its workers while they live, in
milliseconds an answer, as far as the system attributes it (Ray's own processes are not the command's children).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
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


def collect(num: int, delay_s: float, options: tuple[str, ...]) -> tuple[float, float, float]:
    """Collect once; return the seconds of asking, those around it, and of the CPU."""
    with (
        tempfile.TemporaryDirectory() as name,
        FaultServer(answer, script=lambda *_: Fault(delay_s=delay_s)) as server,
    ):
        folder = Path(name)
        write_questions(folder, num)
        members = [part for name in ("ann", "bob") for part in ("--member", f"{name}=openai:{name}")]
        command = [sys.executable, "-m", "langchain_rlfocal.cli", "collect", "q.jsonl", *members, "--out", "o.jsonl"]
        environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "none"}
        before, started = os.times(), time.perf_counter()
        subprocess.run(  # noqa: S603  # its own program
            [*command, "--concurrency", "16", *options], cwd=folder, env=environment, check=True, capture_output=True
        )
        whole_s, after = time.perf_counter() - started, os.times()
        log = OutcomeLog(folder / "o.db")
        times = sorted(one.at for one in log.attempts() if one.at is not None)
        log.close()
        assert len(times) == 2 * num, "not all is on record"
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return times[-1] - times[0], whole_s - (times[-1] - times[0]), cpu_s


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, given in WAYS.items():
            runs[name].append(collect(options.questions, options.delay, given))
    print(f"{2 * options.questions} answers, {options.delay:g} s each; load of the machine: {os.getloadavg()[0]:.1f}")
    print("way               asking s  (least - most)  answers/s  ratio  around it s")
    base = statistics.median(asking for asking, _, _ in runs["plain"])
    for name, of in runs.items():
        asking = sorted(one[0] for one in of)
        median, around = statistics.median(asking), statistics.median(one[1] for one in of)
        spread = f"({asking[0]:.1f} - {asking[-1]:.1f})"
        print(
            f"{name:<17} {median:8.1f}  {spread:>14}  {2 * options.questions / median:9.0f}  {base / median:5.2f}  {around:11.1f}"
        )


if __name__ == "__main__":
    main()

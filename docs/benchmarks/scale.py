"""Scale: how long training, evaluation and a report take on many outcomes, and how much memory.

    python docs/benchmarks/scale.py [--outcomes 1000000] [--members 10] [--command train --command evaluate …]

The outcomes are synthetic and made here: questions of twenty tasks whose words tell the topic, members that are good at some topics and
bad at others, answers A to J, costs and latencies. Each command runs in a process of its own, whose peak resident memory the
operating system tells. On the test rows the policy should beat the single best member, or the time was spent on nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TASKS, TOPICS, OPTIONS = 20, 8, np.array(list("ABCDEFGHIJ"))
COMMANDS = ("train", "evaluate", "report", "diversity")


def make_table(num_queries: int, num_members: int, *, seed: int = 0) -> pa.Table:
    """Make the outcomes of so many queries and members."""
    rng = np.random.default_rng(seed)
    task, topic = rng.integers(TASKS, size=num_queries), rng.integers(TOPICS, size=num_queries)
    gold = rng.integers(len(OPTIONS), size=num_queries)
    words = np.array([f"word{number}" for number in range(TOPICS * 60)])
    texts = [
        f"Question {number}: " + " ".join(words[60 * of + rng.integers(60, size=30)])
        for number, of in enumerate(topic.tolist())
    ]
    ability = rng.uniform(0.25, 0.9, size=(TOPICS, num_members))
    difficulty = rng.normal(0.0, 0.15, size=num_queries)
    right = rng.random((num_queries, num_members)) < ability[topic] - difficulty[:, None]
    answer = np.where(right, gold[:, None], rng.integers(len(OPTIONS), size=right.shape))
    price = np.geomspace(1e-5, 1e-3, num_members)
    spread = rng.lognormal(0.0, 0.3, size=right.shape)
    query, member = (each.ravel() for each in np.indices(right.shape))
    answers = OPTIONS[answer.ravel()]

    def coded(codes: np.ndarray, values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(values)).cast(pa.string())

    return pa.table(
        {
            "task": coded(task[query], [f"task/{number}" for number in range(TASKS)]),
            "query_id": coded(query, [str(number) for number in range(num_queries)]),
            "query": coded(query, texts),
            "model": coded(member, [f"member-{number}" for number in range(num_members)]),
            "response": pa.array(np.char.add("The answer is ", answers)),
            "answer": pa.array(answers),
            "gold": pa.array(OPTIONS[gold[query]]),
            "reward": (answer == gold[:, None]).ravel().astype(np.float64),
            "prompt_tokens": np.full(len(query), 45),
            "completion_tokens": np.full(len(query), 5),
            "cost_usd": (price * spread).ravel(),
            "latency_s": spread.ravel(),
        }
    )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outcomes", type=int, default=1_000_000)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--command", action="append", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, help="Keep the table and the policy here, and take them from here.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        table, policy, page = (folder / name for name in ("outcomes.parquet", "policy", "report.html"))
        if not table.exists():
            pq.write_table(make_table(given.outcomes // given.members, given.members), table)
        arguments = {
            "train": ["train", table, "--out", policy],
            "evaluate": ["evaluate", policy, table],
            "report": ["report", policy, table, "--out", page],
            "diversity": ["diversity", table],
        }
        print(f"{given.outcomes:,} outcomes of {given.members} members\n")
        print(f"{'':<11}{'minutes':>8}{'peak GiB':>10}")
        for command in given.command or COMMANDS:
            start = time.monotonic()
            run = [sys.executable, "-m", "langchain_rlfocal.cli", *map(str, arguments[command]), "--json"]
            with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # this very program
                assert process.stdout is not None
                said = process.stdout.read()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"{command} ended with {process.returncode}")
            took, peak = (time.monotonic() - start) / 60, usage.ru_maxrss * _RSS_UNIT / 2**30
            print(f"{command:<11}{took:>8.2f}{peak:>10.2f}", flush=True)
            if command == "report":
                print(f"{'':<11}a page of {page.stat().st_size / 1e6:.1f} MB")
            if command == "evaluate":
                report = json.loads(said)
                best = report["baselines"]["single_best"]["score"]
                print(f"{'':<11}policy {report['policy']['score']:.3f}, single best {best:.3f}")


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

if __name__ == "__main__":
    main()

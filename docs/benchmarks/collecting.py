"""What collecting takes beside the calls themselves.

    PYTHONPATH=unit_tests/support python docs/benchmarks/collecting.py [--questions 300] [--repeats 3]

The same requests to the same loopback server, eight at once: once by a bare loop of `ChatOpenAI.ainvoke`, once by
`acollect`, which limits, retries, scores and records each answer durably. Both in one process, taken in turns; the ratio is
that of the medians of their CPU time, since the wall-clock time of a busy machine says little.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain_rlfocal.collection import CollectConfig, acollect
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import ModelPool, PoolMember
from support_fault_server import FaultServer

AT_ONCE = 8


async def bare(model: Any, questions: list[Question]) -> None:
    """Ask in a bare loop."""
    waiting = iter(questions)

    async def work() -> None:
        for question in waiting:
            await model.ainvoke(question.query)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    questions = [
        Question(task="sums", query_id=str(n), query=f"What is {n} + 1? Answer with a number.", gold=str(n + 1))
        for n in range(options.questions)
    ]
    times: dict[str, list[float]] = {"bare loop": [], "acollect": []}
    walls: dict[str, list[float]] = {"bare loop": [], "acollect": []}
    with tempfile.TemporaryDirectory() as folder, FaultServer(lambda _, q: str(int(q.split()[2]) + 1)) as server:
        model = server.model("ann")
        pool = ModelPool([PoolMember("ann", model)])
        asyncio.run(bare(model, questions[:20]))
        log = OutcomeLog(Path(folder) / "warm.db")
        asyncio.run(acollect(pool, questions[:20], log=log))  # the first score loads libraries
        for repeat in range(options.repeats):
            for name, of in times.items():
                log = OutcomeLog(Path(folder) / f"{repeat}.db")
                cpu_s, wall_s = time.process_time(), time.perf_counter()
                if name == "acollect":
                    config = CollectConfig(max_concurrent_calls=AT_ONCE)
                    tally = asyncio.run(acollect(pool, questions, log=log, config=config))
                    assert tally.sum("answered") == len(questions)
                else:
                    asyncio.run(bare(model, questions))
                of.append(time.process_time() - cpu_s)
                walls[name].append(time.perf_counter() - wall_s)
    for name in times:
        ms = [1000 * statistics.median(of[name]) / len(questions) for of in (times, walls)]
        print(f"{name:<10} {ms[0]:6.2f} ms of CPU time a call, server included, {ms[1]:6.2f} ms by the clock")
    ratio = statistics.median(times["acollect"]) / statistics.median(times["bare loop"])
    print(f"ratio      {ratio:6.2f}")


if __name__ == "__main__":
    main()

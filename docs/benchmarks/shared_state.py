"""What a shared store adds to an answer, and whether four processes keep a budget and a rate limit by it.

    PYTHONPATH=unit_tests/support python docs/benchmarks/shared_state.py [--pairs 15] [--answers 100]

A Redis or Valkey server of its own runs on a Unix socket. Members answer at once, so that what is measured is the package's own time.
With and without the store are measured in turn, in one run: so many answers one after the other on an event loop, and as many at
once; the median of the pairs' ratios is printed with the least and the largest. Then four processes ask for more than a budget of 300
calls and than a rate of 1,200 calls a minute allow.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from langchain_rlfocal import Budget, RLFocalChatModel
from langchain_rlfocal.testing import ScriptedChatModel
from support_store import QUESTION, Server, Worker, spells_of

WORKERS, CALLS, PER_MINUTE = 4, 300, 1200


def model_of(url: str | None) -> RLFocalChatModel:
    """Make a model whose members answer at once, with a budget that is not used up."""
    members = {name: ScriptedChatModel(script=lambda _: "yes") for name in "ab"}
    shared = {} if url is None else {"shared_state": url}
    return RLFocalChatModel(members=members, budget=Budget(max_calls=10**9), **shared)


async def one_by_one(model: RLFocalChatModel, number: int) -> float:
    """Return the milliseconds of an answer, asked for one after the other."""
    began_s = time.perf_counter()
    for _ in range(number):
        await model.ainvoke(QUESTION)
    return (time.perf_counter() - began_s) / number * 1000


async def at_once(model: RLFocalChatModel, number: int) -> float:
    """The same, asked for at once."""
    began_s = time.perf_counter()
    await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(number)))
    return (time.perf_counter() - began_s) / number * 1000


def compare(
    measure: Callable[[RLFocalChatModel, int], Awaitable[float]],
    models: list[RLFocalChatModel],
    pairs: int,
    number: int,
) -> list[tuple[float, float]]:
    """Measure without and with the store in turn."""

    async def run() -> list[tuple[float, float]]:
        for model in models:
            await measure(model, number)
        return [(await measure(models[0], number), await measure(models[1], number)) for _ in range(pairs)]

    return asyncio.run(run())


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--answers", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        server = Server(home)
        models = [model_of(None), model_of(server.url(namespace="cost"))]
        print("an answer of two members    without ms  with ms  ratio (least, largest)")
        for name, measure in (("one after the other", one_by_one), (f"{options.answers} at once", at_once)):
            measured = compare(measure, models, options.pairs, options.answers)
            without, with_store = (statistics.median(values) for values in zip(*measured, strict=True))
            ratios = [b / a for a, b in measured]
            print(
                f"{name:<26}  {without:>10.2f}  {with_store:>7.2f}  {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}, {max(ratios):.2f})"
            )
        models[1].shared_state.close()

        notes = Path(home) / "budget.txt"
        workers = [
            Worker(server.url(namespace="budget"), notes, budget=Budget(max_calls=CALLS)) for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.tell("ask", CALLS, 8)
        made = [worker.hear()[0] for worker in workers]
        begun, _ = spells_of(notes)
        print(f"budget of {CALLS} calls, {WORKERS} processes: {len(begun)} calls made, {' + '.join(map(str, made))}")

        notes = Path(home) / "rate.txt"
        limit = {"max_calls_per_minute": PER_MINUTE}
        limited = [Worker(server.url(namespace="rate"), notes, member=limit) for _ in range(WORKERS)]
        for worker in limited:
            worker.tell("ask", 25, 8)
        for worker in limited:
            worker.hear()
        begun, _ = spells_of(notes)
        per_minute = (len(begun) - 1) / (begun[-1] - begun[0]) * 60
        print(
            f"{PER_MINUTE} calls a minute, {WORKERS} processes: {len(begun)} calls in {begun[-1] - begun[0]:.2f} s, "
            f"{per_minute:.0f} a minute"
        )
        for worker in (*workers, *limited):
            worker.kill()
        server.kill()


if __name__ == "__main__":
    main()

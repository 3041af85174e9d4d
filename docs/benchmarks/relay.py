"""How much later a lone member's first token comes through the ensemble than from the member itself.

    python docs/benchmarks/relay.py [--repeats 300]

The member answers at once, so that nothing but the ensemble's own work is timed. Both are asked in turn, in one process; a
row shows medians and 95th percentiles of the difference in milliseconds, for the untrained policy and the one that ships,
sync and async. Every query is new, as a policy remembers recent ones.
"""

import argparse
import asyncio
import statistics
import time

from langchain_core.language_models import BaseChatModel

from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.testing import ScriptedChatModel


def first_token_s(model: BaseChatModel, query: str) -> float:
    """Time the first token of a stream, and read the stream to its end."""
    started_s = time.perf_counter()
    chunks = model.stream(query)
    next(chunks)
    first_s = time.perf_counter() - started_s
    for _ in chunks:
        pass
    return first_s


async def afirst_token_s(model: BaseChatModel, query: str) -> float:
    """Time the first token of an async stream, and read the stream to its end."""
    started_s = time.perf_counter()
    chunks = model.astream(query)
    await anext(chunks)
    first_s = time.perf_counter() - started_s
    async for _ in chunks:
        pass
    return first_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    trained = RLFocalPolicy.load(POLICY_PATH)
    member = ScriptedChatModel(script=lambda _: "one two three four five")
    members = dict.fromkeys(trained.members, member)
    print("| policy | call | median ms | 95th percentile ms |")
    print("|---|---|---|---|")
    for name, policy in (("untrained", None), ("trained", trained)):
        ensemble = RLFocalChatModel(members=members, policy=policy, max_team=1)
        for call in ("stream", "astream"):
            late_ms = []
            with asyncio.Runner() as runner:
                for repeat in range(-20, repeats):  # the first ones warm up
                    query = f"Describe the {repeat}th city of the list in a few words, {name} {call}."
                    if call == "stream":
                        alone_s, together_s = first_token_s(member, query), first_token_s(ensemble, query)
                    else:
                        alone_s = runner.run(afirst_token_s(member, query))
                        together_s = runner.run(afirst_token_s(ensemble, query))
                    if repeat >= 0:
                        late_ms.append(1000 * (together_s - alone_s))
            p95 = statistics.quantiles(late_ms, n=20)[-1]
            print(f"| {name} | {call} | {statistics.median(late_ms):.2f} | {p95:.2f} |")


if __name__ == "__main__":
    main()

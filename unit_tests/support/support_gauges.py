"""Gauges of how many calls run at once, and of the places that limits have free."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

TURNS = 20
"""Turns of the event loop in which whoever can go on does."""

GUARD_S = 30
"""Nobody waits so long unless the test fails."""


async def let_others_run():
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Gauge:
    """Counts who is inside at once, all together and by name."""

    def __init__(self):
        self.inside, self.most, self.guard = {}, {}, threading.Lock()

    def enter(self, name):
        with self.guard:
            for key in (name, None):
                self.inside[key] = self.inside.get(key, 0) + 1
                self.most[key] = max(self.most.get(key, 0), self.inside[key])

    def leave(self, name):
        with self.guard:
            for key in (name, None):
                self.inside[key] -= 1


async def occupy(limits, names, *, leave=None):
    """Hold a place for each name, until it is time to leave or for some turns of the loop."""
    gauge = Gauge()

    async def one(name):
        async with limits.aheld(name):
            gauge.enter(name)
            await (leave.wait() if leave is not None else let_others_run())
            gauge.leave(name)

    await asyncio.gather(*(one(name) for name in names))
    assert set(gauge.inside.values()) <= {0}
    return gauge.most


async def is_free(limits, *names):
    """True if as many calls as these can run at once, right now."""
    leave = asyncio.Event()
    task = asyncio.create_task(occupy(limits, names, leave=leave))
    await let_others_run()
    leave.set()
    return (await task)[None] == len(names)


def threads_free(limits, member, count):
    """True if so many calls of a member can run at once in threads: they all meet."""
    meeting = threading.Barrier(count)

    def one():
        with limits.held(member):
            meeting.wait(GUARD_S)

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(count)]] == [None] * count

"""Gauges of how many calls run at once, and of whether any does."""

import asyncio
import threading

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


def is_free(shared):
    """True if no call has a place or waits for one."""
    return (shared.limiter.running, shared.limiter.waiting) == ({}, 0)

"""Drain: what a serving process does when it is told to stop.

The first signal closes it to new answers, so that `/ready` says so while the port is still open; once the answers under way have ended,
or their time is up, the signal goes on to the program that serves, which closes the port and ends.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from langchain_rlfocal.server.admission import Admission

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def draining(admission: Admission, *, within_s: float) -> Iterator[None]:
    """Drain before SIGTERM and SIGINT reach the handlers that are set now; a second SIGINT reaches them at once."""
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    tasks = set[asyncio.Task[None]]()

    async def drain(number: int, frame: FrameType | None) -> None:
        await admission.drain(within_s)
        _hand_on(before[number], number, frame)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not admission.is_draining:
            admission.is_draining = True
            loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(drain(number, frame))))
        elif number == signal.SIGINT:
            _hand_on(before[number], number, frame)

    for one in _SIGNALS:
        signal.signal(one, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_on(handler: Any, number: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)

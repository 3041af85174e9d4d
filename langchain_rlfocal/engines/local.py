"""This machine: one worker works in this process, several in processes of their own, which begin anew ("spawn")."""

import asyncio
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from langchain_rlfocal.engines.base import (
    Begin,
    Died,
    Done,
    Handle,
    Item,
    Outcome,
    Ready,
    Value,
    attempted,
    hand_out,
    untold,
)
from langchain_rlfocal.errors import InputError

LEAVE_S = 10.0
"""So long a worker's process outlives its parent at most: what it does may end in order."""


class LocalEngine:
    """Works on this machine.

    Args:
        workers: How many work at the same time. One works in this process; of several, each is a process of its own, and what
            they begin with has to be picklable.

    Raises:
        InputError: There would be none.

    Attributes:
        workers: How many work at the same time.
        machines: 1.
    """

    machines = 1

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"`workers` must be at least 1, got {workers}.")
        self.workers = workers
        self._shared: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def share(self, value: object) -> Handle:
        """Keep an object in this process; workers of others ask this one, which serves them while it waits in `map`."""
        self._shared.append(value)
        return _Here(value, len(self._shared) - 1)

    def map(
        self,
        begin: Begin[Item, Value],
        items: Iterable[Item],
        *,
        on_wait: Callable[[], None] | None = None,
        on_death: Callable[[Item, str], None] | None = None,
    ) -> Generator[Done[Item, Value]]:
        """Have every piece worked on; see `Engine.map`. In this process nothing waits and nobody dies."""
        if self.workers == 1:
            work = begin()
            for item in items:
                try:
                    value = work(item)
                except Exception as error:  # noqa: BLE001  # the piece's
                    yield Done(item, error=error)
                else:
                    yield Done(item, value)
            return
        crew = _Processes(begin, self._shared)
        yield from hand_out(crew, items, workers=self.workers, on_wait=on_wait, on_death=on_death)

    def close(self) -> None:
        """Forget what is kept; `map` ends its workers itself."""
        self._shared.clear()


class _Here:
    """A handle where the object is; in a worker's process it leads there."""

    def __init__(self, value: object, number: int) -> None:
        self._value, self._number = value, number

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._value, method)(*args)

    async def acall(self, method: str, *args: Any) -> Any:
        return self.call(method, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _There, (self._number,)


class _There:
    """A handle in a worker's process."""

    def __init__(self, number: int) -> None:
        self._number = number

    def call(self, method: str, *args: Any) -> Any:
        assert _channel is not None, "a handle is unpickled in a worker"
        with _calling:
            _channel.send(("call", self._number, method, args))
            answer: Outcome = _channel.recv()
        if answer.error is not None:
            raise answer.error
        return answer.value

    async def acall(self, method: str, *args: Any) -> Any:
        return await asyncio.to_thread(self.call, method, *args)


# ---- workers


class _Processes:
    """Starts workers, and serves what they ask."""

    def __init__(self, begin: Begin[Any, Any], shared: Sequence[object]) -> None:
        self._begin, self._shared = begin, shared
        self._context = multiprocessing.get_context("spawn")  # forked, threads of torch and others would be left behind

    def start(self) -> "_Process":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), name="rlfocal-worker")
        with _uninterrupted():
            process.start()
        theirs.close()  # so that its end is heard
        worker = _Process(process, ours)
        worker.tell(self._begin)
        return worker

    def wait(self, workers: Sequence["_Process"], timeout_s: float) -> list[tuple["_Process", Ready | Outcome | Died]]:
        by_channel = {worker.channel: worker for worker in workers}
        events: list[tuple[_Process, Ready | Outcome | Died]] = []
        for channel in wait([*by_channel], timeout_s):
            worker = by_channel[channel]  # type: ignore[index]  # of what was given
            try:
                what, *rest = worker.channel.recv()
                if what == "call":
                    number, method, args = rest
                    called = getattr(self._shared[number], method)
                    worker.tell(attempted(partial(called, *args)))
                else:
                    events.append((worker, rest[0]))
            except (EOFError, OSError):
                events.append((worker, Died(worker.ending())))
        return events


class _Process:
    """One worker's process."""

    def __init__(self, process: Any, channel: "Connection[Any, Any]") -> None:
        self._process, self.channel = process, channel

    def tell(self, what: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is heard when it is waited for
            self.channel.send(what)

    give = tell

    def ending(self) -> str:
        """Say how it ended."""
        self._process.join(1.0)
        code = self._process.exitcode
        if code is None:
            return "its connection broke"
        return f"signal {-code} killed it" if code < 0 else f"its process ended with code {code}"

    def end(self) -> None:
        self._process.terminate()
        self._process.join(2.0)
        self._process.kill()
        self._process.join()
        self.channel.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have a process that is started here never see Ctrl-C, which a terminal sends to all: its parent ends it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_channel: "Connection[Any, Any] | None" = None  # of a worker's process, set once when it begins
_calling = threading.Lock()


def _serve(channel: "Connection[Any, Any]") -> None:
    """Work in a worker's process until its parent is gone."""
    global _channel  # noqa: PLW0603  # handles find it
    _channel = channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its workers
    threading.Thread(target=_leave_after_parent, daemon=True).start()
    try:
        begin = channel.recv()
        began = attempted(begin)
        channel.send(("said", Ready() if began.error is None else began))
        while began.error is None:
            item = channel.recv()
            done = attempted(partial(began.value, item))
            try:
                channel.send(("said", done))
            except (TypeError, AttributeError, pickle.PicklingError) as error:  # nothing was sent
                channel.send(("said", Outcome(error=untold(error))))
    except (EOFError, OSError):
        return


def _leave_after_parent() -> None:
    """End this process once its parent is gone, as where it was killed: nobody waits for what this one does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(LEAVE_S)
        os._exit(1)

"""Time limit: end what runs too long in a library, in whatever thread it runs.

A library that simplifies or solves cannot be asked how long it will take, and looks at no clock. The usual way out, a
signal, works in the main thread only. Here a watching thread throws an exception into the working one as soon as that
has used up its time, and stands in the library's own code: not in a callback of the garbage collector, where an exception is
printed and lost, nor in an import. The watcher ends by itself when there is nothing to watch. What is measured is the worker's own
processor time where the system tells it, so that a busy machine changes no result.

It refuses what it cannot do: a single operation in C, such as a power of two huge integers, ends when it ends. Callers
bound the size of what they compute.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

_T = TypeVar("_T")
_TICK_S = 0.02
_IDLE_TICKS = 50
_WALL_FACTOR = 20
_STEPS = 1000


class _Expired(BaseException):
    """The time is up; no `Exception`, so that no library takes it for an error of its own."""


class _Job:
    """Work under way in one thread, and when it ends."""

    __slots__ = ("_clock", "_end", "_packages", "_wall_end", "thread_id", "was_thrown")

    def __init__(self, seconds: float, packages: Collection[str]) -> None:
        self._packages = packages
        self.thread_id = threading.get_ident()
        self.was_thrown = False
        self._clock = _cpu_clock(self.thread_id)
        self._end = self._clock() + seconds
        self._wall_end = time.monotonic() + seconds * _WALL_FACTOR

    def is_over(self) -> bool:
        return self._clock() >= self._end or time.monotonic() >= self._wall_end

    def is_inside(self) -> bool:
        """Tell whether the thread stands in code of the packages; it goes on from there when it takes its turn."""
        frame = sys._current_frames().get(self.thread_id)  # noqa: SLF001  # documented under this name
        return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in self._packages


class _Watch:
    """The jobs under way, and the thread that watches them, None where none runs."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything, as in a forked process: no watcher runs there, and a lock may be held by a thread that is gone."""
        self.lock = threading.Lock()
        self.jobs: set[_Job] = set()
        self.thread: threading.Thread | None = None


_watch = _Watch()


def run_within(seconds: float, work: Callable[[], _T], *, packages: Collection[str]) -> _T:
    """Run work in this thread and return its result.

    Args:
        seconds: Processor time that the work may use.
        work: What to run; must not call this function again.
        packages: Names of the packages in whose code it may be ended.

    Raises:
        TimeoutError: The time was up before the work was done.
    """
    job: _Job | None = None
    try:
        try:
            job = _begin(_Job(seconds, packages))
            return work()
        finally:
            if job is not None:
                _end(job)
    except _Expired:
        raise TimeoutError(f"Not done within {seconds} s of processor time.") from None


def _begin(job: _Job) -> _Job:
    with _watch.lock:
        if _watch.thread is None:
            thread = threading.Thread(target=_keep_watch, name="langchain-rlfocal-time-limit", daemon=True)
            thread.start()
            _watch.thread = thread
        _watch.jobs.add(job)
    return job


def _end(job: _Job) -> None:
    """Stop watching; once this returns, no exception is on its way any more."""
    while True:
        try:
            with _watch.lock:
                _watch.jobs.discard(job)
            if job.was_thrown:
                # It is raised at a jump back, if it has not been. Taking it back instead would leave the interpreter
                # checking for it at every step from then on.
                for _ in range(_STEPS):
                    pass
        except _Expired:
            continue
        return


def _keep_watch() -> None:
    idle = 0
    while True:
        time.sleep(_TICK_S)
        with _watch.lock:
            idle = 0 if _watch.jobs else idle + 1
            if idle > _IDLE_TICKS:
                _watch.thread = None
                return
            for job in _watch.jobs:
                if job.is_over() and job.is_inside():
                    job.was_thrown = True
                    _throw(job.thread_id)


def _throw(thread_id: int) -> None:
    """Have a thread raise `_Expired` at its next step."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(_Expired))


def _cpu_clock(thread_id: int) -> Callable[[], float]:
    try:
        clock = time.pthread_getcpuclockid(thread_id)
        time.clock_gettime(clock)
    except (AttributeError, OSError):
        return time.monotonic
    return lambda: time.clock_gettime(clock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch.start_anew)

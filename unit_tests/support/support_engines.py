"""Pieces of work for engines, where workers of other processes can import them."""

import os
import signal
from functools import partial
from pathlib import Path


class Count:
    """Counts, for the caller and all workers."""

    def __init__(self):
        self.names = []

    def add(self, name):
        self.names.append(name)
        return len(self.names)

    def all(self):
        return self.names

    def refuse(self):
        raise ValueError("no")


def squares():
    return square


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def counts(handle):
    return partial(count, handle)


def count(handle, name):
    return handle.call("add", name)


def asks_what_raises(handle):
    return lambda _: handle.call("refuse")


def dies_once(folder):
    return partial(die_once, folder)


def die_once(folder, name):
    """Killed at the first try of each piece, as by the kernel."""
    path = Path(folder) / name
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def dies():
    return die


def die(_name):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_birth():
    os._exit(7)


def cannot_begin():
    raise ValueError("nothing to begin with")


class OddError(Exception):
    def __init__(self, *, what):
        super().__init__(f"odd: {what}")


def raises_odd():
    return raise_odd


def raise_odd(what):
    raise OddError(what=what)

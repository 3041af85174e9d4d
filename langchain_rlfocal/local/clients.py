"""Clients: HTTP clients that know what is on its way to the embedded servers.

A server that is stopped while it owes somebody an answer waits for that somebody to hang up, and it stops while holding
the interpreter's lock, so nobody in this process could: both would wait for ever. Therefore the pool's clients count what
they have sent, and `Traffic.close` returns when it has been answered. They know nothing of prompts or models, and take no
proxy from the environment: there is none between a process and itself.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from langchain_rlfocal.errors import InputError

_PATIENCE_S = 10.0
"""How long to wait for requests of event loops, in seconds; many times longer than the embedded members write."""


class Traffic:
    """Requests that wait for the head of their response: a stream's comes at once, an answer's when it is written."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._out = {"thread": 0, "loop": 0}

    @contextmanager
    def one(self, sender: str) -> Iterator[None]:
        """Count one request of a `"thread"` or of an event `"loop"` while it is out.

        Raises:
            InputError: The pool is closed.
        """
        with self._changed:
            if not self._open:
                raise InputError(
                    "The embedded pool is closed: ask its members before `close`, or inside the `with` block."
                )
            self._out[sender] += 1
        try:
            yield
        finally:
            with self._changed:
                self._out[sender] -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let no further request out and wait for those that are.

        A thread's request ends by itself, at its timeout at the latest. One of an event loop cannot end while the loop
        is what calls this, or is no longer running; then its answer lies ready long before patience ends.
        """
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._out["thread"])
            self._changed.wait_for(lambda: not self._out["loop"], timeout=_PATIENCE_S)


class Client(DefaultHttpxClient):
    """A client that counts its requests."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(trust_env=False)
        self._traffic = traffic

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request; counted until its response is read, or its stream has begun."""
        with self._traffic.one("thread"):
            return super().send(*args, **kwargs)


class AsyncClient(DefaultAsyncHttpxClient):
    """The asynchronous twin of `Client`."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(trust_env=False)
        self._traffic = traffic

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request; counted until its response is read, or its stream has begun."""
        with self._traffic.one("loop"):
            return await super().send(*args, **kwargs)

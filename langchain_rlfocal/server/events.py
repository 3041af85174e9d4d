"""Events: server-sent events, with comments while nothing is said, and an error event where a stream breaks off.

An error before the first event, if it comes soon, is an ordinary response with its status.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from langchain_rlfocal.server.bodies import json_of
from langchain_rlfocal.server.errors import ApiError, to_api_error

HEARTBEAT = b": waiting\n\n"
"""A comment, which clients skip; it keeps proxies from closing a silent connection."""

DONE = b"data: [DONE]\n\n"

SEND_TIMEOUT_S = 60.0
"""Seconds that a client may take to read what was sent, before it counts as gone."""

_log = logging.getLogger(__name__)


def event(data: Any, *, name: str | None = None) -> bytes:
    """Write one event."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json_of(data) + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """Write the event by which OpenAI's clients know that a stream broke off."""
    return event(error.body())


class EventStream(Response):
    """The response of a stream of events.

    Args:
        source: The events; one task reads and closes it.
        heartbeat_s: Seconds of silence after which a comment is sent.
        headers: Headers of the response.
        write_error: How an error that comes late is written.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes],
        *,
        heartbeat_s: float,
        headers: Mapping[str, str],
        write_error: Callable[[ApiError], bytes] = error_event,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._source, self._heartbeat_s, self._write_error = source, heartbeat_s, write_error
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        # There is no body whose length could be told.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until it ends or the client leaves."""
        events: asyncio.Queue[bytes | ApiError | None] = asyncio.Queue()
        sending = asyncio.ensure_future(self._send(events, scope, receive, send))
        making = asyncio.ensure_future(self._make(events))
        leaving = asyncio.ensure_future(_left(receive))
        tasks = (making, leaving, sending)
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, events: asyncio.Queue[bytes | ApiError | None]) -> None:
        """Read the source, and put what it says, or how it failed, into the queue; it never waits for the client."""
        try:
            async with aclosing(self._source) as source:
                async for one in source:
                    events.put_nowait(one)
        except Exception as error:  # noqa: BLE001  # the client is told, whatever it is
            told = to_api_error(error)
            if told.code == "internal_error":
                _log.error("A stream failed", exc_info=error)  # a level of its own is not meant
            events.put_nowait(told)
        else:
            events.put_nowait(None)

    async def _send(
        self, events: asyncio.Queue[bytes | ApiError | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        first: bytes | ApiError | None = HEARTBEAT
        with suppress(TimeoutError):
            async with asyncio.timeout(self._heartbeat_s):
                first = await events.get()
        if isinstance(first, ApiError):
            await first.response()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for part in self._parts(first, events):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:  # it has gone: who serves closes a connection whose response has no end
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self, first: bytes | None, events: asyncio.Queue[bytes | ApiError | None]) -> AsyncIterator[bytes]:
        upcoming: bytes | ApiError | None = first
        while upcoming is not None:
            yield self._write_error(upcoming) if isinstance(upcoming, ApiError) else upcoming
            if isinstance(upcoming, ApiError):
                return
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    upcoming = await events.get()
            except TimeoutError:
                upcoming = HEARTBEAT


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

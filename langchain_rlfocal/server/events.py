"""Events: server-sent events, with comments while nothing is said, and an error event where a stream breaks off."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

HEARTBEAT = b": waiting\n\n"
"""A comment, which clients skip; it keeps proxies from closing a silent connection."""

DONE = b"data: [DONE]\n\n"


def event(data: Any, *, name: str | None = None) -> bytes:
    """Write one event."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


async def with_heartbeats(source: AsyncIterator[bytes], *, every_s: float) -> AsyncIterator[bytes]:
    """Yield what a source yields, and a comment for every so many seconds of silence; closing closes the source."""
    async with aclosing(source) as items:  # type: ignore[type-var]  # an asynchronous generator
        while True:
            upcoming = asyncio.ensure_future(anext(items, None))
            try:
                while not (await asyncio.wait([upcoming], timeout=every_s))[0]:
                    yield HEARTBEAT
            except BaseException:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)
                raise
            item = upcoming.result()
            if item is None:
                return
            yield item


def event_stream(
    source: AsyncIterator[bytes],
    *,
    heartbeat_s: float,
    headers: Mapping[str, str] | None = None,
    on_end: BackgroundTask | None = None,
) -> StreamingResponse:
    """Make the response of a stream of events."""
    kept = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
    stream = with_heartbeats(source, every_s=heartbeat_s)
    return StreamingResponse(stream, media_type="text/event-stream", headers=kept, background=on_end)

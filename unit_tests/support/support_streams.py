"""A server's streams, read as OpenAI's clients read them, and a client of an application that can leave."""

import asyncio
import json

from openai.types.chat import ChatCompletionChunk


def events_of(text):
    """What a stream says, event by event; comments are left out."""
    parts = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    assert all(part.startswith("data: ") for part in parts), text
    return [part.removeprefix("data: ") for part in parts]


def chunks_of(text):
    """The chunks of a whole stream, each checked against OpenAI's types."""
    *said, end = events_of(text)
    assert end == "[DONE]"
    for one in said:
        ChatCompletionChunk.model_validate_json(one, strict=True)
    return [json.loads(one) for one in said]


def text_of(chunks):
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


class Visit:
    """One request to an application, whose client reads what comes and may leave.

    Attributes:
        sent: What the application has sent.
    """

    def __init__(self, app, path, body=None, *, method="POST", headers=(), parts=None, reads=None):
        self.sent, self._reads = [], reads
        self._left, self._came = asyncio.Event(), asyncio.Condition()
        self._parts = iter([json.dumps(body).encode()] if parts is None else parts)
        self._more = True
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in dict(headers).items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self):
        if self._more:
            part = next(self._parts)
            if part is None:  # nothing more comes
                await asyncio.Event().wait()
            self._more = not part.endswith(b"}")
            return {"type": "http.request", "body": part, "more_body": self._more}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if len(self.sent) == self._reads:  # no more than these
            await asyncio.Event().wait()
        async with self._came:
            self.sent.append(message)
            self._came.notify_all()

    async def wait_for(self, number):
        """Wait until so many messages have come."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.sent) >= number)

    async def leave(self):
        """Hang up, and wait until the application has noticed."""
        self._left.set()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent[1:]).decode()

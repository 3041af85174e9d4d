"""Response stream: the events of a response, numbered without gaps, from `response.created` to one that says how it ended.

Nothing is said before the answer begins, so that an error which comes before it has a status of its own.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.messages import AIMessageChunk

from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.events import event
from langchain_rlfocal.server.response_items import message_item, response_of, text_part


class ResponseWriter:
    """Writes the events of one response.

    Args:
        frame: The response, before it has begun.
    """

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self._frame = frame
        self._item = message_item(frame["id"], "in_progress", ())
        self._at = {"item_id": self._item["id"], "output_index": 0, "content_index": 0}
        self._number = 0
        self._text = ""

    async def events(self, pieces: AsyncGenerator[AIMessageChunk]) -> AsyncGenerator[bytes]:
        """Write an answer as it comes: its words, then its calls, then how it ended and came about."""
        last: AIMessageChunk | None = None
        async with aclosing(pieces):  # its place is given back, too, where writing fails
            async for piece in pieces:
                if not self._number:
                    for begun in self._begun():
                        yield begun
                if text := str(piece.text):
                    for said in self._said(text):
                        yield said
                if piece.response_metadata:
                    last = piece
        assert last is not None, "the last chunk says how the answer came about"
        whole = AIMessageChunk(content=self._text) + last if self._text else last
        for ended in self._ended(response_of(whole, self._frame)):
            yield ended

    def failed(self, error: ApiError) -> bytes:
        """Write how a response broke off, after what has been written of it."""
        codes = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
        told = error.body()["error"]
        why = {"code": codes.get(error.status, "server_error"), "message": told["message"], "type": told["type"]}
        said = [{**self._item, "status": "incomplete", "content": [text_part(self._text)]}] if self._text else []
        begun = b"" if self._number else b"".join(self._begun())
        ended = {**self._frame, "status": "failed", "error": why, "output": said}
        return begun + self._event("response.failed", response=ended)

    def _event(self, kind: str, **values: Any) -> bytes:
        numbered = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return event(numbered, name=kind)

    def _begun(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._frame)
        yield self._event("response.in_progress", response=self._frame)

    def _said(self, text: str) -> Iterator[bytes]:
        if not self._text:
            yield self._event("response.output_item.added", output_index=0, item=self._item)
            yield self._event("response.content_part.added", **self._at, part=text_part(""))
        self._text += text
        yield self._event("response.output_text.delta", **self._at, delta=text, logprobs=[])

    def _ended(self, response: Mapping[str, Any]) -> Iterator[bytes]:
        for index, item in enumerate(response["output"]):
            yield from self._call(item, index) if item["type"] == "function_call" else self._message(item)
        yield self._event(f"response.{response['status']}", response=response)

    def _message(self, item: Mapping[str, Any]) -> Iterator[bytes]:
        if not self._text:
            yield self._event("response.output_item.added", output_index=0, item=self._item)
        for place, part in enumerate(item["content"]):
            at = {**self._at, "content_index": place}
            if part["type"] == "refusal":
                yield from self._refusal(part, at)
                continue
            if not self._text:
                yield self._event("response.content_part.added", **at, part=text_part(""))
            kind = "response.output_text.annotation.added"
            for index, annotation in enumerate(part["annotations"]):
                yield self._event(kind, **at, annotation_index=index, annotation=annotation)
            yield self._event("response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"])
            yield self._event("response.content_part.done", **at, part=part)
        yield self._event("response.output_item.done", output_index=0, item=item)

    def _refusal(self, part: Mapping[str, Any], at: Mapping[str, Any]) -> Iterator[bytes]:
        yield self._event("response.content_part.added", **at, part={**part, "refusal": ""})
        yield self._event("response.refusal.delta", **at, delta=part["refusal"])
        yield self._event("response.refusal.done", **at, refusal=part["refusal"])
        yield self._event("response.content_part.done", **at, part=part)

    def _call(self, item: Mapping[str, Any], index: int) -> Iterator[bytes]:
        at = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        yield self._event("response.function_call_arguments.delta", **at, delta=item["arguments"])
        kind = "response.function_call_arguments.done"
        yield self._event(kind, **at, name=item["name"], arguments=item["arguments"])
        yield self._event("response.output_item.done", output_index=index, item=item)

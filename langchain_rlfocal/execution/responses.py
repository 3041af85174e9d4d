"""Responses: the chunks of a streamed response, put together."""

import json
from typing import cast

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langchain_core.messages.tool import invalid_tool_call

from langchain_rlfocal.execution.asking import check_kind, check_size, num_chars_in, usage_of


class Response:
    """Chunks of a streamed response, put together at the end."""

    def __init__(self) -> None:
        self._chunks: list[AIMessage] = []
        self._num_chars = self._num_content_chars = 0
        self._held = ""
        self._begun = False

    def add(self, chunk: AIMessage) -> str:
        """Add a chunk and return the text that can be passed on: none before the first that is not blank.

        Raises:
            UnusableAnswerError: The chunk is no message of a model, or the response has become too long.
        """
        check_kind(chunk)
        usage = usage_of(chunk)
        self._chunks.append(
            chunk if usage == chunk.usage_metadata else chunk.model_copy(update={"usage_metadata": usage})
        )
        text = str(chunk.text)
        calls = chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else ()
        self._num_chars += len(text) + sum(len(call["name"] or "") + len(call["args"] or "") for call in calls)
        self._num_content_chars += num_chars_in(chunk.content)
        check_size(self._num_chars, self._num_content_chars, None)
        self._begun = self._begun or bool(text.strip())
        if not self._begun:  # nothing but white space is no answer, and for that another member can stand in
            self._held += text
            return ""
        text, self._held = self._held + text, ""
        return text

    @property
    def message(self) -> AIMessage:
        """The whole response, empty if there were no chunks."""
        chunks = [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]
        if not chunks:  # a model that cannot stream yields its message as it is
            return self._chunks[-1] if self._chunks else AIMessage(content="")
        whole = chunks[0] + chunks[1:]
        message = cast("AIMessage", message_chunk_to_message(whole))
        # LangChain completes arguments that break off; nobody may call with those.
        broken = [chunk for chunk in whole.tool_call_chunks if not _is_object(chunk["args"])]
        if broken:
            known = [(call["id"], call["args"]) for call in message.invalid_tool_calls]
            new = [c for c in broken if (c["id"], c["args"]) not in known]
            faulty = [invalid_tool_call(name=c["name"], args=c["args"], id=c["id"], error=None) for c in new]
            message.invalid_tool_calls = [*message.invalid_tool_calls, *faulty]
            message.tool_calls = [call for call in message.tool_calls if call["id"] not in {c["id"] for c in broken}]
        return message


def _is_object(args: str | None) -> bool:
    """Tell whether a call's arguments are written to their end."""
    try:
        return isinstance(json.loads(args or "{}", strict=False), dict)
    except (ValueError, RecursionError):
        return False

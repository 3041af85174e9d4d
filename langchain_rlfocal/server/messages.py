"""Messages: OpenAI's messages to LangChain's, and replies back."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages

from langchain_rlfocal.server.errors import ApiError


def messages_of(given: Any, *, most: int) -> list[BaseMessage]:
    """Read a conversation.

    Raises:
        ApiError: It is none.
    """
    if not isinstance(given, list) or not given:
        raise ApiError(400, "`messages` must be a list of at least one message.", param="messages")
    if len(given) > most:
        raise ApiError(400, f"`messages` must be at most {most}, got {len(given)}.", param="messages")
    try:
        return convert_to_messages(given)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ApiError(400, f"`messages` must be messages of OpenAI's form: {error}", param="messages") from error


def tool_calls_of(calls: Sequence[Any]) -> list[dict[str, Any]]:
    """Write a reply's tool calls."""
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)},
        }
        for call in calls
    ]


def finish_reason_of(message: AIMessage) -> str:
    """Say in OpenAI's words why an answer ended."""
    if message.tool_calls:
        return "tool_calls"
    reason = message.response_metadata.get("finish_reason")
    return reason if reason in {"stop", "length", "content_filter"} else "stop"


def usage_of(message: AIMessage) -> dict[str, int] | None:
    """Write the tokens that an answer took, over all members that were asked; None where they are unknown."""
    used = message.usage_metadata
    if used is None:
        return None
    return {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "total_tokens": used["total_tokens"],
    }

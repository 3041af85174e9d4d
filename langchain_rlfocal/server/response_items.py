"""Response items: an answer as the items of a response, whole or as far as a stream has come."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from langchain_rlfocal.execution import written_to_cache
from langchain_rlfocal.server.decisions import decision_field
from langchain_rlfocal.server.messages import content_of, finish_reason_of, logprobs_of, tool_calls_of, usage_of


def response_of(message: AIMessage, frame: Mapping[str, Any]) -> dict[str, Any]:
    """Write a response whose answer is there: completed, or incomplete where it was cut off or withheld."""
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish_reason_of(message))
    status = "incomplete" if reason else "completed"
    parts, calls = parts_of(message), calls_of(message, frame["id"])
    said = [message_item(frame["id"], status, parts)] if parts else []
    return {
        **frame,
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [*said, *calls],
        "usage": _usage_of(message),
        "rlfocal": decision_field(message),
    }


def message_item(response_id: str, status: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write the item of what an answer says."""
    item_id = response_id.replace("resp_", "msg_")
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": [*parts]}


def parts_of(message: AIMessage) -> list[dict[str, Any]]:
    """Write what an answer says: a text with its sources, and a refusal."""
    text, refusal = content_of(message)
    said = [] if text is None else [text_part(text, annotations=annotations_of(message), logprobs=tokens_of(message))]
    return [*said, *([{"type": "refusal", "refusal": refusal}] if refusal else [])]


def text_part(text: str, *, annotations: Sequence[Any] = (), logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """Write a text."""
    return {"type": "output_text", "text": text, "annotations": [*annotations], "logprobs": [*logprobs]}


def tokens_of(message: AIMessage) -> list[dict[str, Any]]:
    """Write the log-probabilities of an answer's tokens, where its author gave them."""
    given = logprobs_of(message)
    return [] if given is None else [*given["content"]]


def annotations_of(message: AIMessage) -> list[dict[str, Any]]:
    """Write the web pages that an answer cites, of those that say where in the text they belong."""
    blocks = message.content if isinstance(message.content, list) else ()
    cited = [one for block in blocks if isinstance(block, dict) for one in block.get("annotations") or ()]
    named = ("url", "title", "start_index", "end_index")
    return [
        {"type": "url_citation", **{name: one[name] for name in named}}
        for one in cited
        if isinstance(one, dict) and all(one.get(name) is not None for name in named)
    ]


def calls_of(message: AIMessage, response_id: str) -> list[dict[str, Any]]:
    """Write the calls that an answer makes."""
    item_id = response_id.replace("resp_", "fc_")
    return [
        {
            "id": f"{item_id}_{place}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["id"],
            **call["function"],
        }
        for place, call in enumerate(tool_calls_of(message))
    ]


def _usage_of(message: AIMessage) -> dict[str, Any] | None:
    used = usage_of(message)
    if used is None or message.usage_metadata is None:
        return None
    written = written_to_cache(message.usage_metadata) or 0
    return {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {**used["prompt_tokens_details"], "cache_write_tokens": written},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": used["completion_tokens_details"],
        "total_tokens": used["total_tokens"],
    }

"""Responses: `POST /v1/responses`, as far as it needs no memory.

A request is written down as one for a chat completion and read as that, so that both mean the same; what comes back is written as items.
Nothing is stored, whatever `store` says: what refers to an earlier response is refused, and so are tools that only OpenAI can run.
Reasoning items are passed over, since an answer of several members has none.
"""

import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from langchain_rlfocal.server import chat_completions
from langchain_rlfocal.server.answering import Asked, answer, pieces
from langchain_rlfocal.server.bodies import JsonResponse, read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.decisions import decision_headers
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.events import EventStream
from langchain_rlfocal.server.response_items import response_of
from langchain_rlfocal.server.response_stream import ResponseWriter
from langchain_rlfocal.server.state import ServerState

_READ = frozenset(
    {
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "include",
        "max_output_tokens",
        "top_logprobs",
    }
)
_IGNORED = frozenset({"stream_options", "max_tool_calls", "truncation", "background"})
"""What has no meaning here; of the last two only the value that says so is taken."""

_STORED = "Nothing is stored here: send the conversation whole, as items of `input`, without it."
_REFUSED = {
    "previous_response_id": _STORED,
    "conversation": _STORED,
    "prompt": "No prompts are stored here: send `instructions` and `input`.",
    "background": "Answers are not made in the background: wait for them, or stream.",
}
_NO_REFERENCES = (
    "Nothing is stored here, so that no item can be referred to: send it whole. The Vercel AI SDK does so with "
    "`providerOptions: {openai: {store: false}}`."
)
_LOGPROBS = "message.output_text.logprobs"
_NAMES = {"response_format.json_schema": "text.format", "response_format": "text.format"} | {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "messages": "input",
}
"""Fields of a chat completion that go by another name here."""


async def handle(request: Request) -> Response:
    """Answer a conversation."""
    serving: ServerState = request.app.state.serving
    require(request, "answers")
    serving.admission.check_room()
    body = await read_body(request)
    asked, stream = asked_of(body, request)
    frame = frame_of(body, asked)
    if stream:
        writer = ResponseWriter(frame)
        return EventStream(
            writer.events(pieces(asked, serving)),
            heartbeat_s=serving.config.heartbeat_s,
            headers=chat_completions.stream_headers(asked, serving),
            write_error=writer.failed,
        )
    message = await answer(asked, serving, request)
    return JsonResponse(response_of(message, frame), headers=decision_headers(message, serving.model.pool))


async def not_stored(request: Request) -> Response:
    """Refuse what needs a memory: to get, delete, cancel or compact a response, or to list its items."""
    require(request, "answers")
    raise ApiError(
        404,
        "No response is stored here, whatever `store` said. Keep what `POST /v1/responses` returned.",
        code="not_found",
        param="response_id",
    )


# ---- what is asked


def asked_of(body: Mapping[str, Any], request: Request) -> tuple[Asked, bool]:
    """Read a request.

    Returns:
        What is asked, and whether as a stream.

    Raises:
        ApiError: It breaks a rule, or needs what is not here.
    """
    serving: ServerState = request.app.state.serving
    as_chat, places = chat_of(body)
    try:
        asked, stream, _ = chat_completions.asked_of(as_chat, request)
    except ApiError as error:
        items = {f"messages[{at}]": f"input[{place}]" for at, place in enumerate(places) if place is not None}
        tools = {f"tools[{at}].function": f"tools[{at}]" for at in range(serving.config.max_tools)}
        raise error.renamed({**items, **tools, **_NAMES}) from None
    return asked, stream


def chat_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[int | None]]:
    """Write a request down as one for a chat completion.

    Returns:
        Its body, and of each message the place of its item in `input`; None where it is of no item.

    Raises:
        ApiError: It needs what is not here.
    """
    for name, reason in _REFUSED.items():
        if body.get(name):
            raise ApiError(400, reason, code="unsupported_parameter", param=name)
    if body.get("truncation") not in (None, "disabled"):
        rule = 'It must be "disabled": members are asked with the whole conversation.'
        raise ApiError(400, rule, code="unsupported_value", param="truncation")
    for name in ("text", "reasoning", "metadata"):
        if not isinstance(body.get(name), dict | None):
            raise ApiError(400, "It must be an object.", param=name)
    if not all(isinstance(value, str) for value in (body.get("metadata") or {}).values()):
        raise ApiError(400, "It must hold texts.", param="metadata")
    if not isinstance(body.get("include"), list | None):
        raise ApiError(400, "It must be a list.", param="include")
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    messages, places = _conversation_of(body)
    wants_logprobs = _LOGPROBS in (body.get("include") or ()) or body.get("top_logprobs")
    given = {
        "messages": messages,
        "tools": _tools_of(body.get("tools")),
        "tool_choice": _tool_choice_of(body.get("tool_choice")),
        "response_format": _form_of(text.get("format")),
        "max_completion_tokens": body.get("max_output_tokens"),
        "reasoning_effort": reasoning.get("effort"),
        "verbosity": text.get("verbosity"),
        "logprobs": True if wants_logprobs else None,
        "top_logprobs": body.get("top_logprobs"),
    }
    same = {name: value for name, value in body.items() if name not in _READ | _IGNORED | _REFUSED.keys()}
    return {**same, **{name: value for name, value in given.items() if value is not None}}, places


def _tools_of(given: Any) -> Any:
    """Write functions as chat completions have them; what else there is of tools runs at OpenAI alone."""
    if not isinstance(given, list):
        return given
    tools = []
    for place, tool in enumerate(given):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise ApiError(
                400,
                f'It must be "function", got {kind!r:.60}: other tools run at OpenAI alone. Leave it out, or give a function.',
                code="unsupported_value",
                param=f"tools[{place}].type",
            )
        named = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in named if tool.get(name) is not None}
        tools.append({"type": "function", "function": function})
    return tools


def _tool_choice_of(given: Any) -> Any:
    if isinstance(given, dict) and given.get("type") == "function":
        return {"type": "function", "function": {"name": given.get("name")}}
    return given


def _form_of(given: Any) -> Any:
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return given
    named = ("name", "description", "schema", "strict")
    return {"type": "json_schema", "json_schema": {name: given[name] for name in named if given.get(name) is not None}}


def _conversation_of(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int | None]]:
    instructions, given = body.get("instructions"), body.get("input")
    messages: list[dict[str, Any]] = []
    places: list[int | None] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise ApiError(400, "It must be a text.", param="instructions")
        messages.append({"role": "system", "content": instructions})
        places.append(None)
    if not (isinstance(given, str | list) and given):
        raise ApiError(400, "It must be a text, or a list of items, which is not empty.", param="input")
    for place, item in enumerate(given if isinstance(given, list) else [{"role": "user", "content": given}]):
        _add_item(messages, item, f"input[{place}]")
        places += [place] * (len(messages) - len(places))
    return messages, places


def _add_item(messages: list[dict[str, Any]], item: Any, where: str) -> None:
    """Add an item to a conversation; calls join what the assistant said just before."""
    kind = item.get("type", "message" if "role" in item else None) if isinstance(item, dict) else None
    match kind:
        case "message":
            messages.append({"role": item.get("role"), "content": _content_of(item.get("content"), f"{where}.content")})
        case "function_call":
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            function = {name: item.get(name) for name in ("name", "arguments")}
            messages[-1].setdefault("tool_calls", []).append({"id": item.get("call_id"), "function": function})
        case "function_call_output":
            said = _content_of(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": said})
        case "reasoning":
            pass
        case "item_reference":
            raise ApiError(400, _NO_REFERENCES, code="unsupported_value", param=where)
        case _:
            known = "message, function_call, function_call_output or reasoning"
            raise ApiError(
                400,
                f"An item's type must be {known}, got {kind!r:.60}.",
                code="unsupported_value",
                param=f"{where}.type",
            )


def _content_of(given: Any, where: str) -> Any:
    return [_part_of(part, f"{where}[{at}]") for at, part in enumerate(given)] if isinstance(given, list) else given


def _part_of(part: Any, where: str) -> Any:
    """Write a part of a message as chat completions have it; what is none of the known is refused there."""
    if not isinstance(part, dict):
        return part
    if part.get("file_id"):
        raise ApiError(400, "No files are stored here: send the file itself.", param=f"{where}.file_id")
    if part.get("file_url"):
        raise ApiError(400, "No files are fetched here: send it as `file_data`.", param=f"{where}.file_url")
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text")}
        case "refusal":
            return {"type": "refusal", "refusal": part.get("refusal")}
        case "input_image":
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
        case "input_file":
            named = ("filename", "file_data")
            return {"type": "file", "file": {name: part[name] for name in named if part.get(name) is not None}}
    return part


# ---- what is answered


def frame_of(body: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Write a response that has not ended."""
    text = body.get("text") or {}
    return {
        "id": f"resp_{asked.answer_id.hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": asked.choice.name,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": body.get("temperature"),
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [{"parameters": None, "strict": None, **tool} for tool in body.get("tools") or ()],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "user": body.get("user"),
    }

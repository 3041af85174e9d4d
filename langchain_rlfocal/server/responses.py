"""Responses: `POST /v1/responses`, as far as it needs no memory.

A request is read as one for a chat completion, and answered the same way; what differs is written down here. Nothing is stored, whatever
`store` says: what refers to an earlier response is refused, and so are tools that only OpenAI can run. Reasoning items are passed over,
since an answer of several members has none.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from langchain_core.messages import AIMessage
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.server.answering import Asked, answer
from langchain_rlfocal.server.bodies import read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.decisions import decision_field, decision_headers
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.messages import finish_reason_of, messages_of
from langchain_rlfocal.server.names import choice_of
from langchain_rlfocal.server.options import options_of
from langchain_rlfocal.server.state import ServerState

_PARAMETERS = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
"""Parameters that members are asked with, and their names there."""

_STORED = "Nothing is stored here: send the conversation whole, as items of `input`, without it."
_REFUSED = {
    "previous_response_id": _STORED,
    "conversation": _STORED,
    "prompt": "No prompts are stored here. Send `instructions` and `input` instead.",
    "background": "Answers are not made in the background. Wait for them, or stream.",
    "top_logprobs": "Members' answers have no probabilities of tokens in common. Leave it out.",
}
_NO_MEMORY = (
    "Nothing is stored here, so an item cannot be referred to. Send it whole; of the Vercel AI SDK, with "
    "`providerOptions: {openai: {store: false}}`."
)


async def handle(request: Request) -> Response:
    """Answer a conversation."""
    serving: ServerState = request.app.state.serving
    caller = require(request, "answers")
    body = await read_body(request, serving.config)
    asked = asked_of(body, serving)
    if asked.choice.member is not None:
        require(request, "members")
    with serving.admission.answer():
        message = await answer(asked, serving, caller)
    return JSONResponse(response_of(message, body), headers=decision_headers(message))


async def not_stored(request: Request) -> Response:
    """Refuse what needs a memory: to get, delete or cancel a response."""
    require(request, "answers")
    raise ApiError(
        404,
        "No response is stored here, whatever `store` said. Keep what POST /v1/responses returned.",
        code="response_not_found",
        param="response_id",
    )


# ---- a request


def asked_of(body: Mapping[str, Any], serving: ServerState) -> Asked:
    """Read a request.

    Raises:
        ApiError: It breaks a rule, or needs what is not here.
    """
    for name, reason in _REFUSED.items():
        if body.get(name):
            _refuse(name, reason, code="unsupported_parameter")
    if "message.output_text.logprobs" in (body.get("include") or ()):
        _refuse("include", _REFUSED["top_logprobs"], code="unsupported_parameter")
    metadata = body.get("metadata")
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        _refuse("metadata", "`metadata` must be an object of texts.")
    tools, choice, form = _tools_of(body.get("tools")), _tool_choice_of(body.get("tool_choice")), _form_of(body)
    given = {
        "tool_choice": choice if tools else None,
        "parallel_tool_calls": body.get("parallel_tool_calls") if tools else None,
        "response_format": form,
    }
    return Asked(
        choice_of(body.get("model"), serving.model),
        messages_of(_conversation_of(body), most=serving.config.max_messages),
        options=options_of(body),
        parameters={theirs: body[name] for name, theirs in _PARAMETERS.items() if body.get(name) is not None},
        tools=tools,
        binding={name: value for name, value in given.items() if value is not None},
    )


def _refuse(param: str, message: str, *, code: str | None = None) -> NoReturn:
    raise ApiError(400, message if f"`{param}`" in message else f"`{param}`: {message}", param=param, code=code)


def _tools_of(given: Any) -> list[dict[str, Any]]:
    """Read tools, and write them as chat completions have them."""
    if given is not None and not isinstance(given, list):
        _refuse("tools", "`tools` must be a list.")
    tools = []
    for place, tool in enumerate(given or ()):
        param = f"tools[{place}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else tool
            reason = (
                "Only functions can be called: whoever asks runs them. Other tools run at OpenAI alone. Leave it out."
            )
            _refuse(f"{param}.type", f"{reason} Got {str(kind)[:40]!r}.", code="unsupported_tool")
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            _refuse(f"{param}.name", "A function must have a name.")
        named = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in named if tool.get(name) is not None}
        tools.append({"type": "function", "function": function})
    return tools


def _tool_choice_of(given: Any) -> Any:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, dict) and given.get("type") == "function" and isinstance(given.get("name"), str):
        return {"type": "function", "function": {"name": given["name"]}}
    return _refuse("tool_choice", 'It must be "auto", "none", "required" or {"type": "function", "name": ...}.')


def _form_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read `text.format`, and write it as chat completions have it."""
    text = body.get("text") or {}
    form = text.get("format") if isinstance(text, dict) else None
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema" or not isinstance(form.get("schema"), dict):
        _refuse(
            "text.format", 'It must be {"type": "text"}, {"type": "json_object"}, or a "json_schema" with its `schema`.'
        )
    named = ("name", "description", "schema", "strict")
    return {"type": "json_schema", "json_schema": {name: form[name] for name in named if form.get(name) is not None}}


def _conversation_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read `instructions` and `input`, and write them as messages of a chat completion."""
    instructions, given = body.get("instructions"), body.get("input")
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            _refuse("instructions", "`instructions` must be a text.")
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        _refuse("input", "`input` must be a text, or a list of at least one item.")
    for place, item in enumerate(given):
        _add_item(messages, item, param=f"input[{place}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: Any, *, param: str) -> None:
    """Add an item to a conversation; calls join what the assistant said just before."""
    kind = item.get("type", "message" if "role" in item else None) if isinstance(item, dict) else None
    match kind:
        case "message":
            messages.append({"role": item.get("role"), "content": _content_of(item.get("content"), param=param)})
        case "function_call":
            if not all(isinstance(item.get(name), str) for name in ("call_id", "name", "arguments")):
                _refuse(param, "A `function_call` must have `call_id`, `name` and `arguments`, all of them texts.")
            function = {"name": item["name"], "arguments": item["arguments"]}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            messages[-1].setdefault("tool_calls", []).append(
                {"type": "function", "id": item["call_id"], "function": function}
            )
        case "function_call_output":
            if not isinstance(item.get("call_id"), str):
                _refuse(param, "A `function_call_output` must have the `call_id` of its call.")
            content = _content_of(item.get("output"), param=param)
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        case "reasoning":
            pass
        case "item_reference":
            _refuse(param, _NO_MEMORY, code="unsupported_item")
        case _:
            known = "`message`, `function_call`, `function_call_output` or `reasoning`"
            _refuse(param, f"An item must be a {known}, got {str(kind)[:40]!r}.", code="unsupported_item")


def _content_of(given: Any, *, param: str) -> Any:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        _refuse(f"{param}.content", "Content must be a text or a list of parts.")
    return [_part_of(part, param=f"{param}.content[{place}]") for place, part in enumerate(given)]


def _part_of(part: Any, *, param: str) -> dict[str, Any]:
    """Read a part of a message, and write it as chat completions have it."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and part.get("file_id"):
        _refuse(f"{param}.file_id", "No files are stored here. Send the file itself, or its URL.")
    match kind:
        case "input_text" | "output_text" | "text" if isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        case "refusal" if isinstance(part.get("refusal"), str):
            return {"type": "text", "text": part["refusal"]}
        case "input_image" if isinstance(part.get("image_url"), str):
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
        case "input_audio" if isinstance(part.get("input_audio"), dict):
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case "input_file" if isinstance(part.get("file_data"), str):
            named = ("filename", "file_data")
            return {"type": "file", "file": {name: part[name] for name in named if part.get(name) is not None}}
    known = "`input_text`, `input_image` by URL, `input_file` with its data, `input_audio`, `output_text` or `refusal`"
    return _refuse(param, f"A part must be {known}, got {str(kind)[:40]!r}.")


# ---- a response


def response_of(message: AIMessage, body: Mapping[str, Any]) -> dict[str, Any]:
    """Write an answer."""
    facts = decision_field(message)
    frame = frame_of(body, answer_id=facts["answer_id"])
    return ended(frame, message, output_of(message, frame["id"]))


def frame_of(body: Mapping[str, Any], *, answer_id: str) -> dict[str, Any]:
    """Write a response that has not ended."""
    return {
        "id": f"resp_{answer_id.replace('-', '')}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": body.get("temperature"),
        "text": {"format": (body.get("text") or {}).get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [{"strict": None, "parameters": None, **tool} for tool in body.get("tools") or ()],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "user": body.get("user"),
    }


def ended(frame: Mapping[str, Any], message: AIMessage, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write a response whose answer is there: completed, or incomplete where it was cut off or filtered."""
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish_reason_of(message))
    return {
        **frame,
        "status": "incomplete" if reason else "completed",
        "completed_at": int(time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [*output],
        "usage": usage_of(message),
        "rlfocal": decision_field(message),
    }


def output_of(message: AIMessage, response_id: str) -> list[dict[str, Any]]:
    """Write the items of an answer: what it says, then the calls that it makes."""
    parts = parts_of(message)
    said = [message_item(response_id, "completed", parts)] if parts or not message.tool_calls else []
    return [*said, *calls_of(message, response_id)]


def message_item(response_id: str, status: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write the item of what an answer says."""
    item_id = response_id.replace("resp_", "msg_")
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": [*parts]}


def parts_of(message: AIMessage) -> list[dict[str, Any]]:
    """Write what an answer says: a text with its sources, and a refusal."""
    refusal = refusal_of(message)
    text = str(message.text)
    said = [text_part(text, annotations_of(message))] if text and text != refusal else []
    return [*said, *([{"type": "refusal", "refusal": refusal}] if refusal else [])]


def text_part(text: str, annotations: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Write a text."""
    return {"type": "output_text", "text": text, "annotations": [*annotations], "logprobs": []}


def refusal_of(message: AIMessage) -> str | None:
    """Return the words of a refusal; None where the answer is none."""
    blocks = message.content if isinstance(message.content, list) else ()
    said = [block["refusal"] for block in blocks if isinstance(block, dict) and block.get("type") == "refusal"]
    return next(iter([*said, message.additional_kwargs.get("refusal")]), None)


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
    return [
        {
            "id": f"{response_id.replace('resp_', 'fc_')}_{place}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": json.dumps(call["args"], ensure_ascii=False),
        }
        for place, call in enumerate(message.tool_calls)
    ]


def usage_of(message: AIMessage) -> dict[str, Any] | None:
    """Write the tokens that an answer took, over all members that were asked; None where they are unknown."""
    used = message.usage_metadata
    if used is None:
        return None
    read, wrote = used.get("input_token_details") or {}, used.get("output_token_details") or {}
    return {
        "input_tokens": used["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": read.get("cache_read") or 0,
            "cache_write_tokens": read.get("cache_creation") or 0,
        },
        "output_tokens": used["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": wrote.get("reasoning") or 0},
        "total_tokens": used["total_tokens"],
    }

"""Messages: OpenAI's messages, tools and response formats as LangChain takes them, and replies back.

Parts of a message that are no text (images, audio, files) are passed on as they are: what they point to is never fetched here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call

from langchain_rlfocal.execution import read_from_cache
from langchain_rlfocal.server.bodies import is_deeper
from langchain_rlfocal.server.errors import ApiError

MAX_DEPTH = 64
"""How deep the arguments of a tool call may be nested, which stand as text in a body."""

MAX_SCHEMA_BYTES = 200_000
"""What a schema may take as JSON: checking one and reading answers by it takes time for each part of it."""

_ROLES = ("system", "developer", "user", "assistant", "tool")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SCHEMES = ("http", "https", "data")
_CUT, _WITHHELD = ("length", "max_tokens", "model_length"), ("content_filter", "safety", "recitation")


# ---- what is asked


def messages_of(given: Any, *, most: int) -> list[BaseMessage]:
    """Read a conversation.

    Raises:
        ApiError: It is none, or has more than so many messages.
    """
    if not isinstance(given, list) or not given:
        raise ApiError(
            400, 'It must be a list of messages, such as [{"role": "user", "content": "Hello"}].', param="messages"
        )
    if len(given) > most:
        raise ApiError(
            400, f"There must be at most {most} messages, got {len(given)}. Leave some out.", param="messages"
        )
    return [_message_of(one, f"messages[{place}]") for place, one in enumerate(given)]


def _message_of(given: Any, where: str) -> BaseMessage:
    if not isinstance(given, dict):
        raise ApiError(400, "A message must be an object with a `role`.", param=where)
    role, content = given.get("role"), given.get("content")
    name = _text(given, "name", where)
    if role in ("system", "developer"):
        more = {"additional_kwargs": {"__openai_role__": "developer"}} if role == "developer" else {}
        return SystemMessage(_content_of(content, f"{where}.content", parts=("text",)), name=name, **more)
    if role == "user":
        parts = ("text", "image_url", "input_audio", "file")
        return HumanMessage(_content_of(content, f"{where}.content", parts=parts), name=name)
    if role == "tool":
        call_id = _text(given, "tool_call_id", where)
        if not call_id:
            raise ApiError(400, "A tool's message must name the call that it answers.", param=f"{where}.tool_call_id")
        return ToolMessage(_content_of(content, f"{where}.content", parts=("text",)), tool_call_id=call_id)
    if role == "assistant":
        return _assistant(given, where, name)
    raise ApiError(400, f"A role must be one of {', '.join(_ROLES)}, got {role!r:.60}.", param=f"{where}.role")


def _assistant(given: Mapping[str, Any], where: str, name: str | None) -> AIMessage:
    if given.get("function_call") is not None:
        raise ApiError(400, "`function_call` is no longer served. Give `tool_calls`.", param=f"{where}.function_call")
    calls = given.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ApiError(400, "Tool calls must be a list.", param=f"{where}.tool_calls")
    content = given.get("content")
    said = "" if content is None else _content_of(content, f"{where}.content", parts=("text", "refusal"))
    refusal = _text(given, "refusal", where)
    return AIMessage(
        said,
        tool_calls=[_call_of(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)],
        additional_kwargs={"refusal": refusal} if refusal else {},
        name=name,
    )


def _call_of(given: Any, where: str) -> ToolCall:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(400, "A tool call must have a `function` with `name` and `arguments`.", param=where)
    try:
        text = function.get("arguments") or "{}"
        orjson.loads(text)  # which refuses what members could not be sent: NaN, halves of characters, any depth
        arguments = json.loads(text)  # which keeps whole numbers of any size
    except (TypeError, ValueError):
        arguments = None
    if not isinstance(arguments, dict) or is_deeper(arguments, MAX_DEPTH):
        raise ApiError(
            400,
            f"Arguments must be a JSON object, as text, nested at most {MAX_DEPTH} deep.",
            param=f"{where}.function.arguments",
        )
    return tool_call(name=function["name"], args=arguments, id=_text(given, "id", where))


def _content_of(content: Any, where: str, *, parts: Sequence[str]) -> str | list[str | dict[Any, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, "Content must be a text or a list of parts.", param=where)
    return [_part_of(part, f"{where}[{place}]", parts) for place, part in enumerate(content)]


def _part_of(part: Any, where: str, known: Sequence[str]) -> dict[Any, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in known:
        raise ApiError(
            400, f"A part's type must be one of {', '.join(known)} here, got {kind!r:.60}.", param=f"{where}.type"
        )
    held = part.get(kind)
    if not isinstance(held, str if kind in {"text", "refusal"} else dict):
        raise ApiError(400, f"A part of the type {kind} must hold `{kind}`.", param=f"{where}.{kind}")
    if kind == "file" and isinstance(held, dict) and not isinstance(held.get("file_data"), str):
        rule = "No files are stored here, and none are fetched: send the file itself, as `file_data`."
        raise ApiError(400, rule, param=f"{where}.file.{'file_id' if 'file_id' in held else 'file_data'}")
    if kind == "image_url":
        url = part[kind].get("url")
        scheme = url.partition(":")[0].lower() if isinstance(url, str) else None
        if scheme not in _SCHEMES:
            raise ApiError(
                400,
                "An image must be a URL of http, https or data, got another. Send its bytes as data:image/png;base64,...",
                param=f"{where}.image_url.url",
            )
    kept: dict[Any, Any] = part
    return kept


def _text(given: Mapping[str, Any], key: str, where: str) -> str | None:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise ApiError(400, f"`{key}` must be a text.", param=f"{where}.{key}")
    return value


def tools_of(given: Any, *, most: int) -> list[dict[str, Any]]:
    """Read tools, which stay in OpenAI's form.

    Raises:
        ApiError: They are none, too many, or share a name.
    """
    if given is None:
        return []
    if not isinstance(given, list):
        raise ApiError(400, "Tools must be a list.", param="tools")
    if len(given) > most:
        raise ApiError(400, f"There must be at most {most} tools, got {len(given)}. Leave some out.", param="tools")
    names = set[str]()
    for place, tool in enumerate(given):
        where = f"tools[{place}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise ApiError(400, f'A tool\'s type must be "function", got {kind!r:.60}.', param=f"{where}.type")
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            rule = "must have 1 to 64 characters of a-z, A-Z, 0-9, _ and -"
            raise ApiError(400, f"A tool's name {rule}, got {name!r:.80}.", param=f"{where}.function.name")
        if name in names:
            raise ApiError(400, f"A tool's name must be its own, got `{name}` twice.", param=f"{where}.function.name")
        if not isinstance(function.get("parameters", {}), dict | None):
            raise ApiError(400, "Parameters must be a JSON schema.", param=f"{where}.function.parameters")
        _check_size(function.get("parameters"), f"{where}.function.parameters")
        for key, types, rule in (("description", str, "a text"), ("strict", bool, "true or false")):
            if not isinstance(function.get(key), types | None):
                raise ApiError(400, f"It must be {rule}.", param=f"{where}.function.{key}")
        names.add(name)
    tools: list[dict[str, Any]] = given
    return tools


def binding_of(body: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Read how tools and the response format are bound: arguments of `bind_tools`.

    Raises:
        ApiError: A choice names no tool, or a format is none.
    """
    binding: dict[str, Any] = {}
    if (choice := body.get("tool_choice")) is not None:
        binding["tool_choice"] = _choice_of(choice, names)
    if (parallel := body.get("parallel_tool_calls")) is not None:
        if not isinstance(parallel, bool):
            raise ApiError(400, "It must be true or false.", param="parallel_tool_calls")
        binding["parallel_tool_calls"] = parallel
    if (form := body.get("response_format")) is not None and (read := _format_of(form)) is not None:
        binding["response_format"] = read
    return binding


def _choice_of(choice: Any, names: Sequence[str]) -> str:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") == "function" and name in names:
            return str(name)
    elif choice in ("none", "auto") or (choice == "required" and names):
        return str(choice)
    known = f"one of the tools: {', '.join(names)}" if names else "a tool, of which there is none"
    raise ApiError(
        400,
        'It must be "none", "auto", "required", or {"type": "function", "function": {"name": ...}} with the name of '
        + known
        + ".",
        param="tool_choice",
    )


def _format_of(form: Any) -> dict[str, Any] | None:
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise ApiError(
            400, f"The type must be text, json_object or json_schema, got {kind!r:.60}.", param="response_format.type"
        )
    described = form.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        raise ApiError(400, "It must have a `schema`.", param="response_format.json_schema")
    if not isinstance(name := described.get("name"), str) or not _NAME.fullmatch(name):
        raise ApiError(
            400, "It must have a plain `name` of 1 to 64 characters.", param="response_format.json_schema.name"
        )
    _check_size(described["schema"], "response_format.json_schema.schema")
    return {"type": "json_schema", "json_schema": described}


def _check_size(schema: Any, where: str) -> None:
    size = len(orjson.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise ApiError(
            400, f"A schema must take at most {MAX_SCHEMA_BYTES:,} bytes, got {size:,}. Shorten it.", param=where
        )


# ---- what is answered


def content_of(message: AIMessage) -> tuple[str | None, str | None]:
    """Return a reply's text and its refusal, as far as there are any."""
    blocks = message.content if isinstance(message.content, list) else ()
    said = [block.get("refusal") for block in blocks if isinstance(block, dict) and block.get("type") == "refusal"]
    said.append(message.additional_kwargs.get("refusal"))
    refusal = next((one for one in said if isinstance(one, str) and one), None)
    text = str(message.text)
    return text or (None if refusal or message.tool_calls else ""), refusal


def tool_calls_of(message: AIMessage) -> list[dict[str, Any]]:
    """Write a reply's tool calls."""
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)},
        }
        for call in message.tool_calls
    ]


def finish_reason_of(message: AIMessage) -> str:
    """Say in OpenAI's words why an answer ended."""
    if message.tool_calls:
        return "tool_calls"
    metadata = message.response_metadata
    reason = str(
        metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("done_reason") or ""
    ).lower()
    return "length" if reason in _CUT else "content_filter" if reason in _WITHHELD else "stop"


def logprobs_of(message: AIMessage) -> dict[str, Any] | None:
    """Return the log-probabilities of a reply's tokens, where its author gave them."""
    given = message.response_metadata.get("logprobs")
    tokens = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(tokens, list):
        return None
    return {"content": [_token_of(token) for token in tokens], "refusal": None}


def _token_of(token: Mapping[str, Any]) -> dict[str, Any]:
    alternatives = token.get("top_logprobs") or []
    return {**_probability_of(token), "top_logprobs": [_probability_of(one) for one in alternatives]}


def _probability_of(token: Mapping[str, Any]) -> dict[str, Any]:
    text = str(token.get("token", ""))
    spelled = token.get("bytes")
    return {"token": text, "logprob": token.get("logprob"), "bytes": [*text.encode()] if spelled is None else spelled}


def usage_of(message: AIMessage) -> dict[str, Any] | None:
    """Write the tokens that an answer took, over all members that were asked; None where they are unknown."""
    used = message.usage_metadata
    if used is None:
        return None
    written = used.get("output_token_details") or {}
    return {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "total_tokens": used["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": read_from_cache(used) or 0},
        "completion_tokens_details": {"reasoning_tokens": int(written.get("reasoning") or 0)},
    }

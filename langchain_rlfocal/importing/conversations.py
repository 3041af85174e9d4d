"""Conversations: what was sent and what came back, in the forms in which programs keep them.

OpenAI's chat and responses, Anthropic's messages, LangChain's (plain and serialised), and plain texts. What has none of these forms
is None: a reader counts it. Images and files are part of a question: each stands in the conversation by its address or, where its
bytes were sent, by their digest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from langchain_rlfocal.importing.files import parsed

_ROLES = {
    "human": "user",
    "ai": "assistant",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "AIMessageChunk": "assistant",
    "model": "assistant",
}
_QUESTIONS = (
    "question",
    "query",
    "prompt",
    "input",
    "problem",
    "text",
    "user_input",
    "instruction",
    "request",
    "content",
)
_ANSWERS = ("answer", "output", "response", "completion", "text", "result", "prediction", "content", "generated_text")
_BESIDE = re.compile(r"(image|file|audio|video|attachment|document|context|passage)s?(_urls?)?", re.IGNORECASE)
_NOT_SENT = {"thinking", "redacted_thinking", "reasoning", "tool_use", "server_tool_use", "tool_call", "function_call"}
_BYTES = {"data", "base64", "file_data"}
_ADDRESSES = ("url", "file_id", "fileId", "file_uri", "fileUri", "uri", "sha256")


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent: the question's text, and the conversation where it is more than that text."""

    query: str
    messages: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """What came back: its text, and the tool calls in it as JSON, each None where there is none."""

    text: str | None
    calls: str | None = None


def text_of(content: Any) -> str | None:
    """Return the text of a message's content: itself, or the texts among its parts; None where there is none."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return text_of(content.get("text", content.get("content")))
    if isinstance(content, Sequence):
        texts = [
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | Mapping)
        ]
        found = [text for text in texts if isinstance(text, str)]
        return "\n".join(found) if found else None
    return None


def sent_of(value: Any) -> Sent | None:
    """Read what was sent; None where it holds no text of a user."""
    value = parsed(value)
    if isinstance(value, str):
        return Sent(value) if value.strip() else None
    if isinstance(value, Mapping):
        for name in ("messages", "input", "prompts", "args", "inputs"):
            inner = parsed(value.get(name))
            if isinstance(inner, list) and inner:
                head = value.get("system") or value.get("instructions")
                found = sent_of([{"role": "system", "content": head}, *inner] if isinstance(head, str) else inner)
                if found is not None:
                    return found
        if isinstance(_opened(value).get("content"), str | list) and ("role" in value or "kwargs" in value):
            return sent_of([value])
        for name in _QUESTIONS:
            if (found := sent_of(value.get(name))) is not None:
                beside = [
                    attached({"type": what[1], field: value[field]})
                    for field in value
                    if field != name and value[field] and (what := _BESIDE.fullmatch(field))
                ]
                if found.messages or not beside:
                    return found
                question = {"type": "text", "text": found.query}
                return Sent(found.query, ({"role": "user", "content": [question, *beside]},))
        texts = [text for text in value.values() if isinstance(text, str) and text.strip()]
        return Sent(texts[0]) if len(texts) == 1 else None
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list | str):
            return sent_of(value[0])  # LangChain sends batches
        messages: list[dict[str, Any]] = []
        asked = None
        for item in value:
            if not isinstance(item, Mapping):
                return None
            message = _opened(item)
            content = message.get("content", message.get("output"))
            role = str(message.get("role") or message.get("type") or "user")
            role = _ROLES.get(role, role)
            text, beside = text_of(content) or "", _attachments(content)
            messages.append(
                {
                    "role": role,
                    "content": [*([{"type": "text", "text": text}] if text else ()), *beside] if beside else text,
                }
            )
            if role == "user" and text.strip():
                asked = text
        if asked is None:
            return None
        return Sent(asked, tuple(messages) if len(messages) > 1 or isinstance(messages[0]["content"], list) else ())
    return None


def attached(part: Mapping[str, Any]) -> dict[str, str]:
    """Write a part of a message that is no text in few words: what it is, and its address or the digest of its bytes."""
    inner = [part, *(value for value in part.values() if isinstance(value, Mapping))]
    kinds = " ".join(str(of.get(name, "")) for of in inner for name in ("type", "mime_type", "media_type")).lower()
    kind = next((name for name in ("tool_result", "image", "audio", "video") if name in kinds), "file")
    for of in inner if kind != "tool_result" else ():
        for name, value in of.items():
            if not isinstance(value, str) or not value:
                continue
            if value.startswith("data:") or name in _BYTES:
                return {"type": kind, "sha256": _digest(value.partition(";base64,")[2] or value)}
            if name in _ADDRESSES or value.startswith(("http://", "https://")):
                return {"type": kind, name if name in _ADDRESSES else "url": value}
    # A tool's result is named by its call, whose id is another one each time.
    whole = {name: value for name, value in part.items() if name not in {"tool_use_id", "cache_control"}}
    return {"type": kind, "sha256": _digest(json.dumps(whole, sort_keys=True, default=str))}


def _attachments(content: Any) -> list[dict[str, str]]:
    """Return the parts of a message's content that are no texts, without what a model thought and which tools it called."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return []
    return [
        attached(part)
        for part in content
        if isinstance(part, Mapping) and not isinstance(part.get("text"), str) and part.get("type") not in _NOT_SENT
    ]


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def received_of(value: Any) -> Received | None:
    """Read what came back; None where it holds neither a text nor a tool call."""
    value = parsed(value)
    if value is None:
        return None
    if isinstance(value, str):
        return Received(value)
    if isinstance(value, bool | int | float):
        return Received(json.dumps(value))
    if isinstance(value, list):
        items = [item for item in value if isinstance(item, Mapping)]
        if items and all("type" in item for item in items) and not any("kwargs" in item for item in items):
            return _of_parts(items)
        return received_of(value[-1]) if value else None
    if not isinstance(value, Mapping):
        return None
    for name in ("choices", "generations", "messages"):
        inner = value.get(name)
        if isinstance(inner, list) and inner:
            return received_of(inner[-1] if name == "messages" else inner[0])
    if isinstance(value.get("message"), Mapping):
        return received_of(value["message"])
    message = _opened(value)
    if "content" in message or "tool_calls" in message:
        content, calls = message.get("content"), _calls(message.get("tool_calls"))
        if isinstance(content, list):
            of_parts = _of_parts([part for part in content if isinstance(part, Mapping)])
            content, calls = (of_parts.text, calls or of_parts.calls) if of_parts else (None, calls)
        return Received(content or None, calls) if calls else Received(content) if isinstance(content, str) else None
    if isinstance(value.get("output"), list):
        return received_of(value["output"])
    for name in _ANSWERS:
        if name in value and (found := received_of(value[name])) is not None:
            return found
    texts = [text for text in value.values() if isinstance(text, str)]
    return Received(texts[0]) if len(texts) == 1 else None


def usage_of(value: Any) -> tuple[float | None, float | None]:
    """Read the tokens of prompt and response from a usage object of any of the providers."""
    if not isinstance(value, Mapping):
        return None, None
    names = (
        ("prompt_tokens", "input_tokens", "input", "prompt"),
        ("completion_tokens", "output_tokens", "output", "completion"),
    )
    found = [next((value[n] for n in of if isinstance(value.get(n), int | float)), None) for of in names]
    return found[0], found[1]


def _of_parts(parts: Sequence[Mapping[str, Any]]) -> Received | None:
    """Read the parts of a message: texts, tool calls, and messages within the output of OpenAI's responses."""
    texts: list[str] = []
    calls: list[Any] = []
    for part in parts:
        kind = part.get("type")
        if kind in {"text", "output_text"} and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "message":
            inner = received_of({"content": part.get("content")})
            texts += [inner.text] if inner and inner.text is not None else []
        elif kind in {"tool_use", "function_call", "tool_call"}:
            calls.append(part)
    found = _calls(calls)
    return Received("\n".join(texts) if texts else None, found) if texts or found else None


def _calls(calls: Any) -> str | None:
    """Write tool calls in one form: a list of names and arguments, as JSON with sorted keys."""
    if not isinstance(calls, list) or not calls:
        return None
    found = []
    for call in calls:
        if isinstance(call, Mapping):
            inner = call.get("function")
            of: Mapping[str, Any] = inner if isinstance(inner, Mapping) else call
            arguments: Any = next((of[n] for n in ("arguments", "args", "input") if n in of), {})
            found.append({"name": of.get("name"), "args": parsed(arguments)})
    return json.dumps(found, ensure_ascii=False, sort_keys=True)


def _opened(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message's fields: LangChain's serialised form keeps them under `kwargs`, and an older one under `data`."""
    for name in ("kwargs", "data"):
        inner = message.get(name)
        if isinstance(inner, Mapping) and "content" in inner:
            last = message.get("id")
            kind = last[-1] if isinstance(last, list) and last else message.get("type", "user")
            return {**inner, "role": inner.get("role") or inner.get("type") or kind}
    return message

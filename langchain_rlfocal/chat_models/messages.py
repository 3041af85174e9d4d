"""Messages: a conversation as one member can read it, no matter which member answered its earlier turns.

An earlier turn may be another member's, or another provider's. What only that provider understands (reasoning, signatures, its
ids, its calls to its own tools) is left out; what every provider demands holds: each tool call has one result right behind it,
each result has its call, and ids are short, plain and used once. A member that goes on in a tool loop of its own gets its own
message back, since some providers want to see their reasoning again.

No message is changed in place, and no tool's result is invented.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_rlfocal.execution import plain

KEY = "rlfocal"
"""Key of `response_metadata` that says how an ensemble's message came about; `metadata` writes it."""

NATIVE_KEY = "native"
"""Key below it for the winner's own message: `{"member": name, "message": native_of(...)}`."""

_MAX_NATIVE_CHARS = 100_000
"""A message that is longer as JSON is not kept, since conversations are stored and traced whole, turn after turn."""

_PLAIN_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
"""Ids that every provider takes: Anthropic's characters, OpenAI's length."""

_ID_KEYS = frozenset({"id", "call_id", "tool_call_id", "tool_use_id"})
_ARGUMENT_KEYS = frozenset({"args", "arguments", "input"})
_CALL_KEYS = frozenset({"name", "args", "id", "type"})
_SPOKEN_TYPES = ("text", "tool_use", "tool_call", "function_call")
_REPLAY_KEYS = frozenset({"extras", "signature", "thought_signature"})
"""Keys by which providers sign a block or a call, and expect it back unchanged."""

_INNER_KEYS = frozenset({"content", "extras", "metadata", "value"})
"""Keys under which a content block can hold others."""

_REPEATED_KWARGS = frozenset({"tool_calls", "function_call", "parsed", "refusal"})
"""Keys of `additional_kwargs` that repeat the message, or that no provider wants back."""

_READING_METADATA = ("output_version", "model_provider")
"""Keys of `response_metadata` by which partner packages recognise the form of the content."""

_ORPHANED = "tool result(s) that answer no tool call"
_UNANSWERED = "tool call(s) without a result"
_SILENT = "assistant message(s) without text or tool calls"


def native_of(message: AIMessage) -> dict[str, Any] | None:
    """Return a member's own message as JSON, so that the same member can go on from it in a tool loop.

    Returns:
        Arguments of an `AIMessage` in JSON values, without usage. None where the neutral reply loses nothing that a
        provider may want back: no tool calls, or nothing but them and text. Also None where JSON cannot hold the content,
        or needs more than 100,000 characters.
    """
    if not message.tool_calls:
        return None
    metadata = {key: message.response_metadata[key] for key in _READING_METADATA if key in message.response_metadata}
    if inner := _nested(message):
        metadata[KEY] = {NATIVE_KEY: inner}
    kwargs = {k: v for k, v in message.additional_kwargs.items() if k not in _REPEATED_KWARGS and v}
    blocks = message.content if isinstance(message.content, list) else []
    if not (inner or kwargs or any(map(_is_more_than_text, blocks))):
        return None
    own = {
        "content": message.content,
        "tool_calls": [
            {"name": call["name"], "args": call["args"], "id": call.get("id")} for call in message.tool_calls
        ],
        "response_metadata": metadata,
        "id": message.id,
        "additional_kwargs": {k: v for k, v in kwargs.items() if plain(v, most=_MAX_NATIVE_CHARS) is not None},
    }
    kept: dict[str, Any] | None = plain(own, most=_MAX_NATIVE_CHARS)
    return kept


def _is_more_than_text(block: str | dict[Any, Any]) -> bool:
    if isinstance(block, str):
        return False
    return block.get("type", "text") not in _SPOKEN_TYPES or not block.keys().isdisjoint(_REPLAY_KEYS)


def history_for(messages: Sequence[BaseMessage], member_name: str, *, is_anthropic: bool = False) -> list[BaseMessage]:
    """Return a conversation as one member can read it.

    Assistant messages become neutral: their text, and their tool calls with the results that follow them. Where the
    ensemble kept the member's own message (`native_of`), and neither its calls nor its text have been changed since, the
    member gets that instead, under the conversation's tool-call ids. It is idempotent.

    Args:
        messages: The conversation; not changed. Messages that need no change are passed on as the same objects.
        member_name: The member that is to be asked.
        is_anthropic: True to keep `cache_control` on content blocks, which other providers refuse.
    """
    if not needs_reading(messages):
        return [*messages]
    history: list[BaseMessage] = []
    for message, calls in _pair(messages)[0]:
        entry = message
        if isinstance(message, AIMessage):
            entry = _native_for(message, calls, member_name) or _neutral(message, calls)
        history.append(entry if is_anthropic else _without_cache_marks(entry))
    return history


def authors_of(messages: Sequence[BaseMessage]) -> frozenset[str]:
    """Name the members whose own messages `history_for` gives back; all others read the same conversation."""
    kept = (_nested(message) for message in messages if isinstance(message, AIMessage))
    return frozenset(str(one.get("member")) for one in kept if one is not None)


def repairs_of(messages: Sequence[BaseMessage]) -> list[str]:
    """Say in a line each what `history_for` leaves out of a conversation for every member, without any text of it."""
    left_out = _pair(messages)[1] if needs_reading(messages) else Counter[str]()
    return [f"left out {left_out[what]} {what}" for what in (_ORPHANED, _UNANSWERED, _SILENT) if left_out[what]]


def needs_reading(messages: Sequence[BaseMessage]) -> bool:
    """Tell whether any message can need a change: an answer, a tool's result, or content in blocks."""
    return any(isinstance(m, AIMessage | ToolMessage) or not isinstance(m.content, str) for m in messages)


# ---- pairing


def _pair(messages: Sequence[BaseMessage]) -> tuple[list[tuple[BaseMessage, Sequence[ToolCall]]], Counter[str]]:
    """Bring tool calls and their results together.

    Returns:
        The messages to keep, each with its answered calls under unique ids; and how many of what kind are left out.
    """
    flat = [part for message in messages for part in with_results_apart(message)]
    entries: list[tuple[BaseMessage, Sequence[ToolCall]]] = []
    left_out = Counter[str]()
    used: set[str] = set()
    position = 0
    while position < len(flat):
        message, start = flat[position], position
        position += 1
        if isinstance(message, ToolMessage):
            left_out[_ORPHANED] += 1
            continue
        if not isinstance(message, AIMessage):
            entries.append((message, ()))
            continue
        results: list[ToolMessage] = []
        while position < len(flat) and isinstance(result := flat[position], ToolMessage):
            results.append(result)
            position += 1
        answers = _answers(message.tool_calls, results)
        left_out[_ORPHANED] += len(results) - len(answers)
        left_out[_UNANSWERED] += len(message.tool_calls) - len(answers)
        ids = {i: _free_id(message.tool_calls[i], f"{start}/{i}", used) for i in sorted(answers.values())}
        if ids or _text_of(message):
            entries.append((message, [_neutral_call(message.tool_calls[i], call_id) for i, call_id in ids.items()]))
            entries += [(_answering(results[place], ids[i]), ()) for place, i in answers.items()]
        else:
            left_out[_SILENT] += 1
    return entries, left_out


def _answers(calls: Sequence[ToolCall], results: Sequence[ToolMessage]) -> dict[int, int]:
    """Map the index of each result that answers a call to the call's; the first of each for each."""
    waiting: dict[str, list[int]] = {}
    for index in reversed(range(len(calls))):
        waiting.setdefault(calls[index].get("id") or "", []).append(index)
    return {place: waiting[r.tool_call_id].pop() for place, r in enumerate(results) if waiting.get(r.tool_call_id)}


def _free_id(call: ToolCall, place: str, used: set[str]) -> str:
    """Return an unused id that every provider takes: the old one if it is, else a hash of the call's position."""
    new = old = call.get("id") or ""
    if old in used or not _PLAIN_ID.fullmatch(old):
        new = f"call_{hashlib.sha256(f'{place}/{old}'.encode(errors='surrogatepass')).hexdigest()[:24]}"
    used.add(new)
    return new


def _answering(result: ToolMessage, call_id: str) -> ToolMessage:
    return result if result.tool_call_id == call_id else result.model_copy(update={"tool_call_id": call_id})


def with_results_apart(message: BaseMessage) -> Iterator[BaseMessage]:
    """Make messages of the tool results that Anthropic's form puts into a human message."""
    content = message.content
    if not (isinstance(message, HumanMessage) and isinstance(content, list) and any(map(_is_result, content))):
        yield message
        return
    for block in content:
        if isinstance(block, dict) and _is_result(block):
            yield ToolMessage(
                block.get("content") or "",
                tool_call_id=str(block.get("tool_use_id") or ""),
                status="error" if block.get("is_error") else "success",
            )
    if rest := [block for block in content if not _is_result(block)]:
        yield message.model_copy(update={"content": rest})


def _is_result(block: str | dict[Any, Any]) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


# ---- assistant messages


def _neutral(message: AIMessage, calls: Sequence[ToolCall]) -> AIMessage:
    """Reduce a message to what every member can read; one that holds nothing else is passed on itself."""
    neutral = AIMessage(_text_of(message), tool_calls=list(calls), name=message.name)
    return message if type(message) is AIMessage and message == neutral else neutral


def _neutral_call(call: ToolCall, call_id: str) -> ToolCall:
    is_neutral = call.get("id") == call_id and call.keys() <= _CALL_KEYS
    return call if is_neutral else tool_call(name=call["name"], args=call["args"], id=call_id)


def _text_of(message: AIMessage) -> str:
    """Join the text of a message, blocks without a type included; of a refusal that is no text return the words."""
    blocks = message.content if isinstance(message.content, list) else [message.content or ""]
    texts = (block if isinstance(block, str) else block.get("text") for block in blocks if _has_type(block, "text"))
    text = "".join(said for said in texts if isinstance(said, str))
    if text.strip() or message.tool_calls:
        return text if text.strip() else ""
    refusals = [block["refusal"] for block in blocks if isinstance(block, dict) and _has_type(block, "refusal")]
    return next(filter(None, [*refusals, message.additional_kwargs.get("refusal")]), "")


def _has_type(block: str | dict[Any, Any], name: str) -> bool:
    return name == "text" if isinstance(block, str) else block.get("type", "text") == name


def _native_for(message: AIMessage, calls: Sequence[ToolCall], member_name: str) -> AIMessage | None:
    """Return the member's own message in place of ours; None where it is another's or was changed since."""
    kept = _nested(message)
    if not calls or kept is None or kept.get("member") != member_name:
        return None
    if "message" not in kept:  # it is the member's own already
        return message if message.tool_calls == calls else None
    try:
        own = AIMessage(**kept["message"])
        ids = {old["id"]: new["id"] for old, new in zip(own.tool_calls, calls, strict=True)}
    except (TypeError, ValueError, KeyError, AttributeError):  # a stored conversation can hold anything
        return None
    is_changed = [(c["name"], c["args"]) for c in own.tool_calls] != [
        (c["name"], c["args"]) for c in message.tool_calls
    ]
    if is_changed or len(ids) < len(calls) or _text_of(own).strip() != _text_of(message).strip():
        return None
    return own.model_copy(
        update={
            "content": _renamed(own.content, ids),
            "tool_calls": list(calls),
            "additional_kwargs": _renamed(own.additional_kwargs, ids),
            # An ensemble's own message says by itself whose it is; any other gets the mark that it is native here.
            "response_metadata": {KEY: {NATIVE_KEY: {"member": member_name}}, **own.response_metadata},
            "name": message.name,
        }
    )


def _nested(message: AIMessage) -> Mapping[str, Any] | None:
    """Return the winner's own message as an ensemble's message keeps it."""
    facts = message.response_metadata.get(KEY)
    kept = facts.get(NATIVE_KEY) if isinstance(facts, Mapping) else None
    return kept if isinstance(kept, Mapping) else None


def _renamed(value: Any, ids: Mapping[str | None, str | None]) -> Any:
    """Copy a value with its tool-call ids replaced, also where they are keys, as in Gemini's signatures."""
    if isinstance(value, list):
        return [_renamed(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    if value and value.keys() <= ids.keys():
        return {ids[key]: item for key, item in value.items()}
    renamed = {}
    for key, item in value.items():
        if key in _ID_KEYS and isinstance(item, str):
            renamed[key] = ids.get(item, item)
        else:
            renamed[key] = item if key in _ARGUMENT_KEYS else _renamed(item, ids)
    return renamed


# ---- marks for one provider's cache


def _without_cache_marks(message: BaseMessage) -> BaseMessage:
    content = _unmarked(message.content)
    return message if content == message.content else message.model_copy(update={"content": content})


def _unmarked(value: Any) -> Any:
    """Drop `cache_control` from content blocks."""
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _unmarked(item) if key in _INNER_KEYS else item for key, item in value.items() if key != "cache_control"
    }

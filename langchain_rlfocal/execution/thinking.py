"""Thinking: a member's thinking mode, where the conversation does not let it think.

Some providers want to see a model's reasoning again beside each tool call that it goes on from: Anthropic and those that
follow it while thinking is enabled, DeepSeek and Moonshot as `reasoning_content`, Gemini as signatures. A call that another
member made has none. Such a member is asked without its thinking for that turn: beforehand where its settings and the
conversation tell, else once more after the provider has said so.

Nothing here changes a caller's model or arguments, or switches off a mode that no provider has objected to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

DISABLED = {"type": "disabled"}
"""Thinking off, in Anthropic's form, which others have taken over."""

_HOLDERS = ("extra_body", "model_kwargs", "additional_model_request_fields")
"""Settings that hold further ones, as providers name them."""

_STRICT = frozenset({"enabled"})
"""Types of thinking for which each tool call must have its reasoning; adaptive thinking does without."""

_OFF_TYPES = frozenset({"disabled", "off", "none"})
_BLOCKS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_KWARGS = frozenset({"reasoning_content", "reasoning_details", "thinking_blocks", "reasoning"})


def cannot_think(model: BaseChatModel, arguments: Mapping[str, Any], messages: Sequence[BaseMessage]) -> bool:
    """Tell whether a model would think about a conversation that its provider refuses to have thought about.

    Args:
        model: The model.
        arguments: What it is called with.
        messages: The conversation as it is put to the model.
    """
    return _lacks_thinking(messages) and bool(
        calm_settings(arguments, everything=False) or calm_settings(_fields_of(model), everything=False)
    )


def calm_model(model: BaseChatModel, *, everything: bool) -> BaseChatModel:
    """Return a copy that does not think; the model itself where its fields say nothing of it. See `calm_settings`."""
    changes = calm_settings(_fields_of(model), everything=everything)
    if not changes:
        return model
    copied = model.model_copy()
    vars(copied).pop("_serialized", None)  # the cache key, which is made of all fields: this one answers differently
    vars(copied).update(changes)  # past validation, which might refuse a value, or make clients anew
    return copied


def calm_settings(settings: Mapping[str, Any], *, everything: bool) -> dict[str, Any]:
    """Return other values for the settings that let a model think; empty where none does.

    Args:
        settings: A call's arguments, or a model's fields.
        everything: True for whatever switches thinking on, False for what wants reasoning beside each tool call.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        calm = _calm(name, value, everything=everything)
        if calm is not None:
            found[name] = calm
        elif name in _HOLDERS and isinstance(value, Mapping) and (inner := calm_settings(value, everything=everything)):
            found[name] = {**value, **inner}
    return found


def disabling(model: BaseChatModel) -> dict[str, Any]:
    """Return the argument that switches off what a model thinks by default; none where its own fields do so already."""
    own = _fields_of(model)
    if "thinking" not in own and calm_settings(own, everything=True):
        return {}
    if "thinking" not in own and "extra_body" in own:  # a client of openai knows no argument of this name
        return {"extra_body": {**(own["extra_body"] or {}), "thinking": dict(DISABLED)}}
    return {"thinking": dict(DISABLED)}


def _calm(name: str, value: Any, *, everything: bool) -> Any:
    """Return what switches one setting off; None where it is none of thinking, or is off."""
    if name == "thinking" and isinstance(value, Mapping):
        kind = value.get("type")
        is_on = kind not in _OFF_TYPES if everything else kind in _STRICT
        return dict(DISABLED) if is_on else None
    if not everything:
        return None
    if name == "reasoning" and isinstance(value, Mapping):
        return {"enabled": False} if value.get("enabled") is not False else None
    if name in {"thinking", "reasoning", "enable_thinking"} and value is True:
        return False
    return None


def _fields_of(model: BaseChatModel) -> dict[str, Any]:
    held = vars(model)
    names = ("thinking", "reasoning", "enable_thinking", *_HOLDERS)
    return {name: held[name] for name in names if name in held and name in type(model).model_fields}


def _lacks_thinking(messages: Sequence[BaseMessage]) -> bool:
    """Tell whether a tool loop that is under way holds calls without reasoning; what was settled before it may."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return False
        if isinstance(message, AIMessage) and message.tool_calls and not _has_thinking(message):
            return True
    return False


def _has_thinking(message: AIMessage) -> bool:
    blocks = message.content if isinstance(message.content, list) else []
    kinds = {block.get("type") for block in blocks if isinstance(block, dict)}
    return not kinds.isdisjoint(_BLOCKS) or any(message.additional_kwargs.get(name) for name in _KWARGS)

"""Clients: a copy of a chat model without retries of its client, and, where it must be, without thinking.

Providers' clients ask again by themselves. Under an ensemble that asks again too, attempts would multiply, and a circuit
breaker would see one failure of three. And some providers refuse to have a model think about a tool call that another model
made, since its reasoning is missing.

The caller's model never changes: a copy is made, whose parameters, cache key and trace are the same, and whose clients share
their connections with the caller's.
"""

import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

logger = logging.getLogger(__name__)

# ---- without retries

_CLIENTS = ("root_client", "root_async_client", "client", "async_client", "_client", "_async_client")
"""Under which names providers' models keep their clients, or the one resource of theirs that they use."""

_kept: dict[tuple[int, float | None], tuple[weakref.ref[BaseChatModel], dict[str, Any], BaseChatModel | None]] = {}
_lock = threading.RLock()  # reentrant: a model may be collected, and then forgotten, while one is being remembered


def without_retries(model: BaseChatModel, *, timeout_s: float | None = None) -> BaseChatModel:
    """Return the same model with clients that make one attempt.

    Known are models whose clients have `with_options` (OpenAI, Anthropic, Groq and those built alike), and those that read a
    field `max_retries` at each call (Google, Mistral). Any other is asked as it is.

    Args:
        model: Any chat model.
        timeout_s: After how many seconds a client with `with_options` is to give up, where it has no time-out of its own that
            is shorter; None leaves that to it. Clients measure each of connecting, sending and silence while reading.

    Returns:
        A copy, the same one as long as nothing is set on the model; the model itself where it has nothing to switch off.
    """
    key = (id(model), timeout_s)
    kept = _kept.get(key)
    if kept is None or not _is_unchanged(model, kept[1]):
        with _lock:
            fields = dict(vars(model))
            kept = weakref.ref(model, lambda _: _kept.pop(key, None)), fields, _copy_of(model, timeout_s)
            _kept[key] = kept
    return model if kept[2] is None else kept[2]


def _is_unchanged(model: BaseChatModel, fields: dict[str, Any]) -> bool:
    try:
        return vars(model) == fields
    except Exception:  # noqa: BLE001  # a field may be anything, such as an array
        return False


def _copy_of(model: BaseChatModel, timeout_s: float | None) -> BaseChatModel | None:
    """Make the copy; None where there is nothing to change, or it cannot be made."""
    try:
        # An ensemble asks its members without retries already.
        return None if model._llm_type == "rlfocal" else _changed(model, timeout_s)  # noqa: SLF001
    except Exception as error:  # noqa: BLE001  # any model may come, with any client
        # What it says may hold the client's key.
        kinds = type(model).__name__, type(error).__name__
        logger.debug("%s is asked with a client that may retry by itself, since copying it raised %s.", *kinds)
        return None


def _changed(model: BaseChatModel, timeout_s: float | None) -> BaseChatModel | None:
    copied = model.model_copy()
    changes: dict[str, Any] = {}
    made: dict[int, Any] = {}  # by client, since several fields can hold the same
    has_options = False
    for name in _CLIENTS:
        held = getattr(copied, name, None)
        client = held if _has_options(held) else getattr(held, "_client", None)
        if not _has_options(client):
            continue
        has_options = True
        changed = made.setdefault(id(client), _without_client_retries(client, timeout_s))
        if changed is not client:
            resource: Any = type(held)
            changes[name] = changed if client is held else resource(changed)  # a resource keeps methods of its client
    if not has_options and _reads_field(model) and model.max_retries != 1:  # type: ignore[attr-defined]
        changes["max_retries"] = 1  # some count attempts here, and take 0 for their default
        if model.is_lc_serializable():
            # The cache key is made of all fields, and must stay the one of the caller's model.
            vars(copied)["_serialized"] = model.model_copy()._serialized  # noqa: SLF001
    vars(copied).update(changes)  # past validation, which might refuse a value, or make clients again
    return copied if changes else None


def _has_options(client: Any) -> bool:
    """Recognise the clients of OpenAI and of those generated like it."""
    return isinstance(getattr(client, "max_retries", None), int) and callable(getattr(client, "with_options", None))


def _reads_field(model: BaseChatModel) -> bool:
    return "max_retries" in type(model).model_fields and isinstance(getattr(model, "max_retries", None), int)


def _without_client_retries(client: Any, timeout_s: float | None) -> Any:
    options: dict[str, Any] = {"max_retries": 0} if client.max_retries else {}
    timeout = _shorter(client.timeout, timeout_s)
    if timeout != client.timeout:
        options["timeout"] = timeout
    return client.with_options(**options) if options else client


def _shorter(own: Any, limit_s: float | None) -> Any:
    """Return the time-out that is over first, in the form of the client's own: seconds, or an object of httpx."""
    if limit_s is None or own is None:
        return limit_s if own is None else own
    if isinstance(own, int | float):
        return min(own, limit_s)
    parts = {name: getattr(own, name) for name in ("connect", "read", "write", "pool")}
    return type(own)(**{name: limit_s if part is None else min(part, limit_s) for name, part in parts.items()})


# ---- without thinking

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
    """Tell whether a model, called with these arguments, would think about a conversation of which its provider refuses that."""
    return _lacks_thinking(messages) and bool(
        thinking_switched_off(arguments, everything=False) or thinking_switched_off(_fields_of(model), everything=False)
    )


def without_thinking(model: BaseChatModel, *, everything: bool) -> BaseChatModel:
    """Return a copy that does not think; the model itself where its fields say nothing of it. See `thinking_switched_off`."""
    changes = thinking_switched_off(_fields_of(model), everything=everything)
    if not changes:
        return model
    copied = model.model_copy()
    vars(copied).pop("_serialized", None)  # the cache key, which is made of all fields: this one answers differently
    vars(copied).update(changes)  # past validation, which might refuse a value, or make clients again
    return copied


def thinking_switched_off(settings: Mapping[str, Any], *, everything: bool) -> dict[str, Any]:
    """Return other values for the settings that let a model think; empty where none does.

    Args:
        settings: A call's arguments, or a model's fields.
        everything: True for all that switches thinking on, False for what wants reasoning beside each tool call.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        changed = _switched_off(name, value, everything=everything)
        if changed is not None:
            found[name] = changed
        elif name in _HOLDERS and isinstance(value, Mapping):
            inner = thinking_switched_off(value, everything=everything)
            if inner:
                found[name] = {**value, **inner}
    return found


def disabling_argument(model: BaseChatModel) -> dict[str, Any]:
    """Return the argument that switches off what a model thinks by default; none where its own fields do so already."""
    own = _fields_of(model)
    if "thinking" not in own and thinking_switched_off(own, everything=True):
        return {}
    if "thinking" not in own and "extra_body" in own:  # a client of openai knows no argument of this name
        return {"extra_body": {**(own["extra_body"] or {}), "thinking": dict(DISABLED)}}
    return {"thinking": dict(DISABLED)}


def _switched_off(name: str, value: Any, *, everything: bool) -> Any:
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

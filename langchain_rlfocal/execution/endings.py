"""Endings: what a provider declares of how its response ended, by a limit, a filter or a refusal.

Only what the provider declares counts: a refusal in the model's own words is a text like any other.
"""

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from langchain_core.messages import AIMessage

from langchain_rlfocal.records import Flaw

_REASON_KEYS = """
    finish_reason stop_reason done_reason stopReason finishReason completion_reason completionReason native_finish_reason
"""
_REASONS = tuple(_REASON_KEYS.split())
"""Keys of `response_metadata` under which providers say why a response ended, the usual ones first."""

_GUARDRAIL = "amazon-bedrock-guardrailAction"

_DETAIL_KEYS = f"""
    stop_sequence stop_details finish_message status incomplete_details prompt_feedback block_reason is_blocked
    safety_ratings content_filter_results prompt_filter_results {_GUARDRAIL} is_truncated
"""
_DETAILS = tuple(_DETAIL_KEYS.split())
"""Keys of `response_metadata` that say more of it."""

_CUT_WORDS = """
    length max_length model_length context_length limit token_limit time_limit max_tokens max_token max_new_tokens
    max_output max_output_tokens max_completion_tokens maximum_tokens model_context_window_exceeded
    context_window_exceeded context_length_exceeded error_limit error error_finish network_error
    insufficient_system_resource incomplete truncated truncated_final not_finished pause_turn cancelled user_cancel
    abort aborted timeout
"""
_WITHHELD_WORDS = """
    content_filter content_filtered filter filtered safety recitation blocklist blacklist blocked prohibited_content
    spii image_safety image_prohibited_content image_recitation guardrail guardrails guardrail_intervened intervened
    error_toxic sensitive moderation content_moderation model_armor safety_violation
"""
_CUT, _WITHHELD = frozenset(_CUT_WORDS.split()), frozenset(_WITHHELD_WORDS.split())
_REFUSED = frozenset({"refusal", "refused"})
_FLAWED = _CUT | _WITHHELD | _REFUSED
_UNBLOCKED = frozenset({"", "none", "blocked_reason_unspecified", "block_reason_unspecified"})

_PREFIX = re.compile(r"^(?:finish_reason|stop_reason|alternative_status|completion_reason)_(?=.)")
_REPEATED = re.compile(r"(.+?)\1+")
_MAX_WORD_CHARS = 80
_MAX_KEPT_CHARS = 10_000


def flaw_of(message: AIMessage) -> Flaw | None:
    """Say what keeps a response from being a whole answer; None for a whole one, or where the provider says nothing."""
    if not (message.response_metadata or message.additional_kwargs) and isinstance(message.content, str):
        return None
    if _has_refusal(message):
        return "refusal"
    said = set(_words(message))
    if said & _REFUSED:
        return "refusal"
    if said & _WITHHELD:
        return "filtered"
    return "truncated" if said & _CUT else None


def ending_of(message: AIMessage) -> dict[str, Any]:
    """Return what the provider says of the end, under its own keys and in JSON values; empty where it says nothing."""
    if not message.response_metadata:
        return {}
    metadata = _metadata(message)
    given = {key: metadata[key] for key in (*_REASONS, *_DETAILS) if metadata.get(key) is not None}
    kept = {key: plain(value, most=_MAX_KEPT_CHARS) for key, value in given.items()}
    return {key: value for key, value in kept.items() if value is not None}


def ending_in_words(message: AIMessage, *, of_flaws: bool = True) -> str:
    """Name the reason that the provider gives, for people; empty where it gives none.

    Args:
        message: The response.
        of_flaws: True for reasons only that make a flaw, False for any.
    """
    metadata = _metadata(message)
    found = [
        *((key, metadata.get(key)) for key in _REASONS),
        ("incomplete", _within(metadata, "incomplete_details", "reason")),
        ("block_reason", _within(metadata, "prompt_feedback", "block_reason")),
    ]
    for key, value in found:
        word = value.name if isinstance(value, Enum) else value
        if isinstance(word, str) and word and (not of_flaws or key == "block_reason" or _spelled(word) in _FLAWED):
            return f"{key} `{word[:_MAX_WORD_CHARS]}`"
    return ""


def is_refusal(message: AIMessage) -> bool:
    """Tell whether LangChain recognises a response as a refusal."""
    return any(block.get("type") == "refusal" for block in blocks_of(message))


def refusal_in_words(message: AIMessage) -> str:
    """Return the words of a refusal: those that the provider sets apart, else the text; empty where there are none."""
    said = [block.get("refusal") for block in blocks_of(message) if block.get("type") == "refusal"]
    said += [message.additional_kwargs.get("refusal"), str(message.text)]
    said += [message.response_metadata.get("finish_message")]
    return next((words for words in said if isinstance(words, str) and words.strip()), "")


def blocks_of(message: AIMessage) -> list[dict[str, Any]]:
    """Return a message's content in LangChain's standard blocks; none where LangChain cannot read it."""
    try:
        return [dict(block) for block in message.content_blocks if isinstance(block, Mapping)]
    except Exception:  # noqa: BLE001  # LangChain's translators fail on content that is none of their provider's
        return []


def plain(value: Any, *, most: int) -> Any:
    """Copy a value by way of JSON; None where JSON cannot hold it, or only in more than so many characters."""
    try:
        text = json.dumps(value, allow_nan=False, default=_described)
        return json.loads(text) if len(text) <= most else None
    except Exception:  # noqa: BLE001  # a provider's own object describes itself
        return None


def _described(value: Any) -> Any:
    """Describe a member of an enumeration, or a provider's own record."""
    if isinstance(value, Enum):
        return value.name
    for name in ("model_dump", "dict", "to_dict"):
        if callable(describe := getattr(value, name, None)):
            return describe()
    raise TypeError(type(value).__name__)


def _metadata(message: AIMessage) -> Mapping[str, Any]:
    metadata = message.response_metadata
    return metadata if isinstance(metadata, Mapping) else {}


def _within(metadata: Mapping[str, Any], key: str, inner: str) -> Any:
    held = metadata.get(key)
    return held.get(inner) if isinstance(held, Mapping) else None


def _has_refusal(message: AIMessage) -> bool:
    kwargs = message.additional_kwargs
    if isinstance(kwargs, Mapping) and kwargs.get("refusal"):
        return True
    given = message.content if isinstance(message.content, list) else []
    if any(isinstance(block, Mapping) and block.get("type") == "refusal" for block in given):
        return True
    # LangChain's translators also know refusals that only one provider's metadata tell.
    return bool(_metadata(message).get("model_provider")) and is_refusal(message)


def _words(message: AIMessage) -> Iterator[str]:
    """Yield each word by which the provider names the end, in one spelling."""
    metadata = _metadata(message)
    for key in (*_REASONS, _GUARDRAIL):
        yield _spelled(metadata.get(key))
    if _spelled(metadata.get("status")) == "incomplete":
        yield "incomplete"
    yield _spelled(_within(metadata, "incomplete_details", "reason"))
    block_reason = _within(metadata, "prompt_feedback", "block_reason") or metadata.get("block_reason")
    if metadata.get("is_blocked") is True or _spelled(block_reason) not in _UNBLOCKED:
        yield "blocked"
    if metadata.get("is_truncated") is True:
        yield "truncated"


def _spelled(value: Any) -> str:
    """Write a word as it is looked up: `FinishReason.MAX_TOKENS`, `maxTokens` and `max-tokens` are `max_tokens`.

    A stream that says its reason in several chunks leaves it several times in one word.
    """
    if isinstance(value, Enum):
        value = value.name
    if not isinstance(value, str) or len(value) > _MAX_WORD_CHARS:
        return ""
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value.rsplit(".", 1)[-1])
    word = re.sub(r"[^a-z]+", "_", word.lower()).strip("_")
    word = _PREFIX.sub("", word)
    repeated = _REPEATED.fullmatch(word)
    return repeated[1] if repeated else word

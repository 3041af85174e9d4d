"""Profiles: what a conversation asks of a model, what models say that they take, and which of them fit.

LangChain's profiles are partial and often missing. What a model says is taken at its word; what it does not say is not held
against it, unless another model of the pool says that it takes what is needed. Nothing here asks a model or counts exactly.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import count_tokens_approximately

_NOUNS = {
    "image_inputs": "images",
    "image_url_inputs": "images by address",
    "pdf_inputs": "PDFs",
    "audio_inputs": "audio",
    "video_inputs": "videos",
    "attachment": "files of this kind",
    "image_tool_message": "images in tool results",
    "pdf_tool_message": "PDFs in tool results",
}
"""Keys of a profile that say what a model takes, in the order in which they are looked at, and how to name it."""

_ANY = frozenset({"text_inputs", "tool_calling", "tool_choice", *_NOUNS})
"""What a pool can do if one model can: the others are not asked."""

_ALL = frozenset(
    {
        "structured_output",
        "text_outputs",
        "image_outputs",
        "audio_outputs",
        "video_outputs",
        "reasoning_output",
        "tool_call_streaming",
        "mid_conversation_system_messages",
        "mid_conversation_tools",
    }
)
"""What a pool can promise only if every model does: any may answer."""

_COUNTED = (AIMessage, HumanMessage, SystemMessage, ToolMessage, FunctionMessage, ChatMessage)

_KINDS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "media": "file",
    "file_data": "file",
}
"""Content blocks that hold media, by their type in LangChain's own forms and in OpenAI's, Anthropic's and Google's."""

_UNTYPED_KINDS = ("image", "audio", "video", "document")
"""Keys of content blocks that hold media and have no type, as Bedrock writes them."""

_ADDRESS_KEYS = ("url", "file_uri", "file_url", "image_url", "video_url")
_NAME_KEYS = ("filename", "file_name", "name", "title")
_DATA_TYPE = re.compile(r"data:([^;,]+)[;,]")
_ENDING = re.compile(r"\.(\w{1,5})(?:[?#].*)?$", re.DOTALL)
_MEDIA_TYPES = {
    "pdf": "application/pdf",
    **dict.fromkeys(("txt", "md", "csv", "json", "html", "xml"), "text/any"),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp"), "image/any"),
    **dict.fromkeys(("mp3", "wav", "ogg", "flac"), "audio/any"),
    **dict.fromkeys(("mp4", "mov", "webm"), "video/any"),
    **dict.fromkeys(("doc", "docx", "xls", "xlsx", "ppt", "pptx", "zip"), "application/any"),
}
"""What the ending of a file's name says that it holds."""


def merged_profile(models: Iterable[BaseChatModel]) -> ModelProfile | None:
    """Say of a pool what a profile says of a model; None where no model has a profile.

    What goes in (kinds of input, tools, tool choice) holds if it does for any model, since the others are not asked then;
    what comes out (structured output, kinds of output) only if it does for every model. The pool's `max_input_tokens` are
    the most that any takes, its `max_output_tokens` the fewest. Anything else is said only where all say the same.
    """
    profiles = [dict(model.profile or {}) for model in models]
    if not any(profiles):
        return None
    merged: dict[str, Any] = {}
    for key in ModelProfile.__annotations__:  # LangChain warns of keys that it does not declare
        said = [profile[key] for profile in profiles if key in profile]
        if key in _ANY or key in _ALL:
            is_true = any(value is True for value in said) if key in _ANY else said == [True] * len(profiles)
            if said:
                merged[key] = is_true
        elif key in {"max_input_tokens", "max_output_tokens"}:
            if known := [tokens for profile in profiles if (tokens := _tokens(profile, key)) is not None]:
                merged[key] = max(known) if key == "max_input_tokens" else min(known)
        elif len(said) == len(profiles) and all(value == said[0] for value in said):
            merged[key] = said[0]
    return cast("ModelProfile", merged)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a conversation asks of the model that is to read it.

    Attributes:
        tools: Whether tools go with it.
        inputs: Keys of a profile that say whether a model takes what is in it, such as `"image_inputs"`. A tool result with
            an image needs `"image_tool_message"` too.
        tokens: How long it is, estimated at four characters a token and 85 tokens for each image or file.
    """

    tools: bool
    inputs: frozenset[str]
    tokens: int


def needs_of(messages: Sequence[BaseMessage], *, tools: bool) -> Needs:
    """Return what a conversation asks of a model.

    Media in assistant messages do not count, since no member is sent them again.

    Args:
        messages: The conversation; not changed.
        tools: Whether tools go with it.
    """
    inputs: set[str] = set()
    counted: list[BaseMessage] = []
    for message in messages:
        if not isinstance(message, _COUNTED):
            continue  # LangChain cannot count what it does not know
        if isinstance(message.content, str):
            counted.append(message)
            continue
        if isinstance(message, AIMessage):
            counted.append(message.model_copy(update={"content": str(message.text)}))
            continue
        content: list[str | dict[str, Any]] = []
        for block, in_result in _flat(message.content, in_result=isinstance(message, ToolMessage)):
            media = _inputs_of(block, in_result=in_result)
            inputs |= media
            # LangChain would count a file's base64 as text, which outgrows any model.
            content.append({"type": "image"} if media else block if isinstance(block, str) else repr(block))
        counted.append(message.model_copy(update={"content": content}))
    return Needs(tools=tools, inputs=frozenset(inputs), tokens=count_tokens_approximately(counted))


def unfit(model: BaseChatModel, needs: Needs) -> str | None:
    """Say in a few words why a model cannot take a conversation; None where nothing speaks against it."""
    profile = model.profile or {}
    has_no_tools = type(model).bind_tools is BaseChatModel.bind_tools
    if needs.tools and (has_no_tools or profile.get("tool_calling") is False):
        return "knows no tools"
    for key in _in_order(needs.inputs):
        if profile.get(key) is False:
            return f"takes no {_NOUNS.get(key, key)}"
    most = _tokens(profile, "max_input_tokens")
    if most is not None and needs.tokens > most:
        return f"takes {most:,} tokens and the conversation has about {needs.tokens:,}"
    return None


def fit_members(models: Mapping[str, BaseChatModel], needs: Needs) -> tuple[tuple[str, ...], dict[str, str]]:
    """Tell which members can take a conversation.

    A member that says nothing of a kind of input is asked only if no other that fits says that it takes it.

    Args:
        models: The pool by name.
        needs: What the conversation asks.

    Returns:
        The names of those that fit, in the pool's order, and a reason for each that does not.
    """
    reasons = {name: reason for name, model in models.items() if (reason := unfit(model, needs)) is not None}
    fit = [name for name in models if name not in reasons]
    for key in _in_order(needs.inputs):
        declared = [name for name in fit if (models[name].profile or {}).get(key) is True]
        if declared:
            silent = f"does not say that it takes {_NOUNS.get(key, key)}"
            reasons |= {name: silent for name in fit if name not in declared}
            fit = declared
    return tuple(fit), {name: reasons[name] for name in models if name in reasons}


def _in_order(inputs: frozenset[str]) -> list[str]:
    return [key for key in _NOUNS if key in inputs] + sorted(inputs - _NOUNS.keys())


def _tokens(profile: Mapping[str, Any], key: str) -> int | None:
    """Return a number of tokens, None where it is not known; published profiles also write 0 for that."""
    tokens = profile.get(key)
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None


# ---- content blocks


def _flat(blocks: Iterable[Any], *, in_result: bool) -> Iterator[tuple[str | dict[str, Any], bool]]:
    """List content blocks, those inside others in place of them, with whether each is in a tool's result."""
    for block in blocks:
        if not isinstance(block, dict):
            yield str(block), in_result
        elif block.get("type") == "tool_result" and isinstance(block.get("content"), list):
            yield from _flat(block["content"], in_result=True)
        elif block.get("type") == "non_standard" and isinstance(block.get("value"), dict):
            yield from _flat([block["value"]], in_result=in_result)
        else:
            yield (str(block.get("text") or "") if block.get("type") == "text" else block), in_result


def _kind_of(block: Mapping[str, Any]) -> str | None:
    """Return the kind of media that a content block holds, None for any other block."""
    if "type" in block:
        return _KINDS.get(block["type"]) if isinstance(block["type"], str) else None
    return next((_KINDS[key] for key in _UNTYPED_KINDS if key in block), None)


def _inputs_of(block: str | dict[str, Any], *, in_result: bool) -> set[str]:
    """Return the keys of a profile that say whether a model takes a content block; none for text."""
    if isinstance(block, str):
        return set()
    kind = _kind_of(block)
    if kind is None:
        return set()
    details = list(_details(block))
    if kind == "file":
        kind = _kind_of_file(details)
    if kind == "image":
        remote = any(str(part.get(key)).startswith(("http:", "https:")) for part in details for key in _ADDRESS_KEYS)
        return {
            "image_inputs",
            *(["image_url_inputs"] if remote else []),
            *(["image_tool_message"] if in_result else []),
        }
    if kind == "pdf":
        return {"pdf_inputs", "pdf_tool_message"} if in_result else {"pdf_inputs"}
    return {"text": set[str](), "audio": {"audio_inputs"}, "video": {"video_inputs"}}.get(kind, {"attachment"})


def _details(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """List the mappings that say what a block holds: itself, and what it nests, such as Anthropic's `source`."""
    yield block
    for value in block.values():
        if isinstance(value, Mapping):
            yield from _details(value)


def _kind_of_file(details: Sequence[Mapping[str, Any]]) -> str:
    """Tell what a file holds; one of which nothing is known is taken for a PDF, the commonest."""
    if any(part.get("type") in {"text", "content"} for part in details[1:]):
        return "text"  # Anthropic's documents that are written out
    media_type = next(filter(None, map(_media_type, details)), "application/pdf").split(";")[0].strip().lower()
    if media_type == "application/pdf":
        return "pdf"
    return "text" if media_type == "application/json" else media_type.split("/")[0]


def _media_type(part: Mapping[str, Any]) -> str | None:
    """Read a media type off what says it, a data address, or the ending of an address or a name."""
    said = part.get("mime_type") or part.get("media_type") or _MEDIA_TYPES.get(str(part.get("format")))
    if isinstance(said, str):
        return said
    for key in (*_ADDRESS_KEYS, "file_data", *_NAME_KEYS):
        text = part.get(key)
        if isinstance(text, str):
            if found := _DATA_TYPE.match(text):
                return found[1]
            ending = _ENDING.search(text[-200:])  # the text can be megabytes of base64, which has no dot
            if ending and ending[1].lower() in _MEDIA_TYPES:
                return _MEDIA_TYPES[ending[1].lower()]
    return None

"""Capabilities: what a conversation needs of a model, what models declare, and which members can be asked.

LangChain's profiles are partial and often missing. What a model declares is believed; what it does not mention is not held
against it, unless another model of the pool declares it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

from langchain_rlfocal.chat_models.messages import with_results_apart

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
"""Names for people of the profile keys that say what a model takes, in the order in which they are checked."""

_IF_ANY = frozenset({"text_inputs", "tool_calling", "tool_choice", *_NOUNS})
"""What a pool can do if one model can: the others are not asked then."""

_IF_ALL = frozenset(
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
"""What a pool can promise only if every model can, since any may answer."""

_COUNTED = (AIMessage, HumanMessage, SystemMessage, ToolMessage, FunctionMessage, ChatMessage)

_UNTRANSLATED = {
    "input_image": "image",
    "image_url": "image",
    "video_url": "video",
    "input_file": "file",
    "media": "file",
}
"""Providers' media blocks that LangChain's `content_blocks` leaves as they are, by their type."""

_MEDIA_TYPES = {
    "pdf": "application/pdf",
    **dict.fromkeys(("txt", "md", "csv", "json", "html", "xml"), "text/any"),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp"), "image/any"),
    **dict.fromkeys(("mp3", "wav", "ogg", "flac"), "audio/any"),
    **dict.fromkeys(("mp4", "mov", "webm"), "video/any"),
    **dict.fromkeys(("doc", "docx", "xls", "xlsx", "ppt", "pptx", "zip"), "application/any"),
}
"""Media types by the extension of a file's name."""


def merged_profile(models: Iterable[BaseChatModel]) -> ModelProfile | None:
    """Merge the profiles of a pool's models into one; None where no model has a profile.

    Inputs (kinds of media, tools, tool choice) hold if any model takes them, outputs (structured output, kinds of media) only
    if every model gives them. `max_input_tokens` is the largest of the pool, `max_output_tokens` the smallest. Other keys are
    kept where all models agree.
    """
    profiles = [dict(model.profile or {}) for model in models]
    if not any(profiles):
        return None
    merged: dict[str, Any] = {}
    for key in ModelProfile.__annotations__:  # LangChain warns of keys that it does not declare
        declared: list[Any] = [profile[key] for profile in profiles if key in profile]
        if key in {"max_input_tokens", "max_output_tokens"}:
            declared = [tokens for profile in profiles if (tokens := _tokens(profile, key)) is not None]
        if not declared:
            continue
        if key in _IF_ANY:
            merged[key] = any(value is True for value in declared)
        elif key in _IF_ALL:
            merged[key] = declared == [True] * len(profiles)
        elif key == "max_input_tokens":
            merged[key] = max(declared)
        elif key == "max_output_tokens":
            merged[key] = min(declared)
        elif len(declared) == len(profiles) and all(value == declared[0] for value in declared):
            merged[key] = declared[0]
    return cast("ModelProfile", merged)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a conversation needs of the model that reads it.

    Attributes:
        tools: Whether tools go with it.
        inputs: Keys of a profile for the media in it, such as `"image_inputs"`. An image in a tool's result needs
            `"image_tool_message"` too.
        tokens: How long it is, estimated at four characters a token and 85 tokens for each image or file.
    """

    tools: bool = False
    inputs: frozenset[str] = frozenset()
    tokens: int = 0


def needs_of(messages: Sequence[BaseMessage]) -> Needs:
    """Return what a conversation needs of a model.

    Media in assistant messages do not count, since no member is sent them again.
    """
    inputs: set[str] = set()
    counted: list[BaseMessage] = []
    for message in messages:
        if not isinstance(message, _COUNTED):
            continue  # LangChain cannot count what it does not know
        if isinstance(message.content, str):
            counted.append(message)
        elif isinstance(message, AIMessage):
            counted.append(message.model_copy(update={"content": str(message.text)}))
        else:
            for part in with_results_apart(message):
                content: list[str | dict[str, Any]] = []
                for block in _blocks_of(part):
                    found = _inputs_of(block, in_result=isinstance(part, ToolMessage))
                    inputs |= found
                    # LangChain would count a file's base64 as text.
                    content.append({"type": "image"} if found else str(block.get("text") or block))
                counted.append(part.model_copy(update={"content": content}))
    return Needs(inputs=frozenset(inputs), tokens=count_tokens_approximately(counted))


def unfit(model: BaseChatModel, needs: Needs) -> str | None:
    """Say in a few words why a model cannot take a conversation; None where nothing is known against it."""
    profile = model.profile or {}
    has_no_tools = type(model).bind_tools is BaseChatModel.bind_tools
    if needs.tools and (has_no_tools or profile.get("tool_calling") is False):
        return "does not support tools"
    for key in _in_order(needs.inputs):
        if profile.get(key) is False:
            return f"does not accept {_NOUNS[key]}"
    most = _tokens(profile, "max_input_tokens")
    if most is not None and needs.tokens > most:
        return f"takes {most:,} tokens and the conversation has about {needs.tokens:,}"
    return None


def fit_members(models: Mapping[str, BaseChatModel], needs: Needs) -> tuple[tuple[str, ...], dict[str, str]]:
    """Find the members that can take a conversation.

    A member that declares nothing of a kind of input is asked only if no other member that fits declares it.

    Returns:
        The names of those that can, in the pool's order, and a reason for each that cannot.
    """
    reasons = {name: reason for name, model in models.items() if (reason := unfit(model, needs)) is not None}
    fit = [name for name in models if name not in reasons]
    for key in _in_order(needs.inputs):
        declared = [name for name in fit if (models[name].profile or {}).get(key) is True]
        if declared:
            reasons |= {n: f"does not declare that it accepts {_NOUNS[key]}" for n in fit if n not in declared}
            fit = declared
    return tuple(fit), {name: reasons[name] for name in models if name in reasons}


@dataclass(frozen=True, slots=True)
class Eligible:
    """Who can be asked, judged by what members declare.

    Attributes:
        members: Names of those who can, in the pool's order.
        excluded: Why each of the others cannot.
        overflowing: Those for whom only the conversation is too long.
        only: The member that the call names, None if it names none.
        left_out: Why members are not asked that could be.
    """

    members: tuple[str, ...]
    excluded: Mapping[str, str]
    overflowing: frozenset[str]
    only: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def without(self, reasons: Mapping[str, str]) -> "Eligible":
        """Leave members out, for these reasons by name; all stay where nobody would, and one that the call names."""
        members = tuple(name for name in self.members if name not in reasons)
        if self.only is not None or len(members) in {0, len(self.members)}:
            return self
        return replace(self, members=members, left_out={n: reasons[n] for n in self.members if n in reasons})


def eligible_of(
    models: Mapping[str, BaseChatModel], messages: Sequence[BaseMessage], *, tools: Iterable[str], only: str | None
) -> Eligible:
    """Find who can be asked: who takes the conversation, and knows tools where `tools` names it; or `only` one member."""
    named = {name: f"is not `{only}`, which the call names" for name in models if only not in {None, name}}
    models = {name: model for name, model in models.items() if name not in named}
    with_tools = {*tools}
    if not with_tools and not any(model.profile for model in models.values()):
        return Eligible(tuple(models), named, frozenset(), only)  # nothing is declared
    needs = needs_of(messages)
    # Tools first, since who takes an image counts only among those that can be asked at all.
    reasons = {name: unfit(models[name], Needs(tools=True)) for name in models if name in with_tools}
    without = {name: reason for name, reason in reasons.items() if reason is not None}
    members, others = fit_members({name: model for name, model in models.items() if name not in without}, needs)
    overflowing = frozenset(
        name
        for name in {**without, **others}
        if unfit(models[name], replace(needs, tokens=0, tools=name in with_tools)) is None
    )
    return Eligible(members, {**without, **others, **named}, overflowing, only)


def _in_order(inputs: frozenset[str]) -> list[str]:
    return [key for key in _NOUNS if key in inputs]


def _tokens(profile: Mapping[str, Any], key: str) -> int | None:
    """Return a number of tokens, None where it is not known; published profiles also write 0 for that."""
    tokens = profile.get(key)
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None


# ---- media


def _blocks_of(message: BaseMessage) -> list[Mapping[str, Any]]:
    """Return a message's standard content blocks, and for what LangChain does not translate the provider's own, with a type."""
    try:
        blocks: list[Any] = [*message.content_blocks]
    except Exception:  # noqa: BLE001  # it reads providers' forms, and fails on what is almost one
        blocks = [{"type": "non_standard", "value": block} for block in message.content]
    return [_translated(block["value"]) if block["type"] == "non_standard" else block for block in blocks]


def _translated(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        return {"type": "text", "text": str(value)}
    kind = str(value.get("type") or next(iter(value), ""))  # Bedrock's blocks have one key and no type
    return {**value, "type": _UNTRANSLATED.get(kind, kind)}


def _inputs_of(block: Mapping[str, Any], *, in_result: bool) -> set[str]:
    """Return the keys of a profile that say whether a model takes a content block; none for text."""
    kind = block.get("type")
    if kind == "file" and "text" not in block:
        kind = _kind_of_file([*_details(block)])
    if kind == "image":
        addresses = (str(part.get(key)) for part in _details(block) for key in ("url", "file_uri", "image_url"))
        by_address = any(address.startswith(("http:", "https:")) for address in addresses)
        return {
            "image_inputs",
            *(["image_url_inputs"] if by_address else []),
            *(["image_tool_message"] if in_result else []),
        }
    if kind == "pdf":
        return {"pdf_inputs", *(["pdf_tool_message"] if in_result else [])}
    return {"audio": {"audio_inputs"}, "video": {"video_inputs"}, "application": {"attachment"}}.get(str(kind), set())


def _details(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield block
    for value in block.values():
        if isinstance(value, Mapping):
            yield from _details(value)


def _kind_of_file(details: Sequence[Mapping[str, Any]]) -> str:
    """Tell what a file holds; one of which nothing is known is taken for a PDF, the commonest."""
    media_type = next(filter(None, map(_media_type, details)), "application/pdf").split(";")[0].strip().lower()
    if media_type == "application/pdf":
        return "pdf"
    kind = "text" if media_type == "application/json" else media_type.split("/")[0]
    return kind if kind in {"text", "image", "audio", "video"} else "application"


def _media_type(part: Mapping[str, Any]) -> str | None:
    """Read a media type where it is given, in a data address, or by the extension of an address or a name."""
    given = part.get("mime_type") or part.get("media_type")
    if isinstance(given, str):
        return given
    for key in ("url", "file_uri", "file_url", "file_data", "filename", "file_name", "name", "title"):
        text = part.get(key)
        if isinstance(text, str):
            if text.startswith("data:"):
                return text[5:200].split(";")[0].split(",")[0]
            extension = text[-200:].split("?")[0].split("#")[0].rpartition(".")[2].lower()
            if extension in _MEDIA_TYPES:
                return _MEDIA_TYPES[extension]
    return None

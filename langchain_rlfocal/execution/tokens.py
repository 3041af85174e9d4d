"""Tokens: how many a text, a conversation or a response has, as far as that can be told without a network.

For a caller who asks, the caller's own tokenizer counts, or LangChain's rule of four characters a token estimates. For budgets,
OpenAI's vocabularies count where tiktoken has them on this machine already: a model's own where tiktoken knows the model,
`o200k_base` for any other. Where they are not, an estimate does that is careful with other scripts: a token for every four
ASCII characters and one for each other character. That it estimates is said once.

It downloads nothing, and fails no call: what cannot be counted is estimated.
"""

import base64
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha1
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import tiktoken
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from tiktoken import load

Tokenizer = Callable[[str], list[int]]

ASSUMED_OUTPUT_TOKENS = 4096
"""The most tokens of a response where neither the call nor the model says."""

TOKENS_PER_MESSAGE = 4
"""What a message takes besides its text: its role, and where it begins and ends."""

TOKENS_PER_MEDIUM = 1000
"""What an image, a recording or a file takes, whatever its size."""

_CHARS_PER_TOKEN = 4
_CHARS_AT_ONCE = 100_000  # tiktoken panics at a run of a million spaces
_DEFAULT_ENCODING = "o200k_base"

_MEDIA = frozenset(
    {"image", "image_url", "input_image", "image_generation_call", "computer_screenshot"}
    | {"audio", "input_audio", "video", "video_url"}
    | {"file", "input_file", "file_data", "document", "media"}
)
"""Content blocks that hold media, by their type in LangChain's own forms and in OpenAI's, Anthropic's and Google's."""

_DATA = frozenset({"data", "base64", "encrypted_content", "file_data"})
"""Under these names blocks hold what is no text, whatever their type, unless it is short."""

_MAX_DATA_CHARS = 4000
_MAX_DEPTH = 100

_SCHEMAS = ("tools", "functions", "response_format")
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")

_NO_TOKENIZER = (
    "Token counts of RLFocalChatModel are estimates, since members count differently. Give `custom_get_token_ids`, for "
    'example tiktoken.get_encoding("o200k_base").encode, to count by one tokenizer.'
)
_NO_VOCABULARY = (
    "Token counts that budgets are kept by are estimates where a provider reports none, since tiktoken's vocabulary is not "
    'in its cache on this machine. Call tiktoken.get_encoding("o200k_base") once where there is a network, to have them '
    "counted."
)

_loading = threading.Lock()  # a vocabulary takes a second and much memory: threads that begin at once load it once
_logger = logging.getLogger(__name__)


# ---- for a caller who asks


def num_tokens(text: str, tokenizer: Tokenizer | None) -> int:
    """Count a text's tokens by a tokenizer, or estimate them where there is none."""
    if tokenizer is not None:
        return len(tokenizer(text))
    _say_once(_NO_TOKENIZER)
    return -(-len(text) // _CHARS_PER_TOKEN)


def num_tokens_of_messages(
    messages: Sequence[BaseMessage], tools: Sequence[Any] | None, tokenizer: Tokenizer | None
) -> int:
    """Count a conversation's tokens, and those of tools' schemas, by a tokenizer, or estimate them."""
    described = [tool if isinstance(tool, BaseTool) else convert_to_openai_tool(tool) for tool in tools or ()]
    if tokenizer is not None:
        schemas = [str(convert_to_openai_tool(tool)) for tool in described]
        return sum(len(tokenizer(text)) for text in [*(get_buffer_string([m]) for m in messages), *schemas])
    _say_once(_NO_TOKENIZER)
    return count_tokens_approximately(messages, tools=described or None)


# ---- for budgets


def prompt_tokens(
    messages: Sequence[BaseMessage], kwargs: Mapping[str, Any], model: BaseChatModel, *, warns: bool = True
) -> int:
    """Count what a call sends: its messages, and the schemas of tools and formats as JSON.

    Each message takes `TOKENS_PER_MESSAGE` more, and each image, recording or file `TOKENS_PER_MEDIUM`, never its base64.
    A document that is text counts as its text.

    Args:
        messages: The conversation.
        kwargs: Arguments of the call, those bound to the model among them.
        model: The model that is asked; its name says which vocabulary counts.
        warns: Whether to say, once, that counts are estimates where they are: where a budget is kept by them.
    """
    num = sum(TOKENS_PER_MESSAGE + _count_pieces(message, model, warns=warns) for message in messages)
    return num + sum(_count(_as_json(kwargs[name]), model, warns=warns) for name in _SCHEMAS if kwargs.get(name))


def response_tokens(message: AIMessage, model: BaseChatModel, *, warns: bool = True) -> int:
    """Count the tokens of a response whose provider reports none: its content, and the names and arguments of its calls.

    See `prompt_tokens` for `warns`.
    """
    return _count_pieces(message, model, warns=warns)


def output_bound(model: BaseChatModel, kwargs: Mapping[str, Any]) -> int:
    """Return the most tokens that a response can have.

    It is what the call's arguments say (`max_tokens`, or what providers call it: `TOKEN_LIMITS`), else the model's
    attributes of these names, else its profile's `max_output_tokens`, else `ASSUMED_OUTPUT_TOKENS`; times `n`, where the
    call or the model asks for several responses.

    Args:
        model: The model itself, nothing bound.
        kwargs: Arguments of the call, those bound to the model among them.
    """
    said = [
        *(kwargs.get(name) for name in TOKEN_LIMITS),
        *(getattr(model, name, None) for name in TOKEN_LIMITS),
        (model.profile or {}).get("max_output_tokens"),
    ]
    responses = [kwargs.get("n"), getattr(model, "n", None)]
    return _first_number(said, ASSUMED_OUTPUT_TOKENS) * _first_number(responses, 1)


def _first_number(values: Sequence[Any], default: int) -> int:
    """Return the first positive whole number: None, 0 and -1 say "as many as you like" somewhere."""
    return next((value for value in values if type(value) is int and value > 0), default)


def _count_pieces(message: BaseMessage, model: BaseChatModel, *, warns: bool) -> int:
    pieces = list(_pieces_of(message))
    texts = [piece for piece in pieces if piece is not None]
    return _count("\n".join(texts), model, warns=warns) + TOKENS_PER_MEDIUM * (len(pieces) - len(texts))


def _pieces_of(message: BaseMessage) -> Iterator[str | None]:
    """Yield the texts of a message, and None for each medium."""
    calls = [*message.tool_calls, *message.invalid_tool_calls] if isinstance(message, AIMessage) else []
    ids = [call["id"] for call in calls if call["id"] is not None]
    for block in [message.content] if isinstance(message.content, str) else message.content:
        if not isinstance(block, dict) or not (block.get("id") in ids or block.get("call_id") in ids):
            yield from _pieces(block)  # a call stands in the content of some providers once more
    for call in calls:
        yield f"{call['name']} {_as_json(call['args'])}"
    if message.name:
        yield message.name
    if isinstance(message, ToolMessage):
        yield message.tool_call_id


def _pieces(content: Any, depth: int = 0) -> Iterator[str | None]:
    """Yield the texts of a message's content, names of fields among them, and None for each medium."""
    if isinstance(content, bytes) or depth > _MAX_DEPTH:
        yield None  # Bedrock's media have no type
    elif isinstance(content, Mapping):
        kind = content.get("type")
        if kind == "text" and "text" in content:
            yield str(content["text"])
        elif isinstance(kind, str) and kind in _MEDIA and not _is_text(content):
            yield None
        else:
            for name, value in content.items():
                yield str(name)
                is_data = name in _DATA and isinstance(value, str) and kind != "text"
                yield from [None] if is_data and len(value) > _MAX_DATA_CHARS else _pieces(value, depth + 1)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _pieces(value, depth + 1)
    elif content is not None:
        yield str(content)


def _is_text(block: Mapping[str, Any]) -> bool:
    """Tell whether a document is given as text, as Anthropic's can be."""
    source = block.get("source")
    return isinstance(source, Mapping) and source.get("type") in {"text", "content"}


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_described)
    except RecursionError:
        return ""
    except (TypeError, ValueError):
        return str(value)


def _described(tool: Any) -> Any:
    """Describe what is no JSON: a tool, or a class that a response must fit."""
    try:
        return convert_to_openai_tool(tool)
    except Exception:  # noqa: BLE001  # it can be anything
        return str(tool)


# ---- vocabularies


def _count(text: str, model: BaseChatModel, *, warns: bool) -> int:
    encoding = _encoding_of(model)
    if encoding is None:
        if warns:
            _say_once(_NO_VOCABULARY)
        num_ascii = len(text.encode("ascii", "ignore"))
        return -(-num_ascii // _CHARS_PER_TOKEN) + len(text) - num_ascii
    parts = (text[start : start + _CHARS_AT_ONCE] for start in range(0, len(text), _CHARS_AT_ONCE))
    return sum(len(encoding.encode_ordinary(part)) for part in parts)


def _encoding_of(model: BaseChatModel) -> tiktoken.Encoding | None:
    """Return the encoding that counts for a model; None where its vocabulary is not on this machine."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    try:
        encoding_name = tiktoken.encoding_name_for_model(name) if isinstance(name, str) else _DEFAULT_ENCODING
    except KeyError:
        encoding_name = _DEFAULT_ENCODING
    with _loading:
        return _loaded(encoding_name)


@cache
def _loaded(encoding_name: str) -> tiktoken.Encoding | None:
    """Make an encoding as tiktoken does, but for the download: its own functions, with a loader that reads the cache only."""
    try:
        spec = find_spec("tiktoken_ext.openai_public")
        assert spec is not None
        assert spec.loader is not None
        own = module_from_spec(spec)  # a second one: other threads use the first
        spec.loader.exec_module(own)
        names = vars(own)
        del names["data_gym_to_mergeable_bpe_ranks"]  # loads what no chat model counts by
        del names["load_tiktoken_bpe"]  # fails where tiktoken has come to load by another name
        names["load_tiktoken_bpe"] = _cached_ranks
        return tiktoken.Encoding(**own.ENCODING_CONSTRUCTORS[encoding_name]())
    except Exception as error:  # noqa: BLE001  # whatever another version of tiktoken does, an estimate serves
        _logger.debug("The vocabulary `%s` cannot be had without a download: %s", encoding_name, error)
        return None


def _cached_ranks(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
    """Read a vocabulary from where tiktoken keeps its downloads.

    Raises:
        OSError: It is not there.
        ValueError: It is not what the hash says, or the environment turns the cache off.
    """
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    if not folder:
        raise ValueError("An empty TIKTOKEN_CACHE_DIR turns the cache off. Name a folder.")
    data = Path(folder, sha1(address.encode(), usedforsecurity=False).hexdigest()).read_bytes()
    if expected_hash is not None and not load.check_hash(data, expected_hash):
        raise ValueError(
            f"The vocabulary in {folder} must have the hash {expected_hash}. Delete it, and download it anew."
        )
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}


@cache
def _say_once(words: str) -> None:
    _logger.warning(words)

"""Tokens: how many a text or a conversation has, as far as that can be told without a network.

Members count differently and their vocabularies are downloads, so what is not counted by the caller's own tokenizer is
estimated, and that is said once.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from langchain_core.messages import BaseMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

Tokenizer = Callable[[str], list[int]]

_CHARS_PER_TOKEN = 4
_logger = logging.getLogger(__name__)


def num_tokens(text: str, tokenizer: Tokenizer | None) -> int:
    """Count a text's tokens by a tokenizer, or estimate them where there is none."""
    if tokenizer is not None:
        return len(tokenizer(text))
    _say_once()
    return -(-len(text) // _CHARS_PER_TOKEN)


def num_tokens_of_messages(
    messages: Sequence[BaseMessage], tools: Sequence[Any] | None, tokenizer: Tokenizer | None
) -> int:
    """Count a conversation's tokens, and those of tools' schemas, by a tokenizer, or estimate them."""
    described = [tool if isinstance(tool, BaseTool) else convert_to_openai_tool(tool) for tool in tools or ()]
    if tokenizer is not None:
        schemas = [str(convert_to_openai_tool(tool)) for tool in described]
        return sum(len(tokenizer(text)) for text in [*(get_buffer_string([m]) for m in messages), *schemas])
    _say_once()
    return count_tokens_approximately(messages, tools=described or None)


@cache
def _say_once() -> None:
    _logger.warning(
        "Token counts of RLFocalChatModel are estimates, since members count differently. Give `custom_get_token_ids`, for "
        'example tiktoken.get_encoding("o200k_base").encode, to count by one tokenizer.'
    )

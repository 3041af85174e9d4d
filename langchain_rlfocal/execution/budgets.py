"""Budgets: what calls may cost together, what they can cost at most, and the accounts that hold them to it.

A call reserves the most that it can cost before it begins, and books what it did cost when it has ended. What is spent and
what is reserved count alike, so that calls which run at once cannot overrun a budget together. A call answers to several
accounts, and either all take it or none does. Tokens that a provider does not report are estimated, without a network.
"""

import json
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.limits import Shared, check_number

TOLERANCE = 1e-9
"""The part of a budget in dollars that is rounding, so that N equal parts of a budget fit into it."""

_logger = logging.getLogger(__name__)
lock = threading.RLock()  # one for all ledgers, so that two cannot be locked in the wrong order


@dataclass(frozen=True, slots=True)
class Budget:
    """What calls may spend together; None for any amount, 0 for nothing.

    Attributes:
        max_calls: Calls, attempts that fail included.
        max_tokens: Tokens of prompts and responses.
        max_usd: Dollars.

    Raises:
        InputError: A limit is negative or not finite, or no whole number where it must be one.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None

    def __post_init__(self) -> None:
        for name, whole in (("max_calls", True), ("max_tokens", True), ("max_usd", False)):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), whole=whole)

    @property
    def limits_anything(self) -> bool:
        """True if it has any limit."""
        return self.max_calls is not None or self.limits_tokens

    @property
    def limits_tokens(self) -> bool:
        """True if the tokens of calls matter to it."""
        return self.max_tokens is not None or self.max_usd is not None


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost, or can cost.

    Attributes:
        calls: How many calls.
        tokens: Tokens of prompts and responses.
        usd: Dollars, of calls whose member has prices.
    """

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)


_NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays for answers, such as a customer or a key: each call is booked to it too.

    Attributes:
        name: Its name; all models that share their state know one account by it.
        budget: What may be spent on it over all answers.
        keep_s: Seconds after its last call after which a store may forget what was spent on it, as of a month that is over; None for
            never.

    Raises:
        InputError: The name is no text, or blank, or `keep_s` is not above 0.
    """

    name: str
    budget: Budget = Budget()
    keep_s: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"An account's `name` must be a text that is not blank, got {self.name!r}.")
        if not isinstance(self.budget, Budget):
            raise InputError(f"An account's `budget` must be a `Budget`, got {self.budget!r}.")
        if self.keep_s is not None:
            check_number("keep_s", self.keep_s, positive=True)


class BudgetRefusal(Exception):  # noqa: N818  # no fault of anybody's: the budget does what it is for
    """A call was not let through, since it could overrun a budget.

    Attributes:
        limit: The limit that it could overrun, for example `"max_usd"`.
    """

    def __init__(self, limit: str, message: str) -> None:
        self.limit = limit
        super().__init__(message)


def amount_in_words(amount: float) -> str:
    """Write an amount for people: calls and tokens whole, dollars short."""
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:.6g}"


class Ledger(Shared):
    """What was spent, and what is reserved for calls that run; a pickle carries what was spent.

    `name` is that of the setting that holds its budget, for messages.
    """

    def __init__(self, spent: Usage = _NOTHING, name: str = "budget") -> None:
        self._calls, self._tokens, self._usd, self.name = spent.calls, spent.tokens, spent.usd, name
        self._held: dict[Reservation, Usage] = {}

    @property
    def spent(self) -> Usage:
        """What calls that have ended cost."""
        with lock:
            return Usage(self._calls, self._tokens, self._usd)

    @property
    def reserved(self) -> Usage:
        """The most that calls that run can cost; summed each time, so that it comes back to exactly zero."""
        with lock:
            return sum(list(self._held.values()), _NOTHING)

    def reset(self) -> None:
        """Forget what was spent; calls that run keep their reservations."""
        with lock:
            self._calls, self._tokens, self._usd = 0, 0, 0.0

    def hold(self, reservation: "Reservation", usage: Usage) -> None:
        """Note what a reservation holds; see `reserve`."""
        self._held[reservation] = usage

    def book(self, reservation: "Reservation", actual: Usage) -> None:
        """Note what was spent instead of what a reservation holds; nothing where it holds nothing."""
        if self._held.pop(reservation, None) is not None:
            self._calls += actual.calls
            self._tokens += actual.tokens
            self._usd += actual.usd

    def check(self, bound: Usage, budget: Budget) -> None:
        """Check that a budget has room for a call; the lock is held.

        Raises:
            BudgetRefusal: It could be overrun.
        """
        for limit in ("calls", "tokens", "usd"):
            most = getattr(budget, f"max_{limit}")
            if most is None:
                continue
            spent, reserved, asked = (getattr(usage, limit) for usage in (self.spent, self.reserved, bound))
            if spent + reserved + asked > most + (most * TOLERANCE if limit == "usd" else 0):
                most, spent, reserved, asked = map(amount_in_words, (most, spent, reserved, asked))
                raise BudgetRefusal(
                    f"max_{limit}",
                    f"`max_{limit}` of `{self.name}` is {most}, of which {spent} is spent and {reserved} reserved for calls that run, and a "
                    f"call asked for {asked}.",
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spent, self.name)


class Reservation:
    """What one call holds in every account that it answers to; made by `reserve`.

    Attributes:
        bound: The most that the call can cost.
    """

    __slots__ = ("_ledgers", "bound")

    def __init__(self, bound: Usage, ledgers: Sequence[Ledger]) -> None:
        self.bound, self._ledgers = bound, tuple(ledgers)

    def settle(self, actual: Usage) -> None:
        """Book what the call did cost, even if that is more than was reserved; only the first time has an effect."""
        with lock:
            for ledger in self._ledgers:
                ledger.book(self, actual)


def reserve(bound: Usage, accounts: Sequence[tuple[Ledger, Budget]]) -> Reservation:
    """Reserve the most that a call can cost, in every account or in none: spent + reserved + bound ≤ budget.

    Raises:
        BudgetRefusal: The call could overrun a budget; nothing is reserved.
    """
    with lock:
        for ledger, budget in accounts:
            if budget.limits_anything:  # else there is nothing to add up, however many calls run
                ledger.check(bound, budget)
        reservation = Reservation(bound, [ledger for ledger, _ in accounts])
        for ledger, _ in accounts:
            ledger.hold(reservation, bound)
    return reservation


# ---- tokens

ASSUMED_OUTPUT_TOKENS = 4096
"""The most tokens of a response where neither the call nor the model says."""

TOKENS_PER_MEDIUM = 1000
"""What an image, a recording or a file takes, whatever its size."""

TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")

_CHARS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 3
_ROLES: dict[type[BaseMessage], str] = {HumanMessage: "user", AIMessage: "assistant"}
_SCHEMAS = ("tools", "functions", "response_format")
_MAX_DATA_CHARS = 4000  # of a block that is no text; longer ones hold media

Tokenizer = Callable[[str], list[int]]

_NO_TOKENIZER = (
    "Token counts of RLFocalChatModel are estimates, since members count differently. Give `custom_get_token_ids`, for "
    'example tiktoken.get_encoding("o200k_base").encode, to count by one tokenizer.'
)


@cache
def _say_once(words: str) -> None:
    _logger.warning(words)


def num_tokens(text: str, tokenizer: Tokenizer | None) -> int:
    """Count a text's tokens by a tokenizer, or estimate them where there is none."""
    if tokenizer is not None:
        return len(tokenizer(text))
    _say_once(_NO_TOKENIZER)
    return math.ceil(len(text) / _CHARS_PER_TOKEN)


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


def prompt_tokens(messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> int:
    """Estimate the tokens that a call sends: its messages, and the schemas of tools and formats.

    A token for every four characters, one for each that is not ASCII, and `TOKENS_PER_MEDIUM` for each image, recording or
    file, as LangChain's `count_tokens_approximately` does otherwise.
    """
    schemas = "".join(json.dumps(kwargs[name], default=_described) for name in _SCHEMAS if kwargs.get(name))
    return sum(map(message_tokens, messages)) + math.ceil(len(schemas) / _CHARS_PER_TOKEN)


def output_bound(model: BaseChatModel, kwargs: Mapping[str, Any]) -> int:
    """Return the most tokens that a response can have.

    By the call's arguments (`TOKEN_LIMITS`), else the model's attributes of these names, else its profile, else
    `ASSUMED_OUTPUT_TOKENS`; times `n`, where the call or the model asks for several responses.
    """
    limits = [
        *(kwargs.get(name) for name in TOKEN_LIMITS),
        *(getattr(model, name, None) for name in TOKEN_LIMITS),
        (model.profile or {}).get("max_output_tokens"),
    ]
    responses = [kwargs.get("n"), getattr(model, "n", None)]
    return _first_number(limits, ASSUMED_OUTPUT_TOKENS) * _first_number(responses, 1)


def _first_number(values: Sequence[Any], default: int) -> int:
    """Return the first positive whole number: None, 0 and -1 say "as many as you like" somewhere."""
    return next((value for value in values if type(value) is int and value > 0), default)


def message_tokens(message: BaseMessage) -> int:
    """Estimate the tokens of one message, sent or received."""
    content = message.content
    role = _ROLES.get(type(message))
    if isinstance(message, AIMessage) and message.tool_calls:
        role = None
    if role is not None and isinstance(content, str) and content.isascii():
        num_chars = len(content) + len(role) + len(message.name or "")
        return math.ceil(num_chars / _CHARS_PER_TOKEN) + _TOKENS_PER_MESSAGE  # as below, in a fiftieth of the time
    blocks = content if isinstance(content, list) else [content]
    light = [_without_data(block) for block in blocks]
    counted = message if isinstance(content, str) else message.model_copy(update={"content": light})
    num_not_ascii = sum(not char.isascii() for char in str(light))
    estimate = count_tokens_approximately([counted], tokens_per_image=TOKENS_PER_MEDIUM)
    return int(estimate + num_not_ascii * (1 - 1 / _CHARS_PER_TOKEN))


def _without_data(block: Any) -> Any:
    """Take a medium, whatever a provider calls it, for an image."""
    if isinstance(block, dict) and block.get("type") != "text" and len(str(block)) > _MAX_DATA_CHARS:
        return {"type": "image"}
    return block


def _described(tool: Any) -> Any:
    """Describe what is no JSON: a tool, or a class that a response must fit."""
    try:
        return convert_to_openai_tool(tool)
    except Exception:  # noqa: BLE001  # it can be anything
        return str(tool)

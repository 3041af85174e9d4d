"""Pool: the members that can be asked, in a fixed order, each with a name, a price and a declared competence.

A pool is a value: it is checked once, when it is made, and never changes. It does not call anyone, and it does not judge
whether a policy knows its members.
"""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from langchain_core.language_models import BaseChatModel

from langchain_rlfocal.errors import MissingDependencyError, PoolError
from langchain_rlfocal.redaction import masked


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A chat model under the name by which policies, outcomes and answers speak of it.

    Attributes:
        name: The member's name, unique in its pool.
        model: Any LangChain chat model.
        competence: Score that an untrained policy expects of the member, in [0, 1].
        input_usd_per_mtok: Dollars per million tokens of prompt, None where unknown (unknown is not zero).
        output_usd_per_mtok: Dollars per million tokens of response, None where unknown.
        max_concurrent_calls: How many calls of it may run at once, None for any number.
        cached_input_usd_per_mtok: Dollars per million tokens of prompt that the provider read from its cache, None where they
            cost as all others do.
        cache_write_usd_per_mtok: Dollars per million tokens of prompt that the provider wrote to its cache, which some ask more for;
            None where they cost as all others do.
        reasoning_usd_per_mtok: Dollars per million tokens of reasoning, None where they cost as other tokens of the response.
        timeout_s: Seconds that one attempt may take, None for any time; a shorter time-out of the ensemble goes before it.
        max_calls_per_minute: How many calls of it may begin in a minute, one after the other, None for any number; a call waits for
            its turn, within its deadline.
        cache_ttl_s: Seconds for which its provider keeps a prompt in its cache after reading it; 0 where it keeps none.
        cache_min_tokens: Tokens below which its provider caches no prompt.

    Raises:
        PoolError: The name is empty, the model is no chat model, or a number is outside its range.
    """

    name: str
    model: BaseChatModel = field(repr=False)
    competence: float = 0.5
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None
    max_concurrent_calls: int | None = None
    cached_input_usd_per_mtok: float | None = None
    reasoning_usd_per_mtok: float | None = None
    timeout_s: float | None = None
    max_calls_per_minute: float | None = None
    cache_ttl_s: float = 300.0
    cache_min_tokens: int = 1024
    cache_write_usd_per_mtok: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise PoolError(f"A member's `name` must be a text that is not blank, got {self.name!r}.")
        if not isinstance(self.model, BaseChatModel):
            raise PoolError(
                f"Member `{self.name}` must be a LangChain chat model (BaseChatModel), got "
                f"{type(self.model).__name__}. Give the chat model itself: not a chain, nor what `.bind()` returns."
            )
        if not _is_number(self.competence) or not 0 <= self.competence <= 1:
            raise PoolError(f"`competence` of member `{self.name}` must be in [0, 1], got {self.competence!r}.")
        for price in _PRICES:
            value = getattr(self, price)
            if value is not None and (not _is_number(value) or not 0 <= value < math.inf):
                raise PoolError(
                    f"`{price}` of member `{self.name}` must be finite and not negative, got {value!r}. "
                    "Leave it out where the price is unknown."
                )

        cap = self.max_concurrent_calls
        if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
            raise PoolError(
                f"`max_concurrent_calls` of member `{self.name}` must be a whole number of at least 1, or None, got {cap!r}."
            )

        for limit in ("timeout_s", "max_calls_per_minute"):
            value = getattr(self, limit)
            if value is not None and (not _is_number(value) or not 0 < value < math.inf):
                raise PoolError(
                    f"`{limit}` of member `{self.name}` must be finite and above 0, or None, got {value!r}."
                )
        for name in ("cache_ttl_s", "cache_min_tokens"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise PoolError(f"`{name}` of member `{self.name}` must be finite and not negative, got {value!r}.")

    def cost_usd(
        self,
        *,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cache_write_tokens: int | None = None,
    ) -> float | None:
        """Price one call in dollars.

        Args:
            prompt_tokens: Tokens of the prompt, those from the provider's cache among them, as LangChain counts.
            completion_tokens: Tokens of the response, those of reasoning among them.
            cached_tokens: How many of the prompt's came from the cache; None where that is unknown, which counts as none.
            reasoning_tokens: How many of the response's were reasoning; None as above.
            cache_write_tokens: How many of the prompt's were written to the cache; None as above.

        Returns:
            None unless the prices of input and output and both token counts are known.
        """
        input_usd, output_usd = self.input_usd_per_mtok, self.output_usd_per_mtok
        if prompt_tokens is None or completion_tokens is None or input_usd is None or output_usd is None:
            return None
        cost = prompt_tokens * input_usd + completion_tokens * output_usd
        if cached_tokens and self.cached_input_usd_per_mtok is not None:
            cost -= min(cached_tokens, prompt_tokens) * (input_usd - self.cached_input_usd_per_mtok)
        if cache_write_tokens and self.cache_write_usd_per_mtok is not None:
            written = min(cache_write_tokens, prompt_tokens - min(cached_tokens or 0, prompt_tokens))
            cost += written * (self.cache_write_usd_per_mtok - input_usd)
        if reasoning_tokens and self.reasoning_usd_per_mtok is not None:
            cost -= min(reasoning_tokens, completion_tokens) * (output_usd - self.reasoning_usd_per_mtok)
        return max(cost, 0.0) / 1e6  # rounding may leave a free call a little below zero

    def max_cost_usd(self, *, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Price the most that a call can cost in dollars, whatever of it is cached or reasoning; None without prices."""
        of_prompt, of_response = (self.input_usd_per_mtok, self.output_usd_per_mtok)
        if of_prompt is None or of_response is None:
            return None
        of_prompt = max(of_prompt, self.cached_input_usd_per_mtok or 0.0, self.cache_write_usd_per_mtok or 0.0)
        of_response = max(of_response, self.reasoning_usd_per_mtok or 0.0)
        return (prompt_tokens * of_prompt + completion_tokens * of_response) / 1e6


_PRICES = (
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "cached_input_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "reasoning_usd_per_mtok",
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MemberLike = BaseChatModel | str | PoolMember
"""A member as `ModelPool.from_models` takes it; a string is the name of a model for LangChain's `init_chat_model`."""


class ModelPool:
    """An ordered, checked collection of members; a context manager, for the sake of pools that hold something open.

    Args:
        members: The members; at least one, no name twice.
        on_close: What `close` does once, such as stopping servers that members run on; copies of the pool do nothing.

    Raises:
        PoolError: The pool is empty, names a member twice, or holds something that is no `PoolMember`.
    """

    __slots__ = ("_by_name", "_on_close")

    def __init__(self, members: Sequence[PoolMember], *, on_close: Callable[[], None] | None = None) -> None:
        self._on_close = on_close
        self._by_name: dict[str, PoolMember] = {}
        for member in members:
            if not isinstance(member, PoolMember):
                raise PoolError(
                    f"A sequence of members must hold `PoolMember`s, got {type(member).__name__}. "
                    'Name the member: PoolMember("name", model), or give a mapping {"name": model}.'
                )
            if member.name in self._by_name:
                raise PoolError(f"A member's name must be unique in its pool, got `{member.name}` twice. Rename one.")
            self._by_name[member.name] = member
        if not self._by_name:
            raise PoolError('A pool needs at least one member, got none. Give for example {"name": ChatOpenAI(...)}.')

    @classmethod
    def from_models(cls, models: Mapping[str, MemberLike]) -> "ModelPool":
        """Make a pool of named models.

        Args:
            models: Models by the name that they get. A string goes through `init_chat_model`, where langchain is
                installed; a `PoolMember` keeps its prices and competence.

        Raises:
            PoolError: The pool is empty, a value is no chat model, a string names none that can be made, or a
                `PoolMember` has another name than its key.
            MissingDependencyError: A string needs langchain, or a provider's package, and it is not installed.
        """
        return cls([_to_member(name, model) for name, model in models.items()])

    def close(self) -> None:
        """Free what the pool holds open: nothing, unless it was read from a file that names embedded models."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.members,)

    @property
    def members(self) -> tuple[PoolMember, ...]:
        """The members, in the pool's order."""
        return tuple(self._by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the pool's order."""
        return tuple(self._by_name)

    def __getitem__(self, name: str) -> PoolMember:
        """Return the member of that name.

        Raises:
            PoolError: The pool has no such member.
        """
        if name not in self._by_name:
            raise PoolError(f"The pool has no member `{name}`; it has {', '.join(self._by_name)}.")
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[PoolMember]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"ModelPool({', '.join(self._by_name)})"


def _to_member(name: str, model: MemberLike) -> PoolMember:
    if isinstance(model, PoolMember):
        if model.name != name:
            raise PoolError(
                f"A `PoolMember` must have its key as its name, got `{model.name}` under `{name}`. "
                "Rename one, or give a sequence of members."
            )
        return model
    return PoolMember(name, named_model(name, model) if isinstance(model, str) else model)


def named_model(member: str, model: str, settings: Mapping[str, Any] | None = None) -> BaseChatModel:
    """Make the model that a string names, with LangChain's `init_chat_model`.

    Args:
        member: The member that it is for, for messages.
        model: `provider:model`, or a model whose provider LangChain knows.
        settings: Arguments of its constructor.

    Raises:
        PoolError: It names no model that can be made.
        MissingDependencyError: langchain, or the provider's package, is not installed.
    """
    provider, _, name = model.partition(":")
    try:
        if provider == "openai" and name:  # comes with this package, as langchain does not
            make = importlib.import_module("langchain_openai").ChatOpenAI
            made: BaseChatModel = make(model=name, **(settings or {}))
            return made
        try:
            init_chat_model: Any = importlib.import_module("langchain.chat_models").init_chat_model
        except ImportError as error:
            raise MissingDependencyError(
                f"Member `{member}` is given as a string ({model!r}), which needs langchain: `pip install langchain`. "
                "Or give the chat model itself."
            ) from error
        made = init_chat_model(model, **(settings or {}))
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"Member `{member}` ({model!r}) needs a package: {error}") from error
    except Exception as error:  # each provider has errors of its own, as for a key that is not set
        reason = masked(str(error).strip()) or type(error).__name__
        raise PoolError(
            f"Member `{member}`: {model!r} names no usable model: {reason.rstrip('.')}. Correct the name, set what the "
            "provider needs (such as its key), or give the chat model itself."
        ) from error
    return made

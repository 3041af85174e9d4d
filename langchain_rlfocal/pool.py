"""Pool: the members that can be asked, in a fixed order, each with a name, a price and a declared competence.

A pool is a value: it is checked once, when it is made, and never changes. It does not call anyone, and it does not judge
whether a policy knows its members.
"""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

    Raises:
        PoolError: The name is empty, the model is no chat model, or a number is outside its range.
    """

    name: str
    model: BaseChatModel = field(repr=False)
    competence: float = 0.5
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None
    max_concurrent_calls: int | None = None

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
        for price in ("input_usd_per_mtok", "output_usd_per_mtok"):
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

    def cost_usd(self, *, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """Price one call in dollars; None unless both prices and both token counts are known."""
        if (
            prompt_tokens is None
            or completion_tokens is None
            or self.input_usd_per_mtok is None
            or self.output_usd_per_mtok is None
        ):
            return None
        return (prompt_tokens * self.input_usd_per_mtok + completion_tokens * self.output_usd_per_mtok) / 1e6


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MemberLike = BaseChatModel | str | PoolMember
"""A member as `ModelPool.from_models` takes it; a string is the name of a model for LangChain's `init_chat_model`."""


class ModelPool:
    """An ordered, checked collection of members.

    Args:
        members: The members; at least one, no name twice.

    Raises:
        PoolError: The pool is empty, names a member twice, or holds something that is no `PoolMember`.
    """

    __slots__ = ("_by_name",)

    def __init__(self, members: Sequence[PoolMember]) -> None:
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
    return PoolMember(name, _named_model(name, model) if isinstance(model, str) else model)


def _named_model(name: str, model: str) -> BaseChatModel:
    """Make the model that a string names, with LangChain's `init_chat_model`."""
    try:
        init_chat_model: Any = importlib.import_module("langchain.chat_models").init_chat_model
    except ImportError as error:
        raise MissingDependencyError(
            f"Member `{name}` is given as a string ({model!r}), which needs langchain: `pip install langchain`. "
            "Or give the chat model itself."
        ) from error
    try:
        made: BaseChatModel = init_chat_model(model)
    except ImportError as error:
        raise MissingDependencyError(f"Member `{name}` ({model!r}) needs a package: {error}") from error
    except Exception as error:  # each provider has errors of its own, as for a key that is not set
        reason = masked(str(error).strip()) or type(error).__name__
        raise PoolError(
            f"Member `{name}`: {model!r} names no usable model: {reason.rstrip('.')}. Correct the name, set what the "
            "provider needs (such as its key), or give the chat model itself."
        ) from error
    return made

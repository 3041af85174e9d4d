"""Kinds: what it takes to tell whether two answers are the same, as a protocol that users can implement.

A kind reads a value out of a text, compares two values, and writes the label that stands for one. Where a kind is wanted, a
user gives a name, an object of the protocol, or a function that compares two texts.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from langchain_rlfocal.errors import InputError

KindName = Literal[
    "auto", "exact", "option", "number", "quantity", "date", "math", "yes_no", "choice", "list", "code", "json", "tool_calls",
    "short_text", "long_text",
]  # fmt: skip


@runtime_checkable
class Kind(Protocol):
    """A kind of answer.

    Example:
        ```python
        class Colour:
            name = "colour"

            def read(self, text, query):
                return text.strip().lower().replace("grey", "gray") or None

            def same(self, a, b):
                return a == b

            def write(self, value):
                return value
        ```

    Attributes:
        name: Its name, under which it is registered and shown.
    """

    name: str

    def read(self, text: str, query: str) -> Any:
        """Return the value that a text answers to a query, None where none can be read."""

    def same(self, a: Any, b: Any) -> bool:
        """Tell whether two values are the same answer: symmetric, and true for equal values."""

    def write(self, value: Any) -> str:
        """Write the label of a value; equal values have equal labels."""


Same = Callable[[str, str], bool]
"""A function that tells whether two texts are the same answer."""

KindLike = KindName | str | Kind | Same
"""A kind: its name, an object of the protocol, or a function that compares two texts."""


@dataclass(eq=False)
class MadeKind:
    """A kind made of functions; see `Kind`."""

    name: str
    reads: Callable[[str, str], Any]
    compares: Callable[[Any, Any], bool] = operator.eq
    writes: Callable[[Any], str] = str

    def read(self, text: str, query: str) -> Any:
        """Return the value that a text answers to a query."""
        return self.reads(text, query)

    def same(self, a: Any, b: Any) -> bool:
        """Tell whether two values are the same answer."""
        return self.compares(a, b)

    def write(self, value: Any) -> str:
        """Write the label of a value."""
        return self.writes(value)


_REGISTERED: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Register a kind under its name, so that the name can be given wherever a kind is wanted.

    Raises:
        InputError: It is no kind, or its name is that of a kind of this package.
    """
    name = to_kind(kind).name
    if name in get_args(KindName):
        raise InputError(
            f"A kind's `name` must be its own, got {name!r}, which names a kind of this package. Rename it."
        )
    _REGISTERED[name] = kind


def kind_names() -> tuple[str, ...]:
    """List the names of all kinds."""
    return (*get_args(KindName), *_REGISTERED)


def to_kind(kind: KindLike) -> Kind:
    """Return the kind that a name, an object or a function stands for.

    Raises:
        InputError: It is none of these, or no kind has this name.
    """
    names = ", ".join(kind_names())
    if isinstance(kind, str):
        from langchain_rlfocal.answers.comparison import BUILT_IN  # noqa: PLC0415  # which imports this module

        found = _REGISTERED.get(kind) or BUILT_IN.get(kind)
        if found is None:
            raise InputError(f"`kind` must be one of {names}, got {kind!r}. Name one, leave it out, or register it.")
        return found
    if isinstance(kind, Kind) and not isinstance(kind, type):
        return kind
    if callable(kind) and not isinstance(kind, type):
        return _kind_of(kind)
    raise InputError(
        f"`kind` must be a name, an object with `name`, `read`, `same` and `write`, or a function that compares two texts, got "
        f"{type(kind).__name__}. The names are {names}."
    )


def _kind_of(same: Same) -> Kind:
    """Make a kind of a function, which is asked both ways round: only two answers of True make two texts the same."""

    def agree(a: str, b: str) -> bool:
        return a == b or (same(a, b) is True and same(b, a) is True)

    name = f"{getattr(same, '__module__', '')}.{getattr(same, '__qualname__', type(same).__qualname__)}".lstrip(".")
    return MadeKind(name, lambda text, _: text.strip() or None, agree)

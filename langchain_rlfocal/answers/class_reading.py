"""Class reading: a value as the caller's own class reads it, and what the class makes of it.

A caller who gives a class (of pydantic 1 or 2, a TypedDict, a dataclass) means the class: "19.99" and 19.99 are one Decimal, two spellings of an instant one datetime, what is left out is its default. So the
class reads, in pydantic's lax mode and with the caller's validators, and what it made is taken apart into dictionaries,
lists and scalars, under the names by which the class would read them again.

It refuses to compare what it does not know: a class whose fields hold objects of an unknown kind is read, and its values are
compared as they were written. Whatever a caller's validators raise is a value that the class does not accept.
"""

import copy
import dataclasses
import datetime as dt
import functools
import ipaddress
import operator
import pathlib
import re
import types
import typing
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

import typing_extensions
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_NAMED = (uuid.UUID, pathlib.PurePath, ipaddress._IPAddressBase, re.Pattern, Fraction)  # noqa: SLF001  # no public base
_DATES = (dt.date, dt.time, dt.timedelta)
_ABSENT = object()


class NotReadError(Exception):
    """The class does not accept a value; the message says why, in a line that may be long."""


class _UnknownError(Exception):
    """The class makes something that cannot be taken apart."""


@dataclass(frozen=True)
class ClassReader:
    """Reads values as a class does.

    Attributes:
        kind: The class, or a model that stands for it.
        validate: Has the class read a value, which it may change.
    """

    kind: type
    validate: Callable[[Any], Any]

    def read(self, value: Any) -> Any:
        """Return what the class makes of a value, as dictionaries, lists and scalars; the value where that is unknown.

        Raises:
            NotReadError: The class does not accept the value.
        """
        try:
            return self._read(value)
        except Exception as error:  # noqa: BLE001  # validators are the caller's code
            raise NotReadError(_reason(error)) from None

    def _read(self, value: Any) -> Any:
        try:
            made = self.validate(copy.deepcopy(value))
        except ValidationError as error:
            value = self._without_names(copy.deepcopy(value), error)
            made = self.validate(copy.deepcopy(value))
        try:
            return _parts_of(made)
        except _UnknownError:
            return value

    def _without_names(self, value: Any, error: ValidationError) -> Any:
        """Write the values of an Enum's members for their names, in a value that the class does not accept."""
        for fault in error.errors(include_url=False):
            said, expected = fault["input"], str(fault.get("ctx", {}).get("expected"))
            if fault["type"] != "enum" or not isinstance(said, str):
                continue
            members = [one for enum in self._enums for one in enum if one.name.casefold() == said.strip().casefold()]
            meant = {one.value for one in members if repr(one.value) in expected}
            holder: Any = value
            for step in fault["loc"][:-1]:
                with suppress(LookupError, TypeError):  # steps that name an alternative lead nowhere
                    holder = holder[step]
            with suppress(LookupError, TypeError):
                if len(meant) == 1 and holder[fault["loc"][-1]] == said:
                    holder[fault["loc"][-1]] = meant.pop()
        return value

    @cached_property
    def _enums(self) -> list[type[Enum]]:
        found: list[type[Enum]] = []
        parts: list[Any] = [TypeAdapter(self.kind).core_schema]
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                found += [part["cls"]] if part.get("type") == "enum" else []
                parts += part.values()
            elif isinstance(part, (list, tuple)):
                parts += part
        return found


def reader_of(kind: Any) -> ClassReader | None:
    """Make a reader of a class of pydantic, a TypedDict or a dataclass; None of anything else, or if none can be made."""
    try:
        if not isinstance(kind, type):
            return None
        if typing_extensions.is_typeddict(kind):
            kind = _model_of(kind)
        if issubclass(kind, BaseModel):
            return ClassReader(kind, kind.model_validate)
        if hasattr(kind, "parse_obj") and hasattr(kind, "__fields__"):  # pydantic 1
            return ClassReader(kind, kind.parse_obj)
        is_dataclass: bool = dataclasses.is_dataclass(kind)
        return ClassReader(kind, TypeAdapter(kind).validate_python) if is_dataclass else None
    except Exception:  # noqa: BLE001  # what cannot be read as a class has a JSON schema all the same
        return None


def as_json(value: Any) -> Any:
    """Write what a reader made as JSON has it.

    Raises:
        Exception: It cannot be written.
    """
    if value is None or type(value) in {str, int, float, bool}:
        return value
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else to_jsonable_python(value)


def comparable(leaf: Any) -> Any:
    """Return a scalar that a reader made as one that JSON has, alike for equal ones; strings and numbers as they are."""
    if isinstance(leaf, dt.datetime) and leaf.utcoffset() is not None:
        with suppress(OverflowError):  # at the ends of the calendar
            leaf = leaf.astimezone(dt.UTC)
    if isinstance(leaf, dt.timedelta):
        return f"{leaf // dt.timedelta(microseconds=1)} µs"
    return leaf.isoformat() if isinstance(leaf, (dt.date, dt.time)) else leaf


def _model_of(kind: Any) -> type[BaseModel]:
    """Make a model that reads a TypedDict, in whose annotations LangChain looks for defaults, and those it holds."""
    fields: Any = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        found = hint
        while get_origin(found) in {typing.NotRequired, typing.Required}:
            found = get_args(found)[0]
        default = get_args(found)[1] if get_origin(found) is typing.Annotated else ...
        if default is ... and name not in kind.__required_keys__:
            about = Field(alias=name, default_factory=object)  # left out, it stays so
        else:
            about = Field(alias=name, default=default)
        fields[f"field_{len(fields)}"] = _with_models(found), about
    return create_model(kind.__name__, **fields)


def _with_models(hint: Any) -> Any:
    """Put models in place of the TypedDicts in a type."""
    if typing_extensions.is_typeddict(hint):
        return _model_of(hint)
    arguments, origin = get_args(hint), get_origin(hint)
    if not arguments or origin is typing.Literal:
        return hint
    if origin is typing.Annotated:
        return _with_models(arguments[0])
    inner = tuple(map(_with_models, arguments))
    return functools.reduce(operator.or_, inner) if origin in {typing.Union, types.UnionType} else origin[inner]


def _parts_of(made: Any) -> Any:
    """Take apart what a class made."""
    if isinstance(made, Enum):
        return _parts_of(made.value)
    if made is None or isinstance(made, (bool, int, float, Decimal, str, *_DATES)):
        return str(made) if isinstance(made, str) else made
    if isinstance(made, Mapping):
        return {_key_of(key): _parts_of(item) for key, item in made.items()}
    if isinstance(made, (list, tuple, deque)):
        return [_parts_of(item) for item in made]
    if isinstance(made, (set, frozenset)):
        return SetOfValues(map(_parts_of, made))
    if (fields := _fields_of(made)) is not None:
        return fields
    if hasattr(made, "get_secret_value"):
        return _parts_of(made.get_secret_value())
    if isinstance(made, (bytes, bytearray)):
        return made.decode("latin-1")
    if isinstance(made, _NAMED) or type(made).__module__.startswith("pydantic"):
        return str(made)
    raise _UnknownError


class SetOfValues(list[Any]):
    """The values of a set: a list whose order does not matter."""


def _key_of(key: Any) -> str:
    return key if type(key) is str else str(to_jsonable_python(key))


def _fields_of(made: Any) -> Any:
    """Return the fields of an instance by the names under which its class reads them; None if it has no fields."""
    if isinstance(made, BaseModel):
        infos = type(made).model_fields
        if type(made).__pydantic_root_model__:
            return _parts_of(made.root)  # type: ignore[attr-defined]  # as the line before says
        found = {_alias_of(info, name): _field(made, name, info) for name, info in infos.items()}
        found |= made.__pydantic_extra__ or {}
    elif hasattr(made, "__fields_set__") and hasattr(made, "__fields__"):  # pydantic 1
        if "__root__" in made.__fields__:
            return _parts_of(made.__root__)
        extra = {name: item for name, item in vars(made).items() if name not in made.__fields__}
        found = {info.alias: _field(made, name, info) for name, info in made.__fields__.items()} | extra
    elif dataclasses.is_dataclass(made):
        infos = getattr(made, "__pydantic_fields__", {})
        names = [one.name for one in dataclasses.fields(made)]
        found = {_alias_of(infos.get(name), name): getattr(made, name) for name in names}
    else:
        return None
    return {name: _parts_of(item) for name, item in found.items() if item is not _ABSENT}


def _field(made: Any, name: str, info: Any) -> Any:
    """Return a field's value, or that it is absent: one left out whose default differs from time to time says nothing."""
    value = getattr(made, name)
    is_set = name in (made.model_fields_set if isinstance(made, BaseModel) else made.__fields_set__)
    if is_set or info.default_factory is None:
        return value
    try:
        return value if info.default_factory() == value else _ABSENT
    except TypeError:  # it wants what else was read
        return _ABSENT


def _alias_of(info: FieldInfo | None, name: str) -> str:
    alias = getattr(info, "validation_alias", None)
    choices = getattr(alias, "choices", [alias])
    return next((one for one in choices if isinstance(one, str)), name)


def _reason(error: BaseException) -> str:
    """Say in a line why a class did not accept a value."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"`{place}`: {first['msg']}" if place else first["msg"]
    return str(error) or type(error).__name__

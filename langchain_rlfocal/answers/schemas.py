"""Structured output: how a JSON schema or a caller's class reads a value, when two values say the same, and their merging.

A schema is what LangChain makes of a tool or of a class for structured output: JSON Schema 2020-12, as `jsonschema` has it,
in which `format` is a note and no rule. One that is malformed, or refers to what is not there, accepts everything: what the
caller wrote is not the members' fault. A value is read differently only where its type does not fit and another reading does.

A caller who gives a class (of pydantic 1 or 2, a TypedDict, a dataclass) means the class: "19.99" and 19.99 are one Decimal,
two spellings of an instant one datetime, what is left out is its default. So the class reads, in pydantic's lax mode and
with the caller's validators, and what it made is taken apart into dictionaries, lists and scalars, under the names by which
the class would read them again; its schema only tells which strings are names and which are free text.

Members rarely agree on a whole object, and often on each of its fields: `merge` decides each by itself. Fields on which
members do not agree at all, such as the words of a reason, speak of the others: where there are any, the whole object is
that of the member who agrees with most of what was decided, so that a reason never comes with a verdict that its author
did not give. Fields that depend on each other may no longer fit, so the caller checks the result against the schema.
"""

import copy
import dataclasses
import datetime as dt
import functools
import ipaddress
import json
import math
import operator
import pathlib
import re
import sys
import time
import types
import typing
import uuid
from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache, cached_property, lru_cache, partial
from itertools import chain
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import regex
import typing_extensions
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from langchain_rlfocal.answers import values
from langchain_rlfocal.redaction import masked, printable

MAX_VALUES = 10_000
"""A value that holds more, itself included, is not valid: reading, validating and comparing each takes tens of microseconds."""

_MAX_FAULT = 200
_MAX_DEPTH = 100  # as deep as `values.dump_json` writes
_TYPES = ("string", "boolean", "null", "object", "array", "number", "integer")
_NOTES = frozenset({"type", "title", "description", "default", "examples"})
_DATA = frozenset({"default", "enum", "const", "examples"})  # keywords that hold values, not rules
_TEXT_RULES = ("enum", "const", "pattern", "format")
_INTEGER = TypeAdapter[Any](int)
_LAX = {
    "integer": [_INTEGER],
    "number": [_INTEGER, TypeAdapter[Any](Annotated[float, Field(allow_inf_nan=False)])],
    "boolean": [TypeAdapter[Any](bool)],
}
_INDENTED = re.compile(r"\n(?:\t|  )")
_SEEN: ContextVar[dict[tuple[str, int, int], tuple[bool | None, Any]]] = ContextVar("_SEEN")
_ROOT: ContextVar["_Root"] = ContextVar("_ROOT")

_PATTERN_S, _PATTERNS_S = 0.1, 0.2  # for one search, and for all slow ones of a schema
_SLOW_S = 0.001
_MAX_PATTERN_CHARS, _MAX_REPEATS = 1_000, 10_000  # what is compiled takes time and memory for each, too
_REPEATS = re.compile(r"\{(\d+)")
"""Of one validation: which references were followed on which values, and whether those were valid; None meanwhile."""
_NAMED = (uuid.UUID, pathlib.PurePath, ipaddress._IPAddressBase, re.Pattern, Fraction)  # noqa: SLF001  # no public base
_DATES = (dt.date, dt.time, dt.timedelta)
_ABSENT = object()
_LONG_WORDS = 8
_CLOSE = 1e-6
_EPSILON = 1e-9  # shares this close are equal: sums of rounded weights
_MAX_MERGED = 50  # levels; what is deeper is merged as a whole


# ---- what a class makes of a value


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
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"`{place}`: {first['msg']}" if place else first["msg"]
    return str(error) or type(error).__name__


# ---- what a schema makes of a value


@dataclass(frozen=True, slots=True)
class Reading:
    """A value as a schema reads it.

    Attributes:
        value: What it is taken for: types read, defaults filled in; of a class, what the class makes of it.
        fault: None if it is valid; else why not, in one line of at most 200 characters.
    """

    value: Any
    fault: str | None


class Schema:
    """A JSON schema, of a class or alone. Making one computes nothing.

    Args:
        rules: The schema; one that is malformed accepts every value as it is.
        reader: Reads and validates in its place; None where there is no class.

    Attributes:
        choices: Of a schema that was narrowed to a value, which alternative of each `anyOf` and `oneOf` the value took,
            in the order met, counted from 0; -1 where none accepts it.
    """

    def __init__(self, rules: Mapping[str, Any] | bool, reader: ClassReader | None = None) -> None:
        self._root = _Root(rules)
        self._reader = reader
        self._parts: tuple[Any, ...] = (self._root.rules,)
        self.choices: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Schema({_shortened(values.dump_json(self._root.rules), 80)})"

    def read(self, value: Any) -> Reading:
        """Read a value.

        A class reads it in pydantic's lax mode. A schema alone reads "3" and 3.0 as 3 where a whole number is wanted, "true"
        as True where a boolean is, and a name in any case where names are listed; of alternatives the first counts that
        accepts the value as it is, then the first that accepts a lenient reading of it. What is absent is filled by its
        default at every depth, if that is valid itself and ends.
        """
        fault = _too_large(value)
        if fault is None:
            try:
                value, fault = self._root.read(value) if self._reader is None else self._read_by_class(value)
            except RecursionError:
                fault = "the value is nested too deep for its schema, or a $ref leads back to itself"
        return Reading(value, None if fault is None else _shortened(masked(printable(fault)), _MAX_FAULT))

    def _read_by_class(self, value: Any) -> tuple[Any, str | None]:
        assert self._reader is not None, "asked only where there is one"
        try:
            return self._reader.read(value), None
        except NotReadError as error:
            fault = " ".join(str(error).split())
        with suppress(NotReadError, RecursionError):  # the schema may know a lenient reading that the class does not
            return self._reader.read(self._root.read(value)[0]), None
        return value, fault

    def write(self, value: Any) -> Any:
        """Write a value that was read, or merged of such, as JSON.

        Returns:
            What is valid and reads as the same value again; None where nothing does.
        """
        try:
            written = as_json(value)
        except Exception:  # noqa: BLE001  # what a class makes can be anything
            return None
        again = self.read(written)
        is_same = again.fault is None and self.label(again.value, case=True) == self.label(value, case=True)
        return written if is_same else None

    def label(self, value: Any, *, case: bool = False) -> str:
        """Write a value that was read so that equal texts mean the same value.

        The order of keys, 1 or 1.0, accents as characters of their own, white space in strings (but for that of indented
        lines), an instant's zone, and properties absent or equal to their default do not matter; nor does case, if `case`
        is False. Strings with an `enum`, `const`, `pattern` or `format` count exactly. Lists count in order, sets do not.
        """
        if _too_large(value) is None:
            with suppress(RecursionError):
                value = self._folded(value, self._parts, case=case)
        return values.dump_json(value)

    def _folded(self, value: Any, parts: Sequence[Any], *, case: bool) -> Any:
        """Drop from a value that was read what does not matter."""
        leaf = comparable(value)
        if leaf is not value or not isinstance(value, (str, dict, list)):
            return leaf
        views, _ = self._views(value, parts)
        if isinstance(value, str):
            formats = [view.get("format") for view in views]
            is_exact = any(word in view for view in views for word in _TEXT_RULES)
            return _canonical_format(value, formats) if is_exact else folded_text(value, case=case)
        if isinstance(value, dict):
            inner = {key: [rules for view in views for rules in self._root.property_rules(view, key)] for key in value}
            return {key: self._folded(item, inner[key], case=case) for key, item in value.items()}
        items = [
            self._folded(item, [rules for view in views for rules in _item_rules(view, at)], case=case)
            for at, item in enumerate(value)
        ]
        is_set = any(view.get("uniqueItems") is True for view in views) and not any("prefixItems" in v for v in views)
        if is_set or isinstance(value, SetOfValues):
            items.sort(key=values.dump_json)
        return items

    def canonical(self, value: Any) -> str:
        """Write a value that nobody has read as `label` does, case told apart; one that is not valid has a leading `!`."""
        reading = self.read(value)
        return ("" if reading.fault is None else "!") + self.label(reading.value, case=True)

    def narrowed(self, value: Any) -> "Schema":
        """Follow each `$ref` and `allOf`, and of each `anyOf` and `oneOf` the alternative that accepts a value that was read."""
        try:
            parts, choices = self._views(value, self._parts)
        except RecursionError:
            parts, choices = (), ()
        return self._with(parts, choices)

    def field(self, name: str) -> "Schema":
        """Schema of a property; of a schema that was narrowed to an object."""
        return self._with(tuple(rules for part in self._parts for rules in self._root.property_rules(part, name)), ())

    @property
    def required(self) -> frozenset[str]:
        """Properties that must be there; of a schema that was narrowed to an object."""
        return frozenset(name for part in self._parts for name in _list_of(part, "required") if isinstance(name, str))

    @property
    def types(self) -> frozenset[str]:
        """Types that are named; of a schema that was narrowed to a value. Empty where it names none."""
        return frozenset(name for part in self._parts for name in _types_of(part))

    def mentions(self, *keywords: str) -> bool:
        """Whether it has a keyword; of a schema that was narrowed to a value."""
        return any(word in part for part in self._parts if isinstance(part, dict) for word in keywords)

    @property
    def limits_text(self) -> bool:
        """Whether strings must be of a certain form; of a schema that was narrowed to a string."""
        return self.mentions(*_TEXT_RULES)

    def _views(self, value: Any, parts: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], tuple[int, ...]]:
        return self._root.views(value if self._reader is None else as_json(value), parts)

    def _with(self, parts: tuple[Any, ...], choices: tuple[int, ...]) -> "Schema":
        schema = Schema.__new__(Schema)
        vars(schema).update(_root=self._root, _reader=self._reader, _parts=parts, choices=choices)
        return schema


def folded_text(text: str, *, case: bool) -> str:
    """Drop from free text what does not matter: white space, but for that of indented lines, and case, if `case` is False."""
    lines = text.strip("\n").split("\n") if _INDENTED.search(text) else [" ".join(text.split())]
    folded = "\n".join(map(str.rstrip, lines))
    return values.composed(folded if case else folded.casefold())


def canonical_calls(calls: Sequence[Mapping[str, Any]], schemas: Mapping[str, Schema]) -> str:
    """Write tool calls so that equal texts mean the same calls: the whole multiset, in any order, identifiers left out.

    Args:
        calls: Each with `name`, and `args` as a mapping or as the JSON text of one.
        schemas: Schema of each tool's arguments by its name; calls of other tools are written as
            `values.canonical_tool_calls` does.
    """
    return "[" + ",".join(sorted(_call(call, schemas) for call in calls)) + "]"


def _call(call: Mapping[str, Any], schemas: Mapping[str, Schema]) -> str:
    name, args = call.get("name"), call.get("args")
    schema = schemas.get(name) if isinstance(name, str) else None
    if schema is None:
        return values.canonical_tool_calls([call])[1:-1]
    if isinstance(args, str):
        try:
            args = json.loads(args)
        except (ValueError, RecursionError):
            return f"[{values.dump_json(name)},!{values.dump_json(args)}]"
    return f"[{values.dump_json(name)},{schema.canonical({} if args is None else args)}]"


def _canonical_format(text: str, formats: Sequence[Any]) -> str:
    """Write an instant or a UUID of a JSON schema in one form; other strings as they are."""
    with suppress(ValueError):
        if "date-time" in formats:
            return str(comparable(dt.datetime.fromisoformat(text)))
        if "uuid" in formats:
            return str(uuid.UUID(text))
    return text


def _too_large(value: Any) -> str | None:
    """Say why a value is too deep or too large; None if it is neither."""
    level, num_values = [value], 0
    for _ in range(_MAX_DEPTH + 1):
        num_values += len(level)
        if num_values > MAX_VALUES:
            return f"the value holds more than {MAX_VALUES:,} values"
        held = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in held for item in items]
        if not level:
            return None
    return f"the value is nested deeper than {_MAX_DEPTH} levels"


class _Root:
    """A whole schema: what the references in any part of it refer to, and the validator, made when first needed."""

    def __init__(self, rules: Any) -> None:
        # Without "$schema", since whatever it names is read as 2020-12.
        self.rules = {key: rules[key] for key in rules if key != "$schema"} if isinstance(rules, Mapping) else rules
        self._targets: dict[str, Any] = {}
        self._left_s = _PATTERNS_S

    @cached_property
    def validator(self) -> Any:
        """The validator, or None if the schema is malformed."""
        try:
            _check(json.dumps(self.rules, sort_keys=True, default=repr))
            has_patterns = "patternProperties" in json.dumps(self.rules, default=repr)
            return _validator_maker(has_patterns=has_patterns)(self.rules) if self._is_closed(self.rules) else None
        except Exception:  # noqa: BLE001  # whatever is wrong with a schema, it is malformed
            return None

    def broken(self, value: Any, rules: Any) -> str | None:
        """Describe the first rule that a value breaks under a part of this schema, None if it breaks none.

        Raises:
            RecursionError: The value is too deep, or a reference leads back to itself.
        """
        with self._remembering():
            try:
                error = next(self.validator.evolve(schema=rules).iter_errors(value), None)
                return None if error is None else _described(error)
            except RecursionError:
                raise
            except Exception:  # noqa: BLE001  # what leads to no schema accepts everything
                return None

    @contextmanager
    def _remembering(self) -> Generator[None]:
        """Follow no reference twice for one value, until the outermost of these ends."""
        if _ROOT.get(None) is self:
            yield
            return
        seen, root = _SEEN.set({}), _ROOT.set(self)
        try:
            yield
        finally:
            _SEEN.reset(seen)
            _ROOT.reset(root)

    def target(self, reference: Any) -> Any:
        """Find what a reference points at within this schema; None if at nothing."""
        if not isinstance(reference, str):
            return None
        if reference not in self._targets:
            try:
                self._targets[reference] = self._resolver.lookup(reference).contents
            except Exception:  # noqa: BLE001  # whatever it is, it points at nothing
                self._targets[reference] = None
        return self._targets[reference]

    @cached_property
    def _resolver(self) -> Any:
        from referencing import Registry  # noqa: PLC0415  # slow to import
        from referencing.jsonschema import DRAFT202012  # noqa: PLC0415

        return Registry().with_resource("", DRAFT202012.create_resource(self.rules)).resolver()

    def _is_closed(self, rules: Any) -> bool:
        if isinstance(rules, dict):
            if isinstance(rules.get("$ref"), str) and self.target(rules["$ref"]) is None:
                return False
            rules = [sub for word, sub in rules.items() if word not in _DATA]
        return not isinstance(rules, list) or all(map(self._is_closed, rules))

    def matches(self, pattern: str, text: str) -> bool:
        """Whether a pattern is found in a text; one that takes too long, or could, is: that is not the members' fault.

        Raises:
            regex.error: It is none.
        """
        repeats = map(int, _REPEATS.findall(pattern[:_MAX_PATTERN_CHARS]))
        if self._left_s <= 0 or len(pattern) > _MAX_PATTERN_CHARS or math.prod(n for n in repeats if n) > _MAX_REPEATS:
            return True
        start_s = time.thread_time()
        try:
            return regex.search(pattern, text, timeout=_PATTERN_S, concurrent=True) is not None
        except TimeoutError:
            return True
        finally:
            took_s = time.thread_time() - start_s
            self._left_s -= took_s if took_s > _SLOW_S else 0

    def property_rules(self, rules: Any, name: str) -> list[Any]:
        """Collect the rules of a property."""
        properties = _mapping_of(rules, "properties")
        found = [properties[name]] if name in properties else []
        with suppress(regex.error):
            patterns = _mapping_of(rules, "patternProperties")
            found += [sub for pattern, sub in patterns.items() if self.matches(pattern, name)]
        others = [rules["additionalProperties"]] if isinstance(rules, dict) and "additionalProperties" in rules else []
        return found or others

    def choice(self, value: Any, alternatives: Sequence[Any]) -> int:
        """Index of the first alternative that accepts a value as it is, -1 if none does."""
        return next((at for at, rules in enumerate(alternatives) if self.accepts(value, rules)), -1)

    def accepts(self, value: Any, rules: Any) -> bool:
        """Whether a value is valid under a part of this schema; raises as `broken` does."""
        types = _types_of(rules)
        if types and not self.is_a(value, types):
            return False
        return (bool(types) and rules.keys() <= _NOTES) or self.broken(value, rules) is None

    def is_a(self, value: Any, types: Sequence[str]) -> bool:
        """Whether a value is of one of the types."""
        return any(self.validator.is_type(value, name) for name in types)

    def views(self, value: Any, parts: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], tuple[int, ...]]:
        """Collect the rules that apply to a value itself, and which alternatives it took."""
        found: dict[int, dict[str, Any]] = {}
        choices: list[int] = []

        def collect(rules: Any) -> None:
            if not isinstance(rules, dict) or id(rules) in found or self.validator is None:
                return
            found[id(rules)] = rules
            if "$ref" in rules:
                collect(self.target(rules["$ref"]))
            for part in _list_of(rules, "allOf"):
                collect(part)
            for word in ("anyOf", "oneOf"):
                if alternatives := _list_of(rules, word):
                    choices.append(self.choice(value, alternatives))
                    if choices[-1] >= 0:
                        collect(alternatives[choices[-1]])

        with self._remembering():
            for part in parts:
                collect(part)
        return tuple(found.values()), tuple(choices)

    def read(self, value: Any) -> tuple[Any, str | None]:
        """Read a value leniently and say what it breaks; defaults, then readings, yield where they make it invalid."""
        if self.validator is None:
            return value, None
        first, fault = value, None
        with self._remembering():
            for read in (_Reader(self, fill=True).read, _Reader(self, fill=False).read, lambda value, _: value):
                found = read(value, self.rules)
                broken = self.broken(found, self.rules)
                if broken is None:
                    return found, None
                if fault is None:
                    first, fault = found, broken
        return first, fault


class _Reader:
    """Reads one value under the rules of a schema; each pair of a value and rules once."""

    def __init__(self, root: _Root, *, fill: bool) -> None:
        self._root, self._fill = root, fill
        self._done: dict[tuple[int, int], tuple[Any, Any]] = {}  # with the value, so that its id stays its own
        self._defaults: dict[int, tuple[bool, Any]] = {}

    def read(self, value: Any, rules: Any) -> Any:
        """Read a value; the very same object comes back if nothing is to change."""
        if not isinstance(rules, dict):
            return value
        key = id(value), id(rules)
        if key not in self._done:
            self._done[key] = value, value  # what refers back to itself adds nothing
            self._done[key] = value, self._apply(value, rules)
        return self._done[key][1]

    def _apply(self, value: Any, rules: dict[str, Any]) -> Any:
        for part in [self._root.target(rules["$ref"]) if "$ref" in rules else None, *_list_of(rules, "allOf")]:
            value = self.read(value, part)
        for word in ("anyOf", "oneOf"):
            value = self._alternative(value, _list_of(rules, word))
        value = self._typed(value, rules)
        if isinstance(value, dict):
            filled = {key: self._each(item, self._root.property_rules(rules, key)) for key, item in value.items()}
            filled |= self._absent(value, rules) if self._fill else {}
            return value if len(filled) == len(value) and all(filled[key] is value[key] for key in value) else filled
        if isinstance(value, list):
            items = [self._each(item, _item_rules(rules, at)) for at, item in enumerate(value)]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        return value

    def _typed(self, value: Any, rules: dict[str, Any]) -> Any:
        """Read a scalar as one of the types or names wanted; as it is if it fits, or none can be read."""
        types = _types_of(rules)
        if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
            return int(value)
        if isinstance(value, str) and value not in (allowed := _list_of(rules, "enum")):
            meant = [one for one in allowed if isinstance(one, str) and one.casefold() == value.strip().casefold()]
            value = meant[0] if len(meant) == 1 else value
        if self._root.is_a(value, types):
            return value
        read = (_typed_as(value, name) for name in types)
        return next((found for found in read if found is not None), value)

    def _alternative(self, value: Any, alternatives: Sequence[Any]) -> Any:
        at = self._root.choice(value, alternatives)
        if at >= 0:
            return self.read(value, alternatives[at])
        read = ((self.read(value, rules), rules) for rules in alternatives)
        return next((found for found, rules in read if self._root.accepts(found, rules)), value)

    def _each(self, value: Any, all_rules: Sequence[Any]) -> Any:
        for rules in all_rules:
            value = self.read(value, rules)
        return value

    def _absent(self, value: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, sub in _mapping_of(rules, "properties").items():
            if name not in value and isinstance(sub, dict) and "default" in sub:
                is_usable, default = self._default(sub)
                if is_usable:
                    found[name] = copy.deepcopy(default)
        return found

    def _default(self, rules: dict[str, Any]) -> tuple[bool, Any]:
        """Whether a default can be filled, and the default with its own defaults filled, but for itself."""
        key = id(rules)
        if key not in self._defaults:
            self._defaults[key] = False, None
            value = self.read(copy.deepcopy(rules["default"]), rules)
            self._defaults[key] = self._root.accepts(value, rules), value
        return self._defaults[key]


def _types_of(rules: Any) -> Sequence[str]:
    found = rules.get("type") if isinstance(rules, dict) else None
    return [name for name in (found if isinstance(found, list) else [found]) if name in _TYPES]


def _list_of(rules: Any, word: str) -> list[Any]:
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, list) else []


def _mapping_of(rules: Any, word: str) -> dict[str, Any]:
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, dict) else {}


def _item_rules(rules: dict[str, Any], at: int) -> list[Any]:
    prefix = _list_of(rules, "prefixItems")
    return [prefix[at]] if at < len(prefix) else [rules["items"]] if "items" in rules else []


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _typed_as(value: Any, name: str) -> Any:
    """Read a scalar as a type as pydantic does in lax mode; None where it cannot."""
    for reader in _LAX.get(name, ()):
        with suppress(ValidationError):
            return reader.validate_python(value)
    return None


def _described(error: Any) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    said = error.message
    if len(said) > 130:  # masked first, since a part of a key is not known for one
        said = f"{masked(said[:1_000])[:50]} … {masked(said[-1_000:])[-75:]}"
    return f"{_shortened(path.removeprefix('.'), 60) or 'the value'}: {said}"


@lru_cache(maxsize=256)
def _check(written: str) -> None:
    """Check a schema against that of schemas; kept, since it takes milliseconds and tools are bound again and again.

    Raises:
        SchemaError: It is malformed.
    """
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # slow to import

    Draft202012Validator.check_schema(json.loads(written))


@cache
def _validator_maker(*, has_patterns: bool) -> Callable[[Any], Any]:
    """Make the validator: the standard's, but references cost each value once, items compare in linear time, patterns have a limit.

    Where properties have patterns, which are unevaluated is not looked into, since the standard's own has no limit.
    """
    from jsonschema import Draft202012Validator, exceptions, validators  # noqa: PLC0415  # slow to import
    from referencing import Registry  # noqa: PLC0415

    follow = Draft202012Validator.VALIDATORS["$ref"]  # which is that of "$dynamicRef" too

    def reference(validator: Any, target: Any, value: Any, rules: Any) -> Iterator[Any]:
        seen, key = _SEEN.get(), (target, id(rules), id(value))
        if key not in seen:
            seen[key] = None, value  # so that its id stays its own
            try:
                errors = list(follow(validator, target, value, rules))
            except BaseException:
                del seen[key]
                raise
            seen[key] = not errors, value
            yield from errors
        elif seen[key][0] is None:
            raise RecursionError
        elif not seen[key][0]:
            yield exceptions.ValidationError(f"is not valid under {target}")

    def unique(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[Any]:
        if wanted and isinstance(value, list) and len(set(map(values.dump_json, value))) < len(value):
            yield exceptions.ValidationError("has equal items")

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[Any]:
        if isinstance(value, str) and not _ROOT.get().matches(wanted, value):
            yield exceptions.ValidationError(f"{value!r} does not match {wanted!r}")

    def pattern_properties(validator: Any, wanted: dict[str, Any], value: Any, _: Any) -> Iterator[Any]:
        for one, rules in wanted.items() if isinstance(value, dict) else ():
            for name, held in value.items():
                if _ROOT.get().matches(one, name):
                    yield from validator.descend(held, rules, path=name, schema_path=one)

    def additional_properties(validator: Any, wanted: Any, value: Any, rules: Any) -> Iterator[Any]:
        known, patterns = _mapping_of(rules, "properties"), _mapping_of(rules, "patternProperties")
        for name, held in value.items() if isinstance(value, dict) else ():
            if name in known or any(_ROOT.get().matches(one, name) for one in patterns):
                continue
            if isinstance(wanted, dict):
                yield from validator.descend(held, wanted, path=name)
            elif not wanted:
                yield exceptions.ValidationError(f"Additional properties are not allowed ({name!r} was unexpected)")

    bounded = {
        "$ref": reference,
        "$dynamicRef": reference,
        "uniqueItems": unique,
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        **({"unevaluatedProperties": lambda *_: ()} if has_patterns else {}),
    }
    return partial(validators.extend(Draft202012Validator, bounded), registry=Registry())  # which fetches nothing


# ---- merging


@dataclass(frozen=True, slots=True)
class Merged:
    """What candidates say together.

    Attributes:
        value: The merged value; it shares its parts with the candidates' values.
        agreement: By the dotted path of each field (`"address.city"`; `""` names the value itself), the share of the weight
            that says the same as the value chosen, in [0, 1]. A property that was left out has the share of those that
            have the object without it.
    """

    value: Any
    agreement: Mapping[str, float]


def merge(values: Sequence[Any], weights: Sequence[float], *, leader: int, schema: Schema) -> Merged:
    """Merge candidates' values field by field.

    - Objects are merged by property, in the leader's order and then the others'. A property stays if it is required, or
      those that have it outweigh those that have the object without it. Objects of different alternatives of an `anyOf`
      or `oneOf` are not mixed: the heaviest alternative wins.
    - Numbers (not integers): the lower weighted median, and what is within 1e-6 of it says the same.
    - Free text (of more than eight words, with no rule about its form): decided only by a majority that says the same.
    - Everything else, and each list as a whole: the value most weight is behind. Strings of no fixed form are the
      same in any case and with any white space, in lists too.
    - Fields that this leaves open, free text without a majority and what no two say alike, are not mixed with those of
      other members: then the value is a candidate's as a whole, of those that agree with most of the decided fields the
      most trusted.

    Ties go to the leader's value, else to that of the heavier candidate, else to that of the earlier. So does the choice
    of whose spelling of one value comes out.

    Args:
        values: N candidates' values, each normalised by `schema`.
        weights: Weight of each, N finite floats of at least 0, one of them positive; only their ratios matter.
        leader: Index of the most trusted candidate.
        schema: Schema of the values.
    """
    largest = max(weights)
    total = math.fsum(weight / largest for weight in weights)
    merger = _Merger([weight / largest / total for weight in weights], leader)
    value, chosen = merger.merge(dict(enumerate(values)), schema, "", 0), None
    if any(field.is_open for field in merger.fields):
        chosen = merger.most_decided(range(len(values)))
        value = values[chosen]
    return Merged(value, merger.agreement(chosen))


@dataclass(frozen=True, slots=True)
class _Field:
    """What was decided of one field.

    Attributes:
        path: Its dotted path.
        winners: Candidates that say what was chosen.
        side_of: Names those who say the same as a candidate; nobody, if that one says nothing of the field.
        is_open: True if nothing was decided.
        has_fields: True if what was chosen is an object with fields of its own, which tell how many agree.
    """

    path: str
    winners: Collection[int]
    side_of: Callable[[int], Collection[int]]
    is_open: bool = False
    has_fields: bool = False


@dataclass(frozen=True, slots=True)
class _Merger:
    shares: Sequence[float]
    leader: int
    fields: list[_Field] = field(default_factory=list)

    def merge(self, said: Mapping[int, Any], schema: Schema, path: str, depth: int) -> Any:
        """Merge what candidates say, by their indices, of one field."""
        ballots = _ballots(said, schema, whole=depth >= _MAX_MERGED)
        groups = _grouped(said, lambda candidate: ballots[candidate].group)
        labels = _grouped(said, lambda candidate: (ballots[candidate].group, ballots[candidate].label))
        winners = self._heaviest(groups)
        kind = ballots[winners[0]].kind

        def side_of(candidate: int) -> Collection[int]:
            if candidate not in said:
                return ()
            if ballots[candidate].kind == "number":
                alike = groups[ballots[candidate].group]
                return [i for i in alike if math.isclose(said[i], said[candidate], rel_tol=_CLOSE)]
            return labels[ballots[candidate].group, ballots[candidate].label]

        if kind == "object" or (kind != "value" and len(groups) > 1):
            self._decide(path, winners, said, has_fields=True)
        if kind == "object":
            return self._object({i: said[i] for i in winners}, ballots[winners[0]].shape, path, depth)
        if kind == "number":
            chosen, is_open = self._median(winners, said), False
        else:
            alike = self._heaviest(_grouped(winners, lambda candidate: ballots[candidate].label))
            is_minor = len(alike) < len(said) and self._share(alike) <= self._share(said) / 2 + _EPSILON
            is_open = is_minor and (kind == "text" or all(len(side) == 1 for side in labels.values()))
            chosen = min(alike, key=self._rank)
        self.fields.append(_Field(path, side_of(chosen), side_of, is_open))
        return said[chosen]

    def _object(self, said: Mapping[int, dict[str, Any]], shape: Schema, path: str, depth: int) -> dict[str, Any]:
        order = sorted(said, key=lambda candidate: candidate != self.leader)
        merged = {}
        for name in dict.fromkeys(chain.from_iterable(said[candidate] for candidate in order)):
            inner = f"{path}.{name}" if path else name
            having = {candidate: value[name] for candidate, value in said.items() if name in value}
            lacking = [candidate for candidate in said if candidate not in having]
            is_rare = self._share(having) <= self._share(lacking) + _EPSILON
            if lacking and is_rare and name not in shape.required:
                self._decide(inner, lacking, said)
            else:
                if not is_rare:
                    self._decide(inner, having, said, has_fields=True)
                merged[name] = self.merge(having, shape.field(name), inner, depth + 1)
        if not merged and not any(said.values()):
            self._decide(path, said, said)
        return merged

    def _decide(self, path: str, winners: Collection[int], said: Collection[int], *, has_fields: bool = False) -> None:
        others = [candidate for candidate in said if candidate not in winners]
        sides = {**dict.fromkeys(winners, winners), **dict.fromkeys(others, others)}
        self.fields.append(_Field(path, winners, lambda candidate: sides.get(candidate, ()), has_fields=has_fields))

    def most_decided(self, candidates: Iterable[int]) -> int:
        """Find the candidate that agrees with most of what was decided."""
        decided = [set(field.winners) for field in self.fields if not field.is_open]
        agreed = {candidate: sum(candidate in winners for winners in decided) for candidate in candidates}
        return min(agreed, key=lambda candidate: (-agreed[candidate], -self.shares[candidate], self._rank(candidate)))

    def agreement(self, chosen: int | None) -> dict[str, float]:
        """Return the share that agrees on each field, with what was merged or with one candidate."""
        found: dict[str, float] = {}
        for decided in self.fields:
            side = decided.winners if chosen is None else decided.side_of(chosen)
            if side and not (decided.has_fields and (chosen is None or chosen in decided.winners)):
                share = self._share(side)
                # The least, where a dot in a property's name makes two fields one path.
                found[decided.path] = min(found.get(decided.path, 1.0), share if share < 1 - _EPSILON else 1.0)
        return found

    def _median(self, candidates: Sequence[int], said: Mapping[int, Any]) -> int:
        half, below = self._share(candidates) / 2 - _EPSILON, 0.0
        for candidate in sorted(candidates, key=lambda candidate: said[candidate]):
            below += self.shares[candidate]
            if below >= half:
                break
        return min((i for i in candidates if said[i] == said[candidate]), key=self._rank)

    def _heaviest(self, groups: Mapping[Hashable, list[int]]) -> list[int]:
        weights = {group: self._share(candidates) for group, candidates in groups.items()}
        most = max(weights.values()) - _EPSILON
        tied = [candidates for group, candidates in groups.items() if weights[group] >= most]
        return min(tied, key=lambda candidates: min(map(self._rank, candidates)))

    def _rank(self, candidate: int) -> tuple[bool, float, int]:
        return candidate != self.leader, -self.shares[candidate], candidate

    def _share(self, candidates: Iterable[int]) -> float:
        return math.fsum(self.shares[candidate] for candidate in candidates)


@dataclass(frozen=True, slots=True)
class _Ballot:
    """What one candidate says of a field.

    Attributes:
        kind: `"object"`, `"number"` (whose median counts), `"text"` (free text) or `"value"` (anything else).
        label: What it says; equal labels say the same.
        group: What it votes for at first; kinds other than `"value"` stand together, however they differ.
        shape: The field's schema, narrowed to what it says.
    """

    kind: str
    label: Hashable
    group: Hashable
    shape: Schema


def _ballots(said: Mapping[int, Any], schema: Schema, *, whole: bool) -> dict[int, _Ballot]:
    """Read what candidates say of a field; `whole` takes objects for single values."""
    shapes: dict[Hashable, Schema] = {}
    keys = {i: (type(value), value) if _is_scalar(value) else i for i, value in said.items()}
    for i, value in said.items():
        if keys[i] not in shapes:
            shapes[keys[i]] = schema.narrowed(value)
    medians = any("number" in shape.types and not shape.mentions("enum", "const") for shape in shapes.values()) or any(
        isinstance(value, Decimal) or (isinstance(value, float) and not shapes[keys[i]].types)
        for i, value in said.items()
    )
    prose = any(
        isinstance(value, str) and len(value.split(maxsplit=_LONG_WORDS)) > _LONG_WORDS for value in said.values()
    )
    ballots: dict[Hashable, _Ballot] = {}
    for i, value in said.items():
        if keys[i] not in ballots:
            shape = shapes[keys[i]]
            kind, label = "value", ""
            if isinstance(value, dict) and not whole:
                kind = "object"
            elif isinstance(value, str) and not shape.limits_text:
                kind, label = "text" if prose else "value", f"text {folded_text(value, case=False)}"
            elif medians and _is_number(value):
                kind = "number"
            else:
                label = schema.label(value)
            group = (kind, shape.choices if kind == "object" else label if kind == "value" else "")
            ballots[keys[i]] = _Ballot(kind, label, group, shape)
    return {i: ballots[key] for i, key in keys.items()}


def _grouped(candidates: Iterable[int], key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for candidate in candidates:
        groups.setdefault(key(candidate), []).append(candidate)
    return groups


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_number(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and abs(value) <= sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max

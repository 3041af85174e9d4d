"""Schemas: how a JSON schema or a caller's class reads a value, whether the value is valid, and when two say the same.

A schema is what LangChain makes of a tool or of a class for structured output: JSON Schema 2020-12, as `jsonschema` has it,
in which `format` is a note and no rule. One that is malformed, or refers to what is not there, accepts everything: what the
caller wrote is not the members' fault. Where the caller gave a class, the class reads and decides, and its schema only tells
which strings are names and which are free text. Nothing here fetches a schema, changes a value it is given, or raises on
one, however deep, large or strange.

It refuses to guess: a value is read differently only where its type does not fit and another reading does.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.class_reading import ClassReader, NotReadError, SetOfValues, as_json, comparable
from langchain_rlfocal.answers.schema_rules import (
    PASSING,
    Root,
    item_rules,
    list_of,
    property_rules,
    shortened,
    types_of,
)
from langchain_rlfocal.redaction import masked, printable

MAX_VALUES = 10_000
"""A value that holds more, itself included, is not valid: reading, validating and comparing each takes tens of microseconds."""

_MAX_FAULT = 200
_MAX_DEPTH = 100  # as deep as `values.dump_json` writes
_MAX_BITS = 10_000  # Python refuses to write whole numbers much longer than this
_TEXT_RULES = ("enum", "const", "pattern", "format")
_INDENTED = re.compile(r"\n(?:\t|  )")


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
        self._root = Root(rules)
        self._reader = reader
        self._parts: tuple[Any, ...] = (self._root.rules,)
        self.choices: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Schema({shortened(values.dump_json(self._root.rules), 80)})"

    def read(self, value: Any) -> Reading:
        """Read a value.

        A class reads it in pydantic's lax mode. A schema alone reads "3" and 3.0 as 3 where a whole number is wanted, "true"
        as True where a boolean is, and a name in any case where names are listed; of alternatives the first counts that
        accepts the value as it is, then the first that accepts a lenient reading of it. What is absent is filled by its
        default at every depth, if that is valid itself and ends.
        """
        fault = _unlike_json(value)
        if fault is None:
            try:
                value, fault = self._root.read(value) if self._reader is None else self._read_by_class(value)
            except RecursionError:
                fault = "the value is nested too deep for its schema, or a $ref leads back to itself"
        return Reading(value, None if fault is None else shortened(masked(printable(fault)), _MAX_FAULT))

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
        except PASSING:
            raise
        except BaseException:  # noqa: BLE001  # what a class makes can be anything
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
        if _unlike_json(value, of_class=True) is None:
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
            inner = {key: [rules for view in views for rules in property_rules(view, key)] for key in value}
            return {key: self._folded(item, inner[key], case=case) for key, item in value.items()}
        items = [
            self._folded(item, [rules for view in views for rules in item_rules(view, at)], case=case)
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
        return self._with(tuple(rules for part in self._parts for rules in property_rules(part, name)), ())

    @property
    def required(self) -> frozenset[str]:
        """Properties that must be there; of a schema that was narrowed to an object."""
        return frozenset(name for part in self._parts for name in list_of(part, "required") if isinstance(name, str))

    @property
    def types(self) -> frozenset[str]:
        """Types that are named; of a schema that was narrowed to a value. Empty where it names none."""
        return frozenset(name for part in self._parts for name in types_of(part))

    def mentions(self, *keywords: str) -> bool:
        """Whether a keyword stands in it; of a schema that was narrowed to a value."""
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
            return str(comparable(datetime.fromisoformat(text)))
        if "uuid" in formats:
            return str(UUID(text))
    return text


def _unlike_json(value: Any, *, of_class: bool = False) -> str | None:
    """Say why a value is none that JSON can hold, or too deep or too large; None if it is neither.

    Args:
        value: The value.
        of_class: True lets scalars be of any kind, as a class makes them.
    """
    level, num_values = [value], 0
    for _ in range(_MAX_DEPTH + 1):
        num_values += len(level)
        if num_values > MAX_VALUES:
            return f"the value holds more than {MAX_VALUES:,} values"
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return "the value has a key that is no string"
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif isinstance(item, int):
                if item.bit_length() > _MAX_BITS:
                    return "the value holds a whole number that is too long"
            elif not (of_class or item is None or isinstance(item, (str, float))):
                return f"the value holds a {type(item).__name__}, which JSON has not"
        if not deeper:
            return None
        level = deeper
    return f"the value is nested deeper than {_MAX_DEPTH} levels"

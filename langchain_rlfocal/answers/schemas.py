"""Schemas: how a JSON schema reads a value, whether the value is valid, and when two values say the same.

A schema is what LangChain makes of a tool or of a class for structured output: JSON Schema 2020-12, in which `format` is
a note and no rule. One that is malformed, or refers to what is not there, accepts everything: what the caller wrote is
not the members' fault. Nothing here fetches a schema, changes a value it is given, or raises on one, however deep, large
or strange; a recursive schema takes time polynomial in the value.

It refuses to guess: a value is read differently only where its type does not fit and another reading does.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.schema_reading import read_all
from langchain_rlfocal.answers.schema_rules import (
    TEXT_RULES,
    Root,
    list_of,
    property_rules,
    shortened,
    types_of,
    unlike_json,
)
from langchain_rlfocal.foreign_text import masked, printable

_MAX_FAULT = 200


class Schema:
    """A JSON schema. Making one computes nothing; equal schemas are equal and hash alike, so that they can be cached.

    A malformed schema accepts every value as it is.

    Attributes:
        choices: Of a schema that was narrowed to a value, which alternative of each `anyOf` and `oneOf` the value took,
            in the order met, counted from 0; -1 where none accepts it.
    """

    def __init__(self, rules: Mapping[str, Any] | bool) -> None:
        self._root = Root(rules)
        self._parts: tuple[Any, ...] = (self._root.rules,)
        self.choices: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Schema({shortened(values.dump_json(self._root.rules), 80)})"

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Schema) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> Any:
        try:
            return tuple(json.dumps(rules, sort_keys=True, default=repr) for rules in (self._root.rules, *self._parts))
        except (TypeError, ValueError, RecursionError):
            return object()  # what JSON cannot write equals itself alone

    def normalized(self, value: Any) -> Any:
        """Read a value as leniently as pydantic's lax mode does, and fill what is absent by its default.

        "3" and 3.0 become 3 where a whole number is wanted, "true" becomes True where a boolean is; of alternatives the
        first counts that accepts the value as it is, then the first that accepts a lenient reading of it. A default is
        filled only if it is valid itself and ends (that of a recursive schema may not). Doing this again changes nothing.

        Returns:
            The value read; parts that need no change are shared with `value`, which itself stays as it is.
        """
        return self._settled(value)[0]

    def fault(self, value: Any) -> str | None:
        """Say why a value is not valid, once normalised.

        Returns:
            None if it is; else one line of at most 200 characters with the path, the rule broken and the value found.
        """
        return self.read(value)[1]

    def read(self, value: Any) -> tuple[Any, str | None]:
        """Return a value as `normalized` does, and what `fault` says of it, at the price of one."""
        normal, valid = self._settled(value)
        if valid:
            return normal, None
        line = unlike_json(value)
        try:
            line = line or next(filter(None, (self._root.broken(normal, part) for part in self._parts)), "")
        except RecursionError:
            line = "the value is nested too deep for its schema, or a $ref leads back to itself"
        return normal, shortened(masked(printable(line)), _MAX_FAULT)

    def canonical(self, value: Any) -> str:
        """Write a value so that equal texts mean the same value.

        The order of keys, white space around and within strings, 1 or 1.0, and properties absent or equal to their
        default do not matter. Strings with an `enum`, `const`, `pattern` or `format` count exactly; arrays count in
        order, except those of `uniqueItems`. A value that is not valid is marked by a leading `!`.
        """
        normal, valid = self._settled(value)
        return ("" if valid else "!") + self.label(normal)

    def label(self, value: Any) -> str:
        """Write a value as `canonical` does, but take it for normalised, and valid."""
        try:
            folded = value if unlike_json(value) else self._root.folded(value, self._parts)
        except RecursionError:
            folded = value
        return values.dump_json(folded)

    def narrowed(self, value: Any) -> "Schema":
        """Follow each `$ref` and `allOf`, and of each `anyOf` and `oneOf` the alternative that accepts a normalised value."""
        try:
            parts, choices = self._root.views(value, self._parts)
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
        return self.mentions(*TEXT_RULES)

    def _with(self, parts: tuple[Any, ...], choices: tuple[int, ...]) -> "Schema":
        schema = Schema.__new__(Schema)
        vars(schema).update(_root=self._root, _parts=parts, choices=choices)
        return schema

    def _settled(self, value: Any) -> tuple[Any, bool]:
        """Normalise a value and tell whether the result is valid; defaults, then readings, yield where they break it."""
        if self._root.validator is None:
            return value, True
        if unlike_json(value):
            return value, False
        try:
            first = read_all(self._root, value, self._parts, fill=True)
            if self._valid(first):
                return first, True
            plain = read_all(self._root, value, self._parts, fill=False)
            return next(((found, True) for found in (plain, value) if self._valid(found)), (first, False))
        except RecursionError:
            return value, False

    def _valid(self, value: Any) -> bool:
        return all(self._root.broken(value, part) is None for part in self._parts)


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

"""Schemas: how a JSON schema or a caller's class reads a value, whether the value is valid, and when two say the same.

A schema is what LangChain makes of a tool or of a class for structured output: JSON Schema 2020-12, as `jsonschema` has it,
in which `format` is a note and no rule. One that is malformed, or refers to what is not there, accepts everything: what the
caller wrote is not the members' fault. Where the caller gave a class, the class reads and decides, and its schema only tells
which strings are names and which are free text. A value is read differently only where its type does not fit and another
reading does. Nothing here fetches a schema, changes a value that it is given, or raises on one.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, lru_cache, partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.class_reading import ClassReader, NotReadError, SetOfValues, as_json, comparable
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
_SEEN: ContextVar[dict[tuple[str, int, int], bool | None]] = ContextVar("_SEEN")
"""Of one validation: which references were followed on which values, and whether those were valid; None meanwhile."""


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
            inner = {key: [rules for view in views for rules in _property_rules(view, key)] for key in value}
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
        return self._with(tuple(rules for part in self._parts for rules in _property_rules(part, name)), ())

    @property
    def required(self) -> frozenset[str]:
        """Properties that must be there; of a schema that was narrowed to an object."""
        return frozenset(name for part in self._parts for name in _list_of(part, "required") if isinstance(name, str))

    @property
    def types(self) -> frozenset[str]:
        """Types that are named; of a schema that was narrowed to a value. Empty where it names none."""
        return frozenset(name for part in self._parts for name in _types_of(part))

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

    @cached_property
    def validator(self) -> Any:
        """The validator, or None if the schema is malformed."""
        try:
            _check(json.dumps(self.rules, sort_keys=True, default=repr))
            return _validator_maker()(self.rules) if self._is_closed(self.rules) else None
        except Exception:  # noqa: BLE001  # whatever is wrong with a schema, it is malformed
            return None

    def broken(self, value: Any, rules: Any) -> str | None:
        """Describe the first rule that a value breaks under a part of this schema, None if it breaks none.

        Raises:
            RecursionError: The value is too deep, or a reference leads back to itself.
        """
        token = _SEEN.set({})
        try:
            error = next(self.validator.evolve(schema=rules).iter_errors(value), None)
            return None if error is None else _described(error)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # what leads to no schema accepts everything
            return None
        finally:
            _SEEN.reset(token)

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
        """Whether every reference within rules points at something."""
        if isinstance(rules, dict):
            if isinstance(rules.get("$ref"), str) and self.target(rules["$ref"]) is None:
                return False
            rules = [sub for word, sub in rules.items() if word not in _DATA]
        return not isinstance(rules, list) or all(map(self._is_closed, rules))

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

        for part in parts:
            collect(part)
        return tuple(found.values()), tuple(choices)

    def read(self, value: Any) -> tuple[Any, str | None]:
        """Read a value leniently and say what it breaks; defaults, then readings, yield where they make it invalid."""
        if self.validator is None:
            return value, None
        first, fault = value, None
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
            filled = {key: self._each(item, _property_rules(rules, key)) for key, item in value.items()}
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
        """Collect the defaults of what is absent."""
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
    """Name the types that rules want; none where they want none."""
    found = rules.get("type") if isinstance(rules, dict) else None
    return [name for name in (found if isinstance(found, list) else [found]) if name in _TYPES]


def _list_of(rules: Any, word: str) -> list[Any]:
    """Return what stands under a keyword, if it is a list; else an empty one."""
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, list) else []


def _mapping_of(rules: Any, word: str) -> dict[str, Any]:
    """Return what stands under a keyword, if it is an object; else an empty one."""
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, dict) else {}


def _property_rules(rules: Any, name: str) -> list[Any]:
    """Find the rules for a property of that name."""
    properties = _mapping_of(rules, "properties")
    found = [properties[name]] if name in properties else []
    with suppress(re.error):
        found += [sub for pattern, sub in _mapping_of(rules, "patternProperties").items() if re.search(pattern, name)]
    others = [rules["additionalProperties"]] if isinstance(rules, dict) and "additionalProperties" in rules else []
    return found or others


def _item_rules(rules: dict[str, Any], at: int) -> list[Any]:
    """Find the rules for the item at an index of a list."""
    prefix = _list_of(rules, "prefixItems")
    return [prefix[at]] if at < len(prefix) else [rules["items"]] if "items" in rules else []


def _shortened(text: str, limit: int) -> str:
    """Cut a text to so many characters."""
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
def _validator_maker() -> Callable[[Any], Any]:
    """Make the validator: the standard's, but a reference costs each value once, and comparing items is linear."""
    from jsonschema import Draft202012Validator, exceptions, validators  # noqa: PLC0415  # slow to import
    from referencing import Registry  # noqa: PLC0415

    follow = Draft202012Validator.VALIDATORS["$ref"]  # which is that of "$dynamicRef" too

    def reference(validator: Any, target: Any, value: Any, rules: Any) -> Iterator[Any]:
        seen, key = _SEEN.get(), (target, id(rules), id(value))
        if key not in seen:
            seen[key] = None
            errors = list(follow(validator, target, value, rules))
            seen[key] = not errors
            yield from errors
        elif seen[key] is None:
            raise RecursionError
        elif not seen[key]:
            yield exceptions.ValidationError(f"is not valid under {target}")

    def unique(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[Any]:
        if wanted and isinstance(value, list) and len(set(map(values.dump_json, value))) < len(value):
            yield exceptions.ValidationError("has equal items")

    bounded = {"$ref": reference, "$dynamicRef": reference, "uniqueItems": unique}
    return partial(validators.extend(Draft202012Validator, bounded), registry=Registry())  # which fetches nothing

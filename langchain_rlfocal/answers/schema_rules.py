"""Rules: what a JSON schema says of a value, part by part, and whether the value keeps to it.

The standard's validator decides, with some keywords made cheap: a reference costs each value once, and comparing items for
equality is linear, as is matching patterns. It reads no value differently than it is; that is `schema_reading`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, cached_property, lru_cache, partial
from typing import Any
from urllib.parse import unquote

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.patterns import matches

_MAX_DEPTH = 100  # as deep as `values.dump_json` writes
_MAX_BITS = 10_000  # Python refuses to write whole numbers much longer than this
MAX_VALUES = 10_000
"""A value that holds more, itself included, is not valid: reading, validating and comparing each takes tens of microseconds."""

_Parts = tuple[dict[str, Any], ...]
IS_A: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or value.is_integer())
    ),
}
_NOTES = frozenset({"type", "title", "description", "default", "examples"})
_DATA = frozenset({"default", "enum", "const", "examples"})  # keywords that hold values, not rules
TEXT_RULES = ("enum", "const", "pattern", "format")
_NAMED_BY_MESSAGE = frozenset({"required", "additionalProperties", "unevaluatedProperties", "dependentRequired"})


class Root:
    """A whole schema: what the references in any part of it refer to, and the validator, made when first needed."""

    def __init__(self, rules: Any) -> None:
        # Without "$schema", since whatever it names is read as 2020-12.
        self.rules = {key: rules[key] for key in rules if key != "$schema"} if isinstance(rules, Mapping) else rules
        self.defaults: dict[int, tuple[bool, Any] | None] = {}

    def __getstate__(self) -> Any:
        return (self.rules,)

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]  # the validator is made anew

    @cached_property
    def validator(self) -> Any:
        """The validator, or None if the schema is malformed."""
        try:
            _check(json.dumps(self.rules, sort_keys=True, default=repr))
            return _validator_maker()(self.rules) if self.is_closed(self.rules) else None
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
        except Exception:  # noqa: BLE001  # a reference to what is no schema accepts everything
            return None
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            # The validator's library keeps schemas in Rust, which panics where Python's stack ends within it.
            raise RecursionError from None
        finally:
            _SEEN.reset(token)

    def target(self, reference: Any) -> Any:
        """Find what a reference, a JSON pointer, points at within this schema; None if at nothing."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return None
        found = self.rules
        try:
            for step in reference.split("/")[1:]:
                key = unquote(step).replace("~1", "/").replace("~0", "~")
                found = found[int(key) if isinstance(found, list) else key]
        except (LookupError, TypeError, ValueError):
            return None
        return found

    def is_closed(self, rules: Any) -> bool:
        """Whether every reference within rules points at something."""
        if isinstance(rules, dict):
            if isinstance(rules.get("$ref"), str) and self.target(rules["$ref"]) is None:
                return False
            rules = [sub for word, sub in rules.items() if word not in _DATA]
        return not isinstance(rules, list) or all(map(self.is_closed, rules))

    def choice(self, value: Any, alternatives: Sequence[Any]) -> int:
        """Index of the first alternative that accepts a value as it is, -1 if none does."""
        return next((at for at, rules in enumerate(alternatives) if self.accepts(value, rules)), -1)

    def accepts(self, value: Any, rules: Any) -> bool:
        """Whether a value is valid under a part of this schema; raises as `broken` does."""
        types = types_of(rules)
        if types and not any(IS_A[name](value) for name in types if name in IS_A):
            return False
        return (bool(types) and rules.keys() <= _NOTES) or self.broken(value, rules) is None

    def views(self, value: Any, parts: Sequence[Any]) -> tuple[_Parts, tuple[int, ...]]:
        """Collect the rules that apply to a value itself, and which alternatives it took."""
        found: dict[int, dict[str, Any]] = {}
        choices: list[int] = []

        def collect(rules: Any) -> None:
            if not isinstance(rules, dict) or id(rules) in found or self.validator is None:
                return
            found[id(rules)] = rules
            if "$ref" in rules:
                collect(self.target(rules["$ref"]))
            for part in list_of(rules, "allOf"):
                collect(part)
            for word in ("anyOf", "oneOf"):
                if alternatives := list_of(rules, word):
                    choices.append(self.choice(value, alternatives))
                    if choices[-1] >= 0:
                        collect(alternatives[choices[-1]])

        for part in parts:
            collect(part)
        return tuple(found.values()), tuple(choices)

    def folded(self, value: Any, parts: Sequence[Any]) -> Any:
        """Drop from a normalised value what does not matter: white space in strings, the order of sets."""
        if not isinstance(value, (str, dict, list)):
            return value
        views, _ = self.views(value, parts)
        if isinstance(value, str):
            return value if any(word in view for view in views for word in TEXT_RULES) else " ".join(value.split())
        if isinstance(value, dict):
            return {
                key: self.folded(item, [rules for view in views for rules in property_rules(view, key)])
                for key, item in value.items()
            }
        items = [
            self.folded(item, [rules for view in views for rules in item_rules(view, at)])
            for at, item in enumerate(value)
        ]
        if any(view.get("uniqueItems") is True for view in views) and not any("prefixItems" in view for view in views):
            items.sort(key=values.dump_json)
        return items


def types_of(rules: Any) -> Sequence[str]:
    """Name the types that rules want; none where they want none."""
    found = rules.get("type") if isinstance(rules, dict) else None
    return [found] if isinstance(found, str) else [name for name in found or () if isinstance(name, str)]


def list_of(rules: Any, word: str) -> list[Any]:
    """Return what stands under a keyword, if it is a list; else an empty one."""
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, list) else []


def mapping_of(rules: Any, word: str) -> dict[str, Any]:
    """Return what stands under a keyword, if it is an object; else an empty one."""
    found = rules.get(word) if isinstance(rules, dict) else None
    return found if isinstance(found, dict) else {}


def property_rules(rules: Any, name: str) -> list[Any]:
    """Find the rules for a property of that name."""
    properties = mapping_of(rules, "properties")
    found = [properties[name]] if name in properties else []
    found += [sub for pattern, sub in mapping_of(rules, "patternProperties").items() if matches(pattern, name)]
    return found or (
        [rules["additionalProperties"]] if isinstance(rules, dict) and "additionalProperties" in rules else []
    )


def item_rules(rules: dict[str, Any], at: int) -> list[Any]:
    """Find the rules for the item at an index of a list."""
    prefix = list_of(rules, "prefixItems")
    return [prefix[at]] if at < len(prefix) else [rules["items"]] if "items" in rules else []


def unlike_json(value: Any) -> str | None:
    """Say why a value is none that JSON can hold, or too deep or too large; None if it is neither."""
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
            elif not (item is None or isinstance(item, (str, float))):
                return f"the value holds a {type(item).__name__}, which JSON has not"
        if not deeper:
            return None
        level = deeper
    return f"the value is nested deeper than {_MAX_DEPTH} levels"


def _described(error: Any) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    where = shortened(path.removeprefix("."), 60) or "the value"
    if error.validator in _NAMED_BY_MESSAGE:
        return f"{where}: {shortened(error.message, 120)}"
    found = shortened(values.dump_json(error.instance), 50)
    if error.validator is None:
        return f"{where} is not allowed, got {found}"
    return (
        f"{where} must satisfy {error.validator} {shortened(values.dump_json(error.validator_value), 60)}, got {found}"
    )


def shortened(text: str, limit: int) -> str:
    """Cut a text to so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


_SEEN: ContextVar[dict[tuple[int, int], bool | None]] = ContextVar("_SEEN")
"""Of one validation: which references were followed on which values, and whether those were valid; None meanwhile."""


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
    """Make the validator: as the standard has it, but a reference costs each value once, and comparing items is linear."""
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415  # slow to import
    from referencing import Registry  # noqa: PLC0415

    from langchain_rlfocal.answers.unevaluated import unevaluated_items, unevaluated_properties  # noqa: PLC0415

    follow = Draft202012Validator.VALIDATORS["$ref"]

    def reference(validator: Any, target: Any, value: Any, rules: Any) -> Iterator[Any]:
        seen, key = _SEEN.get(), (id(rules), id(value))
        if key not in seen:
            seen[key] = None
            errors = list(follow(validator, target, value, rules))
            seen[key] = not errors
            yield from errors
        elif seen[key] is None:
            raise RecursionError
        elif not seen[key]:
            yield ValidationError(f"is not valid under {target}")

    def unique(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[Any]:
        if wanted and isinstance(value, list) and len(set(map(values.dump_json, value))) < len(value):
            yield ValidationError("has equal items")

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[Any]:
        if isinstance(value, str) and not matches(wanted, value):
            yield ValidationError(f"{value!r} does not match {wanted!r}")

    def pattern_properties(validator: Any, rules: Mapping[str, Any], value: Any, _: Any) -> Iterator[Any]:
        for wanted, sub in rules.items() if isinstance(value, dict) else ():
            for name, part in value.items():
                if matches(wanted, name):
                    yield from validator.descend(part, sub, path=name, schema_path=wanted)

    def additional(validator: Any, sub: Any, value: Any, rules: Mapping[str, Any]) -> Iterator[Any]:
        known, patterns = rules.get("properties", {}), rules.get("patternProperties", {})
        for name, part in value.items() if isinstance(value, dict) else ():
            if name in known or any(matches(wanted, name) for wanted in patterns):
                continue
            if sub is False:
                yield ValidationError(f"Additional properties are not allowed ({name!r} was unexpected)")
            else:
                yield from validator.descend(part, sub, path=name)

    own = {
        "$ref": reference,
        "uniqueItems": unique,
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional,
        "unevaluatedProperties": unevaluated_properties,
        "unevaluatedItems": unevaluated_items,
    }
    kind = validators.extend(Draft202012Validator, own)
    return partial(kind, registry=Registry())  # which fetches nothing

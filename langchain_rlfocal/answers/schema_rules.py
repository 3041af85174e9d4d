"""Schema rules: what a JSON schema says of a value, part by part; whether it is valid, and how it is meant.

`jsonschema` decides what is valid. Around it the work is bounded: a reference costs each value once, items are compared for
equality in linear time, and what goes too deep is not valid. A value is read leniently where its type does not fit and
another reading does, and what is absent is filled by its default.

It refuses to guess, to fetch a schema, and to guard a caller against a pattern of their own.
"""

import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cache, cached_property, lru_cache, partial
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.redaction import masked

PASSING = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What code of others may raise that is no verdict on a value: the wish to stop the program."""

_TYPES = ("string", "boolean", "null", "object", "array", "number", "integer")
_NOTES = frozenset({"type", "title", "description", "default", "examples"})
_DATA = frozenset({"default", "enum", "const", "examples"})  # keywords that hold values, not rules
_WHOLE = re.compile(r"\s{0,9}([+-]?[0-9]{1,400})(?:\.0{0,9})?\s{0,9}")
_DECIMAL = re.compile(r"\s{0,9}[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\s{0,9}")
_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "off", "0"), False
)
_SEEN: ContextVar[dict[tuple[str, int, int], bool | None]] = ContextVar("_SEEN")
"""Of one validation: which references were followed on which values, and whether those were valid; None meanwhile."""


class Root:
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
        except PASSING:
            raise
        except BaseException:  # noqa: BLE001  # the library keeps schemas in Rust, which panics where Python's stack ends
            raise RecursionError from None
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
        types = types_of(rules)
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

    def __init__(self, root: Root, *, fill: bool) -> None:
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
        for part in [self._root.target(rules["$ref"]) if "$ref" in rules else None, *list_of(rules, "allOf")]:
            value = self.read(value, part)
        for word in ("anyOf", "oneOf"):
            value = self._alternative(value, list_of(rules, word))
        value = self._typed(value, rules)
        if isinstance(value, dict):
            filled = {key: self._each(item, property_rules(rules, key)) for key, item in value.items()}
            filled |= self._absent(value, rules) if self._fill else {}
            return value if len(filled) == len(value) and all(filled[key] is value[key] for key in value) else filled
        if isinstance(value, list):
            items = [self._each(item, item_rules(rules, at)) for at, item in enumerate(value)]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        return value

    def _typed(self, value: Any, rules: dict[str, Any]) -> Any:
        """Read a scalar as one of the types or names wanted; as it is if it fits, or none can be read."""
        types = types_of(rules)
        if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
            return int(value)
        if isinstance(value, str) and value not in (allowed := list_of(rules, "enum")):
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
        for name, sub in mapping_of(rules, "properties").items():
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


def types_of(rules: Any) -> Sequence[str]:
    """Name the types that rules want; none where they want none."""
    found = rules.get("type") if isinstance(rules, dict) else None
    return [name for name in (found if isinstance(found, list) else [found]) if name in _TYPES]


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
    with suppress(re.error):
        found += [sub for pattern, sub in mapping_of(rules, "patternProperties").items() if re.search(pattern, name)]
    others = [rules["additionalProperties"]] if isinstance(rules, dict) and "additionalProperties" in rules else []
    return found or others


def item_rules(rules: dict[str, Any], at: int) -> list[Any]:
    """Find the rules for the item at an index of a list."""
    prefix = list_of(rules, "prefixItems")
    return [prefix[at]] if at < len(prefix) else [rules["items"]] if "items" in rules else []


def shortened(text: str, limit: int) -> str:
    """Cut a text to so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _typed_as(value: Any, name: str) -> Any:
    if name in {"integer", "number"}:
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, str) and (whole := _WHOLE.fullmatch(value)):
            return int(whole[1])
        if isinstance(value, str) and name == "number" and _DECIMAL.fullmatch(value) and math.isfinite(float(value)):
            return float(value)
    if name == "boolean":
        if isinstance(value, str):
            return _TRUTHS.get(value.lower())
        if isinstance(value, (int, float)) and value in {0, 1}:
            return bool(value)
    return None


def _described(error: Any) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    said = error.message
    if len(said) > 130:  # masked first, since a part of a key is not known for one
        said = f"{masked(said[:1_000])[:50]} … {masked(said[-1_000:])[-75:]}"
    return f"{shortened(path.removeprefix('.'), 60) or 'the value'}: {said}"


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
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415  # slow to import
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
            yield ValidationError(f"is not valid under {target}")

    def unique(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[Any]:
        if wanted and isinstance(value, list) and len(set(map(values.dump_json, value))) < len(value):
            yield ValidationError("has equal items")

    bounded = {"$ref": reference, "$dynamicRef": reference, "uniqueItems": unique}
    return partial(validators.extend(Draft202012Validator, bounded), registry=Registry())  # which fetches nothing

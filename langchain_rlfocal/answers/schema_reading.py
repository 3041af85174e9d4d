"""Reading: a value as a schema means it, types read leniently and defaults filled in.

It refuses to guess: a value is read differently only where its type does not fit and another reading does.
"""

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

from langchain_rlfocal.answers.schema_rules import IS_A, Root, item_rules, list_of, mapping_of, property_rules, types_of

_MAX_PASSES = 8
_WHOLE = re.compile(r"\s{0,9}([+-]?[0-9]{1,400})(?:\.0{0,9})?\s{0,9}")
_DECIMAL = re.compile(r"\s{0,9}[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\s{0,9}")
_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "off", "0"), False
)


class _EndlessError(Exception):
    """A default that holds itself, once its own defaults are filled."""


class _Reader:
    """Reads one value under the rules of a schema; each pair of a value and rules once."""

    def __init__(self, root: Root, *, fill: bool) -> None:
        self._root, self._fill = root, fill
        self._plain = _Reader(root, fill=False) if fill else self
        self._done: dict[tuple[int, int], tuple[Any, Any]] = {}  # with the value, so that its id stays its own
        self._opening: set[int] = set()

    def read(self, value: Any, rules: Any) -> Any:
        """Read a value; the very same object comes back if nothing is to change."""
        if not isinstance(rules, dict):
            return value
        key = id(value), id(rules)
        if key not in self._done:
            self._done[key] = value, value  # what refers back to itself adds nothing
            try:
                self._done[key] = value, self._apply(value, rules)
            except _EndlessError:
                del self._done[key]
                raise
        return self._done[key][1]

    def _apply(self, value: Any, rules: dict[str, Any]) -> Any:
        if "$ref" in rules:
            value = self.read(value, self._root.target(rules["$ref"]))
        for part in list_of(rules, "allOf"):
            value = self.read(value, part)
        for word in ("anyOf", "oneOf"):
            value = self._alternative(value, list_of(rules, word))
        value = _typed(value, types_of(rules))
        if isinstance(value, dict):
            return self._object(value, rules)
        if isinstance(value, list):
            items = [self._each(item, item_rules(rules, at)) for at, item in enumerate(value)]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        return value

    def _alternative(self, value: Any, alternatives: Sequence[Any]) -> Any:
        at = self._root.choice(value, alternatives)
        if at >= 0:
            return self.read(value, alternatives[at])
        for reader in dict.fromkeys((self._plain, self)):
            for rules in alternatives:
                if self._root.accepts(reader.read(value, rules), rules):
                    return self.read(value, rules)
        return value

    def _object(self, value: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
        filled = {key: self._each(item, property_rules(rules, key)) for key, item in value.items()}
        changed = any(filled[key] is not item for key, item in value.items())
        if self._fill:
            for name, sub in mapping_of(rules, "properties").items():
                if name not in value and isinstance(sub, dict) and "default" in sub:
                    usable, default = self._default(sub)
                    if usable:
                        filled[name], changed = copy.deepcopy(default), True
        return filled if changed else value

    def _each(self, value: Any, all_rules: Sequence[Any]) -> Any:
        for rules in all_rules:
            value = self.read(value, rules)
        return value

    def _default(self, rules: dict[str, Any]) -> tuple[bool, Any]:
        """Whether a default can be filled, and the default with its own defaults filled."""
        key, known = id(rules), self._root.defaults
        if key not in known:
            if key in self._opening:
                raise _EndlessError
            self._opening.add(key)
            try:
                value = self.read(copy.deepcopy(rules["default"]), rules)
                known[key] = self._root.accepts(value, rules), value
            except _EndlessError:
                known[key] = None
            finally:
                self._opening.discard(key)
        found = known[key]
        if found is None and self._opening:
            raise _EndlessError  # one that holds an endless default is endless too
        return found or (False, None)


def read_all(root: Root, value: Any, parts: Sequence[Any], *, fill: bool) -> Any:
    """Read a value until reading changes nothing; as it was if that does not come about."""
    now = value
    for _ in range(_MAX_PASSES):
        reader, before = _Reader(root, fill=fill), now
        for part in parts:
            now = reader.read(now, part)
        if now is before:
            return now
    return value


def _typed(value: Any, types: Sequence[str]) -> Any:
    """Read a scalar as one of the types wanted, as it is if it fits or none can be read."""
    if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
        return int(value)
    if any(IS_A[name](value) for name in types if name in IS_A):
        return value
    readings = (_typed_as(value, name) for name in types)
    return next((reading for reading in readings if reading is not None), value)


def _typed_as(value: Any, name: str) -> Any:
    if name in {"integer", "number"}:
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, str):
            whole = _WHOLE.fullmatch(value)
            if whole:
                return int(whole[1])
            if name == "number" and _DECIMAL.fullmatch(value) and math.isfinite(float(value)):
                return float(value)
    if name == "boolean":
        if isinstance(value, str):
            return _TRUTHS.get(value.lower())
        if isinstance(value, (int, float)) and value in {0, 1}:
            return bool(value)
    return None

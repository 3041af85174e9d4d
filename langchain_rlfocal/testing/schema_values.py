"""Schema values: one value that a JSON schema allows, made of what a text offers.

Always the same value for the same schema and text. It knows what pydantic, TypedDicts and functions turn into: types,
`properties`, `items`, `enum`, bounds, `anyOf`, `allOf`, local `$ref`s. It does not validate, knows no conditions (`if`,
`not`, `dependentSchemas`), and invents no string for a `pattern`.
"""

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

from langchain_rlfocal.errors import InputError

_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "email": "ann@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|‘([^’]+)’|「([^」]+)」|`([^`]+)`|(?<!\w)'(.+?)'(?!\w)")
_NAME = re.compile(r"(?<!^)(?<![.!?:]\s)\b[A-Z]\w+(?:,? [A-Z]\w+)*")
"""Words with a capital, except where a sentence begins."""


def make_value(schema: Mapping[str, Any] | bool, text: str = "", *, every_property: bool = False) -> Any:
    """Make a value that a JSON schema allows.

    What the schema says itself comes first: `default`, `const`, the first of `enum` that the text mentions (else the
    first), `examples`. Then numbers are the text's numbers in their order, as far as they are allowed; strings its quoted
    strings in their order, then its last name (words with a capital), then its last word.

    Args:
        schema: The schema.
        text: The text to take values from.
        every_property: Whether objects get all their properties, or those required.

    Raises:
        InputError: No value that this module can make is allowed.
    """
    return _Maker(schema, text, every_property=every_property).value(schema)


class _Maker:
    """One value in the making: what it takes from the text it takes once."""

    def __init__(self, root: Mapping[str, Any] | bool, text: str, *, every_property: bool) -> None:
        self.root, self.text, self.every_property = root, text, every_property
        self.numbers = [float(n) if "." in n else int(n) for n in _NUMBER.findall(text)]
        self.quoted: list[str] = ["".join(groups) for groups in _QUOTED.findall(text)]
        self.spare: list[str] = [*_NAME.findall(text)[-1:], *re.findall(r"\w+", text)[:-2:-1], "text"]

    def value(self, schema: Any, path: tuple[str, ...] = ()) -> Any:
        """Make a value; `path` holds the references that it is inside of."""
        if not isinstance(schema, Mapping):
            return self.string({})
        if "$ref" in schema:
            name = schema["$ref"]
            if name in path:
                raise InputError(
                    f"A schema must allow a finite value, but `{name}` needs one of its own. Make it optional."
                )
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return self.value({**self.resolved(name), **rest}, (*path, name))
        if "default" in schema:
            return copy.deepcopy(schema["default"])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            mentioned = [option for option in schema["enum"] if isinstance(option, str) and self.mentions(option)]
            return [*mentioned, *schema["enum"]][0]
        if schema.get("examples"):
            return copy.deepcopy(schema["examples"][0])
        for key in ("allOf", "anyOf", "oneOf"):
            if schema.get(key):
                rest = {name: value for name, value in schema.items() if name != key}
                return self.all_of(schema[key], rest, path) if key == "allOf" else self.any_of(schema[key], rest, path)
        match _type_of(schema):
            case "object":
                return self.object(schema, path)
            case "array":
                return self.array(schema, path)
            case "integer" | "number" as kind:
                return self.number(schema, integer=kind == "integer")
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return self.string(schema)

    def resolved(self, pointer: str) -> Mapping[str, Any]:
        """Follow a reference within the schema."""
        found: Any = self.root
        for step in pointer.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        if not pointer.startswith("#") or not isinstance(found, Mapping):
            raise InputError(
                f"A `$ref` must lead to a place in its own schema, got `{pointer}`. Put the definition there."
            )
        return found

    def mentions(self, word: str) -> bool:
        """Tell whether the text has a word, in whatever case."""
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text, re.IGNORECASE) is not None

    def all_of(self, parts: list[Any], rest: dict[str, Any], path: tuple[str, ...]) -> Any:
        """Make a value of several schemas at once."""
        merged: dict[str, Any] = rest
        for part in parts:
            pointer = part.get("$ref")
            if pointer in path:
                return self.value(part, path)  # refused there
            plain = {**self.resolved(pointer), **part} if pointer else part
            path = (*path, pointer) if pointer else path
            plain = {key: value for key, value in plain.items() if key != "$ref"}
            merged = {
                **merged,
                **plain,
                "properties": {**merged.get("properties", {}), **plain.get("properties", {})},
                "required": [*merged.get("required", []), *plain.get("required", [])],
            }
        return self.value(merged, path)

    def any_of(self, branches: list[Any], rest: dict[str, Any], path: tuple[str, ...]) -> Any:
        """Make a value of the first schema that allows one; null comes last."""
        refusals = []
        for branch in sorted(branches, key=lambda branch: _type_of(branch) == "null"):
            try:
                return self.value({**rest, **branch} if isinstance(branch, Mapping) else branch, path)
            except InputError as error:
                refusals.append(error)
        raise refusals[0]

    def object(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Make an object, its properties in the schema's order."""
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if self.every_property or name in required]
        names += [name for name in required if name not in properties]
        return {name: self.value(properties.get(name, schema.get("additionalProperties")), path) for name in names}

    def array(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
        """Make an array: one item, or as few as are allowed."""
        places = schema.get("prefixItems", [])
        least = schema.get("minItems", 0)
        length = min(max(least, len(places), 1), schema.get("maxItems", math.inf))
        items = [*places, *[schema.get("items")] * (length - len(places))]
        try:
            made = [self.value(item, path) for item in items[:length]]
        except InputError:
            if least:
                raise
            return []
        if schema.get("uniqueItems") and any(item in made[:at] for at, item in enumerate(made)):
            raise InputError(f"No array of {least} different items can be made of `{self.text}`. Give `examples`.")
        return made

    def number(self, schema: Mapping[str, Any], *, integer: bool) -> float:
        """Take the first number of the text that is allowed, else make one near zero."""
        step = schema.get("multipleOf", 1 if integer else None)
        low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
        high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))

        def allows(number: float) -> bool:
            return (
                low <= number <= high
                and number not in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
                and not (integer and number != math.floor(number))
                and (not step or math.isclose(number / step, round(number / step), abs_tol=1e-9))
            )

        for number in self.numbers:
            if allows(number):
                self.numbers.remove(number)
                return int(number) if integer else number
        near: list[float] = [0]
        for bound, inwards in ((low, 1), (high, -1)):
            if math.isfinite(bound):
                edge = bound if not step else inwards * math.ceil(inwards * bound / step) * step
                near += [edge, edge + inwards * (step or 1)]
        if math.isfinite(low) and math.isfinite(high):
            near.append((low + high) / 2)
        allowed = [number for number in near if allows(number)]
        if not allowed:
            raise InputError(
                f"A schema must allow a number, got bounds {low} to {high}. Widen them, or give `examples`."
            )
        return int(allowed[0]) if integer else allowed[0]

    def string(self, schema: Mapping[str, Any]) -> str:
        """Take the first string of the text that is allowed, else make one."""
        fixed: str | None = _FORMATS.get(schema.get("format", ""))
        if fixed is not None:
            return fixed
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        pattern = schema.get("pattern")
        words: list[str] = re.findall(r"\S+", self.text) if pattern is not None else []
        for string in [*self.quoted, *self.spare, *words]:
            if least <= len(string) <= most and (pattern is None or re.search(pattern, string)):
                if string in self.quoted:
                    self.quoted.remove(string)
                return string
        if pattern is not None:
            raise InputError(
                f"A string for the pattern `{pattern}` must stand in the text or in `examples`, got neither."
            )
        made: str = self.spare[0].ljust(least, ".")
        return made[: most if math.isfinite(most) else None]


def _type_of(schema: Any) -> str | None:
    """Return the type that a schema names, the first that is not null, or what its other words speak of."""
    if not isinstance(schema, Mapping):
        return None
    named: str | list[str] | None = schema.get("type")
    if isinstance(named, list):
        return next((name for name in named if name != "null"), "null")
    if named is None and ("properties" in schema or "required" in schema):
        return "object"
    if named is None and ("items" in schema or "prefixItems" in schema):
        return "array"
    return named

"""Unevaluated: which properties or items of a value a schema says nothing of, for `unevaluatedProperties` and `unevaluatedItems`.

As jsonschema has it, but with patterns matched in linear time, with sets, and with each part held once against the rules for it.
"""

from collections.abc import Iterator
from typing import Any

from jsonschema import ValidationError

from langchain_rlfocal.answers.patterns import matches


def unevaluated_properties(validator: Any, sub: Any, value: Any, rules: Any) -> Iterator[Any]:
    """Yield an error for each property that nothing else in the rules looks at, and that its own rules do not accept."""
    if isinstance(value, dict):
        known = _evaluated(validator, value, {**rules, "unevaluatedProperties": False})
        for name, part in value.items():
            if name not in known and not _holds(validator, part, sub):
                yield ValidationError(f"Unevaluated properties are not allowed ({name!r} was unexpected)")


def unevaluated_items(validator: Any, sub: Any, value: Any, rules: Any) -> Iterator[Any]:
    """Yield an error for each item that nothing else in the rules looks at, and that its own rules do not accept."""
    if isinstance(value, list):
        known = _evaluated(validator, value, {**rules, "unevaluatedItems": False})
        for at, part in enumerate(value):
            if at not in known and not _holds(validator, part, sub):
                yield ValidationError(f"Unevaluated items are not allowed (number {at} was unexpected)")


def _evaluated(validator: Any, value: Any, rules: Any) -> set[Any]:
    """Find the names of an object's properties, or the indices of a list's items, that rules look at."""
    if not isinstance(rules, dict):
        return set()
    found: set[Any] = set()
    for word in ("$ref", "$dynamicRef"):
        if word in rules:
            target = validator._resolver.lookup(rules[word])  # noqa: SLF001  # as jsonschema's own keywords do
            there = validator.evolve(schema=target.contents, _resolver=target.resolver)
            found |= _evaluated(there, value, target.contents)
    applying = [sub for word in ("allOf", "anyOf", "oneOf") for sub in rules.get(word, ())]
    applying = [sub for sub in applying if _holds(validator, value, sub)]
    if "if" in rules:
        then = _holds(validator, value, rules["if"])
        applying += [rules["if"], rules.get("then")] if then else [rules.get("else")]
    if isinstance(value, dict):
        applying += [sub for name, sub in rules.get("dependentSchemas", {}).items() if name in value]
        found |= _evaluated_names(validator, value, rules)
    else:
        found |= _evaluated_indices(validator, value, rules)
    return found.union(*(_evaluated(validator, value, sub) for sub in applying))


def _evaluated_names(validator: Any, value: dict[str, Any], rules: dict[str, Any]) -> set[str]:
    subs = [rules[word] for word in ("additionalProperties", "unevaluatedProperties") if word in rules]
    patterns = rules.get("patternProperties", ())
    return {
        name
        for name, part in value.items()
        if name in rules.get("properties", ())
        or any(matches(pattern, name) for pattern in patterns)
        or any(_holds(validator, part, sub) for sub in subs)
    }


def _evaluated_indices(validator: Any, value: list[Any], rules: dict[str, Any]) -> set[int]:
    if "items" in rules:
        return set(range(len(value)))
    subs = [rules[word] for word in ("contains", "unevaluatedItems") if word in rules]
    first = len(rules.get("prefixItems", ()))
    return {at for at, part in enumerate(value) if at < first or any(_holds(validator, part, sub) for sub in subs)}


def _holds(validator: Any, value: Any, rules: Any) -> bool:
    return next(validator.descend(value, rules), None) is None

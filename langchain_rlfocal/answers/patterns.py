"""Patterns: regular expressions of a caller's schema, held against what members wrote.

They are the caller's, the texts are strangers': Python's engine takes a time exponential in the text for some patterns, and
holds up every thread meanwhile. Rust's is linear, and pydantic brings it. It knows neither look-around nor references back,
nor what is very large: such a pattern is Python's, and its caller's risk.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema


def matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern is found in a text; one that is no pattern is found nowhere."""
    return _finder(pattern)(text)


@lru_cache(maxsize=1024)
def _finder(pattern: str) -> Callable[[str], bool]:
    try:
        rust = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        try:
            compiled = re.compile(pattern)
        except re.error:
            return lambda _: False
        return lambda text: compiled.search(text) is not None

    def found(text: str) -> bool:
        try:
            rust.validate_python(text)
        except ValidationError:
            return False
        return True

    return found

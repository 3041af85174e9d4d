"""Objects: answers that are JSON, and calls of tools written as JSON."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.code import parse_python
from langchain_rlfocal.answers.reading import final_part

_MAX_CALLS = 64
_MAX_PYTHON = 5_000
_MAX_WORDS = 300
_TAGGED = re.compile(r"<(?:tool|function)_call>\s{0,20}([^<]{1,20000})")
_PYTHON_CALL = re.compile(r"\[?\s{0,4}[A-Za-z_][\w.]{0,100}\(\s{0,4}[A-Za-z_]\w{0,60}\s?=(?!=)")


class Json:
    """JSON; the value is its canonical text."""

    name = "json"

    def read(self, text: str, query: str) -> str | None:
        """Return the JSON that a text is, holds in a fence, or begins with at its first bracket."""
        del query
        value = values.find_json(text)
        written = None if value is None else values.dump_json(value)
        return written if written and len(written) <= values.MAX_CHARS else None

    def same(self, a: str, b: str) -> bool:
        """Compare the canonical texts."""
        return a == b

    def write(self, value: str) -> str:
        """Write the canonical text."""
        return value


class ToolCalls(Json):
    """Calls of tools written as JSON, as a multiset; the value is its canonical text."""

    name = "tool_calls"

    def read(self, text: str, query: str) -> str | None:
        """Return the calls that a text makes."""
        del query
        return read_calls(text) or values.read_tool_calls(final_part(text))


def read_whole_json(text: str) -> str | None:
    """Return the last JSON object or array of a text that is little else, or holds it in a fence.

    An object with the key "answer" only wraps an answer of another kind, and an array of texts or numbers is a list.
    """
    final = final_part(text)
    value = values.parse_json(final)
    if value is None:
        value = _within_words(final)
    if not isinstance(value, (list, dict)) or (isinstance(value, dict) and "answer" in value):
        return None
    written = values.dump_json(value)
    return written if len(written) <= values.MAX_CHARS else None


def read_calls(text: str) -> str | None:
    """Return the calls of tools that a text makes: in tags, as JSON with names and arguments, or as calls of Python."""
    final = final_part(text)
    if "<tool_call>" in final or "<function_call>" in final:
        found = [values.parse_json(match[1]) for match in list(_TAGGED.finditer(final))[:_MAX_CALLS]]
        calls = [call for value in found for call in (value if isinstance(value, list) else [value])]
        return values.read_tool_calls(values.dump_json(calls)) if calls and all(map(_is_call, calls)) else None
    stripped = final.strip()
    if stripped[:1] in "[{" or "```" in stripped[:400]:
        value = values.parse_json(stripped)
        calls = value if isinstance(value, list) else [value]
        if calls and all(map(_is_call, calls)):
            return values.read_tool_calls(values.dump_json(calls))
    return _python_calls(stripped)


def _is_call(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("function"), dict):
        value = value["function"]
    return (
        isinstance(value.get("name"), str)
        and not isinstance(value.get("name"), Mapping)
        and bool(value.keys() & {"arguments", "args", "parameters"})
    )


def _python_calls(text: str) -> str | None:
    """Read one call, or a list of calls, whose arguments are keywords and literals."""
    match = _PYTHON_CALL.match(text)
    if match is None or len(text) > _MAX_PYTHON or text.count("(") > _MAX_CALLS:
        return None
    tree = parse_python(text)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    body = tree.body[0].value
    try:
        calls = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
        found = [
            {"name": ast.unparse(call.func), "args": _arguments(call)} for call in calls if isinstance(call, ast.Call)
        ]
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return values.canonical_tool_calls(found) if found and len(found) == len(calls) else None


def _arguments(call: ast.Call) -> dict[str, Any]:
    if call.args or not call.keywords:
        raise ValueError("positional")
    return {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}


def _within_words(text: str) -> Any:
    """Parse the JSON object that stands between a few words before and after it; None where there is more, or none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start or start > _MAX_WORDS or len(text) - end > _MAX_WORDS:
        return None
    return values.parse_json(text[start : end + 1])

"""Make the reference pages from the code: `python docs/reference/generate.py`. A test compares them with it.

`command-line.md` is what `typer utils docs` prints of the program; `observations.md` lists what each agent sees; `errors.md` is
the tree of errors with what their docstrings say; `pool-file.md` is what `pool.schema.json` says.
"""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.cli import app as typer_app
from typer.testing import CliRunner

from langchain_rlfocal import errors
from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES

_SEEN = """# Observations

What each agent sees, by index. `langchain_rlfocal.observations` makes both from a `State`, for training and for serving alike;
nothing in them depends on what members say that were not asked."""


def command_line_page() -> str:
    """Describe every command in Markdown."""
    result = CliRunner().invoke(typer_app, ["langchain_rlfocal.cli", "utils", "docs", "--name", "rlfocal"])
    page = result.stdout.strip().replace("```console\n$ ", "```text\n") + "\n"
    says = dict(re.findall(r"^#+ `rlfocal (.+)`\n\n(.+)", page, re.MULTILINE))
    group = ""
    lines = []
    for line in page.splitlines(keepends=True):
        if heading := re.match(r"#+ `rlfocal ?(.*)`", line):
            group = heading[1]
        cut_off = re.fullmatch(r"\* `([\w-]+)`: .*\.\.\.\n", line)  # typer shortens what a command does
        name = f"{group} {cut_off[1]}".strip() if cut_off else ""
        lines.append(f"* `{cut_off[1]}`: {says[name]}\n" if cut_off and name in says else line)
    return "".join(lines)


def observations_page() -> str:
    """Describe every axis of both observations in Markdown."""
    tables = (
        ("Decider: each member", "`decider_observation(state)[0]`, shape [Q, M, axes].", MEMBER_AXES),
        ("Decider: query and round", "`decider_observation(state)[1]`, shape [Q, axes].", CONTEXT_AXES),
        ("Fusion: each candidate", "`fusion_observation(state)[0]`, shape [Q, K, axes]; 0 where none is.", FUSION_AXES),
    )
    parts = [_SEEN]
    for title, what, axes in tables:
        rows = [
            f"| {index} | `{axis.name}` | {axis.meaning} | {axis.low:g} to {axis.high:g} |"
            for index, axis in enumerate(axes)
        ]
        parts.append(
            "\n".join([f"## {title}", "", what, "", "| index | name | meaning | range |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


_ERRORS = """# Errors

Everything that the package raises on purpose. Every message says the rule, the value that broke it, and the way out; a command prints it
as one line and ends with exit code 2 (`--debug` shows the trace). Each error is also the built-in that fits, in brackets, so that code
which knows nothing of this package can catch it. All can be imported from `langchain_rlfocal`."""


def errors_page() -> str:
    """Describe every error in Markdown: the tree, then when each is raised, what it carries, and the way out."""
    tree = inspect.getdoc(errors).partition("\n\n")[2].partition("\n\n")[0]
    parts = [_ERRORS, f"```text\n{tree}\n```"]
    for error in _errors():
        when, way_out, carries = _read(error)
        parts += [f"## `{error.__name__}`", when, *([f"**Way out.** {way_out}"] if way_out else [])]
        parts += ["\n".join(f"- `.{name}`: {meaning}" for name, meaning in carries)] if carries else []
    return "\n\n".join(parts) + "\n"


def _errors() -> list[type[Exception]]:
    """List the errors in the order of their module."""
    found = (value for value in vars(errors).values() if inspect.isclass(value))
    return [value for value in found if issubclass(value, errors.RLFocalError)]


def _read(error: type[Exception]) -> tuple[str, str, list[tuple[str, str]]]:
    """Take an error's docstring apart: when it is raised, the way out, and its attributes with their meanings."""
    text, _, attributes = inspect.getdoc(error).partition("Attributes:\n")
    when, _, way_out = text.partition("Way out: ")
    carries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", attributes, re.MULTILINE)
    return when.strip(), " ".join(way_out.split()), [(name, " ".join(meaning.split())) for name, meaning in carries]


_POOL_FILE = """# Pool files

Every key of a pool file, from its JSON Schema, [pool.schema.json](pool.schema.json), which editors read. How to:
[describe a pool in a file](../how-to/describe-a-pool.md)."""


def pool_file_page() -> str:
    """Describe every key of a pool file in Markdown."""
    schema = json.loads(Path(__file__).with_name("pool.schema.json").read_text(encoding="utf-8"))
    parts = [_POOL_FILE]
    for title, described in (("The file", schema), *((f"`{name}`", one) for name, one in schema["$defs"].items())):
        if "properties" not in described:
            continue
        required = described.get("required", [])
        rows = [
            f"| `{key}` | {_type_of(of)} | {'yes' if key in required else 'no'} | {_cell(of.get('description', ''))} |"
            for key, of in described["properties"].items()
        ]
        table = "\n".join(["| key | type | required | meaning |", "|---|---|---|---|", *rows])
        parts += [f"## {title}", described["description"], table]
    return "\n\n".join(parts) + "\n"


def _type_of(schema: Mapping[str, Any]) -> str:
    """Name a value's type as a person would, with the bounds of a number."""
    if options := [one for one in schema.get("anyOf", []) if one.get("type") != "null"]:
        return " or ".join(map(_type_of, options))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "any value" if name == "JsonValue" else f"`{name}`"
    if isinstance(of := schema.get("additionalProperties"), dict):
        return f"keys with {_type_of(of)}"
    name = {"string": "text", "number": "number", "integer": "whole number"}.get(schema.get("type", ""), "any value")
    bounds = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    return ", ".join([name, *(f"{words} {schema[bound]}" for bound, words in bounds if bound in schema)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {
    "command-line": command_line_page,
    "errors": errors_page,
    "observations": observations_page,
    "pool-file": pool_file_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / f"{name}.md").write_text(page(), encoding="utf-8")

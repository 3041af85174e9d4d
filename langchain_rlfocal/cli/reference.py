"""Reference: the page that lists every command with its options, made from the signatures of the commands themselves.

`python -m langchain_rlfocal.cli.reference > docs/reference/command-line.md` writes it; a test compares the two.
"""

import inspect
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo

from langchain_rlfocal.cli.commands import app

_HEAD = """# Command line

Every command takes `--help`; `rlfocal --version` prints the version. Exit codes: 0 is success, 1 a member that never
answered, 2 bad input (one line on stderr says what), 130 an interruption."""


def reference_page() -> str:
    """Describe every command in Markdown."""
    commands = [info.callback for info in app.registered_commands if info.callback is not None]
    return "\n\n".join([_HEAD, *map(_section, commands)]) + "\n"


def _section(command: Callable[..., Any]) -> str:
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    usage, rows = [f"rlfocal {command.__name__}"], ["| | |", "|---|---|"]
    for name, parameter in parameters.items():
        of_type, info = get_args(hints[name])[:2]
        is_needed = parameter.default is parameter.empty
        if isinstance(info, ArgumentInfo):
            label = name.upper()
            shown = f"{label}..." if "list[" in str(of_type) else label
            usage.append(shown if is_needed else f"[{shown}]")
        else:
            # Within `Annotated` Typer holds the first declared name for a default.
            label = info.default if isinstance(info.default, str) else f"--{name.replace('_', '-')}"
            usage += [f"{label} …"] * is_needed
        rows.append(f"| `{label}` | {' '.join(_said(info.help or '', of_type, parameter.default))} |")
    description = inspect.getdoc(command)
    return f"## {command.__name__}\n\n```text\n{' '.join(usage)}\n```\n\n{description}\n\n" + "\n".join(rows)


def _said(meaning: str, of_type: Any, default: Any) -> Iterator[str]:
    """Say what a parameter means, which values it takes, and its value where nobody gives one."""
    yield meaning
    for kind in get_args(of_type) or [of_type]:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            yield f"One of {', '.join(f'`{choice.value}`' for choice in kind)}."
    if not any(default is none for none in (None, False, inspect.Parameter.empty)):
        yield f"Default: `{default}`."


if __name__ == "__main__":
    typer.echo(reference_page(), nl=False)

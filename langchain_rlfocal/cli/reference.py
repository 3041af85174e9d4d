"""Reference: the pages that are made from the code itself; a test compares them with it.

`python -m langchain_rlfocal.cli.reference command-line > docs/reference/command-line.md` writes the page that lists every
command with its options, and `observations` that of what each agent sees.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo

from langchain_rlfocal.cli.commands import app
from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES

_HEAD = """# Command line

Every command takes `--help`; `rlfocal --version` prints the version. Exit codes: 0 is success, 1 a member that never
answered, 2 bad input (one line on stderr says what), 130 an interruption."""


def reference_page() -> str:
    """Describe every command in Markdown."""
    commands = [info.callback for info in app.registered_commands if info.callback is not None]
    return "\n\n".join([_HEAD, *map(_section, commands)]) + "\n"


_SEEN = """# Observations

What each agent sees, by index. `langchain_rlfocal.observations` makes both from a `State`, for training and for serving alike;
nothing in them depends on what members say that were not asked."""


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
    pages = {"command-line": reference_page, "observations": observations_page}
    typer.echo(pages[sys.argv[1]](), nl=False)

"""Make the reference pages from the code: `python docs/reference/generate.py`. A test compares them with it.

`command-line.md` is what `typer utils docs` prints of the program; `observations.md` lists what each agent sees.
"""

from pathlib import Path

from typer.cli import app as typer_app
from typer.testing import CliRunner

from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES

_SEEN = """# Observations

What each agent sees, by index. `langchain_rlfocal.observations` makes both from a `State`, for training and for serving alike;
nothing in them depends on what members say that were not asked."""


def command_line_page() -> str:
    """Describe every command in Markdown."""
    result = CliRunner().invoke(typer_app, ["langchain_rlfocal.cli", "utils", "docs", "--name", "rlfocal"])
    return result.stdout.strip().replace("```console\n$ ", "```text\n") + "\n"


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


PAGES = {"command-line": command_line_page, "observations": observations_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / f"{name}.md").write_text(page(), encoding="utf-8")

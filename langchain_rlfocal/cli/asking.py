"""Commands that answer: `demo`."""

from typing import Annotated

import typer

from langchain_rlfocal.cli.views import output


def demo(
    question: Annotated[list[str] | None, typer.Argument(help="Questions to ask instead of the built-in ones.")] = None,
) -> None:
    """Answer questions with the embedded models and the policy that ships."""
    from langchain_rlfocal.demo.command import run_demo

    run_demo(output(), question or None)

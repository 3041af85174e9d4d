"""Command line: the program `rlfocal`, its commands, what they show, and the demo."""

from langchain_rlfocal.cli.commands import app

__all__ = ["app"]

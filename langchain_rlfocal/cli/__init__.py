"""Command line: the program `rlfocal`, its commands, and what they show."""

from langchain_rlfocal.cli.app import app

__all__ = ["app"]

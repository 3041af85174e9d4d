"""Run the program as `python -m langchain_rlfocal.cli`."""

from langchain_rlfocal.cli import app

app(prog_name="rlfocal")

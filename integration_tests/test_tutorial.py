"""The tutorial runs as it stands, from an empty folder to a report, on the embedded models."""

import re
import runpy
from pathlib import Path

import pytest

from langchain_rlfocal.demo.pool import require_parts
from langchain_rlfocal.errors import MissingDependencyError

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial"


def words_of(text):
    """The lines without figures that a text has, each without its blanks: what does not depend on the machine."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return {line for line in lines if re.search(r"[a-z]{3}", line) and not re.search(r"\d", line)}


@pytest.mark.timeout(1500)  # a minute and a half on two idle cores
def test_the_tutorial_runs_from_an_empty_folder_and_prints_what_it_shows(tmp_path):
    """Most lines without figures are compared: on another processor small models may say other things."""
    try:
        require_parts()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    pytest.importorskip("altair", reason="the extra `report` is not installed")
    run = runpy.run_path(str(TUTORIAL / "run.py"))
    done = list(run["steps"]((TUTORIAL / "your-pool.md").read_text(encoding="utf-8"), tmp_path))

    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert len(done) > 8
    for step in done:
        if step.shown is not None:
            shown = words_of(step.shown)
            assert 2 * len(shown & words_of(step.printed)) >= len(shown), step.code


def test_a_command_of_the_page_that_fails_is_named_with_what_it_said(tmp_path):
    steps = runpy.run_path(str(TUTORIAL / "run.py"))["steps"]
    with pytest.raises(RuntimeError, match=r"(?s)train none\.csv --out policy ended with 2:.*none\.csv"):
        list(steps("```console\n$ rlfocal train none.csv --out policy\n```\n", tmp_path))

"""What the tests of imports share: fixtures of the real shapes, and the rows of a table in few words."""

import json
import sqlite3
from pathlib import Path

import pytest

from langchain_rlfocal.importing import import_outcomes
from langchain_rlfocal.outcomes import OutcomeTable

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def fixtures():
    return FIXTURES


@pytest.fixture
def imported(tmp_path):
    """Import files and give the report and the outcomes."""

    def run(source, *files, **options):
        out = tmp_path / "out.parquet"
        report = import_outcomes(source, files, out, **options)
        outcomes = list(OutcomeTable.read(out))
        assert len(outcomes) == report.kept
        return report, outcomes

    return run


@pytest.fixture
def write(tmp_path):
    """Write a file of JSON lines, of JSON, or of text, and give its path."""

    def made(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, str):
            path.write_text(rows, encoding="utf-8")
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return made


@pytest.fixture
def database(tmp_path):
    """Make an SQLite database of a dump."""

    def made(dump):
        path = tmp_path / "logs.db"
        connection = sqlite3.connect(path)
        connection.executescript((FIXTURES / dump).read_text(encoding="utf-8"))
        connection.commit()
        connection.close()
        return path

    return made

"""Tables of answers that are the same, and of answers that are not, by subject: in `unit_tests/answers`."""

import tomllib
from pathlib import Path


def table_of(subject):
    return tomllib.loads((Path(__file__).parents[1] / "answers" / f"{subject}.toml").read_text(encoding="utf-8"))

"""`rlfocal import`, as a user meets it."""

import json

import pytest

ROWS = [
    {"question": "2 + 3?", "model": "ann", "response": "5", "score": 1},
    {"question": "2 + 3?", "model": "bob", "response": "6", "score": 0},
    {"question": "4 + 4?", "model": "ann", "response": "8"},
    {"question": "", "model": "ann", "response": "8"},
]


@pytest.fixture
def rows(folder):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "rows.jsonl"


def test_the_report_says_what_was_read_kept_and_left_out(cli, rows):
    shown = cli.shown("import", "long", rows, "--out", "out.parquet")
    assert "3 outcomes in out.parquet, from 4 rows in 1 file of long" in shown
    assert "Queries: 2 in 1 task; members that have a row: 1 by 2, 1 by 1." in shown
    assert "Left out 1: no question (first: rows.jsonl:4)" in shown
    assert "Unscored: 1 outcomes" in shown
    assert "rlfocal score out.parquet --questions" in shown


def test_the_report_as_json(cli, rows):
    said = cli.said("import", "auto", rows, "--out", "out.jsonl")
    assert (said["source"], said["read"], said["kept"], said["unscored"]) == ("long", 4, 3, 1)
    assert said["queries"] == {"2": 1, "1": 1}
    assert said["skipped"] == {"no question": [1, "rows.jsonl:4"]}
    assert said["members"][0] == {"name": "ann", "rows": 2, "failures": 0, "scored": 1, "mean_reward": 1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "five"], "`--scale` must be LOW,HIGH, got 'five'"),
        (["--map", "query"], "`--map` must be COLUMN=FIELD, got 'query'"),
        (["--map", "query=a", "--map", "query=b"], "`--map` must name a column once"),
        (["--values", "stars"], "`--values` must be answers or rewards"),
        (["--out", "out.txt"], "suffix"),
        (["--scale", "2,3"], "rows.jsonl:1: a reward must lie in [2, 3], got 1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(cli, rows, folder, options, words):
    cli.assert_refused(cli.run("import", "long", rows, "--out", "out.parquet", *options), words)
    assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]


def test_a_table_that_is_there_is_replaced_only_if_the_user_says_so(cli, rows, folder):
    (folder / "out.jsonl").write_text("precious")
    cli.assert_refused(
        cli.run("import", "long", rows, "--out", "out.jsonl"), "out.jsonl is there. Give another name, or"
    )
    assert (folder / "out.jsonl").read_text() == "precious"
    assert cli.said("import", "long", rows, "--out", "out.jsonl", "--overwrite")["kept"] == 3
    assert len((folder / "out.jsonl").read_text().splitlines()) == 3


def test_help_shows_examples_in_80_columns(cli):
    result = cli.run("import", "--help", env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert "rlfocal import lm-eval results/" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80

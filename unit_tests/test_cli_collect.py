"""The command line up to outcomes: version, help, questions and collect, and how each ends."""

import json
import re
import runpy
from pathlib import Path

import pytest

from langchain_rlfocal import __version__
from langchain_rlfocal.collection import unfinished_path
from langchain_rlfocal.outcomes import OutcomeTable, read_questions

POOL = """
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

def mapping():
    return {"ann": ScriptedChatModel(script=["yes"]), "bob": ScriptedChatModel(script=["no"])}

def pool():
    return ModelPool.from_models(mapping())

def failing():
    return {"ann": ScriptedChatModel(script=["yes"]), "bob": FailingChatModel(error=ValueError("[red]no key"))}

def once():
    told = []
    def answer(messages):
        told.append(1)
        if len(told) == 1:
            raise ValueError("[red]busy\\x1b[2J key=planted77")
        return "yes"
    return {"ann": ScriptedChatModel(script=["yes"]), "bob": ScriptedChatModel(script=answer)}

def unreachable():
    raise OSError("\\x1b[2Jno\\nway")

def interrupted():
    def answer(messages):
        if "third" in messages[-1].text:
            raise KeyboardInterrupt
        return "yes"
    return {"ann": ScriptedChatModel(script=answer)}

def number():
    return 7
"""
QUESTIONS = [
    {"task": "quiz", "query_id": name, "query": f"Is the {name} one right? Answer yes or no.", "gold": gold}
    for name, gold in [("first", "yes"), ("second", "no"), ("third", "yes")]
]


@pytest.fixture
def folder(folder):
    """A working folder with three questions and a module of pools, as a user has it."""
    Path("questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    Path("my_pools.py").write_text(POOL, encoding="utf-8")
    return folder


def test_version_and_help_are_printed(cli):
    assert cli.run("--version").stdout == f"rlfocal {__version__}\n"
    text = cli.run("--help").stdout
    assert all(command in text for command in ("collect", "train", "evaluate", "diversity", "questions", "demo"))
    text = " ".join(cli.run("collect", "--help").stdout.replace("│", " ").split())
    assert "`local` (the default)" in text


REFERENCE = Path(__file__).parents[1] / "docs/reference"
PAGES = runpy.run_path(str(REFERENCE / "generate.py"))["PAGES"]


def test_the_reference_of_observations_is_what_the_code_makes():
    """`python docs/reference/generate.py` renews it."""
    assert (REFERENCE / "observations.md").read_text(encoding="utf-8") == PAGES["observations"]()


def test_the_reference_of_commands_lists_their_options_as_the_program_does():
    """Every command, option and meaning; how types are written may change with typer."""
    entry = re.compile(r"^## `(.+)`|^\* `([\w.-]+)[^`]*`: (.*?)(?:  \[.*)?$", re.MULTILINE)
    shown, made = (
        [tuple(map(str.lower, each)) for each in entry.findall(page)]
        for page in ((REFERENCE / "command-line.md").read_text(encoding="utf-8"), PAGES["command-line"]())
    )

    assert shown == made
    assert {"rlfocal evaluate", "--target-calls", "--missing", "outcomes..."} <= {
        name for each in made for name in each
    }


def test_questions_are_written_and_the_seed_decides_them(cli, folder):
    for out, seed in (("a.jsonl", 1), ("b.jsonl", 1), ("c.jsonl", 2)):
        assert cli.run("questions", "--out", out, "--seed", seed).exit_code == 0

    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes() != Path("c.jsonl").read_bytes()
    assert len(read_questions("a.jsonl")) >= 600


@pytest.mark.parametrize("pool", ["my_pools:pool", "my_pools:mapping"])
def test_collect_asks_the_pool_of_the_user_and_writes_outcomes(cli, folder, pool):
    """Ann says yes and is right twice, Bob says no and is right once; a limit takes the first questions only."""
    asked = ("collect", "questions.jsonl", "--pool", pool)
    result = cli.run(*asked, "--out", "out.parquet")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "6 outcomes of 2 members in out.parquet\n"
    scores = {(o.model, o.query_id): o.reward for o in OutcomeTable.read("out.parquet")}
    right = {("ann", "first"), ("bob", "second"), ("ann", "third")}
    assert scores == {
        (name, q["query_id"]): (name, q["query_id"]) in right for name in ("ann", "bob") for q in QUESTIONS
    }
    assert cli.run(*asked, "--out", "out.csv", "--limit", 2, "--concurrency", 1).exit_code == 0
    assert [o.query_id for o in OutcomeTable.read("out.csv")] == ["first", "first", "second", "second"]


def test_collect_ends_with_code_1_where_a_member_never_answered_and_asks_it_again_next_time(cli, folder):
    """The table is there after both runs; in the second nobody but Bob is asked, and he answers."""
    failed = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:failing")
    held = len(OutcomeTable.read("out.jsonl"))
    again = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:mapping")
    assert (failed.exit_code, held) == (1, 6)
    assert failed.stdout == "6 outcomes of 2 members in out.jsonl\n"
    assert "bob failed 3 times, recorded as worth 0. First: ValueError: [red]no key" in failed.stderr
    assert "ann" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(
        "Failed every question asked in this run: bob. The table is written; run the same command again"
    )
    assert (again.exit_code, again.stderr) == (0, "")
    assert [o.response for o in OutcomeTable.read("out.jsonl") if o.model == "bob"] == ["no"] * 3


def test_what_members_and_errors_say_neither_styles_nor_steers_the_terminal_and_shows_no_key(cli, folder):
    """Where a member failed once the collection ends well, and says how to ask again; a pool that fails is refused."""
    args = ("--pool", "my_pools:once", "--concurrency", 1)
    result = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", *args)
    assert result.exit_code == 0
    assert "bob failed 1 times, recorded as worth 0. First: ValueError: [red]busy [2J key=***" in result.stderr
    assert result.stderr.splitlines()[-1] == "Run the same command again to ask again what failed."
    refused = cli.run("collect", "questions.jsonl", "--out", "new.jsonl", "--pool", "my_pools:unreachable")
    cli.assert_refused(refused, " [2Jno way")
    assert "\x1b" not in refused.stderr


def test_collect_interrupted_says_how_to_go_on_and_keeps_what_it_has(cli, folder):
    args = ("collect", "questions.jsonl", "--out", "out.parquet", "--concurrency", 1, "--pool")
    result = cli.run(*args, "my_pools:interrupted")

    assert result.exit_code == 130
    assert result.stdout == ""
    assert "Run the same command again to go on" in result.stderr
    assert unfinished_path("out.parquet").name in result.stderr
    assert not Path("out.parquet").exists()

    assert cli.run(*args, "my_pools:mapping").exit_code == 0
    rows = {(o.model, o.query_id) for o in OutcomeTable.read("out.parquet")}
    assert rows == {(model, question["query_id"]) for model in ("ann", "bob") for question in QUESTIONS}
    assert not unfinished_path("out.parquet").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--member", "small"], ["NAME=provider:model", "'small'"]),
        (["--member", "=openai:x"], ["NAME=provider:model"]),
        (["--member", "a=openai:x", "--member", "a=openai:y"], ["unique", "`a`"]),
        (["--member", "a=openai:x", "--pool", "local"], ["exclude each other"]),
        (["--pool", "my_pools"], ["package.module:function"]),
        (["--pool", "my_pools:absent"], ["my_pools:absent", "imported"]),
        (["--pool", "no_such_module:pool"], ["no_such_module"]),
        (["--pool", "my_pools:number"], ["ModelPool", "got int"]),
        (["--pool", "my_pools:pool", "--out", "out.txt"], ["out.txt", "suffix"]),
    ],
)
def test_collect_refuses_bad_input_in_one_line_and_leaves_nothing(cli, folder, options, words):
    before = sorted(folder.iterdir())
    cli.assert_refused(cli.run("collect", "questions.jsonl", "--out", "out.parquet", *options), *words)
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_collect_refuses_questions_that_are_not_there(cli, folder):
    cli.assert_refused(cli.run("collect", "absent.jsonl", "--out", "o.csv", "--pool", "my_pools:pool"), "absent.jsonl")


def test_collect_compares_by_the_kind_of_the_user(cli, folder):
    """To this kind every two answers are the same, so that "no" earns what "yes" would; a kind must be importable."""
    Path("my_kinds.py").write_text("def anything(a, b):\n    return True\n")
    asked = ("collect", "questions.jsonl", "--pool", "my_pools:mapping", "--limit", 1)
    assert cli.run(*asked, "--out", "all.jsonl", "--kind", "my_kinds:anything").exit_code == 0
    assert [outcome.reward for outcome in OutcomeTable.read("all.jsonl")] == [1.0, 1.0]
    assert len({outcome.answer for outcome in OutcomeTable.read("all.jsonl")}) == 1
    cli.assert_refused(cli.run(*asked, "--out", "b.jsonl", "--kind", "my_kinds:nothing"), "--kind my_kinds:nothing")
    cli.assert_refused(cli.run(*asked, "--out", "b.jsonl", "--kind", "letters"), "short_text")

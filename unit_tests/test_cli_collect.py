"""The command line up to outcomes: version, help, questions and collect, and how each ends."""

import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from langchain_rlfocal import __version__
from langchain_rlfocal.cli.collecting_view import CollectView
from langchain_rlfocal.collection import MemberTally, Tally, log_beside
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable, read_questions

POOL = """
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

def priced():
    model = ScriptedChatModel(script=["yes indeed"] * 9)
    return ModelPool([PoolMember("ann", model, 0.5, 0.0, 1e6, max_concurrent_calls=1)])

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
    assert cli.run(*asked, "--out", "two.csv", "--limit", 2, "--concurrency", 1).exit_code == 0
    assert [o.query_id for o in OutcomeTable.read("two.csv")] == ["first", "first", "second", "second"]


def test_collect_ends_with_code_1_where_a_member_never_answered_and_asks_it_again_next_time(cli, folder):
    """The table is there after both runs; in the second nobody but Bob is asked, and he answers."""
    failed = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:failing")
    held = len(OutcomeTable.read("out.jsonl"))
    again = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:mapping")
    assert (failed.exit_code, held) == (1, 6)
    assert failed.stdout == "6 outcomes of 2 members in out.jsonl\n"
    assert "bob failed 3 times, recorded as worth 0. First: ValueError: [red]no key" in failed.stderr
    assert "ann failed" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(
        "Failed every question asked in this run: bob. The table is written; run the same command again"
    )
    assert again.exit_code == 0
    assert "Collecting 6 answers of 2 members, 3 on record already." in again.stderr
    assert "failed," not in again.stderr.replace("0 failed,", "")
    assert [o.response for o in OutcomeTable.read("out.jsonl") if o.model == "bob"] == ["no"] * 3


def test_what_members_and_errors_say_neither_styles_nor_steers_the_terminal_and_shows_no_key(cli, folder):
    """Where a member failed once the collection ends well, and says how to ask again; a pool that fails is refused."""
    args = ("--pool", "my_pools:once", "--concurrency", 1)
    result = cli.run("collect", "questions.jsonl", "--out", "out.jsonl", *args)
    assert result.exit_code == 0
    assert "bob failed 1 time, recorded as worth 0. First: ValueError: [red]busy [2J key=***" in result.stderr
    assert result.stderr.splitlines()[-1] == "Run the same command again to ask again what failed."
    refused = cli.run("collect", "questions.jsonl", "--out", "new.jsonl", "--pool", "my_pools:unreachable")
    cli.assert_refused(refused, " [2Jno way")
    assert "\x1b" not in refused.stderr


def test_collect_interrupted_writes_the_table_and_says_how_to_go_on(cli, folder):
    """The third question interrupts; what was answered is in the log and in the table, and is not asked again."""
    args = ("collect", "questions.jsonl", "--out", "out.parquet", "--concurrency", 1, "--pool")
    result = cli.run(*args, "my_pools:interrupted")

    assert result.exit_code == 130
    assert "Interrupted. What was answered is on record. The table is written: out.parquet." in result.stderr
    assert result.stderr.endswith("Run the same command again to go on.\n")
    held = {(o.model, o.query_id) for o in OutcomeTable.read("out.parquet")}
    assert held == {("ann", "first"), ("ann", "second")}

    again = cli.run(*args, "my_pools:mapping")
    assert (again.exit_code, "2 on record already" in again.stderr) == (0, True)
    rows = {(o.model, o.query_id) for o in OutcomeTable.read("out.parquet")}
    assert rows == {(model, question["query_id"]) for model in ("ann", "bob") for question in QUESTIONS}


def test_a_dry_run_prices_the_job_and_asks_and_writes_nothing(cli, folder):
    """Nothing on record: 500 tokens an answer at a dollar each, for three questions; then 2 tokens, for the one left."""
    args = ("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:priced")
    before = sorted(folder.iterdir())
    facts = cli.said(*args, "--dry-run")
    assert (facts["calls"], facts["usd"], facts["unpriced"]) == (3, 1500.0, [])
    assert facts["members"][0]["output_tokens_by"] == "assumed"
    shown = cli.shown(*args, "--dry-run")
    assert all(words in shown for words in ("ann 3 0", "$1,500.00", "Assumed: 500 tokens", "Nobody was asked."))
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before

    assert cli.run(*args, "--limit", 2).exit_code == 0
    facts = cli.said(*args, "--dry-run")
    assert (facts["calls"], facts["usd"], facts["members"][0]["on_record"]) == (1, 2.0, 2)
    unknown = cli.run("collect", "questions.jsonl", "--out", "o.csv", "--pool", "my_pools:mapping", "--dry-run")
    assert "Prices of ann, bob are unknown" in " ".join(unknown.stdout.split())


def test_a_budget_ends_the_run_cleanly_and_says_what_is_missing_and_how_to_go_on(cli, folder):
    """Two dollars an answer: two fit into five."""
    args = ("collect", "questions.jsonl", "--out", "out.jsonl", "--output-tokens", 2, "--pool")
    result = cli.run(*args, "my_pools:priced", "--max-usd", 5)
    assert result.exit_code == 0
    assert "could pass $5: $4.00 spent, 1 answer missing." in result.stderr
    assert "--max-usd" in result.stderr
    assert len(OutcomeTable.read("out.jsonl")) == 2
    refused = cli.run(*args, "my_pools:mapping", "--max-usd", 5)
    cli.assert_refused(refused, "ann, bob are unknown", "--unpriced-as")


def test_the_result_is_one_json_object_for_programs(cli, folder):
    facts = cli.said("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:priced", "--samples", 2)
    assert (facts["rows"], facts["ended"], facts["missing"], facts["usd"]) == (6, "complete", 0, 12.0)
    (ann,) = facts["members"]
    assert (ann["wanted"], ann["answered"], ann["failed"], ann["completion_tokens"]) == (6, 6, 0, 12)
    assert Path(facts["log"]) == log_beside("out.jsonl").resolve()


def test_a_shared_log_gives_a_table_the_questions_that_it_is_about(cli, folder):
    """Two tables from one log: each has its own questions, and the second keeps what it held."""
    Path("others.jsonl").write_text(json.dumps({**QUESTIONS[0], "query_id": "other"}), encoding="utf-8")
    args = ("--log", "shared.db", "--pool", "my_pools:mapping")
    assert cli.run("collect", "questions.jsonl", "--out", "a.jsonl", *args).exit_code == 0
    assert cli.run("collect", "others.jsonl", "--out", "b.jsonl", *args).exit_code == 0
    assert {o.query_id for o in OutcomeTable.read("a.jsonl")} == {"first", "second", "third"}
    assert {o.query_id for o in OutcomeTable.read("b.jsonl")} == {"other"}
    assert cli.run("collect", "questions.jsonl", "--limit", 1, "--out", "b.jsonl", *args).exit_code == 0
    assert {o.query_id for o in OutcomeTable.read("b.jsonl")} == {"first", "other"}
    assert len(OutcomeLog("shared.db").answered()) == 8


def test_grades_in_the_table_and_a_corrected_right_answer_count_and_both_are_said(cli, folder):
    """Ann's "yes" to the first is graded half by hand; then the third is corrected to "no", which is scored again by rule."""
    args = ("collect", "questions.jsonl", "--out", "out.jsonl", "--pool", "my_pools:priced")
    assert cli.run(*args).stdout == "3 outcomes of 1 member in out.jsonl\n"
    graded = [replace(o, reward=0.5) if o.query_id == "first" else o for o in OutcomeTable.read("out.jsonl")]
    OutcomeTable.from_outcomes(graded).write("out.jsonl")
    Path("questions.jsonl").write_text(
        "\n".join(json.dumps({**q, "gold": "no"} if q["query_id"] == "third" else q) for q in QUESTIONS)
    )
    result = cli.run(*args)
    assert "1 reward of out.jsonl that the log had otherwise: taken in" in result.stderr
    assert "Scored without asking again: 1 answer on record." in result.stderr
    rows = [(o.query_id, o.gold, o.reward) for o in OutcomeTable.read("out.jsonl")]
    assert rows == [("first", "yes", 0.5), ("second", "no", 0.0), ("third", "no", 0.0)]


def test_questions_without_a_right_answer_are_collected_unscored_and_that_is_said(cli, folder):
    unlabelled = {**QUESTIONS[1], "gold": None}
    Path("some.jsonl").write_text("\n".join(map(json.dumps, [QUESTIONS[0], unlabelled])), encoding="utf-8")
    result = cli.run("collect", "some.jsonl", "--out", "out.jsonl", "--pool", "my_pools:mapping")
    assert result.exit_code == 0
    assert "1 of 2 questions have no `gold` and no scorer" in result.stderr
    assert "Unscored, which is not wrong: 2 answers." in result.stderr
    rewards = {(o.model, o.query_id): o.reward for o in OutcomeTable.read("out.jsonl")}
    assert rewards == {("ann", "first"): 1.0, ("bob", "first"): 0.0, ("ann", "second"): None, ("bob", "second"): None}


# ---- what is shown meanwhile


def a_tally(**counts):
    return Tally(members={"ann": MemberTally(name="ann", total=100, **counts)})


def test_lines_come_with_progress_and_with_time_where_nobody_watches_a_terminal():
    """A line at the start; one at a tenth of the work, but not within 2 s of the last; one after 30 s without progress."""
    now, sink = [0.0], io.StringIO()
    view = CollectView(Console(file=sink, width=80), clock=lambda: now[0])
    said = []
    for seconds, answered in ((0, 0), (1, 50), (3, 50), (4, 55), (20, 55), (33, 55), (34, 56)):
        now[0] = seconds
        view(a_tally(answered=answered, usd=0.5))
        said.append(sink.getvalue().count("\n"))
    assert said == [1, 1, 2, 2, 2, 3, 3]
    assert sink.getvalue().splitlines()[:2] == [
        "Collecting 100 answers of 1 member.",
        "50 of 100 (50%), 0 tokens, $0.5000, about 3 s left",
    ]


def test_the_live_table_fits_a_terminal_of_80_columns_and_says_who_waits_for_what():
    sink = io.StringIO()
    console = Console(file=sink, width=80, force_terminal=True, color_system=None)
    tally = a_tally(answered=40, failed=3, prompt_tokens=1_234_567, usd=12.5, waits_for="its rate limit")
    tally.members["a-member-with-a-name-that-is-far-too-long"] = MemberTally(
        name="a-member-with-a-name-that-is-far-too-long", total=12_345, answered=1_234, unpriced=4, given_up="no key"
    )
    with CollectView(console, clock=lambda: 10.0) as view:
        view(tally)
        console.print(view._shown())
    lines = [line.rstrip() for line in sink.getvalue().splitlines() if line.startswith(("ann", "a-mem", "all"))]
    assert any(re.match(r"ann +43/100 +3 +1,235k +\$12\.50 .*rate limit", line) for line in lines), lines
    assert any("1,234/12,345" in line and "?" in line and "given up" in line for line in lines)
    assert max(map(len, lines)) <= 80


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
        (["--pool", "my_pools:pool", "--out", "no/folder/out.csv"], ["no/folder/out.csv", "folder"]),
        (["--pool", "my_pools:pool", "--scorer", "no_such"], ["scorer", "'no_such'"]),
        (["--pool", "my_pools:pool", "--scorer", "judge"], ["judge", "--judge"]),
        (["--pool", "my_pools:pool", "--log", "mysql://x/y"], ["postgresql://", "mysql"]),
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

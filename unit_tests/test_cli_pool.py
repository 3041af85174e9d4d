"""`rlfocal pool check`, which tells who answers and what each can do, and `rlfocal pool schema`."""

import json
from pathlib import Path

import pytest

from langchain_rlfocal.pool_files import pool_schema

KEY = "sk-" + "a1" * 12

# Doubles of what goes wrong, each as a class that a pool file can name.
MODELS = '''
import json
import threading

from langchain_core.messages import AIMessage

from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_schema_model import SchemaChatModel

release = threading.Event()


class Able(SchemaChatModel):
    """Does all of it."""

    logprob: float | None = -0.5


class Texter(SchemaChatModel):
    """Answers in text, whatever tools it is given."""

    answers: object = lambda messages, tools: "It is 21 degrees." if "Call the tool" in messages[-1].text else None


class Inventive(SchemaChatModel):
    """Writes objects that do not fit."""

    answers: object = lambda messages, tools: json.dumps({"city": "Oslo"}) if "JSON" in messages[-1].text else None


class Misnaming(SchemaChatModel):
    """Calls a tool that there is not."""

    answers: object = lambda messages, tools: (
        AIMessage("", tool_calls=[{"name": "no_such_tool", "args": {}, "id": "1"}]) if tools else None
    )


def faulty():
    return FailingChatModel(error=ValueError("401: Incorrect API key provided: KEY\\x1b[2J"))


def unreachable():
    error = ConnectionError("Connection error.")
    error.__cause__ = OSError("[Errno 111] Connection refused")
    return FailingChatModel(error=error)


def stuck():
    return ScriptedChatModel(script=["late"], on_call=release.wait)


def stuck_at_tools():
    """Answers a question, and hangs where it is given tools."""
    def answers(messages, tools):
        if tools:
            release.wait()
    return SchemaChatModel(answers=answers)
'''.replace("KEY", KEY)

NAMES = ("Able", "Texter", "Inventive", "Misnaming", "faulty", "unreachable", "stuck", "stuck_at_tools")


@pytest.fixture
def pool(folder):
    """A pool file of all of them; the first has prices."""
    Path("my_members.py").write_text(MODELS)
    entries = {name.lower(): {"class": f"my_members:{name}"} for name in NAMES}
    entries["able"]["usd_per_million"] = {"input": 1, "output": 2}
    Path("pool.json").write_text(json.dumps({"members": entries}))
    yield "pool.json"
    import my_members  # noqa: PLC0415  # made above

    my_members.release.set()


def check(cli, pool, *members, timeout=30):
    result = cli.run("pool", "check", pool, *(f"--member={m}" for m in members), f"--timeout={timeout}", "--json")
    facts = json.loads(result.stdout)
    assert result.exit_code == (0 if facts["reachable"] == len(facts["members"]) else 1)
    return {one["member"]: one for one in facts["members"]}


def test_a_member_that_can_everything_is_shown_so(cli, pool):
    able = check(cli, pool, "able")["able"]
    assert able["seconds"] >= 0
    assert able["usd"] > 0
    assert {**able, "seconds": 0, "usd": 0} == {
        "member": "able",
        "reachable": True,
        "seconds": 0,
        "tools": True,
        "structured": True,
        "logprobs": True,
        "priced": True,
        "usd": 0,
        "reasons": {},
    }


@pytest.mark.parametrize(
    ("member", "what", "reason"),
    [
        ("texter", "tools", "It answered in text, and called no tool: 'It is 21 degrees.'"),
        ("inventive", "structured", "celsius"),
        ("misnaming", "tools", "no_such_tool"),
    ],
)
def test_a_member_that_answers_and_fails_at_one_thing_is_reachable_and_says_why(cli, pool, member, what, reason):
    """Each of them can the other thing, but for the one that calls whatever comes to its mind."""
    found = check(cli, pool, member)[member]
    assert (found["reachable"], found[what], found["priced"], found["usd"]) == (True, False, False, None)
    assert reason in found["reasons"][what]
    assert set(found["reasons"]) == {what}
    assert found["logprobs"] is False


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("faulty", "ValueError: 401: Incorrect API key provided: ***"),
        ("unreachable", "ConnectionError: Connection error. ([Errno 111] Connection refused)"),
    ],
)
def test_a_member_that_does_not_answer_is_asked_nothing_else(cli, pool, member, reason):
    found = check(cli, pool, member)[member]
    assert (found["reachable"], found["seconds"], found["tools"], found["structured"]) == (False, None, None, None)
    assert found["reasons"]["reachable"].startswith(reason)
    assert KEY not in str(found)
    assert "\x1b" not in str(found)


def test_nobody_is_waited_for_longer_than_the_time_out(cli, pool):
    """The first is not reachable; the second is, and after it hung once it is asked no more."""
    found = check(cli, pool, "stuck", "stuck_at_tools", timeout=0.2)
    assert "No answer within 0.2" in found["stuck"]["reasons"]["reachable"]
    assert (found["stuck_at_tools"]["reachable"], found["stuck_at_tools"]["tools"]) == (True, False)
    assert found["stuck_at_tools"]["structured"] is None
    assert "No answer within 0.2" in found["stuck_at_tools"]["reasons"]["tools"]


def test_the_table_fits_80_columns_and_reasons_stand_below(cli, pool):
    result = cli.run(
        "pool", "check", pool, "--member=able", "--member=texter", "--member=faulty", env={"COLUMNS": "80"}
    )
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert max(map(len, lines)) <= 80
    words = {line.split()[0]: line.split() for line in lines if line.split()}
    assert words["member"] == ["member", "reachable", "seconds", "tools", "structured", "logprobs", "price"]
    assert (words["able"][1], *words["able"][3:]) == ("yes", "yes", "yes", "yes", "yes"), result.stdout
    text = " ".join(result.stdout.split())
    assert "faulty no - - - unknown" in text
    assert "texter, no tool call: It answered in text, and called no tool: 'It is 21 degrees.'" in text
    assert "faulty, not reachable: ValueError: 401" in text
    assert "No price: texter, faulty. Budgets and targets in dollars need `usd_per_million`" in text
    assert "No log-probabilities, which tell how sure a member is: texter." in text
    assert KEY not in result.output


def test_a_pool_of_a_function_can_be_checked_and_a_stranger_is_refused(cli, pool):
    Path("my_members.py").write_text(MODELS + "\ndef pool():\n    return {'able': Able()}\n")
    assert check(cli, "my_members:pool")["able"]["reachable"]
    cli.assert_refused(cli.run("pool", "check", pool, "--member=cleo"), "no member `cleo`; it has able, texter")


def test_a_file_that_breaks_a_rule_is_one_line(cli, folder):
    Path("pool.yaml").write_text("members:\n  a: {model: 'openai:x', api_key_env: NOT_SET_77}")
    result = cli.run("pool", "check", "pool.yaml")
    cli.assert_refused(result, "file pool.yaml, line 2, member `a`", "NOT_SET_77, which is not set", "export")
    cli.assert_refused(cli.run("pool", "check", "absent.yaml"), "absent.yaml", "cannot be read")
    cli.assert_refused(cli.run("pool", "check", "absent"), "`--pool` must be", "'absent'")


def test_the_schema_is_printed_as_it_is_published(cli):
    result = cli.run("pool", "schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == pool_schema()
    assert result.stdout == (Path(__file__).parents[1] / "docs/reference/pool.schema.json").read_text()

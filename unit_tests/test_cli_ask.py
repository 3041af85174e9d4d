"""`rlfocal ask`: one question to a pool, its answer on stdout and how it came about beside it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.demo import pool as demo_pool
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import ScriptedChatModel

MODELS = """
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

class Ann(ScriptedChatModel):
    script: object = lambda messages: "Yes.\\nIt is \\x1b[2Jone." if "bird" in messages[-1].text else "I do not know."

class Bob(ScriptedChatModel):
    script: object = lambda messages: f"{messages[0].type}: {messages[0].text}"

def failing():
    return FailingChatModel(error=ValueError("no key"))
"""
POOL = """
members:
  ann: {class: "my_models:Ann", usd_per_million: {input: 1000000, output: 2000000}}
  bob: {class: "my_models:Bob"}
"""
QUESTION = "Is a penguin a bird?"


@pytest.fixture(autouse=True)
def files(folder):
    Path("my_models.py").write_text(MODELS)
    Path("pool.yaml").write_text(POOL)
    Path("ann.yaml").write_text(POOL.partition("  bob")[0])
    Path("bob.yaml").write_text("members:\n  bob: {class: 'my_models:Bob'}")
    Path("failing.yaml").write_text("members:\n  cleo: {class: 'my_models:failing'}")


def test_the_answer_is_all_of_stdout_and_the_decision_stands_on_stderr(cli):
    """In 80 columns; what could steer the terminal has become a space, the answer's lines are kept."""
    result = cli.run("ask", QUESTION, "--pool", "ann.yaml", env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert result.stdout == "Yes.\nIt is  [2Jone.\n"
    assert max(map(len, result.stderr.splitlines())) <= 80
    words = {line.split()[0]: line.split() for line in result.stderr.splitlines() if line.split()}
    assert words["1"][:3] == ["1", "ann", "0.50"] or words["1"][:2] == ["1", "ann"]
    said = " ".join(result.stderr.split())
    assert "ann; weights" in said
    assert "1 call" in said
    assert "Answered without a trained policy" in said


def test_json_has_answer_decision_usage_and_dollars(cli):
    """One token a word: 5 of the question at $1 and 4 of the answer at $2."""
    facts = cli.said("ask", QUESTION, "--pool", "ann.yaml")
    assert facts["answer"] == "Yes.\nIt is \x1b[2Jone."
    assert (facts["trained"], facts["decision"]["trained"]) == (False, False)
    assert facts["usage"]["input_tokens"] == 5
    assert facts["usd"] == 5 * 1 + 4 * 2
    assert facts["seconds"] > 0
    assert [row["member"] for row in facts["decision"]["candidates"]] == ["ann"]


def test_dollars_are_unknown_where_somebody_has_no_price(cli):
    assert cli.said("ask", QUESTION, "--pool", "bob.yaml")["usd"] is None
    assert "price unknown" in cli.run("ask", QUESTION, "--pool", "bob.yaml").stderr


def test_instructions_come_before_the_question(cli):
    assert cli.said("ask", QUESTION, "--pool", "bob.yaml", "--system", "Be brief.")["answer"] == "system: Be brief."
    assert cli.said("ask", QUESTION, "--pool", "bob.yaml")["answer"] == f"human: {QUESTION}"


def test_a_question_may_come_from_standard_input():
    result = CliRunner().invoke(app, ["ask", "-", "--pool", "ann.yaml"], input=f"{QUESTION}\n")
    assert (result.exit_code, result.stdout) == (0, "Yes.\nIt is  [2Jone.\n")


def test_a_trained_policy_decides_within_its_own_limits(cli, random_policy):
    random_policy(["ann", "bob"], card={"config": {"max_team": 1, "max_rounds": 1, "cost_weight": 0.1}}).save("policy")
    facts = cli.said("ask", QUESTION, "--pool", "pool.yaml", "--policy", "policy")
    assert facts["trained"]
    assert facts["decision"]["cost_weight"] == 0.1
    assert len(facts["decision"]["candidates"]) == 1
    more = cli.said("ask", QUESTION, "--pool", "pool.yaml", "--policy", "policy", "--cost-weight", "0.3")
    assert more["decision"]["cost_weight"] == 0.3
    assert "Answered without" not in cli.run("ask", QUESTION, "--pool", "pool.yaml", "--policy", "policy").stderr


def test_a_target_is_kept_by_the_policys_curve(cli, random_policy):
    curve = [{"cost_weight": 0.0, "mean_calls": 2.0}, {"cost_weight": 1.0, "mean_calls": 1.0}]
    config = {"max_team": 2, "max_rounds": 1, "cost_weight": 0.1}
    random_policy(["ann", "bob"], card={"config": config, "curve": curve}).save("policy")
    asked = ("ask", QUESTION, "--pool", "pool.yaml", "--policy", "policy", "--target-calls", "1.5")
    assert cli.said(*asked)["decision"]["target"] == {"target_calls": 1.5}
    cli.assert_refused(cli.run(*asked, "--target-tokens", "9"), "One target can be kept")
    cli.assert_refused(cli.run(*asked, "--cost-weight", "1"), "`--cost-weight` and `--target-calls` exclude each other")


def test_where_nobody_answers_it_ends_with_1_and_the_reason(cli):
    result = cli.run("ask", QUESTION, "--pool", "failing.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cleo: ValueError: no key" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["  ", "--pool", "ann.yaml"], "The question is empty"),
        ([QUESTION, "--pool", "absent.yaml"], "absent.yaml"),
        ([QUESTION, "--pool", "ann.yaml", "--policy", "absent"], "absent"),
        ([QUESTION, "--pool", "ann.yaml", "--member", "a=b:c"], "`--pool` and `--member` exclude each other"),
        ([QUESTION, "--pool", "ann.yaml", "--deadline", "0"], "`deadline_s`"),
        ([QUESTION, "--pool", "ann.yaml", "--target-usd", "1"], "A target needs a trained policy"),
    ],
)
def test_what_cannot_be_asked_is_one_line(cli, args, words):
    cli.assert_refused(cli.run("ask", *args), words)


def test_without_a_pool_the_embedded_one_answers_with_the_policy_that_ships(cli, monkeypatch):
    class Pool:
        def __init__(self):
            names = RLFocalPolicy.load(demo_pool.__file__.replace("pool.py", "policy")).members
            self.members = {name: ScriptedChatModel(script=["yes"]) for name in names}

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.members.clear()

    monkeypatch.setattr(demo_pool, "embedded_pool", Pool)
    facts = cli.said("ask", QUESTION)
    assert (facts["answer"], facts["trained"]) == ("yes", True)
    assert json.dumps(facts["decision"]["rounds"])

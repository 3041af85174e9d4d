"""The command line from outcomes on: train, evaluate and demo, what each prints and leaves, and how it ends."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal import training
from langchain_rlfocal.cli import app
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def assert_one_line_refusal(result, *words):
    """Exit code 2, one line on stderr that says why, nothing on stdout, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_training(monkeypatch):
    """The command's own path with two small iterations: what training learns is not under test here."""

    def config(**given):
        return replace(TrainingConfig(**given), num_iterations=2, batch_size=32)

    monkeypatch.setattr(training, "TrainingConfig", config)


@pytest.fixture(scope="module")
def table():
    """300 queries of two tasks: Ann knows one, Bob the other."""
    return make_outcomes({"quiz/a": {"ann": 0.9, "bob": 0.3}, "quiz/b": {"ann": 0.3, "bob": 0.9}}, num_queries=150)


@pytest.fixture(scope="module")
def policy(table):
    learned, chosen, _ = table.grid(table.members).split()
    return training.train(learned, chosen, TrainingConfig(num_iterations=2, batch_size=32))


@pytest.fixture
def outcomes(folder, table):
    table.write("outcomes.parquet")
    return "outcomes.parquet"


@pytest.fixture
def checkpoint(folder, policy):
    policy.save("policy")
    return "policy"


def test_train_writes_a_policy_and_says_what_it_learned_from(outcomes, quick_training):
    """What `--json` prints is one object, and nothing else is on stdout."""
    result = run("train", outcomes, "--out", "made", "--seed", 3, "--max-team", 2, "--cost-weight", 0.2, "--json")

    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    policy = RLFocalPolicy.load("made")
    assert said["policy_id"] == policy.policy_id
    assert said["members"] == ["ann", "bob"]
    assert sum(said["queries"].values()) == 300
    config = said["card"]["config"]
    assert (config["seed"], config["max_team"], config["cost_weight"]) == (3, 2, 0.2)
    assert config["max_rounds"] == TrainingConfig().max_rounds


def test_train_for_people_names_members_queries_and_validation(outcomes, quick_training):
    text = run("train", outcomes, "--out", "made").stdout

    assert all(word in text for word in ("ann, bob", "train", "test", "validation", "single best"))


def test_train_takes_the_members_and_tasks_that_are_named(outcomes, quick_training):
    run("train", outcomes, "--out", "made", "--member", "bob", "--task", "quiz/a")

    policy = RLFocalPolicy.load("made")
    assert policy.members == ("bob",)
    assert policy.card["training"]["queries"] + policy.card["validation"]["queries"] < 150


def test_train_that_is_refused_leaves_nothing(outcomes, quick_training, folder):
    assert_one_line_refusal(run("train", outcomes, "--out", "made", "--member", "eve"), "eve", "ann, bob")
    assert_one_line_refusal(run("train", outcomes, "--out", "made", "--task", "other/*"), "other/*")
    assert not Path("made").exists()


def test_train_interrupted_leaves_nothing(outcomes, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    result = run("train", outcomes, "--out", "made")

    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted: nothing was written.\n"
    assert not Path("made").exists()


def test_evaluate_prints_the_policy_beside_the_baselines_within_80_columns(checkpoint, outcomes):
    result = run("evaluate", checkpoint, outcomes)

    assert result.exit_code == 0, result.stderr
    first = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    for name in ("policy", "single best", "plurality", "weighted vote", "oracle", "quiz/a", "quiz/b"):
        assert name in first
    assert "95 %" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_evaluate_scores_the_test_rows_with_the_limits_of_the_training_unless_told_otherwise(checkpoint, outcomes):
    default = json.loads(run("evaluate", checkpoint, outcomes, "--json").stdout)
    told = json.loads(
        run("evaluate", checkpoint, outcomes, "--json", "--split", "all", "--max-team", 1, "--cost-weight", 0.5).stdout
    )

    config = RLFocalPolicy.load(checkpoint).card["config"]
    assert [default[name] for name in ("max_team", "max_rounds", "cost_weight")] == [
        config[name] for name in ("max_team", "max_rounds", "cost_weight")
    ]
    assert (default["split"], told["split"]) == ("test", "all")
    assert default["policy"]["n"] < told["policy"]["n"] == 300
    assert (told["max_team"], told["cost_weight"]) == (1, 0.5)
    assert told["policy"]["mean_calls"] == 1.0


def test_evaluate_gives_the_single_best_member_what_its_rows_say(checkpoint, outcomes):
    """On one task Ann is right 0.9 of the time and Bob 0.3: 135 and 45 of 150 rows, in all three splits together."""
    said = json.loads(run("evaluate", checkpoint, outcomes, "--task", "quiz/a", "--split", "all", "--json").stdout)

    assert said["baselines"]["single_best"]["score"] == pytest.approx(0.9)
    assert list(said["per_task"]) == ["quiz/a"]


def test_evaluate_warns_where_the_baselines_were_fitted_on_the_rows_that_they_are_scored_on(checkpoint, outcomes):
    warning = "fitted on validation rows, which are among these"

    assert warning in run("evaluate", checkpoint, outcomes, "--split", "all").stdout
    assert warning not in run("evaluate", checkpoint, outcomes).stdout


def test_evaluate_refuses_what_is_no_checkpoint_and_what_no_table_holds(checkpoint, outcomes):
    assert_one_line_refusal(run("evaluate", "absent", outcomes), "absent", "rlfocal train --out")
    assert_one_line_refusal(run("evaluate", checkpoint, "absent.parquet"), "absent.parquet")
    Path("damaged").mkdir()
    Path("damaged/checkpoint.json").write_text("{", encoding="utf-8")
    assert_one_line_refusal(run("evaluate", "damaged", outcomes), "damaged")


def test_evaluate_can_hide_the_task_labels_from_the_policy(checkpoint, outcomes, monkeypatch):
    """The figures of each task are still there; with the option the policy is shown no label, without it all."""
    seen = []
    describe = RLFocalPolicy.describe

    def spy(self, queries, tasks, members=None):
        seen.append(set(tasks))
        return describe(self, queries, tasks, members)

    monkeypatch.setattr(RLFocalPolicy, "describe", spy)
    hidden, shown = (
        json.loads(run("evaluate", checkpoint, outcomes, "--json", *o).stdout) for o in (["--no-task"], [])
    )

    assert seen == [{None}, {"quiz/a", "quiz/b"}]
    assert (hidden["task_labels"], shown["task_labels"]) == (False, True)
    assert list(hidden["per_task"]) == list(shown["per_task"]) == ["quiz/a", "quiz/b"]
    assert "did not see the task labels" in run("evaluate", checkpoint, outcomes, "--no-task").stdout


def test_names_of_tasks_and_members_neither_style_nor_steer_the_terminal(folder, quick_training):
    """Markup in a name is shown as it is written; an escape sequence loses its escape."""
    tasks, members = ("a[/b]", "[red]c\x1b[2J"), {"[bold]ann[/x]": 0.9, "bob\x1b[2J": 0.3}
    make_outcomes(dict.fromkeys(tasks, members), num_queries=100).write("odd.jsonl")

    results = [run("train", "odd.jsonl", "--out", "odd"), run("evaluate", "odd", "odd.jsonl")]

    assert [result.exit_code for result in results] == [0, 0], results
    assert "[bold]ann[/x], bob [2J" in results[0].stdout
    assert "a[/b]" in results[1].stdout
    assert "[red]c [2J" in results[1].stdout
    assert not any("\x1b" in result.stdout for result in results)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([1, 2], ["`config`", "JSON object", "[1, 2]"]),
        (None, ["`config`", "JSON object", "None"]),
        ({"max_team": "x"}, ["`max_team`", "whole number, at least 1", "'x'", "--max-team"]),
        ({"max_team": -1}, ["`max_team`", "-1"]),
        ({"max_team": True}, ["`max_team`", "True"]),
        ({"max_rounds": 0}, ["`max_rounds`", "got 0", "--max-rounds"]),
        ({"max_rounds": 1.5}, ["`max_rounds`", "1.5"]),
        ({"cost_weight": float("nan")}, ["`cost_weight`", "finite number, at least 0", "nan", "--cost-weight"]),
        ({"cost_weight": -0.1}, ["`cost_weight`", "-0.1"]),
        ({"cost_weight": [0.1]}, ["`cost_weight`", "[0.1]"]),
    ],
)
def test_evaluate_refuses_limits_that_a_checkpoint_made_up(checkpoint, outcomes, config, words):
    path = Path(checkpoint) / "checkpoint.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    card = facts["card"]
    card["config"] = {**card["config"], **config} if isinstance(config, dict) else config
    path.write_text(json.dumps(facts), encoding="utf-8")

    assert_one_line_refusal(run("evaluate", checkpoint, outcomes), *words)


@pytest.mark.parametrize("command", ["evaluate", "demo"])
def test_interrupting_a_command_that_writes_nothing_says_nothing_of_writing(checkpoint, outcomes, monkeypatch, command):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(RLFocalPolicy, "load", interrupt)
    monkeypatch.setattr("langchain_rlfocal.cli.demo.run_demo", interrupt)
    result = run(command, *([checkpoint, outcomes] if command == "evaluate" else []))

    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def test_evaluate_refuses_an_empty_split(checkpoint, folder):
    """One query stands in one split; the two others are empty."""
    make_outcomes({"quiz": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.jsonl")
    refused = [
        result
        for split in ("train", "validation", "test")
        if (result := run("evaluate", checkpoint, "one.jsonl", "--split", split)).exit_code
    ]

    assert len(refused) == 2
    for result in refused:
        assert_one_line_refusal(result, "at least one query")


def test_demo_hands_its_questions_on(monkeypatch):
    asked = []
    monkeypatch.setattr("langchain_rlfocal.cli.demo.run_demo", lambda console, queries: asked.append(queries))

    run("demo", "Is it raining?", "Why?")
    run("demo")

    assert asked == [["Is it raining?", "Why?"], None]

"""The command line from a policy to its figures: what evaluate counts, prints and refuses."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from langchain_rlfocal import training
from langchain_rlfocal.cli import app, evaluation
from langchain_rlfocal.evaluation.baselines import BASELINES, fit_baselines
from langchain_rlfocal.evaluation.report import with_baselines
from langchain_rlfocal.outcomes import OutcomeTable
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
    """Two small iterations: what training learns is not under test here."""

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
    trained = training.train(learned, chosen, TrainingConfig(num_iterations=2, batch_size=32, max_team=2))
    return with_baselines(trained, fit_baselines(learned, chosen, max_team=2))


@pytest.fixture
def outcomes(folder, table):
    table.write("outcomes.parquet")
    return "outcomes.parquet"


@pytest.fixture
def unseen(folder):
    """Other queries, on which Ann is always right and Bob never."""
    make_outcomes({"fresh": {"ann": 1.0, "bob": 0.0}}, num_queries=40, seed=9).write("unseen.parquet")
    return "unseen.parquet"


@pytest.fixture
def checkpoint(folder, policy):
    policy.save("policy")
    return "policy"


def said_by(*args):
    result = run("evaluate", *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shown_by(*args):
    """What is printed for people, its lines joined."""
    result = run("evaluate", *args)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


@pytest.mark.parametrize("columns", [80, 100])
def test_evaluate_prints_the_policy_beside_the_baselines_within_the_terminal(
    checkpoint, outcomes, monkeypatch, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = run("evaluate", checkpoint, outcomes)

    assert result.exit_code == 0, result.stderr
    first = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    for name in ("policy", "single best", "plurality", "best fixed team", "oracle", "quiz/a", "mean of tasks"):
        assert name in first
    assert all(name.split("_")[0] in result.stdout for name in BASELINES)
    assert "95 %" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= columns


def test_evaluate_prints_one_json_object_with_all_figures_of_policy_and_baselines(checkpoint, outcomes):
    said = said_by(checkpoint, outcomes)

    figures = {"score", "ci95", "macro", "mean_calls", "mean_team", "cost_usd", "latency_s", "n"}
    assert set(said["policy"]) == {*figures, "mean_rounds"}
    assert tuple(said["baselines"]) == BASELINES
    assert all(set(baseline) == figures for baseline in said["baselines"].values())
    assert (said["missing_baselines"], said["baselines_from"]) == ([], "checkpoint")
    assert (said["dropped"], said["missing"], said["repeated"]) == (0, 0, 0)


def test_evaluate_scores_the_test_rows_with_the_limits_of_the_training_unless_told_otherwise(checkpoint, outcomes):
    default = said_by(checkpoint, outcomes)
    told = said_by(checkpoint, outcomes, "--split", "all", "--max-team", 1, "--cost-weight", 0.5)

    config = RLFocalPolicy.load(checkpoint).card["config"]
    assert [default[name] for name in ("max_team", "max_rounds", "cost_weight")] == [
        config[name] for name in ("max_team", "max_rounds", "cost_weight")
    ]
    assert (default["split"], told["split"]) == ("test", "all")
    assert default["policy"]["n"] < told["policy"]["n"] == 300
    assert (told["max_team"], told["cost_weight"]) == (1, 0.5)
    assert told["policy"]["mean_calls"] == 1.0


def test_evaluate_compares_on_outcomes_never_seen_with_the_baselines_of_the_checkpoint(checkpoint, unseen):
    """Fitted on the very rows the single best would be Ann, always right; of the training it is whoever was best there."""
    said = said_by(checkpoint, unseen, "--split", "all")

    single = {"ann": 1.0, "bob": 0.0}[RLFocalPolicy.load(checkpoint).card["validation"]["single_best"]]
    assert said["policy"]["n"] == 40
    assert said["baselines"]["single_best"]["score"] == single
    assert said["baselines"]["oracle"]["score"] == 1.0
    assert said["baselines_from"] == "checkpoint"


def test_evaluate_gives_the_single_best_member_what_its_rows_say(checkpoint, outcomes):
    """On one task one is right 0.9 of the time, the other 0.3, in all three splits together."""
    said = said_by(checkpoint, outcomes, "--task", "quiz/a", "--split", "all")

    single = {"ann": 0.9, "bob": 0.3}[RLFocalPolicy.load(checkpoint).card["validation"]["single_best"]]
    assert said["baselines"]["single_best"]["score"] == pytest.approx(single)
    assert list(said["per_task"]) == ["quiz/a"]
    assert "mean of tasks" not in shown_by(checkpoint, outcomes, "--task", "quiz/a"), "of one task"
    assert list(said_by(checkpoint, outcomes, "--task", "*/a", "--task", "*/b")["per_task"]) == ["quiz/a", "quiz/b"]


def test_evaluate_counts_what_a_member_did_not_answer(checkpoint, folder, table):
    """Bob did not answer ten queries: they are left out, or count as his failure; both are said."""
    rows = [o for o in table if (o.model, o.task) != ("bob", "quiz/a") or int(o.query_id) >= 10]
    OutcomeTable.from_outcomes(rows).write("gaps.parquet")
    args = (checkpoint, "gaps.parquet", "--split", "all")
    dropped, failed = said_by(*args), said_by(*args, "--missing", "fail")

    assert (dropped["policy"]["n"], dropped["dropped"], dropped["missing"]) == (290, 10, 0)
    assert (failed["policy"]["n"], failed["dropped"], failed["missing"]) == (300, 0, 10)
    assert "left out because a member did not answer them: 10." in shown_by(*args)
    assert "lack a member's answer, which counts as its failure: 10." in shown_by(*args, "--missing", "fail")


def test_evaluate_warns_where_policy_and_baselines_know_rows(checkpoint, outcomes):
    warning = "policy and baselines know all but the training's test rows"

    assert warning in shown_by(checkpoint, outcomes, "--split", "all")
    assert warning in shown_by(checkpoint, outcomes, "--test-ids", "1*")
    assert warning not in shown_by(checkpoint, outcomes)


def test_evaluate_says_where_the_baselines_were_fitted_for_larger_teams(checkpoint, outcomes):
    warning = "were fitted for 2 members at most"

    assert warning in shown_by(checkpoint, outcomes, "--max-team", 1)
    assert warning not in shown_by(checkpoint, outcomes)
    assert warning not in shown_by(checkpoint, outcomes, "--max-team", 7), "there are two members"


def test_evaluate_can_hide_the_task_labels_from_the_policy(checkpoint, outcomes, monkeypatch):
    """The figures of each task are still there; with the option the policy is shown no label, without it all."""
    seen = []
    describe = RLFocalPolicy.describe

    def spy(self, queries, tasks, members=None):
        seen.append(set(tasks))
        return describe(self, queries, tasks, members)

    monkeypatch.setattr(RLFocalPolicy, "describe", spy)
    hidden, shown = said_by(checkpoint, outcomes, "--no-task"), said_by(checkpoint, outcomes)

    assert seen == [{None}, {"quiz/a", "quiz/b"}]
    assert (hidden["task_labels"], shown["task_labels"]) == (False, True)
    assert list(hidden["per_task"]) == list(shown["per_task"]) == ["quiz/a", "quiz/b"]
    assert "labels were hidden" in shown_by(checkpoint, outcomes, "--no-task")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cost-weight", 0.1, "--target-calls", 2], ["--cost-weight", "--target-calls", "exclude each other"]),
        (["--target-calls", 0.5], ["at least 1", "0.5"]),
        (["--target-calls", "nan"], ["at least 1", "nan"]),
        (["--cost-weight", "inf"], ["`--cost-weight`", "finite", "inf"]),
        (["--task", "other/*"], ["other/*", "quiz/a"]),
        (["--test-ids", "test*"], ["`test_ids`", "test*"]),
        (["--embedder", "wordllama"], ["without an embedder"]),
    ],
)
def test_evaluate_refuses_bad_options_in_one_line(checkpoint, outcomes, options, words):
    if "wordllama" in options:
        pytest.importorskip("wordllama", reason="the embedder's weights: pip install 'langchain-rlfocal[wordllama]'")
    assert_one_line_refusal(run("evaluate", checkpoint, outcomes, *options), *words)


def test_evaluate_refuses_to_count_as_failures_the_queries_of_a_member_without_rows(checkpoint, folder, table):
    """Bob has no row at all, or none on the task that is asked for."""
    OutcomeTable.from_outcomes([o for o in table if o.model == "ann"]).write("ann.parquet")
    OutcomeTable.from_outcomes([o for o in table if (o.model, o.task) != ("bob", "quiz/a")]).write("half.parquet")

    assert_one_line_refusal(run("evaluate", checkpoint, "ann.parquet", "--missing", "fail"), "['bob']")
    args = ("half.parquet", "--missing", "fail", "--task", "quiz/a")
    assert_one_line_refusal(run("evaluate", checkpoint, *args), "['bob']", "Leave them out")


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


def test_evaluate_interrupted_says_nothing_of_writing(checkpoint, outcomes, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "read_checkpoint", interrupt)
    result = run("evaluate", checkpoint, outcomes)

    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


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

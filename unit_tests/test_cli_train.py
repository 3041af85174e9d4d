"""The command line from outcomes to a policy: train, what it prints and leaves, and how it ends; and demo."""

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from langchain_rlfocal import training
from langchain_rlfocal.cli.views import train_views
from langchain_rlfocal.evaluation import baselines
from langchain_rlfocal.evaluation.baselines import BASELINES
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.features import load_embedder
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.metrics import FORMULAS


def shown_of(facts):
    """What a command that said these facts as JSON says to people, its lines joined: it is made of them alone."""
    console = Console(width=80, file=StringIO())
    for view in train_views(facts):
        console.print(view)
    return " ".join(console.file.getvalue().split())


def test_train_writes_a_policy_with_its_curve_and_baselines_and_says_what_it_learned_from(
    cli, outcomes, quick_training
):
    """What `--json` prints is one object. The baselines are those of its seed and its teams, without the test rows."""
    options = {"--seed": 3, "--max-team": 1, "--cost-weight": 0.2, "--cost-unit": "tokens", "--diversity-weight": 0.5}
    said = cli.said("train", outcomes, "--out", "made", *(word for pair in options.items() for word in pair))
    policy = RLFocalPolicy.load("made")
    assert (said["policy_id"], said["card"], said["members"]) == (policy.policy_id, policy.card, ["ann", "bob"])
    assert sum(said["queries"].values()) == 300
    config = policy.card["config"]
    assert [config[name.removeprefix("--").replace("-", "_")] for name in options] == list(options.values())
    assert config["max_rounds"] == TrainingConfig().max_rounds
    fitted = baselines_of(policy)
    assert tuple(fitted) == tuple(said["baselines"]) == BASELINES
    assert (fitted["random_team"].learned["size"], fitted["random_team"].learned["seed"]) == (1, 3)
    assert (said["missing_baselines"], said["warnings"], said["cost_unit"]["taken"]) == ([], [], "tokens")
    assert "supervised" not in shown_of(said)
    weights = [point["cost_weight"] for point in policy.card["curve"] if not {"member", "max_team"} & set(point)]
    assert weights == sorted(weights)
    assert all({"score", "mean_calls"} <= set(point) for point in policy.card["curve"])


def test_the_command_line_and_the_api_make_the_same_checkpoint_byte_for_byte_and_another_seed_another(
    cli, gaps, my_embedder, quick_training
):
    """Rows, embedder and baselines included; the command only reads, shows and saves."""
    args = ("--missing", "fail", "--test-ids", "1?*", "--kind", "option", "--embedder", my_embedder, "--max-team", 1)
    for out, seed in (("command", 0), ("other", 1)):
        assert cli.run("train", gaps, "--out", out, "--seed", seed, *args).exit_code == 0
    table = OutcomeTable.read(gaps).relabelled("option")
    learned, chosen, _ = table.grid(table.members, missing="fail", test_ids="1?*").split()
    config = training.TrainingConfig(max_team=1)
    training.train(learned, chosen, config, embedder=load_embedder(my_embedder)).save("api")
    for name in ("weights.safetensors", "checkpoint.json"):
        command, api, other = ((Path(out) / name).read_bytes() for out in ("command", "api", "other"))
        assert command == api != other
    card = RLFocalPolicy.load("api", embedder=load_embedder(my_embedder)).card
    assert card["rows"] == {"task": ["*"], "missing": "fail", "test_ids": "1?*", "kind": "option"}
    assert card["embedder"] == my_embedder


def test_train_for_people_names_members_queries_and_validation_within_80_columns(
    cli, outcomes, quick_training, monkeypatch
):
    """And in one line which baseline is missing, where scikit-learn is not installed."""

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(baselines.importlib, "import_module", absent)
    text = cli.run("train", outcomes, "--out", "made").stdout
    words = ("ann, bob", "train", "test", "0 dropped", "validation", "single best", "calls")
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) <= 80
    text = " ".join(text.split())
    assert text.count("supervised fusion") == 1
    assert "scikit-learn is installed (`pip install 'langchain-rlfocal[evaluation]'`)" in text
    assert "supervised_fusion" not in baselines_of(RLFocalPolicy.load("made"))


def test_train_on_answers_that_nobody_scored_says_what_it_did_and_why_to_doubt_it(cli, outcomes, quick_training):
    """Of two members agreement tells nobody which is right."""
    unscored = [replace(outcome, reward=None, gold=None) for outcome in OutcomeTable.read(outcomes)]
    OutcomeTable.from_outcomes(unscored).write("unscored.parquet")
    text = " ".join(cli.shown("train", "unscored.parquet", "--out", "made").split())
    assert f"nobody scored: {len(unscored):,}. What they are worth was estimated" in text
    assert "Ask a third member, or score more answers." in text
    assert RLFocalPolicy.load("made").card["labels"]["scored"] == 0


def test_train_takes_the_members_tasks_and_test_rows_that_are_named(cli, outcomes, quick_training):
    """Of the queries 0 to 149 of each task, 10 to 19 and 100 to 149 begin with 1 and go on: 60."""
    one = cli.said("train", outcomes, "--out", "made", "--member", "bob", "--task", "quiz/a")
    assert one["members"] == ["bob"]
    assert sum(one["queries"].values()) == 150
    both = cli.said("train", outcomes, "--out", "made", "--task", "quiz/a", "--task", "*/b", "--test-ids", "1?*")
    assert both["queries"]["test"] == 120
    assert both["queries"]["train"] + both["queries"]["validation"] == 180
    assert both["card"]["rows"] == {"task": ["quiz/a", "*/b"], "missing": "mask", "test_ids": "1?*", "kind": None}


@pytest.mark.parametrize(
    ("options", "counts", "words"),
    [
        (("--missing", "drop"), (10, 0), "10 dropped"),
        (("--missing", "fail"), (0, 10), "lack a member's answer, which counts as its failure: 10."),
    ],
)
def test_train_leaves_out_what_a_member_did_not_answer_or_counts_it_as_its_failure(
    cli, gaps, quick_training, *, options, counts, words
):
    """Ten queries lack Bob's answer."""
    said = cli.said("train", gaps, "--out", "made", *options)
    assert (said["queries"]["dropped"], said["missing"]) == counts
    assert sum(said["queries"].values()) == 300
    assert words in shown_of(said)


def test_train_leaves_out_and_counts_queries_with_the_text_of_a_test_row(cli, folder, quiz, quick_training):
    """Query 200 repeats query 0, which is a test row."""
    again = [replace(o, query_id="200") for o in quiz if (o.task, o.query_id) == ("quiz/a", "0")]
    OutcomeTable.from_outcomes([*quiz, *again]).write("again.parquet")
    result = cli.run("train", "again.parquet", "--out", "made", "--test-ids", "0")
    assert "2 test, 1 repeated" in result.stdout
    assert "with the text of a test query" in result.stdout


def test_train_with_the_packaged_embedder_remembers_its_name(cli, outcomes, quick_training):
    pytest.importorskip("wordllama", reason="the embedder's weights: pip install 'langchain-rlfocal[wordllama]'")
    assert cli.run("train", outcomes, "--out", "made", "--embedder", "wordllama").exit_code == 0
    policy = RLFocalPolicy.load("made", embedder=load_embedder("wordllama"))
    assert policy.card["embedder"] == "wordllama"
    assert list(baselines_of(policy)) == list(BASELINES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--member", "eve"], ["eve", "ann, bob"]),
        (["--task", "quiz/*", "--task", "other/*"], ["other/*", "quiz/a"]),
        (["--test-ids", "test*"], ["`test_ids`", "test*"]),
        (["--test-ids", "*"], ["at least 10 queries", "0 and 0"]),
        (["--embedder", "nonsense"], ["nonsense", "package.module:function"]),
        (["--embedder", "no_such_module:function"], ["no_such_module"]),
        (["--task", "quiz/a"], ["none of bob", "Leave them out"]),  # where Bob has no row
    ],
)
def test_train_that_is_refused_leaves_nothing(cli, half, quick_training, options, words):
    cli.assert_refused(cli.run("train", half, "--out", "made", *options), *words)
    assert not Path("made").exists()


def test_train_interrupted_leaves_nothing(cli, outcomes, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    result = cli.run("train", outcomes, "--out", "made")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted: no checkpoint was written.\n"
    assert not Path("made").exists()


def test_demo_hands_its_questions_on(cli, monkeypatch):
    asked = []
    monkeypatch.setattr("langchain_rlfocal.demo.command.run_demo", lambda console, queries: asked.append(queries))
    cli.run("demo", "Is it raining?", "Why?")
    cli.run("demo")
    assert asked == [["Is it raining?", "Why?"], None]


def test_metrics_are_written_beside_the_checkpoint_or_where_it_is_said_and_are_no_part_of_it(
    cli, outcomes, quick_training, mlflow_store
):
    """Two iterations are two lines; the checkpoint is the same two files wherever they go."""
    said = cli.said("train", outcomes, "--out", "made")
    assert said["metrics"] == "made.metrics.jsonl"
    lines = [json.loads(line) for line in Path("made.metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {name for line in lines for name in line} - {"step"} == set(FORMULAS)
    options = ("--metrics", "my/own.jsonl", "--tensorboard", "board", "--mlflow", mlflow_store)
    result = cli.run("train", outcomes, "--out", "other", *options)
    assert result.exit_code == 0, result.output
    assert Path("my/own.jsonl").read_bytes() == Path("made.metrics.jsonl").read_bytes()
    assert not Path("other.metrics.jsonl").exists()
    for name in ("weights.safetensors", "checkpoint.json"):
        assert Path("made", name).read_bytes() == Path("other", name).read_bytes()
    assert {path.name for path in Path("made").iterdir()} == {"weights.safetensors", "checkpoint.json"}
    assert len(list(Path("board").iterdir())) == 1
    with closing(sqlite3.connect(mlflow_store)) as opened:
        ended = opened.execute("select status from runs where name = 'other'").fetchall()
        assert ended == [("FINISHED",)]


def test_what_cannot_be_read_leaves_no_run_in_a_store(cli, folder, mlflow_store):
    options = ("--tensorboard", "board", "--mlflow", mlflow_store)
    cli.assert_refused(cli.run("train", "absent.parquet", "--out", "unread", *options), "absent.parquet")
    with closing(sqlite3.connect(mlflow_store)) as opened:
        assert opened.execute("select status from runs where name = 'unread'").fetchall() == []
    assert not Path("board").exists()


def test_a_logger_without_its_extra_is_refused_before_anything_is_read(cli, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = cli.run("train", "absent.parquet", "--out", "made", "--tensorboard", "board")
    cli.assert_refused(result, "pip install 'langchain-rlfocal[tensorboard]'")


def test_ctrl_c_keeps_the_best_so_far_and_says_how_to_go_on(cli, outcomes, quick_training, monkeypatch):
    """After the first of two iterations. A second time it ends at once and writes nothing."""

    def interrupt(self, progress):
        if progress.metrics or (progress.stage == "baselines" and twice):
            raise KeyboardInterrupt

    monkeypatch.setattr("langchain_rlfocal.training.metrics.JsonLines.__call__", interrupt)
    twice = True
    result = cli.run("train", outcomes, "--out", "made")
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted: no checkpoint was written.\n")
    assert not Path("made").exists()
    twice = False
    result = cli.run("train", outcomes, "--out", "made", "--json")
    assert result.exit_code == 130
    policy = RLFocalPolicy.load("made")
    said = json.loads(result.stdout)
    assert (said["policy_id"], said["interrupted_after"]) == (policy.policy_id, 1)
    assert policy.card["training"]["interrupted_after"] == 1
    assert tuple(baselines_of(policy)) == BASELINES
    last = result.stderr.splitlines()[-1]
    for words in ("Interrupted after 1 of 2 iterations", "made holds the best so far, of iteration 0", "trains anew"):
        assert words in last


def test_what_spending_is_counted_in_is_said_and_one_that_the_rows_do_not_hold_is_refused(cli, folder, quick_training):
    """Nobody has a price of Bob."""
    shares = {"quiz": {"ann": 0.9, "bob": 0.6}}
    make_outcomes(shares, num_queries=60, costs_usd={"ann": 0.1}).write("partly.parquet")
    cli.assert_refused(
        cli.run("train", "partly.parquet", "--out", "made", "--cost-unit", "usd"),
        *("'usd'", "bob (none of", "training rows)", "'calls'"),
    )
    assert not Path("made").exists()
    said = cli.said("train", "partly.parquet", "--out", "made")
    assert (said["cost_unit"]["asked"], said["cost_unit"]["taken"]) == ("auto", "calls")
    assert "unknown of bob" in said["cost_unit"]["reason"]
    assert said["cost_unit"]["reason"] in shown_of(said)


def test_rewards_without_answers_are_routed_and_it_is_said(cli, folder, quick_training):
    """Who is asked second is seen to agree with nobody: at a high cost weight one member is asked, the better one."""
    rows = make_outcomes({"quiz": {"ann": 0.9, "bob": 0.3}}, num_queries=80)
    OutcomeTable.from_outcomes([replace(o, answer=None, response=None, gold=None) for o in rows]).write("bare.jsonl")
    assert "No row holds an answer" in cli.shown("train", "bare.jsonl", "--out", "made")
    report = cli.said("evaluate", "made", "bare.jsonl", "--cost-weight", 5)
    assert report["policy"]["mean_calls"] == 1
    assert report["policy"]["score"] == report["baselines"]["single_best"]["score"]


def test_blank_responses_that_are_worth_something_are_doubted(cli, folder, quick_training):
    """Of 80 queries each, of which a test part is not read, Ann and Bob are right on 72 and 24 and silent; failures are worth 0."""
    rows = [*make_outcomes({"quiz": {"ann": 0.9, "bob": 0.3}}, num_queries=80)]
    blank = [replace(o, answer=None, response="", gold=None) for o in rows]
    OutcomeTable.from_outcomes(blank).write("blank.jsonl")
    (doubt,) = cli.said("train", "blank.jsonl", "--out", "made")["warnings"]
    assert "Blank responses that are worth something" in doubt
    assert "asks on at any cost weight" in doubt
    failed = [replace(o, response="", answer=None) if not o.reward else o for o in rows]
    OutcomeTable.from_outcomes(failed).write("failed.jsonl")
    assert cli.said("train", "failed.jsonl", "--out", "made")["warnings"] == []

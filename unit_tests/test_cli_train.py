"""The command line from outcomes to a policy: train, what it prints and leaves, and how it ends; and demo."""

from dataclasses import replace
from pathlib import Path

import pytest

from langchain_rlfocal import training
from langchain_rlfocal.evaluation import baselines
from langchain_rlfocal.evaluation.baselines import BASELINES
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.features import load_embedder
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.training import TrainingConfig


def test_train_writes_a_policy_and_says_what_it_learned_from(cli, outcomes, quick_training):
    """What `--json` prints is one object, and nothing else is on stdout."""
    options = {"--seed": 3, "--max-team": 2, "--cost-weight": 0.2, "--cost-unit": "tokens", "--diversity-weight": 0.5}
    said = cli.said("train", outcomes, "--out", "made", *(word for pair in options.items() for word in pair))

    policy = RLFocalPolicy.load("made")
    assert said["policy_id"] == policy.policy_id
    assert said["members"] == ["ann", "bob"]
    assert sum(said["queries"].values()) == 300
    assert said["card"] == policy.card
    config = policy.card["config"]
    assert [config[name.removeprefix("--").replace("-", "_")] for name in options] == list(options.values())
    assert config["max_rounds"] == TrainingConfig().max_rounds


def test_train_stores_the_curve_and_the_baselines(cli, outcomes, quick_training):
    """The baselines are those of its seed and its teams, fitted without the test rows."""
    said = cli.said("train", outcomes, "--out", "made", "--max-team", 1, "--seed", 5)

    policy = RLFocalPolicy.load("made")
    fitted = baselines_of(policy)
    assert tuple(fitted) == tuple(said["baselines"]) == BASELINES
    assert (fitted["random_team"].learned["size"], fitted["random_team"].learned["seed"]) == (1, 5)
    assert said["missing_baselines"] == []
    weights = [point["cost_weight"] for point in policy.card["curve"]]
    assert weights == sorted(weights)
    assert all({"score", "mean_calls"} <= set(point) for point in policy.card["curve"])


def test_the_same_seed_and_outcomes_give_the_same_checkpoint_byte_for_byte(cli, outcomes, quick_training):
    for out, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert cli.run("train", outcomes, "--out", out, "--seed", seed).exit_code == 0

    for name in ("weights.safetensors", "checkpoint.json"):
        one, same, other = ((Path(out) / name).read_bytes() for out in ("one", "same", "other"))
        assert one == same != other


def test_the_command_line_and_the_api_make_the_same_checkpoint_byte_for_byte(cli, gaps, my_embedder, quick_training):
    """Rows, embedder and baselines included; the command only reads, shows and saves."""
    args = ("--missing", "fail", "--test-ids", "1?*", "--kind", "option", "--embedder", my_embedder, "--max-team", 1)
    assert cli.run("train", gaps, "--out", "command", *args).exit_code == 0
    table = OutcomeTable.read(gaps).relabelled("option")
    learned, chosen, _ = table.grid(table.members, missing="fail", test_ids="1?*").split()
    config = training.TrainingConfig(max_team=1)
    training.train(learned, chosen, config, embedder=load_embedder(my_embedder)).save("api")

    for name in ("weights.safetensors", "checkpoint.json"):
        assert (Path("command") / name).read_bytes() == (Path("api") / name).read_bytes()
    card = RLFocalPolicy.load("api", embedder=load_embedder(my_embedder)).card
    assert card["rows"] == {"task": ["*"], "missing": "fail", "test_ids": "1?*", "kind": "option"}


def test_train_without_scikit_learn_says_in_one_line_which_baseline_is_missing(
    cli, outcomes, quick_training, monkeypatch
):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(baselines.importlib, "import_module", absent)
    result = cli.run("train", outcomes, "--out", "made")

    text = " ".join(result.stdout.split())
    assert result.exit_code == 0, result.output
    assert text.count("supervised fusion") == 1
    assert "scikit-learn is installed (`pip install 'langchain-rlfocal[evaluation]'`)" in text
    assert "supervised_fusion" not in baselines_of(RLFocalPolicy.load("made"))


def test_train_for_people_names_members_queries_and_validation_within_80_columns(cli, outcomes, quick_training):
    text = cli.run("train", outcomes, "--out", "made").stdout

    assert all(
        word in text for word in ("ann, bob", "train", "test", "0 dropped", "validation", "single best", "calls")
    )
    assert "supervised" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_train_takes_the_members_and_tasks_that_are_named(cli, outcomes, quick_training):
    one = cli.said("train", outcomes, "--out", "made", "--member", "bob", "--task", "quiz/a")
    both = cli.said("train", outcomes, "--out", "made", "--task", "quiz/a", "--task", "*/b")

    assert one["members"] == ["bob"]
    assert sum(one["queries"].values()) == 150
    assert sum(both["queries"].values()) == 300
    assert both["card"]["rows"] == {"task": ["quiz/a", "*/b"], "missing": "drop", "test_ids": None, "kind": None}


def test_train_leaves_out_what_a_member_did_not_answer_or_counts_it_as_its_failure(cli, gaps, quick_training):
    """Ten queries lack Bob's answer."""
    dropped = cli.said("train", gaps, "--out", "made")
    failed = cli.said("train", gaps, "--out", "made", "--missing", "fail")

    assert (dropped["queries"]["dropped"], dropped["missing"]) == (10, 0)
    assert (failed["queries"]["dropped"], failed["missing"]) == (0, 10)
    assert sum(dropped["queries"].values()) == sum(failed["queries"].values()) == 300
    assert "10 dropped" in cli.run("train", gaps, "--out", "made").stdout
    assert (
        "lack a member's answer, which counts as its failure: 10."
        in cli.run("train", gaps, "--out", "made", "--missing", "fail").stdout
    )


def test_train_keeps_the_test_rows_that_the_file_sets_apart(cli, outcomes, quick_training):
    """Of the queries 0 to 149 of each task, 10 to 19 and 100 to 149 begin with 1 and go on: 60."""
    said = cli.said("train", outcomes, "--out", "made", "--test-ids", "1?*")

    assert said["queries"]["test"] == 120
    assert said["queries"]["train"] + said["queries"]["validation"] == 180


def test_train_leaves_out_and_counts_queries_with_the_text_of_a_test_row(cli, folder, quiz, quick_training):
    """Query 200 repeats query 0, which is a test row."""
    again = [replace(o, query_id="200") for o in quiz if (o.task, o.query_id) == ("quiz/a", "0")]
    OutcomeTable.from_outcomes([*quiz, *again]).write("again.parquet")
    result = cli.run("train", "again.parquet", "--out", "made", "--test-ids", "0")

    assert "2 test, 1 repeated" in result.stdout
    assert "with the text of a test query" in result.stdout


@pytest.mark.parametrize("name", ["my_embedders:lengths", "wordllama"])
def test_train_with_an_embedder_remembers_its_name(cli, outcomes, my_embedder, quick_training, name):
    if name == "wordllama":
        pytest.importorskip("wordllama", reason="the embedder's weights: pip install 'langchain-rlfocal[wordllama]'")
    result = cli.run("train", outcomes, "--out", "made", "--embedder", name)

    assert result.exit_code == 0, result.output
    policy = RLFocalPolicy.load("made", embedder=load_embedder(name))
    assert policy.card["embedder"] == name
    assert list(baselines_of(policy)) == list(BASELINES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--member", "eve"], ["eve", "ann, bob"]),
        (["--task", "other/*"], ["other/*", "quiz/a"]),
        (["--task", "quiz/*", "--task", "other/*"], ["other/*"]),
        (["--test-ids", "test*"], ["`test_ids`", "test*"]),
        (["--test-ids", "*"], ["at least 10 queries", "0 and 0"]),
        (["--missing", "fail", "--member", "ann", "--member", "eve"], ["eve"]),
        (["--embedder", "nonsense"], ["nonsense", "package.module:function"]),
        (["--embedder", "no_such_module:function"], ["no_such_module"]),
    ],
)
def test_train_that_is_refused_leaves_nothing(cli, outcomes, quick_training, options, words):
    cli.assert_refused(cli.run("train", outcomes, "--out", "made", *options), *words)
    assert not Path("made").exists()


def test_train_refuses_to_count_as_failures_the_queries_of_a_member_without_rows(cli, half, quick_training):
    """Bob has rows, but none on the first task."""
    result = cli.run("train", half, "--out", "made", "--missing", "fail", "--task", "quiz/a")

    cli.assert_refused(result, "['bob']", "Leave them out")


def test_train_interrupted_leaves_nothing(cli, outcomes, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    result = cli.run("train", outcomes, "--out", "made")

    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted: nothing was written.\n"
    assert not Path("made").exists()


def test_demo_hands_its_questions_on(cli, monkeypatch):
    asked = []
    monkeypatch.setattr("langchain_rlfocal.demo.command.run_demo", lambda console, queries: asked.append(queries))

    cli.run("demo", "Is it raining?", "Why?")
    cli.run("demo")

    assert asked == [["Is it raining?", "Why?"], None]

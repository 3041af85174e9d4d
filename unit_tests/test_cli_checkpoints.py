"""What evaluate takes from a checkpoint: its card, curve, baselines and embedder, none of them on trust."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal import training
from langchain_rlfocal.cli import app, evaluation
from langchain_rlfocal.evaluation.baselines import BASELINES, fit_baselines
from langchain_rlfocal.evaluation.report import with_baselines
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig

EMBEDDERS = """
class Lengths:
    def embed_documents(self, texts):
        return [[float(len(text)), 1.0] for text in texts]

def lengths():
    return Lengths()
"""


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
    """A working folder of its own, and modules that are found in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_embedders", None)


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
def bare(table):
    """A policy as the Python API makes it: without baselines."""
    learned, chosen, _ = table.grid(table.members).split()
    return training.train(learned, chosen, TrainingConfig(num_iterations=2, batch_size=32, max_team=2))


@pytest.fixture(scope="module")
def policy(table, bare):
    """The same with baselines."""
    learned, chosen, _ = table.grid(table.members).split()
    return with_baselines(bare, fit_baselines(learned, chosen, max_team=2))


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


def with_card(policy, **changes):
    """The same policy, whose card says other things; None takes one out."""
    card = {name: value for name, value in {**policy.card, **changes}.items() if value is not None}
    return RLFocalPolicy(replace(policy.parts, card=card))


def said_by(*args):
    result = run("evaluate", *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shown_by(*args):
    """What is printed for people, its lines joined."""
    result = run("evaluate", *args)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_evaluate_takes_the_cost_weight_of_a_number_of_calls_from_the_curve(folder, policy, outcomes):
    """From 2 calls at 0 to 1 call at 0.4: 1.5 calls stand half-way, at 0.2."""
    curve = [{"cost_weight": weight, "mean_calls": calls} for weight, calls in ((0.0, 2.0), (0.4, 1.0))]
    with_card(policy, curve=curve).save("curved")

    said = said_by("curved", outcomes, "--target-calls", 1.5)
    assert (said["cost_weight"], said["target_calls"]) == (pytest.approx(0.2), 1.5)
    assert "cost weight is 0.2, taken for 1.5 calls a query" in shown_by("curved", outcomes, "--target-calls", 1.5)
    assert said["policy"] == said_by("curved", outcomes, "--cost-weight", 0.2)["policy"]


def test_evaluate_without_stored_baselines_fits_them_on_the_other_rows_or_leaves_them_out(folder, bare, outcomes):
    """One query stands in one split, so there is nothing to fit on."""
    bare.save("bare")
    make_outcomes({"quiz/a": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.parquet")
    fitted, none = said_by("bare", outcomes), said_by("bare", "one.parquet", "--split", "all")

    assert (fitted["baselines_from"], none["baselines_from"]) == ("outcomes", "nowhere")
    assert tuple(fitted["baselines"]) == BASELINES
    assert list(none["baselines"]) == ["random_team", "plurality", "oracle"]
    assert "best_fixed_team" in none["missing_baselines"]
    assert "holds no baselines: they were fitted now" in shown_by("bare", outcomes)
    assert "some are left out" in shown_by("bare", "one.parquet", "--split", "all")


def test_evaluate_says_which_baseline_the_training_could_not_fit(folder, policy, bare, outcomes, table):
    learned, chosen, _ = table.grid(table.members).split()
    fitted = fit_baselines(learned, chosen, max_team=2)
    del fitted["supervised_fusion"]
    with_baselines(bare, fitted).save("poor")

    assert "langchain-rlfocal[evaluation]" in shown_by("poor", outcomes)
    assert said_by("poor", outcomes)["missing_baselines"] == ["supervised_fusion"]


def test_evaluate_scores_the_test_rows_that_the_training_set_apart(folder, policy, outcomes, unseen):
    """In each task 15 of 150 names end in 3, as many in 6 and in 9. Where no name matches, it says what to do."""
    with_card(policy, rows={"test_ids": "*[369]"}).save("apart")

    assert said_by("apart", outcomes)["policy"]["n"] == 90
    assert said_by("apart", outcomes, "--test-ids", "*3")["policy"]["n"] == 30
    assert "know all but" not in shown_by("apart", outcomes, "--test-ids", "*[369]")
    with_card(policy, rows={"test_ids": "test*"}).save("apart")
    assert_one_line_refusal(run("evaluate", "apart", unseen), "`--test-ids test*`", "`--split all`")
    assert said_by("apart", unseen, "--split", "all")["policy"]["n"] == 40


def test_evaluate_loads_by_itself_only_the_embedder_that_it_knows(folder, outcomes, quick_training):
    """A module that a checkpoint names is imported only where the caller names it too."""
    Path("my_embedders.py").write_text(EMBEDDERS, encoding="utf-8")
    assert run("train", outcomes, "--out", "embedded", "--embedder", "my_embedders:lengths").exit_code == 0
    sys.modules.pop("my_embedders")

    assert_one_line_refusal(run("evaluate", "embedded", outcomes), "my_embedders:lengths", "not imported unasked")
    assert "my_embedders" not in sys.modules
    assert said_by("embedded", outcomes, "--embedder", "my_embedders:lengths")["policy"]["n"] > 0
    refused = run("evaluate", "embedded", outcomes, "--embedder", "my_embedders:other")
    assert_one_line_refusal(refused, "'my_embedders:lengths'", "'my_embedders:other'")


def test_evaluate_loads_the_packaged_embedder_that_the_checkpoint_names(folder, policy, outcomes, monkeypatch):
    """Which is refused here, since these weights were trained without one."""
    asked = []
    with_card(policy, embedder="wordllama").save("named")
    monkeypatch.setattr(evaluation, "open_embedder", asked.append)

    assert said_by("named", outcomes)["policy"]["n"] > 0
    assert asked == ["wordllama"]


def test_evaluate_refuses_what_is_no_checkpoint_and_what_no_table_holds(checkpoint, outcomes):
    assert_one_line_refusal(run("evaluate", "absent", outcomes), "absent", "rlfocal train --out")
    assert_one_line_refusal(run("evaluate", checkpoint, "absent.parquet"), "absent.parquet")
    Path("damaged").mkdir()
    Path("damaged/checkpoint.json").write_text("{", encoding="utf-8")
    assert_one_line_refusal(run("evaluate", "damaged", outcomes), "damaged")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([1, 2], ["`config`", "JSON object", "[1, 2]"]),
        ("text", ["`config`", "JSON object", "'text'"]),
        ({"max_team": "x"}, ["`max_team`", "whole number, at least 1", "'x'", "--max-team"]),
        ({"max_team": -1}, ["`max_team`", "-1"]),
        ({"max_team": True}, ["`max_team`", "True"]),
        ({"max_team": None}, ["does not say", "--max-team"]),
        ({"max_rounds": 0}, ["`max_rounds`", "got 0", "--max-rounds"]),
        ({"max_rounds": 1.5}, ["`max_rounds`", "1.5"]),
        ({"cost_weight": float("inf")}, ["`cost_weight`", "finite number, at least 0", "inf", "--cost-weight"]),
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


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (None, ["must hold a curve"]),
        ([], ["must hold a curve"]),
        (3, ["must hold a curve"]),
        ([{"cost_weight": 0.1}], ["must hold a curve"]),
        ([{"cost_weight": -1, "mean_calls": 1}], ["`curve`", "from 0", "-1", "--cost-weight"]),
    ],
)
def test_evaluate_refuses_a_target_without_a_curve_or_with_one_that_a_checkpoint_made_up(
    folder, policy, outcomes, curve, words
):
    with_card(policy, curve=curve).save("curved")

    assert_one_line_refusal(run("evaluate", "curved", outcomes, "--target-calls", 2), *words)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"embedder": 7}, ["embedder 7", "--embedder"]),
        ({"embedder": "os:getcwd"}, ["'os:getcwd'", "not imported unasked"]),
        ({"rows": 7}, ["`rows`", "7"]),
        ({"rows": {"test_ids": 7}}, ["`test_ids`", "7", "--test-ids"]),
    ],
)
def test_evaluate_refuses_what_a_checkpoint_made_up_of_its_rows_and_embedder(folder, policy, outcomes, card, words):
    with_card(policy, **card).save("made_up")

    assert_one_line_refusal(run("evaluate", "made_up", outcomes), *words)

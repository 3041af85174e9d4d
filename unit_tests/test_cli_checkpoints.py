"""What evaluate takes from a checkpoint: its card, curve, baselines and embedder, none of them on trust."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from langchain_rlfocal.cli import commands
from langchain_rlfocal.evaluation.baselines import BASELINES, dump_baselines
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes


def with_card(policy, **changes):
    """The same policy, whose card says other things; None takes one out."""
    card = {name: value for name, value in {**policy.card, **changes}.items() if value is not None}
    return RLFocalPolicy(replace(policy.parts, card=card))


def test_evaluate_takes_the_cost_weight_of_a_number_of_calls_from_the_curve(cli, quiz_policy, outcomes):
    """From 2 calls at 0 to 1 call at 0.4: 1.5 calls stand half-way, at 0.2."""
    curve = [{"cost_weight": weight, "mean_calls": calls} for weight, calls in ((0.0, 2.0), (0.4, 1.0))]
    with_card(quiz_policy, curve=curve).save("curved")

    said = cli.said("evaluate", "curved", outcomes, "--target-calls", 1.5)
    assert (said["cost_weight"], said["target_calls"]) == (pytest.approx(0.2), 1.5)
    assert "cost weight is 0.2, taken for 1.5 calls a query" in cli.shown(
        "evaluate", "curved", outcomes, "--target-calls", 1.5
    )
    assert said["policy"] == cli.said("evaluate", "curved", outcomes, "--cost-weight", 0.2)["policy"]


def test_evaluate_without_stored_baselines_fits_them_on_the_other_rows_or_leaves_them_out(cli, bare_policy, outcomes):
    """One query stands in one split, so there is nothing to fit on."""
    bare_policy.save("bare")
    make_outcomes({"quiz/a": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.parquet")
    fitted, none = cli.said("evaluate", "bare", outcomes), cli.said("evaluate", "bare", "one.parquet", "--split", "all")

    assert (fitted["baselines_from"], none["baselines_from"]) == ("outcomes", "nowhere")
    assert tuple(fitted["baselines"]) == BASELINES
    assert list(none["baselines"]) == ["random_team", "plurality", "oracle"]
    assert "best_fixed_team" in none["missing_baselines"]
    assert "holds no baselines: they were fitted now" in cli.shown("evaluate", "bare", outcomes)
    assert "some are left out" in cli.shown("evaluate", "bare", "one.parquet", "--split", "all")


@pytest.mark.parametrize("split", ["train", "validation", "all"])
def test_evaluate_never_fits_baselines_on_rows_that_it_scores(cli, bare_policy, outcomes, split):
    bare_policy.save("bare")
    said = cli.said("evaluate", "bare", outcomes, "--split", split)
    assert (said["baselines_from"], list(said["baselines"])) == ("nowhere", ["random_team", "plurality", "oracle"])


def test_evaluate_says_which_baseline_the_training_could_not_fit(cli, quiz_policy, outcomes):
    fitted = baselines_of(quiz_policy)
    del fitted["supervised_fusion"]
    arrays, facts = dump_baselines(fitted)
    RLFocalPolicy(replace(quiz_policy.parts, baselines=arrays, baseline_facts=facts)).save("poor")

    assert "langchain-rlfocal[evaluation]" in cli.shown("evaluate", "poor", outcomes)
    assert cli.said("evaluate", "poor", outcomes)["missing_baselines"] == ["supervised_fusion"]


def test_evaluate_scores_the_test_rows_that_the_training_set_apart(cli, quiz_policy, outcomes, unseen):
    """In each task 15 of 150 names end in 3, as many in 6 and in 9. Where no name matches, it says what to do."""
    with_card(quiz_policy, rows={"test_ids": "*[369]"}).save("apart")

    assert cli.said("evaluate", "apart", outcomes)["policy"]["n"] == 90
    assert cli.said("evaluate", "apart", outcomes, "--test-ids", "*3")["policy"]["n"] == 30
    assert "know all but" not in cli.shown("evaluate", "apart", outcomes, "--test-ids", "*[369]")
    with_card(quiz_policy, rows={"test_ids": "test*"}).save("apart")
    cli.assert_refused(cli.run("evaluate", "apart", unseen), "`--test-ids test*`", "`--split all`")
    assert cli.said("evaluate", "apart", unseen, "--split", "all")["policy"]["n"] == 40


def test_evaluate_loads_by_itself_only_the_embedder_that_it_knows(cli, outcomes, my_embedder, quick_training):
    """A module that a checkpoint names is imported only where the caller names it too."""
    assert cli.run("train", outcomes, "--out", "embedded", "--embedder", my_embedder).exit_code == 0
    sys.modules.pop("my_embedders")

    cli.assert_refused(cli.run("evaluate", "embedded", outcomes), my_embedder, "not imported unasked")
    assert "my_embedders" not in sys.modules
    assert cli.said("evaluate", "embedded", outcomes, "--embedder", my_embedder)["policy"]["n"] > 0
    refused = cli.run("evaluate", "embedded", outcomes, "--embedder", "my_embedders:other")
    cli.assert_refused(refused, f"'{my_embedder}'", "'my_embedders:other'")


def test_evaluate_loads_the_packaged_embedder_that_the_checkpoint_names(cli, quiz_policy, outcomes, monkeypatch):
    """Which is refused here, since these weights were trained without one."""
    asked = []
    with_card(quiz_policy, embedder="wordllama").save("named")
    monkeypatch.setattr(commands, "_open_embedder", asked.append)

    assert cli.said("evaluate", "named", outcomes)["policy"]["n"] > 0
    assert asked == ["wordllama"]


def test_evaluate_refuses_what_is_no_checkpoint_and_what_no_table_holds(cli, checkpoint, outcomes):
    cli.assert_refused(cli.run("evaluate", "absent", outcomes), "absent", "rlfocal train --out")
    cli.assert_refused(cli.run("evaluate", checkpoint, "absent.parquet"), "absent.parquet")
    Path("damaged").mkdir()
    Path("damaged/checkpoint.json").write_text("{", encoding="utf-8")
    cli.assert_refused(cli.run("evaluate", "damaged", outcomes), "damaged")


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
        ({"cost_weight": float("inf")}, ["checkpoint.json", "finite numbers"]),
        ({"cost_weight": -0.1}, ["`cost_weight`", "-0.1"]),
        ({"cost_weight": [0.1]}, ["`cost_weight`", "[0.1]"]),
    ],
)
def test_evaluate_refuses_limits_that_a_checkpoint_made_up(cli, checkpoint, outcomes, config, words):
    path = Path(checkpoint) / "checkpoint.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    card = facts["card"]
    card["config"] = {**card["config"], **config} if isinstance(config, dict) else config
    path.write_text(json.dumps(facts), encoding="utf-8")

    cli.assert_refused(cli.run("evaluate", checkpoint, outcomes), *words)


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (None, ["must hold a curve"]),
        ([], ["must hold a curve"]),
        (3, ["must hold a curve"]),
        ([{"cost_weight": 0.1}], ["must hold a curve"]),
        ([{"cost_weight": -1, "mean_calls": 1}], ["`curve`", "at least 0", "-1", "--cost-weight"]),
    ],
)
def test_evaluate_refuses_a_target_without_a_curve_or_with_one_that_a_checkpoint_made_up(
    cli, quiz_policy, outcomes, curve, words
):
    with_card(quiz_policy, curve=curve).save("curved")

    cli.assert_refused(cli.run("evaluate", "curved", outcomes, "--target-calls", 2), *words)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"embedder": 7}, ["embedder 7", "--embedder"]),
        ({"embedder": "os:getcwd"}, ["'os:getcwd'", "not imported unasked"]),
        ({"rows": 7}, ["`rows`", "7"]),
        ({"rows": {"test_ids": 7}}, ["`test_ids`", "7", "--test-ids"]),
    ],
)
def test_evaluate_refuses_what_a_checkpoint_made_up_of_its_rows_and_embedder(cli, quiz_policy, outcomes, card, words):
    with_card(quiz_policy, **card).save("made_up")

    cli.assert_refused(cli.run("evaluate", "made_up", outcomes), *words)

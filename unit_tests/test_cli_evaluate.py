"""`rlfocal evaluate`: what it counts, prints and refuses, and what it takes from a checkpoint, none of it on trust."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from langchain_rlfocal.cli import options
from langchain_rlfocal.evaluation import rivals
from langchain_rlfocal.evaluation.baselines import BASELINES, dump_baselines
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes


@pytest.fixture(autouse=True)
def _few_points(monkeypatch):
    """Frontiers of four points and few resamples: what they say is tested with the rivals, how it is printed here."""
    monkeypatch.setattr(rivals, "COST_WEIGHTS", (0.0, 0.01, 1.0, 1000.0))
    monkeypatch.setattr(rivals, "RESAMPLES", rivals._BLOCK)


def test_evaluate_prints_the_policy_beside_the_baselines_within_the_terminal(cli, checkpoint, outcomes, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = cli.run("evaluate", checkpoint, outcomes)
    assert result.exit_code == 0, result.stderr
    first = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    for name in ("policy", "single best", "plurality", "best fixed team", "oracle", "quiz/a", "mean of tasks"):
        assert name in first
    assert all(name.split("_")[0] in result.stdout for name in BASELINES)
    assert "95 %" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_evaluate_prints_one_json_object_with_all_figures_of_policy_and_baselines(cli, checkpoint, outcomes):
    """Of the test rows, with the limits of the training."""
    said = cli.said("evaluate", checkpoint, outcomes)
    figures = {"score", "ci95", "macro", "mean_calls", "mean_team", "cost_usd", "tokens", "latency_s", "n", "basis"}
    assert set(said["policy"]) == {*figures, "mean_rounds", "calibration_error"}
    assert tuple(said["baselines"]) == BASELINES
    assert all(set(baseline) == figures for baseline in said["baselines"].values())
    assert (said["missing_baselines"], said["baselines_from"]) == ([], "checkpoint")
    assert (said["dropped"], said["missing"], said["repeated"]) == (0, 0, 0)
    config = RLFocalPolicy.load(checkpoint).card["config"]
    limits = ("max_team", "max_rounds", "cost_weight")
    assert [said[name] for name in limits] == [config[name] for name in limits]
    assert said["split"] == "test"
    assert said["policy"]["n"] < 300


def test_evaluate_takes_other_limits_and_rows_where_it_is_told_to(cli, checkpoint, outcomes):
    said = cli.said("evaluate", checkpoint, outcomes, "--split", "all", "--max-team", 1, "--cost-weight", 0.5)
    assert (said["split"], said["policy"]["n"], said["max_team"], said["cost_weight"]) == ("all", 300, 1, 0.5)
    assert said["policy"]["mean_calls"] == 1.0


def test_evaluate_compares_on_outcomes_never_seen_with_the_baselines_of_the_checkpoint(cli, checkpoint, unseen):
    """Fitted on the very rows the single best would be Ann, always right; of the training it is whoever was best there."""
    said = cli.said("evaluate", checkpoint, unseen, "--split", "all")
    single = {"ann": 1.0, "bob": 0.0}[RLFocalPolicy.load(checkpoint).card["validation"]["single_best"]]
    assert said["policy"]["n"] == 40
    assert said["baselines"]["single_best"]["score"] == single
    assert said["baselines"]["oracle"]["score"] == 1.0
    assert said["baselines_from"] == "checkpoint"


def test_evaluate_gives_the_single_best_member_what_its_rows_say(cli, checkpoint, outcomes):
    """On one task one is right 0.9 of the time, the other 0.3, in all three splits together."""
    said = cli.said("evaluate", checkpoint, outcomes, "--task", "quiz/a", "--split", "all")
    single = {"ann": 0.9, "bob": 0.3}[RLFocalPolicy.load(checkpoint).card["validation"]["single_best"]]
    assert said["baselines"]["single_best"]["score"] == pytest.approx(single)
    assert list(said["per_task"]) == ["quiz/a"]
    assert "mean of tasks" not in cli.shown("evaluate", checkpoint, outcomes, "--task", "quiz/a"), "of one task"
    both = cli.said("evaluate", checkpoint, outcomes, "--task", "*/a", "--task", "*/b")
    assert list(both["per_task"]) == ["quiz/a", "quiz/b"]


@pytest.mark.parametrize(
    ("options", "counts", "words"),
    [
        (("--missing", "drop"), (290, 10, 0), "left out because a member did not answer them: 10."),
        (("--missing", "fail"), (300, 0, 10), "lack a member's answer, which counts as its failure: 10."),
    ],
)
def test_evaluate_counts_what_a_member_did_not_answer(cli, checkpoint, gaps, *, options, counts, words):
    """Bob did not answer ten queries: they are left out, or count as his failure; both are said."""
    args = ("evaluate", checkpoint, gaps, "--split", "all", *options)
    said = cli.said(*args)
    assert (said["policy"]["n"], said["dropped"], said["missing"]) == counts
    assert words in cli.shown(*args)


def test_evaluate_keeps_queries_that_not_every_member_was_asked_and_says_on_how_many_each_figure_stands(
    cli, checkpoint, gaps
):
    """All 300, but ten for whom always asks Bob; a vote of everyone is one of everyone on record."""
    args = ("evaluate", checkpoint, gaps, "--split", "all")
    said = cli.said(*args)
    assert (said["queries"], said["dropped"], said["missing"], said["missing_is"]) == (300, 0, 10, "mask")
    assert 290 <= said["policy"]["n"] <= 300
    counts = {name: figures["n"] for name, figures in said["baselines"].items()}
    best = RLFocalPolicy.load(checkpoint).card["validation"]["single_best"]
    assert counts["single_best"] == {"ann": 300, "bob": 290}[best]
    assert counts["plurality"] == counts["oracle"] == 300
    assert counts["random_team"] == 290, "of two of two"
    assert said["differences"]["random_team"]["n"] == 290
    assert said["policy"]["basis"] == "rows"
    assert "biased" in said["bias"]
    shown = cli.shown(*args)
    assert said["bias"] in shown
    assert " n score " in shown


@pytest.mark.parametrize(
    ("options", "knows_rows", "larger_teams"),
    [
        ((), False, False),
        (("--split", "all"), True, False),
        (("--test-ids", "1*"), True, False),
        (("--max-team", 1), False, True),
        (("--max-team", 7), False, False),  # there are two members
    ],
)
def test_evaluate_warns_where_rows_are_known_or_baselines_ask_more(
    cli, checkpoint, outcomes, *, options, knows_rows, larger_teams
):
    text = cli.shown("evaluate", checkpoint, outcomes, *options)
    assert ("policy and baselines know all but the training's test rows" in text) == knows_rows
    assert ("were fitted for 2 members at most" in text) == larger_teams


def test_evaluate_can_hide_the_task_labels_from_the_policy(cli, checkpoint, outcomes, monkeypatch):
    """The figures of each task are still there; with the option the policy is shown no label, without it all."""
    seen = []
    describe = RLFocalPolicy.describe

    def spy(self, queries, tasks, members=None):
        seen.append(set(tasks))
        return describe(self, queries, tasks, members)

    monkeypatch.setattr(RLFocalPolicy, "describe", spy)
    hidden, shown = cli.said("evaluate", checkpoint, outcomes, "--no-task"), cli.said("evaluate", checkpoint, outcomes)
    half = len(seen) // 2
    assert seen == [{None}] * half + [{"quiz/a", "quiz/b"}] * half
    assert (hidden["task_labels"], shown["task_labels"]) == (False, True)
    assert list(hidden["per_task"]) == list(shown["per_task"]) == ["quiz/a", "quiz/b"]
    assert "labels were hidden" in cli.shown("evaluate", checkpoint, outcomes, "--no-task")


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
def test_evaluate_refuses_bad_options_in_one_line(cli, checkpoint, outcomes, options, words):
    if "wordllama" in options:
        pytest.importorskip("wordllama", reason="the embedder's weights: pip install 'langchain-rlfocal[wordllama]'")
    cli.assert_refused(cli.run("evaluate", checkpoint, outcomes, *options), *words)


def test_evaluate_refuses_what_is_no_checkpoint_and_what_no_table_holds(cli, checkpoint, quiz, outcomes, half):
    """Bob has no row at all, or none on the task that is asked for; one query is in one split, and the others are empty."""
    cli.assert_refused(cli.run("evaluate", "absent", outcomes), "absent", "rlfocal train --out")
    cli.assert_refused(cli.run("evaluate", checkpoint, "absent.parquet"), "absent.parquet")
    Path("damaged").mkdir()
    Path("damaged/checkpoint.json").write_text("{", encoding="utf-8")
    cli.assert_refused(cli.run("evaluate", "damaged", outcomes), "damaged")
    OutcomeTable.from_outcomes([o for o in quiz if o.model == "ann"]).write("ann.parquet")
    cli.assert_refused(cli.run("evaluate", checkpoint, "ann.parquet"), "bob")
    for missing in ("fail", "mask"):
        args = (half, "--missing", missing, "--task", "quiz/a")
        cli.assert_refused(cli.run("evaluate", checkpoint, *args), "none of bob", "Leave them out")
    make_outcomes({"quiz": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.jsonl")
    ran = [cli.run("evaluate", checkpoint, "one.jsonl", "--split", each) for each in ("train", "validation", "test")]
    empty = [result for result in ran if result.exit_code]
    assert len(empty) == 2
    for result in empty:
        cli.assert_refused(result, "at least one query")


def test_evaluate_interrupted_says_nothing_of_writing(cli, checkpoint, outcomes, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("langchain_rlfocal.policies.checkpoint.read_checkpoint", interrupt)
    result = cli.run("evaluate", checkpoint, outcomes)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def test_names_of_tasks_and_members_neither_style_nor_steer_the_terminal(cli, folder, quick_training):
    """Markup in a name is shown as it is written; an escape sequence loses its escape."""
    tasks, members = ("a[/b]", "[red]c\x1b[2J"), {"[bold]ann[/x]": 0.9, "bob\x1b[2J": 0.3}
    make_outcomes(dict.fromkeys(tasks, members), num_queries=100).write("odd.jsonl")
    results = [cli.run("train", "odd.jsonl", "--out", "odd"), cli.run("evaluate", "odd", "odd.jsonl")]
    assert [result.exit_code for result in results] == [0, 0], results
    assert "[bold]ann[/x], bob [2J" in results[0].stdout
    assert "a[/b]" in results[1].stdout
    assert "[red]c [2J" in results[1].stdout
    assert not any("\x1b" in result.stdout for result in results)


# ---- what a checkpoint says


def with_card(policy, **changes):
    """The same policy, whose card says other things; None takes one out."""
    card = {name: value for name, value in {**policy.card, **changes}.items() if value is not None}
    return RLFocalPolicy(replace(policy.parts, card=card))


def test_evaluate_keeps_a_target_and_says_what_was_taken(cli, checkpoint, outcomes):
    """One call on average asks one, of every query."""
    args = ("evaluate", checkpoint, outcomes, "--target-calls", 1)
    said = cli.said(*args)
    assert (said["cost_weight"], said["target"], said["policy"]["mean_calls"]) == (None, {"target_calls": 1.0}, 1.0)
    assert "Its target is 1 call a query. It took 1.000 calls." in cli.shown(*args)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--target-calls", 2, "--target-tokens", 9],
            ["One target can be kept", "`target_calls=2`", "Leave all but one out"],
        ),
        (["--target-usd", 2, "--cost-weight", 0.1], ["`--cost-weight` and `--target-usd` exclude each other"]),
        (["--target-calls", 0.5], ["`target_calls` must be at least 1", "0.5"]),
        (["--target-tokens", -1], ["`target_tokens` must be a finite number above 0"]),
        (["--target-usd-share", 0.5], ["usd must be known to the policy"]),
    ],
)
def test_evaluate_refuses_targets_that_cannot_be_kept(cli, checkpoint, outcomes, options, words):
    cli.assert_refused(cli.run("evaluate", checkpoint, outcomes, *options), *words)


def test_evaluate_without_stored_baselines_fits_them_on_the_other_rows_or_leaves_them_out(cli, bare_policy, outcomes):
    """Never on rows that it scores. One query is in one split, so there is nothing to fit on."""
    bare_policy.save("bare")
    make_outcomes({"quiz/a": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.parquet")
    fitted = cli.said("evaluate", "bare", outcomes)
    assert (fitted["baselines_from"], tuple(fitted["baselines"])) == ("outcomes", BASELINES)
    assert "holds no baselines: they were fitted now" in cli.shown("evaluate", "bare", outcomes)
    assert "some are left out" in cli.shown("evaluate", "bare", "one.parquet", "--split", "all")
    for table, split in (("one.parquet", "all"), (outcomes, "train"), (outcomes, "validation"), (outcomes, "all")):
        none = cli.said("evaluate", "bare", table, "--split", split)
        assert (none["baselines_from"], list(none["baselines"])) == ("nowhere", ["random_team", "plurality", "oracle"])
        assert "best_fixed_team" in none["missing_baselines"]


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


def test_evaluate_loads_by_itself_only_the_embedder_that_it_knows(
    cli, quiz_policy, outcomes, *, my_embedder, quick_training, monkeypatch
):
    """A module that a checkpoint names is imported only where the caller names it too; the packaged one is loaded."""
    assert cli.run("train", outcomes, "--out", "embedded", "--embedder", my_embedder).exit_code == 0
    sys.modules.pop("my_embedders")
    cli.assert_refused(cli.run("evaluate", "embedded", outcomes), my_embedder, "not imported unasked")
    assert "my_embedders" not in sys.modules
    assert cli.said("evaluate", "embedded", outcomes, "--embedder", my_embedder)["policy"]["n"] > 0
    refused = cli.run("evaluate", "embedded", outcomes, "--embedder", "my_embedders:other")
    cli.assert_refused(refused, f"'{my_embedder}'", "'my_embedders:other'")
    asked = []
    with_card(quiz_policy, embedder="wordllama").save("named")
    monkeypatch.setattr(options, "open_embedder", asked.append)
    assert cli.said("evaluate", "named", outcomes)["policy"]["n"] > 0
    assert asked == ["wordllama"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([1, 2], ["`config`", "JSON object", "[1, 2]"]),
        ({"max_team": "x"}, ["`max_team`", "whole number, at least 1", "'x'", "--max-team"]),
        ({"max_team": -1}, ["`max_team`", "-1"]),
        ({"max_team": True}, ["`max_team`", "True"]),
        ({"max_team": None}, ["does not say", "--max-team"]),
        ({"max_rounds": 0}, ["`max_rounds`", "got 0", "--max-rounds"]),
        ({"max_rounds": 1.5}, ["`max_rounds`", "1.5"]),
        ({"cost_weight": float("inf")}, ["`cost_weight`", "inf"]),
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
    ("card", "options", "words"),
    [
        ({"curve": None}, ["--target-calls", 2], ["must hold a curve"]),
        ({"curve": []}, ["--target-calls", 2], ["must hold a curve"]),
        ({"curve": 3}, ["--target-calls", 2], ["must hold a curve"]),
        ({"curve": [{"cost_weight": 0.1}]}, ["--target-calls", 2], ["must hold a curve"]),
        (
            {"curve": [{"cost_weight": -1, "mean_calls": 1}]},
            ["--target-calls", 2],
            ["must hold a curve", "`cost_weight`"],
        ),
        ({"embedder": 7}, [], ["embedder 7", "--embedder"]),
        ({"embedder": "os:getcwd"}, [], ["'os:getcwd'", "not imported unasked"]),
        ({"rows": 7}, [], ["`rows`", "7"]),
        ({"rows": {"test_ids": 7}}, [], ["`test_ids`", "7", "--test-ids"]),
    ],
)
def test_evaluate_refuses_a_curve_rows_and_an_embedder_that_a_checkpoint_made_up(
    cli, quiz_policy, outcomes, *, card, options, words
):
    with_card(quiz_policy, **card).save("made_up")
    cli.assert_refused(cli.run("evaluate", "made_up", outcomes, *options), *words)


def test_a_unit_that_these_outcomes_do_not_hold_is_said_and_not_silently_calls(cli, quiz_policy, quiz, outcomes):
    """Trained in tokens; Bob's are not on record here, on any of 300 queries."""
    config = {**quiz_policy.card["config"], "cost_unit": "tokens"}
    RLFocalPolicy(replace(quiz_policy.parts, card={**quiz_policy.card, "config": config})).save("by_tokens")
    bare = [replace(o, prompt_tokens=None) if o.model == "bob" else o for o in quiz]
    OutcomeTable.from_outcomes(bare).write("bare.parquet")
    assert cli.said("evaluate", "by_tokens", outcomes)["frontiers"]["note"] is None
    note = "Spending is counted in calls, not in tokens as in training: the tokens are unknown of bob on 300, of 300 queries."
    facts = cli.said("evaluate", "by_tokens", "bare.parquet", "--split", "all", "--target-tokens", 30)
    assert (facts["frontiers"]["unit"], facts["frontiers"]["note"]) == ("calls", note)
    shown = cli.shown("evaluate", "by_tokens", "bare.parquet", "--split", "all", "--target-tokens", 30)
    assert note in shown
    assert "What it took is not known" in shown
    assert "What it took is not known" not in cli.shown("evaluate", "by_tokens", outcomes, "--target-tokens", 30)

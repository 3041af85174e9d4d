"""The command line from a policy to its figures: what evaluate counts, prints and refuses."""

import pytest

from langchain_rlfocal.evaluation.baselines import BASELINES
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import make_outcomes


@pytest.mark.parametrize("columns", [80, 100])
def test_evaluate_prints_the_policy_beside_the_baselines_within_the_terminal(
    cli, checkpoint, outcomes, monkeypatch, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = cli.run("evaluate", checkpoint, outcomes)

    assert result.exit_code == 0, result.stderr
    first = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    for name in ("policy", "single best", "plurality", "best fixed team", "oracle", "quiz/a", "mean of tasks"):
        assert name in first
    assert all(name.split("_")[0] in result.stdout for name in BASELINES)
    assert "95 %" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= columns


def test_evaluate_prints_one_json_object_with_all_figures_of_policy_and_baselines(cli, checkpoint, outcomes):
    said = cli.said("evaluate", checkpoint, outcomes)

    figures = {"score", "ci95", "macro", "mean_calls", "mean_team", "cost_usd", "latency_s", "n"}
    assert set(said["policy"]) == {*figures, "mean_rounds"}
    assert tuple(said["baselines"]) == BASELINES
    assert all(set(baseline) == figures for baseline in said["baselines"].values())
    assert (said["missing_baselines"], said["baselines_from"]) == ([], "checkpoint")
    assert (said["dropped"], said["missing"], said["repeated"]) == (0, 0, 0)


def test_evaluate_scores_the_test_rows_with_the_limits_of_the_training_unless_told_otherwise(cli, checkpoint, outcomes):
    default = cli.said("evaluate", checkpoint, outcomes)
    told = cli.said("evaluate", checkpoint, outcomes, "--split", "all", "--max-team", 1, "--cost-weight", 0.5)

    config = RLFocalPolicy.load(checkpoint).card["config"]
    assert [default[name] for name in ("max_team", "max_rounds", "cost_weight")] == [
        config[name] for name in ("max_team", "max_rounds", "cost_weight")
    ]
    assert (default["split"], told["split"]) == ("test", "all")
    assert default["policy"]["n"] < told["policy"]["n"] == 300
    assert (told["max_team"], told["cost_weight"]) == (1, 0.5)
    assert told["policy"]["mean_calls"] == 1.0


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
    assert list(cli.said("evaluate", checkpoint, outcomes, "--task", "*/a", "--task", "*/b")["per_task"]) == [
        "quiz/a",
        "quiz/b",
    ]


def test_evaluate_counts_what_a_member_did_not_answer(cli, checkpoint, gaps):
    """Bob did not answer ten queries: they are left out, or count as his failure; both are said."""
    args = (checkpoint, gaps, "--split", "all")
    dropped, failed = cli.said("evaluate", *args), cli.said("evaluate", *args, "--missing", "fail")

    assert (dropped["policy"]["n"], dropped["dropped"], dropped["missing"]) == (290, 10, 0)
    assert (failed["policy"]["n"], failed["dropped"], failed["missing"]) == (300, 0, 10)
    assert "left out because a member did not answer them: 10." in cli.shown("evaluate", *args)
    assert "lack a member's answer, which counts as its failure: 10." in cli.shown(
        "evaluate", *args, "--missing", "fail"
    )


def test_evaluate_warns_where_policy_and_baselines_know_rows(cli, checkpoint, outcomes):
    warning = "policy and baselines know all but the training's test rows"

    assert warning in cli.shown("evaluate", checkpoint, outcomes, "--split", "all")
    assert warning in cli.shown("evaluate", checkpoint, outcomes, "--test-ids", "1*")
    assert warning not in cli.shown("evaluate", checkpoint, outcomes)


def test_evaluate_says_where_the_baselines_were_fitted_for_larger_teams(cli, checkpoint, outcomes):
    warning = "were fitted for 2 members at most"

    assert warning in cli.shown("evaluate", checkpoint, outcomes, "--max-team", 1)
    assert warning not in cli.shown("evaluate", checkpoint, outcomes)
    assert warning not in cli.shown("evaluate", checkpoint, outcomes, "--max-team", 7), "there are two members"


def test_evaluate_can_hide_the_task_labels_from_the_policy(cli, checkpoint, outcomes, monkeypatch):
    """The figures of each task are still there; with the option the policy is shown no label, without it all."""
    seen = []
    describe = RLFocalPolicy.describe

    def spy(self, queries, tasks, members=None):
        seen.append(set(tasks))
        return describe(self, queries, tasks, members)

    monkeypatch.setattr(RLFocalPolicy, "describe", spy)
    hidden, shown = cli.said("evaluate", checkpoint, outcomes, "--no-task"), cli.said("evaluate", checkpoint, outcomes)

    assert seen == [{None}, {"quiz/a", "quiz/b"}]
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


def test_evaluate_refuses_to_count_as_failures_the_queries_of_a_member_without_rows(cli, checkpoint, quiz, half):
    """Bob has no row at all, or none on the task that is asked for."""
    OutcomeTable.from_outcomes([o for o in quiz if o.model == "ann"]).write("ann.parquet")

    cli.assert_refused(cli.run("evaluate", checkpoint, "ann.parquet", "--missing", "fail"), "['bob']")
    args = (half, "--missing", "fail", "--task", "quiz/a")
    cli.assert_refused(cli.run("evaluate", checkpoint, *args), "['bob']", "Leave them out")


def test_evaluate_refuses_an_empty_split(cli, checkpoint, folder):
    """One query stands in one split; the two others are empty."""
    make_outcomes({"quiz": {"ann": 1.0, "bob": 0.0}}, num_queries=1).write("one.jsonl")
    refused = [
        result
        for split in ("train", "validation", "test")
        if (result := cli.run("evaluate", checkpoint, "one.jsonl", "--split", split)).exit_code
    ]

    assert len(refused) == 2
    for result in refused:
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

"""New tasks: each is judged by a policy that has seen no row of it, and nothing of its texts."""

import pytest

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.targets import Target
from langchain_rlfocal.training import TrainingConfig, leave_task_out, new_tasks
from langchain_rlfocal.training.new_tasks import groups_of

BRIEF = TrainingConfig(num_iterations=1, batch_size=32, num_folds=2, max_team=2)


@pytest.mark.parametrize(
    ("tasks", "patterns", "expected"),
    [
        (["a/x", "a/y", "b/x", "c"], None, {"a": ("a/x", "a/y"), "b": ("b/x",), "c": ("c",)}),
        (["a/y", "a/x", "a/y"], None, {"a/x": ("a/x",), "a/y": ("a/y",)}),
        (["a/x", "a/y", "b"], ["*/x", "b"], {"*/x": ("a/x",), "b": ("b",)}),
    ],
)
def test_tasks_are_grouped_by_their_first_parts_or_as_told(tasks, patterns, expected):
    assert groups_of(tasks, patterns) == expected


@pytest.mark.parametrize(
    ("tasks", "patterns", "words"), [(["a"], None, "'a', which matches 1 of 1"), (["a", "b"], ["c*"], "'c\\*', which")]
)
def test_what_leaves_out_all_or_nothing_is_refused(tasks, patterns, words):
    with pytest.raises(InputError, match=words):
        groups_of(tasks, patterns)


def test_a_task_s_rows_and_texts_are_kept_from_training_and_are_all_scored(monkeypatch):
    """Ten rows each of three tasks; one text of `b` is also one of `a`, so that it is left out where `a` is new."""
    rows = [
        Outcome(
            task=task,
            query_id=str(q),
            query="shared" if (task, q) in {("a", 3), ("b", 5)} else f"{task} {q}",
            model=model,
            answer="x",
            reward=float(model == "m"),
        )
        for task in "abc"
        for q in range(10)
        for model in "mn"
    ]
    grid = OutcomeTable.from_outcomes(rows).grid(["m", "n"], test_ids="1")  # which does not count here
    seen = []

    def trained(learned, chosen, config, *, embedder, on_progress):
        seen.append((learned, chosen))
        raise OutcomeError("enough")

    monkeypatch.setattr(new_tasks, "train", trained)
    for name in "abc":
        with pytest.raises(OutcomeError, match=f"Without the tasks of '{name}': enough"):
            next(leave_task_out(grid, BRIEF, patterns=[name]))
    for name, (learned, chosen), count in zip("abc", seen, (19, 19, 20), strict=True):
        both = learned.join(chosen)
        assert name not in both.tasks
        assert len(both) == count
        assert not set(both.queries) & {q for q, task in zip(grid.queries, grid.tasks, strict=True) if task == name}


def test_what_is_learned_on_the_others_is_what_is_scored(quiz):
    """Ann is right 0.9 of the time on the one task, Bob on the other: who trains on one asks the wrong one on the other."""
    found = list(leave_task_out(quiz.grid(quiz.members), BRIEF, target=Target("target_calls", 1.0)))
    assert [(one.name, one.tasks) for one in found] == [("quiz/a", ("quiz/a",)), ("quiz/b", ("quiz/b",))]
    for one in found:
        assert one.report.policy.n == 150
        assert 100 < one.trained_on < 150
        assert one.report.baselines["single_best"].score.mean == pytest.approx(0.3, abs=1e-9)
        assert one.report.baselines["oracle"].score.mean > 0.85
        assert set(one.report.per_task) == set(one.tasks)
        assert one.report.policy.mean_calls == 1


def test_the_command_prints_each_task_left_out(cli, outcomes, checkpoint, quick_training):
    """With a checkpoint its members and limits are taken, without one all members and the given limits."""
    said = cli.said("evaluate", outcomes, "--leave", "*/a", "--max-team", 1, "--cost-weight", 0.5)
    assert (said["members"], said["max_team"], said["target"]) == (["ann", "bob"], 1, None)
    assert [*said["new_tasks"]] == ["*/a"]
    assert said["new_tasks"]["*/a"]["tasks"] == ["quiz/a"]
    assert said["new_tasks"]["*/a"]["policy"]["mean_calls"] == 1
    text = cli.shown("evaluate", checkpoint, outcomes, "--leave", "*/a", "--target-calls", 1.5, "--no-task")
    assert "*/a" in text
    assert "At most 2 members in 2 rounds, for a target of 1.5 calls a query." in text
    assert "Task labels were hidden" in text
    assert RLFocalPolicy.load(checkpoint).card["config"]["max_team"] == 2


def test_the_command_refuses_what_does_not_go_together(cli, outcomes, checkpoint):
    for args, words in [
        ((checkpoint, outcomes, "--leave-task-out", "--rewrites"), "takes no `--rewrites`"),
        ((checkpoint, "--leave-task-out"), "needs at least one table of outcomes"),
        ((outcomes, "--leave", "none"), "'none', which matches 0 of 2"),
        ((checkpoint,), "a checkpoint and at least one table of outcomes"),
    ]:
        result = cli.run("evaluate", *args)
        assert result.exit_code == 2
        assert words in result.stderr.replace("\n", " ")


def test_rewritings_are_printed_beside_the_report(cli, outcomes, checkpoint, monkeypatch):
    said = cli.said("evaluate", checkpoint, outcomes, "--rewrites")
    assert len(said["rewrites"]) == 8
    for name, figures in said["rewrites"].items():
        assert figures["score"] - figures["score_change"] == pytest.approx(said["policy"]["score"])
        assert 0 <= figures["first_teams_kept"] <= 1, name
    assert said["rewrites"]["lower case"]["first_teams_kept"] == 1
    assert "rewrites" not in cli.said("evaluate", checkpoint, outcomes)
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli.run("evaluate", checkpoint, outcomes, "--rewrites").stdout.splitlines()
    assert "The same questions, written in other ways" in lines
    assert {line.split("  ")[0].strip() for line in lines} >= set(said["rewrites"])
    assert max(map(len, lines)) <= 80

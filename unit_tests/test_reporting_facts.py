"""What a report says: its figures are those of `evaluate`, and what it counts itself is worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.environment import Replay
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation.baselines import fit_single_best
from langchain_rlfocal.evaluation.metrics import Estimate, expected_calibration_error
from langchain_rlfocal.evaluation.report import Rows
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.reporting import facts as facts_module
from langchain_rlfocal.reporting import read_metrics
from langchain_rlfocal.reporting.cases import MAX_CASES, MAX_QUESTION, Text, cases_of
from langchain_rlfocal.reporting.facts import (
    MAX_STEPS,
    OTHER_TASKS,
    Comparison,
    Facts,
    Spent,
    Way,
    asking_of,
    calibration_of,
    teams_of,
)
from langchain_rlfocal.reporting.sentences import headline

# ---- the figures of `evaluate`


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, quiz, quiz_policy):
    """A checkpoint and the outcomes that it was trained on."""
    folder = tmp_path_factory.mktemp("quiz")
    quiz_policy.save(folder / "policy")
    quiz.write(folder / "outcomes.parquet")
    return folder / "policy", folder / "outcomes.parquet"


@pytest.fixture(scope="module")
def both(cli, on_disk):
    return cli.said("report", *on_disk), cli.said("evaluate", *on_disk)


def test_every_figure_that_evaluate_prints_is_the_same_in_the_report(both):
    report, evaluated = both
    ways = {way["name"]: way for way in report["ways"]}
    assert list(ways) == ["policy", *evaluated["baselines"]]
    for name, expected in {"policy": evaluated["policy"], **evaluated["baselines"]}.items():
        way = ways[name]
        assert way["score"]["mean"] == expected["score"], name
        assert [way["score"]["low"], way["score"]["high"]] == expected["ci95"]
        assert (way["macro"], way["n"], way["latency_s"]) == (expected["macro"], expected["n"], expected["latency_s"])
        assert way["spending"] == {
            "usd": expected["cost_usd"],
            "tokens": expected["tokens"],
            "calls": expected["mean_calls"],
        }
        if name != "policy":
            difference = evaluated["differences"][name]
            assert way["difference"]["mean"] == difference["mean"]
            assert [way["difference"]["low"], way["difference"]["high"]] == difference["ci95"]
    assert report["calibration"]["error"] == evaluated["policy"]["calibration_error"]
    assert report["per_task"] == evaluated["per_task"]


def test_the_curves_are_those_of_the_rivals_comparison(both):
    report, evaluated = both
    frontiers = evaluated["frontiers"]
    curves = report["curves"][frontiers["unit"]]
    assert report["unit"] == frontiers["unit"]
    assert curves["quality"]["policy"] == frontiers["policy"]["aiq"]
    assert [point["score"] for point in curves["policy"]] == [point["score"] for point in frontiers["policy"]["hull"]]
    assert set(curves["rivals"]) == set(frontiers["rivals"])


def test_the_comparison_with_the_single_best_is_paired_and_its_parts_add_up(both):
    """Gained and lost scores over all questions are the mean difference; spent is what both take."""
    report, evaluated = both
    compared, cases = report["comparison"], report["cases"]
    assert compared["score"]["mean"] == evaluated["differences"]["single_best"]["mean"]
    gained = sum(gain for causes in cases["gains"].values() for gain in causes.values())
    assert gained / cases["n"] == pytest.approx(compared["score"]["mean"], abs=1e-12)
    calls = compared["spent"]["calls"]
    assert calls["policy"] == pytest.approx(evaluated["policy"]["mean_calls"])
    assert calls["best"] == 1.0
    assert calls["difference"]["mean"] == pytest.approx(calls["policy"] - 1.0)
    assert calls["difference"]["low"] <= calls["difference"]["mean"] <= calls["difference"]["high"]


def test_a_unit_whose_price_is_unknown_is_not_offered(both):
    report, _ = both
    assert report["units"] == ["calls", "tokens"], "the quiz holds no dollars"


def test_only_the_trainings_own_test_rows_are_unseen(cli, on_disk, both):
    """Rows that are named test rows only now were learned from: the sentences and `evaluate` say so alike."""
    report, _ = both
    assert (report["knows_rows"], "that training had not seen" in report["headline"]) == (False, True)
    said = cli.said("report", *on_disk, "--test-ids", "*1")
    assert (said["knows_rows"], said["manifest"]["split"]) == (True, "test")
    assert said["headline"].startswith("On 30 questions that training may have seen, the policy ")
    assert any("know all but the training's test rows" in note for note in said["notes"])


# ---- worked by hand: six questions of two tasks, three members, a policy that asks as it is told

ANSWERS = [
    ["yes", "no", "yes"],
    ["no", "yes", "no"],
    ["no", "yes", "no"],
    ["yes", "yes", "no"],
    ["no", "no", "yes"],
    ["yes", "no", "no"],
]
"""Right is "yes": a is right on questions 0, 3 and 5, b on 1, 2 and 3, c on 0 and 4; a is the single best, first of equals."""


@pytest.fixture
def rows(make_grid):
    def make(asked_in, chosen, confidence=None, answers=ANSWERS, tasks=None):
        grid = make_grid(answers)
        if tasks is not None:
            grid = replace(grid, tasks=list(tasks))
        chosen = np.array(chosen)
        asked_in = np.array(asked_in)
        played = Replay(
            asked_in=asked_in,
            chosen=chosen,
            scores=grid.scores[np.arange(len(grid)), chosen],
            spent=(asked_in > 0).mean(axis=1),
            confidence=np.full(len(grid), 0.5) if confidence is None else np.array(confidence),
        )
        return Rows.of(grid, played, {"single_best": fit_single_best(grid).decide(grid)})

    return make


@pytest.fixture
def played(rows):
    """It asks a; b; b after a; a; c and b with the wrong answer returned; b."""
    return rows(
        asked_in=[[1, 0, 0], [0, 1, 0], [1, 2, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0]],
        chosen=[0, 1, 1, 0, 1, 1],
        tasks=["x", "x", "x", "y", "y", "y"],
    )


def table_of(rows, **texts):
    """Outcomes of the same questions, with texts of the members."""
    grid = rows.grid
    return OutcomeTable.from_outcomes(
        Outcome(
            task=grid.tasks[q],
            query_id=grid.query_ids[q],
            query=grid.queries[q],
            model=member,
            answer=grid.answers[q, m],
            response=texts.get(member, f"{member} says {grid.answers[q, m]}"),
            reward=float(grid.scores[q, m]),
        )
        for q in range(len(grid))
        for m, member in enumerate(grid.members)
    )


def test_who_is_asked_for_what_by_hand(played):
    asking = asking_of(played)
    assert asking.members == ("b", "a", "c"), "asked on four, three and one of six questions"
    assert (asking.never, asking.tasks) == ((), (("x", 3), ("y", 3)))
    third = pytest.approx(1 / 3)
    assert asking.ever == ((2 * third.expected, 2 * third.expected, 0), (2 * third.expected, third, third))
    assert asking.first == ((third, 2 * third.expected, 0), (2 * third.expected, third, third)), "b came second once"
    assert asking.returned == ((2 * third.expected, third, 0), (2 * third.expected, third, 0))
    assert asking.rounds == (pytest.approx(5 / 6), pytest.approx(1 / 6))
    assert asking.team_sizes == (pytest.approx(4 / 6), pytest.approx(2 / 6))


def test_who_is_never_asked_is_named(rows):
    asking = asking_of(rows([[1, 0, 0]] * 6, [0] * 6))
    assert (asking.members, asking.never) == (("a",), ("b", "c"))


def test_tasks_of_few_questions_are_taken_together(rows, monkeypatch):
    monkeypatch.setattr(facts_module, "MAX_TASKS", 1)
    asking = asking_of(rows([[1, 0, 0]] * 6, [0] * 6, tasks=["x", "x", "x", "y", "z", "z"]))
    assert asking.tasks == (("x", 3), (OTHER_TASKS, 3))


def test_where_it_helped_and_hurt_by_hand(played):
    """Beside a: question 1 is won by asking b alone, 2 by fusing a and b, 5 lost by asking b alone; 4 both get wrong."""
    cases = cases_of(played, table_of(played))
    assert (cases.best, cases.n) == ("a", 6)
    assert cases.counts == {"helped": {"fusion": 1, "selection": 1}, "hurt": {"fusion": 0, "selection": 1}}
    assert cases.gains == {"helped": {"fusion": 1.0, "selection": 1.0}, "hurt": {"fusion": 0.0, "selection": -1.0}}
    shown = {case.query_id: case for case in cases.shown}
    assert {name: (case.effect, case.cause) for name, case in shown.items()} == {
        "1": ("helped", "selection"),
        "2": ("helped", "fusion"),
        "5": ("hurt", "selection"),
    }
    fused = shown["2"]
    assert fused.question.text == "Question 2?"
    assert fused.right.text == "yes"
    said = [(one.member, one.round, one.answer.text, one.reply.text, one.is_returned) for one in fused.asked]
    assert said == [("a", 1, "no", "a says no", False), ("b", 2, "yes", "b says yes", True)]
    assert fused.best is None, "it is among those who were asked"
    assert (shown["5"].best.member, shown["5"].best.round, shown["5"].best.score) == ("a", 0, 1.0)


def test_a_policy_that_asks_the_single_best_alone_neither_helps_nor_hurts(rows):
    cases = cases_of(rows([[1, 0, 0]] * 6, [0] * 6), OutcomeTable.from_outcomes([]))
    assert sum(count for causes in cases.counts.values() for count in causes.values()) == 0
    assert cases.shown == ()


def test_without_texts_the_counts_stay(played):
    cases = cases_of(played, table_of(played), with_texts=False)
    assert cases.shown == ()
    assert cases.counts["helped"] == {"fusion": 1, "selection": 1}


def test_of_many_cases_each_task_shows_as_many_as_there_is_room_for(rows):
    answers = [["no", "yes", "no"]] * 60 + [["yes", "no", "no"]] * 61
    tasks = ["x"] * 57 + ["y"] * 3 + ["z"] * 61
    many = rows([[0, 1, 0]] * 60 + [[1, 0, 0]] * 61, [1] * 60 + [0] * 61, answers=answers, tasks=tasks)
    cases = cases_of(many, table_of(many))
    assert cases.counts["helped"]["selection"] == 60
    shown = [case.task for case in cases.shown]
    assert (len(shown), shown.count("y")) == (MAX_CASES, 3)


def test_texts_are_cut_and_what_no_page_can_hold_is_replaced():
    text = Text.cut("a\x00b\ud800c\r\nd" + "x" * 1_000_000, most=MAX_QUESTION)
    assert text.text.startswith("a\ufffdb\ufffdc\nd")
    assert text.left_out == 1_000_008 - MAX_QUESTION
    assert Text.cut("short", most=9) == Text("short", 0)


def test_calibration_by_hand(rows):
    """Confidences .95, .9 and 1 are one bin, worth 1, 1 and 0; .25 is another, worth 1; .5 and .55 a third, 1 and 0."""
    made = rows(
        [[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [0, 1, 0, 0, 2, 1],
        confidence=[0.95, 0.9, 1.0, 0.25, 0.5, 0.55],
    )
    scores = made.scores["policy"]
    assert scores.tolist() == [1, 1, 0, 1, 1, 0]
    error = expected_calibration_error(made.played.confidence, scores)
    found = calibration_of(made, error, rng=np.random.default_rng(0))
    assert [(one.low, one.n) for one in found.bins] == [(0.2, 1), (0.5, 2), (0.9, 3)]
    assert [one.share for one in found.bins] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert [one.confidence for one in found.bins] == pytest.approx([0.25, 0.525, 0.95])
    assert [one.score.mean for one in found.bins] == pytest.approx([1, 0.5, 2 / 3])
    by_bins = sum(one.n * abs(one.confidence - one.score.mean) for one in found.bins) / 6
    assert by_bins == pytest.approx(error)


def test_teams_are_those_of_the_diversity_command(rows):
    """Votes of all three: yes, no, no, yes, no, no; a and b tie where they differ, and a, the first of equals, decides."""
    teams = teams_of(rows([[1, 0, 0]] * 6, [0] * 6))
    found = {team.members: team.accuracy for team in teams.shown}
    assert len(found) == teams.total == 7
    assert found["a", "b", "c"] == pytest.approx(2 / 6)
    assert found["a",] == found["a", "b"] == pytest.approx(3 / 6)
    assert teams.correlation[3] is None, "there is one such team"


def test_of_too_many_teams_the_best_of_each_size_is_among_those_shown(rows, monkeypatch):
    monkeypatch.setattr(facts_module, "MAX_TEAMS", 5)
    teams = teams_of(rows([[1, 0, 0]] * 6, [0] * 6))
    assert (len(teams.shown), teams.total) == (5, 7)
    assert {len(team.members) for team in teams.shown} == {1, 2, 3}
    assert ("a", "b") in {team.members for team in teams.shown}


def test_teams_are_left_out_where_no_question_is_scored_for_all(rows):
    made = rows([[1, 0, 0]] * 6, [0] * 6)
    scores = made.grid.scores.copy()
    scores[:, 2] = np.nan
    assert teams_of(replace(made, grid=replace(made.grid, scores=scores))) is None


# ---- metrics of training


def test_metrics_are_read_in_or_beside_the_checkpoint_but_for_torn_lines(tmp_path):
    policy = tmp_path / "policy"
    policy.mkdir()
    assert read_metrics(policy) is None
    lines = [
        '{"step": 1, "reward": 0.5, "calls": 2}',
        '{"step": 2, "reward": 0.75, "validation": 0.6}',
        '{"step": 3, "rew',
    ]
    (tmp_path / "policy.metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    training = read_metrics(policy, best=2)
    assert (training.steps, training.total, training.best) == ((1.0, 2.0), 2, 2.0)
    assert training.metrics == {"reward": (0.5, 0.75), "calls": (2.0, None), "validation": (None, 0.6)}
    (policy / "metrics.jsonl").write_text(lines[0], encoding="utf-8")
    assert read_metrics(policy).total == 1


def test_a_long_training_keeps_its_first_and_last_step(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"step": n, "reward": 1}) + "\n" for n in range(1, 3001)), encoding="utf-8")
    training = read_metrics(tmp_path, path)
    assert (training.steps[0], training.steps[-1], training.total) == (1.0, 3000.0, 3000)
    assert len(training.steps) <= MAX_STEPS + 1


@pytest.mark.parametrize("text", [None, "", "[1]\nnull\n", '{"reward": 1}\n', '{"step": true}'])
def test_a_file_of_metrics_that_is_named_must_hold_some(tmp_path, text):
    path = tmp_path / "m.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.jsonl"):
        read_metrics(tmp_path, path)


# ---- the headline says what the intervals carry


def facts_with(score, spent, *, unit="usd"):
    way = Way("policy", "policy", Estimate(0.6, 0.5, 0.7, 900), 0.6, None, {}, None, 900, "rows")
    compared = None if score is None else Comparison("ann", score, {} if spent is None else {unit: spent})
    nothing = {key: {} for key in ("curves", "per_task", "manifest")}
    empty = dict.fromkeys(("asking", "calibration", "teams", "training", "cases"))
    return Facts(
        policy_id="p", questions=900, knows_rows=False, unit=unit, units=(unit,), ways=(way,), comparison=compared, notes=(), **nothing, **empty
    )  # fmt: skip


def estimate(mean, low, high):
    return Estimate(mean, low, high, 900)


CHEAPER = Spent(0.001, 0.002, estimate(-0.001, -0.0012, -0.0008))


@pytest.mark.parametrize(
    ("score", "spent", "said"),
    [
        (
            estimate(0.05, 0.02, 0.08),
            CHEAPER,
            (
                "scores 5.0 points more than the best single member, ann (95% interval +2.0 to +8.0), and costs $1.00 less "
                "for 1,000 questions, 50% less (95% interval $0.80 to $1.20)."
            ),
        ),
        (
            estimate(-0.05, -0.08, -0.02),
            Spent(0.003, 0.002, estimate(0.001, 0.0008, 0.0012)),
            (
                "scores 5.0 points less than the best single member, ann (95% interval −8.0 to −2.0), and costs $1.00 more "
                "for 1,000 questions, 50% more (95% interval $0.80 to $1.20)."
            ),
        ),
        (
            estimate(0.05, 0.0, 0.1),
            CHEAPER,
            (
                "is not told apart in score from the best single member, ann: +5.0 points (95% interval 0.0 to +10.0), and it "
                "costs $1.00 less"
            ),
        ),
        (
            estimate(0.05, 0.02, 0.08),
            Spent(0.002, 0.002, estimate(0.0001, -0.0001, 0.0003)),
            "is not told apart in cost: $0.10 for 1,000 questions (95% interval −$0.10 to $0.30).",
        ),
        (estimate(0.05, 0.02, 0.08), Spent(0.002, 0.002, estimate(0, 0, 0)), "and takes exactly as much."),
        (estimate(0.05, 0.02, 0.08), None, "what it costs is unknown."),
        (None, None, "scores 60.0% (95% interval 50.0% to 70.0%); there is no best single member to compare it with."),
    ],
)
def test_the_headline_claims_a_difference_only_where_the_interval_leaves_0_out(score, spent, said):
    assert said in headline(facts_with(score, spent))


def test_the_headline_counts_calls_where_prices_are_unknown():
    spent = Spent(1.5, 1.0, estimate(0.5, 0.4, 0.6))
    said = headline(facts_with(estimate(0.05, 0.02, 0.08), spent, unit="calls"))
    assert said.endswith("and takes 0.50 more calls a question, 50% more (95% interval 0.40 to 0.60).")


def test_the_headline_says_which_rows_it_stands_on():
    facts = facts_with(estimate(0.05, 0.02, 0.08), CHEAPER)
    assert headline(facts).startswith("On 900 questions that training had not seen, the policy ")
    known = replace(facts, knows_rows=True)
    assert headline(replace(known, manifest={"split": "train"})).startswith("On 900 train questions, the policy ")
    for split in ("test", "all"):
        said = headline(replace(known, manifest={"split": split}))
        assert said.startswith("On 900 questions that training may have seen, the policy "), "of other test rows, too"


def test_outcomes_of_some_queries_are_found_by_task_and_name(quiz):
    wanted = [("quiz/b", "3"), ("quiz/a", "3"), ("quiz/a", "nobody"), ("nothing", "3")]
    found = quiz.of_queries(wanted)
    assert {(one.task, one.query_id, one.model) for one in found} == {
        (task, "3", model) for task in ("quiz/a", "quiz/b") for model in ("ann", "bob")
    }
    assert found == [one for one in quiz if (one.task, one.query_id) in wanted]
    assert quiz.of_queries([]) == []

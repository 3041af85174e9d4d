"""Report: every figure worked by hand, on a policy that does as it is told."""

import json
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from langchain_rlfocal.cli.views import evaluation_views
from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.evaluation import evaluate, report
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    dump_baselines,
    fit_baselines,
    fit_oracle,
    fit_per_task_router,
    fit_plurality,
    fit_random_team,
    fit_single_best,
    fit_weighted_vote,
)
from langchain_rlfocal.evaluation.report import baselines_of
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes

LIMITS = {"cost_weight": 0.1, "max_team": 2, "max_rounds": 2}


def grid_of(
    answers, *, tasks=None, costs=(0.5, 0.25, 0.125), latencies=(1.0, 2.0, 4.0), members="abc", propensities=None
):
    """One row of answers per query: a letter each, ` ` for a hole and `?` for an unscored answer; "x" is right."""
    rows = [
        Outcome(
            task=tasks[q] if tasks else "t",
            query_id=str(q),
            query=f"{q}?",
            model=member,
            answer=text,
            reward=None if text == "?" else float(text == "x"),
            propensity=propensities[q] if propensities else None,
            cost_usd=cost,
            latency_s=latency,
        )
        for q, row in enumerate(answers)
        for member, text, cost, latency in zip(members, row, costs, latencies, strict=True)
        if text != " "
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members), missing="mask")


SEEN = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""

FITTED = {
    "oracle": fit_oracle(SEEN),
    "weighted_vote": fit_weighted_vote(SEEN),
    "random_team": fit_random_team(SEEN, size=2),
    "single_best": fit_single_best(SEEN),
    "plurality": fit_plurality(SEEN),
}


@pytest.fixture
def play(monkeypatch):
    """Have `replay` follow a script: in which round each member is asked, whose answer is returned, and its score."""

    def script(asked_in, chosen, scores=None):
        def replayed(policy, grid, *, cost_weight, max_team, max_rounds, hide_tasks, target):
            assert (policy, cost_weight, max_team, max_rounds) == ("policy", *LIMITS.values())
            rounds = np.array(asked_in)
            return SimpleNamespace(
                asked_in=rounds,
                chosen=np.array(chosen),
                scores=np.where(
                    (grid.recorded | (rounds == 0)).all(axis=1), grid.scores[np.arange(len(grid)), chosen], np.nan
                )
                if scores is None
                else np.array(scores),
                rounds=rounds.max(axis=1),
                confidence=np.full(len(grid), 0.5),
            )

        monkeypatch.setattr(report, "replay", replayed)

    return script


def test_every_figure_of_a_report_is_worked_by_hand(play):
    """Four queries in two tasks; the policy asks a, a and then b, b, b and c, and is right on the first three.

    Policy: score ¾; 1 on the one query of `s` and ⅔ on those of `t`, mean ⅚; calls (1 + 2 + 1 + 2)/4 = 3/2; rounds
    (1 + 2 + 1 + 1)/4; dollars (½ + ¾ + ¼ + ⅜)/4 = 15/32; waits 1, 1 + 2, 2 and 4 s, mean 10/4.
    Single best `a` is right on the first: ¼, ½ by tasks. Plurality: x, x, x (two of three) and y: ¾. The Oracle: 1, as c
    is right on the last. The policy is ⅔ of the way from ¼ to 1.
    """
    play([[1, 0, 0], [1, 2, 0], [0, 1, 0], [0, 1, 1]], [0, 1, 1, 1])
    grid = grid_of(["xxy", "yxx", "yxx", "yyx"], tasks=["s", "t", "t", "t"])
    found = evaluate("policy", grid, baselines=FITTED, **LIMITS).as_dict()
    policy = found["policy"]
    low, high = policy.pop("ci95")
    assert low < 3 / 4 < high
    assert policy == {
        "score": 3 / 4,
        "macro": pytest.approx(5 / 6),
        "mean_calls": 3 / 2,
        "mean_team": 3 / 2,
        "mean_rounds": 5 / 4,
        "calibration_error": 1 / 4,  # always ½ sure, right on ¾
        "cost_usd": 15 / 32,
        "tokens": None,
        "latency_s": 5 / 2,
        "n": 4,
        "basis": "rows",
    }
    assert list(found["baselines"]) == ["single_best", "random_team", "plurality", "weighted_vote", "oracle"]
    expected = {
        "single_best": (1 / 4, 1 / 2, 1, 1 / 2, 1),
        "plurality": (3 / 4, 5 / 6, 3, 7 / 8, 4),
        "oracle": (1, 1, 3, 7 / 8, 4),
    }
    for name, (score, macro, calls, cost, latency) in expected.items():
        figures = found["baselines"][name]
        assert (figures["score"], figures["mean_calls"]) == (score, calls), name
        assert figures["macro"] == found["macro"][name] == pytest.approx(macro), name
        assert (figures["cost_usd"], figures["latency_s"], figures["n"]) == (cost, latency, 4), name
    assert found["baselines"]["random_team"]["mean_calls"] == 2
    assert found["macro"]["policy"] == pytest.approx(5 / 6)
    assert found["differences"]["single_best"]["mean"] == 1 / 2
    assert found["differences"]["plurality"] == {"mean": 0, "ci95": [0, 0], "n": 4}, "right on the very same queries"
    assert found["differences"]["oracle"]["mean"] == -1 / 4
    assert found["oracle_gap_share"] == pytest.approx(2 / 3)
    assert list(found["per_task"]) == ["s", "t"]
    for task, (n, *scores) in {"s": (1, 1, 1, 1, 1), "t": (3, 2 / 3, 0, 2 / 3, 1)}.items():
        part = found["per_task"][task]
        assert part["n"] == n
        assert [part[name] for name in ("policy", "single_best", "plurality", "oracle")] == pytest.approx(scores)
    assert (found["queries"], found["dropped"], found["missing"], found["contradictions"]) == (4, 0, 0, 0)
    assert (found["unmeasured"], found["bias"]) == ([], None)
    assert {n for counts in found["per_task_n"].values() for n in counts.values()} == {1, 3}
    assert set(found["missing_baselines"]) == set(BASELINES) - set(FITTED)
    assert json.loads(json.dumps(found)) == found


def test_queries_with_holes_count_where_everyone_asked_is_on_record_by_hand(play):
    """Six queries; the policy asks a, a and b, b, a, a and c, a, and returns the first of these.

    On record are the 1st (right), 2nd (wrong), 3rd (right) and 5th (right); on the 4th a is not, nor c on the 6th though asked
    for. Score ¾; calls (1 + 2 + 1 + 1)/4; dollars (½ + ¾ + ¼ + ½)/4; waits 1, 1 + 2, 2, 1 s; rounds 1, 2, 1, 1. Task s: the 1st
    to 3rd, ⅔; t: the 5th, 1; u: nothing. Single best a: all but the 3rd and 4th, 1, 0, 1, 1: ¾; both count on the 1st, 2nd and
    5th, where they are equal. The Oracle, of whoever is on record: 1, 0, 1, 0, 1, 1. On the three: ⅔ each, no way to go.
    """
    asked = [[1, 0, 0], [1, 2, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]]
    play(asked, [0, 0, 1, 0, 0, 0])
    grid = grid_of(["xyy", "yy ", " x ", " yy", "x  ", "xy "], tasks="sssttu")
    report = evaluate("policy", grid, baselines=FITTED, **LIMITS)
    found = report.as_dict()
    policy = {
        name: found["policy"][name] for name in ("score", "mean_calls", "cost_usd", "latency_s", "mean_rounds", "n")
    }
    assert policy == {
        "score": 0.75,
        "mean_calls": 1.25,
        "cost_usd": 0.5,
        "latency_s": 1.75,
        "mean_rounds": 1.25,
        "n": 4,
    }
    assert [found["per_task"][task]["policy"] for task in "stu"] == [pytest.approx(2 / 3), 1, None]
    assert [found["per_task_n"][task]["policy"] for task in "stu"] == [3, 1, 0]
    assert [found["per_task"][task]["n"] for task in "stu"] == [3, 2, 1]
    assert found["macro"]["policy"] == pytest.approx(5 / 6)
    best, oracle = found["baselines"]["single_best"], found["baselines"]["oracle"]
    assert (best["score"], best["n"], oracle["score"], oracle["n"]) == (0.75, 4, pytest.approx(4 / 6), 6)
    assert found["differences"]["single_best"] == {"mean": 0, "ci95": [0, 0], "n": 3}
    assert found["oracle_gap_share"] is None
    assert "4 of 6 queries" in found["bias"]
    assert "biased" in found["bias"]
    assert found["policy"]["basis"] == "rows"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_known_propensities_weigh_the_queries_by_hand(play):
    """The policy asks a and b, each asked with ½ on the first query and with 1 on the others: it counts 4, 1 and 1.

    Score 4/6, of single best a 2/4 (weights 2, 1, 1: right on the first only), difference as the policy weighs: 0. Everyone who
    asks everyone asks who is on record, and every query counts alike.
    """
    play([[1, 1, 0]] * 3, [0, 0, 0])
    grid = grid_of(["xyz", "yy ", "yz "], propensities=[0.5, 1.0, 1.0])
    found = evaluate("policy", grid, baselines=FITTED, **LIMITS).as_dict()
    assert (found["policy"]["score"], found["policy"]["basis"], found["policy"]["n"]) == (
        pytest.approx(4 / 6),
        "weighted",
        3,
    )
    assert found["per_task"]["t"]["policy"] == pytest.approx(4 / 6)
    best, plurality = found["baselines"]["single_best"], found["baselines"]["plurality"]
    assert (best["score"], best["basis"]) == (0.5, "weighted")
    assert (plurality["score"], plurality["basis"]) == (pytest.approx(1 / 3), "rows")
    assert found["differences"]["single_best"]["mean"] == 0
    unknown = grid_of(["xyz", "yy ", "yz "], propensities=[0.5, None, 1.0])
    assert evaluate("policy", unknown, baselines=FITTED, **LIMITS).policy.basis == "rows"


def test_weights_recover_the_truth_that_rows_as_recorded_miss(play):
    """4,000 queries, half of them easy: a is right on 0.9 of those, on 0.3 of the others: 0.6 in truth.

    It was asked for 0.8 of the easy ones and 0.2 of the others, so that the rows alone say 0.8 · 0.9 + 0.2 · 0.3 = 0.78. Four
    standard errors are about 0.05.
    """
    rng = np.random.default_rng(0)
    easy = rng.random(4000) < 0.5
    right = rng.random(4000) < np.where(easy, 0.9, 0.3)
    asked = rng.random(4000) < np.where(easy, 0.8, 0.2)
    rows = [f"{'xy'[1 - r] if was else ' '}y" for r, was in zip(right.tolist(), asked.tolist(), strict=True)]
    play([[1, 0]] * 4000, [0] * 4000)
    two = {"members": "ab", "costs": (1.0, 1.0), "latencies": (1.0, 1.0)}
    weighted = evaluate(
        "policy", grid_of(rows, propensities=np.where(easy, 0.8, 0.2).tolist(), **two), baselines={}, **LIMITS
    )
    plain = evaluate("policy", grid_of(rows, **two), baselines={}, **LIMITS)
    assert plain.policy.score.mean == pytest.approx(0.78, abs=0.03)
    assert weighted.policy.score.mean == pytest.approx(0.6, abs=0.05)
    assert weighted.policy.score.low < 0.6 < weighted.policy.score.high
    assert weighted.policy.n == plain.policy.n == asked.sum()
    assert "inverse" in weighted.bias
    assert "only" not in weighted.bias


def test_what_was_never_asked_together_is_said_to_be_left_out(play):
    """Two members, one asked of each query by a coin: the policy asks both on three of four, which nobody ever did."""
    play([[1, 0], [1, 1], [1, 1], [1, 1]] * 5, [0] * 20)
    grid = grid_of(
        ["x ", " x", "y ", " y"] * 5,
        members="ab",
        costs=(1, 1),
        latencies=(1, 1),
        propensities=[0.5, 0.5, 0.5, 0.4] * 5,
    )
    found = evaluate("policy", grid, baselines={}, **LIMITS)
    assert found.policy.n == 5
    assert found.unmeasured == ("random_team",)
    assert "biased" in found.bias, "equal weights change nothing, and say nothing"


def test_unscored_answers_are_no_wrong_answers(play):
    play([[1, 0, 0]] * 3, [0, 0, 0])
    found = evaluate("policy", grid_of(["xyy", "?xy", "yxx"]), baselines=FITTED, **LIMITS)
    assert (found.policy.score.mean, found.policy.n) == (0.5, 2)
    assert (found.baselines["oracle"].score.mean, found.baselines["oracle"].n) == (1, 3)
    assert "was scored" in found.bias
    with pytest.raises(InputError, match="score of its answer"):
        evaluate("policy", grid_of(["?xy"]), baselines=FITTED, **(LIMITS))


def test_what_is_unknown_of_a_called_member_is_unknown_and_of_others_does_not_matter(play):
    """The price of `c` is unknown: the policy, which asks a and b, has a cost; whoever asks everyone has none."""
    play([[1, 1, 0], [1, 0, 0]], [0, 0])
    grid = grid_of(["xxy", "yxx"], costs=(0.5, 0.25, None), latencies=(1.0, None, 4.0))
    result = evaluate("policy", grid, baselines=FITTED, **LIMITS)
    assert result.policy.cost_usd == 5 / 8
    assert result.policy.latency_s is None
    assert result.baselines["single_best"].latency_s == 1
    assert result.baselines["plurality"].cost_usd is None


def test_an_option_that_no_member_gave_scores_for_the_policy_and_not_for_the_oracle(play):
    """The policy returns an option that nobody ranked first, and is right; the best answer of any member is wrong."""
    play([[1, 1, 0]], [-1], scores=[1.0])
    result = evaluate("policy", grid_of(["yyz"]), baselines=FITTED, **LIMITS)
    assert result.policy.score.mean == 1
    assert result.baselines["oracle"].score.mean == 0
    assert result.per_task["t"]["policy"] == 1
    assert result.oracle_gap_share is None, "there is no way to go"


def test_without_fitted_baselines_those_that_need_no_fit_are_there_and_look_at_no_score(play):
    """Ties go to the first of the pool; fitted, to the member that was best: `a`, or else `b`, who is right."""
    play([[1, 0, 0]], [0])
    grid = grid_of(["yxz"])
    result = evaluate("policy", grid, baselines={}, **LIMITS)
    assert list(result.baselines) == ["random_team", "plurality", "oracle"]
    assert result.oracle_gap_share is None
    assert set(result.missing_baselines) == set(BASELINES) - set(result.baselines)
    best_is_b = {"plurality": fit_plurality(grid_of(["yxy"]))}
    for baselines, score in (({}, 0), (FITTED, 0), (best_is_b, 1)):
        assert evaluate("policy", grid, baselines=baselines, **LIMITS).baselines["plurality"].score.mean == score


def test_hidden_task_labels_are_hidden_from_the_baselines_too(play):
    """The router knows that `c` is best on `s`; without the label it asks `a`, who is wrong there."""
    play([[1, 0, 0]], [0])
    router = fit_per_task_router(
        grid_of(["xyy", "xyy", "xyy", "yyx", "yyx"], tasks=["r"] * 3 + ["s"] * 2), shrinkage=0.5
    )
    grid = grid_of(["yyx"], tasks=["s"])
    for hidden, score in ((False, 1), (True, 0)):
        found = evaluate("policy", grid, baselines={"per_task_router": router}, hide_tasks=hidden, **LIMITS)
        assert found.baselines["per_task_router"].score.mean == score
        assert list(found.per_task) == ["s"]


def test_the_same_seed_gives_the_same_report(play):
    play([[1, 0, 0]] * 6, [0] * 6)
    grid = grid_of(["xyz", "yxx", "zyx", "xxy", "yyx", "xyy"])
    first, again, other = (evaluate("policy", grid, baselines={}, seed=seed, **LIMITS) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_pool_smaller_than_a_team_is_asked_whole_and_queries_left_out_or_missing_are_counted(play):
    """`max_team` is 2, the pool one member: so is the random team."""
    play([[1]], [0])
    grid = replace(grid_of(["x"], costs=(1.0,), latencies=(1.0,), members="a"), dropped=3, missing=1)
    result = evaluate("policy", grid, baselines={}, **LIMITS)
    assert result.baselines["random_team"].mean_calls == 1
    assert (result.dropped, result.missing) == (3, 1)
    assert (result.as_dict()["dropped"], result.as_dict()["missing"]) == (3, 1)


def test_people_read_a_row_for_the_policy_and_each_baseline(play):
    """Of two tasks the policy is right on one: macro ½."""
    play([[1, 0, 0]] * 2, [0, 0])
    result = evaluate("policy", grid_of(["xxy", "yxx"], tasks="st"), baselines=FITTED, **LIMITS)
    facts = {"policy_id": "p", "split": "test", "target": None, "task_labels": True, "repeated": 0, **LIMITS}
    facts["missing_is"] = "mask"
    console = Console(file=StringIO(), width=80)
    console.print(*evaluation_views(result, {**facts, "baselines_from": "checkpoint"}, []))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "policy 0.500 0.000 to 1.000 0.500 1.00" in lines
    assert "plurality 1.000 1.000 to 1.000 1.000 3.00 -0.500 -1.000 to +0.000" in lines


def test_many_tasks_of_one_query_are_measured_and_the_largest_are_shown(play):
    """The policy asks a, who is right on every other one; one task has two queries."""
    names = [f"t{n:03}" for n in range(200)]
    play([[1, 0, 0]] * 201, [0] * 201)
    grid = grid_of(["xyy", "yxx"] * 100 + ["xyy"], tasks=[*names, "t199"])
    result = evaluate("policy", grid, baselines=fit_baselines(grid, grid, max_team=2), **LIMITS)
    assert result.policy.macro == pytest.approx((100 + 1 / 2) / 200)
    facts = {"policy_id": "p", "split": "all", "target": None, "task_labels": True, "repeated": 0, **LIMITS}
    console = Console(file=StringIO(), width=80)
    console.print(*evaluation_views(result, {**facts, "baselines_from": "checkpoint", "missing_is": "mask"}, []))
    shown = console.file.getvalue()
    assert "without 160 of fewer queries" in shown
    assert "t199" in shown
    assert len(shown.splitlines()) < 80


def test_nothing_is_evaluated_on_no_query_or_without_a_member_of_the_baselines(play):
    play([[1, 0, 0]], [0])
    grid = grid_of(["xyz"])
    with pytest.raises(InputError, match="at least one query"):
        evaluate("policy", grid.take([]), baselines=FITTED, **LIMITS)
    with pytest.raises(PoolError, match="fitted on"):
        evaluate("policy", replace(grid, members=("a", "b", "d")), baselines=FITTED, **LIMITS)


def test_a_checkpoint_carries_the_baselines_and_stays_the_same_policy(tmp_path):
    """Saved and loaded, each decides as it did, on queries in another order of the members too; damaged ones are refused."""
    shapes = _shapes(3, 0, {"features": FEATURES_DIM, "decider": 4, "fusion": 4})
    weights = {name: np.ones(shape) for name, shape in shapes.items()}
    policy = RLFocalPolicy(Parts(members=SEEN.members, weights=weights))
    assert baselines_of(policy) == {}
    fitted = fit_baselines(SEEN, SEEN, max_team=2)
    arrays, facts = dump_baselines(fitted)
    carrying = RLFocalPolicy(replace(policy.parts, baselines=arrays, baseline_facts=facts))
    carrying.save(tmp_path / "policy")
    loaded = baselines_of(RLFocalPolicy.load(tmp_path / "policy"))
    assert (policy.policy_id, carrying.embedder) == (carrying.policy_id, policy.embedder)
    assert list(loaded) == list(fitted)
    grid = grid_of(["zyx", "xyz", "xxz"], members="cba")
    for name, baseline in fitted.items():
        decided, again = baseline.decide(grid), loaded[name].decide(grid)
        assert np.array_equal(decided.chosen, again.chosen), name
        assert np.array_equal(decided.asked, again.asked), name
    for change in ({"baselines": {}}, {"baseline_facts": {}}):
        with pytest.raises(CheckpointError, match="Stored baselines"):
            baselines_of(RLFocalPolicy(replace(carrying.parts, **change)))

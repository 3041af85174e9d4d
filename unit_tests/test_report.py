"""Report: every figure worked by hand, on a policy that does as it is told."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.evaluation import HEADER, evaluate, report
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

LIMITS = {"cost_weight": 0.1, "max_team": 2, "max_rounds": 2}


def grid_of(answers, *, tasks=None, costs=(0.5, 0.25, 0.125), latencies=(1.0, 2.0, 4.0), members="abc"):
    """One row of answers per query, a letter each; "x" is right."""
    rows = [
        Outcome(
            task=tasks[q] if tasks else "t",
            query_id=str(q),
            query=f"{q}?",
            model=member,
            answer=text,
            reward=float(text == "x"),
            cost_usd=cost,
            latency_s=latency,
        )
        for q, row in enumerate(answers)
        for member, text, cost, latency in zip(members, row, costs, latencies, strict=True)
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members))


VALIDATION = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""


@pytest.fixture
def play(monkeypatch):
    """Have `replay` follow a script: for each query the members asked, the one chosen, and the rounds."""

    def script(asked, chosen, rounds):
        def replayed(policy, grid, *, cost_weight, max_team, max_rounds, hide_tasks):
            assert (policy, cost_weight, max_team, max_rounds) == ("policy", *LIMITS.values())
            rows = np.array(asked, dtype=bool)
            return SimpleNamespace(
                asked=rows,
                chosen=np.array(chosen),
                scores=grid.scores[np.arange(len(grid)), chosen],
                calls=rows.sum(axis=1),
                rounds=np.array(rounds),
            )

        monkeypatch.setattr(report, "replay", replayed)

    return script


def test_every_figure_of_a_report_is_worked_by_hand(play):
    """Four queries in two tasks; the policy asks a, a and b, b, b and c, and is right on the first three.

    Policy: score ¾; calls (1 + 2 + 1 + 2)/4 = 3/2; dollars (½ + ¾ + ¼ + ⅜)/4 = 15/32; the slowest takes 1, 2, 2, 4 s.
    Single best `a` is right on the first: ¼. Plurality: x, x, x (two of three) and y: ¾. The Oracle: 1, as c is right on
    the last. The policy is ⅔ of the way from ¼ to 1.
    """
    play([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1]], [0, 1, 1, 1], [1, 2, 1, 1])
    grid = grid_of(["xxy", "yxx", "yxx", "yyx"], tasks=["s", "s", "t", "t"])
    result = evaluate("policy", grid, validation=VALIDATION, **LIMITS)
    found = result.as_dict()
    policy = found["policy"]
    low, high = policy.pop("ci95")
    assert low < 3 / 4 < high
    assert policy == {
        "score": 3 / 4,
        "mean_calls": 3 / 2,
        "mean_team": 3 / 2,
        "mean_rounds": 5 / 4,
        "cost_usd": 15 / 32,
        "latency_s": 9 / 4,
        "n": 4,
    }
    assert list(found["baselines"]) == ["single_best", "random_team", "plurality", "weighted_vote", "oracle"]
    expected = {"single_best": (1 / 4, 1, 1 / 2, 1), "plurality": (3 / 4, 3, 7 / 8, 4), "oracle": (1, 3, 7 / 8, 4)}
    for name, (score, calls, cost, latency) in expected.items():
        figures = found["baselines"][name]
        assert (figures["score"], figures["mean_calls"]) == (score, calls), name
        assert (figures["cost_usd"], figures["latency_s"], figures["n"]) == (cost, latency, 4), name
    assert found["baselines"]["random_team"]["mean_calls"] == LIMITS["max_team"]
    assert found["differences"]["single_best"]["mean"] == 1 / 2
    assert found["differences"]["plurality"] == {"mean": 0, "ci95": [0, 0]}, "right on the very same queries"
    assert found["differences"]["oracle"]["mean"] == -1 / 4
    assert found["oracle_gap_share"] == pytest.approx(2 / 3)
    assert list(found["per_task"]) == ["s", "t"]
    for task, scores in {"s": (1.0, 0.5, 1.0, 1.0), "t": (0.5, 0.0, 0.5, 1.0)}.items():
        part = found["per_task"][task]
        assert part["n"] == 2
        assert tuple(part[name] for name in ("policy", "single_best", "plurality", "oracle")) == scores
    assert found["dropped"] == 0
    assert json.loads(json.dumps(found)) == found


def test_what_is_unknown_of_a_called_member_is_unknown_and_of_others_does_not_matter(play):
    """The price of `c` is unknown: the policy, which asks a and b, has a cost; whoever asks everyone has none."""
    play([[1, 1, 0], [1, 0, 0]], [0, 0], [1, 1])
    grid = grid_of(["xxy", "yxx"], costs=(0.5, 0.25, None), latencies=(1.0, None, 4.0))
    result = evaluate("policy", grid, validation=VALIDATION, **LIMITS)
    assert result.policy.cost_usd == 5 / 8
    assert result.policy.latency_s is None
    assert result.baselines["single_best"].latency_s == 1
    assert result.baselines["plurality"].cost_usd is None


def test_without_validation_no_baseline_looks_at_a_score(play):
    """What chooses by validation scores is left out, and ties go to the first of the pool."""
    play([[1, 0, 0]], [0], [1])
    result = evaluate("policy", grid_of(["yxz"]), validation=None, **LIMITS)
    assert list(result.baselines) == ["random_team", "plurality", "oracle"]
    assert result.baselines["plurality"].score.mean == 0
    assert result.oracle_gap_share is None


def test_the_same_seed_gives_the_same_report(play):
    play([[1, 0, 0]] * 6, [0] * 6, [1] * 6)
    grid = grid_of(["xyz", "yxx", "zyx", "xxy", "yyx", "xyy"])
    first, again, other = (evaluate("policy", grid, validation=VALIDATION, seed=seed, **LIMITS) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_pool_smaller_than_a_team_is_asked_whole(play):
    """`max_team` is 2, the pool one member: so is the random team."""
    play([[1]], [0], [1])
    grid = grid_of(["x"], costs=(1.0,), latencies=(1.0,), members="a")
    assert evaluate("policy", grid, validation=grid, **LIMITS).baselines["random_team"].mean_calls == 1


def test_a_table_has_a_row_for_the_policy_and_each_baseline(play):
    play([[1, 0, 0]] * 2, [0, 0], [1, 1])
    grid = grid_of(["xxy", "yxx"], costs=(None, 0.25, 0.125))
    rows = evaluate("policy", grid, validation=VALIDATION, **LIMITS).table()
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[0] == ("policy", "0.500", "0.000 to 1.000", "1.00", "unknown", "1.00", "", "")
    assert [row[0] for row in rows] == ["policy", "single_best", "random_team", "plurality", "weighted_vote", "oracle"]
    assert rows[3] == ("plurality", "1.000", "1.000 to 1.000", "3.00", "unknown", "4.00", "-0.500", "-1.000 to +0.000")


def test_nothing_is_evaluated_on_no_query_or_with_another_pool(play):
    play([[1, 0, 0]], [0], [1])
    grid = grid_of(["xyz"])
    with pytest.raises(InputError, match="at least one query"):
        evaluate("policy", grid.take([]), validation=VALIDATION, **LIMITS)
    with pytest.raises(InputError, match="validation query"):
        evaluate("policy", grid, validation=VALIDATION.take([]), **LIMITS)
    with pytest.raises(PoolError, match="fitted on"):
        evaluate("policy", grid, validation=replace(VALIDATION, members=("c", "b", "a")), **LIMITS)

"""Fitting all baselines: which rows decide what, supervised fusion, and pools in which there is nothing to learn."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, MissingDependencyError, PoolError
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    FittedSupervisedFusion,
    Oracle,
    Plurality,
    SupervisedFusion,
    WeightedVote,
    fit_baselines,
    missing_baselines,
)
from langchain_rlfocal.evaluation.votes import log_odds
from langchain_rlfocal.outcomes import Outcome, OutcomeTable


def grid_of(answers, *, members="abcd"):
    """One row of answers per query, a letter each or `-` for none; "x" is right. Queries take turns in two tasks."""
    rows = [
        Outcome(
            task=f"t{q % 2}",
            query_id=str(q),
            query=f"{q}?",
            model=member,
            answer=None if text == "-" else text,
            reward=float(text == "x"),
        )
        for q, row in enumerate(answers)
        for member, text in zip(members, row, strict=False)
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members[: len(answers[0])]))


def drawn(num_queries, *, right, seed):
    """Answers of members that are right that often, else wrong in one of two ways or silent."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(list("yz-"), size=(num_queries, len(right)))
    rows = np.where(rng.random(wrong.shape) < right, "x", wrong)
    return grid_of(["".join(row) for row in rows])


def score(fitted, grid):
    return grid.scores[np.arange(len(grid)), fitted.decide(grid).chosen].mean()


def test_every_baseline_is_fitted_under_its_name():
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    fitted = fit_baselines(
        drawn(40, right=(0.6, 0.5, 0.4), seed=1), drawn(10, right=(0.6, 0.5, 0.4), seed=2), max_team=2
    )
    assert tuple(fitted) == BASELINES
    assert missing_baselines(fitted) == ()


def test_every_baseline_learns_from_training_and_validation_rows_together():
    """`a` is right on 3 training rows, `b` on 1; on validation 2 and 3: together 5 and 4, so `a` is the better one.

    With 0 and 4 on validation it is `b`. A vote of two that differ goes to the better one, as everything else here does.
    """
    fitted = fit_baselines(grid_of(["xy", "xy", "xy", "yx"]), grid_of(["yx", "yx", "xy", "xx"]), max_team=1)
    grid = grid_of(["xy"])
    chosen = {name: baseline.decide(grid).chosen.tolist()[0] for name, baseline in fitted.items()}
    assert chosen.pop("oracle") == 0
    assert set(chosen) == set(BASELINES[:-1]) - set(missing_baselines(fitted))
    del chosen["random_team"]
    assert set(chosen.values()) == {0}
    more = fit_baselines(grid_of(["xy", "xy", "xy", "yx"]), grid_of(["yx", "yx", "yx", "yx"]), max_team=1)
    assert more["single_best"].decide(grid).chosen.tolist() == [1]


def test_k_is_the_smallest_that_is_best_on_validation():
    """In training `a`, `b`, `c` are in this order. On validation three of them outvote `a`, and only then: k = 3."""
    train = grid_of(["xxx", "xxy", "xyy"])
    assert fit_baselines(train, grid_of(["yxx", "xyy", "yxx"]), max_team=3)["top_k"].team.sum() == 3
    assert fit_baselines(train, grid_of(["xyx", "xyy", "xxx"]), max_team=3)["top_k"].team.sum() == 1
    assert fit_baselines(train, grid_of(["yxx"]), max_team=2)["top_k"].team.sum() == 1


def test_no_team_is_larger_than_allowed_nor_than_the_pool():
    train, validation = drawn(60, right=(0.6, 0.6, 0.6, 0.6), seed=3), drawn(20, right=(0.6, 0.6, 0.6, 0.6), seed=4)
    for max_team, largest in ((1, 1), (2, 2), (9, 4)):
        fitted = fit_baselines(train, validation, max_team=max_team)
        assert fitted["random_team"].size == fitted["best_fixed_team"].largest_tried == largest
        assert max(fitted[name].decide(validation).calls.max() for name in ("top_k", "best_fixed_team")) <= largest


def test_the_same_rows_and_seed_fit_the_same_baselines():
    train, validation = drawn(50, right=(0.6, 0.5, 0.4), seed=5), drawn(20, right=(0.6, 0.5, 0.4), seed=6)
    first, again = (fit_baselines(train, validation, max_team=2, seed=7) for _ in range(2))
    for name, baseline in first.items():
        one, two = baseline.decide(validation), again[name].decide(validation)
        np.testing.assert_array_equal(one.chosen, two.chosen)
        np.testing.assert_array_equal(one.asked, two.asked)


@settings(max_examples=30)
@given(
    st.integers(1, 4).flatmap(
        lambda size: st.tuples(
            *[st.lists(st.text("xyz-", min_size=size, max_size=size), min_size=1, max_size=5) for _ in range(3)]
        )
    )
)
def test_from_one_query_or_one_member_on_all_decide_and_none_beats_the_oracle(rows):
    """Grids of one query, of one member, all silent, all right, all wrong: no warning, no NaN, an asked member speaks."""
    train, validation, grid = map(grid_of, rows)
    fitted = fit_baselines(train, validation, max_team=2)
    best = score(Oracle().fit(train), grid)
    for baseline in fitted.values():
        decision = baseline.decide(grid)
        assert decision.asked[np.arange(len(grid)), decision.chosen].all()
        assert 0 <= score(baseline, grid) <= best


@pytest.mark.parametrize("letter", "xy-")
def test_a_pool_that_is_always_right_wrong_or_silent_is_all_one(letter):
    grid = grid_of([letter * 3] * 6)
    for baseline in fit_baselines(grid, grid, max_team=3).values():
        assert score(baseline, grid) == (letter == "x")
        assert (baseline.decide(grid).calls >= 1).all()


def test_what_cannot_be_fitted_is_refused():
    grid = grid_of(["xyz"])
    with pytest.raises(PoolError, match="must have the members of `train_grid`"):
        fit_baselines(grid, replace(grid, members=("c", "b", "a")), max_team=2)
    with pytest.raises(InputError, match="`max_team` must be at least 1, got 0"):
        fit_baselines(grid, grid, max_team=0)
    for train, validation in ((grid.take([]), grid), (grid, grid.take([]))):
        with pytest.raises(InputError, match="at least one training and one validation query"):
            fit_baselines(train, validation, max_team=2)


def test_without_scikit_learn_supervised_fusion_is_missing_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    grid = grid_of(["xyz", "xxy"])
    assert missing_baselines(fit_baselines(grid, grid, max_team=2)) == ("supervised_fusion",)
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain-rlfocal\[evaluation\]'"):
        SupervisedFusion().fit(grid)


def test_fitted_supervised_fusion_needs_no_scikit_learn(monkeypatch):
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    fitted = SupervisedFusion().fit(drawn(50, right=(0.7, 0.5), seed=1))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert fitted.decide(grid_of(["xy"])).calls.tolist() == [2]


NO_TASK = {"tasks": ("other",), "task_weights": np.full((1, 4), 9.0)}


@pytest.mark.parametrize("task_scale", [0.0, 0.5])
def test_supervised_fusion_returns_the_answer_that_its_regression_finds_most_probable(task_scale):
    """The regression of scikit-learn, fitted here on features made one by one, ranks the answers of new queries alike."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="supervised fusion is fitted by scikit-learn")
    train, new = drawn(200, right=(0.7, 0.5, 0.4, 0.3), seed=8), drawn(200, right=(0.7, 0.5, 0.4, 0.3), seed=9)
    odds = log_odds(train)

    def examples(row, task):
        for text in sorted({text for text in row if text is not None}):
            gave = np.array([float(other == text) for other in row])
            share = gave.sum() / sum(other is not None for other in row)
            on_task = [task_scale * gave * (task == name) for name in ("t0", "t1")]
            yield text, [*gave, share, gave @ odds, *np.concatenate(on_task)]

    made = [example for row, task in zip(train.answers, train.tasks, strict=True) for example in examples(row, task)]
    model = linear_model.LogisticRegression(max_iter=1000).fit([f for _, f in made], [text == "x" for text, _ in made])
    own, (of_share, of_odds), on_task = np.split(model.coef_[0], [4, 6])
    fitted = SupervisedFusion(task_scale).fit(train)
    assert fitted.share == pytest.approx(of_share, rel=1e-3)
    np.testing.assert_allclose(fitted.weights, own + of_odds * odds, atol=1e-3)
    np.testing.assert_allclose(fitted.task_weights, task_scale * on_task.reshape(2, 4), atol=1e-3)
    decision = fitted.decide(new)
    for row, task, chosen in zip(new.answers, new.tasks, decision.chosen, strict=True):
        logits = {text: float(model.decision_function([f])[0]) for text, f in examples(row, task)}
        if logits:
            assert logits[row[chosen]] == pytest.approx(max(logits.values()), abs=1e-3)


def test_supervised_fusion_learns_who_is_right_on_which_task():
    """`a` is right on the one task, `b` on the other: where no task is told, both weigh alike."""
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(["xy", "yx"] * 20)
    fitted = SupervisedFusion().fit(grid)
    assert score(fitted, grid) == 1
    assert score(SupervisedFusion(0.0).fit(grid), grid) == 0.5
    assert fitted.weights[0] == pytest.approx(fitted.weights[1], abs=1e-3)
    assert fit_baselines(grid, grid, max_team=2)["supervised_fusion"].task_weights.any()


def test_what_a_share_of_the_votes_is_worth_depends_on_how_many_votes_there_are():
    """Three votes, a third of 1.5 for each: 1 + ½ < 2 (0.3 + ½). Four votes, a quarter: 1 + ⅜ > 2 (0.3 + ⅜)."""
    fitted = FittedSupervisedFusion(
        members=tuple("abcd"), weights=np.array([1, 0.3, 0.3, 0.3]), share=1.5, competence=np.ones(4), **NO_TASK
    )
    assert fitted.decide(grid_of(["xyy-", "xyyz"])).chosen.tolist() == [1, 0]


def test_supervised_fusion_sees_through_members_that_copy_each_other():
    """`b`, `c` and `d` always say the same, right on 5 of 8; `a` is right on 6 of 8. Three votes of one opinion win every
    vote, weighted or not: 3 ln 5/3 > ln 3. The regression sees that where they differ `a` is right in 3 of 5.
    """
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(["xxxx", "xyyy", "xxxx", "yxxx", "xyyy", "xxxx", "xyyy", "yxxx"] * 10)
    assert score(Plurality().fit(grid), grid) == 5 / 8
    assert score(WeightedVote().fit(grid), grid) == 5 / 8
    assert score(SupervisedFusion().fit(grid), grid) == 6 / 8


@pytest.mark.parametrize("task_scale", [-0.1, float("nan"), float("inf")])
def test_a_task_scale_below_nothing_is_refused(task_scale):
    with pytest.raises(InputError, match="`task_scale` must be finite and not negative"):
        SupervisedFusion(task_scale).fit(grid_of(["xy"]))


@pytest.mark.parametrize("rows", [["xx", "x-"], ["yz", "zy"]])
def test_where_all_answers_are_right_or_wrong_votes_weigh_their_log_odds(rows):
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(rows)
    fitted = SupervisedFusion().fit(grid)
    np.testing.assert_array_equal(fitted.weights, log_odds(grid))
    assert fitted.share == 0
    assert not fitted.task_weights.any()

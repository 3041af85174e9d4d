"""Rivals: the hull and the area under it by hand, what each rival asks, one that must win, and one that must not."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.evaluation import rivals
from langchain_rlfocal.evaluation.baselines import Baseline, dump_baselines, load_baselines
from langchain_rlfocal.evaluation.rivals import (
    COST_WEIGHTS,
    RIVALS,
    average_quality,
    compare_frontiers,
    fit_agreement_cascade,
    fit_priced_task_table,
    fit_rivals,
    hull_of,
    spending_of,
    spending_range,
    unit_of,
)
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy

LIMITS = {"max_team": 2, "max_rounds": 2}


def grid_of(answers, *, tasks=None, costs=(1.0, 3.0, 4.0), members="abc", propensities=None):
    """One row of answers per query: "x" is right, ` ` a hole, `-` a text without a label, `.` silence."""
    rows = [
        Outcome(
            task=tasks[q] if tasks else "t",
            query_id=str(q),
            query=f"{q}?",
            model=members[m],
            answer=None if text in "-." else text,
            response={".": "", "-": "A text."}.get(text),
            reward=float(text == "x"),
            propensity=propensities[q] if propensities else None,
            cost_usd=None if costs is None else costs[m],
        )
        for q, row in enumerate(answers)
        for m, text in enumerate(row)
        if text != " "
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members[: len(answers[0])]), missing="mask")


# ---- the measure


@pytest.mark.parametrize(
    ("points", "on", "area"),
    [
        # From (1, ½) to (3, ¾) 5/4, then flat ¾: 2 over 3. (2, 0.6) lies below the line between them, at 0.625.
        ([(3, 0.75), (1, 0.5), (2, 0.6)], [1, 0], 2 / 3),
        # Begins later: on the line from nothing, ⅜ at 1; 9/16 to 2, then 3/2: 33/16 over 3.
        ([(2, 0.75)], [0], 11 / 16),
        # Dearer and worse counts for nothing.
        ([(1, 0.5), (4, 0.4)], [0], 0.5),
        # Cheaper than the range: the hull is flat all along it.
        ([(0.5, 0.9)], [0], 0.9),
        # On the line from nothing to (2, 1): neither above nor below. ½ to 1 and then 1: 3/4 + 2 over 3.
        ([(1, 0.5), (2, 1.0)], [1], 11 / 12),
        # Something for nothing, then on to 1 at 4: 3/4 on average of 5/8 and 1.
        ([(0, 0.5), (4, 1.0)], [0, 1], 13 / 16),
        # Of equal spending the better one.
        ([(1, 0.3), (1, 0.5)], [1], 0.5),
        ([(1, 0.0), (2, 0.0)], [], 0.0),
    ],
)
def test_the_area_under_the_hull_is_worked_by_hand(points, on, area):
    """Spending from 1 to 4."""
    spending, scores = np.array(points, dtype=float).T
    assert hull_of(spending, scores).tolist() == on
    assert average_quality(spending, scores, low=1.0, high=4.0) == pytest.approx(area)


def test_of_an_empty_range_the_quality_is_the_score_there():
    """Half-way from nothing to (2, ¾), and at the point itself."""
    point = np.array([2.0]), np.array([0.75])
    assert average_quality(*point, low=1.0, high=1.0) == 0.375
    assert average_quality(*point, low=2.0, high=2.0) == 0.75


points = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 20).map(lambda n: n / 20)
)


@given(points, st.randoms(use_true_random=False))
def test_a_hull_is_concave_above_every_point_and_does_not_know_their_order(found, random):
    spending, scores = 3 * found[:, 0], found[:, 1]
    on = hull_of(spending, scores)
    x, y = np.concatenate([[0.0], spending[on]]), np.concatenate([[0.0], scores[on]])
    assert (np.diff(y) > 0).all()
    steep = np.diff(x) > 0
    slopes = np.diff(y)[steep] / np.diff(x)[steep]
    assert (np.diff(slopes) < 1e-9).all()
    for one, other in zip(spending, scores, strict=True):
        assert average_quality(spending, scores, low=one, high=one) >= other - 1e-12
    area = average_quality(spending, scores, low=0.5, high=2.0)
    assert 0 <= area <= scores.max() + 1e-12
    order = random.sample(range(len(found)), len(found))
    assert average_quality(spending[order], scores[order], low=0.5, high=2.0) == pytest.approx(area)


def test_spending_is_dollars_where_every_call_has_them_and_else_calls():
    priced, free = grid_of(["xyz"] * 2), grid_of(["xyz"] * 2, costs=(0.0, 0.0, 0.0))
    holes = grid_of(["xyz", "x z"])
    partly = replace(priced, cost_usd=np.array([[1.0, np.nan, 4.0], [2.0, 3.0, 4.0]]))
    assert [unit_of(each, "auto") for each in (priced, holes, free, partly)] == ["usd", "usd", "calls", "calls"]
    assert [unit_of(priced, unit) for unit in ("usd", "calls", "tokens")] == ["usd", "calls", "calls"], (
        "no tokens known"
    )
    assert unit_of(partly, "usd") == "usd", "as it is asked for"
    assert spending_of(partly, "usd").tolist() == [[1, 3, 4], [2, 3, 4]], "unknown: the member's mean"
    assert spending_of(holes, "usd").tolist() == [[1, 3, 4], [1, 3, 4]]
    assert spending_range(spending_of(partly, "usd"), max_team=2) == (1.5, 4.0)
    assert spending_range(spending_of(priced, "calls"), max_team=2) == (1.0, 2.0)
    assert spending_range(spending_of(priced, "calls"), max_team=7) == (1.0, 3.0), "of three members"


# ---- what rivals ask


def decided(rival, grid):
    way = {"priced_task_table": rivals._tables, "agreement_cascade": rivals._cascades}[rival.name]
    return list(way(rival, grid))


def test_the_table_asks_by_score_on_the_task_less_price_by_hand():
    """Prices 1/4, 3/4. On s: a 1 of 2, b 2 of 2; overall ½ and ¾. Shrunk by 2: a (1 + 1)/4, b (2 + 3/2)/4 = 7/8.

    On t: a 1 of 2, b 1 of 2: ½ and (1 + 3/2)/4 = 5/8. So b is asked on s as long as 3/8 > λ/2, on t as long as 1/8 >
    λ/2.
    """
    grid = grid_of(["xx", "yx", "xx", "yy"], tasks="sstt")
    fitted = fit_priced_task_table(grid, shrinkage=2.0, unit="usd")
    np.testing.assert_allclose(fitted.learned["table"], [[1 / 2, 7 / 8], [1 / 2, 5 / 8]])
    np.testing.assert_allclose(fitted.learned["price"], [1 / 4, 3 / 4])
    on = {"s": 3 / 4, "t": 1 / 4, "new": 1 / 2}
    for setting, asked, scores in decided(fitted, grid_of(["xy"] * 3, tasks=list(on))):
        is_dear = [setting["cost_weight"] < bound for bound in on.values()]
        assert asked[:, 1].tolist() == is_dear
        assert scores.tolist() == [0.0 if dear else 1.0 for dear in is_dear]


@pytest.mark.parametrize(
    ("row", "agree", "asked", "score"),
    [
        ("xyx", 1, 1, 1.0),
        (".yx", 1, 2, 0.0),  # silence agrees with nobody, not even itself
        ("-yx", 1, 1, 0.0),  # a text without a label is an answer
        ("yyx", 2, 2, 0.0),
        ("yxx", 2, 3, 1.0),
        ("--x", 2, 3, 1.0),  # texts without a label do not agree
        ("xyz", 2, 3, 1.0),  # nobody agrees: the most competent's
        ("zyx", 2, 3, 0.0),
        ("xxx", 3, 3, 1.0),
        ("yyxz", 2, 2, 0.0),  # who has stopped does not go on
    ],
)
def test_a_cascade_asks_until_so_many_agree(row, agree, asked, score):
    """Members in turn, the first the most competent."""
    learned = {
        "order": np.array([range(len(row))]),
        "agree": np.array([agree]),
        "most": np.array([len(row)]),
        "competence": np.array([0.9, 0.5, 0.4, 0.3])[: len(row)],
    }
    members = "abcd"[: len(row)]
    grid = grid_of([row], members=members, costs=None)
    ((setting, called, scores),) = decided(Baseline("agreement_cascade", tuple(members), learned), grid)
    assert setting == {"order": list(members), "agree": agree}
    assert called[0].tolist() == [place < asked for place in range(len(row))]
    assert scores.tolist() == [score]


def test_a_cascade_learns_to_ask_two_cheap_members_before_the_dear_one():
    """a and b cost 1 and agree when right; where they differ c, at 8, is right: 2 + 8/4 = 4 rather than 8."""
    grid = grid_of(["xxx", "xxx", "xxx", "yzx"] * 5, costs=(1.0, 1.0, 8.0))
    fitted = fit_agreement_cascade(grid, max_team=3, unit="usd")
    found = {(tuple(s["order"]), s["agree"]): (a, r) for s, a, r in decided(fitted, grid)}
    asked, scores = found[("a", "b", "c"), 2]
    assert scores.mean() == 1.0
    assert (asked * [1, 1, 8]).sum(axis=1).mean() == 4.0
    assert len(found) == len(fitted.learned["order"]) <= len(COST_WEIGHTS)
    assert max(len(order) for order, _ in found) <= 3
    short = fit_agreement_cascade(grid, max_team=2, unit="usd")
    assert short.learned["most"].max() == 2


def test_cascades_that_do_the_same_count_once_so_that_there_is_room_for_others():
    """Six members, of whom a is silent on one of ten queries: then b is asked, and whoever is named third never is.

    So hundreds of orders with k = 1 score and spend the same. One of those is kept, and two of three who agree are kept
    too.
    """
    rows = ["xxxxxx", "yxxxxx", "xyxxxx", "xxyxxx", ".xxxxx", "xxxyyy", "xzzxxx", "zxxzxx", "xxzzzz", "yyyxxx"]
    grid = grid_of(rows * 2, members="abcdef", costs=None)
    fitted = fit_agreement_cascade(grid, max_team=5)
    figures = [(asked.sum(axis=1).mean(), scores.mean()) for _, asked, scores in decided(fitted, grid)]
    assert len(set(figures)) == len(figures) > 10
    assert {1, 2} <= set(fitted.learned["agree"].tolist())


# ---- who is ahead


@pytest.fixture
def play(monkeypatch):
    """A policy whose every cost weight asks the same members and returns the answer of the last."""

    def script(asked):
        monkeypatch.setattr(rivals, "environment_of", lambda policy, grid, **limits: grid)

        def played(grid):
            of = np.array(asked, dtype=bool)
            last = of.shape[1] - 1 - of[:, ::-1].argmax(axis=1)
            known = (grid.recorded | ~of).all(axis=1)
            return SimpleNamespace(asked=of, scores=np.where(known, grid.scores[np.arange(len(grid)), last], np.nan))

        def replays(policy, grid, *, hide_tasks):
            return SimpleNamespace(at=lambda point: played(grid))

        monkeypatch.setattr(rivals, "Replays", replays)

        def describe(queries, tasks, members):
            same = np.full((len(queries), len(members)), 0.5)
            return SimpleNamespace(competence=same, price=np.full(len(members), 1 / len(members)))

        return SimpleNamespace(describe=describe, policy_id="scripted")

    return script


KNOWS_TASKS = grid_of(["xy"] * 20 + ["yx"] * 20, tasks="s" * 20 + "t" * 20)
"""a, at 1, is right on s alone, and b, at 3, on t alone."""


def test_a_table_wins_where_tasks_tell_who_is_right_by_hand(play):
    """The policy always asks b: (3, ½), and 1/6 at 1: ⅓ on average from 1 to 3.

    The table asks a on s and b on t for 2, and a alone for 1: (1, ½), (2, 1): ¾ and 1 on average: ⅞. The linear router,
    blind, asks a: ½.
    """
    fitted = {"priced_task_table": fit_priced_task_table(KNOWS_TASKS, unit="usd")}
    found = compare_frontiers(play([[False, True]] * 40), KNOWS_TASKS, fitted, **LIMITS)
    assert (found.unit, found.low, found.high) == ("usd", 1.0, 3.0)
    assert found.policy.aiq == pytest.approx(1 / 3)
    assert [(p.spending, p.score, p.n) for p in found.policy.hull] == [(3.0, 0.5, 40)]
    assert found.rivals["priced_task_table"].aiq == pytest.approx(7 / 8)
    assert found.rivals["priced_linear_router"].aiq == pytest.approx(1 / 2)
    assert found.ahead == ("priced_task_table", "priced_linear_router")
    assert found.missing == ("agreement_cascade",)
    difference = found.differences["priced_task_table"]
    assert difference.mean == pytest.approx(1 / 3 - 7 / 8)
    assert difference.low < difference.mean < difference.high < 0
    said = found.as_dict()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["ahead"] == list(found.ahead)


def test_no_rival_wins_where_tasks_tell_nothing_and_the_policy_knows(play):
    """The same answers under one task: the table can but ask a, ½ throughout. The policy asks whoever is right: (2, 1).

    On the line from nothing: ½ at 1, ¾ on average to 2, then 1: ⅞. No cascade of a and b tells more: they never agree.
    """
    grid = replace(KNOWS_TASKS, tasks=["t"] * 40)
    fitted = fit_rivals(grid.take(range(0, 40, 2)), grid.take(range(1, 40, 2)), max_team=2)
    policy = play([[text == "x" for text in row] for row in grid.canonical().answers])
    found = compare_frontiers(policy, grid, fitted, **LIMITS)
    assert found.policy.aiq == pytest.approx(7 / 8)
    assert [found.rivals[name].aiq for name in RIVALS] == pytest.approx([1 / 2] * 3)
    assert (found.ahead, found.missing) == ((), ())
    assert all(difference.low > 0 for difference in found.differences.values())


def test_hidden_tasks_are_hidden_from_the_table(play):
    """It then asks who is best overall: here a, at ½, throughout."""
    fitted = {"priced_task_table": fit_priced_task_table(KNOWS_TASKS, unit="usd")}
    policy = play([[False, True]] * 40)
    found = compare_frontiers(policy, KNOWS_TASKS, fitted, **LIMITS, hide_tasks=True)
    assert found.rivals["priced_task_table"].aiq == pytest.approx(1 / 2)


def test_queries_with_holes_count_where_all_that_a_point_asks_is_on_record_by_hand(play):
    """The policy asks b: 2nd to 4th query, right on two: ⅔. The table asks a: on the first three, ⅓ at 1."""
    grid = grid_of(["x ", "yx", "yx", " y"])
    table = Baseline(
        "priced_task_table",
        ("a", "b"),
        {
            "tasks": ("t",),
            "table": np.array([[0.9, 0.1]]),
            "overall": np.array([0.9, 0.1]),
            "price": np.array([0.2, 0.8]),
        },
    )
    found = compare_frontiers(play([[False, True]] * 4), grid, {"priced_task_table": table}, **LIMITS)
    (of_policy,), (of_table,) = found.policy.hull, found.rivals["priced_task_table"].hull
    assert (of_policy.spending, of_policy.score, of_policy.n) == (3.0, pytest.approx(2 / 3), 3)
    assert (of_table.spending, of_table.score, of_table.n) == (1.0, pytest.approx(1 / 3), 3)
    with pytest.raises(InputError, match="at least one must have on record"):
        compare_frontiers(play([[True, True]]), grid_of(["x ", " y"]).take([0]), {}, **LIMITS)


def test_known_propensities_weigh_the_queries_of_a_point(play):
    """b was asked with ¼ where it is right and with ½ where not: weights 4 and 2, score ⅔."""
    grid = grid_of(["yx", "yy"], propensities=[0.25, 0.5])
    grid = replace(grid, recorded=np.array([[True, True], [False, True]]))
    found = compare_frontiers(play([[False, True]] * 2), grid, {}, **LIMITS)
    assert found.policy.hull[0].score == pytest.approx(2 / 3)


def drawn(num_queries, seed):
    rng = np.random.default_rng(seed)
    tasks = rng.integers(3, size=num_queries)
    right = np.array([[0.9, 0.4, 0.5], [0.3, 0.6, 0.8], [0.5, 0.6, 0.7]])[tasks]
    answers = np.where(rng.random(right.shape) < right, "x", rng.choice(list("yz"), right.shape))
    answers[rng.random(right.shape) < 0.1] = " "
    answers[:, 0] = np.where((answers == " ").all(axis=1), "y", answers[:, 0])
    return grid_of(["".join(row) for row in answers], tasks=[f"t{task}" for task in tasks])


def turned(grid, seed):
    """The same outcomes, rows and members in another order."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(grid.members).tolist()
    table = OutcomeTable.from_outcomes(
        Outcome(
            task=grid.tasks[q],
            query_id=grid.query_ids[q],
            query=grid.queries[q],
            model=name,
            answer=grid.answers[q, m],
            reward=float(grid.scores[q, m]),
            cost_usd=float(grid.cost_usd[q, m]),
        )
        for q in rng.permutation(len(grid))
        for m, name in enumerate(grid.members)
        if grid.recorded[q, m]
    )
    return table.grid(members, missing="mask")


def test_the_order_of_rows_and_members_changes_nothing(random_policy):
    learned, chosen, test = drawn(80, 1), drawn(40, 2), drawn(60, 3)
    policy = random_policy(["c", "a", "b"])
    one = compare_frontiers(policy, test, fit_rivals(learned, chosen, max_team=3), **LIMITS).as_dict()
    fitted = fit_rivals(turned(learned, 4), turned(chosen, 5), max_team=3)
    two = compare_frontiers(policy, turned(test, 6), fitted, **LIMITS).as_dict()
    assert one == two
    assert set(one["rivals"]) == set(RIVALS)
    assert all(frontier["tried"] <= len(COST_WEIGHTS) for frontier in one["rivals"].values())


def test_a_policy_is_measured_at_as_many_points_as_its_rivals_with_prices(random_policy):
    found = compare_frontiers(random_policy(["a", "b"]), KNOWS_TASKS, {}, **LIMITS)
    assert found.policy.tried == found.rivals["priced_linear_router"].tried == len(COST_WEIGHTS) == 41
    weights = [point.setting["cost_weight"] for point in found.policy.hull]
    assert set(weights) <= set(COST_WEIGHTS)


def test_test_scores_move_no_point(random_policy):
    """With every score turned over, each point asks and spends the same."""
    fitted, test = fit_rivals(drawn(80, 1), drawn(40, 2), max_team=3), drawn(60, 3)
    for rival in fitted.values():
        for one, two in zip(decided(rival, test), decided(rival, replace(test, scores=1 - test.scores)), strict=True):
            assert one[0] == two[0]
            np.testing.assert_array_equal(one[1], two[1])


# ---- in a checkpoint


def test_rivals_come_out_of_a_checkpoint_as_they_went_in():
    fitted = fit_rivals(drawn(80, 1), drawn(40, 2), max_team=3)
    arrays, facts = dump_baselines(fitted)
    loaded = load_baselines(arrays, json.loads(json.dumps(facts)))
    test = drawn(60, 3)
    assert list(loaded) == list(fitted)
    for name, rival in fitted.items():
        for one, two in zip(decided(rival, test), decided(loaded[name], test), strict=True):
            assert one[0] == two[0]
            np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize(
    ("part", "value", "rule"),
    [
        ("agreement_cascade.order", [[0, 0, 1]], "all members in each row"),
        ("agreement_cascade.order", [[0, 1, 3]], "all members in each row"),
        ("agreement_cascade.agree", [0], "from 1 to the number of members"),
        ("agreement_cascade.most", [4], "from 1 to the number of members"),
        ("agreement_cascade.most", [1.0], "from 1 to the number of members"),
        ("agreement_cascade.competence", [0.1, np.nan, 0.2], "none of them NaN"),
        ("priced_task_table.table", [[0.1, np.inf, 0.2]], "none of them NaN"),
        ("priced_task_table.price", [0.5, 0.5], "with M = 3"),
    ],
)
def test_what_a_stranger_wrote_into_a_rival_is_refused(part, value, rule):
    fitted = {
        "priced_task_table": fit_priced_task_table(grid_of(["xyz"])),
        "agreement_cascade": fit_agreement_cascade(grid_of(["xyz"]), max_team=1),
    }
    arrays, facts = dump_baselines(fitted)
    points = ("order", "agree", "most")
    arrays |= {f"agreement_cascade.{name}": arrays[f"agreement_cascade.{name}"][:1] for name in points}
    load_baselines(arrays, facts)
    with pytest.raises(CheckpointError, match=rule):
        load_baselines({**arrays, part: np.array(value)}, facts)


def test_bad_arguments_are_refused():
    grid = grid_of(["xyz"])
    for bad in ((grid.take([]), grid, 2), (grid, grid.take([]), 2), (grid, grid, 0)):
        with pytest.raises(InputError, match="at least one training and one validation"):
            fit_rivals(*bad[:2], max_team=bad[2])
    with pytest.raises(InputError, match="at least one"):
        fit_agreement_cascade(grid.take([]), max_team=1)
    with pytest.raises(PoolError, match="lacks"):
        decided(fit_priced_task_table(grid), grid_of(["xy"]))


# ---- the command


def test_evaluate_compares_frontiers_with_the_rivals_of_the_checkpoint(cli, checkpoint, outcomes):
    said = cli.said("evaluate", checkpoint, outcomes)
    assert said["rivals_from"] == "checkpoint"
    frontiers = said["frontiers"]
    assert (frontiers["unit"], frontiers["range"]) == ("calls", [1.0, 2.0])
    assert tuple(frontiers["rivals"]) == RIVALS
    assert frontiers["missing_rivals"] == []
    shown = cli.shown("evaluate", checkpoint, outcomes)
    assert "Score over spending, 1 to 2 calls a query" in shown
    for name in RIVALS:
        ahead = f"Ahead of the policy: {name.replace('_', ' ')}"
        assert (ahead in shown) == (name in frontiers["ahead"])
    assert ("No rival is ahead" in shown) == (not frontiers["ahead"])


def test_evaluate_fits_the_rivals_that_a_checkpoint_lacks_or_says_that_they_are_missing(
    cli, bare_policy, quiz_policy, outcomes
):
    """Never on rows that it scores. The linear router is the policy's own."""
    bare_policy.save("bare")
    stored = cli.said("evaluate", "bare", outcomes)
    quiz_policy.save("whole")
    assert stored["rivals_from"] == "outcomes"
    assert stored["frontiers"] == cli.said("evaluate", "whole", outcomes)["frontiers"], "fitted on the same rows"
    assert "holds no rivals: they were fitted now" in cli.shown("evaluate", "bare", outcomes)
    without = cli.said("evaluate", "bare", outcomes, "--split", "all")
    assert (without["rivals_from"], list(without["frontiers"]["rivals"])) == ("nowhere", ["priced_linear_router"])
    assert without["frontiers"]["missing_rivals"] == ["priced_task_table", "agreement_cascade"]
    shown = cli.shown("evaluate", "bare", outcomes, "--split", "all")
    assert "Rivals left out: priced task table, agreement cascade." in shown


def test_evaluate_refuses_a_unit_of_costs_that_a_checkpoint_made_up(cli, quiz_policy, outcomes):
    card = {**quiz_policy.card, "config": {**quiz_policy.card["config"], "cost_unit": ["euros"]}}
    RLFocalPolicy(replace(quiz_policy.parts, card=card)).save("made_up")
    cli.assert_refused(cli.run("evaluate", "made_up", outcomes), "`cost_unit`", "euros")

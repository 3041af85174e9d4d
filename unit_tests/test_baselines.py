"""Baselines: what each learns and decides, worked by hand, what none of them may look at, and which rows decide what."""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, MissingDependencyError, PoolError
from langchain_rlfocal.evaluation import baselines
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    Baseline,
    _k_means,
    fit_baselines,
    fit_best_fixed_team,
    fit_nearest_neighbours,
    fit_oracle,
    fit_per_task_router,
    fit_plurality,
    fit_random_team,
    fit_single_best,
    fit_supervised_fusion,
    fit_top_k,
    fit_weighted_vote,
    log_odds,
    missing_baselines,
    team_scores,
    vote,
)
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

HONEST = {
    "single_best": fit_single_best,
    "plurality": fit_plurality,
    "weighted_vote": fit_weighted_vote,
    "random_team": partial(fit_random_team, size=2, seed=3),
    "top_k": partial(fit_top_k, size=2),
    "per_task_router": fit_per_task_router,
    "nearest_neighbours": partial(fit_nearest_neighbours, num_clusters=2),
    "best_fixed_team": partial(fit_best_fixed_team, max_team=2),
    **({"supervised_fusion": fit_supervised_fusion} if find_spec("sklearn") else {}),
}
"""Every baseline that is blind to the scores it is judged by; scikit-learn is optional."""

ALL = {**HONEST, "oracle": fit_oracle}


def grid_of(answers, scores=None, *, members="abcdef", tasks=None, queries=None, costs=None):
    """One row of answers per query, a letter each or `-` for none; "x" is right unless scores are given.

    Queries take turns in two tasks unless tasks are given.
    """
    rows = [
        Outcome(
            task=tasks[q] if tasks else f"t{q % 2}",
            query_id=str(q),
            query=queries[q] if queries else f"{q}?",
            model=members[m],
            answer=None if text == "-" else text,
            reward=float(text == "x") if scores is None else scores[q][m],
            cost_usd=costs[m] if costs else None,
        )
        for q, row in enumerate(answers)
        for m, text in enumerate(row)
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members[: len(answers[0])]))


VALIDATION = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""

answer_rows = st.lists(st.text("xyz-", min_size=3, max_size=3), min_size=1, max_size=8)


def test_single_best_asks_the_member_that_was_best_on_validation():
    decision = fit_single_best(VALIDATION).decide(grid_of(["yxx", "yxx"]))
    assert decision.chosen.tolist() == [0, 0]
    assert decision.asked.tolist() == [[True, False, False]] * 2
    assert decision.calls.tolist() == [1, 1]


def test_of_equally_good_members_the_first_is_the_single_best():
    assert fit_single_best(grid_of(["yxx"])).learned["best"] == 1


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ("yxx", 1),  # two against the best: its most competent supporter
        ("xyz", 0),  # all differ: the best
        ("-yx", 1),  # the best abstains, one each: the next best
        ("--z", 2),  # one vote decides
        ("---", 0),  # nobody votes: the best
        ("-yy", 1),
        ("xyy", 1),
        ("xyx", 0),
    ],
)
def test_plurality_follows_most_members_and_breaks_ties_by_validation(answers, chosen):
    decision = fit_plurality(VALIDATION).decide(grid_of([answers]))
    assert decision.chosen.tolist() == [chosen]
    assert decision.calls.tolist() == [3]


def test_ties_between_two_pairs_go_to_the_pair_with_the_best_member():
    """`d` is best on validation: its pair wins, and it speaks for it."""
    validation = grid_of(["yyyx"], members="abcd")
    decision = fit_plurality(validation).decide(grid_of(["xyxy"], members="abcd"))
    assert decision.chosen.tolist() == [3]


def test_weights_are_the_log_odds_worked_by_hand():
    """Validation of 4 queries; right of 3, 2 and 1: p = 4/6, 3/6, 2/6.

    Pairs wrong together: query 1 (b, c: both y), 3 (a, c: both y), so 2 of 2 agree, and query 2 and 4 have no pair:
    c = (2 + 1)/(2 + 2) = ¾; w = ln(p/(1 − p)) − ln ¾.
    """
    odds = np.array([2.0, 1.0, 0.5])
    np.testing.assert_allclose(fit_weighted_vote(VALIDATION).learned["weights"], np.log(odds / 0.75))


def test_a_member_that_did_not_answer_is_judged_by_the_answers_it_gave():
    """`a` answered two of four queries, both right: p = 3/4; `b` four, none right: p = 1/6.

    No pair gave two wrong answers, for silence is none: c = 1/2.
    """
    weights = fit_weighted_vote(grid_of(["xy", "xz", "-y", "-z"], members="ab")).learned["weights"]
    np.testing.assert_allclose(weights, np.log([3 * 2, 2 / 5]))


def test_a_weighted_vote_lets_one_strong_member_outvote_two_weak_ones():
    """Strong right on all of 8, weak on 4 of 8 with errors that agree: w = ln 9 − ln c against 2 (ln 1 − ln c).

    The weak fail together on 4 queries, always alike: c = 5/6. ln 10.8 = 2.38 > 2 ln 1.2 = 0.36.
    """
    validation = grid_of(["xyy", "xxx"] * 4)
    grid = grid_of(["yxx", "-xy", "zyy"])
    assert fit_weighted_vote(validation).decide(grid).chosen.tolist() == [0, 1, 0]
    assert fit_plurality(validation).decide(grid).chosen.tolist() == [1, 1, 1]


def test_two_weak_members_that_agree_count_for_more_where_errors_rarely_agree():
    """`a` is right on 8 of 10 (odds 3), `b` and `c` on 5 (odds 1), and their 5 errors together are never alike: c = 1/7.

    ln 3 + ln 7 = 3.04 < 2 ln 7 = 3.89. Where their errors are alike, c = 6/7 and ln 3.5 = 1.25 > 2 ln 7/6 = 0.31.
    """
    common = ["yxx", "yxx", "xxx", "xxx", "xxx"]
    for errors, chosen in (["xyz"] * 5, 1), (["xyy"] * 5, 0):
        assert fit_weighted_vote(grid_of(errors + common)).decide(grid_of(["yxx"])).chosen.tolist() == [chosen]


def test_the_oracle_finds_every_right_answer():
    grid = grid_of(["yxz", "xyy", "yyx", "yyy"])
    decision = fit_oracle(VALIDATION).decide(grid)
    assert grid.scores[np.arange(4), decision.chosen].tolist() == [1, 1, 1, 0]
    assert decision.calls.tolist() == [3] * 4


def test_a_random_team_has_its_size_and_is_the_same_for_the_same_seed():
    """2,000 queries: each of three members is in two thirds of the teams of two, within four standard errors, 0.042."""
    grid = grid_of(["xyz"] * 2000)
    first = fit_random_team(VALIDATION, size=2, seed=5).decide(grid)
    again = fit_random_team(VALIDATION, size=2, seed=5).decide(grid)
    other = fit_random_team(VALIDATION, size=2, seed=6).decide(grid)
    assert (first.calls == 2).all()
    np.testing.assert_allclose(first.asked.mean(axis=0), 2 / 3, atol=0.042)
    np.testing.assert_array_equal(first.asked, again.asked)
    assert (first.asked != other.asked).any()


@given(answer_rows, st.integers(1, 3), st.integers(0, 5))
def test_a_random_team_returns_an_answer_of_a_member_that_it_asked(answers, size, seed):
    decision = fit_random_team(VALIDATION, size=size, seed=seed).decide(grid_of(answers))
    assert decision.asked[np.arange(len(answers)), decision.chosen].all()


@given(answer_rows)
def test_a_random_team_of_everyone_is_the_plurality(answers):
    grid = grid_of(answers)
    team = fit_random_team(VALIDATION, size=3).decide(grid)
    np.testing.assert_array_equal(team.chosen, fit_plurality(VALIDATION).decide(grid).chosen)


@pytest.mark.parametrize("size", [0, 4])
def test_a_team_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(InputError, match=f"from 1 to 3 members, got {size}"):
        fit_random_team(VALIDATION, size=size)


@settings(max_examples=40)
@given(answer_rows, st.randoms(use_true_random=False))
def test_labels_of_evaluated_queries_reach_no_decision(answers, random):
    """Every score is turned round or replaced by noise, and every right answer: all decide alike, but for the Oracle."""
    grid = grid_of(answers)
    noise = np.array([[random.random() for _ in "abc"] for _ in answers])
    for fit in HONEST.values():
        fitted = fit(VALIDATION)
        honest = fitted.decide(grid)
        for scores in (noise, 1 - grid.scores):
            blind = fitted.decide(replace(grid, scores=scores, golds=["noise"] * len(answers)))
            np.testing.assert_array_equal(honest.chosen, blind.chosen)
            np.testing.assert_array_equal(honest.asked, blind.asked)


def test_the_oracle_alone_looks_at_the_scores():
    """`b` and `c` are wrong, then right: only the Oracle turns to them."""
    grid = grid_of(["xyy"])
    corrupted = replace(grid, scores=1 - grid.scores)
    fitted = fit_oracle(VALIDATION)
    assert (fitted.decide(grid).chosen.tolist(), fitted.decide(corrupted).chosen.tolist()) == ([0], [1])


@given(answer_rows)
def test_nobody_beats_the_oracle(answers):
    grid = grid_of(answers)
    rows = np.arange(len(grid))
    best = grid.scores[rows, fit_oracle(VALIDATION).decide(grid).chosen]
    for fit in HONEST.values():
        assert (grid.scores[rows, fit(VALIDATION).decide(grid).chosen] <= best).all()


@settings(max_examples=40)
@given(st.permutations(range(3)), answer_rows)
def test_renaming_places_of_members_changes_no_answer_of_a_vote(order, answers):
    """VALIDATION ranks the members strictly, so no tie depends on their order."""
    names = [VALIDATION.members[place] for place in order]
    validation = grid_of([[row[m] for m in order] for row in ("xyy", "xxy", "yxy", "xyx")], members=names)
    moved = grid_of([[row[m] for m in order] for row in answers], members=names)
    grid = grid_of(answers)
    for fit in (fit_single_best, fit_plurality):
        plain, permuted = fit(VALIDATION).decide(grid), fit(validation).decide(moved)
        assert [grid.members[m] for m in plain.chosen] == [moved.members[m] for m in permuted.chosen]


@settings(max_examples=40)
@given(answer_rows, st.permutations("abcd"))
def test_members_that_move_or_join_change_no_decision(answers, order):
    """The grid has the fitted members in any order and a stranger, who always says z: nobody asks or hears it."""
    grid = grid_of(answers)
    wider = grid_of(
        [[{**dict(zip("abc", row, strict=True)), "d": "z"}[name] for name in order] for row in answers], members=order
    )
    for fit in ALL.values():
        fitted = fit(VALIDATION)
        plain, moved = fitted.decide(grid), fitted.decide(wider)
        assert [grid.members[m] for m in plain.chosen] == [wider.members[m] for m in moved.chosen]
        places = [order.index(name) for name in "abc"]
        np.testing.assert_array_equal(plain.asked, moved.asked[:, places])
        assert not moved.asked[:, order.index("d")].any()


@pytest.mark.parametrize("name", ALL)
def test_a_grid_without_a_fitted_member_is_refused(name):
    fitted = ALL[name](VALIDATION)
    with pytest.raises(PoolError, match=r"every member that the baseline was fitted on, but lacks \['c'\]"):
        fitted.decide(grid_of(["xyz"], members="bad"))


@pytest.mark.parametrize("name", ALL)
def test_a_baseline_decides_nothing_about_no_query(name):
    decision = ALL[name](VALIDATION).decide(VALIDATION.take([]))
    assert (decision.chosen.shape, decision.asked.shape) == ((0,), (0, 3))


@settings(max_examples=40)
@given(answer_rows)
def test_whoever_speaks_was_asked(answers):
    for fit in ALL.values():
        decision = fit(VALIDATION).decide(grid_of(answers))
        assert decision.asked[np.arange(len(answers)), decision.chosen].all()


@pytest.mark.parametrize("name", HONEST)
def test_nothing_can_be_learned_from_no_query(name):
    with pytest.raises(InputError, match="at least one training or validation query"):
        HONEST[name](VALIDATION.take([]))


rows_of_four = st.lists(st.text("xyz-", min_size=4, max_size=4), min_size=1, max_size=8)

CIRCLE = ["xxy", "xyx", "yxx"]
"""Each member is right on two of three queries, and two of three members on each query."""


def test_the_top_two_are_asked_and_the_better_one_breaks_their_tie():
    decision = fit_top_k(VALIDATION, size=2).decide(grid_of(["yxx", "-xy", "--x"]))
    assert decision.asked.tolist() == [[True, True, False]] * 3
    assert decision.chosen.tolist() == [0, 1, 0]


@given(answer_rows)
def test_the_top_k_run_from_the_single_best_to_the_plurality(answers):
    grid = grid_of(answers)
    for size, other in ((1, fit_single_best), (3, fit_plurality)):
        decision, same = fit_top_k(VALIDATION, size=size).decide(grid), other(VALIDATION).decide(grid)
        np.testing.assert_array_equal(decision.chosen, same.chosen)
        np.testing.assert_array_equal(decision.asked, same.asked)


def test_three_members_that_err_apart_are_the_best_team():
    """Alone each scores ⅔; two differ once or twice and are no better; the vote of three is always right."""
    fitted = fit_best_fixed_team(grid_of(CIRCLE), max_team=3)
    assert fitted.learned["team"].tolist() == [True, True, True]
    assert fitted.learned["largest_tried"] == 3
    assert fitted.decide(grid_of(["zyy"])).chosen.tolist() == [1]


def test_of_equally_good_teams_the_smaller_then_the_cheaper_then_the_first_is_taken():
    """Of at most two members all six teams score ⅔; where a cost is unknown, none decides."""
    for costs, best in ((None, "a"), ((3.0, 1.0, 2.0), "b"), ((3.0, None, 2.0), "a"), ((1.0, 1.0, 1.0), "a")):
        team = fit_best_fixed_team(grid_of(CIRCLE, costs=costs), max_team=2).learned["team"]
        assert [name for name, chosen in zip("abc", team, strict=True) if chosen] == [best]


def test_a_smaller_team_is_taken_before_a_cheaper_one():
    """`a` answers both queries for 3 dollars; `b` and `c` answer one each, together both, for 1 dollar each."""
    fitted = fit_best_fixed_team(grid_of(["xx-", "x-x"], costs=(3.0, 1.0, 1.0)), max_team=2)
    assert fitted.learned["team"].tolist() == [True, False, False]


def test_a_team_is_never_larger_than_asked_for_nor_than_the_pool():
    assert fit_best_fixed_team(grid_of(CIRCLE), max_team=1).learned["largest_tried"] == 1
    assert fit_best_fixed_team(grid_of(CIRCLE), max_team=9).learned["largest_tried"] == 3
    with pytest.raises(InputError, match="`max_team` must be at least 1, got 0"):
        fit_best_fixed_team(grid_of(CIRCLE), max_team=0)


@pytest.mark.parametrize(("limit", "size"), [(2, 1), (5, 1), (6, 2), (7, 3)])
def test_of_a_large_pool_only_sizes_with_few_enough_teams_are_tried_and_it_says_so(monkeypatch, limit, size):
    """Of three members there are 3 teams of one, 6 of one or two, 7 in all."""
    monkeypatch.setattr(baselines, "MAX_TEAMS", limit)
    assert fit_best_fixed_team(grid_of(CIRCLE), max_team=3).learned["largest_tried"] == size


def every_team(members, sizes):
    named = [team for size in sizes for team in combinations(range(members), size)]
    return np.array([[member in team for member in range(members)] for team in named])


def voted(ids, scores, competence, team):
    """Mean score of one team's vote, the slow way."""
    asked = np.tile(team, (len(ids), 1))
    chosen = vote(ids, asked, weights=np.ones(len(team)), competence=competence)
    return scores[np.arange(len(ids)), chosen].mean()


@given(rows_of_four, st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=4, max_size=4))
def test_the_fast_search_scores_every_team_as_its_vote_does(answers, competence):
    """Four members tie one to one, two to two, and in silence; silence too has a score, which differs by member."""
    grid = grid_of(answers)
    silent = grid.answer_ids < 0
    scores = np.where(silent, [0.1, 0.2, 0.3, 0.4], grid.scores)
    competence = np.array(competence)
    wanted = every_team(4, (1, 2, 3, 4))
    expected = [voted(grid.answer_ids, scores, competence, team) for team in wanted]
    np.testing.assert_allclose(team_scores(grid.answer_ids, scores, competence, wanted), expected)


@pytest.mark.parametrize("members", [27, 40, 41, 60])
def test_the_fast_search_is_exact_in_a_large_pool_and_in_blocks(monkeypatch, members):
    """Answers of four kinds or none, no competences alike or all: most votes are ties of one to one."""
    monkeypatch.setattr(baselines, "_BLOCK_CELLS", 5000)
    rng = np.random.default_rng(members)
    kinds = rng.integers(-1, 4, size=(30, members))
    first = (kinds[:, :, None] == kinds[:, None, :]).argmax(axis=2)
    ids = np.where(kinds < 0, -1, first)
    scores = np.where(kinds < 0, 0.0, (kinds == 0) + 0.25 * (kinds == 1))
    drawn = rng.permutation(every_team(members, (1, 2, 3)))[:300]
    for competence in (rng.random(members), np.ones(members)):
        expected = [voted(ids, scores, competence, team) for team in drawn]
        np.testing.assert_allclose(team_scores(ids, scores, competence, drawn), expected)


def test_no_team_scores_more_on_the_fitted_queries_than_the_best():
    rng = np.random.default_rng(5)
    grid = grid_of(["".join(row) for row in rng.choice(list("xyz-"), size=(40, 5))])
    best = fit_best_fixed_team(grid, max_team=3)
    score = voted(grid.answer_ids, grid.scores, best.learned["competence"], best.learned["team"])
    others = [
        voted(grid.answer_ids, grid.scores, best.learned["competence"], team) for team in every_team(5, (1, 2, 3))
    ]
    assert score == pytest.approx(max(others))


def without_label(grid, *, row=slice(None)):
    """The grid as a caller gives it who tells no task."""
    tasks = np.array(grid.tasks, dtype=object)
    tasks[row] = ""
    return replace(grid, tasks=tasks.tolist())


def router_rows(shrinkage):
    """Six queries of one task, `a` right on all; one of another, `b` right: overall 6/7 and 1/7."""
    return fit_per_task_router(grid_of(["xy"] * 6 + ["yx"], tasks=["big"] * 6 + ["small"]), shrinkage=shrinkage)


def test_a_task_of_few_queries_is_drawn_to_the_single_best_worked_by_hand():
    """On the small task `a` has (0 + 6s/7)/(1 + s), `b` (1 + s/7)/(1 + s): s = 1 gives 3/7 < 4/7, s = 2 4/7 > 3/7."""
    grid = grid_of(["xy"] * 2, tasks=["big", "small"])
    assert router_rows(1.0).decide(grid).chosen.tolist() == [0, 1]
    assert router_rows(2.0).decide(grid).chosen.tolist() == [0, 0]


def test_a_router_asks_one_member_and_of_an_unknown_task_or_none_the_single_best():
    grid = without_label(grid_of(["xy"] * 3, tasks=["small", "other", "small"]), row=2)
    decision = router_rows(1.0).decide(grid)
    assert decision.chosen.tolist() == [1, 0, 0]
    assert decision.asked.tolist() == [[False, True], [True, False], [True, False]]


def test_the_single_best_of_an_unknown_task_is_that_of_all_tasks_together():
    """`b` is best overall though `a` is on the first task."""
    fitted = fit_per_task_router(grid_of(["xy"] * 2 + ["yx"] * 3, tasks=["s"] * 2 + ["t"] * 3), shrinkage=1.0)
    assert fitted.decide(grid_of(["xy"] * 3, tasks=["s", "t", "u"])).chosen.tolist() == [0, 1, 1]


@pytest.mark.parametrize("shrinkage", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shrinkage_that_weighs_nothing_or_everything_is_refused(shrinkage):
    for fit in (fit_per_task_router, fit_nearest_neighbours):
        with pytest.raises(InputError, match="`shrinkage` must be above 0 and finite"):
            fit(VALIDATION, shrinkage=shrinkage)


SUMS, PLANTS = [f"{n} plus {n + 1} equals" for n in range(1, 6)], [f"colour of plant {c} leaves" for c in "vwxyz"]


@pytest.mark.parametrize("seed", range(5))
def test_a_query_goes_to_the_member_that_is_best_on_queries_like_it(seed):
    """`a` can add, `b` knows plants; new queries of both kinds, no task label."""
    known = grid_of(["xy"] * 5 + ["yx"] * 5, queries=SUMS + PLANTS)
    new = grid_of(["--"] * 2, queries=["colour of plant u leaves", "7 plus 8 equals"])
    fitted = fit_nearest_neighbours(without_label(known), num_clusters=2, shrinkage=1.0, seed=seed)
    decision = fitted.decide(without_label(new))
    assert decision.chosen.tolist() == [1, 0]
    assert decision.calls.tolist() == [1, 1]


def test_a_task_label_is_part_of_what_is_near():
    """All queries are alike but for their labels."""
    grid = grid_of(["xy", "yx"] * 4, tasks=["sums", "plants"] * 4, queries=["which?"] * 8)
    assert fit_nearest_neighbours(grid, num_clusters=2, shrinkage=1.0).decide(grid).chosen.tolist() == [0, 1] * 4


@pytest.mark.parametrize("seed", range(20))
def test_centres_settle_on_the_means_of_two_pairs_from_every_start(seed):
    """0, 1, 10, 11: from any two of them the centres move to ½ and 10½."""
    points = np.array([[0.0], [1.0], [10.0], [11.0]])
    centroids = _k_means(points, 2, rng=np.random.default_rng(seed))
    assert sorted(centroids.ravel().tolist()) == [0.5, 10.5]


def test_there_are_no_more_clusters_than_different_queries():
    alike = grid_of(["xy"] * 3, queries=["same"] * 3, tasks="ttt")
    assert len(fit_nearest_neighbours(alike, num_clusters=8).learned["centroids"]) == 1
    with pytest.raises(InputError, match="`num_clusters` must be at least 1, got 0"):
        fit_nearest_neighbours(alike, num_clusters=0)


def test_a_cluster_draws_its_scores_to_the_overall_ones_too():
    """One plant against six sums: as for the small task, s = 1 lets `b` have it, s = 2 does not."""
    grid = grid_of(["xy"] * 6 + ["yx"], queries=["sum"] * 6 + ["plant"], tasks="t" * 7)
    for shrinkage, member in ((1.0, 1), (2.0, 0)):
        assert (
            fit_nearest_neighbours(grid, num_clusters=2, shrinkage=shrinkage).decide(grid).chosen.tolist()[-1] == member
        )


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
    assert fit_baselines(train, grid_of(["yxx", "xyy", "yxx"]), max_team=3)["top_k"].learned["team"].sum() == 3
    assert fit_baselines(train, grid_of(["xyx", "xyy", "xxx"]), max_team=3)["top_k"].learned["team"].sum() == 1
    assert fit_baselines(train, grid_of(["yxx"]), max_team=2)["top_k"].learned["team"].sum() == 1


def test_no_team_is_larger_than_allowed_nor_than_the_pool():
    train, validation = drawn(60, right=(0.6, 0.6, 0.6, 0.6), seed=3), drawn(20, right=(0.6, 0.6, 0.6, 0.6), seed=4)
    for max_team, largest in ((1, 1), (2, 2), (9, 4)):
        fitted = fit_baselines(train, validation, max_team=max_team)
        assert fitted["random_team"].learned["size"] == fitted["best_fixed_team"].learned["largest_tried"] == largest
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
    best = score(fit_oracle(train), grid)
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
        fit_supervised_fusion(grid)


def test_fitted_supervised_fusion_needs_no_scikit_learn(monkeypatch):
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    fitted = fit_supervised_fusion(drawn(50, right=(0.7, 0.5), seed=1))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert fitted.decide(grid_of(["xy"])).calls.tolist() == [2]


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
    fitted = fit_supervised_fusion(train, task_scale=task_scale)
    assert fitted.learned["share"] == pytest.approx(of_share, rel=1e-3)
    np.testing.assert_allclose(fitted.learned["weights"], own + of_odds * odds, atol=1e-3)
    np.testing.assert_allclose(fitted.learned["task_weights"], task_scale * on_task.reshape(2, 4), atol=1e-3)
    decision = fitted.decide(new)
    for row, task, chosen in zip(new.answers, new.tasks, decision.chosen, strict=True):
        logits = {text: float(model.decision_function([f])[0]) for text, f in examples(row, task)}
        if logits:
            assert logits[row[chosen]] == pytest.approx(max(logits.values()), abs=1e-3)


def test_supervised_fusion_learns_who_is_right_on_which_task():
    """`a` is right on the one task, `b` on the other: where no task is told, both weigh alike."""
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(["xy", "yx"] * 20)
    fitted = fit_supervised_fusion(grid)
    assert score(fitted, grid) == 1
    assert score(fit_supervised_fusion(grid, task_scale=0.0), grid) == 0.5
    assert fitted.learned["weights"][0] == pytest.approx(fitted.learned["weights"][1], abs=1e-3)
    assert fit_baselines(grid, grid, max_team=2)["supervised_fusion"].learned["task_weights"].any()


def test_what_a_share_of_the_votes_is_worth_depends_on_how_many_votes_there_are():
    """Three votes, a third of 1.5 for each: 1 + ½ < 2 (0.3 + ½). Four votes, a quarter: 1 + ⅜ > 2 (0.3 + ⅜)."""
    learned = {"weights": np.array([1, 0.3, 0.3, 0.3]), "share": 1.5, "competence": np.ones(4)}
    fitted = Baseline(
        "supervised_fusion", tuple("abcd"), {**learned, "tasks": ("other",), "task_weights": np.full((1, 4), 9.0)}
    )
    assert fitted.decide(grid_of(["xyy-", "xyyz"])).chosen.tolist() == [1, 0]


def test_supervised_fusion_sees_through_members_that_copy_each_other():
    """`b`, `c` and `d` always say the same, right on 5 of 8; `a` is right on 6 of 8. Three votes of one opinion win every
    vote, weighted or not: 3 ln 5/3 > ln 3. The regression sees that where they differ `a` is right in 3 of 5.
    """
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(["xxxx", "xyyy", "xxxx", "yxxx", "xyyy", "xxxx", "xyyy", "yxxx"] * 10)
    assert score(fit_plurality(grid), grid) == 5 / 8
    assert score(fit_weighted_vote(grid), grid) == 5 / 8
    assert score(fit_supervised_fusion(grid), grid) == 6 / 8


@pytest.mark.parametrize("task_scale", [-0.1, float("nan"), float("inf")])
def test_a_task_scale_below_nothing_is_refused(task_scale):
    with pytest.raises(InputError, match="`task_scale` must be finite and not negative"):
        fit_supervised_fusion(grid_of(["xy"]), task_scale=task_scale)


@pytest.mark.parametrize("rows", [["xx", "x-"], ["yz", "zy"]])
def test_where_all_answers_are_right_or_wrong_votes_weigh_their_log_odds(rows):
    pytest.importorskip("sklearn", reason="supervised fusion is fitted by scikit-learn")
    grid = grid_of(rows)
    fitted = fit_supervised_fusion(grid)
    np.testing.assert_array_equal(fitted.learned["weights"], log_odds(grid))
    assert fitted.learned["share"] == 0
    assert not fitted.learned["task_weights"].any()

"""Baselines: what each learns and decides, worked by hand, what none may look at, and what a checkpoint may hold of them."""

import json
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from langchain_rlfocal.errors import CheckpointError, InputError, MissingDependencyError, PoolError
from langchain_rlfocal.evaluation import baselines
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    Baseline,
    _k_means,
    dump_baselines,
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
    load_baselines,
    log_odds,
    missing_baselines,
    team_scores,
)
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

HAS_SKLEARN = find_spec("sklearn") is not None
needs_sklearn = pytest.mark.skipif(not HAS_SKLEARN, reason="supervised fusion is fitted by scikit-learn")

FITS = {
    "single_best": fit_single_best,
    "plurality": fit_plurality,
    "weighted_vote": fit_weighted_vote,
    "random_team": partial(fit_random_team, size=2, seed=3),
    "top_k": partial(fit_top_k, size=2),
    "per_task_router": fit_per_task_router,
    "nearest_neighbours": partial(fit_nearest_neighbours, num_clusters=2),
    "best_fixed_team": partial(fit_best_fixed_team, max_team=2),
    **({"supervised_fusion": fit_supervised_fusion} if HAS_SKLEARN else {}),
    "oracle": fit_oracle,
}


def grid_of(answers, scores=None, *, members="abcdef", tasks=None, queries=None, costs=None):
    """One row of answers per query: a letter each, `-` for one without a label, `.` for silence, ` ` for a hole.

    "x" is right unless scores are given, where None is unscored. Queries take turns in two tasks unless tasks are given.
    """
    rows = [
        Outcome(
            task=tasks[q] if tasks else f"t{q % 2}",
            query_id=str(q),
            query=queries[q] if queries else f"{q}?",
            model=members[m],
            answer=None if text in "-." else text,
            response={".": "", "-": "A text."}.get(text),
            reward=float(text == "x") if scores is None else scores[q][m],
            cost_usd=costs[m] if costs else None,
        )
        for q, row in enumerate(answers)
        for m, text in enumerate(row)
        if text != " "
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members[: len(answers[0])]), missing="mask")


def drawn(num_queries, *, right, seed):
    """Answers of members that are right that often, else wrong in one of two ways or silent."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(list("yz-"), size=(num_queries, len(right)))
    rows = np.where(rng.random(wrong.shape) < right, "x", wrong)
    return grid_of(["".join(row) for row in rows])


def score(fitted, grid):
    return grid.scores[np.arange(len(grid)), fitted.decide(grid).chosen].mean()


def assert_alike(one, two):
    np.testing.assert_array_equal(one.chosen, two.chosen)
    np.testing.assert_array_equal(one.asked, two.asked)


VALIDATION = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""
FITTED = {name: fit(VALIDATION) for name, fit in FITS.items()}
NO_QUERY = VALIDATION.take([])

answer_rows = st.lists(st.text("xyz-", min_size=3, max_size=3), min_size=1, max_size=8)


# ---- one member, and votes


def test_single_best_asks_the_member_that_was_best_on_validation_and_of_equals_the_first():
    decision = fit_single_best(VALIDATION).decide(grid_of(["yxx", "yxx"]))
    assert decision.chosen.tolist() == [0, 0]
    assert decision.asked.tolist() == [[True, False, False]] * 2
    assert decision.calls.tolist() == [1, 1]
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
        ("xyx", 0),
    ],
)
def test_plurality_follows_most_members_and_breaks_ties_by_validation(answers, chosen):
    decision = fit_plurality(VALIDATION).decide(grid_of([answers]))
    assert decision.chosen.tolist() == [chosen]
    assert decision.calls.tolist() == [3]


def test_ties_between_two_pairs_go_to_the_pair_with_the_best_member_who_speaks_for_it():
    assert fit_plurality(grid_of(["yyyx"])).decide(grid_of(["xyxy"])).chosen.tolist() == [3]


def test_weights_are_the_log_odds_worked_by_hand():
    """Validation of 4 queries; right of 3, 2 and 1: p = 4/6, 3/6, 2/6.

    Pairs wrong together: query 1 (b, c: both y), 3 (a, c: both y), so 2 of 2 agree, and query 2 and 4 have no pair:
    c = (2 + 1)/(2 + 2) = ¾; w = ln(p/(1 − p)) − ln ¾.
    Silence is no wrong answer: `a` answered two of four queries, both right, p = 3/4; `b` four, none right, p = 1/6; no pair
    gave two wrong answers, so c = 1/2.
    """
    np.testing.assert_allclose(fit_weighted_vote(VALIDATION).learned["weights"], np.log(np.array([2, 1, 0.5]) / 0.75))
    np.testing.assert_allclose(log_odds(grid_of(["xy", "xz", "-y", "-z"])), np.log([3 * 2, 2 / 5]))


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


def test_the_oracle_finds_every_right_answer_by_looking_at_the_scores():
    """Turned round, the scores turn its choice round; `test_labels_reach_no_decision` says that no other baseline's."""
    grid = grid_of(["yxz", "xyy", "yyx", "yyy"])
    decision = fit_oracle(VALIDATION).decide(grid)
    assert grid.scores[np.arange(4), decision.chosen].tolist() == [1, 1, 1, 0]
    assert decision.calls.tolist() == [3] * 4
    assert fit_oracle(VALIDATION).decide(replace(grid, scores=1 - grid.scores)).chosen.tolist() == [0, 1, 0, 0]


def test_a_random_team_has_its_size_and_is_the_same_for_the_same_seed():
    """2,000 queries: each of three members is in two thirds of the teams of two, within four standard errors, 0.042."""
    grid = grid_of(["xyz"] * 2000)
    first, again, other = (fit_random_team(VALIDATION, size=2, seed=seed).decide(grid) for seed in (5, 5, 6))
    assert (first.calls == 2).all()
    np.testing.assert_allclose(first.asked.mean(axis=0), 2 / 3, atol=0.042)
    assert_alike(first, again)
    assert (first.asked != other.asked).any()


def test_the_top_two_are_asked_and_the_better_one_breaks_their_tie():
    decision = fit_top_k(VALIDATION, size=2).decide(grid_of(["yxx", "-xy", "--x"]))
    assert decision.asked.tolist() == [[True, True, False]] * 3
    assert decision.chosen.tolist() == [0, 1, 0]


# ---- what holds of all


@settings(max_examples=60)
@given(answer_rows)
def test_whoever_speaks_was_asked_and_nobody_beats_the_oracle(answers):
    grid, rows = grid_of(answers), np.arange(len(answers))
    best = grid.scores[rows, FITTED["oracle"].decide(grid).chosen]
    for fitted in (*FITTED.values(), fit_random_team(VALIDATION, size=1)):
        decision = fitted.decide(grid)
        assert decision.asked[rows, decision.chosen].all()
        assert (grid.scores[rows, decision.chosen] <= best).all()


@settings(max_examples=40)
@given(answer_rows)
def test_teams_run_from_the_single_best_to_the_plurality(answers):
    grid = grid_of(answers)
    assert_alike(fit_top_k(VALIDATION, size=1).decide(grid), FITTED["single_best"].decide(grid))
    for team_of_all in (fit_top_k(VALIDATION, size=3), fit_random_team(VALIDATION, size=3)):
        assert_alike(team_of_all.decide(grid), FITTED["plurality"].decide(grid))


@settings(max_examples=40)
@given(answer_rows, st.randoms(use_true_random=False))
def test_labels_reach_no_decision(answers, random):
    """Every score is turned round or replaced by noise, and every right answer: all decide alike, but for the Oracle."""
    grid = grid_of(answers)
    noise = np.array([[random.random() for _ in "abc"] for _ in answers])
    for name in FITS.keys() - {"oracle"}:
        for scores in (noise, 1 - grid.scores):
            blind = FITTED[name].decide(replace(grid, scores=scores, golds=["noise"] * len(answers)))
            assert_alike(FITTED[name].decide(grid), blind)


@settings(max_examples=40)
@given(answer_rows, st.permutations("abcd"))
def test_members_that_move_or_join_change_no_decision(answers, order):
    """The grid has the fitted members in any order and a stranger, who always says z: nobody asks or hears it."""
    grid = grid_of(answers)
    said = [{**dict(zip("abc", row, strict=True)), "d": "z"} for row in answers]
    wider = grid_of([[row[name] for name in order] for row in said], members=order)
    places = [order.index(name) for name in "abc"]
    for fitted in FITTED.values():
        plain, moved = fitted.decide(grid), fitted.decide(wider)
        assert [grid.members[m] for m in plain.chosen] == [wider.members[m] for m in moved.chosen]
        np.testing.assert_array_equal(plain.asked, moved.asked[:, places])
        assert not moved.asked[:, order.index("d")].any()


@pytest.mark.parametrize("name", FITS)
def test_each_decides_nothing_of_no_query_and_refuses_a_grid_without_a_fitted_member(name):
    decision = FITTED[name].decide(NO_QUERY)
    assert (decision.chosen.shape, decision.asked.shape) == ((0,), (0, 3))
    with pytest.raises(PoolError, match=r"\['c'\]"):
        FITTED[name].decide(grid_of(["xyz"], members="bad"))


@pytest.mark.parametrize(
    ("fit", "named"),
    [
        *((lambda fit=fit: fit(NO_QUERY), "at least one") for name, fit in FITS.items() if name != "oracle"),
        *((lambda size=size: fit_random_team(VALIDATION, size=size), f"got {size}") for size in (0, 4)),
        (lambda: fit_best_fixed_team(VALIDATION, max_team=0), "`max_team`"),
        (lambda: fit_nearest_neighbours(VALIDATION, num_clusters=0), "`num_clusters`"),
        *(
            (lambda fit=fit, s=shrinkage: fit(VALIDATION, shrinkage=s), "`shrinkage`")
            for fit in (fit_per_task_router, fit_nearest_neighbours)
            for shrinkage in (0.0, -1.0, float("nan"), float("inf"))
        ),
        *(
            (lambda scale=scale: fit_supervised_fusion(VALIDATION, task_scale=scale), "`task_scale`")
            for scale in (-0.1, float("nan"), float("inf"))
        ),
        (lambda: fit_baselines(VALIDATION, VALIDATION, max_team=0), "`max_team`"),
        (lambda: fit_baselines(NO_QUERY, VALIDATION, max_team=2), "got 0 and 4"),
        (lambda: fit_baselines(VALIDATION, NO_QUERY, max_team=2), "got 4 and 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, named):
    with pytest.raises(InputError, match=named):
        fit()


# ---- the best fixed team

CIRCLE = ["xxy", "xyx", "yxx"]
"""Each member is right on two of three queries, and two of three members on each query."""


def test_three_members_that_err_apart_are_the_best_team():
    """Alone each scores ⅔; two differ once or twice and are no better; the vote of three is always right."""
    fitted = fit_best_fixed_team(grid_of(CIRCLE), max_team=9)
    assert fitted.learned["team"].tolist() == [True, True, True]
    assert fitted.learned["largest_tried"] == 3
    assert fitted.decide(grid_of(["zyy"])).chosen.tolist() == [1]
    assert fit_best_fixed_team(grid_of(CIRCLE), max_team=1).learned["largest_tried"] == 1


@pytest.mark.parametrize(
    ("answers", "costs", "team"),
    [
        (CIRCLE, None, "a"),
        (CIRCLE, (3.0, 1.0, 2.0), "b"),
        (CIRCLE, (3.0, None, 2.0), "a"),
        (CIRCLE, (1.0, 1.0, 1.0), "a"),
        (["xx-", "x-x"], (3.0, 1.0, 1.0), "a"),  # b and c together are right too, and cheaper
    ],
)
def test_of_equally_good_teams_the_smaller_then_the_cheaper_then_the_first_is_taken(answers, costs, team):
    """On the circle all six teams of at most two score ⅔; where a cost is unknown, none decides."""
    chosen = fit_best_fixed_team(grid_of(answers, costs=costs), max_team=2).learned["team"]
    assert [name for name, taken in zip("abc", chosen, strict=True) if taken] == [team]


@pytest.mark.parametrize(("limit", "size"), [(2, 1), (5, 1), (6, 2), (7, 3)])
def test_of_a_large_pool_only_sizes_with_few_enough_teams_are_tried_and_it_says_so(monkeypatch, limit, size):
    """Of three members there are 3 teams of one, 6 of one or two, 7 in all."""
    monkeypatch.setattr(baselines, "MAX_TEAMS", limit)
    assert fit_best_fixed_team(grid_of(CIRCLE), max_team=3).learned["largest_tried"] == size


def every_team(members, sizes):
    named = [team for size in sizes for team in combinations(range(members), size)]
    return np.array([[member in team for member in range(members)] for team in named])


def voted(grid, competence, team):
    """Score of one team's vote on each query, as it decides."""
    learned = {"team": team, "competence": competence}
    return grid.scores[np.arange(len(grid)), Baseline("top_k", grid.members, learned).decide(grid).chosen]


rows_of_four = st.lists(st.text("xyz-.", min_size=4, max_size=4), min_size=1, max_size=8)
rows_with_holes = st.lists(st.text("xyz-. ", min_size=4, max_size=4).filter(str.strip), min_size=1, max_size=8)


@given(rows_of_four, st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=4, max_size=4))
def test_the_fast_search_scores_every_team_as_its_vote_does(answers, competence):
    """Four members tie one to one, two to two, and in silence; whoever gives no label has a score that differs by member."""
    grid, wanted = grid_of(answers), every_team(4, (1, 2, 3, 4))
    scores = np.where(np.equal(grid.answers, None), [0.1, 0.2, 0.3, 0.4], grid.scores)
    grid, competence = replace(grid, scores=scores), np.array(competence)
    expected = [voted(grid, competence, team).mean() for team in wanted]
    np.testing.assert_allclose(team_scores(grid, competence, wanted), expected)


@pytest.mark.parametrize("members", [40, 41])
def test_the_fast_search_is_exact_in_a_large_pool_and_in_blocks(monkeypatch, members):
    """Answers of four kinds or none, no competences alike or all: most votes are ties of one to one."""
    monkeypatch.setattr(baselines, "_BLOCK_CELLS", 5000)
    rng = np.random.default_rng(members)
    grid = grid_of(rng.choice(list("xyzw-."), size=(30, members)).tolist(), members=[str(m) for m in range(members)])
    teams = rng.permutation(every_team(members, (1, 2, 3)))[:300]
    for competence in (rng.random(members), np.ones(members)):
        expected = [voted(grid, competence, team).mean() for team in teams]
        np.testing.assert_allclose(team_scores(grid, competence, teams), expected)


def test_no_team_scores_more_on_the_fitted_queries_than_the_best():
    grid = drawn(40, right=(0.25,) * 5, seed=5)
    best = fit_best_fixed_team(grid, max_team=3).learned
    scores = [voted(grid, best["competence"], team).mean() for team in every_team(5, (1, 2, 3))]
    assert voted(grid, best["competence"], best["team"]).mean() == pytest.approx(max(scores))


# ---- holes, unscored answers, and answers without a label


@given(rows_with_holes)
def test_with_holes_a_team_scores_by_who_is_on_record_and_what_is_scored(answers):
    """Of the queries on which a member of the team is on record and the vote's answer was scored: (sum + 5 m) / (n + 5)."""
    assume(all(any(row[m] != " " for row in answers) for m in range(4)))
    grid = grid_of(answers, [[None if text in "-z" else float(text == "x") for text in row] for row in answers])
    assume(not grid.is_complete)
    competence, teams = np.array([0.4, 0.3, 0.2, 0.1]), every_team(4, (1, 2, 3, 4))
    known = grid.scores[~np.isnan(grid.scores)]
    mean = known.mean() if len(known) else 0.5
    expected = []
    for team in teams:
        score = voted(grid, competence, team)[(grid.recorded & team).any(axis=1)]
        score = score[~np.isnan(score)]
        expected.append((score.sum() + 5 * mean) / (len(score) + 5))
    np.testing.assert_allclose(team_scores(grid, competence, teams), expected)


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ("-xx", 1),  # a text that agrees with nothing abstains, though the best wrote it
        ("-.x", 2),
        ("--.", 0),  # texts alone: the best one's
        (".--", 1),  # silence is no answer where there is another
        ("...", 0),
        (" xy", 1),  # who was not asked neither votes nor is returned
        (" .-", 2),
        ("  y", 2),
    ],
)
@pytest.mark.parametrize("name", ["plurality", "weighted_vote", "supervised_fusion"])
def test_a_vote_hears_labelled_answers_of_members_on_record(answers, chosen, name):
    if name not in FITTED:
        pytest.skip("scikit-learn fits it")
    grid = grid_of([answers, "xyz"]).take([0])
    decision = FITTED[name].decide(grid)
    assert decision.chosen.tolist() == [chosen]
    assert decision.asked.tolist() == [[text != " " for text in answers]]
    assert np.isfinite(decision.scores(grid)).all()


def test_a_score_is_unknown_where_one_was_called_who_is_not_on_record():
    """The team is a and b. On the first query both are on record; on the second b would have been asked; the third is unscored."""
    grid = grid_of(["xxy", "x y", "zzx"], [[1, 1, 0], [1, None, 0], [None, None, 1]])
    decision = Baseline("top_k", ("a", "b"), {"team": np.array([True, True]), "competence": np.ones(2)}).decide(grid)
    assert decision.asked.tolist() == [[True, True, False]] * 3
    assert decision.chosen.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(decision.scores(grid), [1.0, np.nan, np.nan])


def test_the_oracle_returns_the_best_scored_answer_on_record():
    grid = grid_of(["zyx", "yz ", "zz "], [[None, 0, 1], [0.5, 0.25, None], [None, None, None]])
    decision = fit_oracle(grid).decide(grid)
    assert decision.chosen.tolist()[:2] == [2, 0]
    assert decision.asked.tolist() == [[True] * 3, [True, True, False], [True, True, False]]
    np.testing.assert_array_equal(decision.scores(grid), [1, 0.5, np.nan])


def test_means_over_few_scored_cells_are_drawn_to_that_of_all():
    """Of 7 scored cells 4 are right. a: (2 + 5 · 4/7) / (3 + 5); b, right once in one: (1 + 20/7) / 6; so a few do not win."""
    grid = grid_of(["x y", "xx ", "y x", "  y"])
    expected = [(2 + 20 / 7) / 8, (1 + 20 / 7) / 6, (1 + 20 / 7) / 8]
    np.testing.assert_allclose(fit_plurality(grid).learned["competence"], expected)
    lucky = grid_of([*["xy "] * 30, "yyx"])
    assert fit_single_best(lucky).learned["best"] == 0, "right 30 times of 31, rather than once of once"


@needs_sklearn
@settings(max_examples=8)
@given(rows_with_holes, st.randoms(use_true_random=False))
def test_whatever_is_missing_no_fit_and_no_decision_knows_nan(answers, random):
    assume(all(any(row[m] != " " for row in answers) for m in range(4)))
    scores = [[random.choice([None, float(text == "x")]) for text in row] for row in answers]
    grid = grid_of(answers, scores)
    fitted = fit_baselines(grid, grid, max_team=2)
    arrays, facts = dump_baselines(fitted)
    assert all(np.isfinite(array).all() for array in arrays.values())
    for baseline in load_baselines(arrays, json.loads(json.dumps(facts, allow_nan=False))).values():
        decision = baseline.decide(grid)
        assert (decision.asked.any(axis=1)).all()
        known = decision.scores(grid)
        assert np.isin(known[~np.isnan(known)], [0.0, 1.0]).all()


# ---- by task, and by what is near


def unlabelled(grid):
    """The grid as a caller gives it who tells no task."""
    return replace(grid, tasks=[""] * len(grid))


@pytest.mark.parametrize(("shrinkage", "chosen"), [(1.0, 1), (2.0, 0)])
def test_a_task_or_cluster_of_few_queries_is_drawn_to_the_single_best_worked_by_hand(shrinkage, chosen):
    """Six queries of one task, `a` right on all; one of another, `b` right: overall 6/7 and 1/7.

    On the small task `a` has (0 + 6s/7)/(1 + s), `b` (1 + s/7)/(1 + s): s = 1 gives 3/7 < 4/7, s = 2 4/7 > 3/7. So have one
    plant and six sums as clusters.
    """
    by_task = grid_of(["xy"] * 6 + ["yx"], tasks=["sum"] * 6 + ["plant"])
    by_text = grid_of(["xy"] * 6 + ["yx"], queries=["sum"] * 6 + ["plant"], tasks="t" * 7)
    router = fit_per_task_router(by_task, shrinkage=shrinkage)
    assert router.decide(by_task).chosen.tolist()[-2:] == [0, chosen]
    near = fit_nearest_neighbours(by_text, num_clusters=2, shrinkage=shrinkage)
    assert near.decide(by_text).chosen.tolist()[-2:] == [0, chosen]


def test_a_router_asks_one_member_and_of_an_unknown_task_or_none_the_single_best_of_all_together():
    """`b` is best overall though `a` is on the first task."""
    fitted = fit_per_task_router(grid_of(["xy"] * 2 + ["yx"] * 3, tasks=["s"] * 2 + ["t"] * 3), shrinkage=1.0)
    decision = fitted.decide(grid_of(["xy"] * 3, tasks=["s", "t", "u"]))
    assert decision.chosen.tolist() == [0, 1, 1]
    assert decision.asked.tolist() == [[True, False], [False, True], [False, True]]
    assert fitted.decide(unlabelled(grid_of(["xy"], tasks=["s"]))).chosen.tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_a_query_goes_to_the_member_that_is_best_on_queries_like_it(seed):
    """`a` can add, `b` knows plants; new queries of both kinds, no task label."""
    sums, plants = [f"{n} plus {n + 1} equals" for n in range(1, 6)], [f"colour of plant {c} leaves" for c in "vwxyz"]
    known = grid_of(["xy"] * 5 + ["yx"] * 5, queries=sums + plants)
    new = grid_of(["--"] * 2, queries=["colour of plant u leaves", "7 plus 8 equals"])
    fitted = fit_nearest_neighbours(unlabelled(known), num_clusters=2, shrinkage=1.0, seed=seed)
    decision = fitted.decide(unlabelled(new))
    assert decision.chosen.tolist() == [1, 0]
    assert decision.calls.tolist() == [1, 1]


def test_a_task_label_is_part_of_what_is_near():
    """All queries are alike but for their labels."""
    grid = grid_of(["xy", "yx"] * 4, tasks=["sums", "plants"] * 4, queries=["which?"] * 8)
    assert fit_nearest_neighbours(grid, num_clusters=2, shrinkage=1.0).decide(grid).chosen.tolist() == [0, 1] * 4


def test_centres_settle_on_the_means_of_two_pairs_from_every_start_and_are_no_more_than_points_differ():
    """0, 1, 10, 11: from any two of them the centres move to ½ and 10½."""
    points = np.array([[0.0], [1.0], [10.0], [11.0]])
    for seed in range(20):
        centroids = _k_means(points, 2, rng=np.random.default_rng(seed))
        assert sorted(centroids.ravel().tolist()) == [0.5, 10.5]
    alike = grid_of(["xy"] * 3, queries=["same"] * 3, tasks="ttt")
    assert len(fit_nearest_neighbours(alike, num_clusters=8).learned["centroids"]) == 1


# ---- all of them


def test_every_baseline_learns_from_training_and_validation_rows_together():
    """`a` is right on 3 training rows, `b` on 1; on validation 2 and 3: together 5 and 4, so `a` is the better one.

    With 0 and 4 on validation it is `b`. A vote of two that differ goes to the better one, as everything else here does.
    """
    train, grid = grid_of(["xy", "xy", "xy", "yx"]), grid_of(["xy"])
    fitted = fit_baselines(train, grid_of(["yx", "yx", "xy", "xx"]), max_team=1)
    assert tuple(fitted) == tuple(name for name in BASELINES if HAS_SKLEARN or name != "supervised_fusion")
    assert missing_baselines(fitted) == (() if HAS_SKLEARN else ("supervised_fusion",))
    chosen = {name: baseline.decide(grid).chosen.tolist() for name, baseline in fitted.items()}
    del chosen["random_team"]
    assert set(map(tuple, chosen.values())) == {(0,)}
    more = fit_baselines(train, grid_of(["yx"] * 4), max_team=1)
    assert more["single_best"].decide(grid).chosen.tolist() == [1]


@pytest.mark.parametrize(
    ("validation", "max_team", "size"),
    [(["yxx", "xyy", "yxx"], 3, 3), (["xyx", "xyy", "xxx"], 3, 1), (["yxx"], 2, 1)],
)
def test_k_is_the_smallest_that_is_best_on_validation(validation, max_team, size):
    """In training `a`, `b`, `c` are in this order. In the first row three of them outvote `a`, and only then: k = 3."""
    fitted = fit_baselines(grid_of(["xxx", "xxy", "xyy"]), grid_of(validation), max_team=max_team)
    assert fitted["top_k"].learned["team"].sum() == size


@pytest.mark.parametrize(("max_team", "largest"), [(2, 2), (9, 4)])
def test_no_team_is_larger_than_allowed_nor_than_the_pool_and_the_same_rows_and_seed_fit_the_same(max_team, largest):
    train, validation = (drawn(num, right=(0.6, 0.5, 0.6, 0.4), seed=seed) for num, seed in ((40, 3), (20, 4)))
    fitted, again = (fit_baselines(train, validation, max_team=max_team, seed=7) for _ in range(2))
    assert fitted["random_team"].learned["size"] == fitted["best_fixed_team"].learned["largest_tried"] == largest
    assert max(fitted[name].decide(validation).calls.max() for name in ("top_k", "best_fixed_team")) <= largest
    for name, baseline in fitted.items():
        assert_alike(baseline.decide(validation), again[name].decide(validation))


@settings(max_examples=15)
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


def test_baselines_of_grids_with_other_members_are_refused():
    with pytest.raises(PoolError, match="`validation_grid`"):
        fit_baselines(VALIDATION, replace(VALIDATION, members=("a", "b", "d")), max_team=2)


# ---- supervised fusion


def test_without_scikit_learn_supervised_fusion_is_missing_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert missing_baselines(fit_baselines(VALIDATION, VALIDATION, max_team=2)) == ("supervised_fusion",)
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain-rlfocal\[evaluation\]'"):
        fit_supervised_fusion(VALIDATION)
    if HAS_SKLEARN:  # what is fitted decides without it
        monkeypatch.setitem(sys.modules, "sklearn", None)
        assert FITTED["supervised_fusion"].decide(grid_of(["xyz"])).calls.tolist() == [3]


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


@needs_sklearn
def test_supervised_fusion_learns_who_is_right_on_which_task():
    """`a` is right on the one task, `b` on the other: where no task is told, both weigh alike."""
    grid = grid_of(["xy", "yx"] * 20)
    fitted = fit_supervised_fusion(grid)
    assert score(fitted, grid) == 1
    assert score(fit_supervised_fusion(grid, task_scale=0.0), grid) == 0.5
    assert fitted.learned["weights"][0] == pytest.approx(fitted.learned["weights"][1], abs=1e-3)
    assert fit_baselines(grid, grid, max_team=2)["supervised_fusion"].learned["task_weights"].any()


def test_what_a_share_of_the_votes_is_worth_depends_on_how_many_votes_there_are():
    """Three votes, a third of 1.5 for each: 1 + ½ < 2 (0.3 + ½). Four votes, a quarter: 1 + ⅜ > 2 (0.3 + ⅜).

    What is learned of another task does not count.
    """
    learned = {"weights": np.array([1, 0.3, 0.3, 0.3]), "share": 1.5, "competence": np.ones(4)}
    learned |= {"tasks": ("other",), "task_weights": np.full((1, 4), 9.0)}
    fitted = Baseline("supervised_fusion", tuple("abcd"), learned)
    assert fitted.decide(grid_of(["xyy-", "xyyz"])).chosen.tolist() == [1, 0]


@needs_sklearn
def test_supervised_fusion_sees_through_members_that_copy_each_other():
    """`b`, `c` and `d` always say the same, right on 5 of 8; `a` is right on 6 of 8. Three votes of one opinion win every
    vote, weighted or not: 3 ln 5/3 > ln 3. The regression sees that where they differ `a` is right in 3 of 5.
    """
    grid = grid_of(["xxxx", "xyyy", "xxxx", "yxxx", "xyyy", "xxxx", "xyyy", "yxxx"] * 10)
    for fit, expected in ((fit_plurality, 5 / 8), (fit_weighted_vote, 5 / 8), (fit_supervised_fusion, 6 / 8)):
        assert score(fit(grid), grid) == expected


@needs_sklearn
@pytest.mark.parametrize("rows", [["xx", "x-"], ["yz", "zy"]])
def test_where_all_answers_are_right_or_wrong_votes_weigh_their_log_odds(rows):
    grid = grid_of(rows)
    learned = fit_supervised_fusion(grid).learned
    np.testing.assert_array_equal(learned["weights"], log_odds(grid))
    assert learned["share"] == 0
    assert not learned["task_weights"].any()


# ---- in a checkpoint

GRID = drawn(60, right=(0.3, 0.3, 0.3), seed=3)
STORED = fit_baselines(drawn(40, right=(0.3,) * 3, seed=1), drawn(20, right=(0.3,) * 3, seed=2), max_team=2, seed=4)
# Made by hand, so that it is stored and loaded here where scikit-learn is not installed too.
STORED["supervised_fusion"] = Baseline(
    "supervised_fusion",
    ("a", "b", "c"),
    {
        "weights": np.array([0.5, -0.25, 1e-17]),
        "share": 0.1,
        "tasks": ("é1",),
        "task_weights": np.array([[-1.0, 0.5, 0.25]]),
        "competence": np.array([0.3, 0.2, 0.4]),
    },
)
ARRAYS, FACTS = dump_baselines(STORED)


def test_what_went_through_files_is_the_same_and_decides_alike():
    loaded = load_baselines(load(save(ARRAYS)), json.loads(json.dumps(FACTS, allow_nan=False)))
    assert tuple(loaded) == BASELINES
    for name, baseline in STORED.items():
        assert (loaded[name].name, loaded[name].members) == (name, ("a", "b", "c"))
        assert_alike(loaded[name].decide(GRID), baseline.decide(GRID))
    arrays, facts = dump_baselines(loaded)
    assert facts == FACTS
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    singles = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in ARRAYS.items()}
    assert load_baselines(singles, FACTS)["plurality"].learned["weights"].dtype == np.float64


def test_the_arrays_and_facts_are_as_documented():
    arrays, facts = dump_baselines({name: STORED[name] for name in ("plurality", "single_best")})
    assert set(arrays) == {"plurality.weights", "plurality.competence"}
    best = STORED["single_best"].learned["best"]
    assert facts == {"members": ["a", "b", "c"], "fitted": {"plurality": {}, "single_best": {"best": best}}}


@pytest.mark.parametrize(
    ("fitted", "error"),
    [
        ({}, InputError),
        ({"plurality": STORED["single_best"]}, InputError),
        ({"plurality": fit_plurality(grid_of(["xy"])), "oracle": STORED["oracle"]}, PoolError),
    ],
)
def test_only_baselines_of_one_pool_under_their_own_names_are_stored(fitted, error):
    with pytest.raises(error):
        dump_baselines(fitted)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("members",), ["a", "b", "b"], "`members`"),
        (("members",), [], "`members`"),
        (("members",), ["a", "b", 3], "`members`"),
        (("members",), ["a", "b", "c", "d"], "M = 4"),
        (("fitted",), None, "`fitted`"),
        (("more",), 1, "the facts"),
        (("fitted", "best"), {}, "`fitted`"),
        (("fitted", "oracle"), [], "`fitted`"),
        (("fitted", "oracle"), {"score": 1}, r"oracle\.score"),
        (("fitted", "single_best"), {}, r"single_best\.best"),
        (("fitted", "single_best", "best"), 3, "index of a member"),
        (("fitted", "single_best", "best"), -1, "index of a member"),
        (("fitted", "single_best", "best"), True, "index of a member"),
        (("fitted", "single_best", "best"), 1.0, "index of a member"),
        (("fitted", "random_team", "size"), 0, "number of members"),
        (("fitted", "random_team", "size"), 4, "number of members"),
        (("fitted", "random_team", "seed"), -1, "0 or more"),
        (("fitted", "per_task_router", "tasks"), ["t0"], "T = 1"),
        (("fitted", "per_task_router", "tasks"), ["t0", "t0"], "distinct texts"),
        (("fitted", "supervised_fusion", "share"), float("nan"), "at most 1e"),
        (("fitted", "supervised_fusion", "share"), 1e7, "at most 1e"),
        (("fitted", "supervised_fusion", "share"), True, "at most 1e"),
    ],
)
def test_facts_that_do_not_fit_are_refused_by_name(path, value, named):
    facts = deepcopy(FACTS)
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(CheckpointError, match=named):
        load_baselines(ARRAYS, facts)


NO_CLUSTER = {
    "nearest_neighbours.centroids": np.zeros((0, FEATURES_DIM)),
    "nearest_neighbours.best": np.zeros(0, dtype=int),
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"plurality.weights": np.zeros(2)}, "M = 3"),
        ({"plurality.weights": np.zeros((3, 1))}, r"shape \[M\]"),
        ({"plurality.weights": np.array([0, 0, np.nan])}, "NaN"),
        ({"plurality.weights": np.array([0, 0, 1e300])}, "at most 1e"),
        ({"plurality.weights": np.array([0, 0, 1])}, "floats"),
        ({"top_k.team": np.zeros(3, dtype=bool)}, "at least one of them true"),
        ({"top_k.team": np.ones(3)}, "booleans"),
        ({"top_k.team": None}, r"top_k\.team"),
        ({"per_task_router.best": np.array([0, 3])}, "indices of members"),
        ({"per_task_router.best": np.array([-1, 0])}, "indices of members"),
        ({"per_task_router.best": np.array([0.0, 1.0])}, "indices of members"),
        ({"nearest_neighbours.centroids": np.zeros((4, 7))}, r"F = \d+"),
        ({"nearest_neighbours.best": np.zeros(99, dtype=int)}, r"shape \[K\]"),
        (NO_CLUSTER, "K = at least 1"),
        ({"supervised_fusion.task_weights": np.zeros((2, 3))}, "T = 1"),
        ({"supervised_fusion.task_weights": np.zeros((1, 2))}, "M = 3"),
        ({"oracle.scores": np.zeros(3)}, r"oracle\.scores"),
    ],
)
def test_arrays_that_do_not_fit_or_are_missing_are_refused_by_name(changes, named):
    arrays = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    with pytest.raises(CheckpointError, match=named):
        load_baselines(arrays, FACTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abcé0", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "best"]), inner, max_size=2),
    max_leaves=4,
)


@given(
    fact=st.sampled_from([(name, part) for name, values in FACTS["fitted"].items() for part in values]),
    value=json_values,
    name=st.sampled_from(sorted(ARRAYS)),
    dtype=st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
    shape=st.lists(st.integers(0, 3), max_size=2),
    fill=st.sampled_from([0, 1, -1, 2, np.inf, 1e6]),
)
def test_whatever_loads_can_decide(*, fact, value, name, dtype, shape, fill):
    """One fact and one array are replaced by anything: it is refused as a checkpoint, or every baseline decides."""
    facts = deepcopy(FACTS)
    facts["fitted"][fact[0]][fact[1]] = value
    with np.errstate(invalid="ignore"):
        junk = np.full(shape, fill).astype(dtype)
    for arrays in (ARRAYS, {**ARRAYS, name: junk}):
        for written in (FACTS, facts):
            try:
                loaded = load_baselines(arrays, written)
            except CheckpointError:
                continue
            for baseline in loaded.values():
                decision = baseline.decide(GRID)
                assert decision.asked[np.arange(len(GRID)), decision.chosen].all()

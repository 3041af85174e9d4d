"""Baselines that learn whom to ask: the best of a task, of a cluster, and of all teams, worked by hand."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.evaluation import teams
from langchain_rlfocal.evaluation.baselines import (
    BestFixedTeam,
    NearestClusters,
    PerTaskRouter,
    Plurality,
    SingleBest,
    TopK,
)
from langchain_rlfocal.evaluation.decisions import vote
from langchain_rlfocal.evaluation.routers import _k_means
from langchain_rlfocal.evaluation.teams import team_scores
from langchain_rlfocal.outcomes import Outcome, OutcomeTable


def grid_of(answers, *, tasks=None, queries=None, costs=None):
    """One row of answers per query, a letter each or `-` for none; "x" is right."""
    members = "abcdef"[: len(answers[0])]
    rows = [
        Outcome(
            task=tasks[q] if tasks else "t",
            query_id=str(q),
            query=queries[q] if queries else f"{q}?",
            model=member,
            answer=None if text == "-" else text,
            reward=float(text == "x"),
            cost_usd=costs[m] if costs else None,
        )
        for q, row in enumerate(answers)
        for m, (member, text) in enumerate(zip(members, row, strict=True))
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members))


LADDER = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""

CIRCLE = ["xxy", "xyx", "yxx"]
"""Each member is right on two of three queries, and two of three members on each query."""

answer_rows = st.lists(st.text("xyz-", min_size=4, max_size=4), min_size=1, max_size=8)


def test_the_top_two_are_asked_and_the_better_one_breaks_their_tie():
    decision = TopK(2).fit(LADDER).decide(grid_of(["yxx", "-xy", "--x"]))
    assert decision.asked.tolist() == [[True, True, False]] * 3
    assert decision.chosen.tolist() == [0, 1, 0]


@given(st.lists(st.text("xyz-", min_size=3, max_size=3), min_size=1, max_size=8))
def test_the_top_k_run_from_the_single_best_to_the_plurality(answers):
    grid = grid_of(answers)
    for size, other in ((1, SingleBest()), (3, Plurality())):
        decision, same = (baseline.fit(LADDER).decide(grid) for baseline in (TopK(size), other))
        np.testing.assert_array_equal(decision.chosen, same.chosen)
        np.testing.assert_array_equal(decision.asked, same.asked)


def test_three_members_that_err_apart_are_the_best_team():
    """Alone each scores ⅔; two differ once or twice and are no better; the vote of three is always right."""
    fitted = BestFixedTeam(3).fit(grid_of(CIRCLE))
    assert fitted.team.tolist() == [True, True, True]
    assert fitted.largest_tried == 3
    assert fitted.decide(grid_of(["zyy"])).chosen.tolist() == [1]


def test_of_equally_good_teams_the_smaller_then_the_cheaper_then_the_first_is_taken():
    """Of at most two members all six teams score ⅔; where a cost is unknown, none decides."""
    for costs, best in ((None, "a"), ((3.0, 1.0, 2.0), "b"), ((3.0, None, 2.0), "a"), ((1.0, 1.0, 1.0), "a")):
        team = BestFixedTeam(2).fit(grid_of(CIRCLE, costs=costs)).team
        assert [name for name, chosen in zip("abc", team, strict=True) if chosen] == [best]


def test_a_smaller_team_is_taken_before_a_cheaper_one():
    """`a` answers both queries for 3 dollars; `b` and `c` answer one each, together both, for 1 dollar each."""
    fitted = BestFixedTeam(2).fit(grid_of(["xx-", "x-x"], costs=(3.0, 1.0, 1.0)))
    assert fitted.team.tolist() == [True, False, False]


def test_a_team_is_never_larger_than_asked_for_nor_than_the_pool():
    assert BestFixedTeam(1).fit(grid_of(CIRCLE)).largest_tried == 1
    assert BestFixedTeam(9).fit(grid_of(CIRCLE)).largest_tried == 3
    with pytest.raises(InputError, match="`max_team` must be at least 1, got 0"):
        BestFixedTeam(0).fit(grid_of(CIRCLE))


@pytest.mark.parametrize(("limit", "size"), [(2, 1), (5, 1), (6, 2), (7, 3)])
def test_of_a_large_pool_only_sizes_with_few_enough_teams_are_tried_and_it_says_so(monkeypatch, limit, size):
    """Of three members there are 3 teams of one, 6 of one or two, 7 in all."""
    monkeypatch.setattr(teams, "MAX_TEAMS", limit)
    assert BestFixedTeam(3).fit(grid_of(CIRCLE)).largest_tried == size


def every_team(members, sizes):
    named = [team for size in sizes for team in combinations(range(members), size)]
    return np.array([[member in team for member in range(members)] for team in named])


def voted(ids, scores, competence, team):
    """Mean score of one team's vote, the slow way."""
    asked = np.tile(team, (len(ids), 1))
    chosen = vote(ids, asked, weights=np.ones(len(team)), competence=competence)
    return scores[np.arange(len(ids)), chosen].mean()


@given(answer_rows, st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=4, max_size=4))
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
    monkeypatch.setattr(teams, "_BLOCK_CELLS", 5000)
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
    best = BestFixedTeam(3).fit(grid)
    score = voted(grid.answer_ids, grid.scores, best.competence, best.team)
    others = [voted(grid.answer_ids, grid.scores, best.competence, team) for team in every_team(5, (1, 2, 3))]
    assert score == pytest.approx(max(others))


def without_label(grid, *, row=slice(None)):
    """The grid as a caller gives it who tells no task."""
    tasks = np.array(grid.tasks, dtype=object)
    tasks[row] = ""
    return replace(grid, tasks=tasks.tolist())


def router_rows(shrinkage):
    """Six queries of one task, `a` right on all; one of another, `b` right: overall 6/7 and 1/7."""
    return PerTaskRouter(shrinkage).fit(grid_of(["xy"] * 6 + ["yx"], tasks=["big"] * 6 + ["small"]))


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
    fitted = PerTaskRouter(1.0).fit(grid_of(["xy"] * 2 + ["yx"] * 3, tasks=["s"] * 2 + ["t"] * 3))
    assert fitted.decide(grid_of(["xy"] * 3, tasks=["s", "t", "u"])).chosen.tolist() == [0, 1, 1]


@pytest.mark.parametrize("shrinkage", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shrinkage_that_weighs_nothing_or_everything_is_refused(shrinkage):
    for baseline in (PerTaskRouter(shrinkage), NearestClusters(2, shrinkage=shrinkage)):
        with pytest.raises(InputError, match="`shrinkage` must be above 0 and finite"):
            baseline.fit(LADDER)


SUMS, PLANTS = [f"{n} plus {n + 1} equals" for n in range(1, 6)], [f"colour of plant {c} leaves" for c in "vwxyz"]


@pytest.mark.parametrize("seed", range(5))
def test_a_query_goes_to_the_member_that_is_best_on_queries_like_it(seed):
    """`a` can add, `b` knows plants; new queries of both kinds, no task label."""
    known = grid_of(["xy"] * 5 + ["yx"] * 5, queries=SUMS + PLANTS)
    new = grid_of(["--"] * 2, queries=["colour of plant u leaves", "7 plus 8 equals"])
    fitted = NearestClusters(2, shrinkage=1.0, seed=seed).fit(without_label(known))
    decision = fitted.decide(without_label(new))
    assert decision.chosen.tolist() == [1, 0]
    assert decision.calls.tolist() == [1, 1]


def test_a_task_label_is_part_of_what_is_near():
    """All queries are alike but for their labels."""
    grid = grid_of(["xy", "yx"] * 4, tasks=["sums", "plants"] * 4, queries=["which?"] * 8)
    assert NearestClusters(2, shrinkage=1.0).fit(grid).decide(grid).chosen.tolist() == [0, 1] * 4


@pytest.mark.parametrize("seed", range(20))
def test_centres_settle_on_the_means_of_two_pairs_from_every_start(seed):
    """0, 1, 10, 11: from any two of them the centres move to ½ and 10½."""
    points = np.array([[0.0], [1.0], [10.0], [11.0]])
    centroids = _k_means(points, 2, rng=np.random.default_rng(seed))
    assert sorted(centroids.ravel().tolist()) == [0.5, 10.5]


def test_there_are_no_more_clusters_than_different_queries():
    alike = grid_of(["xy"] * 3, queries=["same"] * 3)
    assert len(NearestClusters(8).fit(alike).centroids) == 1
    with pytest.raises(InputError, match="`num_clusters` must be at least 1, got 0"):
        NearestClusters(0).fit(alike)


def test_a_cluster_draws_its_scores_to_the_overall_ones_too():
    """One plant against six sums: as for the small task, s = 1 lets `b` have it, s = 2 does not."""
    grid = grid_of(["xy"] * 6 + ["yx"], queries=["sum"] * 6 + ["plant"])
    for shrinkage, member in ((1.0, 1), (2.0, 0)):
        assert NearestClusters(2, shrinkage=shrinkage).fit(grid).decide(grid).chosen.tolist()[-1] == member

"""Baselines: what each decides, worked by hand, and what none of them may look at."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.evaluation.baselines import (
    BestFixedTeam,
    NearestClusters,
    Oracle,
    PerTaskRouter,
    Plurality,
    RandomTeam,
    SingleBest,
    SupervisedFusion,
    TopK,
    WeightedVote,
)
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

HONEST = (
    SingleBest(),
    Plurality(),
    WeightedVote(),
    RandomTeam(size=2, seed=3),
    TopK(2),
    PerTaskRouter(),
    NearestClusters(2),
    BestFixedTeam(2),
    *([SupervisedFusion()] if find_spec("sklearn") else []),
)
"""Every baseline that is blind to the scores it is judged by; scikit-learn is optional."""


def grid_of(answers, scores=None, *, members="abc"):
    """One row of answers per query, a letter each or `-` for none; "x" is right unless scores are given.

    Queries take turns in two tasks.
    """
    rows = []
    for q, row in enumerate(answers):
        for m, text in enumerate(row):
            reward = float(text == "x") if scores is None else scores[q][m]
            answer = None if text == "-" else text
            rows.append(
                Outcome(
                    task=f"t{q % 2}", query_id=str(q), query=f"{q}?", model=members[m], answer=answer, reward=reward
                )
            )
    return OutcomeTable.from_outcomes(rows).grid(list(members[: len(answers[0])]))


VALIDATION = grid_of(["xyy", "xxy", "yxy", "xyx"])
"""Scores ¾, ½, ¼: `a` is best, then `b`, then `c`."""

answer_rows = st.lists(st.text("xyz-", min_size=3, max_size=3), min_size=1, max_size=8)


def test_single_best_asks_the_member_that_was_best_on_validation():
    decision = SingleBest().fit(VALIDATION).decide(grid_of(["yxx", "yxx"]))
    assert decision.chosen.tolist() == [0, 0]
    assert decision.asked.tolist() == [[True, False, False]] * 2
    assert decision.calls.tolist() == [1, 1]


def test_of_equally_good_members_the_first_is_the_single_best():
    assert SingleBest().fit(grid_of(["yxx"])).best == 1


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
    decision = Plurality().fit(VALIDATION).decide(grid_of([answers]))
    assert decision.chosen.tolist() == [chosen]
    assert decision.calls.tolist() == [3]


def test_ties_between_two_pairs_go_to_the_pair_with_the_best_member():
    """`d` is best on validation: its pair wins, and it speaks for it."""
    validation = grid_of(["yyyx"], members="abcd")
    decision = Plurality().fit(validation).decide(grid_of(["xyxy"], members="abcd"))
    assert decision.chosen.tolist() == [3]


def test_weights_are_the_log_odds_worked_by_hand():
    """Validation of 4 queries; right of 3, 2 and 1: p = 4/6, 3/6, 2/6.

    Pairs wrong together: query 1 (b, c: both y), 3 (a, c: both y), so 2 of 2 agree, and query 2 and 4 have no pair:
    c = (2 + 1)/(2 + 2) = ¾; w = ln(p/(1 − p)) − ln ¾.
    """
    odds = np.array([2.0, 1.0, 0.5])
    np.testing.assert_allclose(WeightedVote().fit(VALIDATION).weights, np.log(odds / 0.75))


def test_a_member_that_did_not_answer_is_judged_by_the_answers_it_gave():
    """`a` answered two of four queries, both right: p = 3/4; `b` four, none right: p = 1/6.

    No pair gave two wrong answers, for silence is none: c = 1/2.
    """
    weights = WeightedVote().fit(grid_of(["xy", "xz", "-y", "-z"], members="ab")).weights
    np.testing.assert_allclose(weights, np.log([3 * 2, 2 / 5]))


def test_a_weighted_vote_lets_one_strong_member_outvote_two_weak_ones():
    """Strong right on all of 8, weak on 4 of 8 with errors that agree: w = ln 9 − ln c against 2 (ln 1 − ln c).

    The weak fail together on 4 queries, always alike: c = 5/6. ln 10.8 = 2.38 > 2 ln 1.2 = 0.36.
    """
    validation = grid_of(["xyy", "xxx"] * 4)
    grid = grid_of(["yxx", "-xy", "zyy"])
    assert WeightedVote().fit(validation).decide(grid).chosen.tolist() == [0, 1, 0]
    assert Plurality().fit(validation).decide(grid).chosen.tolist() == [1, 1, 1]


def test_two_weak_members_that_agree_count_for_more_where_errors_rarely_agree():
    """`a` is right on 8 of 10 (odds 3), `b` and `c` on 5 (odds 1), and their 5 errors together are never alike: c = 1/7.

    ln 3 + ln 7 = 3.04 < 2 ln 7 = 3.89. Where their errors are alike, c = 6/7 and ln 3.5 = 1.25 > 2 ln 7/6 = 0.31.
    """
    common = ["yxx", "yxx", "xxx", "xxx", "xxx"]
    for errors, chosen in (["xyz"] * 5, 1), (["xyy"] * 5, 0):
        assert WeightedVote().fit(grid_of(errors + common)).decide(grid_of(["yxx"])).chosen.tolist() == [chosen]


def test_the_oracle_finds_every_right_answer():
    grid = grid_of(["yxz", "xyy", "yyx", "yyy"])
    decision = Oracle().fit(VALIDATION).decide(grid)
    assert grid.scores[np.arange(4), decision.chosen].tolist() == [1, 1, 1, 0]
    assert decision.calls.tolist() == [3] * 4


def test_a_random_team_has_its_size_and_is_the_same_for_the_same_seed():
    """2,000 queries: each of three members is in two thirds of the teams of two, within four standard errors, 0.042."""
    grid = grid_of(["xyz"] * 2000)
    first = RandomTeam(size=2, seed=5).fit(VALIDATION).decide(grid)
    again = RandomTeam(size=2, seed=5).fit(VALIDATION).decide(grid)
    other = RandomTeam(size=2, seed=6).fit(VALIDATION).decide(grid)
    assert (first.calls == 2).all()
    np.testing.assert_allclose(first.asked.mean(axis=0), 2 / 3, atol=0.042)
    np.testing.assert_array_equal(first.asked, again.asked)
    assert (first.asked != other.asked).any()


@given(answer_rows, st.integers(1, 3), st.integers(0, 5))
def test_a_random_team_returns_an_answer_of_a_member_that_it_asked(answers, size, seed):
    decision = RandomTeam(size=size, seed=seed).fit(VALIDATION).decide(grid_of(answers))
    assert decision.asked[np.arange(len(answers)), decision.chosen].all()


@given(answer_rows)
def test_a_random_team_of_everyone_is_the_plurality(answers):
    grid = grid_of(answers)
    team = RandomTeam(size=3).fit(VALIDATION).decide(grid)
    np.testing.assert_array_equal(team.chosen, Plurality().fit(VALIDATION).decide(grid).chosen)


@pytest.mark.parametrize("size", [0, 4])
def test_a_team_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(InputError, match=f"from 1 to 3 members, got {size}"):
        RandomTeam(size=size).fit(VALIDATION)


@settings(max_examples=40)
@given(answer_rows, st.randoms(use_true_random=False))
def test_labels_of_evaluated_queries_reach_no_decision(answers, random):
    """Every score is turned round or replaced by noise, and every right answer: all decide alike, but for the Oracle."""
    grid = grid_of(answers)
    noise = np.array([[random.random() for _ in "abc"] for _ in answers])
    for baseline in HONEST:
        fitted = baseline.fit(VALIDATION)
        honest = fitted.decide(grid)
        for scores in (noise, 1 - grid.scores):
            blind = fitted.decide(replace(grid, scores=scores, golds=["noise"] * len(answers)))
            np.testing.assert_array_equal(honest.chosen, blind.chosen)
            np.testing.assert_array_equal(honest.asked, blind.asked)


def test_the_oracle_alone_looks_at_the_scores():
    """`b` and `c` are wrong, then right: only the Oracle turns to them."""
    grid = grid_of(["xyy"])
    corrupted = replace(grid, scores=1 - grid.scores)
    fitted = Oracle().fit(VALIDATION)
    assert (fitted.decide(grid).chosen.tolist(), fitted.decide(corrupted).chosen.tolist()) == ([0], [1])


@given(answer_rows)
def test_nobody_beats_the_oracle(answers):
    grid = grid_of(answers)
    rows = np.arange(len(grid))
    best = grid.scores[rows, Oracle().fit(VALIDATION).decide(grid).chosen]
    for baseline in HONEST:
        assert (grid.scores[rows, baseline.fit(VALIDATION).decide(grid).chosen] <= best).all()


@settings(max_examples=40)
@given(st.permutations(range(3)), answer_rows)
def test_renaming_places_of_members_changes_no_answer_of_a_vote(order, answers):
    """VALIDATION ranks the members strictly, so no tie depends on their order."""
    names = [VALIDATION.members[place] for place in order]
    validation = grid_of([[row[m] for m in order] for row in ("xyy", "xxy", "yxy", "xyx")], members=names)
    moved = grid_of([[row[m] for m in order] for row in answers], members=names)
    grid = grid_of(answers)
    for baseline in (SingleBest(), Plurality()):
        plain, permuted = baseline.fit(VALIDATION).decide(grid), baseline.fit(validation).decide(moved)
        assert [grid.members[m] for m in plain.chosen] == [moved.members[m] for m in permuted.chosen]


@settings(max_examples=40)
@given(answer_rows, st.permutations("abcd"))
def test_members_that_move_or_join_change_no_decision(answers, order):
    """The grid has the fitted members in any order and a stranger, who always says z: nobody asks or hears it."""
    grid = grid_of(answers)
    wider = grid_of(
        [[{**dict(zip("abc", row, strict=True)), "d": "z"}[name] for name in order] for row in answers], members=order
    )
    for baseline in (*HONEST, Oracle()):
        fitted = baseline.fit(VALIDATION)
        plain, moved = fitted.decide(grid), fitted.decide(wider)
        assert [grid.members[m] for m in plain.chosen] == [wider.members[m] for m in moved.chosen]
        places = [order.index(name) for name in "abc"]
        np.testing.assert_array_equal(plain.asked, moved.asked[:, places])
        assert not moved.asked[:, order.index("d")].any()


@pytest.mark.parametrize("baseline", [*HONEST, Oracle()])
def test_a_grid_without_a_fitted_member_is_refused(baseline):
    fitted = baseline.fit(VALIDATION)
    with pytest.raises(PoolError, match=r"every member that the baseline was fitted on, but lacks \['c'\]"):
        fitted.decide(grid_of(["xyz"], members="bad"))


@pytest.mark.parametrize("baseline", [*HONEST, Oracle()])
def test_a_baseline_decides_nothing_about_no_query(baseline):
    decision = baseline.fit(VALIDATION).decide(VALIDATION.take([]))
    assert (decision.chosen.shape, decision.asked.shape) == ((0,), (0, 3))


@settings(max_examples=40)
@given(answer_rows)
def test_whoever_speaks_was_asked(answers):
    for baseline in (*HONEST, Oracle()):
        decision = baseline.fit(VALIDATION).decide(grid_of(answers))
        assert decision.asked[np.arange(len(answers)), decision.chosen].all()


@pytest.mark.parametrize("baseline", HONEST)
def test_nothing_can_be_learned_from_no_query(baseline):
    with pytest.raises(InputError, match="at least one training or validation query"):
        baseline.fit(VALIDATION.take([]))

"""The guard: who serves, who is left out, what is said of it, and how it is undone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.log import Feedback
from langchain_rlfocal.online import DriftMonitor, Guard, OnlineLearner
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.records import Query
from support_online import saying, serve

MEMBERS = ("a", "b", "c")


class Trained(PriorPolicy):
    """Says that it was trained; asks whom it takes for the best."""

    trained = True


def guard_of(mode="on", *, trained=True, best="a", **settings):
    kind = Trained if trained else PriorPolicy
    incumbent = kind(MEMBERS, {best: 0.9})
    return Guard(incumbent, OnlineLearner(PriorPolicy(MEMBERS)), mode=mode, **settings)


def available(guard):
    """Members that may be asked."""
    return tuple(name for name in MEMBERS if name not in guard.left_out)


def run(guard, count, *, chance, seed=0, explore=0.0, start=0, max_team=2, cost_weight=0.0):
    """Serve queries of members that are right with these chances, and feed back; return changes and who was asked."""
    rng, changes, asked = np.random.default_rng(seed), [], []
    for number in range(start, start + count):
        said = {name: "x" if rng.random() < chance[name] else f"not {name}" for name in available(guard)}
        for name in guard.probes(str(number)):
            said.setdefault(name, "x" if rng.random() < chance[name] else f"not {name}")
        explored = rng.random() < explore
        team = tuple(sorted(rng.choice([*said], min(max_team, len(said)), replace=False))) if explored else None
        probes = guard.probes(str(number))
        served = serve(
            guard.serving,
            Query(f"question {number}"),
            {name: answer for name, answer in said.items() if name not in probes},
            number=number,
            team=team if not probes else None,
            max_team=max_team,
            cost_weight=cost_weight,
            explore=explore,
            explored=explored,
        )
        scores = {name: float(said[name] == "x") for name in served.asked}
        feedback = Feedback(answer_id=served.id, score=float(served.answer.answer == "x"), per_member=scores)
        if probes:
            served = replace(served, candidates=(*served.candidates, *(saying(name, said[name]) for name in probes)))
            scores |= {name: float(said[name] == "x") for name in probes}
            feedback = Feedback(answer_id=served.id, score=feedback.score, per_member=scores)
        asked.append(served.asked)
        changes += guard.update(served, feedback)
    return changes, asked


CLEAR = {"a": 0.4, "b": 1.0, "c": 0.0}
"""Chances to be right where the incumbent asks `a` and `b`, and takes the word of `a`, who is worse."""


@pytest.fixture(scope="module")
def taken_over():
    """What a guard learned by the time that it let the learner serve, and its changes."""
    guard = guard_of(monitor=DriftMonitor(MEMBERS, run_length=1e200))
    changes, _ = run(guard, 220, chance=CLEAR, explore=0.1)
    return guard.arrays(), changes


def test_off_does_nothing():
    guard = guard_of("off")
    changes, _ = run(guard, 5, chance=dict.fromkeys(MEMBERS, 0.5))
    assert (changes, guard.learner.count, guard.serving is guard.incumbent) == ([], 0, True)


def test_an_untrained_incumbent_is_replaced_at_once_and_the_entry_says_so():
    guard = guard_of(trained=False)
    assert guard.serving is guard.learner.policy
    changes, _ = run(guard, 3, chance=dict.fromkeys(MEMBERS, 0.5))
    assert [change.kind for change in changes] == ["took_over"]
    assert "no trained policy" in changes[0].reason


def test_in_shadow_it_learns_and_never_serves():
    guard = guard_of("shadow")
    changes, _ = run(guard, 220, chance=CLEAR, explore=0.1)
    assert guard.learner.count == 220
    assert guard.serving is guard.incumbent
    assert guard.left_out == ()
    assert {change.kind for change in changes} <= {"left_out", "returned"}
    assert guard.difference.low > 0


def test_in_shadow_the_incumbent_serves_whatever_is_restored(taken_over):
    guard = guard_of("shadow").restore(taken_over[0])
    assert guard.serving is guard.incumbent


def test_it_takes_over_only_when_it_is_shown_to_be_better(taken_over):
    arrays, changes = taken_over
    assert [change.kind for change in changes] == ["took_over"]
    assert changes[0].figures["low"] > 0
    guard = guard_of(monitor=DriftMonitor(MEMBERS, run_length=1e200)).restore(arrays)
    assert guard.serves_learner
    _, asked = run(guard, 40, chance=CLEAR, start=220)
    assert sum("b" in team for team in asked) > 35
    json.dumps([asdict(change) for change in changes])


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_take_over_where_it_is_no_better(seed):
    """The incumbent asks the best member already."""
    guard = guard_of()
    changes, _ = run(guard, 120, chance={"a": 0.8, "b": 0.5, "c": 0.5}, explore=0.5, seed=seed)
    assert [change.kind for change in changes] == []


def test_it_goes_back_when_it_does_not_hold_any_more(taken_over):
    """After the takeover all members get much worse than the incumbent was; no member is taken for broken here."""
    guard = guard_of(monitor=DriftMonitor(MEMBERS, run_length=1e200)).restore(taken_over[0])
    changes, _ = run(guard, 120, chance=dict.fromkeys(MEMBERS, 0.02), start=220)
    assert [change.kind for change in changes] == ["went_back"]
    assert guard.serving is guard.incumbent
    assert "worth less" in changes[0].reason


def test_what_is_cheaper_by_more_than_it_scores_less_stays():
    """Three right at .6 score .74 together for .6, one alone .6 for .2: it takes over by that measure, and is judged by it."""
    guard = guard_of(monitor=DriftMonitor(MEMBERS, run_length=1e200))
    settings = {"chance": dict.fromkeys(MEMBERS, 0.6), "max_team": 3, "cost_weight": 0.6}
    changes, _ = run(guard, 1000, **settings)
    assert [change.kind for change in changes] == ["took_over"]


def test_a_broken_member_is_left_out_and_found_again():
    guard = guard_of(trained=False, monitor=DriftMonitor(MEMBERS, probe_share=0.3))
    well = {"a": 0.9, "b": 0.7, "c": 0.5}
    run(guard, 120, chance=well)
    changes, asked = run(guard, 120, chance={**well, "a": 0.0}, start=120)
    assert [(change.kind, change.figures["member"]) for change in changes] == [("left_out", "a")]
    assert guard.left_out == ("a",)
    assert sum("a" in team for team in asked[60:]) < 30
    changes, asked = run(guard, 250, chance=well, start=240)
    assert ("returned", "a") in [(change.kind, change.figures["member"]) for change in changes]
    assert sum("a" in team for team in asked[-50:]) > 25


def test_the_last_member_is_never_left_out():
    guard = guard_of(trained=False)
    for name in MEMBERS:
        guard.monitor.leave_out(name)
    assert len(guard.left_out) == 2
    assert len(available(guard)) == 1


def test_changes_are_undone(taken_over):
    arrays, changes = taken_over
    guard = guard_of(monitor=DriftMonitor(MEMBERS, run_length=1e200)).restore(arrays)
    undone = guard.undo(changes[0].id)
    assert [change.kind for change in undone] == ["went_back"]
    assert guard.serving is guard.incumbent
    more, _ = run(guard, 200, chance=CLEAR, explore=0.8, start=220)
    assert guard.difference.low > 0
    assert more == []
    assert guard.undo(changes[0].id) == []
    again = guard.undo(undone[0].id)
    assert [change.kind for change in again] == ["took_over"]
    assert guard.serves_learner


def test_leaving_out_is_undone_and_so_is_that():
    guard = guard_of(trained=False)
    changes, _ = run(guard, 60, chance={"a": 1.0, "b": 0.6, "c": 0.6})
    changes, _ = run(guard, 60, chance={"a": 0.0, "b": 0.6, "c": 0.6}, start=60)
    left = next(change for change in changes if change.kind == "left_out")
    known, expected = guard.learner.policy.competence(Query("question 1"))["a"], guard.monitor.expected("a")
    assert known > 0.3  # of its 60 good answers
    back = guard.undo(left.id)
    assert (back[0].kind, guard.left_out) == ("returned", ())
    assert guard.learner.policy.competence(Query("question 1"))["a"] == known
    assert guard.undo(left.id) == []
    assert [change.kind for change in guard.undo(back[0].id)] == ["left_out"]
    assert guard.left_out == ("a",)
    assert guard.monitor.expected("a") == expected  # half of which it has to reach


@pytest.mark.parametrize("wrong", ["", "1", "99-took_over", "1-nothing", "x-took_over", "1-left_out:nobody"])
def test_what_never_happened_cannot_be_undone(wrong):
    guard = guard_of(trained=False)
    run(guard, 1, chance=dict.fromkeys(MEMBERS, 0.5))
    with pytest.raises(InputError, match="`change_id` must be"):
        guard.undo(wrong)


def test_arrays_restore_the_same_guard():
    one = guard_of()
    run(one, 20, chance=CLEAR, explore=0.8)
    other = guard_of().restore({name: array.copy() for name, array in one.arrays().items()})
    results = [run(guard, 50, chance=CLEAR, explore=0.8, start=20, seed=1) for guard in (one, other)]
    assert results[0] == results[1]
    mine, theirs = one.arrays(), other.arrays()
    assert {name: array.tobytes() for name, array in mine.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }
    with pytest.raises(InputError):
        guard_of().restore({})


def test_what_another_policy_served_is_learned_from_but_not_compared():
    guard = guard_of("shadow")
    stranger = serve(PriorPolicy(MEMBERS, {"c": 0.7}), Query("question"), dict.fromkeys(MEMBERS, "x"))
    guard.update(stranger, Feedback(answer_id="0", score=1.0))
    pinned = serve(guard.incumbent, Query("question"), dict.fromkeys(MEMBERS, "x"), pinned=True)
    guard.update(pinned, Feedback(answer_id="0", score=1.0))
    assert guard.learner.count == 2
    assert guard.difference.count == 0


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="`mode` must be"):
        guard_of("maybe")
    with pytest.raises(InputError, match="incumbent's members"):
        Guard(PriorPolicy(["a"]), OnlineLearner(PriorPolicy(["b"])))


def test_a_trained_policy_and_its_correction_are_compared():
    """Both ask the same until something is learned, so their difference is nothing, and certain to be small."""
    policy = RLFocalPolicy.load(POLICY_PATH)
    guard = Guard(policy, OnlineLearner(policy), mode="on")
    said = {name: str(number) for number, name in enumerate(policy.members)}
    for number in range(20):
        served = serve(guard.serving, Query(f"What is {number} + 1?"), said, number=number, max_team=2, max_rounds=2)
        guard.update(served, Feedback(answer_id=served.id, score=number % 2))
    assert guard.serving is policy
    assert guard.difference.count == 20
    assert guard.difference.seen > 0.5
    assert abs(guard.difference.mean) < 0.1

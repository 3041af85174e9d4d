"""Off-policy comparison: chances by counting teams, estimates without bias, intervals that hold at all times."""

from itertools import combinations

import numpy as np
import pytest

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.log import Feedback
from langchain_rlfocal.online import Comparison, compare
from langchain_rlfocal.online.off_policy import (
    Trajectory,
    chance_seen,
    chance_within,
    done_by,
    follow,
    logged,
)
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.records import Failure, Query
from support_online import judged, serve, served_of

MEMBERS = ("a", "b", "c", "d")


class Asks(PriorPolicy):
    """Asks one member of queries with a mark, and another of those without; of one answer it returns that."""

    def __init__(self, marked, unmarked):
        super().__init__(MEMBERS)
        self.policy_id, self._choice = f"asks-{marked}-{unmarked}", {True: marked, False: unmarked}

    def select(self, query, candidates, failures, **limits):
        chosen = super().select(query, candidates, failures, **limits)
        asked = () if candidates or failures else (self._choice["marked" in query.text],)
        return type(chosen)(round=chosen.round, members=asked, probabilities={})

    def fuse(self, query, candidates, failures, *, max_team):
        own = [one for one in candidates if one.member == self._choice["marked" in query.text]]
        return super().fuse(query, own or candidates, (), max_team=max_team)


@pytest.mark.parametrize(("size", "team", "available"), [(1, 2, 4), (2, 2, 4), (3, 4, 6), (3, 2, 5), (0, 2, 4)])
def test_the_chance_within_a_random_team_is_what_counting_says(size, team, available):
    teams = [set(one) for one in combinations(range(available), team)]
    assert chance_within(size, team, available) == pytest.approx(
        sum(set(range(size)) <= one for one in teams) / len(teams)
    )


def limits_of(served):
    """What a policy is told of a served answer when it selects first."""
    names = ("available", "max_rounds", "max_team", "cost_weight")
    return {"round_number": 1, **{name: getattr(served, name) for name in names}}


def did(*rounds, score=None, is_seen=True, charge=0.0):
    """A trajectory of these rounds, each a string of members."""
    return Trajectory(tuple(map(frozenset, rounds)), is_seen, score, charge)


@pytest.mark.parametrize(
    ("old", "new", "within"),
    [
        (did("a"), did("a"), True),
        (did("a"), did("b"), False),
        (did("a", "b"), did("b"), True),
        (did("ab"), did("a", "d"), False),
        (did("ab", "c"), did("a", "b"), True),
        (did("ab", "c"), did("d"), False),  # four in a team of three: never
    ],
)
def test_the_chance_that_both_are_seen_is_what_counting_says(old, new, within):
    """Where it was not explored everyone new must be within old; a random team must hold both."""
    served = served_of({"a": "x"}, available=MEMBERS, explore=0.2, max_team=3)
    teams = [set(one) for one in combinations(MEMBERS, 3)]
    share = sum(old.asked | new.asked <= one for one in teams) / len(teams)
    assert chance_seen(old, new, served) == pytest.approx(0.8 * within + 0.2 * share)


def test_where_one_of_them_is_not_seen_there_is_no_chance_to_tell():
    served = served_of({"a": "x"}, available=MEMBERS, explore=0.2, max_team=3)
    assert chance_seen(did("a"), did("b", is_seen=False), served) == 0.0
    assert chance_seen(did("a", "c", is_seen=False), did("b"), served) == 0.0


def test_a_policy_is_followed_on_what_was_logged():
    served = served_of({"a": "x", "b": "y"}, available=MEMBERS, max_team=2, max_rounds=2, cost_weight=0.4)
    feedback = judged(served, {"a": 1.0, "b": 0.25})
    assert follow(Asks("b", "b"), served, feedback) == did("b", score=0.25, charge=0.1)
    assert follow(Asks("c", "c"), served, feedback) == did("c", is_seen=False, charge=0.1)
    unjudged = Feedback(answer_id="1", score=1.0)
    assert follow(Asks("b", "b"), served, unjudged) == did("b", charge=0.1)
    assert follow(PriorPolicy(MEMBERS), served, feedback) == did("ab", score=1.0, charge=0.2)
    assert logged(served, feedback) == did("ab", score=1.0, charge=0.2)


def called_off(said, *names, **facts):
    """A served answer without the answers of some that were asked: nobody waited for them."""
    failures = tuple(Failure(name, 1, "cancelled", "It could change nothing.", 0.1) for name in names)
    return served_of(said, available=MEMBERS, max_team=len(said) + len(names), failures=failures, **facts)


def test_who_was_called_off_was_not_asked():
    """B might have answered: whether it fails, or what it would say, nobody knows, and nothing is learned of the policy."""
    served = called_off({"a": "x"}, "b", explore=0.5)
    feedback = judged(served, {"a": 1.0})
    seen = follow(Asks("b", "b"), served, feedback)
    assert (seen.asked, seen.is_seen, seen.is_cut, seen.score) == ({"b"}, False, True, None)
    comparison = Comparison()
    comparison.add(served, logged(served, feedback), seen, expected=0.25)
    assert comparison.difference.seen == 0
    assert comparison.difference.mean == pytest.approx(0.25)
    stranger = follow(Asks("c", "c"), served, feedback)
    assert (stranger.is_seen, stranger.is_cut) == (False, False)


def test_a_policy_that_need_not_wait_for_who_was_called_off_is_seen():
    """A and B agree, so that C alone cannot change a vote of equals; if A alone answered, it could."""
    policy = PriorPolicy(MEMBERS, {"d": 0.01})
    served = called_off({"a": "x", "b": "x"}, "c")
    assert policy.select(served.query, (), (), **limits_of(served)).members == ("a", "b", "c")
    seen = follow(policy, served, judged(served, {"a": 0.8}))
    assert (seen.is_seen, seen.score) == (True, 0.8)
    alone = called_off({"a": "x"}, "b", "c")
    assert follow(policy, alone, judged(alone, {"a": 0.8})).is_cut


def test_who_was_asked_beside_the_team_is_not_the_policys_choice():
    """D is left out and was probed: neither its call, nor the answer that it changed, is what the policy did."""
    policy = Asks("a", "a")
    served = served_of({"a": "x", "d": "y"}, returned="d", available=("a", "b", "c"), max_team=1, cost_weight=0.75)
    feedback = judged(served, {"a": 0.25, "d": 1.0})
    assert done_by(policy, served, feedback) == did("a", score=0.25, charge=0.25)
    difference = compare(policy, policy, [(served, feedback)] * 50)
    assert (difference.mean, difference.seen) == (0.0, 1.0)


def test_what_the_policy_did_not_decide_is_not_compared():
    """A policy that asks D always, while the operating point names A on every second query: it is as good as itself."""
    policy, log = Asks("d", "d"), []
    for number in range(200):
        said = {"a": "x"} if number % 2 else {"d": "y"}
        served = served_of(said, available=MEMBERS, max_team=1, explore=0.5, pinned=bool(number % 2))
        log.append((served, judged(served, {next(iter(said)): number % 2})))
    difference = compare(policy, policy, log)
    assert (difference.mean, difference.count, difference.seen) == (0.0, 100, 1.0)


def test_a_team_that_fails_is_worth_nothing():
    served = served_of({"a": "x"}, failed=("b",), available=MEMBERS)
    feedback = Feedback(answer_id="1", score=1.0)
    assert follow(Asks("b", "b"), served, feedback) == did("b", score=0.0)


def test_the_first_query_is_worked_by_hand():
    """ε = 0: all that is seen has P = 1, so x = 1 − ¼ = ¾ whatever was expected, and what is not seen is as expected."""
    served = served_of({"a": "x", "b": "y"}, available=MEMBERS, max_team=2)
    for expected in (0.0, -0.8):
        comparison = Comparison()
        comparison.add(served, did("ab", score=0.25), did("a", score=1.0), expected=expected)
        difference = comparison.difference
        assert (difference.mean, difference.count, difference.seen) == (pytest.approx(0.75), 1, 1.0)
        assert difference.low < 0.0 < difference.high
        unseen = Comparison()
        unseen.add(served, did("a", score=1.0), did("c", is_seen=False), expected=expected)
        assert (unseen.difference.mean, unseen.difference.seen) == (pytest.approx(expected), 0.0)


def test_an_explored_query_is_worked_by_hand():
    """ε = ½, two of four, old asks `a`, new `b`, both were explored; a is worth ¼, b is right, 0.2 was expected.

    P = ½ · 1/6, so x = 0.2 + (1 − ¼ − 0.2) · 12 = 6.8.
    """
    served = served_of({"a": "y", "b": "x"}, available=MEMBERS, explore=0.5, explored=True, max_team=2)
    comparison = Comparison()
    comparison.add(served, did("a", score=0.25), did("b", score=1.0), expected=0.2)
    assert comparison.difference.mean == pytest.approx(2.0)  # the most a difference less charges can be
    assert comparison.arrays()["sums"][5] == pytest.approx(6.8)


def test_a_policy_that_is_never_seen_is_no_better_whatever_the_other_pays():
    """Old asks A and B at a charge, new asks C and D, which can hardly be seen: neither score nor charge of old speaks for it."""
    served = served_of({"a": "x", "b": "x"}, available=MEMBERS, explore=0.05, max_team=2, cost_weight=0.6)
    comparison = Comparison()
    for _ in range(3000):
        comparison.add(served, did("ab", score=0.5, charge=0.3), did("cd", is_seen=False))
    assert comparison.difference.mean == 0.0
    assert comparison.difference.low < 0


def world(count, *, explore, seed, rate=(0.9, 0.2)):
    """Queries, a third of them marked; member `b` is right on marked ones more often than `a`, on the others less often."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        marked = rng.random() < 1 / 3
        chance = {"a": 0.4, "b": rate[0] if marked else rate[1], "c": 0.3, "d": 0.3}
        right = {name: float(rng.random() < chance[name]) for name in MEMBERS}
        explored = rng.random() < explore
        team = tuple(sorted(rng.choice(MEMBERS, 2, replace=False).tolist())) if explored else None
        yield Query(f"{'marked' if marked else 'plain'} {number}"), right, team


def log_of(old, rows, *, explore):
    for number, (query, right, team) in enumerate(rows):
        said = {name: f"{name}{number}" for name in MEMBERS}
        served = serve(old, query, said, number=number, team=team, explore=explore, explored=team is not None)
        scores = {name: right[name] for name in served.asked}
        yield served, Feedback(answer_id=served.id, score=scores[served.answer.member], per_member=scores)


@pytest.mark.parametrize("expected", [0.0, 0.5, -0.8])
def test_the_estimate_has_no_bias_and_the_mean_of_what_is_seen_has(expected):
    """New asks `b` of marked queries, a third: better by 0.9 − 0.4 there, 1/6 over all, whatever a model says of it.

    What is seen, unweighted, is hardly ever a marked query, since these are seen only by exploration: the plain mean of what
    is seen is near 0 and misses 1/6 by far.
    """
    old, new, truth = Asks("a", "a"), Asks("b", "a"), (0.9 - 0.4) / 3
    means, naive = [], []
    for seed in range(40):
        plain, comparison = [], Comparison(max_weight=20.0)
        for served, feedback in log_of(old, world(150, explore=0.5, seed=seed), explore=0.5):
            mine = done_by(old, served, feedback)
            theirs = follow(new, served, feedback)
            if mine.is_seen and theirs.is_seen:
                plain.append(theirs.score - mine.score)
            comparison.add(served, mine, theirs, expected=expected if "marked" in served.query.text else 0.0)
        naive.append(np.mean(plain))
        means.append(comparison.arrays()["sums"][5] / 150)
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - truth) < 3 * error
    assert abs(np.mean(naive) - truth) > 5 * np.std(naive) / np.sqrt(len(naive))


def test_the_interval_holds_at_all_times():
    """Of 60 streams, watched after every query, at most a twentieth may ever leave the truth outside; and it gets narrow."""
    served = served_of({"a": "x", "b": "y"}, available=MEMBERS, max_team=2)
    missed, widths = 0, []
    for seed in range(60):
        rng, comparison, out = np.random.default_rng(seed), Comparison(error=0.05), False
        for _ in range(400):
            new, old = float(rng.random() < 0.7), float(rng.random() < 0.5)
            comparison.add(served, did("ab", score=old), did("a", score=new))
            found = comparison.difference
            out = out or not found.low <= 0.2 <= found.high
        missed += out
        widths.append(found.high - found.low)
    assert missed <= 3
    assert np.mean(widths) < 0.35


def test_a_fixed_time_interval_that_is_watched_does_not_hold():
    """The hard negative: mean ± 1.96 standard errors, watched after every query, misses the truth in many streams."""
    missed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = (rng.random(400) < 0.7).astype(float) - (rng.random(400) < 0.5)
        number = np.arange(1, 401)
        mean = x.cumsum() / number
        error = np.sqrt(np.maximum((x**2).cumsum() / number - mean**2, 0) / number)
        missed += bool((abs(mean - 0.2) > 1.96 * error)[20:].any())
    assert missed > 10


def test_what_nobody_judged_speaks_against_the_new_policy():
    served = served_of({"a": "x", "b": "y"}, available=MEMBERS, max_team=2)
    comparison = Comparison()
    comparison.add(served, did("ab"), did("a"))
    assert comparison.difference.mean == pytest.approx(-1.0)


def test_a_log_is_compared_at_once():
    old, new = Asks("a", "a"), Asks("b", "a")
    log = [*log_of(old, world(300, explore=0.5, seed=1), explore=0.5)]
    found = compare(old, new, log)
    assert found.count == 300
    assert found.low < 1 / 6 < found.high
    assert compare(old, old, log).mean == 0.0


def test_arrays_restore_the_same_comparison():
    served = served_of({"a": "x", "b": "y"}, available=MEMBERS, max_team=2)
    one = Comparison()
    one.add(served, did("ab", score=0.0), did("a", score=1.0))
    other = Comparison().restore(one.arrays())
    for comparison in (one, other):
        comparison.add(served, did("ab", score=1.0), did("a", score=1.0))
    assert one.difference == other.difference
    with pytest.raises(InputError):
        Comparison().restore({})


@pytest.mark.parametrize("wrong", [{"error": 0.0}, {"error": 1.0}, {"max_weight": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="`error` must be in"):
        Comparison(**wrong)


def test_the_policies_of_these_tests_are_policies():
    assert isinstance(Asks("a", "b"), EnsemblePolicy)


def test_a_log_of_nothing_but_exploration_is_compared_too():
    old, new = Asks("a", "a"), Asks("b", "a")
    found = compare(old, new, log_of(old, world(600, explore=1.0, seed=2), explore=1.0))
    assert found.low < 1 / 6 < found.high
    assert 0.3 < found.seen < 0.7

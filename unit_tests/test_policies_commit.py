"""A policy promises an answer early only where no member still running can change it."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import PoolError
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.base import Commitment
from langchain_rlfocal.records import Candidate, Failure, Query

QUERY = Query("Is the sun a star?", "facts")
NOTHING = Commitment(0.0, author_is_final=False)
FAILED = object()


def says(member, answer, scores=None):
    return Candidate(member=member, round=1, text=answer or "", answer=answer, latency_s=0.1, option_probs=scores)


def results_of(outcomes, scores=None):
    """Split outcomes by member, an answer, None or `FAILED`, into candidates and failures."""
    candidates = [says(m, o, (scores or {}).get(m)) for m, o in outcomes.items() if o is not FAILED]
    return candidates, [Failure(m, 1, "TimeoutError", "too late", 1.0) for m, o in outcomes.items() if o is FAILED]


def committed(policy, outcomes, running, scores=None):
    return policy.commitment(QUERY, *results_of(outcomes, scores), running=tuple(running))


def fused(policy, outcomes, scores=None):
    return policy.fuse(QUERY, *results_of(outcomes, scores), max_team=len(policy.members))


# ---- by hand


def test_two_of_three_who_agree_settle_it():
    """½ + ½ against ½: the third can only lower the share, to 1 / 1½."""
    promise = committed(PriorPolicy("abc"), {"a": "yes", "b": "yes"}, "c")
    assert promise == Commitment(pytest.approx(2 / 3), author_is_final=True)


def test_three_of_five_who_agree_settle_it():
    """1½ against 1: with both the others, whether they are here, run, or one of each."""
    policy = PriorPolicy("abcde")
    agreed = {"a": "yes", "b": "yes", "c": "yes"}
    assert committed(policy, agreed, "de") == Commitment(pytest.approx(3 / 5), author_is_final=True)
    assert committed(policy, agreed | {"d": "no"}, "e") == Commitment(pytest.approx(3 / 5), author_is_final=True)
    assert committed(policy, agreed | {"d": FAILED}, "e") == Commitment(pytest.approx(3 / 4), author_is_final=True)
    assert committed(policy, agreed | {"d": None}, "e") == Commitment(pytest.approx(3 / 4), author_is_final=True)


@pytest.mark.parametrize(
    ("outcomes", "running"),
    [
        ({}, "a"),
        ({"a": "yes"}, "b"),
        ({"a": "yes", "b": "yes"}, "cd"),
        ({"a": "yes", "b": "yes", "c": "no"}, "d"),
        ({"a": None}, "b"),
        ({"a": None, "b": FAILED}, ""),
    ],
)
def test_a_tie_and_an_answer_that_nobody_could_read_promise_nothing(outcomes, running):
    assert committed(PriorPolicy("abcd"), outcomes, running) == NOTHING


def test_an_answer_can_be_final_before_its_author_is():
    """b and c outweigh a, .5 + .5 against .5, but a, being earlier, would speak for them."""
    promise = committed(PriorPolicy("abc"), {"b": "yes", "c": "yes"}, "a")
    assert promise == Commitment(pytest.approx(2 / 3), author_is_final=False)


def test_a_more_competent_member_that_runs_would_become_the_author():
    """.5 + .5 against .9, and against .4 where it is a less competent one that runs."""
    policy = PriorPolicy("abcd", {"c": 0.9, "d": 0.4})
    agreed = {"a": "yes", "b": "yes"}
    assert committed(policy, agreed, "c") == Commitment(pytest.approx(1 / 1.9), author_is_final=False)
    assert committed(policy, agreed, "d") == Commitment(pytest.approx(1 / 1.4), author_is_final=True)
    assert committed(policy, agreed, "cd") == NOTHING


def test_one_competent_member_settles_it_alone():
    """.9 against .3 + .5."""
    promise = committed(PriorPolicy("abc", {"a": 0.9, "b": 0.3, "c": 0.5}), {"a": "yes"}, "bc")
    assert promise == Commitment(pytest.approx(0.9 / 1.7), author_is_final=True)


def test_others_who_differ_from_each_other_do_not_add_up():
    """.9 against .5 + .3 or .4 + .3, of 2.1 in all."""
    policy = PriorPolicy("abcd", {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.3})
    promise = committed(policy, {"a": "yes", "b": "no", "c": "true"}, "d")
    assert promise == Commitment(pytest.approx(0.9 / 2.1), author_is_final=True)


def test_competences_that_only_rounding_tells_apart_promise_nothing():
    """.1 + .2 is .30000000000000004."""
    policy = PriorPolicy("abc", {"a": 0.1, "b": 0.2, "c": 0.3})
    assert committed(policy, {"a": "yes", "b": "yes"}, "c") == NOTHING


def test_members_of_no_competence_promise_nothing_while_anyone_runs():
    """All weights are even then, so that one more answer always ties."""
    policy = PriorPolicy("abc", dict.fromkeys("abc", 0.0))
    assert committed(policy, {"a": "yes", "b": "yes"}, "c") == NOTHING


def test_where_nobody_runs_the_answer_is_what_fusion_says():
    policy = PriorPolicy("abc")
    outcomes = {"a": "yes", "b": "no", "c": FAILED}
    assert committed(policy, outcomes, "") == Commitment(fused(policy, outcomes).confidence, author_is_final=True)


@pytest.mark.parametrize("policy_of", ["prior", "learned"])
@pytest.mark.parametrize("answer", ["yes", None])
def test_an_unknown_member_is_named(policy_of, answer, random_policy):
    policy = PriorPolicy("ab") if policy_of == "prior" else random_policy("ab")
    with pytest.raises(PoolError, match="unknown: z; known: a, b"):
        committed(policy, {"a": answer}, "z")


def test_a_learned_policy_promises_nothing(random_policy):
    """Its Fusion reads lengths and likeness too, which the members still running bring."""
    assert committed(random_policy("abcde"), dict.fromkeys("abcd", "yes"), "e") == NOTHING


# ---- by brute force


@st.composite
def situations(draw):
    """A pool, what came of some members, who runs, and options that any of them may score."""
    members = "abcde"[: draw(st.integers(2, 5))]
    number = st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.3, 0.5, 0.5, 0.9, 1.0]) | st.floats(0.1, 1)
    policy = PriorPolicy(members, {member: draw(number) for member in members})
    order = draw(st.permutations(members))
    running = order[: draw(st.integers(1, min(3, len(members) - 1)))]
    states = st.sampled_from(["x", "x", "x", "x", "y", "z", None, FAILED])
    outcomes = {member: draw(states) for member in order[len(running) :]}
    shown = st.none() | st.dictionaries(st.sampled_from(["x", "y", "z", "new 0", "w"]), st.floats(-1, 1), min_size=1)
    scores = {member: draw(shown) for member in members} if draw(st.booleans()) else {}
    return policy, outcomes, running, scores


def endings(policy, outcomes, running, scores):
    """All that fusion can make of it: each who runs fails, is not understood, joins an answer or brings a new one."""
    present = {answer for answer in outcomes.values() if isinstance(answer, str)}
    may_say = [FAILED, None, *sorted(present), *(f"new {number}" for number in range(len(running)))]
    for said in product(may_say, repeat=len(running)):
        ending = outcomes | dict(zip(running, said, strict=True))
        if any(outcome is not FAILED for outcome in ending.values()):
            yield fused(policy, ending, scores)


def ties(answer):
    """Whether a second answer weighs as much as the winner, but for rounding."""
    best, *others = sorted(answer.weights.values(), reverse=True)
    return bool(others) and best - others[0] < 1e-7


@settings(max_examples=150)
@given(situations())
def test_what_is_promised_holds_for_every_ending_and_no_more_could_be(situation):
    """The least confidence of all endings is exactly the promised one; without a promise some ending differs or ties."""
    policy, outcomes, running, scores = situation
    promise = committed(policy, outcomes, running, scores)
    ends = list(endings(*situation))
    if promise == NOTHING:
        answers = {end.answer for end in ends}
        assert len(answers) != 1 or answers == {None} or any(map(ties, ends))
        return
    now = fused(policy, outcomes, scores)
    assert {end.answer for end in ends} == {now.answer}
    assert min(end.confidence for end in ends) == pytest.approx(promise.confidence, abs=1e-9)
    assert promise.author_is_final == ({end.member for end in ends} == {now.member})


@given(st.data())
def test_everyone_who_answered_in_one_voice_is_enough_where_they_are_the_majority(data):
    """With equal competences: n of n + running, for running < n."""
    running = data.draw(st.integers(0, 3))
    agreed = data.draw(st.integers(running + 1, 6))
    members = data.draw(st.permutations([f"m{n}" for n in range(agreed + running)]))
    promise = committed(PriorPolicy(sorted(members)), dict.fromkeys(members[:agreed], "yes"), members[agreed:])
    assert promise.confidence == pytest.approx(agreed / (agreed + running))
    assert promise.author_is_final == (not running or min(members[:agreed]) < min(members[agreed:]))

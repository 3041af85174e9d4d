"""Policies decide as documented, trained or not, one query as many, and promise only what nobody can change."""

import copy
import math
import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.observations import MEMBER_AXES
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import Commitment, PriorPolicy, RLFocalPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.records import Candidate, Failure, Query

QUERY = Query("Is the sun a star?", "facts")
FAILED = object()


def says(member, answer, scores=None):
    return Candidate(member=member, round=1, text=answer or "", answer=answer, latency_s=0.1, option_probs=scores)


def fails(member):
    return Failure(member=member, round=1, kind="TimeoutError", reason="too late", latency_s=1.0)


def results_of(outcomes, scores=None):
    """Split outcomes by member, an answer, None or `FAILED`, into candidates and failures."""
    candidates = [says(m, o, (scores or {}).get(m)) for m, o in outcomes.items() if o is not FAILED]
    return candidates, [fails(m) for m, o in outcomes.items() if o is FAILED]


def select(policy, candidates=(), failures=(), *, available="abcd", round_number=1, max_rounds=2, max_team=3, cost=0.1):
    return policy.select(
        QUERY,
        candidates,
        failures,
        available=tuple(available),
        round_number=round_number,
        max_rounds=max_rounds,
        max_team=max_team,
        cost_weight=cost,
    )


def fused(policy, outcomes, scores=None):
    return policy.fuse(QUERY, *results_of(outcomes, scores), max_team=len(policy.members))


def committed(policy, outcomes, running, scores=None):
    return policy.commitment(QUERY, *results_of(outcomes, scores), running=tuple(running))


@pytest.fixture(params=["prior", "learned"])
def policy_of(request, random_policy):
    """What makes a policy of the members it is given: one that was never trained, one of random weights."""
    return PriorPolicy if request.param == "prior" else random_policy


@pytest.fixture
def policy(policy_of):
    return policy_of("abcd")


# ---- the untrained policy


@pytest.mark.parametrize(
    ("competence", "outcomes", "limits", "expected"),
    [
        pytest.param({"c": 0.9, "b": 0.8}, {}, {}, "cb", id="the two most competent first"),
        pytest.param({}, {}, {}, "ab", id="equals in the pool's order"),
        pytest.param({}, {"a": "yes", "b": "yes"}, {"round_number": 2}, "", id="agreed"),
        pytest.param({}, {"a": "yes", "b": "no"}, {"round_number": 2}, "c", id="differed"),
        pytest.param({}, {"a": "yes", "b": "no"}, {"round_number": 2, "max_team": 4}, "cd", id="with more room"),
        pytest.param({}, {"a": "yes", "b": FAILED}, {"round_number": 2}, "c", id="one answer is no agreement"),
        pytest.param({}, {}, {"max_rounds": 1}, "abc", id="a single round"),
        pytest.param({}, {}, {"max_team": 1}, "a", id="a team of one"),
        pytest.param({}, {"a": "yes"}, {"max_team": 1, "round_number": 2}, "", id="which is full"),
    ],
)
def test_an_untrained_policy_asks_two_and_the_rest_where_they_differ(competence, outcomes, limits, expected):
    selection = select(PriorPolicy("abcd", competence), *results_of(outcomes), **limits)
    assert selection.members == tuple(expected)
    assert selection.probabilities == {name: float(name in expected) for name in "abcd" if name not in outcomes}


@pytest.mark.parametrize(
    ("competence", "outcomes", "member", "confidence"),
    [
        pytest.param({}, {"a": "no", "b": "yes", "c": "yes"}, "b", 2 / 3, id="plurality"),
        pytest.param({"a": 0.9, "b": 0.3, "c": 0.4}, {"b": "no", "c": "no", "a": "yes"}, "a", 0.9 / 1.6, id="minority"),
        pytest.param({"a": 0.5, "b": 0.25, "c": 0.25}, {"b": "no", "c": "no", "a": "yes"}, "a", 0.5, id="a tie"),
        pytest.param(
            {"a": 0.1, "b": 0.2, "c": 0.3}, {"a": "no", "b": "no", "c": "yes"}, "c", 0.5, id="but for rounding"
        ),
    ],
)
def test_an_untrained_vote_is_weighted_by_competence_and_ties_go_to_the_most_competent(
    competence, outcomes, member, confidence
):
    policy = PriorPolicy("abc", competence)
    batched = EnsemblePolicy.fuse(policy, QUERY, *results_of(outcomes), max_team=3)
    for answer in (fused(policy, outcomes), batched):
        assert (answer.member, answer.answer) == (member, "yes")
        assert answer.confidence == answer.weights["yes"] == pytest.approx(confidence)
        assert sum(answer.weights.values()) == pytest.approx(1)
        assert set(answer.supporters["no"]) == {name for name, said in outcomes.items() if said == "no"}


def test_an_untrained_policys_name_tells_competences_apart():
    assert PriorPolicy("ab").policy_id != PriorPolicy("ab", {"a": 0.6}).policy_id
    assert PriorPolicy("ab").policy_id == PriorPolicy("ab").policy_id
    assert not PriorPolicy("ab").trained


@pytest.mark.parametrize("declared", [{"a": 1.2}, {"a": float("nan")}, {"x": 0.5}])
def test_an_impossible_competence_is_refused(declared):
    with pytest.raises(InputError, match="competence"):
        PriorPolicy("ab", declared)


NAMES = ("a", "b", "c", "d", "e")
COMPETENCES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.9]) | st.floats(0, 1), min_size=5, max_size=5)


@given(COMPETENCES, st.lists(st.sampled_from(["x", "y", "z", "failed", "not asked"]), min_size=5, max_size=5))
def test_a_vote_is_counted_as_the_batched_methods_count_it(competences, said):
    policy = PriorPolicy(NAMES, dict(zip(NAMES, competences, strict=True)))
    answers = dict(zip(NAMES, said, strict=True))
    candidates = [says(name, text) for name, text in answers.items() if len(text) == 1]
    failures = [fails(name) for name, text in answers.items() if text == "failed"]
    if candidates:
        quick = policy.fuse(QUERY, candidates, failures, max_team=5)
        batched = EnsemblePolicy.fuse(policy, QUERY, candidates, failures, max_team=5)
        assert (quick.member, quick.answer, quick.supporters) == (batched.member, batched.answer, batched.supporters)
        assert quick.weights.keys() == batched.weights.keys()
        assert all(abs(share - batched.weights[label]) < 1e-12 for label, share in quick.weights.items())


@given(COMPETENCES, st.sets(st.sampled_from(NAMES), min_size=1), st.integers(1, 5), st.integers(1, 3))
def test_the_first_choice_is_remembered_as_it_was(competences, available, max_team, max_rounds):
    policy = PriorPolicy(NAMES, dict(zip(NAMES, competences, strict=True)))
    limits = {"round_number": 1, "max_rounds": max_rounds, "max_team": max_team, "cost_weight": 0.1}
    names = [name for name in NAMES if name in available]
    first = policy.select(QUERY, [], [], available=names, **limits)
    assert policy.select(Query("Another?"), [], [], available=names, **limits) == first
    assert EnsemblePolicy.select(policy, QUERY, [], [], available=names, **limits) == first


# ---- every policy


def test_an_unknown_member_is_named(policy):
    for decide in (
        lambda: select(policy, available="az"),
        lambda: fused(policy, {"z": "yes"}),
        lambda: committed(policy, {"a": "yes"}, "z"),
        lambda: committed(policy, {"a": None}, "z"),
    ):
        with pytest.raises(PoolError, match=r"unknown: z; known: a, b, c, d"):
            decide()


def test_fusing_nothing_is_refused(policy):
    with pytest.raises(InputError, match="at least one candidate"):
        policy.fuse(QUERY, [], [fails("a")], max_team=3)


def test_candidates_without_an_answer_still_give_one_of_them(policy):
    """A failed member has nothing to return, however competent it is; and what nobody can compare does not agree."""
    answer = policy.fuse(QUERY, [says("b", None), says("c", None)], [fails("a")], max_team=3)
    assert answer.member in {"b", "c"}
    assert answer.answer is None
    assert answer.weights == {"": 0.0}
    assert answer.confidence == 0.0
    assert set(answer.supporters[""]) == {"b", "c"}


def test_a_candidate_without_an_answer_never_wins_against_one_that_has_one(policy):
    for without, with_answer in (("a", "b"), ("b", "a"), ("d", "c")):
        answer = policy.fuse(QUERY, [says(without, None), says(with_answer, "yes")], [], max_team=3)
        assert answer.member == with_answer


def test_after_failures_someone_else_is_asked_while_there_is_room(policy):
    selection = select(policy, [], [fails("a"), fails("b")], round_number=2)
    assert len(selection.members) == 1
    assert not {"a", "b"} & set(selection.members)
    assert select(policy, [], [fails("a"), fails("b"), fails("c")], round_number=2).members == ()


def test_a_left_out_member_is_not_chosen(policy):
    assert "b" not in select(policy, available="acd").members


def test_competence_is_told_by_name(policy):
    competence = policy.competence(QUERY)
    assert list(competence) == list("abcd")
    assert all(0 <= value <= 1 for value in competence.values())


@given(
    st.integers(0, 50),
    st.lists(st.sampled_from(["yes", "no", None]), min_size=0, max_size=4),
    st.integers(1, 4),
    st.fixed_dictionaries({"round_number": st.integers(1, 3), "cost": st.floats(0, 2)}),
)
def test_selections_are_legal_whatever_was_learned(random_policy, seed, answers, max_team, options):
    policy = random_policy("abcd", seed)
    candidates = [says(member, answer) for member, answer in zip("abcd", answers, strict=False)][:max_team]
    selection = select(policy, candidates, max_rounds=3, max_team=max_team, **options)
    asked = {c.member for c in candidates}
    assert not asked & set(selection.members)
    assert len(selection.members) + len(asked) <= max_team
    assert selection.members or any(c.answer for c in candidates) or len(asked) == max_team
    assert set(selection.probabilities) == set("abcd") - asked
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in selection.probabilities.values())


@st.composite
def conflicts(draw):
    """Candidates and failures of some of four members: silent ones, lengths, log-probabilities, options."""
    candidates, failures = [], []
    for member in "abcd":
        kind = draw(st.sampled_from(["candidate", "candidate", "candidate", "failure", "left"]))
        if kind == "failure":
            failures.append(fails(member))
        elif kind == "candidate":
            candidates.append(
                replace(
                    says(member, draw(st.sampled_from(["A", "B", "two words", None]))),
                    text="x" * draw(st.integers(0, 5000)),
                    logprob=draw(st.none() | st.floats(-5, 0)),
                    option_probs=draw(st.none() | st.dictionaries(st.sampled_from("ABC"), st.floats(0, 1), max_size=3)),
                )
            )
    return candidates or [says("d", "A")], [f for f in failures if candidates or f.member != "d"]


@given(st.integers(0, 50), st.permutations("abcd"), conflicts(), st.randoms())
def test_decisions_do_not_depend_on_the_order_of_members_or_candidates(random_policy, seed, order, conflict, random):
    policy = random_policy("abcd", seed, labels=[("facts", "A"), ("", "B")])
    candidates, failures = conflict
    shuffled, failed = random.sample(candidates, len(candidates)), random.sample(failures, len(failures))
    one = policy.fuse(QUERY, candidates, failures, max_team=4)
    other = policy.fuse(QUERY, shuffled, failed, max_team=4)
    assert (one.answer, one.member, dict(one.supporters)) == (other.answer, other.member, dict(other.supporters))
    assert one.weights == pytest.approx(other.weights)
    first, second = (
        select(policy, c, f, available=a, round_number=2, max_team=4)
        for c, f, a in ((candidates, failures, "abcd"), (shuffled, failed, "".join(order)))
    )
    assert first.members == second.members
    assert first.probabilities == pytest.approx(second.probabilities)


@given(st.integers(0, 50), conflicts())
def test_an_answer_is_a_candidates_or_an_option_of_all_and_its_weights_are_shares(random_policy, seed, conflict):
    candidates, failures = conflict
    for policy in (random_policy("abcd", seed), PriorPolicy("abcd", {"c": 0.6})):
        answer = policy.fuse(QUERY, candidates, failures, max_team=4)
        by_name = {candidate.member: candidate for candidate in candidates}
        total, is_read = sum(answer.weights.values()), all(one.answer is not None for one in candidates)
        assert total == pytest.approx(1) if is_read else total < 1 + 1e-6
        assert all(weight >= 0 for weight in answer.weights.values())
        assert answer.weights.get("", 0.0) == 0.0
        assert answer.confidence == max(answer.weights.values()) or answer.answer is None
        assert set(answer.supporters) >= {candidate.answer or "" for candidate in candidates}
        if answer.member is None:
            assert all(answer.answer in (candidate.option_probs or {}) for candidate in candidates)
            assert answer.answer not in {candidate.answer for candidate in candidates}
        else:
            assert by_name[answer.member].answer == answer.answer
            assert answer.member in answer.supporters[answer.answer or ""]


@pytest.mark.parametrize(
    ("texts", "member", "weights"),
    [
        ({"a": "Read: x", "b": "Who can read this?"}, "a", {"x": 1.0, "": 0.0}),  # though b is more competent
        ({"b": "Who can read this?", "c": "Or this?"}, "b", {"": 0.0}),
        ({"b": " ", "c": "Or this?"}, "c", {"": 0.0}),  # silence is no answer where there is another
    ],
)
def test_untrained_a_text_that_nobody_can_read_has_no_vote_and_is_returned_where_there_is_no_other(
    texts, member, weights
):
    policy = PriorPolicy("abc", {"a": 0.4, "b": 0.8, "c": 0.3})
    read = {name: text.partition("Read: ")[2] or None for name, text in texts.items()}
    candidates = [replace(says(name, read[name]), text=text) for name, text in texts.items()]
    answer = policy.fuse(QUERY, candidates, [], max_team=3)
    assert (answer.member, answer.answer, dict(answer.weights)) == (member, read[member], weights)


def test_a_learned_policy_may_return_a_text_without_a_label_and_says_no_confidence(random_policy):
    """The vote is the evidence, which is logit(competence): b at .9 outweighs a at .6 by 9 to 1.5."""
    policy = random_policy("ab")
    weights = {name: np.zeros_like(array) for name, array in policy.parts.weights.items()}
    weights["competence.bias"][:] = 0.6, 0.9
    weights["evidence.shared"][0] = 1.0
    weights["evidence.moments"][[1, 3, 4]] = 1.0
    weights["fusion.vote.weight"][0, 0] = 4.0  # the first axis is the evidence, over 4
    policy = RLFocalPolicy(Parts(members=("a", "b"), weights=weights))
    answer = policy.fuse(QUERY, [says("a", "x"), replace(says("b", None), text="Who can read this?")], [], max_team=2)
    assert (answer.member, answer.answer, answer.confidence) == ("b", None, 0.0)
    assert answer.weights == pytest.approx({"x": 1.5 / 10.5, "": 0.0}, rel=1e-5)
    assert dict(answer.supporters) == {"x": ("a",), "": ("b",)}


@pytest.mark.parametrize(("text", "asks_on"), [("Who can read this?", False), (" \n", True), ("x", False)])
def test_nobody_is_forced_to_ask_on_once_a_member_has_answered_labelled_or_not(random_policy, text, asks_on):
    """A Decider that would rather ask nobody: it must while there is nothing to return but silence."""
    policy = random_policy("abc")
    weights = {**policy.parts.weights, "decider.out.bias": np.full(1, -1000.0)}
    policy = RLFocalPolicy(Parts(members=tuple("abc"), weights=weights))
    said = replace(says("a", "x" if text == "x" else None), text=text)
    limits = {"round_number": 2, "max_rounds": 3, "max_team": 3, "cost_weight": 0.1}
    selection = policy.select(QUERY, [said], [], available=tuple("abc"), **limits)
    assert len(selection.members) == asks_on


@pytest.mark.parametrize("order", ["abcd", "dcba", "bdac"])
def test_a_policy_of_permuted_members_decides_the_same_by_name(random_policy, order):
    """Weights are shared by all members; what belongs to one member moves with it."""
    policy = random_policy("abcd", 3)
    columns = ["abcd".index(name) for name in order]
    weights = dict(policy.parts.weights)
    for name in ("competence.weights", "competence.bias", "pool.price", "pool.diversity"):
        weights[name] = weights[name][..., columns]
    weights["pool.diversity"] = weights["pool.diversity"][columns]
    for name in ("weights", "slopes", "response", "moments"):
        weights[f"evidence.{name}"] = weights[f"evidence.{name}"][:, columns]
    permuted = RLFocalPolicy(Parts(members=tuple(order), weights=weights))
    candidates = [says("a", "A"), says("b", "B"), says("c", "A")]
    one, other = (select(p, candidates[:2], round_number=2) for p in (policy, permuted))
    assert set(one.members) == set(other.members)
    assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)
    one, other = (p.fuse(QUERY, candidates, [], max_team=3) for p in (policy, permuted))
    assert (one.member, one.answer) == (other.member, other.answer)
    assert one.weights == pytest.approx(other.weights, rel=1e-4)


def test_an_option_that_nobody_ranks_first_wins_by_hand(random_policy):
    """γ = 10 and all else 0. Centred scores of a and b: A ⅙ − 17/60, B as much, C 7/60 twice.

    So A and B stand at −7/6 each, C at 7/3: its weight is 1 / (1 + 2 e^(−7/2)).
    """
    policy = random_policy("ab")
    weights = {name: np.zeros_like(array) for name, array in policy.parts.weights.items()}
    weights["competence.bias"][:] = 0.5, 0.6
    weights["evidence.shared"][2] = 10.0
    weights["evidence.moments"][[1, 3, 4]] = 1.0
    weights["fusion.vote.weight"][0, 0] = 4.0  # the first axis is the evidence, over 4
    policy = RLFocalPolicy(Parts(members=("a", "b"), weights=weights))
    scores = {"A": 0.5, "B": 0.05, "C": 0.45}, {"A": 0.05, "B": 0.5, "C": 0.45}
    candidates = [replace(says(n, a), option_probs=s) for n, a, s in zip("ab", "AB", scores, strict=True)]
    answer = policy.fuse(QUERY, candidates, [], max_team=2)
    assert (answer.member, answer.answer) == (None, "C")
    assert answer.confidence == pytest.approx(1 / (1 + 2 * math.exp(-7 / 2)), rel=1e-5)
    assert dict(answer.supporters) == {"A": ("a",), "B": ("b",), "C": ()}
    without = policy.fuse(QUERY, [candidates[0], replace(candidates[1], option_probs=None)], [], max_team=2)
    assert without.answer in {"A", "B"}  # an option that one of them does not score is no candidate
    silent = policy.fuse(QUERY, [replace(candidate, answer=None) for candidate in candidates], [], max_team=2)
    assert (silent.member, silent.answer) == (None, "C")
    assert dict(silent.supporters) == {
        "A": (),
        "B": (),
        "C": (),
        "": ("b", "a"),
    }


def test_a_policy_that_was_trained_without_option_scores_makes_nothing_of_them(random_policy):
    """Both members are usually wrong, so that any option without a supporter would look better than their answer."""
    policy = random_policy("ab")
    weights = {name: np.array(array) for name, array in policy.parts.weights.items()}
    weights["evidence.shared"][:] = 1.0, -3.0, 0.0
    for name in ("evidence.slopes", "evidence.weights", "evidence.response"):
        weights[name][:] = 0.0
    weights["fusion.out.weight"][:] = weights["fusion.vote.weight"][:] = 0.0
    weights["fusion.vote.weight"][0, 0] = 4.0
    policy = RLFocalPolicy(Parts(members=("a", "b"), weights=weights))
    candidates = [replace(says(n, "A"), option_probs={"A": 0.5, "B": 0.3, "C": 0.2}) for n in "ab"]
    answer = policy.fuse(QUERY, candidates, [], max_team=2)
    assert answer.answer == "A"
    assert answer.weights == {"A": 1.0}


def test_one_member_is_a_team_and_nobody_is_none(policy_of):
    policy = policy_of("a")
    for cost in (0.0, 100.0):
        assert select(policy, available="a", max_team=1, cost=cost).members == ("a",)
        assert select(policy, available="a", max_team=3, cost=cost).probabilities == {"a": pytest.approx(1.0)}
    assert policy.fuse(QUERY, [says("a", "yes")], [], max_team=1).weights == {"yes": 1.0}


def test_a_thousand_candidates_are_fused_in_a_moment(policy_of):
    """Two in three say yes, in words of one to a thousand different answers."""
    names = [f"member {m}" for m in range(1000)]
    policy = policy_of(names)
    candidates = [says(name, "yes" if m % 3 else f"answer number {m}") for m, name in enumerate(names)]
    answer = policy.fuse(QUERY, candidates, [], max_team=1000)
    assert len(answer.weights) == 1 + 334
    assert sum(answer.weights.values()) == pytest.approx(1, rel=1e-4)
    if isinstance(policy, PriorPolicy):
        assert answer.answer == "yes"
        assert answer.confidence == pytest.approx(666 / 1000)


def test_a_query_is_described_once_and_the_answers_that_the_decider_saw_are_read_once():
    """An embedder may be slow, or cost. Other answers, or the same in another order, are read again."""
    policy, called = PriorPolicy("abcd"), []
    for method in ("describe", "read"):
        real = getattr(policy, method)
        setattr(policy, method, lambda *args, real=real, method=method: called.append(method) or real(*args))
    candidates = [says("a", "yes"), says("b", None)]
    select(policy)
    select(policy, candidates, round_number=2)
    policy.fuse(QUERY, candidates, [], max_team=3)
    policy.competence(QUERY)
    assert called == ["describe", "read"]
    policy.fuse(QUERY, candidates, [fails("c")], max_team=3)
    policy.fuse(QUERY, [*candidates, says("d", None)], [fails("c")], max_team=3)
    assert called == ["describe", "read", "read", "read"]
    policy.competence(replace(QUERY, task="other"))
    assert called[4:] == ["describe"]


def test_a_fusion_is_the_same_whatever_the_decider_saw_before(random_policy):
    candidates = [says("a", "A"), says("b", "B"), says("c", "A")]
    fresh, used = random_policy("abcd", 2), random_policy("abcd", 2)
    select(used, candidates[:2], round_number=2, cost=7.0)
    select(used, candidates, [fails("d")], round_number=2, max_team=4)
    select(used, candidates, round_number=2, max_team=4, cost=7.0)
    assert used.fuse(QUERY, candidates, [], max_team=3) == fresh.fuse(QUERY, candidates, [], max_team=3)


def test_the_cost_weight_reaches_the_decider(random_policy):
    """With the path from `charge` made strong and negative, a dear question is asked of fewer members."""
    policy = random_policy("abcd")
    weights = {name: np.zeros_like(array) for name, array in policy.parts.weights.items()}
    weights["evidence.moments"][[1, 3, 4]] = 1.0
    weights["pool.price"] = np.full(4, 0.25)
    weights["competence.bias"] = np.full(4, 0.5)
    charge = [name for name, *_ in MEMBER_AXES].index("charge")
    weights["decider.hidden1.weight"][0, charge] = 10.0
    weights["decider.hidden2.weight"][0, 0] = 1.0
    weights["decider.out.weight"][0, 0] = -50.0
    weights["decider.out.bias"][:] = 5.0
    knob = RLFocalPolicy(Parts(members=tuple("abcd"), weights=weights))
    assert len(select(knob, cost=0.0).members) == 3
    assert len(select(knob, cost=1.0).members) == 1


def test_a_policy_can_be_copied_and_pickled(random_policy):
    policy = random_policy("abcd", labels=[("facts", "A")])
    select(policy)  # what it remembers stays behind
    for twin in (copy.deepcopy(policy), copy.copy(policy), pickle.loads(pickle.dumps(policy))):
        assert (twin.policy_id, twin.card, twin.parts.labels) == (policy.policy_id, policy.card, policy.parts.labels)
        assert select(twin) == select(policy)
        assert repr(twin) == repr(policy) == f"RLFocalPolicy({policy.policy_id}, members=['a', 'b', 'c', 'd'])"
    prior = PriorPolicy("abcd", {"b": 0.9})
    select(prior)
    for twin in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert select(twin) == select(prior)


def test_the_weights_of_a_policy_cannot_be_changed(random_policy):
    """Not those that it holds, and not through the arrays that it was made of."""
    parts = random_policy("ab").parts
    given = {name: np.array(array) for name, array in parts.weights.items()}
    policy = RLFocalPolicy(replace(parts, weights=given))
    before = policy.policy_id
    with pytest.raises(ValueError, match="read-only"):
        policy.parts.weights["pool.price"][0] = 7.0
    with pytest.raises(TypeError):
        policy.parts.weights["pool.price"] = np.zeros(2)
    given["pool.price"][0] = 7.0
    assert RLFocalPolicy(policy.parts).policy_id == before != RLFocalPolicy(replace(parts, weights=given)).policy_id


# ---- one by one, and all at once


LETTERS = "ABC"


def record(rng, *, members="abcd", num=5, has_options=True):
    """Outcomes of multiple-choice queries: answers of random length, some silent, some members without scores."""
    rows = []
    for q in range(num):
        for member in members:
            probs = rng.dirichlet(np.ones(3)) if has_options and rng.random() < 0.9 else None
            choice = int(probs.argmax()) if probs is not None else int(rng.integers(3))
            rows.append(
                Outcome(
                    task="facts",
                    query_id=str(q),
                    query=f"Question {q}: (A) one (B) two (C) three?",
                    model=member,
                    response="word " * int(rng.integers(1, 1200)),
                    answer=LETTERS[choice] if rng.random() < 0.8 else None,
                    gold="A",
                    reward=float(choice == 0),
                    option_probs=None if probs is None else tuple(probs),
                    logprob=-rng.random() if rng.random() < 0.7 else None,
                )
            )
    kept = [row for row in rows if rng.random() < 0.9]  # the others are failures
    return OutcomeTable.from_outcomes(kept if {row.model for row in kept} == set(members) else rows)


def told(grid, q, member):
    """What the member did on a recorded query, as the answering river hands it on."""
    m = grid.members.index(member)
    if np.isnan(grid.response_chars[q, m]):
        return Failure(member=member, round=1, kind="TimeoutError", reason="too late", latency_s=1.0)
    probs = None
    if grid.option_probs is not None:
        scored = zip(grid.option_answers[q], grid.option_probs[q, m], strict=True)
        probs = {label: float(p) for label, p in scored if label is not None and not np.isnan(p)}
    logprob = grid.logprobs[q, m]
    return Candidate(
        member=member,
        round=1,
        text="x" * int(grid.response_chars[q, m]),
        answer=grid.answers[q, m],
        latency_s=0.1,
        logprob=None if np.isnan(logprob) else float(logprob),
        option_probs=probs,
    )


@example(seed=8234, max_rounds=1, max_team=1, cost_weight=0.0)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]))
def test_answering_query_by_query_equals_replaying_the_batch(random_policy, seed, max_rounds, max_team, cost_weight):
    """With option scores, silent members, failures, lengths, log-probabilities, and a member left out."""
    rng = np.random.default_rng(seed)
    table = record(rng, has_options=seed % 3 > 0)
    members = ("abcd", "acd", "cb")[seed % 3]
    grid = table.grid(tuple(members), missing="fail")
    limits = {"max_rounds": max_rounds, "max_team": min(max_team, len(members)), "cost_weight": cost_weight}
    for policy in (
        PriorPolicy(members, {members[-1]: 0.7}),
        random_policy("abcd", seed, labels=[("facts", "A"), ("", "B")]),
    ):
        played = replay(policy, grid, **limits)
        for q in range(len(grid)):
            query, results, is_tied = Query(grid.queries[q], grid.tasks[q]), [], False
            for round_number in range(1, max_rounds + 1):
                candidates = [result for result in results if isinstance(result, Candidate)]
                failures = [result for result in results if isinstance(result, Failure)]
                selection = policy.select(
                    query, candidates, failures, available=tuple(members), round_number=round_number, **limits
                )
                results += [told(grid, q, member) for member in selection.members]
                is_tied = is_tied or _is_tied(selection)
                if not selection.members:
                    break
            if is_tied:
                continue
            assert {result.member for result in results} == {grid.members[m] for m in np.flatnonzero(played.asked[q])}
            candidates = [result for result in results if isinstance(result, Candidate)]
            failures = [result for result in results if isinstance(result, Failure)]
            if not any(candidate.answer for candidate in candidates):
                continue  # nobody answered: a replay returns silence, where the river raises or returns a text
            answer = policy.fuse(query, candidates, failures, max_team=limits["max_team"])
            assert answer.member == (None if played.chosen[q] < 0 else grid.members[played.chosen[q]])
            assert played.scores[q] == (
                float(answer.answer == "A")
                if answer.member is None
                else grid.scores[q, grid.members.index(answer.member)]
            )


def _is_tied(selection):
    """Whether one left out is as probable as one picked: members rank by their order then, which is not the grid's."""
    left = [p for name, p in selection.probabilities.items() if name not in selection.members]
    picked = [selection.probabilities[name] for name in selection.members]
    return bool(left and picked) and math.isclose(max(left), min(picked), rel_tol=1e-9)


# ---- an embedder


class Letters:
    """Counts vowels and other letters: two dimensions."""

    def embed_documents(self, texts):
        return [[sum(c in "aeiou" for c in text), sum(c not in "aeiou" for c in text)] for text in texts]


@pytest.fixture
def embedding_parts(random_policy):
    parts, rng = random_policy("abcd").parts, np.random.default_rng(0)
    weights = dict(parts.weights)
    weights["competence.weights"] = np.concatenate([weights["competence.weights"], rng.normal(size=(2, 4))])
    for name in ("competence.mean", "novelty.mean", "novelty.directions"):
        weights[name] = np.concatenate([weights[name], np.zeros((2, *weights[name].shape[1:]))])
    return replace(parts, weights=weights)


def test_an_embedder_changes_what_is_known_of_a_query(random_policy, embedding_parts):
    policy = RLFocalPolicy(embedding_parts, embedder=Letters())
    assert policy.needs_embedder
    plain = random_policy("abcd")
    assert not plain.needs_embedder
    assert policy.competence(QUERY) != plain.competence(QUERY)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin.competence(QUERY) == policy.competence(QUERY)


def test_a_missing_or_superfluous_embedder_is_refused(random_policy, embedding_parts):
    with pytest.raises(InputError, match="needs the embedder that it was trained with: pass `embedder"):
        RLFocalPolicy(embedding_parts)
    with pytest.raises(InputError, match="was trained without an embedder: pass none"):
        RLFocalPolicy(random_policy("ab").parts, embedder=Letters())


@pytest.mark.parametrize("vectors", [[[1.0]], [[1.0, 2.0, 3.0]], [[1.0, float("nan")]], [], [1.0]])
def test_an_embedder_that_gives_other_vectors_is_refused(embedding_parts, vectors):
    class Odd(Letters):
        def embed_documents(self, texts):
            return vectors

    with pytest.raises(InputError, match="The embedder must give"):
        RLFocalPolicy(embedding_parts, embedder=Odd()).competence(QUERY)


# ---- what the members still running cannot change


NOTHING = Commitment(0.0, author_is_final=False)
AGREED = {"a": "yes", "b": "yes"}


@pytest.mark.parametrize(
    ("competence", "outcomes", "running", "confidence", "author_is_final"),
    [
        # ½ + ½ against ½: the third can only lower the share, to 1 / 1½.
        ({}, AGREED, "c", 2 / 3, True),
        # 1½ against 1: with both the others, whether they are here, run, or one of each.
        ({}, AGREED | {"c": "yes"}, "de", 3 / 5, True),
        ({}, AGREED | {"c": "yes", "d": "no"}, "e", 3 / 5, True),
        ({}, AGREED | {"c": "yes", "d": FAILED}, "e", 3 / 4, True),
        ({}, AGREED | {"c": "yes", "d": None}, "e", 3 / 4, True),
        # b and c outweigh a, .5 + .5 against .5, but a, being earlier, would speak for them.
        ({}, {"b": "yes", "c": "yes"}, "a", 2 / 3, False),
        # .5 + .5 against .9, and against .4 where it is a less competent one that runs.
        ({"c": 0.9, "d": 0.4}, AGREED, "c", 1 / 1.9, False),
        ({"c": 0.9, "d": 0.4}, AGREED, "d", 1 / 1.4, True),
        # .9 against .3 + .5.
        ({"a": 0.9, "b": 0.3, "c": 0.5}, {"a": "yes"}, "bc", 0.9 / 1.7, True),
        # .9 against .5 + .3 or .4 + .3, of 2.1 in all: others who differ from each other do not add up.
        ({"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.3}, {"a": "yes", "b": "no", "c": "true"}, "d", 0.9 / 2.1, True),
        # Where nobody runs it is what fusion says.
        ({}, {"a": "yes", "b": "no", "c": FAILED}, "", 1 / 2, True),
    ],
)
def test_a_promise_by_hand(competence, outcomes, running, confidence, author_is_final):
    promise = committed(PriorPolicy("abcde", competence), outcomes, running)
    assert promise == Commitment(pytest.approx(confidence), author_is_final=author_is_final)


@pytest.mark.parametrize(
    ("competence", "outcomes", "running"),
    [
        ({}, {}, "a"),
        ({}, {"a": "yes"}, "b"),
        ({}, AGREED, "cd"),
        ({}, AGREED | {"c": "no"}, "d"),
        ({}, {"a": None}, "b"),
        ({}, {"a": None, "b": FAILED}, ""),
        ({"c": 0.9, "d": 0.4}, AGREED, "cd"),
        ({"a": 0.1, "b": 0.2, "c": 0.3}, AGREED, "c"),  # .1 + .2 is .30000000000000004
        (dict.fromkeys("abc", 0.0), AGREED, "c"),  # all weights are even then: one more answer always ties
    ],
)
def test_a_tie_and_an_answer_that_nobody_could_read_promise_nothing(competence, outcomes, running):
    assert committed(PriorPolicy("abcd", competence), outcomes, running) == NOTHING


def test_a_learned_policy_promises_nothing(random_policy):
    """Its Fusion reads lengths and likeness too, which the members still running bring."""
    assert committed(random_policy("abcde"), dict.fromkeys("abcd", "yes"), "e") == NOTHING


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
    return bool(others) and best - others[0] < 1e-5


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

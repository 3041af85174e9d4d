"""Policies decide as documented, trained or not, and never about members that they do not know."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.observations import MEMBER_AXES
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts
from langchain_rlfocal.records import Candidate, Failure, Query

QUERY = Query("Is the sun a star?", "facts")


def says(member, answer, *, round_number=1):
    return Candidate(member=member, round=round_number, text=answer or "", answer=answer, latency_s=0.1)


def fails(member):
    return Failure(member=member, round=1, kind="TimeoutError", reason="too late", latency_s=1.0)


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


@pytest.fixture(params=["prior", "learned"])
def policy_of(request, random_policy):
    """What makes a policy of the members it is given: one that was never trained, one of random weights."""
    return PriorPolicy if request.param == "prior" else random_policy


class TestPriorPolicy:
    def test_the_first_round_asks_the_two_most_competent(self):
        policy = PriorPolicy("abcd", {"c": 0.9, "b": 0.8})
        assert select(policy).members == ("c", "b")
        assert select(policy).probabilities == {"a": 0, "b": 1, "c": 1, "d": 0}

    def test_equal_competences_follow_the_pool_s_order(self):
        assert select(PriorPolicy("abcd")).members == ("a", "b")

    def test_two_who_agree_end_the_matter(self):
        candidates = [says("a", "yes"), says("b", "yes")]
        assert select(PriorPolicy("abcd"), candidates, round_number=2).members == ()

    def test_two_who_differ_call_in_the_rest_of_the_team(self):
        candidates = [says("a", "yes"), says("b", "no")]
        assert select(PriorPolicy("abcd"), candidates, round_number=2).members == ("c",)
        assert select(PriorPolicy("abcd"), candidates, round_number=2, max_team=4).members == ("c", "d")

    def test_one_answer_and_one_failure_are_no_agreement(self):
        assert select(PriorPolicy("abcd"), [says("a", "yes")], [fails("b")], round_number=2).members == ("c",)

    def test_a_single_round_asks_the_whole_team_at_once(self):
        assert select(PriorPolicy("abcd"), max_rounds=1).members == ("a", "b", "c")

    def test_a_team_of_one_is_legal(self):
        policy = PriorPolicy("ab")
        assert select(policy, available="ab", max_team=1).members == ("a",)
        assert select(policy, [says("a", "yes")], available="ab", max_team=1, round_number=2).members == ()

    def test_with_equal_competences_fusion_is_a_plurality_vote(self):
        answer = PriorPolicy("abc").fuse(QUERY, [says("a", "no"), says("b", "yes"), says("c", "yes")], [], max_team=3)
        assert (answer.member, answer.answer) == ("b", "yes")
        assert answer.weights == pytest.approx({"no": 1 / 3, "yes": 2 / 3})
        assert answer.supporters == {"no": ("a",), "yes": ("b", "c")}
        assert answer.confidence == pytest.approx(2 / 3)

    def test_a_competent_minority_outweighs_a_weak_majority(self):
        """.9 against .3 + .4."""
        policy = PriorPolicy("abc", {"a": 0.9, "b": 0.3, "c": 0.4})
        answer = policy.fuse(QUERY, [says("b", "no"), says("c", "no"), says("a", "yes")], [], max_team=3)
        assert answer.member == "a"

    def test_a_tie_goes_to_the_most_competent_supporter(self):
        """.6 against .4 + .2: equal weights, and a has the more competent supporter."""
        policy = PriorPolicy("abc", {"a": 0.5, "b": 0.25, "c": 0.25})
        answer = policy.fuse(QUERY, [says("b", "no"), says("c", "no"), says("a", "yes")], [], max_team=3)
        assert answer.member == "a"

    def test_its_name_tells_competences_apart(self):
        assert PriorPolicy("ab").policy_id != PriorPolicy("ab", {"a": 0.6}).policy_id
        assert PriorPolicy("ab").policy_id == PriorPolicy("ab").policy_id
        assert not PriorPolicy("ab").trained

    @pytest.mark.parametrize("declared", [{"a": 1.2}, {"a": float("nan")}, {"x": 0.5}])
    def test_an_impossible_competence_is_refused(self, declared):
        with pytest.raises(InputError, match="competence"):
            PriorPolicy("ab", declared)


class TestEveryPolicy:
    @pytest.fixture
    def policy(self, policy_of):
        return policy_of("abcd")

    def test_an_unknown_member_is_named(self, policy):
        with pytest.raises(PoolError, match=r"unknown: z; known: a, b, c, d"):
            select(policy, available="az")

    def test_fusing_nothing_is_refused(self, policy):
        with pytest.raises(InputError, match="at least one candidate"):
            policy.fuse(QUERY, [], [fails("a")], max_team=3)

    def test_candidates_without_an_answer_still_give_one_of_them(self, policy):
        """A failed member has nothing to return, however competent it is; and what nobody can compare does not agree."""
        answer = policy.fuse(QUERY, [says("b", None), says("c", None)], [fails("a")], max_team=3)
        assert answer.member in {"b", "c"}
        assert answer.answer is None
        assert answer.weights == {"": 0.0}
        assert answer.confidence == 0.0
        assert set(answer.supporters[""]) == {"b", "c"}

    def test_a_candidate_without_an_answer_never_wins_against_one_that_has_one(self, policy):
        for without, with_answer in (("a", "b"), ("b", "a"), ("d", "c")):
            answer = policy.fuse(QUERY, [says(without, None), says(with_answer, "yes")], [], max_team=3)
            assert answer.member == with_answer

    def test_after_failures_someone_else_is_asked_while_there_is_room(self, policy):
        selection = select(policy, [], [fails("a"), fails("b")], round_number=2)
        assert len(selection.members) == 1
        assert not {"a", "b"} & set(selection.members)
        assert select(policy, [], [fails("a"), fails("b"), fails("c")], round_number=2).members == ()

    def test_a_left_out_member_is_not_chosen(self, policy):
        assert "b" not in select(policy, available="acd").members

    def test_competence_is_told_by_name(self, policy):
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
        assert sum(answer.weights.values()) == pytest.approx(0 if answer.answer is None else 1)
        assert all(weight >= 0 for weight in answer.weights.values())
        assert answer.confidence == max(answer.weights.values()) or answer.answer is None
        if answer.member is None:
            assert all(answer.answer in (candidate.option_probs or {}) for candidate in candidates)
            assert answer.answer not in {candidate.answer for candidate in candidates}
        else:
            assert by_name[answer.member].answer == answer.answer
            assert answer.member in answer.supporters[answer.answer or ""]


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


def test_a_query_is_described_once_whatever_the_rounds_and_whoever_answered():
    """An embedder may be slow, or cost."""
    policy, described = PriorPolicy("abcd"), []
    describe = policy.describe
    policy.describe = lambda *args: described.append(args) or describe(*args)
    select(policy)
    select(policy, [says("a", "yes"), says("b", "no")], round_number=2)
    policy.fuse(QUERY, [says("a", "yes"), says("b", "no")], [fails("c")], max_team=3)
    policy.competence(QUERY)
    assert len(described) == 1
    policy.competence(replace(QUERY, task="other"))
    assert len(described) == 2


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

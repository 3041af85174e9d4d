"""Policies decide as documented, trained or not, and never about members that they do not know."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import _shapes
from langchain_rlfocal.records import Candidate, Failure, Query

QUERY = Query("Is the sun a star?", "facts")


def says(member, answer, *, round_number=1):
    return Candidate(member=member, round=round_number, text=answer or "", answer=answer, latency_s=0.1)


def fails(member):
    return Failure(member=member, round=1, kind="TimeoutError", reason="too late", latency_s=1.0)


def random_policy(members, seed=0):
    """A policy with random weights: whatever it has learned, the laws must hold."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(scale=0.5, size=shape)
        for name, shape in _shapes(len(members), {"decider": 6, "fusion": 5}).items()
    }
    weights["competence.bias"] = rng.uniform(0.2, 0.8, len(members))
    weights["competence.weights"] *= 0.1
    weights["pool.price"] = rng.dirichlet(np.ones(len(members)))
    weights["pool.diversity"] = rng.uniform(0, 1, (len(members), len(members)))
    return RLFocalPolicy(members, weights, {"seed": seed})


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


@pytest.mark.parametrize("policy", [PriorPolicy("abcd"), random_policy("abcd")], ids=["prior", "learned"])
class TestEveryPolicy:
    def test_an_unknown_member_is_named(self, policy):
        with pytest.raises(PoolError, match=r"unknown: z; known: a, b, c, d"):
            select(policy, available="az")

    def test_fusing_nothing_is_refused(self, policy):
        with pytest.raises(InputError, match="at least one candidate"):
            policy.fuse(QUERY, [], [fails("a")], max_team=3)

    def test_candidates_without_an_answer_still_give_one_of_them(self, policy):
        """A failed member has nothing to return, however competent it is."""
        answer = policy.fuse(QUERY, [says("b", None), says("c", None)], [fails("a")], max_team=3)
        assert answer.member in {"b", "c"}
        assert answer.answer is None
        assert answer.weights == {"": 1.0}
        assert answer.confidence == 1.0

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
    st.integers(1, 3),
    st.floats(0, 2),
)
def test_selections_are_legal_whatever_was_learned(seed, answers, max_team, round_number, cost_weight):
    policy = random_policy("abcd", seed)
    candidates = [says(member, answer) for member, answer in zip("abcd", answers, strict=False)][:max_team]
    selection = select(policy, candidates, round_number=round_number, max_rounds=3, max_team=max_team, cost=cost_weight)
    asked = {c.member for c in candidates}
    assert not asked & set(selection.members)
    assert len(selection.members) + len(asked) <= max_team
    assert selection.members or any(c.answer for c in candidates) or len(asked) == max_team
    assert set(selection.probabilities) == set("abcd") - asked
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in selection.probabilities.values())


@given(st.integers(0, 50), st.permutations("abcd"), st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=4))
def test_decisions_do_not_depend_on_the_order_of_members_or_candidates(seed, order, answers):
    policy = random_policy("abcd", seed)
    candidates = [says(member, answer) for member, answer in zip("abcd", answers, strict=False)]
    shuffled = sorted(candidates, key=lambda c: order.index(c.member))
    one = policy.fuse(QUERY, candidates, [], max_team=4)
    other = policy.fuse(QUERY, shuffled, [], max_team=4)
    assert one.answer == other.answer
    assert one.weights == pytest.approx(other.weights)
    first, second = select(policy, available="abcd"), select(policy, available="".join(order))
    assert set(first.members) == set(second.members)
    assert first.probabilities == pytest.approx(second.probabilities)


def test_the_cost_weight_reaches_the_decider():
    """With the path from `charge` made strong and negative, a dear question is asked of fewer members."""
    policy = random_policy("abcd")
    weights = {name: np.zeros_like(array) for name, array in policy.weights.items()}
    weights["pool.price"] = np.full(4, 0.25)
    weights["competence.bias"] = np.full(4, 0.5)
    weights["decider.hidden1.weight"][0, 3] = 10.0  # the fourth member axis is `charge`
    weights["decider.hidden2.weight"][0, 0] = 1.0
    weights["decider.out.weight"][0, 0] = -50.0
    weights["decider.out.bias"][:] = 5.0
    knob = RLFocalPolicy("abcd", weights)
    assert len(select(knob, cost=0.0).members) == 3
    assert len(select(knob, cost=1.0).members) == 1


def test_a_policy_can_be_copied_and_pickled():
    policy = random_policy("abcd")
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin.policy_id == policy.policy_id
        assert twin.card == policy.card

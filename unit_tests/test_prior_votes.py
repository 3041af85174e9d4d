"""The untrained policy decides one query at a time by the same law as many at once."""

from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.records import Candidate, Failure, Query

NAMES = ("a", "b", "c", "d", "e")
QUERY = Query("?")
COMPETENCES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.9]) | st.floats(0, 1), min_size=5, max_size=5)


@given(COMPETENCES, st.lists(st.sampled_from(["x", "y", "z", "failed", "not asked"]), min_size=5, max_size=5))
def test_a_vote_is_counted_as_the_batched_methods_count_it(competences, said):
    policy = PriorPolicy(NAMES, dict(zip(NAMES, competences, strict=True)))
    answers = dict(zip(NAMES, said, strict=True))
    candidates = [Candidate(name, 1, text, text, 0.1) for name, text in answers.items() if len(text) == 1]
    failures = [Failure(name, 1, "E", "r", 0.1) for name, text in answers.items() if text == "failed"]
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

"""Policies answer query by query as they replay a batch, choose a weight for a target, and read with their embedder."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.records import Candidate, Failure, Query

QUERY = Query("Is the sun a star?", "facts")


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


# ---- a target of calls


@pytest.fixture(scope="session")
def with_curve(random_policy):
    def make(*points):
        curve = [{"cost_weight": weight, "mean_calls": calls} for weight, calls in points]
        return random_policy("ab", card={"curve": curve})

    return make


@pytest.mark.parametrize(
    ("target", "expected"),
    [(3.0, 0.0), (5.0, 0.0), (2.5, 0.1), (2.0, 0.2), (1.75, 0.4), (1.5, 0.6), (1.2, 0.9), (1.0, 0.9)],
)
def test_the_cost_weight_for_a_target_by_hand(with_curve, target, expected):
    """Through (0, 3), (.2, 2), (.6, 1.5), (.8, 1.5), (.9, 1.2): 1.75 is halfway from .2 to .6; 1 is out of reach."""
    policy = with_curve((0.0, 3.0), (0.2, 2.0), (0.6, 1.5), (0.8, 1.5), (0.9, 1.2))
    assert policy.cost_weight_for(target) == pytest.approx(expected)


def test_a_curve_that_rises_again_is_left_at_its_first_crossing(with_curve):
    """3, 1, 2, 1: for 1.5 the first crossing, three quarters of the way from 0 to .1. Points come in any order."""
    policy = with_curve((0.3, 1.0), (0.0, 3.0), (0.2, 2.0), (0.1, 1.0))
    assert policy.cost_weight_for(1.5) == pytest.approx(0.075)


def test_a_curve_of_one_point_or_one_height_gives_its_ends(with_curve):
    assert with_curve((0.1, 2.0)).cost_weight_for(1.5) == 0.1
    assert with_curve((0.1, 2.0), (0.5, 2.0)).cost_weight_for(1.5) == 0.5
    assert with_curve((0.1, 2.0), (0.5, 2.0)).cost_weight_for(2.0) == 0.1


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(1, 5)), min_size=1, max_size=6), st.floats(1, 6))
def test_the_cost_weight_for_a_target_lies_on_the_curve(with_curve, points, target):
    weight = with_curve(*points).cost_weight_for(target)
    assert min(w for w, _ in points) <= weight <= max(w for w, _ in points)


@pytest.mark.parametrize("target", [0.99, 0, -1, float("nan")])
def test_a_target_below_one_call_is_refused(with_curve, target):
    with pytest.raises(InputError, match="`target_calls` must be at least 1"):
        with_curve((0.0, 2.0)).cost_weight_for(target)


@pytest.mark.parametrize("card", [{"seed": 0}, {"curve": []}, {"curve": None}, {"curve": 3}, {"curve": [{"score": 1}]}])
def test_without_a_curve_there_is_no_target(random_policy, card):
    with pytest.raises(InputError, match="must hold a curve"):
        random_policy("ab", card=card).cost_weight_for(2)


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
    weights["competence.mean"] = np.concatenate([weights["competence.mean"], np.zeros(2)])
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

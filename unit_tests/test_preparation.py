"""Preparation: honest estimates of every training query, prices by hand, and a hash of all that is read."""

from dataclasses import fields, replace

import numpy as np
import pytest

from langchain_rlfocal.environment import answers_of
from langchain_rlfocal.outcomes import Outcome, OutcomeGrid, OutcomeTable
from langchain_rlfocal.policies.checkpoint import _shapes
from langchain_rlfocal.training import TrainingConfig, preparation
from langchain_rlfocal.training.preparation import data_hash, folds_of, prepare

pytestmark = pytest.mark.usefixtures("one_thread")

FIXED = {"competence_penalty": [3.0], "evidence_penalty": [0.03]}
CONFIG = TrainingConfig(num_folds=3, max_team=2)


def make_grid(num=24, *, seed=0, costs=None, has_options=False, texts=None):
    """Three members, right half the time, on questions of two tasks."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(num):
        for m, member in enumerate("abc"):
            probs = rng.dirichlet(np.ones(3))
            answer = "ABC"[int(probs.argmax())] if has_options else str(rng.choice(["A", "B", "a long answer"]))
            rows.append(
                Outcome(
                    task=f"task/{q % 2}",
                    query_id=str(q),
                    query=texts[q] if texts else f"Question number {q}?",
                    model=member,
                    response="x" * int(rng.integers(1, 500)),
                    answer=answer if rng.random() < 0.9 else None,
                    gold="A",
                    reward=float(answer == "A"),
                    cost_usd=None if costs is None else costs[q % len(costs)][m],
                    prompt_tokens=10 * (m + 1),
                    completion_tokens=q,
                    option_probs=tuple(probs) if has_options else None,
                    logprob=-rng.random(),
                )
            )
    return OutcomeTable.from_outcomes(rows).grid(["a", "b", "c"])


def prepared(grid, config=CONFIG, *, penalties=FIXED, embedder=None):
    return prepare(grid, config, embedder=embedder, rng=np.random.default_rng(0), penalties=penalties)


def shown(result):
    """What an episode may show of each row, without what belongs to no row."""
    known, evidence = result.known, result.evidence
    arrays = [known.competence, known.trust, known.slopes, evidence.trust, evidence.label]
    arrays += [array for array in (evidence.scored, evidence.similarity) if array is not None]
    return [np.nan_to_num(array.reshape(len(array), -1)) for array in arrays]


def turned_round(grid, rows):
    """The same outcomes, but in these rows what was right is wrong."""
    changes = {"scores": np.where(rows[:, None], 1 - grid.scores, grid.scores)}
    if grid.option_scores is not None:
        changes["option_scores"] = np.where(rows[:, None], 1 - grid.option_scores, grid.option_scores)
    return replace(grid, **changes)


def test_a_querys_own_score_never_reaches_its_competence():
    """Turned round in one fold, scores change the estimates of the other folds alone."""
    grid = make_grid()
    inside = folds_of(grid.queries, 3) == 1
    before, after = (prepared(g).known.competence for g in (grid, turned_round(grid, inside)))
    twice = np.tile(inside, 2)
    np.testing.assert_array_equal(before[twice], after[twice])
    assert (before[~twice] != after[~twice]).any()


@pytest.mark.parametrize("has_options", [False, True])
def test_a_querys_own_score_never_reaches_what_is_read_in_its_answers(has_options, monkeypatch):
    """With the competences held as they are: those of the other folds are allowed to know it."""
    grid = make_grid(has_options=has_options)
    held = np.random.default_rng(1).uniform(0.3, 0.7, (2 * len(grid), 3))
    monkeypatch.setattr(preparation, "cross_fitted", lambda *_, **__: (held, 3.0))
    inside = folds_of(grid.queries, 3) == 1
    twice, is_other = np.tile(inside, 2), False
    for before, after in zip(shown(prepared(grid)), shown(prepared(turned_round(grid, inside))), strict=True):
        np.testing.assert_array_equal(before[twice], after[twice])
        is_other |= bool((before[~twice] != after[~twice]).any())
    assert is_other


def test_every_query_is_learned_with_its_task_and_without():
    grid = make_grid()
    result = prepared(grid)
    assert len(result.grid) == len(result.known.competence) == 2 * len(grid)
    assert result.grid.queries == grid.queries * 2
    np.testing.assert_array_equal(result.grid.scores[: len(grid)], result.grid.scores[len(grid) :])
    assert (result.known.competence[: len(grid)] != result.known.competence[len(grid) :]).any()


@pytest.mark.parametrize("has_options", [False, True])
def test_it_makes_the_arrays_that_a_policy_holds_beside_its_networks(has_options):
    result = prepared(make_grid(60, has_options=has_options))
    sizes = {"features": len(result.weights["competence.mean"]), "decider": 1, "fusion": 1}
    shapes = _shapes(3, len(result.labels), sizes)
    own = {name: shape for name, shape in shapes.items() if not name.startswith(("decider.", "fusion."))}
    assert {name: np.shape(array) for name, array in result.weights.items()} == own
    assert all(np.isfinite(array).all() for array in result.weights.values())
    assert result.labels, "frequent answers have a coefficient of their own"
    assert (result.evidence.scored is not None) == has_options


def test_the_penalties_are_chosen_among_those_offered_and_told():
    result = prepared(make_grid(), penalties={"competence_penalty": [1.0, 30.0], "evidence_penalty": [0.1, 0.2]})
    assert result.facts["competence_penalty"] in {1.0, 30.0}
    assert result.facts["evidence_penalty"] in {0.1, 0.2}
    assert prepared(make_grid()).facts == {"competence_penalty": 3.0, "evidence_penalty": 0.03}


def test_calls_are_charged_what_they_cost_by_hand():
    """Mean costs 4, 3 and 1 dollars: 8 to ask everyone. A call of 6 is charged 6/8; an unknown one its member's mean."""
    grid = make_grid(costs=[(2.0, 3.0, None), (6.0, 3.0, 1.0)])
    result = prepared(grid)
    np.testing.assert_allclose(result.weights["pool.price"], [0.5, 0.375, 0.125])
    np.testing.assert_allclose(result.charges[0], [0.25, 0.375, 0.125])
    np.testing.assert_allclose(result.charges[1], [0.75, 0.375, 0.125])


@pytest.mark.parametrize("costs", [None, [(0.0, 0.0, 0.0)], [(1.0, 1.0, None)]], ids=["unknown", "zero", "one unknown"])
def test_where_dollars_tell_nothing_every_call_costs_the_same(costs):
    result = prepared(make_grid(costs=costs))
    np.testing.assert_allclose(result.weights["pool.price"], 1 / 3)
    np.testing.assert_allclose(result.charges, 1 / 3)


def test_tokens_can_be_what_is_charged():
    """Prompts of 10, 20 and 30 tokens, completions of q for query q: of 0 to 23, 11.5 on average."""
    result = prepared(make_grid(), replace(CONFIG, cost_unit="tokens"))
    np.testing.assert_allclose(result.weights["pool.price"], np.array([21.5, 31.5, 41.5]) / 94.5)
    np.testing.assert_allclose(result.charges[4], np.array([14, 24, 34]) / 94.5)


def test_folds_keep_repeated_questions_together_and_have_no_gaps():
    queries = ["one", "two", "one", "three", "two", "one"]
    folds = folds_of(queries, 5)
    assert folds[0] == folds[2] == folds[5]
    assert folds[1] == folds[4]
    assert set(folds) == set(range(folds.max() + 1))
    assert folds_of(["half \ud800"], 5).tolist() == [0]


def test_one_question_asked_again_and_again_leaves_one_fold_and_finite_weights():
    result = prepared(make_grid(texts=["The same question?"] * 24))
    assert all(np.isfinite(array).all() for array in [*result.weights.values(), *shown(result)])


def test_the_hash_changes_with_whatever_is_read_and_with_nothing_else():
    grid = make_grid(costs=[(1.0, 2.0, 3.0)], has_options=True)
    unread = {"members", "query_ids", "golds", "latency_s", "is_test", "dropped", "missing", "rows"}
    hashes = {data_hash(grid)}
    for field in fields(OutcomeGrid):
        value = getattr(grid, field.name)
        if field.name in unread or value is None:
            continue
        if isinstance(value, list):
            changed = [*value[:-1], "other"]
        else:
            changed = value.copy()
            changed[-1] = "other" if value.dtype == object else value[-1] + 1
        hashes.add(data_hash(replace(grid, **{field.name: changed})))
    assert len(hashes) == 1 + len(fields(OutcomeGrid)) - len(unread)
    assert data_hash(make_grid(costs=[(1.0, 2.0, 3.0)], has_options=True)) in hashes
    assert data_hash(replace(grid, members=("a", "b", "x"))) not in hashes
    for name in ("latency_s", "golds", "query_ids"):
        assert data_hash(replace(grid, **{name: getattr(make_grid(seed=1), name)})) == data_hash(grid)
    assert data_hash(grid, grid) != data_hash(grid)


def test_an_embedder_adds_its_dimensions_to_what_competence_reads():
    class Parity:
        def embed_documents(self, texts):
            return [[float(len(text) % 2), 1.0] for text in texts]

    grid = make_grid()
    plain, embedded = prepared(grid), prepared(grid, embedder=Parity())
    assert len(embedded.weights["competence.mean"]) == len(plain.weights["competence.mean"]) + 2
    assert answers_of(embedded.grid).places.shape == (48, 3)

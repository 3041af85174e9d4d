"""Novelty: what the training queries reach counts as known, by hand and by law, and never by a query's own row."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.features import features_of
from langchain_rlfocal.policies.novelty import KNOWN_QUERIES, cross_fitted_novelty, fit_novelty
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.mappo import Actors
from langchain_rlfocal.training.supervised import as_new_tasks, prepare

CONFIG = TrainingConfig(num_folds=2, max_team=2)


def test_a_direction_is_half_known_when_ten_queries_point_there():
    """Five at e₁ and five at −e₁: mean 0, s₁ = 10 = λ, so 1 − ½; nothing points to e₂; halfway between, ¾."""
    model = fit_novelty(np.array([[1.0, 0.0], [-1.0, 0.0]] * 5))
    half = np.sqrt(0.5)
    assert KNOWN_QUERIES == 10
    np.testing.assert_allclose(model(np.array([[1, 0], [-3, 0], [0, 1], [half, half]])), [0.5, 0.5, 1, 0.75])


def test_the_mean_query_itself_says_nothing_and_counts_as_new():
    np.testing.assert_allclose(fit_novelty(np.ones((4, 3)))(np.ones((2, 3))), [1, 1])


@given(st.integers(0, 2**31 - 1), st.integers(1, 20))
def test_novelty_is_a_share_and_falls_with_every_repetition(seed, q):
    rng = np.random.default_rng(seed)
    seen, asked = rng.normal(size=(q, 5)), rng.normal(size=(7, 5))
    novelty = [fit_novelty(np.tile(seen, (times, 1)))(asked) for times in (1, 2, 8)]
    assert all(((n >= 0) & (n <= 1)).all() for n in novelty)
    assert (np.diff(novelty, axis=0) <= 1e-9).all()


def test_a_new_task_is_farther_than_a_known_one_and_a_text_alone_is_near_its_like():
    texts = [f"How many apples are {n} and {n + 1} apples?" for n in range(60)]
    tasks = ["maths/sums", None] * 30
    model = fit_novelty(features_of(texts, tasks))
    text = "How many apples are 7 and 9 apples?"
    known, new, hidden = model(features_of([text] * 3, ["maths/sums", "law", None]))
    code = model(features_of(["def f(x): return x\n" * 20], [None]))[0]
    assert max(known, hidden) + 0.4 < new
    assert max(known, hidden) + 0.1 < code


def test_a_row_is_not_known_by_itself():
    """Two folds of one direction each: each is new to the other; with one fold only there is nothing else to compare with."""
    features = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    np.testing.assert_allclose(cross_fitted_novelty(features, np.array([0, 0, 1, 1])), 1)
    np.testing.assert_allclose(cross_fitted_novelty(features, np.zeros(4, dtype=int)), 1 - 2 / 12)


# ---- queries as if their tasks were new


def as_new(grid, data=None):
    rng = np.random.default_rng(0)
    data = data or prepare(grid, CONFIG, embedder=None, rng=rng)
    networks = Actors(decider_hidden=4, fusion_hidden=4).arrays()
    return data, as_new_tasks(grid, CONFIG, embedder=None, rng=rng, data=data, networks=networks)


def tasks_of(*names, rows):
    return make_outcomes({name: {"ann": 0.8, "bob": 0.5} for name in names}, num_queries=rows, seed=0).grid(
        ["ann", "bob"]
    )


@pytest.fixture(scope="module")
def grid():
    return tasks_of("sums", "capitals", "law", rows=20)


def test_the_scores_of_a_task_say_nothing_of_it_as_a_new_one(grid):
    """With every score of one task turned round, what is known of its queries stays, and that of the others does not."""
    law = np.array(grid.tasks) == "law"
    turned = replace(grid, scores=np.where(law[:, None], 1 - grid.scores, grid.scores))
    data, (rows, before, _) = as_new(grid)
    _, (_, after, _) = as_new(turned, data)  # at the same penalties
    law = np.array(rows.tasks) == "law"
    np.testing.assert_array_equal(before.competence[law], after.competence[law])
    assert (before.competence[~law] != after.competence[~law]).any()


def test_tasks_as_new_are_newer_than_as_they_are(grid):
    data, (rows, features, evidence) = as_new(grid)
    assert len(rows) == len(features.novelty) == len(evidence.label) == 60
    assert features.novelty.mean() > data.features.novelty[:60].mean() + 0.1


def test_without_another_task_nothing_can_be_shown_as_new():
    _, shown = as_new(tasks_of("sums", rows=30))
    assert shown is None


def test_a_thousand_tasks_of_one_row_are_all_shown_and_finite():
    _, (rows, features, evidence) = as_new(tasks_of(*(f"task {n}" for n in range(1000)), rows=1))
    assert len(rows) == 1000
    for array in (features.competence, features.trust, features.novelty, evidence.trust):
        assert np.isfinite(array).all()

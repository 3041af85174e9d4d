"""Of many rows nothing is held twice: reading them in blocks, and playing them in parts, gives what the whole gives."""

from dataclasses import fields

import numpy as np
import pytest

from langchain_rlfocal import environment, features
from langchain_rlfocal.environment import Replay, environment_of, play
from langchain_rlfocal.policies import PriorPolicy, evidence, novelty
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import supervised


@pytest.fixture
def in_blocks(monkeypatch):
    """As if ten features were many, in blocks of 70 rows."""

    def begin():
        monkeypatch.setattr(evidence, "MOST_CELLS", 10)
        monkeypatch.setattr(novelty, "MOST_CELLS", 10)
        monkeypatch.setattr(features, "_BLOCK_ROWS", 70)

    return begin


@pytest.mark.parametrize("has_holes", [False, True])
def test_competence_and_novelty_read_in_blocks_are_those_of_the_whole(in_blocks, has_holes):
    rng = np.random.default_rng(0)
    described, scores, folds = rng.normal(size=(400, 12)), rng.random((400, 3)), rng.integers(5, size=400)
    scores[rng.random(scores.shape) < 0.3 * has_holes] = np.nan
    whole = evidence.cross_fitted(described, scores, folds)
    model, new = evidence.fit_competence(described, scores, penalty=(1.0, 3.0)), novelty.fit_novelty(described)
    in_blocks()
    estimates, penalties = evidence.cross_fitted(described, scores, folds)
    assert penalties == whole[1]
    np.testing.assert_allclose(estimates, whole[0], rtol=1e-9)
    again = evidence.fit_competence(described, scores, penalty=(1.0, 3.0))
    np.testing.assert_allclose(again.weights, model.weights, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(novelty.fit_novelty(described)(described), new(described), atol=1e-9)


def test_episodes_played_in_parts_are_those_played_at_once(monkeypatch):
    table = make_outcomes({"quiz": {"ann": 0.8, "bob": 0.5, "cleo": 0.4}}, num_queries=50)
    grid = table.grid(table.members)
    policy = PriorPolicy(grid.members, {"ann": 0.7})
    env = environment_of(policy, grid, max_team=2, max_rounds=2)
    rows, weights = np.arange(50), np.linspace(0.0, 1.0, 50)
    whole = play(policy, env, rows, weights)
    monkeypatch.setattr(environment, "MOST_EPISODES", 7)
    parts = play(policy, env, rows, weights)
    for field in fields(Replay):
        np.testing.assert_array_equal(getattr(parts, field.name), getattr(whole, field.name))


def test_evidence_is_fitted_on_rows_spread_evenly_where_there_are_too_many(monkeypatch):
    """Of ten chosen rows every second, four of them at most: places 0, 2.5, 5 and 7.5 of the ten."""

    class Rows:
        def take(self, index):
            return index.tolist()

    chosen = np.arange(20) % 2 == 0
    monkeypatch.setattr(supervised, "MAX_FITTED", 4)
    assert supervised._thinned(Rows(), chosen) == [0, 4, 10, 14]
    monkeypatch.setattr(supervised, "MAX_FITTED", 10)
    assert supervised._thinned(Rows(), chosen) == list(range(0, 20, 2))

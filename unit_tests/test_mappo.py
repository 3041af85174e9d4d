"""Training learns what there is to learn, reproducibly, and never from the wrong rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.training import TrainingConfig, train
from langchain_rlfocal.training.mappo import data_hash, draw_cost_weights, prices_of
from langchain_rlfocal.training.rollout import draw_choice

QUICK = TrainingConfig(num_iterations=30, batch_size=256, max_team=2, max_rounds=2, validate_every=5)


def make_grid(num, *, seed=0, accuracies=None, cost_usd=None):
    """Two kinds of question, three members: one knows sums, one knows capitals, one knows nothing."""
    rng = np.random.default_rng(seed)
    accuracies = accuracies or {"sums": (0.95, 0.2, 0.3), "capitals": (0.2, 0.95, 0.3)}
    rows = []
    for q in range(num):
        task = list(accuracies)[q % len(accuracies)]
        text = f"What is {q} + {q}?" if task == "sums" else f"Name the capital of country number {q} please."
        for m, name in enumerate("abc"):
            right = rng.random() < accuracies[task][m]
            rows.append(
                Outcome(
                    task=task,
                    query_id=str(q),
                    query=text,
                    model=name,
                    answer="right" if right else f"wrong {rng.integers(20)}",
                    reward=float(right),
                    cost_usd=None if cost_usd is None else cost_usd[m],
                )
            )
    return OutcomeTable.from_outcomes(rows).grid(["a", "b", "c"])


@pytest.fixture(scope="module")
def grids():
    return make_grid(240, seed=0), make_grid(80, seed=1), make_grid(200, seed=2)


@pytest.fixture(scope="module")
def policy(grids):
    return train(grids[0], grids[1], QUICK)


def test_the_policy_learns_to_ask_the_member_that_knows(policy, grids):
    """Each specialist is right 95 times in 100 on its own kind and no member alone reaches 60: the learned team does."""
    played = replay(policy, grids[2], cost_weight=0.1, max_team=2, max_rounds=2)
    single_best = grids[2].scores.mean(axis=0).max()
    assert single_best < 0.65
    assert played.scores.mean() > 0.85
    is_sum = np.array([task == "sums" for task in grids[2].tasks])
    assert played.asked[is_sum, 0].mean() > 0.9
    assert played.asked[~is_sum, 1].mean() > 0.9


def test_a_higher_cost_weight_asks_fewer_members(policy, grids):
    calls = [replay(policy, grids[2], cost_weight=w, max_team=2, max_rounds=2).calls.mean() for w in (0.0, 0.1, 1.0)]
    assert calls[0] >= calls[1] >= calls[2]
    assert calls[2] < 1.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(policy, grids, tmp_path):
    again = train(grids[0], grids[1], QUICK)
    policy.save(tmp_path / "one")
    again.save(tmp_path / "two")
    for name in ("checkpoint.json", "weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert train(grids[0], grids[1], replace(QUICK, seed=1)).policy_id != policy.policy_id


def test_the_seed_decides_the_initial_weights_too(grids):
    """One iteration of 16 steps of 0.002 moves no weight by more than 0.04: what differs by more began apart."""
    short = replace(QUICK, num_iterations=1)
    one, other = (train(grids[0], grids[1], replace(short, seed=seed)) for seed in (0, 1))
    name = "decider.hidden1.weight"
    assert np.abs(one.weights[name] - other.weights[name]).max() > 0.1


def test_training_leaves_the_caller_s_random_state_and_threads_alone(grids):
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(grids[0], grids[1], replace(QUICK, num_iterations=1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_progress_is_told_at_every_iteration(grids):
    seen = []
    train(grids[0], grids[1], replace(QUICK, num_iterations=6), on_progress=seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert all(p.total_steps == 6 and set(p.metrics) == {"reward", "validation", "calls", "kl"} for p in seen)


def test_training_stops_when_the_validation_rows_stop_improving(grids):
    seen = []
    train(grids[0], grids[1], replace(QUICK, num_iterations=500, validate_every=1, patience=3), on_progress=seen.append)
    assert len(seen) < 500


def test_the_card_tells_how_the_policy_was_made(policy, grids):
    card = policy.card
    assert card["config"]["seed"] == 0
    assert card["data_sha256"] == data_hash(grids[0], grids[1])
    assert card["training"]["queries"] == 240
    assert card["validation"]["single_best"] in policy.members
    assert set(card["versions"]) == {"langchain-rlfocal", "numpy", "python", "torch"}


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_members_that_are_always_right_or_always_wrong_give_finite_weights(accuracy):
    grid = make_grid(30, accuracies={"sums": (accuracy,) * 3})
    policy = train(grid, make_grid(10, seed=1, accuracies={"sums": (accuracy,) * 3}), replace(QUICK, num_iterations=3))
    assert all(np.isfinite(array).all() for array in policy.weights.values())


def test_too_few_queries_are_refused(grids):
    with pytest.raises(OutcomeError, match="at least 10 queries"):
        train(grids[0].take(np.arange(5)), grids[1], QUICK)


def test_grids_of_different_pools_are_refused(grids):
    other = replace(grids[1], members=("a", "b", "x"))
    with pytest.raises(OutcomeError, match="same members"):
        train(grids[0], other, QUICK)


@pytest.mark.parametrize(
    "wrong", [{"max_team": 0}, {"cost_weight": -1.0}, {"cost_weight": float("nan")}, {"num_folds": 1}]
)
def test_an_impossible_hyperparameter_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_prices_are_shares_of_known_dollars_and_even_where_any_is_unknown():
    np.testing.assert_allclose(prices_of(make_grid(4, cost_usd=(3.0, 1.0, 0.0))), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(prices_of(make_grid(4, cost_usd=(3.0, 1.0, None))), [1 / 3] * 3)
    known = make_grid(4, cost_usd=(3.0, 1.0, 0.0))
    cost_usd = known.cost_usd.copy()
    cost_usd[2, 0] = np.nan  # a failed call's cost is unknown; the member's price is not
    one_failed = replace(known, cost_usd=cost_usd)
    np.testing.assert_allclose(prices_of(one_failed), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(prices_of(make_grid(4, cost_usd=(0.0, 0.0, 0.0))), [1 / 3] * 3)


def test_cost_weights_span_the_knob_s_range_and_include_zero():
    weights = draw_cost_weights(10_000, np.random.default_rng(0))
    assert 0.08 < (weights == 0).mean() < 0.12
    positive = weights[weights > 0]
    assert positive.min() >= 0.01
    assert positive.max() <= 1.0


def test_a_drawn_answer_comes_with_its_own_log_probability():
    """Logits 0 and ln 3: probabilities ¼ and ¾; an answer that is not there is never drawn."""
    logits = np.tile([0.0, np.log(3.0), -np.inf], (20_000, 1))
    chosen, log_probs = draw_choice(logits, np.random.default_rng(0))
    assert set(chosen) == {0, 1}
    assert abs((chosen == 1).mean() - 0.75) < 0.02
    np.testing.assert_allclose(np.exp(log_probs), np.where(chosen == 1, 0.75, 0.25))

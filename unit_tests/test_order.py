"""Order is nothing: rows and members in another order give the same checkpoint and the same figures."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import answers_of, candidate_scores
from langchain_rlfocal.evaluation import baselines_of, evaluate, fit_baselines
from langchain_rlfocal.evaluation.baselines import dump_baselines
from langchain_rlfocal.outcomes import Outcome, OutcomeGrid, OutcomeTable
from langchain_rlfocal.policies import add_member
from langchain_rlfocal.training import TrainingConfig, train

MEMBERS = ("ann", "bob", "cy", "dee")
OPTIONS = ("A", "B", "C")
CONFIG = TrainingConfig(num_iterations=2, batch_size=32, num_folds=2, max_team=2, validate_every=1)


def outcomes_of(num_queries, *, seed=0, options=False):
    """Four members of different accuracies and costs; the last two answer alike, so that they tie."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(num_queries):
        drawn = [str(rng.choice(OPTIONS, p=(0.5, 0.3, 0.2))) for _ in MEMBERS[:3]]
        answers = [*drawn, drawn[-1]]
        for m, (member, answer) in enumerate(zip(MEMBERS, answers, strict=True)):
            probs = rng.random(3) * 0.5
            probs[OPTIONS.index(answer)] = 0.9
            rows.append(
                Outcome(
                    task=f"t/{q % 3}",
                    query_id=f"q{q}",
                    query=f"What is {q} plus {q * q}?",
                    model=member,
                    answer=None if q % 11 == m else answer,
                    gold="A",
                    reward=0.0 if q % 11 == m else float(answer == "A"),
                    response="" if q % 11 == m else "word " * (1 + (q * m) % 5),
                    cost_usd=0.1 * (m + 1),
                    latency_s=float(1 + (q + m) % 4),
                    option_probs=tuple(probs) if options else None,
                )
            )
    return rows


ROWS = outcomes_of(60)


def shuffled(rows, seed, **options):
    rng = np.random.default_rng(seed)
    table = OutcomeTable.from_outcomes([rows[at] for at in rng.permutation(len(rows))])
    return table.grid([MEMBERS[at] for at in rng.permutation(len(MEMBERS))], **options)


def assert_same(one, two):
    for field in fields(OutcomeGrid):
        left, right = getattr(one, field.name), getattr(two, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=field.name)
            assert left.dtype == right.dtype, field.name
        else:
            assert left == right, field.name


def test_two_members_that_change_places_keep_their_answers_by_hand():
    """Of (b, a) both say "x" in the one query, in the other b alone says "y": (a, b) share the id 0, then b has the id 1."""
    rows = [
        Outcome(task="t", query_id=query_id, query=query_id, model=model, answer=answer, reward=reward, response="")
        for query_id, model, answer, reward in [
            ("2", "b", "y", 0.25),
            ("1", "b", "x", 0.5),
            ("2", "a", None, 0.0),
            ("1", "a", "x", 1.0),
        ]
    ]
    given_order = OutcomeTable.from_outcomes(rows).grid(["b", "a"])
    grid = given_order.canonical()
    assert (grid.members, grid.query_ids) == (("a", "b"), ["1", "2"])
    assert grid.answer_ids.tolist() == [[0, 0], [-1, 1]]
    assert grid.answers.tolist() == [["x", "x"], [None, "y"]]
    assert grid.scores.tolist() == [[1.0, 0.5], [0.0, 0.25]]
    assert given_order.answer_ids.tolist() == [[0, -1], [0, 0]]  # the caller's grid is left alone


@pytest.mark.parametrize("options", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_any_order_of_rows_and_members_has_one_canonical_grid(options, seed):
    rows = outcomes_of(25, options=options)
    expected = OutcomeTable.from_outcomes(sorted(rows, key=lambda o: (o.task, o.query_id, o.model))).grid(MEMBERS)
    found = shuffled(rows, seed).canonical()
    assert_same(found, expected)
    assert_same(found.canonical(), expected)
    assert (found.option_ids is not None) == options


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_holes_and_what_nobody_scored_keep_their_places(seed):
    rng = np.random.default_rng(seed)
    rows = [
        replace(o, reward=None if unscored else o.reward, propensity=0.5, answer=None if unlabelled else o.answer)
        for o, absent, unscored, unlabelled in zip(
            outcomes_of(25, options=True), *rng.random((3, 100)) < 0.3, strict=True
        )
        if not absent or o.query_id in {"q1", "q2"}
    ]
    expected = OutcomeTable.from_outcomes(sorted(rows, key=lambda o: (o.task, o.query_id, o.model)))
    assert_same(shuffled(rows, seed, missing="mask").canonical(), expected.grid(MEMBERS, missing="mask"))


@given(seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_a_canonical_grid_says_the_same_of_every_answer(seed):
    """What an id means (whose answer it is, what choosing it is worth) is the same under every numbering."""

    def said(grid):
        answers, scores = answers_of(grid), candidate_scores(grid)
        found = {}
        for q, query_id in enumerate(grid.query_ids):
            for m, member in enumerate(grid.members):
                k = answers.candidate_index[q, m]
                found[query_id, member] = None if k < 0 else (answers.labels[q, k], scores[q, k])
            found[query_id] = {
                (answers.labels[q, k], scores[q, k]) for k in range(len(MEMBERS), answers.labels.shape[1])
            }
        return found

    grid = shuffled(outcomes_of(25, options=True), seed)
    assert said(grid.canonical()) == said(grid)


def test_test_rows_counts_and_what_the_rows_are_of_stay():
    rows = [o for o in ROWS if (o.query_id, o.model) != ("q7", "bob")]
    table = OutcomeTable.from_outcomes(reversed(rows))
    dropped = table.grid(MEMBERS[::-1], test_ids="q1*").canonical()
    assert dropped.dropped == 1
    assert dropped.rows == {"task": ["*"], "missing": "drop", "test_ids": "q1*", "kind": None}
    assert [name for name, test in zip(dropped.query_ids, dropped.is_test, strict=True) if test] == [
        name for name in dropped.query_ids if name.startswith("q1")
    ]
    assert table.grid(MEMBERS, missing="fail").canonical().missing == 1


def trained(seed=None):
    grid = OutcomeTable.from_outcomes(ROWS).grid(MEMBERS) if seed is None else shuffled(ROWS, seed)
    learned, chosen, test = grid.split()
    return train(learned, chosen, CONFIG), test


@pytest.fixture(scope="module")
def reference():
    return trained()


def test_the_checkpoint_is_the_same_to_the_byte(reference, tmp_path):
    reference[0].save(tmp_path / "one")
    trained(seed=1)[0].save(tmp_path / "two")
    for name in ("weights.safetensors", "checkpoint.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert reference[0].members == MEMBERS


def test_a_member_that_is_added_is_the_same_to_the_byte(reference, tmp_path):
    extra = [replace(o, model="eve") for o in ROWS if o.model == "bob"]
    for name, rows in (("one", [*ROWS, *extra]), ("two", [*extra[::-1], *ROWS[::-1]])):
        table = OutcomeTable.from_outcomes(rows)
        add_member(reference[0], "eve", table.grid(table.members)).save(tmp_path / name)
    assert (tmp_path / "one/weights.safetensors").read_bytes() == (tmp_path / "two/weights.safetensors").read_bytes()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_figures_are_the_same_with_their_intervals(reference, seed):
    policy, test = reference
    other = shuffled(ROWS, seed).split()[2]
    assert other.members != test.members
    limits = {"cost_weight": 0.1, "max_team": 2, "max_rounds": 2}
    for baselines in (baselines_of(policy), {}):
        reports = [evaluate(policy, grid, baselines=baselines, **limits).as_dict() for grid in (test, other)]
        assert reports[0] == reports[1]
        assert reports[0]["baselines"]["random_team"]["mean_calls"] == 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_baselines_are_the_same(seed):
    pytest.importorskip("sklearn", reason="the extra `evaluation` is not installed")
    fits = []
    for grid in (OutcomeTable.from_outcomes(ROWS).grid(MEMBERS), shuffled(ROWS, seed)):
        arrays, facts = dump_baselines(fit_baselines(*grid.split()[:2], max_team=2))
        fits.append(({name: array.tobytes() for name, array in arrays.items()}, facts))
    assert fits[0] == fits[1]
    assert fits[0][1]["members"] == list(MEMBERS)


def test_another_row_is_another_checkpoint(reference):
    """What must not be nothing: the same rows with one reward changed."""
    changed = [o if (o.query_id, o.model) != ("q5", "ann") else replace(o, reward=0.5) for o in ROWS]
    learned, chosen, _ = OutcomeTable.from_outcomes(changed).grid(MEMBERS).split()
    assert train(learned, chosen, CONFIG).policy_id != reference[0].policy_id

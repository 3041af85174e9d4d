"""Stored baselines: what comes back decides alike, and what a stranger wrote is checked before it is believed."""

import json
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    Baseline,
    dump_baselines,
    fit_baselines,
    fit_plurality,
    fit_single_best,
    load_baselines,
)
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.outcomes import Outcome, OutcomeTable


def drawn(num_queries, *, seed, members="abc"):
    rng = np.random.default_rng(seed)
    rows = [
        Outcome(
            task=f"é{q % 2}",
            query_id=str(q),
            query=f"{seed} {q}?",
            model=member,
            answer=answer,
            reward=float(answer == "x"),
        )
        for q in range(num_queries)
        for member, answer in zip(members, rng.choice(["x", "y", "z", None], size=len(members)), strict=True)
    ]
    return OutcomeTable.from_outcomes(rows).grid(list(members))


GRID = drawn(60, seed=3)
FITTED = fit_baselines(drawn(40, seed=1), drawn(20, seed=2), max_team=2, seed=4)
# Made by hand, so that it is stored and loaded here where scikit-learn is not installed too.
FITTED["supervised_fusion"] = Baseline(
    "supervised_fusion",
    ("a", "b", "c"),
    {
        "weights": np.array([0.5, -0.25, 1e-17]),
        "share": 0.1,
        "tasks": ("é1",),
        "task_weights": np.array([[-1.0, 0.5, 0.25]]),
        "competence": np.array([0.3, 0.2, 0.4]),
    },
)
ARRAYS, FACTS = dump_baselines(FITTED)


def alike(one, two):
    np.testing.assert_array_equal(one.chosen, two.chosen)
    np.testing.assert_array_equal(one.asked, two.asked)


def test_what_went_through_files_is_the_same_and_decides_alike():
    loaded = load_baselines(load(save(ARRAYS)), json.loads(json.dumps(FACTS, allow_nan=False)))
    assert tuple(loaded) == BASELINES
    for name, baseline in FITTED.items():
        assert loaded[name].name == name
        assert loaded[name].members == ("a", "b", "c")
        alike(loaded[name].decide(GRID), baseline.decide(GRID))
    arrays, facts = dump_baselines(loaded)
    assert facts == FACTS
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_the_arrays_and_facts_are_as_documented():
    arrays, facts = dump_baselines({"plurality": FITTED["plurality"], "single_best": FITTED["single_best"]})
    assert set(arrays) == {"plurality.weights", "plurality.competence"}
    assert facts == {
        "members": ["a", "b", "c"],
        "fitted": {"plurality": {}, "single_best": {"best": FITTED["single_best"].learned["best"]}},
    }


def test_single_precision_is_read_too():
    singles = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in ARRAYS.items()}
    assert load_baselines(singles, FACTS)["plurality"].learned["weights"].dtype == np.float64


def test_only_baselines_of_one_pool_under_their_own_names_are_stored():
    other = fit_plurality(drawn(3, seed=5, members="ab"))
    with pytest.raises(InputError, match="at least one baseline"):
        dump_baselines({})
    with pytest.raises(PoolError, match="must have the same members"):
        dump_baselines({"plurality": other, "oracle": FITTED["oracle"]})
    with pytest.raises(InputError, match="under its own name"):
        dump_baselines({"plurality": fit_single_best(GRID)})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("members",), ["a", "b", "b"], "distinct names"),
        (("members",), [], "distinct names"),
        (("members",), "abc", "distinct names"),
        (("members",), ["a", "b", 3], "distinct names"),
        (("members",), ["a", "b"], r"shape \[M\] with M = 2"),
        (("fitted",), None, "objects under names of baselines"),
        (("more",), 1, "`members` and `fitted`, and nothing else"),
        (("fitted", "best"), {}, "names of baselines"),
        (("fitted", "oracle"), [], "objects under names of baselines"),
        (("fitted", "oracle"), {"score": 1}, r"missing or unknown: oracle\.score"),
        (("fitted", "single_best"), {}, r"missing or unknown: single_best\.best"),
        (("fitted", "single_best", "best"), 3, "`single_best.best` must be the index of a member"),
        (("fitted", "single_best", "best"), -1, "the index of a member"),
        (("fitted", "single_best", "best"), True, "the index of a member"),
        (("fitted", "single_best", "best"), 1.0, "the index of a member"),
        (("fitted", "random_team", "size"), 0, "from 1 to the number of members"),
        (("fitted", "random_team", "size"), 4, "from 1 to the number of members"),
        (("fitted", "random_team", "seed"), -1, "a whole number, 0 or more"),
        (("fitted", "top_k", "largest_tried"), "2", "from 1 to the number of members"),
        (("fitted", "per_task_router", "tasks"), ["é0"], r"`per_task_router.best` must be of shape \[T\] with T = 1"),
        (("fitted", "per_task_router", "tasks"), ["é0", "é0"], "distinct texts"),
        (("fitted", "per_task_router", "tasks"), {"é0": 1}, "distinct texts"),
        (("fitted", "per_task_router", "fallback"), None, "the index of a member"),
        (("fitted", "supervised_fusion", "share"), float("nan"), "a number of at most 1e"),
        (("fitted", "supervised_fusion", "share"), 1e7, "a number of at most 1e"),
        (("fitted", "supervised_fusion", "share"), True, "a number of at most 1e"),
    ],
)
def test_facts_that_do_not_fit_are_refused_by_name(path, value, message):
    facts = deepcopy(FACTS)
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(CheckpointError, match=message):
        load_baselines(ARRAYS, facts)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("plurality.weights", np.zeros(2), r"shape \[M\] with M = 3"),
        ("plurality.weights", np.zeros((3, 1)), r"an array of shape \[M\]"),
        ("plurality.weights", [0.0, 0.0, 0.0], "an array"),
        ("plurality.weights", np.array([0, 0, np.nan]), "none of them NaN"),
        ("plurality.weights", np.array([0, 0, -np.inf]), "floats of at most 1e"),
        ("plurality.weights", np.array([0, 0, 1e300]), "floats of at most 1e"),
        ("plurality.weights", np.array([0, 0, 1]), "floats"),
        ("plurality.weights", np.array([0.5, None, 1], dtype=object), "floats"),
        ("top_k.team", np.zeros(3, dtype=bool), "at least one of them true"),
        ("top_k.team", np.ones(3), "booleans"),
        ("per_task_router.best", np.array([0, 3]), "indices of members"),
        ("per_task_router.best", np.array([-1, 0]), "indices of members"),
        ("per_task_router.best", np.array([0.0, 1.0]), "indices of members"),
        ("nearest_neighbours.centroids", np.zeros((4, 7)), r"shape \[K, F\] with F = \d+"),
        ("nearest_neighbours.centroids", np.zeros((0, FEATURES_DIM)), "K = at least 1"),
        ("nearest_neighbours.best", np.zeros(99, dtype=int), r"shape \[K\]"),
        ("supervised_fusion.task_weights", np.zeros((2, 3)), r"shape \[T, M\] with T = 1"),
        ("supervised_fusion.task_weights", np.zeros((1, 2)), r"shape \[T, M\] with M = 3"),
        ("oracle.scores", np.zeros(3), "missing or unknown: oracle.scores"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(name, value, message):
    with pytest.raises(CheckpointError, match=message):
        load_baselines({**ARRAYS, name: value}, FACTS)


def test_clusters_need_a_centre():
    none = {
        "nearest_neighbours.centroids": np.zeros((0, FEATURES_DIM)),
        "nearest_neighbours.best": np.zeros(0, dtype=int),
    }
    with pytest.raises(CheckpointError, match="K = at least 1"):
        load_baselines({**ARRAYS, **none}, FACTS)


def test_an_array_that_is_missing_is_named():
    arrays = {name: array for name, array in ARRAYS.items() if name != "top_k.team"}
    with pytest.raises(CheckpointError, match=r"missing or unknown: top_k\.team"):
        load_baselines(arrays, FACTS)


@pytest.mark.parametrize("facts", [None, [], "members", {}, {"members": ["a"]}])
def test_facts_that_are_none_are_refused(facts):
    with pytest.raises(CheckpointError, match="the facts must hold"):
        load_baselines(ARRAYS, facts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abcé0", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "best", "seed"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(
    fact=st.sampled_from([(name, part) for name, values in FACTS["fitted"].items() for part in values]),
    value=json_values,
    name=st.sampled_from(sorted(ARRAYS)),
    dtype=st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
    shape=st.lists(st.integers(0, 3), max_size=2),
    fill=st.sampled_from([0, 1, -1, 2, np.inf, 1e6]),
)
def test_whatever_loads_can_decide(*, fact, value, name, dtype, shape, fill):
    """One fact and one array are replaced by anything: it is refused as a checkpoint, or every baseline decides."""
    facts = deepcopy(FACTS)
    facts["fitted"][fact[0]][fact[1]] = value
    with np.errstate(invalid="ignore"):
        junk = np.full(shape, fill).astype(dtype)
    for arrays in (ARRAYS, {**ARRAYS, name: junk}):
        for written in (FACTS, facts):
            try:
                loaded = load_baselines(arrays, written)
            except CheckpointError:
                continue
            for baseline in loaded.values():
                decision = baseline.decide(GRID)
                assert decision.asked[np.arange(len(GRID)), decision.chosen].all()

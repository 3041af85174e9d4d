"""Checkpoints: whole or absent, checked before they are believed, and never code."""

import ast
import json
import pickle
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import langchain_rlfocal
from langchain_rlfocal.errors import CheckpointError, InputError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.policies import RLFocalPolicy, checkpoint
from langchain_rlfocal.policies.checkpoint import Parts, _shapes, pool_fingerprint, read_checkpoint


def parts_of(members, *, seed=3, labels=(("facts", "yes"), ("", "é")), **fields):
    rng = np.random.default_rng(seed)
    shapes = _shapes(len(members), len(labels), {"features": FEATURES_DIM, "decider": 4, "fusion": 3})
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    weights["evidence.moments"] = rng.uniform(0.5, 2.0, (5, len(members)))
    return Parts(members=tuple(members), weights=weights, labels=labels, **fields)


@pytest.fixture
def policy():
    return RLFocalPolicy(
        parts_of(
            ["a", "b"],
            card={"seed": 3, "note": "é"},
            baselines={"single_best/scores": np.array([0.25, 0.5]), "router.codes": np.array([[3, 1]], dtype=np.int64)},
            baseline_facts={"single_best": {"member": "b"}},
        )
    )


@pytest.fixture
def saved(policy, tmp_path):
    policy.save(tmp_path / "policy")
    return tmp_path / "policy"


def edit(path, **changes):
    facts = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(facts | changes))


def test_a_round_trip_keeps_everything(policy, saved):
    loaded = RLFocalPolicy.load(saved)
    assert (loaded.members, loaded.policy_id, loaded.card) == (policy.members, policy.policy_id, policy.card)
    assert loaded.parts.labels == [("facts", "yes"), ("", "é")]
    assert loaded.parts.baseline_facts == {"single_best": {"member": "b"}}
    for name in ("weights", "baselines"):
        arrays, kept = getattr(policy.parts, name), getattr(loaded.parts, name)
        assert set(arrays) == set(kept)
        for key, array in arrays.items():
            assert kept[key].dtype == array.dtype
            np.testing.assert_array_equal(kept[key], array)


def test_a_policy_with_an_embedder_is_loaded_with_it(tmp_path):
    parts = parts_of("ab")
    grown = {"competence.weights": np.zeros((FEATURES_DIM + 2, 2)), "competence.mean": np.zeros(FEATURES_DIM + 2)}
    grown |= {"novelty.mean": np.zeros(FEATURES_DIM + 2), "novelty.directions": np.zeros((FEATURES_DIM + 2, 64))}

    class Letters:
        def embed_documents(self, texts):
            return [[float(len(text)), 1.0] for text in texts]

    policy = RLFocalPolicy(replace(parts, weights=parts.weights | grown), embedder=Letters())
    policy.save(tmp_path / "policy")
    loaded = RLFocalPolicy.load(tmp_path / "policy", embedder=Letters())
    assert loaded.policy_id == policy.policy_id
    with pytest.raises(InputError, match="needs the embedder"):
        RLFocalPolicy.load(tmp_path / "policy")


def test_the_name_of_a_policy_changes_with_any_weight_label_or_member(policy):
    names = {policy.policy_id}
    for name, array in policy.parts.weights.items():
        changed = np.array(array)
        changed.flat[-1] += 0.5
        names.add(RLFocalPolicy(replace(policy.parts, weights=dict(policy.parts.weights) | {name: changed})).policy_id)
    names.add(RLFocalPolicy(replace(policy.parts, labels=[("facts", "no"), ("", "é")])).policy_id)
    names.add(RLFocalPolicy(replace(policy.parts, members=("a", "c"))).policy_id)
    assert len(names) == 1 + len(policy.parts.weights) + 2
    assert RLFocalPolicy(replace(policy.parts, card={}, baselines={})).policy_id == policy.policy_id


def test_the_same_policy_gives_the_same_bytes(policy, saved, tmp_path):
    RLFocalPolicy.load(saved).save(tmp_path / "again")
    for name in ("checkpoint.json", "weights.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_saving_again_replaces_the_old_one_and_leaves_nothing_beside_it(policy, saved):
    policy.save(saved)
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]
    assert sorted(p.name for p in saved.iterdir()) == ["checkpoint.json", "weights.safetensors"]
    assert RLFocalPolicy.load(saved).policy_id == policy.policy_id


def test_what_is_not_a_checkpoint_is_not_overwritten(policy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(CheckpointError, match="Choose another directory"):
            policy.save(target)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("method", "failing"), [("write_bytes", 1), ("write_bytes", 2), ("replace", 1), ("replace", 2)]
)
def test_a_failed_save_leaves_the_old_one_whole(policy, saved, monkeypatch, method, failing):
    """At each step: also at the last, when the old one has been moved away."""
    real, calls = getattr(Path, method), []

    def fails(self, *args):
        calls.append(self)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        return real(self, *args)

    monkeypatch.setattr(Path, method, fails)
    with pytest.raises(CheckpointError, match=r"No space.*still there"):
        policy.save(saved)
    monkeypatch.undo()
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]
    assert RLFocalPolicy.load(saved).policy_id == policy.policy_id


def test_an_absent_checkpoint_is_told_how_to_be_made(tmp_path):
    with pytest.raises(CheckpointError, match="rlfocal train --out"):
        RLFocalPolicy.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "format version 3, has 1. Train it again"),
        ({"format_version": "3"}, "format version 3, has '3'"),
        ({"members": ["x" * 10_000] * 2}, "fingerprint"),
        ({"observation_spec": {"features": 3}}, "other observations"),
        ({"members": ["a", "c"]}, "fingerprint"),
        ({"members": "ab"}, "members: Input should be a valid"),
        ({"card": None}, "card: Input should be"),
        ({"baselines": []}, "baselines: Input should be"),
        ({"labels": None}, "labels: Input should be"),
        ({"labels": [["facts"]]}, "labels.0.1: Field required"),
        ({"labels": [["facts", 3], ["", "x"]]}, "labels.0.1: Input should be"),
        ({"labels": []}, "`evidence.labels` must have shape"),
        ({"members": [], "pool_fingerprint": pool_fingerprint([])}, "distinct and at least one"),
        ({"members": ["a", "a"], "pool_fingerprint": pool_fingerprint(["a", "a"])}, "distinct and at least one"),
        ({"members": ["a", "b", "c"], "pool_fingerprint": pool_fingerprint("abc")}, "must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        RLFocalPolicy.load(saved)
    assert len(str(caught.value)) < 1000


def test_each_fact_must_be_there(saved):
    for name in json.loads(good := (saved / "checkpoint.json").read_bytes()):
        facts = json.loads(good)
        del facts[name]
        (saved / "checkpoint.json").write_text(json.dumps(facts))
        with pytest.raises(CheckpointError, match=f"{name}: Field required"):
            RLFocalPolicy.load(saved)


@pytest.mark.parametrize(
    ("name", "message", "damaged"),
    [
        *(
            ("checkpoint.json", "JSON object of a checkpoint", text)
            for text in (b"", b"[]", b"{", b"null", b'{"members": []}', b"[" * 100_000, b"\xff\xfe{\0}\0")
        ),
        *(
            ("weights.safetensors", "safetensors", data)
            for data in (b"", b"\x80\x04K\x01.", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16)
        ),
    ],
)
def test_a_damaged_file_is_refused(saved, name, message, damaged):
    (saved / name).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=message):
        RLFocalPolicy.load(saved)


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_FACTS_BYTES"])
def test_a_huge_file_is_neither_read_nor_written(policy, saved, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(checkpoint, limit, 10)
    for refused in (lambda: RLFocalPolicy.load(saved), lambda: policy.save(tmp_path / "new")):
        with pytest.raises(CheckpointError, match="at most 10 bytes"):
            refused()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decider.out.bias", np.array([np.nan], dtype=np.float32), "must be finite"),
        ("pool.price", np.zeros(3, dtype=np.float32), r"shape \(2,\), got \(3,\)"),
        ("evidence.weights", np.zeros((3, 2), dtype=np.float32), "`evidence.weights` must have shape"),
        ("evidence.moments", np.zeros((5, 2), dtype=np.float32), "positive standard deviations"),
        ("evidence.moments", -np.ones((5, 2), dtype=np.float32), "positive standard deviations"),
        ("competence.mean", np.full(FEATURES_DIM, np.inf, dtype=np.float32), "must be finite"),
        ("competence.mean", np.zeros(3, dtype=np.float32), "must have shape"),
        ("decider.out.weight", np.zeros((1, 0), dtype=np.float32), "must have shape"),
        ("decider.out.weight", np.zeros((2, 9), dtype=np.float32), "must have shape"),
        ("decider.extra", np.zeros(3, dtype=np.float32), "unknown: decider.extra"),
        ("pool.price", None, r"missing or unknown: pool\.price\. Train the policy again"),
        ("decider.out.bias", np.array([3e38], dtype=np.float32), "within ±1e\\+06"),
        ("decider.out.bias", np.array([-1.1e6], dtype=np.float32), "within ±1e\\+06"),
        ("evidence.moments", np.full((5, 2), 1e-45, dtype=np.float32), "at least 1e-06"),
        ("pool.price", np.ones(2, dtype=np.float64), "`pool.price` must hold floats of 32 bits, got float64"),
        ("pool.price", np.ones(2, dtype=np.int32), "`pool.price` must hold floats of 32 bits, got int32"),
    ],
)
def test_a_wrong_array_is_named(saved, name, value, message):
    file = saved / "weights.safetensors"
    arrays = {**load_file(file), name: value}
    save_file({name: array for name, array in arrays.items() if array is not None}, file)
    with pytest.raises(CheckpointError, match=message):
        RLFocalPolicy.load(saved)


def test_reading_runs_no_code(saved, tmp_path, monkeypatch):
    """Neither a pickle in the place of the weights nor anything that the facts say is executed."""
    ran = []

    class Bomb:
        def __reduce__(self):
            return ran.append, (True,)

    for name, data in (("weights.safetensors", pickle.dumps(Bomb())), ("checkpoint.json", pickle.dumps(Bomb()))):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(data)
        with pytest.raises(CheckpointError):
            RLFocalPolicy.load(saved)
        (saved / name).write_bytes(whole)
    monkeypatch.setattr(pickle, "loads", ran.append)
    assert RLFocalPolicy.load(saved).members == ("a", "b")
    assert ran == []


def test_weights_of_other_kinds_are_stored_in_single_precision(tmp_path):
    parts = parts_of("ab")
    weights = {name: np.asfortranarray(array) for name, array in parts.weights.items()}
    policy = RLFocalPolicy(replace(parts, weights=weights))
    assert {array.dtype for array in policy.parts.weights.values()} == {np.dtype(np.float32)}
    policy.save(tmp_path / "policy")
    assert RLFocalPolicy.load(tmp_path / "policy").policy_id == policy.policy_id == RLFocalPolicy(parts).policy_id


def test_a_card_that_json_cannot_hold_leaves_nothing_behind(policy, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        RLFocalPolicy(replace(policy.parts, card={"score": float("nan")})).save(tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("glued", ["ab", "a,b", "a, b", "a\nb", '"a", "b"'])
def test_the_fingerprint_of_a_pool_ignores_the_order_and_cannot_be_met_by_gluing_names(glued):
    assert pool_fingerprint(["a", "b"]) == pool_fingerprint(["b", "a"]) != pool_fingerprint([glued])


def test_a_boolean_that_is_neither_0_nor_1_is_refused(policy, tmp_path):
    """NumPy sums the bytes of a mask to know how many places it picks, and would write beyond them."""
    parts = policy.parts
    team = np.array([1, 0], dtype=bool)
    RLFocalPolicy(replace(parts, baselines={"top_k.team": team})).save(tmp_path / "team")
    assert read_checkpoint(tmp_path / "team").baselines["top_k.team"].tolist() == [True, False]
    data = (tmp_path / "team" / "weights.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    place = end + json.loads(data[8:end])["baseline.top_k.team"]["data_offsets"][0]
    (tmp_path / "team" / "weights.safetensors").write_bytes(data[:place] + b"\x07" + data[place + 1 :])
    with pytest.raises(CheckpointError, match="must hold numbers or booleans"):
        read_checkpoint(tmp_path / "team")


@pytest.mark.parametrize("point", [[float("nan"), 1.5], [0.1, float("inf")], ["nan", "1.5"], [10**400, 1.5]])
def test_a_curve_that_is_not_finite_is_none(policy, point):
    """Also of a policy made in memory, which no reader has checked."""
    curve = [{"cost_weight": 0.0, "mean_calls": 2.0}, dict(zip(("cost_weight", "mean_calls"), point, strict=True))]
    policy = RLFocalPolicy(replace(policy.parts, card={"curve": curve}))
    with pytest.raises(ValueError, match="must hold a curve"):
        _ = policy.curve


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_damaged_gives_a_policy_or_a_checkpoint_error(saved, data):
    """Bytes are changed, put in or cut off anywhere; what still loads still decides in finite numbers."""
    whole = {name: (saved / name).read_bytes() for name in ("checkpoint.json", "weights.safetensors")}
    name = data.draw(st.sampled_from([*whole]))
    text = bytearray(whole[name])
    header = 8 + int.from_bytes(whole["weights.safetensors"][:8], "little")
    places = st.integers(0, len(text)) | st.integers(0, min(header, len(text)))  # most of the arrays' file are numbers
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(places)
        junk = data.draw(st.binary(max_size=3) | st.sampled_from([b"[", b"{}", b'"', b"9" * 30, b"-", b"e9", b"null"]))
        text[start : start + data.draw(st.sampled_from([0, 1, len(junk), 10**6]))] = junk
    (saved / name).write_bytes(text)
    try:
        with suppress(CheckpointError):
            known = RLFocalPolicy.load(saved).describe(["Is it?"], ["facts"])
            assert all(
                np.isfinite(getattr(known, part)).all() for part in ("competence", "trust", "option_weights", "price")
            )
    finally:
        (saved / name).write_bytes(whole[name])


def test_no_module_reads_pickles_or_runs_text():
    """What could, by name; `__reduce__`, which says how an object is copied, reads none."""
    package = Path(langchain_rlfocal.__path__[0])
    refused = re.compile(r"(import|from) (pickle|marshal|shelve|dill|joblib|cloudpickle)\b|\b(np|numpy|torch)\.load\b")
    found = []
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        names = [call.id for call in calls if isinstance(call, ast.Name) and call.id in {"eval", "exec", "compile"}]
        where = path.relative_to(package).as_posix()
        found += [(where, each) for each in [*names, *(match[0] for match in refused.finditer(text))]]
    # The scorer that runs replies as code says so; it does it in a process of its own. Engines' own processes speak by pickle.
    engines = {(f"engines/{name}.py", "import pickle") for name in ("base", "cluster", "local")}
    assert set(found) == {("scoring/unit_tests.py", "compile")} | engines

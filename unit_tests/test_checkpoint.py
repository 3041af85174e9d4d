"""Checkpoints: whole or absent, checked before they are believed, and never code."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.policies import RLFocalPolicy, checkpoint
from langchain_rlfocal.policies.checkpoint import _shapes, pool_fingerprint


@pytest.fixture
def policy():
    rng = np.random.default_rng(3)
    shapes = _shapes(2, {"decider": 4, "fusion": 3})
    return RLFocalPolicy(["a", "b"], {n: rng.normal(size=s) for n, s in shapes.items()}, {"seed": 3, "note": "é"})


@pytest.fixture
def saved(policy, tmp_path):
    policy.save(tmp_path / "policy")
    return tmp_path / "policy"


def edit(path, **changes):
    facts = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(facts | changes))


def test_a_round_trip_keeps_everything(policy, saved):
    loaded = RLFocalPolicy.load(saved)
    assert loaded.members == policy.members
    assert loaded.policy_id == policy.policy_id
    assert loaded.card == policy.card
    for name, array in policy.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_the_same_policy_gives_the_same_bytes(policy, saved, tmp_path):
    RLFocalPolicy.load(saved).save(tmp_path / "again")
    for name in ("checkpoint.json", "weights.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_directory_holds_safetensors_and_json_only(saved):
    assert sorted(p.name for p in saved.iterdir()) == ["checkpoint.json", "weights.safetensors"]


def test_saving_again_replaces_the_old_one_and_leaves_nothing_beside_it(policy, saved):
    policy.save(saved)
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]
    assert RLFocalPolicy.load(saved).policy_id == policy.policy_id


def test_what_is_not_a_checkpoint_is_not_overwritten(policy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(CheckpointError, match="Choose another directory"):
            policy.save(target)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_one_whole(policy, saved, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(CheckpointError, match="No space"):
        policy.save(saved)
    monkeypatch.undo()
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]
    assert RLFocalPolicy.load(saved).policy_id == policy.policy_id


def test_a_replacement_that_fails_at_the_last_step_brings_the_old_one_back(policy, saved, monkeypatch):
    moved = []

    def fails_second(self, target):
        moved.append(self)
        if len(moved) == 2:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", fails_second)
    with pytest.raises(CheckpointError, match="still there"):
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
        ({"format_version": 99}, "format version 1, has 99"),
        ({"observation_spec": {"features": 3}}, "other observations"),
        ({"members": ["a", "c"]}, "fingerprint"),
        ({"members": "ab"}, "as strings"),
        ({"card": None}, "hold a card"),
    ],
)
def test_what_does_not_fit_is_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        RLFocalPolicy.load(saved)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"members": []}', "[" * 100_000])
def test_a_damaged_json_is_refused(saved, text):
    (saved / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match="JSON object of a checkpoint"):
        RLFocalPolicy.load(saved)


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_damaged_or_foreign_weights_are_refused(saved, data):
    (saved / "weights.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="safetensors"):
        RLFocalPolicy.load(saved)


def test_a_huge_file_is_refused_unread(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 10)
    with pytest.raises(CheckpointError, match="at most 10 bytes"):
        RLFocalPolicy.load(saved)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decider.out.bias", np.array([np.nan], dtype=np.float32), "must be finite"),
        ("pool.price", np.zeros(3, dtype=np.float32), r"shape \(2,\), got \(3,\)"),
        ("decider.extra", np.zeros(3, dtype=np.float32), "unknown: decider.extra"),
    ],
)
def test_a_wrong_array_is_named(saved, name, value, message):
    file = saved / "weights.safetensors"
    save_file({**load_file(file), name: value}, file)
    with pytest.raises(CheckpointError, match=message):
        RLFocalPolicy.load(saved)


@pytest.mark.parametrize("glued", ["ab", "a,b", "a, b", "a\nb", '"a", "b"'])
def test_the_fingerprint_of_a_pool_ignores_the_order_and_cannot_be_met_by_gluing_names(glued):
    assert pool_fingerprint(["a", "b"]) == pool_fingerprint(["b", "a"]) != pool_fingerprint([glued])

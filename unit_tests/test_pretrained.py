"""The networks that come with the package: they fit this version, are small, and find their columns by name."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from langchain_rlfocal.policies import pretrained
from langchain_rlfocal.policies.pretrained import dump_networks, load_networks, pretrained_networks
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.mappo import Learner


def learner(seed=0, **config):
    return Learner(TrainingConfig(seed=seed, **config))


def test_the_file_holds_networks_of_the_default_widths_for_the_axes_of_this_version():
    data = pretrained.FILE.read_bytes()
    assert len(data) < 2**20
    stored = load(data)
    assert json.loads(stored.pop("columns").tobytes()) == pretrained.columns()
    own = learner().arrays()
    assert {name: array.shape for name, array in stored.items()} == {n: a.shape for n, a in own.items()}
    assert all(np.isfinite(array).all() for array in stored.values())


def test_what_is_written_is_read_again():
    arrays = learner().arrays()
    for name, array in load_networks(dump_networks(arrays)).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_columns_are_found_by_name():
    """The file knows two axes in another order, one of which is gone since; every axis that it does not know starts at 0."""
    arrays = load(dump_networks(learner().arrays()))
    names = json.loads(arrays["columns"].tobytes())
    first, second, *_ = names["fusion.vote.weight"]
    names["fusion.vote.weight"] = [second, "own.forgotten", first]
    arrays["columns"] = np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)
    arrays["fusion.vote.weight"] = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    vote = load_networks(save(arrays))["fusion.vote.weight"][0]
    assert vote[:2].tolist() == [3, 1]
    assert not vote[2:].any()


def test_training_starts_from_networks_of_its_widths_and_from_no_others():
    given = pretrained_networks()
    alike, wider = learner(), learner(decider_hidden=65)
    before = wider.arrays()
    for one in (alike, wider):
        one.start_from(given)
    for name, array in alike.arrays().items():
        np.testing.assert_array_equal(array, given[name])
    for name, array in wider.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_starting_leaves_what_is_shipped_as_it_is():
    one = learner()
    one.start_from(pretrained_networks())
    with torch.no_grad():
        for parameter in (*one.actors.parameters(), *one.critic.parameters()):
            parameter.fill_(0.0)
    assert all(array.any() for name, array in pretrained_networks().items() if name.endswith("weight"))


@pytest.mark.parametrize("name", ["decider.out.weight", "critic.out.bias"])
def test_a_shipped_array_cannot_be_replaced(name):
    with pytest.raises(TypeError):
        pretrained_networks()[name] = np.zeros(1)

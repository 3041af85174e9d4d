"""The networks that come with the package: what many pools have in common.

Decider, Fusion and critic see members by their features and never by their names, so what was learned on some pools is a
prior for every other: training starts from it. `docs/benchmarks/pretrain.py` makes the file, which names the columns of each
first layer by axis. A column whose axis this version does not have is left out, and an axis without a column starts at 0.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from safetensors.numpy import load, save

from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.states import Floats

FILE = files(__package__) / "pretrained.safetensors"
PRIVILEGED_AXES = (
    "fusing",
    "mean_score",
    "max_score",
    "max_left",
    "mean_left",
    "expected_left",
    "max_offered",
    "expected_offered",
)
"""What the critic alone sees, last in its state; see `training.mappo.joint_state`."""


def columns() -> dict[str, list[str]]:
    """Name the inputs of each first layer."""
    member, context, fusion = ([axis.name for axis in axes] for axes in (MEMBER_AXES, CONTEXT_AXES, FUSION_AXES))
    decider_shared = [*(f"{how}.{name}" for how in ("mean", "max") for name in member), *context]
    fusion_shared = [f"{how}.{name}" for how in ("mean", "max") for name in fusion]
    return {
        "decider.hidden1.weight": [*(f"own.{name}" for name in member), *decider_shared],
        "decider.skip.weight": [f"own.{name}" for name in member],
        "fusion.hidden.weight": [*(f"own.{name}" for name in fusion), *fusion_shared],
        "fusion.vote.weight": [f"own.{name}" for name in fusion],
        "critic.hidden1.weight": [
            *decider_shared,
            *(f"candidates.{name}" for name in fusion_shared),
            *(f"privileged.{name}" for name in PRIVILEGED_AXES),
        ],
    }


def dump_networks(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Write networks as the bytes of the file."""
    return save(
        {"columns": np.frombuffer(json.dumps(columns(), sort_keys=True).encode(), dtype=np.uint8)}
        | {name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in sorted(arrays)}
    )


def load_networks(data: bytes) -> dict[str, Floats]:
    """Read networks for the axes of this version."""
    arrays = load(data)
    stored = json.loads(arrays.pop("columns").tobytes())
    for layer, names in columns().items():
        if layer not in arrays:
            continue
        place = {name: column for column, name in enumerate(stored[layer])}
        weight = np.zeros((len(arrays[layer]), len(names)), dtype=np.float32)
        for column, name in enumerate(names):
            if name in place:
                weight[:, column] = arrays[layer][:, place[name]]
        arrays[layer] = weight
    return arrays


@cache
def pretrained_networks() -> Mapping[str, Floats]:
    """Read the file of this package: arrays by name, the critic's as `critic.…`."""
    return MappingProxyType(load_networks(FILE.read_bytes()))

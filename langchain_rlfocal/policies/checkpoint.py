"""Checkpoints: one directory of `weights.safetensors` and `checkpoint.json`.

A stranger may have written what is read, so there is no pickle: sizes are capped, pydantic reads the facts, and every array
is checked against the type and shape that its name demands.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.observations import CONTEXT_AXES, DECIDER_SHARED, FUSION_AXES, FUSION_SHARED, MEMBER_AXES
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, RESPONSE_DIM
from langchain_rlfocal.policies.looks import LOOK_NAMES
from langchain_rlfocal.policies.novelty import NUM_DIRECTIONS

FORMAT_VERSION = 3
MAX_BYTES = 64 * 2**20
"""A larger file is refused unread: a policy of a thousand members is still smaller."""

MAX_FACTS_BYTES = 8 * 2**20
"""The same for `checkpoint.json`."""

MAX_SIZE = 1e6
"""No weight is larger, and no standard deviation smaller than its inverse, so that no decision overflows."""

_WEIGHTS, _FACTS = "weights.safetensors", "checkpoint.json"
_BASELINE = "baseline."
_MAX_SHOWN = 200


@dataclass(frozen=True, eq=False)
class Parts:
    """What a policy is made of, and a checkpoint holds.

    Attributes:
        members: Names of the pool's members, M.
        weights: Arrays by name; `_shapes` lists names and shapes.
        labels: Task and label of each entry of the array `evidence.labels`.
        card: Facts of the training. JSON values only.
        baselines: Arrays of the fitted baselines by name; `evaluation` reads them.
        baseline_facts: What else they need. JSON values only.
    """

    members: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    labels: Sequence[tuple[str, str]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    baseline_facts: Mapping[str, Any] = field(default_factory=dict)


class _Facts(BaseModel):
    """What `checkpoint.json` holds."""

    model_config = ConfigDict(strict=True)

    format_version: Literal[3]
    members: list[str]
    pool_fingerprint: str
    observation_spec: dict[str, Any]
    labels: list[tuple[str, str]]
    card: dict[str, Any]
    baselines: dict[str, Any]


def pool_fingerprint(members: Sequence[str]) -> str:
    """Hash the names of a pool's members; their order does not matter."""
    return sha256(json.dumps(sorted(members)).encode()).hexdigest()


def observation_spec() -> dict[str, Any]:
    """Name the axes that this version's policies see; a checkpoint trained on others is refused."""
    return {
        "features": FEATURES_DIM,
        "member": [axis.name for axis in MEMBER_AXES],
        "context": [axis.name for axis in CONTEXT_AXES],
        "fusion": [axis.name for axis in FUSION_AXES],
    }


def _shapes(num_members: int, num_labels: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    features, decider, fusion = sizes["features"], sizes["decider"], sizes["fusion"]
    return {
        "competence.weights": (features, num_members),
        "competence.bias": (num_members,),
        "competence.mean": (features,),
        "novelty.mean": (features,),
        "novelty.directions": (features, NUM_DIRECTIONS),
        "evidence.shared": (3,),
        "evidence.weights": (CONTEXT_DIM, num_members),
        "evidence.slopes": (CONTEXT_DIM, num_members),
        "evidence.response": (RESPONSE_DIM, num_members),
        "evidence.moments": (5, num_members),
        "evidence.labels": (num_labels,),
        "evidence.looks": (len(LOOK_NAMES),),
        "pool.price": (num_members,),
        "pool.diversity": (num_members, num_members),
        "pool.coincidence": (CONTEXT_DIM,),
        "decider.hidden1.weight": (decider, len(MEMBER_AXES) + DECIDER_SHARED),
        "decider.hidden1.bias": (decider,),
        "decider.hidden2.weight": (decider, decider),
        "decider.hidden2.bias": (decider,),
        "decider.out.weight": (1, decider),
        "decider.out.bias": (1,),
        "decider.skip.weight": (1, len(MEMBER_AXES)),
        "fusion.hidden.weight": (fusion, len(FUSION_AXES) + FUSION_SHARED),
        "fusion.hidden.bias": (fusion,),
        "fusion.out.weight": (1, fusion),
        "fusion.out.bias": (1,),
        "fusion.vote.weight": (1, len(FUSION_AXES)),
        "fusion.vote.bias": (1,),
    }


def check_parts(parts: Parts) -> None:
    """Check that every array is there, of the right shape, and finite.

    Raises:
        CheckpointError: One is not; the message names it.
    """
    members, weights = parts.members, parts.weights
    if not members or len(set(members)) != len(members):
        _refuse(f"A policy's members must be distinct and at least one, got {_shortened(str(list(members)))}")
    empty = np.zeros(0)
    sizes = {actor: int(np.size(weights.get(f"{actor}.out.weight", empty))) for actor in ("decider", "fusion")}
    sizes["features"] = max(int(np.size(weights.get("competence.mean", empty))), FEATURES_DIM)
    shapes = _shapes(len(members), len(parts.labels), sizes)
    if set(weights) != set(shapes):
        wrong = _shortened(", ".join(sorted(set(weights) ^ set(shapes))))
        _refuse(f"A policy needs exactly the arrays of this version; missing or unknown: {wrong}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            _refuse(f"Array `{name}` must have shape {shape}, got {weights[name].shape}")
        if not (np.abs(weights[name]) <= MAX_SIZE).all():
            _refuse(f"Array `{name}` must be finite and within ±{MAX_SIZE:g}, but is not")
    if not (weights["evidence.moments"][[1, 3, 4]] >= 1 / MAX_SIZE).all():
        _refuse(f"Array `evidence.moments` must hold positive standard deviations, of at least {1 / MAX_SIZE:g}")


def write_checkpoint(path: str | PathLike[str], parts: Parts) -> None:
    """Write a checkpoint directory: the same policy gives the same bytes.

    Everything is written next to `path` first and moved there at the end. A checkpoint that was there is replaced.

    Raises:
        CheckpointError: `path` holds something that is not a checkpoint, or cannot be written; or what is to be written is
            too large to be read again.
    """
    target = Path(path)
    if target.exists() and not (target / _FACTS).is_file() and (not target.is_dir() or any(target.iterdir())):
        msg = f"`{target}` must be a new path or an old checkpoint, but holds something else. Choose another directory."
        raise CheckpointError(msg)
    facts = {
        "format_version": FORMAT_VERSION,
        "members": list(parts.members),
        "pool_fingerprint": pool_fingerprint(parts.members),
        "observation_spec": observation_spec(),
        "labels": [list(pair) for pair in parts.labels],
        "card": dict(parts.card),
        "baselines": dict(parts.baseline_facts),
    }
    arrays = {**parts.weights, **{_BASELINE + name: array for name, array in parts.baselines.items()}}
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    data = save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"A checkpoint must hold whole characters only: {error}. Rename the member, task or label."
        ) from error
    _check_length(target / _WEIGHTS, len(data), most=MAX_BYTES)
    _check_length(target / _FACTS, len(encoded), most=MAX_FACTS_BYTES)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as directory:
            new, old = Path(directory, "new"), Path(directory, "old")
            new.mkdir()
            (new / _WEIGHTS).write_bytes(data)
            (new / _FACTS).write_bytes(encoded)
            if target.exists():
                target.replace(old)
            try:
                new.replace(target)
            except OSError:
                if old.exists():
                    old.replace(target)
                raise
    except OSError as error:
        msg = f"`{target}` cannot be written: {error}. What was there is still there; make room or choose another directory."
        raise CheckpointError(msg) from error


def read_checkpoint(path: str | PathLike[str]) -> Parts:
    """Read a checkpoint directory.

    Raises:
        CheckpointError: It is absent, damaged, too large, or of a format or observation spec that does not fit.
    """
    target = Path(path)
    facts = _read_facts(target / _FACTS)
    if facts.observation_spec != observation_spec():
        _refuse(f"`{target}` was trained on other observations than this version makes")
    if facts.pool_fingerprint != pool_fingerprint(facts.members):
        _refuse(f"`{target}`: the pool's fingerprint must match its members, but does not: the file was edited by hand")
    arrays = _read_arrays(target / _WEIGHTS)
    weights = {name: array for name, array in arrays.items() if not name.startswith(_BASELINE)}
    for name, array in weights.items():
        if array.dtype != np.float32:
            _refuse(f"Array `{_shortened(name)}` must hold floats of 32 bits, got {array.dtype}")
    return Parts(
        members=tuple(facts.members),
        weights=weights,
        labels=facts.labels,
        card=facts.card,
        baselines={name.removeprefix(_BASELINE): array for name, array in arrays.items() if name not in weights},
        baseline_facts=facts.baselines,
    )


def _refuse(wrong: str, cause: Exception | None = None) -> NoReturn:
    raise CheckpointError(f"{wrong}. Train the policy again.") from cause


def _shortened(text: str) -> str:
    """Cut a stranger's text to what a message can hold."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _check_length(path: Path, length: int, *, most: int) -> None:
    if length > most:
        msg = (
            f"`{path}` must be at most {most} bytes, has {length}. Give a checkpoint of this package; a policy that has grown "
            "so large must be trained for fewer members, labels or tasks."
        )
        raise CheckpointError(msg)


def _read(path: Path, *, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        msg = (
            f"`{path}` cannot be read: {error}. Give the directory that `rlfocal train --out` wrote, which holds "
            f"{_FACTS} and {_WEIGHTS}."
        )
        raise CheckpointError(msg) from error
    if len(data) > most:
        _check_length(path, path.stat().st_size, most=most)
    return data


def _read_facts(path: Path) -> _Facts:
    data = _read(path, most=MAX_FACTS_BYTES)
    try:
        return _Facts.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        if where == "format_version" and first["type"] != "missing":
            found = _shortened(repr(first["input"]))
            raise CheckpointError(
                f"`{path.parent}` must have format version {FORMAT_VERSION}, has {found}. Train it again with this version "
                "of langchain-rlfocal, or install the version that wrote it."
            ) from error
        wrong = _shortened(f"{where}: {first['msg']}" if where else first["msg"])
        _refuse(f"`{path}` must be the JSON object of a checkpoint: {wrong}", error)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    data = _read(path, most=MAX_BYTES)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        _refuse(f"`{path}` must be a whole safetensors file: {_shortened(str(error))}. Copy it again", error)
    for name, array in arrays.items():
        # NumPy trusts a boolean to be 0 or 1, and reads beyond the end of an array where it is not.
        if array.dtype.kind not in "biuf" or (array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1):
            _refuse(f"Array `{_shortened(name)}` in `{path}` must hold numbers or booleans")
    return arrays

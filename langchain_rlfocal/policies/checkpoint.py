"""Checkpoints: one directory of `weights.safetensors` and `checkpoint.json`.

A stranger may have written what is read. Reading it never executes anything and never trusts a size (`untrusted`), and every
array is checked against the type and shape that its name demands. What does not fit is refused with a message that says what
to do. There is no pickle anywhere.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, RESPONSE_DIM
from langchain_rlfocal.policies.networks import DECIDER_SHARED, FUSION_SHARED
from langchain_rlfocal.policies.untrusted import check_length, parse_arrays, parse_json, read_file, shortened

FORMAT_VERSION = 2
MAX_BYTES = 64 * 2**20
"""A larger file is refused unread: a policy of a thousand members is still smaller."""

MAX_FACTS_BYTES = 8 * 2**20
"""The same for `checkpoint.json`."""

MAX_SIZE = 1e6
"""No weight is larger, and no standard deviation smaller than its inverse, so that no decision overflows."""

_WEIGHTS, _FACTS = "weights.safetensors", "checkpoint.json"
_BASELINE = "baseline."
_NEEDED = frozenset(
    ("format_version", "members", "pool_fingerprint", "observation_spec", "labels", "card", "baselines")
)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a policy is made of, and a checkpoint holds.

    Attributes:
        members: Names of the pool's members, M.
        weights: Arrays by name; `_shapes` lists names and shapes.
        labels: Task and label of each entry of the array `evidence.labels`.
        card: Facts of the training. JSON values only.
        baselines: Arrays of the fitted baselines by name; `evaluation.fitted` reads them.
        baseline_facts: What else they need. JSON values only.
    """

    members: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    labels: Sequence[tuple[str, str]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)
    baseline_facts: Mapping[str, Any] = field(default_factory=dict)


def pool_fingerprint(members: Sequence[str]) -> str:
    """Hash the names of a pool's members; their order does not matter."""
    return sha256(json.dumps(sorted(members)).encode()).hexdigest()


def observation_spec() -> dict[str, Any]:
    """Name the axes that this version's policies see; a checkpoint trained on others is refused."""
    return {
        "features": FEATURES_DIM,
        "member": [name for name, _ in MEMBER_AXES],
        "context": [name for name, _ in CONTEXT_AXES],
        "fusion": [name for name, _ in FUSION_AXES],
    }


def _shapes(num_members: int, num_labels: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    features, decider, fusion = sizes["features"], sizes["decider"], sizes["fusion"]
    return {
        "competence.weights": (features, num_members),
        "competence.bias": (num_members,),
        "competence.mean": (features,),
        "evidence.shared": (3,),
        "evidence.weights": (CONTEXT_DIM, num_members),
        "evidence.slopes": (CONTEXT_DIM, num_members),
        "evidence.response": (RESPONSE_DIM, num_members),
        "evidence.moments": (5, num_members),
        "evidence.labels": (num_labels,),
        "pool.price": (num_members,),
        "pool.diversity": (num_members, num_members),
        "decider.hidden1.weight": (decider, len(MEMBER_AXES) + DECIDER_SHARED),
        "decider.hidden1.bias": (decider,),
        "decider.hidden2.weight": (decider, decider),
        "decider.hidden2.bias": (decider,),
        "decider.out.weight": (1, decider),
        "decider.out.bias": (1,),
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
        shown = shortened(str(list(members)))
        msg = f"A policy's members must be distinct and at least one, got {shown}. Train the policy again."
        raise CheckpointError(msg)
    empty = np.zeros(0)
    sizes = {actor: int(np.size(weights.get(f"{actor}.out.weight", empty))) for actor in ("decider", "fusion")}
    sizes["features"] = max(int(np.size(weights.get("competence.mean", empty))), FEATURES_DIM)
    shapes = _shapes(len(members), len(parts.labels), sizes)
    if set(weights) != set(shapes):
        wrong = shortened(", ".join(sorted(set(weights) ^ set(shapes))))
        msg = f"A policy needs exactly the arrays of this version; missing or unknown: {wrong}. Train it again."
        raise CheckpointError(msg)
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            msg = f"Array `{name}` must have shape {shape}, got {weights[name].shape}. Train the policy again."
            raise CheckpointError(msg)
        if not (np.abs(weights[name]) <= MAX_SIZE).all():
            msg = f"Array `{name}` must be finite and within ±{MAX_SIZE:g}, but is not. Train the policy again."
            raise CheckpointError(msg)
    for row in (1, 3, 4):
        if not (weights["evidence.moments"][row] >= 1 / MAX_SIZE).all():
            msg = (
                f"Array `evidence.moments` must hold positive standard deviations, of at least {1 / MAX_SIZE:g}. Train the "
                "policy again."
            )
            raise CheckpointError(msg)


def write_checkpoint(path: str | PathLike[str], parts: Parts) -> None:
    """Write a checkpoint directory: the same policy gives the same bytes.

    Everything is written beside `path` first and moved there at the end. A checkpoint that was there is replaced.

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
    data, encoded = (
        save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}),
        text.encode("utf-8", "surrogatepass"),
    )
    # What could not be read again is not written.
    check_length(target / _WEIGHTS, len(data), most=MAX_BYTES)
    check_length(target / _FACTS, len(encoded), most=MAX_FACTS_BYTES)
    parse_arrays(data, target / _WEIGHTS)
    parse_json(encoded, target / _FACTS)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        msg = f"`{target}` cannot be written: {error}. Choose a directory that you may write to."
        raise CheckpointError(msg) from error
    try:
        (fresh / _WEIGHTS).write_bytes(data)
        (fresh / _FACTS).write_text(text, encoding="utf-8")
        fresh.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            target.replace(old / "old")
            try:
                fresh.replace(target)
            except OSError:
                (old / "old").replace(target)
                raise
            finally:
                shutil.rmtree(old)
        else:
            fresh.replace(target)
    except OSError as error:
        msg = f"`{target}` cannot be written: {error}. What was there is still there; make room and save again."
        raise CheckpointError(msg) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read(path: Path, *, most: int) -> bytes:
    try:
        return read_file(path, most=most)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = (
            f"`{path}` cannot be read: {error}. Give the directory that `rlfocal train --out` wrote, which holds "
            f"{_FACTS} and {_WEIGHTS}."
        )
        raise CheckpointError(msg) from error


def read_checkpoint(path: str | PathLike[str]) -> Parts:
    """Read a checkpoint directory.

    Raises:
        CheckpointError: It is absent, damaged, too large, or of a format or observation spec that does not fit.
    """
    target = Path(path)
    facts = parse_json(_read(target / _FACTS, most=MAX_FACTS_BYTES), target / _FACTS)
    absent = _NEEDED - set(facts)
    if absent:
        msg = (
            f"`{target / _FACTS}` must be the JSON object of a checkpoint, but lacks {', '.join(sorted(absent))}. Train the "
            "policy again."
        )
        raise CheckpointError(msg)
    if facts["format_version"] != FORMAT_VERSION:
        msg = (
            f"`{target}` must have format version {FORMAT_VERSION}, has {facts['format_version']!r:.80}. Train it again with "
            "this version of langchain-rlfocal, or install the version that wrote it."
        )
        raise CheckpointError(msg)
    members, labels, card, baseline_facts = (facts[key] for key in ("members", "labels", "card", "baselines"))
    if facts["observation_spec"] != observation_spec():
        msg = f"`{target}` was trained on other observations than this version makes. Train the policy again."
        raise CheckpointError(msg)
    if not _is_texts(members) or not isinstance(card, dict) or not isinstance(baseline_facts, dict):
        msg = f"`{target / _FACTS}` must name its members as strings and hold a card. Train the policy again."
        raise CheckpointError(msg)
    if not isinstance(labels, list) or not all(_is_texts(pair) and len(pair) == 2 for pair in labels):
        msg = f"`{target / _FACTS}` must name its labels as pairs of strings. Train the policy again."
        raise CheckpointError(msg)
    if facts["pool_fingerprint"] != pool_fingerprint(members):
        msg = f"`{target}`: the pool's fingerprint must match its members, but does not: the file was edited by hand."
        raise CheckpointError(msg)
    arrays = parse_arrays(_read(target / _WEIGHTS, most=MAX_BYTES), target / _WEIGHTS)
    weights = {name: array for name, array in arrays.items() if not name.startswith(_BASELINE)}
    for name, array in weights.items():
        if array.dtype != np.float32:
            msg = f"Array `{shortened(name)}` must hold floats of 32 bits, got {array.dtype}. Train the policy again."
            raise CheckpointError(msg)
    return Parts(
        members=tuple(members),
        weights=weights,
        labels=[(task, label) for task, label in labels],
        card=card,
        baselines={name[len(_BASELINE) :]: array for name, array in arrays.items() if name.startswith(_BASELINE)},
        baseline_facts=baseline_facts,
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)

"""Checkpoints: one directory of `weights.safetensors` and `checkpoint.json`.

Reading one never executes anything and never trusts a size: files are measured before they are read, and every array is
checked against the shape that its name demands. What does not fit is refused with a message that says what to do.
There is no pickle anywhere.
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
from safetensors import SafetensorError
from safetensors.numpy import load, save

from langchain_rlfocal.errors import CheckpointError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.observations import CONTEXT_AXES, FUSION_AXES, MEMBER_AXES
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, RESPONSE_DIM
from langchain_rlfocal.policies.networks import DECIDER_SHARED, FUSION_SHARED

FORMAT_VERSION = 2
MAX_BYTES = 64 * 2**20
"""A larger file is refused unread: a policy of a thousand members is still smaller."""

_WEIGHTS, _FACTS = "weights.safetensors", "checkpoint.json"
_BASELINE = "baseline."


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
        msg = f"A policy's members must be distinct and at least one, got {list(members)}. Train the policy again."
        raise CheckpointError(msg)
    empty = np.zeros(0)
    sizes = {actor: int(np.size(weights.get(f"{actor}.out.weight", empty))) for actor in ("decider", "fusion")}
    sizes["features"] = max(int(np.size(weights.get("competence.mean", empty))), FEATURES_DIM)
    shapes = _shapes(len(members), len(parts.labels), sizes)
    if set(weights) != set(shapes):
        wrong = sorted(set(weights) ^ set(shapes))
        msg = f"A policy needs exactly the arrays of this version; missing or unknown: {', '.join(wrong)}. Train it again."
        raise CheckpointError(msg)
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            msg = f"Array `{name}` must have shape {shape}, got {weights[name].shape}. Train the policy again."
            raise CheckpointError(msg)
        if not np.isfinite(weights[name]).all():
            msg = f"Array `{name}` must be finite, but holds NaN or infinity. Train the policy again."
            raise CheckpointError(msg)
    for row in (1, 3, 4):
        if not (weights["evidence.moments"][row] > 0).all():
            msg = "Array `evidence.moments` must hold positive standard deviations. Train the policy again."
            raise CheckpointError(msg)


def write_checkpoint(path: str | PathLike[str], parts: Parts) -> None:
    """Write a checkpoint directory: the same policy gives the same bytes.

    Everything is written beside `path` first and moved there at the end. A checkpoint that was there is replaced.

    Raises:
        CheckpointError: `path` holds something that is not a checkpoint, or cannot be written.
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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        msg = f"`{target}` cannot be written: {error}. Choose a directory that you may write to."
        raise CheckpointError(msg) from error
    try:
        (fresh / _WEIGHTS).write_bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))
        text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (fresh / _FACTS).write_text(text + "\n", encoding="utf-8")
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


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            msg = f"`{path}` must be at most {MAX_BYTES} bytes, has {size}. This is not a checkpoint of this package."
            raise CheckpointError(msg)
        return path.read_bytes()
    except OSError as error:
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
    try:
        facts = json.loads(_read_bytes(target / _FACTS))
        version = facts["format_version"]
        if version != FORMAT_VERSION:
            msg = (
                f"`{target}` must have format version {FORMAT_VERSION}, has {version!r}. Train it again with this version "
                "of langchain-rlfocal, or install the version that wrote it."
            )
            raise CheckpointError(msg)
        members, spec, card = (facts[key] for key in ("members", "observation_spec", "card"))
        fingerprint, labels, baseline_facts = (facts[key] for key in ("pool_fingerprint", "labels", "baselines"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = f"`{target / _FACTS}` must be the JSON object of a checkpoint: {error!r}. Train the policy again."
        raise CheckpointError(msg) from error
    if spec != observation_spec():
        msg = f"`{target}` was trained on other observations than this version makes. Train the policy again."
        raise CheckpointError(msg)
    if not _is_texts(members) or not isinstance(card, dict) or not isinstance(baseline_facts, dict):
        msg = f"`{target / _FACTS}` must name its members as strings and hold a card. Train the policy again."
        raise CheckpointError(msg)
    if not isinstance(labels, list) or not all(_is_texts(pair) and len(pair) == 2 for pair in labels):
        msg = f"`{target / _FACTS}` must name its labels as pairs of strings. Train the policy again."
        raise CheckpointError(msg)
    if fingerprint != pool_fingerprint(members):
        msg = f"`{target}`: the pool's fingerprint must match its members, but does not: the file was edited by hand."
        raise CheckpointError(msg)
    try:
        arrays = load(_read_bytes(target / _WEIGHTS))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = (
            f"`{target / _WEIGHTS}` must be a whole safetensors file: {error}. Copy it again or train the policy again."
        )
        raise CheckpointError(msg) from error
    return Parts(
        members=tuple(members),
        weights={name: array for name, array in arrays.items() if not name.startswith(_BASELINE)},
        labels=[(task, label) for task, label in labels],
        card=card,
        baselines={name[len(_BASELINE) :]: array for name, array in arrays.items() if name.startswith(_BASELINE)},
        baseline_facts=baseline_facts,
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)

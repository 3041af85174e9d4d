"""Checkpoints: one directory of `weights.safetensors` and `checkpoint.json`.

Reading one never executes anything and never trusts a size: files are measured before they are read, and every array is
checked against the shape that its name demands. What does not fit is refused with a message that says what to do.
There is no pickle anywhere.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
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
from langchain_rlfocal.policies.networks import DECIDER_INPUTS, FUSION_INPUTS

FORMAT_VERSION = 1
MAX_BYTES = 64 * 2**20
"""A larger file is refused unread: a policy of a thousand members is still smaller."""

_WEIGHTS, _FACTS = "weights.safetensors", "checkpoint.json"


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


def _shapes(num_members: int, hidden: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    decider, fusion = hidden["decider"], hidden["fusion"]
    return {
        "competence.weights": (FEATURES_DIM, num_members),
        "competence.bias": (num_members,),
        "competence.mean": (FEATURES_DIM,),
        "pool.price": (num_members,),
        "pool.diversity": (num_members, num_members),
        "decider.hidden1.weight": (decider, DECIDER_INPUTS),
        "decider.hidden1.bias": (decider,),
        "decider.hidden2.weight": (decider, decider),
        "decider.hidden2.bias": (decider,),
        "decider.out.weight": (1, decider),
        "decider.out.bias": (1,),
        "fusion.hidden.weight": (fusion, FUSION_INPUTS),
        "fusion.hidden.bias": (fusion,),
        "fusion.out.weight": (1, fusion),
        "fusion.out.bias": (1,),
        "fusion.vote.weight": (1, len(FUSION_AXES)),
        "fusion.vote.bias": (1,),
    }


def check_weights(members: Sequence[str], weights: Mapping[str, np.ndarray]) -> None:
    """Check that every array is there, of the right shape, and finite.

    Raises:
        CheckpointError: One is not; the message names it.
    """
    hidden = {actor: int(np.size(weights.get(f"{actor}.out.weight", np.zeros(0)))) for actor in ("decider", "fusion")}
    shapes = _shapes(len(members), hidden)
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
    if not members or len(set(members)) != len(members):
        msg = f"A policy's members must be distinct and at least one, got {list(members)}. Train the policy again."
        raise CheckpointError(msg)


def write_checkpoint(
    path: str | PathLike[str], members: Sequence[str], weights: Mapping[str, np.ndarray], card: Mapping[str, Any]
) -> None:
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
        "members": list(members),
        "pool_fingerprint": pool_fingerprint(members),
        "observation_spec": observation_spec(),
        "card": dict(card),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        msg = f"`{target}` cannot be written: {error}. Choose a directory that you may write to."
        raise CheckpointError(msg) from error
    try:
        (fresh / _WEIGHTS).write_bytes(save({name: weights[name] for name in sorted(weights)}))
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


def read_checkpoint(path: str | PathLike[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint directory: members, arrays, card.

    Raises:
        CheckpointError: It is absent, damaged, too large, or of a format or observation spec that does not fit.
    """
    target = Path(path)
    try:
        facts = json.loads(_read_bytes(target / _FACTS))
        version, members, spec, card = (facts[key] for key in ("format_version", "members", "observation_spec", "card"))
        fingerprint = facts["pool_fingerprint"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = f"`{target / _FACTS}` must be the JSON object of a checkpoint: {error!r}. Train the policy again."
        raise CheckpointError(msg) from error
    if version != FORMAT_VERSION:
        msg = (
            f"`{target}` must have format version {FORMAT_VERSION}, has {version!r}. Train it again with this version "
            "of langchain-rlfocal, or install the version that wrote it."
        )
        raise CheckpointError(msg)
    if spec != observation_spec():
        msg = f"`{target}` was trained on other observations than this version makes. Train the policy again."
        raise CheckpointError(msg)
    if not isinstance(members, list) or not all(isinstance(m, str) for m in members) or not isinstance(card, dict):
        msg = f"`{target / _FACTS}` must name its members as strings and hold a card. Train the policy again."
        raise CheckpointError(msg)
    if fingerprint != pool_fingerprint(members):
        msg = f"`{target}`: the pool's fingerprint must match its members, but does not: the file was edited by hand."
        raise CheckpointError(msg)
    try:
        weights = load(_read_bytes(target / _WEIGHTS))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = (
            f"`{target / _WEIGHTS}` must be a whole safetensors file: {error}. Copy it again or train the policy again."
        )
        raise CheckpointError(msg) from error
    return tuple(members), weights, card

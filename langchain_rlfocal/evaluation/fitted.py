"""Fitted baselines as arrays and JSON values, so that a checkpoint can carry them.

`dump_baselines` parts them and `load_baselines` puts them together again. A stranger may have written what is loaded: every
name, type, shape, index and number is checked against what its baseline demands, so that whatever loads can decide. Nothing
is executed, and nothing is guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.evaluation.baselines import (
    BASELINES,
    Fitted,
    FittedClusters,
    FittedOracle,
    FittedRandomTeam,
    FittedSingleBest,
    FittedSupervisedFusion,
    FittedTaskRouter,
    FittedTeam,
    FittedVote,
)
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.policies.checkpoint import shortened

Arrays = dict[str, npt.NDArray[Any]]
Dims = dict[str, int]

_LARGEST = 1e6
"""No fitted number is larger; larger ones could overflow when they are added up."""


@dataclass(frozen=True, slots=True)
class _Array:
    """An array: its axes by name, which all arrays of a baseline share, and what it holds."""

    axes: tuple[str, ...]
    check: Callable[[npt.NDArray[Any], Dims], npt.NDArray[Any] | None]
    rule: str

    def read(self, value: Any, dims: Dims) -> npt.NDArray[Any]:
        if not isinstance(value, np.ndarray) or value.ndim != len(self.axes):
            raise ValueError(f"an array of shape [{', '.join(self.axes)}]")
        for axis, length in zip(self.axes, value.shape, strict=True):
            if length < 1 or dims.setdefault(axis, length) != length:
                raise ValueError(f"of shape [{', '.join(self.axes)}] with {axis} = {dims.get(axis) or 'at least 1'}")
        checked = self.check(value, dims)
        if checked is None:
            raise ValueError(self.rule)
        return checked


@dataclass(frozen=True, slots=True)
class _Value:
    """A JSON value and what it holds; `check` returns None for what does not fit."""

    check: Callable[[Any, Dims], Any]
    rule: str

    def read(self, value: Any, dims: Dims) -> Any:
        checked = self.check(value, dims)
        if checked is None:
            raise ValueError(self.rule)
        return checked


def _numbers(value: npt.NDArray[Any], _: Dims) -> npt.NDArray[Any] | None:
    return value.astype(np.float64) if value.dtype.kind == "f" and (np.abs(value) <= _LARGEST).all() else None


def _indices(value: npt.NDArray[Any], dims: Dims) -> npt.NDArray[Any] | None:
    fits = value.dtype.kind in "iu" and ((value >= 0) & (value < dims["M"])).all()
    return value.astype(np.intp) if fits else None


def _team(value: npt.NDArray[Any], _: Dims) -> npt.NDArray[Any] | None:
    return value if value.dtype.kind == "b" and value.any() else None


def _number(value: Any, _: Dims) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return float(value) if fits else None


def _index(value: Any, dims: Dims) -> int | None:
    return value if type(value) is int and 0 <= value < dims["M"] else None


def _size(value: Any, dims: Dims) -> int | None:
    return value if type(value) is int and 1 <= value <= dims["M"] else None


def _seed(value: Any, _: Dims) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _tasks(value: Any, dims: Dims) -> tuple[str, ...] | None:
    if not _distinct_texts(value):
        return None
    dims["T"] = len(value)  # which the arrays by task, read after it, must have
    return tuple(value)


def _distinct_texts(value: Any) -> bool:
    return (
        isinstance(value, list) and all(isinstance(text, str) for text in value) and 0 < len(set(value)) == len(value)
    )


def _numbers_by(*axes: str) -> _Array:
    return _Array(axes, _numbers, f"floats of at most {_LARGEST:g}, none of them NaN")


def _members_by(axis: str) -> _Array:
    return _Array((axis,), _indices, "integers that are indices of members")


_MEMBER = _Value(_index, "the index of a member")
_TASKS = _Value(_tasks, "distinct texts, at least one")
_TEAM_SIZE = _Value(_size, "from 1 to the number of members")

_PARTS: dict[type, dict[str, _Array | _Value]] = {
    FittedSingleBest: {"best": _MEMBER},
    FittedRandomTeam: {
        "competence": _numbers_by("M"),
        "size": _TEAM_SIZE,
        "seed": _Value(_seed, "a whole number, 0 or more"),
    },
    FittedTeam: {
        "team": _Array(("M",), _team, "booleans, at least one of them true"),
        "competence": _numbers_by("M"),
        "largest_tried": _TEAM_SIZE,
    },
    FittedVote: {"weights": _numbers_by("M"), "competence": _numbers_by("M")},
    FittedTaskRouter: {
        "tasks": _TASKS,
        "best": _members_by("T"),
        "fallback": _MEMBER,
    },
    FittedClusters: {"centroids": _numbers_by("K", "F"), "best": _members_by("K")},
    FittedSupervisedFusion: {
        "weights": _numbers_by("M"),
        "share": _Value(_number, f"a number of at most {_LARGEST:g}"),
        "tasks": _TASKS,
        "task_weights": _numbers_by("T", "M"),
        "competence": _numbers_by("M"),
    },
    FittedOracle: {},
}

_KINDS: dict[str, type] = {
    "single_best": FittedSingleBest,
    "random_team": FittedRandomTeam,
    "top_k": FittedTeam,
    "plurality": FittedVote,
    "weighted_vote": FittedVote,
    "per_task_router": FittedTaskRouter,
    "nearest_neighbours": FittedClusters,
    "best_fixed_team": FittedTeam,
    "supervised_fusion": FittedSupervisedFusion,
    "oracle": FittedOracle,
}


def dump_baselines(fitted: Mapping[str, Fitted]) -> tuple[Arrays, dict[str, Any]]:
    """Part fitted baselines into arrays and JSON values.

    Args:
        fitted: Baselines by their names in `BASELINES`, at least one, all of one pool.

    Returns:
        Arrays by `name.part`, for a safetensors file, and the facts, plain values for a JSON file:
        `{"members": [...], "fitted": {name: {part: value}}}`.

    Raises:
        InputError: There is none, a name is unknown, or a baseline is of another kind than its name says.
        PoolError: Two were fitted on different members.
    """
    arrays: Arrays = {}
    values: dict[str, dict[str, Any]] = {}
    pools = {baseline.members for baseline in fitted.values()}
    if not fitted:
        raise InputError("`fitted` must hold at least one baseline, got none. Make them with `fit_baselines`.")
    if len(pools) > 1:
        raise PoolError(f"Baselines that are stored together must have the same members, got {sorted(pools)}.")
    for name, baseline in fitted.items():
        kind = _KINDS.get(name)
        if type(baseline) is not kind:
            raise InputError(
                f"`fitted` must hold baselines under their own names ({', '.join(BASELINES)}), got a "
                f"{type(baseline).__name__} under {name!r}."
            )
        values[name] = {}
        for part, spec in _PARTS[kind].items():
            value = getattr(baseline, part)
            if isinstance(spec, _Array):
                arrays[f"{name}.{part}"] = np.ascontiguousarray(value)
            else:
                values[name][part] = list(value) if isinstance(value, tuple) else value
    return arrays, {"members": list(pools.pop()), "fitted": values}


def load_baselines(arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> dict[str, Fitted]:
    """Put fitted baselines together again.

    Args:
        arrays: Arrays as `dump_baselines` names them.
        facts: The facts beside them.

    Returns:
        The baselines by name, in the order of `BASELINES`.

    Raises:
        CheckpointError: Something is missing, unknown, or does not fit; the message names it.
    """
    if (
        not isinstance(facts, Mapping)
        or set(facts) != {"members", "fitted"}
        or not isinstance(facts["fitted"], Mapping)
    ):
        raise _refusal("the facts", "hold `members` and `fitted`, and nothing else")
    members, stored = facts["members"], facts["fitted"]
    if not _distinct_texts(members):
        raise _refusal("`members`", "be a list of distinct names, at least one")
    if not set(stored) <= set(BASELINES) or not all(isinstance(values, Mapping) for values in stored.values()):
        raise _refusal("`fitted`", f"hold objects under names of baselines ({', '.join(BASELINES)})")
    parts = {name: _PARTS[_KINDS[name]] for name in BASELINES if name in stored}
    wanted = {
        f"{name}.{part}" for name, specs in parts.items() for part, spec in specs.items() if isinstance(spec, _Array)
    }
    if wanted != set(arrays):
        raise _refusal("the arrays", f"be just those of their baselines; missing or unknown: {_names(wanted, arrays)}")
    fitted: dict[str, Fitted] = {}
    for name, specs in parts.items():
        values = {part for part, spec in specs.items() if isinstance(spec, _Value)}
        if values != set(stored[name]):
            raise _refusal(f"`{name}`", f"hold just its values; missing or unknown: {_names(values, stored[name])}")
        dims: Dims = {"M": len(members), "F": FEATURES_DIM}
        read: dict[str, Any] = {}
        for part, spec in specs.items():
            source = arrays[f"{name}.{part}"] if isinstance(spec, _Array) else stored[name][part]
            try:
                read[part] = spec.read(source, dims)
            except ValueError as error:
                raise _refusal(f"`{name}.{part}`", f"be {error}") from None
        fitted[name] = _KINDS[name](members=tuple(members), **read)
    return fitted


def _names(wanted: set[str], found: Mapping[str, Any]) -> str:
    return shortened(", ".join(sorted(map(str, chain(wanted - set(found), set(found) - wanted)))))


def _refusal(what: str, rule: str) -> CheckpointError:
    return CheckpointError(f"Stored baselines: {what} must {rule}. Train the policy again, which stores them anew.")

"""The learned policy: Decider and Fusion trained together, served by NumPy alone.

Holds arrays, never a model client and never torch. `save` and `load` go through `policies.checkpoint`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from os import PathLike
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from langchain_rlfocal.features import SURFACE_NAMES, features_of
from langchain_rlfocal.observations import Bools, Floats, State, decider_observation, fusion_observation
from langchain_rlfocal.policies.base import Descriptors, EnsemblePolicy, legal_sizes
from langchain_rlfocal.policies.checkpoint import check_weights, read_checkpoint, write_checkpoint
from langchain_rlfocal.policies.competence import CompetenceModel
from langchain_rlfocal.policies.networks import decider_logits, fusion_logits, softmax
from langchain_rlfocal.policies.subsets import most_probable_subset, subset_marginals


class RLFocalPolicy(EnsemblePolicy):
    """Decider and Fusion of one pool.

    Args:
        members: Names of the pool's members, M.
        weights: Arrays by name; `policies.checkpoint` lists names and shapes.
        card: Facts of the training: seed, data hash, versions, configuration, validation figures. JSON values only.

    Raises:
        CheckpointError: An array is missing, or has the wrong shape or a value that is not finite.
    """

    trained = True

    def __init__(
        self, members: Sequence[str], weights: Mapping[str, np.ndarray], card: Mapping[str, Any] | None = None
    ) -> None:
        self._members = tuple(members)
        # Stored and hashed in single precision, so that a policy just trained and the same one loaded decide alike.
        stored = {name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in sorted(weights)}
        check_weights(self._members, stored)
        self.weights: Mapping[str, np.ndarray] = MappingProxyType(stored)
        self.card: Mapping[str, Any] = MappingProxyType(dict(card or {}))
        self._weights = {name: array.astype(np.float64) for name, array in stored.items()}
        self._competence = CompetenceModel(
            weights=self._weights["competence.weights"],
            bias=self._weights["competence.bias"],
            mean=self._weights["competence.mean"],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by what made it: read-only views can be neither."""
        return type(self), (self._members, dict(self.weights), dict(self.card))

    def __repr__(self) -> str:
        """Name the policy and its members."""
        return f"RLFocalPolicy({self.policy_id}, members={list(self._members)})"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""
        return self._members

    @cached_property
    def policy_id(self) -> str:
        """`rlfocal-` and a hash of members and weights."""
        digest = sha256(json.dumps(self._members).encode())
        for name, array in self.weights.items():
            digest.update(name.encode() + b"\0" + array.tobytes())
        return f"rlfocal-{digest.hexdigest()[:12]}"

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a checkpoint directory.

        Raises:
            CheckpointError: It is absent, damaged, too large, or of a format or observation spec that does not fit.
        """
        members, weights, card = read_checkpoint(path)
        return cls(members, weights, card)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint directory in one step: it is there whole, or not at all.

        Raises:
            CheckpointError: The path holds something that is not a checkpoint.
        """
        write_checkpoint(path, self._members, self.weights, self.card)

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> Descriptors:
        """Describe members near these queries; see `EnsemblePolicy.describe`."""
        features = features_of(queries, tasks)
        columns = self.columns(members)
        return Descriptors(
            competence=self._competence(features)[:, columns],
            price=self._weights["pool.price"][columns],
            diversity=self._weights["pool.diversity"][np.ix_(columns, columns)],
            surface=features[:, : len(SURFACE_NAMES)],
        )

    def team_logits(self, state: State) -> Floats:
        """Compute the Decider's on/off logits, shape [Q, M]."""
        return decider_logits(self._weights, *decider_observation(state))

    def team(self, state: State) -> tuple[Bools, Floats]:
        """Choose the most probable team; see `EnsemblePolicy.team`."""
        logits = self.team_logits(state)
        selectable, smallest, largest = legal_sizes(state)
        return (
            most_probable_subset(logits, selectable, smallest=smallest, largest=largest),
            subset_marginals(logits, selectable, smallest=smallest, largest=largest),
        )

    def weigh(self, state: State) -> Floats:
        """Weigh the answers by Fusion's softmax; see `EnsemblePolicy.weigh`."""
        return softmax(fusion_logits(self._weights, *fusion_observation(state)))

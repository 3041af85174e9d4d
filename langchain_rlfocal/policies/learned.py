"""The learned policy: Decider and Fusion trained together, served by NumPy alone.

Holds arrays, never a model client and never torch. `save` and `load` go through `policies.checkpoint`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from os import PathLike
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.features import FEATURES_DIM, SURFACE_NAMES, Embedder, features_of
from langchain_rlfocal.observations import decider_observation, fusion_observation
from langchain_rlfocal.policies.base import EnsemblePolicy, legal_sizes
from langchain_rlfocal.policies.checkpoint import Parts, check_parts, read_checkpoint, write_checkpoint
from langchain_rlfocal.policies.competence import CompetenceModel
from langchain_rlfocal.policies.evidence import EvidenceModel
from langchain_rlfocal.policies.networks import decider_logits, decider_shared, fusion_logits, softmax
from langchain_rlfocal.policies.subsets import most_probable_subset, subset_marginals
from langchain_rlfocal.states import Answers, Bools, Descriptors, Evidence, Floats, State


class RLFocalPolicy(EnsemblePolicy):
    """Decider and Fusion of one pool.

    Args:
        parts: Members, arrays, label names, card and fitted baselines: what a checkpoint holds.
        embedder: Embeds queries, where the policy was trained with an embedder; it must be the same one.

    Raises:
        CheckpointError: An array is missing, or has the wrong shape or a value that is not finite.
        InputError: The policy needs an embedder and got none, or the other way round.
    """

    trained = True

    def __init__(self, parts: Parts, *, embedder: Embedder | None = None) -> None:
        # Stored and hashed in single precision, so that a policy just trained and the same one loaded decide alike.
        stored = {name: np.array(parts.weights[name], dtype=np.float32, order="C") for name in sorted(parts.weights)}
        for array in stored.values():
            array.flags.writeable = False
        self.parts = replace(parts, weights=MappingProxyType(stored))
        check_parts(self.parts)
        self.embedder = embedder
        if (embedder is not None) != self.needs_embedder:
            need = (
                "needs the embedder that it was trained with" if embedder is None else "was trained without an embedder"
            )
            raise InputError(
                f"The policy {need}: pass {'`embedder=...`' if embedder is None else 'none'} when loading it."
            )
        w = stored
        self._competence = CompetenceModel(
            weights=w["competence.weights"], bias=w["competence.bias"], mean=w["competence.mean"]
        )
        self._reads_options = bool(w["evidence.shared"][2] or w["evidence.slopes"].any())
        self._evidence = EvidenceModel(
            shared=w["evidence.shared"],
            weights=w["evidence.weights"],
            slopes=w["evidence.slopes"],
            response=w["evidence.response"],
            moments=w["evidence.moments"],
            labels={
                (task, label): float(b) for (task, label), b in zip(parts.labels, w["evidence.labels"], strict=True)
            },
            pool_size=len(self.members),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by what made it: read-only views can be neither."""
        parts = replace(self.parts, weights=dict(self.parts.weights))
        return _rebuild, (type(self), parts, self.embedder)

    def __repr__(self) -> str:
        """Name the policy and its members."""
        return f"RLFocalPolicy({self.policy_id}, members={list(self.members)})"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""
        return self.parts.members

    @property
    def card(self) -> Mapping[str, Any]:
        """Facts of the training: seed, data hash, versions, configuration, validation figures."""
        return self.parts.card

    @property
    def needs_embedder(self) -> bool:
        """True if the policy was trained on embeddings of the queries."""
        return len(self.parts.weights["competence.weights"]) > FEATURES_DIM

    @cached_property
    def policy_id(self) -> str:
        """`rlfocal-` and a hash of members, labels and weights."""
        digest = sha256(json.dumps([self.members, self.parts.labels]).encode())
        for name, array in self.parts.weights.items():
            digest.update(name.encode() + b"\0" + array.tobytes())
        return f"rlfocal-{digest.hexdigest()[:12]}"

    @classmethod
    def load(cls, path: str | PathLike[str], *, embedder: Embedder | None = None) -> Self:
        """Read a checkpoint directory.

        Raises:
            CheckpointError: It is absent, damaged, too large, or of a format or observation spec that does not fit.
            InputError: It was trained with an embedder and got none, or the other way round.
        """
        return cls(read_checkpoint(path), embedder=embedder)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint directory in one step: it is there whole, or not at all.

        Raises:
            CheckpointError: The path holds something that is not a checkpoint.
        """
        write_checkpoint(path, self.parts)

    def cost_weight_for(self, target_calls: float) -> float:
        """Find the cost weight at which the policy asks at most this many members on average, by its validation rows.

        Args:
            target_calls: Mean calls a query, at least 1.

        Returns:
            The least cost weight of the curve, interpolated, that stays within the target; the largest of the curve where
            none does.

        Raises:
            InputError: The target is below 1, or the policy holds no curve.
        """
        if not target_calls >= 1:
            raise InputError(f"`target_calls` must be at least 1, got {target_calls}. One member is a team.")
        try:
            points = sorted((float(point["cost_weight"]), float(point["mean_calls"])) for point in self.card["curve"])
        except (KeyError, TypeError, ValueError, OverflowError):
            points = []
        if not points or not np.isfinite(points).all():
            raise InputError(
                "The policy must hold a curve of calls over cost weights. Train it again, or give `cost_weight`."
            )
        if points[0][1] <= target_calls:
            return points[0][0]
        for (low, many), (high, few) in pairwise(points):
            if few <= target_calls < many:
                share = (many - target_calls) / (many - few)
                return low + share * (high - low)
        return points[-1][0]

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> Descriptors:
        """Describe members near these queries; see `EnsemblePolicy.describe`."""
        features = features_of(queries, tasks, embedder=self.embedder)
        expected = len(self._competence.mean)
        if len(queries) and features.shape[1] != expected:
            raise InputError(
                f"The embedder must give vectors of length {expected - FEATURES_DIM}, as in training, got "
                f"{features.shape[1] - FEATURES_DIM}. Load the policy with the embedder that it was trained with."
            )
        columns = self.columns(members)
        competence = self._competence(features)
        kind, weights = np.float32, self.parts.weights
        return Descriptors(
            competence=competence[:, columns].astype(kind),
            trust=self._evidence.trust(features, competence)[:, columns].astype(kind),
            slopes=self._evidence.option_slopes(features)[:, columns].astype(kind),
            price=weights["pool.price"][columns],
            diversity=weights["pool.diversity"][np.ix_(columns, columns)],
            surface=features[:, : len(SURFACE_NAMES)].astype(kind),
        )

    def read(
        self, known: Descriptors, tasks: Sequence[str | None], answers: Answers, members: Sequence[str] | None = None
    ) -> Evidence:
        """Say what answers are evidence of; see `EnsemblePolicy.read`.

        Option scores say nothing to a policy that was trained without them, so they make no candidates.
        """
        if answers.option_scores is not None and not self._reads_options:
            answers = replace(answers, option_scores=None)
        columns = self.columns(members)
        whole = len(columns) == len(self.members) and columns == sorted(columns)
        return (self._evidence if whole else self._evidence.take(columns)).read(known, tasks, answers)

    def team_logits(self, state: State) -> Floats:
        """Compute the Decider's on/off logits, shape [Q, M]."""
        members, context = decider_observation(state)
        return decider_logits(self.parts.weights, members, decider_shared(members, context))

    def team(self, state: State) -> tuple[Bools, Callable[[], Floats]]:
        """Choose the most probable team; see `EnsemblePolicy.team`."""
        logits = self.team_logits(state).astype(np.float64)
        selectable, smallest, largest = legal_sizes(state)
        return (
            most_probable_subset(logits, selectable, smallest=smallest, largest=largest),
            lambda: subset_marginals(logits, selectable, smallest=smallest, largest=largest),
        )

    def weigh(self, state: State) -> Floats:
        """Weigh the candidates by Fusion's softmax; see `EnsemblePolicy.weigh`."""
        return softmax(fusion_logits(self.parts.weights, *fusion_observation(state)))


def _rebuild(kind: type[RLFocalPolicy], parts: Parts, embedder: Embedder | None) -> RLFocalPolicy:
    return kind(parts, embedder=embedder)

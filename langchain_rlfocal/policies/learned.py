"""The learned policy: Decider and Fusion trained together, served by NumPy alone.

Holds arrays, never a model client and never torch. `save` and `load` go through `policies.checkpoint`. `add_member` extends
a policy, without training, by a member that it was not trained with.

`training.mappo` holds the same networks in torch, and a property test shows that both compute the same. Every layer is shared
by all members (and all candidates), which see each other only through pooled values, so their order cannot matter. A first
layer works on the joined vector of what one member (or candidate) has of its own and what all share; since the second part is
the same for all of them, it goes through the layer once per query.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from langchain_rlfocal.diversity import pairwise_focal_diversity
from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.features import FEATURES_DIM, Embedder, features_of
from langchain_rlfocal.observations import (
    FUSION_AXES,
    MEMBER_AXES,
    decider_observation,
    decider_shared,
    fusion_observation,
    fusion_shared,
)
from langchain_rlfocal.policies.base import EnsemblePolicy, legal_sizes
from langchain_rlfocal.policies.certificates import Certificate, certificates_of
from langchain_rlfocal.policies.checkpoint import Parts, check_parts, read_checkpoint, write_checkpoint
from langchain_rlfocal.policies.evidence import CompetenceModel, EvidenceModel, coincidence_of, moments_of
from langchain_rlfocal.policies.novelty import NoveltyModel
from langchain_rlfocal.policies.subsets import LOGIT_BOUND, most_probable_subset, subset_marginals
from langchain_rlfocal.policies.targets import Curve
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, MemberFeatures, State, softmax

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import OutcomeGrid

PRIOR_QUERIES = 10.0
"""Weight of what is expected of a new member, in queries: it is taken for an average member until it shows otherwise."""


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
        w = {name: array.astype(np.float64) for name, array in stored.items()}
        self._competence = CompetenceModel(
            weights=w["competence.weights"], bias=w["competence.bias"], mean=w["competence.mean"]
        )
        self._novelty = NoveltyModel(mean=w["novelty.mean"], directions=w["novelty.directions"])
        self._reads_options = bool(w["evidence.shared"][2] or w["evidence.slopes"].any())
        self._evidence = EvidenceModel(
            shared=w["evidence.shared"],
            weights=w["evidence.weights"],
            option_weights=w["evidence.slopes"],
            response=w["evidence.response"],
            moments=w["evidence.moments"],
            labels=dict(zip(parts.labels, w["evidence.labels"].tolist(), strict=True)),
            looks=w["evidence.looks"],
            pool_size=len(self.members),
        )
        self._decider, self._fusion = DeciderNetwork(stored), FusionNetwork(stored)

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

    @cached_property
    def curve(self) -> Curve:
        """What each operating point takes and scores, as training measured it; what targets are kept by.

        Raises:
            InputError: The policy holds no curve.
        """
        return Curve(self.card.get("curve"))

    @cached_property
    def certificates(self) -> Mapping[str, Certificate]:
        """The promises that it was certified for, by name.

        Raises:
            CheckpointError: One breaks a rule, or is about another policy.
        """
        return certificates_of(self.card, self.policy_id)

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> MemberFeatures:
        """Describe members near these queries; see `EnsemblePolicy.describe`."""
        features = features_of(queries, tasks, embedder=self.embedder)
        expected = len(self._competence.mean)
        if len(queries) and features.shape[1] != expected:
            raise InputError(
                f"The embedder must give vectors of length {expected - FEATURES_DIM}, as in training, got "
                f"{features.shape[1] - FEATURES_DIM}. Load the policy with the embedder that it was trained with."
            )
        competence = self._competence(features)
        trust, option_weights = self._evidence.describe(features, competence)
        kind = np.float32
        described = MemberFeatures(
            competence=competence.astype(kind),
            trust=trust.astype(kind),
            option_weights=option_weights.astype(kind),
            price=self.parts.weights["pool.price"],
            diversity=self.parts.weights["pool.diversity"],
            novelty=self._novelty(features).astype(kind),
            coincidence=coincidence_of(features, self.parts.weights["pool.coincidence"]).astype(kind),
        )
        return described if members is None else described.of_members(self.columns(members))

    def read(
        self,
        features: MemberFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        members: Sequence[str] | None = None,
    ) -> Evidence:
        """Say what answers are evidence of; see `EnsemblePolicy.read`.

        Option scores say nothing to a policy that was trained without them, so they make no candidates.
        """
        if answers.option_scores is not None and not self._reads_options:
            answers = replace(answers, option_scores=None)
        columns = self.columns(members)
        whole = columns == list(range(len(self.members)))
        return self._evidence.read(features, tasks, answers, slice(None) if whole else columns)

    def team_logits(self, state: State) -> Floats:
        """Compute the Decider's on/off logits, shape [Q, M]."""
        members, context = decider_observation(state)
        return self._decider(members, decider_shared(members, context))

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose the most probable team; see `EnsemblePolicy.team`."""
        logits = self.team_logits(state).astype(np.float64)
        selectable, smallest, largest = legal_sizes(state)
        return (
            most_probable_subset(logits, selectable, smallest=smallest, largest=largest),
            logits,
            lambda: subset_marginals(logits, selectable, smallest=smallest, largest=largest),
        )

    def weigh(self, state: State) -> Floats:
        """Weigh the candidates by Fusion's softmax; see `EnsemblePolicy.weigh`."""
        candidates, exists = fusion_observation(state)
        return softmax(self._fusion(candidates, fusion_shared(candidates, exists), exists))


def _rebuild(kind: type[RLFocalPolicy], parts: Parts, embedder: Embedder | None) -> RLFocalPolicy:
    return kind(parts, embedder=embedder)


class _JoinedLayer:
    """relu(W [own; shared] + b), shape [Q, N, H], from own [Q, N, A] and shared [Q, S]."""

    def __init__(self, weights: Mapping[str, Floats], name: str, num_own: int) -> None:
        weight = weights[f"{name}.weight"]
        self._own, self._shared, self._bias = weight[:, :num_own].T, weight[:, num_own:].T, weights[f"{name}.bias"]

    def __call__(self, own: Floats, shared: Floats) -> Floats:
        hidden = own @ self._own
        hidden += (shared @ self._shared + self._bias)[:, None, :]
        return np.maximum(hidden, 0, out=hidden)


class DeciderNetwork:
    """On/off logit of each member, bounded.

    A linear path parallel to the hidden layers starts as the rule of greatest value of information (`State.net_gain`).

    Args:
        weights: Arrays by name.
    """

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._hidden1 = _JoinedLayer(weights, "decider.hidden1", len(MEMBER_AXES))
        self._weight2, self._bias2 = weights["decider.hidden2.weight"].T, weights["decider.hidden2.bias"]
        self._out, self._out_bias = weights["decider.out.weight"][0], weights["decider.out.bias"]
        self._skip = weights["decider.skip.weight"][0]

    def __call__(self, members: Floats, shared: Floats) -> Floats:
        """Compute logits, shape [Q, M], of observations of shape [Q, M, A] and what `decider_shared` makes of them."""
        hidden = self._hidden1(members, shared) @ self._weight2
        hidden += self._bias2
        np.maximum(hidden, 0, out=hidden)
        logits = hidden @ self._out + members @ self._skip + self._out_bias
        bounded: Floats = LOGIT_BOUND * np.tanh(logits / LOGIT_BOUND)
        return bounded


class FusionNetwork:
    """Logit of each candidate.

    A linear path parallel to the hidden layer starts as the evidence itself, so that learning begins at the best vote known and
    not at chance.

    Args:
        weights: Arrays by name.
    """

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._hidden = _JoinedLayer(weights, "fusion.hidden", len(FUSION_AXES))
        self._out, self._vote = weights["fusion.out.weight"][0], weights["fusion.vote.weight"][0]
        self._bias = weights["fusion.out.bias"] + weights["fusion.vote.bias"]

    def __call__(self, candidates: Floats, shared: Floats, mask: Bools) -> Floats:
        """Compute logits, shape [Q, K], -inf where there is no candidate; see `fusion_shared` for the second argument."""
        logits = self._hidden(candidates, shared) @ self._out + candidates @ self._vote + self._bias
        return np.where(mask, logits, -np.inf)


def add_member(policy: RLFocalPolicy, name: str, probe: "OutcomeGrid") -> RLFocalPolicy:
    """Add a member that a policy was not trained with, from a few recorded outcomes.

    Nothing is retrained: the networks judge members by their features. The new member's competence is that of the pool's
    average member, plus what its outcomes on the probe say: a constant, and how far it resembles each member, by ridge
    regression with `PRIOR_QUERIES` as penalty:

        c(q) = c̄(q) + θ₀ + Σ_m θ_m (c_m(q) − c̄(q))

    Its answers are trusted as those of any member of its competence. Its price is its mean cost relative to that of the
    others on the probe, or the mean price where costs are unknown. What was measured without it is dropped: baselines,
    validation figures, certificates, and the curve that `target_calls` needs.

    Args:
        policy: The policy; it is not changed.
        name: The new member's name.
        probe: Outcomes of the new member and of all of the policy's members on the same queries, about fifty.

    Raises:
        PoolError: The policy has a member of this name, or the probe lacks one of the pool or the new member.
        OutcomeError: The probe holds no query, or no scored answer of the new member.
    """
    if name in policy.members:
        raise PoolError(f"A member's name must be new to the policy, got `{name}` again. Choose another name.")
    missing = [member for member in (*policy.members, name) if member not in probe.members]
    if missing:
        raise PoolError(
            f"The probe must hold outcomes of the whole pool and of `{name}`; missing: {', '.join(missing)}."
        )
    if not len(probe):
        raise OutcomeError("The probe must hold at least one query, got none. About 50 are enough to start.")
    probe = probe.canonical()
    columns = [probe.members.index(member) for member in (*policy.members, name)]
    old = policy.parts.weights
    scored = ~np.isnan(probe.scores[:, columns[-1]])
    if not scored.any():
        raise OutcomeError(f"The probe must hold a scored answer of `{name}`, got none. About 50 are enough to start.")
    theta = _resemblance(policy, probe.take(scored), probe.scores[scored, columns[-1]])

    def combined(array: np.ndarray) -> Floats:
        mean = array.mean(axis=-1, keepdims=True)
        return np.concatenate([array, mean + (array - mean) @ theta[1:, None]], axis=-1)

    answers = Answers(
        candidate_index=probe.answer_ids,
        labels=probe.answers,
        chars=probe.response_chars,
        logprobs=probe.logprobs,
        option_scores=probe.option_probs,
    )
    weights = dict(old)
    weights["competence.weights"] = combined(old["competence.weights"])
    weights["competence.bias"] = combined(old["competence.bias"])
    weights["competence.bias"][-1] += theta[0]
    for part in ("weights", "slopes", "response"):
        weights[f"evidence.{part}"] = np.pad(old[f"evidence.{part}"], ((0, 0), (0, 1)))
    moments = moments_of(answers.of_members(columns[-1:]))
    weights["evidence.moments"] = np.concatenate([old["evidence.moments"], moments], axis=1)
    price = np.append(old["pool.price"], _price(policy, probe, columns))
    weights["pool.price"] = price / price.sum()
    weights["pool.diversity"] = np.pad(old["pool.diversity"], (0, 1))
    known = ~np.isnan(probe.scores[:, columns])
    diversity = pairwise_focal_diversity(probe.scores[:, columns] >= 0.5, known=known)
    weights["pool.diversity"][-1, :-1] = weights["pool.diversity"][:-1, -1] = diversity[-1, :-1]
    card = {fact: value for fact, value in policy.card.items() if fact not in ("curve", "validation", "certificates")}
    card["added"] = [*card.get("added", []), name]
    parts = Parts(members=(*policy.members, name), weights=weights, labels=policy.parts.labels, card=card)
    return RLFocalPolicy(parts, embedder=policy.embedder)


def _resemblance(policy: RLFocalPolicy, probe: "OutcomeGrid", scores: Floats) -> Floats:
    """Fit θ₀ and θ_m to the new member's scores, shape [1 + M]."""
    features = features_of(probe.queries, probe.tasks, embedder=policy.embedder)
    weights = policy.parts.weights
    estimates = (features - weights["competence.mean"]) @ weights["competence.weights"] + weights["competence.bias"]
    mean = estimates.mean(axis=1, keepdims=True)
    inputs = np.concatenate([np.ones_like(mean), estimates - mean], axis=1)
    gram = inputs.T @ inputs + PRIOR_QUERIES * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ (scores - mean[:, 0])))


def _price(policy: RLFocalPolicy, probe: "OutcomeGrid", columns: list[int]) -> float:
    """Cost of the last of these columns as a share of asking the others, in the unit that the policy was trained in."""
    from langchain_rlfocal.outcomes import prices_of  # noqa: PLC0415  # loads pyarrow, which answering does not need

    shares, total = prices_of(probe, policy.card.get("config", {}).get("cost_unit", "auto"))
    pool = float(shares[columns[:-1]].sum())
    if total > 0 and pool > 0:
        return float(shares[columns[-1]]) / pool
    return float(policy.parts.weights["pool.price"].mean())

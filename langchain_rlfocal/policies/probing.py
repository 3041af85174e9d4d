"""Probing: add a member that a policy was not trained with, from a few recorded outcomes.

Nothing is retrained. The networks judge members by their descriptors, so a newcomer needs descriptors only: estimated
competence, price, diversity, and how its responses usually look. Fifty queries are enough for a start.
"""

from dataclasses import replace

import numpy as np

from langchain_rlfocal.diversity import pairwise_focal_diversity
from langchain_rlfocal.errors import OutcomeError, PoolError
from langchain_rlfocal.features import features_of
from langchain_rlfocal.outcomes import OutcomeGrid, prices_of
from langchain_rlfocal.policies.evidence import moments_of
from langchain_rlfocal.policies.learned import RLFocalPolicy
from langchain_rlfocal.states import Answers, Floats

PRIOR_QUERIES = 10.0
"""Weight of what is expected of a newcomer, in queries: it is taken for an average member until it shows otherwise."""


def add_member(policy: RLFocalPolicy, name: str, probe: OutcomeGrid) -> RLFocalPolicy:
    """Add a member to a policy.

    Its competence is that of the pool's average member, plus what its outcomes on the probe say: a constant, and how far it
    resembles each member, by ridge regression with `PRIOR_QUERIES` as penalty:

        c(q) = c̄(q) + θ₀ + Σ_m θ_m (c_m(q) − c̄(q))

    Its answers are trusted as those of any member of its competence. Its price is its mean cost relative to that of the
    others on the probe, or the mean price where costs are unknown. What was measured without it is dropped: baselines,
    validation figures, and the curve that `target_calls` needs.

    Args:
        policy: The policy; it is not changed.
        name: The newcomer's name.
        probe: Outcomes of the newcomer and of all of the policy's members on the same queries, about fifty.

    Raises:
        PoolError: The policy has a member of this name, or the probe lacks one of the pool or the newcomer.
        OutcomeError: The probe holds no query.
    """
    if name in policy.members:
        raise PoolError(f"A member's name must be new to the policy, got `{name}` again. Choose another name.")
    missing = [member for member in (*policy.members, name) if member not in probe.members]
    if missing:
        raise PoolError(
            f"The probe must hold outcomes of the whole pool and of `{name}`; missing: {', '.join(missing)}."
        )
    if not len(probe):
        raise OutcomeError("The probe must hold at least one query, got none. Fifty are a start.")
    columns = [probe.members.index(member) for member in policy.members]
    newcomer = probe.members.index(name)
    old = policy.parts.weights
    theta = _resemblance(policy, probe, newcomer)

    def combined(array: np.ndarray) -> Floats:
        mean = array.mean(axis=-1, keepdims=True)
        return np.concatenate([array, mean + (array - mean) @ theta[1:, None]], axis=-1)

    looks = moments_of(
        Answers(
            places=probe.answer_ids[:, [newcomer]],
            labels=probe.answers[:, [newcomer]],
            chars=probe.response_chars[:, [newcomer]],
            logprobs=probe.logprobs[:, [newcomer]],
            option_scores=None if probe.option_probs is None else probe.option_probs[:, [newcomer]],
        )
    )
    weights = dict(old)
    weights["competence.weights"] = combined(old["competence.weights"])
    weights["competence.bias"] = combined(old["competence.bias"]) + np.append(np.zeros(len(columns)), theta[0])
    for part in ("weights", "slopes", "response"):
        array = old[f"evidence.{part}"]
        weights[f"evidence.{part}"] = np.concatenate([array, np.zeros((len(array), 1))], axis=1)
    weights["evidence.moments"] = np.concatenate([old["evidence.moments"], looks], axis=1)
    price = np.append(old["pool.price"], _price(policy, probe, columns, newcomer))
    weights["pool.price"] = price / price.sum()
    weights["pool.diversity"] = np.pad(old["pool.diversity"], (0, 1))
    with_newcomer = pairwise_focal_diversity(probe.scores[:, [*columns, newcomer]] >= 0.5)
    weights["pool.diversity"][-1, :-1] = weights["pool.diversity"][:-1, -1] = with_newcomer[-1, :-1]
    card = {fact: value for fact, value in policy.card.items() if fact not in ("curve", "validation")}
    card["added"] = [*card.get("added", []), name]
    parts = replace(
        policy.parts, members=(*policy.members, name), weights=weights, card=card, baselines={}, baseline_facts={}
    )
    return RLFocalPolicy(parts, embedder=policy.embedder)


def _resemblance(policy: RLFocalPolicy, probe: OutcomeGrid, newcomer: int) -> Floats:
    """Fit θ₀ and θ_m, shape [1 + M]."""
    features = features_of(probe.queries, probe.tasks, embedder=policy.embedder)
    weights = policy.parts.weights
    estimates = (features - weights["competence.mean"]) @ weights["competence.weights"] + weights["competence.bias"]
    mean = estimates.mean(axis=1, keepdims=True)
    inputs = np.concatenate([np.ones_like(mean), estimates - mean], axis=1)
    residual = probe.scores[:, newcomer] - mean[:, 0]
    gram = inputs.T @ inputs + PRIOR_QUERIES * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ residual))


def _price(policy: RLFocalPolicy, probe: OutcomeGrid, columns: list[int], newcomer: int) -> float:
    """What the newcomer costs, as a share of asking the pool without it, in the unit that the policy was trained in."""
    shares, total = prices_of(probe, policy.card.get("config", {}).get("cost_unit", "auto"))
    pool = float(shares[columns].sum())
    return (
        float(shares[newcomer]) / pool if total > 0 and pool > 0 else float(policy.parts.weights["pool.price"].mean())
    )

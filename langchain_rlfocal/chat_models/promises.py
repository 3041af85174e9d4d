"""Promises: whether a policy's certificate holds for a query, and how the query is then answered.

Where it holds, the query is answered at the operating point that was certified; where it does not, by the member that was best when
it was certified, and the reply says why.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import Fingerprints
from langchain_rlfocal.policies import Policy
from langchain_rlfocal.policies.certificates import Certificate, Promise
from langchain_rlfocal.policies.targets import OperatingPoint, position_of
from langchain_rlfocal.records import Query

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pledge:
    """A promise as one query is answered under it.

    Attributes:
        certificate: What was certified.
        void: Why it does not hold for this query; None where it does.
        point: How the policy is run.
    """

    certificate: Certificate
    void: str | None
    point: OperatingPoint

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for a reply."""
        return {"name": self.certificate.promise, "holds": self.void is None, "reason": self.void}


def certificate_of(policy: Policy, promise: str) -> Certificate:
    """Find a policy's certificate of a promise.

    Raises:
        InputError: The name is none of a promise, or the policy has no such certificate.
        CheckpointError: Its certificates cannot be read.
    """
    name = Promise.parse(promise).name
    found: Mapping[str, Certificate] = getattr(policy, "certificates", {})
    if name not in found:
        known = ", ".join(found) or "none"
        raise InputError(
            f"`promise` must be one that the policy was certified for ({known}), got {promise!r}. Certify it on outcomes that it "
            "has not seen: `rlfocal certify CHECKPOINT OUTCOMES`."
        )
    return found[name]


def pledge_of(
    certificate: Certificate,
    query: Query,
    *,
    present: Iterable[str],
    left_out: Iterable[str],
    policy: Policy,
    fingerprints: Fingerprints,
    rewrites: bool,
) -> Pledge:
    """Tell whether a promise holds for a query, and how to answer it.

    Args:
        certificate: What was certified.
        query: The query.
        present: Members that can be asked.
        left_out: Members that are not asked since their scores fell.
        policy: The policy that decides.
        fingerprints: What members call themselves.
        rewrites: Whether a synthesizer may write the answer.
    """
    void = _void(
        certificate,
        query,
        present=frozenset(present),
        left_out=sorted(left_out),
        policy=policy,
        fingerprints=fingerprints,
        rewrites=rewrites,
    )
    if void is None:
        return Pledge(certificate, None, certificate.mixture.point_for(position_of(query.text, query.task)))
    fingerprints.say_once(
        f"{certificate.promise} does not hold: {void}. `{certificate.best_member}` answers alone.", _log
    )
    return Pledge(
        certificate, void, OperatingPoint(certificate.mixture.low.cost_weight, member=certificate.best_member)
    )


def _void(
    certificate: Certificate,
    query: Query,
    *,
    present: frozenset[str],
    left_out: list[str],
    policy: Policy,
    fingerprints: Fingerprints,
    rewrites: bool,
) -> str | None:
    if left_out:
        return f"the score of {', '.join(left_out)} has fallen"
    missing, new = sorted({*certificate.members} - present), sorted(present - {*certificate.members})
    if missing or new:
        changes = [f"without {', '.join(missing)}"] if missing else []
        changes += [f"with {', '.join(new)}"] if new else []
        return f"it was certified for another pool; this one is {' and '.join(changes)}"
    if changed := fingerprints.changed:
        return "; ".join(f"{name} is now {now}, was {before}" for name, (before, now) in sorted(changed.items()))
    if policy.policy_id != certificate.policy_id:
        return f"another policy decides now, {policy.policy_id}"
    if rewrites:
        return "a synthesizer may write the answer"
    if certificate.task_labels and query.task not in certificate.tasks:
        return f"it was certified for other tasks than {query.task or 'one without a label'}"
    if not certificate.task_labels and query.task is not None:
        return "it was certified without task labels"
    return None

"""Promises: whether a policy's certificate holds for a query, and how the query is then answered.

Where it holds, the query is answered at the operating point that was certified, under the limits that it was certified for; where it
does not, by the member that was best when it was certified, and the reply says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import Fingerprints
from langchain_rlfocal.policies import Policy
from langchain_rlfocal.policies.certificates import Certificate, Promise
from langchain_rlfocal.policies.targets import OperatingPoint, position_of
from langchain_rlfocal.records import Query


@dataclass(frozen=True, slots=True)
class Pledge:
    """A promise as one query is answered under it.

    Attributes:
        certificate: What was certified.
        void: Why it did not hold for this query when it began; None where it did.
        point: How the policy is run.
        fingerprints: What members call themselves.
    """

    certificate: Certificate
    void: str | None
    point: OperatingPoint
    fingerprints: Fingerprints

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for a reply: also where a member turned out to be another while it answered, it does not hold."""
        void = self.void or _renamed(self.certificate, self.fingerprints)
        return {"name": self.certificate.promise, "holds": void is None, "reason": void}


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
    certificate: Certificate, query: Query, *, policy: Policy, fingerprints: Fingerprints, void: str | None
) -> Pledge:
    """Tell whether a promise holds for a query, and how to answer it.

    Args:
        certificate: What was certified.
        query: The query.
        policy: The policy that decides.
        fingerprints: What members call themselves.
        void: Why it does not hold, whatever the query and the members' names; None where nothing speaks against it.
    """
    void = void or _renamed(certificate, fingerprints)
    if void is None and policy.policy_id != certificate.policy_id:
        void = f"another policy decides now, {policy.policy_id}"
    if void is None:
        void = _unlike(certificate, query)
    if void is None:
        point = certificate.mixture.point_for(position_of(query.text, query.task))
    else:
        fingerprints.warn_once(f"The promise {certificate.promise} does not hold for some queries: {void}.")
        point = OperatingPoint(certificate.mixture.low.cost_weight, member=certificate.best_member)
    return Pledge(certificate, void, point, fingerprints)


def other_pool(certificate: Certificate, pool: Iterable[str]) -> str:
    """Say how a pool differs from the certified one; empty where it does not."""
    known, here = {*certificate.members}, {*pool}
    parts = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("without", known - here), ("with", here - known))
        if names
    ]
    return f"it was certified for another pool; this one is {' and '.join(parts)}" if parts else ""


def _renamed(certificate: Certificate, fingerprints: Fingerprints) -> str | None:
    """Say which members call themselves otherwise than certified, or, where that is not on record, than at first."""
    for member, name in sorted(fingerprints.latest.items()):
        before = certificate.fingerprints.get(member, fingerprints.first[member])
        if name != before:
            return f"{member} calls itself {name} now, not {before}"
    return None


def _unlike(certificate: Certificate, query: Query) -> str | None:
    """Say how a query differs from those of the certificate."""
    if certificate.task_labels and query.task not in certificate.tasks:
        return "it was certified for other tasks" if query.task else "it was certified for queries with a task label"
    if not certificate.task_labels and query.task is not None:
        return "it was certified without task labels"
    return None

"""Certificates: promises about a policy's score that were shown on rows which training had not seen.

`evaluation.certification` makes them; a checkpoint carries them in its card, several beside each other, under the names
of their promises. A checkpoint may come from a stranger, so they are read strictly. Nobody can check what a certificate
claims without the outcomes that it stands on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_rlfocal.errors import CheckpointError, InputError
from langchain_rlfocal.policies.targets import Mixture, OperatingPoint

_NAME = re.compile(r"best(?P<margin>[+-]\d{1,3}(?:\.\d{1,6})?)@(?P<confidence>0\.\d{1,6})")


@dataclass(frozen=True, slots=True)
class Promise:
    """How a policy's mean score compares with that of the best of its members.

    Attributes:
        margin: By how much it is above at least, in (-1, 1); negative: by how much it is below at most.
        confidence: Probability, in (0, 1), with which nothing false is promised.

    Raises:
        InputError: One is out of its range.
    """

    margin: float
    confidence: float

    def __post_init__(self) -> None:
        if not -1 < self.margin < 1:
            raise InputError(f"The margin of a promise must be in (-1, 1), got {self.margin}. For example 0.02.")
        if not 0 < self.confidence < 1:
            raise InputError(f"The confidence of a promise must be in (0, 1), got {self.confidence}. For example 0.9.")
        if any(round(value, 6) != value for value in (self.margin, self.confidence)):
            raise InputError(
                f"The numbers of a promise must have six decimals at most, got {self.margin} and "
                f"{self.confidence}. Round them."
            )

    @classmethod
    def parse(cls, name: str) -> "Promise":
        """Read a name, such as `best-0.02@0.9` or `best+0.03@0.95`.

        Raises:
            InputError: It is no such name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(f"A promise must be named as in `best-0.02@0.9` or `best+0.03@0.95`, got {name!r:.80}.")
        return cls(float(match["margin"]), float(match["confidence"]))

    @property
    def name(self) -> str:
        """Its name: one promise has one."""
        return f"best{'-' if self.margin <= 0 else '+'}{_digits(abs(self.margin))}@{_digits(self.confidence)}"

    def __str__(self) -> str:
        """Say its name."""
        return self.name


def _digits(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Point(_Strict):
    """An operating point, as `targets.OperatingPoint`."""

    cost_weight: float = Field(ge=0, allow_inf_nan=False)
    max_team: int | None = Field(default=None, ge=1)
    member: str | None = None


class MixturePoint(_Strict):
    """A mixture of two operating points, as `targets.Mixture`, but for what the curve says that it takes."""

    low: Point
    high: Point
    share: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, mixture: Mixture) -> "MixturePoint":
        """Record a mixture."""
        low, high = (
            Point(cost_weight=one.cost_weight, max_team=one.max_team, member=one.member)
            for one in (mixture.low, mixture.high)
        )
        return cls(low=low, high=high, share=mixture.share)


class Certificate(_Strict):
    """A promise that was shown.

    Attributes:
        promise: Its name; see `Promise`.
        policy_id: The policy that it is about.
        date: When it was shown, as YYYY-MM-DD.
        rows: On how many rows.
        members: The members, of whom the best is meant, and whom the policy could ask.
        tasks: The tasks of the rows.
        task_labels: Whether the policy saw the rows' task labels.
        max_team: How many members it could ask.
        max_rounds: In how many rounds.
        bound: Name of the bound: a mixture of bets; see `evaluation.certification.log_capital`.
        p_value: Its value: the largest p-value over the members.
        fingerprints: What members called themselves in their replies, as far as whoever certified said so.
        operating_point: How the policy is to be run.
        unit: What spending is counted in.
        spending: What a query took on these rows on average.
        score: What the policy scored on these rows; an estimate, not promised.
        best_member: The member that was best on these rows.
        best_member_score: What it scored.
    """

    promise: str = Field(max_length=40)
    policy_id: str = Field(max_length=80)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    rows: int = Field(ge=1)
    members: list[str] = Field(min_length=1)
    tasks: list[str]
    task_labels: bool
    max_team: int = Field(ge=1)
    max_rounds: int = Field(ge=1)
    bound: Literal["betting"]
    p_value: float = Field(ge=0, le=1)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    operating_point: MixturePoint
    unit: Literal["usd", "tokens", "calls"]
    spending: float = Field(ge=0, allow_inf_nan=False)
    score: float = Field(ge=0, le=1)
    best_member: str
    best_member_score: float = Field(ge=0, le=1)

    @property
    def mixture(self) -> Mixture:
        """The operating point, as it is run."""
        low, high = (
            OperatingPoint(one.cost_weight, one.max_team, one.member)
            for one in (self.operating_point.low, self.operating_point.high)
        )
        return Mixture(low, high, self.operating_point.share, self.spending, self.spending)


def certificates_of(card: Mapping[str, Any], policy_id: str) -> dict[str, Certificate]:
    """Read the certificates in a policy's card by the names of their promises; none where it holds none.

    Args:
        card: The card.
        policy_id: The policy that holds it.

    Raises:
        CheckpointError: One breaks a rule, or is about another policy.
    """
    stored = card.get("certificates", {})
    if not isinstance(stored, Mapping):
        raise _refusal("`certificates`", f"must be a JSON object, got {stored!r:.80}")
    found = {}
    for name, facts in stored.items():
        try:
            one = found[name] = Certificate.model_validate(facts)
            promise = Promise.parse(one.promise)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise _refusal(
                f"certificate {name!r:.80}", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error
        except InputError as error:
            raise _refusal(f"certificate {name!r:.80}", str(error)) from error
        if promise.name != name:
            raise _refusal(f"certificate {name!r:.80}", f"promises something else, {one.promise!r}")
        if one.p_value > (1 - promise.confidence) * (1 + 1e-9):
            raise _refusal(f"certificate {name!r:.80}", f"its p-value of {one.p_value} does not show it")
        if one.policy_id != policy_id:
            raise _refusal(f"certificate {name!r:.80}", f"is about another policy, {one.policy_id!r}, not {policy_id}")
    return found


def with_certificate(card: Mapping[str, Any], certificate: Certificate) -> dict[str, Any]:
    """Add a certificate to a card; one of the same promise is replaced."""
    others = card.get("certificates", {})
    return {**card, "certificates": {**others, certificate.promise: certificate.model_dump()}}


def _refusal(what: str, rule: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint's {what}: {rule}. Run `rlfocal certify` again, which writes a new one.")

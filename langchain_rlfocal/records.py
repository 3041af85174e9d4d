"""Records: the values that travel down the answering river.

A `Query` goes in; the Decider returns a `Selection`; every asked member becomes a `Candidate` or a `Failure`; Fusion
returns an `Answer`. All are frozen, small, comparable, and free of LangChain and torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Flaw = Literal["refusal", "truncated", "filtered"]
"""What a provider can say that keeps a response from being a whole answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """What the user asks.

    Attributes:
        text: Text of the request, as features and answer canonicalisation read it.
        task: Task label such as `"mmlu_pro/law"`, or None where the caller gives none.
    """

    text: str
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The Decider's choice for one round.

    Attributes:
        round: Round, counted from 1.
        members: Members to ask in this round, most probable first; empty means stop and fuse.
        probabilities: Probability that the Decider adds each member that was available in this round.
    """

    round: int
    members: tuple[str, ...]
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member's answer.

    Attributes:
        member: The member's name.
        round: Round in which it was asked, counted from 1.
        text: Full text of its response.
        answer: Canonical answer; candidates with equal `answer` say the same. None if none could be extracted: then it is like no
            other.
        latency_s: Seconds from asking to the complete response.
        prompt_tokens: Tokens of the prompt, None where unknown.
        completion_tokens: Tokens of the response, None where unknown.
        cost_usd: Dollars, None where unknown (unknown is not zero).
        logprob: Mean log-probability of the response's tokens, None where the member gives none.
        option_probs: A score for each option by its canonical answer, where the member scores a closed set of options; the
            scale is the member's own, the highest is its choice.
        retries: The member's failed attempts before this one; latency and cost are those of the last attempt alone.
        flaw: `"refusal"` if the member, or its provider, would not answer; `"truncated"` if the answer breaks off; `"filtered"`
            if a part of it was withheld. None for a whole answer.
        answer_kind: Name of the kind that read the canonical answer, None where none did.
        message: The member's own message, kept opaque here.
    """

    member: str
    round: int
    text: str
    answer: str | None
    latency_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    logprob: float | None = None
    option_probs: Mapping[str, float] | None = None
    retries: "tuple[Failure, ...]" = ()
    flaw: Flaw | None = None
    answer_kind: str | None = None
    message: Any = field(default=None, repr=False, compare=False)

    def labelled(
        self, answer: str | None, answer_kind: str | None, option_probs: Mapping[str, float] | None = None
    ) -> "Candidate":
        """Return the same with its canonical answer; `dataclasses.replace` takes five times as long."""
        return Candidate(
            self.member,
            self.round,
            self.text,
            answer,
            self.latency_s,
            self.prompt_tokens,
            self.completion_tokens,
            self.cost_usd,
            self.logprob,
            option_probs,
            self.retries,
            self.flaw,
            answer_kind,
            self.message,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A member's non-answer.

    Attributes:
        member: The member's name.
        round: Round in which it was asked, counted from 1.
        kind: Short class of the cause: the exception's type name; what is wrong with a response, such as `"empty"`; or why the
            ensemble did not wait: `"timeout"`, `"deadline"`, `"budget"`, `"breaker_open"`, `"cancelled"`.
        reason: One line for a person.
        latency_s: Seconds from asking to the failure.
        is_retryable: True if asking again may help.
        retries: The member's failed attempts before this one; the latency is that of the last attempt alone.
        error: The exception, kept opaque here.
    """

    member: str
    round: int
    kind: str
    reason: str
    latency_s: float
    is_retryable: bool = False
    retries: "tuple[Failure, ...]" = ()
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Fusion decided.

    Attributes:
        member: The member whose candidate is returned, the most competent supporter of the winning answer; None where the
            winner is an option that all members score and none ranks first.
        answer: Its canonical answer.
        weights: Fusion's weight of each distinct canonical answer; they sum to 1, less what Fusion gives to candidates without one.
            Those stand together under `""`, with 0, even if one of them is returned: what cannot be compared does not agree.
        supporters: Members behind each distinct canonical answer, and under `""` those without one, most competent first.
    """

    member: str | None
    answer: str | None
    weights: Mapping[str, float]
    supporters: Mapping[str, tuple[str, ...]]

    @property
    def confidence(self) -> float:
        """Fusion's weight of the winning answer, in [0, 1]; 0 where it is no canonical answer."""
        return self.weights.get(self.answer or "", 0.0)

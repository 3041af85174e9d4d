"""The records of a log: what members were asked and answered, what was served, and what users said of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_rlfocal.errors import FeedbackError
from langchain_rlfocal.records import Answer, Candidate, Failure, Query

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import Outcome

CALLED_OFF = frozenset({"cancelled", "budget", "breaker_open", "rate_limit"})
"""Kinds of failures that say nothing of the member: it was not waited for, or not called at all."""


Cell = tuple[str, str, str, int]
"""What is asked once: task, query_id, member, sample (0, 1, ... where a member is asked the same several times)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What asking one member one question once gave.

    Attributes:
        outcome: The outcome. Its answer is None: labels are made when a table is (`labelled`), unless it came with one. Its reward
            is None where it is unscored.
        sample: Which of several answers of this member to this question, from 0.
        failure: Why it did not answer, as "kind: reason"; None where it did.
        tool_calls: The tools that it called.
        scorer: What gave the reward, None where nothing did.
        scoring_usd: What scoring took, in dollars; None where unknown.
        scrubbed: True if the texts were taken out of the log: the response is `SCRUBBED`, the answer and the gold answer are
            letters that are equal where those were.
        at: When it, or its latest score, was recorded, in seconds since 1970; None before it is.
    """

    outcome: "Outcome"
    sample: int = 0
    failure: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    scorer: str | None = None
    scoring_usd: float | None = None
    scrubbed: bool = False
    at: float | None = field(default=None, compare=False)

    @property
    def cell(self) -> Cell:
        """What was asked."""
        return self.outcome.task, self.outcome.query_id, self.outcome.model, self.sample


SCRUBBED = "[scrubbed]"
"""What stands in a log instead of a text that was taken out."""

_SCRUBBED_QUESTION = re.compile(r"\[scrubbed question [0-9]+\]")


def scrubbed_question(number: int) -> str:
    """Return what stands in a log instead of a question's text that was taken out; questions have to differ."""
    return f"[scrubbed question {number}]"


def is_scrubbed_question(text: str) -> bool:
    """Tell whether a text is what stands instead of a question's: what was asked is unknown."""
    return _SCRUBBED_QUESTION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """A later score of the latest answer of a cell, such as one by a corrected gold answer.

    Attributes:
        cell: Whose answer.
        reward: The score in [0, 1]; None where it could not be scored, which is not wrong.
        scorer: What gave it.
        gold: The gold answer that it was held against, None where there was none: then the attempt keeps its own.
        reason: Why, as the scorer says.
        usd: What scoring took, in dollars; None where unknown.
    """

    cell: Cell
    reward: float | None
    scorer: str
    gold: str | None = None
    reason: str | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """One answer as it was served: who could be asked, who was, what they said, and what was returned.

    Attributes:
        id: The answer's id, as `response_metadata["rlfocal"]["answer_id"]` holds it.
        query: What was asked.
        available: Members that could be asked in the first round.
        policy_id: The policy that decided.
        cost_weight: What asking the whole pool once was worth to it, in units of score.
        max_team: How many members could be asked over all rounds.
        max_rounds: How many rounds there could be.
        candidates: Members' answers.
        failures: Members' non-answers.
        answer: What Fusion decided; without a member and a canonical answer where what was returned is no member's own.
        explore: Share of the answers that ask a random team, ε.
        explored: True if this one did.
        propensity: Probability with which each asked member was asked, above 0; without those of whom it is unknown.
        pinned: True if not the policy, but the call, an operating point or a session named who was to be asked first, explored or not.
        price_factors: What the policy was told of members' prices in a session; see `policies.Policy.select`.
    """

    id: str
    query: Query
    available: tuple[str, ...]
    policy_id: str
    cost_weight: float
    max_team: int
    max_rounds: int
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]
    answer: Answer
    explore: float = 0.0
    explored: bool = False
    propensity: Mapping[str, float] = field(default_factory=dict)
    pinned: bool = False
    price_factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def asked(self) -> frozenset[str]:
        """Members that were asked."""
        return frozenset([*(c.member for c in self.candidates), *(f.member for f in self.failures)])

    @property
    def members(self) -> frozenset[str]:
        """Members that were asked, or could have been."""
        return self.asked.union(self.available)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a user said of an answer.

    Attributes:
        answer_id: Id of the answer.
        score: What the returned answer is worth, in [0, 1].
        per_member: What the answers of other asked members are worth, as far as the user knows.

    Raises:
        FeedbackError: A score is no number in [0, 1], or `per_member` is no mapping.
    """

    answer_id: str
    score: float
    per_member: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", _score(self.score, "`score`"))
        if not isinstance(self.per_member, Mapping):
            raise FeedbackError(
                f"`per_member` must map members to scores, got {type(self.per_member).__name__}. "
                'Give {"small": 0}, say, or leave it out.'
            )
        scores = {name: _score(score, f"`per_member[{name!r}]`") for name, score in self.per_member.items()}
        object.__setattr__(self, "per_member", scores)

    def scores_of(self, served: ServedAnswer) -> dict[str, float]:
        """Score every asked member that something is known of.

        Who gave the returned answer, in whatever words, has its score; a member that gave none has 0, unless it was called
        off; of the others only what `per_member` says is known, which counts before all else.
        """
        returned = served.answer.answer
        same = {c.member for c in served.candidates if returned is not None and c.answer == returned}
        same |= {served.answer.member} if served.answer.member is not None else set()
        scores = {failure.member: 0.0 for failure in served.failures if failure.kind not in CALLED_OFF}
        scores |= dict.fromkeys(sorted(same), self.score)
        return scores | dict(self.per_member)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What a person undid of what was learned.

    Attributes:
        learner: Whose change it was.
        change_id: Id of the change.
    """

    learner: str
    change_id: str


def _score(value: Any, name: str) -> float:
    """Check a score; True and False are 1 and 0."""
    is_number = isinstance(value, Real | np.bool_)
    if not is_number or not 0 <= value <= 1:  # compared as it is: not all numbers fit a float
        is_huge = isinstance(value, int) and value.bit_length() > 64  # Python refuses to show some of these
        got = f"a number of {value.bit_length()} bits" if is_huge else f"{value!r:.80}"
        raise FeedbackError(f"{name} must be a number in [0, 1], got {got}. Give 1 for right, 0 for wrong.")
    return float(value)

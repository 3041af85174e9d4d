"""Pricing: what one call will take, before it is made.

Tokens of a prompt are estimated as LangChain does; those of an answer are what is on record for the member, else its
`max_tokens`, else an assumption that is said. A price that is unknown stays unknown, and is never counted as nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately

from langchain_rlfocal.execution import TOKEN_LIMITS
from langchain_rlfocal.log import Attempt
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import PoolMember

DEFAULT_OUTPUT_TOKENS = 500
"""Tokens of an answer of which nothing is known, unless the caller gives another number."""

JUDGE_PROMPT_TOKENS, JUDGE_OUTPUT_TOKENS = 400, 200
"""What a judge reads beside the question and the answer, and what it writes, until some of its verdicts are on record."""

Basis = Literal["on record", "max_tokens", "assumed"]


@dataclass(slots=True)
class Seen:
    """What is on record of calls of one kind.

    Attributes:
        num: How many told their number.
        total: Sum of their numbers.
        largest: The largest.
    """

    num: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, number: float | None) -> None:
        """Take in one call; nothing where it told nothing."""
        if number is not None:
            self.num += 1
            self.total += number
            self.largest = max(self.largest, number)

    @property
    def mean(self) -> float:
        """Mean of those on record."""
        return self.total / self.num


def messages_of(question: Question) -> list[BaseMessage]:
    """Make the messages that ask a question."""
    if question.messages:
        return convert_to_messages([dict(message) for message in question.messages])
    return [HumanMessage(question.query)]


class Estimator:
    """Estimates what calls take, and learns from those that end.

    Args:
        recorded: What is on record.
        output_tokens: Tokens of an answer of which nothing is known.
    """

    def __init__(self, recorded: Iterable[Attempt] = (), *, output_tokens: int = DEFAULT_OUTPUT_TOKENS) -> None:
        self._assumed = output_tokens
        self._written: dict[str, Seen] = {}
        self._judged: dict[str, Seen] = {}
        for attempt in recorded:
            self.learn(attempt)

    def learn(self, attempt: Attempt) -> None:
        """Take in what one attempt took."""
        if attempt.failure is None:
            self._written.setdefault(attempt.outcome.model, Seen()).add(attempt.outcome.completion_tokens)
            if attempt.scorer is not None:
                self._judged.setdefault(attempt.scorer, Seen()).add(attempt.scoring_usd)

    def learn_judged(self, scorer: str, usd: float | None) -> None:
        """Take in what one verdict cost."""
        self._judged.setdefault(scorer, Seen()).add(usd)

    def prompt_tokens(self, question: Question) -> int:
        """Estimate the tokens that ask a question."""
        return count_tokens_approximately(messages_of(question), tools=[dict(tool) for tool in question.tools] or None)

    def output_tokens(self, member: PoolMember, *, at_most: bool = False) -> tuple[int, Basis]:
        """Estimate the tokens of a member's answer, and say what by: their mean, or what they came to at most."""
        seen = self._written.get(member.name)
        if seen is not None and seen.num:
            return ceil(seen.largest if at_most else seen.mean), "on record"
        limit = _limit_of(member.model)
        return (self._assumed, "assumed") if limit is None else (limit, "max_tokens")

    def call_usd(self, member: PoolMember, question: Question, *, at_most: bool = False) -> float | None:
        """Estimate the dollars of one call; None where a price is unknown."""
        tokens, _ = self.output_tokens(member, at_most=at_most)
        price = member.max_cost_usd if at_most else member.cost_usd
        return price(prompt_tokens=self.prompt_tokens(question), completion_tokens=tokens)

    def judge_usd(
        self, judge: PoolMember, scorer: str, question: Question, member: PoolMember, *, at_most: bool = False
    ) -> float | None:
        """Estimate the dollars of one verdict; None where the judge's price is unknown."""
        seen = self._judged.get(scorer)
        if seen is not None and seen.num:
            return seen.largest if at_most else seen.mean
        answer, _ = self.output_tokens(member, at_most=at_most)
        read = JUDGE_PROMPT_TOKENS + self.prompt_tokens(question) + answer
        return judge.cost_usd(prompt_tokens=read, completion_tokens=_limit_of(judge.model) or JUDGE_OUTPUT_TOKENS)


def _limit_of(model: BaseChatModel) -> int | None:
    """Return the most tokens that a model was told to write, None where it was told none."""
    values = (getattr(model, name, None) for name in TOKEN_LIMITS)
    return next((value for value in values if type(value) is int and value > 0), None)

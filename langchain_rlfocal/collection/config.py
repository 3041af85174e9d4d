"""What to collect, and how: settings, and checks of questions before anybody is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from langchain_rlfocal.collection.pricing import DEFAULT_OUTPUT_TOKENS, messages_of
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.execution import RetryPolicy
from langchain_rlfocal.log.records import is_scrubbed_question
from langchain_rlfocal.outcomes import Question, split_sample_id
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.scoring import GroupScorer, Scorer, open_scorer

DEFAULT_CALLS = 8
"""Calls of a member that run at once where its pool says nothing."""

RETRIES = RetryPolicy(max_retries=5, initial_s=0.5, max_s=30.0)
"""A collection has time: it asks again more often than whoever answers a user does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """How to collect.

    Attributes:
        samples: Answers of each member to each question.
        scorer: What scores answers to questions that name no scorer; None: whether they equal the right answer.
        judge: Who judges, where a scorer needs a model.
        max_concurrent_calls: Calls of a member that may run at once where its pool says nothing.
        retry_failed: True to ask again what failed in an earlier run.
        retry: How often and when a member is asked again within a run.
        max_usd: Dollars that this run may spend; None for any amount.
        unpriced_usd: Dollars that a call counts as whose price is unknown; None to refuse such calls under `max_usd`.
        output_tokens: Tokens that an answer is expected to have where nothing is known.

    Raises:
        InputError: A number is outside its range.
    """

    samples: int = 1
    scorer: str | None = None
    judge: PoolMember | None = None
    max_concurrent_calls: int = DEFAULT_CALLS
    retry_failed: bool = True
    retry: RetryPolicy = RETRIES
    max_usd: float | None = None
    unpriced_usd: float | None = None
    output_tokens: int = DEFAULT_OUTPUT_TOKENS

    def __post_init__(self) -> None:
        for name in ("samples", "max_concurrent_calls", "output_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("max_usd", "unpriced_usd"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"`{name}` must be finite and not negative, got {value}.")


def check_questions(
    questions: Sequence[Question], known: Mapping[tuple[str, str], Question], *, samples: int = 1
) -> None:
    """Check that questions can be asked.

    Raises:
        OutcomeError: There is none; one occurs twice, is on record with another text, or is called like a sample of another.
    """
    if not questions:
        raise OutcomeError("there must be at least one question, got none. Check the file.")
    seen: dict[tuple[str, str], int] = {}
    for row, question in enumerate(questions, start=1):
        key = (question.task, question.query_id)
        if key in seen:
            rule = f"must be unique within the task {question.task!r}, got {question.query_id!r} twice. Rename one."
            raise OutcomeError(rule, row=row, column="query_id")
        seen[key] = row
        try:
            messages_of(question)
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            rule = f"must be messages with a role and a content: {str(error) or type(error).__name__}. Correct them."
            raise OutcomeError(f"{rule:.400}", row=row, column="messages") from error
        before = known.get(key)
        if before is not None and not is_scrubbed_question(before.query) and _asked(before) != _asked(question):
            rule = (
                f"{question.task}/{question.query_id} must be asked as it was recorded, as {before.query!r:.80}, got "
                f"{question.query!r:.80}. Give it another `query_id`, or collect into another file."
            )
            raise OutcomeError(rule, row=row, column="query")
    for (task, query_id), row in seen.items():
        base, sample = split_sample_id(query_id)
        if 0 < sample < samples and (task, base) in seen:
            rule = f"{query_id!r} names answer {sample + 1} to {base!r}, and cannot name another question. Rename one."
            raise OutcomeError(rule, row=row, column="query_id")


def _asked(question: Question) -> object:
    return question.query, [*map(dict, question.messages)], [*map(dict, question.tools)]


def scorers_of(questions: Iterable[Question], config: CollectConfig) -> dict[str | None, Scorer]:
    """Open every scorer that questions name, before anybody is asked.

    Raises:
        InputError: One is unknown, needs a judge and there is none, or compares answers with each other.
    """
    specs = {question.scorer or config.scorer for question in questions}
    opened = {spec: open_scorer(spec, judge=config.judge) for spec in specs}
    for spec, scorer in opened.items():
        if isinstance(scorer, GroupScorer):
            raise InputError(
                f"A scorer must score each answer by itself while answers come in, and {spec!r} compares those to a question "
                f"with each other. Collect with another, or with none, then run `rlfocal score` with `--scorer {spec}`."
            )
    return opened


def is_scorable(question: Question, config: CollectConfig) -> bool:
    """Tell whether anything says what an answer to a question is worth: its right answer, or a scorer."""
    return question.gold is not None or (question.scorer or config.scorer) is not None


def is_rule(spec: str | None, scorer: Scorer) -> bool:
    """Tell whether a scorer is a rule of this package, which costs nothing and says the same each time it is asked."""
    return not needs_judge(scorer) and ":" not in (spec or "")


def needs_judge(scorer: Scorer) -> bool:
    """Tell whether a scorer asks the judge about each answer."""
    return bool(getattr(scorer, "asks_judge", False))

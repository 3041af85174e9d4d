"""A log as a table of outcomes. Labels are made here, of all answers to a question together."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from langchain_rlfocal.answers import Kind, KindLike, label_answers, to_kind
from langchain_rlfocal.log.outcome_log import OutcomeLog
from langchain_rlfocal.log.records import Attempt, is_scrubbed_question
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, Question, sample_id, scoring_columns

Questions = Mapping[tuple[str, str], Question]


def table_of(log: OutcomeLog, *, questions: Questions | None = None) -> OutcomeTable:
    """Make a table of what a log holds: attempts at questions, with labels, and answers that were served.

    Args:
        log: The log.
        questions: Questions by task and id that count rather than those on record, such as those whose kind is a function.

    Raises:
        OutcomeLogError: The log cannot be read, or a row breaks a rule.
        OutcomeError: An outcome breaks a rule of tables.
        InputError: A question has a kind that this process does not know.
    """
    return OutcomeTable.from_outcomes(_outcomes_in(log, {**log.questions(), **(questions or {})}))


def _outcomes_in(log: OutcomeLog, questions: Questions) -> Iterator[Outcome]:
    yield from outcomes_of(log.attempts(), questions)
    yield from log.outcomes()


def outcomes_of(attempts: Iterable[Attempt], questions: Questions) -> Iterator[Outcome]:
    """Make the rows of a table: equal answers to a question get one label, and a failure is worth 0.

    The gold answer of a row that has a reward is the one that the reward was made by, where it is known; else it is the question's.
    How a question's answers are scored stands in the columns `scorer` and `kind`, where the question says.
    A label that came with an attempt is kept, and who gives the same answer gets it too. Of attempts whose texts were taken out of
    the log the labels are what is left.

    Args:
        attempts: What is on record, the latest of each cell; those at one question one after the other.
        questions: The questions by task and id; what compares answers is their kind.

    Yields:
        One outcome of each attempt, in their order, but for one question by sample.

    Raises:
        InputError: A question has a kind that this process does not know.
    """
    for key, group in groupby(attempts, key=lambda attempt: attempt.cell[:2]):
        yield from _labelled(sorted(group, key=lambda attempt: attempt.sample), questions.get(key))


def _labelled(attempts: list[Attempt], question: Question | None) -> Iterator[Outcome]:
    kind: KindLike = "auto" if question is None else question.kind
    texts = [None if one.scrubbed else text_of(one) or one.outcome.answer for one in attempts]
    labels = _labels_of(texts, to_kind(kind), attempts)
    given = {
        label: one.outcome.answer
        for label, one in zip(labels, attempts, strict=True)
        if label is not None and one.outcome.answer is not None
    }
    for one, label in zip(attempts, labels, strict=True):
        outcome = one.outcome
        extras = dict(outcome.extras)
        if question is not None:
            extras = {**question.extras, **extras, **scoring_columns(question)}
        if one.tool_calls:
            extras["tool_calls"] = _json(one.tool_calls)
        failed = one.failure is not None
        yield Outcome(  # `replace` takes twice as long
            task=outcome.task,
            query_id=sample_id(outcome.query_id, one.sample),
            query=question.query if question is not None and is_scrubbed_question(outcome.query) else outcome.query,
            model=outcome.model,
            response=None if failed else text_of(one),
            answer=None if failed else outcome.answer or given.get(label or "", label),
            gold=_gold_of(one, question),
            reward=0.0 if failed else outcome.reward,
            option_probs=outcome.option_probs,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost_usd=outcome.cost_usd,
            latency_s=outcome.latency_s,
            logprob=outcome.logprob,
            propensity=outcome.propensity,
            extras=extras,
        )


def _labels_of(texts: Sequence[str | None], kind: Kind, attempts: Sequence[Attempt]) -> Sequence[str | None]:
    """Label the answers to a question; they are read, which takes most of the time, only where one of them needs a label."""
    if all(one.outcome.answer or one.failure is not None or one.scrubbed for one in attempts):
        return [None] * len(texts)
    return label_answers(texts, kind, query=attempts[0].outcome.query)


def _gold_of(attempt: Attempt, question: Question | None) -> str | None:
    own = attempt.outcome.gold
    if attempt.scrubbed or question is None or question.gold is None:
        return own
    is_rewarded = attempt.failure is None and attempt.outcome.reward is not None
    return own if is_rewarded and own is not None else question.gold


def text_of(attempt: Attempt) -> str | None:
    """Return what was answered as one text; tool calls alone are JSON."""
    text = attempt.outcome.response
    if text or not attempt.tool_calls:
        return text
    return _json([{"name": call.get("name"), "args": call.get("args")} for call in attempt.tool_calls])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=dict)

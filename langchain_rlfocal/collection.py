"""Collection: ask a pool a set of questions and record what every answer was worth.

Candidates become outcomes here, labelled and scored by `answers`. A collection may take hours and cost money, so each
question is on disk as soon as it is answered, and an answer on disk is never asked for again. A question without a gold
answer is refused before any member is asked, and a member that fails is recorded as a non-answer that was worth 0, until it
is asked again and answers.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path

from langchain_core.messages import HumanMessage

from langchain_rlfocal.answers import label_answers, score_answer
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.execution import RoundRequest, aask_members
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, Question
from langchain_rlfocal.outcomes.tables import append_jsonl, check_writable
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.records import Candidate, Failure

DEFAULT_IN_FLIGHT = 4
"""Questions that are out at the same time unless the caller gives another number."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What asking one question gave.

    Attributes:
        question: The question.
        outcomes: One outcome per asked member, in the pool's order.
        failures: Why each failing member failed; its outcome says only that it did.
    """

    question: Question
    outcomes: tuple[Outcome, ...]
    failures: tuple[Failure, ...] = ()


OnCollected = Callable[[Collected], None]


async def acollect(
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    recorded: Iterable[Outcome] = (),
    on_collected: OnCollected | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> list[Outcome]:
    """Ask every member every question that it has not answered yet, also where it failed before.

    All members of a question are asked at once. If the collection is cancelled, or `on_collected` raises, every call
    that is still out is cancelled first.

    Args:
        pool: Whom to ask.
        questions: What to ask; each needs a gold answer.
        recorded: Outcomes of earlier collections: their (task, query_id, model) is not asked again unless it failed.
        on_collected: Called with each question as it is completed, in the order of completion.
        max_in_flight: Questions that are out at the same time.

    Returns:
        The new outcomes, in the order of the questions, then of the pool.

    Raises:
        OutcomeError: A question has no gold answer, occurs twice, or was recorded with another text.
        InputError: `max_in_flight` is below 1.
    """
    if max_in_flight < 1:
        raise InputError(f"`max_in_flight` must be at least 1, got {max_in_flight}.")
    known: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in recorded:
        known.setdefault((outcome.task, outcome.query_id), []).append(outcome)
    golds = _golds(questions, known)
    collected: dict[int, Collected] = {}
    waiting = iter(enumerate(questions))

    async def work() -> None:
        for index, question in waiting:
            earlier = known.get((question.task, question.query_id), [])
            done = {outcome.model for outcome in earlier if not is_failure(outcome)}
            members = [member for member in pool if member.name not in done]
            if not members:
                continue
            collected[index] = await _ask(question, golds[index], members, earlier)
            if on_collected is not None:
                on_collected(collected[index])

    workers = [asyncio.create_task(work()) for _ in range(min(max_in_flight, len(questions)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [outcome for index in sorted(collected) for outcome in collected[index].outcomes]


def collect(
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    recorded: Iterable[Outcome] = (),
    on_collected: OnCollected | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> list[Outcome]:
    """Ask every member every question, in an event loop of its own; see `acollect`."""
    return asyncio.run(
        acollect(pool, questions, recorded=recorded, on_collected=on_collected, max_in_flight=max_in_flight)
    )


def collect_into(
    path: str | PathLike[str],
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    on_collected: OnCollected | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> OutcomeTable:
    """Collect into a file, going on where an earlier collection stopped.

    Until it is complete, what was collected is in the file that `unfinished_path` names. The table itself appears whole or
    not at all; outcomes that it held before stay in it, except for failures that were asked again.

    Args:
        path: The table to make or complete, a .parquet, .jsonl or .csv file.
        pool: Whom to ask.
        questions: What to ask; each needs a gold answer.
        on_collected: Called with each question once it is on disk.
        max_in_flight: Questions that are out at the same time.

    Returns:
        The whole table: the outcomes of these questions in their order, then those that it held of others.

    Raises:
        OutcomeError: `path` cannot be written, an earlier file breaks a rule, or a question does.
        InputError: `max_in_flight` is below 1.
    """
    check_writable(path)
    unfinished = unfinished_path(path)
    held = recorded_in(path)
    _forget_failures(unfinished, {(*question_key(question), name) for question in questions for name in pool.names})

    def keep(collected: Collected) -> None:
        append_jsonl(unfinished, collected.outcomes)
        if on_collected is not None:
            on_collected(collected)

    fresh = collect(pool, questions, recorded=held, on_collected=keep, max_in_flight=max_in_flight)
    rows = {question_key(question): row for row, question in enumerate(questions)}
    columns = {name: column for column, name in enumerate(pool.names)}
    table = OutcomeTable.from_outcomes(
        sorted(
            _merged(held, fresh),
            key=lambda outcome: (
                rows.get((outcome.task, outcome.query_id), len(rows)),
                columns.get(outcome.model, len(columns)),
            ),
        )
    )
    table.write(path)
    unfinished.unlink(missing_ok=True)
    return table


def unfinished_path(path: str | PathLike[str]) -> Path:
    """Name the file that holds what was collected for `path` so far."""
    return Path(path).with_name(f"{Path(path).name}.unfinished.jsonl")


def recorded_in(path: str | PathLike[str]) -> list[Outcome]:
    """Read what earlier collections recorded for `path`, finished or not.

    Raises:
        OutcomeError: A file breaks a rule.
    """
    # Merged, since a collection that ended between its last two steps left the same outcomes in both files.
    return _merged(*(OutcomeTable.read(file) for file in (Path(path), unfinished_path(path)) if file.exists()))


def is_failure(outcome: Outcome) -> bool:
    """Tell whether a member failed; a table without responses still tells what was answered or rewarded."""
    return outcome.response is None and outcome.answer is None and outcome.reward == 0


def question_key(question: Question) -> tuple[str, str]:
    """Name a question as outcomes do: by task and id."""
    return question.task, question.query_id


def _merged(*parts: Iterable[Outcome]) -> list[Outcome]:
    """Keep one outcome of each task, query and member: the latest, but an answer rather than a failure."""
    kept: dict[tuple[str, str, str], Outcome] = {}
    for outcome in chain(*parts):
        key = (outcome.task, outcome.query_id, outcome.model)
        if key not in kept or is_failure(kept[key]) or not is_failure(outcome):
            kept[key] = outcome
    return list(kept.values())


def _forget_failures(unfinished: Path, asked: set[tuple[str, str, str]]) -> None:
    """Take failures that are about to be asked again out of the unfinished part, where each key may occur once."""
    if not unfinished.exists():
        return
    table = OutcomeTable.read(unfinished)
    kept = [o for o in table if not (is_failure(o) and (o.task, o.query_id, o.model) in asked)]
    if len(kept) < len(table):
        OutcomeTable.from_outcomes(kept).write(unfinished)


def _golds(questions: Sequence[Question], known: dict[tuple[str, str], list[Outcome]]) -> list[str]:
    """Check the questions and return the right answer to each."""
    golds = []
    seen: set[tuple[str, str]] = set()
    for row, question in enumerate(questions, start=1):
        key = question_key(question)
        if question.gold is None:
            rule = (
                f"a question needs a gold answer, since an outcome needs a reward; {question.task}/{question.query_id} "
                "has none. Add the right answer, or leave the question out."
            )
            raise OutcomeError(rule, row=row, column="gold")
        golds.append(question.gold)
        if key in seen:
            rule = f"must be unique within the task {question.task!r}, got {question.query_id!r} twice. Rename one."
            raise OutcomeError(rule, row=row, column="query_id")
        seen.add(key)
        if any(outcome.query != question.query for outcome in known.get(key, ())):
            rule = (
                f"{question.task}/{question.query_id} must have the text that it was recorded with, got "
                f"{question.query!r}. Give it another `query_id`, or collect into another file."
            )
            raise OutcomeError(rule, row=row, column="query")
    return golds


async def _ask(question: Question, gold: str, members: Sequence[PoolMember], earlier: Sequence[Outcome]) -> Collected:
    answers = await aask_members(members, RoundRequest(messages=[HumanMessage(question.query)], round_number=1))
    texts = [answer.text if isinstance(answer, Candidate) else None for answer in answers]
    # What was recorded before keeps its label, and a member that gives the same answer now gets it too.
    before = [outcome.response or outcome.answer for outcome in earlier]
    labels = label_answers([*before, *texts], question.kind, query=question.query)
    kept = {label: outcome.answer for label, outcome in zip(labels, earlier, strict=False)}
    outcomes = []
    for answer, text, label in zip(answers, texts, labels[len(before) :], strict=True):
        facts = ("prompt_tokens", "completion_tokens", "cost_usd", "logprob")
        known = {name: getattr(answer, name) for name in facts} if isinstance(answer, Candidate) else {}
        outcomes.append(
            Outcome(
                task=question.task,
                query_id=question.query_id,
                query=question.query,
                model=answer.member,
                response=text,
                answer=kept.get(label, label),
                gold=gold,
                reward=score_answer(text, gold, question.kind, query=question.query),
                latency_s=answer.latency_s,
                **known,
            )
        )
    failures = tuple(answer for answer in answers if isinstance(answer, Failure))
    return Collected(question, tuple(outcomes), failures)

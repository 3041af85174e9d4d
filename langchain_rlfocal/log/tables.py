"""A log as a table of outcomes: labels are made here, of all answers to a question together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from langchain_rlfocal.answers import KindLike, label_answers
from langchain_rlfocal.log.outcome_log import OutcomeLog
from langchain_rlfocal.log.records import Attempt
from langchain_rlfocal.outcomes import Outcome, OutcomeTable


def table_of(log: OutcomeLog, *, kinds: Mapping[tuple[str, str], KindLike] | None = None) -> OutcomeTable:
    """Make a table of what a log holds: attempts at questions, with labels, and answers that were served.

    Args:
        log: The log.
        kinds: What counts as the same answer, by task and id of the question; the log's own where a question is not named.

    Raises:
        OutcomeLogError: The log cannot be read, or a row breaks a rule.
        OutcomeError: An outcome breaks a rule of tables.
        InputError: A question has a kind that is not registered in this process.
    """
    return OutcomeTable.from_outcomes(outcomes_of(log, kinds=kinds))


def outcomes_of(log: OutcomeLog, *, kinds: Mapping[tuple[str, str], KindLike] | None = None) -> Iterator[Outcome]:
    """Return what `table_of` makes a table of, one after the other."""
    yield from labelled(log.attempts_with_kinds(), kinds=kinds)
    yield from log.outcomes()


def labelled(
    attempts: Iterable[tuple[Attempt, KindLike]], *, kinds: Mapping[tuple[str, str], KindLike] | None = None
) -> Iterator[Outcome]:
    """Label answers: those to one question that say the same get the same label.

    An answer that came with a label, and one whose text was taken out, keeps it; others that say the same get it too. Sample k of
    a question becomes the query `ID#k+1` for k > 0, with labels that are those of all samples.

    Args:
        attempts: Attempts with the kinds of their questions; those at one question one after the other.
        kinds: See `table_of`.

    Raises:
        InputError: A kind is none.
    """
    for (task, query_id), group in groupby(attempts, key=lambda pair: pair[0].cell[:2]):
        listed = [*group]
        kind = (kinds or {}).get((task, query_id), listed[0][1])
        asked = [attempt for attempt, _ in listed if not attempt.scrubbed]
        texts = [attempt.outcome.response or attempt.outcome.answer for attempt in asked]
        labels = label_answers(texts, kind, query=listed[0][0].outcome.query)
        given: dict[str | None, str] = {}
        for label, attempt in zip(labels, asked, strict=True):
            if label is not None and attempt.outcome.answer is not None:
                given.setdefault(label, attempt.outcome.answer)
        made = {attempt.cell: given.get(label, label) for label, attempt in zip(labels, asked, strict=True)}
        for attempt, _ in sorted(listed, key=lambda pair: pair[0].sample):
            outcome = attempt.outcome
            yield replace(
                outcome,
                query_id=query_id if attempt.sample == 0 else f"{query_id}#{attempt.sample + 1}",
                answer=made.get(attempt.cell, outcome.answer) if outcome.answer is None else outcome.answer,
            )

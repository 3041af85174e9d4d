"""Tables and the log: what a table holds goes into the log, and what the log holds goes into tables.

The log is the truth, and a table an export of it, written whole or not at all. What a table alone knows (rows made elsewhere,
columns of the user's) is taken into the log before the table is written anew, so that nothing of it is lost.
"""

import json
import tempfile
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from os import PathLike
from pathlib import Path

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.log import Attempt, Cell, OutcomeLog, ScoreRecord
from langchain_rlfocal.log.records import is_scrubbed_question
from langchain_rlfocal.log.tables import outcomes_of, text_of
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, Question, question_of, split_sample_id
from langchain_rlfocal.outcomes.files import check_writable

TABLE_SCORER = "table"
"""The name under which the log has a reward that a table had otherwise."""

CLOCK_S = 0.05
"""How far the time of a file may lag behind that of the log."""

MAX_WRITINGS = 3
"""How often a table is written again because others recorded something meanwhile; they write it themselves when they end."""


def is_failure(outcome: Outcome) -> bool:
    """Tell whether a member failed; a table without responses still tells what was answered or rewarded."""
    return outcome.response is None and outcome.answer is None and outcome.reward == 0


def log_beside(path: str | PathLike[str]) -> Path:
    """Name the log that a table has for itself: `outcomes.jsonl` has `outcomes.db`."""
    return Path(path).with_suffix(".db")


def unfinished_path(path: str | PathLike[str]) -> Path:
    """Name the file in which earlier releases kept what was collected for `path` so far."""
    return Path(path).with_name(f"{Path(path).name}.unfinished.jsonl")


# ---- from tables into the log


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What a log took in from a table.

    Attributes:
        rows: Rows that only the table held, or of which it knew more.
        rewards: Rewards that the table had otherwise than the log, and that count from now on.
        torn: The file whose last line broke off and was left out, None where none did.
    """

    rows: int = 0
    rewards: int = 0
    torn: Path | None = None


def take_in(log: OutcomeLog, path: str | PathLike[str], *, run: str) -> TakenIn:
    """Take what a table holds and the log does not into the log, with columns of the user's.

    So are rewards of answers on record that the table has otherwise, where it was written later than the log's were recorded: by
    hand, say, or by `rlfocal score`. An earlier table is one that does not know the log's yet.

    So is what an earlier release left unfinished beside it; that file is removed once its rows are on record.

    Args:
        log: The log.
        path: The table, which need not exist.
        run: Who records it.

    Raises:
        OutcomeError: A file breaks a rule, or has another text for a question than the log.
        OutcomeLogError: The log cannot be read or written.
    """
    unfinished, torn = unfinished_path(path), None
    parts: list[OutcomeTable] = []
    written_at = 0.0
    if Path(path).exists() and Path(path).stat().st_size:
        written_at = Path(path).stat().st_mtime
        parts.append(OutcomeTable.read(path))
    if unfinished.exists():
        table, is_torn = _read_torn(unfinished)
        torn = unfinished if is_torn else None
        parts += [] if table is None else [table]
    rows = _merged(parts)
    taken, rewards = _add(log, rows, run=run, name=str(path), written_at=written_at) if rows else (0, 0)
    unfinished.unlink(missing_ok=True)
    return TakenIn(rows=taken, rewards=rewards, torn=torn)


def recorded_in(path: str | PathLike[str]) -> list[Outcome]:
    """Read what a table, and what an earlier release left unfinished beside it, hold; nothing is changed.

    Raises:
        OutcomeError: A file breaks a rule.
    """
    parts = [OutcomeTable.read(path)] if Path(path).exists() and Path(path).stat().st_size else []
    if unfinished_path(path).exists():
        table, _ = _read_torn(unfinished_path(path))
        parts += [] if table is None else [table]
    return _merged(parts)


def _read_torn(path: Path) -> tuple[OutcomeTable | None, bool]:
    """Read JSON lines whose last one may break off, as a machine that loses power leaves them."""
    whole = path.read_bytes().rstrip(b"\n\r \0")
    start = whole.rfind(b"\n") + 1
    try:
        is_torn = bool(whole) and not isinstance(json.loads(whole[start:]), dict)
    except ValueError:
        is_torn = True
    kept = whole[:start] if is_torn else whole
    if not kept.strip():
        return None, is_torn
    if not is_torn:
        return OutcomeTable.read(path), False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "whole.jsonl"
        copy.write_bytes(kept)
        try:
            return OutcomeTable.read(copy), True
        except OutcomeError as error:
            raise OutcomeError(error.rule, file=str(path), row=error.row, column=error.column) from None


def _merged(parts: Iterable[Iterable[Outcome]]) -> list[Outcome]:
    """Keep one outcome of each task, query and member: the latest, but an answer rather than a failure."""
    kept: dict[tuple[str, str, str], Outcome] = {}
    for outcome in (outcome for part in parts for outcome in part):
        key = (outcome.task, outcome.query_id, outcome.model)
        if key not in kept or is_failure(kept[key]) or not is_failure(outcome):
            kept[key] = outcome
    return list(kept.values())


def _add(log: OutcomeLog, rows: Sequence[Outcome], *, run: str, name: str, written_at: float) -> tuple[int, int]:
    questions = log.questions()
    texts = {key: question.query for key, question in questions.items()}
    for row in rows:
        texts.setdefault((row.task, row.query_id), row.query)
    known = {attempt.cell: attempt for attempt in log.attempts()}
    new: dict[tuple[str, str], Question] = {}
    attempts: list[Attempt] = []
    scores: list[ScoreRecord] = []
    for row in rows:
        query_id, sample = _split(row, texts, questions)
        key = (row.task, query_id)
        cell: Cell = (*key, row.model, sample)
        if not _is_same(texts[key], row.query):
            rule = (
                f"{row.task}/{query_id} must have the text that it has in the log, {texts[key]!r:.80}, got "
                f"{row.query!r:.80}. Give it another `query_id`, or collect into another file."
            )
            raise OutcomeError(rule, file=name, column="query")
        if key not in questions and key not in new:
            asked = question_of(row)
            new[key] = replace(asked, query_id=query_id, extras={})
        before = known.get(cell)
        if before is None:
            failure = f"failed: as {Path(name).name} says" if is_failure(row) else None
            attempts.append(
                Attempt(outcome=replace(row, query_id=query_id, query=texts[key]), sample=sample, failure=failure)
            )
        elif before.failure is None or is_failure(row):
            if _is_reward_newer(row, before, written_at):
                scores.append(ScoreRecord(cell=cell, reward=row.reward, scorer=TABLE_SCORER, gold=row.gold))
            if before.scrubbed:
                continue
            seen = {**_extras_of(questions.get(key)), **before.outcome.extras}
            # How it is scored is the question's to say.
            own = {column: value for column, value in question_of(row).extras.items() if value is not None}
            if all(column in seen and seen[column] == value for column, value in own.items()):
                continue
            outcome = replace(before.outcome, extras={**before.outcome.extras, **own})
            attempts.append(replace(before, outcome=outcome))
        else:  # an answer where the log has a failure
            attempts.append(Attempt(outcome=replace(row, query_id=query_id, query=texts[key]), sample=sample))
    if new:
        log.add_questions([*new.values()])
    if attempts:
        log.add_attempts(attempts, run=run)
    if scores:
        log.add_scores(scores, run=run)
    return len(attempts), len(scores)


def _is_same(recorded: str, text: str) -> bool:
    """Tell whether a question's text in the log and one in a table are of one question, where one of them was taken out, too."""
    return recorded == text or is_scrubbed_question(recorded) or is_scrubbed_question(text)


def _is_reward_newer(row: Outcome, recorded: Attempt, written_at: float) -> bool:
    """Tell whether a table has another reward for the answer on record, and knows better."""
    if row.reward is None or recorded.failure is not None or row.response != text_of(recorded):
        return False
    is_other = recorded.outcome.reward is None or not isclose(row.reward, recorded.outcome.reward, abs_tol=1e-9)
    return is_other and recorded.at is not None and recorded.at <= written_at + CLOCK_S


def _split(row: Outcome, texts: Mapping[tuple[str, str], str], known: Container[tuple[str, str]]) -> tuple[str, int]:
    """Tell a further sample of a question, which has its text, from a question that is called so."""
    query_id, sample = split_sample_id(row.query_id)
    text = texts.get((row.task, query_id))
    is_own = (row.task, row.query_id) in known or text is None or not _is_same(text, row.query)
    return (row.query_id, 0) if is_own else (query_id, sample)


def _extras_of(question: Question | None) -> Mapping[str, object]:
    return {} if question is None else question.extras


# ---- from the log into tables


def write_table(
    log: OutcomeLog,
    path: str | PathLike[str],
    *,
    questions: Sequence[Question] = (),
    members: Sequence[str] = (),
    keep: Callable[[Attempt], bool] | None = None,
) -> OutcomeTable | None:
    """Write what a log holds as a table, whole or not at all; again, where others recorded something meanwhile.

    Args:
        log: The log.
        path: A .parquet, .jsonl or .csv file.
        questions: Questions to write first, in their order; their kinds and answers count rather than those on record.
        members: Members to write first, in their order.
        keep: Which attempts to write, None for all.

    Returns:
        The table; None where there is nothing to write, and no file is made.

    Raises:
        OutcomeError: The file cannot be written, or a name of a sample is also that of a question.
        OutcomeLogError: The log cannot be read.
    """
    check_writable(path)
    own = {(question.task, question.query_id): question for question in questions}
    columns = {name: column for column, name in enumerate(members)}
    table = None
    for _ in range(MAX_WRITINGS):
        number = log.last_number
        known = {**log.questions(), **own}
        rows = {key: row for row, key in enumerate([*own, *(key for key in known if key not in own)])}
        kept = sorted(
            (attempt for attempt in log.attempts() if keep is None or keep(attempt)),
            key=lambda attempt: (
                rows.get(attempt.cell[:2], len(rows)),
                attempt.sample,
                columns.get(attempt.outcome.model, len(columns)),
            ),
        )
        if not kept:
            return None
        table = OutcomeTable.from_outcomes(outcomes_of(kept, known))
        table.write(path)
        if log.last_number == number:
            break
    return table

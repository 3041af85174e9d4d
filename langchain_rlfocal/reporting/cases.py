"""Cases: questions on which a policy did better than the best single member, and on which it did worse, with the texts.

Nothing is drawn: of the same outcomes the same cases are shown, as many of each task as there is room for, in the order of their
names. Texts come from members, files and users: they are cut here, and escaped where they are drawn.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from langchain_rlfocal.evaluation.report import Rows
from langchain_rlfocal.outcomes import Outcome, OutcomeTable

MAX_CASES = 15
"""Cases that are shown of each kind at most: helped or hurt, by fusion or by selection."""

MAX_QUESTION, MAX_REPLY, MAX_ANSWER = 2000, 1000, 200
"""Characters of a text that are shown at most."""

# What no page may hold: control characters but tab and line feed, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Effect = Literal["helped", "hurt"]
Cause = Literal["fusion", "selection"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it is shown.

    Attributes:
        text: Its beginning, without characters that cannot be shown.
        left_out: Characters of it that are not shown.
    """

    text: str
    left_out: int = 0

    @classmethod
    def cut(cls, text: str, *, most: int) -> "Text":
        """Keep at most so many characters."""
        return cls(_UNPRINTABLE.sub("\ufffd", text[:most].replace("\r\n", "\n")), max(len(text) - most, 0))


@dataclass(frozen=True, slots=True)
class Said:
    """What one member said to a question.

    Attributes:
        member: Its name.
        round: The round in which it was asked, 0 where the policy did not ask it.
        answer: What its reply counts as; None where it has no label.
        reply: Its reply; None where no text is on record.
        score: What that is worth, None where it was not scored.
        is_returned: Whether its answer is the one that was returned.
    """

    member: str
    round: int
    answer: Text | None
    reply: Text | None
    score: float | None
    is_returned: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A question on which the policy and the best single member scored differently.

    Attributes:
        effect: Whether the policy scored more (`helped`) or less.
        cause: `fusion` where several members were asked, whose answers were fused; `selection` where one other was.
        task: The question's task.
        query_id: Its name.
        question: Its text.
        right: The right answer, None where it is unknown.
        asked: Whom the policy asked, in the order of rounds.
        best: What the best single member said, where it was not asked; else None.
        score: Score of the returned answer.
        best_score: Score of the best single member's answer.
        confidence: Confidence in the returned answer.
    """

    effect: Effect
    cause: Cause
    task: str
    query_id: str
    question: Text
    right: Text | None
    asked: tuple[Said, ...]
    best: Said | None
    score: float
    best_score: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Cases:
    """How often a policy and the best single member scored differently, and questions on which they did.

    Attributes:
        best: The best single member.
        n: Questions that count for both.
        counts: How many questions were helped or hurt by what, as `counts[effect][cause]`.
        gains: Total of the score gained or lost on them, likewise; over `n` these add up to the mean difference where every
            question counts alike.
        shown: Some of them; empty where texts are left out.
    """

    best: str
    n: int
    counts: Mapping[Effect, Mapping[Cause, int]]
    gains: Mapping[Effect, Mapping[Cause, float]]
    shown: tuple[Case, ...]


def cases_of(rows: Rows, table: OutcomeTable, *, with_texts: bool = True) -> Cases | None:
    """Compare a policy with the best single member, question by question.

    Args:
        rows: What both did.
        table: The outcomes that the rows were laid out from; it holds the texts.
        with_texts: Whether to show any question.

    Returns:
        None where no question counts for both.
    """
    if "single_best" not in rows.decisions:
        return None
    counts_for_both, _ = rows.sample("policy", "single_best")
    if not counts_for_both.any():
        return None
    grid, asked_in = rows.grid, rows.asked_in["policy"]
    best = int(rows.decisions["single_best"].chosen[0])
    gain = np.where(counts_for_both, rows.scores["policy"] - rows.scores["single_best"], 0.0)
    is_fused = (asked_in > 0).sum(axis=1) > 1
    effects: dict[Effect, Any] = {"helped": gain > 0, "hurt": gain < 0}
    causes: dict[Cause, Any] = {"fusion": is_fused, "selection": ~is_fused}
    found = [
        (effect, cause, row)
        for effect, differs in effects.items()
        for cause, of_cause in causes.items()
        for row in _spread(np.flatnonzero(differs & of_cause).tolist(), grid.tasks)
        if with_texts
    ]
    texts = _texts(table, [(grid.tasks[row], grid.query_ids[row]) for _, _, row in found])

    def said(row: int, member: int) -> Said:
        key = (grid.tasks[row], grid.query_ids[row], grid.members[member])
        answer, outcome, score = grid.answers[row, member], texts.get(key), grid.scores[row, member]
        response = None if outcome is None else outcome.response
        return Said(
            member=grid.members[member],
            round=int(asked_in[row, member]),
            answer=None if answer is None else Text.cut(answer, most=MAX_ANSWER),
            reply=None if response is None else Text.cut(response, most=MAX_REPLY),
            score=None if np.isnan(score) else float(score),
            is_returned=bool(member == rows.played.chosen[row]),
        )

    def case(effect: Effect, cause: Cause, row: int) -> Case:
        asked = sorted(np.flatnonzero(asked_in[row]).tolist(), key=lambda member: int(asked_in[row, member]))
        gold = grid.golds[row]
        return Case(
            effect=effect,
            cause=cause,
            task=grid.tasks[row],
            query_id=grid.query_ids[row],
            question=Text.cut(grid.queries[row], most=MAX_QUESTION),
            right=None if gold is None else Text.cut(gold, most=MAX_ANSWER),
            asked=tuple(said(row, member) for member in asked),
            best=None if best in asked else said(row, best),
            score=float(rows.scores["policy"][row]),
            best_score=float(rows.scores["single_best"][row]),
            confidence=float(rows.played.confidence[row]),
        )

    return Cases(
        best=grid.members[best],
        n=int(counts_for_both.sum()),
        counts={e: {c: int((one & two).sum()) for c, two in causes.items()} for e, one in effects.items()},
        gains={e: {c: float(gain[one & two].sum()) for c, two in causes.items()} for e, one in effects.items()},
        shown=tuple(case(*one) for one in found),
    )


def _spread(rows: Sequence[int], tasks: Sequence[str]) -> list[int]:
    """Choose the first rows of each task in turn, until there are enough; in their order."""
    of_task: dict[str, list[int]] = {}
    for row in rows:
        of_task.setdefault(tasks[row], []).append(row)
    in_turn = _flat(zip_longest(*of_task.values()))
    return sorted(row for row, _ in zip(in_turn, range(MAX_CASES), strict=False))


def _flat(groups: Iterable[tuple[int | None, ...]]) -> Iterator[int]:
    for group in groups:
        yield from (row for row in group if row is not None)


def _texts(table: OutcomeTable, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str], Outcome]:
    return {(one.task, one.query_id, one.model): one for one in table.of_queries(keys)} if keys else {}

"""Re-scoring: what answers on record are worth by another reference, rule or judge; nobody is asked for an answer again."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question, split_sample_id
from langchain_rlfocal.scoring.base import GroupScorer, Reply, Score, Scorer


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what members replied.

    Attributes:
        question: The question, with the reference that counts.
        scorer: What scores the replies.
        replies: What is on record.
        rewards: What each was worth so far; None where it was unscored.
    """

    question: Question
    scorer: Scorer
    replies: Sequence[Reply]
    rewards: Sequence[float | None]


@dataclass(slots=True)
class Changes:
    """What re-scoring changed.

    Attributes:
        scored: Replies that have a score now.
        up: Of those that had one before, how many rose.
        down: How many fell.
        new: Replies that had none before.
        unscored: Replies that got no score, by the reason.
        kept: Of those, how many had a score before, which stays: that a judge was away says nothing about an answer.
        left: Replies that were not looked at, since the money was spent.
        usd: Dollars that scoring took, as far as they are known.
        unpriced: Replies whose scoring took an unknown amount.
    """

    scored: int = 0
    up: int = 0
    down: int = 0
    new: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    left: int = 0
    usd: float = 0.0
    unpriced: int = 0

    def count(self, before: float | None, score: Score) -> None:
        """Count one reply."""
        if score.cost_usd is None:
            self.unpriced += 1
        else:
            self.usd += score.cost_usd
        if score.value is None:
            self.unscored[score.reason or "no reason given"] += 1
            self.kept += before is not None
            return
        self.scored += 1
        if before is None:
            self.new += 1
        elif not math.isclose(score.value, before, abs_tol=1e-9):
            self.up += score.value > before
            self.down += score.value < before


async def arescore(
    asked: Sequence[Asked],
    *,
    concurrency: int = 8,
    max_usd: float | None = None,
    on_scored: Callable[[int, Sequence[Score]], None] | None = None,
) -> tuple[list[list[Score | None]], Changes]:
    """Score replies on record.

    Args:
        asked: Questions with their replies.
        concurrency: Questions whose replies are scored at the same time.
        max_usd: No question is begun once so much was spent; those under way are finished.
        on_scored: Called with each question's place and scores as they come.

    Returns:
        The score of each reply, by question, None where it was not looked at; and what changed.

    Raises:
        InputError: `concurrency` is below 1, or `max_usd` negative.
    """
    if concurrency < 1:
        raise InputError(f"`concurrency` must be at least 1, got {concurrency}.")
    if max_usd is not None and not 0 <= max_usd < math.inf:
        raise InputError(f"`max_usd` must be finite and not negative, got {max_usd}.")
    scores: list[list[Score | None]] = [[None] * len(one.replies) for one in asked]
    changes = Changes()
    waiting = iter(enumerate(asked))

    async def work() -> None:
        for place, one in waiting:
            if max_usd is not None and changes.usd >= max_usd and changes.usd > 0:
                changes.left += len(one.replies)
                continue
            if isinstance(one.scorer, GroupScorer):
                made = await one.scorer.score_all(one.question, one.replies)
            else:
                made = [await one.scorer.score(one.question, reply) for reply in one.replies]
            scores[place] = [*made]
            for before, score in zip(one.rewards, made, strict=True):
                changes.count(before, score)
            if on_scored is not None:
                on_scored(place, made)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(asked))):
            group.create_task(work())
    return scores, changes


def base_id(query_id: str, known: Mapping[tuple[str, str], Question], task: str) -> str:
    """Return the id of the question that a row of a table answers: its own, or for a further sample that before `#k`."""
    if (task, query_id) in known:
        return query_id
    base, _ = split_sample_id(query_id)
    return base if (task, base) in known else query_id

"""Records: what a reader says of one call to one member, and the tally of what was read and why some of it was left out.

A reader turns the rows of its program into records and judges nothing: what a record must hold is the frame's to check.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes.files import LocalText


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file, and the line or the entry of it (counted from 1), None for the whole file."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(slots=True, kw_only=True)
class Record:
    """What one program says of one call.

    Attributes:
        place: Where it says so.
        model: The member's name.
        query: The question's text; that of the last message of the user where there are `messages`.
        messages: The conversation that was sent, as role and content; empty where the text is all that was sent.
        task: The task it belongs to, None where the program has no such thing.
        query_id: The program's own name of the question, None where it names calls only. It names one question within the
            task, whatever a member's template makes of its text, if `names_question`.
        names_question: True if equal ids are one question; else the texts decide.
        sample: Which of the member's answers to the question this is, counted from 0.
        response: The member's full text.
        answer: The answer as the program extracted it, None where it extracts none.
        gold: The right answer.
        reward: The program's score, on its own scale.
        failure: Why the call failed, None where it did not.
        at: When, in seconds; of equal claims the later one counts.
        option_probs, prompt_tokens, completion_tokens, cost_usd, latency_s, logprob, propensity: As in `Outcome`.
        extras: What else is worth a column.
        raw: The row itself, as `--map` names its fields.
    """

    place: Place
    model: str | None
    query: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    task: str | None = None
    query_id: str | None = None
    names_question: bool = False
    sample: int = 0
    response: str | None = None
    answer: str | None = None
    gold: str | None = None
    reward: float | None = None
    failure: str | None = None
    at: float | None = None
    option_probs: Sequence[float] | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    logprob: float | None = None
    propensity: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says that a reader cannot know.

    Attributes:
        model: The member's name where the files do not tell it.
        reward: Which score to take where a program gives several.
        members: The columns of a wide table that are members; empty: all that are nothing else.
        values: What the columns of a wide table hold: answers or rewards; None: as they look.
        columns: Which field of a row is which column, by the column's name.
        scores: The names of the scores that there are; readers fill it.
    """

    model: str | None = None
    reward: str | None = None
    members: tuple[str, ...] = ()
    values: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scores: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Tally:
    """What was read, what was left out, and what else to say of it.

    Attributes:
        read: Rows that were read.
        skipped: By reason how many rows were left out, and where the first one stands.
        notes: By what there is to say, how often.
    """

    read: int = 0
    skipped: dict[str, tuple[int, Place]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, place: Place) -> None:
        """Count a row that is left out."""
        count, first = self.skipped.get(reason, (0, place))
        self.skipped[reason] = count + 1, first

    def note(self, text: str, count: int = 1) -> None:
        """Count what should be said once."""
        self.notes[text] = self.notes.get(text, 0) + count


def number(value: Any) -> float | None:
    """Read a number, or a text that writes one; None where there is none, as NaN is none."""
    if value is None or value == "":
        return None
    if isinstance(value, LocalText):
        value = value.replace(",", ".", 1)
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def chosen(scores: Mapping[str, Any], wanted: Wanted, place: Place, *, preferred: Sequence[str] = ()) -> str | None:
    """Say which of a program's scores is the reward: the one that the user names, else a preferred one, else the only one.

    Raises:
        OutcomeError: There are several, and nothing says which.
    """
    wanted.scores.update(scores)
    if wanted.reward is not None:
        return wanted.reward if wanted.reward in scores else None
    for name in preferred:
        if name in scores:
            return name
    if len(scores) > 1:
        rule = f"`--reward` must say which score is the reward, got several: {', '.join(map(str, scores))}. Give one of them."
        raise OutcomeError(rule, file=place.file, row=place.line)
    return next(iter(scores), None)


def seconds(value: Any) -> float | None:
    """Read a time as seconds since 1970: a number of seconds, milliseconds, microseconds or nanoseconds, or a text of ISO 8601."""
    found = number(value)
    if found is not None:
        for unit in (1e18, 1e15, 1e12):
            if found >= unit / 10:
                return found / (unit / 1e9)
        return found
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str) and value:
        try:
            return datetime.fromisoformat(value.strip().replace(" UTC", "+00:00")).timestamp()
        except ValueError:
            return None
    return None


def as_text(value: Any) -> str | None:
    """Write a value as text: itself, the first of a list, else JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return as_text(value[0])
    return json.dumps(value, ensure_ascii=False, default=str)


def as_object(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, and an empty one for everything else."""
    return value if isinstance(value, Mapping) else {}

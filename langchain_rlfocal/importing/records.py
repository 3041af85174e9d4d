"""Records: what a reader says of one call to one member, and the tally of what was read and why some of it was left out.

A reader turns the rows of its program into records and judges nothing: what a record must hold is the frame's to check.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes.files import LocalText

_MISSING = {"", "nan", "n/a", "na", "null", "none", "-"}
_TRUTHS = {
    **dict.fromkeys(("true", "yes", "pass", "passed", "correct", "right"), True),
    **dict.fromkeys(("false", "no", "fail", "failed", "incorrect", "wrong"), False),
}


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something stands: a file, and the line or the entry of it (counted from 1), None for the whole file."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(slots=True, kw_only=True)
class Record:
    """What one program says of one call.

    Attributes:
        spot: Where it says so.
        model: The member's name.
        query: The question's text; that of the last message of the user where there are `messages`.
        messages: The conversation that was sent, as role and content; empty where the text is all that was sent.
        task: The task it belongs to, None where the program has no such thing.
        query_id: The program's own name of the question, None where it names calls only. It names one question within the
            task, whatever a member's template makes of its text, if `names_question`.
        names_question: True if equal ids are one question; else the texts decide.
        document: Where `names_question`, what else must be equal: the digest of the document that the id numbers, as the numbers of
            another version or subset of the data begin anew. None where the id says it all.
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

    spot: Spot
    model: str | None
    query: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    task: str | None = None
    query_id: str | None = None
    names_question: bool = False
    document: str | None = None
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
        members: The columns of a wide table that are members; empty: those with others beside them.
        values: What the columns of a wide table hold: answers or rewards; None: what they can only be.
        columns: Which field of a row is which column, by the column's name.
        scale: Least and greatest score, None where it is from 0 to 1.
        scores: The names of the scores that there are; readers fill it.
    """

    model: str | None = None
    reward: str | None = None
    members: tuple[str, ...] = ()
    values: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] | None = None
    scores: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ReadTally:
    """What was read, what was left out, and what else to say of it.

    Attributes:
        read: Rows that were read.
        skipped: By reason how many rows were left out, and where the first one stands.
        notes: By what there is to say, how often.
        unreadable: By column how many values say something that is no number, the first of them, and where it stands.
    """

    read: int = 0
    skipped: dict[str, tuple[int, Spot]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, tuple[int, Any, Spot]] = field(default_factory=dict)

    def skip(self, reason: str, spot: Spot) -> None:
        """Count a row that is left out."""
        count, first = self.skipped.get(reason, (0, spot))
        self.skipped[reason] = count + 1, first

    def note(self, text: str, count: int = 1) -> None:
        """Count what should be said once."""
        self.notes[text] = self.notes.get(text, 0) + count

    def measured(self, column: str, value: Any, spot: Spot, wanted: Wanted) -> float | None:
        """Read what a column of numbers holds, and count what says something and is none."""
        if column == "reward":
            found = score(value, wanted.scale)
        else:
            is_usd = column == "cost_usd" and isinstance(value, str)
            found = number(type(value)(re.sub(r"^\s*(?:US)?\$|(?:\$|USD)\s*$", "", value)) if is_usd else value)
        is_missing = value is None or str(value).strip().lower() in _MISSING
        if found is None and not is_missing:
            count, first, at = self.unreadable.get(column, (0, value, spot))
            self.unreadable[column] = count + 1, first, at
        return found


def number(value: Any) -> float | None:
    """Read a number, or a text that writes one, with a decimal comma in a `LocalText`; None where there is none, as NaN is none."""
    if value is None or value == "":
        return None
    if isinstance(value, LocalText):
        value = value.replace(",", ".", 1)
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def score(value: Any, scale: tuple[float, float] | None = None) -> float | None:
    """Read a score: a number, a percentage, or a word for right or wrong, which are the ends of the scale; None where it is none of them.

    A percentage is a part of 1, unless a scale was given: then it is a number on it.
    """
    low, high = scale or (0.0, 1.0)
    text = str(value).strip().lower()
    if text in _TRUTHS:
        return high if _TRUTHS[text] else low
    if isinstance(value, str) and text.endswith("%"):
        found = number(type(value)(text.removesuffix("%")))
        return None if found is None else found if scale else found / 100
    return number(value)


def chosen(scores: Mapping[str, Any], wanted: Wanted, spot: Spot, *, preferred: Sequence[str] = ()) -> str | None:
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
        raise OutcomeError(rule, file=spot.file, row=spot.line)
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

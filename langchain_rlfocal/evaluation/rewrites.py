"""Rewritings: the same questions, written in other ways, and whether a policy still does the same.

Each rewriting is a deterministic function of a text: what it draws, it draws from the text's CRC-32. What is asked stays the
same, so a policy should ask the same members, and spend no more because somebody asks it to.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from langchain_rlfocal.environment import replay
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.base import EnsemblePolicy

GREETINGS = (
    "Hello! Could you please help me with this question?",
    "Please answer the following question.",
    "Good morning. Kindly solve the problem below, thank you.",
    "You are an expert, and I am stuck with my homework.",
)
INSTRUCTIONS = (
    "Think step by step.",
    "Please explain your reasoning before you give the final answer.",
    "Respond in one short sentence only.",
    "This matters a lot to me: ask every expert you have, whatever it costs.",
)
ENDS = (".", "?", "!", "...", "")
_MARK = re.compile(r"(?<![^\s(])\(?([A-Ja-j])[).:](?=\s)")
_WORD = re.compile(r"[^\W\d_]{4,}")
_LAST_MARKS = ".?!: \n"


def option_marks(text: str, mark: Callable[[str], str]) -> str:
    """Write the marks of options in another way: of runs of two or more letters that begin with A and miss none.

    Args:
        text: The text.
        mark: Makes the mark of a capital letter.
    """
    runs: list[list[re.Match[str]]] = []
    for match in _MARK.finditer(text):
        letter = match[1].upper()
        if letter == "A":
            runs.append([match])
        elif runs and ord(letter) == ord(runs[-1][-1][1].upper()) + 1:
            runs[-1].append(match)
    parts, end = [], 0
    for match in (match for run in runs if len(run) > 1 for match in run):
        parts += [text[end : match.start()], mark(match[1].upper())]
        end = match.end()
    return "".join([*parts, text[end:]])


def with_typos(text: str) -> str:
    """Swap two neighbouring letters, not the first, in about one of ten words of four letters or more."""

    def swapped(match: re.Match[str]) -> str:
        word = match[0]
        if _drawn(f"{match.start()} {word}", 10):
            return word
        at = 1 + _drawn(word, len(word) - 2)
        return f"{word[:at]}{word[at + 1]}{word[at]}{word[at + 2 :]}"

    return _WORD.sub(swapped, text)


def with_other_end(text: str) -> str:
    """End the text with another mark, or with none."""
    body, first = text.rstrip(_LAST_MARKS), _drawn(text, len(ENDS))
    return next(end for end in (body + one for one in ENDS[first:] + ENDS) if end != text)


def _drawn(text: str, number: int) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % number


REWRITES: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "options A:": lambda text: option_marks(text, "{}:".format),
    "options (a)": lambda text: option_marks(text, lambda letter: f"({letter.lower()})"),
    "one line": lambda text: " ".join(text.split()),
    "greeting": lambda text: f"{GREETINGS[_drawn(text, len(GREETINGS))]} {text}",
    "final mark": with_other_end,
    "typos": with_typos,
    "instruction": lambda text: f"{text}\n{INSTRUCTIONS[_drawn(text, len(INSTRUCTIONS))]}",
}
"""The rewritings by name."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a policy did on questions that were written in another way.

    Attributes:
        texts_changed: Share of the texts that the rewriting changes.
        first_teams_kept: Share of the queries whose first round asks the same members as before.
        score: Mean score.
        score_change: Mean score minus that of the questions as they are.
        mean_calls: Mean calls per query.
        calls_change: Mean calls minus those of the questions as they are.
        spending_change: What was spent over what the questions as they are cost, minus 1.
        n: Queries that these stand on: all, but for outcomes with holes, where both times every member that was asked is on
            record and the answer was scored.
    """

    texts_changed: float
    first_teams_kept: float
    score: float
    score_change: float
    mean_calls: float
    calls_change: float
    spending_change: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def rewritten(policy: EnsemblePolicy, grid: OutcomeGrid, **settings: Any) -> dict[str, Rewritten]:
    """Let a policy answer recorded queries as they are, and in each of `REWRITES`.

    The members' answers are those that are recorded: that they would answer a rewriting otherwise is not measured.

    Args:
        policy: The policy.
        grid: The recorded outcomes.
        settings: As `environment.replay` takes them.

    Raises:
        InputError: There is no query that these figures could stand on.
        PoolError: The grid has a member that the policy does not know.
    """
    before, found = replay(policy, grid, **settings), {}
    for name, rewrite in REWRITES.items():
        queries = [rewrite(query) for query in grid.queries]
        after = replay(policy, replace(grid, queries=queries), **settings)
        rows = ~np.isnan(before.scores + after.scores)
        if not rows.any():
            raise InputError(
                f"Of {len(grid)} queries, at least one must have on record what the policy asks of it written as it is and in "
                f"{name!r}; none has. Evaluate on more outcomes."
            )
        score, calls = float(after.scores[rows].mean()), float(after.calls[rows].mean())
        found[name] = Rewritten(
            texts_changed=sum(map(str.__ne__, queries, grid.queries)) / len(grid),
            first_teams_kept=float(((after.asked_in == 1) == (before.asked_in == 1)).all(axis=1).mean()),
            score=score,
            score_change=score - float(before.scores[rows].mean()),
            mean_calls=calls,
            calls_change=calls - float(before.calls[rows].mean()),
            spending_change=float(after.spent[rows].mean() / before.spent[rows].mean()) - 1.0,
            n=int(rows.sum()),
        )
    return found

"""Texts: answers in words, short or long, and the kinds of amounts within them: numbers, quantities, dates."""

import ast
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.choices import read_choice, read_yes_no
from langchain_rlfocal.answers.code import parse_python
from langchain_rlfocal.answers.languages import NEGATIONS, PATTERNS, WORDS
from langchain_rlfocal.answers.reading import (
    MAX_SENTENCE,
    Ask,
    concluding_clause,
    conclusion,
    explained,
    final_part,
    first_sentence,
    marked,
    plain,
    read_query,
    readable,
    unheaded,
    unlabelled,
)
from langchain_rlfocal.answers.statements import Amount, Statement, read_statement, repeats, same_statement, word_of

_MAX_LABEL = 200
_MAX_STATEMENT = 20_000  # characters; the words of a longer text are compared as they stand
_MAX_LITERAL = 20_000
_CLOCKED = re.compile(r"(?<![0-9:])([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])(?![0-9:])")
_HOURS = re.compile(r"(?<![0-9])([0-9]{1,2})\s?h\s?([0-5][0-9])(?![0-9])(?!\s?(?:m|s))")
_NAMED_VALUE = re.compile(r"(?:[*$_`]{0,3}[^\W\d_]{1,12}|[-+*/×÷^()0-9.,$€£%√ ]{1,200})\s?[=≈]\s?([^=≈\n]{1,200})")
_LINKS = re.compile(r"[:=]|[,;] ?(?:and|but|so) ")
_SET_EQUAL = re.compile(r"([^=≈:\n]{2,120}?)\s?[=≈:]\s?([^=≈\n]{1,200})")
_ATTACHED = re.compile(r"(?<=[0-9])\s{0,2}=\s{0,2}(?=[-$€£]?[0-9])")


class Exact:
    """The text itself: the same but for white space around it, and for how Unicode composes it; or equal Python literals."""

    name = "exact"

    def read(self, text: str, query: str) -> str | None:
        """Return the text, or what its last mark marks."""
        del query
        return exact_text(text)

    def same(self, a: str, b: str) -> bool:
        """Compare the texts."""
        return a == b

    def write(self, value: str) -> str:
        """Write the text, or its beginning and a digest where it is long."""
        return shortened(value)


class ShortText:
    """A short answer in words: yes or no, or one of the choices, where the query asks for these; else a statement.

    A statement is set against the query; see `statements`.
    """

    name = "short_text"

    def read(self, text: str, query: str) -> Statement | None:
        """Return what a text says."""
        cleaned, ask = values.clean(text), read_query(query)
        chosen = (read_yes_no(cleaned, ask) if ask.yes_no else None) or read_choice(cleaned, ask)
        if chosen is not None and not ask.several:
            words = tuple(chosen.split())
            return Statement(words, (), words)
        return read_short(cleaned, ask)

    def same(self, a: Statement, b: Statement) -> bool:
        """Compare what is said, and what is repeated where it could contradict."""
        return same_statement(a, b)

    def write(self, value: Statement) -> str:
        """Write what is said."""
        return shortened(str(value))


class LongText(ShortText):
    """A long answer in words: the same only where all words are, but for typography, markdown and contractions."""

    name = "long_text"

    def read(self, text: str, query: str) -> Statement | None:
        """Return all that a text says."""
        del query
        return read_long(values.clean(text))

    def same(self, a: Statement, b: Statement) -> bool:
        """Compare all words."""
        return a.full == b.full


class Number:
    """Numbers, with the words that change their meaning; a number without a unit equals that number of any one unit."""

    name = "number"
    kinds: frozenset[str] = frozenset()

    def read(self, text: str, query: str) -> Statement | None:
        """Return the numbers that a text answers."""
        return read_amounts(values.clean(text), read_query(query), kinds=self.kinds)

    def same(self, a: Statement, b: Statement) -> bool:
        """Compare all numbers, in order."""
        return same_statement(a, b)

    def write(self, value: Statement) -> str:
        """Write the numbers."""
        return shortened(str(value))


class Quantity(Number):
    """Numbers with units, in any unit of the same dimension: 90 minutes and 1.5 hours."""

    name = "quantity"

    def same(self, a: Statement, b: Statement) -> bool:
        """Compare numbers and units, in order."""
        return same_statement(a, b) and _strict(a) == _strict(b)


class Date(Number):
    """Dates and times, in any usual spelling."""

    name = "date"
    kinds = frozenset({"date", "time"})


def answering_part(text: str, ask: Ask, *, whole: bool = False) -> tuple[str, bool]:
    """Find the part of a cleaned text that answers.

    Args:
        text: The text.
        ask: What was asked.
        whole: Take all of a text without marks, not its first sentence.

    Returns:
        The part; and whether the text marks it as the answer.
    """
    text = final_part(text)
    parts = marked(text)
    if parts:
        return unlabelled(parts[0], ask), True
    part = unlabelled(unheaded(text), ask)
    return (part, False) if whole else (_first_answer(part, ask), False)


def read_short(text: str, ask: Ask) -> Statement | None:
    """Read a short answer: its first sentence without explanations, or all of it where the query asks several things."""
    part, is_marked = answering_part(text, ask)
    if is_marked and not ask.several:
        part = explained(first_sentence(part))
    quoted = PATTERNS.says_quoted.fullmatch(part)
    if quoted and all(word in WORDS.leads or repeats(word, ask) for word in plain(values.fold(quoted[1])).split()):
        part = quoted[2]
    part = readable(part, ask)
    return read_statement(part, ask) or (read_statement(readable(final_part(text), ask), ask) if is_marked else None)


def read_long(text: str) -> Statement | None:
    """Read all that a text says, but headings and marks."""
    part, _ = answering_part(text, _NOTHING_ASKED, whole=True)
    if len(part) > _MAX_STATEMENT:
        words = tuple(values.fold(part).split())
        return Statement(words, (), words) if words else None
    return read_statement(part, _NOTHING_ASKED)


def read_amounts(text: str, ask: Ask, *, kinds: frozenset[str] = frozenset()) -> Statement | None:
    """Read the facts that a text answers: those it marks, or concludes with; else all that the query does not hold.

    Args:
        text: A cleaned text.
        ask: What was asked.
        kinds: Kinds of facts to which to keep; empty for all.
    """
    part, is_marked = answering_part(text, ask, whole=True)
    if is_marked:
        part = _marked_amount(part)
    elif ask.several:
        pass
    elif concluded := conclusion(part, ask):
        part = concluded
    value = _NAMED_VALUE.fullmatch(part.strip())
    part = value[1] if value else part
    if ask.duration:
        part = as_duration(part)
    part = _ATTACHED.sub(" = ", explained(readable(part, ask)))
    part = _results(part)
    statement = read_statement(part[: 50 * MAX_SENTENCE], ask, facts_only=True)
    if statement is None and is_marked:
        rest = _results(readable(unheaded(final_part(text)), ask))
        statement = read_statement(rest[: 50 * MAX_SENTENCE], ask, facts_only=True)
    if statement is not None and not ask.several and len(statement.facts) > 1 and (clause := concluding_clause(part)):
        statement = _concluded(statement, read_statement(clause, ask, facts_only=True))
    if statement is None or not kinds:
        return statement
    kept = tuple(
        part for part in statement.said if not isinstance(part, Amount) or part.kind in kinds or _is_year(part)
    )
    if not any(isinstance(part, Amount) for part in kept):
        return None
    return Statement(kept, statement.repeated, kept, statement.names)


def _concluded(whole: Statement, end: Statement | None) -> Statement:
    """Let only what a statement concludes with answer; its other facts must not contradict another's."""
    if end is None:
        return whole
    others = tuple(part for part in whole.said if isinstance(part, Amount) and part not in end.said)
    repeated = (*others, *end.repeated)
    return Statement(end.said, repeated, (*end.said, *repeated), end.names)


def named_value(part: str, ask: Ask) -> str | None:
    """Return the value that a text gives what the query asks for, as in "x = 5", "log(100) = 2", "The slope is 2".

    None where it gives none, or several.
    """
    part = part.strip()
    if ask.several or len(part) > 2 * _MAX_LABEL:
        return None
    match = _NAMED_VALUE.fullmatch(part) if ask.number else None
    if match:
        return _undollared(match[1])
    match = _SET_EQUAL.fullmatch(part)
    if match and ":" not in match[2] and len(name := _squeezed(match[1])) > 1 and name in _squeezed(ask.text):
        return _undollared(match[2])
    match = PATTERNS.copula.fullmatch(part)
    if (
        match
        and not _LINKS.search(match[2])
        and (lead := plain(values.fold(match[1])).split())
        and all(repeats(word, ask) for word in lead)
    ):
        first = word_of(match[2].split()[0])
        return None if first in NEGATIONS else _undollared(match[2])
    return None


def _undollared(value: str) -> str:
    """Drop a closing dollar sign whose opening one was cut off."""
    return value.strip().rstrip(".").removesuffix("$") if value.count("$") % 2 else value


def _squeezed(text: str) -> str:
    """Drop white space and decoration, to find a formula within another text."""
    return re.sub(r"[\s$\\{}*_`'\"-]", "", values.fold(text)[:10_000])


def as_duration(part: str) -> str:
    """Write 1:02:30 and 2 h 30 as durations, where they could be times of day."""
    part = _CLOCKED.sub(r"\1 h \2 min \3 s", part)
    return _HOURS.sub(r"\1 h \2 min", part)


def exact_text(text: str) -> str | None:
    """Return what a text marks as its answer, or all of it; a Python literal as Python writes it."""
    text = final_part(text[: values.MAX_CHARS].encode("utf-8", "replace").decode())
    parts = marked(text)
    text = unicodedata.normalize("NFC", parts[0] if parts else text).strip()
    fence = re.fullmatch(r"```[^\n`]{0,20}\n(.{0,100000}?)\n?```", text, re.DOTALL)
    text = fence[1].strip() if fence else text
    if not text:
        return None
    return text


def shortened(label: str) -> str:
    """Cut a label, with a digest of what is cut."""
    if len(label) <= _MAX_LABEL:
        return label
    return f"{label[: _MAX_LABEL - 14]}…{hashlib.sha256(label.encode('utf-8', 'replace')).hexdigest()[:12]}"


def literal_text(text: str) -> str | None:
    """Return the Python literal that a text answers with, as Python writes it; else the text, without quotes around it."""
    found = exact_text(text)
    if found is None:
        return None
    found = found.strip("`").strip()
    if "==" in found and found.startswith("assert"):
        found = found.rpartition("==")[2].strip()
    tree = parse_python(found) if len(found) <= _MAX_LITERAL else None
    if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        try:
            value = ast.literal_eval(tree.body[0].value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            pass
        else:
            return value if isinstance(value, str) and value else repr(value)
    return found.strip("'\"") or found


def _first_answer(part: str, ask: Ask) -> str:
    """Take the first sentence of a text, unless the query asks more, or the text takes it back later."""
    if ask.several or ask.listing or not (ask.fact or ask.yes_no) or len(part) > 4 * MAX_SENTENCE:
        return part
    first = first_sentence(part)
    rest = part[part.find(first) + len(first) :] if first in part else ""
    if PATTERNS.retracts.search(rest[: 4 * MAX_SENTENCE]):
        return part
    return explained(first)


def _marked_amount(part: str) -> str:
    """Take the first sentence of a marked part, and what stands behind its last sign of equality."""
    sentence = explained(first_sentence(part))
    before, equals, after = sentence.replace("≈", "=").rpartition("=")
    return after if equals and any(char.isdigit() for char in after) else before or sentence


def _results(part: str) -> str:
    """Leave of each calculation its result: of "3 + 4 = 7" the 7."""
    kept = []
    for line in part.split("\n"):
        pieces = line.split(" = ")
        if len(pieces) > 1:
            pieces[:-1] = map(_without_calculation, pieces[:-1])
        kept.append(" ".join(pieces))
    return "\n".join(kept)


def _without_calculation(piece: str) -> str:
    match = re.search(r"[-+*/×÷^()0-9.,$€£%\s]{1,200}$", piece)
    return piece[: match.start()] if match and re.search(r"[0-9]", match[0]) else piece


def _is_year(part: Amount) -> bool:
    return part.number is not None and part.number.denominator == 1 and 100 <= part.number < 2200


def _strict(statement: Statement) -> Sequence[Any]:
    return [(part.kind, part.value) if isinstance(part, Amount) else part for part in statement.said]


_NOTHING_ASKED = read_query("")

"""Automatic: read a text as the kind that the query asks for, or else as what the text itself is.

Every text is read by itself: which other texts there are changes nothing.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.choices import bare_letter, read_choice, read_option, read_yes_no
from langchain_rlfocal.answers.code import Code, find_code
from langchain_rlfocal.answers.kinds import Kind
from langchain_rlfocal.answers.languages import PATTERNS, WORDS
from langchain_rlfocal.answers.lists import List, find_list
from langchain_rlfocal.answers.mathematics import Math, looks_like_math
from langchain_rlfocal.answers.objects import Json, ToolCalls, read_calls, read_whole_json
from langchain_rlfocal.answers.quantities import number_of
from langchain_rlfocal.answers.reading import Ask, concluding, final_part, first_sentence, plain, read_query, readable
from langchain_rlfocal.answers.statements import (
    Statement,
    bare_number,
    may_be_same,
    read_statement,
    repeats,
    same_statement,
)
from langchain_rlfocal.answers.texts import (
    Exact,
    LongText,
    Number,
    ShortText,
    answering_part,
    as_duration,
    literal_text,
    named_value,
    read_amounts,
    read_long,
    read_short,
)

MAX_SHORT = 30
"""Words of a short text."""

MAX_CODE_LINES = 8
"""Lines of code, fences included, that two models may well write alike."""

_MAX_ITEM = 40
_FENCES = 8  # characters of the two fences of a block, with their line ends
_MAX_KEPT = 4_000
_MAX_MARKED, _MAX_MARKED_WORDS = 200, 8
_SCALARS = re.compile(r"\s{0,20}\[[^\[\]{}]{1,2000}\]\s{0,20}")
_NO_CODE = frozenset(
    ["text", "txt", "plain", "plaintext", "markdown", "md", "json", "output", "console", "latex", "math"]
)


_SYMBOL = re.compile(r"(?=[-:/!@#%^&<>=|\\~+$])[^\w\s`\"'(]{1,4}[\w.=/!?-]{0,40}|[\w.-]{1,40}[!=|&~:]")
_MAY_BE_NAMED = frozenset(":=(")
_CODE_FACTS = re.compile(
    r"\b[0-9][0-9.]{0,40}\b|\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[<>!=]=|[<>]|\bnot\b|\bin\b|\band\b|\bor\b|&&|\|\||![a-z(]|[-+*/%]"
)
_SPAN = re.compile(r"`([^`\n]{1,300})`")

_CODE, _MATH, _JSON, _CALLS = Code(), Math(), Json(), ToolCalls()
_SHORT, _LONG, _NUMBER, _EXACT = ShortText(), LongText(), Number(), Exact()


class _Word:
    """A kind whose values are their own labels."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, text: str, query: str) -> Any:
        """Never read by itself."""
        raise NotImplementedError

    def same(self, a: Any, b: Any) -> bool:
        """Compare the words."""
        return bool(a == b)

    def write(self, value: Any) -> str:
        """Write the word."""
        return str(value)


_OPTION, _YES_NO, _CHOICE = _Word("option"), _Word("yes_no"), _Word("choice")


@dataclass(frozen=True)
class Found:
    """What a text was read as.

    Attributes:
        kind: The kind.
        value: Its value.
        part: The part of the text that answers, cleaned.
    """

    kind: Kind
    value: Any
    part: str = field(compare=False)


class Auto:
    """The kind that the query asks for, or else what the text is."""

    name = "auto"

    def read(self, text: str, query: str) -> Found | None:
        """Return what a text was read as."""
        return _kept(text, query) if len(text) + len(query) <= _MAX_KEPT else find(text, read_query(query), query)

    def same(self, a: Found, b: Found) -> bool:
        """Compare two values of a kind; mathematics also with what another kind read."""
        if a.kind.name == b.kind.name:
            return a.kind.same(a.value, b.value)
        names = {a.kind.name, b.kind.name}
        if "math" in names and names & {"number", "short_text", "exact", "list"}:
            formulas = [_MATH.read(found.part, "") for found in (a, b)]
            return None not in formulas and _MATH.same(*formulas)
        if names == {"number", "short_text"}:
            return same_statement(a.value, b.value)
        if "list" in names:
            listed, other = (a, b) if a.kind.name == "list" else (b, a)
            line = LIST.value_of(other.part, listed.value)
            return line is not None and LIST.same(listed.value, line)
        return False

    def write(self, value: Found) -> str:
        """Write the value as its kind does."""
        return value.kind.write(value.value)


def find(text: str, ask: Ask, query: str) -> Found | None:
    """Read a text, in the order of what is most certain."""
    if ask.options and (letter := bare_letter(text, ask)):
        return Found(_OPTION, letter, text)
    cleaned = values.clean(text)
    final = final_part(cleaned)
    if not final:
        return None
    part, is_marked = answering_part(cleaned, ask, whole=True)

    def found(kind: Kind, value: Any) -> Found | None:
        return None if value is None else Found(kind, value, part)

    if ask.literal and not ask.options:
        return found(_EXACT, literal_text(text if is_marked else _printed(final) or text))
    if ask.options and (letter := read_option(cleaned, ask)):
        return found(_OPTION, letter)
    if not (ask.choices or ask.identifier or ask.code) and (only := bare_number(part, ask)):
        return found(_NUMBER, only)
    if not ask.several:
        if (ask.yes_no or not ask.fact) and (verdict := read_yes_no(cleaned, ask)):
            return found(_YES_NO, verdict)
        if ask.choices and not ask.prose and (choice := read_choice(cleaned, ask)):
            return found(_CHOICE, choice)
    if (calls := read_calls(text)) is not None:
        return found(_CALLS, calls)
    if (
        not is_marked
        and ("{" in text or "[" in text)
        and ("json" in ask.text.casefold() or not _SCALARS.fullmatch(part))
        and (json := read_whole_json(text)) is not None
    ):
        return found(_JSON, json)
    if _SCALARS.fullmatch(part):
        part = part.strip()[1:-1]
    blocks = [block for block in find_code(final) if block.language not in _NO_CODE]
    if (
        ask.code
        or _is_mostly_code(final, blocks)
        or (blocks and not (ask.number or ask.when or ask.yes_no or ask.choices))
    ):
        code = _read_code(part if is_marked else final, ask, query, blocks)
        if code is not None:
            return code
    is_math = looks_like_math(part)
    if (is_math or not _MAY_BE_NAMED.isdisjoint(part)) and (value := named_value(part, ask)):
        part, is_math = value, looks_like_math(value)
    part = as_duration(part) if ask.duration else part
    number = number_of(readable(part, ask), query=ask.text) if len(part) < 400 else None
    if number is not None and (amounts := read_statement(readable(part, ask), ask, facts_only=True)) is not None:
        return found(_NUMBER, amounts)
    if (symbol := _symbol(part, ask)) is not None:
        return found(_SHORT, Statement((symbol,), (), (symbol,)))
    if ask.prose and not is_marked:
        return found(_LONG, read_long(cleaned))
    concludes = ask.identifier or (ask.number and not is_marked and part == final and concluding(final))
    if is_math:
        part = PATTERNS.or_in_words.sub(" or ", part)
    if is_math and not concludes and (math := _MATH.read(final if is_marked else part, query)) is not None:
        return found(_MATH, math)
    if (ask.number or ask.when or ask.version) and not (ask.several and ask.names):
        amounts = read_amounts(cleaned, ask)
        if amounts is not None:
            return found(_NUMBER, amounts)
    if ask.listing and "\n" not in final and (amounts := read_amounts(cleaned, ask)) is not None and amounts.owners:
        return found(_NUMBER, amounts)
    listed = find_list(part, commas=ask.listing) if ask.listing or "\n" in part or "[" in part else None
    if listed is not None and sum(len(item) for item in listed.items) > _MAX_ITEM * len(listed.items):
        listed = None  # prose in points
    if listed is not None and len(listed.items) > 1:
        return found(LIST, LIST.read(part, query))
    if listed is not None and len(listed.items) == 1:
        return found(_SHORT, read_short(listed.items[0], ask))
    if is_marked and len(part) > _MAX_MARKED and len(first_sentence(part).split()) > _MAX_MARKED_WORDS:
        return found(_LONG, read_long(cleaned))
    short = read_short(cleaned, ask)
    if short is not None and len(short.full) <= MAX_SHORT and (is_marked or len(final) <= 40 * MAX_SHORT):
        return found(_SHORT, short)
    return found(_LONG, read_long(cleaned))


def _printed(final: str) -> str | None:
    """Find what a short text says that a program prints."""
    spans = set(_SPAN.findall(final))
    if len(spans) == 1 and "\n" not in final and len(final) <= _MAX_MARKED:
        return str(spans.pop())
    match = PATTERNS.prints.fullmatch(final)
    return match[1] if match else None


def _symbol(part: str, ask: Ask) -> str | None:
    """Read a word with signs that count, such as "-i" and ":q!", where a text gives one and says little else."""
    if "`" not in part:
        token = part.strip("*_ ")
        return token if _SYMBOL.fullmatch(token) else None
    spans = set(_SPAN.findall(part))
    rest = plain(values.fold(_SPAN.sub(" ", part))).split()
    if (
        len(spans) != 1
        or " " in (span := spans.pop())
        or not all(word in WORDS.tells_to_type or repeats(word, ask) for word in rest)
    ):
        return None
    return span if _SYMBOL.fullmatch(span) else None


@lru_cache(maxsize=1024)
def _kept(text: str, query: str) -> Found | None:
    """Read a short text once: an ensemble labels its answers anew with each that arrives."""
    return find(text, read_query(query), query)


def same_item(a: str, b: str) -> bool:
    """Tell whether two items of lists are the same."""
    one, other = (read_statement(values.clean(item), read_query("")) for item in (a, b))
    return one is not None and other is not None and same_statement(one, other)


LIST = List(same_item)


def is_open_text(value: Any) -> bool:
    """Whether a value is a text that others can hardly repeat: long, or code of many lines."""
    if not isinstance(value, Found):
        return False
    return value.kind.name == "long_text" or (value.kind.name == "code" and value.part.count("\n") > MAX_CODE_LINES)


def may_mean_the_same(a: Any, b: Any) -> bool:
    """Whether the rules leave it open that two different values mean the same: texts, or code, without a fact that differs."""
    if not (isinstance(a, Found) and isinstance(b, Found)):
        return False
    if a.kind.name == b.kind.name == "code":
        return _stated_by_code(a.part) == _stated_by_code(b.part)
    if (
        isinstance(a.value, Statement)
        and isinstance(b.value, Statement)
        and {a.kind.name, b.kind.name} <= {"short_text", "long_text"}
    ):
        return may_be_same(a.value, b.value)
    return False


def _stated_by_code(part: str) -> list[str]:
    """List what no other spelling of a program may change: its numbers, texts, comparisons and denials."""
    return sorted(_CODE_FACTS.findall(part))


def _is_mostly_code(final: str, blocks: list[Any]) -> bool:
    within = sum(len(block.source) for block in blocks)
    fences = sum(len(block.language or "") + _FENCES for block in blocks)
    return within > len(final) - within - fences


def _read_code(final: str, ask: Ask, query: str, blocks: list[Any]) -> Found | None:
    """Read code where the query asks for it, or where a text is little else; a fence around plain words is no code."""
    tagged = any(block.language and block.language not in _NO_CODE for block in blocks)
    if not ask.code and not _is_mostly_code(final, blocks) and (ask.prose or not tagged):
        return None
    value = _CODE.read(final, query)
    spans = set(_SPAN.findall(final)) if value is None and ask.code else set()
    command = PATTERNS.command.fullmatch(spans.pop() if len(spans) == 1 else final.strip())
    if value is None and ask.code and command:
        value = _CODE.read(f"```\n{command[1]}\n```", query)
        value = value if value and value.parts[0][0] else None
    return None if value is None else Found(_CODE, value, final)

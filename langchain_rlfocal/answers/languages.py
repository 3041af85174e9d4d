"""Languages: word lists and patterns of many languages, and what tells yes, no and the marks of an answer by them.

The lists are in `words/words.toml`, the patterns in `words/patterns.toml`; each is read when first asked for, by its name:
`WORDS.fillers`, `PATTERNS.asks_number`.
"""

import re
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Final, Generic, TypeVar

from langchain_rlfocal.answers import values

_T = TypeVar("_T")


@cache
def read_table(name: str) -> dict[str, Any]:
    """Read a file of `words`."""
    return tomllib.loads(files(__package__).joinpath("words", f"{name}.toml").read_text("utf-8"))


class Lazy(Generic[_T]):
    """What a function makes of each name, as attributes made when first asked for."""

    def __init__(self, make: Callable[[str], _T]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> _T:
        if name.startswith("__"):
            raise AttributeError(name)
        made = self._make(name)
        setattr(self, name, made)
        return made


def listed(words: str) -> list[str]:
    """List words of a table; "_" stands for a space within one."""
    return [word.replace("_", " ") for word in words.split()]


def _words(name: str) -> frozenset[str]:
    """Fold the words of a list, and those of the lists that it includes."""
    table = dict(read_table("words")[name])
    included = [_words(other) for other in table.pop("include", "").split()]
    return frozenset(values.fold(word) for words in table.values() for word in listed(words)).union(*included)


def _pattern(name: str) -> re.Pattern[str]:
    entry = read_table("patterns")[name]
    entry = {"parts": [entry]} if isinstance(entry, str) else entry
    parts = entry.get("parts", [])
    if words := "|".join(entry.get("words", {}).values()):
        parts = [*parts, rf"\b(?:{words})\b"]
    if unspaced := entry.get("unspaced"):
        parts = [*parts, unspaced]
    written = "|".join(parts)
    for defined, alternatives in entry.get("define", {}).items():
        written = written.replace(f"<{defined}>", f"(?:{alternatives})")
    return re.compile(written.replace("\n", ""))


WORDS: Final = Lazy(_words)
"""Sets of folded words by name."""

PATTERNS: Final = Lazy(_pattern)
"""Compiled patterns by name."""

NEGATIONS: Final = WORDS.negations
"""Words that deny."""

_EDGES: Final = " \t\n\r.,;:!?¡¿\"'()[]{}*_`~…。!?、،؟।"
_MAX_YES_NO: Final = 40
_CLOSING: Final = r"[\"'*_`)\]]{0,4}"
_SIGN: Final = rf"\s?(?:[:：=]|\s?[-–—](?=\s)){_CLOSING}"


def _yes_and_no() -> tuple[frozenset[str], frozenset[str]]:
    pairs = read_table("words")["yes_no"].values()
    yes, no = (frozenset(values.fold(word) for pair in pairs for word in pair[i].split()) for i in (0, 1))
    return yes - no, no - yes


_YES, _NO = _yes_and_no()


def yes_no(phrase: str) -> bool | None:
    """Tell whether a word or short phrase, and nothing beside it, is a yes or a no in some language.

    Args:
        phrase: The whole answer; case, accents and punctuation around it do not matter.

    Returns:
        True for yes, False for no, None for anything else and for a word that is yes in one language and no in another.
    """
    if len(phrase) > _MAX_YES_NO:
        return None
    word = values.fold(phrase).strip(_EDGES)
    return True if word in _YES else False if word in _NO else None


def _either(words: str) -> str:
    """Write the alternatives of listed words, as written and as folded, the longest first."""
    spelled = {form for word in listed(words) for form in (values.clean(word).casefold(), values.fold(word))}
    return "|".join(map(re.escape, sorted(spelled, key=lambda word: (-len(word), word))))


def _answer_marks() -> re.Pattern[str]:
    """Write the pattern of final marks, the words grouped by their first letter: a search tries only those that fit."""
    table = read_table("words")["answer_marks"]
    branches: list[tuple[str, str]] = []
    for nouns, between, verbs in table["nouns"]:
        said = rf"(?: (?:{_either(between)}))?" if between else ""
        is_ = rf"| (?:{_either(verbs)})(?![^\W_])(?:\s?:)?" if verbs else ""
        is_ = f"|{table['joined'][nouns]}" if nouns in table["joined"] else is_
        for noun in _either(nouns).split("|"):
            first = noun[: 2 if noun[0] == "\\" else 1]
            branches.append((first, rf"{noun[len(first) :]}{said}{_CLOSING}(?:{_SIGN}{is_})"))
    grouped = groupby(sorted(branches), key=lambda branch: branch[0])
    spaced = "|".join(f"{letter}(?:{'|'.join(rest for _, rest in group)})" for letter, group in grouped)
    signs = rf"(?:{table['unspaced']})(?:{_CLOSING}{_SIGN}|(?:{table['unspaced_verbs']})(?![不没沒非]))"
    denied = rf"(?! ?(?:{_either(table['denied'])})\b)"
    return re.compile(rf"(?:(?<![^\W_])(?:{spaced})|{signs})(?:(?<=[-–—:：=\"'*_`)\]])|{denied})", re.IGNORECASE)


ANSWER_MARKS: Final = _answer_marks()
"""Finds the final marks of many languages ("Respuesta:", "La réponse est", "答案是") in cleaned or folded text.

What precedes the word ("final", "correct", an article) is not part of the match; what follows the match is the answer.
"""

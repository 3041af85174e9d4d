r"""Mathematics: find the formula that a text answers with, and tell whether two are equal, by math-verify.

- Finding is looking at characters; every step is linear in the text (what is matched against patterns that are not is cut
  to `_MAX_FORMULA` first). The words are in `words/mathematics.toml`.
- math-verify, the library that graders of mathematics use, parses and compares: numbers to six decimal places,
  expressions by simplifying their difference, sets, intervals, matrices, relations.
- Around it stands what it lacks: no signals (they fail outside the main thread), a bound on the numbers that a formula
  evaluates to (`size`), a limit of processor time on the rest (`run_within`), an answer in either order, and what it
  takes for the same although it is not: units that differ, a set and a tuple, formulas of which it read the beginning only.

What cannot be parsed, or takes too long, is the same as its own text only.
"""

import ctypes
import logging
import math
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from langchain_rlfocal.answers.values import PATTERNS, TEN_WORDS, UNIT_WORDS, Words

__all__ = ["Formula", "Math", "looks_like_math", "run_within", "same_math"]

_T = TypeVar("_T")
_WORDS = Words("mathematics")

_MAX_FORMULA = 1500  # characters of a formula, and of the prose around it, that are parsed
_MAX_TAIL = 2_000
_MAX_DEPTH = 40
_HUGE = 1e12
_MAX_BITS = (
    8000  # of the largest number that evaluating a formula may meet; a power modulo such a number takes 0.2 s, in C
)
_MAX_LABEL = 80
_PARSE_S = 0.3
_GRADE_S = 0.3
_GROUP_S = 0.2
_MAX_SLOW = 2
_MAX_TEXT_ANSWER = 120
_MAX_ANSWER = 40


class Piece(NamedTuple):
    r"""The part of a text that answers.

    Attributes:
        text: LaTeX in `$...$` where all of it is a formula, else the prose that holds formulas or numbers.
        plain: What stood there, as a label for where nothing can be parsed.
        whole: True if all of `text` is one formula.
        marked: True if `\boxed`, "####" or "answer" pointed at it.
    """

    text: str
    plain: str
    whole: bool
    marked: bool


_NAMES = _WORDS["functions"] | _WORDS["greek"]
_COMMANDS = _NAMES | _WORDS["commands"]

# --- writing what is not LaTeX as LaTeX

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "0123456789+-nix")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
_VULGAR = {
    code: re.sub("(.+)/(.+)", r"\\frac{\1}{\2}", unicodedata.normalize("NFKC", chr(code)).replace("⁄", "/"))
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F))
}
_SIGNS: dict[int, str] = {
    **_VULGAR,
    **{ord(char): "-" for char in "−‐‑﹣－"},
    **{ord(char): "" for char in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062"},
    **{ord(char): f"\\{name} " for char, name in _WORDS.pairs("signs").items()},
    **{ord(char): f"\\mathbb{{{letter}}}" for char, letter in zip("ℝℤℚℕℂ", "RZQNC", strict=True)},
    ord("°"): "^{\\circ}",
}
_SYNONYMS = {
    "\\lbrace": "\\{", "\\rbrace": "\\}", "\\langle": "(", "\\rangle": ")", "\\not=": "\\ne ", "\\not =": "\\ne ",
}  # fmt: skip
_NAMED = re.compile(rf"(?<![\\A-Za-z])({'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![A-Za-z])")
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "infinity": "infty", "inf": "infty", "lg": "log"}
_RUNS = (re.compile(r"[ \t\f\v\r]+"), re.compile(r"\n\s*\n\s*"))

# --- finding the part that answers

_EDGES = ' \t\n*_`"'
_SAID = {word: n for n, word in enumerate(UNIT_WORDS)} | {word: 20 + 10 * n for n, word in enumerate(TEN_WORDS)}
_SPOKEN = {
    "negative": "-", "minus": "-", "plus": "+", "times": "\\cdot ", "over": "/", "squared": "^{2}", "cubed": "^{3}",
    "equals": "=", "infinity": "\\infty ", "pi": "\\pi ", "percent": "\\%",
}  # fmt: skip
_PHRASES = (
    (re.compile(r"\b(?:the )?square root of (\w+)"), r"\\sqrt{ \1 }"),
    (re.compile(r"\b(?:the )?cube root of (\w+)"), r"\\sqrt[3]{ \1 }"),
    (re.compile(r"\b(?:divided by|over)\b"), "over"),
    (re.compile(r"\b(?:raised )?to the (?:power of )?(\w+?)(?:th)?(?: power)?(?=\s|$)"), r"^{ \1 }"),
    (re.compile(r"\b(?:is )?equal(?:s)?(?: to)?\b"), "equals"),
    (re.compile(r"\bmultiplied by\b"), "times"),
)


def looks_like_math(text: str) -> bool:
    r"""Tell whether a text holds mathematics that is more than a number: LaTeX, powers, roots, variables, sets, relations.

    Args:
        text: The part of an answer that answers.
    """
    if "```" in text or _WORDS.command.match(text.strip("`$ ")):
        return False
    text = text.strip(_EDGES)
    if not text or len(text) > _MAX_TAIL:
        return len(text) > _MAX_TAIL and bool(_SURE.search(text[-_MAX_TAIL:]))
    if _WORDS.path.search(text):
        return False
    if _SURE.search(text) or any(_is_telling(found) for found in _inner_formulas(text)):
        return True
    if _WORDS.variable.fullmatch(text):
        return True
    if _WORDS.code.search(text) or _WORDS.address.search(text):
        return False
    if _WORDS.strong.search(_WORDS.power_unit.sub(" ", text)):
        return True
    bare = text.rstrip(".,;")
    if len(bare) > 200 or _WORDS.one_number.fullmatch(bare):
        return False
    if _spoken(bare) is not None and not _SAID_NUMBER.fullmatch(bare.lower()):
        return True
    return _is_telling(bare)


def find_piece(text: str) -> Piece | None:
    r"""Find the part of a text that answers: after the last mark, else all that is not thinking.

    Returns:
        None for a text of nothing but white space and decoration.
    """
    thoughts = [match.end() for match in PATTERNS.thought.finditer(text)]
    text = text[thoughts[-1] :] if thoughts else text
    text = text.encode("utf-8", "replace").decode()
    tail = text[-_MAX_TAIL:]
    boxes = list(_WORDS.box.finditer(tail))
    marks = [mark for mark in _WORDS.mark.finditer(tail) if tail[mark.end() :].strip(_EDGES + ":=>")]
    if boxes and (not marks or marks[-1].start() < boxes[-1].start()):
        content = _boxed(tail, boxes)
        if content.strip(_EDGES):
            return _as_piece(content.replace("$", " "), marked=True, formula=True)
    if not marks:
        return _as_piece(text, marked=False)
    part = tail[marks[-1].end() :].lstrip(_EDGES + ":=>")
    is_latex = "$" in part or "\\" in part
    return _as_piece(_RUNS[1].split(part)[0][:_MAX_FORMULA] if is_latex else part.partition("\n")[0], marked=True)


def numbers(prose: str) -> list[str]:
    """List the distinct numbers that prose states, in order; after the last sign of equality, if any stand there."""
    if _WORDS.one_number.fullmatch(prose):
        return [prose]
    tail = prose.rpartition("=")[2]
    found = _WORDS.number.findall(tail) or _WORDS.number.findall(prose)
    return list(dict.fromkeys(number.replace(",", "") for number in found))


def without_space(text: str) -> str:
    """Reduce text that could not be parsed to what tells it apart: no white space, no case, no decoration of LaTeX."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad)(?![A-Za-z])|\$|[\\~]\s", "", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]{0,200})\}", r"\1", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = "".join(text.split()).strip('*_`"').rstrip(".,;")
    return _unquoted(text).casefold()


def size(latex: str) -> float:
    """Bound the bits of the largest whole number that evaluating a formula can meet, far above what it mostly takes.

    Every factor and term counts as a factor; an exponent multiplies the bits of its base by its own greatest value. A
    variable counts as 2, or where sums, products, limits or integrals put numbers in its place as the largest number
    that stands in the formula.

    Returns:
        Bits; infinite for a formula nested deeper than anything that is read.
    """
    parts = _WORDS.size_part.findall(latex)
    depth = deepest = 0
    for part in parts:
        depth += (part in "({[") - (part in ")}]")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH or len(latex) > 4 * _MAX_FORMULA or re.search(r"[0-9][eE][-+]?[0-9]{4}", latex):
        return math.inf
    letters = [1.0]
    if re.search(r"\\(?:sum|prod|int|lim|right\||big)", latex):
        letters += [math.log2(int(part) + 1) for part in parts if part.isdigit() and len(part) < 400]
    return _Sizer(parts, max(letters)).sequence()


class _Sizer:
    """Walk over a formula's parts and add up their sizes."""

    def __init__(self, parts: list[str], letter: float) -> None:
        self._parts = [*parts, ""]
        self._letter = letter
        self._at = 0

    def sequence(self) -> float:
        total, grows, root = 0.0, 0, 0.0
        while part := self._parts[self._at]:
            if part in ")}]":
                self._at += 1
                break
            if part in ("\\binom", "\\dbinom", "\\tbinom", "\\choose", "\\Gamma", "\\operatorname"):
                self._at += 1
                grows = 2
                continue
            opens_root = part == "[" and self._at > 0 and self._parts[self._at - 1] == "\\sqrt"
            bits = self._powered()
            if opens_root:
                root = bits
                continue
            if grows and part in "({[":
                bits, grows = _product(_value(bits), bits), grows - 1
            if root and part in "({[":
                bits, root = _product(bits + 1, _value(root)), 0.0
            total = min(_HUGE, total + bits)
        return total

    def _powered(self) -> float:
        """Size of one atom with its exponents and factorials."""
        bits = self._atom()
        while (sign := self._parts[self._at]) in ("^", "**", "!"):
            self._at += 1
            if sign == "!":
                bits = _product(_value(bits), bits + 1)
                continue
            while self._parts[self._at] in ("+", "-"):
                self._at += 1
            bits = _product(max(bits, 1.0), _value(self._powered()))
        return bits

    def _atom(self) -> float:
        part = self._parts[self._at]
        if not part:
            return 0.0
        self._at += 1
        if part in "({[":
            return self.sequence()
        if part[0].isdigit() or part[0] == ".":
            whole, _, decimals = part.partition(".")
            return min(_HUGE, math.log2(int(whole or "0") + 1) + 3.33 * len(decimals)) if len(part) <= 400 else _HUGE
        return self._letter if part[-1].isalpha() else 0.0


def _value(bits: float) -> float:
    return math.exp2(min(bits, 60.0))


def _product(a: float, b: float) -> float:
    return min(_HUGE, a * b)


def _boxed(text: str, boxes: list[re.Match[str]]) -> str:
    """Join the contents of the last boxes: those that stand beside one another, or are listed with a word between."""
    contents: list[str] = []
    start_of_next = len(text)
    for box in reversed(boxes[-30:]):
        content, end = _braced(text, box.end(), start_of_next)
        between = text[end:start_of_next]
        is_new = content not in contents[-1:]
        if contents:
            listed = len(between) < 70 and is_new and _WORDS.joined.search(between)
            if end > start_of_next or not (len(between) < 10 or listed):
                break
        if is_new:
            contents.append(content)
        start_of_next = box.start()
    return ",".join(reversed(contents))


def _braced(text: str, start: int, limit: int) -> tuple[str, int]:
    """Take what stands in braces from a place on, and where it ends; to the end of its line if they never close."""
    if text[start : start + 1] != "{":
        line = text[start:limit].partition("\n")[0].partition("$")[0]
        return line, start + len(line)
    depth = 0
    for at in range(start, min(limit, start + 2 * _MAX_FORMULA)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return text[start + 1 : at], at + 1
    return text[start + 1 : limit], limit


def _as_piece(text: str, *, marked: bool, formula: bool = False) -> Piece | None:
    plain = text = text.strip(_EDGES)
    if not text:
        return None

    def whole(latex: str) -> Piece:
        return Piece(f"${latex.replace(chr(10), ' ').strip()}$", plain, whole=True, marked=marked)

    if not formula and not marked and len(text) > _MAX_FORMULA:
        text = _last_part(text)
    if len(text) > _MAX_FORMULA:
        return Piece("", plain, whole=True, marked=marked)
    bare = _undecorated(to_latex(_RUNS[1].sub("\n\n", _RUNS[0].sub(" ", text))))
    inner = _only_environment(bare)
    if inner is not None:
        return whole(inner)
    if formula:
        return whole(bare if "\\" in bare else _plain_formula(bare))
    lone = _lone_environment(bare)
    if lone is not None:
        return whole(lone)
    anchor = "answer: " if marked else ""  # what stands first after a mark answers
    if _WORDS.environment.search(bare):
        return Piece(anchor + _WORDS.sign_word.sub("-", bare), plain, whole=False, marked=marked)
    price = bare.replace("\\$", "$")
    if _WORDS.one_number.fullmatch(price):
        return Piece(price, plain, whole=False, marked=marked)
    said = _spoken(bare)
    if said is not None or _is_formula(bare):
        return whole(_plain_formula(bare if said is None else said))
    prose = _WORDS.sign_word.sub("-", re.sub(r"(?<=[0-9])!(?=\s|$)", ".", bare))
    return Piece(anchor + prose, plain, whole=False, marked=marked)


def to_latex(text: str) -> str:
    """Write signs that LaTeX has commands for as such, and numbers that a parser would cut short in a form it reads."""
    if not text.isascii():
        text = _WORDS.super_run.sub(lambda run: f"^{{{run[0].translate(_SUPER)}}}", text)
        text = _WORDS.sub_run.sub(lambda run: f"_{{{run[0].translate(_SUB)}}}", text)
        text = _WORDS.root.sub(_root, text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
        text = _WORDS.long_dash.sub(r"\1-", text)
    if "\\" in text:
        text = _WORDS.synonym.sub(lambda found: _SYNONYMS[found[0]], text)
    if "^" in text:
        text = _WORDS.bare_exponent.sub(r"^{\1}", text)
    if "\\" in text or "{,}" in text:
        text = _WORDS.thousands.sub(lambda found: found[1] + re.sub("[^0-9]", "", found[2]), text)
        text = _WORDS.repeating.sub(_repeating, text)
    return text


def _root(found: re.Match[str]) -> str:
    index = "[3]" if found[1] == "∛" else ""
    return f"\\sqrt{index}{{{found[2] or found[3] or found[4]}}}"


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, period = found[1] or "0", found[2], found[3] or found[4]
    above = int(whole + fixed + period) - int(whole + fixed)
    return f"\\frac{{{above}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _unquoted(text: str) -> str:
    """Drop single quotes around a text; one at its end alone is a prime."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "'" else text


def _undecorated(text: str) -> str:
    text = _unquoted(text.strip(_EDGES))
    return text if text.endswith(("\\.", "\\,")) else text.rstrip(".,;").rstrip(_EDGES)


def _only_environment(text: str) -> str | None:
    """Take the inside of a text that is one formula between LaTeX's marks, None for any other."""
    for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            inner = text[len(start) : -len(end)]
            if "$" not in inner.replace("\\$", "") and "\\(" not in inner and "\\[" not in inner and inner.strip():
                return inner.strip().rstrip(".,;") if not inner.rstrip().endswith(("\\,", "\\;")) else inner.strip()
    return None


def _lone_environment(text: str) -> str | None:
    """Take the inside of the only formula between LaTeX's marks in a text with no number after it."""
    found = list(_WORDS.formula.finditer(text))
    if len(found) != 1 or re.search(r"[0-9]|\\frac|\\begin", text[found[0].end() :]) or text.startswith("\\begin"):
        return None
    inner = next(group for group in found[0].groups()[:4] if group is not None).strip()
    return inner + ("\\%" if found[0]["percent"] else "")


def _last_part(text: str) -> str:
    """Take the last lines of a long text, from a place where no formula is open; all of it where there is none."""
    tail = text[-_MAX_FORMULA:]
    for cut in re.finditer(r"\n\s*|(?<=[a-z)][.]) ", tail):
        rest = tail[cut.end() :]
        if (
            rest.count("$") % 2 == 0
            and rest.count("\\[") == rest.count("\\]")
            and rest.count("{") == rest.count("}")
            and rest
        ):
            return rest
    return text


def _plain_formula(text: str) -> str:
    """Write a formula that somebody typed without LaTeX as LaTeX."""
    text = (
        text.replace("**", "^").replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ").replace("==", "=")
    )
    text = re.sub(r"^\{([^{}]*)\}$", r"\\{\1\\}", text)
    text = _WORDS.scientific.sub(r"\1\\cdot 10^{\2}", text)
    text = _WORDS.bare_exponent.sub(r"^{\1}", text)
    text = _WORDS.long_exponent.sub(r"^{\1}", text)
    text = re.sub(r"(?<!\\)\babs\(([^()|]{1,200})\)", r"|\1|", text)
    text = _NAMED.sub(lambda name: f"\\{_RENAMED.get(name[1], name[1])} ", text)
    text = re.sub(r"\\sqrt \(([^()]{1,200})\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\A-Za-z])e\^\(([^()]{1,200})\)", r"e^{\1}", text)


def _is_formula(text: str) -> bool:
    """Tell whether all of a text is a formula: no words but names of functions, and something that is no number."""
    text = _WORDS.word_group.sub(r" \\pi ", text)
    end, signs, letters, numbers_seen, words = 0, 0, 0, 0, 0
    for token in _WORDS.token.finditer(text):
        if token.start() != end:
            return False
        end = token.end()
        word = token["word"]
        if word and len(word) > 1 and word not in _NAMES | {"and", "or"}:
            if len(word) > 3 or word.lower() in _WORDS["no_factors"] or (word.istitle() and len(word) > 2):
                return False
            words += 1
        signs += bool(token["sign"] or token["open"] or token["command"])
        letters += bool(word or token["command"])
        numbers_seen += bool(token["number"])
    if end != len(text):
        return False
    if words and not signs and not re.search(r"[0-9][a-z]", text):
        return False
    return bool(signs or (letters and (numbers_seen or len(text) == 1)))


def _spoken(text: str) -> str | None:
    """Write a formula said in words, such as "negative two x squared", as LaTeX; None if it is none."""
    if len(text) > 200 or not re.search("[A-Za-z]{3}", text):
        return None
    text = text.lower()
    for pattern, phrase in _PHRASES:
        text = pattern.sub(phrase, text)
    out: list[str] = []
    kept = False
    for word in re.findall(r"\\sqrt(?:\[3\])?\{|\^\{|[}]|[a-z]+|[0-9]+(?:\.[0-9]+)?|[-+*/=^()]|\S", text):
        last = out[-1] if out else ""
        is_ten = last.isdecimal() and int(last) in range(20, 100, 10)
        if word in _SAID:
            if is_ten and 0 < _SAID[word] < 10:
                out[-1] = str(int(last) + _SAID[word])
            elif last[-1:].isdigit():
                return None
            else:
                out.append(str(_SAID[word]))
        elif word in _SPOKEN:
            out.append(_SPOKEN[word])
        elif word == "-" and last.isdecimal():  # the hyphen of twenty-one
            if not is_ten:
                return None
            continue
        elif word.startswith(("\\sqrt", "^{")):
            out.append(word)
        elif (len(word) == 1 and (word.isalpha() or word in "+*/=^(){}")) or word[0].isdigit():
            if word[0].isdigit() and last[-1:].isdigit():
                return None
            out.append(word)
            continue
        else:
            return None
        kept = True
    return "".join(out) if kept and out else None


# --- telling mathematics from other text

_SURE = re.compile(
    rf"\\(?:{'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])|\\[dtc]?frac\s?[0-9{{]|\\\{{|[√∛∞∪∩∅∫∑∏∈∉ℝℤℚℕℂ]"
)
_SAID_NUMBER = re.compile(rf"(?:(?:negative|minus|percent|{'|'.join(_SAID)})[\s-]*)+")


def _inner_formulas(text: str) -> list[str]:
    r"""List what stands between LaTeX's marks; prices ("$5 and $6") are not between marks."""
    found = re.findall(
        r"\$\$([^$]{1,400})\$\$|(?<![\\\w$])\$(?! )([^$\n]{1,400})(?<! )\$(?![0-9])|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]",
        text,
    )
    return [inner for groups in found for inner in groups if inner]


def _is_telling(text: str) -> bool:
    """Tell whether all of a text is a formula that says more than a number, a letter, a date, or a number with a unit."""
    text = text.strip()
    if "\n" in text or text.endswith(("+", "*", "=", "^", "(")):
        return False
    if _WORDS.variable.fullmatch(text) or _WORDS.sum.fullmatch(text) or text in _CONSTANTS:
        return True
    if _WORDS.trivial.fullmatch(text):
        return False
    if _WORDS.pair.fullmatch(text):
        return all(_WORDS.member.fullmatch(part) for part in re.split("[,;]", text[1:-1]))
    words = set(re.findall(r"(?<!\\)[A-Za-z]{3,}", _WORDS.word_group.sub("", text)))
    if words - _NAMES - {"and", "or"} or not _is_formula(_WORDS.power_unit.sub(" ", text)):
        return False
    return bool(_WORDS.operation.search(text) and _WORDS.operand.search(text)) and not _WORDS.hyphenated.fullmatch(text)


_CONSTANTS = frozenset(["pi", "infinity", "-infinity", "inf", "-inf", "π", "-π"])


# --- answers


@dataclass(frozen=True, slots=True)
class Formula:
    """What a text answers with, if mathematics: equal for equal labels.

    Attributes:
        label: Canonical spelling.
        piece: Where it was read.
    """

    label: str
    piece: Piece = field(compare=False, repr=False)


class Math:
    """The kind of answer that is a formula."""

    name = "math"

    def read(self, text: str, query: str) -> Formula | None:  # noqa: ARG002  # the protocol's
        """Read the formula that a text answers with, or what it says instead; None where it says neither.

        Args:
            text: What a model wrote.
            query: Not looked at.
        """
        piece = find_piece(text)
        return None if piece is None else _formula(piece)

    def same(self, a: Any, b: Any) -> bool:
        """Tell whether two formulas are equal, in either order."""
        if a == b or not isinstance(a, Formula) or not isinstance(b, Formula):
            return bool(a == b)
        first, second = sorted((a, b), key=lambda formula: (formula.label, formula.piece))
        return _same_either_way(first.piece, second.piece)

    def write(self, value: Any) -> str:
        """Write the label of a formula."""
        return value.label if isinstance(value, Formula) else str(value)


def same_math(gold: str, prediction: str) -> bool:
    """Tell whether a prediction gives the gold answer, as the library means it: an equation may answer with its right side.

    Returns:
        False also where either cannot be read.
    """
    wanted, given = find_piece(gold), find_piece(prediction)
    if wanted is None or given is None:
        return False
    if without_space(wanted.plain) == without_space(given.plain):
        return bool(without_space(given.plain))
    return _grades(wanted, given)


# --- the library


class _Library:
    def __init__(self) -> None:
        self.sympy: Any = import_module("sympy")
        self.grader: Any = import_module("math_verify.grader")
        self._parser: Any = import_module("math_verify.parser")
        self._latex: Any = import_module("latex2sympy2_extended.latex2sympy2")
        self.finite_sets = (self.sympy.FiniteSet, import_module("latex2sympy2_extended.sets").FiniteSet)
        self._config = self._parser.LatexExtractionConfig().normalization_config
        modes = import_module("antlr4").PredictionMode
        self._modes = (modes.SLL, modes.LL)  # the first is many times faster and mostly enough
        self._end: int = import_module("antlr4").Token.EOF

        class Converter(self._latex._Latex2Sympy):  # type: ignore[misc, name-defined]  # noqa: SLF001  # no public one tells
            """The library's converter, which also tells what it left unread at the end."""

            mode: Any = None
            first: Any = None

            def create_parser(self, latex_str: str) -> Any:
                parser = super().create_parser(latex_str)
                parser._interp.predictionMode = self.mode  # noqa: SLF001  # as its manual says
                self.first = self.first or parser  # others read arguments of functions
                return parser

        self._converter = Converter

    def warm_up(self) -> None:
        """Read and compare a few formulas: the first take ten times as long as later ones, as parsers fill their tables.

        The library says once that its time-outs are off. It is told so on purpose: the notice goes no further.
        """
        notices = [logging.getLogger(name) for name in ("math_verify.parser", "math_verify.grader")]
        for notice in notices:
            notice.addFilter(_is_news)
        try:
            self.read_prose("7 $x$")
            for gold, prediction in _WARM_UP:
                self.verify(self.read_formula(gold)[0], self.read_formula(prediction)[0])
        finally:
            for notice in notices:
                notice.removeFilter(_is_news)

    def read_prose(self, text: str) -> tuple[Any, ...]:
        """Find the answer in prose by the library's own rules: an expression, if any, and its text."""
        return tuple(self._parser.parse(text, parsing_timeout=None))

    def read_formula(self, latex: str) -> tuple[tuple[Any, ...], str]:
        """Read a formula as the library reads one that stands between dollars.

        Returns:
            The expression, if there is one, and its text; and what was left unread.
        """
        normal = self._latex.normalize_latex(latex, self._config)
        for text in dict.fromkeys((normal, self._parser.get_last_eq(normal))):
            for mode in self._modes:
                converter = self._converter(
                    is_real=not self.grader.should_treat_as_complex(text), convert_degrees=False
                )
                converter.mode = mode
                try:
                    expression = converter.parse(text)
                except Exception:  # noqa: BLE001, S112  # the parser raises it on what it cannot read
                    continue
                rest = self._unread(converter.first, text)
                if not rest or mode is self._modes[-1]:
                    return (expression, normal), rest
        return (normal,) if normal else (), ""

    def verify(self, gold: tuple[Any, ...], prediction: tuple[Any, ...]) -> bool:
        """Compare what was read of a gold answer and a prediction."""
        return bool(self.grader.verify(list(gold), list(prediction), timeout_seconds=None))

    def _unread(self, parser: Any, text: str) -> str:
        token = parser.getTokenStream().LT(1)
        return "" if token.type == self._end else text[token.start :]


def _is_news(record: logging.LogRecord) -> bool:
    return "Timeout is disabled" not in str(record.msg)


_WARM_UP = (
    (r"-\frac{1}{2}x^{2}+3\sqrt{2}\pi-1.5", "a_1+1"), ("2x+3y=6", r"x=2,y\le 3"), (r"[0,1)\cup(2,\infty)", r"(1,2)"),
    (r"\{1,2\}", "(1,2,3)"), (r"\frac{\sqrt{3}}{2}", r"\log_2(8)"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\text{a}"),
    (r"\sin(2x)", r"2\sin x\cos x+1"), (r"\sum_{k=1}^{n}k", r"\int_0^1 x dx"), ("1<x<2", "(1,3)"), ("10^{3}", r"50\%"),
    ("(x+1)^2", "x^2+2x+1"),
)  # fmt: skip


@lru_cache(maxsize=1)
def _loaded() -> _Library:
    library = _Library()
    library.warm_up()
    return library


def _library() -> _Library:
    """Load the library at first use and warm it up."""
    with _watch.turn:
        return _loaded()


class _Read(NamedTuple):
    """What the library reads in a piece.

    Attributes:
        found: The expression and its text; the text alone where it is no expression; empty where nothing was found.
        rest: What the parser left unread of a formula, without words and punctuation.
        slow: How often a comparison with it took too long; one element.
    """

    found: tuple[Any, ...]
    rest: str
    slow: list[int]

    @property
    def is_expression(self) -> bool:
        return bool(self.found) and not isinstance(self.found[0], str)


class _Told(NamedTuple):
    """What an expression is called, None for none, and what tells most expressions apart without simplifying them.

    Attributes:
        label: Its spelling.
        elements: How many it has, 1 for a number; None for what is no finite list.
        value: Its value, or of an equation that of its right side, with a number of its own in the place of each variable.
        gives: Of an equation whether it gives the value of a variable; None for what is none.
    """

    label: str | None
    elements: int | None = None
    value: complex | None = None
    gives: bool | None = None


_NOTHING: tuple[tuple[Any, ...], str] = (), ""


@lru_cache(maxsize=2048)
def _read(piece: Piece) -> _Read:
    library = _library()
    found, rest = _NOTHING
    if piece.text and size(piece.text) <= _MAX_BITS:
        found, rest = _bounded(_PARSE_S, lambda: _parse(library, piece), _NOTHING)
    return _Read(found, _significant(rest), [0])


@lru_cache(maxsize=2048)
def _told(piece: Piece) -> _Told:
    library, read = _library(), _read(piece)
    if not read.is_expression:
        return _Told(None)
    unevaluated = _Told(f"text {without_space(piece.plain)}")
    return _bounded(_GROUP_S, lambda: _tell(library, read.found[0]), unevaluated)


def _tell(library: _Library, expression: Any) -> _Told:
    sympy, label, count, gives = library.sympy, _label(library, expression), None, None
    if isinstance(expression, (*library.finite_sets, sympy.Tuple)):
        count = len(expression.args)
    elif isinstance(expression, sympy.Expr) and not expression.is_Matrix:
        count = 1
    elif library.grader.is_equation(expression):
        last = library.grader.take_last_relation(expression)
        expression, gives = last.rhs, last.lhs.is_Symbol and last.lhs not in last.rhs.free_symbols
    return _Told(label, count, _point(library, expression), gives)


def _parse(library: _Library, piece: Piece) -> tuple[tuple[Any, ...], str]:
    if not piece.whole:
        return library.read_prose(piece.text), ""
    found, rest = library.read_formula(_WORDS.product.sub(_spaced, piece.text.strip("$")))
    if len(found) == 1 and _WORDS.one_number_left.fullmatch(_significant(piece.text)):
        return library.read_prose(f" {_significant(piece.text)} "), ""
    return found, rest


def _spaced(match: re.Match[str]) -> str:
    """Set the letters of a product at the end apart, which the library takes for a unit: "2ab", but not "2cm"."""
    letters = match[1]
    is_unit = letters.casefold() in _UNITS or letters.casefold() in _WORDS["no_units"]
    return letters if is_unit else "".join(rf" \cdot {letter}" for letter in letters)


def _significant(latex: str) -> str:
    return _WORDS.insignificant.sub("", latex)


def _bounded(seconds: float, work: Callable[[], _T], otherwise: _T) -> _T:
    """Run work of the library's within a limit of time; whatever it raises ends in `otherwise`.

    One at a time: sympy notes in shared, cached objects what it is working out, as not known yet.
    """
    with _watch.turn:
        try:
            return run_within(seconds, work)
        except Exception:  # noqa: BLE001  # sympy raises errors of every class, and RecursionError, MemoryError
            return otherwise


def _label(library: _Library, expression: Any) -> str:
    """Spell an expression: what is spelled alike is equal, and most of what is equal is spelled alike."""
    sympy, grader = library.sympy, library.grader

    def listed(parts: Any, link: str = ", ") -> str:
        return link.join(_label(library, part) for part in parts)

    if expression.has(sympy.UnevaluatedExpr):  # a percentage is no number of its own: 9 % is 9 and is 0.09
        return re.sub(r"\*\(1/100\)", "%", str(expression))
    if grader.is_relation(expression):
        text = ""
        for part in getattr(expression, "_unsorted_args", [expression]):
            left, right = _label(library, part.lhs), _label(library, part.rhs)
            text = text if text.endswith(f" {left}") else f"{text} and {left}" if text else left
            text += f" {part.rel_op.replace('==', '=')} {right}"
        return text
    if isinstance(expression, sympy.Interval):
        ends = "(" if expression.left_open else "[", ")" if expression.right_open else "]"
        return ends[0] + listed((expression.start, expression.end)) + ends[1]
    if isinstance(expression, sympy.Union):
        return listed(expression.args, " ∪ ")
    if isinstance(expression, library.finite_sets):
        return "{" + listed(expression.args) + "}"
    if isinstance(expression, sympy.Tuple):
        return "(" + listed(expression.args) + ")"
    decimals = re.sub(r"(\.[0-9]*?)0+(?![0-9])", r"\1", str(grader.safe_sympy_doit(expression)))
    return re.sub(r"\boo\b", "∞", re.sub(r"(?<=[0-9])\.(?![0-9])", "", decimals))


def _point(library: _Library, expression: Any) -> complex | None:
    """Value of an expression with a number in the place of each variable, which depends on the variable's name only."""
    sympy = library.sympy
    if not isinstance(expression, sympy.Expr) or expression.is_Matrix or expression.has(sympy.UnevaluatedExpr):
        return None
    expression = library.grader.safe_sympy_doit(expression)
    if not isinstance(expression, sympy.Expr) or expression.is_Symbol or expression in {sympy.E, sympy.nan, sympy.zoo}:
        return None
    if expression.has(sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative, sympy.MatrixBase):
        return None
    places = {}
    for symbol in expression.free_symbols:
        seed = int.from_bytes(sha256(symbol.name.lower().encode("utf-8", "replace")).digest()[:4], "big")
        places[symbol] = sympy.Rational(3000 + seed % 6007, 10007)
    value = complex(expression.xreplace(places).evalf(15))
    return None if math.isnan(value.real) or math.isnan(value.imag) else value


# --- comparing


def _formula(piece: Piece) -> Formula | None:
    plain = without_space(piece.plain)
    stated = _several(piece)
    if stated:
        return Formula(_short(f"numbers {', '.join(stated)}"), piece._replace(text=""))
    read, label = _read(piece), _told(piece).label
    if label is not None:
        primes = "".join(sorted(name + "'" * count for name, count in _primes(piece) if count))
        base, said = _base(piece), sorted(filter(None, _qualifiers(piece) or ()))
        more = (base and f"in base {base}", primes and f"with {primes}", read.rest and f"and {read.rest}")
        return Formula(_short(" ".join(filter(None, (label, _unit(piece), *more, *said)))), piece)
    if not plain or (not piece.whole and not piece.marked and len(plain) > _MAX_TEXT_ANSWER and not read.found):
        return None
    return Formula(_short(plain if plain.isalpha() else f"text {plain}"), piece)


def _several(piece: Piece) -> list[str]:
    """List the numbers of unmarked prose that states several and no formula: it means all of them."""
    if piece.whole or piece.marked or "$" in piece.text or "\\" in piece.text:
        return []
    stated = numbers(piece.text)
    return stated if len(stated) > 1 else []


def _short(label: str) -> str:
    if len(label) <= _MAX_LABEL:
        return label
    return f"{label[: _MAX_LABEL - 20]}… {sha256(label.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _grades(gold: Piece, prediction: Piece) -> bool:
    several = _several(gold), _several(prediction)
    if several[0] != several[1] and (several[0] or len(prediction.plain) <= _MAX_ANSWER):
        return False  # a longer prediction works towards its last number
    wanted, given = _read(gold), _read(prediction)
    return bool(wanted.found and given.found) and _verified(wanted, given, _GRADE_S) and _really(gold, prediction)


@lru_cache(maxsize=8192)
def _same_either_way(a: Piece, b: Piece) -> bool:
    """Tell whether the library grades two pieces as equal in both orders, or has one order only in which to compare them.

    The one order is the rule where one is a relation and the other a set, which the library compares with the relation as
    gold only; and where one is an equation between numbers ("1 + 2 = 3"), which answers with its right side.
    """
    first, second = _read(a), _read(b)
    if not first.found or not second.found or _differ(a, b):
        return False
    if max(first.slow[0], second.slow[0]) > _MAX_SLOW or not _really(a, b):
        return False
    there = _verified(first, second, _GROUP_S)
    if there and _verified(second, first, _GROUP_S):
        return True
    if not there and not _one_way(second.found[0], first.found[0]):
        return False
    return _one_way(first.found[0], second.found[0]) if there else _verified(second, first, _GROUP_S)


def _one_way(gold: Any, prediction: Any) -> bool:
    library = _library()
    if isinstance(gold, str) or isinstance(prediction, str):
        return False
    if library.grader.is_relation(gold) and isinstance(prediction, library.sympy.Set):
        return True
    return bool(library.grader.is_equation(prediction) and not prediction.free_symbols)


def _differ(a: Piece, b: Piece) -> bool:
    """Tell two expressions apart by their relations, numbers of elements, values; in doubt they may be equal."""
    x, y = _told(a), _told(b)
    stated = [{found.replace(">", "<") for found in _WORDS.relation.findall(told.label or "")} for told in (x, y)]
    if (all(stated) and stated[0] != stated[1]) or (x.elements and y.elements and x.elements != y.elements):
        return True
    comparable = None in (x.gives, y.gives) or (x.gives and y.gives)
    if not comparable or x.value is None or y.value is None or x.value == y.value:
        return False
    rounds = "." in f"{x.label}{y.label}"  # as the library does
    return abs(x.value - y.value) > 1e-9 * max(abs(x.value), abs(y.value)) + (3e-6 if rounds else 0.0)


def _verified(gold: _Read, prediction: _Read, seconds: float) -> bool:
    verdict = _bounded(seconds, lambda: _library().verify(gold.found, prediction.found), None)
    if verdict is None:
        gold.slow[0] += 1
        prediction.slow[0] += 1
    return bool(verdict)


def _really(a: Piece, b: Piece) -> bool:
    """Tell whether what the library takes for equal is: units, bases, brackets, primes, "not" and "at least", the unread.

    A unit, a base and a kind of brackets may be missing in one of two; what stands in both must be equal.
    """
    for told in (_unit, _base, _brackets):
        if len({told(a), told(b)} - {None}) > 1:
            return False
    primes = dict(_primes(a)), dict(_primes(b))
    if any(primes[0][name] != primes[1][name] for name in primes[0].keys() & primes[1].keys()):
        return False
    said = {_qualifiers(a), _qualifiers(b)} - {None}
    return len(said) < 2 and _read(a).rest == _read(b).rest and not _far(_told(a), _told(b))


def _far(a: _Told, b: _Told) -> bool:
    if not a.value or not b.value or a.gives is not None or b.gives is not None:
        return False
    return abs(a.value - b.value) > 1e-3 * max(abs(a.value), abs(b.value))


_MAX_QUALIFIED = 80


def _base(piece: Piece) -> str | None:
    found = _WORDS.base.search(piece.text.strip("$ "))
    return found and found[1]


def _primes(piece: Piece) -> frozenset[tuple[str, int]]:
    """Count the primes of each letter of a formula, the most that it has anywhere."""
    if not piece.whole:
        return frozenset()
    counts: dict[str, int] = {}
    for found in _WORDS.primed.finditer(piece.text):
        counts[found[1]] = max(counts.get(found[1], 0), found[2].count("'") + found[2].count("prime"))
    return frozenset(counts.items())


def _qualifiers(piece: Piece) -> frozenset[str | None] | None:
    """List what a short text says of its number that makes it another one; None for a long text, which says much."""
    if len(piece.plain) > _MAX_QUALIFIED:
        return None
    return frozenset(found.lastgroup for found in _WORDS.qualifier.finditer(piece.plain))


_MAX_UNIT_CHARS = 300
_UNITS = {name: row.split()[0] for line in _WORDS.rows("units") for row in line for name in row.split()}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}


@lru_cache(maxsize=2048)
def _unit(piece: Piece) -> str | None:
    """Find the unit after the last number of a text, in its canonical name; words that are no known unit count as one."""
    bare = re.sub(r"[\s.$*_`]+$", "", to_latex(piece.plain[-_MAX_UNIT_CHARS:]))
    worded = _WORDS.unit_text.search(bare)
    if worded and re.search(r"[0-9}]", bare[: worded.start()]):
        words, power = worded[1], worded[2]
        known = _unit_name(words, power)
        return known or (
            None if words.lower().split()[0] in _WORDS["no_units"] else without_space(words) + (power or "")
        )
    found = list(_WORDS.unit_plain.finditer(bare))
    if found and not re.search("[0-9]", bare[found[-1].end() :]):
        last = found[-1]
        words = last[1].split()
        for count in range(len(words), 0, -1):
            name = _unit_name(" ".join(words[:count]), last[2] if count == len(words) else None)
            if name and (len(words[0]) > 1 or _WORDS.number_and_letter.fullmatch(bare)):
                return name
    money = _WORDS.money.search(bare.removeprefix("$") if piece.whole else bare)
    return None if money is None else {"€": "euro", "£": "pound sterling", "¥": "yen"}.get(money[0], "dollar")


def _unit_name(words: str, power: str | None) -> str | None:
    parts = words.lower().replace(" per ", "/").replace(" / ", "/").replace(".", "").split()
    if parts and parts[0] in _POWERS:
        power, parts = _POWERS[parts[0]], parts[1:]
    elif len(parts) == 2 and parts[1] in {"squared", "cubed"}:
        power, parts = {"squared": "2", "cubed": "3"}[parts[1]], parts[:1]
    if len(parts) != 1:
        return None
    word = parts[0]
    name = _UNITS.get(word) or (_UNITS.get(word[:-1]) if word.endswith("s") else None)
    if name is None and "/" in word:
        above, _, below = word.partition("/")
        names = [_UNITS.get(part, _UNITS.get(part.removesuffix("s"))) for part in (above, below)]
        name = "/".join(filter(None, names)) if all(names) else None
        name = {"km/h": "km/h", "mi/h": "mph"}.get(name or "", name)
    return None if name is None else name + (power or "")


def _brackets(piece: Piece) -> str | None:
    r"""Tell a set in braces from a tuple or an interval in other brackets, for a formula that is one of them."""
    inner = re.sub(r"\\(?:left|right|,|;|!)(?![A-Za-z])|[\s.$]", "", piece.text)
    inner = re.split(r"=|\\in(?![A-Za-z])", inner)[-1]
    if inner.startswith(("\\{", "\\lbrace")) and inner.endswith(("\\}", "\\rbrace")):
        return "set"
    pair = inner[:1] in {"(", "["} and inner[-1:] in {")", "]"} and "," in inner
    return "tuple" if pair and inner.find(")") in (-1, len(inner) - 1) else None


# --- time limits

_PACKAGES = frozenset(["sympy", "mpmath", "antlr4", "latex2sympy2_extended", "math_verify"])
_TICK_S = 0.02
_MAX_PER_TICK_S = 2 * _TICK_S
_IDLE_TICKS = 50
_WALL_FACTOR = 20
_STEPS = 1000


class _Expired(BaseException):
    """The time is up; no `Exception`, so that no library takes it for an error of its own."""


class _Job:
    """Work under way, and how much of its time is used, counted at each look of the watcher.

    One look counts `_MAX_PER_TICK_S` at most. Where the watcher itself could not run for longer (the machine stood still, the
    garbage collector held the interpreter), this was not the work's doing, although the thread's clock ran on.
    """

    def __init__(self, seconds: float, packages: Collection[str]) -> None:
        self.packages = packages
        self.thread_id = threading.get_ident()
        self.was_thrown = False
        try:
            clock = time.pthread_getcpuclockid(self.thread_id)
            self.clock: Callable[[], float] = lambda: time.clock_gettime(clock)
            self.seen_s = self.clock()
        except (AttributeError, OSError):  # no clock for each thread on this system
            self.clock = time.monotonic
            self.seen_s = self.clock()
        self.left_s = seconds
        self.wall_end = time.monotonic() + seconds * _WALL_FACTOR

    def is_due(self) -> bool:
        """Tell whether the time is up and the thread stands in code of the packages; it goes on from there."""
        now_s = self.clock()
        self.left_s -= min(now_s - self.seen_s, _MAX_PER_TICK_S)
        self.seen_s = now_s
        if self.left_s > 0 and time.monotonic() < self.wall_end:
            return False
        frame = sys._current_frames().get(self.thread_id)  # noqa: SLF001  # documented under this name
        return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in self.packages


class _Watch:
    """The jobs under way, and the thread that watches them, None where none runs."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, as in a forked process: no watcher runs there, and who held a lock is gone."""
        self.turn = threading.RLock()
        self.lock = threading.Lock()
        self.jobs: set[_Job] = set()
        self.thread: threading.Thread | None = None

    def begin(self, job: _Job) -> None:
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="langchain-rlfocal-time-limit", daemon=True)
                self.thread.start()
            self.jobs.add(job)

    def end(self, job: _Job) -> None:
        """Stop watching; once this returns, no exception is on its way any more."""
        while True:
            try:
                with self.lock:
                    self.jobs.discard(job)
                if job.was_thrown:
                    # It is raised at a jump back, if it has not been. Taking it back instead would leave the interpreter
                    # checking for it at every step from then on.
                    for _ in range(_STEPS):
                        pass
            except _Expired:
                continue
            return

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(_TICK_S)
            with self.lock:
                idle = 0 if self.jobs else idle + 1
                if idle > _IDLE_TICKS:
                    self.thread = None
                    return
                for job in filter(_Job.is_due, self.jobs):
                    job.was_thrown = True  # raised at that thread's next step
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(job.thread_id), ctypes.py_object(_Expired)
                    )


_watch = _Watch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch.reset)


def run_within(seconds: float, work: Callable[[], _T], *, packages: Collection[str] = _PACKAGES) -> _T:
    """Run work in this thread, and end it when its time is up and it runs a library's own code.

    A library that simplifies cannot be asked how long it will take. A watching thread throws an exception into this one,
    but not where that would be lost: in an import, or a callback of the garbage collector. A single operation in C ends
    when it ends.

    Args:
        seconds: Processor time that the work may use, so that a busy machine changes no result.
        work: What to run; must not call this function again.
        packages: Names of the packages in whose code it may be ended.

    Raises:
        TimeoutError: The time was up before the work was done.
    """
    job = _Job(seconds, packages)
    try:
        try:
            _watch.begin(job)
            return work()
        finally:
            _watch.end(job)
    except _Expired:
        raise TimeoutError(f"Not done within {seconds} s of processor time.") from None

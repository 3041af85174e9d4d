r"""Mathematics: tell whether two formulas are equal, by the library that graders of mathematics use (math-verify).

`math_text` finds the formula that a text answers with; the library parses it and compares two of them: numbers to six
decimal places, expressions by simplifying their difference, sets, intervals, matrices, relations. Around it stands what
it lacks: no signals (they fail outside the main thread), bounds on what is parsed (`math_text.size`) and a limit of
processor time on the rest (`time_limit`), an answer in either order, and what it takes for the same although it is not:
units that differ, a set and a tuple, formulas of which it read the beginning only.

Refuses to guess: what cannot be parsed, or takes too long, is the same as its own text only. Never raises, whatever the
text. Without the library only equal text is equal.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from langchain_rlfocal.answers import math_text
from langchain_rlfocal.answers.math_text import Piece, looks_like_math
from langchain_rlfocal.answers.time_limit import run_within

__all__ = ["Formula", "Math", "looks_like_math", "same_math"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_MAX_BITS = 8000
"""Bits of the largest number that evaluating a formula may meet; a power modulo such a number takes 0.2 s, in C."""

_PACKAGES = frozenset(["sympy", "mpmath", "antlr4", "latex2sympy2_extended", "math_verify"])

_MAX_LABEL = 80
_PARSE_S = 0.3
_GRADE_S = 0.3
_GROUP_S = 0.2
_MAX_SLOW = 2
_MAX_TEXT_ANSWER = 120
_MAX_ANSWER = 40

_turn = threading.RLock()
"""Held while the library works: sympy notes in shared, cached objects what it is working out, as not known yet."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turn._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001  # as logging does  # sympy marks in shared, cached objects what it is working out: another thread would take "unknown" for the answer


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
        piece = math_text.find_piece(text)
        return None if piece is None else _formula(piece)

    def same(self, a: Any, b: Any) -> bool:
        """Tell whether two formulas are equal, in either order."""
        if not isinstance(a, Formula) or not isinstance(b, Formula):
            return bool(a == b)
        if a == b:
            return True
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
    wanted, given = math_text.find_piece(gold), math_text.find_piece(prediction)
    if wanted is None or given is None:
        return False
    if math_text.without_space(wanted.plain) == math_text.without_space(given.plain):
        return bool(math_text.without_space(given.plain))
    return _grades(wanted, given)


# --- the library


class _Library:
    """What is used of the library, and of those that it is built on."""

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
)  # fmt: skip


def _library() -> _Library | None:
    """Load the library at first use and warm it up; None, with one warning, where it is not installed."""
    with _turn:
        try:
            return _load()
        except ImportError as error:
            _warn(str(error))
            return None


@lru_cache(maxsize=1)
def _warn(why: str) -> None:
    _log.warning("Formulas are compared as text only (%s). Install math-verify to compare what they mean.", why)


@lru_cache(maxsize=1)
def _load() -> _Library:
    library = _Library()
    library.warm_up()
    return library


class _Sketch(NamedTuple):
    """What tells most expressions apart without simplifying them.

    Attributes:
        kind: `"number"`, `"list"` (a finite set or tuple), `"interval"`, `"region"` (any other set), `"matrix"`,
            `"equation"`, `"relations"`, `"unknown"`.
        values: Values of the number, the elements, the ends, with a number of its own in the place of each variable.
        shape: What else must be equal in two of a kind.
    """

    kind: str
    values: tuple[complex, ...] = ()
    shape: tuple[Any, ...] = ()
    side: Any = None


_UNKNOWN = _Sketch("unknown")


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
    """What an expression is called, None for none, and what tells it from others."""

    label: str | None
    sketch: _Sketch


_NOTHING: tuple[tuple[Any, ...], str] = (), ""


@lru_cache(maxsize=2048)
def _read(piece: Piece) -> _Read:
    library = _library()
    found, rest = _NOTHING
    if library is not None and piece.text and math_text.size(piece.text) <= _MAX_BITS:
        found, rest = _bounded(_PARSE_S, lambda: _parse(library, piece), _NOTHING)
    return _Read(found, _significant(rest), [0])


@lru_cache(maxsize=2048)
def _told(piece: Piece) -> _Told:
    library, read = _library(), _read(piece)
    if library is None or not read.is_expression:
        return _Told(None, _UNKNOWN)
    unevaluated = _Told(f"text {math_text.without_space(piece.plain)}", _UNKNOWN)
    return _bounded(
        _GROUP_S, lambda: _Told(_label(library, read.found[0]), _sketch(library, read.found[0])), unevaluated
    )


def _parse(library: _Library, piece: Piece) -> tuple[tuple[Any, ...], str]:
    if not piece.whole:
        return library.read_prose(piece.text), ""
    found, rest = library.read_formula(_PRODUCT.sub(_spaced, piece.text.strip("$")))
    if len(found) == 1 and _ONE_NUMBER_LEFT.fullmatch(_significant(piece.text)):
        return library.read_prose(f" {_significant(piece.text)} "), ""
    return found, rest


_PRODUCT = re.compile(r"(?<=[0-9])([a-zA-Z]{2,4})(?=[\s.$)}\]]{0,8}$)")


def _spaced(match: re.Match[str]) -> str:
    """Set the letters of a product at the end apart, which the library takes for a unit: "2ab", but not "2cm"."""
    letters = match[1]
    return (
        letters
        if letters.casefold() in _UNITS or letters.casefold() in _NO_UNITS
        else "".join(rf" \cdot {letter}" for letter in letters)
    )


_WORDS = re.compile(
    r"\\(?:text|textbf|mbox|mathrm)\s?\{[^{}]*\}|\\(?:quad|qquad|left|right|[,;:! ])|\^\s?\{?\s?\\circ\s?\}?|\\(?:approx|sim)(?![A-Za-z])|\\?\$|[\s.,;:?!~]+$|\s"
)
_ONE_NUMBER_LEFT = re.compile(r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")


def _significant(latex: str) -> str:
    """Drop words, white space and punctuation from LaTeX."""
    return _WORDS.sub("", latex)


def _bounded(seconds: float, work: Callable[[], _T], otherwise: _T) -> _T:
    """Run work of the library's, one at a time, within a limit of time; whatever it raises ends in `otherwise`."""
    with _turn:
        try:
            return run_within(seconds, work, packages=_PACKAGES)
        except Exception:  # noqa: BLE001  # sympy raises errors of every class, and RecursionError, MemoryError
            return otherwise


def _label(library: _Library, expression: Any) -> str:
    """Spell an expression: what is spelled alike is equal, and most of what is equal is spelled alike."""
    sympy, grader = library.sympy, library.grader
    if expression.has(sympy.UnevaluatedExpr):  # a percentage is no number of its own: 9 % is 9 and is 0.09
        return re.sub(r"\*\(1/100\)", "%", str(expression))
    if grader.is_relation(expression):
        parts = getattr(expression, "_unsorted_args", [expression])
        text = ""
        for part in parts:
            left, right = _label(library, part.lhs), _label(library, part.rhs)
            text = text if text.endswith(f" {left}") else f"{text} and {left}" if text else left
            text += f" {part.rel_op.replace('==', '=')} {right}"
        return text
    if isinstance(expression, sympy.Interval):
        start, end = "(" if expression.left_open else "[", ")" if expression.right_open else "]"
        return f"{start}{_label(library, expression.start)}, {_label(library, expression.end)}{end}"
    if isinstance(expression, sympy.Union):
        return " ∪ ".join(_label(library, part) for part in expression.args)
    if isinstance(expression, library.finite_sets):
        return "{" + ", ".join(_label(library, part) for part in expression.args) + "}"
    if isinstance(expression, sympy.Tuple):
        return "(" + ", ".join(_label(library, part) for part in expression.args) + ")"
    decimals = re.sub(r"(\.[0-9]*?)0+(?![0-9])", r"\1", str(grader.safe_sympy_doit(expression)))
    return re.sub(r"\boo\b", "∞", re.sub(r"(?<=[0-9])\.(?![0-9])", "", decimals))


def _sketch(library: _Library, expression: Any) -> _Sketch:
    sympy, grader = library.sympy, library.grader
    if expression.has(sympy.UnevaluatedExpr):
        return _UNKNOWN
    if grader.is_equation(expression):
        last = grader.take_last_relation(expression)
        return _Sketch("equation", shape=_relation(library, last) or (), side=_sketch(library, last.rhs))
    if grader.is_relation(expression):
        parts = getattr(expression, "_unsorted_args", [expression])
        return _Sketch("relations", shape=tuple(_relation(library, part) for part in parts))
    if isinstance(expression, sympy.Interval):
        return _listed(library, "interval", (expression.start, expression.end))
    if isinstance(expression, (*library.finite_sets, sympy.Tuple)):
        return _listed(library, "list", expression.args)
    if isinstance(expression, sympy.Set):
        parts = expression.args if isinstance(expression, sympy.Union) else ()
        return _Sketch("region", shape=("infinite",) * any(isinstance(part, sympy.Interval) for part in parts))
    expression = grader.safe_sympy_doit(expression)
    if isinstance(expression, sympy.MatrixBase):
        return _listed(library, "matrix", tuple(expression.flat()), shape=expression.shape)
    value = _point(library, expression)
    return _UNKNOWN if value is None else _Sketch("number", (value,))


def _listed(library: _Library, kind: str, elements: tuple[Any, ...], *, shape: tuple[Any, ...] = ()) -> _Sketch:
    values = [_point(library, library.grader.safe_sympy_doit(element)) for element in elements]
    known = tuple(value for value in values if value is not None)
    return _Sketch(kind, known if len(known) == len(values) else (), (len(values), *shape))


def _relation(library: _Library, relation: Any) -> tuple[str, str, complex] | None:
    """Write "x < 3" and "3 > x" as x, <, 3; None for a relation that is not between a variable and a number."""
    left, operator, right = relation.lhs, relation.rel_op, relation.rhs
    if right.is_Symbol and not left.free_symbols:
        left, right = right, left
        operator = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator)
    if not left.is_Symbol or left in right.free_symbols or (right.free_symbols and operator != "=="):
        return None
    value = _point(library, right)
    return (
        None if value is None else (left.name if not right.free_symbols else f"{left.name} by others", operator, value)
    )


def _point(library: _Library, expression: Any) -> complex | None:
    """Value of an expression with a number in the place of each variable, which depends on the variable's name only."""
    sympy = library.sympy
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
    plain = math_text.without_space(piece.plain)
    stated = _several(piece)
    if stated:
        return Formula(_short(f"numbers {', '.join(stated)}"), piece._replace(text=""))
    read, label = _read(piece), _told(piece).label
    if label is not None:
        primes = "".join(sorted(name + "'" * count for name, count in _primes(piece) if count))
        base, said = _base(piece), sorted(filter(None, _qualifiers(piece) or ()))
        told = (
            label,
            _unit(piece),
            base and f"in base {base}",
            primes and f"with {primes}",
            read.rest and f"and {read.rest}",
            *said,
        )
        return Formula(_short(" ".join(filter(None, told))), piece)
    if not plain or (not piece.whole and not piece.marked and len(plain) > _MAX_TEXT_ANSWER and not read.found):
        return None
    return Formula(_short(plain if plain.isalpha() or _library() is None else f"text {plain}"), piece)


def _several(piece: Piece) -> list[str]:
    """List the numbers of unmarked prose that states several and no formula: it means all of them."""
    if piece.whole or piece.marked or "$" in piece.text or "\\" in piece.text:
        return []
    stated = math_text.numbers(piece.text)
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
    if not first.found or not second.found or _differ(_told(a).sketch, _told(b).sketch, rounded=_rounds(a, b)):
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
    if library is None or isinstance(gold, str) or isinstance(prediction, str):
        return False
    if library.grader.is_relation(gold) and isinstance(prediction, library.sympy.Set):
        return True
    return bool(library.grader.is_equation(prediction) and not prediction.free_symbols)


def _differ(a: _Sketch, b: _Sketch, *, rounded: bool) -> bool:
    """Tell two expressions apart by their sketches; in doubt they may be equal."""
    kinds = {a.kind, b.kind}
    if kinds <= {"equation", "relations"}:
        return _relations_differ(a, b, rounded=rounded)
    if "equation" in kinds:  # it answers with its right side
        return _differ(a.side or a, b.side or b, rounded=rounded)
    if "unknown" in kinds:
        return False
    if len(kinds) == 1:
        if a.shape != b.shape:
            return a.kind != "region"
        return bool(a.values and b.values) and not _all_close(a, b, rounded=rounded)
    if kinds == {"list", "interval"}:
        return a.shape != b.shape or (bool(a.values and b.values) and not _all_close(a, b, rounded=rounded))
    if kinds == {"list", "number"}:
        return (a if a.kind == "list" else b).shape != (1,)
    if kinds == {"list", "region"}:
        return bool((a if a.kind == "region" else b).shape)
    if kinds == {"list", "relations"}:
        return True
    return "number" in kinds or "matrix" in kinds


def _relations_differ(a: _Sketch, b: _Sketch, *, rounded: bool) -> bool:
    relations = [sketch.shape if sketch.kind == "relations" else (sketch.shape,) for sketch in (a, b)]
    if not all(relation for relation in relations[0] + relations[1]):
        return False
    x, y = (sorted(relation, key=lambda part: (part[:2], *_order(part[2]))) for relation in relations)
    if any(part[0].endswith(" by others") for part in x + y) and {part[0] for part in x} != {part[0] for part in y}:
        return False
    return len(x) != len(y) or any(
        p[:2] != q[:2] or not _close(p[2], q[2], rounded=rounded) for p, q in zip(x, y, strict=True)
    )


def _all_close(a: _Sketch, b: _Sketch, *, rounded: bool) -> bool:
    pairs = zip(sorted(a.values, key=_order), sorted(b.values, key=_order), strict=True)
    return all(_close(x, y, rounded=rounded) for x, y in pairs)


def _order(value: complex) -> tuple[float, float]:
    return round(value.real, 5), round(value.imag, 5)


def _close(x: complex, y: complex, *, rounded: bool) -> bool:
    return x == y or abs(x - y) <= 1e-9 * max(abs(x), abs(y)) + (3e-6 if rounded else 0.0)


def _rounds(a: Piece, b: Piece) -> bool:
    """Tell whether the library rounds, which it does where there is a decimal point."""
    return "." in (_told(a).label or "") or "." in (_told(b).label or "")


def _verified(gold: _Read, prediction: _Read, seconds: float) -> bool:
    library = _library()
    if library is None:
        return False
    verdict = _bounded(seconds, lambda: library.verify(gold.found, prediction.found), None)
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
    return len(said) < 2 and _read(a).rest == _read(b).rest and not _far(_told(a).sketch, _told(b).sketch)


def _far(a: _Sketch, b: _Sketch) -> bool:
    """Tell apart small numbers that are the same to six decimal places, such as 1e-7 and 2e-7."""
    if a.kind != "number" or b.kind != "number":
        return False
    x, y = a.values[0], b.values[0]
    return bool(x and y) and abs(x - y) > 1e-3 * max(abs(x), abs(y))


_BASE = re.compile(r"[0-9]\s?_\s?\{?\s?([0-9]+|\\text\s?\{[^{}]*\})\s?\}?[\s.]*$")
_PRIMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])((?:'|\^\s?\{?\s?(?:\\prime\s?|'))*)")
_QUALIFIER = re.compile(
    r"\b(?:(?P<no>not|never|no|isn't|except)|(?P<less>less|fewer|under|below|smaller|lower|at most|up to|maximum)"
    r"|(?P<more>more|greater|over|above|larger|higher|at least|minimum)|(?P<between>between|from))\b",
    re.IGNORECASE,
)
_MAX_QUALIFIED = 80


def _base(piece: Piece) -> str | None:
    found = _BASE.search(piece.text.strip("$ "))
    return found and found[1]


def _primes(piece: Piece) -> frozenset[tuple[str, int]]:
    """Count the primes of each letter of a formula, the most that it has anywhere."""
    if not piece.whole:
        return frozenset()
    counts: dict[str, int] = {}
    for found in _PRIMED.finditer(piece.text):
        counts[found[1]] = max(counts.get(found[1], 0), found[2].count("'") + found[2].count("prime"))
    return frozenset(counts.items())


def _qualifiers(piece: Piece) -> frozenset[str | None] | None:
    """List what a short text says of its number that makes it another one; None for a long text, which says much."""
    if len(piece.plain) > _MAX_QUALIFIED:
        return None
    return frozenset(found.lastgroup for found in _QUALIFIER.finditer(piece.plain))


_UNIT_TEXT = re.compile(
    r"\\(?:text|mathrm|mbox|textrm|rm)\s?\{\s*([^{}]{1,60}?)\s*\}\s*(?:\^\s?\{?\s*(-?[0-9])\s*\}?)?[\s.$]*$"
)
_UNIT_PLAIN = re.compile(
    r"[0-9}]\$?\s?(?:\\[,; ]|~)?\s?((?:[A-Za-zµ]+(?:\s?/\s?|\s)?){1,3})\s?(?:\^\s?\{?\s*(-?[0-9])\s*\}?)?(?![A-Za-z])"
)
_NUMBER_AND_LETTER = re.compile(r"\$?-?[0-9][0-9.,]*\s?[mgslh]\s?(?:\^\s?\{?[0-9]\}?)?")
_MAX_UNIT_CHARS = 300
_MONEY = re.compile(r"\\\$|(?<![\w$])\$(?=[0-9][0-9.,]*$)|€|£|¥")
_NAMES = (
    "m meter metre", "cm centimeter centimetre", "mm millimeter millimetre", "km kilometer kilometre", "ft foot feet",
    "in inch inche", "yd yard", "mi mile", "g gram gm", "kg kilogram", "mg milligram", "lb pound", "oz ounce", "s second sec",
    "min minute", "h hour hr", "day", "week", "month", "year yr", "l liter litre", "ml milliliter millilitre", "gal gallon",
    "degree deg", "radian rad", "dollar usd", "cent", "euro eur", "mph", "mile/hour mile/h mi/h", "km/h kmh kph", "m/s", "rupee rs",
    "am", "pm", "j joule", "n newton", "w watt", "kw", "v volt", "a amp ampere", "k kelvin", "hz hertz", "mol mole", "pa", "acre", "hectare",
)  # fmt: skip
_UNITS = {name: names.split()[0] for names in _NAMES for name in names.split()}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_NO_UNITS = frozenset(["and", "or", "if", "for", "where", "when", "i", "th", "st", "nd", "rd", "a", "h", "s"])


@lru_cache(maxsize=2048)
def _unit(piece: Piece) -> str | None:
    """Find the unit after the last number of a text, in its canonical name; words that are no known unit count as one."""
    bare = re.sub(r"[\s.$*_`]+$", "", math_text.to_latex(piece.plain[-_MAX_UNIT_CHARS:]))
    worded = _UNIT_TEXT.search(bare)
    if worded and re.search(r"[0-9}]", bare[: worded.start()]):
        words, power = worded[1], worded[2]
        known = _unit_name(words, power)
        return known or (
            None if words.lower().split()[0] in _NO_UNITS else math_text.without_space(words) + (power or "")
        )
    found = list(_UNIT_PLAIN.finditer(bare))
    if found and not re.search("[0-9]", bare[found[-1].end() :]):
        last = found[-1]
        words = last[1].split()
        for count in range(len(words), 0, -1):
            name = _unit_name(" ".join(words[:count]), last[2] if count == len(words) else None)
            if name and (len(words[0]) > 1 or _NUMBER_AND_LETTER.fullmatch(bare)):
                return name
    money = _MONEY.search(bare.removeprefix("$") if piece.whole else bare)
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
    return (
        "tuple"
        if inner[:1] in "(["
        and inner[-1:] in ")]"
        and "," in inner
        and inner.find(")") in (-1, len(inner) - 1)
        and inner[:1]
        else None
    )

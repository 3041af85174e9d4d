r"""Quantities: the numbers of a text, whole, with their signs, scales, units and currencies; and those that are names.

| kind | value | label |
|---|---|---|
| `number` | `Fraction`; `Huge` beyond 1e±1000; `("ordinal", n)` | `1234.5`, `1/3`, `1e+999999`, `3.` |
| `quantity` | (base unit, amount); (`"per s"`, 21600) for "every 6 hours" | `5400 s`, `50/3 m/s`, `per 21600 s` |
| `money` | (currency, amount) | `1234.5 USD` |
| `percent` | (`"%"`, `"pp"`, `"‰"` or `"bp"`, amount) | `50%`, `5 pp` |
| `ratio` | 3:2 is `("ratio", 3, 2)`, 9 of 12 `("of", 9, 12)`, 120/80 `("/", 120, 80)` | `3:2`, `9 of 12`, `120/80` |
| `range` | (base unit or `""`, from, to) | `5 to 7`, `5000 to 7000 m` |
| `identifier` | its text, without what does not tell it from others | `ord-2024-0117`, `+15550100123` |

- Amounts are exact. Units are converted only by definition: a ton, a gallon, a cup and a calorie are several units, so
  that each equals nothing but itself; a month is no number of days. Doses are no speeds: "5 mg per day" is two facts.
- Ages are numbers: "35 years old" is 35. Nouns that are counted are no units: "8 planets" is 8.
- Number words are read in English, Russian and Chinese by the rules here; in German, French, Spanish, Italian,
  Portuguese and Dutch by `text2num`. Names of units and currencies in other languages come from CLDR through `babel`.
  Both are loaded at the first word that might be one of theirs. All other words are in `words/quantities.toml`.
- 1.234 is a thousand and more where the language of the text, or else of the question, writes it so.

Dates and times of day are another finder's. Every step is linear in the text.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from ipaddress import ip_address
from math import gcd, prod
from typing import Final

from langchain_rlfocal.answers.values import (
    ORDINAL_WORDS,
    TEN_WORDS,
    UNIT_WORDS,
    Words,
    decimal_text,
    digits_of,
    number_text_of,
)

__all__ = ["Fact", "Huge", "find_quantities", "number_of"]

_MAX_EXPONENT = 1000
_MAX_DIGITS = 1000


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact in a text.

    Attributes:
        start: Where it begins in the text.
        end: Where it ends, exclusive.
        kind: `"number"`, `"quantity"`, `"money"`, `"percent"`, `"date"`, `"time"`, `"identifier"`, `"range"`, `"ratio"`.
        value: What it states; equal kinds and values mean the same.
        label: Canonical spelling; different values of a kind have different labels.
        stated: The bare number that it is written with, if it is just one: 90 in "90 minutes".
    """

    start: int
    end: int
    kind: str
    value: Hashable
    label: str
    stated: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Huge:
    """A number too large or too small to be written out: digits × 10^exponent.

    Attributes:
        digits: Signed; not divisible by ten.
        exponent: Power of ten.
    """

    digits: int
    exponent: int


Amount = Fraction | Huge


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit: amount × factor is the amount of the base unit; a temperature is (amount + offset) × factor."""

    kind: str
    base: str
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    powers: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class _Atom:
    """One number as it stands in the text, before it is joined with its neighbours."""

    start: int
    end: int
    kind: str
    amount: Amount = Fraction(0)
    unit: _Unit | None = None
    value: Hashable = None
    label: str = ""
    scale: int = 1  # that of "million", which a range may share
    part: bool = False  # a fraction in words, which may follow "and"


_WORDS: Final = Words("quantities")


# Units.


def _quantity(base: str, factor: Fraction | int) -> _Unit:
    powers = []
    for at, side in enumerate(base.split("/")):
        for piece in side.split("·"):
            name, _, power = piece.partition("^")
            powers.append((name, int(power or 1) * (-1 if at else 1)))
    return _Unit("quantity", base, Fraction(factor), powers=tuple(sorted(powers)))


def _combined(a: _Unit, b: _Unit, power: int) -> _Unit:
    powers = dict(a.powers)
    for name, exponent in b.powers:
        powers[name] = powers.get(name, 0) + exponent * power
    above = "·".join(f"{name}^{n}" if n > 1 else name for name, n in sorted(powers.items()) if n > 0)
    below = "·".join(f"{name}^{-n}" if n < -1 else name for name, n in sorted(powers.items()) if n < 0)
    base = f"{above or 1}/{below}" if below else above or f"{a.base}/{b.base}"
    kept = tuple(sorted((name, n) for name, n in powers.items() if n))
    return _Unit("quantity", base, a.factor * b.factor**power, powers=kept)


def _spelled(names: str) -> list[str]:
    return [name.replace("_", " ") for name in names.split()]


def _build() -> tuple[dict[str, _Unit], dict[str, _Unit], dict[str, int]]:
    symbols: dict[str, _Unit] = {}
    names: dict[str, _Unit] = {}
    prefixes = {sign: (name, Fraction(10) ** int(power)) for sign, name, power in _WORDS.rows("prefixes")}
    for signs, words, base, factor, taken in _WORDS.rows("prefixed_units"):
        scaled = [("", "", Fraction(factor)), *((sign, *prefixes[sign]) for sign in taken)]
        for sign, prefix, by in scaled:
            unit = _quantity(base, by if not sign else by * Fraction(factor))
            symbols |= {sign + symbol: unit for symbol in signs.split()}
            names |= {prefix + word: unit for word in _spelled(words)}
    for signs, words, base, factor in _WORDS.rows("units"):
        unit = _quantity(base, Fraction(factor))
        symbols |= dict.fromkeys(_spelled(signs), unit)
        names |= dict.fromkeys(_spelled(words), unit)
    for word, unit in [item for item in (*symbols.items(), *names.items()) if item[1].base == "m"]:
        square, cube = _combined(unit, unit, 1), _combined(_combined(unit, unit, 1), unit, 1)
        if word in symbols:
            symbols |= {f"{word}2": square, f"{word}3": cube, f"sq {word}": square, f"cu {word}": cube}
        names |= {f"square {word}": square, f"cubic {word}": cube, f"sq {word}": square}
    for scale, unit in (("celsius centigrade c", _CELSIUS), ("fahrenheit f", _FAHRENHEIT)):
        for word in scale.split():
            names |= {f"{degree} {word}": unit for degree in ("degrees", "degree", "deg")}
            names |= {word: unit} if len(word) > 1 else {}
    for words, code, parts in _WORDS.rows("money"):
        names |= dict.fromkeys(_spelled(words), _Unit("money", code, Fraction(1, int(parts))))
    symbols |= {code: _Unit("money", "CNY" if code == "RMB" else code) for code in _WORDS["currency_codes"]}
    for words, sign in _WORDS.rows("percent"):
        names |= dict.fromkeys(_spelled(words), _Unit("percent", sign))
    folded: dict[str, set[_Unit]] = {}
    for symbol, unit in symbols.items():
        folded.setdefault(symbol.casefold(), set()).add(unit)
        if (symbol[0] in "MP" and symbol != "MHz") or symbol in _WORDS["cased_codes"]:
            folded[symbol.casefold()].add(_CELSIUS)  # not to be read in another case: "mpa" might be a thousandth
    for symbol, units in folded.items():
        if len(units) == 1 and len(symbol) > 1:  # a unit whatever the case; "mw" may be two
            names.setdefault(symbol, next(iter(units)))
    first: dict[str, int] = {}
    for name in (*names, *symbols):
        head, _, rest = name.casefold().partition(" ")
        if rest:
            first[head] = max(first.get(head, 0), rest.count(" ") + 1)
    return symbols, names, first


_CELSIUS: Final = _Unit("quantity", "K", Fraction(1), Fraction(27_315, 100), (("K", 1),))
_FAHRENHEIT: Final = _Unit("quantity", "K", Fraction(5, 9), Fraction(45_967, 100), (("K", 1),))
_SYMBOLS, _NAMES, _FIRST = _build()
_PENNY: Final = _Unit("money", "GBP", Fraction(1, 100))
_POUND: Final = _SYMBOLS["lb"]
_CURRENCY_SIGNS: Final = {sign: _Unit("money", code) for sign, code in _WORDS.pairs("currency_signs").items()}
_SIGNS: Final = _CURRENCY_SIGNS | {
    "%": _Unit("percent", "%"), "‰": _Unit("percent", "‰"), "¢": _Unit("money", "USD", Fraction(1, 100)),
}  # fmt: skip
_CODES: Final = {code: _SYMBOLS[code] for code in _WORDS["currency_codes"]} | dict.fromkeys(("Rs", "RS"), _NAMES["rs"])
_DOLLARS: Final = {before: _Unit("money", code) for before, code in _WORDS.pairs("dollars").items()}
_WHOSE_DOLLARS: Final = {"US": "US", "Canadian": "CA", "Australian": "AU"}
_ATTACHED: Final = frozenset("mgshlLWV")  # letters that are a unit right behind digits; "12A" is rather a room
_TIMES: Final = frozenset(("s", "month"))
_RATES: Final = frozenset(("m", "bit"))
_NOTHING_AFTER: Final = frozenset(("", *'.,;:!?)]}\n"/<>=|'))
_ENDS_UNIT: Final = frozenset(("", *'.,);:!?\n"^/*'))
_NO_SIGN: Final = frozenset('([{\n"*,;:=<>~≈|/')

# Numbers.

_SCALES: Final = {word: int(value) for value, words in _WORDS.rows("scales") for word in words.split()}
_CJK_SCALES: Final = _WORDS.valued("cjk_scales")
_CJK_DIGITS: Final = _WORDS.valued("cjk_digits")
_CJK_READ: Final = frozenset(char for char in (*_CJK_DIGITS, *_CJK_SCALES) if char < "가")
_SUFFIX_SCALES: Final = _WORDS.valued("suffix_scales")
_MONEY_SCALES: Final = _SUFFIX_SCALES | _WORDS.valued("money_scales")
_ENGLISH: Final[dict[str, tuple[str, int]]] = (
    {word: ("unit", n) for n, word in enumerate(UNIT_WORDS)}
    | {word: ("ten", 20 + 10 * n) for n, word in enumerate(TEN_WORDS)}
    | {word: ("ordinal", n) for n, word in enumerate(ORDINAL_WORDS)}
    | {word[:-1] + "ieth": ("ordinal", 20 + 10 * n) for n, word in enumerate(TEN_WORDS)}
    | {word + "s": ("part", n) for n, word in enumerate(ORDINAL_WORDS) if n > 2}
    | {word: (kind, int(value)) for kind, value, words in _WORDS.rows("english_numbers") for word in words.split()}
)
_NO_ENTRY: Final = ("", 0)
_DAILY: Final = _WORDS.pairs("daily")
_COMMON: Final = {language: frozenset(words.split()) for language, words in _WORDS.rows("common")}
_TEXT2NUM_STARTS: Final = tuple(_WORDS["text2num_starts"])
_POINT_GROUPS: Final = frozenset(("de", "it", "pt", "nl"))  # in Spanish it depends on the country
_SWAPPED: Final = {ord("."): ",", ord(","): "."}
_HALVES: Final = {word: Fraction(value) for value, words in _WORDS.rows("halves") for word in words.split()}
_JOINERS: Final = {"de": "und", "fr": "et", "es": "y", "it": "e", "pt": "e", "nl": "en"}
_RUSSIAN: Final = _WORDS.valued("russian")
_TRIGGERS: Final = frozenset((*_ENGLISH, *_WORDS["article_units"], *_RUSSIAN, *_WORDS["articles"], *_HALVES))
_CONTEXT_TRIGGERS: Final = _TRIGGERS | {"a", "an", "per", "every", "each", *_DAILY}
_TO: Final = frozenset(
    (" to ", "-", "–", "—", "--", " through ", " thru ", " bis ", " до ", "~", "～", "至", "到", " – ", " — ", " à ")
)
_AND: Final = frozenset((" and ", " und ", " et ", " y ", " e ", " en ", " и ", ", and ", " & "))
_JOINT: Final = frozenset(("", " ", ", ", *_AND))
_OF: Final = frozenset(
    (" of ", " out of ", " of the ", " out of the ", " of all ", " von ", " sur ", " из ", " van de ")
)

_CJK_PART = re.compile(rf"( ?)([0-9](?:[0-9]|[.,'_](?=[0-9])){{0,1000}})([{''.join(_CJK_SCALES)}]{{0,2}})")
_GROUP = r"(?:[ .-]?\([0-9]{1,5}\)|(?:[ .-]|(?<=\)))[0-9]{1,8}+)?"
_PHONE = re.compile(rf"\+[0-9]{{1,15}}+{_GROUP * 6}(?![0-9])")
_DECORATION = " \t\r\n\"'*_`()[]{}.,;:!?=~≈…|>"


class _Digits(dict[int, str]):
    """Digits of every script as those of ASCII, and none that stand above or in a circle; one character for each."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char.isdigit() and not char.isascii():
            char = str(unicodedata.decimal(char, " "))
        return char


_ASCII_DIGITS: Final = _Digits({ord("٫"): ".", ord("٬"): ","})


def find_quantities(text: str, *, query: str = "") -> list[Fact]:
    """Find every number, quantity, amount of money, percentage, ratio, range and identifier.

    Args:
        text: A text as `values.clean` leaves it.
        query: What was asked; tells whether pounds are money and whether 3.10 is a version.

    Returns:
        Facts in order, none within another.
    """
    if not text.isascii():
        text = text.translate(_ASCII_DIGITS)
    if len(text) < 19 and text.isascii() and text.isdigit() and text[0] != "0":
        return [Fact(0, len(text), "number", Fraction(int(text)), text)]
    words = _WORDS.word.findall(text)
    folded = [word.casefold() for word in words]
    if not _WORDS.anything.search(text) and _TRIGGERS.isdisjoint(folded) and not any(map(_foreign_word, folded)):
        return []
    atoms = _Reader(text, words, folded, query).read()
    return [_fact(atom) for atom in (_joined(text, atoms) if len(atoms) > 1 else atoms)]


def number_of(text: str, *, query: str = "") -> Fact | None:
    """Read a text that is one number, quantity, amount or identifier and nothing else but decoration.

    Args:
        text: A text as `values.clean` leaves it.
        query: What was asked.

    Returns:
        The fact, or None if the text holds another word or another number.
    """
    if len(text) > 4 * _MAX_DIGITS:
        return None
    bare = text.strip(_DECORATION)
    if bare.startswith("$") and bare.endswith("$") and len(bare) > 2:
        bare = bare[1:-1]
    offset = text.find(bare)
    facts = find_quantities(bare, query=query)
    if len(facts) != 1:
        return None
    fact = facts[0]
    if (bare[: fact.start] + bare[fact.end :]).strip(_DECORATION):
        return None
    return replace(fact, start=fact.start + offset, end=fact.end + offset)


class _Reader:
    def __init__(self, text: str, words: list[str], folded: list[str], query: str) -> None:
        self.text = text
        self.words = words
        self.folded = folded
        self.starts = [match.start() for match in _WORDS.word.finditer(text)]
        self.ends = [start + len(word) for start, word in zip(self.starts, words, strict=True)]
        self.query = query
        self.atoms: list[_Atom] = []
        self.done = 0  # where the text that is already read ends

    def read(self) -> list[_Atom]:
        text, ends, folded, spans = self.text, self.ends, self.folded, self._spans()
        at = 0
        for i, start in enumerate(self.starts):
            while at < len(spans) and spans[at].start <= start:
                if spans[at].start >= self.done:
                    self._take(spans[at])
                at += 1
            if start < self.done:
                continue
            word = self.words[i]
            if "0" <= word[0] <= "9":
                self._digits(i)
            elif (not word.isalpha() and _WORDS.digit.search(word)) or (
                text[ends[i] : ends[i] + 1] in {"-", "_"} and self._chain(i)
            ):
                self._mixed(i)
            elif folded[i] in _CONTEXT_TRIGGERS or text[start - 1 : start] == "/" or word[0] > "\u2e7f":
                self._word(i)
            elif _foreign_word(folded[i]):
                self._foreign(i)
        return self.atoms

    # Names.

    def _spans(self) -> list[_Atom]:
        """Find e-mail and network addresses, which need no word to begin with a digit, and Chinese fractions."""
        text = self.text
        named: list[tuple[int, str, str | None]] = []
        if "@" in text:
            named += [(m.start(), (token := m[0].rstrip(".-")), token.casefold()) for m in _WORDS.email.finditer(text)]
        if "://" in text or "www." in text.casefold():
            for match in _WORDS.url.finditer(text):
                token = match[0].rstrip(".,;:!?)*_]}")
                named.append((match.start(), token, _url(token)))
        if text.count(":") >= 2:
            for match in _WORDS.colons.finditer(text):
                token = match[0] if match[0].endswith("::") else match[0].rstrip(".:")
                named.append((match.start(), token, _address(token)))
        found = [_named(start, start + len(token), name) for start, token, name in named if name is not None]
        if "分" in text:
            found += [self._over_cjk(match) for match in _WORDS.cjk_fraction.finditer(text)]
        return sorted(found, key=lambda atom: atom.start)

    def _over_cjk(self, match: re.Match[str]) -> _Atom:
        """Read 3分之1, which is 1/3, and 百分之五十, which is 50%."""
        below, above = (int(part) if part.isdigit() else _cjk_value(part) for part in match.groups())
        if not above or not below:
            return _named(*match.span(), match[0])
        if match[1] in {"百", "100"}:
            return _Atom(*match.span(), "percent", Fraction(above), _SIGNS["%"])
        return _Atom(*match.span(), "number", Fraction(above, below))

    def _identifier(self, start: int, end: int, value: str | None = None) -> None:
        text = self.text
        before = text[start - 1] if start else ""
        if before == "#" and text[start - 2 : start - 1] != "#":
            start -= 1
        elif before == "-" and start > self.done and text[start].isdigit() and self._is_sign(start - 1):
            start -= 1
            value = None if value is None else f"-{value}"
        self._take(_named(start, end, _code(text[start:end]) if value is None else value))

    def _take(self, atom: _Atom) -> None:
        self.atoms.append(atom)
        self.done = atom.end

    def _token(self, start: int) -> int:
        """Return where the token that begins here ends; of one without end, all of it."""
        match = _WORDS.token.match(self.text, start)
        end = match.end() if match else start + 1
        while end - start >= _MAX_DIGITS and (more := _WORDS.token.match(self.text, end)):
            end = more.end()
            if more.end() - more.start() < _MAX_DIGITS:
                break
        return end

    def _chain(self, i: int) -> bool:
        for j in range(i, min(i + 8, len(self.words))):
            if not self.words[j].isalpha() and _WORDS.digit.search(self.words[j]):
                return True
            if self._gap(j) not in {"-", "_"}:
                return False
        return False

    def _mixed(self, i: int) -> None:
        """Read a token that begins with letters and holds a digit: a name, or an amount behind its currency."""
        start, word = self.starts[i], self.words[i]
        for code in (word[:3], word[:2]):
            if word[len(code) :].isdigit() and code in _CODES:
                run = _WORDS.run.match(self.text, start + len(code))
                amount = self._value(run[0]) if run else None
                if run and amount is not None:
                    self._add(i, start, run.end(), amount, money=_CODES[code])
                    return
        end = self._token(start)
        token = self.text[start:end]
        version = _WORDS.version.fullmatch(token) if len(token) < 64 else None
        self._identifier(start, end, version[1].casefold() if version else None)

    # Digits.

    def _digits(self, i: int) -> None:
        text, start = self.text, self.starts[i]
        before = text[start - 1] if start else ""
        run = _WORDS.run.match(text, start)
        assert run is not None
        end, digits = run.end(), run[0]
        following = text[end : end + 2]
        feet = _WORDS.feet.match(text, start) if "'" in digits or following[:1] in {"'", "′"} else None
        if feet and _decimal(feet[2]) < 12:
            self._add(i, start, feet.end(), int(feet[1]) * 12 + _decimal(feet[2]), unit=_SYMBOLS["in"])
            return
        if following[:1] == "°" and (angle := _WORDS.angle.match(text, start)):
            degrees = int(angle[1]) + Fraction(int(angle[2]), 60) + _decimal(angle[3] or "0") / 3600
            self._add(i, start, angle.end(), degrees, unit=_SYMBOLS["deg"])
            return
        earlier = text[start - 2 : start - 1]
        if before == "." and digits.isdigit() and not earlier.isalnum() and earlier != ".":
            start = self.starts[i] = start - 1
            digits = text[start:end]
        if before == "第" and digits.isdigit():
            self._ordinal(start - 1, end, int(digits))
            return
        if (before == "#" and earlier != "#") or len(digits) > _MAX_DIGITS:
            self._identifier(start, self._token(start))
            return
        if (before in "+(" or following[:1] in {" ", "-", "("} or "." in digits) and self._phone(i, before, digits):
            return
        plain = following == "" or (following[0] in '.,;:!?)%\n"*]' and following[1:] in {"", " ", "\n", '"', ")"})
        if following[:1] == " ":
            if following[1:].isdigit() and self._over_spaces(i):
                return
            plain = following[1:] not in {"x", "X", "×", "*", "·", "⋅", "\\", "^", "/", ":"}
        (self._plain if plain else self._special)(i, digits, end)

    def _phone(self, i: int, before: str, digits: str) -> bool:
        text, start = self.text, self.starts[i]
        begin = start - 1 if before in {"+", "("} else start
        if before == "(" and text[start - 2 : start - 1] == "+":
            begin -= 1
        match = None
        if text[begin] == "+":
            match = _PHONE.match(text, begin)
        elif begin < start or not digits.isdigit() or len(digits) in {1, 3}:
            match = _WORDS.phone_here.match(text, begin)
        if match is None:
            card = _WORDS.card.match(text, start) if len(digits) == 4 else None
            if card:
                self._identifier(start, card.end(), re.sub("[ -]", "", card[0]))
            return card is not None
        plus, number = match[0][0] == "+", "".join(_WORDS.digit.findall(match[0]))
        if not (8 if plus else 9) <= len(number) <= 15 or (begin and text[begin - 1].isalnum()):
            return False
        if plus and text[match.end() : match.end() + 1].isalpha():
            return False
        self._identifier(begin, match.end(), "+" * plus + number)
        return True

    def _over_spaces(self, i: int) -> bool:
        """Read 3 1/2, 1 234 567,8 and groups of four digits."""
        text, start = self.text, self.starts[i]
        mixed = _WORDS.mixed.match(text, start)
        if mixed and 0 < int(mixed[2]) < int(mixed[3]):
            self._add(i, start, mixed.end(), Fraction(int(mixed[1])) + Fraction(int(mixed[2]), int(mixed[3])))
            return True
        if start > 1 and text[start - 1] == " " and text[start - 2].isdigit():
            return False
        spaced = _WORDS.spaced.match(text, start)
        amount = _amount(spaced[0]) if spaced else None
        if spaced and amount is not None and text[spaced.start()] != "0":
            self._add(i, start, spaced.end(), amount)
            return True
        return False

    def _plain(self, i: int, digits: str, end: int) -> None:
        """Read a run of digits and separators that nothing is attached to."""
        start, text = self.starts[i], self.text
        if digits.isdigit():
            if digits[0] == "0" and len(digits) > 2 and text[end : end + 1] not in {"%", "$", "€"}:
                self._identifier(start, end)
            else:
                self._add(i, start, end, Fraction(int(digits)))
            return
        if "." in digits and "," not in digits and self._is_version(i):
            self._identifier(start, end)
            return
        amount = self._value(digits)
        in_brackets = text[start - 1 : start] in {"(", "[", "{"} and text[end : end + 1] in {")", "]", "}"}
        if amount is not None and not (in_brackets and "," in digits and not _WORDS.grouped.fullmatch(digits)):
            self._add(i, start, end, amount)
            return
        pieces = digits.split(",")
        values = [self._value(piece) for piece in pieces]
        if len(pieces) > 1 and all(value is not None for value in values):
            for piece, value in zip(pieces, values, strict=True):
                assert value is not None
                self._add(i, start, start + len(piece), value, alone=True)
                start += len(piece) + 1
            return
        self._identifier(start, end if len(digits) < _MAX_DIGITS else self._token(start))

    def _is_version(self, i: int) -> bool:
        if i and self.folded[i - 1] in _WORDS["versioned"] and self.starts[i] - self.ends[i - 1] <= 2:
            return True
        return bool(self.query) and _WORDS.asks_version.search(self.query) is not None

    def _special(self, i: int, digits: str, end: int) -> None:
        """Read digits that something is attached to: an exponent, a fraction, a ratio, a suffix, a range, a name."""
        text, start = self.text, self.starts[i]
        char, amount = text[end], self._value(digits)
        joined = text[end + 1 : end + 2]
        if amount is not None and char in "eExX×*·⋅\\ " and (match := _WORDS.scientific.match(text, end)):
            self._add(i, start, match.end(), _scaled(amount, int(match[1] or match[2])))
        elif char in "^ " and digits.isdigit() and (match := _WORDS.power.match(text, end)):
            power = _power(int(digits), int(match[1]))
            if power is None:
                self._identifier(start, match.end(), f"{digits}^{int(match[1])}")
            else:
                self._add(i, start, match.end(), power)
        elif char in "/ " and digits.isdigit() and (match := _WORDS.fraction.match(text, start)):
            if int(match[2]):
                self._over(i, match)
            else:
                self._identifier(start, match.end())
        elif char in ": " and (match := _WORDS.ratio.match(text, start)):
            self._ratio(i, match)
        elif char.isalpha() and char < "\u0e00":
            self._suffixed(i, digits, end, amount)
        elif char in "-–—" and joined.isalnum():
            self._hyphened(i, digits, end)
        elif (char == "^" and joined.isalpha()) or (char in "_/@" and joined.isdigit()):
            self._identifier(start, self._token(start))
        elif char in _CJK_SCALES and amount is not None:
            self._cjk_scaled(i)
        else:
            self._plain(i, digits, end)

    def _over(self, i: int, match: re.Match[str]) -> None:
        """Read a fraction; 120/80 is rather two numbers, such as those of blood pressure."""
        above, below = int(match[1]), int(match[2])
        if above > below >= 20 and gcd(above, below) > 1:
            self._take(_Atom(*match.span(), "ratio", value=("/", above, below), label=f"{above}/{below}"))
        else:
            self._add(i, match.start(), match.end(), Fraction(above, below))

    def _ratio(self, i: int, match: re.Match[str]) -> None:
        parts = [_decimal(part) for part in match.groups() if part and part.strip()]
        unit = self._unit_after(match.end())
        if unit and unit[0].base == "s" and unit[0].factor >= 60 and all(part < 60 for part in parts[1:]):
            whole = sum((part / Fraction(60) ** at for at, part in enumerate(parts)), Fraction(0))
            self._add(i, match.start(), match.end(), whole)
            return
        label = ":".join(map(_label, parts))
        self._take(_Atom(*match.span(), "ratio", value=("ratio", *parts), label=label))

    def _suffixed(self, i: int, digits: str, end: int, amount: Fraction | None) -> None:
        """Read digits with letters attached: 3rd, 5km, 1h30, 5.4M, or a name such as 12B."""
        text, start = self.text, self.starts[i]
        tail = _WORDS.tail.match(text, end)
        stop = tail.end() if tail else end
        suffix = text[end:stop] if stop - end < 40 else ""
        if not suffix or amount is None:
            self._identifier(start, self._token(start))
            return
        french = suffix == "e" and self.language in {"fr", "nl"}
        if "." not in digits and amount.denominator == 1 and (suffix.casefold() in _WORDS["ordinal_ends"] or french):
            self._ordinal(start, stop, int(amount))
            return
        clock = _WORDS.clock.match(text, start)
        if clock:
            self._clock(i, clock)
            return
        following = text[stop : stop + 2]
        compound = following[:1] in {"-", "_"} and following[1:].isalnum() and not following[1:].isdigit()
        scales = _MONEY_SCALES if self._currency_before(start) else _SUFFIX_SCALES
        if suffix in scales and not compound:
            self._add(i, start, stop, amount * scales[suffix])
            return
        if suffix == "s" and amount >= 10 and amount % 10 == 0 and (amount > 999 or (i and self._decade(i))):
            self._identifier(start, stop)
            return
        if len(suffix) > 1 or suffix in _ATTACHED or suffix == "p":
            unit = self._unit_at(end, attached=True)
            if unit and unit[1] >= stop and not compound:
                self._add(i, start, end, amount)
                return
        self._identifier(start, self._token(start))

    def _decade(self, i: int) -> bool:
        return self.folded[i - 1] in {"the", "his", "her", "their", "early", "late", "mid", "in", "'"}

    def _clock(self, i: int, match: re.Match[str]) -> None:
        minutes = int(match[1]) * 60 + int(match[2]) if match[2] else int(match[1])
        seconds = minutes * 60 + int(match[3] or match[4] or match[5] or 0)
        self._add(i, match.start(), match.end(), Fraction(seconds), unit=_SYMBOLS["s"])

    def _hyphened(self, i: int, digits: str, end: int) -> None:
        """Read digits before a hyphen: a range, an adjective such as 25-year-old, or a name."""
        text, start = self.text, self.starts[i]
        if text[end + 1].isdigit():
            other = _WORDS.run.match(text, end + 1)
            right, stop = (other[0], other.end()) if other else ("", end)
            sound = all(
                _amount(run) is not None and not (run[0] == "0" and run[1:2].isdigit()) for run in (digits, right)
            )
            more = text[stop : stop + 1] in {"-", "–", "/", ":"} and text[stop + 1 : stop + 2].isdigit()
            if sound and not more and not (text[stop : stop + 1].isalpha() and not self._ends_as_unit(stop)):
                self._plain(i, digits, end)
                return
        elif (text[end + 1].islower() and text[end + 2 : end + 3].isalpha()) or self._ends_as_unit(end + 1):
            self._plain(i, digits, end)
            return
        stop = self._token(start)
        token = text[start:stop]
        bare = re.sub("-", "", token) if len(token) < 40 else token
        self._identifier(start, stop, bare if bare.isdigit() and len(bare) in {10, 11, 13, 16} else None)

    def _ends_as_unit(self, at: int) -> bool:
        match = _WORDS.name.match(self.text, at)
        name = match[0] if match else ""
        if len(name) == 1 and name.isupper():
            return name == "M"
        return name in _SYMBOLS or name in _MONEY_SCALES or name.casefold() in _NAMES

    def _cjk_scaled(self, i: int) -> None:
        """Read 3万5千 and 1億2000万."""
        start = end = self.starts[i]
        total, last = Fraction(0), 10**20
        while last > 1 and (part := _CJK_PART.match(self.text, end)):
            amount, scale = _amount(part[2]), prod(map(_CJK_SCALES.__getitem__, part[3]))
            if amount is None or scale >= last or (part[1] and not part[3]):
                break
            total, last, end = total + amount * scale, scale, part.end()
        self._add(i, start, end, total)

    # What stands around a number.

    def _currency_before(self, start: int) -> bool:
        at = start - 1
        if at >= 0 and self.text[at] == " ":
            at -= 1
        return at >= 0 and self.text[at] in _CURRENCY_SIGNS

    def _before(self, i: int, start: int) -> tuple[int, bool, _Unit | None]:
        """Read the sign and the currency before a number: where they begin, whether it is negative, the currency."""
        near = self.text[start - 1 : start]
        if not start or near in _NO_SIGN or (near == " " and not self._marked_before(i, start)):
            return start, False, None
        start, negative = self._sign_before(start)
        start, money = self._money_before(i, start)
        if not negative and money is not None:
            start, negative = self._sign_before(start, signs="-–")
        j = self._word_before(start)
        if not negative and j is not None and self.folded[j] in _WORDS["minus"] and self.starts[j] >= self.done:
            last = self.atoms[-1] if self.atoms else None
            if self.folded[j] == "negative" or last is None or last.end + 1 < self.starts[j]:
                negative, start = True, self.starts[j]
        if not negative and self.text[max(0, start - 1) : start] in {"负", "負"} and start - 1 >= self.done:
            negative, start = True, start - 1
        return start, negative, money

    def _word_before(self, at: int) -> int | None:
        """Return which word ends one character before a place; None where none does."""
        j = bisect_left(self.starts, at) - 1
        return j if j >= 0 and self.ends[j] + 1 == at else None

    def _sign_before(self, start: int, *, signs: str = "-–+") -> tuple[int, bool]:
        at = start - 1
        if at >= self.done and self.text[at] in signs and self._is_sign(at):
            return at, self.text[at] != "+"
        return start, False

    def _money_before(self, i: int, start: int) -> tuple[int, _Unit | None]:
        text, limit = self.text, self.done
        at = start - 1
        if at >= limit and text[at] == " " and start > 1:
            at -= 1
        if at < limit:
            return start, None
        if text[at] in _CURRENCY_SIGNS and not (text[at] == "$" and _WORDS.formula.match(text, at)):
            j = i - 1
            if text[at] != "$":
                return at, _SIGNS[text[at]]
            if j >= 0 and self.ends[j] == at and self.words[j] in _DOLLARS and self.starts[j] >= limit:
                return self.starts[j], _DOLLARS[self.words[j]]
            return at - (text[at - 1 : at] == "\\"), _SIGNS["$"]
        if i and self.ends[i - 1] in {at + 1, at} and self.starts[i - 1] >= limit and at < start:
            word = self.words[i - 1]
            if word in _CODES and (self.ends[i - 1] == at + 1 or (word in {"Rs", "RS"} and text[at] == ".")):
                return self.starts[i - 1], _CODES[word]
        return start, None

    def _marked_before(self, i: int, start: int) -> bool:
        """Whether a currency or "minus" stands before the space before a number."""
        if self.text[start - 2 : start - 1] in _CURRENCY_SIGNS:
            return True
        j = i - 1 if i and self.ends[i - 1] < start else bisect_left(self.starts, start) - 1
        return j >= 0 and (self.words[j] in _CODES or self.folded[j] in _WORDS["minus"])

    def _is_sign(self, at: int) -> bool:
        before = self.text[at - 1 : at]
        if before == "-" and self.text[at - 2 : at - 1].isdigit() and self.atoms:  # "-5--3", but "5--7" is "5–7"
            last = self.atoms[-1].amount
            return isinstance(last, Fraction) and last < 0
        return not before or not (before.isalnum() or before in ")]}-–—+.'\"%")

    def _fraction_sign(self, start: int) -> bool:
        """Whether "- 1/2" stands for −½, whose sign and digits come apart when it is cleaned; lists begin alike."""
        text = self.text
        if text[start - 2 : start] != "- " or start - 2 < self.done:
            return False
        return not self._is_listed and not text[max(0, start - 10) : start - 2].rstrip()[-1:].isalnum()

    def _add(
        self, i: int, start: int, end: int, amount: Amount, *, unit: _Unit | None = None, money: _Unit | None = None,
        alone: bool = False, part: bool = False,
    ) -> None:  # fmt: skip
        text = self.text
        begin, negative, before = (start, False, None) if alone else self._before(i, start)
        if not negative and not alone and "/" in text[start : min(end, start + 20)] and self._fraction_sign(start):
            begin, negative = start - 2, True
        money = money or before
        scale = 1
        if unit is None and not alone:
            scale, end = self._scale(end, money)
            if scale != 1:
                amount = _scaled_by(amount, scale)
            found = self._unit_after(end)
            if found and money is None:
                unit, end = found
            elif found and found[0].kind == "money" and (money.base if money else "") in {"USD", found[0].base}:
                money, end = found if found[0].factor == 1 else (money, end)
            elif money and money.base == "USD" and text[begin : begin + 2] in {"$" + text[start], "-$"}:
                word = _WORDS.name.match(text, end + 1) if text[end : end + 1] == " " else None
                if word and word[0] in _WHOSE_DOLLARS:
                    money, end = _DOLLARS[_WHOSE_DOLLARS[word[0]]], word.end()
        unit = money or unit
        if negative:
            amount = -amount if isinstance(amount, Fraction) else Huge(-amount.digits, amount.exponent)
        atom = _Atom(begin, end, unit.kind if unit else "number", amount, unit, scale=scale, part=part)
        if unit and unit.base == "month" and unit.factor == 12 and (old := _WORDS.old.match(text, end)):
            atom = _Atom(begin, old.end(), "number", amount, None)  # an age
        elif unit and unit.kind == "quantity" and (per := self._per_before(begin)) is not None:
            atom.kind, atom.start = "per", max(per, self.done)
        self._take(atom)

    def _per_before(self, begin: int) -> int | None:
        """Return where "every" or its like stands right before a quantity; None where it does not."""
        if self.text[max(0, begin - 1) : begin] in {"每", "毎"}:
            return begin - 1
        j = self._word_before(begin)
        if j is None:
            return None
        if self.folded[j] == "les":
            return self.starts[j - 1] if j and self.folded[j - 1] in {"toutes", "tous"} else None
        return self.starts[j] if self.folded[j] in _WORDS["per"] else None

    def _scale(self, end: int, money: _Unit | None) -> tuple[int, int]:
        text, scale = self.text, 1
        if text[end : end + 1] in _NOTHING_AFTER:
            return 1, end
        for _ in range(2):
            at = end + (text[end : end + 1] in {" ", "-"})
            name = _WORDS.name.match(text, at)
            if name is None:
                break
            word = name[0]
            lower = word.casefold()
            factor = _CJK_SCALES.get(word) or _SCALES.get(lower, 0)
            if word == "mil" and self.language in {"es", "pt"}:
                factor = 1000
            elif not factor and money and at == end + 1 and len(word) > 1:
                factor = _MONEY_SCALES.get(word, 0)
            if not factor:
                break
            scale, end = scale * factor, name.end()
            if lower in {"mio", "mrd", "тыс", "mln"} and text[end : end + 2] == ". ":
                end += 1
        return scale, end

    # Units.

    def _unit_after(self, end: int) -> tuple[_Unit, int] | None:
        """Read the unit after a number, across one space or hyphen and stars of markdown."""
        text, at = self.text, end
        if text[end : end + 1] in _NOTHING_AFTER:
            return None
        while text[at : at + 1] == "*" and at < end + 3:
            at += 1
        if at > end and text[at : at + 1] != " ":
            return None
        if text[at : at + 1] in {" ", "-"}:
            at += 1
        if text[end - 1].isalpha() and text[at : at + 1] in {"o", "a"}:
            for filler in ("of an ", "of a ", "an ", "a "):
                if text.startswith(filler, at):
                    found = self._unit_at(at + len(filler))
                    return found if found and found[0].base in {"s", "month", "m", "g", "m^3"} else None
        return self._unit_at(at)

    def _unit_at(self, at: int, *, attached: bool = False) -> tuple[_Unit, int] | None:
        text = self.text
        char = text[at : at + 1]
        if char == "\\" and text[at + 1 : at + 2] in {"%", "$"}:
            at, char = at + 1, text[at + 1]
        if char in _SIGNS:
            if char == "$" and (text.count("$", max(0, at - 200), at) % 2 or text[at + 1 : at + 2].isdigit()):
                return None
            return _SIGNS[char], at + 1
        if char == "°":
            skip = at + 2 if text[at + 1 : at + 2] == " " else at + 1
            letter = text[skip : skip + 1]
            if letter in "CFK" and letter and not text[skip + 1 : skip + 2].isalnum():
                return {"C": _CELSIUS, "F": _FAHRENHEIT, "K": _SYMBOLS["K"]}[letter], skip + 1
            return _SYMBOLS["deg"], at + 1
        found = self._simple_unit(at, attached=attached)
        if found is None or found[0].kind != "quantity" or found[0].offset:
            return found
        return self._compound_unit(*found)

    def _simple_unit(self, at: int, *, attached: bool = False) -> tuple[_Unit, int] | None:
        text = self.text
        name = _WORDS.name.match(text, at)
        if name is None:
            return None
        word, end = name[0], name.end()
        following = text[end : end + 1]
        if word[0] > "\u2e7f":
            return self._cjk_unit(word, at)
        lower = word.casefold()
        if lower in _FIRST:
            found = self._phrase(at, _FIRST[lower] + 1, lambda key: _SYMBOLS.get(key) or _NAMES.get(key.casefold()))
            if found:
                return found
        if not attached and following.isdigit():
            return None
        if lower in {"pound", "pounds"}:
            return (_SIGNS["£"] if self.sterling else _POUND), end
        if word == "p":
            return (_PENNY, end) if self.sterling else None
        if word == "oC":  # º, cleaned
            return _CELSIUS, end
        if word in {"C", "F"}:
            return _quantity(f"{word}?", 1), end
        if word in {"in", "won", "T", "A", "B", "b", "d"} and following not in _ENDS_UNIT:
            return None
        unit = _SYMBOLS.get(word) or _NAMES.get(lower)
        if len(word) > 1 and (unit is None or (len(word) > 3 and following == " ")) and not self.english:
            if len(word) > 3 and following == " ":
                found = self._phrase(at, 4, lambda key: _foreign_units().get(key.casefold()))
                if found:
                    return found
            unit = unit or _foreign_units().get(lower)
        return (unit, end) if unit else None

    def _phrase(self, at: int, longest: int, find: Callable[[str], _Unit | None]) -> tuple[_Unit, int] | None:
        phrase = _WORDS.phrase.match(self.text, at)
        words = re.split("[ -]", phrase[0]) if phrase else []
        for count in range(min(len(words), longest), 1, -1):
            key = " ".join(words[:count])
            unit = find(key)
            if unit and not self.text[at + len(key) : at + len(key) + 1].isalnum():
                return unit, at + len(key)
        return None

    def _cjk_unit(self, word: str, at: int) -> tuple[_Unit, int] | None:
        for length in range(min(len(word), 8), 0, -1):
            piece = word[:length]
            unit = _SYMBOLS.get(piece) or _NAMES.get(piece) or _foreign_units().get(piece)
            if unit:
                return unit, at + length
        return None

    def _compound_unit(self, unit: _Unit, end: int) -> tuple[_Unit, int]:
        text = self.text
        unit, end = self._raised(unit, end)
        for _ in range(3):
            link = _WORDS.divides.match(text, end)
            found = self._simple_unit(link.end()) if link and link.end() < len(text) else None
            if not link or not found or found[0].kind != "quantity" or found[0].offset:
                break
            over = link[1] is not None or link[0].startswith((" per", " a"))
            is_rate = any(name in _RATES for name, power in unit.powers if power > 0)
            if over and (found[0].base == "month" or (found[0].base in _TIMES and not is_rate)):
                break  # a dose or a wage, not a speed
            other, end = self._raised(*found)
            unit = _combined(unit, other, -1 if over else 1)
        return unit, end

    def _raised(self, unit: _Unit, end: int) -> tuple[_Unit, int]:
        power = _WORDS.exponent.match(self.text, end)
        if power is None:
            return unit, end
        return (_combined(unit, unit, int(power[1]) - 1) if power[1] != "1" else unit), power.end()

    @cached_property
    def sterling(self) -> bool:
        """Whether the pounds here are money."""
        words = (*self.folded, *self._asked())
        return "£" in self.text or "£" in self.query or not _WORDS["pound_is_money"].isdisjoint(words)

    @property
    def english(self) -> bool:
        return self.language == "en"

    @cached_property
    def language(self) -> str:
        """Two letters of the language of the text, else of the question; "" where they tell of none."""
        return _language(self.folded) or _language(self._asked())

    @cached_property
    def _is_listed(self) -> bool:
        return "\n- " in self.text

    def _asked(self) -> list[str]:
        return [word.casefold() for word in _WORDS.word.findall(self.query[:2000])]

    def _value(self, digits: str) -> Fraction | None:
        """Value a run of digits and separators; 1.234 is a thousand and more where the language says so."""
        if _WORDS.one_group.fullmatch(digits) and self.language in _POINT_GROUPS:
            return _decimal(digits.translate(_SWAPPED).replace(",", ""))
        return _amount(digits)

    # Words.

    def _word(self, i: int) -> None:
        word, start, end = self.folded[i], self.starts[i], self.ends[i]
        if word in _ENGLISH and not (word == "six" and self.language == "fr"):
            self._english(i)
        elif word in {"a", "an", "per", "every", "each"}:
            self._per(i)
        elif word in _DAILY:
            if self._is_near(i):
                self._add_per(start, end, _NAMES[_DAILY[word]])
        elif self.atoms and self.text[start - 1] == "/" and self.atoms[-1].end in {start - 1, start - 2}:
            found = self._simple_unit(start)
            if found and found[0].kind == "quantity":
                self._add_per(start - 1, found[1], found[0])
        elif self.words[i][0] > "\u2e7f":
            self._cjk_words(i)
        elif word in _HALVES:
            if not self.english and self._unit_after(end):
                self._add(i, start, end, _HALVES[word])
        elif word in _RUSSIAN:
            self._russian(i)
        elif (
            word in _WORDS["articles"] and not self.english and self._scale(end, None)[0] == 1 and self._unit_after(end)
        ):
            self._add(i, start, end, Fraction(1))
        else:
            self._foreign(i)

    def _add_per(self, start: int, end: int, unit: _Unit, amount: int = 1) -> None:
        self._take(_Atom(start, end, "per", Fraction(amount), unit))

    def _per(self, i: int) -> None:
        """Read "per day", "every other week", "an hour", "a dozen"."""
        word, start, end = self.folded[i], self.starts[i], self.ends[i]
        if self._gap(i) != " ":
            return
        following = self.folded[i + 1]
        if word in {"a", "an"}:
            kind = self._entry(i + 1)[0]
            if kind in {"hundred", "scale", "dozen", "half", "quarter"} or (kind == "ordinal" and self._is_part(i + 1)):
                self._english(i + 1, article=i)
                return
            found = self._simple_unit(end + 1)
            if self._is_near(i) and found and found[0].base in _TIMES and found[0].kind == "quantity":
                self._add_per(start, found[1], found[0])
            elif found and following in _WORDS["article_units"]:
                self._add(i, start, end, Fraction(1))
        elif self.atoms:
            other = following in {"other", "second"} and word == "every" and i + 2 < len(self.words)
            found = self._simple_unit(self.starts[i + 2] if other else end + 1)
            if found and found[0].kind == "quantity":
                self._add_per(start, found[1], found[0], 2 if other else 1)

    def _is_near(self, i: int) -> bool:
        if not self.atoms or self.starts[i] - self.atoms[-1].end > 30:
            return False
        first = bisect_left(self.starts, self.atoms[-1].end)
        return first == i or (first == i - 1 and self.folded[first] not in _WORDS["not_counted"])

    def _is_part(self, i: int) -> bool:
        """Whether "third" after "a" is a fraction: before "of" or a unit, or at an end."""
        if self.folded[i] in {"second", "first"}:
            return False
        after = self.text[self.ends[i] : self.ends[i] + 4]
        return after.startswith((" of ", " of")) or not after or after[0] in ".,;!?)\n"

    def _begins(self, i: int) -> bool:
        before = self.text[max(0, self.starts[i] - 4) : self.starts[i]].rstrip(" *-")[-1:]
        return i == 0 or before in {"", ".", "!", "?", "\n", ":"}

    def _gap(self, i: int) -> str:
        """What stands between a word and the next one; a line where there is none."""
        return self.text[self.ends[i] : self.starts[i + 1]] if i + 1 < len(self.words) else "\n"

    def _entry(self, i: int) -> tuple[str, int]:
        """Look an English number word up: its kind and value; `""` where it is none."""
        return _ENGLISH.get(self.folded[i], _NO_ENTRY) if i < len(self.words) else _NO_ENTRY

    def _english(self, i: int, *, article: int | None = None) -> None:
        first = i if article is None else article
        (kind, value), gap = self._entry(i), self._gap(i)
        before = self.folded[first - 1] if first else ""
        if kind == "times":
            if value > 1 or (gap == " " and self.folded[i + 1] in {"a", "an", "per", "every", *_DAILY}):
                self._take(_Atom(self.starts[i], self.ends[i], "number", Fraction(value)))
            return
        no_number = (
            kind == "part"
            or (kind == "unit" and value == 1 and gap != "-" and (before in _WORDS["not_a_one"] or gap == "'"))
            or (kind == "quarter" and article is None and not self.text.startswith(" of an hour", self.ends[i]))
            or (kind == "half" and gap == "-" and not self._unit_after(self.ends[i]))
        )
        if kind == "ordinal" and article is None:
            orders = value in {1, 2, 3} and gap[:1] == "," and self._begins(i)  # "First, ..." orders sentences
            no_number = orders or (value == 1 and before == "at")
        if no_number:
            return
        amount, last, form = self._cardinal(i)
        if form == "ordinal":
            self._ordinal(self.starts[first], self.ends[last], int(amount))
        else:
            self._add(first, self.starts[first], self.ends[last], Fraction(amount), part=form == "part")

    def _cardinal(self, i: int) -> tuple[Fraction | int, int, str]:
        """Value number words from here on: the value, the last word, and whether it is an ordinal or a fraction.

        Each word either fits what stands before it or begins another number: "twenty one" is one, "one two" are two.
        """
        total, current, room, scale = 0, 0, 10**30, 10**30  # room: what is added to `current` must be below it
        last = j = i
        while j < len(self.words):
            begun = j > i
            kind, value = self._entry(j)
            gap = self._gap(j - 1) if begun else " "
            if begun and self.folded[j] == "and" and gap == self._gap(j) == " ":
                after = self._entry(j + 1)
                if after[0] in {"unit", "ten", "ordinal"} and room in {100, 1000} and after[1] < room:
                    j += 1
                    continue
                half = self._and_a_half(j)
                if half is None:
                    break
                amount, end = total + current + half[0], half[1]
                after = self._entry(end + 1) if self._gap(end) == " " else _NO_ENTRY
                return (amount * after[1], end + 1, "number") if after[0] == "scale" else (amount, end, "number")
            if gap not in {" ", "-"} and not (gap == ", " and room == 1000):
                break
            if kind == "ordinal" and value >= 100:
                if not begun:
                    return value, j, "ordinal"
                return (total + max(current, 1) * value, j, "ordinal") if value < scale else (total + current, last, "")
            if kind in {"unit", "ten"}:
                if begun and not total and 13 <= current <= 20 and room in {1, 10} and value >= 10 and gap == " ":
                    current, room = current * 100 + value, 10 if kind == "ten" else 1  # a year
                elif not begun or value < room:
                    current, room = current + value, 10 if kind == "ten" else 1
                else:
                    break
            elif kind == "hundred" and (not begun or (0 < current < 100 and room in {1, 10})):
                current, room = max(current, 1) * 100, 100
            elif kind == "scale" and not (begun and (value >= scale or (current == 0 and total))):
                total, current, room, scale = total + (current if begun else 1) * value, 0, 1000, value
            elif kind == "dozen" and not (begun and room == 100):
                return (current or 1) * 12, j, ""
            elif kind == "ordinal" and not begun:
                part = i and self.folded[i - 1] in {"a", "an"} and self._is_part(i) and value
                return (Fraction(1, value), j, "part") if part else (value, j, "ordinal")
            elif kind == "ordinal" and 1 < room > value:
                return total + current + value, j, "ordinal"
            elif kind == "ordinal" and total == 0 and current == 1 and value > 2:
                return Fraction(1, value), j, "part"
            elif kind in {"part", "half", "quarter"} and begun and (kind == "part" or current == 1):
                return Fraction(total + current, value), j, "part"
            elif kind in {"part", "half", "quarter"} and not begun:
                counts = self._gap(j) == self._gap(j + 1) == " " and self.folded[j + 1] == "a"  # "half a million"
                after = self._entry(j + 2) if counts else _NO_ENTRY
                is_scale = after[0] in {"scale", "dozen"}
                return (Fraction(after[1], value), j + 2, "") if is_scale else (Fraction(1, value), j, "part")
            else:
                break
            last = j
            j += 1
        if self._gap(last) == " " and self.folded[last + 1] == "point":
            decimals, j = "", last + 2
            while self._gap(j - 1) == " " and len(decimals) < 30 and self.folded[j] in UNIT_WORDS[:10]:
                decimals += str(self._entry(j)[1])
                j += 1
            if decimals:
                return total + current + Fraction(int(decimals), 10 ** len(decimals)), j - 1, ""
        return total + current, last, ""

    def _and_a_half(self, j: int) -> tuple[Fraction, int] | None:
        """Read "and a half" and "and three quarters" behind a number."""
        k, count = j + 1, 1
        if self.folded[k] == "a" and self._gap(k) == " ":
            k += 1
        elif self._entry(k)[0] == "unit" and self._gap(k) in {" ", "-"}:
            k, count = k + 1, self._entry(k)[1]
        kind, value = self._entry(k)
        fits = kind == "half" or (k > j + 1 and (kind in {"quarter", "part"} or (kind == "ordinal" and value > 2)))
        return (Fraction(count, value), k) if fits and not self.text.startswith(" of ", self.ends[k]) else None

    def _ordinal(self, start: int, end: int, value: int) -> None:
        self._take(_Atom(start, end, "number", value=("ordinal", value), label=f"{value}."))

    def _cjk_words(self, i: int) -> None:
        word, start = self.words[i], self.starts[i]
        at = 0
        while at < len(word):
            stop = at
            while stop < min(len(word), at + 30) and word[stop] in _CJK_READ:
                stop += 1
            if stop > at:
                piece, rest = word[at:stop], word[stop : stop + 8]
                value = _cjk_value(piece)
                unit = self._cjk_unit(rest, start + stop) if rest else None
                if piece == "十" and rest[:1] == "分" and rest[1:2] not in {"钟", "鐘", "間", "间", "の", "之"}:
                    value = None  # "very", far more often than ten minutes
                if value is not None and word[at - 1 : at] == "第" and at:
                    self._ordinal(start + at - 1, start + stop, value)
                elif value is not None and (unit or not rest or rest[0] in _WORDS["cjk_counters"] or len(piece) > 2):
                    counted = not unit and rest[:1] in _WORDS["cjk_counters"]
                    self._add(i, start + at, start + stop, Fraction(value), alone=counted)
                    stop = max(stop, self.done - start)
                at = stop
            else:
                at += 1

    def _russian(self, i: int) -> None:
        total = current = 0
        room, scale, j = 10**30, 10**30, i
        while j < len(self.words) and (j == i or self._gap(j - 1) == " "):
            word = self.folded[j]
            value, by = _RUSSIAN.get(word), _SCALES.get(word, scale)
            if value is not None and (j == i or value < room):
                current, room = current + value, 1 if value < 20 else 10 if value < 100 else 100
            elif value is None and by < scale and current:
                total, current, room, scale = total + current * by, 0, 1000, by
            else:
                break
            j += 1
        end = self.ends[j - 1]
        alone = j == i + 1 and self.folded[i] in {"один", "одна", "одно"} and len(self.words) > 1
        if not alone or self._unit_after(end):
            self._add(i, self.starts[i], end, Fraction(total + current))

    def _foreign(self, i: int) -> None:
        word, language = self.folded[i], self.language
        readings = _foreign_word(word)
        if not readings or language == "en":
            return
        languages = [language] if language in readings else [] if language else sorted(readings)
        runs = {run for one in languages if (run := self._foreign_run(i, one))}
        longest = max((last for _, last in runs), default=i)
        found = {run for run in runs if run[1] == longest}
        if len(found) != 1:
            self.done = self.ends[longest]
            return
        value, last = found.pop()
        if last == i and word in _WORDS["homographs"]:
            if len(self.words) == 1:
                no_number = word not in {"eins", "uno"}
            else:
                no_number = not (self._unit_after(self.ends[i]) if word in _WORDS["articles"] else language)
            if no_number:
                return
        self._add(i, self.starts[i], self.ends[last], value)

    def _foreign_run(self, i: int, language: str) -> tuple[Fraction, int] | None:
        joiner, value, last, failures = _JOINERS[language], None, i, 0
        for end in range(i + 1, min(len(self.words), i + 20) + 1):
            word = self.folded[end - 1]
            if end > i + 1 and self._gap(end - 2) not in {" ", "-"}:
                break
            if word == joiner:
                continue
            if language not in _foreign_word(word) or failures == 2:
                break
            words = ["ein" if word == "eine" else word for word in self.folded[i:end]]
            longer = _text2num(" ".join(words), language)
            if longer is None and end - i > 2:  # "nove milioni e due"
                before = [0, *(_SCALES.get(word, 0) for word in self.folded[i:end])]
                kept = [word for word, scale in zip(words, before, strict=False) if word != joiner or scale < 10**6]
                longer = _text2num(" ".join(kept), language)
            value, last, failures = (value, last, failures + 1) if longer is None else (longer, end - 1, 0)
        if value is None:
            return None
        if self._gap(last) == " " and last + 2 < len(self.words) and self.folded[last + 1] in _WORDS["points"]:
            decimals = _text2num(self.folded[last + 2], language)
            if decimals is not None:
                return value + Fraction(decimals, 10 ** len(str(decimals))), last + 2
        return Fraction(value), last


# Joining neighbours.


def _joined(text: str, atoms: list[_Atom]) -> list[_Atom]:
    out: list[_Atom] = []
    links: list[_Unit | None] = []  # the last unit of a compound
    for atom in atoms:
        last = out[-1] if out else None
        if last is not None and 0 <= atom.start - last.end <= 14:
            gap = text[last.end : atom.start]
            if compound := _compound(text, last, links[-1], atom, gap):
                out[-1], links[-1] = compound, atom.unit or links[-1]
                continue
            if joined := _range(text, last, atom, gap) or _part_of(last, atom, gap):
                out[-1], links[-1] = joined, None
                continue
        out.append(atom)
        links.append(atom.unit)
    return out


def _compound(text: str, a: _Atom, unit: _Unit | None, b: _Atom, gap: str) -> _Atom | None:
    """Join 5 ft 11 in, 1 hour and 30 minutes, 5 dollars and 50 cents, two hours and a half, 5 and a half hours."""
    if not isinstance(a.amount, Fraction) or not isinstance(b.amount, Fraction) or "per" in {a.kind, b.kind}:
        return None
    if a.value or b.value:
        return None
    is_whole = a.amount.denominator == 1
    if b.part and gap == " and " and b.amount < 1 and not text.startswith(" of ", b.end):
        if is_whole and a.unit and not b.unit:
            return _Atom(a.start, b.end, a.kind, a.amount + b.amount, a.unit)
        if is_whole and a.kind == "number" and text.startswith("a ", b.start):
            return _Atom(a.start, b.end, b.kind, a.amount + b.amount, b.unit)
        return None
    if unit is None or a.unit is None:
        return None
    if not b.unit and gap == " " and _WORDS.bare_minutes.fullmatch(text, a.end - 1, b.end):  # "2 h 30"
        sound = a.unit.factor == 3600 and is_whole and b.amount < 60
        return _Atom(a.start, b.end, a.kind, a.amount + b.amount / 60, a.unit) if sound else None
    last_word = text[max(0, a.end - 4) : a.end].rpartition(" ")[2].lstrip("0123456789")
    if gap not in _JOINT and not (gap == ". " and last_word in _WORDS["abbreviated"]):
        return None
    if b.unit is None or b.kind != a.kind or b.amount < 0 or unit.base != b.unit.base or unit.offset or b.unit.offset:
        return None
    whole = (a.amount * a.unit.factor / unit.factor).denominator == 1
    smaller = b.unit.factor < unit.factor and b.amount * b.unit.factor < unit.factor
    if not whole or not smaller or a.kind == "percent":
        return None
    amount = abs(a.amount) * a.unit.factor + b.amount * b.unit.factor
    base = _Unit(a.kind, unit.base, powers=unit.powers)
    return _Atom(a.start, b.end, a.kind, -amount if a.amount < 0 else amount, base)


def _range(text: str, a: _Atom, b: _Atom, gap: str) -> _Atom | None:
    if a.value is not None or b.value is not None or "per" in {a.kind, b.kind}:
        return None
    before = text[max(0, a.start - 40) : a.start].casefold()
    between = before.endswith(("between ", "zwischen ", "entre ", "tra ", "fra ", "tussen ", "между ")) and gap in _AND
    if gap not in _TO and not between:
        return None
    if not isinstance(a.amount, Fraction) or not isinstance(b.amount, Fraction):
        return None
    first, second = a.unit or b.unit, b.unit or a.unit
    if first is not None and second is not None and (first.kind, first.base) != (second.kind, second.base):
        return None
    shared = b.scale if a.scale == 1 and a.amount < b.amount / b.scale else 1  # "5-10 million"
    low, high = _in_base(a.amount * shared, first), _in_base(b.amount, second)
    if gap in {" to ", " – ", " — ", " à "} and not before.endswith(("from ", "de ")):
        says_ratio = _WORDS.ratio_words.search(before) or _WORDS.ratio_after.match(text, b.end)
        if first is None and gap == " to " and (says_ratio or low >= high):
            label = f"{_label(low)}:{_label(high)}"
            return _Atom(a.start, b.end, "ratio", value=("ratio", low, high), label=label)
        if low >= high:
            return None
    base = first.base if first else ""
    label = f"{_label(low)} to {_label(high)} {base}".rstrip()
    return _Atom(a.start, b.end, "range", value=(base, low, high), label=label)


def _part_of(a: _Atom, b: _Atom, gap: str) -> _Atom | None:
    plain = all(x.kind == "number" and x.value is None and isinstance(x.amount, Fraction) for x in (a, b))
    if gap not in _OF or not plain or a.part or any(x.amount.denominator != 1 for x in (a, b)):  # type: ignore[union-attr]
        return None
    label = f"{_label(a.amount)} of {_label(b.amount)}"
    return _Atom(a.start, b.end, "ratio", value=("of", a.amount, b.amount), label=label)


def _fact(atom: _Atom) -> Fact:
    if atom.value is not None:
        return Fact(atom.start, atom.end, atom.kind, atom.value, atom.label)
    unit, amount = atom.unit, atom.amount
    if unit is None:
        stated = amount if isinstance(amount, Fraction) else None
        return Fact(atom.start, atom.end, "number", amount, _label(amount), stated)
    stated = amount if isinstance(amount, Fraction) and atom.kind != "per" else None
    base = f"per {unit.base}" if atom.kind == "per" else unit.base
    kind = "quantity" if atom.kind == "per" else unit.kind
    if isinstance(amount, Huge):  # converting would need all its digits
        label = f"{_label(amount)} × {_label(unit.factor)} {base}"
        return Fact(atom.start, atom.end, kind, (base, amount, unit.factor, unit.offset), label)
    amount = _in_base(amount, unit)
    if atom.kind == "per":
        label = f"per {_label(amount)} {unit.base}"
    elif unit.base in {"%", "‰"}:
        label = f"{_label(amount)}{base}"
    else:
        label = f"{_label(amount)} {base}"
    return Fact(atom.start, atom.end, kind, (base, amount), label, stated)


def _in_base(amount: Fraction, unit: _Unit | None) -> Fraction:
    if unit is None or (unit.factor == 1 and not unit.offset):
        return amount
    return (amount + unit.offset) * unit.factor


# Amounts.


def _decimal(digits: str) -> Fraction:
    whole, _, part = digits.partition(".")
    return Fraction(int(whole + part), 10 ** len(part)) if part else Fraction(int(whole or 0))


def _amount(digits: str) -> Fraction | None:
    if len(digits) > _MAX_DIGITS:
        return None
    if digits.isdigit() or _WORDS.plain.fullmatch(digits):
        return _decimal(digits)
    if _WORDS.grouped.fullmatch(digits) or _WORDS.indian.fullmatch(digits):
        return _decimal(re.sub("[,'_ ]", "", digits))
    if _WORDS.european.fullmatch(digits):
        return _decimal(re.sub("[. ']", "", digits).replace(",", "."))
    if _WORDS.dotted.fullmatch(digits):
        return _decimal(digits.replace(".", ""))
    return None


def _scaled(amount: Fraction, exponent: int) -> Amount:
    if not amount:
        return amount
    digits, shift = digits_of(amount) or (0, 0)
    exponent += shift
    return Fraction(10) ** exponent * digits if abs(exponent) <= _MAX_EXPONENT else Huge(digits, exponent)


def _scaled_by(amount: Amount, scale: int) -> Amount:
    if isinstance(amount, Huge):
        digits, shift = digits_of(Fraction(amount.digits * scale)) or (0, 0)
        return Huge(digits, amount.exponent + shift)
    amount *= scale
    is_long = amount.numerator.bit_length() > _MAX_EXPONENT
    return _scaled(amount, 0) if is_long and digits_of(amount) else amount


def _power(base: int, exponent: int) -> Amount | None:
    if base == 10:
        return _scaled(Fraction(1), exponent)
    if base.bit_length() * abs(exponent) > 3000 or (not base and exponent < 0):
        return None
    return Fraction(base) ** exponent


def _label(amount: Amount) -> str:
    return number_text_of(amount) if isinstance(amount, Fraction) else decimal_text(amount.digits, amount.exponent)


# Names.


def _named(start: int, end: int, name: str) -> _Atom:
    return _Atom(start, end, "identifier", value=name, label=name)


def _code(token: str) -> str:
    """Write a name in lower case, unless its case is part of it, as in random keys."""
    if len(token) > 200:
        return token
    regular = all(run.islower() or run.isupper() or run.istitle() for run in _WORDS.letters.findall(token))
    return token.casefold() if regular else token


def _url(url: str) -> str:
    head, separator, rest = url.partition("://")
    if not separator:
        head, rest = "", url
    host, slash, path = rest.partition("/")
    return f"{head.casefold()}{separator}{host.casefold()}{slash}{path}".rstrip("/")


def _address(text: str) -> str | None:
    if len(text) == 17 and text.count(":") == 5 and all(len(pair) == 2 for pair in text.split(":")):
        return text.casefold()
    if text.count(":") < 2 or not (":" in text.strip(":") and ("::" in text or text.count(":") == 7)):
        return None
    try:
        return str(ip_address(text))
    except ValueError:
        return None


# Other languages.


def _cjk_value(text: str) -> int | None:
    if all(char in _CJK_DIGITS for char in text):
        return int("".join(str(_CJK_DIGITS[char]) for char in text))
    total = section = digit = 0
    pending, last = False, 10**20
    for char in text:
        if char in _CJK_DIGITS:
            if pending and digit:
                return None
            digit, pending = _CJK_DIGITS[char], True
            continue
        scale = _CJK_SCALES[char]
        if scale < 10**4:
            section += (digit if pending else 1) * scale
        elif scale < last:  # 一億二千万
            total, section, last = total + (section + digit or 1) * scale, 0, scale
        else:  # 三万亿
            total, section = (total + section + digit) * scale, 0
        digit, pending = 0, False
    return total + section + digit


def _language(words: list[str]) -> str:
    """Name the language whose common words are most; "" where that is not one alone."""
    found = set(words)
    if not found.isdisjoint(_COMMON["en"]):
        return "en"
    counts = {language: len(found & common) for language, common in _COMMON.items()}
    best = max(counts.values())
    leaders = [language for language, count in counts.items() if count == best]
    return leaders[0] if best and len(leaders) == 1 else ""


@lru_cache(maxsize=8192)
def _foreign_word(word: str) -> dict[str, int]:
    """Value a word as a number in each language of text2num in which it is one."""
    if word[0] > "\u2e7f":
        return {"cjk": 0} if any(char in _CJK_DIGITS for char in word) else {}
    if word in _RUSSIAN:
        return {"ru": 0}
    if len(word) > 80 or not word.startswith(_TEXT2NUM_STARTS):
        return {}
    values = {language: _text2num(word, language) for language in _JOINERS}
    if word == "eine":
        values["de"] = 1
    if word in _WORDS["italian_scales"]:  # text2num reads them behind a number only
        values["it"] = _SCALES[word]
    return {language: value for language, value in values.items() if value is not None}


@lru_cache(maxsize=8192)
def _text2num(words: str, language: str) -> int | None:
    from text_to_num import text2num  # type: ignore[import-untyped]  # noqa: PLC0415  # loaded at the first such word

    if language == "es" and words.endswith(("ún", " un")):  # before a noun
        words = words[:-2] + "uno"
    try:
        return int(text2num(words, language))
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _foreign_units() -> dict[str, _Unit]:
    from babel import Locale  # noqa: PLC0415  # loaded at the first word that may need it
    from babel.numbers import get_currency_name  # noqa: PLC0415
    from babel.units import format_unit  # noqa: PLC0415

    found: dict[str, set[_Unit]] = {}
    for name in _WORDS["locales"]:
        locale = Locale(name)
        for identifier, symbol in _WORDS.pairs("cldr_units").items():
            for count in (1, 2, 5, 1.5):
                spelled = format_unit(count, identifier, "long", locale=locale)
                bare = re.sub(r"[0-9.,٫\u0660-\u0669\s\u200f\u200e]{1,9}", " ", spelled).strip()
                found.setdefault(bare.casefold(), set()).add(_SYMBOLS[symbol])
        for code in ("USD", "EUR", "GBP", "JPY", "CNY", "INR", "RUB", "CHF", "KRW"):
            for count in (1, 2, 5):
                named = get_currency_name(code, count=count, locale=locale).casefold()
                found.setdefault(named, set()).add(_Unit("money", code))
    known = {name: units.pop() for name, units in found.items() if name and len(units) == 1}
    return {name: unit for name, unit in known.items() if name not in _WORDS["english_too"]}

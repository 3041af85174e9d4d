"""Values: what a piece of text denotes by itself, whatever was asked: folded text, numbers, JSON, tool calls.

Nothing here raises on any text, and nothing takes more than linear time: a text longer than `MAX_CHARS` is read at its
head and tail only, numbers keep `_CONTEXT.prec` significant digits, and JSON nested deeper than `_MAX_DEPTH` is none.
"""

import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any

MAX_CHARS = 100_000
"""Characters of a text that are read: the first half and the last half of a longer one."""

_MAX_DEPTH = 100
_MAX_BITS = 10_000
_MAX_FENCES = 8
_MAX_MARKS = 30  # marks on one letter: the limit of Unicode's stream-safe format; sorting longer runs is quadratic
_CONTEXT = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])  # no traps: an impossible number is NaN, no error


class Words(dict[str, frozenset[str]]):
    """The words and patterns of a file of `words`: `words["fillers"]` is a set, and `words.asks_number` a compiled pattern.

    A text lists words; a table lists them by language, with "_" for a space, and they are folded. Each is read when first
    asked for.

    Args:
        name: The file's, without its ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def entries(self) -> dict[str, Any]:
        """What the file holds, by name."""
        return tomllib.loads(files(__package__).joinpath("words", f"{self._name}.toml").read_text(encoding="utf-8"))

    def __missing__(self, name: str) -> frozenset[str]:
        entry = self.entries[name]
        if isinstance(entry, str):
            found = frozenset(entry.split())
        else:
            included = [self[other] for other in entry.get("include", "").split()]
            listed = [word for language, words in entry.items() if language != "include" for word in spaced(words)]
            found = frozenset(map(fold, listed)).union(*included)
        self[name] = found
        return found

    def __getattr__(self, name: str) -> re.Pattern[str]:
        if name.startswith("__"):
            raise AttributeError(name)
        entry = self.entries[name]
        entry = {"parts": [entry]} if isinstance(entry, str) else entry
        parts = [*entry.get("parts", [])]
        if words := "|".join(entry.get("words", {}).values()):
            parts.append(rf"\b(?:{words})\b")
        if unspaced := entry.get("unspaced"):
            parts.append(unspaced)
        written = "|".join(parts)
        for defined, alternatives in entry.get("define", {}).items():
            written = written.replace(f"<{defined}>", f"(?:{alternatives})")
        written = re.sub(r"<<(\w+)>>", lambda other: self.entries[other[1]], written)
        pattern = re.compile(written.replace("\n", ""))
        setattr(self, name, pattern)
        return pattern

    def listed(self, name: str) -> list[str]:
        """List words in their order."""
        words: list[str] = self.entries[name].split()
        return words

    def rows(self, name: str) -> list[list[str]]:
        """Take a table apart that has an entry a line, whose cells stand between vertical bars."""
        return [[cell.strip() for cell in line.split("|")] for line in self.entries[name].strip("\n").split("\n")]

    def pairs(self, name: str) -> dict[str, str]:
        """Take pairs such as `US=USD` apart."""
        return {key: value for key, _, value in (pair.partition("=") for pair in self.listed(name))}

    def valued(self, name: str) -> dict[str, int]:
        """Take pairs of a word and a number apart."""
        return {word: int(value) for word, value in self.pairs(name).items()}

    def inverted(self, name: str) -> dict[str, str]:
        """Tell under which name of a table each of its words is listed."""
        return {word: key for key, words in self.entries[name].items() for word in words.split()}


def spaced(words: str) -> list[str]:
    """List words of a table; "_" is a space within one."""
    return [word.replace("_", " ") for word in words.split()]


_NUMBER_WORDS = Words("numbers")
UNIT_WORDS = _NUMBER_WORDS.listed("units")
TEN_WORDS = _NUMBER_WORDS.listed("tens")
ORDINAL_WORDS = _NUMBER_WORDS.listed("ordinals")
_WORDS = {word: n for n, word in enumerate(UNIT_WORDS)} | {word: 20 + 10 * n for n, word in enumerate(TEN_WORDS)}
_SCALES = {"hundred": "2", "thousand": "3", "million": "6", "billion": "9", "trillion": "12"}

_DIGIT = re.compile(r"(?![0-9])\d")  # of any script
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTIONS = {
    code: " " + unicodedata.normalize("NFKC", chr(code)) for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189)
}
_THIN_SPACE = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_SUBSTITUTES: dict[int, str | None] = {
    **dict.fromkeys((*range(9), *range(14, 28), 0x7F), " "),  # control characters that are no white space
    **dict.fromkeys((0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF), None),
    **dict.fromkeys(map(ord, "\u2212\u2010\u2011"), "-"),
    **dict.fromkeys(map(ord, "‘’‛´"), "'"),
    **dict.fromkeys(map(ord, "“”„‟«»"), '"'),
    ord("⁄"): "/",
    ord("؟"): "?",
    ord("٫"): ".",
    ord("٬"): ",",
}
_ACCENTS = dict.fromkeys(range(0x300, 0x370))  # those of Latin, Greek and Cyrillic; other scripts' marks are letters

_NUMBER = re.compile(
    r"""(?<![^\W_])(?<!\^)(?<!\^-)                           # not inside a word, not an exponent
    (?P<sign>(?<![)\]}])(?:-[$€£¥]?|[$€£¥]-))?
    (?P<run>\.?[0-9](?:[0-9.,'_]{0,1000}[0-9])?)
    (?:
        (?:\ (?P<part>[0-9]{1,40}))?\s?/\s?(?P<under>[0-9]{1,40})(?![0-9/])   # 1/2 and 3 1/2
      | e(?P<exponent>[+-]?[0-9]{1,400})(?!\w)
      | \s?(?:x|×|\*|\\times|\\cdot)\s?10\s?\^\s?\{?(?P<power>[+-]?[0-9]{1,400})\}?
      | \s?(?P<scale>hundred|thousand|million|billion|trillion)\b
    )?""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_GROUPED = re.compile(r"[0-9]{1,3}(?:([,'_])[0-9]{3})(?:\1[0-9]{3})*(?:\.[0-9]+)?")
_EUROPEAN = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]+,[0-9]+")
_BELOW_100 = rf"(?:(?:{'|'.join(TEN_WORDS)})(?:[ -](?:{'|'.join(UNIT_WORDS[1:10])})(?![^\W_]))?|{'|'.join(UNIT_WORDS)})(?![^\W_])"
_BELOW_1000 = rf"{_BELOW_100}(?: hundred\b(?: (?:and )?{_BELOW_100})?)?"
_WORD_NUMBER = re.compile(
    rf"(?<![^\W_]){_BELOW_1000}(?: (?:thousand|million|billion|trillion)\b(?:,? (?:and )?{_BELOW_1000})?){{0,4}}"
)

_LATEX = (
    (re.compile(r"(?<=[0-9])(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s?\{([^{}]{1,60})\}\s?\{([^{}]{1,60})\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s?([0-9])([0-9])"), r"\1/\2"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]{0,200})\}"), r" \1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;:]"), ""),
    (re.compile(r"\\([%$#&_])"), r"\1"),
)


WORDS = Words("words")
"""What many languages say, by what it does."""

PATTERNS = Words("patterns")
"""What queries and answers of many languages are told by."""

_MAX_FAILURES = 200  # each may read the whole text once; after so many the end of the text alone is looked at
_TAIL_CHARS = 10_000
_PLACE = re.compile(
    r"""(?P<mark>
        [<\[◁]\s{0,9}[|/]{0,3}\s{0,9}(?:seed:|begin_of_|start_of_|start_|end_of_|end_)?
        (?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)(?:_start|_end)?\b[^<>\[\]◁▷]{0,80}[>\]▷]
      | <\|?channel\|?>\s{0,9}(?:analysis|commentary|thought|final)\b
      | <channel\|>
    )
    | (?P<object>\{)\s{0,999}["}]
    | (?P<list>\[)\s{0,999}[\[{"]""",
    re.IGNORECASE | re.VERBOSE,
)
_BRACKETS = re.compile(r"[\[\s]*")
_ENDS = re.compile(r"/|end|final|<channel\|>", re.IGNORECASE)


def clean(text: str) -> str:
    """Rewrite characters that look alike as one: width, quotes, minus signs, fractions; case and accents stay."""
    text = _scrub(text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]}\n{text[1 - MAX_CHARS // 2 :]}")
    if not text.isascii():
        text = _THIN_SPACE.sub("", text)
        text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
        text = _RAISED.sub(lambda raised: "^" + unicodedata.normalize("NFKC", raised[0]), text)
        text = unicodedata.normalize("NFKC", "".join(_few_marks(text.translate(_FRACTIONS))))
        text = text[:MAX_CHARS]  # one character may become eighteen
    return text.translate(_SUBSTITUTES)


def fold(text: str) -> str:
    """Forget what no answer depends on: case, accents, width, white space within lines, empty lines."""
    text = clean(text).casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", text).translate(_ACCENTS))
        text = text.translate(_SUBSTITUTES)
    return "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)


def unlatex(text: str) -> str:
    r"""Write LaTeX's `\frac`, `\text` and escapes as plain text."""
    if "\\" in text or "{,}" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text


def numbers(text: str) -> list[tuple[str, Decimal]]:
    """Find the numbers in folded text, in order: what stands there, and its value.

    Number words count only where no digits stand. Units, currencies and percent signs are no part of the value.
    """
    found = [pair for match in _NUMBER.finditer(text) for pair in _values(match)]
    return found or [pair for match in _NUMBER.finditer(in_digits(text)) for pair in _values(match)]


def in_digits(text: str) -> str:
    """Write number words in folded text, such as "seven" and "two hundred and five", as digits."""
    return _WORD_NUMBER.sub(_spelled, text)


def number_text(value: Decimal) -> str:
    """Write a finite number in its one canonical form: plain, or with an exponent where that would be long."""
    value = _CONTEXT.normalize(value)
    if not value:
        return "0"
    return f"{value:f}" if -7 <= value.adjusted() <= 20 else f"{value:e}"


def number_text_of(value: Fraction) -> str:
    """Write a fraction as `number_text` does, with all its digits, where its decimals end; else as `1/3`."""
    if value.denominator == 1 and -(10**20) < value.numerator < 10**20:
        return str(value.numerator)
    digits = digits_of(value)
    return str(value) if digits is None else decimal_text(*digits)


def digits_of(value: Fraction) -> tuple[int, int] | None:
    """Split a fraction into digits that do not end in zero and a power of ten; None where its decimals do not end."""
    below, fives = value.denominator, 0
    twos = (below & -below).bit_length() - 1
    below >>= twos
    while below % 5 == 0:
        below, fives = below // 5, fives + 1
    if below > 1:
        return None
    places = max(twos, fives)
    digits = value.numerator * 10**places // value.denominator
    written = str(abs(digits))
    zeros = len(written) - len(written.rstrip("0"))
    return digits // 10**zeros, zeros - places


def decimal_text(digits: int, exponent: int) -> str:
    """Write digits × 10^exponent as `number_text` does, with all its digits."""
    sign, text = "-" if digits < 0 else "", str(abs(digits))
    adjusted = len(text) - 1 + exponent
    if not digits:
        return "0"
    if not -7 <= adjusted <= 20:
        return f"{sign}{text[0]}{'.' + text[1:] if len(text) > 1 else ''}e{adjusted:+d}"
    if exponent >= 0:
        return sign + text + "0" * exponent
    text = text.rjust(1 - exponent, "0")
    return f"{sign}{text[:exponent]}.{text[exponent:]}"


def json_in(text: str, decoder: json.JSONDecoder | None = None) -> list[Any]:
    """Find the JSON in a text, the best first: what the text is as a whole, else its objects from the last, then its lists.

    What is between marks of thinking never counts, nor what is before a mark that only ends it. A part of an object that
    breaks off is no object, and what is before it is a draft.

    Args:
        text: The text, however long; the time is linear in its length.
        decoder: Reads JSON; by default as Python does, with control characters allowed in strings.
    """
    decoder = decoder or json.JSONDecoder(strict=False)
    text = text.strip()
    try:
        value, end = decoder.raw_decode(text)
        if end == len(text):
            return [value]
    except (ValueError, RecursionError):
        pass
    found: list[Any] = []
    thinking = at = failures = 0
    while place := _PLACE.search(text, at):
        at = place.end()
        if mark := place["mark"]:
            is_end = _ENDS.search(mark) is not None
            if is_end and (not thinking or "final" in mark):
                found, thinking = [], 0
            else:
                thinking += -1 if is_end else 1
        elif not thinking:
            try:
                value, at = decoder.raw_decode(text, place.start())
                found.append(value)
            except (ValueError, RecursionError) as error:
                failures += 1
                # What was opened on the way to the fault has the same fault, or is a part of what has it.
                at = max(at, getattr(error, "pos", at))
                if isinstance(error, RecursionError):  # so has each of the brackets that follow
                    at = max(at, _BRACKETS.match(text, at).end())  # type: ignore[union-attr]  # it matches nothing too
                if at >= len(text) or str(error).startswith("Unterminated"):
                    found = []
                if failures == _MAX_FAILURES:
                    text, at = text[max(at, len(text) - _TAIL_CHARS) :], 0
    found.reverse()
    # An empty object is in code and examples more often than for an answer.
    return sorted(found, key=lambda value: 2 if not value else not isinstance(value, dict))


def parse_json(text: str) -> Any:
    """Parse a text that is JSON, or holds it in a code fence; None where it is neither (`null` is None too), or too long.

    Numbers come back as ready canonical text, so that none is too large and 1 equals 1.0.
    """
    text = _scrub(text).strip()
    if len(text) > MAX_CHARS:
        return None
    fenced = [block.partition("\n")[2] or block for block in text.split("```")[1::2]]
    return next((v for v in map(_loads, [text, *fenced[: -_MAX_FENCES - 1 : -1]]) if v is not None), None)


def find_json(text: str) -> Any:
    """Parse the JSON that a text is, else the last object in it, else what begins at its first bracket; see `json_in`."""
    text = _scrub(text).strip()
    found = [value for value in json_in(text, _DECODER) if value is not None and not _is_deep(value)]
    start = min((at for bracket in "{[" if (at := text.find(bracket)) >= 0), default=None)
    return found[0] if found else None if start is None else parse_json_start(text[start:])


def parse_json_start(text: str) -> Any:
    """Parse the JSON value that a text begins with; None where it begins with none."""
    return _loads(_scrub(text[:MAX_CHARS]), whole=False)


def dump_json(value: Any, *, string: Callable[[str], str] = str, depth: int = 0) -> str:
    """Write a value as JSON in its one canonical form: keys sorted, no white space, 1 for 1.0.

    Args:
        value: What JSON can say; anything else is written as its `str`.
        string: Rewrites every string value.
        depth: How deep `value` lies; what lies deeper than `_MAX_DEPTH` is written as `"…"`, so that a value that
            contains itself ends.
    """
    if isinstance(value, _Written):
        return str(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float, Decimal)):
        return str(_written(value))
    if depth > _MAX_DEPTH:
        return '"…"'
    if isinstance(value, Mapping):
        inner = {composed(str(key)): dump_json(item, string=string, depth=depth + 1) for key, item in value.items()}
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{inner[key]}" for key in sorted(inner)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(dump_json(item, string=string, depth=depth + 1) for item in value) + "]"
    return json.dumps(string(composed(str(value))), ensure_ascii=False)


def composed(text: str) -> str:
    """Write a letter and its accents in one form, whether they came as one character or as several; no lone surrogates."""
    if text.isascii():
        return text
    text = text.encode("utf-8", "backslashreplace").decode()
    return unicodedata.normalize("NFC", "".join(_few_marks(text)))


def canonical_tool_calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Write tool calls so that equal texts mean the same calls.

    The whole multiset counts, in any order; the order of arguments, 1 or 1.0, and white space around strings do not.
    Identifiers of calls are left out.

    Args:
        calls: Each with `name`, and `args` as a mapping or as the JSON text of one.
    """
    return "[" + ",".join(sorted(_call(call.get("name"), call.get("args")) for call in calls)) + "]"


def read_tool_calls(text: str) -> str | None:
    """Read tool calls written as JSON: objects with a name and arguments, {name: arguments}, or [name, arguments]."""
    value = find_json(text)
    calls = value if isinstance(value, list) and not (value and isinstance(value[0], str)) else [value]
    read = [_as_call(call) for call in calls]
    return canonical_tool_calls([call for call in read if call]) if all(read) else None


class _Written(str):
    """A number already in canonical JSON; a string of its own kind, so that `"1"` and 1 stay apart."""

    __slots__ = ()


def _scrub(text: str) -> str:
    """Replace lone surrogates, which no file or network could carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    """Tell whether a character is one or more marks once it is decomposed, whatever its own class."""
    return all(map(unicodedata.combining, unicodedata.normalize("NFKD", char)))


def _few_marks(text: str) -> Iterator[str]:
    for is_mark, run in groupby(text, key=_is_mark):
        joined = "".join(run)
        yield joined[:_MAX_MARKS] if is_mark else joined


def _values(match: re.Match[str]) -> list[tuple[str, Decimal]]:
    """Value a match: nothing if impossible, several if it is a list, a date or a version."""
    run = match["run"]
    if _GROUPED.fullmatch(run):
        run = re.sub("[,'_]", "", run)
    elif _EUROPEAN.fullmatch(run):
        run = run.replace(".", "").replace(",", ".")
    elif not _PLAIN.fullmatch(run):
        return [(piece, _CONTEXT.create_decimal(piece)) for piece in re.split("[.,'_]+", run) if piece]
    value = _CONTEXT.create_decimal(run)
    if match["under"]:
        above = _CONTEXT.create_decimal(match["part"] or run)
        value = _CONTEXT.add(value if match["part"] else Decimal(0), _CONTEXT.divide(above, Decimal(match["under"])))
    exponent = match["exponent"] or match["power"] or _SCALES.get(match["scale"] or "", "")
    if exponent:
        value = _CONTEXT.scaleb(value, Decimal(exponent))
    return [(match[0], -value if match["sign"] else value)] if value.is_finite() else []


def _spelled(match: re.Match[str]) -> str:
    total = current = 0
    for word in re.findall("[a-z]+", match[0]):
        if word == "hundred":
            current *= 100
        elif word in _SCALES:
            total, current = total + current * 10 ** int(_SCALES[word]), 0
        else:
            current += _WORDS.get(word, 0)  # "and" adds nothing
    return str(total + current)


def _written(number: str | float | Decimal) -> _Written:
    if isinstance(number, int) and number.bit_length() > _MAX_BITS:
        return _Written(hex(number))  # Python refuses to write one much longer as decimals
    text = str(number) if isinstance(number, (str, int, Decimal)) else repr(number)
    if sum(map(str.isdigit, text)) > _CONTEXT.prec:
        return _Written(text)  # rounded, it would equal others
    value = _CONTEXT.create_decimal(text)
    return _Written(number_text(value) if value.is_finite() else number)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        held = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in held for item in items]
        if not level:
            return False
    return True


def _loads(text: str, *, whole: bool = True) -> Any:
    """Parse JSON; None where it is not. `whole` False allows text after the value."""
    text = text.strip()
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return None if (whole and end < len(text)) or _is_deep(value) else value


_DECODER = json.JSONDecoder(parse_int=_written, parse_float=_written, parse_constant=_written, strict=False)


def _call(name: Any, args: Any) -> str:
    if isinstance(args, str):
        parsed = parse_json(args)
        args = args if parsed is None else parsed
    return f"[{dump_json(name, string=str.strip)},{dump_json(args or {}, string=str.strip)}]"


def _as_call(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list) and len(value) == 2:
        value = {"name": value[0], "args": value[1]}
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        name, args = next(iter(value.items()))
        value = {"name": name, "args": parse_json(args) if isinstance(args, str) else args}
        return value if isinstance(value["args"], dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    return {"name": value["name"], "args": value.get("args", value.get("arguments", value.get("parameters")))}


NEGATIONS = WORDS["negations"]
"""Words that deny."""

"""Dates and times: find them in cleaned text of many languages, and give equal ones equal values.

Names of months and days come from Unicode's CLDR as Babel ships it, loaded at first use and per script; other words are
in `words/dates.toml`. A parser that guesses (an order of day and month, a missing year from today's date, a century)
would make different dates the same, so nothing is filled in: what is not said stays unknown, and what can be read in two
ways is a value of its own, equal to the same spelling only. Where a text may not mean a date it is none: a year alone is
a number, 1/2 a fraction, 2:1 a ratio. A time without a.m. or p.m. is one of the 24-hour clock.

Every step is linear in the text.
"""

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.quantities import Fact, find_quantities

if TYPE_CHECKING:
    from babel import Locale

_WORDS: Final = values.Words("dates")


class When(NamedTuple):
    """What a date or time states; None where it does not say.

    Attributes:
        year: The year, or of a decade the first; the number of a century. Before Christ: below 0, 44 BC is -44.
        month: 1 to 12; where `form` is `"/"` or `"-"`, the number written first.
        day: 1 to 31; where `form` is `"/"` or `"-"`, the number written second.
        weekday: 0 for Monday; left out beside a full date that it agrees with.
        clock: `"21:15"`, `"21:15:30"` or `"21:15:30.5"`; in UTC where `zone` is `"Z"`.
        zone: `"Z"`, an offset such as `"+05:30"`, or a name such as `"EST"` that means several offsets.
        form: `""`, `"decade"`, `"century"`, `"'"` (a year of two digits), `"/"` or `"-"` (which number is the day is
            unknown), `"every"` (a weekday in the plural), or the spelling where nothing more is known.
    """

    year: int | None = None
    month: int | None = None
    day: int | None = None
    weekday: int | None = None
    clock: str | None = None
    zone: str | None = None
    form: str = ""


def find_dates(text: str) -> list[Fact]:
    """Find the dates and times of day in a text as `values.clean` leaves it, in order and apart.

    Args:
        text: Cleaned text.

    Returns:
        Facts of kind `"date"`, and `"time"` for a time without a date; each value is a `When`.
    """
    digits = _WORDS.digit.search(text) is not None
    is_ascii = text.isascii()
    names = _names(
        tuple((at == 0 or not is_ascii) and bool(letter.search(text)) for at, (letter, _) in enumerate(_SCRIPTS))
    )
    groups: list[Iterable[_Piece]] = [_from_words(text, names, digits=digits)]
    if digits:
        groups = [_from_numbers(text), *groups, _from_years(text), *_from_times(text, names)]
    if not is_ascii and _WORDS.unspaced.search(text):
        groups = [_from_unspaced(text, names), *groups]
    pieces: list[_Piece] = []
    covered = bytearray(len(text))
    for group in groups:
        for piece in group:
            if not any(covered[piece.start : piece.end]):
                covered[piece.start : piece.end] = b"\1" * (piece.end - piece.start)
                pieces.append(piece)
    if not pieces:
        return []
    pieces.sort(key=lambda piece: piece.start)
    return [_fact(piece) for piece in _joined(text, _with_years(text, pieces)) if not piece.bare]


@dataclass(frozen=True, slots=True)
class _Clock:
    hour: int
    minute: int = 0
    second: int = 0
    fraction: str = ""  # digits after the second, without the zeros at their end
    zone: str = ""  # one of no certain offset
    offset: int | None = None  # minutes east of Greenwich


@dataclass(frozen=True, slots=True)
class _Piece:
    """A date, a time or both, and where it stands; `when` holds no time before the end."""

    start: int
    end: int
    when: When
    clock: _Clock | None = None
    bare: bool = False  # the name of a month that is a date only together with its neighbour

    @property
    def kind(self) -> str:
        """`"day"` (a time may belong to it), `"span"` (none can), `"weekday"` or `"clock"`."""
        if self.when.day is not None:
            return "day"
        if self.when.month is not None or self.when.year is not None or self.when.form:
            return "span"
        return "clock" if self.when.weekday is None else "weekday"


# The names of months, weekdays and parts of the day


class _Month(NamedTuple):
    number: int
    full: bool  # not abbreviated
    weak: bool  # another word as well: a month only within a full date


class _Names(NamedTuple):
    months: dict[str, _Month]
    days: dict[str, int]
    full_days: dict[str, int]  # those that are read without a date beside them
    halves: dict[str, str]  # "in the morning" and the like: morning, afternoon, evening or night
    half: re.Pattern[str]


_SCRIPTS: Final = tuple((re.compile(letters), languages.split()) for letters, languages in _WORDS.rows("scripts"))
_MONTHS: Final = _WORDS.listed("months")
_WEEKDAYS: Final = _WORDS.listed("weekdays")
_ENGLISH: Final = frozenset([*_MONTHS, *(name[:3] for name in _MONTHS), "sept"])
_ENGLISH_DAYS: Final = {name[:3]: at for at, name in enumerate(_WEEKDAYS)} | {"tues": 1, "thur": 3, "thurs": 3}
_PARTS: Final = ("morning", "afternoon", "evening", "night")
_ENGLISH_HALVES: Final = {f"in the {part}": part for part in _PARTS[:3]} | {"at night": "night"}
_CASES: Final = {language: names.split() for language, names in _WORDS.rows("cases")}  # what follows "in"
_WORD = re.compile("[^\\x00-@\\[-`{-\u00bf\u00d7\u00f7\u2000-\u206f\u2190-\u2bff\u3000-\u303f\uff00-\uff20]+")
"""Letters and their marks; `\\w` would end a word at a vowel sign of Hindi."""


@cache
def _names(scripts: tuple[bool, ...]) -> _Names:
    """Collect the names in English and in all languages of some scripts."""
    months = {name: _Month(at + 1, full=True, weak=False) for at, name in enumerate(_MONTHS)}
    for at, name in enumerate(_MONTHS):
        months.setdefault(name[:3], _Month(at + 1, full=False, weak=False))
    full_days = {name: at for at, name in enumerate(_WEEKDAYS)}
    days, halves = full_days | _ENGLISH_DAYS, dict(_ENGLISH_HALVES)
    for (_, languages), wanted in zip(_SCRIPTS, scripts, strict=True):
        if wanted:
            from babel import Locale  # noqa: PLC0415 - heavy

            for language in languages:
                locale = Locale.parse(language)
                _add_months(months, language, locale)
                _add_days(days, full_days, locale)
                _add_halves(halves, locale)
    spelled = "|".join(map(re.escape, sorted(halves, key=len, reverse=True)))
    return _Names(months, days, full_days, halves, re.compile(rf"[ ,]{{0,2}}({spelled})(?![^\W\d_])", re.IGNORECASE))


def _add_months(months: dict[str, _Month], language: str, locale: "Locale") -> None:
    for word, number, full in _spellings(locale.months):
        bare = re.split("[ ']", word)[-1]  # Catalan: "de juliol", "d'agost"
        plain = values.fold(bare).replace("ı", "i")
        for name in [bare, plain] if len(bare) > 3 else [bare]:
            weak = name in _WORDS["weak"] or not (full or bare in _WORDS["short"])
            for prefix in ("", "ב") if language == "he" else ("",):
                if name != "pro":  # Czech, for "prosinec"
                    months.setdefault(prefix + name, _Month(number, full, weak))
    for at, word in enumerate(_CASES.get(language, [])):
        months.setdefault(word, _Month(at + 1, full=True, weak=False))


def _add_days(days: dict[str, int], full_days: dict[str, int], locale: "Locale") -> None:
    for word, number, full in _spellings(locale.days):
        if len(word) > 1 and " " not in word:
            days.setdefault(word, number)
            if full and word not in _WORDS["days_too"]:
                full_days.setdefault(word, number)


def _spellings(table: object) -> Iterator[tuple[str, int, bool]]:
    """List what a table of CLDR calls each month or weekday, its number, and whether that is in full."""
    for width in ("wide", "abbreviated"):
        for context in ("format", "stand-alone"):
            for number, name in table[context][width].items():  # type: ignore[index]
                yield values.clean(name).casefold().strip(". "), number, width == "wide"


def _add_halves(halves: dict[str, str], locale: "Locale") -> None:
    periods = locale.day_periods.get("format", {})
    for keys in (("am", "pm"), _PARTS):  # one word may stand for both: "下午" is p.m., not only the afternoon
        for width in ("wide", "abbreviated"):
            for key, name in periods.get(width, {}).items():
                part = key.rstrip("12")
                spelled = values.clean(name).casefold().strip()
                long = len(spelled) > 2 or (spelled > "\u3000" and len(spelled) == 2)
                if part in keys and long and spelled[-1] != ".":
                    halves.setdefault(spelled, part)


# Years and eras

_ERA = re.compile(rf"\s?(?:(?P<bc>{_WORDS.before_christ.pattern})|(?P<ad>{_WORDS.after_christ.pattern}))(?!\w)")
_YEAR_AND_ERA = re.compile(
    rf"(?<![\w.,:/$-])(?:(?P<first>\d{{1,4}})\s?[-–]\s?)?(?P<year>\d{{1,6}}|\d{{1,3}},\d{{3}})"
    rf"\s?(?:(?P<bc>{_WORDS.before_christ.pattern})|(?P<ad>{_WORDS.after_christ.pattern}))(?!\w)"
)


class _Year(NamedTuple):
    """A year beside a day or month: where it ends, 0 where the date ends elsewhere, and the form of its number."""

    number: int
    end: int = 0
    form: str = ""


def _year_after(text: str, at: int, *, full: bool) -> _Year | None:
    """Read a year that follows a month or, where `full`, a day: then it may have three digits, or two and an apostrophe."""
    found = _WORDS.year.match(text, at)
    if not found or (not found["link"] and not found["comma"]):
        return None
    number, end = found["year"], found.end()
    if number[0] == "'":
        return _Year(int(number[1:]), end, "'") if full else None
    if era := _ERA.match(text, end):
        return _Year(-int(number) if era["bc"] else int(number), era.end()) if int(number) else None
    if len(number) == 2 and found["link"] in {"-", "/"} and full:
        return _Year(int(number), end, "'")
    if int(number) and (len(number) == 4 or (len(number) == 3 and full and _WORDS.phrase_ends.match(text, end))):
        word = _WORDS.year_word.match(text, end)
        return _Year(int(number), word.end() if word else end)
    return None


# Dates with a month in words

_TENTHS: Final = {"twenty": 20, "thirty": 30}
_ORDINALS: Final = {word: at for at, word in enumerate(values.ORDINAL_WORDS) if at} | {"twentieth": 20, "thirtieth": 30}
_ORDINAL: Final = rf"(?:(?P<tens>twenty|thirty)[- ])?(?P<word>{'|'.join(_ORDINALS)})"
_ORDINAL_BEFORE = re.compile(rf"\b{_ORDINAL} (?:day )?of \Z", re.IGNORECASE)
_ORDINAL_AFTER = re.compile(rf" (?P<the>the )?{_ORDINAL}(?!\w)", re.IGNORECASE)
_LOOK_BACK = 24


def _from_words(text: str, names: _Names, *, digits: bool) -> Iterator[_Piece]:
    """Find dates that are marked by a word: a month, a weekday, a century, noon."""
    for match in _WORD.finditer(text):
        token = match[0]
        if len(token) > 24:
            continue
        word = token.casefold()
        if month := names.months.get(word):
            yield from _from_month(text, match, word, month, digits=digits)
        if word in names.days:
            yield from _from_weekday(text, match, word, names, digits=digits)
        elif word in _WORDS["centuries"]:
            yield from _from_century(text, match)
        elif word in _NAMED_HOURS:
            yield _Piece(match.start(), match.end(), When(), _Clock(_NAMED_HOURS[word]))
        elif word[-1] == "s" and word[:-1] in names.full_days and word[:-1] in _WEEKDAYS and token[0].isupper():
            yield _Piece(match.start(), match.end(), When(weekday=names.full_days[word[:-1]], form="every"))
        elif word in _FEIRAS and text.startswith("-feira", match.end()):
            yield _Piece(match.start(), match.end() + 6, When(weekday=_FEIRAS[word]))


def _from_month(text: str, match: re.Match[str], word: str, month: _Month, *, digits: bool) -> Iterator[_Piece]:
    start, end = match.span()
    english = word in _ENGLISH
    lower = match[0].islower() and word in _WORDS["verbs_too"]
    low = max(0, start - _LOOK_BACK)
    point = end + (text[end : end + 1] == "." and not month.full)
    before = _WORDS.day_before.search(text, low, start) if digits else None
    day_after = _WORDS.day_after.match(text, end) if digits and not month.weak else None
    if day_after and not (day_after["link"] or day_after["the"] or text[end : end + 1] == "." or english):
        day_after = None  # "Jul4" is a date, "Juli4" a name
    if before:
        year = _year_after(text, point, full=True) or _year_after(text, end, full=True)
        other = day_after and day_after["suffix"] is None and _year_after(text, day_after.end(), full=True)
        if month.weak and not month.full and not (year and year.number > 999 and " of " not in text[end : year.end]):
            return  # "4 out of 500"
        strong = year or before["of"] or (before["suffix"] and (not lower or len(before["suffix"]) > 1))
        if year or before["of"] or not other:  # else "chapter 3 July 4, 1776"
            if strong or (not month.weak and (not lower or _WORDS.phrase_ends.match(text, end))):
                yield from _days(before, month.number, point, year)
            return
    spoken = _ORDINAL_BEFORE.search(text, low, start) if english else None
    if spoken:
        yield from _day(spoken.start(), end, month.number, _ordinal(spoken), _year_after(text, end, full=True))
        return
    if day_after and int(day_after["day"]) > 31:
        return
    if day_after and int(day_after["day"]):
        yield from _month_first(text, match, word, month, day_after, lower=lower)
        return
    after = _ORDINAL_AFTER.match(text, end) if english and not lower else None
    if after and (after["the"] or word not in _WORDS["names_too"]):
        end = after.end()
        yield from _day(start, end, month.number, _ordinal(after), _year_after(text, end, full=True))
        return
    year = _year_after(text, point, full=False) if digits else None
    if year and (_says_month(match[0], word, month) or " d" in text[point : point + 3]):
        yield _Piece(start, year.end, When(year=year.number, month=month.number))
        return
    alone = month.full and not month.weak and word not in _WORDS["words_too"] and not lower
    if alone and (not english or match[0][0].isupper()):
        known = word not in _WORDS["names_too"] or _WORDS.within.search(text, low, start)
        yield _Piece(start, end, When(month=month.number), bare=not known)


def _says_month(token: str, word: str, month: _Month) -> bool:
    """Tell whether a month followed by a year alone is one: "Mars 2020" is a mission, "may 2020" two words."""
    if word in _WORDS["verbs_too"]:
        return token[0].isupper()
    return not month.weak and (word not in {"mars", "maja"} or token.islower())


def _days(before: re.Match[str], month: int, end: int, year: _Year | None) -> Iterator[_Piece]:
    """Make a day, or the two ends of "4-6 July 1776"."""
    start = before.start("day")
    if before["first"] and _valid(year, month, int(before["first"])):
        start = before.end("first")
        yield from _day(before.start(), start, month, int(before["first"]), year and year._replace(end=0))
    yield from _day(start, end, month, int(before["day"]), year)


def _month_first(
    text: str, match: re.Match[str], word: str, month: _Month, after: re.Match[str], *, lower: bool
) -> Iterator[_Piece]:
    english, marked = word in _ENGLISH, after["suffix"] not in {None, "."}
    start, end = match.start(), after.end("suffix" if marked else "day")
    day = int(after["day"])
    if after["last"] and 0 < int(after["last"]) <= 31 and not _year_after(text, after.end("day"), full=True):
        year = _year_after(text, after.end(), full=True)
        yield from _day(start, end, month.number, day, year and year._replace(end=0))
        yield from _day(end, after.end(), month.number, int(after["last"]), year)
        return
    year = _year_after(text, end, full=True)
    earlier = None if year else _WORDS.year_before.search(text, max(0, start - 8), start)
    if earlier and not (english and earlier["link"][0] == "."):
        yield from _day(earlier.start(), end, month.number, day, _Year(int(earlier["year"])))
    elif year or (english and (not lower or marked or _WORDS.phrase_ends.match(text, end))) or after["suffix"] == ".":
        yield from _day(start, end, month.number, day, year)


def _ordinal(match: re.Match[str]) -> int:
    return _TENTHS.get((match["tens"] or "").lower(), 0) + _ORDINALS.get((match["word"] or "").lower(), 0)


def _day(start: int, end: int, month: int, day: int, year: _Year | None) -> Iterator[_Piece]:
    if _valid(year, month, day):
        number, year_end, form = year or (None, 0, "")
        yield _Piece(start, year_end or end, When(number, month, day, form=form))


def _valid(year: _Year | None, month: int, day: int) -> bool:
    """Tell whether there is such a day: before 1753, when Britain left the Julian calendar, by either calendar."""
    if not (1 <= month <= 12 and 1 <= day <= 31) or (year and not year.number and not year.form):
        return False
    number = year.number if year and not year.form else 4
    leap = number < 0 or calendar.isleap(number) or (number < 1753 and number % 4 == 0)
    return day <= (28 + leap if month == 2 else 30 if month in {4, 6, 9, 11} else 31)


# Weekdays, centuries, noon

_FEIRAS: Final = _WORDS.valued("feiras")
_NAMED_HOURS: Final = dict.fromkeys(_WORDS["noon"], 12) | dict.fromkeys(_WORDS["midnight"], 0)
_EDGES: Final = " \t\n.,;:!?\"'()*_`"
_CENTURY_BEFORE = re.compile(
    rf"(?<![\w.,:/-])(?:(?P<number>\d{{1,2}})(?:st|nd|rd|th|er|[eo°.]|ème|-?(?:й|го|м|е|ші|му))?|(?P<roman>[IVX]{{1,5}})(?:e|er|ème|\.)?|{_ORDINAL})"
    r"[ -]\Z",
    re.IGNORECASE,
)


def _from_weekday(text: str, match: re.Match[str], word: str, names: _Names, *, digits: bool) -> Iterator[_Piece]:
    start, end = match.span()
    token = match[0]
    full = word in names.full_days
    if full and (word not in _WEEKDAYS or token[0].isupper()):
        yield _Piece(start, end, When(weekday=names.days[word]))
        return
    ends = text[end : end + 1]
    if word in _ENGLISH_DAYS:
        known = token[0].isupper() and len(text) < 64 and text.strip(_EDGES) == token
        beside = digits and token[0].isupper()
    else:
        known, beside = False, digits and (full or len(word) > 4 or ends in {".", ","})
    if known or beside:
        yield _Piece(start, end + (ends == "." and not full), When(weekday=names.days[word]), bare=not known)


def _from_century(text: str, match: re.Match[str]) -> Iterator[_Piece]:
    start, end = match.span()
    if before := _CENTURY_BEFORE.search(text, max(0, start - _LOOK_BACK), start):
        start = before.start()
        number = _roman(before["roman"]) if before["roman"] else int(before["number"] or 0) or _ordinal(before)
    elif after := _WORDS.century_after.match(text, end):
        end, number = after.end(), _roman(after["roman"])
    else:
        return
    era = _ERA.match(text, end)
    if 0 < number <= 60:
        yield _Piece(start, era.end() if era else end, When(-number if era and era["bc"] else number, form="century"))


def _roman(text: str) -> int:
    text = text.upper()
    tens = len(text) - len(text.lstrip("X"))
    ones = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    return 10 * tens + ones.index(text[tens:]) if tens < 4 and text[tens:] in ones else 0


# Dates in digits


def _from_numbers(text: str) -> Iterator[_Piece]:
    for match in _WORDS.numeric.finditer(text):
        if not (match["sep"] == "-" and text[match.start() - 1 : match.start()] == "-"):
            yield from _numeric(match)
    if "T" in text:
        for match in _WORDS.compact.finditer(text):
            yield from _day_and_time(match, _Year(int(match["a"])))
    if "tháng" in text:
        for match in _WORDS.vietnamese.finditer(text):
            year = _Year(int(match["year"])) if match["year"] else None
            yield from _day(match.start(), match.end(), int(match["month"]), int(match["day"]), year)


def _from_years(text: str) -> Iterator[_Piece]:
    for match in _YEAR_AND_ERA.finditer(text):
        if match["first"]:
            yield from _era_year(match.start(), match.end("first"), match["first"], before=bool(match["bc"]))
            yield from _era_year(match.end("first"), match.end(), match["year"], before=bool(match["bc"]))
        else:
            yield from _era_year(match.start(), match.end(), match["year"], before=bool(match["bc"]))
    for match in _WORDS.era_and_year.finditer(text):
        yield from _era_year(match.start(), match.end(), match["year"], before=bool(match["bc"]))
    for match in _WORDS.decade.finditer(text):
        spelled = match["year"] or match["before"]
        form = "decade'" if spelled[0] == "'" else "decade"
        yield _Piece(match.start(), match.end(), When(int(spelled.lstrip("'")), form=form))


def _era_year(start: int, end: int, number: str, *, before: bool) -> Iterator[_Piece]:
    year = int(number.replace(",", ""))
    if year:
        yield _Piece(start, end, When(-year if before else year))


def _numeric(match: re.Match[str]) -> Iterator[_Piece]:
    a, b, c, sep = match["a"], match["b"], match["c"], match["sep"]
    if match["gap"] and sep != ".":
        return
    first, second = int(a), int(b)
    if len(a) == 4 and len(c) <= 2:
        yield from _day_and_time(match, _Year(first))
        return
    if len(a) > 2 or match["time"]:
        return
    span = match.span()
    if len(c) == 4:
        year = int(c)
        if sep == "." or first > 12 or first == second:
            yield from _day(*span, second, first, _Year(year))
        elif second > 12:
            yield from _day(*span, first, second, _Year(year))
        elif first and second and year:
            yield _Piece(*span, When(year, first, second, form=sep))
    elif len(c) == 2 and len(a) == len(b) == 2 and sep == ".":
        yield from _day(*span, second, first, _Year(int(c), form="'"))
    elif len(c) == 2 and sep == "/" and 0 < min(first, second) <= 12 and max(first, second) <= 31:
        yield _Piece(*span, When(day=0, form=f"{first}/{second}/{c}"))


def _day_and_time(match: re.Match[str], year: _Year) -> Iterator[_Piece]:
    groups = match.groupdict()
    korean = bool(groups.get("gap")) and match.string.startswith(".", match.end())  # "2024. 3. 4."
    day = _day(match.start(), match.end() + korean, int(match["b"]), int(match["c"]), year)
    for piece in day if year.number else ():
        if not groups.get("h"):
            yield piece
            continue
        clock = _clock(match["h"], match["m"], match["s"], groups.get("f"))
        if clock:
            zone = groups["zone"]
            offset = None if not zone else 0 if zone == "Z" else _offset(zone)
            yield replace(piece, clock=replace(clock, offset=offset))


# Dates and times in Chinese, Japanese and Korean

_ERAS: Final = _WORDS.valued("eras")
_UNSPACED_DATE = re.compile(
    rf"(?:(?P<era>公元前|紀元前|西元前|기원전|公元|西暦|西元|서기|{'|'.join(_ERAS)})\s?)?"
    r"(?<![0-9.,/:])(?:(?P<year>\d{1,4})\s?[年년]\s?)?(?P<month>\d{1,2})\s?[月월](?:\s?(?P<day>\d{1,2})\s?[日號号일])?"
    r"(?:\s?\((?P<weekday>[月火水木金土日월화수목금토일])\))?"
)
_UNSPACED_YEAR = re.compile(
    rf"(?P<era>公元前|紀元前|西元前|기원전|公元|西暦|서기|{'|'.join(_ERAS)})\s?(?P<year>\d{{1,4}})(?:\s?[年년])?"
)
_WEEKDAY_SIGNS: Final = {sign: at % 7 for at, sign in enumerate("月火水木金土日월화수목금토일")}
_WEEKDAY_NUMBERS: Final = {"一": 0, "二": 1, "三": 2, "四": 3, "五": 4, "六": 5, "日": 6, "天": 6}


def _from_unspaced(text: str, names: _Names) -> Iterator[_Piece]:
    """Find dates that are marked by the signs of Chinese, Japanese or Korean."""
    for match in _UNSPACED_DATE.finditer(text):
        yield from _unspaced_date(text, match)
    for match in _UNSPACED_YEAR.finditer(text):
        if year := _unspaced_year(match["era"], match["year"]):
            yield _Piece(*match.span(), When(year.number))
    for match in _WORDS.unspaced_century.finditer(text):
        if number := int(match["number"]):
            yield _Piece(*match.span(), When(-number if match["era"] else number, form="century"))
    for match in _WORDS.unspaced_weekday.finditer(text):
        sign = match["word"] or match["korean"]
        yield _Piece(*match.span(), When(weekday=_WEEKDAY_SIGNS[sign] if sign else _WEEKDAY_NUMBERS[match["number"]]))
    for match in _WORDS.unspaced_time.finditer(text):
        clock = _clock(match["h"], "30" if match["half"] else match["m"], match["s"])
        start, part = _part_before(text, match.start(), names)
        if not clock or (match["mark"] in "点點" and not (part or match["half"] or match["sharp"] or match["m"])):
            continue  # "5 points" otherwise
        if half := _in_half(clock, part):
            yield _Piece(start, match.end(), When(), half)
        else:
            yield _Piece(*match.span(), When(), clock)
    for match in _WORDS.unspaced_hour.finditer(text):
        yield _Piece(*match.span(), When(), _Clock(12 if match["noon"] else 0))


def _unspaced_date(text: str, match: re.Match[str]) -> Iterator[_Piece]:
    month, start, weekday = int(match["month"]), match.start(), match["weekday"]
    if not match["year"] and (match["era"] or text[max(0, start - 2) : start].strip()[-1:] in {"年", "년"}):
        return
    year = _unspaced_year(match["era"], match["year"]) if match["year"] else None
    if not 1 <= month <= 12 or (match["year"] and not year):
        return
    if not match["day"]:
        number, _, form = year or (None, 0, "")
        yield _Piece(start, match.start("weekday") - 1 if weekday else match.end(), When(number, month, form=form))
        return
    for piece in _day(start, match.end(), month, int(match["day"]), year):
        yield replace(piece, when=piece.when._replace(weekday=_WEEKDAY_SIGNS[weekday] if weekday else None))


def _unspaced_year(era: str | None, number: str) -> _Year | None:
    year = int(number)
    if not year or (not era and len(number) == 1):
        return None
    if era:
        return _Year(year + _ERAS[era] if era in _ERAS else -year if era.endswith(("前", "전")) else year)
    return _Year(year, form="'" if len(number) == 2 else "")


# Times of day

_ZONES: Final = _WORDS.valued("zones")
_ZONE = re.compile(
    r"\s?\(?(?:(?P<name>"
    + "|".join([*_ZONES, *_WORDS.listed("other_zones")])
    + r")(?:\s?(?P<shift>[+-]\d{1,2}(?::?\d\d)?))?"
    r"|(?P<plus>\+\d\d(?::?\d\d)?)|(?P<minus>(?<=\s)-\d\d:?\d\d|(?<=:\d\d:\d\d)-\d\d:?\d\d)"
    r"|(?P<place>(?:Africa|America|Asia|Atlantic|Australia|Europe|Indian|Pacific)/[A-Z][A-Za-z_]{1,30})"
    r"|(?P<words>(?:Eastern|Central|Mountain|Pacific)(?: (?:Standard|Daylight))? [Tt]ime|[Ll]ocal time|Greenwich Mean Time"
    r"|Coordinated Universal Time))(?![\w:])\)?"
)
_WORDED_ZONES: Final = {"Greenwich Mean Time": 0, "Coordinated Universal Time": 0}


def _clock(
    hour: str, minute: str | None = None, second: str | None = None, fraction: str | None = None
) -> _Clock | None:
    h, m, s = int(hour), int(minute or 0), int(second or 0)
    if h > 24 or m > 59 or s > 59 or (h == 24 and (m or s)):
        return None
    return _Clock(h, m, s, (fraction or "").rstrip("0"))


def _in_half(clock: _Clock, part: str) -> _Clock | None:
    h = clock.hour
    if part in {"am", "pm"}:
        if not h or h > 12:
            return clock if (part == "am") == (h < 12) and h < 24 else None
        return replace(clock, hour=h % 12 + 12 * (part == "pm"))
    if part == "morning":
        return clock if h < 12 else None
    if part == "night":
        if h > 12 or not h:
            return clock if h >= 18 or h < 6 else None
        return None if h == 6 else replace(clock, hour=h + 12 if 6 < h < 12 else h % 12)
    if part not in {"afternoon", "evening"} or not h:
        return None
    if h >= 12:
        return clock if h > 12 or part == "afternoon" else None
    return replace(clock, hour=h + 12) if part == "evening" or h < 8 else None


def _from_times(text: str, names: _Names) -> tuple[list[_Piece], list[_Piece]]:
    """Find times of day: first those of ranges that say a.m. or p.m. at their end only, then all others."""
    ranges: list[_Piece] = []
    times: list[_Piece] = []
    for match in _WORDS.time.finditer(text):
        found = _time(text, match, names)
        if found is None:
            continue
        piece, halved = found
        first = (
            _WORDS.first_of_range.search(text, max(0, piece.start - 12), piece.start)
            if halved and piece.clock
            else None
        )
        if first and piece.clock and (earlier := _earlier(first, piece.clock)):
            ranges.append(_Piece(first.start(), max(first.end("h"), first.end("m")), When(), earlier))
            ranges.append(piece)
        else:
            times.append(piece)
    return ranges, times


def _time(text: str, match: re.Match[str], names: _Names) -> tuple[_Piece, bool] | None:
    """Read a time that begins with a number; also tell whether it says a.m. or p.m. None if the number is no time."""
    clock = _clock(match["h"], match["m"] or match["hm"], match["s"], match["f"])
    start, end = match.span()
    sure = match["sep"] == ":" or bool(match["hm"])
    if clock is None or (match["hour"] and not _WORDS.hours_before.search(text, max(0, start - 4), start)):
        return None
    sure = sure or bool(match["hour"]) or _WORDS.clock_before.search(text, max(0, start - 12), start) is not None
    half = _WORDS.half.match(text, end)
    halved = half is not None and bool(half["am"] or half["pm"])
    if half:
        marked = _by_mark(text, match, clock, half, sure=sure)
        if marked is None and (halved or not sure):
            return None
        clock, end = marked or (clock, end)
        sure = True
    if not halved:
        start, end, clock, sure = _by_part_of_day(text, start, end, clock, names, sure=sure)
    follows = text[end : end + 1]
    if not sure or (follows.isascii() and follows.isalpha() and follows != "Z"):
        return None
    if zone := _ZONE.match(text, end):
        clock, end = _zoned(clock, zone, end)
    return _Piece(start, end, When(), clock), halved


def _by_mark(
    text: str, match: re.Match[str], clock: _Clock, half: re.Match[str], *, sure: bool
) -> tuple[_Clock, int] | None:
    """Read what follows the numbers of a time ("pm", "Uhr 15", "noon"); the time and its end, None if it is none."""
    if half["am"] or half["pm"]:
        fixed = _in_half(clock, "am" if half["am"] else "pm")
        point = "." in half[0] and text[half.end() : half.end() + 1] == "."
        return (fixed, half.end() + point) if fixed else None
    if half["noon"] or half["midnight"]:
        fits = clock.hour == 12 and not clock.minute
        return (replace(clock, hour=12 if half["noon"] else 0), half.end()) if fits else None
    mark = half["mark"].lower()
    if mark == "uhr" and half["minute"] and not match["m"] and int(half["minute"]) < 60:
        return replace(clock, minute=int(half["minute"])), half.end()
    if mark in {"uhr", "o'clock", "oclock", "बजे"}:
        return clock, half.end("mark")
    said = not match["sep"] and _WORDS.hours_before.search(text, max(0, match.start() - 4), match.start())
    if said or (sure and mark != "hr") or (match["sep"] == "." and mark == "uur"):
        return clock, half.end("mark")
    return None  # a number of hours


def _by_part_of_day(
    text: str, start: int, end: int, clock: _Clock, names: _Names, *, sure: bool
) -> tuple[int, int, _Clock, bool]:
    """Read the part of the day beside a time ("in the evening"): where all begins and ends, the time, if it is one."""
    said = names.half.match(text, end) if text[end : end + 2].strip(" ,'")[:1].isalpha() else None
    if said and (sure or " " in said[1] or said[1].casefold() in _WORDS["few_words"]):
        fixed = _in_half(clock, names.halves.get(said[1].casefold(), ""))
        if fixed:
            return start, said.end(), fixed, True
    if sure and not text.isascii():
        before, part = _part_before(text, start, names)
        if fixed := _in_half(clock, part):
            return before, end, fixed, True
    return start, end, clock, sure


def _earlier(first: re.Match[str], last: _Clock) -> _Clock | None:
    """Read the first time of "9:15-10:30 PM": in the same half of the day if that comes earlier."""
    clock = _clock(first["h"], first["m"])
    if clock is None or not 1 <= clock.hour <= 12:
        return None
    same = replace(clock, hour=clock.hour % 12 + 12 * (last.hour >= 12), zone=last.zone, offset=last.offset)
    other = replace(same, hour=(same.hour + 12) % 24)
    return same if (same.hour, same.minute) < (last.hour, last.minute) else other


def _part_before(text: str, start: int, names: _Names) -> tuple[int, str]:
    """Read a part of the day that stands before a time, as in Chinese; where it begins, and its name or ""."""
    gap = text[max(0, start - 1) : start] == " "
    for length in range(min(5, start - gap), 0, -1):
        at = start - gap - length
        word = text[at : start - gap].casefold()
        if (
            not word.isascii()
            and word in names.halves
            and (word[0] > "\u3000" or not text[at - 1 : at].isalpha() or not at)
        ):
            return at, names.halves[word]
    return start, ""


def _offset(text: str) -> int:
    digits = text[1:].replace(":", "")
    hours, minutes = (digits, "0") if len(digits) <= 2 else (digits[:-2], digits[-2:])
    return (-1 if text[0] == "-" else 1) * (60 * int(hours) + int(minutes))


def _zoned(clock: _Clock, zone: re.Match[str], end: int) -> tuple[_Clock, int]:
    """Add a zone to a time; an impossible offset is none."""
    written = zone["shift"] or zone["plus"] or zone["minus"]
    close = zone.end() - (zone[0].endswith(")") and "(" not in zone[0])
    if written and zone["name"] in {None, "UTC", "GMT"}:
        offset = _offset(written)
        return (replace(clock, offset=offset), close) if abs(offset) <= 14 * 60 else (clock, end)
    if zone["name"]:
        close = zone.end("name") if written else close
        if zone["name"] in _ZONES:
            return replace(clock, offset=_ZONES[zone["name"]]), close
        return replace(clock, zone=zone["name"]), close
    if zone["words"] in _WORDED_ZONES:
        return replace(clock, offset=0), close
    return replace(clock, zone=zone["place"] or zone["words"].lower()), close


# What belongs together

_BEFORE_TIME, _BEFORE_DATE, _WEEKDAY_TO_DATE, _DATE_TO_WEEKDAY = (
    frozenset(["", *(word for row in _WORDS.rows(name) for word in row)])
    for name in ("before_time", "before_date", "weekday_to_date", "date_to_weekday")
)
_LINKS: Final = {
    ("weekday", "day"): _WEEKDAY_TO_DATE,
    ("day", "weekday"): _DATE_TO_WEEKDAY,
    ("day", "clock"): _BEFORE_TIME,
    ("weekday", "clock"): _BEFORE_TIME,
    ("clock", "day"): _BEFORE_DATE,
    ("clock", "weekday"): _BEFORE_DATE,
}
_LONGEST_LINK = 14


def _with_years(text: str, pieces: list[_Piece]) -> list[_Piece]:
    """Give the first end of a range of dates the year of the second ("4 July - 6 August 1776", "May-June 1945")."""
    done = list(pieces)
    for at in range(len(done) - 2, -1, -1):
        piece, after = done[at], done[at + 1]
        a, b = piece.when, after.when
        if a.year is not None or b.year is None or a.form or piece.clock or a.month is None or b.month is None:
            continue
        forward = (a.day is None) == (b.day is None) and (a.month, a.day or 0) < (b.month, b.day or 0)
        if (
            forward
            and not b.form
            and after.start - piece.end <= 9
            and _WORDS.range.fullmatch(text, piece.end, after.start)
        ):
            done[at] = replace(piece, when=a._replace(year=b.year), bare=False)
    return done


def _joined(text: str, pieces: list[_Piece]) -> list[_Piece]:
    for kinds in (
        {("weekday", "day")},
        {("day", "weekday")},
        {("day", "clock"), ("weekday", "clock")},
        {("clock", "day"), ("clock", "weekday")},
        {("day", "weekday")},
    ):
        done: list[_Piece] = []
        for piece in pieces:
            both = _both(text, done[-1], piece, kinds) if done else None
            if both:
                done[-1] = both
            else:
                done.append(piece)
        pieces = done
    return pieces


def _both(text: str, a: _Piece, b: _Piece, kinds: set[tuple[str, str]]) -> _Piece | None:
    pair = (a.kind, b.kind)
    if pair not in kinds or b.start - a.end > _LONGEST_LINK:
        return None
    gap = text[a.end : b.start]
    two_days = a.when.weekday is not None and b.when.weekday is not None
    if (a.clock and b.clock) or two_days or "every" in {a.when.form, b.when.form}:
        return None
    if "\n\n" in gap or gap.strip(" \n\t,(").casefold() not in _LINKS[pair]:
        return None
    date, other = (b, a) if b.kind == "day" or (a.kind == "clock") else (a, b)
    when = date.when if date.when.weekday is not None else date.when._replace(weekday=other.when.weekday)
    closes = "(" in gap and text[b.end : b.end + 1] == ")"
    clock = a.clock or b.clock
    return _Piece(a.start, b.end + closes, when, clock, bare=a.bare and b.bare and not clock)


def _fact(piece: _Piece) -> Fact:
    when = _checked(piece.when)
    if piece.clock:
        when = _timed(when, piece.clock)
    kind = "time" if when == When(clock=when.clock, zone=when.zone) else "date"
    return Fact(piece.start, piece.end, kind, when, _label(when))


def _checked(when: When) -> When:
    """Drop a weekday that a full date implies; one that contradicts it stays."""
    if when.weekday is None or when.form or when.day is None or when.month is None or not when.year or when.year < 1583:
        return when
    implied = dt.date(when.year, when.month, when.day).weekday()
    return when._replace(weekday=None) if implied == when.weekday else when


def _timed(when: When, clock: _Clock) -> When:
    """Add a time, in UTC where that is certain: within the same day, or within a full date."""
    hour, minute, zone = clock.hour, clock.minute, clock.zone
    full = when.day and when.month and when.year and 0 < when.year < 9999 and when.weekday is None and not when.form
    shift = -clock.offset if clock.offset is not None else 0
    total = 60 * hour + minute + shift
    if 0 <= total < 24 * 60 or (full and (shift or hour == 24)):
        days, total = divmod(total, 24 * 60)
        hour, minute = divmod(total, 60)
        if days and full:
            moved = dt.date(when.year or 1, when.month or 1, when.day or 1).toordinal() + days
            if moved < 1:
                return when._replace(clock=_written(replace(clock)), zone=_spelled(clock.offset or 0))
            date = dt.date.fromordinal(moved)
            when = when._replace(year=date.year, month=date.month, day=date.day)
        zone = zone if clock.offset is None else "Z"
    elif clock.offset is not None:
        zone = _spelled(clock.offset)
    return when._replace(clock=_written(replace(clock, hour=hour, minute=minute)), zone=zone or None)


def _spelled(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"


def _written(clock: _Clock) -> str:
    text = f"{clock.hour:02d}:{clock.minute:02d}"
    if clock.second or clock.fraction:
        text += f":{clock.second:02d}"
    return f"{text}.{clock.fraction}" if clock.fraction else text


def _label(when: When) -> str:
    parts: list[str] = []
    year = "" if when.year is None else f"{'-' if when.year < 0 else ''}{abs(when.year):04d}"
    if when.form in {"/", "-"}:
        parts.append(f"{when.month:02d}{when.form}{when.day:02d}{when.form}{year}")
    elif when.form in {"decade", "decade'"}:
        parts.append(f"{when.year}s" if when.form == "decade" else f"'{when.year:02d}s")
    elif when.form == "century":
        parts.append(f"century {when.year}")
    elif when.form and when.form not in {"'", "every"}:
        parts.append(when.form)
    elif when.month is not None and when.day is None and not year and when.form != "'":
        parts.append(calendar.month_name[when.month].lower())
    elif when.month is not None:
        year = f"'{when.year:02d}" if when.form == "'" else year or "-"
        parts.append(f"{year}-{when.month:02d}" + (f"-{when.day:02d}" if when.day is not None else ""))
    elif when.year is not None:
        parts.append(year)
    if when.weekday is not None:
        parts.append(("every " if when.form == "every" else "") + _WEEKDAYS[when.weekday].capitalize())
    if when.clock is not None:
        zone = when.zone or ""
        parts.append(when.clock + (zone if zone[:1] in {"", "Z", "+", "-"} else f" {zone}"))
    return " ".join(parts)


# Dates and quantities together


def find_facts(text: str, *, query: str = "", day_first: bool = False) -> list[Fact]:
    """Find the facts in cleaned text, in order; none overlap. Dates and times come before numbers.

    Args:
        text: Cleaned text.
        query: What was asked, cleaned; tells whether pounds are money, and whether 3.10 is a version.
        day_first: Read 3/4/2024 as the third of April, as all languages but English do.
    """
    if day_first and "/" in text:
        text = _WORDS.slashed.sub(r"\1.\2.\3", text)
    if "%" in text:
        text = _WORDS.percent_first.sub(r"\1%", text)
    dates = find_dates(text)
    if dates:
        pieces, end = [], 0
        for date in dates:
            pieces += [text[end : date.start], " " * (date.end - date.start)]
            end = date.end
        text = "".join([*pieces, text[end:]])
    return sorted([*dates, *find_quantities(text, query=query)], key=lambda fact: fact.start)


def plain_numbers(text: str) -> Iterator[Fraction]:
    """Yield every number in a text, those within quantities, ranges and dates included."""
    for _, value in values.numbers(values.fold(text)):
        if -400 < value.adjusted() < 400:
            yield Fraction(value)

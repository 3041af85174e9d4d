"""Facts: what a text states that no paraphrase may change: numbers, quantities, money, dates, times, identifiers."""

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from langchain_rlfocal.answers import values


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


_SLASHED = re.compile(r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})(?![0-9/])")
_PERCENT_FIRST = re.compile(r"(?<![0-9%])%([0-9][0-9.,]{0,20})(?![0-9%])")


def find_facts(text: str, *, query: str = "", day_first: bool = False) -> list[Fact]:
    """Find the facts in cleaned text, in order; none overlap. Dates and times come before numbers.

    Args:
        text: Cleaned text.
        query: What was asked, cleaned; tells whether pounds are money, and whether 3.10 is a version.
        day_first: Read 3/4/2024 as the third of April, as all languages but English do.
    """
    from langchain_rlfocal.answers.dates import find_dates  # noqa: PLC0415  # both modules build on `Fact`
    from langchain_rlfocal.answers.quantities import find_quantities  # noqa: PLC0415

    if day_first and "/" in text:
        text = _SLASHED.sub(r"\1.\2.\3", text)
    if "%" in text:
        text = _PERCENT_FIRST.sub(r"\1%", text)
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

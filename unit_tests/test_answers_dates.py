"""Dates and times: equal ones in any spelling and language, and never two different ones with one value."""

from datetime import UTC
from itertools import combinations

import pytest
from babel import Locale
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import dates, values
from langchain_rlfocal.answers.dates import When, find_dates
from support_tables import table_of


def said(text):
    return [(fact.kind, fact.value) for fact in find_dates(values.clean(text))]


def labels(text):
    return [fact.label for fact in find_dates(values.clean(text))]


_TABLE = table_of("dates")
SAME = _TABLE["same"]
APART = _TABLE["apart"]


@pytest.mark.parametrize("name", SAME)
def test_one_date_in_any_spelling_has_one_value(name):
    found = {text: said(text) for text in SAME[name]}
    first = found[SAME[name][0]]
    assert first
    assert {text: value for text, value in found.items() if value != first} == {}


def test_what_is_not_the_same_has_neither_one_value_nor_one_label():
    for one, other in combinations(SAME, 2):
        assert said(SAME[one][0]) != said(SAME[other][0])
        assert labels(SAME[one][0]) != labels(SAME[other][0])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("It began on July 4, 1776.", "1776-07-04"), ("May 1945", "1945-05"), ("8 May", "--05-08"), ("44 BC", "-0044"),
        ("21:15:30.50", "21:15:30.5"), ("Friday, 4 July 1776", "1776-07-04 Friday"),  # it was a Thursday
        ("Monday 4 July", "--07-04 Monday"), ("2024-02-29T23:30:00-01:00", "2024-03-01 00:30Z"),
        ("31 December 2023, 24:00", "2024-01-01 00:00"), ("3 PM EST", "15:00 EST"), ("01:00 +02:00", "01:00+02:00"),  # in UTC it would be another day
        ("9:00 Europe/Paris", "09:00 Europe/Paris"), ("4 July '76", "'76-07-04"), ("03/04/2024", "03/04/2024"),
        ("5th century BC", "century -5"), ("on Mondays", "every Monday"), ("29 February 2024", "2024-02-29"),
        ("29 February", "--02-29"),
    ],
)  # fmt: skip
def test_a_value_is_written_as_what_is_known(text, label):
    assert labels(text) == [label]


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_differs_in_one_part_has_another_value_and_label(one, other):
    assert said(one)
    assert said(other)
    assert said(one) != said(other)
    assert labels(one) != labels(other)


@pytest.mark.parametrize("text", _TABLE["no_dates"])
def test_what_may_be_no_date_is_none(text):
    assert said(text) == []


def test_a_text_gives_its_facts_in_order_and_apart():
    text = values.clean(
        "Born on the 3rd of May 1990 at 9:15 PM (a Thursday), she left in May 2001; see 1.2.3 and 03/04/2024."
    )
    facts = find_dates(text)
    assert [(fact.label, text[fact.start : fact.end]) for fact in facts] == [
        ("1990-05-03 21:15", "3rd of May 1990 at 9:15 PM (a Thursday)"),
        ("2001-05", "May 2001"),
        ("03/04/2024", "03/04/2024"),
    ]


def test_a_time_alone_is_a_time_and_with_a_day_a_date():
    assert said("21:15") == [("time", When(clock="21:15"))]
    assert said("Monday 21:15") == [("date", When(weekday=0, clock="21:15"))]


FRAGMENTS = [
    "4", "31", "1776", "76", "'76", "00", "24:00", "9:15", ".", ",", "-", "–", "/", " ", "\n", ":", "(", ")", "th", "st", "July", "may",
    "May", "Mar", "Monday", "Sun", "mon.", "PM", "a.m.", "Z", "UTC", "+14:00", "-05:00", "+99:99", "EST", "T", "BC", "AD", "v. Chr.",
    "century", "XIX", "s", "年", "月", "日", "午後", "時", "令和", "公元前", "juillet", "de ", "of ", "the ", "at ", "on ", "noon", "h", "Uhr",
    "9999-12-31", "0001-01-01", "T23:59:59", "first", "twenty-first", "мая", "'", "\ud800", "\x00", "०", "٤", "İ", "to ", "and ",
]  # fmt: skip
TEXTS = (
    st.text()
    | st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
    | st.lists(st.sampled_from(FRAGMENTS)).map(" ".join)
)


@settings(max_examples=100)
@given(TEXTS)
@example("00 century")
@example(
    "ſecond of May, the ſecond century, 9:15 İn the morning, 9:15 in the morn\u0131ng, XIX\u0131 century"
)  # other cases of s and i
@example("0000 July 4, 0000-07-04, 4 July 0000, 0 BC, 4 July 0 BC, 00年1月1日, 令和0年")
@example("9" * 5_000 + " BC")
def test_no_text_raises_and_facts_are_in_order_apart_and_hashable(text):
    for given_text in (text, values.clean(text)):
        end = 0
        for fact in find_dates(given_text):
            assert end <= fact.start < fact.end <= len(given_text)
            assert fact.kind in {"date", "time"}
            assert fact.label.strip() == fact.label != ""
            hash(fact)
            end = fact.end


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=2, max_size=6))
def test_different_values_have_different_labels(texts):
    by_label = {}
    for text in texts:
        for fact in find_dates(text):
            assert by_label.setdefault((fact.kind, fact.label), fact.value) == fact.value


@given(st.dates())
def test_every_day_reads_the_same_in_words_and_in_digits(day):
    expected = [("date", When(day.year, day.month, day.day))]
    month = dates._MONTHS[day.month - 1]
    weekday = dates._WEEKDAYS[day.weekday()].capitalize() + ", " if day.year >= 1583 else ""
    assert said(day.isoformat()) == expected
    assert said(f"{day.day:02d}.{day.month:02d}.{day.year:04d}") == expected
    assert said(f"{weekday}{month.capitalize()} {day.day}, {day.year:04d}") == expected
    assert said(f"{weekday}{day.day} {month[:3].capitalize()} {day.year:04d}") == expected
    assert said(f"{day.year:04d}年{day.month}月{day.day}日") == expected


@given(st.datetimes(timezones=st.timezones(no_cache=False)) | st.datetimes(timezones=st.just(UTC)))
def test_every_instant_reads_as_its_instant_in_utc(moment):
    moment = moment.replace(microsecond=0)
    offset = moment.utcoffset()
    if not 2 < moment.year < 9998 or offset.total_seconds() % 60:
        return
    utc = (moment - offset).replace(tzinfo=None)
    assert said(moment.isoformat()) == said(utc.isoformat() + "Z")


@given(st.times())
def test_every_minute_reads_the_same_on_either_clock(time):
    half = "AM" if time.hour < 12 else "PM"
    expected = [("time", When(clock=f"{time.hour:02d}:{time.minute:02d}"))]
    assert said(f"{time.hour:02d}:{time.minute:02d}") == expected
    assert said(f"{time.hour % 12 or 12}:{time.minute:02d} {half}") == expected


def test_all_names_of_months_in_full_are_read_in_every_language():
    for _, languages in dates._SCRIPTS:
        for language in languages:
            for number, name in Locale.parse(language).months["format"]["wide"].items():
                assert (
                    said(f"4 {name} 1776") == [("date", When(1776, number, 4))] or name[0].isdigit() or "月" in name
                ), name

"""Dates and times: equal ones in any spelling and language, and never two different ones with one value."""

import subprocess
import sys
import threading
from datetime import UTC
from itertools import combinations

import pytest
from babel import Locale
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import dates, values
from langchain_rlfocal.answers.dates import When, find_dates


def said(text):
    return [(fact.kind, fact.value) for fact in find_dates(values.clean(text))]


def labels(text):
    return [fact.label for fact in find_dates(values.clean(text))]


SAME = {
    "a date": [
        "July 4, 1776", "July 4 1776", "July 4th, 1776", "July the 4th 1776", "July fourth, 1776", "Jul. 4, 1776", "4 July 1776",
        "4th of July, 1776", "the fourth of July 1776", "04 July 1776", "4-Jul-1776", "1776-07-04", "1776/07/04", "1776.07.04",
        "04.07.1776", "JULY 4, 1776", "Thursday, July 4, 1776", "July 4, 1776 (Thursday)", "Thu, 4 Jul 1776",
        "4. Juli 1776", "Donnerstag, den 4. Juli 1776", "le 4 juillet 1776", "jeudi 4 juillet 1776", "4 de julio de 1776",
        "4 luglio 1776", "4 de julho de 1776", "4 juli 1776", "4 lipca 1776", "4 июля 1776 г.", "4-го июля 1776 года",
        "4 липня 1776 року", "den 4 juli 1776", "4 Temmuz 1776", "1776年7月4日", "1776年7月4日(木)", "1776년 7월 4일", "4 يوليو 1776",
        "4 जुलाई 1776", "1776. július 4.", "4. července 1776", "4. heinäkuuta 1776", "4 Ιουλίου 1776", "4 ביולי 1776",
        "4 Juli 1776", "ngày 4 tháng 7 năm 1776", "4 de juliol de 1776", "4 iulie 1776", "4 юли 1776", "4 ژوئیه 1776",
    ],
    "a month of a year": [
        "May 1945", "in May, 1945", "May of 1945", "Mai 1945", "mai 1945", "mayo de 1945", "maggio 1945", "maja 1945",
        "в мае 1945", "1945年5月", "1945년 5월",
    ],
    "a day of the year": [
        "8 May", "May 8", "8th May", "May 8th", "the 8th of May", "May the 8th", "8. Mai", "8 mai", "8 de mayo", "5月8日", "8 мая",
    ],
    "a time": [
        "9:15 PM", "9:15pm", "9:15 p.m.", "9.15 pm", "09:15 PM", "21:15", "21h15", "21 h 15", "21:15:00", "21 Uhr 15", "21.15 Uhr",
        "21:15 Uhr", "9:15 in the evening", "9 Uhr 15 abends", "kl. 21.15", "9:15 de la noche", "9:15 вечера", "下午9:15",
        "晚上9点15分", "午後9時15分", "오후 9시 15분", "9:15 مساءً", "रात 9:15 बजे",
    ],
    "an hour": ["9 PM", "9 p.m.", "9pm", "21:00", "21 Uhr", "9 o'clock in the evening", "à 21h", "à 21 heures", "9 вечера", "晚上9点"],
    "noon": ["noon", "midday", "12:00", "12 noon", "12 PM", "12:00 PM", "正午"],
    "midnight": ["midnight", "00:00", "0:00", "12 AM", "12:00 AM", "minuit"],
    "an instant": [
        "2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00", "2024-01-01T00:00Z", "20240101T000000Z", "2024-01-01 00:00:00 UTC",
        "January 1, 2024 at 00:00 UTC", "2024-01-01T02:00:00+02:00", "2023-12-31T19:00:00-05:00", "Jan 1 2024, 12:00 AM GMT",
        "2024-01-01 02:00:00+02:00", "1 January 2024, 01:00 CET", "12 AM UTC on January 1, 2024",
    ],
    "a time of a day": [
        "July 4, 1776 at 9:15 PM", "9:15 PM on July 4, 1776", "1776-07-04 21:15", "1776-07-04T21:15", "4. Juli 1776 um 21:15 Uhr",
        "le 4 juillet 1776 à 21h15", "4 июля 1776 в 21:15", "1776年7月4日 午後9時15分",
    ],
    "a time in a zone": ["15:00 UTC", "15:00Z", "3 PM GMT", "17:00 +02:00", "17:00+02:00", "17:00 UTC+2", "5 PM CEST"],
    "a year before Christ": [
        "44 BC", "44 B.C.", "44 BCE", "44 v. Chr.", "44 av. J.-C.", "44 a.C.", "44 до н. э.", "公元前44年", "기원전 44년", "44 p.n.e.",
    ],
    "a day before Christ": ["15 March 44 BC", "March 15, 44 BC", "15. März 44 v. Chr.", "the Ides: 15 March 44 BCE"],
    "a year of our era": ["AD 79", "79 AD", "79 CE", "A.D. 79", "79 n. Chr."],
    "a decade": ["1990s", "1990's", "the 1990s", "1990er Jahre", "années 1990", "1990年代"],
    "a century": [
        "19th century", "19th-century", "nineteenth century", "XIX century", "19. Jahrhundert", "XIXe siècle", "siglo XIX", "XIX век",
        "19世纪", "19세기", "XIX wieku",
    ],
    "a weekday": ["Monday", "Mon", "Montag", "lundi", "lunes", "понедельник", "月曜日", "星期一", "월요일", "segunda-feira"],
    "a weekday and a time": ["Monday at 9:15 PM", "9:15 PM on Monday", "Monday 21:15"],
    "one reading only": ["25/12/2024", "12/25/2024", "25.12.2024", "25-12-2024", "2024-12-25"],
    "two days": ["4-6 July 1776", "July 4-6, 1776", "July 4 to 6, 1776", "from July 4, 1776 to July 6, 1776", "4 July - 6 July 1776"],
    "two times": ["9:15-10:30 PM", "9:15 PM - 10:30 PM", "21:15-22:30"],
    "two months": ["May-June 1945", "May 1945 to June 1945"],
    "a Japanese era": ["令和6年1月1日", "2024年1月1日"],
    "a month": ["in July", "im Juli", "en juillet"],
}  # fmt: skip


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


APART = [
    ("July 4, 1776", "July 2, 1776"), ("July 4, 1776", "June 4, 1776"), ("July 4, 1776", "July 4, 1775"), ("8 May 1945", "9 May 1945"),
    ("May 1945", "May 8, 1945"), ("4 July", "4 July 1776"), ("July 4, 1776", "Friday, July 4, 1776"), ("Monday", "Tuesday"),
    ("Monday", "Mondays"), ("9:15 AM", "9:15 PM"), ("9:15", "9:15 PM"), ("21:15", "21:30"), ("21:15", "21:15:01"),
    ("12:00 AM", "12:00 PM"), ("noon", "midnight"), ("21:15:00.1", "21:15:00.2"), ("44 BC", "AD 44"), ("44 BC", "43 BC"),
    ("15 March 44 BC", "15 March 44 AD"), ("15:00 UTC", "15:00"), ("15:00 UTC", "15:00 +02:00"), ("15:00 EST", "15:00 EDT"),
    ("15:00 IST", "15:00 UTC"), ("23:00 UTC", "01:00 +02:00"), ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00"),
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00"), ("2024-01-01T00:00:00Z", "2024-01-01"), ("2024-03-04", "03/04/2024"),
    ("2024-04-03", "03/04/2024"), ("03/04/2024", "04/03/2024"), ("03/04/2024", "03-04-2024"), ("04.03.2024", "03.04.2024"),
    ("04.03.24", "04.03.2024"), ("4 July '76", "4 July 1776"), ("4 July '76", "4 July 1976"), ("1990s", "1980s"), ("1990s", "'90s"),
    ("19th century", "18th century"), ("19th century", "1900s"), ("5th century BC", "5th century"), ("4-6 July 1776", "4-7 July 1776"),
    ("4-6 July 1776", "3-6 July 1776"), ("July 4-6, 1776", "July 4, 1776"), ("9:15-10:30 PM", "9:15 AM - 10:30 PM"),
    ("500-400 BC", "500 AD - 400 BC"), ("令和6年1月1日", "平成6年1月1日"), ("午後3時", "午前3時"), ("8. Mai", "8. März"), ("8 мая", "8 марта"),
    ("4 juin 1776", "4 juillet 1776"), ("1776年7月4日", "1776年7月14日"), ("lunes", "martes"), ("5 in the morning", "5 in the afternoon"),
    ("11 at night", "11 in the morning"), ("October 1962", "November 1962"), ("4 listopada 1918", "4 października 1918"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_differs_in_one_part_has_another_value_and_label(one, other):
    assert said(one)
    assert said(other)
    assert said(one) != said(other)
    assert labels(one) != labels(other)


@pytest.mark.parametrize(
    "text",
    [
        "1/2", "3.14", "10.0.0.1", "1.2.3", "v1.2.2024", "2:1", "3:2", "16:9", "1776", "in 1984", "1,204 points", "2024-2025",
        "you may go", "I may 5 times", "we march 5 miles", "the second of two", "he sat down", "the sun", "May I ask?", "June Carter",
        "31 February 2024", "Feb 30", "2024-02-31", "2023-02-29", "29 February 1900", "July 32", "31.04.2024", "2024-13-01",
        "25:15", "9:75", "13:00 AM", "23:59:60", "5 hours", "2h30m", "2 h 15 min", "5時間", "3 дня", "5 points", "90s", "24/7", "9/11",
        "12/25", "555-123-4567", "123-45-6789", "Mars 2020", "iPad 5 Pro 2020", "$9.15", "9.15", "room 101", "page 12", "3 out of 4",
        "http://example.org/2024/03/04/news", "10 to 12 people", "Ratio 10.5:1", "Sun Microsystems", "2 hours", "5点", "May first",
        "to 4 people", "per 4", "a1-2-2024", "4 out of 500", "4 out of 5000", "1 set of 2000", "10:20:30:40", "", " ",
    ],
)  # fmt: skip
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


@settings(max_examples=400)
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


@settings(max_examples=200)
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


def test_many_threads_read_the_same():
    texts = [text for group in SAME.values() for text in group]
    expected = [said(text) for text in texts]
    dates._names.cache_clear()
    results = []
    threads = [threading.Thread(target=lambda: results.append([said(text) for text in texts])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_importing_the_module_does_not_load_babel():
    code = "import sys; import langchain_rlfocal.answers.dates; sys.exit('babel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

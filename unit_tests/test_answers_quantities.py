"""Numbers, quantities, money, percentages and names with digits: one value per thing, however it is spelled."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.quantities import Huge, find_quantities, number_of
from support_tables import table_of

_TABLE = table_of("quantities")
SAME = _TABLE["same"]
DIFFERENT = _TABLE["different"]


FOUND = _TABLE["found"].items()

LABELS = [
    "0", "7", "-7", "1234.5", "0.0000001", "1e-8", "1e20", "1e21", "123456789012345678901234", "-2.5e-30", "1000000",
]  # fmt: skip
FRAGMENTS = [
    "5", "12", "1,234.50", "007", "3.11.4", " ", "-", "–", "$", "€", "%", "/", ":", "'", '"', ".", ",", "^", "km", "h",
    "m", "ft", "in", "and", "a half", "of", "to", "per", "every", "an hour", "(", ")", "[", "*", "#", "@", "_", "×",
    "10^", "e5", "million", "hundred", "two", "twenty", "third", "thirds", "dozen", "point", "zwei", "vingt", "et",
    "un", "двадцать", "十", "三", "万", "第", "个", "分之", "°", "C", "µ", "\n", "\ud800", "\x00", "½", "٫", "³", "٣", "US$",
    "minus", "between", "from", "1e999999", "9" * 50, "+1", "555", "://", "www.", "v2", "K", "k", "M", "pounds", "p",
    "old", "years", "daily", "1/2", "1/0", "::", "2001:db8::1", "00:1B:44:11:3A:B7", "\\", "{", "}", "‰", "円", "0",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.sampled_from(["", " "]), max_size=16).map("".join) | st.text()


def read(text, query=""):
    return [(fact.kind, fact.value) for fact in find_quantities(values.clean(text), query=query)]


def labels(text, query=""):
    return [f"{fact.kind} {fact.label}" for fact in find_quantities(values.clean(text), query=query)]


@pytest.mark.parametrize("spellings", list(SAME.values()), ids=list(SAME))
def test_spellings_of_one_thing_have_one_value_and_one_label(spellings):
    assert len(read(spellings[0])) >= 1
    assert {tuple(read(text)) for text in spellings} == {tuple(read(spellings[0]))}
    assert {tuple(labels(text)) for text in spellings} == {tuple(labels(spellings[0]))}


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_one_digit_sign_unit_scale_or_order_apart_is_another_thing(a, b):
    assert read(a) != read(b)
    assert labels(a) != labels(b)


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_a_text_holds_these_facts_and_no_others(text, found):
    assert labels(text) == found


@pytest.mark.parametrize("number", LABELS)
def test_a_plain_number_is_labelled_as_other_parts_label_it(number):
    fact = number_of(number)
    assert fact is not None
    assert fact.label == values.number_text(Decimal(number))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("**42**", "42"), ('"7".', "7"), ("$5.00", "5 USD"), ("(50 %)", "50%"), ("$12$", "12"), ("[-3]", "-3"),
        ("about 5", None), ("5 planets", None), ("5, 6", None), ("", None), ("$", None), ("yes", None),
    ],
)  # fmt: skip
def test_a_text_that_is_one_number_is_read_as_that(text, label):
    fact = number_of(text)
    assert (fact.label if fact else None) == label


def test_amounts_are_exact_and_long_ones_are_never_written_out():
    """1/3 is no decimal; 10^(10^9) would take a gigabyte."""
    assert read("1/3") == [("number", Fraction(1, 3))]
    assert read("0.1") == [("number", Fraction(1, 10))]
    assert read("2.5e1000000000") == [("number", Huge(25, 10**9 - 1))]
    assert read("5 km") == [("quantity", ("m", Fraction(5000)))]
    assert read("1 °F") == [("quantity", ("K", Fraction(46_067, 180)))]
    assert labels("10^1000000000 km") == ["quantity 1e+1000000000 × 1000 m"]


def test_the_question_tells_what_pounds_and_points_are():
    assert labels("5 pounds", "How much does it cost?") == ["money 5 GBP"]
    assert labels("5 pounds", "How heavy is it?") == ["quantity 2267.96185 g"]
    assert labels("3.10", "Which version of Python?") == ["identifier 3.10"]
    assert labels("3.10", "How long is it?") == ["number 3.1"]


def test_spans_hold_the_whole_of_what_was_read():
    text = "It took an hour and a half, cost -$5 million and went from 5 to 7 °C."
    spans = [text[fact.start : fact.end] for fact in find_quantities(text)]
    assert spans == ["an hour and a half", "-$5 million", "5 to 7 °C"]


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
@example(text="³5-³")
@example(text="-5--3")
@example(text="9" * 3000)
@example(text="1e" + "9" * 500)
def test_no_text_raises_and_facts_never_overlap(text):
    for form in (text, values.clean(text)):
        facts = find_quantities(form)
        ends = [0, *(fact.end for fact in facts)]
        assert all(end <= fact.start < fact.end <= len(form) for end, fact in zip(ends, facts, strict=False))
        assert all(fact.label for fact in facts)
        assert len({hash(fact.value) for fact in facts}) <= len(facts)
        number_of(form)


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=4), st.sampled_from(["", " km", " kg", "%", " EUR", " h"])
)
def test_equal_numbers_have_equal_facts_however_many_zeros_they_end_in(number, unit):
    plain = f"{number:f}"
    facts = find_quantities(f"{plain}{unit}")
    assert [(fact.kind, fact.value) for fact in facts] == read(f"{plain}000{unit}")
    assert len(facts) == 1


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_labels_tell_numbers_apart_as_values_do(a, b):
    for unit in ("", " km", " dollars", "%"):
        first, second = find_quantities(f"{a}{unit}"), find_quantities(f"{b}{unit}")
        assert (first[0].value == second[0].value) == (first[0].label == second[0].label) == (a == b)


@given(st.integers(1, 999), st.sampled_from(["de", "fr", "es", "it", "pt", "nl"]))
def test_numbers_with_units_of_other_languages_keep_their_amounts(number, language):
    hours = {"de": "Stunden", "fr": "heures", "es": "horas", "it": "ore", "pt": "horas", "nl": "uur"}[language]
    assert read(f"{number} {hours}") == [("quantity", ("s", Fraction(number * 3600)))]

"""Numbers, quantities, money, percentages and names with digits: one value per thing, however it is spelled."""

import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.quantities import Huge, find_quantities, number_of

SAME = {
    "separators": ["1234.5", "1,234.50", "1.234,50", "1 234,50", "1'234.5", "1_234.5", "1’234.50", "1\u202f234,5"],
    "groups": ["1234567", "12,34,567", "1,234,567", "1.234.567", "1 234 567", "1_234_567"],
    "minus": ["-5", "−5", "–5", "minus 5", "negative five", "minus five"],
    "plus": ["5", "+5", "five", "5.0", "5.", "**5**", "cinco", "пять", "五"],
    "halves": ["1/2", "½", "0.5", ".5", "a half", "half", "one half", "one-half"],
    "mixed": ["3.5", "3 1/2", "3½", "three and a half", "7/2", "3 and a half", "three point five", "3,5"],
    "powers": ["1000", "1e3", "1E3", "1.0e3", "10^3", "1 × 10^3", "1x10^3", "1 x 10³", "one thousand", "a thousand"],
    "small": ["0.02", "2 x 10^-2", "2×10⁻²", "2e-2"],
    "millions": ["3000000", "3 million", "3M", "3 Mio.", "three million", "3 Millionen", "3 млн", "300万"],
    "thousands": ["2000", "2k", "2 thousand", "two thousand"],
    "milliards": ["3000000000", "3 bn", "3 billion", "3 Mrd.", "3 milliards"],
    "lakh": ["1000000", "10 lakh"],
    "crore": ["20000000", "2 crore"],
    "words": ["205", "two hundred and five", "two hundred five", "zweihundertfünf", "deux cent cinq",
              "doscientos cinco",
              "duecentocinque", "duzentos e cinco", "tweehonderdvijf", "двести пять", "二百零五"],
    "42": ["42", "forty-two", "zweiundvierzig", "quarante-deux", "cuarenta y dos", "quarantadue", "quarenta e dois",
           "tweeënveertig", "сорок два"],
    "dozen": ["12", "a dozen", "twelve", "one dozen", "zwölf", "doce"],
    "quarters": ["3/4", "three quarters", "three-quarters", "0.75", "¾"],
    "third place": ["3rd", "third", "the third", "第3", "第三"],
    "21st place": ["21st", "twenty-first", "twenty first"],
    "2000th place": ["2000th", "2,000th"],
    "one third": ["1/3", "a third", "one third", "one-third", "三分之一"],
    "large": ["2300006", "two million three hundred thousand and six", "2,300,006"],
    "years in words": ["1984", "nineteen eighty-four"],
    "half a million": ["500,000", "half a million", "500k"],
    "huge": ["1e1001", "10^1001", "10e1000"],
    "zero": ["0", "-0", "zero", "0.00", "-0.0"],
    "formula": ["5", "$5$"],
    "duration": ["90 min", "1.5 h", "1 h 30 min", "1 hour and 30 minutes", "1:30 h", "1h30", "1h30m",
                 "an hour and a half",
                 "one and a half hours", "1½ hours", "90-minute", "5400 s", "ninety minutes", "1,5 Stunden",
                 "1,5 heures",
                 "1,5 horas", "1,5 часа", "90分钟", "**90** min"],
    "hours": ["5 hours", "fünf Stunden", "cinq heures", "cinco horas", "cinque ore", "vijf uur", "пять часов", "5時間",
              "5小时", "5시간", "5 घंटे", "5 ساعات"],
    "half an hour": ["30 minutes", "half an hour", "half hour", "0.5 h", "eine halbe Stunde", "media hora", "mezza ora",
                     "demi-heure"],
    "height": ["5 ft 11 in", "5'11\"", "5′11″", "71 inches", "5 feet 11 inches", "5 feet, 11 inches", "5 ft. 11 in."],
    "length": ["2.5 km", "2500 m", "2,500 metres", "2.5 kilometers", "2.5km", "2,5 Kilometer"],
    "mass": ["1 kg", "1000 g", "1 kilogram", "1 Kilogramm", "1 кг", "1公斤"],
    "temperature": ["25 °C", "77 °F", "298.15 K", "25°C", "25 degrees Celsius", "25℃", "77 degrees Fahrenheit"],
    "frost": ["-40 °C", "-40 °F", "minus forty degrees Celsius"],
    "dose": ["5 mg", "5000 µg", "0.005 g", "5mg", "5000 mcg"],
    "volume": ["250 ml", "0.25 l", "250 mL", "0.25 litres", "250 cm³"],
    "gigabytes": ["1 GB", "1000 MB", "8 Gb"],
    "gibibytes": ["1 GiB", "1024 MiB"],
    "area": ["50 m²", "50 m^2", "50 sq m", "50 square metres", "50 m2", "50 Quadratmeter", "50 metros cuadrados"],
    "speed": ["100 km/h", "100 km per hour", "100 kph", "100 kilometres an hour"],
    "miles per hour": ["60 mph", "60 miles per hour"],
    "acceleration": ["9.8 m/s²", "9.8 m/s^2", "9.8 m s^-2"],
    "density": ["1 g/cm³", "1000 kg/m^3"],
    "energy": ["10 kWh", "36 MJ", "10 kilowatt-hours", "10 kilowatt hours"],
    "weight in pounds": ["150 lb", "150 pounds", "150 lbs"],
    "dollars": ["$1,234.50", "1234.5 dollars", "USD 1,234.50", "1,234.50 US dollars", "US$1234.5", "$ 1,234.50",
                "1234.50 USD", "$1234.50 USD", "1234.5 Dollar", "1234,5 долларов"],
    "euros": ["€5", "5 EUR", "5 euros", "5,00 €", "5€", "EUR 5", "five euros", "fünf Euro", "5 ユーロ"],
    "cents": ["50 cents", "$0.50", "50¢", "$.50", "fifty cents"],
    "bucks": ["$5", "5 bucks", "five dollars", "$5.00", "USD5"],
    "Australian dollars": ["A$5", "AUD 5", "5 Australian dollars", "AU$5", "$5 AUD"],
    "million dollars": ["$5 million", "$5M", "$5m", "USD 5 million", "5 million dollars", "$5,000,000", "$5mn"],
    "debt": ["-$5", "-5 dollars", "$-5", "minus 5 dollars", "−$5"],
    "sterling": ["£5", "5 pounds sterling", "GBP 5", "5 British pounds"],
    "yen": ["¥500", "500 yen", "500円", "JPY 500"],
    "rupees": ["₹500", "500 rupees", "Rs. 500", "Rs 500", "Rs500", "INR 500"],
    "dollars and cents": ["$5.50", "5 dollars and 50 cents"],
    "per cent": ["50%", "50 percent", "50 per cent", "50 Prozent", "50 pour cent", "50 por ciento", "50 процентов",
                 "50\\%",
                 "fifty percent", "百分之五十"],
    "ratio": ["3:2", "3 : 2", "3 to 2"],
    "part": ["9 of 12", "9 out of 12", "nine of twelve", "9 of the 12"],
    "range": ["5-7", "5 to 7", "between 5 and 7", "from 5 to 7", "5–7", "five to seven"],
    "range of lengths": ["5-7 km", "5 to 7 km", "between 5 and 7 km", "5 km to 7 km", "5km-7km", "5000-7000 m"],
    "range of money": ["$5-$7", "$5-7", "$5 to $7", "5-7 dollars", "between $5 and $7"],
    "range of millions": ["5-10 million", "5 million to 10 million", "5M-10M"],
    "range of per cent": ["5-7%", "5% to 7%", "5%-7%"],
    "telephone": ["+1 (555) 010-0123", "+1 555 010 0123", "+15550100123", "+1-555-010-0123", "+1.555.010.0123"],
    "local telephone": ["(555) 010-0123", "555-010-0123", "555.010.0123"],
    "version": ["v2.0.1", "2.0.1", "V2.0.1"],
    "minor version": ["v3.10", "version 3.10", "Python 3.10"],
    "IPv6": ["2001:db8::1", "2001:DB8:0:0:0:0:0:1"],
    "MAC": ["00:1B:44:11:3A:B7", "00:1b:44:11:3a:b7"],
    "UUID": ["550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000"],
    "formula of water": ["H2O", "H₂O"],
    "card": ["4111 1111 1111 1111", "4111-1111-1111-1111"],
    "e-mail": ["a.b@example.com", "A.B@Example.com"],
    "address": ["https://Example.com/A", "https://example.com/A/"],
    "interval": ["4 every 6 hours", "four every six hours"],
    "daily dose": ["5 mg per day", "5 mg/day", "5 mg a day", "5 mg daily", "5mg every day"],
    "wage": ["$20 per hour", "$20/hour", "$20 an hour", "$20/h", "$20 hourly"],
    "times": ["3 times a day", "3 times per day", "three times daily", "3 times every day"],
    "twice": ["twice a day", "2 times a day"],
    "age": ["35", "35 years old", "35-year-old", "thirty-five years old"],
    "counted": ["8 planets", "eight planets", "8"],
    "calendar": ["1 year", "12 months", "a year"],
    "week": ["1 week", "7 days", "a week"],
}  # fmt: skip

DIFFERENT = [
    ("5", "6"), ("5", "-5"), ("1234.5", "1234.6"), ("1.234,50", "1.234,51"), ("12,34,567", "12,34,568"),
    ("3 million", "3 billion"), ("3M", "3k"), ("3rd", "3"), ("third", "1/3"), ("third", "a third of it"), ("2/3",
    "3/2"),
    ("1e3", "1e-3"), ("1e3", "1e4"), ("1e1001", "1e1002"), ("1e999999", "-1e999999"), ("1e999999", "1e-999999"),
    ("1e999999", "1e999999 million"), ("two hundred and five", "two hundred and fifty"), ("½", "-½"), ("1/2", "1/3"),
    ("5.5", "5,5,5"), ("(1,2)", "1.2"), ("007", "7"), ("10 lakh", "10 crore"), ("2^10", "2^11"), ("2^x", "2"),
    ("a dozen", "two dozen"), ("half a million", "a million"), ("0", "-1"), ("2x^2", "2x"), ("120/80", "150/100"),
    ("90 min", "90 s"), ("1 h 30 min", "1 h 20 min"), ("1 h 30 min", "30 h 1 min"), ("5 ft 11 in", "6 ft 11 in"),
    ("2.5 km", "2.5 m"), ("2.5 km", "2.5 miles"), ("1 kg", "1 g"), ("25 °C", "25 °F"), ("25 °C", "-25 °C"),
    ("5 mg", "5 g"), ("5 mg", "5 µg"), ("250 ml", "250 l"), ("1 GB", "1 GiB"), ("8 Mb", "8 MB"), ("50 m²", "50 m"),
    ("50 m²", "50 m³"), ("5 mW", "5 MW"), ("100 km/h", "100 mph"), ("100 km/h", "100 km"), ("5 m", "5 min"),
    ("4 every 6 hours", "4 every 8 hours"), ("4 every 6 hours", "6 every 4 hours"), ("4 every 6 hours",
    "8 every 12 hours"),
    ("5 mg per day", "5 mg per week"), ("5 mg per day", "35 mg per week"), ("$20 per hour", "$20 per day"),
    ("$20 per hour", "$20"), ("3 times a day", "3 times a week"), ("5 tons", "5 tonnes"), ("5 gallons", "5 US gallons"),
    ("1 month", "30 days"), ("5 calories", "5 cal"), ("5 K", "5 °C"), ("5 years", "5 months"), ("5 lb", "5 oz"),
    ("one and a half hours", "one hour"), ("1:30 h", "1:30 min"), ("-10C", "10C"), ("zwei Stunden", "drei Stunden"),
    ("zwei Stunden", "zwei Tage"), ("5 часов", "5 минут"), ("5公里", "5公斤"), ("5時間", "5分"), ("5小时", "6小时"),
    ("$5", "€5"), ("$5", "5"), ("$5", "-$5"), ("$5", "A$5"), ("A$5", "C$5"), ("HK$5", "US$5"), ("$5", "5 cents"),
    ("$5 million", "$5 billion"), ("$5M", "$5k"), ("$5", "$5.01"), ("5 yen", "5 yuan"), ("£5", "5 lb"),
    ("50%", "5%"), ("50%", "50"), ("50%", "0.5"), ("5%", "5 percentage points"), ("5%", "5‰"), ("5%", "-5%"),
    ("3:2", "2:3"), ("3:2", "6:4"), ("9 of 12", "5 of 12"), ("9 of 12", "9 of 10"), ("9 of 12", "9/12"), ("3:2", "3/2"),
    ("5-7", "7-5"), ("5-7", "5-8"), ("5-7", "6-7"), ("5-7 km", "5-7 m"), ("$5-$7", "€5-€7"), ("-5 to 7", "5 to 7"),
    ("+15550100123", "+15550100124"), ("(555) 010-0123", "(555) 010-0124"), ("3.11.4", "3.11.5"), ("3.11", "3.1.1"),
    ("v3.10", "v3.1"), ("version 3.10", "version 3.1"), ("192.168.0.1", "192.168.0.2"), ("10.0.0.0/8", "10.0.0.0/16"),
    ("ORD-2024-0117", "ORD-2024-0118"), ("#12345", "#12346"), ("A-113", "A-114"), ("GPT-4", "GPT-3"), ("12B", "12C"),
    ("221B", "221A"), ("COVID-19", "COVID-20"), ("4111 1111 1111 1111", "4111 1111 1111 1112"), ("02134", "2134"),
    ("978-3-16-148410-0", "978-3-16-148410-1"), ("00:1B:44:11:3A:B7", "00:1B:44:11:3A:B8"), ("x1", "x2"),
    ("2001:db8::1", "2001:db8::2"), ("a@b.com", "a@c.com"), ("https://a.b/c", "https://a.b/d"), ("B2B", "B2C"),
    ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440001"), ("aB3dE5xYz9", "AB3DE5XYZ9"),
]  # fmt: skip

FOUND = [
    ("He was 36 when he died in 1791.", ["number 36", "number 1791"]),
    ("Mozart was 35 years old when he died in 1791.", ["number 35", "number 1791"]),
    ("20 is 25% of 80.", ["number 20", "percent 25%", "number 80"]),
    ("It costs $6 for 3 apples.", ["money 6 USD", "number 3"]), ("10 - 5", ["number 10", "number 5"]),
    ("10 minus 5", ["number 10", "number 5"]), ("- 5 apples", ["number 5"]), ("pages 3-5", ["range 3 to 5"]),
    ("1, 2, 3", ["number 1", "number 2", "number 3"]), ("1,2,3", ["number 1", "number 2", "number 3"]),
    ("In 2020 300 people came.", ["number 2020", "number 300"]), ("$5 and $6", ["money 5 USD", "money 6 USD"]),
    ("$5 + 3 = 8$", ["number 5", "number 3", "number 8"]),
    ("Take 2 tablets of 500 mg every 8 hours.", ["number 2", "quantity 0.5 g", "quantity per 28800 s"]),
    ("5 mg/kg/day", ["quantity 0.000005 g/g", "quantity per 86400 s"]), ("It costs 5 pounds", ["money 5 GBP"]),
    ("It weighs 5 pounds", ["quantity 2267.96185 g"]),
    ("room 12B at 221B Baker Street", ["identifier 12b", "identifier 221b"]), ("the 1990s", ["identifier 1990s"]),
    ("the 7B model GPT-4o-mini", ["identifier 7b", "identifier gpt-4o-mini"]),
    ("3D, 5G, 4K, A4, N95, MP3", [f"identifier {name}" for name in ("3d", "5g", "4k", "a4", "n95", "mp3")]),
    ("First, add one cup.", ["quantity 1 cup"]), ("Once upon a time no one knew which one this one was, at once.", []),
    ("the first half of the second quarter", ["number 1.", "number 0.5", "number 2."]),
    ("hundreds of people, a few dozens", []), ("one two three", ["number 1", "number 2", "number 3"]), ("elf", []),
    ("The elf once came due in sept", []), ("Il y a vingt et un chats.", ["number 21"]),
    ("Ein Hund und zwei Katzen", ["number 2"]), ("eine Million Euro", ["money 1000000 EUR"]),
    ("他有3只猫和12条狗,共二十三个人", ["number 3", "number 12", "number 23"]), ("一般来说十分重要", []),
    ("1億2000万円", ["money 120000000 JPY"]), ("一億二千万円", ["money 120000000 JPY"]), ("三万亿元", ["money 3000000000000 CNY"]),
    ("7 days in a week", ["quantity 604800 s", "quantity 604800 s"]), ("2 h 30", ["quantity 9000 s"]),
    ("1만 5천 원", ["money 15000 KRW"]), ("만일 천사가 백일", []), ("5 كم", ["quantity 5000 m"]),
    ("Die Gemeinde hat 12.480 Einwohner und eine Fläche von 1,234 ha.", ["number 12480", "quantity 12340 m^2"]),
    ("The town has 12.480 inhabitants.", ["number 12.48"]), ("Lucía tiene veintiún años.", ["quantity 252 month"]),
    ("40 hours a week", ["quantity 144000 s", "quantity per 604800 s"]), ("40 miles an hour", ["quantity 17.8816 m/s"]),
    ("5 in the morning", ["number 5"]),
    ("5 real numbers, 3 pen names and 2 mad dogs", ["number 5", "number 3", "number 2"]),
    ("between 5 and 7 kg", ["range 5000 to 7000 g"]), ("a ratio of 2 to 3", ["ratio 2:3"]), ("10:30", ["ratio 10:30"]),
    ("5 km and 300 people", ["quantity 5000 m", "number 300"]), ("40°26'46\"N", ["quantity 72803/1800 °"]),
    ("1e999999", ["number 1e+999999"]), ("1/0", ["identifier 1/0"]), ("#### 42", ["number 42"]),
    ("2x + 3 = 7", ["identifier 2x", "number 3", "number 7"]),
]  # fmt: skip

LABELS = [
    "0", "7", "-7", "1234.5", "0.0000001", "1e-8", "1e20", "1e21", "123456789012345678901234", "-2.5e-30", "1000000",
]  # fmt: skip
FRAGMENTS = [
    "5", "12", "1,234.50", "007", "3.11.4", " ", "-", "–", "$", "€", "%", "/", ":", "'", '"', ".", ",", "^", "km",
    "h", "m",
    "ft", "in", "and", "a half", "of", "to", "per", "every", "an hour", "(", ")", "[", "*", "#", "@", "_", "×",
    "10^", "e5",
    "million", "hundred", "two", "twenty", "third", "thirds", "dozen", "point", "zwei", "vingt", "et", "un",
    "двадцать", "十",
    "三", "万", "第", "个", "分之", "°", "C", "µ", "\n", "\ud800", "\x00", "½", "٫", "³", "٣", "US$", "minus", "between",
    "from",
    "1e999999", "9" * 50, "+1", "555", "://", "www.", "v2", "K", "k", "M", "pounds", "p", "old", "years", "daily",
    "1/2", "1/0",
    "::", "2001:db8::1", "00:1B:44:11:3A:B7", "\\", "{", "}", "‰", "円", "0",
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


@settings(max_examples=300, deadline=None)
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


def test_importing_loads_none_of_the_libraries_of_other_languages():
    script = (
        "import sys, langchain_rlfocal.answers.quantities as q; q.find_quantities('5 km, $6 and two dogs are here');"
        "assert not {'babel', 'text_to_num'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

"""What counts as the same answer, by worked examples; the laws stand in `test_answers_laws`."""

import math
from itertools import permutations

import pytest

from langchain_rlfocal.answers import (
    MAX_CHARS,
    SIMILAR,
    AnswerKind,
    canonical,
    canonical_tool_calls,
    detect_kind,
    label_answers,
    score_answer,
    similarity,
)
from langchain_rlfocal.errors import InputError

INLINE = "Which colour has the sky? (A) red (B) green (C) blue"
LINES = "Which city?\nA. Paris\nB. London\nC. New York"
FEW_SHOT = "Who?\nA) Ann\nB) Bob\nAnswer: A\n\nWho else?\nA) Cid\nB) Dora\nC) Both A) and B)\nAnswer:"
SUM = "What is 3 + 4?"
CAPITAL = "What is the capital of France?"
SUN = "Is the sun a star?"

OPTION = [
    (INLINE, "B", "B"),
    (INLINE, "(b)", "B"),
    (INLINE, "B. green", "B"),
    (INLINE, "**B**", "B"),
    (INLINE, "Answer: B) because grass is", "B"),
    (INLINE, "The correct option is (C).", "C"),
    (INLINE, "(A) is wrong, (C) is a lake. The answer is B, not C.", "B"),
    (INLINE, "The answer is (A). No. The answer is (C).", "C"),
    (INLINE, r"So $\boxed{\text{B}}$", "B"),
    (INLINE, "Option C", "C"),
    (INLINE, "green", "B"),
    (INLINE, "The answer is green.", "B"),
    (INLINE, "I think it must be blue, as water is", "C"),
    (INLINE, "Ｂ）", "B"),
    (INLINE, "A dog", None),  # an article, no letter
    (INLINE, "I do not know", None),
    (INLINE, "E", None),  # no such option
    (INLINE, "red and green", None),  # two options
    (LINES, "new york", "C"),
    (LINES, "A", "A"),
    (LINES, "B\nQuestion: Which river?\nAnswer: C", "B"),
    (FEW_SHOT, "Dora", "B"),
    (FEW_SHOT, "The answer is D.", None),
    ("", "The answer is (D).", "D"),
]

NUMBER = [
    ("", "12", "12"),
    ("", "12.50", "12.5"),
    ("", "-3", "-3"),
    ("", "−3", "-3"),
    ("", "$1,234.50", "1234.5"),
    ("", "-$5", "-5"),
    ("", "1'000", "1000"),
    ("", "1\u202f234\u202f567", "1234567"),
    ("", "1.234,56 €", "1234.56"),
    ("", "3,14", "3.14"),
    ("", "50%", "50"),
    ("", "-0.0", "0"),
    ("", "12 km", "12"),
    ("", "25 m²", "25"),
    ("", "H2O has 3 atoms", "3"),
    ("", "1e3", "1000"),
    ("", "6.02 × 10^23", "6.02e+23"),
    ("", "2 x 10⁻³", "0.002"),
    ("", "3 million", "3000000"),
    ("", "3/4", "0.75"),
    ("", "3 1/2 cups", "3.5"),
    ("", "3½", "3.5"),
    ("", r"\boxed{12}", "12"),
    ("", r"\frac{1}{2}", "0.5"),
    ("", r"The result is $\boxed{-\frac{1}{4}}$.", "-0.25"),
    ("", r"\boxed{1{,}000}", "1000"),
    ("", "seven", "7"),
    ("", "twenty-two", "22"),
    ("", "two hundred and five", "205"),
    ("", "three million two hundred thousand", "3200000"),
    ("", "someone", None),
    ("", "5 and 1/0", "5"),
    ("", "nothing", None),
    ("", "NaN", None),
    ("", "infinity", None),
    ("", "1e999999", "1e+999999"),
    ("", "1e" + "9" * 50, None),
    (SUM, "3 + 4 = 7.", "7"),
    (SUM, "Let's think step by step. 3 + 4 = 7. So the answer is 7.", "7"),
    (SUM, "The answer is 7, because 3 + 3 = 6.", "7"),
    (SUM, "Answer: 3 + 4 = 7", "7"),
    (SUM, "7\n3 is prime, 4 is not.", "7"),
    (SUM, "7\nQuestion: What is 5 + 6?\nAnswer: 11", "7"),
    (SUM, "<think>3 + 4 = 8? No.</think>7", "7"),
    (SUM, "The answer is 5. No: the answer is 7.", "7"),
    (SUM, "3 + 4 = 7\n#### 7", "7"),
    (SUM, 'Thus\n```json\n{"reasoning": "3 and 4", "answer": "7"}\n```', "7"),
    ("What comes next: 2, 4, 6?", "8, 10, 12", "8"),
    ("Which is larger, 12 or 7?", "12 is larger than 7.", "12"),
    ("Which is larger, 12 or 7?", "Let's compare 7 and 12. The larger one is 12.", "12"),
]

JSON = [
    ("", '{"b": 1.0, "a": [1e2, true, null, "x "]}', '{"a":[100,true,null,"x "],"b":1}'),
    ("", '```json\n{"a": 1}\n```', '{"a":1}'),
    ("", 'Here it is: {"a": 1}. Good?', '{"a":1}'),
    ("", "[1, 2", None),
    ("", "[" * 10_000, None),
    ("", "[" * 500 + "]" * 500, None),
    ("", "[NaN, 1e99999999999999999999]", "[NaN,1e99999999999999999999]"),
    ("", '["\\ud800"]', '["?"]'),
    ("", "[-0.0, 0]", "[0,0]"),
    ("", "no json", None),
    ("", '{"a": 1' + " " * MAX_CHARS + "}", None),
]

TOOL_CALLS = [
    ("", '[{"name": "f", "args": {"b": 1.0, "a": " x "}}]', '[["f",{"a":"x","b":1}]]'),
    ("", '{"name": "f", "arguments": "{\\"a\\": 1}"}', '[["f",{"a":1}]]'),
    ("", '{"function": {"name": "f", "arguments": {}}}', '[["f",{}]]'),
    ("", '[["g", {}], ["f", {"a": [1, 2]}]]', '[["f",{"a":[1,2]}],["g",{}]]'),
    ("", '[{"f": {"a": 1}}]', '[["f",{"a":1}]]'),
    ("", "[]", "[]"),
    ("", "I cannot call anything.", None),
    ("", '{"a": 1, "b": 2}', None),
]

SHORT = [
    ("", "Yes.", "yes"),
    ("", "Yes, it is", "yes"),
    ("", "no", "no"),
    ("", "No one knows", "no 1 knows"),
    ("", "True", "true"),
    ("", "The Café!", "cafe"),
    ("", "ＰＡＲＩＳ", "paris"),
    ("", "two dogs", "2 dogs"),
    ("", "7.0", "7"),
    ("", "Well-known", "well known"),
    ("", "C++", "c++"),
    ("", ">", ">"),
    ("", "the", "the"),
    ("", "J. K. Rowling. She wrote it.", "j k rowling"),
    ("", "Tuesday, because it follows Monday.", "tuesday"),
    (CAPITAL, "Paris", "paris"),
    (CAPITAL, "The answer is Paris.", "paris"),
    (CAPITAL, "Paris\nQuestion: What is the capital of Spain?\nAnswer: Madrid", "paris"),
    (CAPITAL, "The capital of France is Paris.", "paris"),
    (CAPITAL, "Paris is the capital of France. It lies on the Seine.", "paris"),
    (CAPITAL, "Sure! It's Paris, which is old.", "paris"),
    (CAPITAL, "Sure, here you are:\n\n**Paris**", "paris"),
    (CAPITAL, "Let's think step by step. France is in Europe. So the capital of France is Paris.", "paris"),
    (CAPITAL, "Let's think step by step.\nFrance is in Europe.\nSo the capital of France is Paris.", "paris"),
    (CAPITAL, r"\boxed{\text{Paris}}", "paris"),
    ("What is the capital of Mexico?", "Mexico City", "mexico city"),
    ("What is the capital city of Mexico?", "The capital of Mexico is Mexico City.", "mexico city"),
    ("Who wrote Hamlet?", "Hamlet was written by William Shakespeare.", "william shakespeare"),
    (SUN, "**Yes**, the sun is a star.", "yes"),
    (SUN, "Yes the sun is a star", "yes"),
    (SUN, "I would say no.", "no"),
    (SUN, "The answer is: No.", "no"),
    (SUN, "True", "true"),
    ("True or false: the sun is a star.", "It is true.", "true"),
    ("Is this positive or negative? I liked it.", "The sentiment is positive.", "positive"),
    ("Is this positive or negative? I liked it.", "It is not negative, it is positive.", "positive"),
    ("Which is bigger, an elephant or a mouse?", "The elephant is bigger than a mouse.", "elephant"),
    ("Does it follow?\nOptions:\n- valid\n- invalid", "The argument is invalid.", "invalid"),
]

LONG = [
    ("", "  One\n\n two ", "one two"),
    ("", "Élan <|im_end|> more", "elan"),
    ("", " \n", None),
]

TABLES: dict[AnswerKind, list[tuple[str, str, str | None]]] = {
    "option": OPTION,
    "number": NUMBER,
    "json": JSON,
    "tool_calls": TOOL_CALLS,
    "short_text": SHORT,
    "long_text": LONG,
}


@pytest.mark.parametrize(
    ("kind", "query", "text", "answer"), [(kind, *row) for kind, rows in TABLES.items() for row in rows]
)
def test_a_text_reduces_to_its_answer(kind, query, text, answer):
    assert canonical(text, kind, query=query) == answer


@pytest.mark.parametrize(
    ("query", "texts", "kind"),
    [
        (INLINE, ["whatever", "7", None], "option"),
        (LINES, [], "option"),
        (FEW_SHOT, ["A"], "option"),
        (SUM, ["7", "3 + 4 = 7", "The answer is seven."], "number"),
        (SUM, [], "number"),
        (SUM, ["7", "eight", "I do not know"], "number"),
        (SUM, ["I do not know", "Who knows?"], "short_text"),
        ("How many legs has a spider?", ["A spider has eight legs.", "8"], "number"),
        ("What comes next: 2, 4, 6?", ["8", "8, of course"], "number"),
        ("Who was king in 1500?", ["Henry VII", "Henry the Seventh"], "short_text"),
        (SUN, ['{"a": 1}', "7"], "short_text"),
        ("Are you sure, yes or no?", [], "short_text"),
        ("List them.", ['{"a": 1}', "```json\n[1]\n```"], "json"),
        ("List them.", ['{"a": 1}', "none"], "short_text"),
        (SUM, ['{"reasoning": "3 + 4", "answer": 7}'] * 2, "number"),
        (CAPITAL, ["Paris", "Paris is the capital of France. " * 5, "Lyon"], "short_text"),
        ("Explain why the sky is blue.", ["Because blue light is scattered more than red light by the air above us."], "long_text"),
        ("", ["word " * 200], "long_text"),
        ("", [None, ""], "short_text"),
    ],
)  # fmt: skip
def test_the_kind_is_found_by_the_query_first_and_the_texts_second(query, texts, kind):
    assert detect_kind(query, texts) == kind


def test_the_kind_hardly_depends_on_which_members_were_asked():
    """Of five texts with one stray among them, every team of three finds the same kind."""
    texts = ["7", "The answer is 7.", "seven", "3 + 4 = 7", "I do not know"]
    assert {detect_kind(SUM, team) for team in permutations(texts, 3)} == {"number"}


def test_an_unknown_kind_is_an_error_that_lists_the_kinds():
    with pytest.raises(InputError, match="must be one of auto, option"):
        canonical("7", "letters")  # type: ignore[arg-type]


def test_tool_calls_compare_as_multisets_whatever_the_order_of_calls_and_arguments():
    f, g = {"name": "f", "args": {"a": 1, "b": " x"}}, {"name": "g", "args": {}}
    same = {"name": "f", "args": {"b": "x", "a": 1.0}, "id": "call_7"}
    assert canonical_tool_calls([f, g]) == canonical_tool_calls([g, same]) == '[["f",{"a":1,"b":"x"}],["g",{}]]'
    assert canonical_tool_calls([f, f]) != canonical_tool_calls([f])
    assert canonical_tool_calls([{"name": "f", "args": {"a": "1"}}]) != canonical_tool_calls(
        [{"name": "f", "args": {"a": 1}}]
    )
    assert canonical_tool_calls([{"name": "f", "args": {"a": True}}]) != canonical_tool_calls(
        [{"name": "f", "args": {"a": 1}}]
    )
    assert canonical_tool_calls([]) == "[]"


def test_odd_tool_calls_do_not_raise():
    circle: dict[str, object] = {}
    circle["self"] = circle
    odd = {"nan": math.nan, "huge": 10**5000, 7: {1, 2}, "none": None, "half": "\ud800", "circle": circle}
    assert canonical_tool_calls([{"name": None, "args": odd}, {}, {"name": "f", "args": "not json"}])


def test_equal_labels_mean_equal_answers_and_none_means_none_was_found():
    texts = ["7", "The answer is 7.0", "seven", "8", None, "I do not know", ""]
    assert label_answers(texts, query=SUM) == ["7", "7", "7", "8", None, None, None]


def test_close_numbers_share_a_label_but_whole_numbers_must_be_equal():
    assert label_answers(["1/3", "0.33333333", "0.3334"], "number") == ["0.33333333", "0.33333333", "0.3334"]
    assert label_answers(["12345678", "12345679"], "number") == ["12345678", "12345679"]
    assert label_answers(["2000000", "1999999.5", "2000001"], "number") == ["2000000", "2000000", "2000001"]
    assert label_answers(["3.4999999", "3.5"], "number") == ["3.5", "3.5"]


RAYLEIGH = "The sky is blue because air molecules scatter short wavelengths of sunlight more than long ones."
SCATTER = "Sunlight is scattered by air molecules, short wavelengths more than long ones, which makes the sky blue."
OCEAN = "The sky looks blue since the ocean reflects its colour up into the air above it."


def test_long_texts_that_say_the_same_share_a_label_in_any_order():
    texts = [RAYLEIGH, SCATTER, OCEAN]
    label = dict(zip(texts, label_answers(texts, "long_text"), strict=True))
    assert label[RAYLEIGH] == label[SCATTER] != label[OCEAN]
    for order in permutations(texts):
        assert label_answers(order, "long_text") == [label[text] for text in order]


def test_the_most_typical_long_text_leads_its_group_and_the_alphabet_breaks_ties():
    """Of four words, neighbours share three and the ends two: about ¾ and ½ alike. The middle leads both ends."""
    first, middle, last = "apple bread chess drums", "bread chess drums fjord", "chess drums fjord gloom"
    assert similarity(first, last) < SIMILAR < similarity(first, middle)
    assert label_answers([first, middle, last], "long_text") == [middle] * 3
    assert label_answers([middle, first], "long_text") == [first] * 2


def test_similarity_matches_a_hand_worked_pair():
    """ "ab ab" and "ab cd": counts ab 2; pieces <ab, ab> twice each. Weights: word 1 + ln 2, each piece half of that.

    With w = 1 + ln 2: dot = w + w/4 + w/4 = 1.5 w;  lengths √(1.5 w²) and √(1.5 + 1.5): cosine = √1.5 / √3 = √½.
    """
    assert similarity("ab ab", "ab cd") == pytest.approx(math.sqrt(0.5))


def test_similarity_stays_one_where_rounding_would_exceed_it():
    """Both texts point the same way; the bare quotient of these sums is 1 + 2⁻⁵²."""
    assert similarity("ab", "ab ab ab") == 1.0


def test_similarity_of_nothing_in_common_is_zero():
    assert similarity("abc", "xyz") == 0.0
    assert similarity("", "xyz") == 0.0


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "query", "score"),
    [
        ("The answer is 0.3333333.", "1/3", "number", "", 1.0),
        ("0.3333", "1/3", "number", "", 0.0),
        ("1000001", "1000000", "number", "", 0.0),
        ("240", "240.0", "auto", "How much?", 1.0),
        ("The ship sank in 1912.", "1912", "auto", "When did it sink?", 1.0),
        ("(B)", "B", "auto", INLINE, 1.0),
        ("green", "(B)", "auto", INLINE, 1.0),
        ("Yes, it is.", "yes", "auto", SUN, 1.0),
        ("Yes", "True", "short_text", SUN, 0.0),
        ("Paris, of course.", "Paris", "auto", CAPITAL, 0.0),
        ("Paris.", "paris", "auto", CAPITAL, 1.0),
        ('{"a": 1.0}', '{"a":1}', "json", "", 1.0),
        (SCATTER, RAYLEIGH, "long_text", "", 1.0),
        (OCEAN, RAYLEIGH, "long_text", "", 0.0),
        (None, "7", "auto", "", 0.0),
        ("7", "", "auto", "", 0.0),
        ("none", "none", "number", "", 0.0),
    ],
)
def test_an_answer_scores_one_where_it_says_what_gold_says(answer, gold, kind, query, score):
    assert score_answer(answer, gold, kind, query=query) == score


def test_the_threshold_lies_between_paraphrases_and_other_claims():
    assert similarity(RAYLEIGH, SCATTER) > SIMILAR > similarity(RAYLEIGH, OCEAN)


@pytest.mark.parametrize(
    ("text", "expected"), [("minus 3", "-3"), ("The answer is negative 3.", "-3"), ("5 minus 3 is 2", "2")]
)
def test_a_sign_in_words_is_a_sign_and_a_subtraction_is_none(text, expected):
    assert canonical(text, "number") == expected


def test_a_denied_choice_is_not_that_choice():
    question = "Is this review positive or negative? Answer with one word."
    denied = [canonical(text, "short_text", query=question) for text in ("It isn't positive.", "It is not positive.")]
    assert "positive" not in denied
    assert canonical("It's positive.", "short_text", query=question) == "positive"

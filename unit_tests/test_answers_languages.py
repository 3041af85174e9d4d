"""Words of other languages: yes and no, denials, and the marks before a final answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers import languages, values
from langchain_rlfocal.answers.languages import ANSWER_MARKS, NEGATION_PARTS, NEGATIONS, count_negations, yes_no
from support_patterns import repeats_of


@pytest.mark.parametrize(
    "word",
    ["Yes", "yes.", "yeah", "Yep", "YUP", "ja", "Ja!", "oui", "Oui.", "sí", "Si", "sim", "да", "Да.", "так", "tak", "da", "はい", "ええ", "是", "是的", "对", "네", "예", "हाँ", "हां", "نعم", "أجل", "evet", "כן", "ναι", "igen", "kyllä", "ano", "áno", "jah", "taip", "jā", "ya", "có", "ใช่", "হ্যাঁ", "ஆம்", "ہاں", "بله", "ndiyo", "**Yes**", "¡Sí!"],
)  # fmt: skip
def test_a_word_for_yes_means_yes(word):
    assert yes_no(word) is True


@pytest.mark.parametrize(
    "word",
    [
        "No",
        "no.",
        "nope",
        "Nah",
        "nein",
        "Nein!",
        "non",
        "no",
        "não",
        "nao",
        "нет",
        "Нет.",
        "не",
        "ні",
        "nie",
        "ne",
        "いいえ",
        "いや",
        "不",
        "不是",
        "否",
        "아니요",
        "아니오",
        "नहीं",
        "لا",
        "hayır",
        "Hayir",
        "HAYIR",
        "לא",
        "όχι",
        "nem",
        "ei",
        "nee",
        "nej",
        "nei",
        "tidak",
        "không",
        "ไม่ใช่",
        "না",
        "இல்லை",
        "نہیں",
        "نه",
        "hapana",
        "`No`",
    ],
)
def test_a_word_for_no_means_no(word):
    assert yes_no(word) is False


@pytest.mark.parametrize(
    "word",
    ["jo", "maybe", "", "true", "false", "yes sir", "not yes", "yesterday", "nobody", "ν", "y", "5", "?!", "yes or no"],
)
def test_what_is_neither_or_both_means_nothing(word):
    """Jo is yes in Luxembourgish and no in Albanian."""
    assert yes_no(word) is None


def test_thirty_languages_and_more_say_yes_and_no():
    assert len(languages._YES_AND_NO) >= 30
    for language, (yes, no) in languages._YES_AND_NO.items():
        assert {yes_no(word) for word in yes.split()} <= {True, None}, language
        assert {yes_no(word) for word in no.split()} <= {False, None}, language
    assert {"jo"} == languages._YES & languages._NO


MARKED = [
    "答案：5", "答案是5", "最终答案：5", "正确答案是 5", "答えは5", "答え: 5", "回答：5", "正解は 5", "Ответ: 5", "Правильный ответ: 5",
    "Окончательный ответ — 5", "Відповідь: 5", "Respuesta: 5", "La respuesta es 5", "La respuesta correcta es 5", "Respuesta final: 5",
    "Réponse : 5", "La réponse est 5", "Réponse finale : 5", "Antwort: 5", "Die Antwort ist 5", "Die Antwort lautet 5",
    "Die richtige Antwort lautet: 5", "Risposta: 5", "La risposta è 5", "Resposta: 5", "A resposta é 5", "Antwoord: 5",
    "Odpowiedź: 5", "Odpowiedź to 5", "Cevap: 5", "الجواب: 5", "الإجابة: 5", "الإجابة الصحيحة هي 5", "उत्तर: 5", "सही उत्तर: 5", "답: 5",
    "정답: 5", "정답은 5", "Svar: 5", "Vastaus: 5", "תשובה: 5", "התשובה היא 5", "Απάντηση: 5", "Válasz: 5", "Đáp án: 5", "Jawaban: 5",
    "คำตอบคือ 5", "Final answer: 5", "**Final Answer:** 5", "The answer is 5", "**Respuesta**: 5", "ANTWORT: 5", "Answer = 5",
]  # fmt: skip


@pytest.mark.parametrize("text", MARKED)
@pytest.mark.parametrize("form", [values.clean, values.fold])
def test_what_follows_a_mark_is_the_answer(text, form):
    written = form("Some thoughts: 3, then 4. " + text)
    marks = list(ANSWER_MARKS.finditer(written))
    assert len(marks) == 1
    assert written[marks[0].end() :].strip() == "5"


@pytest.mark.parametrize(
    "text",
    [
        "the answer to life", "the answer on page 5", "He answers: 5", "La respuesta no es 5", "Die Antwort ist nicht 5",
        "The answer is not 5", "答案不是5", "대답은 5", "L'antwort", "la réponse n'est pas 5", "no answers", "Beantwortung: 5",
    ],
)  # fmt: skip
def test_what_marks_no_answer_is_no_mark(text):
    assert not ANSWER_MARKS.search(values.clean(text))
    assert not ANSWER_MARKS.search(values.fold(text))


def test_the_answer_no_is_marked_as_any_other():
    for text in ["The answer is no", "La respuesta es no", "Answer: not guilty", "Die Antwort ist nein"]:
        assert ANSWER_MARKS.search(values.fold(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("it is so", "it is not so"), ("it is so", "it isn't so"), ("c'est vrai", "ce n'est pas vrai"), ("je sais", "je ne sais pas"),
        ("avec lui", "sans lui"), ("er kommt", "er kommt nicht"), ("ein Haus", "kein Haus"), ("es verdad", "no es verdad"),
        ("è vero", "non è vero"), ("é verdade", "não é verdade"), ("он пришел", "он не пришел"), ("是", "不是"), ("有", "没有"),
        ("行く", "行かない"), ("行った", "行かなかった"), ("行きます", "行きません"), ("갔다", "가지 않았다"), ("갔다", "안 갔다"),
        ("वह आया", "वह नहीं आया"), ("iyi", "iyi değil"), ("هو هنا", "هو ليس هنا"), ("het is zo", "het is niet zo"),
        ("jest", "nie jest"), ("on totta", "ei ole totta"), ("είναι", "δεν είναι"), ("הוא בא", "הוא לא בא"), ("có", "không có"),
        ("มา", "ไม่มา"), ("can", "cannot"), ("he did it", "he never did it"),
    ],
)  # fmt: skip
def test_a_denial_changes_the_count(one, other):
    assert count_negations(values.fold(one)) != count_negations(values.fold(other))


def test_two_words_of_one_denial_count_once():
    assert count_negations("je ne sais pas") == count_negations("je sais pas") == 1
    assert count_negations("neither here nor there") == 2


def test_words_that_only_hold_a_denying_sign_do_not_deny():
    assert count_negations("非常好") == count_negations("非洲") == 0
    assert count_negations("nothingness notable knot") == 0


def test_negations_are_folded():
    assert all(values.fold(word) == word for word in NEGATIONS)
    assert {"not", "n't", "kein", "jamais", "sin", "без", "degil", "ليس", "नहीं", "לא", "nao"} <= NEGATIONS
    assert {"不", "没", "ない", "ません", "않"} <= set(NEGATION_PARTS)


@given(st.text())
def test_no_text_raises(text):
    assert yes_no(text) in {True, False, None}
    folded = values.fold(text)
    assert count_negations(folded) >= 0
    for mark in ANSWER_MARKS.finditer(folded):
        assert mark.end() > mark.start()


@given(
    st.sampled_from(sorted(languages._YES | languages._NO)), st.sampled_from(["{}", " {}. ", "**{}**", "({})", "{}!"])
)
def test_what_stands_around_a_word_does_not_matter(word, frame):
    assert yes_no(frame.format(word)) is yes_no(word)
    assert yes_no(frame.format(word).upper()) is yes_no(word) or not word.isascii()


@pytest.mark.parametrize(
    "pattern",
    [pytest.param(value, id=name) for name, value in vars(languages).items() if isinstance(value, re.Pattern)],
)
def test_no_pattern_can_take_more_than_linear_time(pattern):
    parsed = re._parser.parse(pattern.pattern, pattern.flags)
    assert not any(above for _, above in repeats_of(parsed))
    assert parsed.getwidth()[1] < 3_000

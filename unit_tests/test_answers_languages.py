"""Words of many languages: yes and no, denials, and the marks before a final answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.choices import yes_no
from langchain_rlfocal.answers.reading import ANSWER_MARKS
from langchain_rlfocal.answers.values import NEGATIONS

YES = (
    "Yes yes. yeah Yep YUP ja Ja! oui Oui. sí Si sim да Да. так tak da はい ええ 是 是的 对 네 예 हाँ हां نعم أجل evet כן ναι igen kyllä "
    "ano áno jah taip jā ya có ใช่ হ্যাঁ ஆம் ہاں بله ndiyo **Yes** ¡Sí!"
)
NO = (
    "No no. nope Nah nein Nein! non no não nao нет Нет. не ні nie ne いいえ いや 不 不是 否 아니요 아니오 नहीं لا hayır Hayir HAYIR לא "
    "όχι nem ei nee nej nei tidak không ไม่ใช่ না இல்லை نہیں نه hapana `No`"
)


@pytest.mark.parametrize(("words", "verdict"), [(YES, True), (NO, False)])
def test_words_for_yes_and_no_mean_it_in_many_languages(words, verdict):
    assert [word for word in words.split() if yes_no(word) is not verdict] == []


@pytest.mark.parametrize(
    "word",
    ["jo", "maybe", "", "true", "false", "yes sir", "not yes", "yesterday", "nobody", "ν", "y", "5", "?!", "yes or no"],
)
def test_what_is_neither_or_both_means_nothing(word):
    """Jo is yes in Luxembourgish and no in Albanian."""
    assert yes_no(word) is None


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


def test_negations_are_folded():
    assert all(values.fold(word) == word for word in NEGATIONS)
    assert {"not", "n't", "kein", "jamais", "sin", "без", "degil", "ليس", "नहीं", "לא", "nao"} <= NEGATIONS


@given(st.text())
def test_no_text_raises(text):
    assert yes_no(text) in {True, False, None}
    for mark in ANSWER_MARKS.finditer(values.fold(text)):
        assert mark.end() > mark.start()


@given(st.sampled_from((YES + " " + NO).split()), st.sampled_from(["{}", " {}. ", "**{}**", "({})", "{}!"]))
def test_what_stands_around_a_word_does_not_matter(word, frame):
    assert yes_no(frame.format(word)) is yes_no(word)
    assert yes_no(frame.format(word).upper()) is yes_no(word) or not word.isascii()

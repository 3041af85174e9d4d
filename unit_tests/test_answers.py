"""What counts as the same answer, by worked examples with their hard negatives; the laws stand in `test_answers_laws`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_rlfocal.answers import (
    Comparison,
    Kind,
    can_coincide,
    canonical,
    canonical_tool_calls,
    compare_answers,
    kind_names,
    label_answers,
    register_kind,
    score_answer,
    to_kind,
    values,
)
from langchain_rlfocal.answers import kinds as kinds_module
from langchain_rlfocal.answers.choices import yes_no
from langchain_rlfocal.answers.reading import ANSWER_MARKS
from langchain_rlfocal.answers.values import NEGATIONS, Words
from langchain_rlfocal.errors import InputError

PAIRS = Path(__file__).parents[1] / "docs/benchmarks/same_answer_pairs.jsonl"
INLINE = "Which colour has the sky? (A) red (B) green (C) blue"
RETRIEVAL = (
    "Answer from the context.\nA. Refunds are handled in Porto.\nB. We moved in 2019.\n\nQuestion: Where is the office?"
)

# A query, texts that say the same, and texts each of which says something else.
ANSWERS = [
    (INLINE, ["B", "(b)", "B. green", "Answer: B) because grass is", "green", r"So $\boxed{\text{B}}$", "Ｂ）"], ["C", "A", "E", "red and green"]),
    ("Select all vowels:\nA. a\nB. e\nC. k\nD. o", ["A, B, D", "A, B and D"], ["A, B, C", "A"]),
    (RETRIEVAL, ["Porto", "The office is in Porto (A)."], ["Lisbon", "The office is in Lisbon (A)."]),
    ("Is the sun a star?", ["Yes", "Yes, it is.", "**Yes**: it shines.", "I would say yes."], ["No.", "I would say no.", "Yes, but only at night", "No one knows"]),
    ("Ist Berlin die Hauptstadt?", ["Ja", "Ja, Berlin ist die Hauptstadt."], ["Nein", "Nein, Bonn ist es."]),
    ("Is this positive or negative? I liked it.", ["positive", "The sentiment is positive.", "It is not negative, it is positive."], ["negative", "It is not positive."]),
    ("Is a tomato a fruit or a vegetable?", ["fruit", "While often cooked as a vegetable, it is a fruit."], ["vegetable", "It is both a fruit and a vegetable."]),
    ("Which is bigger: 9.11 or 9.9?", ["9.9", "9.11 is smaller, so the bigger one is 9.9."], ["9.11", "9.11 is smaller"]),
    ("Classify as one of: refund, cancel. Answer as 'Intent: <name>'.", ["Intent: cancel", "cancel"], ["Intent: refund"]),
    ("What is the capital of France?", ["Paris", "**Paris**", "The capital of France is Paris.", "Sure! It's Paris, which is old."], ["Lyon", "It isn't Paris.", "Paris or Lyon"]),
    ("Who wrote Hamlet?", ["William Shakespeare", "Hamlet was written by William Shakespeare."], ["Christopher Marlowe", "Not William Shakespeare"]),
    ("Who won?", ["Team Alpha beat Team Beta."], ["Team Beta beat Team Alpha."]),
    ("法国的首都是哪里？", ["巴黎", "法国的首都是巴黎。"], ["里昂"]),
    ("How old was Mozart when he died in 1791?", ["35", "He was 35 years old when he died in 1791."], ["36", "He was 36 when he died in 1791."]),
    ("How many of the 12 tests passed?", ["9", "9 of 12 tests passed."], ["5 of 12 tests passed.", "12"]),
    ("How many planets are there?", ["8", "There are 8 planets, since 2006."], ["9 planets, since 2006."]),
    ("What is 3 + 4?", ["7", "seven", "3 + 4 = 7.", "So the answer is 7.", "#### 7", "答案：7", "٧"], ["8", "-7", "It is not 7.", "7.1"]),
    ("By how much did it change?", ["It rose by 5%.", "It increased by 5 percent."], ["It fell by 5%.", "It rose by 6%."]),
    ("How long is the film?", ["1 hour 45 minutes", "105 minutes", "1 h 45"], ["1 hour 30 minutes", "105 hours"]),
    ("How often should it be taken?", ["4 every 6 hours"], ["4 every 8 hours", "6 every 4 hours"]),
    ("How much does it cost?", ["$1,234.50", "1234.5 dollars", "USD 1,234.50"], ["$1,234.00", "€1,234.50", "more than $1,234.50"]),
    ("When did the war end in Europe?", ["8 May 1945", "May 8th, 1945", "1945-05-08", "It ended on 8 May 1945."], ["9 May 1945", "8 May 1944", "May 1945"]),
    ("At what time does it end?", ["21:15", "9:15 PM"], ["9:15 AM", "21:30"]),
    ("What is the support number?", ["+1 555 010 0199", "+1 (555) 010-0199"], ["+1 555 010 0123"]),
    ("Which version is installed?", ["v2.1.0", "2.1.0"], ["2.0.1", "2.10"]),
    ("What is the derivative of x^2?", ["2x", "$2x$"], ["2x^2", "-2x"]),
    ("Simplify.", [r"$\frac{1}{2}$", "0.5", r"\boxed{\frac12}"], [r"$\frac{1}{3}$", r"$-\frac{1}{2}$"]),
    ("List the first three presidents.", ["1. Washington\n2. Adams\n3. Jefferson", "Washington, Adams, Jefferson"], ["1. Washington\n2. Jefferson\n3. Adams"]),
    ("Name the capital in a table.", ["| Capital |\n|---|\n| Nairobi |", "# Answer\nNairobi"], ["| Capital |\n|---|\n| Mombasa |"]),
    ("Write Python that doubles x.", ["```python\ndef f(x): return 2 * x\n```", "```py\ndef f(y):\n    return 2 * y\n```"], ["```python\ndef f(x): return x * x\n```"]),
    ("Which command lists containers?", ["`docker ps`", "Use:\n```bash\ndocker ps\n```"], ["Use:\n```bash\ndocker images\n```"]),
    ("Give JSON.", ['{"a": 1.0, "b": 2}', '```json\n{"b": 2, "a": 1}\n```', '<think>{"a": 3}</think>{"a": 1, "b": 2}'], ['{"a": 1}']),
    ("Play jazz. Tool: play(genre)", ['<tool_call>{"name": "play", "arguments": {"genre": "jazz"}}</tool_call>', 'play(genre="jazz")'], ['play(genre="rock")']),
    ("Describe the drug.", ["The drug is safe for all children under five.", "The drug is **safe** for all children under five."], ["The drug isn't safe for all children under five.", "The drug is safe for all children under six."]),
    ("Who won the group?", ["Group A"], ["Group I"]),
    ("Is it in stock?", ["No."], ["No. 5"]),
    ("Which is bigger: 9.11 or 9.9?", ["9.11"], ["9.11 is smaller"]),
    ("Quale gruppo ha vinto?", ["Gruppo A"], ["Gruppo I"]),
    ("Is it safe?", ["Yes, when cooked"], ["Yes, when raw"]),
    ("Is it safe?", ["Yes"], ["Yes. However, not for babies."]),
    ("Is it spam or ham?", ["spam"], ["It's anything but spam."]),
    ("Is it positive or negative?", ["positive"], ["It fails to be positive."]),
    ("What is the symbol for cobalt?", ["Co"], ["CO"]),
    ("Where is he from?", ["Congo"], ["DR Congo"]),
    ("Which command?", ["ls -l"], ["ls -L"]),
    ("Expand it.", ["$a^2+b^2+2ab$"], ["$a^2+b^2+2$"]),
    ("Which of 5, 8 and 11 is odd, and which is prime?", ["5 and 11"], ["8 and 11"]),
]  # fmt: skip


def test_code_is_left_open_only_where_no_number_and_no_denial_differs():
    query = "Write a Python function for a late fee."
    code = "```python\ndef late_fee(days):\n    return {}\n```"
    same, ten_times, other = code.format("days * 5"), code.format("days * 50"), code.format("5 * days")
    assert compare_answers([same, ten_times], query=query).open_pairs == ()
    assert compare_answers([same, other], query=query).open_pairs == ((0, 1),)


@pytest.mark.parametrize(("query", "same", "others"), ANSWERS)
def test_texts_that_say_the_same_share_a_label_and_others_have_none_of_it(query, same, others):
    labels = label_answers([*same, *others], query=query)
    first = labels[0]
    assert first is not None
    assert labels[: len(same)] == [first] * len(same)
    assert first not in labels[len(same) :]


def test_of_the_labelled_pairs_none_is_merged_wrongly_and_few_are_split():
    """The pairs of `docs/benchmarks/same_answer.py`, each in one order: at most 0.5 % false merges, 5 % false splits."""
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    merges, splits = [], []
    for pair in pairs:
        one, other = label_answers([pair["a"], pair["b"]], query=pair["query"])
        is_same = one is not None and one == other
        if is_same and not pair["same"]:
            merges.append(pair["id"])
        elif pair["same"] and not is_same:
            splits.append(pair["id"])
    num_same = sum(pair["same"] for pair in pairs)
    assert len(merges) <= 0.005 * (len(pairs) - num_same), merges
    assert len(splits) <= 0.05 * num_same, splits


@pytest.mark.parametrize(
    ("kind", "query", "text", "label"),
    [
        ("option", INLINE, "The correct option is (C).", "C"), ("option", INLINE, "I do not know", None),
        ("option", "", "The answer is (D).", "D"), ("number", "", "1,234.50", "1234.5"), ("number", "", "−3", "-3"),
        ("number", "", "The answer is negative 3.", "-3"), ("number", "", "two hundred and five", "205"),
        ("number", "", "1e999999", "1e+999999"), ("number", "", "3 million", "3000000"),
        ("number", "", "no number here", None), ("number", "What comes next: 2, 4, 6?", "8, 10", "8 10"),
        ("quantity", "", "2.5 km", "2500 m"), ("date", "", "4th of July, 1776", "1776-07-04"),
        ("date", "", "no date", None), ("yes_no", "", "Yes, since it shines.", "yes"), ("yes_no", "", "Oui.", "yes"),
        ("yes_no", "", "Perhaps", None), ("choice", "Is it red or blue?", "It is blue, not red.", "blue"),
        ("choice", "Is it red or blue?", "It is green.", None),
        ("json", "", 'Here: {"b": 1.0, "a": [1e2, true]}', '{"a":[100,true],"b":1}'), ("json", "", "[1, 2", None),
        ("tool_calls", "", '{"function": {"name": "f", "arguments": "{}"}}', '[["f",{}]]'),
        ("tool_calls", "", "I cannot call anything.", None), ("short_text", "", "The Café!", "cafe"),
        ("short_text", "", "Mr. Smith. He wrote it.", "smith wrote"), ("long_text", "", "  One\n\n two ", "1 2"),
        ("exact", "", " Yes \n", "Yes"), ("exact", "", "#### aB", "aB"),
    ],
)  # fmt: skip
def test_a_kind_reads_a_text_as_its_label(kind, query, text, label):
    assert canonical(text, kind, query=query) == label


def test_an_unread_text_agrees_with_nobody_and_a_note_says_so():
    comparison = compare_answers(["7", "I do not know", "Who knows?", None, ""], "number")
    assert comparison.labels == ("7", None, None, None, None)
    assert comparison.kinds[:2] == ("number", None)
    assert comparison.notes == ("nothing comparable could be read as number in 2 of 5 answers",)


def test_a_number_without_a_unit_equals_one_with_a_unit_but_no_two_units():
    assert len(set(label_answers(["18", "$18"], "number"))) == 1
    assert len(set(label_answers(["18 km", "18 miles"], "number"))) == 2
    assert len(set(label_answers(["18 km", "18 miles", "18"], "number"))) >= 2
    assert len(set(label_answers(["18 km", "18"], "quantity"))) == 2


class Colour:
    name = "colour"

    def read(self, text, query):
        return text.strip().lower().replace("grey", "gray") or None

    def same(self, a, b):
        return a == b

    def write(self, value):
        return value


def test_a_kind_of_the_users_own_is_an_object_or_a_function_or_a_registered_name(monkeypatch):
    monkeypatch.setattr(kinds_module, "_REGISTERED", {})
    assert isinstance(Colour(), Kind)
    assert label_answers(["Grey", "gray", "red"], Colour()) == ["gray", "gray", "red"]
    assert label_answers(["aa", "b", "cc"], lambda a, b: len(a) == len(b)) == ["aa", "b", "aa"]
    register_kind(Colour())
    assert "colour" in kind_names()
    assert score_answer("GREY", "gray", "colour") == 1.0


def test_a_function_must_affirm_both_ways_round():
    assert len(set(label_answers(["a", "ab"], lambda a, b: b.startswith(a)))) == 2


@pytest.mark.parametrize("kind", ["letters", 7, None, Colour, type("Half", (), {"name": "half", "read": len})()])
def test_what_is_no_kind_is_an_error_that_lists_the_names(kind):
    with pytest.raises(InputError, match="short_text"):
        to_kind(kind)


def test_a_name_of_the_package_cannot_be_registered_anew():
    with pytest.raises(InputError, match="Rename it"):
        register_kind(type("Mine", (Colour,), {"name": "number"})())


class Broken(Colour):
    def __init__(self, **broken):
        for name, behaviour in broken.items():
            setattr(self, name, behaviour)


def _raise(*args):
    raise RuntimeError("secret text")


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (Broken(read=_raise), "raised RuntimeError"), (Broken(same=_raise), "raised RuntimeError"),
        (Broken(write=_raise), "raised RuntimeError"), (Broken(same=lambda a, b: "maybe"), "not to True or False"),
        (Broken(write=lambda value: 7), "wrote no label"), (Broken(write=lambda value: ""), "wrote no label"),
        (_raise, "raised RuntimeError"),
    ],
)  # fmt: skip
def test_a_kind_that_raises_or_returns_nonsense_makes_answers_differ_and_says_why(kind, note):
    comparison = compare_answers(["one", "two"], kind)
    assert comparison.labels[0] is None or comparison.labels[0] != comparison.labels[1]
    assert any(note in line for line in comparison.notes)
    assert not any("secret" in line for line in comparison.notes)


def test_texts_without_a_fact_that_differs_are_left_open():
    query = "Why is the sky blue? Explain."
    texts = ["Air scatters blue light most.", "Blue light is scattered most by air.", "Air scatters red light most, in 1 of 2 cases.", "Air does not scatter blue light."]  # fmt: skip
    comparison = compare_answers(texts, query=query)
    assert len(set(comparison.labels)) == 4
    assert comparison.open_pairs == ((0, 1),)


@pytest.mark.parametrize(
    ("query", "a", "b"), [("What is 3 + 4?", "7", "8"), (INLINE, "A", "B"), ("Is it?", "Yes", "No")]
)
def test_what_the_rules_decide_is_not_left_open(query, a, b):
    assert compare_answers([a, b], query=query).open_pairs == ()


def test_merged_makes_one_label_of_pairs_that_mean_the_same_and_a_chain_is_no_circle():
    comparison = Comparison(("a", "b", "c", "b"), ("short_text",) * 4, open_pairs=((0, 1), (0, 2), (1, 2)))
    assert comparison.merged([]) is comparison
    assert comparison.merged([(0, 1)]).labels == ("a", "a", "c", "a")
    assert comparison.merged([(0, 1), (1, 2)]).labels == ("a", "a", "c", "a")  # a and c were not said to be the same
    assert comparison.merged([(0, 1), (1, 2), (0, 2)]).labels == ("a", "a", "a", "a")
    assert comparison.merged([(0, 1)]).open_pairs == ((0, 2), (1, 2))


@pytest.mark.parametrize(
    ("query", "texts", "can"),
    [
        ("Write a poem about the sea.", [], False), ("Explain why the sky is blue.", [], False),
        ("Is it true? Explain.", [], True), ("What is the capital of France?", [], True),
        ("Tell me of Oslo.", ["word " * 80, "other " * 80], False), ("Tell me of Oslo.", ["word " * 80, "Oslo"], True),
        ("Write a Python class.", ["```python\n" + "x = 1\n" * 30 + "```"], False),
        ("Which command lists containers?", ["```sh\ndocker ps\n```"], True),
    ],
)  # fmt: skip
def test_open_text_cannot_coincide(query, texts, can):
    assert can_coincide(query, texts) is can


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "query", "score"),
    [
        ("The ship sank in 1912.", "1912", "auto", "When did it sink?", 1.0),
        ("The ship sank in 1913.", "1912", "auto", "When did it sink?", 0.0), ("green", "(B)", "auto", INLINE, 1.0),
        ("240", "240.0", "auto", "How much?", 1.0), ("1000001", "1000000", "number", "", 0.0),
        ('"answer": "\'aB\'"', "aB", "auto", "[PYTHON]\nassert f('a') == ??\n[/PYTHON]", 1.0),
        ('"answer": "\'ab\'"', "aB", "auto", "[PYTHON]\nassert f('a') == ??\n[/PYTHON]", 0.0),
        (r"The result is $\boxed{\frac{2}{4}}$.", r"\frac{1}{2}", "auto", "", 1.0), ("x + 1", "1 + x", "math", "", 1.0),
        ("x - 1", "1 - x", "math", "", 0.0), (None, "7", "auto", "", 0.0), ("7", "", "auto", "", 0.0),
        ("none", "none", "number", "", 0.0),
    ],
)  # fmt: skip
def test_an_answer_scores_one_where_it_says_what_gold_says(answer, gold, kind, query, score):
    assert score_answer(answer, gold, kind, query=query) == score


def test_tool_calls_compare_as_multisets_whatever_the_order_of_calls_and_arguments():
    f, g = {"name": "f", "args": {"a": 1, "b": " x"}}, {"name": "g", "args": {}}
    same = {"name": "f", "args": {"b": "x", "a": 1.0}, "id": "call_7"}
    assert canonical_tool_calls([f, g]) == canonical_tool_calls([g, same]) == '[["f",{"a":1,"b":"x"}],["g",{}]]'
    assert canonical_tool_calls([f, f]) != canonical_tool_calls([f])
    assert canonical_tool_calls([{"name": "f", "args": {"a": True}}]) != canonical_tool_calls(
        [{"name": "f", "args": {"a": 1}}]
    )


def test_reading_english_numbers_loads_none_of_the_libraries_of_answers():
    code = (
        "import sys, langchain_rlfocal.answers.schemas, langchain_rlfocal.answers.quantities as q\n"
        "q.find_quantities('5 km, $6 and two dogs are here')\n"
        "heavy = 'sympy math_verify latex2sympy2_extended babel pygments text_to_num jsonschema referencing'\n"
        "assert not set(heavy.split()) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_list_and_pattern_is_used_and_every_name_that_is_used_has_one():
    sources = [path.read_text(encoding="utf-8") for path in Path(values.__file__).parent.glob("*.py")]
    for source in sources:
        for name, file in re.findall(r'^(\w+)(?:: Final)? = (?:values\.)?Words\("(\w+)"\)', source, re.MULTILINE):
            text = source if name.startswith("_") else "".join(sources)
            entries = Words(file).entries
            uses = re.findall(rf'(?<!\w){name}(?:\.(\w+)|\["(\w+)"\])', text)
            used = {one for pair in uses for one in pair if one} - set(dir(Words))
            tables = [entry for entry in entries.values() if isinstance(entry, dict)]
            named = re.findall(r"<<(\w+)>>", str(entries)) + re.findall(r'"(\w+)"', text)
            assert used <= entries.keys(), file
            assert entries.keys() <= {
                *used,
                *named,
                *(one for table in tables for one in table.get("include", "").split()),
            }


# ---- words of many languages

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

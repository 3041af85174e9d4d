"""Mathematics: which formulas are the same answer, in one direction (grading) and in both (grouping)."""

import itertools
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers.mathematics import Math, looks_like_math, run_within, same_math
from support_tables import table_of

MATH = Math()
HERE = {__name__.partition(".")[0]}

_TABLE = table_of("math")
SAME = _TABLE["same"]
DIFFERENT = _TABLE["different"]
IS_MATH = _TABLE["mathematics"]
IS_NOT_MATH = _TABLE["other_text"]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal_formulas_are_the_same_answer_and_grouped_in_either_order(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert same_math(a, b)
    assert MATH.same(x, y)
    assert MATH.same(y, x)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_formulas_that_differ_are_neither_the_same_answer_nor_grouped(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert not same_math(a, b)
    assert not same_math(b, a)
    assert x is None or y is None or not (MATH.same(x, y) or MATH.same(y, x) or MATH.write(x) == MATH.write(y))


# --- which direction

ONE_WAY = [("$1$", "$2x+z=1$"), ("$5$", "$x^2-1=5$")]


@pytest.mark.parametrize(("gold", "prediction"), ONE_WAY)
def test_an_equation_answers_with_its_right_side_to_a_gold_answer_but_is_not_grouped_with_it(gold, prediction):
    assert same_math(gold, prediction)
    assert not MATH.same(MATH.read(gold, ""), MATH.read(prediction, ""))


# --- reading and labels

LABELS = [
    (r"$\frac{1}{2}$", "1/2"), ("0.250", "0.25"), ("$x=5$", "x = 5"), ("$1<x\\le 2$", "1 < x <= 2"),
    ("$[0,1)\\cup(2,\\infty)$", "[0, 1) ∪ (2, ∞)"), (r"$\{2,1\}$", "{1, 2}"), ("$(2,1)$", "(2, 1)"), ("5 cm", "5 cm"),
    (r"$9\%$", "9%"), ("2x^2 - 3", "2*x**2 - 3"), ("The answer is even.", "even"), ("5 of 12", "numbers 5, 12"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "label"), LABELS)
def test_a_label_spells_the_value(text, label):
    assert MATH.write(MATH.read(text, "")) == label


@pytest.mark.parametrize(
    "text", ["x=5", "{1, 2}", "(1, 2)", "(1, 2, 3)", r"$\frac{\sqrt3}{2}$", "9%", "5 cm", "2x^2 - 3", "even"]
)
def test_a_label_read_again_is_itself(text):
    label = MATH.write(MATH.read(text, ""))
    assert MATH.write(MATH.read(label, "")) == label


@pytest.mark.parametrize(
    "text",
    ["", " \n", "**", "I think that nobody will ever know what it may have been, as no word of it was said " * 3],
)
def test_nothing_is_read_where_nothing_is_said(text):
    assert MATH.read(text, "") is None


def test_prose_that_states_several_numbers_means_all_of_them():
    a, b = MATH.read("5 of 12", ""), MATH.read("9 of 12", "")
    assert not MATH.same(a, b)
    assert MATH.same(a, MATH.read("5 out of 12", ""))


def test_a_long_formula_is_the_same_as_itself_only():
    """Both end alike, in more characters than are parsed."""
    a, b = (MATH.read(f"$ {head} {'+ x' * 5000}$", "") for head in "12")
    assert not MATH.same(a, b)
    assert MATH.same(a, a)
    assert len(MATH.write(a)) <= 80


# --- telling mathematics from other text


@pytest.mark.parametrize("text", IS_MATH)
def test_mathematics_looks_like_mathematics(text):
    assert looks_like_math(text)


@pytest.mark.parametrize("text", IS_NOT_MATH)
def test_other_text_does_not_look_like_mathematics(text):
    assert not looks_like_math(text)


# --- bounds

HOSTILE = {
    "a megabyte of boxes that never close": r"\boxed{" * 140_000,
    "a megabyte of LaTeX": "$" + r"\frac{1}{2}+" * 80_000 + "1$", "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of digits": "9" * 1_000_000,
    "boxes and braces that made a pattern cubic": r"\(\boxed{" * 50 + "}" * 1000, "a tower": "$9^{9^{9^9}}$",
    "a tower as a program writes it": "9**9**9**9", "towers as ends of an interval": "$(9^{9^{9}},10^{10^{10}})$",
    "factorials of factorials": "$((((9!)!)!)!)!$", "a binomial": r"$\binom{1000000000}{500000000}$",
    "an exponent of a float": "1e999999999", "a root of a high index": r"$\sqrt[1000000007]{2}$",
    "a power of a small fraction": r"$x^{\frac{1}{1000000007}}+x^{1/97}$",
    "deep roots": "$" + r"\sqrt{2+" * 38 + "x" + "}" * 38 + "$",
    "a giant polynomial": "$" + "+".join(f"{k}x^{{{k}}}y^{{{k % 7}}}" for k in range(90)) + "$",
    "an integral": r"$\int_0^1 x^x \sin(\ln(x^{3}+\tan x)) dx$", "a sum of towers": r"$\sum_{k=1}^{99} 10^{10^{k}}$",
    "a limit": r"$\lim_{x\to\infty} (x!)^{1/x^{x}}\sin(x^{x})$", "an identity matrix": r"$\operatorname{eye}(100000)$",
}  # fmt: skip


def outlast(text: str) -> float:
    """Put a text to every function; return the processor time of the slowest, in seconds."""
    other = text.replace("x", "(x+1)", 1) + " " if len(text) < 5000 else "x" + text
    spent = []
    for work in (
        lambda: MATH.read(text, ""),
        lambda: MATH.same(MATH.read(text, ""), MATH.read(other, "")),
        lambda: same_math(text, other + "+0"),
        lambda: looks_like_math(text),
    ):
        began = time.thread_time()
        work()
        spent.append(time.thread_time() - began)
    return max(spent)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends_soon_in_a_thread(name):
    MATH.read("$x$", "")  # loads the library, which is no part of it
    spent: list[float] = []
    thread = threading.Thread(target=lambda: spent.append(outlast(HOSTILE[name])))
    thread.start()
    thread.join()
    assert spent
    assert spent[0] < 1.0


@pytest.mark.parametrize(
    "name", ["a tower", "factorials of factorials", "a binomial", "a sum of towers", "an integral"]
)
def test_what_is_too_large_or_too_slow_is_still_the_same_as_itself(name):
    text = HOSTILE[name]
    assert same_math(text, text)
    assert MATH.same(MATH.read(text, ""), MATH.read(f" {text}", ""))


def forever() -> None:
    for _ in itertools.count():
        pass


def test_work_is_ended_in_any_thread_when_its_time_is_up():
    ended: list[str] = []

    def work() -> None:
        try:
            run_within(0.05, forever, packages=HERE)
        except TimeoutError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    assert ended == ["Not done within 0.05 s of processor time."] * 4


def test_work_within_its_time_returns_and_raises_as_without_a_limit():
    assert run_within(5.0, lambda: 7, packages=HERE) == 7
    with pytest.raises(ZeroDivisionError):
        run_within(5.0, lambda: 1 // 0, packages=HERE)
    for _ in range(2000):  # nothing is on its way any more once it has returned
        run_within(5.0, list, packages=HERE)


def test_a_time_in_which_nothing_else_could_run_hardly_counts():
    """As when the garbage collector goes over a large heap, or the machine stands still; here one operation in C."""

    def held() -> int:
        total = sum(range(30_000_000))
        for step in range(200_000):  # where it would be ended
            total -= step
        return total

    began_s = time.thread_time()
    run_within(0.15, held, packages=HERE)
    assert time.thread_time() - began_s > 0.15


# --- laws

PIECES = st.sampled_from([text for row in SAME + DIFFERENT for text in row])
SCRAPS = [*"x2^_{}()[]$\\/+-=<>,.!%|&πi√² \n", "\\frac", "\\sqrt", "\\boxed{", "\\text{", "answer is "]
NOISE = st.lists(st.sampled_from(SCRAPS), max_size=20).map("".join)


@settings(max_examples=50, deadline=None)
@given(PIECES, PIECES)
def test_same_is_symmetric_and_holds_for_equal_labels(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert MATH.same(x, y) == MATH.same(y, x)
    assert MATH.same(x, x)
    assert MATH.write(x) != MATH.write(y) or MATH.same(x, y)


@settings(max_examples=50, deadline=None)
@given(NOISE, NOISE)
def test_no_text_raises(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert MATH.same(x, y) == MATH.same(y, x)
    assert same_math(a, b) in {True, False}
    assert looks_like_math(a) in {True, False}


@settings(max_examples=50, deadline=None)
@given(NOISE)
def test_a_text_grades_as_itself_unless_it_says_nothing(text):
    assert same_math(text, text) or MATH.read(text, "") is None or not MATH.write(MATH.read(text, ""))


def test_a_limit_of_time_leaves_nothing_behind_in_the_interpreter():
    """An exception that was taken back would have the interpreter look for it at every step, and debuggers hang."""
    code = (
        "import sys\n"
        "from langchain_rlfocal.answers.mathematics import Math\n"
        "kind = Math()\n"
        "assert kind.same(kind.read('$x^2+1$', ''), kind.read('$1+x^2$', ''))\n"
        "def trace(frame, event, arg):\n"
        "    frame.f_trace_opcodes = True\n"
        "    return trace\n"
        "sys.settrace(trace)\n"
        "(lambda: sum(range(10)))()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

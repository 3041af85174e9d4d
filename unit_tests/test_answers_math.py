"""Mathematics: which formulas are the same answer, in one direction (grading) and in both (grouping)."""

import asyncio
import itertools
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.answers.mathematics import Math, looks_like_math, run_within, same_math

MATH = Math()
HERE = {__name__.partition(".")[0]}

SAME = [
    # fractions, decimals, mixed numbers
    (r"$\frac{1}{2}$", "0.5"), (r"$\frac12$", r"$\dfrac{1}{2}$"), (r"$\frac{1}{2}$", "1/2"),
    (r"$\frac{1}{3}$", "0.333333"), (r"$-\frac{3}{4}$", r"$\frac{-3}{4}$"), (r"$-\frac{3}{4}$", r"$\frac{3}{-4}$"),
    (r"$\frac{6}{4}$", r"$\frac{3}{2}$"), (r"$2\frac{1}{2}$", r"$\frac{5}{2}$"), (r"$2\frac{1}{2}$", "2.5"),
    (r"$-1\frac{1}{4}$", "-1.25"), (r"$\tfrac{7}{8}$", "0.875"), (r"$\frac{x}{2}$", r"$\frac{1}{2}x$"),
    ("½", r"$\frac{1}{2}$"), ("3½", "3.5"), (r"$0.\overline{3}$", r"$\frac{1}{3}$"),
    (r"$0.1\overline{6}$", r"$\frac{1}{6}$"), ("$.5$", "$0.5$"), ("$0.50$", r"$\frac12$"),
    # whole numbers, separators, powers of ten
    ("$1,000$", "1000"), ("1,234,567", "$1234567$"), (r"$1{,}000$", "1000"), (r"$10\,000$", "10000"),
    (r"$10\ 000$", "$10000$"), ("1 234", "1234"), ("$007$", "7"), ("$10^3$", "1000"), ("$10^{-3}$", "0.001"),
    ("$10^-3$", "$0.001$"), (r"$2.5\times 10^{3}$", "2500"), (r"$3\cdot 10^{8}$", "$300000000$"), ("1e3", "$1000$"),
    ("$5!$", "120"), (r"$\binom{5}{2}$", "10"),
    # percentages
    (r"$50\%$", "50%"), (r"$50\%$", r"$\frac{1}{2}$"), ("10 percent", "10%"), ("$9\\%$", "0.09"),
    # marks, text around, several boxes
    (r"\boxed{42}", "42"), (r"\boxed{\frac{1}{2}}", "$0.5$"), ("7", "So we get 3 and then 4. The answer is 7."),
    ("7", "#### 7"), ("$x+1$", r"The final answer is $x + 1$. I hope it is correct."),
    ("$x+1$", r"Therefore \boxed{x+1}."),
    ("12", r"\boxed{11} is wrong. Let us see again, step by step, until we find what must be the only right one here: \boxed{12}"),
    ("$1,2$", r"The solutions are \boxed{1} and \boxed{2}."), (r"$\{1,2\}$", r"\boxed{1}, \boxed{2}"),
    ("$1,2$", "The solutions are $1$ and $2$"), ("5", "<think>It may be 4. The answer is 4.</think>It is 5."),
    ("$2x$", "Answer: 2x"), ("$2x$", "**Answer:** $2x$"), ("$2x$", "2x"), ("$2x$", "`2x`"),
    (r"\boxed{2x}", r"\[ 2x \]"), (r"\boxed{2x}", r"\(2x\)"), (r"\boxed{2x}", "$$2x$$"), (r"\fbox{3}", "3"),
    (r"$\boxed{3}$", "$3$"),
    # units and words
    (r"$5\text{ cm}$", "$5$"), (r"$5\text{ cm}$", "5 cm"), (r"$5\text{ cm}$", r"$5 \text{ centimeters}$"),
    (r"$5\text{ cm}^2$", r"$5 \text{ square centimeters}$"), (r"$90^\circ$", "$90$"), (r"$90^\circ$", "90°"),
    (r"\$5", "5"), (r"$\$5$", "$5"), (r"$\text{A}$", "$A$"), (r"$\text{(B)}$", "B"),
    (r"$\text{even}$", r"$\text{Even}$"), (r"$\text{even}$", "even"),
    # polynomials and other expressions
    ("$2x+3$", "$3+2x$"), ("$x^2-1$", "$(x-1)(x+1)$"), ("$(x+1)^2$", "$x^2+2x+1$"), ("2x^2", "$2x^{2}$"),
    ("2*x**2", "$2x^2$"), ("x²", "$x^2$"), ("$x^10$", "x^10"), ("$xy$", "$yx$"), (r"$x\cdot y$", "$xy$"),
    (r"$\frac{x^2-1}{x-1}$", "$x+1$"), (r"$\frac{1}{x}+\frac{1}{y}$", r"$\frac{x+y}{xy}$"), ("$-(x-1)$", "$1-x$"),
    ("$x_1+x_2$", "$x_2+x_1$"), ("$a^2+b^2$", "$b^2+a^2$"), ("$n(n+1)/2$", r"$\frac{n^2+n}{2}$"),
    # roots, functions, constants
    (r"$\sqrt{8}$", r"$2\sqrt{2}$"), (r"$\sqrt2$", "√2"), (r"$\sqrt2$", "sqrt(2)"), (r"$\sqrt2$", "1.414214"),
    (r"$\sqrt[3]{8}$", "2"), (r"$\frac{1}{\sqrt{2}}$", r"$\frac{\sqrt{2}}{2}$"), (r"$2\pi$", "2π"), (r"$2\pi$", "2pi"),
    (r"$\pi/2$", r"$\frac{\pi}{2}$"), (r"$2\pi$", "$6.283185$"), ("$e^{2}$", r"$\exp(2)$"), (r"$\ln(x)$", "ln(x)"),
    (r"$\log_2 8$", "3"), (r"$\sin^2 x+\cos^2 x$", "1"), (r"$\sin(2x)$", r"$2\sin x\cos x$"), (r"$\infty$", "∞"),
    (r"$-\infty$", r"$- \infty$"), ("$|x|$", "$|-x|$"), (r"$\lfloor 2.7\rfloor$", "2"),
    (r"$\int_0^1 x\,dx$", r"$\frac{1}{2}$"), (r"$\sum_{k=1}^{10} k$", "55"),
    # complex numbers
    ("$3+4i$", "$4i+3$"), ("3 + 4i", "$3+4i$"),
    # equations, assignments, relations
    ("$x=5$", "5"), ("5", "$x=5$"), ("5", "x = 5"), ("$7$", "$3+4=7$"), ("$7$", "$a = b + 3 = 7$"),
    ("$y=2x+1$", "$y-2x=1$"), ("$y=2x+1$", "$2x+1$"), ("$2x+3y=6$", "$4x+6y=12$"), ("$x<3$", "$3>x$"),
    (r"$x\le 3$", "x <= 3"), (r"$x\le 3$", r"$3\ge x$"), ("x≥2", r"$x \geq 2$"), ("$1<x<2$", "$1 < x < 2$"),
    (r"$x\neq 3$", r"$x\ne 3$"), ("$x=1,y=2$", "$y=2,x=1$"), ("$f(x)=2x$", "$2x$"),
    ("$x=1$ or $x=2$", "$x=2$ or $x=1$"),
    # sets, tuples, intervals
    (r"$\{1,2,3\}$", r"$\{3,2,1\}$"), (r"$\{1,2\}$", "$1,2$"), ("$1,2$", "$2,1$"), ("$(1,2)$", "$( 1, 2 )$"),
    ("$(1,2)$", r"$\left(1,2\right)$"), ("(1, 2)", "$(1,2)$"), (r"$\left(\frac12,3\right)$", "$(0.5,3)$"),
    ("$[0,1)$", "[0, 1)"), (r"$[0,1)\cup(2,3]$", r"$(2,3]\cup[0,1)$"), (r"$(-\infty,\infty)$", r"$\mathbb{R}$"),
    (r"$(-\infty,1)\cup(1,\infty)$", r"$\mathbb{R}\setminus\{1\}$"), ("$x>1$", r"$(1,\infty)$"), ("$1<x<2$", "$(1,2)$"),
    (r"$x\in[1,2)$", "$[1,2)$"), (r"$\emptyset$", "∅"), (r"$\pm 2$", "$-2, 2$"), (r"$x=\pm2$", r"$\{2,-2\}$"),
    (r"$1\pm\sqrt{2}$", r"$1+\sqrt2,1-\sqrt2$"), (r"$(\frac{1}{3}, 2)$", "$(0.333333, 2)$"),
    # matrices
    (r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$", r"$\begin{bmatrix}1&2\\3&4\end{bmatrix}$"),
    (r"$\begin{pmatrix}0.5\\1\end{pmatrix}$", r"$\begin{pmatrix}\frac12\\1\end{pmatrix}$"),
    (r"$\begin{pmatrix}1\\2\end{pmatrix}+\begin{pmatrix}1\\1\end{pmatrix}$", r"$\begin{pmatrix}2\\3\end{pmatrix}$"),
    # said in words
    ("$-2x$", "negative two x"), ("$x^2$", "x squared"), ("$2x+3$", "two x plus three"),
    (r"$\sqrt{5}$", "the square root of 5"), ("-5", "negative 5"), ("-5", "minus five"),
    ("-5", "The answer is negative 5."), ("$−3$", "-3"), (r"$\alpha+1$", "$1+α$"),
]  # fmt: skip

DIFFERENT = [
    # one sign, digit, exponent
    ("2x^2", "2x"), ("$2x^2$", "$2x$"), ("$2x^2$", "2x"), ("$2x$", "$-2x$"), ("two x", "negative two x"),
    ("5", "negative 5"), ("The answer is 5.", "The answer is minus 5."), ("$x=-2$", "$x=2$"), ("x = -2", "x = 2"),
    (r"$\frac12$", r"$\frac13$"), (r"$\frac12$", "$2$"), (r"$2\frac12$", "$1$"), ("$10^3$", "$10^{-3}$"),
    ("10^3", "10^-3"), ("$10^-3$", "$10$"), ("$10^-3$", "$10^-4$"), ("1e3", "1e4"), ("1e3", "1"), (r"$\sqrt2$", "1.4"),
    (r"$\sqrt2$", r"$\sqrt3$"), (r"$\sqrt{2}$", "$2$"), (r"$\sqrt[3]{2}$", r"$\sqrt{2}$"), (r"$\frac13$", "0.33"),
    ("1,2", "12"), ("$1,2$", "$12$"), ("$1,000$", "$1$"), ("$x^2$", "$x^3$"), ("x²", "x³"), ("$x^{10}$", "$x^{1}$"),
    ("$2^{x}$", "$2x$"), ("$x+y$", "$x-y$"), ("$x$", "$y$"), ("$a_1$", "$a_2$"), (r"$\pi$", "$3.14$"),
    (r"$2\pi$", r"$\pi$"), ("$e$", "$2.7$"), (r"$\sin x$", r"$\cos x$"), (r"$\ln x$", r"$\log_2 x$"),
    ("$3+4i$", "$3-4i$"), ("$5!$", "$5$"), ("$|x|$", "$x$"), (r"$0.\overline{3}$", "$0$"),
    (r"$0.\overline{3}$", r"$0.\overline{6}$"), (r"$\sqrt{x^2}$", "$x$"), ("9^99", "9^98"),
    ("$12345678901234567890$", "$12345678901234567891$"),
    # percentages and units
    (r"$50\%$", r"$5\%$"), (r"$12.5\%$", "$12.5$"), (r"$5\text{ cm}$", r"$5\text{ m}$"), ("5 cm", "5 m"),
    (r"$5\text{ cm}^2$", r"$5\text{ cm}^3$"), (r"$5\text{ cm}$", r"$5\text{ cm}^2$"), ("5 hours", "5 minutes"),
    ("€5", r"\$5"), ("It is 5 km.", "It is 5 miles."),
    # relations
    ("$x<3$", "$x>3$"), ("$x<3$", r"$x\le3$"), ("x < 3", "x <= 3"), ("$x<3$", "$x<4$"), ("$x=3$", r"$x\neq 3$"),
    ("$x=1$", "$y=1$"), ("$x=1$", "$x=2$"), ("$x=1,y=2$", "$x=2,y=1$"), ("$1<x<2$", r"$1\le x<2$"),
    ("$1<x<2$", "$1<x<3$"), ("$y=2x+1$", "$y=2x-1$"), ("$x^2=4$", "$x=2$"), ("$y'=2$", "$y=3$"),
    # sets, tuples, intervals
    ("$(1,2)$", "$[1,2]$"), ("$(1,2]$", "$[1,2)$"), ("$(1,2)$", "$(2,1)$"), (r"$\{1,2\}$", "$(1,2)$"),
    (r"$\{1,2,3\}$", "$(1,2,3)$"), (r"$\{1,2\}$", r"$\{1,3\}$"), (r"$\{1,2\}$", r"$\{1,2,3\}$"),
    (r"$\{1,2\}$", "$[1,2]$"), ("$1,2$", "$1$"), ("$1,2$", "$2$"), ("(1, 2)", "(1, 3)"),
    (r"$[0,1)\cup(2,3]$", r"$[0,1)\cup(2,3)$"), (r"$(-\infty,1)$", r"$(1,\infty)$"), (r"$\infty$", r"$-\infty$"),
    (r"$\pm 2$", "$2$"), (r"$x=\pm 2$", "$x=2$"), (r"\boxed{1} and \boxed{2}", r"\boxed{2}"),
    # matrices
    (r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$", r"$\begin{pmatrix}1&3\\2&4\end{pmatrix}$"),
    (r"$\begin{pmatrix}1&2\end{pmatrix}$", r"$\begin{pmatrix}1\\2\end{pmatrix}$"),
    (r"$\begin{cases}x=1\\y=2\end{cases}$", r"$\begin{cases}x=3\\y=2\end{cases}$"),
    # what the library leaves out
    ("$12_5$", "$12_7$"), ("$f'(x)$", "$f(x)$"), ("$A'$", "$A$"), ("$y''$", "$y'$"),
    (r"$\mathbb{Z}^+$", r"$\mathbb{Z}^-$"), (r"$1,2,3,\ldots$", "$3$"), (r"$\{x\mid x>0\}$", r"$\{x\mid x>1\}$"),
    (r"$7\equiv1\pmod3$", r"$7\equiv1\pmod5$"), ("$P(A|B)$", "$P(B|A)$"), ("0.0000001", "0.0000002"),
    # words
    ("5 am", "5 pm"), ("5:30", "5:31"), ("2 hours 5 minutes", "3 hours 5 minutes"), ("1 to 5", "5"),
    ("The answer is not 5", "The answer is 5"), ("at least 5", "at most 5"), ("less than 5", "5"),
    ("x is greater than 5", "x is less than 5"), ("$5$ or more", "$5$ or less"),
    (r"$\text{5 apples}$", r"$\text{6 apples}$"), (r"$\text{less than }5$", r"$\text{more than }5$"),
    (r"$\text{east}$", r"$\text{seat}$"), (r"$\text{east}$", r"$\text{west}$"), ("even", "odd"), ("A", "B"), ("", ""),
    ("7", ""), ("$$", "$$"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_equal_formulas_are_the_same_answer(gold, prediction):
    assert same_math(gold, prediction)


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_formulas_that_differ_are_not_the_same_answer(gold, prediction):
    assert not same_math(gold, prediction)
    assert not same_math(prediction, gold)


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal_formulas_are_grouped_in_either_order(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert MATH.same(x, y)
    assert MATH.same(y, x)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_formulas_that_differ_are_not_grouped(a, b):
    x, y = MATH.read(a, ""), MATH.read(b, "")
    assert x is None or y is None or not MATH.same(x, y)
    assert x is None or y is None or not MATH.same(y, x)
    assert x is None or y is None or MATH.write(x) != MATH.write(y)


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

IS_MATH = [
    "2x^2", "2x", "$2x$", "-3x", "x^2+1", "x = 5", "x=-2", "f(x) = 2x+1", "y = 2x + 1", "x < 3", "x <= 3", "x ≤ 3",
    "1 < x < 2", "√2", "sqrt(2)", "2√3", "π", "2π", "pi", "2pi", "pi/2", "3π/4", "infinity", "∞", "3+4i", "2 - 3i", "(1, 2)",
    "[0, 1)", "(0, 1]", "{1, 2, 3}", r"\frac{1}{2}", r"$\frac{1}{2}$", r"\boxed{x+1}", r"\(x+1\)", r"\[x^2\]", "x²", "x² + 1",
    "The derivative is 2x^2", "The answer is $2x$.", "The solution is x = 5", "n!", "sin(x)", "2sin(x)", "sin x", "ln(2)",
    "e^x", "2^10", "10^-3", "negative two x", "x squared", "the square root of 5", "two x plus three", "3xy", "(x+1)(x-2)",
    "2(3+4)", "3 + 4 * 2", "x ∈ [1,2)", "A ∪ B", "±2", "x = ±2", "x_1 + x_2", r"\begin{pmatrix}1\\2\end{pmatrix}", "x ≠ 3",
    "|x|", "y = mx + b", "2x + 3y = 6", "n(n+1)/2", "log_2(8)", "x/2", "1/x", "-x", "x+1", "a^2 + b^2 = c^2", "θ = π/2",
    "x = 1 or x = 2", "The area is 4π.",
]  # fmt: skip
IS_NOT_MATH = [
    "", "5", "-5", "3.14", "1,234", "50%", "$5", "$5 and $6", "It costs $5 to $10.", "Costs are $5, $6 and $7.50", "C:\\temp\\new",
    "C:\\times\\frac", "/usr/bin/x", "path/to/file.txt", "https://a.b/c?x=1&y=2", "me@example.org", "2024-01-05", "12/25/2024",
    "Jan 5, 2024", "well-known", "state-of-the-art", "v1.2.3", "1.2.3", "Paris", "A", "(B)", "B.", "yes", "The capital is Paris.",
    "I think it's a dog (or a cat).", "print(x)", "x = y;", "def f(x):\n    return x", "for i in range(3): print(i)", "a.b(c)",
    "if x <= 3:\n  pass", "```python\nx = 1\n```", "SELECT a FROM b", '{"a": 1}', "<b>bold</b>", "user_name = 5", "foo(x)",
    "const x = 5;", "x += 1", "5 cm", "5 m²", "5 m^2", "3 × 10^8", "10 km/h", "2x faster than before", "a 3D model", "4K", "24/7",
    "555-1234", "+1 555 123 4567", "3-2", "10:30", "COVID-19", "F-16", "B2B", "and/or", "he/she", "AT&T", "C++", "C#", "A-B",
    "T-shirt", "x-ray", "[1]", "(see 2)", "#5", "one-third", "twenty-one", "negative five", "H2O", "2nd", "I am fine :-) <3",
    "key: value", "Intent: refund", "item 1 = good", "5-6", "5 apples + 3 pears", "the year 1969", "vitamin C", "2 x 4", "x",
    "7 pm", "1. First\n2. Second", "- a\n- b", "A+", "£5.50",
]  # fmt: skip


@pytest.mark.parametrize("text", IS_MATH)
def test_mathematics_looks_like_mathematics(text):
    assert looks_like_math(text)


@pytest.mark.parametrize("text", IS_NOT_MATH)
def test_other_text_does_not_look_like_mathematics(text):
    assert not looks_like_math(text)


# --- bounds

HOSTILE = {
    "a megabyte of braces": "{" * 1_000_000,
    "a megabyte of braces in a formula": "$" + "{" * 1_000_000 + "$",
    "a megabyte of boxes that never close": r"\boxed{" * 140_000,
    "a megabyte of LaTeX": "$" + r"\frac{1}{2}+" * 80_000 + "1$",
    "a megabyte in a box": r"\boxed{" + "x^2+" * 250_000 + "1}",
    "a megabyte of formulas": "$x$ and " * 125_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of digits": "9" * 1_000_000,
    "a megabyte of spaces": " " * 1_000_000,
    "boxes and braces that made a pattern cubic": r"\(\boxed{" * 50 + "}" * 1000,
    "a tower": "$9^{9^{9^9}}$",
    "a tower in plain text": "9^9^9^9",
    "a tower as a program writes it": "9**9**9**9",
    "towers as ends of an interval": "$(9^{9^{9}},10^{10^{10}})$",
    "a factorial": "$(10^9)!$",
    "factorials of factorials": "$((((9!)!)!)!)!$",
    "a binomial": r"$\binom{1000000000}{500000000}$",
    "an exponent of a float": "1e999999999",
    "a root of a high index": r"$\sqrt[1000000007]{2}$",
    "a power of a small fraction": r"$x^{\frac{1}{1000000007}}+x^{1/97}$",
    "deep fractions": "$" + r"\frac{1}{1+" * 300 + "1" + "}" * 300 + "$",
    "deep roots": "$" + r"\sqrt{2+" * 38 + "x" + "}" * 38 + "$",
    "a giant polynomial": "$" + "+".join(f"{k}x^{{{k}}}y^{{{k % 7}}}" for k in range(90)) + "$",
    "an integral": r"$\int_0^1 x^x \sin(\ln(x^{3}+\tan x)) dx$",
    "a sum of towers": r"$\sum_{k=1}^{99} 10^{10^{k}}$",
    "a limit": r"$\lim_{x\to\infty} (x!)^{1/x^{x}}\sin(x^{x})$",
    "sines": "$" + "+".join(rf"\sin^{{{k}}}({k}x)\cos({k}y)" for k in range(1, 30)) + "$",
    "an inequality": r"$x^5-3x^3+\sin x<\ln(x^2+1)$",
    "a determinant": r"$\begin{vmatrix}" + r"\\".join("&".join(f"x_{i}^{j}" for j in range(8)) for i in range(8)) + r"\end{vmatrix}$",
    "an identity matrix": r"$\operatorname{eye}(100000)$",
    "signs": "$" + "-" * 1400 + "1$",
    "lone surrogates": "\ud800$x\udfff^2$",
    "control characters": "\x00\x01$\x02x$",
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


def test_hostile_text_ends_soon_in_an_event_loop():
    async def ask() -> float:
        return max(outlast(HOSTILE[name] + " ") for name in ("a tower", "a sum of towers", "an integral", "deep roots"))

    assert asyncio.run(ask()) < 1.0


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


def test_many_threads_at_once_agree_with_one():
    rows = [*SAME[:40], *DIFFERENT[:40]]
    alone = [same_math(*row) for row in rows]
    together: list[list[bool]] = []
    threads = [threading.Thread(target=lambda: together.append([same_math(*row) for row in rows])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 4


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

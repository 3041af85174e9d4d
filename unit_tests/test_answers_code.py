"""Code: which programs are the same but for names, layout and comments, and which differ in one thing."""

import inspect
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers import code
from langchain_rlfocal.answers.code import Code, CodeBlock, asks_for_code, find_code
from support_tables import table_of

WRITE = "Write a Python function that doubles x."
COMMAND = "Which command lists running containers?"
SQL = "Write a SQL query that counts users."
PY = "python"

_TABLE = table_of("code")
THE_SAME = _TABLE["same"]
DIFFERENT = _TABLE["different"]


def fenced(source, language=PY):
    return f"Here it is:\n\n```{language}\n{source}\n```\n\nIt works."


def both(a, b, query):
    x, y = Code().read(a, query), Code().read(b, query)
    assert x is not None
    assert y is not None
    assert Code().same(x, y) == Code().same(y, x) == (Code().write(x) == Code().write(y))
    return Code().same(x, y)


@pytest.mark.parametrize(("language", "a", "b"), THE_SAME)
def test_programs_that_differ_in_names_layout_and_comments_are_the_same(language, a, b):
    assert both(fenced(a, language), fenced(b, language), "")


@pytest.mark.parametrize(("language", "a", "b"), DIFFERENT)
def test_programs_that_differ_in_one_thing_differ(language, a, b):
    assert not both(fenced(a, language), fenced(b, language), "")


@pytest.mark.parametrize(
    ("query", "a", "b"),
    [
        (WRITE, fenced("def f(x): return 2 * x", "py"), "```\ndef f(x): return 2 * x\n```"),
        (WRITE, fenced("def f(x): return 2 * x", "Python3"), "~~~~ {.python}\ndef f(x): return 2 * x\n~~~~"),
        (WRITE, fenced("def f(x): return 2 * x"), "def f(x): return 2 * x"),
        (WRITE, fenced("def f(x): return 2 * x"), "Sure:\n\ndef f(n):\n    return 2 * n\n\nThat doubles n."),
        (WRITE, fenced("def f(x): return 2 * x"), "1. Write\n\n   ```python\n   def f(x):\n       return 2 * x\n   ```"),
        (WRITE, fenced("def f(x): return 2 * x"), "<think>\n```python\nx\n```\n</think>\n" + fenced("def f(x): return 2 * x")),
        (WRITE, fenced("def f(x): return 2 * x"), "<thinking>\n```python\nx\n```\n</thinking>\n" + fenced("def f(x): return 2 * x")),
        (WRITE, fenced("def f(x): return 2 * x"), "```python\ndef f(x): return 2 * x"),
        (WRITE, fenced("def f(x): return 2 * x\nf(2)"), fenced("def f(x): return 2 * x") + fenced("f(2)")),
        (WRITE, fenced("print(1)"), fenced("print(1)") + "Output:\n```text\n1\n```"),
        (COMMAND, "Use:\n```bash\ndocker ps\n```", "`docker ps`"),
        (COMMAND, "Use:\n```bash\ndocker ps\n```", "You can use `docker ps`."),
        (COMMAND, "Use:\n```bash\ndocker ps\n```", "docker ps"),
        (COMMAND, "Use:\n```bash\ndocker ps\n```", "```\n$ docker ps\n```"),
        (COMMAND, "Use: ```sh\ndocker ps\n```", "```docker ps```"),
        (COMMAND, "```console\nme@host:~$ docker ps\n```", "```sh docker ps```"),
        (SQL, "```sql\nSELECT COUNT(*) FROM users;\n```", "select count(*) from users"),
        (SQL, "```postgresql\nSELECT COUNT(*) FROM users;\n```", "```\nSELECT COUNT(*) FROM users\n```"),
        ("Give me a regex for digits.", "```regex\n^\\d+$\n```", "`^\\d+$`"),
    ],
)  # fmt: skip
def test_the_same_code_in_other_dress_is_the_same(query, a, b):
    assert both(a, b, query)


@pytest.mark.parametrize(
    ("query", "a", "b"),
    [
        (WRITE, fenced("f(x)", "python"), fenced("f(x)", "javascript")),
        (WRITE, fenced("def f(x): return 2 * x"), fenced("def f(x): return 2 * x") + fenced("f(3)")),
        (WRITE, fenced("f(2)") + fenced("g(2)"), fenced("g(2)") + fenced("f(2)")),
        (COMMAND, "```bash\ndocker images\n```", "```bash\ndocker ps\n```"),
        (COMMAND, "`docker images`", "`docker ps`"),
        ("Write a function called double.", fenced("def double(x): return x"), fenced("def twice(x): return x")),
        ("Write `double`.", fenced("def double(x): return x"), fenced("def twice(x): return x")),
        ("Write is_even(n).", fenced("def is_even(n): return n"), fenced("def even(n): return n")),
        ("Write sub(a, b).", fenced("def sub(a, b): return a - b"), fenced("def sub(b, a): return b - a")),
        ("Write it with parameters `lo` and `hi`.", fenced("def f(lo, hi): return lo"), fenced("def f(hi, lo): return hi")),
        (WRITE, fenced("def f(x): return g(x)\nprint('f')"), fenced("def h(x): return g(x)\nprint('f')")),
    ],
)  # fmt: skip
def test_what_the_query_or_other_blocks_need_counts(query, a, b):
    assert not both(a, b, query)


def test_parameters_may_have_other_names_than_the_query_writes():
    assert both(fenced("def add(a, b): return a + b"), fenced("def add(x, y): return x + y"), "Write add(a, b).")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", WRITE), ("Paris", WRITE), ("x = 5", "Solve 2x = 10."), ("Answer: 5", "What is 2 + 3?"),
        ("Name: Bob", "Who?"), ("I cannot help with that.", WRITE), ("Do not use `docker ps`.", COMMAND),
        ("Use `docker ps` or `docker container ls`.", COMMAND), ("git is a version control system.", COMMAND),
        ("`docker ps`", "What is it?"), ("```\n```", WRITE),
    ],
)  # fmt: skip
def test_a_text_without_code_is_none(text, query):
    assert Code().read(text, query) is None


def test_blocks_are_found_in_order_with_their_languages():
    text = "a\n```Python title=x\nf()\n```\n~~~\n```\n~~~\n- b\n\n  ````sh\n  ls\n    -l\n  ```\n  ````\n```{r}\nx"
    assert find_code(text) == [
        CodeBlock("python", "f()"),
        CodeBlock(None, "```"),
        CodeBlock("sh", "ls\n  -l\n```"),
        CodeBlock("r", "x"),
    ]
    assert find_code("a `b` c ``d`` e") == []
    assert len(find_code("```\na\n```\n" * 1000)) == code._MAX_BLOCKS


@pytest.mark.parametrize("query", _TABLE["asks_for_code"])
def test_queries_that_ask_for_code(query):
    assert asks_for_code(query)


@pytest.mark.parametrize("query", _TABLE["asks_for_none"])
def test_queries_that_ask_for_no_code(query):
    assert not asks_for_code(query)


HIDING = {
    "def f({0}, {1}):\n    {2} = {0}\n    return [{3} + {2} for {3} in {1}]": {(0, 3), (1, 3)},
    "def f({0}):\n    def {1}({2}):\n        return {0} - {2}\n    {3} = {1}({0})\n    return {3}": {(1, 2), (2, 3)},
    "def f({0}, *{1}, **{2}):\n    for {3} in {1}:\n        {0} -= {3}\n    return {0}, {2}": set(),
    "def f({0}):\n    return (lambda {1}, {2}: {1} - {2} - {0})({0}, {3} := 1) - {3}": {(1, 3), (2, 3)},
}
"""Programs with places for names, and the pairs of places that may have one name: the inner hides the outer unused."""
PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
NAMES = ["a", "b", "c", "d", "total", "sum", "_x", "é"]


@given(st.sampled_from(sorted(HIDING)), st.permutations(NAMES), st.permutations(NAMES))
def test_any_renaming_of_locals_is_the_same(template, names, others):
    assert both(fenced(template.format(*names)), fenced(template.format(*others)), "")


@given(st.sampled_from(sorted(HIDING)), st.permutations(NAMES), st.sampled_from(PAIRS))
def test_two_locals_that_become_one_are_the_same_only_if_one_hides_the_other_unused(template, names, pair):
    one = list(names)
    one[pair[0]] = one[pair[1]]
    assert both(fenced(template.format(*names)), fenced(template.format(*one)), "") == (pair in HIDING[template])


@given(
    st.text(alphabet="ab`~ \n\"'\\({[]})=:#>$.1éf\ud800\x00", max_size=80), st.sampled_from(["", WRITE, COMMAND, SQL])
)
def test_reading_never_raises(text, query):
    for each in (text, f"```python\n{text}", f"```sql\n{text}", f"```bash\n{text}\n```"):
        value = Code().read(each, query)
        assert value == Code().read(each, query)
        assert value is None or (len(Code().write(value)) <= 80 and Code().write(value).isprintable())
        find_code(each)


@pytest.mark.parametrize(
    "source", ["x = '\\d \\. \\w'", "x = f'\\d{y}'", "x = b'\\N'", "x = 1if y else 2", "x is 1", "'a'()"]
)
def test_python_that_the_parser_warns_about_is_read_without_a_warning(source):
    """Warnings are errors here, so that a warning of the parser would make a program no program."""
    assert both(fenced(source), fenced(source + "  # c"), "")


@pytest.mark.parametrize(
    "source",
    ["(" * 40_000, "x = " + "(" * 90 + "1" + ")" * 90, "x = " + "-" * 20_000 + "1", "x" + ".a" * 20_000, "x = 1" + " + 1" * 10_000, "x = " + "lambda: " * 5_000 + "1",
     "\n".join(" " * depth + "if a:" for depth in range(300)), "'" * 40_001, "x = " + "9" * 40_000],
)  # fmt: skip
def test_deep_or_odd_python_is_compared_by_its_text(source):
    assert both(fenced(source), fenced(source + "\n\n"), "")
    assert not both(fenced(source), fenced(source + "\ny"), "")


@pytest.mark.parametrize("piece", ["```\n", "{", "`", "a ", ">>> a\n", "'", "\\"])
def test_megabytes_are_read_in_little_time_and_by_every_character(piece):
    start = time.process_time()
    text = "```\n" + piece * (300_000 // len(piece))
    asks_for_code(text)
    assert not both(text + "x\ny", text + "z\ny", text)
    assert time.process_time() - start < 5


def test_a_caller_deep_in_the_stack_gets_an_answer():
    def dive(depth):
        return dive(depth - 1) if depth else Code().read(fenced("x = " + "[" * 50 + "1" + "]" * 50), "")

    room = sys.getrecursionlimit() - len(inspect.stack())
    assert all(dive(room - left) is not None for left in (60, 100, 150, 300))

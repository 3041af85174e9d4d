"""Code: which programs are the same but for names, layout and comments, and which differ in one thing."""

import inspect
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers import code
from langchain_rlfocal.answers.code import Code, CodeBlock, asks_for_code, find_code

WRITE = "Write a Python function that doubles x."
COMMAND = "Which command lists running containers?"
SQL = "Write a SQL query that counts users."
PY = "python"

THE_SAME = [
    # names
    (PY, "def f(x): return 2 * x", "def double(n): return 2 * n"),
    (PY, "def f(xs):\n    return [x for x in xs]", "def f(a):\n    return [b for b in a]"),
    (PY, "def f(n):\n    t = 0\n    for i in range(n):\n        t += i\n    return t",
         "def f(k):\n    s = 0\n    for j in range(k):\n        s += j\n    return s"),
    (PY, "def f(p):\n    with open(p) as h:\n        return h.read()", "def f(q):\n    with open(q) as g:\n        return g.read()"),
    (PY, "def f(x):\n    try:\n        return g(x)\n    except E as e:\n        raise V from e",
         "def f(x):\n    try:\n        return g(x)\n    except E as err:\n        raise V from err"),
    (PY, "def f(g):\n    @functools.wraps(g)\n    def w(*a, **k):\n        return g(*a, **k)\n    return w",
         "def f(h):\n    @functools.wraps(h)\n    def inner(*args, **kw):\n        return h(*args, **kw)\n    return inner"),
    (PY, "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n    return g",
         "def f():\n    m = 0\n    def h():\n        nonlocal m\n        m += 1\n    return h"),
    (PY, "def f(v):\n    match v:\n        case [a, *b]:\n            return b\n        case {'k': c, **d}:\n            return d",
         "def f(v):\n    match v:\n        case [p, *q]:\n            return q\n        case {'k': r, **s}:\n            return s"),
    (PY, "def f(x):\n    if (y := x + 1) > 2:\n        return y", "def f(a):\n    if (b := a + 1) > 2:\n        return b"),
    (PY, "class A:\n    def m(self, x):\n        return x", "class A:\n    def m(this, y):\n        return y"),
    (PY, "xs = sorted(ys, key=lambda y: y[1])", "xs = sorted(ys, key=lambda pair: pair[1])"),
    (PY, "def fact(n): return 1 if n < 2 else n * fact(n - 1)\nprint(fact(5))", "def f(k): return 1 if k < 2 else k * f(k - 1)\nprint(f(5))"),
    (PY, "def f(x):\n    import numpy as np\n    return np.sum(x)", "def f(x):\n    import numpy as n\n    return n.sum(x)"),
    (PY, "with open('a') as f:\n    for line in f:\n        print(line)", "with open('a') as h:\n    for row in h:\n        print(row)"),
    # what is no code
    (PY, "def f(x): return 2 * x", "# Doubles.\ndef f(x):\n    '''Double x.'''\n    return (2 * x)  # twice\n"),
    (PY, "def f(x): return 2 * x", "def f(x: int) -> int:\n    return 2*x"),
    (PY, "def f(x): return x", "from typing import List\n\ndef f(x: List[int]) -> List[int]:\n    return x"),
    (PY, "def f(x):\n    y = x\n    return y", "def f(x):\n    y: int = x\n    return y"),
    (PY, "import os\nimport sys\nprint(sys, os)", "import sys, os\nprint(sys, os)"),
    (PY, 's = "a" "b"', "s = 'ab'"),
    (PY, "x = 1_000", "x = 0x3E8"),
    (PY, "def f(): pass", 'def f():\n    """Nothing."""'),
    (PY, "if a:\n    b()\nelse:\n    if c:\n        d()", "if a:\n  b()\nelif c:\n  d()"),
    (PY, "import re\nre.compile('\\d')", 'import re\nre.compile("\\\\d")'),
    (PY, ">>> def f(x):\n...     return 2 * x\n>>> f(2)\n4", "def f(x):\n    return 2 * x\nf(2)"),
    (PY, "    def f(x):\n        return 2 * x", "def f(x):\n    return 2 * x"),
    (PY, "print 'a'  # old", "print 'a'"),
    # other languages
    ("javascript", "const f = (x) => x * 2; // double", "const f=(x)=>x*2"),
    ("java", "int f(int a) { return a + 1; } /* c */", "int f(int a)\n{\n    // d\n    return a+1;\n}"),
    ("c", "#include <stdio.h>\nint main(void){ return 0; }", "#include <stdio.h>\n\nint main(void) {\n  return 0; // ok\n}"),
    ("bash", "$ docker ps", "# list\ndocker  ps"),
    ("sql", "SELECT Count(*), UPPER(name) FROM users;", "select count(*), upper(name)\nfrom users -- all"),
    ("go", "func f() int {\n\treturn 1 // c\n}", "func f() int {\n    return 1\n}"),
    ("go", "func f() int {\n\treturn 1\n}", "func f() int { return 1 }"),
    ("bash", "find . -name '*.log'", 'find . -name "*.log"'),
    ("rust", "/// doc\nfn f(x: i32) -> i32 { x * 2 }", "fn f(x:i32)->i32{x*2}"),
    ("css", "a { color: red; }", "a{color:red;}"),
    ("php", "echo $x;  # c", "echo  $x;"),
    ("r", "f <- function(x) x * 2 # c", "f<-function(x) x*2"),
    ("json", '{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1.0}'),
    ("yaml", "a: 1", "\na: 1  \n"),
]  # fmt: skip

DIFFERENT = [
    (PY, "def f(x): return 2 * x", "def f(x): return x + x"),
    (PY, "def f(x): return 2 * x", "def f(x): return 3 * x"),
    (PY, "def f(a, b): return a - b", "def f(b, a): return a - b"),
    (PY, "def f(a, b): return a - b", "def f(a, b): return b - a"),
    (PY, "for i in range(n): pass", "for i in range(n + 1): pass"),
    (PY, "def f(a, b): return a < b", "def f(a, b): return a <= b"),
    (PY, "def f(a, b): return a == b", "def f(a, b): return a is b"),
    (PY, "def f(a, b): return a and b", "def f(a, b): return a or b"),
    (PY, "def f(a): return a", "def f(a): return not a"),
    (PY, "def f(a=1): return a", "def f(a=2): return a"),
    (PY, "def f(a=1): return a", "def f(a): return a"),
    (PY, "def f(a): return a", "def f(*, a): return a"),
    (PY, "def f(*, a): return a", "def f(*, b): return b"),
    (PY, "xs = sorted(ys)", "xs = sorted(ys, reverse=True)"),
    (PY, "xs = sorted(ys, reverse=True)", "xs = sorted(ys, reverse=False)"),
    (PY, "def f(a): return a.x", "def f(a): return a.y"),
    (PY, "def f(a): return g(a)", "def f(a): return h(a)"),
    (PY, "def f(a): return len(a)", "def f(a): return sum(a)"),
    (PY, "x = 1", "x = 1.0"),
    (PY, "x = 1", "x = True"),
    (PY, "x = 'a'", "x = b'a'"),
    (PY, "x = '1'", "x = 1"),
    (PY, "x = f'{y}'", "x = f'{y!r}'"),
    (PY, "def f(a):\n    return f'{a=}'", "def f(b):\n    return f'{b=}'"),
    (PY, "x = '\\d'", "x = '\\\\\\\\d'"),
    # locals that take each other's place
    (PY, "def f(a, b):\n    c = a\n    d = b\n    return c - d", "def f(a, b):\n    c = a\n    d = b\n    return d - c"),
    (PY, "def f(a):\n    b = a\n    return b", "def f(a):\n    b = a\n    return a"),
    (PY, "def f(x):\n    return [x for y in x]", "def f(x):\n    return [y for y in x]"),
    (PY, "def f(x):\n    return lambda x: x", "def f(x):\n    return lambda y: x"),
    (PY, "def f(x):\n    def g():\n        x = 1\n    g()\n    return x", "def f(x):\n    def g():\n        nonlocal x\n        x = 1\n    g()\n    return x"),
    (PY, "def f():\n    x = 1\n    return x", "def f():\n    global x\n    x = 1\n    return x"),
    (PY, "def f(sum):\n    return sum", "def f(a):\n    return sum"),
    (PY, "x = 1\ndef f(x):\n    class A:\n        x = x\n    return A", "x = 1\ndef f(y):\n    class A:\n        x = y\n    return A"),
    (PY, "def sum(a):\n    return sum(a)", "def total(a):\n    return sum(a)"),
    (PY, "def f():\n    except_ = 1\n    try:\n        g()\n    except E as e:\n        h(e)", "def f():\n    except_ = 1\n    try:\n        g()\n    except E as e:\n        h(except_)"),
    # names that others use
    (PY, "def f(x, y): return x - y\nf(x=1, y=2)", "def f(y, x): return y - x\nf(x=1, y=2)"),
    (PY, "def f(x, y): return x - y\nf(**{'x': 1, 'y': 2})", "def f(y, x): return y - x\nf(**{'x': 1, 'y': 2})"),
    (PY, "def f(x):\n    y = x\n    return locals()", "def f(x):\n    z = x\n    return locals()"),
    (PY, "def f(df, n):\n    return df.query('a > @n')", "def f(df, m):\n    return df.query('a > @n')"),
    (PY, "x = 1\nprint(x)", "y = 1\nprint(y)"),
    (PY, "print(sum)\nfor sum in a: pass", "print(max)\nfor max in a: pass"),
    (PY, "i = 1\nfor i in a: b()", "j = 1\nfor j in a: b()"),
    (PY, "for i in a: print('i')", "for j in a: print('i')"),
    (PY, "for i in a:\n    for j in b: f(i, j)", "for i in a:\n    for j in b: f(j, i)"),
    (PY, "class A: pass", "class B: pass"),
    (PY, "class A:\n    def m(self): pass", "class A:\n    def n(self): pass"),
    (PY, "class A:\n    x: int", "class A:\n    x: str"),
    (PY, "def f(): pass\ndef g(): pass", "def f(): pass\ndef h(): pass"),
    (PY, "@app.get('/')\ndef f(x: int): return x", "@app.get('/')\ndef f(x: str): return x"),
    (PY, "@tool\ndef f(x):\n    'Doubles.'\n    return x", "@tool\ndef f(x):\n    'Halves.'\n    return x"),
    (PY, "def f():\n    'a'\n    return f.__doc__", "def f():\n    'b'\n    return f.__doc__"),
    # order and layout that count
    (PY, "a()\nb()", "b()\na()"),
    (PY, "from a import x\nfrom b import x", "from b import x\nfrom a import x"),
    (PY, "for i in a:\n    b()\nc()", "for i in a:\n    b()\n    c()"),
    (PY, 'def f():\n    """\n    >>> f()\n    """\n    return 1', 'def f():\n    """\n    >>> f()\n    """\n    return 2'),
    (PY, ">>> f(1)\n1", ">>> f(2)\n1"),
    (PY, ">>> def f():\n  return 1", ">>> def f():\n  return 2"),
    (PY, "if a:\n  print 'x'\nprint 'y'", "if a:\n  print 'x'\n  print 'y'"),
    (PY, "x = 1", "x: int"),
    # other languages
    ("sql", "SELECT COUNT(*) FROM users", "SELECT SUM(id) FROM users"),
    ("sql", "SELECT a FROM t WHERE x = 'A'", "SELECT a FROM t WHERE x = 'a'"),
    ("sql", "SELECT a FROM t", "SELECT a FROM T"),
    ("sql", "SELECT 1 - -1", "SELECT 1 --1"),
    ("sql", "SELECT a FROM t WHERE x < 1", "SELECT a FROM t WHERE x <= 1"),
    ("bash", "docker ps", "docker images"),
    ("bash", "docker ps", "docker ps -a"),
    ("bash", "rm -r a", "rm -rf a"),
    ("bash", "rm -r f", "rm -rf"),
    ("bash", "ls -l", "ls -L"),
    ("bash", "echo 'a  b'", "echo 'a b'"),
    ("bash", "echo '$a'", 'echo "$a"'),
    ("bash", "a=1", "a = 1"),
    ("bash", "curl x/#a", "curl x/#b"),
    ("bash", "cat <<E\na\nE", "cat <<E\nb\nE"),
    ("bash", "a && b", "a || b"),
    ("javascript", "a\n++b", "a++\nb"),
    ("javascript", "return\nx", "return x"),
    ("javascript", "f(`a b`)", "f(`a  b`)"),
    ("javascript", "a == b", "a === b"),
    ("c", "#define A 1\nint x;", "#define A 2\nint x;"),
    ("c", "a - -b", "a--b"),
    ("cpp", "x++ + y", "x + ++y"),
    ("go", "a\nb", "a b"),
    ("ruby", "puts -x", "puts - x"),
    ("css", "a .b{}", "a.b{}"),
    ("css", "a :hover{}", "a:hover{}"),
    ("rust", "#[test]\nfn f(){}", "fn f(){}"),
    ("json", '{"a": 1}', '{"a": "1"}'),
    ("yaml", "a:\n  b: 1", "a:\nb: 1"),
    ("regex", r"^\d+$", r"^\d*$"),
    ("makefile", "a:\n\tb", "a:\n b"),
    ("brainfuck", "+ -", "+-"),
]  # fmt: skip


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


@pytest.mark.parametrize(
    "query",
    [
        WRITE, COMMAND, SQL, "How do I reverse a list in Python?", "Give me a regex that matches emails",
        "What is the bash command to list files?", "Implement quicksort", "Write a CSS rule that centers a div",
        "Show me a Python one-liner that sums a list",
        "Complete the code:\n```python\ndef f():\n```\nWrite a function that ends it.", "Reverse a string in Python.",
    ],
)  # fmt: skip
def test_queries_that_ask_for_code(query):
    assert asks_for_code(query)


@pytest.mark.parametrize(
    "query",
    [
        "What does the function f return?", "What does this print?\n```python\n# write a function that\nprint(1)\n```",
        "Write a haiku about Python", "Which officer took command of the fleet?",
        "Write a story about a class of students", "What is the country code of France?",
        "Name the function of mitochondria", "Is this function correct?", "",
    ],
)  # fmt: skip
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


@given(st.text(alphabet="rbfu\"'\\ndx{}()#\n 0", max_size=40))
def test_parsing_never_warns_and_is_never_stricter_than_python(source):
    """Warnings are errors here, so that a warning of the parser would make a program no program."""
    tree = code.parse_python(source)
    assert tree is None or tree.body


@pytest.mark.parametrize(
    "source",
    [
        "x = '\\d \\. \\w'", "x = f'\\d{y}'", "x = b'\\N'", "x = '\\400'", "x = 1if y else 2", "x = 0x1for y", "x is 1",
        "'a'()",
    ],
)  # fmt: skip
def test_python_that_the_parser_warns_about_is_read_without_a_warning(source):
    assert both(fenced(source), fenced(source + "  # c"), "")


@pytest.mark.parametrize(
    "source",
    [
        "(" * 40_000, "x = " + "(" * 90 + "1" + ")" * 90, "x = " + "-" * 20_000 + "1", "x" + ".a" * 20_000,
        "x = 1" + " + 1" * 10_000, "\n".join(" " * depth + "if a:" for depth in range(300)),
        "x = " + "lambda: " * 5_000 + "1", "'" * 40_001, '"""' * 13_333, "\\" * 40_000, "x = 0x" + "f" * 40_000,
        "x = " + "9" * 40_000, "f(" * 30 + ")" * 30,
    ],
)  # fmt: skip
def test_deep_or_odd_python_is_compared_by_its_text(source):
    start = time.perf_counter()
    assert both(fenced(source), fenced(source + "\n\n"), "")
    assert not both(fenced(source), fenced(source + "\ny"), "")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("piece", ["```\n", "{", "`", "~~~", "a ", "\n", "```a\n", ">>> a\n", "$ a\n", "'", "\\"])
def test_megabytes_are_read_in_little_time_and_by_every_character(piece):
    start = time.perf_counter()
    text = "```\n" + piece * (300_000 // len(piece))
    asks_for_code(text)
    find_code(text)
    assert not both(text + "x\ny", text + "z\ny", text)
    assert time.perf_counter() - start < 5


def test_a_caller_deep_in_the_stack_gets_an_answer():
    def dive(depth):
        return dive(depth - 1) if depth else Code().read(fenced("x = " + "[" * 50 + "1" + "]" * 50), "")

    room = sys.getrecursionlimit() - len(inspect.stack())
    assert all(dive(room - left) is not None for left in (60, 100, 150, 300))


def test_threads_read_the_same():
    start = threading.Barrier(8)
    read = []

    def work():
        start.wait()
        read.append([Code().read(fenced(a, language), "") for language, a, _ in THE_SAME])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 8
    assert all(each == read[0] for each in read)

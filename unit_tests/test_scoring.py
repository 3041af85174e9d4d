"""Scorers: what a reply is worth, by rules, tests, functions and evaluators; what cannot be said is unscored, not wrong."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring import Reply, Score, open_scorer, scorer_names
from langchain_rlfocal.scoring import rules as rules_module
from langchain_rlfocal.scoring.unit_tests import UnitTestScorer, _confinement, blocks_of


def question(gold=None, **more):
    return Question(**{"task": "t", "query_id": "1", "query": "How many?", "gold": gold, **more})


async def worth(spec, gold, text, *calls, **more):
    return await open_scorer(spec).score(question(gold, **more), Reply(text=text, tool_calls=calls))


# ---- rules


@pytest.mark.parametrize(
    ("spec", "gold", "text", "value"),
    [
        (None, "4", "The answer is 4.", 1),
        (None, "4", "The answer is 5.", 0),
        ("auto", "4", "", 0),
        ("number", "4", "It is four.", 1),
        ("exact", "4", "It is four.", 0),
        ("json_subset", '{"a": 1}', 'Sure: {"a": 1.0, "b": 2}', 1),
        ("json_subset", '{"a": {"b": [1, {"c": null}]}}', '{"a": {"b": [1, {"c": null, "d": 1}], "e": 2}}', 1),
        ("json_subset", '{"a": 1}', '{"a": true}', 0),
        ("json_subset", '{"a": 1}', '{"a": "1"}', 0),
        ("json_subset", '{"a": [1]}', '{"a": [1, 2]}', 0),
        ("json_subset", '{"a": null}', "{}", 0),
        ("json_subset", '{"a": 1}', "no JSON here", 0),
        ("json_subset", '{"a": 0.3}', '{"a": 0.30000000000000004}', 1),
        ("json_subset", '{"a": 0.3}', '{"a": 0.300001}', 0),
        ("json_subset", '{"a": 10000000000001}', '{"a": 10000000000002}', 0),  # ids, which no float says
        ("json_subset", '{"a": 0}', '{"a": 1e-12}', 0),
        ("json_subset", f'{{"a": 1{"0" * 400}}}', '{"a": 1.5}', 0),
        ("json_subset", '{"caf\u00e9": "\u00e9"}', '{"cafe\u0301": "e\u0301"}', 1),
        ("json_subset", '{"caf\u00e9": "\u00e9"}', '{"cafe": "e"}', 0),
        ("contains", "Canberra", "It is  CANBERRA, of course.", 1),
        ("contains", '["red", "blue sky"]', "Blue\nsky, red sun", 1),
        ("contains", '["red", "blue sky"]', "blue and sky, red sun", 0),
        ("contains", "caf\u00e9", "A CAFE\u0301.", 1),
        ("contains", "caf\u00e9", "A cafe.", 0),
        ("contains", "cafe", "A cafe\u0301.", 0),
        ("contains", "1", "The answer is 1.", 1),
        ("contains", "1", "The answer is **1**, or 1, 2.", 1),
        ("contains", "1", "The answer is 21.", 0),
        ("contains", "1", "The answer is 1.5.", 0),
        ("contains", "5", "It costs 1,5 million.", 0),
        ("contains", "no", "I say _no_!", 1),
        ("contains", "no", "I do not know", 0),
        ("contains", "C++", "I use C++11.", 1),
        ("contains", "\u6771\u4eac", "\u79c1\u306f\u6771\u4eac\u306b\u3044\u307e\u3059", 1),
        ("contains", "\uc11c\uc6b8", "\uc11c\uc6b8\uc785\ub2c8\ub2e4", 1),
        ("contains", "\u0930\u093e\u092e", "\u0930\u093e\u092e \u0939\u0948", 1),
        ("contains", "\u0930\u093e\u092e", "\u0930\u093e\u092e\u093e", 0),  # a vowel more, which is a mark
        ("contains", '["a", 5]', "a 5", 1),
        ("contains", '["a", 5]', "a 15", 0),
        ("contains", "[1.50]", "It is 1.50.", 1),
        ("regex", r"(?i)^yes\b", "Yes, it is.", 1),
        ("regex", r"^yes\b", "Yes, it is.", 0),
    ],
)
async def test_a_rule_tells_right_from_wrong(spec, gold, text, value):
    assert (await worth(spec, gold, text)).value == value


CALLS = '[{"name": "f", "args": {"x": 1}}, {"name": "g", "args": {}}]'
F, G = {"name": "f", "args": {"x": 1.0}}, {"name": "g", "args": {}}


@pytest.mark.parametrize(
    ("spec", "gold", "text", "calls", "value"),
    [
        ("tool_calls", CALLS, None, (G, F), 1),
        ("tool_calls_in_order", CALLS, None, (G, F), 0),
        ("tool_calls_in_order", CALLS, None, (F, G), 1),
        ("tool_calls", CALLS, None, (F,), 0),
        ("tool_calls", CALLS, None, (F, G, G), 0),
        ("tool_calls", CALLS, None, ({**F, "args": {"x": 2}}, G), 0),
        ("tool_calls", CALLS, None, ({**F, "args": {"x": "1"}}, G), 0),
        ("tool_calls", CALLS, CALLS, (), 1),
        ("tool_calls", CALLS, "I would call f and g.", (), 0),
        ("tool_calls", CALLS, f"I will not call {CALLS} because it is late.", (), 0),
        ("tool_calls", CALLS, f"```json\n{CALLS}\n```", (), 1),
        ("tool_calls", CALLS, f"<think>Call f? {CALLS[:9]}</think>\n{CALLS}", (), 1),
        ("tool_calls", CALLS, f"<think>{CALLS}</think>\nNo.", (), 0),
        ("tool_calls", CALLS, f"<tool_call>{json.dumps(F)}</tool_call>\n<tool_call>{json.dumps(G)}</tool_call>", (), 1),
        ("tool_calls", CALLS, f"<tool_call>{json.dumps(F)}</tool_call>", (), 0),
        ("tool_calls", "[]", f"I will not call {CALLS} because it is late.", (), 1),
        ("tool_calls", "[]", "No call is needed.", (), 1),
        ("tool_calls", "[]", None, (G,), 0),
        ("tool_calls", '[{"type": "function", "function": {"name": "f", "arguments": "{\\"x\\": 1}"}}]', None, (F,), 1),
        ("json_subset", '{"x": 1}', "", (F,), 1),
    ],
)
async def test_tool_calls_are_compared_by_name_and_arguments(spec, gold, text, calls, value):
    assert (await worth(spec, gold, text, *calls)).value == value


@pytest.mark.parametrize(
    ("spec", "gold", "reason"),
    [
        *(
            (spec, None, "no reference")
            for spec in ("auto", "json_subset", "tool_calls", "contains", "regex", "unit_tests")
        ),
        ("json_subset", "{", "must be JSON"),
        ("tool_calls", "call f", "tool calls"),
        ("regex", "(", "no regular expression"),
        ("unit_tests", "assert (", "no Python"),
        ("contains", " ", "no reference"),
        ("contains", "[]", "texts and numbers"),
        ("contains", '["a", null]', "texts and numbers"),
    ],
)
async def test_what_cannot_be_scored_is_unscored_with_the_reason(spec, gold, reason):
    score = await worth(spec, gold, "4")
    assert score.value is None
    assert reason in score.reason


@pytest.mark.parametrize("spec", ["auto", "json_subset", "tool_calls", "contains", "regex", "unit_tests"])
async def test_no_reply_at_all_is_worth_nothing(spec):
    assert await worth(spec, "[]", None) == Score(value=0.0, reason="no reply")


async def test_a_catastrophic_expression_leaves_its_reply_unscored_in_time(monkeypatch):
    """2^40 ways to fail; the hard negative: a plain expression on the same text is done within the same limit."""
    monkeypatch.setattr(rules_module, "REGEX_S", 0.1)
    text = "a" * 40 + "b"
    begun = time.process_time()
    score = await worth("regex", r"^(?:a|aa|a?a)+$", text)
    assert time.process_time() - begun < 5
    assert score.value is None
    assert "took more than 0.1 s" in score.reason
    assert (await worth("regex", r"^a+b$", text)).value == 1


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "1"])
def test_a_score_is_in_zero_to_one(value):
    with pytest.raises(InputError, match="in \\[0, 1\\]"):
        Score(value=value)


def test_an_unknown_scorer_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"json_subset, tool_calls, .*number.*got 'jsn'"):
        open_scorer("jsn")
    for spec in ("judge", "pairwise"):
        with pytest.raises(InputError, match="--judge"):
            open_scorer(spec)
    assert {"auto", "unit_tests", "judge", "pairwise", "math"} <= set(scorer_names())


# ---- unit tests

TESTS = "assert double(2) == 4\n\ndef test_zero():\n    assert double(0) == 0\n"


@pytest.mark.parametrize(
    ("reply", "value", "said"),
    [
        ("Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone.", 1, None),
        ("def double(x):\n    return 2 * x", 1, None),
        ("```python\ndef double(x):\n    return x * x\n```", 1, None),
        ("```python\ndef double(x):\n    return 2 * x or 1\n```", 0, "AssertionError"),
        ("```python\ndef double(x:\n```", 0, "SyntaxError"),
        ("I cannot write code.", 0, "SyntaxError"),
        ("```python\nimport sys\nsys.exit(0)\n```", 0, "left before"),
        ("```python\nimport os\nos._exit(0)\n```", 0, "left before"),
        ("```python\nraise KeyboardInterrupt\n```", 0, "KeyboardInterrupt"),
        ("```python\nprint('x' * 10**9)\n```", 0, None),
        ("```python\nx = bytearray(4 * 2**30)\n```", 0, "MemoryError"),
    ],
)
async def test_code_is_worth_what_its_tests_say(reply, value, said):
    score = await worth("unit_tests", TESTS, reply)
    assert score.value == value
    assert said is None or said in score.reason


async def test_code_that_never_ends_is_killed_with_all_that_it_started(tmp_path):
    """It holds a pipe open, as a child of its does in a session of its own; the pipe's end says that neither is left."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = f"""
import os, time
held = os.open({str(pipe)!r}, os.O_WRONLY)
os.write(held, b"x")
time.sleep(600)
"""
    code = f"""
import os, subprocess, sys
held = os.open({str(pipe)!r}, os.O_WRONLY)
subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
while True:
    pass
"""
    task = asyncio.ensure_future(UnitTestScorer(timeout_s=4).score(question("assert True"), Reply(text=code)))
    reader = await asyncio.to_thread(os.open, pipe, os.O_RDONLY)
    assert await asyncio.to_thread(os.read, reader, 1) == b"x"
    score = await task
    assert score.value == 0
    assert "took more than 4 s" in score.reason
    if _confinement():
        assert await asyncio.wait_for(asyncio.to_thread(os.read, reader, 1), 60) == b""
    os.close(reader)


def _network():
    return os.readlink("/proc/self/ns/net")  # noqa: PTH115  # as the code that is run has it


async def test_code_has_no_network_where_the_system_can_take_it_away():
    if not _confinement():
        pytest.skip("unshare is not allowed here")
    tests = f"import os\nassert os.readlink('/proc/self/ns/net') != {_network()!r}"
    assert (await worth("unit_tests", tests, "x = 1")).value == 1


async def test_code_sees_no_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    assert (await worth("unit_tests", "import os\nassert 'OPENAI_API_KEY' not in os.environ", "x = 1")).value == 1


async def test_a_scoring_that_is_cancelled_leaves_no_process(tmp_path):
    """The code and a child of its hold a pipe open: its reader meets them there, and its end says that both are gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"""
import os, time
held = os.open({str(pipe)!r}, os.O_WRONLY)
if os.fork():
    os.write(held, b"x")
time.sleep(600)
"""
    task = asyncio.ensure_future(UnitTestScorer(timeout_s=600).score(question("assert True"), Reply(text=code)))
    reader = await asyncio.to_thread(os.open, pipe, os.O_RDONLY)
    assert await asyncio.to_thread(os.read, reader, 1) == b"x"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reader, 1), 60) == b""
    os.close(reader)


WRONG = "def add(a, b):\n    return a - b\n"


@pytest.mark.parametrize(
    "trick",
    [
        "def test_add():\n    pass",
        "test_add = None",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def add(a, b):\n    raise SystemExit(0)",
        "import builtins\nbuiltins.callable = lambda it: False",
        "import builtins\nbuiltins.abs = lambda it: 0\nbuiltins.dict = lambda it: {}",
        "import builtins\nbuiltins.AssertionError = SystemExit",
        "import math\nmath.isclose = lambda *given, **named: True",
        "import unittest\nunittest.TestCase.assertEqual = lambda *given: None",
        "import __main__, os\nfor held in list(vars(__main__).values()):\n    if isinstance(held, str):\n        os.write(1, held.encode())",
        "import sys, os\nos.write(1, sys.stdin.buffer.read())\nos._exit(0)",
        "import atexit, os\natexit.register(os._exit, 0)",
    ],
)
@pytest.mark.parametrize(
    "tests",
    [
        "def test_add():\n    assert add(1, 2) == 3",
        "assert abs(add(1, 2) - 3) < 1e-9",
        "import math\ndef test_add():\n    assert math.isclose(add(1, 2), 3)",
        "import unittest\nunittest.TestCase().assertEqual(add(1, 2), 3)",
    ],
)
async def test_wrong_code_passes_by_no_trick(trick, tests):
    assert (await worth("unit_tests", tests, f"{WRONG}{trick}")).value == 0


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("def test_prime(n):\n    return n == 2", "assert test_prime(2) and not test_prime(4)"),
        (
            "def add(a, b):\n    return a + b\ndef test_add():\n    assert False",
            "def test_add():\n    assert add(1, 2) == 3",
        ),
        ("import xml.dom.minidom\ndef f():\n    return xml.dom.minidom.Node", "import xml\nassert f()"),
        ("def f():\n    return input()", "try:\n    f()\nexcept EOFError:\n    pass"),
        ("def f(x):\n    return g(x)", "def g(x):\n    return x\nassert f(1) == 1"),
    ],
)
async def test_right_code_may_be_named_as_tests_are(code, tests):
    assert (await worth("unit_tests", tests, code)).value == 1


async def test_many_at_once_take_turns_and_each_has_its_own_time(monkeypatch):
    """One processor: the second begins when the first has ended, and of the time of none does waiting take any."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    scorer, running, most = UnitTestScorer(), 0, 0
    begin = scorer._run

    async def counted(*given):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await begin(*given)
        finally:
            running -= 1

    monkeypatch.setattr(scorer, "_run", counted)
    scores = await asyncio.gather(*(scorer.score(question("assert x"), Reply(text="x = 1")) for _ in range(3)))
    assert [score.value for score in scores] == [1, 1, 1]
    assert most == 1


async def test_code_that_takes_too_much_of_a_processor_is_wrong_and_told_so():
    score = await UnitTestScorer(cpu_s=1).score(question("assert True"), Reply(text="while True: pass"))
    assert score.value == 0
    assert "1 s of processor time" in score.reason


def test_the_code_of_a_reply_is_what_its_fences_hold():
    assert blocks_of("a = 1") == ["a = 1"]
    assert blocks_of("```python\na = 1\n```\nand\n```\nb = 2\n```") == ["a = 1\n", "b = 2\n"]
    assert blocks_of("```json\n{}\n```\n") == ["```json\n{}\n```\n"]
    assert blocks_of("```py\na = 1") == ["a = 1"]
    assert blocks_of("1. So:\n   ```python3.11\n   if a:\n       b\n   ```\n") == ["if a:\n    b\n"]
    assert blocks_of("~~~Python title=x\na = '```'\n~~~\n") == ["a = '```'\n"]
    assert blocks_of("````python\na = 1\n```\n````") == ["a = 1\n```\n"]
    assert blocks_of("```python\na = 1```") == ["a = 1"]


ADD = "def add(a, b):\n    return a {} b\n"
RIGHT, WRONG = (f"```python\n{ADD.format(sign)}```\n" for sign in "+-")
ASSERTS = "assert add(1, 2) == 3"


@pytest.mark.parametrize(
    "tests",
    [
        ASSERTS,
        f"for _ in range(2):\n    {ASSERTS}",
        "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)",
        f"async def test_add():\n    {ASSERTS}",
        "import unittest\nclass Sums(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n",
        "from unittest import TestCase\nclass Sums(TestCase):\n    def test_add(self):\n        assert add(1, 2) == 3\n",
        f"class TestSums:\n    def test_add(self):\n        {ASSERTS}",
    ],
)
async def test_however_tests_are_written_they_tell_right_from_wrong(tests):
    assert (await worth("unit_tests", tests, RIGHT)).value == 1
    score = await worth("unit_tests", tests, WRONG)
    assert score.value == 0
    assert "AssertionError" in score.reason


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("def check(candidate):\n    assert candidate(1, 2) == 3", "test nothing"),
        (f"if __name__ == '__main__':\n    {ASSERTS}", "test nothing"),
        ("x = add(1, 2)", "test nothing"),
        (f"import unittest\nclass Sums(unittest.TestCase):\n    def add(self):\n        {ASSERTS}", "test nothing"),
        (f"from solution import add\n{ASSERTS}", "`solution`"),
        (
            "import pytest\n@pytest.mark.parametrize('a', [1])\ndef test_add(a):\n    assert add(a, 2) == 3",
            "`test_add` with",
        ),
    ],
)
async def test_tests_that_cannot_tell_leave_right_and_wrong_unscored(tests, reason):
    for text in (RIGHT, WRONG):
        score = await worth("unit_tests", tests, text)
        assert score.value is None
        assert reason in score.reason


@pytest.mark.parametrize(
    ("around", "value"),
    [
        ("First:\n```python\ndef add(a, b)\n  retrun\n```\nOops, corrected:\n{code}", 1),
        ("First:\n" + WRONG + "Corrected:\n{code}", 1),
        ("{code}Corrected:\n" + WRONG, 0),
        ("{code}Usage:\n```python\nprint(add(int(input()), 2))\n```", 1),
        ("{code}Run:\n```bash\npip install x\n```", 1),
        ("```python\nimport pickle\nclass A:\n    pass\npickle.loads(pickle.dumps(A()))\n```\n{code}", 1),
    ],
)
async def test_what_stands_around_right_code_does_not_make_it_wrong(around, value):
    assert (await worth("unit_tests", ASSERTS, around.format(code=RIGHT))).value == value
    assert (await worth("unit_tests", ASSERTS, around.format(code=WRONG))).value == 0


@pytest.mark.parametrize(
    "cheat",
    [
        "m = sys.modules['__main__']\nos.write(m.verdict, m.token.encode())\nos._exit(0)",
        "for fd in range(3, 64):\n    try:\n        os.write(fd, os.read(fd, 10**6)[-32:])\n    except OSError:\n        pass\nos._exit(0)",
        "for fd in range(3, 64):\n    try:\n        os.write(fd, b'x' * 16)\n    except OSError:\n        pass\nos._exit(0)",
        "sys.modules['__main__'].main = sys.modules['__main__'].run = print",
    ],
)
async def test_what_says_that_the_tests_passed_is_out_of_the_codes_reach(cheat):
    """The runner's names and descriptors; right code beside what only looks at them passes."""
    assert (await worth("unit_tests", ASSERTS, f"import os, sys\n{ADD.format('-')}\n{cheat}")).value == 0
    looks = "import os, sys\nvars(sys.modules['__main__'])\nos.listdir('/proc/self/fd')\n"
    assert (await worth("unit_tests", ASSERTS, looks + ADD.format("+"))).value == 1


# ---- functions and evaluators

MODULE = """
from langchain_rlfocal.scoring import Score

def is_short(reply):
    return len(reply) < 5

async def is_same(reply, reference, question, tool_calls):
    assert question.query == "How many?" and tool_calls == []
    return {"score": float(reply == reference), "comment": "compared"}

def open_one(reply):
    return None

def raises(reply):
    raise KeyError("[red]no\\nsuch thing key=planted77")

def too_much(reply):
    return 7

def nonsense(reply):
    return "good"

def two(reply):
    return [{"key": "a", "score": 1}, {"key": "b", "score": 0}]

def evaluator(inputs, outputs, reference_outputs):
    return {"key": "same", "score": outputs == reference_outputs}

def of_run(run, example):
    return {"key": "same", "score": run.outputs["output"] == example.outputs["output"]}

def strange(prediction, truth):
    return 1

def nothing():
    return 1

class Own:
    name = "own"
    async def score(self, question, reply):
        return Score(value=0.5, cost_usd=0.25)

own = Own()
number = 7
"""


@pytest.fixture
def module(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    Path("my_scorers.py").write_text(MODULE, encoding="utf-8")


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "text", "value", "reason"),
    [
        ("is_short", "4", 1, None),
        ("is_short", "four and more", 0, None),
        ("is_same", "4", 1, "compared"),
        ("is_same", "5", 0, "compared"),
        ("open_one", "4", None, "left open"),
        ("raises", "4", None, "KeyError"),
        ("too_much", "4", None, "in [0, 1]"),
        ("nonsense", "4", None, "'good'"),
        ("two", "4", None, "one result, got 2"),
        ("evaluator", "4", 1, None),
        ("evaluator", "5", 0, None),
        ("of_run", "4", 1, None),
        ("of_run", "5", 0, None),
        ("own", "4", 0.5, None),
    ],
)
async def test_a_function_of_the_users_scores(name, text, value, reason):
    score = await worth(f"my_scorers:{name}", "4", text)
    assert score.value == value
    assert reason is None or reason in score.reason
    assert "planted77" not in (score.reason or "")
    assert len((score.reason or "").splitlines()) <= 1


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(("name", "usd"), [("is_short", 0.0), ("own", 0.25), ("evaluator", None), ("of_run", None)])
async def test_what_an_evaluator_took_is_unknown_and_a_function_says_it_itself(name, usd):
    assert (await worth(f"my_scorers:{name}", "4", "4")).cost_usd == usd


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("my_scorers:strange", "reply, reference, question, tool_calls"),
        ("my_scorers:nothing", "parameters among"),
        ("my_scorers:Own", "got a class"),
        ("my_scorers:number", "got int"),
        ("my_scorers:missing", "can be imported"),
        ("my_nowhere:f", "can be imported"),
    ],
)
def test_what_is_no_scorer_is_refused_before_anybody_is_asked(spec, named):
    with pytest.raises(InputError, match=named):
        open_scorer(spec)


def test_a_library_leaves_the_path_of_imports_as_it_is(folder):
    Path("my_elsewhere.py").write_text("def f(reply):\n    return 1\n", encoding="utf-8")
    before = list(sys.path)
    with pytest.raises(InputError, match="can be imported"):
        open_scorer("my_elsewhere:f")
    assert sys.path == before


EVALUATORS = """
from langsmith.evaluation import run_evaluator
from openevals.exact import exact_match
from openevals.json import create_json_match_evaluator

same = exact_match
fields = create_json_match_evaluator(aggregator="all", exclude_keys=["note"])

@run_evaluator
def run_same(run, example):
    return {"key": "same", "score": run.outputs["output"] == example.outputs["output"]}
"""


@pytest.fixture
def evaluators(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    pytest.importorskip("openevals", reason="openevals is optional")
    Path("my_evaluators.py").write_text(EVALUATORS, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "gold", "right", "wrong"),
    [
        ("same", "4", "4", "5"),
        ("fields", '{"a": 1}', '{"a": 1, "note": "x"}', '{"a": 2, "note": "x"}'),
        ("run_same", "4", "4", "5"),
    ],
)
@pytest.mark.usefixtures("evaluators")
async def test_evaluators_of_langsmith_and_openevals_score(name, gold, right, wrong):
    assert (await worth(f"my_evaluators:{name}", gold, right)).value == 1
    assert (await worth(f"my_evaluators:{name}", gold, wrong)).value == 0

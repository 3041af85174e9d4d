"""Regular expressions: none that reads what users, members or providers write takes more than linear time.

By structure, of every expression that the package's source holds, and by the time of whole functions on texts made to hurt.
The steps of `canonical` are counted in `test_answers_laws`.
"""

import ast
import itertools
import re
import time
from pathlib import Path

import pytest

import langchain_rlfocal
from langchain_rlfocal.answers import label_answers
from langchain_rlfocal.answers.dates import find_dates
from langchain_rlfocal.answers.quantities import find_quantities
from langchain_rlfocal.answers.schemas import Schema
from langchain_rlfocal.answers.values import clean
from langchain_rlfocal.chat_models.metadata import text_pieces
from langchain_rlfocal.features import features_of
from langchain_rlfocal.redaction import masked, printable, secrets_of, without_secrets

FOLDER = Path(langchain_rlfocal.__path__[0])
READERS = {"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"}

WIDE = {
    # Ends with its one repetition without a bound, which nothing can follow and fail.
    "redaction.py _NAMED_SECRET": "ends with it",
    "redaction.py _CREDENTIALS": "ends with it",
    "redaction.py _BARE_KEY": "ends with it",
    "chat_models/metadata.py text_pieces": "where the first alternative fails, the second takes all that it tried",
    # Used by `fullmatch` alone, and of parts that exclude each other.
    "execution/retries.py _NUMBER": "tried once",
    "execution/endings.py _REPEATED": "of a word that is cut to 80 characters",
    "log/records.py _SCRUBBED_QUESTION": "tried once, and of one repetition",
    "outcomes/tables.py _SAMPLE_ID": "tried once, and what follows its repetition is at most ten characters",
    "server/config.py ServerConfig": "tried once",
    "server/bodies.py _TO_NEXT": "its repetitions give nothing back, and the next search begins where it ended",
    # Begins at the beginning of a line, and its repetitions exclude each other.
    "scoring/unit_tests.py _FENCE": "tried once a line",
}
"""Expressions whose width has no bound, and why they are linear."""

MADE: dict[str, str] = {"scoring/unit_tests.py blocks_of": "a fence's own marks, once a line"}
"""Expressions that are no literal."""


def _expressions():
    """Yield place, expression and flags of each use of `re` with an expression, but where it is looked at elsewhere."""
    for path in sorted(FOLDER.rglob("*.py")):
        name = path.relative_to(FOLDER).as_posix()
        # Doubles; what has tests of its own; and what reads files that its user names, once and not while answering.
        if name.startswith(("testing/", "answers/", "importing/", "pool_files.py", "reporting/")):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for holder in tree.body:
            target = holder.targets[0] if isinstance(holder, ast.Assign) else getattr(holder, "target", None)
            label = getattr(target, "id", getattr(holder, "name", "?"))
            for node in ast.walk(holder):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and ast.unparse(called.value) == "re" and called.attr in READERS:
                    flags = [ast.unparse(one) for one in [*node.args, *(word.value for word in node.keywords)]]
                    value = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                    yield f"{name} {label}", value, [one for one in flags if one.startswith("re.")]


def _repeats(parsed, above=0):
    """Yield how many repetitions that can vary stand around each; depends on the private parse tree of `re`."""
    for operator, argument in parsed:
        name, depth = str(operator), above
        if name.endswith("_REPEAT"):
            low, high, inner = argument
            if high > max(low, 1) and not name.startswith("POSSESSIVE"):  # gives nothing back to be tried again
                yield above
                depth += 1
            yield from _repeats(inner, depth)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from _repeats(branch, above)
        elif name in {"SUBPATTERN", "ASSERT", "ASSERT_NOT"}:
            yield from _repeats(argument[-1], above)


EXPRESSIONS = list(_expressions())


def test_expressions_without_a_bound_are_those_that_were_looked_at():
    """Each of the others has a bounded width: it does a bounded amount at each place, so that a search is linear."""
    wide, made = set(), set()
    for place, value, flags in EXPRESSIONS:
        if value is None:
            made.add(place)
            continue
        bits = 0
        for flag in " | ".join(flags).split(" | ") if flags else ():
            bits |= getattr(re, flag.removeprefix("re."))
        parsed = re._parser.parse(value, bits)
        assert not any(_repeats(parsed)), place
        one_class = len(parsed) == 1 and str(parsed[0][0]) == "MAX_REPEAT"
        if parsed.getwidth()[1] >= 3_000 and not one_class:
            wide.add(place)
    assert (wide, made) == (set(WIDE), set(MADE))


SECRETS = frozenset({"a" * 40, "key=" * 10})
TEXT_SCHEMA = Schema({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}})
COUNT = itertools.count()  # what was read before is remembered
FUNCTIONS = {
    "clean": clean,
    "masked": lambda text: masked(text, SECRETS),
    "printable": printable,
    "secrets_of": lambda text: secrets_of({"api_key": text, "url": "https://" + text}),
    "without_secrets": lambda text: without_secrets(ValueError(text), SECRETS),
    "text_pieces": lambda text: list(text_pieces(text)),
    "features_of": lambda text: features_of([text], [None]),
    "label_answers": lambda text: label_answers([text, text + "b"], "auto", query=f"{text}{next(COUNT)}"),
    "find_dates": find_dates,
    "find_quantities": find_quantities,
    "number": lambda text: label_answers([text], "number", query="How many?"),
    "option": lambda text: label_answers([text], "option", query="Which? (A) red (B) blue"),
    "schema": lambda text: TEXT_SCHEMA.canonical({"a": text, "b": text, text: 1}),
}
UNITS = [
    "a", " ", "\n", "\t \n", ".", ". ", "?\n", "1", "1 ", "1,", "1.", "-", "key", "key:", "key = ", 'key"', "api_", "sk-", "sk-a",
    "Bearer ", "Bearer a", "authorization: ", "@", ":@", "://", "é", "\u0301", "\\", "'", '"', "(A) ", "A) ", "{", "[", "$", "*", "e1",
    "is ", "yes or ", "answer is ", r"\boxed{", r"\frac{1", "minus ", "twenty ", "data:", "/",
    "\u0f73", "\u0f81\u0f75", "\uff9e\u0301",
]  # fmt: skip


def _seconds(function, text):
    begun = time.process_time()
    function(text)
    return time.process_time() - begun


@pytest.mark.parametrize("name", FUNCTIONS)
def test_four_times_the_text_takes_less_than_eleven_times_as_long(name):
    """Quadratic would be sixteen. Texts that are quick in any case are not compared: they show the machine's noise."""
    function = FUNCTIONS[name]
    for unit in UNITS:
        short, long = ((unit * length)[:length] for length in (1_000, 4_000))
        took_s = _seconds(function, long)
        if took_s > 0.005 and took_s > 11 * _seconds(function, short):
            # Again: the shortest of several runs is the one that the rest of the machine disturbed least.
            shortest_s = [min(_seconds(function, text) for _ in range(3)) for text in (short, long)]
            assert shortest_s[1] < 11 * shortest_s[0], unit

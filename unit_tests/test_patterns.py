"""Patterns of callers' schemas are held against members' texts in time linear in the text."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers.patterns import matches
from langchain_rlfocal.answers.schemas import Schema


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        (r"^\d{3}-\d{4}$", "555-1234", True),
        ("(?=b)b", "abc", True),
        ("(?=c)b", "abc", False),
        (r"(a)\1", "xaa", True),
        ("[", "[", False),
        ("", "", True),
    ],
)
def test_a_pattern_is_found_anywhere_in_a_text(pattern, text, found):
    """Those with look-around and references back are Python's; what is no pattern is found nowhere."""
    assert matches(pattern, text) is found


@given(st.text("ab\n-1", max_size=12), st.sampled_from(["a+b", "^[a-b]*$", "(a|b){2,3}", "1?-", r"\bab\b", "^-|1"]))
def test_both_engines_find_the_same_but_for_a_last_line_break(text, pattern):
    """To Python `$` also stands before a line break at the end, to schemas it does not."""
    assert matches(pattern, text) == bool(re.search(pattern.replace("$", r"\Z"), text))


def test_a_pattern_that_python_takes_for_ever_with_is_refused_at_once():
    """Python takes seconds for 24 letters, twice as long for each more."""
    schema = Schema({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    begun_s = time.perf_counter()
    assert schema.fault({"a": "a" * 5000 + "!"}) is not None
    assert schema.fault({"a": "a" * 5000}) is None
    assert time.perf_counter() - begun_s < 5


def test_no_keyword_holds_names_against_patterns_by_pythons_engine():
    """Names that nothing evaluates are refused, by a pattern that takes Python seconds for 24 letters."""
    rules = {"allOf": [{"patternProperties": {"^(a+)+$": {}}}], "unevaluatedProperties": False}
    begun_s = time.perf_counter()
    assert Schema(rules).fault({"a" * 5000: 1}) is None
    assert "was unexpected" in Schema(rules).fault({"a" * 40 + "!": 1})
    assert time.perf_counter() - begun_s < 5


def test_names_are_held_against_patterns_too():
    schema = Schema(
        {"type": "object", "patternProperties": {"^(n+)+$": {"type": "integer"}}, "additionalProperties": False}
    )
    assert schema.fault({"n" * 50: 1}) is None
    assert schema.fault({"n" * 50: "one"}) is not None
    assert schema.fault({"n" * 50 + "!": 1}) is not None

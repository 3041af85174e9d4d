"""What a schema says nothing of: by hand, and as jsonschema has it on schemas that Hypothesis makes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry

from langchain_rlfocal.answers.schemas import Schema

NAMES = st.sampled_from("abc")
ITEMS = st.sampled_from([0, 5, "x"])
LEAVES = st.sampled_from([True, False, {"type": "integer"}, {"type": "string"}, {"minimum": 3}, {"$ref": "#/$defs/d"}])


def _accepts(rules, value):
    """Whether the value as it is keeps to the rules, as the package has it."""
    return Schema(rules)._root.broken(value, rules) is None


def _objects(inner):
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, LEAVES, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "[bc]"]), LEAVES, max_size=1),
            "additionalProperties": LEAVES,
            "unevaluatedProperties": LEAVES,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


def _lists(inner):
    several = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "prefixItems": st.lists(LEAVES, min_size=1, max_size=2),
            "items": LEAVES,
            "contains": LEAVES,
            "unevaluatedItems": LEAVES,
            "allOf": several,
            "anyOf": several,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


def _whole(word, parts):
    """A schema whose outermost rules say something of what nothing else looks at."""
    return st.builds(
        lambda rules, sub, d: {**rules, word: sub, "$defs": {"d": d}},
        st.recursive(parts(LEAVES), parts, max_leaves=6).filter(lambda rules: isinstance(rules, dict)),
        LEAVES.filter(lambda sub: sub != {"$ref": "#/$defs/d"}),
        st.recursive(parts(LEAVES.filter(lambda sub: not isinstance(sub, dict))), parts, max_leaves=2),
    )


PAIRS = st.one_of(
    st.tuples(_whole("unevaluatedProperties", _objects), st.dictionaries(NAMES, ITEMS, max_size=3)),
    st.tuples(_whole("unevaluatedItems", _lists), st.lists(ITEMS, max_size=3)),
)


@settings(max_examples=600)
@given(PAIRS)
def test_verdicts_are_jsonschemas(pair):
    rules, value = pair
    try:
        expected = Draft202012Validator(rules, registry=Registry()).is_valid(value)
    except RecursionError:
        return
    assert _accepts(rules, value) == expected


@pytest.mark.parametrize(
    ("rules", "value", "accepted"),
    [
        ({"properties": {"a": True}}, {"a": 1}, True),
        ({"properties": {"a": True}}, {"b": 1}, False),
        ({"patternProperties": {"^a": True}}, {"ab": 1, "ac": 1}, True),
        ({"allOf": [{"properties": {"a": True}}], "properties": {"b": True}}, {"a": 1, "b": 1}, True),
        ({"anyOf": [{"properties": {"a": {"type": "string"}}}]}, {"a": 1}, False),
        ({"dependentSchemas": {"a": {"properties": {"b": True}}}, "properties": {"a": True}}, {"a": 1, "b": 1}, True),
        ({"dependentSchemas": {"a": {"properties": {"b": True}}}, "properties": {"a": True}}, {"b": 1}, False),
        ({"if": {"properties": {"a": {"const": 1}}}, "then": {"properties": {"b": True}}}, {"a": 1, "b": 2}, True),
        ({"if": {"properties": {"a": {"const": 1}}}, "else": {"properties": {"b": True}}}, {"a": 1, "b": 2}, False),
        ({"$ref": "#/$defs/d", "$defs": {"d": {"properties": {"a": True}}}}, {"a": 1}, True),
        ({"prefixItems": [True]}, [1], True),
        ({"prefixItems": [True]}, [1, 2], False),
        ({"contains": {"type": "integer"}}, [1, "x"], False),
        ({"items": True}, [1, "x"], True),
    ],
)
def test_what_nothing_looks_at_is_refused(rules, value, accepted):
    word = "unevaluatedProperties" if isinstance(value, dict) else "unevaluatedItems"
    assert _accepts({**rules, word: False}, value) is accepted


@pytest.mark.parametrize("word", ["unevaluatedProperties", "unevaluatedItems"])
def test_nested_values_are_held_once_each_against_rules_that_refer_back(word):
    """The innermost is refused, and so all around it are; twice at each level would be a million times at twenty."""
    value = 1
    for _ in range(20):
        value = {"a": value} if word == "unevaluatedProperties" else [value]
    rules = {word: {"$dynamicRef": "#"}, "type": "object" if word == "unevaluatedProperties" else "array"}
    begun_s = time.process_time()
    assert not _accepts(rules, value)
    assert time.process_time() - begun_s < 2

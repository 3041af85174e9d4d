"""Values that the schema-obeying double makes up."""

import json
from copy import deepcopy
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional, Union
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.testing import make_value


class Weather(BaseModel):
    """What the weather is."""

    city: str
    degrees: float
    sky: Literal["clear", "cloudy"]
    wind: str | None = None


# ---- values


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"default": [1]}, "2", [1]),
        ({"const": "x", "type": "string"}, "'y'", "x"),
        ({"enum": ["red", "blue"]}, "Take Blue", "blue"),
        ({"enum": ["red", "blue"]}, "Take blueish", "red"),
        ({"enum": [3, 4]}, "4", 3),
        ({"type": "string", "examples": ["e", "f"]}, "'y'", "e"),
        ({"type": "integer"}, "magic_function(3)", 3),
        ({"type": "integer"}, "0.5 of 12 for 7", 12),
        ({"type": "integer"}, "gpt4 on 2nd and v1.2", 0),
        ({"type": "integer"}, "it is -4", -4),
        ({"type": "integer"}, "3-2", 3),
        ({"type": "integer", "minimum": 5}, "3", 5),
        ({"type": "integer", "exclusiveMinimum": 5}, "5", 6),
        ({"type": "integer", "maximum": -3, "multipleOf": 2}, "", -4),
        ({"type": "integer", "minimum": 1, "multipleOf": 2.5}, "2.5", 5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "1", 0.5),
        ({"type": "number", "exclusiveMaximum": 0}, "1", -1),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "yes", False),
        ({"type": "null"}, "1", None),
        ({"type": ["null", "integer"]}, "1", 1),
        ({"type": ["null"]}, "1", None),
        ({"type": "string"}, "Say 'what's up' twice", "what's up"),
        ({"type": "string"}, 'Say “what” and "that"', "what"),
        ({"type": "string"}, "What is the weather in San Francisco, CA?", "San Francisco, CA"),
        ({"type": "string"}, "Hello. Tell me of cats.", "cats"),
        ({"type": "string"}, "", "text"),
        ({"required": ["a", "b", "c"]}, "'x' and 'y' z", {"a": "x", "b": "y", "c": "z"}),
        ({"type": "string", "minLength": 6}, "cats", "cats.."),
        ({"type": "string", "maxLength": 2}, "cats", "ca"),
        ({"type": "string", "maxLength": 3}, "the 'long one' or 'two'", "two"),
        ({"type": "string", "pattern": "^[a-z]-[0-9]$"}, "take b-7 now", "b-7"),
        ({"type": "string", "format": "date"}, "cats", "2000-01-01"),
        ({"type": "string", "format": "unheard-of"}, "cats", "cats"),
        ({"type": "array", "items": {"type": "integer"}}, "1 2", [1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, "1 2", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, "1 2", []),
        ({"prefixItems": [{"type": "integer"}, {"const": "x"}], "minItems": 3}, "1", [1, "x", "1"]),
        ({"items": {"type": "null"}}, "", [None]),
        ({"type": "object"}, "cats", {}),
        ({"properties": {"a": {"type": "integer"}, "b": True}, "required": ["b", "a"]}, "1 cat", {"a": 1, "b": "cat"}),
        ({"required": ["a"], "additionalProperties": {"type": "integer"}}, "1", {"a": 1}),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "1", 1),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 0}]}, "1", None),
        ({"oneOf": [{"minimum": 3}, {"minimum": 5}], "type": "integer"}, "", 3),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, "", {"a": 1}),
        ({"allOf": [{"$ref": "#/$defs/x~1y"}], "title": "A", "$defs": {"x/y": {"const": 1}}}, "", 1),
        ({"$ref": "#/definitions/x", "default": 2, "definitions": {"x": {"type": "integer"}}}, "", 2),
        (True, "cat", "cat"),
    ],
)  # fmt: skip
def test_a_value_made_by_hand(schema, text, value):
    before = deepcopy(schema)
    made = make_value(schema, text)
    assert (made, type(made)) == (value, type(value))
    assert schema == before


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "^[0-9]{9}$"}, "must stand in the text or in `examples`"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "got bounds 3 to 2"),
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "must allow a number"),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True}, "No array of 2 different items"),
        (
            {"type": "array", "items": {"$ref": "#/x"}, "minItems": 1},
            "must lead to a place in its own schema, got `#/x`",
        ),
        ({"$ref": "https://example.com/a.json"}, "got `https://example.com/a.json`"),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
            "`#/\\$defs/A` needs one of its own",
        ),
        ({"anyOf": [{"type": "integer", "minimum": 3, "maximum": 2}, {"$ref": "#/x"}]}, "got bounds 3 to 2"),
    ],
)
def test_a_schema_without_a_value_is_refused(schema, said):
    with pytest.raises(InputError, match=said):
        make_value(schema)


def test_a_default_is_a_copy():
    schema = {"default": {"a": []}}
    make_value(schema)["a"].append(1)
    assert schema == {"default": {"a": []}}


class Node(BaseModel):
    value: int
    next: Optional["Node"]
    others: list["Node"]


def test_a_schema_that_holds_itself_ends_as_soon_as_it_may():
    made = make_value(Node.model_json_schema(), "7")
    assert made == {"value": 7, "next": None, "others": []}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(BaseModel):
    """A field of most kinds that pydantic knows."""

    text: Annotated[str, Field(min_length=3, max_length=5)]
    count: Annotated[int, Field(gt=3, le=8, multiple_of=4)]
    share: Annotated[float, Field(ge=0, lt=1)]
    sure: bool
    when: date
    at: datetime
    lasts: timedelta
    id: UUID
    price: Decimal
    colour: Colour
    choice: Literal["a", 2]
    either: Union[int, str]  # noqa: UP007  # both ways to write it
    pair: tuple[int, str]
    unique: set[Colour]
    table: dict[str, int]
    inner: Weather
    many: Annotated[list[Weather], Field(min_length=2)]
    maybe: Weather | None = None


@given(st.text(max_size=60), st.booleans())
def test_a_value_validates_whatever_the_text(text, every_property):
    schema = Everything.model_json_schema()
    made = make_value(schema, text, every_property=every_property)
    Everything.model_validate_json(json.dumps(made))
    assert make_value(schema, text, every_property=every_property) == made
    assert ("maybe" in made) == every_property


@given(st.data())
def test_a_number_is_within_its_bounds(data):
    low = data.draw(st.integers(-50, 50))
    high = data.draw(st.integers(low + 2, 60))
    text = " ".join(map(str, data.draw(st.lists(st.integers(-60, 60), max_size=5))))
    kind = data.draw(st.sampled_from([int, float]))
    least, most = data.draw(st.sampled_from(["ge", "gt"])), data.draw(st.sampled_from(["le", "lt"]))
    adapter = TypeAdapter(Annotated[kind, Field(**{least: low, most: high})])
    made = make_value(adapter.json_schema(), text)
    adapter.validate_python(made)
    allowed = [n for n in map(int, text.split()) if (low <= n if least == "ge" else low < n)]
    allowed = [n for n in allowed if (n <= high if most == "le" else n < high)]
    assert not allowed or made == allowed[0]

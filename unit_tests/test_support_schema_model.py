"""The double that obeys tools and schemas: what other tests rely on, LangChain's own tests, and values that validate."""

import json
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel, Field

from langchain_rlfocal.errors import InputError
from support_schema_model import SchemaChatModel, make_value


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Get the weather."""
    return f"{city}: sunny for {days} days"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [get_weather, add]
HELLO = "Hello to you."


class Weather(BaseModel):
    """What the weather is."""

    city: str
    degrees: float
    sky: Literal["clear", "cloudy"]
    wind: str | None = None


class WeatherDict(TypedDict):
    """What the weather is."""

    city: Annotated[str, ..., "The city"]


def called(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


class Standard:
    """What the double can do; the tests that are skipped need a network, a provider's recording or another model."""

    chat_model_class = SchemaChatModel
    supports_json_mode = True
    supports_anthropic_inputs = True
    supports_model_override = False


class TestSchemaChatModelUnit(Standard, ChatModelUnitTests):
    pass


class TestSchemaChatModelIntegration(Standard, ChatModelIntegrationTests):
    pass


@pytest.mark.parametrize(
    ("choice", "question", "names"),
    [
        (None, "Hello!", []),
        (None, "Is it good weather in Rome?", ["get_weather"]),
        (None, "I got an additional letter.", []),
        ("auto", "First add 3 and 4, then get_weather.", ["add", "get_weather"]),
        ("none", "Use add on 3 and 4.", []),
        ("any", "Hello!", ["get_weather"]),
        ("required", "Use add on 3 and 4.", ["add"]),
        (True, "Hello!", ["get_weather"]),
        (False, "Hello!", []),
        ("add", "Is it good weather in Rome?", ["add"]),
        ({"type": "function", "function": {"name": "add"}}, "Hello!", ["add"]),
    ],
)
def test_it_obeys_the_tool_choice_and_else_calls_what_is_mentioned(choice, question, names):
    message = SchemaChatModel().bind_tools(TOOLS, tool_choice=choice).invoke(question)
    assert [call["name"] for call in message.tool_calls] == names
    assert message.text == ("" if names else HELLO)


def test_other_arguments_of_tools_are_obeyed():
    """One call at most; all arguments (`days` has a default, 1); a choice that is ignored, or that names no tool."""
    question = "First add 3 and 4, then get_weather in Rome."
    model = SchemaChatModel()
    assert called(model.bind_tools(TOOLS, parallel_tool_calls=False).invoke(question)) == [("add", {"a": 3, "b": 4})]
    for strict, args in ((None, {"city": "Rome"}), (True, {"city": "Rome", "days": 1})):
        assert called(model.bind_tools([get_weather], strict=strict).invoke(question)) == [("get_weather", args)]
    deaf = SchemaChatModel(ignores_tool_choice=True).bind_tools(TOOLS, tool_choice="any")
    assert called(deaf.invoke("Hello!")) == []
    with pytest.raises(InputError, match="got 'subtract'"):
        model.bind_tools(TOOLS, tool_choice="subtract").invoke("?")


def test_a_tool_is_called_and_its_result_repeated():
    model = SchemaChatModel().bind_tools(TOOLS)
    messages = [HumanMessage("What is the weather in Rome?")]
    messages.append(model.invoke(messages))
    messages.append(get_weather.invoke(messages[-1].tool_calls[0]))
    assert model.invoke(messages).text == "get_weather says: Rome: sunny for 1 days"
    again = model.invoke([*messages, HumanMessage("And the weather in Oslo?")])
    assert called(again) == [("get_weather", {"city": "Oslo"})]


def test_forced_after_a_result_it_calls_what_it_has_not_called():
    """As with an agent that ends in a call of the schema of its answer; when all are called, it starts again."""
    model = SchemaChatModel().bind_tools([get_weather, Weather], tool_choice="any")
    messages, names = [HumanMessage("How is the weather?")], []
    for _ in range(3):
        messages.append(model.invoke(messages))
        names += [call["name"] for call in messages[-1].tool_calls]
        messages += [ToolMessage("done", tool_call_id=call["id"]) for call in messages[-1].tool_calls]
    assert names == ["get_weather", "Weather", "get_weather"]


def test_ids_of_calls_differ_between_calls_turns_and_models_and_are_always_the_same():
    question = "get_weather and add"

    def ids(name, messages):
        return [call["id"] for call in SchemaChatModel(model_name=name).bind_tools(TOOLS).invoke(messages).tool_calls]

    later = [HumanMessage(question), AIMessage("no"), HumanMessage(question)]
    all_ids = [*ids("a", question), *ids("b", question), *ids("a", later)]
    assert len(set(all_ids)) == len(all_ids) == 6
    assert ids("a", question) == all_ids[:2]


@pytest.mark.parametrize(
    ("form", "question", "value"),
    [
        (Weather, "In Rome it is cloudy and 21.5 degrees", {"city": "Rome", "degrees": 21.5, "sky": "cloudy"}),
        (
            {"type": "json_schema", "json_schema": {"schema": Weather.model_json_schema(), "strict": True}},
            "Rome",
            {"city": "Rome", "degrees": 0, "sky": "clear", "wind": None},
        ),
        ({"type": "json_object"}, "Say 'one' as JSON", {"one": "one"}),
    ],
    ids=["class", "strict schema", "any JSON"],
)
def test_a_response_format_makes_json(form, question, value):
    assert json.loads(SchemaChatModel().invoke(question, response_format=form).text) == value


def test_a_function_can_answer_instead():
    """A text, a message, or None for what it would say anyway; stop sequences cut texts."""

    def answers(messages, tools):
        assert [function["name"] for function in tools] == ["get_weather", "add"]
        call = {"name": "unknown", "args": {}, "id": "1"}
        return {"text": "Yes. No.", "call": AIMessage("", tool_calls=[call])}.get(messages[-1].text)

    model = SchemaChatModel(answers=answers).bind_tools(TOOLS, tool_choice="any")
    assert model.invoke("text", stop=["."]).text == "Yes"
    assert called(model.invoke("call")) == [("unknown", {})]
    assert called(model.invoke("add 1 and 2")) == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_gives_objects_of_the_schema_or_the_message_and_the_error(method):
    """LangChain's own tests, above, ask for the forms that a schema may have."""
    model = SchemaChatModel()
    question, given = "In Rome it is cloudy and 21.5 degrees", {"city": "Rome", "degrees": 21.5, "sky": "cloudy"}
    for strict, value in ((None, given), (True, given | {"wind": None})):
        as_dict = model.with_structured_output(Weather.model_json_schema(), method=method, strict=strict)
        assert as_dict.invoke(question) == value
    read = model.with_structured_output(WeatherDict, include_raw=True, method=method).invoke("Say Rome")
    assert isinstance(read["raw"], AIMessage)
    assert (read["parsed"], read["parsing_error"]) == ({"city": "Rome"}, None)
    call = {"name": "Weather", "args": {"city": 1}, "id": "1"}
    model = SchemaChatModel(answers=lambda messages, tools: AIMessage("{", tool_calls=[call]))
    unread = model.with_structured_output(Weather, include_raw=True, method=method).invoke("Say Rome")
    assert unread["parsed"] is None
    assert isinstance(unread["parsing_error"], ValueError)


# ---- values


class Node(BaseModel):
    """It holds itself, and ends as soon as it may."""

    value: int
    next: Optional["Node"]
    others: list["Node"]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"default": [1]}, "2", [1]),
        ({"const": "x", "type": "string"}, "'y'", "x"),
        ({"enum": ["red", "blue"]}, "Take Blue", "blue"),
        ({"enum": ["red", "blue"]}, "Take blueish", "red"),
        ({"type": "string", "examples": ["e", "f"]}, "'y'", "e"),
        ({"type": "integer"}, "magic_function(3)", 3),
        ({"type": "integer"}, "0.5 of 12 for 7", 12),
        ({"type": "integer"}, "gpt4 on 2nd and v1.2", 0),
        ({"type": "integer", "maximum": -3, "multipleOf": 2}, "", -4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "1", 0.5),
        ({"type": ["null", "integer"]}, "1", 1),
        ({"type": "string"}, "Say 'what's up' twice", "what's up"),
        ({"type": "string"}, "What is the weather in San Francisco, CA?", "San Francisco, CA"),
        ({"type": "string"}, "Hello. Tell me of cats.", "cats"),
        ({"required": ["a", "b", "c"]}, "'x' and 'y' z", {"a": "x", "b": "y", "c": "z"}),
        ({"type": "string", "pattern": "^[a-z]-[0-9]$"}, "take b-7 now", "b-7"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, "1 2", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, "1 2", []),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 0}]}, "1", None),
        ({"oneOf": [{"minimum": 3}, {"minimum": 5}], "type": "integer"}, "", 3),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, "", {"a": 1}),
        (Node.model_json_schema(), "7", {"value": 7, "next": None, "others": []}),
    ],
)  # fmt: skip
def test_a_value_made_by_hand(schema, text, value):
    made = make_value(schema, text)
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[0-9]{9}$"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"$ref": "https://example.com/a.json"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
    ],
)
def test_a_schema_without_a_value_is_refused(schema):
    with pytest.raises(InputError):
        make_value(schema)


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
    lasts: timedelta
    id: UUID
    price: Decimal
    colour: Colour
    either: int | str
    pair: tuple[int, str]
    unique: set[Colour]
    table: dict[str, int]
    many: Annotated[list[Weather], Field(min_length=2)]
    maybe: Weather | None = None


@given(st.text(max_size=60), st.booleans())
def test_a_value_validates_and_is_always_the_same(text, every_property):
    schema = Everything.model_json_schema()
    made = make_value(schema, text, every_property=every_property)
    Everything.model_validate_json(json.dumps(made))
    assert make_value(schema, text, every_property=every_property) == made
    assert ("maybe" in made) == every_property

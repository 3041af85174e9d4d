"""Structured output of a whole ensemble: compared as the caller's class reads it, and asked as each member's provider wants it."""

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import InjectedToolArg, Tool, tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, field_validator
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import override

from langchain_rlfocal import EnsembleError, PoolMember
from langchain_rlfocal.chat_models.requests import BoundTools, Request, response_format_of
from langchain_rlfocal.testing import ScriptedChatModel
from support_requests import Person, call, ensemble
from support_schema_model import SchemaChatModel

METHODS = ("function_calling", "json_schema", "json_mode")


def says(value, method="function_calling", name="Answer"):
    """A member that gives an object as the method wants it, or a text."""
    if isinstance(value, str):
        return SchemaChatModel(answers=lambda *_: value)
    if method == "function_calling":
        return SchemaChatModel(answers=lambda *_: AIMessage("", tool_calls=[{"name": name, "args": value, "id": "1"}]))
    return SchemaChatModel(answers=lambda *_: json.dumps(value))


def answered(schema, *values, method="function_calling", name=None):
    """The object, and what the message says of it."""
    name = name or getattr(schema, "__name__", "Answer")
    model = ensemble({f"m{at}": says(value, method, name) for at, value in enumerate(values)}, max_team=len(values))
    found = model.with_structured_output(schema, method=method, include_raw=True).invoke("?")
    assert found["parsing_error"] is None
    return found["parsed"], found["raw"].response_metadata["rlfocal"]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Order(BaseModel):
    """An order."""

    amount: Decimal
    at: dt.datetime | None = None
    color: Color = Color.RED
    lines: list[dict[str, Decimal]] = []


class Node(BaseModel):
    """A node."""

    name: str
    children: list["Node"] = []


class Named(BaseModel):
    """A person."""

    full_name: str = Field(alias="fullName")
    tags: set[str] = set()


class Dollars(BaseModel):
    """A price."""

    amount: Decimal

    @field_validator("amount", mode="before")
    @classmethod
    def _plain(cls, value):
        return value.strip("$") if isinstance(value, str) else value


class Cents(BaseModel):
    """A price."""

    amount: int

    @field_validator("amount", mode="before")
    @classmethod
    def _times_100(cls, value):
        return round(float(str(value).strip("$")) * 100)


class PriceV1(BaseModelV1):
    """A price."""

    amount: Decimal


# ---- values as the class reads them


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("other", "one", "same"),
    [
        (Order(amount=20), {"amount": "19.990"}, {"amount": 19.99, "color": "RED"}),
        (Order(amount=20, lines=[{"a": 1}]), {"amount": 20, "lines": [{"a": "2.0"}]}, {"amount": "20.00", "lines": [{"a": 2}]}),
        (
            Order(amount=1, at="2024-05-01T11:00:00Z"),
            {"amount": 1, "at": "2024-05-01T12:00:00Z"},
            {"amount": 1, "at": "2024-05-01T14:00:00+02:00"},
        ),
        (Node(name="r"), {"name": "r", "children": [{"name": "y"}]}, {"name": "R ", "children": [{"name": "y", "children": []}]}),
        (Named(fullName="Zoe"), {"fullName": "Andr\u00e9", "tags": ["a", "b"]}, {"fullName": "Andre\u0301", "tags": ["b", "a"]}),
        (Dollars(amount=20), {"amount": "$19.99"}, {"amount": 19.99}),
    ],
)  # fmt: skip
def test_two_of_three_who_say_the_same_to_the_class_have_a_majority(other, one, same, method):
    kind = type(other)
    parsed, facts = answered(kind, json.loads(other.model_dump_json(by_alias=True)), one, same, method=method)

    assert parsed == kind.model_validate(one)
    assert facts["fusion"]["confidence"] == pytest.approx(2 / 3)
    assert not facts["failures"]


@pytest.mark.parametrize("method", METHODS)
def test_what_the_class_reads_once_only_is_returned_as_it_was_written(method):
    parsed, _ = answered(Cents, {"amount": "$20"}, {"amount": "$19.99"}, {"amount": 19.99}, method=method)

    assert parsed == Cents(amount=19.99)


def test_a_tool_choice_beside_the_schema_changes_nothing():
    """There is one tool, and it must be called; LangChain's own models override it likewise."""
    model = ensemble({"a": says({"amount": "3"}, name="Order")}, max_team=1)
    assert model.with_structured_output(Order, tool_choice="auto").invoke("?").amount == 3


def test_classes_that_return_dictionaries_are_read_too():
    class Price(TypedDict):
        """A price."""

        amount: Decimal
        n: Annotated[int, 3, "How many."]

    parsed, facts = answered(Price, {"amount": 20}, {"amount": "19.990"}, {"amount": 19.99, "n": "3"})
    assert parsed == {"amount": "19.990", "n": 3}
    assert facts["fusion"]["confidence"] == pytest.approx(2 / 3)
    assert answered(PriceV1, {"amount": 20}, {"amount": "19.990"}, {"amount": 19.99})[0].amount == Decimal("19.990")


def test_members_whose_objects_the_class_refuses_have_failed():
    class Odd(BaseModel):
        """A number."""

        n: int

        @field_validator("n", mode="before")
        @classmethod
        def _odd(cls, value):
            if value == 1:
                raise KeyError(value)
            return cls._odd(value) if value == 2 else value

    parsed, facts = answered(Odd, {"n": 1}, {"n": 2}, {"n": "\ud800"}, {"n": [[]]}, {"n": 4})
    assert parsed == Odd(n=4)
    assert [failure["kind"] for failure in facts["failures"]] == ["invalid_arguments"] * 4


@pytest.mark.parametrize("long", ["", "After a look at every claim that it makes, in order: "])
@pytest.mark.parametrize("method", METHODS)
def test_a_judge_never_contradicts_itself(long, method):
    class Grade(BaseModel):
        """A grade."""

        reasoning: str
        score: int
        verdict: Literal["pass", "fail"]

    said = [
        {"reasoning": f"{long}it fails", "score": 2, "verdict": "fail"},
        {"reasoning": f"{long}it passes", "score": 8, "verdict": "pass"},
        {"reasoning": f"{long}it is good", "score": 9, "verdict": "pass"},
    ]
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        parsed, facts = answered(Grade, *(said[at] for at in order), method=method)
        assert parsed.model_dump() in said[1:]
        assert facts["fusion"]["fields"]["verdict"] == pytest.approx(2 / 3)
        assert facts["fusion"]["merged"] is False


# ---- tools


@tool
def pay(amount: Decimal, color: Color = Color.RED, user: Annotated[str, InjectedToolArg] = "") -> str:
    """Pay."""
    return f"{amount} {color} {user}"


def charge(amount: Decimal, color: Color = Color.RED) -> str:
    """Pay."""
    return f"{amount} {color}"


class Charge(BaseModel):
    """Pay."""

    amount: Decimal
    color: Color = Color.RED


@tool(args_schema=Dollars)
def spend(amount: Decimal) -> str:
    """Pay."""
    return f"{amount}"


def read(path: str) -> str:
    """Read."""
    return path


NAMELESS = Tool(name="look", description="Look.", func=str)


@pytest.mark.parametrize(
    ("given", "said", "confidence"),
    [
        (pay, [{"amount": "20.00"}, {"amount": 20.0, "color": "red"}, {"amount": 1}], 2 / 3),
        (charge, [{"amount": "20.00"}, {"amount": 20.0, "color": "red"}, {"amount": 1}], 2 / 3),
        (Charge, [{"amount": "20.00"}, {"amount": 20.0, "color": "red"}, {"amount": 1}], 2 / 3),
        (spend, [{"amount": "$20.00"}, {"amount": 20}, {"amount": 1}], 2 / 3),
        (read, [{"path": "B"}, {"path": "b"}, {"path": "a"}], 1 / 3),
        (NAMELESS, [{"__arg1": "x"}, {"__arg1": "x"}, {"__arg1": "y"}], 2 / 3),
    ],
)
def test_arguments_of_tools_are_compared_as_the_tool_reads_them_and_returned_as_they_were_made(given, said, confidence):
    name = getattr(given, "name", None) or given.__name__
    model = ensemble({f"m{at}": says(args, name=name) for at, args in enumerate(said)}, max_team=3)
    message = model.bind_tools([given]).invoke("?")
    assert message.tool_calls[0]["args"] == said[0]
    assert message.response_metadata["rlfocal"]["fusion"]["confidence"] == pytest.approx(confidence)


# ---- the last object of a text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('<think>{"name": "Wrong"}', "invalid_json"),
        ('{"name": "Wrong"} </think> I cannot tell.', "invalid_json"),
        ('{"name": "Wr', "invalid_json"),
        ('{"age": 3} {"name": 4}', "`name`: Input should be a valid string"),
    ],
)
def test_a_text_without_a_valid_object_outside_of_thoughts_is_a_failure(text, error):
    with pytest.raises(EnsembleError, match=error):
        answered(Person, text, method="json_mode")


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize(
    "text",
    [
        '<think>Maybe {"name": "Wrong"}?</think>\n{"name": "Bob"}',
        'Maybe {"name": "Wrong"}?</think>\n{"name": "Bob"}',
        '```json\n{"name": "Wrong"}\n```\nNo:\n```json\n{"name": "Bob"}\n```',
        '{"name": "Bob"}\nI left out {"age": 3}.',
        "{" * 900_000 + '\n{"name": "Bob"}',
    ],
)
def test_the_last_valid_object_of_a_text_is_the_answer(text, method):
    assert answered(Person, text, text, method=method)[0] == Person(name="Bob")


# ---- each member's own way


class FormatModel(ScriptedChatModel):
    """A model whose provider takes a schema by an argument of its own, and knows tools."""

    @override
    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(tools=[*tools], tool_choice=tool_choice, **kwargs)

    @override
    def with_structured_output(self, schema, *, method="json_schema", include_raw=False, **kwargs):
        if method == "json_schema":
            return self.bind(format=schema, ls_structured_output_format={"schema": schema}) | RunnableLambda(str)
        if method == "json_mode":
            return self.bind(format="json") | RunnableLambda(str)
        raise ValueError(method)


def test_a_member_is_asked_as_its_own_structured_output_asks():
    own = FormatModel(script=['{"name": "Ann"}'])
    model = ensemble({"a": own})

    assert model.with_structured_output(Person, method="json_schema").invoke("?") == Person(name="Ann")
    assert own.asked[-1].kwargs == {"format": Person}
    assert model.with_structured_output(Person, method="json_mode").invoke("?") == Person(name="Ann")
    assert own.asked[-1].kwargs == {"format": "json"}
    assert model.with_structured_output(None, method="json_mode", temperature=0.5).invoke("?") == {"name": "Ann"}
    assert own.asked[-1].kwargs == {"format": "json", "temperature": 0.5}


def test_a_bare_response_format_goes_its_own_way_too_and_a_member_that_takes_it_need_not_know_tools():
    own = FormatModel(script=['{"name": "Ann"}'], profile={"tool_calling": False})
    assert ensemble({"a": own}).invoke("?", response_format=response_format_of(Person)).text == '{"name": "Ann"}'
    assert own.asked[-1].kwargs["format"]["title"] == "Person"
    assert own.asked[-1].kwargs["format"]["required"] == ["name"]


def test_beside_tools_the_schema_is_a_tool_for_who_knows_no_response_format():
    own = FormatModel(script=[AIMessage("", tool_calls=[call("Person", name="Ann")])])
    message = ensemble({"a": own}).bind_tools([charge], response_format=Person).invoke("?")

    assert message.text == '{"name": "Ann"}'
    assert len(own.asked[-1].kwargs["tools"]) == 2


class Refusing(FormatModel):
    """A model whose own structured output cannot be taken over."""

    way: Any = None

    @override
    def with_structured_output(self, schema, **kwargs):
        if self.way == "raises":
            raise NotImplementedError
        if self.way == "prompts":
            return RunnableLambda(lambda said: said) | self
        return self.bind() | RunnableLambda(str)


@pytest.mark.parametrize("way", ["raises", "prompts", "nothing"])
def test_a_member_whose_own_way_is_none_is_given_the_schema_as_a_tool(way):
    own = Refusing(script=[AIMessage("", tool_calls=[call("Person", name="Ann")])], way=way)

    assert ensemble({"a": own}).with_structured_output(Person, method="json_schema").invoke("?") == Person(name="Ann")
    assert own.asked[-1].kwargs["tool_choice"] == "any"


def test_any_json_is_never_asked_for_by_a_tool():
    class ToolsOnly(FormatModel):
        @override
        def with_structured_output(self, schema, **kwargs):
            return self.bind_tools([schema]) | RunnableLambda(str)

    own = ToolsOnly(script=['{"name": "Ann"}'])
    assert ensemble({"a": own}).with_structured_output(Person, method="json_mode").invoke("?") == Person(name="Ann")
    assert own.asked[-1].kwargs == {}


def test_a_members_own_way_is_found_once():
    found = []

    class Counted(FormatModel):
        @override
        def with_structured_output(self, schema, **kwargs):
            found.append(kwargs)
            return super().with_structured_output(schema, **kwargs)

    bound = ensemble({"a": Counted(script=['{"name": "Ann"}'])}).with_structured_output(Person, method="json_schema")
    bound.invoke("?")
    bound.invoke("?")
    assert len(found) == 1


def brief_of(model: BaseChatModel, method, strict=None):
    form = {"type": "json_object"} if method == "json_mode" else response_format_of(Person, strict=strict)
    originals = BoundTools(schema=Person, form=form, method=method, strict=strict)
    request = Request(response_format=form, bound=originals)
    return request.prepare(PoolMember("a", model), [HumanMessage("?")])


def test_the_packages_of_providers_are_asked_their_own_way():
    openai = ChatOpenAI(model="gpt-x", api_key="none")
    form = brief_of(openai, "json_schema", strict=True).kwargs["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "Person", True)
    assert brief_of(openai, "json_mode", strict=True).kwargs["response_format"] == {"type": "json_object"}
    assert brief_of(openai, "json_schema").model is openai
    ollama = pytest.importorskip("langchain_ollama").ChatOllama(model="x")
    assert brief_of(ollama, "json_schema").kwargs["format"] == Person.model_json_schema()
    assert brief_of(ollama, "json_mode").kwargs["format"] == "json"
    claude = pytest.importorskip("langchain_anthropic").ChatAnthropic(model="claude-x", api_key="none")
    assert brief_of(claude, "json_schema").kwargs["output_config"]["format"]["type"] == "json_schema"


def test_an_ensemble_within_an_ensemble_hears_of_the_class():
    inner = ensemble({"x": says({"amount": "$20"}, "json"), "y": says({"amount": 19.99}, "json"), "z": says({"amount": "$19.99"}, "json")}, max_team=3)  # fmt: skip

    assert ensemble({"inner": inner}).with_structured_output(Dollars, method="json_schema").invoke(
        "?"
    ).amount == Decimal("19.99")

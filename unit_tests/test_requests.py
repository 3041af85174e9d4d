"""Requests: tools and formats in each member's own terms, and what an answer must hold to be one."""

import functools
import operator
from typing import TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import override

from langchain_rlfocal import EnsembleError, InputError, PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.requests import Request, response_format_of, standard_choice
from langchain_rlfocal.execution import UnusableAnswerError
from langchain_rlfocal.testing import SchemaChatModel, ScriptedChatModel, ScriptedPolicy

SAID = [HumanMessage("?")]


@tool
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def search(query: str) -> str:
    """Search the web.

    Args:
        query: What to look for.
    """
    return query


class Person(BaseModel):
    """A person."""

    name: str


class PlainModel(ScriptedChatModel):
    """A model of a provider that knows tools, and neither `strict` nor response formats."""

    @override
    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(functions=[getattr(one, "name", str(one)) for one in tools], choice=tool_choice, **kwargs)


def ensemble(models, **fields):
    return RLFocalChatModel(members=models, policy=ScriptedPolicy([list(models)], tuple(models)), **fields)


def call(tool_name, **args):
    return {"name": tool_name, "args": args, "id": "1"}


# ---- binding


def test_tools_of_every_kind_reach_every_member_by_its_own_bind_tools():
    schema = {
        "type": "function",
        "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
    }
    plain, own = PlainModel(script=["no"]), SchemaChatModel(says="no")
    bound = ensemble({"a": plain, "b": own}).bind_tools([add, search, Person, schema])
    assert isinstance(bound, RunnableBinding)
    assert [one["function"]["name"] for one in bound.kwargs["tools"]] == ["add", "search", "Person", "look"]
    bound.invoke("?")
    assert plain.asked[-1].kwargs["functions"][0] == "add"  # the tool itself, not its dictionary
    assert [one["function"]["name"] for one in own.asked[-1].kwargs["tools"]] == ["add", "search", "Person", "look"]


def test_a_member_gets_only_what_its_bind_tools_knows():
    plain, own = PlainModel(script=["no"]), SchemaChatModel(says="no")
    model = ensemble({"a": plain, "b": own})
    model.bind_tools([add], strict=True, parallel_tool_calls=False, temperature=0.5).invoke("?")
    assert plain.asked[-1].kwargs == {"functions": ["add"], "choice": None, "temperature": 0.5}
    assert own.asked[-1].kwargs["parallel_tool_calls"] is False
    assert own.asked[-1].kwargs["tools"][0]["function"]["strict"] is True


@pytest.mark.parametrize(
    ("given", "standard"),
    [
        (None, "auto"),
        ("auto", "auto"),
        (False, "auto"),
        ("none", "none"),
        ("any", "any"),
        ("required", "any"),
        ("add", "add"),
        (True, "any"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "look"}, "look"),
        ({"type": "any"}, "any"),
        ({"type": "auto"}, "auto"),
    ],
)
def test_a_tool_choice_of_any_providers_form_is_understood(given, standard):
    assert standard_choice(given, ["add", "look"]) == standard


def test_true_names_the_only_tool():
    assert standard_choice(True, ["add"]) == "add"


@pytest.mark.parametrize(("given", "names"), [("sub", ["add"]), ("any", []), (7, ["add"]), ({"type": "tool"}, ["add"])])
def test_a_tool_choice_that_names_no_tool_is_refused(given, names):
    with pytest.raises(InputError, match='must be "auto", "none", "any" or the name of a bound tool'):
        standard_choice(given, names)


def test_a_tool_with_the_name_of_a_choice_can_be_chosen():
    assert standard_choice("none", ["none"]) == "none"
    assert Request.of({"tools": [add], "tool_choice": "none"}).is_forced is False


def test_where_no_tool_may_be_called_members_are_not_given_any():
    own = SchemaChatModel(says="no")
    ensemble({"a": own}).bind_tools([add], tool_choice="none").invoke("?")
    assert "tools" not in own.asked[-1].kwargs


class PersonDict(TypedDict):
    """A person."""

    name: str


class PersonV1(BaseModelV1):
    """A person."""

    name: str


@pytest.mark.parametrize("schema", [Person, PersonDict, PersonV1, Person.model_json_schema()])
def test_a_response_format_of_any_kind_is_brought_into_openais_form(schema):
    form = response_format_of(schema, strict=True)
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"].startswith("Person")
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"]["name"]["type"] == "string"
    assert response_format_of(form) == form


def test_the_other_forms_of_response_formats():
    assert response_format_of(None) is None
    assert response_format_of({"type": "text"}) is None
    assert response_format_of({"type": "json_object"}) == {"type": "json_object"}
    with pytest.raises(InputError, match="A response format must be"):
        response_format_of(7)


def test_a_member_that_knows_no_response_format_is_given_the_schema_as_a_tool():
    plain = PlainModel(script=[AIMessage("", tool_calls=[call("Person", name="Ann")])])
    own = SchemaChatModel(says='{"name": "Ann"}')
    both, alone = ensemble({"a": plain, "b": own}), ensemble({"a": plain}, max_team=1)
    for model in (both, alone):
        structured = model.with_structured_output(Person, method="json_schema", include_raw=True)
        for answered in (
            structured.invoke("?"),
            functools.reduce(operator.add, structured.stream("?")),
        ):
            assert answered["parsed"] == Person(name="Ann")
            assert answered["raw"].text == '{"name": "Ann"}'
            assert not answered["raw"].tool_calls
        assert plain.asked[-1].kwargs["choice"] == "any"


def test_a_member_that_cannot_bind_tools_is_left_out_and_one_whose_binding_fails_has_failed():
    class Broken(PlainModel):
        @override
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            raise ValueError("no such tool here")

    models = {"a": ScriptedChatModel(script=["no"]), "b": Broken(script=["no"]), "c": SchemaChatModel(says="yes")}
    message = ensemble(models).bind_tools([add]).invoke("?")
    assert message.text == "yes"
    how = message.response_metadata["rlfocal"]
    assert how["excluded"] == {"a": "knows no tools"}
    assert [(f["member"], f["kind"], f["reason"]) for f in how["failures"]] == [
        ("b", "ValueError", "no such tool here")
    ]


def test_where_no_member_knows_tools_the_error_says_so():
    with pytest.raises(EnsembleError, match="a: not asked: it knows no tools"):
        ensemble({"a": ScriptedChatModel(script=["no"])}).bind_tools([add]).invoke("?")


def test_tools_of_the_same_call_do_not_reach_the_synthesizer():
    writer = SchemaChatModel(says="both")
    models = {"a": SchemaChatModel(says="x"), "b": SchemaChatModel(says="y")}
    message = ensemble(models, synthesizer=writer, synthesize_below=1).bind_tools([add]).invoke("?")
    assert message.text == "both"
    assert writer.asked[-1].kwargs == {}


def test_an_ensemble_within_an_ensemble_takes_tools():
    inner = ensemble({"x": SchemaChatModel(), "y": SchemaChatModel()})
    message = (
        ensemble({"inner": inner, "c": SchemaChatModel()}).bind_tools([add], tool_choice="add").invoke("Add 3 and 4")
    )
    assert [made["name"] for made in message.tool_calls] == ["add"]
    assert not message.response_metadata["rlfocal"]["failures"]


# ---- what an answer must hold

BOTH = Request.of({"tools": [add, search]})


@pytest.mark.parametrize(
    ("request_", "message", "kind"),
    [
        (BOTH, AIMessage("", tool_calls=[call("sub", a=1)]), "unknown_tool"),
        (BOTH, AIMessage("", tool_calls=[call("add")]), "invalid_arguments"),
        (BOTH, AIMessage("", tool_calls=[call("add", a="three")]), "invalid_arguments"),
        (BOTH, AIMessage("", tool_calls=[call("add", a=1), call("add", a=[1])]), "invalid_arguments"),
        (
            BOTH,
            AIMessage("text", invalid_tool_calls=[invalid_tool_call(name="add", args='{"a": ', id="1", error="?")]),
            "invalid_json",
        ),
        (Request.of({"tools": [add, search], "tool_choice": "any"}), AIMessage("text"), "no_tool_call"),
        (
            Request.of({"tools": [add, search], "tool_choice": "add"}),
            AIMessage("", tool_calls=[call("search", query="x")]),
            "wrong_tool",
        ),
        (
            Request.of({"tools": [add], "tool_choice": "none"}),
            AIMessage("", tool_calls=[call("add", a=1)]),
            "unwanted_call",
        ),
        (
            Request.of({"tools": [add], "parallel_tool_calls": False}),
            AIMessage("", tool_calls=[call("add", a=1), call("add", a=2)]),
            "parallel_calls",
        ),
        (Request.of({"response_format": Person}), AIMessage("Ann"), "invalid_json"),
        (Request.of({"response_format": Person}), AIMessage('{"name": '), "invalid_json"),
        (Request.of({"response_format": Person}), AIMessage('{"age": 3}'), "invalid_object"),
        (
            Request.of({"response_format": Person}),
            AIMessage("", additional_kwargs={"refusal": "I will not"}),
            "refusal",
        ),
        (Request.of({"response_format": {"type": "json_object"}}), AIMessage("{"), "invalid_json"),
    ],
)
def test_an_answer_that_breaks_the_request_is_unusable(request_, message, kind):
    with pytest.raises(UnusableAnswerError) as caught:
        request_.check(message)
    assert caught.value.kind == kind
    assert caught.value.message is message


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (BOTH, AIMessage("text")),
        (BOTH, AIMessage("", tool_calls=[call("add", a="3"), call("search", query="x")])),
        (Request.of({}), AIMessage("", tool_calls=[call("anything")])),
        (Request.of({"response_format": Person}), AIMessage('Sure:\n```json\n{"name": "Ann"}\n```\nDone.')),
        (Request.of({"response_format": Person}), AIMessage('Sure: {"name": "Ann"}, as you asked.')),
        (Request.of({"response_format": Person, "tools": [add]}), AIMessage("", tool_calls=[call("add", a=3)])),
        (Request.of({"response_format": {"type": "json_object"}}), AIMessage("[1]")),
    ],
)
def test_an_answer_that_holds_what_was_asked_for_is_usable(request_, message):
    request_.check(message)


def test_a_format_or_a_tool_that_nobody_can_read_is_refused_before_anyone_is_asked():
    member = SchemaChatModel()
    model = ensemble({"a": member})
    with pytest.raises(InputError):
        model.with_structured_output(None)
    with pytest.raises(InputError):
        model.with_structured_output(Person, method="magic")
    with pytest.raises(InputError):
        model.bind_tools([add], tool_choice="sub")
    with pytest.raises(InputError):
        model.invoke("?", consensus="some")
    assert not member.asked


def test_a_member_with_a_price_is_bound_like_any():
    model = RLFocalChatModel(members=[PoolMember("a", SchemaChatModel(), input_usd_per_mtok=1.0)])
    assert model.bind_tools([add], tool_choice="any").invoke("Add 1 and 2").tool_calls

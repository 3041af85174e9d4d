"""Requests: what each member is asked, in its own terms, and when a response is what was asked for."""

import contextlib
import functools
import operator
import pickle
from typing import TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.runnables import RunnableBinding
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import override

from langchain_rlfocal import EnsembleError, InputError, PoolMember
from langchain_rlfocal.chat_models.requests import Request, response_format_of, standard_choice
from langchain_rlfocal.execution import UnusableAnswerError
from langchain_rlfocal.testing import ScriptedChatModel
from support_requests import Even, Person, add, call, ensemble, search
from support_schema_model import SchemaChatModel

SAID = [HumanMessage("?")]


class PlainModel(ScriptedChatModel):
    """A model of a provider that knows tools, and neither `strict` nor response formats."""

    @override
    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(functions=[getattr(one, "name", str(one)) for one in tools], choice=tool_choice, **kwargs)


@pytest.mark.parametrize(
    "more", [{}, {"tools": [convert_to_openai_tool(add)]}, {"response_format": {"type": "json_object"}}]
)
def test_what_only_openais_interface_knows_goes_to_its_members_alone(more):
    request = Request.of({"temperature": 0.5, "openai_arguments": {"seed": 3}, **more})
    openai, other = PoolMember("a", ChatOpenAI(model="m", api_key="none")), PoolMember("b", SchemaChatModel())
    house = PoolMember("c", ensemble({"a": SchemaChatModel()}))
    assert request.prepare(openai, SAID).arguments["seed"] == 3
    assert {"temperature", "seed", "openai_arguments"} & request.prepare(other, SAID).arguments.keys() == {
        "temperature"
    }
    assert request.prepare(house, SAID).arguments["openai_arguments"] == {"seed": 3}  # it has members of its own


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
    ("given", "names", "standard"),
    [
        (None, ["add"], "auto"),
        (False, ["add"], "auto"),
        ("none", ["add"], "none"),
        ("none", ["none"], "none"),
        ("required", ["add", "look"], "any"),
        ("add", ["add", "look"], "add"),
        (True, ["add", "look"], "any"),
        (True, ["add"], "add"),
        ({"type": "function", "function": {"name": "add"}}, ["add", "look"], "add"),
        ({"type": "tool", "name": "look"}, ["add", "look"], "look"),
        ({"type": "any"}, ["add"], "any"),
        ({"type": "auto"}, ["add"], "auto"),
        ("sub", ["add"], None),
        ("any", [], None),
        (7, ["add"], None),
        ({"type": "tool"}, ["add"], None),
    ],
)
def test_a_tool_choice_of_any_providers_form_is_understood(given, names, standard):
    refused = pytest.raises(InputError, match='must be "auto", "none", "any" or the name of a bound tool')
    with refused if standard is None else contextlib.nullcontext():
        assert standard_choice(given, names) == standard


def test_where_no_tool_may_be_called_members_are_not_given_any_and_need_not_know_any():
    own, plain = SchemaChatModel(says="no"), ScriptedChatModel(script=["no"])
    for member in (own, plain):
        assert ensemble({"a": member}).bind_tools([add], tool_choice="none").invoke("?").text == "no"
        assert "tools" not in member.asked[-1].kwargs


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


def test_with_tools_a_member_that_knows_no_response_format_gets_the_schema_as_one_tool_more():
    object_ = AIMessage("", tool_calls=[call("Person", name="Ann")])
    tool_ = AIMessage("", tool_calls=[call("add", a=1)])
    for script, expected in ((object_, ('{"name": "Ann"}', [])), (tool_, ("", ["add"]))):
        plain = PlainModel(script=[script])
        message = ensemble({"a": plain}).bind_tools([add], response_format=Person).invoke("?")
        assert (message.text, [made["name"] for made in message.tool_calls]) == expected
        assert len(plain.asked[-1].kwargs["functions"]) == 2
        assert plain.asked[-1].kwargs["choice"] == "any"  # its answer would be a call too


def test_any_json_is_held_against_the_schema_that_the_caller_knows():
    schema = {"title": "N", "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wrong, right = (SchemaChatModel(answers=lambda *_, said=said: said) for said in ('{"wrong": 1}', '{"n": 4}'))
    model = ensemble({"a": wrong, "b": right}).with_structured_output(schema, method="json_mode", include_raw=True)
    answered = model.invoke("?")
    assert answered["parsed"] == {"n": 4}
    assert [f["kind"] for f in answered["raw"].response_metadata["rlfocal"]["failures"]] == ["invalid_object"]


def test_tools_bound_later_go_before_those_bound_first():
    own = SchemaChatModel(says="no")
    later = convert_to_openai_tool(search)
    ensemble({"a": own}).bind_tools([add]).bind(tools=[later]).invoke("?")
    assert [one["function"]["name"] for one in own.asked[-1].kwargs["tools"]] == ["search"]
    with_tools = ensemble({"a": SchemaChatModel(says="no"), "b": own})
    own.asked.clear()
    with contextlib.suppress(EnsembleError):
        with_tools.with_structured_output(Person, method="json_schema", tools=[later]).invoke("?")
    assert [one["function"]["name"] for one in own.asked[-1].kwargs["tools"]] == ["search"]


@pytest.mark.parametrize(
    "own",
    [
        {"google_search": {}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"toolSpec": {"name": "x", "inputSchema": {}}},
    ],
)
def test_a_providers_own_tool_is_passed_on_as_it_is(own):
    seen = []

    class Provider(PlainModel):
        @override
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            seen.append(tools)
            return self.bind(**kwargs)

    bound = ensemble({"a": Provider(script=["no"])}).bind_tools([own, add])
    assert bound.kwargs["tools"][0] == own
    bound.invoke("?")
    assert seen == [[own, add]]


def test_tools_are_bound_to_a_member_once():
    bindings = []

    class Provider(PlainModel):
        @override
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            bindings.append(tools)
            return self.bind(choice=tool_choice, **kwargs)

    bound = ensemble({"a": Provider(script=["no"]), "b": Provider(script=["no"])}).bind_tools([add])
    for _ in range(3):
        bound.invoke("?")
    assert len(bindings) == 2
    dictionaries = ensemble({"a": SchemaChatModel()}).bind_tools([convert_to_openai_tool(add)], tool_choice="any")
    dictionaries.invoke("?")
    again = pickle.loads(pickle.dumps(dictionaries))
    assert again.invoke("Add 1 and 2").tool_calls[0]["name"] == "add"


def test_real_bindings_are_taken_apart():
    """A binding does not close the stream of what it binds, so the model itself must be what is called."""
    member = PoolMember("a", ChatOpenAI(model="gpt-x", api_key="none"))
    brief = Request.of({"tools": [add], "tool_choice": "any", "temperature": 0.5}).prepare(member, SAID)
    assert brief.model is member.model
    assert brief.kwargs["tool_choice"] == "required"
    assert brief.kwargs["temperature"] == 0.5
    assert brief.kwargs["tools"][0]["function"]["name"] == "add"


def test_cache_marks_stay_for_an_ensemble_whose_members_may_read_them():
    marked = [HumanMessage([{"type": "text", "text": "?", "cache_control": {"type": "ephemeral"}}])]
    plain, inner = PoolMember("a", SchemaChatModel()), PoolMember("b", ensemble({"x": SchemaChatModel()}))
    assert "cache_control" not in Request().prepare(plain, marked).messages[0].content[0]
    assert "cache_control" in Request().prepare(inner, marked).messages[0].content[0]


def test_classes_of_one_schema_and_other_validators_share_no_answer():
    class Odd(BaseModel):
        """An even number."""

        n: int

    Odd.__name__ = "Even"
    asked = []
    told = SchemaChatModel(answers=lambda *_: asked.append(1) or '{"n": 2}')
    model = ensemble({"a": told}, cache=InMemoryCache())
    for schema in (Even, Even, Odd):
        model.with_structured_output(schema, method="json_schema").invoke("?")
    assert len(asked) == 2


def test_a_member_that_cannot_bind_tools_is_left_out_and_one_whose_binding_fails_has_failed():
    class Broken(PlainModel):
        @override
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            raise ValueError("no such tool here")

    models = {"a": ScriptedChatModel(script=["no"]), "b": Broken(script=["no"]), "c": SchemaChatModel(says="yes")}
    message = ensemble(models).bind_tools([add]).invoke("?")
    assert message.text == "yes"
    how = message.response_metadata["rlfocal"]
    assert how["excluded"] == {"a": "does not support tools"}
    with pytest.raises(EnsembleError, match="a: not asked: it does not support tools"):
        ensemble({"a": models["a"]}).bind_tools([add]).invoke("?")
    assert [(f["member"], f["kind"], f["reason"]) for f in how["failures"]] == [
        ("b", "ValueError", "no such tool here")
    ]


def test_tools_of_the_same_call_do_not_reach_the_synthesizer():
    writer = SchemaChatModel(says="both")
    models = {"a": SchemaChatModel(says="x"), "b": SchemaChatModel(says="y")}
    message = ensemble(models, synthesizer=writer, synthesize_below=1).bind_tools([add]).invoke("?")
    assert message.text == "both"
    assert writer.asked[-1].kwargs == {}


# ---- what an answer must hold

BOTH = Request.of({"tools": [add, search]})
FORMAT = {"response_format": Person}
BROKEN = invalid_tool_call(name="add", args='{"a": ', id="1", error="?")


def calling(*calls):
    return AIMessage("", tool_calls=[*calls])


@pytest.mark.parametrize(
    ("asked", "message", "kind"),
    [
        ({"tools": [add]}, calling(call("sub", a=1)), "unknown_tool"),
        ({"tools": [add]}, calling(call("add")), "invalid_arguments"),
        ({"tools": [add]}, calling(call("add", a=1), call("add", a=[1])), "invalid_arguments"),
        ({"tools": [add]}, AIMessage("text", invalid_tool_calls=[BROKEN]), "invalid_json"),
        ({"tools": [add], "tool_choice": "any"}, AIMessage("text"), "no_tool_call"),
        ({"tools": [add, search], "tool_choice": "add"}, calling(call("search", query="x")), "wrong_tool"),
        ({"tools": [add], "tool_choice": "none"}, calling(call("add", a=1)), "unwanted_call"),
        ({"tools": [add], "parallel_tool_calls": False}, calling(call("add", a=1), call("add", a=2)), "parallel_calls"),
        (FORMAT, AIMessage("Ann"), "invalid_json"),
        (FORMAT, AIMessage('{"name": '), "invalid_json"),
        (FORMAT, AIMessage('{"age": 3}'), "invalid_object"),
        (FORMAT, AIMessage([{"type": "refusal", "refusal": "I will not"}]), "refusal"),
        (FORMAT, AIMessage("", additional_kwargs={"refusal": "I will not"}), "refusal"),
        (FORMAT, calling(call("Person", name="Ann"), call("Person", name="Bob")), "unknown_tool"),
        (FORMAT, calling(call("People", name="Ann")), "unknown_tool"),
        (FORMAT, calling(call("Person")), "invalid_object"),
        ({"response_format": {"type": "json_object"}}, AIMessage("{"), "invalid_json"),
    ],
)
def test_an_answer_that_breaks_the_request_is_unusable(asked, message, kind):
    with pytest.raises(UnusableAnswerError) as caught:
        Request.of(asked).check(message)
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


class Number(BaseModel):
    """A number."""

    n: int


def test_each_class_validates_its_own_and_a_format_that_a_call_brings_goes_before_the_one_that_was_bound():
    even, odd = (SchemaChatModel(answers=lambda *_, text=text: text) for text in ('{"n": 2}', '{"n": 3}'))
    assert ensemble({"a": even}).bind_tools([Person], response_format=Even).invoke("?").text == '{"n": 2}'
    bound = ensemble({"a": odd}).bind_tools([Person], response_format=Even)
    with pytest.raises(EnsembleError, match="n must be even"):
        bound.invoke("?")
    assert bound.invoke("?", response_format=Number).text == '{"n": 3}'


class Trio(BaseModel):
    """Three numbers."""

    a: int
    b: int
    c: int


def test_json_of_no_titled_schema_can_be_asked_for():
    told = SchemaChatModel(answers=lambda *_: '{"n": 3}')
    model = ensemble({"a": told})
    assert model.bind_tools([add], response_format={"type": "json_object"}).invoke("?").text == '{"n": 3}'
    untitled = {"type": "object", "properties": {"n": {"type": "string"}}}
    with pytest.raises(EnsembleError, match="is not of type"):
        model.with_structured_output({**untitled, "properties": {"n": {"type": "array"}}}, method="json_mode").invoke(
            "?"
        )


async def test_a_preface_to_a_schema_that_goes_as_a_tool_is_not_relayed():
    spoken = AIMessage("Here you are.", tool_calls=[call("Person", name="Ann")])
    model = ensemble({"a": PlainModel(script=[spoken])}, max_team=1)
    structured = model.with_structured_output(Person, method="json_schema")
    assert structured.invoke("?") == Person(name="Ann")
    assert list(structured.stream("?")) == [Person(name="Ann")]
    assert [one async for one in structured.astream("?")] == [Person(name="Ann")]


def test_an_object_is_one_whether_or_not_another_member_calls_a_tool():
    plain = PlainModel(script=[AIMessage("", tool_calls=[call("Person", name="Ann")])])
    fenced = SchemaChatModel(answers=lambda *_: 'Here:\n```json\n{"name":  "Ann"}\n```')
    caller = SchemaChatModel(answers=lambda *_: AIMessage("", tool_calls=[call("add", a=1)]))
    for way in ("leader", "text"):
        model = ensemble({"a": plain, "b": fenced, "c": caller}, on_disagreement=way)
        message = model.bind_tools([add], response_format=Person).invoke("?")
        assert (message.text, message.tool_calls) == ('{"name": "Ann"}', [])
        assert message.response_metadata["rlfocal"]["fusion"]["action"] == "object"


def test_an_ensemble_within_an_ensemble_agrees_on_objects_field_by_field():
    people = [Trio(a=1, b=1, c=2), Trio(a=1, b=2, c=1), Trio(a=2, b=1, c=1)]
    inner = ensemble(
        {
            name: SchemaChatModel(
                answers=lambda *_, one=one: AIMessage("", tool_calls=[call("Trio", **one.model_dump())])
            )
            for name, one in zip("xyz", people, strict=True)
        },
        on_disagreement="raise",
    )
    assert ensemble({"inner": inner}).with_structured_output(Trio).invoke("?") == Trio(a=1, b=1, c=1)


def test_an_image_goes_to_a_member_that_can_be_asked_at_all():
    seeing, calling = ScriptedChatModel(script=["x"]), SchemaChatModel(answers=lambda *_: "y")
    seeing.profile = {"image_inputs": True}
    image = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    asked = [HumanMessage([{"type": "text", "text": "?"}, image])]
    message = ensemble({"a": seeing, "b": calling}).bind_tools([add]).invoke(asked)
    assert message.text == "y"
    assert message.response_metadata["rlfocal"]["excluded"] == {"a": "does not support tools"}

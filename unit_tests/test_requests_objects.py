"""Objects beside tools, and whose schema and validators they must fit."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel
from typing_extensions import override

from langchain_rlfocal import EnsembleError
from langchain_rlfocal.chat_models import requests
from langchain_rlfocal.testing import SchemaChatModel, ScriptedChatModel
from support_requests import Even, Person, add, call, ensemble


class PlainModel(ScriptedChatModel):
    """A model of a provider that knows tools, and neither `strict` nor response formats."""

    @override
    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(functions=[getattr(one, "name", str(one)) for one in tools], choice=tool_choice, **kwargs)


class Number(BaseModel):
    """A number."""

    n: int


class Trio(BaseModel):
    """Three numbers."""

    a: int
    b: int
    c: int


def test_a_format_that_a_call_brings_goes_before_the_one_that_was_bound():
    told = SchemaChatModel(answers=lambda *_: '{"n": 3}')
    bound = ensemble({"a": told}).bind_tools([], response_format=Even)
    with pytest.raises(EnsembleError, match="n must be even"):
        bound.invoke("?")
    assert bound.invoke("?", response_format=Number).text == '{"n": 3}'


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


@pytest.mark.parametrize("choice", [None, "none"])
def test_a_call_without_a_name_is_none(choice):
    nameless = SchemaChatModel(answers=lambda *_: AIMessage("", tool_calls=[call("", a=1)]))
    with pytest.raises(EnsembleError, match=r"unknown_tool|unwanted_call"):
        ensemble({"a": nameless}).bind_tools([add], tool_choice=choice).invoke("?")


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


def test_structured_output_is_one_object_whatever_the_caller_says():
    model = ensemble({"a": SchemaChatModel()})
    assert isinstance(model.with_structured_output(Person, parallel_tool_calls=True).invoke('"Ann"'), Person)


def test_an_image_goes_to_a_member_that_can_be_asked_at_all():
    seeing, calling = ScriptedChatModel(script=["x"]), SchemaChatModel(answers=lambda *_: "y")
    seeing.profile = {"image_inputs": True}
    image = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    asked = [HumanMessage([{"type": "text", "text": "?"}, image])]
    message = ensemble({"a": seeing, "b": calling}).bind_tools([add]).invoke(asked)
    assert message.text == "y"
    assert message.response_metadata["rlfocal"]["excluded"] == {"a": "knows no tools"}


def test_one_bound_model_remembers_no_more_bindings_than_it_may(monkeypatch):
    monkeypatch.setattr(requests, "_MAX_BINDINGS", 2)
    originals, model = requests.BoundTools(tools=(add,)), SchemaChatModel()
    for strict in (True, False, None, True, False):
        _, arguments = originals.bind_tools(model, [], {"strict": strict})
        assert arguments["tools"][0]["function"]["name"] == "add"
        assert len(originals._bindings) <= 2

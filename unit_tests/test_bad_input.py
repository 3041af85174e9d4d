"""Bad input: whatever a member does it is a typed failure and the rest answer; what nobody could answer is refused."""

import asyncio
import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatResult
from pydantic import BaseModel, Field

from support_odd_members import (
    DOORS,
    GUARD_S,
    TEN_MB,
    Odd,
    Tooled,
    answer_of,
    calling,
    failures_of,
    first,
    is_explained,
    loose,
    responding,
    saying,
    team,
    unparsed,
)
from support_schema_model import SchemaChatModel
from support_tools import QUESTION, lookup


def other(city: str) -> str:
    """Do something else."""
    return city


class Door(Tooled):
    """Replaces what LangChain wraps around a response: the door itself gives something odd."""

    gives: object

    @property
    def _llm_type(self):
        return "door"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise NotImplementedError

    def invoke(self, *args, **kwargs):
        return self.gives

    async def ainvoke(self, *args, **kwargs):
        return self.gives

    def stream(self, *args, **kwargs):
        yield self.gives

    async def astream(self, *args, **kwargs):
        yield self.gives


def loosely_calling(args, name="lookup"):
    return responding(loose(tool_calls=[{"name": name, "args": args, "id": "x", "type": "tool_call"}]))


def circle():
    value = {}
    value["city"] = value
    return value


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"city": value}
    return value


# ---- responses that are no answer


UNUSABLE = {
    "nothing said": (saying(""), {"empty"}),
    "ten megabytes": (saying(TEN_MB), {"too_long"}),
    "ten megabytes of arguments": (calling({"city": TEN_MB}), {"too_long"}),
    "a content that is None": (responding(loose(content=None)), {"TypeError", "malformed"}),
    "a content that is a number": (responding(loose(content=3)), {"TypeError", "malformed"}),
    "content blocks that are none": (
        responding(loose(content=[1, None])),
        {"AttributeError", "TypeError", "malformed"},
    ),
    "reasoning and nothing else": (saying(AIMessage([{"type": "reasoning", "reasoning": "hm"}])), {"empty"}),
    "no result": (Odd(made=lambda: None), {"AttributeError", "TypeError", "malformed"}),
    "no generation": (Odd(made=lambda: ChatResult(generations=[])), {"IndexError", "ValueError", "malformed"}),
    "a text in place of a message": (responding("yes"), {"AttributeError", "malformed"}),
    "a human's message": (responding(HumanMessage("yes")), {"AttributeError", "malformed", "TypeError"}),
    "None, through the door": (Door(gives=None), {"AttributeError", "malformed", "empty"}),
    "a text, through the door": (Door(gives="yes"), {"AttributeError", "malformed"}),
    "a dictionary, through the door": (Door(gives={"content": "yes"}), {"AttributeError", "malformed"}),
    "tool calls that are None": (responding(loose(tool_calls=None)), {"TypeError", "malformed"}),
    "tool calls that are a text": (responding(loose(tool_calls="lookup")), {"TypeError", "malformed"}),
    "a call without name and arguments": (responding(loose(tool_calls=[{}])), {"KeyError", "malformed"}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_response_that_is_no_answer_is_a_failure_and_the_rest_answer(name, shape, door):
    bad, kinds = UNUSABLE[name]
    message = await answer_of(shape(bad), door)
    assert message.text == "yes"
    assert failures_of(message)["bad"] in kinds
    assert is_explained(message)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
async def test_white_space_is_no_answer_and_is_not_passed_on(shape, door):
    """A stream that has given nothing but white space has said nothing yet: another member may still stand in."""
    message = await answer_of(shape(saying(" \n\t")), door)
    assert (message.text, failures_of(message)) == ("yes", {"bad": "empty"})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": None, "output_tokens": None, "total_tokens": None},
        {"input_tokens": 3},
        {"input_tokens": 1.5, "output_tokens": 1, "total_tokens": 2.5},
        "lots",
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [team, first])
async def test_a_usage_that_is_none_spoils_no_answer(shape, usage, door):
    """Two agree on yes; alone, the first's yes is the answer or the second's: no usage may come in between."""
    message = await answer_of(shape(responding(loose(content="yes", usage_metadata=usage))), door)
    assert message.text == "yes"
    assert message.usage_metadata is None or all(isinstance(n, int) for n in message.usage_metadata.values())


# ---- tool calls


MISCALLED = {
    "arguments that are no JSON": (unparsed('{"city"'), "invalid_json"),
    "arguments that break off": (unparsed('{"city": "Os'), "invalid_json"),
    "arguments that are a list": (loosely_calling(["Oslo"]), "invalid_arguments"),
    "arguments that are None": (loosely_calling(None), "invalid_arguments"),
    "arguments of a wrong type": (calling({"city": [1]}), "invalid_arguments"),
    "no argument where one is needed": (calling({}), "invalid_arguments"),
    "an unknown argument of a strange type": (loosely_calling({"city": "Oslo", "x": {1, 2}}), "invalid_arguments"),
    "keys that are no text": (loosely_calling({"city": "Oslo", 1: 2}), "invalid_arguments"),
    "arguments in a circle": (loosely_calling(circle()), "invalid_arguments"),
    "arguments nested deeply": (calling({"city": nested(100)}), "invalid_arguments"),
    "arguments nested very deeply": (calling({"city": nested(50_000)}), "RecursionError"),
    "an unknown tool": (calling({"city": "Oslo"}, name="fly"), "unknown_tool"),
    "a tool without a name": (loosely_calling({"city": "Oslo"}, name=None), "unknown_tool"),
    "a tool whose name is a megabyte": (calling({}, name="x" * 900_000), "unknown_tool"),
    "a tool whose name differs in case": (calling({"city": "Oslo"}, name="Lookup"), "unknown_tool"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("name", MISCALLED)
async def test_a_call_that_cannot_be_made_is_a_failure_and_the_rest_answer(name, shape, door):
    bad, kind = MISCALLED[name]
    message = await answer_of(shape(bad, SchemaChatModel()).bind_tools([lookup]), door)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("lookup", {"city": "Oslo"})]
    assert failures_of(message) == {"bad": kind}
    assert is_explained(message)


UNRULY = {
    "text where a call is due": (saying("I would rather not."), {"tool_choice": "any"}, "no_tool_call"),
    "text where this call is due": (saying("Oslo"), {"tool_choice": "lookup"}, "no_tool_call"),
    "another tool": (calling({"city": "Oslo"}, name="other"), {"tool_choice": "lookup"}, "wrong_tool"),
    "two calls at once": (
        saying(
            AIMessage("", tool_calls=[tool_call(name="lookup", args={"city": city}, id=city) for city in ("a", "b")])
        ),
        {"tool_choice": "lookup", "parallel_tool_calls": False},
        "parallel_calls",
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("name", UNRULY)
async def test_a_member_that_ignores_what_was_demanded_has_failed(name, shape, door):
    bad, demand, kind = UNRULY[name]
    message = await answer_of(shape(bad, SchemaChatModel()).bind_tools([lookup, other], **demand), door)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("lookup", {"city": "Oslo"})]
    assert failures_of(message) == {"bad": kind}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
async def test_a_call_where_none_is_allowed_is_a_failure(shape, door):
    model = shape(calling({"city": "Oslo"})).bind_tools([lookup], tool_choice="none")
    message = await answer_of(model, door)
    assert (message.text, message.tool_calls, failures_of(message)) == ("yes", [], {"bad": "unwanted_call"})


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)


OBJECTLESS = {
    "words": (saying("It is Oslo."), {"invalid_json"}),
    "broken JSON": (saying('{"name": "Os'), {"invalid_json"}),
    "an object that breaks the schema": (saying('{"name": 3}'), {"invalid_object"}),
    "too long a name": (saying(json.dumps({"name": "x" * 30})), {"invalid_object"}),
    "a list": (saying("[1]"), {"invalid_object"}),
    "a number of 5,000 digits": (saying('{"name": ' + "9" * 5_000 + "}"), {"invalid_json", "invalid_object"}),
    "brackets without end": (saying("[" * 200_000), {"invalid_json"}),
    "very deep JSON": (saying('{"name":' * 100_000 + "1" + "}" * 100_000), {"invalid_json", "invalid_object"}),
    "a refusal": (saying(AIMessage("", additional_kwargs={"refusal": "no"})), {"refusal", "empty"}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("name", OBJECTLESS)
async def test_a_text_that_is_not_the_object_asked_for_is_a_failure(name, shape, door):
    bad, kinds = OBJECTLESS[name]
    structured = shape(bad, saying('{"name": "Oslo"}')).with_structured_output(
        City, method="json_schema", include_raw=True
    )
    async with asyncio.timeout(GUARD_S):
        found = structured.invoke(QUESTION) if door in ("invoke", "stream") else await structured.ainvoke(QUESTION)
    assert found["parsed"] == City(name="Oslo")
    assert failures_of(found["raw"])["bad"] in kinds

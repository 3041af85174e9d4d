"""Bad members: whatever a member does is a typed failure, and the rest answer; what nobody could answer is refused."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatResult
from pydantic import BaseModel, Field

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.testing import FailingChatModel, ScriptedPolicy
from support_contract import answer_of
from support_odd_members import (
    TEN_MB,
    Odd,
    Saying,
    Tooled,
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

WAYS = [(team, "invoke"), (team, "ainvoke"), (first, "stream"), (first, "astream")]
"""Beside two good members, or alone with its text passed on; in threads, or on an event loop."""

asked_each_way = pytest.mark.parametrize(("shape", "door"), WAYS)


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)


# ---- responses that are no answer


@asked_each_way
@pytest.mark.parametrize(
    ("bad", "kinds"),
    [
        (saying(""), {"empty"}),
        (saying(" \n\t"), {"empty"}),
        (saying(AIMessage([{"type": "reasoning", "reasoning": "hm"}])), {"empty"}),
        (saying(TEN_MB), {"too_long"}),
        (calling({"city": TEN_MB}), {"too_long"}),
        (responding(loose(content=None)), {"TypeError", "malformed"}),
        (Odd(made=lambda: ChatResult(generations=[])), {"IndexError", "ValueError", "malformed"}),
    ],
    ids=["nothing", "white space", "reasoning alone", "ten megabytes", "as arguments", "None", "no generation"],
)
async def test_a_response_that_is_no_answer_is_a_failure_and_the_rest_answer(bad, kinds, shape, door):
    message = await answer_of(shape(bad), door)
    assert message.text == "yes"
    assert failures_of(message)["bad"] in kinds
    assert is_explained(message)


@asked_each_way
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (unparsed('{"city": "Os'), "invalid_json"),
        (calling({"city": [1]}), "invalid_arguments"),
        (calling({}), "invalid_arguments"),
        (calling({"city": "Oslo"}, name="fly"), "unknown_tool"),
        (calling({"city": "Oslo"}, name="Lookup"), "unknown_tool"),
    ],
)
async def test_a_call_that_cannot_be_made_is_a_failure_and_the_rest_answer(bad, kind, shape, door):
    message = await answer_of(shape(bad, SchemaChatModel()).bind_tools([lookup]), door)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("lookup", {"city": "Oslo"})]
    assert failures_of(message) == {"bad": kind}
    assert is_explained(message)


@pytest.mark.parametrize("door", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    ("bad", "kinds"),
    [
        ("It is Oslo.", {"invalid_json"}),
        ('{"name": "Os', {"invalid_json"}),
        ('{"name": "a name of more than twenty characters"}', {"invalid_object"}),
        ("[1]", {"invalid_object"}),
        ("[" * 1_000, {"invalid_json"}),
        (AIMessage("", additional_kwargs={"refusal": "no"}), {"refusal", "empty"}),
    ],
)
async def test_a_text_that_is_not_the_object_asked_for_is_a_failure(bad, kinds, door):
    model = team(saying(bad), saying('{"name": "Oslo"}'))
    structured = model.with_structured_output(City, method="json_schema", include_raw=True)
    found = structured.invoke(QUESTION) if door == "invoke" else await structured.ainvoke(QUESTION)
    assert found["parsed"] == City(name="Oslo")
    assert failures_of(found["raw"])["bad"] in kinds


async def test_a_usage_that_is_unknown_spoils_no_answer():
    usage = {"input_tokens": None, "output_tokens": None, "total_tokens": None}
    message = await answer_of(team(responding(loose(content="yes", usage_metadata=usage))), "invoke")
    assert message.text == "yes"
    assert all(isinstance(number, int) for number in message.usage_metadata.values())


# ---- exceptions


class Raising(FailingChatModel, Tooled):
    pass


class Panic(BaseException):
    """Like pyo3's PanicException, it derives from no Exception."""


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name
    """Stands for LangGraph's own, which is recognised by its name."""


RAISED = [
    ValueError("a\x00b\ud800"),
    KeyError(),
    TimeoutError(),
    NotImplementedError(),
    RecursionError("deep"),
    StopIteration("stop"),
    StopAsyncIteration("stop"),
    asyncio.CancelledError("mine"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    Panic("at the edge"),
]


@asked_each_way
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_member_raises_is_its_failure_and_the_rest_answer(error, shape, door):
    """Inside coroutines and generators Python turns the two Stop errors into a RuntimeError."""
    message = await answer_of(shape(Raising(error=error)), door)
    assert message.text == "yes"
    is_stop = isinstance(error, StopIteration | StopAsyncIteration)
    assert failures_of(message)["bad"] in {type(error).__name__, *(["RuntimeError"] if is_stop else [])}
    assert is_explained(message)


@asked_each_way
async def test_langgraphs_control_flow_passes_through_the_model(shape, door):
    with pytest.raises(GraphBubbleUp):
        await answer_of(shape(Raising(error=GraphBubbleUp("interrupt"))), door)


@pytest.mark.parametrize(("shape", "door"), [(team, "invoke"), (first, "stream")])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_the_wish_to_stop_the_program_passes_through_the_model(shape, error, door):
    with pytest.raises(type(error)):
        list(getattr(shape(Raising(error=error)), door)(QUESTION))


async def test_what_bind_tools_raises_is_the_members_failure():
    class Unbindable(Saying):
        def bind_tools(self, tools, **kwargs):
            raise TypeError("no tools on Mondays")

    message = await answer_of(team(Unbindable(script=["?"])).bind_tools([lookup]), "invoke")
    assert (message.text, failures_of(message)) == ("yes", {"bad": "TypeError"})


@pytest.mark.parametrize("door", ["invoke", "ainvoke", "stream", "astream"])
async def test_where_everybody_is_bad_one_error_names_each_with_its_cause(door):
    members = {
        "mute": saying(""),
        "broken": unparsed('{"city"'),
        "lost": calling({}, name="fly"),
        "late": Raising(error=TimeoutError("too slow")),
    }
    policy = ScriptedPolicy([tuple(members)], tuple(members))
    model = RLFocalChatModel(members=members, policy=policy, max_team=4, max_retries=0)
    with pytest.raises(EnsembleError) as caught:
        await answer_of(model.bind_tools([lookup]), door)
    kinds = {name: cause.split(":")[0] for name, cause in caught.value.failures.items()}
    assert kinds == {"mute": "empty", "broken": "invalid_json", "lost": "unknown_tool", "late": "TimeoutError"}
    assert all(f"{name}: {cause.rstrip('.')}" in str(caught.value) for name, cause in caught.value.failures.items())
    assert caught.value.is_retryable


# ---- what the caller gives


@pytest.mark.parametrize("door", ["invoke", "astream"])
@pytest.mark.parametrize("messages", [[], " \n", [HumanMessage("")], [HumanMessage([])], [AIMessage("")]], ids=str)
async def test_nothing_asked_is_refused(messages, door):
    with pytest.raises(InputError, match="At least one message must have content"):
        await answer_of(team(saying("yes")), door, messages)


@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage("Be brief.")],
        [AIMessage("I began.")],
        [ToolMessage("found", tool_call_id="nobody's")],
        [AIMessage("", tool_calls=[tool_call(name="lookup", args={}, id="1")])],
        [HumanMessage("a"), HumanMessage("b"), HumanMessage("")],
        [HumanMessage([{"type": "unheard_of", "x": 1}, {"type": "text", "text": "?"}])],
    ],
    ids=["system", "assistant", "orphaned result", "open call", "three in a row", "an unknown block"],
)
async def test_conversations_of_an_odd_shape_are_answered(messages):
    assert (await answer_of(team(saying("yes")), "invoke", messages)).text == "yes"


# ---- text that is hard to hold


@asked_each_way
@pytest.mark.parametrize("text", ["a\x00b", "half a \ud800 pair", "\u202e\x1b[31mred"])
async def test_strange_characters_are_an_answer_like_any_other(text, shape, door):
    message = await answer_of(shape(saying(text), saying(text)), door)
    assert message.text == text
    assert is_explained(message)


@settings(max_examples=20)
@given(st.text(st.characters(), max_size=60))
def test_any_text_is_answered_or_is_empty(text):
    message = team(saying(text)).invoke(QUESTION)
    assert message.text in {text, "yes"}
    assert failures_of(message) == ({} if text.strip() else {"bad": "empty"})
    assert is_explained(message)


@pytest.mark.parametrize("door", ["stream", "astream"])
async def test_a_stream_without_chunks_is_a_failure_and_the_next_member_stands_in(door):
    class Silent(Saying):
        def _stream(self, *_args, **_kwargs):
            yield from ()

        async def _astream(self, *_args, **_kwargs):
            for chunk in ():
                yield chunk

    message = await answer_of(first(Silent(script=["?"])), door)
    assert (message.text, set(failures_of(message))) == ("yes", {"bad"})

"""Bad members: whatever a member does is a typed failure, and the rest answer; what nobody could answer is refused."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import BaseModel, Field

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.testing import FailingChatModel, ScriptedPolicy
from support_odd_members import (
    DOORS,
    GUARD_S,
    TEN_MB,
    Odd,
    Saying,
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


def loosely_calling(args, name="lookup"):
    return responding(loose(tool_calls=[{"name": name, "args": args, "id": "x", "type": "tool_call"}]))


# ---- responses that are no answer


UNUSABLE = {
    "nothing said": (saying(""), {"empty"}),
    "ten megabytes": (saying(TEN_MB), {"too_long"}),
    "ten megabytes of arguments": (calling({"city": TEN_MB}), {"too_long"}),
    "a content that is None": (responding(loose(content=None)), {"TypeError", "malformed"}),
    "reasoning and nothing else": (saying(AIMessage([{"type": "reasoning", "reasoning": "hm"}])), {"empty"}),
    "no generation": (Odd(made=lambda: ChatResult(generations=[])), {"IndexError", "ValueError", "malformed"}),
    "a text in place of a message": (responding("yes"), {"AttributeError", "malformed"}),
    "a human's message": (responding(HumanMessage("yes")), {"AttributeError", "malformed", "TypeError"}),
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
    "an unknown tool": (calling({"city": "Oslo"}, name="fly"), "unknown_tool"),
    "a tool without a name": (loosely_calling({"city": "Oslo"}, name=None), "unknown_tool"),
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


class Raising(FailingChatModel, Tooled):
    pass


# ---- exceptions


class Panic(BaseException):
    """Like pyo3's PanicException, it derives from no Exception."""


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name
    """Stands for LangGraph's own, which is recognised by its name."""


class Mute(Exception):  # noqa: N818  # never mind
    def __str__(self):
        raise RuntimeError("no words")


RAISED = [
    ValueError("plain"),
    KeyError(),
    StopIteration("stop"),
    StopAsyncIteration("stop"),
    RecursionError("deep"),
    MemoryError(),
    asyncio.CancelledError("mine"),
    TimeoutError(),
    NotImplementedError(),
    AssertionError("a\x00b\ud800"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    Mute(),
    Panic("at the edge"),
    BaseExceptionGroup("several", [Panic("at the edge")]),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_member_raises_is_its_failure_and_the_rest_answer(error, shape, door):
    """Inside coroutines and generators Python turns the two Stop errors into a RuntimeError."""
    message = await answer_of(shape(Raising(error=error)), door)
    assert message.text == "yes"
    kinds = {type(error).__name__} | (
        {"RuntimeError"} if isinstance(error, StopIteration | StopAsyncIteration) else set()
    )
    assert failures_of(message)["bad"] in kinds
    assert is_explained(message)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
async def test_langgraphs_control_flow_passes_through_the_model(shape, door):
    with pytest.raises(GraphBubbleUp):
        await answer_of(shape(Raising(error=GraphBubbleUp("interrupt"))), door)


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("shape", [team, first])
def test_the_wish_to_stop_the_program_passes_through_the_model(shape, error, door):
    with pytest.raises(type(error)):
        list(getattr(shape(Raising(error=error)), door)(QUESTION))


@pytest.mark.parametrize("door", DOORS)
async def test_what_bind_tools_raises_is_the_members_failure(door):
    class Unbindable(Saying):
        def bind_tools(self, tools, **kwargs):
            raise TypeError("no tools on Mondays")

    message = await answer_of(team(Unbindable(script=["?"])).bind_tools([lookup]), door)
    assert (message.text, failures_of(message)) == ("yes", {"bad": "TypeError"})


# ---- nobody answers


@pytest.mark.parametrize("door", DOORS)
async def test_where_everybody_is_bad_one_error_names_each_with_its_cause(door):
    members = {
        "mute": saying(""),
        "long": saying(TEN_MB),
        "broken": unparsed('{"city"'),
        "lost": calling({}, name="fly"),
        "late": Raising(error=TimeoutError("too slow")),
        "none": responding(loose(content=None)),
    }
    policy = ScriptedPolicy([tuple(members)], tuple(members))
    model = RLFocalChatModel(members=members, policy=policy, max_team=6, max_retries=0)
    with pytest.raises(EnsembleError) as caught:
        await answer_of(model.bind_tools([lookup]), door)
    kinds = {name: cause.split(":")[0] for name, cause in caught.value.failures.items()}
    assert kinds == {
        "mute": "empty",
        "long": "too_long",
        "broken": "invalid_json",
        "lost": "unknown_tool",
        "late": "TimeoutError",
        "none": "TypeError",
    }
    assert all(f"{name}: {cause.rstrip('.')}" in str(caught.value) for name, cause in caught.value.failures.items())
    assert len(str(caught.value)) < 3_000
    assert caught.value.is_retryable


# ---- what the caller gives


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "messages",
    [[], "", " \n", [HumanMessage("")], [SystemMessage("")], [HumanMessage([])], [AIMessage("")]],
    ids=str,
)
async def test_nothing_asked_is_refused_through_every_door(messages, door):
    with pytest.raises(InputError, match="At least one message must have content"):
        await answer_of(team(saying("yes")), door, messages)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage("Be brief.")],
        [AIMessage("I began.")],
        [ToolMessage("found", tool_call_id="nobody's")],
        [AIMessage("", tool_calls=[tool_call(name="lookup", args={}, id="1")])],
        [HumanMessage("a"), HumanMessage("b"), HumanMessage("")],
        [HumanMessage("q" * 1_000_000)],
        [HumanMessage([{"type": "unheard_of", "x": 1}, {"type": "text", "text": "?"}])],
    ],
    ids=["system", "assistant", "orphaned result", "open call", "three in a row", "a megabyte", "an unknown block"],
)
async def test_conversations_of_an_odd_shape_are_answered(messages, door):
    assert (await answer_of(team(saying("yes")), door, messages)).text == "yes"


@pytest.mark.parametrize("method", ["xml", None, ""])
def test_an_unknown_method_of_structured_output_is_refused(method):
    with pytest.raises(InputError, match="`method` must be"):
        team(saying("yes")).with_structured_output({"title": "City", "type": "object"}, method=method)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_without_a_schema_is_refused(method):
    with pytest.raises(InputError, match="`schema` must be given"):
        team(saying("yes")).with_structured_output(None, method=method)


# ---- text that is hard to hold


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("text", ["a\x00b", "half a \ud800 pair", "\udfff", "\u202eback", "\x1b[31mred", "9" * 5_000])
async def test_strange_characters_are_an_answer_like_any_other(text, shape, door):
    message = await answer_of(shape(saying(text), saying(text)), door)
    assert message.text == text
    assert is_explained(message)


@settings(max_examples=40)
@given(st.text(st.characters(), max_size=60))
def test_any_text_is_answered_or_is_empty(text):
    message = team(saying(text)).invoke(QUESTION)
    assert message.text in {text, "yes"}
    assert failures_of(message) == ({} if text.strip() else {"bad": "empty"})
    assert is_explained(message)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content": JUNK,
            "tool_calls": JUNK | st.lists(st.fixed_dictionaries({"name": JUNK, "args": JUNK, "id": JUNK}), max_size=2),
            "invalid_tool_calls": JUNK,
            "usage_metadata": JUNK | st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), JUNK),
            "response_metadata": JUNK,
            "additional_kwargs": JUNK,
            "id": JUNK,
        },
    )
)
def test_no_message_however_odd_keeps_the_others_from_answering(fields):
    """Fusion hears two that agree, whatever the third is made of."""
    message = team(responding(loose(**fields))).invoke(QUESTION)
    assert message.text == "yes"
    message = team(responding(loose(**fields)), SchemaChatModel()).bind_tools([lookup]).invoke(QUESTION)
    assert [call["args"] for call in message.tool_calls] == [{"city": "Oslo"}]


# ---- chunks


class Chunks(Tooled):
    """Streams these objects."""

    given: list

    @property
    def _llm_type(self):
        return "chunks"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise NotImplementedError

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        yield from self.given

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self.given:
            yield chunk


@pytest.mark.parametrize("door", ["stream", "astream"])
@pytest.mark.parametrize(
    "given",
    [[], [None], ["yes"], [ChatGenerationChunk.model_construct(message="yes", text="", generation_info=None)]],
    ids=["none", "None", "text", "a chunk that holds no message"],
)
async def test_a_stream_of_odd_chunks_is_a_failure_and_the_next_member_stands_in(given, door):
    message = await answer_of(first(Chunks(given=given)), door)
    assert message.text == "yes"
    assert set(failures_of(message)) == {"bad"}

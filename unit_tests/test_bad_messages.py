"""Odd messages, odd text and odd chunks, from a member beside good ones and from one that is asked first."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import SchemaChatModel, ScriptedChatModel, ScriptedPolicy

QUESTION = "Use lookup for Oslo."
DOORS = ["invoke", "ainvoke", "stream", "astream"]
GUARD_S = 10
"""Nobody waits so long unless the test fails."""


def lookup(city: str) -> str:
    """Look a city up."""
    return city


class Tooled(BaseChatModel):
    """A double that knows of tools, and does not care."""

    def bind_tools(self, tools, **kwargs):
        return self.bind()


class Saying(ScriptedChatModel, Tooled):
    pass


class Odd(Tooled):
    """Hands on a response that LangChain's types would not allow; `made` makes it anew for each call."""

    made: object

    @property
    def _llm_type(self):
        return "odd"

    @property
    def _identifying_params(self):
        return {}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return self.made()

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        return self.made()


def saying(answer):
    return Saying(script=[answer])


def responding(message):
    """A model whose response is this object, unchecked."""
    generation = ChatGeneration.model_construct(message=message, text="", generation_info=None)
    return Odd(made=lambda: ChatResult.model_construct(generations=[generation], llm_output=None))


def loose(**fields):
    """A message that nothing has checked."""
    return AIMessage.model_construct(**{"content": "", "tool_calls": [], "invalid_tool_calls": [], **fields})


def calling(args, name="lookup"):
    return saying(AIMessage("", tool_calls=[tool_call(name=name, args=args, id="x")]))


def team(bad, good=None):
    """The bad member is asked beside two good ones."""
    members = {"bad": bad, "good": good or saying("yes"), "also": good or saying("yes")}
    return RLFocalChatModel(members=members, policy=ScriptedPolicy([tuple(members)], tuple(members)))


def first(bad, good=None):
    """The bad member is asked alone, its text passed on while it comes, and a good one may stand in."""
    members = {"bad": bad, "good": good or saying("yes")}
    return RLFocalChatModel(
        members=members, policy=ScriptedPolicy([["bad"], ["good"]], tuple(members)), max_rounds=1, max_team=2
    )


async def answer_of(model, door, question=QUESTION, /, **kwargs):
    """Ask through one of the four doors; chunks are put together."""
    async with asyncio.timeout(GUARD_S):
        if door == "invoke":
            return model.invoke(question, **kwargs)
        if door == "ainvoke":
            return await model.ainvoke(question, **kwargs)
        if door == "stream":
            chunks = list(model.stream(question, **kwargs))
        else:
            chunks = [chunk async for chunk in model.astream(question, **kwargs)]
        return sum(chunks[1:], chunks[0])


def failures_of(message):
    return {f["member"]: f["kind"] for f in message.response_metadata["rlfocal"]["failures"]}


def is_explained(message):
    """True if what the answer says of itself is JSON and can be shown."""
    json.dumps(message.response_metadata["rlfocal"], allow_nan=False)
    shown = RLFocalChatModel.explain(message)
    return shown.encode().decode() == shown and "\x00" not in shown


# ---- text that is hard to hold


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("text", ["a\x00b", "half a \ud800 pair", "\udfff", "\u202eback", "\x1b[31mred", "9" * 5_000])
async def test_strange_characters_are_an_answer_like_any_other(text, shape, door):
    message = await answer_of(shape(saying(text), saying(text)), door)
    assert message.text == text
    assert is_explained(message)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("value", ["a\x00b", "\ud800", "\u202e"])
async def test_strange_characters_in_arguments_go_out_as_they_came(value, door):
    message = await answer_of(team(calling({"city": value}), calling({"city": value})).bind_tools([lookup]), door)
    assert [call["args"] for call in message.tool_calls] == [{"city": value}]


@pytest.mark.parametrize("door", DOORS)
async def test_strange_characters_in_the_question_reach_the_policy_and_the_members(door, bare_policy):
    question = "What is \x00 and \ud800 and \udfff?"
    model = RLFocalChatModel(members={"ann": saying("yes"), "bob": saying("yes")}, policy=bare_policy)
    assert (await answer_of(model, door, question)).text == "yes"


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

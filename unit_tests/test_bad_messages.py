"""Odd messages, odd text and odd chunks, from a member beside good ones and from one that is asked first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.outputs import ChatGenerationChunk

from langchain_rlfocal import RLFocalChatModel
from support_odd_members import (
    DOORS,
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
)
from support_schema_model import SchemaChatModel
from support_tools import QUESTION, lookup

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

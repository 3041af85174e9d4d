"""Streaming: pieces that make up the answer, and one last chunk that says how it came about."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.chat_models.metadata import text_pieces
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_calls import collect
from support_ensembles import saying

QUESTION = "Which colour?"
TEXT = "  It is\n\n\tblue,  they say. "


def model_of(members, *rounds, **fields):
    teams = rounds or (tuple(members),)
    return RLFocalChatModel(members=members, policy=ScriptedPolicy(teams, tuple(members)), **fields)


async def streams_of(model, **kwargs):
    """Both streams of one question; they must be the same but for ids and times."""
    chunks = list(model.stream(QUESTION, **kwargs))
    achunks = [chunk async for chunk in model.astream(QUESTION, **kwargs)]
    assert [chunk.content for chunk in chunks] == [chunk.content for chunk in achunks]
    return chunks, achunks


class Recording(ScriptedChatModel):
    """Notes through which door it was asked."""

    doors: list[str] = []  # noqa: RUF012  # pydantic copies it

    def _generate(self, *args, **kwargs):
        self.doors.append("whole")
        return super()._generate(*args, **kwargs)

    def _stream(self, *args, **kwargs):
        self.doors.append("stream")
        yield from super()._stream(*args, **kwargs)


def relaying(text=TEXT, **fields):
    return model_of({"a": saying(text)}, **fields)


def fusing(text=TEXT, **fields):
    return model_of({"a": saying(text), "b": saying(text)}, **fields)


@pytest.mark.parametrize("make", [relaying, fusing])
async def test_the_pieces_make_up_the_text_to_the_last_space(make):
    for chunks in await streams_of(make()):
        assert len(chunks) > 4
        assert "".join(chunk.content for chunk in chunks) == TEXT


@given(st.text())
def test_pieces_of_any_text_joined_are_the_text(text):
    pieces = list(text_pieces(text))
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize("make", [relaying, fusing])
async def test_only_the_last_chunk_carries_metadata_and_usage(make):
    """LangChain joins what it finds on several chunks: the model would be called "rlfocalrlfocal"."""
    for chunks in await streams_of(make()):
        *others, last = chunks
        assert all(chunk.usage_metadata is None and chunk.response_metadata == {} for chunk in others)
        assert last.chunk_position == "last"
        assert last.usage_metadata["input_tokens"] > 0
        assert last.response_metadata.keys() == {"model_name", "rlfocal"}


@pytest.mark.parametrize("make", [relaying, fusing])
async def test_the_chunks_together_are_what_invoke_answers(make):
    model = make(clock=lambda: 0.0)
    whole = model.invoke(QUESTION)
    for chunks in await streams_of(model):
        merged = sum(chunks[1:], chunks[0])
        assert merged.content == whole.content
        assert merged.response_metadata == whole.response_metadata
        assert merged.usage_metadata == whole.usage_metadata
        assert len({chunk.id for chunk in chunks}) == 1
        assert json.dumps(merged.response_metadata)


def test_a_member_that_answers_alone_is_relayed_and_others_are_asked_whole():
    """Alone means that nobody can be asked after it: the team, the rounds or the pool are at their end."""
    cases = [
        ({"max_team": 1}, ("a", "b"), [["a"]], ["stream"]),
        ({"max_rounds": 1}, ("a", "b"), [["a"]], ["stream"]),
        ({}, ("a",), [["a"]], ["stream"]),
        ({}, ("a", "b"), [["a"]], ["whole"]),
        ({}, ("a", "b"), [["a", "b"]], ["whole", "whole"]),
        ({}, ("a", "b"), [["a"], ["b"]], ["whole", "whole"]),
    ]
    for knobs, names, teams, doors in cases:
        seen = []
        members = {name: Recording(script=["blue"]) for name in names}
        for member in members.values():
            member.doors = seen
        text = "".join(chunk.text for chunk in model_of(members, *teams, **knobs).stream(QUESTION))
        assert text == "blue"
        assert seen == doors, (knobs, names, teams)


async def test_a_relayed_token_is_there_before_the_member_has_ended():
    """The member stops after its first word until the reader has seen it."""
    seen = asyncio.Event()

    class Halting(ScriptedChatModel):
        async def _astream(self, *args, **kwargs):
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                await seen.wait()

    words = []
    async for chunk in model_of({"a": Halting(script=["one two"])}).astream(QUESTION):
        words.append(chunk.text)
        seen.set()
    assert words[:2] == ["one ", "two"]


async def test_after_a_failed_round_the_last_one_is_relayed():
    """Nobody has answered yet, so the one asked last answers alone."""
    model = model_of({"a": FailingChatModel(error=ValueError("no")), "b": saying("blue sky")}, ["a"], ["b"])
    for chunks in await streams_of(model):
        assert [chunk.text for chunk in chunks] == ["blue ", "sky", ""]
        assert [f["member"] for f in chunks[-1].response_metadata["rlfocal"]["failures"]] == ["a"]


async def test_a_stream_that_breaks_raises_after_what_came():
    model = model_of({"a": FailingChatModel(error=ConnectionError("lost"), after="Half an")})
    words = []
    with pytest.raises(EnsembleError, match="`a` broke off while its text was being passed on: ConnectionError: lost"):
        words.extend(chunk.text for chunk in model.stream(QUESTION))
    words = []
    with pytest.raises(EnsembleError, match="`a` broke off while its text was being passed on: ConnectionError: lost"):
        await collect(model.astream(QUESTION), words)
    assert words == ["Half ", "an"]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
async def test_tool_calls_come_whole_and_once(names):
    call = {"name": "add", "args": {"a": 1, "ü": "ö"}, "id": "theirs", "type": "tool_call"}
    two = [call, {**call, "args": {"a": 2}}]
    model = model_of({name: saying(AIMessage("Adding.", tool_calls=two)) for name in names})
    for chunks in await streams_of(model):
        merged = sum(chunks[1:], chunks[0])
        assert [(c["name"], c["args"]) for c in merged.tool_calls] == [("add", call["args"]), ("add", {"a": 2})]
        assert len({c["id"] for c in merged.tool_calls} - {"theirs"}) == 2
        assert merged.content == "Adding."
        assert "ü" in merged.tool_call_chunks[0]["args"]


async def test_the_synthesizers_text_is_streamed_in_the_members_place():
    members = {"a": saying("red"), "b": saying("blue")}
    model = model_of(members, synthesizer=saying("It is  violet."), synthesize_below=1.0)
    for chunks in await streams_of(model):
        assert "".join(chunk.text for chunk in chunks) == "It is  violet."


async def test_provider_extras_of_relayed_chunks_stay_behind():
    """An id of theirs would break LangGraph's bookkeeping, their reasoning the next member."""

    class Native(ScriptedChatModel):
        def _stream(self, *args, **kwargs):
            for chunk in super()._stream(*args, **kwargs):
                chunk.message = AIMessageChunk(
                    content=[
                        {"type": "thinking", "thinking": "hm", "index": 0},
                        {"type": "text", "text": str(chunk.text), "index": 1},
                    ],
                    id="msg_theirs",
                    additional_kwargs={"reasoning": "hm"},
                )
                yield chunk

        async def _astream(self, *args, **kwargs):
            for chunk in self._stream(*args, **kwargs):
                yield chunk

    for chunks in await streams_of(model_of({"a": Native(script=["one two"])})):
        assert [chunk.content for chunk in chunks] == ["one ", "two", ""]
        assert all(chunk.id.startswith("lc_run-") and chunk.additional_kwargs == {} for chunk in chunks)


async def test_leaving_a_stream_early_ends_the_member_and_both_runs():
    never = asyncio.Event()

    class Halting(ScriptedChatModel):
        async def _astream(self, *args, **kwargs):
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                await never.wait()

    collector = RunCollectorCallbackHandler()
    stream = model_of({"a": Halting(script=["one two"])}).astream(QUESTION, {"callbacks": [collector]})
    assert (await anext(stream)).text == "one "
    await stream.aclose()
    await until_alone()
    [run] = collector.traced_runs
    assert run.end_time is not None
    assert [child.end_time is not None for child in run.child_runs] == [True]


async def until_alone():
    """Let the tasks end with which Python closes abandoned generators, one inside the other."""
    for _ in range(5):
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_reader_that_leaves_a_sync_stream_ends_the_member():
    ended = []

    class Halting(ScriptedChatModel):
        def _stream(self, *args, **kwargs):
            try:
                yield from super()._stream(*args, **kwargs)
            finally:
                ended.append(True)

    stream = model_of({"a": Halting(script=["one two"])}).stream(QUESTION)
    next(stream)
    stream.close()
    assert ended == [True]


class Tokens(BaseCallbackHandler):
    def __init__(self):
        self.tokens = []

    def on_llm_new_token(self, token, **_kwargs):
        self.tokens.append(token)


@pytest.mark.parametrize("make", [relaying, fusing])
def test_a_handler_is_told_each_token_once(make):
    handler = Tokens()
    list(make().stream(QUESTION, {"callbacks": [handler]}))
    assert "".join(handler.tokens) == TEXT


def test_streaming_true_answers_invoke_by_way_of_the_stream_and_false_answers_stream_whole():
    handler = Tokens()
    message = relaying(streaming=True).invoke(QUESTION, {"callbacks": [handler]})
    assert "".join(handler.tokens) == message.text == TEXT
    assert message.response_metadata["rlfocal"]["trained"] is False
    assert [str(chunk.text) for chunk in relaying(streaming=False).stream(QUESTION)] == [TEXT]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("make", [relaying, fusing])
async def test_the_newest_event_stream_carries_the_same_answer(make):
    stream = make().stream_events(QUESTION, version="v3")
    assert "".join(stream.text) == TEXT
    astream = await make().astream_events(QUESTION, version="v3")
    assert "".join([piece async for piece in astream.text]) == TEXT


@pytest.mark.parametrize("make", [relaying, fusing])
async def test_content_blocks_are_one_text_block(make):
    for chunks in await streams_of(make(output_version="v1")):
        merged = sum(chunks[1:], chunks[0])
        [block] = merged.content_blocks
        assert (block["type"], block["text"]) == ("text", TEXT)

"""Streaming: pieces that make up the answer, who stands in, what nobody can take back, and the last chunk that says how it came about."""

import asyncio
import json
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.chat_models.metadata import text_pieces
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_calls import collect
from support_ensembles import model_of, saying
from support_schema_model import SchemaChatModel

QUESTION = "Which colour?"
TEXT = "  It is\n\n\tblue,  they say. "


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
async def test_the_chunks_together_are_what_invoke_answers_and_only_the_last_has_metadata(make):
    """LangChain joins what it finds on several chunks: the model would be called "rlfocalrlfocal"."""
    model = make(clock=lambda: 0.0)
    config = {"run_id": uuid4()}  # an answer's id is that of its run
    whole = model.invoke(QUESTION, config)
    for chunks in await streams_of(model, config=config):
        *others, last = chunks
        assert len(chunks) > 4
        assert all(chunk.usage_metadata is None and chunk.response_metadata == {} for chunk in others)
        assert last.chunk_position == "last"
        merged = sum(chunks[1:], chunks[0])
        assert merged.content == whole.content == TEXT
        assert merged.response_metadata == whole.response_metadata
        assert merged.usage_metadata == whole.usage_metadata
        assert len({chunk.id for chunk in chunks}) == 1
        assert json.dumps(merged.response_metadata)


@settings(max_examples=50)
@given(st.text())
def test_pieces_of_any_text_joined_are_the_text(text):
    pieces = list(text_pieces(text))
    assert "".join(pieces) == text
    assert all(pieces)


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


class Tokens(BaseCallbackHandler):
    def __init__(self):
        self.tokens = []

    def on_llm_new_token(self, token, **_kwargs):
        self.tokens.append(token)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("make", [relaying, fusing])
async def test_handlers_and_events_are_told_each_token_once(make):
    handler = Tokens()
    chunks = list(make().stream(QUESTION, {"callbacks": [handler]}))
    [block] = sum(chunks[1:], chunks[0]).content_blocks
    assert (block["type"], block["text"], "".join(handler.tokens)) == ("text", TEXT, TEXT)
    stream = make().stream_events(QUESTION, version="v3")
    assert "".join(stream.text) == TEXT
    astream = await make().astream_events(QUESTION, version="v3")
    assert "".join([piece async for piece in astream.text]) == TEXT


def test_streaming_true_answers_invoke_by_way_of_the_stream_and_false_answers_stream_whole():
    handler = Tokens()
    message = relaying(streaming=True).invoke(QUESTION, {"callbacks": [handler]})
    assert "".join(handler.tokens) == message.text == TEXT
    assert message.response_metadata["rlfocal"]["trained"] is False
    assert [str(chunk.text) for chunk in relaying(streaming=False).stream(QUESTION)] == [TEXT]


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


class Colour(BaseModel):
    """A colour."""

    name: str


class Doors(SchemaChatModel):
    """Notes through which door it was asked to stream."""

    doors: list[str] = Field(default_factory=list)

    def _stream(self, *args, **kwargs):
        self.doors.append("stream")
        yield from super()._stream(*args, **kwargs)

    async def _astream(self, *args, **kwargs):
        self.doors.append("astream")
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk


def answering(answer):
    return SchemaChatModel(answers=lambda _messages, _tools: answer)


def failing(after=""):
    return FailingChatModel(error=ConnectionError("lost"), after=after)


async def both_streams(model):
    """The chunks of both streams of one question."""
    yield list(model.stream(QUESTION))
    yield [chunk async for chunk in model.astream(QUESTION)]


def words_of(chunks):
    return [chunk.text for chunk in chunks if chunk.text]


def how(chunks):
    return chunks[-1].response_metadata["rlfocal"]


# ---- who stands in


@pytest.mark.parametrize("knobs", [{"max_rounds": 1}, {"max_rounds": 2}, {"max_rounds": 1, "max_team": 2}])
async def test_before_the_first_token_the_next_member_stands_in_as_the_team_allows(knobs):
    model = model_of({"a": failing(), "b": saying("deep blue"), "c": saying("red")}, ["a"], ["b"], ["c"], **knobs)
    async for chunks in both_streams(model):
        assert words_of(chunks) == ["deep ", "blue"]
        assert [row["asked"] for row in how(chunks)["rounds"]] == [["a"], ["b"]]
        assert [(f["member"], f["kind"]) for f in how(chunks)["failures"]] == [("a", "ConnectionError")]
        assert len([chunk for chunk in chunks if chunk.usage_metadata]) == 1
    assert model.invoke(QUESTION).text == "deep blue"


async def test_standing_in_is_bound_by_the_teams_cap():
    model = model_of({"a": failing(), "b": saying("blue")}, ["a"], ["b"], max_team=1)
    with pytest.raises(EnsembleError, match="Not asked: b; raise `max_team` to let them stand in"):
        _ = [chunks async for chunks in both_streams(model)]


def test_the_policy_is_told_no_round_beyond_the_last():
    told = []

    class Told(ScriptedPolicy):
        def select(self, *args, round_number, max_rounds, **kwargs):
            told.append((round_number, max_rounds))
            return super().select(*args, round_number=round_number, max_rounds=max_rounds, **kwargs)

    members = {"a": failing(), "b": failing(), "c": saying("blue")}
    policy = Told([["a"], ["b"], ["c"]], tuple(members))
    model = RLFocalChatModel(members=members, policy=policy, max_rounds=1, max_retries=0)
    assert model.invoke(QUESTION).text == "blue"
    assert told == [(1, 1)] * 3


async def test_an_unusable_answer_before_the_first_token_is_stood_in_for():
    unknown = AIMessage("", tool_calls=[{"name": "sing", "args": {}, "id": "1"}])
    members = {"a": answering(unknown), "b": answering("blue")}
    model = model_of(members, ["a"], ["b"], max_rounds=1).bind_tools([look])
    async for chunks in both_streams(model):
        assert words_of(chunks) == ["blue"]
        assert [f["kind"] for f in how(chunks)["failures"]] == ["unknown_tool"]


LOOKING = AIMessage("Let me look.", tool_calls=[{"name": "look", "args": {"where": ["x"]}, "id": "1"}])


@pytest.mark.parametrize(
    ("bad", "words", "reason", "is_retryable"),
    [
        (failing(after="Half an"), ["Half ", "an"], "ConnectionError: lost", True),
        (FailingChatModel(error=ValueError("bad"), after="Half an"), ["Half ", "an"], "ValueError: bad", False),
        (answering(LOOKING), ["Let ", "me ", "look."], "invalid_arguments: The arguments", False),
    ],
)
async def test_after_the_first_token_nobody_stands_in(bad, words, reason, is_retryable):
    members = {"a": bad, "b": answering("blue")}
    model = model_of(members, ["a"], ["b"], max_rounds=1)
    bound = model.bind_tools([look]) if isinstance(bad, SchemaChatModel) else model
    came, acame = [], []
    with pytest.raises(EnsembleError, match="`a` broke off while its text was being passed on") as caught:
        came.extend(chunk.text for chunk in bound.stream(QUESTION))
    assert caught.value.is_retryable is is_retryable
    assert caught.value.failures["a"].startswith(reason)
    with pytest.raises(EnsembleError, match="broke off"):
        await collect(bound.astream(QUESTION), acame)
    assert came == acame == words
    assert not members["b"].asked
    assert bound.invoke(QUESTION).text == "blue"


@pytest.mark.parametrize("bound", [False, True])
async def test_closing_a_stream_early_waits_for_its_member_and_closes_its_run_before_the_ensembles(bound):
    ended = []

    class Slow(ScriptedChatModel):
        async def _astream(self, *args, **kwargs):
            try:
                async for chunk in super()._astream(*args, **kwargs):
                    yield chunk
                    await asyncio.Event().wait()
            finally:
                ended.append("member")

    class Runs(AsyncCallbackHandler):
        async def on_llm_error(self, error, *, run_id, parent_run_id=None, **_):
            ended.append("member's run" if parent_run_id else "ensemble's run")

    model = model_of({"a": Slow(script=["one two"])}, ["a"], member_callbacks="all")
    model = model.bind(task="colours") if bound else model
    stream = model.astream(QUESTION, {"callbacks": [Runs()]})
    assert (await anext(stream)).text == "one "
    await stream.aclose()
    assert ended == ["member", "member's run", "ensemble's run"]


@pytest.mark.timeout(20)
def test_a_stream_that_is_left_open_does_not_keep_the_program_from_ending():
    async def main():
        stream = model_of({"a": saying("one two three four")}, ["a"]).astream(QUESTION)
        return await anext(stream), stream

    chunk, _stream = asyncio.run(main())
    assert chunk.text == "one "


async def test_a_member_that_the_call_names_is_relayed_whatever_the_policy_wants():
    members = {"a": saying("red"), "b": saying("deep blue"), "c": saying("red")}
    async for chunks in both_streams(model_of(members, ["a", "c"], ["b"]).bind(model="b")):
        assert words_of(chunks) == ["deep ", "blue"]
        assert chunks[-1].response_metadata["model_name"] == "b"
        assert how(chunks)["rounds"] == [{"round": 1, "asked": ["b"], "probabilities": {"b": 1.0}}]


async def test_the_only_member_that_can_be_asked_is_relayed():
    members = {"a": saying("red"), "b": Doors(says="deep blue")}
    async for chunks in both_streams(model_of(members, ["b", "a"]).bind_tools([look])):
        assert words_of(chunks) == ["deep ", "blue"]
        assert how(chunks)["excluded"] == {"a": "does not support tools"}
    assert members["b"].doors == ["stream", "astream"]


# ---- tools and objects


async def test_a_lone_members_text_is_relayed_and_its_calls_come_last():
    spoken = AIMessage("Let me look.", tool_calls=[{"name": "look", "args": {"where": "up"}, "id": "1"}])
    model = model_of({"a": answering(spoken)}, ["a"], max_team=1).bind_tools([look])
    async for chunks in both_streams(model):
        assert words_of(chunks) == ["Let ", "me ", "look."]
        assert [len(chunk.tool_call_chunks) for chunk in chunks] == [0, 0, 0, 1]
        whole = sum(chunks[1:], chunks[0])
        assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("look", {"where": "up"})]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
async def test_several_calls_come_whole_and_once(names):
    call = {"name": "add", "args": {"a": 1, "ü": "ö"}, "id": "theirs", "type": "tool_call"}
    two = [call, {**call, "args": {"a": 2}}]
    model = model_of({name: saying(AIMessage("Adding.", tool_calls=two)) for name in names})
    for chunks in await streams_of(model):
        merged = sum(chunks[1:], chunks[0])
        assert [(c["name"], c["args"]) for c in merged.tool_calls] == [("add", call["args"]), ("add", {"a": 2})]
        assert len({c["id"] for c in merged.tool_calls} - {"theirs"}) == 2
        assert merged.content == "Adding."
        assert "ü" in merged.tool_call_chunks[0]["args"]


async def test_where_a_call_is_forced_text_that_leads_to_none_is_not_passed_on():
    model = model_of({"a": answering("I would rather talk."), "b": SchemaChatModel()}, ["a"], ["b"], max_rounds=1)
    async for chunks in both_streams(model.bind_tools([look], tool_choice="any")):
        assert words_of(chunks) == []
        assert [call["name"] for call in chunks[-1].tool_call_chunks] == ["look"]
        assert [f["kind"] for f in how(chunks)["failures"]] == ["no_tool_call"]


async def test_a_lone_members_object_is_relayed_as_it_is_written():
    written = '```json\n{"name":  "blue"}\n```'
    model = model_of({"a": answering(written)}, ["a"], max_team=1)
    bound = model.bind(response_format={"type": "json_object"})
    async for chunks in both_streams(bound):
        assert "".join(words_of(chunks)) == written
    assert bound.invoke(QUESTION).text == '{"name": "blue"}'  # nobody has read it yet, so it can be tidied
    partial = list(model.with_structured_output(Colour.model_json_schema(), method="json_schema").stream(QUESTION))
    assert partial[-1] == {"name": "blue"}


# ---- the synthesizer


def divided(synthesizer):
    members = {"a": saying("red"), "b": saying("deep blue")}
    return model_of(members, ["a", "b"], synthesizer=synthesizer, synthesize_below=1.0)


class Halting(ScriptedChatModel):
    """Stops after its first word until the reader has seen it."""

    seen: asyncio.Event

    async def _astream(self, *args, **kwargs):
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk
            await self.seen.wait()


async def test_the_synthesizers_tokens_are_there_before_it_has_ended_and_the_last_chunk_has_the_sum():
    """Members say 1 and 2 words, the synthesizer 2; each member reads 2, the synthesizer its prompt."""
    seen, chunks = asyncio.Event(), []
    writer = Halting(script=["deep violet"], seen=seen)
    async for chunk in divided(writer).astream(QUESTION):
        chunks.append(chunk)
        seen.set()
    assert [chunk.text for chunk in chunks] == ["deep ", "violet", ""]
    [usage] = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    prompt = sum(len(str(message.text).split()) for message in writer.asked[-1].messages)
    assert (usage["output_tokens"], usage["input_tokens"]) == (1 + 2 + 2, 2 + 2 + prompt)


async def test_a_synthesizer_that_breaks_off_is_an_error():
    model = divided(failing(after="Half an"))
    with pytest.raises(EnsembleError, match="`synthesizer` broke off"):
        _ = [chunks async for chunks in both_streams(model)]
    assert model.invoke(QUESTION).text == "red"


async def test_a_synthesizer_that_fails_before_its_first_token_leaves_the_answer_to_the_candidate():
    async for chunks in both_streams(divided(failing())):
        assert "".join(words_of(chunks)) == "red"
        assert how(chunks)["fusion"]["synthesized"] is False
        assert how(chunks)["synthesizer"]["failure"]["kind"] == "ConnectionError"

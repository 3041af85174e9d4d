"""What providers say survives: why an answer ended, its sources, refusals; and what they never got to say."""

import enum
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents import middleware as middlewares
from langchain_core import exceptions
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel, ConfigDict, Field, validate_call

from langchain_rlfocal import ModelPool, PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.messages import history_for
from langchain_rlfocal.collection import collect_into
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.execution.clients import cannot_think, thinking_switched_off, without_thinking
from langchain_rlfocal.execution.endings import ending_of, flaw_of, refusal_in_words
from langchain_rlfocal.execution.retries import (
    is_of_member,
    is_retryable,
    may_have_cost,
    misses_thinking,
    refused_arguments,
)
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.testing import ScriptedPolicy
from support_contract import answer_of
from support_ensembles import asked, how, model_of
from support_ensembles import saying as scripted
from support_odd_members import failures_of, is_explained
from support_schema_model import SchemaChatModel
from support_tools import lookup

DOORS = ["invoke", "ainvoke", "stream", "astream"]
WHOLE = "Air scatters short waves more than long ones."


class Said(BaseChatModel):
    """Says one message, in chunks as providers do: content first, then what is known at the end."""

    says: Any
    streams: bool = True

    @property
    def _llm_type(self):
        return "said"

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(**kwargs)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.says.model_copy(deep=True))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        said = self.says.model_copy(deep=True)
        yield ChatGenerationChunk(message=AIMessageChunk(said.content, additional_kwargs=said.additional_kwargs))
        end = AIMessageChunk(
            "" if isinstance(said.content, str) else [],
            response_metadata=said.response_metadata,
            usage_metadata=said.usage_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=end)


def ended(text, reason, key="finish_reason", **more):
    return AIMessage(text, response_metadata={key: reason, **more})


def together(*said, **fields):
    """An ensemble that asks all at once; each says a text, or a message."""
    members = {
        f"m{index}": one
        if isinstance(one, BaseChatModel)
        else Said(says=AIMessage(one) if isinstance(one, str) else one)
        for index, one in enumerate(said, 1)
    }
    return model_of(members, **fields)


def one_by_one(*said, **fields):
    """The same, whose policy asks one and wants no second round."""
    model = together(*said)
    policy = ScriptedPolicy([(name,) for name in model.pool.names], model.pool.names)
    fields = {"max_team": len(said), "max_rounds": 1, "max_retries": 0, **fields}
    return RLFocalChatModel(members=model.members, policy=policy, **fields)


# ---- how a response ended


class Reason(enum.Enum):
    MAX_TOKENS = 2
    SAFETY = 3
    STOP = 1


CUT = {
    "OpenAI": {"finish_reason": "length"},
    "OpenAI's other interface": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    "Anthropic": {"stop_reason": "max_tokens"},
    "Anthropic, no room": {"stop_reason": "model_context_window_exceeded"},
    "Anthropic, a long turn": {"stop_reason": "pause_turn"},
    "Gemini": {"finish_reason": "MAX_TOKENS"},
    "Gemini's enumeration": {"finish_reason": Reason.MAX_TOKENS},
    "Gemini's enumeration as text": {"finish_reason": "FinishReason.MAX_TOKENS"},
    "Mistral": {"finish_reason": "model_length"},
    "Ollama": {"done_reason": "length"},
    "Bedrock": {"stopReason": "max_tokens"},
    "Titan": {"completionReason": "LENGTH"},
    "Cohere": {"finish_reason": "MAX_TOKENS"},
    "Cohere, no room": {"finish_reason": "ERROR_LIMIT"},
    "DeepSeek": {"finish_reason": "insufficient_system_resource"},
    "Watsonx": {"finish_reason": "token_limit"},
    "a stream that repeats itself": {"finish_reason": "lengthlength"},
    "camels": {"finishReason": "maxTokens"},
    "a flag": {"is_truncated": True},
    "said of the native reason only": {"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"},
}
WITHHELD = {
    "OpenAI": {"finish_reason": "content_filter"},
    "OpenAI's other interface": {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
    "Gemini": {"finish_reason": "SAFETY"},
    "Gemini's enumeration": {"finish_reason": Reason.SAFETY},
    "Gemini, too like a source": {"finish_reason": "RECITATION"},
    "Gemini, the prompt": {"prompt_feedback": {"block_reason": "PROHIBITED_CONTENT"}},
    "Vertex": {"is_blocked": True},
    "Bedrock": {"stopReason": "guardrail_intervened"},
    "Bedrock's guardrail": {"amazon-bedrock-guardrailAction": "INTERVENED"},
    "Bedrock's filter": {"stopReason": "content_filtered"},
    "Cohere": {"finish_reason": "ERROR_TOXIC"},
    "Zhipu": {"finish_reason": "sensitive"},
}
REFUSALS = {
    "Anthropic": AIMessage("No.", response_metadata={"stop_reason": "refusal", "model_provider": "anthropic"}),
    "Anthropic, no word": AIMessage([], response_metadata={"stop_reason": "refusal", "model_provider": "anthropic"}),
    "OpenAI": AIMessage("", additional_kwargs={"refusal": "No."}, response_metadata={"model_provider": "openai"}),
    "OpenAI's other interface": AIMessage(
        [{"type": "refusal", "refusal": "No."}], response_metadata={"status": "completed"}
    ),
    "Gemini": AIMessage("", response_metadata={"finish_reason": "SAFETY", "model_provider": "google_genai"}),
}
ORDINARY = {
    "nothing": {},
    "OpenAI": {"finish_reason": "stop"},
    "OpenAI, calls": {"finish_reason": "tool_calls"},
    "OpenAI's other interface": {"status": "completed", "incomplete_details": None},
    "Anthropic": {"stop_reason": "end_turn", "stop_sequence": None},
    "Anthropic, calls": {"stop_reason": "tool_use"},
    "Anthropic, a sequence of the caller's": {"stop_reason": "stop_sequence", "stop_sequence": "length"},
    "Gemini": {"finish_reason": "STOP", "safety_ratings": [{"category": "HARM", "blocked": False}]},
    "Gemini's enumeration": {"finish_reason": Reason.STOP},
    "Gemini, no block": {"prompt_feedback": {"block_reason": "BLOCK_REASON_UNSPECIFIED"}},
    "Gemini, no block, by number": {"prompt_feedback": {"block_reason": 0}},
    "Ollama": {"done": True, "done_reason": "stop"},
    "Cohere": {"finish_reason": "COMPLETE"},
    "Hugging Face": {"finish_reason": "eos_token"},
    "Vertex": {"is_blocked": False},
    "a word that holds another": {"finish_reason": "wavelength"},
    "a stream that repeats itself": {"finish_reason": "stopstop"},
    "odd": {"finish_reason": ["length"], "stop_reason": 3, "incomplete_details": "length", "prompt_feedback": "SAFETY"},
    "an essay": {"finish_reason": "length " * 1000},
}


ENDS = [
    (flaw, name, metadata)
    for flaw, known in (("truncated", CUT), ("filtered", WITHHELD), (None, ORDINARY))
    for name, metadata in known.items()
]


@pytest.mark.parametrize(("flaw", "name", "metadata"), ENDS, ids=[f"{flaw}: {name}" for flaw, name, _ in ENDS])
def test_how_an_answer_ended_is_known_by_what_its_provider_says_and_not_by_its_words(flaw, name, metadata):
    assert flaw_of(AIMessage("I must refuse: no length, no refusal.", response_metadata=metadata)) == flaw


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_known_by_what_its_provider_says(name):
    assert flaw_of(REFUSALS[name]) == "refusal"
    assert refusal_in_words(REFUSALS[name]) in {"No.", ""}


def test_an_ending_is_kept_in_json_under_the_providers_own_keys():
    said = {"finish_reason": Reason.SAFETY, "stop_sequence": None, "safety_ratings": [{"p": float("nan")}], "id": "x"}
    assert ending_of(AIMessage("", response_metadata=said)) == {"finish_reason": "SAFETY"}
    assert ending_of(ended("", "stop", prompt_filter_results="x" * 20_000)) == {"finish_reason": "stop"}


# ---- why it ended stands in the reply


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    "ending",
    [{"finish_reason": "stop"}, {"stop_reason": "end_turn"}, {"done_reason": "stop"}, {"stopReason": "end_turn"}],
)
async def test_why_the_winner_ended_stands_in_the_reply_and_among_its_facts(ending, number, door):
    """Also where a lone member's text is relayed; who is the winner's provider does not stand there."""
    said = AIMessage(
        "yes", response_metadata={**ending, "model_provider": "openai", "id": "chatcmpl-1", "model_name": "gpt"}
    )
    message = await answer_of(together(*[said] * number), door)
    metadata = message.response_metadata
    assert {**metadata, **ending} == metadata
    assert metadata.keys() == {*ending, "model_name", "rlfocal"}
    assert metadata["model_name"] == "rlfocal"
    assert [candidate["ending"] for candidate in how(message)["candidates"]] == [ending] * number
    assert message.text == message.content == "yes"
    assert is_explained(message)


async def test_an_end_that_nobody_spoke_of_is_not_made_up():
    message = together("yes", "yes").invoke("?")
    assert message.response_metadata.keys() == {"model_name", "rlfocal"}
    assert all(candidate.keys().isdisjoint({"ending", "flaw"}) for candidate in how(message)["candidates"])


def test_the_ending_is_the_winners_or_the_synthesizers():
    model = together(ended("4", "eos"), ended("5", "stop"), ended("5", "stop"))
    assert model.invoke("What is 2 + 3?").response_metadata["finish_reason"] == "stop"
    writer = Said(says=ended("6", "stop"))
    model = together(ended("4", "eos"), ended("5", "eos"), synthesizer=writer, synthesize_below=1.0)
    message = model.invoke("What is 2 + 3?")
    assert (message.text, message.response_metadata["finish_reason"]) == ("6", "stop")


# ---- sources


OSLO = {"type": "citation", "url": "https://example.org/oslo", "title": "Oslo", "start_index": 0, "end_index": 4}
MORE = {"type": "citation", "url": "https://example.org/more", "cited_text": "more"}
CITED = {
    "LangChain's own": AIMessage([{"type": "text", "text": "Oslo has 700,000 people.", "annotations": [OSLO]}]),
    "OpenAI's": AIMessage(
        [
            {"type": "reasoning", "summary": [], "id": "rs_1", "encrypted_content": "secret"},
            {
                "type": "text",
                "text": "Oslo has 700,000 people.",
                "id": "msg_1",
                "annotations": [{**OSLO, "type": "url_citation"}],
            },
        ],
        response_metadata={"model_provider": "openai"},
    ),
    "Anthropic's": AIMessage(
        [
            {"type": "thinking", "thinking": "hm", "signature": "secret"},
            {"type": "text", "text": "Oslo has "},
            {
                "type": "text",
                "text": "700,000 people.",
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "url": "https://example.org/oslo",
                        "title": "Oslo",
                        "cited_text": "700,000",
                        "encrypted_index": "x",
                    }
                ],
            },
        ],
        response_metadata={"model_provider": "anthropic"},
    ),
}


def texts_of(message):
    """The text blocks, without ids, which are one provider's."""
    blocks = [block for block in message.content_blocks if block["type"] == "text"]
    return [{key: value for key, value in block.items() if key not in {"id", "index"}} for block in blocks]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", CITED)
async def test_sources_stand_in_the_replys_blocks_as_in_the_members_own(name, number, door):
    """In a stream they come with the last chunk."""
    message = await answer_of(together(*[CITED[name]] * number), door)
    assert message.text == "Oslo has 700,000 people."
    assert [one["url"] for block in texts_of(message) for one in block.get("annotations", ())] == [OSLO["url"]]
    if "stream" not in door:
        assert texts_of(message) == texts_of(CITED[name])
    assert not {"thinking", "reasoning"} & {block["type"] for block in message.content_blocks}
    assert "secret" not in json.dumps([message.content, message.additional_kwargs])


async def test_in_a_stream_sources_count_from_the_beginning_of_the_whole_text():
    """ "Well. " has 6 characters, and Oslo is the next 4."""
    said = AIMessage(
        [{"type": "text", "text": "Well. "}, {"type": "text", "text": "Oslo.", "annotations": [OSLO, MORE]}]
    )
    message = await answer_of(together(said, said), "stream")
    [place] = [block["annotations"] for block in message.content_blocks if "annotations" in block]
    assert place == [{**OSLO, "start_index": 6, "end_index": 10}, MORE]
    assert OSLO["start_index"] == 0


@pytest.mark.parametrize("key", ["citations", "search_results", "annotations", "documents"])
@pytest.mark.parametrize("door", DOORS)
async def test_sources_beside_the_text_stay_where_the_provider_put_them(key, door):
    said = AIMessage(
        "Oslo.", additional_kwargs={key: ["https://example.org"], "reasoning_content": "hm", "audio": {"id": "1"}}
    )
    message = await answer_of(together(said), door)
    assert message.additional_kwargs == {key: ["https://example.org"]}
    assert message.content == "Oslo."


def test_sources_that_are_no_json_are_left_out():
    said = AIMessage("Oslo.", additional_kwargs={"citations": [object()], "documents": [SimpleNamespace()]})
    assert together(said).invoke("?").additional_kwargs == {}
    record = SimpleNamespace(model_dump=lambda: {"url": "https://example.org"})
    said = AIMessage("Oslo.", additional_kwargs={"citations": [record]})
    assert together(said).invoke("?").additional_kwargs == {"citations": [{"url": "https://example.org"}]}


def test_sources_of_a_text_that_is_not_returned_are_not_either():
    writer = Said(says=AIMessage("In words of its own."))
    model = together(CITED["OpenAI's"], "Bergen.", synthesizer=writer, synthesize_below=1.0)
    message = model.invoke("How many live in Oslo?")
    assert message.content == "In words of its own."


def test_tokens_are_counted_once_in_a_stream_with_sources():
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    said = CITED["LangChain's own"].model_copy(update={"usage_metadata": usage})
    chunks = list(together(said).stream("?"))
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1
    assert sum(chunks[1:], chunks[0]).usage_metadata == usage


# ---- an answer with a flaw and a whole one


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("flawed", [*CUT.values(), *WITHHELD.values()], ids=str)
async def test_a_whole_answer_wins_over_two_that_are_not(flawed, door):
    """Two say the same, but not to its end; the first is the most trusted, too."""
    cut = AIMessage("Air scatters", response_metadata=flawed)
    message = await answer_of(together(cut, cut, WHOLE), door)
    assert message.text == WHOLE
    assert set(failures_of(message).values()) <= {"truncated", "filtered"}
    assert len(how(message)["failures"]) == 2
    assert how(message)["failures"][0]["ending"] == ending_of(cut)
    assert is_explained(message)


@pytest.mark.parametrize("door", DOORS)
async def test_where_all_are_cut_off_the_best_is_returned_and_says_so(door):
    """Two of three say 5."""
    message = await answer_of(together(ended("4", "length"), ended("5", "length"), ended("5", "length")), door)
    assert (message.text, message.response_metadata["finish_reason"]) == ("5", "length")
    assert how(message)["fusion"]["confidence"] == pytest.approx(2 / 3)
    assert [candidate["flaw"] for candidate in how(message)["candidates"]] == ["truncated"] * 3
    assert "m2 was cut off, and no other answer was better" in RLFocalChatModel.explain(message)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (ended("a", "content_filter"), ended("b", "length")),
        (REFUSALS["Anthropic"], ended("b", "content_filter")),
        (REFUSALS["Anthropic"], ended("b", "length")),
    ],
)
def test_of_several_flaws_the_lesser_wins(worse, better):
    message = together(worse, worse, better).invoke("?")
    assert message.text == "b"
    assert len(how(message)["failures"]) == 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("flawed", [ended("", "content_filter"), REFUSALS["OpenAI"], ended("Air", "length")])
async def test_others_stand_in_for_an_answer_with_a_flaw_as_far_as_the_team_has_room(flawed, door):
    """One round is allowed, but nobody has answered in it; what was passed on already is the answer, as it is."""
    message = await answer_of(one_by_one(flawed, flawed, WHOLE), door)
    is_said = "stream" in door and bool(flawed.text)
    assert message.text == (flawed.text if is_said else WHOLE)
    assert len(asked(message)) == (1 if is_said else 3)
    assert (await answer_of(one_by_one(flawed, WHOLE, max_team=1), door)).text == flawed.text


def test_nobody_stands_in_for_a_whole_answer_or_one_that_is_cut_off_where_the_caller_wanted_it_to_be():
    assert asked(one_by_one(ended("Air scatters.", "stop"), WHOLE).invoke("Why?")) == [["m1"]]
    model = one_by_one(ended("Air", "length"), WHOLE)
    message = model.invoke("Why?", max_tokens=1)
    assert asked(message) == [["m1"]]
    assert (message.text, message.response_metadata["finish_reason"]) == ("Air", "length")
    message = together(ended("Air", "length"), WHOLE, max_tokens=50).invoke("Why?")
    assert message.text == WHOLE


def test_an_answer_with_a_flaw_settles_nothing_for_who_still_runs():
    """Two of three agree, which would do; but both break off, and the third is whole."""
    model = together(ended("5", "length"), ended("5", "length"), scripted("4"), early_commit=True)
    assert model.invoke("What is 2 + 3?").text == "4"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (ended("", "length"), r"neither text nor tool calls; it broke off \(finish_reason `length`\)"),
        (ended("", "MALFORMED_FUNCTION_CALL"), r"it ended \(finish_reason `MALFORMED_FUNCTION_CALL`\)"),
        (AIMessage(""), r"neither text nor tool calls\. Every"),
        (
            AIMessage("", response_metadata={"prompt_feedback": {"block_reason": "OTHER"}}),
            r"It refused to answer \(block_reason `OTHER`\)",
        ),
    ],
    ids=str,
)
def test_a_response_of_nothing_says_how_it_ended(said, says):
    message = together(said, "yes").invoke("?")
    [failure] = how(message)["failures"]
    assert re.search(says.removesuffix(" Every"), failure["reason"])
    assert failure.get("ending", {}) == said.response_metadata


@pytest.mark.parametrize(("said", "kind"), [(ended("Total", "length"), "truncated"), (REFUSALS["OpenAI"], "refusal")])
def test_a_synthesizer_that_breaks_off_or_refuses_writes_over_nobody(said, kind):
    message = together("4", "5", synthesizer=Said(says=said), synthesize_below=1.0).invoke("What is 2 + 3?")
    assert message.text in {"4", "5"}
    assert how(message)["synthesizer"]["failure"]["kind"] == kind


def test_the_tokens_of_an_answer_with_a_flaw_are_counted():
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    cut = ended("Air", "length").model_copy(update={"usage_metadata": usage})
    message = together(cut, WHOLE).invoke("?")
    assert message.usage_metadata == usage
    assert how(message)["usage"]["m1"] == usage


# ---- refusals

knows_refusals = pytest.mark.skipif(
    not (hasattr(exceptions, "ModelRefusalError") and hasattr(middlewares, "ModelRefusalMiddleware")),
    reason="this langchain does not know refusals yet",
)


def refusal_blocks(message):
    return [{k: v for k, v in b.items() if k != "id"} for b in message.content_blocks if b["type"] == "refusal"]


@knows_refusals
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_no_answer_where_another_answered(name, door):
    message = await answer_of(together(REFUSALS[name], REFUSALS[name], WHOLE), door)
    assert message.text == WHOLE
    assert refusal_blocks(message) == []
    assert failures_of(message) == {"m1": "refusal", "m2": "refusal"}
    assert "m1 refused: It refused to answer" in RLFocalChatModel.explain(message)


@knows_refusals
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", REFUSALS)
async def test_where_all_refuse_the_reply_is_a_refusal_as_a_lone_members(name, number, door):
    refusal = REFUSALS[name]
    message = await answer_of(together(*[refusal] * number), door)
    assert refusal_blocks(message) == refusal_blocks(refusal) != []
    assert message.text == refusal.text
    assert "model_provider" not in message.response_metadata
    assert [candidate["flaw"] for candidate in how(message)["candidates"]] == ["refusal"] * number
    assert is_explained(message)


def with_fallback(model):
    fallback = middlewares.ModelFallbackMiddleware(scripted("fallback"))
    return create_agent(model, [], middleware=[fallback, middlewares.ModelRefusalMiddleware()])


@knows_refusals
@pytest.mark.parametrize("how_called", ["invoke", "ainvoke", "stream", "batch"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_langchains_middleware_acts_on_a_refusal_of_all(name, how_called):
    asks = {"messages": [HumanMessage("?")]}
    for model in (Said(says=REFUSALS[name]), together(REFUSALS[name]), together(REFUSALS[name], REFUSALS[name])):
        agent = with_fallback(model)
        if how_called == "stream":
            *_, state = agent.stream(asks, stream_mode="values")
        elif how_called == "batch":
            [state, _] = agent.batch([asks, asks])
        else:
            state = agent.invoke(asks) if how_called == "invoke" else await agent.ainvoke(asks)
        assert state["messages"][-1].text == "fallback"


class City(BaseModel):
    """A city."""

    name: str


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("name", REFUSALS)
def test_an_object_is_taken_from_who_does_not_refuse(name, method):
    model = together(REFUSALS[name], SchemaChatModel(), REFUSALS[name])
    assert isinstance(model.with_structured_output(City, method=method).invoke("?"), City)


@knows_refusals
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("name", REFUSALS)
def test_where_all_refuse_to_give_an_object_the_error_is_langchains(name, method):
    model = together(REFUSALS[name], REFUSALS[name])
    with pytest.raises(exceptions.ModelRefusalError):
        model.with_structured_output(City, method=method).invoke("?")
    found = model.with_structured_output(City, method=method, include_raw=True).invoke("?")
    assert isinstance(found["parsing_error"], exceptions.ModelRefusalError)
    assert refusal_blocks(found["raw"])


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_what_a_filter_withholds_from_all_is_a_text_as_a_lone_members_and_no_object(method):
    """LangChain's parsers would make None of it."""
    model = together(ended("", "content_filter"), ended("", "content_filter"))
    message = model.invoke("?")
    assert (message.content, message.response_metadata["finish_reason"]) == ("", "content_filter")
    with pytest.raises(EnsembleError, match="refusal: It refused to answer"):
        model.with_structured_output(City, method=method).invoke("?")


def test_a_text_that_declines_in_words_is_an_answer():
    """Only what a provider declares is a refusal."""
    message = together("I'm sorry, but I can't help with that.").invoke("?")
    assert message.text == "I'm sorry, but I can't help with that."
    assert failures_of(message) == {}


def test_a_refusal_calls_no_tool():
    call = tool_call(name="lookup", args={"city": "Oslo"}, id="1")
    refusal = AIMessage("No.", tool_calls=[call], response_metadata={"stop_reason": "refusal"})
    message = together(refusal).bind_tools([lookup]).invoke("?")
    assert message.tool_calls == []
    message = together(refusal, SchemaChatModel()).bind_tools([lookup]).invoke("Use lookup for Oslo.")
    assert [made["name"] for made in message.tool_calls] == ["lookup"]
    assert failures_of(message) == {"m1": "refusal"}


@knows_refusals
def test_a_refusal_passes_through_an_ensemble_of_ensembles():
    refusal = REFUSALS["OpenAI"]
    inner = together(refusal, refusal)
    assert refusal_blocks(together(inner).invoke("?")) == refusal_blocks(refusal)
    assert together(inner, WHOLE).invoke("?").text == WHOLE
    assert together(together(ended("Air", "length")), WHOLE).invoke("?").text == WHOLE


def test_who_reads_the_conversation_next_knows_what_was_refused():
    refused = together(REFUSALS["OpenAI"]).invoke("?")
    conversation = [HumanMessage("?"), refused, HumanMessage("And this?")]
    assert history_for(conversation, "bob")[1] == AIMessage("No.")
    own = AIMessage("", additional_kwargs={"refusal": "I won't."})
    assert history_for([HumanMessage("?"), own, HumanMessage("Go on.")], "bob")[1] == AIMessage("I won't.")


# ---- what was never sent


class Picky(BaseChatModel):
    """Raises what it is told to raise."""

    error: Any

    @property
    def _llm_type(self):
        return "picky"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise self.error


class Unknowing(BaseChatModel):
    """Takes no arguments of its own, and counts how often it is asked."""

    calls: list[int] = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "unknowing"

    def _generate(self, messages, stop=None, run_manager=None):
        self.calls.append(1)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("yes"))])


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    temperature: float = 0.0
    response_schema: dict[str, Any] = {}


class Response(BaseModel):
    content: str


def fault_of(call):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    return raised.value


class ParamValidationError(Exception):
    """As botocore's."""


ParamValidationError.__module__ = "botocore.exceptions"

UNSENT = {
    "an argument twice": (TypeError("create() got multiple values for keyword argument 'model'"), {}, ("model",)),
    "an argument too few": (
        TypeError("create() missing 1 required keyword-only argument: 'max_tokens'"),
        {},
        ("max_tokens",),
    ),
    "openai's": (TypeError("Completions.create() got an unexpected keyword argument 'foo'"), {"foo": 1}, ("foo",)),
    "a field that is forbidden": (lambda: Options(foo=1), {"foo": 1}, ("foo",)),
    "a field of another type": (lambda: Options(temperature="hot"), {"temperature": "hot"}, ("temperature",)),
    "a field by its protocol's name": (lambda: Options(responseSchema=1), {"response_schema": 1}, ("response_schema",)),
    "a checked call": (lambda: validate_call(lookup)(foo=1), {"foo": 1}, ("city", "foo")),
    "what is no JSON": (lambda: json.dumps({"a": {1}}), {"a": {1}, "b": 2}, ("a",)),
    "a number that is no JSON": (lambda: json.dumps(float("nan"), allow_nan=False), {"a": float("nan")}, ("a",)),
    "a client's own words": (
        ValueError("Unknown parameter(s): {'foo'}. Allowed are temperature, top_p."),
        {"foo": 1},
        ("foo",),
    ),
    "other words": (ValueError("The argument `foo` is not supported by this model"), {"foo": 1, "bar": 2}, ("foo",)),
    "half a character": ("\ud800".encode, {}, ()),
    "botocore's": (
        ParamValidationError('Parameter validation failed:\nUnknown parameter in input: "foo", must be one of: a'),
        {"foo": 1},
        ("foo",),
    ),
}


@pytest.mark.parametrize("name", UNSENT)
def test_what_was_never_sent_blames_no_member_costs_nothing_and_names_the_argument(name):
    made, arguments, expected = UNSENT[name]
    error = made if isinstance(made, Exception) else fault_of(made)
    assert refused_arguments(error, arguments) == expected
    assert not is_of_member(error, arguments)
    assert not is_retryable(error)
    assert not may_have_cost(error, arguments)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("'NoneType' object is not subscriptable"),
        TypeError("unsupported operand type(s) for +: 'int' and 'str'"),
        ValueError("the response has no choices"),
        KeyError("choices"),
        ValueError("invalid option 'content' in the response"),
        ValueError("foo"),
        AttributeError("'str' object has no attribute 'choices'"),
        fault_of(lambda: Response(content=3)),
        fault_of(lambda: json.loads("<html>")),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__ + str(error)[:20],
)
def test_a_response_that_nobody_can_read_still_speaks_against_the_member(error):
    """The arguments of the call have other names than what is wrong."""
    assert refused_arguments(error, {"temperature": 1, "foo": 2}) is None
    assert is_of_member(error, {"temperature": 1, "foo": 2})
    assert may_have_cost(error)


@pytest.mark.parametrize("door", DOORS)
async def test_an_argument_that_a_client_does_not_know_opens_no_breaker_is_asked_once_and_is_named(door):
    members = {"a": Unknowing(calls=[]), "b": scripted("no")}
    model = model_of(members, breaker_failures=1, max_retries=2)
    message = await answer_of(model, door, "?", foo=1)
    [failure] = how(message)["failures"]
    assert (failure["kind"], failure["retries"]) == ("TypeError", [])
    assert "'foo'" in failure["reason"]
    assert model.breakers == {}
    assert model.invoke("?").text
    assert members["a"].calls == [1]


@pytest.mark.parametrize("name", ["a field that is forbidden", "botocore's", "what is no JSON"])
def test_an_argument_that_the_first_line_of_an_error_does_not_name_is_named(name):
    made, arguments, [argument] = UNSENT[name]
    error = made if isinstance(made, Exception) else fault_of(made)
    model = model_of({"a": Picky(error=error), "b": scripted("no")}, breaker_failures=1)
    message = model.invoke("?", **arguments)
    [failure] = how(message)["failures"]
    assert f"`{argument}`" in failure["reason"]
    assert "\n" not in failure["reason"]
    assert model.breakers == {}
    model = model_of({"a": Picky(error=fault_of(lambda: Response(content=3))), "b": scripted("no")}, breaker_failures=1)
    model.invoke("?", **arguments)
    assert model.breakers["a"].state == "open"  # the response breaks the provider's own schema


# ---- thinking


ON = {"type": "enabled", "budget_tokens": 1024}
OFF = {"type": "disabled"}
ANTHROPIC = (
    "Error code: 400 - messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When "
    "`thinking` is enabled, a final `assistant` message must start with a thinking block"
)


class Thinker(BaseChatModel):
    """Refuses to think about calls that it has not reasoned for, as Anthropic does, and notes how it was asked."""

    thinking: dict[str, Any] | None = None
    extra_body: dict[str, Any] | None = None
    error: str = ANTHROPIC
    thinks_by_default: bool = False
    seen: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "thinker"

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=[tool.__name__ if callable(tool) else tool for tool in tools])

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        body = kwargs.get("extra_body", self.extra_body) or {}
        thinking = kwargs.get("thinking", self.thinking) or body.get("thinking")
        self.seen.append(thinking)
        is_on = self.thinks_by_default if thinking is None else thinking["type"] != "disabled"
        last = next((m for m in reversed(messages) if isinstance(m, AIMessage) and m.tool_calls), None)
        is_bare = last is not None and isinstance(last.content, str)
        if is_on and is_bare and isinstance(messages[-1], ToolMessage):
            raise ModelInvalidRequestError(self.error)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("sunny"))])


LOOP = [
    HumanMessage("How is the weather in Oslo?"),
    AIMessage("", tool_calls=[tool_call(name="weather", args={"city": "Oslo"}, id="1")]),
    ToolMessage("sunny", tool_call_id="1"),
]
SETTLED = [*LOOP, AIMessage("It is sunny."), HumanMessage("And in Bergen?")]


def one_of(member, **fields):
    return RLFocalChatModel(members={"a": member}, max_retries=0, **fields)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("where", ["its field", "an argument", "the body"])
async def test_a_member_whose_provider_wants_its_reasoning_is_asked_without_thinking_within_anothers_tool_loop(
    where, door
):
    given = {"its field": {"thinking": ON}, "an argument": {}, "the body": {"extra_body": {"thinking": ON, "seed": 1}}}
    member = Thinker(**given[where], seen=[])
    kwargs = {"thinking": ON} if where == "an argument" else {}
    message = await answer_of(one_of(member), door, LOOP, **kwargs)
    assert message.text == "sunny"
    assert member.seen == [OFF]
    assert how(message)["candidates"][0]["retries"] == []
    assert member.thinking in (None, ON)


@pytest.mark.parametrize(
    ("thinking", "conversation"),
    [(ON, SETTLED), (ON, LOOP[:1]), (None, LOOP), (OFF, LOOP), ({"type": "adaptive"}, LOOP)],
    ids=["settled", "new", "unset", "off", "adaptive"],
)
def test_a_member_thinks_as_it_is_set_where_no_provider_objects(thinking, conversation):
    member = Thinker(thinking=thinking, seen=[])
    assert not cannot_think(member, {}, conversation)
    if thinking in (ON, None):
        one_of(member).invoke(conversation)
        assert member.seen == [thinking]
    else:
        assert without_thinking(member, everything=False) is member


def test_a_member_thinks_on_about_its_own_call():
    own = AIMessage(
        [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Let me look."}],
        tool_calls=LOOP[1].tool_calls,
    )
    assert not cannot_think(Thinker(thinking=ON), {}, [LOOP[0], own, LOOP[2]])
    assert cannot_think(Thinker(thinking=ON), {}, LOOP)
    kept = AIMessage("", tool_calls=LOOP[1].tool_calls, additional_kwargs={"reasoning_content": "hm"})
    assert not cannot_think(Thinker(thinking=ON), {}, [LOOP[0], kept, LOOP[2]])


ERRORS = [
    ANTHROPIC,
    "messages.3: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified.",
    "messages.1.content.0: Invalid `signature` in `thinking` block",
    "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
    "Missing `reasoning_content` field in the assistant message at message index 2",
    "The reasoning_content in the thinking mode must be passed back to the API.",
    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly",
    "Corrupted thought signature.",
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("given", [{}, {"thinking": {"type": "adaptive"}}], ids=["by default", "adaptive"])
async def test_a_member_whose_provider_refuses_to_think_is_asked_once_more_without(given, error, door):
    """No retries are allowed: it is another question."""
    member = Thinker(**given, thinks_by_default=True, error=error, seen=[])
    model = one_of(member, breaker_failures=1)
    message = await answer_of(model, door, LOOP)
    assert message.text == "sunny"
    assert member.seen == [given.get("thinking"), OFF]
    assert [retry["kind"] for retry in how(message)["candidates"][0]["retries"]] == ["ModelInvalidRequestError"]
    assert model.breakers == {}


def test_a_member_that_cannot_stop_thinking_fails_after_one_more_attempt_and_others_stand_in():
    stubborn = Picky(error=ValueError(ANTHROPIC))
    model = model_of({"a": stubborn, "b": scripted("sunny")}, ("a",), ("b",), breaker_failures=1)
    message = model.invoke(LOOP)
    assert message.text == "sunny"
    [failure] = how(message)["failures"]
    assert len(failure["retries"]) == 1
    assert model.breakers == {}


@pytest.mark.parametrize(
    "error",
    [
        ModelInvalidRequestError("max_tokens must be greater than thinking.budget_tokens"),
        ModelInvalidRequestError("The model is thinking."),
        ValueError("Expected a text, found tool_use"),
        EnsembleError(ANTHROPIC),
    ],
)
def test_other_complaints_are_none_of_thinking(error):
    assert not misses_thinking(error)
    down = RuntimeError(ANTHROPIC)
    assert misses_thinking(down)
    down.status_code = 503
    assert not misses_thinking(down)


def test_all_that_switches_thinking_on_is_switched_off_and_nothing_else():
    settings = {
        "thinking": ON,
        "reasoning": {"effort": "high"},
        "enable_thinking": True,
        "temperature": 1,
        "model_kwargs": {"thinking": ON, "seed": 1},
        "extra_body": {"seed": 1},
    }
    strict = {"thinking": OFF, "model_kwargs": {"thinking": OFF, "seed": 1}}
    assert thinking_switched_off(settings, everything=False) == strict
    assert thinking_switched_off(settings, everything=True) == {
        **strict,
        "reasoning": {"enabled": False},
        "enable_thinking": False,
    }
    assert settings["thinking"] is ON
    assert thinking_switched_off(thinking_switched_off(settings, everything=True), everything=True) == {}


def test_anthropics_own_model_sends_what_switches_thinking_off():
    anthropic = pytest.importorskip("langchain_anthropic")
    model = anthropic.ChatAnthropic(model="claude-sonnet-4-5", api_key="x", thinking=ON, max_tokens=2000)
    calm = without_thinking(model, everything=False)
    assert calm._get_request_payload("?")["thinking"] == OFF
    assert model._get_request_payload("?")["thinking"] == ON
    assert calm._get_llm_string() != model._get_llm_string()


# ---- collecting


def test_a_member_that_refuses_is_recorded_with_what_it_said(tmp_path):
    """It has answered, and is not asked again; nothing that it said is right."""
    question = Question(task="facts", query_id="1", query="What is 2 + 3?", gold="5", kind="number")
    pool = ModelPool([PoolMember("a", Said(says=REFUSALS["OpenAI"])), PoolMember("b", scripted("5"))])
    refused, right = collect_into(tmp_path / "o.jsonl", pool, [question]).table
    assert (refused.response, refused.answer, refused.reward) == ("", None, 0)
    assert right.reward == 1
    assert pool["b"].model.asked
    pool["b"].model.asked.clear()
    assert len(collect_into(tmp_path / "o.jsonl", pool, [question]).table) == 2
    assert pool["b"].model.asked == []

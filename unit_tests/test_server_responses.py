"""`POST /v1/responses`: what members are asked, what comes back whole and streamed, and what is refused."""

import json
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.response_stream import ResponseWriter
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_ensembles import model_of, saying
from support_http import client_of
from support_schema_model import SchemaChatModel

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Said(BaseChatModel):
    """Says one message, and streams what it consists of as a provider does: what it says, then how it ended."""

    says: Any

    @property
    def _llm_type(self):
        return "said"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.says.model_copy(deep=True))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        said = self.says.model_copy(deep=True)
        yield ChatGenerationChunk(message=AIMessageChunk(said.content, additional_kwargs=said.additional_kwargs))
        end = AIMessageChunk([], response_metadata=said.response_metadata, chunk_position="last")
        yield ChatGenerationChunk(message=end)


CALLING = "Ask the tool `weather` about 'Lima'."
EVENT = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
async def connect():
    """Makes OpenAI's client of a server of an ensemble, in this process."""
    async with AsyncExitStack() as stack:

        async def connected(model):
            http = await stack.enter_async_context(client_of(model, raises=False))
            return openai.AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=http, max_retries=0)

        yield connected


@pytest.fixture
def schema_model():
    members = {name: SchemaChatModel(model_name=name, says="Lima it is") for name in ("a", "b")}
    return RLFocalChatModel(members=members)


async def raw(client, **body):
    response = await client._client.post("/v1/responses", json={"model": "rlfocal", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def events_of(client, **body):
    """Each event of a stream as OpenAI's types read it, in full."""
    response = await client._client.post("/v1/responses", json={"model": "rlfocal", "stream": True, **body})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    events = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = EVENT.validate_python(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {event.type}"
        events.append(event)
    assert [event.sequence_number for event in events] == [*range(len(events))]
    return events


async def refusal_of(client, **body):
    response = await client._client.post("/v1/responses", json={"model": "rlfocal", "input": "Hi", **body})
    return response.status_code, response.json()["error"]


# ---- what comes back


async def test_an_answer_is_a_response_that_openais_types_know(connect, schema_model):
    client = await connect(schema_model)
    body = await raw(client, input="Where?", metadata={"user": "7"}, temperature=0, store=True)
    read = Response.model_validate(body)
    assert read.output_text == "Lima it is"
    assert (read.status, read.metadata, read.temperature, body["store"]) == ("completed", {"user": "7"}, 0, False)
    assert read.usage.total_tokens == read.usage.input_tokens + read.usage.output_tokens
    assert body["id"] == f"resp_{body['rlfocal']['answer_id'].replace('-', '')}"
    assert body["rlfocal"]["rounds"][0]["asked"] == ["a", "b"]


async def test_headers_say_how_an_answer_came_about(connect, schema_model):
    client = await connect(schema_model)
    response = await client.responses.with_raw_response.create(model="rlfocal", input="Where?")
    assert response.headers["x-rlfocal-members"] == "a,b"
    assert response.headers["x-rlfocal-answer-id"] == response.parse().rlfocal["answer_id"]


async def test_an_object_is_parsed_by_the_client(connect, schema_model):
    class Person(BaseModel):
        name: str
        age: int

    parsed = await (await connect(schema_model)).responses.parse(
        model="rlfocal", input="Who is 'Ada', at 36?", text_format=Person
    )
    assert parsed.output_parsed == Person(name="Ada", age=36)


async def test_a_tool_is_called_and_its_result_answered(connect, schema_model):
    client = await connect(schema_model)
    asking = [{"role": "user", "content": CALLING}]
    first = await client.responses.create(model="rlfocal", input=asking, tools=[WEATHER], tool_choice="required")
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "weather"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Fog"}
    second = await client.responses.create(model="rlfocal", input=[*asking, call, result], tools=[WEATHER])
    assert second.output_text == "The tool says: Fog"
    assert (first.tool_choice, first.tools[0].name) == ("required", "weather")


# ---- streams


async def test_a_text_is_streamed_with_every_event_in_its_order(connect, schema_model):
    events = await events_of(await connect(schema_model), input="Where?")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(deltas) == "Lima it is"
    assert events[-1].response.output == [events[-2].item]
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {events[-2].item.id}
    assert events[0].response.id == events[-1].response.id
    assert events[-1].response.rlfocal["answer_id"].replace("-", "") == events[0].response.id.removeprefix("resp_")


async def test_calls_are_streamed_as_items_of_their_own(connect, schema_model):
    events = await events_of(await connect(schema_model), input=CALLING, tools=[WEATHER])
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[2].item.arguments == ""
    assert events[3].delta == events[4].arguments == events[5].item.arguments == '{"city": "weather"}'
    assert events[-1].response.output == [events[5].item]


@pytest.mark.parametrize("tools", [[], [WEATHER]])
async def test_a_stream_ends_in_the_response_that_is_given_whole(connect, schema_model, tools):
    client = await connect(schema_model)
    whole = await client.responses.create(model="rlfocal", input=CALLING, tools=tools)
    async with client.responses.stream(model="rlfocal", input=CALLING, tools=tools) as stream:
        async for _ in stream:
            pass
        ended = await stream.get_final_response()

    def gist(response):
        kept = response.model_dump(exclude={"id", "created_at", "rlfocal"})
        for item in kept["output"]:
            item.pop("id")
            item.pop("call_id", None)
            item.pop("parsed_arguments", None)
            for part in item.get("content", ()):
                part.pop("parsed", None)
        return kept

    assert gist(ended) == gist(whole)


# ---- how an answer can end

ENDS = {
    "cut off": (AIMessage("Half an", response_metadata={"finish_reason": "length"}), "incomplete", "max_output_tokens"),
    "withheld": (
        AIMessage("Half an", response_metadata={"finish_reason": "content_filter"}),
        "incomplete",
        "content_filter",
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_answer_that_is_not_whole_is_incomplete_and_says_why(connect, name):
    said, status, reason = ENDS[name]
    client = await connect(model_of({"a": saying(said)}))
    body = await raw(client, input="Hi")
    assert (body["status"], body["incomplete_details"]) == (status, {"reason": reason})
    events = await events_of(client, input="Hi")
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details.reason == reason


async def test_a_refusal_is_a_part_of_its_own(connect):
    client = await connect(model_of({"a": Said(says=AIMessage([{"type": "refusal", "refusal": "I will not."}]))}))
    body = await raw(client, input="Hi")
    assert body["output"][0]["content"] == [{"type": "refusal", "refusal": "I will not."}]
    events = await events_of(client, input="Hi")
    assert [event.type for event in events][3:7] == [
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
    ]
    assert events[-1].response.output[0].content[0].refusal == "I will not."


async def test_sources_are_annotations(connect):
    page = {"type": "citation", "url": "https://example.com", "title": "Lima", "start_index": 0, "end_index": 4}
    said = AIMessage(
        [{"type": "text", "text": "Lima", "annotations": [page, {"type": "citation", "title": "No page"}]}],
    )
    client = await connect(model_of({"a": Said(says=said)}))
    expected = {**page, "type": "url_citation"}
    body = await raw(client, input="Hi")
    assert body["output"][0]["content"][0]["annotations"] == [expected]
    events = await events_of(client, input="Hi")
    added = [event.annotation.model_dump() for event in events if event.type == "response.output_text.annotation.added"]
    assert added == [expected]


async def test_log_probabilities_of_tokens_come_where_they_are_asked_for(connect):
    token = {"token": "Lima", "logprob": -0.1, "bytes": [*b"Lima"], "top_logprobs": []}
    said = AIMessage("Lima", response_metadata={"logprobs": {"content": [token]}})
    speaking = type("BaseChatOpenAI", (Said,), {})(says=said)  # members of that name are asked for them
    client = await connect(model_of({"a": speaking}))
    wanting = {"include": ["message.output_text.logprobs"]}
    for more, tokens in ({}, []), (wanting, [token]):
        assert (await raw(client, input="Hi", **more))["output"][0]["content"][0]["logprobs"] == tokens
    done = [e for e in await events_of(client, input="Hi", **wanting) if e.type == "response.output_text.done"]
    assert [(one.token, one.logprob) for one in done[0].logprobs] == [("Lima", -0.1)]


async def test_an_error_before_the_answer_has_its_own_status(connect):
    client = await connect(model_of({"a": FailingChatModel(error=ValueError("no"))}))
    for stream in (False, True):
        status, error = await refusal_of(client, stream=stream)
        assert (status, error["code"]) == (502, "no_member_answered")


async def test_a_stream_that_breaks_off_says_that_it_failed(connect):
    client = await connect(model_of({"a": FailingChatModel(error=ValueError("no"), after="Half an ")}))
    events = await events_of(client, input="Hi")
    failed = events[-1]
    assert failed.type == "response.failed"
    assert (failed.response.status, failed.response.error.code) == ("failed", "server_error")
    assert failed.response.output_text == "Half an "
    assert failed.response.output[0].status == "incomplete"


def test_an_error_after_a_silence_ends_a_response_that_had_not_begun():
    """Comments have been sent by then, so that no status can be."""
    writer = ResponseWriter({"id": "resp_1", "object": "response", "status": "in_progress", "output": []})
    said = writer.failed(ApiError(429, "Too many.", type="rate_limit_error")).decode()
    events = [json.loads(line.removeprefix("data: ")) for line in said.splitlines() if line.startswith("data: ")]
    assert [(event["type"], event["sequence_number"]) for event in events] == [
        ("response.created", 0),
        ("response.in_progress", 1),
        ("response.failed", 2),
    ]
    assert events[2]["response"]["error"]["code"] == "rate_limit_exceeded"


# ---- what members are asked


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"input": "Hi"}, [HumanMessage("Hi")]),
        ({"input": "Hi", "instructions": "Be brief."}, [SystemMessage("Be brief."), HumanMessage("Hi")]),
        (
            {
                "input": [
                    {"role": "developer", "content": "Be brief."},
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                    {"type": "reasoning", "id": "rs_1", "summary": []},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
                    {"role": "user", "content": "Go on"},
                ]
            },
            [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Go on")],
        ),
    ],
)
async def test_items_are_the_messages_that_members_get(connect, body, messages):
    member = ScriptedChatModel(script=["Hello"])
    await raw(await connect(model_of({"a": member})), **body)
    asked = member.asked[0].messages
    assert [(type(m), m.text) for m in asked] == [(type(m), m.text) for m in messages]


async def test_calls_join_the_message_before_them_and_have_their_results(connect):
    member = ScriptedChatModel(script=["Fog and sun"])
    call = {"type": "function_call", "name": "weather", "status": "completed"}
    items = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I will look."},
        {**call, "call_id": "1", "arguments": '{"city": "Lima"}'},
        {**call, "call_id": "2", "arguments": '{"city": "Ica"}'},
        {"type": "function_call_output", "call_id": "1", "output": "Fog"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "Sun"}]},
    ]
    await raw(await connect(model_of({"a": member})), input=items)
    _, said, *results = member.asked[0].messages
    assert (said.text, [(c["id"], c["args"]) for c in said.tool_calls]) == (
        "I will look.",
        [("1", {"city": "Lima"}), ("2", {"city": "Ica"})],
    )
    assert [(type(m), m.tool_call_id, m.text) for m in results] == [
        (ToolMessage, "1", "Fog"),
        (ToolMessage, "2", "Sun"),
    ]


async def test_images_and_files_are_passed_on_as_they_are(connect):
    member = ScriptedChatModel(script=["A cat"])
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
    ]
    await raw(await connect(model_of({"a": member})), input=[{"role": "user", "content": parts}])
    *_, file = content = member.asked[0].messages[0].content  # LangChain writes files in its own form, with an id
    assert content == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
        {**file, "type": "file", "base64": "AA==", "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
    ]


async def test_parameters_and_options_reach_their_places(connect):
    members = {name: ScriptedChatModel(script=["Lima"]) for name in "ab"}
    client = await connect(RLFocalChatModel(members=members))
    body = await raw(client, input="Hi", max_output_tokens=9, temperature=0.5, rlfocal={"max_team": 1})
    assert body["rlfocal"]["rounds"][0]["asked"] == ["a"]
    asked = members["a"].asked[0].kwargs
    assert (asked["max_tokens"], asked["temperature"]) == (9, 0.5)
    assert (body["max_output_tokens"], body["temperature"]) == (9, 0.5)


async def test_a_member_named_as_the_model_answers_alone(connect, schema_model):
    body = await raw(await connect(schema_model), model="b", input="Where?")
    assert (body["model"], body["rlfocal"]["rounds"][0]["asked"]) == ("b", ["b"])


# ---- what is refused

REFUSED = {
    "an earlier response": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a stored prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "background": ({"background": True}, "background"),
    "cutting": ({"truncation": "auto"}, "truncation"),
    "a built-in tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a tool without a plain name": ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    "a choice of no tool": ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
    "a built-in choice": ({"tools": [WEATHER], "tool_choice": {"type": "mcp"}}, "tool_choice"),
    "an unknown form": ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    "a form without a schema": ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    "no input": ({"input": []}, "input"),
    "an item of no type": ({"input": [{}]}, "input[0].type"),
    "a reference": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    "an unknown role": ({"instructions": "a", "input": [{"role": "robot", "content": "a"}]}, "input[0].role"),
    "an unknown role after what is passed over": (
        {"input": [{"role": "user", "content": "a"}, {"type": "reasoning"}, {"role": "robot", "content": "a"}]},
        "input[2].role",
    ),
    "arguments that are no object": (
        {"input": ["skip", {"type": "function_call", "call_id": "1", "name": "a", "arguments": "[]"}][1:]},
        "input[0].tool_calls[0].function.arguments",
    ),
    "a stored file": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
        "input[0].content[0].file_id",
    ),
    "a file that would have to be fetched": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]}]},
        "input[0].content[0].file_url",
    ),
    "a file of this machine": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]},
        "input[0].content[0].image_url.url",
    ),
    "an unknown part": ({"input": [{"role": "user", "content": [{"type": "smell"}]}]}, "input[0].content[0].type"),
    "too many tokens of too few": ({"max_output_tokens": 0}, "max_output_tokens"),
    "text that is no object": ({"text": "json"}, "text"),
    "metadata that is no object": ({"metadata": "a"}, "metadata"),
    "instructions that are no text": ({"instructions": ["a"]}, "instructions"),
    "an unknown field": ({"inptu": "Hi"}, "inptu"),
    "an option that is none": ({"rlfocal": {"max_teem": 1}}, "rlfocal.max_teem"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_served_is_refused_by_the_name_of_its_field(connect, schema_model, name):
    body, param = REFUSED[name]
    status, error = await refusal_of(await connect(schema_model), **body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert param in error["message"]


async def test_nothing_can_be_got_of_what_was_answered(connect, schema_model):
    client = await connect(schema_model)
    given = await client.responses.create(model="rlfocal", input="Hi", store=True)
    with pytest.raises(openai.NotFoundError, match="No response is stored here"):
        await client.responses.retrieve(given.id)
    with pytest.raises(openai.NotFoundError, match="No response is stored here"):
        await client.responses.delete(given.id)
    with pytest.raises(openai.NotFoundError, match="No response is stored here"):
        await client.responses.input_items.list(given.id)


# ---- what nobody means

ODD = (0, -1.5, True, "a", "", [], [0], ["a"], [[]], [None], {}, {"type": "function"}, {"type": None}, {"a": {}}, [{}])
FIELDS = (
    *("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include"),
    *(
        "metadata",
        "max_output_tokens",
        "temperature",
        "top_p",
        "top_logprobs",
        "stream",
        "stream_options",
        "truncation",
    ),
    *("store", "user", "rlfocal", "background", "previous_response_id", "conversation", "prompt", "max_tool_calls"),
)


def after_hello(item):
    return {"input": [{"role": "user", "content": "Hello"}, item]}


PLACES = {
    "item": lambda odd: {"input": [odd]},
    "role": lambda odd: {"input": [{"role": odd, "content": "a"}]},
    "content": lambda odd: {"input": [{"role": "user", "content": odd}]},
    "part": lambda odd: {"input": [{"role": "user", "content": [odd]}]},
    "part's type": lambda odd: {"input": [{"role": "user", "content": [{"type": odd, "text": "a"}]}]},
    "part's text": lambda odd: {"input": [{"role": "user", "content": [{"type": "input_text", "text": odd}]}]},
    "image": lambda odd: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": odd}]}]},
    "file": lambda odd: {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": odd}]}]},
    "item's type": lambda odd: {"input": [{"type": odd}]},
    "call's name": lambda odd: after_hello({"type": "function_call", "name": odd, "arguments": "{}"}),
    "call's arguments": lambda odd: after_hello({"type": "function_call", "name": "a", "arguments": odd}),
    "call's id": lambda odd: after_hello({"type": "function_call_output", "call_id": odd, "output": "a"}),
    "output": lambda odd: after_hello({"type": "function_call_output", "call_id": "1", "output": odd}),
    "tool": lambda odd: {"tools": [odd]},
    "tool's name": lambda odd: {"tools": [{**WEATHER, "name": odd}]},
    "tool's parameters": lambda odd: {"tools": [{**WEATHER, "parameters": odd}]},
    "tool's description": lambda odd: {"tools": [{**WEATHER, "description": odd}]},
    "tool's strict": lambda odd: {"tools": [{**WEATHER, "strict": odd}]},
    "choice's name": lambda odd: {"tools": [WEATHER], "tool_choice": {"type": "function", "name": odd}},
    "form": lambda odd: {"text": {"format": odd}},
    "form's schema": lambda odd: {"text": {"format": {"type": "json_schema", "name": "a", "schema": odd}}},
    "form's name": lambda odd: {"text": {"format": {"type": "json_schema", "name": odd, "schema": {}}}},
    "effort": lambda odd: {"reasoning": {"effort": odd}},
    **{name: lambda odd, name=name: {name: odd} for name in FIELDS},
}


@pytest.mark.parametrize("place", PLACES)
async def test_an_odd_value_is_taken_or_refused_and_never_an_error_of_the_server(connect, schema_model, place):
    client = await connect(schema_model)
    for odd in ODD:
        body = {"model": "rlfocal", "input": "Hi", **PLACES[place](odd)}
        response = await client._client.post("/v1/responses", json=body)
        assert response.status_code in {200, 400, 404, 502}, (odd, response.text)  # 502: members cannot take it either
        if response.status_code == 200 and response.headers["content-type"] == "application/json":
            Response.model_validate(response.json())


@pytest.mark.parametrize(
    "details",
    [
        {"cache_read": 60, "cache_creation": 30},
        {"cache_read": 60, "cache_creation": 0, "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
        {"flex_cache_read": 60, "cache_creation": 30},
    ],
    ids=["plain", "by how long they are kept", "of a service tier"],
)
async def test_usage_says_what_came_from_a_cache_and_went_into_one_as_any_provider_reports_it(details):
    counts = {"input_tokens": 100, "output_tokens": 2, "total_tokens": 102}
    said = AIMessage("red", usage_metadata={**counts, "input_token_details": details})
    model = RLFocalChatModel(members={"a": Said(says=said)})
    async with client_of(model) as client:
        answer = await client.post("/v1/responses", json={"model": "rlfocal", "input": "?"})
    assert answer.json()["usage"]["input_tokens_details"] == {"cached_tokens": 60, "cache_write_tokens": 30}

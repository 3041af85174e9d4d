"""`rlfocal serve` as a process, over members that are asked by HTTP, and programs that speak OpenAI's API."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from support_fault_server import Fault, FaultServer
from support_serving import serving

QUESTION = "What is 6 times 7?"
MESSAGES = [{"role": "user", "content": QUESTION}]
POOL = """
members:
  small:
    {{model: "openai:small", base_url: "{url}", usd_per_million: {{input: 1, output: 10}}, parameters: {{stream_usage: true}}}}
  large:
    {{model: "openai:large", base_url: "{url}", usd_per_million: {{input: 1, output: 10}}, parameters: {{stream_usage: true}}}}
"""
SCRIPTED = """
members:
  small: {class: "support_schema_model:SchemaChatModel", parameters: {says: Lima}}
  large: {class: "support_schema_model:SchemaChatModel", parameters: {says: Lima}}
"""


class Capital(BaseModel):
    """A capital."""

    city: str
    inhabitants: int


class Weather(BaseModel):
    """The weather of a city."""

    city: str


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


FAULTS = {
    "Tell a story.": Fault("ok", token_pause_s=0.1),
    "Think long.": Fault("ok", delay_s=20),
    "Break off.": Fault("drop_after"),
    "Who am I?": Fault("status", status=401),
}


@pytest.fixture(scope="module")
def members():
    """Members that say 42, or, where the question is about a story, a long one, word by word."""

    def answer(_, question):
        return "word " * 20 if "story" in question else "one two three" if "Break" in question else "42"

    with FaultServer(answer, script=lambda model, question, attempt: FAULTS.get(question, Fault())) as server:
        yield server


@pytest.fixture(scope="module")
def served(members, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served"), POOL.format(url=members.base_url)) as one:
        yield one


@pytest.fixture
def stopping(members, tmp_path):
    """A server for one test, which stops it."""
    with serving(tmp_path, POOL.format(url=members.base_url)) as one:
        yield one


def ask(client, question=QUESTION, *, model="small", **fields):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], **fields)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    """A server whose members know tools and schemas."""
    with serving(tmp_path_factory.mktemp("scripted"), SCRIPTED) as one:
        yield one


def client_of(served, **fields):
    return openai.OpenAI(base_url=served.facts["url"], api_key="none", max_retries=0, **fields)


# ---- openai


def test_openais_client_asks_members_over_http(served, members):
    before = len(members.received)
    with client_of(served) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="rlfocal", messages=MESSAGES, temperature=0, seed=3
        )
        got = raw.parse()
    assert isinstance(got, ChatCompletion)
    assert got.choices[0].message.content == "42"
    assert {one.model for one in members.received[before:]} == {"small", "large"}
    assert got.usage.total_tokens == 2 * (5 + 1)
    assert got.rlfocal["fusion"]["confidence"] == 1.0
    assert raw.headers["x-rlfocal-members"].split(",") == [one["member"] for one in got.rlfocal["candidates"]]
    # 5 tokens asked and 1 answered, twice, at 1 and 10 dollars a million
    assert float(raw.headers["x-rlfocal-usd"]) == pytest.approx(2 * (5 * 1 + 1 * 10) / 1e6)


async def test_openais_asynchronous_client_streams(served):
    async with openai.AsyncOpenAI(base_url=served.facts["url"], api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="rlfocal",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"rlfocal": {"max_team": 1}},
        )
        chunks = [chunk async for chunk in stream]
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "42"
    assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage.total_tokens) == ("stop", 6)
    assert len(chunks[-2].rlfocal["candidates"]) == 1


def test_openais_client_lists_the_models(served):
    with client_of(served) as client:
        assert [model.id for model in client.models.list()] == ["rlfocal", "small", "large"]
        assert client.models.retrieve("small").id == "small"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("huge")


def test_openais_client_knows_our_errors(served):
    with client_of(served) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            ask(client, n=2)
        assert (raised.value.param, raised.value.code) == ("n", "unsupported_value")
        with pytest.raises(openai.InternalServerError) as raised:
            ask(client, "Who am I?")
        assert raised.value.status_code == 502


def test_openais_client_calls_tools_and_reads_objects(scripted):
    function = {"name": "weather", "parameters": Weather.model_json_schema()}
    asked = [{"role": "user", "content": "Ask the tool weather about 'Lima'."}]
    with client_of(scripted) as client:
        tools = [{"type": "function", "function": function}]
        got = client.chat.completions.create(model="rlfocal", messages=asked, tools=tools, tool_choice="required")
        [call] = got.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Lima"}')
        parsed = client.chat.completions.parse(model="rlfocal", messages=MESSAGES, response_format=Capital)
        assert isinstance(parsed.choices[0].message.parsed, Capital)


# ---- ChatOpenAI


def chat_model(served, **fields):
    return ChatOpenAI(model="rlfocal", base_url=served.facts["url"], api_key="none", max_retries=0, **fields)


def test_a_langchain_model_of_openais_asks_it(served):
    model = chat_model(served)
    message = model.invoke(QUESTION)
    assert (message.text, message.usage_metadata["total_tokens"]) == ("42", 12)
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == "42"


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_a_langchain_model_of_openais_gets_objects(scripted, method):
    assert isinstance(chat_model(scripted).with_structured_output(Capital, method=method).invoke(QUESTION), Capital)


def test_an_agent_uses_a_tool(scripted):
    agent = create_agent(chat_model(scripted), tools=[weather])
    messages = agent.invoke({"messages": [("user", "Ask the tool weather about 'Lima'.")]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[2].content == "It rains in Lima."


# ---- streams, and how it stops


def test_it_stops_when_the_stream_under_way_has_ended(stopping):
    """Meanwhile it says that it is not ready, and takes nothing new."""
    with client_of(stopping) as client:
        stream = ask(client, "Tell a story.", stream=True)
        first = next(stream)
        stopping.tell(signal.SIGTERM)
        _wait_until(lambda: stopping.get("/ready").status_code == 503)
        assert stopping.get("/health").status_code == 200
        with pytest.raises(openai.InternalServerError, match="stopping"):
            ask(client)
        words = [first, *stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in words) == "word " * 20
    assert stopping.end() == 0
    assert stopping.said == ""


def test_what_takes_longer_than_the_drain_is_told(members, tmp_path):
    with (
        serving(tmp_path, POOL.format(url=members.base_url), "--drain-s", "0.3") as served,
        client_of(served) as client,
    ):
        stream = ask(client, "Tell a story.", stream=True)
        next(stream)
        served.tell(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="stopped"):
            list(stream)
        assert served.end() == 0


@pytest.mark.parametrize(("stream", "question"), [(True, "Tell a story."), (False, "Think long.")])
def test_a_client_that_leaves_cancels_the_members(served, members, stream, question):
    before = len(members.received)
    asked = {"model": "small", "messages": [{"role": "user", "content": question}], "stream": stream}
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("POST", f"{served.facts['url']}/chat/completions", json=asked)
        if stream:
            response = client.send(request, stream=True)
            next(response.iter_bytes())
            response.close()
        else:
            request.extensions["timeout"] = {"connect": 5, "read": 1, "write": 5, "pool": 5}
            with pytest.raises(httpx.ReadTimeout):
                client.send(request)
    members.wait_until(lambda: [one.ended for one in members.received[before:]] == ["left"])


def test_a_member_that_breaks_off_after_the_first_words_is_an_error_of_the_stream(served):
    with client_of(served) as client:
        stream = ask(client, "Break off.", stream=True)
        assert next(stream).choices[0].delta.content
        with pytest.raises(openai.APIError):
            list(stream)


# ---- several processes


def test_several_processes_answer_and_one_that_dies_is_replaced(members, tmp_path):
    with serving(tmp_path, POOL.format(url=members.base_url), "--workers", "2") as served:
        _wait_until(lambda: len(served.workers()) == 2)
        before = served.workers()
        os.kill(before[0], signal.SIGKILL)
        _wait_until(lambda: len(set(served.workers()) - set(before)) == 1)
        _wait_until(lambda: _answers(served))
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(lambda _: _answers(served), range(8)))
        served.tell(signal.SIGTERM)
        assert served.end() == 0


def _answers(served):
    try:
        with client_of(served) as client:
            got = client.chat.completions.create(model="rlfocal", messages=MESSAGES)
    except openai.APIConnectionError:
        return False
    return got.choices[0].message.content == "42"


# ---- what is refused


def test_a_head_that_is_too_large_is_refused(served):
    with suppress(httpx.TransportError):  # hung up on before all of it was sent
        assert httpx.get(f"{served.url}/health", headers={"X-Long": "x" * 200_000}, trust_env=False).status_code == 400
    assert served.get("/health").status_code == 200


def _wait_until(holds, *, within_s=30):
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)

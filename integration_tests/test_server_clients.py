"""Clients of other makers against a server on loopback: OpenAI's, LangChain's, TypeSafe's, the Vercel AI SDK and curl."""

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.server import ServerConfig
from support_fault_server import FaultServer
from support_http_app import served
from support_schema_model import SchemaChatModel

pytest.importorskip("uvicorn", reason="pip install 'langchain-rlfocal[serve]'")

NPM = Path(__file__).parent / "npm"
CAPITAL = "What is the capital of Peru?"
CALLING = "Ask the tool `weather` about 'Lima'."
WHO = "Who is 'Ada', at 36?"
WEATHER = {"city": {"type": "string"}}
PARAMETERS = {"type": "object", "properties": WEATHER, "required": ["city"], "additionalProperties": False}


class Person(BaseModel):
    name: str
    age: int


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"Fog in {city}."


@pytest.fixture(scope="module")
def url():
    """A server of two members that obey tools and schemas, and of one over HTTP."""
    from langchain_rlfocal.server.app import create_app  # noqa: PLC0415  # optional

    with FaultServer(lambda _model, _question: "Lima it is") as provider:
        members = {name: SchemaChatModel(model_name=name, says="Lima it is") for name in ("small", "large")}
        model = RLFocalChatModel(members={**members, "remote": provider.model("remote")}, max_team=2)
        with served(create_app(model, ServerConfig())) as url:
            yield url


@pytest.fixture(scope="module")
def shown():
    """A server of the members that the how-tos speak of."""
    from langchain_rlfocal.server.app import create_app  # noqa: PLC0415  # optional

    members = {name: SchemaChatModel(model_name=name, says="Lima") for name in ("small", "large")}
    with served(create_app(RLFocalChatModel(members=members), ServerConfig())) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(trust_env=False) as http:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)


@pytest.fixture
async def async_client(url):
    async with httpx.AsyncClient(trust_env=False) as http:
        yield openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)


# ---- what the how-tos show

HOW_TOS = [Path(__file__).parents[1] / f"docs/how-to/{name}.md" for name in ("ask-a-server", "serve-a-decision-model")]
SHOWN_URL = "http://127.0.0.1:8000"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.stem)
def test_the_python_of_a_how_to_prints_what_stands_beside_it(shown, page, capsys):
    if "typesafe_sdk" in page.read_text():
        pytest.importorskip("typesafe_sdk", reason="pip install typesafe-sdk")
    for code in blocks(page, "py"):
        exec(compile(code.replace(SHOWN_URL, shown), page.name, "exec"), {"__name__": "shown"})
        assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.stem)
def test_the_curl_of_a_how_to_is_answered(shown, page):
    for command in blocks(page, "sh"):
        run = subprocess.run(
            ["bash", "-c", command.replace(SHOWN_URL, f"--noproxy '*' -sS --fail-with-body {shown}")],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert "Lima" in run.stdout or json.loads(run.stdout)["answers"]["route"]["choice"] == "small"


def test_the_javascript_of_a_how_to_prints_the_answer(shown, vercel):
    (code,) = blocks(HOW_TOS[0], r'js title="capital.mjs"')
    (vercel / "capital.mjs").write_text(code.replace(SHOWN_URL, shown))
    run = subprocess.run(["node", "capital.mjs"], cwd=vercel, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "Lima"


# ---- OpenAI's own client


@pytest.mark.parametrize("model", ["rlfocal", "remote"])
def test_openais_client_completes_chats(client, model):
    asked = {"model": model, "messages": [{"role": "user", "content": CAPITAL}]}
    whole = client.chat.completions.create(**asked)
    chunks = [*client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert whole.choices[0].message.content == text == "Lima it is"
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("model", ["rlfocal", "remote"])
async def test_openais_client_makes_responses(async_client, model):
    whole = await async_client.responses.create(model=model, input=CAPITAL)
    stream = await async_client.responses.create(model=model, input=CAPITAL, stream=True)
    events = [event async for event in stream]
    assert whole.output_text == events[-1].response.output_text == "Lima it is"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Lima it is"
    assert events[-1].response.usage == whole.usage


def test_openais_client_parses_objects_of_both_interfaces(client):
    asked = [{"role": "user", "content": WHO}]
    chat = client.chat.completions.parse(model="rlfocal", messages=asked, response_format=Person)
    response = client.responses.parse(model="rlfocal", input=asked, text_format=Person)
    assert chat.choices[0].message.parsed == response.output_parsed == Person(name="Ada", age=36)


async def test_openais_client_runs_a_loop_of_tools_with_either_interface(async_client):
    function = {"name": "weather", "parameters": PARAMETERS, "strict": True}
    messages = [{"role": "user", "content": CALLING}]
    tools = [{"type": "function", "function": function}]
    async with async_client.chat.completions.stream(model="rlfocal", messages=messages, tools=tools) as stream:
        said = (await stream.get_final_completion()).choices[0].message
    (call,) = said.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Fog"}
    turns = [*messages, said.model_dump(exclude_none=True, exclude={"parsed"}), result]
    for turn in turns[1]["tool_calls"]:
        turn["function"].pop("parsed_arguments", None)
    chat = await async_client.chat.completions.create(model="rlfocal", messages=turns, tools=tools)

    tools = [{"type": "function", **function}]
    async with async_client.responses.stream(model="rlfocal", input=messages, tools=tools) as stream:
        (item,) = (await stream.get_final_response()).output
    result = {"type": "function_call_output", "call_id": item.call_id, "output": "Fog"}
    turns = [*messages, item.to_dict(), result]
    turns[1].pop("parsed_arguments", None)
    response = await async_client.responses.create(model="rlfocal", input=turns, tools=tools)

    assert json.loads(call.function.arguments) == json.loads(item.arguments) == {"city": "weather"}
    assert chat.choices[0].message.content == response.output_text == "The tool says: Fog"


def test_openais_client_lists_the_models_and_knows_its_errors(client):
    assert {"rlfocal", "small", "large", "remote"} <= {model.id for model in client.models.list()}
    with pytest.raises(openai.NotFoundError) as error:
        client.responses.create(model="gpt-5", input=CAPITAL)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="Nothing is stored here"):
        client.responses.create(model="rlfocal", input=CAPITAL, previous_response_id="resp_1")


# ---- LangChain's


@pytest.mark.parametrize("use_responses_api", [False, True])
async def test_langchains_client_answers_streams_calls_and_parses(url, use_responses_api):
    with httpx.Client(trust_env=False) as http:
        async with httpx.AsyncClient(trust_env=False) as async_http:
            model = ChatOpenAI(
                model="rlfocal",
                base_url=f"{url}/v1",
                api_key="none",
                max_retries=0,
                use_responses_api=use_responses_api,
                http_client=http,
                http_async_client=async_http,
            )
            whole = await asyncio.to_thread(model.invoke, CAPITAL)
            streamed = [chunk async for chunk in model.astream(CAPITAL)]
            assert whole.text == "".join(chunk.text for chunk in streamed) == "Lima it is"
            assert whole.usage_metadata["total_tokens"] > 0

            turns = [HumanMessage(CALLING)]
            turns.append(await model.bind_tools([weather]).ainvoke(turns))
            (call,) = turns[1].tool_calls
            assert (call["name"], call["args"]) == ("weather", {"city": "weather"})
            turns.append(ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]))
            assert (await model.bind_tools([weather]).ainvoke(turns)).text == "The tool says: Fog in weather."
            for method in ("json_schema", "function_calling"):
                parsed = await model.with_structured_output(Person, method=method).ainvoke(WHO)
                assert parsed == Person(name="Ada", age=36)


# ---- TypeSafe's, of System One


def test_typesafes_client_asks_the_decider(url):
    typesafe = pytest.importorskip("typesafe_sdk", reason="pip install typesafe-sdk")
    with typesafe.TypeSafeClient(base_url=url, api_key="none", model="rlfocal") as client:
        who = typesafe.Choice(instructions="Who should answer?", criteria={"large": "Hard ones.", "small": None})
        result = client.system_one(state={"messages": [{"role": "user", "content": CAPITAL}]}, questions={"who": who})
        answer = result.choices["who"]
        assert (answer.choice, answer.confidence, dict(answer.probabilities)) == (
            "small",
            1.0,
            {"large": 0.0, "small": 1.0},
        )
        with pytest.raises(typesafe.TypeSafeBadRequestError, match="which member should be asked, and nothing else"):
            client.system_one(state=CAPITAL, questions={"hard": typesafe.Noul(instructions="Is it hard?")})


# ---- curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": CAPITAL}]}, "data: [DONE]"),
        ("responses", {"input": CAPITAL}, "event: response.completed"),
    ],
)
def test_curl_reads_a_stream(url, path, body, last):
    asked = json.dumps({"model": "rlfocal", "stream": True, **body})
    command = ["curl", "-sS", "-i", "-N", "--noproxy", "*", f"{url}/v1/{path}", "--json", asked]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    assert "content-type: text/event-stream" in said
    assert "x-rlfocal-answer-id: " in said
    assert last in said.strip().split("\n\n")[-1]


# ---- the Vercel AI SDK


@pytest.fixture(scope="session")
def vercel():
    """The folder in which the packages of the lockfile are installed, once for each lockfile."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
    digest = hashlib.sha256((NPM / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rlfocal-npm-{digest}"
    if not (folder / "node_modules").is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NPM / name, made)
            install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            try:
                subprocess.run(install, cwd=made, check=True, capture_output=True, text=True, timeout=60)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"npm could not install the packages: {(error.stderr or str(error))[-300:]}")
            shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)
    shutil.copy(NPM / "client.mjs", folder)
    return folder


@pytest.mark.parametrize("api", ["chat", "responses", "compatible"])
def test_the_vercel_ai_sdk_answers_streams_loops_and_parses(url, vercel, api):
    command = ["node", "client.mjs", f"{url}/v1", api]
    run = subprocess.run(command, cwd=vercel, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    whole = {"text": "Lima it is", "finish": "stop", "usage": said["whole"]["usage"]}
    assert said["failures"] == []
    assert said["whole"] == whole
    assert said["streamed"] == {**whole, "pieces": said["streamed"]["pieces"]}
    assert said["streamed"]["pieces"] > 1
    assert said["looped"] == {
        "text": "The tool says: Fog in weather.",
        "steps": [[["weather", {"city": "weather"}]], []],
    }
    assert (said["loopedStream"]["text"], said["loopedStream"]["finish"]) == ("The tool says: Fog in weather.", "stop")
    assert said["object"] == said["output"] == said["partial"] == {"name": "Ada", "age": 36}
    if api == "responses":
        assert said["referring"]["status"] == 400
        assert "providerOptions: {openai: {store: false}}" in said["referring"]["message"]

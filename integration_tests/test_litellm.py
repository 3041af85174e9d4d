"""LiteLLM's real proxy on loopback, with the handler and the configurations that the how-to shows.

The proxy wants many packages of its own, so it may run on another Python: RLFOCAL_LITELLM_PYTHON names one that has `litellm[proxy]`
and the package.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.server import ServerConfig
from support_http_app import served
from support_schema_model import SchemaChatModel

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/litellm.md").read_text()
FILES = dict(re.findall(r'^```\w+ title="([\w.-]+)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL))
PYTHON = os.environ.get("RLFOCAL_LITELLM_PYTHON", sys.executable)
KEY = "sk-" + "a1b2" * 16
POOL = """
members:
  small: {class: "support_schema_model:SchemaChatModel", parameters: {says: Lima}}
  large: {class: "support_schema_model:SchemaChatModel", parameters: {says: Lima}}
"""
NEEDED = "import importlib.util as u; exit(not all(map(u.find_spec, ('litellm', 'apscheduler', 'fastapi', 'langchain_core'))))"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = [{"role": "user", "content": "What is the capital of Peru?"}]
CALLING = [{"role": "user", "content": "Ask the tool `weather` about 'Lima'."}]


@pytest.fixture(scope="module")
def environment():
    paths = [ROOT, ROOT / "unit_tests/support", os.environ.get("PYTHONPATH", "")]
    given = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched
        "RLFOCAL_KEY": "none",
    }
    environment = {**os.environ, **given}
    if subprocess.run([PYTHON, "-c", NEEDED], env=environment, check=False).returncode:
        pytest.skip(f"{PYTHON} has no litellm[proxy]; RLFOCAL_LITELLM_PYTHON may name one that has")
    return environment


@pytest.fixture(scope="module")
def proxy(environment, tmp_path_factory):
    """The proxy's URL: it has the models of both configurations, those of the second as `through-…`."""
    from langchain_rlfocal.server.app import create_app  # noqa: PLC0415  # optional

    folder = tmp_path_factory.mktemp("litellm")
    (folder / "pool.yaml").write_text(POOL)
    (folder / "rlfocal_handler.py").write_text(FILES["rlfocal_handler.py"])
    members = {name: SchemaChatModel(model_name=name, says="Lima") for name in ("small", "large")}
    with served(create_app(RLFocalChatModel(members=members), ServerConfig())) as url:
        config = yaml.safe_load(FILES["custom.yaml"])
        through = yaml.safe_load(FILES["litellm.yaml"].replace("http://127.0.0.1:8000", url))["model_list"]
        config["model_list"] += [{**entry, "model_name": f"through-{entry['model_name']}"} for entry in through]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        with running(folder, environment) as address:
            yield address


def free_port():
    """A port below those that are given out to whoever wants any, since the proxy takes its time before it listens."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    return pytest.fail("no port is free")


@contextmanager
def running(folder, environment):
    """LiteLLM's proxy with the configuration in a folder: its URL."""
    port = free_port()
    start = "import sys; from litellm import run_server; sys.argv[0] = 'litellm'; run_server()"
    process = subprocess.Popen(
        [PYTHON, "-c", start, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Uvicorn running on" in line:
                break
        else:
            pytest.fail("".join(said))
        rest = threading.Thread(target=process.stdout.read, daemon=True)  # a full pipe would stop it
        rest.start()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
    rest.join(5)
    process.stdout.close()


@pytest.fixture(scope="module")
def client(proxy):
    with (
        httpx.Client(trust_env=False) as http,
        openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY, max_retries=0, http_client=http) as client,
    ):
        yield client


def streamed(client, model, messages, **more):
    options = {"include_usage": True}
    chunks = [
        *client.chat.completions.create(model=model, messages=messages, stream=True, stream_options=options, **more)
    ]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "calls": [(call.function.name, json.loads(call.function.arguments)) for call in calls],
        "finish": next(choice.finish_reason for choice in choices if choice.finish_reason),
        "tokens": next(chunk.usage.total_tokens for chunk in chunks if chunk.usage),
        "asked": next(chunk.rlfocal["rounds"][0]["asked"] for chunk in chunks if hasattr(chunk, "rlfocal")),
    }


@pytest.mark.parametrize("way", ["", "through-"])
def test_the_proxy_answers_whole_and_streamed_and_says_how(client, way):
    whole = client.chat.completions.create(model=f"{way}team", messages=QUESTION)
    assert whole.choices[0].message.content == "Lima"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.rlfocal["rounds"][0]["asked"] == ["small", "large"]

    stream = streamed(client, f"{way}team", QUESTION)
    assert stream == {
        "text": "Lima",
        "calls": [],
        "finish": "stop",
        "tokens": whole.usage.total_tokens,
        "asked": ["small", "large"],
    }


@pytest.mark.parametrize("way", ["", "through-"])
def test_tools_are_called_through_the_proxy(client, way):
    message = client.chat.completions.create(model=f"{way}team", messages=CALLING, tools=[WEATHER]).choices[0].message
    assert [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls] == [
        ("weather", {"city": "weather"})
    ]
    stream = streamed(client, f"{way}team", CALLING, tools=[WEATHER])
    assert stream["calls"] == [("weather", {"city": "weather"})]
    assert stream["finish"] == "tool_calls"

    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Fog"}
    turns = [*CALLING, message.model_dump(exclude_none=True), result]
    said = client.chat.completions.create(model=f"{way}team", messages=turns, tools=[WEATHER])
    assert said.choices[0].message.content == "The tool says: Fog"


@pytest.mark.parametrize("model", ["small", "frugal", "through-small"])
def test_one_member_answers_where_one_is_named_or_no_more_are_wanted(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION)
    assert answer.rlfocal["rounds"][0]["asked"] == ["small"]


@pytest.mark.parametrize("way", ["", "through-"])
def test_the_proxy_answers_the_responses_api(client, way):
    assert client.responses.create(model=f"{way}team", input="What is the capital of Peru?").output_text == "Lima"


def test_an_error_keeps_its_status(client):
    with pytest.raises(openai.BadRequestError, match="A target needs a trained policy"):
        client.chat.completions.create(model="team", messages=QUESTION, extra_body={"target_calls": 1.5})


def test_the_proxy_passes_decisions_on(client, proxy):
    question = {
        "type": "choice",
        "instructions": "Who should answer?",
        "criteria": {"small": None, "large": "Hard ones."},
    }
    asked = {"model": "through-decider", "state": "What is the capital of Peru?", "questions": {"route": question}}
    headers = {"Authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{proxy}/v1/systemone", json=asked, headers=headers, trust_env=False)
    assert response.status_code == 200, response.text
    assert response.json()["answers"]["route"]["choice"] == "small"


SYNCHRONOUS = """
import json, litellm
from rlfocal_handler import handler
litellm.custom_provider_map = [{"provider": "ensemble", "custom_handler": handler}]
asked = {"model": "ensemble/rlfocal", "messages": [{"role": "user", "content": "What is the capital of Peru?"}]}
whole = litellm.completion(**asked).choices[0].message.content
pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)]
print(json.dumps([whole, "".join(pieces)]))
"""


def test_the_handler_answers_without_the_proxy_and_without_an_event_loop(environment, tmp_path):
    (tmp_path / "pool.yaml").write_text(POOL)
    (tmp_path / "rlfocal_handler.py").write_text(FILES["rlfocal_handler.py"])
    run = subprocess.run(
        [PYTHON, "-c", SYNCHRONOUS], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == ["Lima", "Lima"]

"""Secrets: keys that members hold, planted, provoked, and looked for in whatever the package says, keeps or writes.

Providers are real `ChatOpenAI`s whose servers repeat every header and the URL in their errors. What the clients themselves
log, and what LangChain says of a member's own run, is theirs; see `test_what_langchain_traces_of_members_is_theirs`.
"""

import asyncio
import json
import logging
import traceback
from base64 import b64encode

import httpx2
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from openai import AuthenticationError
from pydantic import Field

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.collection import collect_into, log_beside
from langchain_rlfocal.errors import EnsembleError, RLFocalError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_calls import CALLS

KEY, PROSE, HEADER = "sk-q9Zp7Ab3dEf6Gh8JkLm", "correct-horse-battery", "zebra giraffe walrus"
PASSWORD, SYNTHESIZER, GOOD = "p4nda@bamboo", "quiet-river-stone", "velvet-lantern-moss"
PLANTED = {
    *(KEY, PROSE, HEADER, PASSWORD, SYNTHESIZER, GOOD),
    "p4nda%40bamboo",
    b64encode(b"user:p4nda@bamboo").decode(),
}


def server(request):
    """Answers as the model's name says: 200 and words, or an error that repeats all that it was sent."""
    asked = json.loads(request.content)
    status, _, words = asked["model"].partition(" ")
    status = int(status)
    if status != 200:
        sent = f"refused {request.headers['authorization']} {dict(request.headers)} at {request.url}"
        error = {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}
        return httpx2.Response(status, json={"error": error}, headers={"x-sent": str(request.headers["authorization"])})
    told = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"]}
    end = {"index": 0, "finish_reason": "stop"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": words}
        return httpx2.Response(200, json={**told, "choices": [{**end, "message": message}]})
    chunk = {**told, "object": "chat.completion.chunk", "choices": [{**end, "delta": {"content": words}}]}
    return httpx2.Response(200, text=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")


def provider(status, key, **fields):
    transport = httpx2.MockTransport(server)
    clients = {
        "http_client": httpx2.Client(transport=transport),
        "http_async_client": httpx2.AsyncClient(transport=transport),
    }
    return ChatOpenAI(**{"model": str(status), "api_key": key, "max_retries": 0, **clients, **fields})


def refusing():
    return {
        "ann": provider(401, KEY),
        "bob": provider(500, PROSE, default_headers={"X-Gateway-Key": HEADER}),
        "cleo": provider(401, PROSE, base_url="https://user:p4nda%40bamboo@host/v1"),
    }


def ensemble(members, **fields):
    policy = ScriptedPolicy((tuple(members),), tuple(members))
    return RLFocalChatModel(members=members, policy=policy, max_team=len(members), max_retries=0, **fields)


def half_refusing(**fields):
    """Two answer and differ, so that a synthesizer is asked, which is refused."""
    good = {"dan": provider("200 yes", GOOD), "eve": provider("200 no", GOOD)}
    synthesizer = provider(401, SYNTHESIZER, default_headers={"X-Gateway-Key": HEADER})
    return ensemble({**refusing(), **good}, synthesizer=synthesizer, synthesize_below=1.0, early_commit=False, **fields)


class Watcher(BaseTracer):
    """Keeps all runs and custom events."""

    def __init__(self):
        super().__init__()
        self.runs = []

    def _persist_run(self, run):
        pass

    def _on_run_create(self, run):
        self.runs.append(run)

    def of_members(self):
        return [run for run in self.runs if run.name.startswith("member:") or run.name == "synthesizer"]

    def own(self):
        return [run for run in self.runs if run not in self.of_members()]


class Events(BaseCallbackHandler):
    def __init__(self):
        self.told = []

    def on_custom_event(self, name, data, **kwargs):
        self.told.append((name, data, kwargs))


def shown(run):
    parts = (run.inputs, run.outputs, run.extra, run.serialized, run.tags, run.events, run.error, run.name)
    return json.dumps(parts, default=repr)


def assert_no_secret(*texts):
    for text in texts:
        found = [secret for secret in PLANTED if secret in str(text)]
        assert not found, (found, str(text)[:3000])


async def _called(call, model, config):
    outcome = call(model, config)
    return await outcome if asyncio.iscoroutine(outcome) else outcome


def told_by(error):
    """All that an error tells: itself, its causes, its fields."""
    return [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("langchain_rlfocal")]


# ---- in answers, errors, traces and logs


@pytest.mark.parametrize("how", CALLS)
async def test_an_error_of_all_members_tells_no_secret(how, caplog):
    caplog.set_level(logging.DEBUG, logger="langchain_rlfocal")
    watcher, events = Watcher(), Events()
    with pytest.raises(EnsembleError) as caught:
        await _called(CALLS[how], ensemble(refusing()), {"callbacks": [watcher, events]})
    error = caught.value
    assert set(error.failures) == {"ann", "bob", "cleo"}
    assert all("Incorrect API key provided" in reason for reason in error.failures.values())
    assert isinstance(error.__cause__, AuthenticationError)
    assert error.__cause__.status_code == 401
    assert_no_secret(*told_by(error), *map(shown, watcher.own()), events.told, *logged(caplog))
    assert watcher.own()[0].error


@pytest.mark.parametrize("how", CALLS)
async def test_an_answer_beside_failures_tells_no_secret(how, caplog):
    """Neither do its metadata, nor what explains it."""
    caplog.set_level(logging.DEBUG, logger="langchain_rlfocal")
    watcher, events, model = Watcher(), Events(), half_refusing()
    said = await _called(CALLS[how], model, {"callbacks": [watcher, events]})
    assert_no_secret(repr(said), *map(shown, watcher.own()), events.told, *logged(caplog))
    if how == "invoke":
        facts = said.response_metadata["rlfocal"]
        assert {failure["member"] for failure in facts["failures"]} == {"ann", "bob", "cleo"}
        assert facts["synthesizer"]["failure"]["kind"].endswith("AuthenticationError")
        assert_no_secret(said.model_dump_json(), model.explain(said))


async def test_what_langchain_traces_of_members_is_theirs():
    """LangChain reports a member's run before the ensemble learns of its error: there a server's words stand as they are.

    So do a member's own headers and URL, where the model can be serialised. The rest of those runs (inputs, parameters, tags,
    metadata) repeats no key.
    """
    watcher = Watcher()
    await half_refusing().ainvoke("?", {"callbacks": [watcher]})
    assert len(watcher.of_members()) == 6
    assert any(KEY in run.error for run in watcher.of_members() if run.error)
    for run in watcher.of_members():
        assert_no_secret(run.inputs, run.extra, run.tags)


# ---- in what stands for models and records


def test_no_representation_tells_a_secret():
    model = half_refusing(cache=False)
    things = [model, model.pool, *model.pool, *model.pool.members, model.bind_tools([])]
    for thing in [*things, PoolMember("a", provider(200, KEY))]:
        assert_no_secret(repr(thing), str(thing))
    facts = (model._identifying_params, model._get_llm_string(), model._get_invocation_params(), model._get_ls_params())
    assert_no_secret(*facts, model.to_json(), model.profile)
    with pytest.raises(RLFocalError) as caught:
        model.invoke([])
    assert_no_secret(*told_by(caught.value))


# ---- in files


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_collecting_writes_no_secret(tmp_path, ending):
    """Neither the table, nor the log, nor what is told on the way."""
    questions = [Question(task="quiz", query_id=str(n), query="Is it? Answer yes or no.", gold="yes") for n in range(2)]
    members = {**refusing(), "bob": provider(403, PROSE, default_headers={"X-Gateway-Key": HEADER})}  # not asked again
    told, path = [], tmp_path / f"out.{ending}"

    pool = ModelPool.from_models({**members, "dan": provider("200 yes", GOOD)})
    table = collect_into(path, pool, questions, watch=lambda tally: told.append(repr(tally))).table
    text = path.read_text(encoding="utf-8")
    logged = [file.read_bytes().decode("latin-1") for file in tmp_path.glob(f"{log_beside(path).name}*")]
    assert len(table) == 8
    assert any("403" in one or "Permission" in one for one in logged)  # the log holds failures' reasons
    assert_no_secret(text, *told, *logged, *map(repr, table))


# ---- in parameters and arguments

HEADERS = {"extra_headers": {"Authorization": f"Bearer {PROSE}", "X-Team": "red"}}


class Configured(ScriptedChatModel):
    """A member whose parameters hold keys, as `ChatOpenAI.extra_body` and `model_kwargs` may."""

    body: dict = Field(default_factory=dict)

    @property
    def _identifying_params(self):
        return {"model_name": self.model_name, "body": self.body}


@pytest.mark.parametrize("where", ["of a member", "of the call"])
def test_keys_within_parameters_are_in_no_trace_of_the_ensemble_and_no_cache_key(where):
    body, arguments = (HEADERS, {}) if where == "of a member" else ({}, HEADERS)
    cache, watcher = InMemoryCache(), Watcher()
    member = Configured(script=["yes"], body=body)
    model = RLFocalChatModel(members={"a": member}, member_callbacks="none", cache=cache)
    model.invoke("Is it so?", {"callbacks": [watcher]}, **arguments)
    [run] = watcher.runs
    assert PROSE not in repr(run.extra)
    assert "red" in repr(run.extra)
    [key] = cache._cache
    assert PROSE not in repr(key)
    assert "red" in repr(key)
    assert member.asked[0].kwargs.get("extra_headers") == arguments.get("extra_headers")


@pytest.mark.parametrize("name", ["extra_headers", "extra_body"])
def test_calls_with_other_keys_share_no_cached_answer(name):
    """Keys partition what a provider knows of its caller; so do what only sounds like keys."""
    member = Configured(script=["ann's", "bob's"])
    model = RLFocalChatModel(members={"a": member}, cache=InMemoryCache())
    ann, bob = ({name: {"partition_key": f"{who}-and-friends"}} for who in ("ann", "bob"))
    assert [model.invoke("Whose?", **given).text for given in (ann, bob, ann)] == ["ann's", "bob's", "ann's"]


def test_schemas_of_tools_are_shown_as_they_are():
    """To look through thirty takes milliseconds, at each call; what stands there is no secret of the caller's."""
    watcher = Watcher()
    parameters = {"type": "object", "properties": {}, "examples": [{"password": "open sesame"}]}
    tool = {"type": "function", "function": {"name": "weather_of", "parameters": parameters}}

    class Tooled(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            return self.bind(tools=tools)

    model = RLFocalChatModel(members={"a": Tooled(script=["yes"])}, member_callbacks="none")
    model.bind_tools([tool]).invoke("Is it so?", {"callbacks": [watcher]}, prompt_cache_key="weather")
    [run] = watcher.runs
    assert run.extra["invocation_params"]["tools"][0]["function"]["name"] == "weather_of"
    assert "open sesame" in repr(run.extra["invocation_params"]["tools"])

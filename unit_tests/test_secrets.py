"""Secrets: keys that members hold, planted, provoked, and looked for in whatever the package says, keeps or writes.

Providers are real `ChatOpenAI`s whose servers repeat every header and the URL in their errors. What the clients themselves
log, and what LangChain says of a member's own run, is theirs; see `test_what_langchain_traces_of_members_is_theirs`.
"""

import asyncio
import copy
import json
import logging
import traceback
from base64 import b64encode
from types import SimpleNamespace
from urllib.parse import quote

import httpx2
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from openai import AuthenticationError
from pydantic import SecretStr

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.collection import collect_into, unfinished_path
from langchain_rlfocal.errors import EnsembleError, RLFocalError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.redaction import ShownResponse, StandInError, masked, secrets_of, without_secrets
from langchain_rlfocal.testing import ScriptedPolicy
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
        self.runs, self.told = [], []

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
    assert_no_secret(*told_by(error), *map(shown, watcher.own()), events.told)
    assert_no_secret(*(record.getMessage() for record in caplog.records if record.name.startswith("langchain_rlfocal")))
    assert watcher.own()
    assert watcher.own()[0].error


@pytest.mark.parametrize("how", CALLS)
async def test_an_answer_beside_failures_tells_no_secret(how, caplog):
    caplog.set_level(logging.DEBUG, logger="langchain_rlfocal")
    watcher, events, model = Watcher(), Events(), half_refusing()
    said = await _called(CALLS[how], model, {"callbacks": [watcher, events]})
    assert_no_secret(repr(said), *map(shown, watcher.own()), events.told)
    assert_no_secret(*(record.getMessage() for record in caplog.records if record.name.startswith("langchain_rlfocal")))


def test_metadata_and_explanations_tell_no_secret():
    model = half_refusing()
    message = model.invoke("?")
    facts = message.response_metadata["rlfocal"]
    assert {failure["member"] for failure in facts["failures"]} == {"ann", "bob", "cleo"}
    assert facts["synthesizer"]["failure"]["kind"].endswith("AuthenticationError")
    assert_no_secret(message, message.model_dump_json(), message.response_metadata, model.explain(message))


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
    things = [
        model,
        model.pool,
        *model.pool,
        *model.pool.members,
        model.bind_tools([]),
        PoolMember("a", provider(200, KEY)),
    ]
    for thing in [*things, copy.copy(model)]:
        assert_no_secret(repr(thing), str(thing))
    assert_no_secret(
        model._identifying_params, model._get_llm_string(), model._get_invocation_params(), model.to_json()
    )
    assert_no_secret(model._get_ls_params(), model.profile)
    with pytest.raises(RLFocalError) as caught:
        model.invoke([])
    assert_no_secret(*told_by(caught.value))


# ---- in files


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_collecting_writes_no_secret(tmp_path, ending):
    """Neither the table, nor what stands for it while it is collected, nor what is told on the way."""
    questions = [Question(task="quiz", query_id=str(n), query="Is it? Answer yes or no.", gold="yes") for n in range(2)]
    members = {**refusing(), "bob": provider(403, PROSE, default_headers={"X-Gateway-Key": HEADER})}  # not asked again
    told, path = [], tmp_path / f"out.{ending}"

    def watch(collected):
        told.extend((repr(collected), unfinished_path(path).read_text(encoding="utf-8")))

    table = collect_into(
        path, ModelPool.from_models({**members, "dan": provider("200 yes", GOOD)}), questions, on_collected=watch
    )
    text = path.read_text(encoding="utf-8")
    assert len(table) == told[-1].count("\n") == 8
    assert_no_secret(text, *told, *map(repr, table))


# ---- the means


def test_secrets_are_found_wherever_a_model_holds_them(monkeypatch):
    monkeypatch.setenv("OF_THE_HOST", "environment-value")

    class Slotted:
        __slots__ = "_secret"  # noqa: PLC0205  # as Python allows

    class Held(Slotted):
        __slots__ = ("_token",)
        lc_secrets = {"token": "OF_THE_HOST"}  # noqa: RUF012  # as LangChain has it

    held = Held()
    held._token, held._secret = SecretStr("slotted-value"), "slotted-text"
    model = SimpleNamespace(
        api_key="plain-value",
        nested={"headers": [{"Authorization": "Bearer header-value"}, {"X-Api-Key": b"bytes-value"}]},
        url="https://user:pass%2Fword@host/path?page=1",
        other_url="https://token-as-user@host",
        held=(held,),
        eos_token="<|endoftext|>",
        model_name="innocent",
        password="short",
        prose="see https://host/@user for more",
    )
    model.again = model
    found = secrets_of(model)
    wanted = {
        "plain-value",
        "header-value",
        "bytes-value",
        "slotted-value",
        "slotted-text",
        "environment-value",
        "pass/word",
        "pass%2Fword",
    }
    assert wanted | {"token-as-user", b64encode(b"user:pass/word").decode()} <= found
    assert not found & {"<|endoftext|>", "innocent", "short", "user", "host"}
    assert secrets_of((refusing()["cleo"], None)) >= {PROSE, PASSWORD, "p4nda%40bamboo"}


def test_a_key_that_a_function_returns_is_found_once_a_client_has_asked_for_it():
    model = provider(401, lambda: PROSE)
    assert secrets_of(model) == frozenset()
    with pytest.raises(AuthenticationError):
        model.invoke("?")
    assert PROSE in secrets_of(model)


def test_looking_for_secrets_ends_and_survives_whatever_a_model_is_made_of():
    class Odd(dict):
        def items(self):
            raise ValueError

    class Wide:
        def __init__(self):
            self.api_key, self.vocabulary = "first-value", [{"api_key": str(n) * 7} for n in range(100_000)]

    assert "first-value" in secrets_of(Wide())
    assert len(secrets_of(Wide())) < 5_000
    assert secrets_of([Odd(a=1), {"api_key": "later-value"}]) == {"later-value"}
    deep = {"api_key": "deep-value"}
    for _ in range(20):
        deep = [deep]
    assert secrets_of(deep) == frozenset()
    round_and_round = []
    round_and_round += [round_and_round] * 50
    assert secrets_of([round_and_round, [[[[{"api_key": "late-value"}]]]]]) == {"late-value"}


def test_a_known_secret_is_hidden_wherever_it_stands_in_whatever_form():
    odd = 'it\'s "odd" \\ ü'
    secrets = secrets_of({"api_key": odd}) | {"longer-value", "longer-value-still"}
    for text in (odd, json.dumps(odd), repr(odd), quote(odd, safe="")):
        assert masked(f"it was {text}!", secrets).strip("'\"!").endswith("***"), text
    assert masked("a longer-value-still, longer-value.", secrets) == "a ***, ***."
    assert masked("a longer-value.") == "a longer-value."


class NotedError(Exception):
    def __init__(self, *, code, words):
        self.code, self.words, self.status_code = code, [words, 3, object()], 418
        super().__init__(words)


class HiddenError(Exception):
    """Says something else once its object is gone."""

    def __init__(self):
        self.by = object()
        super().__init__()

    def __str__(self):
        return "it was hidden-value" if self.by else "it was nothing"


def test_an_error_that_tells_no_secret_stays_itself():
    error = NotedError(code=7, words="nothing to hide")
    error.__cause__ = ValueError("nor here")
    assert without_secrets(error, {"secret-value"}) is error


@pytest.mark.parametrize("where", ["text", "note", "body", "response", "cause", "context", "group", "within a group"])
def test_an_error_that_tells_a_secret_anywhere_is_stood_in_for(where):
    error = NotedError(code=7, words="it was secret-value" if where == "text" else "plain")
    telling = ValueError("it was secret-value")
    if where == "note":
        error.add_note("it was secret-value")
    elif where == "body":
        error.body = {"said": ["it was secret-value"]}
    elif where == "response":
        error.response = SimpleNamespace(status_code=429, headers={"Retry-After": "7"}, text="it was secret-value")
    elif where == "cause":
        error.__cause__ = telling
    elif where == "context":
        error.__context__ = telling
    elif where == "group":
        error.__cause__ = ExceptionGroup("several of secret-value", [telling, KeyError("secret-value")])
    elif where == "within a group":
        noted = ValueError("plain")
        noted.add_note("it was secret-value")
        error.__cause__ = ExceptionGroup("several", [noted])
    shown = without_secrets(error, {"secret-value"})
    assert type(shown) is NotedError
    assert (shown.code, shown.status_code, shown.words[1:]) == (7, 418, [3, None])
    told = "".join(told_by(shown))
    assert "secret-value" not in told
    assert "***" in told
    if where == "response":
        assert shown.response == ShownResponse(429, {"retry-after": "7"}, "it was ***")


def test_an_error_that_cannot_be_made_anew_is_stood_in_for_by_its_words():
    shown = without_secrets(HiddenError(), {"hidden-value"})
    assert type(shown) is StandInError
    assert str(shown) == "HiddenError: it was ***"
    assert shown.status_code is None


def test_errors_that_lead_to_each_other_are_each_stood_in_for_once():
    first, second = ValueError("secret-value one"), ValueError("two")
    first.__cause__, second.__context__ = second, first
    shown = without_secrets(first, {"secret-value"})
    assert str(shown) == "*** one"
    assert shown.__cause__.__context__ is shown
    assert shown.__traceback__ is None

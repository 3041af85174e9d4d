"""Secrets that stand deeper: in arguments within arguments, in what errors hold and do not say, in long texts."""

import logging
import re
import time

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.tracers.base import BaseTracer
from pydantic import Field, SecretStr

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.execution import clients
from langchain_rlfocal.redaction import MAX_SHOWN_CHARS, StandInError, secrets_of, shown_values, without_secrets
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

KEY = "correct-horse-battery"
HEADERS = {"extra_headers": {"Authorization": f"Bearer {KEY}", "X-Team": "red"}}


class Configured(ScriptedChatModel):
    """A member whose parameters hold keys, as `ChatOpenAI.extra_body` and `model_kwargs` may."""

    body: dict = Field(default_factory=dict)

    @property
    def _identifying_params(self):
        return {"model_name": self.model_name, "body": self.body}


class Watcher(BaseTracer):
    def __init__(self):
        super().__init__()
        self.runs = []

    def _persist_run(self, run):
        pass

    def _on_run_create(self, run):
        self.runs.append(run)


@pytest.mark.parametrize("where", ["of a member", "of the call"])
def test_keys_within_parameters_are_in_no_trace_of_the_ensemble_and_no_cache_key(where):
    body, arguments = (HEADERS, {}) if where == "of a member" else ({}, HEADERS)
    cache, watcher = InMemoryCache(), Watcher()
    member = Configured(script=["yes"], body=body)
    model = RLFocalChatModel(members={"a": member}, member_callbacks="none", cache=cache)
    model.invoke("Is it so?", {"callbacks": [watcher]}, **arguments)
    [run] = watcher.runs
    assert KEY not in repr(run.extra)
    assert "red" in repr(run.extra)
    [key] = cache._cache
    assert KEY not in repr(key)
    assert "red" in repr(key)
    assert member.asked[0].kwargs.get("extra_headers") == arguments.get("extra_headers")


def test_values_are_shown_but_for_the_secrets_within():
    """A secret is a digest of six bytes, the same wherever it stands; what only looks like it stays."""
    values = {
        "a": 1,
        "b": [{"token": "abcdefgh"}, "abcdefgh_of"],
        "c": ("x", SecretStr("abcdefgh")),
        "url": "https://ann:abcdefgh@host/v1?key=abcdefgh",
        "max_tokens": 5,
        "pwd": "short",
    }
    shown = shown_values(values)
    digest = shown["b"][0]["token"]
    assert re.fullmatch(r"\*\*\*[0-9a-f]{12}", digest)
    assert shown == {
        "a": 1,
        "b": [{"token": digest}, "abcdefgh_of"],
        "c": ("x", digest),
        "url": f"https://ann:{digest}@host/v1?key={digest}",
        "max_tokens": 5,
        "pwd": "short",
    }
    assert values["b"][0]["token"] == "abcdefgh"


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


@pytest.mark.parametrize(
    "name",
    [
        "_token",
        "hf_token",
        "github-token",
        "private_token",
        "id_token",
        "jwt",
        "pat",
        "_pat",
        "pwd",
        "access_key_id",
        "X-Auth-Token",
        "token",
    ],
)
def test_common_names_of_keys_are_known(name):
    assert KEY in secrets_of({name: KEY})


def test_what_is_under_way_is_not_looked_through():
    """Of a client with hundreds of requests open each holds the key that the client holds, and takes its time."""

    class PoolRequest:
        def __init__(self, key):
            self.headers = {"authorization": key}

    of_http = type("PoolRequest", (PoolRequest,), {"__module__": "httpcore._async.connection_pool"})
    pool = [of_http("of-one-request"), PoolRequest("of-somebody-elses")]
    assert secrets_of({"client": {"api_key": KEY, "pool": pool}}) == {KEY, "of-somebody-elses"}


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "mask_token", "stop_token", "tokens", "pattern", "path"])
def test_names_that_are_no_keys_are_not(name):
    assert secrets_of({name: KEY}) == frozenset()


def test_a_key_in_the_query_of_a_url_is_hidden_by_itself_too():
    model = FailingChatModel(error=ValueError(f"{KEY} is no key"))
    object.__setattr__(model, "base_url", f"https://host/v1?team=red&key={KEY}")
    assert KEY in secrets_of(model)
    with pytest.raises(EnsembleError) as caught:
        RLFocalChatModel(members={"a": model}).invoke("Is it so?")
    assert "*** is no key" in str(caught.value)


@pytest.mark.parametrize("where", ["attribute", "mapping as response", "suppressed context"])
def test_what_an_error_holds_and_does_not_say_is_hidden_too(where):
    error = KeyError("refused")
    if where == "attribute":
        error.request = {"headers": {"authorization": KEY}}
    elif where == "mapping as response":
        error.response = {"Error": {"Message": f"refused {KEY}", "Code": "403"}}
    else:
        error.__context__, error.__suppress_context__ = ValueError(f"sent {KEY}"), True
    shown = without_secrets(error, {KEY})
    assert type(shown) is KeyError
    assert KEY not in f"{vars(shown)} {shown.__context__}"
    if where == "mapping as response":
        assert shown.response == {"Error": {"Message": "refused ***", "Code": "403"}}


def test_of_a_long_error_the_beginning_is_shown_and_quickly():
    """Two million characters of what looks like keys would take seconds to mask, in which nobody else is heard."""
    error = ValueError("key: a1 " * 250_000)
    began_s = time.process_time()
    shown = without_secrets(error, {KEY})
    assert time.process_time() - began_s < 1
    assert type(shown) is ValueError
    assert str(shown).startswith("key: *** key: ***")
    assert len(str(shown)) < 2 * MAX_SHOWN_CHARS  # stars are longer than a1
    for place in range(MAX_SHOWN_CHARS - len(KEY), MAX_SHOWN_CHARS + 1):  # also where the text is cut
        assert KEY[:6] not in str(without_secrets(ValueError("." * place + KEY + "." * 9), {KEY}))
    assert without_secrets(ValueError("a" * MAX_SHOWN_CHARS), {KEY}).args[0].startswith("aaa")
    hidden = type("Long", (Exception,), {"__str__": lambda _: "key: a1 " * 250_000})()
    assert type(without_secrets(hidden, {KEY})) is StandInError
    failing = RLFocalChatModel(members={"a": FailingChatModel(error=error), "b": ScriptedChatModel(script=["yes"])})
    assert failing.invoke("Is it so?").text == "yes"


def test_a_client_that_cannot_be_copied_tells_no_secret_in_the_log(caplog):
    class Client:
        max_retries = 2
        timeout = None

        def with_options(self, **options):
            raise TypeError(f"no options beside {KEY}: {options}")

    model = ScriptedChatModel(script=["yes"])
    object.__setattr__(model, "client", Client())
    with caplog.at_level(logging.DEBUG):
        assert clients.quiet(model) is model
    assert "TypeError" in caplog.text
    assert KEY not in caplog.text

"""Clients that do not retry: openai's against a transport that counts, other shapes by stand-ins."""

import asyncio
import gc
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelAPIError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_openai import ChatOpenAI
from pydantic import Field, PrivateAttr

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.execution import clients
from langchain_rlfocal.execution.clients import STEPS_S, quiet
from langchain_rlfocal.testing import ScriptedChatModel


class Wire:
    """A transport that counts the requests, answers 500, and says at once when to come back."""

    def __init__(self):
        self.bodies, self.timeouts = [], []

    def __call__(self, request):
        self.bodies.append(json.loads(request.content))
        self.timeouts.append(request.extensions["timeout"])
        return httpx2.Response(500, headers={"retry-after-ms": "1"}, json={"error": {"message": "down"}})

    def model(self, **given):
        transport = httpx2.MockTransport(self)
        http = {
            "http_client": httpx2.Client(transport=transport),
            "http_async_client": httpx2.AsyncClient(transport=transport),
        }
        return ChatOpenAI(model="m", api_key="k", base_url="http://localhost/v1", **{**http, **given})


async def invoke(model):
    await asyncio.to_thread(model.invoke, "hi")


async def stream(model):
    await asyncio.to_thread(lambda: list(model.stream("hi")))


async def ainvoke(model):
    await model.ainvoke("hi")


async def astream(model):
    async for _ in model.astream("hi"):
        pass


# ---- openai's


@pytest.mark.parametrize("ask", [invoke, stream, ainvoke, astream])
@pytest.mark.parametrize("responses_api", [False, True])
async def test_one_request_is_made_where_openais_client_makes_three(ask, responses_api):
    wire = Wire()
    model = wire.model(use_responses_api=responses_api)
    with pytest.raises(ModelAPIError):
        await ask(quiet(model))
    assert len(wire.bodies) == 1
    with pytest.raises(ModelAPIError):
        await ask(model)
    assert len(wire.bodies) == 4


def test_the_copy_differs_in_its_clients_alone():
    """They share the connections; cache key, trace and what may be limited or watched stay the same."""
    model = Wire().model(
        rate_limiter=InMemoryRateLimiter(), cache=InMemoryCache(), callbacks=[BaseCallbackHandler()], max_retries=4
    )
    before = dict(vars(model))
    copied = quiet(model)
    assert vars(model) == before
    assert type(copied) is ChatOpenAI
    changed = {name for name, value in vars(copied).items() if value is not before[name]}
    assert changed == {"client", "async_client", "root_client", "root_async_client"}
    assert copied.root_client._client is model.root_client._client
    assert copied.root_async_client._client is model.root_async_client._client
    assert copied.client._client is copied.root_client
    assert copied.model_fields_set == model.model_fields_set
    assert copied._get_llm_string(stop=["x"]) == model._get_llm_string(stop=["x"])
    assert copied._identifying_params == model._identifying_params
    assert copied._get_ls_params() == model._get_ls_params()


def test_the_client_gives_up_in_time_and_never_later_than_by_itself():
    """Three seconds are rounded up to five, of which connecting has two, since it had no more before."""
    wire = Wire()
    own = httpx2.Timeout(30, connect=2)
    with pytest.raises(ModelAPIError):
        quiet(wire.model(timeout=own), timeout_s=3).invoke("hi")
    with pytest.raises(ModelAPIError):
        quiet(wire.model(timeout=own), timeout_s=40).invoke("hi")
    assert wire.timeouts[0] == {"connect": 2, "read": 5, "write": 5, "pool": 5}
    assert wire.timeouts[1] == {"connect": 2, "read": 30, "write": 30, "pool": 30}


def test_models_that_are_quiet_already_are_returned_themselves():
    model = Wire().model(max_retries=0, timeout=4)
    assert quiet(model) is model
    assert quiet(model, timeout_s=4.5) is model
    assert quiet(model, timeout_s=2) is not model
    scripted = ScriptedChatModel(script=["yes"])
    assert quiet(scripted, timeout_s=1) is scripted
    ensemble = RLFocalChatModel(members={"a": model, "b": scripted})
    assert quiet(ensemble, timeout_s=1) is ensemble


def test_a_model_without_one_of_its_clients_is_quiet_in_the_other():
    """An asynchronous key leaves the model without a synchronous client."""

    async def key():
        return "k"

    model = ChatOpenAI(model="m", api_key=key)
    copied = quiet(model)
    assert model.root_client is copied.root_client is copied.client is None
    assert (model.root_async_client.max_retries, copied.root_async_client.max_retries) == (2, 0)


# ---- memory


def test_a_copy_is_made_once_for_a_model_and_a_step():
    model = Wire().model()
    assert quiet(model) is quiet(model)
    assert quiet(model, timeout_s=6) is quiet(model, timeout_s=10)
    assert quiet(model, timeout_s=6) is not quiet(model, timeout_s=11)
    assert quiet(model, timeout_s=1e9) is quiet(model, timeout_s=None)
    assert quiet(Wire().model()) is not quiet(model)


def test_what_is_set_on_the_model_later_is_seen():
    wire = Wire()
    model = wire.model()
    quiet(model)
    model.temperature = 0.9
    with pytest.raises(ModelAPIError):
        quiet(model).invoke("hi")
    assert wire.bodies[-1]["temperature"] == 0.9


def test_a_copy_goes_with_its_model_and_a_new_model_at_the_same_place_gets_its_own():
    model = Wire().model()
    key = (id(model), None)
    quiet(model)
    assert key in clients._kept
    del model
    gc.collect()
    assert key not in clients._kept


def test_no_more_copies_are_kept_than_allowed(monkeypatch):
    monkeypatch.setattr(clients, "MAX_KEPT", 2)
    models = [ScriptedChatModel(script=["yes"]) for _ in range(4)]
    for model in models:
        quiet(model)
    assert [kept.model() for kept in clients._kept.values()] == models[2:]


def test_a_copy_is_made_while_no_other_thread_can_make_one():
    """While it is made, another thread cannot take the lock."""

    class Asking(ChatOpenAI):
        def model_copy(self, **given):
            with ThreadPoolExecutor(1) as pool:
                could_enter.append(pool.submit(clients._lock.acquire, blocking=False).result())
            return super().model_copy(**given)

    could_enter = []
    assert quiet(Asking(model="m", api_key="k")).root_client.max_retries == 0
    assert could_enter == [False]


# ---- other shapes


class Sdk:
    """A client as Stainless generates it, for anthropic and groq."""

    def __init__(self, max_retries=2, timeout=60.0):
        self.max_retries, self.timeout = max_retries, timeout

    def with_options(self, **options):
        return Sdk(**{"max_retries": self.max_retries, "timeout": self.timeout, **options})


class Resource:
    """What such a client is used by; it keeps what it was made of."""

    def __init__(self, client):
        self._client = client


class Plain(BaseChatModel):
    @property
    def _llm_type(self):
        return "plain"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("yes"))])


class GroqShaped(Plain):
    client: Any = Field(default_factory=lambda: Resource(Sdk()), exclude=True)
    max_retries: int = 2


class AnthropicShaped(Plain):
    max_retries: int = 2

    @property
    def _identifying_params(self):
        return {"max_retries": self.max_retries}

    @cached_property
    def _client(self):
        return Sdk(self.max_retries)


class GoogleShaped(Plain):
    """Reads its fields at each call, where 0 attempts mean its own default; is keyed by all of its fields."""

    max_retries: int = 6
    timeout: float | None = None
    client: Any = Field(default_factory=object, exclude=True)

    @classmethod
    def is_lc_serializable(cls):
        return True


class MistralShaped(Plain):
    max_retries: int = 5
    timeout: int = 120
    client: Any = Field(default_factory=lambda: httpx2.Client(timeout=120), exclude=True)


class OllamaShaped(Plain):
    _client: Any = PrivateAttr(default_factory=lambda: Resource(httpx2.Client(timeout=None)))


class OpenRouterSdk:
    _sub_sdk_map = ("chat", "models")

    def __init__(self, timeout_ms=None):
        self.sdk_configuration = SimpleNamespace(retry_config="up to 300 s", timeout_ms=timeout_ms)

    def __getattr__(self, name):
        if name not in self._sub_sdk_map:
            raise AttributeError(name)
        made = vars(self)[name] = SimpleNamespace(sdk_configuration=self.sdk_configuration)
        return made


def test_a_resource_is_made_anew_on_a_client_that_does_not_retry():
    model = GroqShaped()
    copied = quiet(model, timeout_s=7)
    assert (copied.client._client.max_retries, copied.client._client.timeout) == (0, 10)
    assert (model.client._client.max_retries, model.client._client.timeout) == (2, 60)
    assert copied.max_retries == 2


def test_a_client_made_at_first_use_is_made_for_the_copy_and_the_parameters_stay():
    model = AnthropicShaped()
    copied = quiet(model)
    assert copied._client.max_retries == 0
    assert "_client" not in vars(model)
    assert copied._get_llm_string() == model._get_llm_string()
    assert model._client.max_retries == 2


def test_fields_that_are_read_at_each_call_are_set_to_one_attempt_and_keep_their_cache_key():
    model = GoogleShaped()
    copied = quiet(model, timeout_s=9)
    assert (copied.max_retries, copied.timeout) == (1, 10)
    assert (model.max_retries, model.timeout) == (6, None)
    assert "_serialized" not in vars(model)
    assert copied._get_llm_string() == model._get_llm_string()
    assert quiet(GoogleShaped(timeout=3), timeout_s=9).timeout == 3
    once = GoogleShaped(max_retries=1, timeout=3)
    assert quiet(once, timeout_s=9) is once
    assert quiet(GoogleShaped(max_retries=0)).max_retries == 1


def test_a_bare_client_of_http_is_copied_with_its_connections():
    """Its time-out is what counts: the field was read when the client was made."""
    model = MistralShaped()
    copied = quiet(model, timeout_s=9)
    assert copied.client.timeout == httpx2.Timeout(10)
    assert model.client.timeout == httpx2.Timeout(120)
    assert copied.client._transport is model.client._transport
    assert (copied.max_retries, copied.timeout) == (1, 120)
    assert quiet(model).client is model.client


def test_a_private_client_around_one_of_http_is_copied_with_it():
    model = OllamaShaped()
    copied = quiet(model, timeout_s=9)
    assert copied._client._client.timeout == httpx2.Timeout(10)
    assert model._client._client.timeout == httpx2.Timeout(None)
    assert quiet(model) is model


def test_a_client_that_closes_itself_when_collected_is_left_alone():
    """A copy of it would close the connections of both."""

    class Closing(httpx2.Client):
        def __del__(self):
            self.close()

    Closing.__module__ = "httpx2"
    model = MistralShaped(max_retries=1, client=Closing(timeout=120))
    assert quiet(model, timeout_s=9).client is model.client


@pytest.mark.parametrize(("own_ms", "expected_ms"), [(None, 10_000), (4_000, 4_000), (60_000, 10_000)])
def test_a_configuration_is_copied_with_the_parts_that_refer_to_it(own_ms, expected_ms):
    model = GroqShaped(client=OpenRouterSdk(own_ms))
    assert model.client.chat.sdk_configuration.retry_config == "up to 300 s"
    copied = quiet(model, timeout_s=9)
    assert vars(copied.client.chat.sdk_configuration) == {"retry_config": None, "timeout_ms": expected_ms}
    assert vars(model.client.chat.sdk_configuration) == {"retry_config": "up to 300 s", "timeout_ms": own_ms}
    assert quiet(model).client.sdk_configuration.timeout_ms == own_ms
    assert copied.max_retries == 2


def test_the_client_that_closes_the_connections_lives_as_long_as_its_copy():
    model = GroqShaped(client=OpenRouterSdk())
    assert quiet(model).client.made_by is model.client


class FrozenField(GoogleShaped):
    max_retries: int = Field(default=6, frozen=True)


class Uncopyable(GoogleShaped):
    def model_copy(self, **_):
        raise TypeError


def test_a_frozen_field_is_changed_in_the_copy_and_a_model_that_cannot_be_copied_stays(caplog):
    assert quiet(FrozenField()).max_retries == 1
    caplog.set_level(logging.DEBUG, clients.logger.name)
    model = Uncopyable()
    assert quiet(model) is quiet(model) is model
    assert [record.message for record in caplog.records] == [
        "Uncopyable is asked with a client that may retry by itself, since copying it raised TypeError."
    ]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_number_of_seconds_is_rounded_up_to_a_step(timeout_s):
    """Nothing below the first step, no limit beyond the last."""
    limit_s = quiet(GoogleShaped(), timeout_s=timeout_s).timeout
    if limit_s is None:
        assert not timeout_s <= STEPS_S[-1]
    else:
        assert limit_s in STEPS_S
        assert timeout_s <= limit_s
        assert all(step < timeout_s for step in STEPS_S if step < limit_s)


@pytest.mark.parametrize(
    ("own", "expected"), [((3, 60), (3, 10)), ((None, 60.0), (10, 10)), (0.5, 0.5), (None, 10), (60, 10)]
)
def test_every_form_of_time_out_keeps_its_form(own, expected):
    model = GroqShaped(client=Sdk(timeout=own))
    assert quiet(model, timeout_s=9).client.timeout == expected

"""Clients that make one attempt: OpenAI's against a transport that counts, other kinds by stand-ins."""

import gc
import json
import logging
from functools import cached_property
from typing import Any

import httpx2
import pytest
from langchain_core.exceptions import ModelAPIError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.execution import clients
from langchain_rlfocal.execution.clients import without_retries
from langchain_rlfocal.testing import ScriptedChatModel
from support_odd_members import DOORS, answer_of


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


# ---- OpenAI's


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("responses_api", [False, True])
async def test_one_request_is_made_where_openais_client_makes_three(door, responses_api):
    wire = Wire()
    model = wire.model(use_responses_api=responses_api)
    for asked, num_requests in ((without_retries(model), 1), (model, 1 + 3)):
        with pytest.raises(ModelAPIError):
            await answer_of(asked, door, "hi")
        assert len(wire.bodies) == num_requests


def test_the_copy_differs_in_its_clients_alone():
    """They share the connections; cache key and trace stay the same."""
    model = Wire().model(max_retries=4)
    before = dict(vars(model))
    copied = without_retries(model)
    assert vars(model) == before
    assert type(copied) is ChatOpenAI
    changed = {name for name, value in vars(copied).items() if value is not before[name]}
    assert changed == {"client", "async_client", "root_client", "root_async_client"}
    assert copied.root_client._client is model.root_client._client
    assert copied.root_async_client._client is model.root_async_client._client
    assert copied.client._client is copied.root_client
    assert copied._get_llm_string(stop=["x"]) == model._get_llm_string(stop=["x"])
    assert copied._identifying_params == model._identifying_params
    assert copied._get_ls_params() == model._get_ls_params()


def test_the_client_gives_up_in_time_and_never_later_than_by_itself():
    """Of its own 30 s three are left; connecting has two, since it had no more before."""
    wire = Wire()
    own = httpx2.Timeout(30, connect=2)
    for timeout_s in (3, 40):
        with pytest.raises(ModelAPIError):
            without_retries(wire.model(timeout=own), timeout_s=timeout_s).invoke("hi")
    assert wire.timeouts[0] == {"connect": 2, "read": 3, "write": 3, "pool": 3}
    assert wire.timeouts[1] == {"connect": 2, "read": 30, "write": 30, "pool": 30}


def test_models_with_nothing_to_switch_off_are_returned_themselves():
    model = Wire().model(max_retries=0, timeout=4)
    assert without_retries(model) is model
    assert without_retries(model, timeout_s=4.5) is model
    assert without_retries(model, timeout_s=2) is not model
    scripted = ScriptedChatModel(script=["yes"])
    assert without_retries(scripted, timeout_s=1) is scripted
    ensemble = RLFocalChatModel(members={"a": model, "b": scripted})
    assert without_retries(ensemble, timeout_s=1) is ensemble


def test_a_model_without_one_of_its_clients_has_the_other_changed():
    """An asynchronous key leaves the model without a synchronous client."""

    async def key():
        return "k"

    copied = without_retries(ChatOpenAI(model="m", api_key=key))
    assert copied.root_client is copied.client is None
    assert copied.root_async_client.max_retries == 0


# ---- memory


def test_a_copy_is_made_once_for_a_model_and_a_time_out_until_something_is_set_on_the_model_or_it_is_gone():
    model = Wire().model()
    copied = without_retries(model)
    assert without_retries(model) is copied
    assert without_retries(model, timeout_s=6) is without_retries(model, timeout_s=6)
    assert without_retries(model, timeout_s=6) is not without_retries(model, timeout_s=11)
    assert without_retries(Wire().model()) is not copied
    model.temperature = 0.9
    assert without_retries(model).temperature == 0.9
    key = (id(model), None)
    assert key in clients._kept
    del model
    gc.collect()
    assert key not in clients._kept


# ---- other kinds


class Sdk:
    """A client as Stainless generates it, for Anthropic and Groq."""

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


class GroqLike(Plain):
    client: Any = Field(default_factory=lambda: Resource(Sdk()), exclude=True)
    max_retries: int = 2


class AnthropicLike(Plain):
    max_retries: int = 2

    @property
    def _identifying_params(self):
        return {"max_retries": self.max_retries}

    @cached_property
    def _client(self):
        return Sdk(self.max_retries)


class GoogleLike(Plain):
    """Reads its field at each call, where 0 attempts mean its own default; is keyed by all of its fields."""

    max_retries: int = 6
    client: Any = Field(default_factory=object, exclude=True)

    @classmethod
    def is_lc_serializable(cls):
        return True


class Uncopyable(GoogleLike):
    def model_copy(self, **_):
        raise TypeError


@pytest.mark.parametrize(("own", "expected"), [(60, 7), (0.5, 0.5), (None, 7)])
def test_a_resource_is_made_on_a_client_that_does_not_retry_and_the_shorter_time_out_holds(own, expected):
    model = GroqLike(client=Resource(Sdk(timeout=own)))
    copied = without_retries(model, timeout_s=7)
    assert (copied.client._client.max_retries, copied.client._client.timeout) == (0, expected)
    assert (model.client._client.max_retries, model.client._client.timeout) == (2, own)
    assert copied.max_retries == 2


def test_a_client_made_at_first_use_is_made_for_the_copy_and_the_parameters_stay():
    model = AnthropicLike()
    copied = without_retries(model)
    assert copied._client.max_retries == 0
    assert "_client" not in vars(model)
    assert copied._get_llm_string() == model._get_llm_string()
    assert model._client.max_retries == 2


def test_a_field_that_is_read_at_each_call_is_set_to_one_attempt_and_keeps_its_cache_key():
    model = GoogleLike()
    copied = without_retries(model)
    assert (copied.max_retries, model.max_retries) == (1, 6)
    assert "_serialized" not in vars(model)
    assert copied._get_llm_string() == model._get_llm_string()
    once = GoogleLike(max_retries=1)
    assert without_retries(once) is once
    assert without_retries(GoogleLike(max_retries=0)).max_retries == 1


def test_a_model_that_cannot_be_copied_is_asked_as_it_is(caplog):
    caplog.set_level(logging.DEBUG, clients.logger.name)
    model = Uncopyable()
    assert without_retries(model) is without_retries(model) is model
    assert [record.message for record in caplog.records] == [
        "Uncopyable is asked with a client that may retry by itself, since copying it raised TypeError."
    ]

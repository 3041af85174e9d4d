"""What a process that serves sets for itself: connections in several pools, and fewer looks for garbage."""

import gc

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.server import tuning


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setattr(tuning, "getproxies", dict)


def openai_model(name, **fields):
    return ChatOpenAI(model=name, api_key=SecretStr("key"), **fields)


def http_client_of(pool, name):
    return pool[name].model.root_async_client._client


class Transport:
    def __init__(self):
        self.sent = []
        self.is_closed = False

    async def handle_async_request(self, request):
        self.sent.append(request)
        return f"response to {request}"

    async def aclose(self):
        self.is_closed = True


async def test_requests_go_to_one_transport_after_the_other_and_all_are_closed():
    transports = [Transport() for _ in range(3)]
    spread = tuning.SpreadTransport(transports)
    assert [await spread.handle_async_request(n) for n in range(6)] == [f"response to {n}" for n in range(6)]
    assert sorted(transport.sent for transport in transports) == [[0, 3], [1, 4], [2, 5]]
    await spread.aclose()
    assert all(transport.is_closed for transport in transports)


def test_members_share_one_client_and_keep_all_that_is_their_own():
    """Name, price, key and address stay; what is served by no client of OpenAI is the same object."""
    plain = FakeListChatModel(responses=["4"])
    given = ModelPool(
        [
            PoolMember("a", openai_model("small", base_url="http://127.0.0.1:1/v1"), input_usd_per_mtok=2.0),
            PoolMember("b", openai_model("large", max_retries=7)),
            PoolMember("c", plain),
        ]
    )
    pool = tuning.spread(given)
    assert pool.names == given.names
    assert http_client_of(pool, "a") is http_client_of(pool, "b")
    assert http_client_of(pool, "a") is not http_client_of(given, "a")
    client = pool["a"].model.root_async_client
    assert (str(client.base_url), client.api_key) == ("http://127.0.0.1:1/v1/", "key")
    assert pool["a"].model.async_client._client is client
    assert pool["a"].input_usd_per_mtok == 2.0
    assert pool["b"].model.root_async_client.max_retries == 7
    assert pool["a"].model._get_llm_string() == given["a"].model._get_llm_string()
    assert pool["c"] is given["c"]


async def test_a_client_of_the_users_own_is_kept():
    async with DefaultAsyncHttpxClient() as own:
        given = ModelPool([PoolMember("a", openai_model("small", http_async_client=own))])
        assert http_client_of(tuning.spread(given), "a") is own


def test_a_proxy_of_the_environment_is_not_passed_by(monkeypatch):
    monkeypatch.setattr(tuning, "getproxies", lambda: {"https": "http://proxy"})
    given = ModelPool([PoolMember("a", openai_model("small"))])
    assert tuning.spread(given) is given


def test_garbage_is_looked_for_less_often():
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)  # as Python begins
        tuning.collect_less()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] > 700
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)

"""Closing the embedded pool waits for what is on its way, and for nothing else."""

import asyncio
import threading

import pytest

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.local import clients
from langchain_rlfocal.local.clients import AsyncClient, Client, Traffic


def refuses(traffic):
    try:
        with traffic.one("thread"):
            return False
    except InputError:
        return True


def test_closing_waits_until_a_thread_has_its_answer():
    """The answer is let go only after `close` has begun, which shows in that it refuses another request."""
    traffic, order = Traffic(), []
    sent, answer = threading.Event(), threading.Event()

    def ask():
        with traffic.one("thread"):
            sent.set()
            answer.wait()
            order.append("answered")

    def close():
        traffic.close()
        order.append("closed")

    threads = [threading.Thread(target=ask), threading.Thread(target=close)]
    threads[0].start()
    sent.wait()
    threads[1].start()
    while not refuses(traffic):
        pass
    answer.set()
    for thread in threads:
        thread.join()
    assert order == ["answered", "closed"]


def test_a_loop_that_closes_the_pool_itself_is_not_waited_for_longer_than_patience(monkeypatch):
    """Its own requests cannot end before `close` returns."""
    monkeypatch.setattr(clients, "_PATIENCE_S", 0)
    traffic = Traffic()
    with traffic.one("loop"):
        traffic.close()
    assert refuses(traffic)


def test_a_failed_request_is_not_waited_for():
    traffic = Traffic()
    with pytest.raises(ZeroDivisionError), traffic.one("thread"):
        raise ZeroDivisionError
    traffic.close()


def test_both_clients_refuse_to_send_after_closing_and_say_so():
    traffic = Traffic()
    client, async_client = Client(traffic), AsyncClient(traffic)
    traffic.close()
    with pytest.raises(InputError, match=r"closed: ask its members before `close`"):
        client.get("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"closed: ask its members before `close`"):
        asyncio.run(async_client.get("http://127.0.0.1:9"))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_no_proxy_of_the_environment_is_used(kind, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert kind(Traffic()).trust_env is False

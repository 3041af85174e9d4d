"""The fault server: what a client sees of each fault over a real connection, and what the server remembers of it."""

import asyncio
import collections
import json
import socket
import threading
import time
from contextlib import nullcontext

import httpx2
import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from support_calls import collect
from support_fault_server import Fault, FaultServer

pytestmark = pytest.mark.timeout(60)

TEXT = "one two three four"
BROKEN = (ModelConnectionError, ModelConnectionError)

# Fault, what a whole answer and what a stream raises, the text streamed before; None for no error.
SEEN = {
    "ok": (Fault(), (None, None), TEXT),
    "late": (Fault(delay_s=0.05), (None, None), TEXT),
    "slow": (Fault(token_pause_s=0.01), (None, None), TEXT),
    "drop_before": (Fault("drop_before"), BROKEN, ""),
    "drop_late": (Fault("drop_before", delay_s=0.05), BROKEN, ""),
    "drop_at": (Fault("drop_at"), BROKEN, ""),
    "drop_after": (Fault("drop_after"), BROKEN, "one "),
    "drop_after_2": (Fault("drop_after", after_tokens=2), BROKEN, "one two "),
    "drop_after_9": (Fault("drop_after", after_tokens=9), BROKEN, TEXT),
    "truncated": (Fault("truncated"), (json.JSONDecodeError, json.JSONDecodeError), "one "),
    "400": (Fault("status", status=400), (ModelInvalidRequestError, ModelInvalidRequestError), ""),
    "overflow": (Fault("status", status=400, code="context_length_exceeded"), (ContextOverflowError,) * 2, ""),
    "401": (Fault("status", status=401), (ModelAuthenticationError, ModelAuthenticationError), ""),
    "429": (Fault("status", status=429), (ModelRateLimitError, ModelRateLimitError), ""),
    "500": (Fault("status"), (ModelAPIError, ModelAPIError), ""),
    "503": (Fault("status", status=503), (ModelAPIError, ModelAPIError), ""),
    "random_bytes": (Fault("random_bytes"), (UnicodeDecodeError, UnicodeDecodeError), ""),
    "wrong_shape": (Fault("wrong_shape"), (TypeError, None), ""),
    "web_page": (Fault("web_page"), (ValueError, ValueError), ""),
}
ENDS = {name: "dropped" if fault.kind.startswith("drop") else "answered" for name, (fault, *_) in SEEN.items()}


def ask(server, *, model="m", question="Why?", stream=False, client=httpx2, **fields):
    """One raw request."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": question}], **fields}
    return client.post(f"{server.base_url}/chat/completions", json=body, headers={"Authorization": "Bearer sk-planted"})


def events_of(response):
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def read(model, seen):
    for chunk in model.stream("Why?"):
        seen.append(chunk.text)  # what came before an error counts


async def aread(model, seen):
    await collect(model.astream("Why?"), seen)


async def soon(server, predicate):
    await asyncio.to_thread(server.wait_until, predicate)


def all_ended(server, *ends):
    return lambda: [request.ended for request in server.received] == list(ends)


@pytest.mark.parametrize("name", SEEN)
def test_a_whole_answer_meets_a_fault(serve, name):
    fault, (error, _), _ = SEEN[name]
    server = serve({"m": [fault, fault]})
    model = server.model("m")
    for call in (lambda: model.invoke("Why?"), lambda: asyncio.run(model.ainvoke("Why?"))):
        with pytest.raises(error) if error else nullcontext():
            message = call()
            assert message.text == TEXT
            assert message.usage_metadata["total_tokens"] == 1 + 4
    assert [(r.number, r.model, r.question, r.attempt, r.stream, r.fault, r.ended) for r in server.received] == [
        (attempt, "m", "Why?", attempt, False, fault, ENDS[name]) for attempt in (1, 2)
    ]


@pytest.mark.parametrize("name", SEEN)
def test_a_stream_meets_a_fault(serve, name):
    fault, (_, error), text = SEEN[name]
    server = serve({"m": [fault, fault]})
    model = server.model("m")
    for call in (read, lambda *args: asyncio.run(aread(*args))):
        seen = []
        with pytest.raises(error) if error else nullcontext():
            call(model, seen)
        assert "".join(seen) == text
    assert [(r.stream, r.ended) for r in server.received] == [(True, ENDS[name])] * 2


def test_a_raw_client_sees_a_connection_that_breaks(serve):
    """Nothing, a head alone, half a body: each is an error of transport, and the head has come where it should."""
    server = serve({"m": [Fault("drop_before"), Fault("drop_at"), Fault("drop_after")]})
    url, body = f"{server.base_url}/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
    with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
        ask(server)
    for share in (0, 2):
        with httpx2.stream("POST", url, json=body) as response:
            assert response.status_code == 200
            size, got = int(response.headers["content-length"]), bytearray()
            with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete message body"):
                collections.deque(map(got.extend, response.iter_bytes()))
            assert len(got) == (size // share if share else 0)
    assert all_ended(server, "dropped", "dropped", "dropped")()


def test_the_server_says_what_a_provider_says(serve):
    """Usage, when to come back, the key that was refused; the key is not kept."""
    faults = [Fault(), Fault(), Fault("status", status=429, retry_after_s=1.25), Fault("status", status=401)]
    server = serve({"m": faults})
    plain = events_of(ask(server, stream=True))
    assert all("usage" not in event for event in plain)
    assert [event["choices"][0]["finish_reason"] for event in plain] == [None] * 5 + ["stop"]
    counted = events_of(ask(server, stream=True, stream_options={"include_usage": True}))
    assert counted[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    limited = ask(server)
    assert (limited.headers["retry-after"], limited.headers["retry-after-ms"]) == ("2", "1250")
    assert limited.headers["x-request-id"] == "req-3"
    assert "sk-planted" in ask(server).json()["error"]["message"]
    assert "sk-planted" not in repr((server, server.received))


def test_a_script_knows_model_question_and_attempt(serve):
    calls = []

    def script(model, question, attempt):
        calls.append((model, question, attempt))
        return Fault()

    server = serve(script, answer=lambda model, question: f"{model}: {question}")
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    messages = [("user", "Before."), ("assistant", None), ("user", parts), ("system", "Be brief.")]
    response = ask(server, messages=[{"role": role, "content": content} for role, content in messages]).json()
    assert response["choices"][0]["message"]["content"] == "m: What now?"
    for model, question in [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")]:
        ask(server, model=model, question=question)
    assert calls == [("m", "What now?", 1), ("a", "x", 1), ("a", "y", 1), ("b", "x", 1), ("a", "x", 2)]


def test_a_client_that_keeps_its_connection_uses_one(serve):
    server = serve()
    with httpx2.Client() as client:
        for stream in (False, True, False):
            assert ask(server, client=client, stream=stream).status_code == 200
            assert server.open_connections == 1
    server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_never_ends_ends_when_the_client_leaves(serve, stream):
    server = serve({"m": [Fault("never_ends")]})
    model, seen, enough = server.model("m"), [], asyncio.Event()

    async def follow():
        async for chunk in model.astream("Why?"):
            seen.append(chunk.text)
            if len(seen) == 10:
                enough.set()

    task = asyncio.create_task(follow() if stream else model.ainvoke("Why?"))
    await soon(server, lambda: len(server.received) == 1)
    if stream:
        await enough.wait()
    assert server.received[0].ended == "open"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await soon(server, lambda: all_ended(server, "left")() and server.open_connections == 0)
    assert not stream or "".join(seen).startswith("one two three four one two three four ")


def test_a_client_that_loses_patience_has_left(serve):
    server = serve({"m": [Fault(delay_s=30), Fault(token_pause_s=30)]})
    model = server.model("m", timeout=0.3)
    with pytest.raises(ModelTimeoutError):
        model.invoke("Why?")
    with pytest.raises(ModelError):
        read(model, [])
    server.wait_until(all_ended(server, "left", "left"))


def rlfocal_threads():
    return [thread for thread in threading.enumerate() if thread.name == "rlfocal-fault-server"]


async def test_closing_leaves_nothing_behind(serve):
    """Requests that wait, stall or never end are broken at once; no thread or port remains."""
    server = serve({"late": [Fault(delay_s=60)], "slow": [Fault(token_pause_s=60)], "ever": [Fault("never_ends")] * 2})
    late, slow, ever = (server.model(name) for name in ("late", "slow", "ever"))
    calls = [late.ainvoke("Why?"), aread(slow, []), ever.ainvoke("Why?"), aread(ever, [])]
    with socket.create_connection(("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))) as idle:
        tasks = [asyncio.create_task(call) for call in calls]
        await soon(server, lambda: len(server.received) == 4 and server.open_connections == 5)
        began_s = time.monotonic()
        await asyncio.to_thread(server.close)
        assert time.monotonic() - began_s < 5
        assert idle.recv(1) == b""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ModelConnectionError) for result in results), results
    assert [request.ended for request in server.received] == ["closed"] * 4
    assert server.open_connections == 0
    assert rlfocal_threads() == []
    with pytest.raises(ModelConnectionError):
        await late.ainvoke("Why?")
    server.close()


def test_what_a_script_raises_is_raised_at_the_end():
    def script(_model, question, _attempt):
        raise KeyError(question)

    server = FaultServer(lambda *_: "", script=script)
    response = ask(server)
    assert response.status_code == 500
    assert "KeyError" in response.json()["error"]["message"]
    with pytest.raises(KeyError, match="Why"), server:
        pass
    assert rlfocal_threads() == []

"""What only real connections show: requests that are no HTTP, nothing fetched, keys in no log, and counts over several processes."""

import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.cli import app as commands
from langchain_rlfocal.server.app import create_app
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.testing import ScriptedChatModel
from support_fault_server import FaultServer
from support_http import add_key, bearer, chat, error_of
from support_http_app import served as in_thread
from support_serving import serving

CHAT = "/v1/chat/completions"
WAIT_S = 30
SILENCE_S = 3.0
"""After so long a connection that is kept open says nothing more, also on a busy machine."""

POOL = """
members:
  small: {{model: "openai:small", base_url: "{url}"}}
  large: {{model: "openai:large", base_url: "{url}"}}
"""


@pytest.fixture(scope="module")
def members():
    with FaultServer(lambda *_: "42") as server:
        yield server


@pytest.fixture(scope="module")
def keyed(members, tmp_path_factory):
    """A server with keys, its first key for everything."""
    folder = tmp_path_factory.mktemp("keyed")
    file = folder / "keys.toml"
    _, key = add_key(file, scopes=("answers", "members", "models", "feedback", "metrics"))
    options = ("--keys", file, "--workers", 2, "--max-body-mb", 0.1)
    with serving(folder, POOL.format(url=members.base_url), *options) as one:
        one.keys, one.key = file, key
        yield one


def post(served, body, key, path=CHAT):
    return httpx.post(f"{served.url}{path}", json=body, headers=bearer(key), trust_env=False, timeout=WAIT_S)


# ---- connections


def exchange(served, *parts):
    """What a server says to raw bytes, until it hangs up or falls silent."""
    address = httpx.URL(served if isinstance(served, str) else served.url)
    said = b""
    with socket.create_connection((address.host, address.port), timeout=WAIT_S) as connection:
        for part in parts:
            connection.sendall(part)
        connection.settimeout(SILENCE_S)
        try:
            while part := connection.recv(65536):
                said += part
        except (TimeoutError, ConnectionResetError):
            pass
    return said


def statuses(said):
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def request(served, *headers, body=b"", line=f"POST {CHAT} HTTP/1.1"):
    lines = [line, "Host: x", f"Authorization: Bearer {served.key}", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GOOD = json.dumps(chat()).encode()


def test_what_is_no_http_is_refused_and_the_server_goes_on(keyed):
    for said in (
        exchange(keyed, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),  # how TLS begins
        exchange(keyed, request(keyed, "Content-Length: -1")),
        exchange(keyed, request(keyed, "Content-Length: 1e3", body=GOOD)),
        exchange(keyed, request(keyed, "Content-Length: 3", "Content-Length: 4", body=b"{}  ")),
        exchange(keyed, request(keyed, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
        exchange(keyed, request(keyed, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
        exchange(keyed, request(keyed, "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n")),
        exchange(keyed, request(keyed, "X-A: b\rc")),
        exchange(keyed, request(keyed, "X-A : b")),
        exchange(keyed, request(keyed, "X-A: b\0c")),
        exchange(keyed, request(keyed, *(f"X-{n}: {'a' * 500}" for n in range(400)))),
    ):
        [status] = statuses(said)
        assert status in (400, 413, 431, 501), said
    assert post(keyed, chat(), keyed.key).status_code == 200


def test_a_second_request_within_the_body_of_the_first_is_no_request(keyed):
    """Where a length and chunks are both given, h11 goes by the chunks: what follows them is another request, of nobody."""
    hidden = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    by_length = request(keyed, f"Content-Length: {len(hidden)}", body=hidden)
    assert statuses(exchange(keyed, by_length)) == [400]
    chunks = f"{len(GOOD):x}\r\n".encode() + GOOD + b"\r\n0\r\n\r\n"
    both = request(keyed, "Content-Length: 4", "Transfer-Encoding: chunked", body=chunks + hidden)
    assert statuses(exchange(keyed, both)) == [200, 401]


def test_chunks_without_a_length_are_read_up_to_the_limit(keyed):
    """Eleven chunks are beyond the limit of ten, and the last of all has not come when the server answers."""
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    said = exchange(keyed, request(keyed, "Transfer-Encoding: chunked"), *[chunk] * 11)
    assert statuses(said) == [413]
    assert b"body_too_large" in said
    assert post(keyed, chat(), keyed.key).status_code == 200


def test_bodies_that_do_not_come_are_given_up_and_hold_nobody_up():
    model = RLFocalChatModel(members={"ann": ScriptedChatModel(script=["42"])})
    with in_thread(create_app(model, ServerConfig(read_timeout_s=0.3))) as url:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n".encode()
        )
        with ThreadPoolExecutor(20) as pool:
            slow = [pool.submit(exchange, url, head, b"{") for _ in range(16)]
            answered = httpx.post(f"{url}{CHAT}", json=chat(), trust_env=False, timeout=WAIT_S)
            assert answered.status_code == 200
            assert [statuses(one.result()) for one in slow] == [[408]] * 16


def test_a_header_cannot_be_given_to_the_response(keyed):
    for line in (
        f"POST {CHAT}?a=%0d%0aSet-Cookie:%20a=b HTTP/1.1",
        "GET /v1/models/%0d%0aSet-Cookie:%20a=b HTTP/1.1",
        "GET /%E2%80%A8Set-Cookie:%20a=b HTTP/1.1",
    ):
        body = GOOD if line.startswith("POST") else b""
        session = "X-RLFocal-Session: a%0d%0aSet-Cookie: a=b"
        said = exchange(
            keyed, request(keyed, session, f"Content-Length: {len(body)}", "Connection: close", body=body, line=line)
        )
        head = said.partition(b"\r\n\r\n")[0]
        assert statuses(said)
        assert b"set-cookie" not in head.lower()
        assert b"a=b" not in head


# ---- nothing is fetched


@contextmanager
def canary():
    """A server that counts who comes."""
    came = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            came.append(connection.recv(1000))
            connection.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", came
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(WAIT_S)


def test_addresses_in_a_request_go_to_members_and_are_asked_by_nobody_here(keyed, members):
    with canary() as (url, came):
        image = {"type": "image_url", "image_url": {"url": f"{url}/image.png"}}
        file = {"type": "file", "file": {"file_data": f"{url}/file.pdf", "filename": "a.pdf"}}
        schema = {
            "$id": f"{url}/id",
            "$schema": f"{url}/meta",
            "type": "object",
            "properties": {"x": {"$ref": f"{url}/ref"}},
        }
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}
        question = {"type": "text", "text": "What is it?"}
        bodies = (
            chat([question, image]),
            chat([question, file]),
            chat("Call f.", tools=[tool]),
            chat("Write.", response_format=form),
            chat(f"Look at {url}/page"),
            chat([question, image], model="small"),
            chat([question, image], stream=True),
        )
        before = len(members.received)
        for body in bodies:
            response = post(keyed, body, keyed.key)
            assert response.status_code in (200, 400, 502), response.text
        response = post(
            keyed,
            {
                "model": "rlfocal",
                "input": [{"role": "user", "content": [{"type": "input_image", "image_url": f"{url}/i.png"}]}],
            },
            keyed.key,
            "/v1/responses",
        )
        assert response.status_code in (200, 400, 502), response.text
        assert came == []
        assert len(members.received) > before
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as visitor:  # it would have been seen
            visitor.sendall(b"x")
            until = time.monotonic() + WAIT_S
            while not came and time.monotonic() < until:
                time.sleep(0.01)
        assert came == [b"x"]


# ---- keys


def test_a_key_is_in_nothing_that_the_server_says_and_stops_where_it_is_taken_back(keyed):
    known, secret = add_key(keyed.keys, "second")
    unknown = secret[:-4] + "AAAA"
    until = time.monotonic() + WAIT_S
    while post(keyed, chat(), secret).status_code == 401:  # each process looks once a second
        assert time.monotonic() < until
    for key in (secret, unknown):
        post(keyed, chat(model="nobody"), key)
        post(keyed, chat(f"My key is {key}"), key)
        httpx.get(f"{keyed.url}/nowhere?key={key}", headers=bearer(key), trust_env=False)
        exchange(keyed, f"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {key}\r\nHost: x\r\nX : y\r\n\r\n".encode())
    result = CliRunner().invoke(commands, ["keys", "revoke", str(keyed.keys), known.id])
    assert result.exit_code == 0
    until = time.monotonic() + WAIT_S
    refused = 0
    while refused < 6:  # both processes, whichever is asked
        refused = refused + 1 if post(keyed, chat(), secret).status_code == 401 else 0
        assert time.monotonic() < until
    assert "was revoked on" in error_of(post(keyed, chat(), secret), 401)["message"]
    for key in (keyed.key, secret, unknown):
        assert key[4:30] not in keyed.said


# ---- metrics of several processes


def scraped(served, name, **labels):
    response = httpx.get(f"{served.url}/metrics", headers=bearer(served.key), trust_env=False, timeout=WAIT_S)
    assert response.status_code == 200, response.text
    return sum(
        sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == f"rlfocal_{name}" and labels.items() <= sample.labels.items()
    )


def test_what_two_processes_serve_is_counted_together_and_outlives_them(keyed):
    """A process that is killed leaves its counts, and its requests in flight do not stay."""
    before = scraped(keyed, "answers_total")
    with ThreadPoolExecutor(8) as pool:
        assert {one.status_code for one in pool.map(lambda _: post(keyed, chat(), keyed.key), range(24))} == {200}
    assert scraped(keyed, "answers_total") == before + 24
    assert scraped(keyed, "requests_in_flight", endpoint=CHAT) == 0
    killed, *_ = keyed.workers()
    os.kill(killed, signal.SIGKILL)
    until = time.monotonic() + 30
    while killed in keyed.workers() or len(keyed.workers()) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert scraped(keyed, "answers_total") == before + 24
    assert post(keyed, chat(), keyed.key).status_code == 200
    assert scraped(keyed, "answers_total") == before + 25
    assert scraped(keyed, "requests_in_flight", endpoint=CHAT) == 0

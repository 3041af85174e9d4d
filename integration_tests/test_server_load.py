"""A server with real members under load: more than it takes, a worker that is killed, a stop with answers under way."""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import openai
import pytest

from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.log import OutcomeLog
from support_fault_server import Fault, FaultServer

SCRIPTS = Path(__file__).parents[1] / "docs" / "benchmarks"
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


@pytest.fixture(scope="module")
def serving():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("serving")


@pytest.fixture
def redis(serving):
    try:
        server = serving.Redis()
    except FileNotFoundError:
        pytest.skip("needs redis-server (Debian's package of this name)")
    with server:
        yield server


def body_of(question, **fields):
    return {"model": "rlfocal", "messages": [{"role": "user", "content": question}], **fields}


async def ask(client, question, **fields):
    return await client.post("/v1/chat/completions", body_of(question, **fields), timeout_s=60)


def said(response):
    return json.loads(response.body)["choices"][0]["message"]["content"]


def double(_model, question):
    """Answer "What is 2 times n?" with as many words as `n` wants."""
    return str(2 * int(question.split()[4].rstrip("?")))


def question(number):
    return f"What is 2 times {number}?"


def pid_of(workers, port):
    """Find the worker that holds the other end of a connection, by our end's port."""
    inodes = {
        row.split()[9]
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int(row.split()[2].rpartition(":")[2], 16) == port
    }
    for pid in workers:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).removeprefix("socket:[").rstrip("]") in inodes:
                    return pid
    raise AssertionError("no worker holds it")


def until(holds):
    """Wait for a process, of which nobody is told."""
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


# ---- more than it takes


async def test_beyond_its_room_a_server_refuses_at_once_and_answers_what_it_took(serving):
    """Room for four, forty at once, members that take 0.3 s: four are answered, 36 are refused long before that."""
    with FaultServer(double, script=lambda *_: Fault(delay_s=0.3)) as members:
        served = serving.Served(members.base_url, options=["--max-in-flight", "4"])
        with served:
            client, loop = serving.Client(served.port), asyncio.get_running_loop()

            async def timed(number):
                begin_s = loop.time()
                return number, await ask(client, question(number), stream=number % 2 == 0), loop.time() - begin_s

            came = await asyncio.gather(*map(timed, range(40)))
            refused = [(response, took_s) for _, response, took_s in came if response.status != 200]
            assert len(refused) == 36
            for response, _ in refused:
                assert response.status == 429
                assert int(response.headers["retry-after"]) >= 1
                assert json.loads(response.body)["error"]["code"] == "server_busy"
            assert len([r for _, r, _ in came if r.status == 200 and ("[DONE]" in r.body.decode() or said(r))]) == 4
            assert {request.question for request in members.received} == {
                question(number) for number, response, _ in came if response.status == 200
            }
            assert said(await ask(client, question(100))) == "200"
            assert served.ready()
            client.close()


# ---- a worker that is killed


async def test_a_kill_breaks_the_stream_and_nothing_else(serving, redis, tmp_path):
    """Two workers, a stream from a member that would take minutes; the worker that serves it is killed.

    Its client is told by a connection that ends without `[DONE]`. The other worker goes on, a new one comes. What was
    booked is what reached the members, also the call that was cut; feedback that was acknowledged is in the log.
    """
    log = tmp_path / "log.db"

    def answer(model, text):
        return "word " * 300 if "long" in text else double(model, text)

    def script(_model, text, _attempt):
        return Fault(token_pause_s=0.2) if "long" in text else Fault()

    with FaultServer(answer, script=script) as members:
        url = f"{redis.url}?lease_s=2"
        served = serving.Served(
            members.base_url, workers=2, options=["--state", url, "--log", str(log), "--max-calls", "1000"]
        )
        with served:
            before = set(served.workers)
            client = serving.Client(served.port)
            answers = [await ask(client, question(n), rlfocal={"session": "s"}) for n in range(5)]
            assert [said(one) for one in answers] == [str(2 * n) for n in range(5)]
            ids = [json.loads(one.body)["id"] for one in answers]
            for name in ids:
                told = await client.post("/v1/feedback", {"answer_id": name, "score": 1.0}, timeout_s=60)
                assert told.status == 200

            official = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0)
            stream = await official.chat.completions.create(**body_of("A long one", model="first"), stream=True)
            chunks = []

            async def read_until_it_breaks():
                async for chunk in stream:
                    chunks.append(chunk)
                    if len(chunks) == 3:
                        connection = stream.response.extensions["network_stream"]
                        killed.append(pid_of(before, connection.get_extra_info("client_addr")[1]))
                        os.kill(killed[0], signal.SIGKILL)

            killed = []
            # openai's client passes on what its transport raises while it reads a stream.
            with pytest.raises(Exception, match=r"(?i)peer closed|connection|reset"):
                await read_until_it_breaks()
            assert 3 <= len(chunks) < 300
            await official.close()

            # The other worker answers at once, in the same session too.
            fresh = serving.Client(served.port)
            later = [await ask(fresh, question(n), rlfocal={"session": "s"}) for n in range(10, 15)]
            assert [said(one) for one in later] == [str(2 * n) for n in range(10, 15)]
            await asyncio.to_thread(until, lambda: len(set(served.workers) - set(killed)) == 2)
            client.close()
            fresh.close()
        shared = SharedState.at(url)
        await shared.atake("anything", per_minute=600)  # connects, so that it hears what others spent
        await asyncio.to_thread(until, lambda: shared.ledger.spent.calls == len(members.received))
        shared.close()
        written = OutcomeLog(log)
        marked = {event.answer_id for _, (_, event) in written.events_since(0)}
        written.close()
    assert len(marked) == len(ids) == 5


# ---- a stop


async def test_a_stop_under_load_loses_no_answer_that_was_taken(serving):
    """Twenty answers are under way when SIGTERM comes; all end, each right, and so does the server."""
    with FaultServer(double, script=lambda *_: Fault(delay_s=0.5)) as members:
        served = serving.Served(members.base_url, options=["--max-in-flight", "64"])
        with served:
            client = serving.Client(served.port)
            asked = [asyncio.ensure_future(ask(client, question(number))) for number in range(20)]
            await asyncio.to_thread(members.wait_until, lambda: len(members.received) >= 20)
            os.kill(served.pid, signal.SIGTERM)
            late = await asyncio.gather(
                *(ask(client, question(number)) for number in range(100, 105)), return_exceptions=True
            )
            came = await asyncio.gather(*asked)
            assert [(one.status, said(one)) for one in came] == [(200, str(2 * number)) for number in range(20)]
            for one in late:  # the port is closed already, or what is stopping says so
                assert isinstance(one, OSError | serving.ConnectionBrokenError) or one.status in {200, 503}
            status = await asyncio.to_thread(served.stop)
            assert status == 0
            client.close()


def test_the_table_has_a_row_for_a_load(serving):
    """A second of eight at a time: all columns are there, and somebody was answered."""
    with serving.MemberServer(share_of_faults=0.0) as members, serving.Served(members.base_url) as served:
        done = serving.run(served, members, serving.Load(serving.WARMUP_S + 1.5, in_flight=8), in_time_s=30.0)
        row = serving.row_of("1 worker", "8 in flight", [done])
    assert len(row) == len(serving.COLUMNS)
    assert done.kinds.keys() <= {"right", "wrong"}
    assert done.good_per_s > 0
    assert done.log["requests"] >= len(done.ended)

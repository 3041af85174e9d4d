"""Limits of the server: bodies, answers in flight, time, clients that leave, and how it stops."""

import asyncio
import json
import signal

import pytest

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.server.admission import Admission
from langchain_rlfocal.server.app import create_app
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.drain import draining
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.events import SEND_TIMEOUT_S
from support_http import CHAT, add_key, chat, client_of, error_of
from support_odd_members import Saying
from support_streams import Visit, chunks_of, events_of, text_of
from support_time import in_virtual_time, timed


def model_of(*members, **fields):
    pool = {f"m{place}": member for place, member in enumerate(members)}
    return RLFocalChatModel(members=pool, max_retries=0, **fields)


def saying(text="Yes."):
    return model_of(Saying(script=[text]))


# ---- bodies


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"a": NaN}', 400, "invalid_json"),
        (b'{"a": "\xff"}', 400, "invalid_json"),
        (b'{"a": "\\ud800"}', 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 400, "body_too_deep"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"a": "' + b"x" * 2000 + b'"}', 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(content, status, code):
    async with client_of(saying(), max_body_bytes=2000 if code == "body_too_large" else 10**6) as client:
        response = await client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
        assert error_of(response, status)["code"] == code


async def test_a_body_of_the_deepest_that_is_allowed_is_read():
    """The body is the first object, its list of messages the second layer, and so on: `rlfocal` is one deeper."""
    async with client_of(saying(), max_depth=3) as client:
        assert (await client.post(CHAT, json=chat(rlfocal={}))).status_code == 200
        deeper = chat(rlfocal={"budget_per_answer": {"max_calls": {}}})
        assert error_of(await client.post(CHAT, json=deeper), 400)["code"] == "body_too_deep"


async def test_only_json_is_taken():
    async with client_of(saying()) as client:
        response = await client.post(CHAT, content=b"a=b", headers={"Content-Type": "text/plain"})
        assert error_of(response, 415)["code"] == "unsupported_media_type"


def test_a_body_that_is_sent_in_pieces_is_cut_off_where_it_is_too_large():
    async def main():
        app = create_app(saying(), ServerConfig(max_body_bytes=100))
        visit = Visit(app, CHAT, parts=[b'{"a": "' + b"x" * 60, b"x" * 60, None])
        await visit.task
        assert visit.status == 413

    in_virtual_time(main())


def test_a_body_must_arrive_in_time():
    async def main():
        visit = Visit(create_app(saying(), ServerConfig(read_timeout_s=7)), CHAT, parts=[b'{"model": ', None])
        await visit.task
        assert (visit.status, asyncio.get_running_loop().time()) == (408, 7)
        assert visit.headers["connection"] == "close"

    in_virtual_time(main())


@pytest.mark.parametrize(("limit", "field"), [("max_messages", "messages"), ("max_tools", "tools")])
async def test_messages_and_tools_are_counted(limit, field):
    tool = {"type": "function", "function": {"name": "f"}}
    body = chat(
        **{"messages": [{"role": "user", "content": "?"}] * 3} if field == "messages" else {"tools": [tool] * 3}
    )
    async with client_of(saying(), **{limit: 2}) as client:
        assert error_of(await client.post(CHAT, json=body), 400)["param"] == field


@pytest.mark.parametrize(
    ("method", "path", "status", "code"), [("GET", "/v2", 404, "not_found"), ("GET", CHAT, 405, "method_not_allowed")]
)
async def test_what_is_not_served_is_an_error_of_the_same_form(method, path, status, code):
    async with client_of(saying()) as client:
        assert error_of(await client.request(method, path), status)["code"] == code


@pytest.mark.parametrize("wrong", [{"max_in_flight": 0}, {"timeout_s": -1.0}, {"drain_s": float("inf")}])
def test_settings_must_be_in_their_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ServerConfig(**wrong)


# ---- answers in flight


def test_a_full_server_refuses_at_once_and_says_when_to_come_again():
    """Of three that come at once, where two are taken, one is refused before a second has passed."""

    async def main():
        member = timed((5, "Yes."))
        app = create_app(model_of(member), ServerConfig(max_in_flight=2))
        visits = [Visit(app, CHAT, chat(stream=stream)) for stream in (False, True, False)]
        await visits[2].task
        assert asyncio.get_running_loop().time() == 0
        assert (visits[2].status, visits[2].headers["retry-after"]) == (429, "1")
        assert json.loads(visits[2].body)["error"]["code"] == "server_busy"
        await asyncio.gather(*(visit.task for visit in visits))
        assert [visit.status for visit in visits] == [200, 200, 429]
        assert (app.state.serving.admission.in_flight, app.state.serving.admission.refused) == (0, 1)
        again = Visit(app, CHAT, chat())
        await again.task
        assert again.status == 200

    in_virtual_time(main())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_broken_off(stream):
    async def main():
        member = timed((100, "Yes."))
        visit = Visit(
            create_app(model_of(member), ServerConfig(timeout_s=5, heartbeat_s=60)), CHAT, chat(stream=stream)
        )
        await visit.task
        assert (visit.status, asyncio.get_running_loop().time()) == (504, 5)
        assert json.loads(visit.body)["error"]["code"] == "timeout"
        assert visit.headers["x-should-retry"] == "false"
        assert member.hows == ["cancelled"]

    in_virtual_time(main())


# ---- streams


def test_a_stream_says_that_it_lives_while_members_think():
    """Nothing is said for 25 s: a comment at 10 s, when the head is sent too, and one at 20 s."""

    async def main():
        app = create_app(model_of(timed((25, [(0, "Yes, "), (12, "it is.")]))), ServerConfig(heartbeat_s=10))
        visit = Visit(app, CHAT, chat(model="m0", stream=True))
        await visit.wait_for(2)
        assert (asyncio.get_running_loop().time(), visit.status, visit.body) == (10, 200, ": waiting\n\n")
        await visit.task
        assert visit.body.count(": waiting") == 3
        assert text_of(chunks_of(visit.body)) == "Yes, it is."

    in_virtual_time(main())


def test_a_stream_that_breaks_off_ends_with_an_error_as_openais_clients_read_it():
    async def main():
        app = create_app(model_of(timed((1, [(0, "Yes, "), (1, ConnectionError("gone"))]))), ServerConfig())
        visit = Visit(app, CHAT, chat(model="m0", stream=True))
        await visit.task
        first, last = events_of(visit.body)
        assert (visit.status, json.loads(first)["choices"][0]["delta"]["content"]) == (200, "Yes, ")
        assert set(json.loads(last)) == {"error"}
        assert json.loads(last)["error"]["type"] == "server_error"

    in_virtual_time(main())


def test_an_error_after_a_heartbeat_is_an_event_too():
    async def main():
        app = create_app(model_of(timed((25, ValueError("boom")))), ServerConfig(heartbeat_s=10))
        visit = Visit(app, CHAT, chat(stream=True))
        await visit.task
        [only] = events_of(visit.body)
        assert json.loads(only)["error"]["code"] == "no_member_answered"

    in_virtual_time(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_members(stream):
    async def main():
        member = timed((1, [(0, "Yes, "), (100, "it is.")]) if stream else (100, "Yes."))
        app = create_app(model_of(member), ServerConfig())
        visit = Visit(app, CHAT, chat(model="m0", stream=stream))
        await (visit.wait_for(2) if stream else asyncio.sleep(3))
        await visit.leave()
        assert member.hows == ["cancelled"]
        assert asyncio.get_running_loop().time() <= 3
        assert app.state.serving.admission.in_flight == 0

    in_virtual_time(main())


def test_a_client_that_stops_reading_has_left():
    """A minute after the first piece that it does not take: no fault of the server, whose log stays as it is."""

    async def main():
        member = timed((1, [(0, "Yes, "), (1, "it is.")]))
        app = create_app(model_of(member), ServerConfig())
        visit = Visit(app, CHAT, chat(model="m0", stream=True), reads=2)
        await visit.task
        assert asyncio.get_running_loop().time() == 2 + SEND_TIMEOUT_S
        assert app.state.serving.admission.in_flight == 0
        told = app.state.serving.metrics.told()[0].decode()
        assert 'rlfocal_requests_total{endpoint="/v1/chat/completions",status="499"} 1.0' in told

    in_virtual_time(main())


# ---- how it stops


def test_what_is_under_way_ends_while_nothing_new_is_taken():
    async def main():
        app = create_app(model_of(timed((5, [(0, "Yes, "), (5, "it is.")]))), ServerConfig())
        admission = app.state.serving.admission
        stream = Visit(app, CHAT, chat(model="m0", stream=True))
        await asyncio.sleep(6)
        drained = asyncio.ensure_future(admission.drain(30))
        await asyncio.sleep(0)
        ready, new, alive = (Visit(app, path, method="GET") for path in ("/ready", "/v1/models", "/health"))
        asked = Visit(app, CHAT, chat())
        await asyncio.gather(ready.task, new.task, alive.task, asked.task)
        assert (ready.status, json.loads(ready.body)["status"]) == (503, "draining")
        assert (alive.status, new.status) == (200, 200)
        assert (asked.status, asked.headers["connection"]) == (503, "close")
        await drained
        assert asyncio.get_running_loop().time() == 10
        await stream.task
        assert text_of(chunks_of(stream.body)) == "Yes, it is."

    in_virtual_time(main())


def test_what_does_not_end_in_time_is_broken_off_and_told():
    async def main():
        member = timed((1, [(0, "Yes, "), (500, "it is.")]))
        app = create_app(model_of(member), ServerConfig())
        stream = Visit(app, CHAT, chat(model="m0", stream=True))
        await asyncio.sleep(2)
        await app.state.serving.admission.drain(30)
        await stream.task
        assert asyncio.get_running_loop().time() == 32
        assert json.loads(events_of(stream.body)[-1])["error"]["code"] == "server_stopping"
        assert member.hows == ["cancelled"]

    in_virtual_time(main())


@pytest.mark.parametrize("path", [CHAT, "/v1/feedback"])
def test_who_has_not_sent_a_whole_body_when_the_last_answer_ends_is_told_that_the_server_stops(path):
    """The answer takes 5 s of the 30 s that there are: then nobody is waited for, since nothing more would be taken."""

    async def main():
        app = create_app(model_of(timed((5, "Yes."))), ServerConfig())
        whole, half = Visit(app, CHAT, chat()), Visit(app, path, parts=[b'{"model": ', None])
        await asyncio.sleep(1)
        await app.state.serving.admission.drain(30)
        await asyncio.gather(whole.task, half.task)
        assert asyncio.get_running_loop().time() == 5
        assert (whole.status, half.status, half.headers["connection"]) == (200, 503, "close")
        assert json.loads(half.body)["error"]["code"] == "server_stopping"

    in_virtual_time(main())


async def test_the_first_signal_drains_and_is_then_handed_on():
    heard, has_come = [], asyncio.Event()

    def hear(number, _):
        heard.append(number)
        has_come.set()

    before = signal.signal(signal.SIGTERM, hear)
    try:
        admission = Admission(4)
        with draining(admission, within_s=30):
            async with admission.answer(timeout_s=None):
                signal.raise_signal(signal.SIGTERM)
                assert (admission.is_draining, heard) == (True, [])
                with pytest.raises(ApiError):
                    async with admission.answer(timeout_s=None):
                        pass
            await has_come.wait()
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_second_interrupt_does_not_wait():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        admission = Admission(4)
        with draining(admission, within_s=30):
            async with admission.answer(timeout_s=None):
                signal.raise_signal(signal.SIGINT)
                assert heard == []
                signal.raise_signal(signal.SIGINT)
                assert heard == [signal.SIGINT]
                await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        signal.signal(signal.SIGINT, before)


# ---- pages of other origins


async def test_pages_of_other_origins_may_not_ask_unless_they_are_named():
    origin = {"Origin": "https://app.example"}
    async with client_of(saying()) as client:
        for path, body in ((CHAT, chat()), ("/v1/feedback", {}), ("/v1/systemone", {})):
            response = await client.post(path, json=body, headers=origin)
            assert error_of(response, 403)["code"] == "origin_not_allowed"
            assert "access-control-allow-origin" not in response.headers
        error_of(await client.get("/v1/models", headers=origin), 403)
        assert (await client.get("/health", headers=origin)).status_code == 200
    for named in ("https://app.example", "*"):
        async with client_of(saying(), allow_origins=("http://localhost:3000", named)) as client:
            response = await client.post(CHAT, json=chat(), headers=origin)
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == named


async def test_a_page_that_knows_a_key_is_known_by_it(tmp_path):
    """A page cannot have a browser send a key that it does not know, so that `Origin` says nothing more."""
    _, key = add_key(tmp_path / "keys.toml")
    async with client_of(saying(), keys_file=str(tmp_path / "keys.toml"), key=key) as client:
        response = await client.post(CHAT, json=chat(), headers={"Origin": "https://app.example"})
        assert response.status_code == 200


@pytest.mark.parametrize("path", [f"{CHAT}/", "/health/", "/v1//chat/completions"])
async def test_another_path_is_no_way_to_one_that_is_served(path):
    """It is not sent on to wherever the request's `Host` says."""
    async with client_of(saying()) as client:
        error_of(await client.post(path, json=chat(), headers={"Host": "elsewhere"}), 404)


# ---- what it says of itself


async def test_it_says_how_its_store_and_its_log_are(tmp_path):
    async with client_of(saying()) as client:
        told = (await client.get("/ready")).json()
    state = {"kind": "memory", "is_lost": False, "lost_for_s": 0.0, "workers": 1}
    assert told == {"status": "ready", "in_flight": 0, "state": state}
    model = model_of(Saying(script=["Yes."]), outcome_log=tmp_path / "log.db")
    async with client_of(model) as client:
        assert (await client.get("/ready")).json()["log"] == {"is_lost": False}
        model.outcome_log.close()
        response = await client.get("/ready")
        assert (response.status_code, response.json()["log"]) == (200, {"is_lost": True})


async def test_a_path_that_is_not_there_says_what_a_base_url_is():
    async with client_of(saying()) as client:
        response = await client.post("/chat/completions", json={})
    assert response.status_code == 404
    assert "base URL ends in /v1" in response.json()["error"]["message"]

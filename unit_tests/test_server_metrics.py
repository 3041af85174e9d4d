"""Metrics of the server: what was counted is what happened, in Prometheus's form, under labels that are few."""

import asyncio
import os
import re
from datetime import UTC, datetime

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.execution import Budget, StoreStatus
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.server import metrics as module
from langchain_rlfocal.server.keys import KeyBudget, changing_keys, make_key
from langchain_rlfocal.testing import FailingChatModel
from support_ensembles import model_of, saying
from support_http import CHAT, bearer, chat, client_of
from support_http import add_key as add

NOW = datetime(2026, 11, 30, tzinfo=UTC)
FAMILY = re.compile(r"rlfocal_[a-z]+(_[a-z]+)*")


async def scraped(client, **headers):
    """What Prometheus reads: each value by its name and labels."""
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(response.text)
        for sample in family.samples
    }


def value(samples, name, **labels):
    return samples.get((f"rlfocal_{name}", *sorted(labels.items())))


async def ask(client, **fields):
    return await client.post(CHAT, json=chat(**fields))


async def test_requests_are_counted_by_endpoint_and_status():
    async with client_of(model_of({"ann": saying("42")})) as client:
        await ask(client)
        await ask(client, model="nobody")
        await client.get("/v1/models/ann")
        await client.get("/v1/models/bob")
        samples = await scraped(client)
    assert value(samples, "requests_total", endpoint=CHAT, status="200") == 1
    assert value(samples, "requests_total", endpoint=CHAT, status="404") == 1
    assert value(samples, "requests_total", endpoint="/v1/models/{name}", status="200") == 1
    assert value(samples, "requests_total", endpoint="/v1/models/{name}", status="404") == 1
    assert value(samples, "request_duration_seconds_count", endpoint=CHAT) == 2
    assert value(samples, "requests_in_flight", endpoint=CHAT) == 0
    assert value(samples, "requests_in_flight", endpoint="/metrics") == 1  # itself


async def test_a_request_is_in_flight_until_it_has_ended():
    seen = {}

    async def look():
        own = app.state.serving.metrics._in_flight.labels(CHAT)
        seen["at work"] = own._value.get()

    async with client_of(model_of({"ann": saying("42", on_acall=look)})) as client:
        app = client.app
        await ask(client)
        look_after = app.state.serving.metrics._in_flight.labels(CHAT)._value.get()
    assert (seen["at work"], look_after) == (1, 0)


async def test_answers_and_calls_are_counted_by_what_came_of_them():
    """Bob fails twice, then Ann and Cleo are enough: four calls, one answer of a team of three."""
    members = {"ann": saying("42"), "bob": FailingChatModel(error=ConnectionError("no")), "cleo": saying("42")}
    async with client_of(model_of(members, max_retries=1)) as client:
        response = await ask(client)
        samples = await scraped(client)
    policy = response.json()["rlfocal"]["policy"]
    assert value(samples, "answers_total", policy=policy, team_size="3") == 1
    assert value(samples, "member_calls_total", member="ann", result="answer") == 1
    assert value(samples, "member_calls_total", member="bob", result="ConnectionError") == 2
    assert value(samples, "member_call_duration_seconds_count", member="bob") == 2
    assert value(samples, "spent_calls_total") == response.json()["rlfocal"]["spent"]["calls"] == 4
    assert value(samples, "member_tokens_total", member="ann", direction="output") == 1
    assert value(samples, "member_tokens_total", member="bob", direction="output") is None
    assert value(samples, "member_usd_total", member="ann") is None  # it has no price: unknown is not zero


async def test_an_answer_that_nobody_gives_is_counted_with_its_calls():
    failing = FailingChatModel(error=ValueError("no"))
    async with client_of(model_of({"ann": failing})) as client:
        assert (await ask(client)).status_code >= 500
        samples = await scraped(client)
    assert value(samples, "answers_failed_total", error="EnsembleError") == 1
    assert value(samples, "member_calls_total", member="ann", result="ValueError") == 1
    assert not [key for key in samples if key[0] == "rlfocal_answers_total"]


async def test_the_first_token_of_a_stream_is_timed_and_a_whole_answer_has_none():
    async with client_of(model_of({"ann": saying("42")})) as client:
        await ask(client)
        before = await scraped(client)
        await ask(client, stream=True)
        after = await scraped(client)
    assert value(before, "time_to_first_token_seconds_count", endpoint=CHAT) is None
    assert value(after, "time_to_first_token_seconds_count", endpoint=CHAT) == 1
    first, whole = (
        value(after, f"{name}_sum", endpoint=CHAT)
        for name in ("time_to_first_token_seconds", "request_duration_seconds")
    )
    assert 0 < first < whole
    assert value(after, "answers_total", policy="scripted", team_size="1") == 2


async def test_a_comment_that_keeps_a_stream_open_is_no_token():
    started = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
        started.append(list(counted.first))
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": False})

    counted = Recorded()
    await module.Measuring(app)(scope_of(counted), None, nothing)
    assert started == [[]]
    assert len(counted.first) == 1
    assert counted.status == ["200"]


@pytest.mark.parametrize(("raised", "status"), [(ValueError, "500"), (asyncio.CancelledError, "499")])
async def test_what_a_handler_raises_is_500_and_a_client_that_left_is_499(raised, status):
    async def app(scope, receive, send):
        raise raised

    counted = Recorded()
    with pytest.raises(raised):
        await module.Measuring(app)(scope_of(counted), None, nothing)
    assert counted.status == [status]
    assert counted.num_open == 0


class Recorded:
    """Notes what it is told."""

    def __init__(self):
        self.first, self.status, self.num_open = [], [], 0

    def begun(self, endpoint):
        self.num_open += 1

    def ended(self, endpoint, status, *, seconds):
        self.num_open -= 1
        self.status.append(status)

    def first_token(self, endpoint, *, seconds):
        self.first.append(seconds)


def scope_of(counted):
    class App:
        routes = ()

        class state:  # noqa: N801  # as Starlette's
            class serving:  # noqa: N801  # as above
                metrics = counted

    return {"type": "http", "app": App, "path": "/", "method": "GET"}


async def nothing(message):
    del message


async def test_nothing_that_a_client_writes_becomes_a_label():
    """Paths, models, members' errors: the same families of samples as before."""
    secret = "MARKER"
    made_up = type("MARKERError", (Exception,), {})
    async with client_of(model_of({"ann": FailingChatModel(error=made_up(secret))})) as client:
        await client.get(f"/{secret}")
        await client.post(f"/v1/models/{secret}")
        await ask(client, model=secret)
        await ask(client, text=secret, user=secret)
        await client.request(secret, CHAT)
        text = (await client.get("/metrics", headers={"X-Request-Id": secret})).text
    assert set(re.findall(rf'[^"]*{secret}[^"]*', text)) == {"MARKERError"}  # a class of the member's own code
    assert 'endpoint="other"' in text


async def test_a_label_that_could_take_any_value_takes_few():
    async with client_of(model_of({"ann": saying("42")})) as client:
        counted = client.app.state.serving.metrics
        for number in range(3 * module.MAX_VALUES):
            counted.unanswered(type(f"Error{number}", (Exception,), {})())
        counted.heard({"member": "stranger", "retries": [], "latency_s": None, "kind": "empty"})
        samples = await scraped(client)
    labels = [key for key in samples if key[0] == "rlfocal_answers_failed_total"]
    assert len(labels) == module.MAX_VALUES + 1
    assert value(samples, "answers_failed_total", error="other") == 2 * module.MAX_VALUES
    assert value(samples, "member_calls_total", member="other", result="empty") == 1


async def test_names_units_and_types_are_as_prometheus_wants_them():
    async with client_of(model_of({"ann": saying("42")}, budget=Budget(max_calls=9))) as client:
        await ask(client)
        await ask(client, stream=True)
        plain = [*families((await client.get("/metrics")).text)]
        response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert [*openmetrics(response.text)]
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    for family in plain:
        assert FAMILY.fullmatch(family.name), family.name
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


# ---- the state


async def test_breakers_are_told_of_every_member():
    members = {"ann": saying("42"), "bob": FailingChatModel(error=ConnectionError("no"))}
    async with client_of(model_of(members, breaker_failures=1)) as client:
        healthy = await scraped(client)
        await ask(client)
        samples = await scraped(client)
    assert value(healthy, "breaker_state", member="bob") == 0
    assert value(samples, "breaker_state", member="bob") == 2
    assert value(samples, "breaker_state", member="ann") == 0


async def test_what_is_left_of_budgets_is_told_by_key(tmp_path):
    file = tmp_path / "keys.toml"
    key, secret = add(file, scopes=("answers", "metrics"), budget=KeyBudget(calls=5))
    revoked, _ = add(file, budget=KeyBudget(calls=5))
    add(file)
    with changing_keys(file) as held:
        held[1] = held[1].model_copy(update={"revoked": NOW})
    model = model_of({"ann": saying("42"), "bob": saying("42")}, budget={"max_calls": 10, "max_tokens": 100_000})
    async with client_of(model, keys_file=str(file), key=secret) as client:
        answered = await ask(client)
        samples = await scraped(client)
    assert value(samples, "budget_left_calls", account=f"key:{key.id}") == 3
    assert value(samples, "budget_left_calls", account="model") == 8
    used = answered.json()["rlfocal"]["spent"]["tokens"]
    assert value(samples, "budget_left_tokens", account="model") == 100_000 - used
    assert value(samples, "budget_left_tokens", account=f"key:{key.id}") is None  # it has no such limit
    assert value(samples, "budget_left_calls", account=f"key:{revoked.id}") is None
    assert value(samples, "key_file_usable") == 1
    assert secret not in str(samples)


async def test_dollars_are_counted_at_members_prices():
    member = PoolMember("ann", saying("42"), input_usd_per_mtok=1e6, output_usd_per_mtok=2e6)
    async with client_of(RLFocalChatModel(members=[member])) as client:
        answered = await ask(client)
        samples = await scraped(client)
    usd = answered.json()["rlfocal"]["spent"]["usd"]
    assert value(samples, "spent_usd_total") == value(samples, "member_usd_total", member="ann") == usd > 0


async def test_a_lost_store_is_told_of(monkeypatch):
    model = model_of({"ann": saying("42")})
    async with client_of(model) as client:
        assert value(await scraped(client), "store_lost") == 0
        lost = StoreStatus("redis", is_lost=True, lost_for_s=12.5, workers=4)
        monkeypatch.setattr(type(model.shared_state), "status", property(lambda _: lost))
        samples = await scraped(client)
    told = [value(samples, name) for name in ("store_lost", "store_lost_seconds", "workers")]
    assert told == [1, 12.5, 4]
    assert value(samples, "store_info", kind="redis") == 1


async def test_records_that_the_log_lost_are_counted_once(tmp_path):
    log = OutcomeLog(tmp_path / "outcomes.db")
    async with client_of(model_of({"ann": saying("42")}, outcome_log=log)) as client:
        assert value(await scraped(client), "log_dropped_records_total") == 0
        log.dropped = 7
        await scraped(client)
        assert value(await scraped(client), "log_dropped_records_total") == 7
    log.close()


async def test_a_bad_key_file_is_told_of(tmp_path):
    file = tmp_path / "keys.toml"
    _, secret = add(file, scopes=("metrics",))
    async with client_of(model_of({"ann": saying("42")}), keys_file=str(file)) as client:
        file.write_text("[")
        client.app.state.serving.keys.refresh()
        assert value(await scraped(client, **bearer(secret)), "key_file_usable") == 0


async def test_of_many_keys_only_some_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    file = tmp_path / "keys.toml"
    with changing_keys(file) as held:
        held += [make_key(f"n{number}", now=NOW, budget={"calls": 1})[0] for number in range(4)]
    _, secret = add(file, scopes=("metrics",))
    async with client_of(model_of({"ann": saying("42")}), keys_file=str(file)) as client:
        samples = await scraped(client, **bearer(secret))
    assert len([key for key in samples if key[0] == "rlfocal_budget_left_calls"]) == 2


def test_a_worker_that_has_ended_leaves_what_it_counted_and_not_what_it_did(tmp_path):
    """Its file of requests in flight goes, that of counters stays; a worker that runs keeps both."""
    ended = 2**22 + 1  # beyond the greatest id of a process
    for pid in (ended, os.getpid()):
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
        (tmp_path / f"counter_{pid}.db").touch()
    module._forget_the_dead(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"counter_{ended}.db", f"counter_{os.getpid()}.db", f"gauge_livesum_{os.getpid()}.db"}

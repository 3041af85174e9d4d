"""Keys of the server: the file that holds their digests, and what each lets its holder do."""

import asyncio
import json
import logging
import os
import re
import tomllib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.server.keys import (
    CHECK_EVERY_S,
    SCOPES,
    KeyBudget,
    KeyFile,
    changing_keys,
    find_key,
    make_key,
    read_keys,
    write_keys,
)
from support_ensembles import model_of, saying
from support_http import CHAT, bearer, chat, client_of, error_of
from support_http import add_key as add

NOW = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
FIRST, LAST = datetime(1990, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001  # Hypothesis adds the zone


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.toml"


# ---- the file


def test_a_key_is_256_random_bits_and_its_file_holds_its_digest_alone(file):
    key, secret = add(file)
    assert re.fullmatch(r"rlf-[A-Za-z0-9_-]{43}", secret)  # 43 · 6 bits are 256 and 2 that fill up
    assert key.sha256 == sha256(secret.encode()).hexdigest()
    assert secret.removeprefix("rlf-") not in file.read_text()
    assert key.last == secret[-4:]
    assert len({add(file)[1] for _ in range(5)}) == 5


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_is_there_keeps_its_mode_and_its_group(file):
    """A server may read it by its group, which a new key must not take from it."""
    add(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    groups = [group for group in (*os.getgroups(), 4242) if group != file.stat().st_gid]
    with suppress(PermissionError):  # only root can give it to a group that it is not in
        os.chown(file, -1, groups[0])
    before = file.stat()
    add(file)
    assert (file.stat().st_mode, file.stat().st_gid) == (before.st_mode, before.st_gid)
    assert file.stat().st_ino != before.st_ino


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_what_is_written_is_read_again_and_standard_readers_read_it(tmp_path, suffix):
    file = tmp_path / f"keys.{suffix}"
    every = make_key(
        'Ann\'s "Ümläut" \\ 漢字',
        now=NOW,
        scopes=SCOPES,
        expires=NOW + timedelta(days=1),
        per_minute=0.5,
        budget=KeyBudget(calls=3, usd=0.25, per="day"),
    )[0].model_copy(update={"revoked": NOW})
    least = make_key("b", now=NOW)[0]
    write_keys(file, [every, least])
    assert read_keys(file) == (every, least)
    held = tomllib.loads(file.read_text()) if suffix == "toml" else json.loads(file.read_text())
    assert [one["id"] for one in held["keys"]] == [every.id, least.id]
    assert held["keys"][0]["budget"] == {"calls": 3, "usd": 0.25, "per": "day"}


@given(name=st.text(min_size=1, max_size=100))
def test_any_name_that_can_be_shown_survives_the_file_and_no_other_is_taken(tmp_path_factory, name):
    file = tmp_path_factory.getbasetemp() / "names.toml"
    if not name.isprintable():
        with pytest.raises(InputError, match="`name` must"):
            make_key(name, now=NOW)
        return
    write_keys(file, [make_key(name, now=NOW)[0]])
    assert read_keys(file)[0].name == name


def test_only_its_owner_can_read_a_file_that_was_written_and_a_link_stays_one(tmp_path, file):
    add(file)
    assert file.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    add(link, "second")
    assert link.is_symlink()
    assert [key.name for key in read_keys(file)] == ["website", "second"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"] == []


def test_a_file_to_which_others_can_write_is_refused_and_one_that_they_can_read_is_not(file):
    """Digests are no secret; who could add one would let himself in."""
    add(file)
    file.chmod(0o644)
    assert len(read_keys(file)) == 1
    for mode in (0o620, 0o602):
        file.chmod(mode)
        with pytest.raises(InputError, match="chmod 600"):
            read_keys(file)


def entry(**changes):
    facts = {"id": "a", "name": "ann", "sha256": "0" * 64, "created": "2026-11-30T12:00:00Z", **changes}
    return {name: value for name, value in facts.items() if value is not None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["is no JSON"]),
        ("[]", ["breaks a rule"]),
        (json.dumps({"keyz": []}), ["`keyz`", "not permitted"]),
        (json.dumps({"keys": [entry(sha256=None)]}), ["`keys[0].sha256`", "required"]),
        (json.dumps({"keys": [entry(), entry(id="b", sha256="rlf-a-key-itself")]}), ["`keys[1].sha256`"]),
        (json.dumps({"keys": [entry(scopes=["answers", "everything"])]}), ["`keys[0].scopes[1]`", "'metrics'"]),
        (json.dumps({"keys": [entry(per_minute=0)]}), ["`keys[0].per_minute`", "greater than 0"]),
        (json.dumps({"keys": [entry(budget={"calls": -1})]}), ["`keys[0].budget.calls`"]),
        (json.dumps({"keys": [entry(budget={"usd": 1, "per": "week"})]}), ["`keys[0].budget.per`", "'month'"]),
        (json.dumps({"keys": [entry(), entry(sha256="1" * 64)]}), ["each `id` once", "a twice"]),
        (json.dumps({"keys": [entry(), entry(id="b")]}), ["each `sha256` once"]),
        (json.dumps({"keys": [entry(id="a b\r\n")]}), ["`keys[0].id`"]),
        ('{"keys": "\ud800"}', ["keys"]),
        ("[" * 100_000, ["is no JSON"]),
    ],
)
def test_a_file_that_breaks_a_rule_names_it_and_shows_no_value(tmp_path, text, words):
    """A value that breaks a rule may be a key that was put where its digest should be."""
    file = tmp_path / "keys.json"
    file.write_text(text, errors="surrogatepass")
    file.chmod(0o600)
    with pytest.raises(InputError) as raised:
        read_keys(file)
    assert all(word in str(raised.value) for word in [*words, "keys.json"]), raised.value
    assert "rlf-a-key" not in str(raised.value)


@pytest.mark.parametrize("name", ["keys.yaml", "keys"])
def test_a_file_of_another_form_or_none_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"must end in \.toml or \.json"):
        read_keys(tmp_path / name)
    with pytest.raises(InputError, match=r"must end in \.toml or \.json"):
        write_keys(tmp_path / name, [])
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "absent.toml")


def test_a_file_that_cannot_be_written_is_as_it_was(file, monkeypatch):
    add(file)
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        add(file, "second")
    assert file.read_bytes() == before
    assert [*file.parent.iterdir()] == [file]


async def test_those_who_add_keys_at_once_lose_none(file):
    """Each reads, adds and writes while it holds the lock: without it the last one would write without the others' keys."""
    await asyncio.gather(*(asyncio.to_thread(add, file, f"n{number}") for number in range(12)))
    assert len(read_keys(file)) == 12


# ---- time


@pytest.mark.parametrize(
    ("per", "name", "ends"),
    [
        ("day", "key:a:2026-11-30", datetime(2026, 12, 1, tzinfo=UTC)),
        ("month", "key:a:2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
        ("ever", "key:a:ever", None),
    ],
)
def test_an_account_is_of_a_key_and_a_period(per, name, ends):
    key = make_key("ann", now=NOW, budget=KeyBudget(calls=1, per=per))[0].model_copy(update={"id": "a"})
    assert key.account_name(NOW) == name
    assert key.budget.ends_at(NOW) == ends


@given(at=st.datetimes(timezones=st.just(UTC), min_value=FIRST, max_value=LAST))
def test_a_period_lasts_until_its_end_and_the_next_has_another_name(at):
    for per in ("day", "month"):
        budget = KeyBudget(calls=1, per=per)
        ends = budget.ends_at(at)
        assert budget.period(ends - timedelta(microseconds=1)) == budget.period(at)
        assert budget.period(ends) != budget.period(at)
        assert ends > at


def test_a_key_is_good_until_the_moment_that_it_expires():
    key, _ = make_key("ann", now=NOW, expires=NOW)
    assert key.refusal(NOW - timedelta(microseconds=1)) is None
    assert key.refusal(NOW) == "expired on 2026-11-30"
    assert key.model_copy(update={"revoked": NOW}).refusal(NOW - timedelta(days=1)) == "was revoked on 2026-11-30"


def test_a_key_is_found_among_others_and_a_part_of_it_is_nobodys(file):
    held = [make_key(f"n{number}", now=NOW) for number in range(5)]
    keys = [key for key, _ in held]
    for key, secret in held:
        assert find_key(keys, secret) is key
        for wrong in (secret[:-1], secret + "a", secret.lower(), "", "rlf-", key.sha256, "\ud800"):
            assert find_key(keys, wrong) is None


# ---- a file that changes


class Ticking:
    now_s = 0.0

    def __call__(self):
        return self.now_s


async def test_a_server_sees_a_change_of_the_file_within_a_second(file):
    first, secret = add(file)
    clock = Ticking()
    keys = KeyFile(file, clock=clock)
    assert await keys.afind(secret) == first
    second, other = add(file, "second")
    assert await keys.afind(other) is None
    clock.now_s = CHECK_EVERY_S
    assert await keys.afind(other) == second
    with changing_keys(file) as held:
        held[0] = held[0].model_copy(update={"revoked": NOW})
    clock.now_s = 2 * CHECK_EVERY_S
    assert (await keys.afind(secret)).revoked == NOW


@pytest.mark.parametrize("spoil", [lambda f: f.write_text("keys = ["), lambda f: f.unlink(), lambda f: f.chmod(0o666)])
async def test_a_file_that_becomes_bad_leaves_the_keys_as_they_were_and_is_told_of_once(file, spoil, caplog):
    key, secret = add(file)
    good = file.read_text()
    clock = Ticking()
    keys = KeyFile(file, clock=clock)
    spoil(file)
    with caplog.at_level(logging.INFO):
        for at in range(1, 4):
            clock.now_s = at * CHECK_EVERY_S
            assert await keys.afind(secret) == key
        assert str(file) in keys.problem
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "keys of before stay in force" in caplog.text
        file.write_text(good)
        file.chmod(0o600)
        clock.now_s = 9
        assert await keys.afind(secret) == key
    assert keys.problem is None
    assert secret not in caplog.text


def test_a_server_does_not_start_with_a_bad_file(file):
    with pytest.raises(InputError, match="cannot be read"):
        KeyFile(file)


# ---- who may what


def model(**fields):
    return model_of({"ann": saying("42"), "bob": saying("42")}, **fields)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic cmxmLTo="},
        {"X-API-Key": "KEY"},
        {"api-key": "KEY"},
        {"Cookie": "key=KEY"},
        {"Authorization": "KEY"},
        {"Authorization": "Token KEY"},
    ],
)
async def test_who_gives_no_key_is_told_how_and_a_key_elsewhere_is_none(file, headers):
    _, secret = add(file)
    sent = {name: value.replace("KEY", secret) for name, value in headers.items()}
    async with client_of(model(), keys_file=str(file)) as client:
        response = await client.post(f"{CHAT}?api_key={secret}", json=chat(), headers=sent)
        error = error_of(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert error["code"] == "invalid_api_key"
    assert "Authorization: Bearer KEY" in error["message"]
    assert secret not in response.text


async def test_a_key_that_is_unknown_expired_or_revoked_is_refused_and_good_ones_are_not(file):
    _, good = add(file)
    _, expired = add(file, expires=datetime.now(UTC) - timedelta(days=1))
    revoked, gone = add(file)
    with changing_keys(file) as held:
        held[-1] = held[-1].model_copy(update={"revoked": NOW})
    async with client_of(model(), keys_file=str(file)) as client:
        assert (await client.post(CHAT, json=chat(), headers=bearer(good))).status_code == 200
        assert (await client.post(CHAT, json=chat(), headers={"authorization": f"bEARER   {good} "})).status_code == 200
        for key, word in ((good[:-1], "not known"), (expired, "expired on"), (gone, "was revoked on 2026-11-30")):
            response = await client.post(CHAT, json=chat(), headers=bearer(key))
            assert word in error_of(response, 401)["message"]
            assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert key not in response.text
        assert revoked.id in response.text
        twice = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {expired}")]
        assert "several" in error_of(await client.post(CHAT, json=chat(), headers=twice), 401)["message"]


PLACES = {
    "answers": ("POST", CHAT, chat()),
    "members": ("POST", CHAT, chat(model="ann")),
    "models": ("GET", "/v1/models", None),
    "feedback": ("POST", "/v1/feedback", {}),
    "metrics": ("GET", "/metrics", None),
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_each_scope_opens_its_own_place_alone(file, scope):
    """Members are answers too: that place takes both scopes."""
    _, key = add(file, scopes=("answers", "members") if scope == "members" else (scope,))
    async with client_of(model(), keys_file=str(file), key=key) as client:
        for needed, (method, path, body) in PLACES.items():
            response = await client.request(method, path, json=body)
            if needed == scope or (scope, needed) == ("members", "answers"):
                assert response.status_code not in (401, 403), response.text
            else:
                error = error_of(response, 403)
                lacking = "answers" if (needed, scope) != ("members", "answers") and needed == "members" else needed
                assert f"`{lacking}`" in error["message"]
                assert f'scope="{lacking}"' in response.headers["WWW-Authenticate"]
                assert error["code"] == "insufficient_scope"


async def test_without_the_scope_of_members_they_are_not_listed(file):
    keys = {scopes: add(file, scopes=scopes)[1] for scopes in (("models",), ("models", "members"))}
    async with client_of(model(), keys_file=str(file)) as client:
        listed = {
            scopes: {one["id"] for one in (await client.get("/v1/models", headers=bearer(key))).json()["data"]}
            for scopes, key in keys.items()
        }
    assert not {"ann", "bob"} & listed["models",]
    assert {"ann", "bob"} < listed["models", "members"]


async def test_health_needs_no_key_and_nothing_does_without_a_file(file):
    add(file)
    async with client_of(model(), keys_file=str(file)) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
    async with client_of(model()) as client:
        assert (await client.get("/metrics", headers=bearer("any"))).status_code == 200
        assert (await client.post(CHAT, json=chat(model="ann"))).status_code == 200


async def test_a_stranger_s_body_is_not_read(file):
    add(file)

    async def body():
        yield pytest.fail("The body was read.")

    async with client_of(model(), keys_file=str(file)) as client:
        assert (await client.post(CHAT, content=body(), headers=bearer("rlf-no"))).status_code == 401


# ---- rates and budgets


async def test_a_key_may_make_so_many_requests_at_once_and_is_then_told_when(file):
    """Two a minute: a third has to wait for half a minute, and somebody else's key does not."""
    _, key = add(file, per_minute=2)
    _, other = add(file)
    async with client_of(model(), keys_file=str(file)) as client:
        assert [(await client.post(CHAT, json=chat(), headers=bearer(key))).status_code for _ in range(2)] == [200, 200]
        response = await client.post(CHAT, json=chat(), headers=bearer(key))
        error = error_of(response, 429)
        assert error["code"] == "rate_limit_exceeded"
        assert 25 < int(response.headers["Retry-After"]) <= 30
        assert (await client.post(CHAT, json=chat(), headers=bearer(other))).status_code == 200


async def test_servers_that_share_their_state_share_a_key_s_rate(file):
    _, key = add(file, per_minute=2)
    first = model()
    second = model(shared_state=first.shared_state)
    statuses = []
    for one in (first, second, first):
        async with client_of(one, keys_file=str(file), key=key) as client:
            statuses.append((await client.post(CHAT, json=chat())).status_code)
    assert statuses == [200, 200, 429]


async def test_a_budget_is_kept_to_the_call_over_servers_and_belongs_to_its_key(file):
    """Two members an answer and four calls: two answers, whichever server gives them."""
    _, key = add(file, budget=KeyBudget(calls=4))
    _, other = add(file, budget=KeyBudget(calls=4))
    first = model()
    second = model(shared_state=first.shared_state)
    responses = []
    for one in (first, second, first):
        async with client_of(one, keys_file=str(file), key=key) as client:
            responses.append(await client.post(CHAT, json=chat()))
    assert [response.status_code for response in responses] == [200, 200, 429]
    error = error_of(responses[-1], 429)
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert responses[-1].headers["x-should-retry"] == "false"  # else OpenAI's client asks twice more
    assert "Retry-After" not in responses[-1].headers
    async with client_of(second, keys_file=str(file), key=other) as client:
        assert (await client.post(CHAT, json=chat())).status_code == 200
    assert first.spent.calls == 6


async def test_a_key_s_dollars_are_counted_at_members_prices(file):
    """A token in and one out at $1 and $2 a million are $0.000003 an answer; the most that one can cost must fit."""
    member = PoolMember("ann", saying("42"), input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    priced = RLFocalChatModel(members=[member], max_retries=0)
    key, secret = add(file, budget=KeyBudget(usd=0.01, per="day"))
    async with client_of(priced, keys_file=str(file), key=secret) as client:
        answered = await client.post(CHAT, json=chat(max_tokens=10))
        assert answered.status_code == 200, answered.text
        too_dear = await client.post(CHAT, json=chat(max_tokens=10_000))
        assert error_of(too_dear, 429)["code"] == "insufficient_quota"
    account = priced.shared_state.ledger_for(key.account_name(datetime.now(UTC)))
    assert account.spent.usd == pytest.approx(answered.json()["rlfocal"]["spent"]["usd"])
    assert account.spent.calls == 1


def test_the_file_stays_quick_to_read_with_thousands_of_keys(tmp_path):
    file = tmp_path / "keys.json"
    write_keys(file, [make_key(f"n{number}", now=NOW)[0] for number in range(2000)])
    assert len(read_keys(file)) == 2000
    assert Path(file).stat().st_size < 2000 * 500

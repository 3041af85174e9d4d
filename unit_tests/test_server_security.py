"""What a hostile client can do to the server: get an error in OpenAI's form, soon, and nothing else."""

import asyncio
import gzip
import json
import logging
import time
import traceback

import pytest
from langchain_core.messages import AIMessage

from langchain_rlfocal.server import callers
from langchain_rlfocal.server.bodies import has_more_values
from langchain_rlfocal.server.decisions import headers_of
from langchain_rlfocal.testing import FailingChatModel
from support_ensembles import model_of, saying
from support_http import CHAT, add_key, bearer, chat, client_of, error_of
from support_schema_model import SchemaChatModel

JSON = {"Content-Type": "application/json"}
MARKER = "zebra7"
"""What a test puts where it must not come out again."""


def nested(depth):
    return "[" * depth + "]" * depth


def with_call(arguments):
    """A conversation in which the assistant called a tool with these arguments."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
    return json.dumps({"model": "rlfocal", "messages": [*said, {"role": "tool", "tool_call_id": "c", "content": "y"}]})


def part(kind, **held):
    return json.dumps(chat([{"type": kind, kind: held}]))


@pytest.fixture
async def client():
    async with client_of(model_of({"ann": saying("42"), "bob": saying("42")})) as opened:
        yield opened


# ---- bodies

BODIES = {
    "deep lists": '{"model":"rlfocal","messages":' + nested(100) + "}",
    "deeper than the parser goes": '{"model":"rlfocal","messages":' + nested(200_000) + "}",
    "deep objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "deep arguments": with_call('{"a":' + nested(500) + "}"),
    "arguments deeper than the parser goes": with_call('{"a":' + nested(90_000) + "}"),
    "arguments that are no number": with_call('{"a": NaN}'),
    "arguments of half a character": with_call('{"a": "\\ud800"}'),
    "arguments of many digits": with_call('{"a": ' + "9" * 10_000 + "}"),
    "half a character": '{"model":"rlfocal","messages":[{"role":"user","content":"\\ud800"}]}',
    "bytes that are no UTF-8": b'{"model":"rlfocal","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "UTF-16": json.dumps(chat()).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
    "NaN": json.dumps(chat(temperature=float("nan"))),
    "Infinity": json.dumps(chat(temperature=float("inf"))),
    "a number beyond floats": json.dumps(chat()).replace("{", '{"temperature": 1e400, ', 1),
    "5000 digits": json.dumps(chat()).replace("{", '{"max_tokens": ' + "9" * 5000 + ", ", 1),
    "more than 64 bits": json.dumps(chat(seed=2**80)),
    "nothing": "",
    "no object": "[]",
    "two objects": "{}{}",
    "a role that is a list": json.dumps({"model": "rlfocal", "messages": [{"role": ["user"], "content": "x"}]}),
    "a role that is an object": json.dumps({"model": "rlfocal", "messages": [{"role": {}, "content": "x"}]}),
    "a tool choice that is a list": json.dumps(chat(tool_choice=["none"])),
    "a model that is a list": json.dumps(chat(model=["rlfocal"])),
    "a format that is a list": json.dumps(chat(response_format=["text"])),
    "a stop that is an object": json.dumps(chat(stop={"a": 1})),
    "a file that a member's provider keeps for somebody": part("file", file_id="file-abc"),
    "a file without the file": part("file", filename="a.pdf"),
    "an address of this machine's files": part("image_url", url="file:///etc/passwd"),
    "a path": part("image_url", url="/etc/passwd"),
    "a scheme of another kind": part("image_url", url="gopher://127.0.0.1:70/x"),
    "a class of Python's": json.dumps(chat(rlfocal={"answer_kind": "os:system"})),
    "somebody else's account": json.dumps(chat(rlfocal={"account": {"name": "key:other:2026-11"}})),
    "a callback": json.dumps(chat(rlfocal={"callbacks": ["x"]})),
    "a rule of retries": json.dumps(chat(rlfocal={"retry_on": "x"})),
    "exploring": json.dumps(chat(rlfocal={"explore": 1.0})),
    "more members than the server allows": json.dumps(chat(rlfocal={"max_team": 99})),
    "more time than there is": json.dumps(chat(rlfocal={"deadline_s": 1e309})),
    "LangChain's own loading": json.dumps(chat(rlfocal={"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]})),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_nobody_means_well_with_is_refused_soon(client, name):
    start_s = time.thread_time()
    error = error_of(await client.post(CHAT, content=BODIES[name], headers=JSON), 400)
    assert time.thread_time() - start_s < 1
    assert len(error["message"]) < 1000
    assert error["message"].isprintable()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/systemone", "/v1/feedback"])
@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        '{"a":' + nested(100) + "}",
        '{"a":' + nested(200_000) + "}",
        b"\xff",
        '{"\\ud800": 1}',
        '{"a": NaN}',
    ],
)
async def test_every_place_that_takes_a_body_refuses_what_is_none(client, path, body):
    error_of(await client.post(path, content=body, headers=JSON), 400)


async def test_text_with_control_characters_is_a_text(client):
    response = await client.post(CHAT, json=chat("a\x00b\x1b[2J\u202e\ufeff"))
    assert response.status_code == 200


async def test_of_a_name_that_is_there_twice_the_last_counts_for_who_may_as_for_what_is_done(tmp_path):
    """What a proxy in front reads of the first is its own affair: the scope is looked up for what is asked."""
    file = tmp_path / "keys.toml"
    _, key = add_key(file, scopes=("answers",))
    members = {"ann": saying("42"), "bob": saying("42")}
    async with client_of(model_of(members), keys_file=str(file), key=key) as client:
        for first, last, status in (("rlfocal", "ann", 403), ("ann", "rlfocal", 200)):
            body = json.dumps(chat(model=last)).replace("{", f'{{"model": "{first}", ', 1)
            response = await client.post(CHAT, content=body, headers=JSON)
            assert response.status_code == status


async def test_a_body_is_not_read_beyond_its_limit():
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1000
            yield b" " * 1000

    async with client_of(model_of({"ann": saying("42")}), max_body_bytes=50_000) as client:
        response = await client.post(CHAT, content=endless(), headers=JSON)  # in chunks, without a length
        assert error_of(response, 413)["code"] == "body_too_large"
        assert read <= 52_000
        response = await client.post(CHAT, content=b"x", headers={**JSON, "Content-Length": "99999999999999999999"})
        assert error_of(response, 413)["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ("{}", 1),
        ('{"a": 1}', 1),
        ('{"a": [1, 2, {"b": []}]}', 6),
        (r'["a, [{", "b\", [{", "c\\", 4]', 4),
        (r'{"a, [{": "b, [{"}', 1),
        ('["no end, [{', 1),
        ('["no end, [{\\', 1),
    ],
)
def test_values_are_counted_by_what_stands_before_them_outside_of_texts(body, values):
    """By each bracket that opens and each comma: of `{"a": [1, 2, {"b": []}]}` these are `{`, `[`, `,`, `,`, `{` and `[`."""
    counted = [most for most in range(values + 2) if has_more_values(body.encode(), most)]
    assert counted == [*range(values)]


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 500_000,
        b"[" + b'"",' * 500_000,
        b'"' + b'\\"' * 700_000 + b",",
        b'"' * 1_500_000 + b"," * 200_000,
    ],
    ids=["lists", "texts", "escapes", "quotes"],
)
def test_counting_values_takes_no_time_of_its_own(body):
    start_s = time.thread_time()
    has_more_values(body, 100_000)
    assert time.thread_time() - start_s < 1


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/systemone", "/v1/feedback"])
async def test_a_body_of_millions_of_values_does_not_keep_the_others_waiting(client, path):
    """Each takes time and memory of its own, so that 20 MB of them would block the process for half a minute."""
    start_s = time.thread_time()
    error = error_of(
        await client.post(path, content=b'{"metadata": [' + b"[]," * 2_000_000 + b"1]}", headers=JSON), 400
    )
    assert error["code"] == "body_too_large"
    assert time.thread_time() - start_s < 1


async def test_a_long_text_has_as_many_commas_as_it_likes(client):
    assert (await client.post(CHAT, json=chat("a, [b], {c} " * 50_000))).status_code == 200


async def test_a_body_that_never_ends_is_given_up():
    gone = asyncio.Event()

    async def slow():
        yield b'{"model": '
        await gone.wait()

    async with client_of(model_of({"ann": saying("42")}), read_timeout_s=0.01) as client:
        response = await client.post(CHAT, content=slow(), headers=JSON)
    assert error_of(response, 408)["code"] == "request_timeout"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
async def test_a_compressed_body_is_refused_before_it_is_read(client, encoding):
    bomb = gzip.compress(b" " * 10_000_000)

    async def body():
        yield bomb if encoding == "gzip" else pytest.fail("The body was read.")

    content = bomb if encoding == "gzip" else body()
    response = await client.post(CHAT, content=content, headers={**JSON, "Content-Encoding": encoding})
    assert error_of(response, 415)["code"] == "unsupported_encoding"


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
async def test_a_page_of_another_site_cannot_post_what_it_may_without_asking(client, kind):
    """These are the kinds that a browser sends to anybody; JSON it asks about first, and is told no.

    It also sends what has no kind, and to names that its owner points at this machine; so where it comes from counts, too.
    """
    response = await client.post(CHAT, content=json.dumps(chat()), headers={"Content-Type": kind})
    error_of(response, 415)
    for given in ({"Content-Type": kind}, {}):
        response = await client.post(CHAT, content=json.dumps(chat()), headers={**given, "Origin": "http://evil"})
        error_of(response, 403)
    asked = await client.options(CHAT, headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"})
    assert not [name for name in (*asked.headers, *response.headers) if name.startswith("access-control")]


# ---- schemas


def tool(parameters, **fields):
    return chat("Call f.", tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}], **fields)


def form(schema):
    return chat("Write x.", response_format={"type": "json_schema", "json_schema": {"name": "f", "schema": schema}})


def obj(**x):
    return {"type": "object", "properties": {"x": x}}


LINKS = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
SCHEMAS = {
    "itself": {"$ref": "#"},
    "itself by name": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "each other": {**obj(**{"$ref": "#/$defs/a"}), "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "a tree": {**obj(**{"$ref": "#/$defs/n"}), "$defs": {"n": obj(**{"$ref": "#/$defs/n"})}},
    "alternatives that double": {**obj(**{"$ref": "#/$defs/d0"}), "$defs": {**LINKS, "d60": {"type": "integer"}}},
    "another server's": obj(**{"$ref": "http://127.0.0.1:9/x.json"}),
    "a file's": obj(**{"$ref": "file:///etc/passwd"}),
    "by an id of another server": {"$id": "http://127.0.0.1:9/s", **obj(**{"$ref": "other.json"})},
    "a meta-schema of another server": {"$schema": "http://127.0.0.1:9/s", **obj(type="string")},
    "a catastrophic pattern": obj(type="string", pattern="(a|aa)+$"),
    "one of names": {"type": "object", "patternProperties": {"(x|xx)+y$": {}}, "additionalProperties": False},
    "a pattern of all memory": obj(type="string", pattern=r"\p{L}{1000000000}"),
    "a pattern that is none": obj(type="string", pattern="("),
    "a huge number of letters": obj(type="string", minLength=10**18),
    "20000 names": obj(enum=list(range(20_000))),
    "no type": {"type": "nonsense"},
}


@pytest.mark.parametrize("ask", [tool, form])
@pytest.mark.parametrize("name", SCHEMAS)
async def test_a_hostile_schema_costs_little_and_fetches_nothing(ask, name):
    """Unit tests have no network: a fetch would be an error of its own, and no answer of OpenAI's form."""
    value = {"x": "a" * 40 + "!", "x" * 40: 1}

    def answers(messages, tools):
        return AIMessage("", tool_calls=[{"name": "f", "args": value, "id": "c"}]) if tools else json.dumps(value)

    members = {name: SchemaChatModel(answers=answers) for name in ("ann", "bob")}
    async with client_of(model_of(members)) as client:
        start_s = time.thread_time()
        response = await client.post(CHAT, json=ask(SCHEMAS[name]))
        assert time.thread_time() - start_s < 3
        again = await client.post(CHAT, json=chat("Say anything."))
    assert response.status_code in (200, 400, 502), response.text
    assert "Network" not in response.text
    assert "Socket" not in response.text
    assert again.status_code == 200  # and no member is blamed for it


@pytest.mark.parametrize("ask", [tool, form])
async def test_a_schema_of_more_than_anybody_writes_is_refused(client, ask):
    large = {"type": "object", "properties": {f"property_{n}": {"type": "string"} for n in range(6000)}}
    error = error_of(await client.post(CHAT, json=ask(large)), 400)
    assert "200,000 bytes" in error["message"]
    assert error["param"].endswith(("parameters", "schema"))


# ---- headers


HEADERS = {
    "content-type", "content-length", "x-rlfocal-answer-id", "x-rlfocal-policy", "x-rlfocal-members", "x-rlfocal-confidence",
    "x-rlfocal-calls", "x-rlfocal-usd", "cache-control", "x-accel-buffering",
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_a_prompt_or_an_answer_is_in_a_header(stream):
    members = {"ann": saying(f"{MARKER}, says ann"), "bob": saying(MARKER)}
    body = chat(
        MARKER,
        stream=stream,
        user=MARKER,
        metadata={MARKER: MARKER},
        rlfocal={"task": f"{MARKER}\r\nSet-Cookie: {MARKER}"},
    )
    given = {
        "X-RLFocal-Session": MARKER,
        "X-Request-Id": MARKER,
        "Cookie": f"a={MARKER}",
        "traceparent": f"00-{MARKER}",
    }
    async with client_of(model_of(members)) as client:
        response = await client.post(CHAT, json=body, headers=given)
        assert response.status_code == 200, response.text
        assert MARKER in response.text
        failed = await client.post(CHAT, json=chat(model=MARKER), headers=given)
        listed = await client.get(f"/v1/models/{MARKER}", headers=given)
    for one in (response, failed, listed):
        assert MARKER not in str(one.headers.raw)
        assert {*one.headers} <= HEADERS


async def test_a_member_s_error_does_not_get_into_headers():
    failing = FailingChatModel(error=ValueError(f"{MARKER}\r\nSet-Cookie: {MARKER}"))
    async with client_of(model_of({"ann": failing})) as client:
        response = await client.post(CHAT, json=chat())
    assert error_of(response, 502)["message"].isprintable()
    assert MARKER not in str(response.headers.raw)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ann\r\nSet-Cookie: a=b", "ann??Set-Cookie: a=b"),
        ("ann\n\n<html>", "ann??<html>"),
        ("Zoë 漢字 \U0001f600", "Zo? ?? ?"),
        ("a\x00b\x7f\x85\u2028", "a?b???"),
        ("x" * 10_000, "x" * 400),
    ],
)
def test_whatever_a_member_is_called_a_header_is_one_short_line_of_ascii(value, shown):
    assert headers_of({"members": value}) == {"x-rlfocal-members": shown}


async def test_a_member_of_any_name_is_answered_with_whole_headers():
    name = "Zoë\u2028\r\nSet-Cookie: a=b"
    async with client_of(model_of({name: saying("42")})) as client:
        response = await client.post(CHAT, json=chat())
        metrics = await client.get("/metrics")
    assert response.status_code == metrics.status_code == 200
    assert response.headers["x-rlfocal-members"] == "Zo????Set-Cookie: a=b"
    assert "set-cookie" not in response.headers
    assert not [line for line in metrics.text.split("\n") if line.startswith("Set-Cookie")]


@pytest.mark.parametrize(
    "path", ["/%0d%0aSet-Cookie:a", "/v1/models/%0d%0aSet-Cookie:a", "/v1/models/..%2f..%2fetc", "/" + "x" * 5000]
)
async def test_a_path_that_nobody_serves_is_told_in_one_line(client, path):
    error = error_of(await client.get(path), 404)
    assert error["message"].isprintable()
    assert len(error["message"]) < 1000


# ---- keys


async def test_a_key_is_in_no_log_error_or_trace(tmp_path, caplog):
    """Of a request that is answered, one that is refused, and one in which the server fails, at the level that says most."""
    file = tmp_path / "keys.toml"
    _, secret = add_key(file, scopes=("answers", "metrics"))
    unknown = secret[:-4] + "AAAA"
    told = []
    with caplog.at_level(logging.DEBUG):
        async with client_of(model_of({"ann": saying("42")}), keys_file=str(file), raises=False) as client:
            for key in (secret, unknown):
                for path, body in (
                    (CHAT, chat()),
                    (CHAT, chat(stream=True)),
                    (CHAT, chat(model="x")),
                    ("/v1/feedback", {}),
                ):
                    response = await client.post(path, json=body, headers=bearer(key))
                    told += [response.text, str(response.headers.raw)]
                told += [(await client.get(path, headers=bearer(key))).text for path in ("/metrics", "/v1/models", "/")]
            serving = client.app.state.serving

            async def fail(given):
                told.append("".join(traceback.format_stack()))
                raise RuntimeError

            serving.keys.afind = fail
            failed = await client.post(CHAT, json=chat(), headers=bearer(secret))
    assert failed.status_code == 500
    told += [failed.text, caplog.text, repr(serving), repr(serving.keys.keys), repr(serving.config)]
    for key in (secret, unknown):
        assert not [text for text in told if key[4:30] in text]


def test_a_key_in_a_text_that_is_shown_is_masked():
    from langchain_rlfocal.redaction import masked  # noqa: PLC0415
    from langchain_rlfocal.server.keys import make_key  # noqa: PLC0415

    _, secret = make_key("a", now=callers.datetime.now(callers.UTC))
    assert masked(f"They sent {secret}, twice") == "They sent rlf-***, twice"


async def test_the_answer_of_one_key_names_no_other(tmp_path):
    file = tmp_path / "keys.toml"
    keys = [add_key(file, name) for name in ("ann", "bob")]
    async with client_of(model_of({"ann": saying("42")}), keys_file=str(file)) as client:
        response = await client.post(CHAT, json=chat(), headers=bearer(keys[0][1]))
    assert keys[0][0].id not in response.text
    assert keys[1][0].id not in response.text

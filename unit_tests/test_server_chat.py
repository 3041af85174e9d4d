"""Chat completions of the server: what is asked of the ensemble, and what OpenAI's clients read of its answers."""

import gc
import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from openai.types.chat import ChatCompletion

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.testing import FailingChatModel
from support_http import CHAT, chat, client_of, error_of
from support_odd_members import Saying
from support_streams import chunks_of, text_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SEARCH = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
PERSON = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
            "required": ["name", "age", "city"],
        },
    },
}


def trio(*says, kind=Saying, **fields):
    """Three members, each with its script; the last script holds for those that are left."""
    said = [*says, *[says[-1]] * (3 - len(says))]
    members = {
        name: kind(script=[one] if isinstance(one, str | AIMessage) else one)
        for name, one in zip("abc", said, strict=True)
    }
    return RLFocalChatModel(members=members, **fields)


def member(model, name="a"):
    return model.pool[name].model


async def ask(model, text="What is 6 times 7?", /, *, config=None, headers=None, **body):
    async with client_of(model, **(config or {})) as client:
        return await client.post(CHAT, json=chat(text, **body), headers=headers)


async def answered(model, /, *args, **kwargs):
    """The answer to a request that is answered, checked against OpenAI's types."""
    response = await ask(model, *args, **kwargs)
    assert response.status_code == 200, response.text
    ChatCompletion.model_validate_json(response.text, strict=True)
    return response.json()


async def refused(model, status, /, *args, **kwargs):
    return error_of(await ask(model, *args, **kwargs), status)


# ---- a whole answer


async def test_an_answer_is_a_chat_completion_that_says_how_it_came_about():
    """Two members of two words each, one word asked: 2 · (5 + 2) tokens. The id is the answer's own."""
    response = await ask(trio("It's 42"))
    got = response.json()
    ChatCompletion.model_validate(got, strict=True)
    facts = got["rlfocal"]
    assert got["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It's 42", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert got["id"] == f"chatcmpl-{facts['answer_id']}"
    assert (got["model"], got["object"], got["system_fingerprint"]) == ("rlfocal", "chat.completion", facts["policy"])
    assert (got["usage"]["prompt_tokens"], got["usage"]["completion_tokens"]) == (2 * 5, 2 * 2)
    assert got["usage"]["total_tokens"] == sum(one["total_tokens"] for one in facts["usage"].values())
    assert {name: value for name, value in response.headers.items() if name.startswith("x-")} == {
        "x-rlfocal-answer-id": facts["answer_id"],
        "x-rlfocal-policy": facts["policy"],
        "x-rlfocal-members": "a,b",
        "x-rlfocal-confidence": "1.000",
        "x-rlfocal-calls": "2",
    }


async def test_dollars_are_told_where_everybody_asked_has_a_price():
    """Two members of 5 tokens asked and 2 answered, at 1 and 10 dollars a million: 2 · 25e-6."""
    members = [
        PoolMember(n, Saying(script=["It's 42"]), input_usd_per_mtok=1.0, output_usd_per_mtok=10.0) for n in "ab"
    ]
    response = await ask(RLFocalChatModel(members=members))
    assert response.headers["x-rlfocal-usd"] == "0.00005"
    assert response.json()["rlfocal"]["spent"]["usd"] == pytest.approx(5e-5)


async def test_a_member_answers_alone_by_its_name():
    got = await answered(trio("1", "2", "3"), model="b")
    assert (got["model"], got["choices"][0]["message"]["content"]) == ("b", "2")
    assert [one["member"] for one in got["rlfocal"]["candidates"]] == ["b"]


async def test_a_conversation_reaches_the_members_as_it_is():
    model = trio("Fine.")
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
        {"role": "assistant", "content": "It rains.", "refusal": None},
        {"role": "user", "content": [
            {"type": "text", "text": "And here?"},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        ]},
    ]  # fmt: skip
    await answered(model, messages=messages, model="a")
    system, developer, user, call, result, said, last = member(model).asked[0].messages
    assert (type(system), system.content, developer.text) == (SystemMessage, "Be short.", "Be kind.")
    assert (type(user), user.name) == (HumanMessage, "ann")
    assert (call.tool_calls[0]["name"], call.tool_calls[0]["args"]) == ("weather", {"city": "Oslo"})
    assert (type(result), result.tool_call_id, result.content) == (ToolMessage, call.tool_calls[0]["id"], "Rain.")
    assert said.content == "It rains."
    assert last.content == messages[-1]["content"]


async def test_parameters_reach_the_members():
    model = trio("Yes.")
    given = {"temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 9, "stop": "END"}
    await answered(model, model="a", **given)
    asked = member(model).asked[0]
    assert asked.stop == ["END"]
    assert asked.kwargs == {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9}


async def test_what_only_openai_knows_reaches_no_other_member():
    model = trio("Yes.")
    await answered(model, model="a", seed=3, user="ann", presence_penalty=1, logit_bias={"50256": -100})
    assert member(model).asked[0].kwargs == {}


async def test_what_steers_openais_own_service_is_passed_over():
    model = trio("Yes.")
    await answered(model, model="a", store=True, metadata={"a": "b"}, service_tier="auto", n=1, stream=None)
    assert member(model).asked[0].kwargs == {}


# ---- tools and objects


def calling(name="weather", **args):
    return AIMessage("", tool_calls=[tool_call(name=name, args=args, id="x")])


async def test_tools_are_voted_on_and_the_winners_calls_returned():
    got = await answered(trio(calling(city="Oslo"), calling(city="Rome"), calling(city="Oslo")), tools=[WEATHER])
    choice = got["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    assert got["rlfocal"]["fusion"]["action"] == "tool_calls"


@pytest.mark.parametrize(
    ("choice", "says", "fails"),
    [
        ("auto", "It rains.", False),
        ("none", "It rains.", False),
        ("none", calling(city="Oslo"), True),
        ("required", calling("search"), False),
        ("required", "It rains.", True),
        ({"type": "function", "function": {"name": "weather"}}, calling(city="Oslo"), False),
        ({"type": "function", "function": {"name": "weather"}}, calling("search"), True),
    ],
)
async def test_each_tool_choice_holds(choice, says, fails):
    response = await ask(trio(says), tools=[WEATHER, SEARCH], tool_choice=choice)
    assert response.status_code == (502 if fails else 200), response.text


@pytest.mark.parametrize(("parallel", "status"), [(True, 200), (False, 502)])
async def test_calls_at_once_can_be_forbidden(parallel, status):
    both = AIMessage("", tool_calls=[tool_call(name="search", args={}, id=i) for i in ("1", "2")])
    response = await ask(trio(both), tools=[SEARCH], parallel_tool_calls=parallel)
    assert response.status_code == status


async def test_members_agree_on_an_object_field_by_field():
    """Two of three say each of Ann, 7 and Oslo, and nobody all of them."""
    said = [("Ann", 7, "Rome"), ("Ann", 8, "Oslo"), ("Bob", 7, "Oslo")]
    says = [json.dumps(dict(zip(("name", "age", "city"), one, strict=True))) for one in said]
    got = await answered(trio(*says, max_team=3, cost_weight=0.0), "Who?", response_format=PERSON)
    assert json.loads(got["choices"][0]["message"]["content"]) == {"name": "Ann", "age": 7, "city": "Oslo"}
    assert got["rlfocal"]["fusion"]["merged"]


async def test_a_text_that_is_not_the_object_is_no_answer():
    error = await refused(trio("no idea"), 502, response_format={"type": "json_object"})
    assert "invalid_json" in error["message"]


async def test_a_refusal_is_one():
    says = AIMessage([{"type": "refusal", "refusal": "I would rather not."}])
    model = trio(says)
    choice = (await answered(model))["choices"][0]
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (None, "I would rather not.")
    chunks = chunks_of((await ask(model, stream=True)).text)
    assert [c["choices"][0]["delta"].get("refusal") for c in chunks][1:] == ["I would rather not.", None]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"stop_reason": "end_turn"}, "stop"),
    ],
)
async def test_why_an_answer_ended_is_said_in_openais_words(metadata, reason):
    got = await answered(trio(AIMessage("Half an ans", response_metadata=metadata)))
    assert got["choices"][0]["finish_reason"] == reason


async def test_log_probabilities_are_returned_where_they_are_asked_for():
    """The double reports them whatever it is asked; who did not ask is not told."""
    model = RLFocalChatModel(members={n: Saying(script=["Yes it is"], logprob=-0.5) for n in "ab"})
    assert (await answered(model))["choices"][0]["logprobs"] is None
    logprobs = (await answered(model, logprobs=True, top_logprobs=2))["choices"][0]["logprobs"]
    assert [(one["token"], one["logprob"], bytes(one["bytes"])) for one in logprobs["content"]] == [
        ("Yes", -0.5, b"Yes"),
        ("it", -0.5, b"it"),
        ("is", -0.5, b"is"),
    ]


# ---- a stream


async def test_a_stream_says_the_same_in_chunks():
    model = trio("It's 42 of course.")
    response = await ask(model, stream=True)
    chunks = chunks_of(response.text)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert text_of(chunks) == "It's 42 of course."
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{chunks[-1]['rlfocal']['answer_id']}"}
    assert response.headers["x-rlfocal-answer-id"] == chunks[-1]["rlfocal"]["answer_id"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_ends_with_its_usage_where_that_is_asked_for():
    whole = await answered(trio("It's 42"))
    chunks = chunks_of((await ask(trio("It's 42"), stream=True, stream_options={"include_usage": True})).text)
    assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
    assert chunks[-1]["choices"] == []


async def test_tool_calls_are_streamed():
    chunks = chunks_of((await ask(trio(calling(city="Oslo")), tools=[WEATHER], stream=True)).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    [call] = next(delta["tool_calls"] for delta in deltas if "tool_calls" in delta)
    assert (call["index"], call["function"]["name"], call["function"]["arguments"]) == (
        0,
        "weather",
        '{"city": "Oslo"}',
    )
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_error_before_the_first_word_of_a_stream_is_an_ordinary_one():
    model = RLFocalChatModel(members={"a": FailingChatModel(error=ValueError("boom"))}, max_retries=0)
    assert (await refused(model, 502, stream=True))["code"] == "no_member_answered"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_no_utf8_can_write_is_answered_with_a_question_mark(stream):
    """A member may say half of a character, in a text as in a tool call, or a number of more than 64 bits."""
    said = await ask(trio("Wow \ud83d"), stream=stream)
    called = await ask(trio(calling(city="Osl\ud83d", at=2**70)), tools=[WEATHER], stream=stream)
    assert (said.status_code, called.status_code) == (200, 200)
    assert "Wow ?" in ("".join(text_of(chunks_of(said.text))) if stream else said.text)
    delta = chunks_of(called.text)[-2]["choices"][0]["delta"] if stream else called.json()["choices"][0]["message"]
    assert json.loads(delta["tool_calls"][0]["function"]["arguments"]) == {"city": "Osl?", "at": 2**70}


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_a_stream_that_cannot_be_written_gives_its_place_back(path, monkeypatch):
    """At once: not when the garbage of it is collected."""

    def failing(*_, **__):
        raise RuntimeError("It cannot be written.")

    monkeypatch.setattr("langchain_rlfocal.server.chat_completions.event", failing)
    monkeypatch.setattr("langchain_rlfocal.server.response_stream.event", failing)
    async with client_of(trio("It's 42 of course."), raises=False) as client:
        body = {**chat(stream=True, model="a"), "input": "Hello"}
        body.pop("input" if path == CHAT else "messages")
        gc.disable()
        try:
            error_of(await client.post(path, json=body), 500)
            assert client.app.state.serving.admission.in_flight == 0
        finally:
            gc.enable()


# ---- what is refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[1]"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [SEARCH, SEARCH]}, "tools[1].function.name"),
        ({"tools": [SEARCH], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [SEARCH], "parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": [""]}, "stop"),
        ({"logprobs": 1}, "logprobs"),
        ({"rlfocal": 3}, "rlfocal"),
        ({"rlfocal": {"max_teem": 2}}, "rlfocal.max_teem"),
        ({"rlfocal": {"max_team": 0}}, "rlfocal.max_team"),
        ({"rlfocal": {"max_team": 4}}, "rlfocal.max_team"),
        ({"rlfocal": {"deadline_s": -1}}, "rlfocal.deadline_s"),
        ({"rlfocal": {"answer_kind": "poem"}}, "rlfocal.answer_kind"),
        ({"rlfocal": {"target_calls": 2, "cost_weight": 0.1}}, "rlfocal.cost_weight"),
        ({"rlfocal": {"target_calls": 0.5}}, "rlfocal.target_calls"),
        ({"rlfocal": {"promise": "best-0.02@0.9"}}, "rlfocal.promise"),
        ({"rlfocal": {"budget_per_answer": {"max_dollars": 1}}}, "rlfocal.budget_per_answer"),
        ({"rlfocal": {"explore": 1.0}}, "rlfocal.explore"),
        ({"rlfocal": {"session": "x" * 201}}, "rlfocal.session"),
        ({"rlfocal": {"consensus": "most"}}, "rlfocal.consensus"),
    ],
)  # fmt: skip
async def test_a_request_that_breaks_a_rule_is_told_which_field_and_nobody_is_asked(body, param):
    model = trio("Yes.")
    error = await refused(model, 400, **body)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert f"`{param}" in error["message"] or param in error["message"]
    assert not member(model).asked


async def test_a_model_that_does_not_exist_is_not_found():
    for name in ("gpt-9", "rlfocal:", "rlfocal:calls", "rlfocal:wishes=3", "rlfocal:promise=best-0.02@0.9"):
        error = await refused(trio("Yes."), 404, model=name)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


# ---- the options of the answer


async def test_options_go_to_the_ensemble():
    model = trio("1", "2", "3", cost_weight=0.0)
    got = await answered(model, rlfocal={"max_team": 1, "task": "quiz", "answer_kind": "number"})
    assert len(got["rlfocal"]["candidates"]) == 1
    assert got["rlfocal"]["candidates"][0]["answer_kind"] == "number"


async def test_a_budget_of_an_answer_holds_and_the_servers_own_is_the_most():
    """The server allows two calls an answer: asked for nine, it still makes two; for one, one."""
    for asked, made in ((9, 2), (1, 1)):
        model = trio("1", "2", "3", budget_per_answer={"max_calls": 2}, cost_weight=0.0)
        got = await answered(model, rlfocal={"budget_per_answer": {"max_calls": asked}})
        assert got["rlfocal"]["spent"]["calls"] == made


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"session": "s1"}, {}), ({}, {"X-RLFocal-Session": "s1"}), ({"session": "s1"}, {"X-RLFocal-Session": "s2"})],
)
async def test_a_conversation_is_known_by_its_session(body, headers, monkeypatch):
    """The body goes before the header, and the ensemble is told of no other session."""
    heard = []
    model = trio("Yes.")
    as_it_is = RLFocalChatModel._state_of
    monkeypatch.setattr(
        RLFocalChatModel,
        "_state_of",
        lambda *args, **kwargs: (heard.append(args[4].get("session")), as_it_is(*args, **kwargs))[1],
    )
    await answered(model, rlfocal=body, headers=headers)
    assert heard == ["/s1"]


async def test_no_agreement_is_a_conflict_where_the_client_wants_none_else():
    model = trio(calling(city="Oslo"), calling(city="Rome"), calling(city="Bonn"), cost_weight=0.0)
    error = await refused(model, 409, tools=[WEATHER], rlfocal={"on_disagreement": "raise"})
    assert error["code"] == "disagreement"


# ---- who fails


async def test_a_pool_that_cannot_answer_is_a_bad_gateway_with_every_cause():
    model = RLFocalChatModel(members={n: FailingChatModel(error=ValueError(f"no {n}")) for n in "ab"}, max_retries=0)
    response = await ask(model)
    assert "no a" in error_of(response, 502)["message"]
    assert response.headers["x-should-retry"] == "false"


async def test_a_spent_budget_is_a_quota_that_clients_do_not_ask_again_about():
    response = await ask(trio("Yes.", budget={"max_calls": 0}))
    assert error_of(response, 429)["code"] == "insufficient_quota"
    assert response.headers["x-should-retry"] == "false"


async def test_what_is_not_ours_is_told_without_its_text():
    model = trio("Yes.")
    async with client_of(model, raises=False) as client:
        client.app.state.serving.model = None  # nothing that a client could do
        error = error_of(await client.post(CHAT, json=chat()), 500)
    assert error == {
        "message": "The server failed to answer; its log says why.",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }

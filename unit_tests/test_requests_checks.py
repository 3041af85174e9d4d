"""What an answer must hold to be one, whoever gives it."""

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import invalid_tool_call

from langchain_rlfocal import InputError, PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.execution import UnusableAnswerError
from support_requests import Person, add, call, ensemble, search
from support_schema_model import SchemaChatModel

# ---- what an answer must hold

BOTH = Request.of({"tools": [add, search]})


@pytest.mark.parametrize(
    ("request_", "message", "kind"),
    [
        (BOTH, AIMessage("", tool_calls=[call("sub", a=1)]), "unknown_tool"),
        (BOTH, AIMessage("", tool_calls=[call("add")]), "invalid_arguments"),
        (BOTH, AIMessage("", tool_calls=[call("add", a="three")]), "invalid_arguments"),
        (BOTH, AIMessage("", tool_calls=[call("add", a=1), call("add", a=[1])]), "invalid_arguments"),
        (
            BOTH,
            AIMessage("text", invalid_tool_calls=[invalid_tool_call(name="add", args='{"a": ', id="1", error="?")]),
            "invalid_json",
        ),
        (Request.of({"tools": [add, search], "tool_choice": "any"}), AIMessage("text"), "no_tool_call"),
        (
            Request.of({"tools": [add, search], "tool_choice": "add"}),
            AIMessage("", tool_calls=[call("search", query="x")]),
            "wrong_tool",
        ),
        (
            Request.of({"tools": [add], "tool_choice": "none"}),
            AIMessage("", tool_calls=[call("add", a=1)]),
            "unwanted_call",
        ),
        (
            Request.of({"tools": [add], "parallel_tool_calls": False}),
            AIMessage("", tool_calls=[call("add", a=1), call("add", a=2)]),
            "parallel_calls",
        ),
        (Request.of({"response_format": Person}), AIMessage("Ann"), "invalid_json"),
        (Request.of({"response_format": Person}), AIMessage('{"name": '), "invalid_json"),
        (Request.of({"response_format": Person}), AIMessage('{"age": 3}'), "invalid_object"),
        (
            Request.of({"response_format": Person}),
            AIMessage([{"type": "refusal", "refusal": "I will not"}]),
            "refusal",
        ),
        (
            Request.of({"response_format": Person}),
            AIMessage("", additional_kwargs={"refusal": "I will not"}),
            "refusal",
        ),
        (Request.of({"response_format": {"type": "json_object"}}), AIMessage("{"), "invalid_json"),
    ],
)
def test_an_answer_that_breaks_the_request_is_unusable(request_, message, kind):
    with pytest.raises(UnusableAnswerError) as caught:
        request_.check(message)
    assert caught.value.kind == kind
    assert caught.value.message is message


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (BOTH, AIMessage("text")),
        (BOTH, AIMessage("", tool_calls=[call("add", a="3"), call("search", query="x")])),
        (Request.of({}), AIMessage("", tool_calls=[call("anything")])),
        (Request.of({"response_format": Person}), AIMessage('Sure:\n```json\n{"name": "Ann"}\n```\nDone.')),
        (Request.of({"response_format": Person}), AIMessage('Sure: {"name": "Ann"}, as you asked.')),
        (Request.of({"response_format": Person, "tools": [add]}), AIMessage("", tool_calls=[call("add", a=3)])),
        (Request.of({"response_format": {"type": "json_object"}}), AIMessage("[1]")),
    ],
)
def test_an_answer_that_holds_what_was_asked_for_is_usable(request_, message):
    request_.check(message)


def test_a_format_or_a_tool_that_nobody_can_read_is_refused_before_anyone_is_asked():
    member = SchemaChatModel()
    model = ensemble({"a": member})
    with pytest.raises(InputError):
        model.with_structured_output(None)
    with pytest.raises(InputError):
        model.with_structured_output(Person, method="magic")
    with pytest.raises(InputError):
        model.bind_tools([add], tool_choice="sub")
    with pytest.raises(InputError):
        model.invoke("?", consensus="some")
    assert not member.asked


def test_a_member_with_a_price_is_bound_like_any():
    model = RLFocalChatModel(members=[PoolMember("a", SchemaChatModel(), input_usd_per_mtok=1.0)])
    assert model.bind_tools([add], tool_choice="any").invoke("Add 1 and 2").tool_calls

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_rlfocal.chat_models.messages import history_for, native_of
from support_history import THINKING, USAGE, call, ours


def claude(**changes):
    """What ChatAnthropic answers when it thinks first and then calls a tool."""
    content = [
        THINKING,
        {"type": "text", "text": "I will add."},
        {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "id": "toolu_1"}},
    ]
    calls = [call("toolu_1", a=1, id="toolu_1")]
    metadata = {"model_provider": "anthropic", "stop_reason": "tool_use"}
    fields = {"content": content, "tool_calls": calls, "response_metadata": metadata, "id": "msg_1"}
    return AIMessage(**{**fields, "usage_metadata": USAGE, **changes})


# ---- what is kept


def test_what_is_kept_of_a_message_is_what_its_provider_wants_back():
    kept = native_of(claude(additional_kwargs={"parsed": object(), "refusal": None, "reasoning_content": "hm"}))
    assert kept == {
        "content": claude().content,
        "tool_calls": [{"name": "add", "args": {"a": 1, "id": "toolu_1"}, "id": "toolu_1"}],
        "additional_kwargs": {"reasoning_content": "hm"},
        "response_metadata": {"model_provider": "anthropic"},
        "id": "msg_1",
    }
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([THINKING, {"type": "text", "text": "5"}]),
        AIMessage("Adding.", tool_calls=[call()]),
        AIMessage([{"type": "text", "text": "x"}, "y", {"type": "tool_use", "id": "c1"}], tool_calls=[call()]),
        AIMessage("", tool_calls=[call()], additional_kwargs={"tool_calls": [{"id": "c1"}], "refusal": None, "k": {}}),
        AIMessage("", tool_calls=[call()], response_metadata={"rlfocal": {"native": None}}),
    ],
)
def test_nothing_is_kept_where_the_neutral_reply_says_it_all(message):
    assert native_of(message) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [THINKING]},
        {"content": [{"type": "redacted_thinking", "data": "x"}]},
        {"content": [{"type": "text", "text": "x", "extras": {"signature": "s"}}]},
        {"content": [{"type": "tool_call", "id": "c1", "extras": {"thought_signature": "s"}}]},
        {"content": "", "additional_kwargs": {"__gemini_function_call_thought_signatures__": {"c1": "s"}}},
        {"content": "", "response_metadata": {"rlfocal": {"native": {"member": "x", "message": {}}}}},
    ],
)
def test_each_kind_of_reasoning_and_signature_is_kept(fields):
    assert native_of(AIMessage(**fields, tool_calls=[call()])) is not None


def test_what_json_cannot_hold_is_not_kept():
    """A keyword that it cannot hold goes; content or arguments that it cannot hold take the whole with them."""
    assert native_of(claude(content=[{"type": "thinking", "signature": b"x"}])) is None
    assert native_of(claude(tool_calls=[call(a=float("nan"))])) is None
    kept = native_of(claude(additional_kwargs={"audio": b"x", "signatures": {"c1": "s"}}))
    assert kept["additional_kwargs"] == {"signatures": {"c1": "s"}}
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert native_of(claude(content=[{"type": "thinking", "thinking": deep}])) is None


def test_a_message_of_more_than_100_000_characters_is_not_kept():
    def thinking(size):
        return claude(content=[{"type": "thinking", "thinking": "ü" * size}])

    frame = len(json.dumps(native_of(thinking(0)), ensure_ascii=False))
    assert native_of(thinking(100_000 - frame)) is not None
    assert native_of(thinking(100_001 - frame)) is None


# ---- what becomes of it


def test_the_same_member_gets_its_own_message_back_under_our_ids():
    """An argument that happens to be the id is no id."""
    messages = [HumanMessage("1 + 1?"), ours(claude()), ToolMessage("2", tool_call_id="call_1")]
    _, own, result = history_for(messages, "ann")
    assert own.content == [
        THINKING,
        {"type": "text", "text": "I will add."},
        {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1, "id": "toolu_1"}},
    ]
    assert own.tool_calls == [call("call_1", a=1, id="toolu_1")]
    assert own.response_metadata["model_provider"] == "anthropic"
    assert own.usage_metadata is None
    assert result is messages[2]
    assert history_for(messages, "bob")[1] == AIMessage("I will add.", tool_calls=own.tool_calls)


def test_ids_are_replaced_wherever_providers_write_them():
    """OpenAI's chat and responses forms, and Gemini's signatures, which stand under the ids themselves."""
    winner = AIMessage(
        [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "id": "fc_1", "call_id": "x1", "name": "add", "arguments": '{"id": "x1"}'},
            {"type": "text", "text": "x1"},
        ],
        tool_calls=[call("x1"), call("x2")],
        additional_kwargs={
            "tool_calls": [{"id": "x1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
            "__gemini_function_call_thought_signatures__": {"x1": "s1", "x2": "s2"},
            "reasoning_content": "x1",
            "other": {"x1": 1, "y": 2},
        },
    )
    messages = [ours(winner, ids=("n1", "n2")), ToolMessage("", tool_call_id="n1"), ToolMessage("", tool_call_id="n2")]
    own = history_for(messages, "ann")[0]
    assert [c["id"] for c in own.tool_calls] == ["n1", "n2"]
    assert own.content[1] == {
        "type": "function_call", "id": "fc_1", "call_id": "n1", "name": "add", "arguments": '{"id": "x1"}'
    }  # fmt: skip
    assert own.content[2]["text"] == "x1"
    assert own.additional_kwargs == {
        "__gemini_function_call_thought_signatures__": {"n1": "s1", "n2": "s2"},
        "reasoning_content": "x1",
        "other": {"x1": 1, "y": 2},
    }


def test_the_own_message_follows_ids_that_had_to_be_replaced():
    messages = [ours(claude(), ids=("odd|1",)), ToolMessage("2", tool_call_id="odd|1")]
    own, result = history_for(messages, "ann")
    assert own.content[2]["id"] == own.tool_calls[0]["id"] == result.tool_call_id
    assert result.tool_call_id.startswith("call_")


@pytest.mark.parametrize(
    "change",
    [
        {"tool_calls": [call("call_1", a=2, id="toolu_1")]},
        {"tool_calls": [call("call_1", "subtract", a=1, id="toolu_1")]},
        {"tool_calls": [call("call_1", a=1, id="toolu_1"), call("call_2")]},
        {"content": "I will ***."},
    ],
)
def test_a_message_that_was_changed_since_stays_as_it_is_now(change):
    """A person edited the call, or a filter took something out of the text: the old message must not come back."""
    messages = [ours(claude()).model_copy(update=change), ToolMessage("2", tool_call_id="call_1")]
    neutral = history_for(messages, "ann")[0]
    assert neutral.content == change.get("content", "I will add.")
    assert neutral.response_metadata == {}


def test_a_message_one_of_whose_calls_was_not_answered_is_neutral():
    """Its provider would miss the result."""
    winner = claude(tool_calls=[call("x1"), call("x2")])
    history = history_for([ours(winner, ids=("n1", "n2")), ToolMessage("", tool_call_id="n2")], "ann")
    assert history[0] == AIMessage("I will add.", tool_calls=[call("n2")])


def test_calls_that_share_an_id_cannot_be_told_apart_and_stay_neutral():
    messages = [ours(claude(tool_calls=[call("x"), call("x")]), ids=("n1", "n2"))]
    messages += [ToolMessage("", tool_call_id="n1"), ToolMessage("", tool_call_id="n2")]
    assert isinstance(history_for(messages, "ann")[0].content, str)


@pytest.mark.parametrize(
    "native",
    [
        None,
        3,
        {},
        {"member": "ann", "message": None},
        {"member": "ann", "message": {"content": 3}},
        {"member": "ann", "message": {"content": "I will add.", "tool_calls": [{"odd": 1}]}},
        {"member": "ann", "message": {"content": "I will add.", "tool_calls": 7}},
        {"member": "ann", "message": {"content": "I will add.", "tool_calls": [], "additional_kwargs": "x"}},
    ],
)
def test_metadata_that_is_not_ours_is_ignored(native):
    message = ours(claude()).model_copy(update={"response_metadata": {"rlfocal": {"native": native}}})
    neutral = history_for([message, ToolMessage("2", tool_call_id="call_1")], "ann")[0]
    assert neutral == AIMessage("I will add.", tool_calls=message.tool_calls)


def test_what_is_kept_is_copied_so_that_no_member_can_change_it():
    message = ours(claude())
    own = history_for([message, ToolMessage("2", tool_call_id="call_1")], "ann")[0]
    own.content[0]["thinking"] = own.content[2]["id"] = "changed"
    assert message == ours(claude())


def test_an_ensemble_within_an_ensemble_gets_its_own_messages_back():
    """Outer member `team` is an ensemble whose member `ann` answered; each level peels off its own layer."""
    inner = ours(claude(), "ann", ("inner_1",))
    outer = ours(inner, "team", ("outer_1",))
    messages = [outer, ToolMessage("2", tool_call_id="outer_1")]
    for_team = history_for(messages, "team")
    assert for_team[0].content == "I will add."
    own = history_for(for_team, "ann")[0]
    assert own.content[0] == THINKING
    assert own.content[2]["id"] == "outer_1"
    assert history_for(for_team, "bob")[0] == AIMessage("I will add.", tool_calls=own.tool_calls)

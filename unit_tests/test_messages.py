"""Messages: a conversation as one member can read it, whoever answered its earlier turns."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_rlfocal.chat_models.messages import history_for, native_of, repairs_of
from support_history import THINKING, USAGE, call, ours

# ---- neutral messages


def test_a_plain_conversation_is_passed_on_as_the_same_objects():
    messages = [
        SystemMessage("Be kind."),
        HumanMessage(
            [{"type": "text", "text": "1 + 2?"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"}]
        ),
        AIMessage("", tool_calls=[call(a=1, b=2)]),
        ToolMessage("3", tool_call_id="c1"),
        AIMessage("3", name="ann"),
        HumanMessage("Thanks."),
    ]
    history = history_for(messages, "ann")
    assert len(history) == len(messages)
    assert all(new is old for new, old in zip(history, messages, strict=True))
    assert repairs_of(messages) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (["5"], "5"),
        ([{"type": "text", "text": "It is "}, {"type": "text", "text": "5", "citations": [{}]}, "."], "It is 5."),
        ([THINKING, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "5"}], "5"),
        ([{"type": "reasoning", "summary": [], "encrypted_content": "x", "id": "rs_1"}, "5"], "5"),
        ([{"type": "text", "text": "5", "signature": "x"}, {"type": "refusal", "refusal": "no"}], "5"),
        ([{"type": "server_tool_use", "id": "s"}, {"type": "web_search_tool_result", "content": []}, "5"], "5"),
        ([{"type": "image", "url": "https://x"}, {"type": "file", "file_id": "f"}, "5"], "5"),
        ([{"text": "5"}, {"odd": 1}, {"type": "text", "text": None}], "5"),
        ([{"type": "refusal", "refusal": "I will not."}], "I will not."),
        ("", None),
        (" \n", None),
        ([THINKING], None),
        ([{"type": "image", "url": "https://x"}], None),
    ],
)
def test_an_assistant_message_is_reduced_to_its_text_and_left_out_without_any(content, text):
    """Reasoning, signatures, other tools' blocks, media, ids, usage and metadata are another provider's affair."""
    message = AIMessage(
        content,
        additional_kwargs={"reasoning_content": "hm", "function_call": {"name": "f", "arguments": "{}"}},
        response_metadata={"model_provider": "anthropic"},
        usage_metadata=USAGE,
        invalid_tool_calls=[{"name": "f", "args": "{", "id": "x", "error": "bad", "type": "invalid_tool_call"}],
        id="msg_1",
        name="ann",
    )
    assert history_for([message], "ann") == ([] if text is None else [AIMessage(text, name="ann")])
    left_out = ["left out 1 assistant message(s) without text or tool calls"]
    assert repairs_of([message]) == (left_out if text is None else [])


def test_a_chunk_with_a_call_becomes_a_message_with_its_name_arguments_and_id_alone():
    chunk = AIMessageChunk(
        [{"type": "text", "text": "5", "index": 0}],
        tool_call_chunks=[{"name": "add", "args": '{"a": 1}', "id": "c1", "index": 0}],
        chunk_position="last",
    )
    [neutral, _] = history_for([chunk, ToolMessage("1", tool_call_id="c1")], "ann")
    assert type(neutral) is AIMessage
    assert neutral == AIMessage("5", tool_calls=[call("c1", a=1)])
    signed = AIMessage("5").model_copy(update={"tool_calls": [{**call("c1", a=1), "extras": {"signature": "x"}}]})
    assert history_for([signed, ToolMessage("1", tool_call_id="c1")], "ann")[0] == neutral


# ---- marks for a cache


def test_marks_for_a_cache_reach_anthropic_models_alone():
    """They may stand on a block, on what is said of it, or on a block inside it; the rest of the block stays."""
    mark = {"type": "ephemeral"}
    messages = [
        SystemMessage([{"type": "text", "text": "Rules", "cache_control": mark}]),
        HumanMessage(["Look:", {"type": "text", "text": "x", "extras": {"cache_control": mark, "k": 1}}]),
        AIMessage("", tool_calls=[call()]),
        ToolMessage([{"type": "result", "content": [{"type": "text", "cache_control": mark}]}], tool_call_id="c1"),
    ]
    assert history_for(messages, "ann", is_anthropic=True) == messages
    system, human, _, result = history_for(messages, "ann")
    assert system.content == [{"type": "text", "text": "Rules"}]
    assert human.content == ["Look:", {"type": "text", "text": "x", "extras": {"k": 1}}]
    assert result.content == [{"type": "result", "content": [{"type": "text"}]}]
    assert messages[0].content[0]["cache_control"] == mark


# ---- pairing


def test_a_result_must_answer_a_call_of_the_message_right_before_it():
    """The first has no call, the second's is too far back, the fourth answers a second time."""
    messages = [
        ToolMessage("early", tool_call_id="c1"),
        AIMessage("", tool_calls=[call("c1"), call("c2")]),
        ToolMessage("second", tool_call_id="c2"),
        ToolMessage("first", tool_call_id="c1"),
        ToolMessage("again", tool_call_id="c1"),
        HumanMessage("And?"),
        ToolMessage("late", tool_call_id="c2"),
    ]
    assert history_for(messages, "ann") == [*messages[1:4], messages[5]]
    assert repairs_of(messages) == ["left out 3 tool result(s) that answer no tool call"]


def test_a_call_without_a_result_is_left_out():
    """One of two calls is answered before the user speaks; the last messages' calls are still open."""
    messages = [
        AIMessage("", tool_calls=[call("c1"), call("c2", b=1)]),
        ToolMessage("x", tool_call_id="c2"),
        HumanMessage("And?"),
        AIMessage("Let me see.", tool_calls=[call("c3")]),
        AIMessage("", tool_calls=[call("c4", "secret")]),
    ]
    assert history_for(messages, "ann") == [
        AIMessage("", tool_calls=[call("c2", b=1)]),
        messages[1],
        messages[2],
        AIMessage("Let me see."),
    ]
    assert repairs_of(messages) == [
        "left out 3 tool call(s) without a result",
        "left out 1 assistant message(s) without text or tool calls",
    ]


def test_results_in_a_human_message_become_messages_of_their_own():
    """Anthropic's form, which other providers do not read."""
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "3"}], "is_error": True}
    lost = {"type": "tool_result", "tool_use_id": "c9"}
    messages = [AIMessage("", tool_calls=[call()]), HumanMessage([lost, {"type": "text", "text": "So?"}, result])]
    assert history_for(messages, "ann") == [
        messages[0],
        ToolMessage([{"type": "text", "text": "3"}], tool_call_id="c1", status="error"),
        HumanMessage([{"type": "text", "text": "So?"}]),
    ]
    assert repairs_of(messages) == ["left out 1 tool result(s) that answer no tool call"]
    assert history_for([messages[0], HumanMessage([result])], "ann")[-1].type == "tool"


# ---- ids


@pytest.mark.parametrize("odd", ["a|b", "x" * 41, "ü", "functions.add:0", None])
def test_an_id_that_a_provider_refuses_is_replaced_in_call_and_result(odd):
    messages = [AIMessage("", tool_calls=[call(odd)]), ToolMessage("x", tool_call_id=odd or "")]
    asking, result = history_for(messages, "ann")
    assert re.fullmatch(r"call_[0-9a-f]{24}", asking.tool_calls[0]["id"])
    assert result.tool_call_id == asking.tool_calls[0]["id"]
    assert history_for(messages, "bob") == [asking, result], "the same for every member, so that prompts can be cached"
    assert messages[1].tool_call_id == (odd or "")


def test_an_id_that_comes_again_is_replaced_where_it_comes_again():
    """Within a message, results answer in order; in a later message, the earlier pair keeps its id."""
    messages = [
        AIMessage("", tool_calls=[call("c1", a=1), call("c1", a=2)]),
        ToolMessage("one", tool_call_id="c1"),
        ToolMessage("two", tool_call_id="c1"),
        AIMessage("", tool_calls=[call("c1", a=3)]),
        ToolMessage("three", tool_call_id="c1"),
    ]
    history = history_for(messages, "ann")
    ids = [c["id"] for message in history if isinstance(message, AIMessage) for c in message.tool_calls]
    assert ids[0] == "c1"
    assert len(set(ids)) == 3
    results = {message.tool_call_id: message.content for message in history if isinstance(message, ToolMessage)}
    assert results == dict(zip(ids, ["one", "two", "three"], strict=True))


# ---- laws

IDS = st.sampled_from(["c1", "c2", "c3", "", "a|b", "x" * 41])
TEXTS = st.sampled_from(["", " ", "hi", "5", "Let me see."])
BLOCKS = st.sampled_from(
    [
        "hi", "", {}, {"text": "x"}, {"type": "text", "text": "y"}, {"type": "text"}, THINKING, {"type": "reasoning"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {}}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {"type": "text", "text": "z", "cache_control": {}, "extras": {"signature": "s"}},
        {"type": "tool_result", "tool_use_id": "c1", "content": "r"}, {"type": "tool_result", "tool_use_id": "c2"},
    ]
)  # fmt: skip
CONTENTS = TEXTS | st.lists(BLOCKS, max_size=4)
CALLS = st.lists(
    st.builds(call, IDS | st.none(), st.sampled_from("fg"), a=st.integers(0, 1)),
    max_size=3,
)


@st.composite
def assistant_messages(draw):
    fields = {"content": draw(CONTENTS), "tool_calls": draw(CALLS)}
    if draw(st.booleans()):
        fields["additional_kwargs"] = {"reasoning_content": "hm"}
    message = draw(st.sampled_from([AIMessage, AIMessageChunk]))(**fields)
    if type(message) is AIMessage and draw(st.booleans()):
        ids = draw(st.lists(IDS, min_size=len(message.tool_calls), max_size=len(message.tool_calls)))
        return ours(message, draw(st.sampled_from(["ann", "bob"])), ids)
    return message


CONVERSATIONS = st.lists(
    assistant_messages()
    | st.builds(ToolMessage, CONTENTS, tool_call_id=IDS)
    | st.builds(HumanMessage, CONTENTS)
    | st.builds(SystemMessage, CONTENTS)
    | st.just(FunctionMessage("x", name="f")),
    max_size=8,
)


def assert_strict(messages):
    """Every call is answered once, right behind it, under an id that is plain and used once."""
    seen, waiting = set(), set()
    for message in messages:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id in waiting
            waiting.remove(message.tool_call_id)
            continue
        assert not waiting
        if isinstance(message, AIMessage):
            ids = [c["id"] for c in message.tool_calls]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", i) for i in ids)
            assert len({*ids} - seen) == len(ids)
            assert ids or message.text.strip()
            assert not message.invalid_tool_calls
            seen |= {*ids}
            waiting = {*ids}
    assert not waiting


@settings(max_examples=150)
@given(messages=CONVERSATIONS, member=st.sampled_from(["ann", "bob", "eve"]))
def test_every_history_is_valid_for_the_strictest_provider_and_the_input_is_not_changed(messages, member):
    before = copy.deepcopy(messages)
    history = history_for(messages, member)
    assert_strict(history)
    assert messages == before
    assert "cache_control" not in str([message.content for message in history])
    for message in history:
        if isinstance(message, AIMessage) and "native" not in message.response_metadata.get("rlfocal", {}):
            assert message == AIMessage(message.content, tool_calls=message.tool_calls)
            assert isinstance(message.content, str)


@settings(max_examples=150)
@given(messages=CONVERSATIONS, member=st.sampled_from(["ann", "bob", "eve"]), is_anthropic=st.booleans())
def test_doing_it_twice_does_no_more_than_once(messages, member, is_anthropic):
    once = history_for(messages, member, is_anthropic=is_anthropic)
    twice = history_for(once, member, is_anthropic=is_anthropic)
    assert twice == once
    assert all(new is old for new, old in zip(twice, once, strict=True))
    assert repairs_of(once) == []


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
    ("fields", "is_kept"),
    [
        ({"content": [THINKING]}, True),
        ({"content": [{"type": "text", "text": "x", "extras": {"signature": "s"}}]}, True),
        ({"content": [{"type": "tool_call", "id": "c1", "extras": {"thought_signature": "s"}}]}, True),
        ({"content": "", "additional_kwargs": {"__gemini_function_call_thought_signatures__": {"c1": "s"}}}, True),
        ({"content": "", "response_metadata": {"rlfocal": {"native": {"member": "x", "message": {}}}}}, True),
        ({"content": "Adding."}, False),
        ({"content": [THINKING], "tool_calls": []}, False),
        ({"content": [{"type": "text", "text": "x"}, "y", {"type": "tool_use", "id": "c1"}]}, False),
        ({"content": "", "additional_kwargs": {"tool_calls": [{"id": "c1"}], "refusal": None, "k": {}}}, False),
        ({"content": [{"type": "thinking", "signature": b"x"}]}, False),
        ({"content": [THINKING], "tool_calls": [call(a=float("nan"))]}, False),
        ({"content": [{"type": "thinking", "thinking": "x" * 99_000}]}, True),
        ({"content": [{"type": "thinking", "thinking": "x" * 100_000}]}, False),
    ],
)
def test_reasoning_and_signatures_are_kept_where_there_is_a_call_and_json_can_hold_them(fields, is_kept):
    assert (native_of(AIMessage(**{"tool_calls": [call()], **fields})) is not None) == is_kept
    kept = native_of(claude(additional_kwargs={"audio": b"x", "signatures": {"c1": "s"}}))
    assert kept["additional_kwargs"] == {"signatures": {"c1": "s"}}


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


@pytest.mark.parametrize(
    ("winner", "change"),
    [
        (claude(), {"tool_calls": [call("call_1", a=2, id="toolu_1")]}),
        (claude(), {"tool_calls": [call("call_1", "subtract", a=1, id="toolu_1")]}),
        (claude(), {"tool_calls": [call("call_1", a=1, id="toolu_1"), call("call_2")]}),
        (claude(), {"content": "I will ***."}),
        (claude(tool_calls=[call("x1"), call("x2")]), {}),
        (claude(), {"response_metadata": {"rlfocal": {"native": {"member": "ann", "message": {"content": 3}}}}}),
        (claude(), {"response_metadata": {"rlfocal": 3}}),
    ],
    ids=["argument", "name", "one more", "text", "a call without a result", "metadata of another", "or none"],
)
def test_a_message_that_was_changed_since_or_lacks_a_result_stays_neutral(winner, change):
    """A person edited the call, or a filter took something out of the text: the old message must not come back."""
    answered = ours(winner, ids=("call_1", "call_9")[: len(winner.tool_calls)]).model_copy(update=change)
    neutral = history_for([answered, ToolMessage("2", tool_call_id="call_1")], "ann")[0]
    assert neutral.content == change.get("content", "I will add.")
    assert [made["id"] for made in neutral.tool_calls] == ["call_1"]
    assert neutral.response_metadata == {}


def test_calls_that_share_an_id_cannot_be_told_apart_and_stay_neutral():
    messages = [ours(claude(tool_calls=[call("x"), call("x")]), ids=("n1", "n2"))]
    messages += [ToolMessage("", tool_call_id="n1"), ToolMessage("", tool_call_id="n2")]
    assert isinstance(history_for(messages, "ann")[0].content, str)


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

"""The doubles do what they are told, and the made outcomes are as true as told."""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.records import Candidate, Query
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy, make_outcomes


async def every_way(model, question="?"):
    streamed = list(model.stream(question))
    astreamed = [chunk async for chunk in model.astream(question)]
    return [
        model.invoke(question),
        await model.ainvoke(question),
        sum(streamed[1:], streamed[0]),
        sum(astreamed[1:], astreamed[0]),
    ]


async def test_a_script_is_a_mapping_a_sequence_or_a_function():
    """By the last human text; in turn, and from the beginning again; from the messages."""
    model = ScriptedChatModel(script={"one": "1", "two": "2"})
    assert {message.text for message in await every_way(model, "two")} == {"2"}
    assert model.invoke([HumanMessage("two"), AIMessage("2"), HumanMessage("one")]).text == "1"
    model = ScriptedChatModel(script=["a", "b"])
    assert [model.invoke("?").text for _ in range(3)] == ["a", "b", "a"]
    model = ScriptedChatModel(script=lambda messages: f"{len(messages)} messages")
    messages = [SystemMessage("s"), HumanMessage("h")]
    assert {message.text for message in await every_way(model, messages)} == {"2 messages"}


async def test_usage_counts_words_and_can_be_left_out():
    """The question has 2 words, the answer 3."""
    for message in await every_way(ScriptedChatModel(script=["a b c"]), "d e"):
        assert message.usage_metadata == {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}
    for message in await every_way(ScriptedChatModel(script=["a b c"], reports_usage=False)):
        assert message.usage_metadata is None


async def test_logprobs_come_in_openais_form_where_asked_for():
    for message in await every_way(ScriptedChatModel(script=["a b"], logprob=-0.5)):
        assert [token["logprob"] for token in message.response_metadata["logprobs"]["content"]] == [-0.5, -0.5]
    assert "logprobs" not in ScriptedChatModel(script=["a b"]).invoke("?").response_metadata


async def test_the_hooks_hold_an_answer():
    calls = []

    async def acall():
        calls.append("async")

    model = ScriptedChatModel(script=["x"], on_call=lambda: calls.append("sync"), on_acall=acall)
    await every_way(model)
    assert sorted(calls) == ["async", "async", "sync", "sync"]


def test_it_remembers_what_it_was_asked_and_does_not_change_its_script():
    reply = AIMessage("x")
    model = ScriptedChatModel(script=[reply], logprob=-1.0)
    model.invoke("q", stop=["."], temperature=1)
    [asked] = model.asked
    assert (asked.messages[0].text, asked.stop, asked.kwargs) == ("q", ["."], {"temperature": 1})
    assert reply == AIMessage("x")


def test_streams_come_in_pieces_with_one_usage_on_the_last_chunk():
    """A tool call's name and id come once, its arguments in pieces under its index, also those that are no JSON."""
    call = {"name": "weather", "args": {"city": "São Paulo", "days": 3}, "id": "1"}
    broken = {"name": "f", "args": '{"a": 1, "b": ', "id": "2", "error": None, "type": "invalid_tool_call"}
    model = ScriptedChatModel(script=[AIMessage("Hello to you.", tool_calls=[call], invalid_tool_calls=[broken])])
    chunks = list(model.stream("?"))
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert [chunk for chunk in chunks if chunk.usage_metadata or chunk.response_metadata] == chunks[-1:]
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello ", "to ", "you."]
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    for index, name, args in ((0, "weather", '{"city": "São Paulo", "days": 3}'), (1, "f", '{"a": 1, "b": ')):
        mine = [piece for piece in pieces if piece["index"] == index]
        assert len(mine) > 2
        assert [(piece["name"], piece["id"]) for piece in mine] == [(name, str(index + 1))] + [(None, None)] * (
            len(mine) - 1
        )
        assert "".join(piece["args"] for piece in mine) == args


async def test_a_failing_model_fails_every_way_also_after_some_words():
    model = FailingChatModel(error=KeyError("gone"))
    for call in (lambda: model.invoke("?"), lambda: asyncio.run(model.ainvoke("?")), lambda: list(model.stream("?"))):
        with pytest.raises(KeyError, match="gone"):
            await asyncio.to_thread(call)
    with pytest.raises(KeyError, match="gone"):
        await anext(model.astream("?"))
    stream = FailingChatModel(error=KeyError("gone"), after="one two").stream("?")
    assert [next(stream).text, next(stream).text] == ["one ", "two"]
    with pytest.raises(KeyError):
        next(stream)


def test_a_scripted_policy_asks_its_teams_and_follows_the_majority():
    policy = ScriptedPolicy([["a"], []], ("a", "b"))
    knobs = {"available": ("a", "b"), "max_rounds": 3, "max_team": 2, "cost_weight": 0.0}
    teams = [policy.select(Query("?"), [], [], round_number=r, **knobs).members for r in (1, 2, 3)]
    assert teams == [("a",), (), ()]
    candidates = [Candidate(n, 1, "", answer, 0.0) for n, answer in (("a", "x"), ("b", "y"), ("c", "y"))]
    answer = policy.fuse(Query("?"), candidates, [], max_team=3)
    assert (answer.member, answer.answer, answer.confidence) == ("b", "y", pytest.approx(2 / 3))
    assert policy.competence(Query("?")) == {"a": 0.5, "b": 0.5}


def test_members_of_made_outcomes_are_right_exactly_as_often_as_told():
    told = {"maths": {"a": 0.9, "b": 0.35}, "law": {"a": 0.2, "b": 1.0}}
    rewards = defaultdict(list)
    for outcome in make_outcomes(told, num_queries=20, seed=7):
        rewards[outcome.task, outcome.model].append(outcome.reward)
        assert outcome.reward == float(outcome.answer == outcome.gold)
    assert {key: sum(values) / 20 for key, values in rewards.items()} == {
        (task, member): share for task, shares in told.items() for member, share in shares.items()
    }


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(2, 26))
def test_the_same_arguments_make_the_same_outcomes_and_another_seed_others(seed, num_queries, num_options):
    first, again = (
        list(make_outcomes({"t": {"a": 0.5}}, num_queries=num_queries, num_options=num_options, seed=seed))
        for _ in range(2)
    )
    assert first == again
    assert len(first) == num_queries
    assert list(make_outcomes({"t": {"a": 0.5}}, seed=seed)) != list(make_outcomes({"t": {"a": 0.5}}, seed=seed + 1))


def test_costs_are_as_told_and_unknown_where_not_told():
    outcomes = make_outcomes({"t": {"a": 1.0, "b": 1.0}}, num_queries=1, costs_usd={"a": 0.25})
    assert [outcome.cost_usd for outcome in outcomes] == [0.25, None]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_queries": 0}, "`num_queries` must be at least 1"),
        ({"num_options": 1}, "`num_options` in"),
        ({"accuracies": {"t": {"a": 1.5}}}, "accuracy of `a` in `t` must be in"),
    ],
)
def test_impossible_outcomes_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        make_outcomes(**{"accuracies": {"t": {"a": 0.5}}, **arguments})

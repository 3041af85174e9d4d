"""Whatever members raise, alone or all of them, and what the caller gives."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.testing import FailingChatModel, ScriptedPolicy
from support_odd_members import (
    DOORS,
    TEN_MB,
    Saying,
    Tooled,
    answer_of,
    calling,
    failures_of,
    first,
    is_explained,
    loose,
    responding,
    saying,
    team,
    unparsed,
)
from support_tools import QUESTION, lookup


class Raising(FailingChatModel, Tooled):
    pass


# ---- exceptions


class Panic(BaseException):
    """Like pyo3's PanicException, it derives from no Exception."""


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name
    """Stands for LangGraph's own, which is recognised by its name."""


class Mute(Exception):  # noqa: N818  # never mind
    def __str__(self):
        raise RuntimeError("no words")


RAISED = [
    ValueError("plain"),
    KeyError(),
    StopIteration("stop"),
    StopAsyncIteration("stop"),
    RecursionError("deep"),
    MemoryError(),
    asyncio.CancelledError("mine"),
    TimeoutError(),
    NotImplementedError(),
    AssertionError("a\x00b\ud800"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    Mute(),
    Panic("at the edge"),
    BaseExceptionGroup("several", [Panic("at the edge")]),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_member_raises_is_its_failure_and_the_rest_answer(error, shape, door):
    """Inside coroutines and generators Python turns the two Stop errors into a RuntimeError."""
    message = await answer_of(shape(Raising(error=error)), door)
    assert message.text == "yes"
    kinds = {type(error).__name__} | (
        {"RuntimeError"} if isinstance(error, StopIteration | StopAsyncIteration) else set()
    )
    assert failures_of(message)["bad"] in kinds
    assert is_explained(message)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("shape", [team, first])
async def test_langgraphs_control_flow_passes_through_the_model(shape, door):
    with pytest.raises(GraphBubbleUp):
        await answer_of(shape(Raising(error=GraphBubbleUp("interrupt"))), door)


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("shape", [team, first])
def test_the_wish_to_stop_the_program_passes_through_the_model(shape, error, door):
    with pytest.raises(type(error)):
        list(getattr(shape(Raising(error=error)), door)(QUESTION))


@pytest.mark.parametrize("door", DOORS)
async def test_what_bind_tools_raises_is_the_members_failure(door):
    class Unbindable(Saying):
        def bind_tools(self, tools, **kwargs):
            raise TypeError("no tools on Mondays")

    message = await answer_of(team(Unbindable(script=["?"])).bind_tools([lookup]), door)
    assert (message.text, failures_of(message)) == ("yes", {"bad": "TypeError"})


@pytest.mark.parametrize("door", ["stream", "astream"])
async def test_after_the_first_word_nobody_can_stand_in_and_the_error_names_the_member(door):
    model = first(Raising(error=ConnectionError("gone"), after="half an"))
    with pytest.raises(EnsembleError, match=r"`bad` broke off .* ConnectionError: gone") as caught:
        await answer_of(model, door)
    assert caught.value.failures == {"bad": "ConnectionError: gone"}


# ---- nobody answers


@pytest.mark.parametrize("door", DOORS)
async def test_where_everybody_is_bad_one_error_names_each_with_its_cause(door):
    members = {
        "mute": saying(""),
        "long": saying(TEN_MB),
        "broken": unparsed('{"city"'),
        "lost": calling({}, name="fly"),
        "late": Raising(error=TimeoutError("too slow")),
        "none": responding(loose(content=None)),
    }
    policy = ScriptedPolicy([tuple(members)], tuple(members))
    model = RLFocalChatModel(members=members, policy=policy, max_team=6, max_retries=0)
    with pytest.raises(EnsembleError) as caught:
        await answer_of(model.bind_tools([lookup]), door)
    kinds = {name: cause.split(":")[0] for name, cause in caught.value.failures.items()}
    assert kinds == {
        "mute": "empty",
        "long": "too_long",
        "broken": "invalid_json",
        "lost": "unknown_tool",
        "late": "TimeoutError",
        "none": "TypeError",
    }
    assert all(f"{name}: {cause.rstrip('.')}" in str(caught.value) for name, cause in caught.value.failures.items())
    assert len(str(caught.value)) < 3_000
    assert caught.value.is_retryable


@pytest.mark.parametrize("door", DOORS)
async def test_where_everybody_ignores_a_demand_the_error_says_so(door):
    model = team(saying("no"), saying("no")).bind_tools([lookup], tool_choice="lookup")
    with pytest.raises(EnsembleError) as caught:
        await answer_of(model, door)
    assert {cause.split(":")[0] for cause in caught.value.failures.values()} == {"no_tool_call"}
    assert set(caught.value.failures) == {"bad", "good", "also"}


# ---- what the caller gives


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "messages",
    [[], "", " \n", [HumanMessage("")], [SystemMessage("")], [HumanMessage([])], [AIMessage("")]],
    ids=str,
)
async def test_nothing_asked_is_refused_through_every_door(messages, door):
    with pytest.raises(InputError, match="At least one message must have content"):
        await answer_of(team(saying("yes")), door, messages)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "messages",
    [
        [SystemMessage("Be brief.")],
        [AIMessage("I began.")],
        [ToolMessage("found", tool_call_id="nobody's")],
        [AIMessage("", tool_calls=[tool_call(name="lookup", args={}, id="1")])],
        [HumanMessage("a"), HumanMessage("b"), HumanMessage("")],
        [HumanMessage("q" * 1_000_000)],
        [HumanMessage([{"type": "unheard_of", "x": 1}, {"type": "text", "text": "?"}])],
    ],
    ids=["system", "assistant", "orphaned result", "open call", "three in a row", "a megabyte", "an unknown block"],
)
async def test_conversations_of_an_odd_shape_are_answered(messages, door):
    assert (await answer_of(team(saying("yes")), door, messages)).text == "yes"


@pytest.mark.parametrize("choice", ["fly", "LOOKUP", "", 3, ["lookup"], {}, {"type": "function"}, {"name": "fly"}])
def test_a_tool_choice_that_names_no_tool_is_refused(choice):
    with pytest.raises(InputError, match="`tool_choice` must be"):
        team(saying("yes")).bind_tools([lookup], tool_choice=choice)


@pytest.mark.parametrize("choice", ["any", "required", True, "lookup"])
def test_a_choice_among_no_tools_is_refused(choice):
    with pytest.raises(InputError, match="`tool_choice` must be"):
        team(saying("yes")).bind_tools([], tool_choice=choice)


@pytest.mark.parametrize("door", DOORS)
async def test_a_tool_choice_of_the_call_itself_is_refused_too(door):
    with pytest.raises(InputError, match="`tool_choice` must be"):
        await answer_of(team(saying("yes")), door, tool_choice="fly")


@pytest.mark.parametrize("tool", [3, None, "lookup", object(), {}], ids=repr)
def test_a_tool_of_an_odd_kind_is_refused_before_anybody_is_asked(tool):
    """LangChain's own converter says which kinds there are; its errors come through as the caller's mistake."""
    member = saying("yes")
    with pytest.raises((ValueError, TypeError)):
        team(member).bind_tools([tool]).invoke(QUESTION)
    assert member.asked == []


@pytest.mark.parametrize("form", [3, "json", [1], object(), {"type": "xml"}], ids=lambda form: type(form).__name__)
def test_a_response_format_of_an_odd_kind_is_refused(form):
    with pytest.raises(InputError, match="response format must be"):
        team(saying("yes")).bind_tools([lookup], response_format=form)
    with pytest.raises(InputError, match="response format must be"):
        team(saying("yes")).invoke(QUESTION, response_format=form)


@pytest.mark.parametrize("method", ["xml", None, ""])
def test_an_unknown_method_of_structured_output_is_refused(method):
    with pytest.raises(InputError, match="`method` must be"):
        team(saying("yes")).with_structured_output({"title": "City", "type": "object"}, method=method)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_without_a_schema_is_refused(method):
    with pytest.raises(InputError, match="`schema` must be given"):
        team(saying("yes")).with_structured_output(None, method=method)


@pytest.mark.parametrize("arguments", [{"stop": ["."]}, {"stop": []}, {"unheard_of": object()}], ids=repr)
@pytest.mark.parametrize("door", DOORS)
async def test_call_arguments_that_only_members_could_know_go_to_them(arguments, door):
    assert (await answer_of(team(saying("yes")), door, **arguments)).text == "yes"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["nobody", "", 3, ["bad"], {"bad"}])
async def test_a_model_that_is_no_member_is_refused(name, door):
    with pytest.raises(InputError, match="must be the name of a member"):
        await answer_of(team(saying("yes")), door, model=name)

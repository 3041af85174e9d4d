"""Compat: the private parts of langchain-core that the package stands on behave as it believes.

When one of these fails after an update of langchain-core, `_langchain` is the only module to mend.
"""

import asyncio
from contextvars import ContextVar

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError, ModelError
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import context
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal._langchain import (
    PARENT_KEY,
    EnsembleModelError,
    EnsembleOverflowError,
    is_control_flow,
    untangled,
)
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_calls import CALLS, consume

TREE = ("ensemble", [("member:a", []), ("member:b", [])])


def ensemble(**fields):
    names = ("a", "b")
    members = {name: fields.pop(name, ScriptedChatModel(script=["yes"])) for name in names}
    return RLFocalChatModel(members=members, policy=ScriptedPolicy([names], names), **fields)


def tree_of(run):
    return (run.name, sorted((tree_of(child) for child in run.child_runs), key=lambda tree: tree[0]))


async def trace(model, call, **config):
    collector = RunCollectorCallbackHandler()
    done = CALLS[call](model, {"callbacks": [collector], "run_name": "ensemble", **config})
    if asyncio.iscoroutine(done):
        await done
    [run] = collector.traced_runs
    return run


@pytest.mark.parametrize("call", CALLS)
async def test_members_runs_are_under_the_ensembles_run(call):
    """Also in a chain, and where a member is an ensemble itself."""
    assert tree_of(await trace(ensemble(), call)) == TREE
    chain = RunnableLambda(lambda question: question) | ensemble().with_config(run_name="ensemble")
    run = await trace(chain, call, run_name="chain")
    assert run.name == "chain"
    assert dict(tree_of(run)[1])["ensemble"] == TREE[1]
    run = await trace(ensemble(a=ensemble()), call)
    assert tree_of(run) == ("ensemble", [("member:a", TREE[1]), ("member:b", [])])


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_the_tree_is_the_same_where_invoke_goes_by_way_of_the_stream(call):
    """LangChain then streams without a run manager, after it has opened the run."""
    assert tree_of(await trace(ensemble(streaming=True), call)) == TREE


class Delegating(ScriptedChatModel):
    """Asks another model without passing on any configuration: LangChain then takes that of the run around."""

    inner: BaseChatModel

    def _generate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.inner.bind().invoke(messages))])

    async def _agenerate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=await self.inner.bind().ainvoke(messages))])


@pytest.mark.parametrize("call", CALLS)
async def test_what_a_member_asks_on_its_own_belongs_to_the_ensemble_and_not_to_the_chain_around(call):
    model = ensemble(a=Delegating(script=[], inner=ScriptedChatModel(script=["yes"])))
    chain = RunnableLambda(lambda question: question) | model.with_config(run_name="ensemble")
    run = await trace(chain, call, run_name="chain")
    children = dict(tree_of(run)[1])
    assert [name for name, _ in children["ensemble"]] == ["ScriptedChatModel", "member:a", "member:b"]
    assert children.keys() == {"RunnableLambda", "ensemble"}


@pytest.mark.parametrize("call", ["stream", "astream"])
async def test_what_a_relayed_member_asks_on_its_own_belongs_to_the_ensemble_too(call):
    member = Delegating(script=[], inner=ScriptedChatModel(script=["yes"]), disable_streaming=True)
    chain = RunnableLambda(lambda question: question) | ensemble(a=member, max_team=1).with_config(run_name="ensemble")
    run = await trace(chain, call, run_name="chain")
    assert dict(tree_of(run)[1])["ensemble"] == [("ScriptedChatModel", []), ("member:a", [])]


async def test_a_members_run_does_not_borrow_the_ensembles_model_name():
    """This member has none of its own, and would be counted under "rlfocal"."""
    run = await trace(ensemble(a=FakeListChatModel(responses=["yes"])), "invoke")
    [metadata] = [child.extra["metadata"] for child in run.child_runs if child.name == "member:a"]
    assert "ls_model_name" not in metadata


@pytest.mark.filterwarnings("ignore:astream_log is deprecated")
async def test_members_do_not_show_in_a_streamed_log():
    """The log's handler is a tracer that streams: it would mix members' tokens with the ensemble's."""
    chain = RunnableLambda(lambda question: question) | ensemble()
    log = None
    async for patch in chain.astream_log("?"):
        log = patch if log is None else log + patch
    assert not [name for name in log.state["logs"] if name.startswith("member:")]
    assert "RLFocalChatModel" in log.state["logs"]


@pytest.mark.parametrize("call", CALLS)
async def test_members_runs_say_who_they_are_and_not_who_the_ensemble_is(call):
    """The parent travels without being traced."""
    run = await trace(ensemble(), call, tags=["mine"], metadata={"session": "s1"})
    for child in run.child_runs:
        metadata = child.extra["metadata"]
        name = child.name.removeprefix("member:")
        assert (metadata["rlfocal_role"], metadata["rlfocal_member"], metadata["session"]) == ("member", name, "s1")
        assert metadata["ls_provider"] != "rlfocal"
        assert {"nostream", "mine", f"rlfocal:member:{name}"} <= set(child.tags)
    assert PARENT_KEY not in f"{run.extra} {run.serialized} {[child.extra for child in run.child_runs]}"


async def test_a_callers_run_id_is_the_ensembles_run_id():
    from langchain_core.utils.uuid import uuid7  # noqa: PLC0415  # the one that `_langchain` uses

    run_id = uuid7()
    for call in ("invoke", "stream", "astream"):
        assert (await trace(ensemble(), call, run_id=run_id)).id == run_id


class Starts(BaseCallbackHandler):
    """Counts the chat models that start, as the standard tests do; no tracer."""

    def __init__(self):
        self.num_starts = 0

    def on_chat_model_start(self, *_args, **_kwargs):
        self.num_starts += 1


@pytest.mark.parametrize(("mode", "num_starts"), [("tracers", 1), ("none", 1), ("all", 3)])
@pytest.mark.parametrize("call", ["invoke", "stream"])
def test_members_report_to_the_handlers_that_member_callbacks_names(call, mode, num_starts):
    """The ensemble and its two members are three chat models; with none even tracers see no member."""
    handler, collector = Starts(), RunCollectorCallbackHandler()
    CALLS[call](ensemble(member_callbacks=mode), {"callbacks": [handler, collector]})
    assert handler.num_starts == num_starts
    assert [len(run.child_runs) for run in collector.traced_runs] == [0 if mode == "none" else 2]


async def test_members_tokens_do_not_mix_with_the_ensembles_event_stream():
    model = ensemble(a=ScriptedChatModel(script=["one two"]), b=ScriptedChatModel(script=["one two"]))
    events = await consume(model.astream_events("?", version="v2"))
    text = "".join(e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream")
    assert text == "one two"


async def test_the_models_own_callbacks_are_called_once_per_stream():
    """Callbacks are configured a second time by LangChain; a handler must not be added twice."""
    handler = Starts()
    list(ensemble(callbacks=[handler]).stream("?"))
    await consume(ensemble(callbacks=[handler]).astream("?"))
    assert handler.num_starts == 2


@pytest.mark.parametrize(
    ("fields", "knobs"),
    [
        ({}, {}),
        ({"stop": ["."]}, {}),
        ({"temperature": 0.5}, {}),
        ({"max_tokens": 9}, {}),
        ({"task": "t"}, {}),
        ({"answer_kind": "number"}, {}),
        ({"max_team": 1}, {}),
        ({}, {"max_team": 1}),
    ],
)
def test_an_answer_is_taken_from_the_cache_unless_fields_or_knobs_differ(fields, knobs):
    """The key does not change from run to run."""
    cache, member = InMemoryCache(), ScriptedChatModel(script=["yes"])
    ensemble(cache=cache, a=member).invoke("?", {"callbacks": [RunCollectorCallbackHandler()]})
    other = ensemble(cache=cache, a=member, **fields)
    other.invoke("?", {"callbacks": [RunCollectorCallbackHandler()]}, **knobs)
    other.bind(**knobs).invoke("?")
    assert len(member.asked) == (2 if fields or knobs else 1)


class Ends(AsyncCallbackHandler):
    def __init__(self):
        self.errors = []

    async def on_llm_error(self, error, **_kwargs):
        self.errors.append(type(error))


@pytest.mark.parametrize("call", ["ainvoke", "astream"])
async def test_a_cancelled_call_closes_its_run(call):
    begun, never = asyncio.Event(), asyncio.Event()

    async def hold():
        begun.set()
        await never.wait()

    handler = Ends()
    model = ensemble(a=ScriptedChatModel(script=["yes"], on_acall=hold))
    asking = asyncio.create_task(CALLS[call](model, {"callbacks": [handler]}))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert handler.errors == [asyncio.CancelledError]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_langchain_still_trips_over_a_models_own_cancellation():
    """The reason for `untangled`: once LangChain reports the cancellation itself, it can go. Other errors are left."""

    class Cancelling(ScriptedChatModel):
        async def _agenerate(self, *_args, **_kwargs):
            raise asyncio.CancelledError

    with pytest.raises(AttributeError) as caught:
        await Cancelling(script=[]).ainvoke("?")
    assert isinstance(untangled(caught.value), asyncio.CancelledError)
    for error in (ValueError("no"), AttributeError("no"), AttributeError("no", obj=3)):
        assert untangled(error) is error


def test_langchain_still_calls_the_private_methods_that_are_overridden():
    overridden = ("_generate_with_cache", "_agenerate_with_cache", "_get_invocation_params", "_get_llm_string")
    assert all(callable(getattr(BaseChatModel, name)) for name in overridden)


def test_langchain_still_streams_without_a_run_manager():
    """The reason for the private argument: once `stream` passes the run manager on, it can go."""
    seen = []

    class Streaming(ScriptedChatModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append(run_manager)
            yield from super()._stream(messages, stop, run_manager, **kwargs)

    list(Streaming(script=["yes"]).stream("?"))
    assert seen == [None]


def test_the_error_is_langchains_and_the_packages_and_says_whether_to_retry():
    error = EnsembleModelError("nobody", failures={"a": "late"}, is_retryable=True)
    assert isinstance(error, ModelError)
    assert isinstance(error, EnsembleError)
    assert error.is_retryable
    assert not EnsembleModelError("nobody").is_retryable
    assert isinstance(EnsembleOverflowError("long"), ContextOverflowError)


def test_real_langgraph_interrupts_are_recognised():
    errors = pytest.importorskip("langgraph.errors", reason="langgraph comes with langchain, which is optional")
    assert is_control_flow(errors.GraphInterrupt())
    assert not is_control_flow(errors.GraphRecursionError())


async def test_a_direct_call_without_a_run_asks_members_all_the_same():
    model = ensemble()
    assert model._generate([HumanMessage("?")]).generations[0].text == "yes"
    assert (await model._agenerate([HumanMessage("?")])).generations[0].text == "yes"


@pytest.mark.parametrize("call", ["stream", "astream"])
async def test_a_tracer_that_the_environment_switches_on_sees_the_whole_tree(call, monkeypatch):
    """LangSmith's tracer is made anew wherever callbacks are configured: made twice, one sees members without parents."""
    made = []

    class Tracer(RunCollectorCallbackHandler):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setenv("RLFOCAL_TRACER", "1")
    hook = (ContextVar("tracer", default=None), True, Tracer, "RLFOCAL_TRACER")
    monkeypatch.setattr(context, "_configure_hooks", [hook])
    done = CALLS[call](ensemble(), {"run_name": "ensemble"})
    if asyncio.iscoroutine(done):
        await done
    assert [tree_of(run) for tracer in made for run in tracer.traced_runs] == [TREE]

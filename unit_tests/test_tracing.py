"""Tracing: the tree of runs under an ensemble, what handlers are told, and the private names of LangChain that it takes."""

import asyncio
from collections import Counter
from contextlib import nullcontext
from contextvars import ContextVar

import pytest
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import context
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.utils.uuid import uuid7
from langsmith import Client

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal._langchain import (
    PARENT_KEY,
    is_control_flow,
    untangled,
)
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_calls import CALLS, Gate, consume
from support_ensembles import model_of
from support_schema_model import SchemaChatModel
from support_tools import weather

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


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_the_tree_is_the_same_where_invoke_goes_by_way_of_the_stream(call):
    """LangChain then streams without a run manager, after it has opened the run."""
    assert tree_of(await trace(ensemble(streaming=True), call)) == TREE


@pytest.mark.parametrize("call", ["invoke", "abatch", "stream", "astream"])
async def test_members_runs_stand_under_the_callers_run_and_say_who_they_are(call):
    run_id = uuid7()
    run = await trace(ensemble(), call, tags=["mine"], metadata={"session": "s1"}, run_id=run_id)
    assert tree_of(run) == TREE
    assert run.id == run_id or call == "abatch"
    assert PARENT_KEY not in f"{run.extra} {run.serialized}"
    for child in run.child_runs:
        metadata, name = child.extra["metadata"], child.name.removeprefix("member:")
        assert (metadata["rlfocal_role"], metadata["rlfocal_member"], metadata["session"]) == ("member", name, "s1")
        assert (metadata["ls_provider"], PARENT_KEY in str(child.extra)) != ("rlfocal", True)
        assert {"nostream", "mine", f"rlfocal:member:{name}", "rlfocal:round:1"} <= set(child.tags)
    nameless = await trace(ensemble(a=FakeListChatModel(responses=["yes"])), call)
    [metadata] = [child.extra["metadata"] for child in nameless.child_runs if child.name == "member:a"]
    assert "ls_model_name" not in metadata  # it would be counted under the ensemble's


class Delegating(ScriptedChatModel):
    """Asks another model without passing on any configuration: LangChain then takes that of the run around."""

    inner: BaseChatModel

    def _generate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.inner.bind().invoke(messages))])

    async def _agenerate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=await self.inner.bind().ainvoke(messages))])


class Listener(BaseCallbackHandler):
    """Keeps of each run that it is told of the tags and the parent."""

    def __init__(self):
        self.told = []

    def on_chat_model_start(self, serialized, messages, *, parent_run_id=None, tags=None, **kwargs):
        self.told.append((tags, parent_run_id))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("is_inner", [False, True])
async def test_a_members_own_handler_is_told_whose_run_it_is_where_nobody_else_listens(call, is_inner):
    own = Listener()
    asked = ScriptedChatModel(script=["yes"], callbacks=[own])
    done = CALLS[call](ensemble(a=Delegating(script=[], inner=asked) if is_inner else asked), {})
    if asyncio.iscoroutine(done):
        await done
    [(tags, parent)] = own.told
    assert {"rlfocal:member:a", "rlfocal:round:1", "nostream"} <= {*tags}
    assert parent is not None


@pytest.mark.parametrize("call", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("is_relayed", [False, True])
async def test_what_a_member_asks_on_its_own_belongs_to_the_ensemble_and_not_to_the_chain_around(call, is_relayed):
    member = Delegating(script=[], inner=ScriptedChatModel(script=["yes"]), disable_streaming=True)
    model = ensemble(a=member, max_team=1 if is_relayed else 2).with_config(run_name="ensemble")
    run = await trace(RunnableLambda(lambda question: question) | model, call, run_name="chain")
    children = dict(tree_of(run)[1])
    others = [] if is_relayed else ["member:b"]
    assert [name for name, _ in children["ensemble"]] == ["ScriptedChatModel", "member:a", *others]
    assert children.keys() == {"RunnableLambda", "ensemble"}


@pytest.mark.filterwarnings("ignore:astream_log is deprecated")
async def test_members_do_not_show_in_a_streamed_log():
    """The log's handler is a tracer that streams: it would mix members' tokens with the ensemble's."""
    chain = RunnableLambda(lambda question: question) | ensemble()
    log = None
    async for patch in chain.astream_log("?"):
        log = patch if log is None else log + patch
    assert not [name for name in log.state["logs"] if name.startswith("member:")]
    assert "RLFocalChatModel" in log.state["logs"]


async def test_langchain_still_trips_over_a_models_own_cancellation():
    """The reason for `untangled`: once LangChain reports the cancellation itself, it can go."""

    class Cancelling(ScriptedChatModel):
        async def _agenerate(self, *_args, **_kwargs):
            raise asyncio.CancelledError

    with pytest.raises(AttributeError) as caught:
        await Cancelling(script=[]).ainvoke("?")
    assert isinstance(untangled(caught.value), asyncio.CancelledError)


def test_langchain_still_streams_without_a_run_manager():
    """The reason for the private argument: once `stream` passes the run manager on, it can go."""
    seen = []

    class Streaming(ScriptedChatModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append(run_manager)
            yield from super()._stream(messages, stop, run_manager, **kwargs)

    list(Streaming(script=["yes"]).stream("?"))
    assert seen == [None]


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


def saying(*words, **fields):
    named = zip("abc", words, strict=False)
    return {name: ScriptedChatModel(script=[word], model_name=name, **fields) for name, word in named}


def synthesizing(**fields):
    synthesizer = ScriptedChatModel(script=["violet"], model_name="s", **fields)
    return model_of(saying("red", "blue"), synthesizer=synthesizer, synthesize_below=1.0)


class Tracer(BaseTracer):
    """Keeps every run, in the order of their beginnings, and counts their ends."""

    def __init__(self):
        super().__init__()
        self.runs, self.ends = [], Counter()

    def _persist_run(self, run):
        pass

    def _on_run_create(self, run):
        self.runs.append(run)

    def _on_run_update(self, run):
        self.ends[run.id] += 1

    def named(self, name):
        return [run for run in self.runs if run.name == name]

    def tree(self, parent_id=None):
        """The runs under a run, by name, each with those under it."""
        under = [(run.name, self.tree(run.id)) for run in self.runs if run.parent_run_id == parent_id]
        return sorted(under, key=lambda pair: pair[0])

    def assert_each_ended_once(self):
        assert self.ends == Counter(run.id for run in self.runs)
        assert not self.run_map
        assert all(run.end_time is not None for run in self.runs)


@pytest.fixture(params=["batch", "ainvoke", "stream", "astream_events"])
def call(request):
    async def run(model, **config):
        done = CALLS[request.param](model, {"run_name": "ensemble", **config})
        return await done if asyncio.iscoroutine(done) else done

    return run


@pytest.fixture
async def traced(call, caplog):
    """Call a model and return what was traced; LangChain only logs what a tracer trips over, as a second end."""

    async def run(model, error=None, **config):
        tracer = Tracer()
        with nullcontext() if error is None else pytest.raises(error):
            await call(model, callbacks=[tracer], **config)
        tracer.assert_each_ended_once()
        assert not caplog.records
        return tracer

    return run


def members_of(*names):
    return [(f"member:{name}", []) for name in names]


# ---- the runs, and what is said of them


async def test_runs_say_their_round_and_the_synthesizers_stands_beside_the_members(traced):
    synthesizer = ScriptedChatModel(script=["violet"], model_name="s")
    model = model_of(saying("red", "blue"), ["a"], ["b"], synthesizer=synthesizer, synthesize_below=1.0)
    tracer = await traced(model, metadata={"session": "s1"})
    assert tracer.tree() == [("ensemble", [*members_of("a", "b"), ("synthesizer", [])])]
    for run, role, number in zip(tracer.runs[1:], ("member:a", "member:b", "synthesizer"), (1, 2, 2), strict=True):
        metadata = run.extra["metadata"]
        assert (run.name, metadata["rlfocal_role"]) == (role, role.split(":")[0])
        assert (metadata["rlfocal_round"], metadata["session"]) == (number, "s1")
        assert set(run.tags) == {f"rlfocal:{role}", f"rlfocal:round:{number}", "nostream"}
    assert metadata["ls_model_name"] == "s"


async def test_in_a_batch_each_input_has_a_tree_of_its_own():
    tracer = Tracer()
    config = {"callbacks": [tracer], "run_name": "ensemble"}
    await model_of(saying("red", "blue")).abatch(["1?", "2?", "3?"], config)
    assert tracer.tree() == [("ensemble", members_of("a", "b"))] * 3
    tracer.assert_each_ended_once()
    for root in tracer.named("ensemble"):
        assert len({str(run.inputs) for run in tracer.runs if root.id in {run.id, run.parent_run_id}}) == 1


class Bound(SchemaChatModel):
    """Hands back a binding with a config of its own."""

    def bind_tools(self, tools, **kwargs):
        return super().bind_tools(tools, **kwargs).with_config(tags=["own"])


async def test_members_with_tools_stay_under_the_ensemble_in_a_chain(traced):
    """A bound model takes on the run around it, unless that is the ensemble's."""
    model = model_of({"a": SchemaChatModel(), "b": Bound()}).bind_tools([weather], tool_choice="any")
    tracer = await traced(RunnableLambda(lambda question: question) | model.with_config(run_name="bound"))
    assert tracer.tree() == [("ensemble", [("RunnableLambda", []), ("bound", members_of("a", "b"))])]
    assert {"own", "rlfocal:member:b", "nostream"} <= set(tracer.named("member:b")[0].tags)
    params = tracer.named("bound")[0].extra["invocation_params"]
    assert [tool["function"]["name"] for tool in params["tools"]] == ["weather"]


async def test_an_ensemble_within_an_ensemble_nests_with_its_synthesizer(traced):
    tracer = await traced(model_of({"x": synthesizing(), **saying("violet")}))
    under = [*members_of("a", "b"), ("synthesizer", [])]
    assert tracer.tree() == [("ensemble", [*members_of("a"), ("member:x", under)])]


async def test_in_an_agent_members_stand_under_each_call_of_the_model(traced):
    agents = pytest.importorskip("langchain.agents", reason="langchain is optional")
    model = model_of({name: SchemaChatModel(model_name=name) for name in "ab"})
    ask = RunnableLambda(lambda _: {"messages": [("human", "weather in Oslo?")]})
    tracer = await traced(ask | agents.create_agent(model, [weather]))
    calls = tracer.named("RLFocalChatModel")
    assert [tracer.tree(run.id) for run in calls] == [members_of("a", "b")] * 2
    parents = {run.id: run.name for run in tracer.runs}
    assert {parents[run.parent_run_id] for run in calls} == {"model"}


# ---- ends


async def test_a_members_failure_ends_its_run_alone(traced):
    tracer = await traced(model_of({"x": FailingChatModel(error=ValueError("no")), **saying("red")}))
    assert [run.name for run in tracer.runs if run.error] == ["member:x"]


class GraphBubbleUp(Exception):  # noqa: N818  # LangGraph's name, by which it is known
    """A way out of a graph."""


@pytest.mark.parametrize(("cause", "max_team"), [(ValueError, 1), (ValueError, 2), (GraphBubbleUp, 1)])
async def test_where_nobody_answers_every_run_ends_with_an_error(traced, cause, max_team):
    members = {name: FailingChatModel(error=cause("no"), after="Half") for name in "ab"}
    tracer = await traced(model_of(members, max_team=max_team), error=EnsembleError if cause is ValueError else cause)
    assert tracer.named("ensemble")[0].error
    assert all(run.error for run in tracer.runs)


async def test_a_member_that_still_thinks_at_a_way_out_of_the_graph_is_ended_too(caplog):
    gate, tracer = Gate(1), Tracer()

    class Leaving(ScriptedChatModel):
        async def _agenerate(self, *_args, **_kwargs):
            await gate.begun.wait()
            raise GraphBubbleUp

    model = model_of({"x": Leaving(script=[]), **saying("red", on_acall=gate.hold)})
    with pytest.raises(GraphBubbleUp):
        await model.ainvoke("?", {"callbacks": [tracer]})
    tracer.assert_each_ended_once()
    assert [run.error is not None for run in tracer.runs] == [True, True, True]
    assert not caplog.records


HELD = {
    "two": (2, "", lambda held: model_of(saying("red", "red", **held))),
    "relayed": (1, "", lambda held: model_of(saying("red", **held))),
    "second round": (1, "b", lambda held: model_of({**saying("1", "2"), **saying("3", **held)}, "b", "a")),
    "synthesizer": (1, "ab", lambda held: synthesizing(**held)),
    "nested": (3, "", lambda held: model_of({"x": model_of(saying("1", "2", **held)), **saying("3", **held)})),
}


@pytest.mark.parametrize(
    ("way", "by"), [("ainvoke", "cancel"), ("ainvoke", "wait_for"), ("astream", "cancel"), ("abatch", "cancel")]
)
@pytest.mark.parametrize("case", HELD)
async def test_a_call_that_is_left_ends_every_run_once(case, way, by, caplog):
    """Whoever has answered by then has ended well, and everybody else by the cancellation."""
    num_held, answered, make = HELD[case]
    gate, tracer = Gate(num_held), Tracer()
    asking = asyncio.create_task(CALLS[way](make({"on_acall": gate.hold}), {"callbacks": [tracer]}))
    await gate.begun.wait()
    if by == "cancel":
        asking.cancel()
    with pytest.raises(asyncio.CancelledError if by == "cancel" else TimeoutError):
        await (asking if by == "cancel" else asyncio.wait_for(asking, timeout=0))
    tracer.assert_each_ended_once()
    assert {run.name for run in tracer.runs if run.error is None} == {f"member:{name}" for name in answered}
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not caplog.records


@pytest.mark.parametrize("words", [["one two"], ["one two", "one two"]], ids=["relayed", "fused"])
async def test_a_reader_that_leaves_a_stream_ends_every_run_once(words, caplog):
    tracer = Tracer()
    stream = model_of(saying(*words)).stream("?", {"callbacks": [tracer]})
    next(stream)
    stream.close()
    tracer.assert_each_ended_once()
    astream = model_of(saying(*words)).astream("?", {"callbacks": [tracer]})
    await anext(astream)
    await astream.aclose()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:  # closing one generator closes those within
        await asyncio.gather(*others, return_exceptions=True)
    tracer.assert_each_ended_once()
    assert not caplog.records


# ---- handlers


class Handler(BaseCallbackHandler):
    """No tracer: notes which chat models begin, and what it is told of an ensemble's."""

    def __init__(self):
        self.starts, self.events = [], []

    def on_chat_model_start(self, *_args, run_id, name=None, **_kwargs):
        self.starts.append((name, run_id))

    def on_custom_event(self, name, data, *, run_id, **_kwargs):
        self.events.append((name, data, run_id))


SEEN = {"tracers": (0, 2), "all": (2, 2), "none": (0, 0)}
"""How many members' runs a handler and a tracer see."""


def told(message):
    """What handlers must have been told of an answer, in order."""
    facts = message.response_metadata["rlfocal"]
    results = [*facts["candidates"], *facts["failures"]]
    for selection in facts["rounds"]:
        yield "rlfocal_selection", selection
        yield from (("rlfocal_candidate", result) for result in results if result["round"] == selection["round"])
    yield "rlfocal_fusion", facts["fusion"]


def eventful(**fields):
    members = {"x": FailingChatModel(error=ValueError("no")), **saying("red", "red")}
    return model_of(members, ["x", "a"], ["b"], clock=lambda: 0.0, **fields)


@pytest.mark.parametrize("mode", SEEN)
async def test_handlers_are_told_once_of_each_choice_answer_and_decision(call, mode):
    """In order, as the answer's metadata says it afterwards, and as events of the ensemble's own run."""
    model, handler = eventful(member_callbacks=mode), Handler()
    expected = list(told(model.invoke("?")))
    assert len(expected) == 6
    await call(model, callbacks=[handler])
    assert [(name, data) for name, data, _ in handler.events] == expected
    assert {run_id for *_, run_id in handler.events} == {handler.starts[0][1]}


async def test_handlers_of_the_model_itself_are_told_once_too(call):
    handler = Handler()
    await call(eventful(callbacks=[handler]))
    assert (len(handler.starts), len(handler.events)) == (1, 6)


@pytest.mark.parametrize(("mode", "num_starts"), [("tracers", 1), ("none", 1), ("all", 3)])
async def test_members_report_to_the_handlers_that_member_callbacks_names(call, mode, num_starts):
    """The ensemble and its two members are three chat models."""
    handler = Handler()
    await call(model_of(saying("red", "red"), member_callbacks=mode), callbacks=[handler])
    assert len(handler.starts) == num_starts


async def test_a_stream_of_events_holds_each_once():
    model = eventful()
    chain = RunnableLambda(lambda question: question) | model
    events = await consume(chain.astream_events("?", version="v2"))
    [start] = [event for event in events if event["event"] == "on_chat_model_start"]
    own = [event for event in events if event["event"] == "on_custom_event"]
    assert [(event["name"], event["data"]) for event in own] == list(told(model.invoke("?")))
    assert {event["run_id"] for event in own} == {start["run_id"]}


# ---- tokens


def usage(prompt, written):
    return {"input_tokens": prompt, "output_tokens": written, "total_tokens": prompt + written}


async def test_langchains_counter_counts_members_and_their_sum_and_one_that_is_given_the_sum_alone(call):
    """LangChain gives its own to every call that it surrounds: read the ensemble's key."""
    counter = UsageMetadataCallbackHandler()
    with get_usage_metadata_callback() as surrounding:
        await call(model_of(saying("quite red", "blue")), callbacks=[counter])
    assert surrounding.usage_metadata == {"a": usage(1, 2), "b": usage(1, 1), "rlfocal": usage(2, 3)}
    assert counter.usage_metadata == {"rlfocal": usage(2, 3)}


class Offline(Client):
    """Keeps what would be sent to LangSmith, by the run's name."""

    def __init__(self):
        super().__init__(api_url="http://localhost", api_key="none", auto_batch_tracing=False, info={})
        self.names, self.metadata, self.messages = {}, {}, {}

    def create_run(self, name, *_args, **kwargs):
        self.names[kwargs["id"]] = name

    def update_run(self, run_id, **kwargs):
        self.metadata[self.names[run_id]] = kwargs["extra"]["metadata"]
        self.messages[self.names[run_id]] = kwargs["outputs"]["generations"][0][0]["message"]["kwargs"]


async def test_langsmith_is_told_tokens_and_settings_of_each_run_as_its_own(call):
    """Tokens both in a run's metadata and in its output: the sum on the ensemble's, each member's on its own."""
    client = Offline()
    await call(model_of(saying("quite red", "blue")), callbacks=[LangChainTracer(client=client)])
    expected = {"ensemble": usage(2, 3), "member:a": usage(1, 2), "member:b": usage(1, 1)}
    assert {name: metadata["usage_metadata"] for name, metadata in client.metadata.items()} == expected
    assert {name: message["usage_metadata"] for name, message in client.messages.items()} == expected
    told_of, member = client.metadata["ensemble"], client.metadata["member:a"]
    assert (told_of["ls_model_name"], told_of["model_name"], told_of["policy"]) == ("rlfocal", "rlfocal", "scripted")
    assert (member["ls_model_name"], member["model_name"], member["_type"]) == ("a", "a", "rlfocal-scripted")
    assert not {"policy", "members", "max_team"} & set(member)

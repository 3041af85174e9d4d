"""OpenTelemetry: which spans and metrics an answer makes, whose children they are, what they say, and what they must not say."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ModelRateLimitError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError, MissingDependencyError
from langchain_rlfocal.execution.calls import current_call
from langchain_rlfocal.testing import FailingChatModel, JudgingChatModel, ScriptedChatModel, ScriptedPolicy
from langchain_rlfocal.tracing import SCHEMA_URL, SEMCONV_VERSION, OpenTelemetryHandler, Telemetry, configure
from langchain_rlfocal.tracing.handler import _Open
from support_calls import CALLS, Gate
from support_ensembles import model_of
from support_http import CHAT, chat, client_of
from support_schema_model import SchemaChatModel
from support_time import ensemble, play, timed
from support_tools import weather

WAYS = ["invoke", "ainvoke", "stream", "astream"]
SECRET = "sk-live-1234567890abcdef"  # a key of nobody
MODELS = {"small": "s-1", "large": "l-1"}


class Traces:
    """Spans of a handler, kept in memory, and its metrics."""

    def __init__(self, **settings):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.handler = OpenTelemetryHandler(tracer_provider=self.provider, meter_provider=self.meters, **settings)
        self.tracer = self.provider.get_tracer("caller")

    @property
    def config(self):
        return {"callbacks": [self.handler]}

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def one(self, name):
        [span] = self.named(name)
        return span

    def tree(self, parent=None):
        """The spans below a span by name, each with those below it."""
        ident = None if parent is None else parent.context.span_id
        below = [span for span in self.spans if (span.parent.span_id if span.parent else None) == ident]
        return sorted(((span.name, self.tree(span)) for span in below), key=str)

    def points(self, name):
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [point for metric in found for point in metric.data.data_points]

    def assert_each_ended_once(self):
        assert self.handler.num_open == 0
        assert Counter(span.context.span_id for span in self.spans).most_common(1)[0][1] == 1


@pytest.fixture
def traces(caplog):
    """LangChain only logs what a handler trips over."""
    made = Traces()
    yield made
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


def said(span):
    """Everything that a span says, as one text."""
    events = [(event.name, dict(event.attributes)) for event in span.events]
    return repr((span.name, dict(span.attributes), events, span.status.description))


async def ask(model, way, config):
    done = CALLS[way](model, config)
    return await done if asyncio.iscoroutine(done) else done


def scripted(*names, word="red", **fields):
    return {name: ScriptedChatModel(script=[word], model_name=f"{name}-1", **fields) for name in names}


def priced():
    small = ScriptedChatModel(script=["red"], model_name="s-1", temperature=0.5)
    return [
        PoolMember("small", small, input_usd_per_mtok=1.0, output_usd_per_mtok=2.0),
        PoolMember(
            "large", ScriptedChatModel(script=["red"], model_name="l-1"), input_usd_per_mtok=3, output_usd_per_mtok=4
        ),
    ]


# ---- whose children they are


@pytest.mark.parametrize("way", CALLS)
async def test_members_spans_are_below_the_answers_which_is_below_the_callers(traces, way):
    model = model_of(scripted("a", "b"))
    with traces.tracer.start_as_current_span("caller") as caller:
        await ask(model, way, traces.config)
        assert trace.get_current_span() is caller  # the answer's has not taken its place
    assert traces.tree() == [("caller", [("chat rlfocal", [("chat a-1", []), ("chat b-1", [])])])]
    assert {span.context.trace_id for span in traces.spans} == {caller.get_span_context().trace_id}
    traces.assert_each_ended_once()


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_of_fifty_answers_at_once_each_has_its_own_members(traces, way):
    """Each input is its own trace here, since nobody's span is around; its words say whose a member's span is."""
    model, questions = model_of(scripted("a", "b", "c", word="yes")), [f"{number}?" for number in range(50)]
    traces = Traces(capture_content=True)
    done = getattr(model, way)(questions, traces.config)
    await done if asyncio.iscoroutine(done) else done
    answers = traces.named("chat rlfocal")
    assert (len(answers), len(traces.spans)) == (50, 200)
    for answer in answers:
        below = [span for span in traces.spans if span.parent and span.parent.span_id == answer.context.span_id]
        assert sorted(span.name for span in below) == ["chat a-1", "chat b-1", "chat c-1"]
        assert {span.attributes["gen_ai.input.messages"] for span in below} == {
            answer.attributes["gen_ai.input.messages"]
        }
        assert {span.context.trace_id for span in below} == {answer.context.trace_id}
    assert len({answer.context.trace_id for answer in answers}) == 50
    traces.assert_each_ended_once()


class Within(ScriptedChatModel):
    """Begins a span of its own while it answers, as an instrumented HTTP client does."""

    tracer: object = None

    def _reply(self, messages, stop, kwargs):
        with self.tracer.start_as_current_span("POST"):
            return super()._reply(messages, stop, kwargs)


@pytest.mark.parametrize("max_team", [1, 2], ids=["relayed", "fused"])
@pytest.mark.parametrize("way", CALLS)
async def test_what_a_members_client_does_is_below_the_members_call(traces, way, max_team):
    members = {name: Within(script=["red"], model_name=f"{name}-1", tracer=traces.tracer) for name in "ab"[:max_team]}
    await ask(model_of(members), way, traces.config)
    calls = [("chat a-1", [("POST", [])]), ("chat b-1", [("POST", [])])]
    assert traces.tree() == [("chat rlfocal", calls[:max_team])]
    assert not trace.get_current_span().get_span_context().is_valid
    assert current_call() is None


class Delegating(ScriptedChatModel):
    """Asks another model without passing on any configuration: LangChain then takes that of the run around."""

    inner: object = None

    def _generate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.inner.bind().invoke(messages))])

    async def _agenerate(self, messages, *_args, **_kwargs):
        return ChatResult(generations=[ChatGeneration(message=await self.inner.bind().ainvoke(messages))])


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_what_a_member_asks_on_its_own_is_below_it_and_no_call_of_the_ensemble(traces, way):
    inner = ScriptedChatModel(script=["red"], model_name="inner")
    members = {"a": Delegating(script=[], model_name="a-1", inner=inner), **scripted("b")}
    await ask(model_of(members), way, traces.config)
    assert traces.tree() == [("chat rlfocal", [("chat a-1", [("chat inner", [])]), ("chat b-1", [])])]
    assert "rlfocal.member" not in traces.one("chat inner").attributes


@pytest.mark.parametrize("way", WAYS)
async def test_an_ensemble_within_an_ensemble_nests(traces, way):
    nested = model_of(scripted("a", "b"), model_name="team")
    await ask(model_of({"x": nested, **scripted("c")}), way, traces.config)
    assert traces.tree() == [("chat rlfocal", [("chat c-1", []), ("chat team", [("chat a-1", []), ("chat b-1", [])])])]
    span = traces.one("chat team")
    assert (span.kind, span.attributes["rlfocal.member"]) == (SpanKind.INTERNAL, "x")
    traces.assert_each_ended_once()


def test_an_answer_of_a_session_says_which_by_its_digest_and_who_goes_on(traces):
    model = model_of(scripted("a", "b"), sticky="session")
    for _ in range(2):
        model.invoke("?", traces.config, session="mail-of-ann")
    first, second = traces.named("chat rlfocal")
    assert len(first.attributes["rlfocal.session"]) == 12
    assert first.attributes["rlfocal.session"] == second.attributes["rlfocal.session"]
    assert (second.attributes["rlfocal.session.sticky"], second.attributes["rlfocal.session.member"]) == (
        "session",
        "a",
    )
    assert "mail-of-ann" not in "".join(map(said, traces.spans))


async def test_of_a_chains_other_models_no_spans_are_made(traces):
    other = ScriptedChatModel(script=["red"], model_name="other")
    await (other | RunnableLambda(lambda said: said.text) | model_of(scripted("a"))).ainvoke("?", traces.config)
    assert traces.tree() == [("chat rlfocal", [("chat a-1", [])])]


async def test_in_an_agent_each_step_is_an_answer(traces):
    agents = pytest.importorskip("langchain.agents", reason="langchain is optional")
    agent = agents.create_agent(model_of({name: SchemaChatModel(model_name=name) for name in "ab"}), [weather])
    config = {**traces.config, "configurable": {"thread_id": "t-1"}}
    await agent.ainvoke({"messages": [("human", "weather in Oslo?")]}, config)
    assert traces.tree() == [("chat rlfocal", [("chat a", []), ("chat b", [])])] * 2
    assert {span.attributes["gen_ai.conversation.id"] for span in traces.spans} == {"t-1"}


# ---- what they say


@pytest.mark.parametrize("way", WAYS)
async def test_an_answers_span_says_how_it_came_about(traces, way):
    model = RLFocalChatModel(
        members=priced(), policy=ScriptedPolicy([["small"], ["large"]], ("small", "large")), max_rounds=2
    )
    await ask(model, way, traces.config)
    span = traces.one("chat rlfocal")
    attributes = dict(span.attributes)
    assert attributes.pop("rlfocal.answer_id")
    assert attributes.pop("gen_ai.response.time_to_first_chunk", 0.0) >= 0
    assert attributes.pop("gen_ai.request.stream", True)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "rlfocal",
        "gen_ai.request.model": "rlfocal",
        "gen_ai.response.model": "rlfocal",
        "rlfocal.policy": "scripted",
        "rlfocal.policy.trained": False,
        "rlfocal.rounds": 2,
        "rlfocal.team": ("small", "large"),
        "rlfocal.failures": (),
        "rlfocal.author": "small",
        "rlfocal.confidence": 1.0,
        "rlfocal.agreement": 1.0,
        "rlfocal.action": "text",
        "rlfocal.synthesized": False,
        "rlfocal.explored": False,
        "rlfocal.calls": 2,
        "rlfocal.tokens": 4,
        "rlfocal.usd": pytest.approx((1 + 2 + 3 + 4) / 1e6),  # one token in and one out of each
    }
    assert (span.kind, span.status.status_code) == (SpanKind.INTERNAL, StatusCode.UNSET)
    assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == ("langchain_rlfocal", SCHEMA_URL)
    told = [
        (event.name, event.attributes.get("rlfocal.round"), event.attributes.get("rlfocal.member"))
        for event in span.events
    ]
    assert told == [
        ("rlfocal.selection", 1, None),
        ("rlfocal.candidate", 1, "small"),
        ("rlfocal.selection", 2, None),
        ("rlfocal.candidate", 2, "large"),
        ("rlfocal.fusion", None, None),
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_a_members_span_says_who_was_asked_and_what_it_took(traces, way):
    message = AIMessage(
        "red",
        response_metadata={"id": "resp-7", "model_name": "s-1-2026", "finish_reason": "stop"},
        usage_metadata={
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {"cache_read": 60, "cache_creation": 0, "ephemeral_5m_input_tokens": 5},
            "output_token_details": {"reasoning": 8},
        },
    )
    small = ScriptedChatModel(script=[message], model_name="s-1", reports_usage=False)
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "cached_input_usd_per_mtok": 0.1}
    model = RLFocalChatModel(members=[PoolMember("small", small, **prices)])
    await ask(model, way, traces.config)
    span = traces.one("chat s-1")
    attributes = dict(span.attributes)
    assert attributes.pop("gen_ai.response.time_to_first_chunk", 0.0) >= 0
    assert attributes.pop("gen_ai.request.stream", True)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scriptedchatmodel",
        "gen_ai.request.model": "s-1",
        "gen_ai.response.model": "s-1-2026",
        "gen_ai.response.id": "resp-7",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 8,
        "rlfocal.member": "small",
        "rlfocal.role": "member",
        "rlfocal.round": 1,
        "rlfocal.attempt": 1,
        "rlfocal.hedge": False,
        "rlfocal.usd": pytest.approx((40 * 1.0 + 60 * 0.1 + 20 * 2.0) / 1e6),
    }
    assert span.kind == SpanKind.CLIENT


def test_names_are_the_conventions_and_the_version_is_one_that_is_published():
    known = {
        value
        for module in (gen_ai_attributes, http_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    traces = Traces(capture_content=True)
    model_of(scripted("a", "b")).invoke(
        "?", {**traces.config, "metadata": {"thread_id": "t"}}, temperature=0.5, stop=["x"]
    )
    model_of({"a": FailingChatModel(error=ValueError("no")), **scripted("b")}).invoke("?", traces.config)
    used = {name for span in traces.spans for name in span.attributes if not name.startswith("rlfocal.")}
    assert {"gen_ai.request.temperature", "gen_ai.request.stop_sequences", "error.type"} <= used
    assert used - {"error.type"} <= known
    assert SCHEMA_URL in {schema.value for schema in Schemas}
    assert SCHEMA_URL.endswith(f"/{SEMCONV_VERSION}")


def test_where_a_member_is_called_is_told_without_who_calls(traces):
    class Elsewhere(ScriptedChatModel):
        base_url: str = f"https://user:{SECRET}@models.example:8443/v1?key={SECRET}"

    model_of({"a": Elsewhere(script=["red"], model_name="a")}).invoke("?", traces.config)
    span = traces.one("chat a")
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("models.example", 8443)
    assert SECRET not in said(span)


def test_openais_own_address_is_known_from_its_client(traces):
    model = model_of({"a": ChatOpenAI(model="gpt-x", api_key=SecretStr(SECRET), max_tokens=5), **scripted("b")})
    model.invoke("?", traces.config)  # no network here: the call fails
    attributes = traces.one("chat gpt-x").attributes
    assert (attributes["server.address"], attributes["server.port"]) == ("api.openai.com", 443)
    assert (attributes["gen_ai.provider.name"], attributes["gen_ai.request.max_tokens"]) == ("openai", 5)


@pytest.mark.parametrize("way", WAYS)
async def test_the_synthesizer_and_the_judge_have_spans_of_their_own(traces, way):
    synthesizer = ScriptedChatModel(script=["violet"], model_name="s")
    judge = JudgingChatModel(same=lambda *_: False, model_name="j")
    members = {"a": ScriptedChatModel(script=["Red is warm."]), "b": ScriptedChatModel(script=["Blue is cold."])}
    model = model_of(members, synthesizer=synthesizer, synthesize_below=1.0, equivalence=judge)
    await ask(model, way, traces.config)
    assert traces.one("chat s").attributes["rlfocal.role"] == "synthesizer"
    assert {span.attributes["rlfocal.role"] for span in traces.named("chat j")} == {"equivalence"}
    assert traces.one("chat rlfocal").attributes["rlfocal.synthesized"] is True
    assert {span.kind for span in traces.named("chat j")} == {SpanKind.CLIENT}


# ---- failures


class Failing(FailingChatModel):
    model_name: str = "f-1"


@pytest.mark.usefixtures("steady_retries")
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_each_attempt_is_a_span_and_the_failed_ones_say_their_error(traces, way):
    busy = ModelRateLimitError("slow down")
    busy.status_code = 429
    played = play(way, ensemble({"a": timed((1, busy), (1, busy), (1, "yes"), model_name="a-1")}), config=traces.config)
    assert played.message.text == "yes"
    attempts = sorted(
        (span for span in traces.spans if "rlfocal.attempt" in span.attributes), key=lambda s: s.start_time
    )
    assert [span.attributes["rlfocal.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [span.attributes.get("error.type") for span in attempts] == [
        *["langchain_core.exceptions.ModelRateLimitError"] * 2,
        None,
    ]
    assert [span.attributes.get("http.response.status_code") for span in attempts] == [429, 429, None]
    answer = traces.one("chat rlfocal")
    assert {span.parent.span_id for span in attempts} == {answer.context.span_id}
    assert [event.attributes["rlfocal.retries"] for event in answer.events if event.name == "rlfocal.candidate"] == [2]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_hedge_says_that_it_is_one_and_whom_it_beat_is_no_error(traces, way):
    members = {"a": timed((9, "no"), model_name="a-1"), "b": timed((0.5, "yes"), model_name="b-1")}

    def make(clock):
        policy = ScriptedPolicy([["a"]], ("a", "b"))
        model = ensemble(members, policy=policy, hedge=True)(clock)
        for _ in range(20):
            model.shared_state.latencies.add("a", 1.0)
        return model

    played = play(way, make, config=traces.config)
    assert played.message.text == "yes"
    by_member = {
        span.attributes["rlfocal.member"]: span for span in traces.spans if "rlfocal.member" in span.attributes
    }
    assert {name: span.attributes["rlfocal.hedge"] for name, span in by_member.items()} == {"a": False, "b": True}
    assert by_member["a"].attributes["rlfocal.cancelled"] is True
    assert by_member["a"].status.status_code == StatusCode.UNSET
    assert "error.type" not in by_member["a"].attributes
    traces.assert_each_ended_once()


def test_whose_time_was_up_is_an_error(traces):
    members = {"a": timed((9, "no")), "b": timed((1, "yes"))}
    play("ainvoke", ensemble(members, timeout=2, max_retries=0, early_commit=False), config=traces.config)
    slow = next(span for span in traces.spans if span.attributes.get("rlfocal.member") == "a")
    assert (slow.attributes["error.type"], slow.status.status_code) == ("timeout", StatusCode.ERROR)


@pytest.mark.parametrize("way", WAYS)
async def test_where_nobody_answers_the_answers_span_names_who_failed_and_how(traces, way):
    model = model_of({"a": Failing(error=ValueError("no")), "b": Failing(error=KeyError("x"))})
    with pytest.raises(EnsembleError):
        await ask(model, way, traces.config)
    span = traces.one("chat rlfocal")
    assert span.attributes["error.type"] == "langchain_rlfocal._langchain.EnsembleModelError"
    assert span.attributes["rlfocal.failures"] == ("a:ValueError", "b:KeyError")
    assert span.status.status_code == StatusCode.ERROR
    assert {one.attributes["error.type"] for one in traces.named("chat f-1")} == {"ValueError", "KeyError"}
    traces.assert_each_ended_once()


# ---- ends


HELD = {
    "two": (2, lambda held: model_of(scripted("a", "b", **held))),
    "relayed": (1, lambda held: model_of(scripted("a", **held))),
    "nested": (3, lambda held: model_of({"x": model_of(scripted("a", "b", **held)), **scripted("c", **held)})),
}


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
@pytest.mark.parametrize("case", HELD)
async def test_a_call_that_is_cancelled_ends_every_span_once(traces, case, way):
    num_held, make = HELD[case]
    gate = Gate(num_held)
    asking = asyncio.create_task(CALLS[way](make({"on_acall": gate.hold}), traces.config))
    await gate.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    traces.assert_each_ended_once()
    assert len(traces.spans) == num_held + (2 if case == "nested" else 1)
    assert all(span.attributes["rlfocal.cancelled"] for span in traces.spans)
    assert {span.status.status_code for span in traces.spans} == {StatusCode.UNSET}


async def test_whenever_a_call_is_cancelled_each_span_is_ended(traces):
    """LangChain tells no end where the task is cancelled just before its first step or after its last."""
    for num_steps in range(1, 30):
        asking = asyncio.create_task(CALLS["ainvoke"](model_of(scripted("a", "b")), traces.config))
        for _ in range(num_steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    del asking
    await asyncio.sleep(0)
    gc.collect()
    await CALLS["ainvoke"](model_of(scripted("c")), traces.config)  # which ends what nobody can end any more
    traces.assert_each_ended_once()
    assert len(traces.named("chat rlfocal")) == 30


@pytest.mark.parametrize("num_members", [1, 2], ids=["relayed", "fused"])
async def test_a_reader_that_leaves_a_stream_ends_every_span_once(traces, num_members):
    stream = model_of(scripted(*"ab"[:num_members], word="one two")).stream("?", traces.config)
    next(stream)
    stream.close()
    traces.assert_each_ended_once()
    astream = model_of(scripted(*"ab"[:num_members], word="one two")).astream("?", traces.config)
    await anext(astream)
    await astream.aclose()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*others, return_exceptions=True)
    traces.assert_each_ended_once()
    assert len(traces.spans) == 2 * (num_members + 1)


def test_a_thread_that_is_left_ends_its_span_when_it_ends(traces):
    """Nothing can end a thread from outside; its answer comes when nobody waits for it any more."""
    members = {
        **{name: timed((1, "yes"), model_name=f"{name}-1") for name in "ab"},
        "c": timed((9, "no"), model_name="c-1"),
    }
    play("invoke", ensemble(members), config=traces.config)  # in whose time all threads come to their end
    traces.assert_each_ended_once()
    answer, late = traces.one("chat rlfocal"), traces.one("chat c-1")
    assert late.attributes["rlfocal.cancelled"] is True
    assert late.end_time >= answer.end_time
    assert [name for name in "ab" if "rlfocal.cancelled" in traces.one(f"chat {name}-1").attributes] == []


async def test_after_many_answers_nothing_of_them_is_left(traces):
    await model_of(scripted("a", "b", "c")).abatch(["?"] * 20, traces.config)
    assert (traces.handler.num_open, len(traces.spans)) == (0, 80)
    assert not traces.handler.run_map
    gc.collect()
    idents = {span.context.span_id for span in traces.spans}
    kept = [one for one in gc.get_objects() if type(one) is _Open and one.span.context.span_id in idents]
    assert kept == []


# ---- what they must not say


WORDS = "thesecretquestion"


@pytest.mark.parametrize("way", WAYS)
async def test_no_text_of_a_conversation_is_told_unless_it_is_asked_for(traces, way):
    tool = SchemaChatModel(model_name="t")
    error = ValueError(f"cannot answer {WORDS}")
    members = {**scripted("a", "b", word=WORDS), "c": Failing(error=error), "d": tool}
    chain = RunnableLambda(lambda _: [SystemMessage(WORDS), HumanMessage(WORDS)]) | model_of(members)
    await ask(chain, way, traces.config)
    assert len(traces.spans) == 5
    assert not [span for span in traces.spans if WORDS in said(span)]


def test_texts_have_the_conventions_form_where_they_are_asked_for():
    traces = Traces(capture_content=True)
    call = {"name": "weather", "args": {"place": "Oslo"}, "id": "c1", "type": "tool_call"}
    asked = [
        SystemMessage("Be brief."),
        HumanMessage(
            [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
        ),
        AIMessage("", tool_calls=[call]),
        ToolMessage("rainy", tool_call_id="c1"),
    ]
    model_of(scripted("a", word="wet")).invoke(asked, traces.config)
    span = traces.one("chat a-1")
    assert json.loads(span.attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "?"}, {"type": "image_url"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"place": "Oslo"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rainy"}]},
    ]
    assert json.loads(span.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "wet"}], "finish_reason": "stop"}
    ]


class Keyed(ScriptedChatModel):
    api_key: SecretStr = SecretStr("tok3n-of-nobody")


def test_secrets_are_not_among_the_texts():
    traces = Traces(capture_content=True)
    error = ValueError(f"key {SECRET} and tok3n-of-nobody are wrong")

    class KeyedFailing(FailingChatModel):
        api_key: SecretStr = SecretStr("tok3n-of-nobody")

    members = {"a": Keyed(script=[f"tok3n-of-nobody {SECRET}"]), "b": KeyedFailing(error=error)}
    model_of(members).invoke(f"{SECRET}?", traces.config)
    told = "".join(said(span) for span in traces.spans if "rlfocal.member" in span.attributes)
    assert "are wrong" in told
    assert SECRET not in told
    assert "tok3n-of-nobody" not in told


def test_what_utf8_cannot_hold_does_not_keep_a_batch_of_spans_from_being_sent():
    encoder = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.common.trace_encoder", reason="the exporter is optional"
    )
    traces = Traces(capture_content=True)
    members = {"a": ScriptedChatModel(script=["half \ud83d pair"], model_name="m\ud83d")}
    model_of(members).invoke("half \ud83d pair", traces.config)
    sent = encoder.encode_spans(traces.spans).SerializeToString()
    assert sent.count("half \ufffd pair".encode()) == 2 * len(traces.spans)  # what is asked, and what is answered


# ---- tokens and seconds


@pytest.mark.parametrize("way", WAYS)
async def test_tokens_are_counted_once_where_they_were_spent(traces, way):
    await ask(RLFocalChatModel(members=priced(), max_team=2), way, traces.config)
    tokens = {
        (point.attributes["gen_ai.request.model"], point.attributes["gen_ai.token.type"]): point.sum
        for point in traces.points("gen_ai.client.token.usage")
    }
    assert tokens == {(model, kind): 1 for model in MODELS.values() for kind in ("input", "output")}
    assert "gen_ai.usage.input_tokens" not in traces.one("chat rlfocal").attributes


def test_where_members_are_hidden_the_answers_span_has_the_sum(traces):
    RLFocalChatModel(members=priced(), max_team=2, member_callbacks="none").invoke("?", traces.config)
    [span] = traces.spans
    assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (2, 2)


def test_an_answer_from_langchains_cache_spends_nothing(traces):
    model = RLFocalChatModel(members=priced(), cache=InMemoryCache())
    model.invoke("?", traces.config)
    model.invoke("?", traces.config)
    first, again = traces.named("chat rlfocal")
    assert "gen_ai.usage.input_tokens" not in again.attributes
    assert len(traces.spans) == 4
    del first


def test_durations_are_those_of_calls_and_of_failed_ones_by_their_error():
    traces = Traces()
    model_of({"a": Failing(error=ValueError("no")), **scripted("b")}).invoke("?", traces.config)
    points = traces.points("gen_ai.client.operation.duration")
    assert {(p.attributes["gen_ai.request.model"], p.attributes.get("error.type"), p.count) for p in points} == {
        ("f-1", "ValueError", 1),
        ("b-1", None, 1),
    }


# ---- settings


def cleared(monkeypatch):
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_says_where_spans_go(monkeypatch, capsys):
    cleared(monkeypatch)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "kitchen")
    telemetry = configure()
    model_of(scripted("a")).invoke("?", {"callbacks": [telemetry.handler]})
    telemetry.shutdown()
    printed = capsys.readouterr().out
    assert '"chat a-1"' in printed
    assert '"service.name": "kitchen"' in printed
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)  # the process's own is its owner's
    assert metrics.get_meter_provider() is not None


@pytest.mark.parametrize(
    ("value", "captures"), [("true", True), ("SPAN_ONLY", True), ("", False), ("no_content", False)]
)
def test_the_environment_says_whether_texts_are_told(monkeypatch, value, captures):
    cleared(monkeypatch)
    for signal in ("TRACES", "METRICS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    telemetry = configure()
    telemetry.shutdown()
    assert telemetry.handler.capture_content is captures


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", InputError),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", InputError),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", MissingDependencyError),
    ],
)
def test_what_is_not_known_is_said_with_the_way_out(monkeypatch, name, value, error):
    cleared(monkeypatch)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(error, match="OTEL_"):
        configure()


def test_a_collector_that_is_down_does_not_hold_up_the_end():
    never = threading.Event()

    class Stuck:
        def shutdown(self):
            never.wait()

    Telemetry(OpenTelemetryHandler(), owned=(Stuck(), Stuck())).shutdown(within_s=0.01)
    never.set()


# ---- the server

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def served(monkeypatch):
    """Clients of a server whose spans stay here."""
    traces = Traces()

    @asynccontextmanager
    async def client(*, otel=True):
        async with client_of(model_of(scripted("a", "b")), otel=otel, callbacks=[traces.handler]) as made:
            yield made

    return traces, client


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answers_span_is_below_the_one_that_the_request_names(served, stream):
    traces, client = served
    async with client() as http:
        for headers in ({"traceparent": REMOTE}, {}, {"traceparent": "nonsense"}):
            response = await http.post(CHAT, json=chat(stream=stream), headers=headers)
            assert response.status_code == 200
    first, *others = traces.named("chat rlfocal")
    assert f"{first.context.trace_id:032x}" == REMOTE.split("-")[1]
    assert f"{first.parent.span_id:016x}" == REMOTE.split("-")[2]
    assert [span.parent for span in others] == [None, None]
    assert len(traces.spans) == 9
    traces.assert_each_ended_once()
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_span_that_the_server_is_in_already_goes_before_the_requests(served):
    traces, client = served
    async with client() as http:
        with traces.tracer.start_as_current_span("POST /v1/chat/completions"):
            await http.post(CHAT, json=chat(), headers={"traceparent": REMOTE})
    assert traces.tree() == [("POST /v1/chat/completions", [("chat rlfocal", [("chat a-1", []), ("chat b-1", [])])])]


async def test_without_the_setting_a_request_names_no_parent(served):
    traces, client = served
    async with client(otel=False) as http:
        await http.post(CHAT, json=chat(), headers={"traceparent": REMOTE})
    assert traces.one("chat rlfocal").parent is None


# ---- without it


def test_without_opentelemetry_the_error_names_the_extra_and_the_package_works():
    code = """
import sys
sys.modules["opentelemetry"] = None
import langchain_rlfocal.tracing as tracing
from langchain_rlfocal.errors import MissingDependencyError
assert tracing.SEMCONV_VERSION
try:
    tracing.OpenTelemetryHandler
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'langchain-rlfocal[otel]'" in done.stdout, done.stderr

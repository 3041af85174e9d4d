"""Handler: spans and metrics of answers and of their members' calls, out of LangChain's callbacks.

An answer is a span of kind INTERNAL, a child of the caller's current one; each call of a member is one of kind CLIENT below it, with
each retry, hedge, synthesizer's and judge's call as one of its own. A member's span is current while its client runs, so that what
instruments HTTP nests below it. The answer's own span is never current: LangChain ends a run elsewhere than it began, so that
nobody could take it out of the caller's context again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, finalize

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
from typing_extensions import override

from langchain_rlfocal._langchain import untangled
from langchain_rlfocal._version import __version__
from langchain_rlfocal.chat_models.messages import KEY
from langchain_rlfocal.execution import usage_of
from langchain_rlfocal.execution.calls import MemberCall, current_call, price_of
from langchain_rlfocal.redaction import as_utf8, secrets_of, shown_text
from langchain_rlfocal.tracing.conventions import (
    ENSEMBLE,
    SCHEMA_URL,
    Attributes,
    answer_attributes,
    error_attributes,
    event_attributes,
    finish_reason,
    messages_json,
    request_attributes,
    response_attributes,
    server_attributes,
    usage_attributes,
)

_SCOPE = "langchain_rlfocal"
_EVENTS = {
    "rlfocal_selection": "rlfocal.selection",
    "rlfocal_candidate": "rlfocal.candidate",
    "rlfocal_fusion": "rlfocal.fusion",
}
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_OF_METRICS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
    "error.type",
)
"""The convention's attributes of metrics, all of few values."""


@dataclass(slots=True, eq=False)
class _Open:
    """A run that has begun and not ended.

    Attributes:
        span: Its span.
        parent_run_id: The run that it is part of.
        is_ensemble: True for an answer, False for a call of a model.
        call: The member's call that it is; None for an answer, and for what a member asks on its own.
        attributes: What is known of it so far, for metrics.
        began_s: When it began.
        has_calls: True once a call below it has a span.
        first_chunk_s: Seconds until its first piece of text; None until then, and where it comes whole.
        asked: For an answer, whom the Decider chose, by round.
        forgetting: What is done where LangChain forgets the run.
    """

    span: Span
    parent_run_id: UUID | None
    is_ensemble: bool
    call: MemberCall | None
    attributes: Attributes
    began_s: float
    has_calls: bool = False
    first_chunk_s: float | None = None
    asked: dict[int, Sequence[str]] = field(default_factory=dict)
    forgetting: "finalize[..., Any] | None" = None


class OpenTelemetryHandler(BaseTracer):
    """Makes spans and metrics of the answers of `RLFocalChatModel`, by OpenTelemetry's conventions for generative AI.

    Give it where callbacks are given: `model.invoke(question, {"callbacks": [handler]})`, or `model.with_config(callbacks=[handler])`.
    One handler serves any number of models and calls at once. Of a chain's other models it makes no spans.

    Args:
        tracer_provider: Makes the spans; None for the process's own.
        meter_provider: Makes the metrics; None for the process's own.
        capture_content: Whether spans hold what is said and answered, and errors' words, secrets left out. Whoever reads traces then
            reads conversations.
    """

    run_inline = True  # in the context of who calls, where the current span is known, and not in a thread

    ignore_llm = False
    ignore_chat_model = False
    ignore_custom_event = False
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True
    ignore_retry = True

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_content: bool = False,
    ) -> None:
        super().__init__()
        self.capture_content = capture_content
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider, SCHEMA_URL)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider, SCHEMA_URL)
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="How long calls of models take.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of input and output of calls of models.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        # LangChain tells no end of a run whose task is cancelled just before its first step or after its last: only its id is gone.
        self._open: WeakKeyDictionary[UUID, _Open] = WeakKeyDictionary()
        self._forgotten: deque[tuple[_Open, int]] = deque()
        self._key = contexts.create_key("rlfocal-run")

    @property
    def num_open(self) -> int:
        """How many spans have begun and not ended."""
        return len(self._open)

    # ---- beginnings

    @override
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Begin the span of an answer, or of a call below one."""
        self._end_forgotten()
        metadata, params = metadata or {}, kwargs.get("invocation_params") or {}
        is_ensemble = params.get("_type") == ENSEMBLE
        parent = self._open.get(parent_run_id) if parent_run_id is not None else None
        within = contexts.get_value(self._key)
        # LangChain hangs what a member asks on its own under the run that the member's is under.
        is_own = isinstance(within, _Open) and (parent is None or within.parent_run_id == parent_run_id)
        if not (is_ensemble or parent is not None or is_own or "rlfocal_role" in metadata):
            return
        context = contexts.get_current()
        if parent is not None and not is_own:
            context = trace.set_span_in_context(parent.span, context)
        call = None if is_own else _call_of(metadata)
        fallback = ENSEMBLE if is_ensemble else str(metadata.get("rlfocal_member") or "unknown")
        request = request_attributes(params, metadata, fallback=fallback)
        ours: Attributes = {"rlfocal.answer_id": str(run_id)} if is_ensemble else {}
        if call is not None:
            request |= {} if is_ensemble else server_attributes(call.member.model)
            ours |= _described(call, None if parent is None else parent.asked.get(call.request.round_number))
        if self.capture_content and messages:
            ours["gen_ai.input.messages"] = messages_json(messages[0], _secrets_of(call))
        kind = SpanKind.INTERNAL if is_ensemble else SpanKind.CLIENT
        span = self._tracer.start_span(f"chat {request['gen_ai.request.model']}", context, kind, {**request, **ours})
        run = _Open(span, parent_run_id, is_ensemble, call, request, time.perf_counter())
        run.forgetting = finalize(run_id, self._forget, run)
        run.forgetting.atexit = False
        self._open[run_id] = run
        if parent is not None:
            parent.has_calls = True
        if call is not None:
            # The context is the call's own, and goes with it.
            contexts.attach(contexts.set_value(self._key, run, trace.set_span_in_context(span, context)))

    @override
    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> Any:
        """Do nothing: a model of texts is no chat model."""
        del serialized, prompts, run_id, kwargs

    # ---- what happens

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        """Note when the first piece of a response came."""
        del token, kwargs
        run = self._open.get(run_id)
        if run is not None and run.first_chunk_s is None:
            run.first_chunk_s = time.perf_counter() - run.began_s

    @override
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note what an answer tells of how it comes about."""
        del kwargs
        run = self._open.get(run_id)
        if run is None or name not in _EVENTS:
            return
        if name == "rlfocal_selection":
            run.asked[data["round"]] = data["asked"]
        run.span.add_event(_EVENTS[name], event_attributes(name, data))

    # ---- ends

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        """End a span."""
        del kwargs
        run = self._take(run_id)
        if run is not None:
            try:
                self._describe(run, _message_of(response))
            finally:
                self._end(run)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        """End the span of what failed, or was cancelled."""
        del kwargs
        run = self._take(run_id)
        if run is not None:
            try:
                self._fail(run, untangled(error))
            finally:
                self._end(run)

    def _take(self, run_id: UUID) -> _Open | None:
        self._end_forgotten()
        run = self._open.pop(run_id, None)
        if run is not None and run.forgetting is not None:
            run.forgetting.detach()
        return run

    def _forget(self, run: _Open) -> None:
        """Note a run to be ended later: garbage is collected anywhere, also where an exporter holds its lock."""
        self._forgotten.append((run, time.time_ns()))

    def _end_forgotten(self) -> None:
        while True:
            try:
                run, at_ns = self._forgotten.popleft()
            except IndexError:
                return
            run.span.set_attribute("rlfocal.cancelled", value=True)
            run.span.end(at_ns)

    def _describe(self, run: _Open, message: AIMessage | None) -> None:
        if message is None:
            return
        span, call = run.span, run.call
        known = response_attributes(message)
        run.attributes |= known
        usage = usage_of(message)
        if usage is not None and "total_cost" in usage:
            usage = None  # it came from LangChain's cache
        tokens = usage_attributes(usage)
        facts = message.response_metadata.get(KEY)
        if run.is_ensemble and isinstance(facts, Mapping) and "fusion" in facts:
            known |= answer_attributes(facts)
        if not run.has_calls:  # each token is counted once, where it was spent
            known |= tokens
            self._count(run, tokens)
        if call is not None:
            usd = None if usage is None or run.is_ensemble else price_of(call.member, usage)
            known |= {} if usd is None else {"rlfocal.usd": usd}
            known |= {"rlfocal.cancelled": True} if call.status == "over" else {}
        if self.capture_content:
            known["gen_ai.output.messages"] = messages_json(
                [message], _secrets_of(call), ending=finish_reason(message) or "stop"
            )
        span.set_attributes(known)

    def _count(self, run: _Open, tokens: Attributes) -> None:
        of = {name: run.attributes[name] for name in _OF_METRICS if name in run.attributes}
        for kind in ("input", "output"):
            if isinstance(count := tokens.get(f"gen_ai.usage.{kind}_tokens"), int):
                self._tokens.record(count, {**of, "gen_ai.token.type": kind})

    def _fail(self, run: _Open, error: BaseException) -> None:
        call, span = run.call, run.span
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            if call is None or call.clock() < call.cut_at_s:  # nobody waits for it any more, which is no error
                span.set_attribute("rlfocal.cancelled", value=True)
                return
            known: Attributes = {"error.type": "timeout"}
        else:
            known = error_attributes(error)
        run.attributes |= known
        if run.is_ensemble and isinstance(failures := getattr(error, "failures", None), Mapping):
            known["rlfocal.failures"] = [
                as_utf8(f"{name}:{str(why).partition(':')[0]}") for name, why in failures.items()
            ]
        span.set_attributes(known)
        words = shown_text(_words_of(error), _secrets_of(call)) if self.capture_content else None
        span.set_status(StatusCode.ERROR, None if words is None else as_utf8(words))

    def _end(self, run: _Open) -> None:
        if run.first_chunk_s is not None:
            run.span.set_attribute("gen_ai.request.stream", value=True)
            run.span.set_attribute("gen_ai.response.time_to_first_chunk", run.first_chunk_s)
        run.span.end()
        if not run.is_ensemble or not run.has_calls:
            of = {name: run.attributes[name] for name in _OF_METRICS if name in run.attributes}
            self._durations.record(time.perf_counter() - run.began_s, of)

    @override
    def _persist_run(self, run: Run) -> None:
        """Do nothing: a span is persisted by its exporter."""


def _call_of(metadata: Mapping[str, Any]) -> MemberCall | None:
    """Return the member's call that a run is; None for a run of anything else."""
    call = current_call()
    is_its = call is not None and metadata.get("rlfocal_member") == call.member.name
    return call if is_its and "rlfocal_attempt" in metadata else None


def _described(call: MemberCall, asked: Sequence[str] | None) -> Attributes:
    """Say who is asked, as what, and for which time; `asked` are those whom the Decider chose, None where nobody told."""
    request = call.request
    found: Attributes = {
        "rlfocal.member": as_utf8(call.member.name),
        "rlfocal.role": request.role,
        "rlfocal.round": request.round_number,
        "rlfocal.attempt": call.number,
    }
    if request.role == "member" and asked is not None:
        found["rlfocal.hedge"] = call.member.name not in asked
    return found


def _message_of(response: LLMResult) -> AIMessage | None:
    for generations in response.generations:
        for generation in generations:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                return generation.message
    return None


def _secrets_of(call: MemberCall | None) -> frozenset[str]:
    return frozenset() if call is None else secrets_of(call.member.model)


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # a member's exception is the member's code
        return ""

"""Metrics: what a server counts of its requests and answers, for Prometheus.

Labels are endpoints, members, policies, kinds of results and ids of keys, which are few and known beforehand: nothing that a client
or a member writes becomes one. With several workers counters and histograms are those of all of them, by files that they share;
the state of breakers, store and budgets is that of the worker that is asked, which is everybody's where the store is shared.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.outputs import LLMResult
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_rlfocal.chat_models.arguments import to_budget
from langchain_rlfocal.errors import RLFocalError
from langchain_rlfocal.server.callers import Caller, require

if TYPE_CHECKING:
    from langchain_rlfocal.chat_models import RLFocalChatModel
    from langchain_rlfocal.server.keys import KeyFile
    from langchain_rlfocal.server.state import ServerState

FOLDER_NAME = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder in which workers count together; prometheus_client reads it when it is imported."""

MAX_VALUES = 50
"""Of policies and of kinds of failures so many are told apart; the rest is `other`."""

MAX_KEYS = 200
"""Of so many keys with a budget it is said what is left: with a shared store, each is a question to it."""

OTHER = "other"
"""Label of what is not told apart."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_STATES = {"closed": 0, "half_open": 1, "open": 2}
_HUNG_UP = "499"  # as nginx has it: the client left before the answer


class Metrics:
    """What one serving process counts.

    Args:
        model: The ensemble.
        keys: The keys whose budgets are told of; None where there are none.

    Attributes:
        handler: LangChain's callback handler that counts answers; every answer must get it.
    """

    def __init__(self, model: "RLFocalChatModel", keys: "KeyFile | None" = None) -> None:
        self._model = model
        self._own = CollectorRegistry(auto_describe=False)
        self._state = _State(model, keys)
        self._folder = os.environ.get(FOLDER_NAME)
        self._members = frozenset({*model.pool.names, *_HELPERS})
        self._known: dict[str, set[str]] = {}
        self._dropped = 0
        self.handler = _Counting(self)
        requests, member = ("endpoint", "status"), ("member",)
        self._requests = self._counter(
            "requests", "Requests, by what became of them; 499: the client hung up.", requests
        )
        self._in_flight = Gauge(
            "rlfocal_requests_in_flight",
            "Requests that are being served.",
            ("endpoint",),
            registry=self._own,
            multiprocess_mode="livesum",
        )
        self._duration = self._histogram("request_duration_seconds", "From a request to the last byte.", ("endpoint",))
        self._first = self._histogram(
            "time_to_first_token_seconds", "From a request to the first token of a stream.", ("endpoint",)
        )
        self._answers = self._counter("answers", "Answers given, by policy and members asked.", ("policy", "team_size"))
        self._unanswered = self._counter("answers_failed", "Answers that could not be given, by error.", ("error",))
        self._calls = self._counter(
            "member_calls", "Calls of members: `answer`, or the kind of failure.", ("member", "result")
        )
        self._latency = self._histogram("member_call_duration_seconds", "Of a call of a member, failed or not.", member)
        self._tokens = self._counter("member_tokens", "Tokens of members' answers.", ("member", "direction"))
        self._dollars = self._counter("member_usd", "Dollars of members' answers, of those that have prices.", member)
        self._spent_calls = self._counter("spent_calls", "Calls that answers took: retries, judge and synthesizer too.")
        self._spent_tokens = self._counter(
            "spent_tokens", "Tokens that answers took, estimated where none are reported."
        )
        self._spent_usd = self._counter("spent_usd", "Dollars that answers took, of calls that have prices.")
        self._lost_records = self._counter("log_dropped_records", "Answers that the log could not take and has lost.")

    def _counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"rlfocal_{name}", documentation, labels, registry=self._own)

    def _histogram(self, name: str, documentation: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(f"rlfocal_{name}", documentation, labels, registry=self._own, buckets=_SECONDS)

    # ---- what is counted

    def begun(self, endpoint: str) -> None:
        """Count a request that begins; `ended` must follow."""
        self._in_flight.labels(endpoint).inc()

    def ended(self, endpoint: str, status: str, *, seconds: float) -> None:
        """Count a request that has ended."""
        self._in_flight.labels(endpoint).dec()
        self._requests.labels(endpoint, status).inc()
        self._duration.labels(endpoint).observe(seconds)

    def first_token(self, endpoint: str, *, seconds: float) -> None:
        """Count the beginning of a stream."""
        self._first.labels(endpoint).observe(seconds)

    def answered(self, facts: Mapping[str, Any]) -> None:
        """Count an answer by how it came about: `response_metadata["rlfocal"]`."""
        asked = {row["member"] for row in (*facts["candidates"], *facts["failures"])}
        self._answers.labels(self._one_of("policy", facts["policy"]), str(len(asked))).inc()
        spent = facts["spent"]
        for counter, amount in (
            (self._spent_calls, spent["calls"]),
            (self._spent_tokens, spent["tokens"]),
            (self._spent_usd, spent["usd"]),
        ):
            counter.inc(amount or 0)
        self._see_log()

    def unanswered(self, error: BaseException) -> None:
        """Count an answer that could not be given."""
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == RLFocalError.__module__]
        self._unanswered.labels(self._one_of("error", [*kinds, type(error).__name__][0])).inc()
        self._see_log()

    def heard(self, result: Mapping[str, Any]) -> None:
        """Count what came of asking a member, attempts that were repeated included."""
        member = result["member"] if result["member"] in self._members else OTHER
        for attempt in (*result["retries"], result):
            self._calls.labels(member, self._one_of("result", attempt.get("kind", "answer"))).inc()
            if attempt["latency_s"] is not None:
                self._latency.labels(member).observe(attempt["latency_s"])
        for direction, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            if result.get(name) is not None:  # unknown is not zero
                self._tokens.labels(member, direction).inc(result[name])
        if result.get("cost_usd") is not None:
            self._dollars.labels(member).inc(result["cost_usd"])

    def _see_log(self) -> None:
        """Count what the log has lost since it was looked at last."""
        log = self._model.outcome_log
        dropped = getattr(log, "dropped", 0)
        if dropped > self._dropped:
            self._lost_records.inc(dropped - self._dropped)
            self._dropped = dropped

    def _one_of(self, label: str, value: str) -> str:
        """Keep a label's values few."""
        known = self._known.setdefault(label, set())
        if value not in known and len(known) >= MAX_VALUES:
            return OTHER
        known.add(value)
        return value

    # ---- what is told

    def told(self, accept: str = "") -> tuple[bytes, str]:
        """Write everything down, in the form that a scraper accepts, with the name of that form."""
        self._see_log()
        counted: CollectorRegistry = self._own
        if self._folder is not None:
            _forget_the_dead(Path(self._folder))
            counted = CollectorRegistry(auto_describe=False)
            MultiProcessCollector(counted, self._folder)  # type: ignore[no-untyped-call]
        encode, form = choose_encoder(accept)
        return encode(_Both(counted, self._state)), form


class _Both(CollectorRegistry):
    """What was counted, and the state."""

    def __init__(self, counted: Collector, state: Collector) -> None:
        super().__init__(auto_describe=False)
        self.register(counted)
        self.register(state)


_HELPERS = ("(synthesizer)", "(equivalence)")


class _State(Collector):
    """What is so at the moment of asking."""

    def __init__(self, model: "RLFocalChatModel", keys: "KeyFile | None") -> None:
        self._model, self._keys = model, keys

    def collect(self) -> Iterator[Metric]:
        """Tell the state of breakers, store, budgets and keys."""
        yield from self._breakers()
        yield from self._store()
        yield from self._budgets()
        if self._keys is not None:
            is_usable = float(self._keys.problem is None)
            yield GaugeMetricFamily(
                "rlfocal_key_file_usable", "0: the key file is bad, keys are those of before.", value=is_usable
            )

    def _breakers(self) -> Iterator[Metric]:
        states = dict.fromkeys(self._model.pool.names, "closed")
        states |= {name: breaker.state for name, breaker in self._model.breakers.items()}
        told = GaugeMetricFamily(
            "rlfocal_breaker_state", "Circuit breakers: 0 closed, 1 probing, 2 open.", labels=["member"]
        )
        for name, state in states.items():
            told.add_metric([name], _STATES[state])
        yield told

    def _store(self) -> Iterator[Metric]:
        status = self._model.shared_state.status
        kind = GaugeMetricFamily("rlfocal_store_info", "Where limits and budgets are kept.", labels=["kind"])
        kind.add_metric([status.kind], 1)
        yield kind
        yield GaugeMetricFamily(
            "rlfocal_store_lost", "1: the store is lost, limits are this worker's share.", value=float(status.is_lost)
        )
        yield GaugeMetricFamily("rlfocal_store_lost_seconds", "For how long it has been.", value=status.lost_for_s)
        yield GaugeMetricFamily("rlfocal_workers", "Workers that share the store.", value=status.workers)

    def _budgets(self) -> Iterator[Metric]:
        shared, now = self._model.shared_state, datetime.now(UTC)
        budgets = [("model", to_budget(self._model.budget), shared.ledger)]
        held = () if self._keys is None else self._keys.keys
        for key in [key for key in held if key.budget is not None and key.refusal(now) is None][:MAX_KEYS]:
            account = Caller.of_key(key, now).account
            assert account is not None, "of a key with a budget"
            budgets.append((f"key:{key.id}", account.budget, shared.ledger_for(account.name)))
        for unit, what in (("calls", "Calls"), ("tokens", "Tokens"), ("usd", "Dollars")):
            told = GaugeMetricFamily(
                f"rlfocal_budget_left_{unit}", f"{what} that are neither spent nor reserved.", labels=["account"]
            )
            for name, budget, ledger in budgets:
                most = getattr(budget, f"max_{unit}")
                if most is not None:
                    left = most - getattr(ledger.spent, unit) - getattr(ledger.reserved, unit)
                    told.add_metric([name], max(0, left))
            yield told


def _forget_the_dead(folder: Path) -> None:
    """Take out what workers that have ended were doing; what they counted stays."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # it runs


class _Counting(AsyncCallbackHandler):
    """Counts answers and calls as LangChain tells of them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Count an answer."""
        del run_id, kwargs
        for generation in response.generations[0][:1] if parent_run_id is None else ():
            facts = getattr(getattr(generation, "message", None), "response_metadata", {}).get("rlfocal")
            if facts is not None:
                self._metrics.answered(facts)

    async def on_llm_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Count an answer that failed."""
        del run_id, kwargs
        if parent_run_id is None:
            self._metrics.unanswered(error)

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a call of a member."""
        del run_id, kwargs
        if name == "rlfocal_candidate":
            self._metrics.heard(data)


# ---- requests


class Measuring:
    """Middleware that counts requests. An endpoint is the path of a route, never one that a client makes up."""

    def __init__(self, app: ASGIApp, *, clock: Callable[[], float] = perf_counter) -> None:
        self.app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.serving.metrics
        endpoint, start_s = _endpoint_of(scope), self._clock()
        status, is_stream, has_begun, has_ended = _HUNG_UP, False, False, False

        async def watch(message: Message) -> None:
            nonlocal status, is_stream, has_begun, has_ended
            if message["type"] == "http.response.start":
                status = str(message["status"])
                is_stream = any(
                    name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                )
            elif message["type"] == "http.response.body":
                body = message.get("body", b"")
                if is_stream and not has_begun and body and not body.startswith(b":"):  # a comment is a heartbeat
                    has_begun = True
                    metrics.first_token(endpoint, seconds=self._clock() - start_s)
                has_ended = not message.get("more_body", False)
            await send(message)

        metrics.begun(endpoint)
        try:
            await self.app(scope, receive, watch)
        except Exception:
            status, has_ended = "500", True  # as the server tells the client, further out
            raise
        finally:
            metrics.ended(endpoint, status if has_ended else _HUNG_UP, seconds=self._clock() - start_s)


def _endpoint_of(scope: Scope) -> str:
    """Name the route that serves a request; `other` where none does."""
    for route in scope["app"].routes:
        match, _ = route.matches(scope)
        if match.value:
            path: str = route.path
            return path.replace(":path}", "}")
    return OTHER


async def handle(request: Request) -> Response:
    """Tell Prometheus what was counted."""
    serving: ServerState = request.app.state.serving
    require(request, "metrics")
    text, form = await asyncio.to_thread(serving.metrics.told, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": form})

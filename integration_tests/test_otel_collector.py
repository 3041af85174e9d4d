"""OpenTelemetry on loopback: spans of answers by real HTTP members, sent by OTLP through a real collector, and read at its other end.

The collector is Rotel's agent, which comes as a wheel: it receives what the process exports, batches it, and sends it on. What stands
behind it here is a small receiver of OTLP that keeps what it gets, where a user has a tracing backend.
"""

import asyncio
import gzip
import importlib.util
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedPolicy
from langchain_rlfocal.tracing import SCHEMA_URL, Telemetry, configure
from support_fault_server import Fault, FaultServer

pytestmark = pytest.mark.timeout(60)

WAYS = ["invoke", "ainvoke", "stream", "astream"]
INTERNAL, CLIENT = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CLIENT


class Backend:
    """A receiver of OTLP over HTTP that keeps spans and names of metrics."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.schemas: set[str] = set()
        self.services: set[str] = set()
        self._news = threading.Condition()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = backend.take(self.path, body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_args: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, path: str, body: bytes) -> bytes:
        with self._news:
            if path.endswith("metrics"):
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
                answer = ExportMetricsServiceResponse().SerializeToString()
            else:
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                    self.services.add(attributes["service.name"])
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
                        if scope.scope.name == "langchain_rlfocal":
                            self.schemas.add(scope.schema_url)
                answer = ExportTraceServiceResponse().SerializeToString()
            self._news.notify_all()
        return answer

    def wait_for(self, num_spans: int) -> list[Span]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.spans) >= num_spans and self.metrics, timeout=20), self.spans
            return [*self.spans]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.close()


@pytest.fixture
def collector(backend: Backend, tmp_path: Path) -> Iterator[str]:
    """Start the collector in front of the backend, and return where it listens."""
    home = importlib.util.find_spec("rotel")
    if home is None or home.origin is None:
        pytest.skip("Rotel's collector is not installed: pip install --pre rotel")
    agent, http, grpc = Path(home.origin).with_name("rotel-agent"), free_port(), free_port()
    command = [str(agent), "start", "--pid-file", str(tmp_path / "pid"), "--otlp-http-endpoint", f"127.0.0.1:{http}"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
    command += [
        "--otlp-exporter-endpoint",
        backend.url,
        "--batch-timeout",
        "50ms",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(200):
                assert process.poll() is None, (tmp_path / "log").read_text()
                with suppress(OSError), socket.create_connection(("127.0.0.1", http), timeout=1):
                    break
                time.sleep(0.05)  # a process of somebody else's: nothing tells when it listens
            else:
                pytest.fail((tmp_path / "log").read_text())
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture
def telemetry(collector: str, monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "kitchen")
    return configure()


def values_of(span: Span) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        assert kind is not None
        held = getattr(pair.value, kind)
        found[pair.key] = [one.string_value for one in held.values] if kind == "array_value" else held
    return found


@pytest.mark.parametrize("way", WAYS)
def test_spans_arrive_behind_a_collector_with_their_parents_and_those_of_http_below(
    way: str, telemetry: Telemetry, backend: Backend
) -> None:
    """Of two members one is busy at first: four spans of ours, and one of HTTP below each of three calls."""
    instrumentor = HTTPX2ClientInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.owned[0])
    try:
        script = {"small": [Fault("status", status=429, retry_after_s=0)]}
        with FaultServer(lambda *_: "Yes.", script=script) as server:
            members = {name: server.model(name) for name in ("small", "large")}
            policy = ScriptedPolicy([["small", "large"]], ("small", "large"))
            model = RLFocalChatModel(members=members, policy=policy)
            config = {"callbacks": [telemetry.handler]}
            if way == "astream":

                async def consume() -> None:
                    assert [chunk async for chunk in model.astream("Can fish swim?", config)]

                asyncio.run(consume())
            elif way == "ainvoke":
                asyncio.run(model.ainvoke("Can fish swim?", config))
            elif way == "stream":
                assert list(model.stream("Can fish swim?", config))
            else:
                model.invoke("Can fish swim?", config)
            assert len(server.received) == 3
            port = int(server.base_url.split(":")[2].split("/", maxsplit=1)[0])
    finally:
        instrumentor.uninstrument()
    telemetry.shutdown()

    spans = backend.wait_for(7)
    by_id = {span.span_id: span for span in spans}
    [answer] = [span for span in spans if not span.parent_span_id]
    assert (answer.name, answer.kind) == ("chat rlfocal", INTERNAL)
    assert values_of(answer)["rlfocal.team"] == ["small", "large"]
    assert sorted(event.name for event in answer.events) == [
        *["rlfocal.candidate"] * 2,
        "rlfocal.fusion",
        "rlfocal.selection",
    ]
    calls = [span for span in spans if span.parent_span_id == answer.span_id]
    told = [values_of(span) for span in calls]
    assert sorted((one["gen_ai.request.model"], one["rlfocal.attempt"], one.get("error.type")) for one in told) == [
        ("large", 1, None),
        ("small", 1, "langchain_openai.chat_models.base.OpenAIRateLimitError"),
        ("small", 2, None),
    ]
    assert {span.kind for span in calls} == {CLIENT}
    assert {(one["server.address"], one["server.port"]) for one in told} == {("127.0.0.1", port)}
    assert {one.get("gen_ai.usage.input_tokens") for one in told if "error.type" not in one} == {3}
    requests = [span for span in spans if span not in [answer, *calls]]
    assert [span.name for span in requests] == ["POST"] * 3
    assert sorted(span.parent_span_id for span in requests) == sorted(span.span_id for span in calls)
    assert {span.trace_id for span in spans} == {answer.trace_id}
    assert by_id.keys() == {span.span_id for span in spans}
    assert (backend.schemas, backend.services) == ({SCHEMA_URL}, {"kitchen"})
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= backend.metrics

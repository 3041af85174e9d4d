"""Configuring: where spans and metrics are sent, by OpenTelemetry's own variables of the environment.

`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
`OTEL_SDK_DISABLED` and their like are read by OpenTelemetry itself.
"""

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from threading import Thread
from time import monotonic
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from langchain_rlfocal._version import __version__
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.tracing.handler import OpenTelemetryHandler

_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_TRUE = {"1", "true", "yes", "on", "span_only", "span_and_event"}
_HTTP, _GRPC = "http/protobuf", "grpc"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A handler, and what sends what it makes.

    Attributes:
        handler: The handler.
        owned: The providers that were made for it, to be shut down with it; none where the process had its own.
    """

    handler: OpenTelemetryHandler
    owned: tuple[Any, ...] = ()

    def shutdown(self, *, within_s: float = 5.0) -> None:
        """Send what has not been sent; nothing is sent afterwards.

        Args:
            within_s: How long that may take: a collector that is down is asked again and again, which holds up no program's end.
        """
        threads = [Thread(target=provider.shutdown, daemon=True, name="rlfocal:otel") for provider in self.owned]
        for thread in threads:
            thread.start()
        ends_s = monotonic() + within_s
        for thread in threads:
            thread.join(max(ends_s - monotonic(), 0.0))


def configure(*, service_name: str = "rlfocal") -> Telemetry:
    """Make a handler whose spans and metrics go where the environment says, to `http://localhost:4318` where it says nothing.

    Where the process has providers already, such as under `opentelemetry-instrument`, those are used. Texts are captured where
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so.

    Args:
        service_name: Name of the service where `OTEL_SERVICE_NAME` gives none.

    Raises:
        InputError: A variable names an exporter, or a protocol, that is not known here.
        MissingDependencyError: The exporter is not installed.
    """
    content = os.environ.get(_CONTENT, "").strip().lower() in _TRUE
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        tracers, meters = _tracer_provider(service_name), _meter_provider(service_name)
        return Telemetry(
            OpenTelemetryHandler(
                tracer_provider=tracers, meter_provider=meters or metrics.NoOpMeterProvider(), capture_content=content
            ),
            owned=(tracers,) if meters is None else (tracers, meters),
        )
    return Telemetry(OpenTelemetryHandler(capture_content=content))


def _tracer_provider(service_name: str) -> TracerProvider:
    sdk = import_module("opentelemetry.sdk.trace")
    export = import_module("opentelemetry.sdk.trace.export")
    provider = sdk.TracerProvider(resource=_resource(service_name))
    exporter = _exporter("TRACES", "trace_exporter", "OTLPSpanExporter", export.ConsoleSpanExporter)
    if exporter is not None:
        provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return provider  # type: ignore[no-any-return]  # the SDK may be absent when types are checked


def _meter_provider(service_name: str) -> MeterProvider | None:
    sdk = import_module("opentelemetry.sdk.metrics")
    export = import_module("opentelemetry.sdk.metrics.export")
    exporter = _exporter("METRICS", "metric_exporter", "OTLPMetricExporter", export.ConsoleMetricExporter)
    if exporter is None:
        return None
    reader = export.PeriodicExportingMetricReader(exporter)
    return sdk.MeterProvider([reader], resource=_resource(service_name))  # type: ignore[no-any-return]  # as above


def _resource(service_name: str) -> Any:
    resources = import_module("opentelemetry.sdk.resources")
    given = resources.OTELResourceDetector().detect().attributes  # of the environment
    named = {} if "service.name" in given else {"service.name": service_name}
    return resources.Resource.create({"service.version": __version__, **named, **given})


def _exporter(signal: str, module: str, name: str, console: Any) -> Any:
    """Make the exporter of a signal; None where the environment wants none."""
    wanted = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    if wanted == "none":
        return None
    if wanted == "console":
        return console(out=sys.stdout)
    if wanted != "otlp":
        raise InputError(
            f"`OTEL_{signal}_EXPORTER` must be otlp, console or none, got {wanted!r}. Correct it, or leave it out."
        )
    variables = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((value for one in variables if (value := os.environ.get(one, "").strip())), _HTTP)
    if protocol not in {_HTTP, _GRPC}:
        raise InputError(f"`{variables[1]}` must be {_HTTP} or {_GRPC}, got {protocol!r}. Correct it, or leave it out.")
    package = "http" if protocol == _HTTP else "grpc"
    try:
        home = import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"Sending by {protocol} needs OpenTelemetry's exporter: `pip install opentelemetry-exporter-otlp-proto-{package}`. "
            f"Or set `{variables[1]}` to {_GRPC if protocol == _HTTP else _HTTP}."
        ) from error
    return getattr(home, name)()

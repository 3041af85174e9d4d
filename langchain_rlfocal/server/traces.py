"""Traces: the span of whoever asks, from a request's `traceparent`, becomes the parent of the answer's."""

from importlib import import_module
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class Traces:
    """Runs each request in the trace that its headers name, unless something around has begun a span for it already.

    Args:
        app: What serves the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # OpenTelemetry is optional; who wants traces has been told so.
        self._context: Any = import_module("opentelemetry.context")
        self._propagate: Any = import_module("opentelemetry.propagate")
        self._trace: Any = import_module("opentelemetry.trace")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or self._trace.get_current_span().get_span_context().is_valid:
            return await self._app(scope, receive, send)
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        token = self._context.attach(self._propagate.extract(carrier))
        try:
            return await self._app(scope, receive, send)
        finally:
            self._context.detach(token)

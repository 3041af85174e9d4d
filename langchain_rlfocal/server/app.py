"""App: the routes of a server, and what holds for all of them."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.errors import RLFocalError
from langchain_rlfocal.server import chat_completions, feedback, health, listing, metrics, responses, systemone
from langchain_rlfocal.server.admission import Admission
from langchain_rlfocal.server.callers import Callers
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.drain import draining
from langchain_rlfocal.server.errors import ApiError, to_api_error
from langchain_rlfocal.server.keys import KeyFile
from langchain_rlfocal.server.metrics import Measuring, Metrics
from langchain_rlfocal.server.state import ServerState
from langchain_rlfocal.server.traces import Traces

ROUTES = (
    Route("/v1/chat/completions", chat_completions.handle, methods=["POST"]),
    Route("/v1/responses", responses.handle, methods=["POST"]),
    Route("/v1/responses/{response_id:path}", responses.not_stored, methods=["GET", "POST", "DELETE"]),
    Route("/v1/systemone", systemone.handle, methods=["POST"]),
    Route("/v1/models", listing.models, methods=["GET"]),
    Route("/v1/models/{name:path}", listing.model, methods=["GET"]),
    Route("/v1/feedback", feedback.handle, methods=["POST"]),
    Route("/metrics", metrics.handle, methods=["GET"]),
    Route("/health", health.health, methods=["GET"]),
    Route("/ready", health.ready, methods=["GET"]),
)

_CODES = {404: "not_found", 405: "method_not_allowed"}
_WAYS_OUT = {
    404: "There is no such path. A client's base URL ends in /v1; what is there: /v1/chat/completions, /v1/responses, /v1/models.",
    405: "The path takes another method; `Allow` says which.",
}


def create_app(
    model: RLFocalChatModel,
    config: ServerConfig,
    *,
    callbacks: Sequence[Any] = (),
    on_close: Callable[[], None] = lambda: None,
) -> Starlette:
    """Make the application of one serving process.

    Args:
        model: The ensemble.
        config: What was set at the start.
        callbacks: LangChain's callback handlers that every answer gets.
        on_close: What is done when the process ends.

    Raises:
        InputError: The file of keys cannot be used.
    """
    keys = None if config.keys_file is None else KeyFile(config.keys_file)
    counted, admission = Metrics(model, keys), Admission(config.max_in_flight)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with ExitStack() as stack:
            stack.callback(on_close)
            if threading.current_thread() is threading.main_thread():  # the one that signals reach
                stack.enter_context(draining(admission, within_s=config.drain_s))
            async with admission.watching():
                yield

    cors = Middleware(
        CORSMiddleware,
        allow_origins=[*config.allow_origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    traced = [Middleware(Traces)] if config.otel else []
    app = Starlette(
        routes=[*ROUTES],
        middleware=[*([cors] if config.allow_origins else []), *traced, Middleware(Measuring), Middleware(Callers)],
        exception_handlers={
            HTTPException: _on_http_error,
            ApiError: _on_error,
            RLFocalError: _on_error,
            Exception: _on_error,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # to what a request's `Host` says, where the key would go after it
    app.state.serving = ServerState(
        model,
        config,
        admission,
        counted,
        keys,
        (counted.handler, *callbacks),
        started_s=int(time.time()),
    )
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    del request
    return to_api_error(error).response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "as registered"
    return ApiError(
        error.status_code,
        f"{request.method} {request.url.path[:200]}: {_WAYS_OUT.get(error.status_code, f'{error.detail}.')}",
        code=_CODES.get(error.status_code),
        headers=error.headers,
    ).response()

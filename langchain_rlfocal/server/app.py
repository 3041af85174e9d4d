"""App: the routes of a server, and what holds for all of them."""

import signal
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
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
from langchain_rlfocal.server import chat_completions, feedback, health, listing, metrics
from langchain_rlfocal.server.admission import Admission
from langchain_rlfocal.server.callers import Callers
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.drain import draining
from langchain_rlfocal.server.errors import ApiError, to_api_error
from langchain_rlfocal.server.keys import KeyFile
from langchain_rlfocal.server.metrics import Measuring, Metrics
from langchain_rlfocal.server.state import ServerState

ROUTES = (
    Route("/v1/chat/completions", chat_completions.handle, methods=["POST"]),
    Route("/v1/models", listing.models, methods=["GET"]),
    Route("/v1/models/{name:path}", listing.model, methods=["GET"]),
    Route("/v1/feedback", feedback.handle, methods=["POST"]),
    Route("/metrics", metrics.handle, methods=["GET"]),
    Route("/health", health.health, methods=["GET"]),
    Route("/ready", health.ready, methods=["GET"]),
)

_CODES = {404: "not_found", 405: "method_not_allowed"}


def create_app(model: RLFocalChatModel, config: ServerConfig, *, callbacks: Sequence[Any] = ()) -> Starlette:
    """Make the application of one serving process.

    Args:
        model: The ensemble.
        config: What was set at the start.
        callbacks: LangChain's callback handlers that every answer gets.

    Raises:
        InputError: The file of keys cannot be used.
    """
    keys = None if config.keys_file is None else KeyFile(config.keys_file)
    counted = Metrics(model, keys)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[*config.allow_origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    app = Starlette(
        routes=[*ROUTES],
        middleware=[*([cors] if config.allow_origins else []), Middleware(Measuring), Middleware(Callers)],
        exception_handlers={
            HTTPException: _on_http_error,
            ApiError: _on_error,
            RLFocalError: _on_error,
            Exception: _on_error,
        },
        lifespan=_lifespan,
    )
    app.state.serving = ServerState(
        model,
        config,
        Admission(config.max_in_flight),
        counted,
        keys,
        (counted.handler, *callbacks),
        started_s=int(time.time()),
    )
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    serving: ServerState = app.state.serving
    if threading.current_thread() is not threading.main_thread():  # where no signals arrive, as under a test's client
        yield
        return
    with draining(serving.admission, within_s=serving.config.drain_s, signals=(signal.SIGTERM, signal.SIGINT)):
        yield


async def _on_error(request: Request, error: Exception) -> Response:
    del request
    return to_api_error(error).response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "as registered"
    return ApiError(
        error.status_code,
        f"{request.method} {request.url.path[:200]}: {error.detail}.",
        code=_CODES.get(error.status_code),
        headers=error.headers,
    ).response()

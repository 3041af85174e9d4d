"""App: the routes of a server, and what holds for all of them."""

import logging
import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.server import chat_completions, health, listing
from langchain_rlfocal.server.admission import Admission
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.errors import ApiError, to_api_error
from langchain_rlfocal.server.state import ServerState

_log = logging.getLogger(__name__)

ROUTES = (
    Route("/v1/chat/completions", chat_completions.handle, methods=["POST"]),
    Route("/v1/models", listing.models, methods=["GET"]),
    Route("/v1/models/{name:path}", listing.model, methods=["GET"]),
    Route("/health", health.health, methods=["GET"]),
    Route("/ready", health.ready, methods=["GET"]),
)


def create_app(model: RLFocalChatModel, config: ServerConfig) -> Starlette:
    """Make the application of one serving process."""
    app = Starlette(
        routes=[*ROUTES],
        exception_handlers={HTTPException: _on_http_error, ApiError: _on_error, Exception: _on_error},
    )
    app.state.serving = ServerState(model, config, Admission(config.max_in_flight), started_s=int(time.time()))
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    told = to_api_error(error)
    if told.code == "internal_error":
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return told.response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "as registered"
    return ApiError(
        error.status_code,
        f"{request.method} {request.url.path} is not served ({error.detail}).",
        code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code),
        headers=dict(error.headers or {}),
    ).response()

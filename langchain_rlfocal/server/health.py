"""Health: whether the process lives, and whether it can answer."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.server.state import ServerState


async def health(request: Request) -> Response:
    """Say that the process lives."""
    del request
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Say whether the server takes answers; 503 with the reason where it does not."""
    serving: ServerState = request.app.state.serving
    if serving.admission.is_draining:
        return JSONResponse({"status": "draining", "reason": "the server is stopping"}, 503)
    return JSONResponse({"status": "ready", "in_flight": serving.admission.in_flight})

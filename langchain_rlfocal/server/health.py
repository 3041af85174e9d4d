"""Health: whether the process lives, and whether it takes answers.

A lost store or log does not keep it from answering: limits are then its own share, and records wait or are lost. Were it unready for
that, one fault of theirs would take every process away at once. `/ready` says so instead.
"""

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.errors import OutcomeLogError
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.server.state import ServerState

LOG_TIMEOUT_S = 2.0


async def health(request: Request) -> Response:
    """Say that the process lives: `GET /health`."""
    del request
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Say whether it takes answers, and how its store and its log are: `GET /ready`. 503 with the reason while it stops."""
    serving: ServerState = request.app.state.serving
    if serving.admission.is_draining:
        return JSONResponse({"status": "draining", "reason": "The server is stopping."}, 503)
    facts: dict[str, Any] = {"status": "ready", "in_flight": serving.admission.in_flight}
    facts["state"] = asdict(serving.model.shared_state.status)
    if isinstance(serving.model.outcome_log, OutcomeLog):
        facts["log"] = {"is_lost": await _is_lost(serving.model.outcome_log)}
    return JSONResponse(facts)


async def _is_lost(log: OutcomeLog) -> bool:
    """Tell whether a log cannot be read now."""
    try:
        async with asyncio.timeout(LOG_TIMEOUT_S):
            await log.in_thread(lambda: log.last_seq)
    except (OutcomeLogError, TimeoutError):
        return True
    return False

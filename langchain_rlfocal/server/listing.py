"""Listing: the models that can be asked, in OpenAI's form."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.server.callers import Caller, require
from langchain_rlfocal.server.names import unknown_model
from langchain_rlfocal.server.state import ServerState


def models_for(serving: ServerState, caller: Caller) -> dict[str, dict[str, Any]]:
    """List what a caller can ask, by name."""
    model = serving.model
    names = [model.model_name, *(model.pool.names if "members" in caller.scopes else ())]
    return {
        name: {"id": name, "object": "model", "created": serving.started_s, "owned_by": "rlfocal"} for name in names
    }


async def models(request: Request) -> Response:
    """List the models."""
    caller = require(request, "models")
    return JSONResponse({"object": "list", "data": [*models_for(request.app.state.serving, caller).values()]})


async def model(request: Request) -> Response:
    """Describe one model."""
    caller, serving = require(request, "models"), request.app.state.serving
    name = request.path_params["name"]
    found = models_for(serving, caller).get(name)
    if found is None:
        raise unknown_model(name, serving.model)
    return JSONResponse(found)

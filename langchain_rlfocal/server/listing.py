"""Listing: the models that can be asked, in OpenAI's form.

The ensemble; aliases of it for what its policy can keep to (`names`); and, for callers that may ask them, each member.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.server.callers import Caller, require
from langchain_rlfocal.server.names import Choice, aliases_of, choice_of, unknown_model
from langchain_rlfocal.server.state import ServerState


async def models(request: Request) -> Response:
    """List the models: `GET /v1/models`."""
    caller, serving = require(request, "models"), request.app.state.serving
    model = serving.model
    names = [model.model_name, *aliases_of(model), *(model.pool.names if _sees_members(caller) else ())]
    listed = [_describe(choice_of(name, model), serving) for name in names]
    return JSONResponse({"object": "list", "data": listed})


async def model(request: Request) -> Response:
    """Describe one model: `GET /v1/models/{name}`; also an alias that is not listed."""
    caller, serving = require(request, "models"), request.app.state.serving
    choice = choice_of(request.path_params["name"], serving.model)
    if choice.member is not None and not _sees_members(caller):
        raise unknown_model(choice.name, serving.model)
    return JSONResponse(_describe(choice, serving))


def _sees_members(caller: Caller) -> bool:
    return "members" in caller.scopes


def _describe(choice: Choice, serving: ServerState) -> dict[str, Any]:
    return {
        "id": choice.name,
        "object": "model",
        "created": serving.started_s,
        "owned_by": "rlfocal",
        "rlfocal": {"kind": choice.kind, **choice.options},
    }

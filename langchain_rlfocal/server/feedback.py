"""Feedback: `POST /v1/feedback`, what a user says of an answer, answered once it is on disk.

Who knows the id of an answer may say something of it, once, with whatever key: ids go to nobody but who asked, and hold 32 random bits
beside the time and a counter.
"""

import re
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.errors import FeedbackError, OutcomeLogError
from langchain_rlfocal.server.bodies import read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.state import ServerState

_FIELDS = ("answer_id", "score", "per_member")
_PREFIX = re.compile(r"^(chatcmpl-|resp[-_])")


async def handle(request: Request) -> Response:
    """Record what is said of an answer."""
    serving: ServerState = request.app.state.serving
    require(request, "feedback")
    body = await read_body(request)
    for name in body:
        if name not in _FIELDS:
            raise ApiError(
                400,
                f"`{name[:60]}` is no field of feedback. Known: {', '.join(_FIELDS)}.",
                param=name[:60],
                code="unknown_parameter",
            )
    for name in ("answer_id", "score"):
        if body.get(name) is None:
            raise ApiError(400, f"`{name}` must be given.", param=name, code="missing_required_parameter")
    answer_id = _id_of(body["answer_id"])
    if serving.model.outcome_log is None:
        raise ApiError(
            404,
            "This server keeps no feedback: it has no log of answers. Whoever runs it can start it with `--log`.",
            code="feedback_not_kept",
        )
    try:
        await serving.model.afeedback(answer_id, body["score"], body.get("per_member"))
    except FeedbackError as error:
        raise _told(error, answer_id) from None
    except OutcomeLogError as error:
        raise ApiError(
            503,
            "The log of answers cannot be written now, and nothing was recorded. Send the same again later.",
            type="server_error",
            code="log_unavailable",
        ) from error
    return JSONResponse({"object": "feedback", "answer_id": answer_id, "recorded": True})


def _id_of(given: object) -> str:
    """Read an answer's id: bare, or that of a completion or a response.

    Raises:
        ApiError: It is none.
    """
    try:
        return str(UUID(_PREFIX.sub("", given) if isinstance(given, str) else ""))
    except ValueError:
        raise ApiError(
            400,
            "`answer_id` must be the id of an answer: of a completion (`chatcmpl-…`) or its `rlfocal.answer_id`.",
            param="answer_id",
            code="invalid_value",
        ) from None


def _told(error: FeedbackError, answer_id: str) -> ApiError:
    """Say in HTTP's words why feedback was not taken; where the log is, clients need not know."""
    if error.reason == "unknown":
        return ApiError(
            404,
            f"No answer {answer_id} is on record here. Give the id of an answer of this server.",
            param="answer_id",
            code="answer_not_found",
        )
    if error.reason == "repeated":
        return ApiError(409, str(error), type="conflict_error", param="answer_id", code="feedback_given")
    return ApiError(422, str(error), code="invalid_feedback")

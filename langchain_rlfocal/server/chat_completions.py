"""Chat completions: `POST /v1/chat/completions`."""

import time
from typing import Any

from langchain_core.messages import AIMessage
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langchain_rlfocal.server.answering import Asked, answer
from langchain_rlfocal.server.bodies import read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.decisions import decision_field, decision_headers
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.messages import finish_reason_of, messages_of, tool_calls_of, usage_of
from langchain_rlfocal.server.names import choice_of
from langchain_rlfocal.server.options import options_of
from langchain_rlfocal.server.state import ServerState

_PARAMETERS = (
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
)


async def handle(request: Request) -> Response:
    """Answer a conversation."""
    serving: ServerState = request.app.state.serving
    caller = require(request, "answers")
    body = await read_body(request, serving.config)
    asked = asked_of(body, serving)
    if asked.choice.member is not None:
        require(request, "members")
    with serving.admission.answer():
        message = await answer(asked, serving, caller)
    return JSONResponse(completion_of(message, asked), headers=decision_headers(message))


def asked_of(body: dict[str, Any], serving: ServerState) -> Asked:
    """Read a request.

    Raises:
        ApiError: It breaks a rule.
    """
    if body.get("stream"):
        raise ApiError(400, "Streams are not served yet.", param="stream")
    return Asked(
        choice_of(body.get("model"), serving.model),
        messages_of(body.get("messages"), most=serving.config.max_messages),
        options=options_of(body),
        parameters={name: body[name] for name in _PARAMETERS if body.get(name) is not None},
        tools=body.get("tools") or (),
        binding={
            name: body[name]
            for name in ("tool_choice", "parallel_tool_calls", "response_format")
            if body.get(name) is not None
        },
    )


def completion_of(message: AIMessage, asked: Asked) -> dict[str, Any]:
    """Write an answer."""
    facts = decision_field(message)
    calls = tool_calls_of(message.tool_calls)
    said = {
        "role": "assistant",
        "content": str(message.text) or None,
        "refusal": None,
        **({"tool_calls": calls} if calls else {}),
    }
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_reason_of(message)}
    return {
        "id": f"chatcmpl-{facts['answer_id']}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.choice.name,
        "system_fingerprint": facts["policy"],
        "choices": [choice],
        "usage": usage_of(message),
        "rlfocal": facts,
    }

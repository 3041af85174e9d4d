"""Chat completions: `POST /v1/chat/completions`."""

import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.messages import AIMessage
from starlette.requests import Request
from starlette.responses import Response

from langchain_rlfocal.server.answering import Asked, answer, pieces
from langchain_rlfocal.server.bodies import JsonResponse, read_body
from langchain_rlfocal.server.callers import require
from langchain_rlfocal.server.decisions import decision_field, decision_headers, headers_of
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.events import DONE, EventStream, event
from langchain_rlfocal.server.messages import (
    binding_of,
    content_of,
    finish_reason_of,
    logprobs_of,
    messages_of,
    tool_calls_of,
    tools_of,
    usage_of,
)
from langchain_rlfocal.server.names import choice_of
from langchain_rlfocal.server.options import options_of
from langchain_rlfocal.server.state import ServerState

SESSION_HEADER = "x-rlfocal-session"

_READ = frozenset(
    {
        "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream", "stream_options",
        "n", "rlfocal", "max_completion_tokens",
    }
)  # fmt: skip
_PASSED: Mapping[str, tuple[type | tuple[type, ...], float, float]] = {
    "temperature": ((int, float), 0, 2),
    "top_p": ((int, float), 0, 1),
    "max_tokens": (int, 1, math.inf),
}
"""What every member gets, by its type and range."""

_PASSED_TO_OPENAI: Mapping[str, tuple[type | tuple[type, ...], float, float]] = {
    "seed": (int, -(2**63), 2**63 - 1),
    "frequency_penalty": ((int, float), -2, 2),
    "presence_penalty": ((int, float), -2, 2),
    "logprobs": (bool, 0, 1),
    "top_logprobs": (int, 0, 20),
    "logit_bias": (dict, 0, 0),
    "user": (str, 0, 0),
    "reasoning_effort": (str, 0, 0),
    "verbosity": (str, 0, 0),
}
"""What members get whose models speak OpenAI's API: others would refuse it."""

_IGNORED = frozenset(
    {
        "store", "metadata", "service_tier", "prediction", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options", "safety_identifier",
    }
)  # fmt: skip
"""What steers OpenAI's own service, and has no meaning here."""

_REFUSED = {
    "functions": "Give `tools`.",
    "function_call": "Give `tool_choice`.",
    "audio": "Answers are text.",
    "web_search_options": "Give a tool that searches.",
    "moderation": "Moderate with a tool or a member of your own.",
}
_DEFAULTS = {"frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "top_logprobs": 0}
"""Values that say nothing."""


async def handle(request: Request) -> Response:
    """Answer a conversation."""
    serving: ServerState = request.app.state.serving
    require(request, "answers")
    serving.admission.check_room()
    asked, stream, include_usage = asked_of(await read_body(request), request)
    if stream:
        return EventStream(
            _events(asked, serving, include_usage=include_usage),
            heartbeat_s=serving.config.heartbeat_s,
            headers=stream_headers(asked, serving),
        )
    message = await answer(asked, serving, request)
    return JsonResponse(completion_of(message, asked), headers=decision_headers(message, serving.model.pool))


def stream_headers(asked: Asked, serving: ServerState) -> dict[str, str]:
    """Return what is known of an answer before it begins."""
    policy = getattr(serving.model.policy, "policy_id", None)
    return headers_of({"answer-id": str(asked.answer_id), "policy": policy})


# ---- what is asked


def asked_of(body: dict[str, Any], request: Request) -> tuple[Asked, bool, bool]:
    """Read a request.

    Returns:
        What is asked; whether as a stream; whether that ends with the usage.

    Raises:
        ApiError: It breaks a rule, or the caller may not ask a member.
    """
    serving: ServerState = request.app.state.serving
    config, model = serving.config, serving.model
    _check_names(body)
    choice = choice_of(body.get("model"), model)
    caller = require(request, "answers" if choice.member is None else "members")
    stream = _flag(body, "stream")
    include_usage = _include_usage(body, stream=stream)
    messages = messages_of(body.get("messages"), most=config.max_messages)
    tools = tools_of(body.get("tools"), most=config.max_tools)
    asked = Asked(
        caller=caller,
        choice=choice,
        messages=messages,
        options=options_of(body.get("rlfocal"), model, session=request.headers.get(SESSION_HEADER)),
        parameters=parameters_of(body),
        tools=tools,
        binding=binding_of(body, [tool["function"]["name"] for tool in tools]),
    )
    return asked, stream, include_usage


def _check_names(body: Mapping[str, Any]) -> None:
    """Refuse fields as OpenAI does: those that it does not know, and those that are not served."""
    known = _READ | _PASSED.keys() | _PASSED_TO_OPENAI.keys() | _IGNORED | {"stop", "modalities"}
    for name, value in body.items():
        if value is None:
            continue
        if name in _REFUSED:
            raise ApiError(400, f"`{name}` is not served. {_REFUSED[name]}", code="unsupported_parameter", param=name)
        if name not in known:
            raise ApiError(
                400, f"Unrecognized request argument supplied: {name[:60]}.", code="unknown_parameter", param=name[:60]
            )
    if body.get("n") not in (None, 1):
        raise ApiError(
            400,
            "`n` must be 1: members' answers are made one. Their own are in the response's `rlfocal.candidates`; for several answers ask "
            "several times.",
            code="unsupported_value",
            param="n",
        )
    if body.get("modalities") not in (None, ["text"]):
        raise ApiError(400, 'Answers are text: it must be ["text"].', code="unsupported_value", param="modalities")


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise ApiError(400, "It must be true or false.", param=name)
    return bool(value)


def _include_usage(body: Mapping[str, Any], *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise ApiError(400, "It must be an object, and is for streams alone.", param="stream_options")
    return _flag(options, "include_usage")


def parameters_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read what goes to the members.

    Raises:
        ApiError: A value is outside its range.
    """
    parameters = {name: _number(name, body[name], rule) for name, rule in _PASSED.items() if body.get(name) is not None}
    if (most := body.get("max_completion_tokens")) is not None:  # providers but OpenAI know the other name alone
        parameters["max_tokens"] = _number("max_completion_tokens", most, _PASSED["max_tokens"])
    if (stop := body.get("stop")) is not None:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(one, str) and one for one in stops):
            raise ApiError(400, "It must be a text, or a list of at most 4.", param="stop")
        parameters |= {"stop": stops} if stops else {}
    some = {n: _number(n, body[n], rule) for n, rule in _PASSED_TO_OPENAI.items() if body.get(n) is not None}
    some = {name: value for name, value in some.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    return {**parameters, **({"openai_arguments": some} if some else {})}


def _number(name: str, value: Any, rule: tuple[type | tuple[type, ...], float, float]) -> Any:
    kind, least, most = rule
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {bool: "true or false", dict: "an object", str: "a text", int: "a whole number"}
        raise ApiError(
            400, f"It must be {words.get(kind, 'a number') if isinstance(kind, type) else 'a number'}.", param=name
        )
    if isinstance(value, int | float) and not least <= value <= most:
        above = "" if most == math.inf else f" and at most {most:g}"
        raise ApiError(400, f"It must be at least {least:g}{above}, got {value:g}.", param=name)
    return value


# ---- what is answered


def completion_of(message: AIMessage, asked: Asked) -> dict[str, Any]:
    """Write a whole answer."""
    text, refusal = content_of(message)
    calls = tool_calls_of(message)
    said = {"role": "assistant", "content": text, "refusal": refusal, **({"tool_calls": calls} if calls else {})}
    facts = decision_field(message)
    choice = {"index": 0, "message": said, "logprobs": logprobs_of(message), "finish_reason": finish_reason_of(message)}
    return {
        **_frame(asked, "chat.completion", policy=facts.get("policy")),
        "choices": [choice],
        "usage": usage_of(message),
        "rlfocal": facts,
    }


def _frame(asked: Asked, form: str, *, policy: str | None) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{asked.answer_id}",
        "object": form,
        "created": int(time.time()),
        "model": asked.choice.name,
        "system_fingerprint": policy,
    }


async def _events(asked: Asked, serving: ServerState, *, include_usage: bool) -> AsyncGenerator[bytes]:
    """Write an answer as it comes: its role, its words, then in one chunk how it ended and came about, then the usage."""
    frame = _frame(asked, "chat.completion.chunk", policy=getattr(serving.model.policy, "policy_id", None))
    no_usage = {"usage": None} if include_usage else {}

    def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": more.pop("logprobs", None), "finish_reason": finish_reason}
        return event({**frame, "choices": [choice], **no_usage, **more})

    whole: AIMessage | None = None
    is_begun = False
    async with aclosing(pieces(asked, serving)) as said:  # its place is given back, too, where writing fails
        async for piece in said:
            text = str(piece.text)
            if text:
                yield chunk({"content": text} if is_begun else {"role": "assistant", "content": text, "refusal": None})
                is_begun = True
            if piece.response_metadata:
                whole = piece
    assert whole is not None, "the last chunk says how the answer came about"
    frame["system_fingerprint"] = decision_field(whole).get("policy")
    if not is_begun:
        yield chunk({"role": "assistant", "content": None if whole.tool_calls else "", "refusal": None})
    _, refusal = content_of(whole)
    if refusal:
        yield chunk({"refusal": refusal})
    for index, call in enumerate(tool_calls_of(whole)):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, finish_reason_of(whole), logprobs=logprobs_of(whole), rlfocal=decision_field(whole))
    if include_usage:
        yield event({**frame, "choices": [], "usage": usage_of(whole)})
    yield DONE

"""Bodies: what clients send, read under limits of size, depth, number and time; and what they are sent, written."""

import json
import re
from collections.abc import Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from langchain_rlfocal.server.errors import ApiError

if TYPE_CHECKING:
    from langchain_rlfocal.server.state import ServerState

_TO_NEXT = re.compile(rb'(?:[^"\[{,]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))*+(?:([,\[{])|\Z)', re.DOTALL)
"""Of JSON all, texts whole, up to what another value stands behind, or to the end; no byte is looked at twice."""


async def read_body(request: Request) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ApiError: It is too large, of too many values, too deep, too slow, compressed, no JSON, or no object; or the server stops.
    """
    serving: ServerState = request.app.state.serving
    config = serving.config
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415, "The body must be `Content-Type: application/json`. Send it as that.", code="unsupported_media_type"
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError(
            415, "The body must not be compressed. Send it without `Content-Encoding`.", code="unsupported_encoding"
        )
    body = await _bytes_of(request, serving)
    if has_more_values(body, config.max_values):
        raise ApiError(
            400,
            f"The body must hold at most {config.max_values} values, those in lists and objects counted. Send less.",
            code="body_too_large",
        )
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body must be JSON in UTF-8: {error.msg}. Correct it.", code="invalid_json") from None
    if not isinstance(read, dict):
        raise ApiError(400, 'The body must be a JSON object, such as {"model": "rlfocal"}.', code="invalid_json")
    if is_deeper(read, config.max_depth):
        raise ApiError(
            400, f"The body must not be nested deeper than {config.max_depth}. Flatten it.", code="body_too_deep"
        )
    return read


async def _bytes_of(request: Request, serving: "ServerState") -> bytes:
    config, most = serving.config, serving.config.max_body_bytes
    too_large = ApiError(
        413,
        f"The body must be at most {most} bytes. Send less.",
        code="body_too_large",
        headers={"Connection": "close"},
    )
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise too_large
    body = bytearray()
    try:
        async with serving.admission.reading(timeout_s=config.read_timeout_s), aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise ApiError(
            408,
            f"The body must arrive within {config.read_timeout_s:g} s. Send it faster, or less.",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "The client hung up before the body's end.", code="client_disconnected") from None
    return bytes(body)


def has_more_values(body: bytes, most: int) -> bool:
    """Tell whether JSON has more values than so many: bytes are read fast, but each value takes time and memory of its own."""
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) <= most:  # those in texts counted, too
        return False
    nexts = (found for found in _TO_NEXT.finditer(body) if found.lastindex)
    return any(number >= most for number, _ in enumerate(nexts))


def json_of(value: Any) -> bytes:
    """Write JSON in UTF-8. A member may say halves of characters, which no UTF-8 has; they become question marks."""
    try:
        return orjson.dumps(value)
    except TypeError:  # also of whole numbers of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


class JsonResponse(JSONResponse):
    """A response whose body may hold what members say."""

    def render(self, content: Any) -> bytes:
        """Write it."""
        return json_of(content)


def is_deeper(value: Any, most: int) -> bool:
    """Tell whether objects and lists are nested deeper than so many."""
    layer = [value]
    for _ in range(most):
        layer = [held for one in layer for held in _held(one) if isinstance(held, dict | list)]
        if not layer:
            return False
    return True


def _held(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value

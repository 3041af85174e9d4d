"""Bodies: what clients send, read under limits of size, depth and time."""

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.errors import ApiError


async def read_body(request: Request, config: ServerConfig) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ApiError: It is too large, too deep, too slow, no JSON, or no object.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415, "The body must be `Content-Type: application/json`. Send it as that.", code="unsupported_media_type"
        )
    body = await _bytes_of(request, config)
    if _depth_of(body, config.max_depth) > config.max_depth:
        raise ApiError(
            400, f"The body must not be nested deeper than {config.max_depth}. Flatten it.", code="body_too_deep"
        )
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body must be JSON in UTF-8: {error.msg}. Correct it.", code="invalid_json") from None
    if not isinstance(read, dict):
        raise ApiError(400, 'The body must be a JSON object, such as {"model": "rlfocal"}.', code="invalid_json")
    return read


async def _bytes_of(request: Request, config: ServerConfig) -> bytes:
    most = config.max_body_bytes
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
        async with asyncio.timeout(config.read_timeout_s):
            async for part in request.stream():
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


def _depth_of(body: bytes, most: int) -> int:
    """Count how deep a JSON text is nested, as far as `most` + 1, without reading it into objects."""
    depth = deepest = 0
    in_text = False
    position, end = 0, len(body)
    while position < end and deepest <= most:
        byte = body[position]
        if in_text:
            if byte == 0x5C:  # a backslash
                position += 1
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
        position += 1
    return deepest

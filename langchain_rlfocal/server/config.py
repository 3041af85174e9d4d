"""Config: what is set when a server starts. It holds no secret, and can be written as JSON for the processes that serve."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any, Self

from langchain_rlfocal.errors import InputError

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a server may take, and how long.

    Attributes:
        keys_file: File of the API keys; None lets everybody in.
        max_in_flight: Answers that a process works on at once; more are refused with 429. None for as many as its event loop
            keeps up with, which it measures.
        timeout_s: Seconds that one answer may take; None for any time.
        read_timeout_s: Seconds that a client may take to send a body.
        heartbeat_s: Seconds of silence in a stream after which a comment is sent, so that proxies keep it open.
        drain_s: Seconds that answers under way get when the server stops.
        max_body_bytes: Size of a body.
        max_values: Values in a body, those in lists and objects counted.
        max_depth: How deep objects and lists of a body may be nested.
        max_messages: Messages of a conversation.
        max_tools: Tools of a request.
        allow_origins: Web origins whose pages may ask (CORS); none by default.
        otel: Whether answers are traced by OpenTelemetry.

    Raises:
        InputError: A number is outside its range, or an origin is none.
    """

    keys_file: str | None = None
    max_in_flight: int | None = None
    timeout_s: float | None = 600.0
    read_timeout_s: float = 30.0
    heartbeat_s: float = 10.0
    drain_s: float = 30.0
    max_body_bytes: int = 20 * MEGABYTE
    max_depth: int = 64
    max_values: int = 100_000
    max_messages: int = 2000
    max_tools: int = 128
    allow_origins: tuple[str, ...] = field(default=())
    otel: bool = False

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not 0 < value < float("inf"):
                raise InputError(f"`{name}` must be a finite number above 0, got {value!r}.")
        for origin in self.allow_origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise InputError(
                    f"An origin must be such as https://example.com, without a path, got {origin!r}. Correct it."
                )

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "allow_origins": tuple(values["allow_origins"])})

"""Callers: who asks, and what they may. Where no keys are configured everybody may everything."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from starlette.requests import Request

from langchain_rlfocal.server.errors import ApiError

if TYPE_CHECKING:
    from langchain_rlfocal.server.state import ServerState

Scope = Literal["answers", "members", "models", "feedback", "metrics"]

SCOPES: tuple[Scope, ...] = ("answers", "members", "models", "feedback", "metrics")
"""What a key can be for: answers; members by their names; the list of models; feedback; metrics."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        key_id: Name of the key; None where there are no keys.
        scopes: What the caller may.
        account: What the caller's answers are booked to besides; None for nothing.
        per_minute: How many answers a minute the caller may ask for; None for any number.
    """

    key_id: str | None
    scopes: frozenset[str]
    account: Any = None
    per_minute: float | None = None

    @classmethod
    def anonymous(cls) -> Self:
        """Anybody, where there are no keys."""
        return cls(None, frozenset(SCOPES))


class Keys(Protocol):
    """The keys of a server."""

    def caller(self, key: str) -> Caller:
        """Return whose key it is.

        Raises:
            ApiError: It is nobody's.
        """


def caller_of(request: Request) -> Caller:
    """Return who asks, by the header `Authorization: Bearer KEY`.

    Raises:
        ApiError: The server has keys, and there is none, or one that it does not know.
    """
    serving: ServerState = request.app.state.serving
    if serving.keys is None:
        return Caller.anonymous()
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(
            401,
            "An API key must be given as `Authorization: Bearer KEY`, got none. Ask who runs this server for one.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return serving.keys.caller(key.strip())


def require(request: Request, scope: Scope) -> Caller:
    """Return who asks.

    Raises:
        ApiError: The caller is not known, or may not do this.
    """
    caller = caller_of(request)
    if scope not in caller.scopes:
        raise ApiError(
            403,
            f"This API key is not for {scope}. Ask with one whose scopes include `{scope}`.",
            type="permission_error",
            code="insufficient_scope",
        )
    return caller

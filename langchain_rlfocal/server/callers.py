"""Callers: who asks, and what they may. Where no keys are configured everybody may everything.

Who asks is found out before a handler runs, and before anything of the body is read; a handler then says what its request needs.
A key is taken from `Authorization: Bearer` alone: addresses, which logs and histories keep, hold none. Where there are no keys, pages in a
browser are not everybody: a page of anywhere could have it ask a server of this machine, and by a trick with names read the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_rlfocal.execution import Account, Budget
from langchain_rlfocal.server import keys
from langchain_rlfocal.server.errors import ApiError, retry_after
from langchain_rlfocal.server.keys import SCOPES, Key

if TYPE_CHECKING:
    from langchain_rlfocal.server.state import ServerState

_FOUND = "rlfocal.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        key_id: Id of the key; None where there are no keys.
        scopes: What the caller may.
        account: What the caller's answers are booked to besides; None for nothing.
        per_minute: How many requests a minute the caller may make; None for any number.
    """

    key_id: str | None
    scopes: frozenset[str]
    account: Account | None = None
    per_minute: float | None = None

    @classmethod
    def anonymous(cls) -> Self:
        """Anybody, where there are no keys."""
        return cls(None, frozenset(SCOPES))

    @classmethod
    def of_key(cls, key: Key, now: datetime) -> Self:
        """Whose key it is, with the account of the period that a time is in."""
        account = None
        if key.budget is not None:
            limits: dict[str, Any] = {f"max_{name}": most for name, most in key.budget.limits.items()}
            account = Account(key.account_name(now), Budget(**limits), key.budget.keep_s)
        return cls(key.id, frozenset(key.scopes), account, key.per_minute)


def caller_of(request: Request) -> Caller:
    """Return who asks.

    Raises:
        ApiError: The server has keys, and there is none, one that it does not know or takes no more, or one that asks too often;
            or it has none, and a page of another site asks.
    """
    found: Caller | ApiError = request.scope[_FOUND]
    if isinstance(found, ApiError):
        raise found
    return found


def require(request: Request, scope: keys.Scope) -> Caller:
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
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
        )
    return caller


class Callers:
    """Middleware that finds out who asks, for `caller_of`. A refusal is kept too: what needs no key is not refused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with who asks."""
        if scope["type"] == "http":
            serving: ServerState = scope["app"].state.serving
            try:
                scope[_FOUND] = await _identify(scope["headers"], serving)
            except ApiError as refusal:
                scope[_FOUND] = refusal
        await self.app(scope, receive, send)


async def _identify(headers: Sequence[tuple[bytes, bytes]], serving: "ServerState") -> Caller:
    """Find out who asks, by the header `Authorization`; where there are no keys, by `Origin`, which browsers alone send.

    Raises:
        ApiError: See `caller_of`.
    """
    if serving.keys is None:
        _check_origins([value.decode("latin-1") for name, value in headers if name == b"origin"], serving)
        return Caller.anonymous()
    given = [value for name, value in headers if name == b"authorization"]
    scheme, _, secret = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        got = "none" if not given else "several" if len(given) > 1 else "something else"
        raise _unknown(
            f"An API key must be given as `Authorization: Bearer KEY`, got {got}. Ask who runs this server for one.",
            "Bearer",
        )
    key, now = await serving.keys.afind(secret), datetime.now(UTC)
    if key is None:
        raise _unknown("This API key is not known here. Check that it is whole, or ask for another.")
    if (reason := key.refusal(now)) is not None:
        raise _unknown(f"This API key ({key.id}) {reason}. Ask for another.")
    if key.per_minute is not None:
        burst = max(1, int(key.per_minute))
        wait_s = await serving.model.shared_state.atake(f"key:{key.id}", per_minute=key.per_minute, burst=burst)
        if wait_s > 0:
            raise ApiError(
                429,
                f"This API key may make {key.per_minute:g} requests a minute, and has. Ask again after the seconds in Retry-After.",
                type="requests",
                code="rate_limit_exceeded",
                headers=retry_after(wait_s),
            )
    return Caller.of_key(key, now)


def _check_origins(origins: Sequence[str], serving: "ServerState") -> None:
    allowed = serving.config.allow_origins
    for origin in origins if "*" not in allowed else ():
        if origin not in allowed:
            raise ApiError(
                403,
                f"Pages of {origin[:100]} may not ask a server without keys. Whoever runs it can name them with `--allow-origin`.",
                type="permission_error",
                code="origin_not_allowed",
            )


def _unknown(message: str, challenge: str = 'Bearer error="invalid_token"') -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": challenge})

"""Tuning: what a process that serves sets for itself, so that an answer takes less of the processor.

Connections: whenever a call begins or ends, httpx looks through all connections of a pool, and asks the system about each that is
idle. Where hundreds of calls run that is a fifth of an answer's time. Here calls go to one of several pools after the other, and
each looks through its own few.

Garbage: Python looks for cycles each time that 700 objects more were made than freed, which hundreds of answers do all the
time. What lives since the start is not looked at any more, and the rest less often.
"""

import gc
import importlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.request import getproxies

from langchain_core.language_models import BaseChatModel
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from langchain_rlfocal.pool import ModelPool, PoolMember

NUM_POOLS = 16
MAX_CONNECTIONS, MAX_IDLE = 1000, 100
"""Connections of all pools, as the client of OpenAI has them in one."""

_NAME = next(kind.__module__ for kind in DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
_httpx: Any = importlib.import_module(_NAME.partition(".")[0])  # httpx, or what the client of OpenAI uses in its place


class SpreadTransport(_httpx.AsyncBaseTransport):  # type: ignore[misc]  # its base is known when it runs
    """Sends requests over several transports, one after the other."""

    def __init__(self, transports: Sequence[Any]) -> None:
        self._transports = tuple(transports)
        self._num_sent = 0

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request."""
        self._num_sent += 1
        return await self._transports[self._num_sent % len(self._transports)].handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            await transport.aclose()


def spread(pool: ModelPool) -> ModelPool:
    """Return a pool of the same members, whose asynchronous calls are spread; what is open stays the given pool's.

    Known are models of langchain-openai, which most members of a pool file are. One that has a client or a proxy of its own is
    left as it is, and so are all where the environment names a proxy, which httpx finds for its own transports only.
    """
    if getproxies():
        return pool
    client = _http_client()
    return ModelPool([_spread(member, client) for member in pool])


def _spread(member: PoolMember, http_client: Any) -> PoolMember:
    model: Any = member.model
    client = getattr(model, "root_async_client", None)
    is_own = any(getattr(model, name, None) for name in ("http_async_client", "openai_proxy", "http_socket_options"))
    if not isinstance(client, AsyncOpenAI) or is_own:
        return member
    copied: BaseChatModel = model.model_copy()
    changed = client.with_options(http_client=http_client)
    # Past validation, which would make clients again.
    vars(copied).update(root_async_client=changed, async_client=changed.chat.completions)
    return replace(member, model=copied)


def _http_client() -> Any:
    """Make the client that all members share."""
    limits = _httpx.Limits(
        max_connections=MAX_CONNECTIONS // NUM_POOLS,
        max_keepalive_connections=MAX_IDLE // NUM_POOLS,
        keepalive_expiry=5.0,
    )
    shared = {"verify": _httpx.create_ssl_context(), "limits": limits, "socket_options": _socket_options()}
    return DefaultAsyncHttpxClient(
        transport=SpreadTransport([_httpx.AsyncHTTPTransport(**shared) for _ in range(NUM_POOLS)])
    )


def _socket_options() -> list[tuple[int, int, int]]:
    """Return what tells of a peer that has gone without a word, as langchain-openai sets it."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if sys.platform == "linux":
        seconds = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
        options += [(socket.IPPROTO_TCP, name, value) for name, value in seconds.items()]
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000))
    return options


def collect_less() -> None:
    """Have Python look for garbage less often; what is there now is taken to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)

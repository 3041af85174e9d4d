"""A server without a socket: an application that is asked in this process, and how its errors are read."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx

from langchain_rlfocal.server.app import create_app
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.keys import changing_keys, make_key

CHAT = "/v1/chat/completions"


def chat(text="What is 6 times 7?", **fields):
    """The body of a request for an answer."""
    return {"model": "rlfocal", "messages": [{"role": "user", "content": text}], **fields}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def add_key(file, name="website", **facts):
    """A key in a file; what is known of it, and the key itself."""
    with changing_keys(file) as keys:
        key, secret = make_key(name, now=datetime.now(UTC), **facts)
        keys.append(key)
    return key, secret


@asynccontextmanager
async def client_of(model, *, key=None, raises=True, callbacks=(), **config):
    """A client of a server of this model."""
    app = create_app(model, ServerConfig(**config), callbacks=callbacks)
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    headers = {} if key is None else bearer(key)
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
        client.app = app
        yield client


def error_of(response, status):
    """What OpenAI's clients read of an error, all of whose parts must be there."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert set(response.json()) == {"error"}
    return error

"""An ASGI app on loopback, in a thread of this process, so that tests can look into what it served and give it doubles."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STARTING_S = 10.0


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app, and give its base URL; it has stopped at the end."""
    import uvicorn  # noqa: PLC0415  # optional

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), name="rlfocal-http-app", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_STARTING_S)
        listener.close()
        assert not thread.is_alive(), "the app holds up its server"

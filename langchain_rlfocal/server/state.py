"""State: what the handlers of one serving process share."""

from dataclasses import dataclass
from typing import Any

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.server.admission import Admission
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.keys import KeyFile
from langchain_rlfocal.server.metrics import Metrics


@dataclass(slots=True)
class ServerState:
    """What handlers share, at `request.app.state.serving`.

    Attributes:
        model: The ensemble.
        config: What was set at the start.
        admission: The answers in flight.
        metrics: Counts what is served.
        keys: The API keys; None where there are none.
        callbacks: LangChain's callback handlers that every answer gets.
        started_s: When it started, as Unix time.
    """

    model: RLFocalChatModel
    config: ServerConfig
    admission: Admission
    metrics: Metrics
    keys: KeyFile | None = None
    callbacks: tuple[Any, ...] = ()
    started_s: int = 0

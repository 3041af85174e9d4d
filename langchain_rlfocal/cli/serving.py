"""Command `serve`: an ensemble behind OpenAI's HTTP interface.

Each process that serves makes its own model of the same settings, which it reads from its environment: nothing of them stands on a
command line that others could list.
"""

import dataclasses
import ipaddress
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer

from langchain_rlfocal.cli.options import (
    CostWeight,
    EmbedderName,
    Json,
    MaxRounds,
    MaxTeam,
    limits_of,
    load_policy,
    open_pool,
    show_result,
)
from langchain_rlfocal.cli.views import messages
from langchain_rlfocal.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from langchain_rlfocal.chat_models import RLFocalChatModel

SETTINGS_NAME = "RLFOCAL_SERVE_SETTINGS"
"""Environment variable that holds a serving process's settings as JSON."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What each serving process is made of.

    Attributes:
        pool: Where the members come from; see `open_pool`.
        policy: Folder of the policy; None answers without training.
        embedder: The policy's embedder.
        fields: Fields of the model.
        server: What `ServerConfig` takes.
    """

    pool: str | None
    policy: str | None
    embedder: str | None
    fields: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write them down."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    def open(self, stack: ExitStack) -> "RLFocalChatModel":
        """Make the model."""
        from langchain_rlfocal.chat_models import RLFocalChatModel

        given = dict(self.fields)
        if self.policy is not None:
            policy = load_policy(Path(self.policy), self.embedder)
            asked = {name: given.get(name) for name in ("max_team", "max_rounds", "cost_weight")}
            given |= limits_of(policy, asked, target=None)
            given["policy"] = policy
        pool = stack.enter_context(open_pool(self.pool, []))
        return RLFocalChatModel(members=pool, **given)


def worker_app() -> "Starlette":
    """Make the application of one serving process, of the settings in its environment."""
    from langchain_rlfocal.server.app import create_app
    from langchain_rlfocal.server.config import ServerConfig

    settings = Settings.from_json(os.environ[SETTINGS_NAME])
    stack = ExitStack()  # members that run here do so until the process ends
    return create_app(settings.open(stack), ServerConfig(**settings.server))


def serve(
    *,
    pool: Annotated[
        str | None, typer.Option(help="A pool file (.yaml, .toml); `local`; or package.module:function.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Folder of a trained policy; without one a vote decides.")] = None,
    embedder: EmbedderName = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but this machine's own needs --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve.")] = 1,
    state: Annotated[
        str | None, typer.Option(help="Where processes share limits and budgets: redis://host:port/number.")
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="Record answers and feedback: a file, or postgresql://user@host/database.")
    ] = None,
    learning: Annotated[Literal["off", "shadow", "on"], typer.Option(help="What to do with feedback.")] = "off",
    keys: Annotated[Path | None, typer.Option(help="File of API keys, which `rlfocal keys` makes.")] = None,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Answers that a process works on at once.")] = 64,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Seconds that one answer may take.")] = 600.0,
    drain_s: Annotated[float, typer.Option(min=0.001, help="Seconds that answers under way get at a stop.")] = 30.0,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    cost_weight: CostWeight = None,
    as_json: Json = False,
) -> None:
    """Serve an ensemble to every program that speaks OpenAI's API.

    Example: rlfocal serve --pool pool.yaml --policy policy
    """
    try:
        import starlette  # noqa: F401  # its absence is told below
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError(
            "Serving needs Starlette and uvicorn, which are not installed. Run: pip install 'langchain-rlfocal[serve]'"
        ) from error
    if keys is None and not _is_own(host):
        raise InputError(
            f"`--host {host}` lets other machines ask, which needs keys. Make some with `rlfocal keys add` and give `--keys FILE`, or "
            "listen at 127.0.0.1 behind a proxy that knows who asks."
        )
    fields: dict[str, Any] = {
        "max_team": max_team,
        "max_rounds": max_rounds,
        "cost_weight": cost_weight,
        "outcome_log": log,
        "shared_state": state,
        "learning": None if learning == "off" else learning,
    }
    settings = Settings(
        pool=pool,
        policy=None if policy is None else str(policy),
        embedder=embedder,
        fields={name: value for name, value in fields.items() if value is not None},
        server={
            "keys_file": None if keys is None else str(keys),
            "max_in_flight": max_in_flight,
            "timeout_s": timeout_s,
            "drain_s": drain_s,
        },
    )
    with ExitStack() as stack:  # what is wrong is told here, once, and not by each process
        model = settings.open(stack)
        names = model.pool.names
        facts = {"url": f"http://{host}:{port}/v1", "members": [*names], "workers": workers}
    if as_json:
        show_result(facts, iter(()), as_json=True)
    else:
        messages().print(f"Serving {', '.join(names)} at {facts['url']}", markup=False)
    os.environ[SETTINGS_NAME] = settings.to_json()
    uvicorn.run(
        "langchain_rlfocal.cli.serving:worker_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        log_level="warning",
    )


def _is_own(host: str) -> bool:
    """Tell whether an address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

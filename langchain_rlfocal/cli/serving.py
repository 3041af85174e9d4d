"""Command `serve`: an ensemble behind OpenAI's HTTP interface.

What is wrong with pool, policy or settings is told before anything listens. Each process that serves makes its own model of the same
settings, which it reads from its environment: nothing of them stands on a command line that others could list.
"""

import dataclasses
import ipaddress
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import typer

from langchain_rlfocal.cli.logs import log_name
from langchain_rlfocal.cli.options import (
    BAD_INPUT,
    CostWeight,
    EmbedderName,
    Json,
    MaxRounds,
    MaxTeam,
    PolicyFolder,
    PoolMembers,
    TargetCalls,
    TargetSeconds,
    TargetTokens,
    TargetUsd,
    TargetUsdShare,
    WhichPool,
    limits_of,
    load_policy,
    one_target,
    open_pool,
    show_result,
)
from langchain_rlfocal.cli.views import counted, messages
from langchain_rlfocal.errors import InputError, MissingDependencyError, RLFocalError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from langchain_rlfocal.chat_models import RLFocalChatModel
    from langchain_rlfocal.server import ServerConfig

SETTINGS_NAME = "RLFOCAL_SERVE_SETTINGS"
"""Environment variable that holds a serving process's settings as JSON."""

_COUNTS_NAME = "PROMETHEUS_MULTIPROC_DIR"
_MAX_HEADER_BYTES = 64 * 1024
_KEEP_ALIVE_S = 30
_CLOSING_S = 5
_HUNG_S = 60
"""After so many seconds without a sign of life a process is replaced: it gives none while it starts, which takes long on a busy machine."""

_TARGETS = ("target_calls", "target_usd", "target_usd_share", "target_tokens", "target_seconds")
_PANELS = ("Who asks", "What is kept", "Limits")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What each serving process is made of.

    Attributes:
        pool: Where the members come from; see `open_pool`.
        members: Members as NAME=provider:model, instead of a pool.
        policy: Folder of the policy; None answers without training.
        embedder: The policy's embedder.
        fields: Fields of the model.
        server: What `ServerConfig` takes.
    """

    pool: str | None
    members: list[str]
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

    @property
    def config(self) -> "ServerConfig":
        """The server's own."""
        from langchain_rlfocal.server import ServerConfig

        return ServerConfig(**{**self.server, "allow_origins": tuple(self.server["allow_origins"])})

    def open(self, stack: ExitStack) -> "RLFocalChatModel":
        """Make the model; what it holds open is closed with the stack."""
        from langchain_rlfocal.chat_models import RLFocalChatModel
        from langchain_rlfocal.server.tuning import spread

        given = dict(self.fields)
        if self.policy is not None:
            policy = load_policy(Path(self.policy), self.embedder)
            target = one_target(given.get("cost_weight"), **{name: given.get(name) for name in _TARGETS})
            asked = {name: given.get(name) for name in ("max_team", "max_rounds", "cost_weight")}
            given |= limits_of(policy, asked, target=target)
            given["policy"] = policy
        pool = spread(stack.enter_context(open_pool(self.pool, self.members)))
        model = RLFocalChatModel(members=pool, **given)
        stack.callback(model.shared_state.close)
        if (log := model.outcome_log) is not None:
            stack.callback(log.close)  # type: ignore[union-attr]  # a path becomes a log on validation
        return model

    def app(self, model: "RLFocalChatModel", stack: ExitStack) -> "Starlette":
        """Make the application, which closes the stack when it ends."""
        from langchain_rlfocal.server.app import create_app
        from langchain_rlfocal.server.tuning import collect_less

        collect_less()
        callbacks = []
        if self.config.otel:
            from langchain_rlfocal.tracing import configure

            telemetry = configure()
            stack.callback(telemetry.shutdown)
            callbacks.append(telemetry.handler)
        return create_app(model, self.config, callbacks=callbacks, on_close=stack.close)


def worker_app() -> "Starlette":
    """Make the application of one of several serving processes, of the settings in its environment.

    What has become wrong since the first was made is said in a line. A signal ends it at once, as long as nothing is under way.
    """
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    if any(getattr(getattr(handler, "__self__", None), "should_exit", False) for handler in before.values()):
        sys.exit()  # uvicorn's server has heard one already
    settings, stack = Settings.from_json(os.environ[SETTINGS_NAME]), ExitStack()
    try:
        return settings.app(settings.open(stack), stack)
    except (RLFocalError, OSError) as error:
        messages().print(
            printable(f"A serving process cannot start: {error}"), style="red", markup=False, soft_wrap=True
        )
        sys.exit(BAD_INPUT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(
    *,
    pool: WhichPool = None,
    member: PoolMembers = None,
    policy: PolicyFolder = None,
    embedder: EmbedderName = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    cost_weight: CostWeight = None,
    target_calls: TargetCalls = None,
    target_usd: TargetUsd = None,
    target_usd_share: TargetUsdShare = None,
    target_tokens: TargetTokens = None,
    target_seconds: TargetSeconds = None,
    sticky: Annotated[
        Literal["off", "tools", "session"],
        typer.Option(
            help="Who goes on with a conversation: whom the policy picks; in a tool loop who began it; always the same."
        ),
    ] = "off",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which it answers with what has arrived.")
    ] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Dollars that all answers together may spend.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Calls of members that they may spend.")] = None,
    max_usd_per_answer: Annotated[float | None, typer.Option(min=0, help="Dollars that one answer may spend.")] = None,
    max_calls_per_answer: Annotated[int | None, typer.Option(min=0, help="Calls that one answer may spend.")] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; any but this machine's own needs --keys.", rich_help_panel=_PANELS[0]),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.", rich_help_panel=_PANELS[0])
    ] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="File of API keys, which `rlfocal keys` makes; without one everybody may ask.",
            rich_help_panel=_PANELS[0],
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A web origin whose pages may ask (CORS), once for each; default: none.", rich_help_panel=_PANELS[0]
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="Record answers and feedback: a file, or postgresql://user@host/database.", rich_help_panel=_PANELS[1]
        ),
    ] = None,
    learning: Annotated[
        Literal["off", "shadow", "on"],
        typer.Option(help="What to do with feedback; all but off need --log.", rich_help_panel=_PANELS[1]),
    ] = "off",
    explore: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the answers that ask a team at random.", rich_help_panel=_PANELS[1]),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Where processes share limits, budgets and rates: redis://host:port/number.",
            rich_help_panel=_PANELS[1],
        ),
    ] = None,
    otel: Annotated[
        bool,
        typer.Option(
            "--otel",
            help="Trace answers by OpenTelemetry, as its environment variables say.",
            rich_help_panel=_PANELS[1],
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that serve; one that dies is replaced.", rich_help_panel=_PANELS[2])
    ] = 1,
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Answers that a process works on at once; more are refused with 429. Default: as many as it keeps up with.",
            rich_help_panel=_PANELS[2],
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds that one answer may take.", rich_help_panel=_PANELS[2])
    ] = 600.0,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="Megabytes of a request's body.", rich_help_panel=_PANELS[2])
    ] = 20.0,
    heartbeat_s: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="Seconds of silence in a stream after which it says that it lives.",
            rich_help_panel=_PANELS[2],
        ),
    ] = 10.0,
    drain_s: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds that answers under way get at a stop.", rich_help_panel=_PANELS[2]),
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Serve an ensemble to every program that speaks OpenAI's API.

    It says where, and goes on until it is stopped. The first SIGTERM or Ctrl-C lets the answers under way end.
    With --json what it says is one object on stdout.

    Examples:
    rlfocal serve
    rlfocal serve --pool pool.yaml --policy policy --log outcomes.db
    rlfocal serve --pool pool.yaml --policy policy --host 0.0.0.0 --keys keys.toml --workers 4 --state redis://127.0.0.1:6379/0
    """
    _check_installed()
    if keys is None and not _is_own(host):
        raise InputError(
            f"`--host {host}` lets other machines ask, which needs keys. Make one (`rlfocal keys add keys.toml --name NAME`) and give "
            "`--keys keys.toml`, or listen at 127.0.0.1."
        )
    if learning != "off" and log is None:
        raise InputError(f"`--learning {learning}` learns from a log, and there is none. Give `--log outcomes.db`.")
    if policy is None and pool is None and not member:
        from langchain_rlfocal.demo import POLICY_PATH

        policy = POLICY_PATH
    fields: dict[str, Any] = {
        "max_team": max_team,
        "max_rounds": max_rounds,
        "cost_weight": cost_weight,
        "target_calls": target_calls,
        "target_usd": target_usd,
        "target_usd_share": target_usd_share,
        "target_tokens": target_tokens,
        "target_seconds": target_seconds,
        "deadline_s": deadline,
        "budget": _budget(max_usd=max_usd, max_calls=max_calls),
        "budget_per_answer": _budget(max_usd=max_usd_per_answer, max_calls=max_calls_per_answer),
        "outcome_log": log,
        "shared_state": _shared_by(state, workers),
        "explore": explore,
        "learning": learning,
        "sticky": sticky,
    }
    settings = Settings(
        pool=pool,
        members=member or [],
        policy=None if policy is None else str(policy),
        embedder=embedder,
        fields={name: value for name, value in fields.items() if value is not None},
        server={
            "keys_file": None if keys is None else str(keys),
            "max_in_flight": max_in_flight,
            "timeout_s": timeout_s,
            "max_body_bytes": int(max_body_mb * 1e6),
            "heartbeat_s": heartbeat_s,
            "drain_s": drain_s,
            "allow_origins": allow_origin or [],
            "otel": otel,
        },
    )
    stack = ExitStack()
    if workers > 1 and _COUNTS_NAME not in os.environ:
        os.environ[_COUNTS_NAME] = stack.enter_context(TemporaryDirectory(prefix="rlfocal-metrics-"))
    with stack, ExitStack() as held:
        model = settings.open(held)
        app = settings.app(model, held)  # what is wrong is told here, once, and not by each process
        listener = stack.enter_context(_listen(host, port))
        facts = _facts_of(model, settings, workers=workers, port=listener.getsockname()[1], host=host)
        facts |= {"log": None if log is None else log_name(log), "state": _without_password(state)}
        show_result(facts, iter(()), as_json=True) if as_json else _show(facts)
        if workers == 1:
            _serve(app, listener)
            return
        held.close()
        os.environ[SETTINGS_NAME] = settings.to_json()
        _serve_by_several(listener, workers)


def _check_installed() -> None:
    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"Serving needs {' and '.join(missing)}, not installed. Run: pip install 'langchain-rlfocal[serve]'"
        )


def _is_own(host: str) -> bool:
    """Tell whether an address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _budget(**limits: float | None) -> dict[str, float] | None:
    return {name: value for name, value in limits.items() if value is not None} or None


def _listen(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        InputError: Another program has it, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"`--host {host} --port {port}` cannot be listened at: {error.strerror or error}. Give another, or `--port 0` for a free "
            "port."
        ) from error


def _config_of(app: Any, **more: Any) -> Any:
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",  # the one whose headers have a limit
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSING_S,
        timeout_worker_healthcheck=_HUNG_S,
        log_level="warning",
        access_log=False,
        server_header=False,
        **more,
    )


def _serve(app: "Starlette", listener: socket.socket) -> None:
    import uvicorn

    # uvicorn raises a signal again once it has ended; by then it has done its work.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(_config_of(app)).run(sockets=[listener])


def _serve_by_several(listener: socket.socket, workers: int) -> None:
    """Serve by several processes, and replace those that die."""
    from langchain_rlfocal.server.processes import Processes

    listener.set_inheritable(True)  # positional in Python
    config = _config_of("langchain_rlfocal.cli.serving:worker_app", factory=True, workers=workers)
    processes = Processes(config, sockets=[listener])
    processes.run()
    if processes.has_failed:
        raise typer.Exit(1)


# ---- what is said at the start


def _shared_by(state: str | None, workers: int) -> str | None:
    """Say in the URL of a store how many share it at least: one that begins while the store is lost has its part then, and no more."""
    if state is None or workers == 1 or "workers=" in state:
        return state
    return f"{state}{'&' if '?' in state else '?'}workers={workers}"


def _without_password(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{':***' if colon else ''}{at}{place}"))


def _facts_of(model: "RLFocalChatModel", settings: Settings, *, workers: int, host: str, port: int) -> dict[str, Any]:
    name = f"[{host}]" if ":" in host else host
    policy = model.policy
    return {
        "url": f"http://{name}:{port}/v1",
        "model": model.model_name,
        "members": [*model.pool.names],
        "policy": getattr(policy, "policy_id", None),
        "trained": policy is not None,
        "max_team": min(model.max_team, len(model.pool.names)),
        "max_rounds": model.max_rounds,
        "workers": workers,
        "keys": settings.server["keys_file"],
        "max_in_flight": settings.server["max_in_flight"],
        "timeout_s": settings.server["timeout_s"],
        "pid": os.getpid(),
    }


def _show(facts: Mapping[str, Any]) -> None:
    console = messages()
    for line in _lines_of(facts):
        console.print(printable(line), markup=False, soft_wrap=True)


def _lines_of(facts: Mapping[str, Any]) -> Iterator[str]:
    several = f", by {facts['workers']} processes" if facts["workers"] > 1 else ""
    yield f"Serving {facts['model']} at {facts['url']}{several}"
    of_each = " in each process" if several else ""
    most = facts["max_in_flight"]
    at_once = "as many answers as it keeps up with" if most is None else f"{counted(most, 'answer')} at once{of_each}"
    rows = {
        "members": ", ".join(facts["members"]),
        "policy": facts["policy"] if facts["trained"] else "none: a vote decides",
        "a query": f"up to {counted(facts['max_team'], 'member')} in {counted(facts['max_rounds'], 'round')}",
        "limits": f"{at_once}, {facts['timeout_s']:g} s each",
        "keys": facts["keys"] or "none: every program on this machine may ask",
        "log": facts["log"] or "none: answers are not recorded, and feedback is not taken",
        "state": facts["state"] or ("each process its own" if several else "in memory"),
    }
    for label, text in rows.items():
        yield f"  {label:<9}{text}"
    yield "Try it:"
    body = {"model": facts["model"], "messages": [{"role": "user", "content": "What is 6 + 3?"}]}
    key = ["-H", "Authorization: Bearer $RLFOCAL_KEY"] if facts["keys"] else []
    parts = [f"{facts['url']}/chat/completions", "-H", "Content-Type: application/json", *key, "-d", json.dumps(body)]
    quoted = (f'"{part}"' if "$" in part else shlex.quote(part) for part in parts)
    yield f"  curl {' '.join(quoted)}"

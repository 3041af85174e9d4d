"""Options that several commands share, what they name, and how a command ends.

Each thing is imported when it is opened, so that `rlfocal --help` is quick. A checkpoint may come from an untrusted source:
what its card holds is checked before it is used.
"""

import math
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast, get_args

import typer

from langchain_rlfocal.cli.views import json_text, messages, output
from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.answers import KindLike
    from langchain_rlfocal.engines import Engine
    from langchain_rlfocal.features import Embedder
    from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid, OutcomeTable
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.targets import Target
    from langchain_rlfocal.pool import ModelPool

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes of what does not succeed: a member never answered, bad input, an interruption."""

# Options that several commands share.
Outcomes = Annotated[list[Path], typer.Argument(help="Tables of outcomes: .parquet, .jsonl or .csv.")]
WhichPool = Annotated[
    str | None,
    typer.Option(
        help="A pool file (.yaml, .toml); `local`, the embedded pool; or package.module:function. Default: local, with "
        "the policy that ships."
    ),
]
PoolMembers = Annotated[
    list[str] | None, typer.Option(help="A member as NAME=provider:model, once for each, instead of a pool.")
]
PolicyFolder = Annotated[Path | None, typer.Option(help="Folder of a trained policy; without one a vote decides.")]
Member = Annotated[list[str] | None, typer.Option(help="A member of the pool, once for each; default: all.")]
Task = Annotated[
    list[str] | None, typer.Option(help='A task to take, once for each; default: all. Wildcards as in "mmlu_pro/*".')
]
Missing = Annotated[
    Literal["mask", "drop", "fail"],
    typer.Option(
        help="A query that not every member was asked: kept with a hole, left out, or counted as a failure of who was not."
    ),
]
EmbedderName = Annotated[
    str | None, typer.Option(help="Describe queries by embeddings too: wordllama, or package.module:function.")
]
KindName = Annotated[
    str | None, typer.Option(help="What counts as the same answer: a kind's name, or package.module:attribute.")
]
MaxTeam = Annotated[int | None, typer.Option(min=1, help="Members that may be asked for one query.")]
MaxRounds = Annotated[int | None, typer.Option(min=1, help="Rounds in which they may be asked.")]
CostWeight = Annotated[float | None, typer.Option(min=0, help="What asking the whole pool is worth, in score.")]
TargetCalls = Annotated[float | None, typer.Option(help="Ask so many members a query on average.")]
TargetUsd = Annotated[float | None, typer.Option(help="Take so many dollars a query on average.")]
TargetUsdShare = Annotated[
    float | None, typer.Option(help="The same as a share of what the best single member would take.")
]
TargetTokens = Annotated[
    float | None, typer.Option(help="Take so many tokens a query on average, of prompts and responses.")
]
TargetSeconds = Annotated[float | None, typer.Option(help="Take so many seconds a query on average.")]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Where the work is done: on this machine, or on a Ray cluster (extra `ray`)."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="How many processes share the work. Default: local 1, ray one for each CPU of the cluster."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="The Ray cluster, such as auto. Default: RAY_ADDRESS, else one that is started on this machine."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


# ---- what the options name


@contextmanager
def open_pool(pool: str | None, members: list[str]) -> Iterator["ModelPool"]:
    """Open the pool that `--pool` or `--member` names, for as long as the command runs; the embedded one by default.

    A pool is a pool file, `local` for the embedded one, or `package.module:function`.
    """
    from langchain_rlfocal.pool import ModelPool
    from langchain_rlfocal.pool_files import SUFFIXES, read_pool

    if pool and members:
        raise InputError("`--pool` and `--member` exclude each other, got both. Give one of them.")
    if members:
        named: dict[str, str] = {}
        for text in members:
            name, equals, model = text.partition("=")
            if not (name and equals and model):
                raise InputError(
                    f"`--member` must be NAME=provider:model, got {text!r}. Example: small=openai:gpt-5-nano"
                )
            if name in named:
                raise PoolError(f"A member's name must be unique in its pool, got `{name}` twice. Rename one.")
            named[name] = model
        yield ModelPool.from_models(named)
    elif pool is None or pool == "local":
        from langchain_rlfocal.demo import embedded_pool

        with embedded_pool() as embedded:
            yield ModelPool.from_models(embedded.members)
    elif pool.lower().endswith(SUFFIXES) or Path(pool).exists():
        see_working_folder()  # for classes of the user's own that the file names
        with read_pool(pool) as read:
            yield read
    else:
        made = import_named("--pool", pool)()
        if not isinstance(made, ModelPool | Mapping):
            raise InputError(
                f"`--pool {pool}` must return a ModelPool or a mapping of names to chat models, got "
                f"{type(made).__name__}."
            )
        yield made if isinstance(made, ModelPool) else ModelPool.from_models(made)


@contextmanager
def open_engine(name: str, workers: int | None, address: str | None) -> Iterator["Engine"]:
    """Open the engine that `--engine` names, for as long as the command runs."""
    from langchain_rlfocal.engines import LocalEngine, RayEngine

    if name == "local":
        if address is not None:
            raise InputError(
                f"`--address` is of a Ray cluster, got {address!r:.80}. Give `--engine ray` too, or leave it out."
            )
        yield LocalEngine(workers or 1)
        return
    with redirect_stdout(sys.stderr), RayEngine(address, workers=workers) as engine:  # Ray's words are no result
        yield engine


def open_kind(name: str) -> "KindLike":
    """Return the kind of that name, or the one that `package.module:attribute` leads to."""
    from langchain_rlfocal.answers import to_kind

    return to_kind(import_named("--kind", name) if ":" in name else name)


def open_embedder(name: str | None) -> "Embedder | None":
    """Load an embedder by its name; None where none is named."""
    from langchain_rlfocal.features import load_embedder

    if name is not None and ":" in name:
        see_working_folder()
    return None if name is None else load_embedder(name)


def import_named(option: str, spec: str) -> Any:
    """Import `package.module:attribute`."""
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"`{option}` must be a name that `--help` lists or package.module:function, got {spec!r}.")
    see_working_folder()
    try:
        return pkgutil.resolve_name(spec)
    except Exception as error:  # a module of the user's may raise anything
        raise InputError(f"`{option} {spec}` must name a function that can be imported: {error}.") from error


def see_working_folder() -> None:
    """Let a user's own module be imported: a console script does not see the folder that it is started in."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def read_grid(
    outcomes: Sequence[Path],
    members: Sequence[str] | None,
    *,
    task: Sequence[str] | None = None,
    missing: Literal["mask", "drop", "fail"] = "drop",
    test_ids: str | None = None,
    kind: str | None = None,
) -> "OutcomeGrid":
    """Read tables and lay out the rows that count; without named members, those of everyone."""
    table = read_table(outcomes, kind=kind)
    return table.grid(members or table.members, task=task or None, missing=missing, test_ids=test_ids)


def read_table(outcomes: Sequence[Path], *, kind: str | None = None) -> "OutcomeTable":
    """Read tables as one, with new labels for its answers where a kind is named."""
    from langchain_rlfocal.outcomes import OutcomeTable

    table = OutcomeTable.read(*outcomes)
    return table if kind is None else table.relabelled(open_kind(kind))


def one_target(cost_weight: float | None, **targets: float | None) -> "Target | None":
    """Take the target that was given, None where none was.

    Raises:
        InputError: There are two, or one and a cost weight.
    """
    from langchain_rlfocal.policies.targets import target_of

    target = target_of(targets)
    if cost_weight is not None and target is not None:
        option = f"--{target.name.replace('_', '-')}"
        raise InputError(f"`--cost-weight` and `{option}` exclude each other, got both. Give one of them.")
    return target


# ---- a checkpoint may come from an untrusted source: what its card holds is checked before it is used


def load_policy(checkpoint: Path, embedder: str | None) -> "RLFocalPolicy":
    """Load a policy with the embedder that it was trained with; no module is imported because a checkpoint names it."""
    from langchain_rlfocal.features import WORDLLAMA
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.policies.checkpoint import read_checkpoint

    parts = read_checkpoint(checkpoint)
    trained_with = parts.card.get("embedder")
    if trained_with is not None:
        shown = f"{trained_with!r:.80}"
        if embedder is None and trained_with != WORDLLAMA:
            raise InputError(
                f"The policy was trained with the embedder {shown}, which is not imported unasked. "
                "Name it with `--embedder` if you trust it."
            )
        if embedder not in (None, trained_with):
            raise InputError(f"`--embedder` must be the one of the training, {shown}, got {embedder!r}. Leave it out.")
    return RLFocalPolicy(parts, embedder=open_embedder(embedder or trained_with))


def limits_of(policy: "RLFocalPolicy", options: Mapping[str, Any], *, target: "Target | None") -> dict[str, Any]:
    """Complete the cost weight, which nobody needs beside a target, and the limits by those that a policy was trained for."""
    trained = object_of(policy.card, "config")
    limits: dict[str, Any] = {name: trained.get(name) if value is None else value for name, value in options.items()}
    if target is not None:
        limits["cost_weight"] = 0.0
    unknown = [f"--{name.replace('_', '-')}" for name, value in limits.items() if value is None]
    if unknown:
        raise InputError(f"The checkpoint does not say what it was trained for. Give {', '.join(unknown)}.")
    for name, value in limits.items():
        is_weight = name == "cost_weight"
        if type(value) in ((int, float) if is_weight else (int,)) and (0 if is_weight else 1) <= value < math.inf:
            continue
        rule = (
            f"must be a {'finite number, at least 0' if is_weight else 'whole number, at least 1'}, got {value!r:.80}."
        )
        option = f"--{name.replace('_', '-')}"
        if options[name] is not None:
            raise InputError(f"`{option}` {rule}")
        raise CheckpointError(f"The checkpoint's `{name}` {rule} Give {option}, or train the policy again.")
    return limits


def trained_test_ids(policy: "RLFocalPolicy") -> str | None:
    """Say which rows a policy's training set apart as test rows; None for those of the split by text."""
    ids = object_of(policy.card, "rows").get("test_ids")
    if not isinstance(ids, str | None):
        raise CheckpointError(f"The checkpoint's `test_ids` must be a text, got {ids!r:.80}. Train the policy again.")
    return ids


def cost_unit_of(policy: "RLFocalPolicy") -> "CostUnit":
    """What a policy's training counted spending in, `auto` where it does not say."""
    from langchain_rlfocal.outcomes import CostUnit

    unit = object_of(policy.card, "config").get("cost_unit", "auto")
    if unit not in get_args(CostUnit):
        raise CheckpointError(
            f"The checkpoint's `cost_unit` must be one of {', '.join(get_args(CostUnit))}, got {unit!r:.80}. "
            "Train the policy again."
        )
    return cast("CostUnit", unit)


def object_of(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object of a checkpoint's card; empty where it has none."""
    value = card.get(name, {})
    if not isinstance(value, Mapping):
        shown = f"{value!r:.80}"
        raise CheckpointError(f"The checkpoint's `{name}` must be a JSON object, got {shown}. Train the policy again.")
    return value


# ---- how a command ends


def show_result(facts: Mapping[str, Any], views: Iterator[Any], *, as_json: bool) -> None:
    """Print a command's result: as one JSON object, or as tables and lines for people."""
    if as_json:
        typer.echo(json_text(facts))
        return
    stdout = output()
    for view in views:
        stdout.print(view)


def end_with(message: str, *, code: int) -> NoReturn:
    """Say in one line why a command ends, and end it."""
    messages().print(printable(message), style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)

"""Commands about pools: `pool check`, which asks each member something, and `pool schema`.

A member is checked as an ensemble of one, so that what is found is what an ensemble will meet: its provider's tools and
schemas, its time-out, its failures without their secrets. It is asked once for each thing, and nobody is asked again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_rlfocal.cli.options import FAILED, Json, open_pool, show_result
from langchain_rlfocal.cli.views import json_text, messages
from langchain_rlfocal.redaction import masked, printable, secrets_of

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage
    from rich.console import RenderableType

    from langchain_rlfocal.chat_models import RLFocalChatModel
    from langchain_rlfocal.pool import PoolMember

_TIMEOUT_S = 30.0
_MAX_REASON_CHARS = 300
_SAID_CHARS = 60

# In OpenAI's form: of a function LangChain makes a class, with warnings switched off, which threads cannot do at once.
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_temperature",
        "description": "Look up the temperature in a city at this moment.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

pools = typer.Typer(help="Check a pool, and the schema of pool files.", no_args_is_help=True)


@dataclass(slots=True)
class Checked:
    """What asking one member has shown; None for what it was not asked, since it had failed before.

    Attributes:
        member: Its name.
        reachable: Whether it answered a question.
        seconds: From that question to its answer; None where there is none.
        tools: Whether it called a tool that the question needs.
        structured: Whether it answered in the form of a schema.
        logprobs: Whether its answer came with log-probabilities.
        priced: Whether its prices are known.
        usd: Dollars that its answers cost; None where that is unknown.
        reasons: Why not, by the name of what failed.
    """

    member: str
    reachable: bool = False
    seconds: float | None = None
    tools: bool | None = None
    structured: bool | None = None
    logprobs: bool | None = None
    priced: bool = False
    usd: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)


@pools.command()
def check(
    pool: Annotated[
        str,
        typer.Argument(
            help="A pool file (.yaml, .toml, .json); `local`, the embedded pool; or package.module:function that returns one."
        ),
    ],
    *,
    member: Annotated[list[str] | None, typer.Option(help="A member to check, once for each; default: all.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a member may take for each question.")
    ] = _TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Ask each member of a pool something, and say who answers, calls tools, fills in a schema, and has a price.

    Members are asked at once, up to three tiny questions each.
    Exits with 1 where one cannot be reached.

    Examples:
    rlfocal pool check pool.yaml
    rlfocal pool check pool.yaml --member small --timeout 5 --json
    """
    with open_pool(pool, []) as opened:
        wanted = [opened[name] for name in dict.fromkeys(member or opened.names)]
        with messages().status(f"Asking {len(wanted)} members …"):
            found = check_members(wanted, timeout_s=timeout)
    facts = {"reachable": sum(one.reachable for one in found), "members": [asdict(one) for one in found]}
    show_result(facts, _views(found), as_json=as_json)
    if not all(one.reachable for one in found):
        raise typer.Exit(FAILED)


@pools.command()
def schema() -> None:
    """Print the JSON Schema of pool files, by which editors complete and check them.

    Example, and the first line of a pool.yaml that an editor then checks:

    rlfocal pool schema > pool.schema.json
    # yaml-language-server: $schema=pool.schema.json
    """
    from langchain_rlfocal.pool_files import pool_schema

    typer.echo(json_text(pool_schema()))


# ---- asking


def check_members(members: "Sequence[PoolMember]", *, timeout_s: float) -> list[Checked]:
    """Ask members at once.

    Args:
        members: Whom to ask.
        timeout_s: Seconds that each of at most three questions may take; a member that took longer once is asked no more.
    """
    found = [Checked(member.name) for member in members]
    # Of their own, and daemons: a program that is interrupted waits for nobody.
    threads = [
        Thread(target=_check, args=(one, member, timeout_s), daemon=True)
        for one, member in zip(found, members, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _check(found: Checked, member: "PoolMember", timeout_s: float) -> None:
    from langchain_rlfocal.chat_models import RLFocalChatModel
    from langchain_rlfocal.pool import ModelPool

    found.priced = member.max_cost_usd(prompt_tokens=0, completion_tokens=0) is not None
    model = RLFocalChatModel(
        members=ModelPool([member]), max_team=1, max_rounds=1, max_retries=0, timeout=timeout_s, breaker_failures=None
    )
    _ask(found, "reachable", model, _say_something)
    if found.reachable:
        _ask(found, "tools", model, _call_a_tool)
    if found.reachable and not _took_too_long(found):
        _ask(found, "structured", model, _fill_in_a_schema)
    found.usd = model.spent.usd if found.priced else None


def _took_too_long(found: Checked) -> bool:
    return found.reasons.get("tools", "").startswith("timeout")


def _ask(
    found: Checked, what: str, model: "RLFocalChatModel", ask: "Callable[[Checked, RLFocalChatModel], str | None]"
) -> None:
    """Ask one thing, and note whether that went well, or why not."""
    from langchain_rlfocal.errors import EnsembleError

    try:
        reason = ask(found, model)
    except EnsembleError as error:
        reason = error.failures.get(found.member, str(error)) + _cause_of(error)
    except Exception as error:  # noqa: BLE001  # whatever a member's own code raises is its failure
        reason = f"{type(error).__name__}: {error}"
    setattr(found, what, reason is None)
    if reason is not None:
        secrets = secrets_of([member.model for member in model.pool])
        found.reasons[what] = " ".join(printable(masked(reason, secrets)).split())[:_MAX_REASON_CHARS]


def _cause_of(error: BaseException) -> str:
    """Return the innermost cause of an error: clients say "Connection error." of a name that does not exist."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    said = str(innermost)
    return f" ({said})" if said and said not in str(error) else ""


def _say_something(found: Checked, model: "RLFocalChatModel") -> str | None:
    started = time.perf_counter()
    message = model.invoke("What is 2 + 2? Answer with the number only.")
    found.seconds = time.perf_counter() - started
    found.logprobs = message.response_metadata["rlfocal"]["candidates"][0]["logprob"] is not None
    return None


def _call_a_tool(_: Checked, model: "RLFocalChatModel") -> str | None:
    asked = "What is the temperature in Oslo right now? Call the tool to find out."
    message: AIMessage = model.bind_tools([_TOOL]).invoke(asked)
    if message.tool_calls:
        return None
    said = " ".join(message.text.split())
    return f"It answered in text, and called no tool: {said[:_SAID_CHARS]!r}"


def _fill_in_a_schema(_: Checked, model: "RLFocalChatModel") -> str | None:
    from pydantic import BaseModel

    class Report(BaseModel):
        """A weather report."""

        city: str
        celsius: int

    asked = (
        "It is 21 degrees Celsius in Oslo. Report the city and the temperature as JSON with the keys city and celsius."
    )
    answer = model.with_structured_output(Report, method="json_schema", include_raw=True).invoke(asked)
    if isinstance(answer["parsed"], Report):
        return None
    return f"Its answer does not fit the schema: {str(answer['raw'].text)[:_SAID_CHARS]!r}"


# ---- showing

_COLUMNS = ("reachable", "seconds", "tools", "structured", "logprobs", "price")


def _views(found: Sequence[Checked]) -> "Iterator[RenderableType]":
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("member", overflow="fold")
    for heading in _COLUMNS:
        table.add_column(heading, no_wrap=True, justify="right" if heading == "seconds" else "left")
    for one in found:
        seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
        marks = [_mark(getattr(one, what)) for what in ("reachable", "tools", "structured", "logprobs", "priced")]
        if not one.priced:
            marks[-1] = Text("unknown", "yellow")
        table.add_row(Text(printable(one.member)), marks[0], seconds, *marks[1:])
    yield table
    for one in found:
        for what, reason in one.reasons.items():
            yield Text()
            yield Text.assemble((printable(one.member), "bold"), f", {_SAYS[what]}")
            yield Padding(Text(reason), (0, 0, 0, 2))
    yield from (Text(f"\n{hint}", "dim") for hint in _hints(found))


_SAYS: Mapping[str, str] = {
    "reachable": "not reachable:",
    "tools": "no tool call:",
    "structured": "no structured output:",
}


def _hints(found: Sequence[Checked]) -> Iterator[str]:
    silent = [one.member for one in found if one.logprobs is False]
    unpriced = [one.member for one in found if not one.priced]
    if silent:
        yield (
            f"No log-probabilities, which tell how sure a member is: {', '.join(map(printable, silent))}. Where its provider "
            "gives them, ask for them, as OpenAI's by `parameters: {logprobs: true}`."
        )
    if unpriced:
        yield (
            f"No price: {', '.join(map(printable, unpriced))}. Budgets and targets in dollars need `usd_per_million`; 0 "
            "where it is free."
        )


def _mark(holds: bool | None) -> Any:
    from rich.text import Text

    if holds is None:
        return Text("-", "dim")
    return Text("yes", "green") if holds else Text("no", "red")

"""Commands on API keys: `keys add`, `list`, `revoke`, `check`. A key is shown once, by `add`; its file holds a digest."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_rlfocal.cli.options import FAILED, Json, end_with, show_result
from langchain_rlfocal.cli.views import messages
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.server.keys import Key

_USUAL = ["answers", "models", "feedback"]  # as in `server.keys`, which takes long to import; a test compares them
_SOON = timedelta(days=14)

File = Annotated[Path, typer.Argument(help="The file of keys: .toml or .json.")]

keys = typer.Typer(no_args_is_help=True, help="Make and take back the keys with which programs ask `rlfocal serve`.")


@keys.command()
def add(
    file: File,
    *,
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may, once for each: answers; members, by their own names; models, which lists them; feedback; metrics."
        ),
    ] = _USUAL,
    days: Annotated[int | None, typer.Option(min=1, help="Days after which it expires; default: never.")] = None,
    per_minute: Annotated[
        float | None, typer.Option(min=0.01, help="Requests a minute, on average and at once; default: any number.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Calls of members that it may spend.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens that it may spend.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Dollars that it may spend.")] = None,
    per: Annotated[
        Literal["day", "month", "ever"], typer.Option(help="For how long these are, by the calendar of UTC.")
    ] = "month",
    as_json: Json = False,
) -> None:
    """Make a key, and print it: this once, since the file holds its digest only. A file that is not there is made.

    Example: rlfocal keys add keys.toml --name website --per-minute 60 --max-usd 20 --per month
    """
    from langchain_rlfocal.server.keys import changing_keys, make_key

    limits = {"calls": max_calls, "tokens": max_tokens, "usd": max_usd}
    budget = None if set(limits.values()) == {None} else {"per": per, **limits}
    now = datetime.now(UTC)
    with changing_keys(file) as held:
        key, secret = make_key(
            name,
            now=now,
            scopes=scope,
            expires=None if days is None else (now + timedelta(days=days)).replace(microsecond=0),
            per_minute=per_minute,
            budget=budget,
        )
        held.append(key)
    if not as_json:
        messages().print(
            f"Key {key.id} of {key.name} is in {printable(str(file))}. This is the only time that it is shown:",
            markup=False,
            soft_wrap=True,
        )
    show_result({"file": str(file), "key": secret, **_facts(key, now)}, iter([secret]), as_json=as_json)


@keys.command("list")
def list_(file: File, *, as_json: Json = False) -> None:
    """List the keys, without the keys themselves.

    Example: rlfocal keys list keys.toml
    """
    from langchain_rlfocal.server.keys import read_keys

    now = datetime.now(UTC)
    facts = [_facts(key, now) for key in read_keys(file)]

    def views() -> Iterator[Any]:
        from rich.table import Table

        table = Table("id", "name", "ends in", "may", "a minute", "budget", "state", box=None)
        for one in facts:
            rate = "any" if one["per_minute"] is None else f"{one['per_minute']:g}"
            shown = (
                one["id"],
                one["name"],
                one["last"],
                " ".join(one["scopes"]),
                rate,
                _written(one["budget"]),
                one["state"],
            )
            table.add_row(*shown)
        yield table if facts else f"{printable(str(file))} holds no keys."

    show_result({"file": str(file), "keys": facts}, views(), as_json=as_json)


@keys.command()
def revoke(
    file: File,
    key: Annotated[str, typer.Argument(help="Its id, as `rlfocal keys list` shows it.")],
    *,
    as_json: Json = False,
) -> None:
    """Take a key back: a server that runs refuses it within a second or two. It stays in the file, to say so.

    Example: rlfocal keys revoke keys.toml 5f2c90d1ab34
    """
    from langchain_rlfocal.server.keys import changing_keys, read_keys

    read_keys(file)  # one that is not there is not made
    now = datetime.now(UTC)
    with changing_keys(file) as held:
        at = next((at for at, one in enumerate(held) if one.id == key), None)
        if at is None:
            raise InputError(
                f"{printable(str(file))} must hold the key {printable(key)}, and does not. See `rlfocal keys list`."
            )
        revoked = held[at] if held[at].revoked else held[at].model_copy(update={"revoked": now.replace(microsecond=0)})
        held[at] = revoked
    facts = _facts(revoked, now)
    show_result(
        {"file": str(file), **facts}, iter([f"Key {revoked.id} of {revoked.name}: {facts['state']}."]), as_json=as_json
    )


@keys.command()
def check(
    file: File,
    *,
    key: Annotated[
        bool, typer.Option("--key", help="Read a key from standard input, and say which it is and what it may.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a server can use a file, and say which keys are no longer good, or soon will not be.

    With --key: whose key it is. Exit code 1 says that it is refused.

    Example: rlfocal keys check keys.toml --key
    """
    from langchain_rlfocal.server.keys import find_key, read_keys

    now = datetime.now(UTC)
    held = read_keys(file)
    if key:
        found = find_key(held, sys.stdin.readline().strip())
        if found is None:
            end_with(f"This key is not in {printable(str(file))}.", code=FAILED)
        facts = _facts(found, now)
        may = f"It may: {', '.join(found.scopes)}."
        show_result(facts, iter([f"Key {found.id} of {found.name}: {facts['state']}. {may}"]), as_json=as_json)
        if found.refusal(now):
            raise typer.Exit(FAILED)
        return
    refused = [_facts(one, now) for one in held if one.refusal(now)]
    soon = [_facts(one, now) for one in held if not one.refusal(now) and one.expires and one.expires < now + _SOON]

    def views() -> Iterator[Any]:
        yield f"{printable(str(file))} can be used: {len(held) - len(refused):,} keys are good, {len(refused):,} are refused."
        for one in (*refused, *soon):
            yield f"Key {one['id']} of {one['name']}: {one['state']}."

    facts = {"file": str(file), "good": len(held) - len(refused), "refused": refused, "expire_soon": soon}
    show_result(facts, views(), as_json=as_json)


def _facts(key: "Key", now: datetime) -> dict[str, Any]:
    """Describe a key in JSON values."""
    told = key.model_dump(mode="json", exclude={"sha256"})
    until = "" if key.expires is None else f" until {key.expires:%Y-%m-%d}"
    return {**told, "state": key.refusal(now) or f"good{until}"}


def _written(budget: dict[str, Any] | None) -> str:
    if budget is None:
        return "any"
    amounts = {"calls": "{:,} calls", "tokens": "{:,} tokens", "usd": "${:g}"}
    limits = [form.format(budget[name]) for name, form in amounts.items() if budget[name] is not None]
    return f"{', '.join(limits)} {'for ever' if budget['per'] == 'ever' else 'a ' + budget['per']}"

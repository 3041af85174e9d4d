"""API keys: the file that says who may call the server, for what, how often and for how much.

The file holds digests, never keys. A key is 256 random bits, so that one SHA-256 of it is enough: slow hashes such as scrypt
make up for secrets that can be guessed, and these cannot. The server reads the file again when it changes; one that it cannot
use changes nothing, and is told of. Budgets are accounts in the state that all workers share, named by key and period.
"""

import asyncio
import hmac
import json
import logging
import os
import re
import secrets
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from os import PathLike
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.redaction import printable

Scope = Literal["answers", "members", "models", "feedback", "metrics"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What keys may be allowed."""

USUAL_SCOPES: tuple[Scope, ...] = ("answers", "models", "feedback")
"""What a key may do where nobody says otherwise: neither ask members past the Decider, nor read the metrics."""

PREFIX = "rlf-"
"""How a key begins, so that people and scanners of secrets know one."""

SUFFIXES = (".toml", ".json")
"""How the names of key files end."""

MAX_FILE_BYTES = 10_000_000
"""A longer file is refused: a key takes some 400 bytes, and every request is compared with all of them."""

CHECK_EVERY_S = 1.0
"""A change of the file is noticed by the first request after this time."""

_HEADER = "# Keys of `rlfocal serve`: digests, never the keys themselves. `rlfocal keys` writes this file anew, without comments.\n"

_log = logging.getLogger(__name__)


# ---- what the file holds


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyBudget(_Entry):
    """What a key may spend in each period; None for any amount.

    Attributes:
        calls: Calls of members, attempts that fail included.
        tokens: Tokens of prompts and responses.
        usd: Dollars.
        per: The period, by the calendar of UTC, or `"ever"`.
    """

    calls: Annotated[int, Field(ge=0, strict=True)] | None = None
    tokens: Annotated[int, Field(ge=0, strict=True)] | None = None
    usd: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    per: Literal["day", "month", "ever"] = "month"

    @property
    def limits(self) -> dict[str, int | float]:
        """The limits that there are, by what they limit."""
        amounts = {"calls": self.calls, "tokens": self.tokens, "usd": self.usd}
        return {name: most for name, most in amounts.items() if most is not None}

    def period(self, now: datetime) -> str:
        """Name the period that a time is in: `"2026-11"`, `"2026-11-30"` or `"ever"`."""
        return {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}", "ever": "ever"}[self.per]

    @property
    def keep_s(self) -> float | None:
        """For how many seconds after the last call a store keeps what was spent in a period: longer than any; None for ever."""
        days = {"day": 2, "month": 62, "ever": None}[self.per]
        return None if days is None else timedelta(days=days).total_seconds()

    def ends_at(self, now: datetime) -> datetime | None:
        """Say when the period that a time is in ends; None for never."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.per == "day":
            return midnight + timedelta(days=1)
        return None if self.per == "ever" else (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


class Key(_Entry):
    """One key, without the key itself.

    Attributes:
        id: What logs, metrics and accounts call it.
        name: Whose it is, for people.
        sha256: SHA-256 of the key, in hexadecimal digits.
        last: The last four characters of the key, for people who have several.
        scopes: What it may do.
        created: When it was made.
        expires: From when on it is refused; None for never.
        revoked: Since when it is refused; None where it is not.
        per_minute: How many requests it may make a minute on average, and at once; None for any number.
        budget: What it may spend; None for any amount.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    last: Annotated[str, Field(max_length=4)] = ""
    scopes: tuple[Scope, ...] = USUAL_SCOPES
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    budget: KeyBudget | None = None

    @field_validator("name")
    @classmethod
    def _is_printable(cls, name: str) -> str:
        if printable(name) != name:
            raise ValueError("must have printable characters only")
        return name

    @field_validator("created", "expires", "revoked")
    @classmethod
    def _in_utc(cls, at: datetime | None) -> datetime | None:
        if at is None or at.tzinfo is None:
            return None if at is None else at.replace(tzinfo=UTC)
        return at.astimezone(UTC)

    def refusal(self, now: datetime) -> str | None:
        """Say why the key is refused; None where it is not."""
        if self.revoked is not None:
            return f"was revoked on {self.revoked:%Y-%m-%d}"
        if self.expires is not None and now >= self.expires:
            return f"expired on {self.expires:%Y-%m-%d}"
        return None

    def account_name(self, now: datetime) -> str:
        """Name the account that its spending is booked to now."""
        return f"key:{self.id}:{'ever' if self.budget is None else self.budget.period(now)}"


class _File(_Entry):
    keys: tuple[Key, ...] = ()


def make_key(
    name: str,
    *,
    now: datetime,
    scopes: Sequence[str] = USUAL_SCOPES,
    expires: datetime | None = None,
    per_minute: float | None = None,
    budget: KeyBudget | Mapping[str, Any] | None = None,
) -> tuple[Key, str]:
    """Make a key, and return with what is kept of it the key itself, which nothing can show again.

    Raises:
        InputError: A value breaks a rule.
    """
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    facts: dict[str, Any] = {
        "id": secrets.token_hex(6),
        "name": name,
        "sha256": digest_of(secret),
        "last": secret[-4:],
        "scopes": tuple(dict.fromkeys(scopes)),
        "created": now.replace(microsecond=0),
        "expires": expires,
        "per_minute": per_minute,
        "budget": budget,
    }
    try:
        return Key(**facts), secret
    except ValidationError as error:
        raise InputError(f"A key's {_broken_rule(error)}") from None


def digest_of(secret: str) -> str:
    """Return what is kept of a key."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def find_key(keys: Iterable[Key], secret: str) -> Key | None:
    """Find whose key this is, in a time that does not depend on which it is, or on how much of it is right."""
    given, found = digest_of(secret), None
    for key in keys:
        if hmac.compare_digest(key.sha256, given):
            found = key
    return found


# ---- the file


def read_keys(path: str | PathLike[str]) -> tuple[Key, ...]:
    """Read a file of keys.

    Raises:
        InputError: It cannot be read, breaks a rule, or others than its owner can write to it.
    """
    shown = printable(str(path))
    if Path(path).suffix not in SUFFIXES:
        raise InputError(f"A key file must end in {' or '.join(SUFFIXES)}, got {shown}. Rename it.")
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"The key file {shown} cannot be read: {error.strerror}. Make one with `rlfocal keys add`."
        ) from None
    if os.name == "posix" and mode & 0o022:
        raise InputError(
            f"The key file {shown} must be writable by its owner only, got mode {mode & 0o777:o}: whoever can write to it can "
            f"let anybody in. Run `chmod 600 {shown}`."
        )
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The key file {shown} must have at most {MAX_FILE_BYTES:,} bytes. Take out keys of the past.")
    try:
        text = data.decode()
        held = json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)
        keys = _File.model_validate(held).keys
    except ValidationError as error:
        raise InputError(f"The key file {shown} breaks a rule: {_broken_rule(error)}") from None
    except (ValueError, RecursionError) as error:  # of the encoding or of the format
        raise InputError(f"The key file {shown} is no {Path(path).suffix[1:].upper()}: {error}. Correct it.") from None
    for what in ("id", "sha256"):
        [(value, times)] = Counter(getattr(key, what) for key in keys).most_common(1) or [("", 0)]
        if times > 1:
            raise InputError(
                f"The key file {shown} must have each `{what}` once, got {value} twice. Take one of the keys out."
            )
    return keys


def write_keys(path: str | PathLike[str], keys: Iterable[Key]) -> None:
    """Write a file of keys, whole or not at all, which its owner alone can read; one that is there keeps its mode and its group.

    Raises:
        InputError: Its name ends otherwise.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise InputError(f"A key file must end in {' or '.join(SUFFIXES)}, got {printable(str(path))}. Rename it.")
    entries = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    if target.suffix == ".json":
        text = json.dumps({"keys": entries}, indent=2, ensure_ascii=False) + "\n"
    else:
        text = _HEADER + "".join(_toml_of(entry) for entry in entries)
    target = target.resolve()  # a link stays one
    descriptor, temporary = mkstemp(prefix=f".{target.name}.", dir=target.parent)  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix" and target.exists():  # a server that may read it, but not write it, reads it still
                before = target.stat()
                with suppress(PermissionError):  # of a group that one is not in
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                    os.fchmod(file.fileno(), before.st_mode & 0o777)
        Path(temporary).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


@contextmanager
def changing_keys(path: str | PathLike[str]) -> Iterator[list[Key]]:
    """Change the keys of a file, or of a new one: the list as it is left is written, and nobody else writes meanwhile.

    Raises:
        InputError: See `read_keys`.
    """
    target = Path(path)
    with _locked(target.resolve().parent):
        keys = list(read_keys(target)) if target.exists() else []
        yield keys
        write_keys(target, keys)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, since the file itself is replaced; without effect where the system has none."""
    try:
        import fcntl  # noqa: PLC0415  # not on Windows
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _toml_of(entry: Mapping[str, Any]) -> str:
    """Write a key in TOML, in which every text of JSON without control characters is one, too."""
    lines = ["", "[[keys]]"]
    for name, value in entry.items():
        if isinstance(value, dict):
            lines += ["", f"[keys.{name}]", *(f"{part} = {json.dumps(amount)}" for part, amount in value.items())]
        elif name in ("created", "expires", "revoked"):
            lines.append(f"{name} = {value}")
        else:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*lines, ""])


def _broken_rule(error: ValidationError) -> str:
    """Say which rule was broken, without what broke it: it may be a key that stands where its digest should."""
    detail = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    rule = re.sub(r"^(Value error, |Input |Field |Extra inputs )", "", detail["msg"]).removeprefix("should ")
    known = f" Known: {', '.join(Key.model_fields)}." if detail["type"] == "extra_forbidden" else ""
    return f"`{place}` {rule if rule.startswith(('must', 'are', 'required')) else f'must {rule}'}.{known} Correct it."


# ---- the server's view of it


@dataclass(frozen=True, slots=True)
class _Signature:
    """What tells one state of a file from another."""

    modified_ns: int
    size: int
    inode: int
    mode: int

    @classmethod
    def of(cls, path: Path) -> "_Signature | None":
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)


class KeyFile:
    """The keys of a file that may change while the server runs.

    Attributes:
        path: The file.
        problem: Why the file cannot be used as it is now, and keys are those of before; None where it can.

    Raises:
        InputError: The file cannot be used; see `read_keys`.
    """

    def __init__(self, path: str | PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = Path(path)
        self.problem: str | None = None
        self._clock, self._checked_s = clock, clock()
        self._seen = _Signature.of(self.path)
        self._keys = read_keys(self.path)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys, as they were when the file could last be used."""
        return self._keys

    async def afind(self, secret: str) -> Key | None:
        """Find whose key this is, in the file as it was at most a second ago; None where it is nobody's."""
        if self._clock() - self._checked_s >= CHECK_EVERY_S:
            self._checked_s = self._clock()  # now, so that who asks meanwhile does not look too
            await asyncio.to_thread(self.refresh)
        return find_key(self._keys, secret)

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be used changes nothing but `problem`."""
        found = _Signature.of(self.path)
        if found == self._seen:
            return
        self._seen = found
        try:
            self._keys = read_keys(self.path)
        except InputError as error:
            self.problem = str(error)
            _log.error("The keys of before stay in force. %s", error)  # the trace says nothing more
        else:
            self.problem = None
            _log.info("The key file %s was read again: %d keys.", self.path, len(self._keys))

"""Where a log is: the path of an SQLite file, or the URL of a PostgreSQL database."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from langchain_rlfocal.errors import OutcomeLogError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log is.

    Attributes:
        name: The path, or the URL without its password: fit to be shown.
        path: The file, None where it is a server's.
        url: The URL with its password, for SQLAlchemy; empty where it is a file.
        secrets: What must not be shown.
    """

    name: str
    path: Path | None = None
    url: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, given: str | os.PathLike[str]) -> Self:
        """Read a path or a URL.

        Raises:
            OutcomeLogError: It is a URL of something else.
        """
        text = os.fspath(given)
        scheme, is_url, rest = text.partition("://")
        if not is_url:
            path = Path(text).resolve()
            return cls(str(path), path)
        if scheme == "sqlite":
            path = Path(rest.removeprefix("/")).resolve()
            return cls(str(path), path)
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise OutcomeLogError(
                f"An outcome log must be a path, or a URL that begins with postgresql://, got {scheme}://... Name one of these."
            )
        try:
            parts = urlsplit(f"postgresql://{rest}")
            password, _ = parts.password, parts.port  # a port that is no number raises
        except ValueError as error:
            raise OutcomeLogError(f"The URL of an outcome log must be a URL: {error}. Correct it.") from None
        shown = parts.netloc
        if password is not None:
            user, _, host = shown.rpartition("@")
            shown = f"{user.partition(':')[0]}:***@{host}"
        options = [(name, value) for name, value in parse_qsl(parts.query) if "password" not in name]
        name = urlunsplit(parts._replace(netloc=shown, query=urlencode(options, safe="/")))
        secrets = {value for name, value in parse_qsl(parts.query) if "password" in name}
        secrets |= {password, unquote(password)} if password else set()
        return cls(name, None, f"postgresql+psycopg://{rest}", frozenset(secrets))

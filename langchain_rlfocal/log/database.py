"""One process' way to the database of a log: an SQLite file, or a PostgreSQL server.

It opens connections, brings an old log to this release's version, and gives transactions. Whatever goes wrong becomes an
`OutcomeLogError` that names the log, without its password. Who reads waits for nobody who writes.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from langchain_rlfocal.errors import MissingDependencyError, OutcomeLogError
from langchain_rlfocal.log.places import Place
from langchain_rlfocal.log.schema import KINDS, VERSION
from langchain_rlfocal.log.statements import Records
from langchain_rlfocal.redaction import masked, printable

BUSY_S = 5.0
"""How long a write waits for those of other processes."""

CONNECT_S = 5
"""How long to wait for a server."""

_IDLE_S = 1.0  # after which a server's connection is tried before it is used
_POLL_S = 0.02
_APPLICATION_ID = 0x524C464F  # "RLFO"
_MIGRATIONS = Path(__file__).parent / "migrations"

_log = logging.getLogger(__name__)


class Database:
    """Connections of one process to one log: one that writes, one that only reads.

    Args:
        place: Where the log is.

    Attributes:
        lock: Held by the thread that writes.
        reading_lock: Held by the thread that reads; taken after the other, where both are.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.lock, self.reading_lock = threading.RLock(), threading.Lock()
        opener = _File(place) if place.path is not None else _Server(place)
        self._writer, self._reader = _Handle(opener), _Handle(opener, reads_only=True)

    def close(self) -> None:
        """Close both connections; they are opened again when they are needed."""
        self._writer.close()
        self._reader.close()

    def open(self) -> None:
        """Open the log, make it where it is missing, and bring it to this version.

        Raises:
            OutcomeLogError: It cannot be, or is no log, or of a later version.
        """
        with self.lock, self._own_errors():
            self._writer.connected()

    @contextmanager
    def reading(self) -> Iterator[Records]:
        """Give the connection that only reads to this thread.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self.reading_lock, self._own_errors():
            yield self._reader.connected()

    @contextmanager
    def writing(self, *, durable: bool, waits: bool = True) -> Iterator[Records]:
        """Give the connection that writes to this thread, within a transaction; a durable one is on disk when it ends.

        Who does not wait for others that write has an error instead, here as well as elsewhere.

        Raises:
            OutcomeLogError: The log cannot be written.
            sqlalchemy.exc.IntegrityError: What is added breaks a rule of the tables.
        """
        if not self.lock.acquire(blocking=waits):
            raise OutcomeLogError(f"The outcome log {self._place.name} is being written to. Try again.")
        try:
            with self._own_errors():
                records = self._writer.connected()
                try:
                    with self._writer.opener.transaction(records.db, durable=durable, busy_s=BUSY_S if waits else 0.0):
                        yield records
                except BaseException:
                    records.forget()
                    raise
        finally:
            self.lock.release()

    @contextmanager
    def looking(self) -> Iterator[Records]:
        """Give a connection of its own that sees the log as it stands now.

        Raises:
            OutcomeLogError: The log cannot be read.
        """
        with self._own_errors():
            db = self._writer.opener.open(reads_only=True)
            try:
                db.exec_driver_sql(self._writer.opener.SNAPSHOT)
                yield Records(db)
                db.exec_driver_sql("ROLLBACK")
            finally:
                db.close()

    @contextmanager
    def tidying(self) -> Iterator[Records]:
        """Give a durable transaction after which nothing is left on disk of what it took out.

        Raises:
            OutcomeLogError: The log cannot be written; or what was taken out may still be on disk, and the message says so.
        """
        with self.lock, self._own_errors():
            self._writer.opener.before_tidying(self._writer.connected().db)
            with self.writing(durable=True) as records:
                yield records
            self._writer.opener.after_tidying(records.db)

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError:
            raise
        except (exc.DBAPIError, sqlite3.Error) as error:
            if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
                self._writer.forget()
            raise _own_error(error, self._place) from error


class _Handle:
    """A connection of one process, None until it is used."""

    def __init__(self, opener: "_File | _Server", *, reads_only: bool = False) -> None:
        self.opener, self._reads_only = opener, reads_only
        self._records: Records | None = None
        self._identity: Any = None
        self._used_at_s = 0.0

    def connected(self) -> Records:
        """Return the connection; a new one where the old one leads nowhere any more."""
        if self._records is not None and not self._is_good(self._records.db):
            self.close()
        if self._records is None:
            self._records = Records(self.opener.open(reads_only=self._reads_only))
            self._identity = self.opener.identity()
        self._used_at_s = time.monotonic()
        return self._records

    def _is_good(self, db: sa.Connection) -> bool:
        if db.invalidated:
            return False
        if self._identity != self.opener.identity():  # what is written to a file that was deleted is lost
            if not self._reads_only:  # said once
                _log.warning("The outcome log %s was deleted or replaced; it is opened anew.", self.opener.place.name)
            return False
        return self.opener.is_alive(db, idle_s=time.monotonic() - self._used_at_s)

    def forget(self) -> None:
        """Have the connection opened anew when it is needed next."""
        self._used_at_s = 0.0

    def close(self) -> None:
        """Close the connection, if there is one."""
        records, self._records = self._records, None
        if records is not None:
            records.db.close()


# ---- SQLite


class _File:
    """Opens an SQLite file."""

    SNAPSHOT = "BEGIN"

    def __init__(self, place: Place) -> None:
        assert place.path is not None, "chosen by the caller"
        self.place, self.path = place, place.path
        self._engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.NullPool)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    def identity(self) -> tuple[int, int] | None:
        """Identify the file that the path leads to; None where there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  # `Path.stat` takes longer
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def is_alive(self, db: sa.Connection, *, idle_s: float) -> bool:
        """Tell that a connection to a file lasts."""
        del db, idle_s
        return True

    def open(self, *, reads_only: bool) -> sa.Connection:
        """Connect to a log, and make or mend its tables; who only reads waits for nobody who writes to one that is there."""
        db = self._engine.connect()
        try:
            if self._version(db) == VERSION and reads_only:
                return db
            self._write_ahead(db)
            db.exec_driver_sql("PRAGMA foreign_keys = ON")
            version = self._version(db)
            if version < VERSION:
                with self.transaction(db, durable=True, busy_s=BUSY_S):
                    version = self._version(db)  # another process may have been quicker
                    if version < VERSION:
                        _migrate(db, version)
                        db.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
                        db.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    def _version(self, db: sa.Connection) -> int:
        """Return the version of a log, 0 of an empty database.

        Raises:
            OutcomeLogError: It is something else, or of a later version.
        """
        application_id, version, tables = db.exec_driver_sql(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), "
            "(SELECT count(*) FROM sqlite_master)"
        ).one()
        if not (application_id or version or tables):
            return 0
        if application_id != _APPLICATION_ID:
            raise OutcomeLogError(
                f"{self.place.name} is a database of another program. Name another file for the outcome log."
            )
        return _checked_version(int(version), self.place)

    def _write_ahead(self, db: sa.Connection) -> None:
        """Set the mode in which readers and a writer do not hold each other up."""
        give_up_at_s = time.monotonic() + BUSY_S
        while True:  # who sets it at the same time as others is refused at once
            try:
                mode = db.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one()
            except exc.OperationalError as error:
                is_busy = _sqlite_code(error.orig) == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() >= give_up_at_s:
                    raise
                sleep(_POLL_S)
                continue
            if mode != "wal":
                raise OutcomeLogError(
                    f"The outcome log {self.place.name} must be on a disk on which SQLite can write ahead (WAL). Choose a "
                    "local disk."
                )
            return

    def before_tidying(self, db: sa.Connection) -> None:
        """Have what is deleted overwritten."""
        db.exec_driver_sql("PRAGMA secure_delete = ON")

    def after_tidying(self, db: sa.Connection) -> None:
        """Take what was deleted out of the write-ahead log too, and give its space back."""
        db.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * BUSY_S)}")
        db.exec_driver_sql("VACUUM")
        busy, *_ = db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        db.exec_driver_sql("PRAGMA secure_delete = OFF")
        if busy:
            raise OutcomeLogError(
                f"It is done, but old texts are still in {self.place.name}-wal, which other processes read. They are gone "
                "once those have closed the log."
            )

    @contextmanager
    def transaction(self, db: sa.Connection, *, durable: bool, busy_s: float) -> Iterator[None]:
        """Hold the file's lock for writers."""
        db.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * busy_s)}")
        db.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
            db.exec_driver_sql("COMMIT")
        except BaseException:
            if _driver_of(db).in_transaction:  # SQLite ends it by itself where its disk is full
                db.exec_driver_sql("ROLLBACK")
            raise


# ---- PostgreSQL


class _Server:
    """Connects to a PostgreSQL server; the log has a schema `rlfocal` of its own in the database."""

    SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def __init__(self, place: Place) -> None:
        self.place = place
        options = {"connect_timeout": CONNECT_S, "options": "-c search_path=rlfocal -c timezone=UTC"}
        try:
            self._engine = sa.create_engine(
                place.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=options
            )
        except ImportError as error:
            raise MissingDependencyError(
                "A log on a PostgreSQL server needs psycopg. Install it: pip install 'langchain-rlfocal[postgres]'."
            ) from error
        except exc.ArgumentError:
            raise OutcomeLogError(
                f"The outcome log {place.name} must be a path, or a URL such as postgresql://user@host/database. Correct it."
            ) from None

    def identity(self) -> None:
        """Nothing tells one server from another at the same place."""

    def is_alive(self, db: sa.Connection, *, idle_s: float) -> bool:
        """Try a connection that was idle: the server may have been restarted."""
        if idle_s < _IDLE_S:
            return True
        try:
            db.exec_driver_sql("SELECT 1")
        except exc.DBAPIError:
            return False
        return True

    def open(self, *, reads_only: bool) -> sa.Connection:
        """Connect to a log, and make or mend its tables."""
        del reads_only  # a server's readers never wait
        db = self._engine.connect()
        try:
            if self._version(db) < VERSION:
                with self.transaction(db, durable=True, busy_s=BUSY_S):
                    db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_APPLICATION_ID})")
                    version = self._version(db)  # another process may have been quicker
                    if version < VERSION:
                        db.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS rlfocal")
                        _migrate(db, version)
        except BaseException:
            db.close()
            raise
        return db

    def _version(self, db: sa.Connection) -> int:
        if db.exec_driver_sql("SELECT to_regclass('rlfocal.rlfocal_version')").scalar_one() is None:
            return 0
        found = db.exec_driver_sql("SELECT max(version_num) FROM rlfocal.rlfocal_version").scalar_one()
        return _checked_version(int(found or 0), self.place)

    def before_tidying(self, db: sa.Connection) -> None:
        """Nothing has to be done."""

    def after_tidying(self, db: sa.Connection) -> None:
        """Have the server free what was deleted."""
        for name in KINDS:
            db.exec_driver_sql(f"VACUUM {name}")

    @contextmanager
    def transaction(self, db: sa.Connection, *, durable: bool, busy_s: float) -> Iterator[None]:
        """Begin a transaction; what it holds are the counters that it takes."""
        db.exec_driver_sql("BEGIN")
        try:
            db.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, int(1000 * busy_s))}")
            db.exec_driver_sql(f"SET LOCAL synchronous_commit = {'on' if durable else 'off'}")
            yield
            db.exec_driver_sql("COMMIT")
        except BaseException:
            if not db.invalidated:
                db.exec_driver_sql("ROLLBACK")
            raise


# ---- versions


_migrating = threading.Lock()


def _checked_version(version: int, place: Place) -> int:
    if version > VERSION:
        raise OutcomeLogError(
            f"The outcome log {place.name} has version {version}, and this release reads up to {VERSION}. Install a later "
            "langchain-rlfocal, or name another log."
        )
    return version


def _migrate(db: sa.Connection, version: int) -> None:
    """Bring a database to this release's version, within the caller's transaction."""
    from alembic import command  # noqa: PLC0415  # takes a quarter of a second, and is seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = db
    with _migrating:  # Alembic keeps what it is doing in its module
        if version == 1:  # files of the first release say so themselves, in SQLite's `user_version`
            command.stamp(config, "0001")
        command.upgrade(config, "head")


# ---- errors

_REASONS = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", "End that program's transaction, or try again."),
    sqlite3.SQLITE_LOCKED: ("is locked by another program", "End that program's transaction, or try again."),
    sqlite3.SQLITE_FULL: ("cannot grow, since its disk is full", "Free some space, and try again."),
    sqlite3.SQLITE_NOTADB: ("is no SQLite file", "Name another file for the outcome log."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Save what `sqlite3 FILE .recover` finds, and name another file."),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Name a file in a folder that exists, and that this process may write to.",
    ),
    sqlite3.SQLITE_READONLY: ("may not be written to", "Give this process the right to, or name another file."),
    sqlite3.SQLITE_PERM: ("may not be opened", "Give this process the right to, or name another file."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Look after its disk, or name a file on another."),
}
_SERVER_REASONS = {  # by the first characters of SQLSTATE
    "55P03": ("is locked by another program", "End that program's transaction, or try again."),
    "53100": ("cannot grow, since its server's disk is full", "Free some space there, and try again."),
    "28": ("does not let this user in", "Correct the user or the password, in the URL or in PGPASSWORD."),
    "3D000": ("is no database of its server", "Create it (`createdb NAME`), or name another."),
    "42501": ("does not grant this user what it needs", "Grant it the right to create a schema, and to write to it."),
    "25006": ("may not be written to", "Name the server that takes writes."),
}


def _own_error(error: exc.DBAPIError | sqlite3.Error, place: Place) -> OutcomeLogError:
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if place.path is not None:
        what, way_out = _REASONS.get(_sqlite_code(cause), ("cannot be used", "Name another file."))
    else:
        what, way_out = _server_reason(cause)
    said = printable(masked(str(cause).strip().rstrip("."), place.secrets))
    return OutcomeLogError(f"The outcome log {place.name} {what} ({said}). {way_out}")


def _sqlite_code(error: BaseException | None) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _server_reason(error: BaseException | None) -> tuple[str, str]:
    state, said = getattr(error, "sqlstate", None) or "", str(error)
    if not state:  # no connection came about, and psycopg says why in words alone
        state = "28" if "authentication failed" in said else "3D000" if "does not exist" in said else ""
    for prefix, reason in _SERVER_REASONS.items():
        if state.startswith(prefix):
            return reason
    if not state or state.startswith(("08", "57P")):
        return "cannot be reached", "Start its server, or correct the host and the port."
    return "cannot be used", "Look into the server's log."


def _driver_of(db: sa.Connection) -> Any:
    return db.connection.driver_connection

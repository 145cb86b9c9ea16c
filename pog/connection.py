"""How the store's files are opened: who they are, which version, with which guarantees.

Knows: SQLite, file modes, the application ids, that a derived file may be made anew. Does not know: what the
tables mean. The standard library's SQLite is the only one in the house: a second copy of SQLite on the same
file in one process would break its locks (lab/bus-store.md).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TypeVar

from pog.errors import LedgerCorruptError, LedgerVersionError, ViewsError
from runloop.errors import NotFoundError

__all__ = [
    "LEDGER",
    "TRACE",
    "VECTORS",
    "VIEWS",
    "FileKind",
    "NewerError",
    "OutdatedError",
    "check_identity",
    "connect_derived",
    "connect_reader",
    "connect_writer",
    "discard",
    "make_tables",
    "newer",
    "opened",
]

T = TypeVar("T")


class OutdatedError(LedgerVersionError):
    """A file of an earlier build. Nothing is lost: views are folded anew, a ledger is migrated."""


class NewerError(LedgerVersionError):
    """A file of a later build. It was not touched."""


class FileKind:
    """What a file says it is: SQLite's ``application_id`` and ``user_version``."""

    def __init__(self, name: str, application_id: int, version: int) -> None:
        self.name, self.application_id, self.version = name, application_id, version


LEDGER = FileKind("ledger", 0x524C4F47, 1)
VIEWS = FileKind("views", 0x524C5657, 5)
VECTORS = FileKind("vectors", 0x524C5643, 1)
TRACE = FileKind("trace", 0x524C5452, 1)


def connect_writer(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """Open for writing, creating an empty file of mode 0600 (and its directory, 0700) if absent."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_symlink():
        raise LedgerVersionError(f"{path} is a symbolic link", hint="move the real file there")
    # Never open and close a file that SQLite has open: close() drops all POSIX locks of this process on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute(f"PRAGMA synchronous = {_level(synchronous)}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, kind: FileKind) -> sqlite3.Connection:
    """Open for reading only, beside a living writer or without one.

    Raises :class:`NotFoundError` when there is no file, :class:`LedgerVersionError` when it is not of this
    kind, :class:`LedgerCorruptError` when it is no database at all.
    """
    if not path.is_file():
        raise NotFoundError(
            f"there is no {kind.name} at {path}",
            hint="'rlp daemon start' creates it",
            code=f"{kind.name}.absent",
        )
    uri = path.absolute().as_uri()
    try:
        connection = _connect(f"{uri}?mode=ro")
    except sqlite3.OperationalError:
        # A closed file in a directory we may not write to: SQLite cannot make the shared index there.
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        connection = _connect(f"{uri}?mode=ro&immutable=1")
    except sqlite3.DatabaseError as error:
        raise LedgerCorruptError(f"{path} is not a database: {error}", hint="restore a backup") from error
    try:
        check_identity(connection, path, kind)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_derived(path: Path, kind: FileKind, schema: str) -> sqlite3.Connection:
    """Open for writing a file that is made from the ledger; one that is not there is made with ``schema``.

    Raises as :func:`check_identity`. NORMAL: a power cut may cost what was derived last, and no fact.
    """
    connection = connect_writer(path, synchronous="NORMAL")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            make_tables(connection, kind, schema)
        check_identity(connection, path, kind)
    except BaseException:
        connection.close()
        raise
    return connection


def make_tables(connection: sqlite3.Connection, kind: FileKind, schema: str) -> None:
    """Give an empty database its tables, and say what it is, in one transaction."""
    connection.executescript(
        "BEGIN IMMEDIATE;"
        + schema
        + f"PRAGMA application_id = {kind.application_id}; PRAGMA user_version = {kind.version}; COMMIT;"
    )


def opened(path: Path, opening: Callable[[], T]) -> T:
    """What ``opening`` opens. A derived file that is damaged or of another version is discarded and opened
    again, empty; raises :class:`ViewsError` when the file cannot be opened at all."""
    try:
        return opening()
    except sqlite3.OperationalError as error:
        raise ViewsError(f"{path} cannot be opened: {error}", hint="rlp doctor") from error
    except (sqlite3.DatabaseError, LedgerVersionError):
        discard(path)
        return opening()


def discard(path: Path) -> None:
    """Remove a derived file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def check_identity(connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    """Refuse a file of another application or of a newer version, without touching it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != kind.application_id:
        raise LedgerVersionError(
            f"{path} is not a Runloop {kind.name} (application id {application:#x})",
            hint="point RUNLOOP_HOME elsewhere, or move the file away",
        )
    if version > kind.version:
        raise newer(path, version, kind)
    if version < kind.version:
        anew = "'rlp daemon start' makes it anew from the ledger"
        raise OutdatedError(
            f"{path} is of version {version}, this build writes {kind.version}",
            hint="rlp kb migrate" if kind.application_id == LEDGER.application_id else anew,
        )


def newer(path: Path, version: int, kind: FileKind) -> NewerError:
    """What is said of a file that a later build wrote: it is left alone, and there may be a way back."""
    kept = sorted(path.parent.glob(f"{path.name}.version-{kind.version}.*"), key=_number)
    way = "upgrade runloop"
    if kept:
        way += f", or go back to before that: 'rlp kb restore {quote(str(kept[-1]))} --accept-loss'"
    return NewerError(f"{path} is of version {version}, this build knows {kind.version}", hint=way)


def _number(folder: Path) -> tuple[int, str]:
    number = folder.name.rpartition(".")[2]
    return (int(number) if number.isdecimal() else 0, folder.name)


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _level(synchronous: str) -> str:
    if synchronous not in {"NORMAL", "FULL", "EXTRA"}:
        raise LedgerVersionError(
            f"kb.synchronous is {synchronous!r}", hint="use FULL, NORMAL or EXTRA", code="config.value"
        )
    return synchronous

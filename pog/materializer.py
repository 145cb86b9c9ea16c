"""Keeps the views abreast of the ledger, in a file of their own.

Knows: where the fold stands (stored in the same transaction as what it changed), quarantine, rebuild. Does
not know: what an event does to a table (``pog.folds``) or who asks the views (``pog.query``).

An event that cannot be read or folded is noted in ``quarantine`` and passed over; a disk that cannot be
written stops the fold with :class:`ViewsError`, and the next call goes on where it stood.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path

from pog import sql
from pog.chain import GENESIS, Row, decode_row
from pog.connection import VIEWS, NewerError, OutdatedError, connect_derived, discard
from pog.errors import LedgerCorruptError, ViewsError
from pog.folds import TABLES, Folds
from pog.reader import Reader
from runloop.errors import RunloopError
from runloop.events import Event

__all__ = ["Materializer", "fold_rows"]

_BATCH = 512
_MOVE = "UPDATE cursor SET event = ?, hash = ?"
_OPERATIONAL = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_NOMEM",
    "SQLITE_CANTOPEN",
    "SQLITE_INTERRUPT",
)
_UNFIT = (sqlite3.Error, RunloopError, TypeError, ValueError, OverflowError)
"""What an event that does not fit its tables may raise."""


class Materializer:
    """Open with :meth:`open`; used by one thread at a time, guarded by a lock."""

    def __init__(self, connection: sqlite3.Connection, path: Path, reader: Reader) -> None:
        self._connection = connection
        self._path = path
        self._reader = reader
        self._folds = Folds(reader.history)
        self._mutex = threading.Lock()
        self._closed = False
        self._cursor, self._hash = self._read_cursor()

    @classmethod
    def open(cls, views_path: str | os.PathLike[str], ledger_path: str | os.PathLike[str]) -> Materializer:
        """Open the views of a ledger, creating them if there are none.

        Views are disposable: those of another ledger, or of a build before or after this one, are made anew;
        a file that is no database is set aside. Another program's file is refused with
        :class:`LedgerVersionError`.
        """
        path = Path(views_path)
        reader = Reader(ledger_path)
        try:
            connection = _connect(path)
            try:
                made = cls(connection, path, reader)
                made._start_over_if_foreign()
                return made
            except BaseException:
                connection.close()
                raise
        except BaseException:
            reader.close()
            raise

    @property
    def path(self) -> Path:
        """The file of the views."""
        return self._path

    @property
    def cursor(self) -> int:
        """Id of the last event the views contain."""
        return self._cursor

    def catch_up(self, *, up_to: int | None = None, fresh: Sequence[Event] = ()) -> int:
        """Fold what is new, and tell how far the views are now.

        ``fresh`` spares the reading: committed events, in order. They are folded as they are when they
        follow what the views contain; else the ledger is read.

        Raises :class:`ViewsError` when they cannot be written.
        """
        with self._mutex:
            if self._closed:
                raise ViewsError("the views are closed", hint="rlp daemon start", code="views.closed")
            if up_to is None and self._follows(fresh):
                self._follow(fresh)
                return self._cursor
            rows = self._reader.rows(after=self._cursor)
            if up_to is not None:
                rows = takewhile(lambda row: row.id <= up_to, rows)
            while batch := list(islice(rows, _BATCH)):
                with self._transaction():
                    place = fold_rows(self._connection, self._folds, batch)
                    self._connection.execute(_MOVE, place)
                self._cursor, self._hash = place
            return self._cursor

    def rebuild(self) -> int:
        """Throw the views away and fold the whole ledger anew, in one transaction; readers see old or new."""
        with self._mutex:
            if self._closed:
                raise ViewsError("the views are closed", hint="rlp daemon start", code="views.closed")
            with self._transaction():
                self._empty()
                place = fold_rows(self._connection, self._folds, self._reader.rows())
                self._connection.execute(_MOVE, place)
            self._cursor, self._hash = place
            return self._cursor

    def quarantined(self) -> list[tuple[int, str, str]]:
        """``(event, kind, error)`` of every event that could not be folded."""
        with self._mutex:
            return self._connection.execute(
                "SELECT event, kind, error FROM quarantine ORDER BY event"
            ).fetchall()

    def close(self) -> None:
        """Let go of both files. May be called twice."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._connection.close()
                self._reader.close()

    def __enter__(self) -> Materializer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------

    def _follows(self, events: Sequence[Event]) -> bool:
        """Whether they begin where the views end, with no gap."""
        return (
            bool(events)
            and (events[0].id, events[0].prev_hash) == (self._cursor + 1, self._hash)
            and events[-1].id - events[0].id == len(events) - 1
        )

    def _follow(self, events: Sequence[Event]) -> None:
        with self._transaction():
            place = (events[-1].id, events[-1].hash)
            _fold_events(self._connection, self._folds, events)
            self._connection.execute(_MOVE, place)
        self._cursor, self._hash = place

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._error(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the cursor was stored with the change, so whatever is in the file is consistent

    def _empty(self) -> None:
        for table in TABLES:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
        self._connection.execute("INSERT INTO search (search) VALUES ('rebuild')")
        self._connection.execute("UPDATE cursor SET event = 0, hash = zeroblob(32)")

    def _read_cursor(self) -> tuple[int, bytes]:
        event, own_hash = self._connection.execute("SELECT event, hash FROM cursor").fetchone()
        return int(event), bytes(own_hash)

    def _start_over_if_foreign(self) -> None:
        if self._cursor == 0:
            return
        row = next(self._reader.rows(after=self._cursor - 1), None)
        if row is None or row.id != self._cursor or row.hash != self._hash:
            self.rebuild()

    def _error(self, error: sqlite3.Error) -> ViewsError:
        return ViewsError(
            f"{self._path} was not written: {error}",
            hint="free space on the disk; or stop the daemon and remove that file: it is made anew",
        )


def fold_rows(connection: sqlite3.Connection, folds: Folds, rows: Iterable[Row]) -> tuple[int, bytes]:
    """Fold rows in order; return the place of the last. Unfit ones go to ``quarantine``.

    Raises :class:`sqlite3.Error` only for what is no fault of an event: full disk, I/O error, a held lock.
    """
    place = (0, GENESIS)
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        events = []
        for row in batch:
            try:
                events.append(decode_row(row))
            except LedgerCorruptError as error:
                _quarantine(connection, row.id, row.kind, error)
        _fold_events(connection, folds, events)
        place = (batch[-1].id, batch[-1].hash)
    return place


def _fold_events(connection: sqlite3.Connection, folds: Folds, events: Sequence[Event]) -> None:
    """All at once, or, when one of them does not fit, one by one."""
    events = [event for event in events if event.kind in folds.kinds]
    connection.execute("SAVEPOINT fold")
    try:
        folds.apply_all(connection, events)
    except _UNFIT as error:
        if _is_operational(error):
            raise  # SQLite may have rolled everything back already
        connection.execute("ROLLBACK TO fold")
        for event in events:
            _fold_one(connection, folds, event)
    connection.execute("RELEASE fold")


def _fold_one(connection: sqlite3.Connection, folds: Folds, event: Event) -> None:
    connection.execute("SAVEPOINT one")
    try:
        folds.apply(connection, event)
    except _UNFIT as error:
        if _is_operational(error):
            raise
        connection.execute("ROLLBACK TO one")
        _quarantine(connection, event.id, event.kind, error)
    connection.execute("RELEASE one")


def _is_operational(error: Exception) -> bool:
    return str(getattr(error, "sqlite_errorname", "") or "").startswith(_OPERATIONAL)


def _quarantine(connection: sqlite3.Connection, event: int, kind: str, error: Exception) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO quarantine (event, kind, error) VALUES (?, ?, ?)",
        (event, kind, str(error)),
    )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except (OutdatedError, NewerError):
        discard(path)  # of another build, which may have come back to this one: the ledger has all of it
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise ViewsError(f"{path} cannot be opened: {error}", hint="rlp doctor") from error
    # Not a database any more. Views are only a fold: keep the damaged file aside and start over.
    path.replace(path.with_name(path.name + ".damaged"))
    discard(path)
    return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    connection = connect_derived(path, VIEWS, sql.load("views.sql"))
    connection.execute("PRAGMA wal_autocheckpoint = 4000")  # 16 MiB: a checkpoint waits for the disk
    return connection

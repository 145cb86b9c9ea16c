"""Gives unused space back: what was deleted, overwritten or retracted leaves holes in a file.

Knows: that SQLite's VACUUM is one transaction, so that a crash leaves the old file. Rows keep their numbers
and bytes; the ledger's chain is compared before and after. Offline only: it holds the writer's lock.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pog.connection import LEDGER, VIEWS, FileKind
from pog.errors import LedgerCorruptError, LedgerWriteError
from pog.lock import held
from pog.maintain.checks import chain_of
from pog.maintain.migrate import version_of
from pog.wal import insist_on_whole

__all__ = ["Vacuumed", "vacuum"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuumed:
    """One file, in bytes."""

    path: Path
    before: int
    after: int


def vacuum(ledger: Path, views: Path) -> list[Vacuumed]:
    """Compact the ledger and, where there are any, the views.

    Raises :class:`LedgerLockedError` while a writer lives, :class:`LedgerCorruptError` when the ledger does
    not chain (a damaged file is not rewritten), :class:`LedgerWriteError` when there is no room for a copy.
    """
    with held(ledger, what="vacuuming"):
        done = [_compact(ledger, LEDGER)]
        if views.is_file():
            done.append(_compact(views, VIEWS))
    return done


def _compact(path: Path, kind: FileKind) -> Vacuumed:
    version_of(path, kind)  # refuses what is not ours
    insist_on_whole(path)
    before = _size(path)
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            history = chain_of(connection) if kind is LEDGER else None
            if kind is VIEWS:
                connection.execute("INSERT INTO search (search) VALUES ('optimize')")
            connection.execute("VACUUM")
            if kind is LEDGER and chain_of(connection) != history:
                raise LedgerCorruptError(f"{path} is not what it was", hint="restore a backup")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.DatabaseError as error:
        raise LedgerWriteError(f"{path} was not vacuumed: {error}", hint="it is as it was") from error
    return Vacuumed(path=path, before=before, after=_size(path))


def _size(path: Path) -> int:
    log = path.with_name(f"{path.name}-wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)

"""Brings a ledger of an earlier build to this build's version: numbered steps, one transaction, a copy first.

Knows: the steps, ``sql/migrations/ledger_<from>.sql``. A step changes how events are kept and never what
they say: the chain over them is checked before and after. The kinds themselves change by upcasts
(``runloop.events``), without touching a row. Offline only: it holds the writer's lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pog import sql
from pog.connection import LEDGER, FileKind
from pog.errors import LedgerCorruptError, LedgerVersionError, LedgerWriteError
from pog.lock import held
from pog.maintain.checks import chain_of
from pog.maintain.files import appearing_folder, copy_new
from pog.wal import insist_on_whole
from runloop.errors import NotFoundError

__all__ = ["STEPS", "Migrated", "apply_steps", "migrate", "version_of"]

STEPS: Mapping[int, str] = sql.steps("ledger")
"""Version a step starts from -> its SQL. Empty while every ledger there ever was is of version 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrated:
    """What was done; nothing when both versions are the same."""

    before: int
    after: int
    kept: Path | None
    """Folder with the files as they were."""


def version_of(path: Path, kind: FileKind = LEDGER) -> int:
    """The version a file says it is of.

    Raises :class:`NotFoundError`, :class:`LedgerVersionError` for another kind of file or a newer version,
    :class:`LedgerCorruptError` when it is no database.
    """
    if not path.is_file():
        raise NotFoundError(
            f"there is no {kind.name} at {path}", hint="rlp daemon start", code="ledger.absent"
        )
    try:
        # One that may write would fold the log into the file when it closes, and a damaged log with it.
        with closing(_connect(path, "ro")) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise LedgerCorruptError(f"{path} is not a database: {error}", hint="restore a backup") from error
    if application != kind.application_id:
        raise LedgerVersionError(
            f"{path} is not a Runloop {kind.name} (application id {application:#x})",
            hint="move the file away",
        )
    if version > kind.version:
        raise LedgerVersionError(
            f"{path} is of version {version}, this build knows {kind.version}", hint="upgrade runloop"
        )
    return int(version)


def migrate(
    path: Path,
    *,
    kind: FileKind = LEDGER,
    steps: Mapping[int, str] = STEPS,
) -> Migrated:
    """Bring the ledger at ``path`` to ``kind``'s version.

    The files as they were are kept in a folder beside it. The steps, the check that every event still chains
    and the new version number are one transaction: whatever stops it leaves the old ledger.
    """
    with held(path, what="migrating"):
        before = version_of(path, kind)
        if before == kind.version:
            return Migrated(before=before, after=before, kept=None)
        insist_on_whole(path)
        kept = _free_name(path, before)
        with appearing_folder(kept) as folder:
            for suffix in ("", "-wal"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    copy_new(part, folder / part.name)
        apply_steps(path, kind=kind, steps=steps)
    return Migrated(before=before, after=kind.version, kept=kept)


def apply_steps(path: Path, *, kind: FileKind = LEDGER, steps: Mapping[int, str] = STEPS) -> None:
    """The transaction itself, on a file that nobody else writes."""
    try:
        with closing(_connect(path, "rw")) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            events = chain_of(connection)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            while version < kind.version:
                if version not in steps:
                    raise LedgerVersionError(
                        f"{path} is of version {version}, and no step leads on from there",
                        hint="upgrade runloop through the releases between",
                    )
                for statement in sql.statements(steps[version]):
                    connection.execute(statement)
                version += 1
            if chain_of(connection) != events:
                raise LedgerVersionError(
                    f"the steps to version {version} changed events of {path}; nothing was kept",
                    hint="report this; the ledger is as it was",
                    code="ledger.migrate",
                )
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise LedgerWriteError(f"{path} was not migrated: {error}", hint="it is as it was") from error


def _free_name(path: Path, version: int) -> Path:
    """A folder of its own for every attempt: the ledger may have gone on since the last."""
    return next(
        name
        for number in count(1)
        if not os.path.lexists(name := path.with_name(f"{path.name}.version-{version}.{number}"))
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)

"""Brings an earlier build's ledger to this build's version: numbered steps, one transaction, first a backup.

Knows: the steps, ``sql/migrations/ledger_<from>.sql``. A step changes how events are kept and never what
they say: the chain over them is checked before and after. The kinds themselves change by upcasts
(``runloop.events``), without touching a row. Offline only: it holds the writer's lock.

The backup is one of the earlier version: a build of that version puts it back (docs/adr/0038). Whoever dies
on the way and begins anew, again and again, leaves one of them and not as many as deaths.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pog import sql
from pog.connection import LEDGER, FileKind, newer
from pog.errors import LedgerCorruptError, LedgerVersionError, LedgerWriteError
from pog.lock import held
from pog.maintain import backup
from pog.maintain.checks import chain_of
from runloop.clock import Clock
from runloop.errors import NotFoundError, RunloopError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["STEPS", "Migrated", "apply_steps", "migrate", "version_of"]

STEPS: Mapping[int, str] = sql.steps("ledger")
"""Version a step starts from -> its SQL. Empty while every ledger there ever was is of version 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrated:
    """What was done; nothing when both versions are the same."""

    before: int
    after: int
    kept: Path | None
    """Backup of the ledger as it was."""


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
        raise newer(path, version, kind)
    return int(version)


def migrate(
    path: Path,
    *,
    key: Ed25519PrivateKey,
    clock: Clock,
    anchor: Path | None = None,
    kind: FileKind = LEDGER,
    steps: Mapping[int, str] = STEPS,
) -> Migrated:
    """Bring the ledger at ``path`` to ``kind``'s version.

    The ledger as it was is kept beside it as a backup, signed with ``key``. The steps, the check that every
    event still chains and the new version number are one transaction: whatever stops it leaves the old one.

    Raises :class:`LedgerCorruptError` for a ledger that does not verify, :class:`LedgerVersionError` where no
    step leads on, :class:`BackupError` and :class:`LedgerWriteError` where the disk has no room.
    """
    with held(path, what="migrating"):
        before = version_of(path, kind)
        if before == kind.version:
            return Migrated(before=before, after=before, kept=None)
        kept = _keep(path, FileKind(kind.name, kind.application_id, before), key, clock, anchor)
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


def _keep(path: Path, old: FileKind, key: Ed25519PrivateKey, clock: Clock, anchor: Path | None) -> Path:
    """A backup of the ledger as it is; an earlier attempt's is as good, if nothing was written since."""
    for unfinished in path.parent.glob(f".{path.name}.version-*.part"):
        shutil.rmtree(unfinished, ignore_errors=True)  # we hold the lock: whoever filled it is dead
    for folder in path.parent.glob(f"{path.name}.version-{old.version}.*"):
        with suppress(RunloopError):
            made = backup.read(folder, key.public_key())
            if made.manifest.head_hash == _head(path) and backup.check(made, key.public_key(), kind=old).ok:
                return folder
    kept = _free_name(path, old.version)
    backup.write(path, kept, key=key, clock=clock, anchor=anchor, kind=old)
    return kept


def _head(path: Path) -> str:
    with closing(_connect(path, "ro")) as connection:
        found = connection.execute("SELECT hash FROM events ORDER BY id DESC LIMIT 1").fetchone()
    return bytes(found[0]).hex() if found else ""


def _free_name(path: Path, version: int) -> Path:
    """The ledger may have been here before, and have gone on."""
    return next(
        name
        for number in count(1)
        if not os.path.lexists(name := path.with_name(f"{path.name}.version-{version}.{number}"))
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)

"""A backup: one folder with the ledger as it was at one moment, its signed head, and a signed manifest.

``events.db`` is a plain SQLite file (no log beside it), ``ledger.head`` the last signed head in it, and
``manifest.json`` the digests of both, signed with the ledger's key: nobody without the key can change any of
it unseen, not even the newest events, which no head covers yet. Keys are never part of it.

Knows: how to write one beside a living writer, whole or not at all, and how to judge one. Does not know: how
it is put back (``pog.maintain.restore``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pog import sql
from pog.anchor import Anchor, read_anchor, write_anchor
from pog.connection import LEDGER, FileKind, connect_reader
from pog.errors import BackupError, LedgerCorruptError
from pog.maintain.checks import verify
from pog.maintain.files import appearing_folder, digest_of, write_new
from pog.maintain.report import Report
from pog.wal import insist_on_whole
from runloop.clock import Clock
from runloop.digest import blob_digest, canonical, framed
from runloop.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["ANCHOR", "DATABASE", "MANIFEST", "Backup", "Manifest", "check", "read", "seal", "write"]

DATABASE, ANCHOR, MANIFEST = "events.db", "ledger.head", "manifest.json"
FORMAT = 1
_DOMAIN = b"runloop.backup.v1"
_MAX_MANIFEST = 65_536


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a backup."""

    format: int
    source: Literal["backup", "salvage"]
    made_ms: int
    ledger_version: int
    events: int
    head_id: int
    head_hash: str
    head_ms: int
    """When the newest event was stated; 0 while there is none."""
    signed_up_to: int
    blobs: int
    blobs_missing: list[str]
    """Digests that events name and whose bytes are lost; only in what was salvaged."""
    files: dict[str, str]
    """Name -> digest, for every other file of the folder."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    manifest: Manifest
    public_key: str
    signature: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """A backup whose manifest is the one that was signed; its files are judged by :func:`check`."""

    path: Path
    manifest: Manifest
    manifest_digest: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "path": str(self.path),
            "manifest_digest": self.manifest_digest,
            **msgspec.to_builtins(self.manifest),
        }


def write(
    ledger: Path,
    to: Path,
    *,
    key: Ed25519PrivateKey,
    clock: Clock,
    anchor: Path | None = None,
    kind: FileKind = LEDGER,
) -> Backup:
    """Copy the ledger as it is now into a new folder ``to``, verify the copy, and only then name it.

    The writer goes on meanwhile. ``kind``: of the version it is of, when that is not this build's: builds of
    that version put it back. Raises :class:`LedgerCorruptError` when the copy does not verify (then
    nothing is left behind), :class:`ConflictError` when ``to`` exists.
    """
    known = read_anchor(anchor) if anchor is not None else None  # before the copy: it is never ahead of it
    insist_on_whole(ledger)
    with appearing_folder(to) as folder:
        _copy(ledger, folder / DATABASE, kind)
        report = verify(
            folder / DATABASE,
            public_key=key.public_key(),
            anchor=(known.id, known.hash.hex()) if known is not None else None,
            kind=kind,
        )
        if not report.ok:
            raise _unsound(ledger, report)
        seal(folder, report, source="backup", key=key, clock=clock, kind=kind)
    return read(to, key.public_key())


def seal(
    folder: Path,
    report: Report,
    *,
    source: Literal["backup", "salvage"],
    key: Ed25519PrivateKey,
    clock: Clock,
    blobs_missing: Sequence[str] = (),
    kind: FileKind = LEDGER,
) -> None:
    """Add the signed head and the signed manifest to a folder with a verified ledger in it."""
    head_ms = _keep_head(folder, kind)
    names = sorted(path.name for path in folder.iterdir())
    manifest = Manifest(
        format=FORMAT,
        source=source,
        made_ms=clock.now_ms(),
        ledger_version=kind.version,
        events=report.events,
        head_id=report.head_id,
        head_hash=report.head_hash,
        head_ms=head_ms,
        signed_up_to=report.signed_up_to,
        blobs=report.blobs,
        blobs_missing=list(blobs_missing),
        files={name: digest_of(folder / name) for name in names},
    )
    text = canonical(msgspec.to_builtins(manifest))
    signed = {
        "manifest": msgspec.to_builtins(manifest),
        "public_key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(framed(_DOMAIN, text)).hex(),
    }
    write_new(folder / MANIFEST, canonical(signed) + b"\n")


def read(folder: Path, public_key: Ed25519PublicKey | None) -> Backup:
    """The backup in ``folder``, if its manifest was signed with this ledger's key.

    Raises :class:`NotFoundError` when there is none, :class:`BackupError` when it is none of ours.
    """
    text = _text(folder / MANIFEST)
    try:
        found = msgspec.json.decode(text, type=_File)
        signature, own = bytes.fromhex(found.signature), bytes.fromhex(found.public_key)
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise BackupError(
            f"{folder / MANIFEST} is no manifest: {error}", hint="use another backup"
        ) from error
    if found.manifest.format > FORMAT or found.manifest.ledger_version > LEDGER.version:
        raise BackupError(
            f"{folder} was written by a newer build (format {found.manifest.format}, ledger "
            f"{found.manifest.ledger_version})",
            hint="upgrade runloop",
            code="kb.version",
        )
    _check_signature(folder, found, own, signature, public_key)
    return Backup(
        path=folder.absolute(),
        manifest=found.manifest,
        manifest_digest=blob_digest(canonical(msgspec.to_builtins(found.manifest))),
    )


def check(backup: Backup, public_key: Ed25519PublicKey | None, *, kind: FileKind = LEDGER) -> Report:
    """Read every byte of a backup: digests, chain, heads, blobs."""
    path = backup.path / DATABASE
    differing = [name for name, digest in backup.manifest.files.items() if not _is(backup.path, name, digest)]
    # A plain file: SQLite leaves nothing beside it, so a backup on a disk nobody may write can be read.
    report = verify(path, public_key=public_key, known_missing=backup.manifest.blobs_missing, kind=kind)
    for name in differing:
        report.add("file", f"{name} is not the file the manifest names")
    if (report.head_id, report.head_hash) != (backup.manifest.head_id, backup.manifest.head_hash):
        report.add("file", f"it ends at event {report.head_id}, the manifest says {backup.manifest.head_id}")
    return report


def _copy(ledger: Path, target: Path, kind: FileKind) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with (
        closing(connect_reader(ledger, kind)) as source,
        closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        try:
            # All pages in one step: one snapshot, and a busy writer cannot make it begin anew for ever.
            source.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError as error:
            name = str(getattr(error, "sqlite_errorname", "") or "")
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise LedgerCorruptError(f"{ledger} cannot be read: {error}", hint="rlp verify") from error
            raise BackupError(f"{target} was not written: {error}", hint="free space on the disk") from error


def _keep_head(folder: Path, kind: FileKind) -> int:
    """Write the anchor that fits the copy; returns the time of its newest event."""
    with closing(connect_reader(folder / DATABASE, kind)) as connection:
        last = connection.execute("SELECT ts_ms FROM events ORDER BY id DESC LIMIT 1").fetchone()
        signed = connection.execute(sql.named("statements.sql")["signed_head"]).fetchone()
    if signed is not None:
        event_id, own_hash, ts_ms, signature = signed
        write_anchor(folder / ANCHOR, Anchor(id=event_id, hash=own_hash, ts_ms=ts_ms, signature=signature))
    return int(last[0]) if last is not None else 0


def _text(path: Path) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{path.parent} is no backup: there is no {path.name} in it",
            hint="'rlp kb backup FOLDER' makes one",
            code="kb.backup",
        ) from error
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}", hint="use another backup") from error
    with os.fdopen(file, "rb") as read:
        text = read.read(_MAX_MANIFEST + 1)
    if len(text) > _MAX_MANIFEST:
        raise BackupError(f"{path} is no manifest: it is too long", hint="use another backup")
    return text


def _check_signature(
    folder: Path, found: _File, own: bytes, signature: bytes, public_key: Ed25519PublicKey | None
) -> None:
    from cryptography.exceptions import InvalidSignature

    if public_key is None:
        raise UsageError(
            "this home has no ledger key, so no backup can be told from a forged one",
            hint="put the keys folder of that home back first; it is not part of a backup",
            code="kb.key",
        )
    if own != public_key.public_bytes_raw():
        raise BackupError(
            f"{folder} was made with another home's key",
            hint="put the keys folder of that home back first; it is not part of a backup",
            code="kb.key",
        )
    try:
        public_key.verify(signature, framed(_DOMAIN, canonical(msgspec.to_builtins(found.manifest))))
    except InvalidSignature as error:
        raise BackupError(f"the manifest of {folder} was changed", hint="use another backup") from error


def _is(folder: Path, name: str, digest: str) -> bool:
    if Path(name).name != name or (folder / name).is_symlink():
        return False
    with suppress(OSError):
        return digest_of(folder / name) == digest
    return False


def _unsound(ledger: Path, report: Report) -> LedgerCorruptError:
    first = report.first_bad
    what = f"{first.where}, event {first.event}: {first.what}" if first is not None else "damaged"
    return LedgerCorruptError(
        f"{ledger} does not verify, so no backup was made: {what}",
        hint="'rlp verify' says what; 'rlp kb salvage' saves what can be read",
        event=first.event if first is not None else None,
    )

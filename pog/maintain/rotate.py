"""Another signing key for the ledger: what the old one signed stays proven, what it signs later is not.

Knows: the order of the steps, and how an exchange that was interrupted is brought to its end. Does not know:
who may ask for it, what makes a key's file safe to read. Needs the ledger for itself.

The new key lies beside the old one (``ledger.key.next``) before the ledger knows of it. The fact that it
follows, and a head signed with it, are one transaction: from there on the old key signs nothing that is
believed. Then the file of the old key is replaced. Whatever stops it, one of the two opens the ledger:
:func:`settle` finds out which.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pog import sql
from pog.anchor import Anchor, read_anchor, write_anchor
from pog.connection import LEDGER, connect_reader
from pog.errors import BackupError, LedgerCorruptError
from pog.ledger import Ledger
from pog.lock import held
from pog.maintain import backup
from pog.rekey import Reign, reigns
from runloop.clock import Clock
from runloop.durable import sync_folder
from runloop.errors import NotFoundError, RunloopError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["ReadKey", "Rotated", "backup_of", "ledger_key", "next_file", "rotate", "settle"]

ReadKey = Callable[[Path], bytes | None]
"""Reads 32 bytes from a file that nobody else could have read or written; None where there is none."""


_KEY_BYTES = 32


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    before: str
    """The public half of the key that is gone, in hex."""
    after: str
    event: int
    """The fact that says so."""


def next_file(key_file: Path) -> Path:
    """Where a key lies that is about to be the ledger's."""
    return key_file.with_name(f"{key_file.name}.next")


def rotate(
    path: Path, *, key_file: Path, anchor: Path, clock: Clock, principal: str, read: ReadKey
) -> Rotated:
    """Give the ledger at ``path`` another key; the old one is gone afterwards.

    Raises :class:`LedgerLockedError` beside a daemon, :class:`LedgerCorruptError` for a ledger that is not
    what its key and its anchor say, :class:`NotFoundError` where there is none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        raise NotFoundError("this home has no ledger", hint="rlp run OPENING", code="kb.absent")
    settle(path, key_file=key_file, anchor=anchor, read=read)
    old, new = ledger_key(key_file, read), Ed25519PrivateKey.generate()
    with Ledger.open(path, signing_key=old, clock=clock, anchor=anchor) as ledger:
        # Only now: whoever was refused leaves nothing behind.
        _write_new(next_file(key_file), new.private_bytes_raw())
        event = ledger.rekey(new, principal=principal)
        _put_in_place(key_file)  # before anybody else may open the ledger
    return Rotated(
        before=old.public_key().public_bytes_raw().hex(),
        after=new.public_key().public_bytes_raw().hex(),
        event=event,
    )


def settle(path: Path, *, key_file: Path, anchor: Path, read: ReadKey) -> bool:
    """Bring an exchange that something stopped to its end; whether there was one.

    The ledger decides: if it is signed with the next key, that is the key; else it never was.
    """
    waiting = next_file(key_file)
    if not os.path.lexists(waiting):
        return False
    with held(path, what="finishing the exchange of its key"):
        if os.path.lexists(waiting):
            # Half of a key was never the ledger's: the whole of it is written before the ledger is told.
            whole = os.lstat(waiting).st_size == _KEY_BYTES
            if whole and _follows(
                path, ledger_key(waiting, read), anchor, lambda: ledger_key(key_file, read)
            ):
                _put_in_place(key_file)
            else:
                waiting.unlink()
    return True


def backup_of(folder: Path, path: Path, public: Ed25519PublicKey) -> tuple[backup.Backup, Ed25519PublicKey]:
    """The backup in ``folder``, and the key that signed it: the present one, or one before it that the ledger
    at ``path`` still tells of. Raises as :func:`pog.maintain.backup.read`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return backup.read(folder, public), public
    except BackupError as error:
        if error.named_code != "kb.key":
            raise
        for reign in _earlier(path, public):
            key = Ed25519PublicKey.from_public_bytes(reign.public)
            with suppress(BackupError):
                found = backup.read(folder, key)
                if reign.signs(found.manifest.head_id) and _has(path, found):
                    return found, key
        raise


def _earlier(path: Path, public: Ed25519PublicKey) -> list[Reign]:
    try:
        with closing(connect_reader(path, LEDGER)) as connection:
            return reigns(connection, public.public_bytes_raw())[1:]
    except (sqlite3.DatabaseError, RunloopError):
        return []  # a ledger that cannot be read tells of no key


def _has(path: Path, found: backup.Backup) -> bool:
    """Whether the backup is of this very history: an earlier key may be in the hands of others by now."""
    with closing(connect_reader(path, LEDGER)) as connection:
        at = (found.manifest.head_id,)
        row = connection.execute(sql.named("statements.sql")["hash_at"], at).fetchone()
    return row is not None and row[0].hex() == found.manifest.head_hash


def _follows(path: Path, new: Ed25519PrivateKey, anchor: Path, old: Callable[[], Ed25519PrivateKey]) -> bool:
    """Whether the ledger is signed with ``new``; then the anchor is, too, when this returns."""
    if not path.exists():
        return False
    public = new.public_key().public_bytes_raw()
    with closing(connect_reader(path, LEDGER)) as connection:
        signed = connection.execute(sql.named("statements.sql")["signed_head"]).fetchone()
        last = signed and Anchor(id=signed[0], hash=signed[1], ts_ms=signed[2], signature=signed[3])
        if not last or not last.signed_by(new.public_key()):
            return False
        known = read_anchor(anchor)
        if known is not None and not known.signed_by(new.public_key()):
            _judge(connection, known, public, old().public_key(), anchor)
        write_anchor(anchor, last)
    return True


def _judge(
    connection: sqlite3.Connection, known: Anchor, public: bytes, old: Ed25519PublicKey, anchor: Path
) -> None:
    """The anchor of the old key still has to be true of a ledger that says it has a new one."""
    found = connection.execute(sql.named("statements.sql")["hash_at"], (known.id,)).fetchone()
    vouched = any(
        reign.public == old.public_bytes_raw() and reign.signs(known.id)
        for reign in reigns(connection, public)
    )
    if not known.signed_by(old) or not vouched or found is None or found[0] != known.hash:
        raise LedgerCorruptError(
            f"the ledger says that its key was exchanged, and {anchor} does not fit it", hint="rlp verify"
        )


def ledger_key(file: Path, read: ReadKey) -> Ed25519PrivateKey:
    """The key in ``file``. Raises :class:`NotFoundError` where there is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = read(file)
    if secret is None:
        raise NotFoundError(
            f"this home has no ledger key ({file})",
            hint="put the keys folder back first; a ledger cannot be told from a forged one without it",
            code="kb.key",
        )
    return Ed25519PrivateKey.from_private_bytes(secret)


def _write_new(file: Path, secret: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(file, flags, 0o600)
    try:
        os.fchmod(made, 0o600)
        os.write(made, secret)
        os.fsync(made)
    finally:
        os.close(made)
    sync_folder(file.parent)


def _put_in_place(key_file: Path) -> None:
    next_file(key_file).rename(key_file)
    sync_folder(key_file.parent)

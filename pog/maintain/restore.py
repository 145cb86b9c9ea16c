"""Puts a backup in the ledger's place: judged first, said what it costs, the present files kept aside.

An older state is a rollback, and signed heads exist to make rollbacks visible. So one that loses events needs
the caller's explicit word, is recorded as a fact in the restored ledger, and moves the anchor to that fact.
Runs that were under way when the backup was made are asked to end: what they did since is not in the record
any more, and doing it a second time is worse than not at all.

Knows: what is lost, as far as anybody can tell. Does not know: how files change places
(``pog.maintain.exchange``). Offline only: it holds the writer's lock.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pog.anchor import Anchor, read_anchor
from pog.connection import LEDGER, connect_reader
from pog.errors import BackupError, LedgerCorruptError, LedgerVersionError
from pog.ledger import Ledger
from pog.lock import held
from pog.maintain import exchange
from pog.maintain.backup import DATABASE, Backup
from pog.maintain.checks import verify
from pog.maintain.files import appearing_folder, copy_new
from pog.reader import Reader
from pog.wal import lost_commits
from runloop.clock import Clock
from runloop.errors import NotFoundError, RefusedError
from runloop.events import Draft, LedgerRestored, RunCancelRequested

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Loss", "Restored", "loss", "restore", "resume"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What the ledger in place has, or is known to have had, and the backup has not."""

    present_head: int | None
    """Newest event in place; None when there is no ledger, or none that can be read."""
    anchored_at: int | None
    """Newest event that the anchor proves."""
    first: int | None
    last: int | None
    kinds: dict[str, int] = field(default_factory=dict)
    """How many of each kind are lost, as far as the present ledger can be read."""
    why_unknown: str = ""
    """Why nobody can tell whether more is lost; empty when all of it is known."""

    @property
    def known(self) -> bool:
        """Whether that is all."""
        return not self.why_unknown

    @property
    def nothing(self) -> bool:
        """Whether the backup surely has everything."""
        return self.first is None and self.known

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "present_head": self.present_head,
            "anchored_at": self.anchored_at,
            "first": self.first,
            "last": self.last,
            "kinds": self.kinds,
            "known": self.known,
            "why_unknown": self.why_unknown,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What was done."""

    head_id: int
    fact: int
    """The event that records it."""
    loss: Loss
    cancelled: list[str]
    """Runs that were under way in the backup, and are asked to end."""
    aside: Path | None
    """Where the files are that were in place."""


def loss(ledger: Path, copy: Path, anchor: Path | None) -> Loss:
    """Compare the ledger in place with the one that is to take its place; changes nothing.

    ``copy`` is a file nobody else can change: a backup's folder is somebody's, and what is compared must be
    what is put in place.
    """
    try:
        signed = read_anchor(anchor) if anchor is not None else None
    except LedgerCorruptError as error:
        return Loss(present_head=None, anchored_at=None, first=None, last=None, why_unknown=error.message)
    try:
        if (damaged := lost_commits(ledger)) > 1:
            return _from_anchor(copy, signed, f"{damaged} transactions of its log cannot be read")
        with (
            closing(connect_reader(ledger, LEDGER)) as present,
            closing(connect_reader(copy, LEDGER)) as kept,
        ):
            return _compare(present, kept, signed)
    except NotFoundError:
        return _from_anchor(copy, signed, "" if signed is None else "there is no ledger in place")
    except (LedgerCorruptError, LedgerVersionError) as error:
        return _from_anchor(copy, signed, error.message)
    except sqlite3.DatabaseError as error:
        return _from_anchor(copy, signed, f"it cannot be read: {error}")


def restore(
    ledger: Path,
    backup: Backup,
    *,
    key: Ed25519PrivateKey,
    signer: Ed25519PublicKey | None = None,
    clock: Clock,
    principal: str,
    anchor: Path | None = None,
    accept_loss: bool = False,
    derived: Sequence[Path] = (),
) -> Restored:
    """Put a backup in the place of the ledger; ``derived`` files (views) are kept aside with the old one.
    ``signer``: whose key the backup is of, where that is an earlier one: the present one vouches for it then.

    Raises :class:`LedgerLockedError` while a writer lives, :class:`BackupError` when a byte of the backup is
    not what its manifest says or it does not verify, :class:`RefusedError` when something would, or might, be
    lost and ``accept_loss`` is not given. Nothing has changed then.
    """
    with held(ledger, what="restoring"):
        stamp = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%S")
        staged = ledger.parent / f"restoring-{stamp}-{backup.manifest_digest[:8]}"
        aside = f"aside-{stamp}-{backup.manifest_digest[:8]}"
        there = any(ledger.with_name(ledger.name + suffix).exists() for suffix in ("", "-wal"))
        with appearing_folder(staged) as folder:
            by = signer or key.public_key()
            _check_copy(folder, backup, by)
            found = loss(ledger, folder / exchange.NEW_LEDGER, anchor)
            if not found.nothing and not accept_loss:
                raise _refused(found, backup)
            fact = LedgerRestored(
                source=backup.manifest.source,
                manifest_digest=backup.manifest_digest,
                head_id=backup.manifest.head_id,
                head_hash=backup.manifest.head_hash,
                made_ms=backup.manifest.made_ms,
                lost_from=found.first,
                lost_to=found.last,
                known=found.known,
                blobs_missing=backup.manifest.blobs_missing,
                aside=aside if there else None,
                principal=principal,
            )
            stated, cancelled = _state(folder, fact, found, key, by, clock)
        exchange.begin(ledger, staged, aside)
        kept = exchange.finish(ledger, anchor, derived)
    return Restored(head_id=stated, fact=stated - len(cancelled), loss=found, cancelled=cancelled, aside=kept)


def resume(ledger: Path, anchor: Path | None = None, derived: Sequence[Path] = ()) -> Path | None:
    """Finish a restore that was interrupted while files changed places; returns where the old ones are.

    Raises :class:`NotFoundError` when none was.
    """
    with held(ledger, what="restoring", exchanging=True):
        if exchange.pending(ledger) is None:
            raise NotFoundError(
                "no restore was interrupted", hint="'rlp kb restore FOLDER' begins one", code="kb.resume"
            )
        return exchange.finish(ledger, anchor, derived)


# --- inside ---------------------------------------------------------------------------------------


def _compare(present: sqlite3.Connection, kept: sqlite3.Connection, signed: Anchor | None) -> Loss:
    head, own = _head(present), _head(kept)
    low, high = 0, min(head, own)  # hashes that agree at an event agree at all before it
    while low < high:
        middle = (low + high + 1) // 2
        if _hash(present, middle) == _hash(kept, middle):
            low = middle
        else:
            high = middle - 1
    anchored = signed.id if signed is not None else None
    beyond = anchored is not None and signed is not None and _hash(kept, anchored) != signed.hash
    last = max(head, anchored if beyond and anchored is not None else 0)
    if last <= low:
        return Loss(present_head=head, anchored_at=anchored, first=None, last=None)
    kinds: Counter[str] = Counter(
        dict(present.execute("SELECT kind, count(*) FROM events WHERE id > ? GROUP BY kind", (low,)))
    )
    why = f"the anchor proves event {anchored}, and it is not in the ledger" if last > head else ""
    return Loss(
        present_head=head,
        anchored_at=anchored,
        first=low + 1,
        last=last,
        kinds=dict(sorted(kinds.items())),
        why_unknown=why,
    )


def _from_anchor(copy: Path, signed: Anchor | None, why: str) -> Loss:
    """There is nothing to compare with but the anchor."""
    if signed is None:
        return Loss(present_head=None, anchored_at=None, first=None, last=None, why_unknown=why)
    with closing(connect_reader(copy, LEDGER)) as kept:
        has = _hash(kept, signed.id) == signed.hash
        own = _head(kept)
    return Loss(
        present_head=None,
        anchored_at=signed.id,
        first=None if has else min(own, signed.id - 1) + 1,
        last=None if has else signed.id,
        why_unknown=why or "there is no ledger in place",
    )


def _check_copy(folder: Path, backup: Backup, public_key: Ed25519PublicKey) -> None:
    """Take the backup over and judge the copy: what was judged is what is put in place."""
    try:
        copied = copy_new(backup.path / DATABASE, folder / exchange.NEW_LEDGER)
    except OSError as error:
        raise BackupError(
            f"{backup.path / DATABASE} was not copied: {error.strerror}", hint="use another backup"
        ) from error
    if copied != backup.manifest.files.get(DATABASE):
        raise BackupError(
            f"{backup.path / DATABASE} is not the file the manifest names", hint="use another backup"
        )
    report = verify(
        folder / exchange.NEW_LEDGER,
        public_key=public_key,
        known_missing=backup.manifest.blobs_missing,
    )
    if not report.ok or report.head_hash != backup.manifest.head_hash:
        first = report.first_bad
        raise BackupError(
            f"{backup.path} does not verify: {first.what if first else 'it ends elsewhere'}",
            hint="use another backup",
        )


def _state(
    folder: Path,
    fact: LedgerRestored,
    found: Loss,
    key: Ed25519PrivateKey,
    by: Ed25519PublicKey,
    clock: Clock,
) -> tuple[int, list[str]]:
    """Record the restore in the copy, sign it, and write the anchor that will go with it."""
    path = folder / exchange.NEW_LEDGER
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    runs: list[str] = []
    if not found.nothing:
        with Reader(path) as reader:
            runs = [str(run) for run in reader.unfinished_runs()]
    facts = [Draft(payload=fact, actor=fact.principal, scope="system")]
    reason = "the ledger was restored to an older state; what this run did since is not known"
    for run in runs:
        asked = RunCancelRequested(principal=fact.principal, reason=reason)
        facts.append(Draft(payload=asked, actor=fact.principal, run=run))
    with Ledger.open(path, signing_key=key, clock=clock, anchor=folder / exchange.NEW_ANCHOR) as ledger:
        if by != key.public_key():
            ledger.rekey(key, principal=fact.principal, before=by.public_bytes_raw())
        head = ledger.append(facts)[-1].id
    signed = read_anchor(folder / exchange.NEW_ANCHOR)
    if signed is None or signed.id != head:
        raise BackupError(f"the head of {path} could not be signed", hint="free space on the disk")
    for name in (f"{path.name}.lock", f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    return head, runs


def _head(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def _hash(connection: sqlite3.Connection, event_id: int) -> bytes | None:
    found = connection.execute("SELECT hash FROM events WHERE id = ?", (event_id,)).fetchone()
    return bytes(found[0]) if found else None


def _refused(found: Loss, backup: Backup) -> RefusedError:
    parts = []
    if found.first is not None:
        parts.append(f"events {found.first} to {found.last} would be lost")
    if not found.known:
        parts.append(f"nobody can tell what else is: {found.why_unknown}")
    return RefusedError(
        f"the backup ends at event {backup.manifest.head_id}; {'; '.join(parts)}",
        hint="add --accept-loss if that is meant; the present files are kept aside",
        code="kb.loss",
        loss=found.to_json(),
    )

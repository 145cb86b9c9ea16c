"""What can be saved of a damaged ledger: the longest beginning that still chains, as a backup to restore.

The damaged files are read and never changed, nor opened with SQLite, which would fold their log. What is
readable beyond the first event that cannot be proven is written out for people (``quarantine.jsonl``) and
never put into the ledger: it may be true, and nothing proves it. Offline only.

Knows: what proves a row. Does not know: how rows lie in pages (``pog.maintain.carve``) or how the result is
put in place (``pog.maintain.restore``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pog import sql
from pog.anchor import Anchor, read_anchor
from pog.chain import GENESIS, RawRow, Row, head_statement
from pog.errors import LedgerCorruptError
from pog.ledger import Ledger
from pog.lock import untouched
from pog.maintain import backup
from pog.maintain.carve import carve
from pog.maintain.checks import named_blobs, verify
from pog.maintain.files import appearing_folder
from pog.maintain.locate import relink
from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import NotFoundError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["QUARANTINE", "Salvaged", "salvage"]

QUARANTINE = "quarantine.jsonl"
_FOUND = """
    CREATE TABLE events (id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash,
                         sure, print, PRIMARY KEY (id, print));
    CREATE TABLE blobs (hash PRIMARY KEY, data);
    CREATE TABLE heads (event_id, hash, ts_ms, public_key, signature, PRIMARY KEY (event_id, signature));
    CREATE TABLE proven (hash PRIMARY KEY) WITHOUT ROWID;
"""
_NEWEST = "SELECT coalesce(max(id), 0) FROM events WHERE sure"
_ADD_EVENT = """
    INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sure = max(sure, excluded.sure)
"""


@dataclass(kw_only=True, slots=True)
class Salvaged:
    """What was saved and what was not."""

    path: Path
    events: int = 0
    """The beginning that chains: events 1 to this one."""
    signed_up_to: int = 0
    """Newest of them under a head that the old ledger had signed."""
    anchored_at: int | None = None
    """Newest event that the anchor proves to have been there."""
    newest_seen: int = 0
    """Largest id of anything that was readable and surely stated."""
    beyond: int = 0
    """Readable events that are not kept; they are in ``quarantine.jsonl``. Some may never have been stated: a
    commit that a power cut stopped leaves them behind as well."""
    blobs: int = 0
    blobs_missing: list[str] = field(default_factory=list)
    """Digests that saved events name and whose bytes are gone."""

    @property
    def lost_to(self) -> int | None:
        """Newest event known to be lost; None when none is known."""
        newest = max(self.newest_seen, self.anchored_at or 0)
        return newest if newest > self.events else None

    @property
    def whole(self) -> bool:
        """Nothing is known to be lost."""
        return self.lost_to is None and not self.blobs_missing

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "path": str(self.path),
            "events": self.events,
            "signed_up_to": self.signed_up_to,
            "anchored_at": self.anchored_at,
            "lost_from": self.events + 1 if self.lost_to else None,
            "lost_to": self.lost_to,
            "beyond": self.beyond,
            "blobs": self.blobs,
            "blobs_missing": self.blobs_missing,
            "whole": self.whole,
        }


def salvage(
    damaged: Path, to: Path, *, key: Ed25519PrivateKey, clock: Clock, anchor: Path | None = None
) -> Salvaged:
    """Read the damaged ledger and write what can be proven into a new folder ``to``: a backup.

    Raises :class:`LedgerLockedError` while a writer holds the ledger, :class:`LedgerCorruptError` when not
    one event can be proven, :class:`ConflictError` when ``to`` exists.
    """
    if not damaged.is_file():
        raise NotFoundError(f"there is no ledger at {damaged}", hint="name the file", code="ledger.absent")
    signed = _anchor(anchor)
    done = Salvaged(path=to.absolute(), anchored_at=signed.id if signed is not None else None)
    with untouched(damaged), appearing_folder(to) as folder:
        scratch = folder / ".found"
        with closing(_found(damaged, scratch)) as found:
            _prove(found, signed)
            done.newest_seen = found.execute(_NEWEST).fetchone()[0]
            with closing(_new_ledger(folder)) as made:
                _keep_events(found, made, done)
                if not done.events:
                    raise LedgerCorruptError(
                        f"no event of {damaged} can be proven", hint="restore a backup with 'rlp kb restore'"
                    )
                _keep_heads(found, made, done, key, clock)
                _keep_blobs(found, made, done)
            _quarantine(found, folder / QUARANTINE, done)
        _remove(scratch)
        report = verify(folder / backup.DATABASE, public_key=key.public_key())
        backup.seal(folder, report, source="salvage", key=key, clock=clock, blobs_missing=done.blobs_missing)
    return done


# --- what was readable ----------------------------------------------------------------------------


def _found(damaged: Path, scratch: Path) -> sqlite3.Connection:
    """Everything that looks like a row, in a file of its own: there may be millions."""
    os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    found = sqlite3.connect(scratch, isolation_level=None)
    found.execute("PRAGMA journal_mode = OFF").fetchone()
    found.execute("PRAGMA synchronous = OFF")
    found.executescript(_FOUND)
    found.execute("BEGIN")
    for row in carve(damaged, damaged.with_name(damaged.name + "-wal")):
        if row.table == "events":
            found.execute(_ADD_EVENT, (*row.cells, row.sure, blob_digest(repr(row.cells).encode())))
        elif row.table == "heads":
            found.execute("INSERT OR IGNORE INTO heads VALUES (?, ?, ?, ?, ?)", row.cells)
        elif blob_digest(row.cells[1]) == row.cells[0].hex():
            found.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", row.cells)
    found.execute("COMMIT")
    return found


def _prove(found: sqlite3.Connection, signed: Anchor | None) -> None:
    """Collect the hashes that something sure vouches for: the event after it, a head, the anchor.

    A leftover in the log may be of a transaction that never ended. It counts once what follows it names it.
    """
    execute = found.execute
    execute("INSERT OR IGNORE INTO proven SELECT prev_hash FROM events WHERE sure")
    execute("INSERT OR IGNORE INTO proven SELECT hash FROM heads")
    if signed is not None:
        execute("INSERT OR IGNORE INTO proven VALUES (?)", (signed.hash,))
    unsure = "SELECT rowid, prev_hash, hash FROM events WHERE NOT sure ORDER BY id DESC"
    for rowid, prev_hash, own in execute(unsure).fetchall():
        if execute("SELECT 1 FROM proven WHERE hash = ?", (own,)).fetchone():
            execute("UPDATE OR IGNORE events SET sure = 1 WHERE rowid = ?", (rowid,))
            execute("INSERT OR IGNORE INTO proven VALUES (?)", (prev_hash,))


def _chained(found: sqlite3.Connection) -> Iterator[RawRow]:
    """The events that chain from the first on; a damaged hash is put right where what follows proves it."""
    columns = ", ".join(Row._fields)
    prev_hash, event_id = GENESIS, 0
    while True:
        event_id += 1
        best: RawRow | None = None
        for *cells, sure in found.execute(f"SELECT {columns}, sure FROM events WHERE id = ?", (event_id,)):  # noqa: S608
            own = relink(tuple(cells), prev_hash)
            if own is None:
                continue
            proven = found.execute("SELECT 1 FROM proven WHERE hash = ?", (own,)).fetchone() is not None
            if proven or (sure and own == cells[9] and best is None):
                best = (*cells[:9], own, prev_hash)
            if proven:
                break
        if best is None:
            return
        yield best
        prev_hash = best[9]


# --- what is kept ---------------------------------------------------------------------------------


def _new_ledger(folder: Path) -> sqlite3.Connection:
    path = folder / backup.DATABASE
    Ledger.open(path).close()
    path.with_name(f"{path.name}.lock").unlink()
    made = sqlite3.connect(path, isolation_level=None)
    made.execute("PRAGMA journal_mode = DELETE").fetchone()
    made.execute("PRAGMA synchronous = OFF")  # the folder is brought to the disk before it gets its name
    return made


def _keep_events(found: sqlite3.Connection, made: sqlite3.Connection, done: Salvaged) -> None:
    statement = sql.named("statements.sql")["append_event"]
    made.execute("BEGIN")
    for row in _chained(found):
        try:
            texts = [
                cell.decode() if 2 <= at <= 8 and isinstance(cell, bytes) else cell
                for at, cell in enumerate(row)
            ]
        except UnicodeDecodeError:
            break
        made.execute(statement, texts)
        done.events = row[0]
    made.execute("COMMIT")


def _keep_heads(
    found: sqlite3.Connection,
    made: sqlite3.Connection,
    done: Salvaged,
    key: Ed25519PrivateKey,
    clock: Clock,
) -> None:
    """The heads that our key signed; and one over all that is kept, so that it is covered from now on."""
    from cryptography.exceptions import InvalidSignature

    public, statements = key.public_key(), sql.named("statements.sql")
    own = public.public_bytes_raw()
    for head in found.execute("SELECT * FROM heads WHERE event_id <= ? ORDER BY event_id", (done.events,)):
        event_id, own_hash, ts_ms, public_key, signature = head
        kept = made.execute(statements["hash_at"], (event_id,)).fetchone()
        if public_key != own or kept is None or kept[0] != own_hash or ts_ms < 0:
            continue
        try:
            public.verify(signature, head_statement(event_id, own_hash, ts_ms))
        except InvalidSignature:
            continue
        made.execute(statements["append_head"], head)
        done.signed_up_to = event_id
    if done.signed_up_to < done.events:
        (own_hash,) = made.execute(statements["hash_at"], (done.events,)).fetchone()
        now_ms = clock.now_ms()
        signature = key.sign(head_statement(done.events, own_hash, now_ms))
        made.execute(statements["append_head"], (done.events, own_hash, now_ms, own, signature))


def _keep_blobs(found: sqlite3.Connection, made: sqlite3.Connection, done: Salvaged) -> None:
    statement = sql.named("statements.sql")["append_blob"]
    made.execute("BEGIN")
    for row in found.execute("SELECT hash, data FROM blobs"):
        made.execute(statement, row)
        done.blobs += 1
    made.execute("COMMIT")
    named = {
        digest
        for (payload,) in made.execute("SELECT payload FROM events WHERE payload LIKE '%blob\"%'")
        for _, digest in named_blobs(payload)
    }
    have = {key.hex() for (key,) in made.execute("SELECT hash FROM blobs")}
    done.blobs_missing = sorted(named - have)


def _quarantine(found: sqlite3.Connection, path: Path, done: Salvaged) -> None:
    """Everything readable beyond the end, one JSON object a line, for people."""
    columns = ", ".join(Row._fields)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as out:
        rows = found.execute(
            f"SELECT {columns}, sure FROM events WHERE id > ? ORDER BY id",  # noqa: S608
            (done.events,),
        )
        for *row, sure in rows:
            own = relink(tuple(row), row[10])
            out.write(
                msgspec.json.encode(
                    {
                        **{name: _shown(cell) for name, cell in zip(Row._fields, row, strict=True)},
                        "intact": own == row[9],
                        "stated": bool(sure),
                    }
                )
                + b"\n"
            )
            done.beyond += 1


def _shown(cell: Any) -> Any:
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode() if len(cell) != 32 else cell.hex()
    except UnicodeDecodeError:
        return cell.decode("utf-8", "replace")


def _anchor(path: Path | None) -> Anchor | None:
    try:
        return read_anchor(path) if path is not None else None
    except LedgerCorruptError:
        return None  # what it would have proven is not known; the rest is saved all the same


def _remove(scratch: Path) -> None:
    for name in (scratch.name, f"{scratch.name}-journal"):
        scratch.with_name(name).unlink(missing_ok=True)

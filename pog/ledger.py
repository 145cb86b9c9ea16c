"""The ledger's one writer: facts go in, in order, all or nothing, chained and signed.

Knows: transactions, the chain, checkpoints, the writer lock, what to do after a failed write. Does not know:
who may state a fact, who wants to hear of it (``runloopd.journal``), or what it means (``pog.materializer``).

After a failed write nothing of it is in the ledger. The next append first reads the head anew and refuses
for good if the file and this process disagree.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pog import sql
from pog.anchor import Anchor, read_anchor, write_anchor
from pog.chain import GENESIS, Row, head_statement, link, payload_decoder
from pog.connection import LEDGER, check_identity, connect_writer
from pog.errors import LedgerCorruptError, LedgerLockedError, LedgerUncertainError, LedgerWriteError
from pog.wal import lost_commits
from runloop.clock import Clock, SystemClock
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError, UsageError
from runloop.events import KINDS, Draft, Event, Payload, encode_payload

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Head", "Ledger", "Prepared"]

_SCOPE = re.compile(r"(user|system|agent:[a-z][a-z0-9_]{0,63})\Z")
_SIGNED_AT = frozenset({"daemon.started", "daemon.stopped", "run.finished"})
"""Kinds at whose commit the head is signed, so that what people look at is always covered."""
_HINTS = {
    "SQLITE_FULL": "free space on the disk, then try again",
    "SQLITE_READONLY": "make the ledger's file and directory writable again",
    "SQLITE_IOERR": "look at the disk ('dmesg'), then try again",
    "SQLITE_BUSY": "end the program that holds the ledger's file",
    "SQLITE_CORRUPT": "rlp verify",
    "SQLITE_NOTADB": "rlp verify",
    "SQLITE_TOOBIG": "keep one event or blob under 1 GB",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The newest link of the chain; ``id`` 0 while the ledger is empty."""

    id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft that is known to be storable: validated, with its canonical texts."""

    draft: Draft
    payload: Payload
    payload_text: bytes
    provenance_text: bytes


class Ledger:
    """Open with :meth:`open`. Safe to use from any thread, one call at a time."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        lock: int,
        *,
        signing_key: Ed25519PrivateKey | None,
        clock: Clock,
        sign_every: int,
        durable: bool,
        anchor: Path | None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._lock_file = lock
        self._key = signing_key
        self._public = signing_key.public_key().public_bytes_raw() if signing_key else b""
        self._clock = clock
        self._sign_every = sign_every
        self._durable = durable
        """Whether a commit is on the disk when it returns."""
        self._anchor = anchor
        self._sql = sql.named("statements.sql")
        self._mutex = threading.Lock()
        self.torn_tail = False
        """Whether the log ended in a transaction that cannot be read and was cut off when it was opened."""
        self._doubt = False
        self._closed = False
        self._head = self._read_head()
        self._signed_up_to = self._check_tail()
        self._check_anchor()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        signing_key: Ed25519PrivateKey | None = None,
        synchronous: str = "FULL",
        clock: Clock | None = None,
        sign_every: int = 256,
        anchor: Path | None = None,
    ) -> Ledger:
        """Open the ledger at ``path`` as its only writer, creating it if there is none.

        ``synchronous`` FULL: an event is on the disk when ``append`` returns; NORMAL: it survives a crash of
        the process but not of the machine. The head is signed every ``sign_every`` events, when a daemon
        starts or stops, when a run ends, and at close. ``anchor`` is a file outside the database's directory
        that repeats the last signed head: a ledger that is older, or another one, is refused.

        Raises :class:`LedgerLockedError` when another writer lives, :class:`LedgerVersionError` for a foreign
        or newer file, :class:`LedgerCorruptError` when what follows the last signed head does not chain,
        or when the ledger is not the one its anchor knows.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(file)
        try:
            torn = _refuse_damaged_log(file)
            connection = _connect(file, synchronous)
            try:
                opened = cls(
                    connection,
                    file,
                    lock,
                    signing_key=signing_key,
                    clock=clock or SystemClock(),
                    sign_every=sign_every,
                    durable=synchronous.upper() in ("FULL", "EXTRA"),
                    anchor=anchor,
                )
                opened.torn_tail = torn > 0
                return opened
            except BaseException:
                connection.close()
                raise
        except BaseException:
            os.close(lock)
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def head(self) -> Head:
        """The newest event's id and hash."""
        return self._head

    def prepare(self, drafts: Iterable[Draft]) -> list[Prepared]:
        """Validate drafts and write their canonical texts. Pure: nothing is stored.

        Raises :class:`UsageError` for a kind, payload, scope or text that the ledger refuses.
        """
        return [_prepare(draft) for draft in drafts]

    def append(self, drafts: Sequence[Draft], blobs: Iterable[bytes] = ()) -> list[Event]:
        """State facts: all of them, in this order, in one transaction, or none.

        The same fact may be stated twice. ``blobs`` are the bytes that ``*_blob`` fields name.
        Raises :class:`UsageError` (a draft is wrong) or :class:`LedgerWriteError` (they are not recorded).
        """
        return self.commit(self.prepare(drafts), blobs)

    def commit(self, prepared: Sequence[Prepared], blobs: Iterable[bytes] = ()) -> list[Event]:
        """Second half of :meth:`append`."""
        with self._mutex:
            self._ensure_usable()
            now_ms = self._clock.now_ms()
            rows, events = self._chain(prepared, now_ms)
            stored = [(bytes.fromhex(blob_digest(data)), data) for data in map(bytes, blobs)]
            if not rows and not stored:
                return []
            head = Head(events[-1].id, events[-1].hash) if events else self._head
            due = head.id - self._signed_up_to >= self._sign_every
            ends = any(item.payload.kind in _SIGNED_AT for item in prepared)
            sign = self._key is not None and (due or ends)
            self._write(rows, stored, head if sign else None, now_ms)
            self._head = head
            return events

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file. For a thread beside the writer; never blocks it."""
        # A connection of its own: the writer's one stays free for commits (lab/bus-store.md, commit tails).
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError:
            pass  # somebody reads; the next one does it
        finally:
            connection.close()

    def close(self) -> None:
        """Sign the head, fold the log into the file and let the next writer in. May be called twice."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                if self._key is not None and not self._doubt and self._head.id > self._signed_up_to:
                    self._write([], [], self._head, self._clock.now_ms())
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except (sqlite3.Error, LedgerWriteError):
                pass  # everything acknowledged is in the log already; the next open signs and folds
            finally:
                self._connection.close()
                os.close(self._lock_file)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------

    def _chain(self, prepared: Sequence[Prepared], now_ms: int) -> tuple[list[Row], list[Event]]:
        rows: list[Row] = []
        events: list[Event] = []
        last_id, prev_hash = self._head.id, self._head.hash
        for item in prepared:
            draft, kind, version = item.draft, item.payload.kind, item.payload.version
            last_id += 1
            own_hash = link(
                prev_hash,
                event_id=last_id,
                ts_ms=now_ms,
                actor=draft.actor.encode(),
                kind=kind.encode(),
                version=version,
                scope=draft.scope.encode(),
                run=None if draft.run is None else draft.run.encode(),
                payload=item.payload_text,
                provenance=item.provenance_text,
            )
            rows.append(
                Row(
                    last_id,
                    now_ms,
                    draft.actor,
                    kind,
                    version,
                    draft.scope,
                    draft.run,
                    item.payload_text.decode(),
                    item.provenance_text.decode(),
                    own_hash,
                    prev_hash,
                )
            )
            events.append(
                Event(
                    id=last_id,
                    ts_ms=now_ms,
                    actor=draft.actor,
                    kind=kind,
                    scope=draft.scope,
                    run=draft.run,
                    payload=item.payload,
                    provenance=draft.provenance,
                    hash=own_hash,
                    prev_hash=prev_hash,
                )
            )
            prev_hash = own_hash
        return rows, events

    def _write(
        self, rows: list[Row], blobs: list[tuple[bytes, bytes]], sign: Head | None, now_ms: int
    ) -> None:
        execute = self._connection.execute
        signed: Anchor | None = None
        try:
            execute("BEGIN IMMEDIATE")
            if blobs:
                self._connection.executemany(self._sql["append_blob"], blobs)
            if rows:
                self._connection.executemany(self._sql["append_event"], rows)
            if sign is not None and self._key is not None:
                signature = self._key.sign(head_statement(sign.id, sign.hash, now_ms))
                execute(self._sql["append_head"], (sign.id, sign.hash, now_ms, self._public, signature))
                signed = Anchor(id=sign.id, hash=sign.hash, ts_ms=now_ms, signature=signature)
            execute("COMMIT")
        except BaseException as error:
            self._doubt = True
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise _write_error(error, self._path) from error
            raise
        if signed is not None:
            self._signed_up_to = signed.id
            self._keep_anchor(signed)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the doubt stays; the next append looks at the file

    def _ensure_usable(self) -> None:
        if self._closed:
            raise LedgerWriteError("the ledger is closed", hint="rlp daemon start", code="ledger.closed")
        if not self._doubt:
            return
        try:
            self._roll_back()
            found = self._read_head()
        except sqlite3.Error as error:
            raise _write_error(error, self._path) from error
        if found != self._head:
            raise LedgerUncertainError(
                f"the ledger's head is event {found.id}, this process knows {self._head.id}",
                hint="'rlp daemon stop', then 'rlp verify'",
            )
        self._doubt = False

    def _read_head(self) -> Head:
        found = self._connection.execute(self._sql["head"]).fetchone()
        return Head(*found) if found else Head(0, GENESIS)

    def _check_tail(self) -> int:
        """Re-link what follows the last signed head: nothing is signed unseen."""
        signed = self._connection.execute(self._sql["last_head"]).fetchone()
        signed_id, prev_hash = signed or (0, GENESIS)
        if signed_id:
            found = self._connection.execute(self._sql["hash_at"], (signed_id,)).fetchone()
            if found is None or found[0] != prev_hash:
                raise _corrupt(self._path, signed_id, "it is not the event that was signed")
        expected = signed_id
        cursor = self._connection.execute(self._sql["rows_after"], (signed_id, -1))
        for row in map(Row._make, cursor):
            expected += 1
            if row.id != expected or row.prev_hash != prev_hash or row.hash != _relink(row, prev_hash):
                raise _corrupt(self._path, expected, "it does not chain to the event before it")
            prev_hash = row.hash
        return int(signed_id)

    # --- the anchor ------------------------------------------------------------------------------

    def _check_anchor(self) -> None:
        """Compare the ledger with the anchor, and bring an anchor that is behind up to date.

        It is behind after a crash between a commit and its writing; it is never ahead of a durable commit.
        """
        if self._anchor is None:
            return
        anchor = read_anchor(self._anchor)
        if anchor is not None:
            self._compare(anchor)
        if self._key is None or self._signed_up_to <= (anchor.id if anchor is not None else 0):
            return
        event_id, own_hash, ts_ms, signature = self._connection.execute(self._sql["signed_head"]).fetchone()
        last = Anchor(id=event_id, hash=own_hash, ts_ms=ts_ms, signature=signature)
        if last.signed_by(self._key.public_key()):
            self._keep_anchor(last)
        elif anchor is not None:
            raise _corrupt(self._path, event_id, "its head was signed with another key")

    def _compare(self, anchor: Anchor) -> None:
        if self._key is not None and not anchor.signed_by(self._key.public_key()):
            raise LedgerCorruptError(
                f"{self._anchor} was not signed with this ledger's key",
                hint="rlp verify",
                path=str(self._anchor),
            )
        found = self._connection.execute(self._sql["hash_at"], (anchor.id,)).fetchone()
        if found is not None and found[0] == anchor.hash:
            return
        what = "is not the event that was signed" if found else "was signed and is missing"
        raise LedgerCorruptError(
            f"event {anchor.id} in {self._path} {what}; the ledger was changed, or put back to an older "
            f"state without {self._anchor}",
            hint="rlp verify",
            event=anchor.id,
        )

    def _keep_anchor(self, anchor: Anchor) -> None:
        """Write the anchor. The facts are recorded: where that fails it is behind, until the next one."""
        if self._anchor is None:
            return
        with suppress(OSError):
            if not self._durable:
                _sync_log(self._path)
            write_anchor(self._anchor, anchor)


def _relink(row: Row, prev_hash: bytes) -> bytes:
    return link(
        prev_hash,
        event_id=row.id,
        ts_ms=row.ts_ms,
        actor=row.actor.encode(),
        kind=row.kind.encode(),
        version=row.version,
        scope=row.scope.encode(),
        run=None if row.run is None else row.run.encode(),
        payload=row.payload.encode(),
        provenance=row.provenance.encode(),
    )


def _prepare(draft: Draft) -> Prepared:
    kind = draft.payload.kind
    if KINDS.get(kind) is not type(draft.payload):
        raise UsageError(f"unknown event kind {kind!r}", code="event.kind")
    if not draft.actor or not _SCOPE.match(draft.scope) or draft.run == "":
        raise UsageError(
            f"{kind}: actor {draft.actor!r}, scope {draft.scope!r}, run {draft.run!r}",
            hint="scope is user, system or agent:<name>; actor and run are not empty",
            code="event.shape",
        )
    try:
        text = canonical(encode_payload(draft.payload))
        # What a reader will see, so that nothing enters that cannot be read back.
        payload = payload_decoder(kind).decode(text)
        provenance = canonical(msgspec.to_builtins(draft.provenance))
        draft.actor.encode()
        (draft.run or "").encode()
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError) as error:
        raise UsageError(f"{kind}: {error}", code="event.shape") from error
    return Prepared(draft, payload, text, provenance)


def _sync_log(path: Path) -> None:
    """Bring what was committed to the disk, where a commit itself does not wait for it."""
    with suppress(FileNotFoundError):  # folded into the file, which is synced then
        log = os.open(path.with_name(path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(log)
        finally:
            os.close(log)


def _refuse_damaged_log(path: Path) -> int:
    """How many transactions at the log's end cannot be read: 0 or 1; more is refused."""
    lost = lost_commits(path)
    if lost > 1:  # one may be the tail that a power cut tore: never acknowledged, cut off by SQLite
        raise LedgerCorruptError(
            f"{path}-wal is damaged: {lost} transactions in it cannot be read",
            hint="keep the files aside, restore a backup; nothing was changed",
        )
    return lost


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    try:
        connection = connect_writer(path, synchronous=synchronous)
    except (sqlite3.Error, OSError) as error:
        raise _open_error(error, path) from error
    try:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            _create(connection)
        check_identity(connection, path, LEDGER)
        connection.execute("PRAGMA trusted_schema = OFF")
        # Checkpoints come from a thread; this is the alarm for when none comes: 64 MiB of log.
        connection.execute("PRAGMA wal_autocheckpoint = 16000")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _open_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.executescript(
        "BEGIN IMMEDIATE;"
        + sql.load("ledger.sql")
        + f"PRAGMA application_id = {LEDGER.application_id}; PRAGMA user_version = {LEDGER.version}; COMMIT;"
    )


def _lock(path: Path) -> int:
    """One writer per ledger, over every process of the machine. The kernel lets go when the holder dies."""
    name = path.with_name(path.name + ".lock")
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _write_error(error, name) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerLockedError(
            f"another process writes {path}", hint="rlp daemon status", path=str(path)
        ) from error
    return lock


def _write_error(error: sqlite3.Error | OSError, path: Path) -> LedgerWriteError:
    name = getattr(error, "sqlite_errorname", "") or ""
    hint = next((text for prefix, text in _HINTS.items() if name.startswith(prefix)), "rlp doctor")
    return LedgerWriteError(f"{path} was not written: {error}", hint=hint, reason=name)


def _open_error(error: sqlite3.Error | OSError, path: Path) -> RunloopError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return LedgerCorruptError(f"{path} cannot be read: {error}", hint="rlp verify")
    return _write_error(error, path)


def _corrupt(path: Path, event: int, what: str) -> LedgerCorruptError:
    return LedgerCorruptError(
        f"event {event} in {path} was changed: {what}",
        hint="'rlp verify' says what; then restore a backup",
        event=event,
    )

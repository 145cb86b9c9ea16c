"""The ledger's one writer: facts go in, in order, all or nothing, chained and signed.

Knows: transactions, the chain, checkpoints, the writer lock, what to do after a failed write. Does not know:
who may state a fact, who wants to hear of it (``runloopd.journal``), or what it means (``pog.materializer``).

After a failed write nothing of it is in the ledger. The next append first reads the head anew and refuses
for good if the file and this process disagree.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pog import sql
from pog.anchor import Anchor, read_anchor, write_anchor
from pog.chain import GENESIS, Row, head_statement, linker, relink_row
from pog.connection import LEDGER, check_identity, connect_writer, make_tables
from pog.errors import LedgerCorruptError, LedgerUncertainError, LedgerWriteError
from pog.insert import insert, is_one
from pog.lock import take
from pog.prepare import Prepared, prepare
from pog.rekey import rekeyed
from pog.wal import lost_commits
from runloop.clock import Clock, SystemClock
from runloop.digest import blob_hash, hasher
from runloop.errors import RunloopError
from runloop.events import Draft, Event

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Head", "Ledger", "Prepared"]

_SIGNED_AT = frozenset({"daemon.started", "daemon.stopped", "run.finished"})
"""Kinds at whose commit the head is signed, so that what people look at is always covered."""
_ROOM = 8 * 1024 * 1024
"""Bytes of log that a daemon writes beforehand."""
_ALARM_PAGES = 8_000
"""Log at which a commit folds it itself: 32 MiB. A thread does it sooner; this is for when none does."""
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
        self._anchor_due: Anchor | None = None
        self._anchor_mutex = threading.Lock()
        self._checkpointer: sqlite3.Connection | None = None
        self._checkpoint_mutex = threading.Lock()
        self.defers_anchor = False
        """Whether somebody else calls :meth:`keep_anchor` after commits: it waits for the disk."""
        self._sql = sql.named("statements.sql")
        self._link = linker(hasher())
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
            with ExitStack() as looking:

                def opened_on(connection: sqlite3.Connection) -> Ledger:
                    return cls(
                        connection,
                        file,
                        lock,
                        signing_key=signing_key,
                        clock=clock or SystemClock(),
                        sign_every=sign_every,
                        durable=synchronous.upper() in ("FULL", "EXTRA"),
                        anchor=anchor,
                    )

                # Closing a connection that may write folds the log into the file: what is to be refused is
                # refused by one that may not, so that a damaged ledger stays as it is.
                look = _connect_looking(file)
                if look is not None:
                    looking.enter_context(closing(look))
                    opened_on(look)
                connection = _connect(file, synchronous)
                try:
                    opened = opened_on(connection)
                except BaseException:
                    connection.close()
                    raise
            if torn:
                # What it left in the log would look like damage once shorter transactions lie before it.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            opened.torn_tail = torn > 0
            return opened
        except sqlite3.Error as error:  # a page that the first look did not need
            os.close(lock)
            raise _open_error(error, file) from error
        except BaseException:
            os.close(lock)
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def waits(self) -> bool:
        """Whether a commit waits for the disk (``synchronous`` FULL)."""
        return self._durable

    @property
    def head(self) -> Head:
        """The newest event's id and hash."""
        return self._head

    @property
    def anchor_due(self) -> bool:
        """Whether a head was signed that the anchor does not name yet."""
        return self._anchor_due is not None

    def prepare(self, drafts: Iterable[Draft]) -> list[Prepared]:
        """Validate drafts and write their canonical texts. Pure: nothing is stored.

        Raises :class:`UsageError` for a kind, payload, scope or text that the ledger refuses.
        """
        return [prepare(draft) for draft in drafts]

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
            events = self._chain(prepared, now_ms)
            stored = [(blob_hash(data), data) for data in map(bytes, blobs)]
            if not events and not stored:
                return []
            head = Head(events[-1].id, events[-1].hash) if events else self._head
            due = head.id - self._signed_up_to >= self._sign_every
            ends = any(item.payload.kind in _SIGNED_AT for item in prepared)
            sign = self._key is not None and (due or ends)
            self._write(prepared, events, stored, head if sign else None, now_ms)
            self._head = head
            return events

    def checkpoint(self) -> int:
        """Move the write-ahead log into the file; tell how many pages the log holds. For a thread beside the
        writer; never blocks it. The log is begun anew once all of it is moved, so not while somebody commits.
        """
        # A connection of its own: the writer's one stays free for commits (lab/bus-store.md, commit tails).
        with self._checkpoint_mutex:
            if self._closed:
                return 0
            if self._checkpointer is None:
                self._checkpointer = sqlite3.connect(
                    self._path, isolation_level=None, timeout=0, check_same_thread=False
                )
            try:
                _, pages, _ = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.OperationalError:
                return 0  # somebody reads; the next one does it
            return int(pages)

    def make_room(self) -> None:
        """Write the log's file to the size it will have, where that fails not at all.

        A commit that writes over what is there spares the disk an entry in its own journal (docs/adr/0011).
        SQLite reads a log up to the first frame that is none of its own.
        """
        with self._mutex, suppress(OSError):  # nobody else writes to the log meanwhile
            name = self._path.with_name(self._path.name + "-wal")
            log = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                size = os.fstat(log).st_size
                if size < _ROOM:
                    os.pwrite(log, bytes(_ROOM - size), size)
                    os.fsync(log)
            finally:
                os.close(log)

    def sign_head(self) -> int:
        """Sign the newest event, unless that is done; its id. Raises :class:`LedgerWriteError`."""
        with self._mutex:
            self._ensure_usable()
            if self._key is not None and self._head.id > self._signed_up_to:
                self._write([], [], [], self._head, self._clock.now_ms())
            return self._head.id

    def rekey(self, key: Ed25519PrivateKey, *, principal: str, before: bytes | None = None) -> int:
        """Sign with ``key`` from here on; the event that says so. The fact and a head of the new key are one
        transaction. ``before``: the public half of the key whose heads it vouches for, where that is not the
        one the ledger was opened with. Raises :class:`LedgerWriteError`: then nothing has changed."""
        with self._mutex:
            self._ensure_usable()
            fact = rekeyed(
                before or self._public,
                key,
                last=self._head.id,
                last_hash=self._head.hash,
                principal=principal,
                handing=self._key if before is None else None,
            )
            prepared = self.prepare([Draft(payload=fact, actor=principal, scope="system")])
            now_ms = self._clock.now_ms()
            events = self._chain(prepared, now_ms)
            head, own = Head(events[-1].id, events[-1].hash), (self._key, self._public)
            self._key, self._public = key, key.public_key().public_bytes_raw()
            try:
                self._write(prepared, events, [], head, now_ms)
            except BaseException:
                self._key, self._public = own
                raise
            self._head = head
            return head.id

    def keep_anchor(self) -> None:
        """Write the anchor of the newest signed head, if that is still to be done."""
        with self._anchor_mutex:
            due, self._anchor_due = self._anchor_due, None
            if due is not None and self._anchor is not None:
                # The facts are recorded: where this fails the anchor is behind, until the next one.
                with suppress(OSError):
                    if not self._durable:
                        _sync_log(self._path)
                    write_anchor(self._anchor, due)

    def close(self) -> None:
        """Sign the head, fold the log into the file and let the next writer in. May be called twice."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            with self._checkpoint_mutex:
                if self._checkpointer is not None:
                    self._checkpointer.close()
            try:
                if self._key is not None and not self._doubt and self._head.id > self._signed_up_to:
                    self._write([], [], [], self._head, self._clock.now_ms())
                self.keep_anchor()
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

    def _chain(self, prepared: Sequence[Prepared], now_ms: int) -> list[Event]:
        """The events that these become, linked to the head."""
        events: list[Event] = []
        last_id, prev_hash, link = self._head.id, self._head.hash, self._link
        for item in prepared:
            draft, payload = item.draft, item.payload
            last_id += 1
            own_hash = link(prev_hash, last_id, now_ms, item.setting, item.payload_text, item.provenance_text)
            events.append(
                Event(
                    id=last_id,
                    ts_ms=now_ms,
                    actor=draft.actor,
                    kind=payload.kind,
                    scope=draft.scope,
                    run=draft.run,
                    payload=payload,
                    provenance=draft.provenance,
                    hash=own_hash,
                    prev_hash=prev_hash,
                )
            )
            prev_hash = own_hash
        return events

    def _write(
        self,
        prepared: Sequence[Prepared],
        events: Sequence[Event],
        blobs: list[tuple[bytes, bytes]],
        sign: Head | None,
        now_ms: int,
    ) -> None:
        execute = self._connection.execute
        signed: Anchor | None = None
        try:
            if not blobs and sign is None and is_one(prepared):
                # A statement by itself is a transaction: one hand-over between threads instead of three.
                self._insert(prepared, events)
                return
            execute("BEGIN IMMEDIATE")
            if blobs:
                self._connection.executemany(self._sql["append_blob"], blobs)
            self._insert(prepared, events)
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
            self._anchor_due = signed
            if not self.defers_anchor:
                self.keep_anchor()

    def _insert(self, prepared: Sequence[Prepared], events: Sequence[Event]) -> None:
        if events:
            first = events[0]
            hashes = [event.hash for event in events]
            insert(self._connection, first.id, first.ts_ms, first.prev_hash, prepared, hashes)

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
            if row.id != expected or row.prev_hash != prev_hash or row.hash != relink_row(row, prev_hash):
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
            self._anchor_due = last
            self.keep_anchor()
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


def _connect_looking(path: Path) -> sqlite3.Connection | None:
    """A connection that cannot write; None where there is no ledger yet."""
    if not path.exists() or not path.stat().st_size:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:  # SQLite would throw it away
            raise LedgerCorruptError(
                f"{path} is gone or empty, and its log is not",
                hint="restore a backup; nothing was changed",
            )
        return None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise _open_error(error, path) from error
    try:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            connection.close()
            return None
        check_identity(connection, path, LEDGER)
    except sqlite3.Error as error:
        connection.close()
        raise _open_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


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
        connection.execute(f"PRAGMA wal_autocheckpoint = {_ALARM_PAGES}")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _open_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    make_tables(connection, LEDGER, sql.load("ledger.sql"))


def _lock(path: Path) -> int:
    try:
        return take(path)
    except OSError as error:
        raise _write_error(error, path.with_name(path.name + ".lock")) from error


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

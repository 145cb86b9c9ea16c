"""Is what is in the files what was written there? Looks at everything, changes nothing.

Knows: the chain, the signed heads, the bytes behind digests, the log, and that views equal the fold. Works on
a closed ledger and beside a living writer. Does not repair: damaged files are put aside and restored.

A changed byte is located: the event, and, where trying all values of one byte tells, the very column.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pog import sql
from pog.anchor import read_anchor
from pog.chain import GENESIS, Row, decode_row, head_statement, link
from pog.connection import LEDGER, VIEWS, OutdatedError, connect_reader
from pog.errors import LedgerCorruptError, LedgerVersionError
from pog.folds import TABLES, Folds, create_tables
from pog.materializer import fold_rows
from pog.wal import lost_commits
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Finding", "Report", "verify"]

_MAX_FINDINGS = 50
_SEARCH_BYTES = 384 * 1024 * 1024
"""Bytes hashed, at most, to find out which byte of the first bad rows was changed."""
_SEARCHES = 3

RawRow = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is not as it was written."""

    where: str
    """``events``, ``heads``, ``anchor``, ``blobs``, ``file``, ``log`` or ``views``."""
    event: int | None
    """The event it concerns."""
    field: str | None
    """The column, when it is known."""
    what: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"where": self.where, "event": self.event, "field": self.field, "what": self.what}


@dataclass(kw_only=True, slots=True)
class Report:
    """What ``verify`` found."""

    path: str
    events: int = 0
    head_id: int = 0
    head_hash: str = GENESIS.hex()
    signed_heads: int = 0
    signed_up_to: int = 0
    """Newest event under a signed head; what follows is chained, and not yet signed."""
    anchored_at: int | None = None
    """Event that the anchor names; None without one."""
    authenticated: bool = False
    """Whether signatures were checked against a key the caller trusts."""
    blobs: int = 0
    views_checked: bool = False
    views_cursor: int | None = None
    quarantined: int = 0
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What weakens the proof and is no damage."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.findings

    @property
    def unsigned(self) -> int:
        """Events after the last signed head: a living daemon signs them in time."""
        return max(0, self.head_id - self.signed_up_to)

    @property
    def first_bad(self) -> Finding | None:
        """The finding about the earliest event, else the first."""
        return min(
            self.findings, key=lambda found: found.event if found.event is not None else 2**63, default=None
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        first = self.first_bad
        return {
            "ok": self.ok,
            "path": self.path,
            "events": self.events,
            "head": {"id": self.head_id, "hash": self.head_hash},
            "signed_heads": self.signed_heads,
            "signed_up_to": self.signed_up_to,
            "unsigned": self.unsigned,
            "anchored_at": self.anchored_at,
            "authenticated": self.authenticated,
            "blobs": self.blobs,
            "views_checked": self.views_checked,
            "views_cursor": self.views_cursor,
            "quarantined": self.quarantined,
            "first_bad": first.to_json() if first else None,
            "findings": [found.to_json() for found in self.findings],
            "warnings": list(self.warnings),
        }

    def add(self, where: str, what: str, *, event: int | None = None, column: str | None = None) -> None:
        """Note a finding; beyond a bound they are only more of the same."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(where=where, event=event, field=column, what=what))


def verify(
    path: str | os.PathLike[str],
    *,
    public_key: Ed25519PublicKey | None = None,
    views_path: str | os.PathLike[str] | None = None,
    anchor: tuple[int, str] | None = None,
    anchor_path: Path | None = None,
) -> Report:
    """Check a ledger and, when given, its views.

    ``public_key`` is the key heads must be signed with: without it a chain rewritten from its beginning, and
    signed anew, cannot be told. ``anchor`` is an event id and hash (hex) known from elsewhere, such as an
    earlier report: with it a ledger put back to an older state is told. ``anchor_path`` is the file in which
    the daemon keeps one, signed.

    Raises :class:`NotFoundError` when there is no ledger, :class:`LedgerVersionError` for another file.
    """
    file = Path(path)
    report = Report(path=str(file), authenticated=public_key is not None)
    _check_log(file, report)
    # Read before the ledger: it is never ahead of it, and a living writer moves both.
    own = _read_anchor(anchor_path, public_key, report)
    try:
        connection = connect_reader(file, LEDGER)
    except (LedgerCorruptError, LedgerVersionError) as error:
        if isinstance(error, LedgerVersionError) and report.ok:
            raise  # with a damaged log, its own mark may be among what was lost
        report.add("file", error.message)
        return report
    except sqlite3.DatabaseError as error:
        report.add("file", f"it cannot be read: {error}")
        return report
    with closing(connection), ExitStack() as stack:
        # Snapshots, so that a living writer does not move the ground; the views first, for they lag behind.
        views = _open_views(views_path, stack, report)
        connection.execute("BEGIN")
        try:
            _check_chain(connection, report)
            _check_heads(connection, report, public_key)
            _check_blobs(connection, report)
            _check_anchor(connection, report, anchor, "known from elsewhere")
            _check_anchor(connection, report, own, f"that {anchor_path} names as signed")
            _check_signing(connection, file, report, anchor_path)
            if report.ok:
                _check_structure(connection, report)
            if views is not None:
                _check_views(connection, views, report)
        except sqlite3.DatabaseError as error:
            report.add("file", f"it cannot be read: {error}")
    return report


# --- the chain ------------------------------------------------------------------------------------


def _check_log(file: Path, report: Report) -> None:
    lost = lost_commits(file)
    if lost > 1 or (lost and not _has_writer(file)):
        report.add("log", f"a frame is damaged; {lost} transactions from there on cannot be read")


def _has_writer(file: Path) -> bool:
    """Whether somebody holds the writer's lock: then the last transaction may just be arriving."""
    try:
        inode = file.with_name(file.name + ".lock").stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in locks)


def _check_chain(connection: sqlite3.Connection, report: Report) -> None:
    prev_hash, expected = GENESIS, 1
    for raw in _raw_rows(connection, report):
        event_id = raw[0]
        if event_id != expected:
            what = (
                f"event {expected} is missing" if event_id > expected else f"event {event_id} is out of order"
            )
            report.add("events", what, event=expected, column="id")
        computed = _relink(raw, prev_hash)
        if raw[10] != prev_hash or computed != raw[9]:
            column, what = _locate(raw, prev_hash, search=len(report.findings) < _SEARCHES)
            report.add("events", what, event=event_id, column=column)
        else:
            _check_content(raw, report)
        prev_hash = raw[9]
        expected = event_id + 1
        report.events += 1
        report.head_id, report.head_hash = event_id, raw[9].hex()


def _raw_rows(connection: sqlite3.Connection, report: Report) -> Iterator[RawRow]:
    """Rows with texts as bytes: a flipped byte may not even be UTF-8."""
    columns = ", ".join(f"CAST({name} AS BLOB)" if name in _TEXTS else name for name in Row._fields)
    statement = f"SELECT {columns} FROM events ORDER BY id"  # noqa: S608
    last = 0
    try:
        for raw in connection.execute(statement):
            last = raw[0]
            yield raw
    except sqlite3.DatabaseError as error:
        report.add("events", f"the page cannot be read: {error}", event=last + 1)


_TEXTS = frozenset({"actor", "kind", "scope", "run", "payload", "provenance"})


def _relink(raw: RawRow, prev_hash: bytes) -> bytes | None:
    event_id, ts_ms, actor, kind, version, scope, run, payload, provenance = raw[:9]
    if not all(isinstance(number, int) for number in (event_id, ts_ms, version)):
        return None
    if not all(isinstance(text, bytes) for text in (actor, kind, scope, payload, provenance)):
        return None
    if not isinstance(prev_hash, bytes) or len(prev_hash) != 32:
        return None
    return link(
        prev_hash,
        event_id=event_id,
        ts_ms=ts_ms,
        actor=actor,
        kind=kind,
        version=version,
        scope=scope,
        run=run,
        payload=payload,
        provenance=provenance,
    )


def _locate(raw: RawRow, prev_hash: bytes, *, search: bool) -> tuple[str | None, str]:
    """Which column of a row that does not chain was changed."""
    own = raw[9]
    if raw[10] != prev_hash:
        if _relink(raw, prev_hash) == own:
            return "prev_hash", "its prev_hash is not the hash of the event before it"
        return "prev_hash", "it does not follow the event before it"
    for column, candidate in _one_byte_off(raw) if search else ():
        if _relink(candidate, prev_hash) == own:
            return column, f"one byte of {column} was changed"
    if _differ_in_one_byte(own, _relink(raw, prev_hash)):
        return "hash", "one byte of its hash was changed"
    bad = _misfit(raw)
    if bad:
        return bad, f"{bad} is not what was written"
    return None, "its hash does not fit its content"


def _differ_in_one_byte(first: bytes, second: bytes | None) -> bool:
    if second is None or len(first) != len(second):
        return False
    return sum(a != b for a, b in zip(first, second, strict=True)) == 1


def _one_byte_off(raw: RawRow) -> Iterator[tuple[str, RawRow]]:
    """The row with every single byte of every column set to every value, as far as the budget goes."""
    work = sum(len(cell) for cell in raw if isinstance(cell, bytes)) + 64
    budget = _SEARCH_BYTES // work
    for index, name in enumerate(Row._fields[:9]):
        cell = raw[index]
        if isinstance(cell, int):
            variants: Iterable[Any] = _near_numbers(cell)
        elif isinstance(cell, bytes):
            variants = _near_bytes(cell)
        else:
            continue
        for variant in variants:
            budget -= 1
            if budget < 0:
                return
            yield name, (*raw[:index], variant, *raw[index + 1 :])


def _near_numbers(number: int) -> Iterator[int]:
    packed = number.to_bytes(8, "big", signed=True)
    for changed in _near_bytes(packed):
        yield int.from_bytes(changed, "big", signed=True)


def _near_bytes(data: bytes) -> Iterator[bytes]:
    for place, byte in enumerate(data):
        before, after = data[:place], data[place + 1 :]
        for delta in range(1, 256):
            yield before + bytes((byte ^ delta,)) + after


def _misfit(raw: RawRow) -> str | None:
    for name in ("payload", "provenance"):
        try:
            text = raw[Row._fields.index(name)]
            if canonical(msgspec.json.decode(text)) != text:
                return name
        except (msgspec.DecodeError, UsageError, TypeError, ValueError, RecursionError):
            return name
    return None


def _check_content(raw: RawRow, report: Report) -> None:
    """A row that chains must also hold an event: the chain alone would bind nonsense as well."""
    event_id = raw[0]
    bad = _misfit(raw)
    if bad:
        report.add("events", f"{bad} is not canonical JSON", event=event_id, column=bad)
        return
    try:
        event = decode_row(_text_row(raw))
    except (RunloopError, UnicodeDecodeError) as error:
        report.add("events", str(error), event=event_id, column="payload")
        return
    for cause in event.provenance.causes:
        if not 0 < cause < event_id:
            report.add("events", f"its cause {cause} is not before it", event=event_id, column="provenance")


def _text_row(raw: RawRow) -> Row:
    return Row._make(
        cell.decode() if name in _TEXTS and cell is not None else cell
        for name, cell in zip(Row._fields, raw, strict=True)
    )


# --- heads, blobs, anchor, structure --------------------------------------------------------------


def _check_heads(connection: sqlite3.Connection, report: Report, public_key: Ed25519PublicKey | None) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    trusted = public_key.public_bytes_raw() if public_key is not None else None
    rows = connection.execute(
        "SELECT heads.event_id, heads.hash, heads.ts_ms, public_key, signature, events.hash "
        "FROM heads LEFT JOIN events ON events.id = heads.event_id ORDER BY heads.event_id"
    )
    for event_id, head, ts_ms, key, signature, found in rows:
        report.signed_heads += 1
        if found is None:
            report.add("heads", f"event {event_id} was signed and is missing", event=event_id, column="id")
            continue
        if found != head:
            report.add("heads", "the event is not the one that was signed", event=event_id, column="hash")
            continue
        if trusted is not None and key != trusted:
            report.add("heads", "the head is signed with another key", event=event_id, column="public_key")
            continue
        try:
            verifier = public_key or Ed25519PublicKey.from_public_bytes(key)
            verifier.verify(signature, head_statement(event_id, head, ts_ms))
        except (InvalidSignature, ValueError):
            report.add("heads", "the signature does not fit the head", event=event_id, column="signature")
            continue
        report.signed_up_to = event_id
    if trusted is not None and report.events and not report.signed_heads:
        report.add("heads", "no head is signed")


def _check_blobs(connection: sqlite3.Connection, report: Report) -> None:
    stored: set[str] = set()
    bad: set[str] = set()
    for key, data in connection.execute("SELECT hash, data FROM blobs"):
        report.blobs += 1
        stored.add(key.hex())
        if blob_digest(data) != key.hex():
            bad.add(key.hex())
    for event_id, payload in connection.execute(
        "SELECT id, payload FROM events WHERE payload LIKE '%blob\"%' ORDER BY id"
    ):
        for name, digest in _named_blobs(payload):
            if digest in bad:
                bad.discard(digest)
                report.add("blobs", f"the bytes of {digest} were changed", event=event_id, column=name)
            elif digest not in stored:
                report.add("blobs", f"the bytes of {digest} are missing", event=event_id, column=name)
    for digest in sorted(bad):
        report.add("blobs", f"the bytes of {digest} were changed, or its key was")


def _named_blobs(payload: str) -> Iterator[tuple[str, str]]:
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if (name == "blob" or name.endswith("_blob")) and isinstance(value, str):
            yield name, value


def _read_anchor(
    path: Path | None, public_key: Ed25519PublicKey | None, report: Report
) -> tuple[int, str] | None:
    if path is None:
        return None
    try:
        anchor = read_anchor(path)
    except LedgerCorruptError as error:
        report.add("anchor", error.message)
        return None
    if anchor is None:
        return None
    if public_key is not None and not anchor.signed_by(public_key):
        report.add("anchor", f"{path} is not signed with this ledger's key", event=anchor.id)
    report.anchored_at = anchor.id
    return anchor.id, anchor.hash.hex()


def _check_anchor(
    connection: sqlite3.Connection, report: Report, anchor: tuple[int, str] | None, source: str
) -> None:
    if anchor is None or anchor[0] == 0:
        return
    event_id, expected = anchor
    found = connection.execute(sql.named("statements.sql")["hash_at"], (event_id,)).fetchone()
    if found is None:
        report.add("events", f"event {event_id} is {source} and is missing", event=event_id)
    elif found[0].hex() != expected:
        report.add("events", f"it is not the event {source}", event=event_id, column="hash")


def _check_signing(connection: sqlite3.Connection, file: Path, report: Report, anchor: Path | None) -> None:
    """Is everything signed that should be, and is the last signature known outside of the database?"""
    if not report.ok:
        return
    if anchor is not None and report.anchored_at is None and report.signed_heads:
        report.warnings.append(f"{anchor} is missing: a ledger put back to an older state cannot be told")
    if _has_writer(file):
        return  # it signs in time, and goes on between the two looks
    if report.anchored_at is not None and report.anchored_at < report.signed_up_to:
        report.warnings.append(f"{anchor} is behind; the next start of the daemon brings it up to date")
    if report.authenticated and report.unsigned:
        last = connection.execute("SELECT kind FROM events ORDER BY id DESC LIMIT 1").fetchone()
        if last == ("daemon.stopped",):  # written and signed in one transaction
            what = f"the daemon has stopped and {report.unsigned} events are not signed"
            report.add("heads", what, event=report.signed_up_to + 1)


def _check_structure(connection: sqlite3.Connection, report: Report) -> None:
    for (message,) in connection.execute("PRAGMA integrity_check(10)"):
        if message != "ok":
            report.add("file", str(message))


# --- views ----------------------------------------------------------------------------------------


def _open_views(
    views_path: str | os.PathLike[str] | None, stack: ExitStack, report: Report
) -> sqlite3.Connection | None:
    if views_path is None or not Path(views_path).exists():
        return None
    try:
        views = stack.enter_context(closing(connect_reader(Path(views_path), VIEWS)))
        views.execute("BEGIN")
        views.execute("SELECT event FROM cursor").fetchone()
    except OutdatedError as error:
        report.warnings.append(f"the views were not compared: {error.message}")
        return None
    except (RunloopError, sqlite3.DatabaseError) as error:
        report.add("views", f"they cannot be read: {error}")
        return None
    return views


def _check_views(ledger: sqlite3.Connection, views: sqlite3.Connection, report: Report) -> None:
    try:
        cursor, own_hash = views.execute("SELECT event, hash FROM cursor").fetchone()
        report.views_checked, report.views_cursor = True, cursor
        if cursor > report.head_id:
            what = f"the views know event {cursor}, the ledger ends at {report.head_id}"
            report.add("views", what, event=report.head_id + 1, column="id")
            return
        found = ledger.execute("SELECT hash FROM events WHERE id = ?", (cursor,)).fetchone()
        if cursor and (found is None or found[0] != own_hash):
            report.add("views", "they were folded from another event", event=cursor, column="hash")
            return
        _compare_views(ledger, views, cursor, report)
    except sqlite3.DatabaseError as error:
        report.add("views", f"they cannot be read: {error}")


def _compare_views(
    ledger: sqlite3.Connection, views: sqlite3.Connection, cursor: int, report: Report
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fold:
        create_tables(fold)
        rows = map(Row._make, ledger.execute(sql.named("statements.sql")["rows_after"], (0, cursor)))
        fold.execute("BEGIN")
        fold_rows(fold, Folds(), rows)
        for table, order in TABLES.items():
            statement = f"SELECT * FROM {table} ORDER BY {order}"  # noqa: S608
            _compare_table(table, fold.execute(statement), views.execute(statement), report)
        _compare_index(fold, views, report)
        (report.quarantined,) = views.execute("SELECT count(*) FROM quarantine").fetchone()


def _compare_table(table: str, expected: sqlite3.Cursor, found: sqlite3.Cursor, report: Report) -> None:
    names = [column[0] for column in expected.description]
    while True:
        want, have = expected.fetchone(), found.fetchone()
        if want == have:
            if want is None:
                return
            continue
        if want is None or have is None or want[0] != have[0]:
            what = f"{table}: a row is {'missing' if want else 'too many'}: {(want or have)[0]!r}"
            report.add("views", what)
            return
        wrong = next(name for name, a, b in zip(names, want, have, strict=True) if a != b)
        report.add("views", f"{table}: {wrong} of {want[0]!r} is not what the ledger says", column=wrong)
        return


def _compare_index(fold: sqlite3.Connection, views: sqlite3.Connection, report: Report) -> None:
    """The full-text index is no table one can read; compare which word stands in how many entries."""
    found = []
    for connection in (fold, views):
        connection.execute("PRAGMA query_only = OFF")  # temp only; the file itself is open read-only
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search', 'row')")
        found.append(connection.execute("SELECT term, doc, cnt FROM temp.words ORDER BY term"))
    _compare_table("search", found[0], found[1], report)

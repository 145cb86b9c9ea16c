"""Is what is in the files what was written there? Looks at everything, changes nothing.

Knows: the chain, the signed heads, the bytes behind digests, the log, the anchor. Works on a closed ledger
and beside a living writer. Does not repair: damaged files are put aside, salvaged (``pog.maintain.salvage``)
and restored (``pog.maintain.restore``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pog import sql
from pog.anchor import read_anchor
from pog.chain import GENESIS, TEXTS, RawRow, Row, decode_row, head_statement, text_row
from pog.connection import LEDGER, FileKind, connect_reader
from pog.errors import LedgerCorruptError, LedgerVersionError
from pog.lock import has_writer
from pog.maintain.locate import SEARCHES, locate, misfit, relink
from pog.maintain.report import Report
from pog.maintain.viewcheck import check_views, open_views
from pog.rekey import reigns
from pog.wal import lost_commits
from runloop.digest import blob_digest
from runloop.errors import RunloopError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["chain_of", "named_blobs", "verify"]


def verify(
    path: str | os.PathLike[str],
    *,
    public_key: Ed25519PublicKey | None = None,
    views_path: str | os.PathLike[str] | None = None,
    anchor: tuple[int, str] | None = None,
    anchor_path: Path | None = None,
    known_missing: Collection[str] = (),
    kind: FileKind = LEDGER,
) -> Report:
    """Check a ledger and, when given, its views.

    ``public_key`` is the key heads must be signed with: without it a chain rewritten from its beginning, and
    signed anew, cannot be told. ``anchor`` is an event id and hash (hex) known from elsewhere, such as an
    earlier report: with it a ledger put back to an older state is told. ``anchor_path`` is the file in which
    the daemon keeps one, signed. ``known_missing`` are digests whose bytes are known to be lost. ``kind``: a
    ledger of another version than this build's, before it is migrated.

    Raises :class:`NotFoundError` when there is no ledger, :class:`LedgerVersionError` for another file.
    """
    file = Path(path)
    report = Report(path=str(file), authenticated=public_key is not None)
    _check_log(file, report)
    # Read before the ledger: it is never ahead of it, and a living writer moves both.
    own = _read_anchor(anchor_path, public_key, report)
    try:
        connection = connect_reader(file, kind)
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
        views = open_views(views_path, stack, report)
        connection.execute("BEGIN")
        try:
            _check_chain(connection, report)
            _check_heads(connection, report, public_key)
            _check_blobs(connection, report, known_missing)
            _check_anchor(connection, report, anchor, "known from elsewhere")
            _check_anchor(connection, report, own, f"that {anchor_path} names as signed")
            _check_signing(connection, file, report, anchor_path)
            if report.ok:
                _check_structure(connection, report)
            if views is not None:
                check_views(connection, views, report)
        except sqlite3.DatabaseError as error:
            report.add("file", f"it cannot be read: {error}")
    return report


# --- the chain ----------------------------------------------------------------------------------


def _check_log(file: Path, report: Report) -> None:
    lost = lost_commits(file)
    if lost > 1 or (lost and not has_writer(file)):
        report.add("log", f"a frame is damaged; {lost} transactions from there on cannot be read")


def _check_chain(connection: sqlite3.Connection, report: Report) -> None:
    prev_hash, expected = GENESIS, 1
    for raw in _raw_rows(connection, report):
        event_id = raw[0]
        if event_id != expected:
            what = (
                f"event {expected} is missing" if event_id > expected else f"event {event_id} is out of order"
            )
            report.add("events", what, event=expected, column="id")
        computed = relink(raw, prev_hash)
        if raw[10] != prev_hash or computed != raw[9]:
            column, what = locate(raw, prev_hash, search=len(report.findings) < SEARCHES)
            report.add("events", what, event=event_id, column=column)
        else:
            _check_content(raw, report)
        prev_hash = raw[9]
        expected = event_id + 1
        report.events += 1
        report.head_id = event_id
        report.head_hash = prev_hash.hex() if isinstance(prev_hash, bytes) else ""


def chain_of(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """How many events there are, and the hash of the last: the same answer means the same history.

    Raises :class:`LedgerCorruptError` at the first that does not chain.
    """
    prev_hash, expected = GENESIS, 0
    report = Report(path="")
    for raw in _raw_rows(connection, report):
        expected += 1
        if raw[0] != expected or raw[10] != prev_hash or relink(raw, prev_hash) != raw[9]:
            report.add("events", "it does not chain to the event before it", event=expected)
            break
        prev_hash = raw[9]
    if report.first_bad is not None:
        raise LedgerCorruptError(
            f"event {report.first_bad.event}: {report.first_bad.what}",
            hint="rlp verify",
            event=report.first_bad.event,
        )
    return expected, prev_hash


def _raw_rows(connection: sqlite3.Connection, report: Report) -> Iterator[RawRow]:
    """Rows with texts as bytes: a flipped byte may not even be UTF-8."""
    columns = ", ".join(f"CAST({name} AS BLOB)" if name in TEXTS else name for name in Row._fields)
    statement = f"SELECT {columns} FROM events ORDER BY id"  # noqa: S608
    last = 0
    try:
        for raw in connection.execute(statement):
            last = raw[0]
            yield raw
    except sqlite3.DatabaseError as error:
        report.add("events", f"the page cannot be read: {error}", event=last + 1)


def _check_content(raw: RawRow, report: Report) -> None:
    """A row that chains must also hold an event: the chain alone would bind nonsense as well."""
    event_id = raw[0]
    bad = misfit(raw)
    if bad:
        report.add("events", f"{bad} is not canonical JSON", event=event_id, column=bad)
        return
    try:
        event = decode_row(text_row(raw))
    except (RunloopError, UnicodeDecodeError) as error:
        report.add("events", str(error), event=event_id, column="payload")
        return
    for cause in event.provenance.causes:
        if not 0 < cause < event_id:
            report.add("events", f"its cause {cause} is not before it", event=event_id, column="provenance")


# --- heads, blobs, anchor, structure --------------------------------------------------------------


def _check_heads(connection: sqlite3.Connection, report: Report, public_key: Ed25519PublicKey | None) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    trusted = public_key.public_bytes_raw() if public_key is not None else None
    believed = reigns(connection, trusted) if trusted is not None else []
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
        if trusted is not None and not any(one.public == key and one.signs(event_id) for one in believed):
            report.add("heads", "the head is signed with another key", event=event_id, column="public_key")
            continue
        try:
            verifier = Ed25519PublicKey.from_public_bytes(key)
            verifier.verify(signature, head_statement(event_id, head, ts_ms))
        except (InvalidSignature, ValueError):
            report.add("heads", "the signature does not fit the head", event=event_id, column="signature")
            continue
        report.signed_up_to = event_id
    if trusted is not None and report.events and not report.signed_heads:
        report.add("heads", "no head is signed")


def _check_blobs(connection: sqlite3.Connection, report: Report, known_missing: Collection[str]) -> None:
    stored: set[str] = set()
    bad: set[str] = set()
    for key, data in connection.execute("SELECT hash, data FROM blobs"):
        report.blobs += 1
        stored.add(key.hex())
        if blob_digest(data) != key.hex():
            bad.add(key.hex())
    written_off = dict.fromkeys(known_missing, 2**63) | _written_off(connection)
    for event_id, payload in connection.execute(
        "SELECT id, payload FROM events WHERE payload LIKE '%blob\"%' ORDER BY id"
    ):
        for name, digest in named_blobs(payload):
            if digest in bad:
                bad.discard(digest)
                report.add("blobs", f"the bytes of {digest} were changed", event=event_id, column=name)
            elif digest in stored:
                continue
            elif event_id < written_off.get(digest, 0):
                report.warnings.append(f"event {event_id}: the bytes of {digest} were lost before a restore")
            else:
                report.add("blobs", f"the bytes of {digest} are missing", event=event_id, column=name)
    for digest in sorted(bad):
        report.add("blobs", f"the bytes of {digest} were changed, or its key was")


def _written_off(connection: sqlite3.Connection) -> dict[str, int]:
    """Digests that a restore of salvaged files said are lost -> the event that said so: it speaks of those
    before it."""
    found: dict[str, int] = {}
    for event_id, payload in connection.execute(
        "SELECT id, payload FROM events WHERE kind = 'ledger.restored' ORDER BY id"
    ):
        with suppress(msgspec.DecodeError, RecursionError, TypeError, AttributeError):
            missing = msgspec.json.decode(payload).get("blobs_missing", ())
            found.update(dict.fromkeys(map(str, missing), event_id))
    return found


def named_blobs(payload: str) -> Iterator[tuple[str, str]]:
    """``(field, digest)`` of the bytes that a payload names."""
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
    if has_writer(file):
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
    # A trigger of somebody else's would drop facts as they are stated, and every page of it would be sound.
    made = "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')"
    for what, name in connection.execute(made):
        report.add("file", f"it holds a {what} that no build of ours makes: {name!r}")

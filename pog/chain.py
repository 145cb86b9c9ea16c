"""One row of the ledger: its text, its link in the chain, and the way back to an event.

Knows: which bytes are hashed and in which order. Does not know: where rows are kept (``pog.ledger``) or who
may state what.

The link of a row is BLAKE3 over ``framed(prev_hash, id, ts_ms, actor, kind, version, scope, run, payload,
provenance)``: integers as eight bytes big endian, texts as UTF-8, an absent run as no bytes and a present one
behind ``=``. The length before every part keeps two different rows from sharing bytes (attacks.md L3). The
first row's ``prev_hash`` is 32 zero bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import msgspec

from pog.errors import LedgerCorruptError
from runloop.digest import blob_hash, framed
from runloop.errors import RunloopError, UsageError
from runloop.events import KINDS, Event, Payload, Provenance, decode_payload

__all__ = [
    "GENESIS",
    "TEXTS",
    "RawRow",
    "Row",
    "decode_row",
    "head_statement",
    "link",
    "linker",
    "payload_decoder",
    "relink",
    "relink_row",
    "setting",
    "text_row",
]

GENESIS = bytes(32)
"""``prev_hash`` of the first row."""

_place = struct.Struct(">Q32sQqQq").pack
_length = struct.Struct(">Q").pack
_joined = b"".join
_HEAD_DOMAIN = b"runloop.ledger.head.v1"


class Row(NamedTuple):
    """A row as SQLite returns it."""

    id: int
    ts_ms: int
    actor: str
    kind: str
    version: int
    scope: str
    run: str | None
    payload: str
    provenance: str
    hash: bytes
    prev_hash: bytes


TEXTS = frozenset({"actor", "kind", "scope", "run", "payload", "provenance"})
"""Columns of a row that are texts."""

RawRow = tuple[Any, ...]
"""A row with its texts as bytes: a flipped byte may not even be UTF-8."""


def text_row(raw: RawRow) -> Row:
    """The row with its texts as texts; raises :class:`UnicodeDecodeError`."""
    return Row._make(
        cell.decode() if name in TEXTS and cell is not None else cell
        for name, cell in zip(Row._fields, raw, strict=True)
    )


def link(
    prev_hash: bytes,
    *,
    event_id: int,
    ts_ms: int,
    actor: bytes,
    kind: bytes,
    version: int,
    scope: bytes,
    run: bytes | None,
    payload: bytes,
    provenance: bytes,
) -> bytes:
    """The 32 bytes that bind a row to everything before it."""
    if len(prev_hash) != 32:
        raise ValueError("a previous hash has 32 bytes")
    return relink(prev_hash, event_id, ts_ms, _setting(actor, kind, version, scope, run), payload, provenance)


def linker(hash_of: Callable[[bytes], bytes]) -> Callable[[bytes, int, int, bytes, bytes, bytes], bytes]:
    """:func:`relink` with this way to hash."""

    def relink(
        prev_hash: bytes, event_id: int, ts_ms: int, setting: bytes, payload: bytes, provenance: bytes
    ) -> bytes:
        # framed(), written out: the first parts have fixed lengths, the next hardly ever change.
        place = _place(32, prev_hash, 8, event_id, 8, ts_ms)
        texts = (_length(len(payload)), payload, _length(len(provenance)), provenance)
        return hash_of(_joined((place, setting, *texts)))

    return relink


relink = linker(blob_hash)
""":func:`link`, with the parts between time and payload framed already (:func:`setting`)."""


@lru_cache(maxsize=4096)
def setting(actor: str, kind: str, version: int, scope: str, run: str | None) -> bytes:
    """The framed parts between time and payload; raises :class:`UnicodeEncodeError` for a lone surrogate."""
    return _setting(
        actor.encode(), kind.encode(), version, scope.encode(), None if run is None else run.encode()
    )


@lru_cache(maxsize=4096)
def _setting(actor: bytes, kind: bytes, version: int, scope: bytes, run: bytes | None) -> bytes:
    return framed(
        actor, kind, version.to_bytes(8, "big", signed=True), scope, b"" if run is None else b"=" + run
    )


def relink_row(row: Row, prev_hash: bytes) -> bytes:
    """The hash a row should have behind ``prev_hash``.

    Raises :class:`UnicodeEncodeError` for a lone surrogate, :class:`OverflowError` or :class:`struct.error`
    for a number beyond eight bytes.
    """
    place = setting(row.actor, row.kind, row.version, row.scope, row.run)
    return relink(prev_hash, row.id, row.ts_ms, place, row.payload.encode(), row.provenance.encode())


def head_statement(event_id: int, head: bytes, ts_ms: int) -> bytes:
    """What is signed at a checkpoint."""
    return framed(_HEAD_DOMAIN, event_id.to_bytes(8, "big"), head, ts_ms.to_bytes(8, "big", signed=True))


@cache
def payload_decoder(kind: type[Payload]) -> msgspec.json.Decoder[Payload]:
    """Decoder of a kind's closed schema."""
    return msgspec.json.Decoder(kind)


@cache
def _provenance_decoder() -> msgspec.json.Decoder[Provenance]:
    return msgspec.json.Decoder(Provenance)


def decode_row(row: Row) -> Event:
    """The event in a row.

    Raises :class:`LedgerCorruptError` naming the event when the row holds no event that this build knows.
    """
    try:
        known = KINDS.get(row.kind)
        if known is not None and known.version == row.version:
            payload = payload_decoder(known).decode(row.payload)
        else:
            payload = decode_payload(row.kind, msgspec.json.decode(row.payload), row.version)
        provenance = _provenance_decoder().decode(row.provenance)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, UsageError) as error:
        what = error.message if isinstance(error, RunloopError) else str(error)
        raise LedgerCorruptError(
            f"event {row.id} ({row.kind}) cannot be read: {what}",
            hint="rlp verify",
            code="event.unreadable",
            event=row.id,
        ) from error
    return Event(
        id=row.id,
        ts_ms=row.ts_ms,
        actor=row.actor,
        kind=row.kind,
        scope=row.scope,
        run=row.run,
        payload=payload,
        provenance=provenance,
        hash=row.hash,
        prev_hash=row.prev_hash,
    )

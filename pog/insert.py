"""Rows of the ledger that follow each other, as one INSERT: what they share is handed to SQLite once.

Knows: the columns of ``events``, and which cells of such rows are the same. Does not know: what is hashed
(``pog.chain``) or when a transaction ends (``pog.ledger``).

Handing over eleven cells of each row is a quarter of an INSERT (docs/adr/0011). But ids count up, the time is
one, a row's ``prev_hash`` is the ``hash`` of the row before it, and of rows that one speaker states of one
kind in one run only three cells are their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

from pog.prepare import Prepared
from pog.sql.bulk import SIZES

__all__ = ["insert", "is_one"]

_HEAD = (
    "INSERT INTO events (id, ts_ms, prev_hash, actor, kind, version, scope, run, payload, provenance, hash)"
    " VALUES "
)
_OWN = 3
"""The last columns, which no two rows share."""
_PLACE = 5
"""The columns before them: the same in rows that are alike."""


def insert(
    connection: sqlite3.Connection,
    first_id: int,
    ts_ms: int,
    prev_hash: bytes,
    rows: Sequence[Prepared],
    hashes: Sequence[bytes],
) -> None:
    """Insert ``rows`` from ``first_id`` on, where ``prev_hash`` is the hash of the row before them.

    Raises :class:`sqlite3.IntegrityError` when another writer took a place.
    """
    start, end = 0, len(rows)
    for size in SIZES:
        while end - start >= size:
            part = rows if size == end else rows[start : start + size]
            before = hashes[start - 1] if start else prev_hash
            own = hashes if size == end else hashes[start : start + size]
            connection.execute(*_statement(first_id + start, ts_ms, before, part, own))
            start += size


def is_one(rows: Sequence[Any]) -> bool:
    """Whether these rows, at least one, take a single statement."""
    return len(rows) in SIZES


def _statement(
    first_id: int, ts_ms: int, prev_hash: bytes, rows: Sequence[Prepared], hashes: Sequence[bytes]
) -> tuple[str, list[Any]]:
    first = rows[0].setting
    cells: list[Any] = [first_id, ts_ms, prev_hash]
    if all(row.setting == first for row in rows):  # framed: the same bytes are the same five cells
        cells += _place(rows[0])
        for row, own in zip(rows, hashes, strict=True):
            cells += (row.payload_text.decode(), row.provenance_text.decode(), own)
        return _written(len(rows), alike=True), cells
    for row, own in zip(rows, hashes, strict=True):
        cells += (*_place(row), row.payload_text.decode(), row.provenance_text.decode(), own)
    return _written(len(rows), alike=False), cells


def _place(row: Prepared) -> tuple[Any, ...]:
    draft, payload = row.draft, row.payload
    return draft.actor, payload.kind, payload.version, draft.scope, draft.run


@cache
def _written(size: int, *, alike: bool) -> str:
    """The statement for ``size`` rows. ``?1`` is the first id, ``?2`` the time, ``?3`` the hash before."""
    shared, own = (_PLACE, _OWN) if alike else (0, _PLACE + _OWN)
    place = [f"?{number}" for number in range(4, 4 + shared)]
    rows = []
    for row in range(size):
        start = 4 + shared + row * own
        before = start - 1 if row else 3
        cells = [f"?1 + {row}", "?2", f"?{before}", *place, *(f"?{start + cell}" for cell in range(own))]
        rows.append(f"({', '.join(cells)})")
    return _HEAD + ", ".join(rows)

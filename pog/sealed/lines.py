"""A row of the ledger as a line of text, and back: one spelling only.

Knows: the columns and their order (``pog.chain.Row``), how damage is told by column. Does not know: files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec

from pog.chain import Row, relink_row
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError

__all__ = ["column_line", "columns_of", "read_line", "relinked", "to_lines"]

_CHECK = 8
"""Hex digits that stand for a cell in ``columns.txt``: enough to tell where damage is. What is believed rests
on whole digests."""
_HASHES = Row._fields[9:]
_TYPES: tuple[tuple[type, ...], ...] = (
    *((int,), (int,), (str,), (str,), (int,), (str,), (str, type(None))),
    *((str,), (str,), (str,), (str,)),
)


def to_lines(rows: Iterable[Row]) -> bytes:
    """``events.jsonl``."""
    return b"".join(canonical(_cells(row)) + b"\n" for row in rows)


def column_line(row: Row) -> str:
    """A line of ``columns.txt``: the id, and a short digest of every column."""
    return f"{row.id} {''.join(columns_of(_cells(row)))}\n"


def columns_of(cells: Sequence[object]) -> list[str]:
    """Short digests of cells."""
    return [blob_digest(canonical(cell))[:_CHECK] for cell in cells]


def read_line(line: bytes) -> tuple[Row | None, str]:
    """The row in a line; or None, and the column (empty: the line) that cannot be what was written."""
    try:
        cells = msgspec.json.decode(line)
        whole = isinstance(cells, list) and len(cells) == len(Row._fields) and canonical(cells) == line
    except (msgspec.DecodeError, RunloopError, ValueError, RecursionError):
        whole = False
    if not whole:
        return None, ""
    columns = zip(Row._fields, cells, _TYPES, strict=True)
    bad = next((name for name, cell, types in columns if type(cell) not in types), None)
    if bad is None:
        bad = next((name for name, cell in zip(_HASHES, cells[9:], strict=True) if not _is_hash(cell)), None)
    return (None, bad) if bad is not None else (Row(*cells[:9], *map(bytes.fromhex, cells[9:])), "")


def _is_hash(cell: str) -> bool:
    return len(cell) == 64 and all(char in "0123456789abcdef" for char in cell)


def relinked(row: Row, prev_hash: bytes) -> bytes | None:
    """The hash a row should have behind ``prev_hash``; None where its cells were never a row."""
    try:
        return relink_row(row, prev_hash)
    except (ValueError, OverflowError, struct.error):  # a lone surrogate, a number beyond eight bytes
        return None


def _cells(row: Row) -> list[object]:
    return [*row[:9], row.hash.hex(), row.prev_hash.hex()]

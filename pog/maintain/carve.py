"""Rows of a ledger taken straight from the bytes of its files, without asking SQLite.

SQLite stops at the first page it cannot follow, and at the first frame of the log whose checksum is off. The
rows on all other pages are still there. This module reads every page of the file and every frame of the log
that looks like a leaf of a table, and gives what looks like a row of ours. Whether it is one is for whoever
asks: the chain, a signature or a digest proves it (``pog.maintain.salvage``).

Knows: SQLite's page, cell, record and log formats. Only reads, never through SQLite.
Formats: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["Carved", "carve"]

_LEAF = 0x0D
_FRAME = struct.Struct(">II8s8s")
_LOG_HEADER, _FRAME_HEADER = 32, 24
_BLOB_32, _BLOB_64 = 76, 140
_MAX_PAYLOAD = 1 << 30
_INTEGERS = frozenset({1, 2, 3, 4, 5, 6, 8, 9})
_WIDTHS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}


class Carved(NamedTuple):
    """What looks like a row."""

    table: Literal["events", "blobs", "heads"]
    sure: bool
    """From the file itself or a finished transaction of the present log; else from a leftover, which may be a
    transaction that never ended."""
    cells: tuple[Any, ...]
    """Columns in the table's order, texts as bytes."""


class _Images:
    """Every image there is of every page, and which of them are sure."""

    def __init__(self, database: bytes | mmap.mmap, log: bytes | mmap.mmap) -> None:
        self._database, self._log = database, log
        self.page_size = _page_size(database, log)
        reserved = database[20] if len(database) > 20 else 0
        self.usable = self.page_size - (reserved if reserved <= 32 else 0)
        self._frames: dict[int, list[int]] = {}
        self._all: list[tuple[int, int, bool]] = []
        size = _FRAME_HEADER + self.page_size
        salts = bytes(log[_LOG_HEADER + 8 : _LOG_HEADER + 16])  # as the log's first frame says
        places = range(_LOG_HEADER, len(log) - size + 1, size)
        heads = [_FRAME.unpack_from(log, place) for place in places]
        ends = [number for number, (_, end, own, _) in enumerate(heads) if end and own == salts]
        last = ends[-1] if ends else -1
        for number, (place, (page, _, own, _)) in enumerate(zip(places, heads, strict=True)):
            self._all.append((page, place + _FRAME_HEADER, own == salts and number <= last))
            self._frames.setdefault(page, []).append(place + _FRAME_HEADER)

    def pages(self) -> Iterator[tuple[int, bytes, bool]]:
        """``(number, bytes, sure)`` of every image."""
        for number in range(len(self._database) // self.page_size):
            start = number * self.page_size
            yield number + 1, bytes(self._database[start : start + self.page_size]), True
        for page, place, sure in self._all:
            yield page, bytes(self._log[place : place + self.page_size]), sure

    def of(self, page: int, *, newest: bool) -> bytes | None:
        """One image of a page: the newest of the log, or that of the file; the other where there is none."""
        start = (page - 1) * self.page_size
        frames = self._frames.get(page)
        in_file = page > 0 and start + self.page_size <= len(self._database)
        if frames and (newest or not in_file):
            return bytes(self._log[frames[-1] : frames[-1] + self.page_size])
        return bytes(self._database[start : start + self.page_size]) if in_file else None


def carve(database: Path, log: Path) -> Iterator[Carved]:
    """Everything that looks like a row of the ledger, in the order of the files; a row may come again."""
    with ExitStack() as stack:
        images = _Images(_mapped(database, stack), _mapped(log, stack))
        for number, page, sure in images.pages():
            for rowid, payload in _cells(images, number, page):
                found = _row(rowid, payload)
                if found is not None:
                    yield Carved(found[0], sure, found[1])


def _mapped(path: Path, stack: ExitStack) -> bytes | mmap.mmap:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        if os.fstat(handle).st_size == 0:
            return b""
        return stack.enter_context(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(handle)


def _page_size(database: bytes | mmap.mmap, log: bytes | mmap.mmap) -> int:
    told = []
    if len(database) >= 100:
        told.append(int.from_bytes(database[16:18], "big"))
    if len(log) >= _LOG_HEADER:
        told.append(int.from_bytes(log[8:12], "big"))
    for size in (65_536 if each == 1 else each for each in told):
        if 512 <= size <= 65_536 and size & (size - 1) == 0:
            return size
    return 4_096  # what the ledger is made with


def _cells(images: _Images, number: int, page: bytes) -> Iterator[tuple[int, bytes]]:
    """``(rowid, payload)`` of every cell that can be followed; with both images where they may differ."""
    start = 100 if number == 1 else 0
    if page[start] != _LEAF:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(count, (len(page) - start - 8) // 2)):
        place = start + 8 + 2 * index
        offset = int.from_bytes(page[place : place + 2], "big")
        size, offset = _varint(page, offset)
        rowid, offset = _varint(page, offset)
        if not 0 < size <= _MAX_PAYLOAD or offset >= len(page):
            continue
        local = _local(size, images.usable)
        text = page[offset : offset + local]
        if len(text) < local:
            continue
        if local == size:
            yield _signed(rowid), text
            continue
        after = int.from_bytes(page[offset + local : offset + local + 4], "big")
        seen = set()
        for newest in (True, False):
            whole = _followed(images, after, text, size, newest=newest)
            if whole is not None and whole not in seen:
                seen.add(whole)
                yield _signed(rowid), whole


def _local(size: int, usable: int) -> int:
    """Bytes of a payload that lie in the leaf itself."""
    most = usable - 35
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    fit = least + (size - least) % (usable - 4)
    return fit if fit <= most else least


def _followed(images: _Images, page: int, text: bytes, size: int, *, newest: bool) -> bytes | None:
    parts, have, visited = [text], len(text), set()
    while have < size:
        image = images.of(page, newest=newest) if page not in visited else None
        if image is None:
            return None
        visited.add(page)
        part = image[4 : min(images.usable, 4 + size - have)]
        parts.append(part)
        have += len(part)
        page = int.from_bytes(image[:4], "big")
    return b"".join(parts)


def _row(rowid: int, payload: bytes) -> tuple[Literal["events", "blobs", "heads"], tuple[Any, ...]] | None:
    types, place = _types(payload)
    match types:
        case [0, ts, actor, kind, version, scope, run, text, origin, 76, 76] if (
            {ts, version} <= _INTEGERS
            and all(_is_text(each) for each in (actor, kind, scope, text, origin))
            and (run == 0 or _is_text(run))
        ):
            table: Literal["events", "blobs", "heads"] = "events"
        case [76, data] if data >= 12 and data % 2 == 0:
            table = "blobs"
        case [0, 76, ts, 76, 140] if ts in _INTEGERS:
            table = "heads"
        case _:
            return None
    cells = _values(payload, place, types)
    if cells is None:
        return None
    return table, cells if table == "blobs" else (rowid, *cells[1:])


def _types(payload: bytes) -> tuple[list[int], int]:
    end, place = _varint(payload, 0)
    types: list[int] = []
    if end > 64 or end > len(payload):  # ours have eleven columns at most
        return types, 0
    while place < end:
        each, place = _varint(payload, place)
        types.append(each)
    return types, place


def _values(payload: bytes, place: int, types: list[int]) -> tuple[Any, ...] | None:
    values: list[Any] = []
    for each in types:
        width = (each - 12) // 2 if each >= 12 else _WIDTHS[each]
        part = payload[place : place + width]
        if len(part) < width:
            return None
        place += width
        if each >= 12:
            values.append(part)
        elif each == 0:
            values.append(None)
        else:
            values.append(each - 8 if each in (8, 9) else int.from_bytes(part, "big", signed=True))
    return tuple(values) if place == len(payload) else None


def _is_text(serial: int) -> bool:
    return serial >= 13 and serial % 2 == 1


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of SQLite's, and where it ends; past the end of the data it is 0."""
    number = 0
    for index in range(9):
        if place + index >= len(data):
            return 0, len(data)
        byte = data[place + index]
        if index == 8:
            return number << 8 | byte, place + 9
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, place + index + 1
    raise AssertionError


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number

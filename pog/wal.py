"""Looks at a write-ahead log from outside: did SQLite leave transactions behind?

SQLite reads a log up to the first frame whose checksum fails and forgets the rest. That is right for a torn
tail, and it silently loses acknowledged events when a byte in the middle rots. Frames of the present log (by
salt) that end a transaction behind the last one SQLite accepts tell the two apart: a crash tears at most one.

Only reads.
Formats: https://www.sqlite.org/fileformat2.html#walformat and https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from shutil import copyfile
from typing import NamedTuple

from pog.errors import LedgerCorruptError

__all__ = ["insist_on_whole", "lost_commits"]

_HEADER = struct.Struct(">IIIIIIII")
_FRAME_HEADER = 24
_FRAMES_AT_ONCE = 256
_NO_COMMIT = bytes(4)
_INDEX_FRAMES = struct.Struct("=I")  # mxFrame of the shared index, in the machine's order
_TRIES = 5


def lost_commits(database: Path) -> int:
    """Transactions in the log that SQLite does not read. 0 is sound; 1 may be a torn tail; more is damage."""
    log = database.with_name(database.name + "-wal")
    for _ in range(_TRIES):
        if _beginning(log) is None:
            return 0
        with tempfile.TemporaryDirectory(prefix="runloop-log-") as folder:
            copy = Path(folder) / "empty-wal"
            copyfile(log, copy)
            before = _beginning(copy)
            if before is None:
                return 0
            lost = _commits_after(copy, before, _accepted_frames(copy, before.page_size))
        after = _beginning(log)
        if not lost or (after is not None and after.salts == before.salts):
            return lost
        # A living writer began the log anew meanwhile: look again.
    return 0


def insist_on_whole(database: Path) -> None:
    """Raise :class:`LedgerCorruptError` when more of the log is lost than a crash can tear off."""
    if (lost := lost_commits(database)) > 1:
        raise LedgerCorruptError(
            f"{database}-wal is damaged: {lost} transactions in it cannot be read",
            hint="'rlp verify' says what; 'rlp kb salvage' saves what can be read",
        )


class _Beginning(NamedTuple):
    salts: bytes
    page_size: int


def _beginning(log: Path) -> _Beginning | None:
    """What the present log says of itself; None when there is none."""
    try:
        handle = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        header = os.pread(handle, _HEADER.size, 0)
        first = os.pread(handle, _FRAME_HEADER, _HEADER.size)
    finally:
        os.close(handle)
    if len(header) < _HEADER.size or len(first) < _FRAME_HEADER:
        return None
    page_size = _HEADER.unpack(header)[2]
    if not 512 <= page_size <= 65_536:
        page_size = 4096  # the header itself is damaged; ours are of this size
    # With a damaged header SQLite accepts nothing; the first frame tells which salts were meant.
    salts = first[8:16]
    if header[16:24] != salts and _sound(header):
        return None  # a header written for a log whose first frame is not there yet
    return _Beginning(salts, page_size)


def _commits_after(log: Path, beginning: _Beginning, accepted: int) -> int:
    """Frames of the present log that end a transaction, behind the first ``accepted`` ones."""
    found, step = 0, _FRAME_HEADER + beginning.page_size
    with log.open("rb", buffering=0) as file:
        file.seek(_HEADER.size + accepted * step)
        while frames := file.read(_FRAMES_AT_ONCE * step):
            for place in range(0, len(frames) - _FRAME_HEADER + 1, step):
                of_this_log = frames[place + 8 : place + 16] == beginning.salts
                found += of_this_log and frames[place + 4 : place + 8] != _NO_COMMIT
    return found


def _sound(header: bytes) -> bool:
    order = ">" if header[3] & 1 else "<"
    first = second = 0
    words = struct.unpack(f"{order}6I", header[:24])
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return (first, second) == _HEADER.unpack(header)[6:8]


def _accepted_frames(log: Path, page_size: int) -> int:
    """Frames SQLite takes from the copy of a log: it is shown the log beside an empty database of ours.

    Not beside the real one: to read the shared index of that, and close it, would drop its locks.
    """
    empty = log.with_name("empty")
    aside = log.replace(log.with_name("aside"))
    with closing(sqlite3.connect(empty, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("CREATE TABLE empty (x)")
    aside.replace(log)
    with closing(sqlite3.connect(f"{empty.as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        # The pages make no sense beside this database; that the log was recovered is all that counts.
        with suppress(sqlite3.DatabaseError):
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        index = empty.with_name("empty-shm").read_bytes()
    return int(_INDEX_FRAMES.unpack_from(index, 16)[0])

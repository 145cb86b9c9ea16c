"""Vectors of everything that can be searched for, and which of them are nearest to a question.

Knows: the file (made anew from the views whenever it is not theirs), how it follows them, and how to find the
nearest: all codes by Hamming distance first, then the nearest of those by cosine. Does not know: how a text
becomes a vector (``pog.embed``) or how hits are ranked beside words (``pog.search``).

Codes are looked through by Python, from memory, or by ``sqlite-vec`` (an optional extra), from the file. The
order is by distance, then by id, so that both find the same; which is faster is in docs/adr/0013.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pog import sql
from pog.connection import VECTORS, VIEWS, connect_derived, connect_reader, opened
from pog.embed import MAX_PASSAGES, Embedder, Vector, passages, similarity, square
from pog.errors import ViewsError
from pog.reader import Reader
from runloop.errors import NotFoundError

__all__ = ["Nearest", "Passages", "VectorIndex", "sqlite_vec_loads"]

CANDIDATES = 256
"""Passages whose cosine is computed."""
_RESIDENT = 65_536
"""Searchables that are looked through from memory also where sqlite-vec is there: it is the quicker way."""
_BATCH = 64

Scan = Literal["auto", "python", "sqlite-vec"]


class Nearest(NamedTuple):
    """A hit by vector."""

    item: int
    """``searchables.id``."""
    cosine: float
    """Of its nearest passage."""


@dataclass(frozen=True, slots=True)
class Passages:
    """What one searchable wants embedded."""

    item: int
    ref: str
    kind: str
    texts: tuple[str, ...]


def sqlite_vec_loads() -> bool:
    """Whether sqlite-vec is installed and this SQLite loads extensions."""
    connection = sqlite3.connect(":memory:")
    try:
        return _load_sqlite_vec(connection)
    finally:
        connection.close()


class VectorIndex:
    """The vectors of one embedder. Usable from several threads, one call at a time."""

    def __init__(
        self, path: Path, views_path: Path, reader: Reader, embedder: str, dimensions: int, scan: Scan
    ) -> None:
        self._path = path
        self._reader = reader
        self.embedder = embedder
        self.dimensions = dimensions
        self._mutex = threading.Lock()
        self._closed = False
        self._views = connect_reader(views_path, VIEWS)
        try:
            self._connection = connect_derived(path, VECTORS, sql.load("vectors.sql"))
        except BaseException:
            self._views.close()
            raise
        self._has_vec = scan != "python" and _load_sqlite_vec(self._connection)
        if scan == "sqlite-vec" and not self._has_vec:
            self.close()
            raise NotFoundError("sqlite-vec does not load here", hint="pip install 'runloop[vec]'")
        self._scan = scan
        self._resident: dict[str, dict[int, int]] | None = None
        self._start_over_if_foreign()
        self._retractions = -1

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        views_path: str | os.PathLike[str],
        reader: Reader,
        embedder: str,
        dimensions: int,
        *,
        scan: Scan = "auto",
    ) -> VectorIndex:
        """Open, making the file anew when it is damaged, of another embedder, ledger or version."""
        file, views = Path(path), Path(views_path)
        return opened(file, lambda: cls(file, views, reader, embedder, dimensions, scan))

    def close(self) -> None:
        """Let go of both files. May be called twice."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._views.close()
                self._connection.close()

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- following the views ---------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many vectors there are."""
        with self._mutex:
            return int(self._one("SELECT count(*) FROM codes"))

    def behind(self) -> int:
        """How many searchables have no vectors yet, at most 1 000."""
        with self._mutex:
            self._forget_vanished()
            cursor = self._one("SELECT cursor FROM meta")
            found = self._views.execute(
                "SELECT count(*) FROM (SELECT 1 FROM searchables WHERE id > ? LIMIT 1000)", (cursor,)
            )
            return int(found.fetchone()[0])

    def wanted(self, limit: int = _BATCH) -> list[Passages]:
        """The next searchables without vectors, in order; what vanished from the views is forgotten."""
        with self._mutex:
            self._forget_vanished()
            cursor = self._one("SELECT cursor FROM meta")
            rows = self._views.execute(
                "SELECT id, ref, kind, title, body FROM searchables WHERE id > ? ORDER BY id LIMIT ?",
                (cursor, limit),
            ).fetchall()
        return [
            Passages(item, ref, kind, tuple(passages(title, body))) for item, ref, kind, title, body in rows
        ]

    def keep(self, done: Sequence[Passages], vectors: Iterable[Sequence[Vector]]) -> None:
        """Store the vectors of what :meth:`wanted` gave, all of it, in the same order."""
        if not done:
            return
        rows = list(zip(done, vectors, strict=True))
        size = (self.dimensions + 7) // 8
        if any(len(vector.numbers) != self.dimensions for _, made in rows for vector in made):
            raise ViewsError(f"{self.embedder} gave a vector without {self.dimensions} numbers")
        with self._mutex:
            write = self._connection.execute
            write("BEGIN IMMEDIATE")
            try:
                for item, made in rows:
                    self._drop("SELECT item, kind FROM items WHERE ref = ?", (item.ref,))
                    write("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", (item.item, item.ref, item.kind))
                    for number, vector in enumerate(made[:MAX_PASSAGES]):
                        place = item.item * MAX_PASSAGES + number
                        bits = vector.bits.to_bytes(size, "little")
                        write("INSERT OR REPLACE INTO codes VALUES (?, ?, ?)", (place, item.kind, bits))
                        write(
                            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                            (place, square(vector.numbers), vector.numbers),
                        )
                        if self._resident is not None:
                            self._resident.setdefault(item.kind, {})[place] = vector.bits
                self._place(done[-1].item)
                write("COMMIT")
            except BaseException:
                self._resident = None
                if self._connection.in_transaction:
                    write("ROLLBACK")
                raise

    def catch_up(self, embedder: Embedder, *, limit: int | None = None) -> bool:
        """Embed what is wanted, at most ``limit`` searchables; True when nothing is left."""
        left = limit if limit is not None else -1
        while left:
            batch = self.wanted(min(_BATCH, left) if left > 0 else _BATCH)
            if not batch:
                return True
            texts = [text for item in batch for text in item.texts]
            made = iter(embedder.embed(texts))
            self.keep(batch, [[next(made) for _ in item.texts] for item in batch])
            left = max(0, left - len(batch)) if left > 0 else left
        return not self.behind()

    # --- asking ----------------------------------------------------------------------------------

    def nearest(
        self, vector: Vector, k: int, kinds: Collection[str] = (), *, floor: float = 0.0
    ) -> list[Nearest]:
        """The ``k`` searchables with the nearest passages, nearest first, equals by newer id."""
        if len(vector.numbers) != self.dimensions or not any(vector.numbers):
            return []
        with self._mutex:
            found = self._candidates(vector.bits, sorted(set(kinds)))
            marks = ", ".join("?" * len(found))
            numbers = self._connection.execute(
                f"SELECT id, square, numbers FROM vectors WHERE id IN ({marks})",  # noqa: S608
                found,
            ).fetchall()
        best: dict[int, float] = {}
        own = square(vector.numbers)
        for place, its, other in numbers:
            item, cosine = place // MAX_PASSAGES, similarity(vector.numbers, other, (own, its))
            if cosine >= floor and cosine > best.get(item, 0.0):
                best[item] = cosine
        ranked = sorted(best.items(), key=lambda pair: (-pair[1], -pair[0]))
        return [Nearest(item, cosine) for item, cosine in ranked[:k]]

    def _candidates(self, bits: int, kinds: list[str]) -> list[int]:
        """The passages nearest by Hamming distance, then by id."""
        many = self._has_vec and self._one("SELECT count(*) FROM items") > _RESIDENT
        if many or self._scan == "sqlite-vec":
            self._resident = None
            return self._scanned_by_sqlite_vec(bits, kinds)
        return self._scanned_by_python(bits, kinds)

    def _scanned_by_sqlite_vec(self, bits: int, kinds: list[str]) -> list[int]:
        some = f"WHERE kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        statement = f"""
            SELECT id FROM codes {some}
            ORDER BY vec_distance_hamming(vec_bit(bits), vec_bit(?)), id LIMIT {CANDIDATES}
        """  # noqa: S608
        asked = bits.to_bytes((self.dimensions + 7) // 8, "little")
        return [place for (place,) in self._connection.execute(statement, (*kinds, asked))]

    def _scanned_by_python(self, bits: int, kinds: list[str]) -> list[int]:
        shards = self._codes()
        codes = [shards[kind] for kind in (kinds or sorted(shards)) if kind in shards]
        distances = [[(bits ^ code).bit_count() for code in shard.values()] for shard in codes]
        tally: Counter[int] = Counter()
        for found in distances:
            tally.update(found)
        left, cut = CANDIDATES, -1
        for cut in sorted(tally):
            left -= tally[cut]
            if left <= 0:
                break
        near = [
            (distance, place)
            for shard, found in zip(codes, distances, strict=True)
            for place, distance in zip(shard, found, strict=True)
            if distance <= cut
        ]
        return [place for _, place in sorted(near)[:CANDIDATES]]

    def _codes(self) -> dict[str, dict[int, int]]:
        if self._resident is None:
            self._resident = {}
            for place, kind, bits in self._connection.execute("SELECT id, kind, bits FROM codes ORDER BY id"):
                self._resident.setdefault(kind, {})[place] = int.from_bytes(bits, "little")
        return self._resident

    # --- inside ----------------------------------------------------------------------------------

    def _one(self, statement: str) -> int:
        found = self._connection.execute(statement).fetchone()
        return int(found[0]) if found else 0

    def _place(self, cursor: int) -> None:
        """Where the index stands, and in which ledger."""
        event = self._reader.event(cursor)
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?)",
            (self.embedder, self.dimensions, cursor, event.id, event.hash),
        )

    def _drop(self, which: str, values: tuple[object, ...] = ()) -> None:
        for item, kind in self._connection.execute(which, values).fetchall():
            places = (item * MAX_PASSAGES, (item + 1) * MAX_PASSAGES)
            for table in ("codes", "vectors"):
                self._connection.execute(f"DELETE FROM {table} WHERE id >= ? AND id < ?", places)  # noqa: S608
            self._connection.execute("DELETE FROM items WHERE item = ?", (item,))
            shard = (self._resident or {}).get(kind, {})
            for place in range(*places):
                shard.pop(place, None)

    def _forget_vanished(self) -> None:
        """After a retraction, what the views no longer hold, or hold again, is put right."""
        marks = self._views.execute("SELECT max(event), max(restored_event) FROM retractions").fetchone()
        retracted = max(mark or 0 for mark in marks)
        if retracted == self._retractions:
            return
        there = {item for (item,) in self._views.execute("SELECT id FROM searchables")}
        cursor = self._one("SELECT cursor FROM meta")
        here = {item for (item,) in self._connection.execute("SELECT item FROM items")}
        missing = [item for item in there - here if item <= cursor]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for item in here - there:
                self._drop("SELECT item, kind FROM items WHERE item = ?", (item,))
            if missing:  # an older fact counts again: go back to it
                for item in here & there:
                    if item >= min(missing):
                        self._drop("SELECT item, kind FROM items WHERE item = ?", (item,))
                self._connection.execute("UPDATE meta SET cursor = ?", (min(missing) - 1,))
            self._connection.execute("COMMIT")
        except BaseException:
            self._resident = None
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._retractions = retracted

    def _start_over_if_foreign(self) -> None:
        found = self._connection.execute(
            "SELECT embedder, dimensions, ledger_event, ledger_hash FROM meta"
        ).fetchone()
        if found is None:
            return
        embedder, dimensions, event, own_hash = found
        same = (embedder, dimensions) == (self.embedder, self.dimensions)
        if same:
            try:
                same = self._reader.event(event).hash == own_hash
            except NotFoundError:
                same = False
        if not same:
            self._connection.execute("BEGIN IMMEDIATE")
            for table in ("meta", "items", "codes", "vectors"):
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
            self._connection.execute("COMMIT")


def _load_sqlite_vec(connection: sqlite3.Connection) -> bool:
    """The extension comes from the installed package only; loading is switched off again at once."""
    try:
        import sqlite_vec
    except ImportError:
        return False
    try:
        connection.enable_load_extension(True)
    except (AttributeError, sqlite3.Error):
        return False
    try:
        sqlite_vec.load(connection)
    except sqlite3.Error:
        return False
    finally:
        with suppress(sqlite3.Error):
            connection.enable_load_extension(False)
    return True

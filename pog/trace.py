"""Where every fact leads, and what it is called: an index beside the ledger, so that ``why`` never scans it.

Knows: how to follow the ledger, how a name becomes a number. Does not know: which of several facts a name
means, or what an explanation is (``pog.why``). It holds nothing that is not recorded in the ledger: edges are
``provenance.causes`` turned round. Disposable: it is made anew when it is not this ledger's.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from pog import sql
from pog.chain import Row
from pog.connection import TRACE, connect_derived, opened
from pog.errors import ViewsError
from pog.reader import Reader
from runloop.errors import NotFoundError, RunloopError
from runloop.events import Event, HostcallDelivered, encode_payload

__all__ = ["TEXTS", "Trace", "named_digests", "says"]

Space = Literal["digest", "approval", "message", "text", "token"]

_SPACES: dict[str, int] = {"digest": 1, "approval": 2, "message": 3, "text": 4, "token": 5}
_BATCH = 2_048
_OFFSET = 1 << 63
TEXTS: dict[str, tuple[str, ...]] = {
    "email.sent": ("message_id", "recipients"),
    "action.requested": ("action.recipients",),
    "contact.upserted": ("emails",),
    "document.imported": ("people",),
    "calendar.upserted": ("people",),
}
"""Kind -> fields by whose text it can be found. Where mail went comes before where it came from."""
_EXACT = frozenset({"message_id", "path"})


class Trace:
    """The index of one ledger. Usable from several threads, one call at a time."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._reader = reader
        self._mutex = threading.Lock()
        self._closed = False
        self._connection = connect_derived(path, TRACE, sql.load("trace.sql"))
        try:
            self._cursor, own_hash = self._connection.execute("SELECT event, hash FROM cursor").fetchone()
            if self._cursor and not self._is_ours(own_hash):
                self._empty()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], reader: Reader) -> Trace:
        """Open, making the file anew when it is damaged or of another version."""
        file = Path(path)
        return opened(file, lambda: cls(file, reader))

    @property
    def cursor(self) -> int:
        """Id of the last event in the index."""
        return int(self._cursor)

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catch_up(self, *, limit: int | None = None) -> bool:
        """Take in what is new, at most ``limit`` events; True when nothing is left.

        Raises :class:`ViewsError` when the index cannot be written.
        """
        head = self._reader.head_id()
        taken = 0
        while self._cursor < head and (limit is None or taken < limit):
            rows = list(islice(self._reader.rows(after=self._cursor), _BATCH))
            if not rows:
                break
            taken += len(rows)
            self._take(rows)
        return int(self._cursor) >= head

    def effects(self, causes: list[int]) -> dict[int, list[int]]:
        """Effect -> those of ``causes`` it names, by the recorded edges."""
        found: dict[int, list[int]] = {}
        with self._mutex:
            for at in range(0, len(causes), 500):
                some = causes[at : at + 500]
                marks = ", ".join("?" * len(some))
                statement = f"SELECT cause, effect FROM edges WHERE cause IN ({marks})"  # noqa: S608
                for cause, effect in self._connection.execute(statement, some):
                    found.setdefault(effect, []).append(cause)
        return found

    def digest(self, prefix: str, limit: int = 1_000) -> list[int]:
        """Events that may name a digest with this beginning, oldest first."""
        low, high = (int(prefix[:16].ljust(16, digit), 16) - _OFFSET for digit in "0f")
        return self._range("digest", low, high, limit)

    def approval(self, prefix: str, limit: int = 1_000) -> list[int]:
        """Events that may be about an approval whose id begins so."""
        if not prefix.removeprefix("ap_"):
            return []
        return self._range("approval", _approval(prefix), _approval(prefix, b"\xff"), limit)

    def message(self, number: int) -> list[int]:
        """Events that state the message of this number."""
        return self._exact("message", number - _OFFSET if number >= _OFFSET else number)

    def text(self, kind: str, field: str, value: str) -> list[int]:
        """Events of a kind whose field may be, or list, this text."""
        return self._exact("text", _hashed(kind, field, value))

    def token(self, token: str) -> list[int]:
        """Events that may issue or revoke a token."""
        return self._exact("token", _hashed("", "token", token))

    # --- inside ----------------------------------------------------------------------------------

    def _range(self, space: Space, low: int, high: int, limit: int) -> list[int]:
        with self._mutex:
            found = self._connection.execute(
                "SELECT DISTINCT event FROM names WHERE space = ? AND key BETWEEN ? AND ? LIMIT ?",
                (_SPACES[space], low, high, limit),
            ).fetchall()
        return sorted(event for (event,) in found)

    def _exact(self, space: Space, key: int) -> list[int]:
        with self._mutex:
            found = self._connection.execute(
                "SELECT event FROM names WHERE space = ? AND key = ? ORDER BY event LIMIT 10000",
                (_SPACES[space], key),
            ).fetchall()
        return [event for (event,) in found]

    def _take(self, rows: list[Row]) -> None:
        edges: list[tuple[int, int]] = []
        names: list[tuple[int, int, int]] = []
        for row in rows:
            try:
                causes = msgspec.json.decode(row.provenance).get("causes", ())
                edges += [(cause, row.id) for cause in causes if isinstance(cause, int)]
                names += [(_SPACES[space], key, row.id) for space, key in self._names(row)]
            except (msgspec.DecodeError, AttributeError, TypeError):
                continue  # a damaged row is told of by 'rlp verify'; here it only has no name
        with self._mutex:
            write = self._connection
            try:
                write.execute("BEGIN IMMEDIATE")
                write.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?)", edges)
                write.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", sorted(names))
                write.execute("UPDATE cursor SET event = ?, hash = ?", (rows[-1].id, rows[-1].hash))
                write.execute("COMMIT")
            except sqlite3.Error as error:
                if write.in_transaction:
                    write.execute("ROLLBACK")
                raise ViewsError(
                    f"the index of causes was not written: {error}", hint="rlp doctor"
                ) from error
            self._cursor = rows[-1].id

    def _names(self, row: Row) -> Iterator[tuple[Space, int]]:
        payload = msgspec.json.decode(row.payload)
        yield "digest", int.from_bytes(row.hash[:8], "big") - _OFFSET
        for _, value in named_digests(row.kind, payload):
            yield from _digest(value)
        for field in TEXTS.get(row.kind, ()):
            for value in _listed(payload, field):
                yield "text", _hashed(row.kind, field, value)
        if row.kind.startswith("action."):
            yield "approval", _approval(payload["approval"])
        elif row.kind == "message.sent":
            number = payload["msg_id"]
            yield "message", number - _OFFSET if number >= _OFFSET else number
        elif row.kind.startswith("token."):
            yield "token", _hashed("", "token", payload["token"])
        for name, value in self._written(payload):
            if name == "path":
                yield "text", _hashed("fs.write", "path", value)
            else:
                yield from _digest(value)

    def written(self, event: Event) -> Iterator[tuple[str, str]]:
        """``path`` and ``digest`` of the file an event says was written; nothing for any other event."""
        if event.kind == HostcallDelivered.kind:
            yield from self._written(encode_payload(event.payload))

    def _written(self, payload: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """A written file is called by its path and by the digest of what was written."""
        if payload.get("op") != "fs.write" or not payload.get("ok"):
            return
        for field, name in (("args_blob", "path"), ("result_blob", "digest")):
            try:
                told = msgspec.json.decode(self._reader.blob(str(payload[field])))
            except (KeyError, RunloopError, msgspec.DecodeError):
                continue
            if isinstance(told, dict) and isinstance(told.get(name), str):
                yield name, told[name]

    def _is_ours(self, own_hash: bytes) -> bool:
        try:
            return bool(self._reader.event(self._cursor).hash == own_hash)
        except NotFoundError:
            return False

    def _empty(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM edges")
        self._connection.execute("DELETE FROM names")
        self._connection.execute("UPDATE cursor SET event = 0, hash = zeroblob(32)")
        self._connection.execute("COMMIT")
        self._cursor = 0


def named_digests(kind: str, payload: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """``(field, digest)`` for every digest that a fact names; a field inside others is ``outer.inner``."""
    for name, value in _strings(payload, ""):
        last = name.rpartition(".")[2]
        if len(value) == 64 and (last.endswith(("_digest", "_blob")) or last in {"blob", "bundle"}):
            yield name, value
    if kind == "node.finished":
        for index, value in enumerate((payload.get("output") or {}).get("artifacts") or ()):
            if isinstance(value, str):
                yield f"artifacts.{index}", value


def says(payload: Any, field: str, text: str) -> bool:
    """Whether a field is, or lists, this text, as :meth:`Trace.text` looks for it."""
    wanted = _folded(field, text)
    return any(_folded(field, value) == wanted for value in _listed(payload, field))


def _digest(value: str) -> Iterator[tuple[Space, int]]:
    try:
        yield "digest", int(value[:16], 16) - _OFFSET
    except ValueError:
        return


def _approval(name: str, filler: bytes = b"\0") -> int:
    """The first eight characters behind ``ap_``: what begins alike lies side by side."""
    begins = name.removeprefix("ap_").encode("utf-8", "replace")[:8]
    return int.from_bytes(begins.ljust(8, filler), "big") - _OFFSET


def _hashed(kind: str, field: str, value: str) -> int:
    named = f"{kind}\0{field}\0{_folded(field, value)}".encode("utf-8", "replace")
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big") - _OFFSET


def _folded(field: str, text: str) -> str:
    """Addresses and names are found whatever their case."""
    return text if field in _EXACT else text.lower()


def _listed(payload: Any, field: str) -> list[str]:
    for part in field.split("."):
        payload = payload.get(part) if isinstance(payload, dict) else None
    values = payload if isinstance(payload, list) else [payload]
    return [value for value in values if isinstance(value, str)]


def _strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{name}.{key}" if name else key)

"""Durable memory of agents: what ``memory.updated`` and ``memory.forgotten`` left, a version for each key.

Knows: what is current, that a write must name the version it has read, what a namespace holds. Does not
know: who may use which namespace (the gate) or how a fact is stated (``runloopd.journal``).

Values are read from the views, one row at a time; only what the views do not have yet, and a few small
entries used lately, are held here, so that a memory of a million entries costs the daemon no more than an
empty one (docs/adr/0014).
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pog.connection import VIEWS, connect_reader
from pog.errors import MemoryBehindError, MemoryConflictError, ViewsError
from pog.refold import REFOLDS
from runloop.digest import canonical
from runloop.errors import UsageError
from runloop.events import Event, MemoryForgotten, MemoryUpdated

__all__ = ["Entry", "Key", "Memory", "Space", "Write"]

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]*(?:[:/.][a-z0-9_]+)*\Z")
MAX_KEY_CHARS = 256
MAX_VALUE_BYTES = 1024 * 1024
_MAX_AHEAD = 20_000
"""Entries that the views may lack before nothing more is written."""
_MAX_LATELY, _MAX_LATELY_BYTES = 1_024, 4_096
"""Entries that are remembered because they were used lately, and how large one of them may be."""
_MAX_SPACES = 1_024
"""Namespaces whose size is remembered; any other is counted anew when it is written to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is stored under a key. ``version`` 0 and ``event`` None: nothing ever was."""

    value: Any
    version: int
    event: int | None
    forgotten: bool = False
    size: int = 0
    """Bytes of key and value; 0 while there is no value."""
    label: str | None = None
    """Trust label of whoever and whatever it was made from."""

    @property
    def exists(self) -> bool:
        """Whether there is a value."""
        return self.version > 0 and not self.forgotten


_NOTHING = Entry(value=None, version=0, event=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One line of a listing."""

    key: str
    version: int
    size: int
    event: int
    updated_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """What one namespace holds."""

    keys: int
    bytes: int


class Write:
    """A version of a key, promised to nobody else until :meth:`end`. State :attr:`payload` meanwhile::

    with memory.put("agent:writer", "tone", "warm", expected_version=3) as write:
        await journal.append(Draft(payload=write.payload, ...))
    """

    def __init__(
        self,
        memory: Memory,
        payload: MemoryUpdated | MemoryForgotten,
        before: Entry,
        size: int,
        after: Space,
    ) -> None:
        self._memory = memory
        self.payload = payload
        self.before = before
        """What it replaces."""
        self.size = size
        """Bytes of key and value; 0 when it forgets."""
        self.after = after
        """What the namespace holds with it, writes under way included."""

    def __enter__(self) -> Write:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """The fact is stated, or will not be. May be called twice."""
        self._memory._release(self)


class Memory:
    """All current entries. Feed it every commit: ``journal.listen(memory.apply)``.

    ``cursor`` tells how far the views are. Whoever asks must not ask before the views have reached the head
    that the ledger had when this was made, and the newest retraction: after that, what they lack has passed
    through :meth:`apply`.
    """

    def __init__(self, views_path: str | os.PathLike[str], cursor: Callable[[], int]) -> None:
        self._cursor = cursor
        self._path = Path(views_path)
        self._connection = connect_reader(self._path, VIEWS)
        self._mutex = threading.RLock()
        self._ahead: dict[tuple[str, str], Entry] = {}
        self._order: deque[tuple[int, tuple[str, str]]] = deque()
        self._lately: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        """Current entries that were used lately, whether or not the views have them."""
        self._writes: dict[tuple[str, str], Write | None] = {}
        self._spaces: dict[str, Space] = {}
        self._refold = 0
        """Newest event after which the views are folded anew: no size is remembered before they have it."""

    def close(self) -> None:
        """Let go of the file."""
        with self._mutex:
            self._connection.close()

    @property
    def held(self) -> int:
        """Entries held in memory: those the views do not have yet."""
        return len(self._ahead)

    def apply(self, events: Iterable[Event]) -> None:
        """Take committed events in; other kinds are passed over."""
        for event in events:
            payload = event.payload
            if isinstance(payload, (MemoryUpdated, MemoryForgotten)):
                place = (payload.namespace, payload.key)
                with self._mutex:
                    entry = self._ahead[place] = _entry(event, payload)
                    self._order.append((event.id, place))
                    self._remember(place, entry)
                    self._recount(place, entry)
            elif event.kind in REFOLDS:
                # Whoever asks next waits for the views to contain this: they know which facts count.
                with self._mutex:
                    self._refold = event.id
                    self._ahead.clear()
                    self._order.clear()
                    self._lately.clear()
                    self._spaces.clear()
        with self._mutex:
            self._drop_folded()

    def knows(self, namespace: str, key: str, *, size: bool = False) -> bool:
        """Whether :meth:`get` of this key needs no file; with ``size``, whether a write needs none."""
        place = (namespace, key)
        with self._mutex:
            return (place in self._ahead or place in self._lately) and (not size or namespace in self._spaces)

    def get(self, namespace: str, key: str) -> Entry:
        """The current entry; version 0 where there never was one."""
        place = (namespace, key)
        with self._mutex:
            entry = self._ahead.get(place) or self._lately.get(place)
            if entry is None:
                refolded = self._refolded()
                entry = self._stored(namespace, key)
                if not refolded:
                    return entry
            self._remember(place, entry)
            return entry

    def listed(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int = 200
    ) -> tuple[list[Key], bool]:
        """Keys that have a value, sorted, and whether there are more: as far as the views are."""
        start = max(prefix, after)
        rows = self._rows(
            "SELECT key, entry_version, length(CAST(key AS BLOB)) + length(CAST(value AS BLOB)), event,"
            " updated_ms FROM memory WHERE namespace = ? AND key >= ? AND key > ? AND value IS NOT NULL"
            " AND substr(key, 1, ?) = ? ORDER BY key LIMIT ?",
            (namespace, start, after, len(prefix), prefix, limit + 1),
        )
        keys = [
            Key(key=key, version=version, size=size, event=event, updated_ms=moment)
            for key, version, size, event, moment in rows[:limit]
        ]
        return keys, len(rows) > limit

    def spaces(self) -> dict[str, Space]:
        """Every namespace and what it holds: as far as the views are."""
        rows = self._rows(
            "SELECT namespace, keys, bytes FROM memory_spaces WHERE keys > 0 ORDER BY namespace", ()
        )
        return {name: Space(keys=keys, bytes=size) for name, keys, size in rows}

    def put(self, namespace: str, key: str, value: Any, expected_version: int | None = None) -> Write:
        """A write to state. Raises :class:`MemoryConflictError` when ``expected_version`` is not the current
        one (0: no entry) or somebody is writing this key right now, :class:`UsageError` for what cannot be
        stored, :class:`MemoryBehindError` when the views are too far behind."""
        size = _check(namespace, key, value)

        def payload(version: int) -> MemoryUpdated:
            return MemoryUpdated(namespace=namespace, key=key, value=value, entry_version=version)

        return self._claim((namespace, key), expected_version, size, payload)

    def forget(self, namespace: str, key: str, expected_version: int | None = None) -> Write | None:
        """As :meth:`put`, for a deletion; None where there is nothing to forget."""
        _check(namespace, key, None)

        def payload(version: int) -> MemoryForgotten:
            return MemoryForgotten(namespace=namespace, key=key, entry_version=version)

        write = self._claim((namespace, key), expected_version, 0, payload)
        if write.before.exists:
            return write
        write.end()
        return None

    # --- inside ----------------------------------------------------------------------------------

    def _claim(
        self,
        place: tuple[str, str],
        expected: int | None,
        size: int,
        payload: Callable[[int], MemoryUpdated | MemoryForgotten],
    ) -> Write:
        namespace, key = place
        with self._mutex:
            if place in self._writes:
                raise _conflict(f"{namespace}/{key} is being written by somebody else", expected, None)
            if len(self._ahead) >= _MAX_AHEAD:
                raise MemoryBehindError(
                    f"{len(self._ahead)} entries of memory are not in the views yet",
                    hint="wait; if it lasts, 'rlp doctor' looks for causes",
                )
            before = self.get(namespace, key)
            there = before.version if before.exists else 0
            if expected not in {None, before.version, there}:
                raise _conflict(
                    f"{namespace}/{key} is at version {before.version}, not {expected}",
                    expected,
                    before.version,
                )
            self._writes[place] = None
            try:
                after = self._with(namespace, before, size)
                write = Write(self, payload(before.version + 1), before, size, after)
            except BaseException:
                del self._writes[place]
                raise
            self._writes[place] = write
            return write

    def _release(self, write: Write) -> None:
        place = (write.payload.namespace, write.payload.key)
        with self._mutex:
            if self._writes.get(place) is write:
                del self._writes[place]

    def _with(self, namespace: str, before: Entry, size: int) -> Space:
        """What the namespace holds with this write and those under way."""
        known = self._spaces.get(namespace)
        if known is None:
            refolded = self._refolded()
            known = self._counted(namespace)
            if len(self._spaces) >= _MAX_SPACES:
                self._spaces.clear()
            if refolded:
                self._spaces[namespace] = known
        keys, total = known.keys, known.bytes
        under_way = [w for (space, _), w in self._writes.items() if space == namespace and w is not None]
        for old, new in [*((w.before, w.size) for w in under_way), (before, size)]:
            keys += int(new > 0) - int(old.exists)
            total += new - old.size
        return Space(keys=keys, bytes=total)

    def _counted(self, namespace: str) -> Space:
        rows = self._rows("SELECT keys, bytes FROM memory_spaces WHERE namespace = ?", (namespace,))
        keys, total = rows[0] if rows else (0, 0)
        for (space, key), entry in self._ahead.items():
            if space == namespace:
                stored = self._stored(space, key)
                keys += int(entry.exists) - int(stored.exists)
                total += entry.size - stored.size
        return Space(keys=keys, bytes=total)

    def _recount(self, place: tuple[str, str], entry: Entry) -> None:
        """Keep the sizes true. What was written past :meth:`put` is counted anew."""
        known, write = self._spaces.get(place[0]), self._writes.get(place)
        if known is None:
            return
        if write is None:
            del self._spaces[place[0]]
            return
        self._spaces[place[0]] = Space(
            keys=known.keys + int(entry.exists) - int(write.before.exists),
            bytes=known.bytes + entry.size - write.before.size,
        )
        del self._writes[place]  # it is current now, and counted once

    def _refolded(self) -> bool:
        """Whether what is read from the views from now on may be remembered. Ask before reading."""
        return self._cursor() >= self._refold

    def _remember(self, place: tuple[str, str], entry: Entry) -> None:
        self._lately.pop(place, None)
        if entry.size <= _MAX_LATELY_BYTES:
            self._lately[place] = entry
            if len(self._lately) > _MAX_LATELY:
                self._lately.popitem(last=False)

    def _drop_folded(self) -> None:
        cursor = self._cursor()
        while self._order and self._order[0][0] <= cursor:
            event, place = self._order.popleft()
            entry = self._ahead.get(place)
            if entry is not None and entry.event == event:
                del self._ahead[place]

    def _stored(self, namespace: str, key: str) -> Entry:
        rows = self._rows(
            "SELECT value, entry_version, event, label FROM memory WHERE namespace = ? AND key = ?",
            (namespace, key),
        )
        if not rows:
            return _NOTHING
        text, version, event, label = rows[0]
        if text is None:
            return Entry(value=None, version=version, event=event, forgotten=True)
        size = len(key.encode()) + len(text.encode())
        value = msgspec.json.decode(text)
        return Entry(value=value, version=version, event=event, size=size, label=label)

    def _rows(self, statement: str, params: tuple[Any, ...]) -> list[Any]:
        try:
            with self._mutex:
                return self._connection.execute(statement, params).fetchall()
        except sqlite3.Error as error:
            raise ViewsError(f"{self._path} cannot be read: {error}", hint="rlp doctor") from error


def _entry(event: Event, payload: MemoryUpdated | MemoryForgotten) -> Entry:
    if isinstance(payload, MemoryForgotten):
        return Entry(value=None, version=payload.entry_version, event=event.id, forgotten=True)
    return Entry(
        value=payload.value,
        version=payload.entry_version,
        event=event.id,
        size=len(payload.key.encode()) + len(canonical(payload.value)),
        label=event.provenance.label,
    )


def _conflict(message: str, expected: int | None, actual: int | None) -> MemoryConflictError:
    return MemoryConflictError(
        message, hint="read it again, decide again, write again", expected=expected, actual=actual
    )


def _check(namespace: str, key: str, value: Any) -> int:
    if not _NAMESPACE.match(namespace) or len(namespace) > MAX_KEY_CHARS:
        raise UsageError(
            f"{namespace!r} is not a namespace", hint="agent:<name> or shared:<name>", code="memory.name"
        )
    if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise UsageError(
            f"{key!r} is not a memory key",
            hint=f"1 to {MAX_KEY_CHARS} printable characters",
            code="memory.name",
        )
    size = len(canonical(value))
    if size > MAX_VALUE_BYTES:
        raise UsageError(
            f"the value has {size} bytes, more than {MAX_VALUE_BYTES}",
            hint="keep it in an artifact and remember its digest",
            code="memory.size",
        )
    return size + len(key.encode())

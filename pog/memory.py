"""Durable memory of agents: a fold of ``memory.updated``, one value and version for each key.

Knows: what is current, and that a write must name the version it has read. Does not know: who may use which
namespace (the gate) or how a fact is stated (``runloopd.journal``).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pog.errors import MemoryConflictError
from pog.reader import Reader
from runloop.digest import canonical
from runloop.errors import UsageError
from runloop.events import Event, MemoryUpdated

__all__ = ["Entry", "Memory"]

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]*(?:[:/.][a-z0-9_]+)*\Z")
MAX_KEY_CHARS = 256
MAX_VALUE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is stored under a key. ``version`` 0 and ``event`` None: nothing."""

    value: Any
    version: int
    event: int | None


class Memory:
    """All current entries. Feed it every commit: ``journal.listen(memory.apply)``."""

    def __init__(self, reader: Reader) -> None:
        self._mutex = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._promised: set[tuple[str, str]] = set()
        self.apply(reader.events(kinds={MemoryUpdated.kind}))

    def apply(self, events: Iterable[Event]) -> None:
        """Take committed events in; other kinds are passed over."""
        for event in events:
            if isinstance(event.payload, MemoryUpdated):
                key = (event.payload.namespace, event.payload.key)
                with self._mutex:
                    self._entries[key] = Entry(
                        value=event.payload.value, version=event.payload.entry_version, event=event.id
                    )

    def get(self, namespace: str, key: str) -> Entry:
        """The current entry; version 0 where there is none."""
        with self._mutex:
            return self._entries.get((namespace, key), Entry(value=None, version=0, event=None))

    def keys(self, namespace: str) -> list[str]:
        """Keys of a namespace, sorted."""
        with self._mutex:
            return sorted(key for space, key in self._entries if space == namespace)

    @contextmanager
    def put(
        self, namespace: str, key: str, value: Any, expected_version: int | None = None
    ) -> Iterator[MemoryUpdated]:
        """The payload to state, promised to nobody else while the block runs. State it inside the block::

            with memory.put("agent:writer", "tone", "warm", expected_version=3) as payload:
                await journal.append(Draft(payload=payload, ...))

        Raises :class:`MemoryConflictError` when ``expected_version`` is not the current one (0: no entry) or
        somebody is writing this key right now, :class:`UsageError` for what cannot be stored.
        """
        _check(namespace, key, value)
        place = (namespace, key)
        with self._mutex:
            entry = self._entries.get(place)
            current = entry.version if entry else 0
            if place in self._promised or expected_version not in {None, current}:
                raise MemoryConflictError(
                    f"{namespace}/{key} is being written by somebody else"
                    if place in self._promised
                    else f"{namespace}/{key} is at version {current}, not {expected_version}",
                    hint="read it again, decide again, write again",
                    expected=expected_version,
                    actual=current,
                )
            self._promised.add(place)
        try:
            yield MemoryUpdated(namespace=namespace, key=key, value=value, entry_version=current + 1)
        finally:
            with self._mutex:
                self._promised.discard(place)


def _check(namespace: str, key: str, value: Any) -> None:
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

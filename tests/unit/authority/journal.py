"""A journal in memory: the twin of ``runloopd.journal`` for tests that need no file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from pog.errors import LedgerWriteError
from runloop.events import Draft, Event
from runloop.testing import ManualClock


class MemoryJournal:
    """Keeps order; commits after one turn of the loop; fails when told to."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self.blobs: list[bytes] = []
        self.broken = False

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]:
        if self.broken:
            raise LedgerWriteError("disk full", hint="make room")
        await asyncio.sleep(0)
        made = [self._event(draft, len(self.events) + n) for n, draft in enumerate(drafts, 1)]
        self.events += made
        self.blobs += blobs
        await asyncio.sleep(0)
        return made

    def _event(self, draft: Draft, number: int) -> Event:
        return Event(
            id=number,
            ts_ms=self.clock.now_ms(),
            actor=draft.actor,
            kind=draft.payload.kind,
            scope=draft.scope,
            run=draft.run,
            payload=draft.payload,
            provenance=draft.provenance,
            hash=b"",
            prev_hash=b"",
        )

    def payloads(self, kind: str) -> list[Any]:
        return [event.payload for event in self.events if event.kind == kind]

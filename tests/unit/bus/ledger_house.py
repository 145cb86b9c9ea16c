"""A real bus, socket, journal and ledger in one folder; it can be stopped and started again on its files."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.reader import Reader
from pog.topics import Topics
from runloop import __version__
from runloop.clock import Clock
from runloop.errors import RunloopError
from runloop.events import TopicPublished
from runloop.rmp.frame import MAX_BODY
from runloop.testing import ManualClock
from runloopd.bus.bus import Bus
from runloopd.bus.consumers import Consumers
from runloopd.bus.directory import Directory
from runloopd.bus.durable import Durable, DurableLimits
from runloopd.bus.socket import PeerLimits, SocketServer
from runloopd.journal import Journal

from .support import NOW

CREDENTIAL = bytes(range(32))


class LedgerHouse:
    """The daemon's lower half."""

    def __init__(self, folder: Path, clock: Clock | None = None, **limits: Any) -> None:
        self.folder = folder
        self.path = folder / "run" / "s"
        self.clock = clock or ManualClock(NOW)
        self.limits = DurableLimits(**limits)
        self.refused: list[RunloopError] = []
        self.running = False

    async def start(self, peers: PeerLimits | None = None) -> LedgerHouse:
        events, views = self.folder / "pog" / "events.db", self.folder / "pog" / "views.db"
        self.bus = Bus(self.clock)
        ledger = Ledger.open(events, clock=self.clock, synchronous="NORMAL")
        self.journal = Journal(ledger, Materializer.open(views, events), self.clock)
        self.reader = Reader(events)
        self.index = Topics(views)
        self.durable = Durable(self.bus, self.journal, self.index, self.clock, self.limits, max_body=MAX_BODY)
        self.consumers = Consumers(self.bus, self.durable, self.journal, self.reader, self.index, self.clock)
        self.directory = Directory(self.clock)
        self.server = SocketServer(
            self.bus,
            self.path,
            credential=CREDENTIAL,
            build=__version__,
            clock=self.clock,
            limits=peers,
            on_refused=lambda _, error: self.refused.append(error),
            services=(self.directory, self.consumers),
        )
        await self.server.start()
        self.running = True
        return self

    async def stop(self, *, crash: bool = False) -> None:
        """Close everything in order; ``crash``: as far as files know, it was killed before."""
        if not self.running:
            return
        self.running = False
        kept = self.folder / "kept"
        if crash:
            self.server.closed = True
            assert self.server._server is not None
            self.server._server.close()
            for session in self.server._sessions:  # from here on nobody hears of anything any more
                if session._transport is not None:
                    session._transport.abort()
            shutil.rmtree(kept, ignore_errors=True)
            await asyncio.to_thread(_copy, self.folder / "pog", kept)
        with contextlib.suppress(RunloopError):
            await self.server.close()
        await self.consumers.close()
        await self.durable.close()
        await self.journal.close()
        self.reader.close()
        self.index.close()
        if crash:
            shutil.rmtree(self.folder / "pog")
            kept.rename(self.folder / "pog")

    def published(self) -> list[tuple[str, str]]:
        """``(topic, msg_id)`` of everything recorded, in order."""
        return [
            (event.payload.topic, event.payload.msg_id)
            for event in self.reader.events(kinds=("topic.published",))
            if isinstance(event.payload, TopicPublished)
        ]

    @property
    def balanced(self) -> bool:
        counters = self.bus.counters
        return counters.addressed == counters.delivered + sum(counters.dropped.values()) + self.bus.queued


def _copy(source: Path, target: Path) -> None:
    """What the disk holds now; the views first, which must not be ahead of the ledger."""
    target.mkdir(mode=0o700)
    for name in ("views.db", "events.db"):
        with (
            contextlib.closing(sqlite3.connect(source / name)) as whole,
            contextlib.closing(sqlite3.connect(target / name)) as copy,
        ):
            whole.backup(copy)

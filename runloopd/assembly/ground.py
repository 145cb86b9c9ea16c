"""What every part stands on: settings, keys, the bus, the ledger and its readers, and how all of it ends.

Knows: how the ledger of a home is opened, that an earlier build's is migrated first, and which runs it leaves
unfinished. Does not know what else its events mean: each part restores its own from them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

import runloop
import runloopd
from pog.connection import OutdatedError
from pog.ledger import Ledger
from pog.maintain.migrate import migrate
from pog.maintain.rotate import settle
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from runloop.clock import Clock
from runloop.config import Config, Paths, shipped
from runloop.credential import read_key
from runloop.events import Event, RunStarted
from runloopd.authority.anchors import SYSTEM_FILE
from runloopd.authority.keyring import Keyring
from runloopd.broker.knowledge import LedgerKnowledge
from runloopd.broker.secrets import SecretStore
from runloopd.bus.bus import Bus
from runloopd.journal import Journal

__all__ = ["Ground", "Longer", "Stack", "beside", "in_order", "open_ground", "own_places", "unfinished_runs"]

log = structlog.get_logger(__name__)

Longer = Callable[[], AbstractAsyncContextManager[None]]
"""Entered while the start takes long, and has a reason to."""


class _Service(Protocol):
    async def close(self) -> None: ...


Owned = TypeVar("Owned", bound=_Service)


class Stack(AsyncExitStack):
    """What ends with the daemon: what was owned last is closed first."""

    def own(self, service: Owned) -> Owned:
        self.push_async_callback(service.close)
        return service


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    config: Config
    paths: Paths
    clock: Clock
    secrets: SecretStore
    stack: Stack
    keyring: Keyring
    bus: Bus
    head: int
    """The newest event of the ledger as it was opened."""
    views: Materializer
    journal: Journal
    reader: Reader
    scans: Reader
    """Readers serve one call at a time: what threads scan is not what the event loop waits for."""
    knowledge: LedgerKnowledge


async def open_ground(
    config: Config, paths: Paths, clock: Clock, secrets: SecretStore, stack: Stack, longer: Longer
) -> Ground:
    paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    keyring = _keyring(paths)
    bus = Bus(clock)
    ledger = await _ledger(config, paths, clock, keyring, longer)
    views = Materializer.open(paths.views_db, paths.events_db)
    journal = stack.own(Journal(ledger, views, clock))
    reader = stack.enter_context(closing(Reader(paths.events_db)))
    scans = stack.enter_context(closing(Reader(paths.events_db)))
    knowledge = stack.enter_context(closing(Knowledge(paths.views_db, scans)))
    return Ground(
        config=config,
        paths=paths,
        clock=clock,
        secrets=secrets,
        stack=stack,
        keyring=keyring,
        bus=bus,
        head=ledger.head.id,
        views=views,
        journal=journal,
        reader=reader,
        scans=scans,
        knowledge=stack.own(LedgerKnowledge(knowledge, journal)),
    )


def _keyring(paths: Paths) -> Keyring:
    """The keys, once an exchange of the ledger's that something stopped is at its end (ADR 37)."""
    settle(paths.events_db, key_file=paths.keys_dir / "ledger.key", anchor=paths.ledger_anchor, read=read_key)
    return Keyring.open(paths.keys_dir)


async def _ledger(config: Config, paths: Paths, clock: Clock, keyring: Keyring, longer: Longer) -> Ledger:
    """This build's ledger; an earlier build's becomes one, and stays beside it as it was (ADR 38)."""

    def opened() -> Ledger:
        """The ledger's lock is what refuses a second daemon of this home."""
        return Ledger.open(
            paths.events_db,
            signing_key=keyring.ledger_key,
            synchronous=config.kb.synchronous,
            clock=clock,
            anchor=paths.ledger_anchor,
        )

    try:
        ledger = opened()
    except OutdatedError:
        await _migrate(paths, clock, keyring, longer)
        ledger = opened()
    if ledger.torn_tail:
        log.warning("ledger_tail_cut", file=str(paths.events_db), head=ledger.head.id)
    return ledger


async def _migrate(paths: Paths, clock: Clock, keyring: Keyring, longer: Longer) -> None:
    log.info("ledger_migrating", file=str(paths.events_db))
    async with longer():
        done = await asyncio.to_thread(
            migrate, paths.events_db, key=keyring.ledger_key, clock=clock, anchor=paths.ledger_anchor
        )
    log.warning("ledger_migrated", before=done.before, after=done.after, kept=str(done.kept))


def own_places(paths: Paths) -> tuple[Path, ...]:
    """What no grant of files reaches: this home, the socket, the system's settings, the program itself, and
    what systemd handed over in confidence."""
    program = (Path(runloopd.__file__).parent, Path(runloop.__file__).parent, shipped("agents"))
    handed = os.environ.get("CREDENTIALS_DIRECTORY")
    return (paths.home, paths.socket, SYSTEM_FILE.parent, *program, *([Path(handed)] if handed else []))


def unfinished_runs(reader: Reader) -> tuple[int, list[Event]]:
    """How many runs are not over, and all that is known of them: it can be much, and nobody keeps it."""
    runs = reader.unfinished_runs()
    return len(runs), in_order(event for run in runs for event in reader.events(run=run))


def in_order(events: Iterable[Event]) -> list[Event]:
    """As the ledger has them."""
    return sorted(events, key=lambda event: event.id)


def beside(reader: Reader, unfinished: list[Event]) -> Iterator[Event]:
    """The events of finished runs that are in one tree with an unfinished one: what they used counts."""
    live = {event.run: event.payload for event in unfinished if isinstance(event.payload, RunStarted)}
    roots = {
        run if started.parent is None else started.parent.root
        for run, started in live.items()
        if run is not None and (started.parent is not None or "openings" in started.definition)
    }
    for root in sorted(roots):
        for run in (root, *reader.runs_below(root)):
            if run not in live:
                yield from reader.events(run=run)

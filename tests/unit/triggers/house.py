"""Triggers on a real ledger, with a clock that a test moves and runs that a test ends."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from openings.definition import Opening
from openings.errors import OpeningError
from openings.load import parse
from pog.ledger import Ledger
from pog.reader import Reader
from runloop.config import Scheduler
from runloop.digest import digest
from runloop.errors import RefusedError, RunloopError
from runloop.events import Draft, Event, Provenance, RunFinished, RunStarted
from runloop.ids import RunId, new_run_id
from runloop.testing import ManualClock
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runs.service import Submission
from runloopd.triggers.orders import Orders
from runloopd.triggers.record import Record
from runloopd.triggers.service import Triggers
from runloopd.triggers.wish import TriggerWish
from tests.unit.pog.facts import model_called

OPERATOR = Principal(kind="operator", name="operator:1000#1", uid=1000, pid=1)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""
OPENING = """\
version: 0
name: digest
params:
  changed: {type: list, default: []}
  topic: {type: string, default: news}
nodes:
  - {id: write, use: "agent:writer"}
"""


class SteeredClock(ManualClock):
    """Moves when told, in both directions; also the alarm, which rings when its time comes or when set."""

    def __init__(self) -> None:
        super().__init__(START)
        self.waits: list[int] = []
        """Every time somebody asked to be woken at."""
        self._ringing: dict[asyncio.Future[None], int] = {}

    async def until(self, due_ms: int) -> None:
        self.waits.append(due_ms)
        if due_ms <= self.now_ms():
            return
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ringing[bell] = due_ms
        try:
            await bell
        finally:
            del self._ringing[bell]

    def advance(self, ms: int) -> None:
        super().advance(ms)
        for bell, due in self._ringing.items():
            if not bell.done() and (due <= self.now_ms() or ms < 0):
                bell.set_result(None)


class FakeRuns:
    """States that runs start and end; performs nothing."""

    def __init__(self, journal: Journal, reader: Reader) -> None:
        self._journal = journal
        self._reader = reader
        self.costs: int | None = None
        """Budget of the opening itself; None: it names none."""
        self.broken: RunloopError | None = None
        self.refuses: RunloopError | None = None
        self.hangs = False
        """Never answers: the daemon dies between a firing and its run."""
        self.asked: list[Submission] = []

    def examine(self, wish: Submission) -> tuple[Opening, dict[str, Any]]:
        if self.broken is not None:
            raise self.broken
        reading = parse(wish.source, name=wish.name)
        if reading.opening is None or reading.findings:
            raise OpeningError(reading.findings)
        assert wish.micro_usd is not None
        own = wish.micro_usd if self.costs is None else min(self.costs, wish.micro_usd)
        return reading.opening, {"budget_micro_usd": own}

    async def submit(
        self,
        principal: Principal,
        wish: Submission,
        *,
        run: RunId | None = None,
        causes: tuple[int, ...] = (),
    ) -> RunId:
        if self.hangs:
            await asyncio.Event().wait()
        if self.refuses is not None:
            raise self.refuses
        opening, limits = self.examine(wish)
        run = run or new_run_id()
        if next(self._reader.events(run=run, limit=1), None) is None:
            self.asked.append(wish)
            await self._journal.append(
                Draft(
                    payload=RunStarted(
                        opening=opening.name,
                        definition={},
                        definition_digest="0" * 64,
                        params=wish.params,
                        agents={},
                        engine={},
                        policy=limits,
                        principal=principal.label,
                        origin=wish.origin,
                    ),
                    actor=principal.label,
                    run=run,
                    provenance=Provenance(causes=causes),
                )
            )
        return run


class House:
    """One home: :meth:`start` a daemon's triggers in it, :meth:`kill` them, start them again."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.clock = SteeredClock()
        self.config = Scheduler(**settings)
        self.never: tuple[Path, ...] = (path / "state",)
        self.refuses: RunloopError | None = None

    async def start(self) -> House:
        ledger = Ledger.open(self.path / "events.db", synchronous="NORMAL", clock=self.clock)
        alive = ledger.head.id
        self.journal = Journal(ledger, None, self.clock)
        self.reader = Reader(self.path / "events.db")
        self.runs = FakeRuns(self.journal, self.reader)
        self.runs.refuses = self.refuses
        self.triggers = Triggers(
            journal=self.journal,
            record=Record(self.reader, alive=alive),
            runs=self.runs,
            clock=self.clock,
            alarm=self.clock,
            config=self.config,
            never=self.never,
        )
        self.orders = Orders(self.triggers)
        unfinished = [e for run in self.reader.unfinished_runs() for e in self.reader.events(run=run)]
        await self.triggers.restore(unfinished)
        self._loop = asyncio.create_task(self.triggers.loop())
        await self.settle()
        return self

    async def stop(self) -> None:
        """In good order."""
        await self.triggers.close()
        await self.kill()

    async def kill(self) -> None:
        """What was stated stays; nothing else does."""
        tasks = [self._loop, *self.triggers.moves._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.triggers._watches.close()
        await self.journal.close()
        self.reader.close()

    async def settle(self) -> None:
        """Return when nothing is under way but waiting."""
        calm = 0
        for _ in range(20_000):
            await asyncio.sleep(0)
            busy = self.triggers.moves._under_way and not self.runs.hangs
            calm = 0 if busy or self.triggers._woken.is_set() else calm + 1
            if calm > 20:
                return
            if busy:
                await asyncio.sleep(0.001)
        raise AssertionError("it never settles")

    async def move(self, ms: int) -> None:
        """Let time pass, or set the clock back, and let what follows from it happen."""
        self.clock.advance(ms)
        await self.settle()

    async def set(self, name: str = "daily", **said: Any) -> None:
        """Set a trigger."""
        wish = {"trigger": name, "source": OPENING, "name": "digest", **said}
        if "cron" in wish:
            wish.setdefault("zone", "UTC")
        await self.orders.set(OPERATOR, TriggerWish(**wish))
        await self.settle()

    async def end(self, run: str, outcome: Any = "succeeded") -> None:
        """A run is over."""
        finished = RunFinished(outcome=outcome, clause=None, output_digest=digest({}), outputs={})
        await self.journal.append(Draft(payload=finished, actor="daemon", run=run))
        await self.settle()

    async def spend(self, run: str, micro_usd: int) -> None:
        """A model was asked."""
        called = model_called(cost=micro_usd, node="write")
        await self.journal.append(Draft(payload=called, actor="daemon", run=run))

    # --- what it left behind ----------------------------------------------------------------------

    def facts(self, kind: str) -> list[Any]:
        return [event.payload for event in self.events(kind)]

    def events(self, *kinds: str) -> list[Event]:
        with contextlib.closing(Reader(self.path / "events.db")) as reader:
            return list(reader.events(kinds=kinds or None))

    def running(self, name: str = "daily") -> list[str]:
        return self.triggers.allowance.running(name)


def refusal() -> RunloopError:
    return RefusedError("the agent writer is held", hint="release it", code="agent.held")

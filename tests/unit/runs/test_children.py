"""Runs inside runs, on a real ledger and a clock that moves when told: what stops them, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from openings import engine
from openings.load import load
from pog.ledger import Ledger
from pog.reader import Reader
from runloop.digest import digest
from runloop.events import AgentPin, Draft, Event, NodeFinished, NodeScheduled, RunFinished, RunStarted
from runloop.ids import child_run_id
from runloop.testing import ManualClock
from runloopd.journal import Journal
from runloopd.runs import children
from runloopd.runs.children import Children
from runloopd.runs.runner import Runner

ROOT = "0b7c1f7e-2a53-4f7f-9b1e-0d8f6f4d8a11"
INNER = """
version: 0
name: inner
nodes: [{id: work, use: "agent:a"}]
artifacts: {save: [work.out]}
"""
MIDDLE = """
version: 0
name: middle
nodes: [{id: deeper, use: "opening:inner"}]
"""
OUTER = """
version: 0
name: outer
nodes: [{id: nest, use: "opening:%s", timeout_ms: 5000}]
"""
PIN = AgentPin(
    name="a",
    version="1.0.0",
    variant="default",
    bundle_digest="0" * 64,
    component_digest="1" * 64,
    language="python",
)


class House:
    """Every run of a ledger with a runner of its own, and agents that end when the test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.changed = asyncio.Event()
        Ledger.open(path, clock=self.clock).close()
        self.reader = Reader(path)
        self.begin()

    def begin(self) -> None:
        """What a daemon makes anew when it starts; the ledger is what it was."""
        self.journal = Journal(Ledger.open(self.path, clock=self.clock), None, self.clock)
        self.children = Children(
            journal=self.journal, reader=self.reader, engine_versions=lambda: {"logic": 1}
        )
        self.runners: dict[str, Runner] = {}
        self.loops: dict[str, asyncio.Task[None]] = {}
        self.held: dict[str, tuple[Event, asyncio.Event]] = {}
        """Run -> the attempt an agent makes of it, and what lets it end."""
        self.killed: list[str] = []
        self.journal.listen(self._hear)

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        this = cast(NodeScheduled, scheduled.payload)
        self.held[run] = scheduled, (end := asyncio.Event())
        self.changed.set()
        try:
            await end.wait()
        except asyncio.CancelledError:
            self.killed.append(run)
            self.changed.set()
            raise
        output = {"ports": {"out": [this.attempt]}, "artifacts": []}
        finished = NodeFinished(
            node=this.node,
            attempt=this.attempt,
            status="succeeded",
            output=output,
            output_digest=digest(output),
        )
        await self.journal.append(Draft(payload=finished, actor="daemon", run=run))

    async def settled(self, node: str, attempt: int) -> None:
        """Nobody had been asked anything."""

    def launch(self, run: str, events: list[Event]) -> None:
        runner = self.runners[run] = Runner(
            run,
            journal=self.journal,
            attempts=self,
            clock=self.clock,
            settled=self.settled,
            nested=self.children,
        )
        runner.feed(events)
        self.loops[run] = asyncio.create_task(runner.loop())

    async def recover(self) -> None:
        """As ``Runs.recover`` does it."""
        unfinished = self.reader.unfinished_runs()
        for run in unfinished:
            started = cast(RunStarted, next(self.reader.events(run=run, limit=1)).payload)
            if started.parent is not None:
                around = engine.fold(self.reader.events(run=started.parent.run))
                await self.children.recovered(run, started, around)
        for run in unfinished:
            self.launch(run, list(self.reader.events(run=run)))

    async def stop(self) -> None:
        for runner in self.runners.values():
            runner.drain()
        for loop in self.loops.values():
            loop.cancel()
        await asyncio.gather(*self.loops.values(), return_exceptions=True)
        await self.children.close()
        await self.journal.close()

    def _hear(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event.payload, RunStarted):
                self.launch(str(event.run), [event])
            elif (runner := self.runners.get(str(event.run))) is not None:
                runner.feed([event])
        self.changed.set()

    async def start(self, nests: str = "inner") -> None:
        inner, middle = load(INNER), load(MIDDLE)
        opening = replace(load(OUTER % nests), openings={"inner": inner, "middle": middle})
        started = RunStarted(
            opening=opening.name,
            definition=opening.to_json(),
            definition_digest=opening.digest,
            params={},
            agents={"inner/work": PIN},
            engine={"logic": 1, "sandbox": 1, "wasmtime": "50"},
            policy={"timeout_ms": None},
            principal="operator:0",
            origin={},
        )
        await self.journal.append(Draft(payload=started, actor="operator:0", run=ROOT))

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def outcome(self, run: str) -> str | None:
        found = next(self.reader.events(run=run, kinds=(RunFinished.kind,)), None)
        return None if found is None else cast(RunFinished, found.payload).outcome


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "events.db")
    yield made
    await made.stop()
    made.reader.close()


CHILD = child_run_id(ROOT, "nest", 1)
GRANDCHILD = child_run_id(CHILD, "deeper", 1)


@pytest.mark.requirement("I5.engine.4", "I5.crash.3")
async def test_a_time_limit_stops_what_is_nested_at_any_depth(house: House) -> None:
    await house.start("middle")
    await house.until(lambda: GRANDCHILD in house.held)
    house.clock.advance(5_000)
    await house.until(lambda: house.outcome(GRANDCHILD) and house.outcome(ROOT) and house.killed)
    assert house.killed == [GRANDCHILD]
    assert [house.outcome(run) for run in (ROOT, CHILD, GRANDCHILD)] == ["failed", "cancelled", "cancelled"]
    (ended,) = house.reader.events(run=ROOT, kinds=("node.finished",))
    assert cast(NodeFinished, ended.payload).status == "timed_out"


@pytest.mark.requirement("I5.engine.4", "I5.crash.3")
async def test_a_time_limit_that_was_stated_before_the_daemon_died_stops_the_nested_run_after_it(
    house: House,
) -> None:
    await house.start()
    await house.until(lambda: CHILD in house.held)
    await house.stop()
    with closing(Ledger.open(house.path)) as ledger:
        timed_out = NodeFinished(node="nest", attempt=1, status="timed_out")
        ledger.append([Draft(payload=timed_out, actor="daemon", run=ROOT)])
    house.begin()
    await house.recover()
    await house.until(lambda: house.outcome(CHILD) and house.outcome(ROOT))
    assert [house.outcome(run) for run in (ROOT, CHILD)] == ["failed", "cancelled"]


@pytest.mark.requirement("I5.crash.3")
async def test_a_daemon_that_drains_waits_for_the_agent_inside_and_not_for_the_run_around_it(
    house: House,
) -> None:
    await house.start()
    await house.until(lambda: CHILD in house.held)
    assert not house.runners[ROOT].working()
    assert house.runners[CHILD].working()
    house.runners[ROOT].drain()
    house.runners[CHILD].drain()
    house.held[CHILD][1].set()
    await house.until(lambda: house.outcome(ROOT))
    assert [house.outcome(run) for run in (ROOT, CHILD)] == ["succeeded", "succeeded"]


@pytest.mark.requirement("I5.engine.5", "I5.crash.3")
async def test_a_drain_that_is_cut_short_leaves_a_nested_run_that_goes_on_in_the_next_daemon(
    house: House,
) -> None:
    await house.start()
    await house.until(lambda: CHILD in house.held)
    await house.stop()
    assert house.killed == [CHILD]
    assert house.outcome(CHILD) is None
    house.begin()
    await house.recover()
    await house.until(lambda: CHILD in house.held)
    house.held[CHILD][1].set()
    await house.until(lambda: house.outcome(ROOT))
    assert house.outcome(ROOT) == "succeeded"
    started = [event.run for event in house.reader.events(kinds=("run.started",))]
    assert started == [ROOT, CHILD]


@pytest.mark.requirement("I5.crash.3")
async def test_runs_that_would_be_nested_too_deep_are_refused_when_they_would_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "MAX_DEPTH", 1)
    await house.start("middle")
    await house.until(lambda: house.outcome(ROOT))
    assert [house.outcome(run) for run in (ROOT, CHILD, GRANDCHILD)] == ["failed", "failed", None]
    (ended,) = house.reader.events(run=CHILD, kinds=("node.finished",))
    error = cast(NodeFinished, ended.payload).error
    assert error is not None
    assert error.code == "nested.depth"

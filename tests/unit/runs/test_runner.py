"""The runner: what it does with the engine's commands, on a real ledger and a clock that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from openings.load import load
from pog.errors import LedgerWriteError
from pog.ledger import Ledger
from pog.reader import Reader
from runloop.digest import digest
from runloop.events import (
    AgentPin,
    Draft,
    Event,
    GuestError,
    NodeFinished,
    NodeScheduled,
    RunCancelRequested,
    RunStarted,
)
from runloop.testing import ManualClock
from runloopd.journal import Journal
from runloopd.runs.runner import Runner

RUN = "0b7c1f7e-2a53-4f7f-9b1e-0d8f6f4d8a11"

DIAMOND = """
version: 0
name: diamond
nodes:
  - {id: left, use: "agent:a", retry: {max_attempts: 2, backoff_ms: 1000}, timeout_ms: 5000}
  - {id: right, use: "agent:a"}
  - {id: join, use: "agent:a"}
edges:
  - {from: left.out, to: join.l}
  - {from: right.out, to: join.r}
artifacts: {save: [join.out]}
"""


class FillingJournal(Journal):
    """The real journal, whose disk is full when the test says so."""

    full = False

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]:
        if self.full:
            raise LedgerWriteError("the disk is full", hint="make room")
        return await super().append(*drafts, blobs=blobs)


class HeldAttempts:
    """Attempts that end when the test says so, stated in the ledger as real ones are."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.begun: list[tuple[str, int]] = []
        self.killed: list[tuple[str, int]] = []
        self._ends: dict[tuple[str, int], asyncio.Future[NodeFinished]] = {}
        self._changed = asyncio.Event()

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        this = cast(NodeScheduled, scheduled.payload)
        key = (this.node, this.attempt)
        self.begun.append(key)
        end = self._ends.setdefault(key, asyncio.get_running_loop().create_future())
        self._changed.set()
        try:
            finished = await end
        except asyncio.CancelledError:
            self.killed.append(key)
            self._changed.set()
            raise
        await self.journal.append(Draft(payload=finished, actor="daemon", run=run))

    def succeed(self, node: str, attempt: int = 1, value: Any = 1) -> None:
        output = {"ports": {"out": [value]}, "artifacts": []}
        self._end(
            NodeFinished(
                node=node, attempt=attempt, status="succeeded", output=output, output_digest=digest(output)
            )
        )

    def fail(self, node: str, attempt: int = 1, *, retryable: bool = True) -> None:
        error = GuestError(code="guest.error", message="no", retryable=retryable)
        self._end(NodeFinished(node=node, attempt=attempt, status="failed", error=error))

    def _end(self, finished: NodeFinished) -> None:
        self._ends[finished.node, finished.attempt].set_result(finished)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class Stage:
    """A runner, its ledger and its attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.journal = FillingJournal(Ledger.open(path, clock=self.clock), None, self.clock)
        self.attempts = HeldAttempts(self.journal)
        self.settled: list[tuple[str, int]] = []
        self.runner = self.make_runner()
        self.seen: list[Event] = []
        self.journal.listen(self._hear)

    def make_runner(self) -> Runner:
        return Runner(
            RUN, journal=self.journal, attempts=self.attempts, clock=self.clock, settled=self._settle
        )

    async def _settle(self, node: str, attempt: int) -> None:
        self.settled.append((node, attempt))

    def _hear(self, events: list[Event]) -> None:
        self.seen += events
        self.runner.feed(e for e in events if e.run == RUN)
        self.attempts._changed.set()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]

    def timers(self) -> list[str]:
        return [e.payload.timer for e in self.seen if e.kind == "timer.set"]  # type: ignore[attr-defined]

    async def start(self, source: str = DIAMOND) -> asyncio.Task[None]:
        opening = load(source)
        pin = AgentPin(
            name="a",
            version="1.0.0",
            variant="default",
            bundle_digest="0" * 64,
            component_digest="1" * 64,
            language="python",
        )
        started = RunStarted(
            opening=opening.name,
            definition=opening.to_json(),
            definition_digest=opening.digest,
            params={},
            agents={node.id: pin for node in opening.nodes},
            engine={"logic": 1, "sandbox": 1, "wasmtime": "50"},
            policy={"timeout_ms": None},
            principal="operator:0",
            origin={},
        )
        await self.journal.append(Draft(payload=started, actor="operator:0", run=RUN))
        return asyncio.create_task(self.runner.loop())


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path / "events.db")
    yield made
    await made.journal.close()


@pytest.mark.requirement("I2.engine.2", "I2.engine.5")
async def test_independent_nodes_run_side_by_side_and_the_join_waits_for_both(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    stage.attempts.succeed("right")
    await stage.attempts.until(lambda: "node.finished" in stage.kinds())
    assert ("join", 1) not in stage.attempts.begun
    stage.attempts.succeed("left")
    await stage.attempts.until(lambda: ("join", 1) in stage.attempts.begun)
    stage.attempts.succeed("join", value={"text": "done"})
    await asyncio.wait_for(loop, 20)
    assert stage.kinds()[-2:] == ["artifact.created", "run.finished"]
    assert stage.seen[-1].payload.outcome == "succeeded"  # type: ignore[attr-defined]


async def test_an_attempt_starts_only_after_its_schedule_is_in_the_ledger(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    with Reader(stage.path) as reader:
        written = {
            (e.payload.node, e.payload.attempt)  # type: ignore[attr-defined]
            for e in reader.events(kinds=("node.scheduled",))
        }
    assert set(stage.attempts.begun) <= written
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


@pytest.mark.requirement("I2.engine.3")
async def test_a_failed_attempt_is_tried_again_after_its_backoff_and_not_before(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    stage.attempts.fail("left")
    await stage.attempts.until(lambda: stage.timers() == ["node:left:1:timeout", "node:left:2:backoff"])
    assert ("left", 2) not in stage.attempts.begun
    stage.clock.advance(3_000)
    await stage.attempts.until(lambda: ("left", 2) in stage.attempts.begun)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_an_attempt_that_takes_too_long_is_killed_and_its_questions_are_void(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2 and "timer.set" in stage.kinds())
    await asyncio.sleep(0)
    stage.clock.advance(5_000)
    await stage.attempts.until(lambda: ("left", 1) in stage.attempts.killed)
    await stage.attempts.until(lambda: ("left", 1) in stage.settled)
    ended = [e.payload for e in stage.seen if e.kind == "node.finished"]
    assert [p.status for p in ended] == ["timed_out"]  # type: ignore[attr-defined]
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_a_cancelled_run_kills_what_runs_and_ends_as_cancelled(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    asked = RunCancelRequested(principal="operator:0", reason="enough")
    await stage.journal.append(Draft(payload=asked, actor="operator:0", run=RUN))
    await asyncio.wait_for(loop, 20)
    assert sorted(stage.attempts.killed) == [("left", 1), ("right", 1)]
    assert stage.seen[-1].payload.outcome == "cancelled"  # type: ignore[attr-defined]


@pytest.mark.requirement("I2.engine.6")
async def test_a_runner_fed_with_the_history_of_a_crashed_one_takes_up_the_same_attempts(
    stage: Stage,
) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    stage.attempts.succeed("right")
    await stage.attempts.until(lambda: "node.finished" in stage.kinds())
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)

    stage.attempts.begun.clear()
    scheduled = stage.kinds().count("node.scheduled")
    stage.runner = stage.make_runner()
    stage.runner.feed([e for e in stage.seen if e.run == RUN])
    again = asyncio.create_task(stage.runner.loop())
    await stage.attempts.until(lambda: stage.attempts.begun == [("left", 1)])
    assert stage.kinds().count("node.scheduled") == scheduled
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_a_run_whose_facts_cannot_be_written_stalls_and_does_nothing_more(stage: Stage) -> None:
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    stage.attempts.succeed("left")
    await stage.attempts.until(lambda: "node.finished" in stage.kinds())
    stage.journal.full = True
    finished = next(e for e in stage.seen if e.kind == "node.finished")
    right = msgspec.structs.replace(
        finished,
        id=finished.id + 1,
        payload=msgspec.structs.replace(finished.payload, node="right"),
    )
    stage.runner.feed([right])  # as if it had just been committed: the join is due now
    await asyncio.wait_for(loop, 20)
    assert isinstance(stage.runner.failure, LedgerWriteError)
    assert ("join", 1) not in stage.attempts.begun
    assert stage.attempts.killed == [("right", 1)]


@pytest.mark.requirement("I5.talk.4")
async def test_who_is_busy_is_told_only_while_nothing_is_being_decided(stage: Stage) -> None:
    """From this the talk of a run knows when nobody can speak any more."""
    rested: list[frozenset[str] | None] = []

    def note() -> None:
        rested.append(stage.runner.busy())
        stage.attempts._changed.set()

    stage.runner._rested = note
    assert stage.runner.busy() is None
    loop = await stage.start()
    await stage.attempts.until(lambda: len(stage.attempts.begun) == 2)
    await stage.attempts.until(lambda: bool(rested))
    assert stage.runner.busy() == {"left", "right"}
    stage.attempts.fail("left")
    await stage.attempts.until(lambda: "node:left:2:backoff" in stage.timers())
    await stage.attempts.until(lambda: rested[-1] == {"right", "node:left:2:backoff"})
    stage.attempts.succeed("right")
    await stage.attempts.until(lambda: rested[-1] == {"node:left:2:backoff"})
    stage.clock.advance(3_000)
    await stage.attempts.until(lambda: ("left", 2) in stage.attempts.begun)
    stage.attempts.succeed("left", attempt=2)
    await stage.attempts.until(lambda: ("join", 1) in stage.attempts.begun)
    assert frozenset() not in rested, "between left and join nobody is told that all is over"
    stage.attempts.succeed("join", value={"text": "done"})
    await asyncio.wait_for(loop, 20)

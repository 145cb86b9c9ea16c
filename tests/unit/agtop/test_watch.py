"""What is looked at, without a terminal: what wakes it, what it takes in, what it says when it cannot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact
from agtop.ports import Change
from agtop.watch import PAGE, Watch
from runloop.errors import FailedError, RunloopError
from tests.long_runs import RUN, drafts
from tests.snapshots.frames import approval
from tests.unit.agtop.test_reduce import facts_of


class Slow(TwinFeed):
    """A twin whose news a test tells by hand, and whose answers it may hold back."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        super().__init__(facts)
        self.told: asyncio.Queue[Change] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[int] = []

    async def change(self) -> Change:
        return await self.told.get()

    async def facts(self, run: str, after: int = 0, limit: int = 2_000) -> Sequence[Fact]:
        self.asked.append(after)
        await self.gate.wait()
        return await super().facts(run, after, limit)


class Unhurried(Slow):
    """One that may take its time over the last of the lists."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        super().__init__(facts)
        self.read = asyncio.Event()
        self.read.set()
        self.reading = False

    async def questions(self) -> Sequence[dict[str, Any]]:
        self.reading = not self.read.is_set()
        await self.read.wait()
        return await super().questions()


@asynccontextmanager
async def watching(desk: TwinFeed, errors: list[RunloopError] | None = None) -> AsyncIterator[Watch]:
    watch = Watch(desk, on_error=(errors if errors is not None else []).append, lists_s=0.001)
    tasks = [asyncio.create_task(watch.listen()), asyncio.create_task(watch.load())]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def long_facts(count: int) -> list[Fact]:
    return [
        Fact(at, at, each.actor, each.payload.kind, each.run, each.payload, each.provenance)
        for at, each in enumerate(drafts(count), 1)
    ]


async def test_a_change_in_a_run_nobody_has_heard_of_is_a_reason_to_look_it_may_be_inside() -> None:
    facts = facts_of("mapped")
    inner = next(at for at, fact in enumerate(facts) if fact.run != facts[0].run)
    desk = Slow(facts[:inner])
    async with watching(desk) as watch:
        await until(lambda: watch.total == inner)
        desk.tell(facts[inner : inner + 1])
        desk.told.put_nowait(Change(runs=frozenset({str(facts[inner].run)})))
        await until(lambda: watch.total == inner + 1)


async def test_a_change_in_another_run_is_none() -> None:
    desk = Slow([*facts_of("approved"), *facts_of("denied")])
    async with watching(desk) as watch:
        await until(lambda: len(watch.runs) == 2 and watch.total)
        assert watch.timeline is not None
        other = next(row.run for row in watch.runs if row.run != watch.timeline.run)
        asked = len(desk.asked)
        desk.told.put_nowait(Change(runs=frozenset({other})))
        await until(desk.told.empty)
        await asyncio.sleep(0)
        assert len(desk.asked) == asked


async def test_a_long_past_is_taken_in_page_by_page_and_another_run_can_be_picked_meanwhile() -> None:
    desk = Slow([*long_facts(PAGE * 2 + 5), *facts_of("approved")])
    async with watching(desk) as watch:
        await until(lambda: watch.runs)
        await watch.open(RUN)
        await until(lambda: watch.timeline is not None and watch.timeline.run == RUN and watch.total)
        desk.gate.clear()
        approved = str(facts_of("approved")[0].run)
        assert await watch.open(approved)
        desk.gate.set()
        await until(
            lambda: watch.timeline is not None and watch.timeline.run == approved and watch.total == 71
        )
        await watch.open(RUN)
        await until(lambda: watch.total == PAGE * 2 + 5)


@pytest.mark.requirement("I7.start.1")
async def test_what_begins_to_wait_while_the_lists_are_read_is_listed_without_more_news() -> None:
    desk = Unhurried(facts_of("approved"))
    async with watching(desk) as watch:
        await until(lambda: watch.runs)
        desk.read.clear()
        desk.told.put_nowait(Change(approvals=True))
        await until(lambda: desk.reading)  # what waits was read; what is asked is still being read
        desk.shown_approvals = {"ap_1": approval("ap_1")}
        desk.told.put_nowait(Change(approvals=True))
        await until(desk.told.empty)
        await asyncio.sleep(0)
        desk.read.set()
        await until(lambda: [one["approval"] for one in watch.approvals] == ["ap_1"])


async def test_what_cannot_be_read_is_said_and_read_when_there_is_news_again() -> None:
    errors: list[RunloopError] = []
    desk = Slow(facts_of("approved"))
    desk.refusals["facts"] = FailedError("the disk is gone", hint="look at it")
    async with watching(desk, errors) as watch:
        await until(lambda: errors)
        assert errors[0].message == "the disk is gone"
        desk.refusals.clear()
        desk.told.put_nowait(Change(every=True))
        await until(lambda: watch.total == 71)
        assert not await watch.open("ffff")
        assert "no run is named" in errors[-1].message


async def test_moments_of_a_run_are_those_of_its_time_line() -> None:
    async with watching(Slow(facts_of("approved"))) as watch:
        await until(lambda: watch.total == 71)
        first = facts_of("approved")[0].id
        assert watch.go_to_event(first)
        assert (watch.index, watch.live) == (1, False)
        assert not watch.go_to_event(first - 1)
        watch.step(-5)
        assert watch.index == 0
        watch.go(10_000)
        assert (watch.index, watch.live) == (71, False)
        assert watch.bookmark()
        watch.follow()
        assert watch.live
        assert watch.next_bookmark()
        assert not watch.live
        assert not watch.bookmark()
        assert not watch.next_bookmark()
        assert not await watch.leave_inside()

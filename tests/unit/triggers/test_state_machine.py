"""Every due time is fired once or reported, through crashes, pauses, overlaps and a clock that jumps."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runloopd.triggers.book import Book
from runloopd.triggers.cron import Cron
from tests.memory import quick
from tests.unit.triggers.house import DAY, HOUR, MINUTE, OPERATOR, House

CRONS = ("*/15 * * * *", "30 2 * * *", "7 * * * *", "*/20 * * * * *")


class Schedules(RuleBasedStateMachine):
    """One trigger, set anew now and then; a model of what the clock has shown it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir=quick())
        self.house = House(Path(self.folder.name), max_runs=1_000)
        self.up = self.paused = False
        self.shown: set[int] = set()
        """Due times of the trigger in force that the clock has come past."""
        self.set_back = False
        self.cron: Cron | None = None
        self.begun = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def first_start(self) -> None:
        self.run(self.house.start())
        self.up = True

    @precondition(lambda self: self.up)
    @rule(
        cron=st.sampled_from(CRONS),
        zone=st.sampled_from(("UTC", "Europe/Berlin")),
        missed=st.sampled_from(("skip", "once")),
        overlap=st.sampled_from(("skip", "parallel")),
    )
    def set(self, cron: str, zone: str, missed: str, overlap: str) -> None:
        self.run(self.house.set(cron=cron, zone=zone, missed=missed, overlap=overlap))
        self.cron, self.paused, self.set_back = Cron(cron, zone), False, False
        self.shown = set()
        self.begun = self.house.events("trigger.set")[-1].id

    @rule(ms=st.sampled_from((1_000, 20_000, MINUTE, 15 * MINUTE, HOUR, 5 * HOUR, DAY)))
    def time_passes(self, ms: int) -> None:
        self.move(ms)

    @rule(ms=st.integers(DAY // 2, 2 * DAY))
    def the_clock_jumps_forward(self, ms: int) -> None:
        self.move(ms)

    @rule(ms=st.sampled_from((1_000, 5 * MINUTE, 3 * HOUR)))
    def the_clock_is_set_back(self, ms: int) -> None:
        self.set_back = True
        self.move(-ms)

    def move(self, ms: int) -> None:
        now = self.house.clock.now_ms()
        if self.cron is not None and ms > 0:
            self.shown.update(takewhile(lambda due: due <= now + ms, self.cron.times(now)))
        if self.up:
            self.run(self.house.move(ms))
        else:
            self.house.clock.advance(ms)

    @precondition(lambda self: self.up)
    @rule(between=st.booleans())
    def the_daemon_dies(self, between: bool) -> None:
        """``between``: after it has stated a firing and before it has started the run, if one falls due."""
        if between:
            self.house.runs.hangs = True
            self.move(15 * MINUTE)
        self.run(self.house.kill())
        self.up = False

    @precondition(lambda self: not self.up)
    @rule()
    def the_daemon_starts(self) -> None:
        self.run(self.house.start())
        self.up = True

    @precondition(lambda self: self.up and self.cron is not None and not self.paused)
    @rule()
    def pause(self) -> None:
        self.run(self.house.orders.pause(OPERATOR, "daily"))
        self.paused = True

    @precondition(lambda self: self.up and self.paused)
    @rule()
    def resume(self) -> None:
        self.run(self.house.orders.resume(OPERATOR, "daily"))
        self.run(self.house.settle())
        self.paused = False

    @precondition(lambda self: self.up and self.cron is not None)
    @rule()
    def run_now(self) -> None:
        self.run(self.house.orders.run_now(OPERATOR, "daily"))

    @precondition(lambda self: self.up)
    @rule()
    def runs_end(self) -> None:
        for run in self.house.running():
            self.run(self.house.end(run))

    @invariant()
    def no_run_is_started_twice_or_by_nobody(self) -> None:
        if not self.up:
            return
        fired = [event.payload for event in self.house.events("trigger.fired")]
        started = [str(event.run) for event in self.house.events("run.started")]
        assert max(Counter(started).values(), default=1) == 1
        assert set(started) == {fact.starts for fact in fired}  # type: ignore[attr-defined]

    @invariant()
    def every_due_time_is_fired_once_or_reported(self) -> None:
        if not self.up or self.paused or self.cron is None:
            return
        facts = [
            event for event in self.house.events("trigger.fired", "trigger.missed") if event.id > self.begun
        ]
        payloads: list[Any] = [event.payload for event in facts]
        fired = [p.due_ms for p in payloads if p.kind == "trigger.fired" and "by" not in p.cause]
        spans = [(p.first_due_ms, p.last_due_ms) for p in payloads if p.kind == "trigger.missed"]
        assert max(Counter(fired).values(), default=1) == 1
        now = self.house.clock.now_ms()
        for due in self.shown:
            if due <= now:
                reported = sum(low <= due <= high for low, high in spans)
                assert due in fired or reported
                if not self.set_back:
                    assert (due in fired) + reported == 1
        if not self.set_back:
            times = sum(p.times for p in payloads if p.kind == "trigger.missed")
            assert times + len(fired) == len(self.shown)

    @invariant()
    def the_ledger_gives_the_same_book(self) -> None:
        if self.up:
            again = Book()
            again.take(self.house.events())
            assert standing(again) == standing(self.house.triggers.book)

    def teardown(self) -> None:
        if self.up:
            self.run(self.house.kill())
        self.runner.close()
        self.folder.cleanup()


def standing(book: Book) -> dict[str, Any]:
    return {name: (trigger.fact, trigger.paused_ms) for name, trigger in book.triggers.items()}


Schedules.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


@pytest.mark.timeout(400)
@pytest.mark.requirement("S3")
class TestSchedules(Schedules.TestCase):  # type: ignore[name-defined, misc]
    """The machine above."""

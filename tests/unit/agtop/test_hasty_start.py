"""Keys pressed before anything is known: every pane shows what there is as soon as it comes, unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agtop.app import PANES, CockpitApp
from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact
from agtop.ports import RunRow
from tests.snapshots.frames import approval, feed, seen, text_of
from tests.unit.agtop.samples import agent, sample

SEEN = {
    "plan": "contacts",
    "log": "begins",
    "artifacts": "one file",
    "agents": "spinner",
    "trace": "0 s ",
    "inbox": "one thing waits for you",
}
"""Pane -> what it shows of the run that was late."""


class Late(TwinFeed):
    """A twin that answers nothing before it is let."""

    def __init__(self, events: Sequence[Fact]) -> None:
        super().__init__(events)
        self.gate = asyncio.Event()

    async def runs(self, limit: int = 200) -> Sequence[RunRow]:
        await self.gate.wait()
        return await super().runs(limit)

    async def facts(self, run: str, after: int = 0, limit: int = 2_000) -> Sequence[Fact]:
        await self.gate.wait()
        return await super().facts(run, after, limit)

    async def approvals(self) -> Sequence[dict[str, Any]]:
        await self.gate.wait()
        return await super().approvals()

    async def metrics(self) -> dict[str, Any]:
        await self.gate.wait()
        return await super().metrics()


@pytest.mark.requirement("I7.start.1")
@pytest.mark.parametrize("name", [name for name, _ in PANES])
async def test_a_pane_that_was_chosen_before_the_first_answer_fills_by_itself(name: str) -> None:
    fed = Late([fact for facts in feed("approved")._facts.values() for fact in facts])
    fed.shown_approvals = {"ap_1": approval("ap_1")}
    fed.shown_metrics = sample(1, agent("spinner"))
    app = CockpitApp(fed)
    async with app.run_test(size=(100, 30)) as pilot:
        number = [each for each, _ in PANES].index(name) + 1
        await pilot.press(str(number), "enter", "j")
        assert (app.pane.id, len(app.screen_stack)) == (name, 1)
        assert SEEN[name] not in text_of(app)
        fed.gate.set()
        await seen(pilot, lambda: SEEN[name] in text_of(app))

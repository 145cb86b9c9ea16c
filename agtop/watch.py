"""What is looked at: one run's time line, the moment of it, and the lists of all runs. No terminal.

Knows: when something new is asked of the feed, how far the time line is taken in, which moment of it is seen.
Does not know: what draws it. Two tasks: one hears of changes, one takes facts in, in slices short enough that
keys are never kept waiting. A run of many changes costs one look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from agtop.model.state import RunState
from agtop.model.timeline import Timeline
from agtop.ports import Change, Desk, RunRow
from runloop.errors import RunloopError

__all__ = ["Watch"]

PAGE = 4_000
"""Facts asked for at once."""
GLANCE_S = 0.25
"""How often a long past that is being read is drawn meanwhile."""
SLICE = 800
"""Facts folded before anything else gets its turn: a few milliseconds."""
LISTS_S = 0.5
"""Shortest time between two looks at the lists of runs and of what waits."""
RUNS = 500
"""Newest runs that are listed."""


class Watch:
    """One person's view of a feed."""

    def __init__(
        self,
        desk: Desk,
        *,
        wanted: str | None = None,
        on_news: Callable[[], None] = lambda: None,
        on_error: Callable[[RunloopError], None] = lambda error: None,
        lists_s: float = LISTS_S,
    ) -> None:
        """``wanted``: the run to begin with, None for the newest. ``on_news``: something may be drawn
        anew."""
        self._desk = desk
        self._wanted = wanted
        self._on_news = on_news
        self._on_error = on_error
        self._lists_s = lists_s
        self._dirty = asyncio.Event()
        self._lists: asyncio.Task[None] | None = None
        self._stale = False
        """Whether the lists may be others than those that were read last."""
        self._index: int | None = None
        self._around: list[str] = []
        """Runs that were left by going into a run inside them."""
        self.timeline: Timeline | None = None
        self.runs: tuple[RunRow, ...] = ()
        self.approvals: tuple[dict[str, Any], ...] = ()
        self.questions: tuple[dict[str, Any], ...] = ()
        self.loading = False
        """Whether facts are being taken in."""

    # --- tasks ------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Hear of changes, for ever."""
        await self._refresh()
        if self._wanted is not None:
            await self.open(self._wanted)
        elif self.timeline is None and self.runs:
            self._look_at(self.runs[0].run)
        while True:
            self._changed(await self._desk.change())

    async def load(self) -> None:
        """Take in what the run has more, whenever it may have, for ever."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            timeline = self.timeline
            if timeline is None:
                continue
            try:
                self.loading = True
                await self._catch_up(timeline)
            except RunloopError as error:
                self._on_error(error)
            finally:
                self.loading = False
            self._on_news()

    async def _catch_up(self, timeline: Timeline) -> None:
        drawn = 0.0
        while timeline is self.timeline:
            facts = await self._desk.facts(timeline.run, timeline.last_id, PAGE)
            for start in range(0, len(facts), SLICE):
                timeline.extend(facts[start : start + SLICE])
                await asyncio.sleep(0)
                now = asyncio.get_running_loop().time()
                if now - drawn >= GLANCE_S:
                    drawn = now
                    self._on_news()
            if len(facts) < PAGE:
                return

    def _changed(self, change: Change) -> None:
        known = {row.run for row in self.runs}
        if self.timeline is not None and (
            change.every or self.timeline.run in change.runs or not change.runs <= known
        ):
            self._dirty.set()  # a run nobody has heard of may be inside this one
        if change.approvals or change.every or not change.runs <= known:
            self._refresh_soon()
        self._on_news()

    def _refresh_soon(self) -> None:
        self._stale = True
        if self._lists is None or self._lists.done():
            self._lists = asyncio.create_task(self._refresh_later())

    async def _refresh_later(self) -> None:
        while self._stale:
            await asyncio.sleep(self._lists_s)
            self._stale = False  # before it is read: what changes meanwhile is another reason to look
            await self._refresh()
            if self.timeline is None and self.runs:
                self._look_at(self.runs[0].run)

    async def _refresh(self) -> None:
        try:
            self.runs = tuple(await self._desk.runs(RUNS))
            self.approvals = tuple(await self._desk.approvals())
            self.questions = tuple(await self._desk.questions())
        except RunloopError as error:
            self._on_error(error)
        self._on_news()

    # --- which run ----------------------------------------------------------------------------------

    async def open(self, run: str) -> bool:
        """Look at a run, by its id or the beginning of one; returns whether there is one."""
        try:
            found = await self._desk.find_run(run)
        except RunloopError as error:
            self._on_error(error)
            return False
        if self.timeline is not None and found != self.timeline.run:
            around = self.timeline.run
            inside = found in self.timeline.newest.inside
            self._around = [*self._around, around] if inside else []
        self._look_at(found)
        return True

    async def leave_inside(self) -> bool:
        """Back to the run around this one; returns whether there is one."""
        state = None if self.timeline is None else self.timeline.newest
        around = self._around.pop() if self._around else None if state is None else state.parent_run
        if around is None:
            return False
        kept = list(self._around)
        done = await self.open(around)
        self._around = kept
        return done

    def _look_at(self, run: str) -> None:
        if self.timeline is None or self.timeline.run != run:
            self.timeline = Timeline(run, again=partial(self._desk.again, run))
            self._index = None
        self._dirty.set()
        self._on_news()

    # --- which moment of it -------------------------------------------------------------------------

    @property
    def total(self) -> int:
        return 0 if self.timeline is None else len(self.timeline)

    @property
    def index(self) -> int:
        """How many facts are shown."""
        return self.total if self._index is None else min(self._index, self.total)

    @property
    def live(self) -> bool:
        """Whether what comes is shown as it comes."""
        return self._index is None

    @property
    def state(self) -> RunState | None:
        """The run at the moment that is looked at."""
        return None if self.timeline is None else self.timeline.at(self.index)

    def go(self, index: int) -> None:
        """Look at the run after so many facts; the newest of all is another thing (:meth:`follow`)."""
        if self.timeline is not None:
            self._index = max(0, min(index, self.total))
            self._on_news()

    def follow(self) -> None:
        """Show what comes as it comes."""
        self._index = None
        self._on_news()

    def pause(self) -> None:
        """Stay at this moment, or follow again."""
        if self._index is None:
            self.go(self.total)
        else:
            self.follow()

    def step(self, by: int) -> None:
        """So many facts on, or back."""
        self.go(self.index + by)

    def node_step(self, by: int) -> None:
        """To the next fact, or the one before, that began or ended a node."""
        if self.timeline is not None:
            self.go(self.timeline.node_step(self.index, by))

    def go_to_event(self, event: int) -> bool:
        """To right after a fact; returns whether it is one of this run."""
        place = None if self.timeline is None else self.timeline.place_of(event)
        if place is None:
            return False
        self.go(place + 1)
        return True

    def bookmark(self) -> bool:
        """Mark this moment, or take its mark away; returns whether it is marked now."""
        marked = self.timeline is not None and self.timeline.bookmark(self.index)
        self._on_news()
        return marked

    def next_bookmark(self) -> bool:
        """To the next marked moment; returns whether there is any."""
        mark = None if self.timeline is None else self.timeline.next_bookmark(self.index)
        if mark is None:
            return False
        self.go(mark)
        return True

"""All facts of one run, and the state of the run after any number of them.

``at(index)`` folds from the nearest checkpoint, one of which is kept every :data:`SPACING` facts. Facts older
than the newest :data:`WARM` are kept packed, so that a long run costs a tenth of the memory; unpacking a page
takes a few milliseconds. The same for a run that goes on and for one on record. Pure: no clock, no I/O.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from agtop.model.facts import Fact, fact_of, told
from agtop.model.reduce import reduce
from agtop.model.state import RunState

__all__ = ["SPACING", "WARM", "Timeline"]

SPACING = 512
"""Facts between two checkpoints, and on one page."""
WARM = 131_072
"""Newest facts that are kept as they are."""
OPEN_PAGES = 24
"""Packed pages that stay unpacked after somebody looked at them."""


class Timeline:
    """The facts of one run, growing at the end. Index 0 is before the first fact."""

    def __init__(self, run: str, *, warm: int = WARM) -> None:
        self.run = run
        self._warm = max(1, warm // SPACING)
        self._pages: list[list[Fact] | bytes] = []
        self._opened: OrderedDict[int, list[Fact]] = OrderedDict()
        self._checkpoints = [RunState(run=run)]
        self._newest = self._checkpoints[0]
        self._last_asked = self._newest
        self._bookmarks: list[int] = []

    # --- growing ----------------------------------------------------------------------------------

    def extend(self, facts: Iterable[Fact]) -> int:
        """Take more facts in, oldest first; those that are here already are passed over. Returns how many
        were new."""
        state, before = self._newest, self._newest.index
        for fact in facts:
            if fact.id <= state.last_id:
                continue
            if state.index % SPACING == 0:
                self._begin_page(state)
            page = self._pages[-1]
            assert isinstance(page, list)
            page.append(fact)
            state = reduce(state, fact)
        self._newest = state
        return state.index - before

    def _begin_page(self, state: RunState) -> None:
        if self._pages:
            self._checkpoints.append(state)
        self._pages.append([])
        cold = len(self._pages) - 1 - self._warm
        if cold >= 0 and isinstance(page := self._pages[cold], list):
            self._pages[cold] = _packed(page)

    # --- looking ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._newest.index

    @property
    def newest(self) -> RunState:
        """The state after every fact."""
        return self._newest

    @property
    def last_id(self) -> int:
        """Ledger id of the newest fact; 0 while there is none."""
        return self._newest.last_id

    def at(self, index: int) -> RunState:
        """The state after the first ``index`` facts; beyond either end, the state there."""
        index = max(0, min(index, len(self)))
        if index == len(self):
            return self._newest
        near = self._last_asked
        state = self._checkpoints[min(index // SPACING, len(self._checkpoints) - 1)]
        if state.index < near.index <= index:
            state = near
        for fact in self.facts(state.index, index):
            state = reduce(state, fact)
        self._last_asked = state
        return state

    def fact(self, place: int) -> Fact:
        """The fact at a place, counted from 0; raises :class:`IndexError`."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._page(place // SPACING)[place % SPACING]

    def facts(self, start: int = 0, stop: int | None = None) -> Iterator[Fact]:
        """The facts from ``start`` up to ``stop``, as places counted from 0."""
        stop = len(self) if stop is None else min(stop, len(self))
        start = max(0, start)
        while start < stop:
            page, inside = divmod(start, SPACING)
            rows = self._page(page)[inside : inside + stop - start]
            yield from rows
            start += len(rows)

    def place_of(self, event: int) -> int | None:
        """Where the fact with a ledger id stands; None where it is no fact of this run."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.fact(middle).id < event:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.fact(low).id == event else None

    # --- steps and bookmarks ----------------------------------------------------------------------

    def step(self, index: int, by: int) -> int:
        """The index so many facts further, or back; kept within the run."""
        return max(0, min(index + by, len(self)))

    def node_step(self, index: int, by: int) -> int:
        """The index after the next fact, or the one before, that began or ended a node."""
        place = index if by > 0 else index - 2
        while 0 <= place < len(self):
            if self.fact(place).kind.startswith(("node.", "run.")):
                return place + 1
            place += 1 if by > 0 else -1
        return len(self) if by > 0 else 0

    @property
    def bookmarks(self) -> tuple[int, ...]:
        """The indexes that were marked, in order."""
        return tuple(self._bookmarks)

    def bookmark(self, index: int) -> bool:
        """Mark an index, or take its mark away; returns whether it is marked now."""
        if index in self._bookmarks:
            self._bookmarks.remove(index)
            return False
        self._bookmarks = sorted((*self._bookmarks, index))
        return True

    def next_bookmark(self, index: int) -> int | None:
        """The first mark behind an index, or else the first of all; None where there is none."""
        return next((mark for mark in self._bookmarks if mark > index), None) or next(
            iter(self._bookmarks), None
        )

    # --- pages ------------------------------------------------------------------------------------

    def _page(self, number: int) -> list[Fact]:
        page = self._pages[number]
        if isinstance(page, list):
            return page
        opened = self._opened.get(number)
        if opened is None:
            opened = self._opened[number] = _unpacked(page)
            if len(self._opened) > OPEN_PAGES:
                self._opened.popitem(last=False)
        else:
            self._opened.move_to_end(number)
        return opened


def _packed(page: list[Fact]) -> bytes:
    rows = [
        {
            "id": fact.id,
            "ts_ms": fact.ts_ms,
            "actor": fact.actor,
            "kind": fact.kind,
            "version": fact.payload.version,
            "run": fact.run,
            "payload": told(fact),
            "provenance": fact.provenance,
        }
        for fact in page
    ]
    return zlib.compress(msgspec.msgpack.encode(rows), 1)


def _unpacked(page: bytes) -> list[Fact]:
    return [fact_of(row) for row in msgspec.msgpack.decode(zlib.decompress(page))]

"""All facts of one run, and the state of the run after any number of them.

``at(index)`` folds from the nearest checkpoint. Of a run however long only the newest facts are kept, those
that somebody looks at, and a bounded number of checkpoints: pages that were let go are asked for again
(``again``) when they are looked at, which takes a few milliseconds. Without anybody to ask, all are kept. The
same for a run that goes on and for one on record. Does not know: where facts are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from agtop.model.facts import Fact, Unknown
from agtop.model.reduce import fold
from agtop.model.state import RunState
from runloop.errors import RunloopError

__all__ = ["CHECKPOINTS", "OPEN_PAGES", "SPACING", "WARM", "Again", "Timeline"]

SPACING = 512
"""Facts on one page; checkpoints stand at the beginning of pages."""
WARM = 16_384
"""Newest facts that are kept as they are."""
OPEN_PAGES = 24
"""Pages that stay at hand after somebody looked at them."""
CHECKPOINTS = 4_096
"""States that are kept at most; of a longer run every other one, and so on."""

Again = Callable[[int, int, int], Sequence[Fact]]
"""Facts of the run with ids above the first number, up to the second, at most as many as the third."""


class Timeline:
    """The facts of one run, growing at the end. Index 0 is before the first fact."""

    def __init__(
        self, run: str, *, again: Again | None = None, warm: int = WARM, checkpoints: int = CHECKPOINTS
    ) -> None:
        self.run = run
        self._again = again
        self._warm = max(1, warm // SPACING)
        self._most = max(2, checkpoints)
        self._pages: list[list[Fact] | None] = []
        """None for what was let go."""
        self._before = array("q")
        """Ledger id of the fact before each page."""
        self._opened: OrderedDict[int, list[Fact]] = OrderedDict()
        self._turns = array("q")
        """Places of facts that began or ended a node, or the run."""
        self._checkpoints = [RunState(run=run)]
        self._every = 1
        """Pages between two checkpoints."""
        self._newest = self._checkpoints[0]
        self._last_asked = self._newest
        self._bookmarks: list[int] = []

    # --- growing ----------------------------------------------------------------------------------

    def extend(self, facts: Iterable[Fact]) -> int:
        """Take more facts in, oldest first; those that are here already are passed over. Returns how many
        were new."""
        new, last = [], self._newest.last_id
        for fact in facts:
            if fact.id > last:
                new.append(fact)
                last = fact.id
        done = 0
        while done < len(new):
            state = self._newest
            inside = state.index % SPACING
            if not inside:
                self._begin_page(state)
            part = new[done : done + SPACING - inside]
            page = self._pages[-1]
            assert page is not None
            page += part
            self._turns.extend(
                place for place, fact in enumerate(part, state.index) if fact.kind.startswith(_TURNS)
            )
            self._newest = fold(state, part)
            done += len(part)
        return len(new)

    def _begin_page(self, state: RunState) -> None:
        number = len(self._pages)
        if number and not number % self._every:
            self._checkpoints.append(state)
            if len(self._checkpoints) > self._most:
                self._checkpoints = self._checkpoints[::2]
                self._every *= 2
        self._pages.append([])
        self._before.append(state.last_id)
        cold = number - self._warm
        if cold >= 0 and self._again is not None:
            self._pages[cold] = None

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
        state = self._checkpoints[min(index // (SPACING * self._every), len(self._checkpoints) - 1)]
        if state.index < near.index <= index:
            state = near
        self._last_asked = fold(state, self.facts(state.index, index))
        return self._last_asked

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
        number = bisect_left(self._before, event) - 1  # a page has what comes behind the fact before it
        if number < 0:
            return None
        page = self._page(number)
        inside = bisect_left(page, event, key=lambda fact: fact.id)
        found = inside < len(page) and page[inside].id == event
        return number * SPACING + inside if found else None

    # --- steps and bookmarks ----------------------------------------------------------------------

    def step(self, index: int, by: int) -> int:
        """The index so many facts further, or back; kept within the run."""
        return max(0, min(index + by, len(self)))

    def node_step(self, index: int, by: int) -> int:
        """The index after the next fact, or the one before, that began or ended a node."""
        if by > 0:
            at = bisect_left(self._turns, index)
            return self._turns[at] + 1 if at < len(self._turns) else len(self)
        at = bisect_right(self._turns, index - 2) - 1
        return self._turns[at] + 1 if at >= 0 else 0

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

    @property
    def held(self) -> int:
        """Facts that are kept in memory now."""
        return sum(len(page) for page in (*self._pages, *self._opened.values()) if page is not None)

    def _page(self, number: int) -> list[Fact]:
        page = self._pages[number]
        if page is not None:
            return page
        opened = self._opened.get(number)
        if opened is None:
            opened = self._opened[number] = self._asked_again(number)
            if len(self._opened) > OPEN_PAGES:
                self._opened.popitem(last=False)
        else:
            self._opened.move_to_end(number)
        return opened

    def _asked_again(self, number: int) -> list[Fact]:
        """A page that was let go. What cannot be had any more is told as that, in its place: another file
        may lie where the ledger was."""
        assert self._again is not None
        after, upto = self._before[number], self._before[number + 1]
        why = "it is no longer on record"
        found: list[Fact] = []
        try:
            found = list(self._again(after, upto, SPACING))
        except RunloopError as error:
            why = error.message
        if len(found) < SPACING or found[-1].id != upto:
            gone = Unknown(fields={"unreadable": why})
            found = [Fact(upto, 0, "", "unreadable", self.run, gone)] * SPACING
        return found


_TURNS = ("node.", "run.")

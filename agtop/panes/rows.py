"""A pane around one list: the keys that move in every list, and the search that some of them have.

Knows: the keys, once for all panes, and how a long list is looked through without keeping keys waiting. Does
not know: what a row is; the pane says what is searched in it (:meth:`Searched.said`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from agtop.lines import Lines
from agtop.panes.pane import Pane

__all__ = ["MOVES", "Rows", "SearchLine", "Searched", "seek"]

AT_ONCE = 2_000
"""Rows that are looked at before anything else gets its turn: a few milliseconds."""

MOVES: list[BindingType] = [
    Binding("j,down", "move(1)", "next", show=False),
    Binding("k,up", "move(-1)", "previous", show=False),
    Binding("pagedown,ctrl+f", "move_pages(1)", "a page down", show=False),
    Binding("pageup,ctrl+b", "move_pages(-1)", "a page up", show=False),
    Binding("g,home", "top", "first", show=False),
    Binding("G,end", "bottom", "last", show=False),
]
"""The keys of every list."""


class Rows(Pane):
    """A pane around a list with a cursor. A subclass says where the list is (``LIST``) and what follows when
    the cursor moved (:meth:`moved`)."""

    LIST: ClassVar[str]
    """Selector of the list."""
    BINDINGS: ClassVar[list[BindingType]] = MOVES

    @property
    def lines(self) -> Lines:
        """The list."""
        return self.query_one(self.LIST, Lines)

    def moved(self) -> None:
        """The cursor is elsewhere."""

    def action_move(self, by: int) -> None:
        self.lines.move(by)
        self.moved()

    def action_move_pages(self, by: int) -> None:
        self.action_move(by * max(1, self.lines.page - 1))

    def action_top(self) -> None:
        self.lines.to_top()
        self.moved()

    def action_bottom(self) -> None:
        self.lines.to_end()
        self.moved()


async def seek(count: int, start: int, by: int, holds: Callable[[int], bool]) -> int | None:
    """The first row that holds, from behind ``start`` on or back (``by``: 1 or -1), all around; keys go on
    meanwhile. None where there is none."""
    for looked in range(1, count + 1):
        at = (start + looked * by) % count
        if holds(at):
            return at
        if not looked % AT_ONCE:
            await asyncio.sleep(0)
    return None


class SearchLine(Input):
    """The words to look for; shut until somebody asks for it."""

    DEFAULT_CSS = """
    SearchLine { height: 1; border: none; padding: 0 1; background: $panel; display: none; }
    SearchLine:focus { border: none; }
    """

    def __init__(self) -> None:
        super().__init__(placeholder="words to look for; enter goes to the next row that has them")


class Searched(Rows):
    """A list that is searched: the cursor goes to rows that have the words, and nothing is hidden."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search"),
        Binding("n", "again(1)", "next hit"),
        Binding("N", "again(-1)", "previous hit"),
    ]
    sought: tuple[str, ...] = ()
    """Words that are looked for, in lower case."""

    def said(self, row: int) -> str:
        """What is searched in a row; foreign text."""
        raise NotImplementedError

    def found(self, row: int) -> None:
        """Go to a row that has the words."""
        self.lines.place(row)
        self.moved()

    def action_search(self) -> None:
        line = self.query_one(SearchLine)
        line.value = " ".join(self.sought)
        line.display = True
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._shut()
        self.sought = tuple(event.value.lower().split())
        if self.sought:
            self.action_again(1)

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self.query_one(SearchLine).has_focus:
            event.stop()
            event.prevent_default()
            self._shut()

    def _shut(self) -> None:
        self.query_one(SearchLine).display = False
        self.focus()

    def action_again(self, by: int) -> None:
        if self.sought:
            self.run_worker(self._seek(by), group="search", exclusive=True)
        else:
            self.cockpit.say("nothing is searched; / asks for what")

    async def _seek(self, by: int) -> None:
        lines = self.lines
        at = await seek(lines.count, lines.cursor, by, self._has)
        if at is None:
            self.cockpit.say(f"no row has {' '.join(self.sought)}")
        else:
            self.found(at)

    def _has(self, row: int) -> bool:
        text = self.said(row).lower()
        return all(word in text for word in self.sought)

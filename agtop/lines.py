"""Rows of text, of which only those on the screen are made: a hundred thousand cost no more than thirty.

Knows: scrolling, a cursor that stays in sight, and that what is drawn is as wide as the widget. Does not
know: what a row says; whoever makes rows escapes what is foreign in them. Takes no keys itself: the pane or
screen around it has the bindings, so that help can list them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

__all__ = ["CURSOR", "Lines"]

CURSOR = "▌"
"""Marks the row the cursor is on, also where there are no colours."""


class Lines(ScrollView, can_focus=False):
    """Rows made by a function of their number and the width."""

    DEFAULT_CSS = """
    Lines { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; overflow-x: hidden; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--cursor"}

    class SawEnd(Message):
        """The last row is on the screen."""

    class Resized(Message):
        """There is another number of columns or rows to fill."""

    def __init__(self, *, cursor: bool = True, id: str | None = None) -> None:
        super().__init__(id=id)
        self._row: Callable[[int, int], Text] = lambda _number, _width: Text("")
        self._has_cursor = cursor
        self._told_end = False
        self.count = 0
        """How many rows there are."""
        self.cursor = 0
        """Row the cursor is on; 0 where there is none."""
        self.follows = True
        """Whether the cursor stays on the last row while rows are added."""
        self.cut = False
        """Whether a row that was drawn is wider than there was room for, so that its end was not seen."""

    # --- what is shown ----------------------------------------------------------------------------

    def set_rows(self, count: int, row: Callable[[int, int], Text]) -> None:
        """Show ``count`` rows; ``row(number, width)`` makes one."""
        if count != self.count:
            self.call_after_refresh(self._place_bar)
        self._row = row
        self.cut = False
        self.count = count
        self.virtual_size = Size(self.size.width, count)
        if self._has_cursor:
            self.cursor = max(0, min(self.cursor, count - 1))
            if self.follows and count:
                self.cursor = count - 1
            self._keep_in_sight()
        self.refresh()
        self._look_for_end()

    @property
    def columns(self) -> int:
        """Columns of a row, beside the scroll bar."""
        return self.scrollable_content_region.width

    def render_line(self, y: int) -> Strip:
        width = self.columns
        number = self.scroll_offset.y + y
        if not 0 <= number < self.count:
            return Strip.blank(width, self.rich_style)
        here = self._has_cursor and number == self.cursor
        text = self._row(number, width - self._has_cursor)
        mark = (CURSOR if here else " ") if self._has_cursor else ""
        text = Text.assemble(mark, text)  # a text's own style becomes a span: alone it would be lost
        style = self.rich_style + self.get_component_rich_style("lines--cursor") if here else self.rich_style
        strip = Strip(text.render(self.app.console, end=""))
        self.cut = self.cut or strip.cell_length > width > 0
        strip = strip.adjust_cell_length(width)
        return strip.apply_style(style)

    # --- moving -----------------------------------------------------------------------------------

    @property
    def page(self) -> int:
        """Rows that are on the screen."""
        return max(1, self.size.height)

    def move(self, by: int) -> None:
        """Move the cursor by so many rows; without a cursor, scroll."""
        if not self._has_cursor:
            self.scroll_to(y=self.scroll_offset.y + by, animate=False, immediate=True)
        else:
            self.place(self.cursor + by)
        self._look_for_end()

    def place(self, row: int) -> None:
        """Put the cursor on a row, as far as there are rows."""
        self.cursor = max(0, min(row, self.count - 1))
        self.follows = self.cursor >= self.count - 1 and row >= self.cursor
        self._keep_in_sight()
        self.refresh()

    def to_top(self) -> None:
        """To the first row."""
        self.move(-self.count)

    def to_end(self) -> None:
        """To the last row."""
        self.move(self.count)

    def _keep_in_sight(self) -> None:
        top, page = self.scroll_offset.y, self.page
        if self.cursor < top:
            top = self.cursor
        elif self.cursor >= top + page:
            top = self.cursor - page + 1
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look_for_end()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, self.count)
        self.call_after_refresh(self._settle)
        self.post_message(self.Resized())

    def _settle(self) -> None:
        """After the size has changed: the cursor in sight, the scroll bar where it belongs."""
        if self._has_cursor and self.count:
            self._keep_in_sight()
        self._place_bar()
        self._look_for_end()

    def _place_bar(self) -> None:
        """Have the scroll bar show where we are: one that was hidden when we moved has not heard of it."""
        self._scroll_update(self.virtual_size)
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = self.scroll_y

    def _look_for_end(self) -> None:
        if self._told_end or not self.count or not self.size.height:
            return
        if self.scroll_offset.y + self.size.height >= self.count:
            self._told_end = True
            self.post_message(self.SawEnd())

    def forget_end(self) -> None:
        """Other rows: their end is still to be seen."""
        self._told_end = False
        self._look_for_end()

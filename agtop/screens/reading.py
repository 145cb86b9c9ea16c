"""What screens that are read have in common: the keys that scroll, and how rows are coloured.

Knows: keys and colours. Does not know: what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.document import Row

__all__ = ["READING", "Reading", "painted"]

READING: list[BindingType] = [
    Binding("j,down", "scroll_rows(1)", "down", show=False),
    Binding("k,up", "scroll_rows(-1)", "up", show=False),
    Binding("pagedown,space,ctrl+f", "scroll_pages(1)", "a page down", show=False),
    Binding("pageup,ctrl+b", "scroll_pages(-1)", "a page up", show=False),
    Binding("g,home", "scroll_top", "to the beginning", show=False),
    Binding("G,end", "scroll_bottom", "to the end", show=False),
]

STYLES = {"head": "bold", "field": "", "text": "", "hex": "", "rule": "bold underline"}


Outcome = TypeVar("Outcome")


class Reading(ModalScreen[Outcome]):
    """A screen around one :class:`Lines`."""

    DEFAULT_CSS = """
    Reading { align: center middle; background: $background 60%; }
    Reading > .title { width: 100%; height: 1; background: $primary; color: $text; text-style: bold; }
    Reading > .foot { width: 100%; height: 1; background: $panel; color: $text; }
    Reading > Lines { width: 100%; height: 1fr; background: $surface; padding: 0 1; }
    """

    @property
    def reading_width(self) -> int:
        """Columns of a row."""
        return max(20, self.app.size.width - 3)

    def redraw(self) -> None:
        """Make the rows anew, at the width there is."""

    def on_resize(self) -> None:
        self.redraw()

    def action_scroll_rows(self, by: int) -> None:
        self.query_one(Lines).move(by)

    def action_scroll_pages(self, by: int) -> None:
        lines = self.query_one(Lines)
        lines.move(by * max(1, lines.page - 1))

    def action_scroll_top(self) -> None:
        self.query_one(Lines).to_top()

    def action_scroll_bottom(self) -> None:
        self.query_one(Lines).to_end()


def painted(row: Row, variables: Mapping[str, str] = MappingProxyType({})) -> Text:
    """A row in its colour (``variables``: ``App.theme_variables``); without any nothing is lost but that."""
    style = STYLES.get(row.kind, "")
    return Text(
        row.text,
        style=colored(variables, "warning", bold=True) if row.kind == "note" else style,
        no_wrap=True,
        end="",
    )

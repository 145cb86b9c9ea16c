"""One of several: a list in front of the pane, by keys alone.

Knows: rows and a cursor. Does not know: what is chosen, or what for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.screens.reading import READING, Reading
from runloop.escape import visible

__all__ = ["ChooseScreen"]


class ChooseScreen(Reading[str | None]):
    """Closes with the key of the chosen row, or with None."""

    HELP = "Move with j and k; enter chooses, esc leaves things as they are."
    BINDINGS: ClassVar[list[BindingType]] = [
        *READING,
        ("enter", "choose", "choose"),
        ("escape,q", "leave", "back"),
    ]

    def __init__(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """``rows``: key and words; words may be foreign."""
        super().__init__()
        self._title = title
        self._rows = rows

    def compose(self) -> ComposeResult:
        yield Static(visible(self._title), classes="title", markup=False)
        yield Lines()
        yield Static("j k move · enter chooses · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.query_one(Lines).follows = False
        self.redraw()

    def redraw(self) -> None:
        self.query_one(Lines).set_rows(
            len(self._rows), lambda number, _: Text(visible(self._rows[number][1]), no_wrap=True, end="")
        )

    def action_choose(self) -> None:
        """This one."""
        if self._rows:
            self.dismiss(self._rows[self.query_one(Lines).cursor][0])

    def action_leave(self) -> None:
        """None of them."""
        self.dismiss(None)

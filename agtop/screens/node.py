"""One node of the run in full, as it stood when it was opened."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.model.plan import details
from agtop.model.state import RunState
from agtop.screens.reading import READING, Reading, painted
from runloop.escape import visible

__all__ = ["NodeScreen"]


class NodeScreen(Reading[None]):
    """Attempts, limits, what it cost, what it asked and made."""

    TITLE = "one node"
    HELP = "All that the facts so far tell of a node. Words behind a name are somebody else's."
    BINDINGS: ClassVar[list[BindingType]] = [*READING, Binding("escape,q,enter", "leave", "back")]

    def __init__(self, state: RunState, node: str) -> None:
        super().__init__()
        self._state = state
        self._node = node

    def compose(self) -> ComposeResult:
        yield Static(visible(self._node), classes="title", markup=False)
        yield Lines(cursor=False)
        yield Static("j k scroll · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        rows = details(self._state, self._node, self.reading_width)
        self.query_one(Lines).set_rows(len(rows), lambda number, _: painted(rows[number]))

    def action_leave(self) -> None:
        self.dismiss(None)

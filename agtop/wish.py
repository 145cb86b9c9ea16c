"""The prompt line: shut until somebody wants to say something, and then one line of theirs.

Knows: what was typed before in this session; nothing of it is written anywhere. Does not know: where a line
goes.
"""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

__all__ = ["Wish"]

HISTORY = 100
"""Lines that are remembered while the cockpit runs."""


class Wish(Input):
    """One line; ``Closed`` tells what came of it."""

    class Closed(Message):
        """The prompt was shut; ``line`` is what was handed in, empty when it was left."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line = line

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back", show=False),
        Binding("up", "recall(-1)", "earlier line", show=False),
        Binding("down", "recall(1)", "later line", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(placeholder="what do you want? enter hands it to rlp, esc leaves", id=id)
        self.display = False
        self._said: list[str] = []
        self._at = 0

    def open(self) -> None:
        """Take what is typed from here on."""
        self._at = len(self._said)
        self.value = ""
        self.display = True
        self.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        line = event.value.strip()
        if line:
            self._said = [*self._said[1 - HISTORY :], line]
        self._shut(line)

    def action_leave(self) -> None:
        """Shut without handing anything in."""
        self._shut("")

    def _shut(self, line: str) -> None:
        self.display = False
        self.value = ""
        self.post_message(self.Closed(line))

    def action_recall(self, by: int) -> None:
        """Show an earlier line, or a later one."""
        if self._said:
            self._at = max(0, min(len(self._said), self._at + by))
            self.value = self._said[self._at] if self._at < len(self._said) else ""
            self.cursor_position = len(self.value)

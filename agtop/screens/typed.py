"""A line typed by the person, with room above for the question: a path, a reason, a word that confirms.

Knows: that what is pasted is not typed: where a word has to be typed, pasting is refused (attacks.md C6).
Does not know: what the line is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Paste
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from agtop.model.guard import Verdict
from runloop.escape import block

__all__ = ["Typed", "TypedScreen"]


class Typed(Input):
    """An input that may refuse what is pasted."""

    def __init__(self, value: str = "", *, pasting: bool = True, max_length: int = 0) -> None:
        super().__init__(value=value, max_length=max_length, select_on_focus=False)
        self._pasting = pasting

    def _on_paste(self, event: Paste) -> None:
        if self._pasting:
            super()._on_paste(event)
        else:
            event.stop()
            event.prevent_default()
            self.app.bell()

    def action_paste(self) -> None:
        """From the cockpit's own clipboard, by a key."""
        if self._pasting:
            super().action_paste()
        else:
            self.app.bell()


class TypedScreen(ModalScreen[str | None]):
    """Closes with the line, or with None."""

    HELP = "Type a line; enter takes it, esc leaves things as they are."
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back", priority=True)]
    DEFAULT_CSS = """
    TypedScreen { align: center bottom; background: $background 60%; }
    TypedScreen > Static { width: 100%; height: auto; max-height: 60%; background: $panel; padding: 0 1; }
    TypedScreen > Input { width: 100%; border: none; height: 1; background: $surface; padding: 0 1; }
    """

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        pasting: bool = True,
        most: int = 4_000,
        judge: Callable[[], Verdict] = lambda: Verdict(True),
    ) -> None:
        """``question`` may hold foreign words; ``value`` is what stands there at first, ``most`` characters
        are taken. ``judge``: whether an enter counts now (``model.guard``)."""
        super().__init__()
        self._judge = judge
        self._question = question
        self._value = value
        self._pasting = pasting
        self._most = most

    def compose(self) -> ComposeResult:
        width = max(20, self.app.size.width - 2)
        yield Static("\n".join(block(self._question, width=width)), id="typed-question", markup=False)
        yield Typed(self._value, pasting=self._pasting, max_length=self._most)

    def on_mount(self) -> None:
        self.query_one(Typed).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        verdict = self._judge()
        if verdict.counts:
            self.dismiss(event.value)
        else:
            self.query_one("#typed-question", Static).update(verdict.why)

    def action_leave(self) -> None:
        """Never mind."""
        self.dismiss(None)

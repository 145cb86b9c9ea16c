"""Small questions in front of the panes: yes or no, one line of text, one run of many.

Knows: that an order is given by a key on the screen that names it, never by the key before, and by one that
was meant (``model.guard``): not typed ahead, held down or pasted. Foreign text is
escaped; what a person types is theirs. Does not know what becomes of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from agtop.lines import Lines
from agtop.looks import SIGNS, WORDS, colored, span, tone_of
from agtop.model.guard import Guard
from agtop.ports import RunRow
from agtop.screens.meant import steady_ms, waited_ms
from runloop.escape import block, columns_of, pieces, visible

__all__ = ["ConfirmScreen", "LineScreen", "RunsScreen"]

Outcome = TypeVar("Outcome")


class _Dialog(ModalScreen[Outcome]):
    """A box in the middle."""

    DEFAULT_CSS = """
    _Dialog { align: center middle; background: $background 60%; }
    _Dialog > Vertical { width: 76; max-width: 96%; height: auto; max-height: 90%; background: $surface;
                         border: round $primary; padding: 0 1; }
    _Dialog .foot { color: $text-muted; margin-top: 1; }
    _Dialog Input { border: none; background: $panel; height: 1; padding: 0 1; margin-top: 1; }
    _Dialog Input:focus { border: none; }
    _Dialog Lines { background: $surface; margin-top: 1; }
    .plain _Dialog > Vertical { border: none; }
    """


class ConfirmScreen(_Dialog[bool]):
    """One question; True only for ``y``, pressed after the question stood there for a moment."""

    HELP = "Nothing is done before you say y, in peace. Every other key that leaves this screen does nothing."
    FOOT = "y  do it     n, esc  back"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes, do it"),
        Binding("n,escape,q", "answer(False)", "no, go back"),
    ]

    def __init__(self, question: str, details: str = "") -> None:
        """``question`` and ``details`` may hold foreign text."""
        super().__init__()
        self._question = question
        self._details = details
        self._guard = _standing()
        self._pressed_ms: int | None = None
        """When the y that is judged now was pressed."""

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(visible(self._question), style="bold"))
            if self._details:
                yield Static(Text("\n".join(block(self._details))))
            yield Static(self.FOOT, classes="foot", markup=False)

    def on_key(self, event: Key) -> None:
        """Every key but a yes begins the pause before a yes anew."""
        if event.key == "y":
            self._pressed_ms = steady_ms() - waited_ms(event)
        else:
            self._guard.typed(steady_ms())

    def action_answer(self, answer: bool) -> None:
        if not answer:
            self.dismiss(False)
            return
        pressed, self._pressed_ms = self._pressed_ms, None
        verdict = self._guard.judge(steady_ms() if pressed is None else pressed)
        if verdict.counts:
            self.dismiss(True)
        else:
            self._guard.typed(steady_ms())
            self.query_one(".foot", Static).update(f"{verdict.why}     n, esc  back")


def _standing() -> Guard:
    """A guard of a question that is seen whole at once."""
    guard = Guard(steady_ms())
    guard.saw_end()
    return guard


class LineScreen(_Dialog[str | None]):
    """One line of text; None when it was left. An enter that was there before the question does not count."""

    HELP = "Type, then enter. Escape leaves without doing anything."
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back", priority=True)]

    def __init__(self, question: str, details: str, value: str) -> None:
        super().__init__()
        self._question = question
        self._details = details
        self._value = value
        self._guard = _standing()

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(visible(self._question), style="bold"))
            yield Static(Text("\n".join(block(self._details))))
            yield Input(self._value, select_on_focus=False)
            yield Static("enter  do it     esc  back", classes="foot", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        verdict = self._guard.judge(steady_ms())
        if verdict.counts:
            self.dismiss(event.value)
        else:
            self.query_one(".foot", Static).update(f"{verdict.why}     esc  back")

    def action_leave(self) -> None:
        self.dismiss(None)


class RunsScreen(_Dialog[str | None]):
    """One run of many: typed letters narrow the list, enter looks at it."""

    HELP = (
        "Type parts of an id, an opening, a state or a wish: the list narrows.\n"
        "Enter opens the run below the cursor. An id that is not listed is looked for in the ledger."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "move(1)", "next", priority=True, show=False),
        Binding("up,ctrl+p", "move(-1)", "previous", priority=True, show=False),
        Binding("pagedown", "move(10)", "further on", priority=True, show=False),
        Binding("pageup", "move(-10)", "further back", priority=True, show=False),
        Binding("escape", "leave", "back", priority=True),
    ]
    DEFAULT_CSS = """
    RunsScreen > Vertical { width: 96; height: 80%; }
    RunsScreen Lines { height: 1fr; }
    """

    def __init__(self, runs: Sequence[RunRow], current: str | None, now_ms: int) -> None:
        super().__init__()
        self._runs = runs
        self._now_ms = now_ms
        self._current = current
        self._found = list(runs)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Input(placeholder="narrow the list: an opening, a state, an id", id="narrow")
            yield Lines()
            yield Static("↑ ↓ choose     enter  look at it     esc  back", classes="foot", markup=False)

    def on_mount(self) -> None:
        lines = self.query_one(Lines)
        lines.follows = False
        self._narrow("")
        at = next((place for place, run in enumerate(self._found) if run.run == self._current), 0)
        lines.place(at)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def _narrow(self, typed: str) -> None:
        words = typed.lower().split()
        self._found = [run for run in self._runs if all(word in _searched(run) for word in words)]
        lines = self.query_one(Lines)
        lines.follows = False
        lines.cursor = 0
        lines.set_rows(len(self._found), self._row)

    def _row(self, number: int, width: int) -> Text:
        run = self._found[number]
        state = WORDS.get(run.state, run.state)
        text = Text(no_wrap=True, end="")
        tone = colored(self.app.theme_variables, tone_of(run.state))
        text.append(f"{SIGNS.get(run.state, '?')} {state:<10}", tone)
        text.append(f" {run.run[:8]} ", "dim")
        when = span(max(0, self._now_ms - run.started_ms)) + " ago"
        room = max(8, width - text.cell_len - len(when) - 1)
        name = visible(run.opening + (f"  {run.prompt}" if run.prompt else ""))
        name = pieces(name, room)[0]
        text.append(name + " " * (room - columns_of(name)))
        text.append(f" {when}", "dim")
        text.truncate(width)
        return text

    def action_move(self, by: int) -> None:
        self.query_one(Lines).move(by)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._found:
            self.dismiss(self._found[self.query_one(Lines).cursor].run)
        elif event.value.strip():
            self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        self.dismiss(None)


def _searched(run: RunRow) -> str:
    return f"{run.run} {run.opening} {run.state} {WORDS.get(run.state, '')} {run.prompt or ''}".lower()

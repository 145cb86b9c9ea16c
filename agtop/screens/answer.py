"""Answering an agent's question: who asks stands on top, in words of ours; what it asks is its own.

Knows: a list of choices, or a line of text. An answer is data for the agent and nothing else: it approves
nothing (attacks.md C11). Does not know: how it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from agtop.lines import Lines
from agtop.model.guard import Guard
from agtop.model.inbox import Item
from agtop.screens.typed import Typed
from runloop.escape import block, visible

__all__ = ["Answer", "AnswerScreen"]

MOST = 200_000
"""Characters of an answer; the daemon takes 256 KiB."""


class Answer(NamedTuple):
    """What the person said."""

    value: Any


class AnswerScreen(ModalScreen[Answer | None]):
    """Closes with an answer, or with None: then the question goes on waiting."""

    HELP = (
        "An agent asks you something. Choose with j and k, or type a line; enter answers.\n"
        "ctrl+t takes what you typed as JSON instead of text. Never type a password here.\n"
        "esc leaves it waiting."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "next choice", priority=True, show=False),
        Binding("up", "move(-1)", "previous choice", priority=True, show=False),
        Binding("ctrl+t", "turn", "text or JSON", priority=True),
        Binding("escape", "leave", "leave it waiting", priority=True),
    ]
    DEFAULT_CSS = """
    AnswerScreen { align: center middle; background: $background 60%; }
    AnswerScreen > .title { width: 100%; height: 1; background: $primary; color: $text; text-style: bold; }
    AnswerScreen > #question {
        width: 100%; height: auto; max-height: 50%; background: $surface; padding: 0 1;
    }
    AnswerScreen > Lines { width: 100%; height: auto; max-height: 40%; background: $surface; }
    AnswerScreen > Input { width: 100%; border: none; height: 1; background: $panel; padding: 0 1; }
    AnswerScreen > #answer-foot { width: 100%; height: 1; background: $panel; }
    """

    def __init__(
        self, item: Item, question: str, choices: tuple[str, ...], now_ms: Callable[[], int]
    ) -> None:
        """``now_ms``: a clock that goes forward."""
        super().__init__()
        self._now_ms = now_ms
        self._guard = Guard(now_ms())
        self._guard.saw_end()
        self._item = item
        self._question = question
        self._choices = choices
        self._json = False

    def compose(self) -> ComposeResult:
        item = self._item
        where = f", run {item.run[:8]}, node {item.node}" if item.run else ""
        yield Static(
            f" the agent {visible(item.who)} asks you{visible(where)}", classes="title", markup=False
        )
        width = max(20, self.app.size.width - 4)
        rows = ["| " + line for line in block(self._question, width=width)]
        yield Static(Text("\n".join(rows)), id="question")
        if self._choices:
            yield Lines()
        else:
            yield Typed(max_length=MOST)
        yield Static("", id="answer-foot", markup=False)

    def on_mount(self) -> None:
        if self._choices:
            lines = self.query_one(Lines)
            lines.follows = False
            lines.styles.height = min(len(self._choices), 12)
            lines.set_rows(len(self._choices), self._choice)
        else:
            self.query_one(Typed).focus()
        self._tell()

    def _choice(self, number: int, _: int) -> Text:
        return Text(f"{number + 1}. {visible(self._choices[number])}", no_wrap=True, end="")

    def _tell(self, wrong: str = "") -> None:
        how = "j k choose" if self._choices else f"type {'JSON' if self._json else 'text'} (ctrl+t turns)"
        self.query_one("#answer-foot", Static).update(
            wrong or f" {how} · enter answers · esc leaves it waiting"
        )

    # --- keys -------------------------------------------------------------------------------------

    def on_key(self, event: Any) -> None:
        if self._choices and event.key in ("j", "k", "enter"):
            event.stop()
            if event.key == "enter":
                self._answer(self._choices[self.query_one(Lines).cursor])
            else:
                self.action_move(1 if event.key == "j" else -1)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if not event.value.strip():
            self._tell(" an answer is not empty; esc leaves the question waiting")
            return
        value: Any = event.value
        if self._json:
            try:
                value = json.loads(event.value)
            except ValueError:
                self._tell(' that is no JSON; a text is written "so", ctrl+t takes it as text')
                return
        self._answer(value)

    def _answer(self, value: Any) -> None:
        """This is it, unless the key was there before the question."""
        verdict = self._guard.judge(self._now_ms())
        if verdict.counts:
            self.dismiss(Answer(value))
        else:
            self._tell(f" {verdict.why}")

    def action_move(self, by: int) -> None:
        if self._choices:
            self.query_one(Lines).move(by)

    def action_turn(self) -> None:
        """Take what is typed as JSON, or as text."""
        self._json = not self._json
        self._tell()

    def action_leave(self) -> None:
        """Answer later."""
        self.dismiss(None)

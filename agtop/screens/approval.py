"""The one place in the cockpit where a person says yes: every byte, then a key.

What is shown comes from the very bytes the answer is bound to, and those are checked first
(``runloop.approval.content_of``): what does not add up cannot be approved. A yes counts once the last row was
on the screen, and then only for a key pressed on purpose (``model.guard``): not for a click, a paste, a key
held down or typed ahead. What widens authority takes its name, typed out. The bytes cannot be changed here:
editing them says no, with the person's words for the agent; whatever it asks then is shown anew.

Does not know: how a decision is sent (the pane), or whether it holds (the daemon).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.document import Document, Row
from agtop.model.guard import Guard
from agtop.model.inbox import risks
from agtop.screens.meant import waited_ms
from agtop.screens.reading import READING, Reading, painted
from agtop.screens.typed import TypedScreen
from runloop import approval as held
from runloop.errors import DivergenceError
from runloop.escape import visible
from runloop.quantities import size

__all__ = ["ApprovalScreen", "Decision", "EditScreen", "editable"]

LONG = 1_048_576
"""Bytes from which on rows are made in a thread."""
_MAIL = "message/rfc822"


class Decision(NamedTuple):
    """What the person said."""

    word: str
    """``approve`` or ``deny``."""
    note: str = ""
    confirm: str = ""
    """The word that was typed out for it."""


class ApprovalScreen(Reading[Decision | None]):
    """Closes with a decision, or with None: then it goes on waiting."""

    HELP = (
        "Everything that would happen, to the last byte. Read to the end (G goes there), then y approves.\n"
        "n says no; the agent hears your reason. e says no with your wording of it: what waits cannot be\n"
        "changed, the agent may ask anew. x shows the bytes in hexadecimal. esc leaves it waiting."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        *READING,
        Binding("y", "approve", "approve"),
        Binding("n", "deny", "deny"),
        Binding("e", "edit", "deny with your wording"),
        Binding("x", "hex", "hexadecimal"),
        Binding("escape", "leave", "leave it waiting"),
    ]
    DEFAULT_CSS = """
    ApprovalScreen > .title { background: $warning; color: $text; }
    ApprovalScreen > #approval-foot { width: 100%; height: 2; background: $panel; color: $text; }
    """

    def __init__(self, approval: dict[str, Any], now_ms: Callable[[], int]) -> None:
        """``approval``: as ``approvals.show`` has it. ``now_ms``: a clock that goes forward."""
        super().__init__()
        self._approval = approval
        self._now_ms = now_ms
        self._guard = Guard(now_ms())
        self._hex = False
        self._made_for: tuple[int, bool] | None = None
        self._said = ""
        self._pressed_ms: int | None = None
        """When the y that is judged now was pressed."""
        self._wrong: DivergenceError | None = None
        try:
            self._content = held.content_of(approval)
        except DivergenceError as error:
            self._wrong, self._content = error, b""

    def compose(self) -> ComposeResult:
        yield Static(
            f" NOTHING HAS HAPPENED YET · {visible(self._approval['approval'])}",
            classes="title",
            markup=False,
        )
        yield Lines(cursor=False)
        yield Static("", id="approval-foot", markup=False)

    def on_mount(self) -> None:
        self.app.clear_notifications()  # nothing lies over what is read here
        self.redraw()
        self._tell()
        self.set_interval(0.2, self._tell)

    # --- what is shown ----------------------------------------------------------------------------

    def redraw(self) -> None:
        wanted = (self.reading_width, self._hex)
        if wanted == self._made_for:
            return
        self._made_for = wanted
        if len(self._content) < LONG:
            self._put(self.document(*wanted), wanted)
        else:
            self.run_worker(self._make(wanted), exclusive=True, exit_on_error=False)

    async def _make(self, wanted: tuple[int, bool]) -> None:
        self._put(await asyncio.to_thread(self.document, *wanted), wanted)

    def _put(self, made: Document, wanted: tuple[int, bool]) -> None:
        if wanted == self._made_for:
            lines = self.query_one(Lines)
            lines.set_rows(made.count, lambda number, _: painted(made.row(number), self.app.theme_variables))
            lines.forget_end()

    def document(self, width: int, hexadecimal: bool) -> Document:
        """Everything: what it is, why to look twice, what it says, and every byte."""
        made = Document(width)
        approval, content = self._approval, self._content
        if self._wrong is not None:
            made.head(f"DO NOT APPROVE: {self._wrong.message}", "note")
            made.head(self._wrong.hint or "", "note")
            made.fields(approval["action"])
            return made
        for risk in risks(approval):
            made.rows([Row(line, "note") for line in _sentence(risk, made.width)])
        made.rows([Row(line) for line in held.describe(approval, content, width=made.width)])
        made.head(f"every byte, as it would leave: {size(len(content))}", "rule")
        made.content(content, hexadecimal=hexadecimal, whole=True)
        made.head("that was all of it", "rule")
        return made

    def on_lines_saw_end(self, message: Lines.SawEnd) -> None:
        message.stop()
        if self._wrong is None:
            self._guard.saw_end(self._now_ms())
        self._tell()

    def _tell(self) -> None:
        now = self._now_ms()
        if self._wrong is not None:
            first = "it cannot be approved: what is shown is not what it binds"
        elif not self._guard.seen:
            first = "there is more: read to the end (space: a page, G: the end), then y approves"
        elif self._guard.waits_ms(now):
            first = "… read; in a moment y approves"
        elif held.widens(self._approval):
            first = "y approves, with a word that you type"
        else:
            first = "y approves it, once, exactly as it is"
        keys = "y approve · n deny · e deny, with your wording · x hex · esc decide later"
        ready = self._wrong is None and self._guard.seen and not self._guard.waits_ms(now)
        tone = colored(self.app.theme_variables, "success" if ready else "warning", bold=True)
        told = Text.assemble((f" {self._said or first}\n", tone), f" {keys}")
        self.query_one("#approval-foot", Static).update(told)

    # --- keys -------------------------------------------------------------------------------------

    def on_key(self, event: Key) -> None:
        """Every key but a yes begins the pause before a yes anew."""
        if event.key == "y":
            self._pressed_ms = self._now_ms() - waited_ms(event)
        else:
            self._guard.typed(self._now_ms())
            self._said = ""

    def on_paste(self, event: Paste) -> None:
        """What is pasted is no answer."""
        event.stop()
        self._guard.typed(self._now_ms())

    def action_approve(self) -> None:
        """Yes, once, to exactly this."""
        if self._wrong is not None:
            self.app.bell()
            return
        pressed, self._pressed_ms = self._pressed_ms, None
        verdict = self._guard.judge(self._now_ms() if pressed is None else pressed)
        if not verdict.counts:
            self._guard.typed(self._now_ms())
            self._said = verdict.why
            self._tell()
            return
        if self.query_one(Lines).cut:
            self._said = "the window is too narrow to show it whole: make it wider, and read it again"
            self._tell()
            return
        if not held.widens(self._approval):
            self.dismiss(Decision("approve"))
            return
        word = held.confirming_word(self._approval)
        self.app.push_screen(
            TypedScreen(
                f"type {word} to allow it; anything else leaves it waiting:", pasting=False, most=200
            ),
            lambda typed: self._typed_out(typed, word),
        )

    def _typed_out(self, typed: str | None, word: str) -> None:
        if typed is not None and typed.strip().lower() == word.lower():
            self.dismiss(Decision("approve", confirm=word))
        elif typed is not None:
            self._said = f"that is not {word}; it goes on waiting"
            self._tell()

    def action_deny(self) -> None:
        """No; the agent hears why."""
        question = "deny it? a reason, if you like (the agent hears it); enter denies, esc does not:"
        standing = Guard(self._now_ms())
        standing.saw_end()
        asked = TypedScreen(question, most=held.MAX_NOTE_CHARS, judge=lambda: standing.judge(self._now_ms()))
        self.app.push_screen(asked, self._denied)

    def _denied(self, note: str | None) -> None:
        if note is not None:
            self.dismiss(Decision("deny", note.strip()))

    def action_edit(self) -> None:
        """No, with the person's wording for the agent."""
        if self._wrong is None:
            text = editable(self._content, str(self._approval.get("content_type", "")))
            self.app.push_screen(EditScreen(text), self._denied)

    def action_hex(self) -> None:
        """The bytes as text or in hexadecimal."""
        self._hex = not self._hex
        self.redraw()

    def action_leave(self) -> None:
        """Decide later."""
        self.dismiss(None)


class EditScreen(ModalScreen[str | None]):
    """The person's wording of what should have been asked. Closes with the note for the agent, or None."""

    HELP = (
        "Word it as you would have it. ctrl+s denies what waits and tells the agent your words;\n"
        "esc goes back to the question."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "send", "deny, with these words", priority=True),
        Binding("escape", "leave", "back", priority=True),
    ]
    DEFAULT_CSS = """
    EditScreen { background: $background; }
    EditScreen > Static { width: 100%; height: auto; background: $panel; color: $text; padding: 0 1; }
    EditScreen > TextArea { height: 1fr; border: none; }
    """
    LEAD = "not like this; I would have it so:\n"

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(
            "What waits cannot be changed. ctrl+s DENIES it and tells the agent your words;\n"
            "what it then asks comes to you anew.   ctrl+s deny with these words · esc back",
            markup=False,
        )
        yield TextArea(self._text)
        yield Static("", id="edit-foot", markup=False)

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()

    def action_send(self) -> None:
        """Say no, and these words."""
        note = self.LEAD + self.query_one(TextArea).text.strip()
        if len(note) > held.MAX_NOTE_CHARS:
            over = len(note) - held.MAX_NOTE_CHARS
            self.query_one("#edit-foot", Static).update(
                f"{over} characters too many, {held.MAX_NOTE_CHARS} is the most; nothing was sent"
            )
            return
        self.dismiss(note)

    def action_leave(self) -> None:
        """Back to the question."""
        self.dismiss(None)


def editable(content: bytes, content_type: str) -> str:
    """The text of held bytes as a person would edit it: of a mail what it says, else all of it; escaped, so
    that what is typed around it cannot be reordered or hidden by it."""
    text = content.decode("utf-8", "replace")
    if content_type.startswith(_MAIL):
        import email
        import email.policy

        message = email.message_from_bytes(content, policy=email.policy.default)
        plain = message.get_body(("plain",))
        if plain is not None:
            raw = plain.get_payload(decode=True)
            text = (raw if isinstance(raw, bytes) else b"").decode("utf-8", "replace")
    return "\n".join(visible(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))


def _sentence(words: str, width: int) -> list[str]:
    from runloop.escape import fold

    return fold("  ! ", words, width)

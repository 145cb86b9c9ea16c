"""Inbox: what waits for a person, of all runs, and what became of what this run asked.

Knows: rows, the summary beside them, the countdown of a yes that can still be taken back, and which screen a
key opens. A decision is made on that screen alone (``screens.approval``). Looking at the past shows what was
asked then, and decides nothing. Does not know: how a decision is sent (``Desk``), or whether it holds.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.document import Document
from agtop.model.inbox import Item, items, past_items, risks, standing, waiting
from agtop.panes.pane import View
from agtop.panes.rows import Rows
from agtop.panes.words import clipped
from agtop.screens.answer import Answer, AnswerScreen
from agtop.screens.approval import ApprovalScreen, Decision
from agtop.screens.meant import steady_ms
from agtop.screens.reading import painted
from runloop.errors import RunloopError
from runloop.escape import columns_of, visible
from runloop.quantities import ago, moment

__all__ = ["InboxPane"]

WIDE = 120
"""From so many columns on the summary stands beside the list."""
COUNTDOWN_S = 0.5


class InboxPane(Rows):
    """The rows, and what the selected one is about."""

    TITLE = "Inbox"
    LIST = "#inbox-rows"
    HELP = (
        "What agents may not do without you, and what they ask you. enter, a or d opens it: everything\n"
        "that would happen is shown there, and only there a key says yes or no. After a yes there is a\n"
        "short time in which u takes it back. Below stands what the run you look at has asked before."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,a", "open", "read and decide"),
        Binding("d", "deny", "read and deny"),
        Binding("e", "edit", "deny with your wording"),
        Binding("u", "undo", "take a yes back"),
        Binding("o", "run", "look at its run"),
    ]
    DEFAULT_CSS = """
    InboxPane { layout: vertical; }
    InboxPane > #inbox-head { height: 1; }
    InboxPane > #inbox-body { height: 1fr; layout: vertical; }
    InboxPane #inbox-rows { height: 1fr; min-height: 3; }
    InboxPane #inbox-about { height: 1fr; border-top: solid $primary; }
    InboxPane.-wide > #inbox-body { layout: horizontal; }
    InboxPane.-wide #inbox-rows { width: 3fr; }
    InboxPane.-wide #inbox-about { width: 2fr; border-top: none; border-left: solid $primary; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._items: list[Item] = []
        self._opening = False

    def compose(self) -> ComposeResult:
        yield Static("", id="inbox-head", markup=False)
        with Container(id="inbox-body"):
            yield Lines(id="inbox-rows")
            yield Lines(cursor=False, id="inbox-about")

    def on_mount(self) -> None:
        self.lines.follows = False
        self.set_interval(COUNTDOWN_S, self._count_down)

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, view: View) -> None:
        super().show(view)
        selected = self._item
        mine = [] if view.run is None else past_items(view.run)
        if view.live:
            now = items(view.approvals, view.questions)
            names = {item.name for item in now}
            self._items = [*now, *(item for item in mine if item.name not in names and not item.open)]
        else:
            self._items = mine
        if selected is not None:  # the row that is read stays selected when rows above it come and go
            at = next((place for place, item in enumerate(self._items) if item.name == selected.name), None)
            if at is not None:
                self.lines.cursor = at
        self.lines.follows = False
        self.lines.set_rows(len(self._items), self._row)
        self._show_head(view)
        self._show_about()

    def _count_down(self) -> None:
        """Seconds that are left, while there are any on the screen."""
        if not self.display or self.view is None:
            return
        now = self.cockpit.now_ms()
        if any(item.undoable(now) or 0 <= now - item.leaves_ms < 2_000 for item in self._items):
            self.lines.refresh()
            self._show_about()

    @property
    def _item(self) -> Item | None:
        return self._items[self.lines.cursor] if self._items else None

    def _show_head(self, view: View) -> None:
        number = waiting(self._items)
        if not view.live:
            words = "the past: what this run had asked by then; nothing can be decided here"
        elif view.link.how == "recorded":
            words = "from the record: there is nobody to tell a decision"
        elif number:
            words = "one thing waits for you" if number == 1 else f"{number} things wait for you"
        else:
            words = "nothing waits for you"
        self.query_one("#inbox-head", Static).update(Text(" " + words, "bold", no_wrap=True))

    def _row(self, number: int, width: int) -> Text:
        item = self._items[number]
        now = self.cockpit.now_ms() if self.view is not None and self.view.live else 0
        stands = standing(item, now)
        mark = {"approval": "!", "question": "?"}[item.kind] if item.open else " "
        if self.view is not None and self.view.plain:
            kind = "asks leave to" if item.kind == "approval" else "asks you"
            return Text(
                clipped(f"{stands}: {visible(item.who)} {kind}: {visible(item.what)}", width),
                no_wrap=True,
                end="",
            )
        warning = colored(self.app.theme_variables, "warning", bold=True)
        style = Style(bold=True) if item.open else warning if item.undoable(now) else Style(dim=True)
        text = Text(no_wrap=True, end="")
        text.append(f"{mark} ", warning)
        stands = clipped(stands, 20)
        room = max(10, width - text.cell_len - 21)
        who = clipped(visible(item.who), 14) if width >= 60 else ""
        what = clipped((f"{who}: " if who else "") + visible(item.what), room)
        text.append(what + " " * max(0, room - columns_of(what)) + " ", style)
        return text.append(f"{stands:>20}", style)

    def _show_about(self) -> None:
        lines, item = self.query_one("#inbox-about", Lines), self._item
        if item is None or not lines.columns:  # a pane that is about to be seen has none yet
            lines.set_rows(0, lambda _number, _width: Text(""))
            return
        made = self._about(item, max(20, lines.columns))
        lines.set_rows(made.count, lambda number, _: painted(made.row(number), self.app.theme_variables))

    def _about(self, item: Item, width: int) -> Document:
        """A few words on the selected row; the whole of it is on the screen that decides."""
        made = Document(width)
        now = self.cockpit.now_ms() if self.view is not None and self.view.live else 0
        if item.undoable(now):
            made.head(f"u takes it back: {standing(item, now)}", "note")
        made.field("asked by", item.who + (f", node {item.node}" if item.node else ""))
        if item.run:
            made.field("run", self._named_run(item.run))
        made.field("what", item.what)
        if item.choices:
            made.field("choices", " / ".join(item.choices))
        made.field("stands", standing(item, now))
        made.field(
            "asked",
            moment(item.asked_ms) + (f", {ago(now - item.asked_ms)} ago" if now > item.asked_ms else ""),
        )
        if item.note:
            made.field("note", item.note)
        if item.open and item.kind == "approval" and (held := self._held(item)) is not None:
            action = held["action"]
            if action.get("recipients"):
                made.field("recipients", ", ".join(map(str, action["recipients"])))
            made.field("leaves to", str(action.get("resource", "?")))
            for risk in risks(held):
                made.head(f"! {risk}", "note")
        made.field("named", item.name)
        if item.open and now:
            words = "enter: read everything, then decide" if item.kind == "approval" else "enter: answer"
            made.head(words, "rule")
        return made

    def _held(self, item: Item) -> dict[str, Any] | None:
        """The approval of a row, as the list of what waits has it."""
        found = () if self.view is None else self.view.approvals
        return next((one for one in found if one["approval"] == item.name), None)

    def _named_run(self, run: str) -> str:
        found = () if self.view is None else self.view.runs
        opening = next((row.opening for row in found if row.run == run), "")
        return f"{opening} {run[:8]}".strip()

    # --- keys that look ---------------------------------------------------------------------------

    def moved(self) -> None:
        self._show_about()

    def action_run(self) -> None:
        """Look at the run that asks."""
        if (item := self._item) is not None and item.run:
            self.cockpit.open_run(item.run)

    # --- keys that open a screen to decide on -------------------------------------------------------

    def action_open(self) -> None:
        """Everything about it, and the keys that decide."""
        self._open("")

    def action_deny(self) -> None:
        """The same, and then the question for a reason."""
        self._open("deny")

    def action_edit(self) -> None:
        """The same, and then the person's wording."""
        self._open("edit")

    def _open(self, then: str) -> None:
        item = self._item
        if item is None or self._opening:
            return
        if self.view is not None and not self.view.live:
            self.cockpit.say("this is the past; decide on what waits now (> goes there)", wrong=True)
        elif not item.open:
            self.cockpit.say(f"it waits for nobody: {standing(item, 0)}", wrong=True)
        else:
            self._opening = True  # a second key does not open a second screen
            asked = self._ask_approval(item, then) if item.kind == "approval" else self._ask_question(item)
            self.run_worker(asked, group="inbox", exit_on_error=False)

    async def _ask_approval(self, item: Item, then: str) -> None:
        try:
            approval = await self.desk.approval(item.name)
        except RunloopError as error:
            self._say(error)
            return
        finally:
            self._opening = False
        screen = ApprovalScreen(approval, steady_ms)
        self.app.push_screen(screen, lambda decision: self._decided(approval, decision))
        if then:
            self.call_after_refresh(getattr(screen, f"action_{then}"))

    def _decided(self, approval: dict[str, Any], decision: Decision | None) -> None:
        if decision is None:
            return
        name = approval["approval"]
        done = (
            f"{name} is denied"
            if decision.word == "deny"
            else f"{name} is approved; u takes it back while it can"
        )
        self.order(self.desk.decide(approval, decision.word, decision.note, decision.confirm), done)

    async def _ask_question(self, item: Item) -> None:
        try:
            found = await self.desk.question(item.name)
        except RunloopError as error:
            self._say(error)
            return
        finally:
            self._opening = False
        question = str(found.get("question") or "its agent waits for a word")
        choices = tuple(map(str, found.get("choices") or ()))
        self.app.push_screen(
            AnswerScreen(item, question, choices, steady_ms), lambda answer: self._answered(item, answer)
        )

    def _answered(self, item: Item, answer: Answer | None) -> None:
        if answer is not None:
            self.order(self.desk.answer(item.name, answer.value), f"{item.name} is answered")

    def action_undo(self) -> None:
        """Take a yes back, at once: this way round there is nothing to confirm."""
        item = self._item
        if item is None or self.view is None:
            return
        if not item.undoable(self.cockpit.now_ms()):
            self.cockpit.say("there is nothing to take back: only a yes that has not left yet", wrong=True)
            return
        if (found := self._held(item)) is not None:
            self.order(
                self.desk.decide(found, "undo", "taken back in the cockpit"), f"{item.name} is taken back"
            )

    def _say(self, error: RunloopError) -> None:
        self.cockpit.say(error.message + (f"; {error.hint}" if error.hint else ""), wrong=True)

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "-wide")

    def on_lines_resized(self) -> None:
        """What the item is about is set in the columns that are there; it was drawn before they were."""
        if self.view is not None:
            self._show_about()

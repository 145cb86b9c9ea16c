"""Log: the facts of the run, one line each, as they come or as they came.

Knows: how a line is drawn, which keys filter, search and stay. Does not know: what a line says
(``model.line``). Only lines on the screen are made; a filter looks through a long run in pieces, and says
how far it is.
"""

from __future__ import annotations

import time
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.facts import Fact
from agtop.model.line import Filter, Matches, line_of
from agtop.model.timeline import Timeline
from agtop.panes.pane import View
from agtop.panes.rows import AT_ONCE, Rows, seek
from agtop.panes.words import clipped
from agtop.screens.hop import HopScreen
from runloop.escape import columns_of, visible

__all__ = ["LogPane"]

NODE = 14
"""Columns of a node's name."""
KIND_FROM, KIND = 110, 20
"""Columns from which on there is one for the kind, and how wide it is."""


class LogPane(Rows):
    """The lines, and above them what is filtered and searched, where anything is."""

    TITLE = "Log"
    LIST = "#log-rows"
    HELP = (
        "One line for each fact, the newest below: the time since the run began, the node, what happened.\n"
        "While the cursor is on the last line, lines come as they happen. Move up to read in peace; space\n"
        "stops the whole cockpit at this moment: what comes meanwhile is kept, and counted below.\n"
        "A filter is words that must be in a line, or -word for those that must not."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "everything the fact says, and its bytes"),
        Binding("full_stop", "here", "all panes here"),
        Binding("slash", "ask('filter')", "show only lines with these words"),
        Binding("s", "ask('search')", "search"),
        Binding("n", "again(1)", "next hit"),
        Binding("N", "again(-1)", "previous hit"),
        Binding("o", "only", "only lines of this node; again for all"),
        Binding("v", "minor", "hide or show the machinery's own lines"),
        Binding("t", "clock", "times of day, or since the run began"),
        Binding("escape", "clear", "no filter, no search"),
    ]
    DEFAULT_CSS = """
    LogPane { layout: vertical; }
    LogPane > #log-head { height: 1; color: $accent; display: none; }
    LogPane > Input { height: 1; border: none; padding: 0 1; background: $panel; display: none; }
    LogPane > Input:focus { border: none; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._matches: Matches | None = None
        self._typed = ""
        self._minor = True
        self._sought = ""
        self._clock = False
        self._asking = ""
        self._seen: tuple[bool, int] = (True, 0)
        self._scanning = False

    def compose(self) -> ComposeResult:
        yield Static("", id="log-head", markup=False)
        yield Lines(id="log-rows")
        yield Input(id="log-input")

    # --- drawing ----------------------------------------------------------------------------------

    def show(self, view: View) -> None:
        super().show(view)
        timeline = view.timeline
        if timeline is None:
            self.lines.set_rows(0, lambda _number, _width: Text(""))
            return
        matches = self._of(timeline)
        if (view.live, view.index) != self._seen and not view.live:
            self.lines.follows = True  # somebody moved the time: its last line is where they are
        self._seen = (view.live, view.index)
        if not matches.scan(AT_ONCE):
            self._scan_on()
        self.lines.set_rows(matches.count(view.index), self._row)
        self._show_head(view, matches)

    def _of(self, timeline: Timeline) -> Matches:
        wanted = Filter.parse(self._typed, minor=self._minor)
        if self._matches is None or self._matches.timeline is not timeline or self._matches.filter != wanted:
            if self._matches is None or self._matches.timeline is not timeline:
                self.lines.follows = True
            self._matches = Matches(timeline, wanted)
        return self._matches

    def _scan_on(self) -> None:
        """Go on looking through the run, a piece at a time."""
        if self._scanning:
            return

        def on() -> None:
            self._scanning = False
            if self.view is not None and self.is_attached:
                self.show(self.view)

        self._scanning = True
        self.set_timer(0.005, on)

    def _show_head(self, view: View, matches: Matches) -> None:
        said = [f"filter: {self._typed}"] if self._typed else []
        said += ["the machinery's own lines are hidden (v)"] if not self._minor else []
        said += [f"search: {self._sought} (n, N)"] if self._sought else []
        if self._typed or not self._minor:
            said.append(f"{matches.count(view.index)} of {view.index} lines")
        if matches.left:
            said.append(f"looking through {matches.left} more")
        head = self.query_one("#log-head", Static)
        head.display = bool(said)
        head.update(visible("  ·  ".join(said)) + ("  ·  esc shows all" if said else ""))

    def _row(self, number: int, width: int) -> Text:
        view, matches = self.view, self._matches
        if view is None or matches is None or number >= matches.count(view.index):
            return Text("")
        fact = matches.timeline.fact(matches.place(number))
        line = line_of(fact)
        began = (view.run.started_ms if view.run is not None else None) or fact.ts_ms
        at = _of_day(fact.ts_ms) if self._clock else f"{(fact.ts_ms - began) / 1000:.3f}"
        if view.plain:
            return Text(clipped(visible(f"{at} {line.node}: {line.words}"), width), no_wrap=True, end="")
        text = Text(no_wrap=True, end="")
        text.append(f"{at:>12}  ", self._tone("dim"))
        node = clipped(visible(line.node), NODE)
        text.append(node + " " * (NODE - columns_of(node)), self._tone("dim" if line.minor else "primary"))
        if width >= KIND_FROM:
            text.append(f"  {clipped(visible(fact.kind), KIND):<{KIND}}", self._tone("dim"))
        text.append("  ")
        room = max(1, width - text.cell_len)
        words = Text(clipped(visible(line.words), room), self._tone(line.tone) if line.tone else "", end="")
        if self._sought:
            words.highlight_words([self._sought], Style(reverse=True), case_sensitive=False)
        return text.append_text(words)

    def _tone(self, tone: str) -> Style:
        return colored(self.app.theme_variables, tone)

    # --- moving -----------------------------------------------------------------------------------

    def _fact(self) -> Fact | None:
        matches, row = self._matches, self.lines.cursor
        if matches is None or self.view is None or row >= matches.count(self.view.index):
            return None
        return matches.timeline.fact(matches.place(row))

    def action_details(self) -> None:
        fact = self._fact()
        if fact is not None:
            self.app.push_screen(HopScreen(self.desk, fact), self._went)

    def _went(self, event: int | None) -> None:
        if event is not None:
            self.cockpit.go_to_event(event)

    def action_here(self) -> None:
        fact = self._fact()
        if fact is not None:
            self.cockpit.go_to_event(fact.id)

    # --- filter and search ------------------------------------------------------------------------

    def action_ask(self, what: str) -> None:
        field = self.query_one("#log-input", Input)
        self._asking = what
        field.placeholder = "words to show; -word to hide" if what == "filter" else "text to search"
        field.value = self._typed if what == "filter" else ""
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self._asking == "filter" and event.input.display:
            self._typed = event.value
            self._again()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._shut_input()
        if self._asking == "search":
            self._sought = event.value.strip()
            if self._sought:
                self.action_again(-1)
        self._again()

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self.query_one("#log-input", Input).has_focus:
            event.stop()
            event.prevent_default()
            if self._asking == "filter":
                self._typed = ""
            self._shut_input()
            self._again()

    def _shut_input(self) -> None:
        self.query_one("#log-input", Input).display = False
        self.focus()

    def _again(self) -> None:
        if self.view is not None:
            self.show(self.view)

    def action_clear(self) -> None:
        self._typed, self._sought, self._minor = "", "", True
        self.lines.follows = True
        self._again()

    def action_only(self) -> None:
        fact = self._fact()
        node = "" if fact is None else line_of(fact).node
        self._typed = "" if self._typed or not node else node
        self._again()

    def action_minor(self) -> None:
        self._minor = not self._minor
        self._again()

    def action_clock(self) -> None:
        self._clock = not self._clock
        self._again()

    def action_again(self, by: int) -> None:
        if not self._sought:
            self.cockpit.say("nothing is searched; s asks for what")
            return
        self.run_worker(self._seek(self._sought.lower(), by), group="log-search", exclusive=True)

    async def _seek(self, sought: str, by: int) -> None:
        """Move the cursor to the next line with the text, or the one before; keys go on meanwhile."""
        matches = self._matches
        if matches is None or self.view is None:
            return

        def has(row: int) -> bool:
            line = line_of(matches.timeline.fact(matches.place(row)))
            return sought in f"{line.node} {line.words}".lower()

        at = await seek(matches.count(self.view.index), self.lines.cursor, by, has)
        if at is None:
            self.cockpit.say(f"no line has {sought}")
        else:
            self.lines.place(at)


def _of_day(ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03}"

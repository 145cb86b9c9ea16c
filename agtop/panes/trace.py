"""Trace: the ladder of a run, every crossing between its parties; or its tree of spans.

Knows: how rungs and spans become rows, and which keys do what. Does not know: what is a crossing
(``runloop.ladder``) or a span (``runloop.spans``), or which of a run's facts count (``View.index``).
"""

from __future__ import annotations

import time
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.facts import Fact
from agtop.model.ladder import GAP_MS, Ladder, histogram, window
from agtop.model.timeline import Timeline
from agtop.model.tree import SpanTree, TreeRow
from agtop.panes.pane import View
from agtop.panes.rows import Searched, SearchLine
from agtop.panes.rungs import TIME, WEIGHT, WIDE, rung_row, rung_words, seconds, span_row, span_words, took
from agtop.panes.words import clipped
from agtop.screens.hop import HopScreen
from runloop.escape import columns_of, visible
from runloop.ladder import Lane, Rung
from runloop.quantities import ago, size

__all__ = ["TracePane"]

LEAST_LANE, MOST_LANE = 5, 12
LEAST_WORDS = 20
"""Columns that are left for what a rung says, however many lanes there are."""
STAGGERED = 9
"""Lanes of fewer columns have their names in two rows."""
QUICK_S = 0.02
"""A tree that is made in less is made anew whenever there is a new fact."""
_BLOCKS = " ▁▂▃▄▅▆▇█"


class TracePane(Searched):
    """The ladder, or with ``t`` the tree."""

    TITLE = "Trace"
    LIST = "#trace-rows"
    HELP = (
        "Each row is one crossing, from ● to the arrow, between the columns of two parties.\n"
        "Broken lines stand where nothing crossed for a second or more. The bars on top show how much\n"
        "crossed when; the mark below them is where you are. The tree shows what lies in what, and how long."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "turn", "ladder or tree"),
        Binding("enter", "details", "details and bytes"),
        Binding("z", "fold", "open or fold a span"),
        Binding("v", "follow_node", "look at this node"),
        Binding("full_stop", "here", "all panes here"),
    ]
    DEFAULT_CSS = """
    TracePane { layout: vertical; }
    TracePane > #trace-head { height: auto; max-height: 4; }
    TracePane > #trace-foot { height: 2; background: $panel; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._of: Timeline | None = None
        self._ladder: Ladder | None = None
        self._tree: SpanTree | None = None
        self._as_tree = False
        self._toggled: set[str] = set()
        self._rows: list[TreeRow] = []
        self._rows_of: tuple[int, int] | None = None
        self._rest_until = 0.0
        self._lanes: tuple[list[Lane], int] = ([], MOST_LANE)

    def compose(self) -> ComposeResult:
        yield Static("", id="trace-head", markup=False)
        yield Lines(id="trace-rows")
        yield Static("", id="trace-foot", markup=False)
        yield SearchLine()

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, view: View) -> None:
        super().show(view)
        if view.timeline is not self._of:
            self._of = view.timeline
            self._ladder = None if view.timeline is None else Ladder(view.timeline)
            self._tree = None if view.timeline is None else SpanTree(view.timeline)
            self._toggled, self._rows_of = set(), None
            self.lines.cursor, self.lines.follows = 0, True
        if view.timeline is None or self._ladder is None or self._tree is None:
            self.lines.set_rows(0, lambda _number, _width: Text(""))
            self.query_one("#trace-head", Static).update(Text("no run is looked at; : finds one"))
            return
        index = self._tree if self._as_tree else self._ladder
        if not index.read(view.index):
            self.set_timer(0.001, self._again)  # the rest in the next breath: keys come first
        if self._as_tree:
            self._show_tree(view)
        else:
            self._show_ladder(view)
        self._show_surroundings()

    def _again(self) -> None:
        if self.view is not None and self.display:
            self.show(self.view)

    def _show_ladder(self, view: View) -> None:
        assert self._ladder is not None
        self.lines.set_rows(self._ladder.count(view.index), self._row)
        self._choose_lanes()

    def _choose_lanes(self) -> None:
        if self._ladder is None or self.view is None:
            return
        width = self.lines.columns - 1 - TIME - (WEIGHT if self.lines.columns > WIDE else 0)
        room = width - max(LEAST_WORDS, width * 2 // 5)
        lanes = self._ladder.lanes(self.view.index)
        chosen = window(lanes, room, self._selected_rung(), least=LEAST_LANE, most=MOST_LANE)
        if chosen != self._lanes:
            self._lanes = chosen
            self.lines.refresh()

    def _show_tree(self, view: View) -> None:
        assert self._tree is not None
        wanted, now = (view.index, len(self._toggled)), time.monotonic()
        if self._rows_of != wanted and now >= self._rest_until:
            self._rows = self._tree.rows(view.index, self._toggled)
            self._rows_of = wanted
            # A tree of thousands of rows takes its time: no more than a fifth of all there is.
            took = time.monotonic() - now
            self._rest_until = now + 5 * took if took > QUICK_S else 0.0
        elif self._rows_of != wanted:
            self.set_timer(self._rest_until - now, self._again)
        self.lines.set_rows(len(self._rows), self._row)

    def _colored(self, tone: str) -> Style:
        return colored(self.app.theme_variables, tone)

    # --- rows ---------------------------------------------------------------------------------------

    def _row(self, number: int, width: int) -> Text:
        plain = self.view is not None and self.view.plain
        if self._as_tree:
            row = self._rows[number]
            if plain:
                return Text(clipped(span_words(row, self._now()), width), no_wrap=True, end="")
            return span_row(row, self._now(), width, self.app.theme_variables)
        ladder = self._ladder
        assert ladder is not None
        rung, at_ms = ladder.rung(number), ladder.at_ms(number)
        if plain:
            return Text(clipped(rung_words(rung, at_ms), width), no_wrap=True, end="")
        silent = ladder.silence_ms(number) >= GAP_MS
        return rung_row(rung, at_ms, self._lanes, width, self.app.theme_variables, silent=silent)

    def _now(self) -> int:
        """Milliseconds since the run began, at the moment that is looked at."""
        run = None if self.view is None else self.view.run
        if run is None or run.started_ms is None:
            return 0
        return max(run.at_ms, self.view.now_ms if self.view else 0) - run.started_ms

    # --- around the rows --------------------------------------------------------------------------

    def _show_surroundings(self) -> None:
        view = self.view
        head, foot = self.query_one("#trace-head", Static), self.query_one("#trace-foot", Static)
        if view is None or self._ladder is None:
            return
        width = max(20, self.size.width - 1)
        if view.plain:
            head.update(Text(f"{self.lines.count} rows; row {self.lines.cursor + 1} is selected"))
        elif self._as_tree:
            head.update(self._axis(width, ""))
        else:
            head.update(self._axis(width, self._names()))
        foot.update(self._about(width))

    def _axis(self, width: int, below: str) -> Text:
        """How much crossed when, where the selected row is, and the names of the lanes."""
        assert self._ladder is not None and self.view is not None
        ladder, count = self._ladder, self._ladder.count(self.view.index)
        text = Text(no_wrap=True, end="")
        if not count:
            return text
        total = self._now()
        left, right = "0 s ", f" {seconds(total)}"
        columns = max(10, width - len(left) - len(right) - 1)
        began = ladder.fact(0).ts_ms - ladder.at_ms(0)
        counts = histogram(ladder.times(count), began, began + total, columns)
        most = max([*counts, 1])
        bars = "".join(_BLOCKS[-(-number * (len(_BLOCKS) - 1) // most)] for number in counts)
        text.append(" " + left, "dim")
        text.append(bars, self._colored("primary"))
        text.append(right + "\n", "dim")
        at = self._selected_ms()
        spot = min(columns - 1, at * columns // max(1, total))
        text.append(" " * (len(left) + 1 + spot) + "▲", "bold")
        text.append(f" {seconds(at)}\n" if spot < columns - 12 else "\n", "bold")
        text.append(below, "bold")
        return text

    def _names(self) -> str:
        """The name of each lane above its line; where lanes are narrow, by turns in two rows."""
        lanes, each = self._lanes
        turns = 2 if each < STAGGERED else 1
        rows = []
        for turn in range(turns):
            row = ""
            for number in range(turn, len(lanes), turns):
                name = clipped(visible(lanes[number].name), each * turns - 1)
                middle = TIME + 1 + number * each + each // 2
                row += " " * max(0, middle - columns_of(name) // 2 - columns_of(row)) + name
            rows.append(row)
        return "\n".join(rows)

    def _about(self, width: int) -> Text:
        """The selected row in words."""
        text = Text(no_wrap=True, end="")
        if self._as_tree and self._rows:
            row = self._rows[self.lines.cursor]
            began = f"began {seconds(row.span.start_ms)}, {took(row, self._now())}"
            orphan = f"; inside {row.span.parent}, which is not on record" if row.orphan else ""
            first, second = f"#{row.span.event} {row.span.kind} {row.span.name}", f"{began}{orphan}"
        elif not self._as_tree and (rung := self._selected_rung()) is not None and self._ladder is not None:
            number = self.lines.cursor
            to = f" -> {rung.target.name}" if rung.target.name else ""
            after = self._ladder.silence_ms(number)
            weight = f", {size(rung.bytes)}" if rung.bytes else ""
            ends = f"{rung.source.name}{to}{weight}, {ago(after)} after the one before"
            first = f"#{rung.event} {rung.kind}  {ends}"
            second = rung.what
        else:
            first, second = "nothing has crossed yet", ""
        text.append(" " + clipped(visible(first), width - 1) + "\n", "bold")
        text.append(" " + clipped(visible(second), width - 1))
        return text

    def _selected_ms(self) -> int:
        if self._as_tree:
            return self._rows[self.lines.cursor].span.start_ms if self._rows else 0
        return self._ladder.at_ms(self.lines.cursor) if self._ladder and self.lines.count else 0

    def _selected_rung(self) -> Rung | None:
        if self._ladder is None or self._as_tree or not self.lines.count:
            return None
        return self._ladder.rung(self.lines.cursor)

    def _selected_fact(self) -> Fact | None:
        if self._ladder is None or not self.lines.count or self._of is None:
            return None
        if not self._as_tree:
            return self._ladder.fact(self.lines.cursor)
        place = self._of.place_of(self._rows[self.lines.cursor].span.event)
        return None if place is None else self._of.fact(place)

    # --- keys -------------------------------------------------------------------------------------

    def moved(self) -> None:
        if not self._as_tree:
            self._choose_lanes()
        self._show_surroundings()

    def said(self, row: int) -> str:
        """A row as it is told in words."""
        if self._as_tree:
            return span_words(self._rows[row], self._now())
        ladder = self._ladder
        return "" if ladder is None else f"{ladder.fact(row).kind} {rung_words(ladder.rung(row), 0)}"

    def action_turn(self) -> None:
        """From the ladder to the tree, or back, at the same fact where it has a row."""
        fact = self._selected_fact()
        self._as_tree = not self._as_tree
        if self.view is not None:
            self.show(self.view)
        if fact is not None:
            self._select_event(fact.id)

    def _select_event(self, event: int) -> None:
        """The row of a fact, or the last one before it."""
        if self._as_tree:
            earlier = [n for n, row in enumerate(self._rows) if row.span.event <= event]
            best = max(earlier, key=lambda n: self._rows[n].span.event, default=0)
        elif self._of is not None and self._ladder is not None:
            place = self._of.place_of(event)
            best = 0 if place is None else max(0, self._ladder.count(place + 1) - 1)
        else:
            return
        self.lines.place(best)
        self.moved()

    def action_details(self) -> None:
        """The fact of the row in full, with its bytes."""
        fact = self._selected_fact()
        if fact is not None:
            self.app.push_screen(HopScreen(self.desk, fact), self._go)

    def _go(self, event: int | None) -> None:
        if event is not None:
            self.cockpit.go_to_event(event)

    def action_here(self) -> None:
        """Have every pane show the moment right after this row."""
        fact = self._selected_fact()
        if fact is not None:
            self.cockpit.go_to_event(fact.id)

    def action_fold(self) -> None:
        """Open what is folded in the tree, or fold it."""
        if self._as_tree and self._rows and self.view is not None:
            self._toggled ^= {self._rows[self.lines.cursor].span.span}
            self._rows_of, self._rest_until = None, 0.0
            self.lines.follows = False
            self.show(self.view)

    def action_follow_node(self) -> None:
        """Select the node of this row in every pane."""
        fact = self._selected_fact()
        node = None if fact is None else fact.provenance.node or getattr(fact.payload, "node", None)
        if node:
            self.cockpit.select_node(str(node))

    def on_resize(self) -> None:
        if self.view is not None:
            self.show(self.view)

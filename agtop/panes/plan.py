"""Plan: the graph of the run, and how each node of it stands.

Knows: how a row of the layout is drawn and which keys do what. Does not know: how lanes run
(``model.plan``), or what a state is made of.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from agtop.lines import Lines
from agtop.looks import SIGNS, WORDS, colored, span, tone_of
from agtop.model.line import Line, line_of
from agtop.model.plan import MARK, Layout, Place, bars, details, note, sentence, took
from agtop.model.state import Graph, GraphNode, NodeState, RunState
from agtop.panes.pane import View
from agtop.panes.rows import Searched, SearchLine
from agtop.panes.words import clipped
from agtop.screens.node import NodeScreen
from agtop.screens.reading import painted
from runloop.escape import columns_of, visible
from runloop.ids import child_run_id
from runloop.quantities import dollars

__all__ = ["PlanPane"]

TALL = 34
"""Rows from which on there is room for what happened last below the graph."""
SIDE = 120
"""Columns from which on there is room for the details of a node beside the graph."""
MOST_NAME = 28
STATE, TOOK, COST = 10, 8, 10
COST_FROM = 72
"""Columns from which on there is one for costs, where there are any."""
BARS_FROM, MOST_BARS = 92, 48
"""Columns from which on there are bars of when a node was tried, and how many there are for them at most."""


class PlanPane(Searched):
    """Lanes on the left, a row for each node, details beside it where there is room."""

    TITLE = "Plan"
    LIST = "#plan-rows"
    HELP = (
        "Each row is a node; lines lead to the nodes that wait for it. ○ to do, ● running, ◆ needs you,\n"
        "✔ done, ✘ failed, – skipped, ⊘ cancelled. Behind it stands how it goes, how long it took, what it\n"
        "cost, and what matters most. A node that works through a list unfolds into its items. A node that\n"
        "is an opening of its own is a run of its own: i goes into it, backspace comes back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "everything about the node"),
        Binding("o", "unfold", "show or hide the items of a mapped node"),
        Binding("i", "inside", "look at the run inside the node"),
        Binding("w", "waiting", "to the next node that needs you"),
    ]
    DEFAULT_CSS = """
    PlanPane > #plan-head { height: 1; color: $text-muted; }
    PlanPane > Horizontal { height: 1fr; }
    PlanPane #plan-rows { width: 1fr; }
    PlanPane #plan-side { width: 48; border-left: solid $panel; padding: 0 1; display: none; }
    PlanPane > #plan-tail { height: 30%; border-top: solid $panel; display: none; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._layout_ = Layout(Graph(), {})
        self._declared: dict[str, GraphNode] = {}
        self._unfolded: set[str] = set()
        self._run: str | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="plan-head", markup=False)
        with Horizontal():
            yield Lines(id="plan-rows")
            yield Lines(cursor=False, id="plan-side")
        yield Lines(cursor=False, id="plan-tail")
        yield SearchLine()

    # --- drawing ----------------------------------------------------------------------------------

    def show(self, view: View) -> None:
        super().show(view)
        lines = self.lines
        lines.follows = False
        run = view.run
        if run is None or not run.graph.nodes:
            lines.set_rows(0, lambda _number, _width: Text(""))
            self.query_one("#plan-head", Static).update("")
            return
        self._lay_out(run, plain=view.plain)
        lines.set_rows(len(self._layout_.rows), self._row)
        if self._layout_.rows[lines.cursor].node is None:
            lines.place(self._layout_.next(lines.cursor, -1))
        self.query_one("#plan-head", Static).update(self._head(lines.columns, plain=view.plain))
        self._show_side(run)
        self._show_tail(view)

    def on_lines_resized(self) -> None:
        """Details that come or go take columns from the rows; all was drawn before they did."""
        if self.view is not None:
            self.show(self.view)

    def _lay_out(self, run: RunState, *, plain: bool) -> None:
        if run.run != self._run:
            self._run, self._unfolded = run.run, set()
            self.lines.cursor = 0
        items = {name: run.nodes[name].items or 0 for name in self._unfolded if name in run.nodes}
        now = self._layout_
        if now.graph is not run.graph or now.items != items or now.plain != plain:
            kept = self.node
            self._layout_ = Layout(run.graph, items, plain=plain)
            self._declared = {node.id: node for node in run.graph.nodes}
            if kept is not None and (row := self._layout_.find(kept)) is not None:
                self.lines.cursor = row

    def _show_side(self, run: RunState) -> None:
        side = self.query_one("#plan-side", Lines)
        side.display = self.size.width >= SIDE and not (self.view and self.view.plain)
        if side.display and self.node is not None:
            rows = details(run, self.node, max(20, side.columns))
            side.set_rows(len(rows), lambda number, _: painted(rows[number]))

    def _show_tail(self, view: View) -> None:
        """The newest lines of the log; one row is the border's."""
        tail, timeline = self.query_one("#plan-tail", Lines), view.timeline
        tail.display = self.size.height >= TALL and not view.plain and timeline is not None
        if tail.display and timeline is not None:
            facts = list(timeline.facts(max(0, view.index - self.size.height), view.index))
            lines = [(fact.ts_ms, line) for fact in facts if not (line := line_of(fact)).minor]
            lines = lines[-max(1, tail.size.height or self.size.height * 3 // 10 - 1) :]
            began = (view.run.started_ms if view.run is not None else None) or 0
            tail.set_rows(len(lines), lambda number, width: self._told(*lines[number], began, width))

    def _told(self, at_ms: int, line: Line, began: int, width: int) -> Text:
        text = Text(f" {(at_ms - began) / 1000:>9.3f}  ", self._tone("dim"), no_wrap=True, end="")
        node = clipped(visible(line.node), MOST_NAME // 2)
        text.append(f"{node}{' ' * (MOST_NAME // 2 - columns_of(node))}  ", self._tone("primary"))
        words = clipped(visible(line.words), max(1, width - text.cell_len))
        return text.append(words, self._tone(line.tone) if line.tone else "")

    def _head(self, width: int, *, plain: bool) -> str:
        if plain:
            return ""
        name, wide = min(MOST_NAME, self._layout_.named), self._layout_.wide
        cost = f"{'cost':>{COST}}" if self._costs(width) else ""
        when = f"  {'when':<{self._bars(width)}}" if self._bars(width) else ""
        return f" {'':<{wide}}  {'node':<{name}}  {'state':<{STATE}}{'took':>{TOOK}}{cost}{when}  what"

    def _costs(self, width: int) -> bool:
        run = None if self.view is None else self.view.run
        return width >= COST_FROM and run is not None and bool(run.spend.calls)

    def _bars(self, width: int) -> int:
        return 0 if width < BARS_FROM else min(MOST_BARS, (width - BARS_FROM) // 2 + 16)

    def _row(self, number: int, width: int) -> Text:
        view, place = self.view, self._layout_.rows[number]
        if view is None or view.run is None:
            return Text("")
        if place.node is None:
            return Text(place.lanes, style=self._tone(""), no_wrap=True, end="")
        node = view.run.nodes.get(place.node) or NodeState(id=place.node)
        declared = self._declared.get(place.node.partition("[")[0])
        if view.plain:
            word = WORDS.get(node.word, node.word)
            return Text(visible(sentence(view.run, declared, node, word, view.now_ms)), no_wrap=True, end="")
        text = self._lanes(place, node)
        text.append_text(self._cells(view, node, width))
        room = width - text.cell_len - 2
        if room > 4:
            said = visible(note(view.run, declared, node))
            tone = "warning" if node.word == "waiting" else "error" if node.word in _BAD else "dim"
            text.append("  " + clipped(said, room), self._tone(tone))
        return text

    def _lanes(self, place: Place, node: NodeState) -> Text:
        before, mark, after = place.lanes.partition(MARK)
        text = Text(no_wrap=True, end="")
        text.append(before, self._tone(""))
        if mark:
            text.append(SIGNS[node.word], self._tone(tone_of(node.word), bold=True))
        text.append(after.ljust(self._layout_.wide - len(before) - len(mark)) + "  ", self._tone(""))
        return text

    def _cells(self, view: View, node: NodeState, width: int) -> Text:
        assert view.run is not None
        most = min(MOST_NAME, self._layout_.named)
        name = clipped(visible(node.id), most)
        tone = self._tone(tone_of(node.word))
        text = Text(no_wrap=True, end="")
        text.append(name, Style(bold=node.word in ("running", "waiting"), dim=node.word == "pending"))
        text.append(" " * (most - columns_of(name)) + "  ")
        text.append(f"{WORDS.get(node.word, node.word):<{STATE}}", tone)
        lasted = took(view.run, node, view.now_ms)
        text.append(f"{'' if lasted is None else span(lasted):>{TOOK}}")
        if self._costs(width):
            cost = _cost(node) if node.spend.calls else ""
            text.append(f"{cost:>{COST}}")
        if room := self._bars(width):
            text.append("  ")
            text.append_text(self._bar(view.run, node, view.now_ms, room))
        return text

    def _bar(self, run: RunState, node: NodeState, now_ms: int, width: int) -> Text:
        cells, tones = [" "] * width, [""] * width
        for first, last, status in bars(run, node, now_ms, width):
            for column in range(first, last + 1):
                cells[column], tones[column] = "━", tone_of(status)
        text = Text(no_wrap=True, end="")
        for cell, tone in zip(cells, tones, strict=True):
            text.append(cell, self._tone(tone))
        return text

    def _tone(self, tone: str, *, bold: bool = False) -> Style:
        return colored(self.app.theme_variables, tone, bold=bold)

    # --- keys -------------------------------------------------------------------------------------

    @property
    def node(self) -> str | None:
        """The node below the cursor."""
        rows, at = self._layout_.rows, self.lines.cursor
        return rows[at].node if at < len(rows) else None

    def action_move(self, by: int) -> None:
        self._go(self._layout_.next(self.lines.cursor, by))

    def action_top(self) -> None:
        self.action_move(-len(self._layout_.rows))

    def action_bottom(self) -> None:
        self.action_move(len(self._layout_.rows))

    def said(self, row: int) -> str:
        """A node as it is told in words."""
        run, name = None if self.view is None else self.view.run, self._layout_.rows[row].node
        if run is None or name is None:
            return ""
        node = run.nodes.get(name) or NodeState(id=name)
        declared = self._declared.get(name.partition("[")[0])
        return f"{sentence(run, declared, node, WORDS.get(node.word, node.word), 0)} {node.agent} {node.use}"

    def found(self, row: int) -> None:
        self._go(row)

    def _go(self, row: int) -> None:
        self.lines.place(row)
        if self.view is not None and self.view.run is not None:
            self._show_side(self.view.run)
        self.cockpit.select_node(self.node)

    def action_details(self) -> None:
        if self.view is not None and self.view.run is not None and self.node is not None:
            self.app.push_screen(NodeScreen(self.view.run, self.node))

    def action_unfold(self) -> None:
        node = self.node
        run = None if self.view is None else self.view.run
        if node is None or run is None:
            return
        name = node.partition("[")[0]
        if name in self._unfolded:
            self._unfolded.discard(name)
        elif name in run.nodes and run.nodes[name].items:
            self._unfolded.add(name)
        else:
            self.cockpit.say(f"{name} has no items")
            return
        assert self.view is not None
        self.show(self.view)
        if (row := self._layout_.find(name)) is not None:
            self._go(row)

    def action_inside(self) -> None:
        node = self.node
        run = None if self.view is None else self.view.run
        if node is None or run is None:
            return
        state, declared = run.nodes.get(node), self._declared.get(node.partition("[")[0])
        if declared is None or not declared.nests or state is None or not state.attempts:
            more = "; o shows its items" if declared is not None and declared.mapped else ""
            self.cockpit.say(f"there is no run inside this node{more}")
            return
        self.cockpit.open_run(child_run_id(run.run, node, state.attempts[-1].attempt))

    def action_waiting(self) -> None:
        run = None if self.view is None else self.view.run
        rows = self._layout_.rows
        for step in range(1, len(rows) + 1):
            at = (self.lines.cursor + step) % len(rows)
            state = None if run is None else run.nodes.get(rows[at].node or "")
            if state is not None and state.word == "waiting":
                self._go(at)
                return
        self.cockpit.say("no node of this run waits for you")


def _cost(node: NodeState) -> str:
    """Money, or tokens where they cost none."""
    tokens = node.spend.input_tokens + node.spend.output_tokens
    return dollars(node.spend.micro_usd) if node.spend.micro_usd or tokens >= 1_000_000 else f"{tokens} tok"


_BAD = ("failed", "timed_out", "cancelled")

"""agtop: what every agent and the daemon use at this moment, and the keys that end what an agent does.

Knows: the order of the table, its filter, which key asks what before it orders anything. Does not know: what
is measured (the daemon), how a row looks (``figures``). The table is made anew when a new sample came or a
key asked for it, and only the rows on the screen are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.metrics import History
from agtop.panes.figures import Figures, Layout, layout
from agtop.panes.pane import View
from agtop.panes.rows import Rows
from agtop.panes.words import clipped
from agtop.screens.agent import AgentScreen
from agtop.screens.ask import ConfirmScreen, LineScreen
from runloop.escape import visible
from runloop.metrics import COLUMNS, column, matching, ordered

__all__ = ["MetricsPane"]

Row = Mapping[str, Any]

_ASKED = "asked for in the cockpit"
_SORTS = {
    "C": "cpu",
    "M": "rss",
    "T": "in",
    "E": "errors",
    "W": "waits",
    "F": "fuel",
    "D": "cost",
    "S": "state",
    "N": "name",
}
"""Key -> the column it sorts by."""
_KILL = (
    "Its attempts under way fail with guest.killed; the retry of their openings decides what follows.\n"
    "New attempts may begin: Q keeps an agent from running."
)
_RESTART = (
    "Each attempt under way goes on in a fresh process, from its record: what it has heard arrives at\n"
    "the same place, and nothing is sent twice."
)
_QUARANTINE = (
    "It is kept from running until you release it, across restarts and upgrades; what its attempts\n"
    "under way ask for is refused."
)


class MetricsPane(Rows):
    """The table of agents, the daemon above it, the selected agent below."""

    TITLE = "agtop"
    LIST = "#metrics-rows"
    NEEDS_METRICS = True
    HELP = (
        "What every agent uses now: processor time and memory of its processes, tokens, errors, work.\n"
        "Totals count from the start of the daemon, rates are of the last second.\n"
        "A capital letter sorts by a column, the same one again turns the order around.\n"
        "K ends what an agent does: its attempts fail, and the opening's retry decides. R lets each go on\n"
        "in a fresh process. Q keeps an agent from running, or lets it run again. All of them ask first."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "everything about it"),
        Binding("K", "kill", "kill what it does"),
        Binding("R", "restart", "restart its processes"),
        Binding("Q", "quarantine", "quarantine, or release"),
        Binding("slash", "filter", "only some"),
        Binding("escape", "all", "all again"),
        *(
            Binding(key, f"sort('{name}')", f"sort by {column(name).title.lower()}")
            for key, name in _SORTS.items()
        ),
        Binding("s", "next_sort", "sort by the next column"),
        Binding("o", "turn", "turn the order around"),
    ]
    DEFAULT_CSS = """
    MetricsPane { layout: vertical; }
    MetricsPane > #metrics-head { height: 2; }
    MetricsPane > #metrics-titles { height: 1; }
    MetricsPane > #metrics-rows { height: 1fr; min-height: 1; }
    MetricsPane > #metrics-about { height: 3; }
    MetricsPane > #metrics-filter { height: 1; border: none; padding: 0 1; display: none; }
    MetricsPane > #metrics-filter.-open { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._history = History()
        self._figures = Figures(self._history, lambda tone: colored(self.app.theme_variables, tone))
        self._shape: Layout = layout((), 80, plain=False)
        self._rows: Sequence[Row] = ()
        self._seen: tuple[object, ...] = ()
        self._selected: str | None = None
        """Agent the cursor stays on while the order changes; None: the cursor stays where it is."""
        self._by = column("cpu")
        self._turned = False
        self._words = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="metrics-head", markup=False)
        yield Static("", id="metrics-titles", markup=False)
        yield Lines(id="metrics-rows")
        yield Static("", id="metrics-about", markup=False)
        yield Input(placeholder="part of a name or a state", id="metrics-filter")

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, view: View) -> None:
        super().show(view)
        if self._sample is not None:
            self._history.take(self._sample)
        self._arrange()

    def on_resize(self, _: events.Resize) -> None:
        self._seen = ()
        self._arrange()

    @property
    def _sample(self) -> dict[str, Any] | None:
        """The newest sample; None while there is none."""
        metrics = None if self.view is None else self.view.metrics
        return metrics if metrics and "agents" in metrics else None

    @property
    def _plain(self) -> bool:
        return self.view is not None and self.view.plain

    @property
    def _here(self) -> Row | None:
        """The agent the cursor is on."""
        return self._rows[self.lines.cursor] if self._rows else None

    def _arrange(self) -> None:
        """Bring rows, order and cursor up to date; nothing is done when nothing has changed."""
        sample = self._sample
        mark = None if sample is None else (sample.get("sample"), sample.get("at_ms"))
        seen = (mark, self._words, self._by.name, self._turned, self._plain, self.size, self._trouble)
        if seen == self._seen:
            return
        self._seen = seen
        rows = () if sample is None else matching(sample["agents"], self._words)
        self._rows = ordered(rows, self._by, reverse=self._turned)
        lines = self.lines
        lines.follows = False
        if self._selected is not None:
            lines.cursor = next(
                (at for at, row in enumerate(self._rows) if row["agent"] == self._selected), lines.cursor
            )
        names = [str(row["agent"]) for row in self._rows]
        self._shape = layout(names, self.size.width - 2, plain=self._plain)
        lines.set_rows(len(self._rows), self._row)
        self.query_one("#metrics-head", Static).update(self._head())
        self.query_one("#metrics-titles", Static).update(self._titles())
        self._show_about()

    @property
    def _trouble(self) -> str | None:
        """Why there are no figures, or none that are of now."""
        view = self.view
        if view is None or view.link.how == "recorded":
            return "no daemon is looked at: what agents use is known only while one runs"
        if view.metrics is not None and "error" in view.metrics:
            return f"no figures: {view.metrics['error']}"
        if view.link.how == "gone":
            return "the daemon is gone: these figures are of before"
        return None if view.metrics is not None else "asking the daemon"

    # --- drawing ------------------------------------------------------------------------------------

    def _head(self) -> Text:
        """The daemon in two rows, or what is wrong with it."""
        width = self.size.width
        trouble, sample = self._trouble, self._sample
        text = Text(no_wrap=True, end="")
        if trouble is not None:
            text.append(clipped(visible(trouble), width), colored(self.app.theme_variables, "warning"))
        elif sample is not None:
            text.append_text(self._figures.daemon(sample, width, plain=self._plain))
        if sample is not None:
            found = f"/{self._words}: {len(self._rows)} of" if self._words else ""
            text.append("\n")
            text.append(self._figures.sums(sample, width, found=found), "dim")
        return text

    def _titles(self) -> Text:
        if self._plain or not self._rows:
            return Text("")
        rises = self._by.left != self._turned
        return self._figures.titles(self._shape, self._by, rises=rises, width=self.size.width)

    def _row(self, number: int, width: int) -> Text:
        row = self._rows[number]
        return self._figures.said(row, width) if self._plain else self._figures.row(row, self._shape, width)

    def _show_about(self) -> None:
        """Three rows on the agent the cursor is on."""
        row = self._here
        if row is not None:
            about = self._figures.about(row, self.size.width, plain=self._plain)
        else:
            about = Text("no agent matches; esc shows all" if self._words and self._sample else "")
        self.query_one("#metrics-about", Static).update(about)

    # --- moving, order, filter ----------------------------------------------------------------------

    def moved(self) -> None:
        self.lines.follows = False
        here = self._here
        self._selected = None if here is None else str(here["agent"])
        self._show_about()

    def action_sort(self, name: str) -> None:
        chosen = column(name)
        self._turned = chosen.name == self._by.name and not self._turned
        self._by = chosen
        self._arrange()

    def action_next_sort(self) -> None:
        names = [one.name for one in COLUMNS]
        self._by = COLUMNS[(names.index(self._by.name) + 1) % len(names)]
        self._turned = False
        self._arrange()

    def action_turn(self) -> None:
        self._turned = not self._turned
        self._arrange()

    def action_filter(self) -> None:
        line = self.query_one("#metrics-filter", Input)
        line.add_class("-open")
        line.value = self._words
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._words = event.value.strip()
        self._arrange()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._close_filter()

    def action_all(self) -> None:
        """Show all agents again."""
        self._words = ""
        self.query_one("#metrics-filter", Input).value = ""
        self._close_filter()
        self._arrange()

    def _close_filter(self) -> None:
        self.query_one("#metrics-filter", Input).remove_class("-open")
        self.focus()

    # --- orders -------------------------------------------------------------------------------------

    def action_details(self) -> None:
        if self._here is not None:
            self.app.push_screen(AgentScreen(self._here))

    def action_kill(self) -> None:
        """Ask, then end what the selected agent does."""
        self._confirmed(
            "Kill what {} does?",
            _KILL,
            lambda agent: self.order(self.desk.kill(agent, _ASKED), f"{agent}: killed"),
        )

    def action_restart(self) -> None:
        """Ask, then have the selected agent go on in fresh processes."""
        self._confirmed(
            "Restart the processes of {}?",
            _RESTART,
            lambda agent: self.order(self.desk.restart(agent, _ASKED), f"{agent}: restarted"),
        )

    def action_quarantine(self) -> None:
        """Ask why, then keep the selected agent from running; one that is kept may run again."""
        row = self._here
        if row is None:
            return
        agent = str(row["agent"])
        if row["state"] == "quarantined":
            self._confirmed(
                "Release {}?",
                f"It was quarantined: {row['why']}\nIt may run again, and its failures are counted anew.",
                lambda agent: self.order(self.desk.release(agent, _ASKED), f"{agent}: released"),
            )
            return
        self.app.push_screen(
            LineScreen(
                f"Quarantine {agent}: why?",
                _QUARANTINE,
                _ASKED,
            ),
            partial(self._quarantined, agent),
        )

    def _quarantined(self, agent: str, reason: str | None) -> None:
        if reason is not None and reason.strip():
            self.order(self.desk.quarantine(agent, reason.strip()), f"{agent}: quarantined")

    def _confirmed(self, question: str, details: str, then: Callable[[str], None]) -> None:
        """Ask about the selected agent; ``then`` is told its name after a yes."""
        row = self._here
        if row is None:
            return
        agent = str(row["agent"])

        def answered(yes: bool | None) -> None:
            if yes:
                then(agent)

        self.app.push_screen(ConfirmScreen(question.format(agent), details), answered)

"""Everything the daemon tells of one agent, in words: what the table has no room for.

Knows: the fields of a row of ``agents.metrics`` and what they are called. Does not know: where it came from.
Names and reasons are foreign: they are escaped and folded behind a name of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.model.document import Document
from agtop.screens.reading import READING, Reading, painted
from runloop.escape import visible
from runloop.metrics import STATE_WORDS, count
from runloop.quantities import dollars, size

__all__ = ["AgentScreen", "told"]


def told(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of one agent, each with its name, as sentences a person reads aloud."""
    state = str(row["state"])
    return [
        ("agent", f"{row['agent']} {row['version'] or ''}".rstrip()),
        ("state", STATE_WORDS.get(state, state)),
        *([("why", str(row["why"]))] if row["why"] else []),
        ("processes", f"{row['workers']}, with {size(row['rss_bytes'])} resident"),
        *_groups(row),
        ("processor", f"{_percent(row['cpu_percent'])} of one now, {row['cpu_ms'] / 1000:.2f} s in all"),
        ("attempts", f"{row['attempts']} ended, {row['failed']} failed ({_percent(row['error_percent'])})"),
        ("waits", f"{row['queue']} attempts for a process, {row['asking']} for a person"),
        ("host calls", f"{row['calls']}, {row['refused']} of them in vain; {_rate(row['calls_s'])} now"),
        ("models", f"{row['model_calls']} calls, {row['cache_hits']} of them answered by the cache"),
        ("tokens", f"{row['input_tokens']} in, {row['output_tokens']} out; {_rate(row['tokens_s'])} now"),
        ("fuel", f"{count(row['fuel'])} units; {_rate(row['fuel_s'])} now, told at each host call"),
        ("spent", dollars(row["cost_micro_usd"], digits=4)),
    ]  # fmt: skip


def _groups(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What its control groups tell; nothing where there are none, or nothing has ended yet."""
    peak, ooms = row.get("peak_bytes"), row.get("ooms", 0)
    if peak is None and not ooms:
        return []
    most = "" if peak is None else f"{size(peak)} at most in one process and all it started"
    ended = f"{ooms} ended for want of memory" if ooms else ""
    return [("memory", "; ".join(filter(None, (most, ended))))]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} %"


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{count(value)} a second"


class AgentScreen(Reading[None]):
    """One agent, as it was when it was asked for."""

    TITLE = "agent"
    HELP = "Figures count from the start of the daemon; those of now are of the last second."
    BINDINGS: ClassVar[list[BindingType]] = [*READING, Binding("escape,q,enter", "leave", "back")]

    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__()
        self._about = row

    def compose(self) -> ComposeResult:
        yield Static(visible(f"agent: {self._about['agent']}"), classes="title", markup=False)
        yield Lines(cursor=False)
        yield Static("j k scroll · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        document = Document(self.reading_width)
        for name, value in told(self._about):
            document.field(name, value)
        self.query_one(Lines).set_rows(document.count, lambda number, _: painted(document.row(number)))

    def action_leave(self) -> None:
        self.dismiss(None)

"""How figures of agents and of the daemon look in rows: cells, courses, colours, signs.

Knows: what fits into a width, what deserves a colour, which words stand for a row where nobody sees it. Does
not know: samples over time (``model.metrics``), which rows there are, keys. Every name and reason is foreign
and leaves escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.style import Style
from rich.text import Text

from agtop.model.metrics import History, spark
from agtop.panes.words import clipped
from runloop.escape import columns_of, visible
from runloop.metrics import Column, column, count, fitting
from runloop.quantities import ago, dollars, size

__all__ = ["LEAD", "Figures", "Layout", "layout", "whole"]

Row = Mapping[str, Any]

_SIGNS = {
    "running": ("●", "success"),
    "asking": ("◆", "warning"),
    "queued": ("◷", "warning"),
    "waiting": ("◌", "primary"),
    "quarantined": ("⊘", "error"),
    "broken": ("✘", "error"),
    "idle": ("○", ""),
    "gone": ("–", ""),
}
"""State -> its sign and the theme's name for its colour."""
_NOTHING = ("-", "0", "0.0")
_BARS_LEAST = 3
LEAD = 2
"""Columns of the sign before a name."""
_NAME_LEAST, _NAME_MOST = 16, 28
_COURSE_LEAST, _COURSE_MOST = 8, 40
_CPU_TOP, _RATE_TOP, _LAG_TOP = 5.0, 1.0, 5.0
"""What a full bar stands for at least: percent of a processor, things a second, milliseconds."""


class Layout(NamedTuple):
    """How a row is divided."""

    columns: Sequence[Column]
    name: int
    """Columns of a terminal for the name."""
    course: int
    """… for each of the two courses; 0: there is no room for them."""

    def room(self, one: Column) -> int:
        """Columns of a terminal for a cell."""
        return self.name if one.name == "name" else one.width


def layout(names: Sequence[str], width: int, *, plain: bool) -> Layout:
    """Divide ``width`` columns for agents of these names."""
    longest = max((columns_of(visible(name)) for name in names), default=0)
    name = _NAME_LEAST if width < 60 else min(_NAME_MOST, max(_NAME_LEAST, longest))
    columns = fitting(width - LEAD, name)
    made = Layout(columns, name, 0)
    used = LEAD + sum(made.room(one) + 2 for one in columns) - 2
    course = min(_COURSE_MOST, (width - used) // 2 - 2)
    return made if plain or course < _COURSE_LEAST else made._replace(course=course)


class _Figure(NamedTuple):
    """One figure with its name, and perhaps its course."""

    title: str
    value: str
    course: Sequence[float | None] | None = None
    top: float = 0.0
    """What a full bar stands for at least."""
    tone: str = "primary"
    room: int = 0
    """Columns that the value has at least, so that what follows stands still."""

    @property
    def takes(self) -> int:
        """Columns without a course, with what parts it from the one before."""
        return len(self.title) + max(self.room, len(self.value)) + 3


class Figures:
    """Draws rows. ``tone`` gives a style by the theme's name for a colour."""

    def __init__(self, history: History, tone: Callable[[str], Style]) -> None:
        self._history = history
        self._tone = tone

    # --- the daemon -------------------------------------------------------------------------------

    def daemon(self, sample: Row, width: int, *, plain: bool) -> Text:
        """Lengths and rates of the daemon, each with its course where there is room."""
        daemon = sample["daemon"]
        up = ago(max(0, sample["at_ms"] - sample["since_ms"]))
        lag = "-" if daemon["lag_ms"] is None else f"{daemon['lag_ms']:.1f}ms"
        memory = "-" if daemon["rss_bytes"] is None else size(daemon["rss_bytes"])
        drawn = self._history.daemon
        return self._figures(
            [
                _Figure(f"daemon {daemon['pid']}", f"up {up}"),
                _Figure("cpu", _percent(daemon["cpu_percent"]), drawn("cpu_percent"), _CPU_TOP, room=6),
                _Figure("memory", memory, room=9),
                _Figure("lag", lag, drawn("lag_ms"), _LAG_TOP, room=7),
                _Figure("events/s", count(daemon["events_s"]), drawn("events_s"), _RATE_TOP, room=4),
            ],
            width,
            most=0 if plain else 16,
        )

    @staticmethod
    def sums(sample: Row, width: int, *, found: str = "") -> str:
        """How many do what, in one row; ``found``: what stands before it."""
        daemon, states = sample["daemon"], [row["state"] for row in sample["agents"]]
        asking = states.count("asking")
        runs = daemon["runs"]
        said = [
            *([found] if found else []),
            f"{len(states)} agents",
            f"{states.count('running')} running",
            *([f"{asking} ask{'s' if asking == 1 else ''} you"] if asking else []),
            f"{runs} run{'' if runs == 1 else 's'}",
            f"{daemon['workers']}+{daemon['spares']} processes",
            f"{daemon['queue']} waiting",
            f"bus {daemon['bus_queued']}",
            f"events {count(daemon['events'])}",
        ]
        return whole((visible(each) for each in said), width, "  ")

    def _figures(self, figures: Sequence[_Figure], width: int, *, most: int) -> Text:
        """Figures in a row, the first of them where there is not room for all; courses where there is."""
        bare = sum(one.takes for one in figures) - 2
        courses = sum(one.course is not None for one in figures)
        bars = min(most, (width - bare) // courses - 1) if courses else 0
        text = Text(no_wrap=True, end="")
        for one in figures:
            course = one.course if bars >= _BARS_LEAST else None
            takes = one.takes - (0 if text else 2) + (0 if course is None else bars + 1)
            if text.cell_len + takes > width:
                break
            text.append(f"{'  ' if text else ''}{one.title} ", "dim")
            if course is not None:
                text.append(spark(course, bars, least_top=one.top), self._tone(one.tone))
                text.append(" ")
            text.append(one.value.ljust(one.room))
        return text

    # --- the table --------------------------------------------------------------------------------

    def titles(self, shape: Layout, by: Column, *, rises: bool, width: int) -> Text:
        """The row above the table; the column it is sorted by says which way."""
        text = Text(" " * (1 + LEAD), no_wrap=True, end="")
        for at, one in enumerate(shape.columns):
            title = (("▲" if rises else "▼") if one.name == by.name else "") + one.title
            style = self._tone("accent") + Style(bold=True) if one.name == by.name else Style(bold=True)
            text.append("  " if at else "")
            text.append(title.ljust(shape.room(one)) if one.left else title.rjust(shape.room(one)), style)
        if shape.course:
            for title in ("CPU", "TOKENS"):
                text.append("  " + title.ljust(shape.course), Style(bold=True))
        text.truncate(width)
        return text

    def row(self, row: Row, shape: Layout, width: int) -> Text:
        """One agent."""
        sign, tone = _SIGNS.get(str(row["state"]), ("?", ""))
        text = Text(f"{sign} ", self._tone(tone), no_wrap=True, end="")
        for at, one in enumerate(shape.columns):
            cell = clipped(visible(one.write(row)), shape.room(one))
            blank = " " * (shape.room(one) - columns_of(cell))
            text.append("  " if at else "")
            text.append(cell + blank if one.left else blank + cell, self._style(one, row, tone))
        if shape.course:
            name = str(row["agent"])
            for figure, top, color in (
                ("cpu_percent", _CPU_TOP, "primary"),
                ("tokens_s", _RATE_TOP, "secondary"),
            ):
                course = self._history.agent(name, figure)
                text.append("  ")
                text.append(
                    spark(course, shape.course, least_top=top), self._tone(color if any(course) else "dim")
                )
        text.truncate(width)
        return text

    def _style(self, one: Column, row: Row, tone: str) -> Style:
        """A figure that asks for attention has a colour, one that says nothing is dim."""
        if one.name == "name":
            return Style(bold=row["state"] == "running" or None)
        if one.name == "state":
            return self._tone(tone)
        if one.name == "errors" and (row["error_percent"] or 0) > 0:
            return self._tone("error" if row["error_percent"] >= 10 else "warning")
        if one.name == "waits" and row["queue"]:
            return self._tone("warning")
        return Style(dim=True) if one.write(row) in _NOTHING else Style()

    @staticmethod
    def said(row: Row, width: int) -> Text:
        """One agent as a sentence, for who hears it; what matters most first."""
        parts = [
            f"{row['agent']}, {column('state').write(row)}",
            f"cpu {_percent(row['cpu_percent'])}",
            f"memory {size(row['rss_bytes'])}",
            f"{row['queue']} waiting",
            f"{row['failed']} of {row['attempts']} failed",
            f"tokens {count(row['input_tokens'])} in {count(row['output_tokens'])} out",
            f"spent {dollars(row['cost_micro_usd'])}",
            f"calls {count(row['calls'])}",
        ]
        name, *rest = (visible(part) for part in parts)
        return Text(whole((clipped(name, width), *rest), width, ", "), no_wrap=True, end="")

    # --- one agent --------------------------------------------------------------------------------

    def about(self, row: Row, width: int, *, plain: bool) -> Text:
        """Three rows on one agent."""
        sign, tone = _SIGNS.get(str(row["state"]), ("?", ""))
        head = visible(f"{row['agent']} {row['version'] or ''}".rstrip())
        state = column("state").write(row) + (f": {row['why']}" if row["why"] else "")
        text = Text(no_wrap=True, end="")
        text.append(clipped(head, width // 2), "bold")
        text.append("  ")
        lead = "" if plain else f"{sign} "
        text.append(clipped(f"{lead}{visible(state)}", width - text.cell_len), self._tone(tone))
        text.append("\n")
        text.append_text(self._courses(row, width, most=0 if plain else _COURSE_MOST))
        text.append("\n")
        said = (
            f"{row['attempts']} ended, {row['failed']} failed",
            f"{count(row['calls'])} calls, {count(row['refused'])} in vain",
            f"{row['cache_hits']} of {row['model_calls']} model calls from the cache",
            f"fuel {count(row['fuel'])}",
            dollars(row["cost_micro_usd"]),
        )
        text.append(whole(said, width, " · "), "dim")
        return text

    def _courses(self, row: Row, width: int, *, most: int) -> Text:
        name, drawn = str(row["agent"]), self._history.agent
        tokens = f"{count(row['tokens_s'])}/s"
        return self._figures(
            [
                _Figure("cpu", _percent(row["cpu_percent"]), drawn(name, "cpu_percent"), _CPU_TOP, room=6),
                _Figure("tokens", tokens, drawn(name, "tokens_s"), _RATE_TOP, "secondary", room=6),
                _Figure(
                    "memory", size(row["rss_bytes"]), drawn(name, "rss_bytes"), _RATE_TOP, "accent", room=9
                ),
            ],
            width,
            most=most,
        )


def whole(parts: Iterable[str], width: int, between: str) -> str:
    """Parts in a row, as many as fit: half a figure would be another figure."""
    text = ""
    for part in parts:
        longer = text + between + part if text else part
        if columns_of(longer) > width:
            break
        text = longer
    return text


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}%"

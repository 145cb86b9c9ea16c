"""``rlp top``: what agents and the daemon use now, drawn anew as long as somebody watches.

Knows: when to ask again, how a table is drawn in place and what is left of that without a terminal. Does not
know: what is measured (the daemon), columns and figures (``runloop.metrics``), ending agents
(``commands.stops``).

A table that was drawn is gone over by the next one, in one write; it stays when the command ends. The cursor
stands below it and is never hidden: whatever ends the command, even SIGKILL, leaves the terminal as it was.
Without a terminal tables
follow one another, with ``--json`` samples do: one object for the daemon, one for each agent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from rlp.output import Console
from rlp.session import ABSENT, Session
from runloop.errors import NotFoundError, UnreachableError, UsageError
from runloop.escape import columns_of, pieces, visible
from runloop.exits import Exit
from runloop.metrics import Column, column, count, fitting, ordered
from runloop.quantities import ago, size

__all__ = ["top"]

_ONCE_S = 1.0
"""How long ``--once`` lets pass between its two samples, at most."""
_LEAST_S, _MOST_S = 0.1, 3_600.0
_COLORS = {"running": "green", "asking": "yellow", "queued": "yellow", "quarantined": "red", "broken": "red"}
_NAME_MOST = 32


def top(session: Session, *, agents: tuple[str, ...], once: bool, sort: str, interval: str) -> Exit:
    """Show what agents use, until interrupted; ``once``: one table, with rates of a second."""
    by, pause = column(sort), _seconds(interval)
    if session.running() is None:
        raise UnreachableError(
            "no daemon is running, so no agent is", hint="start it with 'rlp daemon start'", code=ABSENT
        )
    sample = _asked(session, agents, None)
    if once:
        time.sleep(min(pause, _ONCE_S))
        _tell(session, _asked(session, agents, sample["sample"]), by)
        return Exit.OK
    screen = _Screen(session.console)
    while True:
        if session.json:
            _tell(session, sample, by)
        else:
            screen.draw(_table(sample, by, session.console.width), sample)
        time.sleep(pause)
        sample = _asked(session, agents, sample["sample"])


def _asked(session: Session, agents: Sequence[str], since: int | None) -> dict[str, Any]:
    """A sample, of the named agents only where any are named."""
    sample: dict[str, Any] = session.ask("agents.metrics", since=since)
    if agents:
        there = {row["agent"] for row in sample["agents"]}
        unknown = [name for name in agents if name not in there]
        if unknown:
            raise NotFoundError(
                f"no agent is called {unknown[0][:64]!r}", hint="'rlp list' names them", code="agent.unknown"
            )
        sample["agents"] = [row for row in sample["agents"] if row["agent"] in agents]
    return sample


def _tell(session: Session, sample: dict[str, Any], by: Column) -> None:
    """One sample, for whoever comes."""
    if not session.json:
        for text, color in _table(sample, by, session.console.width):
            session.console.data(text, color)
        return
    when = {name: sample[name] for name in ("sample", "at_ms", "since_ms", "interval_ms")}
    session.console.json({"type": "daemon", **when, **sample["daemon"], "left_off": sample["left_off"]})
    for row in ordered(sample["agents"], by):
        session.console.json({"type": "agent", "sample": sample["sample"], **row})


# --- the table ------------------------------------------------------------------------------------


def _table(sample: dict[str, Any], by: Column, width: int) -> list[tuple[str, str | None]]:
    """Lines of one sample, safe and no wider than ``width``, each with its colour."""
    rows = ordered(sample["agents"], by)
    longest = max((columns_of(visible(str(row["agent"]))) for row in rows), default=0)
    name = min(_NAME_MOST, max(len("AGENT"), longest))
    shown = fitting(width, name)
    lines: list[tuple[str, str | None]] = [(pieces(line, width)[0].rstrip(), None) for line in _head(sample)]
    lines.append((_line([_titled(one, by) for one in shown], shown, name), "bold"))
    for row in rows:
        lines.append((_line([one.write(row) for one in shown], shown, name), _COLORS.get(str(row["state"]))))
        if row["why"]:
            lines.append((pieces(f"  {visible(str(row['why']))}", width)[0].rstrip(), "dim"))
    if sample["left_off"]:
        lines.append((f"{sample['left_off']} more agents that do nothing", "dim"))
    return lines


def _titled(one: Column, by: Column) -> str:
    return one.title if one.name != by.name else f"{one.title}*"[: max(one.width, len(one.title) + 1)]


def _line(cells: Sequence[str], columns: Sequence[Column], name: int) -> str:
    """One row of the table; the name is foreign text, and is cut where it is too long."""
    parts = []
    for cell, one in zip(cells, columns, strict=True):
        width = name if one.name == "name" else one.width
        text = pieces(visible(cell), width)[0] if columns_of(visible(cell)) > width else visible(cell)
        blank = " " * (width - columns_of(text))
        parts.append(text + blank if one.left else blank + text)
    return "  ".join(parts).rstrip()


def _head(sample: dict[str, Any]) -> list[str]:
    """The daemon in two lines."""
    daemon = sample["daemon"]
    states = [row["state"] for row in sample["agents"]]
    memory = "-" if daemon["rss_bytes"] is None else size(daemon["rss_bytes"])
    lag = "-" if daemon["lag_ms"] is None else f"{daemon['lag_ms']:.1f} ms"
    cpu = "-" if daemon["cpu_percent"] is None else f"{daemon['cpu_percent']:.1f}%"
    pace = "" if daemon["events_s"] is None else f" +{count(daemon['events_s'])}/s"
    asking = states.count("asking")
    return [
        f"daemon {daemon['pid']}  up {ago(sample['at_ms'] - sample['since_ms'])}  cpu {cpu}  memory {memory}"
        f"  lag {lag}  events {count(daemon['events'])}{pace}",
        f"agents {len(states)}  running {states.count('running')}  asking you {asking}"
        f"  runs {daemon['runs']}  processes {daemon['workers']}+{daemon['spares']}"
        f"  waiting {daemon['queue']}  bus {daemon['bus_queued']}",
    ]


class _Screen:
    """Draws tables one over the other on a terminal, one after the other elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn = 0
        """Rows of the last table, above the cursor."""
        self._over = console.out.isatty() and not console.style.json and not console.style.dumb

    def draw(self, lines: list[tuple[str, str | None]], sample: dict[str, Any]) -> None:
        if not self._over:
            if self._drawn:
                self._console.data("")
            for text, color in lines:
                self._console.data(text, color)
            self._drawn = 1
            self._console.out.flush()
            return
        room = max(4, _rows() - 1)
        if len(lines) > room:
            more = len(lines) - room + 1
            lines = [
                *lines[: room - 1],
                (f"{more} more lines: a higher window, 'rlp top AGENT' or agtop", "dim"),
            ]
        out = self._console.out
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        painted = (self._console.paint(text, color) + "\x1b[K\n" for text, color in lines)
        out.write("\r" + back + "".join(painted) + "\x1b[J")
        out.flush()
        self._drawn = len(lines)


def _rows() -> int:
    try:
        return os.get_terminal_size(1).lines or 24
    except OSError:
        return 24


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not _LEAST_S <= seconds <= _MOST_S:
        raise UsageError(
            f"--interval {text[:40]!r} is no time between {_LEAST_S:g} and {_MOST_S:g} seconds",
            hint="write seconds: --interval 0.5",
            code="cli.option",
        )
    return seconds

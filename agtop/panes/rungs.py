"""One row of the ladder, one row of the tree: as a drawing, and in words for who hears them.

Knows: what a crossing and a span look like at a width, in the colours of the theme. Does not know: which rows
there are (``model.ladder``, ``model.tree``), or which of them is selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.style import Style
from rich.text import Text

from agtop.looks import colored
from agtop.model.tree import TreeRow
from agtop.panes.words import clipped
from runloop.escape import columns_of, visible
from runloop.ladder import Lane, Rung, drawn
from runloop.quantities import ago, size

__all__ = ["TIME", "WEIGHT", "WIDE", "rung_row", "rung_words", "seconds", "span_row", "span_words", "took"]

TIME = 10
"""Columns of the time since the run began."""
WIDE, WEIGHT = 100, 11
"""From so many columns on there is one for bytes, and how wide it is."""
_TONES = {
    "hostcall": "primary",
    "model": "secondary",
    "message": "accent",
    "action": "warning",
    "email": "success",
    "tool": "success",
    "artifact": "success",
    "memory": "primary",
    "cap": "error",
}
"""First word of a fact's kind -> colour of its rung, as themes name it."""


def seconds(ms: int) -> str:
    """A moment of a run: hundredths of seconds, for long runs minutes."""
    return f"{ms / 1000:.2f} s" if ms < 600_000 else ago(ms)


# --- the ladder -------------------------------------------------------------------------------------


def rung_row(
    rung: Rung,
    at_ms: int,
    lanes: tuple[Sequence[Lane], int],
    width: int,
    variables: Mapping[str, str],
    *,
    silent: bool,
) -> Text:
    """Time, the arrow between its lanes, bytes where there is room, and what it says. ``silent``: nothing
    crossed for a while before it."""
    lines = drawn(rung, *lanes)
    if silent:
        lines = lines.replace("│", "┆")
    tone = _tone(rung)
    style = colored(variables, tone)
    text = Text(no_wrap=True, end="")
    text.append(f"{seconds(at_ms):>{TIME - 1}} ", "dim")
    for standing, part in groupby(lines, key="│┆ ".__contains__):
        text.append("".join(part), "dim" if standing else style)
    if width >= WIDE:
        text.append(f"{size(rung.bytes) if rung.bytes else '':>{WEIGHT - 2}} ", "dim")
    text.append(" ")
    words = clipped(_says(rung), width - text.cell_len)
    text.append(words, style if tone in ("error", "warning") else Style.null())
    return text


def rung_words(rung: Rung, at_ms: int) -> str:
    """The same as a sentence."""
    to = f" to {visible(rung.target.name)}" if rung.target.name else ""
    bytes_ = f", {size(rung.bytes)}" if rung.bytes else ""
    return f"{seconds(at_ms)}: {visible(rung.source.name)}{to}: {_says(rung)}{bytes_}"


def _says(rung: Rung) -> str:
    """What it says, without the run's own long name."""
    return visible(rung.what.replace(rung.run, rung.run[:8]) if rung.run else rung.what)


def _tone(rung: Rung) -> str:
    if rung.what.endswith((", refused", "denied")) or rung.what.startswith(("failed", "timed_out")):
        return "error"
    return _TONES.get(rung.kind.partition(".")[0], "foreground")


# --- the tree ---------------------------------------------------------------------------------------


def span_row(row: TreeRow, now: int, width: int, variables: Mapping[str, str]) -> Text:
    """What it is, how long it took, and where in the run's time it lies. ``now``: milliseconds since the run
    began."""
    bars = max(10, width // 3)
    words = max(10, width - bars - 11)
    text = Text(no_wrap=True, end="")
    mark = "▾ " if row.open else "▸ " if row.inner else "  "
    name = clipped("  " * min(row.depth, 8) + mark + _span_says(row), words)
    text.append(name, "bold" if row.span.kind in ("run", "map") else "")
    text.append(" " * max(0, words - columns_of(name)))
    text.append(f"{took(row, now):>10} ", "dim")
    return text.append(_bar(row, now, bars), colored(variables, _span_tone(row)))


def span_words(row: TreeRow, now: int) -> str:
    """The same as a sentence."""
    words = f"level {row.depth}: {_span_says(row)}, began {seconds(row.span.start_ms)}, {took(row, now)}"
    return f"{words}, {row.inner} inside, folded" if row.inner and not row.open else words


def took(row: TreeRow, now: int) -> str:
    """How long it took, or has taken so far."""
    if row.ended and row.span.end_ms is not None:
        return ago(row.span.end_ms - row.span.start_ms)
    return f"{ago(max(0, now - row.span.start_ms))}…"


def _bar(row: TreeRow, now: int, columns: int) -> str:
    now = max(1, now)
    end = row.span.end_ms if row.ended and row.span.end_ms is not None else now
    start = min(columns - 1, row.span.start_ms * columns // now)
    stop = max(start + 1, min(columns, -(-end * columns // now)))
    return " " * start + ("█" if row.ended else "▒") * (stop - start) + " " * (columns - stop)


def _span_says(row: TreeRow) -> str:
    status = f", {row.span.status}" if row.ended and row.span.status else ""
    return visible(f"{row.span.kind} {row.span.name}{status}")


def _span_tone(row: TreeRow) -> str:
    if not row.ended:
        return "warning"
    if row.span.status in ("failed", "timed_out", "refused", "denied", "expired", "voided"):
        return "error"
    tones = {"call": "primary", "model": "secondary", "wait": "warning", "message": "accent"}
    return tones.get(row.span.kind, "success")

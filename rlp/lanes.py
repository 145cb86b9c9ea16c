"""The ladder of a run as a drawing: a lane for each party, a row for each crossing, time from top to bottom.

Knows: how wide lanes may be, where their names go, which pauses are worth a row. Does not know: which events
are crossings, or how one is drawn between its lanes (``runloop.ladder``), or the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from runloop.escape import columns_of, visible
from runloop.ladder import Lane, Party, Rung, drawn, ordered
from runloop.quantities import ago, size

__all__ = ["Line", "drawing", "inside"]

NARROW, WIDE = 4, 8
"""Columns of a lane, at least and at most."""
LEAST_WORDS, WORDS = 20, 48
"""Columns for what a crossing is: at least, and before lanes get more room than they need."""
_TIME = 10
"""Columns of the time on the left."""
_NAME_ROWS = 3
_PAUSE_MS = 1_000
"""A silence that gets a row of its own, at least."""


class Line(NamedTuple):
    """One row of the drawing: safe text and the name of a colour."""

    text: str
    color: str | None = None


def inside(rung: Rung, path: str) -> Rung:
    """A crossing of a run that serves a node of another: its nodes have lanes of their own. ``path``: the
    nodes it lies below, each with a slash."""

    def placed(party: Party) -> Party:
        if party.lane is None or party.lane.kind != "node":
            return party
        return Party(f"{path}{party.name}", Lane("node", f"{path}{party.lane.name}"))

    return rung._replace(source=placed(rung.source), target=placed(rung.target)) if path else rung


def drawing(rungs: Sequence[Rung], began: int, width: int) -> list[Line] | None:
    """The rows; None where ``width`` columns do not hold all lanes and a few words beside them."""
    lanes = ordered(end.lane for rung in rungs for end in (rung.source, rung.target) if end.lane is not None)
    if not lanes:
        return None
    if width < _TIME + len(lanes) * NARROW + LEAST_WORDS + 1:
        return None
    lane = max(NARROW, min(WIDE, (width - _TIME - WORDS - 1) // len(lanes)))
    lines = [Line(f"{'':{_TIME}}{row}".rstrip(), "bold") for row in _names(lanes, lane)]
    pause = _pause(rungs)
    last = began
    for rung in rungs:
        if rung.ts_ms - last >= pause:
            lines.append(Line(_silence(rung.ts_ms - last, len(lanes), lane), "dim"))
        last = rung.ts_ms
        lines.append(_row(rung, rung.ts_ms - began, lanes, lane, width))
    return lines


def _row(rung: Rung, at_ms: int, lanes: Sequence[Lane], lane: int, width: int) -> Line:
    lead = f"{at_ms:>{_TIME - 4}} ms {drawn(rung, lanes, lane)} "
    number = f" #{rung.event}"
    room = width - columns_of(lead) - len(number) - 1
    what = rung.what if rung.run is None else rung.what.replace(rung.run, rung.run[:8])
    if rung.bytes:
        what += f", {size(rung.bytes)}"
    return Line(f"{lead}{_cut(visible(what), room)}{number}", _color(rung))


def _cut(safe: str, room: int) -> str:
    """A safe text in at most ``room`` columns, with a mark where something is missing."""
    if columns_of(safe) <= room:
        return safe
    kept = safe[: room - 1]
    while columns_of(kept) > room - 1:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def _color(rung: Rung) -> str | None:
    if rung.kind.startswith("action."):
        return "yellow"
    if rung.kind == "cap.audit" or ", refused" in rung.what:
        return "red"
    return "cyan" if rung.kind.startswith(("node.", "run.")) else None


def _pause(rungs: Sequence[Rung]) -> int:
    """What counts as a silence here: much longer than usual between two crossings of this run."""
    gaps = sorted(later.ts_ms - rung.ts_ms for rung, later in pairwise(rungs))
    return max(_PAUSE_MS, 4 * gaps[(len(gaps) - 1) // 2]) if gaps else _PAUSE_MS


def _silence(ms: int, lanes: int, lane: int) -> str:
    stands = (" " * (lane // 2) + "┆" + " " * (lane - lane // 2 - 1)) * lanes
    return f"{'':{_TIME}}{stands} {ago(ms)} later"


def _names(lanes: Sequence[Lane], lane: int) -> Iterator[str]:
    """The names above their lanes, in as few rows as hold them; names that are too long are cut."""
    width = lane * len(lanes)
    rows = [[" "] * width for _ in range(_NAME_ROWS)]
    highest = 0
    for number, one in enumerate(lanes):
        name = _cut(visible(one.name), lane * _NAME_ROWS - 1)
        row = number % _NAME_ROWS
        middle = number * lane + lane // 2
        begin = max(0, min(middle - columns_of(name) // 2, width - columns_of(name)))
        rows[row][begin : begin + columns_of(name)] = [*name, *[""] * (columns_of(name) - len(name))]
        highest = max(highest, row)
        for below in rows[row + 1 :]:
            if below[middle] == " ":
                below[middle] = "│"
    for row_of in rows[: highest + 1]:
        yield "".join(row_of)

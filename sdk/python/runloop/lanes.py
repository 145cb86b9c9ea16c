"""A graph as lanes of a terminal: which line runs where, where it turns, joins and ends.

Knows: how lanes run, join and cross. Does not know: what stands beside a node, colours, or how wide a
terminal is.

A node has one lane, whoever leads into it: a lane begins below the first node with an edge to it, every other
such node joins it, and it ends at the node. So a picture is as wide as there are nodes waited for at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ASCII", "MAX_LANES", "Row", "draw", "leads"]

MAX_LANES = 24
"""Side by side; with more of them nobody follows a line any longer."""

ASCII = str.maketrans("│─╭╮╰╯├┤┬┴┼●◇▣", "|-+++++++++*?#")
"""For terminals that know nothing else."""

_JOINTS = {
    # up, down, left, right
    (True, True, False, False): "│",
    (True, True, False, True): "├",
    (True, True, True, False): "┤",
    (True, True, True, True): "┼",
    (True, False, False, True): "╰",
    (True, False, True, False): "╯",
    (True, False, True, True): "┴",
    (False, True, False, True): "╭",
    (False, True, True, False): "╮",
    (False, True, True, True): "┬",
    (False, False, True, True): "─",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the picture."""

    lanes: str
    node: str | None = None
    """The node that stands in it; None where lanes only turn."""
    below: str = ""
    """The lanes as they go on under a node, for rows that say more of it."""


def leads(order: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Where each node leads, the soonest first; ``edges`` are pairs of source and target."""
    place = {name: at for at, name in enumerate(order)}
    found: dict[str, set[str]] = {name: set() for name in order}
    for source, target in edges:
        if source in place and target in place:
            found[source].add(target)
    return {name: sorted(ends, key=place.__getitem__) for name, ends in found.items()}


def draw(
    order: Sequence[str], ends_of: Mapping[str, Sequence[str]], mark: Callable[[str], str]
) -> list[Row] | None:
    """The rows from top to bottom; ``order`` has every node after those that lead into it, ``ends_of`` what
    :func:`leads` returns, and ``mark`` gives the one character that a node is drawn as.

    None when more than :data:`MAX_LANES` lanes run side by side.
    """
    rows: list[Row] = []
    lanes: list[str | None] = []
    for name in order:
        column = _column(lanes, name)
        before = [lane is not None for lane in lanes]
        before[column] = False
        if len(ends_of[name]) > 2 * MAX_LANES:  # as many lanes at least as it will not join
            return None
        ends = _enter(lanes, column, ends_of[name])
        if len(lanes) > MAX_LANES:
            return None
        marks = [mark(name) if at == column else "│" if runs else " " for at, runs in enumerate(before)]
        go_on = ["│" if runs or (at == column and ends) else " " for at, runs in enumerate(before)]
        rows.append(Row(lanes=" ".join(marks), node=name, below=" ".join(go_on)))
        if any(end != column for end in ends):
            rows.append(Row(lanes=_turn(lanes, before, column, ends)))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return rows


def _column(lanes: list[str | None], name: str) -> int:
    """Where a node stands: at the end of its lane, or in the first place that is free."""
    for wanted in (name, None):
        if wanted in lanes:
            column = lanes.index(wanted)
            lanes[column] = None
            return column
    lanes.append(None)
    return len(lanes) - 1


def _enter(lanes: list[str | None], column: int, ends: Sequence[str]) -> list[int]:
    """Columns of the lanes that go on from here. New ones begin, the first of them straight below."""
    columns = []
    for end in ends:
        if end not in lanes:
            free = column if lanes[column] is None else lanes.index(None) if None in lanes else len(lanes)
            lanes[free : free + 1] = [end]
        columns.append(lanes.index(end))
    return columns


def _turn(lanes: Sequence[str | None], before: Sequence[bool], column: int, ends: Sequence[int]) -> str:
    """The row below a node, where lanes leave it sideways."""
    low, high = min(column, *ends), max(column, *ends)
    made = []
    for at, lane in enumerate(lanes):
        up = at == column or (at < len(before) and before[at])
        left, right = low < at <= high, low <= at < high
        if at != column and at not in ends:
            # A lane that has nothing to do with it runs through in front.
            made.append("│" if up else "─" if left and right else " ")
        else:
            made.append(_JOINTS[up, lane is not None, left, right])
        made.append("─" if right else " ")
    return "".join(made).rstrip()

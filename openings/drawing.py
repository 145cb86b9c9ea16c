"""An opening as a picture: lanes of a terminal, or a Mermaid flow chart.

Knows: how lanes run, join and cross; how Mermaid is written and what must be escaped there. Does not know:
what stands beside a node (``plan``), colours, or how wide a terminal is.

A node has one lane, whoever leads into it: a lane begins below the first node with an edge to it, every other
such node joins it, and it ends at the node. So a picture is as wide as there are nodes waited for at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openings.definition import Node, Opening

__all__ = ["ASCII", "MAX_LANES", "Row", "draw", "mermaid"]

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


def draw(opening: Opening, order: Sequence[str]) -> list[Row] | None:
    """The rows from top to bottom; ``order`` has every node after those that lead into it.

    None when more than :data:`MAX_LANES` lanes run side by side.
    """
    rows: list[Row] = []
    lanes: list[str | None] = []
    leads = _leads(opening, order)
    for name in order:
        column = _column(lanes, name)
        before = [lane is not None for lane in lanes]
        before[column] = False
        ends = _enter(lanes, column, leads[name])
        if len(lanes) > MAX_LANES:
            return None
        mark = _mark(opening, name)
        marks = [mark if at == column else "│" if runs else " " for at, runs in enumerate(before)]
        go_on = ["│" if runs or (at == column and ends) else " " for at, runs in enumerate(before)]
        rows.append(Row(lanes=" ".join(marks), node=name, below=" ".join(go_on)))
        if any(end != column for end in ends):
            rows.append(Row(lanes=_turn(lanes, before, column, ends)))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return rows


def _leads(opening: Opening, order: Sequence[str]) -> dict[str, list[str]]:
    """Where each node leads, the soonest first."""
    place = {name: at for at, name in enumerate(order)}
    found: dict[str, set[str]] = {name: set() for name in order}
    for edge in opening.edges:
        if edge.source.node in place and edge.node in place:
            found[edge.source.node].add(edge.node)
    return {name: sorted(ends, key=place.__getitem__) for name, ends in found.items()}


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


def _mark(opening: Opening, name: str) -> str:
    node = opening.node(name)
    if node is not None and (node.nests is not None or node.for_each is not None):
        return "▣"
    return "◇" if any(edge.guard is not None for edge in opening.inbound(name)) else "●"


# --- Mermaid ----------------------------------------------------------------------------------------


def mermaid(opening: Opening) -> str:
    """A flow chart for whatever renders Mermaid: solid arrows carry values, dotted ones only let through."""
    return "\n".join(["flowchart TD", *_mermaid_nodes(opening), *_mermaid_edges(opening)])


def _mermaid_nodes(opening: Opening) -> Iterator[str]:
    for at, node in enumerate(opening.nodes):
        opens, shuts = ("[[", "]]") if node.nests is not None else ("[", "]")
        yield f'  n{at}{opens}"{_quoted(_caption(node))}"{shuts}'


def _caption(node: Node) -> str:
    mapped = "" if node.for_each is None else f"\nfor each of {node.for_each.port}"
    return f"{node.id}\n{node.use}{mapped}"


def _mermaid_edges(opening: Opening) -> Iterator[str]:
    place = {node.id: at for at, node in enumerate(opening.nodes)}
    for edge in opening.edges:
        arrow, label = ("-.->", str(edge.guard)) if edge.guard is not None else ("-->", f"{edge.port}")
        yield f'  n{place[edge.source.node]} {arrow}|"{_quoted(label)}"| n{place[edge.node]}'


def _quoted(text: str) -> str:
    """Inside Mermaid's quotes: nothing in it ends them, and nothing in it is markup."""
    escaped = "".join(
        char if char.isalnum() or char in " _.:,@=!<>-()'/" else f"#{ord(char)};"
        for char in text.replace("\n", "\0")
    )
    return escaped.replace("<", "#lt;").replace(">", "#gt;").replace("#0;", "<br/>")

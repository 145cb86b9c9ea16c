"""An opening as a picture: lanes of a terminal, or a Mermaid flow chart.

Knows: how a node is marked; how Mermaid is written and what must be escaped there. Does not know: how lanes
run (``runloop.lanes``), what stands beside a node (``plan``), colours, or how wide a terminal is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openings.definition import Node, Opening
from runloop import lanes
from runloop.lanes import ASCII, MAX_LANES, Row

__all__ = ["ASCII", "MAX_LANES", "Row", "draw", "mermaid"]


def draw(opening: Opening, order: Sequence[str]) -> list[Row] | None:
    """The rows from top to bottom; ``order`` has every node after those that lead into it.

    None when more than :data:`MAX_LANES` lanes run side by side.
    """
    ends = lanes.leads(order, ((edge.source.node, edge.node) for edge in opening.edges))
    return lanes.draw(order, ends, lambda name: _mark(opening, name))


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

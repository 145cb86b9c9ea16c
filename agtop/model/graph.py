"""The opening of a run as vertices and arrows, read from the definition its first fact holds.

Knows: how a normalised definition is written. Does not know: how it is drawn, or what came of it. The
definition of a newer build may hold what is not known here: that is left out, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agtop.model.state import Edge, Graph, GraphNode

__all__ = ["graph_of"]


def graph_of(definition: Mapping[str, Any]) -> Graph:
    """The graph of ``RunStarted.definition``."""
    nodes = [_node(each) for each in _dicts(definition.get("nodes"))]
    known = {node.id for node in nodes}
    edges = [
        edge
        for edge in map(_edge, _dicts(definition.get("edges")))
        if edge is not None and {edge.source, edge.target} <= known
    ]
    return Graph(nodes=tuple(_ordered(nodes, edges)), edges=tuple(edges))


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _node(fields: Mapping[str, Any]) -> GraphNode:
    retry = fields.get("retry")
    return GraphNode(
        id=str(fields.get("id")),
        use=str(fields.get("use", "")),
        mapped=fields.get("for_each") is not None,
        max_attempts=int(retry.get("max_attempts", 1)) if isinstance(retry, Mapping) else 1,
        budget_tokens=fields.get("budget_tokens"),
        timeout_ms=fields.get("timeout_ms"),
    )


def _edge(fields: Mapping[str, Any]) -> Edge | None:
    source, target = fields.get("from"), fields.get("to")
    if not (isinstance(source, list) and isinstance(target, list) and source and target):
        return None
    return Edge(source=str(source[0]), target=str(target[0]), guarded="op" in fields)


def _ordered(nodes: Iterable[GraphNode], edges: Iterable[Edge]) -> list[GraphNode]:
    """Every node after those that lead into it, otherwise as declared; what lies on a circle comes last."""
    found = {node.id: node for node in nodes}
    waits = dict.fromkeys(found, 0)
    leads: dict[str, list[str]] = {name: [] for name in found}
    for edge in {(edge.source, edge.target): edge for edge in edges}.values():
        waits[edge.target] += 1
        leads[edge.source].append(edge.target)
    ready = [name for name, count in waits.items() if not count]
    order: dict[str, None] = {}
    for name in ready:  # grows while it is walked
        order[name] = None
        for target in leads[name]:
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    return [found[name] for name in (*order, *(name for name in found if name not in order))]

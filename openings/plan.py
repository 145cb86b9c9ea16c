"""The plan of an opening: what runs after what, side by side where nothing waits, before anything is run.

Knows: layers (a node stands one below the lowest node it waits for) and how they read. Does not know: agents,
runs or terminals; colours and escapes are the caller's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openings.definition import Edge, Node, Opening

__all__ = ["Plan", "layers", "plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will happen, as far as it is known beforehand."""

    opening: Opening
    layers: tuple[tuple[str, ...], ...]
    """Ids of nodes; those of one layer can run side by side."""

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        opening = self.opening
        return {
            "opening": opening.name,
            "digest": opening.digest,
            "layers": [list(layer) for layer in self.layers],
            "nodes": {node.id: _node_json(opening, node) for node in opening.nodes},
            "edges": [_edge_json(edge) for edge in opening.edges],
            "success": None
            if opening.success is None
            else {opening.success.mode: [str(clause) for clause in opening.success.clauses]},
            "save": [str(ref) for ref in opening.save],
            "policy": opening.policy.to_json(),
        }

    def text(self) -> str:
        """The plan as lines for people."""
        opening = self.opening
        lines = [
            f"{opening.name}: {_count(len(opening.nodes), 'node')} in {_count(len(self.layers), 'layer')}"
        ]
        for number, layer in enumerate(self.layers, 1):
            lines.append(f"{number}")
            for name in layer:
                node = opening.node(name)
                assert node is not None
                lines.append(f"  {name:<12} {node.use}{_terms(node)}")
                lines.extend(f"      {_arrow(edge)}" for edge in opening.inbound(name))
        if opening.success is not None:
            word = " or " if opening.success.mode == "any_of" else " and "
            lines.append(f"succeeds if {word.join(str(clause) for clause in opening.success.clauses)}")
        else:
            lines.append("succeeds if no node fails")
        if opening.save:
            lines.append(f"saves {', '.join(str(ref) for ref in opening.save)}")
        return "\n".join(lines)


def plan(opening: Opening) -> Plan:
    """The plan of an opening. It must have no cycle (``validate`` refuses those)."""
    return Plan(opening=opening, layers=layers(opening))


def layers(opening: Opening) -> tuple[tuple[str, ...], ...]:
    """Nodes by depth, in declared order within a layer. Nodes on a cycle or behind one are left out."""
    waits = {node.id: {edge.source.node for edge in opening.inbound(node.id)} for node in opening.nodes}
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    while layer := tuple(name for name in waits if name not in done and waits[name] <= done):
        found.append(layer)
        done |= set(layer)
    return tuple(found)


def _terms(node: Node) -> str:
    terms = []
    if node.timeout_ms is not None:
        terms.append(f"at most {node.timeout_ms} ms")
    if node.retry.max_attempts > 1:
        terms.append(f"{node.retry.max_attempts} attempts, {node.retry.initial_ms} ms apart")
    if node.budget_tokens is not None:
        terms.append(f"{node.budget_tokens} tokens")
    return f"  ({', '.join(terms)})" if terms else ""


def _arrow(edge: Edge) -> str:
    return f"{edge.port} <- {edge.source}" if edge.guard is None else f"{edge.port} <- only if {edge.guard}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _node_json(opening: Opening, node: Node) -> dict[str, Any]:
    return {
        **node.to_json(),
        "waits_for": list(dict.fromkeys(edge.source.node for edge in opening.inbound(node.id))),
    }


def _edge_json(edge: Edge) -> dict[str, Any]:
    guard = edge.guard
    return {
        "from": str(edge.source),
        "to": f"{edge.node}.{edge.port}",
        "guard": None if guard is None else str(guard),
    }

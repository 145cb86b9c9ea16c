"""The plan of an opening: what runs after what, side by side where nothing waits, before anything is run.

Knows: layers (a node stands one below the lowest node it waits for) and how they read. Does not know: how
lanes are drawn (``drawing``), agents, runs or terminals; colours and escapes are the caller's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openings.definition import Edge, Node, Opening
from openings.drawing import ASCII, draw
from openings.durations import written

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

    def text(self, *, ascii_only: bool = False) -> str:
        """The plan as lines for people: the graph, and beside each node what serves it and on what terms."""
        opening = self.opening
        size = f"{_count(len(opening.nodes), 'node')} in {_count(len(self.layers), 'layer')}"
        lines = [f"{opening.name}: {size}", *(self._graph() or self._list()), *_ends(opening)]
        text = "\n".join(lines)
        return text.translate(ASCII) if ascii_only else text

    def _graph(self) -> list[str] | None:
        """The graph in lanes; None where it is too wide to be followed."""
        rows = draw(self.opening, [name for layer in self.layers for name in layer])
        if rows is None:
            return None
        wide = max((len(row.lanes) for row in rows), default=0)
        lines = []
        for row in rows:
            if row.node is None:
                lines.append(row.lanes)
                continue
            lines.append(f"{row.lanes:<{wide}}  {self._node(row.node)}")
            lines.extend(
                f"{row.below:<{wide}}      {_arrow(edge)}" for edge in self.opening.inbound(row.node)
            )
        return lines

    def _list(self) -> list[str]:
        """The layers one below the other."""
        lines = []
        for number, layer in enumerate(self.layers, 1):
            lines.append(f"{number}")
            for name in layer:
                lines.append(f"  {self._node(name)}")
                lines.extend(f"      {_arrow(edge)}" for edge in self.opening.inbound(name))
        return lines

    def _node(self, name: str) -> str:
        node = self.opening.node(name)
        assert node is not None
        return f"{name:<12} {node.use}{_terms(node)}"


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


def _ends(opening: Opening) -> list[str]:
    lines = ["succeeds if no node fails"]
    if opening.success is not None:
        word = " or " if opening.success.mode == "any_of" else " and "
        lines = [f"succeeds if {word.join(str(clause) for clause in opening.success.clauses)}"]
    if opening.save:
        lines.append(f"saves {', '.join(str(ref) for ref in opening.save)}")
    return lines


def _terms(node: Node) -> str:
    terms = []
    if node.for_each is not None:
        terms.append(f"for each of {node.for_each.port}, {node.for_each.concurrency} at a time")
        if node.for_each.max_failed:
            terms.append(f"{node.for_each.max_failed} may fail")
    if node.timeout_ms is not None:
        terms.append(f"at most {written(node.timeout_ms)}")
    if node.retry.max_attempts > 1:
        terms.append(f"{node.retry.max_attempts} attempts, {written(node.retry.initial_ms)} apart")
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

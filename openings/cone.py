"""What lies below a place of an opening: the only nodes that a change there can reach.

Knows: edges, and that an item of a mapped node reaches what the whole node reaches. Does not know: what a
change is, or whether it really changed anything (``openings.diff``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openings.definition import Node, Opening
from openings.state import base
from openings.template import template_params

__all__ = ["below", "is_within", "successors", "using_param"]


def below(opening: Opening, places: Iterable[str]) -> frozenset[str]:
    """The places and every node that an edge leads to from them, at any distance.

    A place is a node, or one item of a mapped node (``n[3]``): then the other items are not in it.
    """
    follow = _following(opening)
    found = set(places)
    queue = list(found)
    while queue:
        for node in follow.get(base(queue.pop()), ()):
            if node not in found:
                found.add(node)
                queue.append(node)
    return frozenset(found)


def is_within(node: str, places: frozenset[str]) -> bool:
    """Whether a node, or an item of a mapped one, is among the places."""
    return node in places or base(node) in places


def successors(opening: Opening, node: str) -> tuple[str, ...]:
    """Nodes with an edge from this one, in the order of the edges."""
    return tuple(dict.fromkeys(edge.node for edge in opening.edges if edge.source.node == base(node)))


def using_param(opening: Opening, names: Iterable[str]) -> frozenset[str]:
    """Nodes whose ``with`` has one of the parameters in it."""
    wanted = set(names)
    return frozenset(node.id for node in opening.nodes if wanted & _params(node))


def _params(node: Node) -> set[str | None]:
    with_: Any = node.with_
    return {name for _, _, name in template_params(with_)}


def _following(opening: Opening) -> dict[str, list[str]]:
    follow: dict[str, list[str]] = {}
    for edge in opening.edges:
        follow.setdefault(edge.source.node, []).append(edge.node)
    return follow

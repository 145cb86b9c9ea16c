"""What follows from what in a run: the order of places, and the differences a difference came of.

Knows: edges, parameters, attempts, nested runs. Does not know what differs, or in which runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from openings.cone import using_param
from openings.definition import Opening
from openings.places import INSIDE, RANK, Place
from openings.plan import layers
from openings.state import base, item_of

__all__ = ["Order"]

_BEGINNING = ("param", "limit", "definition", "agent")
_ENDS = ("output", "skip", "cancel")
_CALLS = ("call", "message", "approval", "spend")


class Order:
    """Where the places of an opening's runs stand."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._depth = {node: depth for depth, node in enumerate(chain(*layers(opening)))}
        self._upstream = {
            node.id: frozenset(edge.source.node for edge in opening.inbound(node.id))
            for node in opening.nodes
        }
        self._nested: dict[str, Order] = {}

    def key(self, place: Place) -> tuple[Any, ...]:
        """Sorts places so that what came of something stands behind it."""
        if place.within:
            (node, attempt), *rest = place.within
            inner = self._inner(node).key(replace(place, within=tuple(rest)))
            return (1, *self._node(node), attempt, INSIDE, 0, "", *inner)
        match place.kind:
            case "param" | "limit":
                found: tuple[Any, ...] = (0, RANK[place.kind], place.name)
            case "definition" | "agent":
                found = (0, RANK[place.kind], "", *self._node(place.name), place.name)
            case "artifact":
                found = (2, place.name)
            case "outcome":
                found = (3,)
            case kind:
                rank = INSIDE if kind in _CALLS else RANK[kind]
                found = (1, *self._node(place.name), place.attempt, rank, place.number, kind)
        return found

    def causes(self, place: Place, before: Iterable[Place]) -> Iterator[Place]:
        """The places among ``before`` (all of them differ, in order) that a difference here came of: the
        nearest ones."""
        if place.kind in _BEGINNING:
            return
        near = [other for other in before if self._leads(other, place)]
        if place.kind in ("outcome", "artifact"):
            yield from near
            return
        mine = (place.name, place.within)
        attempt = [o for o in near if (o.name, o.within) == mine and o.kind not in _BEGINNING]
        yield from attempt[-1:] or near

    def _leads(self, cause: Place, place: Place) -> bool:
        """Whether a difference at ``cause`` is next to one at ``place``, or at the same node."""
        if place.kind in ("outcome", "artifact"):
            return cause.within == place.within and cause.kind in _ENDS
        depth = len(cause.within)
        if cause.within != place.within:
            # From the attempt into the run that serves it, and back out at its end.
            deeper = place.within[:depth] == cause.within and len(place.within) > depth
            return deeper and cause.name == place.within[depth][0]
        if cause.kind == "param":
            return base(place.name) in self._of(place.within).using(cause.name)
        if cause.kind == "limit":
            return False
        if cause.name == place.name or base(cause.name) == place.name:
            return True
        upstream = self._of(place.within)._upstream.get(base(place.name), frozenset())
        return cause.kind in _ENDS and base(cause.name) in upstream

    def using(self, param: str) -> frozenset[str]:
        """Nodes that have the parameter in their ``with``."""
        return using_param(self._opening, [param])

    def _node(self, name: str) -> tuple[int, int]:
        node, index = item_of(name)
        return self._depth.get(node, len(self._depth)), -1 if index is None else index

    def _inner(self, node: str) -> Order:
        """Of the opening that the node uses; of this one, if it uses none any more."""
        declared = self._opening.node(base(node))
        name = (None if declared is None else declared.nests) or ""
        nested = self._opening.openings.get(name)
        if nested is None:
            return self
        if name not in self._nested:
            # The outermost opening holds all that are nested, at any depth.
            self._nested[name] = Order(replace(nested, openings=self._opening.openings))
        return self._nested[name]

    def _of(self, within: Iterable[tuple[str, int]]) -> Order:
        order = self
        for node, _ in within:
            order = order._inner(node)
        return order

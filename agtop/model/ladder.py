"""The rungs of a run's ladder, for any number of its facts: which of them cross something, in which lanes.

Knows: which facts are rungs (their places only; a rung is made anew when it is looked at, so that a hundred
thousand of them cost little), the lanes they stand in, which lanes fit a width, and where in the run's time
they lie. Pure, and behind the facts by as much as it has not read yet: :meth:`Ladder.read` goes on in pieces.
Does not know: what a rung says (``runloop.ladder``) or how it is drawn on a screen.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from agtop.model.facts import Fact, told
from runloop.ladder import Lane, Rung, crossing, ordered

__all__ = ["BLOBS", "CHUNK", "GAP_MS", "Facts", "Ladder", "blobs_of", "event_of", "histogram", "window"]

CHUNK = 3_000
"""Facts that are read in one go: some hundredths of a second, so that keys are heard in between."""
GAP_MS = 1_000
"""A silence before a rung that is worth showing."""
_FIXED = ("person", "engine", "gate", "outside", "ledger")


class Facts(Protocol):
    """What is read: a time line, or anything that only grows like one."""

    def __len__(self) -> int: ...

    def fact(self, place: int) -> Fact: ...

    def facts(self, start: int, stop: int) -> Iterable[Fact]: ...


def event_of(fact: Fact) -> dict[str, Any]:
    """The fact as ``Event.to_json`` writes it, as far as a cockpit has it."""
    return {
        "id": fact.id,
        "ts_ms": fact.ts_ms,
        "actor": fact.actor,
        "kind": fact.kind,
        "run": fact.run,
        "payload": told(fact),
        "provenance": {"node": fact.provenance.node, "attempt": fact.provenance.attempt},
    }


class Ladder:
    """An index over facts that only grow in number; it keeps no copy of them."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._seen = 0
        self._places = array("q")
        self._times = array("q")
        self._lanes: dict[Lane, int] = {}
        """Lane -> place of the fact that first stood in it."""

    def read(self, upto: int, most: int = CHUNK) -> bool:
        """Take in the first ``upto`` facts, ``most`` of them now; whether that was all."""
        end = min(upto, len(self._facts))
        first = self._seen
        for place, fact in enumerate(self._facts.facts(first, min(end, first + most)), first):
            rung = _rung(fact)
            if rung is not None:
                self._places.append(place)
                self._times.append(fact.ts_ms)
                for party in (rung.source, rung.target):
                    if party.lane is not None:
                        self._lanes.setdefault(party.lane, place)
            self._seen = place + 1
        return self._seen >= end

    def count(self, index: int) -> int:
        """How many rungs the first ``index`` facts have, as far as they are read."""
        return bisect_left(self._places, index)

    def lanes(self, index: int) -> list[Lane]:
        """Who has taken part in the first ``index`` facts, from left to right."""
        return ordered(lane for lane, place in self._lanes.items() if place < index)

    def fact(self, number: int) -> Fact:
        """The fact of a rung; raises IndexError beyond the last."""
        return self._facts.fact(self._places[number])

    def place(self, number: int) -> int:
        """Where among the facts a rung stands: the first ``place + 1`` of them have it."""
        return self._places[number]

    def rung(self, number: int) -> Rung:
        """One rung; raises IndexError beyond the last."""
        rung = _rung(self.fact(number))
        assert rung is not None
        return rung

    def at_ms(self, number: int) -> int:
        """Milliseconds since the first fact."""
        return self._times[number] - self._facts.fact(0).ts_ms

    def silence_ms(self, number: int) -> int:
        """How long nothing crossed before this rung."""
        return self._times[number] - self._times[number - 1] if number else 0

    def times(self, count: int) -> Sequence[int]:
        """When the first ``count`` rungs were, in order; unix milliseconds."""
        return self._times[:count]


def _rung(fact: Fact) -> Rung | None:
    try:
        return crossing(event_of(fact))
    except (KeyError, TypeError, AttributeError):
        return None  # of a shape this build does not know: counted by the state, no rung to draw


def window(
    lanes: Sequence[Lane], room: int, around: Rung | None, *, least: int, most: int
) -> tuple[list[Lane], int]:
    """Lanes that fit ``room`` columns, and the columns of each (``least`` to ``most``).

    Where not all fit, the fixed ones stay and the nodes are those next to the nodes of ``around``.
    """
    if not lanes:
        return [], most
    if len(lanes) * least <= room:
        return list(lanes), min(most, room // len(lanes))
    fits = max(1, room // least)
    fixed = [lane for lane in lanes if lane.kind in _FIXED][:fits]
    nodes = [lane for lane in lanes if lane.kind not in _FIXED]
    left = max(0, fits - len(fixed))
    wanted = [] if around is None else [around.source.lane, around.target.lane]
    found = [nodes.index(lane) for lane in wanted if lane in nodes]
    start = min(max(0, found[0] - left // 2), max(0, len(nodes) - left)) if found else 0
    shown = {*fixed, *nodes[start : start + left]}
    return [lane for lane in lanes if lane in shown], least


def histogram(times: Sequence[int], began: int, ended: int, buckets: int) -> list[int]:
    """How many of the sorted ``times`` lie in each of ``buckets`` equal parts of ``began`` to ``ended``."""
    length = max(1, ended - began)
    edges = [bisect_right(times, began + length * number // buckets) for number in range(1, buckets)]
    bounds = [0, *edges, len(times)]
    return [after - before for before, after in pairwise(bounds)]


BLOBS: Mapping[str, str] = {
    "input_blob": "what it was given",
    "args_blob": "what was asked",
    "result_blob": "what was answered",
    "content_blob": "the content",
    "body_blob": "the body",
    "blob": "the file",
    "definitions_blob": "the definitions",
}
"""Fields of facts that name bytes the ledger keeps -> what they are, for people."""


def blobs_of(fact: Fact) -> list[tuple[str, str]]:
    """``(what it is, digest)`` of the bytes that a fact names."""
    says = told(fact)
    return [
        (words, says[name]) for name, words in BLOBS.items() if isinstance(says.get(name), str) and says[name]
    ]

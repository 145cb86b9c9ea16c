"""Two runs of an opening compared: what is the same, what differs, which difference came first.

Aligned by node, attempt and number of the call; items of mapped nodes by their index, nested runs inside the
attempt they served. The marks of an effect that one of the two heard from the other's record are no
difference: nobody was asked, and nothing was spent.

Pure: events in, differences out, each with those it came of. Does not know where values lie (a difference
names their blobs) or how they are shown (``openings.shown``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from openings.definition import Opening
from openings.order import Order
from openings.places import RANK, Fact, Place, Told, facts, heard, mark, spent, started
from runloop.errors import UsageError

__all__ = ["Comparison", "Difference", "Fact", "Place", "Told", "compare"]

_DONE = frozenset({"call", "message", "approval", "spend", "frame"})
"""What an attempt does."""
Verdict = Literal["changed", "only_one", "only_other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One place where the runs differ."""

    place: Place
    verdict: Verdict
    fields: tuple[str, ...]
    """What differs there; empty where only one has it."""
    one: Fact | None
    other: Fact | None
    causes: tuple[Place, ...]
    """The differences it came of, the nearest ones; none: it stands at the beginning."""

    def to_json(self) -> dict[str, Any]:
        return {
            "place": str(self.place),
            "kind": self.place.kind,
            "name": self.place.name,
            "attempt": self.place.attempt,
            "number": self.place.number,
            "within": [list(around) for around in self.place.within],
            "verdict": self.verdict,
            "fields": list(self.fields),
            "one": None if self.one is None else {"event": self.one.event, **self.one.says},
            "other": None if self.other is None else {"event": self.other.event, **self.other.says},
            "causes": [str(place) for place in self.causes],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How two runs compare."""

    one: str
    other: str
    differences: tuple[Difference, ...]
    """In order of cause: whatever came of something stands behind it."""
    same: Mapping[str, int]
    """Kind -> places that are equal."""
    spent: tuple[int, int]
    """Micro-USD of either run, nested ones included."""

    @property
    def identical(self) -> bool:
        """Whether there is no difference."""
        return not self.differences

    @property
    def nodes(self) -> frozenset[str]:
        """Nodes that differ in anything."""
        return frozenset(d.place.node for d in self.differences if d.place.node)

    def to_json(self) -> dict[str, Any]:
        counted = Counter(difference.verdict for difference in self.differences)
        return {
            "identical": self.identical,
            "one": self.one,
            "other": self.other,
            "first": self.differences[0].to_json() if self.differences else None,
            "differences": [difference.to_json() for difference in self.differences],
            "figures": {
                "same": sum(self.same.values()),
                **{name: counted[name] for name in ("changed", "only_one", "only_other")},
            },
            "same": dict(self.same),
            "nodes": sorted(self.nodes),
            "spent_micro_usd": list(self.spent),
        }


def compare(one: Told, other: Told) -> Comparison:
    """Compare two runs. Raises :class:`UsageError` for those of different openings, or without beginning."""
    first, second = started(one), started(other)
    if first.opening != second.opening:
        raise UsageError(
            f"run {one.run} is of {first.opening}, run {other.run} of {second.opening}",
            hint="compare two runs of one opening",
            code="diff.openings",
        )
    told = heard(one) | heard(other)
    left, right = _placed(one, told), _placed(other, told)
    cut = _cut(left) & _cut(right)
    order = Order(Opening.from_json(first.definition))
    same: Counter[str] = Counter()
    found: list[Difference] = []
    by_place: dict[Place, Difference] = {}
    for place in sorted({**left, **right}, key=order.key):
        a, b = left.get(place), right.get(place)
        if a is not None and b is not None and a.says == b.says:
            same[place.kind] += 1
            continue
        if (a is None or b is None) and place.kind in _DONE and _attempt(place) in cut:
            continue  # how far an attempt came before the machine ended it is no part of what it did
        difference = Difference(
            place=place,
            verdict="only_other" if a is None else "only_one" if b is None else "changed",
            fields=() if a is None or b is None else _fields(a.says, b.says),
            one=a,
            other=b,
            causes=tuple(order.causes(place, by_place)),
        )
        found.append(difference)
        by_place[place] = difference
    return Comparison(
        one=one.run,
        other=other.run,
        differences=tuple(found),
        same=dict(sorted(same.items(), key=lambda item: RANK[item[0]])),
        spent=(spent(one), spent(other)),
    )


def _placed(one: Told, told: Collection[Any]) -> dict[Place, Fact]:
    """What a run says, by place; of an attempt, the end that came first: a later one came too late."""
    found: dict[Place, Fact] = {}
    for place, fact in facts(one):
        if mark(place) in told or (place.kind == "output" and place in found):
            continue
        found[place] = fact
    return found


def _attempt(place: Place) -> tuple[Any, ...]:
    return place.within, place.name, place.attempt


def _cut(placed: Mapping[Place, Fact]) -> frozenset[tuple[Any, ...]]:
    """Attempts that a machine or the clock ended."""
    return frozenset(
        _attempt(place) for place, fact in placed.items() if place.kind == "output" and fact.by_machine
    )


def _fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name))

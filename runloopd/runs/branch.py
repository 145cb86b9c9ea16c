"""What of a run is tried anew in a fork of it, and what hears the record alone.

Knows: which nodes a change concerns, and what lies below them. Does not know: how the record is heard
(``runs.hearing``), or which runs are forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openings.cone import below, is_within, using_param
from openings.definition import Node, Opening
from openings.state import base
from runloop.digest import canonical
from runloop.events import RunFork, RunStarted
from runloop.ops import OPS
from runloopd.runs.recorded import RecordedAnswer, RecordedAnswers

__all__ = ["Branch", "Cone", "asks_for", "places_inside", "tried_anew", "tried_anew_inside"]

_ALSO: Mapping[str, frozenset[str]] = {
    "tool.call": frozenset(OPS["tool.call"].also),
    "http.fetch": frozenset({"secrets"}),
    "kb.query": frozenset({"kb_read.contacts_raw"}),
    "kb.search": frozenset({"kb_read.contacts_raw"}),
    "kb.read": frozenset({"kb_read.contacts_raw"}),
    "kb.why": frozenset({"kb_read.contacts_raw"}),
    "fs.read": frozenset({"fs_rw"}),
    "fs.list": frozenset({"fs_rw"}),
    "fs.stat": frozenset({"fs_rw"}),
    "fs.write": frozenset({"fs_ro"}),
}
"""Capabilities an answer may depend on, beyond the one its op is named with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """One run that hears another: a fork, or a run nested in one."""

    fork: RunFork
    root: str
    """The fork itself: what a divergence ends."""
    record: RecordedAnswers
    anew: frozenset[str] | None
    """Nodes that are tried anew; None: all."""
    whole: frozenset[str] | None = None
    """See :class:`Cone`."""
    at: tuple[str, ...] = ()
    """Places that were named in this run; ``node/place`` is inside the run that serves a node."""
    alone_before: tuple[str, int, int] | None = None
    """Node, attempt and call before which it hears the record alone though it is tried anew."""

    def is_anew(self, node: str) -> bool:
        """Whether what the record does not know may be asked of the gate."""
        return self.anew is None or is_within(node, self.anew)

    def is_alone(self, node: str, attempt: int, call: int) -> bool:
        """Whether this call hears the record or nothing."""
        if not self.is_anew(node):
            return True
        if self.alone_before is None or self.alone_before[0] != node:
            return False
        return (attempt, call) < self.alone_before[1:]

    def repeats(self, node: str, attempt: int) -> bool:
        """Whether all of an attempt hears the record or nothing."""
        alone = self.alone_before
        return not self.is_anew(node) or (alone is not None and alone[0] == node and attempt < alone[1])

    @property
    def denied(self) -> frozenset[str]:
        """Capabilities the fork goes without."""
        return frozenset(self.fork.changes.get("deny", ()))

    @property
    def model(self) -> str | None:
        """What completions are asked of, where it was changed."""
        found = self.fork.changes.get("model")
        return str(found) if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cone:
    """What of one run is tried anew; None: everything."""

    anew: frozenset[str] | None
    whole: frozenset[str] | None
    """Those of its nodes that are tried anew whatever they start with: they were named, or come after one
    that was. All of a run that serves such a node is tried anew, too."""
    alone_before: tuple[str, int, int] | None = None


ALL = Cone(anew=None, whole=None)
NOTHING_ANEW = Cone(anew=frozenset(), whole=frozenset())

Inside = Callable[[str], Iterable[RecordedAnswers]]
"""Node -> the records of the runs that served it, and of those within them."""


def tried_anew(
    record: RecordedAnswers, opening: Opening, fork: RunFork, inside: Inside = lambda node: ()
) -> Cone:
    """The cone of a fork, and the place in it before which the record is heard alone.

    In it are the nodes that were named, those that have a changed parameter or agent, those that made a call
    which the changed model or rights are about (unless nodes were named: then only below those), every node
    the record is cut off in, and all that lies below any of these. A node that another opening serves is in
    it for what is inside it.
    """
    changed = set(using_param(opening, fork.changes.get("set", ()))) | set(fork.changes.get("agents", ()))
    return _cone(record, opening, fork, fork.at, changed, inside)


def tried_anew_inside(
    record: RecordedAnswers,
    started: RunStarted,
    outer: Branch,
    inside: Inside = lambda node: (),
) -> Cone:
    """The cone within a run that is nested in a fork: what comes of its own parameters that differ, or was
    named inside it. ``record``: of the run it repeats."""
    assert started.parent is not None
    node = started.parent.node
    if not outer.is_anew(node):
        return NOTHING_ANEW
    if outer.whole is None or is_within(node, outer.whole) or not record.run:
        return ALL
    before = record.started.params
    differ = {
        name
        for name in {*before, *started.params}
        if canonical(before.get(name)) != canonical(started.params.get(name))
    }
    opening = Opening.from_json(started.definition)
    at = places_inside(outer.at, node)
    return _cone(record, opening, outer.fork, at, set(using_param(opening, differ)), inside)


def places_inside(at: Iterable[str], node: str) -> tuple[str, ...]:
    """Of places, those inside the run that serves this node, as that run knows them."""
    around = (f"{node}/", f"{base(node)}/")
    return tuple(dict.fromkeys(one.partition("/")[2] for one in at if one.startswith(around)))


def _cone(
    record: RecordedAnswers,
    opening: Opening,
    fork: RunFork,
    at: Sequence[str],
    changed: set[str],
    inside: Inside,
) -> Cone:
    places = set(changed)
    if not fork.at:
        places |= {node.id for node in opening.nodes if _concerned(record, node, fork.changes, inside)}
    elsewhere = below(opening, places)
    places |= {node.id for node in opening.nodes if not record.is_closed(node.id)}
    alone = None
    if fork.call is not None and at and not is_within(at[0], elsewhere):
        alone = (at[0], record.last_attempt(at[0]), fork.call)
    heads = {one.partition("/")[0] for one in at}
    return Cone(
        anew=below(opening, places | heads),
        whole=below(opening, (one for one in at if "/" not in one)),
        alone_before=alone,
    )


def _concerned(record: RecordedAnswers, node: Node, changes: Mapping[str, Any], inside: Inside) -> bool:
    denied = frozenset(changes.get("deny", ()))
    if not denied and not changes.get("model"):
        return False
    if node.nests is not None:
        return any(_depends(answer, changes, denied) for each in inside(node.id) for answer in each.answers())
    return any(_depends(answer, changes, denied) for answer in record.of_whole_node(node.id))


def _depends(answer: RecordedAnswer, changes: Mapping[str, Any], denied: frozenset[str]) -> bool:
    if changes.get("model") and answer.call.op == "model.complete":
        return True
    return bool(asks_for(answer.call.op) & denied)


def asks_for(op: str) -> frozenset[str]:
    """Capabilities that an answer to this op may depend on."""
    row = OPS.get(op)
    if row is None:
        return frozenset()
    own = () if row.capability is None else (row.capability,)
    return frozenset((*own, *row.also)) | _ALSO.get(op, frozenset())

"""What of a run is tried anew in a fork of it, and what hears the record alone.

Knows: which nodes a change concerns, and what lies below them. Does not know: how the record is heard
(``runs.hearing``), or which runs are forks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openings.cone import below, is_within, using_param
from openings.definition import Opening
from runloop.events import RunFork
from runloop.ops import OPS
from runloopd.runs.recorded import RecordedAnswers

__all__ = ["Branch", "asks_for", "tried_anew"]

_ALSO: Mapping[str, frozenset[str]] = {
    "tool.call": frozenset({"tools", "net", "secrets"}),
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


def tried_anew(
    record: RecordedAnswers, opening: Opening, fork: RunFork
) -> tuple[frozenset[str], tuple[str, int, int] | None]:
    """The cone of a fork, and the place in it before which the record is heard alone.

    In it are the nodes that were named, those that have a changed parameter or agent, those that made a call
    which the changed model or rights are about (unless nodes were named: then only below those), every node
    the record is cut off in, and all that lies below any of these.
    """
    changes = fork.changes
    places = set(using_param(opening, changes.get("set", ()))) | set(changes.get("agents", ()))
    if not fork.at:
        places |= {node.id for node in opening.nodes if _concerned(record, node.id, changes)}
    elsewhere = below(opening, places)
    places |= {node.id for node in opening.nodes if not record.is_closed(node.id)}
    alone = None
    if fork.call is not None and not is_within(fork.at[0], elsewhere):
        alone = (fork.at[0], record.last_attempt(fork.at[0]), fork.call)
    return below(opening, places | set(fork.at)), alone


def _concerned(record: RecordedAnswers, node: str, changes: Mapping[str, Any]) -> bool:
    denied = frozenset(changes.get("deny", ()))
    for answer in record.of_whole_node(node):
        if changes.get("model") and answer.call.op == "model.complete":
            return True
        if denied and asks_for(answer.call.op) & denied:
            return True
    return False


def asks_for(op: str) -> frozenset[str]:
    """Capabilities that an answer to this op may depend on."""
    row = OPS.get(op)
    if row is None:
        return frozenset()
    own = () if row.capability is None else (row.capability,)
    return frozenset((*own, *row.also)) | _ALSO.get(op, frozenset())

"""What there is to compare in a run: every fact that is part of what happened, at its place.

Left out is what is no part of it: ids, times, idempotency keys, fuel, the frames' sizes. Knows the kinds of
events. Does not know the other run (``openings.diff``), or what follows from what (``openings.order``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openings.foresee import HOST_SIDE
from runloop.errors import UsageError
from runloop.events import (
    ActionDecided,
    ActionRequested,
    ArtifactCreated,
    Event,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    ModelCalled,
    NodeCancelled,
    NodeExpanded,
    NodeFinished,
    NodeScheduled,
    NodeSkipped,
    RunFinished,
    RunStarted,
)

__all__ = ["INSIDE", "KINDS", "RANK", "Fact", "Place", "Told", "facts", "heard", "mark", "spent", "started"]

KINDS = (
    "param",
    "limit",
    "definition",
    "agent",
    "input",
    "items",
    "frame",
    "call",
    "message",
    "approval",
    "spend",
    "output",
    "skip",
    "cancel",
    "artifact",
    "outcome",
)
"""What is compared, in the order one follows from the other at one place."""
RANK = {kind: rank for rank, kind in enumerate(KINDS)}
INSIDE = RANK["call"]
"""A nested run stands where the calls of an attempt stand."""
_ACTION_IDS = frozenset({"run", "key", "prepared_ms", "message_id"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One run, as it is on record."""

    run: str
    events: Sequence[Event]
    children: Mapping[tuple[str, int], Told] = field(default_factory=dict)
    """Node and attempt -> the nested run that served it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something is in a run."""

    kind: str
    """One of :data:`KINDS`."""
    name: str = ""
    """Node, parameter, limit or artifact."""
    attempt: int = 0
    number: int = 0
    """Of the call, or of the message or frame of this attempt."""
    within: tuple[tuple[str, int], ...] = ()
    """Nodes and attempts of the runs around it, outermost first."""

    @property
    def node(self) -> str:
        """The node of the outermost run that it is in; empty for what is the run's own."""
        if self.within:
            return self.within[0][0]
        return "" if self.kind in ("param", "limit", "artifact", "outcome") else self.name

    def __str__(self) -> str:
        around = "".join(f"{node}/" for node, _ in self.within)
        words = [self.kind, f"{around}{self.name}"] if self.name or around else [self.kind]
        if self.attempt > 1:
            words.append(f"attempt {self.attempt}")
        if self.kind in ("call", "message", "approval", "spend", "frame"):
            words.append(f"#{self.number}")
        return " ".join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """What is compared at a place."""

    says: Mapping[str, Any]
    """Equal in both runs, or it is a difference."""
    event: int
    blobs: Mapping[str, str] = field(default_factory=dict)
    """Field -> digest of its bytes, for whoever wants to show them."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Field -> its value, where the event itself has it."""
    by_machine: bool = False
    """Of an end: the clock or the machine brought it about, not the guest."""


def started(told: Told) -> RunStarted:
    if not told.events or not isinstance(told.events[0].payload, RunStarted):
        raise UsageError(f"the record of run {told.run} does not begin with run.started", code="diff.record")
    return told.events[0].payload


# --- what there is to compare ---------------------------------------------------------------------


def facts(told: Told, within: tuple[tuple[str, int], ...] = ()) -> Iterator[tuple[Place, Fact]]:
    """Everything one run says, with its place."""
    yield from _beginning(started(told), told.events[0].id, within)
    counts: Counter[tuple[str, str, int]] = Counter()
    decided = {
        event.payload.approval: event.payload.decision
        for event in told.events
        if isinstance(event.payload, ActionDecided)
    }
    for event in told.events:
        found = _fact(event, counts, decided, within)
        if found is not None:
            yield found
    for (node, attempt), child in told.children.items():
        yield from facts(child, (*within, (node, attempt)))


def _beginning(
    begun: RunStarted, event: int, within: tuple[tuple[str, int], ...]
) -> Iterator[tuple[Place, Fact]]:
    for name, value in begun.params.items():
        yield Place(kind="param", name=name, within=within), Fact(says={"value": value}, event=event)
    for name, limit in begun.policy.items():
        if name != "quotas":
            yield Place(kind="limit", name=name, within=within), Fact(says={"value": limit}, event=event)
    for name, pin in begun.agents.items():
        says = {"name": pin.name, "version": pin.version, "bundle": pin.bundle_digest}
        yield Place(kind="agent", name=name, within=within), Fact(says=says, event=event)
    definition = begun.definition
    for node in definition.get("nodes", ()):
        # Which agent serves it is told by its pin.
        says = {name: value for name, value in node.items() if name not in ("use", "requires")}
        inbound = [edge for edge in definition.get("edges", ()) if edge["to"][0] == node["id"]]
        place = Place(kind="definition", name=str(node["id"]), within=within)
        yield place, Fact(says={**says, "inbound": inbound}, event=event)


def _fact(  # noqa: PLR0911, PLR0912 - one row per kind of event, read like a table
    event: Event,
    counts: Counter[tuple[str, str, int]],
    decided: Mapping[str, str],
    within: tuple[tuple[str, int], ...],
) -> tuple[Place, Fact] | None:
    """What an event says, with its place; None for one that is no part of the comparison."""
    p = event.payload

    def at(kind: str, name: str, attempt: int = 0, number: int = 0) -> Place:
        return Place(kind=kind, name=name, attempt=attempt, number=number, within=within)

    def fact(blobs: Mapping[str, str] | None = None, **says: Any) -> Fact:
        return Fact(says=says, event=event.id, blobs=blobs or {})

    def counted(kind: str, name: str, attempt: int) -> Place:
        counts[kind, name, attempt] += 1
        return at(kind, name, attempt, counts[kind, name, attempt] - 1)

    match p:
        case NodeScheduled():
            return at("input", p.node, p.attempt), fact({"input": p.input_blob}, input=p.input_digest)
        case NodeExpanded():
            return at("items", p.node), fact(items=p.items, digest=p.items_digest)
        case HostcallDelivered():
            says = fact(
                {"args": p.args_blob, "answer": p.result_blob},
                op=p.op,
                args=p.args_digest,
                ok=p.ok,
                answer=p.result_digest,
            )
            return at("call", p.node, p.attempt, p.call), says
        case MessagePosted():
            says = fact(
                {"content": p.content_blob},
                to=p.to,
                act=p.act,
                conversation=p.conversation,
                in_reply_to=p.in_reply_to,
                content=p.content_digest,
            )
            return counted("message", p.node, p.attempt), says
        case MessageSent() if p.node is not None:
            says = fact(sender=p.sender, receiver=p.receiver, type=p.type)
            # The request is sent again after a crash; it is the same one.
            return at("frame", p.node, p.attempt or 0, int(p.sender.startswith("agent:"))), says
        case ActionRequested():
            action = {name: value for name, value in p.action.items() if name not in _ACTION_IDS}
            says = fact(args=p.args_digest, action=action, decision=decided.get(p.approval))
            return at("approval", p.node, p.attempt, p.call), says
        case ModelCalled():
            says = fact(
                provider=p.provider,
                model=p.model,
                tokens=p.input_tokens + p.output_tokens,
                micro_usd=p.cost_micro_usd,
            )
            return at("spend", p.node, p.attempt, p.call), says
        case NodeFinished():
            return at("output", p.node, p.attempt), _ended(event, p)
        case NodeSkipped():
            return at("skip", p.node), fact(reason=p.reason)
        case NodeCancelled():
            return at("cancel", p.node), fact(reason=p.reason)
        case ArtifactCreated():
            return at("artifact", p.name), fact({"content": p.blob}, content=p.blob, node=p.node)
        case RunFinished():
            error = None if p.error is None else {"code": p.error.code, "message": p.error.message}
            return at("outcome", ""), fact(
                outcome=p.outcome, clause=p.clause, outputs=p.output_digest, error=error
            )
        case _:
            return None


def _ended(event: Event, ended: NodeFinished) -> Fact:
    """How an attempt ended. What a machine ended it by is told in no more than its code."""
    error = ended.error
    if ended.status == "succeeded" or error is None:
        return Fact(
            says={"status": ended.status, "output": ended.output_digest},
            event=event.id,
            values={"output": (ended.output or {}).get("ports")},
        )
    by_machine = ended.status == "timed_out" or error.code in HOST_SIDE
    said: dict[str, Any] = {"status": "failed", "code": error.code}
    if not by_machine:
        said["message"] = error.message
    return Fact(says=said, event=event.id, by_machine=by_machine)


Mark = tuple[tuple[tuple[str, int], ...], str, int, int]


def heard(told: Told, within: tuple[tuple[str, int], ...] = ()) -> frozenset[Mark]:
    """Calls that were answered from another run's record: nobody was asked, and nothing was spent."""
    calls = (event.payload for event in told.events if isinstance(event.payload, HostcallDelivered))
    mine = {(within, call.node, call.attempt, call.call) for call in calls if call.recorded_in is not None}
    nested = (heard(child, (*within, key)) for key, child in told.children.items())
    return frozenset(mine).union(*nested)


def mark(place: Place) -> Mark | None:
    """The call that an approval or a spending belongs to."""
    if place.kind not in ("approval", "spend"):
        return None
    return place.within, place.name, place.attempt, place.number


def spent(told: Told) -> int:
    own = sum(e.payload.cost_micro_usd for e in told.events if isinstance(e.payload, ModelCalled))
    return own + sum(spent(child) for child in told.children.values())

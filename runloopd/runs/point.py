"""Which place of a run somebody means: a node, a message, an event; and where a run was lost.

Knows: the spellings, and what of a node comes before and after an event. Does not know: what is done there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openings.child import inner
from openings.cone import below, successors
from openings.definition import Opening
from openings.state import base
from runloop.errors import NotFoundError, UsageError
from runloop.events import (
    Event,
    HostcallAdmitted,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeFinished,
    NodeScheduled,
    RunStarted,
)
from runloop.ids import child_run_id
from runloop.spelling import did_you_mean
from runloopd.runs.recorded import RecordedAnswers

__all__ = ["Place", "find_place", "lost_nodes"]

CALL_KINDS = (HostcallAdmitted.kind, HostcallDelivered.kind, MessagePosted.kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A point of a run."""

    nodes: tuple[str, ...]
    """Tried anew from there."""
    call: int | None = None
    """Of the one node: before it the record is heard alone."""


def find_place(opening: Opening, events: Sequence[Event], text: str) -> Place:
    """The place that ``text`` means in this run, see :class:`ForkWish`.

    Raises :class:`NotFoundError` for what is not in the run, :class:`UsageError` for what is no place.
    """
    if (path := _inside(opening, text)) is not None:
        return Place(nodes=(path,))
    if opening.node(base(text)) is not None:
        known = {e.payload.node for e in events if isinstance(e.payload, NodeScheduled)}
        if text != base(text) and text not in known:
            raise NotFoundError(
                f"the run has no {text}", hint="'rlp trace' shows its items", code="fork.place"
            )
        return Place(nodes=(text,))
    event = _named(events, text)
    if event is None:
        names = [node.id for node in opening.nodes]
        raise NotFoundError(
            f"the run has no node, message or event {text[:80]!r}",
            hint=did_you_mean(text, names, "") or f"its nodes: {', '.join(names[:20])}; '#N' is an event",
            code="fork.place",
        )
    return _place_of(opening, events, event)


def _inside(opening: Opening, text: str) -> str | None:
    """``node/place``: a node of the run that serves a node, at any depth. None for what is no such path."""
    head, slash, rest = text.partition("/")
    node = opening.node(base(head))
    if not slash or node is None or node.nests is None:
        return None
    inside = inner(opening, node.nests)
    if inside is None or (inside.node(base(rest)) is None and _inside(inside, rest) is None):
        names = [f"{head}/{one.id}" for one in (() if inside is None else inside.nodes)]
        raise NotFoundError(
            f"there is no node {text[:80]!r}", hint=did_you_mean(text, names, "") or None, code="fork.place"
        )
    return text


def _named(events: Sequence[Event], text: str) -> Event | None:
    if text.startswith("#") and text[1:].isascii() and text[1:].isdigit():
        return next((event for event in events if event.id == int(text[1:])), None)
    for event in events:
        payload = event.payload
        if isinstance(payload, MessagePosted) and payload.message == text:
            return event
        if isinstance(payload, MessageSent) and str(payload.msg_id) == text:
            return event
    return None


def _place_of(opening: Opening, events: Sequence[Event], event: Event) -> Place:
    """Where a run is when this event is about to happen; of what a node gave, who hears it."""
    payload, where = event.payload, event.provenance
    node = where.node or getattr(payload, "node", None)
    if isinstance(payload, NodeFinished) or (
        isinstance(payload, MessageSent) and payload.sender.startswith("agent:") and node
    ):
        follow = successors(opening, str(node))
        if not follow:
            raise UsageError(
                f"event {event.id} is the last of its branch: nothing follows it",
                hint=f"fork at the node itself: @{node}",
                code="fork.place",
            )
        return Place(nodes=follow)
    if isinstance(payload, RunStarted):
        return Place(nodes=tuple(n.id for n in opening.nodes if not opening.inbound(n.id)))
    if node is None or opening.node(base(node)) is None:
        raise UsageError(
            f"event {event.id} ({event.kind}) is no place to fork at",
            hint="name a node, a message, or an event of a node",
            code="fork.place",
        )
    if where.call is None or event.kind not in CALL_KINDS:
        return Place(nodes=(node,))
    scheduled = [e.payload for e in events if isinstance(e.payload, NodeScheduled)]
    last = max(each.attempt for each in scheduled if each.node == node)
    if where.attempt != last:
        raise UsageError(
            f"event {event.id} is of attempt {where.attempt} of {node}, and {last} were made",
            hint=f"name an event of attempt {last}, or @{node} for all of it",
            code="fork.place",
        )
    return Place(nodes=(node,), call=where.call)


def lost_nodes(
    opening: Opening,
    record: RecordedAnswers,
    served: Callable[[str], RecordedAnswers] = lambda run: RecordedAnswers((), lambda digest: b""),
) -> tuple[str, ...]:
    """The nodes that failed or were cut off, without those below another such node. Of one that another run
    served, those that were lost in there, as ``node/lost``.

    ``served``: the record of a run, by its id; one without any event where there is none.
    """
    lost = [node.id for node in opening.nodes if record.is_lost(node.id)]
    among = frozenset(lost)
    under = below(opening, (edge.node for edge in opening.edges if edge.source.node in among))
    found: list[str] = []
    for name in lost:
        if name in under:
            continue
        node = opening.node(name)
        assert node is not None
        inside = inner(opening, node.nests) if node.nests is not None else None
        # A fork begins with the first attempt again, and that hears the run which served the first.
        first = RecordedAnswers((), lambda digest: b"")
        if inside is not None and record.scheduled(name, 1) is not None:
            first = served(child_run_id(record.run, name, 1))
        deeper = lost_nodes(inside, first, served) if inside is not None and first.run else ()
        found += [f"{name}/{one}" for one in deeper] or [name]
    return tuple(found)

"""Which attempts a replay will demand, as the record alone tells.

Knows: how an attempt's record becomes a demand, and which ends no guest can repeat. Does not know: whether
the engine agrees (``openings.replay``): what that demands counts, not this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from openings.demands import Reexecute
from openings.state import base
from openings.transcript import Key, Transcript
from runloop.events import (
    Event,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeCancelled,
    NodeFinished,
    NodeScheduled,
    RunStarted,
)

__all__ = ["HOST_SIDE", "demand_of", "foreseen", "is_cut", "is_host_side"]

HOST_SIDE = frozenset({"guest.breach", "guest.crashed", "guest.deadline", "guest.killed", "guest.oom"})
"""Ends of an attempt that the wall clock, the machine or the operator decided, not the guest: its calls can
be compared, its end cannot."""


def is_host_side(finished: NodeFinished) -> bool:
    """Whether the guest did not come to its end by itself; one that burnt no fuel never even began."""
    return finished.error is not None and (finished.error.code in HOST_SIDE or finished.fuel == 0)


def is_cut(finished: NodeFinished) -> bool:
    """Whether the clock or the machine ended the attempt, or it never began: no guest repeats that."""
    return finished.status == "timed_out" or is_host_side(finished)


def foreseen(events: Sequence[Event]) -> Iterator[Reexecute]:
    """The attempts that :func:`replay` is going to demand, as far as the record alone tells.

    For a driver that executes several at a time. What :func:`replay` demands counts, not this.
    """
    transcript = Transcript(events)
    started: RunStarted | None = None
    ends: dict[Key, NodeFinished | None] = {}
    for event in events:
        payload = event.payload
        if isinstance(payload, NodeFinished):
            ends.setdefault((payload.node, payload.attempt), None if is_cut(payload) else payload)
        elif isinstance(payload, NodeCancelled) and payload.attempt is not None:
            ends.setdefault((payload.node, payload.attempt), None)
    for event in events:
        if isinstance(event.payload, RunStarted):
            started = event.payload
        elif isinstance(event.payload, NodeScheduled) and started is not None:
            key = event.payload.node, event.payload.attempt
            demand = demand_of(event.run or "", started, transcript, event, ends.get(key))
            if demand is not None and key in ends and (demand.expected or demand.recorded):
                yield demand


def demand_of(
    run: str, started: RunStarted, transcript: Transcript, event: Event, expected: NodeFinished | None
) -> Reexecute | None:
    """The demand for one attempt; None where no agent is pinned to it."""
    scheduled = cast(NodeScheduled, event.payload)
    pin = started.agents.get(base(scheduled.node))
    if pin is None:
        return None
    record = transcript.of(scheduled.node, scheduled.attempt)
    return Reexecute(
        run=run,
        trace=started.lineage or run,
        node=scheduled.node,
        attempt=scheduled.attempt,
        pin=pin,
        scheduled=event,
        recorded=tuple(cast(HostcallDelivered, answer.payload) for answer in record.calls()),
        frames=tuple(cast(MessageSent, frame.payload) for frame in record.frames),
        posts=tuple(cast(MessagePosted, post.payload) for post in record.posts),
        expected=expected,
    )

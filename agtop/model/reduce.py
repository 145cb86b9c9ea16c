"""``reduce(state, fact) -> state``: what each kind of fact means for a run.

Pure: same arguments, same answer, live or from the record. One function for each kind that changes something
here; other kinds only move the time on, and kinds that this build has never heard of are counted. Facts of
the runs inside (nested openings, delegations) count for spending and for what waits for a person; their nodes
are shown where they are looked at themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agtop.model import asks, crossings, nodes, whole
from agtop.model.facts import Fact, Unknown
from agtop.model.nodes import Changes, replace
from agtop.model.state import RunState
from runloop import events as kinds

__all__ = ["fold", "reduce"]


def fold(state: RunState, facts: Iterable[Fact]) -> RunState:
    """The state after these facts too, oldest first."""
    for fact in facts:
        state = reduce(state, fact)
    return state


def reduce(state: RunState, fact: Fact) -> RunState:
    """The state after one more fact."""
    payload = fact.payload
    if type(payload) is Unknown:
        changes: Changes = {"unknown": state.unknown + 1}
    elif fact.run == state.run:
        handler = _OWN.get(type(payload))
        changes = {} if handler is None else handler(state, fact, payload)
    else:
        handler = _INSIDE.get(type(payload))
        changes = {} if handler is None else handler(state, fact, payload)
    return replace(state, index=state.index + 1, last_id=fact.id, at_ms=fact.ts_ms, **changes)


Handler = Callable[[RunState, Fact, Any], Changes]

_OWN: dict[type[kinds.Payload], Handler] = {
    kinds.RunStarted: whole.run_started,
    kinds.RunResumed: whole.run_resumed,
    kinds.RunCancelRequested: whole.cancel_requested,
    kinds.RunFinished: whole.run_finished,
    kinds.NodeScheduled: nodes.scheduled,
    kinds.NodeFinished: nodes.finished,
    kinds.NodeSkipped: nodes.skipped,
    kinds.NodeCancelled: nodes.cancelled,
    kinds.NodeExpanded: nodes.expanded,
    kinds.NodeGathered: nodes.gathered,
    kinds.HostcallAdmitted: crossings.admitted,
    kinds.HostcallDelivered: crossings.delivered,
    kinds.ModelCalled: crossings.model,
    kinds.MessageSent: crossings.message,
    kinds.MessagePosted: crossings.posted,
    kinds.ActionRequested: asks.requested,
    kinds.ActionDecided: asks.decided,
    kinds.ActionClaimed: asks.claimed,
    kinds.EmailSent: asks.carried_out,
    kinds.ToolCalled: asks.carried_out,
    kinds.PromiseCreated: asks.promised,
    kinds.PromiseResolved: asks.resolved,
    kinds.PromiseTimedOut: asks.timed_out,
    kinds.ArtifactCreated: whole.artifact,
}

_INSIDE: dict[type[kinds.Payload], Handler] = {
    kinds.RunStarted: whole.inside_started,
    kinds.RunFinished: whole.inside_finished,
    kinds.ModelCalled: whole.inside_model,
    kinds.ActionRequested: asks.requested,
    kinds.ActionDecided: asks.decided,
    kinds.ActionClaimed: asks.claimed,
    kinds.EmailSent: asks.carried_out,
    kinds.ToolCalled: asks.carried_out,
    kinds.PromiseCreated: asks.promised,
    kinds.PromiseResolved: asks.resolved,
    kinds.PromiseTimedOut: asks.timed_out,
}

"""``reduce(state, fact) -> state``: what each kind of fact means for a run.

Pure: same arguments, same answer, live or from the record. One function for each kind that changes something
here; other kinds only move the time on, and kinds that this build has never heard of are counted. Facts of
the runs inside (nested openings, delegations) count for spending and for what waits for a person; their nodes
are shown where they are looked at themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agtop.model import asks, nodes, whole
from agtop.model.facts import Fact, Unknown
from agtop.model.nodes import Changes, replace
from agtop.model.state import RunState
from runloop import events as kinds

__all__ = ["fold", "reduce"]


def fold(state: RunState, facts: Iterable[Fact]) -> RunState:
    """The state after these facts too, oldest first.

    Most facts of a long run change nothing that is shown of the whole: they are counted, and not read.
    """
    count, last, run = 0, None, state.run
    for last in facts:
        count += 1
        handler = (_OWN if last.run == run else _INSIDE).get(last.kind)
        if handler is not None or not last.known:
            changes = _changes(state, last, handler)
            if changes:
                state = replace(state, **changes)
    if last is None:
        return state
    return replace(state, index=state.index + count, last_id=last.id, at_ms=last.ts_ms)


def reduce(state: RunState, fact: Fact) -> RunState:
    """The state after one more fact."""
    return fold(state, (fact,))


Handler = Callable[[RunState, Fact, Any], Changes]


def _changes(state: RunState, fact: Fact, handler: Handler | None) -> Changes:
    """What becomes of the state; the place in the run is not the handlers' matter."""
    payload = fact.payload
    if handler is None or type(payload) is Unknown:
        return {"unknown": state.unknown + 1}
    return handler(state, fact, payload)


_ASKS: dict[str, Handler] = {
    kinds.ActionRequested.kind: asks.requested,
    kinds.ActionDecided.kind: asks.decided,
    kinds.ActionClaimed.kind: asks.claimed,
    kinds.EmailSent.kind: asks.carried_out,
    kinds.ToolCalled.kind: asks.carried_out,
    kinds.PromiseCreated.kind: asks.promised,
    kinds.PromiseResolved.kind: asks.resolved,
    kinds.PromiseTimedOut.kind: asks.timed_out,
}
"""What a person is asked and answers: told alike by a run and by those inside it."""
_OWN: dict[str, Handler] = {
    kinds.RunStarted.kind: whole.run_started,
    kinds.RunResumed.kind: whole.run_resumed,
    kinds.RunCancelRequested.kind: whole.cancel_requested,
    kinds.RunFinished.kind: whole.run_finished,
    kinds.NodeScheduled.kind: nodes.scheduled,
    kinds.NodeFinished.kind: nodes.finished,
    kinds.NodeSkipped.kind: nodes.skipped,
    kinds.NodeCancelled.kind: nodes.cancelled,
    kinds.NodeExpanded.kind: nodes.expanded,
    kinds.NodeGathered.kind: nodes.gathered,
    kinds.ModelCalled.kind: nodes.model,
    **_ASKS,
    kinds.ArtifactCreated.kind: whole.artifact,
}

_INSIDE: dict[str, Handler] = {
    kinds.RunStarted.kind: whole.inside_started,
    kinds.RunFinished.kind: whole.inside_finished,
    kinds.ModelCalled.kind: whole.inside_model,
    **_ASKS,
}

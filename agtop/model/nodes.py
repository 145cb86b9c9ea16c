"""What facts of nodes mean: attempts begin and end, models answer and cost, nodes are skipped, mapped ones
get items and gather them.

Each function takes the state, a fact and what it says, and returns the fields that change. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agtop.model.facts import Fact
from agtop.model.state import OVER, AttemptState, NodeState, RunState, Spend
from runloop import events as kinds

__all__ = [
    "Changes",
    "cancelled",
    "cost_of",
    "error_words",
    "expanded",
    "finished",
    "gathered",
    "model",
    "node_of",
    "put",
    "replace",
    "scheduled",
    "skipped",
]

Changes = dict[str, Any]
"""Fields of the state that a fact gives other values."""

replace = msgspec.structs.replace


def error_words(error: kinds.GuestError | None) -> str:
    """An error in one line; foreign text."""
    return "" if error is None else f"{error.code}: {error.message}"


def scheduled(state: RunState, fact: Fact, told: kinds.NodeScheduled) -> Changes:
    node = node_of(state, told.node)
    attempt = AttemptState(attempt=told.attempt, event=fact.id, began_ms=fact.ts_ms)
    # After a crash an attempt is begun anew under its number.
    earlier = tuple(each for each in node.attempts if each.attempt != told.attempt)
    began = replace(
        node, word="running", since_ms=fact.ts_ms, attempts=(*earlier, attempt), asks=0, reason=""
    )
    return put(state, node, began)


def finished(state: RunState, fact: Fact, told: kinds.NodeFinished) -> Changes:
    node = node_of(state, told.node)
    ended = replace(
        node,
        word=told.status,
        since_ms=fact.ts_ms,
        asks=0,
        reason=error_words(told.error),
        attempts=_ended(
            node.attempts,
            told.attempt,
            status=told.status,
            ended_ms=fact.ts_ms,
            calls=told.calls,
            fuel=told.fuel,
            error=error_words(told.error),
        ),
    )
    return put(state, node, ended)


def _ended(attempts: tuple[AttemptState, ...], number: int, **how: Any) -> tuple[AttemptState, ...]:
    return tuple(replace(each, **how) if each.attempt == number else each for each in attempts)


def skipped(state: RunState, fact: Fact, told: kinds.NodeSkipped) -> Changes:
    node = node_of(state, told.node)
    return put(state, node, replace(node, word="skipped", since_ms=fact.ts_ms, reason=told.reason))


def cancelled(state: RunState, fact: Fact, told: kinds.NodeCancelled) -> Changes:
    node = node_of(state, told.node)
    attempts = node.attempts
    if told.attempt is not None:
        attempts = _ended(attempts, told.attempt, status="cancelled", ended_ms=fact.ts_ms)
    ended = replace(
        node, word="cancelled", since_ms=fact.ts_ms, asks=0, reason=told.reason, attempts=attempts
    )
    return put(state, node, ended)


def expanded(state: RunState, fact: Fact, told: kinds.NodeExpanded) -> Changes:
    node = node_of(state, told.node)
    return put(state, node, replace(node, word="running", since_ms=fact.ts_ms, items=told.items))


def gathered(state: RunState, fact: Fact, told: kinds.NodeGathered) -> Changes:
    node = node_of(state, told.node)
    ended = replace(
        node, word=told.status, since_ms=fact.ts_ms, failed=told.failed, reason=error_words(told.error)
    )
    return put(state, node, ended)


def model(state: RunState, _: Fact, told: kinds.ModelCalled) -> Changes:
    cost, node = cost_of(told), node_of(state, told.node)
    paid = replace(node, spend=node.spend.plus(cost))
    return {"spend": state.spend.plus(cost), "nodes": state.nodes.set(node.id, paid)}


def cost_of(told: kinds.ModelCalled) -> Spend:
    """What one answer of a model cost."""
    return Spend(
        micro_usd=told.cost_micro_usd,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        calls=1,
        cached=int(told.source != "asked"),
        saved_micro_usd=told.saved_micro_usd,
    )


def node_of(state: RunState, name: str) -> NodeState:
    """A node as it stands; an item of a mapped one is served by the same agent."""
    known = state.nodes.get(name)
    if known is not None:
        return known
    base = state.nodes.get(name.partition("[")[0])
    return NodeState(id=name, use=base.use if base else "", agent=base.agent if base else "")


def put(state: RunState, before: NodeState, after: NodeState) -> Changes:
    """The node's new state, and what it means for the mapped node it is an item of."""
    nodes = state.nodes.set(after.id, after)
    of, bracket, _ = after.id.partition("[")
    base = nodes.get(of) if bracket else None
    if base is not None:
        done = (after.word in OVER) - (before.word in OVER)
        failed = (after.word in ("failed", "timed_out")) - (before.word in ("failed", "timed_out"))
        if done or failed:
            nodes = nodes.set(of, replace(base, done=base.done + done, failed=base.failed + failed))
    return {"nodes": nodes}

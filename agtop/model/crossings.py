"""What crosses between the parties of a run: host calls and answers, models, messages.

Each function takes the state, a fact and what it says, and returns the fields that change. Pure.
"""

from __future__ import annotations

from agtop.model.facts import Fact
from agtop.model.nodes import Changes, node_of, put, replace
from agtop.model.state import Crossing, RunState, Spend
from runloop import events as kinds

__all__ = ["admitted", "cost_of", "delivered", "message", "model", "posted"]

_HOST = "host"


def admitted(state: RunState, fact: Fact, told: kinds.HostcallAdmitted) -> Changes:
    return {
        "calls": state.calls.set((told.node, told.attempt, told.call), fact.id),
        "crossings": state.crossings.grown(_asked(fact, told)),
    }


def delivered(state: RunState, fact: Fact, told: kinds.HostcallDelivered) -> Changes:
    place = (told.node, told.attempt, told.call)
    began = state.calls.get(place)
    crossings = state.crossings if began is not None else state.crossings.grown(_asked(fact, told))
    answer = Crossing(
        event=fact.id,
        at_ms=fact.ts_ms,
        kind="answer",
        source=_HOST,
        target=told.node,
        label=told.op,
        node=told.node,
        attempt=told.attempt,
        call=told.call,
        ok=told.ok,
        size=told.response_bytes,
        blob=told.result_blob,
        of=began if began is not None else fact.id,
    )
    changes: Changes = {"crossings": crossings.grown(answer)}
    if began is not None:
        changes["calls"] = state.calls.delete(place)
    return changes


def _asked(fact: Fact, told: kinds.HostcallAdmitted | kinds.HostcallDelivered) -> Crossing:
    return Crossing(
        event=fact.id,
        at_ms=fact.ts_ms,
        kind="call",
        source=told.node,
        target=_HOST,
        label=told.op,
        node=told.node,
        attempt=told.attempt,
        call=told.call,
        size=told.request_bytes,
        blob=told.args_blob,
    )


def model(state: RunState, fact: Fact, told: kinds.ModelCalled) -> Changes:
    cost = cost_of(told)
    crossing = Crossing(
        event=fact.id,
        at_ms=fact.ts_ms,
        kind="model",
        source=f"model:{told.provider}",
        target=told.node,
        label=told.model,
        node=told.node,
        attempt=told.attempt,
        call=told.call,
        ok=told.finish != "error",
    )
    node = node_of(state, told.node)
    return {
        "spend": state.spend.plus(cost),
        "crossings": state.crossings.grown(crossing),
        **put(state, node, replace(node, spend=node.spend.plus(cost))),
    }


def cost_of(told: kinds.ModelCalled) -> Spend:
    return Spend(
        micro_usd=told.cost_micro_usd,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        calls=1,
        cached=int(told.source != "asked"),
        saved_micro_usd=told.saved_micro_usd,
    )


def message(state: RunState, fact: Fact, told: kinds.MessageSent) -> Changes:
    crossing = Crossing(
        event=fact.id,
        at_ms=fact.ts_ms,
        kind="message",
        source=told.sender,
        target=told.receiver,
        label=told.type,
        node=told.node,
        attempt=told.attempt,
        size=told.size,
    )
    return {"crossings": state.crossings.grown(crossing)}


def posted(state: RunState, fact: Fact, told: kinds.MessagePosted) -> Changes:
    crossing = Crossing(
        event=fact.id,
        at_ms=fact.ts_ms,
        kind="post",
        source=told.node,
        target=told.to,
        label=told.act,
        node=told.node,
        attempt=told.attempt,
        size=told.size,
        blob=told.content_blob,
    )
    return {"crossings": state.crossings.grown(crossing)}

"""What facts of a whole run mean: it begins, is taken up again, ends; what it leaves; runs inside it.

Each function takes the state, a fact and what it says, and returns the fields that change. Pure.
"""

from __future__ import annotations

from agtop.model.asks import nobody_waits
from agtop.model.facts import Fact
from agtop.model.graph import graph_of
from agtop.model.nodes import Changes, cost_of, error_words
from agtop.model.state import ArtifactRow, NodeState, RunState
from runloop import events as kinds

__all__ = [
    "artifact",
    "cancel_requested",
    "inside_finished",
    "inside_model",
    "inside_started",
    "run_finished",
    "run_resumed",
    "run_started",
]


def run_started(state: RunState, fact: Fact, told: kinds.RunStarted) -> Changes:
    graph = graph_of(told.definition)
    names = {node: pin.name for node, pin in told.agents.items()}
    nodes = {
        node.id: NodeState(id=node.id, use=node.use, agent=names.get(node.id, "")) for node in graph.nodes
    }
    return {
        "opening": told.opening,
        "prompt": told.origin.get("prompt"),
        "principal": told.principal,
        "params": told.params,
        "graph": graph,
        "started_ms": fact.ts_ms,
        "fork_of": told.fork.run if told.fork else None,
        "parent_run": told.parent.run if told.parent else None,
        "parent_node": told.parent.node if told.parent else None,
        "budget_micro_usd": told.policy.get("budget_micro_usd"),
        "budget_tokens": told.policy.get("budget_tokens"),
        "nodes": state.nodes.update(nodes),
    }


def run_resumed(state: RunState, _: Fact, __: kinds.RunResumed) -> Changes:
    return {"resumed": state.resumed + 1}


def cancel_requested(_: RunState, __: Fact, ___: kinds.RunCancelRequested) -> Changes:
    return {"cancelling": True}


def run_finished(state: RunState, fact: Fact, told: kinds.RunFinished) -> Changes:
    return {
        "outcome": told.outcome,
        "clause": told.clause,
        "error": error_words(told.error),
        "finished_ms": fact.ts_ms,
        **nobody_waits(state, None),
    }


def artifact(state: RunState, fact: Fact, told: kinds.ArtifactCreated) -> Changes:
    row = ArtifactRow(
        event=fact.id,
        at_ms=fact.ts_ms,
        name=told.name,
        node=told.node,
        port=told.port,
        media_type=told.media_type,
        blob=told.blob,
        size=told.size,
    )
    return {"artifacts": state.artifacts.grown(row)}


def inside_started(state: RunState, fact: Fact, _: kinds.RunStarted) -> Changes:
    return {"inside": state.inside.set(fact.run or "", "")}


def inside_finished(state: RunState, fact: Fact, told: kinds.RunFinished) -> Changes:
    return {
        "inside": state.inside.set(fact.run or "", told.outcome),
        **nobody_waits(state, fact.run or ""),
    }


def inside_model(state: RunState, _: Fact, told: kinds.ModelCalled) -> Changes:
    return {"spend": state.spend.plus(cost_of(told))}

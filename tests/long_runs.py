"""Long runs made up for measuring and for property tests: as many facts as asked for, much like real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runloop.digest import digest
from runloop.events import (
    AgentPin,
    AgentTransition,
    Draft,
    HostcallAdmitted,
    HostcallDelivered,
    MessageSent,
    ModelCalled,
    NodeFinished,
    NodeScheduled,
    Payload,
    Provenance,
    RunFinished,
    RunStarted,
    TokenIssued,
)

__all__ = ["RUN", "drafts"]

RUN = "5f0c1d52-1111-4222-8333-944455556666"
_D = digest("made up")
_AGENTS = ("planner", "searcher", "writer", "critic")


def drafts(events: int, *, nodes: int = 200, run: str = RUN, finished: bool = True) -> Iterator[Draft]:
    """``events`` facts of one run of ``nodes`` nodes in a chain of diamonds, host calls in most of them."""
    names = [f"n{number:04}" for number in range(nodes)]
    made = 0

    def fact(payload: Payload, node: str | None = None) -> Draft:
        nonlocal made
        made += 1
        return Draft(payload=payload, actor="daemon", run=run, provenance=Provenance(causes=(1,), node=node))

    yield fact(_started(names))
    left = events - 1 - finished
    each = max(8, left // nodes)
    for number, node in enumerate(names):
        more = left - made + 1 if number == nodes - 1 else each
        for payload in _served(node, number, max(4, more)):
            if made > left:
                break
            yield fact(payload, node)
    while finished and made < events:
        yield fact(RunFinished(outcome="succeeded", clause=None, outputs={}, output_digest=_D))


def _started(names: list[str]) -> RunStarted:
    edges: list[dict[str, Any]] = []
    for number, node in enumerate(names[1:], 1):
        above = names[number - 1] if number % 3 else names[max(0, number - 3)]
        edges.append({"from": [above, "out"], "to": [node, "in"]})
    pin = {"version": "1.0.0", "variant": "default", "language": "python"}
    agents = {
        node: AgentPin(name=_AGENTS[at % 4], bundle_digest=_D, component_digest=_D, **pin)
        for at, node in enumerate(names)
    }
    return RunStarted(
        opening="long_run",
        definition={
            "name": "long_run",
            "nodes": [{"id": node, "use": f"agent:{agents[node].name}"} for node in names],
            "edges": edges,
        },
        definition_digest=_D,
        params={},
        agents=agents,
        engine={"logic": 1},
        policy={"budget_micro_usd": 5_000_000, "budget_tokens": None},
        principal="operator:0",
        origin={"via": "cli", "prompt": None, "interactive": False},
    )


def _served(node: str, number: int, count: int) -> Iterator[Payload]:
    agent = _AGENTS[number % 4]
    yield NodeScheduled(node=node, attempt=1, key=_D, input_digest=_D, input_blob=_D)
    yield TokenIssued(token=_D, parent=None, holder=f"agent:{agent}", grants={}, expires_ms=0)
    yield MessageSent(
        sender="daemon",
        receiver=agent,
        topic=f"agent/{agent}",
        type="intent.executor.agent.request.v1",
        schema_id=3001,
        msg_id=number,
        size=900,
        body_digest=_D,
        node=node,
        attempt=1,
    )
    for call in range(max(0, count - 4)):
        yield _said(node, agent, call)
    yield NodeFinished(node=node, attempt=1, status="succeeded", output_digest=_D, fuel=7, calls=count)


def _said(node: str, agent: str, call: int) -> Payload:
    at = {"node": node, "attempt": 1, "call": call // 4}
    match call % 4:
        case 0:
            return HostcallAdmitted(
                **at,
                op="model.complete",
                effect="send",
                key=_D,
                args_digest=_D,
                args_blob=_D,
                request_bytes=2_100,
                fuel=call,
                reserved_micro_usd=1_000,
                reserved_for="local:tiny",
                price_version="2026-11",
            )
        case 1:
            return ModelCalled(
                **at,
                provider="local",
                model="tiny",
                generated=True,
                request_digest=_D,
                answer_digest=_D,
                input_tokens=400,
                output_tokens=120,
                estimated=False,
                reserved_micro_usd=1_000,
                cost_micro_usd=3,
                price_version="2026-11",
                finish="stop",
            )
        case 2:
            return HostcallDelivered(
                **at,
                op="model.complete",
                effect="send",
                args_digest=_D,
                args_blob=_D,
                ok=True,
                result_digest=_D,
                result_blob=_D,
                request_bytes=2_100,
                response_bytes=5_000,
                fuel=call,
            )
        case _:
            return AgentTransition(
                agent=agent, instance="i1", before="WAITING", after="ACTIVE", trigger="resume", node=node
            )

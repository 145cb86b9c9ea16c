"""Ours: ``python -m tests.bench.flows.our_flow chain|wide NODES FOLDER full|normal`` prints one JSON line.

The daemon's own runner, engine, journal, ledger and views over files. Only what an attempt does is taken out,
as it is with the others: it states its output and nothing else, in this process. What a guest in its sandbox
costs beside that is ``python -m tests.bench engine``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openings.definition import Edge, Node, Opening
from openings.expressions import Ref
from pog.ledger import Ledger
from pog.materializer import Materializer
from runloop.clock import SystemClock
from runloop.digest import digest
from runloop.events import AgentPin, Draft, Event, NodeFinished, NodeScheduled, Provenance, RunStarted
from runloop.ids import new_run_id
from runloopd.journal import Journal
from runloopd.runs.runner import Runner

PIN = AgentPin(
    name="step",
    version="1.0.0",
    variant="python",
    bundle_digest="0" * 64,
    component_digest="0" * 64,
    language="python",
)
OUTPUT = {"ports": {"out": [1]}, "artifacts": []}
OUTPUT_DIGEST = digest(OUTPUT)


class Steps:
    """Attempts that only state their end."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        this = cast(NodeScheduled, scheduled.payload)
        ended = NodeFinished(
            node=this.node,
            attempt=this.attempt,
            status="succeeded",
            output=OUTPUT,
            output_digest=OUTPUT_DIGEST,
        )
        made_by = Provenance(causes=(scheduled.id,), node=this.node, attempt=this.attempt, agent=PIN.name)
        await self._journal.append(Draft(payload=ended, actor="daemon", run=run, provenance=made_by))


def opening(shape: str, nodes: int) -> Opening:
    """``chain``: one after another. ``wide``: one, then all but two side by side, then one."""
    names = [f"n{index}" for index in range(nodes)]
    if shape == "chain":
        pairs = list(pairwise(names))
    else:
        pairs = [(names[0], name) for name in names[1:-1]] + [(name, names[-1]) for name in names[1:-1]]
    return Opening(
        name="flow",
        nodes=tuple(Node(id=name, use="agent:step") for name in names),
        edges=tuple(Edge(source=Ref(a, ("out",)), node=b, port="in") for a, b in pairs),
    )


async def run(journal: Journal, made: Opening) -> str:
    """One run from its first event to its last; the outcome."""
    name = new_run_id()
    runner = Runner(name, journal=journal, attempts=Steps(journal), clock=SystemClock(), settled=_settled)
    journal.listen(lambda events: runner.feed(event for event in events if event.run == name))
    started = RunStarted(
        opening=made.name,
        definition=made.to_json(),
        definition_digest=made.digest,
        params={},
        agents={node.id: PIN for node in made.nodes},
        engine={"logic": 1},
        policy={},
        principal="operator:0",
        origin={},
    )
    await journal.append(Draft(payload=started, actor="operator:0", run=name))
    await runner.loop()
    return str(runner.state.outcome)


async def _settled(node: str, attempt: int) -> None:
    """No attempt is stopped from outside."""


async def measure(shape: str, nodes: int, folder: Path, synchronous: str) -> dict[str, object]:
    ledger = Ledger.open(
        folder / "events.db",
        signing_key=Ed25519PrivateKey.generate(),
        synchronous=synchronous.upper(),
        anchor=folder / "ledger.anchor",
    )
    views = Materializer.open(folder / "views.db", folder / "events.db")
    journal = Journal(ledger, views, SystemClock())
    assert await run(journal, opening(shape, 5)) == "succeeded"
    before = journal.head_id
    made = opening(shape, nodes)
    begun = time.perf_counter()
    outcome = await run(journal, made)
    seconds = time.perf_counter() - begun
    await journal.views_at(journal.head_id)
    events = journal.head_id - before
    await journal.close()
    assert outcome == "succeeded", outcome
    return {
        "seconds": seconds,
        "done": nodes,
        "records": events,
        "journal": "wal",
        "synchronous": {"full": 2, "normal": 1}[synchronous],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))))

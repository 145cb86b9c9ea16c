"""A real runtime, with the shipped runner and the shipped agents in it; one for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio

from runloop.bundle.runner import read_pin, unpack
from runloop.digest import canonical
from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime.orders import AttemptOrder, AttemptResult, GuestLimits
from runloopd.runtime.registry import Registry, read_pins
from runloopd.runtime.supervisor import Runtime
from tests.home import CACHE_KEY

SDK = Path(__file__).parents[3] / "sdk"
RUN = "0b7c0b7c-0000-4000-8000-000000000001"
NOW_MS = 1_750_000_000_123


@dataclass
class Script:
    """Answers host calls: a value or a function of the arguments by op; clock, chance and log by itself."""

    says: dict[str, Any] = field(default_factory=dict)
    calls: list[HostCall] = field(default_factory=list)

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call)
        if call.op in self.says:
            said = self.says[call.op]
            said = said(call.args) if callable(said) else said
            return said if isinstance(said, Answer) else Answer(ok=True, value=said)
        if call.op == "time.now":
            return Answer(ok=True, value={"now_ms": NOW_MS})
        if call.op == "random.bytes":
            return Answer(ok=True, value={"base64": "AAEC" * (call.args["n"] // 3 + 1)})
        if call.op in ("log.write", "progress"):
            return Answer(ok=True, value={})
        return Answer(
            ok=False,
            value={"code": "op.refused", "message": f"no {call.op}", "hint": "ask", "retryable": False},
        )

    @property
    def trace(self) -> list[tuple[str, bytes, int]]:
        """Op, arguments and fuel of every call: what a replay must reproduce."""
        return [(call.op, canonical(call.args), call.fuel) for call in self.calls]


class House:
    """Runtime, registry and runner, and the words to run an agent with."""

    def __init__(self, runtime: Runtime, registry: Registry, runner: str) -> None:
        self.runtime = runtime
        self.registry = registry
        self.runner = runner

    async def agent(self, use: str, *, ports: dict[str, Any], script: Script, **with_: Any) -> AttemptResult:
        """One attempt of a shipped agent."""
        agent = self.registry.resolve(use)
        if agent.component_path is not None:
            assert await self.runtime.prepare(agent.component_path) == agent.pin.component_digest
        order = AttemptOrder(
            run=RUN,
            node="n",
            attempt=1,
            component_digest=agent.pin.component_digest,
            source=agent.modules,
            entrypoint=agent.manifest.entrypoint,
            input=asked(ports, with_),
            limits=agent.limits,
            agent=agent.manifest.name,
        )
        return await self.runtime.run_attempt(order, script)

    async def source(
        self, modules: dict[str, str], script: Script | None = None, **limits: Any
    ) -> AttemptResult:
        """One attempt of an agent that is only a few lines."""
        order = AttemptOrder(
            run=RUN,
            node="n",
            attempt=1,
            component_digest=self.runner,
            source=modules,
            entrypoint="agent:handle",
            input=asked({}, {}),
            limits=GuestLimits(**limits),
            agent="lines",
        )
        return await self.runtime.run_attempt(order, script or Script())


def asked(ports: dict[str, Any], with_: dict[str, Any]) -> dict[str, Any]:
    context = {"agent": "a", "node": "n", "attempt": 1, "run": RUN, "trace_id": RUN}
    given = {name: [value] for name, value in ports.items()}
    return {"op": "handle", "message": {}, "ports": given, "with": with_, "context": context}


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def house(compiled: Path) -> AsyncIterator[House]:
    runtime = Runtime(cache_dir=compiled, mac_key=CACHE_KEY)
    await runtime.start()
    try:
        runner = await runtime.prepare(unpack(SDK / "runner", compiled))
        assert runner == read_pin(SDK / "runner").blake3
        agents = SDK / "agents"
        yield House(runtime, Registry([agents], pins=read_pins(agents), runners={"python": runner}), runner)
    finally:
        await runtime.close()

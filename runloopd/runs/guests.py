"""Tools that agents implement: the named agent computes one answer in a sandbox of its own.

Knows: which bundle serves, and that it is given everything it may know as arguments. It has no rights but to
read the clock, to draw chance (each as far as both it and its caller have them) and to talk to the person
watching; so a call of it changes nothing, and what it answers is on record as the answer of its caller's
call. Does not know: who may call it (``broker.tool_plan``), recording (the gate).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from runloop.authoring.cases import Case
from runloop.caps.policy import Override, Policy, effective
from runloop.clock import Clock
from runloop.errors import NotFoundError, RefusedError, RunloopError
from runloopd.broker.asks import Ask
from runloopd.broker.calls import Answer, HostCall
from runloopd.broker.quotas import Quotas
from runloopd.broker.toolbox import ToolError
from runloopd.runtime.orders import AttemptOrder, GuestLimits
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["ToolAgents"]

_BOUNDS = GuestLimits(fuel=10_000_000_000, guest_ms=20_000, host_calls=256, output_bytes=1024 * 1024 + 65_536)
_SILENT = ("log.write", "progress")
_MAX_RANDOM = 65_536


class ToolAgents:
    """Implements :class:`runloopd.broker.tool_errands.ToolGuests`, once :meth:`use` has told it where."""

    def __init__(self, clock: Clock, quotas: Quotas) -> None:
        self._clock = clock
        self._quotas = quotas
        self._runtime: Runtime | None = None

    def use(
        self,
        runtime: Runtime,
        registry: Registry,
        quarantine: Quarantine,
        prepare: Callable[[InstalledAgent], Awaitable[None]],
        override: Callable[[str], Override | None],
    ) -> None:
        """Where agents are found and run. ``prepare`` makes a component ready; ``override`` is the operator's
        word on what an agent may do."""
        self._runtime = runtime
        self._registry = registry
        self._quarantine = quarantine
        self._prepare = prepare
        self._override = override

    async def serve(self, ask: Ask, agent: str | None, tool: str, args: dict[str, Any]) -> Any:
        """See the protocol."""
        if self._runtime is None:
            raise ToolError(f"{tool}: no agent can be started yet", code="tool.unavailable", retryable=True)
        try:
            serving = self._found(ask, agent)
            await self._quarantine.check(serving.manifest.name)
            await self._prepare(serving)
            override = self._override(serving.manifest.name)
        except RunloopError as error:
            raise ToolError(
                f"{tool} cannot be served: {error.message}", hint=error.hint, code="tool.unavailable"
            ) from error
        quota = self._quotas.of(serving.manifest.name)
        limits = serving.limits.narrowed(_BOUNDS)
        order = AttemptOrder(
            run=ask.caller.run,
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            agent=serving.manifest.name,
            component_digest=serving.pin.component_digest,
            source=serving.modules,
            entrypoint=serving.manifest.entrypoint,
            input=Case(name="", op="tool", tool=tool, args=args).guest_input(serving.manifest.name),
            limits=replace(limits, fuel=min(limits.fuel, quota["fuel"].hard)),
            recorded=True,  # its life is no attempt of the run's
        )
        rights = effective(serving.ceiling, serving.policy, override, ask.grants).policy
        result = await self._runtime.run_attempt(order, _Computing(self._clock, serving, rights))
        if not result.ok or result.output is None:
            said = result.error.message if result.error is not None else "it gave nothing"
            raise ToolError(f"{tool} failed: {said[:500]}", hint="report it to the author of the agent")
        values = result.output["ports"].get("result", [])
        if len(values) != 1:
            raise ToolError(f"{tool} failed: a tool answers with one value", code="tool.result")
        return values[0]

    def _found(self, ask: Ask, agent: str | None) -> InstalledAgent:
        if agent is None:
            return self._registry.pinned(ask.caller.pin)
        for one in self._registry.list():
            if one.manifest.name == agent:
                self._registry.object_to(one.pin)
                return one
        raise NotFoundError(f"no agent is called {agent!r}", hint="'rlp agent list' names them")


class _Computing:
    """The host of a guest that only computes. Implements :class:`runloopd.broker.calls.Answerer`."""

    def __init__(self, clock: Clock, agent: InstalledAgent, rights: Policy) -> None:
        self._clock = clock
        self._agent = agent
        self._rights = rights

    async def answer(self, call: HostCall) -> Answer:
        """Clock, chance and talk; everything else is refused."""
        declared = call.op in self._agent.manifest.ops
        args = call.args if isinstance(call.args, dict) else {}
        if declared and call.op in _SILENT:
            return Answer(ok=True, value={})
        if declared and call.op == "time.now" and self._rights.allows("time").allowed:
            return Answer(ok=True, value={"now_ms": self._clock.now_ms()})
        count = args.get("n")
        asked = type(count) is int and 1 <= count <= _MAX_RANDOM
        if declared and asked and call.op == "random.bytes" and self._rights.allows("random").allowed:
            return Answer(ok=True, value={"base64": base64.b64encode(os.urandom(int(args["n"]))).decode()})
        return Answer.refusal(
            RefusedError(
                f"{call.op[:64]} is not there for a tool: it computes, and is given all it may know",
                hint="let the agent that calls it ask, and hand the answer over as an argument",
                code="cap.denied",
            )
        )

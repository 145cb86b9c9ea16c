"""Tries an agent that is not installed: a real worker, a rehearsed world, and no trace but a line in the log.

Knows: how a bundle that somebody hands in is unpacked, run and thrown away again, and the bounds of that.
Does not know: trust (a tried agent gets no rights at all, so nobody needs to vouch for it), runs, the ledger.

Each trial has a sandbox of its own: its zygote never serves anything else, and what was compiled for it is
gone when it ends. Effects cannot happen: nobody behind :class:`runloopd.broker.rehearsal.Rehearsal` could
perform one.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import structlog

from runloop.authoring.cases import MAX_CASES, Case
from runloop.bundle.archive import unpack
from runloop.bundle.tools import Tool, parse_tools
from runloop.caps.policy import effective
from runloop.digest import canonical
from runloop.errors import ConflictError, RunloopError, UsageError
from runloop.ids import new_run_id
from runloopd.broker.calls import Caller
from runloopd.broker.quotas import Quotas
from runloopd.broker.rehearsal import Rehearsal
from runloopd.runtime.orders import MIB, AttemptOrder, AttemptResult, GuestLimits
from runloopd.runtime.registry import InstalledAgent
from runloopd.runtime.supervisor import Runtime

__all__ = ["MAX_TRIED_BYTES", "Trial", "TrialBusy", "TrialCase"]

log = structlog.get_logger(__name__)

MAX_TRIED_BYTES = 64 * MIB
"""Of the archive."""
MAX_WAITING = 4
"""Trials at a time, all but one of them waiting."""
WALL_S = 120
"""Of all cases of a trial; what has not begun by then is not run. Compiling has limits of its own."""
_BOUNDS = GuestLimits(
    fuel=2**53 - 1, memory_bytes=1024 * MIB, guest_ms=30_000, host_calls=10_000, output_bytes=MIB
)
"""The agent's own limits, and never more than these."""
_ANSWER_BYTES = 4 * MIB
"""Of all outputs together: they travel in one frame."""


class TrialBusy(ConflictError):
    """Too many trials at once."""

    code: ClassVar[str] = "trial.busy"


class TrialCase(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"with_": "with"}
):
    """One case, as ``agents.try`` takes it: ``runloop.authoring.cases`` without what is expected."""

    name: str = ""
    op: str = "handle"
    """``handle``, ``tool`` or ``describe``."""
    ports: dict[str, list[Any]] = {}
    with_: dict[str, Any] = {}
    tool: str = ""
    args: dict[str, Any] = {}
    host: dict[str, Any] = {}

    def guest_input(self, agent: str) -> dict[str, Any]:
        """What ``handle`` is called with."""
        if self.op == "describe":
            return {"op": "describe", "context": {"agent": agent}}
        made = Case(
            name=self.name,
            op="tool" if self.op == "tool" else "handle",
            ports=self.ports,
            with_=self.with_,
            tool=self.tool,
            args=self.args,
        )
        return made.guest_input(agent)


class Trial:
    """Tries bundles, one at a time."""

    def __init__(
        self,
        *,
        examine: Callable[[Mapping[str, bytes], Path], InstalledAgent],
        sandbox: Callable[[Path | None], Runtime],
        runners: Mapping[str, Path],
        prepare: Callable[[Path], Awaitable[str]],
        quotas: Quotas,
    ) -> None:
        """``sandbox`` makes a runtime that was not started, with its cache in the given folder, or (None)
        with the daemon's own cache, which holds the runners. ``runners``: language -> component;
        ``prepare`` has one of them compiled into that cache, once for everybody who waits for it."""
        self._examine = examine
        self._sandbox = sandbox
        self._runners = dict(runners)
        self._prepare = prepare
        self._quotas = quotas
        self._turn = asyncio.Lock()
        self._here = 0

    async def run(self, archive: bytes, cases: Sequence[TrialCase], *, who: str) -> dict[str, Any]:
        """``{name, version, bundle_digest, engine, cases: [{ok, ports, output, code, message, …}]}``.

        Raises what unpacking and examining raise, :class:`UsageError` for too much, :class:`TrialBusy`.
        """
        _check(archive, cases)
        if self._here >= MAX_WAITING:
            raise TrialBusy("too many agents are being tried", hint="wait for them to end, and try again")
        self._here += 1
        try:
            async with self._turn:
                return await self._try(archive, cases, who)
        finally:
            self._here -= 1

    async def _try(self, archive: bytes, cases: Sequence[TrialCase], who: str) -> dict[str, Any]:
        package = await asyncio.to_thread(unpack, archive)
        with tempfile.TemporaryDirectory(prefix="runloop-trial-") as folder:
            agent = await asyncio.to_thread(self._examine, package.files, Path(folder))
            tools = await asyncio.to_thread(parse_tools, package.files[agent.manifest.tools])
            component = await asyncio.to_thread(self._component, agent, package.files, Path(folder))
            own = agent.component_path is not None
            if not own:
                await self._prepare(component)
            runtime = self._sandbox(Path(folder) / "cache" if own else None)
            try:
                await runtime.start()
                await runtime.prepare(component)
                outcomes = await self._cases(runtime, agent, tools, cases)
            finally:
                await runtime.close()
            engine = runtime.engine
        log.info(
            "agent_tried",
            agent=agent.manifest.name,
            version=agent.manifest.version,
            bundle=agent.bundle_digest,
            cases=len(cases),
            failures=sum(not outcome["ok"] for outcome in outcomes),
            by=who,
        )
        return {
            "name": agent.manifest.name,
            "version": agent.manifest.version,
            "bundle_digest": agent.bundle_digest,
            "engine": engine,
            "cases": outcomes,
        }

    def _component(self, agent: InstalledAgent, files: Mapping[str, bytes], folder: Path) -> Path:
        if agent.component_path is None:
            return self._runners[agent.manifest.language]
        path = folder / "component.wasm"
        path.write_bytes(files[agent.manifest.entrypoint])
        return path

    async def _cases(
        self,
        runtime: Runtime,
        agent: InstalledAgent,
        tools: tuple[Tool, ...],
        cases: Sequence[TrialCase],
    ) -> list[dict[str, Any]]:
        outcomes, left, began = [], _ANSWER_BYTES, time.monotonic()
        for case in cases:
            if time.monotonic() - began > WALL_S:
                outcomes.append(
                    _failure("trial.deadline", f"the cases before it took longer than {WALL_S} s")
                )
                continue
            outcome = await self._case(runtime, agent, tools, case)
            size = len(canonical(outcome))
            if size > left:
                outcome = _failure("trial.output", "the outputs of all cases together are too large")
            else:
                left -= size
            outcomes.append(outcome)
        return outcomes

    async def _case(
        self, runtime: Runtime, agent: InstalledAgent, tools: tuple[Tool, ...], case: TrialCase
    ) -> dict[str, Any]:
        """One attempt, held to ports and policy as a node's is."""
        if case.op == "handle" and (faults := agent.input_faults(case.ports)):
            return _failure("node.input", "; ".join(faults))
        rehearsal = self._rehearsal(agent, tools, case)
        order = AttemptOrder(
            run=new_run_id(),
            node="test",
            attempt=1,
            agent=agent.manifest.name,
            component_digest=agent.pin.component_digest,
            source=agent.modules,
            entrypoint=agent.manifest.entrypoint,
            input=case.guest_input(agent.manifest.name),
            limits=self._limits(agent),
            recorded=True,
        )
        began = time.monotonic()
        try:
            result = await runtime.run_attempt(order, rehearsal)
        except RunloopError as error:
            return _failure(error.named_code, error.message)
        exceeded = rehearsal.exceeded
        return {
            **(
                _outcome(agent, case, result)
                if exceeded is None
                else _failure(exceeded.named_code, exceeded.message)
            ),
            "fuel": result.fuel,
            "calls": result.calls,
            "ms": round((time.monotonic() - began) * 1000, 1),
            "denied": [msgspec.to_builtins(denial) for denial in rehearsal.denied],
            "unscripted": list(dict.fromkeys(rehearsal.unscripted)),
        }

    def _limits(self, agent: InstalledAgent) -> GuestLimits:
        """The agent's own, the operator's quota, and what a trial may take."""
        quota = self._quotas.of(agent.manifest.name)
        own = agent.limits.narrowed(_BOUNDS)
        return replace(
            own,
            fuel=min(own.fuel, quota["fuel"].hard),
            guest_ms=min(own.guest_ms, quota["wall_ms"].hard),
        )

    def _rehearsal(self, agent: InstalledAgent, tools: tuple[Tool, ...], case: TrialCase) -> Rehearsal:
        """The world of a case; what describes itself gets none: no right, no host call."""
        asks = case.op != "describe"
        caller = Caller(
            run="test",
            node="test",
            attempt=1,
            pin=agent.pin,
            token=b"",
            token_id="",
            ops=frozenset(agent.manifest.ops) if asks else frozenset(),
            scheduled_id=0,
            tools=tools if asks else (),
        )
        grants = effective(agent.ceiling, agent.policy).policy
        return Rehearsal(caller, grants, case.host, self._quotas)


def _check(archive: bytes, cases: Sequence[TrialCase]) -> None:
    if len(archive) > MAX_TRIED_BYTES:
        raise UsageError(
            f"the bundle has {len(archive)} bytes; {MAX_TRIED_BYTES} can be tried", code="trial.size"
        )
    if not 0 < len(cases) <= MAX_CASES:
        raise UsageError(f"{len(cases)} cases; 1 to {MAX_CASES} can be tried at once", code="trial.cases")
    for case in cases:
        if case.op not in ("handle", "tool", "describe"):
            raise UsageError(
                f"there is no op {case.op[:40]!r}", hint="handle, tool or describe", code="trial.op"
            )


def _outcome(agent: InstalledAgent, case: TrialCase, result: AttemptResult) -> dict[str, Any]:
    if not result.ok or result.output is None:
        assert result.error is not None
        return _failure(result.error.code, result.error.message)
    if case.op == "describe":
        return {"ok": True, "output": result.output}
    ports = result.output["ports"]
    faults = agent.output_faults(ports) if case.op == "handle" else _tool_faults(ports)
    if faults:
        return _failure("guest.output", "; ".join(faults))
    return {"ok": True, "ports": ports}


def _tool_faults(ports: Mapping[str, Any]) -> list[str]:
    if set(ports) == {"result"} and len(ports["result"]) == 1:
        return []
    return ["a tool answers with one value on port 'result'"]


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "message": message}

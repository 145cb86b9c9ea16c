"""How one attempt of a node is performed: order out by the bus, result in, end of it in the ledger.

Architecture hops 8 to 11. The same path serves a fresh attempt and one taken up again after a crash: the
recorded answers are the head of what the guest hears, the gate the tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog

from openings.replay import recorded_calls
from openings.state import base
from pog.reader import Reader
from runloop.caps.policy import Policy, effective, everything, union
from runloop.digest import digest
from runloop.errors import FailedError, RunloopError, UsageError
from runloop.events import (
    AgentPin,
    Draft,
    Event,
    GuestError,
    HostcallDelivered,
    MessageSent,
    NodeFinished,
    NodeScheduled,
    Payload,
    Provenance,
    QuotaExceeded,
    RunStarted,
)
from runloop.ids import RunId, run_id_to_int
from runloop.rmp import topics
from runloopd.authority.mint import Mint, Minted
from runloopd.authority.policies import Policies
from runloopd.broker.calls import Answerer, Caller
from runloopd.broker.delegate_ops import bound_of
from runloopd.broker.gate import Gate
from runloopd.broker.quotas import EXCEEDED, Allowance, QuotaError
from runloopd.bus.bus import Bus
from runloopd.bus.parts import ComposedFrame, Delivery
from runloopd.bus.principal import DAEMON
from runloopd.journal import Journal
from runloopd.runs.answers import ResumingAnswerer
from runloopd.runs.guests import ToolAgents
from runloopd.runs.underway import UnderWay
from runloopd.runtime.exchange import request
from runloopd.runtime.failures import BREACH
from runloopd.runtime.mailbox import Mailbox, Order
from runloopd.runtime.orders import AttemptOrder, GuestLimits
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["BusAttempts", "guest_input", "order_for"]

log = structlog.get_logger(__name__)


def guest_input(
    run: str, scheduled: NodeScheduled, pin: AgentPin, given: dict[str, Any], message_type: str
) -> dict[str, Any]:
    """What ``handle`` is called with (spec/agent-abi.md): a pure function of the record.

    ``run``: as the guest shall know it, its lineage: a fork is, for its guests, the run it branched off.
    """
    ports = given.get("ports", {})
    return {
        "op": "handle",
        "message": {"type": message_type, "payload": {**given.get("with", {}), **_last(ports)}, "meta": {}},
        "ports": ports,
        "with": given.get("with", {}),
        "context": {
            "agent": pin.name,
            "node": scheduled.node,
            "attempt": scheduled.attempt,
            "run": run,
            "trace_id": run,
        },
    }


def _last(ports: dict[str, Any]) -> dict[str, Any]:
    return {name: values[-1] for name, values in ports.items() if values}


def order_for(
    run: str,
    scheduled: NodeScheduled,
    pin: AgentPin,
    agent: InstalledAgent,
    given: dict[str, Any],
    allowance: Allowance,
    *,
    lineage: str | None = None,
) -> AttemptOrder:
    """The sandbox's order for an attempt: the same for live, recovery and replay, but for the clock.

    ``lineage``: that of the run, as ``run.started`` has it.
    """
    limits, ends = _within(agent.limits, allowance)
    return AttemptOrder(
        run=run,
        node=scheduled.node,
        attempt=scheduled.attempt,
        agent=pin.name,
        component_digest=pin.component_digest,
        source=agent.modules,
        entrypoint=agent.manifest.entrypoint,
        input=guest_input(lineage or run, scheduled, pin, given, agent.manifest.accepts),
        limits=limits,
        quota_ends=ends,
    )


def _within(limits: GuestLimits, left: Allowance) -> tuple[GuestLimits, dict[str, GuestError]]:
    """The agent's own bounds, or what its quota has left where that is less; and what reaching that means."""
    ends: dict[str, GuestError] = {}
    if left.fuel_left < limits.fuel:
        limits = replace(limits, fuel=max(1, left.fuel_left))
        error = QuotaError("fuel", left.fuel.hard, left.fuel_used, limits.fuel)
        ends["guest.fuel"] = GuestError(code=EXCEEDED, message=error.message)
    if left.wall_ms is not None and left.wall_left is not None and left.wall_left < limits.guest_ms:
        limits = replace(limits, guest_ms=max(1, left.wall_left))
        error = QuotaError("wall_ms", left.wall_ms.hard, left.wall_used, limits.guest_ms)
        # Still a deadline by its code: what the clock decides, a replay cannot decide again.
        ends["guest.deadline"] = GuestError(code="guest.deadline", message=error.message)
    return limits, ends


def _live(_: Caller, live: Answerer) -> Answerer:
    return live


_CUTS = {EXCEEDED: "fuel", "guest.deadline": "wall_ms"}
"""Code of an attempt that its quota cut -> the resource."""


class BusAttempts:
    """Performs attempts through the bus. Implements :class:`runloopd.runs.runner.Attempts`."""

    def __init__(
        self,
        *,
        bus: Bus,
        mailbox: Mailbox,
        runtime: Runtime,
        registry: Registry,
        runners: Mapping[str, Path],
        mint: Mint,
        policies: Policies,
        gate: Gate,
        journal: Journal,
        reader: Reader,
        quarantine: Quarantine,
        answers: Callable[[Caller, Answerer], Answerer] = _live,
        narrowed: Callable[[str, Policy], Policy] = lambda run, rights: rights,
        guests: ToolAgents | None = None,
    ) -> None:
        """``runners``: language -> the component that executes its source. ``answers``: what stands between
        an attempt's own record and the gate; given the gate's answerer, it may answer some calls otherwise.
        ``narrowed``: what is left of a run's rights. ``guests``: who serves tools with these agents."""
        if guests is not None:
            guests.use(runtime, registry, quarantine, self.prepare, policies.override)
        self._bus = bus
        self._mailbox = mailbox
        self._runtime = runtime
        self._registry = registry
        self._runners = dict(runners)
        self._mint = mint
        self._policies = policies
        self._gate = gate
        self._journal = journal
        self._reader = reader
        self._quarantine = quarantine
        self._answers = answers
        self._narrowed = narrowed
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._bounds: dict[str, asyncio.Task[Policy]] = {}
        self.under_way = UnderWay()
        """The attempts that are made now."""
        self._unprepared: dict[str, str] = {}
        """Bundle digest -> why its component could not be made ready when that was last tried."""
        bus.subscribe("rlp/runs/*", self._replied, principal=DAEMON)

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        """See the protocol. Raises only when the end could not be recorded, or when cancelled."""
        this = cast(NodeScheduled, scheduled.payload)
        pin = cast(RunStarted, started.payload).agents[base(this.node)]
        with self.under_way.made((run, this.node, this.attempt), pin.name, scheduled.id) as made:
            try:
                result = await self._execute(run, this, pin, started, scheduled)
            except RunloopError as error:
                log.warning(
                    "attempt_failed", run=run, node=this.node, code=error.named_code, why=error.message
                )
                result = {"ok": False, "error": _as_json(error), "output": None, "fuel": 0, "calls": 0}
            causes = (*self._gate.heard(run, this.node, this.attempt), *made.stated)
            finished = _finished(this, result)
            await self._journal.append(self._draft(run, scheduled, pin, finished, also=causes))

    def forget(self, run: str) -> None:
        """The run is over: its token is dropped, never to be used again."""
        self._bounds.pop(run, None)
        self._mint.forget(run)

    async def prepare(self, agent: InstalledAgent) -> None:
        """Make the agent's component ready in the sandbox, compiling it if this is its first time."""
        await self._runtime.prepare(agent.component_path or self._runners[agent.manifest.language])

    async def make_ready(self, agent: InstalledAgent) -> None:
        """The same for an agent that is to be run; ``unprepared`` says of a failure until it goes well."""
        try:
            await self.prepare(agent)
        except RunloopError as error:
            self._unprepared[agent.bundle_digest] = error.message
            raise
        self._unprepared.pop(agent.bundle_digest, None)

    def unprepared(self) -> dict[str, str]:
        """Agents that are here and could not be made ready, each with the reason."""
        if not self._unprepared:
            return {}
        here = ((one.manifest.name, self._unprepared.get(one.bundle_digest)) for one in self._registry.list())
        return {name: why for name, why in here if why is not None}

    async def _execute(
        self, run: str, this: NodeScheduled, pin: AgentPin, started: Event, scheduled: Event
    ) -> dict[str, Any]:
        await self._quarantine.check(pin.name)
        allowance = await self._allowance(run, this, scheduled, pin)
        engine = cast(RunStarted, started.payload).engine
        # A run that outlives its build goes on with what its agents were served when it began.
        agent = self._registry.pinned(pin, library=engine.get("library"))
        await self.make_ready(agent)
        token = await self._node_token(run, this, agent, started, scheduled)
        # Compiling takes its time, and who was stopped meanwhile held no token yet that could be voided.
        await self._quarantine.check(pin.name)
        self.under_way.heed((run, this.node, this.attempt))
        self._registry.object_to(pin)
        caller = Caller(
            run=run,
            node=this.node,
            attempt=this.attempt,
            pin=pin,
            token=token.data,
            token_id=token.id,
            ops=frozenset(agent.manifest.ops),
            scheduled_id=scheduled.id,
            tools=agent.tools,
        )

        def recorded() -> Sequence[HostcallDelivered]:
            before = map(self._reader.event, self._gate.heard(run, this.node, this.attempt))
            return recorded_calls(before, this.node, this.attempt)

        live = self._answers(caller, self._gate.answerer(caller))
        answerer = ResumingAnswerer(recorded, self._reader.blob, live)
        given = decode_input(self._reader.blob(this.input_blob))
        if faults := agent.input_faults(given.get("ports", {})):
            raise UsageError(f"{this.node}: {'; '.join(faults)}", code="node.input")
        lineage = cast(RunStarted, started.payload).lineage
        order = order_for(run, this, pin, agent, given, allowance, lineage=lineage)
        result = await self._exchange(run, scheduled, order, answerer, pin)
        await self._state_cut(order, scheduled, pin, allowance, result)
        if (result.get("error") or {}).get("code") == BREACH:
            # Whatever made the worker lie may have been used to narrow and pass its rights on.
            await self._mint.revoke(token.id, f"breach by {pin.name} in {this.node}")
        return _checked(agent, result)

    async def _exchange(
        self, run: str, scheduled: Event, order: AttemptOrder, answerer: ResumingAnswerer, pin: AgentPin
    ) -> dict[str, Any]:
        """Send the request to the agent's mailbox and wait for its response: two frames on the bus."""

        async def announce(frame: ComposedFrame, sender: str, receiver: str) -> None:
            await self._announce(run, scheduled, pin, frame, sender, receiver)

        key = (run, order.node, order.attempt)
        reply_to = topics.run_reply(run, order.node, order.attempt)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.under_way.waits(key, reply)
        self._replies[reply_to] = reply

        def failed(error: RunloopError) -> None:
            if not reply.done():
                reply.set_exception(error)

        self._mailbox.expect(key, Order(attempt=order, answerer=answerer, announce=announce, failed=failed))
        try:
            letter = request(order)
            frame = self._bus.compose(
                letter.sender,
                letter.topic,
                letter.type,
                letter.payload,
                trace_id=run_id_to_int(RunId(run)),
                meta=letter.meta,
            )
            await announce(frame, letter.sender.label, letter.receiver)
            receipt = self._bus.publish(frame)
            if receipt.receivers == 0:
                raise FailedError(f"nobody serves agent/{pin.name}", code="agent.unreachable")
            return await reply
        finally:
            self._replies.pop(reply_to, None)
            self._mailbox.forget(key)

    # --- quotas -----------------------------------------------------------------------------------

    async def _allowance(self, run: str, this: NodeScheduled, scheduled: Event, pin: AgentPin) -> Allowance:
        """What the agent's quota leaves to this attempt; refuses it, on record, when that is nothing."""
        try:
            left, warnings = self._gate.allowance(run, pin.name, this.node, this.attempt)
        except QuotaError as error:
            facts = self._gate.exceeded(run, pin.name, error.fact(pin.name))
            await self._journal.append(*(self._draft(run, scheduled, pin, fact) for fact in facts))
            raise
        if warnings:
            await self._journal.append(*(self._draft(run, scheduled, pin, fact) for fact in warnings))
        return left

    async def _state_cut(
        self, order: AttemptOrder, scheduled: Event, pin: AgentPin, left: Allowance, result: dict[str, Any]
    ) -> None:
        """State that the quota ended the attempt between two calls; at a call the gate has said so."""
        error = result.get("error") or {}
        end = next((e for e in order.quota_ends.values() if e.message == error.get("message")), None)
        if end is None or end.code != error.get("code"):
            return
        resource = _CUTS[end.code]
        limit = left.fuel if resource == "fuel" else left.wall_ms
        assert limit is not None
        fact = QuotaExceeded(agent=pin.name, resource=resource, limit=limit.hard, used=limit.hard)
        facts = self._gate.exceeded(order.run, pin.name, fact)
        await self._journal.append(*(self._draft(order.run, scheduled, pin, fact) for fact in facts))

    # --- tokens -----------------------------------------------------------------------------------

    async def _node_token(
        self, run: str, this: NodeScheduled, agent: InstalledAgent, started: Event, scheduled: Event
    ) -> Minted:
        """The run's token narrowed to what this agent may do now; the gate checks nothing wider."""
        rights = await self._bound(run, started)
        while True:
            override = self._policies.override(agent.manifest.name)
            left = effective(agent.ceiling, agent.policy, override, rights)
            token = await self._mint.for_node(run, this.node, agent.pin, left.policy, cause=scheduled.id)
            if self._policies.override(agent.manifest.name) == override:
                return token
            # A right taken away while the token was being made did not find it among those to void.
            await self._mint.revoke(token.id, f"what {agent.manifest.name} may do changed meanwhile")

    async def _bound(self, run: str, started: Event) -> Policy:
        """What the run's token is good for; it is minted when the first attempt asks."""
        bound = self._bounds.get(run)
        if bound is None:
            bound = self._bounds[run] = asyncio.create_task(self._mint_run_token(run, started))
        try:
            return await asyncio.shield(bound)
        except RunloopError:
            self._bounds.pop(run, None)  # the next attempt asks again: the operator may have mended it
            raise

    async def _mint_run_token(self, run: str, started: Event) -> Policy:
        """Mint the token of the run, good for what its agents may do together; return those rights.

        A nested run gets no more than the run around it holds, and no longer.
        """
        this = cast(RunStarted, started.payload)
        # Those of nested openings included: what a nested run holds is within what this one does.
        pins = {pin.bundle_digest: pin for pin in this.agents.values()}
        agents = [self._registry.pinned(pin) for pin in pins.values()]
        bound = union(
            self._policies.effective(agent.manifest.name, agent.ceiling, agent.policy).policy
            for agent in agents
        )
        bound = self._narrowed(run, bound)
        around = None if this.parent is None else this.parent.run
        if around is not None:
            held = await self._bound(around, next(self._reader.events(run=around, limit=1)))
            bound = effective(everything(), bound, None, held).policy
        if (passed_on := bound_of(this)) is not None:
            bound = effective(everything(), bound, None, passed_on).policy
        await self._mint.for_run(run, bound, cause=started.id, within=around)
        return bound

    # --- facts ------------------------------------------------------------------------------------

    def _replied(self, delivery: Delivery) -> None:
        reply = self._replies.get(delivery.topic)
        if reply is not None and not reply.done():
            reply.set_result(delivery.payload)

    async def _announce(
        self, run: str, scheduled: Event, pin: AgentPin, frame: ComposedFrame, sender: str, receiver: str
    ) -> None:
        this = cast(NodeScheduled, scheduled.payload)
        sent = MessageSent(
            sender=sender,
            receiver=receiver,
            topic=frame.topic,
            type=frame.type,
            schema_id=frame.schema_id,
            msg_id=frame.msg_id,
            size=frame.size,
            body_digest=frame.body_digest,
            node=this.node,
            attempt=this.attempt,
        )
        await self._journal.append(self._draft(run, scheduled, pin, sent))

    def _draft(
        self, run: str, scheduled: Event, pin: AgentPin, payload: Payload, *, also: Sequence[int] = ()
    ) -> Draft:
        """``also``: ledger ids of what the guest heard before it stated this."""
        this = cast(NodeScheduled, scheduled.payload)
        return Draft(
            payload=payload,
            actor="daemon",
            run=run,
            provenance=Provenance(
                causes=(scheduled.id, *also),
                node=this.node,
                attempt=this.attempt,
                agent=pin.name,
                bundle=pin.bundle_digest,
            ),
        )


def decode_input(data: bytes) -> dict[str, Any]:
    """The ``{ports, with}`` object of a scheduled attempt."""
    return msgspec.json.decode(data, type=dict[str, Any])


def _finished(this: NodeScheduled, result: dict[str, Any]) -> NodeFinished:
    """How the attempt ended, from a response payload that a guest's host wrote."""
    error = result.get("error")
    output = result.get("output") if result.get("ok") else None
    try:
        output_digest = digest(output) if output is not None else None
    except UsageError as bad:
        output, output_digest = None, None
        error = {"code": "guest.output", "message": bad.message, "retryable": False}
    return NodeFinished(
        node=this.node,
        attempt=this.attempt,
        status="succeeded" if output is not None else "failed",
        output=output,
        output_digest=output_digest,
        error=None
        if output is not None
        else GuestError(
            code=str((error or {}).get("code", "guest.error")),
            message=str((error or {}).get("message", "no reason given")),
            retryable=bool((error or {}).get("retryable", False)),
        ),
        fuel=int(result.get("fuel", 0)),
        calls=int(result.get("calls", 0)),
    )


def _checked(agent: InstalledAgent, result: dict[str, Any]) -> dict[str, Any]:
    """Hold an agent to its manifest: an output that does not fit its ports is a failed attempt."""
    output = result.get("output")
    if not result.get("ok") or not isinstance(output, dict):
        return result
    fault = output_fault(agent, output)
    if fault is None:
        return result
    return {**result, "ok": False, "output": None, "error": msgspec.to_builtins(fault)}


def output_fault(agent: InstalledAgent, output: Mapping[str, Any]) -> GuestError | None:
    """What is wrong with an output by the agent's own manifest; the same live and in replay."""
    faults = agent.output_faults(output.get("ports", {}))
    return GuestError(code="guest.output", message="; ".join(faults), retryable=False) if faults else None


def _as_json(error: RunloopError) -> dict[str, Any]:
    retryable = bool(getattr(error, "retryable", False))
    return {"code": error.named_code, "message": error.message, "retryable": retryable}

"""Agents that are kept from running: by the breaker when they flap, by the operator when he says so.

Knows: who is quarantined since when and why, as a fold of the ledger, so that a restart changes nothing.
Does not know: how an attempt is refused on its way (``runs.attempts`` asks :meth:`Quarantine.check`).

A quarantine is of a name, whatever bundle answers to it: another version is no reason to trust it again.
Only the operator lifts it; then the counting starts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import structlog

from runloop.errors import ConflictError, NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import (
    AgentQuarantined,
    AgentReleased,
    AgentTransition,
    Draft,
    Event,
    NodeFinished,
    Provenance,
)
from runloop.ids import agent_name
from runloopd.authority.mint import Mint
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.failures import FLAPPING, RESTARTED
from runloopd.runtime.lifecycle import Trigger

__all__ = ["KINDS", "AgentQuarantinedError", "Quarantine"]

log = structlog.get_logger(__name__)

KINDS = (AgentQuarantined.kind, AgentReleased.kind, NodeFinished.kind, AgentTransition.kind)
"""What the state is folded from."""
REASON_CHARS = 500


class AgentQuarantinedError(RefusedError):
    """The agent may not run until the operator releases it."""

    code: ClassVar[str] = "agent.quarantined"

    def __init__(self, agent: str, reason: str) -> None:
        super().__init__(
            f"{agent} is quarantined: {reason}",
            hint=f"when its cause is mended: 'rlp agent release {agent}'",
            agent=agent,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One agent that may not run."""

    agent: str
    bundle: str | None
    reason: str
    evidence: tuple[int, ...]
    by: Literal["breaker", "operator"]
    event: int
    """Ledger id of ``agent.quarantined``."""
    since_ms: int
    tree: str | None
    """The outermost run in which a tripwire tripped."""

    def to_json(self) -> dict[str, Any]:
        return {
            "agent": self.agent,
            "bundle": self.bundle,
            "reason": self.reason,
            "evidence": list(self.evidence),
            "by": self.by,
            "event": self.event,
            "since_ms": self.since_ms,
            "tree": self.tree,
        }


class Quarantine:
    """Who may not run. One per daemon."""

    def __init__(self, journal: Journal, mint: Mint, breaker: Breaker) -> None:
        self._journal = journal
        self._mint = mint
        self._breaker = breaker
        self._held: dict[str, Held] = {}
        self._tripped: dict[str, AgentQuarantined] = {}
        """Agents the breaker has stopped and no event says so yet."""
        self._stating: dict[str, asyncio.Task[None]] = {}
        journal.listen(self._observe)

    def restore(self, events: Iterable[Event]) -> None:
        """Take in events of :data:`KINDS`, in order: once, before the first attempt."""
        for event in events:
            self._fold(event)

    def show(self) -> list[dict[str, Any]]:
        """Who is held, for people."""
        return [self._held[name].to_json() for name in sorted(self._held)]

    async def check(self, agent: str) -> None:
        """Raise :class:`AgentQuarantinedError` for an agent that may not run.

        The refusal is in the ledger before it is heard. When the ledger refuses the fact, the agent is
        refused all the same.
        """
        tripped = self._tripped.get(agent)
        if tripped is not None:
            await self._state(agent)
        held = self._held.get(agent)
        if held is not None or tripped is not None:
            raise AgentQuarantinedError(agent, held.reason if held else cast(Any, tripped).reason)

    async def impose(self, principal: Principal, agent: str, reason: str) -> dict[str, Any]:
        """Quarantine by hand; what its attempts under way ask for from now on is refused too."""
        name = agent_name(agent)
        if name in self._held:
            raise ConflictError(
                f"{name} is quarantined already: {self._held[name].reason}",
                hint=f"'rlp agent release {name}' lifts it",
                code="agent.quarantined",
            )
        fact = AgentQuarantined(
            name=name,
            bundle=None,
            reason=_reason(reason),
            evidence=[],
            by="operator",
            principal=principal.label,
        )
        await self._append(fact, name, principal.label)
        voided = await self._mint.revoke_agent(name, f"{name} was quarantined", actor=principal.label)
        return {**self._held[name].to_json(), "tokens_voided": len(voided)}

    def why(self, agent: str) -> str | None:
        """Why an agent may not run; None while it may."""
        held, tripped = self._held.get(agent), self._tripped.get(agent)
        return held.reason if held is not None else tripped.reason if tripped is not None else None

    def leaked(self, tree: str) -> str | None:
        """The agent that a tripwire holds for what it sent in this tree of runs; None where none is."""
        stated = (name for name, one in self._held.items() if one.tree == tree)
        meant = (name for name, one in self._tripped.items() if one.tree == tree)
        return next(stated, None) or next(meant, None)

    def trip(self, agent: str, reason: str, tree: str | None) -> None:
        """A tripwire of the gate: held from now on, attempts under way included; on record in a moment.
        ``tree``: the outermost run of those it tripped in."""
        if self.why(agent) is not None:
            return
        self._tripped[agent] = AgentQuarantined(
            name=agent,
            bundle=None,
            reason=f"tripwire: {reason}"[:REASON_CHARS],
            evidence=[],
            by="breaker",
            principal="daemon",
            tree=tree,
        )
        self._stating[agent] = task = asyncio.create_task(self._suspend(agent))
        task.add_done_callback(lambda _: self._stating.pop(agent, None))

    async def _suspend(self, agent: str) -> None:
        await self._state_tripped(agent)
        try:
            await self._mint.revoke_agent(agent, f"{agent} was suspended by a tripwire", actor="daemon")
        except RunloopError as error:
            log.error("quarantine_unrecorded", agent=agent, reason=error.message)

    async def lift(self, principal: Principal, agent: str, reason: str) -> dict[str, Any]:
        """Let an agent run again; its failures are counted anew."""
        name = agent_name(agent)
        if name in self._tripped:
            await self._state(name)
        if name not in self._held:
            raise NotFoundError(
                f"{name} is not quarantined",
                hint="'rlp doctor' and 'rlp list' name who is",
                code="agent.free",
            )
        fact = AgentReleased(name=name, reason=_reason(reason), principal=principal.label)
        event = await self._append(fact, name, principal.label)
        return {"agent": name, "event": event}

    async def close(self) -> None:
        """Let facts on their way arrive."""
        await asyncio.gather(*self._stating.values(), return_exceptions=True)

    # --- the fold ---------------------------------------------------------------------------------

    def _observe(self, events: list[Event]) -> None:
        for event in events:
            self._fold(event)
        for agent in self._tripped.keys() - self._stating.keys():
            self._stating[agent] = task = asyncio.create_task(self._state_tripped(agent))
            task.add_done_callback(lambda _, agent=agent: self._stating.pop(agent, None))  # type: ignore[misc]

    def _fold(self, event: Event) -> None:
        payload = event.payload
        if isinstance(payload, AgentQuarantined):
            self._tripped.pop(payload.name, None)
            self._held[payload.name] = Held(
                agent=payload.name,
                bundle=payload.bundle,
                reason=payload.reason,
                evidence=tuple(payload.evidence),
                by=payload.by,
                event=event.id,
                since_ms=event.ts_ms,
                tree=payload.tree,
            )
        elif isinstance(payload, AgentReleased):
            self._held.pop(payload.name, None)
            self._tripped.pop(payload.name, None)
            self._breaker.forget(payload.name)
        elif (failure := _failure(event)) is not None:
            self._count(event, *failure)

    def _count(self, event: Event, agent: str, why: str) -> None:
        evidence = self._breaker.note(agent, event.ts_ms, event.id)
        if evidence and agent not in self._held and agent not in self._tripped:
            seconds = self._breaker.window_ms // 1000
            self._tripped[agent] = AgentQuarantined(
                name=agent,
                bundle=event.provenance.bundle,
                reason=f"{len(evidence)} failures within {seconds} s; the last one: {why}"[:REASON_CHARS],
                evidence=list(evidence),
                by="breaker",
                principal="daemon",
            )

    # --- facts ------------------------------------------------------------------------------------

    async def _state(self, agent: str) -> None:
        """Wait until the breaker's verdict is in the ledger, if the ledger takes it."""
        task = self._stating.get(agent)
        if task is None:  # it tripped in events that were read when the daemon started
            task = self._stating[agent] = asyncio.create_task(self._state_tripped(agent))
            task.add_done_callback(lambda _: self._stating.pop(agent, None))
        await asyncio.shield(task)

    async def _state_tripped(self, agent: str) -> None:
        fact = self._tripped.get(agent)
        if fact is None:
            return
        try:
            await self._append(fact, agent, "daemon")
        except RunloopError as error:
            log.error("quarantine_unrecorded", agent=agent, reason=error.message)
        else:
            log.warning("agent_quarantined", agent=agent, reason=fact.reason)

    async def _append(self, fact: AgentQuarantined | AgentReleased, agent: str, actor: str) -> int:
        causes = tuple(fact.evidence) if isinstance(fact, AgentQuarantined) else (self._held[agent].event,)
        (event,) = await self._journal.append(
            Draft(
                payload=fact,
                actor=actor,
                scope="system",
                provenance=Provenance(
                    causes=causes,
                    agent=agent,
                    bundle=fact.bundle if isinstance(fact, AgentQuarantined) else None,
                ),
            )
        )
        return event.id


def _failure(event: Event) -> tuple[str, str] | None:
    """The agent and the words of a failure that counts, if the event states one."""
    payload = event.payload
    if isinstance(payload, NodeFinished) and payload.error is not None and payload.error.code in FLAPPING:
        agent = event.provenance.agent
        return (agent, f"{payload.error.code}: {payload.error.message}") if agent else None
    if isinstance(payload, AgentTransition) and payload.trigger == Trigger.RECOVER:
        if payload.reason.startswith(f"{RESTARTED}:"):
            return None  # a person's doing, and a code that no guest can claim
        return payload.agent, payload.reason  # a crash that another worker made up for is a crash
    return None


def _reason(text: str) -> str:
    words = text.strip()
    if not words or len(words) > REASON_CHARS:
        raise UsageError(
            f"a reason of 1 to {REASON_CHARS} characters is kept with the decision", code="agent.reason"
        )
    return words

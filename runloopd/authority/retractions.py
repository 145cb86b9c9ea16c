"""What was learnt and is taken back: stated by a person, and everything that came of it held.

Knows: which facts do not count now, which runs have heard of one, how a retraction is stated so that nothing
slips through between looking and stating. Does not know: how dependants are found (``pog.retract``), what it
does to the views (``pog.refold``), or how a held run is stopped (the gate asks for the objection).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from pog.retract import Dependants
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloop.events import Draft, Event, Provenance, RunFinished, SourceRestored, SourceRetracted
from runloopd.authority.approvals import Approvals
from runloopd.bus.principal import Principal
from runloopd.journal import Journal

__all__ = ["RETRACTION_KINDS", "Retractions"]

log = structlog.get_logger(__name__)

RETRACTION_KINDS = (SourceRetracted.kind, SourceRestored.kind)
"""What the state is folded from."""
_ROUNDS = 8
"""How often is looked again for what came about while the retraction was being stated."""
_MAX_REASON = 500


class Retractions:
    """One per daemon. ``dependants`` finds what came of a fact."""

    def __init__(
        self, journal: Journal, approvals: Approvals, dependants: Callable[[int], Awaitable[Dependants]]
    ) -> None:
        self._journal = journal
        self._approvals = approvals
        self._dependants = dependants
        self._stated: dict[int, SourceRetracted] = {}
        """Retractions in force, by ledger id."""
        self._facts: dict[int, int] = {}
        """Fact that does not count -> the retraction that says so."""
        self._heard: dict[str, set[int]] = {}
        """Run -> retractions of what it has heard."""
        self._one = asyncio.Lock()
        journal.listen(self.apply)

    def restore(self, stated: Iterable[Event], unfinished: Iterable[Event]) -> None:
        """At start: every retraction there is, then the events of unfinished runs, in order."""
        self.apply(stated)
        self.apply(event for event in unfinished if event.kind not in RETRACTION_KINDS)

    def apply(self, events: Iterable[Event]) -> None:
        """Take committed events in."""
        for event in events:
            if isinstance(event.payload, SourceRetracted):
                self._stated[event.id] = event.payload
                for fact in event.payload.facts:
                    self._facts.setdefault(fact, event.id)
                for run in event.payload.runs:
                    self._heard.setdefault(run, set()).add(event.id)
            elif isinstance(event.payload, SourceRestored):
                self._lift(event.payload.retraction)
            elif event.kind == RunFinished.kind and event.run is not None:
                self._heard.pop(event.run, None)
            elif self._facts and event.run is not None:
                # An answer that was under way while the fact was taken back: its run has heard of it.
                for cause in event.provenance.causes:
                    if cause in self._facts and self._stated[self._facts[cause]].cascade:
                        self._heard.setdefault(event.run, set()).add(self._facts[cause])

    def objection(self, run: str) -> RefusedError | None:
        """Why a run may not change anything any more; None when it may."""
        heard = self._heard.get(run)
        if not heard:
            return None
        retraction = min(heard)
        stated = self._stated[retraction]
        return RefusedError(
            f"this run has heard of event {stated.source}, which was taken back: {stated.reason}",
            hint=f"run it again; or 'rlp kb retract --undo {retraction}' lets the source count again",
            code="source.retracted",
            retraction=retraction,
        )

    def held(self) -> dict[str, list[int]]:
        """Runs that are held, and the retractions that hold them."""
        return {run: sorted(heard) for run, heard in self._heard.items() if heard}

    async def preview(self, source: int) -> dict[str, Any]:
        """What would be taken back and held; states nothing."""
        found = await self._dependants(source)
        return {"retraction": None, **_told(found, found.facts, found.approvals)}

    async def retract(
        self, principal: Principal, source: int, *, cascade: bool, reason: str
    ) -> dict[str, Any]:
        """Take a fact back, and with ``cascade`` the knowledge that came of it; hold what depends on it.

        Raises :class:`RefusedError` for anybody but an operator, :class:`UsageError` for what is no
        knowledge, :class:`ConflictError` when it is taken back already.
        """
        _insist_on_operator(principal)
        reason = _reason(reason)
        async with self._one:
            if source in self._facts:
                raise ConflictError(
                    f"event {source} was taken back already, by event {self._facts[source]}",
                    hint=f"'rlp kb retract --undo {self._facts[source]}' lets it count again",
                    code="kb.retract",
                )
            found = await self._dependants(source)
            event = await self._state(principal, found, cascade, reason, set())
            first, facts = event.id, list(_facts(found, cascade))
            voided = await self._void(found, cascade, reason)
            for _ in range(_ROUNDS):
                # Whoever asks from now on does not hear of it; whoever asked until now is found this time.
                await self._journal.views_at(event.id)
                found = await self._dependants(source)
                new = [fact for fact in _facts(found, cascade) if fact not in self._facts]
                known = {run for stated in self._stated.values() for run in stated.runs}
                if not new and not (cascade and set(found.runs) - known):
                    break
                event = await self._state(principal, found, cascade, reason, set(facts))
                facts += new
                voided += await self._void(found, cascade, reason)
            log.info(
                "source_retracted", retraction=first, source=source, facts=len(facts), by=principal.label
            )
            return {"retraction": first, **_told(found, tuple(facts), tuple(dict.fromkeys(voided)))}

    async def undo(self, principal: Principal, retraction: int, reason: str) -> dict[str, Any]:
        """Let what a retraction took back count again. Questions that it voided stay void.

        Raises :class:`NotFoundError` for one that is not in force.
        """
        _insist_on_operator(principal)
        async with self._one:
            stated = self._stated.get(retraction)
            if stated is None:
                raise NotFoundError(
                    f"event {retraction} is no retraction that is in force",
                    hint="rlp kb query 'SELECT event, source, reason FROM retractions'",
                    code="kb.retract",
                )
            # One retraction may have been stated in several rounds; they are undone together.
            mine = [e for e, s in self._stated.items() if e >= retraction and s.source == stated.source]
            events = await self._journal.append(
                *(
                    Draft(
                        payload=SourceRestored(
                            retraction=event, reason=_reason(reason), principal=principal.label
                        ),
                        actor=principal.label,
                        provenance=Provenance(causes=(event,)),
                    )
                    for event in mine
                )
            )
            await self._journal.views_at(events[-1].id)
            return {"restored": [event.id for event in events], "source": stated.source}

    # --- inside ----------------------------------------------------------------------------------

    def _lift(self, retraction: int) -> None:
        self._stated.pop(retraction, None)
        self._facts = {}
        for event in sorted(self._stated):
            for fact in self._stated[event].facts:
                self._facts.setdefault(fact, event)
        for heard in self._heard.values():
            heard.discard(retraction)

    async def _state(
        self, principal: Principal, found: Dependants, cascade: bool, reason: str, before: set[int]
    ) -> Event:
        facts = [fact for fact in _facts(found, cascade) if fact not in before]
        (event,) = await self._journal.append(
            Draft(
                payload=SourceRetracted(
                    source=found.source,
                    facts=facts,
                    cascade=cascade,
                    runs=list(found.runs) if cascade else [],
                    approvals=list(found.approvals) if cascade else [],
                    reason=reason,
                    principal=principal.label,
                ),
                actor=principal.label,
                provenance=Provenance(causes=(found.source,)),
            )
        )
        return event

    async def _void(self, found: Dependants, cascade: bool, reason: str) -> list[str]:
        """Void the open questions of every run that is held, and those that came of the source."""
        voided: list[str] = []
        if not cascade:
            return voided
        for approval in self._approvals.list():
            if approval.id in found.approvals or (approval.run is not None and self.objection(approval.run)):
                await self._approvals.void_one(
                    approval.id, f"event {found.source}, which it came of, was taken back: {reason}"
                )
                voided.append(approval.id)
        return voided


def _facts(found: Dependants, cascade: bool) -> tuple[int, ...]:
    return found.facts if cascade else (found.source,)


def _told(found: Dependants, facts: tuple[int, ...], approvals: tuple[str, ...]) -> dict[str, Any]:
    return {
        "source": found.source,
        "facts": sorted(facts),
        "runs": list(found.runs),
        "approvals": list(approvals),
        "sent": list(found.sent),
        "unlinked": list(found.unlinked),
        "reached": len(found.effects),
    }


def _reason(reason: str) -> str:
    text = " ".join(reason.split())
    if not text or len(text) > _MAX_REASON or not text.isprintable():
        raise UsageError(
            "a retraction needs a reason, in a line of text",
            hint=f"--reason '…', at most {_MAX_REASON} characters",
            code="kb.retract",
        )
    return text


def _insist_on_operator(principal: Principal) -> None:
    if principal.kind != "operator":
        raise RefusedError(
            f"{principal.label} may not take facts back: only the operator can",
            hint="use 'rlp kb retract' as the user who owns the daemon",
            code="operator.required",
        )

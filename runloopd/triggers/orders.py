"""What the operator asks of triggers: set, remove, pause, resume, run now.

Knows: who may ask (the operator, and nobody else: attacks.md C10), what is judged before anything is stated.
Does not know: what happens afterwards (``service``).
"""

from __future__ import annotations

import asyncio

from runloop.errors import ConflictError, RefusedError, UsageError
from runloop.events import Draft, Payload, TriggerPaused, TriggerRemoved, TriggerResumed, TriggerSet
from runloopd.bus.principal import Principal
from runloopd.triggers.book import Trigger
from runloopd.triggers.cron import Cron, local_zone
from runloopd.triggers.folder import Watch, checked
from runloopd.triggers.launch import asks_for_changes, missed
from runloopd.triggers.service import Triggers
from runloopd.triggers.wish import CHANGED, TriggerWish

__all__ = ["MAX_TRIGGERS", "Orders"]

MAX_TRIGGERS = 256
_WHY = {
    "busy": "as many scheduled runs as may be are not over (scheduler.max_runs)",
    "budget": "what scheduled runs may cost in 24 hours is spent or set aside (scheduler.day_micro_usd)",
}


class Orders:
    """The operator's word on triggers. Everything raises :class:`RefusedError` for any other principal."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    async def set(self, principal: Principal, wish: TriggerWish) -> Trigger:
        """Have an opening run by itself from now on; a trigger of that name is replaced.

        Raises what is wrong with the wish or the opening; then nothing is changed.
        """
        _operator(principal, "set a schedule")
        triggers, name = self._triggers, wish.trigger
        if name not in triggers.book.triggers and len(triggers.book.triggers) >= MAX_TRIGGERS:
            raise ConflictError(
                f"there are {MAX_TRIGGERS} schedules", hint="remove one", code="schedule.many"
            )
        watch = await asyncio.to_thread(self._watch, wish) if wish.watch else None
        fact = self._fact(principal, wish, watch)
        async with triggers.alone(name):
            before = await triggers.look(watch)
            old = triggers.book.triggers.get(name)
            await self._state(principal, triggers.owed(old) if old is not None else [], fact)
            triggers.follow(name, watch, before)
        triggers.wake()
        return triggers.find(name)

    async def remove(self, principal: Principal, name: str) -> None:
        """Have it start nothing any more. Runs it started go on."""
        _operator(principal, "remove a schedule")
        triggers = self._triggers
        async with triggers.alone(name):
            owed = triggers.owed(triggers.find(name))
            await self._state(principal, owed, TriggerRemoved(trigger=name, principal=principal.label))
            triggers.follow(name, None, await triggers.look(None))

    async def pause(self, principal: Principal, name: str) -> None:
        """Have it start nothing until it is resumed."""
        _operator(principal, "pause a schedule")
        triggers = self._triggers
        async with triggers.alone(name):
            trigger = triggers.find(name)
            if trigger.paused_ms is not None:
                raise ConflictError(
                    f"{name} is paused already",
                    hint=f"'rlp schedule pause {name} --off' resumes it",
                    code="schedule.paused",
                )
            owed = triggers.owed(trigger)
            await self._state(principal, owed, TriggerPaused(trigger=name, principal=principal.label))
            triggers.follow(name, None, await triggers.look(None))

    async def resume(self, principal: Principal, name: str) -> None:
        """Have it go on; what fell due meanwhile is reported, never made up for."""
        _operator(principal, "resume a schedule")
        triggers = self._triggers
        async with triggers.alone(name):
            trigger = triggers.find(name)
            if trigger.paused_ms is None:
                raise ConflictError(
                    f"{name} is not paused", hint="'rlp schedule list' shows them", code="schedule.paused"
                )
            watch = triggers.watch_of(trigger.fact)
            before = await triggers.look(watch)
            owed = triggers.owed(trigger)
            if changed := sorted(before.newer_than(trigger.paused_ms).values()):
                why = f"paused: {len(changed)} files"
                owed.append(missed(trigger, changed[0], changed[-1], 1, why))
            await self._state(principal, owed, TriggerResumed(trigger=name, principal=principal.label))
            triggers.follow(name, watch, before)
        triggers.wake()

    async def run_now(self, principal: Principal, name: str) -> str:
        """Start what it would start, now; returns the run. Raises :class:`ConflictError` when it was not.

        The run has no more authority than any other that the trigger starts.
        """
        _operator(principal, "run a schedule")
        triggers = self._triggers
        async with triggers.alone(name):
            trigger = triggers.find(name)
            _, money = triggers.launcher.examine(trigger.fact, [])
            why = triggers.allowance.refusal(money, triggers.now_ms())
            if why is not None:
                raise ConflictError(
                    f"{name} cannot start a run now: {_WHY[why]}",
                    hint="'rlp schedule list' shows what is running",
                    code=f"schedule.{why}",
                )
            cause = {"by": principal.label}
            fired = triggers.launcher.fire(trigger, triggers.now_ms(), cause, [], None)
            run = await triggers.moves.whole(fired)
        triggers.wake()
        if run is None:
            raise ConflictError(
                f"{name} started no run", hint=f"'rlp schedule show {name}' says why", code="schedule.refused"
            )
        return run

    def _watch(self, wish: TriggerWish) -> Watch:
        return checked(wish.watch, wish.patterns, wish.settle_ms, self._triggers.never)

    def _fact(self, principal: Principal, wish: TriggerWish, watch: Watch | None) -> TriggerSet:
        """The fact, once all that can be known beforehand has been judged."""
        zone = (wish.zone or self._triggers.config.zone or local_zone()) if wish.cron else None
        cron = Cron(wish.cron, zone) if wish.cron is not None and zone is not None else None
        fact = TriggerSet(
            trigger=wish.trigger,
            opening=wish.name,
            source=wish.source,
            source_path=wish.path,
            agents_dir=wish.agents_dir,
            params=wish.params,
            cron=cron.expression if cron is not None else None,
            zone=zone,
            watch=_said(watch) if watch is not None else None,
            missed=wish.missed,
            overlap=wish.overlap,
            principal=principal.label,
            openings=wish.openings,
        )
        if watch is not None and CHANGED in wish.params and asks_for_changes(fact):
            raise UsageError(
                f"{CHANGED} is filled in with the files that changed", hint="leave it out", code="cli.param"
            )
        opening, _ = self._triggers.launcher.examine(fact, [])
        return _renamed(fact, opening.name)

    async def _state(self, principal: Principal, owed: list[Draft], said: Payload) -> None:
        triggers = self._triggers
        fact = Draft(payload=said, actor=principal.label)
        await triggers.moves.whole(triggers.journal.append(*owed, fact))


def _operator(principal: Principal, what: str) -> None:
    if principal.kind != "operator":
        raise RefusedError(
            f"{principal.label} may not {what}: only the operator can",
            hint="use rlp as the user who owns the daemon",
            code="operator.required",
        )


def _said(watch: Watch) -> dict[str, object]:
    return {"paths": list(watch.paths), "patterns": list(watch.patterns), "settle_ms": watch.settle_ms}


def _renamed(fact: TriggerSet, opening: str) -> TriggerSet:
    from msgspec.structs import replace

    return replace(fact, opening=opening)

"""Triggers as a service: what falls due is fired or accounted for (attacks.md S3, C10, K8).

Knows: when to look, and what becomes of what is found: a due time, files that changed, a firing whose run
was never started. Sleeps until something is due; with nothing set it is never woken. Does not know: when
something is due (``cron``, ``book``), what is stated (``launch``), what a person may ask for (``orders``).

Everything here is level-triggered: each look begins from the book and the clock, so a clock that jumps, a
machine that slept and a daemon that was not there are no cases of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from runloop.clock import Clock
from runloop.config import Scheduler
from runloop.errors import NotFoundError, RunloopError
from runloop.events import Draft, Event, HostcallAdmitted, ModelCalled, RunFinished, RunStarted, TriggerSet
from runloop.spelling import did_you_mean
from runloopd.journal import Journal
from runloopd.triggers.allowance import Allowance
from runloopd.triggers.book import Book, Trigger, trigger_of
from runloopd.triggers.folder import Look, Watch, places
from runloopd.triggers.kernel import Alarm
from runloopd.triggers.launch import Launcher, Starter, missed
from runloopd.triggers.record import Record
from runloopd.triggers.traces import Traces
from runloopd.triggers.watch import Change, Watches, without
from runloopd.waiting import Moves, first

__all__ = ["Triggers"]

log = structlog.get_logger(__name__)

_AGAIN_MS = 1_000
"""Pause before something is tried again that the ledger did not take."""
_LONG_MS = 86_400_000
"""A gap whose due times are counted in a thread."""


class Triggers:
    """Every trigger of this daemon. Build it, :meth:`restore`, run :meth:`loop`, :meth:`close`."""

    def __init__(
        self,
        *,
        journal: Journal,
        record: Record,
        runs: Starter,
        clock: Clock,
        alarm: Alarm,
        config: Scheduler,
        never: Iterable[Path] = (),
    ) -> None:
        """``never``: places that nobody may watch."""
        self.journal = journal
        self.config = config
        self.never = places(never)
        self.book = Book()
        self.allowance = Allowance(day_micro_usd=config.day_micro_usd, max_runs=config.max_runs)
        self.launcher = Launcher(
            journal=journal, runs=runs, now=alarm.now_ms, allowance=self.allowance, config=config
        )
        self.moves = Moves()
        self._alarm = alarm
        self._record = record
        self._watches = Watches(clock, changed=self._changed, lost=self._lost)
        self._traces = Traces(record.blob)
        self._pending: dict[str, Change] = {}
        """Changes that no run was started for yet."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._again_ms: dict[str, int] = {}
        """When something is tried again that the ledger did not take."""
        self._began_ms = 0
        self._woken = asyncio.Event()
        journal.listen(self._committed)

    # --- life -------------------------------------------------------------------------------------

    async def restore(self, unfinished: Iterable[Event]) -> None:
        """Fold what the ledger says, once, before anything else: triggers, where each stands, what is spent.

        ``unfinished``: the events of runs that are not over, in order.
        """
        self._began_ms = self._alarm.now_ms()
        alive_ms = self._record.restore(self.book)
        self.allowance.remember(self._record.spent(self._began_ms))
        for event in unfinished:
            self._heard(event)
        for trigger in self.all():
            if trigger.open is not None and self._record.exists(trigger.open[1].starts):
                trigger.open = None
            if trigger.fact.watch is not None and trigger.paused_ms is None:
                await self._follow_again(trigger, min(trigger.position, alive_ms))

    async def loop(self) -> None:
        """Fire what is due as it falls due; runs until cancelled. For the daemon's task group."""
        while True:
            self._woken.clear()
            wake = self._step()
            if wake is None:
                await self._woken.wait()
            else:
                await first(self._woken.wait(), self._alarm.until(wake))

    async def close(self) -> None:
        """Start nothing more; what is being stated is carried to its end."""
        self.launcher.closing = True
        await self._watches.close()
        await self.moves.close()

    # --- looking ----------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The clock that decides what is due."""
        return self._alarm.now_ms()

    def find(self, name: str) -> Trigger:
        """By name; raises :class:`NotFoundError`."""
        found = self.book.triggers.get(name)
        if found is None:
            raise NotFoundError(
                f"there is no schedule {name[:80]!r}",
                hint=did_you_mean(name, self.book.triggers, "'rlp schedule list' shows them"),
                code="schedule.unknown",
            )
        return found

    def all(self) -> list[Trigger]:
        """Every trigger, by name."""
        return [self.book.triggers[name] for name in sorted(self.book.triggers)]

    def next_due(self) -> tuple[str, int] | None:
        """Which schedule is due next, and when."""
        dues = [
            (due, trigger.name)
            for trigger in self.all()
            if trigger.paused_ms is None and (due := trigger.next_ms()) is not None
        ]
        return (min(dues)[1], min(dues)[0]) if dues else None

    # --- for orders -------------------------------------------------------------------------------

    def alone(self, name: str) -> asyncio.Lock:
        """Held, nothing is fired for this name meanwhile."""
        return self._locks.setdefault(name, asyncio.Lock())

    def wake(self) -> None:
        """Look again: something is other than it was."""
        self._woken.set()

    async def look(self, watch: Watch | None) -> Look:
        """What is there now."""
        return await self._watches.look(watch) if watch is not None else Look()

    def follow(self, name: str, watch: Watch | None, before: Look) -> None:
        """Watch from what was seen before on; what was noticed until now is forgotten."""
        self._pending.pop(name, None)
        self._watches.end(name)
        if watch is not None:
            self._watches.begin(name, watch, before)

    def owed(self, trigger: Trigger) -> list[Draft]:
        """What is still owed when a trigger is paused, replaced or removed: reported, never fired."""
        reason = "paused" if trigger.paused_ms is not None else "changed"
        due = trigger.due(self.now_ms(), grace_ms=-1, make_up=False)
        drafts = []
        if due.times:
            drafts.append(missed(trigger, due.first, due.last, due.times, reason))
        change = self._pending.get(trigger.name)
        if change is not None:
            why = f"{reason}: {change.count} files"
            drafts.append(missed(trigger, change.first_ms, change.last_ms, 1, why))
        return drafts

    # --- falling due ------------------------------------------------------------------------------

    def _step(self) -> int | None:
        """Begin what is due, and return when to look again; None: when somebody wakes us."""
        if self.launcher.closing:
            return None
        now = self.now_ms()
        wake: int | None = None
        for trigger in self.all():
            if self.alone(trigger.name).locked():
                continue
            due = self._wanted(trigger, now)
            if due is None:
                continue
            due = max(due, self._again_ms.get(trigger.name, 0))
            if due <= now:
                self.moves.begin(self._attend(trigger.name))
            else:
                wake = due if wake is None else min(wake, due)
        return wake

    def _wanted(self, trigger: Trigger, now: int) -> int | None:
        """When it wants attention; not after now if it does already."""
        if trigger.open is not None:
            return now
        if trigger.paused_ms is not None:
            return None
        if trigger.cron is None:
            return now if trigger.name in self._pending and not self._overlaps(trigger) else None
        if now < trigger.position:  # the clock was set back
            spent = self._record.fired_beyond(trigger, now) if now < trigger.highest else ()
            trigger.step_back(now, spent)
        return trigger.next_ms()

    async def _attend(self, name: str) -> None:
        """Do for one trigger what is due; one thing at a time."""
        async with self.alone(name):
            trigger = self.book.triggers.get(name)
            due = self._wanted(trigger, self.now_ms()) if trigger is not None else None
            if trigger is None or due is None or due > self.now_ms():
                return
            try:
                await self._act(trigger)
                self._again_ms.pop(name, None)
            except RunloopError as error:
                self._again_ms[name] = self.now_ms() + _AGAIN_MS
                log.warning("trigger_not_stated", trigger=name, code=error.named_code, reason=error.message)
            except Exception:
                # A mistake of ours in one trigger must not stop the others.
                self._again_ms[name] = self.now_ms() + _AGAIN_MS
                log.exception("trigger_failed", trigger=name)
        self.wake()

    async def _act(self, trigger: Trigger) -> None:
        if trigger.open is not None:
            run = await self.launcher.start(trigger, *trigger.open)
            if run is not None:
                self.book.started(run)
        elif trigger.cron is None:
            await self._fire_change(trigger)
        else:
            await self._fire_times(trigger)

    async def _fire_times(self, trigger: Trigger) -> None:
        now, grace_ms = self.now_ms(), self.config.grace_ms
        if now - trigger.position > _LONG_MS:
            due = await asyncio.to_thread(trigger.due, now, grace_ms=grace_ms)
        else:
            due = trigger.due(now, grace_ms=grace_ms)
        reason = "down" if due.first <= self._began_ms else "late"
        before = [missed(trigger, due.first, due.last, due.times, reason)] if due.times else []
        if due.fire is not None:
            why = "overlap" if self._overlaps(trigger) else None
            await self.launcher.fire(trigger, due.fire, {"cron": trigger.fact.cron}, before, why)
        elif before:
            await self.journal.append(*before)

    async def _fire_change(self, trigger: Trigger) -> None:
        await asyncio.to_thread(self._traces.read)
        change = self._pending.pop(trigger.name)
        hop = self._traces.hop(change.paths)
        why = "loop" if hop > self.config.watch_hops else None
        cause = {"paths": list(change.paths), "count": change.count, "hop": hop}
        try:
            await self.launcher.fire(trigger, max(self.now_ms(), trigger.position + 1), cause, [], why)
        except BaseException:
            self._pending.setdefault(trigger.name, change)
            raise

    def _overlaps(self, trigger: Trigger) -> bool:
        return trigger.fact.overlap == "skip" and bool(self.allowance.running(trigger.name))

    # --- folders ----------------------------------------------------------------------------------

    def watch_of(self, fact: TriggerSet) -> Watch | None:
        """What a trigger watches."""
        said = fact.watch
        if said is None:
            return None
        return Watch(tuple(said["paths"]), tuple(said["patterns"]), int(said["settle_ms"]), self.never)

    async def _follow_again(self, trigger: Trigger, since_ms: int) -> None:
        """Follow its folders after a restart; files that changed while nobody looked are owed."""
        watch = self.watch_of(trigger.fact)
        seen = await self.look(watch)
        changed = seen.newer_than(since_ms)
        if changed and trigger.fact.missed == "skip":
            last_ms = max(since_ms + 1, *changed.values())
            why = f"down: {len(changed)} files"
            await self.journal.append(missed(trigger, min(changed.values()), last_ms, 1, why))
            changed = {}
        # What is to be made up for is new to the first look.
        self.follow(trigger.name, watch, without(seen, changed))

    def _changed(self, name: str, paths: list[str]) -> None:
        now = self.now_ms()
        self._pending.setdefault(name, Change(now, now)).add(paths, now)
        self.wake()

    def _lost(self, name: str) -> None:
        now = self.now_ms()
        log.warning("watch_lost", trigger=name)
        trigger = self.book.triggers.get(name)
        if trigger is not None:
            self.moves.begin(self._state(missed(trigger, now, now, 1, "too many files to watch")))

    async def _state(self, draft: Draft) -> None:
        with suppress(RunloopError):
            await self.journal.append(draft)

    # --- fed by the journal -----------------------------------------------------------------------

    def _committed(self, events: list[Event]) -> None:
        for event in events:
            if event.run is not None:
                self._heard(event)
        if self.book.take(events):
            self.wake()

    def _heard(self, event: Event) -> None:
        """What the record says of runs that triggers started, nested ones included."""
        payload, run = event.payload, event.run
        if run is None:
            return
        if isinstance(payload, RunStarted):
            self._began(run, payload)
            return
        top = self._traces.top(run)
        if top is None:
            return
        if isinstance(payload, ModelCalled):
            self.allowance.spend(top, payload.cost_micro_usd)
        elif isinstance(payload, HostcallAdmitted):
            self._traces.admitted(run, payload)
        elif isinstance(payload, RunFinished):
            self._traces.over(run)
            if run == top:
                self.allowance.end(run, self.now_ms())
                self.wake()

    def _began(self, run: str, payload: RunStarted) -> None:
        name = trigger_of(payload.principal)
        if name is None:
            return
        self._traces.started(run, payload)
        if payload.parent is None:
            money = payload.policy.get("budget_micro_usd")
            self.allowance.begin(run, name, self.config.run_micro_usd if money is None else int(money))
            self.book.started(run)

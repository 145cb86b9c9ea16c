"""The triggers there are, folded from the ledger, and what each of them owes.

Knows: which due times are accounted for, what becomes of those that passed, which firing has not led to a run
yet. Does not know: what time it is (it is told), how a run is started (``service``), how files are looked at
(``watch``). Pure: the same events give the same book.

Every due time of a trigger is stated exactly once, as fired or as missed, by the clock that showed it. Where
the clock was put forward too far and then corrected, times that were only reported come round again and may
fire then; one that fired never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from runloop.events import (
    Event,
    Payload,
    TriggerFired,
    TriggerMissed,
    TriggerPaused,
    TriggerRemoved,
    TriggerResumed,
    TriggerSet,
)
from runloop.ids import RunId, triggered_run_id
from runloopd.triggers.cron import Cron

__all__ = ["KINDS", "Book", "Due", "Trigger", "label", "run_of", "trigger_of"]

KINDS: tuple[str, ...] = (
    TriggerSet.kind,
    TriggerRemoved.kind,
    TriggerPaused.kind,
    TriggerResumed.kind,
)
"""What is folded whole: as many as a person typed."""


def label(trigger: str) -> str:
    """The principal of what a trigger starts."""
    return f"schedule:{trigger}"


def trigger_of(principal: str) -> str | None:
    """The trigger behind a principal; None for any other."""
    kind, _, name = principal.partition(":")
    return name if kind == "schedule" and name else None


class Due(NamedTuple):
    """What a trigger owes at a moment."""

    fire: int | None
    """The due time for which a run is to be started now; None: for none."""
    first: int = 0
    last: int = 0
    times: int = 0
    """Those that are only reported; 0: none is."""


@dataclass(slots=True)
class Trigger:
    """One trigger as the ledger tells it."""

    fact: TriggerSet
    event: int
    """Id of its ``trigger.set``."""
    set_ms: int
    cron: Cron | None = None
    position: int = 0
    """Due times up to here are accounted for."""
    highest: int = 0
    """The latest due time that ever fired: ahead of the clock only where that was set back."""
    paused_ms: int | None = None
    open: tuple[int, TriggerFired] | None = None
    """A firing with its event's id whose run is not known to have started."""
    spent: frozenset[int] = field(default_factory=frozenset)
    """Due times ahead of the clock that have fired; filled where the clock was set back."""
    _next: tuple[int, int | None] | None = None
    """The position the next due time was found for, and that time."""

    @property
    def name(self) -> str:
        return self.fact.trigger

    def due(self, now_ms: int, *, grace_ms: int, make_up: bool | None = None) -> Due:
        """What is owed now. ``make_up``: other than the trigger itself says.

        The newest due time is fired if it is no older than the grace, or if missed times are made up for;
        everything before it is reported, however much that is.
        """
        if self.cron is None or now_ms <= self.position:
            return Due(None)
        newest = self._newest(now_ms)
        if newest is None:
            return Due(None)
        once = self.fact.missed == "once" if make_up is None else make_up
        fire = newest if once or now_ms - newest <= grace_ms else None
        until = newest - 1 if fire is not None else newest
        times = self.cron.count(self.position, until) - self._spent_within(self.position, until)
        if times <= 0:
            return Due(fire)
        first, last = self._first(self.position, until), self._last(self.position, until)
        return Due(fire, first, last, times)

    def next_ms(self) -> int | None:
        """The first due time that is not accounted for; None for a trigger without a schedule."""
        if self._next is None or self._next[0] != self.position:
            self._next = self.position, next(self.coming(), None)
        return self._next[1]

    def coming(self) -> Iterator[int]:
        """Every due time that is not accounted for, in order."""
        if self.cron is not None:
            yield from (due for due in self.cron.times(self.position) if due not in self.spent)

    def step_back(self, now_ms: int, spent: Iterable[int]) -> None:
        """The clock shows less than what is accounted for: go on from here, without what has fired."""
        self.position, self._next = now_ms, None
        self.spent = frozenset(due for due in spent if due > now_ms)

    def _newest(self, now_ms: int) -> int | None:
        assert self.cron is not None
        until = now_ms
        while (found := self.cron.newest(self.position, until)) in self.spent and found is not None:
            until = found - 1
        return found

    def _spent_within(self, after: int, until: int) -> int:
        return sum(1 for due in self.spent if after < due <= until)

    def _first(self, after: int, until: int) -> int:
        assert self.cron is not None
        return next(due for due in self.cron.times(after) if due not in self.spent or due > until)

    def _last(self, after: int, until: int) -> int:
        assert self.cron is not None
        found = self.cron.newest(after, until)
        while found is not None and found in self.spent:
            found = self.cron.newest(after, found - 1)
        return found if found is not None else until


class Book:
    """Every trigger that is set, by name. Feed it every commit."""

    def __init__(self) -> None:
        self.triggers: dict[str, Trigger] = {}

    def take(self, events: Iterable[Event]) -> list[str]:
        """Fold events in order; returns the names of the triggers that are other than before."""
        return [name for event in events if (name := self._take(event)) is not None]

    def _take(self, event: Event) -> str | None:
        payload: Payload = event.payload
        if isinstance(payload, TriggerSet):
            self.triggers[payload.trigger] = Trigger(
                fact=payload,
                event=event.id,
                set_ms=event.ts_ms,
                cron=Cron(payload.cron, payload.zone or "UTC") if payload.cron else None,
                position=event.ts_ms,
            )
            return payload.trigger
        name = getattr(payload, "trigger", None) if event.kind.startswith("trigger.") else None
        trigger = self.triggers.get(name) if isinstance(name, str) else None
        if trigger is None or event.id <= trigger.event:
            return None
        match payload:
            case TriggerRemoved():
                del self.triggers[trigger.name]
            case TriggerPaused():
                trigger.paused_ms = event.ts_ms
            case TriggerResumed():
                trigger.paused_ms = None
                trigger.position = max(trigger.position, event.ts_ms)
            case TriggerFired():
                trigger.open = (event.id, payload)
                if "by" not in payload.cause:  # a run that somebody asked for accounts for nothing
                    trigger.highest = max(trigger.highest, payload.due_ms)
                    trigger.position = max(trigger.position, payload.due_ms)
            case TriggerMissed():
                if trigger.open is not None and trigger.open[1].due_ms == payload.last_due_ms:
                    trigger.open = None
                if payload.times:
                    trigger.position = max(trigger.position, payload.last_due_ms)
        return trigger.name

    def started(self, run: str) -> None:
        """A run exists: its firing is no longer open."""
        for trigger in self.triggers.values():
            if trigger.open is not None and trigger.open[1].starts == run:
                trigger.open = None


def run_of(trigger: Trigger, due_ms: int) -> RunId:
    """The run that a firing starts: always the same one for a due time of this setting of the trigger."""
    return triggered_run_id(trigger.name, trigger.event, due_ms)

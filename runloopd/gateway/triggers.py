"""Control methods of triggers: what runs by itself, and the operator's word on it.

Knows: the shapes of the methods, how a trigger is shown, and that the views count what it did. Does not know:
when something is due or what may be set (``triggers``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from openings.load import read_text
from runloop.errors import RunloopError, UsageError
from runloopd.broker.ports import KnowledgePort
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row, within
from runloopd.triggers.book import Trigger
from runloopd.triggers.cron import zone_named
from runloopd.triggers.orders import Orders
from runloopd.triggers.service import Triggers
from runloopd.triggers.wish import TriggerWish

__all__ = ["TriggerMethods"]

_DONE = "SELECT trigger_, fired, missed, last_due_ms, last_run FROM triggers WHERE removed_event IS NULL"
_MAX_TRIGGERS = 1_000
_MAX_COMING = 200


class SetTrigger(Params, frozen=True, kw_only=True):
    trigger: str
    source: str
    name: str
    path: str | None = None
    agents_dir: str | None = None
    params: dict[str, Any] = {}
    openings: dict[str, str] = {}
    cron: str | None = None
    zone: str | None = None
    watch: list[str] = []
    patterns: list[str] = []
    settle_ms: int = 2_000
    missed: Literal["skip", "once"] = "skip"
    overlap: Literal["skip", "parallel"] = "skip"


class OneTrigger(Params, frozen=True, kw_only=True):
    trigger: str


class PauseTrigger(Params, frozen=True, kw_only=True):
    trigger: str
    off: bool = False


class Coming(Params, frozen=True, kw_only=True):
    trigger: str | None = None
    limit: int = 10


class TriggerMethods:
    """``trigger.set|list|show|remove|pause|run|next``. Every one needs the operator."""

    def __init__(self, triggers: Triggers, knowledge: KnowledgePort) -> None:
        self._triggers = triggers
        self._orders = Orders(triggers)
        self._knowledge = knowledge

    def rows(self) -> Sequence[Row]:
        """The methods."""
        return (
            ("trigger.set", SetTrigger, self._set, True),
            ("trigger.list", Nothing, self._list, True),
            ("trigger.show", OneTrigger, self._show, True),
            ("trigger.remove", OneTrigger, self._remove, True),
            ("trigger.pause", PauseTrigger, self._pause, True),
            ("trigger.run", OneTrigger, self._run, True),
            ("trigger.next", Coming, self._next, True),
        )

    def summary(self) -> dict[str, Any]:
        """For the daemon's status: how many there are, and which is due next."""
        due = self._triggers.next_due()
        found: dict[str, Any] = {"set": len(self._triggers.all()), "next": None}
        if due is not None:
            found["next"] = {"trigger": due[0], "due_ms": due[1]}
        return found

    async def _set(self, principal: Principal, params: SetTrigger) -> Any:
        said = {name: getattr(params, name) for name in params.__struct_fields__}
        wish = TriggerWish(**{**said, "watch": tuple(params.watch), "patterns": tuple(params.patterns)})
        return await self._shown(await self._orders.set(principal, wish))

    async def _list(self, _: Principal, __: Nothing) -> Any:
        done = await self._done()
        return {
            "triggers": [await self._shown(trigger, done) for trigger in self._triggers.all()],
            "charged_micro_usd": self._triggers.allowance.charged(self._triggers.now_ms()),
            "day_micro_usd": self._triggers.config.day_micro_usd,
        }

    async def _show(self, _: Principal, params: OneTrigger) -> Any:
        trigger = self._triggers.find(params.trigger)
        found = await self._shown(trigger)
        return {**found, "source": trigger.fact.source, "openings": trigger.fact.openings}

    async def _remove(self, principal: Principal, params: OneTrigger) -> Any:
        await self._orders.remove(principal, params.trigger)
        return {"trigger": params.trigger}

    async def _pause(self, principal: Principal, params: PauseTrigger) -> Any:
        await (self._orders.resume if params.off else self._orders.pause)(principal, params.trigger)
        return await self._shown(self._triggers.find(params.trigger))

    async def _run(self, principal: Principal, params: OneTrigger) -> Any:
        return {"trigger": params.trigger, "run": await self._orders.run_now(principal, params.trigger)}

    async def _next(self, _: Principal, params: Coming) -> Any:
        limit = within(params.limit, _MAX_COMING)
        triggers = self._triggers.all() if params.trigger is None else [self._triggers.find(params.trigger)]
        if params.trigger is not None and triggers[0].cron is None:
            raise UsageError(
                f"{params.trigger} watches files, and nobody knows when they change",
                hint="'rlp schedule show' tells what it watches",
                code="schedule.when",
            )
        coming = [
            {"trigger": trigger.name, "due_ms": due, "zone": trigger.fact.zone, "at": _at(trigger, due)}
            for trigger in triggers
            if trigger.cron is not None and trigger.paused_ms is None
            for due in islice(trigger.coming(), limit)
        ]
        return {"next": sorted(coming, key=lambda one: (one["due_ms"], one["trigger"]))[:limit]}

    # --- shapes -----------------------------------------------------------------------------------

    async def _done(self) -> dict[str, dict[str, Any]]:
        """What each trigger did, as the views count it."""
        found = await self._knowledge.query(_DONE, [], _MAX_TRIGGERS, raw=True)
        return {row["trigger_"]: row for row in found["rows"]}

    async def _shown(self, trigger: Trigger, done: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        fact = trigger.fact
        counts = (await self._done() if done is None else done).get(trigger.name, {})
        next_ms = trigger.next_ms() if trigger.paused_ms is None else None
        return {
            "trigger": trigger.name,
            "opening": fact.opening,
            "cron": fact.cron,
            "zone": fact.zone,
            "watch": fact.watch,
            "missed_times": fact.missed,
            "overlap": fact.overlap,
            "params": fact.params,
            "principal": fact.principal,
            "set_ms": trigger.set_ms,
            "paused_ms": trigger.paused_ms,
            "next_ms": next_ms,
            "next_at": _at(trigger, next_ms) if next_ms is not None else None,
            "running": self._triggers.allowance.running(trigger.name),
            "fired": counts.get("fired", 0),
            "missed": counts.get("missed", 0),
            "last_run": counts.get("last_run"),
            "source_path": fact.source_path,
            "file": await asyncio.to_thread(_file_state, fact.source_path, fact.source),
        }


def _at(trigger: Trigger, due_ms: int) -> str:
    """A due time on the clocks of its zone, with their offset."""
    when = datetime.fromtimestamp(due_ms / 1000, UTC).astimezone(zone_named(trigger.fact.zone or "UTC"))
    return when.isoformat(sep=" ", timespec="seconds")


def _file_state(path: str | None, source: str) -> str:
    """Whether the file still says what was set: ``same``, ``differs``, ``gone`` or ``none``."""
    if path is None:
        return "none"
    try:
        return "same" if read_text(Path(path)) == source else "differs"
    except (RunloopError, OSError):
        return "gone"

"""Agents and the daemon in figures, at the moment somebody asks.

Knows: what is measured of an agent, what its state is called, how a rate comes of two samples. Does not know:
where a figure comes from: every source is a callable that the composition root hands over.

A sample has a number. Who says the number of an earlier one gets rates over the time between; the daemon
keeps the last :data:`KEPT` samples for that, and measures nothing of its own accord. Totals count from the
daemon's start.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runloop.events import AgentInstalled, AgentRemoved, Event
from runloopd.observe import processes
from runloopd.observe.lag import LoopLag
from runloopd.observe.processes import Process
from runloopd.observe.tally import Tally

__all__ = ["Known", "Metrics", "Sources", "Working"]

KEPT = 64
"""Samples that rates can be asked from."""
ROSTER_S = 10.0
"""How long the list of agents is taken for true while none is installed or removed: it is read from files."""
MAX_NAME_CHARS, MAX_WHY_CHARS = 128, 300
"""Of what a broken bundle says of itself: many long words would fit no frame, and nobody saw who works."""
MAX_ROWS = 2_000
"""Agents in one answer: those at work first, then those that have done something."""
_ROSTER_CHANGES = frozenset({AgentInstalled.kind, AgentRemoved.kind})
_WAITS = "WAITING"
_QUEUED = "QUEUED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An agent that is here."""

    name: str
    version: str = ""
    broken: str | None = None
    """Why it cannot be started; None for one that can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Working:
    """One execution under way."""

    agent: str
    run: str
    node: str
    work: str
    """``attempt``, ``tool`` or ``replay``."""
    state: str
    """As the lifecycle table names it; ``QUEUED`` before it has a process."""
    pid: int | None
    fuel: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where the figures come from. ``known`` is called in a thread, everything else on the loop."""

    known: Callable[[], Sequence[Known]]
    working: Callable[[], Iterable[Working]]
    spent_us: Callable[[str], int]
    """Agent -> microseconds of processor time of its processes that have ended."""
    spenders: Callable[[], Collection[str]]
    under_way: Callable[[], Counter[str]]
    """Agent -> its attempts under way, those included that have no process yet."""
    asking: Callable[[], Collection[tuple[str, str]]]
    """Run and node of whoever waits for a person."""
    held: Callable[[], Mapping[str, str]]
    """Agent that may not run -> why."""
    daemon: Callable[[], dict[str, Any]]
    """``events``, ``views_behind``, ``bus_queued``, ``bus_published``, ``bus_dropped``, ``workers``,
    ``spares``, ``runs``."""
    zygote: Callable[[], int | None] = lambda: None
    groups: Callable[[str], Mapping[str, int | None]] = lambda _: {"peak_bytes": None, "ooms": 0}
    """Agent -> what its control groups tell: ``peak_bytes``, ``ooms``."""


@dataclass(slots=True)
class _Agent:
    """What is gathered of one agent for a sample."""

    working: list[Working] = field(default_factory=list)
    cpu_ms: int = 0
    rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of a sample, what rates are made from."""

    at: float
    """Seconds of the monotonic clock."""
    looked: float
    """Seconds of the loop's clock."""
    agents: Mapping[str, Mapping[str, int]]
    daemon: Mapping[str, int]


class Metrics:
    """Answers ``agents.metrics``. One per daemon; :meth:`close` ends what looking has begun."""

    def __init__(
        self,
        sources: Sources,
        *,
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int],
        read: Callable[[int], Process | None] = processes.of,
        lag: LoopLag | None = None,
    ) -> None:
        """``now``: seconds that never jump; ``now_ms``: unix milliseconds; ``read``: a process's figures."""
        self._sources = sources
        self._tally = tally
        self._now = now
        self._now_ms = now_ms
        self._read = read
        self._lag = lag or LoopLag()
        self._since_ms = now_ms()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._count = 0
        self._roster: Sequence[Known] = ()
        self._roster_until = 0.0

    async def close(self) -> None:
        """Tick no more."""
        self._lag.close()

    def heard(self, events: Iterable[Event]) -> None:
        """Take in committed events: the listener of the journal."""
        events = list(events)
        self._tally.fold(events)
        if any(event.kind in _ROSTER_CHANGES for event in events):
            self._roster_until = 0.0

    async def sample(self, since: int | None = None) -> dict[str, Any]:
        """Everything there is to tell, with rates since sample ``since`` where that is still kept.

        ``{sample, at_ms, since_ms, interval_ms, agents, left_off, daemon}``; rates are null without an
        interval.
        """
        working = list(self._sources.working())
        before = None if since is None else self._kept.get(since)
        looked = asyncio.get_running_loop().time()
        lag = self._lag.look(None if before is None else before.looked)
        found = await asyncio.to_thread(self._measured, working)
        at = self._now()
        every = self._names(working)
        names = sorted(every[:MAX_ROWS])
        gathered = self._gathered(working, found)
        totals = {name: self._totals(name, gathered.get(name) or _Agent()) for name in names}
        daemon = {**self._sources.daemon(), **self._process(found, os.getpid())}
        interval = None if before is None else max(at - before.at, 0.001)
        number = self._keep(_Kept(at, looked, totals, _integers(daemon)))
        return {
            "sample": number,
            "at_ms": self._now_ms(),
            "since_ms": self._since_ms,
            "interval_ms": None if interval is None else round(interval * 1_000),
            "agents": self._agents(names, gathered, totals, before, interval),
            "left_off": len(every) - len(names),
            "daemon": {
                "pid": os.getpid(),
                **daemon,
                "zygote_rss_bytes": self._zygote(found),
                "queue": sum(self._queue(name, gathered.get(name) or _Agent()) for name in names),
                "lag_ms": None if lag is None else round(lag.most_ms, 3),
                "lag_mean_ms": None if lag is None else round(lag.mean_ms, 3),
                **_daemon_rates(daemon, before, interval),
            },
        }

    def _keep(self, kept: _Kept) -> int:
        self._count += 1
        self._kept[self._count] = kept
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._count

    # --- measuring --------------------------------------------------------------------------------

    def _measured(self, working: Sequence[Working]) -> dict[int, Process]:
        """In a thread: files are read, and a machine under load answers when it likes."""
        if self._now() >= self._roster_until:
            self._roster_until = self._now() + ROSTER_S  # before: what changes meanwhile is read next time
            self._roster = [
                replace(one, name=one.name[:MAX_NAME_CHARS], broken=one.broken and one.broken[:MAX_WHY_CHARS])
                for one in self._sources.known()
            ]
        pids = {one.pid for one in working if one.pid is not None}
        pids.add(os.getpid())
        if (zygote := self._sources.zygote()) is not None:
            pids.add(zygote)
        return {pid: process for pid in pids if (process := self._read(pid)) is not None}

    def _names(self, working: Sequence[Working]) -> list[str]:
        """Every agent there is anything to say of, the busiest kind first."""
        names = dict.fromkeys(sorted({one.agent for one in working}))
        names.update(dict.fromkeys(sorted({*self._tally, *self._sources.spenders()})))
        names.update(dict.fromkeys(sorted(self._sources.held())))
        names.update(dict.fromkeys(sorted({known.name for known in self._roster})))
        return list(names)

    def _gathered(self, working: Sequence[Working], found: Mapping[int, Process]) -> dict[str, _Agent]:
        agents: dict[str, _Agent] = {}
        for one in working:
            agent = agents.setdefault(one.agent, _Agent())
            agent.working.append(one)
            if one.pid is not None and (process := found.get(one.pid)) is not None:
                agent.cpu_ms += process.cpu_ms
                agent.rss_bytes += process.rss_bytes
        return agents

    def _totals(self, name: str, agent: _Agent) -> dict[str, int]:
        counts = self._tally.of(name)
        burning = sum(one.fuel for one in agent.working if one.work == "attempt")
        return {
            "cpu_ms": self._sources.spent_us(name) // 1_000 + agent.cpu_ms,
            "input_tokens": counts.input_tokens,
            "output_tokens": counts.output_tokens,
            "attempts": counts.ended,
            "failed": counts.failed,
            "calls": counts.calls,
            "refused": counts.refused,
            "model_calls": counts.model_calls,
            "cache_hits": counts.hits,
            "fuel": counts.fuel + burning,
            "cost_micro_usd": counts.micro_usd,
        }

    def _process(self, found: Mapping[int, Process], pid: int) -> dict[str, int | None]:
        process = found.get(pid)
        return {
            "cpu_ms": None if process is None else process.cpu_ms,
            "rss_bytes": None if process is None else process.rss_bytes,
        }

    def _zygote(self, found: Mapping[int, Process]) -> int | None:
        pid = self._sources.zygote()
        process = None if pid is None else found.get(pid)
        return None if process is None else process.rss_bytes

    # --- telling ----------------------------------------------------------------------------------

    def _agents(
        self,
        names: Sequence[str],
        gathered: Mapping[str, _Agent],
        totals: Mapping[str, Mapping[str, int]],
        before: _Kept | None,
        interval: float | None,
    ) -> list[dict[str, Any]]:
        held, asking = self._sources.held(), self._sources.asking()
        here = {known.name: known.version for known in self._roster if known.broken is None}
        broken = {known.name: known.broken for known in self._roster if known.name not in here}
        rows = []
        for name in names:
            agent = gathered.get(name) or _Agent()
            persons = sum((one.run, one.node) in asking for one in agent.working if one.work == "attempt")
            queue = self._queue(name, agent)
            rows.append(
                {
                    "agent": name,
                    "version": here.get(name),
                    "state": _standing(name, held, broken)
                    or _doing(agent, queue, persons)
                    or ("idle" if name in here else "gone"),
                    "why": held.get(name) or broken.get(name),
                    "workers": sum(one.pid is not None for one in agent.working),
                    "queue": queue,
                    "asking": persons,
                    "rss_bytes": agent.rss_bytes,
                    **self._sources.groups(name),
                    **totals[name],
                    "error_percent": _percent(totals[name]["failed"], totals[name]["attempts"]),
                    "cache_percent": _percent(totals[name]["cache_hits"], totals[name]["model_calls"]),
                    **_rates(totals[name], None if before is None else before.agents.get(name), interval),
                }
            )
        return rows

    def _queue(self, name: str, agent: _Agent) -> int:
        """Attempts that wait for a process: for room, or for what they need before one is asked for."""
        attempts = [one for one in agent.working if one.work == "attempt"]
        served = sum(one.state != _QUEUED for one in attempts)
        return max(self._sources.under_way()[name], len(attempts)) - served


def _standing(name: str, held: Collection[str], broken: Collection[str]) -> str | None:
    """What keeps an agent from running; None where nothing does."""
    if name in held:
        return "quarantined"
    return "broken" if name in broken else None


def _doing(agent: _Agent, queue: int, persons: int) -> str | None:
    """What an agent does, by what a person would want to know first; None for nothing."""
    if any(one.state not in (_WAITS, _QUEUED) for one in agent.working):
        return "running"
    if persons:
        return "asking"
    if any(one.state == _WAITS for one in agent.working):
        return "waiting"
    return "queued" if queue else None


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def _rates(
    now: Mapping[str, int], before: Mapping[str, int] | None, interval: float | None
) -> dict[str, float | int | None]:
    """Of an agent, over the interval. One that was not there before had done nothing then."""
    if interval is None:
        return dict.fromkeys(("cpu_percent", "tokens_s", "calls_s", "fuel_s", "errors"), None)
    then = before or {}

    def grown(*names: str) -> int:
        return max(0, sum(now[name] - then.get(name, 0) for name in names))

    return {
        "cpu_percent": round(grown("cpu_ms") / interval / 10, 1),
        "tokens_s": round(grown("input_tokens", "output_tokens") / interval, 1),
        "calls_s": round(grown("calls") / interval, 1),
        "fuel_s": round(grown("fuel") / interval),
        "errors": grown("failed"),
    }


def _daemon_rates(
    now: Mapping[str, Any], before: _Kept | None, interval: float | None
) -> dict[str, float | None]:
    rates: dict[str, float | None] = {"cpu_percent": None, "events_s": None, "bus_published_s": None}
    if before is None or interval is None:
        return rates
    for name, source, scale in (
        ("cpu_percent", "cpu_ms", 0.1),
        ("events_s", "events", 1.0),
        ("bus_published_s", "bus_published", 1.0),
    ):
        if now.get(source) is not None and source in before.daemon:
            rates[name] = round(max(0, now[source] - before.daemon[source]) / interval * scale, 1)
    return rates


def _integers(values: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in values.items() if type(value) is int}

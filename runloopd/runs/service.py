"""Runs as a service: submit, follow, cancel, recover, replay.

Owns the runners, one per unfinished run, and feeds each with the run's committed events. Validates again
what the client validated (a client is not trusted to have done so). Knows nothing of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

import msgspec
import structlog

from openings import engine, nest
from openings.definition import Opening
from openings.errors import OpeningError
from openings.load import Reading, Shelf, parse
from openings.state import RunState
from openings.validate import bind, check
from pog.reader import Reader
from runloop.clock import Clock
from runloop.config import Budgets, shipped
from runloop.digest import canonical
from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError
from runloop.events import (
    AgentPin,
    Draft,
    Event,
    Provenance,
    RunCancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
)
from runloop.ids import RunId, new_run_id, run_id_to_int
from runloop.rmp import topics
from runloopd.authority.approvals import Approvals
from runloopd.broker.quotas import Quotas
from runloopd.broker.talk import Talk
from runloopd.bus.bus import Bus
from runloopd.bus.principal import DAEMON, Principal
from runloopd.journal import Journal
from runloopd.runs.attempts import BusAttempts
from runloopd.runs.children import Children
from runloopd.runs.delegation import Delegations, Judged
from runloopd.runs.replayer import Replayer
from runloopd.runs.runner import Runner
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import InstalledAgent, Registry

__all__ = ["Runs", "Submission"]

log = structlog.get_logger(__name__)

MAX_PARAMS_BYTES = 256 * 1024
MAX_NESTED_CHARS = 1024 * 1024
"""Of the texts of all nested openings that a client hands in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What a client asks to run."""

    source: str
    """Text of the opening."""
    name: str
    """File name or opening name, for messages."""
    path: str | None = None
    agents_dir: str | None = None
    """The ``agents`` folder of the directory the user stands in; searched first."""
    params: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    openings: Mapping[str, str] = field(default_factory=dict)
    """Name -> text of openings that may be nested in it; the shipped ones need not be among them."""
    micro_usd: int | None = None
    """Most it may cost, where the configuration of whoever starts it is stricter than ``budgets``."""


class Runs:
    """Every run of this daemon."""

    def __init__(
        self,
        *,
        bus: Bus,
        journal: Journal,
        reader: Reader,
        registry: Registry,
        approvals: Approvals,
        attempts: BusAttempts,
        replayer: Replayer,
        clock: Clock,
        engine_versions: Callable[[], dict[str, Any]],
        budgets: Budgets,
        quotas: Quotas,
        quarantine: Quarantine,
        parked: Callable[[], Collection[tuple[str, str]]] = tuple,
        talk: Talk | None = None,
        branch: Callable[[RunStarted, RunStarted], RunStarted] = lambda around, nested: nested,
    ) -> None:
        """``parked``: run and node of every guest that waits for a promise or a message. ``branch``: see
        :class:`Children`."""
        self._bus = bus
        self._journal = journal
        self._reader = reader
        self._registry = registry
        self._approvals = approvals
        self._attempts = attempts
        self._children = Children(
            journal=journal, reader=reader, engine_versions=engine_versions, branch=branch
        )
        self.delegations = Delegations(
            children=self._children,
            reader=reader,
            judge=self._to_delegate,
            outputs=self._outputs,
            engine_versions=engine_versions,
        )
        """Runs that host calls start."""
        self._replayer = replayer
        self._clock = clock
        self._engine_versions = engine_versions
        self._budgets = budgets
        self._quotas = quotas
        self._quarantine = quarantine
        self._parked = parked
        self._talk = talk
        if talk is not None:
            talk.active = self._active
        self._runners: dict[str, Runner] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._named: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Runs whose id somebody stated, while they are being started."""
        self._closing = False
        journal.listen(self._committed)

    # --- life -------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Take up every unfinished run of the ledger; returns how many."""
        await asyncio.to_thread(self._registry.keep_library)
        unfinished = self._reader.unfinished_runs()
        for run in unfinished:
            first = next(self._reader.events(run=run, limit=1)).id
            resumed = RunResumed(reason="the daemon started")
            stamp = Provenance(causes=(first,))
            await self._journal.append(Draft(payload=resumed, actor="daemon", run=run, provenance=stamp))
        await self._recover_nested(unfinished)
        for run in unfinished:
            # The listener has already met this run without a runner; give it the whole history at once.
            self._launch(run, list(self._reader.events(run=run)))
        return len(unfinished)

    async def _recover_nested(self, unfinished: Sequence[RunId]) -> None:
        """What serves an attempt that is over is stopped; the others are waited for again."""
        around: dict[str, RunState] = {}
        for run in unfinished:
            started = cast(RunStarted, next(self._reader.events(run=run, limit=1)).payload)
            if started.parent is not None:
                if started.parent.run not in around:
                    around[started.parent.run] = engine.fold(self._reader.events(run=started.parent.run))
                await self._children.recovered(run, started, around[started.parent.run])

    async def close(self, drain_ms: int) -> None:
        """Start nothing new, let working attempts end for at most ``drain_ms``, then stop the rest.

        What is left continues from the ledger when a daemon starts again.
        """
        self._closing = True
        for runner in self._runners.values():
            runner.drain()
        due = self._clock.now_ms() + drain_ms
        while self._clock.now_ms() < due and any(r.working(self._parked()) for r in self._runners.values()):
            await self._clock.sleep_until(min(due, self._clock.now_ms() + 50))
        loops = list(self._loops.values())
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._children.close()

    def active(self) -> list[str]:
        """Ids of the runs in progress."""
        return sorted(self._runners)

    def agents(self) -> list[dict[str, Any]]:
        """The installed agents, for people."""
        return [agent.to_json() for agent in self._registry.list()]

    # --- asked for --------------------------------------------------------------------------------

    async def submit(
        self,
        principal: Principal,
        wish: Submission,
        *,
        run: RunId | None = None,
        causes: tuple[int, ...] = (),
    ) -> RunId:
        """Validate and start a run. Raises :class:`UsageError` with every finding; then nothing was done.

        ``run``: its id, where somebody stated already which run it is going to be; one that was started is
        not started again. ``causes``: ledger ids of the events without which it would not be started.
        """
        if run is None:
            return await self._submit(principal, wish, new_run_id(), causes)
        lock = self._named.setdefault(run, asyncio.Lock())
        async with lock:  # of two who ask for it at once, one waits and finds it started
            if next(self._reader.events(run=run, limit=1), None) is not None:
                return run
            return await self._submit(principal, wish, run, causes)

    async def _submit(
        self, principal: Principal, wish: Submission, run: RunId, causes: tuple[int, ...]
    ) -> RunId:
        if self._closing:
            raise ConflictError("the daemon is draining", hint="start it again: 'rlp daemon start'")
        opening, params, agents = await self._ready(wish)
        await self._journal.append(
            Draft(
                payload=RunStarted(
                    opening=opening.name,
                    definition=opening.to_json(),
                    definition_digest=opening.digest,
                    params=params,
                    agents=_pins(opening, agents),
                    engine=self._engine_versions(),
                    policy=self._policy(opening, wish, agents),
                    principal=principal.label,
                    origin=_origin(wish, agents),
                ),
                actor=principal.label,
                run=run,
                provenance=Provenance(causes=causes),
            )
        )
        return run

    async def _ready(self, wish: Submission) -> tuple[Opening, dict[str, Any], dict[str, InstalledAgent]]:
        """The opening judged, none of its agents held back, each compiled and kept."""
        # A text of ten thousand nodes takes long to read; others are served meanwhile.
        reading = await asyncio.to_thread(parse, wish.source, name=wish.name)
        opening, params, agents = self._judged(wish, reading)
        for name in sorted({agent.pin.name for agent in agents.values()}):
            await self._quarantine.check(name)
        for agent in agents.values():
            # Before the run exists: compiling an agent for the first time is not a node's time.
            await self._attempts.make_ready(agent)
            await asyncio.to_thread(self._registry.keep, agent)
        return opening, params, agents

    def _policy(
        self, opening: Opening, wish: Submission, agents: Mapping[str, InstalledAgent]
    ) -> dict[str, Any]:
        names = sorted({agent.pin.name for agent in agents.values()})
        return {**self._limits(opening, wish), "quotas": self._quotas.to_json(names)}

    async def _to_delegate(self, source: str, name: str, params: Mapping[str, Any]) -> Judged:
        """What a guest wants done, as a submitted opening would be."""
        wish = Submission(source=source, name=name, params=dict(params))
        opening, complete, agents = await self._ready(wish)
        return Judged(
            opening=opening,
            params=complete,
            pins=_pins(opening, agents),
            limits=self._policy(opening, wish, agents),
            dev=sorted({agent.manifest.name for agent in agents.values() if agent.dev}),
        )

    def _outputs(self, use: str) -> list[str]:
        return sorted(self._registry.resolve(use).ports.out)

    def examine(self, wish: Submission) -> tuple[Opening, dict[str, Any]]:
        """The opening as it would run, and the limits it would have (``budget_micro_usd``, …), without
        starting anything. Raises what :meth:`submit` raises for what is wrong with it."""
        opening, _, _ = self._judged(wish)
        return opening, self._limits(opening, wish)

    def _judged(
        self, wish: Submission, reading: Reading | None = None
    ) -> tuple[Opening, dict[str, Any], dict[str, InstalledAgent]]:
        """The opening with its ports bound, its whole parameters, and the agent behind every ``use``."""
        if len(canonical(wish.params)) > MAX_PARAMS_BYTES:
            raise UsageError("the parameters are larger than 256 KiB", hint="put large inputs in a file")
        if sum(len(text) for text in wish.openings.values()) > MAX_NESTED_CHARS:
            raise UsageError("the nested openings are larger than 1 MiB", hint="run some on their own")
        reading = reading or parse(wish.source, name=wish.name)
        if reading.opening is None:
            raise OpeningError(reading.findings)
        shelf = Shelf((shipped("openings"),), wish.openings)
        nested = nest.gather(reading, shelf)
        agents = self._agents(nest.uses(reading, nested), wish.agents_dir)
        ports = {use: agent.ports for use, agent in agents.items()}
        params = check(
            reading, ports, wish.params, installed=self._references(), nested=nested, openings=shelf.names
        )
        return bind(reading.opening, ports, nested), params, agents

    def _agents(self, uses: Iterable[str], beside: str | None) -> dict[str, InstalledAgent]:
        """The agent behind every ``use``; one that is not installed is left for ``check`` to name."""
        registry = self._registry.beside(Path(beside)) if beside else self._registry
        found: dict[str, InstalledAgent] = {}
        for use in uses:
            with contextlib.suppress(NotFoundError):
                found[use] = registry.resolve(use)
        return found

    def _references(self) -> Iterator[str]:
        """Every agent as an opening names it, listed only when somebody asks."""
        for agent in self._registry.list():
            yield f"agent:{agent.manifest.name}"

    def _limits(self, opening: Opening, wish: Submission) -> dict[str, Any]:
        """The stricter of what the opening asks for and what the configuration and the wish allow."""
        policy = opening.policy.to_json()
        ceilings = {
            "budget_micro_usd": self._budgets.run_micro_usd
            if wish.micro_usd is None
            else min(wish.micro_usd, self._budgets.run_micro_usd),
            "budget_tokens": self._budgets.run_tokens,
        }
        for name, ceiling in ceilings.items():
            asked = policy.get(name)
            policy[name] = ceiling if asked is None else min(asked, ceiling)
        if self._budgets.ask_micro_usd is not None:
            asked = policy.get("ask_micro_usd")
            asks = self._budgets.ask_micro_usd
            policy["ask_micro_usd"] = asks if asked is None else min(asked, asks)
        return policy

    async def started(self, run: str) -> RunStarted | None:
        """How a run began; None for one that there is not."""
        first = await asyncio.to_thread(lambda: next(self._reader.events(run=run, limit=1), None))
        return None if first is None else cast(RunStarted, first.payload)

    async def principal(self, run: str) -> str | None:
        """Who asked for a run; None for one that there is not."""
        begun = await self.started(run)
        return None if begun is None else begun.principal

    async def cancel(self, principal: Principal, run: RunId, reason: str) -> None:
        """Ask a run to end; it does so at the next decision. Raises when it has already ended."""
        if run not in self._runners:
            raise ConflictError(f"run {run} has already finished", hint=f"rlp trace {run[:8]}")
        await self._journal.append(
            Draft(
                payload=RunCancelRequested(principal=principal.label, reason=reason),
                actor=principal.label,
                run=run,
            )
        )

    async def show(self, run: RunId) -> dict[str, Any]:
        """A run's present state: nodes, attempts, what waits for whom, the runs nested in it."""
        state = engine.initial()
        events: Sequence[Event] = list(self._reader.events(run=run))
        if not events:
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them")
        for event in events:
            state = engine.apply(state, event)
        started = cast(RunStarted, events[0].payload)
        return {
            "run": run,
            "opening": started.opening,
            "started_ms": events[0].ts_ms,
            "params": started.params,
            "events": len(events),
            "live": run in self._runners,
            "parent": msgspec.to_builtins(started.parent),
            "nested": await asyncio.to_thread(self._reader.runs_inside, run),
            **engine.summary(state),
        }

    async def replay(self, run: RunId) -> dict[str, Any]:
        """Re-execute a finished run from its record; see :mod:`runloopd.runs.replayer`."""
        return await self._replayer.replay(run)

    # --- fed by the journal -----------------------------------------------------------------------

    def _committed(self, events: list[Event]) -> None:
        for event in events:
            if event.run is None:
                continue
            self._publish(event)
            if isinstance(event.payload, RunStarted):
                self._launch(event.run, [event])
            elif (runner := self._runners.get(event.run)) is not None:
                runner.feed([event])

    def _launch(self, run: str, events: Sequence[Event]) -> None:
        runner = Runner(
            run,
            journal=self._journal,
            attempts=self._attempts,
            clock=self._clock,
            settled=lambda node, attempt: self._settled(run, node, attempt),
            nested=self._children,
            rested=lambda: None if self._talk is None else self._talk.stirred(run),
        )
        runner.feed(events)
        self._runners[run] = runner
        loop = asyncio.create_task(runner.loop(), name=f"run {run}")
        self._loops[run] = loop
        loop.add_done_callback(lambda task: self._ended(run, task))

    def _ended(self, run: str, task: asyncio.Task[None]) -> None:
        self._runners.pop(run, None)
        self._loops.pop(run, None)
        self._attempts.forget(run)
        self._approvals.forget(run)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run_loop_failed", run=run, exc_info=error)

    def _active(self, run: str) -> Collection[str] | None:
        """Nodes of a run that may do something by themselves; None while the engine is deciding."""
        runner = self._runners.get(run)
        return None if runner is None else runner.busy()

    async def _settled(self, run: str, node: str, attempt: int) -> None:
        """An attempt was stopped from outside: nobody may approve what it asked for any more."""
        if not self._closing:
            await self._approvals.void(run, node, attempt)

    def _publish(self, event: Event) -> None:
        assert event.run is not None
        try:
            frame = self._bus.compose(
                DAEMON,
                topics.run_events(event.run),
                "observation.opening.event.v1",
                {"event": event.to_json()},
                trace_id=run_id_to_int(RunId(event.run)),
            )
            self._bus.publish(frame)
        except RunloopError as error:
            # Larger than a frame, as the start of a very large run: who follows reads it from the ledger.
            log.warning("event_not_shown", run=event.run, number=event.id, code=error.named_code)
        if isinstance(event.payload, RunFinished):
            log.info("run_finished", run=event.run, outcome=event.payload.outcome)


def _pins(opening: Opening, agents: Mapping[str, InstalledAgent]) -> dict[str, AgentPin]:
    """Node -> agent, and ``<opening>/<node>`` -> agent for every opening that is nested in it."""
    return {
        f"{prefix}{node.id}": agents[node.use].pin
        for prefix, each in (("", opening), *((f"{name}/", one) for name, one in opening.openings.items()))
        for node in each.nodes
        if node.nests is None
    }


def _origin(wish: Submission, agents: Mapping[str, InstalledAgent]) -> dict[str, Any]:
    """Where the run comes from. Whom nobody but this home vouches for is named, whatever the client says."""
    said = {name: value for name, value in wish.origin.items() if name != "dev"}
    dev = sorted({agent.manifest.name for agent in agents.values() if agent.dev})
    return {
        "via": "cli",
        "prompt": None,
        "interactive": False,
        "source_path": wish.path,
        **said,
        **({"dev": dev} if dev else {}),
    }

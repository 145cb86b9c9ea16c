"""One run: committed events in, the engine's commands carried out.

The loop of the architecture's hops 7 to 11. Every event of the run arrives here after it is durable, in
ledger order; the engine says what is due; what is due is journalled and so comes back as an event. Nothing
is done on the strength of a command alone: an attempt starts because ``node.scheduled`` is in the ledger.
That makes a fresh run, a recovered run and a replayed run the same function fed from different places.

What one event costs here is what it touches: a run may have ten thousand nodes ready at once. So many
attempts are not started at once either: what has no room yet stays due, and its clock does not run.

Knows: the order of things, how many attempts of a run are made at a time. Does not know: how an attempt is
performed (``attempts``), what is due (``openings.engine``), how facts are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from openings import engine
from openings.engine import Command, FinishRun
from openings.state import RUN_TIMER, RunState, base, item_id
from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloop.events import (
    ArtifactCreated,
    Draft,
    Event,
    NodeCancelled,
    NodeExpanded,
    NodeFinished,
    NodeGathered,
    NodeScheduled,
    NodeSkipped,
    Payload,
    Provenance,
    RunFinished,
    RunStarted,
    TimerFired,
)
from runloopd.journal import Journal

__all__ = ["Attempts", "Runner"]

log = structlog.get_logger(__name__)

MAX_RUNNING = 1_024
"""Attempts of one run that are under way at a time, those not counted that wait for a person."""

Key = tuple[str, int]
"""``(node, attempt)``."""


class Attempts(Protocol):
    """Performs one attempt and journals how it ended; cancelled, it kills the guest."""

    async def perform(self, run: str, started: Event, scheduled: Event) -> None: ...


class Runner:
    """Drives one run from its first event to its last."""

    def __init__(
        self,
        run: str,
        *,
        journal: Journal,
        attempts: Attempts,
        clock: Clock,
        settled: Callable[[str, int], Awaitable[None]],
        rested: Callable[[], None] = lambda: None,
        nested: Attempts | None = None,
    ) -> None:
        """``settled(node, attempt)`` is awaited when an attempt was stopped from outside; ``rested()`` is
        called whenever nothing is due until something happens; ``nested`` performs the attempts of nodes that
        use an opening."""
        self.run = run
        self.state: RunState = engine.initial()
        self._journal = journal
        self._attempts = attempts
        self._nested = nested or attempts
        self._clock = clock
        self._settled = settled
        self._rested = rested
        self._resting = False
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._folded = 0
        self._written = 0
        self._started: Event | None = None
        self._scheduled: dict[str, Event] = {}
        """Node or item -> ``node.scheduled`` of the attempt that is under way."""
        self._causes: dict[str, int] = {}
        """Node or item -> ledger id of its end; empty for the run's start."""
        self._expanded: dict[str, int] = {}
        """Mapped node -> ledger id of ``node.expanded``."""
        self._performing: dict[str, tuple[int, asyncio.Task[None]]] = {}
        """Node or item -> the attempt that is made."""
        self._waking: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Node or item, empty for the run -> the one timer it waits for."""
        self._touched: dict[str, None] = {}
        """What events have changed since the world was last brought in step."""
        self._draining = False
        self.failure: BaseException | None = None

    # --- feeding ----------------------------------------------------------------------------------

    def feed(self, events: Iterable[Event]) -> None:
        """Hand over committed events of this run, in ledger order."""
        self._resting = False
        for event in events:
            self._inbox.put_nowait(event)

    def drain(self) -> None:
        """Start nothing new; what runs may end."""
        self._draining = True

    def working(self, parked: Collection[tuple[str, str]] = ()) -> bool:
        """Whether an attempt executes that waits neither for a person nor, being ``parked`` (run and node),
        for a promise. A nested run works, or does not, for itself."""
        waiting = self.state.waiting | {node for run, node in parked if run == self.state.run}
        return any(
            name not in waiting and self.state.definition(name).nests is None for name in self._performing
        )

    async def loop(self) -> None:
        """Run until the run is finished. Raises only when the ledger no longer takes facts."""
        try:
            while not self.state.finished:
                self._fold(await self._inbox.get())
                while not self._inbox.empty():
                    self._fold(self._inbox.get_nowait())
                if self._folded < self._written:
                    continue  # what we wrote last is still on its way back to us
                commands = engine.due(self.state, room=self._room())
                await self._carry_out(commands)
                self._reconcile()
                self._rest(commands)
        except RunloopError as error:
            self.failure = error
            log.error("run_stalled", run=self.run, code=error.named_code, reason=error.message)
        finally:
            await self._stop_everything()

    def busy(self) -> frozenset[str] | None:
        """Nodes that execute, or will after a wait of their own; None while the engine is deciding."""
        if not self._resting:
            return None
        delayed = (name for name in self.state.live_timers() if name.endswith(":backoff"))
        return frozenset((*(node for node, _ in self.state.active), *delayed))

    def _rest(self, commands: Sequence[Command]) -> None:
        # What has no room to start will start: as long as there is such, nobody waits in vain.
        if not (commands or self.state.startable or self.state.finished) and self._inbox.empty():
            self._resting = True
            self._rested()

    def _room(self) -> int:
        """How many attempts may start now; whoever waits for a person takes no room."""
        return 0 if self._draining else max(0, MAX_RUNNING - self.state.running)

    def _fold(self, event: Event) -> None:
        before, self.state = self.state, engine.apply(self.state, event)
        if self.state is not before:
            self._touched.update(dict.fromkeys(self.state.touched))
        self._folded = max(self._folded, event.id)
        payload = event.payload
        if isinstance(payload, RunStarted):
            self._started = event
            self._causes[""] = event.id
        elif isinstance(payload, NodeScheduled):
            self._scheduled[payload.node] = event
        elif isinstance(payload, NodeExpanded):
            self._expanded[payload.node] = event.id
        elif isinstance(payload, NodeFinished | NodeSkipped | NodeCancelled | NodeGathered):
            self._causes[payload.node] = event.id

    # --- carrying out -----------------------------------------------------------------------------

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        if not commands:
            return
        blobs: list[bytes] = []
        drafts = [
            self._draft(payload, node)
            for command in commands
            for payload, node in self._facts(command, blobs)
        ]
        events = await self._journal.append(*drafts, blobs=blobs)
        self._written = events[-1].id

    def _facts(self, command: Command, blobs: list[bytes]) -> list[tuple[Payload, str | None]]:
        """The facts that reflect a command, each with the node it is about."""
        blobs.extend(engine.blobs(command))
        stated = engine.fact(command, now_ms=self._clock.now_ms())
        if isinstance(command, FinishRun):
            return [*self._artifacts(command, blobs), (stated, None)]
        return [(stated, getattr(stated, "node", None))]

    def _artifacts(self, finish: FinishRun, blobs: list[bytes]) -> list[tuple[Payload, str | None]]:
        """Files for the ports the opening saves (spec/openings.md: ``artifacts.save``)."""
        facts: list[tuple[Payload, str | None]] = []
        for node, port, values in self.state.saved():
            if f"{node}.{port}" not in finish.outputs:
                continue
            content = canonical(values[-1])
            blobs.append(content)
            artifact = ArtifactCreated(
                name=f"{node}.{port}.json",
                node=node,
                port=port,
                media_type="application/json",
                blob=blob_digest(content),
                size=len(content),
            )
            facts.append((artifact, node))
        return facts

    def _draft(self, payload: Payload, node: str | None) -> Draft:
        return Draft(
            payload=payload,
            actor="daemon",
            run=self.run,
            provenance=Provenance(causes=self._causes_of(payload, node), node=node),
        )

    def _causes_of(self, payload: Payload, node: str | None) -> tuple[int, ...]:
        """Ledger ids without which the engine would not have said this: finished upstreams, or the start."""
        if isinstance(payload, RunFinished):
            return tuple(sorted(event for name, event in self._causes.items() if base(name) == name))
        if isinstance(payload, NodeGathered) and payload.node in self.state.items:
            items = range(self.state.items[payload.node].admitted)
            ends = sorted(self._causes[item_id(payload.node, index)] for index in items)
            return tuple(ends) or (self._expanded[payload.node],)
        if node is not None and base(node) != node:
            return (self._expanded[base(node)],)
        if isinstance(payload, ArtifactCreated) and node is not None and node in self._causes:
            return (self._causes[node],)
        upstream = self.state.upstream(node) if node is not None else ()
        found = tuple(sorted(self._causes[name] for name in upstream if name in self._causes))
        return found or (self._causes[""],)

    # --- keeping the world in step with the state -------------------------------------------------

    def _reconcile(self) -> None:
        """Start what the state says is active, stop what it says is not: for whatever events have touched.

        All that was not touched is as it was, and was in step then.
        """
        touched, self._touched = self._touched, {}
        for name in sorted(touched, key=self.state.place):
            self._reconcile_attempt(name)
            self._reconcile_timer(name, self.state.timer_of(name))
        due = self.state.timers.get(RUN_TIMER)
        self._reconcile_timer("", None if due is None or self.state.finished else (RUN_TIMER, due))

    def _reconcile_attempt(self, name: str) -> None:
        attempt = None if self.state.finished else self.state.executing.get(name)
        under_way = self._performing.get(name)
        if under_way is not None and under_way[0] != attempt:
            self._performing.pop(name)[1].cancel()
            under_way = None
        scheduled = self._scheduled.get(name)
        if attempt is None:
            self._scheduled.pop(name, None)
        elif under_way is None and scheduled is not None:
            self._performing[name] = attempt, asyncio.create_task(self._perform((name, attempt), scheduled))

    def _reconcile_timer(self, name: str, wanted: tuple[str, int] | None) -> None:
        waking = self._waking.get(name)
        if waking is not None and (wanted is None or waking[0] != wanted[0]):
            self._waking.pop(name)[1].cancel()
            waking = None
        if wanted is not None and waking is None:
            self._waking[name] = wanted[0], asyncio.create_task(self._wake(*wanted))

    async def _perform(self, key: Key, scheduled: Event) -> None:
        assert self._started is not None
        nests = self.state.definition(key[0]).nests is not None
        try:
            await (self._nested if nests else self._attempts).perform(self.run, self._started, scheduled)
        except asyncio.CancelledError:
            await self._settled(*key)
            raise
        except RunloopError as error:
            # The attempt could not even state how it ended. The ledger is the authority: without it
            # nothing more may happen in this run until a restart recovers it.
            log.error("attempt_unrecorded", run=self.run, node=key[0], code=error.named_code)

    async def _wake(self, timer: str, due_ms: int) -> None:
        await self._clock.sleep_until(due_ms)
        try:
            await self._journal.append(
                Draft(
                    payload=TimerFired(timer=timer),
                    actor="daemon",
                    run=self.run,
                    provenance=Provenance(causes=(self._causes[""],)),
                )
            )
        except RunloopError as error:
            log.error("timer_unrecorded", run=self.run, timer=timer, code=error.named_code)

    async def _stop_everything(self) -> None:
        tasks = [task for _, task in (*self._performing.values(), *self._waking.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._performing.clear()
        self._waking.clear()

"""One run: committed events in, the engine's commands carried out.

The loop of the architecture's hops 7 to 11. Every event of the run arrives here after it is durable, in
ledger order; the engine says what is due; what is due is journalled and so comes back as an event. Nothing
is done on the strength of a command alone: an attempt starts because ``node.scheduled`` is in the ledger.
That makes a fresh run, a recovered run and a replayed run the same function fed from different places.

Knows: the order of things. Does not know: how an attempt is performed (``attempts``), what is due
(``openings.engine``), how facts are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from openings import engine
from openings.engine import Command, FinishRun, ScheduleNode
from openings.state import RunState
from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloop.events import (
    ArtifactCreated,
    Draft,
    Event,
    NodeCancelled,
    NodeFinished,
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
    ) -> None:
        """``settled(node, attempt)`` is awaited when an attempt was stopped from outside."""
        self.run = run
        self.state: RunState = engine.initial()
        self._journal = journal
        self._attempts = attempts
        self._clock = clock
        self._settled = settled
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._folded = 0
        self._written = 0
        self._started: Event | None = None
        self._scheduled: dict[Key, Event] = {}
        self._causes: dict[str, int] = {}
        self._performing: dict[Key, asyncio.Task[None]] = {}
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._draining = False
        self.failure: BaseException | None = None

    # --- feeding ----------------------------------------------------------------------------------

    def feed(self, events: Iterable[Event]) -> None:
        """Hand over committed events of this run, in ledger order."""
        for event in events:
            self._inbox.put_nowait(event)

    def drain(self) -> None:
        """Start nothing new; what runs may end."""
        self._draining = True

    def working(self, parked: Collection[tuple[str, str]] = ()) -> bool:
        """Whether an attempt executes that waits neither for a person nor, being ``parked`` (run and node),
        for a promise."""
        waiting = self.state.waiting | {node for run, node in parked if run == self.state.run}
        return any(key[0] not in waiting for key in self._performing)

    async def loop(self) -> None:
        """Run until the run is finished. Raises only when the ledger no longer takes facts."""
        try:
            while not self.state.finished:
                self._fold(await self._inbox.get())
                while not self._inbox.empty():
                    self._fold(self._inbox.get_nowait())
                if self._folded < self._written:
                    continue  # what we wrote last is still on its way back to us
                await self._carry_out(engine.due(self.state))
                self._reconcile()
        except RunloopError as error:
            self.failure = error
            log.error("run_stalled", run=self.run, code=error.named_code, reason=error.message)
        finally:
            await self._stop_everything()

    def _fold(self, event: Event) -> None:
        self.state = engine.apply(self.state, event)
        self._folded = max(self._folded, event.id)
        payload = event.payload
        if isinstance(payload, RunStarted):
            self._started = event
            self._causes[""] = event.id
        elif isinstance(payload, NodeScheduled):
            self._scheduled[payload.node, payload.attempt] = event
        elif isinstance(payload, NodeFinished | NodeSkipped | NodeCancelled):
            self._causes[payload.node] = event.id

    # --- carrying out -----------------------------------------------------------------------------

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        if self._draining:
            commands = [c for c in commands if not isinstance(c, ScheduleNode)]
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
            ends = sorted(self._causes.values())
            return tuple(ends)
        if isinstance(payload, ArtifactCreated) and node is not None and node in self._causes:
            return (self._causes[node],)
        upstream = self.state.upstream(node) if node is not None else ()
        found = tuple(sorted(self._causes[name] for name in upstream if name in self._causes))
        return found or (self._causes[""],)

    # --- keeping the world in step with the state -------------------------------------------------

    def _reconcile(self) -> None:
        """Level-triggered: start what the state says is active, stop what it says is not."""
        active: set[Key] = set(self.state.active)
        for key in [key for key in self._performing if key not in active]:
            self._performing.pop(key).cancel()
        for key in sorted(active - self._performing.keys()):
            if key in self._scheduled and not self.state.finished:
                self._performing[key] = asyncio.create_task(self._perform(key))
        timers = self.state.live_timers()
        for name in [name for name in self._waking if name not in timers]:
            self._waking.pop(name).cancel()
        for name in timers.keys() - self._waking.keys():
            self._waking[name] = asyncio.create_task(self._wake(name, timers[name]))

    async def _perform(self, key: Key) -> None:
        assert self._started is not None
        try:
            await self._attempts.perform(self.run, self._started, self._scheduled[key])
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
        tasks = [*self._performing.values(), *self._waking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._performing.clear()
        self._waking.clear()

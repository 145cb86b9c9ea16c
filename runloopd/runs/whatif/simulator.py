"""Drives a recorded run again, in memory: the same engine, the same guests, a virtual clock.

Time is the record's: what the record states keeps its moment, in its order; what it does not state happens
at once, after all that it does. Attempts are executed in the real sandbox, one at a time, at the moment they
are scheduled; the answers come from ``answering``. Nothing is written, sent, asked or dialled, and the same
record, agents and ruler give the same result.

Knows: how a run moves. Does not know: what is ruled otherwise (``policy``, ``faults``).
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from openings import child
from openings.definition import Opening
from openings.demands import AttemptOutcome, Reexecute
from openings.engine import CancelNode, Command, ScheduleNode, apply, blobs, due, fact, initial
from openings.foresee import is_host_side
from openings.state import RUN_TIMER, RunState, base
from runloop.digest import blob_digest, digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    AgentPin,
    Event,
    GuestError,
    HostcallDelivered,
    NodeFinished,
    NodeScheduled,
    Payload,
    Provenance,
    RunFinished,
    TimerFired,
    TimerSet,
)
from runloop.ids import child_run_id
from runloopd.broker.quotas import Allowance
from runloopd.runs.replayer import Allowances, Replayer, Source
from runloopd.runs.whatif.answering import Change, Effect, Heard, Ruler, SimulatedAnswerer, Stop
from runloopd.runs.whatif.tape import AFTER, Call, Moment, Tape, about
from runloopd.runtime.registry import InstalledAgent
from runloopd.runtime.supervisor import Runtime

__all__ = ["NodeEnd", "Played", "Simulator", "ends"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeEnd:
    """Where a node stands at the end."""

    state: str
    attempts: int
    error: GuestError | None
    reason: str
    output_digest: str
    """Of its ports."""


@dataclass(kw_only=True)
class Played:
    """How a run went that was driven again, with the runs nested in it."""

    run: str
    outcome: str | None = None
    """None: it did not come to its end; ``stops`` say why."""
    output_digest: str | None = None
    error: GuestError | None = None
    nodes: dict[str, NodeEnd] = field(default_factory=dict)
    stops: list[Stop] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    asked: list[tuple[str, str, int, str, str]] = field(default_factory=list)
    """Run, node, attempt, op and digest of the arguments of every effect that was asked for."""


def ends(state: RunState) -> dict[str, NodeEnd]:
    """Every node and item of a run, as it stands."""
    return {
        name: NodeEnd(
            state=str(node.state),
            attempts=node.attempt,
            error=node.error,
            reason=node.reason,
            output_digest=digest({port: list(values) for port, values in node.ports.items()}),
        )
        for name, node in sorted(state.nodes.items())
    }


class _Overlay:
    """The record, and beside it the inputs that attempts are given in memory. Implements ``Source``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.made: dict[str, bytes] = {}
        self.rows, self.children, self.prepare = source.rows, source.children, source.prepare

    def blob(self, digest: str) -> bytes:
        made = self.made.get(digest)
        return self._source.blob(digest) if made is None else made

    def pinned(self, pin: AgentPin, *, library: str | None = None) -> InstalledAgent:
        return self._source.pinned(pin, library=library)


_Memo = dict[tuple[str, str, int, str], tuple[AttemptOutcome, Heard]]


class Simulator:
    """Drives runs again. Remembers what attempts came to that no ruler was concerned with."""

    def __init__(
        self, source: Source, runtime: Runtime, tape: Callable[[str], Awaitable[Tape | None]]
    ) -> None:
        """``tape``: the record of a run; None for one that is not on record."""
        self._overlay = _Overlay(source)
        self._replayer = Replayer(self._overlay, runtime)
        self._tape = tape
        self._memo: _Memo = {}

    async def play(self, tape: Tape, ruler: Ruler, *, params: dict[str, Any] | None = None) -> Played:
        """Drive one run to its end, or as far as its record carries. ``params``: instead of its own."""
        return await _Play(self, tape, ruler, params).drive()

    async def nested(self, run: str) -> Tape | None:
        """The record of a nested run."""
        return await self._tape(run)

    def keep(self, data: bytes) -> None:
        """Have the input of an attempt at hand."""
        self._overlay.made[blob_digest(data)] = data

    async def execute(
        self, demand: Reexecute, answerer: SimulatedAnswerer, allowance: Allowance | None, *, remember: bool
    ) -> tuple[AttemptOutcome, Heard]:
        """Execute one attempt; ``remember``: it comes to the same whenever it is asked for."""
        given = cast(NodeScheduled, demand.scheduled.payload).input_digest
        key = (demand.run, demand.node, demand.attempt, given)
        if remember and key in self._memo:
            return self._memo[key]
        outcome = await self._replayer.reexecute(demand, answerer, allowance)
        if remember and answerer.heard.in_step:
            self._memo[key] = outcome, answerer.heard
        return outcome, answerer.heard


@dataclass
class _Play:
    """One run, on its way."""

    simulator: Simulator
    tape: Tape
    ruler: Ruler
    params: dict[str, Any] | None

    def __post_init__(self) -> None:
        self.state = initial()
        self.now = self.tape.started.ts_ms
        self.count = 0
        self.waiting: list[tuple[Moment, int, Command | Payload]] = []
        self.offered: set[tuple[Any, ...]] = set()
        self.played = Played(run=self.tape.run)
        self.stopped: set[str] = set()
        """Nodes that cannot go on: no clock ends them."""
        self.heard: dict[int, Call] = {}
        """Recorded answer -> the call here that heard it."""
        self.places: set[Call] = set()
        """Recorded calls whose answers were heard."""
        self.ending: dict[str, int] = {}
        """Node -> when its attempt ends that ends as it did."""
        self.result: RunFinished | None = None
        self.allowances = Allowances(self.tape.events)

    async def drive(self) -> Played:
        begun = self.tape.begun
        if self.params is not None:
            begun = msgspec.structs.replace(begun, params=self.params)
        self.began = begun
        self._state(begun)
        for event in self.tape.asides:
            self._push((event.ts_ms, event.id), event.payload)
        self._offer()
        while self.waiting and not self.state.finished:
            (at, _), _, item = heapq.heappop(self.waiting)
            self.now = max(self.now, at)
            await self._take(item)
            self._offer()
        self._check_causes()
        return self._told()

    # --- what is due ------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Put what is due now among what is to come, at the moment the record states it."""
        if self.state.finished:
            return
        for command in due(self.state):
            key = about(fact(command))
            if key not in self.offered:
                self.offered.add(key)
                self._push(self._due(command, key), command)

    def _due(self, command: Command, key: tuple[Any, ...]) -> Moment:
        """When a command is stated. A cancellation that the record does not state came too late: the node
        ended while it was on its way."""
        if isinstance(command, CancelNode) and key not in self.tape.moments and command.node in self.ending:
            return max(self.ending[command.node], self.now), AFTER
        return self._moment(key)

    def _moment(self, key: tuple[Any, ...]) -> Moment:
        at, place = self.tape.moments.get(key, (self.now, AFTER))
        return max(at, self.now), place

    def _push(self, moment: Moment, item: Command | Payload) -> None:
        self.count += 1
        heapq.heappush(self.waiting, ((max(moment[0], self.now), moment[1]), self.count, item))

    async def _take(self, item: Command | Payload) -> None:
        if isinstance(item, Payload):
            if not (isinstance(item, TimerFired) and self._is_void(item.timer)):
                self._state(item)
            return
        self.offered.discard(about(fact(item)))
        if item not in due(self.state):
            return
        stated = fact(item, now_ms=self.now)
        self._state(stated)
        if isinstance(stated, TimerSet):
            self._set(stated)
        elif isinstance(stated, RunFinished):
            self.result = stated
        elif isinstance(item, ScheduleNode):
            await self._begin(item, cast(NodeScheduled, stated))

    def _set(self, timer: TimerSet) -> None:
        fired = self.tape.moments.get(about(TimerFired(timer=timer.timer)))
        moment = fired or (timer.due_ms, AFTER)
        if fired is None and self.tape.never_fired(timer.timer):
            # The record ended without it: whatever it waited for came in time, though a clock was late.
            moment = max(timer.due_ms, self.tape.end_ms + 1), AFTER
        self._push(moment, TimerFired(timer=timer.timer))

    def _is_void(self, timer: str) -> bool:
        """Whether a timer is about something that cannot go on: then it tells nothing."""
        if not self.stopped:
            return False
        return timer == RUN_TIMER or any(timer.startswith(f"node:{name}:") for name in self.stopped)

    def _state(self, payload: Payload) -> Event:
        self.count += 1
        event = Event(
            id=self.count,
            ts_ms=self.now,
            actor="daemon",
            kind=payload.kind,
            scope="user",
            run=self.tape.run,
            payload=payload,
            provenance=Provenance(),
            hash=b"\0" * 32,
            prev_hash=b"\0" * 32,
        )
        self.state = apply(self.state, event)
        return event

    # --- attempts ---------------------------------------------------------------------------------

    async def _begin(self, command: ScheduleNode, scheduled: NodeScheduled) -> None:
        """Execute an attempt that was scheduled just now, and say when it will end and how."""
        for data in blobs(command):
            self.simulator.keep(data)
        opening = self.state.opening
        assert opening is not None
        node = opening.node(base(command.node))
        if node is not None and node.nests is not None:
            await self._nest(command, scheduled, opening)
            return
        pin = self.began.agents.get(base(command.node))
        if pin is None:
            self._stop(command, "unavailable", "no agent is pinned to it")
            return
        await self._execute(command, scheduled, pin)

    async def _execute(self, command: ScheduleNode, scheduled: NodeScheduled, pin: AgentPin) -> None:
        node, attempt = command.node, command.attempt
        fate = _fate(self.tape, scheduled)
        if fate.untold:
            return  # it was cut off before it did anything that is on record
        if fate.end is not None and fate.cut and not self.tape.answers.calls(node, attempt):
            self._end(fate.end)
            return
        answerer = SimulatedAnswerer(
            self.tape,
            pin,
            node,
            attempt,
            self.ruler,
            as_attempt=attempt if fate.known else self.tape.answers.last_attempt(node),
            now_ms=self.now,
            cut_off=fate.cut,
        )
        demand = Reexecute(
            run=self.tape.run,
            trace=self.began.lineage or self.tape.run,
            node=node,
            attempt=attempt,
            pin=pin,
            scheduled=self._event_of(scheduled),
            recorded=(),
            expected=NodeFinished(node=node, attempt=attempt, status="failed"),
        )
        outcome, heard = await self.simulator.execute(
            demand,
            answerer,
            self.allowances.of(demand) if fate.known else None,
            remember=not self.ruler.concerns(self.tape, node),
        )
        self._account(node, attempt, heard)
        if heard.stop is not None:
            self._halt(heard.stop)
        elif outcome.reason is not None:
            self._stop(command, "unavailable", outcome.reason)
        elif heard.in_step and fate.cut:
            self._people(node, attempt, heard, whole=True)
            if fate.end is not None:
                self._end(fate.end)
        else:
            self._people(node, attempt, heard, whole=False)
            self._end(_finished(node, attempt, outcome), heard=heard, same=heard.in_step and fate.known)

    def _event_of(self, scheduled: NodeScheduled) -> Event:
        return Event(
            id=0,
            ts_ms=self.now,
            actor="daemon",
            kind=scheduled.kind,
            scope="user",
            run=self.tape.run,
            payload=scheduled,
            provenance=Provenance(),
            hash=b"\0" * 32,
            prev_hash=b"\0" * 32,
        )

    def _account(self, node: str, attempt: int, heard: Heard) -> None:
        played = self.played
        played.changes += heard.changes
        played.effects += heard.effects
        played.asked += [(self.tape.run, node, attempt, *one) for one in heard.asked]
        for index, answer in enumerate(heard.events):
            self.heard[answer.event.id] = (node, attempt, index)
            self.places.add((answer.call.node, answer.call.attempt, answer.call.call))

    def _people(self, node: str, attempt: int, heard: Heard, *, whole: bool) -> None:
        """What people were asked and said in the calls that were heard; ``whole``: in all of the attempt."""
        asked = {(a.call.node, a.call.attempt, a.call.call) for a in heard.events}
        for of, events in sorted(self.tape.people.items()):
            if of[0] != node:
                continue
            for call, event in events:
                if (*of, call) in asked or (whole and of == (node, attempt)):
                    payload = cast(ActionRequested | ActionDecided, event.payload)
                    if isinstance(payload, ActionRequested) and payload.attempt != attempt:
                        payload = msgspec.structs.replace(payload, attempt=attempt)
                    self._push((event.ts_ms, event.id), payload)

    def _end(self, finished: NodeFinished, *, heard: Heard | None = None, same: bool = True) -> None:
        """An attempt ends, at the moment it did; another end comes after the last answer it heard."""
        if same:
            moment = self._moment(about(finished))
            self.ending[finished.node] = moment[0]
            self._push(moment, finished)
            return
        last = max((a.event.ts_ms for a in heard.events), default=self.now) if heard is not None else self.now
        self._push((max(last, self.now), AFTER), finished)

    def _stop(self, command: ScheduleNode, kind: Any, why: str) -> None:
        self._halt(
            Stop(
                run=self.tape.run,
                node=command.node,
                attempt=command.attempt,
                call=None,
                op="",
                kind=kind,
                why=why,
            )
        )

    def _halt(self, stop: Stop) -> None:
        self.played.stops.append(stop)
        self.stopped.add(stop.node)

    # --- runs inside ------------------------------------------------------------------------------

    async def _nest(self, command: ScheduleNode, scheduled: NodeScheduled, opening: Opening) -> None:
        node, attempt = command.node, command.attempt
        fate = _fate(self.tape, scheduled)
        nested = await self.simulator.nested(child_run_id(self.tape.run, node, attempt))
        if nested is None:
            if fate.end is not None:
                self._end(fate.end)
            elif not fate.untold:
                self._stop(command, "unrecorded", "no run that would serve it is on record")
            return
        params = None if fate.known else child.given_params(command.input)
        inner = await _Play(self.simulator, nested, self.ruler, params).finish()
        told = inner.played
        for name in ("stops", "changes", "effects", "asked"):
            getattr(self.played, name).extend(getattr(told, name))
        if told.stops:
            self.stopped.add(node)
            return
        same = ends(inner.state) == ends(nested.state()) and fate.known
        if same:
            if fate.end is not None:
                self._end(fate.end)
            return
        if inner.result is None:
            self._stop(command, "unrecorded", "the run that serves it came to no end")
            return
        retry = opening.node(base(node))
        assert retry is not None
        output, error = child.result(inner.state, inner.result, retry.retry)
        finished = NodeFinished(
            node=node,
            attempt=attempt,
            status="succeeded" if output is not None else "failed",
            output=output,
            output_digest=None if output is None else digest(output),
            error=error,
        )
        self._push((max(self.now, inner.now), AFTER), finished)

    async def finish(self) -> _Play:
        """As :meth:`drive`, for the run around."""
        await self.drive()
        return self

    # --- the end ----------------------------------------------------------------------------------

    def _check_causes(self) -> None:
        """Whoever heard what another said or wrote heard it because that one did. Where it did not here, what
        came of it is nothing anybody knows."""
        for name in sorted(self.heard):
            call, event = self.heard[name], self.tape.event(name)
            for cause in event.provenance.causes:
                origin = self.tape.origins.get(cause)
                if origin is None or origin[0] == call[0] or origin in self.places:
                    continue
                self._halt(
                    Stop(
                        run=self.tape.run,
                        node=call[0],
                        attempt=call[1],
                        call=call[2],
                        op=cast(HostcallDelivered, event.payload).op,
                        kind="cause",
                        why=f"what it heard came of call {origin[2]} of {origin[0]}, which was not made",
                    )
                )
                break

    def _told(self) -> Played:
        played, state = self.played, self.state
        played.nodes = ends(state)
        if not played.stops and self.result is not None:
            played.outcome = self.result.outcome
            played.output_digest = self.result.output_digest
            played.error = self.result.error
        return played


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fate:
    """What the record says of an attempt that is made again."""

    known: bool
    """It is on record, with the same input."""
    cut: bool = False
    """Its guest did not come to an end by itself."""
    end: NodeFinished | None = None
    """The end that the machine gave it, or its nested run; None: a clock or a cancellation will."""
    untold: bool = False
    """It was cut off and left nothing to execute."""


def _fate(tape: Tape, scheduled: NodeScheduled) -> _Fate:
    recorded = tape.answers.scheduled(scheduled.node, scheduled.attempt)
    before = None if recorded is None else cast(NodeScheduled, recorded.payload)
    if before is None or before.input_digest != scheduled.input_digest:
        return _Fate(known=False)
    ended = tape.answers.ended(scheduled.node, scheduled.attempt)
    if isinstance(ended, NodeFinished) and ended.status != "timed_out":
        return _Fate(known=True, cut=is_host_side(ended), end=ended)
    heard = tape.answers.calls(scheduled.node, scheduled.attempt)
    return _Fate(known=True, cut=True, untold=not heard)


def _finished(node: str, attempt: int, outcome: AttemptOutcome) -> NodeFinished:
    """How an attempt ended that was executed here."""
    output = outcome.output if outcome.ok else None
    error = outcome.error or GuestError(code="guest.error", message="no reason given")
    return NodeFinished(
        node=node,
        attempt=attempt,
        status="succeeded" if output is not None else "failed",
        output=None if output is None else dict(output),
        output_digest=outcome.output_digest if output is not None else None,
        error=None if output is not None else error,
        fuel=outcome.fuel,
        calls=outcome.calls,
    )

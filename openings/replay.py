"""Replay: a recorded run put through the same engine again, and every guest through the same input again.

A generator without I/O: it walks the record, demands that attempts be re-executed (:class:`Reexecute`), is
sent how that went (:class:`AttemptOutcome`) and returns a :class:`ReplayReport`. The driver executes guests
on recorded answers only; nothing in here could perform an effect.

What is checked, hash by hash:

- every fact the engine stated (scheduled, skipped, timer, timed out, cancelled, finished) against the command
  the engine gives now: keys, inputs, reasons, outcome, the digest of all outputs;
- every attempt: each host call's arguments and fuel (by the driver, with :func:`match`), and output or error,
  fuel and number of calls at its end;
- every saved artifact against the output it was made from.

What comes from outside (answers, human decisions, times) is substituted from the record, and counted as such.
What nobody could check is counted as not covered, and then nothing is called identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import msgspec

from openings.engine import LOGIC, Command, apply, due, fact, initial
from openings.errors import EngineError
from openings.state import RunState
from runloop.digest import blob_digest, canonical, digest
from runloop.errors import UsageError
from runloop.events import (
    AgentPin,
    ArtifactCreated,
    Event,
    GuestError,
    HostcallDelivered,
    NodeCancelled,
    NodeFinished,
    NodeScheduled,
    NodeSkipped,
    Payload,
    RunFinished,
    RunStarted,
    TimerSet,
    encode_payload,
)

__all__ = [
    "AttemptOutcome",
    "Coverage",
    "Divergence",
    "DivergenceCode",
    "Reexecute",
    "ReplayReport",
    "match",
    "recorded_calls",
    "replay",
]

DivergenceCode = Literal["replay.missing", "replay.arguments", "replay.result"]
"""Not in the record; asked for something else; came out differently."""


class Mismatch(Protocol):
    """The first place where a guest left its record, as the driver's answerer saw it."""

    @property
    def code(self) -> str: ...
    @property
    def call(self) -> int | None: ...
    @property
    def what(self) -> str: ...
    @property
    def expected(self) -> str: ...
    @property
    def actual(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """The first difference between the record and its replay."""

    code: str
    """One of :data:`DivergenceCode`."""
    where: str
    """``node <id> attempt <n> call <i>``, ``engine``, ``event <id>``."""
    what: str
    expected: str
    """What the record has: a hash where there is one."""
    actual: str
    event: int | None = None
    """Ledger id of the recorded event, if one is at fault."""
    call: int | None = None
    """Index of the host call; None when it is none."""

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "where": self.where,
            "what": self.what,
            "expected": self.expected,
            "actual": self.actual,
            "event": self.event,
            "call": self.call,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How many events of the run were checked, and how. The three parts add up to ``recorded``."""

    recorded: int
    reexecuted: int
    """Came out of the engine or of a guest again, and were compared."""
    substituted: int
    """Came from outside and were served from the record: answers, decisions, times, marks of effects."""
    not_covered: int
    """Could not be checked, or never got to an end."""

    def to_json(self) -> dict[str, int]:
        return {
            "recorded": self.recorded,
            "reexecuted": self.reexecuted,
            "substituted": self.substituted,
            "not_covered": self.not_covered,
        }

    def __str__(self) -> str:
        return (
            f"{self.recorded} recorded / {self.reexecuted} re-executed / {self.substituted} substituted / "
            f"{self.not_covered} not covered"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """How a replay went."""

    coverage: Coverage
    divergence: Divergence | None = None
    gaps: tuple[str, ...] = ()
    """Why something is not covered, in words."""
    attempts: int = 0
    """Guest executions that were compared."""
    output_digest: str | None = None
    """Of the re-executed run; None when it did not get to its end."""

    @property
    def identical(self) -> bool:
        """Everything was covered and nothing differed. Impossible with a gap."""
        return self.divergence is None and self.coverage.not_covered == 0

    def to_json(self) -> dict[str, Any]:
        return {
            "identical": self.identical,
            "coverage": self.coverage.to_json(),
            "divergence": None if self.divergence is None else self.divergence.to_json(),
            "gaps": list(self.gaps),
            "attempts": self.attempts,
            "output_digest": self.output_digest,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Reexecute:
    """The demand to run one attempt again."""

    node: str
    attempt: int
    pin: AgentPin
    scheduled: Event
    """The attempt's ``node.scheduled``: its payload names the input blob."""
    input: dict[str, Any]
    """``{ports, with}`` as the engine assembles it now; its digest equals the recorded one."""
    recorded: tuple[HostcallDelivered, ...]
    """The answers it may hear, by index."""
    expected: NodeFinished | None
    """How it ended by itself; None when it was cut off (timed out, cancelled)."""

    @property
    def interrupted(self) -> bool:
        """Whether the attempt was ended from outside: then only its host calls can be compared."""
        return self.expected is None


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptOutcome:
    """How the re-execution of an attempt went."""

    ok: bool = False
    output_digest: str | None = None
    error: GuestError | None = None
    fuel: int = 0
    calls: int = 0
    mismatch: Mismatch | None = None
    """The first host call that is not as recorded."""
    reason: str | None = None
    """Why it could not be executed at all."""

    @classmethod
    def unavailable(cls, reason: str) -> AttemptOutcome:
        """The attempt cannot be executed here; it will be counted as not covered."""
        return cls(reason=reason)


def replay(events: Sequence[Event]) -> Generator[Reexecute, AttemptOutcome, ReplayReport]:
    """Replay the events of one run, all of them, in ledger order. See the module."""
    return _Replay(events).walk()


def recorded_calls(events: Iterable[Event], node: str, attempt: int) -> tuple[HostcallDelivered, ...]:
    """The delivered host calls of one attempt by index, contiguous from 0, cut at the first gap."""
    found: dict[int, HostcallDelivered] = {}
    for event in events:
        call = event.payload
        if isinstance(call, HostcallDelivered) and call.node == node and call.attempt == attempt:
            found.setdefault(call.call, call)
    contiguous: list[HostcallDelivered] = []
    while (following := found.get(len(contiguous))) is not None:
        contiguous.append(following)
    return tuple(contiguous)


def match(
    recorded: Sequence[HostcallDelivered], index: int, op: str, args_digest: str, fuel: int | None = None
) -> HostcallDelivered | Divergence:
    """The recorded answer to a host call, or how the call differs. ``fuel`` None: not compared."""
    if index >= len(recorded):
        what = f"host call {index} ({op}) is not in the record"
        return _at_call(index, "replay.missing", what, "", args_digest)
    call = recorded[index]
    if call.op != op:
        what = f"host call {index} is {op}, the record has {call.op}"
        return _at_call(index, "replay.arguments", what, call.op, op)
    if call.args_digest != args_digest:
        what = f"host call {index} ({op}) has other arguments than the record"
        return _at_call(index, "replay.arguments", what, call.args_digest, args_digest)
    if fuel is not None and call.fuel != fuel:
        what = f"the guest burnt {fuel} fuel before host call {index}, the record has {call.fuel}"
        return _at_call(index, "replay.result", what, str(call.fuel), str(fuel))
    return call


def _at_call(index: int, code: DivergenceCode, what: str, expected: str, actual: str) -> Divergence:
    return Divergence(
        code=code, where=f"call {index}", what=what, expected=expected, actual=actual, call=index
    )


class _Diverged(Exception):
    def __init__(self, divergence: Divergence) -> None:
        self.divergence = divergence


@dataclass
class _Replay:
    """One walk through a record."""

    events: Sequence[Event]
    state: RunState = field(default_factory=initial)
    offered: list[Command] = field(default_factory=list)
    """What the engine asked for at any moment so far and no fact has stated yet. A fact may be stated
    a little after it fell due, when others came between (the engine is level-triggered), never before."""
    pins: Mapping[str, AgentPin] = field(default_factory=dict)
    scheduled: dict[tuple[str, int], Event] = field(default_factory=dict)
    inputs: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    gaps: list[str] = field(default_factory=list)
    attempts: int = 0

    def walk(self) -> Generator[Reexecute, AttemptOutcome, ReplayReport]:
        """See :func:`replay`."""
        try:
            for event in self.events:
                yield from self._step(event)
            self._end()
        except _Diverged as found:
            return self._report(found.divergence)
        return self._report(None)

    def _report(self, divergence: Divergence | None) -> ReplayReport:
        checked = self.counts["reexecuted"] + self.counts["substituted"]
        extra = self.counts["extra"]
        finished = [e.payload for e in self.events if isinstance(e.payload, RunFinished)]
        return ReplayReport(
            coverage=Coverage(
                recorded=len(self.events) + extra,
                reexecuted=self.counts["reexecuted"],
                substituted=self.counts["substituted"],
                not_covered=len(self.events) + extra - checked,
            ),
            divergence=divergence,
            gaps=tuple(self.gaps),
            attempts=self.attempts,
            output_digest=finished[0].output_digest if finished and self.state.finished else None,
        )

    def _gap(self, why: str, *, extra: bool = False) -> None:
        """Something is not covered; ``extra``: it is not even an event of the record."""
        self.gaps.append(why)
        self.counts["extra"] += extra

    # --- one event --------------------------------------------------------------------------------

    def _step(self, event: Event) -> Generator[Reexecute, AttemptOutcome, None]:
        payload = event.payload
        covered = "substituted"
        if isinstance(payload, RunStarted):
            self._start(event, payload)
        elif isinstance(payload, NodeFinished) and payload.status != "timed_out":
            covered = yield from self._attempt_ended(event, payload)
        elif isinstance(payload, _ENGINE_FACTS):
            command = self._stated(event)
            covered = "reexecuted"
            if isinstance(payload, NodeScheduled):
                key = payload.node, payload.attempt
                self.scheduled[key] = event
                self.inputs[key] = cast(Any, command).input
            elif isinstance(payload, NodeFinished | NodeCancelled) and payload.attempt is not None:
                covered = yield from self._interrupted(payload.node, payload.attempt)
        elif isinstance(payload, ArtifactCreated) and payload.port is not None:
            covered = self._artifact(event, payload)
        self._fold(event)
        self.counts[covered] += 1

    def _fold(self, event: Event) -> None:
        try:
            self.state = apply(self.state, event)
        except (EngineError, UsageError) as error:
            raise _Diverged(
                Divergence(
                    code="replay.result",
                    where=f"event {event.id}",
                    what=f"the engine cannot have led to {event.kind}: {error.message}",
                    expected=digest(encode_payload(event.payload)),
                    actual="",
                    event=event.id,
                )
            ) from error
        self.offered.extend(command for command in due(self.state) if command not in self.offered)

    def _start(self, event: Event, started: RunStarted) -> None:
        self.pins = started.agents
        logic = started.engine.get("logic", LOGIC)
        if logic != LOGIC:
            self._gap(f"the run was made by engine logic {logic}, this is {LOGIC}", extra=True)
        actual = digest(started.definition)
        if actual != started.definition_digest:
            raise _Diverged(
                Divergence(
                    code="replay.result",
                    where=f"event {event.id}",
                    what="the recorded definition does not have its recorded digest",
                    expected=started.definition_digest,
                    actual=actual,
                    event=event.id,
                )
            )

    # --- what the engine stated -------------------------------------------------------------------

    def _stated(self, event: Event) -> Command:
        """The command a recorded fact states; raises when the engine does not give it."""
        recorded = _comparable(event.payload)
        for command in self.offered:
            if _comparable(fact(command)) == recorded:
                self.offered.remove(command)
                return command
        raise _Diverged(self._unstated(event, recorded))

    def _unstated(self, event: Event, recorded: dict[str, Any]) -> Divergence:
        """Why no command fits a recorded fact: none at all, or one that says something else."""
        name = f"{event.kind} {_about(event.payload)}".rstrip()
        rivals = [fact(command) for command in self.offered]
        nearest = next(
            (r for r in rivals if r.kind == event.kind and _about(r) == _about(event.payload)), None
        )
        if nearest is None:
            what, actual = f"the engine does not give {name}", ""
        else:
            what = f"the engine gives another {name}: {_differing(event.payload, nearest)}"
            actual = digest(_comparable(nearest))
        return Divergence(
            code="replay.missing" if nearest is None else _code_of(event.payload),
            where=f"engine: {name}",
            what=what,
            expected=digest(recorded),
            actual=actual,
            event=event.id,
        )

    def _artifact(self, event: Event, artifact: ArtifactCreated) -> str:
        """A saved output: its bytes are those of the value the node gave."""
        for node, port, values in self.state.saved():
            if node == artifact.node and port == artifact.port:
                content = canonical(values[-1])
                if blob_digest(content) == artifact.blob and len(content) == artifact.size:
                    return "reexecuted"
                raise _Diverged(
                    Divergence(
                        code="replay.result",
                        where=f"artifact {artifact.name}",
                        what="the saved artifact is not what the node gave",
                        expected=artifact.blob,
                        actual=blob_digest(content),
                        event=event.id,
                    )
                )
        return "substituted"

    # --- what the guests did ----------------------------------------------------------------------

    def _demand(self, node: str, attempt: int, expected: NodeFinished | None) -> Reexecute | None:
        scheduled = self.scheduled.get((node, attempt))
        pin = self.pins.get(node)
        if scheduled is None or pin is None:
            return None
        return Reexecute(
            node=node,
            attempt=attempt,
            pin=pin,
            scheduled=scheduled,
            input=self.inputs[node, attempt],
            recorded=recorded_calls(self.events, node, attempt),
            expected=expected,
        )

    def _attempt_ended(
        self, event: Event, finished: NodeFinished
    ) -> Generator[Reexecute, AttemptOutcome, str]:
        where = f"node {finished.node} attempt {finished.attempt}"
        node = self.state.nodes.get(finished.node)
        if node is None or (finished.node, finished.attempt) not in self.state.active:
            # It came after its attempt was over (timed out, cancelled): the engine ignored it, and so do we.
            return "substituted"
        if finished.output is not None and digest(finished.output) != finished.output_digest:
            raise _Diverged(
                Divergence(
                    code="replay.result",
                    where=where,
                    what="the recorded output does not have its recorded digest",
                    expected=str(finished.output_digest),
                    actual=digest(finished.output),
                    event=event.id,
                )
            )
        cut = _host_side(finished)
        demand = self._demand(finished.node, finished.attempt, None if cut else finished)
        if demand is None:
            self._gap(f"{where}: no agent is pinned to it")
            return "gap"
        if cut and not demand.recorded:
            return "substituted"
        outcome = yield demand
        if cut:
            return self._judge_interrupted(demand, outcome, where)
        if outcome.reason is not None:
            self._gap(f"{where}: {outcome.reason}")
            return "gap"
        self.attempts += 1
        self._compare(event, finished, outcome, where)
        return "reexecuted"

    def _interrupted(self, node: str, attempt: int) -> Generator[Reexecute, AttemptOutcome, str]:
        """An attempt that was cut off: it must at least ask for what is recorded, in that order."""
        where = f"node {node} attempt {attempt}"
        demand = self._demand(node, attempt, None)
        if demand is None:
            self._gap(f"{where}: no agent is pinned to it")
            return "gap"
        return self._judge_interrupted(demand, (yield demand), where)

    def _judge_interrupted(self, demand: Reexecute, outcome: AttemptOutcome, where: str) -> str:
        if outcome.reason is not None:
            self._gap(f"{where}: {outcome.reason}")
            return "gap"
        mismatch = outcome.mismatch
        served = len(demand.recorded)
        beyond = mismatch is not None and mismatch.code == "replay.missing" and (mismatch.call or 0) >= served
        if mismatch is not None and not beyond:
            raise _Diverged(_from_mismatch(mismatch, where))
        if mismatch is None and outcome.calls < served:
            raise _Diverged(
                Divergence(
                    code="replay.result",
                    where=where,
                    what=f"the guest made {outcome.calls} host calls, the record has {served}",
                    expected=str(served),
                    actual=str(outcome.calls),
                )
            )
        self.attempts += 1
        return "reexecuted"

    def _compare(self, event: Event, finished: NodeFinished, outcome: AttemptOutcome, where: str) -> None:
        if outcome.mismatch is not None:
            raise _Diverged(_from_mismatch(outcome.mismatch, where))
        pairs = [
            ("result", _result(finished.status == "succeeded", finished), _result(outcome.ok, outcome)),
            ("fuel", str(finished.fuel), str(outcome.fuel)),
            ("number of host calls", str(finished.calls), str(outcome.calls)),
        ]
        for what, recorded, now in pairs:
            if recorded != now:
                raise _Diverged(
                    Divergence(
                        code="replay.result",
                        where=where,
                        what=f"its {what} is not the recorded one",
                        expected=recorded,
                        actual=now,
                        event=event.id,
                    )
                )

    # --- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self.events or not isinstance(self.events[0].payload, RunStarted):
            raise _Diverged(
                Divergence(
                    code="replay.missing",
                    where="event 1",
                    what="the record does not begin with run.started",
                    expected="run.started",
                    actual=self.events[0].kind if self.events else "",
                )
            )
        if not self.state.finished:
            for node, attempt in self.state.active:
                self._gap(f"node {node} attempt {attempt} has not ended", extra=True)
            self._gap("the run is not finished", extra=True)


HOST_SIDE = frozenset({"guest.breach", "guest.crashed", "guest.deadline"})
"""Ends of an attempt that the wall clock or the machine decided, not the guest: its calls can be compared,
its end cannot."""


def _host_side(finished: NodeFinished) -> bool:
    """Whether the guest did not come to its end by itself; one that burnt no fuel never even began."""
    return finished.error is not None and (finished.error.code in HOST_SIDE or finished.fuel == 0)


_ENGINE_FACTS = (NodeScheduled, NodeSkipped, NodeCancelled, NodeFinished, TimerSet, RunFinished)


def _result(ok: bool, ended: NodeFinished | AttemptOutcome) -> str:
    """One digest for how an attempt ended: of its output, or of its error."""
    if ok:
        return str(ended.output_digest)
    return digest(["error", None if ended.error is None else msgspec.to_builtins(ended.error)])


def _from_mismatch(mismatch: Mismatch, where: str) -> Divergence:
    return Divergence(
        code=mismatch.code,
        where=f"{where} call {mismatch.call}",
        what=mismatch.what,
        expected=mismatch.expected,
        actual=mismatch.actual,
        call=mismatch.call,
    )


def _comparable(payload: Payload) -> dict[str, Any]:
    """A fact without what only the clock knows."""
    made = encode_payload(payload)
    made.pop("due_ms", None)
    return {"kind": payload.kind, **made}


def _about(payload: Payload) -> str:
    """What a fact is about, to find the command that should have stated it."""
    node, attempt = getattr(payload, "node", None), getattr(payload, "attempt", None)
    if node is not None:
        return f"{node}" if attempt is None else f"{node} attempt {attempt}"
    return str(getattr(payload, "timer", ""))


def _code_of(recorded: Payload) -> DivergenceCode:
    """An attempt that starts with another input has other arguments; all else is another result."""
    return "replay.arguments" if isinstance(recorded, NodeScheduled) else "replay.result"


def _differing(recorded: Payload, actual: Payload) -> str:
    before, after = _comparable(recorded), _comparable(actual)
    return ", ".join(name for name in before if before[name] != after.get(name))

"""Replay: a recorded run put through the same engine again, and every guest through the same input again.

A generator without I/O: it walks the record, demands that attempts be re-executed (:class:`Reexecute`) and
that nested runs be replayed (:class:`ReplayNested`), is sent how that went and returns a
:class:`ReplayReport`. The driver executes guests on recorded answers only; nothing in here could perform an
effect.

What is checked, hash by hash (``openings.comparers``):

- every fact the engine stated (scheduled, skipped, expanded, gathered, timer, timed out, cancelled, finished)
  against the command the engine gives now: keys, inputs, reasons, outcome, the digest of all outputs;
- every attempt: each host call's arguments and fuel (by the driver, with :func:`match`), and output or error,
  fuel and number of calls at its end;
- every frame between the daemon and an agent, and every message between agents, byte for byte;
- every saved artifact against the output it was made from;
- every nested run, in the same way, and its result against the attempt that it served.

What comes from outside (answers, human decisions, times) is substituted from the record, and counted as such.
What nobody could check is counted as not covered, and then nothing is called identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from openings import child
from openings import comparers as compare
from openings.certificate import (
    Coverage,
    Diverged,
    Divergence,
    DivergenceCode,
    Mismatch,
    ReplayReport,
)
from openings.commands import Command
from openings.comparers import Frame, Said
from openings.demands import AttemptOutcome, Demand, NestedOutcome, Outcome, Reexecute, ReplayNested
from openings.engine import LOGIC, apply, fresh, initial
from openings.errors import EngineError
from openings.exchanges import Exchanges
from openings.foresee import HOST_SIDE, demand_of, foreseen, is_host_side
from openings.offers import Offers
from openings.state import RunState, base
from openings.transcript import Key, Transcript, match, recorded_calls
from runloop.digest import canonical, digest
from runloop.errors import UsageError
from runloop.events import (
    ArtifactCreated,
    Event,
    HostcallAdmitted,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeCancelled,
    NodeExpanded,
    NodeFinished,
    NodeGathered,
    NodeScheduled,
    NodeSkipped,
    Payload,
    RunFinished,
    RunParent,
    RunStarted,
    TimerSet,
    encode_payload,
)
from runloop.ids import child_run_id, delegated_run_id

__all__ = [
    "DELEGATE",
    "HOST_SIDE",
    "AttemptOutcome",
    "Coverage",
    "Demand",
    "Divergence",
    "DivergenceCode",
    "Frame",
    "NestedOutcome",
    "Outcome",
    "Reexecute",
    "ReplayNested",
    "ReplayReport",
    "Said",
    "foreseen",
    "match",
    "recorded_calls",
    "replay",
]


DELEGATE = "agent.delegate"
"""The host call that another run serves."""

Walk = Generator[Demand, Outcome, str]
"""One event's part of a replay; gives how the event was covered."""


def replay(
    events: Sequence[Event], machine: Mapping[str, Any] | None = None
) -> Generator[Demand, Outcome, ReplayReport]:
    """Replay the events of one run, all of them, in ledger order. See the module.

    A demand is answered with the outcome of its kind. ``machine``: ``sandbox`` and ``wasmtime`` of whoever
    executes them, as ``run.started`` has them of the recorded run; None: the same.
    """
    return _Replay(events, machine or {}).walk()


_ENGINE_FACTS = (
    NodeScheduled,
    NodeSkipped,
    NodeCancelled,
    NodeExpanded,
    NodeGathered,
    NodeFinished,
    TimerSet,
    RunFinished,
)


@dataclass
class _Replay:
    """One walk through a record."""

    events: Sequence[Event]
    machine: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: str | None = None
    """The run was executed by another sandbox: what comes out the same, to the last instruction, is the same;
    of what does not, nobody can say whether guest or sandbox is why."""
    state: RunState = field(default_factory=initial)
    offers: Offers = field(default_factory=Offers)
    run: str = ""
    started: RunStarted | None = None
    unknown_engine: bool = False
    """The run was made by an engine this build does not know: what it stated cannot be judged here."""
    open: dict[Key, Event] = field(default_factory=dict)
    """Attempts under way, with their ``node.scheduled``."""
    scheduled: set[Key] = field(default_factory=set)
    """Every attempt so far."""
    inputs: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    """Of attempts under way that a nested opening serves."""
    delegating: set[tuple[str, int, int]] = field(default_factory=set)
    """Calls that started a run: node, attempt, number."""
    saved: dict[tuple[str, str], Any] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    inner: Coverage = field(default_factory=Coverage)
    """Of nested runs."""
    gaps: list[str] = field(default_factory=list)

    def walk(self) -> Generator[Demand, Outcome, ReplayReport]:
        """See :func:`replay`."""
        self.transcript = Transcript(self.events)
        self.exchanges = Exchanges(self.transcript)
        try:
            for event in self.events:
                yield from self._step(event)
            self._end()
        except Diverged as found:
            return self._report(found.divergence)
        return self._report(None)

    def _report(self, divergence: Divergence | None) -> ReplayReport:
        count = self.counts
        recorded = len(self.events) + count["extra"]
        checked = count["reexecuted"] + count["substituted"]
        own = Coverage(
            recorded=recorded,
            reexecuted=count["reexecuted"],
            substituted=count["substituted"],
            not_covered=recorded - checked,
        )
        finished = [e.payload for e in self.events if isinstance(e.payload, RunFinished)]
        ended = finished and self.state.finished and divergence is None
        return ReplayReport(
            coverage=own + self.inner,
            divergence=divergence,
            gaps=tuple(self.gaps),
            attempts=count["attempts"],
            messages=count["messages"],
            runs=1 + count["runs"],
            hashes=count["hashes"],
            output_digest=finished[0].output_digest if ended else None,
        )

    def _gap(self, why: str, *, extra: bool = False) -> str:
        """Something is not covered; ``extra``: it is not even an event of the record."""
        self.gaps.append(why)
        self.counts["extra"] += extra
        return "gap"

    # --- one event --------------------------------------------------------------------------------

    def _step(self, event: Event) -> Generator[Demand, Outcome, None]:
        payload = event.payload
        covered = "substituted"
        if isinstance(payload, RunStarted):
            self._start(event, payload)
        elif isinstance(payload, MessageSent | MessagePosted):
            covered = self._spoken(event, payload)
        elif isinstance(payload, NodeFinished) and payload.status != "timed_out":
            covered = yield from self._attempt_ended(event, payload)
        elif isinstance(payload, _ENGINE_FACTS):
            covered = yield from self._engine_fact(event)
        elif isinstance(payload, HostcallAdmitted | HostcallDelivered) and payload.op == DELEGATE:
            covered = yield from self._delegated(event, payload)
        elif isinstance(payload, ArtifactCreated) and payload.port is not None:
            covered = self._artifact(event, payload)
        self._fold(event)
        self.counts[covered] += 1

    def _start(self, event: Event, started: RunStarted) -> None:
        self.run, self.started = event.run or "", started
        self.exchanges.lineage = started.lineage or self.run
        self.elsewhere = _elsewhere(started.engine, self.machine)
        if why := _unknown(started.engine):
            self.unknown_engine = True
            self._gap(why, extra=True)
        compare.definition(event, started)

    def _spoken(self, event: Event, payload: MessageSent | MessagePosted) -> str:
        """A frame or a message waits until its attempt is executed."""
        key = payload.node, payload.attempt
        if key[0] is None or key[1] is None:
            return "substituted"
        compare.asked(event, (key[0], key[1]) in self.scheduled)
        if key not in self.open:
            return "substituted"  # said while its attempt was being stopped
        self.exchanges.take((key[0], key[1]), event)
        return "unchecked"

    def _fold(self, event: Event) -> None:
        if self.unknown_engine:
            return
        try:
            before, self.state = self.state, apply(self.state, event)
        except (EngineError, UsageError) as error:
            what = f"the engine cannot have led to {event.kind}: {error.message}"
            compare.diverge(
                f"event {event.id}", what, digest(encode_payload(event.payload)), "", event=event.id
            )
        self.offers.add(fresh(before, self.state))

    # --- what the engine stated -------------------------------------------------------------------

    def _engine_fact(self, event: Event) -> Walk:
        payload = event.payload
        command = None if self.unknown_engine else self._stated(event)
        if isinstance(payload, NodeScheduled):
            key = payload.node, payload.attempt
            self.open[key] = event
            self.scheduled.add(key)
            if command is not None and self._nests(payload.node):
                self.inputs[key] = cast(Any, command).input
        elif isinstance(payload, NodeFinished | NodeCancelled) and payload.attempt is not None:
            covered = yield from self._cut(event, payload.node, payload.attempt)
            if covered == "gap":
                return covered
        return "gap" if self.unknown_engine else "reexecuted"

    def _stated(self, event: Event) -> Command:
        """The command a recorded fact states; ends the replay when the engine does not give it."""
        command = self.offers.take(event.payload)
        if command is None:
            raise compare.unstated(event, _named(event.payload), self.offers.instead(event.payload))
        return command

    def _artifact(self, event: Event, artifact: ArtifactCreated) -> str:
        """A saved output: its bytes are those of the value the node gave."""
        if self.unknown_engine:
            return "gap"
        if self.saved is None:
            self.saved = {(node, port): values[-1] for node, port, values in self.state.saved()}
        key = artifact.node, artifact.port or ""
        if key not in self.saved:
            return "substituted"
        compare.artifact(event, artifact, canonical(self.saved[key]))
        return "reexecuted"

    # --- what the guests did ----------------------------------------------------------------------

    def _attempt_ended(self, event: Event, finished: NodeFinished) -> Walk:
        key = finished.node, finished.attempt
        if key not in self.open:
            # It came after its attempt was over (timed out, cancelled): the engine ignored it, and so do we.
            return "substituted"
        where = _where(*key)
        compare.output(event, finished, where)
        if self._nests(finished.node):
            return (yield from self._nested(event, key, finished))
        if is_host_side(finished):
            return (yield from self._cut(event, *key))
        demand = self._demand(key, finished)
        if demand is None:
            return self._close(key, self._gap(f"{where}: no agent is pinned to it"))
        outcome = cast(AttemptOutcome, (yield demand))
        if outcome.reason is not None:
            return self._close(key, self._gap(f"{where}: {outcome.reason}"))
        return self._judge_whole(event, key, finished, outcome)

    def _judge_whole(self, event: Event, key: Key, finished: NodeFinished, outcome: AttemptOutcome) -> str:
        self.counts["attempts"] += 1
        try:
            self._compare(event, finished, outcome, _where(*key))
            return self._close(key, "reexecuted", outcome, whole=True)
        except Diverged as found:
            return self._close(key, self._of_elsewhere(found))

    def _cut(self, event: Event, node: str, attempt: int) -> Walk:
        """An attempt that was cut off: it must at least ask for what is recorded, in that order."""
        key = node, attempt
        if key not in self.open:
            return "substituted"
        if self._nests(node):
            return (yield from self._nested(event, key, None))
        demand = self._demand(key, None)
        if demand is None:
            return self._close(key, self._gap(f"{_where(*key)}: no agent is pinned to it"))
        if not demand.recorded and not demand.frames:
            return self._close(key, "substituted")  # it left nothing that could be compared
        outcome = cast(AttemptOutcome, (yield demand))
        try:
            return self._judge_cut(key, demand, outcome)
        except Diverged as found:
            return self._close(key, self._of_elsewhere(found))

    def _of_elsewhere(self, found: Diverged) -> str:
        """A difference that another sandbox may have made is none that could be told: it is a gap."""
        if self.elsewhere is None:
            raise found
        return self._gap(f"{found.divergence.where}: {found.divergence.what}; {self.elsewhere}")

    def _demand(self, key: Key, expected: NodeFinished | None) -> Reexecute | None:
        assert self.started is not None
        return demand_of(self.run, self.started, self.transcript, self.open[key], expected)

    def _judge_cut(self, key: Key, demand: Reexecute, outcome: AttemptOutcome) -> str:
        where = _where(*key)
        if outcome.reason is not None:
            return self._close(key, self._gap(f"{where}: {outcome.reason}"))
        mismatch = outcome.mismatch
        served = len(demand.recorded)
        beyond = mismatch is not None and mismatch.code == "replay.missing" and (mismatch.call or 0) >= served
        if mismatch is not None and not beyond:
            self._left(key, mismatch)
        if mismatch is None and outcome.calls < served:
            what = f"the guest made {outcome.calls} host calls, the record has {served}"
            compare.diverge(where, what, str(served), str(outcome.calls))
        self.counts["attempts"] += 1
        return self._close(key, "reexecuted", outcome)

    def _compare(self, event: Event, finished: NodeFinished, outcome: AttemptOutcome, where: str) -> None:
        if outcome.mismatch is not None:
            self._left((finished.node, finished.attempt), outcome.mismatch)
        compare.result(
            event,
            finished,
            where,
            ok=outcome.ok,
            output_digest=outcome.output_digest,
            error=outcome.error,
        )
        compare.fuel(event, finished, where, outcome.fuel)
        compare.calls(event, finished, where, outcome.calls)

    def _left(self, key: Key, mismatch: Mismatch) -> None:
        """A guest left its record, at a call unless its input was no more what it was."""
        answer = self.transcript.of(*key).answers.get(-1 if mismatch.call is None else mismatch.call)
        compare.diverge(
            _where(*key) + ("" if mismatch.call is None else f" call {mismatch.call}"),
            mismatch.what,
            mismatch.expected,
            mismatch.actual,
            code=cast(DivergenceCode, mismatch.code),
            event=None if answer is None else answer.id,
            call=mismatch.call,
        )

    def _close(
        self, key: Key, covered: str, outcome: AttemptOutcome | None = None, *, whole: bool = False
    ) -> str:
        """The attempt is over: what it exchanged with others is compared. ``whole``: it came to its end."""
        if outcome is None:
            # Nothing of it was made again; where that is a gap, it was told already.
            self.counts["gap" if covered == "gap" else "substituted"] += self.exchanges.drop(key)
        else:
            compared, taken = self.exchanges.compare(key, outcome, whole=whole)
            self.counts["reexecuted"] += compared
            self.counts["messages"] += compared
            self.counts["substituted"] += taken
        self.open.pop(key, None)
        self.inputs.pop(key, None)
        return covered

    # --- runs inside runs -------------------------------------------------------------------------

    def _nests(self, node: str) -> bool:
        opening = self.state.opening
        found = None if opening is None else opening.node(base(node))
        return found is not None and found.nests is not None

    def _nested(self, event: Event, key: Key, finished: NodeFinished | None) -> Walk:
        """An attempt that another opening serves: its run is replayed, and its result compared."""
        parent = self._parent(key)
        outcome = cast(NestedOutcome, (yield ReplayNested(run=child_run_id(self.run, *key), parent=parent)))
        covered = self._judge_nested(event, parent, outcome, finished)
        self.open.pop(key, None)
        self.inputs.pop(key, None)
        return covered

    def _judge_nested(
        self, event: Event, parent: RunParent, outcome: NestedOutcome, finished: NodeFinished | None
    ) -> str:
        assert self.started is not None
        assert self.state.opening is not None
        place = f"node {parent.node}" + (f" attempt {parent.attempt}" if parent.attempt > 1 else "")
        if self._inside(outcome, place) is None:
            compare.absent(event, finished, place)
            return "substituted"  # it ended before a run was started for it
        node = self.state.opening.node(base(parent.node))
        assert node is not None
        given = child.given_params(self.inputs.get((parent.node, parent.attempt), {}))
        inner = child.inner(self.state.opening, node.nests or "")
        if inner is None:
            return self._gap(f"{place}: the run has no opening {node.nests} at hand")
        compare.nested(outcome.events, self.started, parent, inner, given, place)
        if finished is not None:
            compare.nested_result(event, finished, outcome.events, node.retry, place)
        return "reexecuted"

    def _parent(self, key: Key) -> RunParent:
        """What a run inside this one says of the attempt that it serves."""
        assert self.started is not None
        root = self.started.parent.root if self.started.parent is not None else self.run
        return RunParent(run=self.run, node=key[0], attempt=key[1], root=root)

    def _inside(self, outcome: NestedOutcome, place: str) -> ReplayReport | None:
        """Take in how the replay of a run inside this one went; raises where it diverged."""
        report = outcome.report
        if report is None:
            return None
        self.inner += report.coverage
        self.gaps.extend(f"{place} > {gap}" for gap in report.gaps)
        for name in ("attempts", "messages", "runs", "hashes"):
            self.counts[name] += getattr(report, name)
        if report.divergence is not None:
            raise Diverged(report.divergence.inside(place))
        return report

    def _delegated(self, event: Event, payload: HostcallAdmitted | HostcallDelivered) -> Walk:
        """A call that another run served: that run is replayed, and gave what the call was told."""
        key = payload.node, payload.attempt, payload.call
        if isinstance(payload, HostcallAdmitted):
            self.delegating.add(key)
            return "substituted"
        if key not in self.delegating:
            return "substituted"  # refused, or heard from the record of another attempt or run
        parent = self._parent((payload.node, payload.attempt))
        run = delegated_run_id(self.run, *key)
        outcome = cast(NestedOutcome, (yield ReplayNested(run=run, parent=parent)))
        place = f"{_where(payload.node, payload.attempt)} call {payload.call}"
        report = self._inside(outcome, place)
        if report is None:
            what = "the run that it was delegated to is not in the record"
            compare.diverge(place, what, payload.result_digest, "", code="replay.missing", event=event.id)
        compare.delegated(outcome.events, parent, payload, run, place)
        return "reexecuted"

    # --- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self.events or not isinstance(self.events[0].payload, RunStarted):
            what = "the record does not begin with run.started"
            actual = self.events[0].kind if self.events else ""
            compare.diverge("event 1", what, "run.started", actual, code="replay.missing")
        for node, attempt in self.open:
            self._gap(f"node {node} attempt {attempt} has not ended", extra=True)
        if not any(isinstance(event.payload, RunFinished) for event in self.events):
            self._gap("the run is not finished", extra=True)


def _unknown(engine: Mapping[str, Any]) -> str | None:
    """Why this build cannot judge what the engine of a run decided; None: it can."""
    logic = engine.get("logic", LOGIC)
    if logic != LOGIC:
        return f"the run was made by engine logic {logic}, this is {LOGIC}"
    flags = engine.get("flags", [])
    unknown = [str(flag) for flag in flags if flag not in FLAGS] if isinstance(flags, list) else [str(flags)]
    if unknown:
        return f"the run was made by an engine that decides otherwise ({', '.join(unknown)})"
    return None


def _elsewhere(engine: Mapping[str, Any], machine: Mapping[str, Any]) -> str | None:
    """In which way the recorded run was executed by another sandbox than this; None: it was not."""
    other = [
        f"{name} {engine[name]}, here {machine[name]}"
        for name in ("sandbox", "wasmtime")
        if name in engine and name in machine and engine[name] != machine[name]
    ]
    return f"the run was executed by another sandbox ({'; '.join(other)})" if other else None


FLAGS: frozenset[str] = frozenset()
"""Ways to decide otherwise, apart from :data:`openings.engine.LOGIC`, that this build knows and honours."""


def _where(node: str, attempt: int) -> str:
    return f"node {node} attempt {attempt}"


def _named(payload: Payload) -> str:
    """What a fact is about, in words."""
    node, attempt = getattr(payload, "node", None), getattr(payload, "attempt", None)
    if node is not None:
        return f"{node}" if attempt is None else f"{node} attempt {attempt}"
    return str(getattr(payload, "timer", ""))

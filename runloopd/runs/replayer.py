"""Replay of a recorded run: engine, scheduler and every guest executed again, no effect performed.

Drives the pure generator of ``openings.replay``: whenever it demands that an attempt be re-executed, the
guest runs in the real sandbox on the recorded input and hears the recorded answers only. There is no gate
here and no provider: a replay could not send a mail if it wanted to.

Knows: how a demand becomes an execution. Does not know: where the record lies (a :class:`Source`: the
ledger of this home, or a file somebody sealed), what counts as the same (``openings.replay``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from openings.definition import Opening
from openings.demands import NestedOutcome
from openings.replay import (
    DELEGATE,
    AttemptOutcome,
    Coverage,
    Frame,
    Reexecute,
    ReplayReport,
    Said,
    foreseen,
    replay,
)
from openings.state import base
from openings.talk import MESSAGE, message_id
from pog.chain import RawRow, decode_row, text_row
from pog.errors import LedgerCorruptError
from pog.reader import Reader
from runloop.digest import blob_digest, digest
from runloop.errors import NotFoundError, RunloopError
from runloop.events import (
    AgentPin,
    Event,
    HostcallAdmitted,
    NodeFinished,
    NodeScheduled,
    RunFinished,
    RunStarted,
)
from runloop.ids import RunId, child_run_id, delegated_run_id
from runloop.rmp.envelope import encode_envelope, schema_id
from runloop.rmp.frame import HEADER_LEN
from runloopd.broker.calls import Answerer
from runloopd.broker.quotas import Allowance, Limit, Quotas
from runloopd.broker.record import Record
from runloopd.broker.talk import letter
from runloopd.runs.ahead import Ahead
from runloopd.runs.answers import AllServed, RecordedAnswerer, damaged
from runloopd.runs.attempts import decode_input, order_for, output_fault
from runloopd.runs.rows import Rows, read
from runloopd.runtime.exchange import Letter, request, response
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["Allowances", "LedgerSource", "Replayer", "Source", "frame_of"]


class Source(Protocol):
    """Where a replay reads what happened, and finds the agents it happened with. Performs nothing."""

    def rows(self, run: str) -> Iterable[RawRow]:
        """The run's rows as they are stored, by id: columns of ``pog.chain.Row``, texts as bytes.

        None at all for a run that is not recorded. They are not judged here: a damaged row comes as it is.
        """
        ...

    def blob(self, digest: str) -> bytes:
        """The bytes behind a digest, checked against it.

        Raises :class:`NotFoundError` where they are not kept (any more), ``LedgerCorruptError`` where they
        are others.
        """
        ...

    def children(self, run: str) -> Sequence[str]:
        """Ids of the recorded runs whose ``parent.run`` this is, oldest first."""
        ...

    def pinned(self, pin: AgentPin, *, library: str | None = None) -> InstalledAgent:
        """Exactly this agent, its bytes checked now; raises a :class:`RunloopError` that says why not.

        ``library``: digest of what its run was served beside it; None: whatever is served now.
        """
        ...

    async def prepare(self, agent: InstalledAgent) -> None:
        """Make the agent's component ready in the sandbox."""
        ...


class LedgerSource:
    """The record of this home: its ledger, and the bundles that are installed or kept."""

    def __init__(
        self,
        reader: Reader,
        registry: Registry,
        prepare: Callable[[InstalledAgent], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._prepare = prepare

    def rows(self, run: str) -> Iterable[RawRow]:
        """See :class:`Source`."""
        return self._reader.raw_rows(run)

    def blob(self, digest: str) -> bytes:
        """See :class:`Source`."""
        return self._reader.blob(digest)

    def children(self, run: str) -> Sequence[str]:
        """See :class:`Source`."""
        return [child for child in _nested(self._reader.events(run=run)) if any(self.rows(child))]

    def pinned(self, pin: AgentPin, *, library: str | None = None) -> InstalledAgent:
        """See :class:`Source`."""
        return self._registry.pinned(pin, serving=False, library=library)

    async def prepare(self, agent: InstalledAgent) -> None:
        """See :class:`Source`."""
        await self._prepare(agent)


class Replayer:
    """Re-executes runs."""

    def __init__(self, source: Source, runtime: Runtime, *, width: int | None = None) -> None:
        """``width``: attempts executed at a time; None: one for each processor this process may use."""
        self._source = source
        self._runtime = runtime
        self._width = width or len(os.sched_getaffinity(0))
        self._agents: dict[tuple[AgentPin, str | None], InstalledAgent] = {}
        """Agents whose bytes were checked since the newest replay began."""
        self._tree: tuple[str, Allowances] | None = None
        """Root of the tree that was folded last."""

    async def replay(self, run: RunId) -> dict[str, Any]:
        """The report as JSON. Raises :class:`NotFoundError` for a run that is not recorded."""
        self._agents.clear()
        self._tree = None
        outcome = await self.report(run)
        if outcome.report is None:
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them")
        return {"run": run, **outcome.report.to_json()}

    async def report(self, run: str) -> NestedOutcome:
        """How the replay of a run, and of the runs nested in it, went; without a report if there is none."""
        rows = await asyncio.to_thread(lambda: read(self._source.rows(run)))
        if not rows.count:
            return NestedOutcome()
        if rows.divergence is not None or rows.unreadable is not None:
            return NestedOutcome(report=_unwalked(rows), events=rows.events)
        report = await self._drive(rows.events)
        report = replace(report, hashes=rows.hashes + report.hashes)
        return NestedOutcome(report=report, events=rows.events)

    async def _drive(self, events: list[Event]) -> ReplayReport:
        allowances = await asyncio.to_thread(self._allowances, events)
        library = _library_of(events)
        steps = replay(events, self._runtime.engine)

        async def execute(demand: Reexecute) -> AttemptOutcome:
            answerer = RecordedAnswerer(demand.recorded, self._source.blob, cut_off=demand.interrupted)
            return await self.reexecute(demand, answerer, allowances.of(demand), library)

        async with Ahead(execute, foreseen(events), width=self._width) as ahead:
            try:
                demand = next(steps)
                while True:
                    if isinstance(demand, Reexecute):
                        demand = steps.send(await ahead.outcome(demand))
                    else:
                        demand = steps.send(await self.report(demand.run))
            except StopIteration as finished:
                return cast(ReplayReport, finished.value)

    def _allowances(self, events: Sequence[Event]) -> Allowances:
        """Of the whole tree that the run is part of: a quota is for all of it."""
        started = events[0].payload if events else None
        if not isinstance(started, RunStarted):
            return Allowances(events)
        run = events[0].run or ""
        root = run if started.parent is None else started.parent.root
        if self._tree is None or self._tree[0] != root or started.parent is None:
            facts = _burning(self._source, root)
            if not any(fact.run == run for fact in facts):
                facts = _burning(self._source, run)  # it lies here without what was around it
            self._tree = root, Allowances(facts)
        return self._tree[1]

    async def reexecute(
        self,
        demand: Reexecute,
        answerer: Answerer,
        allowance: Allowance | None = None,
        library: str | None = None,
    ) -> AttemptOutcome:
        """Run one attempt again: its pinned agent on its recorded input; ``answerer`` answers its host calls.

        ``allowance``: what the agent's quota had left of its fuel; None: its own bounds alone.
        ``library``: what its run was served, see :class:`Source`. Of the answerer, ``mismatch`` and ``said``
        are taken over where it has them: the first call that is not as recorded, and what it said to others.
        It may raise :class:`AllServed` to end the attempt. What cannot be executed here comes back with a
        ``reason``.
        """
        scheduled = cast(NodeScheduled, demand.scheduled.payload)
        try:
            agent = await self._agent(demand.pin, library)
            data = self._source.blob(scheduled.input_blob)
        except LedgerCorruptError as error:
            return AttemptOutcome(mismatch=damaged(None, scheduled.input_blob, error))
        except RunloopError as error:
            return AttemptOutcome.unavailable(error.message)
        left = allowance or _unbounded(agent)
        order = replace(
            order_for(
                demand.run, scheduled, demand.pin, agent, decode_input(data), left, lineage=demand.trace
            ),
            recorded=True,
        )
        asked = frame_of(request(order))
        if demand.interrupted and not demand.recorded:
            return AttemptOutcome(frames=(asked,))  # nothing that it did is on record
        try:
            result = await self._runtime.run_attempt(order, answerer)
        except AllServed:
            said = _said(answerer)
            frames = (asked, *_spoken(demand, said))
            return AttemptOutcome(frames=frames, calls=len(demand.recorded), said=said)
        except RunloopError as error:
            return AttemptOutcome.unavailable(error.message)
        fault = output_fault(agent, result.output) if result.ok and result.output is not None else None
        output = None if fault is not None else result.output
        return AttemptOutcome(
            ok=result.ok and fault is None,
            output_digest=digest(output) if output is not None else None,
            output=output,
            error=fault or result.error,
            fuel=result.fuel,
            calls=result.calls,
            frames=(
                asked,
                *(() if demand.interrupted else (frame_of(response(order, result)),)),
                *_spoken(demand, _said(answerer)),
            ),
            said=_said(answerer),
            mismatch=getattr(answerer, "mismatch", None),
        )

    async def _agent(self, pin: AgentPin, library: str | None) -> InstalledAgent:
        """The agent of a pin, ready; read once for all its attempts."""
        found = self._agents.get((pin, library))
        if found is None:
            found = self._source.pinned(pin) if library is None else self._source.pinned(pin, library=library)
            await self._source.prepare(found)
            self._agents[pin, library] = found
        return found


class Allowances:
    """What each attempt's quota had left when it was scheduled, folded from the record as it was live."""

    def __init__(self, events: Iterable[Event]) -> None:
        """``events``: of the whole tree, in ledger order."""
        self._record = Record(Quotas())
        self._record.fold(event for event in events if event.kind != RunFinished.kind)

    def of(self, demand: Reexecute) -> Allowance | None:
        """Of one attempt; None for a run that is not in the record."""
        run = self._record.run(demand.run)
        if run is None:
            return None
        limits = self._record.limits(run, demand.pin.name)
        return run.allowance(demand.pin.name, demand.node, demand.attempt, limits)


_BURNING = frozenset(kind.kind.encode() for kind in (RunStarted, NodeScheduled, NodeFinished))
"""What an allowance of fuel is folded from."""


def _burning(source: Source, root: str) -> list[Event]:
    """The facts of a tree of runs that say what was burnt when, in ledger order. Those that cannot be read
    are left out: whether the record is whole is judged elsewhere."""
    facts: list[Event] = []
    waiting = [root]
    while waiting:
        events: list[Event] = []
        for raw in source.rows(waiting.pop()):
            if raw[3] in _BURNING:
                with contextlib.suppress(LedgerCorruptError, UnicodeDecodeError):
                    events.append(decode_row(text_row(raw)))
        waiting += _nested(events)
        facts += events
    return sorted(facts, key=lambda fact: fact.id)


def frame_of(letter: Letter) -> Frame:
    """The frame that this letter is on the bus, without what a clock or a counter gives it."""
    body = encode_envelope(letter.type, letter.payload, {**letter.meta, "topic": letter.topic})
    return Frame(
        sender=letter.sender.label,
        receiver=letter.receiver,
        topic=letter.topic,
        type=letter.type,
        schema_id=schema_id(letter.type),
        size=HEADER_LEN + len(body),
        body_digest=blob_digest(body),
    )


def _spoken(demand: Reexecute, said: Mapping[int, Said]) -> Iterator[Frame]:
    """The frames that carry what it said to others. Until when an answer counts is of the record; that the
    message itself is as recorded is compared apart from this. What a fork heard that it said, as the run it
    repeats said it, was carried by no frame."""
    heard = {call.call for call in demand.recorded if call.recorded_in is not None}
    calls = {
        message_id(demand.trace, demand.node, demand.attempt, call): one
        for call, one in said.items()
        if call not in heard
    }
    for post in demand.posts:
        one = calls.get(post.message)
        if one is None or not isinstance(one.args, dict):
            continue
        carried = letter(demand.pin.name, demand.run, post, one.args.get("content"))
        yield frame_of(
            Letter(
                sender=carried.sender,
                receiver=post.to,
                topic=carried.topic,
                type=MESSAGE,
                payload=carried.payload,
                meta={},
            )
        )


def _said(answerer: Answerer) -> Mapping[int, Said]:
    found: Mapping[int, Said] = getattr(answerer, "said", {})
    return found


def _unwalked(rows: Rows) -> ReplayReport:
    """Of a record that is damaged, or that this build cannot read, nothing is executed."""
    return ReplayReport(
        coverage=Coverage(recorded=rows.count, not_covered=rows.count),
        divergence=rows.divergence,
        gaps=() if rows.unreadable is None else (rows.unreadable,),
        hashes=rows.hashes,
    )


def _nested(events: Iterable[Event]) -> Iterator[str]:
    """The run of every attempt that a nested opening serves, whether it was ever started or not."""
    nesting: set[str] = set()
    for event in events:
        if isinstance(event.payload, RunStarted):
            opening = Opening.from_json(event.payload.definition)
            nesting = {node.id for node in opening.nodes if node.nests is not None}
        elif isinstance(event.payload, NodeScheduled) and base(event.payload.node) in nesting:
            yield child_run_id(event.run or "", event.payload.node, event.payload.attempt)
        elif isinstance(event.payload, HostcallAdmitted) and event.payload.op == DELEGATE:
            said = event.payload
            yield delegated_run_id(event.run or "", said.node, said.attempt, said.call)


def _library_of(events: Sequence[Event]) -> str | None:
    """The digest that a run recorded of what its agents were served beside their own modules."""
    started = events[0].payload if events else None
    library = started.engine.get("library") if isinstance(started, RunStarted) else None
    return library if isinstance(library, str) else None


def _unbounded(agent: InstalledAgent) -> Allowance:
    return Allowance(fuel=Limit(agent.limits.fuel, agent.limits.fuel), fuel_used=0)

"""Replay of a recorded run: engine, scheduler and every guest executed again, no effect performed.

Drives the pure generator of ``openings.replay``: whenever it demands that an attempt be re-executed, the
guest runs in the real sandbox on the recorded input and hears the recorded answers only. There is no gate
here and no provider: a replay could not send a mail if it wanted to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from openings.replay import AttemptOutcome, Reexecute, ReplayReport, replay
from pog.reader import Reader
from runloop.digest import digest
from runloop.errors import NotFoundError, RunloopError
from runloop.events import Event, NodeScheduled, RunFinished
from runloop.ids import RunId
from runloopd.broker.quotas import Quotas
from runloopd.broker.record import Record
from runloopd.runs.answers import RecordedAnswerer
from runloopd.runs.attempts import BusAttempts, decode_input, order_for, output_fault
from runloopd.runtime.registry import Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["Replayer"]


class Replayer:
    """Re-executes runs."""

    def __init__(
        self, *, reader: Reader, registry: Registry, runtime: Runtime, attempts: BusAttempts
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._runtime = runtime
        self._attempts = attempts

    async def replay(self, run: RunId) -> dict[str, Any]:
        """The report as JSON. Raises :class:`NotFoundError` for a run that is not in the ledger."""
        events = list(self._reader.events(run=run))
        if not events:
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them")
        report = await self._drive(run, events)
        return {"run": run, **report.to_json()}

    async def _drive(self, run: RunId, events: list[Event]) -> ReplayReport:
        steps = replay(events)
        # What each attempt's quota had left is folded from the record, as it was when the run was live.
        record = Record(Quotas())
        record.fold(event for event in events if event.kind != RunFinished.kind)
        try:
            demand = next(steps)
            while True:
                demand = steps.send(await self._reexecute(run, demand, record))
        except StopIteration as finished:
            return cast(ReplayReport, finished.value)

    async def _reexecute(self, run: RunId, demand: Reexecute, record: Record) -> AttemptOutcome:
        """Run one attempt again on its record."""
        scheduled = cast(NodeScheduled, demand.scheduled.payload)
        answerer = RecordedAnswerer(demand.recorded, self._reader.blob)
        try:
            agent = self._registry.pinned(demand.pin, serving=False)
            given = decode_input(self._reader.blob(scheduled.input_blob))
        except RunloopError as error:
            return AttemptOutcome.unavailable(error.message)
        await self._attempts.prepare(agent)
        known = record.run(run)
        assert known is not None, "the record begins with run.started"
        limits = record.limits(known, demand.pin.name)
        left = known.allowance(demand.pin.name, demand.node, demand.attempt, limits)
        order = replace(order_for(run, scheduled, demand.pin, agent, given, left), recorded=True)
        result = await self._runtime.run_attempt(order, answerer)
        fault = output_fault(agent, result.output) if result.ok and result.output is not None else None
        output = None if fault is not None else result.output
        return AttemptOutcome(
            ok=result.ok and fault is None,
            output_digest=digest(output) if output is not None else None,
            error=fault or result.error,
            fuel=result.fuel,
            calls=result.calls,
            mismatch=answerer.mismatch,
        )

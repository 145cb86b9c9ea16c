"""Attempts that another opening serves: each is a run of its own, started here and waited for.

Everything is found again after a crash, because nothing about it is a choice: the id of the run is drawn from
the attempt, so it is started at most once; how it ended is in the ledger, so the attempt's end follows from
it whoever states it. What stops the attempt (a time limit, a cancel, the end of the run around it) stops the
run too, from the committed fact, not from the task that happened to wait.

Knows: what a nested run is started with, how deep and how many there may be. Does not know: agents (the
nested run's own attempts), money (``broker.record`` charges the whole tree), people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog

from openings import child, engine
from openings.definition import Opening
from openings.state import RunState, base
from openings.validate import complete, unfit
from pog.reader import Reader
from runloop.digest import digest
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.events import (
    AgentPin,
    Draft,
    Event,
    GuestError,
    NodeCancelled,
    NodeFinished,
    NodeScheduled,
    Provenance,
    RunCancelRequested,
    RunFinished,
    RunParent,
    RunStarted,
)
from runloop.ids import RunId, child_run_id
from runloopd.broker.delegate_ops import DELEGATED, Delegation
from runloopd.journal import Journal
from runloopd.runs.attempts import decode_input

__all__ = ["MAX_CHILDREN", "MAX_DEPTH", "Children"]

log = structlog.get_logger(__name__)

MAX_DEPTH = 8
"""Runs inside each other, the outermost not counted."""
MAX_CHILDREN = 10_000
"""Runs that serve nodes of one tree, attempts that failed included."""

_DEFINITIONS = 16


class Children:
    """Serves the nodes that use an opening. Implements :class:`runloopd.runs.runner.Attempts` for those."""

    def __init__(
        self,
        *,
        journal: Journal,
        reader: Reader,
        engine_versions: Callable[[], dict[str, Any]],
        branch: Callable[[RunStarted, RunStarted], RunStarted] = lambda around, nested: nested,
    ) -> None:
        """``branch``: given ``run.started`` of the run around and that of the nested one, the latter as it
        shall be stated; a fork makes forks of the runs inside it."""
        self._journal = journal
        self._reader = reader
        self._engine_versions = engine_versions
        self._branch = branch
        self._ends: dict[str, asyncio.Future[Event]] = {}
        """Nested run -> its ``run.finished``, for the attempt that waits."""
        self._delegated: dict[tuple[str, str, int], set[str]] = {}
        """Run, node and attempt -> unfinished runs that its host calls started."""
        self._unfinished: set[str] = set()
        """Nested runs that were started and are not over."""
        self._stopped: dict[str, str] = {}
        """Nested runs that are not wanted any more and perhaps not started yet -> why."""
        self._counts: dict[str, int] = {}
        """Root of a tree -> runs inside it."""
        self._depths: dict[str, int] = {}
        """Nested run -> how deep it is: 1 inside the outermost."""
        self._definitions: dict[str, Opening] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        journal.listen(self._committed)

    async def close(self) -> None:
        """Let what is being stopped be stopped, on record."""
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        """See the protocol. Raises only when the end could not be recorded, or when cancelled."""
        this = cast(NodeScheduled, scheduled.payload)
        nested = child_run_id(run, this.node, this.attempt)
        end = self._ends[nested] = asyncio.get_running_loop().create_future()
        causes: tuple[int, ...] = (scheduled.id,)
        try:
            known = self._finished(nested)
            if known is None and nested not in self._unfinished:
                await self._start(nested, run, started, scheduled)
            ended = known or await end
            causes = (scheduled.id, ended.id)
            finished = await asyncio.to_thread(self._result, nested, started, this, ended)
        except RunloopError as error:
            log.warning("nested_failed", run=run, node=this.node, code=error.named_code, why=error.message)
            finished = _failed(this, GuestError(code=error.named_code, message=error.message))
        finally:
            self._ends.pop(nested, None)
        await self._journal.append(
            Draft(
                payload=finished,
                actor="daemon",
                run=run,
                provenance=Provenance(causes=causes, node=this.node, attempt=this.attempt),
            )
        )

    async def recovered(self, run: str, started: RunStarted, around: RunState | None) -> None:
        """A nested run is taken up again. It is stopped where nobody waits for it any more.

        ``around``: the state of the run around it.
        """
        parent = started.parent
        if parent is None:
            return
        self._unfinished.add(run)
        self._note(run, started)
        if around is None or around.finished or around.executing.get(parent.node) != parent.attempt:
            await self._stop(run, "the attempt it served is over")

    # --- started by a host call -------------------------------------------------------------------

    async def begin(self, run: RunId, wish: Delegation, made: Callable[[], Awaitable[RunStarted]]) -> None:
        """State the run of a host call, together with the call's first mark, unless that was done before."""
        if run in self._unfinished or self._finished(run) is not None:
            return
        first = next(self._reader.events(run=wish.run, limit=1))
        around = cast(RunStarted, first.payload)
        root = around.parent.root if around.parent is not None else wish.run
        self._admit(root, run, self._depth(wish.run, around))
        self._unfinished.add(run)  # before the first wait: whoever asks for the same meanwhile waits with us
        try:
            started = await made()
            self._note(run, started)
            wish.check()
            causes = wish.mark.provenance.causes
            stated = Draft(payload=started, actor="daemon", run=run, provenance=Provenance(causes=causes))
            await self._journal.append(wish.mark, stated, blobs=(wish.args_blob,))
        except RunloopError as error:
            self._forget(run)
            if (end := self._ends.pop(run, None)) is not None and not end.done():
                end.set_exception(error)
            raise

    async def ended(self, run: RunId) -> Event:
        """``run.finished`` of a run that a host call started."""
        known = self._finished(run)
        if known is not None:
            return known
        end = self._ends.setdefault(run, asyncio.get_running_loop().create_future())
        return await asyncio.shield(end)

    def _note(self, run: str, started: RunStarted) -> None:
        parent = started.parent
        if parent is not None and DELEGATED in started.policy:
            self._delegated.setdefault((parent.run, parent.node, parent.attempt), set()).add(run)

    def _forget(self, run: str) -> None:
        self._unfinished.discard(run)
        for key, runs in list(self._delegated.items()):
            runs.discard(run)
            if not runs:
                del self._delegated[key]

    # --- starting ---------------------------------------------------------------------------------

    async def _start(self, nested: RunId, run: str, started: Event, scheduled: Event) -> None:
        """State the nested run, unless that was done before. Raises for what may not be started."""
        around = cast(RunStarted, started.payload)
        this = cast(NodeScheduled, scheduled.payload)
        inner = self._inner(around, this.node)
        root = around.parent.root if around.parent is not None else run
        self._admit(root, nested, self._depth(run, around))
        given = child.given_params(decode_input(self._reader.blob(this.input_blob)))
        if faults := [finding.what for finding in unfit(inner, given)]:
            raise UsageError(f"{inner.name}: {'; '.join(faults)}", code="node.input")
        made = RunStarted(
            opening=inner.name,
            definition=inner.to_json(),
            definition_digest=inner.digest,
            params=complete(inner, given),
            agents=_pins(inner, around),
            engine=self._engine_versions(),
            policy=_policy(inner, around),
            principal=around.principal,
            origin={**around.origin, "via": "opening", "source_path": None},
            parent=RunParent(run=run, node=this.node, attempt=this.attempt, root=root),
            lineage=_lineage(around, this),
        )
        self._unfinished.add(nested)
        try:
            await self._journal.append(
                Draft(
                    payload=self._branch(around, made),
                    actor="daemon",
                    run=nested,
                    provenance=Provenance(causes=(scheduled.id,)),
                )
            )
        except RunloopError:
            self._unfinished.discard(nested)
            raise

    def _inner(self, around: RunStarted, node: str) -> Opening:
        opening = self._definition(around)
        found = opening.node(base(node))
        name = "" if found is None else found.nests or ""
        inner = child.inner(opening, name)
        if inner is None:
            raise UsageError(
                f"the run has no opening {name!r} at hand for {node}",
                hint="submit it again; its definition is incomplete",
                code="nested.absent",
            )
        return inner

    def _definition(self, started: RunStarted) -> Opening:
        """Read once for all the items of a mapped node; a few at a time."""
        known = self._definitions.get(started.definition_digest)
        if known is None:
            known = Opening.from_json(started.definition)
            while len(self._definitions) >= _DEFINITIONS:
                self._definitions.pop(next(iter(self._definitions)), None)
            self._definitions[started.definition_digest] = known
        return known

    def _admit(self, root: str, nested: str, depth: int) -> None:
        """Count one more run of a tree, or refuse it by name."""
        if depth > MAX_DEPTH:
            raise RefusedError(
                f"runs would be nested {depth} deep, at most {MAX_DEPTH} are",
                hint="copy the nodes of one opening into the one around it",
                code="nested.depth",
            )
        count = self._counts.get(root)
        if count is None:
            count = len(self._reader.runs_below(root))
        if count >= MAX_CHILDREN:
            raise RefusedError(
                f"the run has {count} nested runs, at most {MAX_CHILDREN} may be",
                hint="nest less often, or split it into several runs",
                code="nested.many",
            )
        self._counts[root] = count + 1
        self._depths[nested] = depth

    def _depth(self, run: str, around: RunStarted) -> int:
        """How deep a run inside this one is."""
        depth, parent = 1, around.parent
        while parent is not None:
            if (known := self._depths.get(run)) is not None:
                return depth + known
            depth, run = depth + 1, parent.run
            first = next(self._reader.events(run=run, limit=1))
            parent = cast(RunStarted, first.payload).parent
        return depth

    # --- ending -----------------------------------------------------------------------------------

    def _finished(self, nested: str) -> Event | None:
        """``run.finished`` of a run, if it is in the ledger; the run is then not waited for."""
        if nested in self._unfinished:
            return None
        found = self._reader.events(run=nested, kinds=(RunFinished.kind,), limit=1)
        return next(found, None)

    def _result(self, nested: str, started: Event, this: NodeScheduled, ended: Event) -> NodeFinished:
        """How the attempt ended, by the record of the run that served it."""
        state = engine.fold(self._reader.events(run=nested))
        found = self._definition(cast(RunStarted, started.payload)).node(base(this.node))
        assert found is not None
        output, error = child.result(state, cast(RunFinished, ended.payload), found.retry)
        if output is None:
            assert error is not None
            return _failed(this, error)
        return NodeFinished(
            node=this.node,
            attempt=this.attempt,
            status="succeeded",
            output=output,
            output_digest=digest(output),
        )

    def _committed(self, events: list[Event]) -> None:
        for event in events:
            payload = event.payload
            if isinstance(payload, RunStarted) and payload.parent is not None and event.run is not None:
                if (why := self._stopped.pop(event.run, None)) is not None:
                    self._stop_soon(event.run, why)
            elif isinstance(payload, RunFinished) and event.run is not None:
                self._over(event.run, event)
            elif isinstance(payload, NodeCancelled) and payload.attempt is not None:
                self._not_wanted(event.run, payload.node, payload.attempt, payload.reason)
            elif isinstance(payload, NodeFinished):
                why = payload.error.message if payload.error is not None else "the attempt is over"
                if payload.status == "timed_out":
                    self._not_wanted(event.run, payload.node, payload.attempt, why)
                else:  # a nested run is over then; what a host call started need not be
                    self._leave(event.run, payload.node, payload.attempt, why)

    def _over(self, run: str, event: Event) -> None:
        self._forget(run)
        self._depths.pop(run, None)
        self._counts.pop(run, None)
        end = self._ends.pop(run, None)
        if end is not None and not end.done():
            end.set_result(event)

    def _not_wanted(self, run: str | None, node: str, attempt: int, why: str) -> None:
        if run is None:
            return
        nested = child_run_id(run, node, attempt)
        if nested in self._unfinished:
            self._stop_soon(nested, why)
        self._leave(run, node, attempt, why)

    def _leave(self, run: str | None, node: str, attempt: int, why: str) -> None:
        """The attempt is over: what its host calls started is not waited for any more."""
        for delegated in tuple(self._delegated.get((run or "", node, attempt), ())):
            self._stop_soon(delegated, why)

    def _stop_soon(self, nested: str, why: str) -> None:
        task = asyncio.create_task(self._stop(nested, why))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, nested: str, why: str) -> None:
        """Ask a nested run to end. One that is just being started is asked right after."""
        if nested not in self._unfinished:
            return
        if next(self._reader.events(run=nested, limit=1), None) is None:
            self._stopped[nested] = why
            return
        try:
            await self._journal.append(
                Draft(payload=RunCancelRequested(principal="daemon", reason=why), actor="daemon", run=nested)
            )
        except RunloopError as error:  # the ledger refuses: a restart finds it unwanted, and stops it
            log.error("nested_not_stopped", run=nested, code=error.named_code)


def _pins(inner: Opening, around: RunStarted) -> dict[str, AgentPin]:
    """Its own agents under their plain names, and those of the openings that may be nested in it."""
    names = {node.id: f"{inner.name}/{node.id}" for node in inner.nodes if node.nests is None}
    for name, opening in inner.openings.items():
        names |= {key: key for node in opening.nodes if node.nests is None and (key := f"{name}/{node.id}")}
    if absent := [name for name in names.values() if name not in around.agents]:
        raise UsageError(f"the run pins no agent to {absent[0]}", code="nested.absent")
    return {own: around.agents[name] for own, name in names.items()}


def _policy(inner: Opening, around: RunStarted) -> dict[str, Any]:
    """Its own limits, within those of the run around it; quotas are the whole tree's."""
    policy = inner.policy.to_json()
    for name in ("budget_micro_usd", "budget_tokens"):
        limits = [limit for limit in (policy.get(name), around.policy.get(name)) if limit is not None]
        policy[name] = min(limits, default=None)
    if "quotas" in around.policy:
        policy["quotas"] = around.policy["quotas"]
    return policy


def _lineage(around: RunStarted, this: NodeScheduled) -> str | None:
    """A run inside a fork is, for its guests, the one inside the run that was forked."""
    return None if around.lineage is None else child_run_id(around.lineage, this.node, this.attempt)


def _failed(this: NodeScheduled, error: GuestError) -> NodeFinished:
    return NodeFinished(node=this.node, attempt=this.attempt, status="failed", error=error)

"""How the attempts of a fork hear the run they branched off.

A node outside the cone of what was changed hears the record alone: whatever it asks that is not there, at its
place, ends the fork with a named divergence. A node in the cone hears what the record knows and asks the gate
for the rest, with every check; a fork with live answers asks the gate for everything, but for what was sent:
a mail that left once is never sent again for the same words, and nobody's approval is used twice.

Knows: which answers are heard and that they are stated before they are heard. Does not know: how a fork is
made (``runs.fork``), what of it is tried anew (``runs.branch``), how an answer is found (``runs.recorded``),
what the gate checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import msgspec
import structlog

from openings.definition import Opening
from openings.foresee import is_cut
from openings.outcome import FORK_DIVERGED
from openings.replay import Divergence
from pog.reader import Reader
from runloop.caps.policy import NOTHING, Override, Policy, effective
from runloop.digest import blob_digest, canonical
from runloop.errors import DivergenceError, FailedError, RefusedError, RunloopError
from runloop.events import (
    Draft,
    Event,
    GuestError,
    HostcallDelivered,
    NodeFinished,
    NodeScheduled,
    Payload,
    Provenance,
    RunFinished,
    RunFork,
    RunParent,
    RunStarted,
)
from runloop.ids import child_run_id
from runloop.ops import OPS
from runloopd.broker.calls import Answer, Answerer, Caller, HostCall
from runloopd.broker.gate import Gate
from runloopd.journal import Journal
from runloopd.runs.branch import Branch, asks_for, places_inside, tried_anew, tried_anew_inside
from runloopd.runs.recorded import Hearing, RecordedAnswer, RecordedAnswers

__all__ = ["Branches"]

log = structlog.get_logger(__name__)

HERE = ("sandbox", "wasmtime")
"""What ``run.started.engine`` says of this machine; all else is what a run is decided by."""

_STREAMED = frozenset({"model.complete", "msg.subscribe"})
"""Ops whose answer may be a stream, to be read by further calls."""


class RecordedEndError(FailedError):
    """The attempt ended as the record says, by the clock or the machine: nothing a guest could repeat."""

    code: ClassVar[str] = "fork.recorded_end"

    def __init__(self, ended: NodeFinished) -> None:
        assert ended.error is not None
        super().__init__(ended.error.message, code=ended.error.code)
        self.retryable = ended.status == "timed_out" or ended.error.retryable


class Branches:
    """Every fork that is under way."""

    def __init__(self, *, reader: Reader, journal: Journal, gate: Gate) -> None:
        self._reader = reader
        self._journal = journal
        self._gate = gate
        self._known: dict[str, Branch | None] = {}
        """Run -> its branch, None for a run that hears nobody."""
        journal.listen(self._observe)

    def answers(self, caller: Caller, live: Answerer) -> Answerer:
        """Who answers an attempt what is not in its own record: ``live``, the gate, and in a fork the record
        first.

        Raises :class:`RecordedEndError` for an attempt that ends as it did, and :class:`DivergenceError` for
        one that should be the recorded one and is not: both before it begins.
        """
        branch = self.of(caller.run)
        if branch is None:
            return live
        if branch.is_anew(caller.node) and branch.model is not None:
            caller = replace(caller, model=branch.model)
            live = self._gate.answerer(caller)
        _insist(branch, caller, self._reader.event(caller.scheduled_id))
        return _Answerer(self, branch, caller, live)

    def narrowed(self, run: str, rights: Policy) -> Policy:
        """The rights of a run, without what its fork goes without."""
        branch = self.of(run)
        if branch is None or not branch.denied:
            return rights
        return effective(rights, rights, Override(NOTHING, branch.denied)).policy

    def of(self, run: str) -> Branch | None:
        """Whom a run hears; None for one that is no fork and in none."""
        if run not in self._known:
            (started,) = self._reader.events(run=run, limit=1)
            self._known[run] = self._found(started)
        return self._known[run]

    def _found(self, started: Event) -> Branch | None:
        said = started.payload
        assert isinstance(said, RunStarted)
        if said.parent is not None:
            return self._found_inside(said, said.parent)
        if said.fork is None:
            return None
        record = self._record(said.fork.run, before=started.id)
        opening = Opening.from_json(said.definition)
        cone = tried_anew(record, opening, said.fork, self._inside(record, before=started.id))
        return Branch(
            fork=said.fork,
            root=started.run or "",
            record=record,
            anew=cone.anew,
            whole=cone.whole,
            at=tuple(said.fork.at),
            alone_before=cone.alone_before,
        )

    def _found_inside(self, said: RunStarted, parent: RunParent) -> Branch | None:
        outer = self.of(parent.run)
        if outer is None:
            return None
        before = self._root_event(outer.root)
        record = self._record(child_run_id(outer.record.run, parent.node, parent.attempt), before=before)
        cone = tried_anew_inside(record, said, outer, self._inside(record, before=before))
        return Branch(
            fork=outer.fork,
            root=outer.root,
            record=record,
            anew=cone.anew,
            whole=cone.whole,
            at=places_inside(outer.at, parent.node),
            alone_before=cone.alone_before,
        )

    def _inside(self, record: RecordedAnswers, *, before: int) -> Callable[[str], Iterator[RecordedAnswers]]:
        """Of a node that other runs served: their records, and of those within them."""

        def within(around: RecordedAnswers, keys: Iterable[tuple[str, int]]) -> Iterator[RecordedAnswers]:
            for node, attempt in keys:
                found = self._record(child_run_id(around.run, node, attempt), before=before)
                if found.run:
                    yield found
                    opening = Opening.from_json(found.started.definition)
                    for each in opening.nodes:
                        if each.nests is not None:
                            yield from within(found, found.attempts(each.id))

        return lambda node: within(record, record.attempts(node))

    def nested(self, around: RunStarted, made: RunStarted) -> RunStarted:
        """How a run inside another is stated: inside a fork it is one itself, decided by the same engine as
        the run it repeats. Elsewhere as it was ``made``."""
        fork, parent = around.fork, made.parent
        if fork is None or parent is None:
            return made
        engine = {**around.engine, **{name: made.engine[name] for name in HERE if name in made.engine}}
        repeated = child_run_id(fork.run, parent.node, parent.attempt)
        if next(self._reader.events(run=repeated, limit=1), None) is None:
            return msgspec.structs.replace(made, engine=engine)
        inherited = {name: value for name, value in fork.changes.items() if name in ("model", "deny")}
        branch = RunFork(
            run=repeated,
            at=list(places_inside(fork.at, parent.node)),
            call=None,
            changes=inherited,
            answers=fork.answers,
        )
        return msgspec.structs.replace(made, engine=engine, fork=branch)

    def _root_event(self, root: str) -> int:
        (started,) = self._reader.events(run=root, limit=1)
        return started.id

    def _record(self, run: str, *, before: int) -> RecordedAnswers:
        """The record as it was when the fork was made: what came later is no part of what it repeats."""
        events = (event for event in self._reader.events(run=run) if event.id < before)
        return RecordedAnswers(events, self._reader.blob)

    def _observe(self, events: list[Event]) -> None:
        for event in events:
            if event.run is None:
                continue
            if event.kind == RunFinished.kind:
                self._known.pop(event.run, None)
            elif isinstance(event.payload, RunStarted) and not (event.payload.fork or event.payload.parent):
                self._known[event.run] = None

    # --- for the answerers ------------------------------------------------------------------------

    def heard(self, caller: Caller, attempt: int, before: int) -> list[HostcallDelivered]:
        """What the node was answered in this run so far: all earlier attempts, and this one up to a call."""
        ids = (id for a in range(1, attempt + 1) for id in self._gate.heard(caller.run, caller.node, a))
        calls = (self._reader.event(id).payload for id in ids)
        return [
            call
            for call in calls
            if isinstance(call, HostcallDelivered) and (call.attempt, call.call) < (attempt, before)
        ]

    def told(self, call: HostcallDelivered) -> dict[str, Any]:
        """What an answer said, where it is an object."""
        value = msgspec.json.decode(self._reader.blob(call.result_blob))
        return value if isinstance(value, dict) else {}

    async def state(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> None:
        """State facts of a fork."""
        await self._journal.append(*drafts, blobs=blobs)


class ForkDivergedError(DivergenceError):
    """A node outside the cone of what was changed left the record. It is never served live for that."""

    code: ClassVar[str] = FORK_DIVERGED

    def __init__(self, node: str, attempt: int, what: str) -> None:
        super().__init__(
            f"node {node} attempt {attempt} left the record: {what}",
            hint="fork at this node, or above it, to have it tried anew",
        )


def _insist(branch: Branch, caller: Caller, scheduled: Event) -> None:
    """An attempt that hears the record alone is the recorded one, and ends so where a machine ended it."""
    node, attempt = caller.node, caller.attempt
    if not branch.is_alone(node, attempt, 0):
        return
    recorded = branch.record.scheduled(node, attempt)
    if recorded is None:
        raise ForkDivergedError(node, attempt, "there is no such attempt")
    this, before = scheduled.payload, recorded.payload
    assert isinstance(this, NodeScheduled)
    assert isinstance(before, NodeScheduled)
    if this.input_digest != before.input_digest:
        raise ForkDivergedError(node, attempt, "it starts with another input")
    ended = branch.record.ended(node, attempt)
    if isinstance(ended, NodeFinished) and branch.repeats(node, attempt) and is_cut(ended):
        raise RecordedEndError(ended)


class _Answerer:
    """Answers one attempt of a fork."""

    def __init__(self, branches: Branches, branch: Branch, caller: Caller, live: Answerer) -> None:
        self._branches = branches
        self._branch = branch
        self._caller = caller
        self._live = live
        self._hearing: Hearing | None = None
        self._next = 0
        self._streams: set[str] = set()
        """Streams whose beginning was heard from the record: so is the rest."""

    async def answer(self, call: HostCall) -> Answer:
        """See :class:`Answerer`: whatever goes wrong is an answer."""
        try:
            return await self._answer(call)
        except RunloopError as error:  # a ledger that takes or gives nothing
            log.warning("fork_call_refused", run=self._caller.run, op=call.op[:64], code=error.named_code)
            return Answer.refusal(error)

    async def _answer(self, call: HostCall) -> Answer:
        hearing = self._caught_up(call.index)
        self._hearing = None  # whatever is not stated was not heard
        if self._branch.is_alone(self._caller.node, self._caller.attempt, call.index):
            found = await self._alone(hearing, call)
        else:
            known = self._known(hearing, call)
            if isinstance(known, Answer):
                hearing.passed(call.index, call.op, call.args_digest)
                return self._heard(hearing, call, await self._refuse(call, known))
            if known is None:
                hearing.passed(call.index, call.op, call.args_digest)
                return self._heard(hearing, call, await self._live.answer(call))
            found = known
        return self._heard(hearing, call, await self._say(call, found))

    async def _alone(self, hearing: Hearing, call: HostCall) -> RecordedAnswer:
        found = hearing.strictly(call.index, call.op, call.args_digest, call.fuel)
        if isinstance(found, Divergence):
            await self._end(call, f"call {call.index}: {found.what}")
        assert isinstance(found, RecordedAnswer)
        return found

    def _known(self, hearing: Hearing, call: HostCall) -> RecordedAnswer | Answer | None:
        """What the record has for a call that may be asked of the gate; None: the gate is asked."""
        record, op = self._branch.record, OPS.get(call.op)
        if asks_for(call.op) & self._branch.denied:
            return None  # the gate says no: what was right with it is not without it
        place = (call.index, call.op, call.args_digest)
        sends = op is not None and op.effect == "send"
        if call.op == "tool.call":  # what it does is the tool's matter, and is on record
            sends = record.sends(self._caller.node, call.op, call.args_digest)
        if sends and record.begun(self._caller.node, call.op, call.args_digest) is not None:
            return Answer.refusal(_unknown(record.run, call.op))
        if sends and (known := hearing.effect(*place)) is not None:
            return known
        if self._branch.fork.answers == "live" or not self._may_hear(record, call):
            return None
        return hearing.hear(*place)

    def _may_hear(self, record: RecordedAnswers, call: HostCall) -> bool:
        """Whether a recorded answer would still be one: not another model's, and not about something that
        only the recorded run has."""
        if call.op == "model.complete" and self._caller.model is not None:
            return False
        args = call.args if isinstance(call.args, dict) else {}
        if call.op == "msg.next":
            return str(args.get("stream")) in self._streams
        if call.op == "promise.create":
            return record.keeps_promises(self._caller.node)
        return True

    # --- what was heard ---------------------------------------------------------------------------

    def _caught_up(self, index: int) -> Hearing:
        """The hearing as it stands before call ``index``: the present one, or made anew from what this run's
        own record has, after a crash of whatever kind."""
        if self._hearing is not None and self._next == index:
            return self._hearing
        before = self._branches.heard(self._caller, self._caller.attempt, index)
        self._streams = {
            str(stream)
            for call in before
            if call.attempt == self._caller.attempt and call.recorded_in and call.op in _STREAMED
            if (stream := self._branches.told(call).get("stream"))
        }
        return self._branch.record.hearing(self._caller.node, self._caller.attempt, before)

    def _heard(self, hearing: Hearing, call: HostCall, answer: Answer) -> Answer:
        self._hearing, self._next = hearing, call.index + 1
        return answer

    async def _say(self, call: HostCall, found: RecordedAnswer) -> Answer:
        """State a recorded answer, and what was stated with it, as this run's; then give it."""
        record, recorded = self._branch.record, found.call
        value = record.value(found)
        if isinstance(value, dict) and isinstance(value.get("stream"), str):
            self._streams.add(value["stream"])
        causes = (found.event.id, *found.event.provenance.causes)
        delivered = HostcallDelivered(
            node=self._caller.node,
            attempt=self._caller.attempt,
            call=call.index,
            op=call.op,
            effect=recorded.effect,
            args_digest=call.args_digest,
            args_blob=call.args_digest,
            ok=recorded.ok,
            result_digest=recorded.result_digest,
            result_blob=recorded.result_blob,
            request_bytes=call.request_bytes,
            response_bytes=recorded.response_bytes,
            fuel=call.fuel,
            recorded_in=record.run,
        )
        await self._branches.state(
            *(
                self._draft(call, fact.payload, (fact.id,), fact.provenance.label)
                for fact in found.companions
            ),
            self._draft(call, delivered, causes, found.event.provenance.label),
            blobs=(canonical(call.args), canonical(value)),
        )
        return Answer(ok=recorded.ok, value=value)

    async def _refuse(self, call: HostCall, answer: Answer) -> Answer:
        """State an answer that neither the record gave nor the gate, then give it."""
        text = canonical(answer.value)
        op = OPS[call.op]
        delivered = HostcallDelivered(
            node=self._caller.node,
            attempt=self._caller.attempt,
            call=call.index,
            op=call.op,
            effect=op.effect,
            args_digest=call.args_digest,
            args_blob=call.args_digest,
            ok=False,
            result_digest=blob_digest(text),
            result_blob=blob_digest(text),
            request_bytes=call.request_bytes,
            response_bytes=len(text),
            fuel=call.fuel,
        )
        await self._branches.state(self._draft(call, delivered, (), None), blobs=(canonical(call.args), text))
        return answer

    def _draft(self, call: HostCall, payload: Payload, causes: tuple[int, ...], label: str | None) -> Draft:
        caller = self._caller
        return Draft(
            payload=payload,
            actor="daemon",
            run=caller.run,
            provenance=Provenance(
                causes=tuple(dict.fromkeys((caller.scheduled_id, *causes))),
                node=caller.node,
                attempt=caller.attempt,
                agent=caller.pin.name,
                bundle=caller.pin.bundle_digest,
                token=caller.token_id,
                call=call.index,
                label=label,
            ),
        )

    async def _end(self, call: HostCall, what: str) -> NoReturn:
        """The guest hears nothing more: it might go on without the answer. Its attempt has failed, and the
        engine ends the fork."""
        caller = self._caller
        error = ForkDivergedError(caller.node, caller.attempt, what)
        log.warning("fork_diverged", run=caller.run, node=caller.node, why=error.message)
        finished = NodeFinished(
            node=caller.node,
            attempt=caller.attempt,
            status="failed",
            error=GuestError(code=error.named_code, message=error.message),
            calls=call.index,
        )
        await self._branches.state(self._draft(call, finished, (), None))
        await asyncio.Event().wait()  # until the runner stops the attempt
        raise AssertionError


def _unknown(run: str, op: str) -> RefusedError:
    return RefusedError(
        f"{op}: run {run} began this and its end is not known; a fork does not do it again",
        hint="ask the recipient; a new run asks a person first",
        code="effect.unknown_outcome",
    )

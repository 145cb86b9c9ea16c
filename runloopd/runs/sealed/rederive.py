"""A run told again with other values in their places: what stands in for a secret is heard by every guest,
and whatever comes of it (arguments, results, outputs, digests, the engine's facts) is made again, not edited.

What came from outside (parameters, answers, decisions) is replaced by a stand-in, the same everywhere. Then
every attempt is executed on it in the sandbox. So the result is a record that re-executes, of a run that
never was. Where a guest or the engine goes another way than before (an agent that looks at the length of a
name, or at a hash), nothing can be told: :class:`Otherwise` names the place.

Knows: which facts are made by whom. Does not know: which values go (``pog.sealed.rules``), the file's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import msgspec

from openings import child
from openings.commands import Command, ScheduleNode, fact
from openings.comparers import Frame, comparable
from openings.demands import AttemptOutcome, Reexecute
from openings.engine import apply, fresh, initial
from openings.errors import EngineError
from openings.state import RunState, base
from openings.talk import SPEAKING, message_id, posted
from pog.chain import GENESIS, Row, decode_row, relink, setting
from pog.sealed.check import Sealed
from pog.sealed.seal import Content, named_blobs
from pog.sealed.standins import Standins
from runloop.digest import canonical, digest
from runloop.errors import DivergenceError, RunloopError
from runloop.events import (
    ArtifactCreated,
    Event,
    GuestError,
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
    RunStarted,
    TimerSet,
)
from runloop.ids import child_run_id
from runloopd.broker.calls import Answerer, HostCall
from runloopd.broker.quotas import Quotas
from runloopd.broker.record import Record, effect_key
from runloopd.runs.replayer import Replayer, Source
from runloopd.runs.sealed.changed import STRUCTURE, Bytes
from runloopd.runs.sealed.retold import Instead, Key, Outputs, Retold, indexed, is_cut
from runloopd.runtime.supervisor import Runtime

__all__ = ["Otherwise", "Rederived", "rederive"]

_ENGINE = (NodeScheduled, NodeSkipped, NodeCancelled, NodeExpanded, NodeGathered, TimerSet, RunFinished)


class Otherwise(DivergenceError):
    """With a stand-in in its place the run takes another course. Nothing is written."""

    code: ClassVar[str] = "redact.otherwise"

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"the run goes another way at {where}: {what}",
            hint="choose other rules: something there looks at the very value, its length or its hash",
            where=where,
        )


class Rederived:
    """The derived record, and what was replaced to make it."""

    def __init__(self, content: Content, places: list[dict[str, Any]], hashes: int) -> None:
        self.content = content
        self.places = places
        """``{event, kind, places}`` and ``{blob, kind, places}``, in the names of the derived record."""
        self.hashes = hashes
        """Digests and keys that nobody can make again, replaced."""


async def rederive(
    sealed: Sealed, standins: Standins, salt: bytes, source: Source, runtime: Runtime
) -> Rederived:
    """Tell the run again. Raises :class:`Otherwise`."""
    return await _Telling(sealed, standins, salt, source, runtime).tell()


class _Telling:
    def __init__(
        self, sealed: Sealed, standins: Standins, salt: bytes, source: Source, runtime: Runtime
    ) -> None:
        self._old = sealed.content
        self._manifest = sealed.manifest
        self._standins = standins
        self._bytes = Bytes(sealed.content, standins, salt)
        self._outputs = Outputs(runtime)
        self._replayer = Replayer(Instead(source, self._bytes.made), cast(Runtime, self._outputs))
        self._record = Record(Quotas())
        self._calls, self._ends = indexed(sealed.content.events)
        self._events: dict[str, list[Event]] = {}
        self._states: dict[str, RunState] = {}
        self._started: dict[str, RunStarted] = {}
        self._finished: dict[str, RunFinished] = {}
        self._offers: dict[tuple[Any, ...], list[tuple[Command, Payload]]] = {}
        self._heard: dict[Key, list[HostCall]] = {}
        self._outcomes: dict[Key, AttemptOutcome] = {}
        self._posts: dict[tuple[str, str], MessagePosted] = {}

    async def tell(self) -> Rederived:
        rows: list[Row] = []
        events: list[Event] = []
        previous = GENESIS
        for old, row in zip(self._old.events, self._old.rows, strict=True):
            before = self._standins.tally.copy()
            # Counted on what was there, whoever makes the fact again.
            self._standins.value(msgspec.to_builtins(old.payload), structure=STRUCTURE)
            self._bytes.note({"event": old.id}, self._standins.tally - before)
            payload = self._payload(old)
            made = self._row(old, row, payload, previous)
            previous = made.hash
            event = decode_row(made)
            self._take(event)
            rows.append(made)
            events.append(event)
            if isinstance(payload, NodeScheduled):
                await self._execute(old, event, payload)
        named = {name for event in events for name in named_blobs(event)}
        head = self._manifest.head
        content = Content(
            run=self._old.run,
            runs=self._old.runs,
            rows=rows,
            events=events,
            blobs={name: self._bytes.made[name] for name in sorted(named)},
            bundles=self._old.bundles,
            chain=(),
            head=msgspec.structs.replace(head, public_key=None, signature=None),
            prices=self._old.prices,
        )
        places = [place for place in self._bytes.places if place.get("blob", next(iter(named), "")) in named]
        return Rederived(content, places, len(self._bytes.unknown))

    # --- one fact ---------------------------------------------------------------------------------

    def _payload(self, old: Event) -> Payload:  # noqa: PLR0911 - one per maker of facts
        payload, run = old.payload, old.run or ""
        if isinstance(payload, RunStarted):
            return self._start(payload)
        if isinstance(payload, NodeFinished) and payload.status != "timed_out":
            return self._ended(old, run, payload)
        if isinstance(payload, (*_ENGINE, NodeFinished)):
            return self._stated(old, run)
        if isinstance(payload, HostcallAdmitted | HostcallDelivered):
            return self._called(run, payload)
        if isinstance(payload, MessageSent):
            return self._sent(run, payload)
        if isinstance(payload, MessagePosted):
            return self._said(old, run, payload)
        if isinstance(payload, ArtifactCreated) and payload.port is not None:
            return self._saved(run, payload)
        return cast(Payload, self._told(payload))

    def _told(self, payload: Payload, **fields: Any) -> Any:
        """A fact that came from outside, with stand-ins; its bytes go along."""
        plain = msgspec.to_builtins(payload)
        for name, value in plain.items():
            if name not in fields and (name == "blob" or name.endswith("_blob")) and value in self._old.blobs:
                fields[name] = self._bytes.blob(value)
        made = self._bytes.value(plain, structure=STRUCTURE)
        return msgspec.convert({**made, **msgspec.to_builtins(fields)}, type(payload))

    def _start(self, started: RunStarted) -> RunStarted:
        definition = self._bytes.value(started.definition, structure=STRUCTURE | {"name"})
        self._bytes.know(started.definition_digest, digest(definition))
        kept = ("agents", "engine", "opening", "parent", "fork", "lineage", "policy")
        fields = {name: getattr(started, name) for name in kept}
        made = self._told(started, definition=definition, definition_digest=digest(definition), **fields)
        return cast(RunStarted, made)

    def _stated(self, old: Event, run: str) -> Payload:
        """A fact of the engine: the one that it gives now for the same thing."""
        offers = self._offers.get(_about(run, old.payload), [])
        if not offers:
            raise Otherwise(f"event {old.id}", f"the engine does not give {_named(old.payload)}")
        wanted = comparable(self._told(old.payload))
        place = next((i for i, (_, would) in enumerate(offers) if comparable(would) == wanted), 0)
        command, would = offers.pop(place)
        payload = old.payload
        if isinstance(payload, TimerSet):
            return msgspec.structs.replace(cast(TimerSet, would), due_ms=payload.due_ms)
        if isinstance(payload, NodeScheduled):
            now = cast(NodeScheduled, would)
            self._bytes.know(payload.key, now.key)
            self._bytes.put(canonical(cast(ScheduleNode, command).input), payload.input_blob)
        if isinstance(payload, RunFinished):
            same = cast(RunFinished, would)
            if same.outcome != payload.outcome:
                raise Otherwise(f"run {run}", f"it ends as {same.outcome}, not as {payload.outcome}")
            self._bytes.know(payload.output_digest, same.output_digest)
        return would

    def _called(self, run: str, payload: HostcallAdmitted | HostcallDelivered) -> Payload:
        """A host call: its arguments as the guest gave them now, its answer with stand-ins."""
        key = run, payload.node, payload.attempt
        heard = self._heard.get(key, [])
        if payload.call >= len(heard):
            return cast(Payload, self._told(payload))  # of an attempt that could never be executed
        call = heard[payload.call]
        args = self._bytes.put(canonical(call.args), payload.args_blob)
        self._bytes.know(payload.args_digest, call.args_digest)
        common = {"args_digest": call.args_digest, "args_blob": args, "fuel": call.fuel}
        if isinstance(payload, HostcallAdmitted):
            alike = sum((c.op, c.args_digest) == (call.op, call.args_digest) for c in heard[: payload.call])
            new = effect_key(run, payload.node, call.op, alike, call.args_digest)
            self._bytes.know(payload.key, new)
            return cast(Payload, self._told(payload, key=new, request_bytes=call.request_bytes, **common))
        result = self._bytes.blob(payload.result_blob)
        self._bytes.know(payload.result_digest, result)
        return cast(
            Payload,
            self._told(
                payload,
                result_digest=result,
                result_blob=result,
                request_bytes=call.request_bytes,
                response_bytes=len(self._bytes.made[result]),
                **common,
            ),
        )

    def _ended(self, old: Event, run: str, payload: NodeFinished) -> NodeFinished:
        key = run, payload.node, payload.attempt
        node = self._states[run].definition(payload.node)
        if node.nests is not None:
            return self._nested(old, key, payload)
        outcome = self._outcomes.get(key)
        if outcome is None or self._ends.get(key) is not payload or is_cut(payload):
            return self._cut_short(payload)
        if outcome.reason is not None:
            raise Otherwise(f"node {payload.node}", f"it cannot be executed here: {outcome.reason}")
        was = "succeeded" if payload.error is None else payload.error.code
        now = "succeeded" if outcome.ok else outcome.error.code if outcome.error else "failed"
        if was != now or outcome.calls != payload.calls:
            raise Otherwise(
                f"node {payload.node} attempt {payload.attempt}",
                f"it ends as {now} after {outcome.calls} host calls, not as {was} after {payload.calls}",
            )
        output = self._outputs.of(key) if outcome.ok else None
        made = self._output(payload, output, outcome.error)
        return msgspec.structs.replace(made, fuel=outcome.fuel, calls=outcome.calls)

    def _nested(self, old: Event, key: Key, payload: NodeFinished) -> NodeFinished:
        run = child_run_id(*key)
        if run not in self._finished:
            return self._cut_short(payload)
        retry = self._states[key[0]].definition(payload.node).retry
        output, error = child.result(self._states[run], self._finished[run], retry)
        if (error is None) != (payload.error is None):
            raise Otherwise(f"event {old.id}", "the nested run ends otherwise")
        return self._output(payload, output, error)

    def _cut_short(self, payload: NodeFinished) -> NodeFinished:
        """An end that nobody can make again, with stand-ins."""
        error = None if payload.error is None else self._bytes.value(msgspec.to_builtins(payload.error))
        output = None if payload.output is None else self._bytes.value(payload.output)
        return self._output(payload, output, msgspec.convert(error, GuestError | None))

    def _output(
        self, payload: NodeFinished, output: dict[str, Any] | None, error: GuestError | None
    ) -> NodeFinished:
        name = None if output is None else digest(output)
        if payload.output_digest is not None and name is not None:
            self._bytes.know(payload.output_digest, name)
        return msgspec.structs.replace(payload, output=output, output_digest=name, error=error)

    def _sent(self, run: str, payload: MessageSent) -> Payload:
        """A frame between daemon and agent, as it would have crossed the bus."""
        outcome = self._outcomes.get((run, payload.node or "", payload.attempt or 0))
        frames: Sequence[Frame] = () if outcome is None else outcome.frames
        again = next((frame for frame in frames if frame.type == payload.type), None)
        if again is None:
            return cast(Payload, self._told(payload))
        made = {name: getattr(again, name) for name in Frame.__slots__}
        return msgspec.structs.replace(payload, **made)

    def _said(self, old: Event, run: str, payload: MessagePosted) -> Payload:
        """A message to other agents: what its call says now."""
        outcome = self._outcomes.get((run, payload.node, payload.attempt))
        lineage = self._started[run].lineage or run
        for call, said in ({} if outcome is None else outcome.said).items():
            if message_id(lineage, payload.node, payload.attempt, call) != payload.message:
                continue
            made, content = posted(
                msgspec.convert(said.args, SPEAKING[said.op]),
                lineage=lineage,
                node=payload.node,
                attempt=payload.attempt,
                call=call,
                earlier=lambda name: self._posts.get((run, name)),
                reply_by_ms=payload.reply_by_ms,
            )
            self._bytes.put(content, payload.content_blob)
            self._posts[run, made.message] = made
            return made
        return cast(Payload, self._told(payload))

    def _saved(self, run: str, payload: ArtifactCreated) -> Payload:
        for node, port, values in self._states[run].saved():
            if (node, port) == (payload.node, payload.port):
                content = canonical(values[-1])
                return cast(
                    Payload,
                    self._told(payload, blob=self._bytes.put(content, payload.blob), size=len(content)),
                )
        return cast(Payload, self._told(payload))

    # --- the run it belongs to --------------------------------------------------------------------

    def _row(self, old: Event, row: Row, payload: Payload, previous: bytes) -> Row:
        provenance = self._bytes.value(msgspec.to_builtins(old.provenance), structure=STRUCTURE)
        texts = canonical(msgspec.to_builtins(payload)), canonical(provenance)
        actor = self._bytes.text(old.actor)
        hashed = relink(
            previous, old.id, old.ts_ms, setting(actor, old.kind, payload.version, old.scope, old.run), *texts
        )
        return Row(
            old.id, old.ts_ms, actor, old.kind, payload.version, old.scope, old.run,
            texts[0].decode(), texts[1].decode(), hashed, previous,
        )  # fmt: skip

    def _take(self, event: Event) -> None:
        run = event.run or ""
        before = self._states.get(run) or initial()
        try:
            after = self._states[run] = apply(before, event)
        except (EngineError, RunloopError) as error:
            raise Otherwise(f"event {event.id}", error.message) from error
        self._record.fold([event])
        self._events.setdefault(run, []).append(event)
        if isinstance(event.payload, RunStarted):
            self._started[run] = event.payload
        elif isinstance(event.payload, RunFinished):
            self._finished[run] = event.payload
        for command in fresh(before, after):
            would = fact(command)
            offers = self._offers.setdefault(_about(run, would), [])
            if all(command != other for other, _ in offers):
                offers.append((command, would))

    async def _execute(self, old: Event, event: Event, scheduled: NodeScheduled) -> None:
        """Execute an attempt that is about to begin, to its recorded end, before the facts that come of
        it."""
        run = event.run or ""
        key = run, scheduled.node, scheduled.attempt
        started = self._started[run]
        pin = started.agents.get(base(scheduled.node))
        if pin is None or self._states[run].definition(scheduled.node).nests is not None:
            return
        end = self._ends.get(key)
        calls = self._calls.get(key, [])
        whole = isinstance(end, NodeFinished) and not is_cut(end)
        answerer = Retold(calls, self._bytes, cut_off=not whole)
        demand = Reexecute(
            run=run,
            trace=started.lineage or run,
            node=scheduled.node,
            attempt=scheduled.attempt,
            pin=pin,
            scheduled=event,
            recorded=tuple(calls),
            expected=end if whole and isinstance(end, NodeFinished) else None,
        )
        known = self._record.run(run)
        assert known is not None, "run.started was folded"
        limits = self._record.limits(known, pin.name)
        allowance = known.allowance(pin.name, scheduled.node, scheduled.attempt, limits)
        outcome = await self._replayer.reexecute(demand, cast(Answerer, answerer), allowance)
        if answerer.mismatch is not None:
            raise Otherwise(f"node {scheduled.node} attempt {scheduled.attempt}", answerer.mismatch.what)
        if outcome.reason is not None and calls:
            raise Otherwise(f"node {scheduled.node}", f"it cannot be executed here: {outcome.reason}")
        self._outcomes[key], self._heard[key] = outcome, answerer.heard


def _about(run: str, payload: Payload) -> tuple[Any, ...]:
    parts = (getattr(payload, name, None) for name in ("node", "attempt", "timer"))
    return (run, payload.kind, *parts)


def _named(payload: Payload) -> str:
    return f"{payload.kind} {getattr(payload, 'node', '') or getattr(payload, 'timer', '')}".strip()

"""What a replay compares, one comparison per function: each ends the replay at a difference.

Knows: what must be equal, and how a difference is named. Does not know: when it is time to compare
(``openings.replay``). Without any single one of these a changed record would pass for the real one
(tests/unit/openings/test_comparers.py takes them out one by one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from openings import child
from openings.certificate import Diverged, Divergence, DivergenceCode
from openings.definition import Opening, Retry
from openings.engine import fold
from openings.talk import SPEAKING, posted
from openings.transcript import AttemptRecord
from openings.validate import complete
from runloop.digest import blob_digest, canonical, digest
from runloop.errors import RunloopError
from runloop.events import (
    ArtifactCreated,
    Event,
    GuestError,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeFinished,
    NodeScheduled,
    Payload,
    RunFinished,
    RunParent,
    RunStarted,
    encode_payload,
)
from runloop.ids import child_run_id

__all__ = [
    "Frame",
    "Said",
    "absent",
    "artifact",
    "asked",
    "calls",
    "comparable",
    "definition",
    "diverge",
    "frame",
    "fuel",
    "nested",
    "nested_result",
    "output",
    "post",
    "result",
    "said",
    "unposted",
    "unstated",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A frame as it was made again: all of it that does not come from a clock or a counter."""

    sender: str
    receiver: str
    topic: str
    type: str
    schema_id: int
    size: int
    """Bytes of the whole frame: header and body."""
    body_digest: str

    @classmethod
    def of(cls, sent: MessageSent) -> Frame:
        """The part of a recorded frame that can be made again."""
        return cls(
            sender=sent.sender,
            receiver=sent.receiver,
            topic=sent.topic,
            type=sent.type,
            schema_id=sent.schema_id,
            size=sent.size,
            body_digest=sent.body_digest,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A call by which a guest said something to others, as it was made again."""

    op: str
    args: Any
    """Decoded JSON."""


def diverge(
    where: str,
    what: str,
    expected: str,
    actual: str,
    *,
    code: DivergenceCode = "replay.result",
    event: int | None = None,
    call: int | None = None,
) -> NoReturn:
    """End the replay here."""
    raise Diverged(
        Divergence(
            code=code, where=where, what=what, expected=expected, actual=actual, event=event, call=call
        )
    )


# --- the run --------------------------------------------------------------------------------------


def definition(event: Event, started: RunStarted) -> None:
    """The definition in the record has its digest."""
    actual = digest(started.definition)
    if actual != started.definition_digest:
        what = "the recorded definition does not have its recorded digest"
        diverge(f"event {event.id}", what, started.definition_digest, actual, event=event.id)


def artifact(event: Event, recorded: ArtifactCreated, content: bytes) -> None:
    """A saved output: its bytes are those of the value the node gave."""
    what = "the saved artifact is not what the node gave"
    for before, after in (
        (recorded.blob, blob_digest(content)),
        (f"{recorded.size} bytes", f"{len(content)} bytes"),
    ):
        if before != after:
            diverge(f"artifact {recorded.name}", what, before, after, event=event.id)


# --- what the engine states -----------------------------------------------------------------------


def comparable(payload: Payload) -> dict[str, Any]:
    """A fact without what only the clock knows."""
    made = encode_payload(payload)
    made.pop("due_ms", None)
    return {"kind": payload.kind, **made}


def unstated(event: Event, about: str, nearest: Payload | None) -> Diverged:
    """Why no command fits a recorded fact: there is none at all, or one that says something else."""
    name = f"{event.kind} {about}".rstrip()
    recorded = comparable(event.payload)
    code: DivergenceCode = "replay.missing"
    if nearest is None:
        what, actual = f"the engine does not give {name}", ""
    else:
        made = comparable(nearest)
        differing = ", ".join(field for field in recorded if recorded[field] != made.get(field))
        what, actual = f"the engine gives another {name}: {differing}", digest(made)
        # An attempt that starts with another input has other arguments; all else is another result.
        code = "replay.arguments" if isinstance(event.payload, NodeScheduled) else "replay.result"
    return Diverged(
        Divergence(
            code=code,
            where=f"engine: {name}",
            what=what,
            expected=digest(recorded),
            actual=actual,
            event=event.id,
        )
    )


# --- runs inside runs -----------------------------------------------------------------------------


def absent(event: Event, finished: NodeFinished | None, where: str) -> None:
    """No run is recorded that served an attempt: then it cannot have given anything."""
    if finished is not None and finished.status == "succeeded":
        what = "the run that served it is not in the record"
        diverge(where, what, str(finished.output_digest), "", code="replay.missing", event=event.id)


def nested(
    events: Sequence[Event],
    around: RunStarted,
    parent: RunParent,
    inner: Opening,
    given: Mapping[str, Any],
    where: str,
) -> None:
    """A nested run is the one its attempt asks for: whose, of what, with which parameters and agents."""
    event = events[0]
    started = event.payload
    assert isinstance(started, RunStarted)
    seen_as = around.lineage and child_run_id(around.lineage, parent.node, parent.attempt)
    agents = {node.id: around.agents.get(f"{inner.name}/{node.id}") for node in inner.nodes if not node.nests}
    for name, recorded, now in (
        ("parent", started.parent, parent),
        ("definition", started.definition, inner.to_json()),
        ("parameters", started.params, complete(inner, given)),
        ("agents", {node: started.agents.get(node) for node in agents}, agents),
        ("lineage", started.lineage, seen_as),
    ):
        before, after = digest(msgspec.to_builtins(recorded)), digest(msgspec.to_builtins(now))
        if before != after:
            what = f"the {name} of the run that serves it: the node gives others"
            diverge(where, what, before, after, code="replay.arguments", event=event.id)


def nested_result(
    event: Event, finished: NodeFinished, events: Sequence[Event], retry: Retry, where: str
) -> None:
    """What the attempt gave is what its run gave."""
    ended = next((one.payload for one in events if isinstance(one.payload, RunFinished)), None)
    if ended is None:
        what = "the run that served it has not ended"
        diverge(where, what, str(finished.output_digest), "", code="replay.missing", event=event.id)
    output, error = child.result(fold(events), ended, retry)
    result(
        event,
        finished,
        where,
        ok=error is None,
        output_digest=None if output is None else digest(output),
        error=error,
    )


def delegated(
    events: Sequence[Event], parent: RunParent, heard: HostcallDelivered, run: str, where: str
) -> None:
    """A delegated run is that of the very call, and gave what the call was told."""
    event = events[0]
    started = event.payload
    assert isinstance(started, RunStarted)
    said = started.policy.get("delegated")
    call = said if isinstance(said, dict) else {}
    for name, recorded, now in (
        ("parent", msgspec.to_builtins(started.parent), msgspec.to_builtins(parent)),
        ("call", [call.get("call"), call.get("args_digest")], [heard.call, heard.args_digest]),
    ):
        if recorded != now:
            what = f"the {name} of the run that it was delegated to is another"
            diverge(where, what, digest(recorded), digest(now), code="replay.arguments", event=event.id)
    ended = next((one.payload for one in events if isinstance(one.payload, RunFinished)), None)
    if not heard.ok:
        return  # it failed, or what it gave was more than the call could be told
    if ended is None or ended.outcome != "succeeded":
        what = "the run that it was delegated to did not succeed"
        diverge(where, what, heard.result_digest, "", code="replay.result", event=event.id)
    else:
        told = blob_digest(canonical(child.answer(run, fold(events))))
        if told != heard.result_digest:
            what = "the answer is not what the run that it was delegated to gave"
            diverge(where, what, heard.result_digest, told, code="replay.result", event=event.id)


# --- what a guest did -----------------------------------------------------------------------------


def output(event: Event, finished: NodeFinished, where: str) -> None:
    """The output in the record has its digest."""
    if finished.output is not None and digest(finished.output) != finished.output_digest:
        what = "the recorded output does not have its recorded digest"
        diverge(where, what, str(finished.output_digest), digest(finished.output), event=event.id)


def result(
    event: Event,
    finished: NodeFinished,
    where: str,
    *,
    ok: bool,
    output_digest: str | None,
    error: GuestError | None,
) -> None:
    """The attempt ended as it did: with the same output, or for the same reason."""
    recorded = _end(finished.status == "succeeded", finished.output_digest, finished.error)
    _same(event, where, "result", recorded, _end(ok, output_digest, error))


def fuel(event: Event, finished: NodeFinished, where: str, now: int) -> None:
    """It burnt as much."""
    _same(event, where, "fuel", str(finished.fuel), str(now))


def calls(event: Event, finished: NodeFinished, where: str, now: int) -> None:
    """It made as many host calls."""
    _same(event, where, "number of host calls", str(finished.calls), str(now))


def _same(event: Event, where: str, name: str, recorded: str, now: str) -> None:
    if recorded != now:
        diverge(where, f"its {name} is not the recorded one", recorded, now, event=event.id)


def _end(ok: bool, output_digest: str | None, error: GuestError | None) -> str:
    """One digest for how an attempt ended: of its output, or of its error."""
    if ok:
        return str(output_digest)
    return digest(["error", None if error is None else msgspec.to_builtins(error)])


# --- what was said --------------------------------------------------------------------------------


def asked(event: Event, known: bool) -> None:
    """Whoever said something was asked to: the engine had scheduled that attempt."""
    if not known:
        what = f"the engine had not scheduled whoever said it ({event.kind})"
        diverge(f"event {event.id}", what, digest(comparable(event.payload)), "", event=event.id)


def frame(event: Event, sent: MessageSent, where: str, made: Sequence[Frame]) -> None:
    """The frame that crossed the bus is the one that is made again: address, size, every byte of its body."""
    recorded = Frame.of(sent)
    alike = [one for one in made if one.type == sent.type]
    again = recorded if recorded in alike else next(iter(alike), None)
    if again is None:
        what = f"no {sent.type} is made again"
        diverge(where, what, sent.body_digest, "", event=event.id)
    differing = [name for name in Frame.__slots__ if getattr(recorded, name) != getattr(again, name)]
    if differing:
        name = differing[-1]  # the digest of the body, where that is what differs
        what = f"another {sent.type} is made: {', '.join(differing)}"
        diverge(where, what, str(getattr(recorded, name)), str(getattr(again, name)), event=event.id)


def said(where: str, made: Sequence[Frame], recorded: Sequence[Event]) -> None:
    """No frame that is made is missing in the record."""
    types = {event.payload.type for event in recorded if isinstance(event.payload, MessageSent)}
    for one in made:
        if one.type not in types:
            what = f"the {one.type} is not in the record"
            diverge(where, what, "", one.body_digest, code="replay.missing")


def post(
    event: Event,
    recorded: MessagePosted,
    where: str,
    *,
    call: int | None,
    said: Said | None,
    lineage: str,
    earlier: Callable[[str], MessagePosted | None],
) -> None:
    """A message to others of the run is what the call says that posted it; only time comes from outside."""
    if call is None or said is None or said.op not in SPEAKING:
        what = f"no host call posts {recorded.message}"
        diverge(where, what, recorded.content_digest, "", event=event.id)
    try:
        made, _ = posted(
            msgspec.convert(said.args, SPEAKING[said.op]),
            lineage=lineage,
            node=recorded.node,
            attempt=recorded.attempt,
            call=call,
            earlier=earlier,
            reply_by_ms=recorded.reply_by_ms,
        )
    except (RunloopError, msgspec.ValidationError) as error:
        what = f"host call {call} cannot have posted it: {error}"
        diverge(where, what, recorded.content_digest, "", event=event.id, call=call)
    before, after = comparable(recorded), comparable(made)
    if before != after:
        differing = ", ".join(name for name in before if before[name] != after.get(name))
        what = f"host call {call} posts another message: {differing}"
        diverge(where, what, digest(before), digest(after), event=event.id, call=call)


def _answered(payload: Payload) -> tuple[str, str, str] | None:
    """A call and its answer, apart from where it stands; None for a refusal."""
    if not isinstance(payload, HostcallDelivered) or not payload.ok:
        return None
    return payload.op, payload.args_digest, payload.result_digest


def unposted(
    where: str, calls: Mapping[str, int], record: AttemptRecord, before: Sequence[AttemptRecord] = ()
) -> None:
    """No message that is said again, and was taken, is missing in the record. ``calls``: message -> call.

    ``before``: the node's earlier attempts. What one of them said is not said again: its answer, which names
    the message, is heard once more.
    """
    known = {_answered(one.payload) for each in before for one in each.answers.values()}
    for message, call in calls.items():
        answer = record.answers.get(call)
        if answer is None or _answered(answer.payload) in known - {None}:
            continue
        if isinstance(answer.payload, HostcallDelivered) and answer.payload.ok:
            what = f"the message {message} that host call {call} posts is not in the record"
            diverge(where, what, "", message, code="replay.missing", event=answer.id, call=call)
